# SPDX-License-Identifier: Apache-2.0
"""RFC 3161 time stamps: when an authority saw a signature (bundles.md 3.7; CMS is RFC 5652, ESS RFC 5816).

A stamp by an authority that nobody lists is passed over; whatever else is wrong with one refuses with reason `time`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from ...errors import SignatureError
from ..sigstore.certificates import STAMPING_PURPOSES, TIME_STAMPING, require_path
from ..sigstore.der import (
    BOOLEAN,
    CONTEXT_0,
    CONTEXT_1,
    GENERALIZED_TIME,
    INTEGER,
    NULL,
    OCTET_STRING,
    OID,
    SEQUENCE,
    SET,
    Element,
    parse_der,
)
from ..sigstore.keys import SIGNATURE_ALGORITHMS, Certificate, load_certificate
from .algorithms import require_profile
from .trustedroot import Authority

_CERTIFICATE_LIMIT = 10  # embedded
_SIGNED_DATA, _TST_INFO = "1.2.840.113549.1.7.2", "1.2.840.113549.1.9.16.1.4"
_CONTENT_TYPE, _MESSAGE_DIGEST = "1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4"
_SIGNING_CERTIFICATE, _SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.12", "1.2.840.113549.1.9.16.2.47"
_PURPOSE_EXTENSION = "2.5.29.37"
_HASHES = {"2.16.840.1.101.3.4.2.1": "sha256", "2.16.840.1.101.3.4.2.2": "sha384", "2.16.840.1.101.3.4.2.3": "sha512"}
_SIGNATURES = SIGNATURE_ALGORITHMS | {"1.2.840.113549.1.1.1": ("rsa", "")}  # no hash: the digest algorithm's


class VerifiedTime(NamedTuple):
    """A time (seconds since 1970) that `authority` vouches for."""

    time: float
    authority: Authority


class _Signer(NamedTuple):
    """A SignerInfo. `attributes` are values by type, each type once; `signed` is what is signed."""

    hash_name: str
    attributes: dict[str, Element]
    signed: bytes
    algorithm: str
    signature: bytes


class _Stamp(NamedTuple):
    """What a response says; nothing of it is verified but its form."""

    content: bytes
    time: float
    imprint_hash: str
    imprint: bytes
    certificates: tuple[Certificate, ...]
    signer: Element


def verified_time(
    response: bytes, signature: bytes, authorities: Sequence[Authority], where: str
) -> VerifiedTime | None:
    """The time in `response`, which must be about `signature`; None if no listed authority is its signer.

    `where` names the file that lists them. Raises SignatureError (`time`).
    """
    outside: list[SignatureError] = []  # an authority may be listed twice, with one anchor and several windows
    try:
        stamp = _read_response(response)
        if hashlib.new(stamp.imprint_hash, signature).digest() != stamp.imprint:
            _refuse("the time stamp is about another signature")
        for authority in authorities:
            certificate = _signer_certificate(stamp, authority)
            if certificate is not None:
                _require_signed(_read_signer(stamp.signer), stamp, certificate)
                try:
                    authority.window.require(stamp.time, "the timestamp authority", where, "time")
                except SignatureError as error:
                    outside.append(error)
                    continue
                return VerifiedTime(stamp.time, authority)
    except ValueError as error:
        raise SignatureError(f"time stamp: {error}", reason="time") from error
    if outside:
        raise outside[0]
    return None


def _signer_certificate(stamp: _Stamp, authority: Authority) -> Certificate | None:
    """The first certificate that the stamp names, if a path leads from it to the authority's anchor at its time.

    Where the root lists the authority's own certificate it can be no other. Extended purposes of the certificate itself
    are looked at later, and then refuse instead of passing it over.
    """
    identifier = stamp.signer.fields()
    identifier.take(INTEGER)
    name = identifier.take(SEQUENCE).fields()
    named = (name.take(SEQUENCE).raw, name.take(INTEGER).integer())
    name.end()
    listed = authority.chain[:1] if not authority.chain[0].is_authority else stamp.certificates
    certificate = next((each for each in listed if (each.issuer, each.serial) == named), None)
    if certificate is None:
        return None
    try:
        require_path(
            certificate._replace(purposes=None),
            [*authority.chain[:-1], *stamp.certificates],
            authority.chain[-1:],
            stamp.time,
            names_exempt=False,
            purposes=STAMPING_PURPOSES,
        )
    except SignatureError:
        return None
    return certificate


def _read_response(data: bytes) -> _Stamp:
    """Checks 1 to 3. Raises ValueError."""
    response = parse_der(data).fields()
    status = response.take(SEQUENCE).fields().take(INTEGER).integer()
    if status != 0:
        _fail(f"status {status}, expected 0 (granted)")
    token = response.take(SEQUENCE).fields()
    response.end()
    _require_oid(token.take(OID), _SIGNED_DATA)
    signed_data = _only(token.take(CONTEXT_0)).fields()
    token.end()
    signed_data.take(INTEGER)
    signed_data.take(SET)
    encapsulated = signed_data.take(SEQUENCE).fields()
    _require_oid(encapsulated.take(OID), _TST_INFO)
    content = _only(encapsulated.take(CONTEXT_0)).expect(OCTET_STRING).content
    encapsulated.end()
    embedded = signed_data.maybe(CONTEXT_0)
    certificates = embedded.children if embedded else ()
    if len(certificates) > _CERTIFICATE_LIMIT:
        _fail(f"{len(certificates)} certificates, expected at most {_CERTIFICATE_LIMIT}")
    signed_data.maybe(CONTEXT_1)  # revocation lists
    signers = signed_data.take(SET).children
    signed_data.end()
    if len(signers) != 1:
        _fail(f"{len(signers)} signers, expected one")
    time, imprint_hash, imprint = _read_info(content)
    return _Stamp(
        content,
        time,
        imprint_hash,
        imprint,
        tuple(load_certificate(each.expect(SEQUENCE).raw) for each in certificates),
        signers[0],
    )


def _read_info(content: bytes) -> tuple[float, str, bytes]:
    """Time and imprint of a TSTInfo (RFC 3161 2.4.2); the rest is only read for its form."""
    fields = parse_der(content).fields()
    version = fields.take(INTEGER).integer()
    if version != 1:
        _fail(f"version {version}, expected 1")
    fields.take(OID).oid()
    imprint = fields.take(SEQUENCE).fields()
    imprint_hash = _hash(imprint.take(SEQUENCE))
    digest = imprint.take(OCTET_STRING).content
    imprint.end()
    fields.take(INTEGER).integer()  # the serial number
    time = fields.take(GENERALIZED_TIME).time()
    fields.maybe(SEQUENCE)  # accuracy
    fields.maybe(BOOLEAN)  # ordering
    nonce = fields.maybe(INTEGER)
    if nonce is not None:
        nonce.integer()
    fields.maybe(CONTEXT_0)  # name of the authority
    extensions = fields.maybe(CONTEXT_1)
    fields.end()
    for each in extensions.children if extensions else ():
        extension = each.fields()
        number = extension.take(OID).oid()
        if extension.maybe(BOOLEAN) is not None:
            _fail(f"a critical extension {number}")
    return time, imprint_hash, digest


def _read_signer(element: Element) -> _Signer:
    """A SignerInfo (RFC 5652 5.3) with signed attributes, each type once with one value (check 5)."""
    fields = element.fields()
    fields.take(INTEGER)
    fields.take(SEQUENCE)  # the signer's name, read before
    hash_name = _hash(fields.take(SEQUENCE))
    attributes: dict[str, Element] = {}
    listed = fields.maybe(CONTEXT_0)
    if listed is None:
        _fail("no signed attributes")
    for each in listed.children:
        attribute = each.fields()
        kind = attribute.take(OID).oid()
        values = attribute.take(SET).children
        attribute.end()
        if kind in attributes or len(values) != 1:
            _fail(f"attribute {kind} more than once or without one value")
        attributes[kind] = values[0]
    algorithm = fields.take(SEQUENCE).fields()
    name = algorithm.take(OID).oid()
    algorithm.maybe(NULL)
    algorithm.end()
    signature = fields.take(OCTET_STRING).content
    fields.maybe(CONTEXT_1)  # attributes that are not signed
    fields.end()
    # signed as a SET OF, not with the tag that it has here (RFC 5652 5.4)
    return _Signer(hash_name, attributes, bytes((SET,)) + listed.raw[1:], name, signature)


def _require_signed(signer: _Signer, stamp: _Stamp, certificate: Certificate) -> None:
    """Checks 5 to 8: the attributes are about this content and this certificate, whose key signed them."""
    attributes = signer.attributes
    if _CONTENT_TYPE not in attributes or attributes[_CONTENT_TYPE].oid() != _TST_INFO:
        _fail("the attribute of the content type is missing or another")
    expected = hashlib.new(signer.hash_name, stamp.content).digest()
    if _MESSAGE_DIGEST not in attributes or attributes[_MESSAGE_DIGEST].expect(OCTET_STRING).content != expected:
        _fail("the attribute of the content's digest is missing or another")
    _require_certificate_named(attributes, certificate)
    kind, hash_name = _SIGNATURES.get(signer.algorithm, ("", ""))
    try:
        key = certificate.public_key()
        require_profile(key)
    except SignatureError as error:
        _fail(str(error))
    if key.kind != kind or (hash_name or signer.hash_name) != signer.hash_name:
        _fail(f"signature algorithm {signer.algorithm} with {signer.hash_name} and a key of kind {key.kind}")
    if certificate.purposes != frozenset((TIME_STAMPING,)) or _PURPOSE_EXTENSION not in certificate.critical:
        _fail("the authority's certificate is not for time stamping alone, or not critically so")
    if certificate.usages is not None and not certificate.usages & {"digitalSignature", "nonRepudiation"}:
        _fail("the authority's certificate is not for signatures")
    if certificate.is_authority:
        _fail("signed by a certificate authority, expected a certificate for time stamping")
    try:
        key.require_signed(signer.signature, signer.signed, signer.hash_name)
    except SignatureError as error:
        _fail(str(error))


def _require_certificate_named(attributes: dict[str, Element], certificate: Certificate) -> None:
    """Check 6: the signed attributes name the signer's certificate, by SHA-1 only where there is nothing newer."""
    newer, older = attributes.get(_SIGNING_CERTIFICATE_V2), attributes.get(_SIGNING_CERTIFICATE)
    chosen, hash_name = (newer, "sha256") if newer is not None else (older, "sha1")
    if chosen is None:
        _fail("no attribute names the authority's certificate")
    first = chosen.fields().take(SEQUENCE).children
    if not first:
        _fail("the attribute that names the authority's certificate is empty")
    identifier = first[0].fields()
    algorithm = identifier.maybe(SEQUENCE) if newer is not None else None
    if algorithm is not None:
        hash_name = _hash(algorithm)
    digest = identifier.take(OCTET_STRING).content
    if digest != hashlib.new(hash_name, certificate.der, usedforsecurity=False).digest():
        _fail("the signed attributes name another certificate")


def _hash(algorithm: Element) -> str:
    fields = algorithm.fields()
    name = fields.take(OID).oid()
    fields.maybe(NULL)
    fields.end()
    if name not in _HASHES:
        _fail(f"hash {name}, expected SHA-256, SHA-384 or SHA-512")
    return _HASHES[name]


def _only(element: Element) -> Element:
    if len(element.children) != 1:
        _fail(f"{len(element.children)} elements, expected one")
    return element.children[0]


def _require_oid(element: Element, expected: str) -> None:
    found = element.oid()
    if found != expected:
        _fail(f"content of type {found}, expected {expected}")


def _refuse(why: str) -> NoReturn:
    raise SignatureError(why, reason="time")


def _fail(why: str) -> NoReturn:
    raise ValueError(why)

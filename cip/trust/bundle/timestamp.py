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
    ABSENT,
    BOOLEAN,
    CONTEXT_0,
    CONTEXT_1,
    GENERALIZED_TIME,
    INTEGER,
    NULL,
    OCTET_STRING,
    OID,
    OPTIONAL,
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
    issuer, serial = stamp.signer.members(INTEGER, SEQUENCE, more=True)[1].members(SEQUENCE, INTEGER)
    named = (issuer.raw, serial.integer())
    listed = authority.chain[:1] if not authority.chain[0].is_authority else stamp.certificates
    certificate = next((each for each in listed if (each.issuer, each.serial) == named), None)
    if certificate is None:
        return None
    try:
        leaf, between = certificate._replace(purposes=None), [*authority.chain[:-1], *stamp.certificates]
        require_path(leaf, between, authority.chain[-1:], stamp.time, names_exempt=False, purposes=STAMPING_PURPOSES)
    except SignatureError:
        return None
    return certificate


def _read_response(data: bytes) -> _Stamp:
    """Checks 1 to 3. Raises ValueError."""
    response = parse_der(data)
    status = response.members(SEQUENCE, more=True)[0].members(INTEGER, more=True)[0].integer()
    if status != 0:
        _fail(f"status {status}, expected 0 (granted)")
    _, token = response.members(SEQUENCE, SEQUENCE)
    kind, signed_data = token.members(OID, CONTEXT_0)
    _require_oid(kind, _SIGNED_DATA)
    # version and digest algorithms, the content, certificates, revocation lists, signers
    _, _, encapsulated, embedded, _, listed = _only(signed_data).members(
        INTEGER, SET, SEQUENCE, CONTEXT_0 | OPTIONAL, CONTEXT_1 | OPTIONAL, SET
    )
    kind, wrapped = encapsulated.members(OID, CONTEXT_0)
    _require_oid(kind, _TST_INFO)
    content = _only(wrapped).expect(OCTET_STRING).content
    certificates, signers = embedded.children, listed.children
    if len(certificates) > _CERTIFICATE_LIMIT:
        _fail(f"{len(certificates)} certificates, expected at most {_CERTIFICATE_LIMIT}")
    if len(signers) != 1:
        _fail(f"{len(signers)} signers, expected one")
    return _Stamp(
        content,
        *_read_info(content),
        tuple(load_certificate(each.expect(SEQUENCE).raw) for each in certificates),
        signers[0],
    )


def _read_info(content: bytes) -> tuple[float, str, bytes]:
    """Time and imprint of a TSTInfo (RFC 3161 2.4.2); the rest is only read for its form."""
    # policy, serial number; where they are there accuracy, ordering, nonce, name of the authority, extensions
    version, policy, imprint, serial, time, _, _, nonce, _, extensions = parse_der(content).members(
        *(INTEGER, OID, SEQUENCE, INTEGER, GENERALIZED_TIME),
        *(each | OPTIONAL for each in (SEQUENCE, BOOLEAN, INTEGER, CONTEXT_0, CONTEXT_1)),
    )
    if version.integer() != 1:
        _fail(f"version {version.integer()}, expected 1")
    policy.oid()
    for number in (serial, nonce):
        if number is not ABSENT:
            number.integer()
    algorithm, digest = imprint.members(SEQUENCE, OCTET_STRING)
    for each in extensions.children:
        name, critical = each.members(OID, BOOLEAN | OPTIONAL, more=True)
        if critical is not ABSENT:
            _fail(f"a critical extension {name.oid()}")
        name.oid()
    return time.time(), _hash(algorithm), digest.content


def _read_signer(element: Element) -> _Signer:
    """A SignerInfo (RFC 5652 5.3) with signed attributes, each type once with one value (check 5)."""
    # version, the signer's name, which was read before, and at the end attributes that are not signed
    _, _, digest, listed, signing, signature, _ = element.members(
        INTEGER, SEQUENCE, SEQUENCE, CONTEXT_0 | OPTIONAL, SEQUENCE, OCTET_STRING, CONTEXT_1 | OPTIONAL
    )
    if listed is ABSENT:
        _fail("no signed attributes")
    attributes: dict[str, Element] = {}
    for each in listed.children:
        kind, values = each.members(OID, SET)
        if kind.oid() in attributes or len(values.children) != 1:
            _fail(f"attribute {kind.oid()} more than once or without one value")
        attributes[kind.oid()] = values.children[0]
    algorithm, _ = signing.members(OID, NULL | OPTIONAL)
    # signed as a SET OF, not with the tag that it has here (RFC 5652 5.4)
    return _Signer(_hash(digest), attributes, bytes((SET,)) + listed.raw[1:], algorithm.oid(), signature.content)


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
    if certificate.usages is not None and not certificate.usages & {"digital_signature", "content_commitment"}:
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
    first = chosen.members(SEQUENCE, more=True)[0].children
    if not first:
        _fail("the attribute that names the authority's certificate is empty")
    algorithm, digest = first[0].members(SEQUENCE | OPTIONAL, OCTET_STRING, more=True)
    if algorithm is not ABSENT:
        if newer is None:
            _fail("the attribute that names the authority's certificate by SHA-1 names another hash")
        hash_name = _hash(algorithm)
    if digest.content != hashlib.new(hash_name, certificate.der, usedforsecurity=False).digest():
        _fail("the signed attributes name another certificate")


def _hash(algorithm: Element) -> str:
    kind, _ = algorithm.members(OID, NULL | OPTIONAL)
    name = kind.oid()
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

# SPDX-License-Identifier: Apache-2.0
"""Public keys and certificates: bytes → values; the only importer of `cryptography` (version 38 or later).

What the package accepts is narrowed to what signatures.md 5.3 and 5.5 list: named curves, RSA from 2048 bits, Ed25519,
each in its one canonical encoding. Its documented exceptions become SignatureError here; its absence refuses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from ...errors import MissingDependencyError, SignatureError, quote
from ..signed.armor import pem_blocks
from .der import INTEGER, OID, SEQUENCE, parse_der, require_name

if TYPE_CHECKING:
    from cryptography import x509

RSA_MINIMUM = 2048  # bits (signatures.md D10)
_EXPONENT_BITS = 31  # of an RSA key: with a longer one each check costs as much time as its maker likes
_CURVES = frozenset({"secp224r1", "secp256r1", "secp384r1", "secp521r1"})
# signatures.md 5.5: neither MD5 nor SHA-1; RSA-PSS, which no known authority uses, is refused with the rest
SIGNATURE_ALGORITHMS = {  # kind of key and hash
    "1.2.840.10045.4.3.2": ("ecdsa", "sha256"),
    "1.2.840.10045.4.3.3": ("ecdsa", "sha384"),
    "1.2.840.10045.4.3.4": ("ecdsa", "sha512"),
    "1.2.840.113549.1.1.11": ("rsa", "sha256"),
    "1.2.840.113549.1.1.12": ("rsa", "sha384"),
    "1.2.840.113549.1.1.13": ("rsa", "sha512"),
}
_CERTIFICATE_ALGORITHMS = SIGNATURE_ALGORITHMS | {"1.3.101.112": ("ed25519", "")}
_KEY_ALGORITHMS = frozenset({"1.2.840.10045.2.1", "1.2.840.113549.1.1.1", "1.3.101.112"})  # ECDSA, RSA, Ed25519
_KNOWN_ALGORITHMS = {  # by which people know what is refused
    "1.2.840.10040.4.1": "DSA",
    "1.2.840.113549.1.1.10": "RSA-PSS",
    "1.3.101.113": "Ed448",
    "2.16.840.1.101.3.4.3.17": "ML-DSA-44",
    "2.16.840.1.101.3.4.3.18": "ML-DSA-65",
    "2.16.840.1.101.3.4.3.19": "ML-DSA-87",
}
_USAGES = ("digital_signature", "content_commitment", "key_cert_sign")
_HOST = r"(?:[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*(?::[0-9]*)?)?(?=[/?#]|\Z)"
_URI = rf"(?:[A-Za-z][A-Za-z0-9+.-]*:(?:(?!//)|//{_HOST})(?:[!-$&-~]|%[0-9A-Fa-f]{{2}})*)?"
_POLICY_MAPPINGS, _NO_MAPPINGS = "2.5.29.33", b"\x30\0"
# subjectKeyIdentifier, authorityKeyIdentifier, authorityInfoAccess (RFC 5280 4.2): else the reference reads nothing
_NEVER_CRITICAL = frozenset({"2.5.29.14", "2.5.29.35", "1.3.6.1.5.5.7.1.1"})
_PURPOSE = "check a sigstore signature"


class PublicKey(NamedTuple):
    """A key that may verify. `spki` is its SubjectPublicKeyInfo in DER, `kind` is ecdsa, rsa or ed25519.

    `parameter` is the curve's name, or the size in bits; `exponent` is zero unless the kind is rsa.
    """

    spki: bytes
    kind: str
    handle: Any
    parameter: str = ""
    exponent: int = 0

    @property
    def fingerprint(self) -> str:
        """`sha256:` and the hex digest of the SPKI, for records."""
        import hashlib

        return f"sha256:{hashlib.sha256(self.spki).hexdigest()}"

    def require_signed(self, signature: bytes, message: bytes, hash_name: str = "sha256") -> None:
        """Return only if `signature` over `message` is by this key. Raises SignatureError (`crypto`).

        ECDSA in DER and RSA with PKCS#1 v1.5 over `hash_name`, for every curve and size; Ed25519 over the message
        itself (signatures.md 5.3).
        """
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, padding

        digest = {"sha384": hashes.SHA384, "sha512": hashes.SHA512}.get(hash_name, hashes.SHA256)()
        arguments: Mapping[str, tuple[Any, ...]] = {
            "ecdsa": (ec.ECDSA(digest),),
            "rsa": (padding.PKCS1v15(), digest),
            "ed25519": (),
        }
        try:
            self.handle.verify(signature, message, *arguments[self.kind])
        except InvalidSignature as error:
            raise SignatureError("the signature is not by the expected key", reason="crypto") from error
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise SignatureError(f"the signature is malformed: {quote(error)}", reason="crypto") from error


def load_public_key(content: bytes, name: str) -> PublicKey:
    """The key in the first PEM block of a key file; `name` names the file (signatures.md 5.3).

    Raises SignatureError (`keycfg`), MissingDependencyError.
    """
    _require_cryptography()
    block = next(pem_blocks(content), None)
    if block is None or block.content is None:
        _unusable(f"{name}: expected a public key in PEM form")
    if block.label not in ("PUBLIC KEY", "RSA PUBLIC KEY"):
        _unusable(f"{name}: expected a PEM block of PUBLIC KEY or RSA PUBLIC KEY, found {quote(block.label)}")
    try:
        return load_key(block.content, pkcs1=block.label == "RSA PUBLIC KEY")
    except ValueError as error:
        _unusable(f"{name}: {error}")


def load_key(der: bytes, *, pkcs1: bool = False) -> PublicKey:
    """The key in a SubjectPublicKeyInfo, or with `pkcs1` in an RSAPublicKey. Raises ValueError saying what is wrong."""
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

    if not pkcs1:
        algorithm = parse_der(der).members(SEQUENCE, more=True)[0].members(OID, more=True)[0].oid()
        if algorithm not in _KEY_ALGORITHMS:
            known = _KNOWN_ALGORITHMS.get(algorithm)
            shown = f"{algorithm} ({known})" if known else algorithm
            raise ValueError(f"key algorithm {shown} is not supported by this version")
    try:
        key = _narrowed(load_der_public_key(der))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(quote(error)) from error
    # one encoding: explicit curves, compressed points, missing parameters and RSA-PSS keys end here
    expected = key.spki
    if pkcs1:
        expected = key.handle.public_bytes(Encoding.DER, PublicFormat.PKCS1) if key.kind == "rsa" else b""
    if der != expected:
        raise ValueError("the key is not in its canonical encoding")
    return key


def _narrowed(handle: Any) -> PublicKey:
    """`handle` if its kind is allowed. Raises ValueError.

    Rebuilt from its numbers, because older OpenSSL remembers the encoding that a key came in and gives it back.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    parameter, exponent = "", 0
    if isinstance(handle, ec.EllipticCurvePublicKey):
        if handle.curve.name not in _CURVES:
            raise ValueError(f"unsupported curve {handle.curve.name}")
        kind, parameter, handle = "ecdsa", handle.curve.name, handle.public_numbers().public_key()
    elif isinstance(handle, rsa.RSAPublicKey):
        if handle.key_size < RSA_MINIMUM:
            raise ValueError(f"an RSA key of {handle.key_size} bits, expected at least {RSA_MINIMUM}")
        kind, parameter, exponent = "rsa", str(handle.key_size), handle.public_numbers().e
        if exponent.bit_length() > _EXPONENT_BITS:
            raise ValueError(f"an RSA exponent of {exponent.bit_length()} bits, expected at most {_EXPONENT_BITS}")
        handle = handle.public_numbers().public_key()
    elif isinstance(handle, ed25519.Ed25519PublicKey):
        kind = "ed25519"
    else:
        raise ValueError("expected an ECDSA, RSA or Ed25519 key")
    spki = handle.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(spki, kind, handle, parameter, exponent)


class LogTimestamp(NamedTuple):
    """That a certificate log saw a certificate; `milliseconds` since 1970."""

    log_id: bytes
    milliseconds: int
    extensions: bytes
    hash_name: str
    signature: bytes


class Certificate(NamedTuple):
    """What path checking needs of a certificate. Names are DER as they stand in it, times are seconds since 1970.

    `path_length`, `usages` (key usages by their names in `cryptography`) and `purposes` (extended ones) are None when
    unrestricted. `critical` has dotted numbers, and so has `extensions`: raw values of those that `cryptography` does
    not read, empty for the rest. `other_names` are pairs of number and DER, `name_count` counts alternative names of
    all kinds.
    """

    der: bytes
    serial: int
    subject: bytes
    issuer: bytes
    spki: bytes
    not_before: float
    not_after: float
    is_authority: bool
    path_length: int | None
    usages: frozenset[str] | None
    purposes: frozenset[str] | None
    critical: frozenset[str]
    extensions: Mapping[str, bytes]
    emails: tuple[str, ...]
    hosts: tuple[str, ...]
    addresses: tuple[str, ...]
    uris: tuple[str, ...]
    other_names: tuple[tuple[str, bytes], ...]
    name_count: int
    handle: x509.Certificate

    @property
    def has_known_names(self) -> bool:
        """Whether an alternative name is of a kind that somebody reads."""
        return bool(self.emails or self.hosts or self.addresses or self.uris)

    @property
    def may_sign(self) -> bool:
        """Whether no key usage leaves keyCertSign out."""
        return self.usages is None or "key_cert_sign" in self.usages

    @property
    def issuer_name(self) -> str:
        """Who issued it, for people."""
        try:
            return str(self.handle.issuer.rfc4514_string())
        except ValueError:
            return "a malformed name"

    def public_key(self) -> PublicKey:
        """Its key. Raises SignatureError (`untrusted`)."""
        try:
            return load_key(self.spki)
        except ValueError as error:
            raise SignatureError(f"key of a certificate: {error}", reason="untrusted") from error

    def log_timestamps(self) -> list[LogTimestamp]:
        """The signed certificate timestamps in it (RFC 6962 3.3). Raises ValueError."""
        from cryptography import x509
        from cryptography.exceptions import UnsupportedAlgorithm

        try:
            extension = self.handle.extensions.get_extension_for_class(x509.PrecertificateSignedCertificateTimestamps)
            return [
                LogTimestamp(
                    each.log_id,
                    # naive, in UTC; the whole milliseconds that are signed
                    round(each.timestamp.replace(tzinfo=UTC).timestamp() * 1000),
                    each.extension_bytes,
                    each.signature_hash_algorithm.name,
                    each.signature,
                )
                for each in extension.value
            ]
        except (ValueError, TypeError, LookupError, UnsupportedAlgorithm, x509.ExtensionNotFound) as error:
            raise ValueError(quote(str(error))) from error

    def unlogged(self) -> bytes:
        """What logs sign of it: the signed part without their timestamps (RFC 6962 3.2). Raises ValueError."""
        signed: bytes = self.handle.tbs_precertificate_bytes
        return signed

    def require_signed_by(self, issuer: Certificate) -> None:
        """Return only if the key of `issuer` signed this certificate. Raises SignatureError (`untrusted`)."""
        algorithm = self.handle.signature_algorithm_oid.dotted_string
        kind, hash_name = _CERTIFICATE_ALGORITHMS.get(algorithm, ("", ""))
        key = issuer.public_key()
        if key.kind != kind:
            raise SignatureError(f"a certificate with signature algorithm {algorithm}", reason="untrusted")
        try:
            key.require_signed(self.handle.signature, self.handle.tbs_certificate_bytes, hash_name)
        except SignatureError as error:
            raise SignatureError(f"a certificate: {error}", reason="untrusted") from error


def load_certificate(der: bytes) -> Certificate:
    """The certificate that `der` holds. Raises ValueError saying what is wrong, MissingDependencyError."""
    _require_cryptography()
    from cryptography import x509

    signed, outer, _ = parse_der(der).children
    # RFC 5280 4.1: version, serial number, signature, issuer, validity, subject, subjectPublicKeyInfo
    _, serial, inner, issuer, _, subject, spki, *_ = signed.children
    if inner != outer:
        raise ValueError("two different signature algorithms")
    if serial.expect(INTEGER).content[0] >= 0x80:
        raise ValueError("a negative serial number")
    require_name(issuer)
    require_name(subject)
    handle, extensions = _load_x509(der)
    critical = frozenset(each.oid.dotted_string for each in extensions if each.critical)
    if critical & _NEVER_CRITICAL:
        raise ValueError(f"extension {min(critical & _NEVER_CRITICAL)} is marked critical, which none may do")
    values = {
        each.oid.dotted_string: each.value.value if isinstance(each.value, x509.UnrecognizedExtension) else b""
        for each in extensions
    }
    for pair in parse_der(values.get(_POLICY_MAPPINGS, _NO_MAPPINGS)).expect(SEQUENCE).children:
        for policy in pair.expect(SEQUENCE).children:
            policy.expect(OID)
    known: dict[type, Any] = {type(each.value): each.value for each in extensions}
    constraints, usage = known.get(x509.BasicConstraints), known.get(x509.KeyUsage)
    purposes = known.get(x509.ExtendedKeyUsage)
    names: list[Any] = list(known.get(x509.SubjectAlternativeName, ()))
    return Certificate(
        der=der,
        serial=handle.serial_number,
        subject=subject.raw,
        issuer=issuer.raw,
        spki=spki.raw,
        not_before=_seconds(handle, "not_valid_before"),
        not_after=_seconds(handle, "not_valid_after"),
        is_authority=constraints is not None and constraints.ca,
        path_length=constraints.path_length if constraints is not None else None,
        usages=None if usage is None else frozenset(name for name in _USAGES if getattr(usage, name)),
        purposes=None if purposes is None else frozenset(each.dotted_string for each in purposes),
        critical=critical,
        extensions=values,
        emails=_names(names, x509.RFC822Name),
        hosts=_names(names, x509.DNSName),
        addresses=_names(names, x509.IPAddress),
        uris=_names(names, x509.UniformResourceIdentifier),
        other_names=tuple(
            (name.type_id.dotted_string, name.value) for name in names if isinstance(name, x509.OtherName)
        ),
        name_count=len(names),
        handle=handle,
    )


def _load_x509(der: bytes) -> tuple[Any, list[Any]]:
    """The version 3 certificate as `cryptography` has it, and its extensions. Raises ValueError."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        handle = x509.load_der_x509_certificate(der)
        version, extensions = handle.version, list(handle.extensions)
    except (
        ValueError,
        TypeError,
        LookupError,  # an extension with a number that `cryptography` has no name for, such as a TLS feature
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise ValueError(quote(str(error))) from error
    if version is not x509.Version.v3:
        raise ValueError("expected a version 3 certificate")
    return handle, extensions


def _names(names: Sequence[Any], kind: type[Any]) -> tuple[str, ...]:
    """The values of one kind. Raises ValueError for what RFC 5280 4.2.1.6 rules out: other than ASCII, a network.

    And for a URI that is none, because the reference then reads nothing of the certificate.
    """
    found = tuple(str(name.value) for name in names if isinstance(name, kind))
    for text in found:
        malformed = {"IPAddress": "/" in text, "UniformResourceIdentifier": not re.fullmatch(_URI, text)}
        if not text.isascii() or malformed.get(kind.__name__):
            raise ValueError(f"malformed subject alternative name {quote(text)}")
    return found


def _seconds(handle: x509.Certificate, name: str) -> float:
    """`not_valid_before` or `not_valid_after`; the variants with a time zone came with version 42."""
    found: datetime = getattr(handle, f"{name}_utc", None) or getattr(handle, name).replace(tzinfo=UTC)
    return found.timestamp()


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401  (only whether it is there)
    except ImportError as error:
        raise MissingDependencyError("the Python package cryptography", _PURPOSE) from error


def _unusable(why: str) -> NoReturn:
    raise SignatureError(why, reason="keycfg")

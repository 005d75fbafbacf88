# SPDX-License-Identifier: Apache-2.0
"""Sigstore signatures, and stand-ins for the certificate authority (Fulcio) and the log (Rekor) of the public instance.

Needs the package `cryptography`, which the virtual environment of tests/run has.
"""

import base64
import datetime
import functools
import hashlib
import ipaddress
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from cip.model.signature import SIGSTORE_MIME_TYPE, SigstoreSignature

from .signatures import DIGEST, REFERENCE, payload

SIGNED_AT = 1_700_000_000  # seconds; long before "now" of the tests
EMAIL = "signer@example.com"
OIDC_ISSUER = "https://accounts.example.com"
SIGNATURE = "dev.cosignproject.cosign/signature"
BUNDLE = "dev.sigstore.cosign/bundle"
CERTIFICATE = "dev.sigstore.cosign/certificate"
CHAIN = "dev.sigstore.cosign/chain"
ISSUER_V1 = "1.3.6.1.4.1.57264.1.1"
ISSUER_V2 = "1.3.6.1.4.1.57264.1.8"
PrivateKey = Any  # any private key of cryptography
_DAY = 86400


def sigstore_payload(reference: str = REFERENCE, digest: str = DIGEST, **changes: Any) -> bytes:
    """A signed statement of the sigstore family."""
    return payload(reference, digest, kind="cosign container image signature", **changes)


def new_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    """A new ECDSA key, P-256 unless told otherwise."""
    return ec.generate_private_key(curve or ec.SECP256R1())


@functools.cache
def rsa_key(bits: int, exponent: int = 65537) -> rsa.RSAPrivateKey:
    """The one RSA key of this length: of two fixed primes, because looking for new ones takes a second."""
    first, second = {1024: (761, 15), 2048: (1037, 309), 3072: (3797, 3069), 4096: (899, 4047)}[bits]
    p, q = (3 << bits // 2 - 2) + first, (7 << bits // 2 - 3) + second
    d = pow(exponent, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(exponent, p * q)
    return rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public).private_key(
        unsafe_skip_rsa_key_validation=True
    )


def dsa_key() -> dsa.DSAPrivateKey:
    """A DSA key that nothing is to accept, of numbers that have the right lengths."""
    parameters = dsa.DSAParameterNumbers(1 << 2047 | 1, 1 << 255 | 1, 2)
    return dsa.DSAPrivateNumbers(3, dsa.DSAPublicNumbers(8, parameters)).private_key()


def spki(key: PrivateKey) -> bytes:
    """The public half as SubjectPublicKeyInfo in DER."""
    encoded: bytes = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def pem(der: bytes, label: str) -> bytes:
    """`der` as a PEM block."""
    text = base64.b64encode(der)
    lines = [text[begin : begin + 64] for begin in range(0, len(text), 64)]
    name = label.encode()
    return b"\n".join([b"-----BEGIN " + name + b"-----", *lines, b"-----END " + name + b"-----", b""])


def public_pem(key: PrivateKey) -> bytes:
    """The public half as a key file."""
    return pem(spki(key), "PUBLIC KEY")


def sign(key: PrivateKey, message: bytes) -> bytes:
    """A signature as signatures.md 5.3 wants it."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    made: bytes = key.sign(message, ec.ECDSA(hashes.SHA256()))
    return made


def b64(content: bytes) -> str:
    """Standard base64."""
    return base64.b64encode(content).decode()


def signature_of(
    text: bytes, signature: bytes, annotations: Mapping[str, str] | None = None, *, mime_type: str = SIGSTORE_MIME_TYPE
) -> SigstoreSignature:
    """A stored signature made of its parts."""
    return SigstoreSignature(mime_type, text, {SIGNATURE: b64(signature), **(annotations or {})}, "place")


def signed(
    key: PrivateKey, text: bytes | None = None, *, annotations: Mapping[str, str] | None = None
) -> SigstoreSignature:
    """`text`, by default a payload about the test image, signed by `key`."""
    chosen = sigstore_payload() if text is None else text
    return signature_of(chosen, sign(key, chosen), annotations)


def stored(signature: SigstoreSignature) -> bytes:
    """The file form (`signature-1` of a `dir:` image)."""
    document = {
        "mimeType": signature.mime_type,
        "payload": b64(signature.payload),
        "annotations": dict(signature.annotations),
    }
    return b"\0sigstore-json\n" + json.dumps(document).encode()


class Log:
    """A transparency log that signs whatever entry it is shown."""

    def __init__(self, key: PrivateKey | None = None) -> None:
        self.key = key or new_key()

    def body(self, text: bytes, signature: bytes, signer_pem: bytes, **changes: Any) -> dict[str, Any]:
        """A `hashedrekord`; `changes` replaces members at its top."""
        return {
            "apiVersion": "0.0.1",
            "kind": "hashedrekord",
            "spec": {
                "data": {"hash": {"algorithm": "sha256", "value": hashlib.sha256(text).hexdigest()}},
                "signature": {"content": b64(signature), "publicKey": {"content": b64(signer_pem)}},
            },
            **changes,
        }

    def bundle(self, body: Mapping[str, Any] | bytes, time: Any = SIGNED_AT, /, **changes: Any) -> dict[str, Any]:
        """The annotation's document, signed; `changes` replaces members of its payload."""
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        entry = {"body": b64(text), "integratedTime": time, "logIndex": 1, "logID": "c0d2", **changes}
        canonical = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        return {"SignedEntryTimestamp": b64(sign(self.key, canonical)), "Payload": entry}

    def entry(self, text: bytes, signature: bytes, signer_pem: bytes, time: Any = SIGNED_AT) -> str:
        """The annotation of an honest entry."""
        return json.dumps(self.bundle(self.body(text, signature, signer_pem), time))


class Issued(NamedTuple):
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate file."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def text(self) -> str:
        """The certificate annotation."""
        return self.pem.decode()


def der_string(text: str, tag: int = 0x0C) -> bytes:
    """A DER string of less than 128 bytes."""
    return bytes([tag, len(text)]) + text.encode()


def issue(
    name: str,
    issuer: Issued | None = None,
    *,
    key: PrivateKey | None = None,
    begin: int = SIGNED_AT - 10,
    end: int = SIGNED_AT + 600,
    extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
    hash_algorithm: Any = None,
    issuer_name: x509.Name | None = None,
    serial: int | None = None,
) -> Issued:
    """A certificate with exactly these extensions (value, critical); self-signed without `issuer`."""
    own = key or new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    builder = x509.CertificateBuilder(
        issuer_name=issuer_name or (issuer.certificate.subject if issuer else subject),
        subject_name=subject,
        public_key=own.public_key(),
        serial_number=serial or x509.random_serial_number(),
        not_valid_before=_moment(begin),
        not_valid_after=_moment(end),
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    signer = issuer.key if issuer else own
    chosen = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hash_algorithm or hashes.SHA256()
    return Issued(builder.sign(signer, chosen), own)


def authority(path_length: int | None = None, *, ca: bool = True, may_sign: bool = True) -> list[Any]:
    """The extensions of a certificate authority."""
    usage = x509.KeyUsage(not may_sign, False, False, False, False, may_sign, False, False, False)
    return [(x509.BasicConstraints(ca, path_length if ca else None), True), (usage, True)]


def root(name: str = "root", **options: Any) -> Issued:
    """A root that is valid from long before the signature until long after "now"."""
    options.setdefault("extensions", authority())
    return issue(name, begin=SIGNED_AT - 1000 * _DAY, end=SIGNED_AT + 5000 * _DAY, **options)


def intermediate(issuer: Issued, name: str = "intermediate", **options: Any) -> Issued:
    """An intermediate authority with the life of a root."""
    options.setdefault("extensions", authority())
    return issue(name, issuer, begin=SIGNED_AT - 900 * _DAY, end=SIGNED_AT + 4000 * _DAY, **options)


def names(*emails: str, hosts: Sequence[str] = (), addresses: Sequence[str] = (), others: Sequence[Any] = ()) -> Any:
    """A subject alternative name."""
    general: list[Any] = [x509.RFC822Name(each) for each in emails]
    general += [x509.DNSName(each) for each in hosts]
    general += [x509.IPAddress(ipaddress.ip_address(each)) for each in addresses]
    return x509.SubjectAlternativeName([*general, *others])


def usages(*which: ObjectIdentifier) -> x509.ExtendedKeyUsage:
    """An extended key usage, code signing unless told otherwise."""
    return x509.ExtendedKeyUsage(which or (ExtendedKeyUsageOID.CODE_SIGNING,))


def raw_extension(number: str, value: bytes) -> x509.UnrecognizedExtension:
    """An extension with any content."""
    return x509.UnrecognizedExtension(ObjectIdentifier(number), value)


_ANY_POLICY = b"\6\4\x55\x1d\x20\0"
_POLICIES = (raw_extension("2.5.29.32", b"\x30\x08\x30\6" + _ANY_POLICY), False)
# requireExplicitPolicy without and with a policy, inhibitPolicyMapping, a mapping of any policy (RFC 5280 4.2.1.5, .11)
POLICY_RULES = (
    [(raw_extension("2.5.29.36", b"\x30\3\x80\1\0"), False)],
    [_POLICIES, (raw_extension("2.5.29.36", b"\x30\3\x80\1\0"), False)],
    [(raw_extension("2.5.29.36", b"\x30\3\x81\1\0"), False)],
    [_POLICIES, (raw_extension("2.5.29.33", b"\x30\x0e\x30\x0c" + _ANY_POLICY * 2), False)],
)
NEVER_CRITICAL = (
    ("2.5.29.14", b"\4\1x"),
    ("2.5.29.35", b"\x30\3\x80\1x"),
    ("1.3.6.1.5.5.7.1.1", bytes.fromhex("3014301206082b06010505073001") + b"\x86\6http:x"),
)


def fulcio_extensions(
    *, san: Any = None, issuer_v1: bytes | None = OIDC_ISSUER.encode(), issuer_v2: bytes | None = None, eku: Any = None
) -> list[Any]:
    """The extensions of a certificate as Fulcio issues it; None leaves an issuer out."""
    found: list[Any] = [(eku or usages(), False), (san or names(EMAIL), True)]
    if issuer_v1 is not None:
        found.append((raw_extension(ISSUER_V1, issuer_v1), False))
    if issuer_v2 is not None:
        found.append((raw_extension(ISSUER_V2, issuer_v2), False))
    return found


def fulcio_leaf(issuer: Issued, **options: Any) -> Issued:
    """A short-lived certificate around SIGNED_AT; options of `fulcio_extensions` and of `issue` alike."""
    shape = {each: options.pop(each) for each in ("san", "issuer_v1", "issuer_v2", "eku") if each in options}
    extensions = [*fulcio_extensions(**shape), *options.pop("more", ())]
    return issue("leaf", issuer, extensions=extensions, **options)


def certified(
    leaf: Issued, log: Log, *, chain: Sequence[Issued] = (), time: int = SIGNED_AT, text: bytes | None = None
) -> SigstoreSignature:
    """A signature by the key of `leaf`, logged at `time`."""
    chosen = sigstore_payload() if text is None else text
    made = sign(leaf.key, chosen)
    annotations = {BUNDLE: log.entry(chosen, made, leaf.pem, time), CERTIFICATE: leaf.text}
    if chain:
        annotations[CHAIN] = "".join(each.text for each in chain)
    return signature_of(chosen, made, annotations)


def _moment(seconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)

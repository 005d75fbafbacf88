# SPDX-License-Identifier: Apache-2.0
"""RFC 3161 time stamps by an authority of our own, with any one thing wrong: the CMS is written by hand."""

import datetime
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ObjectIdentifier

from .sigstore import SIGNED_AT, Issued, authority, issue, root

SHA = {
    "sha1": "1.3.14.3.2.26",
    "sha256": "2.16.840.1.101.3.4.2.1",
    "sha384": "2.16.840.1.101.3.4.2.2",
    "sha512": "2.16.840.1.101.3.4.2.3",
}
ECDSA_WITH = {"sha256": "1.2.840.10045.4.3.2", "sha384": "1.2.840.10045.4.3.3", "sha512": "1.2.840.10045.4.3.4"}
SIGNED_DATA, TST_INFO = "1.2.840.113549.1.7.2", "1.2.840.113549.1.9.16.1.4"
CONTENT_TYPE, MESSAGE_DIGEST = "1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4"
SIGNING_CERTIFICATE, SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.12", "1.2.840.113549.1.9.16.2.47"
TIME_STAMPING = ObjectIdentifier("1.3.6.1.5.5.7.3.8")
_DER = Encoding.DER
_HASHES: Mapping[str, Any] = {"sha256": hashes.SHA256, "sha384": hashes.SHA384, "sha512": hashes.SHA512}


def der(tag: int, *contents: bytes) -> bytes:
    """One element."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def sequence(*contents: bytes) -> bytes:
    """A SEQUENCE."""
    return der(0x30, *contents)


def integer(value: int) -> bytes:
    """An INTEGER."""
    return der(0x02, value.to_bytes((value + (value < 0)).bit_length() // 8 + 1, "big", signed=True))


def oid(text: str) -> bytes:
    """An OBJECT IDENTIFIER."""
    first, second, *rest = (int(each) for each in text.split("."))
    content = b""
    for arc in (first * 40 + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(arc & 0x7F | 0x80)
        content += bytes(reversed(groups))
    return der(0x06, content)


def moment(seconds: float, form: str = "%Y%m%d%H%M%SZ") -> bytes:
    """A GeneralizedTime."""
    return der(0x18, datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime(form).encode())


def usage(*purposes: ObjectIdentifier, critical: bool = True) -> list[Any]:
    """The extensions of a timestamp authority's own certificate."""
    bits = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    return [(bits, True), (x509.ExtendedKeyUsage(purposes or (TIME_STAMPING,)), critical)]


def revocations(issuer: Issued) -> bytes:
    """A list of revocations by `issuer`, with nothing in it."""
    begin = datetime.datetime.fromtimestamp(SIGNED_AT - 60, datetime.UTC)
    builder = x509.CertificateRevocationListBuilder(
        issuer.certificate.subject, begin, begin + datetime.timedelta(days=1)
    )
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(_DER)


class StampAuthority:
    """A timestamp authority: a root, and a certificate that stamps."""

    def __init__(self, name: str = "tsa", anchor: Issued | None = None, **options: Any) -> None:
        self.anchor = anchor or root(f"{name} root", extensions=authority())
        self.leaf = self.certificate(name, **options)

    def certificate(self, name: str = "tsa", extensions: Sequence[Any] | None = None, **options: Any) -> Issued:
        """A further certificate under its root."""
        options.setdefault("begin", SIGNED_AT - 86400)
        options.setdefault("end", SIGNED_AT + 86400)
        return issue(name, self.anchor, extensions=usage() if extensions is None else extensions, **options)

    def stamp(
        self,
        data: bytes,
        *,
        time: bytes | float = SIGNED_AT,
        signer: Issued | None = None,
        key: Any = None,
        embed: Sequence[Issued] | None = None,
        status: int = 0,
        imprint: str = "sha256",
        hash_name: str = "sha256",
        algorithm: str | None = None,
        ess: str | None = "v2",
        ess_of: Issued | None = None,
        serial: int | None = None,
        content_type: str | None = TST_INFO,
        digest: bytes | None = None,
        twice: str | None = None,
        signed_tag: int = 0x31,
        bare: bool = False,
        signers: int = 1,
        after_time: Sequence[bytes] = (),
        version: int = 1,
        number: bytes | None = None,
        policy: bytes | None = None,
        trailing: bytes = b"",
        key_id: bytes | None = None,
        imprinted: bytes | None = None,
        types: tuple[str, str] = (SIGNED_DATA, TST_INFO),
        contents: int = 1,
        behind_imprint: bytes = b"",
        lists: bytes = b"",
        unsigned: bytes = b"",
        ess_digest: bytes | None = None,
        more: Sequence[bytes] = (),
        change_info: Callable[[bytes], bytes] = lambda info: info,
    ) -> bytes:
        """A response about `data`, honest unless told otherwise; `after_time` are elements behind genTime.

        `key_id` names the signer instead of issuer and serial number, `more` are further signed attributes,
        `lists` are of revocations, `unsigned` attributes that nobody signed.
        """
        who = signer or self.leaf
        certificate = who.certificate
        hashed = der(0x04, imprinted or hashlib.new(imprint, data).digest())
        info = sequence(
            integer(version),
            policy or oid("1.2.3.4.1"),
            sequence(sequence(oid(SHA[imprint]), der(0x05)), hashed, behind_imprint),
            number or integer(7),
            time if isinstance(time, bytes) else moment(time),
            *after_time,
        )
        info = change_info(info)
        attributes = []
        if content_type is not None:
            attributes.append(_attribute(CONTENT_TYPE, oid(content_type)))
        attributes.append(_attribute(MESSAGE_DIGEST, der(0x04, digest or hashlib.new(hash_name, info).digest())))
        named = (ess_of or who).certificate.public_bytes(_DER)
        if ess == "v2":
            chosen = [] if hash_name == "sha256" else [sequence(oid(SHA[hash_name]))]
            identifier = sequence(*chosen, der(0x04, ess_digest or hashlib.new(hash_name, named).digest()))
            attributes.append(_attribute(SIGNING_CERTIFICATE_V2, sequence(sequence(identifier))))
        elif ess == "empty":
            attributes.append(_attribute(SIGNING_CERTIFICATE_V2, sequence(sequence())))
        elif ess == "v1":
            identifier = sequence(der(0x04, hashlib.sha1(named).digest()))
            attributes.append(_attribute(SIGNING_CERTIFICATE, sequence(sequence(identifier))))
        attributes += more
        if twice is not None:
            attributes += [each for each in attributes if oid(twice) in each]
        listed = der(0xA0, *sorted(attributes))
        signed = info if bare else bytes((signed_tag,)) + listed[1:]
        private = key or who.key
        if isinstance(private, rsa.RSAPrivateKey):
            signature = private.sign(signed, padding.PKCS1v15(), _HASHES[hash_name]())
            name = sequence(oid(algorithm or "1.2.840.113549.1.1.1"), der(0x05))
        else:
            signature = private.sign(signed, ec.ECDSA(_HASHES[hash_name]()))
            name = sequence(oid(algorithm or ECDSA_WITH[hash_name]))
        info_of_signer = sequence(
            integer(1),
            sequence(certificate.issuer.public_bytes(), integer(serial or certificate.serial_number))
            if key_id is None
            else der(0x80, key_id),
            sequence(oid(SHA[hash_name])),
            *([] if bare else [listed]),
            name,
            der(0x04, signature),
            unsigned,
        )
        embedded = [each.certificate.public_bytes(_DER) for each in ([who] if embed is None else embed)]
        signed_data = sequence(
            integer(3),
            der(0x31, sequence(oid(SHA[hash_name]))),
            sequence(oid(types[1]), der(0xA0, *[der(0x04, info)] * contents)),
            *([der(0xA0, *embedded)] if embedded else []),
            lists,
            der(0x31, *[info_of_signer] * signers),
        )
        return sequence(sequence(integer(status)), sequence(oid(types[0]), der(0xA0, signed_data))) + trailing


def _attribute(number: str, value: bytes) -> bytes:
    return sequence(oid(number), der(0x31, value))

# SPDX-License-Identifier: Apache-2.0
"""Makes a private certificate authority with server and client certificates for one test.

Needs the package `cryptography`, which the virtual environment of tests/run has.
"""

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from .peers import CertificateFiles

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_DAY = datetime.timedelta(days=1)


class CertificateAuthority:
    """An authority with a key of its own; `certificate` is the PEM file that a client trusts."""

    def __init__(
        self, directory: Path | str, name: str = "tests authority", *, issuer: "CertificateAuthority | None" = None
    ) -> None:
        """Make the authority and write its certificate into `directory`, where all that it issues will lie.

        It vouches for itself, or `issuer` does: then it is an intermediate one.
        """
        self._directory = Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._issued = 0
        begin = _now() - _DAY
        above = issuer or self
        builder = _builder(self._name, above._name, self._key.public_key(), begin, begin + 30 * _DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_AUTHORITY_USAGE, critical=True)
        self.certificate = self._directory / "ca.crt"
        self.certificate.write_bytes(_pem(builder.sign(above._key, hashes.SHA256())))

    def server(
        self,
        names: Sequence[str] = LOOPBACK_NAMES,
        *,
        not_before: datetime.datetime | None = None,
        not_after: datetime.datetime | None = None,
        extensions: Sequence[x509.ExtensionType] | None = None,
    ) -> CertificateFiles:
        """Issue a certificate for a server of these host names and addresses; valid today unless times are given.

        With `extensions` they take the place of the names, of which the first stays as its common name.
        """
        if extensions is None:
            extensions = [x509.SubjectAlternativeName([_alternative(name) for name in names])]
        begin = not_before or _now() - _DAY
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(names[0]), self._name, key.public_key(), begin, not_after or begin + 10 * _DAY)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return self._issue(builder, key, x509.oid.ExtendedKeyUsageOID.SERVER_AUTH, "server")

    def client(self, name: str = "tests client") -> CertificateFiles:
        """Issue a certificate that a client shows."""
        begin = _now() - _DAY
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(name), self._name, key.public_key(), begin, begin + 10 * _DAY)
        return self._issue(builder, key, x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH, "client")

    def _issue(
        self,
        builder: x509.CertificateBuilder,
        key: ec.EllipticCurvePrivateKey,
        purpose: x509.ObjectIdentifier,
        kind: str,
    ) -> CertificateFiles:
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(authority, critical=False)
        self._issued += 1
        stem = self._directory / f"{kind}-{self._issued}"
        files = CertificateFiles(stem.with_suffix(".cert"), stem.with_suffix(".key"))
        files.certificate.write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))
        files.key.touch(0o600)
        encoded = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        files.key.write_bytes(encoded)
        return files


_AUTHORITY_USAGE = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begin: datetime.datetime,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, common_name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)

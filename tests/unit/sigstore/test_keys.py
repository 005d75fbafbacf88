# SPDX-License-Identifier: Apache-2.0
"""Keys and certificates as `cryptography` gives them, from its version 38 on; most rows are in test_sigstore."""

import datetime
import types
import unittest
from unittest import mock

from cip.errors import MissingDependencyError, SignatureError
from cip.trust.sigstore import keys
from cip.trust.sigstore.keys import Certificate, load_certificate, load_public_key
from tests.support.peers import skip_where_asked

skip_where_asked("cryptography")  # packagers without it; that its absence refuses is shown below without it

from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: E402

from tests.support.sigstore import (  # noqa: E402
    SIGNED_AT,
    Issued,
    authority,
    issue,
    names,
    new_key,
    public_pem,
    raw_extension,
    root,
    rsa_key,
    sign,
    spki,
)


def load(issued: Issued) -> Certificate:
    return load_certificate(issued.certificate.public_bytes(serialization.Encoding.DER))


class PublicKeyTest(unittest.TestCase):
    def test_key_is_known_by_its_canonical_encoding(self) -> None:
        private = new_key()
        key = load_public_key(public_pem(private), "key")
        self.assertEqual((key.spki, key.kind), (spki(private), "ecdsa"))
        self.assertRegex(key.fingerprint, "^sha256:[0-9a-f]{64}$")

    def test_rsa_keys_have_2048_bits_at_least(self) -> None:
        for bits, accepted in ((1024, False), (2048, True), (3072, True)):
            private = rsa_key(bits)
            pem = private.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            with self.subTest(bits):
                if accepted:
                    self.assertEqual(load_public_key(pem, "key").kind, "rsa")
                else:
                    with self.assertRaisesRegex(SignatureError, "an RSA key of 1024 bits, expected at least 2048"):
                        load_public_key(pem, "key")

    def test_rsa_exponent_that_only_costs_time_is_refused(self) -> None:
        """24 signatures by keys with exponents of 3,000 bits cost 24 s of processor time; such keys load no more."""
        modulus = rsa_key(3072).public_key().public_numbers().n
        for exponent, bits in ((2**31 - 1, 0), (2**31 + 1, 32), (2**3000 + 1, 3001)):
            with self.subTest(bits):
                pem = (
                    rsa.RSAPublicNumbers(exponent, modulus)
                    .public_key()
                    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
                )
                if not bits:
                    self.assertEqual(load_public_key(pem, "key").exponent, exponent)
                    continue
                words = f"an RSA exponent of {bits} bits, expected at most 31"
                with self.assertRaisesRegex(SignatureError, words) as caught:
                    load_public_key(pem, "key")
                self.assertEqual(caught.exception.reason, "keycfg")

    def test_signature_over_another_message_is_refused(self) -> None:
        private = new_key()
        key = load_public_key(public_pem(private), "key")
        key.require_signed(sign(private, b"message"), b"message")
        for signature, message in ((sign(private, b"message"), b"other"), (b"", b"message"), (b"x", b"message")):
            with self.assertRaises(SignatureError) as caught:
                key.require_signed(signature, message)
            self.assertEqual(caught.exception.reason, "crypto")

    def test_missing_package_is_a_missing_dependency_for_keys_and_certificates(self) -> None:
        for load_one in (lambda: load_public_key(b"", "key"), lambda: load_certificate(b"")):
            with mock.patch.dict("sys.modules", {"cryptography": None}):
                with self.assertRaisesRegex(MissingDependencyError, "cryptography is not installed"):
                    load_one()


class CertificateTest(unittest.TestCase):
    def test_fields_are_those_of_the_certificate(self) -> None:
        anchor = root()
        leaf = issue("leaf", anchor, extensions=[(names("a@b", hosts=["h"], addresses=["192.0.2.1"]), False)])
        seen = load(leaf)
        self.assertEqual((seen.issuer, load(anchor).subject), (load(anchor).subject, seen.issuer))
        self.assertNotEqual(seen.subject, seen.issuer)
        self.assertEqual(seen.spki, spki(leaf.key))
        self.assertEqual((seen.not_before, seen.not_after), (SIGNED_AT - 10, SIGNED_AT + 600))
        self.assertEqual((seen.emails, seen.hosts, seen.addresses), (("a@b",), ("h",), ("192.0.2.1",)))
        self.assertEqual((seen.is_authority, seen.path_length, seen.may_sign, seen.purposes), (False, None, True, None))
        self.assertEqual((seen.critical, seen.has_known_names), (frozenset(), True))

    def test_authority_is_one_by_its_constraints(self) -> None:
        seen = load(root(extensions=authority(3)))
        self.assertEqual((seen.is_authority, seen.path_length, seen.may_sign), (True, 3, True))
        self.assertEqual(seen.critical, {"2.5.29.19", "2.5.29.15"})
        self.assertFalse(load(root(extensions=authority(may_sign=False))).may_sign)

    def test_two_different_signature_algorithms_are_refused(self) -> None:
        """The outer one is not signed (RFC 5280 4.1.1.2)."""
        der = root().certificate.public_bytes(serialization.Encoding.DER)
        sha256, sha384 = bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06082a8648ce3d040303")
        self.assertEqual(der.count(sha256), 2)
        outer = der.rindex(sha256)
        with self.assertRaisesRegex(ValueError, "two different signature algorithms"):
            load_certificate(der[:outer] + sha384 + der[outer + len(sha256) :])

    def test_other_versions_and_garbage_are_refused(self) -> None:
        der = root(extensions=[]).certificate.public_bytes(serialization.Encoding.DER)
        version = der.index(bytes.fromhex("a003020102")) + 4
        for case, text in (
            ("version 1", der[:version] + b"\0" + der[version + 1 :]),
            ("version 2", der[:version] + b"\1" + der[version + 1 :]),
            ("version 4", der[:version] + b"\3" + der[version + 1 :]),
            ("garbage", b"garbage"),
            ("nothing", b""),
            ("something behind", der + b"\0"),
            ("cut short", der[:-1]),
        ):
            with self.subTest(case), self.assertRaises(ValueError):
                load_certificate(text)

    def test_what_the_reference_reads_nothing_of_is_refused(self) -> None:
        """Go stops at a negative serial number, at a URI that is none, and at a malformed list of policies."""
        der = root(serial=0x7F00).certificate.public_bytes(serialization.Encoding.DER)
        load_certificate(der)
        with self.assertRaisesRegex(ValueError, "negative serial number"):
            load_certificate(der.replace(b"\x02\x02\x7f\0", b"\x02\x02\xff\0", 1))
        mappings = {"good": "300a3008060255040602550a", "a number": "30053003020101", "not a list": "0500"}
        for case, value in mappings.items():
            issued = root(extensions=[(raw_extension("2.5.29.33", bytes.fromhex(value)), False)])
            with self.subTest(case):
                if case == "good":
                    load(issued)
                else:
                    self.assertRaises(ValueError, load, issued)

    def test_extension_that_the_package_stumbles_over_is_refused(self) -> None:
        """A TLS feature with a number of no name is a KeyError inside `cryptography`."""
        feature = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.24"), bytes.fromhex("3003020163"))
        with self.assertRaisesRegex(ValueError, "99"):
            load(root(extensions=[(feature, False)]))

    def test_signature_is_by_the_issuer(self) -> None:
        anchor = root()
        leaf = load(issue("leaf", anchor))
        leaf.require_signed_by(load(anchor))
        with self.assertRaisesRegex(
            SignatureError, "a certificate: the signature is not by the expected key"
        ) as caught:
            leaf.require_signed_by(load(root()))
        self.assertEqual(caught.exception.reason, "untrusted")

    def test_algorithm_must_fit_the_key_and_the_list(self) -> None:
        anchor = root()
        listed = load(issue("leaf", anchor, hash_algorithm=hashes.SHA512()))
        listed.require_signed_by(load(anchor))
        for case, algorithm in (("weak", hashes.SHA224()), ("not of NIST's first family", hashes.SHA3_256())):
            with self.subTest(case):
                try:
                    other = load(issue("leaf", anchor, hash_algorithm=algorithm))
                except ValueError:
                    continue  # a version of the package that does not make such certificates
                with self.assertRaisesRegex(SignatureError, "a certificate with signature algorithm"):
                    other.require_signed_by(load(anchor))

    def test_times_of_older_versions_have_no_zone(self) -> None:
        naive = types.SimpleNamespace(not_valid_before=datetime.datetime(2024, 1, 1))
        self.assertEqual(keys._seconds(naive, "not_valid_before"), 1704067200.0)  # type: ignore[arg-type]
        aware = types.SimpleNamespace(not_valid_before_utc=datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC))
        self.assertEqual(keys._seconds(aware, "not_valid_before"), 1704067200.0)  # type: ignore[arg-type]


if __name__ == "__main__":
    unittest.main()

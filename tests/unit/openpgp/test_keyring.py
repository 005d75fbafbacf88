# SPDX-License-Identifier: Apache-2.0
"""Key rings: packets are walked strictly, keys merged, copies refused (signatures.md 4.4, 4.5 step 1)."""

import base64
import hashlib
import unittest

from cip.errors import SignatureError
from cip.trust.openpgp.keyring import merge_key_rings
from tests.support.peers import require_peer
from tests.support.signatures import GpgHome


def packet(tag: int, body: bytes) -> bytes:
    """Old format with the shortest length (RFC 4880 4.2.1)."""
    if len(body) < 256:
        return bytes([0x80 | tag << 2, len(body)]) + body
    if len(body) < 65536:
        return bytes([0x81 | tag << 2]) + len(body).to_bytes(2, "big") + body
    return bytes([0x82 | tag << 2]) + len(body).to_bytes(4, "big") + body


def new_packet(tag: int, length: bytes, body: bytes) -> bytes:
    return bytes([0xC0 | tag]) + length + body


def fingerprint(body: bytes) -> str:
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()


ONE, TWO = b"\x04one", b"\x04two"
NAME, SELF = packet(13, b"name"), packet(2, b"self")


def key(body: bytes) -> bytes:
    return packet(6, body) + NAME + SELF


def armored(content: bytes) -> bytes:
    return (
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n"
        + base64.encodebytes(content)
        + b"-----END PGP PUBLIC KEY BLOCK-----\n"
    )


class MergeTest(unittest.TestCase):
    def refuse(self, words: str, *blobs: bytes) -> None:
        with self.assertRaisesRegex(SignatureError, words) as caught:
            merge_key_rings((f"file{number}", blob) for number, blob in enumerate(blobs))
        self.assertEqual(caught.exception.reason, "keycfg")

    def test_binary_and_armored_blobs_become_one_ring(self) -> None:
        ring = merge_key_rings([("a", key(ONE)), ("b", armored(key(TWO)))])
        self.assertEqual(ring.packets, key(ONE) + key(TWO))
        self.assertEqual(ring.fingerprints, {fingerprint(ONE), fingerprint(TWO)})

    def test_several_keys_in_one_blob(self) -> None:
        subkey = packet(14, b"\x04sub") + SELF
        ring = merge_key_rings([("a", key(ONE) + subkey + key(TWO) + new_packet(17, b"\x05", b"photo") + SELF)])
        self.assertEqual(ring.fingerprints, {fingerprint(ONE), fingerprint(TWO)})
        self.assertIn(subkey, ring.packets)

    def test_g20_same_primary_twice_refuses_the_ring(self) -> None:
        words = f"file1: key {fingerprint(ONE)} occurs twice"
        self.refuse(words, key(ONE), key(ONE))
        self.refuse(words.replace("file1", "file0"), key(ONE) + key(TWO) + key(ONE))

    def test_c16_blob_without_a_key_is_passed_over_beside_a_good_one(self) -> None:
        for case, blob in (
            ("text", b"text"),
            ("empty", b""),
            ("unbound", packet(6, TWO)),
            ("a keybox", b"\0\0\0\x20\x01\x01\0\0KBXf"),
        ):
            with self.subTest(case):
                ring = merge_key_rings([("a", blob), ("b", key(ONE))])
                self.assertEqual((ring.packets, ring.fingerprints), (key(ONE), {fingerprint(ONE)}))
                self.refuse("file0: ", blob)

    def test_no_blob_at_all_is_no_key(self) -> None:
        self.refuse("the requirement lists no key")

    def test_every_fault_is_told(self) -> None:
        words = "file0: no OpenPGP key; file1: no public key with a name and a self-signature"
        self.refuse(words, b"text", packet(6, ONE))

    def test_what_may_hold_a_revocation_is_never_passed_over(self) -> None:
        """signatures.md 4.4: a revocation in one copy counts; what gpg would import is not dropped beside a key."""
        revocation, later = packet(2, b"\x04\x20x"), packet(2, b"\x03\x05\x20x")
        good = key(ONE)
        for case, blobs, words in (
            ("a revocation alone", (good, revocation), "file1: expected a public key first"),
            ("an armored one", (good, armored(revocation)), "file1: expected a public key first"),
            ("behind the name", (good + revocation,), "a revocation of a key does not stand behind the key"),
            ("behind the name, version 3", (good + later,), "a revocation of a key does not stand behind the key"),
            ("behind a subkey", (good + packet(14, b"\x04sub") + SELF + revocation,), "does not stand behind the key"),
            ("in a copy without a name", (good, packet(6, ONE) + revocation), "occurs twice"),
            ("in the same file", (good + packet(6, ONE) + revocation,), "occurs twice"),
            ("in a file that is cut short", (good, packet(6, ONE) + revocation + NAME + SELF[:-1]), "file1: cut short"),
            ("in a block without an end", (armored(good) + armored(key(TWO))[:-10],), "only whole public key blocks"),
            ("among secret keys", (armored(good) + armored(good).replace(b"PUBLIC", b"PRIVATE"),), "only whole public"),
        ):
            with self.subTest(case):
                self.refuse(words, *blobs)
        ring = merge_key_rings([("a", packet(6, ONE) + revocation + SELF + NAME + SELF)])
        self.assertEqual(ring.fingerprints, {fingerprint(ONE)})

    def test_key_that_nobody_bound_to_a_name_is_left_out(self) -> None:
        for case, blob in (
            ("alone", packet(6, TWO)),
            ("without signature", packet(6, TWO) + NAME),
            ("without name", packet(6, TWO) + SELF),
            ("signature before the name", packet(6, TWO) + SELF + NAME),
        ):
            with self.subTest(case):
                ring = merge_key_rings([("a", blob + key(ONE))])
                self.assertEqual(ring.packets, key(ONE))
                self.refuse("no public key with a name and a self-signature", blob)

    def test_trust_packets_are_dropped(self) -> None:
        ring = merge_key_rings([("a", packet(6, ONE) + packet(12, b"t") + NAME + packet(12, b"t") + SELF)])
        self.assertEqual(ring.packets, key(ONE))

    def test_packets_that_do_not_belong_are_refused(self) -> None:
        for case, blob, words in (
            ("secret key", packet(5, ONE) + NAME + SELF, "packet type 5 does not belong"),
            ("secret subkey", key(ONE) + packet(7, b"x"), "packet type 7"),
            ("literal", key(ONE) + packet(11, b"x"), "packet type 11"),
            ("marker", key(ONE) + packet(10, b"PGP"), "packet type 10"),
            ("type zero", packet(0, b""), "packet type 0"),
            ("new format", new_packet(63, b"\0", b""), "packet type 63"),
            ("name first", NAME + key(ONE), "expected a public key first, found packet type 13"),
            ("trust first", packet(12, b"t") + key(ONE), "expected a public key first, found packet type 12"),
            ("version 3", packet(6, b"\x03one") + NAME + SELF, "expected a version 4 key, found version 3"),
            ("version 5", packet(6, b"\x05one") + NAME + SELF, "expected a version 4 key, found version 5"),
            ("no version", packet(6, b"") + NAME + SELF, "found version none"),
            ("huge", packet(6, b"\x04" + bytes(65536)) + NAME + SELF, "65537 bytes"),
            ("keybox", b"\0\0\0\x20\x01\x01\0\0KBXf", "no OpenPGP key"),
        ):
            with self.subTest(case):
                self.refuse(words, blob)

    def test_all_definite_lengths_are_read(self) -> None:
        for size in (0, 1, 191, 192, 255, 256, 8383, 8384, 65535, 65536):
            name = b"n" * size
            if size < 192:
                length = bytes([size])
            elif size < 8384:
                length = bytes([(size - 192 >> 8) + 192, size - 192 & 0xFF])
            else:
                length = b"\xff" + size.to_bytes(4, "big")
            for form in (packet(13, name), new_packet(13, length, name)):
                with self.subTest(size, form=form[:1]):
                    blob = packet(6, ONE) + form + SELF
                    self.assertEqual(merge_key_rings([("a", blob)]).packets, blob)

    def test_other_lengths_are_refused(self) -> None:
        for case, blob, words in (
            ("indeterminate", key(ONE) + bytes([0x80 | 13 << 2 | 3]) + b"name", "indeterminate length"),
            ("partial", key(ONE) + new_packet(13, b"\xe1", b"name"), "partial length"),
            ("partial last", key(ONE) + new_packet(13, b"\xfe", b"name"), "partial length"),
            ("no length", key(ONE) + b"\xb4", "cut short"),
            ("no new length", key(ONE) + b"\xcd", "cut short"),
            ("half a length", key(ONE) + b"\xcd\xc0", "cut short"),
            ("half four", key(ONE) + b"\xcd\xff\0\0", "cut short"),
            ("half two", key(ONE) + b"\xb5\0", "cut short"),
            ("no body", key(ONE) + b"\xb4\x01", "cut short"),
            ("beyond", key(ONE) + b"\xcd\xff\xff\xff\xff\xff", "cut short"),
        ):
            with self.subTest(case):
                self.refuse(words, blob)


class RealRingTest(unittest.TestCase):
    def test_fingerprints_are_those_of_gpg(self) -> None:
        require_peer("gpg")
        with GpgHome() as home:
            keys = {home.create_key("one"), home.create_key("two")}
            home.add_subkey(min(keys))
            binary, text = home.export_all(), home.export_all(armor=True)
            for blob in (binary, text):
                ring = merge_key_rings([("a", blob)])
                self.assertEqual(ring.fingerprints, keys)
                self.assertEqual(ring.packets, binary)
            secret = home.run("--export-secret-keys", min(keys))
            with self.assertRaisesRegex(SignatureError, "packet type 5 does not belong"):
                merge_key_rings([("a", secret)])


if __name__ == "__main__":
    unittest.main()

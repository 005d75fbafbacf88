# SPDX-License-Identifier: Apache-2.0
"""Key rings: walked strictly and merged; copies and signatures out of place refused (signatures.md 4.4, 4.5)."""

import base64
import unittest
from pathlib import Path

from cip.errors import SignatureError
from cip.trust.openpgp.keyring import merge_key_rings
from cip.trust.signed.armor import crc24
from tests.support.keypackets import (
    KEY,
    NAME,
    PHOTO,
    SUBKEY,
    Made,
    fingerprint,
    key_body,
    packet,
    rsa_body,
    signature,
    subpacket,
)
from tests.support.peers import require_peer
from tests.support.signatures import GpgHome

ONE, TWO, SUB = key_body(b"one"), key_body(b"two"), key_body(b"sub")
WHO = b"name"
OTHER = Made(issuer=b"somebody")


def new_packet(tag: int, length: bytes, body: bytes) -> bytes:
    return bytes([0xC0 | tag]) + length + body


def certified(body: bytes, name: bytes = WHO, made: Made | None = None) -> bytes:
    """The name and the key's signature over it."""
    return packet(NAME, name) + signature(0x13, body, NAME, name, made)


def key(body: bytes) -> bytes:
    return packet(KEY, body) + certified(body)


def subkey(body: bytes, sub: bytes = SUB) -> bytes:
    return packet(SUBKEY, sub) + signature(0x18, body, SUBKEY, sub)


def armored(content: bytes) -> bytes:
    return (
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n"
        + base64.encodebytes(content)
        + b"="
        + base64.b64encode(crc24(content).to_bytes(3, "big"))
        + b"\n-----END PGP PUBLIC KEY BLOCK-----\n"
    )


class RingCase(unittest.TestCase):
    def refuse(self, words: str, *blobs: bytes) -> None:
        with self.assertRaisesRegex(SignatureError, words) as caught:
            merge_key_rings((f"file{number}", blob) for number, blob in enumerate(blobs))
        self.assertEqual(caught.exception.reason, "keycfg")


class MergeTest(RingCase):
    def test_binary_and_armored_blobs_become_one_ring(self) -> None:
        ring = merge_key_rings([("a", key(ONE)), ("b", armored(key(TWO)))])
        self.assertEqual(ring.packets, key(ONE) + key(TWO))
        self.assertEqual(ring.fingerprints, {fingerprint(ONE), fingerprint(TWO)})

    def test_several_keys_in_one_blob(self) -> None:
        photo = new_packet(PHOTO, b"\x05", b"photo") + signature(0x13, TWO, PHOTO, b"photo")
        ring = merge_key_rings([("a", key(ONE) + subkey(ONE) + key(TWO) + photo)])
        self.assertEqual(ring.fingerprints, {fingerprint(ONE), fingerprint(TWO)})
        self.assertIn(subkey(ONE), ring.packets)

    def test_g20_same_key_twice_refuses_the_ring(self) -> None:
        words = f"file1: key {fingerprint(ONE)} occurs twice"
        self.refuse(words, key(ONE), key(ONE))
        self.refuse(words.replace("file1", "file0"), key(ONE) + key(TWO) + key(ONE))
        words = f"key {fingerprint(SUB)} occurs twice"
        self.refuse(f"file1: {words}", key(ONE) + subkey(ONE), key(TWO) + subkey(TWO))
        self.refuse(f"file0: {words}", key(ONE) + subkey(ONE) + subkey(ONE))
        self.refuse(f"file0: key {fingerprint(ONE)} occurs twice", key(ONE) + subkey(ONE, ONE))

    def test_same_name_twice_refuses_the_ring(self) -> None:
        """An import takes the signatures of both together; gpgv would not see that one of them revokes."""
        words = f"a name of key {fingerprint(ONE)} occurs twice"
        self.refuse(words, key(ONE) + certified(ONE))
        self.refuse(words, key(ONE) + 2 * (packet(PHOTO, b"photo") + signature(0x13, ONE, PHOTO, b"photo")))
        merge_key_rings([("a", key(ONE) + packet(PHOTO, WHO) + certified(ONE, b"other")), ("b", key(TWO))])

    def test_c16_blob_without_a_key_is_passed_over_beside_a_good_one(self) -> None:
        for case, blob in (
            ("text", b"text"),
            ("empty", b""),
            ("unbound", packet(KEY, TWO)),
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
        self.refuse(words, b"text", packet(KEY, ONE))

    def test_what_may_hold_a_revocation_is_never_passed_over(self) -> None:
        """signatures.md 4.4: a revocation in one copy counts; what gpg would import is not dropped beside a key."""
        revocation = signature(0x20, ONE)
        good, name = key(ONE), certified(ONE)
        for case, blobs, words in (
            ("a revocation alone", (good, revocation), "file1: expected a public key first"),
            ("an armored one", (good, armored(revocation)), "file1: expected a public key first"),
            ("in a copy without a name", (good, packet(KEY, ONE) + revocation), "occurs twice"),
            ("in the same file", (good + packet(KEY, ONE) + revocation,), "occurs twice"),
            ("in a file that is cut short", (good, packet(KEY, ONE) + revocation + name[:-1]), "file1: cut short"),
            ("in a block without an end", (armored(good) + armored(key(TWO))[:-10],), "only whole public key blocks"),
            ("among secret keys", (armored(good) + armored(good).replace(b"PUBLIC", b"PRIVATE"),), "only whole public"),
        ):
            with self.subTest(case):
                self.refuse(words, *blobs)
        ring = merge_key_rings([("a", packet(KEY, ONE) + revocation + signature(0x1F, ONE) + name)])
        self.assertEqual(ring.fingerprints, {fingerprint(ONE)})

    def test_key_that_nobody_bound_to_a_name_is_left_out(self) -> None:
        bare, name = packet(KEY, TWO), packet(NAME, WHO)
        for case, blob in (
            ("alone", bare),
            ("without signature", bare + name),
            ("without name", bare + signature(0x1F, TWO)),
            ("with a photo only", bare + packet(PHOTO, WHO) + signature(0x13, TWO, PHOTO, WHO)),
            ("named by others", bare + signature(0x1F, TWO) + certified(TWO, made=OTHER)),
            ("its name revoked", bare + signature(0x1F, TWO) + name + signature(0x30, TWO, NAME, WHO)),
            ("a signature of unknown class", bare + name + signature(0x50, TWO, NAME, WHO)),
        ):
            with self.subTest(case):
                ring = merge_key_rings([("a", blob + key(ONE))])
                self.assertEqual(ring.packets, key(ONE))
                self.refuse("no public key with a name and a self-signature", blob)

    def test_key_revoked_by_one_that_nobody_bound_to_a_name_refuses_the_ring(self) -> None:
        """Debian's gpg 2.4 imports such a key and believes what it revokes, where 2.2 and gpgv know nothing of it."""
        revoked = packet(KEY, ONE) + signature(0x20, ONE, made=Made(issuer=bytes.fromhex(fingerprint(TWO))[-8:]))
        revoked += certified(ONE)
        self.refuse("a key is revoked by key .{16}, which has no name", revoked, packet(KEY, TWO) + packet(NAME, WHO))
        self.refuse("a key is revoked by key .{16}, which has no name", packet(KEY, TWO) + revoked)
        self.assertEqual(merge_key_rings([("a", revoked + key(TWO))]).packets, revoked + key(TWO))
        self.assertEqual(merge_key_rings([("a", revoked)]).packets, revoked)

    def test_trust_packets_are_dropped(self) -> None:
        trust = packet(12, b"t")
        blob = packet(KEY, ONE) + trust + packet(NAME, WHO) + trust + signature(0x13, ONE, NAME, WHO)
        self.assertEqual(merge_key_rings([("a", blob)]).packets, key(ONE))

    def test_packets_that_do_not_belong_are_refused(self) -> None:
        for case, blob, words in (
            ("secret key", packet(5, ONE) + certified(ONE), "packet type 5 does not belong"),
            ("secret subkey", key(ONE) + packet(7, b"x"), "packet type 7"),
            ("literal", key(ONE) + packet(11, b"x"), "packet type 11"),
            ("marker", key(ONE) + packet(10, b"PGP"), "packet type 10"),
            ("type zero", packet(0, b""), "packet type 0"),
            ("new format", new_packet(63, b"\0", b""), "packet type 63"),
            ("name first", packet(NAME, WHO) + key(ONE), "expected a public key first, found packet type 13"),
            ("trust first", packet(12, b"t") + key(ONE), "expected a public key first, found packet type 12"),
            ("version 3", packet(KEY, b"\x03one"), "expected a version 4 key, found version 3"),
            ("version 5", packet(KEY, b"\x05one"), "expected a version 4 key, found version 5"),
            ("version 3 subkey", key(ONE) + packet(SUBKEY, b"\x03"), "expected a version 4 key, found version 3"),
            ("no version", packet(KEY, b""), "found version none"),
            ("no algorithm", packet(KEY, b"\x04\0\0\0\0"), "cut short"),
            ("huge", packet(KEY, b"\x04" + bytes(65536)), "65537 bytes"),
            ("keybox", b"\0\0\0\x20\x01\x01\0\0KBXf", "no OpenPGP key"),
            ("text behind a key", key(ONE) + b"text", f"not an OpenPGP packet at byte {len(key(ONE))}"),
            ("a zero behind a key", key(ONE) + b"\0", "not an OpenPGP packet"),
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
            for form in (packet(NAME, name), new_packet(NAME, length, name)):
                with self.subTest(size, form=form[:1]):
                    blob = packet(KEY, ONE) + form + signature(0x13, ONE, NAME, name)
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

    def test_rsa_keys_are_measured(self) -> None:
        """Signers below 2048 bits are refused once they sign; an exponent that only costs time refuses the ring."""
        weak, strong = rsa_body(2047), rsa_body(2048)
        ring = merge_key_rings([("a", key(weak)), ("b", key(strong) + subkey(strong, rsa_body(1024))), ("c", key(ONE))])
        self.assertEqual(ring.weak, {fingerprint(weak): 2047, fingerprint(rsa_body(1024)): 1024})
        for fine in (rsa_body(2048, 2**31 - 1), rsa_body(3072)):
            self.assertEqual(merge_key_rings([("a", key(fine))]).weak, {})
        for case, blob, words in (
            ("exponent", key(rsa_body(2048, 2**31)), "an RSA exponent of 32 bits, expected at most 31"),
            ("subkey", key(ONE) + subkey(ONE, rsa_body(2048, 2**31)), "an RSA exponent of 32 bits"),
            ("signing only", key(b"\x04\0\0\0\0\x03" + rsa_body(2048, 2**40)[6:]), "an RSA exponent of 41 bits"),
            ("cut short", key(rsa_body(2048)[:-1]), "cut short"),
        ):
            with self.subTest(case):
                self.refuse(words, blob)


class DirectSignatureTest(RingCase):
    def test_ring_is_also_had_without_signatures_over_keys_alone(self) -> None:
        """gpgv believes a key with such a signature and a broken one over its name; an import does not take it."""
        direct = signature(0x1F, ONE)
        ring = merge_key_rings([("a", packet(KEY, ONE) + direct + certified(ONE) + key(TWO))])
        self.assertEqual(ring.by_names, key(ONE) + key(TWO))
        self.assertIn(direct, ring.packets)
        self.assertEqual(merge_key_rings([("a", key(ONE) + subkey(ONE))]).by_names, b"")


class PlaceTest(RingCase):
    """An import moves a self-signature to what it signs; where gpgv would overlook it, the ring is refused."""

    def test_signature_behind_something_else_refuses_the_ring(self) -> None:
        good, other = key(ONE) + subkey(ONE), certified(ONE, b"other")
        revoked = signature(0x28, ONE, SUBKEY, SUB)
        for case, blob in (
            ("key revocation behind the name", key(ONE) + signature(0x20, ONE)),
            ("of version 3", key(ONE) + signature(0x20, ONE, made=Made(version=3))),
            ("key revocation behind a subkey", good + signature(0x20, ONE)),
            ("a key revocation by somebody", good + signature(0x20, ONE, made=OTHER)),
            ("direct signature behind the name", key(ONE) + signature(0x1F, ONE)),
            ("subkey revocation behind the key", packet(KEY, ONE) + revoked + certified(ONE) + subkey(ONE)),
            ("behind the name", key(ONE) + revoked + subkey(ONE)),
            ("behind another subkey", good + subkey(ONE, TWO) + revoked),
            ("behind another key", good + key(TWO) + revoked),
            ("by somebody", good + subkey(ONE, TWO) + signature(0x28, ONE, SUBKEY, SUB, OTHER)),
            ("binding behind another subkey", good + subkey(ONE, TWO) + signature(0x18, ONE, SUBKEY, SUB)),
            ("name before the name", packet(KEY, ONE) + signature(0x13, ONE, NAME, WHO) + packet(NAME, WHO)),
            ("name behind a subkey", good + signature(0x10, ONE, NAME, WHO)),
            ("name behind another name", key(ONE) + other + signature(0x12, ONE, NAME, WHO)),
            ("persona behind another name", key(ONE) + other + signature(0x11, ONE, NAME, WHO)),
            ("name revocation behind another name", key(ONE) + other + signature(0x30, ONE, NAME, WHO)),
            ("of a photo", key(ONE) + packet(PHOTO, WHO) + signature(0x13, ONE, NAME, WHO)),
            ("by nobody", key(ONE) + other + signature(0x13, ONE, NAME, WHO, Made(unhashed=b""))),
            ("by a malformed area", key(ONE) + other + signature(0x13, ONE, NAME, WHO, Made(unhashed=b"\x05\x10"))),
        ):
            with self.subTest(case):
                self.refuse("of class 0x.. does not stand behind what it signs: import the file with gpg", blob)

    def test_signature_in_its_place_is_kept_whatever_its_hash_and_version(self) -> None:
        for case, made in (
            *((f"hash {number}", Made(algorithm=number)) for number in (1, 2, 8, 9, 10, 11)),
            ("version 3", Made(version=3, algorithm=1)),
            ("version 2", Made(version=2)),
            ("fingerprint", Made(unhashed=subpacket(33, b"\4" + bytes.fromhex(fingerprint(ONE))))),
            ("exportable", Made(hashed=subpacket(4, b"\1"))),
            (
                "long subpacket",
                Made(
                    hashed=b"\xc0\x08\x14"
                    + bytes(199)
                    + b"\xff\0\0\0\x02\x14\0"
                    + b"\xfe\0\x14"
                    + bytes((254 - 192 << 8) + 192 - 1)
                ),
            ),
        ):
            with self.subTest(case):
                blob = (
                    packet(KEY, ONE)
                    + signature(0x20, ONE, made=made)
                    + signature(0x1F, ONE, made=made)
                    + packet(NAME, WHO)
                    + signature(0x10, ONE, NAME, WHO, made)
                    + signature(0x30, ONE, NAME, WHO, made)
                    + packet(SUBKEY, SUB)
                    + signature(0x18, ONE, SUBKEY, SUB, made)
                    + signature(0x28, ONE, SUBKEY, SUB, made)
                )
                self.assertEqual(merge_key_rings([("a", blob)]).packets, blob)

    def test_what_others_say_about_names_may_be_broken(self) -> None:
        """Old rings are full of it, and nothing here believes it."""
        for case, foreign in (
            ("another name", signature(0x10, ONE, NAME, b"other", OTHER)),
            ("a revocation", signature(0x30, ONE, NAME, b"other", OTHER)),
            ("version 3", signature(0x10, ONE, NAME, b"other", Made(version=3, issuer=b"somebody"))),
            ("unknown hash", signature(0x10, ONE, NAME, WHO, Made(issuer=b"somebody", algorithm=99))),
            ("not exportable", signature(0x10, ONE, NAME, WHO, Made(issuer=b"somebody", hashed=subpacket(4, b"\0")))),
            ("unknown class", signature(0x40, ONE, NAME, b"other")),
        ):
            with self.subTest(case):
                blob = key(ONE) + foreign + subkey(ONE)
                self.assertEqual(merge_key_rings([("a", blob)]).packets, blob)

    def test_self_signature_that_an_import_would_drop_refuses_the_ring(self) -> None:
        for value in (b"\0", b""):
            for local in (
                Made(hashed=subpacket(4, value)),
                Made(unhashed=subpacket(4, value)),  # an import reads both areas
                Made(unhashed=subpacket(4, value) + b"\xc8"),
            ):
                self.refuse("class 0x13 is not exportable", key(ONE) + signature(0x13, ONE, NAME, WHO, local))

    def test_subkey_whose_newest_binding_may_have_expired_refuses_the_ring(self) -> None:
        """An import keeps the newest alone; gpgv goes back to an older one."""
        expiring = signature(0x18, ONE, SUBKEY, SUB, Made(hashed=subpacket(3, b"\0\0\0\1")))
        lasting = signature(0x18, ONE, SUBKEY, SUB, Made(hashed=subpacket(9, b"\0\0\0\1")))
        head = key(ONE) + packet(SUBKEY, SUB)
        for blob in (head + lasting + expiring, head + expiring + lasting, head + lasting + lasting + expiring):
            self.refuse("several signatures bind one subkey, and one of them expires: import", blob)
        other = packet(SUBKEY, TWO) + signature(0x18, ONE, SUBKEY, TWO, Made(hashed=subpacket(3, b"\0\0\0\1")))
        for blob in (head + expiring, head + lasting + lasting, head + expiring + other, head + lasting + other):
            with self.subTest(blob.hex()[-8:]):
                self.assertEqual(merge_key_rings([("a", blob)]).packets, blob)

    def test_signature_whose_place_cannot_be_known_refuses_the_ring(self) -> None:
        for case, blob, words in (
            ("unknown hash", signature(0x13, ONE, NAME, WHO, Made(algorithm=99)), "hash algorithm 99, which cannot"),
            ("version 6", signature(0x13, ONE, NAME, WHO, Made(version=6)), "version 4 or 3, found version 6"),
            ("empty", packet(2, b""), "cut short"),
            ("only a head", packet(2, b"\x04\x13\x01\x08"), "cut short"),
            ("hashed area", packet(2, b"\x04\x13\x01\x08\0\x09\0\0\0\0"), "cut short"),
            ("unhashed area", packet(2, b"\x04\x13\x01\x08\0\0\0\x09\0\0"), "cut short"),
            ("no hash", packet(2, b"\x04\x13\x01\x08\0\0\0\0\0"), "cut short"),
            ("version 3", packet(2, b"\x03\x05\x13" + bytes(15)), "cut short"),
            ("malformed subpacket", signature(0x13, ONE, NAME, WHO, Made(hashed=b"\x05\x10")), "cut short"),
            ("empty subpacket", signature(0x13, ONE, NAME, WHO, Made(hashed=b"\0")), "cut short"),
        ):
            with self.subTest(case):
                self.refuse(words, key(ONE) + blob)

    def test_real_rings_load(self) -> None:
        """Those of Debian's archive, one of them with keys since 2006."""
        found = sorted(Path("/usr/share/keyrings").glob("debian-archive-*.gpg"))
        if not found:
            self.skipTest("not a Debian")
        for path in found:
            with self.subTest(path.name):
                self.assertTrue(merge_key_rings([(path.name, path.read_bytes())]).fingerprints)


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

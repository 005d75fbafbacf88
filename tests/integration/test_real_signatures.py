# SPDX-License-Identifier: Apache-2.0
"""Signatures that the real gpg makes, judged by the real gpgv (signatures.md 4; rows G)."""

import hashlib
import re
import unittest

from cip.errors import ErrorCode, MissingDependencyError, PolicyRejectedError, SignatureError
from cip.model.signature import SignatureResult, SimpleSignature, parse_signature_blob
from cip.programs import DirectPrograms, GpgvResult
from cip.trust.openpgp.simplesigning import SignedBy
from cip.trust.signed.matching import MatchRepoDigestOrExact
from cip.trust.signed.materials import Material
from tests.support.peers import require_peer
from tests.support.signatures import (
    DIGEST,
    MANIFEST,
    NAMELESS,
    OTHER_DIGEST,
    REFERENCE,
    GpgHome,
    KeyOptions,
    docker,
    payload,
    tools,
    unverified,
)


class RealSignaturesTest(unittest.TestCase):
    """gpg signs, gpgv verifies (signatures.md 7.4)."""

    home: GpgHome
    main: str
    other: str
    stranger: str
    ring: bytes
    good: bytes

    @classmethod
    def setUpClass(cls) -> None:
        require_peer("gpgv")
        require_peer("gpg")
        cls.home = GpgHome()
        cls.addClassCleanup(cls.home.close)
        cls.main = cls.home.create_key("main")
        cls.other = cls.home.create_key("other")
        cls.stranger = cls.home.create_key("stranger")
        cls.ring = cls.home.export_all(cls.main, cls.other)
        cls.good = cls.home.sign_as(payload(), cls.main)

    def judge(self, *messages: bytes, ring: bytes | None = None, identity: str = REFERENCE) -> list[SignatureResult]:
        seen: list[SignatureResult] = []
        requirement = SignedBy("GPGKeys", (Material("keyData", content=ring or self.ring),), MatchRepoDigestOrExact())
        signatures = [SimpleSignature(message, f"signature-{number}") for number, message in enumerate(messages, 1)]
        given = tools(gpgv=lambda keys, message: DirectPrograms().verify(keys, message))
        requirement.check(unverified(*signatures, identity=docker(identity)), given, seen)
        return seen

    def refuse(self, reason: str, words: str, *messages: bytes, ring: bytes | None = None) -> None:
        with self.assertRaisesRegex(PolicyRejectedError, words) as caught:
            self.judge(*messages, ring=ring)
        self.assertEqual(caught.exception.reason, reason)

    def test_g01_every_algorithm_is_accepted(self) -> None:
        for algorithm in ("rsa2048", "nistp256", "dsa2048"):
            with self.subTest(algorithm):
                key = self.home.create_key(algorithm, KeyOptions(algorithm))
                self.judge(self.home.sign_as(payload(), key), ring=self.home.export_all(key))

    def test_accepted_signature_is_recorded_with_key_and_claims(self) -> None:
        [result] = self.judge(self.good)
        self.assertEqual(
            result,
            SignatureResult(
                "signature-1", "simple", True, "", "", self.main, None, {"reference": REFERENCE, "digest": DIGEST}
            ),
        )

    def test_g02_uncompressed_message_is_accepted(self) -> None:
        self.judge(self.home.sign_as(payload(), self.main, options=("-z", "0")))

    def test_g03_subkey_is_accepted_under_its_primary_and_recorded_itself(self) -> None:
        key = self.home.create_key("withsub")
        subkey = self.home.add_subkey(key)
        [result] = self.judge(self.home.sign_as(payload(), f"{subkey}!"), ring=self.home.export_all(key))
        self.assertEqual(result.key, subkey)

    def test_g04_unknown_key_is_untrusted_and_its_claims_are_not_recorded(self) -> None:
        seen: list[SignatureResult] = []
        message = self.home.sign_as(payload(), self.stranger)
        self.refuse("untrusted", f"signed by a key {self.stranger} that the policy does not list", message)
        requirement = SignedBy("GPGKeys", (Material("keyData", content=self.ring),), MatchRepoDigestOrExact())
        given = tools(gpgv=lambda keys, text: DirectPrograms().verify(keys, text))
        with self.assertRaises(PolicyRejectedError):
            requirement.check(unverified(SimpleSignature(message, "place")), given, seen)
        self.assertEqual((seen[0].key, seen[0].claims, seen[0].reason), (self.stranger, None, "untrusted"))

    def test_g05_tampered_text_is_refused(self) -> None:
        plain = self.home.sign_as(payload(), self.main, options=("-z", "0"))
        self.refuse("crypto", "does not fit the text", plain.replace(b"example.com", b"example.org"))

    def test_flipped_bits_are_refused_or_outside_of_what_is_signed(self) -> None:
        """Packet headers, the one-pass packet and unhashed subpackets are not covered; text and signature are."""
        text = payload()
        plain = self.home.sign_as(text, self.main, options=("-z", "0"))
        begin = plain.index(text)
        end = begin + len(text)
        accepted = []
        for position in range(0, len(plain) * 8, 11):
            flipped = bytearray(plain)
            flipped[position // 8] ^= 1 << position % 8
            try:
                [result] = self.judge(bytes(flipped))
            except PolicyRejectedError as error:
                self.assertIn(error.reason, ("crypto", "untrusted"))
                continue
            self.assertEqual(result.claims, {"reference": REFERENCE, "digest": DIGEST})
            accepted.append(position // 8)
        numbers = len(plain) - 2 * 32  # both halves of an Ed25519 signature stand at the end
        self.assertEqual([each for each in accepted if begin <= each < end or each >= numbers], [])

    def test_g06_expired_keys_are_refused_although_gpgv_exits_well(self) -> None:
        made, used = "20200601T000000", "20200701T000000"
        short = KeyOptions(expiry="1y", time=made)
        expired = self.home.create_key("expired", short)
        primary = self.home.create_key("primaryexpired", short)
        sub_of_primary = self.home.add_subkey(primary, KeyOptions(time=used))
        holder = self.home.create_key("subexpired", KeyOptions(time=made))
        subkey = self.home.add_subkey(holder, KeyOptions(expiry="1y", time=made))
        for case, signer, owner in (
            ("key", expired, expired),
            ("primary", sub_of_primary, primary),
            ("subkey", subkey, holder),
        ):
            message = self.home.sign_as(payload(), f"{signer}!", time=used)
            with self.subTest(case):
                self.refuse("crypto", "the key has expired", message, ring=self.home.export_all(owner))

    def test_expired_subkey_beside_the_signer_does_not_matter(self) -> None:
        """gpgv says KEYEXPIRED of it, as of an expired signer; only EXPKEYSIG tells them apart."""
        key = self.home.create_key("mixed", KeyOptions(time="20200601T000000"))
        self.home.add_subkey(key, KeyOptions(expiry="1y", time="20200601T000000"))
        self.judge(self.home.sign_as(payload(), f"{key}!"), ring=self.home.export_all(key))

    def test_g07_revoked_keys_are_refused_although_gpgv_exits_well(self) -> None:
        key = self.home.create_key("revoked")
        by_key = self.home.sign_as(payload(), key)
        before = self.home.export_all(key)
        self.judge(by_key, ring=before)
        self.home.revoke(key)
        self.refuse("crypto", "the key is revoked", by_key, ring=self.home.export_all(key))
        holder = self.home.create_key("subrevoked")
        subkey = self.home.add_subkey(holder)
        by_subkey = self.home.sign_as(payload(), f"{subkey}!")
        self.home.revoke_subkey(holder)
        self.refuse("crypto", "the key is revoked", by_subkey, ring=self.home.export_all(holder))
        with self.subTest("G20: the copy without the revocation first"):
            ring = before + self.home.export_all(key)
            self.refuse("keycfg", f"key {key} occurs twice", by_key, ring=ring)

    def test_g08_times_of_signatures(self) -> None:
        old = self.home.create_key("old", KeyOptions(time="20200101T000000"))
        ring = self.home.export_all(old)
        lapsed = self.home.sign_as(payload(), old, options=("--default-sig-expire", "1d"), time="20200601T000000")
        self.refuse("crypto", "the signature has expired", lapsed, ring=ring)
        future = self.home.sign_as(payload(), old, time="20350101T000000")
        self.judge(future, ring=ring)
        early_options = ("--ignore-time-conflict", "--ignore-valid-from")
        early = self.home.sign_as(payload(), self.main, options=early_options, time="20190101T000000")
        self.refuse("crypto", "cannot be checked", early)

    def test_g09_g10_two_signers_in_one_message_are_refused(self) -> None:
        for case, signers in (
            ("both trusted", (self.main, self.other)),
            ("unknown second", (self.main, self.stranger)),
            ("unknown first", (self.stranger, self.main)),
        ):
            with self.subTest(case):
                self.refuse("crypto", "more than one signature", self.home.sign_as(payload(), *signers))

    def test_g11_what_is_no_signed_message_is_refused(self) -> None:
        to = ("--recipient", self.home.create_key("crypt", KeyOptions("rsa2048", "encrypt")))
        detached = self.home.sign_as(payload(), self.main, mode="--detach-sign")
        for case, message, words in (
            ("literal", self.home.run("--store", text=payload()), "not one signed message"),
            ("encrypted", self.home.run(*to, "--encrypt", text=payload()), "not a signed binary"),
            ("both", self.home.run(*to, "--sign", "--encrypt", text=payload()), "not a signed binary"),
            ("detached", detached, "not one signed message"),
            ("cut short", self.good[: len(self.good) // 2], ""),
        ):
            with self.subTest(case):
                self.refuse("crypto", words, message)

    def test_g12_g13_other_packets_around_a_message_are_refused(self) -> None:
        evil = payload("evil.example/ns/r:v1")
        plain = self.home.sign_as(payload(), self.main, options=("-z", "0"))
        literal = self.home.run("--store", "-z", "0", text=evil)
        second = self.home.sign_as(evil, self.other, options=("-z", "0"))
        detached = self.home.sign_as(payload(), self.main, mode="--detach-sign")
        for case, message in (
            ("literal before", literal + plain),
            ("literal after", plain + literal),
            ("two messages", plain + second),
            ("detached and literal", detached + literal),
        ):
            with self.subTest(case):
                self.refuse("crypto", "", message)

    def test_g14_what_follows_a_compressed_message_is_not_read(self) -> None:
        for rest in (b"garbage", self.home.sign_as(payload("evil.example/ns/r:v1"), self.main)):
            [result] = self.judge(self.good + rest)
            self.assertEqual(result.claims, {"reference": REFERENCE, "digest": DIGEST})

    def test_g15_newline_after_an_uncompressed_message_is_refused(self) -> None:
        self.refuse(
            "crypto", "not one signed message", self.home.sign_as(payload(), self.main, options=("-z", "0")) + b"\n"
        )

    def test_g16_signed_message_within_a_signed_message_is_no_payload(self) -> None:
        self.refuse("payload", "signed payload: not valid", self.home.sign_as(self.good, self.main))

    def test_g17_armor_and_cleartext_are_refused_with_and_without_prefix(self) -> None:
        for text in (
            self.home.sign_as(payload(), self.main, options=("--armor",)),
            self.home.sign_as(payload(), self.main, mode="--clear-sign"),
        ):
            with self.assertRaisesRegex(SignatureError, "unknown format") as caught:
                parse_signature_blob(text, "place")
            self.assertEqual(caught.exception.reason, "fetch")
            prefixed = parse_signature_blob(b"\0simple-signing\n" + text, "place")
            assert isinstance(prefixed, SimpleSignature)
            self.refuse("crypto", "not a signed binary OpenPGP message", prefixed.message)

    def test_g18_sha1_is_refused(self) -> None:
        weak = self.home.sign_as(payload(), self.main, options=("--digest-algo", "SHA1", "--allow-weak-digest-algos"))
        self.refuse("crypto", "signed with SHA-1", weak)

    def test_text_mode_is_refused(self) -> None:
        self.refuse("crypto", "text-mode", self.home.sign_as(payload(), self.main, options=("--textmode",)))

    def test_g19_armored_rings_are_read(self) -> None:
        main, other = (self.home.export_all(key, armor=True) for key in (self.main, self.other))
        for case, ring in (
            ("one block", self.home.export_all(self.main, self.other, armor=True)),
            ("several blocks", main + b"\ntext between\n" + other),
            ("line ends", (other + main).replace(b"\n", b"\r\n")),
        ):
            with self.subTest(case):
                self.judge(self.good, ring=ring)

    def test_g21_rings_without_a_usable_key_are_refused(self) -> None:
        ring = self.home.export_all(self.main)
        name = 2 + ring[1]  # offset of the user id behind the key packet; both have one length byte
        for case, broken in (
            ("garbage", b"\xffgarbage"),
            ("text", b"garbage"),
            ("truncated", ring[:-5]),
            ("without self-signature", ring[: name + 2 + ring[name + 1]]),
        ):
            with self.subTest(case):
                self.refuse("keycfg", "", self.good, ring=broken)

    def test_foreign_subkey_is_not_believed(self) -> None:
        thief, owner = self.home.create_key("thief"), self.home.create_key("owner")
        subkey = self.home.add_subkey(owner)
        message = self.home.sign_as(payload(), f"{subkey}!")
        with_subkey, without_subkey = self.home.export_all(owner), self.home.export_all(thief)
        start = 0
        for _ in ("key", "user id", "self-signature"):
            start += 2 + with_subkey[start + 1]  # old packet format with one length byte
        grafted = without_subkey + with_subkey[start:]
        self.refuse("keycfg", "class 0x18 does not stand behind what it signs", message, ring=grafted)

    def test_g22_payload_of_another_shape_is_refused(self) -> None:
        text = payload()
        for case, changed in (
            ("optional null", payload(optional=None)),
            ("sigstore type", payload(kind="cosign container image signature")),
            ("extra in critical", text.replace(b'"critical": {', b'"critical": {"x": 1, ')),
            ("duplicate in optional", text.replace(b'"optional": {', b'"optional": {"creator": "x", ')),
        ):
            with self.subTest(case):
                self.refuse("payload", "signed payload", self.home.sign_as(changed, self.main))

    def test_g23_g24_other_digests_are_refused_before_other_names(self) -> None:
        sha512 = f"sha512:{hashlib.sha512(MANIFEST).hexdigest()}"
        for case, text, reason in (
            ("other digest", payload(digest=OTHER_DIGEST), "digest"),
            ("sha512", payload(digest=sha512), "digest"),
            ("upper case", payload(digest=f"sha256:{DIGEST[7:].upper()}"), "payload"),
            ("digest and name", payload("example.com/other:v1", OTHER_DIGEST), "digest"),
            ("name", payload("example.com/other:v1"), "identity"),
        ):
            with self.subTest(case):
                self.refuse(reason, "sign|payload", self.home.sign_as(text, self.main))

    def test_refused_claims_of_a_believed_signer_are_recorded(self) -> None:
        seen: list[SignatureResult] = []
        requirement = SignedBy("GPGKeys", (Material("keyData", content=self.ring),), MatchRepoDigestOrExact())
        given = tools(gpgv=lambda keys, text: DirectPrograms().verify(keys, text))
        message = SimpleSignature(self.home.sign_as(payload("example.com/ns/r:v2"), self.main), "place")
        with self.assertRaisesRegex(PolicyRejectedError, "signed for example.com/ns/r:v2: expected exactly"):
            requirement.check(unverified(message), given, seen)
        self.assertEqual(seen[0].claims, {"reference": "example.com/ns/r:v2", "digest": DIGEST})
        self.assertEqual((seen[0].reason, seen[0].key), ("identity", self.main))

    def test_g25_manifest_whose_own_hash_differs_is_refused(self) -> None:
        """A schema 1 document whose embedded payload has the signed digest is judged by its raw bytes."""
        self.refuse(
            "digest", f"expected {re.escape(DIGEST)}", self.home.sign_as(payload(digest=OTHER_DIGEST), self.main)
        )

    def test_c05_c06_one_good_signature_among_bad_ones_suffices(self) -> None:
        unknown = self.home.sign_as(payload(), self.stranger)
        other_name = self.home.sign_as(payload("example.com/ns/r:v2"), self.main)
        seen = self.judge(unknown, other_name, self.good, self.good)
        self.assertEqual([each.accepted for each in seen], [False, False, True])
        self.refuse(
            "several", f"signed by a key {self.stranger}.*; signed for example.com/ns/r:v2", unknown, other_name
        )

    def test_i18_image_without_a_name_is_refused(self) -> None:
        requirement = SignedBy("GPGKeys", (Material("keyData", content=self.ring),), MatchRepoDigestOrExact())
        given = tools(gpgv=lambda keys, text: DirectPrograms().verify(keys, text))
        image = unverified(SimpleSignature(self.good, "place"), identity=NAMELESS)
        with self.assertRaisesRegex(PolicyRejectedError, "the image has no name here") as caught:
            requirement.check(image, given, [])
        self.assertEqual(caught.exception.reason, "identity")

    def test_missing_gpgv_refuses_with_its_own_code(self) -> None:
        requirement = SignedBy("GPGKeys", (Material("keyData", content=self.ring),), MatchRepoDigestOrExact())
        seen: list[SignatureResult] = []

        def absent(ring: bytes, message: bytes) -> GpgvResult:
            raise MissingDependencyError("gpgv", "check an OpenPGP signature")

        image = unverified(SimpleSignature(self.good, "one"), SimpleSignature(self.good, "two"))
        with self.assertRaisesRegex(PolicyRejectedError, "gpgv is not installed") as caught:
            requirement.check(image, tools(gpgv=absent), seen)
        self.assertEqual((caught.exception.code, caught.exception.reason), (ErrorCode.DEPENDENCY_MISSING, "dependency"))
        self.assertEqual([each.accepted for each in seen], [False])


if __name__ == "__main__":
    unittest.main()

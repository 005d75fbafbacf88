# SPDX-License-Identifier: Apache-2.0
"""`signedBy`: what gpgv's words are worth (signatures.md 4, rows G and the pure part of C)."""

import hashlib
import re
import unittest
from collections.abc import Iterator

from cip.errors import ErrorCode, MissingDependencyError, PolicyRejectedError, SignatureError, SourceError
from cip.model.signature import SigstoreSignature, SimpleSignature, parse_signature_blob
from cip.programs import DirectPrograms, GpgvResult
from cip.trust.openpgp.keyring import KeyRing
from cip.trust.openpgp.simplesigning import SignedBy, verify_message
from cip.trust.requirements import SignatureResult
from cip.trust.signed.matching import MatchRepoDigestOrExact
from cip.trust.signed.materials import Material
from cip.trust.signed.requirement import VerificationRecord
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

SIGNER = "A" * 40
PRIMARY = "B" * 40
STRANGER = "C" * 40
RING = KeyRing(b"ring", frozenset({PRIMARY}))
MESSAGE = b"\xa3message"
VALID = f"VALIDSIG {SIGNER} 2026-01-01 1700000000 0 4 0 22 8 00 {PRIMARY}"
GOOD = ("PLAINTEXT 62 1700000000 ", "PLAINTEXT_LENGTH 5", "NEWSIG", f"GOODSIG {SIGNER[-16:]} somebody", VALID)


def status(*lines: str) -> bytes:
    return "".join(f"[GNUPG:] {line}\n" for line in lines).encode()


def without(word: str) -> tuple[str, ...]:
    return tuple(line for line in GOOD if line.split()[0] != word)


class WordsOfGpgvTest(unittest.TestCase):
    """`verify_message` over a scripted gpgv: neither exit status nor VALIDSIG alone is believed."""

    def verify(self, lines: bytes, code: int = 0, message: bytes = MESSAGE) -> bytes:
        def gpgv(ring: bytes, seen: bytes) -> GpgvResult:
            self.assertEqual((ring, seen), (b"ring", message))
            return GpgvResult(code, lines, b"text")

        self.verification = VerificationRecord("place", "simple")
        return verify_message(message, RING, gpgv, self.verification)

    def refuse(self, reason: str, words: str, lines: bytes, code: int = 0, message: bytes = MESSAGE) -> None:
        with self.assertRaisesRegex(SignatureError, words) as caught:
            self.verify(lines, code, message)
        self.assertEqual(caught.exception.reason, reason)

    def test_one_good_signature_yields_the_text_and_the_signer(self) -> None:
        self.assertEqual(self.verify(status(*GOOD)), b"text")
        self.assertEqual(self.verification.key, SIGNER)

    def test_status_line_of_every_fatal_kind_refuses_beside_a_good_signature(self) -> None:
        for word, sentence in (
            ("BADSIG", "does not fit the text"),
            ("REVKEYSIG", "revoked"),
            ("KEYREVOKED", "revoked"),
            ("EXPKEYSIG", "key has expired"),
            ("EXPSIG", "signature has expired"),
            ("SIGEXPIRED", "signature has expired"),
            ("ERRSIG", "cannot be checked"),
            ("NO_PUBKEY", "a signer is unknown"),
            ("UNEXPECTED", "not one signed message"),
            ("NODATA", "not one signed message"),
            ("ERROR", "not one signed message"),
            ("FAILURE", "gpgv failed"),
            ("BADARMOR", "not a binary message"),
            ("DECRYPTION_FAILED", "an encrypted message"),
            ("BEGIN_DECRYPTION", "an encrypted message"),
            ("ENC_TO", "an encrypted message"),
        ):
            for lines in ((*GOOD, f"{word} x"), (word, *GOOD)):
                with self.subTest(word, first=lines[0]):
                    self.refuse("crypto", f"{sentence} \\({word}\\), key {SIGNER}$", status(*lines))

    def test_word_that_is_on_no_list_refuses_beside_a_good_signature(self) -> None:
        """An allow-list: what a later gpgv says of a new weakness is not taken for silence."""
        for word in ("BADKEYSIG", "REVKEYSIG2", "TRUST_NEVER", "goodsig", "WARNING", "\x1b[31m"):
            for lines in ((*GOOD, f"{word} x"), (word, *GOOD)):
                with self.subTest(word, first=lines[0]):
                    self.refuse("crypto", r"gpgv says '.*', which nobody here knows", status(*lines))
        for word in (
            "PLAINTEXT_LENGTH",
            "KEY_CONSIDERED",
            "SIG_ID",
            "NOTATION_NAME",
            "NOTATION_FLAGS",
            "NOTATION_DATA",
            "POLICY_URL",
            "VERIFICATION_COMPLIANCE_MODE",
            "KEYEXPIRED",
        ):
            with self.subTest(word):
                self.assertEqual(self.verify(status(f"{word} x", *GOOD, word)), b"text")

    def test_key_must_be_good_without_signatures_over_itself_alone(self) -> None:
        ring = RING._replace(by_names=b"by names")
        unusable = status(*GOOD[:3], f"ERRSIG {PRIMARY[-16:]} 22 8 00 1700000000 6 {PRIMARY}")
        for case, second, words in (
            ("good in both", GpgvResult(0, status(*GOOD), b"text"), ""),
            ("not by its names", GpgvResult(2, unusable, b"text"), "cannot be checked"),
            ("another text", GpgvResult(0, status(*GOOD), b"other"), "two texts"),
        ):
            answers = iter((GpgvResult(0, status(*GOOD), b"text"), second))
            seen: list[bytes] = []

            def gpgv(keys: bytes, message: bytes, answers: Iterator[GpgvResult] = answers) -> GpgvResult:
                seen.append(keys)  # noqa: B023  (called in this turn of the loop alone)
                return next(answers)

            with self.subTest(case):
                try:
                    verify_message(MESSAGE, ring, gpgv, self.examined())
                    self.assertEqual(words, "")
                except SignatureError as error:
                    self.assertRegex(str(error), words or "nothing")
                self.assertEqual(seen, [b"ring", b"by names"])

    def test_weak_rsa_keys_are_refused_as_signer_and_as_what_binds_the_signer(self) -> None:
        """D10: below 2048 bits, as sigstore's; another weak key in the ring does not matter."""
        for weak, accepted in (({SIGNER: 2047}, False), ({PRIMARY: 1024}, False), ({STRANGER: 1024}, True)):
            ring = RING._replace(weak=weak)
            with self.subTest(weak=weak):
                try:
                    verify_message(MESSAGE, ring, lambda *_: GpgvResult(0, status(*GOOD), b"text"), self.examined())
                    self.assertTrue(accepted)
                except SignatureError as error:
                    self.assertFalse(accepted)
                    self.assertRegex(str(error), "is an RSA key of (2047|1024) bits, expected at least 2048$")
                    self.assertEqual(error.reason, "crypto")

    def examined(self) -> VerificationRecord:
        return VerificationRecord("place", "simple")

    def test_each_word_of_a_good_signature_must_occur_exactly_once(self) -> None:
        for word in ("GOODSIG", "VALIDSIG", "PLAINTEXT", "NEWSIG"):
            line = next(line for line in GOOD if line.split()[0] == word)
            with self.subTest("missing", word=word):
                self.refuse("crypto", f"expected one {word}, found 0", status(*without(word)))
            with self.subTest("twice", word=word):
                words = "more than one signature" if word == "NEWSIG" else f"expected one {word}, found 2"
                self.refuse("crypto", words, status(*GOOD, line))

    def test_two_signatures_in_one_message_are_refused_even_when_both_are_good(self) -> None:
        self.refuse("crypto", "more than one signature in one message", status(*GOOD, *GOOD[2:]))

    def test_known_and_unknown_signer_in_one_message_are_refused_as_two(self) -> None:
        error = f"ERRSIG {STRANGER[-16:]} 22 8 00 1700000000 9 {STRANGER}"
        self.refuse("crypto", "more than one signature", status(*GOOD, "NEWSIG", error), 2)

    def test_unknown_signer_is_untrusted_and_named(self) -> None:
        for shown, who in ((STRANGER, STRANGER), ("-", f"'{STRANGER[-16:]}'")):
            error = f"ERRSIG {STRANGER[-16:]} 22 8 00 1700000000 9 {shown}"
            lines = status(*GOOD[:3], error, f"NO_PUBKEY {STRANGER[-16:]}")
            with self.subTest(shown):
                self.refuse("untrusted", f"signed by a key {who} that the policy does not list", lines, 2)

    def test_unknown_signer_of_no_text_is_a_malformed_message(self) -> None:
        error = f"ERRSIG {STRANGER[-16:]} 22 8 00 1700000000 9 {STRANGER}"
        self.refuse("crypto", "cannot be checked", status("NEWSIG", error), 2)

    def test_key_that_may_not_sign_is_no_unknown_key(self) -> None:
        error = f"ERRSIG {PRIMARY[-16:]} 22 8 00 1700000000 125 {PRIMARY}"
        self.refuse("crypto", f"cannot be checked \\(ERRSIG\\), key {PRIMARY}", status(*GOOD[:3], error), 2)

    def test_good_lines_with_a_failed_exit_are_refused(self) -> None:
        self.refuse("crypto", "gpgv ended with status 2", status(*GOOD), 2)
        self.refuse("crypto", "gpgv ended with status -9", status(*GOOD), -9)

    def test_no_line_at_all_is_refused(self) -> None:
        self.refuse("crypto", "expected one NEWSIG, found 0", b"")

    def test_anything_but_status_lines_is_refused(self) -> None:
        for case, lines, words in (
            ("text before", b"hello\n" + status(*GOOD), "something else"),
            ("text after", status(*GOOD) + b"hello\n", "something else"),
            ("blank line", status(*GOOD) + b"\n", "something else"),
            ("no keyword", status(*GOOD) + b"[GNUPG:] \n", "something else"),
            ("no space", status(*GOOD) + b"[GNUPG:]GOODSIG\n", "something else"),
            ("cut short", status(*GOOD)[:-1], "cut short"),
        ):
            with self.subTest(case):
                self.refuse("crypto", words, lines)

    def test_primary_key_must_be_one_of_the_ring_by_its_full_fingerprint(self) -> None:
        for case, shown in (("another", STRANGER), ("key id", PRIMARY[-16:]), ("lower case", PRIMARY.lower())):
            with self.subTest(case):
                lines = status(*without("VALIDSIG"), VALID.replace(PRIMARY, shown))
                self.refuse("untrusted", "signed by a key .* that the policy does not list", lines)

    def test_signer_alone_is_not_enough_when_the_primary_is_unlisted(self) -> None:
        valid = f"VALIDSIG {PRIMARY} 2026-01-01 1700000000 0 4 0 22 8 00 {STRANGER}"
        self.refuse("untrusted", STRANGER, status(*without("VALIDSIG"), valid))

    def test_short_validsig_is_refused(self) -> None:
        short = VALID.rpartition(" ")[0]
        self.refuse("crypto", "says too little", status(*without("VALIDSIG"), short))

    def test_text_mode_and_weak_hashes_are_refused(self) -> None:
        for case, changed, words in (
            ("text mode", VALID.replace(" 8 00 ", " 8 01 "), "text-mode"),
            ("MD5", VALID.replace(" 22 8 ", " 22 1 "), "MD5"),
            ("SHA-1", VALID.replace(" 22 8 ", " 22 2 "), "SHA-1"),
            ("RIPEMD160", VALID.replace(" 22 8 ", " 22 3 "), "RIPEMD160"),
        ):
            with self.subTest(case):
                self.refuse("crypto", words, status(*without("VALIDSIG"), changed))

    def test_only_binary_messages_reach_gpgv(self) -> None:
        words = "not a signed binary OpenPGP message"
        for case, message in (
            ("empty", b""),
            ("armor", b"-----BEGIN PGP MESSAGE-----"),
            ("low", b"\x7f"),
            ("encrypted", b"\x84"),
            ("armor behind an unknown packet", b"\x80\n-----BEGIN PGP MESSAGE-----"),
        ):
            with self.subTest(case), self.assertRaisesRegex(SignatureError, words) as caught:
                verify_message(message, RING, tools().run_gpgv, VerificationRecord("place", "simple"))
            self.assertEqual(caught.exception.reason, "crypto")
        self.assertEqual(self.verify(status(*GOOD), message=b"\xa3"), b"text")

    def test_gpgv_that_was_killed_refuses(self) -> None:
        def killed(ring: bytes, message: bytes) -> GpgvResult:
            raise SourceError("gpgv: still running after 30 s", code=ErrorCode.TIMEOUT)

        with self.assertRaisesRegex(SignatureError, "still running after 30 s") as caught:
            verify_message(MESSAGE, RING, killed, VerificationRecord("place", "simple"))
        self.assertEqual(caught.exception.reason, "dependency")


class RequirementTest(unittest.TestCase):
    """`SignedBy.check` without a single real signature."""

    def requirement(self, *keys: Material, key_type: str = "GPGKeys") -> SignedBy:
        return SignedBy(key_type, keys, MatchRepoDigestOrExact())

    def test_no_candidate_is_nosig_and_no_key_file_is_read(self) -> None:
        sigstore = SigstoreSignature("x", b"", {}, "place")
        for case, image, words in (
            ("unknown places", unverified(), "^no simple signature found$"),
            ("no place", unverified(looked_for=tuple), "^no simple signature was looked for: neither transport nor"),
            ("places", unverified(looked_for=lambda: ("a", "b")), "^no simple signature found, looked in a, b$"),
            ("another kind", unverified(sigstore, sigstore), "found, 2 of another kind$"),
        ):
            with self.subTest(case), self.assertRaisesRegex(PolicyRejectedError, words) as caught:
                self.requirement(Material("keyPath", path="/missing")).check(image, tools(), [])
            self.assertEqual(caught.exception.reason, "nosig")

    def test_other_key_types_are_unimplemented_once_there_is_a_signature(self) -> None:
        requirement = self.requirement(Material("keyData", content=b""), key_type="X509Certificates")
        with self.assertRaisesRegex(PolicyRejectedError, "no simple signature"):
            requirement.check(unverified(), tools(), [])
        with self.assertRaisesRegex(PolicyRejectedError, "keyType X509Certificates is not supported") as caught:
            requirement.check(unverified(SimpleSignature(MESSAGE, "place")), tools(), [])
        self.assertEqual(caught.exception.reason, "unimpl")

    def test_unusable_key_refuses_every_signature_with_the_file_name(self) -> None:
        seen: list[SignatureResult] = []
        image = unverified(SimpleSignature(MESSAGE, "one"), SimpleSignature(MESSAGE, "two"))
        with self.assertRaisesRegex(PolicyRejectedError, r"keyPath '/k': /k: no such file") as caught:
            self.requirement(Material("keyPath '/k'", path="/k")).check(image, tools(), seen)
        self.assertEqual(caught.exception.reason, "keycfg")
        self.assertEqual(
            [(each.source, each.accepted, each.reason) for each in seen],
            [("one", False, "keycfg"), ("two", False, "keycfg")],
        )

    def test_requirement_without_keys_is_unusable(self) -> None:
        with self.assertRaisesRegex(PolicyRejectedError, "the requirement lists no key") as caught:
            self.requirement().check(unverified(SimpleSignature(MESSAGE, "one")), tools(), [])
        self.assertEqual(caught.exception.reason, "keycfg")


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

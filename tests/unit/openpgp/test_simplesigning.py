# SPDX-License-Identifier: Apache-2.0
"""`signedBy`: what gpgv's words are worth (signatures.md 4, rows G and the pure part of C)."""

import unittest
from collections.abc import Iterator

from cip.errors import ErrorCode, PolicyRejectedError, SignatureError, SourceError
from cip.model.signature import SignatureResult, SigstoreSignature, SimpleSignature
from cip.programs import GpgvResult
from cip.trust.openpgp.keyring import KeyRing
from cip.trust.openpgp.simplesigning import SignedBy, verify_message
from cip.trust.signed.matching import MatchRepoDigestOrExact
from cip.trust.signed.materials import Material
from cip.trust.signed.requirement import VerificationRecord
from tests.support.signatures import tools, unverified

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


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""Base64, PEM and OpenPGP armor: one spelling each, one pass each."""

import base64
import time
import unittest

from cip.trust.signed.armor import PemBlock, dearmor_keys, decode_base64, pem_blocks

BLOCK = b"-----BEGIN KEY-----\na2V5\n-----END KEY-----\n"
# "123456789", whose CRC-24 is the check value 0x21CF02 of the algorithm's definition
ARMORED = (
    b"-----BEGIN PGP PUBLIC KEY BLOCK-----\nVersion: x\n\nMTIzNDU2Nzg5\n=Ic8C\n-----END PGP PUBLIC KEY BLOCK-----\n"
)


class Base64Test(unittest.TestCase):
    def test_line_ends_are_ignored(self) -> None:
        for text, content in (
            ("", b""),
            ("a2V5", b"key"),
            ("a2\r\nV5\n", b"key"),
            ("a2U=", b"ke"),
            ("+/+/", b"\xfb\xff\xbf"),
        ):
            self.assertEqual(decode_base64(text), content)

    def test_every_other_spelling_is_refused(self) -> None:
        for text in (
            "a2V5 ",
            "a2 V5",
            "a2\tV5",
            "a2U",
            "a2U==",
            "a2V=",
            "-_-_",
            "=",
            "====",
            "a2U=a2U=",
            "a2V5=",
            "a",
            "ü",
            "a2V5\0",
        ):
            with self.subTest(text), self.assertRaises(ValueError):
                decode_base64(text)


class PemTest(unittest.TestCase):
    def blocks(self, text: bytes) -> list[PemBlock]:
        return list(pem_blocks(text))

    def test_text_around_blocks_is_skipped(self) -> None:
        text = b"before\n" + BLOCK + b"between\n" + BLOCK + b"after"
        first, second = self.blocks(text)
        self.assertEqual((first.label, first.content), ("KEY", b"key"))
        self.assertEqual(text[first.end :], b"between\n" + BLOCK + b"after")
        self.assertEqual(text[second.end :], b"after")

    def test_line_ends_and_blanks_at_line_ends_do_not_matter(self) -> None:
        for text in (BLOCK.replace(b"\n", b"\r\n"), BLOCK.replace(b"\n", b" \t\n"), BLOCK.rstrip(b"\n")):
            [block] = self.blocks(text)
            self.assertEqual((block.content, block.end), (b"key", len(text)))

    def test_content_that_is_no_base64_is_none(self) -> None:
        for body in (b"a2V", b"Proc-Type: 4,ENCRYPTED\n\na2V5", b"a2 V5", b" a2V5", b"\xff"):
            [block] = self.blocks(BLOCK.replace(b"a2V5", body))
            with self.subTest(body):
                self.assertIsNone(block.content)

    def test_what_is_no_complete_block_is_skipped(self) -> None:
        for text in (
            b"",
            b"a2V5\n",
            BLOCK[: BLOCK.index(b"-----END")],
            BLOCK.replace(b"END KEY", b"END OTHER"),
            b" " + BLOCK,
            BLOCK.replace(b"-----BEGIN KEY-----", b"----BEGIN KEY-----"),
            BLOCK.replace(b"KEY-----\na", b"KEY----\na"),
            b"-----END KEY-----\n",
        ):
            with self.subTest(text):
                self.assertEqual(self.blocks(text), [])

    def test_unfinished_block_does_not_swallow_the_next(self) -> None:
        [block] = self.blocks(b"-----BEGIN A-----\nAAAA\n" + BLOCK)
        self.assertEqual((block.label, block.content), ("KEY", b"key"))

    def test_time_grows_with_the_length_only(self) -> None:
        begin = time.process_time()
        self.blocks(b"-----BEGIN KEY-----\n" * 50_000)
        small = time.process_time() - begin
        begin = time.process_time()
        self.blocks(b"-----BEGIN KEY-----\n" * 200_000)
        self.assertLess(time.process_time() - begin, 40 * max(small, 0.01))


class ArmorTest(unittest.TestCase):
    def test_checksum_is_checked_and_may_be_left_out_behind_padding(self) -> None:
        self.assertEqual(dearmor_keys(ARMORED), b"123456789")
        self.assertEqual(dearmor_keys(ARMORED.replace(b"Nzg5\n=Ic8C\n", b"Nw==\n")), b"1234567")
        for text, words in (
            (ARMORED.replace(b"=Ic8C\n", b""), "no armor checksum"),
            (ARMORED.replace(b"=Ic8C", b"=Ic8D"), "wrong armor checksum"),
            (ARMORED.replace(b"MTIz", b"MTI0"), "wrong armor checksum"),
            (ARMORED.replace(b"=Ic8C", b"=*c8C"), ""),
        ):
            with self.subTest(text), self.assertRaisesRegex(ValueError, words):
                dearmor_keys(text)

    def test_checksum_is_the_last_line_of_exactly_five_characters(self) -> None:
        body = b"MTIzNDU2Nzg5\n=Ic8C\n"
        self.assertEqual(dearmor_keys(ARMORED.replace(body, b"MTIz\nNDU2\nNzg5\n=Ic8C\n")), b"123456789")
        self.assertEqual(dearmor_keys(ARMORED.replace(body, b"MTIzNDU2Nw\n==\n\n")), b"1234567")
        for text in (
            b"MTIzNDU2Nzg5\n=Ic8C=\n",
            b"MTIzNDU2Nzg5\n=Ic8\n",
            b"=Ic8C\nMTIzNDU2Nzg5\n",
            b"MTIz\n=Ic8C\nNDU2\n",
        ):
            with self.subTest(text), self.assertRaises(ValueError):
                dearmor_keys(ARMORED.replace(body, text))

    def test_first_blank_line_ends_the_headers(self) -> None:
        headers = ARMORED.replace(b"Version: x\n", b"Version: x\nComment: y\n")
        self.assertEqual(dearmor_keys(headers), b"123456789")
        self.assertEqual(dearmor_keys(ARMORED.replace(b"Version: x\n", b"")), b"123456789")
        self.assertEqual(dearmor_keys(ARMORED.replace(b"Version: x\n", b"Comment:\n")), b"123456789")
        for line in (b"MTIzNDU2", b"a:b", b": x", b"Comment", b"--", b"Comment:\t"):  # an import refuses the block
            with self.subTest(line), self.assertRaisesRegex(ValueError, "only armor headers"):
                dearmor_keys(ARMORED.replace(b"Version: x\n", b"Version: x\n" + line + b"\n"))

    def test_only_blanks_and_line_ends_are_taken_away_behind_a_line(self) -> None:
        self.assertEqual(dearmor_keys(ARMORED.replace(b"\n", b" \t\r\n")), b"123456789")
        for end in (b"\v", b"\f", b"\0", b"\x1c", b"\x85"):
            with self.subTest(end), self.assertRaises(ValueError):
                dearmor_keys(ARMORED.replace(b"\n", end + b"\n"))
            self.assertEqual([*pem_blocks(BLOCK.replace(b"\n", end + b"\n"))], [])

    def test_several_blocks_are_joined_and_text_around_them_is_passed_over(self) -> None:
        self.assertEqual(dearmor_keys(b"text\n" + ARMORED + b"x\n" + ARMORED.replace(b"\n", b"\r\n")), b"123456789" * 2)

    def test_text_without_a_well_formed_block_is_refused(self) -> None:
        for case, text, words in (
            ("none", b"text", "no public key block"),
            ("private", ARMORED.replace(b"PUBLIC", b"PRIVATE"), "1 begin and 0 are whole"),
            ("a message beside", ARMORED + ARMORED.replace(b"PUBLIC KEY BLOCK", b"MESSAGE"), "2 begin and 1 are"),
            ("no end", ARMORED + ARMORED[:-4], "2 begin and 1 are whole"),
            ("no blank line", ARMORED.replace(b"\n\n", b"\n"), "no blank line"),
            ("not base64", ARMORED.replace(b"MTIz", b"M*Iz"), ""),
            ("one good, one bad", ARMORED + ARMORED.replace(b"MTIz", b"M*Iz"), ""),
        ):
            with self.subTest(case), self.assertRaisesRegex(ValueError, words):
                dearmor_keys(text)

    def test_empty_body_is_no_key(self) -> None:
        empty = ARMORED.replace(b"MTIzNDU2Nzg5\n=Ic8C\n", b"")
        self.assertEqual(dearmor_keys(empty), b"")

    def test_long_text_is_read_whole(self) -> None:
        content = bytes(range(256)) * 20
        lines = base64.encodebytes(content)
        text = ARMORED.replace(b"MTIzNDU2Nzg5\n=Ic8C\n", lines)
        self.assertEqual(dearmor_keys(text), content)


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""Digests: the checks of images.md 2.1 and registry.md 1.4, in their order and with their reasons."""

import hashlib
import unittest

from cip.errors import ErrorCode, InvalidDigestError
from cip.model.descriptor import Digest, digest_of, parse_digest

H = "0123456789abcdef" * 4


class Parsing(unittest.TestCase):
    def test_each_registered_algorithm_is_accepted_at_its_length(self) -> None:
        for algorithm, length in (("sha256", 64), ("sha384", 96), ("sha512", 128)):
            with self.subTest(algorithm):
                digest = parse_digest(f"{algorithm}:{'a' * length}")
                self.assertEqual(digest, Digest(algorithm, "a" * length))
                self.assertEqual(str(digest), f"{algorithm}:{'a' * length}")

    def test_what_is_no_digest_is_invalid_for_its_reason(self) -> None:
        for text, reason in (
            ("", "expected algorithm:hex"),
            ("sha256", "expected algorithm:hex"),
            (H, "expected algorithm:hex"),
            (":" + H, "expected algorithm:hex"),
            ("sha256:", "expected algorithm:hex"),
            ("SHA256:" + H, "expected algorithm:hex, the algorithm must be one of sha256, sha384, sha512"),
            ("sha256+:" + H, "expected algorithm:hex, the algorithm"),
            (" sha256:" + H, "expected algorithm:hex, the algorithm"),
            ("md5:" + "0" * 31 + "/", "expected algorithm:hex, the algorithm"),
            ("md5:0\n", "expected algorithm:hex, the algorithm"),
            ("sha256:" + H[1:], "expected 64 lower-case hex digits after sha256:, found 63"),
            ("sha256:" + H + "0", "expected 64 .* found 65"),
            ("sha256:" + H + "\n", "expected 64 .* found 65"),  # images R42
            ("sha384:" + H, "expected 96 .* found 64"),
            ("sha512:" + H, "expected 128 .* found 64"),
            ("sha256:" + H.upper(), "expected 64 lower-case hex digits after sha256:$"),
            ("sha256:" + "g" * 64, "expected 64 lower-case"),
            ("sha256:" + "\u0661" * 64, "expected 64 lower-case"),
            ("sha256:" + H[:-1] + "\n", "expected 64 lower-case"),
            ("sha256:sha256:" + H[7:], "expected 64 lower-case"),
            ("sha256:../../../../etc/passwd", "expected 64 .* found 22"),
        ):
            with self.subTest(text), self.assertRaisesRegex(InvalidDigestError, reason) as caught:
                parse_digest(text)
            self.assertEqual(caught.exception.code, ErrorCode.DIGEST_INVALID)

    def test_a_digest_of_another_algorithm_is_unsupported(self) -> None:
        for text in ("md5:" + "0" * 32, "blake3:" + H, "sha256+b64:" + H, "tree.sha1_x-y+z:aB=_-"):
            with self.subTest(text), self.assertRaisesRegex(InvalidDigestError, "must be one of") as caught:
                parse_digest(text)
            self.assertEqual(caught.exception.code, ErrorCode.DIGEST_UNSUPPORTED)

    def test_a_complaint_quotes_the_text_cut_short_and_in_one_line(self) -> None:
        with self.assertRaises(InvalidDigestError) as caught:
            parse_digest("sha256:\x1b[31m\n" + "x" * 100_000)
        self.assertLess(len(str(caught.exception)), 300)
        self.assertTrue(str(caught.exception).isprintable())


class Hashing(unittest.TestCase):
    def test_a_digest_hashes_with_its_own_algorithm(self) -> None:
        for algorithm in ("sha256", "sha384", "sha512"):
            hasher = parse_digest(f"{algorithm}:{hashlib.new(algorithm, b'x').hexdigest()}").hasher()
            hasher.update(b"x")
            self.assertEqual(hasher.hexdigest(), hashlib.new(algorithm, b"x").hexdigest())

    def test_the_digest_of_bytes_is_sha256(self) -> None:
        self.assertEqual(digest_of(b""), Digest("sha256", hashlib.sha256(b"").hexdigest()))
        self.assertEqual(digest_of(memoryview(b"x")), digest_of(b"x"))


if __name__ == "__main__":
    unittest.main()

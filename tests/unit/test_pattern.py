# SPDX-License-Identifier: Apache-2.0
"""Patterns that are compiled late behave as those that are compiled at once."""

from __future__ import annotations

import re
import unittest

from cip.pattern import Pattern


class Patterns(unittest.TestCase):
    def test_nothing_is_compiled_before_the_first_use(self) -> None:
        broken = Pattern("(")
        with self.assertRaises(re.error):
            broken.match("x")

    def test_each_method_is_that_of_re(self) -> None:
        late, early = Pattern(r"([a-z])(\d)", re.ASCII), re.compile(r"([a-z])(\d)", re.ASCII)
        for text in ("a1", "xa1", "a1\n", "A1", "", "a٣"):
            with self.subTest(text):
                self.assertEqual(bool(late.fullmatch(text)), bool(early.fullmatch(text)))
                self.assertEqual(bool(late.match(text, 1)), bool(early.match(text, 1)))
                self.assertEqual(bool(late.search(text)), bool(early.search(text)))
                self.assertEqual(late.sub(r"\2\1", text), early.sub(r"\2\1", text))

    def test_bytes_are_patterns_too(self) -> None:
        found = Pattern(rb"(\d+)").search(b"a12")
        assert found is not None
        self.assertEqual(found[1], b"12")


if __name__ == "__main__":
    unittest.main()

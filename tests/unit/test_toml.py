# SPDX-License-Identifier: Apache-2.0
"""TOML of the host: every complaint names the file, and the place where it is known."""

import random
import sys
import tomllib
import unittest
import unittest.mock

from cip.errors import ConfigurationError
from cip.hostconfig.toml import _plain_tables, parse_toml

LINES = (
    "", "# comment", "\t# a\tb", "[aliases]", "  [aliases]  ", "[a.b]", "[[x]]", "[]", "[a", '["q"]',
    "[aliases] # c", "[1]", '"a" = "b"', '\t"a"="b" ', '"a" = "c"', '"aliases" = "x"', '"" = ""', '"a" = "b" # c',
    '"a" = "b"c"', '"a" = "b\\n"', '"a\\u0041" = "b"', 'a = "b"', "'a' = 'b'", '"a" = 1', '"a" = "b', '"a"',
    '= "b"', '"a" = "é"', '"a" = "b=c"', '"x=y" = "b"', '"a" = """', '"a" = """b"""', '"a".b = "c"', "# \x7f",
    "# \x01", '"a" = "\x00"', "x\r", '"c" = "d"\r', "\xa0", "[é]", "[a-b]", "[a_b]", "[١]", '"d" = "e"',
    '"f" = "g"', "[registry]",
)  # fmt: skip


class TomlTest(unittest.TestCase):
    def test_values_know_their_file_and_key(self) -> None:
        root = parse_toml("/etc/x.conf", b'\xef\xbb\xbf[a]\nb = "c"\n')
        self.assertEqual("c", root["a"]["b"].as_str())
        with self.assertRaisesRegex(ConfigurationError, "^/etc/x.conf: a.b: expected an integer, found a string$"):
            root["a"]["b"].as_int()

    def test_what_is_no_toml_is_refused_with_the_reason(self) -> None:
        for data, reason in (
            (b"a = \xff", "not valid UTF-8 at byte 4"),
            (b"a = 1\nb = = 2", "not valid TOML at line 2 column 5: invalid value"),
            (b"a = 1\na = 2", "not valid TOML at"),
            (b"a = " + b"[" * 100_000, "not valid TOML: nested too deep"),
            (b"a = " + b"9" * 5000, "not valid TOML: a number that is too long"),
            (b"a" + b".a" * 2001 + b" = 1", "not valid TOML: keys of too many parts"),
        ):
            with self.subTest(data[:20]), self.assertRaisesRegex(ConfigurationError, f"^/etc/x.conf: {reason}"):
                parse_toml("/etc/x.conf", data)

    def test_what_is_read_without_tomllib_is_what_tomllib_reads(self) -> None:
        chance = random.Random(20261127)
        plain = 0
        for _ in range(20_000):
            text = "\n".join(chance.choice(LINES) for _ in range(chance.randrange(6)))
            found = _plain_tables(text.encode())
            if found is not None:
                plain += 1
                with self.subTest(text):
                    self.assertEqual(found, tomllib.loads(text))
        self.assertGreater(plain, 1000)

    def test_a_list_of_short_names_does_without_tomllib(self) -> None:
        data = b'# ours\n\n[aliases]\n  # centos\n  "centos" = "quay.io/centos/centos"\n\t"a"="b.c/d"\n'
        with unittest.mock.patch.dict(sys.modules, {"tomllib": None}):
            root = parse_toml("/etc/x.conf", data)
        self.assertEqual(root["aliases"]["a"].as_str(), "b.c/d")


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""TOML of the host: every complaint names the file, and the place where it is known."""

import unittest

from cip.errors import ConfigurationError
from cip.hostconfig.paths import parse_toml


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
            (b"a = " + b"9" * 5000, "not valid TOML: a number that is too large"),
            (b"a = 9223372036854775808", "not valid TOML: a number that is too large"),
            (b"[[a]]\nb = [{c = [-9223372036854775809]}]", "not valid TOML: a number that is too large"),
            (b"a = -1e400", "not valid TOML: a number that is too large"),
            (b"a" + b".a" * 2001 + b" = 1", "not valid TOML: keys of too many parts"),
        ):
            with self.subTest(data[:20]), self.assertRaisesRegex(ConfigurationError, f"^/etc/x.conf: {reason}"):
                parse_toml("/etc/x.conf", data)


if __name__ == "__main__":
    unittest.main()

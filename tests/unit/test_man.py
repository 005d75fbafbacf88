# SPDX-License-Identifier: Apache-2.0
"""Manual pages and completions against the option table, the error codes and the settings."""

from __future__ import annotations

import re
import unittest
from pathlib import Path

import cip
from cip.errors import ErrorCode
from cip.flags import OPTIONS, flag, level, parse_duration
from cip.model.reference import Transport
from cip.options import help_text
from cip.settings import Settings, TimeLimits, TransferLimits

MAN = Path(cip.__file__).parent / "man"


def text(name: str) -> str:
    """A page without its escapes."""
    return (MAN / name).read_text(encoding="utf-8").replace("\\-", "-")


class Pages(unittest.TestCase):
    def test_every_option_has_an_entry_and_every_entry_is_an_option(self) -> None:
        page = text("container-image-proxy.1").partition(".SH OPTIONS")[2].partition(".SH EXIT STATUS")[0]
        entries = set(re.findall(r"(?m)^\.(?:TP|TQ)\n\.BI?R? (?:-\w \", \" )?\"?--([a-z.-]+)", page))
        self.assertEqual(entries, {option.name for option in OPTIONS})

    def test_every_error_code_is_documented(self) -> None:
        page = text("container-image-proxy.1").partition(".SH ERROR CODES")[2].partition(".SH FILES")[0]
        for code in ErrorCode:
            with self.subTest(code):
                self.assertRegex(page, rf"(?<![a-z-]){code}(?![a-z-])")

    def test_every_transport_is_named(self) -> None:
        page = text("container-image-proxy.1").partition(".SH OPTIONS")[0]
        for transport in Transport:
            with self.subTest(transport):
                self.assertRegex(page, rf"(?<![a-z-]){transport}(?![a-z-])")

    def test_the_version_is_the_programs(self) -> None:
        for name in ("container-image-proxy.1", "container-image-proxy.7"):
            self.assertIn(f'"container-image-proxy {cip.__version__}"', text(name))

    def test_documented_defaults_are_the_defaults(self) -> None:
        times, transfer = TimeLimits(), TransferLimits()
        defaults = {
            "connect-timeout": times.connect,
            "idle-timeout": times.idle,
            "open-timeout": times.open,
            "stall-timeout": times.stall,
            "retry-times": Settings().retry_times,
            "connections": transfer.connections,
            "min-rate": transfer.min_rate,
        }
        for source in (text("container-image-proxy.1"), help_text(everything=True)):
            for name, default in defaults.items():
                with self.subTest(name):
                    found = re.search(rf"--{name}\b[^(]*\((\d+)(?: s)?\)", source)
                    assert found is not None
                    self.assertEqual(parse_duration(found[1]), default)

    def test_every_method_and_resource_of_the_protocols_is_described(self) -> None:
        page = text("container-image-proxy.7")
        for word in (
            "GET /manifest",
            "GET /referrers",
            "POST /quit",
            "Initialize",
            "OpenImage",
            "OpenImageOptional",
            "CloseImage",
            "GetManifest",
            "GetFullConfig",
            "GetConfig",
            "GetBlob",
            "GetRawBlob",
            "GetLayerInfo",
            "GetLayerInfoPiped",
            "FinishPipe",
            "Shutdown",
            "GetReferrers",
            "GetReferrerManifest",
        ):
            with self.subTest(word):
                self.assertIn(word, page)


class Completions(unittest.TestCase):
    def test_every_shell_knows_every_option(self) -> None:
        for shell, form in (("bash", r"--([a-z.-]+)"), ("zsh", r"--([a-z.-]+)"), ("fish", r"-l ([a-z.-]+)")):
            found = set(re.findall(form, text(f"container-image-proxy.{shell}").partition("COMPREPLY=()")[0]))
            with self.subTest(shell):
                self.assertEqual({option.name for option in OPTIONS} - found, set())

    def test_zsh_and_fish_take_values_exactly_where_the_table_does(self) -> None:
        zsh, fish = text("container-image-proxy.zsh"), text("container-image-proxy.fish")
        for option in OPTIONS:
            with self.subTest(option.name):
                takes_value = option.parse not in (flag, level)
                self.assertEqual(bool(re.search(rf"--{re.escape(option.name)}=\[", zsh)), takes_value)
                self.assertEqual(bool(re.search(rf"-l {re.escape(option.name)}( -[rx])", fish)), takes_value)


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""Every block of the README that a reader would paste is run, and its tables are held against the code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import unittest
from pathlib import Path

from cip.errors import ErrorCode
from cip.model.reference import UNSUPPORTED_TRANSPORTS, Transport
from cip.rooms import ROOMS
from tests.support import images
from tests.support.codelines import lines_of_package, room_of
from tests.unit.test_redaction import encodings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
THIS_RUN = "tests/run --all"  # what is running now


def blocks(language: str) -> list[str]:
    """The code blocks of a language, in order."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", README)


class Blocks(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = Path(scratch.name)
        (self.directory / "policy.json").write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        self.environment = {**os.environ, "CONTAINERS_POLICY_JSON": str(self.directory / "policy.json")}

    def run_block(self, command: list[str], text: str = "", status: int = 0) -> str:
        done = subprocess.run(
            command,
            cwd=ROOT,
            input=text,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env=self.environment,
        )
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done.stderr if status else done.stdout

    def test_shell_blocks(self) -> None:
        found = blocks("sh")
        self.assertGreaterEqual(len(found), 3)
        self.assertEqual(found[0], "python3 demo.py\n")
        self.assertIn(f"{THIS_RUN}\n", found)
        for block in found:
            if block.strip() != THIS_RUN:
                with self.subTest(block):
                    self.assertTrue(self.run_block(["sh", "-eu"], block))

    def test_the_demo_with_an_image(self) -> None:
        layout = images.f2(self.directory / "layout")
        (block,) = blocks("shell")  # of which the network is no part
        self.assertRegex(block, "python3 demo.py --.* docker://")
        self.assertTrue(self.run_block(["sh", "-eu"], re.sub(r"docker://\S+", f"oci:{layout.path}:t", block)))

    def test_python_blocks_and_the_manual_pages_take_no_error_for_a_manifest(self) -> None:
        layout = images.f1(self.directory / "layout")
        page = (ROOT / "cip" / "man" / "container-image-proxy.7").read_text(encoding="utf-8").replace("\\-", "-")
        example = page.partition(".SH EXAMPLES")[2].partition(".EX\n")[2].partition(".EE\n")[0]
        self.assertIn('["container-image-proxy", ', example)
        example = example.replace('["container-image-proxy", ', f'["{sys.executable}", "-m", "cip", ')
        example = example.replace('"docker://example.com/os:9"', "IMAGE")
        found = [example, *blocks("python")]
        self.assertGreaterEqual(len(found), 3)
        for block in found:
            with self.subTest(block):
                self.run_block([sys.executable, "-c", f"IMAGE = {f'oci:{layout.path}:t'!r}\n{block}"])
                absent = f"IMAGE = {f'oci:{layout.path}:absent'!r}\n{block}"
                said = self.run_block([sys.executable, "-c", absent], status=1)
                self.assertIn("no image is named 'absent'", said)

    def test_configuration_blocks_parse(self) -> None:
        for block in blocks("toml"):
            self.assertTrue(tomllib.loads(block)["registry"])


class Tables(unittest.TestCase):
    def test_the_ways_in_which_no_secret_is_shown_are_those_that_are_tried(self) -> None:
        """Which way a host says a secret in, as the table of tests/unit/test_redaction.py names it."""
        ways = {
            "as it is": ("whole", "upper case", "first half"),
            "base64": ("base64 1", "urlsafe 3"),
            "base32": ("base32",),
            "hexadecimal": ("hexadecimal", "hexadecimal in upper case"),
            "UTF-16": ("UTF-16",),
            "URLs": ("percent-encoded", "form"),
            "JSON": ("JSON", "every character escaped"),
            "HTML": ("HTML",),
            "mail": ("quoted-printable",),
            "C": ("escaped as in C",),
            "two of these": ("base64 of base64", "base64 of percent-encoded", "base64 of UTF-16"),
        }
        found = re.search(r"a secret that\s+this process holds: (.*?) ways; a host", README, re.DOTALL)
        assert found
        said = re.split(r",? or |, |\s+in (?=base64|two)", re.sub(r"\s+", " ", found[1]).replace(" do,", ","))
        self.assertEqual([way.removeprefix("in ").removeprefix("escaped as ") for way in said if way], list(ways))
        self.assertLessEqual({case for cases in ways.values() for case in cases}, set(encodings("a-secret")))

    def test_every_room_stands_in_the_table_of_rooms_with_what_it_needs(self) -> None:
        table = README.partition("| room | what it gives |")[2].partition("\n\n")[0]
        rows = {row[0]: row for row in re.findall(r"^\| (\w+) \| (.*?) \| (\d+) \| (.*?) \|$", table, re.MULTILINE)}
        self.assertEqual(list(rows), [room.name for room in ROOMS])
        sums: dict[str, int] = {}
        for module, lines in lines_of_package().items():
            sums[room_of(module)] = sums.get(room_of(module), 0) + lines
        for room in ROOMS:
            with self.subTest(room.name):
                _, gives, lines_told, needs = rows[room.name]
                self.assertEqual((bool(gives), needs), (True, ", ".join(room.needs) or "the core"))
                self.assertLessEqual(abs(int(lines_told) - sums[room.name]), 20 + sums[room.name] // 10)

    def test_every_error_code_stands_in_the_status_table(self) -> None:
        table = README.partition("| code | status |")[2].partition("\n\n")[0]
        for code in ErrorCode:
            if code is not ErrorCode.CLIENT_GONE:  # nobody is there to be told
                with self.subTest(code):
                    self.assertRegex(table, rf"(?<![a-z-]){code}(?![a-z-])")

    def test_every_transport_stands_in_the_transport_table(self) -> None:
        table = README.partition("| transport | supported |")[2].partition("\n\n")[0]
        for name in [*Transport, *UNSUPPORTED_TRANSPORTS]:
            with self.subTest(name):
                self.assertIn(f"`{name}:", table)

    def test_linked_files_exist(self) -> None:
        for target in re.findall(r"\]\(((?!https?:)[^)#]+)\)", README):
            with self.subTest(target):
                self.assertTrue((ROOT / target).exists())


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from tests.support import rustparent

LEAST = ".".join(map(str, rustparent.LEAST_CARGO))


class FindingCargo(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.enterContext(mock.patch.object(Path, "home", return_value=self.directory / "home"))
        self.enterContext(mock.patch.dict(os.environ, {"PATH": str(self.directory), "CI": "", "CIP_SKIP_PEERS": ""}))

    def put_cargo(self, version: str) -> str:
        program = self.directory / "cargo"
        program.write_text(f"#!/bin/sh\necho 'cargo {version} (0123 2026-01-01)'\n")
        program.chmod(0o755)
        return str(program)

    def test_one_that_is_new_enough_is_taken(self) -> None:
        program = self.put_cargo(f"{LEAST}.0")
        self.assertEqual(rustparent.find_cargo(), program)

    def test_one_that_is_too_old_is_a_failure_that_says_so(self) -> None:
        self.put_cargo("1.69.9")
        with self.assertRaisesRegex(AssertionError, rf"expected cargo {LEAST} or later, .*cargo 1\.69\.9"):
            rustparent.find_cargo()

    def test_without_one_the_tests_are_left_out_but_not_in_ci(self) -> None:
        with self.assertRaisesRegex(unittest.SkipTest, "found none on PATH"):
            rustparent.find_cargo()
        with mock.patch.dict(os.environ, {"CI": "true"}), self.assertRaisesRegex(AssertionError, "found none on PATH"):
            rustparent.find_cargo()

    def test_a_packager_can_leave_it_out(self) -> None:
        with mock.patch.dict(os.environ, {"CIP_SKIP_PEERS": "rust"}):
            with self.assertRaisesRegex(unittest.SkipTest, "leaves rust out"):
                rustparent.build_parent()


if __name__ == "__main__":
    unittest.main()

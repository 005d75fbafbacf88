# SPDX-License-Identifier: Apache-2.0
import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from tests.support import judge, machine


class JudgeBuildTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        cache = mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(self.directory), "PATH": str(self.directory)})
        cache.start()
        self.addCleanup(cache.stop)

    def _put_go(self, version: str) -> Path:
        program = self.directory / "go"
        program.write_text(f"#!/bin/sh\necho go{version}\n", encoding="ascii")
        program.chmod(0o755)
        return program

    def test_the_version_wanted_is_that_of_go_mod(self) -> None:
        self.assertEqual((1, 26, 0), judge.wanted_go("module judge\n\ngo 1.26\n"))
        self.assertEqual((1, 30, 2), judge.wanted_go("module judge\n\ngo 1.30.2\n\nrequire x v1.0.0\n"))
        with self.assertRaisesRegex(AssertionError, "go.mod has no line"):
            judge.wanted_go("module judge\n")

    def test_the_go_of_this_machine_is_taken_when_it_is_new_enough(self) -> None:
        program = self._put_go("1.99.1")
        with mock.patch.object(machine, "install_requirements") as install:
            self.assertEqual(str(program), judge.find_go())
        install.assert_not_called()

    def test_without_a_go_that_is_new_enough_the_failure_says_what_was_found_and_wanted(self) -> None:
        program = self._put_go("1.19.8")
        refusal = machine.PreparationError("no network")
        with (
            mock.patch.object(machine, "install_requirements", side_effect=refusal),
            mock.patch.object(os, "get_exec_path", return_value=[str(self.directory)]),
            mock.patch.object(judge, "wanted_go", return_value=(9, 9, 9)),
        ):
            with self.assertRaisesRegex(AssertionError, rf"expected Go 9\.9\.9 .*{program} is 1\.19\.8.*no network"):
                judge.find_go()

    def test_a_packager_can_leave_the_judge_out(self) -> None:
        with mock.patch.dict(os.environ, {"CIP_SKIP_PEERS": "judge"}):
            with self.assertRaisesRegex(unittest.SkipTest, "leaves judge out"):
                judge.build_judge()

    def test_what_the_build_lacks_is_named_with_its_package(self) -> None:
        with mock.patch.dict(os.environ, {"CIP_SKIP_PEERS": ""}):
            with self.assertRaisesRegex(AssertionError, "gcc is missing: `apt-get install gcc libc6-dev`"):
                judge.build_judge()

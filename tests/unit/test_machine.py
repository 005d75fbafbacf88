# SPDX-License-Identifier: Apache-2.0
import os
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from tests.support import machine


class MachineTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def test_the_cache_follows_xdg_and_falls_back_to_the_home_directory(self) -> None:
        with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(self.directory / "x")}):
            self.assertEqual(self.directory / "x" / "cip-peers", machine.cache_root())
        with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": "", "HOME": str(self.directory)}):
            self.assertEqual(self.directory / ".cache" / "cip-peers", machine.cache_root())

    def test_services_are_forbidden_during_an_installation_and_allowed_again_afterwards(self) -> None:
        script = self.directory / "policy-rc.d"
        with machine.services_held_back(script):
            self.assertIn("exit 101", script.read_text(encoding="ascii"))
            self.assertTrue(os.access(script, os.X_OK))
        self.assertFalse(script.exists())

    def test_the_owners_policy_for_services_comes_back_even_after_a_failure(self) -> None:
        script = self.directory / "policy-rc.d"
        script.write_bytes(b"#!/bin/sh\nexit 0\n")
        script.chmod(0o750)
        with self.assertRaises(ZeroDivisionError), machine.services_held_back(script):
            raise ZeroDivisionError
        self.assertEqual(b"#!/bin/sh\nexit 0\n", script.read_bytes())
        self.assertEqual(0o750, script.stat().st_mode & 0o777)

    def test_requirements_come_from_the_extra_named_test(self) -> None:
        file = self.directory / "setup.cfg"
        file.write_text("[options.extras_require]\ntest =\n    one >= 1\n    two\n", encoding="ascii")
        self.assertEqual(["one >= 1", "two"], machine.pinned_requirements(file))

    def test_a_half_made_environment_does_not_count(self) -> None:
        with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(self.directory)}):
            self.assertIsNone(machine.existing_environment())
            python = machine.cache_root() / "venv" / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.touch()
            self.assertIsNone(machine.existing_environment())

    def test_an_environment_is_brought_up_to_date_once_and_never_cleared(self) -> None:
        python = self.directory / "cip-peers" / "venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.touch()
        (self.directory / "cip-peers" / "venv" / "stamp").write_text("of other requirements", encoding="ascii")
        said: list[str] = []
        with (
            mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(self.directory)}),
            mock.patch.object(machine, "install_requirements") as install,
            mock.patch.object(machine, "make_environment") as make,
        ):
            self.assertEqual(python, machine.prepare_environment(said.append))
            self.assertEqual(python, machine.prepare_environment(said.append))
        install.assert_called_once_with(python, machine.pinned_requirements())
        make.assert_not_called()
        self.assertEqual(1, len(said))

    def test_interpreters_are_asked_for_their_version_and_listed_once_each(self) -> None:
        for name, body in (("python3.13", "exit 127"), ("python3.12", "echo 3 10 True"), ("python3.14", "echo x")):
            program = self.directory / name
            program.write_text(f"#!/bin/sh\n{body}\n", encoding="ascii")
            program.chmod(0o755)
        with mock.patch.dict(os.environ, {"PATH": str(self.directory), "PYENV_ROOT": str(self.directory)}):
            found = machine.find_interpreters()
        self.assertEqual(sorted({each.version for each in found}), [each.version for each in found])
        self.assertIn(sys.version_info[:2], [each.version for each in found])
        self.assertFalse([each for each in found if each.path.parent == self.directory])

# SPDX-License-Identifier: Apache-2.0
"""The runner outside the sandbox: the same results as running directly, and nothing beyond its fixed programs."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
import unittest
from pathlib import Path

from cip.confine.runner import ForkedPrograms
from cip.errors import CipError, MissingDependencyError, SourceError

SCRIPTS = {
    "docker-credential-echo": 'read line; printf "%s|%s|%s" "$1" "$line" "$MARK"',
    "docker-credential-fail": "echo no; exit 3",
    "docker-credential-slow": "sleep 60",
    "docker-credential-loud": "head -c 3000000 /dev/zero",
    "docker-credential-fds": 'cat "/proc/self/fd/$1" "/proc/self/fd/$2"; ls -l /proc/self/fd | wc -l >&2',
    "zstd": "echo instead of zstd",
}


class Runner(unittest.TestCase):
    def setUp(self) -> None:
        self.descriptors = len(os.listdir("/proc/self/fd"))
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        for name, body in SCRIPTS.items():
            path = Path(directory.name, name)
            path.write_text(f"#!/bin/sh\n{body}\n")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        self.environ = {"PATH": f"{directory.name}:/usr/bin:/bin", "MARK": "m"}
        self.programs = ForkedPrograms()
        self.programs.start()

    def tearDown(self) -> None:
        self.programs.close()
        self.assertEqual(len(os.listdir("/proc/self/fd")), self.descriptors)

    def run_program(self, *argv: str, **options: object):  # type: ignore[no-untyped-def]
        return self.programs.run(argv, purpose="test", environ=self.environ, **options)  # type: ignore[arg-type]

    def test_a_helper_gets_arguments_input_and_environment(self) -> None:
        result = self.run_program("docker-credential-echo", "get", stdin=b"registry\n")
        self.assertEqual((result.status, result.stdout), (0, b"get|registry|m"))

    def test_before_the_start_programs_run_directly(self) -> None:
        programs = ForkedPrograms()
        result = programs.run(("docker-credential-echo", "get"), purpose="test", environ=self.environ, stdin=b"x\n")
        self.assertEqual(result.stdout, b"get|x|m")
        programs.close()

    def test_a_second_start_changes_nothing(self) -> None:
        child = self.programs._child
        self.programs.start()
        self.assertEqual(self.programs._child, child)

    def test_the_exit_status_comes_back(self) -> None:
        result = self.run_program("docker-credential-fail")
        self.assertEqual((result.status, result.stdout), (3, b"no\n"))

    def test_descriptors_keep_their_numbers(self) -> None:
        with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
            for file, text in ((first, b"one"), (second, b"two")):
                file.write(text)
                file.flush()
            numbers = (first.fileno(), second.fileno())
            result = self.run_program("docker-credential-fds", *map(str, numbers), pass_fds=numbers)
            self.assertEqual(result.stdout, b"onetwo")

    def test_only_its_programs_are_run(self) -> None:
        for name in ("sh", "/bin/sh", "docker-credential-../sh", "docker-credential-a/b", "gpgv2", "", "zstd\n"):
            with self.subTest(name), self.assertRaisesRegex(CipError, "not a program that is run here"):
                self.run_program(name, "-c", "true")

    def test_a_program_that_is_not_there_is_named_with_its_purpose(self) -> None:
        with self.assertRaisesRegex(MissingDependencyError, "docker-credential-none is not installed: needed to test"):
            self.run_program("docker-credential-none")

    def test_time_and_output_are_bounded(self) -> None:
        with self.assertRaisesRegex(SourceError, "still running") as caught:
            self.run_program("docker-credential-slow", timeout=0.1)
        self.assertTrue(caught.exception.retryable)
        with self.assertRaisesRegex(SourceError, "more than 1000 bytes"):
            self.run_program("docker-credential-loud", output_limit=1000)

    def test_a_slow_program_does_not_hold_up_another(self) -> None:
        outcome: list[str] = []

        def slow() -> None:
            try:
                self.run_program("docker-credential-slow", timeout=30)
            except CipError as error:
                outcome.append(str(error))

        thread = threading.Thread(target=slow, daemon=True)
        thread.start()
        self.assertEqual(self.run_program("zstd").stdout, b"instead of zstd\n")
        self.assertTrue(thread.is_alive())
        while thread.is_alive():  # until its time-out: the shell may not have come to its `sleep` yet
            for entry in os.listdir("/proc"):
                if entry.isdigit() and _is_our_sleep(entry):
                    os.kill(int(entry), 15)
            thread.join(0.05)

    def test_a_runner_that_is_gone_is_a_typed_error(self) -> None:
        os.kill(self.programs._child, 9)
        os.waitpid(self.programs._child, 0)
        with self.assertRaisesRegex(SourceError, "the process that runs programs is gone"):
            self.run_program("zstd")


def _is_our_sleep(pid: str) -> bool:
    """Whether the process is the `sleep 60` of a script of this test: its environment has our mark."""
    try:
        return Path("/proc", pid, "comm").read_text() == "sleep\n" and b"MARK=m\0" in Path(
            "/proc", pid, "environ"
        ).read_bytes()
    except OSError:
        return False


if __name__ == "__main__":
    unittest.main()

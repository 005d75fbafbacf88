# SPDX-License-Identifier: Apache-2.0
"""Outside programs: bounded, without a shell, with nothing but what they are given."""

import fcntl
import os
import signal
import sys
import tempfile
import unittest
from pathlib import Path

from cip.content import start_timer, timed
from cip.errors import ErrorCode, MissingDependencyError, SourceError
from cip.programs import REGISTRY_LIMIT, STDERR_LIMIT, DirectPrograms, GpgvResult, ProgramResult, Running, run_program


def run(code: str, **options: object) -> ProgramResult:
    """Run a Python one-liner as the outside program."""
    settings = {"purpose": "test", "environ": {}, "timeout": 30.0, **options}
    return run_program(Running(), [sys.executable, "-I", "-S", "-c", code], **settings)  # type: ignore[arg-type]


class DirectProgramsTest(unittest.TestCase):
    def setUp(self) -> None:
        self._before = set(os.listdir("/proc/self/fd"))

    def tearDown(self) -> None:
        self.assertEqual(set(os.listdir("/proc/self/fd")), self._before, "a descriptor is left behind")
        with self.assertRaises(ChildProcessError, msg="a child is left behind"):
            os.waitpid(-1, os.WNOHANG)

    def test_status_and_output_come_back(self) -> None:
        result = run("import sys; sys.stdout.write('out'); sys.stderr.write('secret'); sys.exit(3)")
        self.assertEqual(result, ProgramResult(3, b"out", b"secret"))

    def test_begin_of_long_errors_comes_back_and_none_holds_the_program_up(self) -> None:
        result = run("import sys; sys.stderr.write('e' * 1_000_000); sys.stdout.write('out')")
        self.assertEqual(result, ProgramResult(0, b"out", b"e" * STDERR_LIMIT))

    def test_program_that_leaves_a_child_with_its_output_ends_with_itself(self) -> None:
        code = (
            "import os, time\n"
            "child = os.fork()\n"
            "if not child: os.setsid(); time.sleep(600); os._exit(0)\n"
            "os.write(1, b'%d' % child); os.write(2, b'why'); os._exit(0)"
        )
        result = run(code, timeout=30.0)  # which would be over before the child is
        os.kill(int(result.stdout), signal.SIGKILL)
        self.assertEqual(result, ProgramResult(0, result.stdout, b"why"))

    def test_all_output_of_a_program_that_has_ended_comes_back(self) -> None:
        code = (
            "import os, sys, time\n"
            "if os.fork() == 0: os.setsid(); time.sleep(2); os._exit(0)\n"
            "sys.stdout.write('x' * 60_000); sys.stdout.flush(); os._exit(0)"
        )
        self.assertEqual(len(run(code).stdout), 60_000)

    def test_input_passes_through(self) -> None:
        text = bytes(range(256)) * 16
        code = "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"
        self.assertEqual(run(code, stdin=text), ProgramResult(0, text))

    def test_program_that_reads_nothing_is_no_failure(self) -> None:
        self.assertEqual(run("", stdin=b"x" * 4096), ProgramResult(0, b""))

    def test_what_is_no_name_of_a_registry_reaches_no_helper(self) -> None:
        for registry in ("x" * (REGISTRY_LIMIT + 1), "a\nb"):
            with self.subTest(registry), self.assertRaisesRegex(SourceError, "not the name of a registry"):
                DirectPrograms().credentials("none", registry, purpose="test")

    def test_program_that_waits_for_end_of_input_after_closing_its_output_ends(self) -> None:
        code = "import os, sys; os.close(1); sys.stdin.buffer.read()"
        self.assertEqual(run(code, stdin=b""), ProgramResult(0, b""))

    def test_missing_input_is_an_empty_one(self) -> None:
        self.assertEqual(run("import sys; print(len(sys.stdin.read()))").stdout, b"0\n")

    def test_only_the_given_environment_is_seen(self) -> None:
        code = "import os; print(sorted(k for k in os.environ if k != 'LC_CTYPE'), os.environ['LC_ALL'])"
        self.assertEqual(run(code, environ={"A": "1"}).stdout, b"['A', 'LC_ALL', 'PATH'] C\n")

    def test_only_the_given_descriptors_are_seen(self) -> None:
        given, kept = (fcntl.fcntl(0, fcntl.F_DUPFD, number) for number in (200, 300))
        try:
            code = "import os; print(sorted(n for n in map(int, os.listdir('/proc/self/fd')) if n > 100))"
            self.assertEqual(run(code, pass_fds=(given,)).stdout, f"[{given}]\n".encode())
        finally:
            os.close(given)
            os.close(kept)

    def test_late_program_is_killed_with_its_children(self) -> None:
        code = "import os, time; os.fork(); time.sleep(600)"
        with self.assertRaisesRegex(SourceError, "still running after 0.5 s") as caught:
            run(code, timeout=0.5)
        self.assertIs(caught.exception.code, ErrorCode.TIMEOUT)

    def test_program_that_closes_its_output_and_stays_is_killed(self) -> None:
        with self.assertRaisesRegex(SourceError, "still running"):
            run("import os, time; os.close(1); time.sleep(600)", timeout=0.5)

    def test_program_that_prints_too_much_is_killed(self) -> None:
        code = "import sys\nwhile True: sys.stdout.write('x' * 4096)"
        with self.assertRaisesRegex(SourceError, "printed more than 10000 bytes") as caught:
            run(code, output_limit=10_000)
        self.assertIs(caught.exception.code, ErrorCode.LIMIT_EXCEEDED)

    def test_program_that_is_not_there_is_named_with_its_purpose(self) -> None:
        with self.assertRaisesRegex(MissingDependencyError, "no-such-thing is not installed: needed to test"):
            run_program(Running(), ["no-such-thing"], purpose="test", environ={}, timeout=1)

    def test_file_that_is_no_program_is_refused(self) -> None:
        with self.assertRaisesRegex(MissingDependencyError, "not installed"):
            run_program(Running(), ["/etc/passwd"], purpose="test", environ={}, timeout=1)

    def test_death_by_signal_is_a_negative_status(self) -> None:
        self.assertEqual(run("import os; os.kill(os.getpid(), 9)").status, -9)


# does what gpgv would, and shows what gpgv is given
GPGV = """#!/bin/sh
while [ $# -gt 1 ]; do
    case "$1" in --keyring) ring="$2";; --status-fd) status="$2";; esac
    shift
done
cat "$ring" "$1"
%s >/proc/self/fd/$status
"""


class GpgvTest(unittest.TestCase):
    def programs(self, status: str) -> DirectPrograms:
        directory = self.enterContext(tempfile.TemporaryDirectory())
        script = Path(directory, "gpgv")
        script.write_text(GPGV % status)
        script.chmod(0o755)
        return DirectPrograms(search_path=f"{directory}:/usr/bin:/bin")

    def test_ring_and_message_travel_in_memory(self) -> None:
        result = self.programs("echo '[GNUPG:] NEWSIG'").verify(b"RING", b"MESSAGE" * 100_000)
        self.assertEqual(result, GpgvResult(0, b"[GNUPG:] NEWSIG\n", b"RING" + b"MESSAGE" * 100_000))

    def test_flood_of_status_lines_is_refused(self) -> None:
        with self.assertRaisesRegex(SourceError, "bytes of status lines"):
            self.programs("head -c 1048577 /dev/zero").verify(b"", b"")

    def test_what_is_left_of_the_time_to_open_is_all_that_a_program_gets(self) -> None:
        directory = self.enterContext(tempfile.TemporaryDirectory())
        for name in ("gpgv", "docker-credential-slow"):
            script = Path(directory, name)
            script.write_text("#!/bin/sh\nexec sleep 600\n")
            script.chmod(0o755)
        path = f"{directory}:/usr/bin:/bin"
        programs = DirectPrograms({"PATH": path}, search_path=path)
        for ask in (
            lambda: programs.verify(b"", b""),
            lambda: programs.credentials("slow", "r.example", purpose="test"),
        ):
            late = r"still running after (0\.[0-9]+|1) s, its limit or what was left of --open-timeout"
            with timed(start_timer(1.0, "--open-timeout")):
                with self.assertRaisesRegex(SourceError, late) as caught:
                    ask()
                self.assertIs(caught.exception.code, ErrorCode.TIMEOUT)
                with self.assertRaisesRegex(SourceError, "^not done within the 1 s"):
                    ask()

    def test_missing_gpgv_is_told_as_a_missing_dependency(self) -> None:
        with self.assertRaisesRegex(MissingDependencyError, "gpgv is not installed: needed to check an OpenPGP"):
            DirectPrograms(search_path="/nonexistent").verify(b"", b"")


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""Outside programs: bounded, without a shell, with nothing but what they are given."""

import fcntl
import os
import sys
import unittest

from cip.errors import ErrorCode, MissingDependencyError, SourceError
from cip.programs import DirectPrograms, GpgvResult, ProgramResult, run_gpgv


def run(code: str, **options: object) -> ProgramResult:
    """Run a Python one-liner as the outside program."""
    settings = {"purpose": "test", "environ": {}, **options}
    return DirectPrograms().run([sys.executable, "-I", "-S", "-c", code], **settings)  # type: ignore[arg-type]


class DirectProgramsTest(unittest.TestCase):
    def setUp(self) -> None:
        self._before = set(os.listdir("/proc/self/fd"))

    def tearDown(self) -> None:
        self.assertEqual(set(os.listdir("/proc/self/fd")), self._before, "a descriptor is left behind")
        with self.assertRaises(ChildProcessError, msg="a child is left behind"):
            os.waitpid(-1, os.WNOHANG)

    def test_status_and_output_come_back(self) -> None:
        result = run("import sys; sys.stdout.write('out'); sys.stderr.write('secret'); sys.exit(3)")
        self.assertEqual(result, ProgramResult(3, b"out"))

    def test_input_larger_than_a_pipe_passes_through(self) -> None:
        text = bytes(range(256)) * 4000
        code = "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"
        self.assertEqual(run(code, stdin=text), ProgramResult(0, text))

    def test_program_that_reads_nothing_is_no_failure(self) -> None:
        self.assertEqual(run("", stdin=b"x" * 1_000_000), ProgramResult(0, b""))

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
            DirectPrograms().run(["no-such-thing"], purpose="test", environ={})

    def test_file_that_is_no_program_is_refused(self) -> None:
        with self.assertRaisesRegex(MissingDependencyError, "not installed"):
            DirectPrograms().run(["/etc/passwd"], purpose="test", environ={})

    def test_death_by_signal_is_a_negative_status(self) -> None:
        self.assertEqual(run("import os; os.kill(os.getpid(), 9)").status, -9)


class _Scripted:
    """Programs that does what gpgv would, and looks at what gpgv would be given."""

    def __init__(self, status_lines: bytes) -> None:
        self.status_lines = status_lines
        self.seen: dict[str, bytes] = {}

    def run(self, argv: list[str], *, pass_fds: tuple[int, ...] = (), **_: object) -> ProgramResult:
        words = dict(zip(argv[1::2], argv[2::2], strict=False))
        with open(words["--keyring"], "rb") as ring, open(argv[-1], "rb") as message:
            self.seen = {"keyring": ring.read(), "message": message.read()}
        assert int(words["--status-fd"]) in pass_fds
        os.write(int(words["--status-fd"]), self.status_lines)
        return ProgramResult(0, b"text")


class GpgvTest(unittest.TestCase):
    def test_ring_and_message_travel_in_memory(self) -> None:
        programs = _Scripted(b"[GNUPG:] NEWSIG\n")
        result = run_gpgv(programs, b"RING", b"MESSAGE" * 100_000)  # type: ignore[arg-type]
        self.assertEqual(result, GpgvResult(0, b"[GNUPG:] NEWSIG\n", b"text"))
        self.assertEqual(programs.seen, {"keyring": b"RING", "message": b"MESSAGE" * 100_000})

    def test_flood_of_status_lines_is_refused(self) -> None:
        with self.assertRaisesRegex(SourceError, "bytes of status lines"):
            run_gpgv(_Scripted(b"x" * (1024 * 1024 + 1)), b"", b"")  # type: ignore[arg-type]

    def test_missing_gpgv_is_told_as_a_missing_dependency(self) -> None:
        with self.assertRaisesRegex(MissingDependencyError, "gpgv is not installed: needed to check an OpenPGP"):
            run_gpgv(DirectPrograms(), b"", b"", search_path="/nonexistent")


if __name__ == "__main__":
    unittest.main()

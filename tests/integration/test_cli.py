# SPDX-License-Identifier: Apache-2.0
"""The program as a child: exit status, one line on stderr, nothing of a traceback."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from cip.rooms import present
from tests.support.peers import skip_where_asked
from tests.support.roomed import needs_rooms

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, python: tuple[str, ...] = (), name: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *python, "-m", "cip", *arguments]
    if name:
        code = f"import sys; sys.argv[0] = {name!r}; sys.path.insert(0, {str(ROOT)!r}); from cip.cli import run; run()"
        command = [sys.executable, "-I", "-c", code, *arguments]
    return subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


class Start(unittest.TestCase):
    def test_who_begins_without_the_collector_has_it_again(self) -> None:
        code = (
            f"import gc, os, sys; gc.disable(); sys.path.insert(0, {str(ROOT)!r}); from cip.cli import run;"
            "os._exit = lambda status: print('collects', gc.isenabled(), file=sys.stderr); run()"
        )
        done = subprocess.run(
            [sys.executable, "-I", "-c", code, "--version"], capture_output=True, text=True, check=True
        )
        self.assertEqual(done.stderr, "collects True\n")


class Usage(unittest.TestCase):
    def test_wrong_usage_is_one_line_and_status_2(self) -> None:
        for arguments in (
            (),
            ("--nope",),
            ("oci:a", "oci:b"),
            ("--sockfd", "x", "oci:a"),
            ("--creds=:hunter2", "oci:a"),
            ("--creds=a:hunter2", "--no-creds", "oci:a"),
            ("experimental-image-proxy", "oci:a"),
            ("--insecure-policy", "--require-signed", "oci:a"),
        ):
            with self.subTest(arguments):
                done = run(*arguments)
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertRegex(done.stderr, r"\Acontainer-image-proxy: ERROR: [^\n]+\n\Z")
                self.assertNotIn("hunter2", done.stderr)

    @needs_rooms("jsonproxy")
    def test_an_unusable_descriptor_is_a_failure(self) -> None:
        for arguments in (("--sockfd=77", "oci:a"), ("experimental-image-proxy", "--sockfd=77")):
            with self.subTest(arguments):
                done = run(*arguments)
                self.assertEqual(done.returncode, 1)
                self.assertRegex(done.stderr, r"\Acontainer-image-proxy: ERROR: descriptor 77: [^\n]+\n\Z")

    def test_version_and_help_answer_on_stdout(self) -> None:
        for option in ("--version", "--help", "-h", "-v"):
            done = run(option)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertTrue(done.stdout)

    def test_streams_that_are_closed_or_full_are_no_crash(self) -> None:
        for shell, status in (
            ("--version >&-", 1),
            ("--version >/dev/full", 1),
            ("--version 2>&-", 0),
            ("--version >/dev/full 2>&-", 1),
            ("--insecure-policy oci:a </dev/null 2>&-", 0),
            ("--insecure-policy oci:a </dev/null >&-", 1),
            *([("explain oci:. >/dev/full", 1)] if "explain" in present() else []),
        ):
            with self.subTest(shell):
                command = f"exec {sys.executable} -m cip {shell}"
                done = subprocess.run(
                    ["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
                )
                self.assertEqual(done.returncode, status)
                self.assertNotIn("Traceback", done.stderr)
                self.assertLessEqual(len(done.stderr.splitlines()), 1)

    def test_a_log_line_never_reaches_a_file_that_took_the_place_of_stderr(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            path = os.path.join(scratch, "file")
            code = (
                f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); from cip import cli, log; cli._require_stderr(); "
                f"os.open({path!r}, os.O_WRONLY | os.O_CREAT); log.error('lost')"
            )
            subprocess.run(["sh", "-c", f'exec {sys.executable} -c "$0" 2>&-', code], timeout=60, check=True)
            self.assertEqual(Path(path).read_bytes(), b"")

    def test_an_interrupt_before_anything_is_served_is_no_traceback(self) -> None:
        code = (
            f"import os, signal, sys; sys.path.insert(0, {str(ROOT)!r}); from cip import cli; "
            "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a job in the background ignores it
            "cli.main = lambda *_: os.kill(os.getpid(), signal.SIGINT); cli.run()"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stderr), (-2, ""))

    def test_quiet_writes_nothing_for_a_failure(self) -> None:
        self.assertEqual(run("-q", "--sockfd=77", "oci:a").stderr, "")

    def test_under_the_name_skopeo_other_commands_are_refused_in_one_line(self) -> None:
        done = run("copy", "a", "b", name="/usr/bin/skopeo")
        self.assertEqual(done.returncode, 2)
        self.assertIn("this is container-image-proxy", done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1)
        self.assertIn("--user-agent-prefix", run("--help", name="/usr/bin/skopeo").stdout)

    def test_at_a_terminal_it_says_what_it_waits_for_and_how_to_get_out(self) -> None:
        status, said = self.typed("--insecure-policy", "oci:/nowhere", keys=b"GET /nowhere HTTP/1.0\n\n")
        self.assertEqual(status, 0)
        self.assertRegex(said, r"WARNING: stdin is a terminal: expected HTTP requests, .*Ctrl-D ends it.*\r\n")
        self.assertIn("HTTP/1.1 404 ", said)
        self.assertEqual(self.typed("--insecure-policy", "oci:/nowhere", keys=b"\x04")[0], 0)

    def test_at_a_terminal_a_misspelt_transport_is_refused_at_once(self) -> None:
        status, said = self.typed("dcoker://a/b")
        self.assertEqual(status, 2)
        self.assertRegex(said, r"\Acontainer-image-proxy: ERROR: [^\n]*dcoker[^\n]*\r\n\Z")

    def typed(self, *arguments: str, keys: bytes = b"") -> tuple[int, str]:
        """Exit status and screen of the program at a terminal."""
        skip_where_asked("terminal")  # a root without /dev/pts has none
        screen, terminal = pty.openpty()
        try:
            with subprocess.Popen(
                [sys.executable, "-m", "cip", *arguments], cwd=ROOT, stdin=terminal, stdout=terminal, stderr=terminal
            ) as child:
                os.close(terminal)
                os.write(screen, keys)
                said = b""
                with contextlib.suppress(OSError):  # EIO: nobody has the terminal open any more
                    while part := os.read(screen, 4096):
                        said += part
                return child.wait(60), said.decode()
        finally:
            os.close(screen)

    def test_isolated_interpreters_run_it(self) -> None:
        for flags in (("-sP",), ("-I",)):
            with self.subTest(flags):
                code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import runpy; runpy.run_module('cip')"
                done = subprocess.run(
                    [sys.executable, *flags, "-c", code, "--version"],
                    capture_output=True,
                    text=True,
                    check=False,
                    cwd=os.sep,
                    timeout=60,
                )
                self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()

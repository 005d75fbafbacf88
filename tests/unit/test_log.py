# SPDX-License-Identifier: Apache-2.0
"""Log lines: one write, one line, a fixed form."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unittest
from pathlib import Path
from unittest import mock

from cip import log
from tests.support.peers import skip_where_asked

ROOT = Path(__file__).resolve().parents[2]


class LogLines(unittest.TestCase):
    def setUp(self) -> None:
        self.read_end, self.write_end = os.pipe()
        stream = mock.patch.multiple(
            log._Stream, threshold=log.Level.INFO, descriptor=self.write_end, dropped=0, torn=b"", warned=set()
        )
        stream.start()
        self.addCleanup(stream.stop)
        self.addCleanup(os.close, self.read_end)

    def written(self) -> bytes:
        os.close(self.write_end)
        return os.read(self.read_end, 65536)

    def test_a_line_names_program_and_level(self) -> None:
        log.warning("%s is %d", "x", 1)
        self.assertEqual(self.written(), b"container-image-proxy: WARNING: x is 1\n")

    def test_lines_below_the_threshold_are_not_written(self) -> None:
        log.debug("no")
        log.set_threshold(log.Level.SILENT)
        log.error("no")
        self.assertEqual(self.written(), b"")

    def test_outside_text_cannot_start_a_line_of_its_own(self) -> None:
        log.error("%s", "a\nb\rc\ud800")
        self.assertEqual(self.written(), b"container-image-proxy: ERROR: a\\nb\\rc\\ud800\n")

    def test_a_terminal_is_sent_no_escape_sequences(self) -> None:
        log.error("%s é", "\x1b[2J\u202e\x9b")
        self.assertEqual(self.written(), "container-image-proxy: ERROR: \\x1b[2J\\u202e\\x9b é\n".encode())

    def test_a_line_is_bounded(self) -> None:
        log.error("%s", "x" * 100_000)
        self.assertEqual(len(self.written()), log.LINE_LIMIT)

    def test_a_closed_stderr_is_no_error(self) -> None:
        os.close(self.write_end)
        log._Stream.descriptor = self.write_end
        log.error("nobody listens")

    def test_a_warning_is_given_once(self) -> None:
        for host in ("a", "b", "a", "a"):
            log.warning("%s: spoken to over http", host)
        self.assertEqual(re.findall(rb"(\w): spoken", self.written()), [b"a", b"b"])

    def test_warnings_beyond_what_is_remembered_are_given(self) -> None:
        with mock.patch.object(log, "REMEMBERED_LIMIT", 1):
            for word in ("a", "b", "a", "b"):
                log.warning("%s", word)
        self.assertEqual(re.findall(rb"WARNING: (\w)", self.written()), [b"a", b"b", b"b"])

    def test_a_full_pipe_drops_lines_and_says_how_many(self) -> None:
        for number in range(2000):
            log.error("%d %s", number, "x" * 100)
        kept = os.read(self.read_end, 1 << 20).count(b"\n")
        log.error("later")
        self.assertGreater(kept, 100)
        self.assertEqual(
            self.written().decode(),
            f"container-image-proxy: WARNING: {2000 - kept} log lines were dropped: nobody read them\n"
            "container-image-proxy: ERROR: later\n",
        )

    def test_what_was_dropped_is_said_at_the_end_too(self) -> None:
        log.tell_dropped()
        log._Stream.dropped = 3
        log.tell_dropped()
        self.assertIn(b"WARNING: 3 log lines", self.written())

    @mock.patch("cip.log.LOCK_SECONDS", 0.01)
    def test_a_line_that_has_to_wait_stops_no_other_and_not_the_end(self) -> None:
        log._Stream.dropped = 1
        with log._Stream.lock:
            log.error("not in turn")
            log.warning("neither")
            log.tell_dropped()
        log.error("later")
        self.assertRegex(self.written(), rb"(?s)^[^\n]*: 1 log lines were dropped[^\n]*\n[^\n]*ERROR: later\n$")

    def test_a_line_of_which_only_a_part_was_taken_ends_before_the_next(self) -> None:
        write = os.write
        with mock.patch("os.write", lambda descriptor, data: write(descriptor, data[:30])):
            log.error("torn")
        log.error("whole")
        self.assertEqual(self.written(), b"container-image-proxy: ERROR: \ncontainer-image-proxy: ERROR: whole\n")

    def test_a_terminal_that_nobody_reads_stops_nothing(self) -> None:
        skip_where_asked("terminal")  # a root without /dev/pts has none
        code = "[log.error('x' * (number * 37 % 4000)) for number in range(2000)]; print(log._Stream.dropped > 0)"
        self.assertEqual(self.printed(code, *os.openpty()), "True\n")

    def test_another_writer_on_the_same_pipe_cannot_make_us_wait(self) -> None:
        code = (
            "import os, select; select.poll = lambda: type('P', (), {'register': lambda *_: None, "
            "'poll': lambda *_: [1]})(); [log.error('x' * 1000) for _ in range(200)]; print(log._Stream.dropped > 0, "
            "os.get_blocking(2))"
        )
        self.assertEqual(self.printed(code, *os.pipe()), "True True\n")

    def printed(self, code: str, unread: int, stderr: int) -> str:
        """What a child prints that runs `code` with the log on `stderr`, at whose other end `unread` nobody reads."""
        self.addCleanup(os.close, unread)
        start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from cip import log; log.own_stderr(); "
        try:
            command = [sys.executable, "-I", "-c", start + code]
            return subprocess.run(
                command, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=30, check=True
            ).stdout
        finally:
            os.close(stderr)


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""Log lines: one write, one line, a fixed form."""

from __future__ import annotations

import os
import unittest
from unittest import mock

from cip import log


class LogLines(unittest.TestCase):
    def setUp(self) -> None:
        self.read_end, self.write_end = os.pipe()
        stream = mock.patch.multiple(log._Stream, threshold=log.Level.INFO, descriptor=self.write_end)
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


if __name__ == "__main__":
    unittest.main()

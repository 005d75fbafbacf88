# SPDX-License-Identifier: Apache-2.0
"""The bar and the sums of a fetch."""

import os
import pty
import unittest
from unittest import mock

from cip.fetch.progress import Progress, shown_bytes
from tests.support.peers import skip_where_asked


class Lines(unittest.TestCase):
    def setUp(self) -> None:
        self.progress = Progress(None)
        self.progress.expect(10 << 20)

    def test_the_rate_is_that_of_the_last_seconds_and_of_what_travelled(self) -> None:
        self.progress.add(4 << 20, 0)  # was here
        self.assertIn(" 40% 4.0 MiB of 10.0 MiB, 0 B/s, -:-- left", self.progress.line(100.0, 100))
        self.progress.add(2 << 20, 2 << 20)
        self.assertIn(" 60% 6.0 MiB of 10.0 MiB, 1.0 MiB/s, 0:04 left", self.progress.line(102.0, 100))
        self.assertIn(" 60% 6.0 MiB of 10.0 MiB, 0 B/s, -:-- left", self.progress.line(120.0, 100))

    def test_it_fits_into_any_terminal(self) -> None:
        self.progress.add(10 << 20, 10 << 20)
        for columns in (1, 10, 59, 60, 80, 250):
            self.assertLess(len(self.progress.line(1.0, columns)), max(columns, 1) + (columns == 1))
        self.assertRegex(self.progress.line(1.0, 100), r"\A\[#+\] 100%")

    def test_more_than_was_expected_is_no_more_than_all(self) -> None:
        self.progress.add(11 << 20, 0)
        self.assertIn("100% 11.0 MiB of 11.0 MiB", self.progress.line(1.0, 100))

    def test_sums(self) -> None:
        self.progress.blob(continued=True)
        self.progress.blob(continued=False)
        self.progress.reused(5)
        self.progress.add(7, 7)
        self.assertEqual(self.progress.summary(1.25), "3 blobs, 1 reused, 1 continued, 7 B fetched in 1.2 s")

    def test_bytes_for_people(self) -> None:
        self.assertEqual(
            [shown_bytes(count) for count in (0, 1023, 1024, 3 << 20, 5 << 30, 1 << 43)],
            ["0 B", "1023 B", "1.0 KiB", "3.0 MiB", "5.0 GiB", "8192.0 GiB"],
        )

    @mock.patch("cip.fetch.progress.INTERVAL", 0.1)
    def test_the_bar_is_taken_away_and_a_terminal_that_is_gone_is_no_fault(self) -> None:
        skip_where_asked("terminal")  # a root without /dev/pts has none
        ours, theirs = pty.openpty()
        progress = Progress(theirs)
        progress.start()
        progress.expect(5)
        drawn = os.read(ours, 4096)
        progress.close()
        progress.close()
        drawn += os.read(ours, 4096)
        self.assertRegex(drawn.decode(), r"\A\r\[? *#*.*left.*\r *\r\Z")
        os.close(ours)
        gone = Progress(theirs)
        gone.start()
        gone.close()
        os.close(theirs)


if __name__ == "__main__":
    unittest.main()

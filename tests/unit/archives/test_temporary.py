# SPDX-License-Identifier: Apache-2.0
"""Temporary files: how much of them there may be, and what is left to others."""

from __future__ import annotations

import errno
import os
import unittest
from types import SimpleNamespace
from unittest import mock

from cip.errors import ErrorCode, SourceError
from cip.temporary import RESERVE, TemporarySpace
from tests.support.leaks import LeakCheckedTestCase

PART = memoryview(bytes(1000))


class Space(LeakCheckedTestCase):
    def fails(self, code: ErrorCode, reason: str, size: int = 1000) -> None:
        file = self.space.make()
        try:
            with self.assertRaisesRegex(SourceError, reason) as caught:
                file.write(memoryview(bytes(size)), "image.tar")
            self.assertIs(caught.exception.code, code)
            self.assertFalse(caught.exception.retryable)
        finally:
            file.close()

    def setUp(self) -> None:
        super().setUp()
        self.space = TemporarySpace(str(self.directory), 2500)

    def test_all_files_together_have_a_limit_and_a_closed_one_gives_its_bytes_back(self) -> None:
        first = self.space.make()
        first.write(PART)
        first.write(PART)
        reason = r"image.tar: expected at most 2500 bytes of temporary files \(--tmp-limit\)"
        self.fails(ErrorCode.LIMIT_EXCEEDED, reason)
        self.assertEqual(os.fstat(first.descriptor).st_size, 2000)
        first.close()
        first.close()
        second = self.space.make()
        for _ in range(2):
            second.write(PART)
        second.close()

    def test_the_last_room_is_left_to_others(self) -> None:
        for free, full in ((RESERVE, True), (RESERVE * 2, False)):
            found = SimpleNamespace(f_blocks=1 << 30, f_bavail=free // 4096, f_frsize=4096)
            with self.subTest(free), mock.patch("os.fstatvfs", return_value=found):
                if full:
                    self.fails(ErrorCode.STORAGE_FULL, "image.tar: no room below --tmpdir but the last 256 MiB")
                else:
                    file = self.space.make()
                    file.write(PART)
                    file.close()

    def test_many_files_beside_each_other_leave_it_as_well(self) -> None:
        """Each looked for itself, when it had written 16 MiB more."""
        free = [RESERVE + (48 << 20)]

        def room(_: int) -> SimpleNamespace:
            return SimpleNamespace(f_blocks=1 << 30, f_bavail=free[0], f_frsize=1)

        def write(_: int, part: memoryview) -> int:
            free[0] -= len(part)
            return len(part)

        space = TemporarySpace(str(self.directory), 1 << 40)
        files = [space.make() for _ in range(60)]
        part = memoryview(bytes(64 << 10))
        with mock.patch("os.fstatvfs", room), mock.patch("os.write", write):
            with self.assertRaisesRegex(SourceError, "no room below --tmpdir"):
                for _ in range(200):
                    for file in files:
                        file.write(part)
        self.assertGreaterEqual(free[0], RESERVE)
        for file in files:
            file.close()

    def test_a_full_disk_and_a_quota_are_told_as_no_room(self) -> None:
        for number in (errno.ENOSPC, errno.EDQUOT):
            with mock.patch("os.write", side_effect=OSError(number, os.strerror(number))):
                self.fails(ErrorCode.STORAGE_FULL, "image.tar: writing the temporary file below --tmpdir: ")

    def test_a_directory_that_is_not_there_is_named(self) -> None:
        with self.assertRaisesRegex(SourceError, r"temporary file in '/no/such' \(--tmpdir\): no such file"):
            TemporarySpace("/no/such", 1).make()


if __name__ == "__main__":
    unittest.main()

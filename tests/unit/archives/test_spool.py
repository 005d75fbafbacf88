# SPDX-License-Identifier: Apache-2.0
"""One temporary file for all that need the same content, without a name and freed with its last user."""

import os
import threading
import unittest

from cip.errors import ErrorCode, SourceError
from cip.programs import DirectPrograms
from cip.sources.archives.spool import Spools
from cip.temporary import TemporaryFile, TemporarySpace
from tests.support.leaks import LeakCheckedTestCase


class Sharing(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.spools = Spools(TemporarySpace(str(self.directory), 1 << 30), DirectPrograms())
        self.fills = 0

    def fill(self, file: TemporaryFile) -> None:
        self.fills += 1
        file.write(memoryview(b"content"))

    def test_the_file_has_no_name(self) -> None:
        file = self.spools.open("key", self.fill)
        self.addCleanup(file.close)
        self.assertEqual(list(self.directory.iterdir()), [])
        self.assertEqual(os.pread(file.descriptor, 10, 0), b"content")

    def test_users_of_one_key_share_a_file_and_the_last_one_frees_it(self) -> None:
        first, second = self.spools.open("key", self.fill), self.spools.open("key", self.fill)
        other = self.spools.open("other", self.fill)
        self.assertEqual((first.descriptor, self.fills), (second.descriptor, 2))
        first.close()
        first.close()
        self.assertEqual(os.pread(second.descriptor, 10, 0), b"content")
        second.close()
        self.spools.open("key", self.fill).close()
        self.assertEqual(self.fills, 3)
        other.close()

    def test_a_duplicate_outlives_the_file(self) -> None:
        file = self.spools.open("key", self.fill)
        descriptor = file.duplicate()
        self.addCleanup(os.close, descriptor)
        file.close()
        self.assertEqual(os.pread(descriptor, 10, 0), b"content")

    def test_those_who_come_together_wait_for_one_filling(self) -> None:
        files = []
        start = threading.Barrier(4)

        def run() -> None:
            start.wait(10)
            files.append(self.spools.open("key", self.fill))

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((len(files), self.fills), (4, 1))
        for file in files:
            file.close()

    def test_nobody_waits_for_the_filling_of_something_else(self) -> None:
        """A daemon that was slow to save an image held up the layers of another one."""
        used = self.spools.open("used", self.fill)
        others: list[int] = []

        def slow(file: TemporaryFile) -> None:
            def run() -> None:
                self.spools.open("other", self.fill).close()
                used.close()
                others.append(1)

            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            thread.join(10)

        self.spools.open("slow", slow).close()
        self.assertEqual(others, [1])

    def test_who_waited_for_a_filling_that_failed_fills(self) -> None:
        begun, found = threading.Event(), []

        def run() -> None:
            begun.set()
            found.append(self.spools.open("key", self.fill))

        thread = threading.Thread(target=run)

        def fail(file: TemporaryFile) -> None:
            thread.start()
            begun.wait(10)
            raise SourceError("it broke")

        with self.assertRaisesRegex(SourceError, "it broke"):
            self.spools.open("key", fail)
        thread.join(10)
        self.assertEqual((len(found), self.fills), (1, 1))
        found[0].close()

    def test_a_failed_filling_leaves_nothing_and_may_be_repeated(self) -> None:
        def fail(file: TemporaryFile) -> None:
            raise SourceError("it broke")

        with self.assertRaisesRegex(SourceError, "it broke"):
            self.spools.open("key", fail)
        self.spools.open("key", self.fill).close()
        self.assertEqual(self.fills, 1)

    def test_a_directory_that_cannot_be_written_is_named(self) -> None:
        named = r"temporary file in '/no/such/place' \(--tmpdir\): no such file"
        with self.assertRaisesRegex(SourceError, named) as caught:
            Spools(TemporarySpace("/no/such/place", 1 << 30), DirectPrograms()).open("key", self.fill)
        self.assertIs(caught.exception.code, ErrorCode.SOURCE_UNAVAILABLE)


if __name__ == "__main__":
    unittest.main()

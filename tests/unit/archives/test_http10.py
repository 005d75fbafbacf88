# SPDX-License-Identifier: Apache-2.0
"""Blobs of unknown size for a parent of HTTP/1.0, which are copied to a temporary file first."""

import unittest

from cip.model.descriptor import UNKNOWN_SIZE
from cip.temporary import TemporaryFile, TemporarySpace
from tests.unit.test_httpserver import BIG, LAYER, Conversations, FakeReader


class Http10(Conversations):
    tmpdir = "/tmp"

    def make_file(self) -> TemporaryFile:
        return TemporarySpace(self.tmpdir, 1 << 30).make()

    def test_blob_of_unknown_size_gets_a_length_c9(self) -> None:
        target = self.image.with_blob(BIG, size=UNKNOWN_SIZE, reader=FakeReader(BIG, size=UNKNOWN_SIZE))
        with self.serving() as line:
            answer = line.ask("GET", target, version="1.0")
            self.assertEqual((answer.framing, answer.body == BIG), ("length", True))

    def test_blob_of_unknown_size_that_is_wrong_is_an_honest_error(self) -> None:
        target = self.image.with_blob(BIG, size=UNKNOWN_SIZE, reader=FakeReader(BIG[1:], size=UNKNOWN_SIZE))
        with self.serving() as line:
            self.assertEqual(line.ask("GET", target, version="1.0").problem()["type"], "content-mismatch")

    def test_blob_of_unknown_size_without_room_for_it_is_refused(self) -> None:
        target = self.image.with_blob(LAYER, size=UNKNOWN_SIZE, reader=FakeReader(LAYER, size=UNKNOWN_SIZE))
        self.tmpdir = "/nowhere"
        with self.serving() as line:
            problem = line.ask("GET", target, version="1.0").problem()
        self.assertEqual(problem["status"], 505)
        self.assertRegex(problem["detail"], "needs HTTP/1.1 or room in --tmpdir: temporary file in .*no such file")


if __name__ == "__main__":
    unittest.main()

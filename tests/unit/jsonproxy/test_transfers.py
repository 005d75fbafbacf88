# SPDX-License-Identifier: Apache-2.0
"""What GetRawBlob passes on: so many bytes, which its parent judges."""

import unittest
from collections.abc import Iterable

from cip.content import CHUNK
from cip.errors import ContentMismatchError
from cip.model.descriptor import UNKNOWN_SIZE
from cip.wire.jsonproxy.transfers import copy_counted
from tests.unit.test_content import Place, Sink, pattern


class Counted(unittest.TestCase):
    def copy(self, parts: Iterable[bytes], size: int) -> tuple[int, bytes]:
        sink = Sink()
        return copy_counted(Place(list(parts)), sink.write, size, "blob x", chunk=CHUNK), bytes(sink.data)

    def test_exactly_the_size_passes_unlooked_at(self) -> None:
        for length in (0, 1, CHUNK - 1, CHUNK, CHUNK + 1):
            data = pattern(length)
            for size in (length, UNKNOWN_SIZE):
                with self.subTest(length, size=size):
                    self.assertEqual(self.copy([data], size), (length, data))

    def test_less_and_more_are_refused(self) -> None:
        sink = Sink()
        with self.assertRaisesRegex(ContentMismatchError, "^blob x: expected 4 bytes, found 3$") as caught:
            copy_counted(Place([b"ab", b"c"]), sink.write, 4, "blob x", chunk=CHUNK)
        self.assertEqual((caught.exception.offset, bytes(sink.data)), (3, b"abc"))
        sink = Sink()
        with self.assertRaisesRegex(ContentMismatchError, "^blob x: expected 3 bytes, found more$"):
            copy_counted(Place([b"ab", b"c", b"d"]), sink.write, 3, "blob x", chunk=CHUNK)
        self.assertEqual(bytes(sink.data), b"abc")

    def test_there_is_no_second_place(self) -> None:
        place = Place([b"ab"], [b"abc"])
        with self.assertRaises(ContentMismatchError):
            copy_counted(place, Sink().write, 3, "blob x", chunk=CHUNK)
        self.assertEqual(place.blamed, [])


if __name__ == "__main__":
    unittest.main()

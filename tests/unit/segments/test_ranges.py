# SPDX-License-Identifier: Apache-2.0
"""A segment of a blob: one range, continued where it breaks off, and never more than that."""

from cip.errors import CipError
from cip.segments import RangeOfBlob
from tests.support.origins import Asked, Reply, reply
from tests.unit.test_blob import CONTENT, BlobCase, L, in_turn, whole


class SegmentTest(BlobCase):
    """A part of a blob that is had as a single range or not at all."""

    def segment(self, start: int = 1000, end: int = 3000) -> bytes:
        blob = self.blob()
        endpoints = [each.endpoint for each in blob._candidates._all]
        reader = RangeOfBlob(blob._descriptor, endpoints, blob._session, start, end, set())
        try:
            return self.read(reader)
        finally:
            reader.close()

    def span(self, asked: Asked) -> Reply:
        first, last = (int(text) for text in asked.fields["range"].removeprefix("bytes=").split("-"))
        return reply(206, CONTENT[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{L}"})

    def test_one_range_and_nothing_else_is_asked_for(self) -> None:
        self.places(self.span)
        for start, end in ((1000, 3000), (0, 10), (L - 1, L)):
            self.assertEqual(self.segment(start, end), CONTENT[start:end])
        self.assertEqual(self.ranges(), ["bytes=1000-2999", "bytes=0-9", f"bytes={L - 1}-{L - 1}"])

    def test_one_that_breaks_off_is_continued(self) -> None:
        head = {"Content-Range": f"bytes 1000-2999/{L}", "Content-Length": "2000"}
        self.places(in_turn(reply(206, CONTENT[1000:1700], head, then="close"), self.span))
        self.assertEqual(self.segment(), CONTENT[1000:3000])
        self.assertEqual(self.ranges(), ["bytes=1000-2999", "bytes=1700-2999"])

    def test_a_place_without_single_ranges_is_left_and_nothing_read_over(self) -> None:
        for answer in (whole, reply(416), reply(501)):
            self.places(in_turn(answer))
            with self.assertRaisesRegex(CipError, "serves no single range"):
                self.segment()
            self.places(in_turn(answer), self.span)
            self.assertEqual(self.segment(), CONTENT[1000:3000])

    def test_another_range_is_a_bad_place(self) -> None:
        for name in (f"bytes 1000-{L - 1}/{L}", f"bytes 1000-2998/{L}", f"bytes 1001-2999/{L}", "bytes 1000-2999/4999"):
            self.places(in_turn(reply(206, CONTENT[1000:3000], {"Content-Range": name})))
            with self.assertRaisesRegex(CipError, "found another range"):
                self.segment()

# SPDX-License-Identifier: Apache-2.0
"""How bytes pass through: nothing complete leaves unverified, whatever a source does and however it cuts its reads."""

import array
import functools
import hashlib
import unittest
from collections.abc import Sequence

from cip.content import (
    CHUNK,
    TAIL,
    WHOLE,
    BytesReader,
    Release,
    copy_verified,
    read_blob,
    read_limited,
    require_content,
)
from cip.errors import CipError, ContentMismatchError, ErrorCode, InvalidDocumentError, NetworkError
from cip.model.descriptor import UNKNOWN_SIZE, Descriptor, Digest, digest_of

Parts = Sequence[bytes | CipError]


class Place(BytesReader):
    """A blob that comes from one place after the other, each a sequence of reads, an error among them if one is due."""

    def __init__(self, *places: Parts, size: int = UNKNOWN_SIZE) -> None:
        super().__init__(b"")
        self._places = list(places)
        self._parts = list(self._places.pop(0))
        self.size = size
        self.blamed: list[str] = []

    def readinto(self, buffer: memoryview, /) -> int:
        while self._parts:
            part = self._parts.pop(0)
            if isinstance(part, CipError):
                raise part
            taken = part[: len(buffer)]
            if len(part) > len(taken):
                self._parts.insert(0, part[len(taken) :])
            if taken:
                buffer[: len(taken)] = taken
                return len(taken)
        return 0

    def restart(self, error: ContentMismatchError) -> bool:
        self.blamed.append(str(error))
        if not self._places:
            return False
        self._parts = list(self._places.pop(0))
        self.size = UNKNOWN_SIZE
        return True

    def blame(self, error: ContentMismatchError) -> ContentMismatchError:
        return error.served_by(f"place {len(self.blamed) + 1}")


class Sink:
    """Collects what is let out."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, part: memoryview) -> None:
        assert len(part), "an empty write"
        self.data += part


def descriptor(data: bytes, size: int | None = None, algorithm: str = "sha256") -> Descriptor:
    digest = Digest(algorithm, hashlib.new(algorithm, data).hexdigest())
    return Descriptor("a/b", digest, len(data) if size is None else size)


def pattern(length: int) -> bytes:
    """Bytes that are different at every place that counts."""
    return _pattern()[:length]


@functools.cache
def _pattern() -> bytes:
    return array.array("I", range(CHUNK)).tobytes()


def cut(data: bytes, step: int) -> list[bytes]:
    return [data[start : start + step] for start in range(0, len(data), step)]


def unread_bytes() -> CipError:
    """Stands in a place whose bytes must not be asked for: another class of error than the test expects."""
    return NetworkError("read although the stated size was wrong")


_EDGES = (CHUNK, TAIL, 2 * TAIL, WHOLE, WHOLE + TAIL, 2 * CHUNK - TAIL)
BOUNDARIES = sorted({0, 1, *(edge + shift for edge in _EDGES for shift in (-1, 0, 1))})


class Sizes(unittest.TestCase):
    def test_what_is_held_back_is_what_the_decisions_say(self) -> None:
        self.assertEqual((WHOLE, TAIL), (262_144, 65_536))
        self.assertGreater(CHUNK, WHOLE, "a full buffer begins anew, and what it held would never leave")


class Verified(unittest.TestCase):
    def copy(self, place: Place, expected: Descriptor, release: Release) -> bytes:
        sink = Sink()
        self.assertEqual(copy_verified(place, sink.write, expected, release=release), len(sink.data))
        return bytes(sink.data)

    def refused(self, place: Place, expected: Descriptor, release: Release, reason: str) -> bytes:
        """What had left when the copy was refused for `reason`."""
        sink = Sink()
        with self.assertRaisesRegex(ContentMismatchError, reason) as caught:
            copy_verified(place, sink.write, expected, release=release)
        self.assertEqual(caught.exception.digest, str(expected.digest))
        self.assertFalse(caught.exception.retryable)
        return bytes(sink.data)

    def test_right_bytes_arrive_whole_at_every_boundary(self) -> None:
        for length in BOUNDARIES:
            data = pattern(length)
            for release in Release:
                for size in (length, UNKNOWN_SIZE):
                    for step in (CHUNK, 65_537, max(length, 1)):
                        with self.subTest(length, release=release, size=size, step=step):
                            copied = self.copy(Place(cut(data, step)), descriptor(data, size), release)
                            self.assertTrue(copied == data)

    def test_single_bytes_arrive_whole(self) -> None:
        data = pattern(5_000)
        for release in Release:
            self.assertEqual(self.copy(Place(cut(data, 1)), descriptor(data), release), data)

    def test_each_algorithm_verifies(self) -> None:
        for algorithm in ("sha256", "sha384", "sha512"):
            for release in Release:
                self.copy(Place([b"abc"]), descriptor(b"abc", algorithm=algorithm), release)
                self.refused(Place([b"abd"]), descriptor(b"abc", algorithm=algorithm), release, "expected digest")

    def test_a_wrong_blob_is_never_complete(self) -> None:
        for length in BOUNDARIES:
            data = pattern(length)
            for case, served, size, reason in (
                ("one byte less", data[:-1], length, f"expected {length} bytes, found {length - 1}"),
                ("one byte more", data + b"x", length, f"expected {length} bytes, found more"),
                ("much more", data + bytes(3 * WHOLE), length, f"expected {length} bytes, found more"),
                ("last byte wrong", data[:-1] + b"\xee"[:length], length, "expected digest sha256:.*, found sha256:"),
                ("first byte wrong", b"\xee"[:length] + data[1:], length, "expected digest"),
                ("one byte less, unknown size", data[:-1], UNKNOWN_SIZE, "expected digest"),
                ("one byte more, unknown size", data + b"x", UNKNOWN_SIZE, "expected digest"),
                ("nothing", b"", length, f"expected {length} bytes, found 0"),
            ):
                if served == data:
                    continue
                for step in (CHUNK, 65_537):
                    with self.subTest(case, length=length, step=step):
                        place = Place(cut(served, step))
                        out = self.refused(place, descriptor(data, size), Release.AFTER_VERIFICATION, reason)
                        self.assertTrue(served.startswith(out))
                        self.assertLessEqual(len(out), max(0, len(served) - TAIL) if len(served) > WHOLE else 0)
                        self.assertLess(len(out), max(length, 1))

    def test_a_right_digest_does_not_excuse_a_wrong_size(self) -> None:
        for release in Release:
            out = self.refused(Place([b"abc"]), descriptor(b"abc", 4), release, "expected 4 bytes, found 3")
            self.assertEqual(out, b"abc" if release is Release.AS_READ else b"")

    def test_at_least_the_tail_is_held_back_at_every_moment(self) -> None:
        data = pattern(CHUNK + 5 * TAIL + 77)
        place, sink = Place(cut(data, 40_000)), Sink()
        read = place.readinto
        received = 0

        def watched(buffer: memoryview) -> int:
            nonlocal received
            self.assertEqual(len(sink.data), received - TAIL if received > WHOLE else 0)
            count = read(buffer)
            received += count
            return count

        place.readinto = watched  # type: ignore[method-assign]
        copy_verified(place, sink.write, descriptor(data), release=Release.AFTER_VERIFICATION)
        self.assertTrue(sink.data == data)

    def test_bytes_leave_at_once_where_the_verdict_travels_elsewhere(self) -> None:
        data = pattern(3 * CHUNK)
        place, sink = Place(cut(data, CHUNK)), Sink()
        read, received = place.readinto, 0

        def watched(buffer: memoryview) -> int:
            nonlocal received
            self.assertEqual(len(sink.data), received)
            count = read(buffer)
            received += count
            return count

        place.readinto = watched  # type: ignore[method-assign]
        copy_verified(place, sink.write, descriptor(data), release=Release.AS_READ)
        self.assertTrue(sink.data == data)

    def test_more_than_announced_is_not_passed_on_even_at_once(self) -> None:
        data = pattern(2 * CHUNK)
        place = Place([*cut(data, CHUNK), b"x"])
        self.assertEqual(self.refused(place, descriptor(data), Release.AS_READ, "found more"), data)
        place = Place([data[:CHUNK], data[CHUNK:] + b"x"])
        out = self.refused(place, descriptor(data, size=2 * CHUNK - 1), Release.AS_READ, "found more")
        self.assertEqual(out, data[:CHUNK])

    def test_another_stated_size_is_refused_before_the_first_byte(self) -> None:
        for release in Release:
            for stated in (2, 4, 0):
                with self.subTest(release, stated=stated):
                    place = Place([unread_bytes()], size=stated)
                    reason = f"expected 3 bytes, the source states {stated}"
                    self.assertEqual(self.refused(place, descriptor(b"abc"), release, reason), b"")
            self.assertEqual(self.copy(Place([b"abc"], size=3), descriptor(b"abc"), release), b"abc")
            self.assertEqual(self.copy(Place([b"abc"], size=3), descriptor(b"abc", UNKNOWN_SIZE), release), b"abc")

    def test_a_wrong_place_is_left_for_another_while_nothing_has_left(self) -> None:
        for case, first in (("wrong", [b"abX"]), ("short", [b"ab"]), ("long", [b"abcd"]), ("empty", [])):
            with self.subTest(case):
                place = Place(first, [b"abc"])
                self.assertEqual(self.copy(place, descriptor(b"abc"), Release.AFTER_VERIFICATION), b"abc")
                self.assertEqual(len(place.blamed), 1)
                self.assertIn("(served by place 1)", place.blamed[0])
        stated = Place([b"abcd"], [b"abc"], size=4)
        self.assertEqual(self.copy(stated, descriptor(b"abc"), Release.AS_READ), b"abc")

    def test_every_place_is_tried_and_the_last_complaint_is_told(self) -> None:
        place = Place([b"1"], [b"2"], [b"3"])
        out = self.refused(place, descriptor(b"abc"), Release.AFTER_VERIFICATION, r"\(served by place 3\)")
        self.assertEqual((out, len(place.blamed)), (b"", 3))

    def test_a_wrong_place_is_the_end_once_something_has_left(self) -> None:
        data = pattern(WHOLE + TAIL)
        place = Place([data[:-1] + b"\xee"], [data])
        out = self.refused(place, descriptor(data), Release.AFTER_VERIFICATION, "expected digest")
        self.assertGreater(len(out), 0)
        self.assertEqual(place.blamed, [])
        place = Place([b"abX"], [b"abc"])
        self.assertEqual(self.refused(place, descriptor(b"abc"), Release.AS_READ, "expected digest"), b"abX")
        self.assertEqual(place.blamed, [])

    def test_a_write_that_fails_has_let_something_out(self) -> None:
        def write(part: memoryview) -> None:
            raise ContentMismatchError("from below")

        place = Place([b"abc"], [b"abc"])
        with self.assertRaisesRegex(ContentMismatchError, "from below"):
            copy_verified(place, write, descriptor(b"abc"), release=Release.AFTER_VERIFICATION)
        self.assertEqual(place.blamed, [])

    def test_an_error_of_the_source_is_passed_on_and_what_is_held_is_dropped(self) -> None:
        data = pattern(TAIL)
        for release, left in ((Release.AFTER_VERIFICATION, b""), (Release.AS_READ, data)):
            with self.subTest(release):
                sink = Sink()
                with self.assertRaisesRegex(NetworkError, "^reset$"):
                    copy_verified(Place([data, NetworkError("reset")]), sink.write, descriptor(data), release=release)
                self.assertTrue(sink.data == left)

    def test_the_offset_tells_how_far_it_came(self) -> None:
        with self.assertRaises(ContentMismatchError) as caught:
            copy_verified(Place([b"ab"]), Sink().write, descriptor(b"abc"), release=Release.AS_READ)
        self.assertEqual(caught.exception.offset, 2)
        with self.assertRaises(ContentMismatchError) as caught:
            copy_verified(Place([], size=4), Sink().write, descriptor(b"abc"), release=Release.AS_READ)
        self.assertEqual(caught.exception.offset, 0)


class Limited(unittest.TestCase):
    def test_the_limit_itself_passes_and_one_byte_more_does_not(self) -> None:
        for limit in (0, 1, 5, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5):
            data = pattern(limit)
            for step in (CHUNK, 9_999):
                with self.subTest(limit, step=step):
                    self.assertTrue(read_limited(Place(cut(data, step)), limit, "document") == data)
                    reason = f"^document: larger than {limit} bytes$"
                    with self.assertRaisesRegex(InvalidDocumentError, reason) as caught:
                        read_limited(Place(cut(data + b"x", step)), limit, "document")
                    self.assertEqual(caught.exception.code, ErrorCode.LIMIT_EXCEEDED)

    def test_no_more_than_the_limit_and_one_byte_is_asked_for(self) -> None:
        place = Place([pattern(10)] * 10)
        asked = 0
        read = place.readinto

        def watched(buffer: memoryview) -> int:
            nonlocal asked
            asked += read(buffer)
            return min(len(buffer), 10)

        place.readinto = watched  # type: ignore[method-assign]
        with self.assertRaises(InvalidDocumentError):
            read_limited(place, 25, "document")
        self.assertEqual(asked, 26)

    def test_an_error_of_the_source_is_passed_on(self) -> None:
        with self.assertRaisesRegex(NetworkError, "^reset$"):
            read_limited(Place([b"a", NetworkError("reset")]), 10, "document")


class InMemory(unittest.TestCase):
    def test_a_small_blob_is_read_whole(self) -> None:
        for length in (0, 1, 10):
            data = pattern(length)
            for size in (length, UNKNOWN_SIZE):
                self.assertEqual(read_blob(BytesReader(data), descriptor(data, size), 10, "config"), data)

    def test_a_blob_beyond_the_limit_is_refused_before_or_while_reading(self) -> None:
        data = pattern(11)
        unread = Place([NetworkError("read although it was announced too large")])
        for place, size in ((unread, 11), (Place(cut(data, 3)), UNKNOWN_SIZE)):
            with self.subTest(size), self.assertRaisesRegex(InvalidDocumentError, "^config: larger than 10") as caught:
                read_blob(place, descriptor(data, size), 10, "config")
            self.assertEqual(caught.exception.code, ErrorCode.LIMIT_EXCEEDED)

    def test_every_place_is_tried_however_much_the_wrong_one_served(self) -> None:
        data = pattern(4 * TAIL)
        place = Place([data[:-1] + b"\xee"], [data])
        self.assertTrue(read_blob(place, descriptor(data), len(data), "config") == data)
        with self.assertRaisesRegex(ContentMismatchError, "expected digest"):
            read_blob(Place([b"abX"]), descriptor(b"abc"), 10, "config")

    def test_bytes_in_memory_are_a_blob(self) -> None:
        reader, buffer = BytesReader(b"abcde"), memoryview(bytearray(3))
        self.assertEqual(reader.size, 5)
        self.assertEqual([(reader.readinto(buffer), bytes(buffer)) for _ in range(2)], [(3, b"abc"), (2, b"dec")])
        self.assertEqual(reader.readinto(buffer), 0)
        wrong = ContentMismatchError("x")
        self.assertIs(reader.blame(wrong), wrong)
        self.assertFalse(reader.restart(wrong))
        reader.close()

    def test_content_has_its_digest_or_is_refused(self) -> None:
        digest = digest_of(b"abc")
        require_content(b"abc", digest, "manifest")
        require_content(b"abc", descriptor(b"abc", algorithm="sha512").digest, "manifest")
        with self.assertRaisesRegex(ContentMismatchError, f"^manifest: expected digest {digest}, found sha256:"):
            require_content(b"abd", digest, "manifest")


if __name__ == "__main__":
    unittest.main()

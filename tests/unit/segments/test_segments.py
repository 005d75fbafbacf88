# SPDX-License-Identifier: Apache-2.0
"""Segments: the bytes in order, only where they bring something, and one stream wherever one fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from unittest import mock

from cip import segments
from cip.content import BlobReader, Release, copy_verified
from cip.errors import CipError, ContentMismatchError, NetworkError, RegistryError
from cip.model.descriptor import Descriptor, digest_of
from cip.segments import BLOBS, SegmentedBlob
from tests.support import images
from tests.support.leaks import LeakCheckedTestCase

KIB = 1024
CONTENT = images.random_bytes(1024 * KIB + 77, b"segments")
DESCRIPTOR = Descriptor("layer", digest_of(CONTENT), len(CONTENT))


class Connection:
    """One range of the content, at a rate of its own; fails after `until` bytes of it."""

    def __init__(self, line: Line, start: int, end: int | None) -> None:
        self.line = line
        self.start = self.position = start
        self.end = len(CONTENT) if end is None else end
        self.is_segment = end is not None
        self.closed = threading.Event()
        self.size = len(CONTENT)

    def readinto(self, buffer: memoryview, /) -> int:
        if self.closed.is_set():
            raise NetworkError("closed")
        if self.is_segment and self.line.fault is not None:
            self.line.fault(self)
        part = CONTENT[self.position : min(self.end, self.position + min(len(buffer), 8 * KIB))]
        self.line.pass_on(len(part), self)
        buffer[: len(part)] = part
        self.position += len(part)
        return len(part)

    def blame(self, error: ContentMismatchError) -> ContentMismatchError:
        return error.served_by(self.line.name(self))

    def restart(self, error: ContentMismatchError) -> bool:
        return False

    def close(self) -> None:
        self.closed.set()


class Line:
    """A link that is slow for each connection, or for all together."""

    def __init__(self, *, each: float = 0.0, together: float = 0.0) -> None:
        self.each = each  # seconds for 8 KiB
        self.together = together
        self.fault: Callable[[Connection], None] | None = None
        self.name: Callable[[Connection], str] = lambda connection: "host.x"
        self.opened: list[tuple[int, int | None]] = []
        self.made: list[Connection] = []
        # a clock that goes on with the bytes: how a loaded machine gives turns to threads must not count
        self.now = 0.0
        self.begun: Callable[[], int] = lambda: 1  # connections, whether or not their threads run already
        self.most = self._active = 0  # connections that bytes come over at one moment
        self._lock = threading.Lock()

    def open_range(self, start: int, end: int | None, turn: int) -> BlobReader:
        self.opened.append((start, end))
        self.made.append(Connection(self, start, end))
        return self.made[-1]

    def pass_on(self, count: int, connection: Connection) -> None:
        if count and self.together:
            with self._lock:
                time.sleep(0.001)
                self.now += self.together
        elif count and self.each:
            with self._lock:
                self._active += 1
                self.most = max(self.most, self._active)
            connection.closed.wait(self.each / 3)
            with self._lock:
                self.now += self.each / max(1, self.begun())
                self._active -= 1


class SegmentsCase(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        for name, value in (("MINIMUM", 256), ("PROBE", 64), ("SEGMENT", 64), ("HELD", 256)):
            patch = mock.patch.object(segments, name, value * KIB)
            patch.start()
            self.addCleanup(patch.stop)

    def blob(self, line: Line, connections: int = 4, offset: int = 0) -> SegmentedBlob:
        made = SegmentedBlob(DESCRIPTOR, offset, line.open_range, connections, lambda: line.now)
        line.begun = lambda: len(made._segments) + (made._stream is not None)
        self.addCleanup(made.close)
        return made

    def read(self, line: Line, connections: int = 4, offset: int = 0) -> bytes:
        reader = self.blob(line, connections, offset)
        data = bytearray()
        buffer = memoryview(bytearray(10_000))
        while count := reader.readinto(buffer):
            data += buffer[:count]
        reader.close()
        return bytes(data)

    def ranges(self, line: Line) -> list[tuple[int, int | None]]:
        return [each for each in line.opened if each[1] is not None]

    def test_a_line_that_is_slow_for_each_connection_is_used_by_all_of_them(self) -> None:
        line = Line(each=0.003)
        self.assertEqual(self.read(line), CONTENT)
        self.assertEqual(line.most, 4, "connections at once")
        self.assertEqual(len([each for each in line.opened if each[1] is None]), 1, "one stream")
        covered = sorted(self.ranges(line))
        self.assertEqual(covered[0][0], 128 * KIB)
        self.assertEqual([end for _, end in covered], [start for start, _ in covered[1:]] + [len(CONTENT)])

    def test_bytes_are_verified_as_any_others(self) -> None:
        data = bytearray()
        reader = self.blob(Line(each=0.001))
        copy_verified(reader, data.extend, DESCRIPTOR, release=Release.AFTER_VERIFICATION)
        self.assertEqual(bytes(data), CONTENT)

    def test_a_second_connection_that_brings_nothing_is_given_up(self) -> None:
        line = Line(together=0.004)
        self.assertEqual(self.read(line), CONTENT)
        self.assertLess(len(self.ranges(line)), 12)
        self.assertEqual(line.opened[-1][1], None, "one stream goes on alone")

    def test_a_fast_line_and_a_small_rest_stay_with_one_stream(self) -> None:
        for line, offset in ((Line(), 0), (Line(each=0.001), len(CONTENT) - 200 * KIB)):
            self.assertEqual(self.read(line, offset=offset), CONTENT[offset:])
            self.assertEqual(line.opened, [(offset, None)])

    def test_a_blob_that_begins_later(self) -> None:
        line = Line(each=0.001)
        self.assertEqual(self.read(line, offset=300 * KIB), CONTENT[300 * KIB :])
        self.assertTrue(self.ranges(line))

    def test_a_server_without_ranges_keeps_its_one_stream(self) -> None:
        line = Line(each=0.001)

        def refuse(connection: Connection) -> None:
            raise RegistryError("no ranges", http_status=200)

        line.fault = refuse
        self.assertEqual(self.read(line), CONTENT)
        self.assertEqual([each for each in line.opened if each[1] is None], [(0, None)])
        self.assertLessEqual(len(self.ranges(line)), 3)

    def test_a_segment_that_fails_anywhere_is_continued_by_one_stream(self) -> None:
        for after in (128, 150, 192, 300, 700, 1000):
            with self.subTest(after):
                line = Line(each=0.001)

                def fail(connection: Connection, after: int = after) -> None:
                    if connection.position >= after * KIB:
                        raise NetworkError("broke")

                line.fault = fail
                self.assertEqual(self.read(line), CONTENT)

    def test_a_segment_that_ends_early_is_no_end(self) -> None:
        line = Line(each=0.001)

        def end(connection: Connection) -> None:
            connection.end = min(connection.end, 400 * KIB)

        line.fault = end
        self.assertEqual(self.read(line), CONTENT)

    def test_no_more_is_held_than_allowed(self) -> None:
        for connections in (2, 4, 16):
            line = Line(each=0.0005)
            reader = self.blob(line, connections)
            buffer = memoryview(bytearray(10_000))
            data = b""
            while count := reader.readinto(buffer):
                data += buffer[:count]
                held = sum(len(each.data) for each in reader._segments)
                self.assertLessEqual(held, 256 * KIB)
                self.assertLessEqual(len(reader._segments), connections)
            self.assertEqual(data, CONTENT)
            reader.close()

    def test_a_parent_that_leaves_many_unread_has_few_of_them_in_segments(self) -> None:
        lines, buffer = [Line(each=0.002) for _ in range(BLOBS + 2)], memoryview(bytearray(8 * KIB))

        def begin(line: Line) -> SegmentedBlob:
            blob, done = self.blob(line), 0
            while done < 80 * KIB:
                done += blob.readinto(buffer)
            return blob

        def in_segments() -> list[bool]:
            return [any(end is not None for _, end in line.opened) for line in lines]

        blobs = [begin(line) for line in lines[:-1]]
        self.assertEqual(in_segments(), [True] * BLOBS + [False] * 2)
        blobs[0].close()
        blobs[0].close()
        begin(lines[-1])
        self.assertEqual(in_segments(), [True] * BLOBS + [False, True])

    def test_closing_ends_whoever_waits(self) -> None:
        line = Line(each=0.001)
        stuck = threading.Event()

        def hang(connection: Connection) -> None:
            stuck.set()
            connection.closed.wait(30)
            raise NetworkError("closed")

        line.fault = hang
        reader = self.blob(line)
        ended: list[CipError] = []

        def read() -> None:
            buffer = memoryview(bytearray(10_000))
            try:
                while reader.readinto(buffer):
                    continue
            except CipError as error:
                ended.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        stuck.wait(10)
        time.sleep(0.1)
        reader.close()
        thread.join(10)
        self.assertFalse(thread.is_alive())
        self.assertEqual(len(ended), 1)
        self.assertTrue(all(each.closed.is_set() for each in line.made))

    def test_who_is_to_blame(self) -> None:
        for name, expected in ((lambda c: "host.x", "host.x"), (lambda c: f"host.{c.start % 3}", "several places")):
            line = Line(each=0.001)
            line.name = name
            reader = self.blob(line)
            buffer = memoryview(bytearray(10_000))
            while reader.readinto(buffer):
                continue
            error = reader.blame(ContentMismatchError("wrong"))
            self.assertIn(f"(served by {expected})", str(error))
            self.assertFalse(reader.restart(error))
            reader.close()


if __name__ == "__main__":
    import unittest

    unittest.main()

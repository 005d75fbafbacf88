# SPDX-License-Identifier: Apache-2.0
"""Event and audit lines: bounded, ordered, never in the way."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import unittest
from unittest import mock

from cip.content import BytesReader, Release, copy_verified
from cip.errors import CipError, ContentMismatchError, NetworkError
from cip.model.descriptor import Descriptor, digest_of
from cip.report.events import ReportingReader, follow_all, write_events
from cip.report.lines import LineWriter
from cip.report.records import FLUSH_SECONDS, Records
from tests.support.leaks import await_end


class PipeCase(unittest.TestCase):
    def setUp(self) -> None:
        self.read_end, write_end = os.pipe()
        self.threads = threading.active_count()
        self.lines = LineWriter(write_end, "events")

    def tearDown(self) -> None:
        os.close(self.read_end)
        for thread in threading.enumerate():
            if thread.name == "events":
                await_end(thread)
        self.assertEqual(threading.active_count(), self.threads)

    def drain(self) -> list[dict[str, object]]:
        self.lines.close(FLUSH_SECONDS)
        data = b""
        while chunk := os.read(self.read_end, 65536):
            data += chunk
        return [json.loads(line) for line in data.splitlines()]


class Lines(PipeCase):
    def test_events_keep_their_order_and_leave_out_what_is_unknown(self) -> None:
        events = follow_all([write_events(self.lines)])
        events.emit("retry", image="i", attempt=1, wait=None)
        events.emit("done", image="i")
        found = self.drain()
        self.assertEqual([line["event"] for line in found], ["retry", "done"])
        self.assertNotIn("wait", found[0])
        self.assertEqual(found[0]["v"], 1)

    def test_a_descriptor_that_became_one_that_does_not_wait_is_waited_for(self) -> None:
        """Whoever shares it may say so at any time; a full pipe is no broken one."""
        os.set_blocking(self.lines._descriptor, False)
        self.lines.put({"text": "x" * 200_000})
        waiting = threading.Thread(target=self.lines.write, args=({"text": "last"}, 10.0))
        waiting.start()
        data = b""
        while not data.endswith(b'"last"}\n'):
            data += os.read(self.read_end, 65536)
        waiting.join(10)
        self.assertEqual(len(data.splitlines()), 2)
        self.assertEqual(self.drain(), [])

    def test_no_progress_of_a_blob_follows_its_end(self) -> None:
        events = follow_all([write_events(self.lines)])
        self.lines._progress = {name: b'{"event":"progress","digest":"%s"}\n' % name.encode() for name in "ab"}
        events.emit("failed", digest="b")
        found = [(line["event"], line["digest"]) for line in self.drain()]
        self.assertEqual(sorted(found), [("failed", "b"), ("progress", "a")])

    def test_without_another_thread_it_is_cut_off_and_says_so(self) -> None:
        events = follow_all([write_events(self.lines)])
        with (
            mock.patch("threading.Thread.start", side_effect=RuntimeError("can't start new thread")),
            mock.patch("cip.log.warning") as warning,
        ):
            events.emit("done", image="i")
            events.emit("done", image="i")
        self.assertEqual(warning.call_count, 1)
        self.assertEqual(self.drain(), [])

    def test_nothing_emitted_starts_no_thread_and_closes_the_descriptor(self) -> None:
        self.assertEqual(self.drain(), [])
        self.lines.close(FLUSH_SECONDS)

    def test_a_reader_that_lets_the_queue_fill_is_cut_off_with_one_log_line(self) -> None:
        events = follow_all([write_events(self.lines)])
        with mock.patch("cip.log.warning") as warning:
            for _ in range(100):
                events.emit("retry", detail="x" * 8192)
        self.assertEqual(warning.call_count, 1)
        self.lines.close(FLUSH_SECONDS)

    def test_written_line_is_known_to_be_written(self) -> None:
        self.assertTrue(self.lines.write({"event": "one"}, 5))
        self.assertEqual(json.loads(os.read(self.read_end, 4096)), {"event": "one"})
        self.lines.put({"event": "two"})
        self.assertTrue(self.lines.write({"event": "three"}, 5))
        self.assertEqual([line["event"] for line in self.drain()], ["two", "three"])
        self.assertFalse(self.lines.write({"event": "four"}, 5))

    def test_line_that_cannot_be_written_is_known_not_to_be(self) -> None:
        """A reader that does not read, one whose queue is full, and one that is gone."""
        os.set_blocking(self.read_end, False)
        for _ in range(3):
            self.lines.put({"filler": "x" * 65000})
        self.assertFalse(self.lines.write({"event": "late"}, 0.05))
        with mock.patch("cip.log.warning") as warning:
            self.assertFalse(self.lines.write({"filler": "x" * 200_000}, 5))
        self.assertEqual(warning.call_count, 1)
        self.unblock()

    def test_line_for_a_reader_that_is_gone_is_not_written(self) -> None:
        os.close(self.read_end)
        try:
            with mock.patch("cip.log.warning"):
                self.assertFalse(self.lines.write({"event": "nobody"}, 5))
        finally:
            self.read_end = os.open(os.devnull, os.O_RDONLY)

    def unblock(self) -> None:
        """Read until the writer's thread is through with what it began."""
        while any(thread.name == "events" for thread in threading.enumerate()):
            with contextlib.suppress(BlockingIOError):
                os.read(self.read_end, 65536)

    def test_readers_that_stand_still_have_one_time_together(self) -> None:
        now = [100.0]
        allowed: list[float] = []

        def stand_still(lines: LineWriter, within: float) -> None:
            allowed.append(within)
            now[0] += within

        with (
            mock.patch("cip.report.records.time.monotonic", lambda: now[0]),
            mock.patch.object(LineWriter, "close", stand_still),
        ):
            Records(-1, -1).close()
        self.assertEqual(allowed, [FLUSH_SECONDS, 0])

    def test_a_reader_that_stands_still_is_not_waited_for_when_the_time_is_over(self) -> None:
        for _ in range(16):
            follow_all([write_events(self.lines)]).emit("retry", detail="x" * 8192)
        with mock.patch("threading.Condition.wait", side_effect=AssertionError("waits")):
            self.lines.close(0)
        while os.read(self.read_end, 1 << 20):
            continue

    def test_progress_lines_replace_each_other(self) -> None:
        events = follow_all([write_events(self.lines)])
        for step in range(5000):
            events.emit("progress", digest="sha256:a", done=step, note="y" * 500)
        found = self.drain()
        self.assertLess(len(found), 5000)
        self.assertEqual(found[-1]["done"], 4999)

    def test_a_reader_that_is_gone_is_no_error(self) -> None:
        os.close(self.read_end)
        with mock.patch("cip.log.warning") as warning:
            follow_all([write_events(self.lines)]).emit("done")
            self.lines.close(FLUSH_SECONDS)
            for thread in threading.enumerate():
                if thread.name == "events":
                    await_end(thread)
        warning.assert_called_once()
        self.read_end = os.open(os.devnull, os.O_RDONLY)


class _Recorder:
    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, object]]] = []

    def emit(self, event: str, **members: object) -> None:
        self.seen.append((event, members))


class Reporting(unittest.TestCase):
    def copy(self, content: bytes, reader: BytesReader) -> list[tuple[str, dict[str, object]]]:
        """What is told while `reader` is copied as the blob of `content`."""
        events = _Recorder()
        reporting = ReportingReader(reader, _descriptor(content), "i", events.emit)
        try:
            copy_verified(reporting, lambda part: None, _descriptor(content), release=Release.AS_READ)
        except CipError:
            pass
        reporting.close()
        reporting.close()
        return events.seen

    def test_a_good_blob_is_told_once_with_its_length(self) -> None:
        ((event, members),) = self.copy(b"abc", BytesReader(b"abc"))
        self.assertEqual((event, members["bytes"]), ("done", 3))

    def test_wrong_content_is_told_as_a_failure(self) -> None:
        ((event, members),) = self.copy(b"abc", BytesReader(b"abd"))
        self.assertEqual((event, members["code"]), ("failed", "content-mismatch"))

    def test_a_failure_is_told(self) -> None:
        class Broken(BytesReader):
            def readinto(self, buffer: memoryview, /) -> int:
                raise NetworkError("it broke")

        ((event, members),) = self.copy(b"abc", Broken(b"abc"))
        self.assertEqual((event, members["code"], members["detail"]), ("failed", "connection-lost", "it broke"))

    def test_a_blob_that_succeeds_elsewhere_is_no_failure(self) -> None:
        class Elsewhere(BytesReader):
            def restart(self, error: ContentMismatchError) -> bool:
                self._data, self._position = memoryview(b"abc"), 0
                return True

        events = _Recorder()
        reporting = ReportingReader(Elsewhere(b"abd"), _descriptor(b"abc"), "i", events.emit)
        copy_verified(reporting, lambda part: None, _descriptor(b"abc"), release=Release.AFTER_VERIFICATION)
        reporting.close()
        self.assertEqual([event for event, _ in events.seen], ["done"])

    def test_a_blob_that_the_parent_gave_up_is_told_by_neither(self) -> None:
        events = _Recorder()
        reporting = ReportingReader(BytesReader(b"abc"), _descriptor(b"abc"), "i", events.emit)
        reporting.readinto(memoryview(bytearray(1)))
        reporting.close()
        self.assertEqual(events.seen, [])


def _descriptor(data: bytes) -> Descriptor:
    return Descriptor("x", digest_of(data), len(data))


if __name__ == "__main__":
    unittest.main()

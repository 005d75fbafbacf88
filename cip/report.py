# SPDX-License-Identifier: Apache-2.0
"""Records for programs: events and audit lines as JSON, one object a line (decisions.md section 6).

A reader of these lines can never slow or stop a transfer: lines wait in a bounded queue that one thread empties,
progress lines of one blob replace each other there, and a reader that lets the queue fill is cut off.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Protocol

from . import log
from .content import BlobReader
from .errors import CipError, ContentMismatchError
from .model.descriptor import Descriptor

VERSION = 1
QUEUE_LIMIT = 256 * 1024  # bytes of lines that are not progress
AUDIT_LINE_LIMIT = 64 * 1024  # bytes
PROGRESS_INTERVAL = 0.1  # seconds between two progress lines of one blob
FLUSH_SECONDS = 0.5  # how long the end of the process waits for slow readers


class Events(Protocol):
    """Takes the events of a run. `emit` never blocks, never raises, and may be called from any thread."""

    def emit(self, event: str, **members: object) -> None:
        """Record `event` (plan, progress, retry, source, throttled, auth, policy, done, failed) with its members."""
        ...


class Audit(Protocol):
    """Takes one record for each open that reached a decision."""

    def record(self, members: Mapping[str, object]) -> None:
        """Write the record."""
        ...


class NoEvents:
    """For a parent that did not ask for events."""

    def emit(self, event: str, **members: object) -> None:
        """Forget the event."""


class NoAudit:
    """For a parent that did not ask for the audit."""

    def record(self, members: Mapping[str, object]) -> None:
        """Forget the record."""


class LineWriter:
    """Writes lines to a descriptor that it owns, from a thread of its own. `name` is for the log."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self._condition = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._progress: dict[str, bytes] = {}
        self._waiting = 0
        self._writing = False
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, members: Mapping[str, object], *, replaces: str | None = None, ends: str | None = None) -> None:
        """Queue one line. With `replaces` it takes the place of a waiting one with that key; `ends` drops that one."""
        line = json.dumps(members, separators=(",", ":"), default=str).encode() + b"\n"
        with self._condition:
            if self._closed:
                return
            if replaces is not None:
                self._progress[replaces] = line
            else:
                if self._waiting + len(line) > QUEUE_LIMIT:
                    self._cut_off("its reader is too slow")
                    return
                self._lines.append(line)
                self._waiting += len(line)
                self._progress.pop(ends or "", None)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # no more threads for this process
                    self._cut_off(str(error))
                    os.close(self._descriptor)
                    return
                self._thread = thread
            self._condition.notify()

    def close(self, within: float = FLUSH_SECONDS) -> None:
        """Write what waits, for at most `within` seconds, and close the descriptor."""
        with self._condition:
            if self._closed and self._thread is None:
                return
            deadline = time.monotonic() + within
            while (self._lines or self._progress or self._writing) and not self._closed:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._condition.wait(left)
            idle = not self._writing
            self._closed = True
            self._condition.notify_all()
            thread = self._thread
        if thread is not None and idle:
            thread.join()
        if thread is None:
            os.close(self._descriptor)

    def _cut_off(self, why: str) -> None:
        """Stop for good; called with the lock held."""
        self._closed = True
        self._lines.clear()
        self._progress.clear()
        log.warning("%s: no more lines are written: %s", self._name, why)
        self._condition.notify_all()

    def _run(self) -> None:
        try:
            while True:
                with self._condition:
                    self._writing = False
                    self._condition.notify_all()
                    while not (self._lines or self._progress or self._closed):
                        self._condition.wait()
                    if self._closed:
                        return
                    self._writing = True
                    if self._lines:
                        line = self._lines.popleft()
                        self._waiting -= len(line)
                    else:
                        line = self._progress.pop(next(iter(self._progress)))
                try:
                    _write_whole(self._descriptor, line)
                except OSError as error:
                    with self._condition:
                        if not self._closed:
                            self._cut_off(error.strerror or "cannot be written")
                        return
        finally:
            os.close(self._descriptor)


def close_writers(writers: Iterable[LineWriter]) -> None:
    """Close them all within FLUSH_SECONDS: a parent may wait for the end of this process."""
    deadline = time.monotonic() + FLUSH_SECONDS
    for writer in writers:
        writer.close(max(0.0, deadline - time.monotonic()))


def _write_whole(descriptor: int, line: bytes) -> None:
    view = memoryview(line)
    while view:
        view = view[os.write(descriptor, view) :]


class EventWriter:
    """Events as lines: `{"v","t","event","image",…}`; `t` is seconds since the epoch."""

    def __init__(self, lines: LineWriter) -> None:
        self._lines = lines

    def emit(self, event: str, **members: object) -> None:
        """Queue the event; members that are None are left out."""
        record: dict[str, object] = {"v": VERSION, "t": round(time.time(), 3), "event": event}
        record.update((key, value) for key, value in members.items() if value is not None)
        digest = str(members.get("digest"))
        self._lines.put(
            record,
            replaces=digest if event == "progress" else None,
            ends=digest if event in ("done", "failed") else None,
        )


class AuditWriter:
    """Audit records as lines, each at most AUDIT_LINE_LIMIT bytes."""

    def __init__(self, lines: LineWriter) -> None:
        self._lines = lines

    def record(self, members: Mapping[str, object]) -> None:
        """Queue the record; one that is too long loses its signatures and says so."""
        members = {"v": VERSION, **members}
        if len(json.dumps(members, default=str)) >= AUDIT_LINE_LIMIT:
            members = {**members, "signatures": [], "truncated": True}
        self._lines.put(members)


def failure(error: CipError) -> dict[str, object]:
    """What an event `failed` says of `error` (decisions.md section 6); what is not known is None."""
    attempts = [
        {"place": each.place, "at": each.at, "phase": each.phase, "code": each.code} for each in error.attempts
    ]
    return {
        "code": error.code,
        "detail": str(error),
        "retryable": error.retryable,
        "host": error.host,
        "phase": error.phase,
        "offset": error.offset,
        "attempts": attempts or None,
        "retry_after": error.retry_after,
        "reason": error.reason,
    }


class ReportingReader:
    """A blob reader that tells the events how far it is, and at its end whether the blob was the right one."""

    def __init__(self, reader: BlobReader, descriptor: Descriptor, image: str, events: Events) -> None:
        self._reader = reader
        self._descriptor = descriptor
        self._image = image
        self._events = events
        self._began = self._told = time.monotonic()
        self._done = 0
        self._ended = False
        self._failure: dict[str, object] | None = None  # not the error: its frames hold us, and the buffers of the copy
        self._open = threading.Lock()  # taken by the first close

    @classmethod
    def around(cls, reader: BlobReader, descriptor: Descriptor, image: str, events: Events) -> BlobReader:
        """`reader` itself when nobody listens: the copy loop stays as short as it can be."""
        return reader if isinstance(events, NoEvents) else cls(reader, descriptor, image, events)

    @property
    def size(self) -> int:
        """Bytes in the whole blob as the source states it."""
        return self._reader.size

    def readinto(self, buffer: memoryview, /) -> int:
        """The next bytes."""
        try:
            count = self._reader.readinto(buffer)
        except CipError as error:
            self._failure = failure(error)
            raise
        self._done += count
        self._ended = not count
        now = time.monotonic()
        if count and now - self._told >= PROGRESS_INTERVAL:
            self._told = now
            self._emit("progress", done=self._done, size=self._descriptor.size)
        return count

    def blame(self, error: ContentMismatchError) -> ContentMismatchError:
        """Who served the wrong bytes."""
        error = self._reader.blame(error)
        self._failure = failure(error)
        return error

    def restart(self, error: ContentMismatchError) -> bool:
        """Begin again elsewhere, if the source can."""
        if not self._reader.restart(error):
            return False
        self._done, self._ended, self._failure = 0, False, None
        return True

    def close(self) -> None:
        """Release the blob, and tell what became of it; one that the parent gave up is told by neither event."""
        if self._open.acquire(blocking=False):
            if self._failure is not None:
                self._emit("failed", **self._failure)
            elif self._ended:
                self._emit("done", bytes=self._done, seconds=round(time.monotonic() - self._began, 3))
        self._reader.close()

    def _emit(self, event: str, **members: object) -> None:
        self._events.emit(event, image=self._image, digest=str(self._descriptor.digest), **members)

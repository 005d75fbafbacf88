# SPDX-License-Identifier: Apache-2.0
"""Events as lines: `{"v","t","event","image",…}` (decisions.md section 6)."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from ..content import BlobReader
from ..errors import CipError, ContentMismatchError
from ..events import NO_EVENTS, Emit, Events
from ..model.descriptor import Descriptor
from .lines import VERSION, LineWriter

PROGRESS_INTERVAL = 0.1  # seconds between two progress lines of one blob


def write_events(lines: LineWriter) -> Emit:
    """Takes events that become lines; `t` is seconds since the epoch, members that are None are left out."""

    def emit(event: str, **members: object) -> None:
        record: dict[str, object] = {"v": VERSION, "t": round(time.time(), 3), "event": event}
        record.update((key, value) for key, value in members.items() if value is not None)
        blob = str(members.get("digest"))
        ends = blob if event in ("done", "failed") else None
        lines.put(record, replaces=blob if event == "progress" else None, ends=ends)

    return emit


def follow_all(emits: Sequence[Emit]) -> Events:
    """Events that each of `emits` is told, blobs followed for them; none at all for nobody."""
    if not emits:
        return NO_EVENTS

    def emit(event: str, **members: object) -> None:
        error = members.pop("error", None)
        facts = _failure(error) if isinstance(error, CipError) else {}
        for each in emits:
            each(event, **members, **facts)

    return Events(emit, lambda reader, descriptor, image: ReportingReader(reader, descriptor, image, emit))


class ReportingReader:
    """A blob reader that tells the events how far it is, and at its end whether the blob was the right one."""

    def __init__(self, reader: BlobReader, descriptor: Descriptor, image: str, emit: Emit) -> None:
        self._reader = reader
        self._descriptor = descriptor
        self._image = image
        self._tell = emit
        self._began = self._told = time.monotonic()
        self._done = 0
        self._ended = False
        self._failure: dict[str, object] | None = None  # not the error: its frames hold us, and the buffers of the copy
        self._open = threading.Lock()  # taken by the first close

    @property
    def size(self) -> int:
        """Bytes in the whole blob as the source states it."""
        return self._reader.size

    def readinto(self, buffer: memoryview, /) -> int:
        """The next bytes."""
        try:
            count = self._reader.readinto(buffer)
        except CipError as error:
            self._failure = _failure(error)
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
        self._failure = _failure(error)
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
        self._tell(event, image=self._image, digest=str(self._descriptor.digest), **members)


def _failure(error: CipError) -> dict[str, object]:
    """What an event `failed` says of `error` (decisions.md section 6); what is not known is None."""
    attempts = [{"place": each.place, "at": each.at, "phase": each.phase, "code": each.code} for each in error.attempts]
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

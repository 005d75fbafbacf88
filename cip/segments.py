# SPDX-License-Identifier: Apache-2.0
"""Fetches one large blob over several connections, where one alone is slow (`--segments`).

Rules. A blob begins as one stream. Once PROBE bytes have shown its rate, and that is below FAST, the bytes ahead are
asked for in segments, one single range each, while the stream goes on to where they begin; it ends there once the first
of them has bytes. The reader gets everything in order, and at most HELD bytes wait for it. After TRIED segments it is
seen whether they brought GAIN; otherwise one stream goes on alone, and so it does from wherever a segment fails: a
server without ranges, one that counts connections, a fault. Every segment continues and changes its place by itself,
and is told its number, so that several places may take turns.
Of the one stream time counts only while we wait for it: a slow parent is no slow line. In segments all of it counts: a
slow parent needs none.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Container, Sequence
from functools import partial

from . import log
from .content import BlobReader, start_thread
from .errors import CipError, ContentMismatchError, NetworkError, RegistryError
from .model.descriptor import Descriptor
from .net.response import Response
from .registry.endpoints import Endpoint
from .registry.failover import Candidate
from .registry.session import RegistrySession
from .registry.sharing import SharedBlob
from .sources.base import BlobAccess

MINIMUM = 64 * 1024 * 1024  # bytes that must be left of a blob
PROBE = 8 * 1024 * 1024  # bytes of the one stream that are measured
FAST = 64 * 1024 * 1024  # bytes a second of one stream that are enough
HELD = 16 * 1024 * 1024  # bytes of all segments that are on their way; one more is just being handed out
SEGMENT = 8 * 1024 * 1024  # bytes of one, or its share of HELD
BLOBS = 2  # at once, until they are closed
TRIED = 4  # segments after which the gain is judged
GAIN = 1.3  # times the rate of one stream
_BLOCK = 256 * 1024  # bytes read at once
_REMEMBERED = 64  # readers that are asked who served wrong bytes

# from this byte on, up to that one (None: the end), which is so manieth a segment (0: none)
OpenRange = Callable[[int, int | None, int], BlobReader]


def open_segments(
    descriptor: Descriptor,
    endpoints: Callable[[], Sequence[Endpoint]],
    session: RegistrySession,
    offset: int,
    connections: int,
) -> SegmentedBlob:
    """The blob of a registry; `endpoints` are those of its image now.

    Segments are asked for at all endpoints of equal standing in turn, but for those that have failed one of this blob.
    """
    failed: set[str] = set()

    def open_range(first: int, end: int | None, turn: int) -> BlobReader:
        return RangeOfBlob(descriptor, in_turn(endpoints(), turn, failed), session, first, end, failed)

    return SegmentedBlob(descriptor, offset, open_range, connections)


class RangeOfBlob(SharedBlob):
    """A blob from `first` on. With an `end` it is a segment, which is had as a single range or not at all.

    `failed` gets the names of the endpoints that do.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        endpoints: Sequence[Endpoint],
        session: RegistrySession,
        first: int,
        end: int | None,
        failed: set[str],
    ) -> None:
        super().__init__(descriptor, BlobAccess.VERIFIED, endpoints, session, offset=first)
        self._failed = failed
        self._is_segment = end is not None
        if end is not None:
            self._end, self._broke_off = end, True

    def blame(self, error: ContentMismatchError) -> ContentMismatchError:
        """As of any blob; of segments this process has enough then."""
        self._session.trusts_segments &= not self._is_segment
        return super().blame(error)

    def _range(self) -> str:
        return f"{super()._range()}{self._end - 1}" if self._is_segment else super()._range()

    def _require_usable(self, source: Candidate, response: Response, *, ranged: bool) -> None:
        if self._is_segment and response.status in (200, 416, 501):
            why = "it serves no single range"
            raise RegistryError.at(response.origin.address, why, http_status=response.status)
        super()._require_usable(source, response, ranged=ranged)

    def _move_on(self, error: CipError, *, again: bool) -> None:
        self._failed.add(self._candidates.current.endpoint.name)
        super()._move_on(error, again=again)


class SegmentedBlob:
    """The blob `descriptor` from `offset` on, over at most `connections`; one thread reads, any closes."""

    _in_segments = threading.BoundedSemaphore(BLOBS)

    def __init__(
        self,
        descriptor: Descriptor,
        offset: int,
        open_range: OpenRange,
        connections: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._descriptor = descriptor
        self._open_range = open_range
        self._connections = connections
        self._clock = clock
        self._step = min(SEGMENT, HELD // connections)
        self._changed = threading.Condition()
        self._closed = False
        self._counts = False  # among BLOBS
        self._position = offset
        self._stream: BlobReader | None = None
        self._stream_ends: int | None = None  # where the segments begin
        self._segments: deque[_Segment] = deque()
        self._next = 0  # first byte that no segment was begun for
        self._used: deque[BlobReader] = deque(maxlen=_REMEMBERED)
        self._may_try = descriptor.size - offset >= MINIMUM
        self._alone = 0.0  # bytes a second of one stream
        self._bytes, self._seconds = 0, 0.0  # of the one stream that is measured
        self._arrived = 0  # bytes of segments
        self._tried_from = 0.0, 0  # when the stream ended, and what had arrived by then
        self._begun = self._consumed = 0  # segments
        self._winding_down = False

    @property
    def size(self) -> int:
        """Bytes in the whole blob."""
        return self._descriptor.size

    def readinto(self, buffer: memoryview, /) -> int:
        """The next bytes. Raises what a single stream raises."""
        while self._stream is not None or self._segments or self._position < self._descriptor.size:
            began = self._clock()
            count = self._read_segment(buffer) if self._stream is None and self._segments else self._read_stream(buffer)
            self._seconds += self._clock() - began
            if count is None:
                continue
            self._position += count
            self._bytes += count * self._may_try
            if self._bytes >= PROBE and self._may_try:
                self._decide()
            return count
        return 0

    def blame(self, error: ContentMismatchError) -> ContentMismatchError:
        """Who served the wrong bytes; of several places nobody knows which one lied."""
        blamed = {str(each): each for each in (reader.blame(error) for reader in self._used)}
        return next(iter(blamed.values())) if len(blamed) == 1 else error.served_by("several places")

    def restart(self, error: ContentMismatchError) -> bool:
        """Nothing is begun again: that much has left long ago."""
        return False

    def close(self) -> None:
        """Release every connection."""
        with self._changed:
            self._closed, counts, self._counts = True, self._counts, False
            readers = [each.reader for each in self._segments] + [self._stream]
            self._changed.notify_all()
        if counts:
            self._in_segments.release()
        for reader in readers:
            if reader is not None:
                reader.close()

    # --- one stream ---

    def _read_stream(self, buffer: memoryview) -> int | None:
        """The next bytes of the one stream; None where the segments go on instead."""
        if self._stream is None:
            self._stream = self._opened(self._open_range(self._position, None, 0))
        if self._stream_ends is None:
            return self._stream.readinto(buffer)
        left = self._stream_ends - self._position
        if left:
            return self._stream.readinto(buffer[:left])
        if self._await_first():
            self._stream.close()
            self._stream = None
            self._tried_from = self._clock(), self._arrived
            self._begin_segments()
        else:
            self._give_up_segments()
        self._stream_ends = None
        return None

    def _decide(self) -> None:
        self._may_try = False
        self._alone = self._bytes / self._seconds if self._seconds else FAST
        worth = self._alone < FAST and self._descriptor.size - self._position > 2 * self._step
        with self._changed:
            self._counts = worth and not self._closed and self._in_segments.acquire(blocking=False)
        if self._counts:
            self._stream_ends = self._next = self._position + self._step
            log.debug("blob %s: %.0f bytes a second: trying segments", self._descriptor.digest, self._alone)
            self._begin_segments()

    def _opened(self, reader: BlobReader) -> BlobReader:
        """A new reader. Raises NetworkError once nobody wants it any more."""
        with self._changed:
            self._used.append(reader)
            closed = self._closed
        if closed:
            reader.close()
            raise NetworkError(f"blob {self._descriptor.digest}: closed", digest=str(self._descriptor.digest))
        return reader

    # --- segments ---

    def _begin_segments(self) -> None:
        """As many as there may be, one fewer while the stream has its connection."""
        together = self._connections - (self._stream is not None)
        while len(self._segments) < together and self._next < self._descriptor.size and not self._winding_down:
            self._begun += 1
            segment = _Segment(self._begun, self._next, min(self._next + self._step, self._descriptor.size))
            try:
                start_thread(partial(self._fill, segment), "segment")
            except CipError as error:
                log.debug("segments: %s", error)
                return
            self._next = segment.end
            self._segments.append(segment)

    def _await_first(self) -> bool:
        """Whether the first segment has bytes, for which this waits."""
        with self._changed:
            while self._segments and not (self._segments[0].filled or self._segments[0].error or self._closed):
                self._changed.wait()
            return bool(self._segments) and self._segments[0].filled > 0

    def _read_segment(self, buffer: memoryview) -> int | None:
        """The next bytes of the first segment; None where something else goes on instead."""
        segment = self._segments[0]
        with self._changed:
            while segment.taken == segment.filled and segment.error is None and not self._closed:
                self._changed.wait()
            if self._closed:
                raise NetworkError(f"blob {self._descriptor.digest}: closed", digest=str(self._descriptor.digest))
            count = min(len(buffer), segment.filled - segment.taken)
        if not count:
            log.debug("blob %s: one stream from %d on: %s", self._descriptor.digest, self._position, segment.error)
            self._give_up_segments()
            return None
        buffer[:count] = memoryview(segment.data)[segment.taken : segment.taken + count]
        segment.taken += count
        if segment.taken == len(segment.data):
            self._segments.popleft()
            self._consumed += 1
            if self._consumed == TRIED:
                began, before = self._tried_from
                seconds = self._clock() - began
                rate = (self._arrived - before) / seconds if seconds else FAST
                self._winding_down = rate < GAIN * self._alone
                log.debug("blob %s: %.0f bytes a second in segments", self._descriptor.digest, rate)
            self._begin_segments()
        return count

    def _give_up_segments(self) -> None:
        with self._changed:
            left = list(self._segments)
            self._segments.clear()
            self._winding_down = True
            for segment in left:
                segment.dropped = True
        for segment in left:
            if segment.reader is not None:
                segment.reader.close()

    def _fill(self, segment: _Segment) -> None:
        """Fetch one segment, in a thread of its own."""
        reader: BlobReader | None = None
        try:
            reader = self._opened(self._open_range(segment.start, segment.end, segment.number))
            with self._changed:
                segment.reader = reader
            view = memoryview(segment.data)
            while segment.filled < len(view) and not segment.dropped:
                count = reader.readinto(view[segment.filled : segment.filled + _BLOCK])
                if not count:
                    return
                with self._changed:
                    self._arrived += count
                    segment.filled += count
                    self._changed.notify_all()
            reader.readinto(view[:1])  # the end, so that the connection can be used again
        except CipError as error:
            segment.error = error
        finally:
            with self._changed:
                if segment.filled < len(segment.data) and segment.error is None:
                    segment.error = NetworkError(f"blob {self._descriptor.digest}: a segment ended early")
                self._changed.notify_all()
            if reader is not None:
                reader.close()


class _Segment:
    """The bytes from `start` to `end`; those before `filled` have arrived, those before `taken` were handed out."""

    def __init__(self, number: int, start: int, end: int) -> None:
        self.number = number
        self.start = start
        self.end = end
        self.data = bytearray(end - start)
        self.filled = self.taken = 0
        self.reader: BlobReader | None = None
        self.error: CipError | None = None
        self.dropped = False


def in_turn(endpoints: Sequence[Endpoint], turn: int, failed: Container[str]) -> Sequence[Endpoint]:
    """The endpoints in their order behind the one whose turn it is, with 0 the first that has not failed.

    All mirrors stand equal; the registry behind them is asked where they fail, and alone where it was the one that had
    the manifest.
    """
    equal = [each for each in endpoints if each.place.primary is endpoints[0].place.primary and each.name not in failed]
    chosen = equal[turn % len(equal)] if equal else endpoints[0]
    return sorted(endpoints, key=lambda each: each is not chosen)

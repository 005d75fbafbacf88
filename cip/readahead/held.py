# SPDX-License-Identifier: Apache-2.0
"""What is on its way or waits in memory before the parent asks for it: one blob, its thread and its bounded buffer."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable

from .. import log
from ..content import BlobAccess, BlobReader, new_buffer, require_time, timed, undo_on_error
from ..errors import CipError, ContentMismatchError, ErrorCode, NetworkError, SourceError
from ..model.descriptor import UNKNOWN_SIZE, Descriptor

OpenBlob = Callable[[Descriptor, BlobAccess], BlobReader]
BLOCK = 128 * 1024  # bytes read at once; a buffer that is the system's again when it was handed out
_LOOK = 0.1  # seconds after which who waits for a source looks whether it is still waited for


class Handed:
    """What all images of this process handed to the parent; safe from any thread."""

    lock = threading.Lock()
    unread = 0  # bytes

    @classmethod
    def add(cls, count: int) -> None:
        """So many bytes more were handed over, or fewer."""
        with cls.lock:
            cls.unread += count


class _Block:
    """Bytes on their way: those before `filled` are there, those before `taken` were handed out."""

    def __init__(self, size: int) -> None:
        self.data = new_buffer(size)
        self.filled = self.taken = 0


class ToldReader:
    """A blob that tells its first bytes."""

    def __init__(self, reader: BlobReader, tell: Callable[[], object]) -> None:
        self._reader = reader
        self._tell: Callable[[], object] | None = tell
        self.blame, self.restart, self.close = reader.blame, reader.restart, reader.close

    @property
    def size(self) -> int:
        """Bytes in the whole blob as the source states it."""
        return self._reader.size

    def readinto(self, buffer: memoryview, /) -> int:
        """The next bytes."""
        count = self._reader.readinto(buffer)
        tell, self._tell = self._tell, None
        if tell is not None:
            tell()
        return count


class EarlyBlob:
    """One blob that nobody has asked for yet; once taken, a reader."""

    def __init__(
        self, open_blob: OpenBlob, descriptor: Descriptor, access: BlobAccess, fill: int, answered: Callable[[], object]
    ) -> None:
        self.access = access
        self._open_blob = open_blob
        self._answered = answered
        self._descriptor = descriptor
        self._digest = descriptor.digest
        self._fill = fill
        self._changed = threading.Condition()
        self._blocks: deque[_Block] = deque()
        self._held = 0  # bytes that were read early
        self._unread = 0  # of them those that are still here
        self._reader: BlobReader | None = None
        self._error: CipError | None = None
        self._ended = False
        self._taken = False
        self._closed = False
        self._idle = False  # no thread will touch anything any more

    @property
    def is_whole(self) -> bool:
        """Whether all of it is in the buffer; a registry has its connection back then."""
        return self._ended and self._idle

    @property
    def failed(self) -> bool:
        """Whether it has to be asked for again."""
        return self._error is not None

    @property
    def reserved(self) -> int:
        """Bytes that it has or may still fill."""
        return self._held if self.is_whole else self._fill

    def allow(self, fill: int) -> None:
        """Let the buffer grow to `fill` bytes."""
        with self._changed:
            self._fill = max(self._fill, fill)
            self._changed.notify_all()

    def take(self) -> BlobReader | None:
        """This blob for the parent; None when it failed before the parent wanted it.

        Raises what opening it raises while the parent waits: asking again then would take all of its time twice. What
        reading raises from then on is raised by `readinto`.
        """
        with undo_on_error(self.close), self._changed:
            failed = self._error
            self._taken = True
            Handed.add(self._unread)
            self._changed.notify_all()
            while self._reader is None and not self._idle:
                self._changed.wait(_LOOK)
                require_time()
            opened = self._reader is not None and self._error is None
        if opened:
            return self
        self.close()
        if failed is None and self._error is not None:
            raise self._error
        log.debug("read-ahead of %s failed: %s; asking again", self._digest, self._error)
        return None

    @property
    def size(self) -> int:
        """Bytes in the whole blob as the source states it."""
        return self._opened().size

    def readinto(self, buffer: memoryview, /) -> int:
        """What was read early, then the rest from the source."""
        with self._changed:
            while not self._blocks and not self._idle:
                self._changed.wait()
            if self._blocks:
                return self._pop(buffer)
            if self._closed:
                raise NetworkError(f"blob {self._digest}: closed while it was read", digest=str(self._digest))
            if self._error is not None:
                raise self._error
            if self._ended:
                return 0
        return self._opened().readinto(buffer)

    def restart(self, error: ContentMismatchError) -> bool:
        """Begin again elsewhere, if the source can; what was read early is as wrong as the rest."""
        with self._changed:
            while not self._idle:
                self._changed.wait()
            self._blocks.clear()
            self._count(-self._unread)
            self._ended = False
            self._error = None
        return self._opened().restart(error)

    def blame(self, error: ContentMismatchError) -> ContentMismatchError:
        """Who served the wrong bytes."""
        return self._opened().blame(error)

    def close(self) -> None:
        """Stop the thread and release the blob."""
        with self._changed:
            self._closed = True
            self._blocks.clear()
            self._count(-self._unread)
            reader = self._reader
            self._changed.notify_all()
        if reader is not None:
            reader.close()

    def _opened(self) -> BlobReader:
        if self._reader is None:
            raise NetworkError(f"blob {self._digest}: not open", digest=str(self._digest))
        return self._reader

    def _count(self, count: int) -> None:
        """So many bytes more in the buffer; called with the lock held."""
        self._unread += count
        if self._taken:
            Handed.add(count)

    def _pop(self, buffer: memoryview) -> int:
        block = self._blocks[0]
        count = min(block.filled - block.taken, len(buffer))
        buffer[:count] = block.data[block.taken : block.taken + count]
        block.taken += count
        self._count(-count)
        if block.taken == block.filled:
            self._blocks.popleft()  # it may be filled further, and comes back then
        return count

    def run(self) -> None:
        """Read until it ends or is taken; called by one thread, once."""
        try:
            self._read_early()
        except CipError as error:
            self._error = error
        finally:
            with self._changed:
                self._idle = True
                reader = self._reader if self._closed else None
                self._changed.notify_all()
            if reader is not None:
                reader.close()

    def _read_early(self) -> None:
        with timed(self._require):
            reader = ToldReader(self._open_blob(self._descriptor, self.access), self._answered)
        with self._changed:
            self._reader = reader
            self._changed.notify_all()
        size = self._descriptor.size
        block = _Block(BLOCK if size == UNKNOWN_SIZE else min(BLOCK, size + 1))
        while self._wait_for_room():
            if block.filled == len(block.data):  # before the next is made: a read of a byte must cost a byte
                block = _Block(BLOCK)
            count = reader.readinto(block.data[block.filled :])
            with self._changed:
                if self._closed:
                    return
                if not count:
                    self._ended = True
                    return
                if not self._blocks or self._blocks[-1] is not block:
                    self._blocks.append(block)
                block.filled += count
                self._held += count
                self._count(count)
                self._changed.notify_all()

    def _require(self) -> float:
        """Asked by what works long on local files before there is a reader. Raises SourceError."""
        if self._closed:
            raise SourceError(f"blob {self._descriptor.digest}: nobody waits for it", code=ErrorCode.INTERNAL)
        return math.inf

    def _wait_for_room(self) -> bool:
        """Whether to read on: not once the parent reads itself. What is complete has its end still to be read."""
        with self._changed:
            while self._held >= self._fill and self._held != self._descriptor.size and not self._is_released():
                self._changed.wait()
            return not self._is_released()

    def _is_released(self) -> bool:
        return self._taken or self._closed

# SPDX-License-Identifier: Apache-2.0
"""The first bytes of one blob on disk, and the sums that say which of them count; `store` has the rules."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from contextlib import suppress
from typing import Protocol

from .. import log
from ..errors import system_reason

BLOCK = 1024 * 1024  # bytes under one sum
SYNC_EVERY = 64  # blocks after which they are on disk, whatever becomes of the machine
_HEAD = b"container-image-proxy part v1\n".ljust(32, b"\n")
_SUM = 32  # bytes, as many as the head has


class Keeper(Protocol):
    """What a part needs of the store that it belongs to. All raise OSError but `remove`."""

    @property
    def path(self) -> str: ...

    def has_room(self) -> bool: ...

    def remove(self, stem: str) -> None: ...

    def publish(self, stem: str, path: str, directory: int) -> None: ...


class Part:
    """The first bytes of one blob, whose lock we hold: first read, then appended to. One thread uses it, any closes.

    `fault` is why no more is kept, None while all is.
    """

    def __init__(self, store: Keeper, stem: str, size: int, data: int, sums: int) -> None:
        """Owns both descriptors. Raises OSError, having closed them."""
        self._store = store
        self._stem = stem
        self._size = size
        self._files = (data, sums)
        self._open = True
        self._lock = threading.Lock()
        self._block = memoryview(b"")  # read and compared, not yet handed out
        self._read = 0  # bytes that were handed out or are in `_block`
        self._hasher = hashlib.sha256()  # of the block that is being appended
        self.fault: OSError | None = None
        self.where = f"{store.path}/{stem}.part"
        try:
            self._length = self._claimed()  # bytes that count, then bytes that are there
        except OSError:
            self._close_files()
            raise
        with suppress(OSError):  # a full disk: the age counts from the last byte then
            write_at(sums, _HEAD, 0)  # so that it counts as used; a confined process may not set times

    @property
    def length(self) -> int:
        """Bytes that are here; those not read yet may turn out to be fewer."""
        return self._length

    def readinto(self, buffer: memoryview) -> int:
        """The next bytes that are here and as their sum says; 0 at the end of them."""
        if not len(self._block) and self._read < self._length:
            self._block = self._compared_block()
        count = min(len(self._block), len(buffer))
        buffer[:count] = self._block[:count]
        self._block = self._block[count:]
        return count

    def append(self, data: memoryview) -> None:
        """Keep the next bytes, as long as that is possible; never raises."""
        while len(data) and self.fault is None:
            piece = data[: BLOCK - self._length % BLOCK]
            data = data[len(piece) :]
            try:
                with self._lock:
                    self._append(piece)
            except OSError as error:
                self.fault = error
                log.debug("%s: no more of it is kept: %s", self.where, system_reason(error))

    def discard(self) -> None:
        """Delete what is here: it is wrong."""
        with self._lock:
            self._block = memoryview(b"")
            if self._open:
                self._store.remove(self._stem)
                self._close_files()
            self.fault = self.fault or OSError(0, "it was wrong")

    def publish(self, path: str, directory: int) -> None:
        """Move the complete part, which is on disk then, to `path` below the descriptor `directory`. Raises OSError."""
        with self._lock:
            data, _ = self._require_open()
            os.fsync(data)
            self._store.publish(self._stem, path, directory)

    def close(self) -> None:
        """Give the part up to the next reader, unless it is empty; safe to call twice and from another thread."""
        with self._lock:
            if self._open and not self._length and self._size:
                self._store.remove(self._stem)
            self._close_files()

    def _close_files(self) -> None:
        if self._open:
            self._open = False
            for descriptor in self._files:
                os.close(descriptor)

    def _require_open(self) -> tuple[int, int]:
        if not self._open:
            raise OSError(0, "it was closed")
        return self._files

    def _claimed(self) -> int:
        """Bytes under sums. A part that is longer than its blob, or whose sums are not ours, begins anew."""
        data, sums = self._files
        length, listed = os.fstat(data).st_size, os.fstat(sums).st_size
        blocks = max(0, listed - len(_HEAD)) // _SUM
        all_blocks = -(-self._size // BLOCK)
        if length > self._size or blocks > all_blocks or os.pread(sums, len(_HEAD), 0) != _HEAD:
            blocks = 0
        claimed = self._size if blocks == all_blocks else blocks * BLOCK
        if claimed > length:  # a power cut took data that its sums outlived
            claimed = length // BLOCK * BLOCK
        self._cut(claimed)
        return claimed

    def _cut(self, length: int) -> None:
        """Let the part end at `length`, which is the end of a block. Raises OSError."""
        data, sums = self._files
        os.ftruncate(data, length)
        if not length:
            write_at(sums, _HEAD, 0)
        os.ftruncate(sums, len(_HEAD) + -(-length // BLOCK) * _SUM)

    def _compared_block(self) -> memoryview:
        """The next block; nothing, and the part ends before it, when it is not as its sum says."""
        wanted = min(BLOCK, self._length - self._read)
        with self._lock:
            try:
                data, sums = self._require_open()
                block = os.pread(data, wanted, self._read)
                position = len(_HEAD) + self._read // BLOCK * _SUM
                if len(block) == wanted and hashlib.sha256(block).digest() == os.pread(sums, _SUM, position):
                    self._read += wanted
                    return memoryview(block)
                log.warning("%s: damaged after %d bytes, which are fetched again", self.where, self._read)
                self._length = self._read
                self._cut(self._length)
            except OSError as error:
                self._length = self._read
                self.fault = error
        return memoryview(b"")

    def _append(self, piece: memoryview) -> None:
        data, sums = self._require_open()
        block, inside = divmod(self._length, BLOCK)
        if not inside:
            if not self._store.has_room():
                raise OSError(errno.ENOSPC, "the quota or the file system has no room for more")
            self._hasher = hashlib.sha256()
        write_at(data, piece, self._length)
        self._hasher.update(piece)
        self._length = position = self._length + len(piece)
        if position % BLOCK and position != self._size:
            return
        write_at(sums, self._hasher.digest(), len(_HEAD) + block * _SUM)
        if not (block + 1) % SYNC_EVERY:
            os.fdatasync(data)
            os.fdatasync(sums)


def write_at(descriptor: int, data: bytes | memoryview, position: int) -> None:
    """Write all of `data` to a file. Raises OSError; a write that meets the end of the room says so the next time."""
    left = memoryview(data)
    while left:
        count = os.pwrite(descriptor, left, position)
        position, left = position + count, left[count:]

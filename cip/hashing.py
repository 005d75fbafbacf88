# SPDX-License-Identifier: Apache-2.0
"""Hashes a long stream in a thread of its own, while the next bytes are read and sent.

Hashing is half of what a large blob costs, and hashlib lets other threads run meanwhile. The stream goes through a few
buffers in turn: filled and passed on by the caller, hashed here, and free again once both are done. What fits into one
buffer is hashed at once, without a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import TYPE_CHECKING, Self

from .model.digest import Digest

if TYPE_CHECKING:
    from queue import SimpleQueue

BUFFERS = 3  # one is filled while the others are hashed
_LOOK_SECONDS = 1.0  # between two looks at whether the thread that is waited for still lives
_NOTHING = memoryview(b"")


class Hashing:
    """The digest of one stream; a context manager that ends its thread. One thread calls it.

    The thread begins once as many bytes as a buffer holds have been hashed; what hashes `alone` has none.
    """

    def __init__(self, digest: Digest, buffer_size: int, *, alone: bool = False) -> None:
        self._hasher = digest.hasher()
        self._hashed = 0  # bytes
        self._buffer_size = buffer_size
        self._made = 0  # buffers
        self._spare: list[memoryview] = []
        self._alone = alone  # also when this process may not have another thread
        self._worker: _Worker | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def buffer(self) -> memoryview:
        """A buffer to fill, which nothing reads any more."""
        if self._worker is None and self._hashed >= self._buffer_size and not self._alone:
            self._begin()
        if self._spare:
            return self._spare.pop()
        if self._worker is None or self._made < BUFFERS:
            self._made += 1
            return memoryview(bytearray(self._buffer_size))
        return self._worker.free_buffer()

    def give_back(self, buffer: memoryview) -> None:
        """Told that all of `buffer` was passed on."""
        if self._worker is None:
            self._spare.append(buffer)
        else:
            self._worker.jobs.put((_NOTHING, buffer))

    def update(self, part: memoryview) -> None:
        """The next bytes, a part of the buffer that is being filled."""
        if self._worker is None:
            self._hash(part)
        else:
            self._worker.jobs.put((part, _NOTHING))

    def hexdigest(self, received: int) -> str:
        """The digest of all parts, which the caller says are `received` bytes; nothing may follow."""
        self._end()
        if self._hashed != received:
            raise RuntimeError(f"of {received} bytes {self._hashed} were hashed")  # a thread that died, never a verdict
        return self._hasher.hexdigest()

    def _hash(self, part: memoryview) -> None:
        self._hasher.update(part)
        self._hashed += len(part)

    def _begin(self) -> None:
        worker = _Worker(self._hash)
        try:
            worker.start()
        except RuntimeError:
            self._alone = True
        else:
            self._worker = worker

    def _end(self) -> None:
        worker, self._worker = self._worker, None  # it knows us: a cycle would keep the buffers until it is looked for
        if worker is not None:
            worker.jobs.put(None)
            worker.join()


class _Worker(Thread):
    """Does jobs of (part to hash, buffer that is free afterwards) in their order, until None."""

    def __init__(self, hash_part: Callable[[memoryview], None]) -> None:
        from queue import SimpleQueue  # only large blobs need it

        super().__init__(name="hash", daemon=True)
        self._hash_part = hash_part
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self.jobs: SimpleQueue[tuple[memoryview, memoryview] | None] = SimpleQueue()

    def free_buffer(self) -> memoryview:
        """The next buffer that comes free."""
        from queue import Empty

        while True:
            try:
                return self._free.get(timeout=_LOOK_SECONDS)
            except Empty:
                if not self.is_alive():
                    raise RuntimeError("the thread that hashes has ended") from None

    def run(self) -> None:
        """Until the last job."""
        while job := self.jobs.get():
            part, buffer = job
            if part:
                self._hash_part(part)
            if buffer:
                self._free.put(buffer)

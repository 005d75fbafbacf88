# SPDX-License-Identifier: Apache-2.0
"""Hashes a long stream in a thread of its own, while the next bytes are read and sent.

Hashing is half of what a large blob costs, and hashlib lets other threads run meanwhile. The stream goes through two
buffers in turn: filled and passed on by who copies, hashed here, and free again once both are done.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread

_LOOK_SECONDS = 1.0  # between two looks at whether the thread that is waited for still lives
_NOTHING = memoryview(b"")


class HashingThread(Thread):
    """Does jobs of (part to hash, buffer that is free afterwards) in their order, until None."""

    def __init__(self, hash_part: Callable[[memoryview], None], spare: memoryview) -> None:
        super().__init__(name="hash", daemon=True)
        self._hash_part = hash_part
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._free.put(spare)
        self._jobs: SimpleQueue[tuple[memoryview, memoryview] | None] = SimpleQueue()

    def hash(self, part: memoryview) -> None:
        """Hash the next bytes, a part of the buffer that is being filled."""
        self._jobs.put((part, _NOTHING))

    def exchange(self, buffer: memoryview) -> memoryview:
        """Another buffer for `buffer`, which is free once it is hashed. Raises RuntimeError when this thread died."""
        self._jobs.put((_NOTHING, buffer))
        while True:
            try:
                return self._free.get(timeout=_LOOK_SECONDS)
            except Empty:
                if not self.is_alive():
                    raise RuntimeError("the thread that hashes has ended") from None

    def end(self) -> None:
        """Hash what is left, and end."""
        self._jobs.put(None)
        self.join()

    def run(self) -> None:
        """Until the last job."""
        while job := self._jobs.get():
            part, buffer = job
            if part:
                self._hash_part(part)
            if buffer:
                self._free.put(buffer)


def start_hashing(hash_part: Callable[[memoryview], None], spare: memoryview) -> HashingThread | None:
    """A thread that calls `hash_part`; None where this process may not have another one."""
    thread = HashingThread(hash_part, spare)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread

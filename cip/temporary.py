# SPDX-License-Identifier: Apache-2.0
"""Files without a name that this process may fill: how many bytes together, and how much room others keep.

What is unpacked may be ten thousand times as long as what it comes from, so each write is counted before it is made.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from .errors import ErrorCode, SourceError, quote, refused

RESERVE = 256 * 1024**2  # bytes of a file system that are left to others
_LOOK_BYTES = 16 * 1024**2  # written, to all files together, between two looks at how much room there is


class TemporarySpace:
    """At most `limit` bytes in files below `directory`; safe from any thread."""

    def __init__(self, directory: str, limit: int) -> None:
        self._directory = directory
        self._limit = limit
        self._used = 0
        self._unseen = 0  # bytes counted since somebody looked at the room
        self._lock = threading.Lock()

    def make(self) -> TemporaryFile:
        """An empty file, for the caller to close. Raises SourceError."""
        from tempfile import TemporaryFile as UnlinkedFile

        with refused(f"temporary file in {quote(self._directory)} (--tmpdir)"):
            # O_TMPFILE where the file system has it, otherwise a file that is unlinked at once.
            with UnlinkedFile(dir=self._directory, buffering=0) as file:
                return TemporaryFile(os.dup(file.fileno()), self)

    def take(self, count: int, what: str) -> bool:
        """Count so many bytes more, and say whether to look at the room; the caller owes `give_back`.

        Raises SourceError (limit-exceeded).
        """
        with self._lock:
            if self._used + count > self._limit:
                why = f"expected at most {self._limit} bytes of temporary files (--tmp-limit), found more"
                raise SourceError(f"{what}: {why}", code=ErrorCode.LIMIT_EXCEEDED)
            self._used += count
            self._unseen += count
            is_due = self._unseen >= _LOOK_BYTES
            if is_due:
                self._unseen = 0
            return is_due

    def give_back(self, count: int) -> None:
        """So many bytes fewer."""
        with self._lock:
            self._used -= count


class TemporaryFile:
    """One file, filled from its beginning by one thread. `descriptor` is open until `close`."""

    def __init__(self, descriptor: int, space: TemporarySpace) -> None:
        self.descriptor = descriptor
        self._space = space
        self._size = 0

    def write(self, part: memoryview, what: str = "temporary file") -> None:
        """Append `part`. Raises SourceError (limit-exceeded, storage-full), naming `what` is written."""
        is_due = self._space.take(len(part), what) or not self._size
        self._size += len(part)
        with refused(f"{what}: writing the temporary file below --tmpdir"):
            if is_due:
                self._require_room(what)
            while part:
                part = part[os.write(self.descriptor, part) :]

    def close(self) -> None:
        """Free the file; safe to call twice."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
            self._space.give_back(self._size)

    def _require_room(self, what: str) -> None:
        with suppress(OSError):  # ENOSYS: a file system that does not say
            found = os.fstatvfs(self.descriptor)
            if found.f_blocks and found.f_bavail * found.f_frsize < RESERVE + _LOOK_BYTES:
                why = f"no room below --tmpdir but the last {RESERVE >> 20} MiB, which are left to others"
                raise SourceError(f"{what}: {why}", code=ErrorCode.STORAGE_FULL)

# SPDX-License-Identifier: Apache-2.0
"""Temporary files without a name, shared by everything in the process that needs the same content."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable

from ...errors import SourceError, quote
from ..fileblob import reason, writing_fault


class Spools:
    """The unlinked files of one process below `directory`; each is filled once and freed when nobody uses it."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._files: dict[Hashable, _SharedFile] = {}

    def open(self, key: Hashable, fill: Callable[[int], None]) -> SpooledFile:
        """The file that `key` stands for; the caller closes it.

        The first one makes it and lets `fill` write to its descriptor; others wait meanwhile. When `fill` raises,
        nothing is kept. Raises SourceError when no file can be made.
        """
        with self._lock:
            shared = self._files.get(key)
            if shared is None:
                descriptor = self._make()
                try:
                    fill(descriptor)
                except BaseException:
                    os.close(descriptor)
                    raise
                shared = self._files[key] = _SharedFile(descriptor)
            shared.users += 1
            return SpooledFile(shared.descriptor, lambda: self._release(key))

    def _release(self, key: Hashable) -> None:
        with self._lock:
            shared = self._files[key]
            shared.users -= 1
            if not shared.users:
                del self._files[key]
                os.close(shared.descriptor)

    def _make(self) -> int:
        from tempfile import TemporaryFile

        try:
            # O_TMPFILE where the file system has it, otherwise a file that is unlinked at once.
            with TemporaryFile(dir=self._directory, buffering=0) as file:
                return os.dup(file.fileno())
        except OSError as error:
            raise writing_fault(error, f"temporary file in {quote(self._directory)} (--tmpdir)") from error


class _SharedFile:
    """One file and how many use it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.users = 0


class SpooledFile:
    """One use of a temporary file. `descriptor` is open until `close`."""

    def __init__(self, descriptor: int, release: Callable[[], None]) -> None:
        self.descriptor = descriptor
        self._release = release
        self._closed = False

    def duplicate(self) -> int:
        """A descriptor of the same file, for the caller to close. Raises SourceError."""
        try:
            return os.dup(self.descriptor)
        except OSError as error:
            raise SourceError(f"temporary file: {reason(error)}") from error

    def close(self) -> None:
        """Let go of the file; safe to call twice."""
        if not self._closed:
            self._closed = True
            self._release()

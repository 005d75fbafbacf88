# SPDX-License-Identifier: Apache-2.0
"""Temporary files without a name, shared by everything in the process that needs the same content."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from ...content import Reader, require_time, undo_on_error
from ...errors import refused
from ...settings import Settings
from ...temporary import TemporaryFile, TemporarySpace
from .compression import Compression, unpack

if TYPE_CHECKING:
    from ...programs import Programs

_LOOK = 0.1  # seconds after which a wait for another one looks whether there is time left


class Spools:
    """The temporary files of one process in `space`; each is filled once and freed when nobody uses it.

    Whoever reads other compressions than gzip, whose decoders may take 100 MiB each, is `streaming` alone.
    """

    def __init__(self, space: TemporarySpace, programs: Programs) -> None:
        self.space = space
        self.streaming = threading.Lock()
        self._programs = programs  # that unpack what nothing here does
        self._unpacking = threading.Lock()
        self._lock = threading.Lock()
        self._files: dict[Hashable, _SharedFile] = {}

    def open(self, key: Hashable, fill: Callable[[TemporaryFile], None]) -> SpooledFile:
        """The file that `key` stands for; the caller closes it.

        The first one makes it and lets `fill` write it; others of this key wait meanwhile, and nobody else does. When
        `fill` raises, nothing is kept. Raises SourceError when no file can be made.
        """
        with self._lock:
            shared = self._files.setdefault(key, _SharedFile())
            shared.users += 1
        release = partial(self._release, key, shared)
        with undo_on_error(release), turn(shared.filling):
            if shared.file is None:
                shared.file = self._filled(fill)
            return SpooledFile(shared.file.descriptor, release)

    def unpack(self, key: Hashable, source: Reader, compression: Compression, what: str) -> SpooledFile:
        """The same with the uncompressed content of `source`, one at a time. Raises as `compression.unpack`, too."""

        def fill(output: TemporaryFile) -> None:
            with turn(self._unpacking):
                unpack(source, compression, output, what, self._programs)

        return self.open(key, fill)

    def _filled(self, fill: Callable[[TemporaryFile], None]) -> TemporaryFile:
        file = self.space.make()
        with undo_on_error(file.close):
            fill(file)
        return file

    def _release(self, key: Hashable, shared: _SharedFile) -> None:
        with self._lock:
            shared.users -= 1
            if shared.users:
                return
            del self._files[key]
        if shared.file is not None:
            shared.file.close()


def open_spools(settings: Settings, programs: Programs) -> Spools:
    """Those of a process with these settings, in `--tmpdir`."""
    return Spools(TemporarySpace(settings.tmpdir, settings.tmp_limit), programs)


@contextmanager
def turn(lock: threading.Lock) -> Iterator[None]:
    """Hold `lock`, which whoever has it may have for long. Raises what `require_time` raises meanwhile."""
    while not lock.acquire(timeout=_LOOK):
        require_time()
    try:
        yield
    finally:
        lock.release()


class _SharedFile:
    """One file, None until it is filled, and how many use it or wait for it."""

    def __init__(self) -> None:
        self.file: TemporaryFile | None = None
        self.filling = threading.Lock()
        self.users = 0


class SpooledFile:
    """One use of a temporary file. `descriptor` is open until `close`."""

    def __init__(self, descriptor: int, release: Callable[[], None]) -> None:
        self.descriptor = descriptor
        self._release = release
        self._closed = False

    def duplicate(self) -> int:
        """A descriptor of the same file, for the caller to close. Raises SourceError."""
        with refused("temporary file"):
            return os.dup(self.descriptor)

    def close(self) -> None:
        """Let go of the file; safe to call twice."""
        if not self._closed:
            self._closed = True
            self._release()

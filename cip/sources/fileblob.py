# SPDX-License-Identifier: Apache-2.0
"""A blob that is a range of an open file."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

from ..content import MANIFEST_LIMIT, OnePlace, read_limited, require_time, undo_on_error
from ..errors import ContentMismatchError, ErrorCode, NotFoundError, Phase, SourceError
from ..model.descriptor import Digest


class FileBlob(OnePlace):
    """The `size` bytes from `start` of an open file; owns `descriptor`. `what` names the blob in messages.

    Reading is positional, so descriptors of one open file may be read side by side. A file that became shorter
    ends early, which the copy of the blob reports.
    """

    def __init__(self, descriptor: int, start: int, size: int, what: str) -> None:
        self._descriptor: int | None = descriptor
        self._start = self._position = start
        self._end = start + size
        self.size = size
        self._what = what
        self._lock = threading.Lock()  # a number closed by another thread may already be another file's

    def readinto(self, buffer: memoryview, /) -> int:
        """The next bytes. Raises SourceError."""
        wanted = min(len(buffer), self._end - self._position)
        if wanted <= 0:
            return 0
        require_time()
        with self._lock:
            if self._descriptor is None:
                raise SourceError(f"{self._what}: closed while it was read", code=ErrorCode.INTERNAL)
            try:
                count = os.preadv(self._descriptor, [buffer[:wanted]], self._position)
            except OSError as error:
                raise SourceError(f"{self._what}: {reason(error)}") from error
        self._position += count
        return count

    def rewind(self) -> None:
        """Go back to the first byte."""
        self._position = self._start

    def blame(self, error: ContentMismatchError) -> ContentMismatchError:
        """Name the file."""
        return error.served_by(self._what)

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None


def whole_file(descriptor: int, what: str) -> FileBlob:
    """The blob that is all of an open file; takes `descriptor` over."""
    with refused(what), undo_on_error(partial(os.close, descriptor)):
        size = os.fstat(descriptor).st_size
    return FileBlob(descriptor, 0, size, what)


def read_document(descriptor: int, what: str, limit: int = MANIFEST_LIMIT) -> bytes:
    """All of an open file, which is closed. Raises SourceError, InvalidDocumentError (limit-exceeded)."""
    with closing(whole_file(descriptor, what)) as blob:
        return read_limited(blob, limit, what)


def reason(error: OSError) -> str:
    """Why the system refused, in lower case."""
    return (error.strerror or "cannot be read").lower()


@contextmanager
def refused(
    what: str, missing: ErrorCode | None = None, *, digest: Digest | None = None, phase: Phase | None = None
) -> Iterator[None]:
    """Make a typed error of what the system refuses; a file that is not there has the code `missing`, if given."""
    named = str(digest) if digest is not None else None
    try:
        yield
    except OSError as error:
        if missing is not None and isinstance(error, FileNotFoundError):
            raise NotFoundError(f"{what}: no such file", code=missing, digest=named, phase=phase) from error
        raise SourceError(f"{what}: {reason(error)}", digest=named, phase=phase) from error

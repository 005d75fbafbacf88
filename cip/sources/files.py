# SPDX-License-Identifier: Apache-2.0
"""Files of local sources: the path of a reference, regular files that no name and no link leads out of, blobs in them.

The path in a reference is resolved once: what policy looks up is what is opened. The walk beneath it opens one element
after the other relative to the directory before it, never through the kernel's own path lookup, so a directory that is
exchanged for a link meanwhile changes nothing. Only a regular file is ever opened: a pipe would block, and a device may
act on being opened. A blob is a range of an open file.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import closing
from enum import StrEnum
from functools import partial

from ..content import MANIFEST_LIMIT, OnePlace, read_limited, require_time, undo_on_error
from ..errors import ErrorCode, InvalidReferenceError, Phase, SourceError, quote_own, refused, system_reason
from ..model.reference import ImageReference

LINK_LIMIT = 40  # links followed in one lookup, as many as the kernel's


class Escape(StrEnum):
    """What happens to `..` above the directory and to absolute links: an error, or they start at the directory."""

    REFUSED = "refused"
    CONFINED = "confined"


class Tree:
    """A directory whose files are opened; owns `descriptor`. Several threads may open files at once."""

    def __init__(self, descriptor: int, escape: Escape = Escape.REFUSED) -> None:
        self._root = descriptor
        self._escape = escape
        self._closed = False

    @classmethod
    def at(cls, path: str | bytes, escape: Escape = Escape.REFUSED) -> Tree:
        """The tree below `path`, whose last element must not be a link. Raises OSError."""
        return cls(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW), escape)

    def open_file(self, path: bytes) -> int:
        """A descriptor of the regular file at `path`, for the caller to close.

        Raises OSError: EXDEV when the way leads out, EINVAL when the end is not a regular file, ELOOP, ENOENT, ...
        """
        with _Walk(self._root, path, self._escape) as walk:
            return walk.open_file()

    def open_directory(self, path: bytes) -> int:
        """A descriptor of the directory at `path`, for the caller to close. Raises OSError as `open_file`."""
        with _Walk(self._root, path, self._escape) as walk:
            return walk.open_directory()

    def close(self) -> None:
        """Release the directory; files opened before stay open."""
        if not self._closed:
            self._closed = True
            os.close(self._root)


def open_regular(name: bytes, directory: int | None = None) -> int:
    """A descriptor of the regular file `name`, whose last element is not a link, in `directory`. Raises OSError."""
    if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    # A pipe that took its place meanwhile must not block us.
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return descriptor


class _Walk:
    """One lookup. The directories on the way stay open, so that `..` goes back the way that was come."""

    def __init__(self, root: int, path: bytes, escape: Escape) -> None:
        self._root = root
        self._escape = escape
        self._way: list[int] = []
        self._pending = path.split(b"/")[::-1]
        self._links = 0

    def __enter__(self) -> _Walk:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._way:
            os.close(descriptor)

    def open_file(self) -> int:
        while True:
            name = self._step_to_last()
            if name is None:
                raise OSError(errno.EISDIR, "not a regular file")
            try:
                return open_regular(name, self._here())
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ELOOP) or not self._follow(name):
                    raise

    def open_directory(self) -> int:
        name = self._step_to_last()
        while name is not None:
            self._enter(name)
            name = self._step_to_last()
        return os.open(".", os.O_PATH | os.O_DIRECTORY, dir_fd=self._here())

    def _here(self) -> int:
        return self._way[-1] if self._way else self._root

    def _step_to_last(self) -> bytes | None:
        """Enter every directory but the last element, which is returned; None when the way ends at a directory."""
        while self._pending:
            name = self._pending.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                if self._way:
                    os.close(self._way.pop())
                elif self._escape is Escape.REFUSED:
                    raise OSError(errno.EXDEV, "the way leads out of the directory")
                continue
            if not any(rest not in (b"", b".") for rest in self._pending):
                return name
            self._enter(name)
        return None

    def _enter(self, name: bytes) -> None:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
        try:
            self._way.append(os.open(name, flags, dir_fd=self._here()))
        except NotADirectoryError:  # ENOTDIR: a link, or something that is no directory at all
            if not self._follow(name):
                raise

    def _follow(self, name: bytes) -> bool:
        """Put the target of the link `name` in front of the way still to go; False when it is not a link."""
        try:
            target = os.readlink(name, dir_fd=self._here())
        except OSError as error:
            if error.errno == errno.EINVAL:
                return False
            raise
        self._links += 1
        if self._links > LINK_LIMIT:
            raise OSError(errno.ELOOP, f"more than {LINK_LIMIT} links")
        if target.startswith(b"/"):
            if self._escape is Escape.REFUSED:
                raise OSError(errno.EXDEV, "a link leads out of the directory")
            while self._way:
                os.close(self._way.pop())
        self._pending.extend(target.split(b"/")[::-1])
        return True


def resolve_path(reference: ImageReference) -> str:
    """The absolute, link-free path of `reference`; an empty one is the current directory.

    Links are followed element by element, so `link/..` is the parent of what the link names and not the directory
    that the link lies in (signatures.md 1.3, "STRICTER"). All parents must exist, the last element may be missing
    unless it is a dangling link (images.md 2.3). Raises SourceError, InvalidReferenceError for what names no file.
    """
    path = reference.path or "."
    try:
        try:
            return os.path.realpath(path, strict=True)
        except FileNotFoundError:
            parent, name = os.path.split(path.rstrip("/"))
            if name in ("", ".", "..") or os.path.lexists(os.path.join(parent, name)):
                raise
            resolved = os.path.realpath(parent or ".", strict=True)
            if not os.path.isdir(resolved):
                raise
            return os.path.join(resolved, name)
    except UnicodeEncodeError as error:
        raise InvalidReferenceError(reference.text, "the path has no form in the file system's encoding") from error
    except OSError as error:
        where = quote_own(os.fsdecode(error.filename or path))
        raise SourceError(f"{reference.text}: {where}: {system_reason(error)}", phase=Phase.MANIFEST) from error


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
            with refused(self._what):
                count = os.preadv(self._descriptor, [buffer[:wanted]], self._position)
        self._position += count
        return count

    def rewind(self, position: int = 0) -> None:
        """Go back to the first byte, or to the one at `position`."""
        self._position = self._start + position

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

# SPDX-License-Identifier: Apache-2.0
"""What fills the pipe of a blob: the work of GetBlob and GetRawBlob (wire.md sections 4, 5).

An image stays open while the parent or a transfer needs it, whichever lets go last.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from ...content import BlobAccess, BlobReader, Release, copy_counted, copy_verified
from ...errors import CipError, ContentMismatchError, Phase
from ...model.descriptor import UNKNOWN_SIZE, Descriptor
from ...model.digest import Digest
from .pipes import Cancel, Job, Write

T = TypeVar("T")


class ServedManifest(Protocol):
    """What GetManifest tells: the bytes in OCI form, the digest before conversion."""

    @property
    def data(self) -> bytes: ...

    @property
    def digest(self) -> Digest: ...


class ServedImage(Protocol):
    """What the JSON front end needs of `image.Image`."""

    @property
    def manifest(self) -> ServedManifest: ...

    def config(self) -> bytes: ...

    def inner_config(self) -> bytes: ...

    def layers(self) -> tuple[Descriptor, ...]: ...

    def knows_blob(self, digest: Digest, /) -> bool: ...

    def describe_blob(self, digest: Digest, /) -> Descriptor: ...

    def open_blob(self, digest: Digest, access: BlobAccess, /) -> BlobReader: ...

    def close(self) -> None: ...


class Handle:
    """An image that the parent has open; closed when it and every transfer have let go of it."""

    def __init__(self, image: ServedImage) -> None:
        self.image = image
        self._lock = threading.Lock()
        self._users = 1

    def retain(self) -> None:
        """One more transfer needs the image."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """The parent, or a transfer, does not need the image any more."""
        with self._lock:
            self._users -= 1
            unused = not self._users
        if unused:
            self.image.close()


class Work:
    """What the worker of a blob does. From `begin` until it ends the image stays open."""

    def __init__(
        self, handle: Handle, expected: Descriptor, access: BlobAccess, copy: Callable[[BlobReader, Write], object]
    ) -> None:
        self._handle = handle
        self._expected = expected
        self._access = access
        self._copy = copy
        self._reader: BlobReader | None = None
        self._cancelled = False

    def begin(self, feed: Callable[[Job, int, Cancel, str], T]) -> T:
        """Start the worker that fills the pipe of `feed`. Raises CipError when there can be none."""
        self._handle.retain()
        try:
            return feed(self._run, self._expected.size, self._cancel, str(self._expected.digest))
        except CipError:
            self._handle.release()
            raise

    def _run(self, write: Write) -> None:
        try:
            self._reader = reader = self._handle.image.open_blob(self._expected.digest, self._access)
            try:
                if not self._cancelled:
                    self._copy(reader, write)
            finally:
                self._reader = None
                reader.close()
        except CipError as error:
            error.digest = error.digest or str(self._expected.digest)
            error.phase = error.phase or Phase.BLOB
            raise
        finally:
            self._handle.release()

    def _cancel(self) -> None:
        self._cancelled = True  # first: whoever has no reader yet looks at it
        reader = self._reader
        if reader is not None:
            reader.close()


def verified_work(handle: Handle, expected: Descriptor, asked: int) -> Work:
    """The work of GetBlob: the blob `expected` of `handle`, for a parent that asked for `asked` bytes."""
    return Work(handle, expected, BlobAccess.VERIFIED, partial(_copy_blob, expected=expected, asked=asked))


def raw_work(handle: Handle, expected: Descriptor) -> Work:
    """The work of GetRawBlob: the blob `expected` of `handle`, which its parent judges."""
    return Work(handle, expected, BlobAccess.RAW, partial(_copy_raw_blob, expected=expected))


def _copy_blob(reader: BlobReader, write: Write, *, expected: Descriptor, asked: int) -> None:
    """Copy with a verdict; the size that the parent asked for is judged last, so a wrong digest is told first."""
    received = copy_verified(reader, write, expected, release=Release.AS_READ)
    if received != asked:
        raise ContentMismatchError(
            f"blob {expected.digest}: expected {asked} bytes as requested, found {received}", offset=received
        )


def _copy_raw_blob(reader: BlobReader, write: Write, *, expected: Descriptor) -> None:
    size = reader.size if expected.size == UNKNOWN_SIZE else expected.size
    copy_counted(reader, write, size, f"blob {expected.digest}")

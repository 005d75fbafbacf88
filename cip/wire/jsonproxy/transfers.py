# SPDX-License-Identifier: Apache-2.0
"""What fills the pipe of a blob: the work of GetBlob and GetRawBlob (wire.md sections 4, 5).

An image stays open while the parent or a transfer needs it, whichever lets go last. However many transfers wait for
their readers, their buffers together stay small: only the first WIDE of them read large pieces.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...content import (
    CHUNK,
    WAITS,
    BlobAccess,
    BlobReader,
    Reader,
    Release,
    buffer_size,
    copy_verified,
    new_buffer,
    timed,
)
from ...errors import CipError, ContentMismatchError, ErrorCode, Phase, SourceError, failing
from ...model.descriptor import UNKNOWN_SIZE, Descriptor
from .pipes import Cancel, Job, Opened, Transfer, Write
from .waits import Silence, Told

if TYPE_CHECKING:
    from ...image import Image

WIDE = 8  # transfers at once that read CHUNK bytes at a time, and hash in a thread of their own
_LEAN_FROM = 64  # transfers at once from which on the others read _LEAN_CHUNK
_LEAN_CHUNK = 16 * 1024
_NARROW_CHUNK = 64 * 1024


class Handle:
    """An image that the parent has open; closed when it and every transfer have let go of it."""

    def __init__(self, image: Image) -> None:
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


class Share:
    """What the transfers of one conversation share: how much each may read at once; which hosts are silent."""

    def __init__(self) -> None:
        self.waits = Told(lambda: None, Silence())  # of a thread that owes no answer
        self._lock = threading.Lock()
        self._wide = 0
        self._running = 0

    def take(self) -> int:
        """The number of bytes for one more; the caller owes `give_back`."""
        with self._lock:
            self._running += 1
            if self._wide < WIDE:
                self._wide += 1
                return CHUNK
            return _NARROW_CHUNK if self._running <= _LEAN_FROM else _LEAN_CHUNK

    def give_back(self, chunk: int) -> None:
        """One fewer."""
        with self._lock:
            self._running -= 1
            self._wide -= chunk == CHUNK


class Work:
    """What the worker of a blob does. From `begin` until it ends the image stays open.

    `asked` is the size that GetBlob asks for; None is GetRawBlob, whose parent judges the blob.
    """

    def __init__(self, handle: Handle, expected: Descriptor, share: Share, asked: int | None) -> None:
        self._handle = handle
        self._expected = expected
        self._share = share
        self._asked = asked
        self._reader: BlobReader | None = None
        self._cancelled = False

    def begin(self, feed: Callable[[Job, int, Cancel, str], Opened]) -> Opened:
        """Start the worker that fills the pipe of `feed`. Raises CipError when there can be none."""
        self._handle.retain()
        try:
            return feed(self._run, self._expected.size, self._cancel, str(self._expected.digest))
        except CipError:
            self._handle.release()
            raise

    def _run(self, transfer: Transfer) -> None:
        access = BlobAccess.RAW if self._asked is None else BlobAccess.VERIFIED
        WAITS.set(self._share.waits.answering(transfer.answer))  # of this thread, which ends with the work

        def require() -> float:
            """What works long on local files, before there is a reader and behind it, asks between two steps."""
            if self._cancelled:
                raise SourceError(f"blob {self._expected.digest}: nobody waits for it", code=ErrorCode.INTERNAL)
            return math.inf

        try:
            with timed(require), failing(Phase.BLOB, self._expected.digest):
                self._reader = reader = self._handle.image.open_blob(self._expected.digest, access)
                chunk = self._share.take()
                try:
                    if not self._cancelled:
                        self._copy(reader, transfer.write, chunk)
                finally:
                    self._share.give_back(chunk)
                    self._reader = None
                    reader.close()
        finally:
            self._handle.release()

    def _cancel(self) -> None:
        self._cancelled = True  # first: whoever has no reader yet looks at it
        reader = self._reader
        if reader is not None:
            reader.close()

    def _copy(self, reader: BlobReader, write: Write, chunk: int) -> None:
        expected, what = self._expected, f"blob {self._expected.digest}"
        if self._asked is None:
            size = reader.size if expected.size == UNKNOWN_SIZE else expected.size
            copy_counted(reader, write, size, what, chunk=chunk)
            return
        received = copy_verified(reader, write, expected, release=Release.AS_READ, chunk=chunk)
        if received != self._asked:  # judged last, so that a wrong digest is told first
            why = f"{what}: expected {self._asked} bytes as requested, found {received}"
            raise ContentMismatchError(why, offset=received)


def copy_counted(reader: Reader, write: Write, size: int, what: str, *, chunk: int = CHUNK) -> int:
    """Copy exactly `size` bytes (UNKNOWN_SIZE: all there are) without a digest check, which is left to the receiver.

    Raises ContentMismatchError when the reader ends early or has more, its SourceError, and what `write` raises.
    """
    received = 0
    with new_buffer(buffer_size(chunk, size)) as buffer:
        while count := reader.readinto(buffer):
            received += count
            if size != UNKNOWN_SIZE and received > size:
                raise ContentMismatchError(f"{what}: expected {size} bytes, found more", offset=received)
            write(buffer[:count])
    if size not in (UNKNOWN_SIZE, received):
        raise ContentMismatchError(f"{what}: expected {size} bytes, found {received}", offset=received)
    return received

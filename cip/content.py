# SPDX-License-Identifier: Apache-2.0
"""The ways in which bytes pass through this program: whole and bounded, or verified.

`copy_verified` is where a blob's digest is checked. Its rule: the reader on the other side can never hold a
complete body that failed. With `Release.AFTER_VERIFICATION` nothing leaves before `WHOLE` bytes are here, and the last
`TAIL` bytes leave only once size and digest are proven; with `Release.AS_READ` the bytes leave at once, and the caller
carries the verdict on another channel.

A long stream is hashed in a thread of its own, while the next bytes are read and sent (`hashing`). Of the first
THREAD_FROM bytes the caller hashes all: a thread for each of many layers would cost more than it saves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from enum import StrEnum
from threading import Thread
from typing import TYPE_CHECKING, Protocol

from . import rooms
from .errors import CipError, ContentMismatchError, ErrorCode, InvalidDocumentError, SourceError
from .model.descriptor import MANIFEST_LIMIT as MANIFEST_LIMIT
from .model.descriptor import UNKNOWN_SIZE, Descriptor, Digest

if TYPE_CHECKING:
    from .hashing import HashingThread

THREAD_FROM = 2 * 1024 * 1024  # bytes of a stream
_MAPPED_FROM = 128 * 1024  # bytes; of larger pieces that are freed once, malloc keeps some for each thread from then on
CHUNK = 768 * 1024  # bytes read at once; more than WHOLE, so that no buffer is full before any of it may leave
TAIL = 64 * 1024  # bytes held back until the digest matched
WHOLE = 256 * 1024  # bytes; blobs up to this are verified before their first byte leaves


def new_buffer(size: int) -> memoryview:
    """`size` bytes to fill; a large buffer's memory is the system's again as soon as nobody uses it."""
    if size < _MAPPED_FROM:
        return memoryview(bytearray(size))
    import mmap  # for blobs only

    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class Hashing:
    """The digest of one stream that goes through one buffer. One thread calls it.

    Once THREAD_FROM bytes have been hashed another thread does it, and the stream goes through two buffers in turn;
    not for what hashes `alone`, and not where there can be no thread.
    """

    def __init__(self, digest: Digest, *, alone: bool = False) -> None:
        self._hasher = digest.hasher()
        self._hashed = 0  # bytes
        self._alone = alone
        self._thread: HashingThread | None = None

    def update(self, part: memoryview) -> None:
        """The next bytes, a part of the buffer that is being filled."""
        if self._thread is None:
            self._hash(part)
        else:
            self._thread.hash(part)

    def next_buffer(self, buffer: memoryview) -> memoryview:
        """What to fill behind `buffer`, all of which was passed on; `buffer` itself where nothing reads it any more."""
        if self._thread is None and self._hashed >= THREAD_FROM and not self._alone:
            self._thread = rooms.start_hashing(self._hash, new_buffer(len(buffer)))
            self._alone = self._thread is None
        return buffer if self._thread is None else self._thread.exchange(buffer)

    def hexdigest(self, received: int) -> str:
        """The digest of all parts, which the caller says are `received` bytes; nothing may follow."""
        self.end()
        if self._hashed != received:
            raise RuntimeError(f"of {received} bytes {self._hashed} were hashed")  # a thread that died, never a verdict
        return self._hasher.hexdigest()

    def end(self) -> None:
        """End the thread."""
        thread, self._thread = self._thread, None  # it knows us: a cycle would keep the buffers until it is looked for
        if thread is not None:
            thread.end()

    def _hash(self, part: memoryview) -> None:
        self._hasher.update(part)
        self._hashed += len(part)


class Reader(Protocol):
    """A stream of bytes."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the front of `buffer`; the number of bytes, 0 only at the end. Raises SourceError."""
        ...


class BlobReader(Reader, Protocol):
    """An open blob. Nothing it returns has been checked; `size` is what the source states, or UNKNOWN_SIZE."""

    @property
    def size(self) -> int:
        """Bytes in the whole blob as the source states it."""
        ...

    def blame(self, error: ContentMismatchError) -> ContentMismatchError:
        """Told that what was read is wrong: `error`, or the same with the places that served it."""
        ...

    def restart(self, error: ContentMismatchError) -> bool:
        """Called where nothing has been passed on: exclude every place that served a byte.

        True when reading begins again at offset 0 from another place, False when there is none.
        """
        ...

    def close(self) -> None:
        """Release what the reader holds; safe to call twice and from another thread."""
        ...


class Release(StrEnum):
    """When copied bytes may leave."""

    AFTER_VERIFICATION = "after-verification"
    AS_READ = "as-read"


class BlobAccess(StrEnum):
    """What may become of a blob: checked here (so it may continue at another place), or left to the parent (never)."""

    VERIFIED = "verified"
    RAW = "raw"


Write = Callable[[memoryview], object]


class Waits:
    """Told what the thread that reads a blob waits for; this one owes its parent no answer meanwhile."""

    def begin(self) -> None:
        """It waits for what is no answer of its source: its share of the per-host limit, or a layer on its way."""

    def asking(self, host: str) -> AbstractContextManager[None]:
        """Around a request to `host`, which may be silent."""
        return nullcontext()

    def beside(self) -> Waits:
        """The same of a thread that reads for nobody yet."""
        return self


WAITS: ContextVar[Waits] = ContextVar("WAITS", default=Waits())  # noqa: B039  (it holds nothing)


# Set around what is done for one request: the seconds left, or SourceError (timeout) once its time is over. Whoever
# works on local files or with other programs, which nothing else limits, asks between two steps.
REQUIRE_TIME: ContextVar[Callable[[], float]] = ContextVar("REQUIRE_TIME", default=lambda: math.inf)


def require_time() -> float:
    """The seconds left of what this is done for, inf where nothing limits it. Raises SourceError (timeout)."""
    return REQUIRE_TIME.get()()


def start_thread(run: Callable[[], object], name: str) -> Thread:
    """Run something in a thread of its own. It is a daemon: nothing may keep a process that was told to stop.

    Raises CipError (limit-exceeded).
    """
    waits = WAITS.get().beside()

    def work() -> None:
        WAITS.set(waits)
        run()

    thread = Thread(target=work, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # EAGAIN: the limit on processes, or no memory for a stack
        raise CipError(f"cannot start a thread: {error}", code=ErrorCode.LIMIT_EXCEEDED) from error
    return thread


def start_timer(seconds: float, option: str) -> Callable[[], float]:
    """The seconds left, SourceError when there are none: a registry or an archive may have very much to look at."""
    ends = time.monotonic() + seconds

    def require_time() -> float:
        left = ends - time.monotonic()
        if left <= 0:
            raise SourceError(f"not done within the {seconds:g} s of {option}", code=ErrorCode.TIMEOUT)
        return left

    return require_time


@contextmanager
def timed(require: Callable[[], float]) -> Iterator[None]:
    """Have `require_time` ask `require` as well, in this thread."""
    outer = REQUIRE_TIME.get()
    token = REQUIRE_TIME.set(lambda: min(outer(), require()))
    try:
        yield
    finally:
        REQUIRE_TIME.reset(token)


@contextmanager
def undo_on_error(undo: Callable[[], object]) -> Iterator[None]:
    """Call `undo` when the block raises, whatever that is: who would have owned what was opened does not get it."""
    try:
        yield
    except BaseException:
        undo()
        raise


def read_limited(reader: Reader, limit: int, what: str) -> bytes:
    """Everything `reader` has, at most `limit` bytes. Raises InvalidDocumentError (limit-exceeded) naming `what`."""
    data = bytearray(min(limit + 1, CHUNK))
    filled = 0
    while True:
        if filled == len(data):
            if filled > limit:
                raise InvalidDocumentError(what, f"larger than {limit} bytes", code=ErrorCode.LIMIT_EXCEEDED)
            data.extend(bytes(min(len(data), limit + 1 - filled)))
        with memoryview(data) as view:
            count = reader.readinto(view[filled:])
        if not count:
            return bytes(memoryview(data)[:filled])
        filled += count


def require_content(data: bytes, digest: Digest, what: str) -> None:
    """Return only if `data` has `digest`. Raises ContentMismatchError."""
    hasher = digest.hasher()
    hasher.update(data)
    if hasher.hexdigest() != digest.encoded:
        why = f"{what}: expected digest {digest}, found {digest.algorithm}:{hasher.hexdigest()}"
        raise ContentMismatchError(why, digest=str(digest))


def copy_verified(
    reader: BlobReader,
    write: Write,
    expected: Descriptor,
    *,
    release: Release,
    chunk: int = CHUNK,
    take_back: Callable[[], object] | None = None,
) -> int:
    """Copy the blob `expected` from `reader` to `write`, `chunk` bytes at once; the number of bytes.

    An `expected.size` of UNKNOWN_SIZE takes whatever length has the digest. With `take_back`, which undoes all writes,
    every place of the reader may be tried, however much was written. Raises ContentMismatchError for a wrong size or
    digest, `reader`'s SourceError, and whatever `write` raises. One byte too many releases nothing more.
    """
    while True:
        copy = _VerifiedCopy(reader, write, expected, release, chunk)
        try:
            return copy.run()
        except ContentMismatchError as error:
            if (copy.released and take_back is None) or not reader.restart(error):
                raise
            if take_back is not None:
                take_back()


class _VerifiedCopy:
    """One pass over the reader. `released` counts the bytes that have left."""

    def __init__(self, reader: BlobReader, write: Write, expected: Descriptor, release: Release, chunk: int) -> None:
        self._reader = reader
        self._chunk = chunk
        self._write = write
        self._expected = expected
        held = release is Release.AFTER_VERIFICATION
        self._whole, self._tail = (WHOLE, TAIL) if held else (0, 0)
        self.released = 0

    def run(self) -> int:
        # the descriptor decides: a place that states another size is a bad one before its first byte
        if UNKNOWN_SIZE not in (self._expected.size, self._reader.size) and self._reader.size != self._expected.size:
            raise self._mismatch(f"expected {self._expected.size} bytes, the source states {self._reader.size}", 0)
        hashing = Hashing(self._expected.digest, alone=self._chunk < CHUNK)
        try:
            return self._run(hashing, new_buffer(buffer_size(self._chunk, self._expected.size)))
        finally:
            hashing.end()

    def _run(self, hashing: Hashing, buffer: memoryview) -> int:
        """All but the last `_tail` bytes leave as they come; a new buffer begins with those of the one before."""
        received = filled = left = 0  # `left` counts the bytes of this buffer that have left
        while True:
            if filled == len(buffer):
                full, buffer = buffer, hashing.next_buffer(buffer)
                buffer[: self._tail] = full[filled - self._tail :]
                filled, left = self._tail, 0
            count = self._reader.readinto(buffer[filled:])
            if not count:
                break
            received += count
            self._require_no_more_than_expected(received)
            hashing.update(buffer[filled : filled + count])
            filled += count
            if received > self._whole and filled - self._tail > left:
                self._release(buffer[left : filled - self._tail])
                left = filled - self._tail
        self._require_match(received, hashing.hexdigest(received))
        self._release(buffer[left:filled])
        return received

    def _release(self, part: memoryview) -> None:
        if len(part):
            self.released += len(part)  # before the write: a write that fails half-way has let bytes out
            self._write(part)

    def _require_no_more_than_expected(self, received: int) -> None:
        if self._expected.size != UNKNOWN_SIZE and received > self._expected.size:
            raise self._mismatch(f"expected {self._expected.size} bytes, found more", received)

    def _require_match(self, received: int, found: str) -> None:
        if self._expected.size not in (UNKNOWN_SIZE, received):
            raise self._mismatch(f"expected {self._expected.size} bytes, found {received}", received)
        digest = self._expected.digest
        if found != digest.encoded:
            raise self._mismatch(f"expected digest {digest}, found {digest.algorithm}:{found}", received)

    def _mismatch(self, why: str, received: int) -> ContentMismatchError:
        digest = str(self._expected.digest)
        return self._reader.blame(ContentMismatchError(f"blob {digest}: {why}", digest=digest, offset=received))


def buffer_size(chunk: int, size: int) -> int:
    """Bytes of a buffer for a blob of `size` bytes: one more than there may be shows that there are too many."""
    return chunk if size == UNKNOWN_SIZE else min(chunk, size + 1)


class TimedReader:
    """A blob that ends with an error once `require` raises one, between two reads or within one of a local file."""

    def __init__(self, reader: BlobReader, require: Callable[[], float]) -> None:
        self._reader = reader
        self._require = require
        self.blame = reader.blame
        self.restart = reader.restart
        self.close = reader.close

    @property
    def size(self) -> int:
        """Bytes in the whole blob as the source states it."""
        return self._reader.size

    def readinto(self, buffer: memoryview, /) -> int:
        """The next bytes. Raises SourceError (timeout)."""
        with timed(self._require):
            require_time()
            return self._reader.readinto(buffer)


class OnePlace:
    """What the reader of a blob answers that is in one place only, which `_what` names if nothing else does."""

    _what = ""

    def blame(self, error: ContentMismatchError) -> ContentMismatchError:
        """`error`, with the place."""
        return error.served_by(self._what) if self._what else error

    def restart(self, error: ContentMismatchError) -> bool:
        """There is no other place."""
        return False


class BytesReader(OnePlace):
    """A blob that is in memory already, such as a converted config."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = memoryview(data)
        self._position = 0

    def readinto(self, buffer: memoryview, /) -> int:
        """The next bytes."""
        part = self._data[self._position : self._position + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def close(self) -> None:
        """Nothing to release."""


def read_blob(reader: BlobReader, expected: Descriptor, limit: int, what: str) -> bytes:
    """A small blob in memory, verified. Raises ContentMismatchError, InvalidDocumentError (limit-exceeded)."""
    if expected.size > limit:
        raise InvalidDocumentError(what, f"larger than {limit} bytes", code=ErrorCode.LIMIT_EXCEEDED)
    data = bytearray()

    def collect(part: memoryview) -> None:
        if len(data) + len(part) > limit:
            raise InvalidDocumentError(what, f"larger than {limit} bytes", code=ErrorCode.LIMIT_EXCEEDED)
        data.extend(part)

    copy_verified(reader, collect, expected, release=Release.AS_READ, take_back=data.clear)
    return bytes(data)

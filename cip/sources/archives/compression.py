# SPDX-License-Identifier: Apache-2.0
"""Recognises and undoes the compression of archives and of layers inside them (images.md section 10)."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from contextvars import copy_context
from enum import StrEnum
from functools import partial
from io import FileIO
from typing import TYPE_CHECKING, Any

from ...content import CHUNK, Reader, require_time, start_thread
from ...errors import CipError, ErrorCode, InvalidDocumentError, SourceError
from ...temporary import TemporaryFile

if TYPE_CHECKING:
    import bz2
    import lzma

    from ...programs import Programs

MAGIC_LENGTH = 8  # bytes that are enough to recognise a compression
INPUT = 64 * 1024  # bytes that are read at a time; each of many short streams copies what is left of them
SHORT, SHORT_LIMIT = 64, 1000  # bytes of a short stream, which costs its time and brings nothing; how many in a row
XZ_MEMORY_LIMIT = 96 * 1024 * 1024  # bytes; `xz -9` needs 65 MiB to be undone
ZSTD_WINDOW_LOG = 27  # the power of two of bytes that a frame may look back, as `programs` allows the zstd program
ZSTD_TIMEOUT = 3600.0  # seconds that the zstd program may take for one file


class Compression(StrEnum):
    """How a file is compressed; the value is the program's name."""

    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"
    ZSTD = "zstd"


_MAGIC = (
    (b"\x1f\x8b\x08", Compression.GZIP),
    (b"BZh", Compression.BZIP2),
    (b"\xfd7zXZ\0", Compression.XZ),
    (b"\x28\xb5\x2f\xfd", Compression.ZSTD),
)


def detect_compression(head: bytes | bytearray) -> Compression | None:
    """The compression of a file that starts with `head`, MAGIC_LENGTH bytes or all there are; None: uncompressed."""
    return next((compression for magic, compression in _MAGIC if head.startswith(magic)), None)


# a new stream, and the errors by which it complains about its input
_Codec = tuple["_ZlibStream | bz2.BZ2Decompressor | lzma.LZMADecompressor", tuple[type[Exception], ...]]


class DecompressingReader:
    """What `source` holds compressed; `what` names it in messages. Never more than two chunks in memory.

    Streams that follow each other are one, zero bytes between and behind them are padding, anything else there is
    damage. Raises InvalidDocumentError for damage, `source`'s SourceError.
    """

    def __init__(self, source: Reader, compression: Compression, what: str) -> None:
        self._source = source
        self._compression = compression
        self._what = what
        self._codec: _Codec | None = None
        self._pending = b""
        self._begun = False
        self._credit = SHORT_LIMIT * SHORT  # bytes that short streams may be too short

    def readinto(self, buffer: memoryview, /) -> int:
        """The next bytes of the uncompressed content."""
        if not len(buffer):  # the streams take 0 for "without limit"
            return 0
        while True:
            if self._codec is None:
                if not self._find_stream():
                    return 0
                self._codec = _codec(self._compression)
            require_time()
            stream, damage = self._codec
            if stream.needs_input and not self._pending:
                self._pending = self._read()
                if not self._pending:
                    raise InvalidDocumentError(self._what, f"{self._compression} data ends too early")
            try:
                part = stream.decompress(self._pending, len(buffer))
            except damage as error:
                raise InvalidDocumentError(self._what, f"damaged {self._compression} data: {error}") from error
            self._pending = b""
            if stream.eof:
                self._pending = stream.unused_data
                self._codec = None
                self._credit -= SHORT
                if self._credit < 0:
                    why = f"more than {SHORT_LIMIT} {self._compression} streams of fewer than {SHORT} bytes"
                    raise InvalidDocumentError(self._what, why, code=ErrorCode.LIMIT_EXCEEDED)
            if part:
                self._credit = min(self._credit + len(part), SHORT_LIMIT * SHORT)
                buffer[: len(part)] = part
                return len(part)

    def _find_stream(self) -> bool:
        """Whether another stream begins, behind padding."""
        while True:
            if self._begun:
                self._pending = self._pending.lstrip(b"\0")
            if self._pending:
                self._begun = True
                return True
            self._pending = self._read()
            if not self._pending:
                return False

    def _read(self) -> bytes:
        data = bytearray(INPUT)
        with memoryview(data) as view:
            count = self._source.readinto(view)
        return bytes(memoryview(data)[:count])


class _ZlibStream:
    """A gzip member with the interface of the other streams."""

    def __init__(self) -> None:
        import zlib

        self._inner = zlib.decompressobj(wbits=31)  # 31: a gzip header, checked to its trailer

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _codec(compression: Compression) -> _Codec:
    match compression:
        case Compression.GZIP:
            import zlib

            return _ZlibStream(), (zlib.error,)
        case Compression.BZIP2:
            import bz2

            return bz2.BZ2Decompressor(), (OSError, ValueError)
        case Compression.XZ:
            import lzma

            return lzma.LZMADecompressor(memlimit=XZ_MEMORY_LIMIT), (lzma.LZMAError,)
        case Compression.ZSTD:
            zstd = _zstd_library()
            assert zstd is not None  # the caller asked `streams`
            options = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
            return zstd.ZstdDecompressor(options=options), (zstd.ZstdError,)


def _zstd_library() -> Any:
    """`compression.zstd`, which Python has from 3.14 on; None before."""
    from importlib import import_module

    try:
        return import_module("compression.zstd")
    except ImportError:
        return None


def streams(compression: Compression) -> bool:
    """Whether DecompressingReader reads this compression here; else only `unpack` does, into a file."""
    return compression is not Compression.ZSTD or _zstd_library() is not None


def unpack(source: Reader, compression: Compression, output: TemporaryFile, what: str, programs: Programs) -> None:
    """Write the uncompressed content of `source` to `output`, an empty file.

    Raises InvalidDocumentError for damage, SourceError, MissingDependencyError when nothing here reads zstd.
    """
    if streams(compression):
        copy_to_file(DecompressingReader(source, compression, what), output, what)
    else:
        _unpack_by_program(source, output, what, programs)


def copy_to_file(reader: Reader, output: TemporaryFile, what: str) -> None:
    """Append all of `reader` to `output`. Raises SourceError, also for a full disk and over a limit."""
    read_through(reader, partial(output.write, what=what))


def read_through(reader: Reader, take: Callable[[memoryview], object]) -> int:
    """Have `take` take all that `reader` has, however much that is; the number of bytes. Raises SourceError."""
    size = 0
    with memoryview(bytearray(CHUNK)) as buffer:
        while count := reader.readinto(buffer):
            require_time()
            take(buffer[:count])
            size += count
    return size


def _unpack_by_program(source: Reader, output: TemporaryFile, what: str, programs: Programs) -> None:
    """Let `zstd` unpack, between two pipes: what it reads may be a part of a file, what it writes has limits."""
    inlet, feed = os.pipe()
    outlet, drain = os.pipe()

    def run() -> int:
        return programs.decompress(inlet, drain, min(ZSTD_TIMEOUT, require_time()), purpose=f"unpack {what}")

    feeder = _Work(lambda: _feed(source, feed), feed)
    runner = _Work(run, inlet, drain)
    with ExitStack() as stack:
        unpacked = FileIO(outlet)
        stack.callback(unpacked.close)
        for work in (feeder, runner):
            # each with the limit of what this is done for: what is unpacked may be nothing for as long as one likes
            try:
                stack.callback(start_thread(partial(copy_context().run, work.run), "zstd").join)
            except CipError as error:
                work.close()
                work.error = SourceError(f"{what}: {error}", code=error.code)
        stack.callback(unpacked.close)  # first: who writes to a pipe that nobody reads ends
        copy_to_file(unpacked, output, what)
    for fault in (feeder.error, runner.error):
        if fault is not None:
            raise fault
    if runner.outcome != 0:
        raise InvalidDocumentError(what, f"damaged zstd data: zstd ended with status {runner.outcome}")


class _Work:
    """What `do` returns or raises, in a thread of its own; behind it the descriptors `ends` are closed."""

    def __init__(self, do: Callable[[], int], *ends: int) -> None:
        self._do = do
        self._ends = ends
        self.outcome = 0
        self.error: CipError | None = None

    def run(self) -> None:
        try:
            self.outcome = self._do()
        except CipError as error:
            self.error = error
        finally:
            self.close()

    def close(self) -> None:
        for descriptor in self._ends:
            os.close(descriptor)


def _feed(source: Reader, outlet: int) -> int:
    """Copy a reader into a pipe until its end, an error, or nobody reads any more."""
    with suppress(BrokenPipeError), memoryview(bytearray(CHUNK)) as buffer:  # zstd has ended; its status says why
        while count := source.readinto(buffer):
            require_time()
            part = buffer[:count]
            while part:
                part = part[os.write(outlet, part) :]
    return 0

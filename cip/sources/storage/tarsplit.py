# SPDX-License-Identifier: Apache-2.0
"""Rebuilds a layer's tar from its files and the recipe that tar-split kept of it (images.md 4.5).

The recipe has one JSON object a line: type 2 is a piece of the tar itself (headers, padding), type 1 stands for the
content of a file, which is read from the layer's directory. Nothing is written anywhere and no more than one piece is
in memory. The recipe's own CRC-64 of each file is not looked at: whoever receives the tar checks its digest.
"""

from __future__ import annotations

import binascii
import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from typing import NamedTuple, NoReturn

from ...content import OnePlace, Reader
from ...errors import ErrorCode, InvalidDocumentError, SourceError, quote, refused
from ...model.descriptor import MAX_SIZE
from ...model.jsontree import JsonNode, parse_json
from ..archives.compression import Compression, DecompressingReader
from ..archives.spool import turn
from ..files import FileBlob, Tree, open_regular

LINE_LIMIT = 2 * 1024 * 1024  # bytes of one line of a recipe, which holds a piece of at most 1 MiB in base64
RECIPE_RATIO = 16  # bytes of a recipe for each byte of the tar, beside LINE_LIMIT; real ones have 4 at most
LONG = 64 * 1024  # bytes of a line or a piece; real ones are shorter, but for padding
LONG_LIMIT = 16 * 1024 * 1024  # bytes of longer pieces that all readers of this process may hold
ENTRY_LIMIT = 8_000_000  # lines of a recipe: a header, a file and its padding for a million members, and to spare
LOOKED_LIMIT = 2_000_000  # times that a directory of a layer below is opened for one layer
_FILE, _PIECE = 1, 2
_LONG_LINE = threading.Lock()  # read by one at a time, because parsing takes five times as much memory


class _LongPieces:
    """Bytes of long pieces that readers hold while their parent takes what is before them."""

    def __init__(self) -> None:
        self._held = 0
        self._lock = threading.Lock()

    def take(self, count: int, what: str) -> None:
        """Count so many more, or fewer. Raises SourceError (limit-exceeded)."""
        with self._lock:
            if count > 0 and self._held + count > LONG_LIMIT:
                why = f"expected pieces of tars of at most {LONG_LIMIT} bytes at a time, found more"
                raise SourceError(f"{what}: {why}", code=ErrorCode.LIMIT_EXCEEDED)
            self._held += count


_long_pieces = _LongPieces()


class Entry(NamedTuple):
    """One line of a recipe: a piece of the tar, or `size` bytes of the file `name` when that is not None."""

    piece: bytes
    name: bytes | None = None
    size: int = 0


class RebuiltLayer(OnePlace):
    """The tar of a layer as a blob; owns `recipe` and `files`. `size` may be UNKNOWN_SIZE."""

    def __init__(self, recipe: FileBlob, files: DirectoryFiles, size: int, what: str) -> None:
        self._recipe = recipe
        self._files = files
        self.size = size  # of the tar, as the store recorded it
        self._what = what
        self._entries = Recipe(recipe, f"{what}: recipe")
        self._piece = memoryview(b"")
        self._long = 0  # bytes of the piece, when it is counted
        self._file: FileBlob | None = None
        self._missing = 0  # bytes of the current file that are still to come
        self._closed = False
        self._lock = threading.Lock()

    def readinto(self, buffer: memoryview, /) -> int:
        """The next bytes: as many as fit, because small files make small pieces. Raises SourceError."""
        with self._lock:
            if self._closed:
                raise SourceError(f"{self._what}: closed while it was read", code=ErrorCode.INTERNAL)
            filled = 0
            while filled < len(buffer):
                count = self._copy(buffer[filled:])
                if not count and not self._next():
                    break
                filled += count
            return filled

    def close(self) -> None:
        """Release recipe, directories and the current file."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._recipe.close()
                self._files.close()
                if self._file is not None:
                    self._file.close()
                self._drop_piece()

    def _copy(self, buffer: memoryview) -> int:
        """Some bytes of the current piece or file; 0 when it is used up."""
        if self._piece:
            count = min(len(buffer), len(self._piece))
            buffer[:count] = self._piece[:count]
            self._piece = self._piece[count:]
            return count
        if self._file is None:
            return 0
        count = self._file.readinto(buffer)
        self._missing -= count
        if not count:
            if self._missing:
                raise SourceError(f"{self._what}: {self._missing} bytes are missing from a file of the layer")
            self._file.close()
            self._file = None
        return count

    def _next(self) -> bool:
        """Go on to the next entry that has bytes; False at the end."""
        self._drop_piece()
        for entry in self._entries:
            if entry.piece:
                if len(entry.piece) > LONG:
                    _long_pieces.take(len(entry.piece), self._what)
                    self._long = len(entry.piece)
                self._piece = memoryview(entry.piece)
                return True
            if entry.name is not None and entry.size:
                self._open(entry.name, entry.size)
                return True
        return False

    def _drop_piece(self) -> None:
        self._piece = memoryview(b"")
        _long_pieces.take(-self._long, self._what)
        self._long = 0

    def _open(self, name: bytes, size: int) -> None:
        what = f"{self._what}: file {quote(name.decode('utf-8', 'backslashreplace'))}"
        with refused(what):
            self._file = FileBlob(self._files.open_file(name), 0, size, what)
        self._missing = size


class Recipe(Iterator[Entry]):
    """The entries of the compressed recipe in `reader`, in order. Raises InvalidDocumentError, SourceError."""

    def __init__(self, reader: Reader, what: str) -> None:
        self._reader = DecompressingReader(reader, Compression.GZIP, what)
        self._what = what
        self._buffer = memoryview(bytearray(LONG))
        self._lines: Iterator[bytes] = iter(())
        self._rest = b""  # of a line whose end is still to come
        self._count = 0
        self._allowed = LINE_LIMIT  # bytes that may be read before there is more of the tar

    def __next__(self) -> Entry:
        with ExitStack() as alone:
            line = self._line(alone)
            if line is None:
                raise StopIteration
            self._count += 1
            if self._count > ENTRY_LIMIT:
                self._exceeded(f"more than {ENTRY_LIMIT} lines")
            entry = _parse_entry(line, self._what, self._count)
        self._allowed += RECIPE_RATIO * (entry.size + len(entry.piece)) - len(line) - 1
        if self._allowed < 0:
            self._exceeded(f"more than {RECIPE_RATIO} bytes for each byte of the tar")
        return entry

    def _line(self, alone: ExitStack) -> bytes | None:
        """The next line, None at the end; `alone` keeps other readers from a long one until this one is parsed."""
        line = next(self._lines, None)
        waited = False
        while line is None:
            if len(self._rest) > LINE_LIMIT:
                self._exceeded(f"a line of more than {LINE_LIMIT} bytes")
            if len(self._rest) > LONG and not waited:
                alone.enter_context(turn(_LONG_LINE))
                waited = True
            count = 0  # as many as there is room for: each piece is put behind the rest, which may be long
            while part := count < LONG and self._reader.readinto(self._buffer[count:]):
                count += part
            if not count:
                line, self._rest = self._rest, b""
                return line or None
            *lines, self._rest = (self._rest + self._buffer[:count]).split(b"\n")
            self._lines = iter(lines)
            line = next(self._lines, None)
        return line

    def _exceeded(self, why: str) -> NoReturn:
        raise InvalidDocumentError(self._what, why, code=ErrorCode.LIMIT_EXCEEDED)


def measure_recipe(reader: Reader, what: str) -> int:
    """The size in bytes of the tar that a recipe makes. Raises as `Recipe`."""
    return sum(entry.size + len(entry.piece) for entry in Recipe(reader, what))


def _parse_entry(line: bytes, what: str, number: int) -> Entry:
    root = parse_json(line, f"{what}: line {number}")
    kind = root["type"].as_int()
    if kind == _PIECE:
        return Entry(_base64(root.get("payload")))
    if kind != _FILE:
        root["type"].fail(f"expected {_FILE} or {_PIECE}, found {kind}")
    size = root.get("size")
    raw = root.get("name_raw")
    path = _base64(raw) if raw is not None else root.text("name").encode()
    if b"\0" in path:  # the system's calls would raise ValueError
        root.fail("expected a file name, found a NUL byte in it")
    return Entry(b"", path, size.as_int(minimum=0, maximum=MAX_SIZE) if size is not None else 0)


def _base64(node: JsonNode | None) -> bytes:
    if node is None:
        return b""
    try:
        return binascii.a2b_base64(node.as_str(), strict_mode=True)
    except ValueError:
        node.fail("expected base64")


class DirectoryFiles:
    """The files of a layer in its directory, then in those of the layers below it. For one thread.

    Owns `own`; `below` opens the other directories, nearest first, and only as far down as a file is looked for.
    """

    def __init__(self, own: Tree, below: Sequence[Callable[[], Tree]]) -> None:
        self._own = own
        self._below = below
        self._looked_below = 0  # directories
        self._parent: tuple[bytes, int] | None = None  # of the file before: neighbours in a tar lie in one directory

    def open_file(self, name: bytes) -> int:
        """A descriptor of the nearest file `name`. Raises OSError, InvalidDocumentError (limit-exceeded)."""
        directory, _, last = name.rpartition(b"/")
        if self._parent is not None and self._parent[0] == directory and last not in (b"", b".", b".."):
            with suppress(OSError):  # a link, or a file of a layer below: the long way knows
                return open_regular(last, self._parent[1])
        try:
            descriptor = self._own.open_file(name)
        except (FileNotFoundError, NotADirectoryError):
            return self._open_below(name)
        self._remember(directory)
        return descriptor

    def close(self) -> None:
        """Release the directories."""
        self._forget()
        self._own.close()

    def _open_below(self, name: bytes) -> int:
        """One directory is open at a time: a store chooses how many there are, and each transfer would have all."""
        self._looked_below += len(self._below)
        if self._looked_below > LOOKED_LIMIT:
            why = f"more than {LOOKED_LIMIT} directories of layers below to be looked into"
            raise InvalidDocumentError("recipe", why, code=ErrorCode.LIMIT_EXCEEDED)
        for open_tree in self._below:
            with suppress(FileNotFoundError, NotADirectoryError), closing(open_tree()) as tree:
                return tree.open_file(name)
        raise FileNotFoundError(errno.ENOENT, "no such file, nor in a layer below")

    def _remember(self, directory: bytes) -> None:
        self._forget()
        try:
            descriptor = self._own.open_directory(directory)
        except OSError:
            return  # nothing is lost but time
        self._parent = (directory, descriptor)

    def _forget(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

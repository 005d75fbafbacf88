# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 messages as a client writes and reads them (RFC 9112): heads to values, and how a body ends.

Not `http.client`: its import alone takes a third of the time a parent waits for a manifest (it brings `email` and
`ssl`), it reads a cut body as a complete one, and it copies every byte once more. What is ambiguous is refused:
two readers that disagree about where a message ends are an attack.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from ..errors import NetworkError, RegistryError, quote

HEAD_LIMIT = 64 * 1024  # bytes of status line and fields
FIELDS_LIMIT = 256
CHUNK_LINE_LIMIT = 4096  # bytes of a chunk's size line, or of all trailer fields
INTERIM_LIMIT = 8  # 1xx answers before the real one
UNKNOWN_LENGTH = -1
_UNBOUNDED = 2**63 - 1

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\x00\r\n]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r\n]*)")
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00\r\n]*)?")
_FORBIDDEN_IN_FIELD = re.compile(r"[^\t\x20-\x7e]")


class GarbledError(RegistryError):
    """An answer that is not HTTP."""


class Fields:
    """Header fields of an answer, by name in any case."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._pairs = tuple((name.lower(), value) for name, value in pairs)

    def get(self, name: str) -> str | None:
        """The first value of `name` (lower case), or None."""
        for key, value in self._pairs:
            if key == name:
                return value
        return None

    def get_all(self, name: str) -> list[str]:
        """Every value of `name` (lower case), line by line."""
        return [value for key, value in self._pairs if key == name]

    def words(self, name: str) -> list[str]:
        """The members of a list-valued field, lower case."""
        joined = ",".join(self.get_all(name)).lower()
        return [word.strip() for word in joined.split(",") if word.strip()]


class Head(NamedTuple):
    """Status and fields of an answer. `keeps_alive` is whether the connection may be used again after the body."""

    status: int
    fields: Fields
    keeps_alive: bool


class Framing(NamedTuple):
    """How a body ends: after `length` bytes, by chunks, or (both unset: UNKNOWN_LENGTH) with the connection."""

    length: int
    chunked: bool


class Stream(Protocol):
    """The bytes of a connection. All calls raise NetworkError; 0 from `receive_into` is its end."""

    def receive_into(self, view: memoryview) -> int:
        """The next bytes, at least one, into the front of `view`."""
        ...

    def receive_line(self, limit: int) -> bytes:
        """The next line without its line end, at most `limit` bytes. Raises GarbledError when it is longer."""
        ...


def encode_request(method: str, target: str, fields: Iterable[tuple[str, str]], body: bytes = b"") -> bytes:
    """A request as it goes out. Raises ValueError for anything that could start another line."""
    lines = [f"{method} {target} HTTP/1.1"]
    for name, value in fields:
        if _FORBIDDEN_IN_FIELD.search(value):
            raise ValueError(f"field {name}: contains a character that a field cannot have")
        lines.append(f"{name}: {value}")
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def parse_head(data: bytes, where: str) -> Head:
    """The head of an answer, without the empty line at its end. `where` is for messages. Raises GarbledError."""
    lines = data.split(b"\n")
    status_line = _STATUS_LINE.fullmatch(lines[0].removesuffix(b"\r"))
    if status_line is None:
        raise GarbledError(f"{where}: expected an http answer, found {quote(lines[0][:40])}")
    if len(lines) > FIELDS_LIMIT + 1:
        raise GarbledError(f"{where}: more than {FIELDS_LIMIT} header fields in an answer")
    pairs = []
    for line in lines[1:]:
        field = _FIELD.fullmatch(line.removesuffix(b"\r"))
        if field is None:
            raise GarbledError(f"{where}: expected a header field, found {quote(line[:40])}")
        pairs.append((field[1].decode("ascii"), field[2].rstrip(b" \t").decode("latin-1")))
    fields = Fields(pairs)
    connection = fields.words("connection")
    keeps_alive = "close" not in connection if status_line[1] == b"1" else "keep-alive" in connection
    return Head(int(status_line[2]), fields, keeps_alive)


def framing_of(method: str, head: Head, where: str) -> Framing:
    """How the body behind `head` ends (RFC 9112, 6.3). Raises GarbledError for an ambiguous one."""
    if method == "HEAD" or head.status in (204, 304):
        return Framing(0, False)
    codings = head.fields.words("transfer-encoding")
    lengths = set(head.fields.words("content-length"))
    if codings:
        if codings != ["chunked"]:
            raise GarbledError(f"{where}: transfer coding {quote(', '.join(codings))} is not supported")
        if lengths:
            raise GarbledError(f"{where}: an answer has both a length and chunks")
        return Framing(UNKNOWN_LENGTH, True)
    if not lengths:
        return Framing(UNKNOWN_LENGTH, False)
    text = lengths.pop()
    if lengths or not _LENGTH.fullmatch(text):
        raise GarbledError(f"{where}: content-length: expected one number, found {quote(text)}")
    return Framing(int(text), False)


class Body:
    """The body of one answer, read piece by piece; `ended` once it is complete."""

    def __init__(self, stream: Stream, framing: Framing, where: str) -> None:
        self._stream = stream
        self._framing = framing
        self._where = where
        self._left = framing.length if framing.length != UNKNOWN_LENGTH else 0
        self._received = 0
        self._begun = False
        self.ended = framing.length == 0

    @property
    def most(self) -> int:
        """How many bytes can still come: what is left of a stated length, else more than any buffer takes."""
        return _UNBOUNDED if self._framing.chunked or self._framing.length == UNKNOWN_LENGTH else self._left

    def readinto(self, view: memoryview) -> int:
        """The next bytes; 0 at the end. Raises NetworkError (connection-lost) when the body ends too early."""
        if self.ended:
            return 0
        if self._framing.chunked:
            if not self._left and not self._next_chunk():
                return 0
        elif self._framing.length == UNKNOWN_LENGTH:
            count = self._stream.receive_into(view)
            self.ended = count == 0
            return count
        count = self._stream.receive_into(view[: self._left] if len(view) > self._left else view)
        if not count:
            raise self._cut()
        self._left -= count
        self._received += count
        if not self._left and not self._framing.chunked:
            self.ended = True
        return count

    def _next_chunk(self) -> bool:
        if self._begun and self._line():
            raise GarbledError(f"{self._where}: expected the end of a chunk")
        self._begun = True
        size = _CHUNK.fullmatch(self._line())
        if size is None:
            raise GarbledError(f"{self._where}: expected the size of a chunk")
        self._left = int(size[1], 16)
        if self._left:
            return True
        room = CHUNK_LINE_LIMIT
        while trailer := self._stream.receive_line(room):  # trailer fields say nothing that we would believe
            room -= len(trailer)
        self.ended = True
        return False

    def _line(self) -> bytes:
        return self._stream.receive_line(CHUNK_LINE_LIMIT)

    def _cut(self) -> NetworkError:
        expected = "more" if self._framing.chunked else f"{self._framing.length} bytes"
        return NetworkError(
            f"{self._where}: the body ended early: expected {expected}, found {self._received} bytes"
        )

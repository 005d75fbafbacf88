# SPDX-License-Identifier: Apache-2.0
"""Reads HTTP/1.1 requests from a stream, strictly (wire.md section 11, RFC 9112).

The rule: where the next request begins is never guessed. Whatever leaves that open raises `RequestFault` from
`RequestReader`, and the connection must close after its answer. What is wrong inside a well-framed request is told by
`Request.require_valid` and `parse_target`, after which the connection goes on. No more than the limits below plus one
`READ_SIZE` is ever held in memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

from ..errors import PeerError, quote
from .problem import RequestFault

READ_SIZE = 64 * 1024  # bytes asked for at once
REQUEST_LINE_LIMIT = 8 * 1024  # bytes
FIELDS_LIMIT = 64 * 1024  # bytes of all header lines; also of chunk lines and trailers
FIELD_COUNT_LIMIT = 100
BODY_LIMIT = 1024 * 1024  # bytes; no request of ours needs a body, all are read past
EMPTY_LINES_LIMIT = 8  # before a request line (RFC 9112 section 2.2)

_REQUEST_LINE = re.compile(rb"([!-~\x80-\xff]+) ([!-~\x80-\xff]+) HTTP/([0-9])\.([0-9])")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*)")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t -~\x80-\xff]*)?")
_VISIBLE = re.compile(r"[!-~]+", re.ASCII)
_ABSOLUTE = re.compile(r"(?i:https?)://[^/?#]+([/?].*)?", re.ASCII)
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")


class Request(NamedTuple):
    """A request whose end is known.

    `target` is as sent, `minor` the y of HTTP/1.y, `fields` have lower-case names. The body is `length` bytes, or
    as long as its chunks say when `chunked`.
    """

    method: str
    target: str
    minor: int
    fields: tuple[tuple[str, str], ...]
    length: int = 0
    chunked: bool = False

    def values(self, name: str) -> list[str]:
        """All values of the field `name` (lower case), in order."""
        return [value for key, value in self.fields if key == name]

    def words(self, name: str) -> list[str]:
        """The comma-separated words of all fields `name`, in lower case."""
        words = (word.strip(" \t").lower() for value in self.values(name) for word in value.split(","))
        return [word for word in words if word]

    def keeps_open(self) -> bool:
        """Whether the connection outlives this request (RFC 9112 section 9.3)."""
        words = self.words("connection")
        return "close" not in words and (self.minor > 0 or "keep-alive" in words)

    def has_body(self) -> bool:
        """Whether a body follows the head."""
        return self.chunked or self.length > 0

    def awaits_continue(self) -> bool:
        """Whether the sender holds its body back until told to go on (RFC 9110 section 10.1.1)."""
        return self.minor > 0 and self.has_body() and "100-continue" in self.words("expect")

    def require_valid(self) -> None:
        """Return only if the head asks nothing impossible. Raises RequestFault (400, 417)."""
        hosts = len(self.values("host"))
        if hosts > 1 or (hosts == 0 and self.minor > 0):
            raise RequestFault(400, f"expected one Host field, found {hosts or 'none'}")
        self.require_known_expectation()

    def require_known_expectation(self) -> None:
        """Return only if we can do what the sender expects. Raises RequestFault (417)."""
        if self.minor > 0:
            for word in self.words("expect"):
                if word != "100-continue":
                    raise RequestFault(417, f"expectation {quote(word)}: expected 100-continue")


class RequestReader:
    """Takes requests off a stream. `receive(n)` returns at most n bytes, none at the end of the stream."""

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive
        self._buffer = bytearray()
        self.method = ""  # of the request being read, as soon as it is known: an answer to HEAD has no body

    def is_idle(self) -> bool:
        """Whether nothing of a further request has arrived."""
        return not self._buffer

    def read(self) -> Request | None:
        """The next request, its body still unread; None at the end of the stream.

        Raises RequestFault, after which the stream is of no use, and PeerError at an end inside the head.
        """
        self.method = ""
        for _ in range(EMPTY_LINES_LIMIT + 1):
            if not self._buffer and not self._fill():
                return None
            line = self._line(REQUEST_LINE_LIMIT, 414, "request line")
            if line:
                self.method, target, minor = _parse_request_line(line)
                request = _frame(Request(self.method, target, minor, tuple(self._fields())))
                if request.has_body():
                    request.require_known_expectation()  # whether its body will come is not known
                return request
        raise RequestFault(400, f"more than {EMPTY_LINES_LIMIT} empty lines before a request line")

    def discard_body(self, request: Request) -> None:
        """Read past the body of `request`. Raises RequestFault (400, 413) and PeerError at an end inside it."""
        if request.chunked:
            self._discard_chunks()
        else:
            self._skip(request.length)

    def _fields(self) -> Iterator[tuple[str, str]]:
        """Header or trailer fields up to the empty line."""
        left = FIELDS_LIMIT
        count = 0
        while line := self._line(left, 431, "header fields"):
            left -= len(line)
            count += 1
            if count > FIELD_COUNT_LIMIT:
                raise RequestFault(431, f"more than {FIELD_COUNT_LIMIT} header fields")
            match = _FIELD.fullmatch(line)
            if match is None:
                _refuse_field(line)
            yield match[1].decode("ascii").lower(), match[2].decode("latin-1").rstrip(" \t")

    def _discard_chunks(self) -> None:
        size, framing = 0, FIELDS_LIMIT
        while True:
            line = self._line(framing, 413, "chunk lines")
            framing -= len(line) + 2
            if framing <= 0:
                raise RequestFault(413, f"chunk lines: more than {FIELDS_LIMIT} bytes")
            match = _CHUNK_LINE.fullmatch(line)
            if match is None:
                raise RequestFault(400, f"chunk line {quote(line)}: expected a size in hex digits")
            length = int(match[1], 16)
            if not length:
                break
            size += length
            if size > BODY_LIMIT:
                raise RequestFault(413, f"request body is larger than {BODY_LIMIT} bytes")
            self._skip(length)
            if self._line(framing, 400, "chunk"):
                raise RequestFault(400, "expected a line break after a chunk")
        for _ in self._fields():
            continue

    def _line(self, limit: int, status: int, what: str) -> bytes:
        """The bytes up to the next line feed, without it and a carriage return before it."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > limit + 1:
                break
            if not self._fill():
                raise PeerError("the parent closed the connection inside a request")
        if end < 0 or end > limit + 1:
            raise RequestFault(status, f"{what}: expected a line end within {limit} bytes")
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[: end + 1]
        if len(line) > limit:
            raise RequestFault(status, f"{what}: expected a line end within {limit} bytes")
        return line

    def _skip(self, length: int) -> None:
        while length:
            if not self._buffer and not self._fill():
                raise PeerError("the parent closed the connection inside a request body")
            taken = min(length, len(self._buffer))
            del self._buffer[:taken]
            length -= taken

    def _fill(self) -> bool:
        part = self._receive(READ_SIZE)
        self._buffer += part
        return bool(part)


def parse_target(method: str, target: str) -> str | None:
    """The path that `target` names, percent-decoded once (bytes above ASCII as Latin-1); None for `*`.

    Any query is left out, and so is the authority of the absolute form. Raises RequestFault (400).
    """
    if target == "*" and method == "OPTIONS":
        return None
    if not _VISIBLE.fullmatch(target):
        raise RequestFault(400, f"target {_shown(target)}: expected visible ASCII characters")
    if not target.startswith("/"):
        match = _ABSOLUTE.fullmatch(target)
        if match is None:
            raise RequestFault(400, f"target {_shown(target)}: expected a path or an http URL")
        target = match[1] or "/"
    path = target.partition("?")[0]
    if "#" in path:
        raise RequestFault(400, f"target {quote(path)}: contains a fragment")
    return _ESCAPE.sub(lambda escape: _unescape(escape, path), path or "/")


def _unescape(escape: re.Match[str], path: str) -> str:
    if escape[1] is None:
        raise RequestFault(400, f"target {quote(path)}: expected two hex digits after %")
    return chr(int(escape[1], 16))


def _shown(target: str) -> str:
    """A target for a message; a query string may be a secret."""
    return quote(target.partition("?")[0])


def _parse_request_line(line: bytes) -> tuple[str, str, int]:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None or not _TOKEN.fullmatch(match[1]):
        shown = quote(line.partition(b"?")[0])
        raise RequestFault(400, f"request line {shown}: expected METHOD TARGET HTTP/1.1")
    method, target, major, minor = match.groups()
    if major != b"1":
        raise RequestFault(505, f"expected HTTP/1.1, found HTTP/{major.decode()}.{minor.decode()}")
    return method.decode("ascii"), target.decode("latin-1"), int(minor)


def _frame(request: Request) -> Request:
    """`request` with the length of its body (RFC 9112 section 6.3): every doubt is a refusal."""
    lengths = request.values("content-length")
    codings = request.values("transfer-encoding")
    if codings:
        if lengths:
            raise RequestFault(400, "expected Content-Length or Transfer-Encoding, found both")
        if request.minor == 0:
            raise RequestFault(400, "Transfer-Encoding: expected none in HTTP/1.0")
        if request.words("transfer-encoding") != ["chunked"]:
            raise RequestFault(501, f"Transfer-Encoding: expected chunked, found {quote(', '.join(codings))}")
        return request._replace(chunked=True)
    if not lengths:
        return request
    if len(lengths) > 1:
        raise RequestFault(400, f"expected one Content-Length, found {len(lengths)}")
    if not (lengths[0].isascii() and lengths[0].isdigit()):
        raise RequestFault(400, f"Content-Length: expected digits, found {quote(lengths[0])}")
    digits = lengths[0].lstrip("0")
    if len(digits) > len(str(BODY_LIMIT)) or int(digits or "0") > BODY_LIMIT:
        raise RequestFault(413, f"request body is larger than {BODY_LIMIT} bytes")
    return request._replace(length=int(digits or "0"))


def _refuse_field(line: bytes) -> NoReturn:
    """Say what is wrong with a header line, never showing a value: it may be a secret."""
    name = line.partition(b":")[0]
    if line[:1] in (b" ", b"\t"):
        raise RequestFault(400, "header field: folded over two lines")
    if not _TOKEN.fullmatch(name):
        raise RequestFault(400, "header field: expected a name and a colon right behind it")
    raise RequestFault(400, f"header field {quote(name)}: contains a control character")

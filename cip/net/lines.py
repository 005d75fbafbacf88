# SPDX-License-Identifier: Apache-2.0
"""The strict `fp` under `http.server` and `http.client`: where heads and chunks end, how long a body is (RFC 9112).

Rules. Both libraries take a head by `fp.readline` and nothing else, and read it leniently: a folded line, a line
without a colon, a bare carriage return or the end of the connection each hide a field or end the head. So what must be
refused is refused here, before `email` or `parse_request` sees it. A head is read whole before it is judged, and its
fields are handed out in one piece, because `http.client` counts pieces and allows 100. Bodies never pass through a
buffer of ours, but for what arrived together with a head.
"""

import re
from collections.abc import Callable
from email.message import Message

from ..errors import quote

HEAD_LIMIT = 64 * 1024  # bytes of a head; of the trailer fields of a body; of the chunk lines of a request
REQUEST_LINE_LIMIT = 8 * 1024  # bytes
REQUEST_BODY_LIMIT = 1024 * 1024  # bytes; no request of ours needs a body, all are read past
CHUNK_LINE_LIMIT = 4096  # bytes of one chunk line of an answer
READ_SIZE = 16 * 1024  # bytes asked for when a line is read
_UNBOUNDED = 10**18 - 1  # 18 digits

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_HEAD_END = re.compile(rb"\r?\n(\r?\n)")
_CHUNK = rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00\r\n]*)?"


class MalformedError(Exception):
    """A message that can be read in two ways, or that is too large; `status` is what a server answers.

    No HTTPException, of which `parse_request` makes a 431, and no OSError.
    """

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


class EndedError(Exception):
    """The connection ended inside a message."""


class Answers:
    """What the messages of one side look like: here those of a server. Limits are in bytes where nothing else is said.

    Control characters in a field may stay (RFC 9110, 5.5), a later minor version is read as 1.1 (2.5).
    """

    first_line = re.compile(rb"HTTP/1\.[0-9] [1-9][0-9]{2}(?: [^\x00\r\n]*)?")
    expected = "HTTP/1.1 STATUS REASON"  # the first line, in words
    fields = re.compile(rb"(?:" + _TOKEN + rb":[^\x00\r\n]*\r?\n)*")  # all of a head, line ends included
    first_limit = HEAD_LIMIT
    field_count = 256
    empty_lines = 0  # skipped before a message (RFC 9112, 2.2)
    first_at_once = False  # whether a bad first line is told before its head has ended; if not, the head may break off
    bare_line_feeds = True  # whether they end lines of chunks
    chunk_line_limit = CHUNK_LINE_LIMIT
    chunk_lines_limit = _UNBOUNDED  # of one body
    repeated_length = True  # whether one length may be told twice (RFC 9112, 6.3)
    length_digits = 18  # leading zeros included
    length_limit = _UNBOUNDED


class Requests(Answers):
    """What a parent sends, who is held to more."""

    first_line = re.compile(_TOKEN + rb" [!-~\x80-\xff]+ HTTP/[0-9]\.[0-9]")
    expected = "METHOD TARGET HTTP/1.1"
    fields = re.compile(rb"(?:" + _TOKEN + rb":[\t -~\x80-\xff]*\r?\n)*")
    first_limit = REQUEST_LINE_LIMIT
    field_count = 100
    empty_lines = 8
    first_at_once = True  # who speaks another protocol may wait for an answer now
    bare_line_feeds = False
    chunk_line_limit = HEAD_LIMIT
    chunk_lines_limit = HEAD_LIMIT
    repeated_length = False
    length_digits = HEAD_LIMIT
    length_limit = REQUEST_BODY_LIMIT


class Lines:
    """What one side sent. `receive_into` puts the next bytes, at least one, into a view; 0 is the end.

    `released` is called when the library closes this, which happens once for each answer and closes nothing here.
    All that reads raises what `receive_into` raises, MalformedError and EndedError.
    """

    closed = False

    def __init__(
        self,
        receive_into: Callable[[memoryview], int],
        grammar: type[Answers],
        released: Callable[[], None] = lambda: None,
    ) -> None:
        self._receive_into = receive_into
        self._released = released
        self.grammar = grammar
        self._data = b""
        self._at = 0  # of `_data`, what was taken already
        self._fields: bytes | None = None  # what is left of a head to hand out, None between two heads

    # --- as http.client and http.server call it ---

    def readline(self, limit: int = -1, /) -> bytes:
        """The first line of a head, then its fields in one piece, then the empty line; b"" at the end before a head."""
        if self._fields is None:
            head = self._receive_head()
            if head is None:
                return b""
            first, _, self._fields = head.partition(b"\n")
            return self._require_first(first.removesuffix(b"\r")) + b"\r\n"
        fields, self._fields = self._fields, b"" if self._fields else None
        return self.require_fields(fields) if fields else b"\r\n"

    def flush(self) -> None:
        """Nothing to flush."""

    def close(self) -> None:
        """The library is done with one message."""
        self._released()

    # --- as we call it ---

    def readinto(self, view: memoryview) -> int:
        """The next bytes of a body into the front of `view`; 0 at the end of the connection."""
        if self._at >= len(self._data):
            return self._receive_into(view)
        part = self._data[self._at : self._at + len(view)]
        view[: len(part)] = part
        self._at += len(part)
        return len(part)

    def take_line(self, limit: int, what: str, status: int) -> bytes:
        """The next line of a body's framing, at most `limit` bytes, without its end; too long a one has `status`."""
        while (end := self._data.find(b"\n", self._at)) < 0 and len(self._data) - self._at <= limit + 1:
            self._fill(what)
        line = self._data[self._at : end].removesuffix(b"\r")
        if end < 0 or len(line) > limit:
            raise MalformedError(f"{what}: longer than {limit} bytes", status)
        if not self.grammar.bare_line_feeds and len(line) != end - self._at - 1:
            raise MalformedError(f"{what}: expected a carriage return and a line feed at its end")
        self._at = end + 1
        return line

    def is_idle(self) -> bool:
        """Whether nothing has been received beyond what was taken."""
        return self._at >= len(self._data)

    def _receive_head(self) -> bytes | None:
        """The next head without the empty line behind it; None at the end before it."""
        grammar, searched, skipped, judged = self.grammar, 0, 0, not self.grammar.first_at_once
        while True:
            while skipped < grammar.empty_lines and self._data.startswith((b"\n", b"\r\n"), self._at):
                self._at, searched, skipped = self._data.index(b"\n", self._at) + 1, 0, skipped + 1
            end = _HEAD_END.search(self._data, self._at + max(0, searched - 3))
            searched = (end.start() if end else len(self._data)) - self._at
            line_end = self._data.find(b"\n", self._at, self._at + grammar.first_limit + 2)
            if searched > grammar.first_limit + 1 and line_end < 0:
                raise MalformedError(f"first line: longer than {grammar.first_limit} bytes", 414)
            if searched > HEAD_LIMIT:
                raise MalformedError(f"header fields: more than {HEAD_LIMIT} bytes", 431)
            if end is not None:
                head = self._data[self._at : end.start(1)]
                self._at = end.end()
                return head
            if line_end >= 0 and not judged:
                judged = True
                self._require_first(self._data[self._at : line_end].removesuffix(b"\r"))
            if not self._fill("head", at_start=not searched):
                return None

    def _fill(self, what: str, *, at_start: bool = False) -> bool:
        """Receive more; False at the end, which only `at_start` of a message is none of our business."""
        buffer = bytearray(READ_SIZE)
        count = self._receive_into(memoryview(buffer))
        if not count and not at_start:
            raise EndedError(f"the connection ended inside a {what}")
        self._data, self._at = self._data[self._at :] + bytes(buffer[:count]), 0
        return count > 0

    def _require_first(self, line: bytes) -> bytes:
        if len(line) > self.grammar.first_limit:
            raise MalformedError(f"first line: longer than {self.grammar.first_limit} bytes", 414)
        if not self.grammar.first_line.fullmatch(line):
            shown = quote(line.partition(b"?")[0][:80])  # a query may be a secret
            raise MalformedError(f"expected {self.grammar.expected}, found {shown}")
        return line

    def require_fields(self, fields: bytes) -> bytes:
        """`fields`, each of them one line that has one meaning; raises without a value, which may be a secret."""
        if fields.count(b"\n") > self.grammar.field_count:
            raise MalformedError(f"more than {self.grammar.field_count} header fields", 431)
        good = self.grammar.fields.match(fields)
        rest = fields[good.end() if good else 0 :]
        if not rest:
            return fields
        name = rest.partition(b":")[0]
        if rest[:1] in (b" ", b"\t"):
            raise MalformedError("header field: folded over two lines")
        if not re.fullmatch(_TOKEN, name):
            raise MalformedError("header field: expected a name and a colon right behind it")
        raise MalformedError(f"header field {quote(name[:80])}: contains a control character")


class Chunks:
    """The chunk framing of one body; `left` bytes of the present chunk are still to be read from `lines`."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._room = lines.grammar.chunk_lines_limit
        self._begun = False
        self._ended = False
        self.left = 0

    def next(self) -> int:
        """Bytes left of the present chunk, of a new one where that has ended; 0 at the end of the body."""
        if self.left or self._ended:
            return self.left
        if self._begun and self._line():
            raise MalformedError("expected the end of a chunk")
        self._begun = True
        line = self._line()
        size = re.fullmatch(_CHUNK, line)
        if size is None:
            raise MalformedError(f"expected the size of a chunk in hex digits, found {quote(line[:40])}")
        self.left = int(size[1], 16)
        if not self.left:
            self._read_trailer()
        return self.left

    def _line(self) -> bytes:
        grammar = self._lines.grammar
        line = self._lines.take_line(min(grammar.chunk_line_limit, self._room), "chunk line", 413)
        self._room -= len(line) + 2
        if self._room <= 0:
            raise MalformedError(f"chunk lines: more than {grammar.chunk_lines_limit} bytes", 413)
        return line

    def _read_trailer(self) -> None:
        fields = b""
        while line := self._lines.take_line(HEAD_LIMIT - len(fields), "trailer", 431):
            fields += line + b"\n"
        self._lines.require_fields(fields)
        self._ended = True


def framing_of(headers: Message, minor: int, grammar: type[Answers]) -> tuple[int | None, bool]:
    """How the body behind a head of HTTP/1.`minor` ends: its length, and whether it is chunked (RFC 9112, 6.3).

    With neither an answer ends with its connection, and a request has no body. Raises MalformedError for every doubt.
    """
    lengths = headers.get_all("content-length", [])
    codings = headers.get_all("transfer-encoding", [])
    if codings:
        if lengths:
            raise MalformedError("expected Content-Length or Transfer-Encoding, found both")
        if minor == 0:
            raise MalformedError("Transfer-Encoding: expected none in HTTP/1.0")
        if words_of(headers, "transfer-encoding") != ["chunked"]:
            raise MalformedError(f"Transfer-Encoding: expected chunked, found {quote(', '.join(codings))}", 501)
        return None, True
    if not lengths:
        return None, False
    if grammar.repeated_length:
        lengths = list({word.strip(" \t") for value in lengths for word in value.split(",")})
    if len(lengths) > 1:
        raise MalformedError(f"expected one Content-Length, found {len(lengths)}")
    text = lengths[0].strip(" \t")
    if not (text.isascii() and text.isdigit()):
        raise MalformedError(f"Content-Length: expected digits, found {quote(text)}")
    digits = text.lstrip("0") or "0"
    # int() refuses more than 4300 digits
    if len(text) > grammar.length_digits or len(digits) > 18 or int(digits) > grammar.length_limit:
        raise MalformedError(f"Content-Length: a body of more than {grammar.length_limit} bytes", 413)
    return int(digits), False


def words_of(headers: Message, name: str) -> list[str]:
    """The members of a list-valued field, of all its lines, in lower case."""
    words = (word.strip(" \t").lower() for value in headers.get_all(name, []) for word in value.split(","))
    return [word for word in words if word]

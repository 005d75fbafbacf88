# SPDX-License-Identifier: Apache-2.0
"""Plays the parent: speaks HTTP over an inherited socket, byte by byte where a test wants it so.

All waits are bounded by `PATIENCE`; what exceeds it is a failure of the test that waits.
"""

import json
import socket
from dataclasses import dataclass
from typing import Any

PATIENCE = 30.0  # seconds; far more than anything here takes, so that a loaded machine fails no test


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it was on the wire. `complete` tells whether the body reached the end that its framing promises.

    `framing` is `length`, `chunked` or `none`; there is no other in the language that the proxy speaks.
    """

    status: int
    reason: str
    fields: tuple[tuple[str, str], ...]
    body: bytes
    framing: str
    complete: bool

    def field(self, name: str) -> str | None:
        """The value of the field `name`; AssertionError when it is there twice."""
        found = [value for key, value in self.fields if key.lower() == name.lower()]
        assert len(found) < 2, f"{name} is there {len(found)} times"
        return found[0] if found else None

    def problem(self) -> dict[str, Any]:
        """The problem document; AssertionError when the answer is something else."""
        assert self.field("Content-Type") == "application/problem+json", self
        assert self.complete, self
        members: dict[str, Any] = json.loads(self.body)
        assert members["status"] == self.status, self
        return members


class Line:
    """The parent's end of the conversation; a context manager that closes it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE)
        self._buffer = b""

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Put bytes on the wire as they are."""
        self.sock.sendall(data)

    def ask(self, method: str, target: str, *fields: str, version: str = "1.1", body: bytes = b"") -> Answer:
        """Send one request, by default with a Host field, and read its answer."""
        head = [f"{method} {target} HTTP/{version}", "Host: parent", *fields]
        self.send("".join(f"{line}\r\n" for line in [*head, ""]).encode("latin-1") + body)
        return self.answer(method)

    def answer(self, method: str = "GET") -> Answer:
        """Read one answer; `method` is that of the request, because an answer to HEAD has no body.

        Raises AssertionError when what arrives is not an answer, or is framed in two ways at once.
        """
        head = self._head()
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, reason = first.split(" ", 2)
        assert version == "HTTP/1.1", first
        fields = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
        answer = Answer(int(status), reason, fields, b"", "none", True)
        if answer.status == 100:
            return answer
        length, coding = answer.field("Content-Length"), answer.field("Transfer-Encoding")
        assert length is None or coding is None, head
        if method == "HEAD" or answer.status == 204:
            assert answer.status != 204 or length is None, head
            return answer
        assert length is not None or coding == "chunked", head
        if length is not None:
            body = self._take(int(length))
            return Answer(int(status), reason, fields, body, "length", len(body) == int(length))
        body, complete = self._chunks()
        return Answer(int(status), reason, fields, body, "chunked", complete)

    def at_end(self) -> bool:
        """Whether nothing follows but the end of the stream, for which this waits."""
        return not self._buffer and not self._receive()

    def rest(self) -> bytes:
        """Everything up to the end of the stream."""
        while self._receive():
            continue
        found, self._buffer = self._buffer, b""
        return found

    def _head(self) -> bytes:
        while b"\r\n\r\n" not in self._buffer:
            assert self._receive(), f"expected an answer, found the end after {self._buffer[:200]!r}"
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head

    def _take(self, size: int) -> bytes:
        parts = [self._buffer[:size]]
        missing = size - len(parts[0])
        self._buffer = self._buffer[size:]
        while missing:
            part = self._read(min(missing, 1 << 20))
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _chunks(self) -> tuple[bytes, bool]:
        parts: list[bytes] = []
        while True:
            while b"\r\n" not in self._buffer:
                if not self._receive():
                    return b"".join(parts), False
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            size = int(line, 16)
            part = self._take(size + 2)
            parts.append(part[:size])
            if len(part) < size + 2:
                return b"".join(parts), False
            assert part.endswith(b"\r\n"), part[-10:]
            if not size:
                return b"".join(parts), True

    def _receive(self) -> bool:
        part = self._read(1 << 16)
        self._buffer += part
        return bool(part)

    def _read(self, size: int) -> bytes:
        try:
            return self.sock.recv(size)
        except ConnectionResetError:
            return b""  # the other side left with bytes of ours unread

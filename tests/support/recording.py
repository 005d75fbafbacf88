# SPDX-License-Identifier: Apache-2.0
"""A server that answers by a function and remembers what it was asked: for the order of requests, and for what
nobody should have sent."""

import http.server
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Asked:
    """One request; the names of `fields` are lower case. `server` is `127.0.0.1:PORT` of the one that was asked."""

    server: str
    method: str
    target: str
    fields: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Given:
    """One answer."""

    status: int
    body: bytes = b""
    fields: Mapping[str, str] = field(default_factory=dict)


class RecordingServer:
    """Serves plain HTTP on a free port of 127.0.0.1 until it is closed; a context manager.

    `asked` has all requests in order; servers that are given the same list record together.
    """

    def __init__(self, answer: Callable[[Asked], Given], asked: list[Asked] | None = None) -> None:
        self.asked: list[Asked] = [] if asked is None else asked
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.respond = self._respond
        self._answer = answer
        self.port = int(self._server.server_address[1])
        self.host = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def _respond(self, method: str, target: str, fields: Mapping[str, str], body: bytes) -> Given:
        asked = Asked(self.host, method, target, fields, body)
        self.asked.append(asked)
        return self._answer(asked)

    def close(self) -> None:
        """Stop, and wait for what is still being answered."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = False
    respond: Callable[[str, str, Mapping[str, str], bytes], Given]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves in the middle, or speaks TLS, is no failure of a test."""


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request per connection, so that closing never waits for a client that keeps one open."""

    protocol_version = "HTTP/1.1"
    timeout = 10

    def handle(self) -> None:
        """A greeting of TLS or SOCKS is told at once that it is at the wrong door: it has no line end to wait for."""
        first = self.connection.recv(1, socket.MSG_PEEK)
        if first == b"\x05":
            self.connection.recv(1 << 16)
        elif first == b"\x16":
            self.wfile.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            self.wfile.flush()
            self.connection.recv(1 << 16)  # unread bytes would turn our close into a reset
        else:
            super().handle()

    def do_GET(self) -> None:
        self._reply()

    def do_HEAD(self) -> None:
        self._reply()

    def do_POST(self) -> None:
        self._reply()

    def _reply(self) -> None:
        assert isinstance(self.server, _Server)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fields = {name.lower(): value for name, value in self.headers.items()}
        given = self.server.respond(self.command, self.path, fields, body)
        self.send_response(given.status)
        for name, value in {"Content-Length": str(len(given.body)), "Connection": "close", **given.fields}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(given.body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what was asked is in `asked`."""

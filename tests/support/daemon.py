# SPDX-License-Identifier: Apache-2.0
"""Plays a Docker daemon: answers `/_ping` and `/images/get`, over connections that it is handed or accepts."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

Answer = Callable[[socket.socket], None]


def stream(body: bytes, *, chunk: int = 60_000) -> Answer:
    """200 with a chunked body."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(body), chunk):
            part = body[start : start + chunk]
            connection.sendall(b"%x\r\n" % len(part) + part + b"\r\n")
        connection.sendall(b"0\r\n\r\n")

    return answer


def refusal(status: int, message: str) -> Answer:
    """An error in the daemon's own form."""
    body = json.dumps({"message": message}).encode()

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 %d Error\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)

    return answer


def verbatim(text: bytes) -> Answer:
    """These bytes, then the end of the connection."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(text)

    return answer


def silence(connection: socket.socket) -> None:
    """Nothing, until the other side leaves."""
    connection.recv(1)


class PlayedDaemon:
    """`images` maps the name in a request to an answer; `requests` are the paths asked for, in order."""

    def __init__(self, images: dict[str, Answer], *, api_version: str = "1.41") -> None:
        self._images = images
        self._api_version = api_version
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.requests: list[str] = []

    def listen(self, path: Path) -> str:
        """Accept connections on a unix socket at `path`; the text for --daemon-host."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen()
        self._listener = listener
        self._start(lambda: self._accept(listener))
        return f"unix://{path}"

    def listen_tls(self, context: ssl.SSLContext) -> int:
        """Accept TLS connections on 127.0.0.1; the port."""
        listener = socket.create_server(("127.0.0.1", 0))
        self._listener = listener
        self._start(lambda: self._accept(listener, context))
        port: int = listener.getsockname()[1]
        return port

    def connect(self) -> socket.socket:
        """Our half of a connection that is answered."""
        ours, theirs = socket.socketpair()
        self._start(lambda: self._converse(theirs))
        return ours

    def close(self) -> None:
        """Stop listening and wait for all conversations."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        while self._threads:
            self._threads.pop().join(10)

    def _start(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, name="daemon")
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket, context: ssl.SSLContext | None = None) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # closed
            if context is not None:
                try:
                    connection = context.wrap_socket(connection, server_side=True)
                except OSError:
                    connection.close()
                    continue
            self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                part = connection.recv(4096)
                if not part:
                    return
                head += part
            path = head.split(b" ")[1].decode()
            self.requests.append(path)
            if path == "/_ping":
                version = self._api_version.encode()
                text = b"HTTP/1.1 200 OK\r\nApi-Version: " + version + b"\r\nContent-Length: 2\r\n\r\nOK"
                connection.sendall(text)
                return
            (name,) = parse_qs(urlsplit(path).query).get("names", [""])
            self._images.get(name, refusal(404, f"reference does not exist: {name}"))(connection)

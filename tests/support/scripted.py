# SPDX-License-Identifier: Apache-2.0
"""Servers on loopback that answer by the scripts of tests/spec/stdlib-http-vectors.json, and log what they were asked.

A script is a list of steps: bytes as Latin-1 text (or a list of texts and `[text, times]`), seconds to wait, `close`,
`reset`, `["tunnel", name]`, and `MAN` or `BLOB` for the right answer.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .peers import CertificateFiles
from .registry import LOOPBACK, hold, leaves_within, reset

Script = Sequence[Any]
FORBIDDEN_FIELDS = ("cookie", "referer")


def expand(step: Any, names: Mapping[str, bytes]) -> bytes:
    """The bytes of a step; `names` are what stands in braces."""
    if isinstance(step, list):
        return b"".join(
            expand(part[0], names) * part[1] if isinstance(part, list) else expand(part, names) for part in step
        )
    data = str(step).encode("latin-1")
    for name, value in names.items():
        data = data.replace(b"{%s}" % name.encode(), value)
    return data


class ScriptedServer:
    """`scripts` maps a target, or its path, to the answers of its requests: the last one counts for all further ones.

    What is not scripted is answered from `plain`. `log` gets a line for each request, `connections` counts those that
    began with a request (or a handshake, with `tls`).
    """

    def __init__(
        self, name: str, plain: Mapping[str, bytes], log: list[str], *, tls: ssl.SSLContext | None = None
    ) -> None:
        self.name = name
        self.scripts: Mapping[str, Sequence[Script]] = {}
        self.names: Mapping[str, bytes] = {}
        self.others: Mapping[str, ScriptedServer] = {}
        self.connections = 0
        self._plain = plain
        self._log = log
        self._tls = tls
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept, name=f"scripted {name}")]
        self._threads[0].start()

    def close(self) -> None:
        """End every connection; returns when no thread is left."""
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for thread in self._threads[1:]:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), name=f"connection to {self.name}")
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        served = sock
        with contextlib.suppress(OSError, ValueError):
            if self._tls is not None:
                served = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                assert isinstance(served, ssl.SSLSocket)
                served.do_handshake()
            elif sock.recv(1, socket.MSG_PEEK) == b"\x16":
                served.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
                served.shutdown(socket.SHUT_WR)
                hold(served)
                return served.close()
            self._converse(served)
        self._open.discard(sock)
        served.close()
        sock.close()

    def _converse(self, sock: socket.socket) -> None:
        buffer, first = b"", True
        while True:
            while b"\r\n\r\n" not in buffer:
                part = sock.recv(65536)
                if not part:
                    return
                buffer += part
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            if first:
                self.connections += 1
            first = False
            if not self._answer(sock, head.decode("latin-1")):
                return

    def _answer(self, sock: socket.socket, head: str) -> bool:
        """Play the steps for one request; whether the connection goes on."""
        line, *lines = head.split("\r\n")
        method, target, _ = line.split(" ", 2)
        fields = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        shown = [self.name, method, target]
        shown += [f"{word}={fields[name]}" for word, name in _SHOWN.items() if name in fields]
        shown += [f"{name}!" for name in FORBIDDEN_FIELDS if name in fields]
        with self._lock:
            self._log.append(" ".join(shown))
            key = method if method == "CONNECT" else target if target in self.scripts else target.partition("?")[0]
            answers = self.scripts.get(key)
            position = self._asked[key]
            self._asked[key] += 1
        if answers is None:
            missing = b"HTTP/1.1 404 Absent\r\nContent-Length: 2\r\n\r\n{}"
            sock.sendall(self._plain.get(target.partition("?")[0], missing))
            return True
        return all(self._play(sock, step) for step in answers[min(position, len(answers) - 1)])

    def _play(self, sock: socket.socket, step: Any) -> bool:
        if isinstance(step, int | float):
            return not leaves_within(sock, step)
        if step == "close":
            return False
        if step == "reset":
            reset(sock)
            return False
        if isinstance(step, list) and step[0] == "tunnel":
            self._relay(sock, self.others[step[1]].port)
            return False
        sock.sendall(self._plain[step] if step in ("MAN", "BLOB") else expand(step, self.names))
        return True

    def _relay(self, sock: socket.socket, port: int) -> None:
        with socket.create_connection((LOOPBACK, port)) as far:
            relay(sock, far)


def relay(near: socket.socket, far: socket.socket) -> None:
    """Bytes both ways until both ends have ended."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while part := source.recv(65536):
                target.sendall(part)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=pump, args=(far, near))
    back.start()
    pump(near, far)
    back.join()


@contextlib.contextmanager
def tls_front(certificate: CertificateFiles, port: int, host: str = LOOPBACK) -> Iterator[int]:
    """TLS in front of a server that has none: the port of `host` to connect to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family)
    threads: list[threading.Thread] = []

    def serve(sock: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(sock, server_side=True) as near:
            with socket.create_connection((LOOPBACK, port)) as far:
                relay(near, far)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threads.append(threading.Thread(target=serve, args=(listener.accept()[0],)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in (acceptor, *threads):
            thread.join()


_SHOWN = {"auth": "authorization", "proxy": "proxy-authorization", "range": "range"}


@contextlib.contextmanager
def scripted_servers(
    names: Sequence[str], plain: Mapping[str, bytes], tls: ssl.SSLContext | None
) -> Iterator[tuple[dict[str, ScriptedServer], list[str]]]:
    """Servers of these names, `S` over TLS, and the log that they share."""
    log: list[str] = []
    servers: dict[str, ScriptedServer] = {}
    with contextlib.ExitStack() as stack:
        for name in names:
            servers[name] = ScriptedServer(name, plain, log, tls=tls if name == "S" else None)
            stack.callback(servers[name].close)
        for server in servers.values():
            server.others = servers
        yield servers, log

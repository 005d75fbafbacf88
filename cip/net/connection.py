# SPDX-License-Identifier: Apache-2.0
"""One connection to a registry: bytes out, bytes in, each wait with its limit.

The socket never blocks; waiting is done by `poll`. So one system call brings the bytes that are there already, a TLS
connection can fill a large buffer out of its small records, and no limit needs a change of the socket's mode.
"""

from __future__ import annotations

import re
import select
import socket
from typing import TYPE_CHECKING, NamedTuple

from ..errors import NetworkError
from ..hostconfig.proxyenv import Proxy
from .addresses import Address
from .http1 import HEAD_LIMIT, INTERIM_LIMIT, GarbledError, Head, parse_head
from .limits import Limits
from .tls import TlsIdentity
from .url import Origin

if TYPE_CHECKING:
    import ssl

READ_SIZE = 16 * 1024  # bytes asked for when a head or a line is read
_EMPTY_LINE = re.compile(rb"\r?\n\r?\n")


class Route(NamedTuple):
    """What a connection is shared by: the same origin, the same TLS identity, the same proxy."""

    origin: Origin
    identity: TlsIdentity
    proxy: Proxy | None

    @property
    def via(self) -> str:
        """How we get there, for messages."""
        return "direct" if self.proxy is None else f"via proxy {self.proxy.address}"


class Connection:
    """A connected socket with what was received beyond the last head or line; `close` closes the socket.

    One thread uses it at a time, under the `limits` that it sets; only `interrupt` may be called from another one.
    """

    def __init__(self, sock: socket.socket | ssl.SSLSocket, route: Route, address: Address, limits: Limits) -> None:
        self.sock = sock
        self.route = route
        self.address = address
        self.limits = limits
        self.uses = 0  # answers received so far
        self._host = route.origin.address
        self.where = f"{self._host} ({route.via})"  # for messages
        self._rest = memoryview(b"")
        self._is_tls = hasattr(sock, "pending")
        self._poll = select.poll()
        sock.setblocking(False)

    def send(self, request: bytes) -> None:
        """Send all of `request`. Raises NetworkError."""
        view = memoryview(request)
        while view:
            try:
                view = view[self.sock.send(view) :]
            except (OSError, ValueError) as error:
                self._wait(error, select.POLLOUT, "the request is not taken")

    def receive_head(self) -> Head:
        """The head of the next answer, interim ones skipped. Raises NetworkError, GarbledError."""
        for _ in range(INTERIM_LIMIT):
            head = parse_head(self._receive_until_empty_line(), self.where)
            if head.status >= 200:
                self.uses += 1
                return head
            if head.status == 101:
                break
        raise GarbledError(f"{self.where}: expected a final answer, found interim ones only")

    def receive_into(self, view: memoryview) -> int:
        """The next bytes, at least one, into the front of `view`; 0 at the end. Raises NetworkError."""
        if self._rest:
            count = min(len(self._rest), len(view))
            view[:count] = self._rest[:count]
            self._rest = self._rest[count:]
            return count
        while True:
            try:
                count = self.sock.recv_into(view)
                break
            except (OSError, ValueError) as error:
                self._wait(error, select.POLLIN, "no byte")
        if not count:
            self.limits.cancellation.require(self._host)
        elif self._is_tls:
            return self._fill_from_records(view, count)
        return count

    def receive_line(self, limit: int) -> bytes:
        """The next line without its end. Raises NetworkError, GarbledError when it has more than `limit` bytes."""
        line = bytearray()
        while True:
            if not self._rest:
                self._rest = self._receive_some("in the middle of a body")
            rest = bytes(self._rest)
            position = rest.find(b"\n")
            line += rest if position < 0 else rest[:position]
            if len(line) > limit:
                raise GarbledError(f"{self.where}: a line is longer than {limit} bytes")
            self._rest = self._rest[len(rest) if position < 0 else position + 1 :]
            if position >= 0:
                return bytes(line.removesuffix(b"\r"))

    def is_stale(self) -> bool:
        """Whether the other side has closed, or sent what nobody asked for: then it must not be used again."""
        self._poll.register(self.sock, select.POLLIN)
        return bool(self._rest) or bool(self._poll.poll(0))

    def interrupt(self) -> None:
        """End every wait of the thread that uses this connection; from any thread."""
        try:
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # not SSLSocket's, which forgets its TLS state
        except OSError:
            pass  # not connected any more, which is what was wanted

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def _fill_from_records(self, view: memoryview, count: int) -> int:
        """One TLS record is at most 16 KiB: take the records that have arrived already along."""
        while count < len(view):
            try:
                more = self.sock.recv_into(view[count:])
            except (OSError, ValueError):
                return count  # nothing more yet, or a fault that the next call meets again
            if not more:
                return count
            count += more
        return count

    def _receive_until_empty_line(self) -> bytes:
        data = bytearray(self._rest)
        seen = 0
        while True:
            end = _EMPTY_LINE.search(data, max(0, seen - 3))
            if end is not None:
                self._rest = memoryview(bytes(data[end.end() :]))
                return bytes(data[: end.start()])
            if len(data) > HEAD_LIMIT:
                raise GarbledError(f"{self.where}: the header is longer than {HEAD_LIMIT} bytes")
            seen = len(data)
            self._rest = memoryview(b"")
            data += self._receive_some("in the middle of an answer" if seen else "before its answer")

    def _receive_some(self, where: str) -> memoryview:
        buffer = memoryview(bytearray(READ_SIZE))
        count = self.receive_into(buffer)
        if not count:
            raise NetworkError(f"{self._host}: the connection ended {where} ({self.route.via})", host=self._host)
        return buffer[:count]

    def _wait(self, error: Exception, event: int, what: str) -> None:
        """Wait until the socket is ready for what `error` says it is not ready for. Raises NetworkError."""
        limits = self.limits
        if not isinstance(error, BlockingIOError):
            # TLS has classes of its own, whose module is not imported for their sake
            kind = type(error).__name__
            if kind not in ("SSLWantReadError", "SSLWantWriteError"):
                limits.cancellation.require(self._host)
                reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "it broke"
                raise NetworkError(
                    f"{self._host}: the connection is lost: {str(reason).lower().replace('_', ' ')} "
                    f"({self.route.via})",
                    host=self._host,
                ) from error
            event = select.POLLIN if kind == "SSLWantReadError" else select.POLLOUT
        seconds = limits.seconds(limits.times.idle, None, self._host, self.route.via)
        self._poll.register(self.sock, event)
        ready = self._poll.poll(seconds * 1000 + 1)
        limits.cancellation.require(self._host)
        if not ready:
            raise limits.expired(limits.times.idle, None, self._host, self.route.via, what)


def proxy_address(proxy: Proxy) -> Origin:
    """The proxy as something to connect to."""
    return Origin("http", proxy.host, proxy.port)

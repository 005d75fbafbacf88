# SPDX-License-Identifier: Apache-2.0
"""A connected socket as `http.client.HTTPConnection.sock`: every wait has its limits, another thread may end it.

The socket never blocks; waiting is done by `poll`. So one system call brings the bytes that are there already, TLS
fills a large buffer out of its small records, and a deadline is one, whereas the library's time-out begins anew with
each byte. Of a socket `http.client` uses `sendall`, `makefile` and `close`, and it closes as soon as it has read a head
that says so: the answer still reads, so the end is put off until that is closed too.
"""

from __future__ import annotations

import select
import socket
import ssl
from contextlib import suppress

from ..errors import NetworkError, SourceError
from .limits import Limits
from .lines import Answers, Lines
from .tls import NO_IDENTITY, Socket, TlsIdentity, protocol_error, reason_of


class Channel:
    """One thread uses it at a time, under the `limits` that it sets; `interrupt` alone may come from another one.

    `host` and `via` are for messages, `identity` says as whom a TLS connection was made. All calls raise NetworkError,
    and SourceError for an alert.
    """

    def __init__(self, sock: Socket, limits: Limits, host: str, via: str, identity: TlsIdentity = NO_IDENTITY) -> None:
        self.sock = sock
        self.limits = limits
        self.host = host
        self.via = via
        self._identity = identity
        self.lines = Lines(self.recv_into, Answers, self._released)
        self._is_tls = isinstance(sock, ssl.SSLSocket) or not isinstance(sock, socket.socket)
        self._poll = select.poll()
        self._files = 0
        self._closing = False
        sock.setblocking(False)

    # --- as http.client calls it ---

    def sendall(self, data: bytes) -> None:
        """Send all of `data`."""
        view = memoryview(data)
        while view:
            try:
                view = view[self.sock.send(view) :]
            except (OSError, ValueError) as error:
                self._wait(error, select.POLLOUT, "the request is not taken")

    def makefile(self, mode: str) -> Lines:
        """What an answer is read from: always the same, for it may have received more than one head."""
        self._files += 1
        return self.lines

    def close(self) -> None:
        """Close the socket, as soon as no answer reads from it any more."""
        self._closing = True
        if not self._files:
            self.sock.close()

    # --- as we call it ---

    def recv_into(self, view: memoryview) -> int:
        """The next bytes, at least one, into the front of `view`; 0 at the end."""
        while True:
            try:
                count = self.sock.recv_into(view)
                break
            except (OSError, ValueError) as error:
                self._wait(error, select.POLLIN, "no byte")
        if not count:
            self.limits.cancellation.require(self.host)
        elif self._is_tls:
            return self._fill_from_records(view, count)
        return count

    def is_stale(self) -> bool:
        """Whether the other side has closed, or sent what nobody asked for: then it must not be used again."""
        self._poll.register(self.sock, select.POLLIN)
        decrypted = self._is_tls and self.sock.pending()  # type: ignore[union-attr]  # of which plain ones have none
        return not self.lines.is_idle() or bool(decrypted) or bool(self._poll.poll(0))

    def interrupt(self) -> None:
        """End every wait of the thread that uses this connection; from any thread."""
        with suppress(OSError):  # not connected any more, which is what was wanted
            if isinstance(self.sock, socket.socket):
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # not SSLSocket's, which forgets its TLS state
            else:
                self.sock.interrupt()

    def _released(self) -> None:
        self._files -= 1
        if self._closing:
            self.close()

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

    def _wait(self, error: Exception, event: int, what: str) -> None:
        """Wait until the socket is ready for what `error` says it is not ready for."""
        limits = self.limits
        if isinstance(error, ssl.SSLWantReadError | ssl.SSLWantWriteError):
            event = select.POLLIN if isinstance(error, ssl.SSLWantReadError) else select.POLLOUT
        elif not isinstance(error, BlockingIOError):
            limits.cancellation.require(self.host)
            raise self._broken(error) from error
        seconds = limits.seconds(limits.times.idle, None, self.host, self.via)
        self._poll.register(self.sock, event)
        ready = self._poll.poll(seconds * 1000 + 1)
        limits.cancellation.require(self.host)
        if not ready:
            raise limits.expired(limits.times.idle, None, self.host, self.via, what)

    def _broken(self, error: Exception) -> SourceError:
        """Why a connection broke: a server that refuses us says so before it closes, which a send does not see."""
        if (self._is_tls and not isinstance(error, ssl.SSLError)) or isinstance(error, ssl.SSLEOFError):
            try:
                self.sock.recv(1)
            except ssl.SSLError as alert:
                error = alert
            except (OSError, ValueError):
                pass  # nothing was said
        if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
            return protocol_error(error, self.host, self.via, self._identity)
        return NetworkError.at(self.host, f"the connection is lost: {reason_of(error) or 'it broke'} ({self.via})")

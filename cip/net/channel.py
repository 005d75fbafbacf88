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

from ..errors import NetworkError, Phase, SourceError
from .limits import Limits
from .lines import Answers, Lines
from .tls import NO_IDENTITY, Socket, TlsIdentity, TlsSocket, protocol_error, reason_of


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
        self._poll = select.poll()
        self._files = 0
        self._closing = False
        if isinstance(sock, socket.socket):
            sock.setblocking(False)

    # --- as http.client calls it ---

    def sendall(self, data: bytes) -> None:
        """Send all of `data`."""
        view = memoryview(data)
        since = None
        while view:
            try:
                view = view[self.sock.send(view) :]
                since = None
            except OSError as error:
                since = self._wait(error, select.POLLOUT, since, "the request is not taken")

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
        since = None
        self.limits.seconds(0, None, self.host, self.via)  # bytes that are always there are not waited for
        while True:
            try:
                count = self.sock.recv_into(view)
                break
            except OSError as error:
                since = self._wait(error, select.POLLIN, since, "no byte")
        if not count:
            self.limits.cancellation.require(self.host)
        return count

    def shake_hands(self, host: str) -> None:
        """The TLS handshake with `host`, over in its time whatever the other side sends meanwhile.

        Raises SourceError (the tls codes) and NetworkError.
        """
        limit, since = self.limits.times.tls_handshake, self.limits.clock.monotonic()
        while isinstance(self.sock, TlsSocket):
            try:
                return self.sock.do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                self._wait(error, select.POLLIN, since, "no tls handshake", limit, Phase.TLS, host)
            except OSError as error:
                self.limits.cancellation.require(host)
                raise protocol_error(error, host, self.via, self._identity) from error

    def is_stale(self) -> bool:
        """Whether the other side has closed, or sent what nobody asked for: then it must not be used again."""
        self._poll.register(self.sock, select.POLLIN)
        decrypted = isinstance(self.sock, TlsSocket) and self.sock.pending()
        return not self.lines.is_idle() or bool(decrypted) or bool(self._poll.poll(0))

    def interrupt(self) -> None:
        """End every wait of the thread that uses this connection; from any thread."""
        with suppress(OSError):  # not connected any more, which is what was wanted
            self.sock.shutdown(socket.SHUT_RDWR)

    def _released(self) -> None:
        self._files -= 1
        if self._closing:
            self.close()

    def _wait(
        self,
        error: Exception,
        event: int,
        since: float | None,
        what: str,
        limit: float | None = None,
        phase: Phase | None = None,
        host: str = "",
    ) -> float:
        """Wait until the socket is ready for what `error` says it is not ready for, `limit` or the idle time at most.

        The time counts `since` the first wait for this content, which is now for None: what TLS keeps to itself is no
        answer. That time, for the next wait.
        """
        limits, host = self.limits, host or self.host
        limit = limits.times.idle if limit is None else limit
        if isinstance(error, ssl.SSLWantReadError | ssl.SSLWantWriteError):
            event = select.POLLIN if isinstance(error, ssl.SSLWantReadError) else select.POLLOUT
        elif not isinstance(error, BlockingIOError):
            limits.cancellation.require(host)
            raise self._broken(error) from error
        since = limits.clock.monotonic() if since is None else since
        left = limit - (limits.clock.monotonic() - since)
        seconds = min(limits.seconds(limit, phase, host, self.via), left)
        self._poll.register(self.sock, event)
        ready = seconds > 0 and self._poll.poll(seconds * 1000 + 1)
        limits.cancellation.require(host)
        if not ready:
            raise limits.expired(limit, phase, host, self.via, what)
        return since

    def _broken(self, error: Exception) -> SourceError:
        """Why a connection broke: a server that refuses us says so before it closes, which a send does not see."""
        cut = isinstance(error, ssl.SSLEOFError) or not isinstance(error, ssl.SSLError)
        if cut and isinstance(self.sock, TlsSocket):
            try:
                self.sock.recv_into(memoryview(bytearray(1)))
            except ssl.SSLError as alert:
                error = alert
            except OSError:
                pass  # nothing was said
        if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
            return protocol_error(error, self.host, self.via, self._identity)
        return NetworkError.at(self.host, f"the connection is lost: {reason_of(error) or 'it broke'} ({self.via})")

# SPDX-License-Identifier: Apache-2.0
"""TLS inside the TLS connection to a proxy."""

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

RECORD = 16 * 1024 + 512  # bytes, the largest record and what belongs to it
T = TypeVar("T")


class NestedTls:
    """What Channel and a handshake need of a socket that never blocks. `close` closes the outer one too."""

    def __init__(
        self, outer: ssl.SSLSocket, context: ssl.SSLContext, host: str, session: ssl.SSLSession | None
    ) -> None:
        self.outer = outer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._inner = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host, session=session)
        self._unsent = b""

    @property
    def session(self) -> ssl.SSLSession | None:
        """What resumes this connection."""
        return self._inner.session

    def do_handshake(self) -> None:
        """As SSLSocket's."""
        self._run(self._inner.do_handshake)

    def recv_into(self, view: memoryview) -> int:
        """As SSLSocket's."""
        return self._run(lambda: int(self._inner.read(len(view), view)))

    def recv(self, size: int) -> bytes:
        """As SSLSocket's."""
        return self._run(lambda: self._inner.read(size))

    def send(self, data: memoryview) -> int:
        """As SSLSocket's; what was taken is sent with the next call where the outer connection takes no more."""
        self._flush()
        count = self._inner.write(data)
        self._flush_some()
        return count

    def pending(self) -> int:
        """As SSLSocket's: bytes that can be read although nothing comes any more."""
        return self._inner.pending() + self._incoming.pending + self.outer.pending()

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self.outer.fileno()

    def setblocking(self, flag: bool) -> None:
        """It never blocks."""
        self.outer.setblocking(False)

    def close(self) -> None:
        """Close both."""
        self.outer.close()

    def interrupt(self) -> None:
        """End every wait, from any thread."""
        socket.socket.shutdown(self.outer, socket.SHUT_RDWR)

    def _run(self, call: Callable[[], T]) -> T:
        """Do one thing, feeding the inner connection as long as the outer one has something."""
        while True:
            self._flush()
            try:
                done = call()
            except ssl.SSLWantReadError:
                self._flush()
                record = self.outer.recv(RECORD)  # raises SSLWantReadError where nothing has come
                if record:
                    self._incoming.write(record)
                else:
                    self._incoming.write_eof()
                continue
            self._flush_some()  # what was read must not be lost to a wait
            return done

    def _flush_some(self) -> None:
        """Flush what the outer connection takes now."""
        with suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._flush()

    def _flush(self) -> None:
        self._unsent += self._outgoing.read()
        while self._unsent:
            self._unsent = self._unsent[self.outer.send(self._unsent) :]

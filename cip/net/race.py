# SPDX-License-Identifier: Apache-2.0
"""TCP connections to the first of several addresses that answers (RFC 8305, "Happy Eyeballs").

An address gets a head start of ATTEMPT_DELAY before the next one is tried beside it, so that a network that
swallows packets of one family costs a quarter of a second and not a time-out.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Sequence
from contextlib import closing

from ..errors import ErrorCode, NetworkError, Phase, SourceError
from .addresses import Address
from .limits import POLL, Limits
from .url import Origin

ATTEMPT_DELAY = 0.25  # seconds
_CODES = {errno.ETIMEDOUT: ErrorCode.TIMEOUT, errno.ECONNRESET: ErrorCode.CONNECTION_LOST}  # all else: refused


def connect(
    origin: Origin, addresses: Sequence[Address], limits: Limits, via: str, *, delay: float = ATTEMPT_DELAY
) -> tuple[socket.socket, Address]:
    """A connected socket in blocking mode, and the address it is connected to; the caller closes it.

    Raises NetworkError (connection-refused, timeout) after `limits.times.connect` seconds or when all have failed.
    """
    with closing(_Race(origin, limits, via)) as race:
        return race.run(list(addresses), delay)


def connect_local(path: str, limits: Limits) -> socket.socket:
    """A socket connected to a server on this host; the caller closes it. Raises SourceError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(limits.seconds(limits.times.connect, Phase.CONNECT, path, "direct"))
        sock.connect(path)
    except OSError as error:
        sock.close()
        why = (error.strerror or str(error)).lower()
        if isinstance(error, TimeoutError):
            raise NetworkError.at(path, why, code=ErrorCode.TIMEOUT, phase=Phase.CONNECT) from error
        raise SourceError.at(path, why, phase=Phase.CONNECT) from error
    return sock


class _Race:
    """Attempts that run beside each other; sockets in `pending` are not connected yet."""

    def __init__(self, origin: Origin, limits: Limits, via: str) -> None:
        self._origin = origin
        self._limits = limits
        self._via = via
        self._pending: dict[int, tuple[socket.socket, Address]] = {}
        self._poll = select.poll()
        self._failures: list[tuple[int, Address]] = []

    def run(self, waiting: list[Address], delay: float) -> tuple[socket.socket, Address]:
        host = self._origin.address
        end = time.monotonic() + self._limits.seconds(self._limits.times.connect, Phase.CONNECT, host, self._via)
        next_start = 0.0
        while True:
            now = time.monotonic()
            if waiting and (now >= next_start or not self._pending):
                winner = self._start(waiting.pop(0))
                if winner is not None:
                    return winner
                next_start = now + delay
                continue
            if not self._pending:
                raise self._all_failed()
            if now >= end:
                raise self._limits.expired(self._limits.times.connect, Phase.CONNECT, host, self._via, "no connection")
            self._limits.cancellation.require(host)
            wake = min(end, next_start, now + POLL) if waiting else min(end, now + POLL)
            for descriptor, _ in self._poll.poll(max(0.0, wake - now) * 1000 + 1):
                winner = self._finish(descriptor)
                if winner is not None:
                    return winner

    def close(self) -> None:
        for sock, _ in self._pending.values():
            sock.close()

    def _start(self, address: Address) -> tuple[socket.socket, Address] | None:
        try:
            sock = socket.socket(address.family, socket.SOCK_STREAM)
        except OSError as error:  # EAFNOSUPPORT: a host without IPv6, or out of descriptors
            self._failures.append((error.errno or 0, address))
            return None
        sock.setblocking(False)
        code = sock.connect_ex(address.endpoint)
        if code == errno.EINPROGRESS:
            self._pending[sock.fileno()] = (sock, address)
            self._poll.register(sock, select.POLLOUT)
            return None
        return self._settle(sock, address, code)

    def _finish(self, descriptor: int) -> tuple[socket.socket, Address] | None:
        sock, address = self._pending.pop(descriptor)
        self._poll.unregister(sock)
        return self._settle(sock, address, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _settle(self, sock: socket.socket, address: Address, code: int) -> tuple[socket.socket, Address] | None:
        if code:
            sock.close()
            self._failures.append((code, address))
            return None
        sock.setblocking(True)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock, address

    def _all_failed(self) -> NetworkError:
        """One cause for the code; every address and its cause for the reader."""
        causes = ", ".join(f"{address.text}: {os.strerror(code).lower()}" for code, address in self._failures[:4])
        codes = {code for code, _ in self._failures}
        refused = ErrorCode.CONNECTION_REFUSED
        code = _CODES.get(codes.pop(), refused) if len(codes) == 1 else refused
        why = f"no connection: {causes} ({self._via})"
        return NetworkError.at(self._origin.address, why, code=code, phase=Phase.CONNECT)

# SPDX-License-Identifier: Apache-2.0
"""The descriptors that the parent hands over: adopted, read from and written to.

An inherited number gets an owner at once. Everything adopted here is close-on-exec and blocking. Adopting the standard
streams moves them away from 0 and 1, so that neither a child nor a stray write can put bytes on the wire.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedIOBase

from ..content import undo_on_error
from ..errors import ErrorCode, PeerError, system_reason

_STDERR = 2


def adopt_socket(fd: int, kind: socket.SocketKind) -> socket.socket:
    """Take ownership of the inherited `fd`; the caller closes what it gets.

    Raises PeerError when `fd` is not open, not a connected socket, or not one of `kind`; then `fd` stays as it was.
    """
    if fd == _STDERR:
        raise _unusable(fd, "expected a socket of its own, found stderr, where log lines go")
    try:
        sock = socket.socket(fileno=fd)  # the kernel names family and type
    except (OSError, OverflowError, ValueError) as error:
        hint = "; a parent hands over one end of a socketpair by --sockfd N"
        raise _unusable(fd, system_reason(error) + (hint if isinstance(error, OSError) else "")) from error
    try:
        with undo_on_error(sock.detach):
            if sock.type != kind:
                raise _unusable(fd, f"expected a {kind.name} socket, found {socket.SocketKind(sock.type).name}")
            sock.getpeername()
            sock.setblocking(True)
            sock.set_inheritable(False)
    except OSError as error:
        raise _unusable(fd, system_reason(error)) from error
    return sock


@contextmanager
def adopt_streams(input_fd: int, output_fd: int) -> Iterator[tuple[int, int]]:
    """Take over two streams, an input and an output, until the end of the block.

    `input_fd` then reads from /dev/null and `output_fd` writes where stderr goes. Raises PeerError when one of them is
    not open, or not open in its direction.
    """
    with ExitStack() as stack:
        taken = []
        for fd, needed in ((input_fd, os.O_RDONLY), (output_fd, os.O_WRONLY)):
            _make_ready(fd, needed, f"descriptor {fd}")
            own = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1)  # a copy above the standard numbers
            stack.callback(os.close, own)
            taken.append(own)
        with open(os.devnull, "r+b", buffering=0) as null:
            os.dup2(null.fileno(), input_fd)
            try:
                os.dup2(_STDERR, output_fd)
            except OSError:  # EBADF: we were started without stderr
                os.dup2(null.fileno(), output_fd)
        yield taken[0], taken[1]


def adopt_writer(fd: int | None, option: str) -> int | None:
    """The inherited `fd`, checked and owned; the caller closes it. `option` is the flag that named it, or did not.

    Raises PeerError when it is not open for writing.
    """
    if fd is not None:
        _make_ready(fd, os.O_WRONLY, f"{option} {fd}")
        os.set_inheritable(fd, False)
    return fd


def _make_ready(fd: int, needed: int, what: str) -> None:
    """Make `fd`, which must be open in its direction, one that blocks; so is every copy of it. Raises PeerError."""
    try:
        mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        os.set_blocking(fd, True)
    except (OSError, OverflowError, ValueError) as error:
        raise PeerError(f"{what}: {system_reason(error)}", code=ErrorCode.REQUEST_INVALID) from error
    if mode not in (needed, os.O_RDWR):
        direction = "reading" if needed == os.O_RDONLY else "writing"
        raise PeerError(f"{what}: expected it to be open for {direction}", code=ErrorCode.REQUEST_INVALID)


def _unusable(fd: int, why: str) -> PeerError:
    return PeerError(f"descriptor {fd}: {why}", code=ErrorCode.REQUEST_INVALID)


class Output(BufferedIOBase):
    """`wfile`. What is written waits for what is sent, so a head and the first bytes leave in one call."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiting: list[bytes] = []
        self.sent = 0  # bytes, since the caller last set it

    def write(self, data: bytes) -> int:  # type: ignore[override]  # http.server writes bytes only
        """Put `data` in line."""
        self._waiting.append(data)
        return len(data)

    def flush(self) -> None:
        """Send what waits."""
        self.send()

    def close(self) -> None:
        """Nothing: the descriptor is the caller's, and the base's finaliser calls this at any time."""

    def drop(self) -> None:
        """Forget what waits."""
        self._waiting.clear()

    def send(self, *parts: bytes | memoryview) -> None:
        """Send what waits and then `parts`. Raises PeerError when the parent does not take it."""
        buffers: list[bytes | memoryview] = [*self._waiting, *parts]
        self._waiting.clear()
        while buffers:
            try:
                count = os.writev(self._fd, buffers)
            except OSError as error:
                why = f"the parent closed the connection before the end of an answer: {system_reason(error)}"
                raise PeerError(why) from error
            self.sent += count
            while buffers and count >= len(buffers[0]):
                count -= len(buffers.pop(0))
            if count:
                buffers[0] = memoryview(buffers[0])[count:]


def receive_into(fd: int, view: memoryview) -> int:
    """The next bytes of `fd`, at least one, into the front of `view`; 0 at the end. Raises PeerError."""
    try:
        return os.readv(fd, [view])
    except ConnectionResetError:
        return 0  # the parent left without reading all it asked for
    except OSError as error:
        raise PeerError(f"reading requests: {system_reason(error)}") from error

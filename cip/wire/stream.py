# SPDX-License-Identifier: Apache-2.0
"""The parent's stream as `http.server` uses it: what is read, and what is written, on plain descriptors."""

from __future__ import annotations

import os
from io import BufferedIOBase

from ..errors import PeerError


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
                raise PeerError(
                    f"the parent closed the connection before the end of an answer: {error.strerror}"
                ) from error
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
        raise PeerError(f"reading requests: {error.strerror}") from error

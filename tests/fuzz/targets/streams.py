# SPDX-License-Identifier: Apache-2.0
"""Bytes in memory as the streams that parsers read."""

from cip.net.limits import Cancellation, Clock, Limits
from cip.net.lines import Answers, Lines
from cip.settings import TimeLimits


class PiecewiseStream:
    """A stream that comes in small pieces: a socket of the parent, or the connection below an answer's body."""

    def __init__(self, data: bytes, piece: int) -> None:
        self._data = data
        self._piece = piece

    def receive(self, size: int) -> bytes:
        taken = self._data[: min(size, self._piece)]
        self._data = self._data[len(taken) :]
        return taken

    def receive_into(self, view: memoryview) -> int:
        taken = self.receive(len(view))
        view[: len(taken)] = taken
        return len(taken)


class PiecewiseChannel:
    """A connection below an answer of http.client; what is sent is kept."""

    host, via = "host:443", "direct"
    limits = Limits(Clock(), TimeLimits(), Cancellation())

    def __init__(self, data: bytes, piece: int) -> None:
        self.lines = Lines(PiecewiseStream(data, piece).receive_into, Answers)
        self.sent = bytearray()

    def makefile(self, mode: str) -> Lines:
        return self.lines

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        return

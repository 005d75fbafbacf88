# SPDX-License-Identifier: Apache-2.0
"""Bytes in memory as the streams that parsers read."""

from cip.errors import CipError


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

    def receive_line(self, limit: int) -> bytes:
        line, newline, rest = self._data.partition(b"\n")
        if len(line) > limit or not newline:
            raise CipError("a line that is too long, or cut")
        self._data = rest
        return line.removesuffix(b"\r")

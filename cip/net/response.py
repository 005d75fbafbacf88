# SPDX-License-Identifier: Apache-2.0
"""`http.client.HTTPResponse`, without its leniency: an ambiguous framing is refused, no body ends early in silence.

Of the library's ways to read a body one is left, `readinto`, which receives once and straight into the caller's
buffer. The others take the end of a connection for the end of a body, or fill a buffer while a stall clock waits.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable
from typing import Any, NoReturn

from .. import log
from ..content import read_limited
from ..errors import CipError, ContentMismatchError, NetworkError, RegistryError, quote
from ..model.descriptor import UNKNOWN_SIZE
from .channel import Channel
from .limits import Limits
from .lines import Answers, Chunks, EndedError, MalformedError, framing_of
from .url import Origin, Url

INTERIM_LIMIT = 8  # heads that may come for one answer
DRAIN_LIMIT = 64 * 1024  # bytes read of a body nobody wants, to keep its connection
DRAIN_SECONDS = 1.0


class GarbledError(RegistryError):
    """An answer that is not HTTP."""


class Response(http.client.HTTPResponse):
    """An answer whose body is still to be read; the caller closes it.

    `asked` is the URL that answered in the end, `size` the
    bytes of the body as stated, or UNKNOWN_SIZE, `paused` the seconds that --max-rate made us wait.
    """

    asked: Url
    budget: Callable[[Response, memoryview], int] | None = None  # reads what may come now; None: no limit
    size = 0
    paused = 0.0
    note = ""  # what an error made of it says besides, from `; ` on
    on_end: Callable[[bool], None] | None = None  # told once whether the connection may be used again
    discount: Callable[[int], None]  # counts its connection out of what its host may have, and in again
    _chunks: Chunks | None = None
    _received = 0
    _readable = False
    _method: str
    fp: Any  # None behind the end of the body

    def __init__(self, channel: Any, debuglevel: int = 0, method: str | None = None, url: str | None = None) -> None:
        super().__init__(channel, debuglevel, method, url)
        self.channel: Channel = channel
        self.via = self.channel.via

    @property
    def limits(self) -> Limits:
        """The limits of the next read; the caller may set them before each."""
        return self.channel.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        if self.fp is not None:  # else the connection may be somebody else's already
            self.channel.limits = limits

    @property
    def origin(self) -> Origin:
        """Who answered."""
        return self.asked.origin

    def begin(self) -> None:
        """Read the head of the final answer. Raises NetworkError, GarbledError."""
        try:
            super().begin()
            minor = 0 if self.version == 10 else 1
            if self._method in ("HEAD", "CONNECT") or self.status in (204, 304):
                self.length, self.chunked = 0, False
            else:
                self.length, self.chunked = framing_of(self.headers, minor, Answers)
        except (EndedError, MalformedError, http.client.HTTPException) as error:
            raise self._fault(error) from error
        self.size = UNKNOWN_SIZE if self.length is None else self.length
        self._chunks = Chunks(self.channel.lines) if self.chunked else None
        self._readable = True

    def _read_status(self) -> tuple[str, int, str]:
        """The status line of the final answer: the library skips 100 alone, and without a limit before 3.14.

        It would also split the line at what Python takes for white space; `Lines` has seen what stands where.
        """
        lines = self.channel.lines
        for _ in range(INTERIM_LIMIT):
            line = lines.readline()
            if not line:
                raise self._lost("before its answer")
            status = int(line[9:12])
            if status >= 200:
                return line[:8].decode("ascii"), status, line[12:].decode("latin-1").strip()
            if status == 101:
                break
            while lines.readline() != b"\r\n":
                continue
        raise MalformedError("expected a final answer, found interim ones only")

    def readinto(self, buffer: Any, /) -> int:
        """The next bytes of the body, 0 at its end. Raises NetworkError, GarbledError, CipError (budget-exhausted)."""
        if self.fp is None:
            return 0
        view = memoryview(buffer)
        try:
            if self._chunks is not None:
                left = self._chunks.next()
            else:
                left = len(view) if self.length is None else self.length
            if not left:
                self._finish()
                return 0
            count = self._receive(view[:left] if left < len(view) else view)
        except (EndedError, MalformedError) as error:
            raise self._fault(error) from error
        self._received += count
        if self._chunks is not None:
            self._chunks.left -= count
        elif self.length is not None:
            self.length -= count
        if not count and (self._chunks is not None or self.length is not None):
            raise self._cut()
        if not count or self.length == 0:
            self._finish()
        return count

    def read_all(self, limit: int, what: str) -> bytes:
        """The body, at most `limit` bytes; closes. Raises NetworkError, InvalidDocumentError (limit-exceeded)."""
        try:
            return read_limited(self, limit, what)
        finally:
            self.close()

    def require_uncompressed(self) -> None:
        """Return only for a body as it is stored; closes another one. Raises ContentMismatchError."""
        coding = (self.headers.get("content-encoding") or "identity").strip()
        if coding.lower() != "identity":
            self.close()
            why = f"expected content as it is stored, found it in content coding {quote(coding)}"
            raise ContentMismatchError.at(self.origin.address, why)

    def read_end(self) -> None:
        """Told that all wanted bytes were read: read the end mark of chunks too, for the sake of the connection."""
        if self.fp is not None and self.chunked and not self.will_close:
            self._drain()

    def close(self) -> None:
        """Keep the connection if the body was read to its end, or is nearly so; else close it."""
        if self.fp is not None and self._readable:
            if self.length == 0:
                self._finish()
            elif self.status >= 300 and self.size <= DRAIN_LIMIT and not self.will_close:
                self._drain()
        super().close()
        self._end(False)

    def __del__(self) -> None:
        """One that nobody closed reads nothing more, wherever the collector runs."""
        self._readable = False
        super().__del__()

    def discard(self) -> None:
        """Close a body that nobody wants, whatever the status: a short one is read, for the sake of the connection."""
        if self.fp is not None and self.size <= DRAIN_LIMIT and not self.will_close:
            self._drain()
        self.close()

    def _refuse(self, *_: object) -> NoReturn:
        raise NotImplementedError("a body is read by readinto alone")

    read = read1 = readline = peek = __iter__ = __next__ = _refuse  # type: ignore[assignment]

    def _receive(self, view: memoryview) -> int:
        if self.budget is None:
            return self.channel.lines.readinto(view)
        return self.budget(self, view)

    def _drain(self) -> None:
        """Read what a refusal or a redirect says, for the sake of the connection, but not for long."""
        limits = self.limits
        self.limits = limits.until(limits.clock.monotonic() + DRAIN_SECONDS)
        left = DRAIN_LIMIT
        try:
            with memoryview(bytearray(DRAIN_LIMIT)) as buffer:
                # --max-rate may make each read wait, though bytes are there
                while left > 0 and self.limits.remaining() > 0 and (count := self.readinto(buffer[:left])):
                    left -= count
        except CipError as error:
            log.debug("%s: the rest of an answer is not read: %s", self.channel.host, error)

    def _finish(self) -> None:
        """The body is complete."""
        self._close_conn()  # type: ignore[attr-defined]
        self._end(not self.will_close)

    def _end(self, reusable: bool) -> None:
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end(reusable)

    def _fault(self, error: Exception) -> CipError:
        """What an exception of the library or of the line reader means to us."""
        if isinstance(error, EndedError):
            return self._lost("in the middle of a body" if self._readable else "in the middle of an answer")
        said = str(error) if isinstance(error, MalformedError) else quote(str(error))
        host = self.channel.host  # one garbled head on its way is an accident; a body is asked for elsewhere
        return GarbledError(f"{host} ({self.channel.via}): {said}", host=host, may_pass=not self._readable)

    def _lost(self, when: str) -> NetworkError:
        return NetworkError.at(self.channel.host, f"the connection ended {when} ({self.channel.via})")

    def _cut(self) -> NetworkError:
        expected = "more" if self.chunked else f"{self.size} bytes"
        why = f"the body ended early: expected {expected}, found {self._received} bytes ({self.channel.via})"
        return NetworkError.at(self.channel.host, why)

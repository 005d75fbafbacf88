# SPDX-License-Identifier: Apache-2.0
"""What one operation may take: time and on whose clock, waiting without progress; and who may call it off."""

import math
import threading
import time
from collections.abc import Callable

from ..errors import ErrorCode, NetworkError, Phase
from ..settings import TimeLimits

POLL = 0.1  # seconds after which a wait that nobody can wake looks whether it was called off


class Clock:
    """The clock of this machine; tests bring their own."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary point."""
        return time.monotonic()

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float, cancellation: "Cancellation") -> None:
        """Wait, but no longer than until the work is called off."""
        cancellation.event.wait(seconds)


def _nothing() -> None:
    """Nothing is in use."""


class Cancellation:
    """Calls off one piece of work from another thread: sleeps end, the connection in use is shut down."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._interrupt: Callable[[], object] = _nothing

    @property
    def cancelled(self) -> bool:
        """Whether it was called off."""
        return self.event.is_set()

    def attach(self, interrupt: Callable[[], object] = _nothing) -> None:
        """What ends every read and write of the connection that is now in use, from any thread, more than once."""
        self._interrupt = interrupt
        if self.cancelled:  # it looks after it has set, as `cancel` does: one sees the other
            interrupt()

    def cancel(self) -> None:
        """Call it off."""
        self.event.set()
        self._interrupt()

    def require(self, host: str) -> None:
        """Return only while nobody called it off. Raises NetworkError."""
        if self.event.is_set():
            raise NetworkError.at(host, "given up by the caller")


class Limits:
    """The limits of one try: the settings' times, and the moment (of `clock.monotonic`) at which it must be over."""

    def __init__(self, clock: Clock, times: TimeLimits, cancellation: Cancellation, deadline: float = math.inf) -> None:
        self.clock, self.times, self.cancellation, self.deadline = clock, times, cancellation, deadline

    def until(self, deadline: float) -> "Limits":
        """The same, over at `deadline` if that comes first."""
        return Limits(self.clock, self.times, self.cancellation, min(self.deadline, deadline))

    def remaining(self) -> float:
        """Seconds until the deadline; negative when it has passed."""
        return self.deadline - self.clock.monotonic()

    def seconds(self, limit: float, phase: Phase | None, host: str, via: str) -> float:
        """How long one step may take that may take `limit` by itself. Raises NetworkError (timeout) at the deadline."""
        self.cancellation.require(host)
        remaining = self.remaining()
        if remaining <= 0:
            raise self.expired(limit, phase, host, via, "no complete answer")
        return min(limit, remaining)

    def expired(self, limit: float, phase: Phase | None, host: str, via: str, what: str) -> NetworkError:
        """The error for a step that took longer than `limit`, or than the deadline let it."""
        left = f"the time for this request (--open-timeout, --stall-timeout {self.times.stall:g} s, --deadline)"
        within = f"within {limit:g} s" if self.remaining() > 0.001 else f"within {left}"
        return NetworkError.at(host, f"{what} {within} ({via})", code=ErrorCode.TIMEOUT, phase=phase)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for `event`; False after `seconds`. Raises NetworkError when called off meanwhile."""
        end = time.monotonic() + seconds
        while not event.wait(max(0.0, min(POLL, end - time.monotonic()))):
            self.cancellation.require("connection")
            if time.monotonic() >= end:
                return event.is_set()
        return True


class StallTimer:
    """Counts seconds of waiting for a source against the bytes it sent; the parent's own pauses do not count.

    Progress is a rate of at least `min_rate` since the last progress, so a byte now and then is none.
    """

    def __init__(self, stall: float, times: TimeLimits, min_rate: int) -> None:
        self.stall = stall  # seconds without progress that end a blob
        self._window = times.rate_window
        self._min_rate = min_rate
        self._waited = 0.0  # since the last progress, over all tries
        self._received = 0
        self._try_waited = 0.0
        self._try_received = 0

    def begin_try(self) -> None:
        """A new try has the whole rate window to itself."""
        self._try_waited = 0.0
        self._try_received = 0

    def count(self, waited: float, received: int, *, known: bool = False) -> None:
        """Seconds that were waited for `received` bytes.

        `known` ones are read once more because an endpoint ignores ranges: they cost no time while they come
        fast enough, and give none back.
        """
        if not (known and received >= self._min_rate * waited):
            self._waited += waited
        self._try_waited += waited
        self._try_received += received
        if not known:
            self._received += received
            if received and self._received >= self._min_rate * self._waited:
                self._waited = 0.0
                self._received = 0
        if self._try_waited >= self._window and not self.is_too_slow():
            self.begin_try()

    def is_too_slow(self) -> bool:
        """Whether the present try sent less than `min_rate` over the rate window."""
        return self._try_waited >= self._window and self._try_received < self._min_rate * self._try_waited

    def remaining(self) -> float:
        """Seconds that may still pass without progress."""
        return self.stall - self._waited

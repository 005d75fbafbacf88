# SPDX-License-Identifier: Apache-2.0
"""How long one operation may still take, on whose clock, and who may call it off."""

import math
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

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


class Cancellation:
    """Calls off one piece of work from another thread: sleeps end, the connection in use is shut down."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._interrupt: Callable[[], object] | None = None

    @property
    def cancelled(self) -> bool:
        """Whether it was called off."""
        return self.event.is_set()

    def attach(self, interrupt: Callable[[], object] | None) -> None:
        """What ends every read and write of the connection that is now in use, from any thread, more than once."""
        self._interrupt = interrupt
        if self.cancelled and interrupt is not None:  # it looks after it has set, as `cancel` does: one sees the other
            interrupt()

    def cancel(self) -> None:
        """Call it off."""
        self.event.set()
        interrupt = self._interrupt
        if interrupt is not None:
            interrupt()

    def require(self, host: str) -> None:
        """Return only while nobody called it off. Raises NetworkError."""
        if self.event.is_set():
            raise NetworkError.at(host, "given up by the caller")


class Limits(NamedTuple):
    """The limits of one try: the settings' times, and the moment (of `clock.monotonic`) at which it must be over."""

    clock: Clock
    times: TimeLimits
    cancellation: Cancellation
    deadline: float = math.inf

    def until(self, deadline: float) -> "Limits":
        """The same, over at `deadline` if that comes first."""
        return self._replace(deadline=min(self.deadline, deadline))

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
        within = f"within {limit:g} s" if self.remaining() > 0.001 else "within the time for this request"
        return NetworkError.at(host, f"{what} {within} ({via})", code=ErrorCode.TIMEOUT, phase=phase)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for `event`; False after `seconds`. Raises NetworkError when called off meanwhile."""
        end = time.monotonic() + seconds
        while not event.wait(max(0.0, min(POLL, end - time.monotonic()))):
            self.cancellation.require("connection")
            if time.monotonic() >= end:
                return event.is_set()
        return True

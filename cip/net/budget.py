# SPDX-License-Identifier: Apache-2.0
"""How many bytes the process may take from the network, in all and in a second."""

import threading
from typing import TYPE_CHECKING

from ..errors import ErrorCode, SourceError
from .limits import Cancellation, Clock

if TYPE_CHECKING:
    from .response import Response

BURST_SECONDS = 0.125  # of the rate that may come at once


class Budget:
    """Counts the body bytes of the process, repeats included; safe from any thread. 0 is no limit."""

    def __init__(self, max_rate: int, max_bytes: int, clock: Clock) -> None:
        self._rate = max_rate
        self._bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._taken = 0
        self._free_at = 0.0  # when what was taken is paid for

    def receive(self, response: "Response", view: memoryview) -> int:
        """The next bytes of a body; what they waited for the rate is added to `paused` of the answer.

        Raises SourceError (budget-exhausted) when the bytes are used up.
        """
        channel, cancellation = response.channel, response.channel.limits.cancellation
        began = self._clock.monotonic()
        granted = self.grant(len(view), channel.host, cancellation)
        response.paused += self._clock.monotonic() - began
        count = 0
        try:
            count = channel.lines.readinto(view[:granted])
        finally:
            self.settle(granted, count)
        return count

    def grant(self, wanted: int, host: str, cancellation: Cancellation) -> int:
        """How many of `wanted` bytes may be read now, at least 1; waits while the rate is used up.

        The caller owes `settle`. Raises SourceError (budget-exhausted) when the bytes are used up.
        """
        wait = 0.0
        with self._lock:
            if self._bytes:
                wanted = min(wanted, self._bytes - self._taken)
                if wanted <= 0:
                    why = f"--max-bytes allows {self._bytes} bytes from the network, and they are used up"
                    raise SourceError.at(host, why, code=ErrorCode.BUDGET_EXHAUSTED)
            if self._rate:
                wanted = min(wanted, max(1, int(self._rate * BURST_SECONDS)))
                now = self._clock.monotonic()
                wait = self._free_at - now
                self._free_at = max(self._free_at, now) + wanted / self._rate
            self._taken += wanted
        if wait > 0:
            self._clock.sleep(wait, cancellation)
        return wanted

    def settle(self, granted: int, used: int) -> None:
        """Told that of `granted` bytes only `used` came."""
        with self._lock:
            self._taken -= granted - used
            if self._rate:
                self._free_at -= (granted - used) / self._rate

# SPDX-License-Identifier: Apache-2.0
"""How many bytes the process may take from the network, in all and in a second."""

import threading

from ..errors import ErrorCode, SourceError
from .limits import Cancellation, Clock

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

# SPDX-License-Identifier: Apache-2.0
"""When waiting for a blob has gone on for too long (decisions.md section 3)."""

from __future__ import annotations

from ..settings import TimeLimits


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

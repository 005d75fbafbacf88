# SPDX-License-Identifier: Apache-2.0
"""How many blobs are read from one host at once; the next one waits for its turn.

Apart from the pool, because this wait is our own: no clock of a stall runs meanwhile, and it has no end but the
parent's patience. Configs and signatures take none, for they have a time. Of many connections one is left free, so
that opening an image does not wait for idle blobs.
"""

from __future__ import annotations

import threading

from ..net.limits import POLL, Cancellation

SPARE_FROM = 8  # connections from which on one is kept free of blobs


class Turns:
    """At most as many turns for each host as there may be connections; safe from any thread."""

    def __init__(self, connections: int) -> None:
        self._limit = max(1, connections - (connections >= SPARE_FROM))
        self._changed = threading.Condition()
        self._taken: dict[str, int] = {}

    def take(self, host: str, cancellation: Cancellation) -> None:
        """Wait for a turn at `host`; the caller owes `give_back`. Raises NetworkError when called off."""
        with self._changed:
            while self._taken.get(host, 0) >= self._limit:
                cancellation.require(host)
                self._changed.wait(POLL)
            self._taken[host] = self._taken.get(host, 0) + 1

    def give_back(self, host: str) -> None:
        """Let the next one have it."""
        with self._changed:
            self._taken[host] -= 1
            self._changed.notify_all()

# SPDX-License-Identifier: Apache-2.0
"""How many blobs are read from one host at once; the next one waits, or takes the share of one that nobody reads.

Apart from the pool, because this wait is our own: no clock of a stall runs meanwhile. Configs and signatures are not
counted, for they have a time. Of many connections one is left free, so that opening an image does not wait for blobs.
A parent reads its blobs in an order of its own: one that it leaves alone has to give way as soon as another one waits.
"""

from __future__ import annotations

import threading
from typing import Protocol

from ..content import ON_WAIT
from ..net.limits import POLL, Cancellation

SPARE_FROM = 8  # connections from which on one is kept free of blobs
GIVE_WAY_SECONDS = 0.5  # that nobody has read a blob before it has to give way; a busy parent leaves it alone for less


class Holder(Protocol):
    """A blob that has a share."""

    def idle_seconds(self) -> float:
        """How long nobody has read from it, 0 while somebody does. Takes no lock."""
        ...

    def give_way(self) -> None:
        """Give the share back, unless somebody reads again."""
        ...


class HostLimit:
    """At most as many shares of each host as there may be connections; safe from any thread."""

    def __init__(self, connections: int) -> None:
        self._limit = max(1, connections - (connections >= SPARE_FROM))
        self._changed = threading.Condition()
        self._holders: dict[str, set[Holder]] = {}

    def take(self, host: str, holder: Holder, cancellation: Cancellation) -> None:
        """Wait for a share of `host`; `holder` owes `give_back`. Raises NetworkError when called off."""
        told = False
        while True:
            cancellation.require(host)
            with self._changed:
                holders = self._holders.setdefault(host, set())
                if len(holders) < self._limit:
                    holders.add(holder)
                    return
                idlest = max(holders, key=lambda each: each.idle_seconds())
                is_idle = idlest.idle_seconds() >= GIVE_WAY_SECONDS
                if told and not is_idle:
                    self._changed.wait(POLL)
            if is_idle:
                idlest.give_way()
            elif not told:
                ON_WAIT.get()()
                told = True

    def give_back(self, host: str, holder: Holder) -> None:
        """Let the next one have it."""
        with self._changed:
            self._holders[host].discard(holder)
            self._changed.notify_all()

# SPDX-License-Identifier: Apache-2.0
"""How each host is treated: how many blobs are read from it at once, and what a parent is told while it is silent.

The next blob waits, or takes the share of one that nobody reads. Apart from the pool, because this wait is our own: no
clock of a stall runs meanwhile. Configs and signatures are not counted, for they have a time. Of many connections one
is left free, so that opening an image does not wait for blobs. A parent reads its blobs in an order of its own: one
that it leaves alone has to give way as soon as another one waits.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from ..content import ON_WAIT
from ..errors import CipError, ErrorCode
from ..net.limits import POLL, Cancellation, Clock

SPARE_FROM = 8  # connections from which on one is kept free of blobs
GIVE_WAY_SECONDS = 0.5  # that nobody has read a blob before it has to give way; a busy parent leaves it alone for less
SILENT_SECONDS = 2.0  # without an answer, after which a host counts as silent (decisions.md section 10)


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


class Silence:
    """Hosts that owe an answer for long, or whose last one never came; safe from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: dict[str, list[float]] = {}  # moments of requests that are not answered yet
        self._silent: set[str] = set()

    @contextmanager
    def asking(self, host: str) -> Iterator[None]:
        """Around a request; whoever waits for its answer is told at once when the host is silent already."""
        now = self._clock.monotonic()
        with self._lock:
            owed = self._asked.setdefault(host, [])
            silent = host in self._silent or (bool(owed) and now - min(owed) >= SILENT_SECONDS)
            owed.append(now)
        if silent:
            ON_WAIT.get()()
        silent = False
        try:
            yield
        except CipError as error:
            silent = error.code is ErrorCode.TIMEOUT
            raise
        finally:
            with self._lock:
                owed.remove(now)
                (self._silent.add if silent else self._silent.discard)(host)

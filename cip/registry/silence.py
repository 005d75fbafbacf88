# SPDX-License-Identifier: Apache-2.0
"""Which hosts say nothing at present: a parent is not kept waiting for what they have been asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..content import ON_WAIT
from ..errors import CipError, ErrorCode
from ..net.limits import Clock

SILENT_SECONDS = 2.0  # without an answer, after which a host counts as silent (decisions.md section 10)


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
        try:
            yield
        except CipError as error:
            self._end(host, now, silent=error.code is ErrorCode.TIMEOUT)
            raise
        else:
            self._end(host, now, silent=False)

    def _end(self, host: str, began: float, *, silent: bool) -> None:
        with self._lock:
            self._asked[host].remove(began)
            (self._silent.add if silent else self._silent.discard)(host)

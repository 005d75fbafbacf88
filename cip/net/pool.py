# SPDX-License-Identifier: Apache-2.0
"""Connections kept for the next request: per origin, TLS identity and proxy, at most so many at once.

A transfer that finds all of them busy waits for its turn; no lock is held while anything happens on the network.
"""

from __future__ import annotations

import threading
from collections import deque

from ..errors import CipError
from .connection import Connection, Route
from .limits import POLL, Limits

IDLE_SECONDS = 60.0  # an idle connection is not used again after that
FAILED_SECONDS = 3.0  # for which the failure of a connection that was expected is that of its first user


class ConnectionPool:
    """At most `limit` connections for each route, idle ones included; safe from any thread."""

    def __init__(self, limit: int) -> None:
        self._limit = max(1, limit)
        self._changed = threading.Condition()
        self._idle: dict[Route, deque[Connection]] = {}
        self._open: dict[Route, int] = {}
        self._expected: set[Route] = set()
        self._failed: dict[Route, tuple[float, CipError]] = {}  # when and why one that was expected did not arrive
        self._closed = False

    def take(self, route: Route, limits: Limits, *, fresh: bool = False) -> Connection | None:
        """An idle connection, or None: the caller may open one and owes `give_back` or `forget`.

        With `fresh` idle ones are closed, for they may be as dead as the one that has just failed. Waits while the
        route has all the connections it may have, or one is `expect`ed. Raises NetworkError (timeout) at the deadline
        of `limits`, and what kept the expected one from arriving.
        """
        while True:
            with self._changed:
                now = limits.clock.monotonic()
                failed_at, error = self._failed.pop(route, (0.0, None))
                if error is not None and now - failed_at <= FAILED_SECONDS:
                    raise error
                expected = route in self._expected
                found = None if expected else self._pop(route, now)
                if found is None and not expected and self._open.get(route, 0) < self._limit:
                    self._open[route] = self._open.get(route, 0) + 1
                    return None
                if found is None:
                    self._changed.wait(POLL)
            if found is not None and not (fresh or found.is_stale()):
                return found
            if found is not None:
                self.forget(route, found)
            host = route.origin.address
            limits.cancellation.require(host)
            if limits.remaining() <= 0:
                raise limits.expired(0, None, host, route.via, "no free connection")

    def expect(self, route: Route) -> None:
        """Count a connection that is opened before anybody asked for it; whoever opens it owes `arrive`."""
        with self._changed:
            self._open[route] = self._open.get(route, 0) + 1
            self._expected.add(route)

    def arrive(self, route: Route, outcome: Connection | CipError | None, now: float) -> None:
        """Keep the connection that was expected, or why there is none, for its first user; None tells nobody."""
        with self._changed:
            self._expected.discard(route)
            if isinstance(outcome, CipError):
                self._failed[route] = now, outcome
        if isinstance(outcome, Connection):
            self.give_back(outcome, now)
        else:
            self.forget(route, None)

    def give_back(self, connection: Connection, now: float) -> None:
        """Keep a connection whose last answer was read to its end."""
        connection.idle_since = now
        with self._changed:
            if not self._closed:
                self._idle.setdefault(connection.route, deque()).append(connection)
                self._changed.notify()
                return
        self.forget(connection.route, connection)

    def forget(self, route: Route, connection: Connection | None) -> None:
        """Close a connection, or give up opening one; somebody else may open one instead."""
        if connection is not None:
            connection.close()
        with self._changed:
            self._open[route] -= 1
            self._changed.notify()

    def discount(self, route: Route, connections: int) -> None:
        """Count so many fewer, or more, as taken: one that waits for nobody but its reader must not stop others."""
        with self._changed:
            self._open[route] -= connections
            self._changed.notify()

    def drop_idle(self, route: Route) -> None:
        """Close what is idle on `route`."""
        with self._changed:
            idle = self._idle.pop(route, ())
        for connection in idle:
            self.forget(route, connection)

    def close(self) -> None:
        """Close what is idle; connections in use are closed when they are given back."""
        with self._changed:
            self._closed = True
            routes = list(self._idle)
        for route in routes:
            self.drop_idle(route)

    def _pop(self, route: Route, now: float) -> Connection | None:
        """The one used last: it is the least likely to have been closed by the other side."""
        kept = self._idle.get(route)
        while kept:
            connection = kept.pop()
            if now - connection.idle_since <= IDLE_SECONDS:
                return connection
            connection.close()
            self._open[route] -= 1
        return None

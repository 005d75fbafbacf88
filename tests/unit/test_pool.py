# SPDX-License-Identifier: Apache-2.0
"""The pool: reuse, the ceiling, and connections that died meanwhile."""

import socket
import sys
import threading
from unittest import mock

from cip.errors import ErrorCode, NetworkError
from cip.net.channel import Channel
from cip.net.connection import IDLE_LIMIT, IDLE_SECONDS, Connection, ConnectionPool, Route
from cip.net.limits import Cancellation, Limits
from cip.net.tls import SESSIONS_LIMIT, TlsContexts, TlsIdentity
from cip.net.url import Origin
from cip.settings import TimeLimits
from tests.support.leaks import LeakCheckedTestCase
from tests.support.origins import FakeClock

ROUTE = Route(Origin("https", "h", 443), TlsIdentity(), None)
OTHER = Route(Origin("https", "h", 443), TlsIdentity(verify=False), None)


class PoolTest(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch("cip.net.connection.POLL", 0.02))
        self.clock = FakeClock()
        self.pool = ConnectionPool(2)
        self.limits = Limits(self.clock, TimeLimits(), Cancellation())
        self.peers: list[socket.socket] = []
        self.addCleanup(self.pool.close)

    def open(self, route: Route = ROUTE) -> Connection:
        ours, theirs = socket.socketpair()
        self.peers.append(theirs)
        self.addCleanup(theirs.close)
        connection = Connection(route, TlsContexts())
        connection.sock = Channel(ours, self.limits, "h:443", "direct")
        connection.uses = 1
        self.addCleanup(connection.close)
        return connection

    def take_new(self, route: Route = ROUTE) -> Connection:
        self.assertIsNone(self.pool.take(route, self.limits))
        return self.open(route)

    def test_a_connection_is_used_again_by_the_same_route_only(self) -> None:
        connection = self.take_new()
        self.pool.give_back(connection, self.clock.now)
        other = self.take_new(OTHER)
        self.assertIs(self.pool.take(ROUTE, self.limits), connection)
        self.pool.forget(OTHER, other)
        self.pool.forget(ROUTE, connection)

    def test_idle_ones_of_a_route_can_be_dropped_at_once(self) -> None:
        first, second, other = self.take_new(), self.take_new(), self.take_new(OTHER)
        for connection in (first, second, other):
            self.pool.give_back(connection, self.clock.now)
        self.pool.drop_idle(ROUTE)
        self.assertEqual((first.sock, second.sock), (None, None))
        self.assertIs(self.pool.take(OTHER, self.limits), other)
        for _ in range(2):
            self.pool.forget(ROUTE, self.take_new())
        self.pool.forget(OTHER, other)

    def test_the_one_used_last_is_taken_first(self) -> None:
        first, second = self.take_new(), self.take_new()
        self.pool.give_back(first, self.clock.now)
        self.pool.give_back(second, self.clock.now)
        self.assertIs(self.pool.take(ROUTE, self.limits), second)
        self.pool.forget(ROUTE, second)

    def test_dead_and_old_connections_are_not_used_again(self) -> None:
        self.pool.give_back(self.take_new(), self.clock.now)
        self.peers[0].close()
        self.pool.give_back(self.take_new(), self.clock.now)
        self.clock.now += IDLE_SECONDS + 1
        connection = self.take_new()
        self.pool.forget(ROUTE, connection)

    def test_before_its_first_answer_a_connection_may_have_received_something(self) -> None:
        early = self.take_new()
        early.uses = 0
        self.peers[0].sendall(b"a ticket of TLS 1.3")
        self.pool.give_back(early, self.clock.now)
        self.assertIs(self.pool.take(ROUTE, self.limits), early)
        self.pool.forget(ROUTE, early)

    def test_a_fresh_one_is_fresh(self) -> None:
        self.pool.give_back(self.take_new(), self.clock.now)
        self.assertIsNone(self.pool.take(ROUTE, self.limits, fresh=True))
        self.pool.forget(ROUTE, None)

    def test_at_the_ceiling_a_transfer_waits_for_another_to_end(self) -> None:
        first, second = self.take_new(), self.take_new()
        found: list[Connection | None] = []
        waiter = threading.Thread(target=lambda: found.append(self.pool.take(ROUTE, self.limits)))
        waiter.start()
        self.assertEqual(found, [])
        self.pool.give_back(first, self.clock.now)
        waiter.join(10)
        self.assertEqual(found, [first])
        self.pool.forget(ROUTE, first)
        self.pool.forget(ROUTE, second)

    def test_waiting_ends_at_the_deadline_and_when_called_off(self) -> None:
        held = [self.take_new(), self.take_new()]
        with self.assertRaisesRegex(NetworkError, "h:443: no free connection") as caught:
            self.pool.take(ROUTE, self.limits.until(self.clock.now))
        self.assertIs(caught.exception.code, ErrorCode.TIMEOUT)
        self.limits.cancellation.cancel()
        with self.assertRaisesRegex(NetworkError, "given up by the caller"):
            self.pool.take(ROUTE, self.limits)
        for connection in held:
            self.pool.forget(ROUTE, connection)

    def test_many_hosts_leave_few_idle_ones_and_those_used_last(self) -> None:
        """A registry that sends us to another host for each layer made the process run out of descriptors."""
        routes = [ROUTE._replace(origin=Origin("https", f"h{number}", 443)) for number in range(3 * IDLE_LIMIT)]
        connections = [self.take_new(route) for route in routes]
        for connection in connections:
            self.pool.give_back(connection, self.clock.now)
        self.assertEqual(
            [each.sock is not None for each in connections], [False] * 2 * IDLE_LIMIT + [True] * IDLE_LIMIT
        )
        self.assertIsNone(self.pool.take(routes[0], self.limits))
        self.assertIs(self.pool.take(routes[-1], self.limits), connections[-1])
        for route in (routes[0], routes[-1]):
            self.pool.forget(route, None)

    def test_sessions_of_many_hosts_are_not_all_kept(self) -> None:
        contexts = TlsContexts()
        for number in range(2 * SESSIONS_LIMIT):
            contexts.remember(mock.Mock(session=object()), Origin("https", f"h{number}", 443), TlsIdentity())
        self.assertEqual(len(contexts._sessions), SESSIONS_LIMIT)

    def test_threads_that_keep_sessions_at_once_lose_nothing_to_each_other(self) -> None:
        contexts = TlsContexts()
        faults: list[Exception] = []

        def keep(first: int) -> None:
            try:
                for number in range(first, first + 10_000):
                    contexts.remember(sock, Origin("https", f"h{number}", 443), TlsIdentity())
            except (KeyError, RuntimeError) as error:
                faults.append(error)

        sock = mock.Mock(session=object())
        interval = sys.getswitchinterval()
        self.addCleanup(sys.setswitchinterval, interval)
        sys.setswitchinterval(1e-6)
        threads = [threading.Thread(target=keep, args=(10_000 * number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((faults, len(contexts._sessions)), ([], SESSIONS_LIMIT))

    def test_what_comes_back_after_the_end_is_closed(self) -> None:
        connection = self.take_new()
        self.pool.close()
        self.pool.give_back(connection, self.clock.now)
        self.assertIsNone(connection.sock)

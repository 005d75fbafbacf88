# SPDX-License-Identifier: Apache-2.0
"""The pool: reuse, the ceiling, and connections that died meanwhile."""

import socket
import threading

from cip.errors import ErrorCode, NetworkError
from cip.net.addresses import Address, AddressClass
from cip.net.connection import Connection, Route
from cip.net.limits import Cancellation, Limits
from cip.net.pool import IDLE_SECONDS, ConnectionPool
from cip.net.tls import TlsIdentity
from cip.net.url import Origin
from cip.registry.turns import Turns
from cip.settings import TimeLimits
from tests.support.leaks import LeakCheckedTestCase
from tests.support.origins import FakeClock

ROUTE = Route(Origin("https", "h", 443), TlsIdentity(), None)
OTHER = Route(Origin("https", "h", 443), TlsIdentity(verify=False), None)


class PoolTest(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = FakeClock()
        self.pool = ConnectionPool(2)
        self.limits = Limits(self.clock, TimeLimits(), Cancellation())
        self.peers: list[socket.socket] = []
        self.addCleanup(self.pool.close)

    def open(self, route: Route = ROUTE) -> Connection:
        ours, theirs = socket.socketpair()
        self.peers.append(theirs)
        self.addCleanup(theirs.close)
        return Connection(ours, route, Address(1, (), "x", AddressClass.PUBLIC), self.limits)

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
        self.assertEqual((first.sock.fileno(), second.sock.fileno()), (-1, -1))
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

    def test_what_comes_back_after_the_end_is_closed(self) -> None:
        connection = self.take_new()
        self.pool.close()
        self.pool.give_back(connection, self.clock.now)
        self.assertEqual(connection.sock.fileno(), -1)


class TurnsTest(LeakCheckedTestCase):
    def test_the_next_blob_waits_and_hosts_do_not_wait_for_each_other(self) -> None:
        turns = Turns(1)
        turns.take("a", Cancellation())
        turns.take("b", Cancellation())
        waiter = threading.Thread(target=turns.take, args=("a", Cancellation()))
        waiter.start()
        self.assertTrue(waiter.is_alive())
        turns.give_back("a")
        waiter.join(10)
        self.assertFalse(waiter.is_alive())

    def test_waiting_ends_when_called_off(self) -> None:
        turns, cancellation = Turns(1), Cancellation()
        turns.take("a", Cancellation())
        cancellation.cancel()
        with self.assertRaisesRegex(NetworkError, "given up by the caller"):
            turns.take("a", cancellation)

    def test_of_many_one_is_kept_for_documents(self) -> None:
        turns, late = Turns(64), Cancellation()
        for _ in range(63):
            turns.take("a", Cancellation())
        late.cancel()
        with self.assertRaises(NetworkError):
            turns.take("a", late)

# SPDX-License-Identifier: Apache-2.0
"""The early connection: handed to the first who asks for one on its route, or why there is none."""

import socket
import threading
from collections.abc import Callable
from unittest import mock

from cip.early import FAILED_SECONDS, EarlyConnection, EarlySocket
from cip.errors import CipError, ErrorCode, NetworkError
from cip.net.channel import Channel
from cip.net.connection import Connection, ConnectionPool, Route
from cip.net.limits import Cancellation, Limits
from cip.net.opener import Network
from cip.net.redaction import Secrets
from cip.net.tls import TlsContexts, TlsIdentity
from cip.net.url import Origin
from cip.settings import TimeLimits
from tests.support.leaks import LeakCheckedTestCase
from tests.support.origins import FakeClock
from tests.support.parent import PATIENCE

ROUTE = Route(Origin("https", "h", 443), TlsIdentity(), None)
OTHER = Route(Origin("https", "h", 443), TlsIdentity(verify=False), None)


class Prepared(Connection):
    """Connects by what the test says."""

    def __init__(self, route: Route, connecting: Callable[[Connection], None]) -> None:
        super().__init__(route, TlsContexts())
        self.connecting = connecting

    def connect(self) -> None:
        self.connecting(self)


class EarlyConnectionTest(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = FakeClock()
        self.pool = ConnectionPool(2)
        self.limits = Limits(self.clock, TimeLimits(), Cancellation())
        self.may_connect = threading.Event()
        self.fault: CipError | None = None
        self.network = Network(
            self.pool,
            lambda route, limits: Prepared(route, self.connect),
            None,
            lambda origin: None,
            "agent",
            Secrets(),
        )
        dialled = mock.Mock(spec=EarlySocket)
        dialled.limits = Limits(self.clock, TimeLimits(), Cancellation())
        self.early_limits = dialled.limits
        self.early = EarlyConnection(self.network, ROUTE, dialled)
        self.addCleanup(self.early.close)
        self.addCleanup(self.may_connect.set)

    def connect(self, connection: Connection) -> None:
        self.assertTrue(self.may_connect.wait(PATIENCE))
        if self.fault is not None:
            raise self.fault
        ours, theirs = socket.socketpair()
        theirs.close()
        connection.sock = Channel(ours, self.early_limits, "h:443", "direct")

    def take(self, route: Route = ROUTE, limits: Limits | None = None) -> Connection:
        self.assertIsNone(self.pool.take(route, limits or self.limits))
        connection = self.network.new_connection(route, limits or self.limits)
        self.addCleanup(connection.close)
        return connection

    def test_is_waited_for_by_its_route_alone_and_taken_once(self) -> None:
        self.assertIsNone(self.take(OTHER).sock)
        threading.Timer(0.05, self.may_connect.set).start()
        self.assertIsNotNone(self.take().sock)
        self.assertIsNone(self.take().sock)

    def test_one_that_fails_tells_its_first_user_soon(self) -> None:
        self.fault = NetworkError("refused", code=ErrorCode.CONNECTION_REFUSED)
        self.may_connect.set()
        with self.assertRaises(NetworkError) as caught:
            self.take()
        self.assertIs(caught.exception, self.fault)
        for _ in range(2):  # all that the route may have, and told once
            self.assertIsNone(self.take().sock)

    def test_one_that_failed_long_ago_is_forgotten(self) -> None:
        self.fault = NetworkError("refused", code=ErrorCode.CONNECTION_REFUSED)
        self.may_connect.set()
        self.early.close()
        self.clock.now += FAILED_SECONDS + 0.1
        self.assertIsNone(self.take().sock)

    def test_one_that_was_called_off_tells_nobody(self) -> None:
        self.fault = NetworkError("given up by the caller")
        self.early_limits.cancellation.cancel()
        self.may_connect.set()
        self.assertIsNone(self.take().sock)

    def test_one_that_is_late_is_waited_for_until_the_deadline_and_taken_by_the_next(self) -> None:
        with self.assertRaises(NetworkError) as caught:
            self.take(limits=self.limits.until(self.clock.now))
        self.assertIs(caught.exception.code, ErrorCode.TIMEOUT)
        self.may_connect.set()
        self.assertIsNotNone(self.take().sock)

    def test_one_that_nobody_takes_is_closed(self) -> None:
        self.may_connect.set()
        with mock.patch.object(Connection, "close", autospec=True, side_effect=Connection.close) as closed:
            self.early.close()
        closed.assert_called_once()

# SPDX-License-Identifier: Apache-2.0
"""Connections that are made before anybody asks for them, over loopback."""

import socket
import unittest

from cip.early import EarlySocket
from cip.errors import ErrorCode, NetworkError
from cip.net.addresses import AddressClass
from cip.net.limits import Cancellation, Clock, Limits
from cip.net.url import Origin
from cip.settings import TimeLimits


class EarlySocketTest(unittest.TestCase):
    """Over loopback: a thread connects, and whoever is ready takes what came of it."""

    def setUp(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(5)  # seconds
        self.addCleanup(self.server.close)
        self.origin = Origin("https", "127.0.0.1", self.server.getsockname()[1])
        self.limits = Limits(Clock(), TimeLimits(), Cancellation())

    def test_is_taken_once(self) -> None:
        early = EarlySocket(self.origin, self.limits, "direct")
        found = early.take()
        assert found is not None
        with found[0]:
            self.assertEqual(found[0].getpeername(), self.server.getsockname())
            self.assertIs(found[1].kind, AddressClass.LOOPBACK)
        self.assertIsNone(early.take())
        early.close()

    def test_what_nobody_takes_is_closed(self) -> None:
        early = EarlySocket(self.origin, self.limits, "direct")
        accepted, _ = self.server.accept()
        with accepted:
            early.close()
            accepted.settimeout(5)
            self.assertEqual(accepted.recv(1), b"")

    def test_its_failure_is_told_to_who_takes_it(self) -> None:
        self.server.close()
        early = EarlySocket(self.origin, self.limits, "via proxy p")
        with self.assertRaisesRegex(NetworkError, r"no connection: .*via proxy p") as caught:
            early.take()
        self.assertIs(caught.exception.code, ErrorCode.CONNECTION_REFUSED)

# SPDX-License-Identifier: Apache-2.0
"""SOCKS 5 with a proxy that a test plays; real ones are asked by tests/integration/test_hostconfig.py."""

import unittest

from cip.errors import ErrorCode, NetworkError
from cip.net.connection import Connection, Route
from cip.net.limits import Cancellation, Clock, Limits
from cip.net.tls import TlsContexts, TlsIdentity
from cip.net.url import Origin
from cip.settings import TimeLimits
from tests.unit.test_connection import PROXY, ConnectionCase


class SocksTest(ConnectionCase):
    def test_a_name_that_is_too_long_for_socks_is_not_resolved(self) -> None:
        self.theirs.sendall(b"\x05\x00")
        far = Origin("https", "a" * 256, 443)
        made = Connection(Route(far, TlsIdentity(False), PROXY._replace(scheme="socks5")), TlsContexts())
        made.use(Limits(Clock(), TimeLimits(idle=0.05), Cancellation()))
        with self.assertRaisesRegex(NetworkError, "it is too long") as caught:
            made.connect()
        self.assertIs(caught.exception.code, ErrorCode.NAME_NOT_RESOLVED)


if __name__ == "__main__":
    unittest.main()

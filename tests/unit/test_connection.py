# SPDX-License-Identifier: Apache-2.0
"""New connections: tunnels through proxies, and judgement before anything is connected to."""

import socket
from unittest import mock

from cip.errors import CipError, ErrorCode, NetworkError, Phase, SourceError
from cip.hostconfig.proxyenv import Proxy
from cip.net import connection
from cip.net.addresses import Address, AddressClass
from cip.net.connection import Connection, Route
from cip.net.limits import Cancellation, Clock, Limits
from cip.net.tls import TlsContexts, TlsIdentity
from cip.net.url import Origin
from cip.settings import Credentials, TimeLimits
from tests.support.leaks import LeakCheckedTestCase

PROXY = Proxy("http", "p", 3128, Credentials("u", "hush"))
ORIGIN = Origin("https", "r.example", 443)


class ConnectionCase(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.ours, self.theirs = socket.socketpair()
        self.addCleanup(self.theirs.close)
        self.addCleanup(self.ours.close)
        self.kind = AddressClass.PUBLIC
        self.looked_up: list[str] = []
        for name, replacement in (("resolve", self.resolve), ("connect", self.connect)):
            patch = mock.patch.object(connection, name, replacement)
            patch.start()
            self.addCleanup(patch.stop)

    def resolve(self, origin: Origin, limits: Limits, via: str) -> list[Address]:
        self.looked_up.append(origin.address)
        return [Address(1, (), "9.9.9.9", self.kind)]

    def connect(
        self, origin: Origin, addresses: list[Address], limits: Limits, via: str
    ) -> tuple[socket.socket, Address]:
        return self.ours, addresses[0]

    def made(self, scheme: str = "https", proxy: Proxy | None = None) -> Connection:
        made = Connection(Route(ORIGIN._replace(scheme=scheme), TlsIdentity(False), proxy), TlsContexts())
        made.use(Limits(Clock(), TimeLimits(idle=0.05, tls_handshake=0.05), Cancellation()))
        self.addCleanup(made.close)
        return made

    def open(
        self, scheme: str = "https", proxy: Proxy | None = None, reached: frozenset[AddressClass] | None = None
    ) -> None:
        made = self.made(scheme, proxy)
        made.reached = reached
        made.connect()
        made.close()


class ConnectionTest(ConnectionCase):
    def test_a_tunnel_is_asked_for_with_the_proxy_s_credentials(self) -> None:
        self.theirs.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with self.assertRaises(CipError):
            self.open(proxy=PROXY)
        sent = self.theirs.recv(65536)
        head, _, rest = sent.partition(b"\r\n\r\n")
        self.assertEqual(
            head, b"CONNECT r.example:443 HTTP/1.1\r\nHost: r.example:443\r\nProxy-Authorization: Basic dTpodXNo"
        )
        self.assertEqual(rest[:1], b"\x16", "a TLS handshake")
        self.assertEqual(self.looked_up, ["p:3128"], "only the proxy knows where the registry is")

    def test_a_proxy_that_refuses_says_why(self) -> None:
        for answer, reason, code, status in (
            (b"HTTP/1.1 407 Who\r\n\r\n", "refuses the credentials", ErrorCode.AUTHENTICATION_FAILED, 407),
            (b"HTTP/1.1 403 No\r\n\r\n", "answers 403 to CONNECT", ErrorCode.REGISTRY_ERROR, 403),
            (b"HTTP/1.1 502 Bad\r\n\r\n", "answers 502 to CONNECT", ErrorCode.REGISTRY_ERROR, 502),
        ):
            with self.subTest(status):
                self.setUp()
                self.theirs.sendall(answer)
                with self.assertRaisesRegex(CipError, f"r.example:443: the proxy p:3128 {reason}") as caught:
                    self.open(proxy=PROXY)
                error = caught.exception
                self.assertEqual((error.code, error.http_status, error.phase), (code, status, Phase.PROXY))
                self.assertEqual(error.retryable, status >= 500)
                self.assertNotIn("hush", str(error))

    def test_a_silent_or_broken_proxy_is_told_as_such(self) -> None:
        for answer, code in ((None, ErrorCode.TIMEOUT), (b"", ErrorCode.CONNECTION_LOST), (b"x\r\n\r\n", None)):
            with self.subTest(answer):
                self.setUp()
                if answer is not None:
                    self.theirs.sendall(answer)
                    self.theirs.shutdown(socket.SHUT_WR)
                with self.assertRaises(CipError) as caught:
                    self.open(proxy=PROXY)
                self.assertIs(caught.exception.phase, Phase.PROXY)
                if code is not None:
                    self.assertIs(caught.exception.code, code)
                    self.assertIn("via proxy p:3128", str(caught.exception))

    def test_plain_http_needs_no_tunnel(self) -> None:
        self.open("http", PROXY)
        self.assertEqual(self.theirs.recv(1), b"")

    def test_an_address_is_judged_before_it_is_connected_to(self) -> None:
        self.kind = AddressClass.LOOPBACK
        with mock.patch.object(connection, "connect", side_effect=AssertionError("connected")):
            with self.assertRaisesRegex(CipError, "sends us to 9.9.9.9") as caught:
                self.open("http", reached=frozenset({AddressClass.PUBLIC}))
        self.assertIs(caught.exception.code, ErrorCode.ADDRESS_REFUSED)

    def test_a_proxy_may_be_anywhere(self) -> None:
        self.kind = AddressClass.LOOPBACK
        self.open("http", PROXY, frozenset())

    def test_a_proxy_that_cannot_be_reached_is_a_fault_of_the_proxy(self) -> None:
        fault = NetworkError("p: no", code=ErrorCode.CONNECTION_REFUSED, phase=Phase.CONNECT)
        with mock.patch.object(connection, "connect", side_effect=fault), self.assertRaises(NetworkError) as caught:
            self.open(proxy=PROXY)
        self.assertIs(caught.exception.phase, Phase.PROXY)

    def test_an_issuer_that_is_not_found_is_looked_for_once_more(self) -> None:
        fault = SourceError("not trusted", code=ErrorCode.TLS_UNTRUSTED)
        for times, fails in ((1, False), (2, True)):
            made = self.made()
            with (
                mock.patch.object(made, "_connect", side_effect=[*[fault] * times, None]) as connected,
                mock.patch.object(made._contexts, "trust_all", side_effect=[True, False]),
            ):
                if fails:
                    with self.assertRaises(SourceError):
                        made.connect()
                else:
                    made.connect()
                self.assertEqual(connected.call_count, 2)

    def test_a_failed_handshake_leaves_nothing_open(self) -> None:
        with self.assertRaises(NetworkError):
            self.open()
        self.assertEqual(self.ours.fileno(), -1)

    def test_bytes_behind_the_proxy_s_answer_are_no_part_of_a_handshake(self) -> None:
        self.theirs.sendall(b"HTTP/1.1 200 Connection established\r\n\r\nSURPLUS")
        with self.assertRaisesRegex(CipError, "expected tls, found bytes behind an answer") as caught:
            self.open(proxy=PROXY)
        self.assertEqual((caught.exception.code, caught.exception.phase), (ErrorCode.REGISTRY_ERROR, Phase.PROXY))

    def test_any_answer_of_success_opens_a_tunnel_and_has_no_body(self) -> None:
        for head in (
            b"HTTP/1.0 200 OK",
            b"HTTP/1.1 204 No",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5",
            b"HTTP/1.1 100 Wait\r\n\r\nHTTP/1.1 200 OK",
        ):
            with self.subTest(head):
                self.setUp()
                self.theirs.sendall(head + b"\r\n\r\n")
                with self.assertRaisesRegex(NetworkError, "no tls handshake within 0.05 s"):
                    self.open(proxy=PROXY)

    def test_a_closed_connection_connects_anew(self) -> None:
        # HTTPConnection.send calls connect where `sock` is None
        made = self.made("http")
        made.reached = None
        for _ in range(2):
            self.theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            made.request("GET", "/")
            made.getresponse().close()
            self.assertIsNone(made.sock)
            self.ours, self.theirs = socket.socketpair()
            self.addCleanup(self.theirs.close)
            self.addCleanup(self.ours.close)
        self.assertEqual(len(self.looked_up), 2)

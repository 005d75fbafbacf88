# SPDX-License-Identifier: Apache-2.0
"""One connection, on a socketpair: heads, lines, bodies, silence and interruption."""

import socket
import threading

from cip.errors import ErrorCode, NetworkError
from cip.net.addresses import Address, AddressClass
from cip.net.connection import Connection, Route
from cip.net.http1 import HEAD_LIMIT, GarbledError
from cip.net.limits import Cancellation, Limits, SystemClock
from cip.net.tls import TlsIdentity
from cip.net.url import Origin
from cip.settings import TimeLimits
from tests.support.leaks import LeakCheckedTestCase

ROUTE = Route(Origin("http", "h", 80), TlsIdentity(), None)


class ConnectionTest(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.connect()

    def connect(self) -> None:
        ours, self.peer = socket.socketpair()
        self.limits = Limits(SystemClock(), TimeLimits(idle=0.05), Cancellation())
        address = Address(socket.AF_UNIX, (), "x", AddressClass.PUBLIC)
        self.connection = Connection(ours, ROUTE, address, self.limits)
        self.addCleanup(self.peer.close)
        self.addCleanup(self.connection.close)

    def read(self, size: int) -> bytes:
        view = memoryview(bytearray(size))
        return bytes(view[: self.connection.receive_into(view)])

    def test_bytes_behind_a_head_belong_to_the_body(self) -> None:
        self.peer.sendall(b"HTTP/1.1 200 OK\r\nA: 1\r\n\r\nbody")
        self.assertEqual(self.connection.receive_head().fields.get("a"), "1")
        self.assertEqual((self.read(2), self.read(9)), (b"bo", b"dy"))
        self.assertEqual(self.connection.uses, 1)

    def test_any_kind_of_empty_line_ends_a_head(self) -> None:
        for end in (b"\r\n\r\n", b"\n\n", b"\n\r\n", b"\r\n\n"):
            with self.subTest(end):
                self.peer.sendall(b"HTTP/1.1 200 OK\r\nA: 1" + end)
                self.assertEqual(self.connection.receive_head().fields.get("a"), "1")

    def test_a_head_may_come_in_pieces(self) -> None:
        def drip() -> None:
            for byte in b"HTTP/1.1 200 OK\r\nA: 1\r\n\r\n":
                self.peer.sendall(bytes((byte,)))

        thread = threading.Thread(target=drip)
        thread.start()
        self.assertEqual(self.connection.receive_head().status, 200)
        thread.join()

    def test_interim_answers_are_skipped_but_not_for_ever(self) -> None:
        self.peer.sendall(b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
        self.assertEqual(self.connection.receive_head().status, 200)
        self.peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 9)
        with self.assertRaisesRegex(GarbledError, "interim ones only"):
            self.connection.receive_head()

    def test_a_switch_of_protocols_is_refused(self) -> None:
        self.peer.sendall(b"HTTP/1.1 101 Switching\r\n\r\n")
        with self.assertRaisesRegex(GarbledError, "expected a final answer"):
            self.connection.receive_head()

    def test_an_endless_head_is_cut(self) -> None:
        def flood() -> None:
            try:
                self.peer.sendall(b"HTTP/1.1 200 OK\r\n" + b"x" * (2 * HEAD_LIMIT))
            except OSError:
                pass  # the reader has had enough

        thread = threading.Thread(target=flood)
        thread.start()
        with self.assertRaisesRegex(GarbledError, "longer than 65536 bytes"):
            self.connection.receive_head()
        self.connection.close()
        thread.join()

    def test_the_end_says_where_it_came(self) -> None:
        for sent, reason in ((b"", "ended before its answer"), (b"HTTP/1.1 2", "ended in the middle of an answer")):
            with self.subTest(sent):
                self.connect()
                self.peer.sendall(sent)
                self.peer.close()
                with self.assertRaisesRegex(NetworkError, rf"h:80: the connection {reason} \(direct\)") as caught:
                    self.connection.receive_head()
                self.assertIs(caught.exception.code, ErrorCode.CONNECTION_LOST)

    def test_silence_is_a_time_out(self) -> None:
        with self.assertRaisesRegex(NetworkError, r"h:80: no byte within 0.05 s \(direct\)") as caught:
            self.read(1)
        self.assertIs(caught.exception.code, ErrorCode.TIMEOUT)

    def test_the_deadline_ends_a_drip_that_is_never_idle(self) -> None:
        self.connection.limits = self.limits.until(self.limits.clock.monotonic() + 0.02)
        with self.assertRaisesRegex(NetworkError, "no byte within the time for this request"):
            while True:
                self.read(1)

    def test_a_request_that_nobody_takes_is_a_time_out(self) -> None:
        with self.assertRaisesRegex(NetworkError, "the request is not taken within 0.05 s"):
            self.connection.send(b"x" * 10_000_000)

    def test_another_thread_can_end_a_read(self) -> None:
        self.connection.limits = self.limits._replace(times=TimeLimits(idle=60))
        cancellation = self.limits.cancellation
        cancellation.attach(self.connection)
        timer = threading.Timer(0.02, cancellation.cancel)
        timer.start()
        with self.assertRaisesRegex(NetworkError, "given up by the caller"):
            self.read(1)
        timer.join()

    def test_lines_are_bounded(self) -> None:
        self.peer.sendall(b"1a;x\r\nabc\nlonger than five")
        self.assertEqual(self.connection.receive_line(9), b"1a;x")
        self.assertEqual(self.connection.receive_line(9), b"abc")
        with self.assertRaisesRegex(GarbledError, "a line is longer than 5 bytes"):
            self.connection.receive_line(5)

    def test_a_kept_connection_with_unasked_bytes_or_without_a_peer_is_stale(self) -> None:
        self.assertFalse(self.connection.is_stale())
        self.peer.sendall(b"x")
        self.assertTrue(self.connection.is_stale())
        self.read(1)
        self.assertFalse(self.connection.is_stale())
        self.peer.close()
        self.assertTrue(self.connection.is_stale())

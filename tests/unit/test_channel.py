# SPDX-License-Identifier: Apache-2.0
"""A socket as http.client sees it: silence, deadlines, interruption, and a close that waits for the answer."""

import contextlib
import select
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

from cip.errors import ErrorCode, NetworkError
from cip.net.channel import Channel
from cip.net.limits import Cancellation, Clock, Limits
from cip.net.tls import TlsSocket
from cip.settings import TimeLimits
from tests.support.leaks import LeakCheckedTestCase
from tests.support.parent import PATIENCE


def anonymous(protocol: int) -> ssl.SSLContext:
    """A context of suites that need no certificate, which TLS 1.3 does not have."""
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.options |= getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    context.set_ciphers("AECDH-AES256-SHA:@SECLEVEL=0")
    return context


def shake_hands(sock: TlsSocket) -> None:
    """A handshake with somebody who is at work in another thread."""
    while True:
        try:
            return sock.do_handshake()
        except ssl.SSLWantReadError:
            select.select([sock], [], [], PATIENCE)


def send_for_ever(sock: socket.socket, data: bytes) -> None:
    """Until the other side has had enough."""
    with contextlib.suppress(OSError):
        while True:
            sock.sendall(data)


class ChannelTest(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        ours, self.peer = socket.socketpair()
        self.limits = Limits(Clock(), TimeLimits(idle=0.05), Cancellation())
        self.channel = Channel(ours, self.limits, "h:80", "direct")
        self.addCleanup(self.peer.close)
        self.addCleanup(self.channel.close)

    def read(self, size: int) -> bytes:
        view = memoryview(bytearray(size))
        return bytes(view[: self.channel.recv_into(view)])

    def test_bytes_come_as_they_arrive_and_none_at_the_end(self) -> None:
        self.peer.sendall(b"ab")
        self.assertEqual(self.read(9), b"ab")
        self.peer.close()
        self.assertEqual(self.read(9), b"")

    def test_silence_is_a_time_out(self) -> None:
        with self.assertRaisesRegex(NetworkError, r"h:80: no byte within 0.05 s \(direct\)") as caught:
            self.read(1)
        self.assertEqual((caught.exception.code, caught.exception.host), (ErrorCode.TIMEOUT, "h:80"))

    def test_the_deadline_ends_a_drip_that_is_never_idle(self) -> None:
        self.channel.limits = self.limits.until(self.limits.clock.monotonic() + 0.02)
        with self.assertRaisesRegex(NetworkError, "no byte within the time for this request"):
            while True:
                self.read(1)

    def test_the_deadline_ends_what_comes_without_a_pause(self) -> None:
        self.channel.limits = self.limits.until(self.limits.clock.monotonic() + 0.05)
        thread = threading.Thread(target=send_for_ever, args=(self.peer, bytes(100_000)))
        thread.start()
        with self.assertRaisesRegex(NetworkError, "no complete answer within the time for this request"):
            while True:
                self.read(1)
        self.channel.close()
        thread.join(PATIENCE)

    def test_a_request_that_nobody_takes_is_a_time_out(self) -> None:
        with self.assertRaisesRegex(NetworkError, "the request is not taken within 0.05 s"):
            self.channel.sendall(b"x" * 10_000_000)

    def test_a_broken_connection_is_lost(self) -> None:
        self.peer.close()
        with self.assertRaisesRegex(NetworkError, r"h:80: the connection is lost: broken pipe \(direct\)") as caught:
            self.channel.sendall(b"x")
        self.assertIs(caught.exception.code, ErrorCode.CONNECTION_LOST)

    def test_another_thread_can_end_a_read(self) -> None:
        self.channel.limits = Limits(self.limits.clock, TimeLimits(idle=60), self.limits.cancellation)
        cancellation = self.limits.cancellation
        cancellation.attach(self.channel.interrupt)
        timer = threading.Timer(0.02, cancellation.cancel)
        timer.start()
        with self.assertRaisesRegex(NetworkError, "given up by the caller"):
            self.read(1)
        timer.join()

    def test_a_kept_connection_with_unasked_bytes_or_without_a_peer_is_stale(self) -> None:
        self.assertFalse(self.channel.is_stale())
        self.peer.sendall(b"x")
        self.assertTrue(self.channel.is_stale())
        self.read(1)
        self.assertFalse(self.channel.is_stale())
        self.peer.close()
        self.assertTrue(self.channel.is_stale())

    def test_what_was_received_and_not_taken_is_stale_too(self) -> None:
        self.peer.sendall(b"HTTP/1.1 200 OK\r\n\r\nsurplus")
        lines = self.channel.makefile("rb")
        while lines.readline() != b"\r\n":
            continue
        lines.close()
        self.assertTrue(self.channel.is_stale())

    def test_what_is_received_and_brings_no_content_is_silence(self) -> None:
        """Such as session tickets, which TLS keeps to itself, one after the other."""
        sock = TlsSocket(self.channel.sock, anonymous(ssl.PROTOCOL_TLS_CLIENT), "h", None)
        channel = Channel(sock, self.limits, "h:443", "direct")
        thread = threading.Thread(target=send_for_ever, args=(self.peer, bytes(100_000)))
        thread.start()
        inner = mock.Mock(**{"read.side_effect": ssl.SSLWantReadError, "pending.return_value": 0})
        with mock.patch.object(sock, "_inner", inner):
            with self.assertRaisesRegex(NetworkError, "h:443: no byte within 0.05 s"):
                channel.recv_into(memoryview(bytearray(9)))
        channel.close()
        thread.join(PATIENCE)
        self.assertFalse(thread.is_alive())

    def test_what_was_decrypted_and_not_taken_is_stale_as_well(self) -> None:
        ours, theirs = socket.socketpair()
        far = ThreadPoolExecutor(1)
        self.addCleanup(far.shutdown)
        wrapped = far.submit(anonymous(ssl.PROTOCOL_TLS_SERVER).wrap_socket, theirs, server_side=True)
        sock = TlsSocket(ours, anonymous(ssl.PROTOCOL_TLS_CLIENT), "h", None)
        shake_hands(sock)
        channel = Channel(sock, self.limits, "h:443", "direct")
        self.addCleanup(channel.close)
        with wrapped.result(PATIENCE) as peer:
            peer.sendall(b"answer and surplus")
            channel.limits = Limits(self.limits.clock, TimeLimits(idle=PATIENCE), self.limits.cancellation)
            self.assertEqual(channel.recv_into(memoryview(bytearray(6))), 6)
            self.assertTrue(channel.is_stale())
            self.assertEqual(channel.recv_into(memoryview(bytearray(99))), 12)
            self.assertFalse(channel.is_stale())

    def test_a_close_waits_for_the_answer_that_reads(self) -> None:
        first, second = self.channel.makefile("rb"), self.channel.makefile("rb")
        self.channel.close()
        self.peer.sendall(b"x")
        self.assertEqual(self.read(1), b"x")
        first.close()
        self.assertNotEqual(self.channel.sock.fileno(), -1)
        second.close()
        self.assertEqual(self.channel.sock.fileno(), -1)

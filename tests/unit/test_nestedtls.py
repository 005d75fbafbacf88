# SPDX-License-Identifier: Apache-2.0
"""TLS within TLS over a socketpair, both without certificates: a channel does with it what it does with a socket."""

import hashlib
import socket
import ssl
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar
from unittest import mock

from cip.errors import NetworkError
from cip.net.channel import Channel
from cip.net.limits import Cancellation, Clock, Limits
from cip.net.tls import TlsSocket
from cip.settings import TimeLimits
from tests.support.leaks import LeakCheckedTestCase
from tests.support.parent import PATIENCE
from tests.unit.test_channel import anonymous, shake_hands

CONTENT = hashlib.shake_256(b"content").digest(300_000)
T = TypeVar("T")


class Far:
    """The other end of both connections, which blocks."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self._outer = anonymous(ssl.PROTOCOL_TLS_SERVER).wrap_socket(sock, server_side=True)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = anonymous(ssl.PROTOCOL_TLS_SERVER)
        self._inner = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.run(self._inner.do_handshake)

    def run(self, call: Callable[[], T]) -> T:
        while True:
            try:
                done = call()
            except ssl.SSLWantReadError:
                self._outer.sendall(self._outgoing.read())
                self._incoming.write(self._outer.recv(65536))
                continue
            self._outer.sendall(self._outgoing.read())
            return done

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self.run(partial(self._inner.read, size - len(data)))
        return data

    def write(self, data: bytes) -> None:
        while data:
            data = data[self.run(partial(self._inner.write, data[:16384])) :]

    def close(self) -> None:
        self._outer.close()


class NestedTlsTest(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        ours, theirs = socket.socketpair()
        self.fars: list[Far] = []
        thread = threading.Thread(target=lambda: self.fars.append(Far(theirs)))
        thread.start()
        context = anonymous(ssl.PROTOCOL_TLS_CLIENT)
        outer = TlsSocket(ours, context, "r.example", None)
        shake_hands(outer)
        self.nested = TlsSocket(outer, anonymous(ssl.PROTOCOL_TLS_CLIENT), "r.example", None)
        shake_hands(self.nested)
        thread.join(PATIENCE)
        (self.far,) = self.fars
        self.limits = Limits(Clock(), TimeLimits(idle=0.05), Cancellation())
        self.channel = Channel(self.nested, self.limits, "r:443", "via proxy p:1")
        self.addCleanup(self.far.close)
        self.addCleanup(self.channel.close)

    def test_bytes_go_both_ways_whole(self) -> None:
        self.channel.limits = Limits(self.limits.clock, TimeLimits(idle=PATIENCE), self.limits.cancellation)
        got: list[bytes] = []

        def answer() -> None:
            got.append(self.far.read(len(CONTENT)))
            self.far.write(CONTENT)

        echo = threading.Thread(target=answer)
        echo.start()
        self.channel.sendall(CONTENT)
        view = memoryview(bytearray(len(CONTENT)))
        filled = 0
        while filled < len(view):
            count = self.channel.recv_into(view[filled:])
            self.assertGreater(count, 0)
            filled += count
        echo.join(PATIENCE)
        self.assertEqual((bytes(view), got), (CONTENT, [CONTENT]))

    def test_bytes_that_were_read_survive_an_answer_that_cannot_be_sent(self) -> None:
        self.far.write(b"content")
        view = memoryview(bytearray(9))
        flushes = [None, None, None, ssl.SSLWantWriteError, None, None]
        with mock.patch.object(self.nested, "_flush", side_effect=flushes):
            count = self.nested.recv_into(view)
        self.assertEqual(bytes(view[:count]), b"content")

    def test_what_was_decrypted_and_not_taken_is_stale(self) -> None:
        self.far.write(b"answer and surplus")
        self.assertFalse(self.nested.pending())
        self.channel.limits = Limits(self.limits.clock, TimeLimits(idle=PATIENCE), self.limits.cancellation)
        self.assertEqual(self.channel.recv_into(memoryview(bytearray(6))), 6)
        self.assertTrue(self.channel.is_stale())
        self.channel.recv_into(memoryview(bytearray(99)))
        self.assertFalse(self.channel.is_stale())

    def test_silence_is_a_time_out_and_an_end_an_end(self) -> None:
        with self.assertRaisesRegex(NetworkError, r"r:443: no byte within 0.05 s \(via proxy p:1\)"):
            self.channel.recv_into(memoryview(bytearray(1)))
        self.far.close()
        for _ in range(2):
            self.assertEqual(self.channel.recv_into(memoryview(bytearray(1))), 0)

    def test_another_thread_can_end_a_read(self) -> None:
        self.channel.limits = Limits(self.limits.clock, TimeLimits(idle=60), self.limits.cancellation)
        self.limits.cancellation.attach(self.channel.interrupt)
        timer = threading.Timer(0.02, self.limits.cancellation.cancel)
        timer.start()
        with self.assertRaisesRegex(NetworkError, "given up by the caller"):
            self.channel.recv_into(memoryview(bytearray(1)))
        timer.join()


class Refused(LeakCheckedTestCase):
    def test_what_was_said_before_the_connection_broke_is_read_although_a_send_failed(self) -> None:
        """As a server that demands a certificate does in TLS 1.3: its alert is there, and nothing is taken any more."""
        context, outer = mock.Mock(), mock.Mock()
        tls = TlsSocket(outer, context, "h", None)
        bios = context.wrap_bio.call_args.args
        inner = context.wrap_bio.return_value
        inner.write.side_effect = lambda data: bios[1].write(data)
        inner.read.side_effect = (ssl.SSLWantReadError, ssl.SSLError("alert"))
        outer.send.side_effect = BrokenPipeError
        outer.recv.return_value = b"alert"
        with self.assertRaises(BrokenPipeError):
            tls.send(memoryview(b"request"))
        with self.assertRaisesRegex(ssl.SSLError, "alert"):
            tls.recv_into(memoryview(bytearray(1)))
        self.assertEqual((bios[0].read(), outer.send.call_count), (b"alert", 1))

# SPDX-License-Identifier: Apache-2.0
"""The race for a connection, on sockets that only pretend to connect."""

import errno
import socket
import time
import unittest
from types import SimpleNamespace
from unittest import mock

from cip.errors import ErrorCode, NetworkError, Phase, redact_with
from cip.net import addresses as race
from cip.net.addresses import Address, AddressClass
from cip.net.limits import Cancellation, Clock, Limits
from cip.net.url import Origin
from cip.settings import TimeLimits

ORIGIN = Origin("https", "h", 443)
ANSWERS, REFUSES, SWALLOWS, ANSWERS_LATER = "answers", "refuses", "swallows", "answers later"


class PretendedSocket:
    """Half of a socketpair; whether it "connects" depends on the address."""

    opened: list["PretendedSocket"]

    def __init__(self, family: int, kind: int) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.closed = False
        self.result = 0
        self.blocking = True
        type(self).opened.append(self)

    def setblocking(self, flag: bool) -> None:
        self.blocking = flag

    def connect_ex(self, endpoint: tuple[str]) -> int:
        (self.behaviour,) = endpoint
        if self.behaviour == REFUSES:
            return errno.ECONNREFUSED
        if self.behaviour == ANSWERS:
            return 0
        self.ours.setblocking(False)
        while True:  # not writable until somebody reads
            try:
                self.ours.send(b"x" * 65536)
            except BlockingIOError:
                break
        if self.behaviour == ANSWERS_LATER:
            self.theirs.setblocking(False)
            while True:
                try:
                    self.theirs.recv(1 << 20)
                except BlockingIOError:
                    break
        return errno.EINPROGRESS

    def getsockopt(self, level: int, name: int) -> int:
        return self.result

    def setsockopt(self, level: int, name: int, value: int) -> None:
        pass

    def fileno(self) -> int:
        return self.ours.fileno()

    def close(self) -> None:
        self.closed = True
        self.ours.close()
        self.theirs.close()


def close_all() -> None:
    for sock in PretendedSocket.opened:
        sock.close()


def pretended(kind: type[PretendedSocket]) -> SimpleNamespace:
    """The module `socket`, whose sockets pretend."""
    names = ("SOCK_STREAM", "SOL_SOCKET", "SO_ERROR", "IPPROTO_TCP", "TCP_NODELAY")
    return SimpleNamespace(socket=kind, **{name: getattr(socket, name) for name in names})


class RaceTest(unittest.TestCase):
    def setUp(self) -> None:
        PretendedSocket.opened = []
        patch = mock.patch.object(race, "socket", pretended(PretendedSocket))
        patch.start()
        self.addCleanup(patch.stop)
        self.addCleanup(close_all)

    def connect(self, *behaviours: str, seconds: float = 15.0, delay: float = 0.01) -> str:
        addresses = [Address(2, (behaviour,), behaviour, AddressClass.PUBLIC) for behaviour in behaviours]
        limits = Limits(Clock(), TimeLimits(connect=seconds), Cancellation())
        return race.connect(ORIGIN, addresses, limits, "direct", delay=delay)[1].text

    def left_open(self) -> int:
        return sum(not sock.closed for sock in PretendedSocket.opened)

    def test_the_first_address_that_answers_wins_and_the_others_are_closed(self) -> None:
        for behaviours in ((ANSWERS, SWALLOWS), (REFUSES, ANSWERS), (SWALLOWS, ANSWERS), (SWALLOWS, ANSWERS_LATER)):
            with self.subTest(behaviours):
                PretendedSocket.opened = []
                self.assertIn(self.connect(*behaviours), (ANSWERS, ANSWERS_LATER))
                self.assertEqual(self.left_open(), 1)
                PretendedSocket.opened[-1].close()

    def test_a_network_that_swallows_packets_costs_the_head_start_only(self) -> None:
        began = time.monotonic()
        self.connect(SWALLOWS, ANSWERS, seconds=60.0)
        self.assertLess(time.monotonic() - began, 20)

    def test_a_refusal_does_not_wait_for_the_head_start(self) -> None:
        self.assertEqual(self.connect(REFUSES, ANSWERS, delay=3600.0), ANSWERS)

    def test_when_all_refuse_every_cause_is_told(self) -> None:
        with self.assertRaisesRegex(
            NetworkError, r"h:443: no connection: refuses: connection refused, refuses: .* \(direct\)"
        ) as caught:
            self.connect(REFUSES, REFUSES)
        self.assertEqual((caught.exception.code, caught.exception.phase), (ErrorCode.CONNECTION_REFUSED, Phase.CONNECT))
        self.assertEqual(self.left_open(), 0)

    def test_an_address_that_spells_a_secret_is_not_told(self) -> None:
        """A registry chooses it where it redirects, and a name server for it."""
        redact_with(lambda text: text.replace(REFUSES, "[redacted]"))
        self.addCleanup(redact_with, str)
        with self.assertRaisesRegex(NetworkError, r"no connection: \[redacted\]: connection refused"):
            self.connect(REFUSES)

    def test_silence_is_a_time_out_and_leaves_nothing_open(self) -> None:
        with self.assertRaisesRegex(NetworkError, "h:443: no connection within 0.03 s") as caught:
            self.connect(SWALLOWS, SWALLOWS, seconds=0.03)
        self.assertIs(caught.exception.code, ErrorCode.TIMEOUT)
        self.assertEqual(self.left_open(), 0)

    def test_a_host_without_a_family_tries_the_other_one(self) -> None:
        class NoFamily(PretendedSocket):
            def __init__(self, family: int, kind: int) -> None:
                if family == socket.AF_INET6:
                    raise OSError(errno.EAFNOSUPPORT, "no")
                super().__init__(family, kind)

        NoFamily.opened = PretendedSocket.opened
        addresses = [
            Address(socket.AF_INET6, (ANSWERS,), "six", AddressClass.PUBLIC),
            Address(socket.AF_INET, (ANSWERS,), "four", AddressClass.PUBLIC),
        ]
        limits = Limits(Clock(), TimeLimits(), Cancellation())
        with mock.patch.object(race, "socket", pretended(NoFamily)):
            self.assertEqual(race.connect(ORIGIN, addresses, limits, "direct")[1].text, "four")

# SPDX-License-Identifier: Apache-2.0
"""Addresses: their classes, what a registry may send us to, and the order they are tried in."""

import socket
import threading
import unittest
from unittest import mock

from cip.errors import ErrorCode, NetworkError, SourceError
from cip.net.addresses import Address, AddressClass, alternate, classify, classify_name, require_allowed, resolve
from cip.net.limits import Cancellation, Clock, Limits
from cip.net.url import Origin
from cip.settings import TimeLimits
from tests.support.leaks import await_end

ORIGIN = Origin("https", "cdn.example", 443)
F, L, P, U = AddressClass.FORBIDDEN, AddressClass.LOOPBACK, AddressClass.PRIVATE, AddressClass.PUBLIC


def packed(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


class ClassTest(unittest.TestCase):
    def test_every_range_has_its_class(self) -> None:
        for text, expected in (
            ("93.184.216.34", U),
            ("100.63.255.255", U),
            ("172.32.0.1", U),
            ("11.0.0.0", U),
            ("9.255.255.255", U),
            ("169.254.169.254", F),
            ("169.254.0.0", F),
            ("100.100.100.200", F),
            ("0.0.0.0", F),
            ("0.1.2.3", F),
            ("224.0.0.1", F),
            ("239.255.255.255", F),
            ("240.0.0.1", F),
            ("255.255.255.255", F),
            ("127.0.0.1", L),
            ("127.255.255.254", L),
            ("10.0.0.1", P),
            ("172.16.0.1", P),
            ("172.31.255.255", P),
            ("192.168.0.1", P),
            ("100.64.0.1", P),
            ("2606:2800:220:1::1", U),
            ("::1", L),
            ("::", F),
            ("fe80::1", F),
            ("febf::1", F),
            ("ff02::1", F),
            ("fd00:ec2::254", F),
            ("fd00:ec2::253", P),
            ("fc00::1", P),
            ("fec0::1", P),
        ):
            with self.subTest(text):
                self.assertIs(classify(packed(text)), expected)

    def test_an_ipv4_address_inside_an_ipv6_one_counts_as_itself(self) -> None:
        for text, expected in (
            ("::ffff:169.254.169.254", F),
            ("::ffff:127.0.0.1", L),
            ("::ffff:10.0.0.1", P),
            ("::ffff:8.8.8.8", U),
            ("64:ff9b::a9fe:a9fe", F),
            ("64:ff9b::8.8.8.8", U),
            ("2002:7f00:1::", L),
            ("2002:a9fe:a9fe::1", F),
            ("::127.0.0.1", L),
            ("::ffff:0:169.254.169.254", F),
        ):
            with self.subTest(text):
                self.assertIs(classify(packed(text)), expected)

    def test_what_a_proxy_resolves_is_judged_by_its_text(self) -> None:
        for text, expected in (
            ("localhost", L),
            ("LOCALHOST.", L),
            ("x.localhost", L),
            ("127.1", L),
            ("0x7f000001", L),
            ("2130706433", L),
            ("169.254.169.254", F),
            ("0xa9fea9fe", F),
            ("metadata.google.internal", F),
            ("::1", L),
            ("fe80::1", F),
            ("10.1", P),
            ("example.com", U),
            ("8.8.8.8", U),
            ("::zz", U),
        ):
            with self.subTest(text):
                self.assertIs(classify_name(text), expected)


class JudgementTest(unittest.TestCase):
    def test_what_was_configured_may_be_anywhere(self) -> None:
        for kind in AddressClass:
            require_allowed(ORIGIN, "x", kind, None)

    def test_a_registry_may_send_us_only_where_it_is_itself(self) -> None:
        for kind, reached, allowed in (
            (U, {U}, True),
            (U, set(), True),
            (P, {P}, True),
            (L, {L}, True),
            (P, {U, L}, False),
            (L, {U, P}, False),
            (L, set(), False),
            (F, {F, L, P, U}, False),
        ):
            with self.subTest(kind=kind, reached=reached):
                if allowed:
                    require_allowed(ORIGIN, "x", kind, frozenset(reached))
                    continue
                with self.assertRaisesRegex(SourceError, "cdn.example:443: the registry sends us to 9.9.9.9") as caught:
                    require_allowed(ORIGIN, "9.9.9.9", kind, frozenset(reached))
                self.assertIs(caught.exception.code, ErrorCode.ADDRESS_REFUSED)


class ResolveTest(unittest.TestCase):
    def limits(self, name_lookup: float = 10.0) -> Limits:
        return Limits(Clock(), TimeLimits(name_lookup=name_lookup), Cancellation())

    def test_literals_are_never_looked_up(self) -> None:
        def never(host: bytes, port: int) -> list[tuple[int, tuple[object, ...]]]:
            raise AssertionError("looked up")

        for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
            found = resolve(Origin("http", host, 80), self.limits(), "direct", never)
            self.assertEqual(found, [Address(family, (host, 80), host, AddressClass.LOOPBACK)])

    def test_families_take_turns(self) -> None:
        answers = [
            (int(socket.AF_INET6), ("2606::1", 443, 0, 0)),
            (int(socket.AF_INET6), ("2606::2", 443, 0, 0)),
            (int(socket.AF_INET6), ("2606::3", 443, 0, 0)),
            (int(socket.AF_INET), ("8.8.8.8", 443)),
        ]
        found = resolve(ORIGIN, self.limits(), "direct", lambda host, port: answers)
        self.assertEqual([address.text for address in found], ["2606::1", "8.8.8.8", "2606::2", "2606::3"])
        self.assertEqual(alternate(found[::-1])[0].text, "2606::3")

    def test_a_zone_is_not_part_of_the_address(self) -> None:
        answers = [(int(socket.AF_INET6), ("fe80::1%eth0", 443, 0, 2))]
        found = resolve(ORIGIN, self.limits(), "direct", lambda host, port: answers)
        self.assertEqual((found[0].text, found[0].kind), ("fe80::1", AddressClass.FORBIDDEN))

    def test_a_name_that_does_not_exist_says_so(self) -> None:
        def fail(host: bytes, port: int) -> list[tuple[int, tuple[object, ...]]]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        with self.assertRaisesRegex(
            NetworkError, r"cdn.example:443: the name is not resolved: name or service not known \(direct\)"
        ) as caught:
            resolve(ORIGIN, self.limits(), "direct", fail)
        self.assertIs(caught.exception.code, ErrorCode.NAME_NOT_RESOLVED)
        self.assertTrue(caught.exception.retryable)

    def test_without_a_thread_there_is_an_error_and_no_wait(self) -> None:
        with (
            mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")),
            self.assertRaisesRegex(NetworkError, "the name is not resolved: can't start new thread") as caught,
        ):
            resolve(ORIGIN, self.limits(), "direct")
        self.assertIs(caught.exception.code, ErrorCode.LIMIT_EXCEEDED)

    def test_a_silent_resolver_is_a_time_out(self) -> None:
        release = threading.Event()

        def wait(host: bytes, port: int) -> list[tuple[int, tuple[object, ...]]]:
            release.wait(30)
            return []

        with self.assertRaisesRegex(NetworkError, "the name is not resolved within 0.02 s") as caught:
            resolve(ORIGIN, self.limits(0.02), "via proxy p:3128", wait)
        release.set()
        self.assertIs(caught.exception.code, ErrorCode.TIMEOUT)
        for thread in threading.enumerate():
            if thread.name.startswith("look up"):
                await_end(thread)

    def test_a_host_without_an_address_is_not_resolved(self) -> None:
        with self.assertRaisesRegex(NetworkError, "no address"):
            resolve(ORIGIN, self.limits(), "direct", lambda host, port: [])

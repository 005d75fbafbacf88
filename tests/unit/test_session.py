# SPDX-License-Identifier: Apache-2.0
"""The session: what images of one process share, and what they do not."""

from cip import rooms
from cip.hostconfig.proxyenv import Proxy
from cip.net.url import Origin
from cip.registry.session import RegistrySession
from cip.settings import HostEnvironment, Settings, TransferLimits
from tests.support.leaks import LeakCheckedTestCase
from tests.support.origins import FakeClock, RecordedEvents


class SessionTest(LeakCheckedTestCase):
    def session(self, settings: Settings) -> RegistrySession:
        made = RegistrySession(settings, RecordedEvents().events, rooms.DirectPrograms(), clock=FakeClock())
        self.addCleanup(made.close)
        return made

    def test_proxies_are_chosen_by_origin(self) -> None:
        variables = {"HTTP_PROXY": "http://p:1", "HTTPS_PROXY": "http://q:2", "NO_PROXY": "direct.example"}
        session = self.session(Settings(environment=HostEnvironment(variables)))
        for origin, expected in (
            (Origin("http", "r.example", 80), ("p", 1)),
            (Origin("https", "r.example", 443), ("q", 2)),
            (Origin("https", "direct.example", 443), None),
            (Origin("https", "127.0.0.1", 443), None),
        ):
            with self.subTest(origin):
                found: Proxy | None = session.network.choose_proxy(origin)
                self.assertEqual(None if found is None else (found.host, found.port), expected)

    def test_limits_are_those_of_the_settings(self) -> None:
        session = self.session(Settings(transfer=TransferLimits(max_bytes=5, min_rate=7)))
        self.assertEqual(session.min_rate, 7)
        self.assertFalse(session.network.budget.unlimited)
        self.assertEqual(session.limits().times, Settings().times)
        self.assertIsNot(session.limits().cancellation, session.limits().cancellation)

    def test_a_clock_of_its_own_is_the_system_s(self) -> None:
        session = RegistrySession(Settings(), RecordedEvents().events, rooms.DirectPrograms())
        self.assertGreater(session.clock.time(), 1_700_000_000)
        session.close()

# SPDX-License-Identifier: Apache-2.0
"""The session: what images of one process share, and what they do not."""

from unittest import mock

from cip import log, rooms
from cip.hostconfig.proxyenv import Proxy
from cip.net.url import Origin
from cip.registry.session import RegistrySession
from cip.settings import HostEnvironment, Settings, TransferLimits
from tests.support.leaks import LeakCheckedTestCase
from tests.support.origins import FakeClock, RecordedEvents
from tests.support.roomed import needs_rooms


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

    @needs_rooms("budget")
    def test_limits_are_those_of_the_settings(self) -> None:
        session = self.session(Settings(transfer=TransferLimits(max_bytes=5, min_rate=7)))
        self.assertEqual(session.min_rate, 7)
        self.assertIsNotNone(session.network.budget)
        self.assertIsNone(self.session(Settings()).network.budget)
        self.assertEqual(session.limits().times, Settings().times)
        self.assertIsNot(session.limits().cancellation, session.limits().cancellation)

    def test_a_clock_of_its_own_is_the_system_s(self) -> None:
        session = RegistrySession(Settings(), RecordedEvents().events, rooms.DirectPrograms())
        self.assertGreater(session.clock.time(), 1_700_000_000)
        session.close()

    def test_what_is_wrong_with_registries_d_is_seen_before_the_confinement_and_told_at_the_end(self) -> None:
        for asked, told in ((False, 1), (True, 0)):
            with self.subTest(signatures_asked_for=asked), mock.patch.object(log, "warning") as warning:
                session = RegistrySession(Settings(), RecordedEvents().events, rooms.DirectPrograms())
                with mock.patch.object(
                    rooms, "unread_registries_d", create=True, side_effect=["not read", "seen again"]
                ):
                    session.look_at_registries_d()
                    self.assertEqual(warning.call_count, 0)
                    session.signatures_asked_for = asked
                    session.close()
                self.assertEqual([call.args for call in warning.call_args_list], [("%s", "not read")] * told)

# SPDX-License-Identifier: Apache-2.0
"""The retry engine under a clock that only sleeping moves: attempts, delays, deadlines, hosts that want to be alone."""

import random
import unittest
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from cip.errors import CipError, ConfigurationError, ErrorCode, NetworkError, Phase, RegistryError, SourceError
from cip.net.limits import Cancellation, Limits
from cip.registry.endpoints import Endpoint
from cip.registry.failover import another_may_help, ask_endpoints
from cip.registry.retry import (
    RETRY_AFTER_LIMIT,
    SPACING,
    SPACING_DECAY,
    HostBackoff,
    Jitter,
    Repeats,
    own_delay,
    parse_retry_after,
)
from cip.settings import Settings, TimeLimits
from tests.support.origins import FakeClock, RecordedEvents

NOW = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT


class RetryAfterTest(unittest.TestCase):
    def test_vectors_of_registry_md_10_6(self) -> None:
        for row, value, expected in (
            ("Y1", "abc", None),
            ("Y1", "1.5", None),
            ("Y1", "0x10", None),
            ("Y1", "5, 6", None),
            ("Y1", "99999999999999999999", None),
            ("Y1", "", None),
            ("Y1", " 5", None),
            ("Y1", "٥", None),
            ("Y2", "0", 0.0),
            ("Y2", "1", 1.0),
            ("Y2", "05", 5.0),
            ("Y2", "+5", 5.0),
            ("Y3", "61", 61.0),
            ("Y3", "3600", 3600.0),
            ("Y4", "-5", 0.0),
            ("Y5", "Sun, 06 Nov 1994 08:50:07 GMT", 30.0),
            ("Y5", "Sunday, 06-Nov-94 08:50:07 GMT", 30.0),
            ("Y5", "Sun Nov  6 08:50:07 1994", 30.0),
            ("Y6", "Sun, 06 Nov 1994 08:49:00 GMT", None),
            ("Y6", "Sun, 06 Nov 1994 09:50:07 +0100", None),
        ):
            with self.subTest(row=row, value=value):
                self.assertEqual(parse_retry_after(value, NOW), expected)


class DelayTest(unittest.TestCase):
    def test_delays_double_and_throttled_ones_are_longer(self) -> None:
        options = Settings()
        for throttled, expected in ((False, [0.5, 1, 2, 4, 4]), (True, [2, 4, 8, 16, 16])):
            found = [own_delay(options, failures, throttled, lambda: 0.0) for failures in range(1, 6)]
            self.assertEqual(found, expected)

    def test_jitter_adds_a_quarter_at_most(self) -> None:
        self.assertEqual(own_delay(Settings(), 1, False, lambda: 1.0), 0.625)
        for _ in range(100):
            self.assertTrue(0.5 <= own_delay(Settings(), 1, False, random.random) <= 0.625)

    def test_after_a_429_jitter_doubles_a_delay_at_most(self) -> None:
        self.assertEqual(own_delay(Settings(), 2, True, lambda: 1.0), 8)
        found = [own_delay(Settings(), 1, True, random.random) for _ in range(200)]
        self.assertTrue(
            2 <= min(found) < 2.5 < 3.5 < max(found) <= 4, "thousands that were told the same stay together"
        )

    def test_a_fixed_delay_is_fixed(self) -> None:
        self.assertEqual(own_delay(Settings(retry_delay=0.01), 4, True, lambda: 1.0), 0.01)


@dataclass
class Place:
    """Fails as it is told, each time taking some seconds, then answers."""

    name: str
    faults: list[CipError] = field(default_factory=list)
    seconds: float = 0.0
    asked_at: list[float] = field(default_factory=list)
    deadlines: list[float] = field(default_factory=list)


def lost() -> NetworkError:
    return NetworkError("it broke")


def throttled(seconds: float | None = None) -> RegistryError:
    return RegistryError("slow down", code=ErrorCode.RATE_LIMITED, http_status=429, retry_after=seconds)


def status(number: int, seconds: float | None = None) -> RegistryError:
    return RegistryError(f"status {number}", http_status=number, retry_after=seconds)


class EngineCase(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = FakeClock()
        self.events = RecordedEvents()
        self.backoff = HostBackoff(self.clock)
        self.cancellation = Cancellation()
        self.began = self.clock.now

    def ask(self, *places: Place, options: Settings | None = None, overall: float = 180.0) -> str:
        repeats = self.repeats(lambda: 0.0, options or Settings())
        limits = Limits(self.clock, TimeLimits(), self.cancellation).until(self.began + overall)

        def ask_one(endpoint: Endpoint, mine: Limits) -> str:
            place = cast(Place, endpoint)
            place.asked_at.append(self.clock.now - self.began)
            place.deadlines.append(mine.deadline - self.began)
            self.clock.now += min(place.seconds, max(0.0, mine.remaining()))
            if place.faults:
                raise place.faults.pop(0)
            return f"from {place.name}"

        return ask_endpoints(cast(Sequence[Endpoint], places), ask_one, repeats, limits, Phase.MANIFEST)[1]

    def repeats(self, jitter: Jitter, options: Settings = Settings()) -> Repeats:  # noqa: B008 (a value)
        """Which share one back-off."""
        made = Repeats(options, self.clock, self.events.events, jitter)
        made.backoff = self.backoff
        return made

    def fails(self, *places: Place, overall: float = 180.0) -> CipError:
        with self.assertRaises(CipError) as caught:
            self.ask(*places, overall=overall)
        return caught.exception


class OnePlaceTest(EngineCase):
    def test_a_fault_that_may_pass_is_repeated_four_times(self) -> None:
        place = Place("h", [lost() for _ in range(4)])
        self.assertEqual(self.ask(place), "from h")
        self.assertEqual(place.asked_at, [0, 0.5, 1.5, 3.5, 7.5])

    def test_the_fifth_fault_is_the_last(self) -> None:
        place = Place("h", [lost() for _ in range(9)])
        error = self.fails(place)
        self.assertEqual(len(place.asked_at), 5)
        self.assertEqual(
            [(a.place, a.at, a.phase, a.code) for a in error.attempts[:2]],
            [
                ("h", 0, Phase.MANIFEST, ErrorCode.CONNECTION_LOST),
                ("h", 0.5, Phase.MANIFEST, ErrorCode.CONNECTION_LOST),
            ],
        )
        self.assertEqual((len(error.attempts), error.host, error.phase), (5, "h", Phase.MANIFEST))
        self.assertEqual([each["attempt"] for each in self.events.of("retry")], [1, 2, 3, 4])

    def test_a_fault_that_stays_is_told_at_once(self) -> None:
        for fault in (
            status(404),
            status(400),
            RegistryError("401", code=ErrorCode.AUTHENTICATION_FAILED, http_status=401),
            SourceError("not trusted", code=ErrorCode.TLS_UNTRUSTED),
            SourceError("x", code=ErrorCode.REDIRECT_REFUSED),
            SourceError("x", code=ErrorCode.BUDGET_EXHAUSTED),
            ConfigurationError("f", "broken"),
        ):
            with self.subTest(fault.code):
                place = Place("h", [fault])
                self.assertIs(self.fails(place), fault)
                self.assertEqual(len(place.asked_at), 1)

    def test_statuses_that_pass_are_repeated(self) -> None:
        for number in (408, 425, 500, 501, 502, 503, 504, 505):
            with self.subTest(number):
                self.assertEqual(self.ask(Place("h", [status(number)])), "from h")

    def test_throttled_requests_back_off_longer(self) -> None:
        # Y7: requests at 0, 2, 6, 14, 30 s, then failure
        place = Place("h", [throttled() for _ in range(5)])
        error = self.fails(place)
        self.assertEqual(place.asked_at, [0, 2, 6, 14, 30])
        self.assertTrue(error.retryable)

    def test_a_wish_of_the_registry_is_obeyed(self) -> None:
        # Y8: Retry-After: 1 three times, then 200; never sooner, and later by our own back-off (deviations.md)
        place = Place("h", [throttled(1), throttled(1), status(503, 1)])
        self.assertEqual(self.ask(place), "from h")
        self.assertEqual(place.asked_at, [0, 2, 6, 8])
        self.assertEqual(self.events.of("throttled"), [{"host": "h", "wait": wait} for wait in (2, 4, 2)])

    def test_those_who_wait_for_one_host_do_not_come_back_at_once(self) -> None:
        self.backoff.postpone("h", 10)
        turns = [self.backoff.take_turn("h", lambda: 0.5) for _ in range(4)]
        self.assertEqual([round(turn, 3) for turn in turns], [10, 11, 11.9, 12.71])
        self.assertEqual(self.backoff.take_turn("other", lambda: 0.5), 0)

    def test_a_host_that_has_throttled_us_is_asked_slowly_for_a_while(self) -> None:
        self.backoff.postpone("h", 2)
        waits = []
        for _ in range(40):
            self.clock.now += self.backoff.take_turn("h", lambda: 0.5)
            waits.append(round(self.clock.now - self.began, 2))
        self.assertEqual(waits[:4], [2, 3, 3.9, 4.71])
        self.assertLess(waits[-1], 2 + SPACING / (1 - SPACING_DECAY))

    def test_a_turn_that_was_taken_before_the_host_wished_to_wait_is_void(self) -> None:
        self.backoff.postpone("h", 2)
        repeats = self.repeats(lambda: 0.5)
        told = [10.0, 20.0]  # what another connection is told while this one waits for its turn

        def sleep(seconds: float) -> None:
            self.clock.now += seconds - 0.5
            if told:
                self.backoff.postpone("h", told.pop(0))
            self.clock.now += 0.5

        for expected in (31, 32, 32.9):  # 2, 1.5 + 10, 11 + 20, then as they come
            repeats.await_turn("h", lambda: 100, sleep)
            self.assertAlmostEqual(self.clock.now - self.began, expected)

    def test_a_turn_beyond_the_time_there_is_is_not_waited_for(self) -> None:
        self.backoff.postpone("h", 30)
        repeats = self.repeats(random.random)
        repeats.await_turn("h", lambda: 29, lambda _: self.fail("it waited in vain"))

    def test_no_wish_to_wait_means_no_wait(self) -> None:
        place = Place("h", [throttled(0), throttled(0)])
        self.assertEqual(self.ask(place), "from h")
        self.assertEqual(place.asked_at, [0, 0, 0])

    def test_a_wish_beyond_our_time_ends_it_with_the_wish(self) -> None:
        place = Place("h", [throttled(55)])
        error = self.fails(place)
        self.assertEqual((place.asked_at, error.retry_after), ([0], 55))
        self.assertEqual(self.backoff.remaining("h"), 55)

    def test_a_wish_is_obeyed_for_a_minute_at_most(self) -> None:
        self.fails(Place("h", [throttled(3600)]))
        self.assertEqual(self.backoff.remaining("h"), RETRY_AFTER_LIMIT)

    def test_all_repeats_together_take_less_than_fifty_seconds(self) -> None:
        place = Place("h", [NetworkError("slow", code=ErrorCode.TIMEOUT) for _ in range(9)], seconds=20)
        self.fails(place)
        self.assertEqual(place.asked_at, [0, 20.5, 41.5])
        self.assertEqual(set(place.deadlines), {50})
        self.assertLessEqual(self.clock.now - self.began, 50)

    def test_opening_in_all_is_bounded_too(self) -> None:
        place = Place("h", [lost() for _ in range(9)], seconds=3)
        self.fails(place, overall=8)
        self.assertEqual(place.asked_at, [0, 3.5, 7.5])

    def test_work_that_was_called_off_is_not_repeated(self) -> None:
        self.cancellation.cancel()
        place = Place("h", [lost(), lost()])
        self.fails(place)
        self.assertEqual(len(place.asked_at), 1)

    def test_a_host_that_wants_to_be_alone_is_left_alone_by_everybody(self) -> None:
        self.backoff.postpone("h", 5)
        place = Place("h")
        self.ask(place)
        self.assertEqual(place.asked_at, [5])

    def test_no_repeats_when_none_are_wanted(self) -> None:
        with self.assertRaises(NetworkError):
            self.ask(Place("h", [lost()]), options=Settings(retry_times=0))
        self.assertEqual(self.clock.sleeps, [])


class SeveralPlacesTest(EngineCase):
    def test_any_fault_of_a_mirror_moves_on_after_one_attempt(self) -> None:
        # registry.md C35
        for fault in (
            status(403),
            status(404),
            status(500),
            throttled(),
            lost(),
            NetworkError("x", code=ErrorCode.TIMEOUT),
            RegistryError("401", code=ErrorCode.AUTHENTICATION_FAILED),
            SourceError("x", code=ErrorCode.TLS_UNTRUSTED),
            CipError("blocked", code=ErrorCode.REGISTRY_BLOCKED),
            RegistryError("x", code=ErrorCode.IMAGE_NOT_FOUND),
        ):
            with self.subTest(fault.code):
                mirror, origin = Place(f"mirror {fault}", [fault, fault]), Place("origin")
                self.assertEqual(self.ask(mirror, origin), "from origin")
                self.assertEqual(len(mirror.asked_at), 1)
        self.assertEqual(self.clock.sleeps, [])

    def test_a_silent_mirror_costs_fifteen_seconds(self) -> None:
        silent: list[CipError] = [NetworkError("x", code=ErrorCode.TIMEOUT)]
        mirror, origin = Place("mirror", silent, seconds=1000), Place("origin")
        self.assertEqual(self.ask(mirror, origin), "from origin")
        self.assertEqual((mirror.deadlines, origin.asked_at, origin.deadlines), ([15], [15], [50]))

    def test_many_places_share_the_time_of_the_document(self) -> None:
        for count, deadlines in ((2, [15, 50]), (3, [15, 30, 50]), (5, [10, 20, 30, 40, 50])):
            self.setUp()
            faults = [NetworkError("x", code=ErrorCode.TIMEOUT)]
            silent = [Place(str(number), [*faults], seconds=1000) for number in range(count)]
            with self.subTest(count):
                self.assertIsInstance(self.fails(*silent), NetworkError)
                self.assertEqual([place.deadlines[0] for place in silent], deadlines)
                self.assertLessEqual(self.clock.now - self.began, 60)

    def test_the_error_is_that_of_the_last_place_with_all_attempts(self) -> None:
        # registry.md E15
        mirror = Place("mirror", [RegistryError("MANIFEST_UNKNOWN", code=ErrorCode.IMAGE_NOT_FOUND)])
        error = self.fails(mirror, Place("origin", [status(404)]))
        self.assertEqual((str(error), error.code), ("status 404", ErrorCode.REGISTRY_ERROR))
        self.assertEqual(
            [(attempt.place, attempt.code) for attempt in error.attempts],
            [("mirror", ErrorCode.IMAGE_NOT_FOUND), ("origin", ErrorCode.REGISTRY_ERROR)],
        )

    def test_what_is_wrong_on_this_host_helps_nobody(self) -> None:
        for fault in (ConfigurationError("f", "broken"), SourceError("x", code=ErrorCode.BUDGET_EXHAUSTED)):
            with self.subTest(fault.code):
                origin = Place("origin")
                self.assertIs(self.fails(Place("mirror", [fault]), origin), fault)
                self.assertEqual(origin.asked_at, [])
                self.assertFalse(another_may_help(fault))

    def test_only_the_last_ten_attempts_are_told(self) -> None:
        error = self.fails(*(Place(str(n), [status(404)]) for n in range(12)))
        self.assertEqual([attempt.place for attempt in error.attempts], [str(n) for n in range(2, 12)])

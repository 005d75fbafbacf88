# SPDX-License-Identifier: Apache-2.0
"""Limits: what may still be waited for, and who may call it off."""

import threading
import unittest

from cip.errors import ErrorCode, NetworkError, Phase
from cip.net.limits import Cancellation, Clock, Limits
from cip.settings import TimeLimits
from tests.support.origins import FakeClock


class LimitsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = FakeClock()
        self.limits = Limits(self.clock, TimeLimits(), Cancellation())

    def test_the_nearer_of_limit_and_deadline_counts(self) -> None:
        self.assertEqual(self.limits.seconds(20, None, "h", "direct"), 20)
        sooner = self.limits.until(self.clock.now + 5)
        self.assertEqual(sooner.seconds(20, None, "h", "direct"), 5)
        self.assertEqual(sooner.until(self.clock.now + 9).remaining(), 5)

    def test_after_the_deadline_nothing_begins(self) -> None:
        with self.assertRaisesRegex(NetworkError, r"h:1: no complete answer within the time for .* \(x\)") as e:
            self.limits.until(self.clock.now).seconds(20, Phase.DNS, "h:1", "x")
        self.assertEqual((e.exception.code, e.exception.phase), (ErrorCode.TIMEOUT, Phase.DNS))

    def test_an_expired_step_names_its_own_limit(self) -> None:
        self.assertIn("no byte within 20 s", str(self.limits.expired(20, None, "h", "direct", "no byte")))

    def test_work_that_was_called_off_does_not_go_on(self) -> None:
        self.limits.cancellation.cancel()
        with self.assertRaisesRegex(NetworkError, "given up by the caller"):
            self.limits.seconds(20, None, "h", "direct")
        with self.assertRaisesRegex(NetworkError, "given up by the caller"):
            self.limits.wait(threading.Event(), 20)


class CancellationTest(unittest.TestCase):
    def test_the_connection_in_use_is_interrupted(self) -> None:
        interrupted: list[str] = []
        cancellation = Cancellation()
        cancellation.attach(lambda: interrupted.append("first"))
        cancellation.attach()
        cancellation.attach(lambda: interrupted.append("second"))
        cancellation.cancel()
        cancellation.attach(lambda: interrupted.append("third"))  # one that was just being opened
        self.assertEqual(interrupted, ["second", "third"])

    def test_a_sleep_ends_when_called_off(self) -> None:
        cancellation = Cancellation()
        sleeper = threading.Thread(target=Clock().sleep, args=(60, cancellation))
        sleeper.start()
        cancellation.cancel()
        sleeper.join(10)
        self.assertFalse(sleeper.is_alive())

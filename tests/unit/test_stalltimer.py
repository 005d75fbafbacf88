# SPDX-License-Identifier: Apache-2.0
"""StallTimer: what counts as progress, and when it is at an end."""

import unittest

from cip.net.limits import StallTimer
from cip.settings import TimeLimits

RATE = 1024


class PatienceTest(unittest.TestCase):
    def setUp(self) -> None:
        self.patience = StallTimer(110.0, TimeLimits(), RATE)
        self.patience.begin_try()

    def test_waiting_without_a_byte_uses_it_up_over_all_tries(self) -> None:
        for _ in range(5):
            self.patience.begin_try()
            self.patience.count(20.0, 0)
        self.assertEqual(self.patience.remaining(), 10.0)

    def test_a_good_rate_restores_it(self) -> None:
        self.patience.count(100.0, 0)
        self.patience.count(0.1, 101 * RATE)
        self.assertEqual(self.patience.remaining(), 110.0)

    def test_what_is_read_once_more_is_no_progress(self) -> None:
        self.patience.count(20.0, 0)
        for _ in range(10):
            self.patience.count(1.0, 100 * RATE, known=True)
        self.assertEqual(self.patience.remaining(), 90.0)
        self.patience.count(5.0, 10, known=True)
        self.assertEqual(self.patience.remaining(), 85.0)
        self.patience.count(0.1, 100 * RATE)
        self.assertEqual(self.patience.remaining(), 110.0)

    def test_a_byte_now_and_then_is_no_progress(self) -> None:
        for _ in range(30):
            self.patience.count(2.0, 1)
        self.assertEqual(self.patience.remaining(), 50.0)
        self.assertTrue(self.patience.is_too_slow())
        self.patience.begin_try()
        self.assertFalse(self.patience.is_too_slow())
        self.assertEqual(self.patience.remaining(), 50.0)

    def test_a_rate_just_above_the_limit_goes_on_for_ever(self) -> None:
        for _ in range(1000):
            self.patience.count(1.0, RATE + 1)
            self.assertFalse(self.patience.is_too_slow())
        self.assertEqual(self.patience.remaining(), 110.0)

    def test_a_fast_beginning_does_not_pay_for_a_drip(self) -> None:
        self.patience.count(1.0, 100 * 1024 * 1024)
        for _ in range(200):
            self.patience.count(1.0, 1)
        self.assertTrue(self.patience.is_too_slow())

    def test_without_a_minimum_any_byte_is_progress(self) -> None:
        patience = StallTimer(110.0, TimeLimits(), 0)
        for _ in range(100):
            patience.count(100.0, 1)
        self.assertEqual((patience.remaining(), patience.is_too_slow()), (110.0, False))

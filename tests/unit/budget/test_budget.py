# SPDX-License-Identifier: Apache-2.0
"""The budget: bytes in all, and bytes a second, under a clock that only sleeping moves."""

import unittest

from cip.errors import ErrorCode, SourceError
from cip.net.budget import Budget
from cip.net.limits import Cancellation
from tests.support.origins import FakeClock


class BudgetTest(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = FakeClock()

    def test_bytes_are_used_up_exactly(self) -> None:
        budget = Budget(0, 100, self.clock)
        self.assertEqual(budget.grant(70, "h", Cancellation()), 70)
        self.assertEqual(budget.grant(70, "h", Cancellation()), 30, "what another thread was granted is gone")
        budget.settle(70, 50)
        budget.settle(30, 30)
        self.assertEqual(budget.grant(70, "h", Cancellation()), 20)
        with self.assertRaisesRegex(SourceError, "h: --max-bytes allows 100 bytes") as caught:
            budget.grant(1, "h", Cancellation())
        self.assertIs(caught.exception.code, ErrorCode.BUDGET_EXHAUSTED)
        self.assertFalse(caught.exception.retryable)

    def test_a_rate_is_kept_over_time(self) -> None:
        budget = Budget(1000, 0, self.clock)
        began, taken = self.clock.now, 0
        while taken < 5000:
            granted = budget.grant(100_000, "h", Cancellation())
            self.assertLessEqual(granted, 125)
            budget.settle(granted, granted)
            taken += granted
        self.assertAlmostEqual(self.clock.now - began, 5.0, delta=0.2)

    def test_a_pause_is_not_paid_back(self) -> None:
        budget = Budget(1000, 0, self.clock)
        self.clock.now += 100
        budget.settle(budget.grant(125, "h", Cancellation()), 125)
        budget.grant(125, "h", Cancellation())
        self.assertEqual(self.clock.sleeps, [0.125])

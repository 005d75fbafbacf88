# SPDX-License-Identifier: Apache-2.0
"""The choice of a place: order, turns, exclusion, and which fault is told in the end."""

import unittest
from types import SimpleNamespace
from typing import cast

from cip.errors import CipError, ErrorCode, NetworkError, NotFoundError
from cip.registry.endpoints import Endpoint
from cip.registry.failover import Candidate, Candidates
from cip.registry.retry import HostBackoff, Repeats
from cip.settings import Settings
from tests.support.origins import FakeClock, RecordedEvents

LOST = NetworkError("lost")
SILENT = NetworkError("silent", code=ErrorCode.TIMEOUT)
MISSING = NotFoundError("missing", code=ErrorCode.BLOB_NOT_FOUND)


class CandidatesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = FakeClock()
        self.backoff = HostBackoff(self.clock)
        self.candidates = self.make()

    def make(self) -> Candidates:
        repeats = Repeats(Settings(), self.clock, RecordedEvents().events, lambda: 0.0)
        repeats.backoff = self.backoff
        endpoints = [cast(Endpoint, SimpleNamespace(name=name)) for name in "abc"]
        return Candidates(endpoints, repeats)

    def next_after(
        self, error: CipError = SILENT, *, may_pass: bool = True, sent: bool = False, stay: bool = False
    ) -> str:
        """The current place fails; the name of the next one, empty for none."""
        following = self.candidates.after(error, may_pass=may_pass, sent_bytes=sent, stay=stay)
        if following is None:
            return ""
        self.candidates.current = following
        return following.endpoint.name

    def test_places_take_turns_in_their_order(self) -> None:
        self.assertEqual([self.next_after() for _ in range(6)], ["b", "c", "a", "b", "c", "a"])

    def test_each_has_its_repeats_and_no_more(self) -> None:
        self.assertEqual("".join(self.next_after() for _ in range(15)), "bcabcabcabcabc")

    def test_one_that_was_cut_off_is_asked_once_more_before_another(self) -> None:
        self.assertEqual([self.next_after(LOST, sent=True) for _ in range(3)], ["a", "b", "b"])
        self.assertEqual(self.next_after(SILENT, sent=True), "c")

    def test_one_that_fails_for_good_is_left_out(self) -> None:
        self.assertEqual([self.next_after(MISSING, may_pass=False) for _ in range(3)], ["b", "c", ""])

    def test_what_must_stay_stays(self) -> None:
        self.assertEqual([self.next_after(stay=True) for _ in range(5)], ["a", "a", "a", "a", ""])

    def test_one_that_wants_to_be_alone_comes_last(self) -> None:
        self.backoff.postpone("a", 30)
        self.candidates = self.make()
        self.assertEqual(self.candidates.current.endpoint.name, "b")
        self.assertEqual([self.next_after(MISSING, may_pass=False) for _ in range(2)], ["c", "a"])
        self.assertEqual(self.candidates.wait_for(self.candidates.current), 30)

    def test_those_that_served_wrong_bytes_are_named_and_excluded(self) -> None:
        served: list[Candidate] = [self.candidates.current]
        self.next_after()
        served.append(self.candidates.current)
        for candidate in served:
            candidate.served = True
        self.assertEqual(self.candidates.bad_endpoints(), ["a", "b"])
        self.candidates.exclude_bad_endpoints()
        self.assertEqual(self.candidates.bad_endpoints(), [])
        following = self.candidates.choose(LOST, sent_bytes=False, stay=False)
        self.assertEqual(following.endpoint.name if following else "", "c")

    def test_a_fault_that_may_pass_says_more_than_one_that_does_not(self) -> None:
        self.next_after(SILENT)
        self.next_after(MISSING, may_pass=False)
        self.assertIs(self.candidates.final_fault(MISSING), SILENT)
        self.setUp()
        self.next_after(MISSING, may_pass=False)
        self.assertIs(self.candidates.final_fault(MISSING), MISSING)

    def test_a_document_goes_through_them_in_order_and_repeats_the_last_alone(self) -> None:
        self.backoff.postpone("a", 30)
        endpoints = [cast(Endpoint, SimpleNamespace(name=name)) for name in "abc"]
        self.candidates = Candidates(endpoints, self.candidates._repeats, in_order=True)
        self.assertEqual((self.candidates.current.endpoint.name, self.candidates.left()), ("a", 3))
        self.assertEqual("".join(self.next_after() for _ in range(7)), "bccccc")
        self.assertEqual(self.candidates.left(), 1)

    def test_a_fault_of_this_host_ends_all_and_is_told_itself(self) -> None:
        self.next_after(SILENT)
        full = CipError("used up", code=ErrorCode.BUDGET_EXHAUSTED)
        self.assertEqual(self.next_after(full), "")
        self.assertIs(self.candidates.final_fault(full), full)

    def test_whether_there_is_another_one(self) -> None:
        self.assertTrue(self.candidates.have_another())
        self.next_after(MISSING, may_pass=False)
        self.next_after(MISSING, may_pass=False)
        self.assertFalse(self.candidates.have_another())

# SPDX-License-Identifier: Apache-2.0
"""Which endpoint comes next and why, for documents and blobs alike.

`Candidates` has the endpoints of one piece of work, how each behaved so far, and the decision. An endpoint is repeated
after a fault that may pass; another fault moves on at once; a fault of this host or its user ends all. A document goes
through them in order, each but the last asked once; a blob may come back to one, because it keeps what it has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from ..errors import CipError, ConfigurationError, ErrorCode, Phase, UsageError
from ..net.limits import Limits
from .retry import History, Repeats

if TYPE_CHECKING:
    from .endpoints import Endpoint

_LOCAL_FAULTS = frozenset({ErrorCode.BUDGET_EXHAUSTED, ErrorCode.INTERNAL, ErrorCode.CLIENT_GONE})
T = TypeVar("T")


def another_may_help(error: CipError) -> bool:
    """Whether another endpoint may have what this one did not give: any fault but one of this host or its user."""
    return not isinstance(error, UsageError | ConfigurationError) and error.code not in _LOCAL_FAULTS


class Candidate:
    """One endpoint, as this piece of work knows it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.failures = 0  # in a row
        self.excluded = False
        self.served = False  # bytes of it have been passed on
        self.takes_ranges = True
        self.ready_at = 0.0  # of the clock, before which it is not asked again
        self.fault: CipError | None = None  # the last one, while another try might help


class Candidates:
    """The endpoints of one piece of work in their order; `current` is asked or was asked last.

    `in_order`: as a document goes through them. Else the first one is the first whose host does not want to be left
    alone.
    """

    def __init__(self, endpoints: Sequence[Endpoint], repeats: Repeats, *, in_order: bool = False) -> None:
        self._all = [Candidate(endpoint) for endpoint in endpoints]
        self._repeats = repeats
        self._in_order = in_order
        self.current = self._all[0] if in_order else min(self._all, key=self.wait_for)

    def left(self) -> int:
        """How many there are from the current one on."""
        return len(self._all) - self._all.index(self.current)

    def have_another(self) -> bool:
        """Whether there is a usable endpoint besides the current one."""
        return any(other is not self.current and self._is_usable(other) for other in self._all)

    def after(
        self, error: CipError, *, may_pass: bool, progress: bool = False, sent_bytes: bool = False, stay: bool = False
    ) -> Candidate | None:
        """Where to go on after `error` of the current endpoint; None when nothing is left that may help.

        It waits for its next turn where the fault `may_pass`, else it is excluded. With `progress` this fault is the
        first in a row; see `choose` for the others.
        """
        if not another_may_help(error):
            return None
        current = self.current
        if may_pass:
            current.fault = error
            current.failures = 1 if progress else current.failures + 1
            pause = self._repeats.pause_after(current.endpoint.name, error, current.failures)
            current.ready_at = self._repeats.clock.monotonic() + pause
        else:
            current.excluded = True
            current.fault = None
        return self.choose(error, sent_bytes=sent_bytes, stay=stay)

    def choose(self, error: CipError, *, sent_bytes: bool, stay: bool) -> Candidate | None:
        """Where to go on after `error`; None when no endpoint is left. With `stay` no other endpoint may continue.

        The same endpoint once more when its connection was lost after it had `sent_bytes`, else the one that is ready
        first, in the order of the list behind the current one. In order it is the next of the list.
        """
        position = self._all.index(self.current)
        if self._in_order and position + 1 < len(self._all):
            return self._all[position + 1]
        ring = [self.current] if stay or self._in_order else [*self._all[position + 1 :], *self._all[: position + 1]]
        usable = [candidate for candidate in ring if self._is_usable(candidate)]
        cut_off = error.code is ErrorCode.CONNECTION_LOST and self.current.failures == 1
        if cut_off and sent_bytes and self.current in usable:
            return self.current
        return min(usable, key=self.wait_for, default=None)

    def wait_for(self, candidate: Candidate) -> float:
        """Seconds until an endpoint may be asked."""
        back_off = self._repeats.backoff.remaining(candidate.endpoint.name)
        return max(0.0, candidate.ready_at - self._repeats.clock.monotonic(), back_off)

    def bad_endpoints(self) -> list[str]:
        """The names of the endpoints that served a byte of what turned out to be wrong."""
        return [candidate.endpoint.name for candidate in self._all if candidate.served]

    def exclude_bad_endpoints(self) -> None:
        """Never ask them again; what comes from now on is another matter."""
        for candidate in self._all:
            candidate.excluded |= candidate.served
            candidate.served = False

    def final_fault(self, last: CipError) -> CipError:
        """The fault that says most: a later try helps when any endpoint may recover, and else the last one counts."""
        if not another_may_help(last):
            return last
        passing = [each.fault for each in self._all if each.fault is not None and not each.excluded]
        return passing[-1] if passing else last

    def _is_usable(self, candidate: Candidate) -> bool:
        return not candidate.excluded and candidate.failures <= self._repeats.times


def ask_endpoints(
    places: Sequence[Endpoint], ask: Callable[[Endpoint, Limits], T], repeats: Repeats, limits: Limits, phase: Phase
) -> tuple[Endpoint, T]:
    """The first answer that an endpoint gives to `ask`, and that endpoint: for documents of bounded size.

    While another endpoint remains, an endpoint gets one attempt of `control_endpoint` seconds, or its share of what is
    left of `control_document` where that is less; the last one gets all that is left, and the repeats. The last
    endpoint's error is the result when all fail. `ask` gets the limits of its endpoint. Raises what `ask` raises.
    """
    clock = limits.clock
    history = History(clock)
    overall = history.began + limits.times.control_document
    candidates = Candidates(places, repeats, in_order=True)
    mine = limits
    while True:
        current, left = candidates.current, candidates.left()
        if not current.failures:
            now = clock.monotonic()
            share = min(limits.times.control_endpoint, (overall - now) / left)
            mine = limits.until(overall if left == 1 else now + share)
        repeats.await_turn(current.endpoint.name, mine.remaining, lambda wait: clock.sleep(wait, limits.cancellation))
        try:
            return current.endpoint, ask(current.endpoint, mine)
        except CipError as error:
            history.add(current.endpoint.name, error, phase)
            following = None if limits.cancellation.cancelled else candidates.after(error, may_pass=error.retryable)
            if following is None or limits.remaining() <= 0 or limits.cancellation.cancelled:
                raise history.complete(error) from error.__cause__
            if following is current:
                wait = candidates.wait_for(current)
                if wait >= mine.remaining():
                    raise history.complete(error) from error.__cause__
                repeats.tell(current.failures, error, wait, error.digest)
                clock.sleep(wait, limits.cancellation)
            candidates.current = following

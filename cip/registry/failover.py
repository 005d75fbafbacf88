# SPDX-License-Identifier: Apache-2.0
"""Which endpoint a blob continues at: the list of its endpoints, and how each behaved so far."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import CipError, ErrorCode
from ..net.limits import Clock
from .endpoints import Endpoint
from .retry import Repeats


class Candidate:
    """One endpoint, as this blob knows it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.failures = 0  # in a row
        self.excluded = False
        self.served = False  # bytes of it have been passed on
        self.takes_ranges = True
        self.ready_at = 0.0  # of the clock, before which it is not asked again
        self.fault: CipError | None = None  # the last one, while another try might help


class Candidates:
    """The endpoints of one blob in their order; `current` is asked or was asked last.

    The first one is the first whose host does not want to be left alone.
    """

    def __init__(self, endpoints: Sequence[Endpoint], repeats: Repeats, clock: Clock) -> None:
        self._all = [Candidate(endpoint) for endpoint in endpoints]
        self._repeats = repeats
        self._clock = clock
        self.current = min(self._all, key=self.backoff_of)

    def have_another(self) -> bool:
        """Whether there is a usable endpoint besides the current one."""
        return any(other is not self.current and self._is_usable(other) for other in self._all)

    def failed(self, error: CipError, *, may_pass: bool, progress: bool) -> None:
        """Told of a fault of the current endpoint: it waits for its next turn, or is excluded for good."""
        current = self.current
        if may_pass:
            current.fault = error
            current.failures = 1 if progress else current.failures + 1
            pause = self._repeats.pause_after(current.endpoint, error, current.failures)
            current.ready_at = self._clock.monotonic() + pause
        else:
            current.excluded = True
            current.fault = None

    def choose(self, error: CipError, *, sent_bytes: bool, stay: bool) -> Candidate | None:
        """Where to go on after `error`; None when no endpoint is left. With `stay` no other endpoint may continue.

        The same endpoint once more when its connection was lost after it had `sent_bytes`, else the one that is ready
        first, in the order of the list behind the current one.
        """
        position = self._all.index(self.current)
        ring = [self.current] if stay else [*self._all[position + 1 :], *self._all[: position + 1]]
        usable = [candidate for candidate in ring if self._is_usable(candidate)]
        cut_off = error.code is ErrorCode.CONNECTION_LOST and self.current.failures == 1
        if cut_off and sent_bytes and self.current in usable:
            return self.current
        return min(usable, key=self.wait_for, default=None)

    def wait_for(self, candidate: Candidate) -> float:
        """Seconds until an endpoint may be asked."""
        return max(0.0, candidate.ready_at - self._clock.monotonic(), self.backoff_of(candidate))

    def take_turn(self, candidate: Candidate) -> float:
        """The same for a blob that is going to ask then."""
        return self._repeats.take_turn(candidate.endpoint)

    def backoff_of(self, candidate: Candidate) -> float:
        """Seconds that the host of an endpoint asked everybody to wait."""
        return self._repeats.backoff_of(candidate.endpoint)

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
        passing = [each.fault for each in self._all if each.fault is not None and not each.excluded]
        return passing[-1] if passing else last

    def _is_usable(self, candidate: Candidate) -> bool:
        return not candidate.excluded and candidate.failures <= self._repeats.times

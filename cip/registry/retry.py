# SPDX-License-Identifier: Apache-2.0
"""When and how often something is tried again: tokens, documents, blobs and signatures alike.

The numbers are those of decisions.md section 3. Which endpoint is tried is decided in `failover`. Waiting that a
registry asks for belongs to its host, so that all transfers from it wait together.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate

from ..errors import ATTEMPTS_TOLD, Attempt, CipError, ErrorCode, Phase
from ..events import Events
from ..net.limits import Clock
from ..settings import Settings

_DAY = "(?:mon|tue|wed|thu|fri|sat|sun)"
_TIME = "[0-9]{2}:[0-9]{2}:[0-9]{2}"
_HTTP_DATE = (  # RFC 9110, 5.6.7: IMF-fixdate, RFC 850, asctime
    rf"(?ai){_DAY}, [0-9]{{2}} [a-z]{{3}} [0-9]{{4}} {_TIME} GMT"
    rf"|[a-z]{{6,9}}, [0-9]{{2}}-[a-z]{{3}}-[0-9]{{2}} {_TIME} GMT"
    rf"|{_DAY} [a-z]{{3}} [ 0-9][0-9] {_TIME} [0-9]{{4}}"
)
_RFC3339 = rf"(?a)[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T{_TIME}(?:\.[0-9]{{1,12}})?(?:Z|[+-][0-9]{{2}}:[0-9]{{2}})"
FIRST_DELAY = 0.5  # seconds, doubled for each further repeat
THROTTLED_DELAY = 2.0  # the same after a 429
JITTER = 0.25  # of a delay
THROTTLED_JITTER = 1.0  # of one that we chose after a 429: it has many senders, and a quarter keeps them together
RETRY_AFTER_LIMIT = 60.0  # seconds of a registry's wish that are obeyed
SPACING = 1.0  # seconds between two requests to a host that has just throttled us
SPACING_DECAY = 0.9  # of the spacing, with each request
_SPACING_END = 0.05  # seconds below which there is none any more

_SECONDS = r"(?a)[+-]?[0-9]{1,18}"  # in more there is nothing that anybody means
Jitter = Callable[[], float]


def parse_http_date(text: str) -> float | None:
    """Seconds since the epoch, or None when `text` is no HTTP date."""
    parts = parsedate(text) if re.fullmatch(_HTTP_DATE, text) else None
    if parts is None:
        return None
    try:
        return datetime(*parts[:6], tzinfo=UTC).timestamp()
    except ValueError:  # such as the 31st of February
        return None


def parse_rfc3339(text: str) -> float | None:
    """Seconds since the epoch, or None when `text` is no RFC 3339 time."""
    try:
        return datetime.fromisoformat(text).timestamp() if re.fullmatch(_RFC3339, text) else None
    except ValueError:
        return None


def parse_retry_after(value: str, now: float) -> float | None:
    """Seconds that `Retry-After` asks for, from 0; None where it says nothing usable (registry.md 6.6).

    `now` is the time of day in seconds since the epoch. The result is not capped.
    """
    if re.fullmatch(_SECONDS, value):
        return max(0.0, float(value))
    date = parse_http_date(value)
    return date - now if date is not None and date > now else None


def own_delay(settings: Settings, failures: int, throttled: bool, jitter: Jitter) -> float:
    """Seconds before the repeat that follows the `failures`-th fault in a row, counted from 1."""
    if settings.retry_delay is not None:
        return settings.retry_delay
    first, spread = (THROTTLED_DELAY, THROTTLED_JITTER) if throttled else (FIRST_DELAY, JITTER)
    return float(first * 2 ** min(failures - 1, 3) * (1 + spread * jitter()))


class HostBackoff:
    """Until when each host wants to be left alone; shared by everything that asks it, safe from any thread.

    What waits for the same host does not come back at the same moment, and a host that has throttled us is asked more
    slowly for a while: whoever asks takes a turn, and moves that of the next one.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}
        self._next_turn: dict[str, float] = {}
        self._spacing: dict[str, float] = {}

    def postpone(self, host: str, seconds: float) -> None:
        """Leave `host` alone for `seconds` from now, and ask it at least SPACING apart then, or so many seconds."""
        until = self._clock.monotonic() + seconds
        with self._lock:
            self._until[host] = max(until, self._until.get(host, until))
            self._spacing[host] = min(SPACING, seconds)

    def take_turn(self, host: str, jitter: Jitter) -> float:
        """Seconds until the caller may ask `host`, which it is going to do."""
        with self._lock:
            now = self._clock.monotonic()
            turn = max(now, self._until.get(host, now), self._next_turn.get(host, now))
            spacing = self._spacing.get(host, 0.0)
            if spacing >= _SPACING_END:
                self._next_turn[host] = turn + spacing * (0.5 + jitter())
                self._spacing[host] = spacing * SPACING_DECAY
            return turn - now

    def remaining(self, host: str) -> float:
        """Seconds that `host` is still to be left alone; a turn that was taken before it said so is void."""
        with self._lock:
            return max(0.0, self._until.get(host, 0.0) - self._clock.monotonic())


class History:
    """The faults of one piece of work, for the error that ends it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.began = clock.monotonic()
        self._attempts: list[Attempt] = []

    def add(self, place: str, error: CipError, phase: Phase) -> None:
        """Note a fault. Its phase is `phase` unless it knows better."""
        error.phase = error.phase or phase
        error.host = error.host or place
        at = round(self._clock.monotonic() - self.began, 3)
        self._attempts = [*self._attempts, Attempt(place, at, error.phase, error.code)][-ATTEMPTS_TOLD:]

    def complete(self, error: CipError) -> CipError:
        """`error` with the attempts that led to it."""
        error.attempts = tuple(self._attempts)
        return error


class Repeats:
    """How often and when one endpoint is asked again."""

    def __init__(self, settings: Settings, clock: Clock, events: Events, jitter: Jitter = random.random) -> None:
        self.times = settings.retry_times
        self._settings = settings
        self.backoff = HostBackoff(clock)
        self.clock = clock
        self._events = events
        self._jitter = jitter

    def pause_after(self, host: str, error: CipError, failures: int) -> float:
        """Seconds before an endpoint at `host` is asked again after its `failures`-th fault in a row.

        A wish of the registry is remembered for its host and told as an event.
        """
        throttled = error.code is ErrorCode.RATE_LIMITED
        delay = own_delay(self._settings, failures, throttled, self._jitter)
        wished = error.retry_after
        if wished is not None:  # never sooner; and not at the same moment as everybody who was told the same
            wished = min(wished, RETRY_AFTER_LIMIT)
            delay = max(delay, wished * (1 + JITTER * self._jitter())) if wished else 0.0
        if throttled or wished is not None:
            host = error.host or host  # a token server, or where a redirect leads, speaks for itself
            self.backoff.postpone(host, delay)
            self._events.emit("throttled", host=host, wait=round(delay, 3))
        return delay

    def await_turn(self, host: str, patience: Callable[[], float], sleep: Callable[[float], None]) -> None:
        """Sleep until `host` may be asked, also by what it says to others meanwhile.

        Not where that is beyond the seconds of `patience`: it would never be asked, and one question more does no harm.
        """
        while 0 < (wait := self.backoff.take_turn(host, self._jitter)) < patience():
            sleep(wait)
            if not self.backoff.remaining(host):
                break

    def tell(self, attempt: int, error: CipError, wait: float, digest: str | None) -> None:
        """Record that something is tried again."""
        self._events.emit("retry", digest=digest, attempt=attempt, code=error.code, wait=round(wait, 3))

    def tell_source(self, left: str, following: str, error: CipError, *, digest: str, offset: int) -> None:
        """Record that a blob goes on at another endpoint than `left`."""
        members = {"from": left, "to": following, "offset": offset, "reason": error.code}
        self._events.emit("source", digest=digest, **members)

# SPDX-License-Identifier: Apache-2.0
"""Where this process tells its events and decisions, from the first line to the last."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..events import Emit
from ..trust.evaluation import no_audit
from .audit import write_audit
from .events import follow_all, write_events
from .journal import Journal
from .lines import LineWriter

FLUSH_SECONDS = 0.5  # how long the end of the process waits for slow readers, all of them together


class Records:
    """The writers of one process; `close` ends them all. `events` takes what happens, `audit` the decisions."""

    def __init__(
        self, events: int | None = None, audit: int | None = None, *, journal: bool = False, require_audit: bool = False
    ) -> None:
        """`events` and `audit` are descriptors, owned from now on. Raises UsageError where there is no journal."""
        self._writers: list[LineWriter] = []
        self._journal = Journal() if journal else None
        emits: list[Emit] = [] if self._journal is None else [self._journal.emit]
        if events is not None:
            emits.append(write_events(self._open(events, "events")))
        self.events = follow_all(emits)
        self.audit = no_audit if audit is None else write_audit(self._open(audit, "audit"), required=require_audit)

    def in_writers(self, call: Callable[[], object], within: float) -> bool:
        """Run `call` in each thread that writes; whether all have done so within so many seconds, together."""
        deadline = time.monotonic() + within
        return all([writer.in_thread(call, deadline - time.monotonic()) for writer in self._writers])

    def close(self) -> None:
        """Write what waits, within FLUSH_SECONDS: a parent may wait for the end of this process."""
        deadline = time.monotonic() + FLUSH_SECONDS
        for writer in self._writers:
            writer.close(max(0.0, deadline - time.monotonic()))
        if self._journal is not None:
            self._journal.close()

    def _open(self, descriptor: int, name: str) -> LineWriter:
        self._writers.append(LineWriter(descriptor, name))
        return self._writers[-1]

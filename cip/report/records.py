# SPDX-License-Identifier: Apache-2.0
"""Where this process tells its events and decisions, from the first line to the last."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..events import Emit, Events
from ..trust.evaluation import Audit
from .audit import write_audit
from .events import follow_all, write_events
from .journal import Journal
from .lines import LineWriter

FLUSH_SECONDS = 0.5  # how long the end of the process waits for slow readers, all of them together


class Records:
    """Opens the writers of one process; `close` ends them all."""

    def __init__(self) -> None:
        self._writers: list[LineWriter] = []
        self._emits: list[Emit] = []
        self._journal: Journal | None = None

    def add_events(self, descriptor: int) -> None:
        """From now on events become lines on `descriptor`, which is owned."""
        self._emits.append(write_events(self._open(descriptor, "events")))

    def add_journal(self) -> None:
        """From now on faults and decisions become entries of the journal. Raises UsageError where there is none."""
        self._journal = Journal()
        self._emits.append(self._journal.emit)

    def events(self) -> Events:
        """What tells all that were added."""
        return follow_all(self._emits)

    def audit(self, descriptor: int, *, required: bool) -> Audit:
        """Decisions that become lines on `descriptor`, which is owned from now on; see `write_audit`."""
        return write_audit(self._open(descriptor, "audit"), required=required)

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

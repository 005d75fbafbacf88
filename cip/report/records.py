# SPDX-License-Identifier: Apache-2.0
"""The descriptors that a parent gave for events and audit, from the first line to the last."""

from __future__ import annotations

import time

from ..events import Events
from ..trust.evaluation import Audit
from .audit import write_audit
from .events import write_events
from .lines import LineWriter

FLUSH_SECONDS = 0.5  # how long the end of the process waits for slow readers, all of them together


class Records:
    """Opens the writers of one process; `close` ends them all."""

    def __init__(self) -> None:
        self._writers: list[LineWriter] = []

    def events(self, descriptor: int) -> Events:
        """Events that become lines on `descriptor`, which is owned from now on."""
        return write_events(self._open(descriptor, "events"))

    def audit(self, descriptor: int) -> Audit:
        """Decisions that become lines on `descriptor`, which is owned from now on."""
        return write_audit(self._open(descriptor, "audit"))

    def close(self) -> None:
        """Write what waits, within FLUSH_SECONDS: a parent may wait for the end of this process."""
        deadline = time.monotonic() + FLUSH_SECONDS
        for writer in self._writers:
            writer.close(max(0.0, deadline - time.monotonic()))

    def _open(self, descriptor: int, name: str) -> LineWriter:
        self._writers.append(LineWriter(descriptor, name))
        return self._writers[-1]

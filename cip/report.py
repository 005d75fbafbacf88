# SPDX-License-Identifier: Apache-2.0
"""Records for programs: events and audit lines as JSON, one object a line (decisions.md section 6)."""

from __future__ import annotations

from typing import Protocol


class Events(Protocol):
    """Takes the events of a run. `emit` never blocks, never raises, and may be called from any thread."""

    def emit(self, event: str, **members: object) -> None:
        """Record `event` (plan, progress, retry, source, throttled, auth, policy, done, failed) with its members."""
        ...


class NoEvents:
    """For a parent that did not ask for events."""

    def emit(self, event: str, **members: object) -> None:
        """Forget the event."""

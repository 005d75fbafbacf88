# SPDX-License-Identifier: Apache-2.0
"""Figures as text and as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Row:
    """One measure: a name, its unit, samples for each program in the order they were taken."""

    name: str
    unit: str
    better: str  # "less" or "more"
    samples: dict[str, list[float]] = field(default_factory=dict)

    def add(self, program: str, value: float) -> None:
        """Note one sample."""
        self.samples.setdefault(program, []).append(value)

    def median(self, program: str) -> float | None:
        """The median of a program's samples, None when it has none."""
        values = self.samples.get(program)
        return statistics.median(values) if values else None

    def ratio(self, program: str, model: str) -> float | None:
        """How many times the model's figure the program has."""
        ours, theirs = self.median(program), self.median(model)
        return ours / theirs if ours is not None and theirs else None


def text(rows: Sequence[Row], programs: Sequence[str], model: str, compared: Sequence[str]) -> str:
    """A Markdown table with medians of `programs`, and ratios of those that are `compared` to the model."""
    head = ["measure", "unit", *programs, *(f"{name} / {model}" for name in compared)]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [row.name, row.unit, *(_number(row.median(name)) for name in programs)]
        cells += [_number(row.ratio(name, model)) for name in compared]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def as_json(rows: Sequence[Row], machine: str) -> str:
    """All samples, for programs."""
    return json.dumps(
        {
            "machine": machine,
            "rows": [
                {"name": row.name, "unit": row.unit, "better": row.better, "samples": row.samples} for row in rows
            ],
        },
        indent=1,
    )


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"

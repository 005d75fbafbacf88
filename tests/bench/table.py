# SPDX-License-Identifier: Apache-2.0
"""Figures as text, as JSON and as a plot."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape


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


_COLOURS = ("#38507a", "#7d9bd1", "#e0b48f", "#c9793f")
_WIDTH, _BAR, _GAP, _LEFT = 760, 13, 12, 300


def plot(rows: Sequence[Row], programs: Sequence[str], model: str) -> str:
    """A bar for each program and measure, the longest of a measure full width; an SVG document."""
    shown = [row for row in rows if row.median(model) is not None and row.median(programs[0]) is not None]
    height = 40 + len(shown) * (len(programs) * _BAR + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif"'
        ' font-size="11" role="img">',
        "<!-- SPDX-License-Identifier: Apache-2.0 -->",
        "<title>Measured beside skopeo, in one run</title>",
    ]
    for index, name in enumerate(programs):
        x = _LEFT + index * 115
        parts.append(f'<rect x="{x}" y="8" width="10" height="10" fill="{_COLOURS[index]}"/>')
        parts.append(f'<text x="{x + 14}" y="17">{escape(name)}</text>')
    y = 36
    for row in shown:
        medians = {name: row.median(name) for name in programs}
        longest = max(value for value in medians.values() if value is not None)
        label = f"{row.name}, {row.unit} ({row.better} is better)"
        parts.append(f'<text x="{_LEFT - 8}" y="{y + _BAR}" text-anchor="end">{escape(label)}</text>')
        for index, name in enumerate(programs):
            value = medians[name]
            if value is not None and longest > 0:
                width = max(1, (_WIDTH - _LEFT - 70) * value / longest)
                parts.append(
                    f'<rect x="{_LEFT}" y="{y}" width="{width:.0f}" height="{_BAR - 2}" fill="{_COLOURS[index]}"/>'
                )
                parts.append(f'<text x="{_LEFT + width + 4:.0f}" y="{y + _BAR - 3}">{_number(value)}</text>')
            y += _BAR
        y += _GAP
    return "\n".join([*parts, "</svg>", ""])


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"

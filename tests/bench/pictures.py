# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures: a plot for each table in tests/bench/README.md that one is named for, and the two of README.md.

`python3 -m tests.bench.pictures` writes them anew; the tables are the one source of the figures. Each picture brings
its own light ground, so that it reads on a dark page, too, and lets text start at the left of a place that is wider
than any usual font needs.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from cip.rooms import ROOMS

ROOT = Path(__file__).resolve().parents[2]
TABLES = Path(__file__).with_name("README.md")
OVERVIEW, ARCHITECTURE = (ROOT / "cip" / "man" / f"{name}.svg" for name in ("overview", "architecture"))

INK, FAINT, LINE, GROUND = "#1c2536", "#4a566d", "#38507a", "#ffffff"
SERIES = ("#1f5fa8", "#79ade3", "#e8b27a", "#b3541e", "#5d7f4f", "#8a6fae")  # told apart without colours, too
CORE, ROOM = "#e9eef8", "#fdf3e4"
WIDTH = 960
BARS = 480  # the longest bar; the rest of the width is for figure and name


class Table(NamedTuple):
    """One of README's: the picture named below it, what that shows, the first row, and the others."""

    picture: str
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Group(NamedTuple):
    """Bars of one measure: name, figure as it is written, how long it is."""

    name: str
    bars: Sequence[tuple[str, str, float]]


def pictures() -> dict[Path, str]:
    """Every picture: its place, its text."""
    drawn = {OVERVIEW: overview(), ARCHITECTURE: architecture()}
    for table in read_tables(TABLES.read_text(encoding="utf-8")):
        drawn[TABLES.with_name(table.picture)] = ratios(table) if _compared(table.head) else bars(table)
    return drawn


def read_tables(text: str) -> Iterator[Table]:
    """The tables that a picture stands below of, `![TITLE](PICTURE)`."""
    for lines, title, picture in re.findall(r"((?:^\|.*\n)+)\n!\[([^\]]+)\]\(([^)]+\.svg)\)$", text, re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines.splitlines())
        yield Table(picture, title, head, rows)


def bars(table: Table) -> str:
    """A group of bars for each measure; the longest of a group, or what all is counted of, is as long as may be."""
    groups = list(_groups(table))
    counted = re.match(r"of (\d+) ", table.head[0])
    colours: dict[str, str] = {}
    parts, y = [], 64
    for group in groups:
        parts.append(_text(20, y, group.name, bold=True))
        longest = float(counted[1]) if counted else max(length for _, _, length in group.bars) or 1.0
        for name, figure, length in group.bars:
            colour = colours.setdefault(name, SERIES[len(colours) % len(SERIES)])
            width = max(1, round(BARS * length / longest))
            parts.append(f'<rect x="20" y="{y + 7}" width="{width}" height="12" fill="{colour}"/>')
            parts.append(_text(28 + width, y + 18, f"{figure} · {name}", size=12))
            y += 16
        y += 32
    return _card(table.title, y - 10, parts)


def ratios(table: Table) -> str:
    """A line for each measure, with a dot where a front end stands beside the model, on a scale of factors."""
    compared = _compared(table.head)
    model = compared[0][0].partition(" / ")[2]
    rows = [
        (row[0], row[1], [(name, float(row[index])) for name, index in compared if row[index] != "–"])
        for row in table.rows
    ]
    rows = [row for row in rows if row[2]]
    span = math.ceil(max(abs(math.log2(ratio)) for _, _, found in rows for _, ratio in found))
    left, middle, right = 470, 690, 910

    def place(ratio: float) -> int:
        return round(middle + (right - middle) * math.log2(ratio) / span)

    bottom = 92 + 20 * len(rows)
    explained = f"beside {model} (the line at 1); a rate is turned round, so that left is always better"
    parts = [_text(20, 56, explained, 12)]
    for power in range(-span, span + 1):
        x = place(2.0**power)
        label = f"1/{2**-power}" if power < 0 else str(2**power)
        parts.append(_line(f"M{x} 84V{bottom}", LINE if power == 0 else "#d5dae4", 2 if power == 0 else 1))
        parts.append(_text(x, 78, label, 12, anchor="middle"))
    y = 100
    for measure, unit, found in rows:
        parts.append(_text(20, y + 4, f"{measure}, {unit}", 12))
        for name, ratio in found:
            x = place(1 / ratio if unit == "MB/s" else ratio)
            index = [each for each, _ in compared].index(name)
            parts.append(_mark(x, y, index))
        y += 20
    y = bottom + 20
    for index, (name, _) in enumerate(compared):
        x = left + 230 * index
        parts.append(_mark(x, y, index))
        parts.append(_text(x + 14, y + 4, name.partition(" / ")[0], 12))
    return _card(table.title, bottom + 40, parts)


def _compared(head: Sequence[str]) -> list[tuple[str, int]]:
    """The columns that are ratios."""
    return [(name, index) for index, name in enumerate(head) if " / " in name]


def _groups(table: Table) -> Iterator[Group]:
    """The measures of a table, which are its rows, or its columns where the first of them has other things."""
    head, rows = table.head, table.rows
    if head[0] != "measure" and not head[0].startswith("of "):
        head, *rows = zip(*([table.head, *table.rows]), strict=True)
    units = head[1] == "unit"
    for row in rows:
        name = f"{row[0]}, {row[1]}" if units else row[0]
        cells = zip(head[1 + units :], row[1 + units :], strict=True)
        yield Group(name, [(series, cell, _number(cell)) for series, cell in cells if cell != "–"])


def _number(cell: str) -> float:
    return float(cell.partition(" ")[0].replace(",", ""))


def overview() -> str:
    """Where the program sits."""
    steps = (
        "1 find: mirrors, credentials",
        "2 judge: policy, signatures",
        "3 choose: platform, OCI form",
        "4 stream: size and digest verified,",
        "resumed, never stored",
    )
    parts = _box(
        20, 76, 230, "parent process", ("OS updater, installer,", "WebAssembly host,", "in any language"), CORE
    )
    parts += _box(390, 56, 310, "container-image-proxy", steps, CORE)
    for index, name in enumerate(("registry, mirrors", "archives, layouts", "local storage", "Docker daemon")):
        parts += _box(770, 44 + 46 * index, 170, name, (), ROOM)
        parts.append(_arrow(f"M700 {104 + 14 * index}L768 {60 + 46 * index}"))
    parts += [_arrow("M250 100H388"), _text(258, 90, "GET /manifest", 12)]
    parts += [_arrow("M390 142H252"), _text(258, 162, "verified bytes", 12)]
    parts.append(_text(20, 222, "one inherited socket, HTTP or the JSON protocol of skopeo", 12))
    return _card("Where it sits: between the parent and the places an image can be", 240, parts)


# what the rooms are beside, and which they are
BESIDE: Mapping[str, Sequence[str]] = {
    "commands": ("explain", "fetch"),
    "the process": ("confine", "programs", "report"),
    "wire": ("jsonproxy", "convert", "client"),
    "image": ("signatures", "openpgp", "sigstore", "bundle", "referrers"),
    "source": ("archives", "daemon", "tarball", "storage", "union", "early", "socks"),
    "the copy": ("readahead", "segments", "partial", "budget", "hashing", "sharing"),
}


def architecture() -> str:
    """From argv to verified bytes on the wire, and the rooms beside it."""
    stages = (
        ("argv", ("cli.py", "options.py")),
        ("settings", ("settings.py",)),
        ("wire", ("wire/httpserver.py",)),
        ("image", ("opening.py", "image.py", "trust/ judges")),
        ("source", ("registry/, net/", "sources/", "hostconfig/")),
    )
    parts = []
    for index, (title, lines) in enumerate(stages):
        parts += _box(20 + 190 * index, 50, 160, title, lines, CORE, least=92)
        if index:
            parts.append(_arrow(f"M{190 * index - 10} 96h28"))
    copy = ("content.py: a thread hashes,", "the last bytes wait for size and digest")
    parts += _box(590, 180, 350, "verified copy", copy, CORE)
    parent = ("holds the other end of the socket:", "asks, and reads what was verified")
    parts += _box(20, 180, 350, "parent", parent, GROUND)
    ways = ("M860 142V178", "M590 218H500V144", "M460 142V218H372", "M195 180V161H430V144")
    parts += [_arrow(way) for way in ways]
    parts.append(_text(20, 296, f"rooms: {len(ROOMS)} parts beside the core that a copy may leave out", bold=True))
    least = 38 + 18 * max(len(rooms) for rooms in BESIDE.values())
    for index, (title, rooms) in enumerate(BESIDE.items()):
        parts += _box(20 + 155 * index, 310, 145, title, rooms, ROOM, least=least, dashed=True)
    return _card("One request, from argv to verified bytes", 330 + least, parts)


def _box(
    x: int, y: int, width: int, title: str, lines: Sequence[str], fill: str, *, least: int = 0, dashed: bool = False
) -> list[str]:
    height = max(least, 32 + 18 * len(lines) + (6 if lines else 0))
    dash = ' stroke-dasharray="5 3"' if dashed else ""
    shape = f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" stroke="{LINE}"{dash}/>'
    texts = [_text(x + 12, y + 40 + 18 * index, line, 12) for index, line in enumerate(lines)]
    return [shape, _text(x + 12, y + 21, title, bold=True), *texts]


def _arrow(path: str) -> str:
    return f'<path d="{path}" fill="none" stroke="{LINE}" stroke-width="1.5" marker-end="url(#a)"/>'


def _mark(x: int, y: int, index: int) -> str:
    shape = f'<circle cx="{x}" cy="{y}" r="6"' if index == 0 else f'<path d="M{x} {y - 7}l7 7-7 7-7-7z"'
    return f'{shape} fill="{SERIES[index * 3]}" stroke="{GROUND}"/>'


def _line(path: str, colour: str, width: int) -> str:
    return f'<path d="{path}" stroke="{colour}" stroke-width="{width}"/>'


def _text(x: int, y: int, text: str, size: int = 13, *, bold: bool = False, anchor: str = "") -> str:
    where = f' text-anchor="{anchor}"' if anchor else ""
    weight = ' font-weight="bold"' if bold else ""
    colour = FAINT if size < 13 else INK
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}"{weight}{where}>{escape(text)}</text>'


def _card(title: str, height: int, parts: Sequence[str]) -> str:
    """The document: an opaque ground with `parts` on it, under their title."""
    root = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    lines = [
        f'{root} font-family="sans-serif" role="img">',
        "<!-- SPDX-License-Identifier: Apache-2.0; drawn by tests/bench/pictures.py -->",
        f"<title>{escape(title)}</title>",
        '<defs><marker id="a" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        f'<path d="M0 0 8 4 0 8z" fill="{LINE}"/></marker></defs>',
        f'<rect x="1" y="1" width="{WIDTH - 2}" height="{height - 2}" rx="8" fill="{GROUND}" stroke="#c8ccd6"/>',
        _text(20, 30, title, 15, bold=True),
    ]
    return "\n".join([*lines, *parts, "</svg>", ""])


if __name__ == "__main__":
    for place, text in pictures().items():
        place.write_text(text, encoding="utf-8")
    sys.exit(0)

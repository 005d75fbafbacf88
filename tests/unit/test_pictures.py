# SPDX-License-Identifier: Apache-2.0
"""The pictures show what the tables say, name every room, and have room for the text of any usual font."""

from __future__ import annotations

import re
import unittest
from pathlib import Path
from xml.etree import ElementTree

from cip.rooms import ROOMS
from tests.bench import pictures

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"
CHARACTER = 0.65  # of the font's size: what the widest usual fonts need on average


class Pictures(unittest.TestCase):
    def test_each_is_what_the_tables_make_of_it(self) -> None:
        drawn = pictures.pictures()
        kept = {path for place in ("cip", "tests") for path in (ROOT / place).rglob("*.svg")}
        self.assertEqual(kept, set(drawn))
        for path, text in drawn.items():
            with self.subTest(path.name):
                shown = path.read_text(encoding="utf-8")
                self.assertTrue(shown == text, "expected what `python3 -m tests.bench.pictures` writes")

    def test_every_summary_of_the_bench_has_one(self) -> None:
        tables = list(pictures.read_tables(pictures.TABLES.read_text(encoding="utf-8")))
        text = pictures.TABLES.read_text(encoding="utf-8")
        self.assertEqual(len(tables), text.count("\n|---"))
        self.assertEqual(len({table.picture for table in tables}), len(tables))

    def test_each_has_a_ground_of_its_own_and_text_that_fits(self) -> None:
        for path, text in pictures.pictures().items():
            document = ElementTree.fromstring(text)
            rects = [_extent(rect) for rect in document.iter(f"{SVG}rect")]
            ground = document.find(f"{SVG}rect")
            assert ground is not None
            self.assertEqual(ground.get("fill"), pictures.GROUND)
            for element in document.iter(f"{SVG}text"):
                x, y, size = (float(element.get(name, "")) for name in ("x", "y", "font-size"))
                length = len(element.text or "") * size * CHARACTER
                around = [rect for rect in rects if rect[0] <= x <= rect[2] and rect[1] <= y <= rect[3]]
                left = x - length / 2 if element.get("text-anchor") else x
                with self.subTest(path.name, text=element.text):
                    box = min(around, key=lambda rect: rect[2] - rect[0])
                    self.assertTrue(box[0] + 6 < left and left + length < box[2], (left, length, box))

    def test_every_file_in_the_architecture_is_there(self) -> None:
        named = re.findall(r"[a-z/]+(?:\.py|/)", re.sub(r"<[^>]*>", " ", pictures.architecture()))
        self.assertGreater(len(named), 8)
        self.assertEqual([name for name in named if not (ROOT / "cip" / name).exists()], [])

    def test_every_room_stands_in_the_architecture_once(self) -> None:
        named = sorted(name for names in pictures.BESIDE.values() for name in names)
        self.assertEqual(named, sorted(room.name for room in ROOMS))


def _extent(rect: ElementTree.Element) -> tuple[float, float, float, float]:
    x, y, width, height = (float(rect.get(name, "")) for name in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


if __name__ == "__main__":
    unittest.main()

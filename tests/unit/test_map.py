# SPDX-License-Identifier: Apache-2.0
"""The map (cip/README.md) names what is there: every file and folder that it mentions exists; so do other texts."""

import re
import unittest
from pathlib import Path

from cip.rooms import ROOMS
from tests.support.roomed import needs_rooms

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "cip"
MAP = (PACKAGE / "README.md").read_text(encoding="utf-8")
_OUTSIDE = ("tests/",)


@needs_rooms(*(room.name for room in ROOMS))
class MapTest(unittest.TestCase):
    def test_every_file_that_it_names_exists(self) -> None:
        named = set(re.findall(r"`([a-z_/]+(?:\.py|/))(?:`|\.)", MAP))
        self.assertGreater(len(named), 40)
        for name in sorted(named):
            with self.subTest(name):
                if name.startswith(_OUTSIDE):
                    self.assertTrue((REPOSITORY / name).exists())
                else:
                    self.assertTrue(list(PACKAGE.rglob(name.rstrip("/"))), "nowhere in cip/")

    def test_modules_and_what_lies_in_them_are_where_a_text_says(self) -> None:
        """`module.name` of the map, docstrings and comments: it moves with what it names."""
        texts = [PACKAGE / "README.md", *PACKAGE.rglob("*.py"), *(REPOSITORY / "tests").rglob("*.py")]
        missed = {
            f"{path.relative_to(REPOSITORY)}: {name}"
            for path in texts
            for name in re.findall(
                r"`((?:[a-z_]+\.)+(?!py`|md`|json`|conf`)[A-Za-z_]+)`", path.read_text(encoding="utf-8")
            )
            if not _leads_somewhere(name.split("."))
        }
        self.assertEqual(missed, set())
        for wrong in (["wire", "status"], ["image", "ImageOpener"], ["registry", "endpoints", "Nothing"]):
            self.assertFalse(_leads_somewhere(wrong))

    def test_every_package_is_on_it(self) -> None:
        for path in PACKAGE.rglob("__init__.py"):
            package = path.parent.name
            with self.subTest(package):
                self.assertTrue(package == "cip" or f"{package}/" in MAP)


def _leads_somewhere(parts: list[str]) -> bool:
    """Whether a dotted name is there in cip/; one that begins with no module of it is not about it."""
    place = PACKAGE
    for part in parts:
        if (place / part).is_dir():
            place /= part
        elif (place / f"{part}.py").exists():
            place /= f"{part}.py"
        elif place == PACKAGE:
            return True
        else:
            text = place.read_text(encoding="utf-8") if place.is_file() else ""
            return bool(re.search(rf"(?m)^(?:class |def |(?={part} ?[:=])){part}\b", text))
    return True


if __name__ == "__main__":
    unittest.main()

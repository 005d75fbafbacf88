# SPDX-License-Identifier: Apache-2.0
"""The map (cip/README.md) names what is there: every file and folder that it mentions exists."""

import re
import unittest
from pathlib import Path

from cip.rooms import ROOMS
from tests.support.roomed import needs_rooms

REPOSITORY = Path(__file__).resolve().parents[2]
MAP = (REPOSITORY / "cip" / "README.md").read_text(encoding="utf-8")
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
                    self.assertTrue(list((REPOSITORY / "cip").rglob(name.rstrip("/"))), "nowhere in cip/")

    def test_every_package_is_on_it(self) -> None:
        for path in (REPOSITORY / "cip").rglob("__init__.py"):
            package = path.parent.name
            with self.subTest(package):
                self.assertTrue(package == "cip" or f"{package}/" in MAP)


if __name__ == "__main__":
    unittest.main()

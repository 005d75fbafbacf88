# SPDX-License-Identifier: Apache-2.0
import re
from pathlib import Path

from setuptools import setup
from setuptools.command.sdist import sdist


class WholeSdist(sdist):  # type: ignore[misc]  # setuptools has no types
    """A release holds all that packages are built and tested from; there is no MANIFEST.in."""

    def make_distribution(self) -> None:
        named = ["demo.py", "LICENSE", ".ruff.toml", ".editorconfig"]
        found = [path for top in ("cip", "tests", ".ci", ".github") for path in sorted(Path(top).rglob("*"))]
        self.filelist.extend([*named, *(str(path) for path in found if path.is_file() and not _is_made(path))])
        self.filelist.remove_duplicates()
        super().make_distribution()


def _is_made(path: Path) -> bool:
    return path.suffix == ".pyc" or any(part.endswith(("_cache", "__pycache__")) for part in path.parts)


def _description() -> str:
    """README for an index page: it drops pictures in `data:`, has no files, and so shows the words about a picture."""
    text = Path("README.md").read_text(encoding="utf-8")
    return re.sub(r"!\[([^]]*)\]\((?!https:)[^)]*\)", r"*\1*", text)


setup(cmdclass={"sdist": WholeSdist}, long_description=_description())

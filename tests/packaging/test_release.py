# SPDX-License-Identifier: Apache-2.0
"""The release that setuptools makes is the whole tree, and builds as the checkout does."""

from __future__ import annotations

import email
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import venv
from pathlib import Path

from readme_renderer import markdown

import cip
from tests.packaging.test_packages import NAME, ROOT, export


def setup(directory: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "setup.py", "-q", *arguments], cwd=directory, check=True)


def contents(directory: Path) -> dict[str, str]:
    """Name → sha256 of every file below."""
    found = (path for path in directory.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


class Release(unittest.TestCase):
    directory: Path
    checkout: Path
    tracked: dict[str, str]  # name → sha256 of the checkout
    release: Path  # what the sdist unpacks to

    @classmethod
    def setUpClass(cls) -> None:
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.directory = Path(scratch.name)
        cls.checkout = export(cls.directory / "checkout")
        cls.tracked = contents(cls.checkout)
        setup(cls.checkout, "sdist", "--dist-dir", str(cls.directory))
        (archive,) = cls.directory.glob("*.tar.gz")
        unpacked = cls.directory / "release"
        unpacked.mkdir()
        # Debian 12's Python 3.11.2 knows no filter to extract by, and later ones warn without
        subprocess.run(["tar", "-xf", str(archive), "-C", str(unpacked)], check=True)
        (cls.release,) = unpacked.iterdir()

    def test_it_holds_the_whole_tree(self) -> None:
        self.assertIn(self.release.name, (NAME, NAME.replace("-", "_", 2)))
        left_out = {".gitignore", "setup.cfg"}  # the latter gets a section of its own by setuptools
        wanted = {name: digest for name, digest in self.tracked.items() if name not in left_out}
        found = contents(self.release)
        self.assertEqual({name: found.get(name) for name in wanted}, wanted)
        self.assertTrue((self.release / "tests" / "run").stat().st_mode & 0o111)

    def test_what_is_built_from_it_is_what_is_built_from_the_checkout(self) -> None:
        built = []
        for name, source in (("a", self.checkout), ("b", self.release)):
            target = self.directory / name
            setup(source, "build_py", "--build-lib", str(target / "lib"))
            setup(source, "install_data", "--install-dir", str(target / "data"))
            built.append(contents(target))
        self.assertEqual(built[0], built[1])
        self.assertIn("lib/cip/py.typed", built[0])
        self.assertIn("data/share/man/man1/container-image-proxy.1", built[0])

    def test_its_command_starts_isolated_and_knows_its_link(self) -> None:
        """Installed into a virtual environment as pip would, which needs a network or a package `wheel`."""
        base = self.directory / "environment"
        venv.create(base, symlinks=True)
        (site,) = base.glob("lib/python3*/site-packages")
        setup(self.release, "build_py", "--build-lib", str(site))
        setup(self.release, "build_scripts", "--build-dir", str(base / "bin"))
        command = base / "bin" / "container-image-proxy"
        trap = self.directory / "trap" / "cip"
        trap.mkdir(parents=True)
        (trap / "__init__.py").write_text("raise SystemExit('the wrong package was imported')\n")
        (self.directory / "skopeo").symlink_to(command)
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(trap.parent)}
        for words, status, said in (
            ([str(command), "--version"], 0, f"container-image-proxy {cip.__version__}\n"),
            ([str(self.directory / "skopeo"), "copy", "a", "b"], 2, "under the name skopeo"),
        ):
            with self.subTest(words):
                done = subprocess.run(
                    words, check=False, capture_output=True, text=True, cwd=trap.parent, env=environment
                )
                self.assertEqual(done.returncode, status, done.stderr)
                self.assertIn(said, done.stdout + done.stderr)
        shutil.rmtree(site / "cip")
        done = subprocess.run([str(command), "--version"], check=False, capture_output=True, text=True, env=environment)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"\Acontainer-image-proxy: ERROR: .* finds no package cip; .*-m cip\n\Z")

    def test_its_description_names_the_licence_once(self) -> None:
        information = (self.release / "PKG-INFO").read_text(encoding="utf-8")
        self.assertRegex(information, r"(?m)^License(-Expression)?: Apache-2\.0$")
        self.assertNotIn("Classifier: License", information)

    def test_an_index_page_shows_its_description_whole(self) -> None:
        """As PyPI renders it; `data:` is dropped there, and a path leads nowhere."""
        information = email.message_from_bytes((self.release / "PKG-INFO").read_bytes())
        self.assertEqual(information["Description-Content-Type"], "text/markdown")
        shown = markdown.render(str(information.get_payload()))
        assert isinstance(shown, str)
        self.assertNotIn("<img", shown)
        self.assertEqual(re.findall(r'(?:href|src)="(?!https?:|#)[^"]*"', shown), [])
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        pictures = re.findall(r"!\[([^]]*)\]", readme)
        self.assertGreaterEqual(len(pictures), 2)
        for words in pictures:
            self.assertIn(f"<em>{words}</em>", shown)
        self.assertEqual(shown.count("<h2"), len(re.findall(r"(?m)^## ", readme)))


if __name__ == "__main__":
    unittest.main()

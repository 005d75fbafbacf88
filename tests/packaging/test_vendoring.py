# SPDX-License-Identifier: Apache-2.0
"""What is promised to people who copy the package under another name into their own project."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from tests.support import images

ROOT = Path(__file__).resolve().parents[2]

IMPORT_ALL = """
import importlib, pathlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("cryptography", "yaml", "cip"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
sys.path.insert(0, sys.argv[1])
before = {name for name in sys.modules}
for path in sorted(pathlib.Path(sys.argv[1], "theirs", "proxy").rglob("*.py")):
    if path.name != "__main__.py":
        parts = path.relative_to(sys.argv[1]).with_suffix("").parts
        importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
print(len(sys.modules) - len(before))
"""

# what a program does that has the package as `theirs.proxy`, and nothing installed
FETCH = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from theirs.proxy.client import open_proxy

with open_proxy(sys.argv[2], protocol=sys.argv[3], options=sys.argv[4:]) as image:
    for layer in image.layers():
        with image.open_blob(layer.digest) as blob:
            print(f"sha256:{hashlib.sha256(blob.read()).hexdigest()}")
"""


class Vendoring(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = Path(scratch.name)
        package = self.directory / "theirs"
        package.mkdir()
        (package / "__init__.py").touch()
        shutil.copytree(ROOT / "cip", package / "proxy", ignore=shutil.ignore_patterns("__pycache__"))

    def test_every_module_imports_without_the_optional_packages(self) -> None:
        done = subprocess.run(
            [sys.executable, "-I", "-c", IMPORT_ALL, str(self.directory)], capture_output=True, text=True, check=False
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertGreater(int(done.stdout), 50)

    def test_an_image_is_served_through_the_copied_client(self) -> None:
        layout = images.f1(self.directory / "layout")
        policy = self.directory / "policy.json"
        policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        options = [f"--policy={policy}", "--log-level=warning"]
        for protocol in ("http", "json"):
            with self.subTest(protocol):
                arguments = [str(self.directory), f"oci:{layout.path}:t", protocol, *options]
                done = subprocess.run(
                    [sys.executable, "-I", "-c", FETCH, *arguments],
                    capture_output=True, text=True, check=False, timeout=120, cwd="/",
                )  # fmt: skip
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, f"{images.DIGEST_T}\n", ""))


if __name__ == "__main__":
    unittest.main()

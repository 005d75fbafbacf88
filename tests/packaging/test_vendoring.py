# SPDX-License-Identifier: Apache-2.0
"""What is promised to people who copy the package under another name into their own project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Sequence
from pathlib import Path

from cip.rooms import ROOMS, Room, present
from tests.support import codelines, images
from tests.support.parent import running
from tests.support.tally import tally_of_unittest

ROOT = Path(__file__).resolve().parents[2]
VENDOR = ROOT / "tests" / "packaging" / "vendor"
# What a vendor takes at least. The goal is 7,500 lines of code in 65 files; these may only become smaller.
CORE_LINES = 7718
CORE_FILES = 64
LOCAL = ("archives", "daemon", "tarball", "storage")  # whose references only this one can read

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
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=120,
                    cwd="/",
                )
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, f"{images.DIGEST_T}\n", ""))


# room → how to ask for what it would do, and the error that says it is not there: exit status or code, and its words
REFUSALS = {
    "jsonproxy": (("experimental-image-proxy",), "2"),
    "signatures": (("--policy={signedBaseLayer}", "oci:{layout}:t"), "dependency-missing"),
    "openpgp": (("--policy={signedBy}", "oci:{layout}:t"), "dependency-missing"),
    "sigstore": (("--policy={sigstoreSigned}", "oci:{layout}:t"), "dependency-missing"),
    "convert": (("--insecure-policy", "dir:{docker}"), "dependency-missing"),
    "archives": (("--insecure-policy", "docker-archive:{layout}"), "transport-unsupported"),
    "daemon": (("--insecure-policy", "docker-daemon:x:1"), "transport-unsupported"),
    "tarball": (("--insecure-policy", "tarball:{layout}"), "transport-unsupported"),
    "storage": (("--insecure-policy", "containers-storage:x"), "transport-unsupported"),
    "explain": (("explain", "oci:{layout}:t"), "2"),
    "report": (("--insecure-policy", "--events-fd={spare}", "oci:{layout}:t"), "2"),
    "union": (("--insecure-policy", "--local-source=oci:{layout}", "docker://x.test/a:1"), "2"),
    "partial": (("--insecure-policy", "--partial-dir=/tmp", "oci:{layout}:t"), "2"),
    "budget": (("--insecure-policy", "--max-rate=1M", "oci:{layout}:t"), "2"),
    "segments": (("--insecure-policy", "--segments=4", "oci:{layout}:t"), "2"),
    "fetch": (("--insecure-policy", "fetch", "oci:{layout}:t", "oci:{layout}-copy"), "2"),
    "referrers": (("--insecure-policy", "oci:{layout}:t"), "dependency-missing"),
    "confine": (("--insecure-policy", "--require-sandbox=process", "oci:{layout}:t"), "2"),
    "readahead": (("--insecure-policy", "--read-ahead=1M", "oci:{layout}:t"), "2"),
}
NOT_ASKED_FOR = {
    "client",  # a module for other programs: nothing in this one would use it
    "hashing",  # without it a long blob is hashed by who copies it
    "sharing",  # without it and those who need it one blob is read at a time
    "early",  # without it a connection is made later
    "socks",  # what such a proxy needs is known only behind a connection to it: a unit test
    "programs",  # who asks for a helper, or for gpgv, is a unit test
    "bundle",  # what is said of a bundle that is not read is a unit test of the room sigstore
}


def lacks(room: Room, absent: set[str]) -> str:
    """The room that a refusal names: references are read first."""
    return "archives" if room.name in LOCAL and "archives" in absent else room.name


class Rooms(unittest.TestCase):
    """A copy without some rooms serves what is left, and refuses the rest by name."""

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = Path(scratch.name)
        self.layout = images.f1(self.directory / "layout")
        self.docker = images.directory(self.directory / "docker", images.MANIFEST_S, [images.CONFIG_C, images.LAYER_T])
        self.policies = {}
        for kind in ("signedBy", "sigstoreSigned", "signedBaseLayer"):
            path = self.directory / f"{kind}.json"
            requirement = {"type": kind, "keyPath": "/nonexistent"}
            if kind == "signedBy":
                requirement["keyType"] = "GPGKeys"
            path.write_text(json.dumps({"default": [requirement]}))
            self.policies[kind] = str(path)

    def copy(self, without: Sequence[Room]) -> Path:
        """A directory with the package `theirs`, which lacks these rooms."""
        destination = self.directory / "-".join(room.name for room in without)
        chosen = [room.name for room in ROOMS if room not in without]
        command = [sys.executable, str(VENDOR), str(destination), "--name=theirs", f"--rooms={','.join(chosen)}"]
        subprocess.run(command, check=True, capture_output=True)
        return destination

    def command(self, copy: Path) -> tuple[str, ...]:
        # -I, so that the checkout is never found by chance
        start = "import sys; sys.path.insert(0, sys.argv.pop(1)); from theirs.cli import run; run()"
        return (sys.executable, "-I", "-c", start, str(copy))

    def require_served(self, copy: Path) -> None:
        with running("--insecure-policy", f"oci:{self.layout.path}:t", command=self.command(copy)) as proxy:
            self.assertEqual(proxy.line.ask("GET", "/manifest").status, 200)
            answer = proxy.line.ask("GET", f"/blobs/{images.DIGEST_T}")
            self.assertEqual((answer.status, answer.complete), (200, True))

    def require_refused(self, copy: Path, room: Room, lacks: str) -> None:
        arguments, expected = REFUSALS[room.name]
        spare_read, spare_write = os.pipe()
        words = [
            word.format(layout=self.layout.path, docker=self.docker, spare=spare_write, **self.policies)
            for word in arguments
        ]
        said = f"without the room {lacks!r}"
        try:
            if expected.isdigit():
                done = subprocess.run(
                    [*self.command(copy), *words],
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=60,
                    stdin=subprocess.DEVNULL,
                    pass_fds=(spare_write,),
                )
                self.assertEqual((done.returncode, done.stderr.count("\n")), (int(expected), 1), done.stderr)
                self.assertIn(said, done.stderr)
                return
            with running(*words, command=self.command(copy)) as proxy:
                problem = proxy.line.ask("GET", "/referrers" if room.name == "referrers" else "/manifest").problem()
            self.assertEqual(problem["type"], expected)
            self.assertIn(said, problem["detail"])
        finally:
            os.close(spare_read)
            os.close(spare_write)

    def test_every_room_is_tried(self) -> None:
        self.assertEqual({room.name for room in ROOMS}, REFUSALS.keys() | NOT_ASKED_FOR)
        self.assertEqual(present(), tuple(room.name for room in ROOMS))

    def test_without_one_room_an_image_is_served_and_what_it_did_is_refused_by_name(self) -> None:
        for room in ROOMS:
            with self.subTest(room.name):
                also = [each for each in ROOMS if room.name in each.needs]
                copy = self.copy([room, *also])
                self.require_served(copy)
                for each in (room, *also):
                    if each.name in REFUSALS:
                        self.require_refused(copy, each, lacks(each, {room.name, *(other.name for other in also)}))

    def test_the_core_alone_serves_an_image_and_refuses_every_room_by_name(self) -> None:
        copy = self.copy(ROOMS)
        self.require_served(copy)
        for room in ROOMS:
            if room.name in REFUSALS:
                with self.subTest(room.name):
                    self.require_refused(copy, room, lacks(room, {each.name for each in ROOMS}))
        said = subprocess.run([*self.command(copy), "--help", "all"], check=True, capture_output=True, text=True).stdout
        self.assertEqual(said.count("container-image-proxy"), 1, said)  # no command but its own
        for word in ("--audit-fd", "--segments", "--offline", "--partial-limit", "--json"):
            self.assertNotIn(word, said)

    def test_the_core_keeps_its_limit(self) -> None:
        package = self.copy(ROOMS) / "theirs"
        lines = codelines.lines_of_package(package)
        self.assertLessEqual(sum(lines.values()), CORE_LINES)
        self.assertLessEqual(len(lines), CORE_FILES)

    def test_every_unit_test_of_what_is_left_passes(self) -> None:
        """The whole tree without the rooms and their directories of tests."""
        tree = self.directory / "tree"
        for name in ("cip", "tests"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("setup.cfg", "README.md", "demo.py"):
            shutil.copy(ROOT / name, tree / name)
        for room in ROOMS:
            for module in room.modules:
                path = (tree / "cip").joinpath(*module.split("."))
                shutil.rmtree(path) if path.is_dir() else path.with_suffix(".py").unlink()
            shutil.rmtree(tree / "tests" / "unit" / room.name, ignore_errors=True)
        done = subprocess.run(
            [sys.executable, "-s", "-m", "unittest", "discover", "-s", "tests/unit", "-t", "."],
            cwd=tree,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "CIP_SKIP_PEERS": "cryptography,yaml"},
        )
        tally = tally_of_unittest(done.stderr)
        self.assertEqual((done.returncode, tally.failed), (0, 0), done.stderr[-4000:])
        self.assertGreater(tally.passed, 500)


if __name__ == "__main__":
    unittest.main()

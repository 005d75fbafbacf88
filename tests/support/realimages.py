# SPDX-License-Identifier: Apache-2.0
"""Images made by the tools that people use: buildah and podman fill a local storage, umoci a layout.

The files in them are what unpackers stumble over: hard links, links, pipes, whiteouts, an opaque directory, extended
attributes, names that are no UTF-8, and a few megabytes that do not compress.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import unittest
from pathlib import Path

from tests.support import images
from tests.support.peers import require_peer, run_program

IMAGE = "localhost/made:2"
DRIVERS = ("vfs", "overlay")
_CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep, linux/capability.h
_NO_OVERLAY = ("'overlay' is not supported over", "driver not supported", "operation not permitted", "mount program")


class LocalStorage:
    """A storage below `directory` that the real tools work on; `home` is the home directory they are given.

    `close` before the directory is removed: the overlay driver leaves a mount of its root behind.
    """

    def __init__(self, directory: Path, driver: str, home: Path) -> None:
        self.driver = driver
        self.root = directory / driver / "root"
        self.run_root = directory / driver / "run"
        self._home = home

    def name(self, image: str) -> str:
        """The `containers-storage:` name of an image in it."""
        return f"containers-storage:[{self.driver}@{self.root}+{self.run_root}]{image}"

    def run(self, peer: str, *arguments: str) -> str:
        """Run buildah or podman on this storage; its stdout. SkipTest where this machine cannot do overlay at all."""
        options = ["--root", str(self.root), "--runroot", str(self.run_root), "--storage-driver", self.driver]
        try:
            return run_program(
                [require_peer(peer), *options, *arguments], home=self._home, environment={"BUILDAH_ISOLATION": "chroot"}
            )
        except AssertionError as error:
            if self.driver == "overlay" and any(words in str(error) for words in _NO_OVERLAY):
                raise unittest.SkipTest(f"no overlay on this machine: {error}") from error
            raise

    def close(self) -> None:
        """Unmount what the tools left mounted."""
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
            points = [line.split(" ")[1] for line in mounts]
        for point in reversed(points):
            if point.startswith(f"{self.root}/"):
                subprocess.run(["umount", "--lazy", point], check=True)

    def build(self) -> None:
        """Build IMAGE of two layers with buildah."""
        first = self._mounted("scratch")
        fill(first[1])
        self._commit(first[0], "localhost/made:1")
        second = self._mounted("localhost/made:1")
        change(second[1])
        self._commit(second[0], IMAGE)

    def _mounted(self, base: str) -> tuple[str, Path]:
        container = self.run("buildah", "from", "--pull-never", base).strip()
        return container, Path(self.run("buildah", "mount", container).strip())

    def _commit(self, container: str, name: str) -> None:
        self.run("buildah", "umount", container)
        self.run("buildah", "commit", "--quiet", container, name)
        self.run("buildah", "rm", container)


def fill(root: Path) -> None:
    """The files of the first layer."""
    (root / "d/opaque").mkdir(parents=True)
    (root / "d/file").write_bytes(b"content\n")
    os.link(root / "d/file", root / "d/hard")
    os.symlink("../d/file", root / "d/opaque/link")
    os.symlink("/d/file", root / "absolute")
    (root / "big").write_bytes(images.random_bytes(3_000_000, b"real"))
    with open(os.path.join(bytes(root), b"bad\xff\xfename"), "wb") as file:
        file.write(b"no UTF-8")
    os.mkfifo(root / "d/pipe")
    if os.geteuid() == 0:  # others may not set it, and user attributes do not get into layers
        os.setxattr(root / "big", "security.capability", _CAPABILITY)
    for number in range(300):
        (root / "many" / f"{number % 10}").mkdir(parents=True, exist_ok=True)
        (root / "many" / f"{number % 10}" / f"{number}").write_bytes(b"%d" % number)


def change(root: Path) -> None:
    """What the second layer changes: one file gone, one directory replaced, some files new."""
    (root / "d/file").unlink()
    shutil.rmtree(root / "d/opaque")
    (root / "d/opaque").mkdir()
    (root / "d/opaque/new").write_bytes(b"in the opaque directory")
    (root / "d/new").write_bytes(b"new")


def umoci_layout(path: Path, name: str, home: Path) -> None:
    """A layout with an image of two layers, made by umoci."""
    umoci = require_peer("umoci")
    image = f"{path}:{name}"
    bundle = path.with_name(path.name + "-bundle")

    def run(*arguments: str) -> None:
        run_program([umoci, *arguments], home=home)

    run("init", "--layout", str(path))
    run("new", "--image", image)
    run("unpack", "--rootless", "--image", image, str(bundle))
    fill(bundle / "rootfs")
    run("repack", "--refresh-bundle", "--image", image, str(bundle))
    change(bundle / "rootfs")
    run("repack", "--image", image, str(bundle))
    shutil.rmtree(bundle)

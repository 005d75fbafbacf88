# SPDX-License-Identifier: Apache-2.0
"""A host whose configuration lies in one temporary directory, for tests that must not see this machine's."""

import tempfile
import unittest
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from cip.hostconfig import paths
from cip.settings import HostEnvironment, Settings

_DIRECTORIES: Mapping[str, str] = {
    name: getattr(paths, name)
    for name in ("ADMIN_DIRECTORY", "VENDOR_DIRECTORY", "DOCKER_CERTIFICATES", "RUN_DIRECTORY", "STATE_DIRECTORY")
}


class Host:
    """The directories of a host below `root`, and settings that look there. Made by `make_host`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.home.mkdir()

    def write(self, path: str, content: str | bytes = "") -> str:
        """Write a file below the root and return its path; `~/` stands for the home directory."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(file)

    def path(self, path: str) -> Path:
        """Where `path` lies: `/etc/…` below the root, `~/…` in the home directory."""
        if path.startswith("~/"):
            return self.home / path[2:]
        return self.root / path.lstrip("/")

    def environment(self, variables: Mapping[str, str] | None = None, *, uid: int = 0) -> HostEnvironment:
        """What the process was started with."""
        return HostEnvironment(dict(variables or {}), str(self.home), uid, uid)

    def settings(self, variables: Mapping[str, str] | None = None, *, uid: int = 0) -> Settings:
        """Settings without a single option."""
        return Settings(environment=self.environment(variables, uid=uid))


def make_host(test: unittest.TestCase) -> Host:
    """A host for one test, gone after it: /etc, /usr/share, /run and /var lie in a temporary directory."""
    directory = tempfile.TemporaryDirectory()
    test.addCleanup(directory.cleanup)
    root = Path(directory.name).resolve()
    for name, path in _DIRECTORIES.items():
        patch = mock.patch.object(paths, name, str(root / path.lstrip("/")))
        patch.start()
        test.addCleanup(patch.stop)
    return Host(root)

# SPDX-License-Identifier: Apache-2.0
"""What the tests of tests/integration/test_field*.py share: a home directory, a played registry with one image."""

from __future__ import annotations

import json
import tempfile
import unittest
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cip.model import mediatype
from tests.support import images
from tests.support.parent import Answer, running
from tests.support.recording import Asked, Given, RecordingServer

NAME = "os/base"
AMD64 = {"architecture": "amd64", "os": "linux"}


class FieldCase(unittest.TestCase):
    """A home directory for each test, with a policy and a registries.conf that allows plain HTTP."""

    def setUp(self) -> None:
        self.scratch = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="cip-field-")))
        self.home = self.scratch / "home"
        self.write_home("policy.json", json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))

    def write_home(self, name: str, text: str) -> Path:
        """Write a file below ~/.config/containers."""
        path = self.home / ".config" / "containers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def played(self, answer: Callable[[Asked], Given]) -> RecordingServer:
        """A registry on plain HTTP that is marked insecure."""
        server = self.enterContext(RecordingServer(answer))
        self.write_home("registries.conf", f"[[registry]]\nlocation='{server.host}'\ninsecure=true\n")
        return server

    def ask(
        self,
        *arguments: str,
        target: str = "/manifest",
        status: int | None = 0,
        environment: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer to one request; what was written to stderr is in `stderr`."""
        with running(*arguments, home=self.home, status=status, environment=environment) as proxy:
            answer = proxy.line.ask("GET", target)
            proxy.hang_up()
            self.stderr = proxy.stderr()
        return answer

    def problem(self, *arguments: str, **more: Any) -> dict[str, Any]:
        """The problem document of a refused request."""
        return self.ask(*arguments, **more).problem()


def content(asked: Asked) -> Given:
    """What a registry with one image answers; 404 without a body for anything else."""
    last = asked.target.rpartition("/")[2]
    kind = {"Content-Type": mediatype.OCI_MANIFEST}
    bodies = {
        "9": Given(200, images.MANIFEST_M, kind),
        str(images.DIGEST_M): Given(200, images.MANIFEST_M, kind),
        str(images.DIGEST_T): Given(200, images.LAYER_T),
        str(images.DIGEST_C): Given(200, images.CONFIG_C),
        "": Given(200, b"{}"),
    }
    return bodies.get(last, Given(404))


def without_blobs(instead: Given, asked: Asked) -> Given:
    """The same, but `instead` for every blob."""
    return instead if "/blobs/" in asked.target else content(asked)


def complaining(code: str, message: str = "") -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()

# SPDX-License-Identifier: Apache-2.0
"""Blobs from each registry that is at hand, and from behind what stands in front of registries.

Each class is one registry; the tests are the same for all.
"""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
import unittest
from functools import cache
from pathlib import Path
from typing import ClassVar

from cip.model.descriptor import digest_of
from tests.support import images
from tests.support.certificates import CertificateAuthority
from tests.support.goinstalled import require_go_program
from tests.support.jsonparent import json_proxy
from tests.support.parent import running
from tests.support.peers import Server, docker_registry
from tests.support.pushing import Pusher
from tests.support.registries import BreakingLine, TokenServer, crane_registry, nginx

REPOSITORY = "os/base"
PASSWORD = "correct horse"
LAYERS = [
    images.tar([images.Member(b"small", b"x")]),
    images.random_bytes(1 << 20, b"one"),
    b"",
    images.random_bytes(6_000_000, b"six"),
]
CONFIG = images.config([digest_of(layer) for layer in LAYERS])
MANIFEST = images.manifest(CONFIG, LAYERS)


def push(host: str) -> None:
    """Push the image under the tag `t`."""
    with Pusher(host, REPOSITORY) as pusher:
        pusher.image("t", MANIFEST, CONFIG, *dict.fromkeys(LAYERS))


@cache
def filled() -> Path:
    """The storage of a docker-registry that has the image; copied by those who serve it with a guard in front."""
    scratch = Path(tempfile.mkdtemp(prefix="cip-registries-"))
    with docker_registry(scratch) as registry:
        push(registry.host)
    return scratch / "registry"


def tearDownModule() -> None:
    if filled.cache_info().currsize:
        shutil.rmtree(filled().parent)
        filled.cache_clear()


class Registries:
    """What is asked of every registry."""

    class Case(unittest.TestCase):
        insecure = True
        users: ClassVar[bool] = False

        def setUp(self) -> None:
            self.scratch = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="cip-registries-")))
            self.home = self.scratch / "home"
            self.write("policy.json", json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
            self.server = self.start()
            self.know(self.server.host)

        def start(self) -> Server:
            """The registry, filled; stopped at the end of the test."""
            raise NotImplementedError

        def guarded(self, directory: str, **options: object) -> Server:
            """A docker-registry with the image."""
            shutil.copytree(filled(), self.scratch / directory / "registry")
            return self.enterContext(docker_registry(self.scratch / directory, **options))  # type: ignore[arg-type]

        def write(self, name: str, text: str) -> None:
            path = self.home / ".config" / "containers" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

        def know(self, host: str) -> None:
            """Write what this host needs to enter the registry under the name `host`."""
            if self.insecure:
                self.write("registries.conf", f"[[registry]]\nlocation='{host}'\ninsecure=true\n")
            if self.users:
                auth = base64.b64encode(f"robot:{PASSWORD}".encode()).decode()
                self.write("auth.json", json.dumps({"auths": {host: {"auth": auth}}}))

        def image(self, host: str = "", tag: str = "t") -> str:
            return f"docker://{host or self.server.host}/{REPOSITORY}:{tag}"

        def test_every_blob_is_served_whole_on_both_protocols(self) -> None:
            wanted = [(str(digest_of(blob)), blob) for blob in (CONFIG, *LAYERS)]
            with running(self.image(), home=self.home) as proxy:
                answer = proxy.line.ask("GET", "/manifest")
                self.assertEqual((200, MANIFEST), (answer.status, answer.body))
                for digest, blob in wanted:
                    served = proxy.line.ask("GET", f"/blobs/{digest}")
                    self.assertEqual((200, True, blob), (served.status, served.complete, served.body))
            with json_proxy(home=self.home) as proxy_json:
                image = proxy_json.parent.open(self.image())
                for digest, blob in wanted:
                    size, data, finished = proxy_json.parent.fetch("GetBlob", image, digest, len(blob))
                    self.assertEqual((len(blob), blob, None), (size, data, finished.value))

        def test_a_blob_that_breaks_off_is_continued(self) -> None:
            with BreakingLine(self.server.port, 3_000_000) as line:
                self.know(line.host)
                with running("--retry-delay=0.1", self.image(line.host), home=self.home) as proxy:
                    served = proxy.line.ask("GET", f"/blobs/{digest_of(LAYERS[3])}")
                    self.assertEqual((200, True), (served.status, served.complete))
                    self.assertEqual(LAYERS[3], served.body)
                self.assertTrue(line.broken)

        def test_what_is_not_there_has_its_code(self) -> None:
            with running(self.image(tag="none"), home=self.home) as proxy:
                problem = proxy.line.ask("GET", "/manifest").problem()
                self.assertEqual(("image-not-found", 404), (problem["type"], problem["status"]), problem)
                self.assertIn("status 404", problem["detail"])
            with json_proxy(home=self.home) as proxy_json:
                proxy_json.parent.ask("Initialize")
                self.assertEqual(0, proxy_json.parent.ask("OpenImageOptional", self.image(tag="none")).value)


class DebianTest(Registries.Case):
    """docker-registry 2.8, as Debian has it."""

    def start(self) -> Server:
        return self.guarded("registry")


class DistributionTest(Registries.Case):
    """CNCF distribution 3."""

    def start(self) -> Server:
        program = require_go_program("distribution")
        server = self.enterContext(docker_registry(self.scratch / "registry", program=program))
        push(server.host)
        return server


class CraneTest(Registries.Case):
    """`crane registry serve`."""

    def start(self) -> Server:
        server = self.enterContext(crane_registry(self.scratch / "registry"))
        push(server.host)
        return server


class TokenTest(Registries.Case):
    """A registry that wants tokens, and the server that gives them to whoever knows the password."""

    users = True

    def start(self) -> Server:
        tokens = self.enterContext(TokenServer(self.scratch / "tokens", {"robot": PASSWORD}))
        return self.guarded("registry", token=tokens.configuration)

    def test_a_wrong_password_is_refused_with_what_the_token_server_says(self) -> None:
        auth = base64.b64encode(b"robot:wrong").decode()
        self.write("auth.json", json.dumps({"auths": {self.server.host: {"auth": auth}}}))
        with running(self.image(), home=self.home) as proxy:
            problem = proxy.line.ask("GET", "/manifest").problem()
        self.assertEqual("authentication-failed", problem["type"])
        self.assertIn("who are you", problem["detail"])


class BasicTest(Registries.Case):
    """nginx that asks for a name and a password."""

    users = True

    def start(self) -> Server:
        registry = self.guarded("registry")
        return self.enterContext(nginx(self.scratch / "nginx", registry.host, users={"robot": PASSWORD}))


class ClientCertificateTest(Registries.Case):
    """nginx that lets in those who show a certificate."""

    insecure = False

    def start(self) -> Server:
        self.authority = CertificateAuthority(self.scratch / "authority")
        self.client = self.authority.client()
        registry = self.guarded("registry")
        return self.enterContext(
            nginx(
                self.scratch / "nginx",
                registry.host,
                tls=self.authority.server(),
                client_authority=self.authority.certificate,
            )
        )

    def know(self, host: str) -> None:
        directory = self.home / ".config" / "containers" / "certs.d" / host
        directory.mkdir(parents=True)
        shutil.copy(self.authority.certificate, directory / "ca.crt")
        shutil.copy(self.client.certificate, directory / "client.cert")
        shutil.copy(self.client.key, directory / "client.key")


class RedirectTest(Registries.Case):
    """nginx that asks for a password and redirects for blobs to a place that must not be told it."""

    users = True
    test_a_blob_that_breaks_off_is_continued = None  # type: ignore[assignment]  # a line in front carries no blob

    def start(self) -> Server:
        registry = self.guarded("registry")
        return self.enterContext(
            nginx(
                self.scratch / "nginx",
                registry.host,
                users={"robot": PASSWORD},
                blobs=self.scratch / "registry" / "registry",
            )
        )

    def test_blobs_come_from_the_place_that_was_redirected_to(self) -> None:
        with running(self.image(), home=self.home) as proxy:
            self.assertEqual(200, proxy.line.ask("GET", f"/blobs/{digest_of(LAYERS[0])}").status)
        log = (self.scratch / "nginx" / "access.log").read_text()
        self.assertRegex(log, r'"GET /sha256/\S+/data\?signature=0 HTTP/1.1" 200')


if __name__ == "__main__":
    unittest.main()

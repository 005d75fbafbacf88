# SPDX-License-Identifier: Apache-2.0
"""The first connection is opened while the program still loads: when a request waits for it, and never otherwise."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import unittest
from collections.abc import Iterator
from pathlib import Path

from tests.bench.consumers import first_answer, installed_command
from tests.bench.synthetic import Handler, Layer
from tests.bench.synthetic import Server as RegistryServer
from tests.support.certificates import CertificateAuthority
from tests.support.parent import PATIENCE, running

ROOT = Path(__file__).resolve().parents[2]
ABSENT = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nDocker-Distribution-Api-Version: registry/2.0\r\n\r\n"


class Server:
    """Speaks TLS and answers 404 to all; closes the first `dying` connections behind the handshake."""

    def __init__(self, context: ssl.SSLContext, dying: int) -> None:
        self._context = context
        self._dying = dying
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self.requests = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """Stop, with every connection."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._listener.close()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # `close`
            while True:
                sock = self._listener.accept()[0]
                self.connections += 1
                with contextlib.suppress(OSError), self._context.wrap_socket(sock, server_side=True) as secured:
                    secured.settimeout(PATIENCE)
                    if self.connections > self._dying:
                        self._answer(secured)

    def _answer(self, sock: ssl.SSLSocket) -> None:
        seen = b""
        while part := sock.recv(65536):
            seen += part
            while b"\r\n\r\n" in seen:
                seen = seen.partition(b"\r\n\r\n")[2]
                self.requests += 1
                sock.sendall(ABSENT)


class EarlyDial(unittest.TestCase):
    certificates: Path
    context: ssl.SSLContext

    @classmethod
    def setUpClass(cls) -> None:
        scratch = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        authority = CertificateAuthority(scratch / "authority")
        files = authority.server()
        cls.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        cls.context.load_cert_chain(files.certificate, files.key)
        cls.certificates = scratch / "certificates"
        cls.certificates.mkdir()
        (cls.certificates / "ca.crt").write_bytes(authority.certificate.read_bytes())

    @contextlib.contextmanager
    def server(self, dying: int = 0) -> Iterator[Server]:
        with contextlib.closing(Server(self.context, dying)) as server:
            yield server

    def ask(self, server: Server, method: str, target: str, *options: str, pipes: bool = False) -> tuple[int, str]:
        """Status and code of the answer to a request that waits before the program has read its options."""
        arguments = options or ("--insecure-policy",)
        image = f"docker://127.0.0.1:{server.port}/a/b:t"
        with running(f"--cert-dir={self.certificates}", "--retry-times=0", *arguments, image, pipes=pipes) as proxy:
            answer = proxy.line.ask(method, target)
            return answer.status, answer.problem()["type"] if answer.status >= 400 else ""

    def test_is_made_for_a_request_that_waits_and_serves_it(self) -> None:
        with self.server() as server:
            self.assertEqual(self.ask(server, "GET", "/manifest"), (404, "image-not-found"))
            self.assertEqual((server.connections, server.requests), (1, 1))

    def test_is_made_before_anything_is_asked(self) -> None:
        with self.server() as server:
            self.assertEqual(self.ask(server, "GET", "/blobs/sha256:abc"), (400, "digest-invalid"))
            self.assertEqual((server.connections, server.requests), (1, 0))

    def test_is_made_with_a_policy_from_a_file(self) -> None:
        policy = self.certificates.parent / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}', encoding="ascii")
        with self.server() as server:
            self.assertEqual(
                self.ask(server, "GET", "/blobs/sha256:abc", f"--policy={policy}"), (400, "digest-invalid")
            )
            self.assertEqual((server.connections, server.requests), (1, 0))

    def test_leaves_what_comes_through_a_pipe_to_the_request(self) -> None:
        policy = '{"default": [{"type": "insecureAcceptAnything"}]}'
        rules = "[[registry]]\nprefix = 'x.example'\nlocation = 'y.example'\n"
        for option, text, others in (("--policy", policy, ()), ("--registries-conf", rules, ("--insecure-policy",))):
            with self.subTest(option), self.server() as server, tempfile.TemporaryDirectory() as scratch:
                pipe = Path(scratch, "pipe")
                os.mkfifo(pipe)
                threading.Thread(target=pipe.write_text, args=(text,), daemon=True).start()
                answer = self.ask(server, "GET", "/manifest", f"{option}={pipe}", *others)
                self.assertEqual(answer, (404, "image-not-found"))

    def test_that_dies_before_its_first_answer_is_replaced_unseen(self) -> None:
        with self.server(dying=1) as server:
            self.assertEqual(self.ask(server, "GET", "/manifest"), (404, "image-not-found"))
            self.assertEqual((server.connections, server.requests), (2, 1))

    def test_is_not_made_for_a_parent_that_only_quits_or_on_pipes(self) -> None:
        for method, target, pipes in (
            ("POST", "/quit", False),
            ("GET", "/quit", False),
            ("OPTIONS", "/manifest", False),
            ("GET", "/blobs/sha256:abc", True),
        ):
            with self.subTest(method, target=target, pipes=pipes), self.server() as server:
                self.ask(server, method, target, pipes=pipes)
                self.assertEqual(server.connections, 0)

    def test_is_not_made_without_a_policy_that_can_be_read(self) -> None:
        for option, code in (("--policy=/nowhere", "policy-missing"), (f"--policy={__file__}", "policy-invalid")):
            with self.subTest(code), self.server() as server:
                self.assertEqual(self.ask(server, "GET", "/manifest", option), (500, code))
                self.assertEqual(server.connections, 0)

    def test_is_not_made_to_what_perhaps_speaks_no_tls_or_from_local_sources(self) -> None:
        for options in (("--tls-verify=false",), ("--offline", "--local-source=oci:/nowhere")):
            with self.subTest(options), self.server() as server:
                self.ask(server, "GET", "/blobs/sha256:abc", "--insecure-policy", *options)
                self.assertEqual(server.connections, 0)

    def test_whose_failure_is_told_by_the_one_that_was_asked_for(self) -> None:
        with self.server() as server:
            pass
        self.assertEqual(self.ask(server, "GET", "/manifest"), (502, "connection-refused"))


class Loaded(unittest.TestCase):
    """What serves the manifest is loaded before it, and nothing else of ours."""

    LATER = (
        "cip.confine.needs",
        "cip.confine.sandbox",
        "cip.hostconfig.credhelper",
        "cip.model.convert",
        "cip.model.platform",
        "cip.model.signature",
        "cip.net.tunnel",
        "cip.readahead.schedule",
        "cip.referrers",
        "cip.registry.answers",
        "cip.registry.blob",
        "cip.segments",
        "cip.signatures",
        "cip.wire.problem",
        "cryptography",
        "subprocess",
        "yaml",
    )

    BEHIND = frozenset(
        {"base64", "hashlib", "http.client", "json", "socketserver", "ssl", "struct", "urllib.parse", "urllib.request"}
    )

    def test_what_no_connection_needs_loads_behind_its_beginning(self) -> None:
        code = "import sys, cip.cli, cip.early; print(*sys.modules)"
        told = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
        self.assertEqual(self.BEHIND & set(told.decode().split()), set())

    def test_what_may_load_later_does(self) -> None:
        Handler.layers = (Layer(1, 64, 0),)
        server = RegistryServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        for end in (server.server_close, thread.join, server.shutdown):  # the last one first
            self.addCleanup(end)
        command = installed_command(sys.executable, ROOT, "-X", "importtime", until_answer=True)
        options = ("--insecure-policy", "--tls-verify=false", "--log-level=error")
        answer, told = first_answer([*command, *options], f"docker://127.0.0.1:{server.server_port}/image")
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        loaded = {line.rpartition("|")[2].strip() for line in told.splitlines() if line.startswith("import time:")}
        self.assertIn("cip.wire.httpserver", loaded)
        self.assertEqual(sorted(loaded & set(self.LATER)), [])
        for name in sorted(each for each in loaded if each.startswith("cip.")):
            text = (ROOT / name.replace(".", "/")).with_suffix(".py")
            source = text.read_text() if text.exists() else ""
            with self.subTest(
                name
            ):  # else typing compiles each field, which is then a text: 40 % of what a class costs
                self.assertFalse("(NamedTuple)" in source and "from __future__ import annotations" in source)


if __name__ == "__main__":
    unittest.main()

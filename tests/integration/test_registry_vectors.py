# SPDX-License-Identifier: Apache-2.0
"""What a registry answers, and where it sends us: tables b and c of tests/spec/stdlib-http.md, row by row.

Each row starts the program, asks as a parent does, and compares the `type` of the problem document. A row that another
decision overrides keeps its test with our value; `OVERRIDDEN` and tests/data/deviations.md say which and why.
"""

import json
import ssl
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

from cip.errors import NetworkError
from cip.events import NO_EVENTS
from cip.model import mediatype
from cip.model.descriptor import digest_of
from cip.net.opener import Opener, Request
from cip.net.tls import TlsIdentity
from cip.net.url import parse_url
from cip.programs import DirectPrograms
from cip.registry.session import RegistrySession
from cip.settings import Settings, TimeLimits
from tests.support import images
from tests.support.certificates import CertificateAuthority
from tests.support.parent import Answer, running
from tests.support.peers import CertificateFiles
from tests.support.scripted import expand, scripted_servers

VECTORS = json.loads((Path(__file__).resolve().parents[1] / "spec" / "stdlib-http-vectors.json").read_text())
WORKERS = 4  # rows at once: some wait for time-outs
LAYER = b"helloworld"
CONFIG = images.config([digest_of(LAYER)])
MANIFEST = images.manifest(CONFIG, [images.describe(LAYER, mediatype.OCI_LAYER)])
DIGEST = str(digest_of(LAYER))
BASE = ("--insecure-policy", "--override-os=linux", "--override-arch=amd64")
# the row of table c: what is seen and told instead
OVERRIDDEN: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "basic, anonymous": (("R GET /v2/a/b/manifests/t",), ("authentication-failed",)),
    "proxy over TLS": ((), ("registry-error",)),  # it is spoken to over TLS, which this one does not speak
}


def whole(body: bytes, media_type: str) -> bytes:
    """An answer as any registry gives it."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (media_type.encode(), len(body)) + body


PLAIN = {
    "/v2/": whole(b"{}", "application/json"),
    "/v2/a/b/manifests/t": whole(MANIFEST, mediatype.OCI_MANIFEST),
    f"/v2/a/b/blobs/{DIGEST}": whole(LAYER, "application/octet-stream"),
    f"/v2/a/b/blobs/{digest_of(CONFIG)}": whole(CONFIG, "application/octet-stream"),
    "MAN": whole(MANIFEST, mediatype.OCI_MANIFEST),
    "BLOB": whole(LAYER, "application/octet-stream"),
}


def names_of(body: bytes) -> dict[str, bytes]:
    """What stands in braces in table b."""
    size = len(body)
    return {
        "B": body,
        "N": b"%d" % size,
        "X": b"%x" % size,
        "B5": body[:5],
        "R": body[5:],
        "R1": b"%d" % (size - 5),
        "B1": body[:1],
        "BR": body[1:],
        "Z": b"?" * size,
        "N1": b"%d" % (size + 1),
        "L": b"%d" % (size - 1),
        "X1": b"%x" % (size - 1),
        "X2": b"%02x" % size,
    }


def told(answer: Answer, body: bytes) -> str:
    """`whole`, or the type of the problem."""
    if answer.status != 200:
        return str(answer.problem()["type"])
    return "whole" if answer.complete and answer.body == body else f"wrong bytes {answer.body[:40]!r}"


class VectorCase(unittest.TestCase):
    tls: ClassVar[ssl.SSLContext]
    certificates: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        cls.certificates = Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="cip-vectors-")))
        authority = CertificateAuthority(cls.certificates / "authority")
        files: CertificateFiles = authority.server(["localhost", "registry.test"])
        cls.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        cls.tls.load_cert_chain(files.certificate, files.key)
        (cls.certificates / "certs").mkdir()
        (cls.certificates / "certs" / "ca.crt").write_bytes(authority.certificate.read_bytes())

    def run_rows(self, rows: Sequence[dict[str, Any]], run: Callable[[dict[str, Any]], tuple[Any, Any]]) -> None:
        """Compare the two results of `run` for each row."""
        with ThreadPoolExecutor(WORKERS) as pool:
            for row, result in zip(rows, pool.map(run, rows), strict=True):
                with self.subTest(row["name"]):
                    self.assertEqual(*result)


class AnswersTest(VectorCase):
    def test_a_blob_is_whole_or_the_fault_is_named(self) -> None:
        self.run_rows(VECTORS["b"], lambda row: (row["blob"], self.ask(row, LAYER, f"/v2/a/b/blobs/{DIGEST}")))

    def test_a_manifest_is_whole_or_the_fault_is_named(self) -> None:
        self.run_rows(VECTORS["b"], lambda row: (row["manifest"], self.ask(row, MANIFEST, "/v2/a/b/manifests/t")))

    def ask(self, row: dict[str, Any], body: bytes, target: str) -> str:
        limits = ("--idle-timeout=1", "--open-timeout=4", "--stall-timeout=3", "--tls-verify=false")
        repeats = (f"--retry-times={1 if row['then'] else 0}", "--retry-delay=0")
        with scripted_servers(["R"], PLAIN, None) as (servers, _):
            server = servers["R"]
            server.scripts = {target: [row["steps"], *([row["then"]] if row["then"] else [])]}
            server.names = names_of(body)
            with running(*BASE, *limits, *repeats, f"docker://127.0.0.1:{server.port}/a/b:t") as proxy:
                if body is MANIFEST:
                    return told(proxy.line.ask("GET", "/manifest"), MANIFEST)
                return told(proxy.line.ask("GET", f"/blobs/{DIGEST}"), LAYER)


class JourneysTest(VectorCase):
    def test_requests_go_where_they_may_and_carry_what_they_may(self) -> None:
        self.run_rows(VECTORS["c"], self.travel)

    def test_an_insecure_registry_that_only_a_proxy_of_http_reaches(self) -> None:
        manifest = "http://registry.test:5000/v2/a/b/manifests/t"
        row = {
            "name": "",
            "ask": "M",
            "image": "registry.test:5000/a/b:t",
            "connections": None,
            "environment": {"HTTP_PROXY": "http://{P}"},
            "options": ["--tls-verify=false"],
            "scripts": {"P": {manifest: [["MAN"]]}},
            "seen": [f"P GET {manifest}"],
            "told": ["whole"],
        }
        self.assertEqual(*self.travel(row))

    def test_credentials_are_offered_where_what_is_private_is_hidden(self) -> None:
        hidden = "HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\n{}"
        challenge = 'HTTP/1.1 401 X\r\nWWW-Authenticate: Basic realm="r"\r\nContent-Length: 2\r\n\r\n{}'
        manifest = "/v2/a/b/manifests/t"
        for status in (403, 404):
            row = {
                "name": "",
                "ask": "M",
                "image": "{R}/a/b:t",
                "connections": None,
                "environment": {},
                "options": ["--creds=u:p"],
                "told": ["whole"],
                "scripts": {"R": {manifest: [[hidden % status], ["MAN"]], "/v2/": [[challenge]]}},
                "seen": [f"R GET {manifest}", "R GET /v2/", f"R GET {manifest} auth=Basic dTpw"],
            }
            with self.subTest(status):
                self.assertEqual(*self.travel(row))

    def travel(self, row: dict[str, Any]) -> tuple[Any, Any]:
        with scripted_servers(["R", "S", "O", "Q", "T", "P"], PLAIN, self.tls) as (servers, log):
            names = {name: b"127.0.0.1:%d" % server.port for name, server in servers.items()}
            certificates = bytes(self.certificates / "certs")
            names |= {"SP": b"%d" % servers["S"].port, "D": DIGEST.encode(), "CERTS": certificates}

            def text(value: str) -> str:
                return expand(value, names).decode("latin-1")

            for name, scripts in row["scripts"].items():
                servers[name].scripts = {text(target): answers for target, answers in scripts.items()}
                servers[name].names = names
            options = [text(option) for option in row["options"]]
            if not any(option.startswith(("--tls-verify", "--cert-dir")) for option in options):
                options.append("--tls-verify=false")
            if not any(option.startswith("--retry-times") for option in options):
                options.append("--retry-times=0")
            environment = {name: text(value) for name, value in row["environment"].items()}
            image = f"docker://{text(row['image'])}"
            with running(*BASE, "--retry-delay=0", *options, image, environment=environment) as proxy:
                asked = {"M": ("/manifest", MANIFEST), "B": (f"/blobs/{DIGEST}", LAYER)}
                found = [told(proxy.line.ask("GET", path), body) for path, body in (asked[each] for each in row["ask"])]
            seen, wanted = OVERRIDDEN.get(row["name"], (row["seen"], row["told"]))
            connections = {name: servers[name].connections for name in row["connections"] or {}}
        expected = [text(line) for line in seen], list(wanted), row["connections"] or {}
        return expected, (log, found, connections)


class CancellationTest(VectorCase):
    def test_another_thread_ends_a_wait_over_tls_at_once(self) -> None:
        with scripted_servers(["S"], PLAIN, self.tls) as (servers, _):
            server = servers["S"]
            server.scripts = {"/x": [["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", 30.0]]}
            session = RegistrySession(Settings(times=TimeLimits(idle=60)), NO_EVENTS, DirectPrograms())
            self.addCleanup(session.close)
            limits = session.limits()
            opener = Opener(session.network, TlsIdentity(verify=False))
            response = opener.ask(Request(parse_url(f"https://127.0.0.1:{server.port}/x")), limits)
            self.addCleanup(response.close)
            buffer = bytearray(9)
            self.assertEqual(response.readinto(buffer), 5)
            timer = threading.Timer(0.1, limits.cancellation.cancel)
            timer.start()
            began = time.monotonic()
            with self.assertRaisesRegex(NetworkError, "given up by the caller"):
                response.readinto(buffer)
            self.assertLess(time.monotonic() - began, 5)
            timer.join()


if __name__ == "__main__":
    unittest.main()

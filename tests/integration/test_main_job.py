# SPDX-License-Identifier: Apache-2.0
"""The main job: a parent fetches an image of several platforms and layers from a real registry, byte for byte.

The registry is Debian's docker-registry, once plain and once with TLS and passwords; the images are pushed by Debian's
skopeo and by the few requests of the distribution specification that a push takes.
"""

import base64
import contextlib
import gzip
import hashlib
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import unittest
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

from cip.model import mediatype
from cip.model.descriptor import Descriptor, Digest, digest_of
from tests.support import images
from tests.support.certificates import CertificateAuthority
from tests.support.parent import PATIENCE, ROOT, Proxy, running
from tests.support.peers import Registry, clean_environment, docker_registry, skopeo

USER, PASSWORD = "alice", "correct:horse battery"
PLATFORMS = (("amd64", None), ("arm64", "v8"), ("arm", "v7"))
NAME = "library/multi"


class Pushed(NamedTuple):
    """An image of several platforms: its index on top, and per architecture the manifest and all its blobs."""

    top: bytes
    manifests: dict[str, bytes]
    blobs: dict[str, dict[Digest, bytes]]


def make_image(layout: images.Layout) -> Pushed:
    """Three platforms of four layers each: shared, plain, gzip, and one of several megabytes."""
    shared = images.tar([images.Member(b"etc/shared", b"for all")])
    entries, manifests, blobs = [], {}, {}
    for architecture, variant in PLATFORMS:
        own = images.tar([images.Member(f"usr/bin/{architecture}".encode(), architecture.encode())])
        large = images.tar([images.Member(b"data", images.random_bytes(5_000_000, architecture.encode()))])
        packed = gzip.compress(large, mtime=0)
        layers = [
            images.describe(shared, mediatype.OCI_LAYER),
            images.describe(own, mediatype.OCI_LAYER),
            images.describe(gzip.compress(own, mtime=0), f"{mediatype.OCI_LAYER}+gzip"),
            images.describe(packed, f"{mediatype.OCI_LAYER}+gzip"),
        ]
        config = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
        config["rootfs"] = {"type": "layers", "diff_ids": [str(digest_of(each)) for each in (shared, own, own, large)]}
        content = [images.compact(config), shared, own, gzip.compress(own, mtime=0), packed]
        manifest = images.manifest(content[0], layers)
        for data in (*content, manifest):
            layout.add_blob(data)
        platform = {"os": "linux", "architecture": architecture} | ({"variant": variant} if variant else {})
        entries.append(images.entry(manifest, platform=platform))
        manifests[architecture] = manifest
        blobs[architecture] = {digest_of(data): data for data in content}
    index = images.index(entries)
    layout.add_manifest(index, mediatype.OCI_INDEX, name="t")
    return Pushed(index, manifests, blobs)


class Pusher:
    """Fills a registry as the distribution specification says ("Push"), without a program in between."""

    def __init__(self, registry: Registry, name: str, *, authority: Path | None = None) -> None:
        self._name = name
        self._headers: dict[str, str] = {}
        self._connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=PATIENCE)
        if authority is not None:
            context = ssl.create_default_context(cafile=str(authority))
            self._connection = http.client.HTTPSConnection("127.0.0.1", registry.port, context=context)
            token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            self._headers["Authorization"] = f"Basic {token}"

    def __enter__(self) -> "Pusher":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def blob(self, data: bytes) -> None:
        location = self._ask("POST", f"/v2/{self._name}/blobs/uploads/", 202).headers["Location"]
        url = urllib.parse.urlsplit(location)
        self._ask("PUT", f"{url.path}?{url.query}&digest={digest_of(data)}", 201, data, "application/octet-stream")

    def manifest(self, tag: str, data: bytes, media_type: str) -> None:
        self._ask("PUT", f"/v2/{self._name}/manifests/{tag}", 201, data, media_type)

    def image(self, tag: str, manifest: bytes, media_type: str, *blobs: bytes) -> None:
        for data in blobs:
            self.blob(data)
        self.manifest(tag, manifest, media_type)

    def _ask(
        self, method: str, target: str, status: int, body: bytes = b"", media_type: str = ""
    ) -> http.client.HTTPResponse:
        headers = self._headers | ({"Content-Type": media_type} if media_type else {})
        self._connection.request(method, target, body=body, headers=headers)
        response = self._connection.getresponse()
        text = response.read()
        assert response.status == status, (method, target, response.status, text)
        return response


class MainJob(unittest.TestCase):
    """Both registries with the image in them, for all tests of this file."""

    scratch: ClassVar[Path]
    pushed: ClassVar[Pushed]
    authority: ClassVar[CertificateAuthority]
    certificates: ClassVar[Path]  # a directory as `--cert-dir` takes it
    plain: ClassVar[Registry]
    secure: ClassVar[Registry]

    @classmethod
    def setUpClass(cls) -> None:
        cls.scratch = Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="cip-main-job-")))
        cls.pushed = make_image(images.Layout(cls.scratch / "layout"))
        cls.authority = CertificateAuthority(cls.scratch / "authority")
        cls.plain = cls.enterClassContext(docker_registry(cls.scratch / "plain"))
        cls.secure = cls.enterClassContext(
            docker_registry(cls.scratch / "secure", tls=cls.authority.server(), htpasswd={USER: PASSWORD})
        )
        cls.certificates = cls.scratch / "certificates"
        cls.certificates.mkdir()
        (cls.certificates / "ca.crt").write_bytes(cls.authority.certificate.read_bytes())
        source = f"oci:{cls.scratch}/layout:t"
        for registry, options in (
            (cls.plain, ["--dest-tls-verify=false"]),
            (cls.secure, [f"--dest-creds={USER}:{PASSWORD}", f"--dest-cert-dir={cls.certificates}"]),
        ):
            target = f"docker://{registry.host}/{NAME}:t"
            skopeo("copy", "--quiet", "--all", "--preserve-digests", *options, source, target, home=cls.scratch)

    def setUp(self) -> None:
        policy = self.scratch / "policy.json"
        policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}), encoding="utf-8")
        self.policy = f"--policy={policy}"

    def with_tls(self, *arguments: str) -> list[str]:
        return [self.policy, f"--cert-dir={self.certificates}", *arguments, f"docker://{self.secure.host}/{NAME}:t"]

    def require_whole_image(self, proxy: Proxy, architecture: str) -> None:
        """Fetch everything and compare it with what was pushed, not with what is announced."""
        answer = proxy.line.ask("GET", "/manifest")
        self.assertEqual((answer.status, answer.body), (200, self.pushed.manifests[architecture]), answer)
        self.assertEqual(answer.field("Manifest-Digest"), str(digest_of(self.pushed.manifests[architecture])))
        self.assertEqual(answer.field("Manifest-Index-Digest"), str(digest_of(self.pushed.top)))
        manifest = json.loads(answer.body)
        named = [manifest["config"], *manifest["layers"]]
        self.assertEqual({each["digest"] for each in named}, {str(key) for key in self.pushed.blobs[architecture]})
        for digest, content in self.pushed.blobs[architecture].items():
            head = proxy.line.ask("HEAD", f"/blobs/{digest}")
            self.assertEqual((head.status, head.field("Content-Length")), (200, str(len(content))))
            answer = proxy.line.ask("GET", f"/blobs/{digest}")
            self.assertEqual((answer.status, len(answer.body)), (200, len(content)))
            self.assertTrue(answer.body == content)
        self.assertEqual(proxy.line.ask("POST", "/quit").status, 200)
        self.assertEqual(proxy.wait(), 0)


class Plain(MainJob):
    def test_every_platform_byte_for_byte(self) -> None:
        for architecture, variant in PLATFORMS:
            options = [f"--override-arch={architecture}", *([f"--override-variant={variant}"] if variant else [])]
            reference = f"docker://{self.plain.host}/{NAME}:t"
            with self.subTest(architecture):
                with running(self.policy, "--tls-verify=false", "--override-os=linux", *options, reference) as proxy:
                    self.require_whole_image(proxy, architecture)
                    self.assertRegex(proxy.stderr(), r"\A.*WARNING: 127\.0\.0\.1:\d+: .*plain http.*\n\Z")

    def test_by_the_digest_of_the_index_and_of_an_instance(self) -> None:
        index, instance = digest_of(self.pushed.top), digest_of(self.pushed.manifests["arm64"])
        for digest, wanted in ((index, "amd64"), (instance, "arm64")):
            reference = f"docker://{self.plain.host}/{NAME}@{digest}"
            with self.subTest(wanted):
                with running(self.policy, "--tls-verify=false", "--override-arch=amd64", reference) as proxy:
                    answer = proxy.line.ask("GET", "/manifest")
                self.assertEqual(answer.body, self.pushed.manifests[wanted])
                self.assertEqual(answer.field("Manifest-Index-Digest"), str(index) if digest == index else None)

    def test_one_connection_serves_everything(self) -> None:
        begin = len(self.plain.log_text())
        arguments = ["--tls-verify=false", "--override-arch=amd64", "--read-ahead=0"]
        with running(self.policy, *arguments, f"docker://{self.plain.host}/{NAME}:t") as proxy:
            self.require_whole_image(proxy, "amd64")
        lines = self.plain.log_text()[begin:].splitlines()
        ours = [line for line in lines if "useragent=" in line and "container-image-proxy/" in line]
        ports = {found[1] for line in ours if (found := re.search(r'remoteaddr="127\.0\.0\.1:(\d+)"', line))}
        self.assertEqual(len(ports), 1, ports)
        self.assertTrue(any("/blobs/" in line for line in ours))

    def test_without_permission_plain_http_is_not_spoken(self) -> None:
        with running(self.policy, "--retry-times=0", f"docker://{self.plain.host}/{NAME}:t") as proxy:
            problem = proxy.line.ask("GET", "/manifest").problem()
        self.assertEqual((problem["status"], problem["phase"]), (502, "tls"))
        self.assertRegex(problem["detail"], "expected tls, found another protocol, perhaps plain http")

    def test_what_is_missing_and_for_whom(self) -> None:
        for name, option, code, reason in (
            ("nothing/here:t", "--override-arch=amd64", "image-not-found", "nothing/here"),
            (f"{NAME}:nope", "--override-arch=amd64", "image-not-found", "nope"),
            (f"{NAME}:t", "--override-arch=s390x", "platform-not-found", "linux/amd64.*linux/arm64"),
        ):
            with self.subTest(name, option=option):
                with running(self.policy, "--tls-verify=false", option, f"docker://{self.plain.host}/{name}") as proxy:
                    answer = proxy.line.ask("GET", "/manifest")
                self.assertEqual((answer.status, answer.problem()["type"]), (404, code))
                self.assertRegex(answer.problem()["detail"], reason)

    def test_a_docker_image_pushed_by_code_is_converted(self) -> None:
        with Pusher(self.plain, "pushed/docker") as push:
            push.image("t", images.MANIFEST_S, mediatype.DOCKER_MANIFEST, images.CONFIG_C, images.LAYER_T)
        with running(self.policy, "--tls-verify=false", f"docker://{self.plain.host}/pushed/docker:t") as proxy:
            manifest = proxy.line.ask("GET", "/manifest")
            config = proxy.line.ask("GET", f"/blobs/{images.DIGEST_C}")
            layer = proxy.line.ask("GET", f"/blobs/{images.DIGEST_T}")
        self.assertEqual((manifest.body, config.body, layer.body), (images.MANIFEST_M, images.CONFIG_C, images.LAYER_T))
        self.assertEqual(manifest.field("Manifest-Digest"), str(images.DIGEST_S))

    def test_an_artifact_that_is_no_image_passes_untouched(self) -> None:
        wasm, config = b"\0asm\1\0\0\0", b"{}"
        described = [Descriptor("application/wasm", digest_of(wasm), len(wasm))]
        manifest = images.manifest(config, described)
        manifest = manifest.replace(mediatype.OCI_CONFIG.encode(), b"application/vnd.wasm.config.v0+json")
        with Pusher(self.plain, "pushed/wasm") as push:
            push.image("t", manifest, mediatype.OCI_MANIFEST, wasm, config)
        with running(self.policy, "--tls-verify=false", f"docker://{self.plain.host}/pushed/wasm:t") as proxy:
            self.assertEqual(proxy.line.ask("GET", "/manifest").body, manifest)
            self.assertEqual(proxy.line.ask("GET", f"/blobs/{digest_of(wasm)}").body, wasm)

    def test_a_blob_that_the_registry_lost_or_damaged(self) -> None:
        damaged, lost = b"damaged" * 1000, b"lost" * 1000
        described = [images.describe(data, mediatype.OCI_LAYER) for data in (damaged, lost)]
        with Pusher(self.plain, "pushed/broken") as push:
            manifest = images.manifest(images.CONFIG_C, described)
            push.image("t", manifest, mediatype.OCI_MANIFEST, images.CONFIG_C, damaged, lost)
        stored = self.plain.root / "docker/registry/v2/blobs/sha256"
        for data in (damaged, lost):
            hexadecimal = hashlib.sha256(data).hexdigest()
            file = stored / hexadecimal[:2] / hexadecimal / "data"
            file.write_bytes(b"D" + data[1:]) if data is damaged else file.unlink()
        reference = f"docker://{self.plain.host}/pushed/broken:t"
        with running(self.policy, "--tls-verify=false", "--retry-times=0", reference) as proxy:
            answer = proxy.line.ask("GET", f"/blobs/{digest_of(damaged)}")
            self.assertEqual((answer.status, answer.problem()["type"]), (502, "content-mismatch"))
            answer = proxy.line.ask("GET", f"/blobs/{digest_of(lost)}")
            self.assertEqual((answer.status, answer.problem()["type"]), (404, "blob-not-found"))
            self.assertEqual(proxy.line.ask("GET", f"/blobs/{images.DIGEST_C}").body, images.CONFIG_C)


class Secure(MainJob):
    def test_byte_for_byte_with_credentials_from_every_place(self) -> None:
        secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        authfile = self.scratch / "auth.json"
        authfile.write_text(json.dumps({"auths": {self.secure.host: {"auth": secret}}}), encoding="utf-8")
        home = self.scratch / "home"
        (home / ".config" / "containers").mkdir(parents=True, exist_ok=True)
        (home / ".config" / "containers" / "auth.json").write_bytes(authfile.read_bytes())
        for name, arguments, environment, at_home in (
            ("--creds", [f"--creds={USER}:{PASSWORD}"], {}, None),
            ("--username", [f"--username={USER}", f"--password={PASSWORD}"], {}, None),
            ("--authfile", [f"--authfile={authfile}"], {}, None),
            ("environment", [], {"REGISTRY_AUTH_FILE": str(authfile)}, None),
            ("home", [], {"XDG_RUNTIME_DIR": ""}, home),
        ):
            with self.subTest(name):
                everything = self.with_tls("--override-arch=amd64", *arguments)
                with running(*everything, environment=environment, home=at_home) as proxy:
                    self.require_whole_image(proxy, "amd64")
                    self.assertEqual(proxy.stderr(), "")

    def test_without_the_right_credentials_nothing_is_served_and_nothing_shown(self) -> None:
        wrong = "not-the-p4ssword"
        for name, arguments in (
            ("none", ["--no-creds"]),
            ("wrong", [f"--creds={USER}:{wrong}"]),
            ("stranger", [f"--creds=mallory:{wrong}"]),
        ):
            with self.subTest(name), running(*self.with_tls(*arguments)) as proxy:
                answer = proxy.line.ask("GET", "/manifest")
                problem = answer.problem()
                self.assertEqual((answer.status, problem["type"]), (502, "authentication-failed"))
                self.assertFalse(problem["retryable"])
                self.assertEqual(problem["host"], self.secure.host)
                self.assertNotIn(wrong, answer.body.decode() + proxy.stderr())

    def test_an_authority_that_is_not_trusted(self) -> None:
        creds = f"--creds={USER}:{PASSWORD}"
        with running(self.policy, creds, f"docker://{self.secure.host}/{NAME}:t") as proxy:
            problem = proxy.line.ask("GET", "/manifest").problem()
        self.assertEqual((problem["status"], problem["type"], problem["phase"]), (502, "tls-untrusted", "tls"))
        reference = f"docker://{self.secure.host}/{NAME}:t"
        with running(self.policy, creds, "--tls-verify=false", "--override-arch=amd64", reference) as proxy:
            self.require_whole_image(proxy, "amd64")
            self.assertRegex(proxy.stderr(), r"\A.*WARNING: .*\n\Z")

    def test_an_image_pushed_by_code(self) -> None:
        with Pusher(self.secure, "pushed/plain", authority=self.authority.certificate) as push:
            push.image("t", images.MANIFEST_M, mediatype.OCI_MANIFEST, images.CONFIG_C, images.LAYER_T)
        arguments = self.with_tls(f"--creds={USER}:{PASSWORD}")[:-1]
        with running(*arguments, f"docker://{self.secure.host}/pushed/plain:t") as proxy:
            self.assertEqual(proxy.line.ask("GET", "/manifest").body, images.MANIFEST_M)
            self.assertEqual(proxy.line.ask("GET", f"/blobs/{images.DIGEST_T}").body, images.LAYER_T)

    def test_the_demo_fetches_it(self) -> None:
        everything = self.with_tls("--override-arch=amd64", f"--creds={USER}:{PASSWORD}")
        done = subprocess.run(
            [sys.executable, str(ROOT / "demo.py"), *everything],
            env=clean_environment(self.scratch),
            text=True,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        names = [line.strip() for line in done.stdout.splitlines() if line.startswith("    ")]
        self.assertEqual(names, ["etc/shared", "usr/bin/amd64", "usr/bin/amd64", "data"])
        self.assertEqual(done.stdout.splitlines()[-1], "ok")


class OldProxy(http.client.HTTPConnection):
    """The parent of 2021: starts `container-image-proxy --sockfd=N IMAGE` from the path and knows nothing newer."""

    def __init__(self, image: str, environment: dict[str, str]) -> None:
        super().__init__("localhost")
        self._image = image
        self._environment = environment

    def connect(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock = ours
        self.child = subprocess.Popen(
            ["container-image-proxy", f"--sockfd={theirs.fileno()}", self._image],
            pass_fds=[theirs.fileno()],
            env=self._environment,
        )
        theirs.close()


class ParentOf2021(MainJob):
    @contextlib.contextmanager
    def host(self) -> Iterator[dict[str, str]]:
        """A host whose files accept the image: a policy, an insecure registry, a program on the path."""
        with tempfile.TemporaryDirectory(prefix="cip-2021-") as directory:
            configuration = Path(directory, ".config", "containers")
            configuration.mkdir(parents=True)
            (configuration / "policy.json").write_bytes((self.scratch / "policy.json").read_bytes())
            (configuration / "registries.conf").write_text(
                f'[[registry]]\nlocation = "{self.plain.host}"\ninsecure = true\n', encoding="utf-8"
            )
            script = Path(directory, "container-image-proxy")
            lines = [
                f"#!{sys.executable}",
                "import sys",
                f"sys.path.insert(0, {str(ROOT)!r})",
                "from cip.cli import run",
            ]
            script.write_text("\n".join([*lines, "run()", ""]), encoding="utf-8")
            script.chmod(0o755)
            environment = clean_environment(directory)
            yield environment | {"PATH": f"{directory}{os.pathsep}{environment['PATH']}"}

    def test_works_unchanged(self) -> None:
        with self.host() as environment:
            for image in (f"docker://{self.plain.host}/{NAME}:t", f"oci:{self.scratch}/layout:t"):
                with self.subTest(image):
                    connection = OldProxy(image, environment)
                    connection.request("GET", "/manifest")
                    response = connection.getresponse()
                    self.assertEqual(response.status, 200)
                    manifest = json.loads(response.read())
                    for layer in manifest["layers"]:
                        connection.request("GET", f"/blobs/{layer['digest']}")
                        response = connection.getresponse()
                        self.assertEqual(int(response.getheader("Content-Length", "")), layer["size"])
                        hasher = hashlib.sha256()
                        while chunk := response.read(8192):
                            hasher.update(chunk)
                        self.assertEqual(f"sha256:{hasher.hexdigest()}", layer["digest"])
                    connection.request("POST", "/quit")
                    response = connection.getresponse()
                    self.assertEqual((response.status, response.read()), (200, b""))
                    connection.close()
                    self.assertEqual(connection.child.wait(PATIENCE), 0)


if __name__ == "__main__":
    unittest.main()

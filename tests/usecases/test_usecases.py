# SPDX-License-Identifier: Apache-2.0
"""The uses that the project exists for, end to end, with real content from a real registry."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

import wasmtime

from cip.client import ClientError
from cip.model.mediatype import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from tests.bench.images import Pusher
from tests.support.peers import Registry, docker_registry, require_peer, skopeo
from tests.usecases import copy_to_layout, import_ostree, install_packages, run_wasm

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = ("--insecure-policy", "--tls-verify=false")
MODULE = '(module (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add))'


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class UseCase(unittest.TestCase):
    registry: Registry
    directory: Path

    @classmethod
    def setUpClass(cls) -> None:
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.directory = Path(scratch.name)
        cls.registry = docker_registry(cls.directory / "registry")
        cls.addClassCleanup(cls.registry.stop)

    def push(self, repository: str, *layers: bytes) -> str:
        pusher = Pusher(self.registry.host, repository)
        pusher.image("latest", [(_digest(layer), len(layer), layer) for layer in layers])
        pusher.close()
        return f"docker://{self.registry.host}/{repository}"

    def push_manifest(self, repository: str, config_type: str, config: bytes, layer_type: str, layer: bytes) -> None:
        """An image or artifact of one layer, with the config and the types that it says."""
        pusher = Pusher(self.registry.host, repository)
        described = []
        for kind, data in ((config_type, config), (layer_type, layer)):
            pusher.blob(_digest(data), len(data), data)
            described.append({"mediaType": kind, "digest": _digest(data), "size": len(data)})
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described[0], "layers": described[1:]}
        pusher.manifest("latest", json.dumps(manifest).encode())
        pusher.close()

    def corrupt(self, layer: bytes) -> None:
        """Change the last byte of a blob where the registry keeps it."""
        digest = _digest(layer)
        (stored,) = self.registry.root.glob(f"docker/registry/v2/blobs/sha256/*/{digest.partition(':')[2]}/data")
        stored.write_bytes(layer[:-1] + bytes([layer[-1] ^ 1]))


class Packages(UseCase):
    """(a) Debian packages shipped as a layer, installed with dpkg, never stored as a layer."""

    def package(self, name: str, content: str) -> bytes:
        tree = self.directory / name
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "usr/share" / name).mkdir(parents=True)
        (tree / "usr/share" / name / "content").write_text(content)
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: tests <t@example.invalid>\nDescription: x\n"
        )
        output = self.directory / f"{name}.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(output)], check=True, capture_output=True
        )
        return output.read_bytes()

    def layer(self, **packages: bytes) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, data in packages.items():
                info = tarfile.TarInfo(f"packages/{name}.deb")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return buffer.getvalue()

    def root(self, name: str) -> Path:
        root = self.directory / name
        for part in ("info", "updates"):
            (root / "var/lib/dpkg" / part).mkdir(parents=True)
        (root / "var/lib/dpkg/status").touch()
        return root

    def test_packages_are_installed_into_a_root(self) -> None:
        image = self.push("debs", self.layer(one=self.package("one", "1")), self.layer(two=self.package("two", "2")))
        root = self.root("root")
        self.assertEqual(install_packages.install(image, root, *OPTIONS), ["one.deb", "two.deb"])
        self.assertEqual((root / "usr/share/two/content").read_text(), "2")
        self.assertIn("Package: one", (root / "var/lib/dpkg/status").read_text())

    def test_nothing_is_installed_from_a_layer_that_is_wrong(self) -> None:
        layer = self.layer(three=self.package("three", "3"))
        image = self.push("bad-debs", layer)
        self.corrupt(layer)
        root = self.root("untouched")
        with self.assertRaises(ClientError) as caught:
            install_packages.install(image, root, *OPTIONS)
        self.assertEqual(caught.exception.code, "content-mismatch")
        self.assertEqual((root / "var/lib/dpkg/status").read_text(), "")


class WebAssembly(UseCase):
    """(b) A WASM module as an OCI artifact, fetched and run."""

    def test_a_module_is_fetched_and_run(self) -> None:
        module = bytes(wasmtime.wat2wasm(MODULE))
        self.push_manifest("wasm", "application/vnd.wasm.config.v0+json", b"{}", run_wasm.WASM, module)
        fetched = run_wasm.fetch(f"docker://{self.registry.host}/wasm", *OPTIONS)
        self.assertEqual(fetched, module)
        self.assertEqual(run_wasm.call(fetched, "add", 20, 22), 42)


class Ostree(UseCase):
    """(c) An ostree commit in a layer, streamed into a real repository, checksum equal."""

    def commit(self, origin: Path) -> str:
        """A commit of a small tree in a new repository; its checksum."""
        tree = origin.with_name(f"{origin.name}-tree")
        (tree / "usr/bin").mkdir(parents=True)
        (tree / "usr/bin/tool").write_text("#!/bin/sh\n")
        (tree / "usr/bin/tool").chmod(0o755)
        (tree / "usr/link").symlink_to("bin/tool")
        subprocess.run(["ostree", f"--repo={origin}", "init", "--mode=archive"], check=True)
        return subprocess.run(
            [
                "ostree",
                f"--repo={origin}",
                "commit",
                "--branch=os",
                f"--tree=dir={tree}",
                "--subject=image",
                "--no-xattrs",
                "--owner-uid=0",
                "--owner-gid=0",
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def push_commit(self, repository: str, origin: Path, commit: str) -> tuple[str, bytes]:
        """An image that carries the objects of `origin`; its name, and its layer."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            archive.add(origin / "objects", "objects")
        layer = buffer.getvalue()
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"ostree.commit": commit}},
            "rootfs": {"type": "layers", "diff_ids": []},
        }
        self.push_manifest(repository, OCI_CONFIG, json.dumps(config).encode(), OCI_LAYER, layer)
        return f"docker://{self.registry.host}/{repository}", layer

    def test_the_commit_has_the_checksum_it_had(self) -> None:
        require_peer("ostree")
        origin, target = self.directory / "origin", self.directory / "target"
        committed = self.commit(origin)
        image, _ = self.push_commit("ostree", origin, committed)
        subprocess.run(["ostree", f"--repo={target}", "init", "--mode=archive"], check=True)
        self.assertEqual(import_ostree.import_commit(image, target, "os/imported", *OPTIONS), committed)
        found = subprocess.run(
            ["ostree", f"--repo={target}", "rev-parse", "os/imported"], check=True, capture_output=True, text=True
        ).stdout.strip()
        self.assertEqual(found, committed)
        subprocess.run(["ostree", f"--repo={target}", "fsck", "--quiet"], check=True)
        content = subprocess.run(
            ["ostree", f"--repo={target}", "cat", committed, "/usr/bin/tool"], check=True, capture_output=True
        ).stdout
        self.assertEqual(content, b"#!/bin/sh\n")

    def test_nothing_is_imported_from_a_layer_that_is_wrong(self) -> None:
        require_peer("ostree")
        origin, target = self.directory / "bad-origin", self.directory / "bad-target"
        image, layer = self.push_commit("bad-ostree", origin, self.commit(origin))
        self.corrupt(layer)
        subprocess.run(["ostree", f"--repo={target}", "init", "--mode=archive"], check=True)
        with self.assertRaises(ClientError) as caught:
            import_ostree.import_commit(image, target, "os/imported", *OPTIONS)
        self.assertEqual(caught.exception.code, "content-mismatch")
        self.assertEqual([path for path in target.rglob("objects/*/*")], [])
        self.assertEqual(list(target.glob("tmp??*")), [])


class Installer(UseCase):
    """(d) An installer in Python that called `skopeo copy` before."""

    def test_the_layout_is_the_one_that_skopeo_makes(self) -> None:
        layers = [bytes([index]) * 10_000 for index in range(3)]
        image = self.push("os", *layers)
        ours, theirs = self.directory / "ours", self.directory / "theirs"
        digest = copy_to_layout.copy(image, ours, *OPTIONS)
        options = ("--preserve-digests", "--src-tls-verify=false")
        skopeo("copy", *options, image, f"oci:{theirs}:latest", home=self.directory)
        index = json.loads((theirs / "index.json").read_text())
        self.assertEqual(index["manifests"][0]["digest"], digest)

        def files(layout: Path) -> dict[str, bytes]:
            return {path.name: path.read_bytes() for path in (layout / "blobs/sha256").iterdir()}

        self.assertEqual(files(ours), files(theirs))
        self.assertIn(digest, skopeo("inspect", f"oci:{ours}", home=self.directory))


class ParentInC(UseCase):
    """The example for programs in C: what it prints can be trusted, and what cannot is an error with its reason."""

    def setUp(self) -> None:
        self.program = self.directory / "parent"
        flags = ("-Wall", "-Wextra", "-Werror", "-O1")  # none that it would need: a reader gives none
        source = Path(__file__).with_name("parent.c")
        subprocess.run([require_peer("cc"), *flags, "-o", str(self.program), str(source)], check=True)
        self.proxy = self.directory / "proxy"
        self.proxy.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cip "$@"\n')
        self.proxy.chmod(0o755)

    def fetch(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [str(self.program), str(self.proxy), *arguments], check=False, capture_output=True, cwd=ROOT, timeout=120
        )

    def test_it_prints_the_manifest(self) -> None:
        image = self.push("in-c", b"layer")
        done = self.fetch(*OPTIONS, image)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["layers"][0]["digest"], _digest(b"layer"))

    def test_an_error_is_no_manifest(self) -> None:
        for arguments, reason in (
            ((*OPTIONS, f"docker://{self.registry.host}/absent:1"), b"image-not-found"),
            (("--insecure-policy", "nonsense"), b"reference-invalid"),
        ):
            with self.subTest(reason):
                done = self.fetch(*arguments)
                self.assertEqual((done.returncode, done.stdout), (1, b""))
                self.assertIn(reason, done.stderr)

    def test_a_proxy_that_says_nothing_or_is_not_there_is_an_error(self) -> None:
        for program in ("true", "/nonexistent"):
            done = subprocess.run(
                [str(self.program), program, "docker://x"], check=False, capture_output=True, timeout=60
            )
            self.assertEqual((done.returncode, done.stdout), (1, b""), program)

    def test_a_short_answer_is_an_error(self) -> None:
        short = self.directory / "short"
        short.write_text(
            f"#!{sys.executable}\nimport socket, sys\nline = socket.socket(fileno=int(sys.argv[2]))\nline.recv(9999)\n"
            "line.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 10\\r\\n\\r\\nhello')\n"
        )
        short.chmod(0o755)
        done = subprocess.run([str(self.program), str(short), "x"], check=False, capture_output=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertIn(b"expected 10 bytes, found 5", done.stderr)


if __name__ == "__main__":
    unittest.main()

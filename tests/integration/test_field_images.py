# SPDX-License-Identifier: Apache-2.0
"""What people meet in the field: images as other tools write them, held against what those tools make of them."""

from __future__ import annotations

import json
import subprocess
import unittest
from collections.abc import Mapping, Sequence
from pathlib import Path

from cip.model import mediatype
from cip.model.digest import digest_of
from tests.support import images
from tests.support.field import AMD64, NAME, FieldCase, content
from tests.support.newer import require_newer
from tests.support.parent import running
from tests.support.peers import clean_environment, require_peer
from tests.support.recording import Given


class DocumentsTest(FieldCase):
    def test_a_descriptor_without_a_size_is_a_bad_manifest_and_no_bad_registry(self) -> None:
        document = json.loads(images.MANIFEST_M)
        del document["layers"][0]["size"]
        manifest = images.compact(document)
        kind = {"Content-Type": mediatype.OCI_MANIFEST}
        server = self.played(
            lambda asked: Given(200, manifest, kind) if asked.target.endswith("/manifests/9") else content(asked)
        )
        problem = self.problem(f"docker://{server.host}/{NAME}:9")
        self.assertEqual("manifest-invalid", problem["type"])
        self.assertIn("layers[0]: expected a member 'size', found none", problem["detail"])

    def test_a_docker_config_is_converted_byte_for_byte_as_skopeo_does(self) -> None:
        cases: Sequence[Mapping[str, object]] = (
            {}, {"config": {}}, {"config": None}, {"config": {"Hostname": "h"}}, {"config": {"Cmd": []}},
            {"config": {"User": ""}}, {"config": {"Labels": {"b": "<&>", "a": "x"}}}, {"history": [{}]},
        )  # fmt: skip
        for number, members in enumerate(cases):
            rootfs = {"type": "layers", "diff_ids": [str(images.DIGEST_T)]}
            config = images.compact({**AMD64, "rootfs": rootfs, **members})
            manifest = images.manifest(config, [images.LAYER_T], media_type=mediatype.DOCKER_MANIFEST)
            image = images.directory(self.scratch / f"image-{number}", manifest, [config, images.LAYER_T])
            with self.subTest(members), running(f"dir:{image}", home=self.home) as proxy:
                converted = proxy.line.ask("GET", "/manifest").body
                ours = proxy.line.ask("GET", f"/blobs/{json.loads(converted)['config']['digest']}").body
                for peer in ((require_peer("skopeo"),), require_newer("skopeo-current")):
                    self.assertEqual(self.converted(peer, image, f"{number}-{len(peer)}"), ours)

    def converted(self, skopeo: Sequence[str], image: Path, name: str) -> bytes:
        """The config of `image` as skopeo converts it."""
        copy = self.scratch / f"copy-{name}"
        command = [*skopeo, "--insecure-policy", "copy", "--quiet", "--format=oci", f"dir:{image}", f"dir:{copy}"]
        subprocess.run(command, check=True, env=clean_environment(self.scratch))
        manifest = json.loads((copy / "manifest.json").read_bytes())
        return Path(copy, manifest["config"]["digest"].removeprefix("sha256:")).read_bytes()


class LayoutsTest(FieldCase):
    def setUp(self) -> None:
        super().setUp()
        self.layout = images.Layout(self.scratch / "layout")

    def add(self, architecture: str, annotations: Mapping[str, str] | None = None, **platform: str) -> bytes:
        """An image for one platform, listed in `index.json` without a name."""
        config = images.CONFIG_C.replace(b"amd64", architecture.encode())
        manifest = images.manifest(config, [images.LAYER_T])
        for blob in (config, images.LAYER_T, manifest):
            self.layout.add_blob(blob)
        full = {"architecture": architecture, "os": "linux", **platform}
        self.layout.entries.append(images.entry(manifest, platform=full, annotations=annotations))
        self.layout.write_index()
        return manifest

    def test_a_flat_layout_for_several_platforms_is_chosen_from(self) -> None:
        """skopeo#2463: `index.json` lists what would be an index elsewhere, with an attestation for each image."""
        wanted = {name: self.add(name) for name in ("amd64", "arm64")}
        self.add("unknown", {"vnd.docker.reference.type": "attestation-manifest"}, os="unknown")
        for kind, image in (("oci", self.layout.path), ("oci-archive", self.scratch / "archive.tar")):
            (self.scratch / "archive.tar").write_bytes(images.oci_archive(self.layout))
            for architecture, manifest in wanted.items():
                with self.subTest(kind, architecture=architecture):
                    answer = self.ask(f"--override-arch={architecture}", f"{kind}:{image}")
                    self.assertEqual((200, manifest), (answer.status, answer.body))
            problem = self.problem("--override-arch=s390x", f"{kind}:{image}")
            self.assertEqual("platform-not-found", problem["type"])
            self.assertIn("it has linux/amd64, linux/arm64", problem["detail"])

    def test_a_null_list_of_manifests_is_an_empty_one(self) -> None:
        (self.layout.path / "index.json").write_bytes(b'{"schemaVersion":2,"manifests":null}')
        for name in ("", ":t"):
            self.assertEqual("image-not-found", self.problem(f"oci:{self.layout.path}{name}")["type"])

    def test_a_top_manifest_by_sha512_is_served_by_its_own_algorithm(self) -> None:
        self.add("amd64")
        digest = self.layout.add_blob(images.MANIFEST_M, algorithm="sha512")
        self.layout.entries[0]["digest"] = str(digest)
        self.layout.write_index()
        answer = self.ask(f"oci:{self.layout.path}")
        self.assertEqual((200, images.MANIFEST_M), (answer.status, answer.body))
        self.assertEqual(str(digest_of(images.MANIFEST_M)), answer.field("Manifest-Digest"))
        self.layout.blob_path(digest).write_bytes(images.MANIFEST_M.replace(b"2", b"3", 1))
        self.assertEqual("content-mismatch", self.problem(f"oci:{self.layout.path}")["type"])

    def test_a_docker_archive_with_identical_members_is_read(self) -> None:
        saved = images.docker_save(images.CONFIG_C, [images.LAYER_T], "example.com/a:1")
        members = saved[: len(saved.rstrip(b"\0")) + -len(saved.rstrip(b"\0")) % 512]
        archive = self.scratch / "saved.tar"
        archive.write_bytes(members + saved)
        with running(f"docker-archive:{archive}", home=self.home) as proxy:
            self.assertEqual(200, proxy.line.ask("GET", "/manifest").status)
            self.assertEqual(images.LAYER_T, proxy.line.ask("GET", f"/blobs/{images.DIGEST_T}").body)
        archive.write_bytes(members + saved.replace(b"\0x\0", b"\0y\0"))
        self.assertRegex(self.problem(f"docker-archive:{archive}")["detail"], "two members are named .* differ")


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""What people meet in the field: images as other tools write them, held against what those tools make of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import unittest
from collections.abc import Mapping, Sequence
from pathlib import Path

from cip.client import open_proxy
from cip.model import mediatype
from cip.model.descriptor import digest_of
from tests.support import images
from tests.support.field import AMD64, NAME, FieldCase, content
from tests.support.jsonparent import json_proxy
from tests.support.newer import require_newer
from tests.support.parent import MODULE, running
from tests.support.peers import clean_environment, docker_registry, require_peer, skopeo
from tests.support.realimages import LocalStorage
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
            {},
            {"config": {}},
            {"config": None},
            {"config": {"Hostname": "h"}},
            {"config": {"Cmd": []}},
            {"config": {"User": ""}},
            {"config": {"Labels": {"b": "<&>", "a": "x"}}},
            {"history": [{}]},
        )
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


class StorageTest(FieldCase):
    """Over HTTP a parent has the manifest alone: what it names can be fetched from the same server."""

    def test_what_the_manifest_of_a_pulled_image_names_can_be_fetched(self) -> None:
        layout = images.Layout(self.scratch / "layout")
        layer = images.tar([images.Member(b"file", b"content\n" * 1000)])
        config = images.config([digest_of(layer)])
        layout.add_image(config, [layer], images.manifest(config, [layer]), name="t")
        compressed = f"dir:{self.scratch}/compressed"
        skopeo("copy", "--quiet", "--dest-compress", f"oci:{layout.path}:t", compressed, home=self.scratch)
        storage = LocalStorage(self.scratch, "vfs", self.scratch)
        self.addCleanup(storage.close)
        for number, form in enumerate(("oci", "v2s2")):
            name = storage.name(f"localhost/pulled:{number}")
            skopeo("copy", "--quiet", f"--format={form}", compressed, name, home=self.scratch)
            stored = skopeo("inspect", "--raw", name, home=self.scratch).encode()
            self.assertIn(b"gzip", stored)
            with self.subTest(form), running(name, home=self.home) as proxy:
                answer = proxy.line.ask("GET", "/manifest")
                self.assertEqual(str(digest_of(stored)), answer.field("Manifest-Digest"))
                manifest = json.loads(answer.body)
                self.assertEqual([mediatype.OCI_LAYER], [each["mediaType"] for each in manifest["layers"]])
                for each in (manifest["config"], *manifest["layers"]):
                    blob = proxy.line.ask("GET", f"/blobs/{each['digest']}")
                    self.assertEqual((200, True), (blob.status, blob.complete))
                    self.assertEqual((each["digest"], each["size"]), (str(digest_of(blob.body)), len(blob.body)))
                self.assertEqual(layer, proxy.line.ask("GET", f"/blobs/{manifest['layers'][0]['digest']}").body)
            with json_proxy(home=self.home) as proxy_json:
                image = proxy_json.parent.open(name)
                digest, data, _ = proxy_json.parent.fetch("GetManifest", image)
                self.assertEqual(str(digest_of(stored)), digest)
                if form == "oci":
                    self.assertEqual(stored, data)
            with open_proxy(name, options=("--insecure-policy",), program=MODULE) as image_of_client:
                for described in image_of_client.layers():
                    with image_of_client.open_blob(described.digest) as reader:
                        self.assertEqual(layer, reader.read())


class PlatformTest(FieldCase):
    """podman#25599: an index says one platform, the config of its instance another."""

    def setUp(self) -> None:
        super().setUp()
        layout = images.Layout(self.scratch / "layout")
        for blob in (images.CONFIG_C, images.LAYER_T, images.MANIFEST_M):
            layout.add_blob(blob)
        arm64 = {"architecture": "arm64", "os": "linux"}
        layout.add_manifest(
            images.index([images.entry(images.MANIFEST_M, platform=arm64)]), mediatype.OCI_INDEX, name="t"
        )
        layout.add_manifest(images.MANIFEST_M, name="single")
        docker = images.manifest(images.CONFIG_C, [images.LAYER_T], media_type=mediatype.DOCKER_MANIFEST)
        layout.add_manifest(docker, mediatype.DOCKER_MANIFEST, name="docker")
        self.image = f"oci:{layout.path}"

    def told(self, *arguments: str, targets: Sequence[str] = ("/manifest", f"/blobs/{images.DIGEST_C}")) -> list[str]:
        """The platforms that events say of an image that is served."""
        reading, writing = os.pipe()
        with open(reading, encoding="utf-8") as lines:
            try:
                with running(f"--events-fd={writing}", *arguments, home=self.home, pass_fds=[writing]) as proxy:
                    for target in targets:
                        self.assertEqual(200, proxy.line.ask("GET", target).status)
                    proxy.hang_up()
                    self.stderr = proxy.stderr()
            finally:
                os.close(writing)
            events = [json.loads(line) for line in lines]
        return [f"{each['wanted']} {each['found']}" for each in events if each["event"] == "platform"]

    def test_an_image_for_another_platform_is_told_by_a_warning_and_an_event(self) -> None:
        for tag in ("t", "single"):
            with self.subTest(tag):
                self.assertEqual(["linux/arm64 linux/amd64"], self.told("--override-arch=arm64", f"{self.image}:{tag}"))
                self.assertIn("WARNING", self.stderr)
                self.assertIn("an image for linux/arm64 was asked for, its config says linux/amd64", self.stderr)
        told = self.told("--override-arch=arm64", f"{self.image}:docker", targets=("/manifest",))
        self.assertEqual(["linux/arm64 linux/amd64"], told)

    def test_an_image_for_the_platform_that_was_asked_for_is_served_in_silence(self) -> None:
        for options in (("--override-arch=amd64",), ("--override-arch=amd64", "--require-platform")):
            self.assertEqual([], self.told(*options, f"{self.image}:single"))
            self.assertEqual("", self.stderr)

    def test_an_image_for_another_platform_is_refused_where_that_is_required(self) -> None:
        for tag in ("t", "single", "docker"):
            with self.subTest(tag):
                problem = self.problem("--require-platform", "--override-arch=arm64", f"{self.image}:{tag}")
                self.assertEqual(("platform-not-found", 404), (problem["type"], problem["status"]))
                self.assertIn("expected an image for linux/arm64, found one for linux/amd64", problem["detail"])
        with json_proxy("--require-platform", "--override-arch=arm64", home=self.home) as proxy:
            proxy.parent.ask("Initialize")
            reply = proxy.parent.ask("OpenImageOptional", f"{self.image}:t")
            self.assertEqual("platform-not-found", reply.members["details"]["type"])

    def test_without_an_override_the_platform_of_this_host_is_required(self) -> None:
        image = f"{self.image}:single"
        fits = os.uname().machine == "x86_64"
        self.assertEqual(200 if fits else 404, self.ask("--require-platform", image).status)


class NamesTest(FieldCase):
    """bootc#1165, skopeo#2745: NAME:TAG@DIGEST names the digest, and the policy sees the tag."""

    def setUp(self) -> None:
        super().setUp()
        self.registry = self.enterContext(docker_registry(self.scratch / "registry"))
        layout = images.Layout(self.scratch / "layout")
        layout.add_image(images.CONFIG_C, [images.LAYER_T], images.MANIFEST_M, name="9")
        self.name = f"{self.registry.host}/{NAME}"
        skopeo(
            "copy",
            "--quiet",
            "--preserve-digests",
            "--dest-tls-verify=false",
            f"oci:{layout.path}:9",
            f"docker://{self.name}:9",
            home=self.scratch,
        )
        self.write_home("registries.conf", f"[[registry]]\nlocation='{self.registry.host}'\ninsecure=true\n")
        self.both = f"docker://{self.name}:7@{images.DIGEST_M}"

    def test_the_digest_is_fetched_whatever_the_tag(self) -> None:
        with running(self.both, home=self.home) as proxy:
            answer = proxy.line.ask("GET", "/manifest")
            self.assertEqual((200, images.MANIFEST_M), (answer.status, answer.body))
            self.assertEqual(images.LAYER_T, proxy.line.ask("GET", f"/blobs/{images.DIGEST_T}").body)
        self.assertNotIn("/manifests/7", self.registry.log_text())
        other = self.problem(f"docker://{self.name}:9@sha256:{'0' * 64}")
        self.assertEqual("image-not-found", other["type"])

    def test_the_digest_is_fetched_from_mirrors_for_digests_only(self) -> None:
        self.write_home(
            "registries.conf",
            f"""
[[registry]]
location = 'registry.example'
mirror-by-digest-only = true
[[registry.mirror]]
location = '{self.registry.host}'
insecure = true
""",
        )
        answer = self.ask(f"docker://registry.example/{NAME}:7@{images.DIGEST_M}")
        self.assertEqual((200, images.MANIFEST_M), (answer.status, answer.body))

    def test_a_policy_may_speak_of_the_tag_of_the_digest_and_of_both(self) -> None:
        accept, reject = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]
        for scope in (f"{self.name}:7", f"{self.name}@{images.DIGEST_M}", f"{self.name}:7@{images.DIGEST_M}"):
            with self.subTest(scope):
                policy = {"default": accept, "transports": {"docker": {scope: reject}}}
                self.write_home("policy.json", json.dumps(policy))
                self.assertEqual("policy-rejected", self.problem(self.both)["type"])
                self.assertEqual(200, self.ask(f"docker://{self.name}:9").status)


class VariantsTest(FieldCase):
    """container-libs#1150: an index that has amd64 only by level."""

    def setUp(self) -> None:
        super().setUp()
        self.manifests = {
            variant: images.compact({**json.loads(images.MANIFEST_M), "annotations": {"level": variant}})
            for variant in ("v2", "v3", "v4", "")
        }

    def chosen(self, *options: str, has: Sequence[str]) -> str | None:
        """The level that is chosen of those that the index has; None for none."""
        entries = [
            images.entry(self.manifests[level], platform={**AMD64, **({"variant": level} if level else {})})
            for level in has
        ]
        layout = images.Layout(Path(tempfile.mkdtemp(dir=self.scratch)))
        for manifest in self.manifests.values():
            layout.add_blob(manifest)
        layout.add_manifest(images.index(entries), mediatype.OCI_INDEX, name="t")
        answer = self.ask(*options, f"oci:{layout.path}:t")
        if answer.status == 200:
            level: str = json.loads(answer.body)["annotations"]["level"]
            return level
        self.assertEqual("platform-not-found", answer.problem()["type"])
        return None

    def test_the_best_level_that_was_asked_for_or_a_lower_one_is_chosen(self) -> None:
        amd64 = "--override-arch=amd64"
        for options, has, level in (
            ((amd64, "--override-variant=v3"), ("v2", "v3", "v4"), "v3"),
            ((amd64, "--override-variant=v3"), ("v4", "v2", ""), "v2"),
            ((amd64, "--override-variant=v2"), ("v3", "v4"), None),
            ((amd64,), ("v2", "v3"), None),
            ((amd64, "--override-variant=v1"), ("v2", ""), ""),
        ):
            with self.subTest(options=options, has=has):
                self.assertEqual(level, self.chosen(*options, has=has))

    def test_the_level_of_this_host_is_that_of_its_dynamic_loader(self) -> None:
        loader = Path("/lib64/ld-linux-x86-64.so.2")
        if not loader.exists():
            raise unittest.SkipTest("not an amd64 host with glibc")
        listed = subprocess.run([loader, "--help"], check=True, capture_output=True, text=True).stdout
        levels = re.findall(r"x86-64-(v[234]) \(supported", listed)
        self.assertEqual(levels[0] if levels else None, self.chosen(has=("v2", "v3", "v4")))


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

# SPDX-License-Identifier: Apache-2.0
"""Every place an image can be, filled by the real tools: what the proxy serves is what Debian's skopeo reports.

buildah and podman fill a local storage, skopeo copies from there into every other format, umoci makes a layout; then
both front ends are asked for everything, and each blob is held against its digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import unittest
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from cip.content import Release, copy_verified
from cip.errors import CipError
from cip.events import NO_EVENTS
from cip.model import mediatype
from cip.model.descriptor import Descriptor, digest_of, parse_digest
from cip.model.manifest import Manifest, parse_manifest
from cip.model.reference import parse_image_reference
from cip.programs import DirectPrograms
from cip.settings import Settings
from cip.sources.base import BlobAccess, ImageSource
from cip.transports import SourceOpener
from tests.support import images
from tests.support.certificates import CertificateAuthority
from tests.support.daemon import PlayedDaemon, stream
from tests.support.jsonparent import JsonParent, json_proxy
from tests.support.leaks import LeakCheckedTestCase
from tests.support.parent import MODULE, PATIENCE, ROOT, Line, running
from tests.support.peers import clean_environment, docker_registry, require_peer, skopeo, stop_process
from tests.support.realimages import IMAGE, LocalStorage, umoci_layout
from tests.support.storage import Storage

_SCRATCH = contextlib.ExitStack()


@cache
def scratch() -> Path:
    """One directory for all that is made once; gone after the module."""
    return Path(os.path.realpath(_SCRATCH.enter_context(tempfile.TemporaryDirectory(prefix="cip-sources-"))))


@cache
def home() -> Path:
    path = scratch() / "home"
    path.mkdir()
    return path


@cache
def built(driver: str) -> LocalStorage:
    """A storage with the image that buildah built."""
    storage = LocalStorage(scratch() / "buildah", driver, home())
    _SCRATCH.callback(storage.close)
    storage.build()
    return storage


@cache
def copied(transport: str) -> str:
    """The built image, copied by skopeo to `transport`; its name there."""
    path = scratch() / transport
    name = {
        "oci": f"oci:{path}:t",
        "oci-archive": f"oci-archive:{path}.tar:t",
        "dir": f"dir:{path}",
        "docker-archive": f"docker-archive:{path}.tar:localhost/made:2",
    }[transport]
    skopeo("copy", "--quiet", built("vfs").name(IMAGE), name, home=home())
    return name


def tearDownModule() -> None:
    _SCRATCH.close()
    for function in (scratch, home, built, copied):
        function.cache_clear()


class Reported(NamedTuple):
    """What skopeo says about an image: the raw manifest, the raw config, and the layers as it would copy them."""

    manifest: bytes
    config: bytes
    layers: list[tuple[str, int]]


def reported(name: str) -> Reported:
    manifest = skopeo("inspect", "--raw", name, home=home()).encode()
    config = skopeo("inspect", "--config", "--raw", name, home=home()).encode()
    layers = [(layer["digest"], layer["size"]) for layer in json.loads(manifest)["layers"]]
    if name.startswith("containers-storage:"):
        with tempfile.TemporaryDirectory(dir=scratch()) as copy:
            skopeo("copy", "--quiet", name, f"dir:{copy}", home=home())
            plain = json.loads(Path(copy, "manifest.json").read_bytes())["layers"]
            layers = [(layer["digest"], layer["size"]) for layer in plain]
    return Reported(manifest, config, layers)


@contextlib.contextmanager
def json_parent(*options: str, environment: dict[str, str] | None = None) -> Iterator[JsonParent]:
    """The JSON protocol with the proxy as our child."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, tempfile.TemporaryFile() as errors:
        with theirs:
            process = subprocess.Popen(
                [*MODULE, "--insecure-policy", *options, "experimental-image-proxy", f"--sockfd={theirs.fileno()}"],
                pass_fds=[theirs.fileno()],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stderr=errors,
                env=clean_environment(home()) | (environment or {}),
            )
        try:
            with JsonParent(ours) as parent:
                yield parent
            status = process.wait(30)
        finally:
            stop_process(process)
        errors.seek(0)
        text = errors.read().decode()
        if status != 0 or "Traceback" in text:
            raise AssertionError(f"exit status {status}\n{text}")


def get_blob(line: Line, digest: str) -> bytes:
    """A blob over HTTP, whole and with the right digest."""
    answer = line.ask("GET", f"/blobs/{digest}")
    assert answer.status == 200, answer
    assert answer.complete, digest
    algorithm, _, encoded = digest.partition(":")
    assert hashlib.new(algorithm, answer.body).hexdigest() == encoded, digest
    return answer.body


class SourcesTestCase(LeakCheckedTestCase):
    def check(
        self, name: str, *, same_manifest: bool = True, options: tuple[str, ...] = (), expected: Reported | None = None
    ) -> None:
        """Both front ends serve of `name` what skopeo reports, or `expected`.

        `same_manifest` is False where decisions.md section 1 makes another manifest: docker archives and daemons.
        """
        told = expected or reported(name)
        config_digest = json.loads(told.manifest)["config"]["digest"]
        with running("--insecure-policy", *options, name) as proxy:
            manifest = proxy.line.ask("GET", "/manifest")
            self.assertEqual(manifest.status, 200, manifest)
            if same_manifest:
                self.assertEqual(manifest.field("Manifest-Digest"), str(digest_of(told.manifest)))
            self.assertEqual(get_blob(proxy.line, config_digest), told.config)
            served = [(layer["digest"], layer["size"]) for layer in json.loads(manifest.body)["layers"]]
            self.assertEqual(served, told.layers)
            for digest, size in served:
                self.assertEqual(len(get_blob(proxy.line, digest)), size)
            self.assertEqual(
                json.loads(get_blob(proxy.line, json.loads(manifest.body)["config"]["digest"]))["rootfs"],
                json.loads(told.config)["rootfs"],
            )
        with json_parent(*options) as parent:
            image = parent.open(name)
            digest, data, _ = parent.fetch("GetManifest", image)
            if [layer for layer, _ in told.layers] == [layer["digest"] for layer in json.loads(data)["layers"]]:
                self.assertEqual(data, manifest.body)
            if same_manifest:
                self.assertEqual(digest, str(digest_of(told.manifest)))
            _, listed, _ = parent.fetch("GetLayerInfoPiped", image)
            layers = [(layer["digest"], layer["size"]) for layer in json.loads(listed)]
            self.assertEqual(layers, told.layers)
            for layer_digest, size in layers:
                stated, content, finished = parent.fetch("GetBlob", image, layer_digest, size)
                self.assertEqual((stated, str(digest_of(content))), (size, layer_digest))
                self.assertIsNone(finished.value)

    def storage(self, purpose: str, driver: str) -> LocalStorage:
        """An empty storage of this test's own."""
        made = LocalStorage(self.directory / purpose, driver, home())
        self.addCleanup(made.close)
        return made

    def in_process(self, name: str) -> ImageSource:
        """The source of an image, in this process."""
        opener = SourceOpener(Settings(tmpdir=str(self.directory)), NO_EVENTS, DirectPrograms())
        self.addCleanup(opener.close)
        source = opener.open(parse_image_reference(name))
        self.addCleanup(source.close)
        return source

    def json_error(self, name: str, *options: str, environment: dict[str, str] | None = None) -> str:
        with json_parent(*options, environment=environment) as parent:
            parent.ask("Initialize")
            error: str = parent.ask("OpenImage", name).failure[1]
            return error


class LocalStorageTest(SourcesTestCase):
    """containers-storage: filled by buildah, podman and skopeo, with both drivers."""

    def test_what_buildah_built_with_vfs(self) -> None:
        self.check(built("vfs").name(IMAGE))

    def test_what_buildah_built_with_overlay(self) -> None:
        self.check(built("overlay").name(IMAGE))

    def test_what_podman_loaded(self) -> None:
        saved = copied("docker-archive").split(":")[1]
        for driver in ("vfs", "overlay"):
            with self.subTest(driver):
                storage = self.storage("podman", driver)
                storage.run("podman", "load", "--quiet", "--input", saved)
                self.check(storage.name("localhost/made:2"))

    def test_what_skopeo_pulled_compressed_and_as_docker_schema_2(self) -> None:
        """L7, L9: the manifest names compressed blobs that the storage cannot give; the list names what it can."""
        compressed = f"dir:{self.directory}/compressed"
        skopeo("copy", "--quiet", "--dest-compress", copied("oci"), compressed, home=home())
        for driver, options in (("vfs", ("--format", "v2s2")), ("overlay", ())):
            storage = self.storage("skopeo", driver)
            name = storage.name("localhost/pulled:1")
            try:
                skopeo("copy", "--quiet", *options, compressed, name, home=home())
            except AssertionError:
                built(driver)  # SkipTest where there is no overlay here
                raise
            told = reported(name)
            named = {layer["digest"] for layer in json.loads(told.manifest)["layers"]}
            self.assertFalse(named & {digest for digest, _ in told.layers}, "the blobs are expected to be compressed")
            self.check(name, expected=told)
            with running("--insecure-policy", name) as proxy:
                manifest = json.loads(proxy.line.ask("GET", "/manifest").body)
                kinds = {layer["mediaType"] for layer in manifest["layers"]}
                self.assertEqual(kinds, {mediatype.OCI_LAYER})
                refused = proxy.line.ask("GET", f"/blobs/{sorted(named)[0]}")
                self.assertEqual((refused.status, refused.problem()["type"]), (404, "blob-not-found"))

    def test_the_digest_of_an_index_leads_to_the_instance_of_this_platform(self) -> None:
        """L8."""
        layout = images.Layout(self.directory / "multi")
        entries = []
        for architecture in ("s390x", "amd64", "arm64"):
            layer = images.tar([images.Member(architecture.encode(), b"x")])
            config = images.config([digest_of(layer)]).replace(b"amd64", architecture.encode())
            manifest = images.manifest(config, [layer])
            for blob in (layer, config, manifest):
                layout.add_blob(blob)
            entries.append(images.entry(manifest, platform={"architecture": architecture, "os": "linux"}))
        index = images.index(entries)
        layout.add_manifest(index, mediatype.OCI_INDEX, name="t")
        storage = self.storage("storage", "vfs")
        skopeo(
            "--override-arch=amd64",
            "copy",
            "--quiet",
            f"oci:{layout.path}:t",
            storage.name("localhost/multi:1"),
            home=home(),
        )
        name = storage.name(f"localhost/multi@{digest_of(index)}")
        self.assertEqual(skopeo("inspect", "--raw", name, home=home()).encode(), index)
        with running("--insecure-policy", "--override-arch=amd64", name) as proxy:
            answer = proxy.line.ask("GET", "/manifest")
            self.assertEqual(
                (answer.field("Manifest-Digest"), answer.field("Manifest-Index-Digest")),
                (entries[1]["digest"], str(digest_of(index))),
            )

    def test_an_additional_store_serves_a_host_without_a_store_of_its_own(self) -> None:
        """As image-based hosts do it: STORAGE_OPTS, and nothing is ever made."""
        storage = built("vfs")
        told = reported(storage.name(IMAGE))
        conf = self.directory / "storage.conf"
        conf.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{self.directory}/nothing"\n')
        environment = {"CONTAINERS_STORAGE_CONF": str(conf), "STORAGE_OPTS": f"additionalimagestore={storage.root}"}
        with json_parent(environment=environment) as parent:
            image = parent.open(f"containers-storage:{IMAGE}")
            digest, _, _ = parent.fetch("GetManifest", image)
            self.assertEqual(digest, str(digest_of(told.manifest)))
            for layer_digest, size in told.layers:
                _, content, _ = parent.fetch("GetBlob", image, layer_digest, size)
                self.assertEqual(str(digest_of(content)), layer_digest)
        self.assertFalse((self.directory / "nothing").exists())
        with json_parent(environment=environment) as parent:
            parent.ask("Initialize")
            self.assertEqual(parent.ask("OpenImageOptional", "containers-storage:localhost/none").value, 0)
            self.assertEqual(parent.ask("OpenImageOptional", f"containers-storage:[{self.directory}/x]a").value, 0)
        self.assertFalse((self.directory / "x").exists())

    def test_an_image_that_is_removed_while_it_is_read_ends_in_a_typed_error(self) -> None:
        storage = self.storage("removed", "vfs")
        skopeo("copy", "--quiet", copied("oci"), storage.name(IMAGE), home=home())
        source = self.in_process(storage.name(IMAGE))
        parsed = parse_manifest(source.manifest(None).data, "", "manifest")
        assert isinstance(parsed, Manifest)
        base = source.stored_layers(parsed.layers)[0]
        reader = source.open_blob(base, BlobAccess.VERIFIED)
        self.addCleanup(reader.close)
        reader.readinto(memoryview(bytearray(10)))
        storage.run("podman", "rmi", "--force", IMAGE)
        with self.assertRaisesRegex(CipError, "no such file|bytes are missing|expected digest"):
            copy_verified(reader, len, base, release=Release.AS_READ)
        self.assertIn("no such image", self.json_error(storage.name(IMAGE)))


class FilesTest(SourcesTestCase):
    """Layouts, archives, directories: copied by skopeo, made by umoci."""

    def test_every_format_that_skopeo_writes(self) -> None:
        for transport in ("oci", "oci-archive", "dir"):
            with self.subTest(transport):
                self.check(copied(transport))

    def test_a_layout_made_by_umoci(self) -> None:
        umoci_layout(self.directory / "umoci", "t", home())
        self.check(f"oci:{self.directory}/umoci:t")

    def test_a_docker_archive_has_the_same_layers_and_config(self) -> None:
        self.check(copied("docker-archive"), same_manifest=False)

    def test_compressed_archives_are_the_same_images(self) -> None:
        for transport in ("oci-archive", "docker-archive"):
            name = copied(transport)
            told = reported(name)
            path, rest = name.split(":", 2)[1:]
            for program in ("gzip", "bzip2", "xz", "zstd") if transport == "oci-archive" else ("gzip", "zstd"):
                if program == "zstd":
                    require_peer("zstd")
                packed = self.directory / f"{transport}.{program}"
                with open(path, "rb") as plain, open(packed, "wb") as file:
                    subprocess.run([program, "-1", "-c"], stdin=plain, stdout=file, check=True)
                with self.subTest(transport, program=program):
                    spool = self.directory / "spool"
                    spool.mkdir(exist_ok=True)
                    self.check(
                        f"{transport}:{packed}:{rest}",
                        same_manifest=transport == "oci-archive",
                        expected=told,
                        options=(f"--tmpdir={spool}",),
                    )
                    self.assertEqual(list(spool.iterdir()), [])
                packed.unlink()

    def test_a_tarball_becomes_the_same_image(self) -> None:
        plain, packed = self.directory / "plain.tar", self.directory / "packed.tar"
        plain.write_bytes(images.LAYER_T)
        with open(packed, "wb") as file:
            subprocess.run(["gzip", "-n", "-c", str(plain)], stdout=file, check=True)
        os.utime(plain, ns=(0, 1_600_000_000_123_000_000))
        os.utime(packed, ns=(0, 1_500_000_000_000_000_000))
        name = f"tarball:{plain}:{packed}"
        told = reported(name)
        members = json.loads(told.manifest)
        members.pop("mediaType", None)  # which skopeo 1.22 writes there and 1.18 does not
        self.check(name, expected=told._replace(manifest=json.dumps(members, separators=(",", ":")).encode()))

    def test_names_that_are_served_nowhere_say_what_is(self) -> None:
        for name in ("sif:/x", "atomic:a/b/c:t", "ostree:x", "foo:x", "nocolon"):
            with self.subTest(name):
                error = self.json_error(name)
                self.assertRegex(error, "containers-storage|expected transport:reference")


class DaemonTest(SourcesTestCase):
    """docker-daemon: a small counterpart that hands out what skopeo saved."""

    def test_the_daemon_s_image_is_the_saved_one(self) -> None:
        name = copied("docker-archive")
        saved = Path(name.split(":")[1]).read_bytes()
        played = PlayedDaemon({"localhost/made:2": stream(saved)})
        self.addCleanup(played.close)
        address = played.listen(self.directory / "docker.sock")
        spool = self.directory / "spool"
        spool.mkdir()
        self.check(
            "docker-daemon:localhost/made:2",
            same_manifest=False,
            expected=reported(name),
            options=(f"--daemon-host={address}", f"--tmpdir={spool}"),
        )
        self.assertEqual(list(spool.iterdir()), [])
        error = self.json_error("docker-daemon:localhost/none:1", f"--daemon-host={address}")
        self.assertRegex(error, "the daemon answers 404: 'reference does not exist")
        error = self.json_error("docker-daemon:localhost/none:1", f"--daemon-host=unix://{self.directory}/none.sock")
        self.assertRegex(error, "none.sock: no such file or directory; is the daemon running")

    def test_a_daemon_behind_tls_shows_and_gets_a_certificate(self) -> None:
        authority = CertificateAuthority(self.directory / "ca")
        server, client = authority.server(), authority.client()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server.certificate, server.key)
        context.load_verify_locations(authority.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
        played = PlayedDaemon({"localhost/x:1": stream(images.docker_save(images.CONFIG_C, [images.LAYER_T]))})
        self.addCleanup(played.close)
        port = played.listen_tls(context)
        certificates = self.directory / "certificates"
        certificates.mkdir()
        host = f"--daemon-host=tcp://127.0.0.1:{port}"
        name = "docker-daemon:localhost/x:1"
        self.assertRegex(self.json_error(name, host), "its certificate is not trusted")
        shutil.copy(authority.certificate, certificates / "ca.pem")
        self.assertRegex(self.json_error(name, host, f"--cert-dir={certificates}"), "demands a client certificate")
        shutil.copy(client.certificate, certificates / "cert.pem")
        shutil.copy(client.key, certificates / "key.pem")
        with running("--insecure-policy", host, f"--cert-dir={certificates}", name) as proxy:
            self.assertEqual(proxy.line.ask("GET", "/manifest").body, images.MANIFEST_M)
            self.assertEqual(get_blob(proxy.line, str(images.DIGEST_T)), images.LAYER_T)


class UnionTest(SourcesTestCase):
    """--local-source in front of a real registry, and instead of it."""

    def test_blobs_come_from_the_stick_and_damage_is_told(self) -> None:
        with docker_registry(self.directory / "registry") as registry:
            image = f"docker://{registry.host}/made:t"
            skopeo("copy", "--quiet", "--dest-tls-verify=false", copied("oci"), image, home=home())
            told = Reported(
                skopeo("inspect", "--tls-verify=false", "--raw", image, home=home()).encode(),
                skopeo("inspect", "--tls-verify=false", "--config", "--raw", image, home=home()).encode(),
                [],
            )
            layers = [(layer["digest"], layer["size"]) for layer in json.loads(told.manifest)["layers"]]
            stick = self.directory / "stick"
            shutil.copytree(copied("oci").split(":")[1], stick)
            options = ("--tls-verify=false", f"--local-source=oci:{stick}:t")
            before = registry.log_text().count("/blobs/")
            self.check(image, options=options, expected=told._replace(layers=layers))
            self.assertEqual(registry.log_text().count("/blobs/"), before, "no blob travelled")
            damaged = stick / "blobs" / layers[0][0].replace(":", "/")
            content = bytearray(damaged.read_bytes())
            content[len(content) // 2] ^= 1
            damaged.chmod(0o644)
            damaged.write_bytes(content)
            with running("--insecure-policy", *options, image) as proxy:
                self.assertEqual(proxy.line.ask("GET", "/manifest").status, 200)
                get_blob(proxy.line, layers[0][0])
                self.assertRegex(proxy.stderr(), f"WARNING: oci:.*stick.*{layers[0][0]}: expected digest")
            self.assertGreater(registry.log_text().count("/blobs/"), before)

    def test_offline_everything_comes_from_the_stick(self) -> None:
        name = copied("oci")
        told = reported(name)
        options = ("--offline", f"--local-source={name}")
        # nobody could answer at this address, which belongs to documentation (RFC 5737)
        self.check("docker://192.0.2.1/made:t", options=options, expected=told)
        self.check(f"docker://192.0.2.1/made@{digest_of(told.manifest)}", options=options, expected=told)
        with running("--insecure-policy", *options, "docker://192.0.2.1/made:other") as proxy:
            refused = proxy.line.ask("GET", "/manifest")
            self.assertEqual((refused.status, refused.problem()["type"]), (503, "offline"))

    def test_a_blob_that_nobody_waits_for_is_looked_through_no_further(self) -> None:
        """A blob of the stick is verified before its first byte; how long that takes is its maker's choice."""
        stick = self.directory / "stick"
        images.f1(stick)
        blobs = stick / "blobs" / "sha256"
        layer = Descriptor("", parse_digest(f"sha256:{'0' * 64}"), 1 << 40)  # for hours; there is nothing in it
        with open(blobs / layer.digest.encoded, "wb") as file:
            file.truncate(layer.size)
        manifest = json.loads((blobs / images.describe(images.MANIFEST_M).digest.encoded).read_bytes())
        manifest["layers"] = [{"mediaType": mediatype.OCI_LAYER, "digest": str(layer.digest), "size": layer.size}]
        data = images.compact(manifest)
        (blobs / digest_of(data).encoded).write_bytes(data)
        index = {"schemaVersion": 2, "manifests": [images.entry(data)]}
        (stick / "index.json").write_bytes(images.compact(index))
        options = ("--insecure-policy", "--offline", f"--local-source=oci:{stick}")
        with json_proxy(*options) as proxy:
            image = proxy.parent.open(f"docker://192.0.2.1/made@{digest_of(data)}")
            tasks = Path(f"/proc/{proxy.process.pid}/task")
            before = len(list(tasks.iterdir()))
            for _ in range(3):
                reply = proxy.parent.ask("GetRawBlob", image, str(layer.digest))
                for descriptor in reply.fds:
                    os.close(descriptor)
            self.assertTrue(proxy.parent.ask("CloseImage", image).members["success"])
            deadline = time.monotonic() + PATIENCE
            while len(list(tasks.iterdir())) > before and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertLessEqual(len(list(tasks.iterdir())), before)


class ArchivesTest(SourcesTestCase):
    """What no tool makes: huge archives, many members, archives that change."""

    def test_an_archive_of_a_gibibyte_is_served_where_no_file_may_grow(self) -> None:
        size = 1 << 30
        hasher = hashlib.sha256()
        for _ in range(size >> 20):
            hasher.update(bytes(1 << 20))
        layer = Descriptor(mediatype.OCI_LAYER, parse_digest(f"sha256:{hasher.hexdigest()}"), size)
        config = images.config([layer.digest])
        manifest = images.manifest(config, [layer])
        index = images.compact({"schemaVersion": 2, "manifests": [images.entry(manifest)]})
        path = self.directory / "huge.tar"
        with open(path, "wb") as file:
            file.write(images.ustar_header(images.Member(b"blobs/" + _path(layer)), size=size))
            file.seek(size, os.SEEK_CUR)  # a hole: the file takes no room
            file.write(
                images.tar(
                    [
                        images.Member(b"index.json", index),
                        images.Member(b"blobs/" + _path(images.describe(config)), config),
                        images.Member(b"blobs/" + _path(images.describe(manifest)), manifest),
                    ]
                )
            )
        limited = ("/bin/sh", "-c", 'ulimit -f 0 && exec "$@"', "sh", *MODULE)
        with running("--insecure-policy", f"oci-archive:{path}", command=limited) as proxy:
            self.assertEqual(proxy.line.ask("GET", "/manifest").body, manifest)
            proxy.line.send(f"GET /blobs/{layer.digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            self.assertEqual(_body_size(proxy.line.sock, size), size)
        self.assertEqual(sorted(self.directory.iterdir()), [path])

    def test_an_archive_with_ten_thousand_members(self) -> None:
        layout = images.f1(self.directory / "F1")
        archive = images.oci_archive(layout)[:-1024].rstrip(b"\0")
        archive += bytes(-len(archive) % 512)
        others = images.tar(images.Member(b"other/%05d" % number, b"%d" % number) for number in range(10_000))
        (self.directory / "many.tar").write_bytes(archive + others)
        source = self.in_process(f"oci-archive:{self.directory}/many.tar")
        self.assertEqual(source.manifest(None).data, images.MANIFEST_M)

    def test_blobs_of_every_source_are_read_side_by_side(self) -> None:
        for name in (
            copied("oci"),
            copied("oci-archive"),
            copied("dir"),
            copied("docker-archive"),
            built("vfs").name(IMAGE),
        ):
            with self.subTest(name):
                source = self.in_process(name)
                raw = source.manifest(None)
                parsed = parse_manifest(raw.data, raw.media_type, "manifest")
                assert isinstance(parsed, Manifest)
                layers = source.stored_layers(parsed.layers)
                found: list[int] = []

                def run(
                    source: ImageSource = source, layers: Sequence[Descriptor] = layers, found: list[int] = found
                ) -> None:
                    for layer in layers:
                        reader = source.open_blob(layer, BlobAccess.VERIFIED)
                        try:
                            found.append(copy_verified(reader, len, layer, release=Release.AFTER_VERIFICATION))
                        finally:
                            reader.close()

                threads = [threading.Thread(target=run) for _ in range(4)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                self.assertEqual(len(found), 4 * len(layers))

    def test_a_file_that_is_cut_while_it_is_served_never_looks_complete(self) -> None:
        made = images.big(self.directory / "big", size=16_000_000)
        archive = self.directory / "big.tar"
        archive.write_bytes(images.oci_archive(made.layout))
        path = made.layout.blob_path(made.layer.digest)
        for name, file in ((f"oci:{made.layout.path}", path), (f"oci-archive:{archive}", archive)):
            with self.subTest(name), running("--insecure-policy", name, status=1) as proxy:
                self.assertEqual(proxy.line.ask("GET", "/manifest").status, 200)
                proxy.line.send(f"GET /blobs/{made.layer.digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                # It has begun to send, and cannot go on before we read: far less than the blob fits into the socket and
                # its two buffers.
                self.assertTrue(select.select([proxy.line.sock], [], [], PATIENCE)[0])
                os.truncate(file, 1_000_000)
                answer = proxy.line.answer()
                self.assertFalse(answer.status == 200 and answer.complete)

    def test_a_storage_of_other_drivers_is_refused_with_the_reason(self) -> None:
        for driver in ("btrfs", "zfs"):
            (self.directory / driver / f"{driver}-images").mkdir(parents=True)
            error = self.json_error(f"containers-storage:[{self.directory}/{driver}]a")
            self.assertRegex(error, f"storage driver '{driver}' is not supported, expected one of overlay, vfs")
        storage = Storage(self.directory / "composefs")
        storage.add("localhost/a:1", [[images.Member(b"f", b"x")]])
        (storage.root / "overlay" / str(storage.layers[0]["id"]) / "composefs-data").mkdir()
        with running("--insecure-policy", f"containers-storage:[{storage.root}]localhost/a:1") as proxy:
            self.assertEqual(proxy.line.ask("GET", "/manifest").status, 200)
            refused = proxy.line.ask("GET", f"/blobs/{storage.layers[0]['diff-digest']}")
            self.assertEqual((refused.status, refused.problem()["type"]), (501, "transport-unsupported"))


def _body_size(sock: socket.socket, expected: int) -> int:
    """How many bytes follow the head of an answer, up to `expected`; they are only counted."""
    buffer = memoryview(bytearray(1 << 20))
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(65536)
    assert head.startswith(b"HTTP/1.1 200 "), head[:100]
    received = len(head.partition(b"\r\n\r\n")[2])
    while received < expected and (count := sock.recv_into(buffer)):
        received += count
    return received


def _path(described: Descriptor) -> bytes:
    return f"{described.digest.algorithm}/{described.digest.encoded}".encode()


if __name__ == "__main__":
    unittest.main()

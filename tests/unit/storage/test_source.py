# SPDX-License-Identifier: Apache-2.0
"""`containers-storage:`: which image is found, what its layers are, and what is refused (images.md section 4)."""

import fcntl
import json
import os
import shutil
import threading
import unittest
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

from cip.content import BlobReader, Release, copy_verified
from cip.errors import (
    CipError,
    ConfigurationError,
    ContentMismatchError,
    ErrorCode,
    ImageAbsentError,
    InvalidReferenceError,
    NotFoundError,
    SignatureError,
    SourceError,
    UnsupportedError,
)
from cip.model import mediatype
from cip.model.descriptor import Descriptor, Digest, digest_of
from cip.model.manifest import Manifest, parse_manifest
from cip.model.reference import parse_docker_reference, parse_image_reference
from cip.model.signature import SimpleSignature
from cip.settings import HostEnvironment, PlatformOptions, Settings
from cip.sources.base import BlobAccess
from cip.sources.storage import store
from cip.sources.storage.source import StorageSource, open_storage
from tests.support import images
from tests.support.images import Member
from tests.support.leaks import LeakCheckedTestCase, open_descriptors
from tests.support.storage import Storage, layer_digests

BASE = (Member(b"d", kind=b"5"), Member(b"d/f", b"content"), Member(b"bad\xff", b"x"))
UPPER = (Member(b"d/.wh.f", b""), Member(b"d/g", b"more"))
NAME = "localhost/img:1"


class StorageTestCase(LeakCheckedTestCase):
    driver = "overlay"

    def setUp(self) -> None:
        super().setUp()
        self.storage = Storage(self.directory / "root", self.driver)
        self.tars, self.manifest = self.storage.add(NAME, [BASE, UPPER])

    def open(self, name: str = NAME, *, place: str = "", settings: Settings | None = None) -> StorageSource:
        place = place or f"[{self.driver}@{self.storage.root}]"
        source = open_storage(parse_image_reference(f"containers-storage:{place}{name}"), settings or Settings())
        self.addCleanup(source.close)
        return source

    def layers(self, source: StorageSource) -> Sequence[Descriptor]:
        parsed = parse_manifest(source.manifest(None).data, "", "manifest")
        assert isinstance(parsed, Manifest)
        return source.stored_layers(parsed.layers)

    def contents(self, source: StorageSource) -> list[bytes]:
        return [self.read(source.open_blob(layer, BlobAccess.VERIFIED), layer) for layer in self.layers(source)]

    def read(self, reader: BlobReader, expected: Descriptor) -> bytes:
        data = bytearray()
        try:
            copy_verified(reader, data.extend, expected, release=Release.AFTER_VERIFICATION)
        finally:
            reader.close()
        return bytes(data)

    def missing(self, name: str, *, settings: Settings | None = None, place: str = "") -> None:
        """wire.md 4.4: every reference that resolves to no image is an image that does not exist."""
        with self.assertRaisesRegex(NotFoundError, "no such image in") as caught:
            self.open(name, settings=settings, place=place)
        self.assertIs(caught.exception.code, ErrorCode.IMAGE_NOT_FOUND)


class Content(StorageTestCase):
    def test_layers_are_plain_tars_under_their_diff_ids(self) -> None:
        """L7."""
        source = self.open()
        raw = source.manifest(None)
        self.assertEqual((raw.data, raw.media_type), (self.manifest, ""))
        layers = self.layers(source)
        self.assertEqual(
            [(layer.media_type, layer.digest, layer.size) for layer in layers],
            [(mediatype.OCI_LAYER, digest_of(tar), len(tar)) for tar in self.tars],
        )
        self.assertEqual(self.contents(source), self.tars)

    def test_an_open_image_holds_the_root_and_no_list(self) -> None:
        """A parent may open hundreds of images, and each process has some thousand descriptors."""
        before = open_descriptors().keys()
        source = self.open()
        self.layers(source)
        held = {number: path for number, path in open_descriptors().items() if number not in before}
        self.assertEqual(list(held.values()), [os.path.realpath(self.storage.root)])
        self.assertEqual(self.contents(source), self.tars)  # the lists are opened again where somebody asks again

    def test_the_digests_of_the_manifest_cannot_be_had(self) -> None:
        """L7."""
        source = self.open()
        parsed = parse_manifest(self.manifest, "", "manifest")
        assert isinstance(parsed, Manifest)
        source.manifest(None)
        source.stored_layers(parsed.layers)
        with self.assertRaisesRegex(NotFoundError, "nothing is kept under this name") as caught:
            source.open_blob(parsed.layers[0], BlobAccess.VERIFIED)
        self.assertEqual(caught.exception.digest, str(parsed.layers[0].digest))
        config = source.open_blob(parsed.config, BlobAccess.VERIFIED)
        self.assertEqual(self.read(config, parsed.config), images.config(layer_digests(self.tars)))

    def test_layers_of_a_docker_image_have_docker_s_type(self) -> None:
        """L9."""
        self.storage.add("localhost/docker:1", [BASE], media_type=mediatype.DOCKER_MANIFEST)
        layers = self.layers(self.open("localhost/docker:1"))
        self.assertEqual([layer.media_type for layer in layers], [mediatype.DOCKER_LAYER])

    def test_an_unrecorded_size_is_measured(self) -> None:
        for size in (None, -1):
            self.storage.layers[0]["diff-size"] = size
            self.storage.write()
            self.assertEqual([layer.size for layer in self.layers(self.open())], [len(tar) for tar in self.tars])
        self.storage.recipe_path(str(self.storage.layers[0]["id"])).unlink()
        self.assertEqual(self.layers(self.open())[0].size, -1)

    def test_a_layer_pulled_in_parts_has_the_digest_that_is_expected_of_it(self) -> None:
        record = self.storage.layers[0]
        record |= {"flags": {"expected-layer-diffid": record.pop("diff-digest"), "x": 1}, "toc-digest": "sha256:x"}
        self.storage.write()
        self.assertEqual(self.contents(self.open()), self.tars)
        del record["flags"]
        self.storage.write()
        with self.assertRaisesRegex(UnsupportedError, "records no digest of its tar"):
            self.layers(self.open())

    def test_an_image_without_layers_is_an_image(self) -> None:
        config = images.config([])
        manifest = images.manifest(config, [])
        self.storage.add_image(["localhost/empty:1"], "", manifest, {str(digest_of(config)): config})
        self.assertEqual(self.contents(self.open("localhost/empty:1")), [])

    def test_the_layer_without_files_of_old_images_is_known(self) -> None:
        empty = Digest("sha256", "a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4")
        expected = Descriptor("", empty, 32)
        self.assertEqual(len(self.read(self.open().open_blob(expected, BlobAccess.VERIFIED), expected)), 32)

    def test_layers_are_read_side_by_side_and_outlive_source_and_store(self) -> None:
        source = self.open()
        layers = self.layers(source)
        readers = [(source.open_blob(layer, BlobAccess.VERIFIED), layer) for layer in layers for _ in range(3)]
        source.close()
        found: list[bytes] = []
        threads = [threading.Thread(target=lambda pair=pair: found.append(self.read(*pair))) for pair in readers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(found), sorted(self.tars * 3))

    def test_a_file_that_was_changed_is_a_mismatch(self) -> None:
        directory = self.storage.layer_directory(str(self.storage.layers[0]["id"]))
        (directory / "d/f").write_bytes(b"CONTENT")
        with self.assertRaisesRegex(ContentMismatchError, "expected digest"):
            self.contents(self.open())
        (directory / "d/f").write_bytes(b"c")
        with self.assertRaisesRegex(SourceError, "6 bytes are missing from a file of the layer"):
            self.contents(self.open())
        (directory / "d/f").unlink()
        with self.assertRaisesRegex(SourceError, "file 'd/f': no such file"):
            self.contents(self.open())


class ContentOfVfs(Content):
    driver = "vfs"


class Finding(StorageTestCase):
    def test_names_ids_and_prefixes_find_the_image(self) -> None:
        image_id = str(self.storage.images[0]["id"])
        digest = digest_of(self.manifest)
        img = "localhost/img"
        for name in (
            NAME,
            image_id,
            f"@{image_id}",
            image_id[:3],
            f"{NAME}@{image_id}",
            f"{img}@{image_id[:9]}",
            f"{img}@{digest}",
            f"{img}:other@{digest}",
        ):
            with self.subTest(name):
                self.assertEqual(self.open(name).manifest(None).data, self.manifest)

    def test_of_two_images_with_one_name_the_last_counts(self) -> None:
        _, last = self.storage.add(NAME, [BASE])
        self.assertEqual(self.open().manifest(None).data, last)
        repository = NAME.rpartition(":")[0]
        self.assertEqual(self.open(f"{repository}@{digest_of(last)}").manifest(None).data, last)
        for name in (f"{repository}@{digest_of(self.manifest)}", f"{NAME}@{self.storage.images[0]['id']}"):
            with self.subTest(name), self.assertRaises(ImageAbsentError):  # its name was taken away
                self.open(name)

    def test_what_is_not_there_is_a_missing_image(self) -> None:
        image_id = str(self.storage.images[0]["id"])
        digest = digest_of(self.manifest)
        for name in (
            "localhost/img:2",
            "img:1",
            f"localhost/other@{image_id}",
            f"localhost/img@{'0' * 64}",
            f"localhost/other@{digest}",
            f"localhost/img@{images.DIGEST_M}",
        ):
            with self.subTest(name):
                self.missing(name)
        with self.assertRaises(InvalidReferenceError):
            self.open("0" * 64)

    def test_a_storage_that_does_not_exist_is_not_made(self) -> None:
        root = self.directory / "nothing"
        self.missing(NAME, place=f"[{root}]")
        self.missing(NAME, place=f"[vfs@{root}+{root}]")
        self.assertFalse(root.exists())
        self.directory.joinpath("empty").mkdir()
        self.missing(NAME, place=f"[{self.directory}/empty]")
        self.assertEqual(list(self.directory.joinpath("empty").iterdir()), [])

    def test_the_digest_of_an_index_finds_the_image_for_this_platform(self) -> None:
        """L8; of several images that keep the index, the one that it chooses."""
        tars, other = self.storage.add("localhost/multi:1", [UPPER], items={})
        index = images.index(
            [
                images.entry(other, platform={"architecture": "arm64", "os": "linux"}),
                images.entry(self.manifest, platform={"architecture": "amd64", "os": "linux"}),
            ]
        )
        digest = digest_of(index)
        for number, record in enumerate(self.storage.images):
            record["names"] = [f"localhost/multi:{number}"]
            key = f"manifest-{digest}"
            record["big-data-names"] = [*record["big-data-names"], key]  # type: ignore[misc]
            record["big-data-digests"] = {**record["big-data-digests"], key: str(digest)}  # type: ignore[dict-item]
            path = self.storage.root / "overlay-images" / str(record["id"]) / store.item_file_name(key)
            path.write_bytes(index)
        self.storage.write()
        for architecture, expected in (("arm64", other), ("amd64", self.manifest), ("s390x", self.manifest)):
            settings = Settings(platform=PlatformOptions(architecture=architecture))
            source = self.open(f"localhost/multi@{digest}", settings=settings)
            self.assertEqual(source.manifest(None).data, index)
            self.assertEqual(source.manifest(digest_of(expected)).data, expected)
            parsed = parse_manifest(expected, "", "instance")
            assert isinstance(parsed, Manifest)
            self.assertEqual(len(source.stored_layers(parsed.layers)), len(parsed.layers))
        self.assertEqual(len(tars), 1)

    def test_identity_names_the_storage_the_image_and_its_id(self) -> None:
        image_id = str(self.storage.images[0]["id"])
        link = self.directory / "link"
        link.symlink_to(self.storage.root)
        place, digest = f"[overlay@{self.storage.root}]", digest_of(self.manifest)
        linked = self.open(place=f"[overlay@{self.directory}/x/.././/link/]").identity
        self.assertEqual(linked.identity, f"[overlay@{link}]{NAME}@{image_id}")
        found = self.open().identity
        self.assertEqual(found.identity, f"{place}{NAME}@{image_id}")
        self.assertEqual(
            found.scopes,
            (f"{place}{NAME}", f"{place}localhost/img", f"{place}localhost", place, f"[{self.storage.root}]"),
        )
        self.assertEqual(found.docker, parse_docker_reference(NAME))
        by_id = self.open(image_id).identity
        self.assertEqual(
            (by_id.identity, by_id.scopes, by_id.docker),
            (f"{place}@{image_id}", (place, f"[{self.storage.root}]"), None),
        )
        both = self.open(f"{NAME}@{digest}").identity
        self.assertEqual(both.scopes[:2], (f"{place}{NAME}@{digest}", f"{place}{NAME}"))

    def test_the_host_s_own_storage_is_found_by_its_configuration(self) -> None:
        conf = self.directory / "storage.conf"
        conf.write_text(f'[storage]\ndriver="overlay"\ngraphroot="{self.storage.root}"\n')
        environment = HostEnvironment({"CONTAINERS_STORAGE_CONF": str(conf)})
        source = open_storage(parse_image_reference(f"containers-storage:{NAME}"), Settings(environment=environment))
        self.addCleanup(source.close)
        self.assertEqual(self.contents(source), self.tars)

    def test_the_driver_is_found_out_from_what_is_there(self) -> None:
        self.assertEqual(self.open(place=f"[{self.storage.root}]").manifest(None).data, self.manifest)
        Storage(self.storage.root, "vfs")
        with self.assertRaisesRegex(ConfigurationError, "holds images of overlay and vfs: choose by"):
            self.open(place=f"[{self.storage.root}]")
        self.missing(NAME, place=f"[vfs@{self.storage.root}]")


class AdditionalStores(StorageTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.more = Storage(self.directory / "more")
        self.more_tars, self.more_manifest = self.more.add("localhost/more:1", [UPPER])

    def with_more(self, name: str, root: Path | None = None) -> StorageSource:
        return self.open(name, place=f"[overlay@{root or self.storage.root}:overlay.imagestore={self.more.root}]")

    def test_images_are_found_in_every_store(self) -> None:
        self.assertEqual(self.contents(self.with_more("localhost/more:1")), self.more_tars)
        self.assertEqual(self.contents(self.with_more(NAME)), self.tars)
        self.assertEqual(self.contents(self.with_more(str(self.more.images[0]["id"]))), self.more_tars)

    def test_the_own_store_need_not_exist(self) -> None:
        """As on an image-based host that sets STORAGE_OPTS."""
        root = self.directory / "nothing"
        self.assertEqual(self.contents(self.with_more("localhost/more:1", root)), self.more_tars)
        self.assertFalse(root.exists())
        environment = HostEnvironment({"STORAGE_OPTS": f"additionalimagestore={self.more.root}"}, str(self.directory))
        with mock.patch("cip.hostconfig.paths.STATE_DIRECTORY", str(root)):
            name = parse_image_reference("containers-storage:localhost/more:1")
            source = open_storage(name, Settings(environment=environment))
            self.addCleanup(source.close)
        self.assertEqual(source.identity.scopes[-2:], (f"[overlay@{root}/storage]", f"[{root}/storage]"))
        self.assertEqual(self.contents(source), self.more_tars)

    def test_a_layer_may_stand_on_one_of_another_store(self) -> None:
        self.storage.layers[0]["id"], removed = "x" * 64, str(self.storage.layers[0]["id"])
        self.storage.write()
        with self.assertRaisesRegex(SourceError, f"has no layer {removed}"):
            self.contents(self.with_more(NAME))
        self.more.add_layer(BASE)
        self.assertEqual(self.contents(self.with_more(NAME)), self.tars)


class Signatures(StorageTestCase):
    blobs = (b"\x88first", b"\x00simple-signing\nsecond")

    def store(self, metadata: object, items: dict[str, bytes]) -> StorageSource:
        config = images.config([])
        manifest = images.manifest(config, [])
        kept = {str(digest_of(config)): config, **items}
        self.storage.add_image(["localhost/signed:1"], "", manifest, kept, metadata=metadata)
        return self.open("localhost/signed:1")

    def test_lengths_are_told_by_the_metadata(self) -> None:
        digest = digest_of(b"instance")
        source = self.store(
            {"signature-sizes": [len(blob) for blob in self.blobs], "signatures-sizes": {str(digest): [6]}},
            {"signatures": b"".join(self.blobs), f"signature-{digest.encoded}": b"\x88third"},
        )
        first, second = source.signatures(digest_of(b"any"), None)
        self.assertEqual((first.origin, second.origin), ("signatures 1", "signatures 2"))
        assert isinstance(second, SimpleSignature)
        self.assertEqual(second.message, b"second")
        (third,) = source.signatures(digest, digest)
        self.assertEqual(third, SimpleSignature(b"\x88third", f"signature-{digest.encoded} 1"))
        self.assertEqual(source.signatures(digest_of(b"other"), digest_of(b"other")), ())
        self.assertEqual(self.open().signatures(digest_of(b"any"), None), ())

    def test_a_list_that_cannot_be_read_whole_is_refused(self) -> None:
        for case, metadata, items, reason in (
            ("no item", {"signature-sizes": [1]}, {}, "nothing is kept under this name"),
            ("short", {"signature-sizes": [9]}, {"signatures": b"\x88"}, "signatures: expected 9 bytes, found 1"),
            ("long", {"signature-sizes": [1]}, {"signatures": b"\x88\x88"}, "expected 1 bytes, found 2"),
            ("negative", {"signature-sizes": [2, -1]}, {"signatures": b"\x88"}, "expected at least 0"),
            ("kind", {"signature-sizes": "x"}, {}, "expected an array"),
            ("spelling", {"signature-sizes": [1], "Signature-Sizes": []}, {}, "ambiguous member 'Signature-Sizes'"),
            ("format", {"signature-sizes": [1]}, {"signatures": b"x"}, "unknown format"),
            ("too many", {"signature-sizes": [1] * 128}, {"signatures": b"\x88" * 128}, "more than 127 signatures"),
        ):
            items_made: dict[str, bytes] = items
            self.storage = Storage(self.directory / case)
            with self.subTest(case), self.assertRaisesRegex(SignatureError, reason) as caught:
                self.store(metadata, items_made).signatures(digest_of(b"any"), None)
            self.assertEqual(caught.exception.reason, "fetch")


class Refusals(StorageTestCase):
    def test_layers_that_are_not_those_of_the_config_are_refused(self) -> None:
        """The manifest vouches for the config alone, and the config for the layers."""
        self.storage.layers[0]["diff-digest"], self.storage.layers[1]["diff-digest"] = (
            self.storage.layers[1]["diff-digest"],
            self.storage.layers[0]["diff-digest"],
        )
        self.storage.write()
        with self.assertRaisesRegex(ContentMismatchError, "layer 0: expected sha256:.* as the config says, the"):
            self.layers(self.open())

    def test_layers_of_an_artifact_must_be_those_of_its_manifest(self) -> None:
        """Its config has no diff ids, so the manifest alone vouches for the layers."""
        config = b"{}"
        layer_id, tar = self.storage.add_layer([Member(b"artifact", b"x")])
        for name, named, accepted in (("same", tar, True), ("other", b"another tar", False)):
            descriptor = Descriptor(mediatype.OCI_LAYER, digest_of(named), len(named))
            manifest = json.dumps(
                {
                    "schemaVersion": 2,
                    "mediaType": mediatype.OCI_MANIFEST,
                    "config": {"mediaType": "application/x", "digest": str(digest_of(config)), "size": len(config)},
                    "layers": [
                        {"mediaType": descriptor.media_type, "digest": str(descriptor.digest), "size": descriptor.size}
                    ],
                }
            ).encode()
            self.storage.add_image([f"localhost/{name}:1"], layer_id, manifest, {str(digest_of(config)): config})
            source = self.open(f"localhost/{name}:1")
            if accepted:
                self.assertEqual(self.contents(source), [tar])
            else:
                with self.assertRaisesRegex(UnsupportedError, "only under the digests that its manifest names"):
                    self.layers(source)

    def test_a_config_that_was_changed_is_refused(self) -> None:
        image = self.storage.images[0]
        names = image["big-data-names"]
        assert isinstance(names, list)
        key = next(name for name in names if name.startswith("sha256:"))
        path = self.storage.root / "overlay-images" / str(image["id"]) / store.item_file_name(key)
        path.write_bytes(path.read_bytes().replace(b"amd64", b"arm64"))
        with self.assertRaisesRegex(ContentMismatchError, "expected digest"):
            self.layers(self.open())

    def test_another_number_of_layers_is_refused(self) -> None:
        self.storage.images[0]["layer"] = self.storage.layers[0]["id"]
        self.storage.write()
        with self.assertRaisesRegex(SourceError, "the manifest has 2 layers, the storage 1"):
            self.layers(self.open())

    def test_layers_in_a_circle_are_refused(self) -> None:
        self.storage.layers[0]["parent"] = self.storage.layers[1]["id"]
        self.storage.write()
        with self.assertRaisesRegex(CipError, "more than 1000 layers below each other"):
            self.layers(self.open())

    def test_set_ups_that_need_mounts_are_refused_with_the_reason(self) -> None:
        base = self.storage.root / "overlay" / str(self.storage.layers[0]["id"])
        for case, change, reason in (
            ("composefs", (base / "composefs-data").mkdir, "the store keeps it as composefs"),
            ("no recipe", self.storage.recipe_path(base.name).unlink, "the store kept no tar-split recipe"),
        ):
            steps: Callable[[], object] = change
            with self.subTest(case), self.assertRaisesRegex(UnsupportedError, f"layer sha256:.*{reason}"):
                steps()
                self.contents(self.open())
            if case == "composefs":
                (base / "composefs-data").rmdir()
        self.storage = Storage(self.directory / "second")
        self.storage.add(NAME, [BASE])
        shutil.rmtree(self.storage.layer_directory(str(self.storage.layers[0]["id"])))
        with self.assertRaisesRegex(UnsupportedError, "has no directory of its files"):
            self.contents(self.open())
        for driver in ("btrfs", "zfs"):
            with self.assertRaisesRegex(UnsupportedError, f"driver '{driver}' is not supported, expected one of"):
                self.open(place=f"[{driver}@{self.storage.root}]")

    def test_a_layer_directory_that_is_a_link_out_is_refused(self) -> None:
        directory = self.storage.layer_directory(str(self.storage.layers[0]["id"]))
        directory.rename(self.directory / "elsewhere")
        directory.symlink_to(self.directory / "elsewhere")
        with self.assertRaisesRegex(SourceError, "a link leads out of the directory"):
            self.contents(self.open())

    def test_ids_that_are_paths_are_refused(self) -> None:
        for records, key in (
            (self.storage.images, "id"),
            (self.storage.images, "layer"),
            (self.storage.layers, "id"),
            (self.storage.layers, "parent"),
        ):
            for value in ("../x", "a/b", "..", "x\0y"):
                before = records[0].get(key)
                records[0][key] = value
                self.storage.write()
                with self.subTest(key, value=value), self.assertRaisesRegex(CipError, f"{key}: expected an id, found"):
                    self.layers(self.open())
                records[0][key] = before

    def test_lists_that_do_not_parse_are_refused_and_missing_ones_are_empty(self) -> None:
        path = self.storage.root / "overlay-images/images.json"
        for text, reason in (
            ("x", "images.json: not valid JSON"),
            ("{}", "not an array of objects"),
            ('[{"id":1}]', "id: expected a string"),
        ):
            path.write_text(text)
            with self.subTest(text), self.assertRaisesRegex(CipError, reason):
                self.open()
        path.write_text("null")
        self.missing(NAME)
        path.unlink()
        self.missing(NAME)

    def test_a_missing_item_is_a_missing_blob(self) -> None:
        image_id = str(self.storage.images[0]["id"])
        (self.storage.root / "overlay-images" / image_id / "manifest").unlink()
        with self.assertRaisesRegex(NotFoundError, "'manifest': no such file") as caught:
            self.open().manifest(None)
        self.assertIs(caught.exception.code, ErrorCode.BLOB_NOT_FOUND)

    def test_what_may_not_be_read_says_how_it_could_be(self) -> None:
        with mock.patch("cip.sources.files.Tree.open_file", side_effect=PermissionError(13, "Permission denied")):
            with self.assertRaisesRegex(SourceError, "images.json: permission denied; .*podman unshare"):
                self.open()


class Locks(StorageTestCase):
    def test_lists_are_read_under_shared_locks_that_are_given_back(self) -> None:
        taken: list[int] = []
        real = fcntl.lockf

        def lockf(descriptor: int, command: int) -> None:
            taken.append(command)
            real(descriptor, command)

        with mock.patch("fcntl.lockf", lockf):
            self.layers(self.open())
        self.assertEqual(taken, [fcntl.LOCK_SH | fcntl.LOCK_NB] * 2)

    def test_a_writer_that_does_not_finish_is_a_time_out(self) -> None:
        busy = BlockingIOError(11, "busy")
        with mock.patch("fcntl.lockf", side_effect=busy), mock.patch.object(store, "LOCK_WAIT", 0.05):
            with self.assertRaisesRegex(SourceError, "images.lock: locked by another process") as caught:
                self.open()
        self.assertIs(caught.exception.code, ErrorCode.TIMEOUT)

    def test_a_writer_that_finishes_is_waited_for(self) -> None:
        with mock.patch("fcntl.lockf", side_effect=[BlockingIOError(11, "busy"), None, None]):
            self.layers(self.open())

    def test_a_store_without_locks_is_read_all_the_same(self) -> None:
        for path in self.storage.root.rglob("*.lock"):
            path.unlink()
        self.assertEqual(self.contents(self.open()), self.tars)
        with mock.patch("fcntl.lockf", side_effect=OSError(37, "No locks available")):
            self.open()

    def test_volatile_and_transient_layers_are_known(self) -> None:
        lists = self.storage.root / "overlay-layers"
        (lists / "layers.json").rename(lists / "volatile-layers.json")
        self.assertEqual(self.contents(self.open()), self.tars)
        run = self.directory / "run"
        (run / "overlay-layers").mkdir(parents=True)
        (lists / "volatile-layers.json").rename(run / "overlay-layers/volatile-layers.json")
        self.assertEqual(self.contents(self.open(place=f"[overlay@{self.storage.root}+{run}]")), self.tars)


if __name__ == "__main__":
    unittest.main()

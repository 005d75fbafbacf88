# SPDX-License-Identifier: Apache-2.0
"""`docker-archive:`: which image is chosen, what its manifest says, and that layers are plain tar (images.md 3.6)."""

import bz2
import gzip
import json
import lzma
import os
import resource
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from cip.content import MANIFEST_LIMIT, Release, copy_verified, read_limited
from cip.errors import CipError, ContentMismatchError, ErrorCode, NotFoundError
from cip.model import mediatype
from cip.model.descriptor import Descriptor, parse_digest
from cip.model.reference import Transport, parse_docker_reference, parse_image_reference
from cip.programs import DirectPrograms
from cip.sources.archives.dockerarchive import DESCRIPTION_LIMIT, DockerArchiveSource, open_docker_archive
from cip.sources.archives.spool import Spools
from cip.sources.base import BlobAccess
from cip.temporary import TemporarySpace
from tests.support import images
from tests.support.images import Member, SavedImage
from tests.support.leaks import LeakCheckedTestCase
from tests.support.parent import PATIENCE

SECOND = images.tar([Member(b"g", b"y")])
CONFIG_TWO = images.config([images.DIGEST_T, images.describe(SECOND).digest])


class DockerArchiveTestCase(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.directory / "saved.tar"
        self.write(images.docker_save(images.CONFIG_C, [images.LAYER_T], "docker.io/library/x:1"))

    def write(self, content: bytes) -> None:
        self.path.write_bytes(content)

    def describe(self, description: object, *members: Member) -> None:
        """Write an archive with this manifest.json beside C as `c` and T as `t`."""
        data = description if isinstance(description, bytes) else images.compact(description)
        own = [Member(b"c", images.CONFIG_C), Member(b"t", images.LAYER_T), Member(b"manifest.json", data)]
        taken = {member.name for member in members}
        self.write(images.tar([*members, *(member for member in own if member.name not in taken)]))

    def open(self, rest: str = "") -> DockerArchiveSource:
        reference = parse_image_reference(f"docker-archive:{self.path}{rest}")
        source = open_docker_archive(reference, Spools(TemporarySpace(str(self.directory), 1 << 30), DirectPrograms()))
        self.addCleanup(source.close)
        return source

    def layers(self, source: DockerArchiveSource) -> list[bytes]:
        """All layers, verified."""
        found = []
        for entry in json.loads(source.manifest(None).data)["layers"]:
            self.assertEqual(entry["mediaType"], mediatype.DOCKER_LAYER)
            described = Descriptor("", parse_digest(entry["digest"]), entry["size"])
            reader = source.open_blob(described, BlobAccess.VERIFIED)
            data = bytearray()
            try:
                copy_verified(reader, data.extend, described, release=Release.AFTER_VERIFICATION)
            finally:
                reader.close()
            found.append(bytes(data))
        return found

    def refused(self, reason: str, code: ErrorCode = ErrorCode.MANIFEST_INVALID, rest: str = "") -> None:
        with self.assertRaisesRegex(CipError, reason) as caught:
            self.open(rest)
        self.assertIs(caught.exception.code, code)


class Content(DockerArchiveTestCase):
    def test_the_manifest_announces_plain_layers(self) -> None:
        """L3: with an honest media type, where upstream says gzip."""
        source = self.open()
        raw = source.manifest(None)
        self.assertEqual((raw.data, raw.media_type), (images.MANIFEST_S, mediatype.DOCKER_MANIFEST))
        self.assertEqual(self.layers(source), [images.LAYER_T])
        config = source.open_blob(images.describe(images.CONFIG_C), BlobAccess.VERIFIED)
        self.assertEqual(read_limited(config, 1000, "config"), images.CONFIG_C)

    def test_compressed_archives_and_compressed_layers_give_the_same_image(self) -> None:
        """L4."""
        plain = self.path.read_bytes()
        for pack in (gzip.compress, bz2.compress, lzma.compress):
            with self.subTest(pack.__module__):
                self.write(pack(plain))
                self.assertEqual(self.open().manifest(None).data, images.MANIFEST_S)
                self.describe([SavedImage("c", ("t",)).item()], Member(b"t", pack(images.LAYER_T)))
                source = self.open()
                self.assertEqual(source.manifest(None).data, images.MANIFEST_S)
                self.assertEqual(self.layers(source), [images.LAYER_T])

    def test_an_uncompressed_archive_with_gzip_layers_needs_no_temporary_file(self) -> None:
        self.describe([SavedImage("c", ("t",)).item()], Member(b"t", gzip.compress(images.LAYER_T)))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            self.assertEqual(self.layers(self.open()), [images.LAYER_T])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    def test_one_decoder_with_a_window_streams_and_what_is_read_beside_it_is_unpacked_into_a_file(self) -> None:
        for pack in (bz2.compress, lzma.compress):
            with self.subTest(pack.__module__):
                self.describe([SavedImage("c", ("t",)).item()], Member(b"t", pack(images.LAYER_T)))
                source = self.open()
                readers = [source.open_blob(images.describe(images.LAYER_T), BlobAccess.VERIFIED) for _ in range(3)]
                first = [bytearray(10) for _ in readers]
                self.assertEqual(
                    [each.readinto(memoryview(data)) for each, data in zip(readers, first, strict=True)], [10] * 3
                )
                self.assertEqual(source._spools.space._used, len(images.LAYER_T), "one file for the two that waited")
                for each, data in zip(readers, first, strict=True):
                    self.assertEqual(data + read_limited(each, 1 << 20, "layer"), images.LAYER_T)
                    each.close()
                self.assertEqual(source._spools.space._used, 0)
                source.open_blob(images.describe(images.LAYER_T), BlobAccess.VERIFIED).close()
                self.assertTrue(source._spools.streaming.acquire(blocking=False), "it is given back")

    def test_what_is_closed_waits_for_nobody_and_unpacks_nothing(self) -> None:
        self.describe([SavedImage("c", ("t",)).item()], Member(b"t", lzma.compress(images.LAYER_T)))
        source = self.open()
        readers = [source.open_blob(images.describe(images.LAYER_T), BlobAccess.VERIFIED) for _ in range(3)]
        readers[0].readinto(memoryview(bytearray(1)))
        with source._spools._unpacking, ThreadPoolExecutor(2) as pool:  # as if another layer were unpacked
            reads = [pool.submit(each.readinto, memoryview(bytearray(1))) for each in readers[1:]]
            time.sleep(0.05)
            for each in readers[1:]:
                each.close()
            for read in reads:
                self.assertRaisesRegex(CipError, "closed while it was read", read.result, PATIENCE)
        readers[0].close()
        self.assertEqual(source._spools.space._used, 0)

    def test_layers_may_be_links_and_repeated(self) -> None:
        config = images.config([images.DIGEST_T, images.describe(SECOND).digest, images.DIGEST_T])
        self.describe(
            [SavedImage("d/config", ("a/layer.tar", "d/second", "a/layer.tar"), None).item()],
            Member(b"./d/config", config),
            Member(b"a/layer.tar", kind=b"2", link=b"../t"),
            Member(b"d/second", SECOND),
        )
        self.assertEqual(self.layers(self.open()), [images.LAYER_T, SECOND, images.LAYER_T])

    def test_an_image_without_layers_is_an_image(self) -> None:
        self.describe([{"Config": "c", "RepoTags": None, "Layers": None}], Member(b"c", images.config([])))
        self.assertEqual(self.layers(self.open()), [])

    def test_nothing_else_is_served(self) -> None:
        source = self.open()
        for digest in (images.DIGEST_M, images.describe(b"other").digest):
            with self.assertRaisesRegex(NotFoundError, "no blob sha256"):
                source.open_blob(images.describe(b"")._replace(digest=digest), BlobAccess.VERIFIED)
            with self.assertRaisesRegex(NotFoundError, "no manifest sha256"):
                source.manifest(digest)
        self.assertEqual(source.signatures(images.DIGEST_S, None), ())

    def test_a_layer_that_is_not_what_the_config_says_is_a_mismatch(self) -> None:
        for content in (SECOND, gzip.compress(SECOND)):
            self.describe([SavedImage("c", ("t",)).item()], Member(b"t", content))
            with self.assertRaisesRegex(ContentMismatchError, "expected digest sha256:43e187.*found sha256"):
                self.layers(self.open())

    def test_an_archive_cut_behind_our_back_is_an_error(self) -> None:
        made = images.random_bytes(3_000_000, b"layer")
        config = images.config([images.describe(made).digest])
        for content, reason in ((made, "expected 3000000 bytes, found"), (gzip.compress(made), "data ends too early")):
            self.write(images.docker_save(config, [content]))
            if content is not made:
                self.describe([SavedImage("c", ("t",)).item()], Member(b"c", config), Member(b"t", content))
            source = self.open()
            described = images.describe(made)
            reader = source.open_blob(described, BlobAccess.VERIFIED)
            self.addCleanup(reader.close)
            os.truncate(self.path, 1_000_000)
            with self.assertRaisesRegex(CipError, reason):
                copy_verified(reader, len, described, release=Release.AFTER_VERIFICATION)


class Choosing(DockerArchiveTestCase):
    def setUp(self) -> None:
        super().setUp()
        items = [
            SavedImage("c", ("t",), ("x:1", "quay.io/y/z:2")),
            SavedImage("two", ("t", "second"), ("docker.io/library/x:latest",)),
            SavedImage("c", ("t",), ("x:1",)),
        ]
        self.items = [item.item() for item in items]
        self.describe(self.items, Member(b"two", CONFIG_TWO), Member(b"second", SECOND))

    def test_tags_are_compared_in_their_normal_form(self) -> None:
        for rest, layers in ((":x:1", 1), (":docker.io/library/x:1", 1), (":quay.io/y/z:2", 1), (":x", 2), (":@1", 2)):
            with self.subTest(rest):
                self.assertEqual(len(self.layers(self.open(rest))), layers)

    def test_identity_is_the_tag_that_was_asked_for(self) -> None:
        identity = self.open(":x:1").identity
        self.assertEqual(identity, (Transport.DOCKER_ARCHIVE, "", (), parse_docker_reference("x:1")))
        self.assertIsNone(self.open(":@0").identity.docker)

    def test_what_does_not_choose_one_image_is_refused_and_never_missing(self) -> None:
        """wire.md 4.4: an unknown tag is an error for OpenImageOptional, too."""
        invalid = ErrorCode.REFERENCE_INVALID
        self.refused("choose one of 3 images by :TAG or :@INDEX; the tags are 'x:1', 'quay", invalid)
        self.refused("expected an index below 3, found 3", invalid, ":@3")
        self.refused("no image is tagged 'docker.io/library/nope:latest'; the tags are", invalid, ":nope")
        self.describe([])
        self.refused("expected an image, found none")

    def test_a_tag_that_does_not_parse_stops_the_search(self) -> None:
        self.items[0]["RepoTags"] = ["-bad-", "x:1"]
        self.describe(self.items, Member(b"two", CONFIG_TWO), Member(b"second", SECOND))
        self.refused(r"manifest.json: \[0\].RepoTags\[0\]: .*not a repository path", rest=":x")


class Refusing(DockerArchiveTestCase):
    def test_files_that_do_not_describe_an_image_are_refused(self) -> None:
        self.write(images.oci_archive(images.f1(self.directory / "F1")))
        self.refused("no member 'manifest.json'")
        self.path.unlink()
        self.refused("no such file", ErrorCode.SOURCE_UNAVAILABLE)
        item = SavedImage("c", ("t",)).item()
        for case, description, reason in (
            ("no JSON", b"hello", "manifest.json: not valid JSON"),
            ("object", {}, "expected an array, found an object"),
            ("no config", [{"Layers": []}], r"\[0\]: expected a member 'Config'"),
            ("config of the wrong kind", [{"Config": 1}], r"\[0\].Config: expected a string"),
            ("duplicate key", b'[{"Config":"c","Config":"c","Layers":["t"]}]', "duplicate key"),
            ("another case", [{**item, "layers": []}], "ambiguous member 'layers'"),
            ("missing config file", [{**item, "Config": "missing"}], "no member 'missing'"),
            ("missing layer", [{**item, "Layers": ["missing"]}], "no member 'missing'"),
            ("climbing", [{**item, "Config": "../c"}], r"Config: expected the name of a member, found '\.\./c'"),
            ("absolute", [{**item, "Layers": ["/t"]}], r"Layers\[0\]: expected the name of a member"),
            ("empty name", [{**item, "Layers": [""]}], r"Layers\[0\]: expected the name of a member"),
            ("surrogate", b'[{"Config":"\\ud800","Layers":[]}]', r"\[0\].Config: a lone surrogate"),
            ("too few layers", [{**item, "Layers": []}], "expected 1 layers as in the config, found 0"),
            ("too many layers", [{**item, "Layers": ["t", "t"]}], "expected 1 layers as in the config, found 2"),
            ("too many images", [item] * 10_001, "more than 10000 images"),
        ):
            with self.subTest(case):
                self.describe(description)
                with self.assertRaisesRegex(CipError, reason):
                    self.open()

    def test_configs_that_do_not_fit_are_refused(self) -> None:
        for case, config, reason in (
            ("no JSON", b"x", "config: not valid JSON"),
            ("no rootfs", b"{}", "config: expected a member 'rootfs'"),
            ("diff id", b'{"rootfs":{"diff_ids":["x"]}}', r"config: rootfs.diff_ids\[0\]: digest 'x'"),
            ("too large", b" " * (MANIFEST_LIMIT + 1), "larger than 4194304 bytes"),
        ):
            with self.subTest(case):
                self.describe([SavedImage("c", ("t",)).item()], Member(b"c", config))
                with self.assertRaisesRegex(CipError, reason):
                    self.open()

    def test_a_description_that_is_too_large_is_refused(self) -> None:
        self.describe(b" " * (DESCRIPTION_LIMIT + 1))
        self.refused("larger than 1048576 bytes", ErrorCode.LIMIT_EXCEEDED)

    def test_one_file_cannot_be_two_layers(self) -> None:
        self.describe([SavedImage("c", ("t", "t")).item()], Member(b"c", CONFIG_TWO))
        self.refused("'t' stands for two diff ids")

    def test_only_one_link_is_followed(self) -> None:
        for case, members, reason in (
            ("two links", (Member(b"t", kind=b"2", link=b"u"), Member(b"u", kind=b"2", link=b"v")), "link to the link"),
            ("a way out", (Member(b"t", kind=b"2", link=b"../../etc/passwd"),), "leads out of the archive"),
            ("a directory", (Member(b"t", kind=b"2", link=b"d"), Member(b"d", kind=b"5")), "no member 't'"),
        ):
            with self.subTest(case):
                self.describe([SavedImage("c", ("t",)).item()], *members)
                with self.assertRaisesRegex(CipError, reason):
                    self.open()

    def test_a_damaged_compressed_layer_is_refused_and_leaves_nothing_open(self) -> None:
        self.describe([SavedImage("c", ("t",)).item()], Member(b"t", gzip.compress(images.LAYER_T)[:-9]))
        self.refused("layer 't': gzip data ends too early")


if __name__ == "__main__":
    unittest.main()

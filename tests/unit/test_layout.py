# SPDX-License-Identifier: Apache-2.0
"""`oci:`: which image a reference chooses, what is refused, and that blobs are read as they lie (images.md 3.3)."""

import os
import threading
import unittest
from collections.abc import Callable

from cip.content import MANIFEST_LIMIT, Release, copy_verified, read_limited
from cip.errors import CipError, ContentMismatchError, ErrorCode, NotFoundError
from cip.model import mediatype
from cip.model.descriptor import Descriptor, Digest, digest_of
from cip.model.reference import Transport, parse_image_reference
from cip.settings import PlatformOptions, Settings
from cip.sources.base import BlobAccess, ImageSource
from cip.sources.layout import open_layout
from tests.support import images
from tests.support.leaks import LeakCheckedTestCase

REF = images.REF_NAME


def named(entry: dict[str, object], name: str) -> dict[str, object]:
    return {**entry, "annotations": {REF: name}}


class LayoutTestCase(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.layout = images.f1(self.directory / "F1")

    def open(self, rest: str = "", *, settings: Settings | None = None) -> ImageSource:
        source = open_layout(parse_image_reference(f"oci:{self.layout.path}{rest}"), settings or Settings())
        self.addCleanup(source.close)
        return source

    def refused(self, reason: str, code: ErrorCode, rest: str = "", *, read: bool = False) -> CipError:
        with self.assertRaisesRegex(CipError, reason) as caught:
            source = self.open(rest)
            if read:
                source.manifest(None)
        self.assertIs(caught.exception.code, code)
        self.assertIn(f"oci:{self.layout.path}", str(caught.exception))
        return caught.exception

    def use(self, *entries: dict[str, object]) -> None:
        """Make these the entries of `index.json`."""
        self.layout.entries = list(entries)
        self.layout.write_index()


class Choosing(LayoutTestCase):
    def test_one_image_needs_no_name_whatever_its_type(self) -> None:
        """Also M36: nothing reads the file oci-layout."""
        (self.layout.path / "oci-layout").unlink()
        self.use(images.entry(images.MANIFEST_M, "application/foo"))
        raw = self.open().manifest(None)
        self.assertEqual((raw.data, raw.media_type), (images.MANIFEST_M, "application/foo"))

    def test_a_name_takes_the_first_entry_that_has_it(self) -> None:
        """M32."""
        second = images.manifest(images.CONFIG_C, [])
        self.layout.add_manifest(second, name="t")
        self.assertEqual(self.open(":t").manifest(None).data, images.MANIFEST_M)

    def test_entries_that_are_no_images_are_passed_over(self) -> None:
        """M33."""
        wrong = images.entry(b"{}", "application/foo")
        self.use(named(wrong, "t"), named(images.entry(images.MANIFEST_M), "t"))
        self.assertEqual(self.open(":t").manifest(None).data, images.MANIFEST_M)

    def test_a_name_that_only_something_else_has_is_refused_and_not_missing(self) -> None:
        """M34."""
        for media_type in ("application/foo", ""):
            with self.subTest(media_type):
                self.use(named(images.entry(b"{}", media_type), "t"))
                self.refused(f"something of type '{media_type}'", ErrorCode.MEDIA_TYPE_UNSUPPORTED, ":t")

    def test_a_missing_name_is_an_image_that_does_not_exist(self) -> None:
        """wire.md 4.4: the only local failure that OpenImageOptional answers with 0."""
        error = self.refused("no image is named 'nope'; the names are 't'", ErrorCode.IMAGE_NOT_FOUND, ":nope")
        self.assertIsInstance(error, NotFoundError)
        self.use()
        self.refused("no image is named 't'$", ErrorCode.IMAGE_NOT_FOUND, ":t")

    def test_several_images_must_be_chosen_from(self) -> None:
        self.layout.add_manifest(images.MANIFEST_S, mediatype.DOCKER_MANIFEST, name="s")
        self.refused("choose one of 2 images by :NAME or :@INDEX; the names are 't', 's'", ErrorCode.REFERENCE_INVALID)
        self.assertEqual(self.open(":@1").manifest(None).data, images.MANIFEST_S)
        self.assertEqual(self.open(":@+01").manifest(None).media_type, mediatype.DOCKER_MANIFEST)

    def test_what_is_not_there_is_an_error_but_no_missing_image(self) -> None:
        self.refused("expected an index below 1, found 1", ErrorCode.REFERENCE_INVALID, ":@1")
        self.use()
        self.refused("expected an image, found none", ErrorCode.IMAGE_NOT_FOUND)
        (self.layout.path / "index.json").write_bytes(b'{"schemaVersion":2,"manifests":null}')
        self.refused("expected an image, found none", ErrorCode.IMAGE_NOT_FOUND)
        self.refused("no image is named 't'", ErrorCode.IMAGE_NOT_FOUND, ":t")
        (self.layout.path / "index.json").unlink()
        self.refused("index.json: no such file", ErrorCode.SOURCE_UNAVAILABLE, ":t")
        self.refused("no such file", ErrorCode.SOURCE_UNAVAILABLE, "-missing:t")
        self.refused("no such file", ErrorCode.SOURCE_UNAVAILABLE, "/no/such")


class Platforms(LayoutTestCase):
    """skopeo#2463: what would be an index of its own stands in `index.json` itself."""

    def setUp(self) -> None:
        super().setUp()
        self.manifests: dict[str, bytes] = {}
        self.entries = [self.entry(name) for name in ("arm64", "amd64", "unknown")]
        self.entries[2]["annotations"] = {"vnd.docker.reference.type": "attestation-manifest"}
        self.use(*self.entries)

    def entry(self, architecture: str) -> dict[str, object]:
        config = images.CONFIG_C.replace(b"amd64", architecture.encode())
        self.manifests[architecture] = images.manifest(config, [images.LAYER_T])
        self.layout.add_blob(self.manifests[architecture])
        platform = {"architecture": architecture, "os": architecture if architecture == "unknown" else "linux"}
        return images.entry(self.manifests[architecture], platform=platform)

    def chosen(self, rest: str = "", architecture: str = "amd64") -> bytes:
        settings = Settings(platform=PlatformOptions("linux", architecture))
        return self.open(rest, settings=settings).manifest(None).data

    def test_images_that_differ_by_their_platform_are_chosen_from(self) -> None:
        for architecture in ("amd64", "arm64"):
            self.assertEqual(self.chosen("", architecture), self.manifests[architecture])
        with self.assertRaisesRegex(NotFoundError, "index.json: no image .*'s390x'.*; it has linux/arm64") as told:
            self.chosen("", "s390x")
        self.assertIs(told.exception.code, ErrorCode.PLATFORM_NOT_FOUND)

    def test_images_of_one_name_are_chosen_from(self) -> None:
        self.use(*(named(each, "t") for each in self.entries[:2]), named(images.entry(images.MANIFEST_M), "s"))
        self.assertEqual(self.chosen(":t", "arm64"), self.manifests["arm64"])
        self.refused("choose one of 3 images", ErrorCode.REFERENCE_INVALID)

    def test_an_attestation_beside_an_image_is_passed_over(self) -> None:
        self.use(self.entries[2], self.entries[1])
        self.assertEqual(self.chosen("", "s390x"), self.manifests["amd64"])
        del self.entries[2]["platform"]
        self.use(self.entries[2], self.entries[1])
        self.assertEqual(self.chosen("", "s390x"), self.manifests["amd64"])
        self.assertEqual(self.chosen(":@0"), self.manifests["unknown"])

    def test_images_without_a_platform_must_be_chosen_from_by_hand(self) -> None:
        self.use(self.entries[0], images.entry(images.MANIFEST_M))
        self.refused("choose one of 2 images", ErrorCode.REFERENCE_INVALID)


class Manifests(LayoutTestCase):
    def test_a_top_manifest_is_checked_by_the_algorithm_that_names_it(self) -> None:
        digest = self.layout.add_blob(images.MANIFEST_M, algorithm="sha512")
        self.use({**images.entry(images.MANIFEST_M), "digest": str(digest)})
        self.assertEqual(self.open().manifest(None).data, images.MANIFEST_M)
        self.layout.blob_path(digest).write_bytes(images.MANIFEST_M[:-1] + b" ")
        self.refused("expected digest sha512:.*found sha512", ErrorCode.CONTENT_MISMATCH, read=True)

    def test_identity_is_the_resolved_path(self) -> None:
        (self.directory / "link").symlink_to("F1")
        source = open_layout(parse_image_reference(f"oci:{self.directory}/link/../F1:t"), Settings())
        self.addCleanup(source.close)
        self.assertEqual(source.identity.transport, Transport.OCI)
        self.assertEqual(source.identity.identity, str(self.layout.path))
        self.assertEqual(source.identity.scopes[0], str(self.directory))
        self.assertIsNone(source.identity.docker)
        self.assertEqual(source.signatures(images.DIGEST_M, None), ())

    def test_a_changed_top_manifest_is_refused(self) -> None:
        """M28: upstream accepts it."""
        path = self.layout.blob_path(images.DIGEST_M)
        path.write_bytes(images.MANIFEST_M[:-1] + b" ")
        self.refused(f"expected digest {images.DIGEST_M}.*found sha256", ErrorCode.CONTENT_MISMATCH, read=True)
        path.write_bytes(images.MANIFEST_M + b" ")
        self.refused("expected 398 bytes, the source states 399", ErrorCode.CONTENT_MISMATCH, read=True)

    def test_the_manifest_is_read_once(self) -> None:
        source = self.open()
        first = source.manifest(None)
        self.layout.blob_path(images.DIGEST_M).write_bytes(b"changed")
        self.assertEqual(source.manifest(None), first)

    def test_an_instance_has_the_type_that_the_index_file_gives_it(self) -> None:
        top = images.index([images.entry(images.MANIFEST_S, mediatype.DOCKER_MANIFEST)])
        self.layout.add_manifest(top, mediatype.OCI_INDEX, name="i")
        digest = self.layout.add_blob(images.MANIFEST_S)
        self.assertEqual(self.open(":i").manifest(digest).media_type, "")
        self.layout.add_manifest(images.MANIFEST_S, mediatype.DOCKER_MANIFEST)
        instance = self.open(":i").manifest(digest)
        self.assertEqual((instance.data, instance.media_type), (images.MANIFEST_S, mediatype.DOCKER_MANIFEST))

    def test_malformed_index_files_are_refused_with_the_spot(self) -> None:
        good = images.entry(images.MANIFEST_M)
        for case, text, reason in (
            ("not JSON", b"hello", "not valid JSON"),
            ("trailing text", b'{"manifests":[]}x', "extra data"),
            ("an array", b"[]", "expected an object"),
            ("no manifests", b"{}", "expected a member 'manifests'"),
            ("manifests of the wrong kind", b'{"manifests":{}}', "manifests: expected an array"),
            ("duplicate key", b'{"manifests":[],"manifests":[]}', "duplicate key"),
            ("ambiguous key", b'{"manifests":[],"Manifests":[]}', "ambiguous member 'Manifests'"),
            (
                "M35, a digest that climbs",
                _with(good, digest="sha256:../../../../etc/passwd"),
                r"manifests\[0\]\.digest: digest 'sha256:\.\./.*: expected 64",
            ),
            ("an unknown algorithm", _with(good, digest="md5:" + "a" * 32), "algorithm must be one of"),
            ("no size", _with(good, size=None), "size: expected an integer, found null"),
            ("size as text", _with(good, size="398"), "size: expected an integer, found a string"),
            ("ambiguous entry", _with(good, Digest="x"), "ambiguous member 'Digest'"),
            ("too many", images.compact({"manifests": [{}] * 10_001}), "expected at most 10000 elements, found 10001"),
            ("too large", b" " * (MANIFEST_LIMIT + 1), "larger than 4194304 bytes"),
        ):
            with self.subTest(case), self.assertRaisesRegex(CipError, reason):
                (self.layout.path / "index.json").write_bytes(text)
                self.open()

    def test_a_manifest_that_is_too_large_is_refused(self) -> None:
        self.layout.add_manifest(b" " * (MANIFEST_LIMIT + 1), name="large")
        self.refused("larger than 4194304 bytes", ErrorCode.LIMIT_EXCEEDED, ":large", read=True)

    def test_a_missing_manifest_file_is_a_missing_blob(self) -> None:
        self.layout.blob_path(images.DIGEST_M).unlink()
        self.refused("no such file", ErrorCode.BLOB_NOT_FOUND, read=True)


class Blobs(LayoutTestCase):
    def read(self, source: ImageSource, digest: Digest) -> bytes:
        reader = source.open_blob(Descriptor("", digest, 0), BlobAccess.VERIFIED)
        try:
            return read_limited(reader, 1 << 20, "blob")
        finally:
            reader.close()

    def test_blobs_of_every_algorithm_are_read(self) -> None:
        source = self.open()
        self.assertEqual(self.read(source, images.DIGEST_T), images.LAYER_T)
        for algorithm in ("sha384", "sha512"):
            digest = self.layout.add_blob(b"content", algorithm=algorithm)
            self.assertEqual(self.read(source, digest), b"content")

    def test_shared_blobs_replace_the_own_ones(self) -> None:
        """L10."""
        shared = images.Layout(self.directory / "other", blobs=self.directory / "shared")
        shared.add_blob(images.MANIFEST_M)
        settings = Settings(shared_blob_dir=f"{self.directory}/./shared")
        self.assertEqual(self.open(settings=settings).manifest(None).data, images.MANIFEST_M)
        with self.assertRaisesRegex(NotFoundError, "no such file"):
            self.read(self.open(settings=settings), images.DIGEST_T)
        with self.assertRaisesRegex(CipError, "--shared-blob-dir '/no/such': no such file"):
            self.open(settings=Settings(shared_blob_dir="/no/such"))

    def test_nothing_but_a_regular_file_inside_the_layout_is_read(self) -> None:
        outside = self.directory / "outside"
        outside.write_bytes(images.LAYER_T)
        path = self.layout.blob_path(images.DIGEST_T)
        for case, make, reason in (
            ("a link out", lambda: path.symlink_to("../../../outside"), "out of the directory"),
            ("an absolute link", lambda: path.symlink_to(outside), "out of the directory"),
            ("a pipe", lambda: os.mkfifo(path), "not a regular file"),
            ("a directory", path.mkdir, "not a regular file"),
        ):
            steps: Callable[[], object] = make
            with self.subTest(case), self.assertRaisesRegex(CipError, reason) as caught:
                path.unlink()
                steps()
                self.read(self.open(), images.DIGEST_T)
            self.assertIs(caught.exception.code, ErrorCode.SOURCE_UNAVAILABLE)

    def test_links_inside_the_layout_are_followed(self) -> None:
        path = self.layout.blob_path(images.DIGEST_T)
        path.rename(path.with_name("content"))
        path.symlink_to("content")
        self.assertEqual(self.read(self.open(), images.DIGEST_T), images.LAYER_T)

    def test_a_blob_that_shrinks_or_changes_while_it_is_read_is_a_mismatch(self) -> None:
        made = images.big(self.directory / "big")
        self.layout = made.layout
        path = made.layout.blob_path(made.layer.digest)
        for case, damage, reason in (
            ("shorter", lambda: os.truncate(path, 2_000_000), "expected 3000000 bytes, found"),
            ("changed", lambda: path.write_bytes(made.content[:2_000_000] + b"x" * 1_000_000), "expected digest"),
        ):
            path.write_bytes(made.content)
            reader = self.open().open_blob(made.layer, BlobAccess.VERIFIED)
            received = bytearray()

            def write(part: memoryview, received: bytearray = received, damage: Callable[[], object] = damage) -> None:
                if not received:
                    damage()
                received.extend(part)

            with self.subTest(case), self.assertRaisesRegex(ContentMismatchError, reason):
                copy_verified(reader, write, made.layer, release=Release.AFTER_VERIFICATION)
            reader.close()
            self.assertLess(len(received), made.layer.size)

    def test_a_blob_that_grows_is_read_as_long_as_it_was(self) -> None:
        reader = self.open().open_blob(images.describe(images.LAYER_T), BlobAccess.RAW)
        self.addCleanup(reader.close)
        with open(self.layout.blob_path(images.DIGEST_T), "ab") as file:
            file.write(b"more")
        self.assertEqual(read_limited(reader, 1 << 20, "blob"), images.LAYER_T)

    def test_blobs_are_read_side_by_side_and_outlive_the_source(self) -> None:
        made = images.big(self.directory / "big")
        self.layout = made.layout
        source = open_layout(parse_image_reference(f"oci:{made.layout.path}"), Settings())
        readers = [source.open_blob(made.layer, BlobAccess.VERIFIED) for _ in range(4)]
        source.close()
        source.close()
        found: list[Digest] = []

        def run(number: int) -> None:
            found.append(digest_of(read_limited(readers[number], images.BIG_SIZE, "blob")))

        threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(found, [made.layer.digest] * 4)
        for reader in readers:
            reader.close()


def _with(entry: dict[str, object], **members: object) -> bytes:
    return images.compact({"manifests": [{**entry, **members}]})


if __name__ == "__main__":
    unittest.main()

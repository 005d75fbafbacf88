# SPDX-License-Identifier: Apache-2.0
"""`oci-archive:`: members are read in place, compressed archives are unpacked once (images.md 3.4)."""

import bz2
import gzip
import lzma
import os
import resource
import unittest
from unittest import mock

from cip.content import MANIFEST_LIMIT, Release, copy_verified, read_limited
from cip.errors import CipError, ContentMismatchError, ErrorCode, MissingDependencyError, NotFoundError
from cip.model.descriptor import Digest
from cip.model.reference import Transport, parse_image_reference
from cip.programs import DirectPrograms
from cip.settings import PlatformOptions
from cip.sources.archives import compression
from cip.sources.archives.archive import open_oci_archive
from cip.sources.archives.spool import Spools
from cip.sources.base import BlobAccess
from cip.sources.layout import LayoutSource
from cip.temporary import TemporarySpace
from tests.support import images
from tests.support.images import Member
from tests.support.leaks import LeakCheckedTestCase


class ArchiveTestCase(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.directory / "image.tar"
        self.layout = images.f1(self.directory / "F1")
        (self.directory / "tmp").mkdir()
        self.spools = Spools(TemporarySpace(str(self.directory / "tmp"), 1 << 30), DirectPrograms())
        self.write(images.oci_archive(self.layout))

    def write(self, content: bytes) -> None:
        self.path.write_bytes(content)

    def pack(self, **replaced: bytes | Member | None) -> None:
        """Write F1 as an archive with some members replaced; keys are `index`, or digests in hex."""
        members = []
        for path in sorted(path for path in self.layout.path.rglob("*") if path.is_file()):
            name = str(path.relative_to(self.layout.path)).encode()
            key = path.name.removesuffix(".json")
            made = replaced.pop(key, path.read_bytes())
            if made is not None:
                members.append(made if isinstance(made, Member) else Member(name, made))
        members.extend(made for made in replaced.values() if isinstance(made, Member))
        self.write(images.tar(members))

    def open(self, rest: str = "") -> LayoutSource:
        reference = parse_image_reference(f"oci-archive:{self.path}{rest}")
        source = open_oci_archive(reference, self.spools, PlatformOptions())
        self.addCleanup(source.close)
        return source

    def read(self, source: LayoutSource, digest: Digest) -> bytes:
        reader = source.open_blob(images.describe(b"")._replace(digest=digest), BlobAccess.VERIFIED)
        try:
            return read_limited(reader, 1 << 22, "blob")
        finally:
            reader.close()


class Reading(ArchiveTestCase):
    def test_manifest_and_blobs_are_those_of_the_layout(self) -> None:
        for rest in ("", ":t"):
            source = self.open(rest)
            self.assertEqual(source.manifest(None).data, images.MANIFEST_M)
            self.assertEqual(self.read(source, images.DIGEST_T), images.LAYER_T)
            self.assertEqual(self.read(source, images.DIGEST_C), images.CONFIG_C)
            self.assertEqual(
                (source.identity.transport, source.identity.identity, source.identity.scopes[0]),
                (Transport.OCI_ARCHIVE, str(self.path), str(self.directory)),
            )

    def test_an_uncompressed_archive_needs_no_temporary_file(self) -> None:
        """Not even where no file may grow at all."""
        (self.directory / "tmp").rmdir()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            source = self.open()
            self.assertEqual(source.manifest(None).data, images.MANIFEST_M)
            self.assertEqual(self.read(source, images.DIGEST_T), images.LAYER_T)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    def test_readers_outlive_the_source_and_the_file_s_name(self) -> None:
        source = self.open()
        reader = source.open_blob(images.describe(images.LAYER_T), BlobAccess.VERIFIED)
        self.addCleanup(reader.close)
        self.path.unlink()
        source.close()
        source.close()
        self.assertEqual(read_limited(reader, 1 << 20, "blob"), images.LAYER_T)

    def test_an_archive_that_is_cut_while_it_is_read_is_a_mismatch(self) -> None:
        made = images.big(self.directory / "big")
        self.write(images.oci_archive(made.layout))
        reader = self.open().open_blob(made.layer, BlobAccess.VERIFIED)
        self.addCleanup(reader.close)
        os.truncate(self.path, 1_000_000)
        with self.assertRaisesRegex(ContentMismatchError, "expected 3000000 bytes, found"):
            copy_verified(reader, len, made.layer, release=Release.AFTER_VERIFICATION)

    def test_links_are_followed_inside_the_archive_only(self) -> None:
        name = f"blobs/sha256/{images.DIGEST_T.encoded}".encode()
        content = Member(b"content", images.LAYER_T)
        for kind, link in ((b"2", b"../../content"), (b"1", b"content")):
            with self.subTest(kind):
                self.pack(**{images.DIGEST_T.encoded: Member(name, kind=kind, link=link)}, content=content)
                self.assertEqual(self.read(self.open(), images.DIGEST_T), images.LAYER_T)
        for case, link, reason in (
            ("absolute", b"/content", "leads out of the archive"),
            ("above", b"../../../content", "leads out of the archive"),
            ("itself", images.DIGEST_T.encoded.encode(), "a link to the link"),
            ("nothing", b"missing", "no member"),
        ):
            with self.subTest(case), self.assertRaisesRegex(CipError, reason):
                self.pack(**{images.DIGEST_T.encoded: Member(name, kind=b"2", link=link)}, content=content)
                self.read(self.open(), images.DIGEST_T)


class Refusing(ArchiveTestCase):
    def refused(self, reason: str, code: ErrorCode, rest: str = "") -> None:
        with self.assertRaisesRegex(CipError, reason) as caught:
            self.open(rest)
        self.assertIs(caught.exception.code, code)

    def test_only_a_missing_name_is_a_missing_image(self) -> None:
        """wire.md 4.4."""
        self.refused("no image is named 'nope'", ErrorCode.IMAGE_NOT_FOUND, ":nope")
        self.path.unlink()
        self.refused("no such file", ErrorCode.SOURCE_UNAVAILABLE, ":t")

    def test_a_missing_blob_is_told_by_its_digest(self) -> None:
        self.pack(**{images.DIGEST_T.encoded: None})
        with self.assertRaisesRegex(NotFoundError, "no member 'blobs/sha256/43e187") as caught:
            self.read(self.open(), images.DIGEST_T)
        self.assertEqual(
            (caught.exception.code, caught.exception.digest), (ErrorCode.BLOB_NOT_FOUND, str(images.DIGEST_T))
        )

    def test_files_that_are_no_archives_are_refused(self) -> None:
        self.write(b"hello")
        self.refused("byte 0: expected a header", ErrorCode.MANIFEST_INVALID)
        self.write(images.tar([Member(b"other", b"x")]))
        self.refused("no member 'index.json'", ErrorCode.MANIFEST_INVALID)
        self.path.unlink()
        os.mkfifo(self.path)
        self.refused("not a regular file", ErrorCode.SOURCE_UNAVAILABLE)
        self.path.unlink()
        self.path.mkdir()
        self.refused("not a regular file", ErrorCode.SOURCE_UNAVAILABLE)

    def test_an_index_is_never_found_under_a_name_that_attacks(self) -> None:
        for name in (b"/index.json", b"../index.json", b"x/../index.json"):
            with self.subTest(name):
                self.pack(index=None, evil=Member(name, images.compact({"manifests": []})))
                self.refused("no member 'index.json'", ErrorCode.MANIFEST_INVALID)

    def test_two_indexes_are_one_too_many(self) -> None:
        self.pack(second=Member(b"./index.json", images.compact({"manifests": []})))
        self.refused("two members are named 'index.json'", ErrorCode.MANIFEST_INVALID)

    def test_an_index_that_is_too_large_is_refused(self) -> None:
        self.pack(index=b" " * (MANIFEST_LIMIT + 1))
        self.refused("larger than 4194304 bytes", ErrorCode.LIMIT_EXCEEDED)


class Compressed(ArchiveTestCase):
    def test_every_compression_is_undone_into_an_unlinked_file(self) -> None:
        plain = self.path.read_bytes()
        for pack in (gzip.compress, bz2.compress, lzma.compress):
            with self.subTest(pack.__module__):
                self.write(pack(plain))
                source = self.open()
                self.assertEqual(source.manifest(None).data, images.MANIFEST_M)
                self.assertEqual(self.read(source, images.DIGEST_T), images.LAYER_T)
                self.assertEqual(list((self.directory / "tmp").iterdir()), [])

    def test_handles_share_one_temporary_file_until_the_archive_is_another(self) -> None:
        self.write(gzip.compress(self.path.read_bytes()))
        with mock.patch("cip.sources.archives.spool.unpack", wraps=compression.unpack) as unpack:
            first, second = self.open(), self.open()
            first.close()
            self.assertEqual(unpack.call_count, 1)
            self.assertEqual(self.read(second, images.DIGEST_T), images.LAYER_T)
            self.layout = images.f2(self.directory / "F2")
            self.write(gzip.compress(images.oci_archive(self.layout)))
            self.assertEqual(self.open().manifest(None).data, images.MANIFEST_S)
            self.assertEqual(unpack.call_count, 2)

    def test_damage_is_told_and_leaves_nothing_open(self) -> None:
        packed = gzip.compress(self.path.read_bytes())
        no_archive = gzip.compress(b"hello")
        for content, reason in ((packed[:-20], "gzip data ends too early"), (no_archive, "byte 0: expected")):
            self.write(content)
            with self.assertRaisesRegex(CipError, reason):
                self.open()

    def test_without_anything_that_reads_zstd_the_error_says_so(self) -> None:
        self.write(b"\x28\xb5\x2f\xfd" + b"x" * 100)
        with (
            mock.patch("subprocess.Popen", side_effect=FileNotFoundError),
            mock.patch("cip.sources.archives.compression._zstd_library", return_value=None),
            self.assertRaisesRegex(MissingDependencyError, "zstd is not installed: needed to unpack oci-archive:"),
        ):
            self.open()


if __name__ == "__main__":
    unittest.main()

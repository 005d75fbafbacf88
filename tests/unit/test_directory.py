# SPDX-License-Identifier: Apache-2.0
"""`dir:`: its version, manifests and blobs (images.md 3.5)."""

import os
import unittest
from pathlib import Path

from cip.content import MANIFEST_LIMIT, read_limited
from cip.errors import CipError, ErrorCode, NotFoundError
from cip.model.descriptor import Digest, digest_of
from cip.model.reference import Transport, parse_image_reference
from cip.sources.base import BlobAccess
from cip.sources.directory import DirectorySource, open_directory
from tests.support import images
from tests.support.leaks import LeakCheckedTestCase


class DirectoryTestCase(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = images.directory(self.directory / "image", images.MANIFEST_M, [images.CONFIG_C, images.LAYER_T])

    def open(self, path: Path | None = None) -> DirectorySource:
        source = open_directory(parse_image_reference(f"dir:{path or self.path}"))
        self.addCleanup(source.close)
        return source

    def read(self, digest: Digest) -> bytes:
        reader = self.open().open_blob(images.describe(b"")._replace(digest=digest), BlobAccess.VERIFIED)
        try:
            return read_limited(reader, 1 << 20, "blob")
        finally:
            reader.close()

    def refused(self, reason: str, code: ErrorCode = ErrorCode.SOURCE_UNAVAILABLE) -> None:
        with self.assertRaisesRegex(CipError, reason) as caught:
            self.open().manifest(None)
        self.assertIs(caught.exception.code, code)


class Content(DirectoryTestCase):
    def test_manifest_and_blobs_are_read(self) -> None:
        source = self.open()
        raw = source.manifest(None)
        self.assertEqual((raw.data, raw.media_type), (images.MANIFEST_M, ""))
        self.assertEqual(self.read(images.DIGEST_T), images.LAYER_T)
        self.assertEqual(
            (source.identity.transport, source.identity.identity, source.identity.scopes[0]),
            (Transport.DIR, str(self.path), str(self.directory)),
        )

    def test_the_manifest_is_read_once(self) -> None:
        """signatures.md X06."""
        source = self.open()
        first = source.manifest(None)
        (self.path / "manifest.json").write_bytes(b"replaced")
        self.assertEqual(source.manifest(None), first)

    def test_colons_belong_to_the_path(self) -> None:
        """images.md R27."""
        path = images.directory(self.directory / "a:b", images.MANIFEST_S, [])
        self.assertEqual(self.open(path).manifest(None).data, images.MANIFEST_S)

    def test_other_algorithms_stand_in_the_file_names(self) -> None:
        digest = Digest("sha512", "a" * 128)
        (self.path / f"sha512-{'a' * 128}").write_bytes(b"blob")
        (self.path / f"sha512-{'a' * 128}.manifest.json").write_bytes(b"instance")
        self.assertEqual(self.read(digest), b"blob")
        self.assertEqual(self.open().manifest(digest).data, b"instance")

    def test_instances_have_files_of_their_own(self) -> None:
        (self.path / f"{images.DIGEST_S.encoded}.manifest.json").write_bytes(images.MANIFEST_S)
        self.assertEqual(self.open().manifest(images.DIGEST_S).data, images.MANIFEST_S)
        with self.assertRaisesRegex(NotFoundError, "no such file") as caught:
            self.open().manifest(images.DIGEST_M)
        self.assertIs(caught.exception.code, ErrorCode.BLOB_NOT_FOUND)

    def test_versions_up_to_the_newest_known_are_read(self) -> None:
        """images.md M27."""
        for text, reason in (
            (b"Directory Transport Version: 1.0\n", None),
            (b"Directory Transport Version: 1.1\n", None),
            (b"Directory Transport Version: 1.2\n", None),
            (b"Directory Transport Version: 1.3\n", "version: expected at most 1.2, found 1.3"),
            (b"Directory Transport Version: 2.0\n", "version: expected at most 1.2, found 2.0"),
            (b"Directory Transport Version: 1.1", "expected 'Directory Transport Version: MAJOR.MINOR', found"),
            (b"Directory Transport Version: 1.1\n\n", "expected 'Directory"),
            (b"garbage", "found 'garbage'"),
            (b"x" * 2000, "version: larger than 1024 bytes"),
        ):
            with self.subTest(text[:50]):
                (self.path / "version").write_bytes(text)
                if reason is None:
                    self.open()
                else:
                    with self.assertRaisesRegex(CipError, reason):
                        self.open()
        (self.path / "version").unlink()
        self.open()

    def test_missing_and_unusable_files_are_told(self) -> None:
        """wire.md 4.4: a directory without a manifest is an error, and no missing image."""
        (self.path / "manifest.json").unlink()
        self.refused("manifest.json: no such file")
        (self.path / "manifest.json").symlink_to("/etc/passwd")
        self.refused("manifest.json: a link leads out of the directory")
        (self.path / "manifest.json").unlink()
        os.mkfifo(self.path / "manifest.json")
        self.refused("manifest.json: not a regular file")
        (self.path / "manifest.json").unlink()
        (self.path / "manifest.json").write_bytes(b" " * (MANIFEST_LIMIT + 1))
        self.refused("larger than 4194304 bytes", ErrorCode.LIMIT_EXCEEDED)
        with self.assertRaisesRegex(NotFoundError, "no such file"):
            self.read(digest_of(b"missing"))
        with self.assertRaisesRegex(CipError, "no such file"):
            self.open(self.directory / "missing")
        with self.assertRaisesRegex(CipError, "not a directory"):
            self.open(self.path / "version")


if __name__ == "__main__":
    unittest.main()

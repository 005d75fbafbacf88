# SPDX-License-Identifier: Apache-2.0
"""`tarball:`: layers as the files are, a config made up from them (images.md 3.8)."""

import bz2
import gzip
import json
import lzma
import os
import unittest
from pathlib import Path
from unittest import mock

from cip.content import read_limited
from cip.errors import CipError, ErrorCode, NotFoundError
from cip.model import mediatype
from cip.model.descriptor import parse_digest
from cip.model.reference import ImageReference, Transport, parse_image_reference
from cip.programs import DirectPrograms
from cip.sources.archives.spool import Spools
from cip.sources.base import BlobAccess
from cip.sources.tarball import TarballSource, open_tarball
from cip.temporary import TemporarySpace
from tests.support import images
from tests.support.leaks import LeakCheckedTestCase

SECOND = 10**9  # nanoseconds


class Tarball(LeakCheckedTestCase):
    def file(self, name: str, content: bytes, mtime: int = 0) -> Path:
        path = self.directory / name
        path.write_bytes(content)
        os.utime(path, ns=(0, mtime))
        return path

    def open(self, *paths: Path | str) -> TarballSource:
        reference = parse_image_reference("tarball:" + ":".join(map(str, paths)))
        source = open_tarball(reference, Spools(TemporarySpace(str(self.directory), 1 << 30), DirectPrograms()))
        self.addCleanup(source.close)
        return source

    def test_each_file_is_a_layer_of_its_own_type(self) -> None:
        """L6."""
        packed = gzip.compress(images.LAYER_T, mtime=0)
        source = self.open(self.file("a", images.LAYER_T), self.file("b", packed))
        raw = source.manifest(None)
        self.assertEqual(raw.media_type, mediatype.OCI_MANIFEST)
        manifest = json.loads(raw.data)
        found = [(layer["mediaType"], layer["digest"], layer["size"]) for layer in manifest["layers"]]
        self.assertEqual(
            found,
            [
                (mediatype.OCI_LAYER, str(images.DIGEST_T), len(images.LAYER_T)),
                (mediatype.OCI_LAYER + "+gzip", str(images.describe(packed).digest), len(packed)),
            ],
        )
        for content in (images.LAYER_T, packed):
            reader = source.open_blob(images.describe(content), BlobAccess.VERIFIED)
            self.assertEqual(read_limited(reader, 1 << 20, "blob"), content)
            reader.close()

    def test_the_config_is_written_as_other_tools_write_it(self) -> None:
        """The digest skopeo 1.9.3 gives to these two files on amd64."""
        machine = os.uname_result(("Linux", "host", "6", "1", "x86_64"))
        with mock.patch("os.uname", return_value=machine):
            source = self.open(
                self.file("a", images.LAYER_T, 1_500_000_000_123456789),
                self.file("b", gzip.compress(images.LAYER_T, mtime=0), 1_600_000_000 * SECOND),
            )
        manifest = json.loads(source.manifest(None).data)
        digest = images.describe(b"")._replace(digest=parse_digest(manifest["config"]["digest"]))
        config = read_limited(source.open_blob(digest, BlobAccess.VERIFIED), 1000, "config")
        self.assertEqual((manifest["config"]["size"], len(config)), (654, 654))
        self.assertEqual(digest.digest.encoded, "c91f4d6c7672c9c6de28e9ad4bebe60d455cca72b74b1762c5196ea73449221e")

    def test_times_that_cannot_be_written_are_the_nearest_that_can(self) -> None:
        for mtime, created in (
            (-SECOND, "1970-01-01T00:00:00Z"),
            (1_500_000_000 * SECOND + 500_000_000, "2017-07-14T02:40:00.5Z"),
            (253402300800 * SECOND, "9999-12-31T23:59:59Z"),
        ):
            try:
                path = self.file("a", images.LAYER_T, mtime)
            except OSError:
                continue  # a file system with a shorter calendar
            if os.stat(path).st_mtime_ns == mtime:
                config = self.open(path)._config
                self.assertEqual(json.loads(config)["created"], created)

    def test_compressions_without_a_layer_type_are_refused(self) -> None:
        """Upstream calls them gzip."""
        for pack, name in ((bz2.compress, "bzip2"), (lzma.compress, "xz")):
            reason = f"expected a plain, gzip or zstd layer, found {name}"
            with self.subTest(name), self.assertRaisesRegex(CipError, reason) as caught:
                self.open(self.file("a", pack(images.LAYER_T)))
            self.assertIs(caught.exception.code, ErrorCode.MEDIA_TYPE_UNSUPPORTED)

    def test_what_cannot_be_read_is_refused(self) -> None:
        good = self.file("good", images.LAYER_T)
        os.mkfifo(self.directory / "pipe")
        for case, paths, reason in (
            ("standard input", ["-"], "standard input is not an archive here"),
            ("standard input among others", [good, "-"], "standard input"),
            ("missing", [good, self.directory / "missing"], "missing': no such file"),
            ("empty name", [good, ""], "'': not a regular file"),
            ("pipe", [self.directory / "pipe"], "not a regular file"),
            ("damaged", [self.file("damaged", gzip.compress(images.LAYER_T)[:-9])], "gzip data ends too early"),
            ("too many", [good] * 1001, "more than 1000 files"),
        ):
            with self.subTest(case), self.assertRaisesRegex(CipError, f"tarball:.*{reason}"):
                self.open(*paths)

    def test_text_that_the_file_system_cannot_spell_is_refused(self) -> None:
        reference = ImageReference(Transport.TARBALL, "tarball:x", path="\ud800")
        with self.assertRaisesRegex(CipError, "no form in the file system's encoding"):
            open_tarball(reference, Spools(TemporarySpace(str(self.directory), 1 << 30), DirectPrograms()))

    def test_nothing_else_is_served(self) -> None:
        source = self.open(self.file("a", images.LAYER_T))
        self.assertEqual(source.signatures(images.DIGEST_T, None), ())
        for act in (
            lambda: source.manifest(images.DIGEST_M),
            lambda: source.open_blob(images.describe(b"other"), BlobAccess.VERIFIED),
        ):
            with self.assertRaisesRegex(NotFoundError, "no (manifest|blob) sha256"):
                act()

    def test_a_file_that_grew_is_served_as_it_was(self) -> None:
        path = self.file("a", images.LAYER_T)
        source = self.open(path)
        with open(path, "ab") as file:
            file.write(b"more")
        reader = source.open_blob(images.describe(images.LAYER_T), BlobAccess.VERIFIED)
        self.addCleanup(reader.close)
        self.assertEqual(read_limited(reader, 1 << 20, "blob"), images.LAYER_T)


if __name__ == "__main__":
    unittest.main()

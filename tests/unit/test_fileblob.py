# SPDX-License-Identifier: Apache-2.0
"""A range of a file is read to its end and no further, and never after it was closed."""

import os
import unittest

from cip.content import Release, copy_verified, read_limited
from cip.errors import ContentMismatchError, ErrorCode, InvalidDocumentError, NotFoundError, SourceError, refused
from cip.model.descriptor import Descriptor, digest_of
from cip.sources.files import FileBlob, read_document, whole_file
from tests.support.leaks import LeakCheckedTestCase


class Ranges(LeakCheckedTestCase):
    def descriptor(self, content: bytes) -> int:
        path = self.directory / "file"
        path.write_bytes(content)
        return os.open(path, os.O_RDONLY)

    def test_a_range_ends_where_it_was_said_to_end(self) -> None:
        blob = FileBlob(self.descriptor(b"0123456789"), 2, 5, "blob")
        self.addCleanup(blob.close)
        self.assertEqual(blob.size, 5)
        buffer = bytearray(4)
        counts = [blob.readinto(memoryview(buffer)) for _ in range(3)]
        self.assertEqual((counts, bytes(buffer)), ([4, 1, 0], b"6345"))

    def test_descriptors_of_one_open_file_are_read_side_by_side(self) -> None:
        descriptor = self.descriptor(b"0123456789")
        blobs = [FileBlob(os.dup(descriptor), start, 2, "blob") for start in (0, 4, 8)]
        os.close(descriptor)
        self.assertEqual([read_limited(blob, 10, "blob") for blob in blobs], [b"01", b"45", b"89"])
        for blob in blobs:
            blob.close()

    def test_a_file_cut_short_ends_early(self) -> None:
        blob = FileBlob(self.descriptor(b"0123456789"), 4, 10, "blob")
        self.addCleanup(blob.close)
        self.assertEqual(read_limited(blob, 100, "blob"), b"456789")

    def test_the_file_is_named_when_its_bytes_were_wrong(self) -> None:
        blob = FileBlob(self.descriptor(b"wrong"), 0, 5, "dir:/media/stick: blob")
        self.addCleanup(blob.close)
        expected = Descriptor("", digest_of(b"right"), 5)
        with self.assertRaisesRegex(ContentMismatchError, r"served by dir:/media/stick: blob\)"):
            copy_verified(blob, lambda part: None, expected, release=Release.AS_READ)

    def test_a_closed_blob_reads_nothing_from_the_file_that_got_its_number(self) -> None:
        blob = whole_file(self.descriptor(b"0123456789"), "blob x")
        blob.close()
        blob.close()
        other = self.descriptor(b"secret")
        self.addCleanup(os.close, other)
        with self.assertRaisesRegex(SourceError, "blob x: closed while it was read"):
            blob.readinto(memoryview(bytearray(4)))

    def test_a_failing_read_is_told_with_its_reason(self) -> None:
        blob = FileBlob(os.open(self.directory, os.O_RDONLY), 0, 10, "blob x")
        self.addCleanup(blob.close)
        with self.assertRaisesRegex(SourceError, "blob x: is a directory"):
            blob.readinto(memoryview(bytearray(4)))

    def test_documents_are_bounded(self) -> None:
        self.assertEqual(read_document(self.descriptor(b"0123456789"), "document", 10), b"0123456789")
        with self.assertRaisesRegex(InvalidDocumentError, "document: larger than 9 bytes"):
            read_document(self.descriptor(b"0123456789"), "document", 9)

    def test_only_a_missing_file_is_missing(self) -> None:
        absent = FileNotFoundError(2, "No such file")
        for fault, missing, expected in (
            (absent, ErrorCode.BLOB_NOT_FOUND, NotFoundError("blob x: no such file", code=ErrorCode.BLOB_NOT_FOUND)),
            (PermissionError(13, "Denied"), ErrorCode.BLOB_NOT_FOUND, SourceError("blob x: denied")),
            (absent, None, SourceError("blob x: no such file")),
        ):
            with self.assertRaises(type(expected)) as found, refused("blob x", missing):
                raise fault
            self.assertEqual((str(expected), expected.code), (str(found.exception), found.exception.code))


if __name__ == "__main__":
    unittest.main()

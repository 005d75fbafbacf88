# SPDX-License-Identifier: Apache-2.0
"""The fixtures have fixed digests: those of wire.md section 13, whose C, M and S lack the `config` that Go writes."""

import io
import tarfile
import tempfile
import unittest
from pathlib import Path

from cip.model.descriptor import digest_of
from tests.support import images


class Fixtures(unittest.TestCase):
    def test_named_bytes_have_fixed_lengths_and_digests(self) -> None:
        for name, data, size, digest in (
            ("T", images.LAYER_T, 10240, "43e187d5c631ab657995188c3abcaaadd06afc86578efc8dd1cd50c62dbbd58a"),
            ("C", images.CONFIG_C, 163, "1b005b144aa143d94405de8cecc4a0dff92a493bacc298abeb9ba6b08fcc0890"),
            ("M", images.MANIFEST_M, 398, "571a5f437a1022316ebe6d10cc8a7cded9e0c258658945334b5c646a288abf12"),
            ("S", images.MANIFEST_S, 420, "d0253095eaea892a04c71a530bc6d1fe2d217728f70b945d6649b1b76c9663e8"),
        ):
            with self.subTest(name):
                self.assertEqual((len(data), digest_of(data).encoded), (size, digest))

    def test_archives_are_read_by_the_standard_library(self) -> None:
        long_name = b"a" * 90 + b"/" + b"b" * 90
        made = images.tar(
            [
                images.Member(long_name, b"content"),
                images.Member(b"d", kind=b"5"),
                images.Member(b"s", kind=b"2", link=b"d/target"),
            ]
        )
        with tarfile.open(fileobj=io.BytesIO(made)) as archive:
            first, second, third = archive.getmembers()
            content = archive.extractfile(first)
            assert content is not None
            self.assertEqual((first.name.encode(), content.read()), (long_name, b"content"))
            self.assertTrue(second.isdir())
            self.assertEqual((third.issym(), third.linkname), (True, "d/target"))

    def test_the_bad_layout_differs_from_its_description_in_one_bit(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            made = images.bad(Path(directory) / "bad", size=100)
            found = made.layout.blob_path(made.layer.digest).read_bytes()
        self.assertEqual(digest_of(made.content), made.layer.digest)
        self.assertEqual(len(found), made.layer.size)
        self.assertEqual(sum((a ^ b).bit_count() for a, b in zip(found, made.content, strict=True)), 1)


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""Local images that are very much longer inside than outside: they end at a limit of ours, whoever made them."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import subprocess
import tarfile
import time
import unittest
import zlib

from cip.model.descriptor import digest_of
from cip.sources.archives.tarindex import EXTENSION_LIMIT
from tests.support import images
from tests.support.leaks import LeakCheckedTestCase
from tests.support.parent import running
from tests.support.peers import require_peer

ACCEPT = "--insecure-policy"
LENGTH = 4 << 30  # bytes of zeros inside; more than a machine unpacks in the seconds of these tests


def zeros(length: int) -> bytes:
    """A gzip file of so many zeros, made of one piece that repeats itself: 4 MiB for 4 GiB."""
    piece = 64 << 20
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    one = packer.compress(bytes(piece)) + packer.flush()
    return one * (length // piece)


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


class LongInside(LeakCheckedTestCase):
    long: bytes

    @classmethod
    def setUpClass(cls) -> None:
        cls.long = zeros(LENGTH)

    def refused(self, reference: str, *options: str) -> dict[str, object]:
        """The problem document of a request for the manifest, which must come soon."""
        with running(ACCEPT, f"--tmpdir={self.directory}", *options, reference) as proxy:
            began = time.monotonic()
            problem = proxy.line.ask("GET", "/manifest").problem()
            self.assertLess(time.monotonic() - began, 10)
        return problem

    def test_an_archive_ends_at_the_time_and_at_the_limit_for_temporary_files(self) -> None:
        path = self.directory / "image.tar.gz"
        path.write_bytes(self.long)
        problem = self.refused(f"oci-archive:{path}:t", "--tmp-limit=10M")
        self.assertEqual((problem["type"], problem["status"]), ("limit-exceeded", 502))
        self.assertIn("--tmp-limit", str(problem["detail"]))
        for option in ("--open-timeout=1", "--deadline=1"):
            problem = self.refused(f"oci-archive:{path}:t", option)
            self.assertEqual((problem["type"], problem["status"]), ("timeout", 504))
            self.assertIn("--open-timeout", str(problem["detail"]))

    def test_a_layer_inside_an_archive_ends_at_the_time(self) -> None:
        config = images.config([digest_of(b"x")])
        description = [{"Config": "c.json", "RepoTags": None, "Layers": ["l.tar"]}]
        path = self.directory / "image.tar"
        with tarfile.open(path, "w") as archive:
            for name, data in (("manifest.json", json.dumps(description).encode()), ("c.json", config)):
                add(archive, name, data)
            add(archive, "l.tar", self.long)
        self.assertEqual(self.refused(f"docker-archive:{path}", "--open-timeout=1")["type"], "timeout")

    def test_a_policy_that_comes_through_a_pipe_ends_at_the_time(self) -> None:
        path = self.directory / "policy.json"
        os.mkfifo(path)
        writer = os.open(path, os.O_RDWR)
        self.addCleanup(os.close, writer)
        for reference in ("docker://localhost:9/a:1", f"dir:{self.directory}"):  # the first is dialled early
            with running(f"--policy={path}", "--open-timeout=1", reference) as proxy:
                began = time.monotonic()
                problem = proxy.line.ask("GET", "/manifest").problem()
                self.assertLess(time.monotonic() - began, 10)
            self.assertEqual((problem["type"], problem["status"]), ("timeout", 504))

    def test_an_archive_that_says_nothing_for_long_ends_at_the_time(self) -> None:
        frame = (4 << 30) - 512  # bytes that zstd passes over without a word
        skipped = self.directory / "skipped.tar.zst"
        packed = subprocess.run([require_peer("zstd"), "-q", "-c"], input=b"x", stdout=subprocess.PIPE, check=True)
        with open(skipped, "wb") as file:
            file.write(packed.stdout)
            for _ in range(64):
                file.write(struct.pack("<II", 0x184D2A50, frame))
                file.seek(frame, os.SEEK_CUR)
            file.truncate(file.tell())
        padded = self.directory / "padded.tar.gz"
        padded.write_bytes(gzip.compress(b"x"))
        os.truncate(padded, 256 << 30)
        headers = self.directory / "headers.tar"
        records = b"6 a=b\n" * (EXTENSION_LIMIT // 6)
        header, member = tarfile.TarInfo("h"), tarfile.TarInfo("m").tobuf(tarfile.USTAR_FORMAT)
        header.type, header.size = tarfile.XHDTYPE, len(records)
        extension = header.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512)
        with open(headers, "wb") as file:
            for _ in range(20):
                file.write(extension * 15 + member)
            file.write(bytes(1024))
        twice = self.directory / "twice.tar"
        with open(twice, "wb") as file:
            large = tarfile.TarInfo("index.json")
            large.size = 128 << 30
            for _ in range(2):
                file.write(large.tobuf(tarfile.GNU_FORMAT))
                file.seek(large.size, os.SEEK_CUR)
            file.truncate(file.tell())
        for path in (skipped, padded, headers, twice):
            with self.subTest(path.name):
                self.assertEqual(self.refused(f"oci-archive:{path}:t", "--open-timeout=1")["type"], "timeout")

    def test_a_tarball_ends_at_the_time(self) -> None:
        path = self.directory / "layer.tar.gz"
        path.write_bytes(self.long)
        self.assertEqual(self.refused(f"tarball:{path}", "--open-timeout=1")["type"], "timeout")

    def test_what_is_within_the_limits_is_served(self) -> None:
        layout = self.directory / "layout"
        images.f1(layout)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.add(layout, "")
        path = self.directory / "image.tar.gz"
        path.write_bytes(gzip.compress(buffer.getvalue()))
        with running(ACCEPT, "--tmp-limit=1M", "--deadline=60", f"oci-archive:{path}:t") as proxy:
            self.assertEqual(proxy.line.ask("GET", "/manifest").body, images.MANIFEST_M)
            self.assertEqual(proxy.line.ask("GET", f"/blobs/{images.DIGEST_T}").body, images.LAYER_T)


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""Compressed content is recognised and undone in bounded memory; damage is told as damage (images.md section 10)."""

import bz2
import gzip
import lzma
import os
import sys
import types
import unittest
from collections.abc import Mapping
from unittest import mock

from cip.content import BytesReader, timed
from cip.errors import CipError, ErrorCode, InvalidDocumentError, MissingDependencyError, SourceError
from cip.programs import GpgvResult, ProgramResult
from cip.sources.archives.compression import (
    SHORT,
    SHORT_LIMIT,
    Compression,
    DecompressingReader,
    detect_compression,
    streams,
    unpack,
)
from cip.temporary import TemporaryFile, TemporarySpace
from tests.support import images
from tests.support.leaks import LeakCheckedTestCase

CONTENT = images.random_bytes(150_000, b"compression") + bytes(500_000)
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
PACKED = {
    Compression.GZIP: gzip.compress(CONTENT),
    Compression.BZIP2: bz2.compress(CONTENT),
    Compression.XZ: lzma.compress(CONTENT, preset=1),
}


def _read(data: bytes, compression: Compression, chunk: int) -> bytes:
    reader = DecompressingReader(_Chunks(data, chunk), compression, "file")
    out = bytearray()
    buffer = bytearray(100_000)
    while count := reader.readinto(memoryview(buffer)):
        out += buffer[:count]
    return bytes(out)


class _Chunks(BytesReader):
    """Gives at most `chunk` bytes at once."""

    def __init__(self, data: bytes, chunk: int) -> None:
        super().__init__(data)
        self._chunk = chunk

    def readinto(self, buffer: memoryview, /) -> int:
        return super().readinto(buffer[: self._chunk])


class Detection(unittest.TestCase):
    def test_magic_numbers_are_recognised(self) -> None:
        for head, found in (
            (b"\x1f\x8b\x08\0\0\0\0\0", Compression.GZIP),
            (b"BZh91AY&", Compression.BZIP2),
            (b"\xfd7zXZ\0\0\4", Compression.XZ),
            (ZSTD_MAGIC + b"abcd", Compression.ZSTD),
            (b"\x1f\x8b", None),
            (b"\x1f\x8b\x07\0\0\0\0\0", None),
            (b"\x50\x2a\x4d\x18\0\0\0\0", None),  # a skippable frame, as upstream
            (b"ustar", None),
            (b"", None),
        ):
            with self.subTest(head):
                self.assertEqual(detect_compression(head), found)
        for compression, data in PACKED.items():
            self.assertIs(detect_compression(data[:8]), compression)


class Streaming(unittest.TestCase):
    def test_content_comes_out_as_it_went_in(self) -> None:
        for compression, data in PACKED.items():
            for chunk in (1 << 20, 7919):
                with self.subTest(compression, chunk=chunk):
                    self.assertEqual(_read(data, compression, chunk), CONTENT)

    def test_streams_in_a_row_are_one_and_zeros_are_padding(self) -> None:
        for compression, pack in (
            (Compression.GZIP, gzip.compress),
            (Compression.BZIP2, bz2.compress),
            (Compression.XZ, lzma.compress),
        ):
            data = pack(b"one ") + bytes(8) + pack(b"") + pack(b"two") + bytes(4096)
            for chunk in (1 << 20, 1, 5):
                with self.subTest(compression, chunk=chunk):
                    self.assertEqual(_read(data, compression, chunk), b"one two")

    def test_damage_is_told(self) -> None:
        for compression, data in PACKED.items():
            flipped = bytearray(data)
            flipped[len(data) // 2] ^= 0x55
            for case, broken, reason in (
                ("cut", data[:-5], "data ends too early"),
                ("flipped", bytes(flipped), "damaged|ends too early"),
                ("garbage behind", data + b"garbage", "damaged|ends too early"),
                ("magic alone", data[:6], "ends too early"),
            ):
                with self.subTest(compression, case=case):
                    with self.assertRaisesRegex(InvalidDocumentError, f"^file: .*({reason})"):
                        _read(broken, compression, 1 << 20)

    def test_a_dictionary_beyond_the_memory_limit_is_refused(self) -> None:
        huge = lzma.compress(
            b"x", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30, "mode": lzma.MODE_FAST, "mf": lzma.MF_HC3}]
        )
        with self.assertRaisesRegex(InvalidDocumentError, "[Mm]emory usage limit"):
            _read(huge, Compression.XZ, 1 << 20)

    def test_streams_that_bring_nothing_or_little_end(self) -> None:
        """Each costs time, and a file of an archive may consist of billions of them."""
        for compression, pack in (
            (Compression.GZIP, gzip.compress),
            (Compression.BZIP2, bz2.compress),
            (Compression.XZ, lzma.compress),
        ):
            with self.subTest(compression):
                packed = (pack(b"") * SHORT_LIMIT + PACKED[compression]) * 2
                self.assertEqual(_read(packed, compression, 1 << 20), CONTENT * 2)
                long = pack(bytes(SHORT)) * (2 * SHORT_LIMIT)
                self.assertEqual(_read(long, compression, 1 << 20), bytes(SHORT) * (2 * SHORT_LIMIT))
                for little in (b"", bytes(SHORT // 2)):
                    with self.assertRaisesRegex(InvalidDocumentError, "streams of fewer than 64 bytes") as caught:
                        _read(pack(little) * (2 * SHORT_LIMIT + 2), compression, 1 << 20)
                    self.assertIs(caught.exception.code, ErrorCode.LIMIT_EXCEEDED)

    def test_an_empty_buffer_is_no_reason_to_unpack_everything(self) -> None:
        reader = DecompressingReader(BytesReader(PACKED[Compression.GZIP]), Compression.GZIP, "file")
        self.assertEqual(reader.readinto(memoryview(bytearray(0))), 0)
        self.assertGreater(reader.readinto(memoryview(bytearray(1))), 0)


class _ZstdProgram:
    """Stands for the zstd program: strips the magic and copies the rest, as a child would through the descriptors."""

    def __init__(self, *, status: int = 0, reads: bool = True, missing: bool = False) -> None:
        self._status = status
        self._reads = reads
        self._missing = missing
        self.seconds = 0.0

    def decompress(self, source: int, output: int, seconds: float, *, purpose: str) -> int:
        if self._missing:
            raise MissingDependencyError("zstd", purpose)
        self.seconds = seconds
        with open(os.dup(source), "rb") as packed, open(os.dup(output), "wb") as file:
            if self._reads:
                file.write(packed.read().removeprefix(ZSTD_MAGIC))
        return self._status

    def verify(self, keyring: bytes, message: bytes) -> GpgvResult:
        raise AssertionError("gpgv unpacks nothing")

    def credentials(self, helper: str, registry: str, *, purpose: str) -> ProgramResult:
        raise AssertionError("a credential helper unpacks nothing")


@unittest.skipIf(streams(Compression.ZSTD), "this Python reads zstd itself")
class ZstdByProgram(LeakCheckedTestCase):
    def unpack(self, programs: _ZstdProgram, source: BytesReader | None = None) -> bytes:
        file = TemporarySpace(str(self.directory), 1 << 30).make()
        try:
            unpack(source or BytesReader(ZSTD_MAGIC + CONTENT), Compression.ZSTD, file, "file", programs)
            return os.pread(file.descriptor, 1 << 24, 0)
        finally:
            file.close()

    def test_content_goes_through_the_program(self) -> None:
        program = _ZstdProgram()
        self.assertEqual(self.unpack(program), CONTENT)
        self.assertGreater(program.seconds, 0)

    def test_failures_of_the_program_are_told(self) -> None:
        with self.assertRaisesRegex(InvalidDocumentError, "file: .*zstd ended with status 1"):
            self.unpack(_ZstdProgram(status=1))
        with self.assertRaisesRegex(InvalidDocumentError, "status 1"):
            self.unpack(_ZstdProgram(status=1, reads=False))
        with self.assertRaisesRegex(MissingDependencyError, "zstd is not installed: needed to unpack file"):
            self.unpack(_ZstdProgram(missing=True))

    def test_a_source_that_fails_is_what_is_told(self) -> None:
        class Failing(BytesReader):
            def readinto(self, buffer: memoryview, /) -> int:
                raise SourceError("disk on fire")

        with self.assertRaisesRegex(CipError, "disk on fire"):
            self.unpack(_ZstdProgram(), Failing(b""))


class ZstdByLibrary(unittest.TestCase):
    """`compression.zstd` of Python 3.14, here a stand-in with the same interface."""

    def test_the_library_is_used_where_it_is(self) -> None:
        class Decompressor:
            def __init__(self, options: Mapping[str, int]) -> None:
                assert options == {"window": 27}, options
                self.eof = False
                self.needs_input = True
                self.unused_data = b""

            def decompress(self, data: bytes, max_length: int) -> bytes:
                self.eof, self.needs_input = True, False
                frame, _, self.unused_data = data.removeprefix(ZSTD_MAGIC).partition(b"|")
                if not data.startswith(ZSTD_MAGIC):
                    raise library.ZstdError("bad frame")
                return frame

        library = types.ModuleType("compression.zstd")
        library.ZstdDecompressor = Decompressor  # type: ignore[attr-defined]
        library.DecompressionParameter = types.SimpleNamespace(window_log_max="window")  # type: ignore[attr-defined]
        library.ZstdError = type("ZstdError", (Exception,), {})  # type: ignore[attr-defined]
        modules = {"compression": types.ModuleType("compression"), "compression.zstd": library}
        with mock.patch.dict(sys.modules, modules):
            self.assertTrue(streams(Compression.ZSTD))
            data = ZSTD_MAGIC + b"one|" + ZSTD_MAGIC + b"two"
            self.assertEqual(_read(data, Compression.ZSTD, 1 << 20), b"onetwo")
            with self.assertRaisesRegex(InvalidDocumentError, "damaged zstd data: bad frame"):
                _read(data + b"|garbage", Compression.ZSTD, 1 << 20)


class Unpacking(LeakCheckedTestCase):
    def test_content_is_written_to_the_file(self) -> None:
        file = TemporarySpace(str(self.directory), 1 << 30).make()
        self.addCleanup(file.close)
        unpack(BytesReader(PACKED[Compression.XZ]), Compression.XZ, file, "file", _ZstdProgram())
        self.assertEqual(os.pread(file.descriptor, 1 << 24, 0), CONTENT)

    def test_a_short_file_that_is_very_long_inside_ends_at_a_limit(self) -> None:
        bomb = BytesReader(gzip.compress(bytes(8 << 20)))
        file = TemporarySpace(str(self.directory), 1 << 20).make()
        self.addCleanup(file.close)
        with self.assertRaisesRegex(SourceError, r"temporary files \(--tmp-limit\)") as caught:
            unpack(bomb, Compression.GZIP, file, "file", _ZstdProgram())
        self.assertIs(caught.exception.code, ErrorCode.LIMIT_EXCEEDED)
        self.assertLessEqual(os.fstat(file.descriptor).st_size, 1 << 20)

    def test_the_time_is_looked_at_while_something_is_unpacked(self) -> None:
        looks = iter(range(1000))

        def require() -> float:
            if next(looks) >= 3:
                raise SourceError("it takes too long", code=ErrorCode.TIMEOUT)
            return 1.0

        reader = DecompressingReader(BytesReader(gzip.compress(bytes(8 << 20))), Compression.GZIP, "file")
        with self.assertRaisesRegex(SourceError, "too long"), timed(require):
            while reader.readinto(memoryview(bytearray(1000))):
                continue

    def test_a_full_disk_is_told(self) -> None:
        full = TemporaryFile(os.open("/dev/full", os.O_WRONLY), TemporarySpace("", 1 << 30))
        self.addCleanup(full.close)
        with self.assertRaisesRegex(SourceError, "the temporary file below --tmpdir: no space left") as caught:
            unpack(BytesReader(PACKED[Compression.GZIP]), Compression.GZIP, full, "file", _ZstdProgram())
        self.assertIs(caught.exception.code, ErrorCode.STORAGE_FULL)


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""Kept parts of blobs: what counts, what is never used, and that nothing here fails a transfer."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path
from unittest import mock

from cip import log
from cip.content import BlobAccess, BlobReader, BytesReader, Release, copy_verified
from cip.errors import ContentMismatchError, NetworkError, SourceError
from cip.model.descriptor import UNKNOWN_SIZE, Descriptor, Digest, digest_of
from cip.partial import store as partial
from cip.partial.blob import PartialBlob
from cip.partial.part import _HEAD, BLOCK
from cip.partial.store import AGE_LIMIT, MINIMUM, PartStore, open_part_store
from tests.support import images
from tests.support.leaks import LeakCheckedTestCase

CONTENT = images.random_bytes(6 * BLOCK + 1234, b"partial")
DESCRIPTOR = Descriptor("layer", digest_of(CONTENT), len(CONTENT))
OTHER = images.random_bytes(5 * BLOCK, b"other")


class CutOff(NetworkError):
    """The source that breaks."""


class Rest(BytesReader):
    """What a source sends from `offset` on; breaks after `until`."""

    def __init__(self, offset: int, until: int | None = None, content: bytes = CONTENT) -> None:
        super().__init__(content[offset:until])
        self.breaks = until is not None
        self.restarted = self.closed = False

    def readinto(self, buffer: memoryview, /) -> int:
        if self.closed:
            raise NetworkError("closed")
        count = super().readinto(buffer[:70_001])
        if not count and self.breaks:
            raise CutOff("it broke")
        return count

    def blame(self, error: ContentMismatchError) -> ContentMismatchError:
        return error.served_by("host.x")

    def restart(self, error: ContentMismatchError) -> bool:
        self.restarted = True
        return False

    def close(self) -> None:
        self.closed = True


class Source:
    """A source that remembers where it was asked to begin."""

    def __init__(self, content: bytes = CONTENT, until: int | None = None) -> None:
        self.content = content
        self.until = until
        self.offsets: list[int] = []
        self.readers: list[Rest] = []

    def open_rest(self, offset: int) -> BlobReader:
        self.offsets.append(offset)
        self.readers.append(Rest(offset, self.until, self.content))
        return self.readers[-1]


class PartialCase(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.directory / "parts"
        self.warnings: list[str] = []
        patch = mock.patch.object(log, "warning", lambda text, *arguments: self.warnings.append(text % arguments))
        patch.start()
        self.addCleanup(patch.stop)

    def store(self, limit: int = 0, *, minimum: int = MINIMUM) -> PartStore:
        store = PartStore(str(self.path), limit, minimum=minimum)
        self.addCleanup(store.close)
        return store

    def part_file(self, suffix: str = "part", digest: Digest = DESCRIPTOR.digest) -> Path:
        return self.path / f"{digest.algorithm}-{digest.encoded}.{suffix}"

    def read(
        self,
        source: Source,
        store: PartStore | None = None,
        access: BlobAccess = BlobAccess.VERIFIED,
        expected: Descriptor = DESCRIPTOR,
    ) -> bytes:
        """All of a blob as a process would read it, whatever ends it."""
        reader = (store or self.store()).open_blob(expected, access, source.open_rest)
        data = bytearray()
        try:
            if access is BlobAccess.VERIFIED:
                copy_verified(reader, data.extend, expected, release=Release.AS_READ)
            else:
                buffer = memoryview(bytearray(300_000))
                while count := reader.readinto(buffer):
                    data += buffer[:count]
        except CutOff:
            pass
        finally:
            reader.close()
        return bytes(data)


class Continued(PartialCase):
    def test_what_arrived_is_not_fetched_again(self) -> None:
        first = Source(until=3 * BLOCK + 99)
        self.assertEqual(self.read(first), CONTENT[: 3 * BLOCK + 99])
        second = Source()
        self.assertEqual(self.read(second), CONTENT)
        self.assertEqual((first.offsets, second.offsets), ([0], [3 * BLOCK]))

    def test_a_complete_part_asks_nobody(self) -> None:
        for access in BlobAccess:
            self.read(Source(), access=access)
            again = Source()
            self.assertEqual(self.read(again, access=access), CONTENT)
            self.assertEqual(again.offsets, [])

    def test_every_place_to_break_off_costs_less_than_a_block(self) -> None:
        for position in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, 6 * BLOCK, len(CONTENT) - 1, len(CONTENT)):
            with self.subTest(position):
                self.read(Source(until=position))
                rest = Source()
                self.assertEqual(self.read(rest), CONTENT)
                again = rest.offsets[0] if rest.offsets else len(CONTENT)
                self.assertTrue(0 <= position - again < BLOCK, again)
                self.part_file().unlink()

    def test_data_without_its_sum_and_a_sum_without_its_data_do_not_count(self) -> None:
        self.read(Source(until=4 * BLOCK))
        with self.part_file().open("ab") as file:
            file.write(b"x" * 500)
        source = Source(until=4 * BLOCK)
        self.read(source)
        self.assertEqual(source.offsets, [4 * BLOCK])
        os.truncate(self.part_file(), 2 * BLOCK + 5)
        source = Source()
        self.assertEqual(self.read(source), CONTENT)
        self.assertEqual(source.offsets, [2 * BLOCK])

    def test_the_first_block_that_differs_cuts_the_part(self) -> None:
        self.read(Source())
        with self.part_file().open("r+b") as file:
            file.seek(2 * BLOCK + 17)
            file.write(b"????")
        source = Source(until=3 * BLOCK)
        self.assertEqual(self.read(source), CONTENT[: 3 * BLOCK])
        self.assertEqual(source.offsets, [2 * BLOCK])
        self.assertIn("damaged", self.warnings[0])
        source = Source()
        self.assertEqual(self.read(source), CONTENT)
        self.assertEqual(source.offsets, [3 * BLOCK])

    def test_small_and_sizeless_blobs_are_not_kept(self) -> None:
        for size in (MINIMUM - 1, UNKNOWN_SIZE):
            self.assertIsNone(self.store().open(DESCRIPTOR._replace(size=size)))
        self.assertEqual(list(self.path.iterdir()), [])

    def test_an_empty_blob_has_a_part_without_bytes(self) -> None:
        part = self.store(minimum=0).open(Descriptor("", digest_of(b""), 0))
        assert part is not None
        self.assertEqual((part.length, part.fault), (0, None))
        part.close()


class Wrong(PartialCase):
    def forge(self) -> None:
        """A part that is as wrong as its sums."""
        bad = bytes(BLOCK)
        self.read(Source(content=bad + CONTENT[BLOCK:], until=2 * BLOCK))

    def test_a_part_damaged_together_with_its_sums_ends_as_a_mismatch_and_is_deleted(self) -> None:
        self.forge()
        with self.assertRaisesRegex(ContentMismatchError, r"served by host\.x.*parts/sha256-") as caught:
            self.read(Source())
        self.assertIsNone(caught.exception.host)
        self.assertEqual(list(self.path.iterdir()), [])
        self.assertEqual(self.read(Source()), CONTENT)

    def test_a_raw_reader_is_given_a_wrong_part_once(self) -> None:
        self.forge()
        self.assertNotEqual(self.read(Source(), access=BlobAccess.RAW), CONTENT)
        self.assertEqual(list(self.path.iterdir()), [])
        self.assertEqual(self.read(Source(), access=BlobAccess.RAW), CONTENT)

    def test_nothing_released_begins_again_without_the_part(self) -> None:
        self.forge()
        source = Source()
        reader = self.store().open_blob(DESCRIPTOR, BlobAccess.VERIFIED, source.open_rest)
        buffer = memoryview(bytearray(BLOCK))
        for _ in range(4):
            reader.readinto(buffer)
        error = reader.blame(ContentMismatchError("wrong"))
        self.assertTrue(reader.restart(error))
        data = bytearray()
        copy_verified(reader, data.extend, DESCRIPTOR, release=Release.AS_READ)
        self.assertEqual(bytes(data), CONTENT)
        self.assertEqual(source.offsets, [2 * BLOCK, 0])
        self.assertTrue(source.readers[0].closed)
        self.assertFalse(source.readers[0].restarted, "a place that may have been right is not excluded")
        reader.close()

    def test_a_source_that_lied_from_the_first_byte_is_left(self) -> None:
        source = Source(content=bytes(len(CONTENT)))
        with self.assertRaises(ContentMismatchError):
            self.read(source)
        reader = self.store().open_blob(DESCRIPTOR, BlobAccess.VERIFIED, source.open_rest)
        reader.readinto(memoryview(bytearray(9)))
        self.assertFalse(reader.restart(reader.blame(ContentMismatchError("wrong"))))
        self.assertTrue(source.readers[-1].restarted)
        reader.close()
        assert isinstance(reader, PartialBlob)

    def test_foreign_files_are_never_used(self) -> None:
        target = self.directory / "target"
        target.write_bytes(CONTENT)
        self.path.mkdir(mode=0o700)

        def link() -> None:
            self.part_file().symlink_to(target)

        def hard_link() -> None:
            target.chmod(0o600)
            os.link(target, self.part_file())

        def open_to_others() -> None:
            self.part_file().write_bytes(CONTENT)
            self.part_file().chmod(0o644)

        def fifo() -> None:
            os.mkfifo(self.part_file(), 0o600)

        def linked_sums() -> None:
            self.part_file("sums").symlink_to(target)

        def directory() -> None:
            self.part_file().mkdir()

        for make in (link, hard_link, open_to_others, fifo, linked_sums, directory):
            with self.subTest(make.__name__):
                make()
                source = Source()
                self.assertEqual(self.read(source), CONTENT)
                self.assertEqual(source.offsets, [0])
                self.assertEqual(target.read_bytes(), CONTENT)
                for path in self.path.iterdir():
                    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()

    def test_another_user_s_file_is_never_used(self) -> None:
        store, source = self.store(), Source()
        self.read(Source(), store)
        with mock.patch.object(os, "geteuid", return_value=os.geteuid() + 1):
            self.assertEqual(self.read(source, store), CONTENT)
        self.assertEqual(source.offsets, [0])
        self.assertEqual(self.part_file().stat().st_size, len(CONTENT), "nor touched")

    def test_a_part_longer_than_its_blob_begins_anew(self) -> None:
        self.read(Source())
        with self.part_file().open("ab") as file:
            file.write(b"x")
        source = Source()
        self.assertEqual(self.read(source), CONTENT)
        self.assertEqual(source.offsets, [0])

    def test_sums_that_are_no_sums_begin_anew(self) -> None:
        for content in (b"", b"x", b"x" * 4096, _HEAD + bytes(32 * 100)):
            with self.subTest(len(content)):
                self.read(Source())
                self.part_file("sums").write_bytes(content)
                source = Source()
                self.assertEqual(self.read(source), CONTENT)
                self.assertEqual(source.offsets, [0])

    def test_a_directory_that_others_can_change_is_refused(self) -> None:
        self.path.mkdir()
        for mode in (0o777, 0o1777, 0o770):
            self.path.chmod(mode)
            with self.assertRaisesRegex(SourceError, "only this user can change"):
                PartStore(str(self.path), 0)
            self.assertIsNone(open_part_store(str(self.path), 0))
        self.assertIn("--partial-dir", self.warnings[-1])
        self.assertIsNone(open_part_store(str(self.directory / "none" / "there"), 0))


class Limits(PartialCase):
    def test_one_reader_at_a_time_has_the_part(self) -> None:
        store, others = self.store(), self.store()
        held = store.open_blob(DESCRIPTOR, BlobAccess.VERIFIED, Source().open_rest)
        source = Source()
        self.assertEqual(self.read(source, others), CONTENT)
        self.assertEqual(self.read(source, store), CONTENT)
        self.assertEqual(source.offsets, [0, 0])
        held.close()
        self.assertIsNotNone(part := others.open(DESCRIPTOR))
        assert part is not None
        part.close()

    def test_the_quota_ends_keeping_and_not_the_transfer(self) -> None:
        source = Source()
        self.assertEqual(self.read(source, self.store(3 * BLOCK + 4096)), CONTENT)
        self.assertEqual(self.part_file().stat().st_size, 3 * BLOCK)
        source = Source()
        self.assertEqual(self.read(source, self.store(3 * BLOCK + 4096)), CONTENT)
        self.assertEqual(source.offsets, [3 * BLOCK])

    def test_what_was_not_used_for_long_makes_room(self) -> None:
        old = [images.random_bytes(4 * BLOCK, bytes([number])) for number in range(3)]
        store = self.store(17 * BLOCK)
        for age, content in enumerate(old):
            descriptor = Descriptor("", digest_of(content), len(content))
            self.read(Source(content), store, expected=descriptor)
            os.utime(self.part_file(digest=descriptor.digest), (0, time.time() - 1000 + age))
            os.utime(self.part_file("sums", descriptor.digest), (0, time.time() - 1000 + age))
        self.read(Source(), store)
        self.assertEqual([self.part_file(digest=digest_of(content)).exists() for content in old], [False, True, True])
        self.assertTrue(self.part_file().exists())

    def test_the_directory_is_looked_at_seldom_however_many_parts_there_are(self) -> None:
        """A look at each block made the cost of many layers grow with the square of their number."""
        limit = 4096 * BLOCK
        store = self.store(limit)
        with mock.patch("os.scandir", side_effect=os.scandir) as look:
            rooms = [store.has_room() for _ in range(4 * limit // BLOCK // 64)]
        self.assertTrue(all(rooms))
        self.assertLessEqual(look.call_count, 5)

    def test_a_part_in_use_is_not_thrown_away(self) -> None:
        store = self.store(6 * BLOCK)
        other = Descriptor("", digest_of(OTHER), len(OTHER))
        self.read(Source(OTHER), store, expected=other)
        held = store.open(other)
        assert held is not None
        self.read(Source(), store)
        self.assertTrue(self.part_file(digest=other.digest).exists())
        held.close()

    def test_old_parts_go_when_a_process_begins(self) -> None:
        self.read(Source())
        (self.path / "somebody-else.part").write_bytes(b"x")
        long_ago = time.time() - AGE_LIMIT - 60
        for path in self.path.iterdir():
            os.utime(path, (0, long_ago))
        self.store()
        self.assertEqual([path.name for path in self.path.iterdir()], ["somebody-else.part"])

    def test_a_full_disk_ends_keeping_and_not_the_transfer(self) -> None:
        real = os.pwrite

        def pwrite(descriptor: int, data: bytes, position: int) -> int:
            if position >= 2 * BLOCK:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(descriptor, data, position)

        with mock.patch.object(os, "pwrite", pwrite):
            self.assertEqual(self.read(Source()), CONTENT)
        source = Source()
        self.assertEqual(self.read(source), CONTENT)
        self.assertEqual(source.offsets, [2 * BLOCK])

    def test_what_is_written_in_pieces_is_whole(self) -> None:
        """Sums, too: one that is cut short would cost its block."""
        real = os.pwrite

        def pwrite(descriptor: int, data: bytes, position: int) -> int:
            return real(descriptor, data[: max(1, len(data) // 3)], position)

        with mock.patch.object(os, "pwrite", pwrite):
            self.assertEqual(self.read(Source()), CONTENT)
        source = Source()
        self.assertEqual(self.read(source), CONTENT)
        self.assertEqual(source.offsets, [])

    def test_the_last_bytes_of_the_file_system_are_left_to_others(self) -> None:
        with mock.patch.object(partial, "RESERVE", 1 << 60):
            self.assertEqual(self.read(Source()), CONTENT)
        self.assertEqual(list(self.path.iterdir()), [])

    def test_a_closed_blob_opens_nothing_and_frees_its_part(self) -> None:
        store, source = self.store(), Source()
        reader = store.open_blob(DESCRIPTOR, BlobAccess.VERIFIED, source.open_rest)
        reader.close()
        with self.assertRaises(NetworkError):
            reader.readinto(memoryview(bytearray(9)))
        self.assertTrue(source.readers[0].closed)
        reader.close()
        self.assertEqual(self.read(Source(), store), CONTENT)

    def test_a_closed_store_keeps_nothing_more(self) -> None:
        store = PartStore(str(self.path), 0)
        reader = store.open_blob(DESCRIPTOR, BlobAccess.VERIFIED, Source().open_rest)
        store.close()
        store.close()
        data = hashlib.sha256()
        buffer = memoryview(bytearray(300_000))
        while count := reader.readinto(buffer):
            data.update(buffer[:count])
        reader.close()
        self.assertEqual(data.hexdigest(), DESCRIPTOR.digest.encoded)


if __name__ == "__main__":
    import unittest

    unittest.main()

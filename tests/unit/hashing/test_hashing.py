# SPDX-License-Identifier: Apache-2.0
"""The digest is that of all bytes in their order, whatever the thread does."""

import gc
import hashlib
import threading
import unittest
import weakref
from unittest import mock

from cip.content import Hashing, new_buffer
from cip.model.descriptor import Digest, digest_of
from tests.support.leaks import LeakCheckedTestCase

SIZE = 1000  # bytes of a buffer


@mock.patch("cip.content.THREAD_FROM", SIZE)
class HashingTest(LeakCheckedTestCase):
    def hash(self, data: bytes, step: int = SIZE) -> str:
        """Put `data` through as a copy does, `step` at a time; a buffer is overwritten when it is free."""
        hashing, buffer = self.begin()
        for start in range(0, len(data), step):
            part = data[start : start + step]
            buffer[:] = b"\xff" * SIZE
            buffer[: len(part)] = part
            hashing.update(buffer[: len(part)])
            buffer = hashing.next_buffer(buffer)
        return hashing.hexdigest(len(data))

    def begin(self) -> tuple[Hashing, memoryview]:
        hashing = Hashing(digest_of(b""))
        self.addCleanup(hashing.end)
        return hashing, new_buffer(SIZE)

    def test_the_digest_is_that_of_all_bytes(self) -> None:
        for count in (0, 1, SIZE - 1, SIZE, SIZE + 1, 2 * SIZE, 50 * SIZE + 7):
            data = bytes(number * 7 % 251 for number in range(count))
            for step in (SIZE, SIZE // 3, 1) if count < 3 * SIZE else (SIZE,):
                with self.subTest(count=count, step=step):
                    self.assertEqual(self.hash(data, step), hashlib.sha256(data).hexdigest())

    def test_a_thread_begins_after_so_many_bytes_and_ends_with_the_pass(self) -> None:
        hashing, buffer = self.begin()
        before = threading.active_count()
        for more in (0, 1):
            hashing.update(buffer[: SIZE // 2])
            buffer = hashing.next_buffer(buffer)
            self.assertEqual(threading.active_count(), before + more)
        hashing.end()
        self.assertEqual(threading.active_count(), before)

    def test_what_hashes_alone_has_no_thread(self) -> None:
        hashing = Hashing(digest_of(b""), alone=True)
        buffer = new_buffer(SIZE)
        before = threading.active_count()
        for _ in range(10):
            hashing.update(buffer)
            self.assertIs(hashing.next_buffer(buffer), buffer)
        self.assertEqual(threading.active_count(), before)

    def test_nothing_is_kept_once_it_is_over(self) -> None:
        gc.disable()
        self.addCleanup(gc.enable)
        for ending in ("digest", "early"):
            hashing = Hashing(digest_of(b""))
            buffer = new_buffer(SIZE)
            for _ in range(10):
                hashing.update(buffer)
                buffer = hashing.next_buffer(buffer)
            if ending == "digest":
                hashing.hexdigest(10 * SIZE)
            else:
                hashing.end()
            gone = weakref.ref(hashing)
            del hashing
            with self.subTest(ending):
                self.assertIsNone(gone())

    def test_no_more_buffers_than_promised(self) -> None:
        hashing, buffer = self.begin()
        seen = {id(buffer.obj): buffer}
        for _ in range(20):
            hashing.update(buffer)
            buffer = hashing.next_buffer(buffer)
            seen[id(buffer.obj)] = buffer
        self.assertLessEqual(len(seen), 2)

    def test_without_another_thread_it_is_hashed_in_this_one(self) -> None:
        data = b"x" * (10 * SIZE)
        with mock.patch("threading.Thread.start", side_effect=RuntimeError("can't start new thread")):
            self.assertEqual(self.hash(data), hashlib.sha256(data).hexdigest())

    def test_bytes_that_were_not_hashed_are_never_a_digest(self) -> None:
        for received in (0, SIZE - 1, SIZE + 1):
            hashing, buffer = self.begin()
            hashing.update(buffer)
            with self.subTest(received), self.assertRaisesRegex(RuntimeError, f"of {received} bytes {SIZE}"):
                hashing.hexdigest(received)

    def test_a_thread_that_dies_is_an_error_and_no_hang(self) -> None:
        class Broken:
            """Fails once the thread hashes."""

            def update(self, part: memoryview) -> None:
                if threading.current_thread() is not threading.main_thread():
                    raise MemoryError

        with (
            mock.patch.object(Digest, "hasher", lambda digest: Broken()),
            mock.patch("threading.excepthook"),
            mock.patch("cip.hashing._LOOK_SECONDS", 0.01),
            self.assertRaisesRegex(RuntimeError, "ended|were hashed"),
        ):
            self.hash(b"x" * (20 * SIZE))


if __name__ == "__main__":
    unittest.main()

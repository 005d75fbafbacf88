# SPDX-License-Identifier: Apache-2.0
"""Read-ahead: nothing requested twice, nothing lost, memory and connections bounded."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
import unittest
from unittest import mock

from cip.content import WAITS, BlobReader, BytesReader, Waits
from cip.errors import ContentMismatchError, NetworkError
from cip.model.descriptor import Descriptor, Digest, digest_of
from cip.readahead.held import BLOCK, Handed
from cip.readahead.schedule import CONNECTIONS, FIRST_FILL, IMAGES, LAYERS, OTHERS, ReadAhead
from cip.sources.base import BlobAccess
from tests.support.parent import PATIENCE


class _Reader(BytesReader):
    """Counts what was taken from it; may be told to break or to stand still."""

    def __init__(self, data: bytes, image: _Image) -> None:
        super().__init__(data)
        self.image = image
        self.taken = 0
        self.closed = threading.Event()
        self.released = threading.Event()  # its connection: closed, or read to the end
        self.restarts = 0

    def readinto(self, buffer: memoryview, /) -> int:
        if self.image.stalled.is_set() and self.taken >= self.image.stalled_at:
            self.closed.wait(30)
        if self.closed.is_set():
            raise NetworkError("closed")
        if self.image.broken:
            raise NetworkError("it broke")
        count = super().readinto(buffer[: self.image.step])
        self.taken += count
        if not count:
            self.released.set()
        return count

    def blame(self, error: ContentMismatchError) -> ContentMismatchError:
        return error.served_by("the place")

    def restart(self, error: ContentMismatchError) -> bool:
        self.restarts += 1
        self._position = 0
        return True

    def close(self) -> None:
        self.closed.set()
        self.released.set()


class _Image:
    def __init__(self, blobs: list[bytes]) -> None:
        self.blobs = {digest_of(blob): blob for blob in blobs}
        self.order = [digest_of(blob) for blob in blobs]
        self.opened: list[Digest] = []
        self.accesses: set[BlobAccess] = set()
        self.readers: dict[Digest, _Reader] = {}
        self.broken = False
        self.absent: set[Digest] = set()  # layers whose opening fails
        self.step = BLOCK  # bytes that one read brings at most
        self.stalled = threading.Event()
        self.stalled_at = 0  # bytes of a layer that come nevertheless
        self._lock = threading.Lock()

    def layers(self) -> tuple[Descriptor, ...]:
        return tuple(Descriptor("x", digest, len(self.blobs[digest])) for digest in self.order)

    def descriptor(self, digest: Digest) -> Descriptor:
        return Descriptor("x", digest, len(self.blobs[digest]))

    def open_blob(self, descriptor: Descriptor, access: BlobAccess) -> _Reader:
        digest = descriptor.digest
        with self._lock:
            self.opened.append(digest)
            self.accesses.add(access)
            if self.broken or digest in self.absent:
                raise NetworkError("refused")
            reader = self.readers[digest] = _Reader(self.blobs[digest], self)
        return reader


def _read(reader: BlobReader) -> bytes:
    data = b""
    buffer = memoryview(bytearray(100_000))
    while count := reader.readinto(buffer):
        data += bytes(buffer[:count])
    return data


def _settle(condition, seconds: float = PATIENCE) -> bool:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return bool(condition())


class ThreadCheckedCase(unittest.TestCase):
    guess = True  # as for a parent that has nothing yet

    def setUp(self) -> None:
        self.enterContext(mock.patch("cip.readahead.schedule.IDLE_SECONDS", 0.02))  # for which many here wait
        self.before = set(threading.enumerate())
        self.handed = Handed.unread
        self.made: list[ReadAhead] = []

    def tearDown(self) -> None:
        for ahead in self.made:
            ahead.close()
        self.assertTrue(self.quiet(), threading.enumerate())
        if Handed.unread != self.handed:
            gc.collect()  # which costs as much as all else here
        self.assertEqual(Handed.unread, self.handed)

    def quiet(self) -> bool:
        """Whether all threads of read-ahead end."""
        return _settle(lambda: set(threading.enumerate()) <= self.before)

    def ahead(self, image: _Image, limit: int = 8 << 20, connections: int = 64) -> ReadAhead:
        """Closed at the end, also of a test that fails: its threads would be counted by the next."""
        made = ReadAhead(image.open_blob, image.layers(), limit, connections, guess=self.guess)
        self.made.append(made)
        return made

    def image(self, count: int, size: int = 10_000) -> _Image:
        return _Image([bytes([index]) * size for index in range(count)])


class ReadAheadCase(ThreadCheckedCase):
    def test_every_layer_in_order_is_requested_once_and_arrives_whole(self) -> None:
        image = self.image(10, 300_000)
        ahead = self.ahead(image)
        for digest in image.order:
            reader = ahead.open_blob(image.descriptor(digest), BlobAccess.VERIFIED)
            self.assertEqual(reader.size, 300_000)
            self.assertEqual(_read(reader), image.blobs[digest])
            reader.close()
        self.assertEqual(sorted(image.opened), sorted(image.order))

    def test_any_other_order_loses_nothing_and_requests_nothing_twice(self) -> None:
        image = self.image(7)
        ahead = self.ahead(image)
        for position in (3, 0, 6, 5, 1, 2, 4):
            digest = image.order[position]
            reader = ahead.open_blob(image.descriptor(digest), BlobAccess.VERIFIED)
            self.assertEqual(_read(reader), image.blobs[digest])
            reader.close()
        self.assertEqual(len(image.opened), 7)

    def test_a_blob_that_is_no_layer_starts_nothing(self) -> None:
        image = self.image(3)
        config = b"config"
        image.blobs[digest_of(config)] = config
        ahead = self.ahead(image)
        ahead.open_blob(Descriptor("x", digest_of(config), 6), BlobAccess.VERIFIED).close()
        self.assertEqual(image.opened, [digest_of(config)])

    def test_at_most_three_blobs_are_on_their_way(self) -> None:
        image = self.image(10)
        image.stalled.set()
        image.step = image.stalled_at = 1
        ahead = self.ahead(image)
        ahead.open_blob(image.layers()[0], BlobAccess.VERIFIED).readinto(memoryview(bytearray(1)))
        self.assertTrue(_settle(lambda: len(image.readers) == 1 + CONNECTIONS))
        self.assertEqual(set(image.opened), set(image.order[: 1 + CONNECTIONS]))

    def test_the_first_one_begins_alone_and_each_answer_allows_one_more(self) -> None:
        image = self.image(10)
        image.stalled.set()
        image.step, image.stalled_at = 1, 2
        ahead = self.ahead(image)
        early = threading.Event()
        first = image.open_blob

        def open_blob(descriptor: Descriptor, access: BlobAccess) -> _Reader:
            if descriptor.digest != image.order[0]:
                self.assertTrue(early.wait(PATIENCE))
            return first(descriptor, access)

        ahead._open_blob = open_blob
        reader = ahead.open_blob(image.layers()[0], BlobAccess.VERIFIED)
        self.assertEqual(len(ahead._early), 1, "until there is any answer")
        reader.readinto(memoryview(bytearray(1)))
        self.assertEqual(len(ahead._early), 2, "the answer of what the parent asked for")
        reader.readinto(memoryview(bytearray(1)))
        self.assertEqual(len(ahead._early), 2, "which counts once")
        early.set()
        self.assertTrue(_settle(lambda: len(ahead._early) == 3), "that of one asked for early")

    def test_threads_are_as_many_as_connections_not_as_layers(self) -> None:
        image = self.image(60, 64)
        ahead = self.ahead(image)
        counted = mock.patch("threading.Thread.start", autospec=True, side_effect=threading.Thread.start)
        patient = mock.patch("cip.readahead.schedule.IDLE_SECONDS", 30)  # or a pause of this process lets them end
        with counted as start, patient:
            for digest in image.order:
                reader = ahead.open_blob(image.descriptor(digest), BlobAccess.VERIFIED)
                self.assertEqual(_read(reader), image.blobs[digest])
                self.assertTrue(_settle(lambda: ahead._idle > 0))  # a thread that is still busy has a right to help
        self.assertLessEqual(start.call_count, LAYERS)  # which may be begun at once, before a thread is done

    def test_what_has_arrived_makes_room_for_the_next_but_not_for_all(self) -> None:
        for size, limit, most in ((10_000, 8 << 20, LAYERS), (FIRST_FILL, 2 << 20, 3), (FIRST_FILL, 8 << 20, 4)):
            with self.subTest(size=size, limit=limit):
                image = self.image(LAYERS + 10, size)
                ahead = self.ahead(image, limit)
                ahead.open_blob(image.layers()[0], BlobAccess.VERIFIED).close()
                self.assertTrue(_settle(lambda image=image, most=most: len(image.opened) == 1 + most))
                self.assertTrue(self.quiet())
                self.assertEqual(len(image.opened), 1 + most)
                _read(ahead.open_blob(image.layers()[1], BlobAccess.VERIFIED))
                self.assertTrue(_settle(lambda image=image, most=most: len(image.opened) == 2 + most))
                self.assertEqual(sorted(image.opened), sorted(image.order[: 2 + most]))
                ahead.close()

    def test_after_a_failure_nothing_more_is_begun_until_the_parent_asks(self) -> None:
        image = self.image(30)
        image.absent.add(image.order[1])
        ahead = self.ahead(image)
        _read(ahead.open_blob(image.layers()[0], BlobAccess.VERIFIED))
        self.assertTrue(self.quiet())
        begun = len(image.opened)
        self.assertLessEqual(begun, 2 * CONNECTIONS)
        _read(ahead.open_blob(image.layers()[10], BlobAccess.VERIFIED))
        self.assertTrue(_settle(lambda: len(image.opened) > begun + 2))
        self.assertEqual(image.opened.count(image.order[1]), 1)
        image.absent.clear()
        for digest in image.order:
            if digest not in (image.order[0], image.order[10]):
                reader = ahead.open_blob(image.descriptor(digest), BlobAccess.VERIFIED)
                self.assertEqual(_read(reader), image.blobs[digest])
        self.assertEqual(len(image.opened), 31)  # all once, and the one that failed once more

    def test_a_parent_that_skips_layers_does_not_make_more_of_them_wait(self) -> None:
        image = self.image(100)
        ahead = self.ahead(image)
        for position in (0, 30, 60):
            _read(ahead.open_blob(image.layers()[position], BlobAccess.VERIFIED))
            self.assertTrue(self.quiet())
        self.assertEqual(len(image.opened), 3 + LAYERS)

    def test_the_next_layer_grows_to_the_limit_and_the_others_together_less(self) -> None:
        image = _Image([b"a", b"b", bytes(6 << 20), *(bytes([index]) * (1 << 20) for index in range(20))])
        limit = 4 << 20
        ahead = self.ahead(image, limit)
        for position in (0, 1):
            _read(ahead.open_blob(image.layers()[position], BlobAccess.VERIFIED))
            self.assertTrue(_settle(lambda position=position: len(image.opened) >= 4 + position))

        def held() -> int:
            return sum(reader.taken for digest, reader in image.readers.items() if digest not in image.order[:2])

        self.assertTrue(_settle(lambda: held() > limit))
        time.sleep(0.05)
        self.assertLessEqual(held(), limit + OTHERS + CONNECTIONS * BLOCK)

    def test_small_reads_cost_no_more_memory_than_their_bytes(self) -> None:
        image = self.image(2, 10_000)
        image.step = 1  # a chunk of a body, a record of TLS
        ahead = self.ahead(image)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        ahead.open_blob(image.layers()[0], BlobAccess.VERIFIED).close()
        self.assertTrue(self.quiet())
        self.assertLess(tracemalloc.get_traced_memory()[0], 10_000 + 2 * BLOCK)
        self.assertEqual(_read(ahead.open_blob(image.layers()[1], BlobAccess.VERIFIED)), image.blobs[image.order[1]])

    def test_without_another_thread_layers_are_fetched_when_they_are_asked_for(self) -> None:
        image = self.image(5)
        with mock.patch("threading.Thread.start", side_effect=RuntimeError("can't start new thread")):
            ahead = self.ahead(image)
            for digest in image.order:
                reader = ahead.open_blob(image.descriptor(digest), BlobAccess.VERIFIED)
                self.assertEqual(_read(reader), image.blobs[digest])

    def test_one_connection_is_always_left_for_what_the_parent_asks(self) -> None:
        for connections in (1, 2, 3):
            with self.subTest(connections):
                image = self.image(10)
                ahead = self.ahead(image, connections=connections)
                for digest in image.order:
                    reader = ahead.open_blob(image.descriptor(digest), BlobAccess.VERIFIED)
                    held = [reader for reader in image.readers.values() if not reader.released.is_set()]
                    self.assertLessEqual(len(held), connections)
                    reader.close()
                ahead.close()

    def test_only_the_next_blob_may_fill_more_than_the_first_megabyte(self) -> None:
        image = self.image(4, 6 << 20)
        ahead = self.ahead(image, 3 << 20)
        ahead.open_blob(image.layers()[0], BlobAccess.VERIFIED).close()

        def taken(position: int) -> int:
            reader = image.readers.get(image.order[position])
            return reader.taken if reader else 0

        self.assertTrue(_settle(lambda: taken(1) >= 3 << 20 and taken(2) >= FIRST_FILL and taken(3) >= FIRST_FILL))
        self.assertLessEqual(taken(1), (3 << 20) + BLOCK)
        self.assertLessEqual(taken(2), FIRST_FILL + BLOCK)

    def test_a_blob_that_failed_early_is_asked_for_again(self) -> None:
        image = self.image(2)
        image.broken = True
        ahead = self.ahead(image)
        with self.assertRaisesRegex(NetworkError, "refused"):
            ahead.open_blob(image.layers()[0], BlobAccess.VERIFIED)
        self.assertTrue(_settle(lambda: image.order[1] in image.opened))
        image.broken = False
        self.assertEqual(_read(ahead.open_blob(image.layers()[1], BlobAccess.VERIFIED)), image.blobs[image.order[1]])

    def test_a_layer_that_fails_while_the_parent_waits_is_not_asked_for_twice(self) -> None:
        image = self.image(2)
        waiting, go_on = threading.Event(), threading.Event()

        def slow(descriptor: Descriptor, access: BlobAccess) -> _Reader:
            if descriptor.digest == image.order[1]:
                waiting.set()
                go_on.wait(PATIENCE)
                image.opened.append(descriptor.digest)
                raise NetworkError("nobody answers")
            return image.open_blob(descriptor, access)

        ahead = ReadAhead(slow, image.layers(), 8 << 20, 64, guess=True)
        self.made.append(ahead)
        ahead.open_blob(image.layers()[0], BlobAccess.VERIFIED).close()
        self.assertTrue(waiting.wait(PATIENCE))
        threading.Timer(0.2, go_on.set).start()
        with self.assertRaisesRegex(NetworkError, "nobody answers"):
            ahead.open_blob(image.layers()[1], BlobAccess.VERIFIED)
        self.assertEqual(image.opened, image.order)

    def test_a_raw_blob_is_never_taken_from_a_verified_one(self) -> None:
        image = self.image(2)
        ahead = self.ahead(image)
        ahead.open_blob(image.layers()[0], BlobAccess.VERIFIED).close()
        self.assertTrue(_settle(lambda: image.order[1] in image.readers))
        early = image.readers[image.order[1]]
        self.assertIsNot(ahead.open_blob(image.layers()[1], BlobAccess.RAW), early)
        self.assertTrue(_settle(early.closed.is_set))

    def test_wrong_bytes_read_early_are_read_anew_from_elsewhere(self) -> None:
        image = self.image(2)
        ahead = self.ahead(image)
        ahead.open_blob(image.layers()[0], BlobAccess.VERIFIED).close()
        reader = ahead.open_blob(image.layers()[1], BlobAccess.VERIFIED)
        reader.readinto(memoryview(bytearray(10)))
        self.assertEqual(str(reader.blame(ContentMismatchError("wrong"))), "wrong (served by the place)")
        self.assertTrue(reader.restart(ContentMismatchError("wrong")))
        self.assertEqual(_read(reader), image.blobs[image.order[1]])
        self.assertEqual(image.readers[image.order[1]].restarts, 1)

    def test_closing_ends_threads_that_stand_in_a_read(self) -> None:
        image = self.image(4)
        image.stalled.set()
        image.step = image.stalled_at = 1
        ahead = self.ahead(image)
        ahead.open_blob(image.layers()[0], BlobAccess.VERIFIED).readinto(memoryview(bytearray(1)))
        self.assertTrue(_settle(lambda: len(image.readers) == 4))


class UnknownParentCase(ThreadCheckedCase):
    """A parent that may have some of the layers already."""

    guess = False

    def ask(self, ahead: ReadAhead, image: _Image, place: int, access: BlobAccess = BlobAccess.VERIFIED) -> bytes:
        reader = ahead.open_blob(image.layers()[place], access)
        data = _read(reader)
        reader.close()
        return data

    def test_one_layer_alone_begins_nothing_and_two_in_a_row_do(self) -> None:
        for access in BlobAccess:
            image = self.image(40)
            ahead = self.ahead(image)
            self.ask(ahead, image, 0, access)
            self.assertTrue(self.quiet())
            self.assertEqual(len(image.opened), 1)
            for place in range(1, 40):
                self.assertEqual(self.ask(ahead, image, place, access), image.blobs[image.order[place]])
            self.assertEqual(sorted(image.opened), sorted(image.order), "each once")
            self.assertEqual(image.accesses, {access})

    def test_scattered_layers_begin_nothing(self) -> None:
        image = self.image(40)
        ahead = self.ahead(image)
        for place in (3, 7, 5, 20, 39, 0):
            self.ask(ahead, image, place)
        self.assertTrue(self.quiet())
        self.assertEqual(len(image.opened), 6)

    def test_a_parent_that_asks_for_the_largest_first_is_followed_by_size(self) -> None:
        blobs = [bytes([number]) * (1000 * (number * 7 % 40 + 1)) for number in range(40)]
        by_size = sorted(range(40), key=lambda place: -len(blobs[place]))
        for access in BlobAccess:
            for first in (0, 1):  # two at once may have been swapped
                image = _Image(blobs)
                ahead = self.ahead(image)
                for place in (by_size[first], by_size[1 - first]):
                    self.ask(ahead, image, place, access)
                self.assertTrue(self.quiet())
                self.assertEqual(set(image.opened), {image.order[place] for place in by_size[: 2 + LAYERS]})
                for place in by_size[2:]:
                    self.assertEqual(self.ask(ahead, image, place, access), blobs[place])
                self.assertEqual(sorted(image.opened), sorted(image.order), "each once")
                self.assertEqual(image.accesses, {access})

    def test_layers_that_are_not_the_largest_or_only_one_of_them_are_not_followed_by_size(self) -> None:
        image = _Image([bytes([number]) * (1000 * (number * 7 % 40 + 1)) for number in range(40)])
        by_size = sorted(range(40), key=lambda place: -len(image.blobs[image.order[place]]))
        for places in ((0,), (0, 2), (1, 2), (2, 5, 4)):
            asked = [by_size[place] for place in places]
            ahead = self.ahead(image)
            image.opened.clear()
            for place in asked:
                self.ask(ahead, image, place)
            self.assertTrue(self.quiet())
            self.assertEqual(image.opened, [image.order[place] for place in asked])

    def test_a_jump_ends_it(self) -> None:
        image = self.image(60)
        ahead = self.ahead(image)
        for place in (0, 1, 2):
            self.ask(ahead, image, place)
        self.assertTrue(self.quiet())
        before = len(image.opened)
        self.ask(ahead, image, 50)
        self.assertTrue(self.quiet())
        self.assertEqual(len(image.opened), before + 1)

    def test_what_was_left_behind_is_given_up(self) -> None:
        image = _Image([bytes([index]) * (2 << 20 if index in (2, 3, 4) else 10_000) for index in range(56)])
        ahead = self.ahead(image)
        for place in (0, 1, 50, 51):
            self.ask(ahead, image, place)
        left = [image.readers[image.order[place]] for place in (2, 3, 4)]
        self.assertTrue(_settle(lambda: all(reader.closed.is_set() for reader in left)))
        self.assertEqual(self.ask(ahead, image, 2), image.blobs[image.order[2]])

    def test_several_at_a_time_and_swapped_ask_for_each_once(self) -> None:
        image = self.image(64)
        ahead = self.ahead(image)
        for first in range(0, 64, 4):
            readers = [ahead.open_blob(image.layers()[first + step], BlobAccess.VERIFIED) for step in (1, 0, 3, 2)]
            for reader in readers:
                _read(reader)
                reader.close()
        self.assertEqual(sorted(image.opened), sorted(image.order))

    def test_threads_that_ask_at_once(self) -> None:
        image = self.image(32)
        ahead = self.ahead(image)
        left = list(range(32))
        found: dict[int, bytes] = {}

        def work() -> None:
            while left:
                try:
                    place = left.pop(0)
                except IndexError:
                    return
                found[place] = self.ask(ahead, image, place)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([found[place] for place in range(32)], [image.blobs[digest] for digest in image.order])
        self.assertEqual(sorted(image.opened), sorted(image.order))

    def test_what_the_parent_was_handed_and_does_not_read_counts_as_well(self) -> None:
        image = _Image([bytes([number]) * 600_000 for number in range(40)])
        ahead = self.ahead(image, FIRST_FILL)
        readers = []
        for digest in image.order:
            readers.append(ahead.open_blob(image.descriptor(digest), BlobAccess.VERIFIED))
            _settle(lambda: all(each.is_whole for each in ahead._early.values()))
            held = Handed.unread + sum(each.reserved for each in ahead._early.values())
            self.assertLessEqual(held, 4 * FIRST_FILL)
        for digest, reader in zip(image.order, readers, strict=True):
            self.assertEqual(_read(reader), image.blobs[digest])
            reader.close()
        self.assertEqual(Handed.unread, self.handed)

    def test_many_images_hold_no_more_than_a_few_asked_last(self) -> None:
        images = [_Image([bytes([number, place]) * 300_000 for place in range(4)]) for number in range(5 * IMAGES)]
        self.made = [ReadAhead(image.open_blob, image.layers(), 1 << 20, 64, guess=True) for image in images]
        for ahead, image in zip(self.made, images, strict=True):
            ahead.open_blob(image.descriptor(image.order[0]), BlobAccess.VERIFIED).close()
            self.assertTrue(_settle(lambda ahead=ahead: all(each.is_whole for each in ahead._early.values())))
        holding = [bool(ahead._early) for ahead in self.made]
        self.assertEqual(holding, [False] * 4 * IMAGES + [True] * IMAGES)
        for ahead, image in zip(self.made, images, strict=True):  # what was forgotten is asked for again
            reader = ahead.open_blob(image.descriptor(image.order[1]), BlobAccess.VERIFIED)
            self.assertEqual(_read(reader), image.blobs[image.order[1]])
            reader.close()

    def test_what_was_handed_over_counts_for_all_images(self) -> None:
        images = [_Image([bytes([number, place]) * 300_000 for place in range(9)]) for number in range(6)]
        limit = 1 << 20
        self.made = [ReadAhead(image.open_blob, image.layers(), limit, 64, guess=True) for image in images]
        readers = []
        for ahead, image in zip(self.made, images, strict=True):
            for digest in image.order:
                readers.append(ahead.open_blob(image.descriptor(digest), BlobAccess.VERIFIED))
                _settle(lambda ahead=ahead: all(each.is_whole for each in ahead._early.values()))
        self.assertLessEqual(Handed.unread, 2 * limit + OTHERS)
        for reader in readers:
            reader.close()

    def test_a_layer_costs_the_same_among_many_in_whatever_order(self) -> None:
        class Counting(list[int]):
            looks = 0

            def __getitem__(self, place: int) -> int:  # type: ignore[override]
                Counting.looks += 1
                return super().__getitem__(place)

        count = 2000
        image = _Image([b"%d" % number for number in range(count)])
        for name, order, guess in (
            ("forward", image.order, True),
            ("backward", image.order[::-1], True),
            ("backward", image.order[::-1], False),
            ("every other", image.order[::2] + image.order[1::2], True),
        ):
            ahead = ReadAhead(image.open_blob, image.layers(), FIRST_FILL, 1, guess=guess)  # no thread: one connection
            ahead._wanted = Counting(ahead._wanted)
            Counting.looks = 0
            for digest in order:
                ahead.open_blob(image.descriptor(digest), BlobAccess.VERIFIED).close()
            with self.subTest(name, guess=guess):
                self.assertLess(Counting.looks, 20 * count)
            ahead.close()

    def test_what_was_asked_for_before_lets_its_parent_go_on(self) -> None:
        image = self.image(40)
        ahead = self.ahead(image)
        for place in (0, 1):
            self.ask(ahead, image, place)
        told: list[bool] = []
        waits = Waits()
        waits.begin = lambda: told.append(True)  # type: ignore[method-assign]
        token = WAITS.set(waits)
        try:
            self.ask(ahead, image, 2)
            self.ask(ahead, image, 39)
        finally:
            WAITS.reset(token)
        self.assertEqual(told, [True])


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
import errno
import fcntl
import os
import select
import threading
import unittest
import weakref
from unittest import mock

from cip.errors import CipError, ContentMismatchError, ErrorCode, InvalidInputError, Phase
from cip.wire.jsonproxy.pipes import WAITING_LIMIT, Bell, Feed, Opened, Pipes, Transfer
from tests.support.jsonparent import has_nothing, read_error_pipe, read_exactly, read_to_end
from tests.support.leaks import LeakCheckedTestCase, await_end
from tests.support.parent import PATIENCE


class PipesTestCase(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch("cip.wire.jsonproxy.pipes.IDLE_SECONDS", 0.02))  # for which many here wait
        self.bell = Bell()
        self.pipes = Pipes(self.bell)
        self.addCleanup(self.join_workers)
        self.addCleanup(self.bell.close)
        self.addCleanup(self.pipes.close)
        self.addCleanup(self.pipes.stop)

    def join_workers(self) -> None:
        for thread in threading.enumerate():
            if thread.name == "pipe":
                await_end(thread)

    def wait(self, feed: Feed) -> CipError | None:
        """The verdict of `feed`, once the bell has rung for it."""
        while not feed.ended:
            ready, _, _ = select.select([self.bell.fileno(), self.pipes.fileno()], [], [], PATIENCE)
            self.assertTrue(ready, "the bell does not ring")
            self.bell.hush()
            self.pipes.give_up()
        return self.pipes.collect(feed)

    def assert_nobody_has_left(self) -> None:
        self.assertEqual(select.select([self.pipes], [], [], 0)[0], [])


class FinishTypePipes(PipesTestCase):
    def test_short_content_needs_no_thread(self) -> None:
        for size in (0, 1, 4096, 65536, 300_000):
            with self.subTest(size), mock.patch("threading.Thread.start", side_effect=AssertionError("a thread")):
                opened = self.pipes.feed_bytes(b"x" * size)
                self.assertEqual(len(read_exactly(opened.fds[0], size)), size)
                self.assertTrue(has_nothing(opened.fds[0]))
                self.assertIsNone(self.pipes.collect(self.pipes.finish(opened.pipe_id)))
                self.assertEqual(read_to_end(opened.fds[0]), b"")

    def test_a_thread_that_is_done_takes_the_next_transfer(self) -> None:
        patient = mock.patch("cip.wire.jsonproxy.pipes.IDLE_SECONDS", PATIENCE)
        with patient, mock.patch("threading.Thread.start", autospec=True, side_effect=threading.Thread.start) as start:
            for _ in range(40):
                opened = self.pipes.feed(lambda transfer: transfer.write(memoryview(b"x")), 1)
                self.assertIsNone(self.wait(self.pipes.finish(opened.pipe_id)))
                self.assertEqual(read_to_end(opened.fds[0]), b"x")
        self.assertLess(start.call_count, 20)  # one that is not scheduled for long is not there for the next

    def test_one_that_waits_for_its_reader_delays_no_other(self) -> None:
        waiting = [self.pipes.feed(lambda transfer: transfer.write(memoryview(bytes(3 << 20))), 3 << 20)]
        for _ in range(8):
            opened = self.pipes.feed(lambda transfer: transfer.write(memoryview(b"x")), 1)
            self.assertIsNone(self.wait(self.pipes.finish(opened.pipe_id)))
            self.assertEqual(read_to_end(opened.fds[0]), b"x")
            waiting.append(self.pipes.feed(lambda transfer: transfer.write(memoryview(bytes(3 << 20))), 3 << 20))
        for opened in waiting:
            self.assertEqual(len(read_exactly(opened.fds[0], 3 << 20)), 3 << 20)
            self.assertIsNone(self.wait(self.pipes.finish(opened.pipe_id)))
            os.close(opened.fds[0])

    def test_long_content_does_not_wait_for_its_reader(self) -> None:
        data = os.urandom(3_000_000)
        opened = self.pipes.feed_bytes(data)
        feed = self.pipes.finish(opened.pipe_id)
        self.assertFalse(feed.ended)
        self.assertEqual(read_exactly(opened.fds[0], len(data)), data)
        self.assertIsNone(self.wait(feed))
        self.assertEqual(read_to_end(opened.fds[0]), b"")

    def test_documents_that_nobody_reads_end_at_a_limit(self) -> None:
        """Each that was encoded anew, as configs and lists are, took its 4 MiB for as long as nobody read it."""
        document = bytes(4 << 20)
        opened: list[Opened] = []
        with self.assertRaises(CipError) as caught:
            while len(opened) <= WAITING_LIMIT // (2 << 20):
                opened.append(self.pipes.feed_bytes(bytes(document)))
        self.assertIs(caught.exception.code, ErrorCode.LIMIT_EXCEEDED)
        self.assertGreaterEqual(len(opened), WAITING_LIMIT // len(document))
        os.close(self.pipes.feed_bytes(b"short").fds[0])  # what the pipe takes never waits
        for each in opened:
            self.assertEqual(len(read_exactly(each.fds[0], len(document))), len(document))
            self.assertIsNone(self.wait(self.pipes.finish(each.pipe_id)))
            os.close(each.fds[0])
        larger = self.pipes.feed_bytes(bytes(2 * WAITING_LIMIT))  # one alone
        os.close(larger.fds[0])

    def test_content_waits_in_a_pipe_of_one_page_too(self) -> None:
        real = os.pipe

        def tiny() -> tuple[int, int]:
            ends = real()
            fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 4096)
            return ends

        with mock.patch("os.pipe", tiny):
            opened = self.pipes.feed_bytes(b"y" * 50_000)
        feed = self.pipes.finish(opened.pipe_id)
        self.assertFalse(feed.ended)
        self.assertEqual(read_exactly(opened.fds[0], 50_000), b"y" * 50_000)
        self.assertIsNone(self.wait(feed))
        os.close(opened.fds[0])

    def test_success_stays_open_until_it_is_collected(self) -> None:
        opened = self.pipes.feed(lambda transfer: transfer.write(memoryview(b"abc")), 3)
        self.assertEqual(read_exactly(opened.fds[0], 3), b"abc")
        feed = self.pipes.finish(opened.pipe_id)
        while not feed.ended:
            select.select([self.bell], [], [], PATIENCE)
        self.assertTrue(has_nothing(opened.fds[0]))
        self.assertIsNone(self.pipes.collect(feed))
        self.assertEqual(read_to_end(opened.fds[0]), b"")

    def test_failure_closes_at_once_and_is_told_later(self) -> None:
        def job(transfer: Transfer) -> None:
            transfer.write(memoryview(b"abc"))
            raise ContentMismatchError("not what it should be")

        opened = self.pipes.feed(job, 10)
        self.assertEqual(read_to_end(opened.fds[0]), b"abc")
        error = self.wait(self.pipes.finish(opened.pipe_id))
        self.assertEqual(str(error), "not what it should be")
        assert error is not None
        self.assertIsNone(error.__traceback__)

    def test_a_reader_that_leaves_is_told_with_broken_pipe(self) -> None:
        opened = self.pipes.feed_bytes(b"x" * 3_000_000)
        os.close(opened.fds[0])
        error = self.wait(self.pipes.finish(opened.pipe_id))
        assert error is not None
        self.assertEqual(error.code, ErrorCode.CLIENT_GONE)
        self.assertRegex(str(error), "broken pipe$")

    def test_a_reader_that_leaves_a_silent_source_is_told_at_once(self) -> None:
        go_on, cancelled = threading.Event(), threading.Event()
        self.addCleanup(go_on.set)

        def job(transfer: Transfer) -> None:
            transfer.write(memoryview(b"abc"))
            go_on.wait(PATIENCE)

        opened = self.pipes.feed(job, 10, cancelled.set)
        self.assertEqual(read_exactly(opened.fds[0], 3), b"abc")
        os.close(opened.fds[0])
        feed = self.pipes.finish(opened.pipe_id)
        self.assertRegex(str(self.wait(feed)), "broken pipe$")
        self.assertTrue(cancelled.wait(PATIENCE))
        os.fstat(feed.write_fd)  # the worker may be about to write to it
        self.assert_nobody_has_left()  # told once, however long the worker takes
        go_on.set()
        self.join_workers()
        self.assert_nobody_has_left()
        with self.assertRaises(OSError):
            os.fstat(feed.write_fd)

    def test_whoever_notices_that_a_reader_has_left_says_the_same(self) -> None:
        go_on = threading.Event()
        told = []
        big = memoryview(bytes(3_000_000))
        for job in (lambda transfer: go_on.wait(PATIENCE), lambda transfer: transfer.write(big)):
            opened = self.pipes.feed(job, 3_000_000, go_on.set, "sha256:x")
            os.close(opened.fds[0])
            error = self.wait(self.pipes.finish(opened.pipe_id))
            assert error is not None
            told.append((str(error), error.code, error.phase, error.digest))
        self.assertEqual(told[0][2:], (Phase.BLOB, "sha256:x"))
        self.assertEqual(told[0], told[1])

    def test_a_reader_that_leaves_behind_the_last_byte_changes_nothing(self) -> None:
        for size in (3, -1):
            with self.subTest(size):
                go_on = threading.Event()

                def job(transfer: Transfer, go_on: threading.Event = go_on) -> None:
                    transfer.write(memoryview(b"abc"))
                    go_on.wait(PATIENCE)  # such as for its digest

                opened = self.pipes.feed(job, size, _fail)
                self.assertEqual(read_exactly(opened.fds[0], 3), b"abc")
                os.close(opened.fds[0])
                if size < 0:
                    self.assert_nobody_has_left()
                self.pipes.give_up()
                feed = self.pipes.finish(opened.pipe_id)
                self.assertFalse(feed.ended)
                go_on.set()
                self.assertIsNone(self.wait(feed))

    def test_a_reader_that_leaves_before_the_write_of_the_last_byte_returns_changes_nothing(self) -> None:
        reads: list[int] = []
        real = os.write

        def write_and_leave(fd: int, part: memoryview) -> int:
            count = real(fd, part)
            while not reads:
                continue  # the parent does not have its end yet
            os.close(reads.pop())
            self.pipes.give_up()
            return count

        with mock.patch("cip.wire.jsonproxy.pipes.os.write", write_and_leave):
            opened = self.pipes.feed(lambda transfer: transfer.write(memoryview(b"abc")), 3, _fail)
            reads.append(opened.fds[0])
            self.assertIsNone(self.wait(self.pipes.finish(opened.pipe_id)))

    def test_a_reader_that_leaves_after_the_end_does_not_change_it(self) -> None:
        opened = self.pipes.feed(lambda transfer: transfer.write(memoryview(b"abc")), 10, _fail)
        feed = self.pipes.finish(opened.pipe_id)
        self.join_workers()
        os.close(opened.fds[0])
        self.assertTrue(select.select([self.pipes], [], [], PATIENCE)[0])
        self.pipes.give_up()
        self.assertIsNone(self.wait(feed))

    def test_a_system_that_watches_no_more_pipes_is_good_enough(self) -> None:
        with mock.patch.object(self.pipes, "_epoll") as epoll:
            epoll.register.side_effect = OSError(errno.ENOSPC, "No space left on device")
            opened = self.pipes.feed(lambda transfer: transfer.write(memoryview(bytes(3_000_000))), 3_000_000)
        os.close(opened.fds[0])
        self.assertRegex(str(self.wait(self.pipes.finish(opened.pipe_id))), "broken pipe$")

    def test_a_pipe_that_is_over_holds_nothing_that_its_work_needed(self) -> None:
        class Held:
            def cancel(self) -> None:
                raise AssertionError

        held = Held()
        gone = weakref.ref(held)
        opened = self.pipes.feed(lambda transfer: transfer.write(memoryview(b"abc")), 3, held.cancel)
        del held
        self.join_workers()
        self.assertIsNone(gone())
        self.assertIsNone(self.wait(self.pipes.finish(opened.pipe_id)))
        os.close(opened.fds[0])

    def test_a_mistake_of_ours_is_logged_and_told_as_internal(self) -> None:
        def job(transfer: Transfer) -> None:
            raise KeyError("secret")

        with mock.patch("cip.log.error") as logged:
            opened = self.pipes.feed(job, 10)
            error = self.wait(self.pipes.finish(opened.pipe_id))
        self.assertEqual((str(error), error and error.code), ("internal error", ErrorCode.INTERNAL))
        self.assertRegex(logged.call_args.args[1], r"KeyError at test_pipes\.py:\d+ job")
        self.assertNotIn("secret", str(logged.call_args))
        os.close(opened.fds[0])

    def test_a_transfer_ends_where_nothing_more_can_be_had(self) -> None:
        """No memory, no descriptors, also where what tells of it needs some."""

        def fail(error: Exception) -> None:
            raise error

        exhausted: tuple[Exception, ...] = (MemoryError(), OSError(errno.EMFILE, "x"), OSError(errno.ENOMEM, "x"))
        for error in exhausted:
            opened = self.pipes.feed(lambda _: fail(error), 5)  # noqa: B023
            self.assertEqual(read_to_end(opened.fds[0]), b"")
            told = self.wait(self.pipes.finish(opened.pipe_id))
            self.assertIs(told and told.code, ErrorCode.LIMIT_EXCEEDED)
            raw = self.pipes.feed_raw(lambda _: fail(error), 5)  # noqa: B023
            self.assertEqual(read_to_end(raw.fds[0]), b"")
            os.close(raw.fds[1])
        no_files = mock.patch("builtins.__import__", side_effect=exhausted[1])
        no_log = mock.patch("cip.log.error", side_effect=MemoryError)
        for patch in (no_files, no_log):
            with patch:
                opened = self.pipes.feed(lambda _: fail(ValueError()), 5)
                self.assertEqual(read_to_end(opened.fds[0]), b"")
            told = self.wait(self.pipes.finish(opened.pipe_id))
            self.assertIs(told and told.code, ErrorCode.INTERNAL)

    def test_an_id_is_forgotten_when_it_is_finished(self) -> None:
        opened = self.pipes.feed_bytes(b"")
        self.assertIsNone(self.pipes.collect(self.pipes.finish(opened.pipe_id)))
        for unknown in (opened.pipe_id, 0, 99, 2**32 + opened.pipe_id):
            with self.subTest(unknown), self.assertRaisesRegex(InvalidInputError, f"no unfinished pipe {unknown}$"):
                self.pipes.finish(unknown)
        os.close(opened.fds[0])

    def test_ids_stay_small_and_unique_when_they_wrap_around(self) -> None:
        first = self.pipes.feed_bytes(b"")
        self.pipes._ids = iter(range(2**32 - 2, 2**32 + 5))  # type: ignore[assignment]
        later = [self.pipes.feed_bytes(b"") for _ in range(4)]
        self.assertEqual([first.pipe_id, *(each.pipe_id for each in later)], [1, 2**32 - 2, 2**32 - 1, 2, 3])
        for opened in (first, *later):
            os.close(opened.fds[0])

    def test_only_so_many_pipes_are_wide(self) -> None:
        opened = [self.pipes.feed_bytes(b"x" * 100_000) for _ in range(40)]
        sizes = [fcntl.fcntl(each.fds[0], fcntl.F_GETPIPE_SZ) for each in opened]
        self.assertEqual([size > 65536 for size in sizes], [True] * 32 + [False] * 8)
        feed = self.pipes.finish(opened[0].pipe_id)
        self.pipes.collect(feed)
        again = self.pipes.feed_bytes(b"x" * 100_000)
        self.assertGreater(fcntl.fcntl(again.fds[0], fcntl.F_GETPIPE_SZ), 65536)
        for each in (*opened, again):
            os.close(each.fds[0])

    def test_a_system_without_pipes_or_threads_is_told_and_leaves_nothing(self) -> None:
        for target, error, reason in (
            ("os.pipe", OSError(24, "Too many open files"), "cannot make a pipe: too many open files"),
            ("threading.Thread.start", RuntimeError("can't start new thread"), "cannot start a thread"),
        ):
            with self.subTest(target), mock.patch(target, side_effect=error):
                for make in (self.pipes.feed, self.pipes.feed_raw):
                    with self.assertRaisesRegex(CipError, reason) as caught:
                        make(lambda transfer: self.fail("it ran"), 1_000_000)
                    self.assertEqual(caught.exception.code, ErrorCode.LIMIT_EXCEEDED)

    def test_a_system_that_has_one_pipe_but_not_two_gets_the_first_back(self) -> None:
        with mock.patch("os.pipe", side_effect=[os.pipe(), OSError(23, "Too many open files in system")]):
            with self.assertRaisesRegex(CipError, "cannot make a pipe: too many open files in system"):
                self.pipes.feed_raw(lambda transfer: self.fail("it ran"), 1_000_000)


class RawTransfers(PipesTestCase):
    def test_a_success_leaves_the_error_pipe_empty(self) -> None:
        opened = self.pipes.feed_raw(lambda transfer: transfer.write(memoryview(b"abc")), 3)
        self.assertEqual(read_to_end(opened.fds[0]), b"abc")
        self.assertIsNone(read_error_pipe(opened.fds[1]))

    def test_a_failure_is_in_the_error_pipe_before_the_data_ends(self) -> None:
        def job(transfer: Transfer) -> None:
            transfer.write(memoryview(b"abc"))
            raise ContentMismatchError("too short")

        opened = self.pipes.feed_raw(job, 10)
        self.assertEqual(read_to_end(opened.fds[0]), b"abc")
        self.assertFalse(has_nothing(opened.fds[1]))
        found = read_error_pipe(opened.fds[1])
        assert found is not None
        self.assertEqual((found["code"], found["message"]), ("other", "too short"))
        self.assertEqual(found["details"]["type"], "content-mismatch")

    def test_a_reader_that_leaves_is_told_so(self) -> None:
        opened = self.pipes.feed_raw(lambda transfer: transfer.write(memoryview(bytes(3_000_000))), 3_000_000)
        os.close(opened.fds[0])
        found = read_error_pipe(opened.fds[1])
        assert found is not None
        self.assertEqual(found["code"], "EPIPE")
        self.assertRegex(found["message"], "broken pipe$")

    def test_a_reader_that_leaves_a_silent_source_is_told_before_the_worker_ends(self) -> None:
        for failing in (False, True):
            with self.subTest(failing=failing):
                go_on, cancelled = threading.Event(), threading.Event()

                def job(transfer: Transfer, go_on: threading.Event = go_on, failing: bool = failing) -> None:
                    go_on.wait(PATIENCE)
                    if failing:
                        raise CipError("closed")

                opened = self.pipes.feed_raw(job, 10, cancelled.set)
                os.close(opened.fds[0])
                self.assertTrue(select.select([self.pipes], [], [], PATIENCE)[0])
                self.pipes.give_up()
                found = read_error_pipe(opened.fds[1])
                assert found is not None
                self.assertEqual(found["code"], "EPIPE")
                self.assertTrue(cancelled.wait(PATIENCE))
                self.assert_nobody_has_left()
                self.pipes.stop()  # has nothing to tell any more
                go_on.set()
                self.join_workers()

    def test_a_reader_that_leaves_behind_the_last_byte_is_no_failure(self) -> None:
        go_on = threading.Event()

        def job(transfer: Transfer) -> None:
            transfer.write(memoryview(b"abc"))
            go_on.wait(PATIENCE)

        opened = self.pipes.feed_raw(job, 3, _fail)
        self.assertEqual(read_exactly(opened.fds[0], 3), b"abc")
        os.close(opened.fds[0])
        self.assertTrue(select.select([self.pipes], [], [], PATIENCE)[0])
        self.pipes.give_up()
        go_on.set()
        self.assertIsNone(read_error_pipe(opened.fds[1]))

    def test_without_another_thread_a_source_is_not_called_off(self) -> None:
        go_on = threading.Event()
        opened = self.pipes.feed_raw(lambda transfer: go_on.wait(PATIENCE), 10, go_on.set)
        os.close(opened.fds[0])
        with mock.patch("threading.Thread.start", side_effect=RuntimeError("can't start new thread")):
            self.pipes.give_up()
        self.assertFalse(go_on.is_set())
        go_on.set()
        self.assertIsNotNone(read_error_pipe(opened.fds[1]))

    def test_what_is_closed_is_watched_no_more_although_a_child_has_a_copy_of_it(self) -> None:
        """Else its number, by then that of another pipe, would be told."""
        go_on = threading.Event()
        raw = self.pipes.feed_raw(lambda transfer: go_on.wait(PATIENCE), 10)
        fed = self.pipes.feed(lambda transfer: go_on.wait(PATIENCE), 10)
        copies = [os.dup(each.write_fd) for each in (*self.pipes._unsettled, *self.pipes._open)]
        go_on.set()
        self.join_workers()
        self.assertIsNone(self.pipes.collect(self.pipes.finish(fed.pipe_id)))
        with mock.patch("threading.Thread.start", side_effect=RuntimeError("can't start new thread")):
            with self.assertRaises(CipError), mock.patch("cip.wire.jsonproxy.pipes.os.close") as closed:
                self.pipes.feed_raw(lambda transfer: None, 10)
        given_back = [call.args[0] for call in closed.call_args_list]
        for descriptor in (raw.fds[0], raw.fds[1], fed.fds[0], given_back[0]):
            os.close(descriptor)
        self.assert_nobody_has_left()
        for descriptor in (*copies, *given_back[1:]):
            os.close(descriptor)

    def test_a_closed_error_pipe_changes_nothing(self) -> None:
        opened = self.pipes.feed_raw(lambda transfer: transfer.write(memoryview(bytes(3_000_000))), 3_000_000)
        os.close(opened.fds[1])
        self.assertEqual(len(read_to_end(opened.fds[0])), 3_000_000)

        def answer_and_fail(transfer: Transfer) -> None:
            transfer.answer()
            _fail()

        failed = self.pipes.feed_raw(answer_and_fail, 3)
        os.close(failed.fds[1])
        self.assertEqual(read_to_end(failed.fds[0]), b"")


class Stopping(PipesTestCase):
    def test_every_unfinished_raw_transfer_says_so(self) -> None:
        go_on = threading.Event()
        self.addCleanup(go_on.set)

        def stalled(transfer: Transfer) -> None:
            transfer.write(memoryview(b"abc"))
            go_on.wait(PATIENCE)

        slow = self.pipes.feed_raw(stalled, 10)
        undrained = self.pipes.feed_raw(lambda transfer: transfer.write(memoryview(bytes(3_000_000))), 3_000_000)
        done = self.pipes.feed_raw(lambda transfer: transfer.write(memoryview(b"abc")), 3)
        self.assertEqual(read_to_end(done.fds[0]), b"abc")
        self.pipes.stop()
        for opened in (slow, undrained):
            self.assertFalse(has_nothing(opened.fds[1]), "it must be told before the data pipe closes")
        self.assertIsNone(read_error_pipe(done.fds[1]))
        go_on.set()
        os.close(undrained.fds[0])
        self.assertEqual(read_to_end(slow.fds[0]), b"abc")
        for opened in (slow, undrained):
            found = read_error_pipe(opened.fds[1])
            assert found is not None
            self.assertEqual(found["code"], "other")
            self.assertEqual(found["message"], "the proxy was stopped before this transfer ended")

    def test_finish_type_pipes_close(self) -> None:
        go_on = threading.Event()
        finished = self.pipes.feed_bytes(b"abc")
        running = self.pipes.feed(lambda transfer: go_on.wait(PATIENCE), 3)
        self.pipes.stop()
        self.assertEqual(read_to_end(finished.fds[0]), b"abc")
        self.assertTrue(has_nothing(running.fds[0]))
        go_on.set()
        self.assertEqual(read_to_end(running.fds[0]), b"")

    def test_a_worker_may_end_after_the_bell_was_closed(self) -> None:
        go_on = threading.Event()
        bell = Bell()
        other = Pipes(bell)
        opened = other.feed_raw(lambda transfer: go_on.wait(PATIENCE), 3)
        pipes = Pipes(bell)
        running = pipes.feed(lambda transfer: go_on.wait(PATIENCE), 3)
        pipes.stop()
        for each in (pipes, other, bell):
            each.close()
        late = pipes.feed(lambda transfer: None, 3)  # of a conversation that is not over yet
        os.close(late.fds[0])
        go_on.set()
        self.assertEqual(read_to_end(running.fds[0]), b"")
        self.assertIsNone(read_error_pipe(opened.fds[1]))
        os.close(opened.fds[0])


def _fail() -> None:
    raise CipError("no")


if __name__ == "__main__":
    unittest.main()

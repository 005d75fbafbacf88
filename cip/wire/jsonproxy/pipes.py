# SPDX-License-Identifier: Apache-2.0
"""Workers that fill the pipes of the JSON protocol (wire.md section 5).

Rules.
- What goes into a pipe never delays a reply: each transfer has a thread of its own, at once: a new one, or one whose
  transfer has just ended. Content that the buffer of its pipe takes needs none.
- A finish-type pipe that succeeded stays open until FinishPipe; one that failed closes at once, and its id tells why
  when FinishPipe asks.
- A raw transfer is settled exactly once, by its worker, `give_up` or `stop`, and its error pipe is written before the
  data pipe closes: an empty error pipe always means a complete blob.
- The reply that hands out the pipe of a blob may wait for its source's first answer. A transfer that fails before that
  and before its reply has left is refused by the reply, and its pipes are never seen.
- A transfer that can only fail, because its reader has gone while bytes are left, is given up at once: a source that is
  silent would let no write find that out.
- A write end has one owner. The lock guards the books and is never held while anything can block; it is why all this
  is one file.
"""

from __future__ import annotations

import fcntl
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from itertools import count
from typing import NamedTuple, TypeVar

from ... import log
from ...content import start_thread, undo_on_error
from ...errors import CipError, ErrorCode, InvalidInputError, PeerError, Phase, system_reason
from ..problem import unforeseen
from .packets import ERROR_OBJECT_LIMIT, encode_error_object

PIPE_ID_LIMIT = 2**32 - 1  # clients keep ids in 32 bits
_DEFAULT_CAPACITY = 64 * 1024  # bytes that the kernel gives a pipe
_WIDE_CAPACITY = 1024 * 1024  # bytes; at 64 KiB the two sides wait for each other, which costs half the speed
# The pages of all pipes of a user are bounded (pipe-user-pages-soft: 64 MiB); beyond, every program of that user gets
# pipes of 8 KiB. So a parent that leaves hundreds unfinished must not have wide ones.
_WIDE_PIPES = 32
IDLE_SECONDS = 0.2  # after which a thread without a transfer ends
WAITING_LIMIT = 16 * 1024 * 1024  # bytes of documents that their parent has not read; one may always wait
WORKER_LIMIT = 1024  # transfers that have not ended; each costs 50 KB, however little of it was read

T = TypeVar("T")
Write = Callable[[memoryview], object]
Job = Callable[["Transfer"], object]
Cancel = Callable[[], None]  # calls a job off, from another thread; it may take its time


def _nothing() -> None:
    """Let the job find out by itself."""


class Opened(NamedTuple):
    """A transfer and the read ends of its pipes, which belong to the caller; a raw one has an error pipe and no id."""

    transfer: Transfer
    fds: tuple[int, ...]
    pipe_id: int = 0


class Bell:
    """Wakes a poll from other threads. `close` and `ring` may come in any order."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """What to poll for reading."""
        return self._fd

    def ring(self) -> None:
        """Make the descriptor readable."""
        with self._lock:
            if self._fd >= 0:
                os.eventfd_write(self._fd, 1)

    def hush(self) -> None:
        """Make the descriptor unreadable again."""
        with suppress(BlockingIOError):  # it was not ringing
            os.eventfd_read(self._fd)

    def close(self) -> None:
        """Release the descriptor."""
        with self._lock:
            os.close(self._fd)
            self._fd = -1


class Transfer:
    """A data pipe that is being filled; all its state belongs to `Pipes`.

    `answered` is set by the worker, and by `Pipes.announce`; `refusal` by a failure before either.
    """

    def __init__(self, write_fd: int, ring: Callable[[], None]) -> None:
        self.write_fd = write_fd
        self._ring = ring
        self.answered = False
        self.refusal: CipError | None = None
        self.left = 0  # bytes still to be written; not above 0 while nobody knows
        self.cancel: Cancel = _nothing
        self.digest: str | None = None  # of the blob

    @property
    def is_known(self) -> bool:
        """Whether its reply needs to wait no longer."""
        return self.answered or self.refusal is not None

    def answer(self) -> None:
        """Told that the source has answered, or that its answer is not to be waited for."""
        if not self.answered:
            self.answered = True
            self._ring()

    def write(self, part: memoryview) -> None:
        """Write to the pipe, waiting for its reader: the source has answered. Raises PeerError once that has gone."""
        self.answer()
        self.left -= len(part)  # beforehand: a reader that has seen the last byte may leave
        try:
            while len(part):
                part = part[os.write(self.write_fd, part) :]
        except BrokenPipeError as error:
            raise self.reader_gone() from error

    def reader_gone(self) -> PeerError:
        """The error of a pipe without a reader."""
        phase = Phase.BLOB if self.digest else None
        return PeerError("the parent closed its end of the pipe: broken pipe", phase=phase, digest=self.digest)


class Feed(Transfer):
    """A finish-type pipe. `error` counts once it has `ended`; the write end is the worker's until it is `idle`."""

    ended = idle = False
    error: CipError | None = None


class _Raw(Transfer):
    """A raw transfer, whose write ends its worker closes; `error_fd` is negative when `give_up` has closed it."""

    error_fd = -1


class Pipes:
    """All pipes of one conversation. `bell` rings whenever a source has answered or a finish-type pipe has ended.

    What polls `fileno` for reading calls `give_up`, from whichever thread, so that those whose readers have gone end.
    Behind it is an epoll, because a poll keeps what it waits for open: the parent would not see the end of a pipe. What
    is not watched, or not any more, finds out by its next write.
    """

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._epoll = select.epoll()
        self._lock = threading.RLock()
        self._ids = count(1)
        self._wide: set[int] = set()  # write ends
        self._workers = self._waiting = 0
        self._named: dict[int, Feed] = {}  # until FinishPipe
        self._open: set[Feed] = set()  # until the write end is closed
        self._unsettled: set[_Raw] = set()
        self._stopped = self._closed = False
        self._job_there = threading.Condition(self._lock)
        self._jobs: deque[Callable[[], None]] = deque()  # for threads that are idle
        self._idle = 0  # threads without a job

    def fileno(self) -> int:
        """Readable when a reader has gone."""
        return self._epoll.fileno()

    def feed_bytes(self, data: bytes) -> Opened:
        """A finish-type pipe with `data` in it.

        Raises CipError (limit-exceeded) when the system has no more pipes, or too much is left unread.
        """
        opened, feed = self._open_feed(len(data))
        rest = memoryview(data)[_write_at_once(feed.write_fd, data) :]
        if len(rest):
            return self._work(opened, lambda transfer: transfer.write(rest), partial(self._end, feed), len(rest))
        self._end(feed, None)
        return opened

    def feed(self, job: Job, size: int, cancel: Cancel = _nothing, digest: str | None = None) -> Opened:
        """A finish-type pipe that `job` fills with `size` bytes (negative: unknown) in a thread of its own.

        `job` gets the transfer, whose `write` raises PeerError once the parent has closed its end; `cancel` is called
        when it did so meanwhile. `digest` is that of a blob, for errors.
        Raises CipError (limit-exceeded) when there are no more pipes or threads to be had; `job` does not run then.
        """
        opened, feed = self._open_feed(size)
        self._watch(feed, size, cancel, digest)
        return self._work(opened, job, partial(self._end, feed))

    def feed_raw(self, job: Job, size: int, cancel: Cancel = _nothing, digest: str | None = None) -> Opened:
        """A data pipe that `job` fills, and an error pipe that stays empty if it succeeds. Otherwise as `feed`."""
        data_read, data_write = self._make_pipe(size)
        with undo_on_error(partial(self._close, data_read, data_write)):
            error_read, error_write = self._make_pipe(ERROR_OBJECT_LIMIT)
        raw = _Raw(data_write, self._bell.ring)
        raw.error_fd = error_write
        with self._lock:
            self._unsettled.add(raw)
        self._watch(raw, size, cancel, digest)
        return self._work(Opened(raw, (data_read, error_read)), job, partial(self._end_raw, raw))

    def announce(self, opened: Opened) -> CipError | None:
        """To be called once, before the reply that hands out its pipes is sent: the error it has to say instead.

        What fails later is told by FinishPipe or by the error pipe; a pipe that was refused has no id any more.
        """
        with self._lock:
            if opened.transfer.refusal is None:
                opened.transfer.answered = True
            else:
                self._named.pop(opened.pipe_id, None)
            return opened.transfer.refusal

    def finish(self, pipe_id: int) -> Feed:
        """Forget the id of a pipe; `collect` has its verdict once it has ended. Raises InvalidInputError."""
        with self._lock:
            feed = self._named.pop(pipe_id, None)
        if feed is None:
            raise InvalidInputError(f"FinishPipe: there is no unfinished pipe {pipe_id}")
        return feed

    def collect(self, feed: Feed) -> CipError | None:
        """Close a pipe that has ended and say how; None is success."""
        with self._lock:
            self._close_feed(feed)
        return feed.error

    def give_up(self) -> None:
        """End the transfers whose readers have gone while bytes are left: they can only fail.

        FinishPipe and error pipes are told at once. The worker ends when its source does, and is called off.
        """
        with self._lock:  # from the question on: until it is over no number can become that of another pipe
            gone = [fd for fd, _ in self._epoll.poll(0)]  # each is told once
            feeds = [feed for feed in self._open if feed.write_fd in gone and feed.left > 0 and not feed.ended]
            raws = [raw for raw in self._unsettled if raw.write_fd in gone and raw.left > 0]
            for feed in feeds:
                feed.error = feed.reader_gone()
                feed.ended = True
            for raw in raws:
                _tell(raw.error_fd, raw.reader_gone())
                self._unsettled.discard(raw)
                error_fd, raw.error_fd = raw.error_fd, -1  # first: a signal may end this thread here
                os.close(error_fd)
        for each in (*feeds, *raws):
            try:
                start_thread(each.cancel, "pipe")  # not here: closing a file waits for the read that is under way
            except CipError as error:
                log.debug("a transfer without a reader goes on: %s", error)
        self._bell.ring()

    def close(self) -> None:
        """Let go of what `fileno` is, and of threads without a transfer; others may still be running."""
        self._epoll.close()
        with self._lock:
            self._closed = True
            self._job_there.notify_all()

    def _watch(self, transfer: Transfer, size: int, cancel: Cancel, digest: str | None) -> None:
        transfer.left, transfer.cancel, transfer.digest = size, cancel, digest
        if size > 0:
            with suppress(OSError, ValueError):  # too many are watched on this system; `close` was called
                # an error is told without being asked for
                self._epoll.register(transfer.write_fd, select.EPOLLONESHOT)

    def stop(self) -> None:
        """End for good: each unfinished raw transfer is told so, and nothing is kept open for FinishPipe."""
        stopped = CipError("the proxy was stopped before this transfer ended")
        with self._lock:
            self._stopped = True
            for raw in self._unsettled:
                _tell(raw.error_fd, stopped)
            self._unsettled.clear()
            for feed in list(self._open):
                self._close_feed(feed)

    def _open_feed(self, size: int) -> tuple[Opened, Feed]:
        read_fd, write_fd = self._make_pipe(size)
        feed = Feed(write_fd, self._bell.ring)
        with self._lock:
            numbers = (number % PIPE_ID_LIMIT or PIPE_ID_LIMIT for number in self._ids)
            pipe_id = next(number for number in numbers if number not in self._named)
            self._named[pipe_id] = feed
            self._open.add(feed)
        return Opened(feed, (read_fd,), pipe_id), feed

    def _work(self, opened: Opened, job: Job, end: Callable[[CipError | None], None], waiting: int = 0) -> Opened:
        """Let `job`, which holds `waiting` bytes, fill the pipe in a thread, and `end` hear how.

        Raises CipError, and nothing is left open then.
        """

        def run() -> None:
            outcome = outcome_of(lambda: job(opened.transfer))
            with self._lock:
                self._workers -= 1
                self._waiting -= waiting
            end(outcome if isinstance(outcome, CipError) else None)

        try:
            self._start(run, waiting)
        except CipError as error:
            for descriptor in opened.fds:
                os.close(descriptor)
            with self._lock:
                self._named.pop(opened.pipe_id, None)
            end(error)
            raise
        return opened

    def _start(self, run: Callable[[], None], waiting: int) -> None:
        """Run it in a thread, an idle one or a new one. Raises CipError (limit-exceeded)."""
        with self._lock:
            if waiting and self._waiting and self._waiting + waiting > WAITING_LIMIT:
                why = f"expected at most {WAITING_LIMIT} bytes of documents that wait in pipes, found more: read some"
                raise CipError(why, code=ErrorCode.LIMIT_EXCEEDED)
            if self._workers >= WORKER_LIMIT:
                why = f"expected at most {WORKER_LIMIT} pipes that are being filled, found more: read some to the end"
                raise CipError(why, code=ErrorCode.LIMIT_EXCEEDED)
            self._workers += 1
            self._waiting += waiting
            if self._idle:
                self._idle -= 1
                self._jobs.append(run)
                self._job_there.notify()
                return
        try:
            start_thread(partial(self._run_jobs, run), "pipe")
        except CipError:
            with self._lock:
                self._workers -= 1
                self._waiting -= waiting
            raise

    def _run_jobs(self, run: Callable[[], None]) -> None:
        """A thread: one transfer after the other, for a small one costs less than a thread."""
        while True:
            copy_context().run(run)
            del run  # it holds the image
            with self._lock:
                self._idle += 1
                while not self._jobs:
                    if self._closed or not (self._job_there.wait(IDLE_SECONDS) or self._jobs):
                        self._idle -= 1
                        return
                run = self._jobs.popleft()

    def _end(self, feed: Feed, error: CipError | None) -> None:
        with self._lock:
            feed.error = feed.error or _without_frames(error)
            _conclude(feed, feed.error)
            feed.ended = feed.idle = True
            feed.cancel = _nothing  # it holds the image
            if feed.error is not None or self._stopped:
                self._close_feed(feed)
        self._bell.ring()

    def _end_raw(self, raw: _Raw, error: CipError | None) -> None:
        with self._lock:
            if raw in self._unsettled:  # else `give_up` or `stop` has spoken
                self._unsettled.discard(raw)
                if error is not None and raw.answered:
                    _tell(raw.error_fd, error)
                _conclude(raw, _without_frames(error))
        self._bell.ring()
        self._close(raw.write_fd, raw.error_fd)

    def _make_pipe(self, size: int) -> tuple[int, int]:
        """Read end and write end."""
        try:
            read_fd, write_fd = os.pipe()
        except OSError as error:
            raise CipError(f"cannot make a pipe: {system_reason(error)}", code=ErrorCode.LIMIT_EXCEEDED) from error
        with self._lock:
            if 0 <= size <= _DEFAULT_CAPACITY or len(self._wide) >= _WIDE_PIPES:
                return read_fd, write_fd
            self._wide.add(write_fd)
        # EPERM: this user has many pipes, or may have none that wide; a narrow one works too
        with suppress(OSError):
            fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, min(size, _WIDE_CAPACITY) if size > 0 else _WIDE_CAPACITY)
        return read_fd, write_fd

    def _close(self, *descriptors: int) -> None:
        """Close those that are not closed, which are negative."""
        with self._lock:
            for descriptor in descriptors:
                if descriptor >= 0:
                    # beforehand: an entry lives as long as any copy of the descriptor, even in a child
                    with suppress(OSError, ValueError):
                        self._epoll.unregister(descriptor)
                    self._wide.discard(descriptor)
                    os.close(descriptor)

    def _close_feed(self, feed: Feed) -> None:
        """Close the write end if it is open and nobody's; called with the lock held."""
        if feed.idle and feed in self._open:
            self._open.discard(feed)
            self._close(feed.write_fd)


def outcome_of(action: Callable[[], T]) -> T | CipError:
    """What `action` returns, or the error that it raises; nothing is raised, for somebody waits for the outcome."""
    failed = CipError("internal error")  # made before: there may be no memory left when it is needed
    try:
        return action()
    except CipError as error:
        return error
    except Exception as error:  # the one broad except of this front end
        with suppress(Exception):
            return unforeseen(error)
        return failed


def _conclude(transfer: Transfer, error: CipError | None) -> None:
    """Note a failure for the reply if that has still to leave; called with the lock held."""
    if not transfer.answered:
        transfer.refusal = error
        transfer.answered = error is None


def _without_frames(error: CipError | None) -> CipError | None:
    """It may be kept for long, the frames it came through and their buffers must not."""
    if error is not None:
        error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def _tell(error_fd: int, error: CipError) -> None:
    """Write the error object, which the empty pipe takes whole."""
    with suppress(BrokenPipeError):  # the parent does not want to know
        os.write(error_fd, encode_error_object(error))


def _write_at_once(descriptor: int, data: bytes) -> int:
    """Write what the pipe takes without waiting; the number of bytes."""
    os.set_blocking(descriptor, False)
    try:
        return os.write(descriptor, data) if data else 0
    except BlockingIOError:
        return 0
    finally:
        os.set_blocking(descriptor, True)

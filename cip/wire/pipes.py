# SPDX-License-Identifier: Apache-2.0
"""Workers that fill the pipes of the JSON protocol (wire.md section 5).

Rules.
- What goes into a pipe never delays a reply: each transfer has a thread of its own, started at once. Content that the
  buffer of its pipe takes needs none.
- A finish-type pipe that succeeded stays open until FinishPipe; one that failed closes at once, and its id tells why
  when FinishPipe asks.
- A raw transfer is settled exactly once, by its worker or by `stop`, and its error pipe is written before the data
  pipe closes: an empty error pipe always means a complete blob.
- A write end has one owner. The lock guards the books and is never held while anything can block.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from itertools import count
from typing import TypeVar

from .. import log
from ..errors import CipError, ErrorCode, InvalidInputError, PeerError
from ..values import NamedTuple
from .packet import ERROR_OBJECT_LIMIT, encode_error_object
from .status import frames_of

PIPE_ID_LIMIT = 2**32 - 1  # clients keep ids in 32 bits
_DEFAULT_CAPACITY = 64 * 1024  # bytes that the kernel gives a pipe
_WIDE_CAPACITY = 1024 * 1024  # bytes; at 64 KiB the two sides wait for each other, which costs half the speed
# The pages of all pipes of a user are bounded (pipe-user-pages-soft: 64 MiB); beyond, every program of that user gets
# pipes of 8 KiB. So a parent that leaves hundreds unfinished must not have wide ones.
_WIDE_PIPES = 32

T = TypeVar("T")
Write = Callable[[memoryview], object]
Job = Callable[[Write], object]


class Opened(NamedTuple):
    """A new pipe for the parent. `read_fd` belongs to the caller."""

    pipe_id: int
    read_fd: int


class OpenedRaw(NamedTuple):
    """The two new pipes of a raw transfer. Both descriptors belong to the caller."""

    data_fd: int
    error_fd: int


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
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return  # it was not ringing

    def close(self) -> None:
        """Release the descriptor."""
        with self._lock:
            os.close(self._fd)
            self._fd = -1


class Feed:
    """A finish-type pipe; all its state belongs to `Pipes`. `error` counts once `ended` is set."""

    def __init__(self, write_fd: int, *, wide: bool) -> None:
        self.write_fd = write_fd
        self.wide = wide
        self.ended = False
        self.error: CipError | None = None


class _Raw:
    """The write ends of a raw transfer, which its worker closes."""

    def __init__(self, data_fd: int, error_fd: int, *, wide: bool) -> None:
        self.data_fd = data_fd
        self.error_fd = error_fd
        self.wide = wide


class Pipes:
    """All pipes of one conversation. `bell` rings whenever the content of a finish-type pipe has ended."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._lock = threading.Lock()
        self._ids = count(1)
        self._wide = 0
        self._named: dict[int, Feed] = {}  # until FinishPipe
        self._open: set[Feed] = set()  # until the write end is closed
        self._unsettled: set[_Raw] = set()
        self._stopped = False

    def feed_bytes(self, data: bytes) -> Opened:
        """A finish-type pipe with `data` in it. Raises CipError (limit-exceeded) when the system has no more pipes."""
        opened, feed = self._open_feed(len(data))
        rest = memoryview(data)[_write_at_once(feed.write_fd, data) :]
        if len(rest):
            self._work(feed, opened, lambda write: write(rest))
        else:
            self._end(feed, None)
        return opened

    def feed(self, job: Job, size: int) -> Opened:
        """A finish-type pipe that `job` fills in a thread of its own; `size` in bytes is a hint, negative: unknown.

        `job` gets a function that writes to the pipe and raises PeerError once the parent has closed its end.
        Raises CipError (limit-exceeded) when the system has no more pipes or threads; `job` does not run then.
        """
        opened, feed = self._open_feed(size)
        self._work(feed, opened, job)
        return opened

    def feed_raw(self, job: Job, size: int) -> OpenedRaw:
        """A data pipe that `job` fills, and an error pipe that stays empty if it succeeds. Otherwise as `feed`."""
        data_read, data_write, wide = self._make_pipe(size)
        try:
            error_read, error_write, _ = self._make_pipe(ERROR_OBJECT_LIMIT)
        except CipError:
            self._close(data_read, data_write, wide=wide)
            raise
        raw = _Raw(data_write, error_write, wide=wide)
        with self._lock:
            self._unsettled.add(raw)

        def run() -> None:
            outcome = outcome_of(lambda: job(_writer(raw.data_fd)))
            self._settle(raw, outcome if isinstance(outcome, CipError) else None)
            self._close(raw.data_fd, raw.error_fd, wide=raw.wide)

        try:
            _start(run)
        except CipError:
            with self._lock:
                self._unsettled.discard(raw)
            self._close(data_read, data_write, error_read, error_write, wide=wide)
            raise
        return OpenedRaw(data_read, error_read)

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

    def stop(self) -> None:
        """End for good: each unfinished raw transfer is told so, and nothing is kept open for FinishPipe."""
        stopped = CipError("the proxy was stopped before this transfer ended")
        with self._lock:
            self._stopped = True
            for raw in self._unsettled:
                _tell(raw.error_fd, stopped)
            self._unsettled.clear()
            for feed in [feed for feed in self._open if feed.ended]:
                self._close_feed(feed)

    def _open_feed(self, size: int) -> tuple[Opened, Feed]:
        read_fd, write_fd, wide = self._make_pipe(size)
        feed = Feed(write_fd, wide=wide)
        with self._lock:
            pipe_id = next(self._ids) % PIPE_ID_LIMIT or PIPE_ID_LIMIT
            while pipe_id in self._named:
                pipe_id = next(self._ids) % PIPE_ID_LIMIT or PIPE_ID_LIMIT
            self._named[pipe_id] = feed
            self._open.add(feed)
        return Opened(pipe_id, read_fd), feed

    def _work(self, feed: Feed, opened: Opened, job: Job) -> None:
        def run() -> None:
            outcome = outcome_of(lambda: job(_writer(feed.write_fd)))
            self._end(feed, outcome if isinstance(outcome, CipError) else None)

        try:
            _start(run)
        except CipError as error:
            os.close(opened.read_fd)
            with self._lock:
                del self._named[opened.pipe_id]
            self._end(feed, error)
            raise

    def _end(self, feed: Feed, error: CipError | None) -> None:
        if error is not None:  # it may be kept for long, the frames it came through and their buffers must not
            error.__traceback__ = error.__cause__ = error.__context__ = None
        with self._lock:
            feed.error = error
            feed.ended = True
            if error is not None or self._stopped:
                self._close_feed(feed)
        self._bell.ring()

    def _settle(self, raw: _Raw, error: CipError | None) -> None:
        with self._lock:
            if raw in self._unsettled:  # else `stop` has spoken
                self._unsettled.discard(raw)
                if error is not None:
                    _tell(raw.error_fd, error)

    def _make_pipe(self, size: int) -> tuple[int, int, bool]:
        """Read end, write end, and whether the pipe is a wide one."""
        try:
            read_fd, write_fd = os.pipe()
        except OSError as error:
            raise CipError(f"cannot make a pipe: {error.strerror}", code=ErrorCode.LIMIT_EXCEEDED) from error
        if 0 <= size <= _DEFAULT_CAPACITY:
            return read_fd, write_fd, False
        with self._lock:
            wide = self._wide < _WIDE_PIPES
            self._wide += wide
        if wide:
            try:
                fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, min(size, _WIDE_CAPACITY) if size > 0 else _WIDE_CAPACITY)
            except OSError:
                pass  # EPERM: this user has many pipes, or may have none that wide; a narrow one works too
        return read_fd, write_fd, wide

    def _close(self, *descriptors: int, wide: bool) -> None:
        for descriptor in descriptors:
            os.close(descriptor)
        with self._lock:
            self._wide -= wide

    def _close_feed(self, feed: Feed) -> None:
        """Close the write end if it is open; called with the lock held."""
        if feed in self._open:
            self._open.discard(feed)
            self._wide -= feed.wide
            os.close(feed.write_fd)


def outcome_of(action: Callable[[], T]) -> T | CipError:
    """What `action` returns, or the error it raises; a mistake of ours is logged and becomes `internal error`."""
    try:
        return action()
    except CipError as error:
        return error
    except Exception as error:  # the one broad except of this front end
        log.error("internal error: %s", frames_of(error))
        return CipError("internal error")


def _tell(error_fd: int, error: CipError) -> None:
    """Write the error object, which the empty pipe takes whole."""
    try:
        os.write(error_fd, encode_error_object(error))
    except BrokenPipeError:
        return  # the parent does not want to know


def _writer(descriptor: int) -> Write:
    def write(part: memoryview) -> None:
        try:
            while len(part):
                part = part[os.write(descriptor, part) :]
        except BrokenPipeError as error:
            raise PeerError("the parent closed its end of the pipe: broken pipe") from error

    return write


def _write_at_once(descriptor: int, data: bytes) -> int:
    """Write what the pipe takes without waiting; the number of bytes."""
    os.set_blocking(descriptor, False)
    try:
        return os.write(descriptor, data) if data else 0
    except BlockingIOError:
        return 0
    finally:
        os.set_blocking(descriptor, True)


def _start(run: Callable[[], None]) -> None:
    """Run a worker. It is a daemon: nothing may keep a process that was told to stop."""
    try:
        threading.Thread(target=run, name="pipe", daemon=True).start()
    except RuntimeError as error:  # EAGAIN: the limit on processes, or no memory for a stack
        raise CipError(f"cannot start a thread for the transfer: {error}", code=ErrorCode.LIMIT_EXCEEDED) from error

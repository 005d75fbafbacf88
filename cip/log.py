# SPDX-License-Identifier: Apache-2.0
"""Log lines on stderr: `container-image-proxy: LEVEL: message`.

Rules. A line is one `write` call, so lines of threads and processes never mix. A line never blocks: where nobody reads
stderr, lines are dropped, and counted when one gets through again; a thread that has to wait all the same, which
`own_stderr` tells of, stops no other and not the end of the process. A warning is given once.

Not the standard `logging`: its handlers wait for a full pipe while they hold a lock that every other thread needs, and
its configuration belongs to the whole process, of which a vendored copy is not the master.
"""

from __future__ import annotations

import fcntl
import os
import select
import stat
import threading
from enum import IntEnum
from typing import ClassVar

PROGRAM = "container-image-proxy"
STDERR = 2
LINE_LIMIT = 4096  # bytes of one line, so that a pipe takes it whole or not at all
LOCK_SECONDS = 0.1  # for which a line waits for another one
REMEMBERED_LIMIT = 1000  # warnings; those beyond it may be given again


class Level(IntEnum):
    """Severity; lines below the threshold are not written."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40
    SILENT = 50


class _Stream:
    """Where lines go and from which level on, set once by `cli` before the first request; and what became of them."""

    threshold = Level.WARNING
    descriptor = STDERR
    lock = threading.Lock()
    dropped = 0  # lines since the last one that was written
    torn = b""  # what ends a line of which a terminal took a part
    warned: ClassVar[set[str]] = set()
    warned_lock = threading.Lock()


def set_threshold(level: Level) -> None:
    """Write only lines of `level` and above from now on."""
    _Stream.threshold = level


def own_stderr() -> None:
    """Write to stderr through a descriptor of our own, which does not wait; the one that the parent gave may be shared.

    So of a terminal, which says that there is room when a line needs more. Without it, as where the system lets nobody
    open a pipe or terminal again, such a terminal or a writer beside us can make us wait.
    """
    try:
        if stat.S_ISFIFO(os.fstat(STDERR).st_mode) or os.isatty(STDERR):
            opened = os.open(f"/proc/self/fd/{STDERR}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
            # not in place of a stdin or stdout that is closed
            _Stream.descriptor = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, STDERR + 1)
            os.close(opened)
    except OSError:
        return


def debug(message: str, *arguments: object) -> None:
    """Each request, each trust decision with its reason."""
    _write(Level.DEBUG, message, arguments)


def info(message: str, *arguments: object) -> None:
    """What an operator wants to see once per run."""
    _write(Level.INFO, message, arguments)


def warning(message: str, *arguments: object) -> None:
    """Allowed, but weaker than the user may think. The same words are written once."""
    text = message % arguments if arguments else message
    with _Stream.warned_lock:
        if text in _Stream.warned:
            return
        if len(_Stream.warned) < REMEMBERED_LIMIT and _Stream.threshold <= Level.WARNING:
            _Stream.warned.add(text)
    _write(Level.WARNING, "%s", (text,))


def error(message: str, *arguments: object) -> None:
    """A failure, told once, at the boundary."""
    _write(Level.ERROR, message, arguments)


def printable(line: str) -> str:
    """`line`, escaped where it is needed: a second line would be a forged one, and a terminal obeys sequences."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)


def _write(level: Level, message: str, arguments: tuple[object, ...]) -> None:
    if level < _Stream.threshold:
        return
    text = message % arguments if arguments else message
    line = printable(f"{PROGRAM}: {level.name}: {text}")
    data = line.encode("utf-8", "backslashreplace")[: LINE_LIMIT - 1] + b"\n"
    _put_in_turn(data)


def tell_dropped() -> None:
    """Say how many lines are missing, if any are and there is room to say it."""
    _put_in_turn(b"")


def _put_in_turn(line: bytes) -> None:
    """Say how many lines are missing, then write `line`, if any; one that finds the stream taken is lost uncounted."""
    if not _Stream.lock.acquire(timeout=LOCK_SECONDS):
        return
    try:
        count = f"{PROGRAM}: WARNING: {_Stream.dropped} log lines were dropped: nobody read them\n".encode("ascii")
        left = _Stream.dropped if _Stream.dropped and not _put(count) else 0
        _Stream.dropped = left + (bool(line) and (left > 0 or not _put(line)))
    finally:
        _Stream.lock.release()


def _put(data: bytes) -> bool:
    """Write one line; False when it would have to wait. A stderr that is gone takes everything."""
    poller = select.poll()
    poller.register(_Stream.descriptor, select.POLLOUT)
    try:
        if not poller.poll(0):
            return False
        data = _Stream.torn + data
        _Stream.torn = b"" if os.write(_Stream.descriptor, data) == len(data) else b"\n"
    except BlockingIOError:
        return False
    except OSError:
        return True  # a log line must never stop an update
    return True

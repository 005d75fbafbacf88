# SPDX-License-Identifier: Apache-2.0
"""Log lines on stderr: `container-image-proxy: LEVEL: message`.

Not the standard `logging`: its import alone costs a tenth of the time a parent waits for a manifest, and one
program with one stream needs none of its machinery. A line is one `write` call, so lines of threads never mix.
"""

from __future__ import annotations

import os
from enum import IntEnum

PROGRAM = "container-image-proxy"
STDERR = 2
LINE_LIMIT = 4096  # bytes of one line, so that a pipe takes it whole


class Level(IntEnum):
    """Severity; lines below the threshold are not written."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40
    SILENT = 50


class _Stream:
    """Where lines go and from which level on; set once by `cli`, before the first request."""

    threshold = Level.WARNING
    descriptor = STDERR


def set_threshold(level: Level) -> None:
    """Write only lines of `level` and above from now on."""
    _Stream.threshold = level


def debugging() -> bool:
    """Whether DEBUG lines are written; ask before composing an expensive one."""
    return _Stream.threshold <= Level.DEBUG


def debug(message: str, *arguments: object) -> None:
    """Each request, each trust decision with its reason."""
    _write(Level.DEBUG, message, arguments)


def info(message: str, *arguments: object) -> None:
    """What an operator wants to see once per run."""
    _write(Level.INFO, message, arguments)


def warning(message: str, *arguments: object) -> None:
    """Allowed, but weaker than the user may think."""
    _write(Level.WARNING, message, arguments)


def error(message: str, *arguments: object) -> None:
    """A failure, told once, at the boundary."""
    _write(Level.ERROR, message, arguments)


def _write(level: Level, message: str, arguments: tuple[object, ...]) -> None:
    if level < _Stream.threshold:
        return
    text = message % arguments if arguments else message
    line = f"{PROGRAM}: {level.name}: {text}"
    if not line.isprintable():  # a second line would be a forged one, and a terminal obeys escape sequences
        line = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)
    data = line.encode("utf-8", "backslashreplace")
    try:
        os.write(_Stream.descriptor, data[: LINE_LIMIT - 1] + b"\n")
    except OSError:
        return  # stderr is gone or full; a log line must never stop an update

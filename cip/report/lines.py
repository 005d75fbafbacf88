# SPDX-License-Identifier: Apache-2.0
"""Writes JSON objects to a descriptor, one a line (decisions.md section 6).

A reader of these lines can never slow or stop a transfer: lines wait in a bounded queue that one thread empties,
progress lines of one blob replace each other there, and a reader that lets the queue fill is cut off.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from .. import log
from ..content import start_thread
from ..errors import CipError, system_reason

VERSION = 1
QUEUE_LIMIT = 256 * 1024  # bytes of lines that are not progress


class LineWriter:
    """Writes lines to a descriptor that it owns, from a thread of its own. `name` is for the log."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self._condition = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._progress: dict[str, bytes] = {}
        self._waiting = 0
        self._queued = self._written = 0  # lines that are not progress
        self._writing = False
        self._thread: threading.Thread | None = None
        self._calls: deque[Callable[[], object]] = deque()
        self._closed = False

    def write(self, members: Mapping[str, object], within: float) -> bool:
        """Whether one line reached the descriptor whole, and all before it, within so many seconds."""
        with self._condition:
            mine = self._queued + 1
            self.put(members)
            self._condition.wait_for(lambda: self._closed or self._written >= mine, within)
            return self._written >= mine

    def put(self, members: Mapping[str, object], *, replaces: str | None = None, ends: str | None = None) -> None:
        """Queue one line. With `replaces` it takes the place of a waiting one with that key; `ends` drops that one."""
        line = json.dumps(members, separators=(",", ":"), default=str).encode() + b"\n"
        with self._condition:
            if self._closed:
                return
            if replaces is not None:
                self._progress[replaces] = line
            else:
                if self._waiting + len(line) > QUEUE_LIMIT:
                    self._cut_off("its reader is too slow")
                    return
                self._lines.append(line)
                self._queued += 1
                self._waiting += len(line)
                self._progress.pop(ends or "", None)
            if self._thread is None:
                try:
                    self._thread = start_thread(self._run, self._name)
                except CipError as error:
                    self._cut_off(str(error))
                    os.close(self._descriptor)
                    return
            self._condition.notify()

    def in_thread(self, call: Callable[[], object], within: float) -> bool:
        """Run `call` in the thread that writes, if there is one; whether it has done so within so many seconds."""
        done = threading.Event()

        def run() -> None:
            call()
            done.set()

        with self._condition:
            if self._thread is None:
                return True
            self._calls.append(run)
            self._condition.notify_all()
        return done.wait(max(0.0, within))

    def close(self, within: float) -> None:
        """Write what waits, for at most `within` seconds, and close the descriptor."""
        with self._condition:
            if self._closed and self._thread is None:
                return
            deadline = time.monotonic() + within
            while (self._lines or self._progress or self._writing) and not self._closed:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._condition.wait(left)
            idle = not self._writing
            self._closed = True
            self._condition.notify_all()
            thread = self._thread
        if thread is not None and idle:
            thread.join()
        if thread is None:
            os.close(self._descriptor)

    def _cut_off(self, why: str) -> None:
        """Stop for good; called with the lock held."""
        self._closed = True
        self._lines.clear()
        self._progress.clear()
        log.warning("%s: no more lines are written: %s", self._name, why)
        self._condition.notify_all()

    def _run(self) -> None:
        try:
            while True:
                with self._condition:
                    self._writing = False
                    self._condition.notify_all()
                    while not (self._lines or self._progress or self._closed or self._calls):
                        self._condition.wait()
                    if self._closed:
                        return
                    call = self._calls.popleft() if self._calls else None
                    if call is None:
                        counts, line = self._next()
                if call is not None:
                    call()
                    continue
                try:
                    _write_whole(self._descriptor, line)
                    self._written += counts
                except OSError as error:
                    with self._condition:
                        if not self._closed:
                            self._cut_off(system_reason(error))
                        return
        finally:
            os.close(self._descriptor)

    def _next(self) -> tuple[bool, bytes]:
        """The next line, and whether it is not progress; called with the lock held."""
        self._writing = True
        if not self._lines:
            return False, self._progress.pop(next(iter(self._progress)))
        line = self._lines.popleft()
        self._waiting -= len(line)
        return True, line


def _write_whole(descriptor: int, line: bytes) -> None:
    view = memoryview(line)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # somebody who shares the descriptor says since that nobody waits on it
            import select

            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()

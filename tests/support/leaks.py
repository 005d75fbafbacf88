# SPDX-License-Identifier: Apache-2.0
"""A test case that fails when a test leaves a descriptor, a thread or a file behind."""

from __future__ import annotations

import ctypes  # noqa: F401 - some libffi keep their own file open from the first import on, in whichever test
import os
import tempfile
import threading
import time
import unittest
from pathlib import Path

_SECONDS = 10  # that a thread with nothing left to do may take to end on a loaded machine


def await_end(thread: threading.Thread, seconds: float = _SECONDS) -> None:
    """Wait until a thread has ended; one that is about to start is enumerated already and cannot be joined yet."""
    deadline = time.monotonic() + seconds
    while thread in threading.enumerate() and time.monotonic() < deadline:
        time.sleep(0.002)


class LeakCheckedTestCase(unittest.TestCase):
    """Gives each test a `directory` of its own and counts what is open before and after it."""

    directory: Path

    def setUp(self) -> None:
        super().setUp()
        self._threads = set(threading.enumerate())
        self._descriptors = open_descriptors()
        scratch = tempfile.TemporaryDirectory()
        self.directory = Path(os.path.realpath(scratch.name))
        # Clean-ups run last in, first out: those that a test adds come before this one.
        self.addCleanup(self._require_nothing_left)
        self.addCleanup(scratch.cleanup)

    def _require_nothing_left(self) -> None:
        deadline = time.monotonic() + _SECONDS
        while set(threading.enumerate()) - self._threads and time.monotonic() < deadline:
            time.sleep(0.005)
        left = {number: target for number, target in open_descriptors().items() if number not in self._descriptors}
        self.assertEqual(left, {}, "descriptors left open")
        self.assertEqual(set(threading.enumerate()) - self._threads, set(), "threads left running")


def open_descriptors() -> dict[int, str]:
    """The descriptors of this process and what they are open on."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the one that listed them
    return found

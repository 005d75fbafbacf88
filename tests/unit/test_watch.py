# SPDX-License-Identifier: Apache-2.0
"""What ends a process from beside its conversation; signals are in tests/integration/test_watch.py."""

from __future__ import annotations

import socket
import threading
import unittest
from unittest import mock

from cip.content import start_thread
from cip.watch import Watch

LIMIT = 30.0  # seconds; nothing here takes a tenth of one


class Stalled:
    """A conversation whose parent is at the other end of a socket pair."""

    exit_status = 0

    def __init__(self) -> None:
        self.parent, self._sock = socket.socketpair()
        self.abandoned = 0

    def begin(self) -> bool:
        return True

    def run(self) -> None:
        return

    def fileno(self) -> int:
        return self._sock.fileno()

    def status_after_hang_up(self) -> int:
        return 7

    def abandon(self) -> None:
        self.abandoned += 1

    def close(self) -> None:
        self.parent.close()
        self._sock.close()


class HangUp(unittest.TestCase):
    def setUp(self) -> None:
        self.enterContext(mock.patch("cip.watch.HANG_UP_GRACE", 0.05))
        self.conversation = Stalled()
        self.addCleanup(self.conversation.close)
        self.said: list[str] = []
        self.left = threading.Event()
        self.status: int | None = None
        self.watch = Watch(self.conversation, lambda: self.said.append("flushed"), self.leave)

    def leave(self, status: int) -> None:
        self.status = status
        self.left.set()

    def test_ends_a_conversation_that_does_not_notice_and_says_the_last_words_first(self) -> None:
        with self.watch:
            self.conversation.parent.close()
            self.assertTrue(self.left.wait(LIMIT))
        self.assertEqual((self.status, self.said, self.conversation.abandoned), (7, ["flushed"], 1))

    def test_leaves_one_alone_that_ends_by_itself(self) -> None:
        with mock.patch("cip.watch.HANG_UP_GRACE", LIMIT), self.watch:
            self.conversation.parent.close()
        self.assertIsNone(self.status)

    def test_is_seen_by_the_threads_that_follow_when_they_are_renewed(self) -> None:
        with self.watch, mock.patch("cip.watch.start_thread", side_effect=start_thread) as started:
            self.conversation.parent.close()
            self.watch.renew()
            self.assertEqual(started.call_count, 2)  # the first may be over already
            self.assertTrue(self.left.wait(LIMIT))
        self.assertEqual(self.status, 7)

    def test_is_not_taken_for_the_end_of_the_requests(self) -> None:
        with self.watch:
            self.conversation.parent.shutdown(socket.SHUT_WR)
            self.assertFalse(self.left.wait(0.2))

    def test_leaves_no_thread_behind(self) -> None:
        before = threading.enumerate()
        with self.watch:
            self.watch.renew()
        self.assertEqual(threading.enumerate(), before)


if __name__ == "__main__":
    unittest.main()

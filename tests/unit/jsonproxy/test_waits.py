# SPDX-License-Identifier: Apache-2.0
"""Which waits let the reply of a blob leave: a silent host's, whoever found that it is silent."""

import threading
import unittest
from contextlib import suppress

from cip.content import WAITS, start_thread
from cip.errors import ErrorCode, NetworkError
from cip.wire.jsonproxy.waits import SILENT_SECONDS, Silence, Told
from tests.support.parent import PATIENCE


class SilenceTest(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.told: list[bool] = []
        self.silence = Silence(lambda: self.now)
        self.waits = Told(lambda: self.told.append(True), self.silence)

    def test_a_host_owes_an_answer_until_its_request_has_ended_in_whatever_way(self) -> None:
        for fault in (NetworkError("lost"), RuntimeError("a mistake of ours"), None):
            with suppress(NetworkError, RuntimeError), self.waits.asking("r.example"):
                if fault is not None:
                    raise fault
            self.now += SILENT_SECONDS
        self.assertEqual(self.told, [])
        with self.waits.asking("r.example"):
            self.now += SILENT_SECONDS
            with suppress(NetworkError), self.waits.asking("r.example"):
                raise NetworkError("late", code=ErrorCode.TIMEOUT)
        self.assertEqual(self.told, [True])
        with self.waits.asking("other.example"):
            self.assertEqual(self.told, [True])

    def test_a_thread_that_reads_ahead_learns_of_it_and_answers_nothing(self) -> None:
        def ask() -> None:
            WAITS.get().begin()
            with suppress(NetworkError), WAITS.get().asking("r.example"):
                raise NetworkError("late", code=ErrorCode.TIMEOUT)

        reset = WAITS.set(self.waits)
        self.addCleanup(WAITS.reset, reset)
        thread: threading.Thread = start_thread(ask, "ahead")
        thread.join(PATIENCE)
        self.assertEqual(self.told, [])
        with self.waits.asking("r.example"):
            self.assertEqual(self.told, [True])


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""Signals that end a process from beside its conversation, taken by children."""

import signal
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 30.0  # seconds; nothing here takes a tenth of one

# A conversation that waits for ever, in a way that `{wait}` says, and is stopped just before; prints its last words.
CHILD = """
import os, signal, socket, sys, threading
sys.path.insert(0, {root!r})
from cip.watch import Watch, hold_signals
{before}
hold_signals()
ours, theirs = socket.socketpair()
class Conversation:
    exit_status = 0
    def fileno(self): return theirs.fileno()
    def status_after_hang_up(self): return 7
    def abandon(self): os.write(1, b"abandoned ")
def stop(): os.kill(os.getpid(), signal.{signal})
with Watch(Conversation(), lambda: os.write(1, b"flushed")) as watch:
    {wait}
    os.write(1, b"survived")
"""


class Signals(unittest.TestCase):
    def child(self, wait: str, *, number: str = "SIGTERM", before: str = "") -> tuple[int, str]:
        """Exit status and last words of a child that is stopped."""
        code = CHILD.format(root=str(ROOT), wait=wait, signal=number, before=before)
        done = subprocess.run(
            [sys.executable, "-I", "-c", f"import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)\n{code}"],
            check=False,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        self.assertEqual(done.stderr, "")
        return done.returncode, done.stdout

    def test_that_come_just_before_any_wait_end_it(self) -> None:
        for wait in (
            "stop(); os.read(theirs.fileno(), 1)",
            "stop(); theirs.recv(1)",
            "import select; stop(); select.poll().poll()",
            "stop(); threading.Event().wait()",
            "stop(); threading.Lock().acquire() and threading.Condition().acquire() and signal.pause()",
            "stop(); threading.Thread(target=signal.pause).run()",
            "stop(); watch.renew(); os.read(theirs.fileno(), 1)",
            "watch._stop(); stop(); watch._start(); os.read(theirs.fileno(), 1)",
        ):
            with self.subTest(wait):
                self.assertEqual(self.child(wait), (-signal.SIGTERM, "abandoned flushed"))

    def test_that_interrupt_do_the_same(self) -> None:
        self.assertEqual(
            self.child("stop(); os.read(theirs.fileno(), 1)", number="SIGINT"), (-signal.SIGINT, "abandoned flushed")
        )

    def test_that_the_process_ignores_stay_ignored(self) -> None:
        for number in ("SIGTERM", "SIGINT"):
            with self.subTest(number):
                ignored = f"signal.signal(signal.{number}, signal.SIG_IGN)"
                self.assertEqual(self.child("stop()", number=number, before=ignored), (0, "survived"))

    def test_end_the_first_process_of_a_container_too(self) -> None:
        code = CHILD.format(root=str(ROOT), wait="stop(); os.read(theirs.fileno(), 1)", signal="SIGTERM", before="")
        done = subprocess.run(
            ["unshare", "--pid", "--fork", sys.executable, "-I", "-c", code],
            check=False,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        if "Operation not permitted" in done.stderr:
            self.skipTest("this user may not make a process namespace")
        self.assertEqual((done.returncode, done.stdout), (128 + signal.SIGTERM, "abandoned flushed"))


if __name__ == "__main__":
    unittest.main()

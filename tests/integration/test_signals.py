# SPDX-License-Identifier: Apache-2.0
"""SIGTERM at every wait and at any moment: the program dies by it, whatever it waits for, on both protocols.

`CIP_SIGNALS` is how many moments are tried: 300 unless given, 10,000 for a long run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from cip.model.descriptor import digest_of
from tests.support import images
from tests.support.fakeimage import BIG
from tests.support.parent import MODULE, PATIENCE, ROOT
from tests.support.peers import clean_environment

MOMENTS = int(os.environ.get("CIP_SIGNALS", "300"))
BESIDE_EACH_OTHER = 3
SETTLED = 1.5  # seconds after which a conversation stands where it will stand
LOST = 10.0  # seconds after which a signal that was sent has not ended the program
SLOWEST = 0.4  # seconds after the start, within which a moment is chosen; the conversation stands well before
JSON = "experimental-image-proxy"

# The program, stopped by itself just before the wait number argv[1] of its main thread; each wait is told to stderr.
STOPPED = """
import os, select, signal, socket, sys, threading
sys.path.insert(0, sys.argv.pop(1))
chosen, count = int(sys.argv.pop(1)), 0
def before_wait():
    global count
    if threading.current_thread() is threading.main_thread():
        count += 1
        os.write(2, b"wait\\n")
        if count == chosen:
            os.kill(os.getpid(), signal.SIGTERM)
def stopping(wait):
    def stopped(*arguments, **named):
        before_wait()
        return wait(*arguments, **named)
    return stopped
class Poller:
    def __init__(self):
        self._poller = poll()
        self.register, self.unregister = self._poller.register, self._poller.unregister
        self.poll = stopping(self._poller.poll)
poll, select.poll = select.poll, Poller
for owner, names in (
    (os, ("readv", "writev", "read")), (socket.socket, ("recvmsg_into", "recv", "recv_into", "connect")),
    (threading.Condition, ("wait",)), (threading.Thread, ("join",)),
):
    for name in names:
        setattr(owner, name, stopping(getattr(owner, name)))
from cip import cli
cli.run()
"""


class Signals(unittest.TestCase):
    layout: images.Layout
    blob: str
    silent: str  # a registry that takes connections and says nothing
    environment: dict[str, str]

    @classmethod
    def setUpClass(cls) -> None:
        scratch = cls.enterClassContext(tempfile.TemporaryDirectory())
        cls.layout = images.Layout(Path(scratch, "layout"))
        layers = [images.LAYER_T, BIG]
        cls.layout.add_image(images.CONFIG_C, layers, images.manifest(images.CONFIG_C, layers), name="x")
        cls.blob = str(digest_of(BIG))
        listener = cls.enterClassContext(socket.create_server(("127.0.0.1", 0)))
        cls.silent = f"docker://127.0.0.1:{listener.getsockname()[1]}/a/b:t"
        cls.environment = clean_environment(Path(scratch))

    @contextmanager
    def child(self, command: Sequence[str], image: str, *, by_json: bool) -> Iterator[subprocess.Popen[bytes]]:
        """A proxy whose parent has asked for all that it will ever ask for, and reads nothing."""
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET if by_json else socket.SOCK_STREAM)
        words = [JSON] if by_json else [image]
        with ours:
            with theirs:
                process = subprocess.Popen(
                    [
                        *command,
                        "--insecure-policy",
                        "--tls-verify=false",
                        "--tmpdir=/tmp",
                        "--retry-times=0",
                        f"--sockfd={theirs.fileno()}",
                        *words,
                    ],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    cwd=ROOT,
                    env=self.environment,
                    start_new_session=True,
                )
            try:
                with suppress(BrokenPipeError):  # it has ended already
                    for packet in self.requests(image, by_json=by_json):
                        ours.send(packet)
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()

    def requests(self, image: str, *, by_json: bool) -> list[bytes]:
        if by_json:
            calls: list[tuple[str, list[object]]] = [
                ("Initialize", []),
                ("OpenImage", [image]),
                ("GetManifest", [1]),
                ("GetBlob", [1, self.blob, len(BIG)]),
                ("FinishPipe", [2]),
            ]
            return [json.dumps({"method": name, "args": arguments}).encode() for name, arguments in calls]
        targets = ("/manifest", f"/blobs/{self.blob}", f"/blobs/{self.blob}")
        return [f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for target in targets]

    def situations(self) -> Iterator[tuple[str, bool]]:
        for image in (f"oci:{self.layout.path}:x", self.silent):
            for by_json in (False, True):
                yield image, by_json

    def test_just_before_any_wait_is_not_lost(self) -> None:
        def stopped_at(number: int, image: str, by_json: bool) -> tuple[int, bytes]:
            command = [sys.executable, "-I", "-c", STOPPED, str(ROOT), str(number)]
            with self.child(command, image, by_json=by_json) as process:
                if not number:
                    time.sleep(SETTLED)
                    process.terminate()
                try:
                    _, said = process.communicate(timeout=LOST)
                except subprocess.TimeoutExpired:
                    process.terminate()
                    _, said = process.communicate(timeout=PATIENCE)
                    # threads may make it one wait fewer than the time before; then nothing was sent
                    self.assertLess(said.count(b"wait\n"), number, "a signal was lost")
                return process.returncode, said

        for image, by_json in self.situations():
            status, said = stopped_at(0, image, by_json)
            waits = said.count(b"wait\n")
            self.assertEqual(status, -signal.SIGTERM, said)
            self.assertGreater(waits, 1)
            with ThreadPoolExecutor(BESIDE_EACH_OTHER) as pool:
                found = list(pool.map(lambda number: stopped_at(number, image, by_json), range(1, waits + 1)))  # noqa: B023
            for number, (status, said) in enumerate(found, 1):
                with self.subTest(image.partition(":")[0], json=by_json, wait=number, of=waits):
                    self.assertEqual(status, -signal.SIGTERM, said)

    def test_at_any_moment_is_not_lost(self) -> None:
        chance = random.Random(20261128)
        situations = list(self.situations())
        plan = [(*chance.choice(situations), chance.uniform(0, SLOWEST)) for _ in range(MOMENTS)]

        def ended(image: str, by_json: bool, moment: float) -> tuple[int, bytes]:
            with self.child(MODULE, image, by_json=by_json) as process:
                time.sleep(moment)
                process.terminate()
                _, said = process.communicate(timeout=PATIENCE)
                return process.returncode, said

        with ThreadPoolExecutor(BESIDE_EACH_OTHER) as pool:
            found = list(pool.map(lambda row: ended(*row), plan))
        for row, (status, said) in zip(plan, found, strict=True):
            with self.subTest(row):
                self.assertEqual((status, b"Traceback" in said), (-signal.SIGTERM, False), said)


if __name__ == "__main__":
    unittest.main()

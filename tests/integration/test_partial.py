# SPDX-License-Identifier: Apache-2.0
"""`--partial-dir` through both front ends: killed at any moment, disturbed in every way, by two processes at once."""

import contextlib
import os
import random
import tempfile
import time
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path

from cip.model.descriptor import digest_of
from cip.partial.part import BLOCK
from tests.support.faultrun import BASE, Outcome, run_http, run_json
from tests.support.faulttable import BYTES, CUT, World
from tests.support.jsonparent import json_proxy, read_error_pipe, read_some, read_to_end
from tests.support.parent import HURRY, KILLS, MODULE, running
from tests.support.registry import (
    NAME,
    Exchange,
    Fault,
    FaultyHost,
    Strike,
    at,
    flipped,
    make_content,
    only_ranged,
    ranged,
    registry_of,
    status,
)

CONTENT = make_content(9 * BLOCK + 777)
LAYER = CONTENT.layer
DIGEST = digest_of(LAYER)
PART = f"sha256-{DIGEST.encoded}.part"
KEPT = 5  # blocks that are there when a disturbed run begins


class PartialCase(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.parts = Path(scratch.name, "parts")
        self.world = self.make_world()
        self.host = self.world.hosts["registry"]

    def make_world(self, *, takes_ranges: bool = True) -> World:
        host = FaultyHost(registry_of(CONTENT, takes_ranges=takes_ranges))
        self.addCleanup(host.close)
        options = ["--tls-verify=false", f"--partial-dir={self.parts}", *HURRY]
        return World(CONTENT, f"docker://{host.address}/{NAME}:t", options, hosts={"registry": host})

    def arm(self, fault: Fault, times: int | None = 1) -> None:
        self.host.strikes[:] = [Strike("blob", fault, times)]

    def first_bytes(self) -> list[int | None]:
        """Where each request for the layer began."""
        return [asked.first_byte for asked in self.host.asked if asked.target.endswith(str(DIGEST))]

    def keep_some(self) -> None:
        """What a process leaves that was killed in the middle."""
        self.host.strikes.clear()
        with raw_pipe(self.world) as data:
            read = 0
            while read < len(LAYER):
                read += len(read_some(data, 1 << 16))
        os.truncate(self.parts / PART, KEPT * BLOCK + 99)
        self.host.asked.clear()


@contextlib.contextmanager
def raw_pipe(world: World) -> Iterator[int]:
    """The data pipe of the layer."""
    with json_proxy(*BASE, *world.options) as proxy:
        image = proxy.parent.open(world.reference)
        reply = proxy.parent.ask("GetRawBlob", image, str(DIGEST))
        try:
            yield reply.fds[0]
            os.close(reply.fds[0])
        finally:
            with contextlib.suppress(OSError):
                os.close(reply.fds[1])


def run_raw(world: World, *options: str) -> Outcome:
    """Fetch the layer by GetRawBlob."""
    with json_proxy(*BASE, *options, *world.options, environment=world.environment) as proxy:
        image = proxy.parent.open(world.reference)
        reply = proxy.parent.ask("GetRawBlob", image, str(DIGEST))
        data = read_to_end(reply.fds[0])
        problem = read_error_pipe(reply.fds[1])
    if problem is not None:
        return Outcome(problem["details"]["type"], problem)
    return Outcome(BYTES if data == LAYER else "wrong", {})


RUNS: tuple[Callable[..., Outcome], ...] = (run_http, run_json, run_raw)


class Disturbed(PartialCase):
    def each(self, expected: tuple[str, str, str], fault: Fault, times: int | None = 1) -> None:
        """A part is there, the fault strikes what is fetched behind it."""
        for run, ended in zip(RUNS, expected, strict=True):
            with self.subTest(run.__name__):
                self.keep_some()
                self.arm(fault, times)
                self.assertEqual(run(self.world).ended, ended)
                self.assertEqual(self.first_bytes()[0], KEPT * BLOCK)
                self.host.strikes.clear()
                self.assertEqual(run(self.world).ended, BYTES, "the next process")

    def test_stall(self) -> None:
        self.each((BYTES, BYTES, BYTES), at(0.4, Exchange.stall))

    def test_cut(self) -> None:
        self.each((BYTES, BYTES, BYTES), at(0.4, Exchange.end))

    def test_reset_before_the_answer(self) -> None:
        self.each((BYTES, BYTES, BYTES), Exchange.reset)

    def test_wrong_bytes(self) -> None:
        self.each((CUT, "content-mismatch", "wrong"), only_ranged(flipped(0)))

    def test_wrong_range(self) -> None:
        fault = ranged(lambda first, total: f"bytes {first + 1}-{total - 1}/{total}")
        self.each((CUT, "registry-error", "registry-error"), fault)

    def test_416_is_read_again_from_the_beginning(self) -> None:
        self.each((BYTES, BYTES, BYTES), only_ranged(status(416)))

    def test_429(self) -> None:
        self.each((BYTES, BYTES, BYTES), status(429, Retry_After="0"), 2)

    def test_gone_for_good(self) -> None:
        self.each((CUT, "blob-not-found", "blob-not-found"), status(404), None)

    def test_a_server_without_ranges(self) -> None:
        self.keep_some()
        world = self.make_world(takes_ranges=False)
        for run in RUNS:
            os.truncate(self.parts / PART, KEPT * BLOCK)
            self.assertEqual(run(world).ended, BYTES)

    def test_a_damaged_part_is_fetched_again_from_where_it_is_damaged(self) -> None:
        for run in RUNS:
            self.keep_some()
            with (self.parts / PART).open("r+b") as file:
                file.seek(2 * BLOCK + 1)
                file.write(b"?")
            self.assertEqual(run(self.world).ended, BYTES)
            self.assertEqual(self.first_bytes(), [2 * BLOCK])

    def test_a_full_disk(self) -> None:
        """A file may not grow beyond 2 MiB: the kernel refuses the write that comes then."""
        limited = ("prlimit", f"--fsize={2 * BLOCK}", *MODULE)
        with running(*BASE, *self.world.options, self.world.reference, command=limited) as proxy:
            self.assertEqual(proxy.line.ask("GET", f"/blobs/{DIGEST}").body, LAYER)
        with json_proxy(*BASE, *self.world.options, command=(*limited, "experimental-image-proxy")) as json:
            image = json.parent.open(self.world.reference)
            self.assertEqual(json.parent.fetch_raw(image, DIGEST)[1:], (LAYER, None))
            self.assertEqual(json.parent.fetch("GetBlob", image, str(DIGEST), len(LAYER))[1], LAYER)
        self.assertEqual(self.first_bytes()[:2], [None, 2 * BLOCK])

    def test_two_processes_at_once(self) -> None:
        self.arm(paced, None)
        arguments = (*BASE, *self.world.options)
        with running(*arguments, self.world.reference) as one, json_proxy(*arguments) as two:
            image = two.parent.open(self.world.reference)
            reply = two.parent.ask("GetBlob", image, str(DIGEST), len(LAYER))
            answer = one.line.ask("GET", f"/blobs/{DIGEST}")
            self.assertEqual(answer.body, LAYER)
            two.parent.send("FinishPipe", reply.pipe_id)
            self.assertEqual(read_to_end(reply.fds[0]), LAYER)
            self.assertTrue(two.parent.reply().members["success"])
        self.assertEqual(sorted(path.name for path in self.parts.iterdir()), [PART, PART.replace("part", "sums")])
        self.host.asked.clear()
        for run in RUNS:
            self.assertEqual(run(self.world).ended, BYTES)
        self.assertEqual(self.first_bytes(), [], "it is complete")

    def test_confined_and_never_outside_its_directory(self) -> None:
        arguments = (*BASE, "--require-sandbox=write", *self.world.options)
        with running(*arguments, self.world.reference, status=None) as proxy:
            answer = proxy.line.ask("GET", f"/blobs/{DIGEST}")
            if answer.status == 501 and "no Landlock" in proxy.stderr():
                self.skipTest("this kernel has no Landlock")
            self.assertEqual(answer.body, LAYER)
        self.assertEqual((self.parts / PART).stat().st_size, len(LAYER))

    def test_a_directory_that_cannot_be_used_is_said_and_costs_nothing(self) -> None:
        self.parts.mkdir()
        self.parts.chmod(0o777)
        with running(*BASE, *self.world.options, self.world.reference) as proxy:
            self.assertEqual(proxy.line.ask("GET", f"/blobs/{DIGEST}").body, LAYER)
            self.assertIn("--partial-dir", proxy.stderr())
        self.assertEqual(list(self.parts.iterdir()), [])


def paced(exchange: Exchange) -> None:
    """The right answer at about 40 MB/s, so that there are moments to be killed at."""
    given = exchange.given
    exchange.send(given.head())
    for start in range(0, len(given.body), 1 << 16):
        exchange.send(given.body[start : start + (1 << 16)])
        time.sleep(0.0015)


class Killed(PartialCase):
    def test_a_kill_costs_a_block_at_most_and_the_bytes_are_right(self) -> None:
        self.arm(paced, None)
        chance = random.Random(19)
        ways = (self.kill_http, self.kill_json, self.kill_raw)
        got = 0  # bytes that the parent had received when the process was killed
        for number in range(KILLS):
            kill = ways[number % len(ways)]
            self.host.asked.clear()
            had, got = got, kill(chance.randrange(len(LAYER)))
            for first in self.first_bytes():
                self.assertGreater(first or 0, had - BLOCK, f"kill {number}: after {had} bytes asked for {first}")
            got = max(had, got)
            if number % 7 == 6:
                (self.parts / PART).unlink()
                got = 0
        self.host.strikes.clear()
        for run in RUNS:
            self.assertEqual(run(self.world).ended, BYTES)
        names = {path.name for path in self.parts.iterdir()}
        self.assertEqual(names, {PART, PART.replace("part", "sums")}, "nothing else is left")

    def kill_http(self, count: int) -> int:
        with running(*BASE, *self.world.options, self.world.reference, status=None) as proxy:
            proxy.line.send(f"GET /blobs/{DIGEST} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head, _, body = proxy.line._buffer, b"", b""
            while b"\r\n\r\n" not in head:
                head += proxy.line.channel.recv(1000)
            body = head.partition(b"\r\n\r\n")[2]
            while len(body) < count:
                body += proxy.line.channel.recv(1 << 16)
            proxy.process.kill()
            self.assertTrue(LAYER.startswith(body))
        return len(body)

    def kill_json(self, count: int) -> int:
        return self.kill_pipe(count, "GetBlob", str(DIGEST), len(LAYER))

    def kill_raw(self, count: int) -> int:
        return self.kill_pipe(count, "GetRawBlob", str(DIGEST))

    def kill_pipe(self, count: int, method: str, *arguments: object) -> int:
        with json_proxy(*BASE, *self.world.options, status=None) as proxy:
            image = proxy.parent.open(self.world.reference)
            reply = proxy.parent.ask(method, image, *arguments)
            body = b""
            while len(body) < count:
                body += read_some(reply.fds[0], 1 << 16)
            proxy.process.kill()
            self.assertTrue(LAYER.startswith(body))
            for descriptor in reply.fds:
                os.close(descriptor)
        return len(body)


if __name__ == "__main__":
    unittest.main()

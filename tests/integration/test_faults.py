# SPDX-License-Identifier: Apache-2.0
"""The table of faults, through both front ends: bytes or a typed error, in time, no secret told, nothing left."""

import contextlib
import json
import os
import random
import socket
import tempfile
import time
import unittest
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

from cip.content import Release, copy_verified
from cip.errors import CipError, ErrorCode
from cip.model.descriptor import Descriptor, digest_of
from cip.model.mediatype import OCI_MANIFEST
from cip.settings import TimeLimits
from tests.support import registry
from tests.support.faultrun import BASE, Outcome, json_proxy, run_http, run_json
from tests.support.faulttable import BYTES, ROWS, Certificates, Row, World, world_of
from tests.support.jsonparent import close_all, read_some, read_to_end
from tests.support.origins import Asked, Reply, Script, reply
from tests.support.parent import PATIENCE, running
from tests.support.registry import NAME, Exchange, Fault, FaultyHost, Strike, at, make_content, registry_of
from tests.unit.test_blob import CONTENT, DIGEST, BlobCase, obedient, partial, range_of, whole

# time that a fault costs is short, so that the table is: the defaults are tested under a fake clock
# but long enough for a machine that does something else meanwhile
SHORT = (
    "--idle-timeout=1.5",
    "--connect-timeout=1",
    "--retry-delay=0.01",
    "--retry-times=2",
    "--stall-timeout=6",
    "--open-timeout=8",
)
BOUND = 20.0  # seconds for any row, on a loaded machine
AT_ONCE = 6  # rows beside each other: most of their time they wait
WALKS = 500
LEAVING = 5.0  # seconds for an end that takes a fraction of one on an idle machine


# --- the table ---


class TableTest(unittest.TestCase):
    certificates: ClassVar[Certificates]

    @classmethod
    def setUpClass(cls) -> None:
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.certificates = Certificates(Path(scratch.name))

    def test_every_fault_ends_as_the_table_says_over_http(self) -> None:
        self.run_table(run_http, lambda row: row.outcome)

    def test_every_fault_ends_as_the_table_says_over_json(self) -> None:
        self.run_table(run_json, lambda row: row.json or row.outcome)

    def test_the_table_is_long_enough(self) -> None:
        self.assertGreaterEqual(len(ROWS), 80)
        self.assertEqual(len({row.title for row in ROWS}), len(ROWS))

    def run_table(self, run: Callable[..., Outcome], expected: Callable[[Row], str]) -> None:
        with ThreadPoolExecutor(AT_ONCE) as executor:
            futures = {row: executor.submit(self.run_row, row, run) for row in ROWS}
        for row, future in futures.items():
            with self.subTest(row.title):
                outcome = future.result()
                self.assertEqual(outcome.ended, expected(row), outcome.problem)
                if outcome.problem:
                    self.check_problem(outcome.problem)

    def run_row(self, row: Row, run: Callable[..., Outcome]) -> Outcome:
        with tempfile.TemporaryDirectory() as directory, world_of(row, self.certificates, Path(directory)) as world:
            began = time.monotonic()
            outcome = run(world, *SHORT, *row.hurry)
            seconds = time.monotonic() - began
            assert seconds < BOUND, f"{seconds:.1f} s: {outcome}"
            for name, host in world.hosts.items():
                told = host.secrets() - world.may_know.get(name, set())
                assert not told, f"{name} was told a secret"
        return outcome

    def check_problem(self, problem: dict[str, Any]) -> None:
        if problem["type"] == "manifest-invalid":  # said by whoever reads it, and not by a place
            return
        for member in ("host", "phase", "attempts"):
            self.assertTrue(problem.get(member), (member, problem))


# --- random walks ---


class RandomWalkTest(BlobCase):
    """Three sources that die anywhere: the blob arrives byte for byte, or ends with an error that says why."""

    times = TimeLimits(idle=0.02)

    def test_five_hundred_walks_end_in_the_right_bytes_or_in_a_typed_error(self) -> None:
        self.settings = self.settings._replace(retry_times=2)
        ended: Counter[str] = Counter()
        for seed in range(WALKS):
            with self.subTest(seed=seed):
                chance = random.Random(seed)
                self.places(*(self.walk(chance, chance.random() * 0.9) for _ in range(3)))
                ended[self.end_of(chance)] += 1
                self.origins.asked.clear()
        self.assertGreater(ended[BYTES], WALKS // 4)
        self.assertGreater(len(ended), 3, ended)

    def end_of(self, chance: random.Random) -> str:
        data = bytearray()
        release = chance.choice((Release.AFTER_VERIFICATION, Release.AS_READ))
        expected = Descriptor("layer", DIGEST, len(CONTENT))
        try:
            reader = self.blob()
            try:
                copy_verified(reader, data.extend, expected, release=release)
            finally:
                reader.close()
        except CipError as error:
            self.assertIsNot(error.code, ErrorCode.INTERNAL)
            self.assertNotEqual(bytes(data), CONTENT, "an error after the whole content had left")
            if release is Release.AFTER_VERIFICATION:
                self.assertEqual(bytes(data), b"", "wrong bytes have left")
            return error.code
        self.assertEqual(bytes(data), CONTENT)
        return BYTES

    def walk(self, chance: random.Random, evil: float) -> Script:
        """A source that does something else in so many cases."""

        def answer(asked: Asked) -> Reply:
            right = obedient(asked)
            if chance.random() > evil:
                return right
            head, _, body = right.data.partition(b"\r\n\r\n")
            cut = chance.randrange(len(body) + 1)
            flipped = bytearray(body)
            flipped[chance.randrange(len(body))] ^= 1
            return chance.choice(
                (
                    Reply(head + b"\r\n\r\n" + body[:cut], "close"),
                    Reply(head + b"\r\n\r\n" + body[:cut], "close"),
                    Reply(right.data[: chance.randrange(len(head))], "close"),
                    Reply(head + b"\r\n\r\n" + body[:cut], "hang"),
                    Reply(head + b"\r\n\r\n" + bytes(flipped)),
                    Reply(b"\x00garbage\r\n\r\n", "close"),
                    whole(asked),
                    partial(max(0, (range_of(asked) if "range" in asked.fields else 0) - 1)),
                    reply(chance.choice((401, 403, 404, 408, 416, 500, 502, 503))),
                    reply(429, b"", {"Retry-After": str(chance.randrange(3))}),
                    reply(200, CONTENT[:cut]),
                    reply(200, CONTENT, {"Content-Encoding": "gzip"}),
                    reply(
                        307, b"", {"Location": chance.choice(("/loop", "file:///x", "http://10.0.0.1/", asked.target))}
                    ),
                )
            )

        return answer


# --- parents that misbehave, or want something else meanwhile ---


STALLS: dict[str, Fault] = {
    "before the answer": Exchange.stall,
    "at the first byte": at(0.0, Exchange.stall),
    "in the middle": at(0.5, Exchange.stall),
    "before the last byte": at(0.999999, Exchange.stall),
}


@contextlib.contextmanager
def full_pipe() -> Iterator[int]:
    """The write end of a pipe that takes no more, because nobody reads."""
    read_end, write_end = os.pipe()
    try:
        os.set_blocking(write_end, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(write_end, bytes(4096))
        os.set_blocking(write_end, True)
        yield write_end
    finally:
        os.close(read_end)
        os.close(write_end)


class StalledTest(unittest.TestCase):
    """A registry that falls silent inside a blob, for longer than these tests take."""

    patient = (*BASE, "--idle-timeout=60")

    @contextlib.contextmanager
    def world(self, fault: Fault, phase: str = "blob") -> Iterator[World]:
        content = make_content(200_000)
        with FaultyHost(registry_of(content)) as host:
            host.strikes.append(Strike(phase, fault, None))
            yield World(content, f"docker://{host.address}/{NAME}:t", hosts={"registry": host})

    def test_control_requests_are_answered_while_a_blob_is_stalled(self) -> None:
        for name, fault in STALLS.items():
            with self.subTest(name), self.world(fault) as world:
                with json_proxy(*self.patient, "--tls-verify=false") as (parent, _):
                    image = parent.open(world.reference)
                    digest = digest_of(world.content.layer)
                    blob = parent.ask("GetBlob", image, str(digest), len(world.content.layer))
                    manifest = parent.ask("GetManifest", image)
                    config = parent.ask("GetFullConfig", image)
                    again = parent.ask("OpenImage", world.reference)
                    self.assertTrue(all(reply.members["success"] for reply in (manifest, config, again)))
                    raw = parent.ask("GetRawBlob", image, str(digest))
                    self.assertEqual(raw.value, len(world.content.layer))
                    close_all(blob, manifest, config, raw)

    def test_a_parent_that_leaves_takes_the_proxy_with_it(self) -> None:
        for phase, fault in (("index", Exchange.stall), ("blob", Exchange.stall), ("blob", at(0.5, Exchange.stall))):
            with self.subTest(phase=phase, front_end="http"), self.world(fault, phase) as world:
                with running(*self.patient, "--tls-verify=false", world.reference, status=None) as proxy:
                    proxy.line.send(f"GET /blobs/{digest_of(world.content.layer)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                    self.wait_for(world, phase)
                    began = time.monotonic()
                    self.assertEqual(proxy.hang_up(), 1)
                    self.assertLess(time.monotonic() - began, LEAVING)
            with self.subTest(phase=phase, front_end="json"), self.world(fault, phase) as world:
                with json_proxy(*self.patient, "--tls-verify=false") as (parent, pid):
                    parent.ask("Initialize")
                    parent.send("OpenImage", world.reference)
                    if phase == "blob":
                        image = parent.reply().value
                        layer = world.content.layer
                        close_all(parent.ask("GetBlob", image, str(digest_of(layer)), len(layer)))
                    else:
                        self.wait_for(world, phase)
                    began = time.monotonic()
                    parent.sock.close()
                    self.wait_for_end(pid)
                    self.assertLess(time.monotonic() - began, LEAVING)

    def test_a_parent_that_does_not_read_is_no_stall(self) -> None:
        with self.world(Exchange.answer) as world:
            world.content = make_content(3_000_000)
        content = world.content
        with FaultyHost(registry_of(content)) as host:
            reference = f"docker://{host.address}/{NAME}:t"
            options = (*BASE, *SHORT, "--tls-verify=false", "--idle-timeout=0.3", "--stall-timeout=0.5")
            with running(*options, reference) as proxy:
                proxy.line.send(f"GET /blobs/{digest_of(content.layer)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                time.sleep(1.5)
                self.assertEqual(proxy.line.answer().body, content.layer)
            with json_proxy(*options) as (parent, _):
                image = parent.open(reference)
                blob = parent.ask("GetBlob", image, str(digest_of(content.layer)), len(content.layer))
                parent.send("FinishPipe", blob.pipe_id)
                time.sleep(1.5)
                self.assertEqual(read_to_end(blob.fds[0]), content.layer)
                self.assertTrue(parent.reply().members["success"])

    def test_a_parent_that_closes_a_pipe_early_loses_that_blob_only(self) -> None:
        content = make_content(3_000_000)
        with FaultyHost(registry_of(content)) as host:
            with json_proxy(*BASE, *SHORT, "--tls-verify=false") as (parent, _):
                image = parent.open(f"docker://{host.address}/{NAME}:t")
                blob = parent.ask("GetBlob", image, str(digest_of(content.layer)), len(content.layer))
                self.assertTrue(read_some(blob.fds[0], 1000))
                close_all(blob)
                self.assertEqual(parent.finish(blob).failure[0], "EPIPE")
                _, data, finished = parent.fetch("GetBlob", image, str(digest_of(content.layer)), len(content.layer))
                self.assertTrue(finished.members["success"])
                self.assertEqual(data, content.layer)

    def test_a_parent_that_leaves_a_stalled_pipe_is_told_at_once_and_frees_the_connection(self) -> None:
        for name, fault in STALLS.items():
            with self.subTest(name), self.world(fault) as world:
                with json_proxy(*self.patient, "--tls-verify=false", "--connections=1") as (parent, _):
                    image = parent.open(world.reference)
                    layer = world.content.layer
                    for turn in range(1, 4):
                        blob = parent.ask("GetBlob", image, str(digest_of(layer)), len(layer))
                        self.wait_for(world, "blob", turn)
                        close_all(blob)
                        self.assertEqual(parent.finish(blob).failure[0], "EPIPE")

    def test_a_blob_that_the_manifest_describes_wrongly_ends_as_such(self) -> None:
        """A blob of no bytes that is said to have another digest: nobody can be blamed for its bytes."""
        content = make_content(2000)
        manifest = json.loads(content.manifest)
        manifest["layers"][0]["size"] = 0
        digest = digest_of(content.layer)

        def respond(asked: registry.Asked) -> tuple[str, registry.Given]:
            if "/manifests/" in asked.target:
                return "manifest", registry.Given(200, json.dumps(manifest).encode(), {"Content-Type": OCI_MANIFEST})
            if str(digest) in asked.target:
                return "blob", registry.Given(200, b"")
            return registry_of(content)(asked)

        with FaultyHost(respond) as host:
            reference = f"docker://{host.address}/{NAME}:t"
            with json_proxy(*BASE, *SHORT, "--tls-verify=false") as (parent, _):
                reply = parent.ask("GetBlob", parent.open(reference), str(digest), 0)
                self.assertRegex(reply.failure[1], "expected digest")
            with running(*BASE, *SHORT, "--tls-verify=false", reference) as proxy:
                answer = proxy.line.ask("GET", f"/blobs/{digest}")
                self.assertEqual((answer.status, json.loads(answer.body)["type"]), (502, "content-mismatch"))

    def test_readers_of_records_that_stand_still_keep_no_proxy(self) -> None:
        with contextlib.ExitStack() as stack:
            write_ends = [stack.enter_context(full_pipe()) for _ in range(2)]
            world = stack.enter_context(self.world(Exchange.stall))
            options = [f"--{kind}-fd={fd}" for kind, fd in zip(("events", "audit"), write_ends, strict=True)]
            arguments = (*self.patient, *options, "--tls-verify=false", world.reference)
            with running(*arguments, status=None, pass_fds=write_ends) as proxy:
                proxy.line.send(f"GET /blobs/{digest_of(world.content.layer)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                self.wait_for(world, "blob")
                began = time.monotonic()
                self.assertEqual(proxy.hang_up(), 1)
                self.assertLess(time.monotonic() - began, LEAVING)

    def test_a_parent_that_half_closes_gets_its_answer(self) -> None:
        content = make_content(3_000_000)
        with FaultyHost(registry_of(content)) as host:
            with running(*BASE, *SHORT, "--tls-verify=false", f"docker://{host.address}/{NAME}:t") as proxy:
                proxy.line.send(f"GET /blobs/{digest_of(content.layer)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                proxy.line.sock.shutdown(socket.SHUT_WR)
                self.assertEqual(proxy.line.answer().body, content.layer)

    def wait_for(self, world: World, phase: str, times: int = 1) -> None:
        """Until the registry has seen the request that it is silent about."""
        part = "/blobs/" if phase == "blob" else "/manifests/t"
        deadline = time.monotonic() + PATIENCE
        while sum(part in asked.target for asked in world.hosts["registry"].asked) < times:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)

    def wait_for_end(self, pid: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":  # json_proxy has not waited for it yet
                    return
            time.sleep(0.01)
        self.fail("it does not end")

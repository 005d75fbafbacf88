# SPDX-License-Identifier: Apache-2.0
"""The JSON protocol with `python3 -m cip experimental-image-proxy` as a child."""

from __future__ import annotations

import base64
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path
from typing import NamedTuple

from cip.model.descriptor import Digest, digest_of
from tests.support import images
from tests.support.exchanges import EXCHANGES, Talk, make_places, policy_option
from tests.support.jsonparent import (
    JsonParent,
    JsonProxy,
    Reply,
    close_all,
    has_nothing,
    json_proxy,
    read_error_pipe,
    read_exactly,
    read_to_end,
)
from tests.support.leaks import LeakCheckedTestCase
from tests.support.parent import MODULE, PATIENCE, ROOT
from tests.support.registry import (
    NAME,
    Asked,
    Exchange,
    FaultyHost,
    Given,
    Strike,
    make_content,
    part_of,
    registry_of,
    swallowing_port,
)
from tests.support.secrets import secret

JSON = "experimental-image-proxy"
ACCEPT = "--insecure-policy"
PLAIN = "--tls-verify=false"
RESTING_THREADS = 4  # of the replies and of the requests, and the two that stand beside them


class Rows(LeakCheckedTestCase):
    def test_every_exchange_of_the_table_ends_as_it_says(self) -> None:
        with make_places(self.directory) as places:
            for exchange in EXCHANGES:
                options = (policy_option(self.directory, exchange.policy), PLAIN, "--retry-times=0", *exchange.options)
                with self.subTest(exchange.name), json_proxy(*options) as proxy:
                    self.assertEqual(exchange.run(Talk(proxy.parent, proxy.process, places)), exchange.expected)

    def test_b59_a_body_that_is_cut_continues_where_it_may(self) -> None:
        content = make_content(1_000_000)
        with FaultyHost(registry_of(content)) as host, json_proxy(ACCEPT, PLAIN, "--retry-delay=0.01") as proxy:
            image = proxy.parent.open(f"docker://{host.address}/{NAME}:t")
            digest = digest_of(content.layer)
            host.strikes = [Strike("blob", lambda exchange: _half(exchange), 1)]
            self.assertEqual(proxy.parent.fetch("GetBlob", image, str(digest), 1_000_000)[1], content.layer)
            host.strikes = [Strike("blob", lambda exchange: _half(exchange), None)]
            size, received, told = proxy.parent.fetch_raw(image, digest)
            self.assertEqual(size, 1_000_000)
            self.assertEqual(content.layer[: len(received)], received)
            assert told is not None
            self.assertEqual(told["code"], "retryable")

    def test_b64_credentials_handed_over_as_a_descriptor_serve_several_images(self) -> None:
        basic = base64.b64encode(f"user:{secret('descriptor')}".encode()).decode()
        first, second = make_content(1000), make_content(2000)
        challenge = {"challenge": lambda: 'Basic realm="tests"', "accepted": [f"Basic {basic}"]}
        with (
            FaultyHost(registry_of(first, **challenge)) as one,  # type: ignore[arg-type]
            FaultyHost(registry_of(second, **challenge)) as two,  # type: ignore[arg-type]
            (self.directory / "auth").open("w+") as file,
        ):
            (self.directory / "auth").unlink()
            json.dump({"auths": {host.address: {"auth": basic} for host in (one, two)}}, file)
            file.flush()
            option = f"--authfile=/proc/self/fd/{file.fileno()}"
            with json_proxy(ACCEPT, PLAIN, option, pass_fds=[file.fileno()]) as proxy:
                proxy.parent.ask("Initialize")
                for host, content in ((one, first), (two, second), (one, first)):
                    image = proxy.parent.ask("OpenImage", f"docker://{host.address}/{NAME}:t").value
                    arguments = (image, str(digest_of(content.layer)), len(content.layer))
                    self.assertEqual(proxy.parent.fetch("GetBlob", *arguments)[1], content.layer)


def _half(exchange: Exchange) -> None:
    body = exchange.given.body
    exchange.send(exchange.given.head() + body[: len(body) // 2])
    exchange.end()


class Starting(LeakCheckedTestCase):
    def run_program(self, *arguments: str, name: str = "") -> subprocess.CompletedProcess[bytes]:
        command: tuple[str, ...] = MODULE if not name else (str(self.link(name)),)
        return subprocess.run(
            [*command, *arguments],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            cwd=ROOT,
        )

    def link(self, name: str) -> Path:
        """The program under another name, as a symbolic link in a directory of its own gives it."""
        script = self.directory / "container-image-proxy"
        script.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom cip.cli import run\nrun()\n"
        )
        script.chmod(0o755)
        link = self.directory / name
        if not link.exists():
            link.symlink_to(script)
        return link

    def test_b57_without_a_usable_socket_nothing_is_served(self) -> None:
        for arguments, status, reason in (
            ((JSON,), 1, b"descriptor 0: "),
            ((JSON, "--sockfd=99"), 1, b"descriptor 99: "),
            ((JSON, "surplus"), 2, b"expected no argument"),
            ((JSON, "--nope"), 2, b"unknown option"),
        ):
            with self.subTest(arguments):
                done = self.run_program(*arguments)
                self.assertEqual((done.returncode, done.stdout), (status, b""))
                self.assertIn(reason, done.stderr)

    def test_the_socket_may_be_stdin_and_not_blocking(self) -> None:
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        theirs.setblocking(False)
        with JsonParent(ours) as parent, theirs:
            command = [*MODULE, JSON, ACCEPT]
            process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, cwd=ROOT)
            theirs.close()
            self.assertEqual(parent.ask("Initialize").value, "0.2.8")
            parent.sock.close()
            self.assertEqual(process.wait(PATIENCE), 0)

    def test_the_flags_of_the_field_are_taken_before_and_behind_the_subcommand(self) -> None:
        flags = (
            "--debug",
            ACCEPT,
            "--override-arch=amd64",
            "--override-os=linux",
            "--override-variant=",
            "--tmpdir=/tmp",
            "--user-agent-prefix=bootc/1",
            "--command-timeout=1h",
            "--registries.d=/nonexistent",
            "--no-creds",
            "--cert-dir=/nonexistent",
            "--decryption-key=key",
            "--tls-verify=false",
            "--daemon-host=unix:///nonexistent",
        )
        images.f1(self.directory / "F1")
        for command in ((*MODULE, *flags, JSON), (*MODULE, JSON, *flags), (*MODULE, *flags[:5], JSON, *flags[5:])):
            with json_proxy(command=command) as proxy:
                self.assertEqual(proxy.parent.open(f"oci:{self.directory}/F1:t"), 1)

    def test_under_the_name_skopeo_there_is_this_command_and_no_other(self) -> None:
        images.f1(self.directory / "F1")
        with json_proxy(ACCEPT, command=(str(self.link("skopeo")), JSON)) as proxy:
            self.assertEqual(proxy.parent.open(f"oci:{self.directory}/F1:t"), 1)
        done = self.run_program("copy", "docker://a", "oci:b", name="skopeo")
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, rb"\A[^\n]*container-image-proxy[^\n]*under the name skopeo[^\n]*\n\Z")
        done = self.run_program("--help", name="skopeo")
        self.assertIn(b"--user-agent-prefix", done.stdout)  # what the Rust client looks for


class Stopping(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.big = images.big(self.directory / "BIG")
        self.reference = f"oci:{self.directory}/BIG:t"

    def started(self, proxy: JsonProxy) -> Reply:
        image = proxy.parent.open(self.reference)
        reply = proxy.parent.ask("GetRawBlob", image, str(self.big.layer.digest))
        read_exactly(reply.fds[0], 10)
        return reply

    def assert_told(self, reply: Reply) -> None:
        self.assertLess(len(read_to_end(reply.fds[0])), self.big.layer.size - 10)
        told = read_error_pipe(reply.fds[1])
        assert told is not None
        self.assertEqual(told["code"], "other")

    def test_a_signal_ends_the_child_by_that_signal_and_tells_unfinished_transfers(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number.name), json_proxy(ACCEPT, status=-number) as proxy:
                reply = self.started(proxy)
                os.kill(proxy.process.pid, number)
                self.assertEqual(proxy.process.wait(PATIENCE), -number)
                self.assert_told(reply)

    def test_every_end_tells_unfinished_transfers(self) -> None:
        for case in ("Shutdown", "an empty packet", "hang-up", "half-close"):
            with self.subTest(case), json_proxy(ACCEPT) as proxy:
                reply = self.started(proxy)
                if case == "Shutdown":
                    proxy.parent.send("Shutdown")
                elif case == "an empty packet":
                    proxy.parent.send_text(b"")
                elif case == "hang-up":
                    proxy.parent.sock.close()
                else:
                    proxy.parent.sock.shutdown(socket.SHUT_WR)
                self.assertEqual(proxy.process.wait(PATIENCE), 0)
                self.assert_told(reply)

    def test_a_parent_that_leaves_while_a_registry_is_silent_is_noticed(self) -> None:
        with swallowing_port() as port, json_proxy(ACCEPT, PLAIN, "--connect-timeout=600") as proxy:
            proxy.parent.ask("Initialize")
            proxy.parent.send("OpenImage", f"docker://127.0.0.1:{port}/{NAME}:t")
            self.assertTrue(proxy.parent.is_silent())
            self.assertEqual(proxy.hang_up(), 0)

    def test_a_signal_is_obeyed_while_a_registry_is_silent(self) -> None:
        with swallowing_port() as port:
            with json_proxy(ACCEPT, PLAIN, "--connect-timeout=600", status=-signal.SIGTERM) as proxy:
                proxy.parent.ask("Initialize")
                proxy.parent.send("OpenImage", f"docker://127.0.0.1:{port}/{NAME}:t")
                time.sleep(0.2)
                proxy.process.terminate()
                self.assertEqual(proxy.process.wait(PATIENCE), -signal.SIGTERM)


class ManyBlobs:
    """A registry with one image of eight layers; `slow` is given at 1 KiB a second until `let_go` is set."""

    def __init__(self) -> None:
        self.layers = [images.random_bytes(1_500_000, b"layer %d" % number) for number in range(8)]
        config = images.config([digest_of(layer) for layer in self.layers])
        self.manifest = images.manifest(config, self.layers)
        self.blobs = {str(digest_of(data)): data for data in (config, *self.layers)}
        self.slow = str(digest_of(self.layers[0]))
        self.let_go = threading.Event()

    def respond(self, asked: Asked) -> tuple[str, Given]:
        kind, _, name = asked.target.removeprefix(f"/v2/{NAME}/").partition("/")
        if kind == "manifests":
            return "manifest", Given(200, self.manifest, {"Content-Type": "application/vnd.oci.image.manifest.v1+json"})
        phase = "slow" if name == self.slow else "blob"
        return phase, part_of(self.blobs[name], asked.first_byte) if name in self.blobs else Given(404)

    def throttle(self, exchange: Exchange) -> None:
        exchange.send(exchange.given.head())
        body = exchange.given.body
        while body and not self.let_go.wait(0.125):
            exchange.send(body[:128])
            body = body[128:]
        exchange.send(body)


class OneThrottled(LeakCheckedTestCase):
    def test_seven_blobs_are_fetched_and_finished_while_the_eighth_trickles(self) -> None:
        registry = ManyBlobs()
        with FaultyHost(registry.respond) as host, json_proxy(ACCEPT, PLAIN) as proxy:
            self.addCleanup(registry.let_go.set)
            host.strikes = [Strike("slow", registry.throttle, None)]
            image = proxy.parent.open(f"docker://{host.address}/{NAME}:t")
            replies = {
                str(digest_of(layer)): proxy.parent.ask("GetBlob", image, str(digest_of(layer)), len(layer))
                for layer in registry.layers
            }
            slow = replies.pop(registry.slow)
            self.assertTrue(read_exactly(slow.fds[0], 1))
            for digest, reply in replies.items():
                self.assertEqual(read_exactly(reply.fds[0], 1_500_000), registry.blobs[digest])
                self.assertIsNone(proxy.parent.finish(reply).value)
                close_all(reply)
            self.assertIsNone(proxy.parent.fetch("GetManifest", image)[2].value)
            self.assertFalse(registry.let_go.is_set())
            registry.let_go.set()
            self.assertEqual(len(read_exactly(slow.fds[0], 1_499_999)), 1_499_999)
            self.assertIsNone(proxy.parent.finish(slow).value)
            close_all(slow)


# --- random sequences against a model ---


# Bytes that fit into any pipe: where a user has very many (pipe-user-pages-soft, pipe(7)), and other tests count among
# them, new ones are as narrow.
NARROW_PIPE = 8192


class Pipe(NamedTuple):
    """A finish-type pipe as the model sees it; `large` content cannot fit into any pipe."""

    pipe_id: int
    fd: int
    content: bytes
    verdict: str

    @property
    def large(self) -> bool:
        return len(self.content) > 1 << 20


class World:
    """What the random sequences are about."""

    def __init__(self, directory: Path) -> None:
        self.references = {}
        self.layers: dict[str, tuple[Digest, bytes, bool]] = {}
        images.f1(directory / "F1")
        images.f2(directory / "F2")
        self.references["F1"] = self.references["F2"] = ""
        self.layers["F1"] = self.layers["F2"] = (images.DIGEST_T, images.LAYER_T, True)
        for name, flip in (("BIG", False), ("BAD", True)):
            content = images.random_bytes(1_200_000, name.encode())
            config = images.config([digest_of(content)])
            layout = images.Layout(directory / name)
            layout.add_image(config, [content], images.manifest(config, [content]), name="t")
            digest = digest_of(content)
            if flip:
                content = bytes([content[0] ^ 1]) + content[1:]
                layout.blob_path(digest).write_bytes(content)
            self.layers[name] = (digest, content, not flip)
        self.references = {name: f"oci:{directory}/{name}:t" for name in self.layers}
        self.absent = f"oci:{directory}/F1:absent"
        self.manifests = {"F1": images.DIGEST_M, "F2": images.DIGEST_S}


MALFORMED = (
    b"{}",
    b"null",
    b"[]",
    b'"x"',
    b'{"method":5}',
    b'{"method":"x","args":{}}',
    b"\0",
    b"\xff",
    b"[" * 20_000,
    b'\xef\xbb\xbf{"method":"Initialize"}',
    b'{"method":"Shutdown"} x',
    b'{"method":"Shutdown"}'.ljust(40_000),
    b'{"method":"GetManifest","args":[1e400]}',
    b'{"method":"GetManifest","args":[1.5]}',
    b'{"method":"FinishPipe"}',
    b'{"method":"GetManifest","args":[true]}',
    b'{"method":"GetBlob","args":[1,"sha256:x",1]}',
    b'{"method":"FinishPipe","args":["1"]}',
    b'{"method":"OpenImage","args":["nonsense"]}',
    b'{"method":"Initialize","method":"Shutdown"}',
    b'{"method":"Initialize"}',
)


class Sequences:
    """Random requests on one conversation, and the model that knows what each must be answered."""

    def __init__(self, world: World, parent: JsonParent, source: random.Random) -> None:
        self.world = world
        self.parent = parent
        self.source = source
        self.images: dict[int, str] = {}
        self.pipes: list[Pipe] = []
        self.last_image = 0
        self.log: list[str] = []
        assert parent.ask("Initialize").value == "0.2.8"

    def run(self, length: int) -> None:
        """One sequence, and then everything that it opened is ended."""
        steps = (
            (3, self.open),
            (1, self.open_absent),
            (2, self.close),
            (4, self.metadata),
            (4, self.blob),
            (3, self.raw),
            (4, self.finish),
            (2, self.abandon),
            (3, self.malformed),
            (1, self.unknown),
            (2, self.ahead),
        )
        weights = [weight for weight, _ in steps]
        for _ in range(length):
            (_, step), *_ = self.source.choices(steps, weights)
            self.log.append(step.__name__)
            step()
        while self.pipes:
            self.finish()
        for image in list(self.images):
            assert self.parent.ask("CloseImage", image).value is None
            del self.images[image]

    # Each step sends at least one request and checks its reply.

    def open(self) -> None:
        name = self.source.choice(list(self.world.references))
        method = self.source.choice(["OpenImage", "OpenImageOptional"])
        self.last_image += 1
        assert self.parent.ask(method, self.world.references[name]).value == self.last_image
        self.images[self.last_image] = name

    def open_absent(self) -> None:
        assert self.parent.ask("OpenImageOptional", self.world.absent).value == 0
        self.refused(self.parent.ask("OpenImage", self.world.absent))

    def close(self) -> None:
        if image := self.some_image():
            assert self.parent.ask("CloseImage", image).value is None
            del self.images[image]
            self.refused(self.parent.ask("GetManifest", image))

    def metadata(self) -> None:
        image = self.some_image()
        if not image:
            self.refused(self.parent.ask("GetManifest", self.last_image + 1))
            return
        name = self.images[image]
        method = self.source.choice(["GetManifest", "GetFullConfig", "GetConfig", "GetLayerInfo", "GetLayerInfoPiped"])
        reply = self.parent.ask(method, image)
        digest, content, _ = self.world.layers[name]
        if method == "GetLayerInfo":
            assert [(each["digest"], each["size"]) for each in reply.value] == [(str(digest), len(content))]
            assert (reply.pipe_id, reply.fds) == (0, [])
            return
        expected = {"GetConfig": b"{}", "GetFullConfig": images.config([digest])}.get(method)
        if method == "GetManifest":
            assert name not in self.world.manifests or reply.value == str(self.world.manifests[name])
            expected = images.MANIFEST_M if name in self.world.manifests else None
        self.piped(reply, expected, "ok")

    def blob(self) -> None:
        if image := self.some_image():
            digest, content, good = self.world.layers[self.images[image]]
            size = self.source.choice([len(content), len(content), 5])
            reply = self.parent.ask("GetBlob", image, str(digest), size)
            assert reply.value == len(content)
            self.piped(reply, content, "ok" if good and size == len(content) else "other")

    def raw(self) -> None:
        if image := self.some_image():
            digest, content, _ = self.world.layers[self.images[image]]
            if self.source.random() < 0.3:
                reply = self.parent.ask("GetRawBlob", image, str(digest))
                os.close(reply.fds[0])
                told = read_error_pipe(reply.fds[1])
                assert told["code"] == "EPIPE" if told else len(content) < 1 << 20, told
            else:
                assert self.parent.fetch_raw(image, digest) == (len(content), content, None)

    def finish(self) -> None:
        if not self.pipes:
            self.refused(self.parent.ask("FinishPipe", 2**32 + 1))
            return
        pipe = self.pipes.pop(self.source.randrange(len(self.pipes)))
        if self.source.random() < 0.5:
            assert read_exactly(pipe.fd, len(pipe.content)) == pipe.content
            if pipe.verdict == "ok":
                assert has_nothing(pipe.fd), "end of file before FinishPipe"
            self.verdict(pipe, self.parent.ask("FinishPipe", pipe.pipe_id))
            assert read_to_end(pipe.fd) == b""
            return
        # Ask first, then others behind it, and read only then.
        self.parent.send("FinishPipe", pipe.pipe_id)
        behind = self.source.randrange(4)
        for _ in range(behind):
            self.parent.send("FinishPipe", pipe.pipe_id)
        assert read_to_end(pipe.fd) == pipe.content
        self.verdict(pipe, self.parent.reply())
        for _ in range(behind):
            self.refused(self.parent.reply())

    def abandon(self) -> None:
        """Close a pipe before its end."""
        if self.pipes:
            pipe = self.pipes.pop(self.source.randrange(len(self.pipes)))
            assert read_exactly(pipe.fd, 1)
            os.close(pipe.fd)
            reply = self.parent.ask("FinishPipe", pipe.pipe_id)
            cut = pipe.large or (len(pipe.content) > NARROW_PIPE and reply.members["error_code"] == "EPIPE")
            self.verdict(pipe._replace(verdict="EPIPE") if cut else pipe, reply)

    def malformed(self) -> None:
        self.refused(self.parent.ask_text(self.source.choice(MALFORMED)))

    def unknown(self) -> None:
        image = self.some_image() or 1
        self.refused(self.parent.ask("GetBlob", image, "sha256:" + "0" * 64, 1))
        self.refused(self.parent.ask("Nope", image))

    def ahead(self) -> None:
        """Several requests before the first reply is read."""
        packets = self.source.choices(MALFORMED, k=self.source.randrange(1, 20))
        for packet in packets:
            self.parent.send_text(packet)
        self.parent.send("OpenImage", self.world.references["F1"])
        for _ in packets:
            self.refused(self.parent.reply())
        self.last_image += 1
        assert self.parent.reply().value == self.last_image
        self.images[self.last_image] = "F1"

    def some_image(self) -> int:
        return self.source.choice(list(self.images)) if self.images else 0

    def piped(self, reply: Reply, content: bytes | None, verdict: str) -> None:
        assert reply.pipe_id not in {pipe.pipe_id for pipe in self.pipes}
        (fd,) = reply.fds
        if content is None:  # a manifest or list that the model does not compute: small, so it is there at once
            self.verdict(Pipe(reply.pipe_id, fd, b"", "ok"), self.parent.ask("FinishPipe", reply.pipe_id))
            json.loads(read_to_end(fd))
            return
        self.pipes.append(Pipe(reply.pipe_id, fd, content, verdict))

    def verdict(self, pipe: Pipe, reply: Reply) -> None:
        if pipe.verdict == "ok":
            assert reply.value is None, reply
        else:
            assert reply.failure[0] == pipe.verdict, (pipe.verdict, reply)

    def refused(self, reply: Reply) -> None:
        assert reply.failure[0] == "other", reply


class RandomSequences(LeakCheckedTestCase):
    SEQUENCES = 1000
    CHILDREN = 8
    LENGTH = 12  # steps of a sequence on average

    def test_a_thousand_sequences_are_answered_as_the_model_says(self) -> None:
        world = World(self.directory)
        for child in range(self.CHILDREN):
            seed = 20_261_123 + child
            source = random.Random(seed)
            with self.subTest(seed=seed), json_proxy(ACCEPT) as proxy:
                sequences = Sequences(world, proxy.parent, source)
                sequences.run(5)
                before = self.footprint(proxy, None)
                for number in range(self.SEQUENCES // self.CHILDREN):
                    sequences.log.clear()
                    try:
                        sequences.run(source.randrange(1, 2 * self.LENGTH))
                    except (AssertionError, OSError) as error:
                        spot = f"seed {seed}, sequence {number}, steps {sequences.log}"
                        raise AssertionError(f"{spot}: {error!r}") from error
                self.assertEqual(self.footprint(proxy, before), before)
                if child % 2:
                    proxy.parent.send("Shutdown")

    def footprint(self, proxy: JsonProxy, wanted: tuple[int, int] | None) -> tuple[int, int]:
        """Threads and descriptors of the child, once they are as `wanted` or PATIENCE is over."""
        deadline = time.monotonic() + PATIENCE
        while True:
            threads = len(os.listdir(f"/proc/{proxy.process.pid}/task"))
            found = (threads, len(os.listdir(f"/proc/{proxy.process.pid}/fd")))
            settled = found == wanted if wanted is not None else threads == RESTING_THREADS
            if settled or time.monotonic() > deadline:
                return found
            select.select([], [], [], 0.01)


if __name__ == "__main__":
    unittest.main()

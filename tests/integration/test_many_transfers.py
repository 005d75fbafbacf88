# SPDX-License-Identifier: Apache-2.0
"""Parents that open very many blobs at once and read them in an order of their own (decisions.md section 10)."""

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Sequence
from pathlib import Path

from cip.model import mediatype
from cip.model.descriptor import digest_of
from cip.wire.jsonproxy.pipes import WORKER_LIMIT
from tests.support import images
from tests.support.jsonparent import JsonProxy, Reply, close_all, json_proxy, read_error_pipe, read_exactly, read_to_end
from tests.support.leaks import LeakCheckedTestCase
from tests.support.parent import PATIENCE
from tests.support.registry import NAME, Asked, Exchange, FaultyHost, Given, Strike, part_of, status

OPTIONS = ("--insecure-policy", "--tls-verify=false", "--retry-delay=0.05")
MEMORY = 64 * 1024 * 1024  # bytes by which the process may grow, whatever its parent does


class ManyLayers:
    """A registry with one image of `count` layers of `size` bytes; `ranges` is what it says and does about ranges."""

    def __init__(self, count: int, size: int, *, ranges: bool = True) -> None:
        self.layers = [images.random_bytes(size, b"layer %d" % number) for number in range(count)]
        self.digests = [str(digest_of(layer)) for layer in self.layers]
        config = images.config([digest_of(layer) for layer in self.layers])
        self.manifest = images.manifest(config, self.layers)
        self._blobs = dict(zip(self.digests, self.layers, strict=True))
        self._blobs[str(digest_of(config))] = config
        self._ranges = ranges

    def respond(self, asked: Asked) -> tuple[str, Given]:
        kind, _, name = asked.target.removeprefix(f"/v2/{NAME}/").partition("/")
        if kind == "manifests":
            return "manifest", Given(200, self.manifest, {"Content-Type": "application/vnd.oci.image.manifest.v1+json"})
        if name not in self._blobs:
            return "blob", Given(404)
        given = part_of(self._blobs[name], asked.first_byte if self._ranges else None)
        return "blob", given._replace(fields={**given.fields, "Accept-Ranges": "bytes" if self._ranges else "none"})


def resident(proxy: JsonProxy) -> int:
    """Bytes of memory that the program has had at most."""
    lines = Path(f"/proc/{proxy.process.pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


class TransfersThatNobodyReads(LeakCheckedTestCase):
    def read_in_order(
        self, registry: ManyLayers, order: Sequence[int], *options: str, method: str = "GetBlob", seconds: float
    ) -> None:
        """Ask for all layers, then read one after the other; every byte arrives within `seconds`."""
        with FaultyHost(registry.respond) as host, json_proxy(*OPTIONS, *options) as proxy:
            image = proxy.parent.open(f"docker://{host.address}/{NAME}:t")
            before = resident(proxy)
            began = time.monotonic()
            replies = []
            for digest, layer in zip(registry.digests, registry.layers, strict=True):
                arguments = (image, digest) if method == "GetRawBlob" else (image, digest, len(layer))
                replies.append(proxy.parent.ask(method, *arguments))
            for number in order:
                self.require_layer(proxy, replies[number], registry.layers[number])
            self.assertLess(time.monotonic() - began, seconds)
            self.assertLess(resident(proxy) - before, MEMORY)

    def require_layer(self, proxy: JsonProxy, reply: Reply, layer: bytes) -> None:
        if len(reply.fds) == 2:
            self.assertTrue(read_to_end(reply.fds[0]) == layer)
            self.assertIsNone(read_error_pipe(reply.fds[1]))
            return
        self.assertTrue(read_exactly(reply.fds[0], len(layer)) == layer)
        self.assertIsNone(proxy.parent.finish(reply).value)
        close_all(reply)

    def test_80_of_3_mib_arrive_when_the_last_is_read_first(self) -> None:
        registry = ManyLayers(80, 3 << 20)
        for method in ("GetBlob", "GetRawBlob"):
            with self.subTest(method):
                self.read_in_order(registry, range(79, -1, -1), method=method, seconds=4 * PATIENCE)

    def test_500_arrive_in_any_order(self) -> None:
        order = list(range(500))
        random.Random(500).shuffle(order)
        self.read_in_order(ManyLayers(500, 300_000), order, seconds=4 * PATIENCE)

    def test_a_registry_without_ranges_serves_them_too(self) -> None:
        registry = ManyLayers(40, 3 << 20, ranges=False)
        for method in ("GetBlob", "GetRawBlob"):
            with self.subTest(method):
                self.read_in_order(registry, range(39, -1, -1), "--connections=8", method=method, seconds=4 * PATIENCE)

    def test_400_small_ones_that_nobody_finishes_cost_little(self) -> None:
        registry = ManyLayers(400, 3)
        with FaultyHost(registry.respond) as host, json_proxy(*OPTIONS) as proxy:
            image = proxy.parent.open(f"docker://{host.address}/{NAME}:t")
            before = resident(proxy)
            replies = [proxy.parent.ask("GetBlob", image, digest, 3) for digest in registry.digests]
            for reply in replies:
                self.assertEqual(len(read_exactly(reply.fds[0], 3)), 3)
            self.assertLess(resident(proxy) - before, MEMORY)
            close_all(*replies)

    def test_thousands_that_nobody_reads_end_at_a_limit(self) -> None:
        registry = ManyLayers(5, 200_000)
        with FaultyHost(registry.respond) as host, json_proxy(*OPTIONS) as proxy:
            image = proxy.parent.open(f"docker://{host.address}/{NAME}:t")
            before = resident(proxy)
            replies: list[Reply] = []
            refused = {"GetBlob": 0, "GetRawBlob": 0}
            while not all(refused.values()) and len(replies) < 2 * WORKER_LIMIT:
                number = len(replies) % 5
                method = "GetBlob" if refused["GetRawBlob"] else "GetRawBlob"
                size = (200_000,) if method == "GetBlob" else ()
                reply = proxy.parent.ask(method, image, registry.digests[number], *size)
                refused[method] += not reply.fds
                if reply.fds:
                    replies.append(reply)
                else:
                    self.assertEqual(reply.members["details"]["type"], "limit-exceeded")
            self.assertGreaterEqual(len(replies), WORKER_LIMIT)  # and what read-ahead had already
            self.assertLess(resident(proxy) - before, MEMORY)
            close_all(*replies)
            until = time.monotonic() + PATIENCE
            while not (reply := proxy.parent.ask("GetRawBlob", image, registry.digests[0])).fds:
                self.assertLess(time.monotonic(), until, "what has ended counts still")
                time.sleep(0.05)
            self.assertTrue(read_to_end(reply.fds[0]) == registry.layers[0])
            self.assertIsNone(read_error_pipe(reply.fds[1]))

    def test_images_that_nobody_closes_end_at_a_limit(self) -> None:
        """A manifest of 3.4 MB took 12 MB for as long as its image was open, and a registry chooses its length."""
        config = b"{}"
        layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": 1, "annotations": {"k": "v" * 180}}
        layers = [{**layer, "digest": f"sha256:{number:064x}"} for number in range(10_000)]
        document = {**json.loads(images.manifest(config, [])), "layers": layers}
        given = Given(
            200, json.dumps(document).encode(), {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
        )
        with FaultyHost(lambda _: ("manifest", given)) as host, json_proxy(*OPTIONS) as proxy:
            reference = f"docker://{host.address}/{NAME}:t"
            first = proxy.parent.open(reference)
            before = resident(proxy)
            replies = [proxy.parent.ask("OpenImage", reference) for _ in range(8)]
            self.assertEqual([reply.members["success"] for reply in replies], [True] * 3 + [False] * 5)
            self.assertEqual(replies[-1].members["details"]["type"], "limit-exceeded")
            self.assertLess(resident(proxy) - before, MEMORY)
            proxy.parent.ask("CloseImage", first)
            self.assertTrue(proxy.parent.ask("OpenImage", reference).members["success"])

    def test_what_images_keep_beside_their_manifests_counts_too(self) -> None:
        """An index or a config of 4 MB was kept for each open image, however small the manifest was."""
        text = "x" * 3_900_000
        layer = images.LAYER_T
        large = json.dumps({**json.loads(images.CONFIG_C), "comment": text}).encode()
        small = images.manifest(images.CONFIG_C, [layer])
        entry = images.entry(small, platform={"architecture": "amd64", "os": "linux"})
        index = json.dumps({**json.loads(images.index([entry])), "annotations": {"text": text}}).encode()
        top = {"index": index, "config": images.manifest(large, [layer])}
        blobs = {str(digest_of(data)): data for data in (layer, large, small)}

        def respond(asked: Asked) -> tuple[str, Given]:
            name = asked.target.rpartition("/")[2]
            data = top.get(name) or blobs.get(name)
            if data is None:
                return "other", Given(404)
            kind = mediatype.OCI_INDEX if name == "index" else mediatype.OCI_MANIFEST
            return "manifest", Given(200, data, {"Content-Type": kind})

        for name in top:
            with self.subTest(name), FaultyHost(respond) as host, json_proxy(*OPTIONS) as proxy:
                reference = f"docker://{host.address}/{NAME}:{name}"
                first = proxy.parent.open(reference)
                before, taken = resident(proxy), 0
                while (reply := proxy.parent.ask("OpenImage", reference)).members["success"] and taken < 30:
                    taken += 1
                    if name == "config":
                        proxy.parent.fetch("GetFullConfig", reply.value)
                self.assertEqual(reply.members["details"]["type"], "limit-exceeded")
                self.assertLess(resident(proxy) - before, MEMORY)
                proxy.parent.ask("CloseImage", first)
                self.assertTrue(proxy.parent.ask("OpenImage", reference).members["success"])

    def test_an_archive_s_index_and_what_refers_to_an_image_count_too(self) -> None:
        named = images.tar(
            [
                images.Member(
                    b"manifest.json", images.compact([{"Config": "c", "RepoTags": ["a:b"], "Layers": ["l"]}])
                ),
                images.Member(b"c", images.CONFIG_C),
                images.Member(b"l", images.LAYER_T),
            ],
            record=images.BLOCK,
        ).rstrip(b"\0")
        path = Path(self.enterContext(tempfile.TemporaryDirectory())) / "archive.tar"
        with path.open("wb") as file:
            file.write(named + bytes(-len(named) % images.BLOCK))
            file.write(images.ustar_header(images.Member(b"other")) * 300_000)
        with json_proxy(*OPTIONS) as proxy:
            proxy.parent.open(f"docker-archive:{path}")
            before, taken = resident(proxy), 0
            while (reply := proxy.parent.ask("OpenImage", f"docker-archive:{path}")).members["success"] and taken < 9:
                taken += 1
            self.assertEqual(reply.members["details"]["type"], "limit-exceeded")
            self.assertLess(resident(proxy) - before, MEMORY)
        listed = [{**images.entry(b"%d" % number), "annotations": {"text": "x" * 1800}} for number in range(1900)]

        def respond(asked: Asked) -> tuple[str, Given]:
            if "/referrers/" in asked.target:
                return "referrers", Given(200, images.index(listed), {"Content-Type": mediatype.OCI_INDEX})
            manifest = images.manifest(images.CONFIG_C, [images.LAYER_T])
            return "manifest", Given(200, manifest, {"Content-Type": mediatype.OCI_MANIFEST})

        with FaultyHost(respond) as host, json_proxy(*OPTIONS) as proxy:
            reference = f"docker://{host.address}/{NAME}:t"
            opened = [
                proxy.parent.open(reference),
                *(proxy.parent.ask("OpenImage", reference).value for _ in range(20)),
            ]
            proxy.parent.fetch("GetReferrers", opened[0])
            before = resident(proxy)
            refused = 0
            for image in opened[1:]:
                reply = proxy.parent.ask("GetReferrers", image)
                refused += not reply.fds
                if reply.fds:
                    proxy.parent.collect(reply)
            self.assertGreater(refused, 0)
            self.assertLess(resident(proxy) - before, MEMORY)

    def test_one_connection_is_enough_for_all(self) -> None:
        self.read_in_order(ManyLayers(10, 3 << 20), range(9, -1, -1), "--connections=1", seconds=4 * PATIENCE)


class RepliesOfBlobsThatARegistryRefuses(LeakCheckedTestCase):
    def test_the_reply_says_what_the_registry_says(self) -> None:
        registry = ManyLayers(1, 3 << 20)
        refused = "authentication-failed"
        codes = {401: refused, 403: refused, 404: "blob-not-found", 503: "registry-error"}
        with FaultyHost(registry.respond) as host, json_proxy(*OPTIONS, "--retry-times=0") as proxy:
            image = proxy.parent.open(f"docker://{host.address}/{NAME}:t")
            for number, code in codes.items():
                host.strikes = [Strike("blob", status(number), None)]
                for method, arguments in (("GetBlob", (3 << 20,)), ("GetRawBlob", ())):
                    with self.subTest(number, method=method):
                        reply = proxy.parent.ask(method, image, registry.digests[0], *arguments)
                        self.assertEqual(reply.failure[0], "retryable" if number == 503 else "other")
                        self.assertEqual(reply.members["details"]["type"], code)

    def test_silent_blobs_delay_their_replies_once_and_never_again(self) -> None:
        registry = ManyLayers(8, 3 << 20)
        go_on = threading.Event()
        self.addCleanup(go_on.set)

        def silent(exchange: Exchange) -> None:
            go_on.wait(PATIENCE)
            exchange.answer()

        with FaultyHost(registry.respond) as host, json_proxy(*OPTIONS) as proxy:
            image = proxy.parent.open(f"docker://{host.address}/{NAME}:t")
            host.strikes = [Strike("blob", silent, None)]
            blobs = [(image, digest, 3 << 20) for digest in registry.digests]
            replies: list[Reply] = []
            for blob in blobs[:4]:
                proxy.parent.send("GetBlob", *blob)
            seconds = self.seconds(lambda: replies.extend(proxy.parent.reply() for _ in range(4)))
            self.assertTrue(1.5 < seconds < 3, seconds)
            seconds = self.seconds(lambda: replies.extend(proxy.parent.ask("GetBlob", *blob) for blob in blobs[4:]))
            self.assertLess(seconds, 1)
            go_on.set()
            for reply, layer in zip(replies, registry.layers, strict=True):
                self.assertTrue(read_exactly(reply.fds[0], 3 << 20) == layer)
                self.assertIsNone(proxy.parent.finish(reply).value)
            close_all(*replies)

    def seconds(self, action: Callable[[], object]) -> float:
        began = time.monotonic()
        action()
        return time.monotonic() - began


if __name__ == "__main__":
    unittest.main()

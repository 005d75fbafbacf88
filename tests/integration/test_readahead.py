# SPDX-License-Identifier: Apache-2.0
"""Read-ahead: each layer asked for once, in time, and none that nobody wants; faults of what was asked for early."""

import tempfile
import time
import unittest
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cip.model import mediatype
from cip.model.descriptor import digest_of
from tests.support import images
from tests.support.faultrun import BASE, small_files
from tests.support.jsonparent import JsonParent, json_proxy, read_error_pipe, read_to_end
from tests.support.parent import PATIENCE, running
from tests.support.registry import (
    NAME,
    Exchange,
    Fault,
    FaultyHost,
    Strike,
    at,
    flipped,
    make_content,
    ranged,
    registry_of,
    status,
)

COUNT = 24
LAYERS = [images.random_bytes(100_000, bytes([number])) for number in range(COUNT)]


class Served(unittest.TestCase):
    layers: Sequence[bytes] = LAYERS

    def setUp(self) -> None:
        content = make_content(10)
        described = [images.describe(layer, mediatype.OCI_LAYER) for layer in self.layers]
        content.manifests["t"] = (mediatype.OCI_MANIFEST, images.manifest(content.config, described))
        content.blobs.update({digest_of(layer): layer for layer in self.layers})
        self.host = self.enterContext(FaultyHost(registry_of(content)))


class JsonReadAhead(Served):
    def setUp(self) -> None:
        super().setUp()
        self.parent = self.start()

    def start(self, *options: str) -> JsonParent:
        proxy = self.enterContext(json_proxy(*BASE, "--tls-verify=false", "--retry-delay=0.01", *options))
        self.image = proxy.parent.open(f"docker://{self.host.address}/{NAME}:t")
        return proxy.parent

    def asked(self) -> Counter[str]:
        return Counter(each.target.rpartition("/")[2] for each in self.host.asked if "/blobs/" in each.target)

    def settled(self, count: int) -> bool:
        deadline = time.monotonic() + PATIENCE
        while len(self.asked()) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        return len(self.asked()) == count

    def get(self, number: int) -> None:
        digest = str(digest_of(LAYERS[number]))
        self.assertEqual(self.parent.fetch("GetBlob", self.image, digest, len(LAYERS[number]))[1], LAYERS[number])

    def get_raw(self, number: int) -> None:
        self.assertEqual(self.parent.fetch_raw(self.image, digest_of(LAYERS[number]))[1:], (LAYERS[number], None))

    def test_in_order_each_is_asked_for_once_and_early(self) -> None:
        for get in (self.get, self.get_raw):
            with self.subTest(get.__name__):
                self.host.asked.clear()
                self.parent = self.start()
                get(0)
                self.assertTrue(self.settled(1), "one says nothing")
                get(1)
                self.assertTrue(self.settled(18), self.asked())
                for number in range(2, COUNT):
                    get(number)
                self.assertEqual(self.asked(), {str(digest_of(layer)): 1 for layer in LAYERS})

    def test_a_manifest_alone_asks_for_no_layer(self) -> None:
        self.parent.fetch("GetManifest", self.image)
        self.parent.fetch("GetFullConfig", self.image)
        self.assertTrue(self.settled(1), "the config")

    def test_scattered_layers_alone_are_asked_for(self) -> None:
        for number in (5, 9, 2, 20):
            self.get(number)
        self.assertTrue(self.settled(4), self.asked())

    def test_four_at_a_time_ask_for_each_once(self) -> None:
        for first in range(0, COUNT, 4):
            replies = []
            for number in range(first, first + 4):
                self.parent.send("GetRawBlob", self.image, str(digest_of(LAYERS[number])))
                replies.append((number, self.parent.reply()))
            for number, reply in replies:
                self.assertEqual(read_to_end(reply.fds[0]), LAYERS[number])
                self.assertIsNone(read_error_pipe(reply.fds[1]))
        self.assertEqual(self.asked(), {str(digest_of(layer)): 1 for layer in LAYERS})

    def test_none_where_it_is_turned_off(self) -> None:
        self.parent = self.start("--read-ahead=0")
        for number in range(3):
            self.get(number)
        self.assertTrue(self.settled(3))

    def test_a_fault_that_was_met_early_is_told_to_nobody_who_did_not_ask(self) -> None:
        self.get(0)
        asked: Counter[str] = Counter()
        faults = (status(503), Exchange.reset)

        def strike(exchange: Exchange) -> None:  # each layer as often as it is repeated without an error, and less
            asked[exchange.asked.target] += 1
            (faults[asked[exchange.asked.target] - 1 :] or [Exchange.answer])[0](exchange)

        self.host.strikes[:] = [Strike("blob", strike, None)]
        for number in range(1, COUNT):
            self.get(number)
        self.assertEqual(set(asked.values()), {3})

    def test_a_layer_that_is_gone_is_told_when_it_is_asked_for(self) -> None:
        gone = str(digest_of(LAYERS[4]))
        fault = status(404)

        def strike(exchange: Exchange) -> None:
            (fault if exchange.asked.target.endswith(gone) else Exchange.answer)(exchange)

        self.host.strikes[:] = [Strike("blob", strike, None)]
        for number in range(4):
            self.get(number)
        reply = self.parent.ask("GetBlob", self.image, gone, len(LAYERS[4]))
        if reply.members["success"]:
            self.assertEqual(read_to_end(reply.fds[0]), b"")
            reply = self.parent.finish(reply)
        self.assertEqual(reply.members["details"]["type"], "blob-not-found")
        for number in range(5, COUNT):
            self.get(number)


class ReadAll(Served):
    """Reads all layers through either front end."""

    def options(self) -> list[str]:
        return ["--tls-verify=false", "--retry-delay=0.01", "--idle-timeout=1", "--log-level=error"]

    def read_all_json(self) -> None:
        with json_proxy(*BASE, *self.options()) as proxy:
            parent = proxy.parent
            image = parent.open(f"docker://{self.host.address}/{NAME}:t")
            for layer in self.layers:
                self.assertEqual(parent.fetch("GetBlob", image, str(digest_of(layer)), len(layer))[1], layer)

    def read_all_http(self) -> None:
        with running(*BASE, *self.options(), f"docker://{self.host.address}/{NAME}:t") as proxy:
            self.assertEqual(proxy.line.ask("GET", "/manifest").status, 200)
            for layer in self.layers:
                self.assertEqual(proxy.line.ask("GET", f"/blobs/{digest_of(layer)}").body, layer)


class FaultsOfWhatWasAskedForEarly(ReadAll):
    """Through both front ends: every third layer is struck, most of them where they were asked for early.

    A layer is struck twice at most, whatever is asked for beside it: how the requests for several layers follow each
    other is chance, and one that was struck at each of its repeats would end as an error, as it should.
    """

    def each(self, fault: Fault, *, every: int = 3) -> None:
        def strike(exchange: Exchange) -> None:
            asked[exchange.asked.target] += 1
            number = list(asked).index(exchange.asked.target) + 1
            (fault if number % every == 0 and asked[exchange.asked.target] <= 2 else Exchange.answer)(exchange)

        for front in ("http", "json"):
            with self.subTest(front):
                asked: Counter[str] = Counter()
                self.host.strikes[:] = [Strike("blob", strike, None)]
                self.read_all_http() if front == "http" else self.read_all_json()
                self.assertEqual(sum(times >= 2 for times in asked.values()), len(self.layers) // every)

    def test_stall(self) -> None:
        self.each(at(0.5, Exchange.stall), every=9)

    def test_stall_before_the_answer(self) -> None:
        self.each(Exchange.stall, every=9)

    def test_cut(self) -> None:
        self.each(at(0.5, Exchange.end))

    def test_reset(self) -> None:
        self.each(Exchange.reset)

    def test_429(self) -> None:
        self.each(status(429, Retry_After="0"))

    def test_503(self) -> None:
        self.each(status(503))

    def test_cut_and_then_416(self) -> None:
        def fault(exchange: Exchange) -> None:
            (at(0.5, Exchange.end) if exchange.asked.first_byte is None else status(416))(exchange)

        self.each(fault)

    def test_wrong_bytes_or_a_wrong_range_are_told_for_the_layer_that_has_them_alone(self) -> None:
        bad = LAYERS[7]
        shifted = ranged(lambda first, total: f"bytes {first + 1}-{total}/{total}")

        def cut(exchange: Exchange) -> None:
            (at(0.5, Exchange.end) if exchange.asked.first_byte is None else shifted)(exchange)

        for fault in (flipped(10), cut):

            def strike(exchange: Exchange, fault: Fault = fault) -> None:
                (fault if exchange.asked.target.endswith(str(digest_of(bad))) else Exchange.answer)(exchange)

            self.host.strikes[:] = [Strike("blob", strike, None)]
            with json_proxy(*BASE, *self.options()) as proxy:
                parent = proxy.parent
                image = parent.open(f"docker://{self.host.address}/{NAME}:t")
                for layer in LAYERS:
                    reply = parent.ask("GetBlob", image, str(digest_of(layer)), len(layer))
                    ended = parent.collect(reply)[2].members if reply.members["success"] else reply.members
                    self.assertEqual(ended["success"], layer is not bad, ended)
            with running(*BASE, *self.options(), f"docker://{self.host.address}/{NAME}:t") as served:
                self.assertEqual(served.line.ask("GET", "/manifest").status, 200)
                for layer in LAYERS:
                    answer = served.line.ask("GET", f"/blobs/{digest_of(layer)}")
                    self.assertEqual(
                        (answer.status, answer.body == layer), (502, False) if layer is bad else (200, True)
                    )


class KeptParts(ReadAll):
    """What is asked for early is kept as any other blob; here alone read-ahead meets disks and other processes."""

    layers = tuple(images.random_bytes(5 << 20, bytes([number])) for number in range(6))

    def setUp(self) -> None:
        super().setUp()
        self.parts = Path(self.enterContext(tempfile.TemporaryDirectory()), "parts")

    def options(self) -> list[str]:
        return [*super().options(), f"--partial-dir={self.parts}"]

    def test_a_full_disk(self) -> None:
        for read_all in (self.read_all_http, self.read_all_json):
            with small_files(2 << 20):
                read_all()
        self.assertTrue(list(self.parts.iterdir()))

    def test_two_processes_at_once(self) -> None:
        with ThreadPoolExecutor(2) as pool:
            for run in [pool.submit(self.read_all_http), pool.submit(self.read_all_json)]:
                run.result()
        self.assertLessEqual(len(self.asked_layers()), 2 * len(self.layers))
        self.host.asked.clear()
        self.read_all_json()
        self.assertEqual(self.asked_layers(), [], "all of them are kept")

    def asked_layers(self) -> list[str]:
        names = {str(digest_of(layer)) for layer in self.layers}
        return [each.target for each in self.host.asked if each.target.rpartition("/")[2] in names]


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""Read-ahead for parents of the JSON protocol: each layer asked for once, in time, and none that nobody wants."""

import time
import unittest
from collections import Counter

from cip.model import mediatype
from cip.model.descriptor import digest_of
from tests.support import images
from tests.support.faultrun import BASE
from tests.support.jsonparent import JsonParent, json_proxy, read_error_pipe, read_to_end
from tests.support.parent import PATIENCE
from tests.support.registry import NAME, Exchange, FaultyHost, Strike, make_content, registry_of, status

COUNT = 24
LAYERS = [images.random_bytes(100_000, bytes([number])) for number in range(COUNT)]


class JsonReadAhead(unittest.TestCase):
    def setUp(self) -> None:
        content = make_content(10)
        manifest = images.manifest(content.config, [images.describe(layer, mediatype.OCI_LAYER) for layer in LAYERS])
        content.manifests["t"] = (mediatype.OCI_MANIFEST, manifest)
        content.blobs.update({digest_of(layer): layer for layer in LAYERS})
        self.host = self.enterContext(FaultyHost(registry_of(content)))
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
        self.host.strikes[:] = [Strike("blob", status(503), 4), Strike("blob", Exchange.reset, 3)]
        for number in range(1, COUNT):
            self.get(number)

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


if __name__ == "__main__":
    unittest.main()

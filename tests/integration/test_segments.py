# SPDX-License-Identifier: Apache-2.0
"""`--segments` through both front ends: the bytes arrive whatever becomes of a segment."""

import time
import unittest
from collections.abc import Callable
from functools import partial

from cip.model.descriptor import digest_of
from tests.support.faultrun import Outcome, run_http, run_json
from tests.support.faulttable import BYTES, CUT, World
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

CONTENT = make_content(84 << 20)
DIGEST = str(digest_of(CONTENT.layer))
RUNS: tuple[Callable[..., Outcome], ...] = (run_http, run_json)


def paced(exchange: Exchange, rate: float = 40e6) -> None:
    """The right answer at so many bytes a second, which is slow enough to try more than one connection."""
    given = exchange.given
    exchange.send(given.head())
    began = time.monotonic()
    for start in range(0, len(given.body), 1 << 18):
        exchange.send(given.body[start : start + (1 << 18)])
        time.sleep(max(0.0, began + start / rate - time.monotonic()))


SLOW = partial(paced, rate=10e6)  # far from what a loaded machine takes for slow, so that segments are not given up


def of_segments(fault: Fault, alone: Fault = paced) -> Fault:
    """The fault strikes segments; the one stream is paced."""
    return lambda exchange: (fault if exchange.asked.last_byte is not None else alone)(exchange)


class Segments(unittest.TestCase):
    def setUp(self) -> None:
        self.make_host()

    def make_host(self, *, takes_ranges: bool = True) -> None:
        self.host = self.enterContext(FaultyHost(registry_of(CONTENT, takes_ranges=takes_ranges)))
        options = ["--tls-verify=false", "--segments=4", "--retry-delay=0.01", "--idle-timeout=1.5"]
        kept = {f"connection {number}": self.host for number in range(4)}  # as many may stay open behind it
        self.world = World(CONTENT, f"docker://{self.host.address}/{NAME}:t", options, hosts=kept)

    def each(self, fault: Fault, times: int | None, *ended: str, alone: Fault = paced) -> None:
        for run, expected in zip(RUNS, ended or (BYTES, BYTES), strict=True):
            with self.subTest(run.__name__):
                self.host.asked.clear()
                self.host.strikes[:] = [Strike("blob", of_segments(fault, alone), times), Strike("blob", alone, None)]
                self.assertEqual(run(self.world).ended, expected)

    def spans(self) -> list[tuple[int | None, int | None]]:
        return [(asked.first_byte, asked.last_byte) for asked in self.host.asked if asked.target.endswith(DIGEST)]

    def test_one_stream_and_single_ranges_that_cover_the_rest_once(self) -> None:
        self.host.strikes[:] = [Strike("blob", SLOW, None)]
        self.assertEqual(run_http(self.world).ended, BYTES)
        spans = self.spans()
        self.assertEqual(spans[0], (None, None))
        covered = sorted((first or 0, last or 0) for first, last in spans[1:])
        self.assertGreater(len(covered), 4)
        self.assertEqual([last + 1 for _, last in covered], [first for first, _ in covered[1:]] + [len(CONTENT.layer)])

    def test_stall(self) -> None:
        self.each(at(0.3, Exchange.stall), 4)

    def test_cut(self) -> None:
        self.each(at(0.3, Exchange.end), 4)

    def test_reset(self) -> None:
        self.each(Exchange.reset, 4)

    def test_416(self) -> None:
        self.each(status(416), None)

    def test_501_as_for_several_ranges(self) -> None:
        self.each(status(501), None)

    def test_429_as_of_a_server_that_counts_connections(self) -> None:
        self.each(status(429, Retry_After="0"), None)

    def test_404(self) -> None:
        self.each(status(404), None)

    def test_wrong_range(self) -> None:
        self.each(ranged(lambda first, total: f"bytes {first + 1}-{total}/{total}"), None)

    def test_a_server_without_ranges_is_asked_for_nothing_twice(self) -> None:
        self.make_host(takes_ranges=False)
        self.each(Exchange.answer, None)
        self.assertEqual(len([span for span in self.spans() if span == (None, None)]), 1)

    def test_wrong_bytes(self) -> None:
        def strike(exchange: Exchange) -> None:
            late = (exchange.asked.first_byte or 0) > len(CONTENT.layer) // 2
            (flipped(0) if late else Exchange.answer)(exchange)

        self.each(strike, None, CUT, "content-mismatch", alone=SLOW)


if __name__ == "__main__":
    unittest.main()

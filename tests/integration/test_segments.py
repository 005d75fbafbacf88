# SPDX-License-Identifier: Apache-2.0
"""`--segments` through both front ends: the bytes arrive whatever becomes of a segment."""

import tempfile
import time
import unittest
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from cip.model.descriptor import digest_of
from tests.support.faultrun import BASE, Outcome, json_proxy, run_http, run_json, small_files
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

# Short enough that its second half begins before a loaded machine has seen that segments bring it nothing
CONTENT = make_content(64 << 20)
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


SLOW = partial(paced, rate=10e6)  # far from what a loaded machine takes for fast


def of_segments(fault: Fault, alone: Fault = paced) -> Fault:
    """The fault strikes segments; the one stream is paced."""
    return lambda exchange: (fault if exchange.asked.last_byte is not None else alone)(exchange)


def wrong_late(exchange: Exchange) -> None:
    """A wrong byte in the second half of the layer, so that what has left before is right."""
    (flipped(0) if (exchange.asked.first_byte or 0) > len(CONTENT.layer) // 2 else Exchange.answer)(exchange)


def spans(host: FaultyHost) -> list[tuple[int | None, int | None]]:
    """What of the layer was asked for; one stream goes on to the end where segments did not bring enough."""
    asked_for = [asked for asked in host.asked if asked.target.partition("?")[0].endswith(DIGEST)]
    end = len(CONTENT.layer) - 1
    return [
        (asked.first_byte, end if asked.first_byte and not asked.last_byte else asked.last_byte) for asked in asked_for
    ]


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

    def test_one_stream_and_single_ranges_that_cover_the_rest_once(self) -> None:
        self.host.strikes[:] = [Strike("blob", SLOW, None)]
        self.assertEqual(run_http(self.world).ended, BYTES)
        whole, *segments = spans(self.host)
        self.assertEqual(whole, (None, None))
        covered = sorted((first or 0, last or 0) for first, last in segments)
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
        self.assertEqual(len([span for span in spans(self.host) if span == (None, None)]), 1)

    def test_wrong_bytes(self) -> None:
        self.each(wrong_late, None, CUT, "content-mismatch", alone=SLOW)

    def with_parts(self) -> Path:
        parts = Path(self.enterContext(tempfile.TemporaryDirectory()), "parts")
        self.world.options.append(f"--partial-dir={parts}")
        self.host.strikes[:] = [Strike("blob", paced, None)]
        return parts

    def test_a_full_disk(self) -> None:
        parts = self.with_parts()
        for run in RUNS:
            with small_files(40 << 20):  # in the middle of the segments
                self.assertEqual(run(self.world).ended, BYTES)
        self.assertTrue(list(parts.iterdir()))

    def test_two_processes_at_once(self) -> None:
        self.with_parts()
        with ThreadPoolExecutor(2) as pool:
            for run in [pool.submit(run, self.world) for run in RUNS]:
                self.assertEqual(run.result().ended, BYTES)
        self.host.asked.clear()
        self.assertEqual(run_http(self.world).ended, BYTES)
        self.assertEqual(spans(self.host), [], "all of it is kept")


class SeveralMirrors(unittest.TestCase):
    """Two mirrors in front of a registry; what is wrong is wrong with the second one."""

    def setUp(self) -> None:
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.make_world()

    def make_world(self, *, takes_ranges: bool = True) -> None:
        whole = registry_of(CONTENT)
        self.first, self.registry = (self.enterContext(FaultyHost(whole)) for _ in range(2))
        self.second = self.enterContext(FaultyHost(registry_of(CONTENT, takes_ranges=takes_ranges)))
        configuration = self.directory / "registries.conf"
        configuration.write_text(
            f'[[registry]]\nlocation = "{self.registry.address}"\ninsecure = true\n'
            f'[[registry.mirror]]\nlocation = "{self.first.address}"\ninsecure = true\n'
            f'[[registry.mirror]]\nlocation = "{self.second.address}"\ninsecure = true\n'
        )
        options = [f"--registries-conf={configuration}", "--segments=4", "--retry-delay=0.01", "--idle-timeout=1.5"]
        kept = {f"connection {number}": self.first for number in range(6)}
        self.world = World(CONTENT, f"docker://{self.registry.address}/{NAME}:t", options, hosts=kept)

    def arm(self, fault: Fault) -> None:
        for host in (self.first, self.second, self.registry):
            host.asked.clear()
        self.first.strikes[:] = [Strike("blob", SLOW, None)]
        self.second.strikes[:] = [Strike("blob", fault, None)]

    def each(self, fault: Fault, *ended: str, most: int = 4) -> None:
        """How it ends; the second mirror is not asked more often than before its first fault was known."""
        for run, expected in zip(RUNS, ended or (BYTES, BYTES), strict=True):
            with self.subTest(run.__name__):
                self.arm(fault)
                self.assertEqual(run(self.world).ended, expected)
                self.assertLessEqual(len(spans(self.second)), most)
                self.assertEqual(spans(self.registry), [], "it stands behind its mirrors")

    def test_segments_are_asked_for_at_each_in_turn_and_nothing_twice(self) -> None:
        for run in RUNS:
            self.arm(SLOW)
            self.assertEqual(run(self.world).ended, BYTES)
            whole, *of_first = sorted(spans(self.first), key=lambda span: span[0] or 0)
            of_second = spans(self.second)
            self.assertEqual((whole, spans(self.registry)), ((None, None), []))
            self.assertLessEqual(abs(len(of_first) - len(of_second)), 1)
            covered = sorted((first or 0, last or 0) for first, last in (*of_first, *of_second))
            self.assertEqual(
                [last + 1 for _, last in covered], [first for first, _ in covered[1:]] + [len(CONTENT.layer)]
            )

    def test_a_mirror_that_is_dead(self) -> None:
        self.each(Exchange.stall)
        self.second.close()
        self.each(Exchange.answer)

    def test_a_mirror_that_cuts_each_segment(self) -> None:
        self.each(at(0.3, Exchange.end))

    def test_a_mirror_without_ranges(self) -> None:
        self.make_world(takes_ranges=False)
        self.each(Exchange.answer)

    def test_a_mirror_that_has_not_got_it(self) -> None:
        self.each(status(404))
        self.each(status(416))

    def test_a_mirror_with_another_length(self) -> None:
        self.each(ranged(lambda first, total: f"bytes {first}-{total - 1}/{len(CONTENT.layer) + 1}"))

    def test_a_mirror_with_another_range(self) -> None:
        self.each(ranged(lambda first, total: f"bytes {first + 1}-{total}/{len(CONTENT.layer)}"))

    def test_a_mirror_that_wants_to_be_left_alone(self) -> None:
        self.each(status(429, Retry_After="60"), most=3)

    def test_wrong_bytes_end_it_and_nothing_of_them_is_used_again(self) -> None:
        parts = self.directory / "parts"
        for options in ([], [f"--partial-dir={parts}"]):
            self.world.options += options
            with self.subTest(options):
                self.each(wrong_late, CUT, "content-mismatch", most=9)
                self.assertEqual(list(parts.glob("*.part")), [])

    def test_after_wrong_bytes_a_process_asks_one_place_for_one_stream(self) -> None:
        self.arm(wrong_late)
        digest, size = str(digest_of(CONTENT.layer)), len(CONTENT.layer)
        with json_proxy(*BASE, *self.world.options) as (parent, _):
            image = parent.open(self.world.reference)
            ended = parent.fetch("GetBlob", image, digest, size)[2].members
            self.assertEqual(ended["details"]["type"], "content-mismatch")
            self.assertTrue(spans(self.second))
            self.arm(wrong_late)
            _, data, finished = parent.fetch("GetBlob", image, digest, size)
            self.assertTrue(finished.members["success"], finished)
        self.assertTrue(data == CONTENT.layer)
        self.assertEqual((spans(self.first), spans(self.second)), ([(None, None)], []))


if __name__ == "__main__":
    unittest.main()

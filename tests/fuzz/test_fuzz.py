# SPDX-License-Identifier: Apache-2.0
"""The fuzzer itself: it finds what is planted, keeps to its limits, and its changes keep formats intact."""

import io
import json
import signal
import subprocess
import sys
import tarfile
import unittest
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from cip.errors import CipError

from .engine import SEEDS, Finding, Target, arm, fuzz, judge, minimise, next_input, seeds
from .mutation import MAXIMUM, mutate, mutate_der, mutate_json, mutate_tar
from .targets import TARGETS

RUN = Path(__file__).parent / "run"


class Armed(unittest.TestCase):
    """The limit of time works, and is undone."""

    def setUp(self) -> None:
        before = signal.getsignal(signal.SIGPROF)
        arm()
        self.addCleanup(signal.signal, signal.SIGPROF, before)


class Judging(Armed):
    def judged(self, error: BaseException | None) -> str | Finding:
        def run(data: bytes) -> None:
            if error is not None:
                raise error

        return judge(Target("x", run), b"data")

    def place(self, error: BaseException) -> str:
        judged = self.judged(error)
        assert isinstance(judged, Finding)
        return judged.place

    def test_typed_errors_and_acceptance_are_outcomes(self) -> None:
        self.assertEqual(self.judged(None), "accepted")
        self.assertEqual(self.judged(CipError("a 'b' 12")), "CipError:internal:a  ")

    def test_everything_else_is_a_finding(self) -> None:
        for error in (ValueError("x"), RecursionError(), MemoryError(), AssertionError(), BaseException("panic")):
            with self.subTest(error):
                self.assertEqual(self.place(error), f"{type(error).__name__} at the target")

    def test_a_typed_error_that_cannot_be_told_is_a_finding(self) -> None:
        for message in ("", "a\nb", "a\x1b[31m", "a\ud800", "a" * 9000):
            with self.subTest(message[:9]):
                self.assertEqual(self.place(CipError(message)), "AssertionError at the target")

    def test_an_endless_loop_is_a_finding(self) -> None:
        def run(data: bytes) -> None:
            while True:
                try:
                    data = data[:1]
                except Exception:
                    continue

        with patch("tests.fuzz.engine.INPUT_SECONDS", 0.1):
            judged = judge(Target("x", run), b"")
        assert isinstance(judged, Finding)
        self.assertIn("_TooSlowError", judged.place)

    def test_a_finding_becomes_as_short_as_it_can(self) -> None:
        def run(data: bytes) -> None:
            if b"a" in data and b"b" in data:
                raise ValueError

        target = Target("x", run)
        judged = judge(target, b"1234567890a1234567890b1234567890")
        assert isinstance(judged, Finding)
        self.assertEqual(minimise(target, judged).data, b"ab")


class Fuzzing(Armed):
    def test_a_planted_fault_is_found(self) -> None:
        def run(data: bytes) -> None:
            text = data.decode("latin-1")
            if text.startswith("sha256:") and "md5:" in text:
                raise KeyError(text)

        outcome = fuzz(Target("digest", run, (b"md5:",)), seconds=60, inputs=20_000, seed=1)
        self.assertEqual([finding.place for finding in outcome.findings], ["KeyError at the target"])

    def test_a_run_is_repeated_by_its_seed(self) -> None:
        def inputs(seed: int) -> list[bytes]:
            random = Random(seed)
            return [next_input(random, TARGETS["manifest"], seeds("manifest")) for _ in range(50)]

        self.assertEqual(inputs(1), inputs(1))
        self.assertNotEqual(inputs(1), inputs(2))

    def test_new_outcomes_lead_further(self) -> None:
        """Three letters in a row are found one after the other, because each step is told apart."""

        def run(data: bytes) -> str:
            depth = next((at for at, letter in enumerate(b"xyz") if data[at : at + 1] != bytes([letter])), 3)
            if depth == 3:
                raise KeyError
            return "." * depth

        outcome = fuzz(Target("digest", run, (b"x", b"y", b"z")), seconds=60, inputs=100_000, seed=1)
        self.assertEqual(len(outcome.findings), 1)

    def test_the_number_of_inputs_is_kept(self) -> None:
        outcome = fuzz(Target("digest", lambda data: None), seconds=60, inputs=250, seed=1)
        self.assertEqual((outcome.inputs, outcome.findings), (250, ()))


class Seeds(Armed):
    def test_every_target_has_seeds_and_every_seed_a_target(self) -> None:
        self.assertEqual({path.name for path in SEEDS.iterdir()}, set(TARGETS))

    def test_every_seed_has_an_outcome_and_one_of_each_target_is_accepted(self) -> None:
        for name, target in TARGETS.items():
            with self.subTest(name):
                outcomes = [judge(target, data) for data in seeds(name)]
                self.assertEqual([each for each in outcomes if isinstance(each, Finding)], [])
                self.assertTrue(any(str(each).startswith("accepted") for each in outcomes), outcomes)

    def test_seeds_are_small(self) -> None:
        for path in SEEDS.rglob("*"):
            self.assertLessEqual(path.stat().st_size, MAXIMUM, path)


class Changes(unittest.TestCase):
    def changes(self, name: str) -> list[tuple[bytes, bytes]]:
        random = Random(1)
        structure = TARGETS[name].structure
        assert structure is not None
        return [(data, structure(random, data)) for data in seeds(name) for _ in range(100)]

    def test_bytes_change_within_their_limit(self) -> None:
        random = Random(1)
        changed = [mutate(random, b"abc" * 5000, [b"other"], [b"token"]) for _ in range(500)]
        self.assertLessEqual(max(map(len, changed)), MAXIMUM)
        self.assertGreater(len(set(changed)), 300)
        self.assertTrue(any(b"token" in each for each in changed))

    def test_json_stays_json_and_gets_repeated_keys(self) -> None:
        def doubled(members: list[tuple[str, Any]]) -> bool:
            """Whether an object has a key twice, or has a member that does."""
            keys = [key for key, _ in members]
            return len(set(keys)) < len(keys) or any(child is True for _, child in members)

        found = [
            json.loads(changed.decode("utf-8", "surrogatepass"), object_pairs_hook=doubled)
            for _, changed in self.changes("manifest")
        ]
        repeated = [each for each in found if each is True]
        self.assertGreater(len(repeated), 5)
        self.assertEqual(mutate_json(Random(1), b"{"), b"{")

    def test_der_keeps_its_lengths(self) -> None:
        for _, changed in self.changes("certificate"):
            position = 0
            while position < len(changed):
                self.assertLess(position + 1, len(changed))
                size, position = changed[position + 1], position + 2
                if size >= 0x80:
                    width = size & 0x7F
                    size = int.from_bytes(changed[position : position + width], "big")
                    position += width
                position += size
            self.assertEqual(position, len(changed))
        self.assertEqual(mutate_der(Random(1), b"\x30\x05"), b"\x30\x05")

    def test_tar_headers_keep_their_checksums(self) -> None:
        readable = 0
        for _, changed in self.changes("tar"):
            try:
                with tarfile.open(fileobj=io.BytesIO(changed)) as archive:
                    readable += archive.next() is not None
            except (tarfile.TarError, ValueError, OSError, OverflowError):
                continue
        self.assertGreater(readable, 100)
        self.assertEqual(mutate_tar(Random(1), b""), b"")


class CommandLine(unittest.TestCase):
    def run_it(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, str(RUN), *arguments], check=False, capture_output=True, text=True, timeout=120
        )

    def test_a_clean_run_ends_with_status_0_and_a_row_for_each_target(self) -> None:
        done = self.run_it("--inputs=200", "--seed=1", "digest", "content-range")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"digest +200 inputs")
        self.assertRegex(done.stdout, r"content-range +200 inputs")

    def test_an_unknown_target_is_wrong_usage(self) -> None:
        done = self.run_it("x")
        self.assertEqual(done.returncode, 2)
        self.assertIn("unknown target x, expected one of reference", done.stderr)

    def test_an_input_is_replayed(self) -> None:
        done = self.run_it("--replay", str(SEEDS / "digest" / "sha256"), "digest")
        self.assertEqual((done.returncode, done.stdout.strip()), (0, "accepted"))


if __name__ == "__main__":
    unittest.main()

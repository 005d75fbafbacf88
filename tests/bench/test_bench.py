# SPDX-License-Identifier: Apache-2.0
"""The bench itself works: every row has figures of every program that it is about. Nothing here looks at time."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from tests.bench import table
from tests.bench.table import Row
from tests.support.peers import require_peer

BENCH = Path(__file__).with_name("run")


class Bench(unittest.TestCase):
    def test_the_short_form_fills_every_row(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            figures = Path(scratch, "figures.json")
            done = subprocess.run(
                [sys.executable, str(BENCH), "--short", f"--json={figures}"],
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            self.assertEqual(done.returncode, 0, done.stderr[-3000:])
            rows = json.loads(figures.read_text())["rows"]
            self.assertGreaterEqual(len(rows), 20)
            for row in rows:
                with self.subTest(row["name"]):
                    self.assertTrue(row["samples"])
                    for values in row["samples"].values():
                        self.assertTrue(all(value >= 0 for value in values))
            self.assertIn("| spawn to manifest, plain | ms |", done.stdout)
            self.assertIn("| checkout | package | wheel | one file, compiled | one file |", done.stdout)


class Imports(unittest.TestCase):
    def test_each_kind_of_module_has_its_row(self) -> None:
        words = [sys.executable, str(BENCH.with_name("imports")), "--repeat", "1"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        rows = [line.partition(": ") for line in done.stdout.splitlines()]
        kinds = ["the interpreter", "what the bound loads", "further standard library", "ours"]
        self.assertEqual([row[0].removeprefix("- ") for row in rows], kinds)
        self.assertTrue(all(int(row[2].partition(" modules")[0]) > 5 for row in rows), done.stdout)


class Fleet(unittest.TestCase):
    def test_a_few_machines_all_succeed(self) -> None:
        words = ["--machines", "4", "--together", "2", "--program", "HTTP"]
        done = subprocess.run(
            [sys.executable, str(BENCH.with_name("fleet")), *words],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        rows = [line for line in done.stdout.splitlines() if line.startswith("| HTTP")]
        self.assertEqual([row.rpartition("s |")[2] for row in rows], [" 0 |", " 0 |"], done.stdout)
        self.assertEqual(len([line for line in done.stdout.splitlines() if " all begin within " in line]), 6)


class Loss(unittest.TestCase):
    def test_all_bytes_arrive_over_a_line_that_loses_packets(self) -> None:
        for name in ("ip", "nft"):
            require_peer(name)
        done = subprocess.run(
            [sys.executable, str(BENCH.with_name("loss")), "--short", "--only=0"],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("| 2 MiB, 0.1 % loss, cubic |", done.stdout)


class Tables(unittest.TestCase):
    def test_medians_and_ratios(self) -> None:
        row = Row("a", "s", "less", {"ours": [1.0, 9.0, 2.0], "model": [4.0]})
        self.assertEqual((row.median("ours"), row.ratio("ours", "model")), (2.0, 0.5))
        shown = table.text([row], ("ours", "other", "model"), "model", compared=("ours",))
        self.assertIn("| a | s | 2.00 | – | 4.00 | 0.50 |\n", shown)
        self.assertIn("| – |", table.text([Row("b", "s", "less")], ("ours", "model"), "model", compared=("ours",)))


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
import tempfile
import unittest
from pathlib import Path

from tests.support.tally import Tally, tally_of_junit, tally_of_unittest


class TallyTest(unittest.TestCase):
    def test_the_last_lines_of_unittest_are_counted(self) -> None:
        for case, text, expected in (
            ("all good", "Ran 12 tests in 0.010s\n\nOK\n", Tally(12, 0, 0)),
            ("one test", "Ran 1 test in 0.010s\n\nOK\n", Tally(1, 0, 0)),
            ("skipped", "Ran 12 tests in 0.010s\n\nOK (skipped=3)\n", Tally(9, 0, 3)),
            ("both kinds", "Ran 9 tests in 1s\n\nFAILED (failures=1, errors=2, skipped=3)\n", Tally(3, 3, 3)),
            ("surprise", "Ran 2 tests in 1s\n\nFAILED (unexpected successes=1)\n", Tally(1, 1, 0)),
            ("foreseen", "Ran 2 tests in 1s\n\nOK (expected failures=1)\n", Tally(2, 0, 0)),
            ("none", "Ran 0 tests in 0.000s\n\nNO TESTS RAN\n", Tally()),
            ("crash before the end", "Traceback (most recent call last):\n", Tally()),
        ):
            with self.subTest(case):
                self.assertEqual(expected, tally_of_unittest(text))

    def test_several_failures_in_one_test_never_make_a_negative_count(self) -> None:
        self.assertEqual(Tally(0, 5, 0), tally_of_unittest("Ran 1 test in 1s\n\nFAILED (failures=5)\n"))

    def test_the_suites_of_a_junit_report_are_added_up(self) -> None:
        report = (
            '<testsuites><testsuite tests="7" failures="1" errors="1" skipped="2"/>'
            '<testsuite tests="1" failures="0" errors="0" skipped="0"/></testsuites>'
        )
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "report.xml"
            self.assertEqual(Tally(), tally_of_junit(file))
            file.write_text(report, encoding="utf-8")
            self.assertEqual(Tally(4, 2, 2), tally_of_junit(file))

    def test_the_sum_reads_as_the_last_line_of_a_run(self) -> None:
        self.assertEqual("5 passed, 1 failed, 2 skipped", str(Tally(4, 1, 0) + Tally(1, 0, 2)))

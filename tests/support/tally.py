# SPDX-License-Identifier: Apache-2.0
"""Counts what the test runners report."""

import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree


@dataclass(frozen=True, slots=True)
class Tally:
    """What one step counted; a check without tests of its own, as ruff is, counts as one."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


PASSED, FAILED = Tally(passed=1), Tally(failed=1)


def tally_of_junit(report: Path) -> Tally:
    """Sum of the suites in pytest's JUnit report; nothing when pytest wrote none."""
    if not report.exists():
        return Tally()
    total = Tally()
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        count = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
        failed = count["failures"] + count["errors"]
        total += Tally(max(count["tests"] - failed - count["skipped"], 0), failed, count["skipped"])
    return total


def tally_of_unittest(text: str) -> Tally:
    """What the last lines of `python3 -m unittest` say: `Ran 12 tests in 0.1s`, `FAILED (errors=1, skipped=2)`."""
    ran = re.findall(r"^Ran (\d+) tests? in ", text, re.MULTILINE)
    if not ran:
        return Tally()
    verdict = re.findall(r"^(?:OK|FAILED|NO TESTS RAN)\b.*$", text, re.MULTILINE)
    count = {name: int(number) for name, number in re.findall(r"([a-z ]+)=(\d+)", verdict[-1] if verdict else "")}
    count = {name.strip(): number for name, number in count.items()}
    failed = count.get("failures", 0) + count.get("errors", 0) + count.get("unexpected successes", 0)
    skipped = count.get("skipped", 0)
    return Tally(max(int(ran[-1]) - failed - skipped, 0), failed, skipped)

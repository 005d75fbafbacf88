# SPDX-License-Identifier: Apache-2.0
"""Every citation of the rules in tests/spec can be followed: the section or the row is there under that name."""

import re
import unittest
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SPEC = REPOSITORY / "tests" / "spec"
_ITEM = r"(?:[0-9]+(?:\.[0-9]+)*[a-z]?|[A-Z]{1,2}[0-9]{1,3})(?![\w-])"
_AND = r"(?:, (?:rows? |and )?| and | to )"
CITATION = re.compile(rf"\b([a-z-]+)\.md(?:'s)?,? (?:sections? |rows? |vectors? |step )?({_ITEM}(?:{_AND}{_ITEM})*)")
# A label without its file is a label of nobody knows what.
BARE = re.compile(r"\b(?:rows?|vectors?) [A-Z]{1,2}[0-9]{1,3}\b(?!.{0,40}\.md)|(?<=\s)\([A-Z][0-9]{1,2}\)")


def sections(text: str) -> set[str]:
    """The numbers of the headings, and the labels of rows and rules."""
    found = set(re.findall(r"^#+ ([0-9]+(?:\.[0-9]+)*[a-z]?)\.? ", text, re.MULTILINE))
    for part in re.split(r"^#+ ", text, flags=re.MULTILINE):  # a numbered list in section 10: 10.1, 10.2
        number = re.match(r"([0-9.]+?)\.? ", part)
        if number:
            found |= {f"{number[1]}.{item}" for item in re.findall(r"^([0-9]+)\. ", part, re.MULTILINE)}
    letters = re.findall(r"^### ([a-z])\. ", text, re.MULTILINE)  # stdlib-http.md: tables of section 8
    found |= {f"8{letter}" for letter in letters}
    for first, last in re.findall(r"\b([A-Z]{1,2}[0-9]{1,3})\b(?: to ([A-Z]{1,2}[0-9]{1,3})\b)?", text):
        found |= {first} | _between(first, last)
    return found


def _between(first: str, last: str) -> set[str]:
    letters = first.rstrip("0123456789")
    if not last.startswith(letters) or not last[len(letters) :].isdigit():
        return set()
    width = len(first) - len(letters)
    numbers = range(int(first[len(letters) :]), int(last[len(letters) :]) + 1)
    return {f"{letters}{number:0{width}}" for number in numbers}


def complaints(text: str, rules: dict[str, set[str]]) -> Iterator[str]:
    """What cannot be followed in `text`."""
    joined = re.sub(r"\n\s*(?:# )?", " ", text)  # a sentence goes on in the next line of a comment
    for citation in CITATION.finditer(joined):
        name = citation[1]
        if name not in rules:
            yield f"{citation[0]!r}: there is no tests/spec/{name}.md"
            continue
        for item in re.findall(_ITEM, citation[2]):
            if item not in rules[name]:
                yield f"{citation[0]!r}: {name}.md has no {item}"
    for bare in BARE.finditer(CITATION.sub(r"\1.md", joined)):
        yield f"{bare[0]!r}: says not of which document it is"


class CitationsTest(unittest.TestCase):
    rules: dict[str, set[str]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.rules = {path.stem: sections(path.read_text(encoding="utf-8")) for path in SPEC.glob("*.md")}

    def test_every_citation_in_the_package_leads_somewhere(self) -> None:
        found = []
        for path in sorted((REPOSITORY / "cip").rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            found += [f"{path.relative_to(REPOSITORY)}: {each}" for each in complaints(text, self.rules)]
        self.assertEqual([], found)

    def test_every_citation_in_the_tests_leads_somewhere(self) -> None:
        found = []
        for path in sorted((REPOSITORY / "tests").rglob("*.py")):
            if path != Path(__file__).resolve():
                text = path.read_text(encoding="utf-8")
                found += [f"{path.relative_to(REPOSITORY)}: {each}" for each in complaints(text, self.rules)]
        self.assertEqual([], found)

    def test_each_kind_of_citation_is_noticed(self) -> None:
        rules = {"registry": {"6.4", "6", "S8", "B3", "B4"}}
        for text in ("registry.md 6.4", "registry.md section 6", "registry.md 6.4, S8", "registry.md B3 to B4"):
            with self.subTest(text):
                self.assertEqual([], list(complaints(text, rules)))
        for text, expected in (
            ("registry.md 6.5", "has no 6.5"),
            ("registry.md\n    # section 7", "has no 7"),
            ("registry.md 6.4 and S9", "has no S9"),
            ("nowhere.md 1", "no tests/spec/nowhere.md"),
            ("refused (row K04)", "of which document"),
            ("as required (S2).", "of which document"),
        ):
            with self.subTest(text):
                self.assertIn(expected, "\n".join(complaints(text, rules)))

    def test_documents_have_sections(self) -> None:
        for name, found in self.rules.items():
            with self.subTest(name):
                self.assertGreater(len(found), 10)


if __name__ == "__main__":
    unittest.main()

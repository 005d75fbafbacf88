# SPDX-License-Identifier: Apache-2.0
"""Over the whole program: every error class can be told on both wires, and says what the wires need."""

import inspect
import re
import unittest
from pathlib import Path

from cip import errors
from cip.errors import Attempt, CipError, ErrorCode, InvalidDigestError, MissingDependencyError, Phase, quote
from cip.wire.problem import http_status, problem

PACKAGE = Path(errors.__file__).parent
_ARGUMENTS = {  # constructors that compose their sentence from more than one fact
    errors.InvalidReferenceError: ("text", "why"),
    errors.InvalidDigestError: ("text", "why"),
    errors.InvalidDocumentError: ("where", "why"),
    errors.ConfigurationError: ("where", "why"),
    errors.MissingDependencyError: ("name", "purpose"),
}


def _classes() -> list[type[CipError]]:
    found = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, CipError)]
    assert len(found) > 15
    return found


class EveryClass(unittest.TestCase):
    def test_resolves_to_a_status_and_tells_its_code(self) -> None:
        for kind in _classes():
            with self.subTest(kind.__name__):
                error = kind(*_ARGUMENTS.get(kind, ("a sentence",)))
                self.assertIn(http_status(error), range(400, 600))
                self.assertEqual(problem(error)["type"], str(kind.default_code))

    def test_descends_from_the_one_root(self) -> None:
        strangers = [
            name
            for name, value in vars(errors).items()
            if inspect.isclass(value) and issubclass(value, BaseException) and not issubclass(value, CipError)
        ]
        self.assertEqual(strangers, [])

    def test_has_a_docstring(self) -> None:
        for kind in _classes():
            with self.subTest(kind.__name__):
                self.assertTrue(kind.__doc__)


class Facts(unittest.TestCase):
    def test_an_error_keeps_what_it_was_told(self) -> None:
        attempt = Attempt("here", 1.0, Phase.DNS, ErrorCode.NAME_NOT_RESOLVED)
        error = CipError("x", host="h", phase=Phase.DNS, digest="d", offset=3, attempts=[attempt], retry_after=2.0)
        self.assertEqual((error.host, error.phase, error.digest, error.offset), ("h", Phase.DNS, "d", 3))
        self.assertEqual((error.attempts, error.retry_after, error.reason), ((attempt,), 2.0, None))

    def test_a_code_of_its_own_overrides_that_of_the_class(self) -> None:
        error = InvalidDigestError("md5:0", "unknown", code=ErrorCode.DIGEST_UNSUPPORTED)
        self.assertEqual(error.code, ErrorCode.DIGEST_UNSUPPORTED)

    def test_a_missing_dependency_says_what_it_is_for(self) -> None:
        error = MissingDependencyError("zstd", "unpack an archive")
        self.assertEqual(str(error), "zstd is not installed: needed to unpack an archive")

    def test_only_failures_that_may_pass_are_retryable(self) -> None:
        for code, status, wanted in (
            (ErrorCode.TIMEOUT, None, True),
            (ErrorCode.REGISTRY_ERROR, None, False),
            (ErrorCode.REGISTRY_ERROR, 500, True),
            (ErrorCode.REGISTRY_ERROR, 425, True),
            (ErrorCode.REGISTRY_ERROR, 404, False),
            (ErrorCode.POLICY_REJECTED, 503, False),
            (ErrorCode.BUDGET_EXHAUSTED, None, False),
        ):
            with self.subTest(code=str(code), status=status):
                self.assertIs(CipError("x", code=code, http_status=status).retryable, wanted)


class WordsOfTheSystem(unittest.TestCase):
    def test_they_are_shown_in_lower_case_by_one_function(self) -> None:
        """`system_reason`; what `confine` shows, it has put together in lower case itself."""
        for path in PACKAGE.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            lower = len(re.findall(r"os\.strerror\([^()]*\)\.lower\(\)", text))
            self.assertEqual(text.count("os.strerror("), lower, path)
            if path.name != "errors.py" and path.parent.name != "confine":
                self.assertEqual(text.count(".strerror"), lower, f"{path}: use system_reason")


class Quotes(unittest.TestCase):
    def test_outside_text_is_shown_on_one_line_and_cut(self) -> None:
        self.assertEqual(quote("a\nb\x00"), "'a\\nb\\x00'")
        long = quote("x" * 1000)
        self.assertEqual(len(long), errors.QUOTE_LIMIT)
        self.assertTrue(long.endswith("…"))


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
import json
import unittest

from cip.errors import Attempt, CipError, ErrorCode, NetworkError, PeerError, Phase, PolicyRejectedError, RegistryError
from cip.wire.problem import PROBLEM_LIMIT, encode, http_status, one_line, problem, public_text
from cip.wire.target import RequestFault

# decisions.md section 4, written out once more: the table under test must not be its own witness
_STATUS = {
    400: "reference-invalid digest-invalid digest-unsupported request-invalid client-gone",
    403: "policy-rejected registry-blocked",
    404: "path-unknown image-not-found blob-not-in-image blob-not-found platform-not-found",
    405: "method-not-allowed",
    500: "config-invalid policy-missing policy-invalid internal source-unavailable audit-unavailable",
    501: "transport-unsupported media-type-unsupported dependency-missing",
    502: "authentication-failed credentials-unavailable tls-untrusted tls-name-mismatch tls-expired tls-not-yet-valid "
    "tls-client-certificate redirect-refused address-refused manifest-invalid content-mismatch limit-exceeded "
    "name-not-resolved connection-refused connection-lost registry-error",
    503: "rate-limited budget-exhausted offline",
    504: "timeout",
    507: "storage-full",
}
_RETRYABLE = {"name-not-resolved", "connection-refused", "connection-lost", "rate-limited", "timeout"}


class CodesHaveAStatus(unittest.TestCase):
    def test_every_code_has_the_status_that_was_decided(self) -> None:
        wanted = {code: status for status, codes in _STATUS.items() for code in codes.split()}
        found = {str(code): http_status(CipError("x", code=code)) for code in ErrorCode}
        self.assertEqual(found, wanted)

    def test_every_code_is_retryable_or_not_as_was_decided(self) -> None:
        self.assertEqual({str(code) for code in ErrorCode if CipError("x", code=code).retryable}, _RETRYABLE)

    def test_a_registry_error_is_retryable_by_its_status(self) -> None:
        for status, wanted in ((500, True), (503, True), (408, True), (400, False)):
            with self.subTest(status=status):
                error = RegistryError("x", http_status=status)
                self.assertEqual((http_status(error), error.retryable), (502, wanted))

    def test_a_framing_fault_keeps_its_own_status(self) -> None:
        for status in (413, 414, 417, 431, 501, 505):
            with self.subTest(status=status):
                fault = RequestFault(status, "x")
                self.assertEqual((http_status(fault), problem(fault)["type"]), (status, "request-invalid"))


class OneLine(unittest.TestCase):
    def test_the_log_says_how_often_something_was_tried(self) -> None:
        for tries, wanted in (
            (0, "gone"),
            (1, "gone"),
            (2, "gone (tried 2 times in 0.5 s)"),
            (10, "gone (tried at least 10 times in 4.5 s)"),
        ):
            made = [Attempt("h", each * 0.5, Phase.CONNECT, ErrorCode.CONNECTION_LOST) for each in range(tries)]
            self.assertEqual(one_line(NetworkError("gone", attempts=made)), wanted)


class ProblemDocuments(unittest.TestCase):
    def test_a_bare_error_has_the_five_members(self) -> None:
        self.assertEqual(
            problem(PeerError("the parent is gone")),
            {
                "type": "client-gone",
                "title": "client gone",
                "status": 400,
                "detail": "the parent is gone",
                "retryable": False,
            },
        )

    def test_everything_known_is_told(self) -> None:
        error = NetworkError(
            "no answer",
            code=ErrorCode.TIMEOUT,
            host="quay.io",
            phase=Phase.BLOB,
            digest="sha256:00",
            offset=7,
            attempts=[
                Attempt("mirror.example", 1.23456, Phase.CONNECT, ErrorCode.CONNECTION_REFUSED),
                Attempt("quay.io", 2.0, None, ErrorCode.TIMEOUT),
            ],
            retry_after=30.0,
        )
        self.assertEqual(
            problem(error),
            {
                "type": "timeout",
                "title": "timeout",
                "status": 504,
                "detail": "no answer",
                "retryable": True,
                "host": "quay.io",
                "phase": "blob",
                "digest": "sha256:00",
                "offset": 7,
                "attempts": [
                    {"place": "mirror.example", "at": 1.235, "phase": "connect", "code": "connection-refused"},
                    {"place": "quay.io", "at": 2.0, "phase": None, "code": "timeout"},
                ],
                "retry_after": 30.0,
            },
        )

    def test_a_refusal_of_the_policy_names_its_reason(self) -> None:
        self.assertEqual(problem(PolicyRejectedError("no", reason="unsigned"))["reason"], "unsigned")

    def test_a_time_to_wait_stays_within_reason(self) -> None:
        for found, told in ((0.0, 0.0), (1.5, 1.5), (1e300, 86400.0), (float("inf"), 86400.0), (float("nan"), 86400.0)):
            with self.subTest(found):
                self.assertEqual(problem(CipError("x", retry_after=found))["retry_after"], told)

    def test_an_offset_of_zero_is_told(self) -> None:
        self.assertEqual(problem(CipError("x", offset=0))["offset"], 0)

    def test_only_the_last_ten_attempts_are_told(self) -> None:
        attempts = [Attempt(f"place-{number}", 0.0, None, ErrorCode.TIMEOUT) for number in range(25)]
        told = problem(NetworkError("x", attempts=attempts))["attempts"]
        assert isinstance(told, list)
        self.assertEqual([attempt["place"] for attempt in told], [f"place-{number}" for number in range(15, 25)])

    def test_a_document_never_exceeds_its_limit(self) -> None:
        attempts = [Attempt("\U0001f4a9" * 300, 0.0, Phase.BLOB, ErrorCode.TIMEOUT)] * 10
        for limit in (PROBLEM_LIMIT, 3600):
            for detail in ("x" * 100_000, "\U0001f4a9" * 100_000, "\\" * 9000, "short"):
                with self.subTest(limit=limit, detail=detail[:1], length=len(detail)):
                    error = NetworkError(detail, attempts=attempts, digest="d" * 500)
                    document = encode(problem(error, limit=limit))
                    self.assertLessEqual(len(document), limit)
                    self.assertEqual(json.loads(document)["type"], "connection-lost")

    def test_a_cut_sentence_shows_that_it_was_cut_and_keeps_its_beginning(self) -> None:
        detail = problem(CipError("begin " + "x" * 10_000))["detail"]
        assert isinstance(detail, str)
        self.assertRegex(detail, r"\Abegin x+…\Z")

    def test_the_last_attempt_is_kept_rather_than_the_first(self) -> None:
        attempts = [Attempt(f"{number}" + "\U0001f4a9" * 300, 0.0, None, ErrorCode.TIMEOUT) for number in range(10)]
        told = problem(NetworkError("x", attempts=attempts))["attempts"]
        assert isinstance(told, list)
        self.assertLess(len(told), 10)
        self.assertEqual(told[-1]["place"][0], "9")


class WordingTest(unittest.TestCase):
    def test_our_own_wording_arrives_whole(self) -> None:
        """Secrets are taken out of what others said where it is quoted; here it would hit us (`errors.quote`)."""
        text = "HTTPS_PROXY: expected http://[USER:PASSWORD@]HOST[:PORT]"
        attempt = Attempt("docker://busybox@sha256:00", 0.0, None, ErrorCode.TIMEOUT)
        document = problem(NetworkError(text, host="h:1", attempts=[attempt]))
        self.assertEqual((document["detail"], document["host"]), (text, "h:1"))
        self.assertIn("docker://busybox@sha256:00", encode(document).decode())

    def test_a_sentence_stays_on_one_line_and_is_valid_unicode(self) -> None:
        self.assertEqual(public_text("a\r\nb\udcff"), "a\\r\\nb\\udcff")


class Titles(unittest.TestCase):
    def test_a_title_is_the_code_in_words(self) -> None:
        found = problem(CipError("x", code=ErrorCode.BLOB_NOT_IN_IMAGE))
        self.assertEqual(found["title"], "blob not in image")


if __name__ == "__main__":
    unittest.main()

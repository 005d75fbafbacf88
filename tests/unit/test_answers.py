# SPDX-License-Identifier: Apache-2.0
"""What answers mean that are not the wanted ones: registry.md 6.8 and vectors 10.8."""

from cip.errors import (
    AuthenticationError,
    ContentMismatchError,
    ErrorCode,
    ImageAbsentError,
    NotFoundError,
    RegistryError,
)
from cip.registry.answers import Complaint, parse_complaint, read_complaint, refusal
from tests.support.origins import OpenerCase, reply


def errors(*elements: str) -> bytes:
    return ('{"errors":[' + ",".join(elements) + "]}").encode()


def code(name: str, message: str = "") -> str:
    return f'{{"code":"{name}","message":"{message}"}}'


class ComplaintTest(OpenerCase):
    def test_the_body_of_a_refusal_is_read_as_registries_write_it(self) -> None:
        for body, status, expected in (
            (errors(code("DENIED", "no")), 403, ("DENIED", "no")),
            (b'{"Errors":[{"Code":"DENIED","Message":"no"}]}', 403, ("DENIED", "no")),
            (errors(code("NAME_UNKNOWN"), code("MANIFEST_UNKNOWN")), 404, ("NAME_UNKNOWN", "")),
            (errors('{"message":"only"}'), 400, ("UNKNOWN", "only")),
            (b'{"details":"quota"}', 403, ("UNKNOWN", "quota")),
            (b'{"details":"who"}', 401, ("UNAUTHORIZED", "who")),
            (b'{"details":"slow"}', 429, ("TOOMANYREQUESTS", "slow")),
            (b'{"errors":[]}', 404, ("", "")),
            (b'{"errors":null}', 404, ("", "")),
            (b"{}", 404, ("", "")),
            (b'{"errors":"x"}', 404, ("", '{"errors":"x"}')),
            (b"404 page not found\n", 404, ("", "404 page not found")),
            (b"\xff\xfe", 404, ("", "��")),
            (b"", 404, ("", "")),
            (b"[" * 5000, 404, ("", "[" * 50)),
        ):
            with self.subTest(body[:40]):
                self.assertEqual(parse_complaint(body, status), Complaint(*expected))

    def test_outside_text_is_quoted(self) -> None:
        self.assertEqual(str(Complaint("DENIED", "a\nb")), r": 'DENIED': 'a\nb'")
        self.assertEqual(str(Complaint("", "")), "")


class RefusalTest(OpenerCase):
    def error(
        self,
        status: int,
        body: bytes = b"",
        missing: ErrorCode = ErrorCode.IMAGE_NOT_FOUND,
        fields: dict[str, str] | None = None,
        access: str | None = "scheme basic",
    ) -> Exception:
        self.origins.add("https://h:443", lambda asked: reply(status, body, fields))
        return refusal(self.send("https://h/x"), "manifest of a/b:t", missing, self.clock, access=access)

    def test_vectors_of_registry_md_10_8(self) -> None:
        unknown = errors(code("MANIFEST_UNKNOWN", "manifest unknown"))
        for row, status, body, found, retryable in (
            ("E1", 404, unknown, ErrorCode.IMAGE_NOT_FOUND, False),
            ("E2", 404, errors(code("NAME_UNKNOWN")), ErrorCode.IMAGE_NOT_FOUND, False),
            ("E3", 404, errors(code("NOT_FOUND", "x not found")), ErrorCode.IMAGE_NOT_FOUND, False),
            ("E4", 404, b"not found", ErrorCode.IMAGE_NOT_FOUND, False),
            ("E4", 404, b"{}", ErrorCode.IMAGE_NOT_FOUND, False),
            ("E5", 404, errors(code("NAME_UNKNOWN"), code("MANIFEST_UNKNOWN")), ErrorCode.IMAGE_NOT_FOUND, False),
            ("E6", 400, unknown, ErrorCode.IMAGE_NOT_FOUND, False),
            ("E6", 401, unknown, ErrorCode.IMAGE_NOT_FOUND, False),
            ("E7", 500, unknown, ErrorCode.REGISTRY_ERROR, True),
            ("E7", 403, errors(code("DENIED")), ErrorCode.AUTHENTICATION_FAILED, False),
            ("E8", 403, b'{"details":"quota"}', ErrorCode.AUTHENTICATION_FAILED, False),
            ("E9", 429, errors(code("TOOMANYREQUESTS", "pull limit")), ErrorCode.RATE_LIMITED, True),
            ("E10", 429, b"", ErrorCode.RATE_LIMITED, True),
            ("E11", 502, b"", ErrorCode.REGISTRY_ERROR, True),
            ("E11", 500, b"", ErrorCode.REGISTRY_ERROR, True),
            ("E11", 501, b"", ErrorCode.REGISTRY_ERROR, True),
            ("E12", 401, b"", ErrorCode.AUTHENTICATION_FAILED, False),
            ("", 408, b"", ErrorCode.REGISTRY_ERROR, True),
            ("", 425, b"", ErrorCode.REGISTRY_ERROR, True),
            ("", 201, b"", ErrorCode.REGISTRY_ERROR, False),
            ("", 302, b"", ErrorCode.REGISTRY_ERROR, False),
        ):
            with self.subTest(row=row, status=status, body=body[:40]):
                error = self.error(status, body)
                self.assertIsInstance(error, RegistryError | NotFoundError | AuthenticationError)
                self.assertEqual((error.code, error.retryable), (found, retryable))  # type: ignore[attr-defined]
                self.assertEqual((error.host, error.http_status), ("h:443", status))  # type: ignore[attr-defined]

    def test_a_missing_blob_is_told_from_a_missing_image(self) -> None:
        for status, body in (
            (404, b""),
            (404, errors(code("BLOB_UNKNOWN"))),
            (400, errors(code("BLOB_UNKNOWN"))),
            (404, errors(code("NAME_UNKNOWN"))),
        ):
            error = self.error(status, body, ErrorCode.BLOB_NOT_FOUND)
            self.assertEqual(error.code, ErrorCode.BLOB_NOT_FOUND)  # type: ignore[attr-defined]

    def test_only_the_registrys_own_word_for_it_is_what_open_image_optional_takes_for_none(self) -> None:
        for status, body, its_own_word in (
            (404, errors(code("MANIFEST_UNKNOWN")), True),
            (400, errors(code("MANIFEST_UNKNOWN")), True),
            (404, b"", False),
            (404, errors(code("NAME_UNKNOWN")), False),
            (404, errors(code("NOT_FOUND")), False),
        ):
            with self.subTest(status=status, body=body):
                self.assertIs(isinstance(self.error(status, body), ImageAbsentError), its_own_word)

    def test_the_status_is_in_every_text(self) -> None:
        for status in (400, 401, 403, 404, 410, 429, 500, 503):
            for missing in (ErrorCode.IMAGE_NOT_FOUND, ErrorCode.BLOB_NOT_FOUND, ErrorCode.REGISTRY_ERROR):
                with self.subTest(status=status, missing=missing):
                    self.assertRegex(str(self.error(status, b"", missing)), rf"\b{status}\b")

    def test_a_refused_access_says_how_it_was_tried(self) -> None:
        error = self.error(401, errors(code("UNAUTHORIZED", "go away")), access="scheme basic, key 'h' of /a/auth.json")
        self.assertEqual(
            str(error),
            "h:443: manifest of a/b:t: access refused with status 401: 'UNAUTHORIZED': 'go away'; "
            "scheme basic, key 'h' of /a/auth.json",
        )

    def test_a_missing_image_says_what_to_check_and_how_it_was_asked_for(self) -> None:
        hidden = "scheme basic, no credentials"
        self.assertIn("; check the name and the tag; scheme basic, no credentials", str(self.error(404, access=hidden)))
        for missing, access in ((ErrorCode.BLOB_NOT_FOUND, hidden), (ErrorCode.IMAGE_NOT_FOUND, None)):
            with self.subTest(missing):
                self.assertNotIn("check", str(self.error(404, b"", missing, access=access)))

    def test_a_place_that_was_redirected_to_refuses_nothing_that_we_tried(self) -> None:
        for status in (401, 403):
            error = self.error(status, access=None)
            self.assertEqual(error.code, ErrorCode.REGISTRY_ERROR)  # type: ignore[attr-defined]

    def test_the_wish_for_a_pause_is_a_fact_of_the_error(self) -> None:
        for status, value, expected in (
            (429, "7", 7.0),
            (503, "0", 0.0),
            (503, "junk", None),
            (404, "7", None),
            (500, "-3", 0.0),
            (429, None, None),
        ):
            with self.subTest(status=status, value=value):
                error = self.error(status, fields={"Retry-After": value} if value is not None else None)
                self.assertEqual(error.retry_after, expected)  # type: ignore[attr-defined]

    def test_a_body_that_breaks_off_complains_of_nothing(self) -> None:
        self.origins.add("https://h:443", lambda asked: reply(404, b"{", {"Content-Length": "50"}, then="close"))
        self.assertEqual(read_complaint(self.send("https://h/x")), Complaint("", ""))
        error = refusal(self.send("https://h/x"), "it", ErrorCode.IMAGE_NOT_FOUND, self.clock)
        self.assertEqual(error.http_status, 404)

    def test_content_in_another_coding_is_not_the_content(self) -> None:
        self.origins.add("https://h:443", lambda asked: reply(200, b"x", {"Content-Encoding": "gzip"}))
        with self.assertRaisesRegex(ContentMismatchError, "h:443: expected content as it is stored, .* 'gzip'"):
            self.send("https://h/x").require_uncompressed()
        self.origins.add("https://h:443", lambda asked: reply(200, b"x", {"Content-Encoding": "Identity"}))
        self.send("https://h/x").require_uncompressed()

# SPDX-License-Identifier: Apache-2.0
"""Whether a registry keeps signatures itself, and what its answers say of attachments."""

import unittest

from cip.errors import SourceError
from cip.registry.answers import Complaint
from cip.registry.signatures import ask_for_signatures, means_no_attachment
from tests.support.origins import reply
from tests.unit.test_endpoints import EndpointCase


class PingTest(EndpointCase):
    def test_the_extension_is_there_when_the_header_says_exactly_one(self) -> None:
        for value, status, offers in (("1", 200, True), ("1", 401, True), ("true", 200, False), ("", 200, False)):
            with self.subTest(value=value, status=status):
                self.origins.asked.clear()
                fields = {"X-Registry-Supports-Signatures": value}
                self.origins.add("https://r.example:443", lambda a, s=status, f=fields: reply(s, b"", f))  # type: ignore[misc]
                endpoint = self.endpoint()
                for _ in range(2):
                    self.assertIs(ask_for_signatures(endpoint, self.limits), offers)
                self.assertEqual(self.origins.targets(), ["/v2/"])

    def test_what_the_registry_redirects_to_offers_nothing(self) -> None:
        offer = reply(200, b"", {"X-Registry-Supports-Signatures": "1"})
        self.origins.add("https://r.example:443", lambda a: reply(307, b"", {"Location": "https://other.example/v2/"}))
        self.origins.add("https://other.example:443", lambda a: offer)
        self.assertIs(ask_for_signatures(self.endpoint(), self.limits), False)

    def test_the_connection_serves_what_follows(self) -> None:
        for body in (b"", b"{}", b"x" * 500):
            with self.subTest(len(body)):
                self.origins.opened.clear()
                self.origins.add("https://r.example:443", lambda a, b=body: reply(200, b))  # type: ignore[misc]
                endpoint = self.endpoint()
                ask_for_signatures(endpoint, self.limits)
                self.status(endpoint)
                self.assertEqual(len(self.origins.opened), 1)

    def test_any_other_answer_is_a_fault(self) -> None:
        for status in (204, 400, 404, 500):
            with self.subTest(status):
                self.origins.add("https://r.example:443", lambda a, s=status: reply(s))  # type: ignore[misc]
                with self.assertRaisesRegex(SourceError, f"expected status 200 or 401 from /v2/, found {status}"):
                    ask_for_signatures(self.endpoint(), self.limits)


class AttachmentTest(unittest.TestCase):
    def test_an_attachment_is_missing_by_the_status_but_for_codes_that_say_more(self) -> None:
        # decisions.md section 10, which overrides registry.md 10.8
        for name, message, status, missing in (
            ("MANIFEST_UNKNOWN", "x", 404, True),
            ("NAME_UNKNOWN", "", 404, False),
            ("UNKNOWN", "x Not Found", 404, True),
            ("UNKNOWN", "other", 404, True),
            ("", "not found", 404, True),
            ("", "", 404, True),
            ("", "", 403, False),
            ("MANIFEST_UNKNOWN", "", 400, True),
            ("DENIED", "", 403, False),
            ("NOT_FOUND", "artifact x", 404, True),
            ("DENIED", "", 404, False),
            ("UNAUTHORIZED", "", 404, False),
            ("UNKNOWN", "not found", 403, False),
            ("TAG_INVALID", "", 404, True),
        ):
            with self.subTest(name=name, message=message, status=status):
                self.assertIs(means_no_attachment(Complaint(name, message), status), missing)


if __name__ == "__main__":
    unittest.main()

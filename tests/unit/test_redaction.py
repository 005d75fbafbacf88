# SPDX-License-Identifier: Apache-2.0
import base64
import unittest

from cip.net.redaction import NOT_SHOWN, Confidence
from tests.support.secrets import secret

WORD = secret("echo")
PACKED = base64.b64encode(f"robot:{WORD}".encode()).decode()
FORM = f"grant_type=password&password={WORD}%21&service=s".encode()


class ConfidenceTest(unittest.TestCase):
    def test_a_text_that_repeats_what_was_told_is_not_shown(self) -> None:
        for case, told, text in (
            ("basic", Confidence((f"Basic {PACKED}",)), f"bad header Basic {PACKED}"),
            ("decoded", Confidence((f"Basic {PACKED}",)), f"user robot:{WORD} is unknown"),
            ("password alone", Confidence((f"basic {PACKED}",)), f"{WORD} is wrong"),
            ("token", Confidence((f"Bearer {WORD}",)), f"token {WORD} is too old"),
            ("one of two", Confidence(("Basic eDp5", f"Bearer {WORD}")), WORD),
            ("form", Confidence(form=FORM), f"password {WORD}! is wrong"),
            ("form as it was sent", Confidence(form=FORM), f"password={WORD}%21"),
            ("refresh token", Confidence(form=f"refresh_token={WORD}".encode()), f"no such token: {WORD}"),
        ):
            with self.subTest(case):
                self.assertEqual(NOT_SHOWN, told.redact(text))

    def test_other_texts_are_shown_without_queries(self) -> None:
        told = Confidence((f"Basic {PACKED}",), FORM)
        for text, shown in (
            ("", ""),
            ("manifest unknown", "manifest unknown"),
            ("robot may not pull", "robot may not pull"),
            ("see https://h/x?token=1&y for more", "see https://h/x?… for more"),
            ("why? because", "why? because"),
        ):
            with self.subTest(text):
                self.assertEqual(shown, told.redact(text))

    def test_nothing_told_hides_nothing(self) -> None:
        for told in (Confidence(), Confidence(("", "Basic", "Basic !!!", "Bearer "))):
            self.assertEqual("anything at all", told.redact("anything at all"))

    def test_its_repr_shows_nothing(self) -> None:
        self.assertNotIn(WORD, repr(Confidence((f"Bearer {WORD}",), FORM)))


if __name__ == "__main__":
    unittest.main()

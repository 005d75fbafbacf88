# SPDX-License-Identifier: Apache-2.0
"""HTTP dates and RFC 3339 times."""

import time
import unittest

from cip.registry.retry import parse_http_date, parse_rfc3339

DAY = 86400


class TimestampTest(unittest.TestCase):
    def test_the_three_forms_of_an_http_date_mean_the_same(self) -> None:
        for text in ("Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"):
            with self.subTest(text):
                self.assertEqual(parse_http_date(text), 784111777.0)

    def test_two_digit_years_are_read_as_go_reads_them(self) -> None:
        self.assertEqual(parse_http_date("Friday, 01-Jan-69 00:00:00 GMT"), -365.0 * DAY)
        self.assertEqual(parse_http_date("Friday, 01-Jan-68 00:00:00 GMT"), 3092601600.0)

    def test_other_text_is_no_date(self) -> None:
        for text in (
            "",
            "5",
            "abc",
            "Sun, 06 Nov 1994 08:49:37 +0100",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 31 Feb 2024 00:00:00 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT\n",
            "Sun, ٠٦ Nov 1994 08:49:37 GMT",
        ):
            with self.subTest(text):
                self.assertIsNone(parse_http_date(text))

    def test_rfc3339_times_have_offsets_and_fractions(self) -> None:
        for text, expected in (
            ("1970-01-01T00:00:00Z", 0.0),
            ("1970-01-01T01:00:00+01:00", 0.0),
            ("1969-12-31T19:00:00-05:00", 0.0),
            ("1970-01-01T00:00:00.25Z", 0.25),
            ("2000-02-29T00:00:00Z", 951782400.0),
        ):
            with self.subTest(text):
                self.assertEqual(parse_rfc3339(text), expected)

    def test_other_text_is_no_rfc3339_time(self) -> None:
        for text in ("", "bogus", "1970-01-01", "1970-01-01T00:00:00", "1900-02-29T00:00:00Z", "1970-13-01T00:00:00Z"):
            with self.subTest(text):
                self.assertIsNone(parse_rfc3339(text))

    def test_every_day_of_four_centuries_is_where_the_calendar_has_it(self) -> None:
        for day in range(-135140, 10957 + 100 * 366, 97):  # from 1600 on
            text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(day * DAY + 3661))
            self.assertEqual(parse_rfc3339(text), day * DAY + 3661.0)

# SPDX-License-Identifier: Apache-2.0
"""Times as registries write them, into seconds since the epoch.

Not `email.utils` or `time.strptime`: the one is slow to import, the other speaks the language of the locale.
"""

from __future__ import annotations

import re

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAY = "(?:mon|tue|wed|thu|fri|sat|sun)"
_LONG_DAY = "(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME = "(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_HTTP_DATES = tuple(
    re.compile(pattern, re.ASCII | re.IGNORECASE)
    for pattern in (  # RFC 9110, 5.6.7: IMF-fixdate, RFC 850, asctime
        rf"{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT",
        rf"{_LONG_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT",
        rf"{_DAY} {_MONTH} (?P<day>[ 0-9][0-9]) {_TIME} (?P<year>[0-9]{{4}})",
    )
)
_RFC3339 = re.compile(
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})T(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})"
    r":(?P<second>[0-9]{2})(?P<fraction>\.[0-9]{1,12})?(?:Z|(?P<sign>[+-])(?P<zh>[0-9]{2}):(?P<zm>[0-9]{2}))",
    re.ASCII,
)


def parse_http_date(text: str) -> float | None:
    """Seconds since the epoch, or None when `text` is no HTTP date."""
    for pattern in _HTTP_DATES:
        match = pattern.fullmatch(text)
        if match is not None:
            year = int(match["year"])
            if year < 100:
                year += 1900 if year >= 69 else 2000
            month = _MONTHS.index(match["month"].lower()) + 1
            return _seconds(year, month, int(match["day"]), match)
    return None


def parse_rfc3339(text: str) -> float | None:
    """Seconds since the epoch, or None when `text` is no RFC 3339 time."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    seconds = _seconds(int(match["year"]), int(match["month"]), int(match["day"]), match)
    if seconds is None:
        return None
    if match["sign"]:
        offset = int(match["zh"]) * 3600 + int(match["zm"]) * 60
        seconds += -offset if match["sign"] == "+" else offset
    return seconds + float(match["fraction"] or 0)


def _seconds(year: int, month: int, day: int, time: re.Match[str]) -> float | None:
    hour, minute, second = int(time["hour"]), int(time["minute"]), int(time["second"])
    if not (1 <= month <= 12 and 1 <= day <= _days_of(year, month) and hour < 24 and minute < 60 and second < 61):
        return None
    # days since 1970-01-01 in the proleptic Gregorian calendar; years begin in March so that leap days come last
    shifted = year - (month <= 2)
    day_of_year = ((month + 9) % 12 * 153 + 2) // 5 + day - 1
    days = 365 * shifted + shifted // 4 - shifted // 100 + shifted // 400 + day_of_year - 719468
    return float(days * 86400 + hour * 3600 + minute * 60 + second)


def _days_of(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31

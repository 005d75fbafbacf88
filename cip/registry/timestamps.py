# SPDX-License-Identifier: Apache-2.0
"""Times as registries write them, into seconds since the epoch: the library's readers, behind their formats' shapes."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate

_DAY = "(?:mon|tue|wed|thu|fri|sat|sun)"
_TIME = "[0-9]{2}:[0-9]{2}:[0-9]{2}"
_HTTP_DATE = (  # RFC 9110, 5.6.7: IMF-fixdate, RFC 850, asctime
    rf"(?ai){_DAY}, [0-9]{{2}} [a-z]{{3}} [0-9]{{4}} {_TIME} GMT"
    rf"|[a-z]{{6,9}}, [0-9]{{2}}-[a-z]{{3}}-[0-9]{{2}} {_TIME} GMT"
    rf"|{_DAY} [a-z]{{3}} [ 0-9][0-9] {_TIME} [0-9]{{4}}"
)
_RFC3339 = rf"(?a)[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T{_TIME}(?:\.[0-9]{{1,12}})?(?:Z|[+-][0-9]{{2}}:[0-9]{{2}})"


def parse_http_date(text: str) -> float | None:
    """Seconds since the epoch, or None when `text` is no HTTP date."""
    parts = parsedate(text) if re.fullmatch(_HTTP_DATE, text) else None
    if parts is None:
        return None
    try:
        return datetime(*parts[:6], tzinfo=UTC).timestamp()
    except ValueError:  # such as the 31st of February
        return None


def parse_rfc3339(text: str) -> float | None:
    """Seconds since the epoch, or None when `text` is no RFC 3339 time."""
    try:
        return datetime.fromisoformat(text).timestamp() if re.fullmatch(_RFC3339, text) else None
    except ValueError:
        return None

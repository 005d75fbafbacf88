# SPDX-License-Identifier: Apache-2.0
"""The passwords and tokens that the tests use, and every form in which one of them could show up in an output.

A test that needs a secret makes it of `MARK`, or adds it to `KNOWN`.
"""

import base64
import re
import urllib.parse
from collections.abc import Iterator

MARK = "hunter2"  # part of every secret that has no line of its own below
KNOWN = (MARK, "correct:horse battery", "not-the-p4ssword")


def secret(name: str) -> str:
    """A secret for one purpose; the same each time."""
    return f"{MARK}-{name}"


def leaks_in(output: str) -> list[str]:
    """The secrets that `output` shows, in whichever form, each with what stands around it."""
    found = []
    for known in KNOWN:
        for form in _forms(known):
            for match in re.finditer(re.escape(form), output):
                around = output[max(match.start() - 60, 0) : match.end() + 20]
                found.append(f"{known!r} as {form!r} in …{around!r}…")
    return found


def _forms(known: str) -> Iterator[str]:
    """As it is, percent-encoded, as hex, and in base64 at each of the three places where it can begin."""
    raw = known.encode()
    yield from {known, urllib.parse.quote(known, safe=""), urllib.parse.quote_plus(known), raw.hex()}
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")
        # only the characters that no neighbour can change: the first after those before, and all but the last
        yield encoded[(before * 8 + 5) // 6 : len(raw + b"\0" * before) * 8 // 6]

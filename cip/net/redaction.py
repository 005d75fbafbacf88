# SPDX-License-Identifier: Apache-2.0
"""What others say, without what this process holds in confidence.

A registry's own words help whoever reads an error, and a hostile or careless one repeats in them the password or the
token that it was sent, whole or in parts, as it is, in base64, percent-encoded or escaped as JSON does. What was sent
is known, so every run of it is looked for, in whatever is quoted from outside and before anything is cut.

Our own wording never comes here: only text that is quoted does (`errors.quote`, `errors.redacted`).
"""

import base64
import binascii
import re
import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..errors import strip_url
from .url import decode_form

RUN = 8  # characters of a secret that nobody may see in a row
SHORT = 4  # characters; a shorter secret can only be hidden with all that is around it
# Characters of credentials, and of tokens, that are remembered; those that were used longest ago go first. A token
# server chooses how long and how many its tokens are, so these make room for each other alone.
KEPT_LIMIT = 128 * 1024
MARK = "[redacted]"
LEFT_OUT = "(left out, because it contains a secret)"
_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")  # str.lower changes lengths
_PERCENT = r"%([0-9A-Fa-f]{2})"
_ESCAPED = r"\\(?:u([0-9A-Fa-f]{4})|[\"\\/])"  # as in JSON
_BASE64 = r"[A-Za-z0-9+/_-]{2,}"
_SECRET_FIELDS = frozenset({"password", "refresh_token"})  # of a form
_QUERY = r"\?[^\s'\"]+"  # of a path as well: it may be signed
_URL_SAFE = str.maketrans("-_", "+/")

_View = tuple[str, list[tuple[int, int]]]  # a reading of a text, and where each of its characters stands there


class Secrets:
    """All secrets that this process holds; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, None] = {}  # credentials, in the order of their last use
        self._tokens: dict[str, None] = {}  # those that were made for us, likewise
        self._forms: _Forms | None = None  # made when they are needed

    def __repr__(self) -> str:
        return "Secrets(…)"

    def keep(self, *secrets: str) -> None:
        """From now on these credentials are not shown any more; empty ones are none."""
        self._remember(self._kept, secrets)

    def keep_sent(self, authorizations: Iterable[str], form: bytes) -> None:
        """Keep what a request carries in the values of its authorization fields and in its form."""
        for value in authorizations:
            scheme, _, told = value.partition(" ")
            if scheme.lower() == "basic":
                self.keep(*_secrets_of_basic(told))
            else:
                self._remember(self._tokens, (told,))
        self.keep(*(value for name, value in decode_form(form.decode("ascii", "replace")) if name in _SECRET_FIELDS))

    def _remember(self, kept: dict[str, None], secrets: Iterable[str]) -> None:
        with self._lock:
            for secret in filter(None, secrets):
                if secret not in kept:
                    self._forms = None
                kept.pop(secret, None)
                kept[secret] = None
            size = sum(map(len, kept))
            while size > KEPT_LIMIT and len(kept) > 1:
                oldest = next(iter(kept))
                del kept[oldest]
                size -= len(oldest)

    def redact(self, text: str) -> str:
        """`text` without runs of RUN characters of a secret and without whole shorter ones, without users and queries.

        A text that contains one of fewer than SHORT characters is left out whole.
        """
        text = re.sub(_QUERY, "?…", strip_url(text))
        if not text or not (self._kept or self._tokens):
            return text
        with self._lock:
            forms = self._forms = self._forms or _forms((*self._kept, *self._tokens))
        hidden = bytearray(len(text))
        for view, spans in _views(text):
            for secret in forms.short:
                start = view.find(secret)
                if start >= 0 and len(secret) < SHORT:
                    return LEFT_OUT
                while start >= 0:
                    _hide(hidden, spans, start, start + len(secret))
                    start = view.find(secret, start + 1)
            for start in range(len(view) - RUN + 1):
                if view[start : start + RUN] in forms.runs:
                    _hide(hidden, spans, start, start + RUN)
        return _masked(text, hidden)


class _Forms(NamedTuple):
    """What is looked for: every run of the longer secrets, and the shorter ones whole; in lower case."""

    runs: frozenset[str]
    short: tuple[str, ...]


def _forms(secrets: Iterable[str]) -> _Forms:
    runs: set[str] = set()
    short: set[str] = set()
    for secret in secrets:
        encoded = secret.encode("utf-8", "surrogateescape").decode("latin-1")  # as a decoded view has it
        for form in (secret.translate(_LOWER), encoded.translate(_LOWER)):
            if len(form) < RUN:
                short.add(form)
            runs.update(form[start : start + RUN] for start in range(len(form) - RUN + 1))
    return _Forms(frozenset(runs), tuple(sorted(short, key=len)))


def _views(text: str) -> Iterator[_View]:
    """`text` as it is and decoded: percent signs, escapes of JSON, and each part that may be base64.

    Base64 is decoded from each of its first characters.
    """
    yield text.translate(_LOWER), [(place, place + 1) for place in range(len(text))]
    if "%" in text:
        yield _decoded(text, _PERCENT)
    if "+" in text:  # a form
        yield _decoded(text.replace("+", " "), _PERCENT)
    if "\\" in text:
        yield _decoded(text, _ESCAPED)
    for found in re.finditer(_BASE64, text):
        part = found[0].translate(_URL_SAFE)
        for skipped in range(4):
            if len(part) - skipped > 1:
                yield _base64_decoded(part[skipped:], found.start() + skipped)


def _decoded(text: str, escape: str) -> _View:
    """Each `escape` as the character of its number in hexadecimal, or else as its own last one."""
    letters: list[str] = []
    spans: list[tuple[int, int]] = []
    place, pattern = 0, re.compile(escape)
    while place < len(text):
        found = pattern.match(text, place)
        end = found.end() if found else place + 1
        letters.append(chr(int(found[1], 16)) if found and found[1] else text[end - 1])
        spans.append((place, end))
        place = end
    return "".join(letters).translate(_LOWER), spans


def _base64_decoded(part: str, start: int) -> _View:
    """The bytes of `part`, which stands at `start`; a last character that completes no byte is passed over."""
    part = part if len(part) % 4 != 1 else part[:-1]
    decoded = binascii.a2b_base64(part + "=" * (-len(part) % 4))
    spans = [(start + place * 4 // 3, start + (place * 8 + 13) // 6) for place in range(len(decoded))]
    return decoded.decode("latin-1").translate(_LOWER), spans


def _hide(hidden: bytearray, spans: list[tuple[int, int]], start: int, end: int) -> None:
    first, last = spans[start][0], spans[end - 1][1]
    hidden[first:last] = b"\1" * (last - first)


def _masked(text: str, hidden: bytearray) -> str:
    shown = []
    for place, letter in enumerate(text):
        if not hidden[place]:
            shown.append(letter)
        elif not place or not hidden[place - 1]:
            shown.append(MARK)
    return "".join(shown)


def _secrets_of_basic(told: str) -> tuple[str, ...]:
    """The password; the name alone is no secret."""
    try:
        return (base64.b64decode(told, validate=True).decode("utf-8", "surrogateescape").partition(":")[2],)
    except binascii.Error:
        return (told,)

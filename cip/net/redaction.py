# SPDX-License-Identifier: Apache-2.0
"""What others say, without what this process holds in confidence.

A registry's own words help whoever reads an error, and a hostile or careless one repeats in them the password or the
token that it was sent, whole or in parts, as it is, in base64 or base32, percent-encoded, escaped as JSON or HTML does,
or in two of these ways. What was sent is known, so every run of it is looked for, in whatever is quoted from outside
and before anything is cut that is near to what is shown. It is no secret from the host that says it: one that wants to
tell it to whoever reads our words finds a way of writing that is not here.

Our own wording never comes here: only text that is quoted does (`errors.quote`, `errors.redacted`).
"""

import base64
import binascii
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from ..errors import strip_queries
from ..settings import Credentials
from .url import decode_form

RUN = 8  # characters of a secret that nobody may see in a row
SHORT = 4  # characters; a shorter secret can only be hidden with all that is around it
# Characters of credentials, and of tokens, that are remembered; those that were used longest ago go first. A token
# server chooses how long and how many its tokens are, so these make room for each other alone.
KEPT_LIMIT = 128 * 1024
MARK = "[redacted]"
LEFT_OUT = "(left out, because it contains a secret)"
_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")  # str.lower changes lengths
VIEWS = 10  # readings of one text: they cost time, and whoever wants to be understood has other ways
TEXT_LIMIT = 16 * 1024  # characters of one text; messages show a hundred
# What a part of a text may stand for where hosts write: URLs, JSON, forms, HTML, mail, lines.
_ESCAPES: tuple[tuple[str, Callable[[str], str]], ...] = (
    (r"%[0-9A-Fa-f]{2}", lambda said: chr(int(said[1:], 16))),
    (r"\\(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[\"\\/])", lambda said: chr(int(said[2:], 16)) if said[2:] else said[1]),
    (r"\+", lambda said: " "),
    (r"&(?:#[0-9]{1,6}|#[xX][0-9A-Fa-f]{1,5}|[a-z]{2,6});", lambda said: _html(said)),
    (r"=[0-9A-Fa-f]{2}", lambda said: chr(int(said[1:], 16))),
    (r"(?:=?[\r\n]|\\[nr])\s*", lambda said: ""),
    (r"\0", lambda said: ""),  # of UTF-16
    (
        r"[0-9A-Fa-f]{2}(?:[ :]?[0-9A-Fa-f]{2}){3,}",
        lambda said: bytes.fromhex(said.replace(":", " ")).decode("latin-1"),
    ),
    (r"[A-Za-z0-9+/_-]{8,}", lambda said: _base64_text(said)),  # in which more may be encoded
)
_BASE64 = r"[A-Za-z0-9+/_-]{2,}"
_HEX = r"[0-9A-Fa-f](?:[ :]?[0-9A-Fa-f]){7,}"
_SECRET_FIELDS = frozenset({"password", "refresh_token"})  # of a form
_URL_SAFE = str.maketrans("-_", "+/")

_View = tuple[str, list[tuple[int, int]]]  # a reading of a text, and where each of its characters stands there


class Secrets:
    """All secrets that this process holds; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, None] = {}  # credentials, in the order of their last use
        self._tokens: dict[str, None] = {}  # those that were made for us, likewise
        self._due: list[tuple[str, int]] = []  # what came (1) and went (-1) since somebody looked for it
        self._forms: dict[str, int] = {}  # what is looked for, and in how many secrets it is

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

    def keep_query(self, query: str) -> None:
        """Keep the longer values of a query that somebody gave us with an address: they may be its signature."""
        self._remember(self._tokens, (value for _, value in decode_form(query) if len(value) >= RUN))

    def _remember(self, kept: dict[str, None], secrets: Iterable[str]) -> None:
        with self._lock:
            for secret in filter(None, secrets):
                if secret not in kept:
                    self._due.append((secret, 1))
                kept.pop(secret, None)
                kept[secret] = None
            while sum(map(len, kept)) > KEPT_LIMIT and len(kept) > 1:
                oldest = next(iter(kept))
                del kept[oldest]
                self._due.append((oldest, -1))

    def redact(self, text: str) -> str:
        """The begin of `text`, without runs of RUN characters of a secret and whole shorter ones, users and queries.

        A text that contains one of fewer than SHORT characters is left out whole.
        """
        text = strip_queries(text[:TEXT_LIMIT])
        if not text or not (self._kept or self._tokens):
            return text
        with self._lock:  # to the end: what is looked for must not change meanwhile
            for secret, step in self._due:  # and none of those that were there: each redirect brings some
                for form in _forms(secret):
                    if count := self._forms.pop(form, 0) + step:
                        self._forms[form] = count
            self._due.clear()
            brief = [secret for secret in (*self._kept, *self._tokens) if len(secret) < RUN]
            short = sorted({form for secret in brief for form in _forms(secret) if len(form) < RUN}, key=len)
            hidden = bytearray(len(text))
            for view, spans in _views(text):
                for secret in short:
                    for found in re.finditer(f"(?={re.escape(secret)})", view):
                        if len(secret) < SHORT:
                            return LEFT_OUT
                        _hide(hidden, spans, found.start(), found.start() + len(secret))
                for start in range(len(view) - RUN + 1):
                    if view[start : start + RUN] in self._forms:
                        _hide(hidden, spans, start, start + RUN)
        parts = groupby(zip(text, hidden, strict=True), lambda each: each[1])
        return "".join(MARK if hide else "".join(letter for letter, _ in part) for hide, part in parts)


def _forms(secret: str) -> set[str]:
    """What is looked for: every run of a longer secret, a shorter one whole; in lower case."""
    encoded = secret.encode("utf-8", "surrogateescape").decode("latin-1")  # as a decoded view has it
    whole = {secret.translate(_LOWER), encoded.translate(_LOWER)}
    return {form[start : start + RUN] for form in whole for start in range(max(1, len(form) - RUN + 1))}


def _views(text: str) -> Iterator[_View]:
    """`text` as it is and unescaped, also twice, and what of those may be base64, base32 or hex, in lower case.

    Base64 and hex are decoded from each of their first characters, base32 from its first one.
    """
    views: list[_View] = [(text, [(place, place + 1) for place in range(len(text))])]
    for view, spans in views:  # they become more
        yield view.translate(_LOWER), spans
        for found in re.finditer(r"[A-Za-z2-7]{7,}", view):
            yield _unpacked(_base32_bytes(found[0]), spans[found.start() : found.end()], 5)
        for found in re.finditer(_BASE64, view):
            for skipped in range(min(4, len(found[0]) - 1)):
                yield _unpacked(_base64_bytes(found[0][skipped:]), spans[found.start() + skipped : found.end()], 6)
        for found in re.finditer(_HEX, view):
            digits = [place for place in range(*found.span()) if view[place] not in " :"]
            for places in (digits[: len(digits) // 2 * 2], digits[1 : len(digits) - (len(digits) % 2 == 0)]):
                read = bytes.fromhex("".join(view[place] for place in places))
                yield _unpacked(read, [spans[place] for place in places], 4)
        for escape, letters_of in _ESCAPES:
            decoded = _decoded(view, spans, escape, letters_of) if len(views) < VIEWS else views[0]
            if all(decoded[0] != known for known, _ in views):
                views.append(decoded)


def _decoded(text: str, spans: list[tuple[int, int]], escape: str, letters_of: Callable[[str], str]) -> _View:
    """Each `escape` as the letters that it stands for."""
    letters: list[str] = []
    places: list[tuple[int, int]] = []
    end = 0
    for found in re.finditer(escape, text):
        read = letters_of(found[0])
        letters += text[end : found.start()], read
        whole = spans[found.start()][0], spans[found.end() - 1][1]
        places += (*spans[end : found.start()], *[whole] * len(read))
        end = found.end()
    return "".join((*letters, text[end:])), places + spans[end:]


def _html(said: str) -> str:
    from html import unescape

    return unescape(said)


def _base64_text(said: str) -> str:
    """What most of a word is in base64, from one of its first characters on; the word where that is no text.

    Others may stand in front of it and behind it.
    """
    best, most = said, 3 * len(said) // 8  # printable ones, which by chance a third of the bytes is
    for skipped in range(4):
        decoded = _base64_bytes(said[skipped:]).decode("latin-1")
        readable = len(re.findall(r"[\0\r\n -~]", decoded))
        if readable > most:
            best, most = said[:skipped] + decoded.replace("\0", ""), readable
    return best


def _base64_bytes(said: str) -> bytes:
    """What is encoded; a last character that completes no byte is passed over."""
    part = said.translate(_URL_SAFE)[: len(said) - (len(said) % 4 == 1)]
    return binascii.a2b_base64(part + "=" * (-len(part) % 4))


def _base32_bytes(said: str) -> bytes:
    part = said.upper()[: len(said) - (len(said) % 8 in (1, 3, 6))]
    return base64.b32decode(part + "=" * (-len(part) % 8))


def _unpacked(decoded: bytes, spans: list[tuple[int, int]], bits: int) -> _View:
    """What characters of so many bits encode, which stand at `spans`."""
    places = [(spans[place * 8 // bits][0], spans[(place * 8 + 7) // bits][1]) for place in range(len(decoded))]
    return decoded.decode("latin-1").translate(_LOWER), places


def _hide(hidden: bytearray, spans: list[tuple[int, int]], start: int, end: int) -> None:
    hidden[spans[start][0] : spans[end - 1][1]] = b"\1" * (spans[end - 1][1] - spans[start][0])


def _secrets_of_basic(told: str) -> tuple[str, ...]:
    """The password, or a name without one."""
    try:
        pair = base64.b64decode(told, validate=True).decode("utf-8", "surrogateescape")
    except binascii.Error:
        return (told,)
    return Credentials(*pair.partition(":")[::2]).secrets()

# SPDX-License-Identifier: Apache-2.0
"""Strict DER (X.690): bytes → a tree of elements, for what `cryptography` does not read.

A tree is checked whole before anything of it is used: definite lengths in their shortest form, low tag numbers, nothing
past its parent, nothing behind the end; INTEGER, OID, BOOLEAN and NULL in their one form. Complaints are ValueError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple, NoReturn

DEPTH_LIMIT = 16  # elements inside each other
ELEMENT_LIMIT = 4096
INTEGER_LIMIT = 32  # bytes
ARC_LIMIT = 32  # numbers in an object identifier
OID_LIMIT = 1024  # bytes; the time to read a number goes with the square of its length
_LENGTH_BYTES = 3

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID, UTF8_STRING = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0C
GENERALIZED_TIME, SEQUENCE, SET = 0x18, 0x30, 0x31
CONTEXT_0, CONTEXT_1 = 0xA0, 0xA1  # constructed
OPTIONAL = 0x100  # beside the tag of a member that may be missing
_CONSTRUCTED = 0x20
_NAME_TEXTS: Mapping[int, Callable[[bytes], object]] = {  # what the reference reads in names, by tag
    UTF8_STRING: lambda content: content.decode("utf-8"),
    0x12: lambda content: _match(rb"[0-9 ]*", content),  # NumericString
    0x13: lambda content: _match(rb"[A-Za-z0-9 '()+,./:=?*&-]*", content),  # PrintableString
    0x14: lambda content: None,  # T61String
    0x16: lambda content: content.decode("ascii"),  # IA5String
    0x1E: lambda content: _match(rb"(?s)(?:[^\xd8-\xdf].)*", content),  # BMPString
}
_TIME = re.compile(rb"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:(\.\d{0,8}[1-9]))?Z")


class Element(NamedTuple):
    """One element: its tag byte, what it holds, how it stands in the input, and the elements in it if constructed."""

    tag: int
    content: bytes
    raw: bytes
    children: tuple[Element, ...]

    def expect(self, tag: int) -> Element:
        """Itself, if it has this tag."""
        if self.tag != tag:
            _fail(f"expected an element with tag {tag:#04x}, found {self.tag:#04x}")
        return self

    def members(self, *tags: int, more: bool = False) -> list[Element]:
        """The members of a SEQUENCE, with these tags in this order; ABSENT stands for an OPTIONAL one that is missing.

        What is left behind them is an error unless there may be `more`.
        """
        left = list(reversed(self.expect(SEQUENCE).children))
        found = []
        for tag in tags:
            if tag & OPTIONAL and not (left and left[-1].tag == tag ^ OPTIONAL):
                found.append(ABSENT)
            elif left:
                found.append(left.pop().expect(tag & ~OPTIONAL))
            else:
                _fail(f"expected an element with tag {tag:#04x}, found none")
        if left and not more:
            _fail(f"unexpected element with tag {left[-1].tag:#04x}")
        return found

    def integer(self) -> int:
        """The value of an INTEGER."""
        if len(self.expect(INTEGER).content) > INTEGER_LIMIT:
            _fail(f"an integer of {len(self.content)} bytes, expected at most {INTEGER_LIMIT}")
        return int.from_bytes(self.content, "big", signed=True)

    def oid(self) -> str:
        """The value of an OBJECT IDENTIFIER in dotted form."""
        if len(self.expect(OID).content) > OID_LIMIT:
            _fail(f"an object identifier of {len(self.content)} bytes, expected at most {OID_LIMIT}")
        arcs = [0]
        for byte in self.content:
            arcs[-1] = arcs[-1] << 7 | byte & 0x7F
            if byte < 0x80:
                arcs.append(0)
        first = min(arcs[0] // 40, 2)
        return ".".join(str(each) for each in (first, arcs[0] - 40 * first, *arcs[1:-1]))

    def time(self) -> float:
        """The value of a GeneralizedTime in UTC, in seconds since 1970."""
        match = _TIME.fullmatch(self.expect(GENERALIZED_TIME).content)
        if match is None:
            _fail("expected a time in UTC in its one form")
        return utc_seconds(*(int(each) for each in match.groups()[:6])) + float(match[7] or 0)


ABSENT = Element(0, b"", b"", ())


def parse_der(data: bytes) -> Element:
    """The one element that `data` is. Raises ValueError."""
    found = _Reader(data).elements(0, len(data), DEPTH_LIMIT)
    if len(found) != 1:
        _fail(f"expected one element, found {len(found)}")
    return found[0]


def require_name(name: Element) -> None:
    """Return only if `name` is an X.501 name whose texts are what their tags say. Raises ValueError."""
    for part in name.expect(SEQUENCE).children:
        for attribute in part.expect(SET).children:
            number, value = attribute.expect(SEQUENCE).children
            number.expect(OID)
            if value.tag not in _NAME_TEXTS:
                _fail(f"a text in a name with tag {value.tag:#04x}")
            _NAME_TEXTS[value.tag](value.content)


def _match(pattern: bytes, content: bytes) -> None:
    if not re.fullmatch(pattern, content):
        _fail("a text in a name that its tag does not allow")


def utc_seconds(year: int, month: int, day: int, hour: int, minute: int, second: int) -> float:
    """Seconds since 1970. Raises ValueError for a moment that does not exist, leap seconds among them."""
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._count = 0

    def elements(self, begin: int, end: int, depth: int) -> tuple[Element, ...]:
        """The elements that make up `begin` to `end`."""
        found = []
        while begin < end:
            if not depth:
                _fail(f"elements nested deeper than {DEPTH_LIMIT}")
            self._count += 1
            if self._count > ELEMENT_LIMIT:
                _fail(f"more than {ELEMENT_LIMIT} elements")
            tag, start, stop = self._header(begin, end)
            content = self._data[start:stop]
            _require_canonical(tag, content)
            children = self.elements(start, stop, depth - 1) if tag & _CONSTRUCTED else ()
            found.append(Element(tag, content, self._data[begin:stop], children))
            begin = stop
        return tuple(found)

    def _header(self, at: int, end: int) -> tuple[int, int, int]:
        """Tag, begin and end of the content."""
        header = self._data[at : min(at + 2 + _LENGTH_BYTES, end)]
        if len(header) < 2:
            _fail("cut short")
        tag, size, width = header[0], header[1], 0
        if tag & 0x1F == 0x1F:
            _fail("a high tag number")
        if size >= 0x80:
            width = size & 0x7F
            size = int.from_bytes(header[2 : 2 + width], "big")
            if not 1 <= width <= _LENGTH_BYTES or size < 0x80 or size >> 8 * (width - 1) == 0:
                _fail("a length that is not definite, not in its shortest form or too large")
        if at + 2 + width + size > end:
            _fail("an element reaches past its parent")
        return tag, at + 2 + width, at + 2 + width + size


def _require_canonical(tag: int, content: bytes) -> None:
    """The one encoding of the simple types that are compared or computed with."""
    if tag == INTEGER:
        # not empty; no leading byte that only repeats the sign
        if not content or (len(content) > 1 and content[0] in (0, 0xFF) and content[0] >> 7 == content[1] >> 7):
            _fail("an integer that is not in its shortest form")
    elif tag == OID:
        padded = any(a < 0x80 and b == 0x80 for a, b in zip(b"\0" + content, content, strict=False))
        if not content or content[-1] >= 0x80 or padded:
            _fail("an object identifier that is not in its shortest form")
        if sum(byte < 0x80 for byte in content) >= ARC_LIMIT:
            _fail(f"an object identifier of more than {ARC_LIMIT} numbers")
    elif (tag == BOOLEAN and content not in (b"\x00", b"\xff")) or (tag == NULL and content):
        _fail("a malformed boolean or null")


def _fail(why: str) -> NoReturn:
    raise ValueError(f"DER: {why}")

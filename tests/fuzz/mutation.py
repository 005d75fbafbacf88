# SPDX-License-Identifier: Apache-2.0
"""Makes new inputs of known ones: by bytes, and for JSON, DER and tar by structure, so that the depths are reached."""

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Mutate = Callable[[Random, bytes], bytes]

MAXIMUM = 32 * 1024  # bytes of an input
_STEPS = 4  # changes made at once, at most
_BYTES = (0x00, 0x01, 0x09, 0x0A, 0x0D, 0x20, 0x22, 0x2C, 0x2F, 0x3A, 0x5C, 0x7F, 0x80, 0xC0, 0xED, 0xFE, 0xFF)
_NUMBERS = (
    b"0",
    b"-0",
    b"-1",
    b"1",
    b"00",
    b"+1",
    b"1e0",
    b"1.0",
    b"1e999",
    b"255",
    b"256",
    b"65535",
    b"65536",
    b"0x10",
    b"2147483648",
    b"9007199254740993",
    b"9223372036854775807",
    b"9223372036854775808",
    b"18446744073709551616",
    b"9" * 30,
    b"9" * 5000,
    b"NaN",
    b"1_000",
    "\u0661".encode(),
    b"-9223372036854775809",
)
_TEXTS = (
    b"\0",
    b"\r\n",
    b"\n",
    b"%00",
    b"%",
    b"../",
    b"/",
    b"//",
    b"..",
    "\u017f".encode(),
    "\u212a".encode(),
    b"\\ud800",
    b"\\u0000",
    "\u2028".encode(),
    "\u00e9".encode(),
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"'",
    b'"',
    b"\\",
    b":",
    b"@",
    b"sha256:",
    b"\x1b[31m",
    b"A" * 300,
    b" ",
    b"\t",
    b"[" * 200,
    b"{" * 200,
    b'{"a":' * 200,
    b"a" * 3000,
)


def mutate(random: Random, data: bytes, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """`data` with a few changes; `others` lend pieces, `tokens` are words of the format."""
    for _ in range(random.randint(1, _STEPS)):
        data = random.choice(_CHANGES)(random, data, others, tokens)
        if len(data) > MAXIMUM:
            data = data[:MAXIMUM]
    return data


# --- bytes ---


def _range(random: Random, data: bytes) -> tuple[int, int]:
    start = random.randint(0, len(data))
    return start, min(len(data), start + random.choice((0, 1, 1, 2, 4, 8, 32, random.randint(0, 512))))


def _replace_byte(random: Random, data: bytes, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    if not data:
        return bytes([random.choice(_BYTES)])
    at = random.randrange(len(data))
    new = random.choice(_BYTES) if random.random() < 0.5 else data[at] ^ 1 << random.randrange(8)
    return data[:at] + bytes([new]) + data[at + 1 :]


def _delete(random: Random, data: bytes, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    start, end = _range(random, data)
    return data[:start] + data[end:]


def _duplicate(random: Random, data: bytes, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    start, end = _range(random, data)
    return data[:end] + data[start:end] * random.choice((1, 1, 2, 10, 200)) + data[end:]


def _insert_token(random: Random, data: bytes, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    start, end = _range(random, data)
    if random.random() < 0.5:
        end = start
    return data[:start] + random.choice((*tokens, *_TEXTS)) + data[end:]


def _splice(random: Random, data: bytes, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    other = random.choice(others) if others else data
    start, end = _range(random, other)
    at, until = _range(random, data)
    return data[:at] + other[start:end] + data[until:]


def _replace_number(random: Random, data: bytes, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    starts = [at for at, byte in enumerate(data) if 0x30 <= byte <= 0x39]
    if not starts:
        return _insert_token(random, data, others, tokens)
    start = end = random.choice(starts)
    while start and 0x30 <= data[start - 1] <= 0x39:
        start -= 1
    while end < len(data) and 0x30 <= data[end] <= 0x39:
        end += 1
    return data[:start] + random.choice(_NUMBERS) + data[end:]


def _swap_case(random: Random, data: bytes, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    start, end = _range(random, data)
    return data[:start] + data[start:end].swapcase() + data[end:]


_CHANGES = (
    _replace_byte,
    _replace_byte,
    _delete,
    _duplicate,
    _insert_token,
    _insert_token,
    _splice,
    _replace_number,
    _swap_case,
)

# --- JSON ---


class _Members(list[tuple[str, Any]]):
    """An object that may have a key twice."""


_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    2**53,
    2**63,
    2**64,
    "",
    "x",
    "\ud800",
    "\0",
    "sha256:" + "0" * 64,
    [],
    [None],
    _Members(),
    _Members([("a", 1)]),
)


def mutate_json(random: Random, data: bytes) -> bytes:
    """A JSON document with some of its values and keys changed, as JSON; other bytes as they are."""
    try:
        value = json.loads(data, object_pairs_hook=_Members)
    except (ValueError, RecursionError):
        return data
    for _ in range(random.randint(1, _STEPS)):
        value = _change(random, value)
    parts = _Text()
    comma, colon = (" , ", " : ") if random.random() < 0.2 else (",", ":")
    try:
        _write(value, comma, colon, parts)
    except RecursionError:
        return data
    return "".join(parts).encode("utf-8", "surrogatepass")[:MAXIMUM]


def _change(random: Random, value: Any) -> Any:
    """One change somewhere inside; deep places are as likely as shallow ones."""
    if isinstance(value, list) and value and random.random() < 0.8:
        at = random.randrange(len(value))
        if isinstance(value, _Members):
            return _change_member(random, value, at)
        new = value[:]
        action = random.randrange(8)
        if action == 0:
            del new[at]
        elif action == 1:
            new.insert(at, value[at])
        elif action == 2:
            new[at:at] = [value[at]] * random.choice((2, 50))
        else:
            new[at] = _change(random, value[at])
        return new
    return _replacement(random, value)


def _change_member(random: Random, value: _Members, at: int) -> _Members:
    new = _Members(value)
    key, child = value[at]
    action = random.randrange(9)
    if action == 0:
        del new[at]
    elif action == 1:
        new.insert(random.randint(0, len(new)), (key, random.choice((child, *_VALUES))))
    elif action == 2:
        new[at] = (_other_key(random, key), child)
    elif action == 3:
        new.append((_other_key(random, key), child))
    else:
        new[at] = (key, _change(random, child))
    return new


def _other_key(random: Random, key: str) -> str:
    folded = key.replace("s", "\u017f").replace("k", "\u212a")
    choices = (key.upper(), key.title(), key + " ", "", key[:-1], folded, "x")
    return random.choice(choices)


def _replacement(random: Random, value: Any) -> Any:
    if isinstance(value, str) and random.random() < 0.6:
        return mutate(random, value.encode("utf-8", "surrogatepass"), (), ()).decode("utf-8", "replace")
    if type(value) is int and random.random() < 0.5:
        return random.choice((value + 1, -value, value * 2**40, float(value % 2**53), str(value)))
    if random.random() < 0.1:
        for _ in range(random.choice((1, 5, 140))):
            value = [value] if random.random() < 0.5 else _Members([("n", value)])
        return value
    return random.choice(_VALUES)


class _Text(list[str]):
    """Pieces of a text that are dropped once there is more than an input may have: changes can double it many times."""

    size = 0

    def append(self, part: str, /) -> None:
        if self.size <= MAXIMUM:
            super().append(part)
            self.size += len(part)


def _write(value: Any, comma: str, colon: str, parts: _Text) -> None:
    """Append the JSON text of `value` to `parts`, piece by piece: nested texts are not copied at every level."""
    if parts.size > MAXIMUM:
        return
    if not isinstance(value, list):
        parts.append(json.dumps(value))
        return
    is_object = isinstance(value, _Members)
    parts.append("{" if is_object else "[")
    for number, child in enumerate(value):
        if number:
            parts.append(comma)
        if is_object:
            parts.append(json.dumps(child[0]))
            parts.append(colon)
            child = child[1]
        _write(child, comma, colon, parts)
    parts.append("}" if is_object else "]")


# --- DER ---


class _Element:
    """A DER element: its tag byte, and its content or the elements in it."""

    def __init__(self, tag: int, content: bytes, children: list["_Element"] | None, prefix: bytes = b"") -> None:
        self.tag = tag
        self.content = content
        self.children = children
        self.prefix = prefix  # what stands in front of the children, such as the unused bits of a bit string

    def encode(self) -> bytes:
        content = self.content
        if self.children is not None:
            content = self.prefix + b"".join(child.encode() for child in self.children)
        size = len(content)
        if size < 0x80:
            return bytes((self.tag, size)) + content
        length = size.to_bytes((size.bit_length() + 7) // 8, "big")
        return bytes((self.tag, 0x80 | len(length))) + length + content


def mutate_der(random: Random, data: bytes) -> bytes:
    """DER with some elements changed and all lengths right; other bytes as they are."""
    roots = _parse_der(data)
    if not roots:
        return data
    for _ in range(random.randint(1, _STEPS)):
        _change_element(random, roots)
    return b"".join(root.encode() for root in roots)[:MAXIMUM]


def _parse_der(data: bytes, depth: int = 0) -> list[_Element] | None:
    """The elements that make up all of `data`, None when it is not DER."""
    found: list[_Element] = []
    position = 0
    while position < len(data):
        if len(data) - position < 2 or depth > 30:
            return None
        tag, size = data[position], data[position + 1]
        position += 2
        if size >= 0x80:
            width = size & 0x7F
            size = int.from_bytes(data[position : position + width], "big")
            position += width
        if not 0 <= size <= len(data) - position:
            return None
        content = data[position : position + size]
        position += size
        prefix = content[:1] if tag == 0x03 else b""
        nests = tag & 0x20 or tag in (0x03, 0x04)
        found.append(_Element(tag, content, _parse_der(content[len(prefix) :], depth + 1) if nests else None, prefix))
    return found


def _change_element(random: Random, elements: list[_Element]) -> None:
    at = random.randrange(len(elements))
    element = elements[at]
    if element.children and random.random() < 0.85:
        _change_element(random, element.children)
        return
    action = random.randrange(7)
    if action == 0 and len(elements) > 1:
        del elements[at]
    elif action == 1:
        elements.insert(random.randint(0, len(elements)), element)
    elif action == 2:
        element.tag = random.choice(
            (
                0x01,
                0x02,
                0x03,
                0x04,
                0x05,
                0x06,
                0x0C,
                0x13,
                0x16,
                0x17,
                0x18,
                0x30,
                0x31,
                0x80,
                0x81,
                0x82,
                0x86,
                0x87,
                0xA0,
                0xA3,
                element.tag ^ 0x20,
            )
        )
    elif action == 3:
        elements[at], elements[-1] = elements[-1], elements[at]
    else:
        content = element.encode()[2:] if element.children is not None else element.content
        element.content, element.children = mutate(random, content, (), ())[:2048], None


# --- tar ---


def mutate_tar(random: Random, data: bytes) -> bytes:
    """A tar archive with changes in its headers, most of whose checksums are right again."""
    blocks = [bytearray(data[start : start + 512]) for start in range(0, len(data), 512)]
    if not blocks:
        return data
    for _ in range(random.randint(1, _STEPS)):
        block = random.choice(blocks)
        action = random.randrange(6)
        if action == 0 and len(blocks) > 1:
            blocks.remove(block)
        elif action == 1:
            blocks.insert(random.randint(0, len(blocks)), bytearray(block))
        elif action == 2 and len(block) == 512:
            block[156] = random.choice(b"0\x001257LKxgSXz")
        elif action == 3 and len(block) == 512:
            block[124:136] = random.choice(
                (
                    b"00000000000\0",
                    b"77777777777\0",
                    b"\x80" + b"\xff" * 11,
                    b"\xff" * 12,
                    b"-1         \0",
                    b" " * 12,
                    b"00000001000\0",
                    b"0000000000_1",
                    b"\x80" + bytes(10) + b"\x01",
                )
            )
        else:
            changed = mutate(random, bytes(block), (), ())[:512]
            block[:] = changed + bytes(512 - len(changed)) if random.random() < 0.9 else changed
    for block in blocks:
        if len(block) == 512 and any(block) and random.random() < 0.95:
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
    return b"".join(blocks)[:MAXIMUM]

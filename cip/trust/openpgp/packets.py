# SPDX-License-Identifier: Apache-2.0
"""OpenPGP packets of public key files, walked strictly (RFC 4880 4): lengths definite, types those of public keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

# RFC 4880 4.3
SIGNATURE, PUBLIC_KEY, TRUST, USER_ID, SUBKEY, USER_ATTRIBUTE = 2, 6, 12, 13, 14, 17
_ALLOWED = frozenset({SIGNATURE, PUBLIC_KEY, TRUST, USER_ID, SUBKEY, USER_ATTRIBUTE})


class Packet(NamedTuple):
    """One packet; `whole` is `body` with its header."""

    tag: int
    body: bytes
    whole: bytes


def read_packets(binary: bytes) -> Iterator[Packet]:
    """Every packet of a binary key file. Raises ValueError for whatever an importer might read otherwise."""
    position = 0
    while position < len(binary):
        start = position
        head = binary[position]
        if not head & 0x80:
            raise ValueError(f"not an OpenPGP packet at byte {position}")
        if head & 0x40:
            tag, (size, position) = head & 0x3F, _length(binary, position + 1, two_bytes=range(192, 224))
        else:
            tag, width = head >> 2 & 0x0F, 1 << (head & 3)
            if width == 8:
                raise ValueError("a packet of indeterminate length")
            size, position = number(binary, position + 1, width), position + 1 + width
        if tag not in _ALLOWED:
            raise ValueError(f"packet type {tag} does not belong into a public key file")
        if position + size > len(binary):
            raise ValueError("cut short")
        yield Packet(tag, binary[position : position + size], binary[start : position + size])
        position += size


def read_subpackets(area: bytes) -> Iterator[tuple[int, bytes]]:
    """Type, without its critical bit, and body of each subpacket (RFC 4880 5.2.3.1). Raises ValueError."""
    position = 0
    while position < len(area):
        size, position = _length(area, position, two_bytes=range(192, 255))
        if not size or position + size > len(area):
            raise ValueError("cut short")
        yield area[position] & 0x7F, area[position + 1 : position + size]
        position += size


def _length(binary: bytes, position: int, *, two_bytes: range) -> tuple[int, int]:
    """Length and offset of what follows (RFC 4880 4.2.2, 5.2.3.1): they differ in which first byte has a second."""
    first = number(binary, position, 1)
    if first < 192:
        return first, position + 1
    if first in two_bytes:
        return (first - 192 << 8) + number(binary, position + 1, 1) + 192, position + 2
    if first < 255:
        raise ValueError("a packet of partial length")
    return number(binary, position + 1, 4), position + 5


def number(binary: bytes, position: int, width: int) -> int:
    """The big-endian number of `width` bytes at `position`. Raises ValueError."""
    if position + width > len(binary):
        raise ValueError("cut short")
    return int.from_bytes(binary[position : position + width], "big")

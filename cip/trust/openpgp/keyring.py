# SPDX-License-Identifier: Apache-2.0
"""OpenPGP key rings: the key files of a policy → one binary ring that gpgv can use (signatures.md 4.5).

`gpg --import` is never run: it would need a home directory, an agent and the trust of another parser. Nor is done here
what an import does to gather revocations, which is to merge copies of a key and to move a revocation to its key. gpgv
would believe the first copy and overlook what stands elsewhere: a ring in which it could is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ...errors import SignatureError
from ..armor import ARMOR_BEGIN, dearmor_keys

# RFC 4880 4.3
_SIGNATURE, _PUBLIC_KEY, _TRUST, _USER_ID, _SUBKEY, _USER_ATTRIBUTE = 2, 6, 12, 13, 14, 17
_KEY_REVOCATION = 0x20  # signature class (RFC 4880 5.2.1)
_ALLOWED = frozenset({_SIGNATURE, _PUBLIC_KEY, _TRUST, _USER_ID, _SUBKEY, _USER_ATTRIBUTE})


class KeyRing(NamedTuple):
    """A binary ring and the full fingerprints (40 upper-case hex digits) of its primary keys."""

    packets: bytes
    fingerprints: frozenset[str]


class _Packet(NamedTuple):
    tag: int
    body: bytes
    whole: bytes


class _Key(NamedTuple):
    """A primary key with all that belongs to it; `is_bound` is whether it has a name and a self-signature."""

    fingerprint: str
    is_bound: bool
    packets: bytes


def merge_key_rings(blobs: Iterable[tuple[str, bytes]]) -> KeyRing:
    """One ring of all `(name, content)` in order, binary or armored (signatures.md 4.4 "Key blobs", 4.5 step 1).

    A blob that is no OpenPGP at all is passed over while another one has a key (signatures.md C16), and so is a key
    without a name and a self-signature. Raises SignatureError (`keycfg`) for no key at all, a primary key that occurs
    twice, and whatever else an import could read a revocation from and gpgv would not.
    """
    packets: list[bytes] = []
    usable: set[str] = set()
    seen: set[str] = set()
    faults: list[str] = []
    for name, blob in blobs:
        if not blob[:1] >= b"\x80" and ARMOR_BEGIN not in blob:
            faults.append(f"{name}: no OpenPGP key")
            continue
        try:
            keys = list(_keys(blob))
        except ValueError as error:
            raise _unusable(f"{name}: {error}") from error
        for key in keys:
            if key.fingerprint in seen:
                raise _unusable(f"{name}: key {key.fingerprint} occurs twice, export it once with all its revocations")
            seen.add(key.fingerprint)
            if key.is_bound:
                usable.add(key.fingerprint)
                packets.append(key.packets)
        if not any(key.is_bound for key in keys):
            faults.append(f"{name}: no public key with a name and a self-signature")
    if not usable:
        raise _unusable("; ".join(faults) or "the requirement lists no key")
    return KeyRing(b"".join(packets), frozenset(usable))


def _keys(blob: bytes) -> Iterator[_Key]:
    """Each key; one that nobody has bound to a name is of no use, to an import either."""
    binary = blob if blob[0] & 0x80 else dearmor_keys(blob)
    blocks: list[list[_Packet]] = []
    for packet in _packets(binary):
        if packet.tag == _PUBLIC_KEY:
            blocks.append([])
        elif not blocks:
            raise ValueError(f"expected a public key first, found packet type {packet.tag}")
        if packet.tag != _TRUST:  # cached verdicts of somebody else's key ring
            blocks[-1].append(packet)
    for block in blocks:
        tags = [packet.tag for packet in block]
        names = tags.index(_USER_ID) if _USER_ID in tags else len(tags)
        last = max((place for place, packet in enumerate(block) if _is_key_revocation(packet)), default=0)
        if any(tag != _SIGNATURE for tag in tags[1 : last + 1]):
            raise ValueError("a revocation of a key does not stand behind the key, import and export it once")
        yield _Key(_fingerprint(block[0].body), _SIGNATURE in tags[names:], b"".join(packet.whole for packet in block))


def _is_key_revocation(packet: _Packet) -> bool:
    """RFC 4880 5.2.2 and 5.2.3: the class is the second byte, or in version 3 the third."""
    place = 2 if packet.body[:1] == b"\x03" else 1
    return packet.tag == _SIGNATURE and packet.body[place : place + 1] == bytes([_KEY_REVOCATION])


def _fingerprint(body: bytes) -> str:
    """RFC 4880 12.2, for version 4 only: others have no 40-digit fingerprint to compare."""
    if body[:1] != b"\x04" or len(body) > 0xFFFF:
        raise ValueError(f"expected a version 4 key, found version {body[0] if body else 'none'}, {len(body)} bytes")
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False).hexdigest().upper()


def _packets(binary: bytes) -> Iterator[_Packet]:
    """RFC 4880 4.2. Lengths must be definite, only packets that belong to public keys may occur."""
    position = 0
    while position < len(binary):
        start = position
        head = binary[position]
        if not head & 0x80:
            raise ValueError(f"not an OpenPGP packet at byte {position}")
        if head & 0x40:
            tag, (size, position) = head & 0x3F, _new_length(binary, position + 1)
        else:
            tag, width = head >> 2 & 0x0F, 1 << (head & 3)
            if width == 8:
                raise ValueError("a packet of indeterminate length")
            size, position = _number(binary, position + 1, width), position + 1 + width
        if tag not in _ALLOWED:
            raise ValueError(f"packet type {tag} does not belong into a public key file")
        if position + size > len(binary):
            raise ValueError("cut short")
        yield _Packet(tag, binary[position : position + size], binary[start : position + size])
        position += size


def _new_length(binary: bytes, position: int) -> tuple[int, int]:
    """Length and offset of a new-format body (RFC 4880 4.2.2)."""
    first = _number(binary, position, 1)
    if first < 192:
        return first, position + 1
    if first < 224:
        return (first - 192 << 8) + _number(binary, position + 1, 1) + 192, position + 2
    if first < 255:
        raise ValueError("a packet of partial length")
    return _number(binary, position + 1, 4), position + 5


def _number(binary: bytes, position: int, width: int) -> int:
    if position + width > len(binary):
        raise ValueError("cut short")
    return int.from_bytes(binary[position : position + width], "big")


def _unusable(why: str) -> SignatureError:
    return SignatureError(why, reason="keycfg")

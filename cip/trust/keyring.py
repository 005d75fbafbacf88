# SPDX-License-Identifier: Apache-2.0
"""OpenPGP key rings: the key files of a policy → one binary ring that gpgv can use (signatures.md 4.5).

`gpg --import` is never run: it would need a home directory, an agent and the trust of another parser. gpgv believes
the first copy of a key that it meets, so a second copy, which might carry the revocation, refuses the ring.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from ..errors import SignatureError
from ..values import NamedTuple
from .armor import dearmor_keys

# RFC 4880 4.3
_SIGNATURE, _PUBLIC_KEY, _TRUST, _USER_ID, _SUBKEY, _USER_ATTRIBUTE = 2, 6, 12, 13, 14, 17
_ALLOWED = frozenset({_SIGNATURE, _PUBLIC_KEY, _TRUST, _USER_ID, _SUBKEY, _USER_ATTRIBUTE})


class KeyRing(NamedTuple):
    """A binary ring and the full fingerprints (40 upper-case hex digits) of its primary keys."""

    packets: bytes
    fingerprints: frozenset[str]


class _Packet(NamedTuple):
    tag: int
    body: bytes
    whole: bytes


def merge_key_rings(blobs: Iterable[tuple[str, bytes]]) -> KeyRing:
    """One ring of all `(name, content)` in order, binary or armored (signatures.md 4.4 "Key blobs", 4.5 step 1).

    A blob without a usable key is passed over while another one has some (row C16). Raises SignatureError (`keycfg`)
    for no key at all, or a primary key that occurs twice.
    """
    packets: list[bytes] = []
    found: set[str] = set()
    faults: list[str] = []
    for name, blob in blobs:
        try:
            keys = list(_keys(blob))
        except ValueError as error:
            faults.append(f"{name}: {error}")
            continue
        for fingerprint, key in keys:
            if fingerprint in found:
                raise _unusable(f"{name}: key {fingerprint} occurs twice, export it once with all its revocations")
            found.add(fingerprint)
            packets.extend(key)
        if not keys:
            faults.append(f"{name}: no public key with a name and a self-signature")
    if not found:
        raise _unusable("; ".join(faults) or "the requirement lists no key")
    return KeyRing(b"".join(packets), frozenset(found))


def _keys(blob: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Fingerprint and packets of each key; one that nobody has bound to a name is left out, as an import does."""
    binary = blob if blob and blob[0] & 0x80 else dearmor_keys(blob)
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
        if _USER_ID in tags and _SIGNATURE in tags[tags.index(_USER_ID) :]:
            yield _fingerprint(block[0].body), [packet.whole for packet in block]


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

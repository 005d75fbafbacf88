# SPDX-License-Identifier: Apache-2.0
"""OpenPGP key rings: the key files of a policy → one binary ring that gpgv can use (signatures.md 4.5).

`gpg --import` is never run: it would need a home directory, an agent and the trust of another parser. Nor is done here
what an import does to gather revocations and expiries, which is to merge copies of a key, a name or a subkey and to
move a signature to what it signs. gpgv would believe the first copy and overlook what stands elsewhere: a ring in which
it could is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ...errors import SignatureError
from ..signed.armor import ARMOR_BEGIN, dearmor_keys
from .packets import PUBLIC_KEY, SUBKEY, TRUST, USER_ATTRIBUTE, USER_ID, Packet, number, read_packets
from .selfsignatures import is_direct, require_in_place, revokers

_RSA = frozenset({1, 2, 3})  # public key algorithms (RFC 4880 9.1)
RSA_MINIMUM = 2048  # bits, as for sigstore's keys (signatures.md D10)
_EXPONENT_BITS = 31  # of an RSA key: with a longer one a single signature costs gpgv as much time as its maker likes


class KeyRing(NamedTuple):
    """A binary ring, and the fingerprints (40 upper-case hex digits) of its primary keys.

    `weak` has the bits of RSA keys that are too small, primary or not, by fingerprint. `by_names` is the ring without
    the signatures over keys alone, empty where it has none: for gpgv one of them makes a key valid, for an import a
    valid signature over a name must, so a key has to be good in both.
    """

    packets: bytes
    fingerprints: frozenset[str]
    weak: Mapping[str, int] = MappingProxyType({})
    by_names: bytes = b""


class _Key(NamedTuple):
    """A primary key with all that belongs to it; `is_bound` is whether it has a name and a self-signature.

    `sizes` has the RSA bits, 0 for another algorithm, of the primary key and its subkeys by fingerprint. `by_names` is
    the key without the signatures over keys alone, `revokers` the ids of the keys that say to have revoked it.
    """

    fingerprint: str
    is_bound: bool
    packets: bytes
    by_names: bytes
    sizes: Mapping[str, int]
    revokers: frozenset[bytes]


def merge_key_rings(blobs: Iterable[tuple[str, bytes]]) -> KeyRing:
    """One ring of all `(name, content)` in order, binary or armored (signatures.md 4.4 "Key blobs", 4.5 step 1).

    A blob that is no OpenPGP at all is passed over while another one has a key (signatures.md C16), and so is a key
    without a name and a self-signature. Raises SignatureError (`keycfg`) for no key at all, a key that occurs twice,
    and whatever else an import could read a revocation or an expiry from and gpgv would not.
    """
    packets: list[bytes] = []
    by_names: list[bytes] = []
    usable: set[str] = set()
    seen: dict[str, int] = {}
    faults: list[str] = []
    revoking: set[bytes] = set()
    nameless: set[bytes] = set()
    for name, blob in blobs:
        if not blob[:1] >= b"\x80" and ARMOR_BEGIN not in blob:
            faults.append(f"{name}: no OpenPGP key")
            continue
        try:
            keys = list(_keys(blob))
        except ValueError as error:
            raise _unusable(f"{name}: {error}") from error
        for key in keys:
            for fingerprint, bits in key.sizes.items():
                if fingerprint in seen:
                    raise _unusable(f"{name}: key {fingerprint} occurs twice, export it once with all its revocations")
                seen[fingerprint] = bits
            if key.is_bound:
                usable.add(key.fingerprint)
                packets.append(key.packets)
                by_names.append(key.by_names)
                revoking |= key.revokers
            else:
                nameless.add(bytes.fromhex(key.fingerprint)[-8:])
        if not any(key.is_bound for key in keys):
            faults.append(f"{name}: no public key with a name and a self-signature")
    if not usable:
        raise _unusable("; ".join(faults) or "the requirement lists no key")
    if both := revoking & nameless:  # some imports take such a key, and with it what it revokes
        raise _unusable(f"a key is revoked by key {min(both).hex().upper()}, which has no name and no self-signature")
    weak = {fingerprint: bits for fingerprint, bits in seen.items() if 0 < bits < RSA_MINIMUM}
    whole, named = b"".join(packets), b"".join(by_names)
    return KeyRing(whole, frozenset(usable), MappingProxyType(weak), named if named != whole else b"")


def _keys(blob: bytes) -> Iterator[_Key]:
    """Each key; one that nobody has bound to a name is of no use, to an import either."""
    binary = blob if blob[0] & 0x80 else dearmor_keys(blob)
    blocks: list[list[Packet]] = []
    for packet in read_packets(binary):
        if packet.tag == PUBLIC_KEY:
            blocks.append([])
        elif not blocks:
            raise ValueError(f"expected a public key first, found packet type {packet.tag}")
        if packet.tag != TRUST:  # cached verdicts of somebody else's key ring
            blocks[-1].append(packet)
    for block in blocks:
        yield _key(block)


def _key(block: Sequence[Packet]) -> _Key:
    fingerprint = _fingerprint(block[0].body)
    names = [(packet.tag, packet.body) for packet in block if packet.tag in (USER_ID, USER_ATTRIBUTE)]
    if len(set(names)) != len(names):
        raise ValueError(f"a name of key {fingerprint} occurs twice, import the file with gpg and export it once")
    sizes: dict[str, int] = {}
    for packet in block:
        if packet.tag in (PUBLIC_KEY, SUBKEY):
            which = _fingerprint(packet.body)
            if which in sizes:
                raise ValueError(f"key {which} occurs twice, export it once with all its revocations")
            sizes[which] = _rsa_bits(packet.body)
    is_bound = require_in_place(block, bytes.fromhex(fingerprint)[-8:])
    by_names = b"".join(packet.whole for packet in block if not is_direct(packet))
    return _Key(fingerprint, is_bound, b"".join(packet.whole for packet in block), by_names, sizes, revokers(block))


def _fingerprint(body: bytes) -> str:
    """RFC 4880 12.2, for version 4 only: others have no 40-digit fingerprint to compare."""
    if body[:1] != b"\x04" or len(body) > 0xFFFF:
        raise ValueError(f"expected a version 4 key, found version {body[0] if body else 'none'}, {len(body)} bytes")
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False).hexdigest().upper()


def _rsa_bits(body: bytes) -> int:
    """The bits of an RSA key of version 4 (RFC 4880 5.5.2), 0 for others. Raises ValueError for a long exponent."""
    if number(body, 5, 1) not in _RSA:
        return 0
    modulus, position = _integer(body, 6)
    exponent, _ = _integer(body, position)
    if exponent.bit_length() > _EXPONENT_BITS:
        raise ValueError(f"an RSA exponent of {exponent.bit_length()} bits, expected at most {_EXPONENT_BITS}")
    return modulus.bit_length()


def _integer(body: bytes, position: int) -> tuple[int, int]:
    """The multiprecision integer at `position` (RFC 4880 3.2), and the offset behind it."""
    width = (number(body, position, 2) + 7) // 8
    return number(body, position + 2, width), position + 2 + width


def _unusable(why: str) -> SignatureError:
    return SignatureError(why, reason="keycfg")

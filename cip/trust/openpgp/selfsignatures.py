# SPDX-License-Identifier: Apache-2.0
"""Whether each signature of a key stands behind the packet that it signs, and who revokes it (RFC 4880 5.2.4, 11.1).

An import moves one that does not to where it belongs, and drops what is not to leave its own key ring, and all but the
newest of those that bind one subkey. gpgv overlooks the first, believes the second and goes back to an older binding
where the newest has expired, and so a revocation or an expiry. A ring with any of it is refused: each signature is
hashed with the packet that it stands behind, and the first 16 bits of the hash must be those that the signature states.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .packets import PUBLIC_KEY, SIGNATURE, SUBKEY, USER_ATTRIBUTE, USER_ID, Packet, number, read_subpackets

# signature classes (RFC 4880 5.2.1)
_NAMES = frozenset({0x10, 0x11, 0x12, 0x13, 0x30})
_BEHIND = {
    PUBLIC_KEY: frozenset({0x1F, 0x20}),
    SUBKEY: frozenset({0x18, 0x28}),
    USER_ID: _NAMES,
    USER_ATTRIBUTE: _NAMES,
}
_CLASSES = frozenset().union(*_BEHIND.values())  # an import drops the others and gpgv does not look at them
_BINDING, _CERTIFICATION_REVOCATION, _DIRECT, _KEY_REVOCATION = 0x18, 0x30, 0x1F, 0x20
_HASHES = {1: "md5", 2: "sha1", 3: "ripemd160", 8: "sha256", 9: "sha384", 10: "sha512", 11: "sha224"}  # RFC 4880 9.4
_EXPIRY, _EXPORTABLE, _ISSUER, _ISSUER_FINGERPRINT = 3, 4, 16, 33  # subpackets (RFC 4880 5.2.3.1, RFC 9580 5.2.3.35)
_REMEDY = "import the file with gpg and export it once"


class _Signature(NamedTuple):
    """What a signature packet says; `hashed` is its own part of the hash, `left` are the first 16 bits of that."""

    version: int
    kind: int
    algorithm: int
    hashed: bytes
    left: bytes
    issuers: frozenset[bytes]
    is_local: bool
    expires: bool


def require_in_place(block: Sequence[Packet], key_id: bytes) -> bool:
    """Whether a name of the key in `block` has a certification by the key itself, once all its signatures stand right.

    `block` is a primary key and what follows it, `key_id` the 8 bytes of that key. Signatures of others about names
    prove nothing to anybody here, and old rings have broken ones: they may stand anywhere. Raises ValueError.
    """
    is_named = False
    hash_of = _hasher(block[0], block[0])
    target = block[0]
    bindings: list[_Signature] = []
    for packet in block[1:]:
        if packet.tag != SIGNATURE:
            target, hash_of, bindings = packet, _hasher(block[0], packet), []
            continue
        signature = _read_signature(packet.body)
        is_own = not signature.issuers or key_id in signature.issuers
        if signature.kind not in _CLASSES or (signature.kind in _NAMES and not is_own):
            continue
        what = f"a signature of class 0x{signature.kind:02x}"
        if signature.is_local:
            raise ValueError(f"{what} is not exportable, so an import would drop it: {_REMEDY}")
        if signature.kind not in _BEHIND[target.tag] or hash_of(signature)[:2] != signature.left:
            raise ValueError(f"{what} does not stand behind what it signs: {_REMEDY}")
        bindings += [signature] * (signature.kind == _BINDING)
        if len(bindings) > 1 and any(each.expires for each in bindings):  # an import keeps the newest, expired or not
            raise ValueError(f"several signatures bind one subkey, and one of them expires: {_REMEDY}")
        is_named = is_named or (target.tag == USER_ID and signature.kind != _CERTIFICATION_REVOCATION)
    return is_named


def is_direct(packet: Packet) -> bool:
    """Whether a packet is a signature over a key alone, by whomever."""
    return packet.tag == SIGNATURE and _read_signature(packet.body).kind == _DIRECT


def revokers(block: Sequence[Packet]) -> frozenset[bytes]:
    """The ids of the keys that say to have revoked the primary key of `block`, which may have named them for that."""
    read = (_read_signature(packet.body) for packet in block if packet.tag == SIGNATURE)
    return frozenset().union(*(signature.issuers for signature in read if signature.kind == _KEY_REVOCATION))


def _hasher(key: Packet, target: Packet) -> Callable[[_Signature], bytes]:
    """The hash of a signature over `target` of `key`; what two signatures of a target have in common is hashed once."""
    begun: dict[tuple[int, bool], hashlib._Hash] = {}

    def hash_of(signature: _Signature) -> bytes:
        old = signature.version < 4
        if (signature.algorithm, old) not in begun:
            begun[signature.algorithm, old] = _begin(signature.algorithm, _text(key, target, old))
        state = begun[signature.algorithm, old].copy()
        state.update(signature.hashed)
        return state.digest()

    return hash_of


def _begin(algorithm: int, text: bytes) -> hashlib._Hash:
    try:
        return hashlib.new(_HASHES[algorithm], text, usedforsecurity=False)
    except (KeyError, ValueError) as error:
        raise ValueError(f"a signature with hash algorithm {algorithm}, which cannot be computed here") from error


def _text(key: Packet, target: Packet, old: bool) -> bytes:
    """What a signature over `target` is about (RFC 4880 5.2.4); one of version 3 has no header before a name."""
    text = _key_text(key.body)
    if target.tag == SUBKEY:
        return text + _key_text(target.body)
    if target.tag == PUBLIC_KEY:
        return text
    header = b"\xb4" if target.tag == USER_ID else b"\xd1"
    return text + (b"" if old else header + len(target.body).to_bytes(4, "big")) + target.body


def _key_text(body: bytes) -> bytes:
    return b"\x99" + len(body).to_bytes(2, "big") + body


def _read_signature(body: bytes) -> _Signature:
    """RFC 4880 5.2.2 and 5.2.3. Raises ValueError, also for versions whose hash is another."""
    version = number(body, 0, 1)
    if version in (2, 3):
        number(body, 17, 2)
        return _Signature(version, body[2], body[16], body[2:7], body[17:19], frozenset({body[7:15]}), False, False)
    if version != 4:
        raise ValueError(f"expected signatures of version 4 or 3, found version {version}")
    end = 6 + number(body, 4, 2)
    unhashed = number(body, end, 2)
    number(body, end + 2 + unhashed, 2)
    said = list(read_subpackets(body[6:end]))
    more, whole = _unhashed(body[end + 2 : end + 2 + unhashed])
    said += more
    issuers = [content[-8:] for kind, content in said if kind in (_ISSUER, _ISSUER_FINGERPRINT)]
    issued = frozenset(issuers if whole else ())  # one that is malformed counts as the key's own
    # an import reads both areas
    is_local = any(kind == _EXPORTABLE and content[:1] in (b"", b"\0") for kind, content in said)
    hashed, left = body[:end] + b"\x04\xff" + end.to_bytes(4, "big"), body[end + 2 + unhashed : end + 4 + unhashed]
    expires = any(kind == _EXPIRY for kind, _ in said)
    return _Signature(version, body[1], body[3], hashed, left, issued, is_local, expires)


def _unhashed(area: bytes) -> tuple[list[tuple[int, bytes]], bool]:
    """What can be read of an area that nobody signed, and whether that is all of it."""
    found = []
    try:
        for subpacket in read_subpackets(area):
            found.append(subpacket)
    except ValueError:
        return found, False
    return found, True

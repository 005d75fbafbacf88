# SPDX-License-Identifier: Apache-2.0
"""Packets of OpenPGP public keys, built byte by byte: signatures hash right, and prove nothing without a secret key."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY, NAME, SUBKEY, PHOTO = 6, 13, 14, 17  # packet types (RFC 4880 4.3)
HASHES = {1: "md5", 2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512", 11: "sha224"}


def packet(tag: int, body: bytes) -> bytes:
    """Old format with the shortest length (RFC 4880 4.2.1); a type above 15 has a new one."""
    if tag > 15:
        return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4, "big") + body
    if len(body) < 256:
        return bytes([0x80 | tag << 2, len(body)]) + body
    if len(body) < 65536:
        return bytes([0x81 | tag << 2]) + len(body).to_bytes(2, "big") + body
    return bytes([0x82 | tag << 2]) + len(body).to_bytes(4, "big") + body


def key_body(seed: bytes) -> bytes:
    """A version 4 key of an algorithm that does not exist."""
    return b"\x04\0\0\0\0\x63" + seed


def rsa_body(bits: int, exponent: int = 65537) -> bytes:
    """A version 4 RSA key whose modulus has `bits` bits."""
    return b"\x04\0\0\0\0\x01" + integer(1 << bits - 1 | 1) + integer(exponent)


def integer(value: int) -> bytes:
    """RFC 4880 3.2."""
    bits = value.bit_length()
    return bits.to_bytes(2, "big") + value.to_bytes((bits + 7) // 8, "big")


def fingerprint(body: bytes) -> str:
    """RFC 4880 12.2."""
    return hashlib.sha1(key_text(body)).hexdigest().upper()


def ed25519_body(secret: Ed25519PrivateKey, created: int) -> bytes:
    """The version 4 key that belongs to `secret` (RFC 9580 5.5.5.5, the legacy form)."""
    point = b"\x40" + secret.public_key().public_bytes_raw()
    curve = bytes.fromhex("092B06010401DA470F01")
    return b"\x04" + created.to_bytes(4, "big") + b"\x16" + curve + integer(int.from_bytes(point, "big"))


def subpacket(kind: int, body: bytes) -> bytes:
    """RFC 4880 5.2.3.1."""
    size = len(body) + 1
    return (bytes([size]) if size < 192 else b"\xff" + size.to_bytes(4, "big")) + bytes([kind]) + body


@dataclass(frozen=True, slots=True)
class Made:
    """How a signature is made: `issuer` is a key id, None for the key's own; the areas are added to the issuer.

    `secret` makes it a real one.
    """

    version: int = 4
    algorithm: int = 8
    issuer: bytes | None = None
    hashed: bytes = b""
    unhashed: bytes | None = None
    secret: Ed25519PrivateKey | None = None


def signature(kind: int, key: bytes, tag: int = KEY, target: bytes = b"", made: Made | None = None) -> bytes:
    """The packet of a signature of class `kind` by the key of body `key` over it and the packet of `tag`, `target`."""
    how = made or Made()
    issuer = bytes.fromhex(fingerprint(key))[-8:] if how.issuer is None else how.issuer
    text = key_text(key)
    if tag == SUBKEY:
        text += key_text(target)
    elif tag != KEY:
        header = b"" if how.version < 4 else bytes([0xB4 if tag == NAME else 0xD1]) + len(target).to_bytes(4, "big")
        text += header + target
    if how.version < 4:
        hashed = bytes([kind]) + bytes(4)
        left = _hash(how.algorithm, text + hashed)[:2]
        return packet(2, bytes([how.version, 5]) + hashed + issuer + bytes([1, how.algorithm]) + left + integer(1))
    return packet(2, signature_body(kind, text, issuer, how))


def signature_body(kind: int, text: bytes, issuer: bytes, how: Made) -> bytes:
    """A signature of version 4 over `text`, without its header."""
    numbers = 99 if how.secret is None else 22
    head = bytes([how.version, kind, numbers, how.algorithm]) + len(how.hashed).to_bytes(2, "big") + how.hashed
    digest = _hash(how.algorithm, text + head + b"\x04\xff" + len(head).to_bytes(4, "big"))
    unhashed = subpacket(16, issuer) if how.unhashed is None else how.unhashed
    made = integer(1)
    if how.secret is not None:
        both = how.secret.sign(digest)
        made = b"".join(integer(int.from_bytes(half, "big")) for half in (both[:32], both[32:]))
    return head + len(unhashed).to_bytes(2, "big") + unhashed + digest[:2] + made


def _hash(algorithm: int, text: bytes) -> bytes:
    return hashlib.new(HASHES.get(algorithm, "sha256"), text, usedforsecurity=False).digest()


def key_text(body: bytes) -> bytes:
    """What of a key is signed (RFC 4880 5.2.4)."""
    return b"\x99" + len(body).to_bytes(2, "big") + body

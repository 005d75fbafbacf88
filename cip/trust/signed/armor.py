# SPDX-License-Identifier: Apache-2.0
"""Text forms of binary material: base64, PEM blocks, OpenPGP armor.

Text from a registry passes through here, so every reader is one pass over the lines.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import NamedTuple

_LINE_ENDS = str.maketrans("", "", "\r\n")
_TRAILING = b" \t\r\n"  # what Go and gpg take away at the end of a line
ARMOR_BEGIN = b"-----BEGIN PGP "
_KEY_BLOCK = b"PGP PUBLIC KEY BLOCK"


def decode_base64(text: str) -> bytes:
    """The bytes of standard-alphabet base64 with padding; CR and LF inside are ignored (signatures.md 1.2, 5.1).

    Raises ValueError for any other byte, missing padding, and bits behind the last byte: one value, one spelling.
    """
    compact = text.translate(_LINE_ENDS)
    decoded = base64.b64decode(compact, validate=True)
    if base64.b64encode(decoded).decode("ascii") != compact:
        raise ValueError("expected canonical base64")
    return decoded


class PemBlock(NamedTuple):
    """One PEM block; `content` is None when it is not base64 or carries headers, `end` is the offset behind it."""

    content: bytes | None
    label: str
    end: int


def pem_blocks(text: bytes) -> Iterator[PemBlock]:
    """The complete blocks of `text` in order (RFC 7468). What stands around them is skipped."""
    for label, lines, end in _blocks(text):
        try:
            content = decode_base64(b"".join(_stripped(lines)).decode("ascii"))
        except ValueError:
            content = None
        yield PemBlock(content, label.decode("latin-1"), end)


def dearmor_keys(text: bytes) -> bytes:
    """The binary form of all armored OpenPGP public key blocks in `text` (RFC 4880 6.2, signatures.md 4.5 step 1).

    Raises ValueError when there is none, when one is malformed or fails its checksum, and for a block of another kind
    or without an end: gpg would import what is in it, and that may be a revocation.
    """
    parts = [_dearmor(lines) for label, lines, _ in _blocks(text) if label == _KEY_BLOCK]
    begun = text.count(ARMOR_BEGIN)
    if begun != len(parts):
        raise ValueError(f"expected only whole public key blocks, {begun} begin and {len(parts)} are whole")
    if not parts:
        raise ValueError("no public key block")
    return b"".join(parts)


def _blocks(text: bytes) -> Iterator[tuple[bytes, Sequence[bytes], int]]:
    """Label, whole lines and end of every block whose END names the same label; a new BEGIN drops an unfinished one."""
    label: bytes | None = None
    lines: list[bytes] = []
    end = 0
    for line in BytesIO(text):
        end += len(line)
        word = line.rstrip(_TRAILING)
        if word.startswith(b"-----BEGIN ") and word.endswith(b"-----"):
            label, lines = word[11:-5], []
        elif label is not None and word == b"-----END " + label + b"-----":
            yield label, lines, end
            label = None
        elif label is not None:
            lines.append(line)


def _stripped(lines: Sequence[bytes]) -> list[bytes]:
    return [line.rstrip(_TRAILING) for line in lines]


def _dearmor(lines: Sequence[bytes]) -> bytes:
    words = _stripped(lines)
    if b"" not in words:
        raise ValueError("no blank line after the armor headers")
    blank = words.index(b"")
    if not all(re.match(rb"[^:]+:[ \r\n]", line) for line in lines[:blank]):
        raise ValueError("expected only armor headers before the blank line")
    body = [word for word in words[blank + 1 :] if word]
    checksum = body.pop() if body and len(body[-1]) == 5 and body[-1].startswith(b"=") else None
    content = decode_base64(b"".join(body).decode("ascii"))
    if checksum is None:
        if body and not body[-1].endswith(b"="):  # gpg reads on into the END line
            raise ValueError("no armor checksum, export the key with gpg")
    elif decode_base64(checksum[1:].decode("ascii")) != crc24(content).to_bytes(3, "big"):
        raise ValueError("wrong armor checksum")
    return content


def crc24(content: bytes) -> int:
    """RFC 4880 6.1."""
    register = 0xB704CE
    for byte in content:
        register ^= byte << 16
        for _ in range(8):
            register <<= 1
            if register & 0x1000000:
                register ^= 0x1864CFB
    return register

# SPDX-License-Identifier: Apache-2.0
"""Digests: `algorithm:hex`, parsed once and never a bare string afterwards."""

import hashlib
import re
from typing import NamedTuple

from ..errors import ErrorCode, InvalidDigestError

HEX_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}  # image-spec descriptor.md, "Registered Algorithms"
_SHAPE = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[A-Za-z0-9=_-]+", re.ASCII)
_LOWER_HEX = re.compile(r"[0-9a-f]+", re.ASCII)


class Digest(NamedTuple):
    """A parsed digest. `algorithm` is one of `HEX_DIGITS`, `encoded` its lower-case hex digits."""

    algorithm: str
    encoded: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"

    def hasher(self) -> "hashlib._Hash":
        """A fresh hash object of this digest's algorithm."""
        return hashlib.new(self.algorithm)


def parse_digest(text: str) -> Digest:
    """Parse `algorithm:hex` (image-spec descriptor.md, "Digests").

    Raises InvalidDigestError, which quotes `text`, says what is wrong with it, and has the code
    `digest-unsupported` for a well-formed digest of an algorithm that is not registered.
    """
    algorithm, _, encoded = text.partition(":")
    if not algorithm or not encoded:
        raise InvalidDigestError(text, "expected algorithm:hex")
    if algorithm not in HEX_DIGITS:
        names = ", ".join(HEX_DIGITS)
        if _SHAPE.fullmatch(text):
            raise InvalidDigestError(text, f"algorithm must be one of {names}", code=ErrorCode.DIGEST_UNSUPPORTED)
        raise InvalidDigestError(text, f"expected algorithm:hex, the algorithm must be one of {names}")
    if len(encoded) != HEX_DIGITS[algorithm]:
        raise InvalidDigestError(
            text, f"expected {HEX_DIGITS[algorithm]} lower-case hex digits after {algorithm}:, found {len(encoded)}"
        )
    if not _LOWER_HEX.fullmatch(encoded):
        raise InvalidDigestError(text, f"expected {HEX_DIGITS[algorithm]} lower-case hex digits after {algorithm}:")
    return Digest(algorithm, encoded)


def digest_of(data: bytes | memoryview) -> Digest:
    """The sha256 digest of `data`."""
    return Digest("sha256", hashlib.sha256(data).hexdigest())

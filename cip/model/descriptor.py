# SPDX-License-Identifier: Apache-2.0
"""Digests and descriptors: what content must hash to, and pointers to it with its type and size.

A digest is `algorithm:hex`, parsed once and never a bare string afterwards.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ErrorCode, InvalidDigestError, InvalidDocumentError, quote
from .jsontree import JsonNode

if TYPE_CHECKING:
    import hashlib

HEX_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}  # image-spec descriptor.md, "Registered Algorithms"
_SHAPE = r"(?a)[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[A-Za-z0-9=_-]+"
REF_NAME = "org.opencontainers.image.ref.name"  # the annotation that names an entry of a layout
MANIFEST_LIMIT = 4 * 1024 * 1024  # bytes of a manifest, an index or a parsed config (registry.md 6.7)
UNKNOWN_SIZE = -1  # of what a local store rebuilds without having recorded its size, or a server does not state
MAX_SIZE = 2**63 - 1
_NO_ANNOTATIONS: Mapping[str, str] = MappingProxyType({})
_PLAIN = r"(?a)[A-Za-z0-9._-]{1,32}"
# A key that another reader takes for one of these is an attack (images.md 5.3).
_MEMBERS = frozenset({"mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform"})


class Digest(NamedTuple):
    """A parsed digest. `algorithm` is one of `HEX_DIGITS`, `encoded` its lower-case hex digits."""

    algorithm: str
    encoded: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"

    def hasher(self) -> "hashlib._Hash":
        """A fresh hash object of this digest's algorithm."""
        import hashlib  # here and below, because a connection may be on its way when it is loaded

        return hashlib.new(self.algorithm)


def parse_digest(text: str) -> Digest:
    """Parse `algorithm:hex` (image-spec descriptor.md, "Digests").

    Raises InvalidDigestError, which quotes `text`, says what is wrong with it, and has the code
    `digest-unsupported` for a well-formed digest of an algorithm that is not registered.
    """
    algorithm, _, encoded = text.partition(":")
    if is_digest(text):
        return Digest(algorithm, encoded)
    if not algorithm or not encoded:
        raise InvalidDigestError(text, "expected algorithm:hex")
    if algorithm not in HEX_DIGITS:
        names = ", ".join(HEX_DIGITS)
        if re.fullmatch(_SHAPE, text):
            raise InvalidDigestError(text, f"algorithm must be one of {names}", code=ErrorCode.DIGEST_UNSUPPORTED)
        raise InvalidDigestError(text, f"expected algorithm:hex, the algorithm must be one of {names}")
    found = f", found {len(encoded)}" if len(encoded) != HEX_DIGITS[algorithm] else ""
    raise InvalidDigestError(text, f"expected {HEX_DIGITS[algorithm]} lower-case hex digits after {algorithm}:{found}")


def is_digest(text: str) -> bool:
    """Whether `parse_digest` reads it."""
    algorithm, _, encoded = text.partition(":")
    return len(encoded) == HEX_DIGITS.get(algorithm) and not encoded.strip("0123456789abcdef")


def require_sha256(digest: Digest) -> None:
    """Return only for the name of a manifest: registries serve no other, so none has another (decisions.md 10).

    Raises InvalidDigestError (digest-unsupported).
    """
    if digest.algorithm != "sha256":
        why = "a manifest can only be named by sha256"
        raise InvalidDigestError(str(digest), why, code=ErrorCode.DIGEST_UNSUPPORTED)


def digest_of(data: bytes | memoryview) -> Digest:
    """The sha256 digest of `data`."""
    import hashlib

    return Digest("sha256", hashlib.sha256(data).hexdigest())


class Platform(NamedTuple):
    """What an image runs on, in Go's words; an empty variant is none, an empty field was not given."""

    architecture: str
    os: str
    variant: str

    def __str__(self) -> str:
        words = [self.os, self.architecture, *([self.variant] if self.variant else [])]
        return "/".join(word if re.fullmatch(_PLAIN, word) else quote(word) for word in words)


class Descriptor(NamedTuple):
    """A pointer to content (image-spec descriptor.md). `size` is in bytes, `urls` are passed on and never followed."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    annotations: Mapping[str, str] = _NO_ANNOTATIONS


def read_descriptor(node: JsonNode) -> Descriptor:
    """The descriptor that `node` holds; a missing media type is an empty one.

    A size that is left out would be blamed on whoever serves the content, so it is refused here.
    Raises InvalidDocumentError naming the spot: `manifest: layers[2].size: expected an integer, found a string`.
    """
    node.require_exact_case(_MEMBERS)
    annotations = node.get("annotations")
    return Descriptor(
        node.text("mediaType"),
        _read_digest(node),
        node["size"].as_int(minimum=0, maximum=MAX_SIZE),
        tuple(map(JsonNode.as_str, node.array("urls"))),
        {key: value.as_str() for key, value in annotations.members()} if annotations else _NO_ANNOTATIONS,
    )


def _read_digest(descriptor: JsonNode) -> Digest:
    """As parent's fault a bad digest would be a bad request; here the document is wrong, or more modern than we are."""
    text = descriptor.text("digest") or descriptor["digest"].as_str()
    try:
        return parse_digest(text)
    except InvalidDigestError as error:
        code = error.code if error.code is ErrorCode.DIGEST_UNSUPPORTED else None
        raise InvalidDocumentError(descriptor["digest"].where, str(error), code=code) from error

# SPDX-License-Identifier: Apache-2.0
"""Descriptors: pointers to content, with the size and digest that the content must have."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ..errors import ErrorCode, InvalidDigestError, InvalidDocumentError, quote
from .digest import Digest, parse_digest
from .jsontree import JsonNode

REF_NAME = "org.opencontainers.image.ref.name"  # the annotation that names an entry of a layout
UNKNOWN_SIZE = -1  # only for content that a local store rebuilds without having recorded its size
MAX_SIZE = 2**63 - 1
_NO_ANNOTATIONS: Mapping[str, str] = MappingProxyType({})
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,32}", re.ASCII)
# A key that another reader takes for one of these is an attack (images.md 5.3).
_MEMBERS = frozenset({"mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform"})


class Platform(NamedTuple):
    """What an image runs on, in Go's words; an empty variant is none, an empty field was not given."""

    architecture: str
    os: str
    variant: str

    def __str__(self) -> str:
        words = [self.os, self.architecture, *([self.variant] if self.variant else [])]
        return "/".join(word if _PLAIN.fullmatch(word) else quote(word) for word in words)


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
    media_type = node.get("mediaType")
    urls = node.get("urls")
    annotations = node.get("annotations")
    return Descriptor(
        media_type.as_str() if media_type else "",
        _read_digest(node["digest"]),
        node["size"].as_int(minimum=0, maximum=MAX_SIZE),
        tuple(item.as_str() for item in urls.items()) if urls else (),
        {key: value.as_str() for key, value in annotations.members()} if annotations else _NO_ANNOTATIONS,
    )


def _read_digest(node: JsonNode) -> Digest:
    """As parent's fault a bad digest would be a bad request; here the document is wrong, or more modern than we are."""
    text = node.as_str()
    try:
        return parse_digest(text)
    except InvalidDigestError as error:
        code = error.code if error.code is ErrorCode.DIGEST_UNSUPPORTED else None
        raise InvalidDocumentError(node.where, str(error), code=code) from error

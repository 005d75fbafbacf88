# SPDX-License-Identifier: Apache-2.0
"""Manifests in the answers of a registry."""

from __future__ import annotations

from ..content import MANIFEST_LIMIT
from ..errors import ErrorCode, RegistryError, quote, redacted
from ..model import mediatype
from ..net.limits import Clock
from ..net.response import Response
from ..sources.base import RawManifest
from .answers import refusal, require_uncompressed
from .endpoints import Endpoint

# what an access portal or a broken proxy sends instead of a manifest, with status 200
_NEVER_A_MANIFEST = frozenset({"text/html", "application/xhtml+xml"})
_KNOWN = _NEVER_A_MANIFEST | mediatype.MANIFESTS | mediatype.INDEXES


def read_manifest(endpoint: Endpoint, response: Response, what: str, clock: Clock) -> RawManifest:
    """The manifest in an answer; closes the answer. Raises NotFoundError (image-not-found), SourceError."""
    if response.status != 200:
        raise refusal(response, what, ErrorCode.IMAGE_NOT_FOUND, clock, access=endpoint.access_for(response))
    require_uncompressed(response)
    media_type = media_type_of(response)
    if media_type in _NEVER_A_MANIFEST:
        response.close()
        raise RegistryError.at(endpoint.name, f"{what}: expected a manifest, found {quote(media_type)}")
    return RawManifest(response.read_all(MANIFEST_LIMIT, f"{endpoint.name}: {what}"), media_type)


def media_type_of(response: Response) -> str:
    """The Content-Type without parameters, in lower case; empty when there is none (registry.md 6.1)."""
    written = (response.headers.get("content-type") or "").partition(";")[0].strip()
    kind = written.lower()
    return kind if kind in _KNOWN else redacted(written).lower()  # in lower case base64 is not known any more

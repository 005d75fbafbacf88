# SPDX-License-Identifier: Apache-2.0
"""`GET /referrers` and what it lists, as the HTTP front end answers them (bundles.md section 5)."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..model.descriptor import parse_digest
from ..model.mediatype import OCI_INDEX
from .target import HALF_ESCAPE, RequestFault, parse_target

if TYPE_CHECKING:
    from ..image import Image

PARAMETER = "artifactType"
Document = tuple[str, bytes, Mapping[str, str]]  # media type, content, further fields


def answer_referrers(open_image: Callable[[], Image], target: str) -> Document:
    """What refers to the image, of the type that `target` asks for, or of it the manifest of one digest.

    Raises CipError.
    """
    inside = parse_target(target).removeprefix("/referrers")
    if not inside:
        wanted = artifact_type_of(target)
        return OCI_INDEX, open_image().referrers().index(wanted)[0], {}
    digest = parse_digest(inside.removeprefix("/"))
    served = open_image().referrers().manifest(digest)
    verified = {"Referrers-Verified": "no"} if served.verified == "no" else {}
    return served.media_type, served.data, {"Manifest-Digest": str(digest), **verified}


def artifact_type_of(target: str) -> str | None:
    """The type that the target of a request asks for, None for all; `+` stands for itself (bundles.md section 5).

    Raises RequestFault (400) for anything that would otherwise be dropped in silence; it does not show the query.
    """
    query = target.partition("?")[2]
    if not query:
        return None
    name, mark, value = query.partition("=")
    if name != PARAMETER or not mark or "&" in value:
        raise RequestFault(400, f"query: expected {PARAMETER}=TYPE and nothing else")
    if not value or "#" in value or re.search(HALF_ESCAPE, value):
        raise RequestFault(400, f"{PARAMETER}: expected a media type, odd bytes as %XX")
    try:
        return urllib.parse.unquote(value, errors="strict")
    except UnicodeDecodeError as error:
        raise RequestFault(400, f"{PARAMETER}: expected UTF-8") from error

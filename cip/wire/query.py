# SPDX-License-Identifier: Apache-2.0
"""The query of a request for what refers to the image."""

from __future__ import annotations

import re
import urllib.parse

from ..errors import quote
from .problem import RequestFault

PARAMETER = "artifactType"
_HALF_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def artifact_type_of(target: str) -> str | None:
    """The type that the target of a request asks for, None for all; `+` stands for itself (bundles.md section 5).

    Raises RequestFault (400) for anything that would otherwise be dropped in silence.
    """
    query = target.partition("?")[2]
    if not query:
        return None
    name, mark, value = query.partition("=")
    if name != PARAMETER or not mark or "&" in value:
        raise RequestFault(400, f"query: expected one parameter {PARAMETER}, found {quote(query)}")
    if not value or "#" in value or _HALF_ESCAPE.search(value):
        raise RequestFault(400, f"{PARAMETER}: expected a media type, found {quote(value)}")
    try:
        return urllib.parse.unquote(value, errors="strict")
    except UnicodeDecodeError as error:
        raise RequestFault(400, f"{PARAMETER}: expected UTF-8 behind %, found {quote(value)}") from error

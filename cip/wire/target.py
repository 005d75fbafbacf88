# SPDX-License-Identifier: Apache-2.0
"""The target of a request: its path, and the query of a request for what refers to the image."""

from __future__ import annotations

import re
import urllib.parse

from ..errors import quote
from .problem import RequestFault

PARAMETER = "artifactType"
_ABSOLUTE = r"(?a)(?i:https?)://[^/?#]+([/?].*)?"
_HALF_ESCAPE = r"%(?![0-9A-Fa-f]{2})"


def parse_target(target: str) -> str:
    """The path that `target` names, percent-decoded once, bytes above ASCII as Latin-1.

    Not `urllib.parse.urlsplit`, which drops line breaks and takes a path for a host where it begins with two slashes.
    Any query is left out, and so is the authority of the absolute form. Raises RequestFault (400), without the query,
    which may be a secret.
    """
    if " " in target or not (target and target.isascii() and target.isprintable()):
        raise RequestFault(400, f"target {_shown(target)}: expected visible ASCII characters")
    if not target.startswith("/"):
        match = re.fullmatch(_ABSOLUTE, target)
        if match is None:
            raise RequestFault(400, f"target {_shown(target)}: expected a path or an http URL")
        target = match[1] or "/"
    path = target.partition("?")[0] or "/"
    if "#" in path:
        raise RequestFault(400, f"target {quote(path)}: contains a fragment")
    if "%" in path and re.search(_HALF_ESCAPE, path):
        raise RequestFault(400, f"target {quote(path)}: expected two hex digits after %")
    return urllib.parse.unquote(path, "latin-1")


def _shown(target: str) -> str:
    return quote(target.partition("?")[0])


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
    if not value or "#" in value or re.search(_HALF_ESCAPE, value):
        raise RequestFault(400, f"{PARAMETER}: expected a media type, odd bytes as %XX")
    try:
        return urllib.parse.unquote(value, errors="strict")
    except UnicodeDecodeError as error:
        raise RequestFault(400, f"{PARAMETER}: expected UTF-8") from error

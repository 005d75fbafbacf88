# SPDX-License-Identifier: Apache-2.0
"""The target of a request: its path; and what is wrong with a request."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Sequence

from ..errors import ErrorCode, InvalidInputError, quote

_ABSOLUTE = r"(?a)(?i:https?)://[^/?#]+([/?].*)?"
HALF_ESCAPE = r"%(?![0-9A-Fa-f]{2})"  # which no reader may meet


class RequestFault(InvalidInputError):
    """A request of the parent with a status of its own, because HTTP knows more of those than there are codes.

    `allowed` are the methods that the path knows, where it was asked for by another one.
    """

    def __init__(
        self, http_status: int, message: str, *, code: ErrorCode | None = None, allowed: Sequence[str] = ()
    ) -> None:
        super().__init__(message, code=code)
        self.answer = http_status
        self.allowed = allowed


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
    if "%" in path and re.search(HALF_ESCAPE, path):
        raise RequestFault(400, f"target {quote(path)}: expected two hex digits after %")
    return urllib.parse.unquote(path, "latin-1")


def _shown(target: str) -> str:
    return quote(target.partition("?")[0])

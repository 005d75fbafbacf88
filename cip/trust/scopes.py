# SPDX-License-Identifier: Apache-2.0
"""Scopes of a policy: which spellings each transport allows (signatures.md 1.4).

The names of transports that this program does not serve are known too, or a policy that is valid for another tool
would be read differently here.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping

from ..errors import InvalidDigestError
from ..model.digest import parse_digest
from ..model.reference import unmatched_scope

_SCOPELESS = frozenset({"", "ostree"})  # known, and their scopes not looked at
_ATOMIC = re.compile(r"[^/]*(?:/[^:/]*(?:/[^:/]*(?::[^:/]*)?)?)?")


def scope_fault(transport: str, scope: str) -> str:
    """What is wrong with `scope`, empty when nothing is: never for the empty one, for `docker`, unknown transports."""
    check = _CHECKS.get(transport)
    return check(scope) if check and scope else ""


def scope_remark(transport: str, scope: str) -> str:
    """Why no image lies in a scope that is allowed, empty when one may: what it protects is nothing.

    Of the transports that are known, only the scopes of `docker` can be written so.
    """
    if transport == "docker":
        return unmatched_scope(scope) if scope else ""
    return "" if transport in _CHECKS or transport in _SCOPELESS else "no transport has this name"


def _only_empty(scope: str) -> str:
    return "expected only the empty scope for this transport"


def _path(scope: str) -> str:
    if scope == "/" or not scope.startswith("/") or scope.startswith("//") or posixpath.normpath(scope) != scope:
        return "expected an absolute path other than /, without //, . and .. and without a slash at the end"
    return ""


def _daemon(scope: str) -> str:
    return "expected a name, found a digest" if _is_digest(scope) else ""


def _atomic(scope: str) -> str:
    return "" if _ATOMIC.fullmatch(scope) else "expected at most host/namespace/stream:tag"


def _storage(scope: str) -> str:
    """`[graphroot]` or `[driver@graphroot]`, then at most a name, a digest or id, and an id."""
    location, bracket, image = scope[1:].partition("]")
    if not scope.startswith("[") or not bracket:
        return "expected [graphroot] or [driver@graphroot] in front"
    driver, at, root = location.partition("@")
    if not (driver and root.startswith("/") if at else location.startswith("/")):
        return "expected an absolute graph root, with a driver and @ or nothing before it"
    parts = image.split("@", 2)
    if len(parts) == 2 and not (_is_image_id(parts[1]) or _is_digest(parts[1])):
        return "expected a digest or an image id behind @"
    if len(parts) == 3 and not (_is_digest(parts[1]) and _is_image_id(parts[2])):
        return "expected a digest and an image id behind @"
    return ""


def _is_digest(text: str) -> bool:
    try:
        parse_digest(text)
    except InvalidDigestError:
        return False
    return True


def _is_image_id(text: str) -> bool:
    return _is_digest(f"sha256:{text}")


_CHECKS: Mapping[str, Callable[[str], str]] = {
    "atomic": _atomic,
    "docker-daemon": _daemon,
    "docker-archive": _only_empty,
    "tarball": _only_empty,
    "dir": _path,
    "sif": _path,
    "oci": _path,
    "oci-archive": _path,
    "containers-storage": _storage,
}

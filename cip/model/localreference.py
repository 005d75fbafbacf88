# SPDX-License-Identifier: Apache-2.0
"""References to archives, daemons and local storages (images.md 2), and the scopes of a policy there."""

import re
from collections.abc import Callable, Mapping

from ..errors import CipError, InvalidReferenceError
from .descriptor import is_digest, parse_digest
from .reference import (
    DEFAULT_DOMAIN,
    ImageReference,
    Transport,
    parse_part,
    parse_position,
    path_fault,
    require_image_name,
)

_ATOMIC = r"[^/]*(?:/[^:/]*(?:/[^:/]*(?::[^:/]*)?)?)?"
_NEEDED = {
    Transport.CONTAINERS_STORAGE: "an image name or id",
    Transport.DOCKER_ARCHIVE: "a file name",
    Transport.TARBALL: "at least one file name",
}


def parse_local_reference(transport: Transport, text: str, rest: str) -> ImageReference:
    """What `rest` names behind the colon of `text`. Raises InvalidReferenceError."""
    if not rest and transport in _NEEDED:
        raise InvalidReferenceError(text, f"expected {_NEEDED[transport]}")
    if transport is Transport.OCI_ARCHIVE:
        return _parse_oci_archive(text, rest)
    if transport is Transport.DOCKER_ARCHIVE:
        return _parse_docker_archive(text, rest)
    if transport is Transport.DOCKER_DAEMON:
        return _parse_docker_daemon(text, rest)
    return ImageReference(transport, text, path=rest)  # which only the store can read


def _parse_oci_archive(text: str, rest: str) -> ImageReference:
    path, _, name = rest.partition(":")
    require_image_name(text, name)
    return ImageReference(Transport.OCI_ARCHIVE, text, path=path, name=name)


def _parse_docker_archive(text: str, rest: str) -> ImageReference:
    path, colon, name = rest.partition(":")
    if not colon:
        return ImageReference(Transport.DOCKER_ARCHIVE, text, path=path)
    if name.startswith("@"):
        return ImageReference(Transport.DOCKER_ARCHIVE, text, path=path, index=parse_position(text, name))
    parsed = parse_part(text, name)
    if parsed.digest is not None:
        raise InvalidReferenceError(text, "expected a tag, found a digest")
    return ImageReference(Transport.DOCKER_ARCHIVE, text, docker=parsed.tagged(), path=path)


def _parse_docker_daemon(text: str, rest: str) -> ImageReference:
    if rest.partition(":")[0] in ("sha256", "sha384", "sha512"):
        try:
            digest = parse_digest(rest)
        except CipError as error:
            raise InvalidReferenceError(text, str(error)) from error
        if digest.algorithm != "sha256":
            raise InvalidReferenceError(text, "expected an image id by sha256")
        return ImageReference(Transport.DOCKER_DAEMON, text, image_id=digest)
    parsed = parse_part(text, rest)
    if parsed.path == "library/sha256" and parsed.domain == DEFAULT_DOMAIN:
        raise InvalidReferenceError(text, "the repository name sha256 is reserved for image ids")
    if (parsed.tag is None) == (parsed.digest is None):
        raise InvalidReferenceError(text, "expected a tag or a digest, found both or neither")
    return ImageReference(Transport.DOCKER_DAEMON, text, docker=parsed)


def local_scope_fault(transport: str, scope: str) -> str:
    """What is wrong with the `scope` of a policy that is not empty; nothing for a transport that is not known."""
    check = _CHECKS.get(transport)
    return check(scope) if check else ""


def _only_empty(scope: str) -> str:
    return "expected only the empty scope for this transport"


def _daemon(scope: str) -> str:
    return "expected a name, found a digest" if is_digest(scope) else ""


def _atomic(scope: str) -> str:
    return "" if re.fullmatch(_ATOMIC, scope) else "expected at most host/namespace/stream:tag"


def _storage(scope: str) -> str:
    """`[graphroot]` or `[driver@graphroot]`, then at most a name, a digest or id, and an id."""
    location, bracket, image = scope[1:].partition("]")
    if not scope.startswith("[") or not bracket:
        return "expected [graphroot] or [driver@graphroot] in front"
    driver, at, root = location.partition("@")
    if not (driver and root.startswith("/") if at else location.startswith("/")):
        return "expected an absolute graph root, with a driver and @ or nothing before it"
    parts = image.split("@", 2)
    if len(parts) == 2 and not (_is_image_id(parts[1]) or is_digest(parts[1])):
        return "expected a digest or an image id behind @"
    if len(parts) == 3 and not (is_digest(parts[1]) and _is_image_id(parts[2])):
        return "expected a digest and an image id behind @"
    return ""


def _is_image_id(text: str) -> bool:
    return is_digest(f"sha256:{text}")


_CHECKS: Mapping[str, Callable[[str], str]] = {
    "atomic": _atomic,
    "docker-daemon": _daemon,
    "docker-archive": _only_empty,
    "tarball": _only_empty,
    "sif": path_fault,
    "oci-archive": path_fault,
    "containers-storage": _storage,
}

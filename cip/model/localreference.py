# SPDX-License-Identifier: Apache-2.0
"""References to archives, daemons and local storages, in the grammar of images.md 2."""

from ..errors import CipError, InvalidReferenceError
from .descriptor import parse_digest
from .reference import DEFAULT_DOMAIN, ImageReference, Transport, parse_part, parse_position, require_image_name

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

# SPDX-License-Identifier: Apache-2.0
"""The identity of an image: the names under which a policy may speak about it."""

from typing import NamedTuple

from .reference import DockerReference, Transport


class ImageIdentity(NamedTuple):
    """What policy lookup compares with its scopes (signatures.md 1.3).

    `identity` is the exact name (empty where the transport has none), `scopes` are the namespaces, most specific
    first, `docker` is the reference that a signature must name, None where the transport has none.
    """

    transport: Transport
    identity: str
    scopes: tuple[str, ...]
    docker: DockerReference | None = None


def docker_identity(transport: Transport, reference: DockerReference) -> ImageIdentity:
    """The identity of an image that is named by a docker reference."""
    return ImageIdentity(transport, str(reference), reference.scopes(), reference)


def path_identity(transport: Transport, resolved: str, docker: DockerReference | None = None) -> ImageIdentity:
    """The identity of an image under the absolute, link-free path `resolved`: the path, then its parents but `/`."""
    scopes = []
    parent = resolved.rpartition("/")[0]
    while parent:
        scopes.append(parent)
        parent = parent.rpartition("/")[0]
    return ImageIdentity(transport, resolved, tuple(scopes), docker)


def nameless_identity(transport: Transport, docker: DockerReference | None = None) -> ImageIdentity:
    """The identity of an image that only the transport's default scope applies to."""
    return ImageIdentity(transport, "", (), docker)

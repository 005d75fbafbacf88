# SPDX-License-Identifier: Apache-2.0
"""Names of images: references, parsed without looking at the file system or the network, and what a policy calls them.

The grammar is that of registry.md 1 and images.md 2. All classes are ASCII, all matches are whole-string.
"""

import posixpath
import re
from enum import StrEnum
from typing import NamedTuple

from .. import rooms
from ..errors import CipError, InvalidReferenceError, UnsupportedError, quote, strip_reference
from .descriptor import Digest, parse_digest

DEFAULT_DOMAIN = "docker.io"
_HUB_ALIAS = "index.docker.io"
NAME_LIMIT = 255  # bytes of domain and path together

# Labels and components begin and end with a letter or a digit, as they do with what stands between them.
_ADDRESS = r"\[[0-9A-Fa-f:]{2,39}\]"  # of IPv6
_DOMAIN = re.compile(rf"(?:[A-Za-z0-9]+(?:(?:\.|-+)[A-Za-z0-9]+)*|{_ADDRESS})(?::[0-9]+)?", re.ASCII)
_PATH = re.compile(r"[a-z0-9]+(?:(?:[./]|__?|-+)[a-z0-9]+)*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_HEX_ID = "[0-9a-f]+"
_WORDS = r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"
_LAYOUT_NAME = rf"(?a){_WORDS}(?:/{_WORDS})*"
_INDEX = r"(?a)@\+?([0-9]{1,19})"
_CONTROL = "[\0-\x1f\x7f-\x9f\u2028\u2029]"
_UNKNOWN_DIGEST = "@@unknown-digest@@"


class Transport(StrEnum):
    """The transports that image names may start with; the value is the name, matched exactly."""

    DOCKER = "docker"
    OCI = "oci"
    OCI_ARCHIVE = "oci-archive"
    DIR = "dir"
    DOCKER_ARCHIVE = "docker-archive"
    DOCKER_DAEMON = "docker-daemon"
    CONTAINERS_STORAGE = "containers-storage"
    TARBALL = "tarball"


# Known upstream, so that the refusal can say that the name is right and the transport is not served.
UNSUPPORTED_TRANSPORTS = frozenset({"sif", "atomic", "ostree"})


class DockerReference(NamedTuple):
    """A normalised docker reference: `domain/path`, with a tag, a digest, both or neither."""

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """`domain/path`, without tag or digest."""
        return f"{self.domain}/{self.path}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return self.name + tag + digest

    def tagged(self) -> "DockerReference":
        """The same reference, with the tag `latest` when it has neither tag nor digest."""
        return self if self.tag is not None or self.digest is not None else self._replace(tag="latest")

    def scopes(self) -> tuple[str, ...]:
        """Namespaces, most specific first: repository, its parents, host with port, then `*.` parent domains.

        Used for policy and registries.d alike (registry.md 1.3, signatures.md 1.3). A reference with tag and digest is
        in the scopes of both, of the digest first: a tag, which nobody compares with anything, hides no rule for the
        content.
        """
        both = self.tag is not None and self.digest is not None
        names = [str(self._replace(tag=None)), str(self._replace(digest=None))] if both else []
        found = [self.name]
        while "/" in found[-1]:
            found.append(found[-1].rpartition("/")[0])
        host = self.domain.partition(":")[0]
        while "." in host:
            host = host.partition(".")[2]
            found.append(f"*.{host}")
        return (*names, *found)


class ImageReference(NamedTuple):
    """A parsed image name. Which of the later fields are set depends on the transport.

    `text` is what the user wrote. `docker` belongs to docker, docker-daemon and docker-archive (its tag),
    `path` to the transports that read files, `name` (empty: none) and `index` to those that choose within one.
    For containers-storage and tarball `path` is the whole text behind the colon: only the store can read it.
    """

    transport: Transport
    text: str
    docker: DockerReference | None = None
    path: str = ""
    name: str = ""
    index: int | None = None  # type: ignore[assignment]  # shadows tuple.index, which nobody calls
    image_id: Digest | None = None

    def __str__(self) -> str:
        return self.text


def parse_docker_reference(text: str) -> DockerReference:
    """Parse and normalise a docker reference; no default tag is added (images.md 2.2, registry.md 1.2).

    Raises InvalidReferenceError.
    """
    if len(text) == 64 and re.fullmatch(_HEX_ID, text):
        raise InvalidReferenceError(text, "expected a repository name, found 64 hex digits")
    _refuse_user(text)
    head, slash, rest = text.partition("/")
    if slash and _is_domain(head):
        domain, remainder = head, rest
    else:
        domain, remainder = DEFAULT_DOMAIN, text
    if domain == _HUB_ALIAS:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = f"library/{remainder}"
    before_tag = remainder.partition(":")[0]
    if before_tag != before_tag.lower():
        raise InvalidReferenceError(text, "expected a lower-case repository name")
    return _split_reference(text, domain, remainder)


def require_name_prefix(text: str) -> str:
    """`text`, which is a host with an optional port, or that and the beginning of a repository path in whole parts.

    No tag, digest, wildcard, slash at the end, or address of IPv6 (signatures.md 3.2, `remapIdentity`). Raises
    InvalidReferenceError.
    """
    domain, slash, path = text.partition("/")
    if not is_host(domain) or (slash and not _PATH.fullmatch(path)):
        raise InvalidReferenceError(text, "expected a host, or a host and the beginning of a repository path")
    return text


def is_host(text: str) -> bool:
    """Whether `text` is a host with an optional port, and no address of IPv6."""
    return "[" not in text and bool(_DOMAIN.fullmatch(text))


def is_repository(text: str, *, with_domain: bool) -> bool:
    """Whether `text` is a repository with its host, or else a short name without one, and has no tag and no digest."""
    host, slash, path = text.partition("/")
    if not (slash and _is_domain(host)):
        host, path = "", text
    if bool(host) is not with_domain or not _PATH.fullmatch(path):
        return False
    if len(text) < 64 and (not host or _DOMAIN.fullmatch(host)):
        return True  # whatever else is refused is longer
    try:
        return bool(parse_docker_reference(text))
    except InvalidReferenceError:
        return False


def unmatched_scope(scope: str) -> str:
    """Why no docker reference lies in `scope`, be it one of a policy or of registries.d; empty when one may."""
    if scope.startswith("*."):
        plain = _DOMAIN.fullmatch(scope[2:]) and ":" not in scope
        return "" if plain else "expected a domain and nothing else behind *."
    if "://" in scope:
        return "expected no scheme"
    if scope.endswith("/"):
        return "expected no slash at its end"
    host, slash, _ = scope.partition("/")
    if not _is_domain(host) or not _DOMAIN.fullmatch(host):
        return "expected a host with a dot or a port, or localhost, in front"
    if not slash:
        return "" if host != _HUB_ALIAS else f"expected {DEFAULT_DOMAIN}, as the name is written out"
    try:
        parsed = parse_docker_reference(scope)
    except InvalidReferenceError as error:
        return error.why
    namespace = host == DEFAULT_DOMAIN and parsed.tag is None and parsed.digest is None
    return "" if namespace or str(parsed) == scope else f"expected {parsed}, as the name is written out"


def path_fault(scope: str) -> str:
    """What is wrong with a path as the scope of a policy, empty when nothing is."""
    if scope == "/" or not scope.startswith("/") or scope.startswith("//") or posixpath.normpath(scope) != scope:
        return "expected an absolute path other than /, without //, . and .. and without a slash at the end"
    return ""


def _is_domain(head: str) -> bool:
    """Whether the text in front of the first slash is a host, and not part of a path at Docker Hub."""
    return "." in head or ":" in head or head == "localhost"


def _split_reference(text: str, domain: str, remainder: str) -> DockerReference:
    named, at, digest_text = remainder.partition("@")
    path, colon, tag = named.partition(":")
    if not _DOMAIN.fullmatch(domain):
        raise InvalidReferenceError(text, f"{quote(domain)} is not a host name, optionally with a port")
    if not _PATH.fullmatch(path):
        raise InvalidReferenceError(text, f"{quote(strip_reference(path))} is not a repository path")
    if colon and not _TAG.fullmatch(tag):
        raise InvalidReferenceError(text, f"{quote(tag)} is not a tag")
    if len(domain) + 1 + len(path) > NAME_LIMIT:
        raise InvalidReferenceError(text, f"the name is longer than {NAME_LIMIT} bytes")
    digest = None
    if at:
        try:
            digest = parse_digest(digest_text)
        except CipError as error:
            raise InvalidReferenceError(text, str(error)) from error
    return DockerReference(domain, path, tag if colon else None, digest)


def _refuse_user(text: str) -> None:
    if "@" in text and strip_reference(text) != text:
        why = "expected a digest behind @; a user name and password are given with --creds or an auth file"
        raise InvalidReferenceError(text, why)


def _how_written(text: str) -> str:
    """The next step for whoever left the transport out."""
    if text.startswith(("/", ".")):
        return "a layout is written oci:DIR"
    return "an image of a registry is written docker://NAME"


def parse_image_reference(text: str) -> ImageReference:
    """Parse `transport:reference` (images.md 2.3).

    Raises InvalidReferenceError, or UnsupportedError for a transport that exists but is not served here.
    """
    name, colon, rest = text.partition(":")
    if not colon:
        raise InvalidReferenceError(text, f"expected transport:reference; {_how_written(text)}")
    # whatever is told about the image repeats the text, on one line
    if not (text.isascii() and text.isprintable()) and re.search(_CONTROL, text):
        raise InvalidReferenceError(text, "contains a control character")
    try:
        text.encode("utf-8", "surrogateescape")  # bytes that are not UTF-8 reach us so, and may name a file
    except UnicodeEncodeError as error:
        raise InvalidReferenceError(text, "contains a lone surrogate") from error
    if name in UNSUPPORTED_TRANSPORTS:
        raise UnsupportedError(f"transport {name!r} is not supported, expected one of {', '.join(Transport)}")
    _refuse_user(text)
    if name not in tuple(Transport):
        left_out = "/" in name or "." in name  # as in a host or a path, and in no transport
        hint = f"; {_how_written(name)}" if left_out else ""
        known = ", ".join(Transport)
        why = f"unknown transport {quote(strip_reference(name))}, expected one of {known}{hint}"
        raise InvalidReferenceError(text, why)
    match Transport(name):
        case Transport.DOCKER:
            return _parse_docker(text, rest)
        case Transport.OCI:
            return _parse_layout(text, rest)
        case Transport.DIR:
            return ImageReference(Transport.DIR, text, path=rest)
        case transport:
            return rooms.parse_local_reference(transport, text, rest)


def _parse_docker(text: str, rest: str) -> ImageReference:
    if not rest.startswith("//"):
        raise InvalidReferenceError(text, "expected docker:// in front of the name")
    if rest.endswith(_UNKNOWN_DIGEST):
        raise InvalidReferenceError(text, f"{_UNKNOWN_DIGEST} names nothing that can be read")
    return ImageReference(Transport.DOCKER, text, docker=parse_part(text, rest[2:]).tagged())


def parse_part(text: str, part: str) -> DockerReference:
    """Parse `part`, but complain about the whole `text` that the user wrote."""
    try:
        return parse_docker_reference(part)
    except InvalidReferenceError as error:
        raise InvalidReferenceError(text, error.why) from error


def parse_position(text: str, position: str) -> int:
    """The number behind the @ that chooses one of several images. Raises InvalidReferenceError about `text`."""
    match = re.fullmatch(_INDEX, position)
    if match is None or int(match[1]) >= 2**63:
        raise InvalidReferenceError(text, f"{quote(position)} is not an image index, expected @ with a number from 0")
    return int(match[1])


def require_image_name(text: str, name: str) -> None:
    """Return only for a name that a layout may give to an image, or none. Raises InvalidReferenceError about `text`."""
    if name and not re.fullmatch(_LAYOUT_NAME, name):
        raise InvalidReferenceError(text, f"{quote(name)} is not an image name")


def _parse_layout(text: str, rest: str) -> ImageReference:
    path, _, name = rest.partition(":")
    index = None
    if name.startswith("@"):
        index, name = parse_position(text, name), ""
    require_image_name(text, name)
    return ImageReference(Transport.OCI, text, path=path, name=name, index=index)


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

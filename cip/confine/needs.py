# SPDX-License-Identifier: Apache-2.0
"""What a confined process may still need: files, and other programs; without these no helper process is started."""

from __future__ import annotations

import os
import sys

from .. import log
from ..errors import CipError
from ..hostconfig.authfile import AuthDocument, DescriptorFiles
from ..hostconfig.paths import AuthFile, auth_files, certificate_directories
from ..hostconfig.registriesconf import FILE_HELPER, load_registries
from ..model.reference import Transport, parse_image_reference
from ..settings import Settings
from ..trust.policy import Policy

_UNPACKED = {Transport.OCI_ARCHIVE, Transport.DOCKER_ARCHIVE, Transport.DOCKER_DAEMON, Transport.TARBALL}
_NSSWITCH_LIMIT = 64 * 1024  # characters
_READS_ZSTD = (3, 14)  # from this Python on the standard library does


def may_verify(policy: Policy | None) -> bool:
    """Whether `policy` may ask gpgv; one that is not known yet may."""
    return policy is None or any(each.kind == "signedBy" for each in policy.requirements())


def may_decompress(reference: str, settings: Settings) -> bool:
    """Whether zstd may be asked; `reference` is empty where the parent names images later."""
    if sys.version_info >= _READS_ZSTD:
        return False
    named = (reference, *settings.local_sources)
    return not reference or any(parse_image_reference(text).transport in _UNPACKED for text in named)


def may_ask_helpers(reference: str, settings: Settings) -> bool:
    """Whether credentials may be looked for: a registry is asked, or the parent may name one later."""
    return not settings.credentials.no_creds and (not reference or reference.startswith("docker:"))


def why_unix_sockets(reference: str, nsswitch: str = "/etc/nsswitch.conf") -> str:
    """What needs new sockets of the unix family, for a person; empty where nothing does.

    The C library asks caches and resolvers on such sockets first, and goes on without them, unless a service that
    speaks over one is all that there is.
    """
    if not reference:
        return "the parent may name docker-daemon: images later"
    if parse_image_reference(reference).transport is Transport.DOCKER_DAEMON:
        return "docker-daemon: is asked over one"
    try:
        with open(nsswitch, encoding="utf-8", errors="replace") as file:
            lines = file.read(_NSSWITCH_LIMIT).splitlines()
    except OSError:
        return ""  # the C library has a default then, which asks dns
    for line in lines:
        name, colon, services = line.partition("#")[0].partition(":")
        if colon and name.strip() == "hosts" and "dns" not in services.split():
            return f"names are resolved over one (hosts in {nsswitch})"
    return ""


def read_later(reference: str, settings: Settings) -> list[str]:
    """What may have to be read after the image is open: the image itself, certificates, access to further places."""
    paths = [settings.shared_blob_dir] if settings.shared_blob_dir else []
    remote = False
    for text in (reference, *settings.local_sources) if reference else ():
        parsed = parse_image_reference(text)
        if parsed.transport is Transport.DOCKER:
            remote = True
        elif parsed.transport is not Transport.DOCKER_DAEMON:
            paths += parsed.path.split(":") if parsed.transport is Transport.TARBALL else [parsed.path or "."]
    if remote:  # a mirror that is asked when another place breaks in the middle of a blob
        environment = settings.environment
        paths += [path for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if (path := environment.get(name))]
        certificates = certificate_directories("host", settings)
        paths += certificates if settings.cert_dir else map(os.path.dirname, certificates)
        paths += [file.path for file in auth_files(settings)[0]]
    return paths


def helpers_of(settings: Settings, files: DescriptorFiles) -> frozenset[str]:
    """Every credential helper that configuration names at present.

    A file that cannot be used names none: whoever needs it is told why.
    """
    found: set[str] = set()
    try:
        found.update(load_registries(settings).credential_helpers)
        for place in auth_files(settings)[0] if FILE_HELPER in found else ():
            found.update(_helpers_in(place, files))
    except CipError as error:
        log.debug("%s", error)
    return frozenset(found - {FILE_HELPER})


def _helpers_in(place: AuthFile, files: DescriptorFiles) -> set[str]:
    try:
        data = files.read(place.path)
        return {node.as_str() for node in AuthDocument(place, data).helpers.values()} if data else set()
    except CipError as error:
        log.debug("%s", error)
        return set()

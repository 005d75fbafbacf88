# SPDX-License-Identifier: Apache-2.0
"""Which other programs a confined process may still need: where there are none, no helper process is started."""

from __future__ import annotations

import sys

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

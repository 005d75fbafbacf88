# SPDX-License-Identifier: Apache-2.0
"""Which other programs a confined process may still need: where there are none, no helper process is started."""

from __future__ import annotations

import sys

from ..model.reference import Transport, parse_image_reference
from ..settings import Settings
from ..trust.policy import Policy

_UNPACKED = {Transport.OCI_ARCHIVE, Transport.DOCKER_ARCHIVE, Transport.DOCKER_DAEMON, Transport.TARBALL}
_READS_ZSTD = (3, 14)  # from this Python on the standard library does


def may_verify(policy: Policy | None) -> bool:
    """Whether `policy` may ask gpgv; one that is not known yet may."""
    if policy is None:
        return True
    scopes = (requirements for scope in policy.transports.values() for requirements in scope.values())
    return any(each.kind == "signedBy" for requirements in (policy.default, *scopes) for each in requirements)


def may_decompress(reference: str, settings: Settings) -> bool:
    """Whether zstd may be asked; `reference` is empty where the parent names images later."""
    if sys.version_info >= _READS_ZSTD:
        return False
    return not reference or any(_is_unpacked(text) for text in (reference, *settings.local_sources))


def may_ask_helpers(reference: str, settings: Settings) -> bool:
    """Whether credentials may be looked for: a registry is asked, or the parent may name one later."""
    return not settings.credentials.no_creds and (not reference or reference.startswith("docker:"))


def _is_unpacked(text: str) -> bool:
    return parse_image_reference(text).transport in _UNPACKED

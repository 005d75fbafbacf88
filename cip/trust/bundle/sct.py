# SPDX-License-Identifier: Apache-2.0
"""Signed certificate timestamps: that a log saw the certificate before it was used (RFC 6962 3.2, bundles.md 3.8)."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from ...errors import SignatureError
from ..sigstore.keys import Certificate, LogTimestamp
from .trustedroot import Log

_VERSION_AND_TYPE = 0  # v1, certificate_timestamp
_PRECERTIFICATE = 1


def require_logged_certificate(leaf: Certificate, issuer: Certificate, logs: Sequence[Log], where: str) -> None:
    """Return only if a listed log signed that it saw `leaf`, which `issuer` issued; `where` names the list's file.

    Raises SignatureError (`untrusted`).
    """
    refusals: list[str] = []
    try:
        unlogged, timestamps = leaf.unlogged(), leaf.log_timestamps()
    except ValueError as error:
        raise _untrusted(f"the certificate has no readable log timestamp: {error}") from error
    for timestamp in timestamps:
        signed = _signed(timestamp, unlogged, issuer)
        for log in logs:
            if not log.is_named(timestamp.log_id):
                continue
            try:
                if timestamp.hash_name != "sha256":
                    raise _untrusted(f"a log timestamp with {timestamp.hash_name}, expected sha256")
                log.key.require_signed(timestamp.signature, signed)
                log.window.require(timestamp.milliseconds / 1000, "the certificate log", where, "untrusted")
            except SignatureError as error:
                refusals.append(str(error))
                continue
            return
    raise _untrusted(
        f"the certificate was seen by no certificate log in {where}: {'; '.join(refusals) or 'none known'}"
    )


def _signed(timestamp: LogTimestamp, unlogged: bytes, issuer: Certificate) -> bytes:
    issuer_hash = hashlib.sha256(issuer.spki).digest()
    head = struct.pack("!HQH32s", _VERSION_AND_TYPE, timestamp.milliseconds, _PRECERTIFICATE, issuer_hash)
    extensions = struct.pack("!H", len(timestamp.extensions)) + timestamp.extensions
    return head + len(unlogged).to_bytes(3, "big") + unlogged + extensions


def _untrusted(why: str) -> SignatureError:
    return SignatureError(why, reason="untrusted")

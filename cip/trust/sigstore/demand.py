# SPDX-License-Identifier: Apache-2.0
"""What a `sigstoreSigned` requirement demands of a bundle, as the policy says it, and keys read from what it names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...errors import SignatureError
from ..policy import TrustTools
from ..signed.materials import Material
from .certificates import CertificateIdentity
from .keys import PublicKey, load_public_key


class BundleDemand(NamedTuple):
    """A signature by one of `keys`, or by a certificate for `identity` (bundles.md 4.2).

    `log_entries` and `timestamps` count different logs and authorities; the first is asked for only where `root` or
    `log_keys` name logs. `attachments_only` is a kind of signer that no bundle can have.
    """

    keys: tuple[Material, ...] = ()
    identity: CertificateIdentity | None = None
    log_keys: tuple[Material, ...] = ()
    root: Material | None = None
    log_entries: int = 1
    timestamps: int = 0
    attachments_only: str = ""


def load_keys(materials: Sequence[Material], tools: TrustTools) -> list[PublicKey]:
    """All keys; one bad one refuses. Raises SignatureError (`keycfg`), MissingDependencyError."""
    return [load_public_key(each.load(tools.read_file), each.name) for each in materials]


def load_log_keys(materials: Sequence[Material], tools: TrustTools) -> list[PublicKey]:
    """Keys of logs. Raises as `load_keys`."""
    keys = load_keys(materials, tools)
    for material, key in zip(materials, keys, strict=True):
        if key.kind != "ecdsa":  # signatures.md 5.4
            raise SignatureError(f"{material.name}: expected an ECDSA key of a log", reason="keycfg")
    return keys

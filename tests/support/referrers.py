# SPDX-License-Identifier: Apache-2.0
"""What refers to an image: manifests, lists, and the requests that a registry answers with them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cip.model import mediatype
from cip.model.descriptor import Digest, digest_of

from . import images

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
EMPTY_CONFIG = b"{}"
SIGNING: Mapping[str, str] = {
    "dev.sigstore.bundle.content": "dsse-envelope",
    "dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1",
}


def described(data: bytes, media_type: str, **members: Any) -> dict[str, Any]:
    """A descriptor; members that are None are left out."""
    told = {"mediaType": media_type, "digest": str(digest_of(data)), "size": len(data), **members}
    return {name: value for name, value in told.items() if value is not None}


def carrier(
    subject: Digest | None,
    *blobs: bytes,
    kind: str | None = BUNDLE,
    layer_type: str = BUNDLE,
    annotations: Mapping[str, str] | None = None,
) -> bytes:
    """A manifest that refers to `subject` and carries `blobs`; as cosign 3 writes it, but for what is told."""
    about = None if subject is None else {"mediaType": mediatype.OCI_MANIFEST, "digest": str(subject), "size": 1}
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": described(EMPTY_CONFIG, mediatype.OCI_EMPTY, artifactType=kind),
        "layers": [described(blob, layer_type) for blob in blobs],
        "annotations": None if annotations is None else dict(annotations),
        "subject": about,
        "artifactType": kind,
    }
    return images.compact({name: value for name, value in manifest.items() if value is not None})


def listed(manifest: bytes, kind: str | None = mediatype.OCI_EMPTY, **members: Any) -> dict[str, Any]:
    """An entry of a list."""
    return described(manifest, members.pop("media_type", mediatype.OCI_MANIFEST), artifactType=kind, **members)


def listing(entries: Sequence[Mapping[str, Any]]) -> bytes:
    """A list."""
    return images.compact({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": list(entries)})


def entries_of(data: bytes) -> list[dict[str, Any]]:
    """The entries of a list."""
    found: list[dict[str, Any]] = json.loads(data)["manifests"]
    return found


def tag_of(digest: Digest) -> str:
    """The fallback tag."""
    return f"{digest.algorithm}-{digest.encoded}"

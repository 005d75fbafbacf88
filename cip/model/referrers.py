# SPDX-License-Identifier: Apache-2.0
"""What refers to a manifest (OCI 1.1): the lists, the manifests that they name, and which of them may hold a bundle.

Nothing here is authenticated. A hint may keep something from being fetched, which is no more than whoever gives it
could do by deleting; it never makes anything believed. `subject` keeps strays out; the signed digest is what protects.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

from ..errors import CipError, ErrorCode, InvalidDocumentError, quote
from . import mediatype
from .descriptor import Descriptor, Digest, read_descriptor
from .jsontree import JsonNode, parse_json
from .manifest import Manifest, parse_manifest_members, read_manifest

LIST_LIMIT = 4 * 1024 * 1024  # bytes of one page, of the index under the fallback tag, and of the merged list
ENTRY_LIMIT = 4096  # descriptors over all pages
SUBJECT_KEY = "container-image-proxy.subject"  # annotations of the list that parents get
VERIFIED_KEY = "container-image-proxy.verified"
SIGNING_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
BUNDLE_TYPES = frozenset(
    {f"application/vnd.dev.sigstore.bundle.v0.{minor}+json" for minor in (1, 2, 3)}
    | {f"application/vnd.dev.sigstore.bundle+json;version=0.{minor}" for minor in (1, 2, 3)}
)
# bundles.md 1.4: a list that a client maintains says as good as nothing about what it lists
UNTYPED = frozenset({"", mediatype.OCI_EMPTY})
_MAY_BE_BUNDLE = BUNDLE_TYPES | UNTYPED | {mediatype.OCI_CONFIG}
PREDICATE_KEY = "dev.sigstore.bundle.predicateType"
CONTENT_KEY = "dev.sigstore.bundle.content"
_HINTS = (PREDICATE_KEY, CONTENT_KEY)
_LIST_MEMBERS = ("schemaVersion", "mediaType", "manifests", "artifactType", "subject", "annotations")


class Referrer(NamedTuple):
    """One entry of a list. Of its annotations `descriptor` has the hints; `artifact_type` is empty when it says none.

    `text` is its JSON, lone surrogates included: as values it would take up to thirty times as much memory, of which a
    registry decides.
    """

    descriptor: Descriptor
    artifact_type: str
    text: bytes


class ReferrerManifest(NamedTuple):
    """A manifest that may refer to another. `kind` is its artifact type, or what stands for one (image-spec)."""

    subject: Digest | None
    kind: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]


class NotABundleError(Exception):
    """A referrer is no bundle about this image; `group` is the kind of thing that it is, for people."""

    def __init__(self, group: str, predicate: str = "") -> None:
        super().__init__(group)
        self.group = group
        self.predicate = predicate


DANGLING = "listed, but not there"
FOREIGN = "about another image"
OTHER_TYPE = "of another type"
ATTESTATION = "attestation"


def fallback_tag(digest: Digest) -> str:
    """The tag under which clients list what refers to `digest` (distribution-spec, "Referrers Tag Schema")."""
    return f"{digest.algorithm[:32]}-{digest.encoded[:64]}"


def parse_referrers(data: bytes, where: str) -> tuple[Referrer, ...]:
    """The entries of the OCI index `data`, platforms unread. Raises InvalidDocumentError (limit-exceeded for many)."""
    if len(data) > LIST_LIMIT:
        raise InvalidDocumentError(where, f"larger than {LIST_LIMIT} bytes", code=ErrorCode.LIMIT_EXCEEDED)
    root = parse_json(data, where)
    root.require_exact_case(_LIST_MEMBERS)
    stated = root.get("mediaType")
    if stated is not None and stated.as_str() != mediatype.OCI_INDEX:
        stated.fail(f"expected {mediatype.OCI_INDEX!r}, found {quote(stated.value)}")
    version = root["schemaVersion"]
    if version.as_int() != 2:
        version.fail(f"expected 2, found {quote(version.value)}")
    if root["manifests"].is_null():  # how a registry in Go writes an empty list that it never made
        return ()
    nodes = list(root["manifests"].items())
    if len(nodes) > ENTRY_LIMIT:
        raise too_many(where)
    return tuple(map(read_referrer, nodes))


def read_referrer(node: JsonNode) -> Referrer:
    """The entry of a list that `node` holds. Raises InvalidDocumentError."""
    kind = node.get("artifactType")
    read = read_descriptor(node)
    hints = {key: read.annotations[key] for key in _HINTS if key in read.annotations}
    text = json.dumps(node.value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return Referrer(read._replace(urls=(), annotations=hints), kind.as_str() if kind else "", text)


def too_many(where: str) -> InvalidDocumentError:
    """The refusal of a list with more entries than ENTRY_LIMIT."""
    why = f"expected at most {ENTRY_LIMIT} referrers, found more"
    return InvalidDocumentError(where, why, code=ErrorCode.LIMIT_EXCEEDED)


def parse_referrer_manifest(data: bytes, where: str) -> ReferrerManifest:
    """The OCI manifest `data`. Raises InvalidDocumentError, UnsupportedError."""
    root = parse_manifest_members(data, where)
    manifest = read_manifest(root, mediatype.OCI_MANIFEST)
    if not isinstance(manifest, Manifest) or manifest.media_type != mediatype.OCI_MANIFEST:
        raise InvalidDocumentError(where, f"expected {mediatype.OCI_MANIFEST!r}")
    subject = root.get("subject")
    annotations = root.get("annotations")
    return ReferrerManifest(
        read_descriptor(subject).digest if subject else None,
        manifest.artifact_type or manifest.config.media_type,
        manifest.config,
        manifest.layers,
        {key: value.as_str() for key, value in annotations.members()} if annotations else {},
    )


def require_hint_of_bundle(referrer: Referrer) -> None:
    """Return only for an entry that may be a bundle with a signature (bundles.md 1.4). Raises NotABundleError."""
    if referrer.descriptor.media_type != mediatype.OCI_MANIFEST or referrer.artifact_type not in _MAY_BE_BUNDLE:
        raise NotABundleError(OTHER_TYPE)
    _require_signing(referrer.descriptor.annotations)


def parse_carrier(data: bytes, subject: Digest, where: str) -> ReferrerManifest:
    """The manifest `data`, whose one layer is a bundle for `subject`. Raises NotABundleError."""
    try:
        manifest = parse_referrer_manifest(data, where)
    except CipError as error:  # whoever may push can list such a thing: it is not a fault of the image
        raise NotABundleError(OTHER_TYPE) from error
    if manifest.subject != subject:
        raise NotABundleError(FOREIGN)
    if len(manifest.layers) != 1 or manifest.layers[0].media_type not in BUNDLE_TYPES:
        raise NotABundleError(OTHER_TYPE)
    _require_signing(manifest.annotations)
    return manifest


def carries_it_alone(manifest: ReferrerManifest) -> bool:
    """Whether the manifest of a bundle has nothing else that a reader may take for signed: a type, a config."""
    return manifest.kind in BUNDLE_TYPES | UNTYPED and manifest.config.size <= len("{}")


def _require_signing(annotations: Mapping[str, str]) -> None:
    predicate = annotations.get(PREDICATE_KEY, SIGNING_PREDICATE)
    if predicate != SIGNING_PREDICATE or annotations.get(CONTENT_KEY) == "message-signature":
        raise NotABundleError(ATTESTATION, predicate if predicate != SIGNING_PREDICATE else "")

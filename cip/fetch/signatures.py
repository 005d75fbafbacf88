# SPDX-License-Identifier: Apache-2.0
"""What proves an image, kept beside it so that a run without a network can judge it.

Three entries of the layout's index for each manifest that may be judged: `sha256-HEX.sig`, what cosign attaches, with
the registry's very bytes; `sha256-HEX`, the list of referrers; and `sha256-HEX.signatures`, an artefact of our own with
what comes from elsewhere, such as a lookaside (see `sources.keptsignatures`).
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from contextlib import closing

from .. import log
from ..content import read_blob, require_content
from ..errors import (
    CipError,
    ErrorCode,
    InvalidDocumentError,
    MissingDependencyError,
    NotFoundError,
    Phase,
    SignatureError,
    failing,
    quote,
)
from ..image import Image
from ..model import mediatype
from ..model.descriptor import REF_NAME, Descriptor, Digest, digest_of
from ..model.jsontree import fold_key, parse_json
from ..model.manifest import Manifest, parse_manifest
from ..model.reference import Transport, parse_image_reference
from ..model.referrers import NotABundleError, fallback_tag, parse_carrier, parse_referrers
from ..model.signature import SIGNATURE_LIMIT, SIGSTORE_MIME_TYPE, SimpleSignature, encode_signature_blob
from ..sources.base import BlobAccess, ImageSource, RawManifest
from ..sources.keptsignatures import ARTIFACT_TYPE, SIGNATURE_TYPE, attached_name, kept_name
from ..sources.referring import ReferrerList
from ..transports import SourceOpener
from .layoutwriter import LayoutWriter

ATTACHED_LIMIT = 128  # layers of a manifest of signatures
REFERRERS_LIMIT = 128  # of one manifest
_EMPTY = b"{}"
_OF_MANIFESTS = frozenset({fold_key(key) for key in ("schemaVersion", "layers", "fsLayers", "manifests")})
Entry = Mapping[str, object]


def keep_signatures(
    writer: LayoutWriter,
    sources: SourceOpener,
    image: Image,
    judged: Sequence[Digest],
    unjudged: Container[Digest],
    *,
    offline: bool,
) -> tuple[list[Entry], int]:
    """Entries for the index and the number of signatures of the manifests `judged`, the top one last.

    What has a digest of the `unjudged` instances of the index is not kept, whatever it is said to be.
    Raises CipError when a list cannot be had whole: a layout without a signature is refused when nothing can be done.
    """
    kept = _Kept(writer, sources, image, unjudged, offline)
    for digest in judged:
        with failing(Phase.SIGNATURE):
            kept.keep(digest)
    return kept.entries, kept.count


class _Kept:
    """Signatures of one image on their way into a layout."""

    def __init__(
        self, writer: LayoutWriter, sources: SourceOpener, image: Image, unjudged: Container[Digest], offline: bool
    ) -> None:
        self.entries: list[Entry] = []
        self.count = 0
        self._writer = writer
        self._sources = sources
        self._image = image
        self._unjudged = unjudged
        self._offline = offline
        self._reference = parse_image_reference(image.reference)

    def keep(self, digest: Digest) -> None:
        """All that is said about the manifest `digest`."""
        attached: set[Digest] = set()
        if self._reference.transport is Transport.DOCKER:
            attached = self._keep_attached(attached_name(digest))
        self._keep_referrers(digest)
        self._keep_others(digest, attached)

    def _keep_attached(self, tag: str) -> set[Digest]:
        """The manifest that sigstore tags with the digest, and its layers; the sha256 of each of these."""
        named = self._reference.docker
        assert named is not None  # the parser of docker:// sets it
        with closing(self._sources.open(parse_image_reference(f"docker://{named.name}:{tag}"))) as source:
            raw = self._manifest(source)
            if raw is None:
                return set()
            where = f"{self._image.reference}: attached signatures {tag}"
            manifest = parse_manifest(raw.data, raw.media_type, where)
            if not isinstance(manifest, Manifest) or len(manifest.layers) > ATTACHED_LIMIT:
                raise SignatureError(f"{where}: expected a manifest of at most {ATTACHED_LIMIT} layers", reason="fetch")
            if any(layer.media_type != SIGSTORE_MIME_TYPE for layer in manifest.layers):
                log.warning("%s: expected layers of type %s alone, so nothing of it is kept", where, SIGSTORE_MIME_TYPE)
                return set()
            try:
                self._blob(source, manifest.config)
                found = {digest_of(self._blob(source, layer)) for layer in manifest.layers}
                self._document(raw.data, manifest.media_type, tag)
            except InvalidDocumentError as error:
                log.warning("%s, so %s is not kept", error, tag)
                return set()
        self.count += len(manifest.layers)
        return found

    def _keep_referrers(self, digest: Digest) -> None:
        """The list of the bundles that refer to the manifest, with their manifests and content.

        Others prove nothing, and as manifests with a config and layers of any type they could be images.
        """
        source = self._image.source.referrer_source()
        if source is None:
            return
        listed = source.referrers(digest)
        where = f"{self._image.reference}: referrers of {digest}"
        if len(listed.entries) > REFERRERS_LIMIT:
            raise SignatureError(f"{where}: expected at most {REFERRERS_LIMIT}, found more", reason="fetch")
        listing = b""
        for entry in dict.fromkeys(each.descriptor.digest for each in listed.entries):
            first = next(each for each in listed.entries if each.descriptor.digest == entry)
            if self._keep_referrer(listed, first.descriptor, digest, where):
                listing += (b"," if listing else b"") + _json(json.loads(first.text))
        if listing:
            data = b'{"schemaVersion":2,"mediaType":"%s","manifests":[%s]}' % (mediatype.OCI_INDEX.encode(), listing)
            parse_referrers(data, where)  # what its readers would refuse is not written
            self._document(data, mediatype.OCI_INDEX, fallback_tag(digest))

    def _keep_referrer(self, listed: ReferrerList, descriptor: Descriptor, subject: Digest, where: str) -> bool:
        """Whether it is there, and a bundle."""
        try:
            data = listed.manifest(descriptor)
        except NotFoundError:
            log.warning("%s: %s is listed, but not there", where, descriptor.digest)
            return False
        require_content(data, descriptor.digest, where)
        try:
            (layer,) = parse_carrier(data, subject, where).layers
            bundle = listed.document(layer, SIGNATURE_LIMIT, where)
            _require_no_manifest(bundle, f"{where}: {layer.digest}")
            self._write(bundle, layer.digest)
            self._write(data, descriptor.digest)
        except NotABundleError:
            return False
        except InvalidDocumentError as error:
            log.warning("%s, so %s is not kept", error, descriptor.digest)
            return False
        self.count += 1
        return True

    def _keep_others(self, digest: Digest, attached: set[Digest]) -> None:
        """What the source has of signatures besides those that are attached, as an artefact of ours."""
        accepted = self._image.accepted
        instance = digest if accepted.index_digest not in (None, digest) else None
        try:
            found = self._image.source.signatures(digest, instance)
        except MissingDependencyError as error:
            log.warning("%s: signatures were not looked for: %s", self._image.reference, error)
            return
        except NotFoundError:
            return
        layers = [
            self._small(encode_signature_blob(each), SIGNATURE_TYPE)
            for each in found
            if isinstance(each, SimpleSignature) or digest_of(each.payload) not in attached
        ]
        if not layers:
            return
        self.count += len(layers)
        document = {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "artifactType": ARTIFACT_TYPE,
            "config": self._small(_EMPTY, mediatype.OCI_EMPTY),
            "layers": layers,
            "annotations": {"org.opencontainers.image.base.digest": str(digest)},
        }
        self._document(_json(document), mediatype.OCI_MANIFEST, kept_name(digest))

    def _document(self, data: bytes, media_type: str, name: str) -> None:
        self.entries.append({**self._small(data, media_type), "annotations": {REF_NAME: name}})

    def _small(self, data: bytes, media_type: str) -> dict[str, object]:
        """Write a small blob; its descriptor."""
        self._write(data, digest_of(data))
        return descriptor_of(media_type, data)

    def _blob(self, source: ImageSource, descriptor: Descriptor) -> bytes:
        what = f"{self._image.reference}: signature {descriptor.digest}"
        with closing(source.open_blob(descriptor, BlobAccess.VERIFIED)) as reader:
            data = read_blob(reader, descriptor, SIGNATURE_LIMIT, what)
        _require_no_manifest(data, what)
        self._write(data, descriptor.digest)
        return data

    def _write(self, data: bytes, digest: Digest) -> None:
        if digest in self._unjudged:
            where = f"{self._image.reference}: signature {digest}"
            raise InvalidDocumentError(where, "found an instance of the index, which was not judged")
        self._writer.write(data, digest)

    def _manifest(self, source: ImageSource) -> RawManifest | None:
        """The manifest of a tag that may not be there."""
        try:
            return source.manifest(None)
        except NotFoundError:
            return None
        except CipError as error:
            if self._offline and error.code is ErrorCode.OFFLINE:
                return None
            raise


def _require_no_manifest(data: bytes, where: str) -> None:
    """Raise InvalidDocumentError for what is no JSON object, or has members of a manifest.

    Nobody judges what a registry keeps beside an image. A manifest among it, with a config and layers, would be an
    image that the policy never saw; and the index that is fetched, which is accepted for one instance, may name it.
    """
    for key, _ in parse_json(data, where).members():
        if fold_key(key) in _OF_MANIFESTS:
            raise InvalidDocumentError(where, f"expected a signature, found the member {quote(key)} of a manifest")


def descriptor_of(media_type: str, data: bytes) -> dict[str, object]:
    """The members of a descriptor of `data`, by its sha256."""
    return {"mediaType": media_type, "digest": str(digest_of(data)), "size": len(data)}


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()

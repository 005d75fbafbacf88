# SPDX-License-Identifier: Apache-2.0
"""What refers to an image, for the policy (bundles) and for the parent (everything that is listed).

The policy sees a bundle only if the list, its manifest and its blob agree about sizes and digests, and if the manifest
itself names the image as its subject (bundles.md 1.4). The parent sees one merged list, and can fetch what it lists:
verified against its digest, and marked as not signed unless the policy accepted it as this image's signature.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .content import BlobAccess, BlobReader, require_content
from .errors import (
    ContentMismatchError,
    ErrorCode,
    InvalidDocumentError,
    NotFoundError,
    SignatureError,
    UnsupportedError,
)
from .model import mediatype
from .model.descriptor import Descriptor, Digest
from .model.jsontree import replace_surrogates
from .model.referrers import (
    ATTESTATION,
    BUNDLE_TYPES,
    DANGLING,
    ENTRY_LIMIT,
    LIST_LIMIT,
    SUBJECT_KEY,
    UNTYPED,
    VERIFIED_KEY,
    NotABundleError,
    Referrer,
    ReferrerManifest,
    carries_it_alone,
    parse_carrier,
    parse_referrer_manifest,
    require_hint_of_bundle,
    too_many,
)
from .model.signature import SIGNATURE_LIMIT, FoundBundles, SignatureAllowance, SigstoreBundle
from .sources.referring import ReferrerList, ReferrerSource

CANDIDATE_LIMIT = 128  # listed manifests that are fetched to look what they are
_SHOWN_TYPE = re.compile(r"[!-~]{1,255}", re.ASCII)
REACHABLE_LIMIT = 65_536  # configs and layers of referrers that the parent has fetched


# --- for the policy ---


def find_bundles(listed: ReferrerList, digest: Digest) -> FoundBundles:
    """The bundles in the list of the manifest `digest`, unread. Raises CipError where that cannot be known."""
    done: set[Digest] = set()
    bundles: list[SigstoreBundle] = []
    passed: dict[str, int] = {}
    predicates: list[str] = []
    allowance = SignatureAllowance()
    left = CANDIDATE_LIMIT
    for entry in listed.entries:
        if entry.descriptor.digest in done:
            continue
        done.add(entry.descriptor.digest)
        try:
            require_hint_of_bundle(entry)
            if not left:
                why = f"expected at most {CANDIDATE_LIMIT} that may be signatures, found more"
                raise InvalidDocumentError(f"referrers of {digest}", why, code=ErrorCode.LIMIT_EXCEEDED)
            left -= 1
            bundles.append(_fetch_bundle(listed, entry.descriptor, digest, allowance))
        except NotABundleError as other:
            if other.group == ATTESTATION:
                predicates.append(other.predicate)
            else:
                passed[other.group] = passed.get(other.group, 0) + 1
    return FoundBundles(tuple(bundles), tuple(predicates), tuple(f"{count} {group}" for group, count in passed.items()))


def _fetch_bundle(
    listed: ReferrerList, referrer: Descriptor, digest: Digest, allowance: SignatureAllowance
) -> SigstoreBundle:
    where = f"{listed.place}: referrer {referrer.digest}"
    try:
        manifest = parse_carrier(_manifest(listed, referrer, where), digest, where)
    except NotFoundError as error:  # a list that clients maintain goes stale
        raise NotABundleError(DANGLING) from error
    (layer,) = manifest.layers
    origin = f"{listed.place} (referrer {referrer.digest}, {listed.found_by})"
    data, fault = b"", ""
    try:
        allowance.take(layer.size, origin)
    except SignatureError as error:
        fault = str(error)
    else:
        try:
            data = listed.document(layer, SIGNATURE_LIMIT, origin)
        except NotFoundError:
            fault = "the bundle is missing"
    carrier = str(referrer.digest) if carries_it_alone(manifest) else ""
    return SigstoreBundle(data, origin, str(layer.digest), carrier, fault)


def _manifest(listed: ReferrerList, referrer: Descriptor, where: str) -> bytes:
    """The manifest of a referrer, as large as listed and of its digest."""
    data = listed.manifest(referrer)
    if len(data) != referrer.size:
        why = f"{where}: expected {referrer.size} bytes as listed, found {len(data)}"
        raise ContentMismatchError(why, digest=str(referrer.digest))
    require_content(data, referrer.digest, where)
    return data


# --- for the parent ---


class ServedReferrer(NamedTuple):
    """The manifest of a referrer as received; `verified` is what the list says of it."""

    data: bytes
    media_type: str
    verified: str


_COST = 2000  # bytes of memory for an entry or a blob, beside its texts


class _Entry(NamedTuple):
    """One entry of the merged list, where it was listed, and about which manifest."""

    referrer: Referrer
    listed: ReferrerList
    subject: Digest


class ImageReferrers:
    """What refers to one accepted image, asked for once; safe from several threads."""

    def __init__(
        self, reference: str, source: ReferrerSource | None, subjects: Sequence[Digest], signatures: frozenset[str]
    ) -> None:
        """`subjects` are the image's manifests, the top one first; `signatures` the referrers that the policy took."""
        self._reference = reference
        self._source = source
        self._subjects = tuple(subjects)
        self._signatures = signatures
        self._lock = threading.Lock()
        self._entries: Mapping[Digest, _Entry] | None = None
        self._listed = 0  # bytes of memory
        self._kinds: dict[Digest, str] = {}  # of manifests that were looked at
        self._blobs: dict[Digest, tuple[Descriptor, ReferrerList]] = {}

    def index(self, artifact_type: str | None = None) -> tuple[bytes, int]:
        """The merged list as an OCI index, and how many entries it has.

        Raises SourceError, InvalidDocumentError (limit-exceeded): it is never cut short.
        """
        entries = [(entry, self._stated_kind(entry)) for entry in self._all().values()]
        if artifact_type is not None:
            entries = [(entry, kind) for entry, kind in self._typed(entries) if kind == artifact_type]
        data = bytearray(b'{"schemaVersion":2,"mediaType":"%s","manifests":[' % mediatype.OCI_INDEX.encode())
        for number, (entry, kind) in enumerate(entries):
            described = json.dumps(self._describe(entry, kind), ensure_ascii=False, separators=(",", ":"))
            data += b"," * (number > 0) + replace_surrogates(described).encode()
            if len(data) + 2 > LIST_LIMIT:
                why = f"the merged list is larger than {LIST_LIMIT} bytes"
                raise InvalidDocumentError(f"{self._reference}: referrers", why, code=ErrorCode.LIMIT_EXCEEDED)
        return bytes(data + b"]}"), len(entries)

    def manifest(self, digest: Digest) -> ServedReferrer:
        """The listed manifest `digest`; its config and layers can be fetched from now on.

        Raises NotFoundError (blob-not-in-image), ContentMismatchError where its subject is not this image, SourceError.
        """
        entry = self._all().get(digest)
        if entry is None:
            message = f"{self._reference}: {digest} is not listed as a referrer of the image"
            raise NotFoundError(message, code=ErrorCode.BLOB_NOT_IN_IMAGE, digest=str(digest))
        data, parsed = _fetch_manifest(entry)
        blobs = (parsed.config, *parsed.layers) if parsed is not None else ()
        with self._lock:
            if len(self._blobs) + len(blobs) > REACHABLE_LIMIT:
                why = f"expected at most {REACHABLE_LIMIT} blobs of the manifests that were fetched, found more"
                raise InvalidDocumentError(f"{self._reference}: referrers", why, code=ErrorCode.LIMIT_EXCEEDED)
            for blob in blobs:
                self._blobs.setdefault(blob.digest, (blob, entry.listed))
        kind = entry.referrer.descriptor.media_type
        if not _SHOWN_TYPE.fullmatch(kind):  # it goes into a header, and a registry may list anything
            kind = "application/octet-stream"
        return ServedReferrer(data, kind, self._mark(entry))

    @property
    def kept(self) -> int:
        """Bytes of memory that this takes, about."""
        return self._listed + _COST * len(self._blobs)

    def find_blob(self, digest: Digest) -> Descriptor | None:
        """A config or layer of a manifest that was served; asks nobody."""
        found = self._blobs.get(digest)
        return found[0] if found is not None else None

    def open_blob(self, descriptor: Descriptor, access: BlobAccess) -> BlobReader:
        """What `find_blob` found, open for reading and not yet checked."""
        return self._blobs[descriptor.digest][1].open_blob(descriptor, access)

    def _all(self) -> Mapping[Digest, _Entry]:
        with self._lock:
            if self._entries is None:
                found: dict[Digest, _Entry] = {}
                for subject in self._subjects if self._source is not None else ():
                    assert self._source is not None
                    listed = self._source.referrers(subject)
                    for referrer in listed.entries:
                        found.setdefault(referrer.descriptor.digest, _Entry(referrer, listed, subject))
                if len(found) > ENTRY_LIMIT:
                    raise too_many(f"{self._reference}: referrers")
                self._listed = sum(_COST + len(each.referrer.text) for each in found.values())
                self._entries = found
            return self._entries

    def _typed(self, entries: Sequence[tuple[_Entry, str]]) -> Sequence[tuple[_Entry, str]]:
        """The entries with the types that their manifests have where the list says none (distribution-spec)."""
        untyped = {
            entry.referrer.descriptor.digest
            for entry, kind in entries
            if kind in UNTYPED and entry.referrer.descriptor.media_type == mediatype.OCI_MANIFEST
        }
        if len(untyped) > CANDIDATE_LIMIT:
            why = f"expected at most {CANDIDATE_LIMIT} without a type, found {len(untyped)}: ask without artifactType"
            raise InvalidDocumentError(f"{self._reference}: referrers", why, code=ErrorCode.LIMIT_EXCEEDED)
        return [
            (entry, self._kind(entry) if entry.referrer.descriptor.digest in untyped else kind)
            for entry, kind in entries
        ]

    def _stated_kind(self, entry: _Entry) -> str:
        """What the list says; of one that is marked it may say what it likes, so only its manifest counts."""
        stated = entry.referrer.artifact_type
        return stated if stated in BUNDLE_TYPES or self._mark(entry) == "no" else ""

    def _kind(self, entry: _Entry) -> str:
        """The type that the manifest of an entry has; empty where it is not there, or a stray."""
        digest = entry.referrer.descriptor.digest
        if digest not in self._kinds:
            try:
                _, parsed = _fetch_manifest(entry)
                self._kinds[digest] = parsed.kind if parsed is not None else ""
            except (NotFoundError, ContentMismatchError, InvalidDocumentError, UnsupportedError):
                self._kinds[digest] = ""
        return self._kinds[digest]

    def _describe(self, entry: _Entry, kind: str) -> dict[str, Any]:
        members: dict[str, Any] = json.loads(entry.referrer.text)
        if self._mark(entry) != "no":  # whoever reads the mark takes for signed what stands beside it
            members = {key: members[key] for key in ("mediaType", "digest", "size")}
            members["annotations"] = dict(entry.referrer.descriptor.annotations)
        annotations = members.get("annotations") or {}
        annotations[SUBJECT_KEY] = str(entry.subject)
        annotations[VERIFIED_KEY] = self._mark(entry)
        members["annotations"] = annotations
        if kind:
            members["artifactType"] = kind
        return members

    def _mark(self, entry: _Entry) -> str:
        return "signature" if str(entry.referrer.descriptor.digest) in self._signatures else "no"


def _fetch_manifest(entry: _Entry) -> tuple[bytes, ReferrerManifest | None]:
    """The manifest of an entry, which must be about this image; what is no OCI manifest is not read further."""
    descriptor = entry.referrer.descriptor
    where = f"{entry.listed.place}: referrer {descriptor.digest}"
    try:
        data = _manifest(entry.listed, descriptor, where)
    except NotFoundError as error:
        error.code = ErrorCode.BLOB_NOT_FOUND
        raise
    if descriptor.media_type != mediatype.OCI_MANIFEST:
        return data, None
    parsed = parse_referrer_manifest(data, where)
    if parsed.subject != entry.subject:
        why = f"{where}: expected the subject {entry.subject}, found {parsed.subject or 'none'}"
        raise ContentMismatchError(why, digest=str(descriptor.digest))
    return data, parsed

# SPDX-License-Identifier: Apache-2.0
"""`fetch IMAGE oci:DIR[:TAG]`: the accepted image, its index and its signatures into a layout.

The bytes are the source's own: nothing is converted, so every digest stays. The entries of the layout's index come
last; whatever a run leaves when it ends before, the next one verifies and goes on from. A document is written as soon
as it is known to be right: how many there are is for a stranger to say, so they are never in memory together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from ..content import require_content
from ..errors import CipError, ErrorCode, InvalidDocumentError, UnsupportedError, UsageError, quote
from ..image import Image
from ..model import mediatype
from ..model.descriptor import REF_NAME, Descriptor, Digest, digest_of
from ..model.manifest import Index, parse_manifest
from ..model.reference import Transport, parse_image_reference
from ..opening import INDEX_DEPTH, ImageOpener
from ..settings import Settings
from ..sources.base import RawManifest
from ..sources.files import resolve_path
from .copies import copy_blobs
from .layoutwriter import LayoutWriter
from .progress import Progress
from .signatures import descriptor_of, keep_signatures

if TYPE_CHECKING:
    from ..confine.confinement import Confinement

MANIFESTS_LIMIT = 10_000  # in an index and those inside it


class Destination(NamedTuple):
    """Where an image goes: a directory as an absolute path, and the name there, None for no name."""

    path: str
    tag: str | None


def parse_destination(text: str, image: str) -> Destination:
    """`oci:DIR[:TAG]`; without a tag that of the `image`, if it has one. Raises UsageError, InvalidReferenceError."""
    reference = parse_image_reference(text)
    if reference.transport is not Transport.OCI or reference.index is not None:
        raise UsageError(f"fetch: expected oci:DIR[:TAG] as the second argument, found {quote(text)}")
    docker = parse_image_reference(image).docker
    return Destination(resolve_path(reference), reference.name or (docker.tag if docker is not None else None))


def fetch(
    reference: str,
    destination: str,
    build: Callable[[], tuple[ImageOpener, Confinement | None]],
    settings: Settings,
    *,
    every_platform: bool,
    terminal: int | None,
) -> str:
    """Fetch the image `reference` into `destination`; one line that says what was done.

    `build` gives what opens images, and what confines the process once the image is accepted and the layout is open. A
    bar is drawn on `terminal`, if there is one, from then on. Raises UsageError, CipError.
    """
    place = parse_destination(destination, reference)
    opener, confinement = build()
    if confinement is not None:
        confinement.writable.append(place.path)

    def confine() -> None:
        if confinement is not None:
            confinement.require()
            confinement.apply()
        progress.start()  # behind it, because a thread of before stays outside

    progress = Progress(terminal)
    try:
        return _Fetch(opener, settings, progress, confine).run(reference, place, every_platform)
    finally:
        progress.close()


class _Fetch:
    """One run."""

    def __init__(
        self, opener: ImageOpener, settings: Settings, progress: Progress, confine: Callable[[], object]
    ) -> None:
        self._opener = opener
        self._settings = settings
        self._progress = progress
        self._confine = confine

    def run(self, reference: str, destination: Destination, every_platform: bool) -> str:
        began = time.monotonic()
        with closing(self._opener.open(reference)) as image:
            times, slowest = self._settings.times, self._settings.transfer.min_rate
            growth = int(slowest * times.idle)
            layout = LayoutWriter(destination.path, times.idle, growth=growth, longest=times.deadline)
            with closing(layout) as writer:
                self._confine()
                signatures = self._copy(image, writer, destination, every_platform)
        name = f"oci:{destination.path}" + (f":{destination.tag}" if destination.tag else "")
        top = image.accepted.index_digest or image.accepted.digest
        sums = self._progress.summary(time.monotonic() - began)
        return f"{name}: {top}, {sums}, {signatures} signature{'' if signatures == 1 else 's'}"

    def _copy(self, image: Image, writer: LayoutWriter, destination: Destination, every_platform: bool) -> int:
        accepted = image.accepted
        chosen = accepted.entry or accepted.digest
        top = image.source.manifest(None)
        others: dict[Digest, None] = {}
        if accepted.index_digest is not None:
            require_content(top.data, accepted.index_digest, f"{image.reference}: index")
            others = dict.fromkeys(self._walk(image, top, writer))
        copy_blobs(self._blobs(image), image, writer, self._opener.events, self._progress)
        writer.write(accepted.data, chosen)
        judged = [accepted.digest]
        if every_platform:
            judged += [self._copy_instance(image, digest, writer) for digest in others if digest != chosen]
        if accepted.index_digest is not None:
            judged.append(accepted.index_digest)
            writer.write(top.data, accepted.index_digest)
        unjudged = () if every_platform else others.keys() - {chosen}
        entries, count = keep_signatures(
            writer, self._opener.sources, image, judged, unjudged, offline=self._settings.offline
        )
        parsed = parse_manifest(top.data, top.media_type, f"{image.reference}: manifest")
        entry = descriptor_of(parsed.media_type, top.data)
        if destination.tag is not None:
            entry["annotations"] = {REF_NAME: destination.tag}
        writer.add_entries([entry, *entries])
        return count

    def _copy_instance(self, image: Image, digest: Digest, writer: LayoutWriter) -> Digest:
        """Another instance of the index of `image`, judged by itself if its index was not accepted; its sha256."""
        with closing(self._opener.open(image.reference, digest)) as other:
            if other.accepted.index_digest != image.accepted.index_digest:
                why = f"{image.reference}: changed while it was fetched: run it again"
                raise CipError(why, code=ErrorCode.REGISTRY_ERROR)
            copy_blobs(self._blobs(other), other, writer, self._opener.events, self._progress)
            writer.write(other.accepted.data, digest)
            return other.accepted.digest

    def _blobs(self, image: Image) -> Sequence[Descriptor]:
        manifest = image.accepted.manifest
        if tuple(image.layers()) != manifest.layers:
            why = f"{image.reference}: this place has the layers in another form than the image names them"
            raise UnsupportedError(why)
        blobs = tuple({each.digest: each for each in (manifest.config, *manifest.layers)}.values())
        self._progress.expect(sum(each.size for each in blobs))
        return blobs

    def _walk(self, image: Image, top: RawManifest, writer: LayoutWriter) -> Iterator[Digest]:
        """The digests of the instances of an index; each index inside it is written, and none but one is in memory."""
        seen = 0
        found: set[Digest] = set()
        pending = [(Descriptor(top.media_type, digest_of(top.data), len(top.data)), 1)]
        while pending:
            inside, depth = pending.pop()
            raw = top if depth == 1 else image.source.manifest(inside.digest)
            where = f"{image.reference}: index {inside.digest}"
            require_content(raw.data, inside.digest, where)
            parsed = parse_manifest(raw.data, raw.media_type or inside.media_type, where)
            if not isinstance(parsed, Index):  # an instance that nobody judged
                raise InvalidDocumentError(where, "expected an index, as the one above it says, found a manifest")
            if depth > 1:
                writer.write(raw.data, inside.digest)
            for entry in parsed.entries:
                seen += 1
                if seen > MANIFESTS_LIMIT or depth > INDEX_DEPTH:
                    why = f"{image.reference}: more than {MANIFESTS_LIMIT} manifests or {INDEX_DEPTH} levels of indexes"
                    raise UnsupportedError(why, code=ErrorCode.LIMIT_EXCEEDED)
                if entry.descriptor.media_type not in mediatype.INDEXES:
                    yield entry.descriptor.digest
                elif entry.descriptor.digest not in found:
                    found.add(entry.descriptor.digest)
                    pending.append((Descriptor(entry.descriptor.media_type, entry.descriptor.digest, 0), depth + 1))

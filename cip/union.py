# SPDX-License-Identifier: Apache-2.0
"""Local sources in front of a registry: a `docker://` image whose blobs need not travel (decisions.md sections 1, 2).

A blob that a local source has under its digest is hashed before it is used: one that turned out wrong half-way could
not be replaced any more. Manifest and signatures come from the registry, with `--offline` from the local sources
alone; the name that policy looks at is always that of the registry reference.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING

from . import content, log, rooms
from .content import MANIFEST_LIMIT, BlobReader, Release, copy_verified, read_limited, require_content, undo_on_error
from .errors import (
    CipError,
    ContentMismatchError,
    ErrorCode,
    NetworkError,
    NotFoundError,
    Phase,
    SourceError,
    UsageError,
)
from .events import Events
from .model.descriptor import Descriptor, Digest, digest_of
from .model.reference import (
    DockerReference,
    ImageIdentity,
    ImageReference,
    Transport,
    docker_identity,
    parse_image_reference,
    path_identity,
)
from .settings import PlatformOptions, Settings
from .sources.archives.archive import ArchivedLayout, open_archived_layout
from .sources.archives.spool import Spools
from .sources.base import BlobAccess, ImageSource, RawManifest, read_over
from .sources.directory import DirectorySource, open_directory
from .sources.files import FileBlob, resolve_path
from .sources.layout import LayoutDirectory, LayoutFiles, LayoutSource

if TYPE_CHECKING:
    from .model.signature import RawSignature
    from .sources.referring import ReferrerSource

_LOCAL = (Transport.OCI, Transport.OCI_ARCHIVE, Transport.DIR)
OpenRegistry = Callable[[ImageReference], ImageSource]


class LayoutPlace:
    """A `--local-source` that is a layout, in a directory or in an archive; owns `files`.

    A manifest that is found by its digest is not checked. Raises SourceError, InvalidDocumentError,
    ContentMismatchError, SignatureError for signatures, NotFoundError for a blob.
    """

    def __init__(
        self, reference: ImageReference, identity: ImageIdentity, files: LayoutFiles, platform: PlatformOptions
    ) -> None:
        self.text = reference.text
        self._reference = reference
        self._identity = identity
        self._files = files
        self.kept = files.kept if isinstance(files, ArchivedLayout) else 0
        self._platform = platform
        self._referrers: ReferrerSource | None = None

    def open_blob(self, digest: Digest) -> FileBlob:
        return self._files.open_blob(digest)

    def find_manifest(self, named: DockerReference) -> RawManifest | None:
        """By digest any blob; by tag the image of that name, unless the local reference names another one."""
        if named.digest is not None:
            return self._read(named.digest)
        tag = named.tag or ""
        reference = self._reference
        if reference.index is None:
            if reference.name not in ("", tag):
                return None
            reference = reference._replace(name=tag)
        try:
            source = LayoutSource(reference, self._identity, self._files, self._platform)
        except NotFoundError:
            return None
        return source.manifest(None) if source.name == tag else None

    def signatures(self, digest: Digest) -> Sequence[RawSignature]:
        return rooms.read_layout_signatures(self._files, digest, self.text)

    def referrer_source(self) -> ReferrerSource | None:
        if self._referrers is None:
            self._referrers = rooms.LayoutReferrers(self.text, self._files.read_index, self._files.open_blob)
        return self._referrers

    def close(self) -> None:
        self._files.close()

    def _read(self, digest: Digest) -> RawManifest | None:
        try:
            blob = self._files.open_blob(digest)
        except NotFoundError:
            return None
        with closing(blob):
            return RawManifest(read_limited(blob, MANIFEST_LIMIT, f"{self.text}: manifest {digest}"), "")


class DirectoryPlace:
    """The same for a `dir:` directory, which has no names; owns `source`."""

    def __init__(self, text: str, source: DirectorySource) -> None:
        self.text = text
        self.kept = source.kept
        self._source = source

    def open_blob(self, digest: Digest) -> FileBlob:
        return self._source.open_blob(Descriptor("", digest, 0), BlobAccess.VERIFIED)

    def find_manifest(self, named: DockerReference) -> RawManifest | None:
        """By digest only: the manifest, or one of its instances."""
        if named.digest is None:
            return None
        if self._is_top(named.digest):
            return self._source.manifest(None)
        try:
            return self._source.manifest(named.digest)
        except NotFoundError:
            return None

    def signatures(self, digest: Digest) -> Sequence[RawSignature]:
        return self._source.signatures(digest, None if self._is_top(digest) else digest)

    def referrer_source(self) -> None:
        return None

    def close(self) -> None:
        self._source.close()

    def _is_top(self, digest: Digest) -> bool:
        return digest_of(self._source.manifest(None).data) == digest


LocalPlace = LayoutPlace | DirectoryPlace


class UnionSource(ImageSource):
    """A registry image with local places in front; `registry` is None when the network may not be touched."""

    def __init__(
        self, reference: ImageReference, places: Sequence[LocalPlace], registry: ImageSource | None, events: Events
    ) -> None:
        """Owns `places` and `registry`."""
        named = reference.docker
        assert named is not None  # the parser of docker:// sets it
        # that of the registry reference, wherever the bytes come from
        self.identity = docker_identity(Transport.DOCKER, named)
        self._text = reference.text
        self._named = named
        self._places = tuple(places)
        self._registry = registry
        self._events = events
        self._top: RawManifest | None = None
        self._found: dict[Digest, LocalPlace] = {}

    def manifest(self, digest: Digest | None) -> RawManifest:
        """From the registry; offline from the first local place that has it. Raises NetworkError (offline)."""
        if self._registry is not None:
            found = self._registry.manifest(digest)
            self.kept = self._registry.kept + sum(each.kept for each in self._places)
            return found
        if digest is not None:
            return self._find(self._named._replace(tag=None, digest=digest))
        if self._top is None:
            self._top = self._find(self._named)
            self.kept = len(self._top.data) + sum(each.kept for each in self._places)
        return self._top

    def signatures(self, digest: Digest, instance: Digest | None) -> Sequence[RawSignature]:
        """From the registry; offline from the place that the manifest came from."""
        if self._registry is not None:
            return self._registry.signatures(digest, instance)
        return self._found[digest].signatures(digest)

    def signature_locations(self) -> Sequence[str]:
        """Those of the registry; offline the local places."""
        if self._registry is not None:
            return self._registry.signature_locations()
        return tuple(place.text for place in self._places)

    def referrer_source(self) -> ReferrerSource | None:
        """That of the registry; offline that of the place which the manifest came from."""
        if self._registry is not None:
            return self._registry.referrer_source()
        return next(iter(self._found.values())).referrer_source() if self._found else None

    def open_blob(self, descriptor: Descriptor, access: BlobAccess) -> BlobReader:
        """From the first local place that has it unharmed, else from the registry.

        Raises NetworkError (offline), ContentMismatchError when all that is left is damaged, what opening at the
        registry raises.
        """
        return self.open_rest(descriptor, access, 0)

    def open_rest(self, descriptor: Descriptor, access: BlobAccess, offset: int) -> BlobReader:
        """The same from the byte `offset` on."""
        damage: CipError | None = None
        for place in self._places:
            try:
                reader = place.open_blob(descriptor.digest)
            except NotFoundError:
                continue
            except CipError as error:
                log.warning("%s", error)
                continue
            try:
                with undo_on_error(reader.close):
                    copy_verified(reader, lambda part: content.require_time(), descriptor, release=Release.AS_READ)
                    reader.rewind()
            except CipError as error:
                content.require_time()  # where it is over, that was no damage
                damage = error
                self._report(descriptor.digest, place, error)
                continue
            log.debug("%s: blob %s comes from %s", self._text, descriptor.digest, place.text)
            found: BlobReader = reader
            if self._registry is not None and access is not BlobAccess.RAW:  # which never continues at another place
                found = LocalBlob(reader, partial(self._elsewhere, place, descriptor))
            read_over(found, offset, f"{place.text}: blob {descriptor.digest}")
            return found
        if (registry := self._registry) is not None:  # from the first byte on parts may be kept
            return registry.open_rest(descriptor, access, offset) if offset else registry.open_blob(descriptor, access)
        raise damage or self._offline(f"blob {descriptor.digest}", descriptor.digest)

    def close(self) -> None:
        """Release all places."""
        for place in self._places:
            place.close()
        if self._registry is not None:
            self._registry.close()

    def _find(self, named: DockerReference) -> RawManifest:
        damage: CipError | None = None
        for place in self._places:
            try:
                raw = place.find_manifest(named)
                if raw is not None and named.digest is not None:
                    require_content(raw.data, named.digest, f"{place.text}: manifest")
            except CipError as error:
                log.warning("%s", error)
                damage = error
                continue
            if raw is not None:
                self._found[digest_of(raw.data)] = place
                return raw
        what = f"manifest {named.digest}" if named.digest is not None else f"image named {named.tag!r}"
        raise damage or self._offline(what, named.digest)

    def _elsewhere(self, place: LocalPlace, descriptor: Descriptor, error: CipError) -> BlobReader:
        """Open the blob at the registry once the local one failed after all."""
        assert self._registry is not None
        self._report(descriptor.digest, place, error)
        return self._registry.open_blob(descriptor, BlobAccess.VERIFIED)

    def _report(self, digest: Digest, place: LocalPlace, error: CipError) -> None:
        """Tell that a local blob is damaged or cannot be read."""
        log.warning("%s: %s", place.text, error)
        to = "registry" if self._registry is not None else None
        members = {"from": place.text, "to": to, "offset": 0, "reason": error.code}
        self._events.emit("source", image=self._text, digest=str(digest), **members)

    def _offline(self, what: str, digest: Digest | None) -> NetworkError:
        asked = ", ".join(place.text for place in self._places) or "none could be opened"
        why = f"{self._text}: no {what} in the local sources ({asked}), and --offline forbids to ask the registry"
        phase, named = (None, str(digest)) if digest else (Phase.MANIFEST, None)
        return NetworkError(why, code=ErrorCode.OFFLINE, phase=phase, digest=named)


class LocalBlob:
    """A local blob that was found unharmed, and the registry's should it fail or change meanwhile."""

    def __init__(self, reader: FileBlob, elsewhere: Callable[[CipError], BlobReader]) -> None:
        self._local = reader
        self._reader: BlobReader = reader
        self._elsewhere = elsewhere
        self._mixed = False  # the first bytes were local ones
        self._mixture_is_wrong = False
        self._position = 0
        self._closed = threading.Event()
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes in the whole blob."""
        return self._reader.size

    def readinto(self, buffer: memoryview, /) -> int:
        """The next bytes; when the local place fails, such as a stick that is pulled out, those of the registry."""
        try:
            count = self._reader.readinto(buffer)
        except SourceError as error:
            if self._reader is not self._local or not self._switch(error):
                raise
            self._skip(buffer)
            count = self._reader.readinto(buffer)
        self._position += count
        return count

    def blame(self, error: ContentMismatchError) -> ContentMismatchError:
        """Who served the wrong bytes; of a mixture both, and no host, because nobody knows which of them lied."""
        error = self._reader.blame(error)
        if not self._mixed:
            return error
        self._mixture_is_wrong = True
        both = self._local.blame(error)
        both.attempts = error.attempts
        return both

    def restart(self, error: ContentMismatchError) -> bool:
        """Begin again at the registry, then wherever that goes on."""
        self._position = 0
        if self._reader is self._local or self._mixture_is_wrong:  # a registry that was right must not be excluded
            self._mixture_is_wrong = False
            return self._switch(error)
        self._mixed = False
        return self._reader.restart(error)

    def close(self) -> None:
        """Release the blob."""
        with self._lock:
            self._closed.set()
            self._reader.close()

    def _switch(self, error: CipError) -> bool:
        """Go on with the registry's blob, from its beginning; False when nobody wants it any more."""
        if self._closed.is_set():
            return False
        reader = self._elsewhere(error)
        self._mixed = self._position > 0
        with self._lock:
            self._reader.close()
            self._reader = reader
            if self._closed.is_set():
                reader.close()
        return True

    def _skip(self, buffer: memoryview) -> None:
        """Read what was delivered already once more, and throw it away."""
        left = self._position
        while left and (count := self._reader.readinto(buffer[:left])):
            left -= count


def open_with_local_sources(
    reference: ImageReference, settings: Settings, open_registry: OpenRegistry, events: Events, spools: Spools
) -> ImageSource:
    """The `docker://` image `reference` with the `--local-source` places of `settings` in front of the registry.

    A place that cannot be opened is told and left out: a stick that is not plugged in stops nothing. With `--offline`
    `open_registry` is never called. Raises UsageError for a transport that is no local place, InvalidReferenceError,
    and what `open_registry` raises.
    """
    wanted = [_parse_local(text) for text in settings.local_sources]
    places: list[LocalPlace] = []
    with ExitStack() as opened:
        for local in wanted:
            try:
                place = _open_place(local, settings, spools)
            except CipError as error:
                log.warning("--local-source: %s", error)
                continue
            opened.callback(place.close)
            places.append(place)
        registry = None if settings.offline else open_registry(reference)
        source = UnionSource(reference, places, registry, events)
        opened.pop_all()
        return source


def _parse_local(text: str) -> ImageReference:
    reference = parse_image_reference(text)
    if reference.transport not in _LOCAL:
        raise UsageError(f"--local-source: expected one of {', '.join(_LOCAL)}, found {reference.transport}")
    return reference


def _open_place(reference: ImageReference, settings: Settings, spools: Spools) -> LocalPlace:
    if reference.transport is Transport.DIR:
        return DirectoryPlace(reference.text, open_directory(reference))
    resolved = resolve_path(reference)
    identity = path_identity(reference.transport, resolved)
    if reference.transport is Transport.OCI_ARCHIVE:
        files: LayoutFiles = open_archived_layout(reference, resolved, spools)
    else:
        files = LayoutDirectory(reference.text, resolved, settings.shared_blob_dir)
    return LayoutPlace(reference, identity, files, settings.platform)

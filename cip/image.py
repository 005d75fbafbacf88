# SPDX-License-Identifier: Apache-2.0
"""An accepted image, from which both front ends serve.

It exists once the policy accepts its manifest (`opening`): the bytes that were accepted are the bytes that are served,
and nothing is fetched twice. Its config is read once, and held against the platform asked for.
"""

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from . import log, rooms
from .content import MANIFEST_LIMIT, BlobReader, BytesReader, TimedReader, read_blob, start_timer, timed
from .errors import (
    CipError,
    ErrorCode,
    InvalidDocumentError,
    NotFoundError,
    Phase,
    UnsupportedError,
    failing,
    quote,
    redacted,
)
from .events import Events
from .model import mediatype
from .model.descriptor import Descriptor, Digest, Platform
from .model.jsontree import parse_json
from .model.manifest import Manifest
from .sources.base import BlobAccess, ImageSource

if TYPE_CHECKING:
    from .model.convert import Converted
    from .readahead.schedule import ReadAhead
    from .referrers import ImageReferrers


WantedPlatforms = Callable[[], Sequence[Platform]]


class Image:
    """One accepted image. Safe to use from several threads; `close` leaves open readers alone.

    Whoever opens it may set `prepare_blobs`, to be called before each blob is opened, which may need further threads;
    `blob_seconds`, which a blob takes at most from its opening on, wherever it is (0: no limit); `ahead`, the bytes of
    the next layer that are requested before it is asked for (0: none) and how many connections its source has; and
    `wants_all`, so that the parent need not ask for two in a row before.
    """

    def __init__(
        self, reference: str, source: ImageSource, accepted: "AcceptedManifest", events: Events, wanted: WantedPlatforms
    ) -> None:
        """`wanted` are the platforms asked for, most wanted first; none for an image that is named by its digest."""
        self.reference = reference
        self.source = source  # for what copies an image as it is; nothing read from it is checked
        self.accepted = accepted
        self._events = events
        self._wanted = wanted
        self._listed: ImageReferrers | None = None  # what refers to the image, once the parent has asked
        self._early: ReadAhead | None = None
        self.prepare_blobs: Callable[[], object] = tuple
        self.blob_seconds = 0.0
        self.ahead = (0, 0)
        self.wants_all = False
        self._in_oci_form: Converted | None = None  # of a Docker manifest, once it was asked for
        self._lock = threading.Lock()
        manifest = accepted.manifest
        self._config: bytes | None = None  # as stored, once it was read
        self._where = f"{reference}: config"
        self._layers = tuple(source.stored_layers(manifest.layers))
        blobs = (manifest.config, *manifest.layers, *self._layers)
        self._blobs = {descriptor.digest: descriptor for descriptor in reversed(blobs)}

    @property
    def manifest(self) -> bytes:
        """The manifest in OCI form; a Docker one is converted, which reads its config.

        Raises SourceError, ContentMismatchError, InvalidDocumentError when that config cannot be had or converted.
        """
        converted = self._converted()
        return self.accepted.data if converted is None else converted.manifest

    @property
    def fetchable_manifest(self) -> bytes:
        """As `manifest`, but it names the layers as the source can serve them, for a parent that has no other list.

        A local storage has the plain tar of a layer that its manifest names compressed (images.md 4.4). Raises as
        `manifest`, and UnsupportedError for a layer that cannot be rebuilt.
        """
        accepted = self.accepted
        if [layer.digest for layer in self._layers] == [layer.digest for layer in accepted.manifest.layers]:
            return self.manifest
        return rooms.with_stored_layers(
            accepted.manifest, accepted.data, self._layers, self.stored_config, self.reference
        )

    def config(self) -> bytes:
        """The config as stored, at most MANIFEST_LIMIT bytes (images.md 7.3).

        Raises UnsupportedError for an artifact, whose config is none, and what `stored_config` raises.
        """
        manifest = self.accepted.manifest
        if manifest.media_type == mediatype.OCI_MANIFEST and manifest.config.media_type != mediatype.OCI_CONFIG:
            kind = manifest.artifact_type or manifest.config.media_type
            why = f"{self._where}: expected an image, found an artifact of type {quote(kind)}"
            raise UnsupportedError(why, code=ErrorCode.MEDIA_TYPE_UNSUPPORTED)
        return self.stored_config()

    def stored_config(self) -> bytes:
        """The config, verified and kept. Two threads that ask at once may both fetch it; one copy stays.

        One that states another platform than those asked for is told of then. Raises SourceError,
        ContentMismatchError, InvalidDocumentError (limit-exceeded).
        """
        if self._config is None:
            descriptor = self.accepted.manifest.config
            with failing(Phase.CONFIG), closing(self.source.open_blob(descriptor, BlobAccess.VERIFIED)) as reader:
                data = read_blob(reader, descriptor, MANIFEST_LIMIT, self._where)
            with self._lock:
                first, self._config = self._config is None, self._config or data
            found = self._other_platform(data) if first else None
            if found is not None:
                wanted = self._wanted()[0]
                log.warning("%s: an image for %s was asked for, its config says %s", self.reference, wanted, found)
                self._events.emit("platform", image=self.reference, wanted=str(wanted), found=found)
        return self._config

    def require_platform(self) -> None:
        """Return unless the config says that the image is for none of the wanted platforms. Reads the config.

        Raises NotFoundError (platform-not-found), and what `stored_config` raises.
        """
        found = self._other_platform(self.stored_config()) if self._has_config() else None
        if found is not None:
            why = f"{self._where}: expected an image for {self._wanted()[0]}, found one for {found}"
            raise NotFoundError(why, code=ErrorCode.PLATFORM_NOT_FOUND, phase=Phase.CONFIG)

    @property
    def kept(self) -> int:
        """Bytes of memory that it takes for as long as it is open, about, with its config, as it is and as served."""
        accepted, config = self.accepted, self.accepted.manifest.config.size * self._has_config()
        # of the manifest's text what was read of it takes two to three times as much
        return 2 * (len(accepted.data) + config) + self.source.kept + (self._listed.kept if self._listed else 0)

    def layers(self) -> tuple[Descriptor, ...]:
        """The layers, base first, as the source can serve them and with the media types of the unconverted manifest."""
        return self._layers

    def describe_blob(self, digest: Digest) -> Descriptor:
        """The descriptor of a blob that this image names. Raises NotFoundError (blob-not-in-image)."""
        found = self._blobs.get(digest) or (self._listed.find_blob(digest) if self._listed is not None else None)
        if found is not None:
            return found
        converted = self._converted()
        if converted is not None and converted.config_descriptor.digest == digest:
            return converted.config_descriptor
        why = f"{self.reference}: the image names no blob {digest}"
        raise NotFoundError(why, code=ErrorCode.BLOB_NOT_IN_IMAGE, digest=str(digest))

    def open_blob(self, digest: Digest, access: BlobAccess) -> BlobReader:
        """The blob, open for reading and not yet checked; the caller closes it.

        Raises NotFoundError (blob-not-in-image), and what a source that looks for it now raises: blob-not-found,
        SourceError. A registry is asked by the first read, which raises the same.
        """
        descriptor = self.describe_blob(digest)
        converted = self._in_oci_form
        if converted is not None and converted.config_descriptor == descriptor:
            return BytesReader(converted.config)
        self.prepare_blobs()
        listed = self._listed if digest not in self._blobs else None
        timer = start_timer(self.blob_seconds or math.inf, "--deadline")
        try:
            is_config = descriptor == self.accepted.manifest.config and self._has_config()
            if is_config and access is BlobAccess.VERIFIED:
                reader: BlobReader = BytesReader(self.stored_config())  # small, and looked at before it is passed on
            else:
                ahead = self._read_ahead() if self.ahead[0] and listed is None else None
                with timed(timer):
                    reader = (listed or ahead or self.source).open_blob(descriptor, access)
        except CipError as error:
            self._events.emit("failed", image=self.reference, digest=str(digest), error=error)
            raise
        if self.blob_seconds:
            reader = TimedReader(reader, timer)
        return self._events.follow(reader, descriptor, self.reference)

    def referrers(self) -> "ImageReferrers":
        """What refers to the image; config and layers of what was fetched of it can be opened from then on."""
        if self._listed is None:
            accepted = self.accepted
            subjects = [each for each in (accepted.index_digest, accepted.digest) if each is not None]
            source = self.source.referrer_source()
            listed = rooms.ImageReferrers(self.reference, source, subjects, accepted.signed_by)
            with self._lock:
                self._listed = self._listed or listed
        return self._listed

    def close(self) -> None:
        """Release the source."""
        if self._early is not None:
            self._early.close()
        self.source.close()

    def _read_ahead(self) -> "ReadAhead | None":
        with self._lock:
            if self._early is None:
                self._early = rooms.ReadAhead(self.source.open_blob, self._layers, *self.ahead, guess=self.wants_all)
            return self._early

    def _has_config(self) -> bool:
        """Whether the config is that of an image, of a size that is read into memory."""
        kinds = (mediatype.OCI_CONFIG, mediatype.DOCKER_CONFIG)
        manifest = self.accepted.manifest
        image = manifest.media_type == mediatype.DOCKER_MANIFEST or manifest.config.media_type in kinds
        return image and manifest.config.size <= MANIFEST_LIMIT

    def _other_platform(self, config: bytes) -> str | None:
        """The platform that the config states, when it is not a wanted one; one that cannot be read states nothing."""
        try:
            from .model.platform import contradiction

            wanted = self._wanted() if self._has_config() else ()
            found = contradiction(parse_json(config, self._where), wanted) if wanted else None
            return None if found is None else redacted(str(found))
        except InvalidDocumentError:
            return None

    def _converted(self) -> "Converted | None":
        """A Docker manifest in OCI form, with the config that it names then, which the source does not have."""
        manifest = self.accepted.manifest
        if self._in_oci_form is None and manifest.media_type == mediatype.DOCKER_MANIFEST:
            self._in_oci_form = rooms.convert_manifest(manifest, self.stored_config(), self.reference)
        return self._in_oci_form


class AcceptedManifest(NamedTuple):
    """A manifest that the policy accepted, itself or through its index, which names it by the digest `entry`.

    `digest` is its sha256, by which manifests are compared and signed, whatever algorithm an index uses.
    """

    manifest: Manifest
    data: bytes
    digest: Digest
    index_digest: Digest | None
    entry: Digest | None = None
    signed_by: frozenset[str] = frozenset()  # digests of referrers whose bundles the policy took for signatures

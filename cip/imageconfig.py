# SPDX-License-Identifier: Apache-2.0
"""The config of one accepted image: read once, encoded anew for those who ask, held against the platform asked for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing

from . import log
from .content import MANIFEST_LIMIT, read_blob
from .errors import CipError, ErrorCode, InvalidDocumentError, NotFoundError, Phase, UnsupportedError, quote
from .events import Events
from .model import mediatype
from .model.descriptor import Platform
from .model.jsontree import parse_json
from .model.manifest import Manifest
from .model.platform import contradiction
from .sources.base import BlobAccess, OpenBlob


class ImageConfig:
    """Safe to use from several threads. `wanted` are the platforms that were asked for, most wanted first; none is any.

    An image whose config states another one is told of once, when the config is read.
    """

    def __init__(
        self, reference: str, manifest: Manifest, open_blob: OpenBlob, wanted: Sequence[Platform], events: Events
    ) -> None:
        self._reference = reference
        self._where = f"{reference}: config"
        self._manifest = manifest
        self._open_blob = open_blob
        self._wanted = wanted
        self._events = events
        self._stored: bytes | None = None
        self._lock = threading.Lock()

    def is_image(self) -> bool:
        """Whether it is the config of an image, of a size that is read into memory."""
        kinds = (mediatype.OCI_CONFIG, mediatype.DOCKER_CONFIG)
        image = self._manifest.media_type == mediatype.DOCKER_MANIFEST or self._manifest.config.media_type in kinds
        return image and self._manifest.config.size <= MANIFEST_LIMIT

    def stored(self) -> bytes:
        """The config as stored, verified and kept. Two threads that ask at once may both fetch it; one copy stays.

        Raises SourceError, ContentMismatchError, InvalidDocumentError (limit-exceeded).
        """
        if self._stored is None:
            descriptor = self._manifest.config
            try:
                with closing(self._open_blob(descriptor, BlobAccess.VERIFIED)) as reader:
                    data = read_blob(reader, descriptor, MANIFEST_LIMIT, self._where)
            except CipError as error:
                error.phase = error.phase or Phase.CONFIG
                raise
            with self._lock:
                first, self._stored = self._stored is None, self._stored or data
            if first:
                self._tell_platform(data)
        return self._stored

    def encoded(self) -> bytes:
        """The config in OCI form, encoded anew (images.md 7.3).

        Raises UnsupportedError for an artifact, whose config is none, and what `stored` raises.
        """
        from .model.convert import encode_config

        return encode_config(self._of_image(), self._where)

    def inner(self) -> bytes:
        """The `config` object inside the config, as the deprecated GetConfig answers. Raises as `encoded`."""
        from .model.convert import encode_inner_config

        return encode_inner_config(self._of_image(), self._where)

    def require_platform(self) -> None:
        """Return unless the config says that the image is for none of the wanted platforms. Reads the config.

        Raises NotFoundError (platform-not-found), and what `stored` raises.
        """
        found = self._other_platform(self.stored()) if self.is_image() else None
        if found is not None:
            raise NotFoundError(
                f"{self._where}: expected an image for {self._wanted[0]}, found one for {found}",
                code=ErrorCode.PLATFORM_NOT_FOUND,
                phase=Phase.CONFIG,
            )

    def _of_image(self) -> bytes:
        """The config blob of something that is an image (images.md 7.3)."""
        manifest = self._manifest
        if manifest.media_type == mediatype.OCI_MANIFEST and manifest.config.media_type != mediatype.OCI_CONFIG:
            kind = manifest.artifact_type or manifest.config.media_type
            raise UnsupportedError(
                f"{self._where}: expected an image, found an artifact of type {quote(kind)}",
                code=ErrorCode.MEDIA_TYPE_UNSUPPORTED,
            )
        return self.stored()

    def _tell_platform(self, config: bytes) -> None:
        found = self._other_platform(config) if self.is_image() else None
        if found is not None:
            wanted = self._wanted[0]
            log.warning("%s: an image for %s was asked for, its config says %s", self._reference, wanted, found)
            self._events.emit("platform", image=self._reference, wanted=str(wanted), found=str(found))

    def _other_platform(self, config: bytes) -> Platform | None:
        """The platform that the config states, when it is not a wanted one; one that cannot be read states nothing."""
        try:
            return contradiction(parse_json(config, self._where), self._wanted) if self._wanted else None
        except InvalidDocumentError:
            return None

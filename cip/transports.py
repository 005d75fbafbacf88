# SPDX-License-Identifier: Apache-2.0
"""Transport name to opener: one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from . import rooms
from .errors import UsageError
from .events import Events
from .model.reference import ImageReference, Transport
from .net.redaction import Secrets
from .settings import Settings
from .sources.base import ImageSource

if TYPE_CHECKING:
    from .early import Early
    from .hostconfig.registriesconf import RegistriesConfig
    from .partial.store import PartStore
    from .programs import Programs
    from .registry.session import RegistrySession
    from .registry.source import RegistrySource
    from .sources.archives.spool import Spools
    from .temporary import TemporaryFile


class SourceOpener:
    """Opens the source of a reference; keeps what all sources of one process share.

    Each row of the table imports its room when it is used: a parent that wants a layout does not wait for TLS.
    """

    def __init__(self, settings: Settings, events: Events, programs: Programs) -> None:
        self.secrets = Secrets()
        self._settings = settings
        self._events = events
        self._programs = programs
        self._session: RegistrySession | None = None
        self._call_off: Callable[[], None] | None = None
        self._early: tuple[ImageReference, RegistrySource] | None = None  # opened before anybody opens it
        self._spools: Spools | None = None
        self._parts: PartStore | None = None
        if settings.partial_dir is not None:  # now, because a confined process cannot make a directory any more
            self._parts = rooms.open_part_store(settings.partial_dir, settings.transfer.partial_limit)

    def open(self, reference: ImageReference) -> ImageSource:
        """The source of `reference`; the caller closes it.

        Raises NotFoundError, SourceError, ConfigurationError, UnsupportedError, and UsageError when `--local-source` is
        given for a place that is local itself.
        """
        if self._settings.local_sources and reference.transport is not Transport.DOCKER:
            raise UsageError(f"--local-source: expected a docker:// image, found {reference.transport}:")
        settings = self._settings
        match reference.transport:
            case Transport.DOCKER:
                return self._open_docker(reference)
            case Transport.OCI:
                from .sources.layout import open_layout

                return open_layout(reference, settings)
            case Transport.DIR:
                from .sources.directory import open_directory

                return open_directory(reference)
            case Transport.OCI_ARCHIVE:
                return rooms.open_oci_archive(reference, self._shared_spools(), settings.platform)
            case Transport.DOCKER_ARCHIVE:
                return rooms.open_docker_archive(reference, self._shared_spools())
            case Transport.DOCKER_DAEMON:
                return rooms.open_daemon(reference, settings, self._shared_spools())
            case Transport.CONTAINERS_STORAGE:
                return rooms.open_storage(reference, settings)
            case Transport.TARBALL:
                return rooms.open_tarball(reference, self._shared_spools())

    def expect(self, early: Early) -> None:
        """Open the source of an image before anybody opens it, and have the connection secured that is on its way.

        Raises CipError: whoever opens the image meets the same.
        """
        source = self._open_registry(early.reference, early.registries)
        self._early = early.reference, source
        early.dial(self.registry_session().network, source.first_route())
        self._call_off = early.call_off

    def before_confinement(self) -> None:
        """Look at what cannot be looked at later; let no connection be opened any more that nobody has asked for."""
        if self._session is not None:
            self._session.look_at_registries_d()
        if self._call_off is not None:
            self._call_off()

    def make_file(self) -> TemporaryFile:
        """An empty file without a name, for the caller to close. Raises SourceError, UnsupportedError."""
        return self._shared_spools().space.make()

    def close(self) -> None:
        """Close idle connections."""
        if self._session is not None:
            self._session.close()
        if self._parts is not None:
            self._parts.close()

    def registry_session(self) -> RegistrySession:
        """What all registry images share."""
        if self._session is None:
            from .registry.session import RegistrySession

            self._session = RegistrySession(self._settings, self._events, self._programs, secrets=self.secrets)
            self._session.parts = self._parts
        return self._session

    def _open_registry(self, reference: ImageReference, registries: RegistriesConfig | None = None) -> RegistrySource:
        from .hostconfig.registriesconf import load_registries
        from .registry.source import open_registry

        registries = registries or load_registries(self._settings)
        return open_registry(reference, registries, self._settings, self.registry_session())

    def _open_docker(self, reference: ImageReference) -> ImageSource:
        if not self._settings.local_sources:
            if self._settings.offline:
                raise UsageError("--offline: expected at least one --local-source, found none")
            early, self._early = self._early, None
            return early[1] if early is not None and early[0] == reference else self._open_registry(reference)
        return rooms.open_with_local_sources(
            reference, self._settings, self._open_registry, self._events, self._shared_spools()
        )

    def _shared_spools(self) -> Spools:
        if self._spools is None:
            self._spools = rooms.open_spools(self._settings, self._programs)
        return self._spools

# SPDX-License-Identifier: Apache-2.0
"""The image source of docker:// references.

A manifest comes from the first place that has it; the place that served the top manifest is asked first for all that
follows, the others after it in their order. What an endpoint sends under a digest is checked here already, because
another endpoint may have the right bytes; whoever uses them checks again.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from .. import rooms
from ..content import BlobReader, require_content
from ..errors import Phase, failing
from ..hostconfig.registriesconf import RegistriesConfig
from ..model import mediatype
from ..model.descriptor import Descriptor, Digest, require_sha256
from ..model.reference import DockerReference, ImageReference, Transport, docker_identity
from ..net.limits import Cancellation, Limits
from ..settings import Settings
from ..sources.base import BlobAccess, ImageSource, RawManifest
from .endpoints import Endpoint, read_manifest
from .failover import ask_endpoints
from .session import RegistrySession

if TYPE_CHECKING:
    from ..model.signature import RawSignature
    from ..net.connection import Route
    from ..sources.referring import ReferrerSource

ACCEPT = ", ".join(mediatype.ACCEPTED_MANIFESTS)


def open_registry(
    reference: ImageReference, registries: RegistriesConfig, settings: Settings, session: RegistrySession
) -> RegistrySource:
    """The source of a docker:// `reference`; the network is used by the first call for its manifest.

    Raises ConfigurationError, CipError (registry-blocked), InvalidDigestError for a digest that cannot be checked.
    """
    named = reference.docker
    assert named is not None  # the parser of docker:// sets it
    if named.digest is not None:
        require_sha256(named.digest)
    places = registries.places(named)
    endpoints = [Endpoint(place, named, settings, registries, session) for place in places]
    return RegistrySource(named, endpoints, settings, session)


class RegistrySource(ImageSource):
    """One image at its endpoints; safe from any thread."""

    def __init__(
        self, reference: DockerReference, endpoints: Sequence[Endpoint], settings: Settings, session: RegistrySession
    ) -> None:
        # a policy may speak of the logical names, wherever the image came from
        self.identity = docker_identity(Transport.DOCKER, reference)
        self._reference = reference
        self._settings = settings
        self._session = session
        self._endpoints = tuple(endpoints)  # replaced as a whole
        self._cancellation = Cancellation()
        self._opening_ends = session.clock.monotonic() + settings.times.opening
        self._top: RawManifest | None = None
        self._referrers: ReferrerSource | None = None
        self._lock = threading.Lock()

    def first_route(self) -> Route:
        """What connection the first request will use.

        Raises ConfigurationError: whoever asks for the manifest meets the same.
        """
        return self._endpoints[0].route()

    def manifest(self, digest: Digest | None) -> RawManifest:
        """The top manifest, fetched once, or the instance `digest`. Raises NotFoundError, SourceError."""
        if digest is None:
            if self._top is None:
                self._top = self._fetch(self._reference.digest, Phase.MANIFEST)
                self.kept = len(self._top.data)
            return self._top
        return self._fetch(digest, Phase.INDEX)

    def signatures(self, digest: Digest, instance: Digest | None) -> Sequence[RawSignature]:
        """Signatures of the manifest `digest`, from the endpoint that served it. Raises SignatureError (fetch)."""
        return rooms.fetch_signatures(self._endpoints[0], digest, self._settings, self._session, self._limits())

    def signature_locations(self) -> Sequence[str]:
        """As configuration has it for the endpoint that served the manifest."""
        return rooms.locations_of_signatures(self._endpoints[0], self._settings)

    def referrer_source(self) -> ReferrerSource | None:
        """What refers to the image, at its endpoints."""
        if self._referrers is None:
            self._referrers = rooms.RegistryReferrers(
                lambda: self._endpoints,
                self._settings,
                self._session,
                limits=lambda: self._session.limits(self._cancellation),
                opening=self._limits,
            )
        return self._referrers

    def open_blob(self, descriptor: Descriptor, access: BlobAccess) -> BlobReader:
        """The blob from the first place that sends it; `urls` of the descriptor are never followed (registry.md S2).

        Nothing is asked before the first read, so that `close` can end it, but for a credential helper that runs.
        Where parts are kept, only what none has is asked for.
        """
        if self._session.parts is not None:
            return self._session.parts.open_blob(descriptor, access, partial(self.open_rest, descriptor, access))
        return self.open_rest(descriptor, access, 0)

    def open_rest(self, descriptor: Descriptor, access: BlobAccess, offset: int) -> BlobReader:
        """The blob from the byte `offset` on; over several connections, if that is wanted and may bring anything.

        A raw blob comes over one: it stays at the endpoint that its first byte came from.
        """
        from .blob import RegistryBlob  # nobody waits for it before the manifest is out

        connections = min(self._settings.transfer.segments, self._settings.transfer.connections)
        if connections > 1 and access is BlobAccess.VERIFIED and self._session.trusts_segments:
            return rooms.open_segments(descriptor, lambda: self._endpoints, self._session, offset, connections)
        blob = rooms.shared_blobs() or RegistryBlob
        return blob(descriptor, access, self._endpoints, self._session, offset=offset)

    def close(self) -> None:
        """Nothing to release: connections belong to the session."""

    def _limits(self) -> Limits:
        return self._session.limits(self._cancellation).until(self._opening_ends)

    def _fetch(self, digest: Digest | None, phase: Phase) -> RawManifest:
        ask = partial(self._ask, digest)
        with failing(digest=digest):
            served_by, manifest = ask_endpoints(self._endpoints, ask, self._session.repeats, self._limits(), phase)
        self._prefer(served_by)
        return manifest

    def _ask(self, digest: Digest | None, endpoint: Endpoint, limits: Limits) -> RawManifest:
        named = endpoint.reference
        wanted = str(digest) if digest is not None else named.tag or str(named.digest)
        what = f"manifest of {named.name}@{digest}" if digest is not None else f"manifest of {named}"
        response = endpoint.get(f"manifests/{wanted}", limits, {"Accept": ACCEPT})
        manifest = read_manifest(endpoint, response, what)
        if digest is not None:
            require_content(manifest.data, digest, f"{endpoint.name}: {what}")
        return manifest

    def _prefer(self, endpoint: Endpoint) -> None:
        """Ask the endpoint that served a manifest first from now on: one that failed would cost its time again."""
        with self._lock:
            others = [other for other in self._endpoints if other is not endpoint]
            self._endpoints = (endpoint, *others)

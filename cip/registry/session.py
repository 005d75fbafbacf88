# SPDX-License-Identifier: Apache-2.0
"""What all registry images of one process share: connections, waiting times of hosts, the budget, files read once."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from .. import log, rooms
from ..events import Events
from ..hostconfig.authfile import DescriptorFiles
from ..hostconfig.proxyenv import Proxy, choose_proxy
from ..net.connection import Connection, ConnectionPool
from ..net.limits import Budget, Cancellation, Clock, Limits
from ..net.opener import Network
from ..net.redaction import Secrets
from ..net.tls import TlsContexts
from ..net.url import Origin
from ..settings import Settings
from ..sources.base import KeepsParts
from .hosts import HostLimit, Silence
from .retry import HostBackoff, Jitter, Repeats

if TYPE_CHECKING:
    from ..programs import Programs


class RegistrySession:
    """Belongs to the process, not to an image; safe from any thread. `close` when no image is open any more."""

    def __init__(
        self,
        settings: Settings,
        events: Events,
        programs: Programs,
        *,
        clock: Clock | None = None,
        jitter: Jitter = random.random,
        secrets: Secrets | None = None,
    ) -> None:
        self.secrets = secrets or Secrets()
        self.events = events
        self.programs = programs
        self.clock = clock or Clock()
        self.descriptor_files = DescriptorFiles()
        self.backoff = HostBackoff(self.clock)
        self.repeats = Repeats(settings.retry, self.backoff, self.clock, events, jitter=jitter)
        self.min_rate = settings.transfer.min_rate
        self.host_limit = HostLimit(settings.transfer.connections)
        self.silence = Silence(self.clock)
        self.signatures_asked_for = False
        self._unread: str | None = None
        self.parts: KeepsParts | None = None
        self.without_referrers: set[str] = set()  # repositories whose registry has shown that it has no referrers API
        self._settings = settings
        self._proxies: dict[Origin, Proxy | None] = {}
        transfer = settings.transfer
        contexts = TlsContexts()
        self.network = Network(
            ConnectionPool(transfer.connections),
            lambda route: Connection(route, contexts),
            Budget(transfer.max_rate, transfer.max_bytes, self.clock),
            self._choose_proxy,
            settings.user_agent,
            self.secrets,
        )

    def limits(self, cancellation: Cancellation | None = None) -> Limits:
        """The limits of the settings, without a deadline."""
        return Limits(self.clock, self._settings.times, cancellation or Cancellation())

    def look_at_registries_d(self) -> None:
        """See whether it can be read, for a warning at the end; before the process is confined, which may not look."""
        if self._unread is None:
            self._unread = rooms.unread_registries_d(self._settings)

    def close(self) -> None:
        """Close idle connections; those in use are closed when their work ends."""
        self.network.pool.close()
        self.look_at_registries_d()
        if self._unread and not self.signatures_asked_for:
            log.warning("%s", self._unread)

    def _choose_proxy(self, origin: Origin) -> Proxy | None:
        if origin not in self._proxies:
            proxy = choose_proxy(self._settings.environment, origin.scheme, origin.host, origin.port)
            if proxy is not None:
                self.secrets.keep(proxy.credentials.password)
            self._proxies[origin] = proxy
        return self._proxies[origin]

# SPDX-License-Identifier: Apache-2.0
"""What all registry images of one process share: connections, how each host is treated, the budget, files read once."""

from __future__ import annotations

import random
import threading
from functools import cache
from typing import TYPE_CHECKING, Any

from .. import log, rooms
from ..events import Events
from ..hostconfig.authfile import DescriptorFiles
from ..hostconfig.proxyenv import Proxy, choose_proxy
from ..net.connection import Connection, ConnectionPool
from ..net.limits import Cancellation, Clock, Limits
from ..net.opener import Network
from ..net.redaction import Secrets
from ..net.tls import TlsContexts
from ..net.url import Origin
from ..settings import Settings
from .retry import Jitter, Repeats

if TYPE_CHECKING:
    from ..partial.store import PartStore
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
        self.repeats = Repeats(settings, self.clock, events, jitter)
        self.min_rate = settings.transfer.min_rate
        self.connections = settings.transfer.connections
        self.shares: dict[str, set[Any]] = {}  # for each host the blobs that are read beside each other
        self.shares_changed = threading.Condition()
        self.signatures_asked_for = False
        self.trusts_segments = True
        self._unread: str | None = None
        self.parts: PartStore | None = None
        self.without_referrers: set[str] = set()  # repositories whose registry has shown that it has no referrers API
        self._settings = settings
        transfer = settings.transfer
        contexts = TlsContexts()
        limited = transfer.max_rate or transfer.max_bytes
        self.network = Network(
            ConnectionPool(self.connections),
            lambda route, limits: Connection(route, contexts),
            rooms.Budget(transfer.max_rate, transfer.max_bytes, self.clock).receive if limited else None,
            cache(self._choose_proxy),
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
        proxy = choose_proxy(self._settings.environment, origin.scheme, origin.host, origin.port)
        if proxy is not None:
            self.secrets.keep(*proxy.credentials.secrets())
        return proxy

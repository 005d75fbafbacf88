# SPDX-License-Identifier: Apache-2.0
"""What all registry images of one process share: connections, how each host is treated, the budget, files read once.

So many blobs are read from one host at once; the next one waits, or takes the share of one that nobody reads. That is
apart from the pool, because this wait is our own: no clock of a stall runs meanwhile. Configs and signatures are not
counted, for they have a time. Of many connections one is left free, so that opening an image does not wait for blobs. A
parent reads its blobs in an order of its own: one that it leaves alone has to give way as soon as another one waits.
"""

from __future__ import annotations

import random
import threading
from functools import cache
from typing import TYPE_CHECKING, Protocol

from .. import log, rooms
from ..content import WAITS
from ..events import Events
from ..hostconfig.authfile import DescriptorFiles
from ..hostconfig.proxyenv import Proxy, choose_proxy
from ..net.connection import Connection, ConnectionPool
from ..net.limits import POLL, Cancellation, Clock, Limits
from ..net.opener import Network
from ..net.redaction import Secrets
from ..net.tls import TlsContexts
from ..net.url import Origin
from ..settings import Settings
from .retry import HostBackoff, Jitter, Repeats

if TYPE_CHECKING:
    from ..partial.store import PartStore
    from ..programs import Programs

SPARE_FROM = 8  # connections from which on one is kept free of blobs
GIVE_WAY_SECONDS = 0.5  # that nobody has read a blob before it has to give way; a busy parent leaves it alone for less


class Holder(Protocol):
    """A blob that has a share."""

    def idle_seconds(self) -> float:
        """How long nobody has read from it, 0 while somebody does. Takes no lock."""
        ...

    def give_way(self) -> None:
        """Give the share back, unless somebody reads again."""
        ...


class HostLimit:
    """At most as many shares of each host as there may be connections; safe from any thread."""

    def __init__(self, connections: int) -> None:
        self._limit = max(1, connections - (connections >= SPARE_FROM))
        self._changed = threading.Condition()
        self._holders: dict[str, set[Holder]] = {}

    def take(self, host: str, holder: Holder, cancellation: Cancellation) -> None:
        """Wait for a share of `host`; `holder` owes `give_back`. Raises NetworkError when called off."""
        told = False
        while True:
            cancellation.require(host)
            with self._changed:
                holders = self._holders.setdefault(host, set())
                if len(holders) < self._limit:
                    holders.add(holder)
                    return
                idlest = max(holders, key=lambda each: each.idle_seconds())
                is_idle = idlest.idle_seconds() >= GIVE_WAY_SECONDS
                if told and not is_idle:
                    self._changed.wait(POLL)
            if is_idle:
                idlest.give_way()
            elif not told:
                WAITS.get().begin()
                told = True

    def give_back(self, host: str, holder: Holder) -> None:
        """Let the next one have it."""
        with self._changed:
            self._holders[host].discard(holder)
            self._changed.notify_all()


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
        self.repeats = Repeats(settings.retry, HostBackoff(self.clock), self.clock, events, jitter=jitter)
        self.min_rate = settings.transfer.min_rate
        self.host_limit = HostLimit(settings.transfer.connections)
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
            ConnectionPool(transfer.connections),
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

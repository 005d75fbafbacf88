# SPDX-License-Identifier: Apache-2.0
"""Connections, and their pool: an `HTTPConnection` whose `connect` resolves, judges, races, tunnels and secures.

Not `HTTPSConnection` and `set_tunnel`: a time-out of theirs is none, Python 3.11 asks a proxy in HTTP/1.0 without Host,
and the address that a registry sends us to must be judged after it was resolved and before it is connected to.

They are kept for the next request: per origin, TLS identity and proxy, at most so many at once. A transfer that finds
all of them busy waits for its turn; no lock is held while anything happens on the network.
"""

import http.client
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from .. import log
from ..errors import CipError, ErrorCode, Phase, SourceError
from ..hostconfig.proxyenv import Proxy, describe_way
from .addresses import Address, AddressClass, ConnectedSocket, classify_name, connect, require_allowed, resolve
from .channel import Channel
from .limits import POLL, Limits
from .response import Response
from .tls import NO_IDENTITY, Socket, TlsContexts, TlsIdentity
from .url import Origin

IDLE_SECONDS = 60.0  # an idle connection is not used again after that
IDLE_LIMIT = 16  # connections, where one route may not have more


class Route(NamedTuple):
    """What a connection is shared by: the same origin, the same TLS identity, the same proxy."""

    origin: Origin
    identity: TlsIdentity
    proxy: Proxy | None = None

    @property
    def absolute(self) -> bool:
        """Whether a proxy is asked itself, for the whole URL; else it is only a way to the origin."""
        return self.proxy is not None and self.proxy.speaks_http and self.origin.scheme == "http"

    @property
    def via(self) -> str:
        """How we get there, for messages."""
        return describe_way(self.proxy)


class Connection(http.client.HTTPConnection):
    """A connection of the pool; its `sock` is a Channel, opened by the first request.

    The caller sets `limits` before each request, and `reached` before the first: where the registry itself was found,
    None where our user told us of the origin, so that it may be anywhere.
    """

    response_class = Response
    sock: Channel | None
    limits: Limits
    reached: frozenset[AddressClass] | None = None
    early: Callable[[], ConnectedSocket | None] | None = None  # brings a socket for the first `connect`

    def __init__(self, route: Route, contexts: TlsContexts) -> None:
        super().__init__(route.origin.host, route.origin.port)
        self.route = route
        self.name = route.origin.address  # whom we speak to, for messages
        self.address: Address | None = None
        self.uses = 0  # answers received so far
        self.idle_since = 0.0
        self._contexts = contexts

    def connect(self) -> None:
        """Connect so that the origin can be asked.

        Raises NetworkError, SourceError (tls codes, address-refused), ConfigurationError (unusable certificate files).
        """
        try:
            self._connect()
        except SourceError as error:
            identity = NO_IDENTITY if error.phase is Phase.PROXY else self.route.identity
            if error.code is not ErrorCode.TLS_UNTRUSTED or not self._contexts.trust_all(identity):
                raise
            log.debug("%s; once more with every authority that the system has", error)
            self._connect()

    def prepare(self) -> None:
        """Have made what a handshake needs, beside whatever the caller does until there is one."""
        if self.route.origin.scheme == "https":
            self._contexts.prepare(self.route.identity)

    def use(self, limits: Limits) -> None:
        """Tell a connection under which limits its next request is made."""
        self.limits = limits
        if self.sock is not None:
            self.sock.limits = limits
            limits.cancellation.attach(self.sock.interrupt)

    def is_stale(self) -> bool:
        """Whether it must not be used again. Tickets of TLS 1.3 lie in the socket before its first use."""
        return self.sock is None or (self.uses > 0 and self.sock.is_stale())

    def count_answer(self, response: Response) -> None:
        """Told of each answer: with the first one the TLS session is kept for the next connection to the origin."""
        self.uses += 1
        if self.uses == 1 and self.route.origin.scheme == "https":
            self._contexts.remember(response.channel.sock, self.route.origin, self.route.identity)

    def _connect(self) -> None:
        route, limits, proxy = self.route, self.limits, self.route.proxy
        phase = None if proxy is None else Phase.PROXY  # of what fails before the origin itself is spoken to
        channel: Channel | None = None
        self.prepare()
        try:
            sock, self.address = self.open_socket()
            channel = self._channel(sock, NO_IDENTITY)
            if proxy is not None and proxy.scheme == "https":  # it is trusted as the system trusts anybody
                channel = self._secure(channel, Origin("https", proxy.host, proxy.port), NO_IDENTITY)
            if proxy is not None and not route.absolute:
                from .tunnel import open_tunnel

                open_tunnel(channel, route.origin, proxy)
            phase = None
            if route.origin.scheme == "https":
                channel = self._secure(channel, route.origin, route.identity)
        except BaseException as error:
            if isinstance(error, CipError):
                error.phase = phase or error.phase
            limits.cancellation.attach()
            if channel is not None:
                channel.close()
            raise
        self.sock = channel

    def _channel(self, sock: Socket, identity: TlsIdentity) -> Channel:
        channel = Channel(sock, self.limits, self.name, self.route.via, identity)
        self.limits.cancellation.attach(channel.interrupt)
        return channel

    def _secure(self, channel: Channel, origin: Origin, identity: TlsIdentity) -> Channel:
        secured = self._channel(self._contexts.wrap(channel.sock, origin, identity), identity)
        secured.shake_hands(origin.address)
        return secured

    def open_socket(self) -> tuple[socket.socket, Address | None]:
        """A connected socket to the origin or its proxy, and where that is."""
        route, limits, proxy = self.route, self.limits, self.route.proxy
        if self.early is not None and (found := self.early()):
            return found
        nearest = route.origin if proxy is None else Origin("http", proxy.host, proxy.port)
        addresses = resolve(nearest, limits, route.via)
        for address in addresses:
            judge(route, address, self.reached)
        return connect(nearest, addresses, limits, route.via)


def judge(route: Route, address: Address | None, reached: frozenset[AddressClass] | None) -> None:
    """Return only if the address may be connected to. Raises SourceError.

    A proxy is ours and may be anywhere; of what it will resolve all that can be judged is the text.
    """
    if route.proxy is not None:
        require_allowed(route.origin, route.origin.host, classify_name(route.origin.host), reached)
    elif address is not None:
        require_allowed(route.origin, address.text, address.kind, reached)


class ConnectionPool:
    """At most `limit` connections for each route, idle ones included; safe from any thread.

    Of all routes together at most IDLE_LIMIT are idle: a registry may send us to another host for each blob.
    """

    def __init__(self, limit: int) -> None:
        self._limit = max(1, limit)
        self._changed = threading.Condition()
        self._idle: deque[Connection] = deque()  # the one given back last at the end
        self._open: dict[Route, int] = {}
        self._closed = False

    def take(self, route: Route, limits: Limits, *, fresh: bool = False) -> Connection | None:
        """An idle connection, or None: the caller may open one and owes `give_back` or `forget`.

        With `fresh` idle ones are closed, for they may be as dead as the one that has just failed. Waits while the
        route has all the connections it may have. Raises NetworkError (timeout) at the deadline of `limits`.
        """
        while True:
            with self._changed:
                now = limits.clock.monotonic()
                found = self._pop(route)
                if found is None and self._open.get(route, 0) < self._limit:
                    self._open[route] = self._open.get(route, 0) + 1
                    return None
                if found is None:
                    self._changed.wait(POLL)
            if found is not None and not (fresh or now - found.idle_since > IDLE_SECONDS or found.is_stale()):
                return found
            if found is not None:
                self.forget(route, found)
            host = route.origin.address
            limits.cancellation.require(host)
            if limits.remaining() <= 0:
                raise limits.expired(0, None, host, route.via, "no free connection")

    def give_back(self, connection: Connection, now: float) -> None:
        """Keep a connection whose last answer was read to its end."""
        connection.idle_since = now
        with self._changed:
            self._idle.append(connection)
            left = self._idle.popleft() if self._closed or len(self._idle) > max(IDLE_LIMIT, self._limit) else None
            self._changed.notify()
        if left is not None:
            self.forget(left.route, left)

    def forget(self, route: Route, connection: Connection | None) -> None:
        """Close a connection, or give up opening one; somebody else may open one instead."""
        if connection is not None:
            connection.close()
        self.discount(route, 1)

    def discount(self, route: Route, connections: int) -> None:
        """Count so many fewer, or more, as taken: one that waits for nobody but its reader must not stop others."""
        with self._changed:
            self._open[route] -= connections
            self._changed.notify()

    def drop_idle(self, route: Route | None = None) -> None:
        """Close what is idle, on `route` alone if one is given."""
        with self._changed:
            idle = [each for each in self._idle if route in (each.route, None)]
            self._idle = deque(each for each in self._idle if each not in idle)
        for each in idle:
            self.forget(each.route, each)

    def close(self) -> None:
        """Close what is idle; connections in use are closed when they are given back."""
        self._closed = True
        self.drop_idle()

    def _pop(self, route: Route) -> Connection | None:
        """The one used last: it is the least likely to have been closed by the other side."""
        found = next((each for each in reversed(self._idle) if each.route == route), None)
        if found is not None:
            self._idle.remove(found)
        return found

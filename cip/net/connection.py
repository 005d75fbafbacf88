# SPDX-License-Identifier: Apache-2.0
"""`http.client.HTTPConnection` whose `connect` resolves, judges, races, tunnels and secures, as its route says.

Not `HTTPSConnection` and `set_tunnel`: a time-out of theirs is none, Python 3.11 asks a proxy in HTTP/1.0 without Host,
and the address that a registry sends us to must be judged after it was resolved and before it is connected to.
"""

from __future__ import annotations

import base64
import http.client
import socket
from typing import NamedTuple

from .. import log
from ..errors import AuthenticationError, CipError, ErrorCode, NetworkError, Phase, RegistryError, SourceError
from ..hostconfig.proxyenv import Proxy
from .addresses import Address, AddressClass, classify_name, require_allowed, resolve
from .channel import Channel
from .limits import Limits
from .race import connect, connect_local
from .response import Response
from .tls import TlsContexts, TlsIdentity
from .url import Origin


class Route(NamedTuple):
    """What a connection is shared by: the same origin, the same TLS identity, the same proxy.

    `socket_path` is that of a server on this host, whose `origin` is a name only.
    """

    origin: Origin
    identity: TlsIdentity
    proxy: Proxy | None = None
    socket_path: str = ""

    @property
    def name(self) -> str:
        """Whom we speak to, for messages."""
        return self.socket_path or self.origin.address

    @property
    def via(self) -> str:
        """How we get there, for messages."""
        return "direct" if self.proxy is None else f"via proxy {self.proxy.address}"


class Connection(http.client.HTTPConnection):
    """A connection of the pool; its `sock` is a Channel, opened by the first request.

    The caller sets `limits` before each request, and `reached` before the first: where the registry itself was found,
    None where our user told us of the origin, so that it may be anywhere.
    """

    response_class = Response
    sock: Channel | None
    limits: Limits
    reached: frozenset[AddressClass] | None = None

    def __init__(self, route: Route, contexts: TlsContexts) -> None:
        super().__init__(route.origin.host, route.origin.port)
        self.route = route
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
            if error.code is not ErrorCode.TLS_UNTRUSTED or not self._contexts.trust_all(self.route.identity):
                raise
            log.debug("%s; once more with every authority that the system has", error)
            self._connect()

    def use(self, limits: Limits) -> None:
        """Tell a connection under which limits its next request is made."""
        self.limits = limits
        if self.sock is not None:
            self.sock.limits = limits
            limits.cancellation.attach(self.sock)

    def is_stale(self) -> bool:
        """Whether it must not be used again. Tickets of TLS 1.3 lie in the socket before its first use."""
        return self.sock is None or (self.uses > 0 and self.sock.is_stale())

    def count_answer(self, response: Response) -> None:
        """Told of each answer: with the first one the TLS session is kept for the next connection to the origin."""
        self.uses += 1
        if self.uses == 1 and self.route.origin.scheme == "https":
            self._contexts.remember(response.channel.sock, self.route.origin, self.route.identity)

    def _connect(self) -> None:
        route, limits = self.route, self.limits
        if route.origin.scheme == "https":
            self._contexts.prepare(route.identity)
        sock, self.address = self._open_socket()
        channel = Channel(sock, limits, route.name, route.via)
        limits.cancellation.attach(channel)
        try:
            if route.origin.scheme == "https":
                if route.proxy is not None:
                    _open_tunnel(channel, route.origin, route.proxy)
                secured = self._contexts.handshake(sock, route.origin, route.identity, limits, route.via)
                channel = Channel(secured, limits, route.name, route.via, route.identity)
                limits.cancellation.attach(channel)
        except BaseException:
            limits.cancellation.attach(None)
            channel.close()
            raise
        self.sock = channel

    def _open_socket(self) -> tuple[socket.socket, Address | None]:
        """A connected socket to the origin or its proxy, and where that is."""
        route, limits, proxy = self.route, self.limits, self.route.proxy
        if route.socket_path:
            return connect_local(route.socket_path, limits), None
        nearest = route.origin if proxy is None else Origin("http", proxy.host, proxy.port)
        try:
            addresses = resolve(nearest, limits, route.via)
            for address in addresses:
                judge(route, address, self.reached)
            return connect(nearest, addresses, limits, route.via)
        except NetworkError as error:
            if proxy is not None:
                error.phase = Phase.PROXY
            raise


def judge(route: Route, address: Address | None, reached: frozenset[AddressClass] | None) -> None:
    """Return only if the address may be connected to; a proxy is ours and may be anywhere. Raises SourceError."""
    if route.proxy is None and address is not None:
        require_allowed(route.origin, address.text, address.kind, reached)


def judge_name(route: Route, reached: frozenset[AddressClass] | None) -> None:
    """The same for what a proxy will resolve: all that can be judged is the text. Raises SourceError."""
    if route.proxy is not None:
        require_allowed(route.origin, route.origin.host, classify_name(route.origin.host), reached)


def _open_tunnel(channel: Channel, origin: Origin, proxy: Proxy) -> None:
    """Ask the proxy for a connection to the origin (RFC 9110, 9.3.6). Raises NetworkError, SourceError."""
    fields = {"Host": origin.address, **proxy_authorization(proxy)}
    lines = [f"CONNECT {origin.address} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    answer = Response(channel, method="CONNECT")
    try:
        channel.sendall("\r\n".join(lines).encode("ascii"))
        answer.begin()
        if not 200 <= answer.status < 300:
            raise proxy_refusal(origin, proxy, answer.status)
        if not channel.lines.is_idle():
            raise RegistryError(f"{origin.address}: expected tls, found bytes behind an answer ({channel.via})")
    except CipError as error:
        error.phase = Phase.PROXY
        raise
    finally:
        answer.close()


def proxy_refusal(origin: Origin, proxy: Proxy, status: int) -> SourceError:
    """The error for an answer that a proxy gave for itself."""
    host = proxy.address
    if status in (401, 407):  # tinyproxy answers 401 to a wrong password
        return AuthenticationError(
            f"{origin.address}: the proxy {host} refuses the credentials that its URL has, or has not",
            host=host,
            phase=Phase.PROXY,
            http_status=status,
        )
    return RegistryError(
        f"{origin.address}: the proxy {host} answers {status} to CONNECT",
        host=host,
        phase=Phase.PROXY,
        http_status=status,
    )


def proxy_authorization(proxy: Proxy) -> dict[str, str]:
    """The field that lets us use the proxy, where it asks for that."""
    if proxy.credentials.is_anonymous():
        return {}
    pair = f"{proxy.credentials.username}:{proxy.credentials.password}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}

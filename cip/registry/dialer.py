# SPDX-License-Identifier: Apache-2.0
"""New connections: resolved, judged, raced, tunnelled through a proxy and secured, as their route says."""

from __future__ import annotations

import base64

from ..errors import AuthenticationError, NetworkError, Phase, RegistryError, SourceError
from ..hostconfig.proxyenv import Proxy
from .addresses import Address, AddressClass, classify_name, require_allowed, resolve
from .connection import Connection, Route
from .http1 import GarbledError, encode_request
from .limits import Limits
from .race import connect
from .tls import TlsContexts
from .url import Origin


class Dialer:
    """Opens connections for one process; safe from any thread."""

    def __init__(self) -> None:
        self._contexts = TlsContexts()

    def open(self, route: Route, limits: Limits, reached: frozenset[AddressClass] | None) -> Connection:
        """A connection over which the origin of `route` can be asked; the caller closes it.

        `reached` None: we were told of the origin by our user, so it may be anywhere. Raises NetworkError, SourceError
        (tls codes, address-refused), ConfigurationError (unusable certificate files).
        """
        proxy = route.proxy
        nearest = route.origin if proxy is None else Origin("http", proxy.host, proxy.port)
        try:
            addresses = resolve(nearest, limits, route.via)
            for address in addresses:
                judge(route, address, reached)
            sock, address = connect(nearest, addresses, limits, route.via)
        except NetworkError as error:
            if proxy is not None:
                error.phase = Phase.PROXY
            raise
        connection = Connection(sock, route, address, limits)
        limits.cancellation.attach(connection)
        try:
            if route.origin.scheme == "https":
                if proxy is not None:
                    _open_tunnel(connection, proxy)
                secured = self._contexts.handshake(sock, route.origin, route.identity, limits, route.via)
                connection = Connection(secured, route, address, limits)
        except BaseException:
            connection.close()
            raise
        finally:
            limits.cancellation.attach(None)
        return connection

    def remember(self, connection: Connection) -> None:
        """Keep the TLS session of a connection that served an answer, for the next one to the same origin."""
        if connection.route.origin.scheme == "https":
            self._contexts.remember(connection.sock, connection.route.origin, connection.route.identity)


def judge(route: Route, address: Address, reached: frozenset[AddressClass] | None) -> None:
    """Return only if the address may be connected to; a proxy is ours and may be anywhere. Raises SourceError."""
    if route.proxy is None:
        require_allowed(route.origin, address.text, address.kind, reached)


def judge_name(route: Route, reached: frozenset[AddressClass] | None) -> None:
    """The same for what a proxy will resolve: all that can be judged is the text. Raises SourceError."""
    if route.proxy is not None:
        require_allowed(route.origin, route.origin.host, classify_name(route.origin.host), reached)


def _open_tunnel(connection: Connection, proxy: Proxy) -> None:
    """Ask the proxy for a connection to the origin (RFC 9110, 9.3.6). Raises NetworkError, SourceError."""
    target = connection.route.origin.address
    fields = {"Host": target, **proxy_authorization(proxy)}
    try:
        connection.send(encode_request("CONNECT", target, fields.items()))
        head = connection.receive_head()
    except (NetworkError, GarbledError) as error:
        error.phase = Phase.PROXY
        raise
    if not 200 <= head.status < 300:
        raise proxy_refusal(connection.route.origin, proxy, head.status)


def proxy_refusal(origin: Origin, proxy: Proxy, status: int) -> SourceError:
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
    if proxy.credentials.is_anonymous():
        return {}
    pair = f"{proxy.credentials.username}:{proxy.credentials.password}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}

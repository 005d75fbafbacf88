# SPDX-License-Identifier: Apache-2.0
"""New connections: resolved, judged, raced, tunnelled through a proxy and secured, as their route says."""

from __future__ import annotations

import base64
import os

from .. import log
from ..errors import AuthenticationError, ErrorCode, NetworkError, Phase, RegistryError, SourceError
from ..hostconfig.proxyenv import Proxy
from .addresses import Address, AddressClass, classify_name, require_allowed, resolve
from .connection import Connection, Route
from .http1 import GarbledError, encode_request
from .limits import Limits
from .race import connect
from .tls import TlsContexts
from .url import Origin

_TLS_RECORDS = frozenset({0x15, 0x16})  # an alert, a handshake (RFC 8446, 5.1)


class Dialer:
    """Opens connections for one process; safe from any thread."""

    def __init__(self) -> None:
        self._contexts = TlsContexts()

    def open(self, route: Route, limits: Limits, reached: frozenset[AddressClass] | None) -> Connection:
        """A connection over which the origin of `route` can be asked; the caller closes it.

        `reached` None: we were told of the origin by our user, so it may be anywhere. Raises NetworkError, SourceError
        (tls codes, address-refused), ConfigurationError (unusable certificate files).
        """
        try:
            return self._open(route, limits, reached)
        except SourceError as error:
            if error.code is not ErrorCode.TLS_UNTRUSTED or not self._contexts.trust_all(route.identity):
                raise
            log.debug("%s; once more with every authority that the system has", error)
            return self._open(route, limits, reached)

    def sniff(self, route: Route, limits: Limits) -> bool:
        """Whether the other side speaks TLS, found out without it: importing `ssl` costs more than asking.

        For a direct connection that our user told us of. Raises NetworkError as a handshake would.
        """
        host = route.origin.address
        sock, address = connect(route.origin, resolve(route.origin, limits, route.via), limits, route.via)
        connection = Connection(sock, route, address, limits)
        limits.cancellation.attach(connection)
        try:
            seconds = limits.seconds(limits.times.tls_handshake, Phase.TLS, host, route.via)
            connection.limits = limits.until(limits.clock.monotonic() + seconds)
            connection.send(_client_hello())
            answer = memoryview(bytearray(1))
            if not connection.receive_into(answer):
                raise NetworkError(f"{host}: the connection ended during the tls handshake ({route.via})", host=host)
            return answer[0] in _TLS_RECORDS
        except NetworkError as error:
            error.phase = Phase.TLS
            raise
        finally:
            limits.cancellation.attach(None)
            connection.close()

    def _open(self, route: Route, limits: Limits, reached: frozenset[AddressClass] | None) -> Connection:
        proxy = route.proxy
        nearest = route.origin if proxy is None else Origin("http", proxy.host, proxy.port)
        if route.origin.scheme == "https":
            self._contexts.prepare(route.identity)
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


def _client_hello() -> bytes:
    """The beginning of a handshake that any server of TLS 1.2 or 1.3 has an answer to (RFC 8446, 4.1.2)."""
    groups = b"\x00\x0a\x00\x06\x00\x04\x00\x1d\x00\x17"  # x25519, secp256r1
    signatures = b"\x00\x0d\x00\x08\x00\x06\x04\x03\x08\x04\x04\x01"
    versions = b"\x00\x2b\x00\x05\x04\x03\x04\x03\x03"
    extensions = groups + signatures + versions
    suites = b"\x13\x01\xc0\x2f\xc0\x2b"
    body = b"\x03\x03" + os.urandom(32) + b"\x00" + _sized(suites, 2) + b"\x01\x00" + _sized(extensions, 2)
    return b"\x16\x03\x01" + _sized(b"\x01" + _sized(body, 3), 2)


def _sized(data: bytes, width: int) -> bytes:
    return len(data).to_bytes(width, "big") + data


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

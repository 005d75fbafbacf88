# SPDX-License-Identifier: Apache-2.0
"""Ways through a proxy to an origin: CONNECT (RFC 9110, 9.3.6) and SOCKS 5 (RFC 1928, user names by RFC 1929).

A SOCKS proxy looks up names itself, with `socks5` as with `socks5h`: so does Go.
"""

from __future__ import annotations

import base64
import socket
from contextlib import closing

from ..errors import (
    AuthenticationError,
    CipError,
    ConfigurationError,
    ErrorCode,
    NetworkError,
    Phase,
    RegistryError,
    SourceError,
    quote,
)
from ..hostconfig.proxyenv import Proxy
from .channel import Channel
from .response import Response
from .url import Origin

_NO_AUTHENTICATION, _USERNAME, _NOTHING_ACCEPTABLE = 0, 2, 0xFF
_SOCKS_FAULTS = {  # RFC 1928, section 6
    2: ("does not allow it", ErrorCode.REGISTRY_ERROR),
    3: ("finds no way to its network", ErrorCode.CONNECTION_REFUSED),
    4: ("does not reach it", ErrorCode.CONNECTION_REFUSED),
    5: ("is refused by it", ErrorCode.CONNECTION_REFUSED),
    6: ("gets no answer from it", ErrorCode.TIMEOUT),
}


def open_tunnel(channel: Channel, origin: Origin, proxy: Proxy) -> None:
    """Make of the channel to `proxy` one to the origin. Raises NetworkError, SourceError in the phase `proxy`."""
    try:
        if proxy.speaks_http:
            _connect(channel, origin, proxy)
        else:
            _socks(channel, origin, proxy)
        if not channel.lines.is_idle():
            raise RegistryError(f"{origin.address}: expected tls, found bytes behind an answer ({channel.via})")
    except CipError as error:
        error.phase = Phase.PROXY
        raise


def _connect(channel: Channel, origin: Origin, proxy: Proxy) -> None:
    fields = {"Host": origin.tunnel, **proxy_authorization(proxy)}
    lines = [f"CONNECT {origin.tunnel} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    with closing(Response(channel, method="CONNECT")) as answer:
        channel.sendall("\r\n".join(lines).encode("ascii"))
        answer.begin()
        if not 200 <= answer.status < 300:
            raise proxy_refusal(origin, proxy, answer.status)


def _socks(channel: Channel, origin: Origin, proxy: Proxy) -> None:
    secrets = [part.encode("utf-8") for part in (proxy.credentials.username, proxy.credentials.password)]
    if max(map(len, secrets)) > 255:
        raise ConfigurationError(proxy.variable, "user name or password: more than 255 bytes")
    methods = [_NO_AUTHENTICATION] if proxy.credentials.is_anonymous() else [_NO_AUTHENTICATION, _USERNAME]
    channel.sendall(bytes([5, len(methods), *methods]))
    version, chosen = _receive(channel, 2)
    if version != 5:
        raise RegistryError(f"{proxy.address}: expected SOCKS 5, found another protocol ({channel.via})")
    if chosen == _USERNAME and _USERNAME in methods:
        channel.sendall(b"\x01" + b"".join(bytes([len(part)]) + part for part in secrets))
        chosen = _NOTHING_ACCEPTABLE if _receive(channel, 2)[1] else _NO_AUTHENTICATION
    if chosen != _NO_AUTHENTICATION:
        raise _unwelcome(origin, proxy, None)
    channel.sendall(b"\x05\x01\x00" + _address(origin.host) + origin.port.to_bytes(2, "big"))
    _, code, _, kind = _receive(channel, 4)
    bound = _receive(channel, 1)[0] if kind == 3 else {1: 4, 4: 16}.get(kind, 0)
    _receive(channel, bound + 2)
    if code:
        why, meaning = _SOCKS_FAULTS.get(code, (f"fails with code {code}", ErrorCode.REGISTRY_ERROR))
        raise NetworkError.at(origin.address, f"the proxy {proxy.address} {why}", code=meaning)


def _address(host: str) -> bytes:
    """A literal by its bytes, a name by its length and text."""
    for kind, family in ((1, socket.AF_INET), (4, socket.AF_INET6)):
        try:
            return bytes([kind]) + socket.inet_pton(family, host)
        except OSError:
            continue
    if len(host) > 255:
        shown = quote(host)
        raise NetworkError(f"{shown}: the name is not resolved: it is too long", code=ErrorCode.NAME_NOT_RESOLVED)
    return bytes([3, len(host)]) + host.encode("ascii")


def _receive(channel: Channel, size: int) -> bytes:
    data = memoryview(bytearray(size))
    filled = 0
    while filled < size:
        count = channel.recv_into(data[filled:])
        if not count:
            raise NetworkError(f"{channel.host}: the connection ended in the middle of an answer ({channel.via})")
        filled += count
    return bytes(data)


def proxy_refusal(origin: Origin, proxy: Proxy, status: int) -> SourceError:
    """The error for an answer that a proxy gave for itself."""
    if status in (401, 407):  # tinyproxy answers 401 to a wrong password
        return _unwelcome(origin, proxy, status)
    why = f"{origin.address}: the proxy {proxy.address} answers {status} to CONNECT"
    return RegistryError(why, host=proxy.address, phase=Phase.PROXY, http_status=status)


def _unwelcome(origin: Origin, proxy: Proxy, status: int | None) -> AuthenticationError:
    why = f"{origin.address}: the proxy {proxy.address} refuses the credentials that its URL has, or has not"
    return AuthenticationError(why, host=proxy.address, phase=Phase.PROXY, http_status=status)


def proxy_authorization(proxy: Proxy) -> dict[str, str]:
    """The field that lets us use the proxy, where it asks for that."""
    if proxy.credentials.is_anonymous():
        return {}
    pair = f"{proxy.credentials.username}:{proxy.credentials.password}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}

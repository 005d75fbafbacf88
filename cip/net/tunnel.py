# SPDX-License-Identifier: Apache-2.0
"""The way through a proxy to an origin: CONNECT (RFC 9110, 9.3.6)."""

from __future__ import annotations

from contextlib import closing

from .. import rooms
from ..errors import AuthenticationError, Phase, RegistryError, SourceError
from ..hostconfig.proxyenv import Proxy
from .channel import Channel
from .response import Response
from .url import Origin, basic_authorization


def open_tunnel(channel: Channel, origin: Origin, proxy: Proxy) -> None:
    """Make of the channel to `proxy` one to the origin. Raises NetworkError, SourceError."""
    if proxy.speaks_http:
        _connect(channel, origin, proxy)
    else:
        rooms.open_socks(channel, origin, proxy)
    if not channel.lines.is_idle():
        raise RegistryError(f"{origin.address}: expected tls, found bytes behind an answer ({channel.via})")


def _connect(channel: Channel, origin: Origin, proxy: Proxy) -> None:
    fields = {"Host": origin.tunnel, **proxy_authorization(proxy)}
    lines = [f"CONNECT {origin.tunnel} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    with closing(Response(channel, method="CONNECT")) as answer:
        channel.sendall("\r\n".join(lines).encode("ascii"))
        answer.begin()
        if not 200 <= answer.status < 300:
            raise proxy_refusal(origin, proxy, answer.status)


def proxy_refusal(origin: Origin, proxy: Proxy, status: int) -> SourceError:
    """The error for an answer that a proxy gave for itself."""
    if status in (401, 407):  # tinyproxy answers 401 to a wrong password
        return unwelcome(origin, proxy, status)
    why = f"{origin.address}: the proxy {proxy.address} answers {status} to CONNECT"
    return RegistryError(why, host=proxy.address, phase=Phase.PROXY, http_status=status)


def unwelcome(origin: Origin, proxy: Proxy, status: int | None) -> AuthenticationError:
    """The error of a proxy that does not take our credentials, or that we have none."""
    why = f"{origin.address}: the proxy {proxy.address} refuses the credentials that its URL has, or has not"
    return AuthenticationError(why, host=proxy.address, phase=Phase.PROXY, http_status=status)


def proxy_authorization(proxy: Proxy) -> dict[str, str]:
    """The field that lets us use the proxy, where it asks for that."""
    if proxy.credentials.is_anonymous():
        return {}
    return {"Proxy-Authorization": basic_authorization(proxy.credentials)}

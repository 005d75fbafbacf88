# SPDX-License-Identifier: Apache-2.0
"""Through a proxy by SOCKS 5 (RFC 1928, user names by RFC 1929), which looks up names itself, as with Go."""

from __future__ import annotations

import socket

from ..errors import ConfigurationError, ErrorCode, NetworkError, RegistryError, quote
from ..hostconfig.proxyenv import Proxy
from .channel import Channel
from .tunnel import unwelcome
from .url import Origin

_NO_AUTHENTICATION, _USERNAME, _NOTHING_ACCEPTABLE = 0, 2, 0xFF
_SOCKS_FAULTS = {  # RFC 1928, section 6
    2: ("does not allow it", ErrorCode.REGISTRY_ERROR),
    3: ("finds no way to its network", ErrorCode.CONNECTION_REFUSED),
    4: ("does not reach it", ErrorCode.CONNECTION_REFUSED),
    5: ("is refused by it", ErrorCode.CONNECTION_REFUSED),
    6: ("gets no answer from it", ErrorCode.TIMEOUT),
}


def open_socks(channel: Channel, origin: Origin, proxy: Proxy) -> None:
    """Make of the channel to `proxy` one to the origin. Raises NetworkError, SourceError, ConfigurationError."""
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
        raise unwelcome(origin, proxy, None)
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
        raise NetworkError(f"{quote(host)}: the name is not resolved: it is too long", code=ErrorCode.NAME_NOT_RESOLVED)
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

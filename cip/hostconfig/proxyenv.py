# SPDX-License-Identifier: Apache-2.0
"""The proxy for one origin, from HTTP_PROXY, HTTPS_PROXY and NO_PROXY by the rules of Go (registry.md 5.3).

Not `urllib`: it prefers the lower-case variables, sends loopback through a proxy and knows no networks in NO_PROXY.
No message shows a variable's value, which may hold a password.
"""

import re
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ConfigurationError
from ..settings import Credentials, HostEnvironment

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
# the last `@` ends the user information
_URL = r"(?:([A-Za-z][A-Za-z0-9+.-]*)://)?(?:([^/?#]*)@)?(?:\[([^\]/?#@]+)\]|([^:/?#@\[\]]+))(?::([0-9]*))?(?:[/?#].*)?"
_NAME = r"(?a)[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?\.?"
_ADDRESS_V6 = r"(?a)[0-9a-f:.]{2,45}"


class Proxy(NamedTuple):
    """Where requests go instead of to their origin; `scheme` (http, https, socks5, socks5h) is how it is spoken to.

    `host` is a lower-case name or address without brackets. `variable` is the one that named the proxy.
    """

    scheme: str
    host: str
    port: int
    credentials: Credentials = Credentials()
    variable: str = ""

    @property
    def speaks_http(self) -> bool:
        """Whether it takes requests, and not only connections."""
        return self.scheme in ("http", "https")

    @property
    def address(self) -> str:
        """`host:port` for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def choose_proxy(environment: HostEnvironment, scheme: str, host: str, port: int) -> Proxy | None:
    """The proxy for requests to `scheme://host:port` (`host` without brackets), None to go directly.

    Raises ConfigurationError for a variable that names no usable proxy, and where HTTP_PROXY cannot be believed.
    """
    name = "HTTP_PROXY" if scheme == "http" else "HTTPS_PROXY"
    variable, value = _variable(environment, name)
    if not value or _goes_directly(environment, host.lower(), port):
        return None
    if scheme == "http" and environment.get("REQUEST_METHOD"):
        # CGI: a request's header `Proxy:` becomes HTTP_PROXY
        raise ConfigurationError(variable, "not used, because REQUEST_METHOD is set and a client could have chosen it")
    return _parse_proxy(variable, value)


def describe_way(proxy: Proxy | None) -> str:
    """How an origin is reached, for messages."""
    return "direct" if proxy is None else f"via proxy {proxy.address}"


def _variable(environment: HostEnvironment, name: str) -> tuple[str, str]:
    """The spelling that is set, upper case first, with its value."""
    return next(
        ((spelling, environment.get(spelling)) for spelling in (name, name.lower()) if environment.get(spelling)),
        (name, ""),
    )


def _parse_proxy(variable: str, value: str) -> Proxy:
    match = re.fullmatch(_URL, value)
    unsafe = any(ord(letter) < 33 or ord(letter) == 127 for letter in value)
    # With `://` there must be a scheme: without this check a broken URL is a host "http" with a path.
    if match is None or unsafe or (match[1] is None and "://" in value):
        raise ConfigurationError(variable, "expected http://[USER:PASSWORD@]HOST[:PORT]")
    scheme = (match[1] or "http").lower()
    if scheme not in _DEFAULT_PORTS:
        raise ConfigurationError(variable, f"expected a proxy of scheme http, https or socks5, found {scheme[:20]!r}")
    host = (match[3] or match[4]).lower()
    if not re.fullmatch(_ADDRESS_V6 if match[3] else _NAME, host):
        raise ConfigurationError(variable, "expected a host name or an address in the proxy's URL")
    port = _DEFAULT_PORTS[scheme] if not match[5] else int(match[5]) if len(match[5]) < 6 else 0
    if not 0 < port < 65536:
        raise ConfigurationError(variable, "expected a port from 1 to 65535")
    return Proxy(scheme, host, port, _parse_userinfo(variable, match[2]), variable)


def _parse_userinfo(variable: str, userinfo: str | None) -> Credentials:
    if not userinfo:
        return Credentials()
    from urllib.parse import unquote_to_bytes

    username, _, password = userinfo.partition(":")
    try:
        encoded = [part.encode("utf-8", "surrogateescape") for part in (username, password)]
        decoded = [unquote_to_bytes(part).decode("utf-8") for part in encoded]
    except UnicodeDecodeError as error:
        raise ConfigurationError(variable, "user name or password: not valid UTF-8") from error
    if any(letter in part for part in decoded for letter in "\r\n\0"):
        raise ConfigurationError(variable, "user name or password: contains a line break or a NUL byte")
    return Credentials(decoded[0], decoded[1])


def _goes_directly(environment: HostEnvironment, host: str, port: int) -> bool:
    """Whether no proxy is used for a host: itself, or an entry of NO_PROXY."""
    if host == "localhost":
        return True
    address = _parse_address(host)
    if address is not None and address.is_loopback:
        return True
    entries = _variable(environment, "NO_PROXY")[1]
    return any(_excludes(entry.strip().lower(), host, address, str(port)) for entry in entries.split(","))


def _excludes(entry: str, host: str, address: "IPv4Address | IPv6Address | None", port: str) -> bool:
    """Whether one item of NO_PROXY covers the host. An item that makes no sense covers nothing, as in Go."""
    if not entry:
        return False
    if entry == "*":
        return True
    if "/" in entry:
        return address is not None and _in_network(address, entry)
    name, wanted_port = _split_port(entry)
    if not name:
        return False
    if wanted_port and wanted_port != port:
        return False
    listed = _parse_address(name)
    if listed is not None:
        return listed == address
    if name.startswith("*."):
        name = name[1:]
    if name.startswith("."):
        return host.endswith(name)
    return host == name or host.endswith(f".{name}")


def _split_port(entry: str) -> tuple[str, str]:
    if entry.startswith("["):
        name, bracket, rest = entry[1:].partition("]")
        return (name, rest.removeprefix(":")) if bracket else ("", "")
    if entry.count(":") != 1:
        return entry, ""  # a name, or an IPv6 address without brackets
    name, _, port = entry.partition(":")
    return name, port


def _in_network(address: "IPv4Address | IPv6Address", entry: str) -> bool:
    from ipaddress import ip_network

    try:
        network = ip_network(entry, strict=False)
    except ValueError:
        return False
    return network.version == address.version and address in network


def _parse_address(text: str) -> "IPv4Address | IPv6Address | None":
    """An address; IPv4 in IPv6 clothes becomes IPv4, so that both are equal."""
    if not text.isascii() or not (text[:1].isdigit() or ":" in text):
        return None
    from ipaddress import IPv6Address, ip_address

    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address

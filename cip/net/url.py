# SPDX-License-Identifier: Apache-2.0
"""URLs of http and https, read strictly: two readers that disagree about a host are an attack (RFC 3986, RFC 9110 4.2).

Forms and relative references are `urllib.parse`'s. URLs are not: it accepts and repairs what a registry has no reason
to send, such as spaces, backslashes and line breaks, and knows nothing of ports out of range.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import InvalidInputError, quote, redacted
from ..settings import Credentials

DEFAULT_PORTS = {"http": 80, "https": 443}
URL_LIMIT = 8192  # characters

_URL = r"(?ai)(https?)://([^/?#]*)([^#]*)(?:#.*)?"
_NAME = r"(?a)[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?\.?"
_V6 = r"(?a)[0-9a-f:.]{2,45}"
_AUTHORITY = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::([0-9]*))?", re.ASCII)
_SCHEME = r"(?a)[A-Za-z][A-Za-z0-9+.-]*:"
_UNSAFE = r"[\x00-\x1f\x7f\\]"
_TO_ENCODE = r"(?a)[^!#-;=?-\[\]_a-z~]"


class Origin(NamedTuple):
    """Scheme, host (lower case, no brackets) and port: what credentials belong to.

    `shown` is what messages say instead of a host that repeats a secret; whoever sends us there is hostile.
    """

    scheme: str
    host: str
    port: int
    shown: str = ""

    def is_same(self, other: "Origin") -> bool:
        """Whether both are one origin, however messages call them: a password may occur in the name of its registry."""
        return self[:3] == other[:3]

    @property
    def authority(self) -> str:
        """`host` or `host:port` as the Host field writes it."""
        return self.tunnel.removesuffix(f":{DEFAULT_PORTS[self.scheme]}")

    @property
    def tunnel(self) -> str:
        """`host:port`, always with the port, as CONNECT writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def address(self) -> str:
        """`host:port` for messages."""
        return f"{self.shown}:{self.port}" if self.shown else self.tunnel


class Url(NamedTuple):
    """A parsed URL. `target` is path and query as they go into a request line; a query never goes into a message.

    `shown` is what messages say instead of a path that repeats a secret.
    """

    origin: Origin
    target: str
    shown: str = ""

    def __str__(self) -> str:
        host = self.origin.address if self.origin.shown else self.origin.authority
        return f"{self.origin.scheme}://{host}{self.shown or self.target.partition('?')[0]}"

    @property
    def query(self) -> str:
        """What stands behind the `?`, still encoded."""
        return self.target.partition("?")[2]

    def with_query(self, query: str) -> "Url":
        """The same place, asked something else."""
        path = self.target.partition("?")[0]
        return self._replace(target=f"{path}?{query}" if query else path)


def parse_url(text: str) -> Url:
    """Parse an absolute http or https URL; a fragment is dropped. Raises InvalidInputError, never showing the query."""
    shown = quote(text.partition("?")[0])
    if len(text) > URL_LIMIT:
        raise InvalidInputError(f"URL {shown}: longer than {URL_LIMIT} characters")
    match = re.fullmatch(_URL, _encode_foreign(text, shown))
    if match is None:
        raise InvalidInputError(f"URL {shown}: expected http://HOST/… or https://HOST/…")
    if "@" in match[2]:
        raise InvalidInputError(f"URL of scheme {match[1].lower()}: user name or password in front of the host")
    target = match[3] if match[3].startswith("/") else "/" + match[3]
    return Url(parse_origin(match[1].lower(), match[2]), target)


def parse_foreign_url(text: str) -> Url:
    """As `parse_url`, for a URL that a registry chose: as text it says none of the secrets that it repeats."""
    url = parse_url(text)
    path = url.target.partition("?")[0]
    written = text.partition("//")[2].removeprefix("[")[: len(url.origin.host)]  # lower case is base64 no more
    port = f":{url.origin.port}"
    between = port if url.origin.authority == url.origin.tunnel else ""

    def is_clean(host: str, path: str) -> bool:
        return all(redacted(each) == each for each in (f"{host}{port}", f"{host}{between}{path}"))

    if is_clean(written, path):
        return url
    host, shown = redacted(written).lower(), redacted(path)
    if not is_clean(host, shown):
        host, shown = "[redacted]", "/[redacted]"  # a secret, or more of one, that has a joint in it
    origin = url.origin if host == url.origin.host else url.origin._replace(shown=host)
    return Url(origin, url.target, "" if shown == path else shown)


def parse_origin(scheme: str, authority: str) -> Origin:
    """The origin of `host[:port]`. Raises InvalidInputError."""
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise InvalidInputError(f"{quote(authority)}: expected HOST or HOST:PORT")
    written = match[2] if match[1] is None else match[1]
    host = written.lower()
    if not re.fullmatch(_NAME if match[1] is None else _V6, host):
        raise InvalidInputError(f"{quote(authority)}: {quote(written)} is not a host name")
    port = int(match[3]) if match[3] and len(match[3]) < 8 else (DEFAULT_PORTS[scheme] if not match[3] else 0)
    if not 0 < port < 65536:
        raise InvalidInputError(f"{quote(authority)}: expected a port from 1 to 65535")
    return Origin(scheme, host, port)


def join_url(base: Url, location: str) -> Url:
    """The URL that `location`, absolute or relative, names seen from `base` (RFC 3986, 5.2).

    Raises InvalidInputError.
    """
    scheme = "" if re.match(_SCHEME, location) else f"{base.origin.scheme}:"
    if not scheme or location.startswith("//"):  # where no host follows, urllib takes a path, and others what follows
        return parse_foreign_url(scheme + location)
    from urllib.parse import urljoin  # here and below, because a connection may be on its way when it is loaded

    location = _encode_foreign(location, quote(location.partition("?")[0]))  # else line breaks would be dropped
    return parse_foreign_url(urljoin(f"{scheme}//{base.origin.authority}{base.target}", location))


def basic_authorization(credentials: Credentials) -> str:
    """The value of an Authorization field; anonymous ones are sent too (registry.md 4.3, M1)."""
    from base64 import b64encode

    # what was given on the command line in another coding goes as the bytes that it was
    pair = f"{credentials.username}:{credentials.password}".encode("utf-8", "surrogateescape")
    return f"Basic {b64encode(pair).decode('ascii')}"


def encode_form(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and values as a form: sorted by name, values of one name in their order (registry.md 4.4)."""
    from urllib.parse import urlencode

    return urlencode(sorted(pairs, key=lambda pair: pair[0]), errors="surrogateescape")


def decode_form(text: str) -> list[tuple[str, str]]:
    """Names and values of a query; what is not UTF-8 is replaced."""
    from urllib.parse import parse_qsl

    return parse_qsl(text, keep_blank_values=True)


def _encode_foreign(text: str, shown: str) -> str:
    """What no URL has, but some servers write, as %XX; what could end a request line is refused."""
    if re.search(_UNSAFE, text):
        raise InvalidInputError(f"URL {shown}: contains a character that a URL cannot have")
    try:
        return re.sub(_TO_ENCODE, lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8")), text)
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"URL {shown}: not valid UTF-8") from error

# SPDX-License-Identifier: Apache-2.0
"""Challenges of registries, and the authorizations that answer them (registry.md section 4).

A challenge comes from the 401 of the request itself; a later 401 may replace it once in a request. Tokens and
challenges belong to one endpoint of one image. No secret ever gets into a message, a log line or `repr`.
"""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from .. import log
from ..errors import AuthenticationError, CipError, ErrorCode, Phase
from ..model.jsontree import parse_json
from ..net.httpclient import Request, Requester, Response
from ..net.limits import Clock, Limits
from ..net.url import Origin, decode_form, encode_form, parse_url
from ..settings import Credentials
from .answers import refusal, require_uncompressed
from .timestamps import parse_rfc3339

TOKEN_LIMIT = 1024 * 1024  # bytes of a token server's answer
MINIMUM_LIFETIME = 60.0  # seconds that any token is taken to live
SCHEMES = ("basic", "bearer")
CLIENT_ID = "containers/image"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_SPACE = " \t\r\n"
_TEXTS = ("token", "access_token", "issued_at")
_YEAR_ONE = "0001-01-01T00:00:00Z"
_HEADER_SAFE = re.compile(r"[\x21-\x7e]*", re.ASCII)


class Challenge(NamedTuple):
    """What a 401 asks for; scheme and parameter names in lower case."""

    scheme: str
    parameters: Mapping[str, str]

    @property
    def wants_other(self) -> tuple[str, str, str]:
        """What must differ for another try to make sense."""
        return self.scheme, self.parameters.get("realm", ""), self.parameters.get("service", "")


class Token(NamedTuple):
    """A bearer token and the time of day until which it is used again."""

    value: str
    expires: float

    def __repr__(self) -> str:
        return f"Token(…, expires={self.expires})"


# --- parsing ---


def parse_challenges(lines: Sequence[str]) -> list[Challenge]:
    """The challenges of all WWW-Authenticate lines, at most one for each (registry.md 4.2)."""
    found = []
    for line in lines:
        scheme = _TOKEN.match(line)
        if scheme is not None:
            found.append(Challenge(scheme[0].lower(), _parse_parameters("," + line[scheme.end() :].lstrip(_SPACE))))
    return found


def choose_challenge(challenges: Sequence[Challenge]) -> Challenge | None:
    """The first one that we can answer."""
    return next((challenge for challenge in challenges if challenge.scheme in SCHEMES), None)


def _parse_parameters(rest: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    while rest.startswith(","):
        rest = rest[1:].lstrip(_SPACE)
        name = _TOKEN.match(rest)
        if name is None or rest[name.end() : name.end() + 1] != "=":
            break
        value, rest = _parse_value(rest[name.end() + 1 :])
        if not value:
            break
        parameters[name[0].lower()] = value
        rest = rest.lstrip(_SPACE)
    return parameters


def _parse_value(text: str) -> tuple[str, str]:
    """A token or a quoted string, and what follows; an unterminated string is an empty value."""
    if not text.startswith('"'):
        token = _TOKEN.match(text)
        return (token[0], text[token.end() :]) if token else ("", text)
    value: list[str] = []
    position = 1
    while position < len(text):
        letter = text[position]
        if letter == '"':
            return "".join(value), text[position + 1 :]
        if letter == "\\":
            position += 1
            if position == len(text):
                break
        value.append(text[position])
        position += 1
    return "", ""


def added_scope(challenge: Challenge) -> str:
    """The further scope that an `insufficient_scope` asks for, or nothing (registry.md 4.6)."""
    scope = challenge.parameters.get("scope", "")
    wanted = challenge.parameters.get("error") == "insufficient_scope" and scope.count(":") == 2 and " " not in scope
    return scope if wanted else ""


def parse_token(body: bytes, now: float, host: str) -> Token:
    """The token in a token server's answer (registry.md 4.5). Raises AuthenticationError."""
    def bad(where: str, why: str) -> AuthenticationError:
        return AuthenticationError(f"{where}: {why}", host=host, phase=Phase.TOKEN)

    root = parse_json(body, f"{host}: token", error=bad)
    members = {} if root.is_null() else root.folded((*_TEXTS, "expires_in"))
    texts = {name: node.as_str() for name, node in members.items() if name in _TEXTS}
    lifetime = members.get("expires_in")
    seconds = MINIMUM_LIFETIME if lifetime is None else lifetime.as_int(maximum=2**53)
    value = texts.get("token") or texts.get("access_token") or ""
    if not _HEADER_SAFE.fullmatch(value):
        raise bad(root.document, "contains a character that a header cannot have")
    issued: float | None = now
    if texts.get("issued_at", _YEAR_ONE) != _YEAR_ONE:
        issued = parse_rfc3339(texts["issued_at"])
    if issued is None:
        raise bad(f"{root.document}: issued_at", "expected an RFC 3339 time")
    return Token(value, issued + max(seconds, MINIMUM_LIFETIME))


# --- requests ---


def token_request(challenge: Challenge, scopes: Sequence[str], credentials: Credentials, registry: Origin) -> Request:
    """The request for a token (registry.md 4.4). Raises AuthenticationError for an unusable realm."""
    host = registry.address
    realm = challenge.parameters.get("realm", "")
    try:
        url = parse_url(realm)
    except CipError as error:
        raise AuthenticationError(
            f"{host}: the realm of its challenge is unusable: {error}", host=host, phase=Phase.TOKEN
        ) from error
    service = challenge.parameters.get("service", "")
    pairs = decode_form(url.query)
    if credentials.identity_token:
        pairs += [("service", service)] if service else []
        pairs += [("scope", scope) for scope in scopes]
        pairs += [("grant_type", "refresh_token"), ("refresh_token", credentials.identity_token)]
        pairs += [("client_id", CLIENT_ID)]
        fields = {"Content-Type": "application/x-www-form-urlencoded"}
        return Request(url, fields, body=encode_form(pairs).encode("ascii"), configured=url.origin == registry)
    pairs += [("account", credentials.username)] if credentials.username else []
    pairs += [("service", service)] if service else []
    pairs += [("scope", scope) for scope in scopes]
    both = credentials.username and credentials.password
    return Request(
        url.with_query(encode_form(pairs)),
        authorization=basic_authorization(credentials) if both else "",
        configured=url.origin == registry,
    )


def basic_authorization(credentials: Credentials) -> str:
    """The value of an Authorization field; anonymous ones are sent too (registry.md 4.3, M1)."""
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode('ascii')}"


# --- one endpoint's access ---


class Access(NamedTuple):
    """With what an endpoint may be entered, and where that comes from, for messages and events."""

    credentials: Credentials
    registry_token: str
    source: str  # the file, the flag or the helper; empty for nothing
    description: str  # which files were looked at and which key matched

    def __repr__(self) -> str:
        return f"Access(source={self.source!r})"


class Authorizer:
    """Answers the challenges of one endpoint; safe from any thread, holds no lock during a request.

    `tell` is called with the scheme when credentials are first used.
    """

    def __init__(
        self,
        requester: Requester,
        access: Access,
        repository: str,
        clock: Clock,
        tell: Callable[[str, str], None],
    ) -> None:
        self._requester = requester
        self._access = access
        self._default_scope = f"repository:{repository}:pull"
        self._clock = clock
        self._tell = tell
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._token: Token | None = None
        self._told = False

    @property
    def source(self) -> str:
        """The file, flag or helper that the credentials come from; empty for none."""
        return self._access.source

    def describe(self) -> str:
        """How access was tried, for a refusal: scheme, files, key; never a secret."""
        challenge = self._challenge
        scheme = f"scheme {challenge.scheme}" if challenge else "no scheme that we know was offered"
        return f"{scheme}, {self._access.description}"

    def known(self, registry: Origin, limits: Limits) -> tuple[str, bool]:
        """The authorization for the next request, nothing before the first challenge; and whether it is fresh."""
        with self._lock:
            challenge, token = self._challenge, self._token
        if challenge is None:
            return "", False
        if challenge.scheme == "basic" or self._access.registry_token:
            return self._authorize(challenge, "", registry, limits), False
        if token is not None and self._clock.time() <= token.expires:
            return f"Bearer {token.value}", False
        return self._authorize(challenge, "", registry, limits), True

    def answer(self, response: Response, sent: str, *, fresh: bool, limits: Limits) -> str | None:
        """The authorization to repeat a request with that got the 401 `response`; None when nothing would change.

        `sent` is what it had, `fresh` whether that was made for this very request. Leaves the answer open for its
        complaint when there is nothing to repeat, else closes it. Raises SourceError when no token can be had.
        """
        challenge = choose_challenge(parse_challenges(response.fields.get_all("www-authenticate")))
        if challenge is None:
            return None
        extra = added_scope(challenge)
        with self._lock:
            before, self._challenge = self._challenge, challenge
        unchanged = before is not None and before.wants_other == challenge.wants_other
        if sent and unchanged and fresh and not extra:
            return None
        if sent and unchanged and (challenge.scheme == "basic" or self._access.registry_token):
            return None  # the same again
        response.close()
        return self._authorize(challenge, extra, response.url.origin, limits)

    def _authorize(self, challenge: Challenge, extra: str, registry: Origin, limits: Limits) -> str:
        self._tell_once(challenge.scheme, registry.address)
        if challenge.scheme == "basic":
            return basic_authorization(self._access.credentials)
        if self._access.registry_token:
            return f"Bearer {self._access.registry_token}"
        scopes = [self._default_scope] + ([extra] if extra and extra != self._default_scope else [])
        try:
            token = self._fetch(challenge, scopes, registry, limits)
        except CipError as error:
            error.phase = error.phase or Phase.TOKEN
            raise
        if len(scopes) == 1:
            with self._lock:
                self._token = token
        return f"Bearer {token.value}"

    def _fetch(self, challenge: Challenge, scopes: Sequence[str], registry: Origin, limits: Limits) -> Token:
        request = token_request(challenge, scopes, self._access.credentials, registry)
        target = request.url.origin
        self._requester.require_no_downgrade(registry, target, "token realm")
        log.debug("%s: asks for a token from %s", registry.address, request.url)
        response = self._requester.send(request, limits)
        if response.status == 200:
            require_uncompressed(response)
            body = response.read_all(TOKEN_LIMIT, f"{target.address}: token")
            return parse_token(body, self._clock.time(), target.address)
        if response.status in (401, 403):
            response.close()
            raise AuthenticationError(
                f"{registry.address}: the token server {target.address} refuses us with {response.status}; "
                f"{self.describe()}",
                host=target.address,
                http_status=response.status,
            )
        raise refusal(response, "token", ErrorCode.REGISTRY_ERROR, self._clock)

    def _tell_once(self, scheme: str, host: str) -> None:
        with self._lock:
            told, self._told = self._told, True
        if not told:
            self._tell(scheme, host)

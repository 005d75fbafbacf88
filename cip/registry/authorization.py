# SPDX-License-Identifier: Apache-2.0
"""The `http_error_401` handler of one endpoint: answers its challenges, and sends what is known before it is asked.

Tokens and challenges belong to one endpoint of one image. No secret gets into a message, a log line or `repr`.
"""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable, Sequence
from email.message import Message
from typing import NamedTuple, cast

from .. import log
from ..errors import AuthenticationError, CipError, ErrorCode, Phase
from ..net.limits import Clock, Limits
from ..net.opener import Opener, Request, require_no_downgrade
from ..net.response import Response
from ..net.url import Origin
from ..settings import Credentials
from .answers import refusal, require_uncompressed
from .token import (
    Challenge,
    Token,
    added_scope,
    basic_authorization,
    choose_challenge,
    parse_challenges,
    parse_token,
    token_request,
)

TOKEN_LIMIT = 1024 * 1024  # bytes of a token server's answer
ROUNDS = 2  # challenges that are answered in one request


class Access(NamedTuple):
    """With what an endpoint may be entered, and where that comes from, for messages and events."""

    credentials: Credentials
    registry_token: str
    source: str  # the file, the flag or the helper; empty for nothing
    description: str  # which files were looked at and which key matched

    def __repr__(self) -> str:
        return f"Access(source={self.source!r})"


class Authorization(urllib.request.BaseHandler):
    """Enters one endpoint; safe from any thread, holds no lock during a request.

    `tell` is called with the scheme when credentials are first used.
    """

    handler_order = 490  # before what returns the 401 as it is
    parent: Opener

    def __init__(self, access: Access, repository: str, clock: Clock, tell: Callable[[str, str], None]) -> None:
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

    def http_request(self, req: Request) -> Request:
        """Authorize a request by what earlier challenges asked for; before the first one nothing is sent."""
        with self._lock:
            challenge, token = self._challenge, self._token
        if not req.challenged or req.has_header("Authorization") or challenge is None:
            return req
        fetched = challenge.scheme == "bearer" and not self._access.registry_token
        if fetched and token is not None and self._clock.time() <= token.expires:
            req.authorize(f"Bearer {token.value}")
        else:
            req.authorize(self._authorize(challenge, "", req.url.origin, cast(Limits, req.timeout)))
            req.fresh = fetched
        return req

    https_request = http_request

    def http_error_401(self, req: Request, fp: Response, code: int, msg: str, headers: Message) -> Response | None:
        """The answer to the same request with what the challenge asks for; None when nothing would change.

        The answer stays open for its complaint when there is nothing to repeat. Raises SourceError when no token can
        be had.
        """
        challenge = choose_challenge(parse_challenges(headers.get_all("www-authenticate", [])))
        if not req.challenged or req.answered == ROUNDS or challenge is None:
            return None
        extra = added_scope(challenge)
        with self._lock:
            before, self._challenge = self._challenge, challenge
        unchanged = before is not None and before.wants_other == challenge.wants_other
        always_same = challenge.scheme == "basic" or bool(self._access.registry_token)
        if req.has_header("Authorization") and unchanged and (always_same or (req.fresh and not extra)):
            return None
        fp.close()
        limits = cast(Limits, req.timeout)
        req.answered += 1
        req.authorize(self._authorize(challenge, extra, req.url.origin, limits))
        req.fresh = True
        return self.parent.ask(req, limits)

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
        require_no_downgrade(self.parent.identity, registry, target, "token realm")
        log.debug("%s: asks for a token from %s", registry.address, request.url)
        response = self.parent.ask(request, limits)
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

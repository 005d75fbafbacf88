# SPDX-License-Identifier: Apache-2.0
"""The `http_error_401` handler of one endpoint: answers its challenges, and sends what is known before it is asked.

Tokens and challenges belong to one endpoint of one image. No secret gets into a message, a log line or `repr`.
"""

import threading
import urllib.request
from collections.abc import Callable
from email.message import Message
from typing import NamedTuple, cast

from .. import log
from ..errors import AuthenticationError, CipError, ErrorCode, Phase, redacted
from ..net.limits import Clock, Limits
from ..net.opener import Opener, Request, require_no_downgrade
from ..net.response import Response
from ..settings import Credentials
from .answers import read_complaint, refusal, require_uncompressed
from .token import (
    Challenge,
    Token,
    basic_authorization,
    choose_challenge,
    parse_challenges,
    parse_token,
    scopes_to_try,
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
        self._scope = f"repository:{repository}:pull"
        self._clock = clock
        self._tell = tell
        self._lock = threading.Lock()
        self._offered: tuple[str, ...] = ()  # schemes
        self._challenge: Challenge | None = None
        self._token: Token | None = None
        self._given = access.registry_token  # until it is refused
        self._told = False

    @property
    def source(self) -> str:
        """The file, flag or helper that the credentials come from; empty for none."""
        return self._access.source

    @property
    def waits(self) -> bool:
        """Whether there are credentials that nobody has asked for."""
        return not self._offered and not (self._access.credentials.is_anonymous() and not self._given)

    def describe(self) -> str:
        """How access was tried, for a refusal: scheme, files, key; never a secret."""
        challenge = self._challenge
        scheme = f"scheme {challenge.scheme if challenge else redacted(', '.join(self._offered))}"
        return f"{scheme if self._offered else 'no scheme was offered'}, {self._access.description}"

    def learn(self, headers: Message) -> Challenge | None:
        """The challenge of a 401 that is to be answered from now on; None where none can be."""
        challenges = parse_challenges(headers.get_all("www-authenticate", []))
        chosen = choose_challenge(challenges, self._access.credentials, given=bool(self._given))
        with self._lock:
            self._offered = tuple(challenge.scheme for challenge in challenges) or self._offered
            self._challenge = chosen
        return chosen

    def http_request(self, req: Request) -> Request:
        """Authorize a request by what earlier challenges asked for; before the first one nothing is sent."""
        with self._lock:
            challenge, token = self._challenge, self._token
        if not req.challenged or req.has_header("Authorization") or challenge is None:
            return req
        if challenge.scheme == "bearer" and not self._given and token and self._clock.time() <= token.expires:
            req.authorize(f"Bearer {token.value}")
        else:
            self._authorize(req, challenge)
        return req

    https_request = http_request

    def http_error_401(self, req: Request, fp: Response, code: int, msg: str, headers: Message) -> Response | None:
        """The answer to the same request with what the challenge asks for; None when nothing would change.

        A token from before that is refused is dropped, and where nothing else can be sent, the request is repeated
        once without. The answer stays open for its complaint when there is nothing to repeat. Raises SourceError when
        no token can be had.
        """
        if not req.challenged:
            return None
        before, sent = self._challenge, req.authorization
        dropped = sent.startswith("Bearer ") and not req.fresh
        if dropped:
            with self._lock:
                self._token, self._given = None, ""
        challenge = self.learn(headers)
        if challenge is None or req.answered == ROUNDS:
            if not dropped or req.answered == ROUNDS:
                return None
            req.remove_header("Authorization")
        elif sent and not dropped and before is not None and before.wants_other == challenge.wants_other:
            req.scopes += 1  # what was fetched for this request is not enough
            if challenge.scheme == "basic" or req.scopes >= len(scopes_to_try(challenge, self._scope)):
                return None
            req.answered -= 1
        fp.close()
        req.answered += 1
        if challenge is not None:
            self._authorize(req, challenge)
        return self.parent.ask(req, cast(Limits, req.timeout))

    def _authorize(self, req: Request, challenge: Challenge) -> None:
        self._tell_once(challenge.scheme, req.url.origin.address)
        if challenge.scheme == "basic":
            return req.authorize(basic_authorization(self._access.credentials))
        if self._given:
            return req.authorize(f"Bearer {self._given}")
        try:
            token = self._fetch(req, challenge)
        except CipError as error:
            error.phase = error.phase or Phase.TOKEN
            raise
        req.fresh = True
        return req.authorize(f"Bearer {token.value}")

    def _fetch(self, req: Request, challenge: Challenge) -> Token:
        """A token of the first scopes from `req.scopes` on that the token server does not refuse."""
        registry = req.url.origin
        tries = scopes_to_try(challenge, self._scope)
        while True:
            scopes = tries[min(req.scopes, len(tries) - 1)]
            request = token_request(challenge, scopes, self._access.credentials, registry)
            target = request.url.origin
            require_no_downgrade(self.parent.identity, registry, target, "token realm")
            log.debug("%s: asks for a token from %s", registry.address, request.url)
            response = self.parent.ask(request, cast(Limits, req.timeout))
            if response.status not in (400, 401, 403) or req.scopes + 1 >= len(tries):
                break
            response.close()
            req.scopes += 1
        if response.status == 200:
            require_uncompressed(response)
            body = response.read_all(TOKEN_LIMIT, f"{target.address}: token")
            token = parse_token(body, self._clock.time(), target.address)
            if len(scopes) == 1:
                with self._lock:
                    self._token = token
            return token
        if response.status in (401, 403):
            status, said = response.status, read_complaint(response)
            why = f"the token server {target.address} refuses us with status {status}{said}; {self.describe()}"
            raise AuthenticationError(f"{registry.address}: {why}", host=target.address, http_status=status)
        raise refusal(response, "token", ErrorCode.REGISTRY_ERROR, self._clock)

    def _tell_once(self, scheme: str, host: str) -> None:
        with self._lock:
            told, self._told = self._told, True
        if not told:
            self._tell(scheme, host)

# SPDX-License-Identifier: Apache-2.0
"""The `http_error_401` handler of one endpoint: answers its challenges, and sends what is known before it is asked.

Tokens and challenges belong to one endpoint of one image: what a challenge says, the requests for tokens that answer
it, and what token servers send (registry.md 4). No secret gets into a message, a log line or `repr`.
"""

import re
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from email.message import Message
from typing import cast

from .. import log
from ..errors import AuthenticationError, CipError, ErrorCode, Phase, failing, redacted
from ..events import Events
from ..model.jsontree import parse_json
from ..net.limits import Clock, Limits
from ..net.opener import Opener, Request, require_no_downgrade
from ..net.response import Response
from ..net.url import Origin, basic_authorization, decode_form, encode_form, parse_foreign_url
from ..settings import Credentials
from .retry import parse_rfc3339

MINIMUM_LIFETIME = 60.0  # seconds that any token is taken to live
CLIENT_ID = "containers/image"
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_ESCAPED = r"(?s)\\(.)"
_TOKEN68 = r"(?a)[ \t]+[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)"
_SPACE = " \t\r\n"
_PARAMETER = (  # a name, and a quoted string, a token or nothing that could be read
    rf'(?s)[ \t\r\n,]*({_TOKEN})[ \t\r\n]*=[ \t\r\n]*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))?[ \t\r\n]*'
)
_SCHEMES = ("bearer", "basic")
CHALLENGES_LIMIT = 16  # of one answer
VALUE_LIMIT = 64 * 1024  # characters of a token, which is one field of a request
_TEXTS = ("token", "access_token", "issued_at")
_YEAR_ONE = "0001-01-01T00:00:00Z"
_HEADER_SAFE = r"(?a)[\x21-\x7e]*"
TOKEN_LIMIT = 1024 * 1024  # bytes of a token server's answer
ROUNDS = 2  # challenges that are answered in one request


class Challenge:
    """What a 401 asks for; scheme and parameter names in lower case."""

    def __init__(self, scheme: str, parameters: Mapping[str, str]) -> None:
        self.scheme, self.parameters = scheme, parameters

    @property
    def wants_other(self) -> tuple[str, str, str]:
        """What must differ for another try to make sense."""
        return self.scheme, self.parameters.get("realm", ""), self.parameters.get("service", "")


class Token:
    """A bearer token and the time of day until which it is used again."""

    def __init__(self, value: str, expires: float) -> None:
        self.value, self.expires = value, expires


# --- parsing ---


def parse_challenges(lines: Sequence[str]) -> list[Challenge]:
    """The challenges of all WWW-Authenticate lines, each a list (RFC 9110, 11.6.1); a broken rest says nothing."""
    found: list[Challenge] = []
    for line in lines:
        rest = line
        while (scheme := re.match(_TOKEN, rest)) and len(found) < CHALLENGES_LIMIT:
            if rest[scheme.end() :].lstrip(_SPACE).startswith("="):
                break
            rest = rest[scheme.end() :]
            parameters: dict[str, str] = {}
            if token68 := re.match(_TOKEN68, rest):
                rest = rest[token68.end() :]
            elif rest[:1] in _SPACE:
                parameters, rest = _parse_parameters("," + rest)
            name = scheme[0].lower()
            if name not in _SCHEMES:  # then it is told only; in lower case base64 is not known any more
                name = redacted(scheme[0]).lower()
            found.append(Challenge(name, parameters))
            rest = rest.lstrip(_SPACE + ",")
    return found


def choose_challenge(challenges: Sequence[Challenge], credentials: Credentials, *, given: bool) -> Challenge | None:
    """The best one that can work: Bearer, else Basic where there is a password; `given`: a token is at hand.

    Where none can, a Bearer whose realm is unusable: then that can be told.
    """
    bearers = [challenge for challenge in challenges if challenge.scheme == "bearer"]
    basics = [challenge for challenge in challenges if challenge.scheme == "basic"]
    able = bool(credentials.password or (credentials.username and not credentials.identity_token))
    usable = [each for each in bearers if given or _is_url(each.parameters.get("realm", ""))]
    return next(iter([*usable, *(basics if able else ()), *bearers]), None)


def _is_url(text: str) -> bool:
    try:
        parse_foreign_url(text)
    except CipError:
        return False
    return True


def _parse_parameters(rest: str) -> tuple[dict[str, str], str]:
    """The parameters of one challenge, and what follows them: another one, or nothing that could be read.

    An empty value or an unterminated string is the last that could be.
    """
    parameters: dict[str, str] = {}
    while rest.startswith(","):
        found = re.match(_PARAMETER, rest)
        if found is None:
            return parameters, rest.lstrip(_SPACE + ",")
        value = found[3] or re.sub(_ESCAPED, r"\1", found[2] or "")
        if not value:
            break
        parameters[found[1].lower()] = value
        rest = rest[found.end() :]
    return parameters, ""


def scopes_to_try(challenge: Challenge, ours: str) -> list[tuple[str, ...]]:
    """What tokens to ask for, one after the other: for ours, for both, and for an opaque one alone."""
    theirs = tuple(scope for scope in challenge.parameters.get("scope", "").split(" ") if scope not in ("", ours))
    tries: list[tuple[str, ...]] = [(ours,)]
    if theirs:
        tries.append((ours, *theirs))
    if any(scope.count(":") < 2 for scope in theirs):  # not TYPE:NAME:ACTIONS
        tries.append(theirs)
    return tries


def parse_token(body: bytes, now: float, host: str) -> Token:
    """The token in a token server's answer (registry.md 4.5). Raises AuthenticationError."""

    def bad(where: str, why: str) -> AuthenticationError:
        return AuthenticationError(f"{where}: {why}", host=host, phase=Phase.TOKEN)

    root = parse_json(body, f"{host}: token", error=bad)
    members = root.folded((*_TEXTS, "expires_in"), or_null=True)
    texts = {name: members.text(name) for name in _TEXTS}
    lifetime = members.get("expires_in")
    seconds = MINIMUM_LIFETIME if lifetime is None else lifetime.as_int(maximum=2**53)
    value = texts["token"] or texts["access_token"]
    if len(value) > VALUE_LIMIT:
        raise bad(root.document, f"longer than {VALUE_LIMIT} characters")
    if not re.fullmatch(_HEADER_SAFE, value):
        raise bad(root.document, "contains a character that a header cannot have")
    issued: float | None = now
    if members.has("issued_at") and texts["issued_at"] != _YEAR_ONE:
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
        url = parse_foreign_url(realm)
    except CipError as error:
        why = f"the realm of its challenge is unusable: {error}"
        raise AuthenticationError.at(host, why, phase=Phase.TOKEN) from error
    service = challenge.parameters.get("service", "")
    pairs = decode_form(url.query)
    asked = [("service", service)] if service else []
    asked += [("scope", scope) for scope in scopes]
    if credentials.identity_token:
        pairs += [*asked, ("grant_type", "refresh_token"), ("refresh_token", credentials.identity_token)]
        pairs += [("client_id", CLIENT_ID)]
        fields = {"Content-Type": "application/x-www-form-urlencoded"}
        return Request(url, fields, body=encode_form(pairs).encode("ascii"), configured=url.origin.is_same(registry))
    pairs += [("account", credentials.username), *asked] if credentials.username else asked
    both = credentials.username and credentials.password
    return Request(
        url.with_query(encode_form(pairs)),
        authorization=basic_authorization(credentials) if both else "",
        configured=url.origin.is_same(registry),
    )


class Access:
    """With what an endpoint may be entered, and where that comes from, for messages and events.

    `source` is the file, the flag or the helper, empty for nothing; `description` says which files were looked at and
    which key matched.
    """

    def __init__(self, credentials: Credentials, registry_token: str, source: str, description: str) -> None:
        self.credentials, self.registry_token = credentials, registry_token
        self.source, self.description = source, description


class Authorization(urllib.request.BaseHandler):
    """Enters one endpoint; safe from any thread, holds no lock during a request."""

    handler_order = 490  # before what returns the 401 as it is
    parent: Opener

    def __init__(self, access: Access, repository: str, clock: Clock, events: Events) -> None:
        self.access = access
        self._scope = f"repository:{repository}:pull"
        self._clock = clock
        self._events = events
        self._lock = threading.Lock()
        self._offered: tuple[str, ...] = ()  # schemes
        self._challenge: Challenge | None = None
        self._token: Token | None = None
        self._given = access.registry_token  # until it is refused
        self._told = False

    @property
    def waits(self) -> bool:
        """Whether there are credentials that nobody has asked for."""
        return not self._offered and not (self.access.credentials.is_anonymous() and not self._given)

    def describe(self) -> str:
        """How access was tried, for a refusal: scheme, files, key; never a secret."""
        challenge = self._challenge
        scheme = f"authorization scheme {challenge.scheme if challenge else redacted(', '.join(self._offered))}"
        return f"{scheme if self._offered else 'no authorization was demanded'}, {self.access.description}"

    def learn(self, headers: Message) -> Challenge | None:
        """The challenge of a 401 that is to be answered from now on; None where none can be."""
        challenges = parse_challenges(headers.get_all("www-authenticate", []))
        chosen = choose_challenge(challenges, self.access.credentials, given=bool(self._given))
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
            return req.authorize(basic_authorization(self.access.credentials))
        if self._given:
            return req.authorize(f"Bearer {self._given}")
        with failing(Phase.TOKEN):
            token = self._fetch(req, challenge)
        req.fresh = True
        return req.authorize(f"Bearer {token.value}")

    def _fetch(self, req: Request, challenge: Challenge) -> Token:
        """A token of the first scopes from `req.scopes` on that the token server does not refuse."""
        registry = req.url.origin
        tries = scopes_to_try(challenge, self._scope)
        while True:
            scopes = tries[min(req.scopes, len(tries) - 1)]
            request = token_request(challenge, scopes, self.access.credentials, registry)
            target = request.url.origin
            require_no_downgrade(self.parent.identity, registry, target, "token realm")
            log.debug("%s: asks for a token from %s", registry.address, request.url)
            response = self.parent.ask(request, cast(Limits, req.timeout))
            if response.status not in (400, 401, 403) or req.scopes + 1 >= len(tries):
                break
            response.close()
            req.scopes += 1
        if response.status == 200:
            response.require_uncompressed()
            body = response.read_all(TOKEN_LIMIT, f"{target.address}: token")
            token = parse_token(body, self._clock.time(), target.address)
            if len(scopes) == 1:
                with self._lock:
                    self._token = token
            return token
        from .answers import read_complaint, refusal

        if response.status in (401, 403):
            status, said = response.status, read_complaint(response)
            why = f"the token server {target.address} refuses us with status {status}{said}; {self.describe()}"
            raise AuthenticationError(f"{registry.address}: {why}", host=target.address, http_status=status)
        raise refusal(response, "token", ErrorCode.REGISTRY_ERROR, self._clock)

    def _tell_once(self, scheme: str, host: str) -> None:
        with self._lock:
            told, self._told = self._told, True
        if not told:
            self._events.emit("auth", host=host, scheme=scheme, file=self.access.source or None)

# SPDX-License-Identifier: Apache-2.0
"""The `urllib.request.OpenerDirector` of one endpoint, built by hand from handlers that each do one thing.

Rules for a chain of redirects (decisions.md section 2, registry.md S3 and S4): at most REQUEST_LIMIT requests; http
and https only; never from verified https to http; what the registry names is judged by its resolved address before
it is connected to; an Authorization goes to the scheme, host and port it was meant for, and once it was dropped it
does not come back. Cookies, Referer and compressed answers do not exist here.

Not `build_opener`: it adds handlers for files, ftp and the environment's proxies, and a context with all authorities.
The `timeout` of a request is a `Limits`, which the director passes on unread behind redirects and challenges.
"""

import re
import urllib.request
from collections.abc import Callable, Mapping
from email.message import Message
from functools import partial
from typing import Self, cast

from .. import log
from ..errors import CipError, ErrorCode, NetworkError, RegistryError, SourceError
from ..hostconfig.proxyenv import Proxy
from .addresses import AddressClass
from .connection import Connection, ConnectionPool, Route, judge
from .limits import Limits
from .redaction import Secrets
from .response import GarbledError, Response
from .tls import NO_IDENTITY, TlsIdentity
from .url import Origin, Url, join_url

REQUEST_LIMIT = 10  # requests in one chain of redirects
_KEEPING_METHOD = frozenset({307, 308})
_NO_FIELDS: Mapping[str, str] = {}
_BEYOND_ASCII = r"[\x80-\xff]"
_SECRET_FIELDS = ("Authorization", "Proxy-Authorization")


class Request(urllib.request.Request):
    """What to ask: GET, or POST where there is a `body`.

    `authorization` is for the origin of `url` alone, and never told to another one. `configured` tells that the user or
    the administrator named this place, not a registry; `challenged` that a 401 may be answered with credentials.
    """

    def __init__(
        self,
        url: Url,
        fields: Mapping[str, str] = _NO_FIELDS,
        authorization: str = "",
        body: bytes = b"",
        *,
        configured: bool = True,
        challenged: bool = False,
    ) -> None:
        super().__init__(f"{url.origin.scheme}://{url.origin.authority}{url.target}", body or None, dict(fields))
        self.url = url
        self.form = body
        self.configured = configured
        self.challenged = challenged
        self.requests = 1  # in this chain of redirects
        self.answered = 0  # challenges
        self.received = False  # whether there was an answer
        self.fresh = False  # whether its token was fetched for this very request
        self.scopes = 0  # which of the scopes that can be asked for its token has
        if authorization:
            self.authorize(authorization)

    @property
    def authorization(self) -> str:
        """What is told to the origin; empty for nothing."""
        return self.unredirected_hdrs.get("Authorization", "")

    def authorize(self, value: str) -> None:
        """Send `value` as the authorization; a redirect does not copy it."""
        self.add_unredirected_header("Authorization", value)

    def redirected(self, url: Url) -> Self:
        """The request that follows a redirect to `url`: what belongs to the first origin stays with it."""
        here = url.origin.is_same(self.url.origin)
        made = type(self)(
            url,
            self.headers,
            self.authorization if here else "",
            configured=self.configured and here,
            challenged=self.challenged and here,
        )
        made.requests, made.answered = self.requests + 1, self.answered
        return made


class Network:
    """What all connections of one process share."""

    def __init__(
        self,
        pool: ConnectionPool,
        new_connection: Callable[[Route, Limits], Connection],
        budget: Callable[[Response, memoryview], int] | None,  # None: no limit
        choose_proxy: Callable[[Origin], Proxy | None],
        user_agent: str,
        secrets: Secrets,
    ) -> None:
        self.pool, self.new_connection, self.budget = pool, new_connection, budget
        self.choose_proxy, self.user_agent, self.secrets = choose_proxy, user_agent, secrets

    def route_to(self, origin: Origin, identity: TlsIdentity) -> Route:
        """How an origin is reached; only here is a proxy chosen, and the absolute form of a target written."""
        return Route(origin, identity if origin.scheme == "https" else NO_IDENTITY, self.choose_proxy(origin))


class Opener(urllib.request.OpenerDirector):
    """Asks as one endpoint does: under its TLS identity, and only where it may.

    `handlers` are those that answer for a status, as `Redirects`; what none of them takes is the answer.
    """

    def __init__(self, network: Network, identity: TlsIdentity, *handlers: urllib.request.BaseHandler) -> None:
        super().__init__()
        self.identity = identity
        self.network = network
        self.addheaders = [("User-Agent", network.user_agent), ("Accept-Encoding", "identity")]
        for handler in (Transport(), urllib.request.HTTPErrorProcessor(), *handlers):
            self.add_handler(handler)

    def ask(self, request: Request, limits: Limits) -> Response:
        """The answer of any status that no handler takes. The caller closes it.

        Raises NetworkError, SourceError (tls codes, redirect-refused, address-refused), GarbledError.
        """
        return cast(Response, self.open(request, timeout=limits))  # type: ignore[arg-type]


class Transport(urllib.request.AbstractHTTPHandler):
    """Sends a request over a kept connection or a new one. The library's `do_open` closes each behind its answer."""

    parent: Opener
    _reached: frozenset[AddressClass] = frozenset()  # where the endpoint itself was found

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def http_open(self, req: Request) -> Response:
        """The answer to one request; a kept connection that turns out dead is replaced by a fresh one, once.

        Raises NetworkError, SourceError, GarbledError.
        """
        limits = cast(Limits, req.timeout)
        network, host = self.parent.network, req.url.origin.address
        route, pool = network.route_to(req.url.origin, self.parent.identity), network.pool
        fresh = req.get_method() != "GET"
        while True:
            limits.seconds(limits.times.idle, None, host, route.via)  # nothing is asked too late
            connection = pool.take(route, limits, fresh=fresh) or network.new_connection(route, limits)
            kept = connection.sock is not None
            try:
                response = self._exchange(connection, req, limits)
                break
            except BaseException as error:
                limits.cancellation.attach()
                pool.forget(route, connection)
                timed_out = isinstance(error, CipError) and error.code is ErrorCode.TIMEOUT
                if kept and timed_out:
                    pool.drop_idle(route)  # a path that is lost is lost to all of them
                died = isinstance(error, NetworkError | GarbledError) and not timed_out
                if not (kept and died) or limits.cancellation.cancelled:
                    raise
                log.debug("%s; once more on a fresh connection", error)
                fresh = True
        if route.proxy is not None and route.absolute and response.status == 407:
            response.close()
            from .tunnel import proxy_refusal

            raise proxy_refusal(route.origin, route.proxy, 407)
        return response

    https_open = http_open

    def http_error_default(self, req: Request, fp: Response, code: int, msg: str, headers: Message) -> Response:
        """The answer that no other handler took: the library's `HTTPError` keeps its connection by a traceback."""
        return fp

    def _exchange(self, connection: Connection, req: Request, limits: Limits) -> Response:
        network, route = self.parent.network, connection.route
        reached = None if req.configured else self._reached
        judge(route, connection.address, reached)  # a kept one too
        connection.reached = reached
        connection.use(limits)
        target, fields = req.selector, {**req.headers, **req.unredirected_hdrs}
        if route.proxy is not None and route.absolute:
            target = f"http://{req.host}{target}"
            from .tunnel import proxy_authorization

            fields.update(proxy_authorization(route.proxy))
        for name, value in fields.items():
            if not (value.isascii() and value.replace("\t", "").isprintable()):  # `putheader` lets a fold pass
                why = f"{route.origin.address}: field {name}: contains a character that a field cannot have"
                raise RegistryError(why, code=ErrorCode.REQUEST_INVALID)
        network.secrets.keep_sent((fields[name] for name in _SECRET_FIELDS if name in fields), req.form)
        log.debug("%s %s (%s)", req.get_method(), req.url, route.via)
        connection.request(req.get_method(), target, req.data, fields)
        response = cast(Response, connection.getresponse())
        req.received = True
        connection.count_answer(response)
        response.asked, response.budget = req.url, network.budget
        response.on_end = lambda reusable: self._ended(connection, limits, reusable)
        response.discount = partial(network.pool.discount, route)
        if req.configured and connection.address is not None:
            self._reached |= {connection.address.kind}
        return response

    def _ended(self, connection: Connection, limits: Limits, reusable: bool) -> None:
        limits.cancellation.attach()
        if reusable and not limits.cancellation.cancelled:
            self.parent.network.pool.give_back(connection, limits.clock.monotonic())
        else:
            self.parent.network.pool.forget(connection.route, connection)


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows where a registry may lead. The library's reads whole bodies, takes `URI:` and ftp, and copies secrets."""

    parent: Opener

    def http_error_302(  # type: ignore[override]
        self, req: Request, fp: Response, code: int, msg: str, headers: Message
    ) -> Response | None:
        """The answer of the place that a redirect names; None for a redirect that is the answer itself."""
        location = headers.get("location")
        if location is None or (code in _KEEPING_METHOD and req.get_method() != "GET"):
            return None
        fp.close()
        host = req.url.origin.address
        try:
            # fields are read as Latin-1; what a URL cannot have are bytes, of UTF-8 or whatever it was
            target = join_url(req.url, re.sub(_BEYOND_ASCII, lambda byte: f"%{ord(byte[0]):02X}", location))
        except CipError as error:
            raise SourceError.at(host, f"a redirect leads nowhere: {error}", code=ErrorCode.REDIRECT_REFUSED) from error
        require_no_downgrade(self.parent.identity, req.url.origin, target.origin, "redirect")
        if req.requests == REQUEST_LIMIT:
            why = f"more than {REQUEST_LIMIT} requests in a chain of redirects"
            raise SourceError.at(host, why, code=ErrorCode.REDIRECT_REFUSED)
        self.parent.network.secrets.keep_query(target.query)
        log.debug("%s: redirected to %s", host, target)
        return self.parent.ask(req.redirected(target), cast(Limits, req.timeout))

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302  # type: ignore[assignment]


def require_no_downgrade(identity: TlsIdentity, origin: Origin, target: Origin, what: str) -> None:
    """Return unless verified https would give way to http. Raises SourceError (redirect-refused)."""
    if origin.scheme == "https" and identity.verify and target.scheme != "https":
        why = f"expected a {what} to https, found one to http at {target.address}"
        raise SourceError.at(origin.address, why, code=ErrorCode.REDIRECT_REFUSED)

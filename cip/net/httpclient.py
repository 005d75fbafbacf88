# SPDX-License-Identifier: Apache-2.0
"""Requests and their answers: connections reused, redirects followed where they may lead, every wait limited.

Rules for a chain of redirects (decisions.md section 2, registry.md S3 and S4): at most REQUEST_LIMIT requests; http
and https only; never from verified https to http; what the registry names is judged by its resolved address before
it is connected to; an Authorization goes to the scheme, host and port it was meant for, and once it was dropped it
does not come back. Cookies, Referer and compressed answers do not exist here.

Not `urllib.request` over `http.client`: importing them takes 25 of the 66 ms that a parent should wait for a manifest,
and they take a cut body for a complete one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from .. import log
from ..content import read_limited
from ..errors import (
    CipError,
    ConfigurationError,
    ErrorCode,
    NetworkError,
    RegistryError,
    SourceError,
)
from ..hostconfig.proxyenv import Proxy
from .addresses import AddressClass
from .budget import Budget
from .connection import Connection, Route
from .dialer import judge, judge_name, proxy_authorization, proxy_refusal
from .http1 import UNKNOWN_LENGTH, Body, Fields, GarbledError, encode_request, framing_of
from .limits import Limits
from .pool import ConnectionPool
from .redaction import Confidence
from .tls import TlsIdentity
from .url import Origin, Url, join_url

REQUEST_LIMIT = 10  # requests in one chain of redirects
DRAIN_LIMIT = 64 * 1024  # bytes read of a body nobody wants, to keep its connection
DRAIN_SECONDS = 1.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEPING_METHOD = frozenset({307, 308})
_NO_IDENTITY = TlsIdentity()
_NO_FIELDS: Mapping[str, str] = {}

OpenConnection = Callable[[Route, Limits, frozenset[AddressClass] | None], Connection]
ChooseProxy = Callable[[Origin], Proxy | None]


class Request(NamedTuple):
    """What to ask. `authorization` is for the origin of `url` alone; `body` makes it a POST.

    `configured` tells that the user or the administrator named this place, not a registry.
    """

    url: Url
    fields: Mapping[str, str] = _NO_FIELDS
    authorization: str = ""
    body: bytes = b""
    configured: bool = True

    @property
    def method(self) -> str:
        """GET, or POST where there is a body."""
        return "POST" if self.body else "GET"


class Network(NamedTuple):
    """What all registry images of one process share on the network."""

    pool: ConnectionPool
    open_connection: OpenConnection
    sniff: Callable[[Route, Limits], bool]  # whether a place speaks TLS
    remember: Callable[[Connection], None]  # told of each connection that served an answer
    budget: Budget
    choose_proxy: ChooseProxy
    user_agent: str


class Response:
    """An answer whose body is still to be read; the caller closes it.

    `url` is what answered in the end, `via` how we got there. The caller may set `limits` before each read.
    """

    def __init__(self, connection: Connection, network: Network, url: Url, method: str) -> None:
        self.url = url
        self.via = connection.route.via
        self.address = connection.address
        self.told = Confidence()  # what its request carried that no message may repeat
        self.paused = 0.0  # seconds that --max-rate, and not the registry, made us wait
        self._connection: Connection | None = connection
        self._discounted = False
        self._network = network
        self._host = url.origin.address
        try:
            head = connection.receive_head()
            framing = framing_of(method, head, connection.where)
        except CipError as error:
            error.host = error.host or self._host
            raise
        self.status = head.status
        self.fields: Fields = head.fields
        self.size = framing.length  # bytes of the body as stated, or UNKNOWN_LENGTH
        self._keeps_alive = head.keeps_alive and (framing.chunked or framing.length != UNKNOWN_LENGTH)
        self._has_end_mark = framing.chunked
        self._body = Body(connection, framing, connection.where)
        if self._body.ended:
            self._release()

    @property
    def limits(self) -> Limits | None:
        """The limits of the next read; None when there is nothing left to read."""
        return None if self._connection is None else self._connection.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        if self._connection is not None:
            self._connection.limits = limits

    def readinto(self, view: memoryview, /) -> int:
        """The next bytes of the body; 0 at its end. Raises NetworkError, SourceError (budget-exhausted)."""
        connection = self._connection
        if connection is None:
            return 0
        try:
            if self._network.budget.unlimited:
                count = self._body.readinto(view)
            else:
                count = self._read_within_budget(view, connection.limits)
        except CipError as error:
            error.host = error.host or self._host
            raise
        if self._body.ended:
            self._release()
        return count

    def _read_within_budget(self, view: memoryview, limits: Limits) -> int:
        budget = self._network.budget
        began = limits.clock.monotonic()
        granted = budget.grant(min(len(view), self._body.most), self._host, limits.cancellation)
        self.paused += limits.clock.monotonic() - began
        count = 0
        try:
            count = self._body.readinto(view[:granted])
        finally:
            budget.settle(granted, count)
        return count

    def read_all(self, limit: int, what: str) -> bytes:
        """The body, at most `limit` bytes; closes. Raises NetworkError, InvalidDocumentError (limit-exceeded)."""
        try:
            return read_limited(self, limit, what)
        finally:
            self.close()

    def read_end(self) -> None:
        """Told that all wanted bytes were read: read the end mark of chunks too, for the sake of the connection."""
        if self._connection is not None and self._keeps_alive and self._has_end_mark:
            self._drain(self._connection)

    def close(self) -> None:
        """Keep the connection if the body was read to its end, or is nearly so; else close it."""
        connection = self._connection
        if connection is None:
            return
        if self.status >= 300 and self.size <= DRAIN_LIMIT and self._keeps_alive:
            self._drain(connection)
        if self._connection is not None:
            self._abandon(connection)

    def _drain(self, connection: Connection) -> None:
        """Read what a refusal or a redirect says, for the sake of the connection, but not for long."""
        limits = connection.limits
        connection.limits = limits.until(limits.clock.monotonic() + DRAIN_SECONDS)
        left = DRAIN_LIMIT
        try:
            with memoryview(bytearray(DRAIN_LIMIT)) as buffer:
                while left > 0 and (count := self.readinto(buffer[:left])):
                    left -= count
        except CipError as error:
            log.debug("%s: the rest of an answer is not read: %s", self._host, error)

    def discount(self) -> None:
        """Leave the connection out of what its host may have, until it is given back."""
        if self._connection is not None and not self._discounted:
            self._discounted = True
            self._network.pool.discount(self._connection.route, 1)

    def _recount(self, connection: Connection) -> None:
        if self._discounted:
            self._discounted = False
            self._network.pool.discount(connection.route, -1)

    def _release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._recount(connection)
        limits = connection.limits
        limits.cancellation.attach(None)
        if self._keeps_alive and not limits.cancellation.cancelled:
            self._network.remember(connection)
            self._network.pool.give_back(connection, limits.clock.monotonic())
        else:
            self._network.pool.forget(connection.route, connection)

    def _abandon(self, connection: Connection) -> None:
        self._connection = None
        self._recount(connection)
        connection.limits.cancellation.attach(None)
        self._network.pool.forget(connection.route, connection)


class Requester:
    """Sends requests as one endpoint does: under its TLS identity, and only where it may."""

    def __init__(self, network: Network, identity: TlsIdentity) -> None:
        self.identity = identity
        self._network = network
        self._reached: frozenset[AddressClass] = frozenset()

    def send(self, request: Request, limits: Limits) -> Response:
        """The final answer of any status, redirects followed. The caller closes it.

        Raises NetworkError, SourceError (tls codes, redirect-refused, address-refused), GarbledError.
        """
        first = request.url.origin
        authorization = request.authorization
        method, body, url = request.method, request.body, request.url
        for _ in range(REQUEST_LIMIT):
            ours = request.configured and url.origin == first
            fields = dict(request.fields)
            if authorization:
                fields["Authorization"] = authorization
            response = self._exchange(method, url, fields, body, limits, None if ours else self._reached)
            if ours:
                self._reached |= {response.address.kind}
            following = self._redirected(response, method)
            if following is None:
                return response
            if following.origin != url.origin:
                authorization = ""  # and it does not come back, wherever the chain leads
            if response.status not in _KEEPING_METHOD:
                method, body = "GET", b""
            url = following
        raise SourceError(
            f"{first.address}: more than {REQUEST_LIMIT} requests in a chain of redirects",
            code=ErrorCode.REDIRECT_REFUSED,
            host=first.address,
        )

    def speaks_tls(self, origin: Origin, limits: Limits) -> bool:
        """Whether a place that our user told us of speaks TLS; behind a proxy that is for a handshake to find out.

        Raises NetworkError.
        """
        route = self._route(origin)
        return route.proxy is not None or self._network.sniff(route, limits)

    def require_no_downgrade(self, origin: Origin, target: Origin, what: str) -> None:
        """Return unless verified https would give way to http. Raises SourceError (redirect-refused)."""
        if origin.scheme == "https" and self.identity.verify and target.scheme != "https":
            raise SourceError(
                f"{origin.address}: expected a {what} to https, found one to http at {target.address}",
                code=ErrorCode.REDIRECT_REFUSED,
                host=origin.address,
            )

    def _redirected(self, response: Response, method: str) -> Url | None:
        location = response.fields.get("location")
        if response.status not in _REDIRECTS or location is None:
            return None
        if response.status in _KEEPING_METHOD and method != "GET":
            return None
        response.close()
        host = response.url.origin.address
        try:
            target = join_url(response.url, location)
        except CipError as error:
            raise SourceError(
                f"{host}: a redirect leads nowhere: {error}", code=ErrorCode.REDIRECT_REFUSED, host=host
            ) from error
        self.require_no_downgrade(response.url.origin, target.origin, "redirect")
        log.debug("%s: redirected to %s", host, target)
        return target

    def _exchange(
        self,
        method: str,
        url: Url,
        fields: Mapping[str, str],
        body: bytes,
        limits: Limits,
        reached: frozenset[AddressClass] | None,
    ) -> Response:
        """One request and its answer; a kept connection that turns out dead is replaced by a fresh one, once."""
        route = self._route(url.origin)
        fresh = method != "GET"
        while True:
            limits.seconds(limits.times.idle, None, url.origin.address, route.via)  # nothing is asked too late
            connection = self._connection(route, limits, reached, fresh=fresh)
            reused = connection.uses > 0
            try:
                response = self._ask(connection, method, url, fields, body)
            except (NetworkError, GarbledError) as error:
                limits.cancellation.attach(None)
                self._network.pool.forget(route, connection)
                if reused and error.code is ErrorCode.TIMEOUT:
                    self._network.pool.drop_idle(route)  # a path that is lost is lost to all of them
                if not reused or error.code is ErrorCode.TIMEOUT or limits.cancellation.cancelled:
                    raise
                log.debug("%s; once more on a fresh connection", error)
                fresh = True
                continue
            except BaseException:
                limits.cancellation.attach(None)
                self._network.pool.forget(route, connection)
                raise
            if response.status == 407 and route.proxy is not None and url.origin.scheme == "http":
                response.close()
                raise proxy_refusal(url.origin, route.proxy, 407)
            return response

    def _ask(
        self, connection: Connection, method: str, url: Url, fields: Mapping[str, str], body: bytes
    ) -> Response:
        proxied = connection.route.proxy if url.origin.scheme == "http" else None
        lines = {
            "Host": url.origin.authority,
            "User-Agent": self._network.user_agent,
            "Accept-Encoding": "identity",
            **fields,
        }
        target = url.target
        if proxied is not None:
            target = f"http://{url.origin.authority}{target}"
            lines.update(proxy_authorization(proxied))
        log.debug("%s %s (%s)", method, url, connection.route.via)
        try:
            message = encode_request(method, target, lines.items(), body)
        except ValueError as error:
            raise RegistryError(f"{url.origin.address}: {error}", code=ErrorCode.REQUEST_INVALID) from error
        connection.send(message)
        response = Response(connection, self._network, url, method)
        secret_fields = ("Authorization", "Proxy-Authorization")
        response.told = Confidence(tuple(lines[name] for name in secret_fields if name in lines), body)
        return response

    def _route(self, origin: Origin) -> Route:
        identity = self.identity if origin.scheme == "https" else _NO_IDENTITY
        proxy = self._network.choose_proxy(origin)
        if proxy is not None and proxy.scheme != "http":
            raise ConfigurationError(proxy.variable, "expected a proxy spoken to over http, found one over tls")
        return Route(origin, identity, proxy)

    def _connection(
        self, route: Route, limits: Limits, reached: frozenset[AddressClass] | None, *, fresh: bool
    ) -> Connection:
        pool = self._network.pool
        judge_name(route, reached)
        kept = pool.take(route, limits, fresh=fresh)
        if kept is not None:
            try:
                judge(route, kept.address, reached)
            except CipError:
                pool.give_back(kept, limits.clock.monotonic())
                raise
            kept.limits = limits
            limits.cancellation.attach(kept)
            return kept
        try:
            opened = self._network.open_connection(route, limits, reached)
        except BaseException:
            pool.forget(route, None)
            raise
        limits.cancellation.attach(opened)
        return opened

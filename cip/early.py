# SPDX-License-Identifier: Apache-2.0
"""The connection that the first request will use, on its way while what will use it is loaded.

A thread resolves and connects as soon as it is known where to; another one takes the socket over, and shakes hands,
when what speaks TLS is there. Until then nothing of `urllib.request`, `http.client` and `ssl` is needed, which take as
long to load as a round trip.
"""

from typing import TYPE_CHECKING

from . import log
from .content import start_thread
from .errors import CipError
from .hostconfig.proxyenv import choose_proxy, describe_way
from .hostconfig.registriesconf import RegistriesConfig, load_registries
from .model.reference import ImageReference, Transport, parse_image_reference
from .net.addresses import ConnectedSocket, connect, resolve
from .net.limits import Cancellation, Clock, Limits
from .net.url import Origin, parse_origin
from .settings import Settings

if TYPE_CHECKING:
    from .net.connection import Connection, ConnectionPool
    from .net.opener import Opener


def dial_early(text: str, settings: Settings) -> "Early | None":
    """The places of a docker:// image, and a connection to the first one on its way; whoever calls this owes `close`.

    None where local sources come first. Nothing is dialled where that place may not be entered, or perhaps not by TLS.
    Raises CipError.
    """
    reference = parse_image_reference(text)
    named = reference.docker
    if reference.transport is not Transport.DOCKER or settings.offline or settings.local_sources or named is None:
        return None
    registries = load_registries(settings)
    place = registries.places(named)[0]
    if place.blocked or place.is_insecure(settings.tls_verify):
        return Early(reference, registries, None)
    origin = parse_origin("https", place.host)
    proxy = choose_proxy(settings.environment, origin.scheme, origin.host, origin.port)
    nearest = origin if proxy is None else Origin("http", proxy.host, proxy.port)
    limits = Limits(Clock(), settings.times, Cancellation())
    return Early(reference, registries, EarlySocket(nearest, limits, describe_way(proxy)))


class Early:
    """What is known, and what was begun, of an image that was asked for while the program loads."""

    def __init__(
        self, reference: ImageReference, registries: RegistriesConfig, connecting: "EarlySocket | None"
    ) -> None:
        self.reference, self.registries, self.connecting = reference, registries, connecting

    def dial(self, opener: "Opener", origin: Origin) -> None:
        """Open the connection that the first request to `origin` will use; or make what it needs, where none may be."""
        if self.connecting is not None:
            self.connecting.dial(opener, origin)
        else:
            opener.network.new_connection(opener.transport.route_to(origin)).prepare()

    def call_off(self) -> None:
        """Let nothing be opened any more."""
        if self.connecting is not None:
            self.connecting.limits.cancellation.cancel()

    def close(self) -> None:
        """Call off what nobody took."""
        if self.connecting is not None:
            self.connecting.close()


class EarlySocket:
    """A connection to `origin`, a registry or a proxy, that a thread makes. Whoever makes one owes `take` or `close`.

    Raises CipError where there are no more threads.
    """

    def __init__(self, origin: Origin, limits: Limits, via: str) -> None:
        self.limits = limits
        self._outcome: ConnectedSocket | CipError | None = None
        self._thread = start_thread(lambda: self._run(origin, via), "connect early")

    def dial(self, opener: "Opener", origin: Origin) -> None:
        """Open the connection that the first request to `origin` will use, in a thread beside the caller.

        Its failure is that of this request, which has begun earlier, if it comes soon; else nobody hears of it.
        """
        pool = opener.network.pool
        connection = opener.network.new_connection(opener.transport.route_to(origin))
        connection.early = self.take
        connection.use(self.limits)
        pool.expect(connection.route)
        try:
            start_thread(lambda: self._open(pool, connection), "dial")
        except CipError:
            pool.arrive(connection.route, None, self.limits.clock.monotonic())
            raise

    def take(self) -> ConnectedSocket | None:
        """As `connect` of what `resolve` finds, whose limits end the wait; None when it was taken."""
        self._thread.join()
        outcome, self._outcome = self._outcome, None
        if isinstance(outcome, CipError):
            raise outcome
        return outcome

    def close(self) -> None:
        """Call it off; nothing is left open."""
        self.limits.cancellation.cancel()
        self._thread.join()
        if isinstance(self._outcome, tuple):
            self._outcome[0].close()

    def _run(self, origin: Origin, via: str) -> None:
        try:
            self._outcome = connect(origin, resolve(origin, self.limits, via), self.limits, via)
        except CipError as error:
            self._outcome = error.with_traceback(None)

    def _open(self, pool: "ConnectionPool", connection: "Connection") -> None:
        outcome: Connection | CipError | None = None
        cancellation = self.limits.cancellation
        try:
            connection.connect()
            outcome = connection
        except CipError as error:
            log.debug("%s: the early connection failed: %s", connection.name, error)
            outcome = None if cancellation.cancelled else error.with_traceback(None)
        finally:  # whatever happened, a request must not wait for it
            cancellation.attach(None)
            pool.arrive(connection.route, outcome, self.limits.clock.monotonic())

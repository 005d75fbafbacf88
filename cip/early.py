# SPDX-License-Identifier: Apache-2.0
"""The connection that the first request will use, on its way while what will use it is loaded.

A thread resolves and connects as soon as it is known where to; another one takes the socket over, and shakes hands,
when what speaks TLS is there. Until then nothing of `urllib.request`, `http.client` and `ssl` is needed, which take as
long to load as a round trip.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import log
from .content import start_thread, undo_on_error
from .errors import CipError
from .hostconfig.proxyenv import choose_proxy, describe_way
from .hostconfig.registriesconf import RegistriesConfig, load_registries
from .model.reference import ImageReference, Transport, parse_image_reference
from .net.addresses import ConnectedSocket, connect, resolve
from .net.limits import Cancellation, Clock, Limits
from .net.url import Origin, parse_origin
from .settings import Settings

if TYPE_CHECKING:
    from .net.connection import Connection, Route
    from .net.opener import Network

FAILED_SECONDS = 3.0  # for which the failure of a connection that was begun early is that of its first user


def dial_early(text: str, settings: Settings, load_policy: Callable[[], object]) -> "Early | None":
    """The places of a docker:// image, and a connection to the first one on its way; whoever calls this owes `close`.

    None where local sources come first. Nothing is dialled where that place may not be entered, or perhaps not by TLS,
    or where there is no policy. Raises CipError.
    """
    reference = parse_image_reference(text)
    named = reference.docker
    if reference.transport is not Transport.DOCKER or settings.offline or settings.local_sources or named is None:
        return None
    load_policy()
    registries = load_registries(settings)
    place = registries.places(named)[0]
    limits = Limits(Clock(), settings.times, Cancellation())
    if place.blocked or place.is_insecure(settings.tls_verify):
        return Early(reference, registries, limits)
    origin = parse_origin("https", place.host)
    proxy = choose_proxy(settings.environment, origin.scheme, origin.host, origin.port)
    nearest = origin if proxy is None else Origin("http", proxy.host, proxy.port)
    return Early(reference, registries, limits, EarlySocket(nearest, limits, describe_way(proxy)))


class Early:
    """What is known, and what was begun, of an image that was asked for while the program loads."""

    def __init__(
        self,
        reference: ImageReference,
        registries: RegistriesConfig,
        limits: Limits,
        connecting: "EarlySocket | None" = None,
    ) -> None:
        self.reference, self.registries, self.limits, self.connecting = reference, registries, limits, connecting

    def dial(self, network: "Network", route: "Route") -> None:
        """Open the connection that the first request on `route` will use; or make what it needs, where none may be."""
        if self.connecting is not None:
            self.connecting.dial(network, route)
        else:
            network.new_connection(route, self.limits).prepare()

    def call_off(self) -> None:
        """Let nothing be opened any more."""
        self.limits.cancellation.cancel()

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
        self._dialled: EarlyConnection | None = None
        self._thread = start_thread(lambda: self._run(origin, via), "connect early")

    def dial(self, network: "Network", route: "Route") -> None:
        """Open the connection that the first request on `route` will use, in a thread beside the caller."""
        self._dialled = EarlyConnection(network, route, self)

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
        if self._dialled is not None:
            self._dialled.close()
        self._thread.join()
        if isinstance(self._outcome, tuple):
            self._outcome[0].close()

    def _run(self, origin: Origin, via: str) -> None:
        try:
            self._outcome = connect(origin, resolve(origin, self.limits, via), self.limits, via)
        except CipError as error:
            self._outcome = error.with_traceback(None)


class EarlyConnection:
    """Stands before what makes the connections of a network, and hands out the one that a thread opens, once.

    Its failure is that of the first request, which has begun earlier, if it comes soon; else nobody hears of it.
    Whoever makes one owes `close`. Raises CipError where there are no more threads.
    """

    def __init__(self, network: "Network", route: "Route", socket: EarlySocket) -> None:
        self._network, self._make, self._limits = network, network.new_connection, socket.limits
        connection = self._make(route, self._limits)
        connection.early = socket.take
        connection.use(self._limits)
        self._waiting = {route: connection}  # nothing, once it was taken
        self._failed: tuple[float, CipError] | None = None  # when and why
        self._done = threading.Event()
        self._thread = start_thread(lambda: self._open(connection), "dial")
        network.new_connection = self.new_connection

    def new_connection(self, route: "Route", limits: Limits) -> "Connection":
        """The connection, when it is there, for the first who asks for one on its route; else another one.

        Raises why it was not made, and NetworkError where `limits` do not let us wait for it.
        """
        connection = self._waiting.pop(route, None)
        if connection is None:
            return self._make(route, limits)
        with undo_on_error(lambda: self._network.pool.forget(route, None)):
            with undo_on_error(lambda: self._waiting.update({route: connection})):
                if not limits.wait(self._done, limits.remaining()):
                    raise limits.expired(0, None, route.origin.address, route.via, "no connection")
            if self._failed is not None and limits.clock.monotonic() - self._failed[0] <= FAILED_SECONDS:
                raise self._failed[1]
        return connection if connection.sock is not None else self._make(route, limits)

    def close(self) -> None:
        """Close what nobody took, when its limits were called off."""
        self._thread.join()
        for connection in self._waiting.values():
            connection.close()

    def _open(self, connection: "Connection") -> None:
        cancellation = self._limits.cancellation
        try:
            connection.connect()
        except CipError as error:
            log.debug("%s: the early connection failed: %s", connection.name, error)
            if not cancellation.cancelled:
                self._failed = self._limits.clock.monotonic(), error.with_traceback(None)
        finally:  # whatever happened, a request must not wait for it
            cancellation.attach()
            self._done.set()

# SPDX-License-Identifier: Apache-2.0
"""Registries without a network: each connection of the program ends at a script in this process.

For unit tests: sockets are socketpairs, time is a `FakeClock`, and every request is recorded with the origin it
went to, so that a test sees what each host was told.
"""

import select
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cip import rooms
from cip.errors import CipError, ErrorCode, NetworkError, SourceError
from cip.events import NO_EVENTS, Events
from cip.hostconfig.proxyenv import Proxy
from cip.net.addresses import Address, AddressClass
from cip.net.channel import Channel
from cip.net.connection import Connection, ConnectionPool, Route, judge
from cip.net.limits import Cancellation, Clock, Limits
from cip.net.opener import Network, Opener, Redirects, Request
from cip.net.redaction import Secrets
from cip.net.response import Response
from cip.net.tls import TlsContexts, TlsIdentity
from cip.net.url import Origin, parse_url
from cip.registry.session import RegistrySession
from cip.settings import Settings, TimeLimits
from tests.support.leaks import LeakCheckedTestCase


class FakeClock(Clock):
    """Time that passes only where somebody sleeps; `sleeps` are the lengths."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_700_000_000.0 + self.now

    def sleep(self, seconds: float, cancellation: Cancellation) -> None:
        self.sleeps.append(round(seconds, 3))
        self.now += seconds


class RecordedEvents:
    """Keeps what was emitted."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, object]]] = []
        self.events = Events(self.emit, NO_EVENTS.follow)

    def emit(self, event: str, **members: object) -> None:
        self.seen.append((event, members))

    def of(self, event: str) -> list[dict[str, object]]:
        """The members of each `event`, in order."""
        return [members for name, members in self.seen if name == event]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it arrived. `host` is the origin the connection was made for, names of `fields` lower case."""

    host: str
    method: str
    target: str
    fields: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back, byte by byte; then the connection is kept, closed or left hanging."""

    data: bytes
    then: str = "keep"


def reply(status: int, body: bytes = b"", fields: Mapping[str, str] | None = None, *, then: str = "keep") -> Reply:
    """A proper answer; `Content-Length` is added unless `fields` says something about the body's end."""
    lines = dict(fields or {})
    if not {"Content-Length", "Transfer-Encoding"} & set(lines) and then != "close":
        lines["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return Reply(f"HTTP/1.1 {status} Because\r\n{head}\r\n".encode("latin-1") + body, then)


Script = Callable[[Asked], Reply]


class PatientPoll:
    """`select.poll` whose time runs only while the script has nothing to say: a loaded machine is no silent host."""

    def __init__(self, silent: threading.Event) -> None:
        self._poll = select.poll()
        self._silent = silent
        self.register = self._poll.register

    def poll(self, milliseconds: float) -> list[tuple[int, int]]:
        while milliseconds and not self._silent.is_set():
            if found := self._poll.poll(5):
                return found
        return self._poll.poll(milliseconds)


@dataclass(slots=True)
class Place:
    """One origin: its script, the class of its address, and whether connections to it fail."""

    script: Script
    kind: AddressClass = AddressClass.PUBLIC
    fault: SourceError | None = None


@dataclass(slots=True)
class Origins:
    """All the hosts there are, by `scheme://host:port`; anything else refuses connections."""

    places: dict[str, Place] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    verified: dict[str, bool] = field(default_factory=dict)  # whether the certificate of a name was asked for
    proxies: dict[str, Proxy] = field(default_factory=dict)
    secrets: Secrets = field(default_factory=Secrets)
    _threads: list[threading.Thread] = field(default_factory=list)

    def add(self, origin: str, script: Script, kind: AddressClass = AddressClass.PUBLIC) -> None:
        self.places[origin] = Place(script, kind)

    def network(self, settings: Settings, clock: FakeClock) -> Network:
        """What an Opener needs."""
        transfer = settings.transfer
        limited = transfer.max_rate or transfer.max_bytes
        return Network(
            ConnectionPool(settings.transfer.connections),
            lambda route, limits: ScriptedConnection(route, self),
            rooms.Budget(transfer.max_rate, transfer.max_bytes, clock).receive if limited else None,
            lambda origin: self.proxies.get(origin.scheme),
            settings.user_agent,
            self.secrets,
        )

    def session(self, settings: Settings, clock: FakeClock, events: RecordedEvents | None = None) -> RegistrySession:
        """A session on this network, whose repeats have no jitter."""
        session = RegistrySession(
            settings,
            (events or RecordedEvents()).events,
            rooms.DirectPrograms(),
            clock=clock,
            jitter=lambda: 0.0,
            secrets=self.secrets,
        )
        session.network = self.network(settings, clock)
        return session

    def targets(self, host: str | None = None) -> list[str]:
        """The request targets in order, of one host or of all."""
        return [asked.target for asked in self.asked if host in (None, asked.host)]

    def wait(self) -> None:
        """Wait for the scripts to see that their connections are gone."""
        for thread in self._threads:
            thread.join(10)

    def _place(self, route: Route) -> Place:
        name = f"{route.origin.scheme}://{route.origin.tunnel}"
        if name not in self.places:
            raise NetworkError(
                f"{name}: refused ({route.via})", code=ErrorCode.CONNECTION_REFUSED, host=route.origin.address
            )
        return self.places[name]

    def open(self, connection: Connection) -> Channel:
        """What `connect` of a connection gets: the other end belongs to a script."""
        route = connection.route
        name = f"{route.origin.scheme}://{route.origin.tunnel}"
        place = self._place(route)
        if place.fault is not None:
            raise place.fault
        connection.address = Address(socket.AF_UNIX, (), f"the address of {route.origin.host}", place.kind)
        judge(route, connection.address, connection.reached)
        self.opened.append(name)
        self.verified[name] = route.identity.verify
        ours, theirs = socket.socketpair()
        silent = threading.Event()
        thread = threading.Thread(target=self._serve, args=(theirs, route.origin, name, silent))
        self._threads.append(thread)
        thread.start()
        channel = Channel(ours, connection.limits, route.origin.address, route.via)
        channel._poll = PatientPoll(silent)  # type: ignore[assignment]
        connection.limits.cancellation.attach(channel.interrupt)
        return channel

    def _serve(self, sock: socket.socket, origin: Origin, name: str, silent: threading.Event) -> None:
        with sock, sock.makefile("rb") as stream:
            while True:
                try:
                    line = stream.readline().decode("latin-1")
                    if not line:
                        return
                    silent.clear()
                    method, target, _ = line.split(" ", 2)
                    fields = {}
                    while header := stream.readline().decode("latin-1").strip():
                        key, _, value = header.partition(":")
                        fields[key.lower()] = value.strip()
                    body = stream.read(int(fields.get("content-length", "0")))
                    asked = Asked(origin.address, method, target, fields, body)
                    self.asked.append(asked)
                    answer = self.places[name].script(asked)  # the one that is there now
                    sock.sendall(answer.data)
                    silent.set()
                    if answer.then == "close":
                        return
                    if answer.then == "hang":
                        stream.read(1)  # until the program gives up
                        return
                except OSError:
                    return  # the program closed first
                finally:
                    silent.set()


class ScriptedConnection(Connection):
    """A connection to one of the `origins`."""

    def __init__(self, route: Route, origins: Origins) -> None:
        super().__init__(route, TlsContexts())
        self._origins = origins

    def connect(self) -> None:
        self.sock = self._origins.open(self)


SECRET = "Bearer hush"


class OpenerCase(LeakCheckedTestCase):
    """An Opener on its own network; `get` and `send` ask it."""

    settings = Settings(times=TimeLimits(idle=5.0), user_agent="agent/1")

    def setUp(self) -> None:
        super().setUp()
        self.clock = FakeClock()
        self.origins = Origins()
        self.cancellation = Cancellation()
        self.addCleanup(self.origins.wait)  # when all pools are closed
        self.use(self.settings)

    def use(self, settings: Settings, *, verify: bool = True) -> None:
        self.network = self.origins.network(settings, self.clock)
        self.opener = Opener(self.network, TlsIdentity(verify), Redirects())
        self.limits = Limits(self.clock, settings.times, self.cancellation)
        self.addCleanup(self.network.pool.close)

    def send(self, url: str, authorization: str = "", body: bytes = b"", *, configured: bool = True) -> Response:
        request = Request(parse_url(url), {"Accept": "x"}, authorization, body, configured=configured)
        response = self.opener.ask(request, self.limits)
        self.addCleanup(response.close)
        return response

    def get(self, url: str, authorization: str = "", *, configured: bool = True) -> bytes:
        return self.send(url, authorization, configured=configured).read_all(1000, "it")

    def refused(self, url: str, reason: str, code: ErrorCode, *, configured: bool = True) -> CipError:
        with self.assertRaisesRegex(CipError, reason) as caught:
            self.get(url, SECRET, configured=configured)
        self.assertIs(caught.exception.code, code)
        self.assertNotIn("hush", str(caught.exception))
        return caught.exception

# SPDX-License-Identifier: Apache-2.0
"""The table of faults: what goes wrong where, and how it must end. Run by tests/integration and by tests/bench/faults.

A row ends with `bytes` (all of the image arrived, byte for byte), with an error code, or with `cut`: a body whose end
never came, because what was wrong showed after much of it had left.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from .certificates import CertificateAuthority
from .registry import (
    NAME,
    Asked,
    Content,
    Exchange,
    Fault,
    FaultyHost,
    FaultyProxy,
    Given,
    Greeting,
    Strike,
    announcing,
    at,
    chunked,
    chunked_cut,
    flipped,
    garbage,
    gzipped,
    hold,
    make_content,
    only_ranged,
    page,
    ranged,
    redirecting,
    refusing_port,
    registry_of,
    reset,
    server_context,
    status,
    storage_of,
    swallowing_port,
    tokens_of,
)
from .secrets import secret

USER = "fault-user"
PASSWORD = secret("faults")
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
TOKENS = (secret("token-1"), secret("token-2"))
SMALL = 200_000  # bytes of a layer that is verified before its first byte leaves
LARGE = 1_500_000  # bytes of a layer of which much has left when its end comes
NOWHERE = "nowhere.invalid"  # RFC 6761: a name that does not exist

BYTES = "bytes"
CUT = "cut"


class Shape(StrEnum):
    """How the hosts of a row stand to each other."""

    PLAIN = "plain"  # one registry over http
    TLS = "tls"  # one registry over https, its authority trusted
    TOKEN = "token"  # a registry that wants a token, and its token server
    REDIRECT = "redirect"  # a registry whose blobs are elsewhere
    PROXY = "proxy"  # a registry over https behind a proxy
    MIRROR = "mirror"  # a faulty mirror in front of a healthy registry
    NOBODY = "nobody"  # no registry at all: the port is `Row.port`


@dataclass(frozen=True, slots=True)
class Row:
    """One fault. `strikes` are made anew for each run; `json` is the outcome there where it differs."""

    phase: str
    name: str
    outcome: str
    strikes: tuple[tuple[str, Fault, int | None], ...] = ()
    shape: Shape = Shape.PLAIN
    json: str | None = None
    layer: int = SMALL
    options: tuple[str, ...] = ()
    hurry: tuple[str, ...] = ()  # further options where nobody wants to wait
    greeting: Callable[[], Greeting] | None = None
    certificate: str = "good"
    port: str = "refusing"  # for NOBODY, and for the proxy or mirror where it is not "open"
    host: str = ""  # the registry's name where it is not an address
    accepts_first_token_for: int | None = None  # blob requests, after which the token has expired

    @property
    def title(self) -> str:
        return f"{self.phase}: {self.name}"


@dataclass(slots=True)
class World:
    """The hosts of one row, and how a client gets there. `may_know` are the secrets that each host may be told."""

    content: Content
    reference: str = ""
    options: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    hosts: dict[str, FaultyHost] = field(default_factory=dict)
    may_know: dict[str, set[str]] = field(default_factory=dict)
    skopeo: list[str] = field(default_factory=list)


# --- rows ---


def _rows() -> Iterator[Row]:
    yield from _names_and_connections()
    yield from _tls()
    yield from _proxy()
    for phase, shape in (
        ("token", Shape.TOKEN),
        ("index", Shape.PLAIN),
        ("manifest", Shape.PLAIN),
        ("config", Shape.PLAIN),
        ("blob", Shape.PLAIN),
        ("redirect", Shape.REDIRECT),
    ):
        yield from _answers(phase, shape)
    yield from _bodies()
    yield from _ranges()
    yield from _redirects()
    yield from _tokens()
    yield from _places()


RESET, END, STALL = Exchange.reset, Exchange.end, Exchange.stall


def _drip(exchange: Exchange) -> None:
    exchange.drip(exchange.given.head() + exchange.given.body)


def _drip_rest(exchange: Exchange) -> None:
    body = exchange.given.body
    exchange.drip(body[len(body) // 2 :])


def _names_and_connections() -> Iterator[Row]:
    once = ("--retry-times=0",)
    nobody = Shape.NOBODY
    yield Row("dns", "no such name", "name-not-resolved", shape=nobody, host=NOWHERE, options=once)
    yield Row("dns", "no such mirror, registry healthy", BYTES, shape=Shape.MIRROR, host=NOWHERE)
    yield Row("connect", "refused", "connection-refused", shape=nobody)
    yield Row("connect", "packets swallowed", "timeout", shape=nobody, port="swallowing")
    yield Row("connect", "mirror refuses, registry healthy", BYTES, shape=Shape.MIRROR, port="refusing")
    yield Row("connect", "mirror swallows packets, registry healthy", BYTES, shape=Shape.MIRROR, port="swallowing")


def _times(count: int, strike: Callable[[object], bool]) -> Callable[[], Greeting]:
    """A greeting that strikes the first `count` connections; -1 strikes all."""

    def make() -> Greeting:
        left = [count]

        def greet(sock: object) -> bool:
            if left[0] == 0:
                return True
            left[0] -= 1
            return strike(sock)

        return greet

    return make


def _greet_with_reset(sock: object) -> bool:
    reset(sock)  # type: ignore[arg-type]
    return False


def _greet_with_end(sock: object) -> bool:
    return False


def _greet_with_stall(sock: object) -> bool:
    import socket

    assert isinstance(sock, socket.socket)
    sock.recv(65536)
    hold(sock)
    return False


def _greet_with_garbage(sock: object) -> bool:
    sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")  # type: ignore[attr-defined]
    return False


def _tls() -> Iterator[Row]:
    tls = Shape.TLS
    yield Row("tls", "reset during the handshake, once", BYTES, shape=tls, greeting=_times(1, _greet_with_reset))
    yield Row(
        "tls", "reset during each handshake", "connection-lost", shape=tls, greeting=_times(-1, _greet_with_reset)
    )
    yield Row("tls", "clean end during the handshake, once", BYTES, shape=tls, greeting=_times(1, _greet_with_end))
    yield Row(
        "tls",
        "stall during the handshake",
        "timeout",
        shape=tls,
        greeting=_times(-1, _greet_with_stall),
        hurry=("--open-timeout=2",),
    )
    yield Row(
        "tls", "garbage instead of a handshake", "registry-error", shape=tls, greeting=_times(-1, _greet_with_garbage)
    )
    yield Row("tls", "certificate of an unknown authority", "tls-untrusted", shape=tls, certificate="foreign")
    yield Row("tls", "certificate for another name", "tls-name-mismatch", shape=tls, certificate="name")
    yield Row("tls", "certificate expired", "tls-expired", shape=tls, certificate="expired")
    yield Row("tls", "certificate not yet valid", "tls-not-yet-valid", shape=tls, certificate="early")
    yield Row("tls", "connection reset inside a blob", BYTES, (("blob", at(0.5, RESET), 1),), shape=tls)
    yield Row("tls", "clean end inside a blob, no close_notify", BYTES, (("blob", at(0.5, END), 1),), shape=tls)
    yield Row("tls", "stall inside a blob", BYTES, (("blob", at(0.5, STALL), 1),), shape=tls)


def _proxy() -> Iterator[Row]:
    proxy = Shape.PROXY
    for name, fault, times, outcome in (
        ("407", status(407), None, "authentication-failed"),
        ("403 to CONNECT", status(403), None, "registry-error"),
        ("502 to CONNECT, once", status(502), 1, BYTES),
        ("502 to CONNECT, always", status(502), None, "registry-error"),
        ("reset at CONNECT, once", RESET, 1, BYTES),
        ("reset at CONNECT, always", RESET, None, "connection-lost"),
        ("clean end at CONNECT, always", END, None, "connection-lost"),
        ("stall at CONNECT", STALL, None, "timeout"),
        ("garbage at CONNECT", garbage, None, "registry-error"),
    ):
        yield Row("proxy", name, outcome, (("proxy", fault, times),), shape=proxy)
    yield Row("proxy", "refused", "connection-refused", shape=proxy, port="refusing")
    yield Row("proxy", "packets swallowed", "timeout", shape=proxy, port="swallowing")
    yield Row("proxy", "connection reset inside a blob", BYTES, (("blob", at(0.5, RESET), 1),), shape=proxy)
    yield Row("proxy", "stall inside a blob", BYTES, (("blob", at(0.5, STALL), 1),), shape=proxy)


# What an answer of each phase comes to when the fault is in its content, always, and this is the only place.
_CONTENT_FAULTS = {
    # phase: (length too short, first byte wrong, page, 404)
    "token": ("authentication-failed", "authentication-failed", "authentication-failed", "registry-error"),
    "index": ("manifest-invalid", "manifest-invalid", "registry-error", "image-not-found"),
    "manifest": ("content-mismatch", "content-mismatch", "registry-error", "image-not-found"),
    "config": ("content-mismatch", "content-mismatch", "content-mismatch", "blob-not-found"),
    "blob": ("content-mismatch", "content-mismatch", "content-mismatch", "blob-not-found"),
    "redirect": ("content-mismatch", "content-mismatch", "content-mismatch", "blob-not-found"),
}


def _answers(phase: str, shape: Shape) -> Iterator[Row]:
    """The same faults for every kind of answer."""
    short, wrong, html, missing = _CONTENT_FAULTS[phase]
    longer = "connection-lost" if phase in ("token", "index", "manifest") else "content-mismatch"
    for name, fault, times, outcome in (
        ("reset before the answer, once", RESET, 1, BYTES),
        ("reset before the answer, always", RESET, None, "connection-lost"),
        ("clean end before the answer, once", END, 1, BYTES),
        ("clean end before the answer, always", END, None, "connection-lost"),
        ("stall before the answer, once", STALL, 1, BYTES),
        ("stall before the answer, always", STALL, None, "timeout"),
        ("slow drip, always", _drip, None, "timeout"),
        ("429, once", status(429), 1, BYTES),
        ("429, always", status(429), None, "rate-limited"),
        ("429 with Retry-After: 3600", status(429, Retry_After="3600"), None, "rate-limited"),
        ("500, once", status(500), 1, BYTES),
        ("500, always", status(500), None, "registry-error"),
        ("502, twice", status(502), 2, BYTES),
        ("503 with Retry-After: 0, once", status(503, Retry_After="0"), 1, BYTES),
        ("404", status(404), None, missing),
        ("length too long", announcing(1), None, longer),
        ("length too short", announcing(-1), None, short),
        ("first byte wrong", flipped(0), None, wrong),
        ("last byte wrong", flipped(-1), None, wrong),
        ("a page with status 200", page, None, html),
        ("garbage instead of a status line", garbage, None, "registry-error"),
        ("chunks cut, once", chunked_cut, 1, BYTES),
        ("the right bytes in chunks", chunked, None, BYTES),
        ("gzip content coding", gzipped, None, "content-mismatch"),
        ("cut at 50 %, once", at(0.5, END), 1, BYTES),
        ("reset at 50 %, once", at(0.5, RESET), 1, BYTES),
        ("stall at 50 %, once", at(0.5, STALL), 1, BYTES),
    ):
        # a config is so small that it could arrive byte by byte within a document's time, which no flag shortens
        hurry = ("--deadline=3",) if phase in ("config", "redirect") and fault is _drip else ()
        yield Row(phase, name, outcome, ((phase, fault, times),), shape=shape, hurry=hurry)


def _bodies() -> Iterator[Row]:
    for fraction in (0.0, 0.01, 0.1, 0.9, 0.99, 1.0):
        for word, how in (("reset", RESET), ("clean end", END), ("stall", STALL)):
            yield Row("blob", f"{word} at {fraction:.0%}, once", BYTES, (("blob", at(fraction, how), 1),), layer=LARGE)
    yield Row("blob", "cut at 50 % of each answer", "connection-lost", (("blob", at(0.5, END), None),))
    yield Row("blob", "stall at 50 % of each answer", "timeout", (("blob", at(0.5, STALL), None),))
    yield Row("blob", "slow drip from 50 % on, always", "timeout", (("blob", at(0.5, _drip_rest), None),))
    yield Row(
        "blob",
        "last byte wrong, much of it has left",
        CUT,
        (("blob", flipped(-1), None),),
        layer=LARGE,
        json="content-mismatch",
    )
    yield Row(
        "blob",
        "cut at 90 % of each answer, much of it has left",
        CUT,
        (("blob", at(0.9, END), None),),
        layer=LARGE,
        json="connection-lost",
    )
    yield Row("blob", "206 to a first request", "registry-error", (("blob", status(206), None),))
    yield Row("blob", "204", "registry-error", (("blob", status(204), None),))
    yield Row("blob", "401 without a challenge", "authentication-failed", (("blob", status(401), None),))
    yield Row("blob", "403", "authentication-failed", (("blob", status(403), None),))
    yield Row("blob", "more than --max-bytes", CUT, layer=LARGE, json="budget-exhausted", options=("--max-bytes=1M",))


def _ranges() -> Iterator[Row]:
    cut = ("blob", at(0.3, END), 1)
    for name, fault, times, outcome in (
        ("416 to a range", only_ranged(status(416)), 1, BYTES),
        ("range one byte too early", ranged(lambda first, total: f"bytes {first - 1}-{total - 1}/{total}"), None, None),
        ("range of another total", ranged(lambda first, total: f"bytes {first}-{total - 1}/{total + 1}"), None, None),
        ("range that ends early", ranged(lambda first, total: f"bytes {first}-{total - 2}/{total}"), None, None),
        ("range of unknown total", ranged(lambda first, total: f"bytes {first}-{total - 1}/*"), None, BYTES),
        ("range that is garbage", ranged(lambda first, total: "lines 1-2"), None, None),
        ("404 to a range", only_ranged(status(404)), None, "blob-not-found"),
        ("500 to a range, once", only_ranged(status(500)), 1, BYTES),
        ("429 to a range, once", only_ranged(status(429, Retry_After="0")), 1, BYTES),
        ("reset at each range", only_ranged(RESET), None, "connection-lost"),
        ("range answered in gzip", only_ranged(gzipped), None, "content-mismatch"),
        ("range with a wrong byte", only_ranged(flipped(5)), None, "content-mismatch"),
    ):
        yield Row("range", name, outcome or "registry-error", (cut, ("blob", fault, times)))
        if outcome is None:
            yield Row("range", f"{name}, another place healthy", BYTES, (cut, ("blob", fault, times)), Shape.MIRROR)
    yield Row("range", "ignored", BYTES, (cut,), options=("ignore-ranges",))
    yield Row("range", "ignored, and cut again", BYTES, (cut, ("blob", at(0.6, END), 1)), options=("ignore-ranges",))


def _redirects() -> Iterator[Row]:
    for name, location, outcome in (
        ("to itself, for ever", "http://{self}{target}", "redirect-refused"),
        ("to file:", "file:///etc/passwd", "redirect-refused"),
        ("to ftp:", "ftp://{self}/x", "redirect-refused"),
        ("to a URL with a password", "http://user:password@{self}/x", "redirect-refused"),
        ("to a metadata address", "http://169.254.169.254/latest", "address-refused"),
        ("to a metadata address in IPv6 clothes", "http://[::ffff:169.254.169.254]/latest", "address-refused"),
        ("to a private address", "http://10.255.255.1/x", "address-refused"),
        ("to a name that does not exist", f"http://{NOWHERE}/x", "name-not-resolved"),
    ):
        for phase in ("index", "blob"):
            yield Row(
                "redirect",
                f"{phase} {name}",
                outcome,
                ((phase, redirecting(location), None),),
                options=("--retry-times=0",),
            )
    yield Row(
        "redirect",
        "from https to http",
        "redirect-refused",
        (("blob", redirecting("http://{self}/x"), None),),
        Shape.TLS,
    )
    expired = (("redirect", at(0.5, END), 1), ("redirect", status(403), 1))
    yield Row("redirect", "address expired while resuming", BYTES, expired, Shape.REDIRECT)
    yield Row(
        "redirect",
        "target refuses with 403, always",
        "registry-error",
        (("redirect", status(403), None),),
        Shape.REDIRECT,
    )
    yield Row(
        "redirect",
        "target asks for credentials",
        "registry-error",
        (("redirect", status(401, WWW_Authenticate='Basic realm="x"'), None),),
        Shape.REDIRECT,
    )


def _tokens() -> Iterator[Row]:
    token = Shape.TOKEN
    yield Row("token", "expired before the blob", BYTES, shape=token, accepts_first_token_for=1)
    yield Row("token", "expired while resuming", BYTES, (("blob", at(0.5, END), 1),), token, accepts_first_token_for=2)
    yield Row("token", "credentials refused", "authentication-failed", (("token", status(401), None),), token)
    yield Row(
        "token",
        "realm redirects to a metadata address",
        "address-refused",
        (("token", redirecting("http://169.254.169.254/token"), None),),
        token,
    )
    yield Row(
        "token",
        "a token that breaks a header",
        "authentication-failed",
        (("token", status(200, b'{"token":"a\\r\\nb"}'), None),),
        token,
    )
    yield Row(
        "token",
        "larger than a mebibyte",
        "limit-exceeded",
        (("token", status(200, b'{"token":"' + b"x" * 1_100_000 + b'"}'), None),),
        token,
    )


def _places() -> Iterator[Row]:
    """A mirror that fails in front of a registry that does not."""
    for phase in ("index", "manifest", "config", "blob"):
        for name, fault in (
            ("404", status(404)),
            ("401", status(401)),
            ("500", status(500)),
            ("429", status(429)),
            ("reset", RESET),
            ("stall", STALL),
            ("garbage", garbage),
            ("a page", page),
            ("gzip", gzipped),
            ("length too long", announcing(1)),
            ("cut at 50 %", at(0.5, END)),
            ("stall at 50 %", at(0.5, STALL)),
        ):
            yield Row("mirror", f"{phase}: {name}, registry healthy", BYTES, ((phase, fault, None),), Shape.MIRROR)
    yield Row(
        "mirror", "manifest: a wrong byte, registry healthy", BYTES, (("manifest", flipped(0), None),), Shape.MIRROR
    )
    yield Row("mirror", "config: a wrong byte, registry healthy", BYTES, (("config", flipped(0), None),), Shape.MIRROR)
    # over a pipe bytes leave as they are read, so that nothing can begin anew
    yield Row(
        "mirror",
        "blob: a wrong byte, registry healthy",
        BYTES,
        (("blob", flipped(-1), None),),
        Shape.MIRROR,
        json="content-mismatch",
    )
    yield Row(
        "mirror",
        "blob: a wrong byte, much of it has left",
        CUT,
        (("blob", flipped(-1), None),),
        Shape.MIRROR,
        json="content-mismatch",
        layer=LARGE,
    )
    yield Row(
        "mirror",
        "index: larger than 4 MiB, registry healthy",
        BYTES,
        (("index", status(200, b" " * 4_300_000), None),),
        Shape.MIRROR,
    )


ROWS: tuple[Row, ...] = tuple(_rows())


# --- worlds ---


class Certificates:
    """Certificates of every kind, made once for all rows."""

    def __init__(self, directory: Path) -> None:
        authority = CertificateAuthority(directory / "good")
        foreign = CertificateAuthority(directory / "foreign")
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        names = ("127.0.0.1", "registry.test")
        self.kinds = {
            "good": authority.server(names),
            "foreign": foreign.server(names),
            "name": authority.server(("other.test",)),
            "expired": authority.server(names, not_before=now - 5 * day, not_after=now - day),
            "early": authority.server(names, not_before=now + day, not_after=now + 5 * day),
        }
        self.directory = directory / "trusted"
        self.directory.mkdir()
        (self.directory / "ca.crt").write_bytes(authority.certificate.read_bytes())


@contextlib.contextmanager
def world_of(row: Row, certificates: Certificates, directory: Path) -> Iterator[World]:
    """The hosts of a row, running, with its faults armed."""
    content = make_content(row.layer)
    world = World(content)
    with contextlib.ExitStack() as stack:
        _SHAPES[row.shape](row, world, certificates, directory, stack)
        for phase, fault, times in row.strikes:
            for host in world.hosts.values():
                if host is not world.hosts.get("healthy") and not isinstance(host, FaultyProxy):
                    host.strikes.append(Strike(phase, fault, times))
        world.options += [option for option in row.options if option.startswith("--")]
        yield world


def _plain(row: Row, world: World, certificates: Certificates, directory: Path, stack: contextlib.ExitStack) -> None:
    _add(world, stack, "registry", FaultyHost(registry_of(world.content, takes_ranges=_takes_ranges(row))))
    _refer(world, world.hosts["registry"].address)
    world.options.append("--tls-verify=false")


def _tls_shape(
    row: Row, world: World, certificates: Certificates, directory: Path, stack: contextlib.ExitStack
) -> None:
    files = certificates.kinds[row.certificate]
    context = server_context(files.certificate, files.key)
    greeting = row.greeting() if row.greeting is not None else None
    _add(world, stack, "registry", FaultyHost(registry_of(world.content), tls=context, greeting=greeting))
    _refer(world, world.hosts["registry"].address)
    world.options += [f"--cert-dir={certificates.directory}"]


def _token_shape(
    row: Row, world: World, certificates: Certificates, directory: Path, stack: contextlib.ExitStack
) -> None:
    _add(world, stack, "token", FaultyHost(tokens_of(TOKENS)))
    accepted = [f"Bearer {token}" for token in TOKENS]
    if row.accepts_first_token_for is not None:
        del accepted[1]
    challenge = f'Bearer realm="{world.hosts["token"].url}/token",service="s"'
    respond = registry_of(world.content, challenge=lambda: challenge, accepted=accepted)
    left = [row.accepts_first_token_for]

    def expiring(asked: Asked) -> tuple[str, Given]:
        if left[0] is not None and "/blobs/" in asked.target:
            if left[0] == 0:
                accepted[:] = [f"Bearer {TOKENS[1]}"]
            left[0] -= 1
        return respond(asked)

    _add(world, stack, "registry", FaultyHost(expiring))
    _refer(world, world.hosts["registry"].address)
    world.options += ["--tls-verify=false", f"--creds={USER}:{PASSWORD}"]
    world.may_know = {"token": {BASIC}, "registry": {f"Bearer {token}" for token in TOKENS}}


def _redirect_shape(
    row: Row, world: World, certificates: Certificates, directory: Path, stack: contextlib.ExitStack
) -> None:
    _add(world, stack, "storage", FaultyHost(storage_of(world.content)))
    storage = world.hosts["storage"].url
    respond = registry_of(world.content, challenge=lambda: "Basic", accepted=[BASIC], blobs_at=lambda: storage)
    _add(world, stack, "registry", FaultyHost(respond))
    _refer(world, world.hosts["registry"].address)
    world.options += ["--tls-verify=false", f"--creds={USER}:{PASSWORD}"]
    world.may_know = {"registry": {BASIC}}


def _proxy_shape(
    row: Row, world: World, certificates: Certificates, directory: Path, stack: contextlib.ExitStack
) -> None:
    files = certificates.kinds["good"]
    context = server_context(files.certificate, files.key)
    _add(world, stack, "registry", FaultyHost(registry_of(world.content), tls=context))
    port = _port(row, stack)
    if not any(phase == "proxy" or phase == "blob" for phase, _, _ in row.strikes):
        url = f"http://{USER}:{PASSWORD}@127.0.0.1:{port}"
    else:
        proxy = FaultyProxy(world.hosts["registry"].port)
        tunnel = proxy.strikes.pop()
        _add(world, stack, "proxy", proxy)
        world.hosts["proxy"].strikes.extend(Strike(*strike) for strike in row.strikes if strike[0] == "proxy")
        world.hosts["proxy"].strikes.append(tunnel)
        url = f"http://{USER}:{PASSWORD}@{proxy.address}"
    _refer(world, f"registry.test:{world.hosts['registry'].port}")
    world.environment["HTTPS_PROXY"] = url
    world.options += [f"--cert-dir={certificates.directory}"]
    world.may_know = {"proxy": {BASIC}}


def _mirror_shape(
    row: Row, world: World, certificates: Certificates, directory: Path, stack: contextlib.ExitStack
) -> None:
    _add(world, stack, "healthy", FaultyHost(registry_of(world.content)))
    healthy = world.hosts["healthy"].address
    if row.strikes:
        _add(world, stack, "mirror", FaultyHost(registry_of(world.content)))
        mirror = world.hosts["mirror"].address
    else:
        mirror = f"{row.host or '127.0.0.1'}:{_port(row, stack)}"
    configuration = directory / "registries.conf"
    configuration.write_text(
        f'[[registry]]\nlocation = "{healthy}"\ninsecure = true\n'
        f'[[registry.mirror]]\nlocation = "{mirror}"\ninsecure = true\n',
        encoding="utf-8",
    )
    _refer(world, healthy)
    world.options += [f"--registries-conf={configuration}"]


def _nobody_shape(
    row: Row, world: World, certificates: Certificates, directory: Path, stack: contextlib.ExitStack
) -> None:
    _refer(world, f"{row.host or '127.0.0.1'}:{_port(row, stack)}")
    world.options.append("--tls-verify=false")


_SHAPES = {
    Shape.PLAIN: _plain,
    Shape.TLS: _tls_shape,
    Shape.TOKEN: _token_shape,
    Shape.REDIRECT: _redirect_shape,
    Shape.PROXY: _proxy_shape,
    Shape.MIRROR: _mirror_shape,
    Shape.NOBODY: _nobody_shape,
}


def _takes_ranges(row: Row) -> bool:
    return "ignore-ranges" not in row.options


def _add(world: World, stack: contextlib.ExitStack, name: str, host: FaultyHost) -> None:
    world.hosts[name] = stack.enter_context(host)


def _refer(world: World, address: str) -> None:
    world.reference = f"docker://{address}/{NAME}:t"


def _port(row: Row, stack: contextlib.ExitStack) -> int:
    opener = swallowing_port if row.port == "swallowing" else refusing_port
    return int(stack.enter_context(opener()))

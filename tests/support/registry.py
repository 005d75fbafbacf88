# SPDX-License-Identifier: Apache-2.0
"""Registries, token servers, redirect targets and proxies on 127.0.0.1 that misbehave as they are told.

A `FaultyHost` serves an answer for each request and lets `Strike`s spoil it: which phase, which fault, how often. It
keeps what each request said, so that a test sees which host was told a secret. Faults act on the connection itself:
a reset is a RST, a stall holds the connection open, a drip sends a byte now and then.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from cip.model import mediatype
from cip.model.descriptor import Digest, digest_of

from . import images

LOOPBACK = "127.0.0.1"
DRIP_SECONDS = 0.2  # between two bytes of a drip
HOLD_SECONDS = 600.0  # a stalled connection is held no longer than that, should its client forget it


class Asked(NamedTuple):
    """One request as it arrived; field names in lower case."""

    method: str
    target: str
    fields: Mapping[str, str]
    body: bytes = b""

    @property
    def first_byte(self) -> int | None:
        """Where the wanted range begins; None when all is wanted."""
        wanted = self.fields.get("range")
        return None if wanted is None else int(wanted.removeprefix("bytes=").partition("-")[0])

    @property
    def last_byte(self) -> int | None:
        """Where the wanted range ends; None for the end."""
        last = self.fields.get("range", "").partition("-")[2]
        return int(last) if last else None


class Given(NamedTuple):
    """The right answer, before a fault spoils it."""

    status: int
    body: bytes = b""
    fields: Mapping[str, str] = {}

    def head(self, length: int | None = None, extra: str = "") -> bytes:
        """Status line and fields; `length` is announced instead of the right one, -1 for none at all."""
        announced = len(self.body) if length is None else length
        lines = [f"HTTP/1.1 {self.status} Because", *(f"{name}: {value}" for name, value in self.fields.items())]
        lines += [f"Content-Length: {announced}"] if announced >= 0 else []
        return ("\r\n".join(lines) + "\r\n" + extra + "\r\n").encode("latin-1")


class Exchange:
    """One request whose answer a fault may spoil. What sends nothing more ends with `OSError` inside the server."""

    def __init__(self, sock: socket.socket, asked: Asked, given: Given) -> None:
        self.sock = sock
        self.asked = asked
        self.given = given
        self.ended = False  # whether the connection is over

    def send(self, data: bytes) -> None:
        """Put bytes on the wire."""
        self.sock.sendall(data)

    def answer(self, given: Given | None = None) -> None:
        """Send an answer whole, by default the right one."""
        chosen = given or self.given
        self.send(chosen.head() + chosen.body)

    def reset(self) -> None:
        """End the connection with a RST; what the client has received already it may still read."""
        time.sleep(0.02)  # let it read: a RST throws away what is still on its way
        reset(self.sock)
        self.ended = True

    def end(self) -> None:
        """End the connection cleanly."""
        self.ended = True

    def stall(self) -> None:
        """Say nothing until the client leaves."""
        hold(self.sock)
        self.ended = True

    def drip(self, data: bytes) -> None:
        """Send byte by byte until the client leaves."""
        for position in range(len(data)):
            self.send(data[position : position + 1])
            if leaves_within(self.sock, DRIP_SECONDS):
                break
        self.ended = True


Fault = Callable[[Exchange], None]
Greeting = Callable[[socket.socket], bool]  # before TLS and HTTP; whether to go on


@dataclass(slots=True)
class Strike:
    """A fault, the phase it belongs to, and how often it still strikes (None: always)."""

    phase: str
    fault: Fault
    times: int | None = 1


def reset(sock: socket.socket) -> None:
    """Close with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        sock.close()


def leaves_within(sock: socket.socket, seconds: float) -> bool:
    """Whether the client hangs up (or sends something, which it should not)."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def hold(sock: socket.socket) -> None:
    """Keep the connection open until the client leaves."""
    leaves_within(sock, HOLD_SECONDS)


# --- a host ---


class FaultyHost:
    """A server on 127.0.0.1; a context manager. `respond` gives the phase of a request and its right answer."""

    def __init__(
        self,
        respond: Callable[[Asked], tuple[str, Given]],
        *,
        tls: ssl.SSLContext | None = None,
        greeting: Greeting | None = None,
    ) -> None:
        self.strikes: list[Strike] = []
        self.asked: list[Asked] = []
        self.connections = 0
        self._respond = respond
        self._tls = tls
        self.greeting = greeting
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((LOOPBACK, 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self.address = f"{LOOPBACK}:{self.port}"
        self.url = f"{'http' if tls is None else 'https'}://{self.address}"
        self._acceptor = threading.Thread(target=self._accept, name=f"host {self.port}")
        self._acceptor.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop, ending every connection; returns when no thread is left."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def secrets(self) -> set[str]:
        """What this host was told in Authorization and Proxy-Authorization fields."""
        names = ("authorization", "proxy-authorization")
        return {asked.fields[name] for asked in self.asked for name in names if name in asked.fields}

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(sock,), name=f"connection to {self.port}")
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with self._lock:
            self._open.add(sock)
        served = sock
        try:
            if self.greeting is not None and not self.greeting(sock):
                return
            if self._tls is not None:
                sock.settimeout(HOLD_SECONDS)
                served = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                assert isinstance(served, ssl.SSLSocket)
                served.do_handshake()
                served.settimeout(None)
            self._converse(served)
        except (OSError, ValueError):
            pass  # the client left, which most faults make it do
        finally:
            with self._lock:
                self._open.discard(sock)
            served.close()
            sock.close()

    def _converse(self, sock: socket.socket) -> None:
        buffer = b""
        while True:
            while b"\r\n\r\n" not in buffer:
                if buffer[:1] and not buffer[:1].isalpha():
                    sock.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")  # a TLS handshake, for one
                    return
                part = sock.recv(65536)
                if not part:
                    return
                buffer += part
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            method, target, _ = first.split(" ", 2)
            pairs = (line.partition(":") for line in lines)
            fields = {name.lower(): value.strip() for name, _, value in pairs}
            length = int(fields.get("content-length", "0"))
            while len(buffer) < length:
                buffer += sock.recv(65536) or b"\0" * length
            asked = Asked(method, target, fields, buffer[:length])
            buffer = buffer[length:]
            self.asked.append(asked)
            phase, given = self._respond(asked)
            exchange = Exchange(sock, asked, given)
            self._fault_for(phase)(exchange)
            if exchange.ended:
                return

    def _fault_for(self, phase: str) -> Fault:
        with self._lock:
            for strike in self.strikes:
                if strike.phase == phase and strike.times != 0:
                    if strike.times is not None:
                        strike.times -= 1
                    return strike.fault
        return Exchange.answer


# --- what is served ---


@dataclass(slots=True)
class Content:
    """An image of one platform inside an index: what a registry has, and what a client must get."""

    config: bytes
    layer: bytes
    manifest: bytes = b""
    index: bytes = b""
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.manifest = images.manifest(self.config, [images.describe(self.layer, mediatype.OCI_LAYER)])
        names = ("amd64", "arm64", "s390x", "ppc64le", "riscv64")
        platforms = [{"os": "linux", "architecture": name} for name in names]
        self.index = images.index([images.entry(self.manifest, platform=platform) for platform in platforms])
        self.blobs = {digest_of(data): data for data in (self.config, self.layer)}
        self.manifests = {
            "t": (mediatype.OCI_INDEX, self.index),
            str(digest_of(self.manifest)): (mediatype.OCI_MANIFEST, self.manifest),
        }


def make_content(layer_size: int) -> Content:
    """The image that all faults are about; its layer has `layer_size` bytes."""
    layer = images.random_bytes(layer_size, b"layer")
    return Content(images.config([digest_of(layer)]), layer)


NAME = "faulty/image"


def registry_of(
    content: Content,
    *,
    challenge: Callable[[], str] | None = None,
    accepted: Sequence[str] = (),
    blobs_at: Callable[[], str] | None = None,
    takes_ranges: bool = True,
) -> Callable[[Asked], tuple[str, Given]]:
    """What a registry with `content` answers, in the phases ping, index, manifest, config and blob.

    With `challenge` it wants one of the `accepted` authorizations (a list that a test may change), with `blobs_at` it
    redirects for blobs to the URL given there.
    """

    def respond(asked: Asked) -> tuple[str, Given]:
        path = asked.target.partition("?")[0].removeprefix(f"http://{asked.fields.get('host', '')}")
        phase, given = _find(content, path, asked if takes_ranges else asked._replace(fields={}))
        if challenge is not None and asked.fields.get("authorization") not in accepted:
            return phase, Given(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', {"WWW-Authenticate": challenge()})
        if blobs_at is not None and phase in ("config", "blob"):
            return phase, Given(307, b"", {"Location": blobs_at() + path})
        return phase, given

    return respond


def _find(content: Content, path: str, asked: Asked) -> tuple[str, Given]:
    if path == "/v2/":
        return "ping", Given(200, b"{}")
    kind, _, name = path.removeprefix(f"/v2/{NAME}/").partition("/")
    if kind == "manifests":
        media_type, data = content.manifests.get(name, ("", b""))
        phase = "index" if name == "t" else "manifest"
        missing = b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}'
        return phase, Given(200, data, {"Content-Type": media_type}) if data else Given(404, missing)
    for digest, data in content.blobs.items():
        if name == str(digest):
            phase = "config" if data == content.config else "blob"
            return phase, part_of(data, asked.first_byte, asked.last_byte)
    return "blob", Given(404, b'{"errors":[{"code":"BLOB_UNKNOWN"}]}')


def part_of(data: bytes, first: int | None, last: int | None = None) -> Given:
    """All of `data`, or what is left from `first` on, up to `last`."""
    if first is None:
        return Given(200, data, {"Content-Type": "application/octet-stream"})
    if first >= len(data) and data:
        return Given(416, b"", {"Content-Range": f"bytes */{len(data)}"})
    end = len(data) if last is None else min(last + 1, len(data))
    return Given(206, data[first:end], {"Content-Range": f"bytes {first}-{end - 1}/{len(data)}"})


def storage_of(content: Content) -> Callable[[Asked], tuple[str, Given]]:
    """What a registry redirects to: blobs under any path that ends in their digest, in the phase redirect."""

    def respond(asked: Asked) -> tuple[str, Given]:
        return "redirect", _find(content, "/v2/" + asked.target.partition("/v2/")[2].partition("?")[0], asked)[1]

    return respond


def tokens_of(tokens: Sequence[str]) -> Callable[[Asked], tuple[str, Given]]:
    """A token server that gives one token after the other, the last one for ever, in the phase token."""
    left = list(tokens)

    def respond(asked: Asked) -> tuple[str, Given]:
        token = left.pop(0) if len(left) > 1 else left[0]
        return "token", Given(200, json.dumps({"token": token}).encode(), {"Content-Type": "application/json"})

    return respond


# --- a proxy ---


class FaultyProxy(FaultyHost):
    """An HTTP proxy for one registry: whatever name is asked for, `port` is where it leads. Phase: proxy."""

    def __init__(self, port: int) -> None:
        self._target = port
        super().__init__(lambda asked: ("proxy", Given(200)))
        self.strikes.append(Strike("proxy", self._tunnel, None))

    def _tunnel(self, exchange: Exchange) -> None:
        if exchange.asked.method != "CONNECT":
            exchange.answer(Given(400))
            return
        exchange.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection((LOOPBACK, self._target)) as behind:
            splice(exchange.sock, behind)
        exchange.end()


def splice(first: socket.socket, second: socket.socket) -> None:
    """Pass bytes in both directions until one side ends."""
    poller = select.poll()
    for sock in (first, second):
        poller.register(sock, select.POLLIN)
    other = {first.fileno(): second, second.fileno(): first}
    mine = {first.fileno(): first, second.fileno(): second}
    while True:
        for number, _ in poller.poll(HOLD_SECONDS * 1000):
            data = mine[number].recv(65536)
            if not data:
                return
            other[number].sendall(data)


# --- addresses where nobody answers ---


@contextlib.contextmanager
def refusing_port() -> Iterator[int]:
    """A port that refuses connections."""
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        yield int(sock.getsockname()[1])


@contextlib.contextmanager
def swallowing_port() -> Iterator[int]:
    """A port that does not answer at all: its queue is full, so that the kernel drops every further SYN."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        port = int(listener.getsockname()[1])
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect((LOOPBACK, port))
        time.sleep(0.05)
        yield port


# --- faults ---


def at(fraction: float, how: Callable[[Exchange], None]) -> Fault:
    """An answer that comes to `how` after this fraction of its body."""

    def strike(exchange: Exchange) -> None:
        count = int(len(exchange.given.body) * fraction)
        exchange.send(exchange.given.head() + exchange.given.body[:count])
        how(exchange)

    return strike


def status(number: int, body: bytes = b"", **fields: str) -> Fault:
    """Another status; underscores in field names are hyphens."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return lambda exchange: exchange.answer(Given(number, body, named))


def announcing(difference: int) -> Fault:
    """A length that is wrong by `difference`, the connection closed behind the body."""

    def strike(exchange: Exchange) -> None:
        exchange.send(exchange.given.head(len(exchange.given.body) + difference) + exchange.given.body)
        exchange.end()

    return strike


def flipped(position: int) -> Fault:
    """One byte of the body is another, at the front or (-1) at the end."""

    def strike(exchange: Exchange) -> None:
        body = bytearray(exchange.given.body)
        body[position] ^= 1
        exchange.answer(exchange.given._replace(body=bytes(body)))

    return strike


def garbage(exchange: Exchange) -> None:
    """No HTTP at all."""
    exchange.send(b"\x00\xff not http\r\n\r\n")
    exchange.end()


def page(exchange: Exchange) -> None:
    """What a portal sends for everything."""
    exchange.answer(Given(200, b"<html>please log in</html>", {"Content-Type": "text/html"}))


def chunked_cut(exchange: Exchange) -> None:
    """Chunks that end in the middle."""
    body = exchange.given.body
    half = body[: len(body) // 2]
    exchange.send(exchange.given.head(-1, "Transfer-Encoding: chunked\r\n") + b"%x\r\n" % len(body) + half)
    exchange.end()


def chunked(exchange: Exchange) -> None:
    """The right bytes, in chunks."""
    body = exchange.given.body
    head = exchange.given.head(-1, "Transfer-Encoding: chunked\r\n")
    exchange.send(head + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:7], body[7:]) if p) + b"0\r\n\r\n")


def gzipped(exchange: Exchange) -> None:
    """The right bytes under a content coding that nobody accepted."""
    exchange.answer(exchange.given._replace(fields={**exchange.given.fields, "Content-Encoding": "gzip"}))


def redirecting(location: str) -> Fault:
    """Elsewhere; `{self}` is the host that was asked."""

    def strike(exchange: Exchange) -> None:
        target = location.replace("{self}", exchange.asked.fields["host"])
        exchange.answer(Given(307, b"", {"Location": target.replace("{target}", exchange.asked.target)}))

    return strike


def ranged(change: Callable[[int, int], str]) -> Fault:
    """A 206 whose Content-Range is what `change` makes of the right first byte and length; else the right answer."""

    def strike(exchange: Exchange) -> None:
        given = exchange.given
        if given.status != 206:
            exchange.answer()
            return
        first = exchange.asked.first_byte or 0
        total = first + len(given.body)
        exchange.answer(given._replace(fields={**given.fields, "Content-Range": change(first, total)}))

    return strike


def only_ranged(fault: Fault) -> Fault:
    """The fault strikes requests for a range only."""
    return lambda exchange: fault(exchange) if exchange.given.status == 206 else exchange.answer()


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS for a host."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context

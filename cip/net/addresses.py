# SPDX-License-Identifier: Apache-2.0
"""Which network addresses may be connected to, and which one is: the first that answers.

They are judged as resolved addresses (decisions.md section 2). Where the user or the administrator configured a host,
it may be anywhere. Where a registry sends us (redirects, token realms), link-local and metadata addresses are never
visited, and loopback and private ones only when the registry itself was reached at an address of that class. An IPv4
address inside an IPv6 one counts as itself.

An address gets a head start of ATTEMPT_DELAY before the next one is tried beside it (RFC 8305, "Happy Eyeballs"), so
that a network that swallows packets of one family costs a quarter of a second and not a time-out.
"""

import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from functools import cache
from ipaddress import ip_address, ip_network
from itertools import zip_longest
from typing import NamedTuple

from ..errors import ErrorCode, NetworkError, Phase, SourceError, redacted, system_reason
from .limits import POLL, Limits
from .url import Origin

ATTEMPT_DELAY = 0.25  # seconds
_CODES = {errno.ETIMEDOUT: ErrorCode.TIMEOUT, errno.ECONNRESET: ErrorCode.CONNECTION_LOST}  # all else: refused


class AddressClass(StrEnum):
    """How far away an address is."""

    PUBLIC = "public"
    PRIVATE = "private"
    LOOPBACK = "loopback"
    FORBIDDEN = "forbidden"  # this network, link-local, multicast, reserved, metadata services


class Address(NamedTuple):
    """A resolved address: family, what `connect` takes, its text and its class."""

    family: int
    endpoint: tuple[object, ...]
    text: str
    kind: AddressClass


_CLASSES = (
    ("169.254.0.0/16", AddressClass.FORBIDDEN),  # link-local, the usual metadata address included
    ("100.100.100.200/32", AddressClass.FORBIDDEN),  # metadata
    ("0.0.0.0/8", AddressClass.FORBIDDEN),
    ("224.0.0.0/3", AddressClass.FORBIDDEN),  # multicast, reserved, broadcast
    ("127.0.0.0/8", AddressClass.LOOPBACK),
    ("10.0.0.0/8", AddressClass.PRIVATE),
    ("172.16.0.0/12", AddressClass.PRIVATE),
    ("192.168.0.0/16", AddressClass.PRIVATE),
    ("100.64.0.0/10", AddressClass.PRIVATE),  # carrier-grade NAT: inside somebody's network
    ("198.18.0.0/15", AddressClass.PRIVATE),  # benchmarks
    ("fd00:ec2::254/128", AddressClass.FORBIDDEN),  # metadata
    ("::/128", AddressClass.FORBIDDEN),
    ("fe80::/10", AddressClass.FORBIDDEN),
    ("ff00::/8", AddressClass.FORBIDDEN),
    ("::1/128", AddressClass.LOOPBACK),
    ("fc00::/7", AddressClass.PRIVATE),
    ("fec0::/10", AddressClass.PRIVATE),
)
_EMBEDDED_V4 = (  # and the first byte of the IPv4 address
    ("::ffff:0:0/96", 12),  # mapped
    ("::ffff:0:0:0/96", 12),  # translated
    ("::/96", 12),  # compatible
    ("64:ff9b::/96", 12),  # NAT64
    ("2002::/16", 2),  # 6to4
)
_network = cache(ip_network)
_LOCAL_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost")
_METADATA_NAMES = ("metadata.google.internal", "metadata.goog")


def classify(packed: bytes) -> AddressClass:
    """The class of a packed IPv4 or IPv6 address.

    Not by the properties of `ipaddress`: what they call private or global has changed between versions.
    """
    address, is_v6 = ip_address(packed), len(packed) == 16
    for text, kind in _CLASSES:
        if (":" in text) is is_v6 and address in _network(text):
            return kind
    for text, start in _EMBEDDED_V4 if is_v6 else ():
        if address in _network(text):
            return classify(packed[start : start + 4])
    return AddressClass.PUBLIC


def classify_name(host: str) -> AddressClass:
    """The class that the text of a host tells: for what a proxy resolves, beyond our sight.

    Numbers are read as the C library reads them (`127.1`, `0x7f000001`), for a proxy may do so too.
    """
    plain = host.rstrip(".").lower()
    if plain in _LOCAL_NAMES or plain.endswith(".localhost"):
        return AddressClass.LOOPBACK
    if plain in _METADATA_NAMES:
        return AddressClass.FORBIDDEN
    try:
        return classify(socket.inet_pton(socket.AF_INET6, plain) if ":" in plain else socket.inet_aton(plain))
    except OSError:
        return AddressClass.PUBLIC


def require_allowed(origin: Origin, text: str, kind: AddressClass, reached: frozenset[AddressClass] | None) -> None:
    """Return only if a place that a registry named may be connected to; `reached` None: it was configured by us.

    Raises SourceError (address-refused).
    """
    if reached is None or kind is AddressClass.PUBLIC or (kind in reached and kind is not AddressClass.FORBIDDEN):
        return
    why = {
        AddressClass.FORBIDDEN: "a link-local, multicast or metadata address",
        AddressClass.LOOPBACK: "an address of this host, and the registry itself is elsewhere",
        AddressClass.PRIVATE: "an address of a private network, and the registry itself is not in one",
    }[kind]
    said = f"the registry sends us to {redacted(text)}, {why}"
    raise SourceError.at(origin.address, said, code=ErrorCode.ADDRESS_REFUSED)


ConnectedSocket = tuple[socket.socket, Address]  # and where it leads
LookUp = Callable[[bytes, int], Iterable[tuple[int, tuple[object, ...]]]]


def _getaddrinfo(host: bytes, port: int) -> Iterable[tuple[int, tuple[object, ...]]]:
    # bytes: for a str Python would import the idna codec, and no host name here is anything but ASCII
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return dict.fromkeys((int(answer[0]), answer[4]) for answer in answers)


def resolve(origin: Origin, limits: Limits, via: str, look_up: LookUp = _getaddrinfo) -> list[Address]:
    """The addresses of a host, families alternating, the resolver's first choice first.

    Waits at most `limits.times.name_lookup` seconds. Raises NetworkError (name-not-resolved, timeout).
    """
    literal = _literal(origin)
    if literal is not None:
        return [literal]
    found: list[tuple[int, tuple[object, ...]]] = []
    failed = ["no address"]
    done = threading.Event()

    def run() -> None:
        try:
            found.extend(look_up(origin.host.encode("ascii"), origin.port))
        except OSError as error:
            failed.append(system_reason(error))
        except UnicodeError:
            failed.append("a label of the name is empty or too long")
        finally:
            done.set()

    # The resolver of the C library cannot be interrupted: it gets a thread that may outlive the question.
    try:
        threading.Thread(target=run, name=f"look up {origin.host}", daemon=True).start()
    except RuntimeError as error:  # no more threads for this process
        raise _unresolved(origin, str(error), via, ErrorCode.LIMIT_EXCEEDED) from error
    seconds = limits.seconds(limits.times.name_lookup, Phase.DNS, origin.address, via)
    if not limits.wait(done, seconds):
        raise limits.expired(limits.times.name_lookup, Phase.DNS, origin.address, via, "the name is not resolved")
    if not found:
        raise _unresolved(origin, failed[-1], via, ErrorCode.NAME_NOT_RESOLVED)
    return alternate([_address(family, endpoint) for family, endpoint in found])


def _unresolved(origin: Origin, why: str, via: str, code: ErrorCode) -> NetworkError:
    return NetworkError.at(origin.address, f"the name is not resolved: {why} ({via})", code=code, phase=Phase.DNS)


def alternate(addresses: Sequence[Address]) -> list[Address]:
    """Families in turn, each in its own order, the family of the first address first (RFC 8305, section 4)."""
    first = [address for address in addresses if address.family == addresses[0].family]
    second = [address for address in addresses if address.family != addresses[0].family]
    return [address for pair in zip_longest(first, second) for address in pair if address is not None]


def _literal(origin: Origin) -> Address | None:
    family = socket.AF_INET6 if ":" in origin.host else socket.AF_INET
    try:
        socket.inet_pton(family, origin.host)
    except OSError:
        return None
    return _address(family, (origin.host, origin.port))


def _address(family: int, endpoint: tuple[object, ...]) -> Address:
    text = str(endpoint[0]).partition("%")[0]
    return Address(family, endpoint, text, classify(socket.inet_pton(family, text)))


def connect(
    origin: Origin, addresses: Sequence[Address], limits: Limits, via: str, *, delay: float = ATTEMPT_DELAY
) -> ConnectedSocket:
    """A connected socket in blocking mode, and the address it is connected to; the caller closes it.

    Raises NetworkError (connection-refused, timeout) after `limits.times.connect` seconds or when all have failed.
    """
    host, limit = origin.address, limits.times.connect
    end = time.monotonic() + limits.seconds(limit, Phase.CONNECT, host, via)
    waiting, next_start = list(addresses), 0.0
    pending: dict[int, ConnectedSocket] = {}  # by descriptor; not connected yet
    failures: list[tuple[int, Address]] = []
    poll = select.poll()
    try:
        while waiting or pending:
            now = time.monotonic()
            if waiting and (now >= next_start or not pending):
                address, next_start = waiting.pop(0), now + delay
                try:
                    sock = socket.socket(address.family, socket.SOCK_STREAM)
                except OSError as error:  # EAFNOSUPPORT: a host without IPv6, or out of descriptors
                    failures.append((error.errno or 0, address))
                    continue
                sock.setblocking(False)
                pending[sock.fileno()] = sock, address
                poll.register(sock, select.POLLOUT)
                settled = [(sock.fileno(), sock.connect_ex(address.endpoint))]
            else:
                if now >= end:
                    raise limits.expired(limit, Phase.CONNECT, host, via, "no connection")
                limits.cancellation.require(host)
                wake = min(end, now + POLL, next_start if waiting else end)
                ready = [descriptor for descriptor, _ in poll.poll(max(0.0, wake - now) * 1000 + 1)]
                settled = [(each, pending[each][0].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)) for each in ready]
            for descriptor, code in settled:
                if code == errno.EINPROGRESS:
                    continue
                sock, address = pending[descriptor]
                if not code:
                    del pending[descriptor]
                    sock.setblocking(True)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    return sock, address
                failures.append((code, address))
                poll.unregister(sock)
                pending.pop(descriptor)[0].close()
    finally:
        for sock, _ in pending.values():
            sock.close()
    raise _all_failed(origin, failures, via)


def _all_failed(origin: Origin, failures: Sequence[tuple[int, Address]], via: str) -> NetworkError:
    """One cause for the code; every address and its cause for the reader."""
    causes = ", ".join(f"{redacted(address.text)}: {os.strerror(code).lower()}" for code, address in failures[:4])
    codes = {code for code, _ in failures}
    refused = ErrorCode.CONNECTION_REFUSED
    code = _CODES.get(codes.pop(), refused) if len(codes) == 1 else refused
    return NetworkError.at(origin.address, f"no connection: {causes} ({via})", code=code, phase=Phase.CONNECT)

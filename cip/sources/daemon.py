# SPDX-License-Identifier: Apache-2.0
"""`docker-daemon:`, an image that a Docker daemon hands out as a `docker save` stream (images.md 3.7).

The stream cannot be read twice or out of order, so it is kept in one temporary file, which the handles of the
process share, and then read as the archive that it is.
"""

from __future__ import annotations

import os
import re
import socket
from typing import NamedTuple
from urllib.parse import quote as quote_url
from urllib.parse import urlsplit

from .. import log
from ..content import undo_on_error
from ..errors import (
    CipError,
    ConfigurationError,
    ErrorCode,
    NetworkError,
    Phase,
    RegistryError,
    SourceError,
    UsageError,
    quote,
    quote_own,
    system_reason,
)
from ..model.jsontree import parse_json
from ..model.reference import ImageReference, Transport, docker_identity, nameless_identity
from ..net.connection import Connection, ConnectionPool, Route
from ..net.limits import Cancellation, Clock, Limits
from ..net.opener import Network, Opener, Request
from ..net.redaction import Secrets
from ..net.response import Response
from ..net.tls import TlsContexts, TlsIdentity
from ..net.url import Origin, Url
from ..settings import Settings
from ..temporary import TemporaryFile
from .archives.archive import Archive
from .archives.compression import copy_to_file
from .archives.dockerarchive import Choice, DockerArchiveSource
from .archives.spool import Spools

DEFAULT_HOST = "unix:///var/run/docker.sock"
MESSAGE_LIMIT = 64 * 1024  # bytes of an error answer
_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,4}", re.ASCII)


class DaemonAddress(NamedTuple):
    """Where a daemon listens: a socket path, or host and port, with TLS or without."""

    path: str = ""
    host: str = ""
    port: int = 0
    tls: bool = False


def parse_daemon_host(text: str) -> DaemonAddress:
    """Parse `unix://PATH`, `http://HOST[:PORT]`, or `tcp://` and `https://`, which are TLS. Raises UsageError."""
    scheme, separator, rest = text.partition("://")
    # what stands in front of an `@` may be a password, whatever else is wrong
    named = scheme.rpartition("@")[2]
    shown = quote_own(named + separator + rest.rpartition("@")[2].partition("?")[0])
    if not separator or "\0" in text:
        raise UsageError(f"--daemon-host {shown}: expected SCHEME://ADDRESS")
    if scheme == "unix":
        if not rest:
            raise UsageError(f"--daemon-host {shown}: expected a path")
        return DaemonAddress(path=rest)
    if scheme not in ("http", "tcp", "https"):
        raise UsageError(f"--daemon-host {shown}: expected unix, http, tcp or https, found {quote_own(named)}")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"--daemon-host {shown}: not a host and port") from error
    if not host or parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment:
        raise UsageError(f"--daemon-host {shown}: expected HOST[:PORT] behind {scheme}://")
    return DaemonAddress(host=host, port=port or (2375 if scheme == "http" else 2376), tls=scheme != "http")


def open_daemon(reference: ImageReference, settings: Settings, spools: Spools) -> DockerArchiveSource:
    """The image that `reference` names in the daemon at `--daemon-host`.

    Raises UsageError, SourceError, NetworkError (offline for a daemon behind the network), InvalidDocumentError.
    """
    host = settings.daemon_host or DEFAULT_HOST
    address = parse_daemon_host(host)
    if settings.offline and not address.path:
        why = f"{reference.text}: --offline forbids to ask the daemon at {address.host}"
        raise NetworkError(why, code=ErrorCode.OFFLINE)
    name = str(reference.image_id or reference.docker)
    export = _Export(reference.text, address, settings)
    spooled = spools.open(("docker-daemon", host, name), lambda file: export.save(name, file))
    archive = Archive(spooled.descriptor, reference.text, spooled.close)
    if reference.docker is not None:
        identity = docker_identity(Transport.DOCKER_DAEMON, reference.docker)
    else:
        identity = nameless_identity(Transport.DOCKER_DAEMON)
    with undo_on_error(archive.close):
        return DockerArchiveSource(reference.text, identity, archive, Choice(), spools)


class _LocalConnection(Connection):
    """A connection to the server on this host whose socket is at `path`."""

    def __init__(self, route: Route, contexts: TlsContexts, path: str) -> None:
        super().__init__(route, contexts)
        self.name = path

    def open_socket(self) -> tuple[socket.socket, None]:
        """A socket connected to it. Raises SourceError."""
        return connect_local(self.name, self.limits), None


def connect_local(path: str, limits: Limits) -> socket.socket:
    """A socket connected to a server on this host; the caller closes it. Raises SourceError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(limits.seconds(limits.times.connect, Phase.CONNECT, path, "direct"))
        sock.connect(path)
    except OSError as error:
        sock.close()
        why = system_reason(error)
        if isinstance(error, TimeoutError):
            raise NetworkError.at(path, why, code=ErrorCode.TIMEOUT, phase=Phase.CONNECT) from error
        raise SourceError.at(path, why, phase=Phase.CONNECT) from error
    return sock


class _Export:
    """Conversations with one daemon. Waits are bounded: `times.opening` for all of it, `times.idle` between bytes."""

    def __init__(self, text: str, address: DaemonAddress, settings: Settings) -> None:
        self._text = text
        self._times = settings.times
        self._origin = Origin("https" if address.tls else "http", address.host or "docker", address.port or 80)
        contexts, clock = TlsContexts(), Clock()
        # neither a proxy nor the budget of the network: a daemon belongs to this host, or is spoken to like one
        secrets = Secrets()  # none is ever sent to a daemon

        def connect(route: Route, limits: Limits) -> Connection:
            return _LocalConnection(route, contexts, address.path) if address.path else Connection(route, contexts)

        self._network = Network(ConnectionPool(1), connect, None, lambda origin: None, settings.user_agent, secrets)
        self._opener = Opener(self._network, _identity(text, settings))
        # the first byte may take as long as the daemon packs the image: until the deadline
        times = self._times._replace(idle=self._times.opening)
        self._limits = Limits(clock, times, Cancellation(), clock.monotonic() + times.opening)

    def save(self, name: str, output: TemporaryFile) -> None:
        """Write the `docker save` stream of the image `name` to `output`.

        Raises SourceError (with `http_status` when the daemon refused), NetworkError.
        """
        try:
            path = f"{self._api_version()}/images/get?names={quote_url(name, safe='')}"
            with self._get(path) as response:
                if response.status != 200:
                    raise self._refusal(response)
                response.limits = Limits(
                    self._limits.clock, self._times, self._limits.cancellation, self._limits.deadline
                )
                copy_to_file(response, output, self._text)
        except CipError as error:
            if error.phase is Phase.CONNECT and isinstance(error, SourceError):
                raise type(error)(f"{self._text}: {error}; is the daemon running?", **error.facts()) from error
            error.phase = error.phase or Phase.MANIFEST
            raise
        finally:
            self._network.pool.close()

    def _api_version(self) -> str:
        """The version that the daemon speaks, as a path; empty for one that does not say."""
        with self._get("/_ping") as response:
            version = response.headers.get("Api-Version", "")
            response.read_all(MESSAGE_LIMIT, f"{self._text}: /_ping")
        return f"/v{version}" if _VERSION.fullmatch(version) else ""

    def _get(self, path: str) -> Response:
        return self._opener.ask(Request(Url(self._origin, path)), self._limits)

    def _refusal(self, response: Response) -> RegistryError:
        """The daemon's own words, `{"message": …}`, cut short."""
        try:
            message = parse_json(response.read_all(MESSAGE_LIMIT, "answer"), "answer")["message"].as_str()
        except CipError:
            message = ""
        why = f": {quote(message)}" if message else ""
        status, host = response.status, response.channel.host
        return RegistryError(f"{self._text}: {host}: the daemon answers {status}{why}", host=host, http_status=status)


def _identity(text: str, settings: Settings) -> TlsIdentity:
    """System roots, and from `--cert-dir` `ca.pem` beside them, `cert.pem` with `key.pem` for ourselves."""
    verify = settings.tls_verify is not False
    if not verify:
        log.warning("%s: the certificate of the daemon is not verified (--tls-verify=false)", text)
    if settings.cert_dir is None:
        return TlsIdentity(verify)
    authority, certificate, key = (os.path.join(settings.cert_dir, name) for name in ("ca.pem", "cert.pem", "key.pem"))
    pair = (certificate, key)
    if sum(map(os.path.exists, pair)) == 1:
        raise ConfigurationError(f"--cert-dir {quote(settings.cert_dir)}", "expected cert.pem and key.pem, found one")
    authorities = (authority,) if os.path.exists(authority) else ()
    return TlsIdentity(verify, authorities, (pair,) if os.path.exists(certificate) else (), (settings.cert_dir,))

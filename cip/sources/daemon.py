# SPDX-License-Identifier: Apache-2.0
"""`docker-daemon:`, an image that a Docker daemon hands out as a `docker save` stream (images.md 3.7).

The stream cannot be read twice or out of order, so it is kept in one temporary file, which the handles of the
process share, and then read as the archive that it is.
"""

from __future__ import annotations

import http.client
import io
import os
import re
import socket
import ssl
import time
from typing import Any, NamedTuple
from urllib.parse import quote as quote_url
from urllib.parse import urlsplit

from .. import log
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
)
from ..model.identity import docker_identity, nameless_identity
from ..model.jsontree import parse_json
from ..model.reference import ImageReference, Transport
from ..programs import Programs
from ..settings import Settings, TlsVerify
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
    if not separator or "\0" in text:
        raise UsageError(f"--daemon-host {quote(text)}: expected SCHEME://ADDRESS")
    if scheme == "unix":
        if not rest:
            raise UsageError(f"--daemon-host {quote(text)}: expected a path")
        return DaemonAddress(path=rest)
    if scheme not in ("http", "tcp", "https"):
        raise UsageError(f"--daemon-host {quote(text)}: expected unix, http, tcp or https, found {quote(scheme)}")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"--daemon-host {quote(text)}: not a host and port") from error
    if not host or parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment:
        raise UsageError(f"--daemon-host {quote(text)}: expected HOST[:PORT] behind {scheme}://")
    return DaemonAddress(host=host, port=port or (2375 if scheme == "http" else 2376), tls=scheme != "http")


def open_daemon(
    reference: ImageReference, settings: Settings, spools: Spools, programs: Programs
) -> DockerArchiveSource:
    """The image that `reference` names in the daemon at `--daemon-host`.

    Raises UsageError, SourceError, NetworkError (offline for a daemon behind the network), InvalidDocumentError.
    """
    host = settings.daemon_host or DEFAULT_HOST
    address = parse_daemon_host(host)
    if settings.offline and not address.path:
        raise NetworkError(
            f"{reference.text}: --offline forbids to ask the daemon at {address.host}", code=ErrorCode.OFFLINE
        )
    name = str(reference.image_id or reference.docker)
    export = _Export(reference.text, address, settings)
    spooled = spools.open(("docker-daemon", host, name), lambda output: export.save(name, output))
    archive = Archive(spooled.descriptor, reference.text, spooled.close)
    try:
        if reference.docker is not None:
            identity = docker_identity(Transport.DOCKER_DAEMON, reference.docker)
        else:
            identity = nameless_identity(Transport.DOCKER_DAEMON)
        return DockerArchiveSource(reference.text, identity, archive, Choice(), spools, programs)
    except BaseException:
        archive.close()
        raise


class _Export:
    """Conversations with one daemon. Waits are bounded: `times.open` for all of it, `times.idle` between bytes."""

    def __init__(self, text: str, address: DaemonAddress, settings: Settings) -> None:
        self._text = text
        self._address = address
        self._settings = settings
        self._deadline = 0.0

    def save(self, name: str, output: int) -> None:
        """Write the `docker save` stream of the image `name` to the descriptor `output`.

        Raises SourceError (with `http_status` when the daemon refused), NetworkError.
        """
        self._deadline = time.monotonic() + self._settings.times.open
        try:
            version = self._api_version()
            response = self._get(f"{version}/images/get?names={quote_url(name, safe='')}")
            with response:
                if response.status != 200:
                    raise self._refusal(response)
                copy_to_file(response, output, self._text)
                if response.length:
                    raise self._lost(f"{response.length} bytes are missing")
        except CipError as error:
            error.phase = error.phase or Phase.MANIFEST
            raise
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._failure(error) from error

    def _api_version(self) -> str:
        """The version that the daemon speaks, as a path; empty for one that does not say."""
        with self._get("/_ping") as response:
            version = response.getheader("Api-Version", "")
        return f"/v{version}" if _VERSION.fullmatch(version) else ""

    def _get(self, path: str) -> http.client.HTTPResponse:
        """The answer to one request on a connection of its own, which ends with the answer."""
        connection = http.client.HTTPConnection(self._address.host or "docker", self._address.port or 80)
        bounded = self._connect()
        # http.client asks nothing of its socket but `sendall`, `makefile` and `close`.
        connection.sock = bounded
        try:
            connection.request("GET", path, headers={"User-Agent": self._settings.user_agent, "Connection": "close"})
            return connection.getresponse()
        except BaseException:
            bounded.disconnect()
            raise

    def _connect(self) -> _BoundedSocket:
        times = self._settings.times
        if self._address.path:
            plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                plain.settimeout(times.connect)
                plain.connect(self._address.path)
            except BaseException:
                plain.close()
                raise
        else:
            plain = socket.create_connection((self._address.host, self._address.port), times.connect)
        if self._address.tls:
            try:
                plain.settimeout(times.tls_handshake)
                plain = self._tls_context().wrap_socket(plain, server_hostname=self._address.host)
            except BaseException:
                plain.close()
                raise
        return _BoundedSocket(plain, self._deadline, times.idle)

    def _tls_context(self) -> ssl.SSLContext:
        """System roots, and from `--cert-dir` `ca.pem` beside them, `cert.pem` with `key.pem` for ourselves."""
        context = ssl.create_default_context()
        directory = self._settings.cert_dir
        if directory is not None:
            names = {name: os.path.join(directory, name) for name in ("ca.pem", "cert.pem", "key.pem")}
            there = {name for name, path in names.items() if os.path.exists(path)}
            if len(there & {"cert.pem", "key.pem"}) == 1:
                raise ConfigurationError(f"--cert-dir {quote(directory)}", "expected cert.pem and key.pem, found one")
            try:
                if "ca.pem" in there:
                    context.load_verify_locations(names["ca.pem"])
                if "cert.pem" in there:
                    context.load_cert_chain(names["cert.pem"], names["key.pem"], password="")  # never ask a terminal
            except OSError as error:  # also an ssl.SSLError: a file that holds something else
                raise ConfigurationError(f"--cert-dir {quote(directory)}", _words(error)) from error
        if self._settings.tls_verify is TlsVerify.DISABLED:
            log.warning("%s: the certificate of the daemon is not verified (--tls-verify=false)", self._text)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _refusal(self, response: http.client.HTTPResponse) -> SourceError:
        """The daemon's own words, `{"message": …}`, cut short."""
        body = response.read(MESSAGE_LIMIT)
        try:
            message = parse_json(body, "answer")["message"].as_str()
        except CipError:
            message = ""
        why = f": {quote(message)}" if message else ""
        return RegistryError(
            f"{self._text}: the daemon answers {response.status}{why}", host=self._place(), http_status=response.status
        )

    def _failure(self, error: Exception) -> SourceError:
        """What went wrong on the way to the daemon, as the parent can act on it."""
        place = self._place()
        if isinstance(error, ssl.SSLCertVerificationError):
            code = _CERTIFICATE_CODES.get(error.verify_code, ErrorCode.TLS_UNTRUSTED)
            why = f"its certificate is not accepted: {error.verify_message.lower()}"
            return NetworkError(f"{self._text}: {place}: {why}", code=code, host=place, phase=Phase.TLS)
        if isinstance(error, TimeoutError):
            return NetworkError(
                f"{self._text}: {place}: no answer in time", code=ErrorCode.TIMEOUT, host=place
            )
        if isinstance(error, ConnectionRefusedError | FileNotFoundError):
            why = f"{_words(error)}; is the daemon running?"
            return NetworkError(
                f"{self._text}: {place}: {why}", code=ErrorCode.CONNECTION_REFUSED, host=place, phase=Phase.CONNECT
            )
        if isinstance(error, socket.gaierror):
            return NetworkError(
                f"{self._text}: {place}: {_words(error)}", code=ErrorCode.NAME_NOT_RESOLVED, host=place, phase=Phase.DNS
            )
        if isinstance(error, PermissionError):
            return SourceError(f"{self._text}: {place}: {_words(error)}", host=place, phase=Phase.CONNECT)
        return self._lost(_words(error))

    def _lost(self, why: str) -> NetworkError:
        return NetworkError(f"{self._text}: {self._place()}: the connection broke: {why}", host=self._place())

    def _place(self) -> str:
        return self._address.path or f"{self._address.host}:{self._address.port}"


class _BoundedSocket:
    """A connected socket for http.client that waits for each byte `idle` seconds, and for none behind `deadline`."""

    def __init__(self, inner: socket.socket, deadline: float, idle: float) -> None:
        self._inner = inner
        self._deadline = deadline
        self._idle = idle
        self._begun = False

    def sendall(self, data: bytes) -> None:
        """Send a request."""
        self._inner.settimeout(self._left())
        self._inner.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        """The answer; it keeps the connection."""
        return io.BufferedReader(_BoundedStream(self))

    def receive(self, buffer: memoryview) -> int:
        """Some bytes. The first may take as long as the daemon packs the image: until the deadline."""
        left = self._left()
        self._inner.settimeout(min(left, self._idle) if self._begun else left)
        count = self._inner.recv_into(buffer)
        self._begun = True
        return count

    def close(self) -> None:
        """Asked by http.client before the answer is read; the stream closes the connection."""

    def disconnect(self) -> None:
        """Close the connection."""
        self._inner.close()

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time for opening an image is over")
        return left


class _BoundedStream(io.RawIOBase):
    """The receiving side of a bounded socket."""

    def __init__(self, connection: _BoundedSocket) -> None:
        super().__init__()
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        return self._connection.receive(memoryview(buffer))

    def close(self) -> None:
        if not self.closed:
            self._connection.disconnect()
        super().close()


# X509_V_ERR_*, openssl/x509_vfy.h
_CERTIFICATE_CODES = {
    9: ErrorCode.TLS_NOT_YET_VALID,
    10: ErrorCode.TLS_EXPIRED,
    62: ErrorCode.TLS_NAME_MISMATCH,
    64: ErrorCode.TLS_NAME_MISMATCH,
}


def _words(error: Exception) -> str:
    """Why, in lower case; what a library says about an answer may repeat it, so that is quoted."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return quote(str(error)) if str(error) else "no answer"

# SPDX-License-Identifier: Apache-2.0
"""More registries, and what stands in front of them: crane's, nginx, a token server, a line that breaks."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
import re
import secrets
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from .goinstalled import require_go_program
from .peers import (
    CertificateFiles,
    Server,
    answer,
    clean_environment,
    free_port,
    htpasswd_line,
    require_peer,
    spawn,
    wait_for,
)
from .recording import Asked, Given, RecordingServer
from .registry import LOOPBACK, reset

_PORT_TRIES = 5
_TOKEN_SECONDS = 300
_PUMPED = 64 * 1024


def crane_registry(directory: Path | str) -> Server:
    """Start `crane registry serve`, which keeps blobs on disk. Raises AssertionError with its log."""
    base = Path(directory)
    (base / "blobs").mkdir(parents=True, exist_ok=True)
    log = base / "crane.log"
    command = [require_go_program("crane"), "registry", "serve", "--address=127.0.0.1:0", f"--disk={base / 'blobs'}"]
    process = spawn(command, log, clean_environment(base))
    found = wait_for(process, log, lambda: re.search(r"serving on port (\d+)", log.read_text()))
    return Server(process, int(found[1]), log)


def nginx(
    directory: Path | str,
    upstream: str,
    *,
    users: dict[str, str] | None = None,
    tls: CertificateFiles | None = None,
    client_authority: Path | None = None,
    blobs: Path | None = None,
) -> Server:
    """Start nginx in front of the registry `upstream` (`host:port`).

    `users` maps names to passwords that it asks for. `client_authority` is the certificate of those whose clients alone
    are let in (with `tls`). With `blobs`, the storage of a docker-registry, it redirects for blobs to a second port of
    its own that serves their files and knows no user. Raises AssertionError with its log.
    """
    base = Path(directory)
    base.mkdir(parents=True, exist_ok=True)
    program, log = require_peer("nginx"), base / "nginx.log"
    for attempt in range(1, _PORT_TRIES + 1):
        port, store = free_port(), free_port()
        lines = [f"listen {LOOPBACK}:{port}{' ssl' if tls is not None else ''};"]
        if tls is not None:
            lines += [f"ssl_certificate {tls.certificate};", f"ssl_certificate_key {tls.key};"]
        if client_authority is not None:
            lines += [f"ssl_client_certificate {client_authority};", "ssl_verify_client on;"]
        if users is not None:
            (base / "users").write_text("".join(htpasswd_line(user, word) for user, word in users.items()))
            lines += ["auth_basic tests;", f"auth_basic_user_file {base / 'users'};"]
        passed = f"proxy_pass http://{upstream}; proxy_set_header Host $http_host; client_max_body_size 0;"
        lines.append(f"location / {{ {passed} }}")
        servers = []
        if blobs is not None:
            target = f"http://{LOOPBACK}:{store}/$1/$2/$2$3/data?signature=0"
            lines.append(f'location ~ "/blobs/(sha256):([0-9a-f]{{2}})([0-9a-f]+)$" {{ return 307 {target}; }}')
            servers.append(f"listen {LOOPBACK}:{store}; root {blobs}/docker/registry/v2/blobs;")
        servers.insert(0, " ".join(lines))
        file = base / "nginx.conf"
        file.write_text(_nginx_configuration(base, servers))
        process = spawn([program, "-p", str(base), "-e", str(log), "-c", str(file)], log, clean_environment(base))
        try:
            wait_for(process, log, partial(answer, port))
            return Server(process, port, log)
        except AssertionError:  # perhaps somebody else took a port between our look and its start
            if attempt == _PORT_TRIES:
                raise
    raise AssertionError(f"nginx: no free port in {_PORT_TRIES} tries")


def _nginx_configuration(base: Path, servers: list[str]) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {base / kind};\n" for kind in kinds)
    user = "user root;\n" if os.geteuid() == 0 else ""  # else its workers could not read what lies in our directories
    listed = "".join(f"server {{ {server} }}\n" for server in servers)
    return (
        f"daemon off;\nmaster_process on;\nworker_processes 1;\n{user}pid {base / 'nginx.pid'};\n"
        f"events {{}}\nhttp {{\naccess_log {base / 'access.log'};\n{paths}{listed}}}\n"
    )


class TokenServer:
    """Gives out the tokens that docker-registry wants, to whoever knows a password; a context manager.

    `configuration` is what the registry is told. The repository is let in for pulls alone.
    """

    def __init__(self, directory: Path | str, users: dict[str, str]) -> None:
        base = Path(directory)
        base.mkdir(parents=True, exist_ok=True)
        self._users = users
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = _self_signed(self._key)
        bundle = base / "token.crt"
        bundle.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))
        self._server = RecordingServer(self._answer)
        self.configuration = {
            "realm": f"http://{self._server.host}/token",
            "service": "tests",
            "issuer": "tests issuer",
            "rootcertbundle": str(bundle),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def _answer(self, asked: Asked) -> Given:
        kind, _, told = asked.fields.get("authorization", "").partition(" ")
        user, _, password = base64.b64decode(told).decode().partition(":") if kind.lower() == "basic" else ("", "", "")
        if self._users.get(user) != password:
            return Given(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}')
        asked_for = urllib.parse.parse_qs(asked.target.partition("?")[2]).get("scope", [])
        access: list[dict[str, object]] = []
        for scope in " ".join(asked_for).split():
            kind, name, actions = scope.split(":")
            pulls = [each for each in actions.split(",") if each == "pull"]
            access.append({"type": kind, "name": name, "actions": pulls})
        body = json.dumps({"token": self._token(user, access)}).encode()
        return Given(200, body, {"Content-Type": "application/json"})

    def _token(self, user: str, access: list[dict[str, object]]) -> str:
        now = int(time.time())
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        head = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        claims = {
            "iss": "tests issuer",
            "sub": user,
            "aud": "tests",
            "exp": now + _TOKEN_SECONDS,
            "nbf": now - 5,
            "iat": now,
            "jti": secrets.token_hex(8),
            "access": access,
        }
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in (head, claims))
        r, s = utils.decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "tests token server")])
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begin)
    return builder.not_valid_after(begin + datetime.timedelta(days=9)).sign(key, hashes.SHA256())


class BreakingLine:
    """Passes connections on to `port`, and breaks the first one that has carried `limit` bytes back; a context manager.

    `broken` tells whether it has.
    """

    def __init__(self, port: int, limit: int) -> None:
        self._target = port
        self._left: int | None = limit
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = int(self._listener.getsockname()[1])
        self.host = f"{LOOPBACK}:{self.port}"
        self._start(self._accept)

    @property
    def broken(self) -> bool:
        return self._left is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in self._sockets:
            sock.close()

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection((LOOPBACK, self._target))
            except OSError:
                return
            self._sockets += [client, server]
            self._start(partial(self._pump, client, server, counted=False))
            self._start(partial(self._pump, server, client, counted=True))

    def _pump(self, source: socket.socket, sink: socket.socket, *, counted: bool) -> None:
        with contextlib.suppress(OSError):
            carried = 0
            while part := source.recv(_PUMPED):
                carried += len(part)
                if counted and self._breaks(carried):
                    reset(sink)
                    break
                sink.sendall(part)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _breaks(self, carried: int) -> bool:
        with self._lock:
            if self._left is None or carried < self._left:
                return False
            self._left = None
            return True

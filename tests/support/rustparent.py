# SPDX-License-Identifier: Apache-2.0
"""Builds programs in Rust, and runs a parent: the crate that bootc and rpm-ostree use, behind a few commands.

The parent is tests/interop/rust; the comment in front of each of its functions says what a command does.
"""

import contextlib
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
LEAST_CARGO = (1, 89)  # what Cargo.lock needs
_BUILD_SECONDS = 3600
_RUN_SECONDS = 120


def build_parent() -> Path:
    """The parent's path, built on first use. Raises as `built_rust_program`."""
    return built_rust_program("rust", SOURCES, "parent")


def built_rust_program(peer: str, sources: Path, binary: str) -> Path:
    """The program `binary` of the package in `sources`, built on first use and kept by the hash of its sources.

    Raises SkipTest where `CIP_SKIP_PEERS` names the peer, or outside of CI where there is no cargo; AssertionError with
    the reason where it cannot be built, and in CI where there is no cargo.
    """
    skip_where_asked(peer)
    files = [sources / "Cargo.toml", sources / "Cargo.lock", *sorted(sources.glob("src/*.rs"))]
    state = hashlib.sha256(b"".join(path.name.encode() + b"\0" + path.read_bytes() + b"\0" for path in files))
    program = machine.cache_root() / f"{peer}-{binary}-{state.hexdigest()[:16]}"
    return _built_once(peer, ["build", "--release"], sources, f"release/{binary}", program)


def installed_rust_program(package: str, version: str, binary: str) -> Path:
    """The program `binary` of a package of crates.io, with the dependencies that its own lock file names.

    Built on first use and kept by its version. Raises as `built_rust_program`.
    """
    skip_where_asked(package)
    program = machine.cache_root() / f"{binary}-{version}"
    command = ["install", f"{package}@{version}", "--no-track", "--force", "--root", str(_target() / "installed")]
    return _built_once(package, command, machine.cache_root(), f"installed/bin/{binary}", program)


def _target() -> Path:
    return machine.cache_root() / "rust-target"


def _built_once(peer: str, command: list[str], directory: Path, built: str, program: Path) -> Path:
    cargo = find_cargo(peer)
    with machine.exclusive("rust"):
        if not program.exists():
            words = [cargo, *command, "--locked", "--quiet"]
            build_peer(peer, words, directory, {"CARGO_TARGET_DIR": str(_target())}, seconds=_BUILD_SECONDS)
            fresh = program.with_name(f"{program.name}.new")
            shutil.copy2(_target() / built, fresh)
            fresh.replace(program)
    return program


def find_cargo(peer: str = "rust") -> str:
    """The path of a cargo that is new enough. Raises as `built_rust_program`."""
    program = shutil.which("cargo", path=f"{os.environ.get('PATH', '')}:{Path.home()}/.cargo/bin")
    least = ".".join(map(str, LEAST_CARGO))
    if program is None:
        reason = f"peer {peer}: expected cargo {least} or later, found none on PATH: https://rustup.rs has it"
        if os.environ.get("CI") == "true":
            raise AssertionError(reason)
        raise unittest.SkipTest(reason)
    text = subprocess.run([program, "--version"], check=False, capture_output=True, text=True, cwd="/").stdout
    found = re.match(r"cargo (\d+)\.(\d+)", text)
    if found is None or (int(found[1]), int(found[2])) < LEAST_CARGO:
        raise AssertionError(f"peer {peer}: expected cargo {least} or later, {program} is {text.strip()!r}")
    return program


def build_packages() -> list[str]:
    """Debian's package of such a cargo, where there is none and this release has one."""
    with contextlib.suppress(AssertionError, unittest.SkipTest):
        find_cargo()
        return []
    for package in ("cargo", "cargo-web") if shutil.which("apt-cache") else ():
        command = ["apt-cache", "show", "--no-all-versions", package]
        said = subprocess.run(command, check=False, capture_output=True, text=True).stdout
        found = re.search(r"^Version: (\d+)\.(\d+)", said, re.MULTILINE)
        if found is not None and (int(found[1]), int(found[2])) >= LEAST_CARGO:
            return [package]
    return []


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

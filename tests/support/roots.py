# SPDX-License-Identifier: Apache-2.0
"""Minimal Debian roots made by debootstrap, kept between runs, copied for each test."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .machine import cache_root, exclusive
from .peers import require_peer

SIGNED = ("gpgv", "python3-cryptography", "python3-yaml")  # with which our package judges signatures
# those that tests/packaging copies: had beforehand, so that no test waits for a mirror
ROOTS: Sequence[tuple[str, Sequence[str]]] = (
    *((suite, packages) for suite in ("bookworm", "trixie") for packages in ((), SIGNED, ("lintian",))),
    ("forky", ()),
    ("sid", ()),
    ("sid", ("lintian",)),
)
_SCRIPT = "/usr/share/debootstrap/scripts/sid"  # what all releases use; an older debootstrap knows no later names
_INSTALL_SECONDS = 1800  # however far away the mirror is
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


def debian_root(suite: str, packages: Sequence[str] = ()) -> Path:
    """A root of `suite` with Python and `packages`, made once; do not change it, see `copy_of`.

    Raises AssertionError with the output of debootstrap or apt-get when it cannot be made.
    """
    assert (suite, packages) in ROOTS, f"{suite} with {packages} is not in ROOTS"
    program = require_peer("debootstrap")
    if packages:
        base = debian_root(suite)
        # not debootstrap's --include, which does not know what provides python3-cffi-backend-api-min
        return _made_once("-".join([suite, *packages]), lambda root: _install(base, root, packages))
    return _made_once(suite, lambda root: _bootstrap(program, suite, root))


def _made_once(name: str, make: Callable[[Path], None]) -> Path:
    place = cache_root() / "roots" / name
    with exclusive(f"root-{name}"):
        if not (place / "complete").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            make(place / "root")
            (place / "complete").touch()
    return place / "root"


def _bootstrap(program: str, suite: str, root: Path) -> None:
    done = subprocess.run(
        [program, "--variant=minbase", "--include=python3", suite, str(root), debian_mirror(), _SCRIPT],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"debootstrap {suite}: exit status {done.returncode}\n{done.stdout[-3000:]}"
    shutil.rmtree(root / "var" / "cache" / "apt", ignore_errors=True)


def _install(base: Path, root: Path, packages: Sequence[str]) -> None:
    with copy_of(base, root.parent / "work") as copy:
        shutil.copy("/etc/resolv.conf", copy / "etc" / "resolv.conf")
        # a mirror may stand still for weeks; by whom its lists are signed is checked all the same
        inside(copy, "apt-get", "-qq", "-o", "Acquire::Check-Valid-Until=false", "update", seconds=_INSTALL_SECONDS)
        inside(
            copy, "apt-get", "-qq", "install", "--yes", "--no-install-recommends", *packages, seconds=_INSTALL_SECONDS
        )
        inside(copy, "apt-get", "-qq", "clean")
        subprocess.run(["cp", "-a", "--reflink=auto", "--one-file-system", str(copy), str(root)], check=True)


@contextmanager
def copy_of(root: Path, directory: Path) -> Iterator[Path]:
    """A copy of `root` under `directory` with /proc mounted, unmounted and removed afterwards."""
    copy = directory / "root"
    directory.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", "--reflink=auto", str(root), str(copy)], check=True)
    subprocess.run(["mount", "-t", "proc", "proc", str(copy / "proc")], check=True)
    try:
        yield copy
    finally:
        subprocess.run(["umount", str(copy / "proc")], check=True)
        shutil.rmtree(copy)


def inside(root: Path, *command: str, seconds: float = 240) -> subprocess.CompletedProcess[str]:
    """Run a command in `root`; its output. Raises AssertionError with all of it when it fails or takes too long."""
    try:
        done = subprocess.run(
            ["chroot", str(root), *command],
            check=False,
            capture_output=True,
            text=True,
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"{' '.join(command)}: did not end within {seconds:.0f} s") from error
    assert done.returncode == 0, f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def debian_mirror() -> str:
    """Where this machine gets its Debian packages from."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for file in files:
        if file.is_file():
            found = re.search(r"(?m)^(?:URIs:\s*|deb\s+(?:\[[^]]*\]\s+)?)(\S+)", file.read_text(encoding="utf-8"))
            if found:
                return found[1]
    raise AssertionError("this machine names no Debian mirror in /etc/apt")

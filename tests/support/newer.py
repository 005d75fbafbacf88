# SPDX-License-Identifier: Apache-2.0
"""Programs of a later Debian release, run beside this machine's own: fetched and checked by apt, never installed.

Each lies with its libraries in a directory of its own under the cache and is started through the loader that belongs
to them, so that it sees this machine's files and the libraries of its release. What it runs itself, such as `gpg`, is
this machine's.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import machine
from .peers import skip_where_asked
from .roots import debian_mirror

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_FETCH_SECONDS = 600


@dataclass(frozen=True, slots=True)
class NewerProgram:
    """A program of `suite`: its package, and the packages of the libraries that it is linked with."""

    suite: str
    program: str
    package: str
    libraries: Sequence[str]


NEWER: Mapping[str, NewerProgram] = {
    # the first release of Debian whose skopeo speaks protocol 0.2.8; sigstore and GPGME are compiled in
    "skopeo-current": NewerProgram(
        "forky", "skopeo", "skopeo", ("libc6", "libgpgme45", "libassuan9", "libgpg-error0", "libsqlite3-0")
    ),
    # version 2, whose signatures are attachments
    "cosign": NewerProgram("trixie", "cosign", "cosign", ("libc6",)),
    # version 3, which writes bundles instead; nothing here reads them (signatures.md 5.7)
    "cosign-3": NewerProgram("forky", "cosign", "cosign", ("libc6",)),
    # what later releases verify OpenPGP with: GnuPG 2.4, and Sequoia's replacement
    "gpgv-2.4": NewerProgram(
        "forky", "gpgv", "gpgv", ("libc6", "libgcrypt20", "libgpg-error0", "libbz2-1.0", "zlib1g")
    ),
    "gpgv-sq": NewerProgram(
        "forky", "gpgv-sq", "gpgv-sq",
        ("libc6", "libgcc-s1", "libgmp10", "libhogweed6t64", "libnettle8t64", "libsqlite3-0"),
    ),
}  # fmt: skip


def require_newer(name: str) -> tuple[str, ...]:
    """The words that start the program `name`, fetched on first use.

    Raises AssertionError that names what is missing, or SkipTest where `CIP_SKIP_PEERS` names it.
    """
    skip_where_asked(name)
    newer = NEWER[name]
    place = machine.cache_root() / "newer" / "-".join([newer.suite, newer.package])
    with machine.exclusive(f"newer-{name}"):
        if not (place / "complete").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            _fetch(name, newer, place)
            (place / "complete").touch()
    (loader,) = place.glob("usr/lib/*/ld-linux*.so.*")
    program = str(place / "usr" / "bin" / newer.program)
    return (str(loader), "--library-path", str(loader.parent), "--argv0", newer.program, program)


def _fetch(name: str, newer: NewerProgram, place: Path) -> None:
    """Download and unpack the packages, with lists and state of its own."""
    if shutil.which("apt-get") is None or not _KEYRING.exists():
        raise AssertionError(f"peer {name} is missing: only a Debian with {_KEYRING} can fetch it, or CIP_SKIP_PEERS")
    with tempfile.TemporaryDirectory(prefix="cip-newer-") as scratch:
        base = Path(scratch)
        for directory in ("state/lists/partial", "cache/archives/partial", "packages"):
            (base / directory).mkdir(parents=True)
        (base / "status").touch()
        (base / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {debian_mirror()} {newer.suite} main\n")
        settings = {
            "Dir::State": base / "state", "Dir::State::status": base / "status", "Dir::Cache": base / "cache",
            "Dir::Etc::sourcelist": base / "sources.list", "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null", "Dir::Etc::preferencesparts": "/dev/null",
            "Acquire::Languages": "none", "APT::Sandbox::User": "root",
        }  # fmt: skip
        apt = ["apt-get", "-qq", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]
        _run(name, [*apt, "update"], base / "packages")
        _run(name, [*apt, "download", newer.package, *newer.libraries], base / "packages")
        for package in sorted((base / "packages").glob("*.deb")):
            _run(name, ["dpkg-deb", "--extract", str(package), str(place)], base)


def _run(name: str, command: Sequence[str], directory: Path) -> None:
    done = subprocess.run(
        command, check=False, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=_FETCH_SECONDS,
        stderr=subprocess.STDOUT, text=True, errors="replace", env=os.environ | {"LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    if done.returncode != 0:
        raise AssertionError(f"peer {name}: {' '.join(command)}: exit status {done.returncode}\n{done.stdout[-3000:]}")

# SPDX-License-Identifier: Apache-2.0
"""Programs of a later Debian release, run beside this machine's own: fetched and checked by apt, never installed.

Each lies with its libraries in a directory of its own under the cache and is started through the loader that belongs
to them, so that it sees this machine's files and the libraries of its release. What it runs itself, such as `gpg`, is
this machine's.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import machine
from .peers import skip_where_asked
from .roots import debian_mirror

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_FETCH_SECONDS = 600
_LISTS_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class NewerProgram:
    """A program of `suite` and the package that it is in."""

    suite: str
    program: str
    package: str


NEWER: Mapping[str, NewerProgram] = {
    # the first release of Debian whose skopeo speaks protocol 0.2.8; sigstore and GPGME are compiled in
    "skopeo-current": NewerProgram("forky", "skopeo", "skopeo"),
    # version 2, whose signatures are attachments
    "cosign": NewerProgram("trixie", "cosign", "cosign"),
    # version 3, which writes bundles instead
    "cosign-3": NewerProgram("forky", "cosign", "cosign"),
    # what later releases verify OpenPGP with: GnuPG 2.4, and Sequoia's replacement
    "gpgv-2.4": NewerProgram("forky", "gpgv", "gpgv"),
    "gpgv-sq": NewerProgram("forky", "gpgv-sq", "gpgv-sq"),
}


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
    """Download the packages and unpack them into `place`."""
    if shutil.which("apt-get") is None or not _KEYRING.exists():
        raise AssertionError(f"peer {name} is missing: only a Debian with {_KEYRING} can fetch it, or CIP_SKIP_PEERS")
    with machine.exclusive(f"newer-{newer.suite}"), tempfile.TemporaryDirectory(prefix="cip-newer-") as scratch:
        options = _apt_options(name, newer.suite)
        packages, fresh = {newer.package}, {newer.package}
        while fresh:
            listing = _run(name, ["apt-cache", *options, "depends", *sorted(fresh)], Path(scratch))
            fresh = _libraries(listing) - packages
            packages |= fresh
        _run(name, ["apt-get", "-qq", *options, "download", *sorted(packages)], Path(scratch))
        for package in sorted(Path(scratch).glob("*.deb")):
            _run(name, ["dpkg-deb", "--extract", str(package), str(place)], Path(scratch))


def _apt_options(name: str, suite: str) -> Sequence[str]:
    """What makes apt look at `suite` alone, with lists of its own that are brought up to date once an hour."""
    base = machine.cache_root() / "newer" / f"apt-{suite}"
    for directory in ("state/lists/partial", "cache/archives/partial"):
        (base / directory).mkdir(parents=True, exist_ok=True)
    (base / "status").touch()
    (base / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {debian_mirror()} {suite} main\n")
    settings = {
        "Dir::State": base / "state",
        "Dir::State::status": base / "status",
        "Dir::Cache": base / "cache",
        "Dir::Etc::sourcelist": base / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Acquire::Languages": "none",
        "Acquire::Check-Valid-Until": "false",  # a mirror may stand still for weeks; who signed its lists is checked
        "APT::Sandbox::User": "root",
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    updated = base / "updated"
    if not updated.exists() or time.time() - updated.stat().st_mtime > _LISTS_SECONDS:
        _run(name, ["apt-get", "-qq", *options, "update"], base)
        updated.touch()
    return options


def _libraries(listing: str) -> set[str]:
    """The libraries among what `apt-cache depends` says is depended on; what is recommended is not needed to run."""
    return set(re.findall(r"^[ |]*(?:Pre)?Depends: (lib[a-z0-9.+-]+)$", listing, re.MULTILINE))


def _run(name: str, command: Sequence[str], directory: Path) -> str:
    done = subprocess.run(
        command,
        check=False,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=_FETCH_SECONDS,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )
    if done.returncode != 0:
        raise AssertionError(f"peer {name}: {' '.join(command)}: exit status {done.returncode}\n{done.stdout[-3000:]}")
    return done.stdout

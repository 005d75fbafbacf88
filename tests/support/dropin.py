# SPDX-License-Identifier: Apache-2.0
"""Programs of others that run `skopeo` for what they fetch: ostree-ext and composefs, as crates.io has them.

Which skopeo they find is decided by their PATH alone, so that nothing in them knows of us.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from . import images, machine
from .newer import require_newer
from .peers import clean_environment, require_peer, run_program
from .registry import Asked, Given
from .rustparent import built_rust_program, installed_rust_program

COMPOSEFS = "0.9.4"
OSTREE_EXT = machine.REPOSITORY / "tests" / "usecases" / "ostree-ext"
BUILD_PACKAGES = ("gcc", "libc6-dev", "pkg-config", "libostree-dev", "libssl-dev", "libzstd-dev")
OURS, THEIRS = "container-image-proxy", "skopeo"
TAG = "t"
_OURS = f"import sys; sys.path.insert(0, {str(machine.REPOSITORY)!r}); from cip.cli import run; run()"
OTHER_LAYERS = 3  # of an encapsulated commit: itself, what is in no component, what is left
_COMPONENT_BYTES = 1 << 20


def build_ostree_ext() -> Path:
    """The command line of ostree-ext, which is a library; the package that calls it is tests/usecases/ostree-ext."""
    return built_rust_program("ostree-ext", OSTREE_EXT, "cli")


def build_cfsctl() -> Path:
    """The command line of composefs."""
    return installed_rust_program("composefs-ctl", COMPOSEFS, "cfsctl")


class Updaters:
    """Runs these programs in the home directory `home`, with one program or the other as their `skopeo`."""

    def __init__(self, home: Path, python: str = sys.executable) -> None:
        self.home = home
        self._plain: dict[str, str] = {}
        commands = {OURS: ((python, "-I", "-c", _OURS), "$FLAGS"), THEIRS: (require_newer("skopeo-current"), "")}
        for name, (words, flags) in commands.items():
            program = self._bin(name) / "skopeo"
            program.parent.mkdir(parents=True)
            program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@" {flags}\n')
            program.chmod(0o755)
        self._write("policy.json", json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))

    def _bin(self, name: str) -> Path:
        return self.home / "bin" / name

    def _write(self, name: str, text: str) -> None:
        path = self.home / ".config" / "containers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def allow_plain(self, host: str) -> None:
        """Let both proxies talk to one more registry without TLS."""
        self._plain[host] = f'[[registry]]\nlocation="{host}"\ninsecure=true\n'
        self._write("registries.conf", "".join(self._plain.values()))

    def trust(self, host: str, authority: str) -> None:
        """Let both proxies believe this authority, a PEM text, for a registry."""
        self._write(f"certs.d/{host}/ca.crt", authority)

    def start(self, proxy: str, command: Sequence[str | Path], flags: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start a program that finds `proxy` as skopeo, in a session of its own; `flags` are for ours alone."""
        environment = clean_environment(self.home)
        environment |= {"PATH": f"{self._bin(proxy)}:{environment['PATH']}", "FLAGS": " ".join(flags)}
        return subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=self.home,
            env=environment,
            start_new_session=True,
        )

    def run(
        self, proxy: str, command: Sequence[str | Path], flags: Sequence[str] = (), *, seconds: float = 240
    ) -> tuple[int | None, str]:
        """Exit status and output; None for a status where it has not ended after `seconds` and was killed."""
        process = self.start(proxy, command, flags)
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its session: what it started as well
            said, _ = process.communicate()
            return None, said
        return process.returncode, said

    def must(self, proxy: str, *command: str | Path) -> str:
        """The output of what has to succeed."""
        status, said = self.run(proxy, command)
        if status != 0:
            raise AssertionError(f"{proxy}: {command}: exit status {status}\n{said}")
        return said


def ostree(repository: Path, *arguments: str) -> str:
    """Run `ostree` on a repository; its stdout."""
    return run_program([require_peer("ostree"), f"--repo={repository}", *arguments], home=repository.parent)


def encapsulated(updaters: Updaters, place: Path, components: int, size: int = _COMPONENT_BYTES) -> tuple[Path, str]:
    """A layout with an ostree commit of that many components, a layer for each, and the commit's checksum.

    ostree-ext itself makes it, as an operating system's build does (`container encapsulate --contentmeta`).
    """
    tree, origin = place / "tree", place / "origin"
    for number in range(components):
        file = tree / "usr/lib" / f"component{number}" / "content"
        file.parent.mkdir(parents=True)
        file.write_bytes(images.random_bytes(size, b"component %d" % number))
    (tree / "usr/bin").mkdir()
    (tree / "usr/bin/tool").write_text("#!/bin/sh\n")
    (tree / "usr/bin/tool").chmod(0o755)
    (tree / "usr/link").symlink_to("bin/tool")
    origin.mkdir()
    ostree(origin, "init", "--mode=archive")
    owner = ("--owner-uid=0", "--owner-gid=0", "--no-xattrs", "--timestamp=@0")
    commit = ostree(origin, "commit", "--branch=os", f"--tree=dir={tree}", *owner).strip()
    listed = re.findall(r"^[-l]\S+ .* ([0-9a-f]{64}) (/\S+)", ostree(origin, "ls", "-RC", commit), re.MULTILINE)
    owners = {path: next(iter(re.findall(r"/(component\d+)/", path)), "unpackaged") for _, path in listed}
    meta = place / "contentmeta.json"
    meta.write_text(
        json.dumps(
            {
                "version": 1,
                "created": "2024-01-01T00:00:00Z",
                "layers": {name: name for name in owners.values()},
                "mapping": {checksum: owners[path] for checksum, path in listed},
            }
        )
    )
    layout = place / "layout"
    options = (f"--repo={origin}", f"--contentmeta={meta}")
    updaters.must(OURS, build_ostree_ext(), "container", "encapsulate", *options, commit, f"oci:{layout}:{TAG}")
    return layout, commit


def add_layer(layout: Path, *members: images.Member) -> None:
    """Put a layer on top of the only image of a layout."""
    file = layout.with_suffix(".tar")
    file.write_bytes(images.tar(members))
    command = [require_peer("umoci"), "raw", "add-layer", "--image", f"{layout}:{TAG}", str(file)]
    run_program(command, home=layout.parent)


def layers_of(layout: Path) -> list[dict[str, object]]:
    """The descriptors of the layers of the only image in a layout."""
    found: list[dict[str, object]] = json.loads(_blob(layout, _entry(layout)["digest"]))["layers"]
    return found


def _entry(layout: Path) -> dict[str, str]:
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    return dict(entry)


def _blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / "sha256" / digest.partition(":")[2]).read_bytes()


def registry_with(layout: Path) -> Callable[[Asked], tuple[str, Given]]:
    """What a registry with the image of a layout answers; the phase of its largest layer is `largest`."""
    entry = _entry(layout)
    largest = max(layers_of(layout), key=lambda layer: int(str(layer["size"])))["digest"]
    kinds: Mapping[str, str] = {"Content-Type": entry["mediaType"]}

    def respond(asked: Asked) -> tuple[str, Given]:
        kind, _, name = asked.target.rpartition("/")
        if kind.endswith("/manifests"):
            return "manifest", Given(200, _blob(layout, entry["digest"]), kinds)
        if kind.endswith("/blobs"):
            return "largest" if name == largest else "blob", Given(200, _blob(layout, name))
        return "ping", Given(200, b"{}")

    return respond

# SPDX-License-Identifier: Apache-2.0
"""Fetches the image of a faulty world through either front end, and tells how that ended."""

import contextlib
import os
import resource
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cip.model.descriptor import digest_of

from .faulttable import BYTES, CUT, World
from .jsonparent import JsonParent
from .parent import MODULE, PATIENCE, ROOT, running
from .peers import clean_environment, stop_process

BASE = ("--insecure-policy", "--override-os=linux", "--override-arch=amd64")


class Outcome(NamedTuple):
    """How a row ended, and what was said about it."""

    ended: str
    problem: dict[str, Any]


class Footprint(NamedTuple):
    """What a process holds."""

    threads: int
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> "Footprint":
        return cls(len(os.listdir(f"/proc/{pid}/task")), len(os.listdir(f"/proc/{pid}/fd")))


def require_settled(pid: int, before: Footprint, hosts: int) -> None:
    """Threads go, and of descriptors only kept connections stay: one for each host. Raises AssertionError."""
    deadline = time.monotonic() + PATIENCE
    while True:
        now = Footprint.of(pid)
        if now.threads <= before.threads and now.descriptors <= before.descriptors + hosts:
            return
        assert time.monotonic() < deadline, f"before: {before}, afterwards: {now}, hosts: {hosts}"
        time.sleep(0.02)


@contextlib.contextmanager
def small_files(size: int) -> Iterator[None]:
    """No file of this process, or of one that it starts meanwhile, grows beyond so many bytes: as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- the two front ends ---


def run_http(world: World, *options: str) -> Outcome:
    """Fetch all of the image over HTTP."""
    arguments = (*BASE, *options, *world.options, world.reference)
    with running(*arguments, status=None, environment=world.environment) as proxy:
        assert proxy.line.ask("GET", "/nothing").status == 404
        before = Footprint.of(proxy.process.pid)
        outcome = _fetch_http(proxy.line.ask, world)
        assert outcome.ended != "internal", proxy.stderr()
        if outcome.ended != CUT:
            require_settled(proxy.process.pid, before, len(world.hosts) + 1)
    assert (proxy.process.returncode == 0) == (outcome.ended != CUT), (outcome, proxy.process.returncode)
    return outcome


def _fetch_http(ask: Callable[..., Any], world: World) -> Outcome:
    answer = ask("GET", "/manifest")
    if answer.status != 200:
        problem = answer.problem()
        return Outcome(problem["type"], problem)
    assert answer.body == world.content.manifest
    for data in (world.content.config, world.content.layer):
        answer = ask("GET", f"/blobs/{digest_of(data)}")
        if answer.status != 200:
            problem = answer.problem()
            return Outcome(problem["type"], problem)
        if not answer.complete:
            assert data.startswith(answer.body[: len(data) // 2]), "wrong bytes before the cut"
            assert len(answer.body) < len(data)
            return Outcome(CUT, {})
        assert answer.body == data, "wrong bytes"
    return Outcome(BYTES, {})


@contextlib.contextmanager
def json_proxy(*options: str, environment: Mapping[str, str] | None = None) -> Iterator[tuple[JsonParent, int]]:
    """The proxy with the JSON protocol as our child: our end of the conversation, and its process id."""
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        log = Path(home, "stderr")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = stack.enter_context(JsonParent(ours))
        with theirs, log.open("wb") as stderr:
            process = subprocess.Popen(
                [*MODULE, "experimental-image-proxy", f"--sockfd={theirs.fileno()}", *options],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                cwd=ROOT,
                env=clean_environment(home) | dict(environment or {}),
            )
        stack.callback(stop_process, process)
        yield parent, process.pid
        parent.sock.close()
        assert process.wait(PATIENCE) == 0, log.read_text()
        assert "Traceback" not in log.read_text(), log.read_text()


def run_json(world: World, *options: str) -> Outcome:
    """Fetch all of the image over the JSON protocol."""
    with json_proxy(*BASE, *options, *world.options, environment=world.environment) as (parent, pid):
        parent.ask("Initialize")
        parent.ask("CloseImage", 1)  # refused; the thread that runs requests has begun then
        before = Footprint.of(pid)
        outcome = _fetch_json(parent, world)
        require_settled(pid, before, len(world.hosts) + 1)
    return outcome


def _fetch_json(parent: JsonParent, world: World) -> Outcome:
    opened = parent.ask("OpenImage", world.reference)
    if not opened.members["success"]:
        return _failed(opened.members)
    _, manifest, finished = parent.fetch("GetManifest", opened.value)
    assert finished.members["success"], finished
    assert manifest == world.content.manifest
    for data in (world.content.config, world.content.layer):
        begun = parent.ask("GetBlob", opened.value, str(digest_of(data)), len(data))
        if not begun.members["success"]:  # what the source's first answer says already
            return _failed(begun.members)
        _, content, finished = parent.collect(begun)
        if not finished.members["success"]:
            return _failed(finished.members)
        assert content == data, "wrong bytes"
    return Outcome(BYTES, {})


def _failed(members: dict[str, Any]) -> Outcome:
    details: dict[str, Any] = members["details"]
    assert (members["error_code"] == "retryable") == details["retryable"], members
    return Outcome(details["type"], details)

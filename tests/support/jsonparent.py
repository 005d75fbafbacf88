# SPDX-License-Identifier: Apache-2.0
"""Plays the parent of the JSON protocol: packets and descriptors, one at a time where a test wants it so.

All waits are bounded by `PATIENCE`; what exceeds it is a failure of the test that waits.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cip.model.descriptor import Digest
from tests.support.parent import MODULE, PATIENCE, ROOT
from tests.support.peers import clean_environment

KEYS = ["success", "value", "pipeid", "error_code", "error"]
PACKET_LIMIT = 32768
# What clients have: the space computed for one descriptor, which on 64-bit machines holds two (wire.md B48).
CONTROL_SPACE = socket.CMSG_SPACE(4)


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply. `members` is the JSON object, `fds` are descriptors that the receiver closes."""

    members: dict[str, Any]
    fds: list[int] = field(default_factory=list)

    @property
    def value(self) -> Any:
        """The value; AssertionError when the reply is a failure."""
        assert self.members["success"], self.members
        return self.members["value"]

    @property
    def pipe_id(self) -> int:
        """The pipe id, 0 for none."""
        found: int = self.members["pipeid"]
        return found

    @property
    def failure(self) -> tuple[str, str]:
        """Class and text of a failure; AssertionError when the reply is a success, or a failure with a descriptor."""
        assert self.members["success"] is False, self.members
        assert (self.members["value"], self.pipe_id, self.fds) == (None, 0, []), self
        assert self.members["error"], self
        return self.members["error_code"], self.members["error"]


class JsonParent:
    """The parent's end of the conversation; a context manager that closes it. `keys` are those of every reply."""

    def __init__(self, sock: socket.socket, keys: Sequence[str] = KEYS) -> None:
        self.sock = sock
        self._keys = list(keys)
        sock.settimeout(PATIENCE)

    def __enter__(self) -> JsonParent:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, method: str, *arguments: object) -> None:
        """Send a request and do not wait."""
        self.send_text(json.dumps({"method": method, "args": arguments}))

    def send_text(self, text: str | bytes) -> None:
        """Send a packet as it is."""
        self.sock.send(text.encode() if isinstance(text, str) else text)

    def ask(self, method: str, *arguments: object) -> Reply:
        """Send a request and wait for its reply."""
        self.send(method, *arguments)
        return self.reply()

    def ask_text(self, text: str | bytes) -> Reply:
        """Send a packet as it is and wait for its reply."""
        self.send_text(text)
        return self.reply()

    def reply(self) -> Reply:
        """The next reply. AssertionError when it breaks a rule that all replies keep (wire.md 3, 7.3)."""
        data, control, flags, _ = self.sock.recvmsg(PACKET_LIMIT, CONTROL_SPACE)
        fds = array.array("i")
        for level, kind, content in control:
            assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            fds.frombytes(content)
        assert data, "expected a reply, found the end"
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC), flags
        members = json.loads(data)
        assert list(members)[: len(self._keys)] == self._keys, members
        if members["success"]:
            assert list(members) == self._keys, members
            assert (members.get("error_code", ""), members["error"]) == ("", ""), members
        return Reply(members, list(fds))

    def is_silent(self) -> bool:
        """Whether neither a reply nor the end has arrived."""
        return has_nothing(self.sock.fileno())

    def at_end(self) -> bool:
        """Whether the next thing is the end, for which this waits."""
        try:
            return self.sock.recv(PACKET_LIMIT) == b""
        except ConnectionResetError:
            return True

    # --- what parents do all the time ---

    def open(self, reference: str) -> int:
        """Initialize and open an image; its id."""
        assert self.ask("Initialize").value == "0.2.8"
        image: int = self.ask("OpenImage", reference).value
        return image

    def finish(self, reply: Reply) -> Reply:
        """FinishPipe for the pipe of `reply`."""
        return self.ask("FinishPipe", reply.pipe_id)

    def fetch(self, method: str, *arguments: object) -> tuple[Any, bytes, Reply]:
        """Ask for a finish-type pipe: value, content, and the reply of FinishPipe, sent before reading."""
        return self.collect(self.ask(method, *arguments))

    def collect(self, reply: Reply) -> tuple[Any, bytes, Reply]:
        """The same for a method whose reply is there already."""
        value = reply.value
        assert len(reply.fds) == 1, reply
        assert reply.pipe_id > 0, reply
        self.send("FinishPipe", reply.pipe_id)
        content = read_to_end(reply.fds[0])
        return value, content, self.reply()

    def fetch_raw(self, image: int, digest: Digest | str) -> tuple[int, bytes, dict[str, Any] | None]:
        """GetRawBlob: size, content, and the object of the error pipe if there is one."""
        reply = self.ask("GetRawBlob", image, str(digest))
        size: int = reply.value
        assert (reply.pipe_id, len(reply.fds)) == (0, 2), reply
        content = read_to_end(reply.fds[0])
        return size, content, read_error_pipe(reply.fds[1])


def read_to_end(fd: int) -> bytes:
    """Everything up to the end of the pipe `fd`, which is closed."""
    with open(fd, "rb", buffering=0) as pipe:
        return b"".join(iter(lambda: read_some(pipe.fileno(), 1 << 18), b""))


def read_exactly(fd: int, size: int) -> bytes:
    """`size` bytes of the pipe `fd`, which stays open; fewer at its end."""
    found = b""
    while len(found) < size and (part := read_some(fd, size - len(found))):
        found += part
    return found


def read_some(fd: int, size: int) -> bytes:
    """At least a byte of the pipe `fd`, or b"" at its end. AssertionError when neither comes."""
    poller = select.poll()  # not select.select: it cannot take the numbers above 1023 that a test with many pipes has
    poller.register(fd, select.POLLIN)
    assert poller.poll(PATIENCE * 1000), "nothing arrives in the pipe"
    return os.read(fd, size)


def has_nothing(fd: int) -> bool:
    """Whether the pipe or socket `fd` is empty at present, and not at its end."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return not poller.poll(0)


def read_error_pipe(fd: int) -> dict[str, Any] | None:
    """The object in the error pipe `fd`, which is closed; None when there is none."""
    data = read_to_end(fd)
    if not data:
        return None
    assert len(data) <= 4096, len(data)
    found: dict[str, Any] = json.loads(data)
    assert list(found)[:2] == ["code", "message"], found
    assert found["message"], found
    return found


def close_all(*replies: Reply) -> None:
    """Close the descriptors that came with `replies`."""
    for reply in replies:
        for fd in reply.fds:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class JsonProxy:
    """A program with the JSON protocol that runs as our child. `parent` is our end of its conversation."""

    process: subprocess.Popen[bytes]
    parent: JsonParent
    log: Path

    def stderr(self) -> str:
        """What it has written to stderr so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def hang_up(self) -> int:
        """Close our end and wait for its end; the exit status, negative for a signal."""
        self.parent.sock.close()
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def json_proxy(
    *options: str,
    status: int | None = 0,
    command: Sequence[str] = (*MODULE, "experimental-image-proxy"),
    keys: Sequence[str] = KEYS,
    home: Path | str | None = None,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[JsonProxy]:
    """Start `command` with `--sockfd=N` and `options`; afterwards hang up and wait.

    `home` is its home directory, a fresh one unless given. Raises AssertionError when it ends with another exit
    status than `status` (None: whatever), writes a traceback, or leaves a process of its group behind.
    """
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cip-json-")))
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        parent = stack.enter_context(JsonParent(ours, keys))
        with theirs, (scratch / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                [*command, f"--sockfd={theirs.fileno()}", *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=[*pass_fds, theirs.fileno()],
                cwd=ROOT,
                env=clean_environment(home or scratch) | dict(environment or {}),
                start_new_session=True,
            )
        proxy = JsonProxy(process, parent, scratch / "stderr")
        try:
            yield proxy
            found = proxy.hang_up()
            assert "Traceback" not in proxy.stderr(), proxy.stderr()
            assert status is None or found == status, f"exit status: expected {status}, found {found}\n{proxy.stderr()}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # a group of its own: whatever it started, and nothing else
            process.wait()

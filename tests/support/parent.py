# SPDX-License-Identifier: Apache-2.0
"""Plays the parent: starts the proxy as a child and speaks HTTP with it, byte by byte where a test wants it so.

All waits are bounded by `PATIENCE`; what exceeds it is a failure of the test that waits. Where `CIP_TEST_OUTPUT` names
a directory, whatever a child says besides blobs and manifests is kept there, one file for each child, for the test
that looks for secrets in it.
"""

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .peers import clean_environment

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0  # seconds; far more than anything here takes, so that a loaded machine fails no test
# From the checkout, where nothing is installed; or CIP_PROGRAM, the same program in one file or from a package.
MODULE = (os.environ["CIP_PROGRAM"],) if "CIP_PROGRAM" in os.environ else (sys.executable, "-m", "cip")
HURRY = ("--retry-delay=0.01", "--idle-timeout=1.5", "--stall-timeout=6")  # for a program whose host has faults
KILLS = 200 if "CIP_TEST_LONG" in os.environ else 20  # of programs that are to go on where the last one was
_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it was on the wire. `complete` tells whether the body reached the end that its framing promises.

    `framing` is `length`, `chunked` or `none`; there is no other in the language that the proxy speaks.
    """

    status: int
    reason: str
    fields: tuple[tuple[str, str], ...]
    body: bytes
    framing: str
    complete: bool

    def field(self, name: str) -> str | None:
        """The value of the field `name`; AssertionError when it is there twice."""
        found = [value for key, value in self.fields if key.lower() == name.lower()]
        assert len(found) < 2, f"{name} is there {len(found)} times"
        return found[0] if found else None

    def problem(self) -> dict[str, Any]:
        """The problem document; AssertionError when the answer is something else."""
        assert self.field("Content-Type") == "application/problem+json", self
        assert self.complete, self
        members: dict[str, Any] = json.loads(self.body)
        assert members["status"] == self.status, self
        return members


class Channel(Protocol):
    """What a line needs of a socket."""

    def sendall(self, data: bytes, /) -> None: ...
    def recv(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


class Pipes:
    """Two pipes that look like a socket."""

    def __init__(self, input_fd: int, output_fd: int) -> None:
        self._input = input_fd
        self._output: int | None = output_fd

    def sendall(self, data: bytes, /) -> None:
        """Write all of `data`."""
        assert self._output is not None
        view = memoryview(data)
        while view:
            view = view[os.write(self._output, view) :]

    def recv(self, size: int, /) -> bytes:
        """Read at most `size` bytes. Raises TimeoutError after PATIENCE."""
        poller = select.poll()
        poller.register(self._input, select.POLLIN)
        if not poller.poll(PATIENCE * 1000):
            raise TimeoutError
        return os.read(self._input, size)

    def end_requests(self) -> None:
        """Close the pipe that carries requests."""
        if self._output is not None:
            os.close(self._output)
            self._output = None

    def close(self) -> None:
        """Close both."""
        self.end_requests()
        os.close(self._input)


class Line:
    """The parent's end of the conversation; a context manager that closes it. `heard`: all but blobs and manifests."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        if isinstance(channel, socket.socket):
            channel.settimeout(PATIENCE)
        self.heard = bytearray()
        self._buffer = b""
        self._open = True

    @property
    def sock(self) -> socket.socket:
        """The channel, where it is a socket."""
        assert isinstance(self.channel, socket.socket)
        return self.channel

    def close(self) -> None:
        """Hang up; harmless the second time."""
        if self._open:
            self._open = False
            self.channel.close()

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Put bytes on the wire as they are."""
        self.channel.sendall(data)

    def ask(self, method: str, target: str, *fields: str, version: str = "1.1", body: bytes = b"") -> Answer:
        """Send one request, by default with a Host field, and read its answer."""
        head = [f"{method} {target} HTTP/{version}", "Host: parent", *fields]
        self.send("".join(f"{line}\r\n" for line in [*head, ""]).encode("latin-1") + body)
        return self.answer(method)

    def answer(self, method: str = "GET") -> Answer:
        """Read one answer; `method` is that of the request, because an answer to HEAD has no body.

        Raises AssertionError when what arrives is not an answer, or is framed in two ways at once.
        """
        head = self._head()
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, reason = first.split(" ", 2)
        assert version == "HTTP/1.1", first
        fields = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
        answer = Answer(int(status), reason, fields, b"", "none", True)
        if answer.status == 100:
            return answer
        length, coding = answer.field("Content-Length"), answer.field("Transfer-Encoding")
        assert length is None or coding is None, head
        if method == "HEAD" or answer.status == 204:
            assert answer.status != 204 or length is None, head
            return answer
        assert length is not None or coding == "chunked", head
        if length is not None:
            body = self._take(int(length))
            if answer.status != 200:
                self.heard += body + b"\n\n"
            return Answer(int(status), reason, fields, body, "length", len(body) == int(length))
        body, complete = self._chunks()
        return Answer(int(status), reason, fields, body, "chunked", complete)

    def at_end(self) -> bool:
        """Whether nothing follows but the end of the stream, for which this waits."""
        return not self._buffer and not self._receive()

    def rest(self) -> bytes:
        """Everything up to the end of the stream."""
        while self._receive():
            continue
        found, self._buffer = self._buffer, b""
        return found

    def _head(self) -> bytes:
        while b"\r\n\r\n" not in self._buffer:
            assert self._receive(), f"expected an answer, found the end after {self._buffer[:200]!r}"
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        self.heard += head + b"\n\n"
        return head

    def _take(self, size: int) -> bytes:
        parts = [self._buffer[:size]]
        missing = size - len(parts[0])
        self._buffer = self._buffer[size:]
        while missing:
            part = self._read(min(missing, 1 << 20))
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _chunks(self) -> tuple[bytes, bool]:
        parts: list[bytes] = []
        while True:
            while b"\r\n" not in self._buffer:
                if not self._receive():
                    return b"".join(parts), False
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            size = int(line, 16)
            part = self._take(size + 2)
            parts.append(part[:size])
            if len(part) < size + 2:
                return b"".join(parts), False
            assert part.endswith(b"\r\n"), part[-10:]
            if not size:
                return b"".join(parts), True

    def _receive(self) -> bool:
        part = self._read(1 << 16)
        self._buffer += part
        return bool(part)

    def _read(self, size: int) -> bytes:
        try:
            return self.channel.recv(size)
        except ConnectionResetError:
            return b""  # the other side left with bytes of ours unread


class Proxy:
    """A proxy that runs as our child. `line` is our end of its conversation."""

    def __init__(self, process: subprocess.Popen[bytes], line: Line, log: Path) -> None:
        self.process = process
        self.line = line
        self._log = log

    def stderr(self) -> str:
        """What it has written to stderr so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def hang_up(self) -> int:
        """Close our end and wait for its end; the exit status, negative for a signal.

        Raises AssertionError when it does not end, or when a process that it started outlives it.
        """
        self.line.close()
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; as `hang_up`."""
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._kill()
            raise AssertionError(f"{self.process.args!r} does not end:\n{self.stderr()}") from None
        deadline = time.monotonic() + PATIENCE
        while _group_lives(self.process.pid):
            if time.monotonic() > deadline:
                self._kill()
                raise AssertionError(f"{self.process.args!r} left a process behind")
            time.sleep(0.01)
        return status

    def _kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)  # a group of its own: whatever it started, and nothing else
        self.process.wait()

    def record(self) -> None:
        """Keep what it said, where somebody wants to look through it."""
        directory = os.environ.get("CIP_TEST_OUTPUT")
        if directory is None:
            return
        Path(directory).mkdir(parents=True, exist_ok=True)
        heard = self.line.heard.decode("utf-8", "replace")
        text = f"{self.stderr()}\nexit status {self.process.returncode}\n\n{heard}"
        Path(directory, f"{os.getpid()}-{next(_NUMBERS)}.txt").write_text(text, encoding="utf-8")


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@contextlib.contextmanager
def running(
    *arguments: str,
    status: int | None = 0,
    command: Sequence[str] = MODULE,
    home: Path | str | None = None,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    pipes: bool = False,
) -> Iterator[Proxy]:
    """Start the proxy with `arguments`, after `--sockfd=N` unless it gets `pipes`; afterwards hang up and wait.

    `home` is its home directory, a fresh one unless given. `pass_fds` are inherited besides the socket. Raises
    AssertionError when it ends with another exit status than `status` (None: whatever), or writes a traceback.
    """
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cip-parent-")))
        log = scratch / "stderr"
        variables = clean_environment(home or scratch) | dict(environment or {})
        with contextlib.ExitStack() as ends:
            channel, words, inherited = _make_channel(pipes, ends)
            try:
                with log.open("wb") as stderr:
                    process = subprocess.Popen(
                        [*command, *words, *arguments],
                        stdin=inherited[0],
                        stdout=inherited[1],
                        stderr=stderr,
                        pass_fds=[*pass_fds, *inherited[2:]],
                        env=variables,
                        cwd=ROOT,
                        start_new_session=True,
                    )
            except BaseException:
                channel.close()
                raise
        proxy = Proxy(process, Line(channel), log)
        stack.callback(proxy.record)
        try:
            yield proxy
        except BaseException:
            proxy.line.close()
            if process.poll() is None:
                proxy._kill()
            raise
        found = proxy.hang_up()
        assert "Traceback" not in proxy.stderr(), proxy.stderr()
        assert status is None or found == status, f"exit status: expected {status}, found {found}\n{proxy.stderr()}"


def _make_channel(pipes: bool, ends: contextlib.ExitStack) -> tuple[Channel, list[str], list[int]]:
    """Our end; the words that tell the child of its own; its stdin, stdout and what else it inherits."""
    if not pipes:
        ours, theirs = socket.socketpair()
        ends.enter_context(theirs)
        return ours, [f"--sockfd={theirs.fileno()}"], [subprocess.DEVNULL, subprocess.DEVNULL, theirs.fileno()]
    input_fd, to_child = os.pipe()
    from_child, output_fd = os.pipe()
    ends.callback(os.close, input_fd)
    ends.callback(os.close, output_fd)
    return Pipes(from_child, to_child), [], [input_fd, output_fd]

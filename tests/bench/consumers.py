# SPDX-License-Identifier: Apache-2.0
"""Parents that read as fast as they can and throw everything away: what is left is the time of the program."""

from __future__ import annotations

import io
import json
import os
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_BUFFER = 1 << 20
STOCK = "import http.server, urllib.request, ssl, json, hashlib"  # what any program of this shape imports
_LEAVE = "import os; out = os.writev; os.writev = lambda fd, parts: (out(fd, parts), os._exit(0))\n"


def installed_command(python: str, checkout: Path, *options: str, until_answer: bool = False) -> list[str]:
    """As the packages of a checkout start it, with further `options` of the interpreter.

    The command of 0.2.0 was what setuptools writes, which takes longer than the shortest, by which it is started here.
    With `until_answer` the process leaves once the first answer is out.
    """
    launcher = checkout / "tests" / "packaging" / "launcher"
    text = f"import sys; sys.path.insert(0, {str(checkout)!r}); from cip.cli import run; run()"
    if launcher.exists():
        text = launcher.read_text(encoding="utf-8")
        text = text.replace("@PACKAGE@", str(checkout)).replace("@OPTIONAL@", str(checkout))
    return [python, "-IS", *options, "-c", (_LEAVE if until_answer else "") + text]


def first_answer(command: Sequence[str], image: str) -> tuple[bytes, str]:
    """What the program answers to GET /manifest, and its stderr. It must leave by itself."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(b"GET /manifest HTTP/1.1\r\nHost: x\r\n\r\n")
        with theirs:
            done = subprocess.run(
                [*command, f"--sockfd={theirs.fileno()}", image],
                pass_fds=[theirs.fileno()],
                stderr=subprocess.PIPE,
                text=True,
                check=True,
            )
        return ours.recv(_BUFFER), done.stderr


@dataclass(frozen=True, slots=True)
class Usage:
    """What one run cost: wall seconds of the transfer, CPU seconds and peak bytes of the whole child, bytes moved."""

    seconds: float
    cpu: float
    peak: int
    moved: int


class HttpRun:
    """One run of our HTTP interface: start, manifest, blobs in sequence."""

    def __init__(self, command: Sequence[str], image: str, environment: Mapping[str, str]) -> None:
        self._began = time.perf_counter()
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        with theirs:
            self._child = subprocess.Popen(
                [*command, f"--sockfd={theirs.fileno()}", image], pass_fds=[theirs.fileno()], env=environment
            )
        self._socket = ours
        self._stream = io.BufferedReader(socket.SocketIO(ours, "r"), 65536)

    def _ask(self, line: str) -> int:
        self._socket.sendall(f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        status = self._stream.readline()
        length = 0
        while (header := self._stream.readline()) not in (b"\r\n", b""):
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if b" 200 " not in status:
            raise AssertionError(f"{line}: {status!r} {self._stream.read(length)!r}")
        return length

    def manifest(self) -> tuple[dict[str, object], float]:
        """The manifest, and seconds since the start of the program."""
        data = self._stream.read(self._ask("GET /manifest"))
        return json.loads(data), time.perf_counter() - self._began

    def blob(self, digest: str, size: int) -> int:
        """Fetch one blob; the bytes that came."""
        length = self._ask(f"GET /blobs/{digest}")
        buffer = memoryview(bytearray(_BUFFER))
        left = length
        while left:
            count = self._stream.readinto1(buffer[: min(left, _BUFFER)])
            if not count:
                raise AssertionError(f"{digest}: ended {left} bytes early")
            left -= count
        return length

    def cpu(self) -> float:
        """CPU seconds of the program so far."""
        return cpu_of(self._child.pid)

    def finish(self) -> tuple[float, int]:
        """End the program; its CPU seconds and peak bytes."""
        peak = _peak(self._child.pid)
        self._ask("POST /quit")
        self._stream.close()
        self._socket.close()
        return _reap(self._child), peak


class JsonRun:
    """One run of the JSON protocol, ours or skopeo's."""

    def __init__(self, command: Sequence[str], image: str, environment: Mapping[str, str]) -> None:
        self._began = time.perf_counter()
        self._image = image
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._child = subprocess.Popen(
                [*command, f"--sockfd={theirs.fileno()}"], pass_fds=[theirs.fileno()], env=environment
            )

    def _call(self, method: str, *arguments: object) -> tuple[object, int, list[int]]:
        self._socket.send(json.dumps({"method": method, "args": arguments}).encode())
        data, fds, _, _ = socket.recv_fds(self._socket, 65536, 2)
        reply = json.loads(data)
        if not reply["success"]:
            raise AssertionError(f"{method}: {reply['error']}")
        return reply["value"], reply["pipeid"], fds

    def manifest(self) -> tuple[dict[str, object], float]:
        """The manifest, and seconds since the start of the program."""
        self._call("Initialize")
        self._handle = self._call("OpenImage", self._image)[0]
        _, pipe, (end,) = self._call("GetManifest", self._handle)
        received = bytearray()
        reader = threading.Thread(target=lambda: received.extend(_drain(end)[1]))
        reader.start()
        self._call("FinishPipe", pipe)
        reader.join()
        return json.loads(bytes(received)), time.perf_counter() - self._began

    def blob(self, digest: str, size: int) -> int:
        """Fetch one blob; the bytes that came."""
        _, pipe, (end,) = self._call("GetBlob", self._handle, digest, size)
        counted: list[int] = []
        reader = threading.Thread(target=lambda: counted.append(_drain(end, keep=False)[0]))
        reader.start()
        self._call("FinishPipe", pipe)
        reader.join()
        return counted[0]

    def blobs(self, wanted: Sequence[tuple[str, int]], together: int) -> int:
        """Fetch blobs, `together` at a time; the bytes that came."""
        moved = 0
        for first in range(0, len(wanted), together):
            begun = []
            for digest, size in wanted[first : first + together]:
                _, pipe, (end,) = self._call("GetBlob", self._handle, digest, size)
                counted: list[int] = []
                reader = threading.Thread(target=lambda e=end, c=counted: c.append(_drain(e, keep=False)[0]))
                reader.start()
                begun.append((pipe, reader, counted))
            for pipe, reader, counted in begun:
                self._call("FinishPipe", pipe)
                reader.join()
                moved += counted[0]
        return moved

    def begin(self, digest: str, size: int) -> None:
        """Start to fetch a blob that nobody waits for."""
        _, _, (end,) = self._call("GetBlob", self._handle, digest, size)
        threading.Thread(target=lambda: _drain(end, keep=False), daemon=True).start()

    def abandon(self) -> None:
        """End the program by closing its socket, whatever it is doing."""
        self._socket.close()
        self._child.wait()

    def cpu(self) -> float:
        """CPU seconds of the program so far."""
        return cpu_of(self._child.pid)

    def finish(self) -> tuple[float, int]:
        """End the program; its CPU seconds and peak bytes."""
        peak = _peak(self._child.pid)
        self._socket.send(b'{"method":"Shutdown"}')
        cpu = _reap(self._child)
        self._socket.close()
        return cpu, peak


def _drain(end: int, *, keep: bool = True) -> tuple[int, bytes]:
    buffer = bytearray(_BUFFER)
    kept = bytearray()
    count = 0
    with open(end, "rb", buffering=0) as pipe:
        while got := pipe.readinto(buffer):
            count += got
            if keep:
                kept += buffer[:got]
    return count, bytes(kept)


def _peak(pid: int) -> int:
    """Peak bytes in memory since exec; what wait4 reports begins with the size of whoever forked."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no VmHWM")


def _reap(child: subprocess.Popen[bytes]) -> float:
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise AssertionError(f"{child.args!r}: exit status {child.returncode}")
    return usage.ru_utime + usage.ru_stime


def cpu_of(pid: int) -> float:
    """CPU seconds of a process and its threads so far, in steps of the kernel's clock (0.01 s)."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def interpreter(python: str, *arguments: str) -> float:
    """Seconds from start to end of an interpreter with these arguments."""
    began = time.perf_counter()
    subprocess.run([python, *arguments], check=True)
    return time.perf_counter() - began


def interpreter_peak(python: str, code: str) -> float:
    """Peak bytes of an isolated interpreter that has done `code`."""
    told = f"{code}\nfor line in open('/proc/self/status'):\n if line[:6] == 'VmHWM:': print(line.split()[1])"
    done = subprocess.run([python, "-I", "-S", "-c", told], check=True, capture_output=True, text=True)
    return int(done.stdout) * 1024


def floor(python: str, host: str, path: str, size: int, authority: str = "", count: int = 1) -> float:
    """CPU seconds of the least that moving a blob costs, `count` times (tests/bench/floor.py)."""
    name, _, port = host.partition(":")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        words = [python, "-I", str(Path(__file__).with_name("floor.py")), str(theirs.fileno()), name, port, path]
        child = subprocess.Popen(
            [*words, str(size), *([authority, str(count)] if authority else [])],
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        buffer = bytearray(_BUFFER)
        while ours.recv_into(buffer):
            continue
        said, _ = child.communicate()
        if child.returncode:
            raise AssertionError(f"floor.py: exit status {child.returncode}")
        return float(said)


def raise_descriptor_limit() -> None:
    """Allow as many descriptors as the machine does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

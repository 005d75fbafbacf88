# SPDX-License-Identifier: Apache-2.0
"""The proxy's side of a helper process: starts it, asks it, ends it."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress

from ..content import require_time
from ..errors import CipError, ErrorCode, MissingDependencyError, SourceError, quote, system_reason
from ..programs import OUTPUT_LIMIT, SEARCH_PATH, GpgvResult, ProgramResult, memory_file, seconds_left
from ..settings import HELPER_PREFIX

_GRACE = 1.0  # seconds to take a request, and beyond a program's own time-out, until the process counts as dead
_END_SECONDS = 2.0  # in which all may end by themselves
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from importlib import import_module as load; "
    "load(sys.argv[2]).main(int(sys.argv[3]))"
)


class Process:
    """One helper process and our end of its socket."""

    def __init__(self, helpers: Sequence[str], variables: Mapping[str, str]) -> None:
        """Start it. Raises OSError."""
        if not sys.executable:
            raise OSError(0, "the path of the interpreter is unknown")
        from subprocess import DEVNULL, Popen

        root, module = _origin()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, ExitStack() as stack:
            stack.callback(ours.close)
            command = [sys.executable, "-I", "-S", "-B", "-c", _START, root, module, str(theirs.fileno())]
            self._child: Popen[bytes] = Popen(
                command,
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=DEVNULL,
                cwd="/",
                env={"PATH": SEARCH_PATH, "LC_ALL": "C"},
                pass_fds=(theirs.fileno(),),
                process_group=0,  # which is orphaned by our end; the kernel continues it then, if it is stopped
            )
            ours.settimeout(_GRACE)
            _send_setup(ours, helpers, variables)
            stack.pop_all()
        self.control = ours

    @property
    def pid(self) -> int:
        """Its number."""
        return self._child.pid

    def wait(self, seconds: float) -> None:
        """Reap it, which ends with its socket; kill it if that takes longer."""
        from subprocess import TimeoutExpired

        with suppress(TimeoutExpired, PermissionError):  # a confined process sends no signal: it is seen to end no more
            try:
                self._child.wait(seconds)
            except TimeoutExpired:
                self._child.kill()
                self._child.wait(_END_SECONDS)


def close(processes: Sequence[Process]) -> None:
    """End them, with all that they run, and reap them."""
    for process in processes:
        process.control.close()
    ends = time.monotonic() + _END_SECONDS
    for process in processes:
        process.wait(max(ends - time.monotonic(), 0))


def verify(process: Process | None, keyring: bytes, message: bytes) -> GpgvResult:
    """As `Programs.verify` says."""
    with ExitStack() as stack:
        passed = [memory_file(stack, name, data) for name, data in (("ring", keyring), ("message", message))]
        request = {"kind": "verify", "seconds": seconds_left()}
        head, content = _ask(process, "gpgv", "check an OpenPGP signature", request, passed)
    lines = _number(head, "lines")
    return GpgvResult(_number(head, "status"), content[:lines], content[lines:])


def decompress(process: Process | None, source: int, output: int, seconds: float, purpose: str) -> int:
    """As `Programs.decompress` says."""
    request = {"kind": "decompress", "seconds": seconds}
    return _number(_ask(process, "zstd", purpose, request, [source, output])[0], "status")


def credentials(process: Process | None, helper: str, registry: str, purpose: str) -> ProgramResult:
    """As `Programs.credentials` says."""
    request = {"kind": "credentials", "helper": helper, "registry": registry, "seconds": seconds_left()}
    head, content = _ask(process, HELPER_PREFIX + helper, purpose, request)
    return ProgramResult(_number(head, "status"), content, str(head.get("stderr", "")).encode("latin-1", "replace"))


def _send_setup(control: socket.socket, helpers: Sequence[str], variables: Mapping[str, str]) -> None:
    """Tell a new process what it serves. Raises OSError."""
    if not helpers:
        control.send(b"setup")
        return
    with ExitStack() as stack:
        try:
            setup = json.dumps({"helpers": list(helpers), "variables": dict(variables)}).encode()
            socket.send_fds(control, [b"setup"], [memory_file(stack, "setup", setup)])
        except SourceError as error:  # EFBIG, where no file may grow
            raise OSError(0, str(error)) from error


def _ask(
    process: Process | None, name: str, purpose: str, request: Mapping[str, object], passed: Sequence[int] = ()
) -> tuple[Mapping[str, object], bytes]:
    """Head and content of the answer. Raises MissingDependencyError, SourceError."""
    if process is None:
        raise SourceError(
            f"{name}: needed to {purpose}, and nothing told of it when this process was confined",
            code=ErrorCode.CREDENTIALS_UNAVAILABLE if request["kind"] == "credentials" else ErrorCode.INTERNAL,
        )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        try:
            with theirs:
                socket.send_fds(process.control, [json.dumps(request).encode()], [theirs.fileno(), *passed])
            head, content = _read_reply(ours, name, time.monotonic() + float(str(request["seconds"])) + _GRACE)
        except OSError as error:
            require_time()
            raise _gone(name, system_reason(error)) from error
    code = head.get("code")
    if code == ErrorCode.DEPENDENCY_MISSING:
        raise MissingDependencyError(name, purpose)
    if code is not None:
        raise SourceError(str(head["error"]), code=ErrorCode(str(code)))
    return head, content


def _origin() -> tuple[str, str]:
    """Where the interpreter finds this package (a directory, or the file that it was packed into), and our module."""
    module = f"{__package__}.helper"
    root = os.path.abspath(__file__)
    for _ in f"{__package__}.remote".split("."):
        root = os.path.dirname(root)
    return root, module


def _read_reply(reply: socket.socket, name: str, ends: float) -> tuple[Mapping[str, object], bytes]:
    """What has come whole at `ends`, a time of the monotonic clock. Raises SourceError, OSError."""
    data = bytearray()
    while True:
        reply.settimeout(max(ends - time.monotonic(), 1e-3))
        part = reply.recv(65536)
        if not part:
            break
        data += part
        if len(data) > 2 * OUTPUT_LIMIT + 65536:  # gpgv's status lines and its output
            raise SourceError(f"{name}: printed too much", code=ErrorCode.LIMIT_EXCEEDED)
    line, newline, content = bytes(data).partition(b"\n")
    if not newline:
        raise _gone(name, "no answer")
    head = json.loads(line)
    return (head if isinstance(head, dict) else {}), content


def _number(head: Mapping[str, object], name: str) -> int:
    value = head.get(name)
    if not isinstance(value, int):
        raise _gone("helper", f"an answer without {quote(name)}")
    return value


def _gone(name: str, why: str) -> CipError:
    return SourceError(f"{name}: the process that runs programs is gone: {why}", code=ErrorCode.INTERNAL)

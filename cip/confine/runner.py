# SPDX-License-Identifier: Apache-2.0
"""Keeps a small process outside the sandbox that runs the programs which a confined one may not.

It is forked before confinement and takes requests over a socket pair: what it will run is fixed (COMMANDS), there is
no shell, and it can do nothing else. Each request is handled by a child of its own, so a slow credential helper
never holds up gpgv. It ends when the socket does.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import warnings
from collections.abc import Mapping, Sequence

from ..errors import CipError, ErrorCode, MissingDependencyError, SourceError, quote
from ..programs import OUTPUT_LIMIT, PROGRAM_TIMEOUT, DirectPrograms, ProgramResult

COMMANDS = re.compile(r"gpgv|zstd|docker-credential-[A-Za-z0-9_.+-]+", re.ASCII)
REQUEST_LIMIT = 8 * 1024 * 1024  # bytes: arguments, environment and standard input
DESCRIPTOR_LIMIT = 16  # passed along with one request
_GRACE = 5.0  # seconds beyond a program's own time-out until the runner counts as dead


class ForkedPrograms(DirectPrograms):
    """Runs programs directly until `start`, which forks the runner, and through it from then on."""

    def __init__(self) -> None:
        self._control: socket.socket | None = None
        self._child = 0

    def start(self) -> None:
        """Fork the runner, unless there is one; `close` ends it."""
        if self._control is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with warnings.catch_warnings():
            # Python 3.12 warns where there are threads. The child calls nothing that they could have locked: sockets,
            # JSON, and fork and exec.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            status = 1
            try:
                ours.close()
                _serve(theirs)
                status = 0
            finally:
                os._exit(status)  # whatever happens, this process must not go on as a second proxy
        theirs.close()
        self._control, self._child = ours, child

    def close(self) -> None:
        """End the runner, if there is one, and reap it."""
        if self._control is None:
            return
        self._control.close()
        try:
            os.waitpid(self._child, 0)
        except ChildProcessError:
            pass  # somebody reaped it already

    def run(
        self,
        argv: Sequence[str],
        *,
        purpose: str,
        environ: Mapping[str, str],
        stdin: bytes | None = None,
        pass_fds: Sequence[int] = (),
        output_limit: int = OUTPUT_LIMIT,
        timeout: float = PROGRAM_TIMEOUT,
    ) -> ProgramResult:
        """As `Programs.run` says."""
        if self._control is None:
            return super().run(
                argv, purpose=purpose, environ=environ, stdin=stdin, pass_fds=pass_fds, output_limit=output_limit,
                timeout=timeout,
            )  # fmt: skip
        head = {
            "argv": list(argv), "purpose": purpose, "environ": dict(environ), "stdin": stdin is not None,
            "fds": list(pass_fds), "output_limit": output_limit, "timeout": timeout,
        }  # fmt: skip
        request = json.dumps(head).encode() + b"\n" + (stdin or b"")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours:
            descriptor = os.memfd_create("cip-request", os.MFD_CLOEXEC)
            try:
                with theirs:
                    _write_all(descriptor, request)
                    socket.send_fds(self._control, [b"run"], [theirs.fileno(), descriptor, *pass_fds])
            except OSError as error:
                raise _gone(argv[0], error) from error
            finally:
                os.close(descriptor)
            ours.settimeout(timeout + _GRACE)
            return _read_reply(ours, argv[0], purpose, output_limit)


def _read_reply(reply: socket.socket, name: str, purpose: str, output_limit: int) -> ProgramResult:
    data = bytearray()
    try:
        while part := reply.recv(65536):
            data += part
            if len(data) > output_limit + 65536:
                raise SourceError(f"{name}: printed more than {output_limit} bytes", code=ErrorCode.LIMIT_EXCEEDED)
    except OSError as error:
        raise _gone(name, error) from error
    head, newline, stdout = bytes(data).partition(b"\n")
    if not newline:
        raise _gone(name, None)
    answer = json.loads(head)
    if answer["code"] == ErrorCode.DEPENDENCY_MISSING:
        raise MissingDependencyError(name, purpose)
    if answer["code"]:
        raise SourceError(answer["error"], code=ErrorCode(answer["code"]))
    return ProgramResult(answer["status"], stdout)


def _gone(name: str, error: OSError | None) -> SourceError:
    why = error.strerror or str(error) if error else "no answer"
    return SourceError(f"{name}: the process that runs programs is gone: {why}", code=ErrorCode.INTERNAL)


def _serve(control: socket.socket) -> None:
    """Take requests until the socket ends. Runs in the forked process."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGURG):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    own = control.fileno()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    # The parent's socket above all: held open here it would never tell its end.
    os.closerange(3, own)
    os.closerange(own + 1, max(int(name) for name in os.listdir("/proc/self/fd")) + 1)
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 16, DESCRIPTOR_LIMIT)
        if not data:
            return
        if os.fork() == 0:
            try:
                control.close()
                _handle(descriptors)
            finally:
                os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)


def _handle(descriptors: Sequence[int]) -> None:
    """Run one program in a process of its own and answer."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    reply, request, *passed = descriptors
    with socket.socket(fileno=reply) as answer:
        try:
            result = _run(request, passed)
            head: dict[str, object] = {"status": result.status, "code": ""}
            stdout = result.stdout
        except CipError as error:
            head, stdout = {"code": error.code, "error": str(error)}, b""
        answer.sendall(json.dumps(head).encode() + b"\n" + stdout)


def _run(request: int, passed: Sequence[int]) -> ProgramResult:
    data = os.pread(request, REQUEST_LIMIT + 1, 0)
    if len(data) > REQUEST_LIMIT:
        raise SourceError(f"a request of more than {REQUEST_LIMIT} bytes", code=ErrorCode.LIMIT_EXCEEDED)
    line, _, stdin = data.partition(b"\n")
    head = json.loads(line)
    name = head["argv"][0]
    if not COMMANDS.fullmatch(name):
        raise SourceError(f"{quote(name)}: not a program that is run here", code=ErrorCode.INTERNAL)
    _place(passed, head["fds"])
    return DirectPrograms().run(
        head["argv"], purpose=head["purpose"], environ=head["environ"], stdin=stdin if head["stdin"] else None,
        pass_fds=head["fds"], output_limit=head["output_limit"], timeout=head["timeout"],
    )  # fmt: skip


def _place(passed: Sequence[int], wanted: Sequence[int]) -> None:
    """Give each passed descriptor the number that the arguments name, whatever stands there now."""
    free = max([*passed, *wanted, 2]) + 1
    spare = []
    for index, descriptor in enumerate(passed):
        os.dup2(descriptor, free + index)
        spare.append(free + index)
    for number, target in zip(spare, wanted, strict=True):
        os.dup2(number, target)
        os.close(number)


def _write_all(descriptor: int, data: bytes) -> None:
    position = 0
    while position < len(data):
        position += os.pwrite(descriptor, data[position:], position)

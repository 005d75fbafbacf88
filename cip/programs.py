# SPDX-License-Identifier: Apache-2.0
"""Runs outside programs with bounded time and output.

Programs run without a shell, in a session of their own, with exactly the environment and descriptors they are
given. Their standard error is thrown away: a helper may print a secret there. A program that is late or prints too
much is killed with all its children; one that ends in time may leave an agent behind.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .errors import ErrorCode, MissingDependencyError, SourceError, quote

if TYPE_CHECKING:
    from subprocess import Popen

PROGRAM_TIMEOUT = 30.0  # seconds (decisions.md section 9)
OUTPUT_LIMIT = 1024 * 1024  # bytes of standard output, and of gpgv's status lines
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHUNK = 64 * 1024


class ProgramResult(NamedTuple):
    """How a program ended: exit status (negative: the signal), and all of its standard output."""

    status: int
    stdout: bytes


class Programs(Protocol):
    """Runs programs: in this process's own name, or through the runner that was forked before confinement."""

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
        """Run `argv` to its end; `argv[0]` without a slash is searched in the PATH of `environ`.

        `environ` is the whole environment (`LC_ALL=C` is added), `stdin` None is an empty one, the descriptors
        `pass_fds` keep their numbers and stay open here. Raises MissingDependencyError with `purpose` ("check a
        signature") when the program is not there, SourceError (`timeout`, `limit-exceeded`) when it was killed.
        """
        ...


class DirectPrograms:
    """Runs programs as children of this process."""

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
        import subprocess
        import time

        deadline = time.monotonic() + timeout
        try:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PATH": SEARCH_PATH, **environ, "LC_ALL": "C"},
                cwd="/",
                pass_fds=tuple(pass_fds),
                close_fds=True,
                restore_signals=True,
                start_new_session=True,
                bufsize=0,
            )
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise MissingDependencyError(argv[0], purpose) from error
        except OSError as error:  # ENOEXEC, E2BIG, EAGAIN
            raise SourceError(f"{argv[0]}: cannot be started: {error.strerror}", code=ErrorCode.INTERNAL) from error
        with child:
            try:
                stdout = _converse(child, argv[0], stdin, output_limit, deadline)
                status = child.wait(max(deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired as error:
                raise SourceError(f"{argv[0]}: still running after {timeout:g} s", code=ErrorCode.TIMEOUT) from error
            finally:
                if child.returncode is None:
                    _kill(child)
        return ProgramResult(status, stdout)


def _converse(child: Popen[bytes], name: str, stdin: bytes | None, limit: int, deadline: float) -> bytes:
    """Feed `stdin` and collect standard output until its end. Raises TimeoutExpired, SourceError (limit-exceeded)."""
    import selectors
    import subprocess
    import time

    assert child.stdout is not None
    output = bytearray()
    pending = memoryview(stdin or b"")
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        if child.stdin is not None:
            os.set_blocking(child.stdin.fileno(), False)
            selector.register(child.stdin, selectors.EVENT_WRITE)
        ended = False
        while not ended:
            left = deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(name, 0)
            for key, _ in selector.select(left):
                if key.fileobj is child.stdout:
                    part = os.read(child.stdout.fileno(), _CHUNK)
                    output += part
                    if len(output) > limit:
                        raise SourceError(f"{name}: printed more than {limit} bytes", code=ErrorCode.LIMIT_EXCEEDED)
                    ended = not part
                elif child.stdin is not None:
                    try:
                        pending = pending[os.write(child.stdin.fileno(), pending[:_CHUNK]) :]
                    except BrokenPipeError:
                        pending = pending[:0]  # it has read what it wanted; its answer says what that was worth
                    if not pending:
                        selector.unregister(child.stdin)
                        child.stdin.close()
    if child.stdin is not None:
        child.stdin.close()  # it may wait for this end of file before it goes
    return bytes(output)


def _kill(child: Popen[bytes]) -> None:
    """Kill the session of `child`, which has not been reaped yet: its number cannot belong to anybody else."""
    import signal

    try:
        os.killpg(child.pid, signal.SIGKILL)
    except PermissionError:
        child.kill()  # EPERM: a member of the group changed its identity
    child.wait()


class GpgvResult(NamedTuple):
    """What gpgv says about one message: exit status, its status lines, and the text that it took out of it.

    None of them proves anything alone: `trust.simplesigning` judges them together (signatures.md 4.5).
    """

    status: int
    status_lines: bytes
    output: bytes


def run_gpgv(programs: Programs, keyring: bytes, message: bytes, *, search_path: str = SEARCH_PATH) -> GpgvResult:
    """Let gpgv check the OpenPGP `message` against the binary `keyring` (signatures.md 4.5 step 3).

    Both reach it as memory files, so nothing of an image is written to a disk and no other process can change them;
    the status lines come back in a third one. Raises MissingDependencyError when there is no gpgv, SourceError when
    it was killed or said more than OUTPUT_LIMIT bytes.
    """
    with ExitStack() as stack:
        ring = _memory_file(stack, "keyring", keyring)
        signed = _memory_file(stack, "message", message)
        status = _memory_file(stack, "status", b"")
        result = programs.run(
            # an absolute path, because gpgv looks a bare file name up in its home; that home must hold nothing
            ["gpgv", "--homedir", "/proc/self/fdinfo", "--status-fd", str(status), "--keyring", f"/proc/self/fd/{ring}",
             "--output", "-", "--", f"/proc/self/fd/{signed}"],
            purpose="check an OpenPGP signature",
            environ={"PATH": search_path, "HOME": "/proc/self/fdinfo"},
            pass_fds=(ring, signed, status),
        )  # fmt: skip
        lines = os.pread(status, OUTPUT_LIMIT + 1, 0)
        if len(lines) > OUTPUT_LIMIT:
            raise SourceError(f"gpgv: more than {OUTPUT_LIMIT} bytes of status lines", code=ErrorCode.LIMIT_EXCEEDED)
        return GpgvResult(result.status, lines, result.stdout)


def _memory_file(stack: ExitStack, name: str, content: bytes) -> int:
    """A descriptor of an anonymous file with `content`, closed with `stack`. Raises SourceError."""
    try:
        descriptor = os.memfd_create(f"cip-{name}", os.MFD_CLOEXEC)
        stack.callback(os.close, descriptor)
        position = 0
        while position < len(content):
            position += os.pwrite(descriptor, content[position:], position)
    except OSError as error:
        raise SourceError(f"memory for {quote(name)}: {error.strerror}", code=ErrorCode.INTERNAL) from error
    return descriptor

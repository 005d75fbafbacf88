# SPDX-License-Identifier: Apache-2.0
"""Runs outside programs with bounded time and output.

Programs run without a shell, in a session of their own, with exactly the environment and descriptors they are
given. A program that is late or prints too much is killed with all its children; one that ends in time may leave an
agent behind, and is not waited for because that holds its output open.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .content import require_time
from .errors import ErrorCode, MissingDependencyError, SourceError, quote, system_reason
from .settings import HELPER_PREFIX

if TYPE_CHECKING:
    from subprocess import Popen

PROGRAM_TIMEOUT = 30.0  # seconds (decisions.md section 9), or what is left of the time to open an image
OUTPUT_LIMIT = 1024 * 1024  # bytes of standard output, and of gpgv's status lines
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ZSTD_WINDOW = "128MiB"  # what zstd may keep in memory; frames that need more are refused
REGISTRY_LIMIT = 1024  # characters of a registry's name; as bytes they fit into any pipe
STDERR_LIMIT = 4096  # bytes that are kept of what a program says about its fault
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LOOK_SECONDS = 0.1  # between two looks whether a program has ended that left its output to somebody else
_PIPE_LIMIT = 1024 * 1024  # bytes that a pipe of ours holds at most (fs.pipe-max-size)
_EMPTY_HOME = "/proc/self/fdinfo"


class ProgramResult(NamedTuple):
    """How a program ended: exit status (negative: the signal), all of its standard output, the begin of its errors."""

    status: int
    stdout: bytes
    stderr: bytes = b""


class GpgvResult(NamedTuple):
    """What gpgv says about one message: exit status, its status lines, and the text that it took out of it.

    None of them proves anything alone: `trust.openpgp.simplesigning` judges them together (signatures.md 4.5).
    """

    status: int
    status_lines: bytes
    output: bytes


class Programs(Protocol):
    """The three things that other programs do for us: in this process's own name, or through the helper process.

    All raise MissingDependencyError when the program is not there, SourceError (`timeout`, `limit-exceeded`) when it
    was killed.
    """

    def verify(self, keyring: bytes, message: bytes) -> GpgvResult:
        """Let gpgv check the OpenPGP `message` against the binary `keyring` (signatures.md 4.5 step 3)."""
        ...

    def decompress(self, source: int, output: int, seconds: float, *, purpose: str) -> int:
        """Let zstd unpack what the descriptor `source` gives to the descriptor `output`; its exit status."""
        ...

    def credentials(self, helper: str, registry: str, *, purpose: str) -> ProgramResult:
        """Let docker-credential-`helper` print what it has for `registry`."""
        ...


class Running:
    """The programs that run at present; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: set[Popen[bytes]] = set()
        self._ended = False

    def start(self, start: "Callable[[], Popen[bytes]]") -> "Popen[bytes]":
        """What `start` starts, with no signal blocked. Under the lock, so that `kill` misses none.

        Raises OSError behind the end.
        """
        import signal

        with self._lock:
            if self._ended:
                raise OSError(0, "this process ends")
            blocked = signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the child would inherit it, and keep it
            try:
                child = start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            self._children.add(child)
            return child

    def discard(self, child: "Popen[bytes]") -> None:
        """It was reaped."""
        with self._lock:
            self._children.discard(child)

    def kill(self) -> None:
        """Kill all, and whatever else would be started: nothing may outlive the process that started it."""
        with self._lock:
            self._ended = True
            children = tuple(self._children)
        for child in children:
            with suppress(ProcessLookupError):  # reaped meanwhile by whoever waits for it
                _kill(child)


class DirectPrograms:
    """Runs programs as children of this process.

    `variables` are the environment of credential helpers; gpgv and zstd get nothing of it but are looked for in
    `search_path`.
    """

    def __init__(self, variables: Mapping[str, str] = MappingProxyType({}), search_path: str = SEARCH_PATH) -> None:
        self._variables = variables
        self._environ = {"PATH": search_path}
        self.running = Running()

    def close(self) -> None:
        """Nothing runs between two calls."""

    def abandon(self) -> None:
        """Kill what runs; from any thread."""
        self.running.kill()

    def verify(self, keyring: bytes, message: bytes) -> GpgvResult:
        """Both reach gpgv as memory files, so nothing of an image is written to a disk; the status lines in a third."""
        with ExitStack() as stack:
            ring = memory_file(stack, "keyring", keyring)
            signed = memory_file(stack, "message", message)
            status = memory_file(stack, "status", b"")
            # an absolute path, because gpgv looks a bare file name up in its home; that home must hold nothing
            files = ["--homedir", _EMPTY_HOME, "--keyring", f"/proc/self/fd/{ring}", "--status-fd", str(status)]
            result = run_program(
                self.running,
                ["gpgv", *files, "--output", "-", "--", f"/proc/self/fd/{signed}"],
                seconds_left(),
                purpose="check an OpenPGP signature",
                environ={**self._environ, "HOME": _EMPTY_HOME},
                pass_fds=(ring, signed, status),
            )
            lines = os.pread(status, OUTPUT_LIMIT + 1, 0)
            if len(lines) > OUTPUT_LIMIT:
                why = f"gpgv: more than {OUTPUT_LIMIT} bytes of status lines"
                raise SourceError(why, code=ErrorCode.LIMIT_EXCEEDED)
            return GpgvResult(result.status, lines, result.stdout)

    def decompress(self, source: int, output: int, seconds: float, *, purpose: str) -> int:
        """As its standard input and output: a path would open them anew, with rights that the caller may not have."""
        command = ["zstd", "-d", "-q", "-c", f"--memory={ZSTD_WINDOW}"]
        return run_program(
            self.running, command, seconds, purpose=purpose, environ=self._environ, stdin=source, stdout=output
        ).status

    def credentials(self, helper: str, registry: str, *, purpose: str) -> ProgramResult:
        """As the helper's protocol has it: `get`, and the registry as standard input."""
        if len(registry) > REGISTRY_LIMIT or not registry.isprintable():
            raise SourceError(f"{quote(registry)}: not the name of a registry", code=ErrorCode.INTERNAL)
        program, said = [HELPER_PREFIX + helper, "get"], registry.encode()
        environ = self._variables
        return run_program(self.running, program, seconds_left(), purpose=purpose, environ=environ, stdin=said)


def seconds_left() -> float:
    """What a program may take at most. Raises SourceError (timeout)."""
    return min(PROGRAM_TIMEOUT, require_time())


def run_program(
    running: Running,
    argv: Sequence[str],
    timeout: float,
    *,
    purpose: str,
    environ: Mapping[str, str],
    stdin: bytes | int = b"",
    stdout: int | None = None,
    pass_fds: Sequence[int] = (),
    output_limit: int = OUTPUT_LIMIT,
) -> ProgramResult:
    """Run `argv` to its end, in `timeout` seconds; `argv[0]` without a slash is searched in the PATH of `environ`.

    `environ` is the whole environment (`LC_ALL=C` is added), `stdin` bytes that a pipe takes at once or a descriptor,
    `stdout` a descriptor or what comes back. The descriptors `pass_fds` keep their numbers. While it runs it is one of
    `running`. Raises MissingDependencyError with `purpose` ("check a signature") when the program is not
    there, SourceError.
    """
    import subprocess
    import time

    deadline = time.monotonic() + timeout
    try:
        child = running.start(
            lambda: subprocess.Popen(
                argv,
                stdin=stdin if isinstance(stdin, int) else subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE if stdout is None else stdout,
                stderr=subprocess.PIPE if stdout is None else subprocess.DEVNULL,
                env={"PATH": SEARCH_PATH, **environ, "LC_ALL": "C"},
                cwd="/",
                pass_fds=tuple(pass_fds),
                start_new_session=True,
                preexec_fn=_end_with(os.getpid()),
                bufsize=0,
            )
        )
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise MissingDependencyError(argv[0], purpose) from error
    except OSError as error:  # ENOEXEC, E2BIG, EAGAIN
        raise SourceError(f"{argv[0]}: cannot be started: {system_reason(error)}", code=ErrorCode.INTERNAL) from error
    with child:
        try:
            if isinstance(stdin, bytes) and child.stdin is not None:
                with suppress(BrokenPipeError), child.stdin:  # what it answers says whether it had to be read
                    child.stdin.write(stdin)
            found, errors = _listen(child, argv[0], output_limit, deadline) if stdout is None else (b"", b"")
            status = child.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired as error:
            why = f"{argv[0]}: still running after {timeout:.3g} s, its limit or what was left of --open-timeout"
            raise SourceError(why, code=ErrorCode.TIMEOUT) from error
        finally:
            if child.returncode is None:
                _kill(child)
            running.discard(child)
    return ProgramResult(status, found, errors)


def _end_with(starter: int) -> Callable[[], None]:
    """What a child does before it becomes a program: it is killed when the thread that started it is.

    So it ends with us, even where we are killed and can end nothing; its own children do not. Other threads may hold
    locks that the child has copies of, which is why it does nothing that takes one.
    """
    import ctypes
    import signal

    prctl, death, kill = ctypes.CDLL(None).prctl, ctypes.c_ulong(_PR_SET_PDEATHSIG), ctypes.c_ulong(signal.SIGKILL)

    def ask_for_the_end() -> None:
        prctl(death, kill)
        if os.getppid() != starter:  # it has ended meanwhile
            os._exit(1)

    return ask_for_the_end


def _listen(child: "Popen[bytes]", name: str, limit: int, deadline: float) -> tuple[bytes, bytes]:
    """Standard output and error until their ends or that of `child`, whoever may hold them open still.

    Raises TimeoutExpired, SourceError (limit-exceeded).
    """
    import selectors
    import subprocess
    import time

    assert child.stdout is not None and child.stderr is not None
    output, errors = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        selector.register(child.stderr, selectors.EVENT_READ)
        ended = False
        while selector.get_map() and not ended:
            left = deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(name, 0)
            ended = _has_ended(child)  # before the last look at what it has written
            for key, _ in selector.select(0 if ended else min(left, _LOOK_SECONDS)):
                part = os.read(key.fd, max(limit + 1, _PIPE_LIMIT))  # all that a pipe holds
                if not part:
                    selector.unregister(key.fileobj)
                elif key.fileobj is child.stdout:
                    output += part
                    if len(output) > limit:
                        raise SourceError(f"{name}: printed more than {limit} bytes", code=ErrorCode.LIMIT_EXCEEDED)
                else:
                    errors += part[: STDERR_LIMIT - len(errors)]
    return bytes(output), bytes(errors)


def _has_ended(child: "Popen[bytes]") -> bool:
    """Whether it is over; it is not reaped, so that its number stays its own."""
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill(child: "Popen[bytes]") -> None:
    """Kill the session of `child`, which has not been reaped yet: its number cannot belong to anybody else."""
    import signal

    try:
        os.killpg(child.pid, signal.SIGKILL)
    except PermissionError:
        child.kill()  # EPERM: a member of the group changed its identity
    child.wait()


def memory_file(stack: ExitStack, name: str, content: bytes) -> int:
    """A descriptor of an anonymous file with `content`, closed with `stack`. Raises SourceError."""
    try:
        descriptor = os.memfd_create(f"cip-{name}", os.MFD_CLOEXEC)
        stack.callback(os.close, descriptor)
        position = 0
        while position < len(content):
            position += os.pwrite(descriptor, content[position:], position)
    except OSError as error:
        raise SourceError(f"memory for {quote(name)}: {system_reason(error)}", code=ErrorCode.INTERNAL) from error
    return descriptor

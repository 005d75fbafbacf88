# SPDX-License-Identifier: Apache-2.0
"""Gives up, once everything needed is in hand, what an attacker behind a parser bug would want (decisions.md 8).

Levels, each including the one before: `process` (no new privileges, of root's capabilities those alone that open files
of others, no core dump, not readable by ptrace, and none of the calls that `seccomp` refuses), `write` (Landlock: no
change to the file system outside the temporary directory, no listening TCP socket, no program started, no device
asked), `full` (reads only of what resolving names and verifying TLS need, and of the image's own place). Where the
kernel offers less, less is reached, said and returned.

Landlock, capabilities and no_new_privs belong to a thread, and threads and processes started by it inherit them. From
Landlock's ABI 8 on its rules reach every thread of the process at once; for the rest each thread that lives on has to
call `confine`.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import IntEnum
from typing import Any

from .. import log
from .seccomp import Syscall, refuse_calls

# linux/prctl.h, linux/landlock.h, asm-generic/unistd.h: the same numbers on every architecture we run on
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
_CAPABILITIES_VERSION = 0x20080522  # linux/capability.h: _LINUX_CAPABILITY_VERSION_3
_CAPABILITIES = 64  # at most
_KEPT_CAPABILITIES = 0b1110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER: of root, whose images others own
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = _RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER = 1 << 13  # ABI 2
_TRUNCATE = 1 << 14  # ABI 3
_IOCTL_DEV = 1 << 15  # ABI 5
_CHANGE = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))  # write, remove and make anything
_READ = _READ_FILE | _READ_DIR
_ON_FILES = _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV  # the kernel refuses the others on a file
_BIND_TCP = 1  # ABI 4
_SCOPES = 3  # ABI 6: abstract sockets, signals
_ALL_THREADS = 1 << 3  # a flag of landlock_restrict_self
ALL_THREADS_ABI = 8  # of Landlock; before it each thread has to confine itself

# What the C library, OpenSSL and our own late imports read after confinement; never where private keys are kept.
SYSTEM_READS = (
    *("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/etc/passwd", "/dev/null", "/dev/urandom"),
    *("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/services"),
    *("/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf", "/run/nscd"),
    *("/etc/ca-certificates", "/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem", "/etc/ssl/openssl.cnf"),
    *("/etc/pki/ca-trust", "/etc/pki/tls/certs", "/etc/pki/tls/cert.pem", "/etc/pki/tls/openssl.cnf"),
    *("/etc/pki/tls/openssl.d", "/etc/crypto-policies"),
)


class Level(IntEnum):
    """How far the process is confined."""

    NONE = 0
    PROCESS = 1
    WRITE = 2
    FULL = 3


def parse_level(text: str) -> Level:
    """The level that `--require-sandbox` names."""
    return Level[text.upper()]


def confine(
    wanted: Level,
    *,
    writable: Iterable[str],
    readable: Iterable[str],
    unix_sockets: bool = False,
    syscall: Syscall | None = None,
    warn: Callable[[str], None] = log.warning,
) -> Level:
    """Confine this thread up to `wanted`; the level reached, and `warn` is told why it is a lower one.

    With `unix_sockets` new ones may be made, and reach whatever listens on this host. `writable` and `readable` are
    directories or files that stay usable at `write` and `full`; missing ones are passed over. Nothing can be taken
    back. `syscall` stands in for the kernel in tests.
    """
    if wanted is Level.NONE:
        return Level.NONE
    call = syscall or _kernel()

    def attempt(step: Callable[[], object], what: str) -> bool:
        try:
            step()
        except OSError as error:
            warn(f"sandbox: {what}{error.strerror}")
            return False
        return True

    if not attempt(lambda: _confine_process(call), ""):
        return Level.NONE
    attempt(lambda: _drop_capabilities(call), "what root may do stays open to it: ")
    files = wanted > Level.PROCESS and attempt(
        lambda: _confine_files(call, wanted, writable, readable), "files stay open to this process: "
    )
    open_calls = "modes, owners and times of files, new processes and sockets stay open to it: "
    attempt(lambda: refuse_calls(call, unix_sockets=unix_sockets), open_calls)
    return wanted if files else Level.PROCESS


def _kernel() -> Syscall:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)

    def call(number: int, *arguments: Any) -> int:
        if number == _PRCTL:
            result = library.prctl(*(ctypes.c_ulong(int(argument or 0)) for argument in arguments))
        elif number < 0:
            result = (library.capget if number == _CAPGET else library.capset)(*arguments)
        else:
            values = (ctypes.c_long(value) if isinstance(value, int) else value for value in arguments)
            result = library.syscall(ctypes.c_long(number), *values)
        return result if result >= 0 else -ctypes.get_errno()

    return call


_PRCTL, _CAPGET, _CAPSET = -1, -2, -3  # which have numbers of their own on each architecture


def confine_programs() -> None:
    """Confine this thread and the programs that it starts: they may read files, and change and reach nothing.

    What the kernel does not offer is left out: they could do it without us as well.
    """
    call = _kernel()
    with suppress(OSError):
        for capability in range(_CAPABILITIES):  # root's programs would have them again
            call(_PRCTL, _PR_CAPBSET_DROP, capability, 0, 0, 0)
        _confine_process(call)
        with suppress(OSError):
            _drop_capabilities(call)
        with suppress(OSError):
            _confine_files(call, Level.WRITE, (), (), starts_programs=True)
        refuse_calls(call, unix_sockets=False, starts_programs=True)


def go_on_at_end_of_starter() -> None:
    """Be continued, where we are stopped, once the thread that started this process has ended. Raises OSError.

    Then we end by ourselves, and what runs for us with all its children; killed we could not. Scopes of Landlock (ABI
    6) keep back the last signal of a starter, but not what the kernel sends to a process group whose session ends:
    SIGHUP, which must not end us, and SIGCONT.
    """
    import signal

    signal.signal(signal.SIGHUP, lambda *_: None)  # unlike SIG_IGN not inherited by programs
    _require(_kernel()(_PRCTL, _PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0), "prctl")


def forbid_tracing(call: Syscall | None = None) -> None:
    """Let nobody read the memory of this process, and leave no core. Raises OSError."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _require((call or _kernel())(_PRCTL, _PR_SET_DUMPABLE, 0, 0, 0, 0), f"prctl {_PR_SET_DUMPABLE}")


def _confine_process(call: Syscall) -> None:
    """Level `process`. Raises OSError."""
    forbid_tracing(call)
    _require(call(_PRCTL, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), f"prctl {_PR_SET_NO_NEW_PRIVS}")


def _drop_capabilities(call: Syscall) -> None:
    """Of what this thread holds, keep what opens files. Raises OSError."""
    import ctypes

    header = struct.pack("=Ii", _CAPABILITIES_VERSION, 0)
    data = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; the same for the upper half
    _require(call(_CAPGET, header, data), "capget")
    kept = [data[0] & _KEPT_CAPABILITIES, data[1] & _KEPT_CAPABILITIES, 0, 0, 0, 0]
    if list(data) != kept:  # who has none needs no call, which a service's own filter may refuse
        _require(call(_CAPSET, header, (ctypes.c_uint32 * 6)(*kept)), "capset")


def _confine_files(
    call: Syscall, wanted: Level, writable: Iterable[str], readable: Iterable[str], *, starts_programs: bool = False
) -> None:
    """Level `write` or `full`. Raises OSError."""
    abi = _require(call(_LANDLOCK_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION), "this kernel has no Landlock")
    change = _CHANGE
    if abi >= 2:
        change |= _REFER
    if abi >= 3:
        change |= _TRUNCATE
    handled = change | (0 if starts_programs else _EXECUTE) | (_READ if wanted is Level.FULL else 0)
    if abi >= 5:
        handled |= _IOCTL_DEV
    ruleset = _require(call(_LANDLOCK_CREATE_RULESET, *_ruleset_attributes(abi, handled), 0), "a Landlock ruleset")
    try:
        rules = [(path, change | _READ) for path in writable] + [("/dev/null", _WRITE_FILE | _READ_FILE)]
        if wanted is Level.FULL:
            rules += [(path, _READ) for path in (*SYSTEM_READS, *python_paths(), *readable)]
        for path, access in rules:
            _allow(call, ruleset, path, access & handled)
        result = call(_LANDLOCK_RESTRICT_SELF, ruleset, _ALL_THREADS if abi >= ALL_THREADS_ABI else 0)
        _require(result, "the Landlock ruleset")
    finally:
        os.close(ruleset)


def _require(result: int, what: str) -> int:
    """The result of a call that must not fail. Raises OSError with `what` in it."""
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result).lower()}")
    return result


def _ruleset_attributes(abi: int, handled: int) -> tuple[bytes, int]:
    """struct landlock_ruleset_attr in the size that `abi` knows: handled_access_fs, handled_access_net, scoped."""
    members = [handled]
    if abi >= 4:
        members.append(_BIND_TCP)
    if abi >= 6:
        members.append(_SCOPES)
    return struct.pack(f"={len(members)}Q", *members), 8 * len(members)


def _allow(call: Syscall, ruleset: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not on this host: nothing to allow
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            return  # /proc/self/fd/5: open already, and no rule can name it
        if not stat.S_ISDIR(mode):
            access &= _ON_FILES
        if access:
            # struct landlock_path_beneath_attr is packed: u64 allowed_access, s32 parent_fd
            rule = struct.pack("=Qi", access, descriptor)
            _require(call(_LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0), f"rule for {path!r}")
    finally:
        os.close(descriptor)


def python_paths() -> tuple[str, ...]:
    """Where the imports that come late are found: the standard library, and this package, even in one file.

    Not `sys.path`: it may begin with the working directory, and that may be anything.
    """
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    while not os.path.exists(own):  # in a zipapp the path goes on inside the file
        own = os.path.dirname(own)
    return (own, os.path.dirname(os.__file__), sys.prefix, sys.base_prefix)

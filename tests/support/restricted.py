# SPDX-License-Identifier: Apache-2.0
"""Runs a command as a systemd unit with these restrictions would, where no systemd runs: `restricted.py JSON COMMAND…`.

Without capabilities and new privileges, with a file system that is read-only but for `writable`, and with the filter
of system calls that systemd makes of SystemCallFilter, RestrictAddressFamilies, RestrictNamespaces and
MemoryDenyWriteExecute, by the same libseccomp. To be started as root.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import subprocess
import sys

ALLOW = 0x7FFF0000
REFUSE = 0x00050000
NO_NEW_PRIVS, EMPTY_BOUNDING_SET = "--no-new-privs", "--bounding-set=-all"
MASKED_EQUAL, EQUAL = 7, 4  # enum scmp_compare
WRITE, EXECUTE = 2, 4  # PROT_WRITE, PROT_EXEC
NAMESPACES = 0x7E020080  # every CLONE_NEW… flag
# those whose arguments decide, and what each has to have: argument, mask, value
BY_ARGUMENT = {
    "mmap": ((2, WRITE | EXECUTE, 0), (2, WRITE | EXECUTE, WRITE), (2, WRITE | EXECUTE, EXECUTE)),
    "mprotect": ((2, EXECUTE, 0),),
    "pkey_mprotect": ((2, EXECUTE, 0),),
    "clone": ((0, NAMESPACES, 0),),
}
NEVER = ("clone3", "unshare", "setns", "personality")  # namespaces that a filter cannot see, and LockPersonality


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def load_filter(calls: list[str], families: list[str]) -> None:
    """Allow `calls`, and sockets of `families`; anything else fails."""
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    state = ctypes.c_void_p(library.seccomp_init(REFUSE | errno.EPERM))

    def add(name: str, action: int, *comparisons: tuple[int, int, int, int]) -> None:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            return  # of another architecture
        array = (Comparison * len(comparisons))(*(Comparison(*each) for each in comparisons))
        done = library.seccomp_rule_add_array(state, action, number, len(comparisons), array)
        if done < 0:
            raise OSError(-done, f"seccomp_rule_add_array {name}")

    for name in sorted(set(calls) - {"socket", *NEVER, *BY_ARGUMENT}):
        add(name, ALLOW)
    for name, wanted in BY_ARGUMENT.items():
        for argument, mask, value in wanted:
            add(name, ALLOW, (argument, MASKED_EQUAL, mask, value))
    for family in families:
        add("socket", ALLOW, (0, EQUAL, getattr(socket, family), 0))
    add("clone3", REFUSE | errno.ENOSYS)  # so that the C library takes clone
    done = library.seccomp_load(state)
    if done < 0:
        raise OSError(-done, "seccomp_load")


def main() -> None:
    settings, *command = sys.argv[1:]
    wanted = json.loads(settings)
    if "inner" in wanted:
        load_filter(wanted["calls"], wanted["families"])
        os.execvp(command[0], command)
    mounts = [["mount", "--make-rprivate", "/"], *(["mount", "--bind", path, path] for path in wanted["writable"])]
    for mount in [*mounts, ["mount", "-o", "remount,bind,ro", "/"]]:
        subprocess.run(mount, check=True)
    inner = json.dumps({**wanted, "inner": True})
    again = [sys.executable, "-I", __file__, inner, *command]
    os.execvp("setpriv", ["setpriv", NO_NEW_PRIVS, EMPTY_BOUNDING_SET, "--inh-caps=-all", *again])


if __name__ == "__main__":
    main()

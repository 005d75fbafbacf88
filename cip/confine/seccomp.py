# SPDX-License-Identifier: Apache-2.0
"""Refuses the system calls that Landlock does not know, to all threads at once (seccomp(2)).

What changes a file without opening it for writing (modes, owners, times, extended attributes), what tells of files
that may not be read (watches, leases, the log of the kernel), what reaches other processes (tracing, signals, be it
through the owner of a descriptor, unix sockets by path, shared memory and queues, their limits and priorities), what
listens (a socket without an address gets one by that, and Landlock knows of addresses alone), what starts a program, a
process, which could outlive this one, or a namespace, what root may do to the machine, and io_uring, whose operations
no filter sees. Calls of a foreign architecture would pass under other numbers, so none is let through. New sockets are
TCP's and UDP's, the one that tells the C library which addresses this host has, and of the unix family where something
needs one; of pairs only connected kinds are made, because a datagram one can be sent anywhere.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

Syscall = Callable[..., int]  # (number, arguments…) → result; negative: the errno

_SET_MODE_FILTER = 1
_TSYNC = 1  # linux/seccomp.h: SECCOMP_FILTER_FLAG_TSYNC
_ALLOW, _REFUSE, _UNKNOWN = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
# linux/bpf_common.h; offsets into struct seccomp_data
_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_X32 = 0x40000000  # what x86-64 adds to the numbers of its second, rarer table
_UNIX, _CONNECTED_KINDS, _KIND_MASK = 1, (1, 5), 0xF  # AF_UNIX; SOCK_STREAM, SOCK_SEQPACKET
# AF_INET, AF_INET6; SOCK_STREAM, SOCK_DGRAM; IPPROTO_IP, …TCP, …UDP, …MPTCP; AF_NETLINK, NETLINK_ROUTE
_INTERNET, _KINDS, _PROTOCOLS, _NETLINK, _ROUTE = (2, 10), (1, 2), (0, 6, 17, 262), 16, 0
# linux/sched.h: CLONE_THREAD, CLONE_NEWNS, …CGROUP, …UTS, …IPC, …USER, …PID, …NET
_THREAD, _NAMESPACES = 0x10000, 0x7E020000
_CLONE3 = 435  # its flags lie where no filter looks; the C library goes on with clone
# asm-generic/ioctls.h, sockios.h: input of a terminal; what makes it signal others; whom a descriptor sends signals
_IOCTLS = (0x5412, 0x541C, 0x5410, 0x5414, 0x5422, 0x8901, 0x8902)
_FCNTLS = (8, 10, 15, 1024, 1026)  # F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY
# Types of requests to file systems (linux/fs.h, btrfs.h, f2fs.h, msdos_fs.h): a file that is only read gets flags,
# attributes or verity by them, and a directory subvolumes.
_IOCTL_TYPES, _TYPE_MASK = (0x6600, 0x5800, 0x7600, 0x9400, 0xF500, 0x7200), 0xFF00

# What is refused whatever its arguments are, by its number on x86-64 and on aarch64, which lacks the older ones.
_CALLS: Sequence[Mapping[str, tuple[int, int | None]]] = (
    {"chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53)},  # modes
    {"chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54)},  # owners
    {"utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88)},  # times
    {"setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7)},  # extended attributes
    {"removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16)},  # the same
    {"ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271)},  # the memory of others
    {"migrate_pages": (256, 238), "move_pages": (279, 239), "kcmp": (312, 272)},  # pages of others
    {"execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None)},  # programs, processes
    {"setpgid": (109, 154), "setsid": (112, 157)},  # groups that a terminal signals
    {"tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240)},  # signals
    {"inotify_init": (253, None), "inotify_init1": (294, 26), "inotify_add_watch": (254, 27)},  # watches
    {"fanotify_init": (300, 262), "fanotify_mark": (301, 263), "syslog": (103, 116)},  # watches, log
    {"mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51)},  # the tree of files
    {"unshare": (272, 97), "setns": (308, 268), "open_by_handle_at": (304, 265)},  # namespaces, files by handle
    {"bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282)},  # the kernel's own tools
    {"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219)},  # keys
    {"init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106)},  # modules
    {"kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142)},  # another system
    {"swapon": (167, 224), "settimeofday": (164, 170), "clock_settime": (227, 112), "acct": (163, 89)},  # the machine
    {"iopl": (172, None), "ioperm": (173, None), "listen": (50, 201)},  # ports, sockets that listen
    {"shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195)},  # shared memory
    {"semget": (64, 190), "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192)},  # semaphores
    {"msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187)},  # queues
    {"mq_open": (240, 180), "mq_unlink": (241, 181)},  # queues of the other kind
    {"setpriority": (141, 140), "ioprio_set": (251, 30)},  # priorities
    {"sched_setparam": (142, 118), "sched_setscheduler": (144, 119)},  # scheduling
    {"sched_setaffinity": (203, 122), "sched_setattr": (314, 274)},  # the same
)
# The same numbers everywhere, from 424 on
_COMMON = (
    {"open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433}
    | {"mount_setattr": 442, "fchmodat2": 452, "setxattrat": 463, "removexattrat": 466, "file_setattr": 469}
    | {
        "pidfd_send_signal": 424,
        "pidfd_getfd": 438,
        "io_uring_setup": 425,
        "process_madvise": 440,
        "process_mrelease": 448,
    }
)
_STARTING = ("execve", "execveat", "fork", "vfork", "setsid")


class _Machine(NamedTuple):
    """An architecture: its number in a filter, its column in _CALLS, the numbers of seccomp and of calls to be judged.

    `pair` is socketpair, `signals` are those whose first argument is the process that gets one.
    """

    audit: int
    column: int
    seccomp: int
    socket: int
    pair: int
    ioctl: int
    limit: int
    clone: int
    fcntl: int
    signals: Sequence[int]

    @property
    def refused(self) -> Mapping[str, int]:
        """The calls that are refused whatever their arguments are."""
        numbers = ((name, each[self.column]) for group in _CALLS for name, each in group.items())
        return {name: number for name, number in numbers if number is not None} | _COMMON


_MACHINES: Mapping[str, _Machine] = {
    "x86_64": _Machine(
        0xC000003E, 0, seccomp=317, socket=41, pair=53, ioctl=16, limit=302, clone=56, fcntl=72, signals=(62, 234)
    ),
    "aarch64": _Machine(
        0xC00000B7, 1, seccomp=277, socket=198, pair=199, ioctl=29, limit=261, clone=220, fcntl=25, signals=(129, 131)
    ),
}


def refuse_calls(
    call: Syscall, *, unix_sockets: bool, starts_programs: bool = False, machine: str | None = None
) -> None:
    """Refuse the calls from now on, in every thread. Raises OSError where that cannot be had.

    With `unix_sockets` new sockets of the unix family stay allowed. What `starts_programs` may do that, send them
    signals, and needs no new socket of any family.
    """
    import ctypes

    known = _MACHINES.get(machine or os.uname().machine)
    if known is None or struct.calcsize("P") != 8:
        raise OSError(errno.ENOSYS, f"no list of calls for {machine or os.uname().machine}")
    steps = program(known, unix_sockets=unix_sockets, starts_programs=starts_programs)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    result = call(known.seccomp, _SET_MODE_FILTER, _TSYNC, struct.pack("@HP", len(steps), ctypes.addressof(code)))
    if result:  # above 0: the number of a thread that could not be included
        raise OSError(
            abs(result), os.strerror(-result).lower() if result < 0 else f"thread {result} could not be included"
        )


def program(
    machine: _Machine, *, unix_sockets: bool, starts_programs: bool = False
) -> Sequence[tuple[int, int, int, int]]:
    """The filter: (code, steps to skip if true, if false, value)."""
    steps = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, machine.audit), (_RETURN, 0, 0, _UNKNOWN)]
    steps += [(_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _UNKNOWN)]
    for name, number in machine.refused.items():
        if starts_programs and name in _STARTING:
            continue
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    steps += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _UNKNOWN)]
    requests = [*_refuse_any(_IOCTLS), (_AND, 0, 0, _TYPE_MASK), *_refuse_any(_IOCTL_TYPES)]
    steps += _case(machine.ioctl, [(_LOAD, 0, 0, _ARGUMENTS + 8), *requests])
    steps += _case(machine.fcntl, [(_LOAD, 0, 0, _ARGUMENTS + 8), *_refuse_any(_FCNTLS)])
    # only of the caller itself: number 0, as the C library has it
    steps += _case(machine.limit, _one_of(0, [0]))
    if starts_programs:
        steps += [(_EQUAL, 0, 1, machine.socket), (_RETURN, 0, 0, _REFUSE)]
        steps += _case(machine.clone, _one_of(0, [0], _NAMESPACES))
    else:
        netlink = [*_one_of(2, [_ROUTE]), (_RETURN, 0, 0, _ALLOW)]
        families = _one_of(0, [*_INTERNET, _UNIX] if unix_sockets else _INTERNET)
        kinds = [*families, *_one_of(1, _KINDS, _KIND_MASK), *_one_of(2, _PROTOCOLS)]
        first = [(_LOAD, 0, 0, _ARGUMENTS), (_EQUAL, 0, len(netlink), _NETLINK)]
        steps += _case(machine.socket, [*first, *netlink, *kinds])
        steps += _case(machine.clone, _one_of(0, [_THREAD], _THREAD | _NAMESPACES))
        for number in machine.signals:
            steps += _case(number, _one_of(0, [os.getpid()]))
    steps += _case(machine.pair, [*_one_of(0, [_UNIX]), *_one_of(1, _CONNECTED_KINDS, _KIND_MASK)])
    return [*steps, (_RETURN, 0, 0, _ALLOW)]


def _case(number: int, steps: Sequence[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Take `steps` for the call `number`; what they do not refuse is allowed."""
    return [(_EQUAL, 0, len(steps) + 1, number), *steps, (_RETURN, 0, 0, _ALLOW)]


def _refuse_any(values: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Refuse what was loaded if it is one of `values`."""
    return [step for value in values for step in ((_EQUAL, 0, 1, value), (_RETURN, 0, 0, _REFUSE))]


def _one_of(argument: int, values: Sequence[int], mask: int = 0xFFFFFFFF) -> list[tuple[int, int, int, int]]:
    """Refuse unless the argument of this number, as far as `mask` covers it, is one of `values`."""
    judged = [(_EQUAL, len(values) - index, 0, value) for index, value in enumerate(values)]
    return [(_LOAD, 0, 0, _ARGUMENTS + 8 * argument), (_AND, 0, 0, mask), *judged, (_RETURN, 0, 0, _REFUSE)]

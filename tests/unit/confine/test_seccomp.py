# SPDX-License-Identifier: Apache-2.0
"""The filter of system calls, run on calls that are played: for each architecture, also on a machine of the other."""

from __future__ import annotations

import errno
import os
import unittest

from cip.confine.seccomp import _ALLOW, _IOCTLS, _MACHINES, _REFUSE, _UNKNOWN, _Machine, program, refuse_calls

UNIX, INET, STREAM, DATAGRAM, RAW, SEQPACKET, CLOSE_ON_EXEC = 1, 2, 1, 2, 3, 5, 0o2000000
# what our own work needs, by the numbers of each architecture
NEEDED = {
    "x86_64": {"read": 0, "write": 1, "mmap": 9, "sendmsg": 46, "connect": 42, "futex": 202},
    "aarch64": {"read": 63, "write": 64, "mmap": 222, "sendmsg": 211, "connect": 203, "futex": 98},
}


def judge(
    machine: _Machine,
    number: int,
    *arguments: int,
    audit: int | None = None,
    unix_sockets: bool = False,
    starts_programs: bool = False,
) -> int:
    """What the filter returns for a call: an interpreter for the few instructions that it has."""
    data = {0: number, 4: machine.audit if audit is None else audit}
    data |= {16 + 8 * index: value & 0xFFFFFFFF for index, value in enumerate(arguments)}
    steps = program(machine, unix_sockets=unix_sockets, starts_programs=starts_programs)
    accumulator = position = 0
    while True:
        code, if_true, if_false, value = steps[position]
        position += 1
        match code:
            case 0x20:
                accumulator = data.get(value, 0)
            case 0x54:
                accumulator &= value
            case 0x15:
                position += if_true if accumulator == value else if_false
            case 0x35:
                position += if_true if accumulator >= value else if_false
            case 0x06:
                return value
            case _:
                raise AssertionError(code)


class Filter(unittest.TestCase):
    def test_refused_and_needed_calls(self) -> None:
        for name, machine in _MACHINES.items():
            for call, number in machine.refused.items():
                with self.subTest(machine=name, call=call):
                    self.assertEqual(judge(machine, number), _REFUSE)
            for call, number in NEEDED[name].items():
                with self.subTest(machine=name, call=call):
                    self.assertEqual(judge(machine, number), _ALLOW)

    def test_a_foreign_architecture_is_unknown(self) -> None:
        for machine in _MACHINES.values():
            for number in (*machine.refused.values(), *range(10)):
                self.assertEqual(judge(machine, number, audit=0x40000003), _UNKNOWN)
                self.assertEqual(judge(machine, number | 0x40000000), _UNKNOWN)

    def test_sockets_by_family_and_kind(self) -> None:
        for machine in _MACHINES.values():
            self.assertEqual(judge(machine, machine.socket, INET, STREAM), _ALLOW)
            self.assertEqual(judge(machine, machine.socket, UNIX, STREAM), _REFUSE)
            self.assertEqual(judge(machine, machine.socket, 1 << 32 | UNIX, STREAM), _REFUSE)
            self.assertEqual(judge(machine, machine.socket, UNIX, STREAM, unix_sockets=True), _ALLOW)
            for family in (INET, 10):
                for kind, protocol in ((STREAM, 0), (STREAM, 6), (DATAGRAM, 17)):
                    self.assertEqual(judge(machine, machine.socket, family, kind | CLOSE_ON_EXEC, protocol), _ALLOW)
                for kind, protocol in ((RAW, 6), (DATAGRAM, 1), (STREAM, 132), (SEQPACKET, 0)):
                    self.assertEqual(judge(machine, machine.socket, family, kind, protocol), _REFUSE)
            self.assertEqual(judge(machine, machine.socket, 16, RAW, 0), _ALLOW)  # which addresses this host has
            for family, kind, protocol in ((16, RAW, 9), (17, RAW, 0), (38, SEQPACKET, 0), (40, STREAM, 0)):
                self.assertEqual(judge(machine, machine.socket, family, kind, protocol), _REFUSE)
            for kind, expected in ((STREAM, _ALLOW), (SEQPACKET, _ALLOW), (DATAGRAM, _REFUSE), (RAW, _REFUSE)):
                self.assertEqual(judge(machine, machine.pair, UNIX, kind | CLOSE_ON_EXEC), expected)

    def test_what_starts_programs_may_do_that_and_makes_no_socket(self) -> None:
        for machine in _MACHINES.values():
            for call, number in machine.refused.items():
                expected = _ALLOW if call in ("execve", "execveat", "fork", "vfork", "setsid") else _REFUSE
                self.assertEqual(judge(machine, number, starts_programs=True), expected, call)
            for family in (UNIX, INET, 16):
                self.assertEqual(judge(machine, machine.socket, family, STREAM, starts_programs=True), _REFUSE)

    def test_requests_to_a_file_that_is_only_read(self) -> None:
        for machine in _MACHINES.values():
            # flags, attributes and version; verity; a subvolume of btrfs, made and removed
            for request in (
                *_IOCTLS,
                0x40086602,
                0x401C5820,
                0x40087602,
                0x40806685,
                0x5000940E,
                0x5000940F,
                0x40047211,
            ):
                self.assertEqual(judge(machine, machine.ioctl, 3, request), _REFUSE)
                self.assertEqual(judge(machine, machine.ioctl, 3, 1 << 32 | request), _REFUSE)
            for request in (0x541B, 0x5421, 0x5401, 0x5413):  # FIONREAD, FIONBIO, TCGETS, TIOCGWINSZ
                self.assertEqual(judge(machine, machine.ioctl, 3, request), _ALLOW)

    def test_threads_are_started_and_neither_processes_nor_namespaces(self) -> None:
        thread, process, user = 0x3D0F00, 17, 0x10000011
        for machine in _MACHINES.values():
            for flags, proxy, helper in (
                (thread, _ALLOW, _ALLOW),
                (process, _REFUSE, _ALLOW),
                (user, _REFUSE, _REFUSE),
            ):
                self.assertEqual(judge(machine, machine.clone, flags), proxy)
                self.assertEqual(judge(machine, machine.clone, flags, starts_programs=True), helper)
            for programs in (False, True):  # the C library goes on with clone then
                self.assertEqual(judge(machine, 435, 0, 88, starts_programs=programs), _UNKNOWN)
            self.assertEqual(judge(machine, machine.clone, thread | 0x40000000), _REFUSE)

    def test_signals_go_to_the_caller_alone(self) -> None:
        for machine in _MACHINES.values():
            for number in machine.signals:
                self.assertEqual(judge(machine, number, os.getpid(), 15), _ALLOW)
                for other in (0, -1, os.getppid(), -os.getpid()):
                    self.assertEqual(judge(machine, number, other, 9), _REFUSE)
                self.assertEqual(judge(machine, number, -4711, 9, starts_programs=True), _ALLOW)
            for command in (8, 10, 15, 1024, 1026):
                self.assertEqual(judge(machine, machine.fcntl, 3, command), _REFUSE)
            for command in (0, 1, 2, 3, 4, 6, 1030, 1031):
                self.assertEqual(judge(machine, machine.fcntl, 3, command), _ALLOW)

    def test_limits_are_those_of_the_caller(self) -> None:
        """One second of processor time ended any other process of the user."""
        for machine in _MACHINES.values():
            self.assertEqual(judge(machine, machine.limit, 0, 4), _ALLOW)
            self.assertEqual(judge(machine, machine.limit, 4711, 0), _REFUSE)

    def test_an_unknown_machine_and_a_kernel_without_filters_are_told(self) -> None:
        with self.assertRaisesRegex(OSError, "no list of calls for riscv64"):
            refuse_calls(lambda *_: 0, unix_sockets=False, machine="riscv64")
        with self.assertRaisesRegex(OSError, "invalid argument"):
            refuse_calls(lambda *_: -errno.EINVAL, unix_sockets=False, machine="x86_64")
        with self.assertRaisesRegex(OSError, "thread 77 could not be included"):
            refuse_calls(lambda *_: 77, unix_sockets=False, machine="aarch64")


if __name__ == "__main__":
    unittest.main()

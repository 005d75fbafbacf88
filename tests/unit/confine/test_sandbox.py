# SPDX-License-Identifier: Apache-2.0
"""Confinement: what is asked of which kernel, and that a confined process cannot get out."""

from __future__ import annotations

import errno
import os
import sys
import unittest
from unittest import mock

import cip
from cip.confine import sandbox
from cip.confine.sandbox import Level, confine, parse_level

_CREATE, _ADD, _RESTRICT, _PRCTL, _CAPGET, _CAPSET = 444, 445, 446, -1, -2, -3


class _Kernel:
    """Answers as a kernel of the given Landlock ABI would; 0 has none."""

    def __init__(self, abi: int, **failures: int) -> None:
        self.abi = abi
        self.failures = failures
        self.attributes = b""
        self.rules: list[int] = []
        self.prctls: list[int] = []
        self.restricted = False
        self.flags = -1

    def __call__(self, number: int, *arguments: object) -> int:
        if number == _PRCTL:
            self.prctls.append(arguments[0])  # type: ignore[arg-type]
            return -self.failures.get("prctl", 0)
        if number == _CAPGET:
            arguments[1][0] = self.failures.get("held", 0)  # type: ignore[index]
            return -self.failures.get("capabilities", 0)
        if number == _CAPSET:
            return -self.failures.get("capset", 0)
        if number == _CREATE:
            if arguments[0] is None:
                return self.abi or -errno.ENOSYS
            self.attributes = arguments[0]  # type: ignore[assignment]
            return os.open(os.devnull, os.O_RDONLY)
        if number == _ADD:
            self.rules.append(int.from_bytes(arguments[2][:8], sys.byteorder))  # type: ignore[index]
            return -self.failures.get("add", 0)
        if number != _RESTRICT:  # seccomp, whose number depends on the architecture
            return -self.failures.get("seccomp", 0)
        self.flags = arguments[1]  # type: ignore[assignment]
        self.restricted = not self.failures.get("restrict")
        return -self.failures.get("restrict", 0)

    def handled(self) -> int:
        return int.from_bytes(self.attributes[:8], sys.byteorder)


class Requests(unittest.TestCase):
    def setUp(self) -> None:
        self.said: list[str] = []
        patched = mock.patch("resource.setrlimit")
        patched.start()
        self.addCleanup(patched.stop)
        import ctypes

        ctypes.CFUNCTYPE(None)(lambda: None)
        self.descriptors = len(os.listdir("/proc/self/fd"))

    def tearDown(self) -> None:
        self.assertEqual(len(os.listdir("/proc/self/fd")), self.descriptors)

    def run_on(self, kernel: _Kernel, level: Level) -> Level:
        return confine(
            level, writable=["/tmp"], readable=["/etc/hosts", "/missing"], syscall=kernel, warn=self.said.append
        )

    def test_none_asks_nothing(self) -> None:
        kernel = _Kernel(7)
        self.assertIs(self.run_on(kernel, Level.NONE), Level.NONE)
        self.assertEqual(kernel.prctls, [])

    def test_a_kernel_without_landlock_reaches_process(self) -> None:
        self.assertIs(self.run_on(_Kernel(0), Level.FULL), Level.PROCESS)
        (said,) = self.said
        self.assertIn("files stay open to this process: this kernel has no Landlock: function not implemented", said)

    def test_who_holds_no_capability_needs_none_taken(self) -> None:
        for held, said in ((0, 0), (1 << 21, 1)):  # CAP_SYS_ADMIN
            self.said.clear()
            self.assertIs(self.run_on(_Kernel(7, held=held, capset=errno.EPERM), Level.WRITE), Level.WRITE)
            self.assertEqual(len(self.said), said, self.said)

    def test_each_abi_is_asked_for_what_it_knows(self) -> None:
        for abi, size in ((1, 8), (2, 8), (3, 8), (4, 16), (5, 16), (6, 24), (7, 24), (9, 24)):
            with self.subTest(abi=abi):
                kernel = _Kernel(abi)
                self.assertIs(self.run_on(kernel, Level.FULL), Level.FULL)
                self.assertEqual(len(kernel.attributes), size)
                self.assertEqual(bool(kernel.handled() & 1 << 13), abi >= 2)
                self.assertEqual(bool(kernel.handled() & 1 << 14), abi >= 3)
                self.assertTrue(kernel.restricted)
                self.assertEqual(kernel.flags, 8 if abi >= 8 else 0)  # from 8 on for every thread
                self.assertEqual(self.said, [])

    def test_write_leaves_reading_alone_and_full_does_not(self) -> None:
        for level, reads in ((Level.WRITE, False), (Level.FULL, True)):
            kernel = _Kernel(7)
            self.assertIs(self.run_on(kernel, level), level)
            self.assertEqual(bool(kernel.handled() & 1 << 2), reads)

    def test_no_rule_allows_more_than_is_handled(self) -> None:
        kernel = _Kernel(1)
        self.run_on(kernel, Level.FULL)
        for access in kernel.rules:
            self.assertEqual(access & ~kernel.handled(), 0)

    def test_a_step_that_fails_ends_at_the_level_before(self) -> None:
        for step, reached, reason in (
            ("prctl", Level.NONE, "sandbox: prctl 4: operation not permitted"),
            ("capabilities", Level.FULL, "sandbox: what root may do stays open to it: capget: operation not permitted"),
            ("add", Level.PROCESS, "sandbox: files stay open to this process: rule for '/tmp': operation not"),
            ("seccomp", Level.FULL, "sandbox: modes, owners and times of files, new processes and sockets stay open"),
            ("restrict", Level.PROCESS, "sandbox: files stay open to this process: the Landlock ruleset: operation"),
        ):
            with self.subTest(step):
                self.said.clear()
                self.assertIs(self.run_on(_Kernel(7, **{step: errno.EPERM}), Level.FULL), reached)
                self.assertEqual(len(self.said), 1)
                self.assertTrue(self.said[0].startswith(reason), self.said)

    def test_the_working_directory_is_not_where_late_imports_come_from(self) -> None:
        with mock.patch.object(sys, "path", ["/srv/anything", *sys.path]):
            self.assertNotIn("/srv/anything", sandbox.python_paths())
        self.assertIn(os.path.dirname(cip.__file__), sandbox.python_paths(), "the whole package, not one room")

    def test_where_private_keys_are_kept_is_not_readable(self) -> None:
        for path in ("/etc/ssl/private/server.key", "/etc/pki/tls/private/localhost.key", "/etc/pki/CA/private/ca.key"):
            readable = [place for place in sandbox.SYSTEM_READS if f"{path}/".startswith(f"{place}/")]
            self.assertEqual(readable, [], path)

    def test_levels_are_named(self) -> None:
        self.assertIs(parse_level("write"), Level.WRITE)


if __name__ == "__main__":
    unittest.main()

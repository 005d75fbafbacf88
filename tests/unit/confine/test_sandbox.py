# SPDX-License-Identifier: Apache-2.0
"""Confinement: what is asked of which kernel, and that a confined process cannot get out."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys
import tempfile
import textwrap
import unittest
from unittest import mock

import cip
from cip.confine import sandbox
from cip.confine.sandbox import Level, confine, parse_level
from cip.confine.seccomp import _COMMON

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
        if number in (_CAPGET, _CAPSET):
            return -self.failures.get("capabilities", 0)
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
        self.assertIn("files stay open to this process: this kernel has no Landlock: Function not implemented", said)

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
            ("prctl", Level.NONE, "sandbox: prctl 4: Operation not permitted"),
            ("capabilities", Level.FULL, "sandbox: what root may do stays open to it: capget: Operation not permitted"),
            ("add", Level.PROCESS, "sandbox: files stay open to this process: rule for '/tmp': Operation not"),
            ("seccomp", Level.FULL, "sandbox: modes, owners and times of files, new processes and sockets stay open"),
            ("restrict", Level.PROCESS, "sandbox: files stay open to this process: the Landlock ruleset: Operation"),
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


class Escapes(unittest.TestCase):
    """A real child confines itself and then tries to get out."""

    def escape(self, level: str, attempt: str, before: str = "") -> str:
        with tempfile.TemporaryDirectory() as allowed, tempfile.TemporaryDirectory() as outside:
            script = textwrap.dedent(
                f"""
                import errno, os, socket, subprocess, sys
                sys.path.insert(0, {os.getcwd()!r})
                from cip import log
                from cip.confine import sandbox
                log.set_threshold(log.Level.SILENT)
                allowed, outside = {allowed!r}, {outside!r}
                open(outside + "/secret", "w").write("x")
                {before}
                reached = sandbox.confine(sandbox.parse_level({level!r}), writable=[allowed], readable=[])
                if reached < sandbox.parse_level({level!r}):
                    print("unreached")
                    sys.exit()
                try:
                    result = {attempt}
                except OSError as error:
                    print(errno.errorcode[error.errno])
                else:
                    print("done")
                """
            )
            child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
            self.assertEqual(child.stderr, "")
            return child.stdout.strip()

    def test_write_keeps_the_file_system_as_it_is(self) -> None:
        if self.escape("write", "None") == "unreached":
            self.assertLess(sandbox._kernel()(444, None, 0, 1), 1, "Landlock is there, but was not used")
            return
        for attempt in (
            "open(outside + '/new', 'w')",
            "open(outside + '/secret', 'a')",
            "os.unlink(outside + '/secret')",
            "os.rename(outside + '/secret', outside + '/other')",
            "os.mkdir(outside + '/d')",
            "os.symlink('a', outside + '/l')",
            "os.link(outside + '/secret', allowed + '/hard')",
            "subprocess.run(['touch', outside + '/new'], check=False, stderr=subprocess.DEVNULL).returncode == 1"
            " and open(outside + '/new', 'w')",
            "socket.create_server(('127.0.0.1', 0))",
        ):
            with self.subTest(attempt):
                self.assertIn(self.escape("write", attempt), ("EACCES", "EXDEV", "EPERM"))

    def test_write_allows_the_temporary_directory_and_reading(self) -> None:
        self.assertIn(self.escape("write", "open(allowed + '/new', 'w')"), ("done", "unreached"))
        self.assertIn(self.escape("write", "open(outside + '/secret')"), ("done", "unreached"))
        self.assertIn(self.escape("write", "os.open(allowed, os.O_TMPFILE | os.O_RDWR)"), ("done", "unreached"))

    def test_full_reads_only_what_the_system_needs(self) -> None:
        for attempt in (
            "open(outside + '/secret')",
            "open('/etc/shadow')",
            "os.listdir(outside)",
            "open('/proc/self/environ')",
        ):
            with self.subTest(attempt):
                self.assertIn(self.escape("full", attempt), ("EACCES", "unreached"))
        attempts = ["open('/etc/passwd')", "__import__('email.message')"]
        if os.path.exists("/etc/hosts"):  # a bare build root has none
            attempts += ["open('/etc/hosts')", "socket.getaddrinfo('localhost', 1)"]
        for attempt in attempts:
            with self.subTest(attempt):
                self.assertIn(self.escape("full", attempt), ("done", "unreached"))

    def test_calls_that_landlock_does_not_know_are_refused(self) -> None:
        secret = "outside + '/secret'"
        for attempt in (
            f"os.chmod({secret}, 0o777)",
            f"os.chown({secret}, 1, 1)",
            f"os.utime({secret})",
            f"os.setxattr({secret}, 'user.a', b'1')",
            f"os.fchmod(os.open({secret}, os.O_RDONLY), 0o777)",
            f"os.utime(os.open({secret}, os.O_RDONLY))",
            f"__import__('fcntl').ioctl(os.open({secret}, os.O_RDONLY), 0x40086602, bytes(8))",
            "os.execv('/bin/true', ['true'])",
            "os.posix_spawn('/bin/true', ['true'], {})",
            "socket.socket(socket.AF_UNIX)",
            "socket.socketpair(type=socket.SOCK_DGRAM)",
            "socket.socketpair(type=socket.SOCK_RAW)",
            "socket.socket().listen()",
            "__import__('resource').prlimit(os.getppid(), 0)",
            "os.sched_setaffinity(os.getppid(), {0})",
            "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
            "os.fork()",
            "os.kill(os.getppid(), 0)",
            "os.kill(-1, 0)",
            "socket.socket(type=socket.SOCK_RAW, proto=6)",
            "socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1)",
            "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)",
            "socket.socket(40, socket.SOCK_STREAM)",
            "socket.socket().setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 1)",
            "__import__('fcntl').fcntl(0, __import__('fcntl').F_SETOWN, os.getppid())",
            "__import__('fcntl').ioctl(socket.socket(), 0x8901, os.getppid().to_bytes(4, sys.byteorder))",
            *(f"sandbox._require(sandbox._kernel()({number}, 0, 0, 0, 0, 0), '')" for number in _COMMON.values()),
        ):
            with self.subTest(attempt):
                self.assertIn(self.escape("process", attempt), ("EPERM", "EACCES"))

    def test_calls_that_are_needed_are_made(self) -> None:
        for attempt in (
            "socket.socketpair()",
            "socket.socketpair(type=socket.SOCK_SEQPACKET)",
            "socket.socket()",
            "socket.getaddrinfo('localhost', 1)",
            "__import__('threading').Thread(target=print).start()",
            "os.memfd_create('x')",
            "os.pipe()",
            "os.kill(os.getpid(), 0)",
            "__import__('signal').pthread_kill(__import__('threading').get_ident(), 0)",
            "socket.socket(type=socket.SOCK_DGRAM)",
            "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
            "__import__('resource').getrlimit(4)",
        ):
            with self.subTest(attempt):
                self.assertTrue(self.escape("process", attempt).endswith("done"))

    def test_every_thread_is_included(self) -> None:
        attempt = (
            "[line.split()[1] for task in os.listdir('/proc/self/task')"
            " for line in open(f'/proc/self/task/{task}/status')"
            " if line.startswith(('Seccomp:', 'NoNewPrivs:'))]"
        )
        before = "threading = __import__('threading'); go_on = threading.Event(); "
        before += "threading.Thread(target=go_on.wait, daemon=True).start()"
        self.assertEqual(self.escape("process", f"sys.exit(print({attempt}))", before), "['1', '2', '1', '2']")

    def test_what_root_may_do_is_given_up(self) -> None:
        attempt = (
            "sys.exit(print([int(line.split()[1], 16) & ~0xE for line in open('/proc/self/status')"
            " if line.startswith(('CapPrm', 'CapEff', 'CapInh'))]))"
        )
        self.assertEqual(self.escape("process", attempt), "[0, 0, 0]")

    def test_programs_of_root_do_not_have_it_again(self) -> None:
        script = "import subprocess; from cip.confine.sandbox import confine_programs; confine_programs();"
        script += "subprocess.run(['grep', 'CapPrm', '/proc/self/status'])"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        self.assertEqual((done.stdout.split(), done.stderr), (["CapPrm:", "0" * 16], ""))

    def test_a_device_is_not_asked(self) -> None:
        attempt = "__import__('fcntl').ioctl(os.open('/dev/ptmx', os.O_RDONLY | os.O_NOCTTY), 0x5413, bytes(8))"
        if sandbox._kernel()(444, None, 0, 1) < 5:
            self.skipTest("needs Landlock ABI 5")
        self.assertEqual(self.escape("write", attempt), "EACCES")

    def test_calls_of_a_foreign_architecture_are_refused(self) -> None:
        if platform.machine() != "x86_64":
            self.skipTest("only x86-64 has another architecture's calls")
        # getpid by the numbers of i386: push rbx; mov eax, 20; int 0x80; pop rbx; ret
        code = bytes.fromhex("53b814000000cd805bc3")
        attempt = (
            f"(lambda page: (page.write({code!r}), sys.exit(print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof("
            "ctypes.c_char.from_buffer(page)))()))))(mmap.mmap(-1, 4096, prot=7))"
        )
        before = "import ctypes, mmap"
        self.assertEqual(self.escape("process", attempt, before), str(-errno.ENOSYS))

    def test_process_takes_privileges_and_core_dumps(self) -> None:
        attempt = (
            "sys.exit(print([line.split()[1] for line in open('/proc/self/status') if 'NoNewPrivs' in line][0],"
            " __import__('resource').getrlimit(4)[0]))"
        )
        self.assertEqual(self.escape("process", attempt), "1 0")


if __name__ == "__main__":
    unittest.main()

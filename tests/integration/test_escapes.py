# SPDX-License-Identifier: Apache-2.0
"""A confined process cannot get out: a real child confines itself and then tries."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys
import tempfile
import textwrap
import unittest

from cip.confine import sandbox
from cip.confine.seccomp import _COMMON


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

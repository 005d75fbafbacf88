# SPDX-License-Identifier: Apache-2.0
"""The helper process: the same results as running directly, its three requests, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

from cip.confine import remote
from cip.confine.confinement import HelperPrograms
from cip.confine.helper import AT_ONCE
from cip.content import start_timer, timed
from cip.errors import CipError, ErrorCode, MissingDependencyError, SourceError
from cip.programs import DirectPrograms
from tests.support.leaks import LeakCheckedTestCase
from tests.support.parent import PATIENCE, ROOT
from tests.support.peers import require_peer

SCRIPTS = {
    "docker-credential-echo": 'read line; printf "%s|%s|%s" "$1" "$line" "$MARK"',
    "docker-credential-fail": "echo no; echo 'locked \u00e9' >&2; exit 3",
    "docker-credential-slow": 'echo $$ >"$MARK"; sleep 600',
    "docker-credential-alone": 'echo $$ >"$MARK"; exec sleep 600',
    "docker-credential-loud": "head -c 3000000 /dev/zero",
    "docker-credential-big": "head -c 900000 /dev/zero",
    "docker-credential-other": "echo other",
}
NAMED = ("echo", "fail", "slow", "alone", "loud", "big", "none")


class HelperTestCase(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        for name, body in SCRIPTS.items():
            path = self.directory / name
            path.write_text(f"#!/bin/sh\n{body}\n")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        self.mark = self.directory / "mark"
        self.programs = HelperPrograms({"PATH": f"{self.directory}:/usr/bin:/bin", "MARK": str(self.mark)})
        self.addCleanup(self.programs.close)

    def start(self) -> None:
        self.programs.confine(needed=True, helpers=NAMED)

    def credentials(self, helper: str, registry: str = "r.example") -> tuple[int, bytes]:
        return self.programs.credentials(helper, registry, purpose="test")[:2]

    def slow_program(self) -> int:
        """The number of the helper's process once it runs."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with contextlib.suppress(OSError, ValueError):
                return int(self.mark.read_text())
            time.sleep(0.01)
        self.fail("the helper does not run")

    def stop(self, pid: int) -> None:
        """Stop it, and wait until all its threads are: the kernel continues none that only will be."""
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(self.go_on, pid)
        until = time.monotonic() + PATIENCE
        while not all("\nState:\tT" in each.read_text() for each in Path("/proc").glob(f"{pid}/task/*/status")):
            self.assertLess(time.monotonic(), until, "it does not stop")
            time.sleep(0.01)

    def go_on(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def assert_gone(self, pid: int) -> None:
        """It has ended, and so have its children."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                os.killpg(pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.01)
        self.fail("the program goes on")


class Requests(HelperTestCase):
    def test_results_are_those_of_running_directly(self) -> None:
        require_peer("gpgv")
        direct = self.credentials("echo")
        self.start()
        self.assertEqual(self.credentials("echo"), direct)
        self.assertEqual(direct, (0, f"get|r.example|{self.mark}".encode()))
        self.assertEqual(self.credentials("fail"), (3, b"no\n"))
        failed = self.programs.credentials("fail", "r.example", purpose="test")
        self.assertEqual(failed.stderr, "locked \u00e9\n".encode())
        self.assertEqual(self.programs.verify(b"ring", b"message"), DirectPrograms().verify(b"ring", b"message"))

    def test_what_is_unpacked_goes_from_one_descriptor_to_the_other(self) -> None:
        require_peer("zstd")
        self.start()
        packed = subprocess.run(["zstd", "-q", "-c"], input=b"x" * 100_000, stdout=subprocess.PIPE, check=True).stdout
        with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as output:
            source.write(packed)
            source.seek(0)
            self.assertEqual(self.programs.decompress(source.fileno(), output.fileno(), 30.0, purpose="test"), 0)
            self.assertEqual(os.fstat(output.fileno()).st_size, 100_000)

    def test_missing_late_and_loud_programs_are_told(self) -> None:
        require_peer("zstd")
        self.start()
        with self.assertRaisesRegex(MissingDependencyError, "docker-credential-none is not installed: needed to test"):
            self.credentials("none")
        with self.assertRaisesRegex(SourceError, "more than 1048576 bytes") as caught:
            self.credentials("loud")
        self.assertIs(caught.exception.code, ErrorCode.LIMIT_EXCEEDED)
        inlet, outlet = os.pipe()
        try:
            with self.assertRaisesRegex(SourceError, "zstd: still running after 0.1 s"), open(os.devnull, "wb") as null:
                self.programs.decompress(inlet, null.fileno(), 0.1, purpose="test")
        finally:
            os.close(inlet)
            os.close(outlet)

    def test_a_program_gets_what_is_left_of_the_time_to_open(self) -> None:
        self.start()
        late = r"^docker-credential-slow: still running after (0\.[0-9]+|1) s, its limit or what was left of --open-"
        with timed(start_timer(1, "--open-timeout")), self.assertRaisesRegex(SourceError, late) as caught:
            self.credentials("slow")
        self.assertIs(caught.exception.code, ErrorCode.TIMEOUT)
        self.assert_gone(self.slow_program())

    def test_a_process_that_does_not_answer_costs_no_more_than_the_time_to_open(self) -> None:
        self.start()
        (stopped,) = self.programs.pids[1:]
        os.kill(stopped, signal.SIGSTOP)
        try:
            with (
                timed(start_timer(0.2, "--open-timeout")),
                self.assertRaisesRegex(SourceError, "open-timeout") as caught,
            ):
                self.credentials("echo")
        finally:
            os.kill(stopped, signal.SIGCONT)
        self.assertIs(caught.exception.code, ErrorCode.TIMEOUT)

    def test_a_helper_that_was_not_named_is_refused_by_name(self) -> None:
        self.start()
        for helper in ("other", "../echo", "", "echo\n"):
            with self.subTest(helper), self.assertRaisesRegex(SourceError, "not a credential helper that was named"):
                self.credentials(helper)
        for registry in ("a\nb", "\0", "x" * 2000):
            with self.subTest(registry), self.assertRaisesRegex(SourceError, "not the name of a registry"):
                self.credentials("echo", registry)

    def test_without_a_process_everything_is_refused(self) -> None:
        self.programs.confine(needed=False)
        self.assertEqual(self.programs.pids, ())
        for action in (lambda: self.credentials("echo"), lambda: self.programs.verify(b"", b"")):
            with self.assertRaisesRegex(SourceError, "nothing told of it when this process was confined"):
                action()

    def test_a_slow_program_does_not_hold_up_another(self) -> None:
        self.start()
        found: list[tuple[int, bytes]] = []
        thread = threading.Thread(target=lambda: found.append(self.credentials("slow")))
        thread.start()
        slow = self.slow_program()
        self.assertEqual(self.credentials("fail")[0], 3)
        os.killpg(slow, signal.SIGKILL)
        thread.join(PATIENCE)
        self.assertEqual(found, [(-signal.SIGKILL, b"")])


class Raw(HelperTestCase):
    """Requests as a proxy that somebody else has taken over would send them."""

    def ask(self, request: object, *passed: int, credentials: bool = False) -> tuple[dict[str, object], bytes]:
        ours, theirs = socket.socketpair()
        process = self.programs._credentials if credentials else self.programs._tools
        assert process is not None
        control = process.control
        with ours, theirs:
            if isinstance(request, dict):
                request = {"seconds": 9, **request}
            data = request if isinstance(request, bytes) else json.dumps(request).encode()
            socket.send_fds(control, [data], [theirs.fileno(), *passed])
            theirs.close()
            ours.settimeout(PATIENCE)
            answer = b"".join(iter(lambda: ours.recv(65536), b""))
        head, _, content = answer.partition(b"\n")
        return json.loads(head), content

    def test_what_is_no_request_is_refused_and_the_next_one_answered(self) -> None:
        self.start()
        with open("/etc/hostname", "rb") as file:
            for request, passed in (
                ({"kind": "run", "argv": ["sh", "-c", "id"]}, ()),
                ({}, ()),
                ([], ()),
                (b"\xff", ()),
                ("verify", ()),
                ({"kind": "verify"}, ()),
                ({"kind": "verify", "argv": ["sh"]}, (file.fileno(),)),
                ({"kind": "decompress", "seconds": "x"}, (0, 0)),
                ({"kind": "credentials", "helper": "echo", "registry": "r", "seconds": None}, ()),
                ({"kind": "decompress"}, (0,)),
                ({"kind": "credentials", "helper": ["echo"], "registry": "r"}, ()),
            ):
                with self.subTest(request):
                    for credentials in (False, True):
                        self.assertIn("error", self.ask(request, *passed, credentials=credentials)[0])
        self.assertEqual(self.credentials("fail")[0], 3)

    def test_answers_that_cannot_be_told_leave_nothing_behind(self) -> None:
        self.start()
        self.credentials("fail")  # it is up
        process = self.programs._credentials
        assert process is not None
        proc = Path(f"/proc/{process.pid}")
        before = len(os.listdir(proc / "fd"))
        big = json.dumps({"kind": "credentials", "helper": "big", "registry": "r"}).encode()
        with open("/etc/passwd", "rb") as file, contextlib.ExitStack() as unread:
            for passed in ([file.fileno()], [file.fileno()] * 100, []):
                for _ in range(50):
                    socket.send_fds(process.control, [b"{}"], passed)
            for _ in range(AT_ONCE + 20):
                ours, theirs = socket.socketpair()
                unread.enter_context(ours)
                with theirs:
                    socket.send_fds(process.control, [big], [theirs.fileno()])
            time.sleep(1)
            self.assertLessEqual(len(os.listdir(proc / "task")), AT_ONCE + 1)
        until = time.monotonic() + PATIENCE
        while len(os.listdir(proc / "fd")) > before and time.monotonic() < until:
            time.sleep(0.01)
        self.assertEqual(len(os.listdir(proc / "fd")), before)
        self.assertEqual(self.credentials("fail")[0], 3)

    def test_each_process_does_its_own_work_only(self) -> None:
        self.start()
        head, _ = self.ask({"kind": "credentials", "helper": "echo", "registry": "r"})
        self.assertIn("not a credential helper that was named", str(head["error"]))
        with tempfile.TemporaryFile() as file:
            for request in ({"kind": "verify"}, {"kind": "decompress"}):
                head, _ = self.ask(request, file.fileno(), file.fileno(), credentials=True)
                self.assertIn("error", head)

    def test_gpgv_and_zstd_change_no_file_and_reach_nobody(self) -> None:
        """A program in the place of gpgv tries it: started by a confined process as the helper is one."""
        require_peer("gpgv")
        script = (
            "import sys; sys.path.insert(0, sys.argv[1]); from cip.confine.sandbox import confine_programs; "
            "from cip.programs import Running, run_program; confine_programs(); "
            "done = run_program(Running(), ['/bin/sh', '-c', sys.argv[2]], purpose='x', environ={}, timeout=30); "
            "print(done.stdout.decode())"
        )
        target = self.directory / "target"
        target.write_text("")
        attempts = {
            f"echo x >{target}/../new": "2",
            f"echo x >>{target}": "2",
            f"rm {target}": "1",
            f"chmod 777 {target}": "1",
            f"touch {target}": "1",
            f"{sys.executable} -c 'import socket; socket.socket()'": "1",
            f"{sys.executable} -c 'import socket; socket.socket(socket.AF_UNIX)'": "1",
            f"cat {target}": "0",
            "gpgv --version": "0",
        }
        for attempt, expected in attempts.items():
            command = [sys.executable, "-c", script, str(ROOT), f"({attempt}) >/dev/null 2>&1; echo $?"]
            with self.subTest(attempt):
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                self.assertEqual(done.stdout.strip(), expected, done.stderr)

    def test_a_descriptor_gives_no_more_rights_than_its_sender_has(self) -> None:
        require_peer("zstd")
        self.start()
        victim = self.directory / "victim"
        victim.write_bytes(b"untouched")
        packed = subprocess.run(["zstd", "-q", "-c"], input=b"x", stdout=subprocess.PIPE, check=True).stdout
        for flags in (os.O_RDONLY, os.O_PATH):
            with tempfile.TemporaryFile() as source, self.subTest(flags):
                source.write(packed)
                source.seek(0)
                output = os.open(victim, flags)
                head, _ = self.ask({"kind": "decompress"}, source.fileno(), output)
                self.assertNotEqual(head.get("status"), 0)
                os.close(output)
        self.assertEqual(victim.read_bytes(), b"untouched")
        secret = os.open(victim, os.O_PATH)
        head, content = self.ask({"kind": "verify"}, secret, secret)
        os.close(secret)
        self.assertIn("error", head)
        self.assertNotIn(b"untouched", content)


class Process(HelperTestCase):
    def test_it_is_fresh_and_cannot_be_read(self) -> None:
        with tempfile.TemporaryFile() as secret:
            os.set_inheritable(secret.fileno(), True)
            self.start()
            self.credentials("fail")  # it is up
        proc = Path(f"/proc/{self.programs.pids[1]}")
        targets = sorted(os.readlink(proc / "fd" / name) for name in os.listdir(proc / "fd"))
        self.assertEqual(targets[:3], [os.devnull] * 3)
        # a newer libffi, which ctypes brings, keeps its own file open
        others = [target.partition(":")[0] for target in targets[3:] if "/libffi." not in target]
        self.assertEqual(others, ["socket"])
        self.assertNotIn(str(self.mark).encode(), (proc / "environ").read_bytes())
        self.assertIn(b"-I\0-S\0", (proc / "cmdline").read_bytes())
        self.assertRegex((proc / "limits").read_text(), r"Max core file size +0 +0 ")
        self.assertEqual((proc / "environ").stat().st_uid, 0)  # nobody's but root's: it is not dumpable

    def test_without_credential_helpers_it_is_not_told_the_environment(self) -> None:
        self.programs.confine(needed=True)
        with self.assertRaises(SourceError):
            self.credentials("echo")

    def test_its_end_is_the_end_of_what_it_runs(self) -> None:
        self.start()
        thread = threading.Thread(target=lambda: self.assertRaises(CipError, self.credentials, "slow"))
        thread.start()
        slow = self.slow_program()
        self.programs.close()
        thread.join(PATIENCE)
        self.assert_gone(slow)

    def test_a_proxy_that_is_killed_leaves_nothing_behind(self) -> None:
        code = (
            "import sys; from cip.confine.confinement import HelperPrograms;"
            "programs = HelperPrograms(eval(sys.argv[1]));"
            "programs.confine(needed=True, helpers=['slow']); print(programs.pids[1], flush=True);"
            "programs.credentials('slow', 'r', purpose='test')"
        )
        command = [sys.executable, "-c", code, repr(self.programs._variables)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as proxy:
            assert proxy.stdout is not None
            helper = int(proxy.stdout.readline())
            slow = self.slow_program()
            proxy.kill()
        self.assert_gone(slow)
        self.assert_gone(helper)

    def test_a_proxy_that_passed_it_its_own_socket_leaves_nothing_behind(self) -> None:
        """Then that socket has no end, and what the helper runs reads a pipe which it holds itself."""
        code = (
            "import json, os, socket, sys; from cip.confine.confinement import HelperPrograms;"
            "from cip.confine import sandbox;"
            "programs = HelperPrograms({}); programs.confine(needed=True);"
            "sandbox.confine(sandbox.Level.FULL, writable=[], readable=[]);"
            "control, (inlet, feed) = programs._tools.control, os.pipe();"
            "request = json.dumps({'kind': 'decompress', 'seconds': 1e9}).encode();"
            "socket.send_fds(control, [request], [control.fileno(), inlet, feed]);"
            "print(programs.pids[0], flush=True); sys.stdin.read()"
        )
        require_peer("zstd")
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as proxy:
            assert proxy.stdout is not None
            helper = int(proxy.stdout.readline())
            deadline = time.monotonic() + PATIENCE
            tasks = Path(f"/proc/{helper}/task")
            while not (running := [pid for each in tasks.glob("*/children") for pid in each.read_text().split()]):
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.02)
        self.assert_gone(int(running[0]))
        self.assert_gone(helper)

    def test_what_it_was_passed_and_closes_keeps_it_no_longer(self) -> None:
        """A socket that lingers is closed where it was received, beyond the descriptors that a request may have."""
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            code = (
                "import os, socket, struct, sys; from cip.confine.confinement import HelperPrograms;"
                "programs = HelperPrograms({}); programs.confine(needed=True);"
                f"full = socket.create_connection(('127.0.0.1', {deaf.getsockname()[1]}));"
                "full.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 10**6));"
                "full.setblocking(False);"
                "exec('try:\\n while True: full.send(bytes(65536))\\nexcept BlockingIOError: pass');"
                "pipe = os.pipe();"
                "socket.send_fds(programs._tools.control, [b'{}'], [*pipe, pipe[0], full.fileno()]);"
                "print(programs.pids[0], flush=True); os._exit(0)"
            )
            with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as proxy:
                assert proxy.stdout is not None
                self.assert_gone(int(proxy.stdout.readline()))

    def test_one_that_is_killed_takes_what_it_runs_with_it(self) -> None:
        """However a process ends that runs programs: it may be stopped before, or be the proxy itself, not confined."""
        for stopped in (False, True):
            self.programs = HelperPrograms(self.programs._variables)
            self.start()
            thread = threading.Thread(target=lambda: self.assertRaises(CipError, self.credentials, "alone"))
            thread.start()
            slow = self.slow_program()
            if stopped:
                os.kill(self.programs.pids[1], signal.SIGSTOP)
            os.kill(self.programs.pids[1], signal.SIGKILL)
            thread.join(PATIENCE)
            self.programs.close()
            self.assert_gone(slow)
            self.mark.unlink()
        code = "import sys; from cip.programs import DirectPrograms; "
        code += "DirectPrograms(eval(sys.argv[1])).credentials('alone', 'r', purpose='test')"
        with subprocess.Popen([sys.executable, "-c", code, repr(self.programs._variables)]) as proxy:
            slow = self.slow_program()
            proxy.kill()
        self.assert_gone(slow)

    def test_a_stopped_one_ends_with_its_proxy_and_so_does_what_it_runs(self) -> None:
        """Also where that is confined and sends no signal any more, not even its last one."""
        code = (
            "import sys, threading; from cip.confine.confinement import HelperPrograms;"
            "from cip.confine import sandbox;"
            "programs = HelperPrograms(eval(sys.argv[1])); programs.confine(needed=True, helpers=['slow']);"
            "ask = lambda: programs.credentials('slow', 'r', purpose='test');"
            "threading.Thread(target=ask, daemon=True).start(); print(programs.pids[1], flush=True);"
            "sys.stdin.readline(); {confine}; print(flush=True); sys.stdin.read()"
        )
        confined = "sandbox.confine(sandbox.Level.FULL, writable=[], readable=[], unix_sockets=False)"
        for confine in ("0", confined):
            command = [sys.executable, "-c", code.format(confine=confine), repr(self.programs._variables)]
            with (
                self.subTest(confine),
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
                ) as proxy,
            ):
                assert proxy.stdout is not None and proxy.stdin is not None
                helper = int(proxy.stdout.readline())
                slow = self.slow_program()
                proxy.stdin.write(b"\n")
                proxy.stdin.flush()
                proxy.stdout.readline()
                self.stop(helper)
                proxy.kill()
                self.assert_gone(slow)
                self.assert_gone(helper)
            self.mark.unlink()

    def test_stopped_ones_are_waited_for_no_longer_than_one(self) -> None:
        self.start()
        stopped = self.programs.pids
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        waited: list[float] = []
        real = subprocess.Popen.wait

        def wait(child: subprocess.Popen[bytes], timeout: float | None = None) -> int:
            waited.append(-1 if timeout is None else timeout)
            return real(child, timeout)

        with mock.patch.object(subprocess.Popen, "wait", wait), mock.patch.object(remote, "_END_SECONDS", 0.5):
            self.programs.close()
        self.assertNotIn(-1, waited)
        self.assertLess(sum(seconds for seconds in waited if seconds < 0.5), 0.5)
        for pid in stopped:
            self.assert_gone(pid)

    def test_a_request_that_nobody_takes_and_an_answer_that_drips_have_a_limit(self) -> None:
        self.start()
        (stopped,) = self.programs.pids[1:]
        os.kill(stopped, signal.SIGSTOP)
        assert self.programs._credentials is not None
        control = self.programs._credentials.control
        with contextlib.suppress(TimeoutError):
            for _ in range(100_000):
                control.send(b"{}")
        with self.assertRaisesRegex(SourceError, "the process that runs programs is gone: timed out"):
            self.credentials("echo")
        ours, theirs = socket.socketpair()
        with ours, theirs:
            end = threading.Event()

            def drip() -> None:
                while not end.wait(0.02):
                    theirs.send(b"x")

            thread = threading.Thread(target=drip)
            thread.start()
            with self.assertRaises(TimeoutError):
                remote._read_reply(ours, "gpgv", time.monotonic() + 0.3)
            end.set()
            thread.join()

    def test_one_that_is_gone_is_a_typed_error(self) -> None:
        self.start()
        assert self.programs._credentials is not None
        self.programs._credentials._child.kill()
        self.programs._credentials._child.wait()
        with self.assertRaisesRegex(SourceError, "the process that runs programs is gone"):
            self.credentials("echo")

    def test_it_survives_forks_and_threads_that_fail(self) -> None:
        if os.getuid() == 0:
            self.skipTest("no limit on processes holds for root")
        self.start()
        self.credentials("fail")
        asked = self.programs.pids[1]
        before = resource.prlimit(asked, resource.RLIMIT_NPROC, (1, 1))
        with self.assertRaisesRegex(SourceError, "cannot be started"):
            self.credentials("fail")
        resource.prlimit(asked, resource.RLIMIT_NPROC, before)
        self.assertEqual(self.credentials("fail")[0], 3)

    def test_it_survives_a_thread_that_cannot_be_started(self) -> None:
        require_peer("gpgv")
        self.programs.confine(needed=True)
        (helper,) = self.programs.pids
        until = time.monotonic() + PATIENCE
        while "Seccomp:\t2" not in Path(f"/proc/{helper}/status").read_text() and time.monotonic() < until:
            time.sleep(0.01)  # until it is up
        before = resource.prlimit(helper, resource.RLIMIT_AS)
        resource.prlimit(helper, resource.RLIMIT_AS, (1 << 20, before[1]))
        with self.assertRaises(SourceError):
            self.programs.verify(b"ring", b"message")
        resource.prlimit(helper, resource.RLIMIT_AS, before)
        self.assertEqual(self.programs.verify(b"ring", b"message"), DirectPrograms().verify(b"ring", b"message"))

    def test_a_second_start_changes_nothing(self) -> None:
        self.start()
        children = self.programs.pids
        self.start()
        self.assertEqual(self.programs.pids, children)


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""Least privilege: what a confined proxy still does, and what it can no longer do, at each level and on less kernel."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

from cip.confine import sandbox
from cip.model.descriptor import digest_of
from tests.support import images
from tests.support.certificates import CertificateAuthority
from tests.support.jsonparent import json_proxy
from tests.support.parent import PATIENCE, ROOT, running
from tests.support.peers import clean_environment, require_peer
from tests.support.registry import (
    NAME,
    FaultyHost,
    Strike,
    make_content,
    registry_of,
    server_context,
    storage_of,
    tokens_of,
)
from tests.support.signatures import GpgHome, payload

ABI = max(0, sandbox._kernel()(444, None, 0, 1))  # of Landlock on this machine; 0: none
ACCEPT = "--insecure-policy"
INFO = "--log-level=info"

# the program on a kernel that offers no more than the Landlock ABI argv[1]; what it offers is the real thing
OLDER_KERNEL = """
import errno, sys
sys.path.insert(0, sys.argv.pop(1))
abi = int(sys.argv.pop(1))
from cip import cli
from cip.confine import sandbox
real = sandbox._kernel()
def kernel(number, *arguments):
    if number == 444 and arguments[0] is None:
        return min(abi, real(number, *arguments)) if abi else -errno.ENOSYS
    return real(number, *arguments)
sandbox._kernel = lambda: kernel
"""
SERVE = OLDER_KERNEL + "\ncli.run()\n"
# confines itself as the program does, and tries to get out in its thread and in one that it starts
ESCAPE = (
    OLDER_KERNEL
    + """
import errno, json, os, resource, socket, subprocess, threading
from cip import log
from cip.options import parse_arguments
from cip.confine.confinement import Confinement

log.set_threshold(log.Level.SILENT)
outside, inside, *arguments = sys.argv[1:]
invocation = parse_arguments(arguments, "x", cli.host_environment(os.environ))
limited = invocation.command == ""
confinement = Confinement(invocation.settings, invocation.reference, limited_reads=limited)
programs = confinement.programs

def shell(text):
    if subprocess.run(["/bin/sh", "-c", text], stderr=subprocess.DEVNULL).returncode:
        raise PermissionError(errno.EACCES, "")

def connect(name):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(name)

ATTEMPTS = {
    "read": lambda: open(outside + "/secret").close(),
    "list": lambda: os.listdir(outside),
    "read shadow": lambda: open("/etc/shadow").close(),
    "read a process": lambda: open(f"/proc/{os.getppid()}/environ").close(),
    "memory of the runner": lambda: open(f"/proc/{(programs.pids or [os.getppid()])[0]}/mem", "rb").close(),
    "append": lambda: open(outside + "/secret", "a").close(),
    "truncate": lambda: os.truncate(outside + "/secret", 1),
    "create": lambda: open(outside + "/new", "x").close(),
    "remove": lambda: os.unlink(outside + "/secret"),
    "rename": lambda: os.rename(outside + "/secret", inside + "/secret"),
    "link": lambda: os.link(outside + "/secret", inside + "/secret"),
    "by a shell": lambda: shell(f"echo x > {outside}/by-a-shell"),
    "listen": lambda: socket.create_server(("127.0.0.1", 0)).close(),
    "listen without an address": lambda: socket.socket().listen(),
    "limits of a process": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CPU),
    "abstract socket": lambda: connect("\\0" + outside),
    "write to the temporary directory": lambda: os.close(os.open(inside, os.O_TMPFILE | os.O_RDWR)),
    "read a library": lambda: open(os.__file__).close(),
}

def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

found = {}
def work():
    found["worker"] = {name: outcome(attempt) for name, attempt in ATTEMPTS.items()}

confinement.apply()
thread = threading.Thread(target=work)
thread.start()
thread.join()
found["main"] = {name: outcome(attempt) for name, attempt in ATTEMPTS.items()}
found["core"] = resource.getrlimit(resource.RLIMIT_CORE)
programs.close()
print(json.dumps(found))
"""
)
# serves, and at the moment of serving does what somebody would do who has taken this process over
TAKEN = (
    OLDER_KERNEL
    + """
import ctypes, errno, fcntl, json, os, signal, socket, threading
from cip.confine.confinement import Confinement
from cip.image import Image
from cip.report.journal import Journal
from cip.report.lines import LineWriter

outside = sys.argv.pop(1)
Journal.__init__.__defaults__ = (outside + "/socket",)
before, programs, writers = set(), [], []
real_init = LineWriter.__init__
LineWriter.__init__ = lambda self, *arguments: (writers.append(self), real_init(self, *arguments))[1]
real_confine, real_open = Confinement._confine, Image.open_blob

def confine(self):
    before.update(os.listdir("/proc/self/task"))
    try:
        return real_confine(self)
    finally:
        programs.append(self.programs)

def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")

def ask_helper(request, *descriptors):
    process = programs[0]._tools
    if process is None:
        raise PermissionError(errno.EPERM, "")
    control = process.control
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(control, [json.dumps({"seconds": 9, **request}).encode()], [theirs.fileno(), *descriptors])
        theirs.close()
        head = json.loads(b"".join(iter(lambda: ours.recv(65536), b"")).partition(b"\\n")[0])
        if head.get("status") != 0:
            raise PermissionError(errno.EPERM, "")

def overwrite_by_zstd():
    with open("/proc/self/exe", "rb") as packed:
        descriptor = os.open(outside + "/secret", os.O_PATH)
        ask_helper({"kind": "decompress"}, packed.fileno(), descriptor)

def send_by_what_is_open():
    for number in range(256):
        try:
            found = socket.socket(fileno=number)
        except OSError:
            continue
        if (found.family, found.type) == (socket.AF_UNIX, socket.SOCK_DGRAM):
            found.send(b"by whoever has the process")
            return found.detach()
        found.detach()
    raise PermissionError(errno.EPERM, "")

ATTEMPTS = {
    "size and owner": lambda: os.stat(outside + "/secret"),
    "read": lambda: open(outside + "/secret").close(),
    "chmod": lambda: os.chmod(outside + "/secret", 0o777),
    "chown": lambda: os.chown(outside + "/secret", os.getuid(), os.getgid()),
    "utime": lambda: os.utime(outside + "/secret"),
    "setxattr": lambda: os.setxattr(outside + "/secret", "user.x", b"x"),
    "unix socket": lambda: socket.socket(socket.AF_UNIX).connect(outside + "/socket"),
    "datagram": lambda: socket.socketpair(type=socket.SOCK_DGRAM)[0].sendto(b"x", outside + "/socket"),
    "datagram by an open socket": send_by_what_is_open,
    "program": lambda: os.execv("/bin/true", ["true"]),
    "a process that outlives this one": lambda: os.fork() or os._exit(0),
    "signal": lambda: os.kill(os.getppid(), signal.SIGCONT),
    "signal by a descriptor": lambda: fcntl.fcntl(socket.socket(), fcntl.F_SETOWN, os.getppid()),
    "watch": lambda: check(ctypes.CDLL(None, use_errno=True).inotify_init1(0)),
    "raw socket": lambda: socket.socket(type=socket.SOCK_RAW, proto=6),
    "audit socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9),
    "capability of root": lambda: socket.socket().setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 1),
    "memory of the helper": lambda: open(f"/proc/{(programs[0].pids or [os.getppid()])[0]}/mem", "rb").close(),
    "any program by the helper": lambda: ask_helper({"kind": "run", "argv": ["/bin/sh", "-c", "id"]}),
    "any credential helper": lambda: ask_helper({"kind": "credentials", "helper": "other", "registry": "r"}),
    "a file by the helper": overwrite_by_zstd,
}

def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def taken(self, digest, access):
    reader = real_open(self, digest, access)
    if programs:
        names = {str(each.native_id): each.name for each in threading.enumerate()}
        kept = before & set(names) - {str(os.getpid())}
        found = {name: outcome(attempt) for name, attempt in ATTEMPTS.items()}
        worker = threading.Thread(target=lambda: found.update({"in a thread: " + name: outcome(attempt)
                                                               for name, attempt in ATTEMPTS.items()}))
        worker.start()
        worker.join()
        for writer in writers:
            assert writer.in_thread(lambda: found.update({"in the writer: " + name: outcome(attempt)
                                                          for name, attempt in ATTEMPTS.items()}), 9)
        found["kept"] = sorted(names[task] for task in kept)
        print(json.dumps(found), file=sys.stderr, flush=True)
    return reader

Confinement._confine, Image.open_blob = confine, taken
cli.run()
"""
)
REFUSED = {"EACCES", "EPERM", "EXDEV"}
READS = {"read", "list", "read shadow", "read a process"}
CHANGES = {"append", "truncate", "create", "remove", "rename", "link", "by a shell"}


def needs_landlock(test: unittest.TestCase, abi: int = 1) -> None:
    """Leave out what this machine's kernel cannot do; test_what_the_kernel_offers_is_used says that it is said."""
    if abi > ABI:
        test.skipTest(f"needs Landlock ABI {abi}, this kernel has {ABI}")


def continue_process(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # the kernel has done it, unless its new parent is of this session
        os.kill(pid, signal.SIGCONT)


class SandboxTest(unittest.TestCase):
    def setUp(self) -> None:
        self.scratch = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="cip-sandbox-")))
        self.scratch.chmod(0o755)
        images.f1(self.scratch / "layout")
        self.image = f"oci:{self.scratch}/layout:t"

    def on_kernel(self, abi: int) -> tuple[str, ...]:
        """The program on a kernel with this Landlock ABI."""
        return (sys.executable, "-c", SERVE, str(ROOT), str(abi))


class Escapes(SandboxTest):
    def escape(self, *arguments: str, abi: int = 99) -> dict[str, dict[str, str]]:
        outside, inside = self.scratch / "outside", self.scratch / "inside"
        for directory in (outside, inside):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
        (outside / "secret").write_text("secret")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"\0{outside}")
            listener.listen()
            done = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    ESCAPE,
                    str(ROOT),
                    str(abi),
                    str(outside),
                    str(inside),
                    f"--tmpdir={inside}",
                    *arguments,
                ],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
                env=clean_environment(self.scratch),
            )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        found: dict[str, dict[str, str]] = json.loads(done.stdout)
        self.assertEqual(found.pop("core"), [0, 0])
        self.assertEqual(set(found), {"worker", "main"})
        return found

    def test_full_reads_nothing_else_and_changes_nothing(self) -> None:
        needs_landlock(self)
        refused = READS | CHANGES | {"memory of the runner"}
        for abi in range(1, ABI + 1):
            with self.subTest(abi=abi):  # truncate(2) was forgotten before the third
                self.assert_outcomes(self.escape(self.image, abi=abi), refused - ({"truncate"} if abi < 3 else set()))

    def test_write_reads_on_and_changes_nothing(self) -> None:
        needs_landlock(self, 3)
        for thread in self.assert_outcomes(self.escape("experimental-image-proxy"), CHANGES):
            self.assertEqual(thread["read"], "done")

    def test_nobody_listens_and_reaches_other_processes(self) -> None:
        for name, abi in (("listen", 4), ("listen without an address", 4), ("abstract socket", 6)):
            with self.subTest(name):
                needs_landlock(self, abi)
                for thread in self.escape(self.image).values():
                    self.assertIn(thread[name], REFUSED)

    def test_process_is_what_is_left_without_landlock(self) -> None:
        for thread in self.assert_outcomes(self.escape(self.image, abi=0), {"listen", "limits of a process"}):
            self.assertEqual(thread["append"], "done")

    def assert_outcomes(self, found: dict[str, dict[str, str]], refused: set[str]) -> list[dict[str, str]]:
        for place, outcomes in found.items():
            for name in sorted(refused):
                with self.subTest(name, thread=place):
                    self.assertIn(outcomes[name], REFUSED)
            for name in ("write to the temporary directory", "read a library"):
                with self.subTest(name, thread=place):
                    self.assertEqual(outcomes[name], "done")
        return list(found.values())


class TakenOver(SandboxTest):
    def taken(self, answer: str) -> dict[str, Any]:
        """What was found by whoever has the process, in the log `answer`."""
        found: dict[str, Any] = json.loads(next(line for line in answer.splitlines() if line.startswith("{")))
        return found

    def setUp(self) -> None:
        super().setUp()
        needs_landlock(self)
        (self.scratch / "secret").write_text("secret")
        listener = self.enterContext(socket.socket(socket.AF_UNIX))
        listener.bind(str(self.scratch / "socket"))
        listener.listen()
        self.command = (sys.executable, "-c", TAKEN, str(ROOT), "99", str(self.scratch))

    def assert_nothing_is_possible(self, found: dict[str, Any], possible: Set[str] = frozenset()) -> None:
        self.assertLessEqual(set(found.pop("kept")), {"events"}, "a thread of before lives on")
        done = {name.rpartition(": ")[2] for name, outcome in found.items() if outcome not in REFUSED}
        self.assertEqual(done, {"size and owner", *possible})
        self.assertEqual((self.scratch / "secret").read_text(), "secret")

    def test_http_whatever_is_asked_first(self) -> None:
        content = make_content(3_000_000)
        digest = digest_of(content.layer)
        with FaultyHost(registry_of(content)) as host:
            for first in ("/manifest", f"/blobs/{digest}"):
                read_fd, write_fd = os.pipe()  # events, so that there is a thread that writes them
                with (
                    self.subTest(first),
                    open(read_fd, "rb"),
                    running(
                        ACCEPT,
                        "--tls-verify=false",
                        f"--events-fd={write_fd}",
                        f"docker://{host.address}/{NAME}:t",
                        command=self.command,
                        pass_fds=[write_fd],
                    ) as proxy,
                ):
                    os.close(write_fd)
                    for target in (first, f"/blobs/{digest}"):
                        self.assertEqual(proxy.line.ask("GET", target).status, 200, proxy.stderr())
                    self.assert_nothing_is_possible(self.taken(proxy.stderr()))

    def test_with_the_journal_its_socket_stays_open(self) -> None:
        (self.scratch / "socket").unlink()
        journal = self.enterContext(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        journal.bind(str(self.scratch / "socket"))
        with running(ACCEPT, "--journal", self.image, command=self.command) as proxy:
            for target in ("/manifest", f"/blobs/{images.DIGEST_T}"):
                self.assertEqual(proxy.line.ask("GET", target).status, 200, proxy.stderr())
            self.assert_nothing_is_possible(self.taken(proxy.stderr()), {"datagram by an open socket"})
        journal.settimeout(PATIENCE)
        while journal.recv(4096) != b"by whoever has the process":
            pass  # the journal's own entries

    def test_json(self) -> None:
        policy = self.scratch / "policy.json"
        policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        command = (*self.command, "experimental-image-proxy")
        with json_proxy(f"--policy={policy}", command=command) as proxy:
            image = proxy.parent.open(self.image)
            proxy.parent.fetch("GetBlob", image, str(images.DIGEST_T), len(images.LAYER_T))
            # a parent of this protocol names files, and docker-daemon: images, later
            self.assert_nothing_is_possible(self.taken(proxy.stderr()), {"read", "unix socket"})


class Levels(SandboxTest):
    def test_every_thread_of_the_process_is_confined_after_the_first_answer(self) -> None:
        with running(ACCEPT, INFO, self.image) as proxy:
            self.assertEqual(proxy.line.ask("GET", "/manifest").status, 200)
            self.assertEqual(proxy.line.ask("GET", f"/blobs/{images.DIGEST_T}").body, images.LAYER_T)
            process = Path("/proc", str(proxy.process.pid))
            self.assert_every_thread_confined(process)
            self.assertRegex((process / "limits").read_text(), r"Max core file size +0 +0 ")
            self.assertRegex(proxy.stderr(), f"INFO: sandbox: level {'full' if ABI else 'process'}\n")

    def test_a_thread_of_before_that_goes_on_is_told_in_the_level(self) -> None:
        """The C library may look a name up for half a minute after we gave up; its thread stayed outside unseen."""
        code = (
            OLDER_KERNEL
            + """
import os, threading
from cip import log
from cip.confine.confinement import Confinement
from cip.options import parse_arguments
log.own_stderr()
invocation = parse_arguments(sys.argv[2:], "x", cli.host_environment(os.environ))
confinement = Confinement(invocation.settings, invocation.reference, limited_reads=True)
ended = threading.Event()
threading.Thread(target=ended.wait, name="look up slow.example", daemon=True).start()
try:
    confinement.require()
except Exception as error:
    print(error)
if "required" in sys.argv:
    ended.set()
    confinement.require()
else:
    confinement.apply()
"""
        )

        def confined(*arguments: str) -> tuple[str, str]:
            done = subprocess.run(
                [sys.executable, "-c", code, str(ROOT), "7", *arguments, ACCEPT, self.image],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=True,
            )
            return done.stdout, done.stderr

        said, told = confined("required", "--require-sandbox=process")
        self.assertRegex(said, "^--require-sandbox: expected level process, found .*: look up slow.example; ask again")
        self.assertEqual(told, "")
        said, told = confined("applied")
        self.assertEqual(said, "")
        self.assertIn("sandbox: none, because a thread of before is still at work outside: look up", told)

    def assert_every_thread_confined(self, process: Path) -> None:
        found = []
        for task in (process / "task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a worker that has ended since
                status = (task / "status").read_text()
                capabilities = re.findall(r"^Cap(?:Prm|Eff|Inh):\t(.+)$", status, re.MULTILINE)
                kept = [int(text, 16) & ~sandbox._KEPT_CAPABILITIES for text in capabilities]
                found.append("NoNewPrivs:\t1\n" in status and kept == [0, 0, 0])
        self.assertGreaterEqual(len(found), 2)
        self.assertTrue(all(found))

    def test_a_helper_process_is_started_only_where_something_can_need_it(self) -> None:
        signed = self.scratch / "policy.json"
        requirement = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/key"}
        accept = [{"type": "insecureAcceptAnything"}]
        signed.write_text(json.dumps({"default": accept, "transports": {"docker": {"r.example": [requirement]}}}))
        for option, expected in ((ACCEPT, False), (f"--policy={signed}", True)):
            with self.subTest(option), running(option, self.image) as proxy:
                self.assertEqual(proxy.line.ask("GET", "/manifest").status, 200)
                self.assertEqual(proxy.line.ask("GET", f"/blobs/{images.DIGEST_T}").body, images.LAYER_T)
                process = Path("/proc", str(proxy.process.pid))
                children = "".join((task / "children").read_text() for task in (process / "task").iterdir())
                self.assertEqual(bool(children), expected)
                for child in map(int, children.split()):
                    os.kill(child, signal.SIGSTOP)  # which does not keep the proxy from its end
                    self.addCleanup(continue_process, child)

    def test_a_credential_helper_that_is_named_too_late_is_refused_by_name(self) -> None:
        content = make_content(1000)
        configuration = self.scratch / ".config" / "containers"
        configuration.mkdir(parents=True)
        with (
            FaultyHost(registry_of(content)) as host,
            json_proxy(ACCEPT, "--tls-verify=false", home=self.scratch, environment={"XDG_RUNTIME_DIR": ""}) as proxy,
        ):
            self.assertEqual(proxy.parent.ask("Initialize").value, "0.2.8")
            (configuration / "auth.json").write_text(json.dumps({"credHelpers": {host.address: "late"}}))
            reply = proxy.parent.ask("OpenImage", f"docker://{host.address}/{NAME}:t")
            self.assertRegex(reply.failure[1], "docker-credential-late|'late'")
            self.assertEqual(reply.members["details"]["type"], "credentials-unavailable")

    def test_off_is_off(self) -> None:
        with running(ACCEPT, INFO, "--sandbox=off", self.image) as proxy:
            for target in ("/manifest", f"/blobs/{images.DIGEST_T}"):
                self.assertEqual(proxy.line.ask("GET", target).status, 200)
            process = Path("/proc", str(proxy.process.pid))
            self.assertIn("NoNewPrivs:\t0", (process / "status").read_text())
            children = [(task / "children").read_text() for task in (process / "task").iterdir()]
            self.assertEqual("".join(children), "")
            self.assertEqual(proxy.stderr(), "")

    def test_a_level_that_is_required_and_not_reached_refuses_every_request(self) -> None:
        for level in ("write", "full"):
            with running(ACCEPT, f"--require-sandbox={level}", self.image, command=self.on_kernel(0)) as proxy:
                for target in ("/manifest", f"/blobs/{images.DIGEST_T}", "/manifest"):
                    problem = proxy.line.ask("GET", target).problem()
                    self.assertEqual((problem["status"], problem["type"]), (501, "dependency-missing"))
                    self.assertIn(f"expected level {level}, reached process", problem["detail"])

    def test_a_level_that_is_required_and_reached_serves(self) -> None:
        for option, abi in (
            ("--require-sandbox", 0),
            ("--require-sandbox=process", 0),
            ("--require-sandbox=write", 1),
            ("--require-sandbox=full", 1),
            ("--require-sandbox=full", 99),
        ):
            with self.subTest(option, abi=abi):
                needs_landlock(self, min(abi, 1))
                with running(ACCEPT, option, self.image, command=self.on_kernel(abi)) as proxy:
                    self.assertEqual(proxy.line.ask("GET", "/manifest").body, images.MANIFEST_M)
                    self.assertIn("NoNewPrivs:\t1", Path(f"/proc/{proxy.process.pid}/status").read_text())
                    self.assertEqual(proxy.line.ask("GET", f"/blobs/{images.DIGEST_T}").body, images.LAYER_T)

    def test_less_kernel_works_and_says_so(self) -> None:
        with running(ACCEPT, self.image, command=self.on_kernel(0)) as proxy:
            self.assertEqual(proxy.line.ask("GET", "/manifest").status, 200)
            self.assertEqual(proxy.line.ask("GET", f"/blobs/{images.DIGEST_T}").status, 200)
            self.assertRegex(proxy.stderr(), r"\A.*WARNING: sandbox: .*this kernel has no Landlock.*\n\Z")

    def test_json_is_confined_from_initialize_on(self) -> None:
        with json_proxy(ACCEPT, INFO) as proxy:
            image = proxy.parent.open(self.image)
            self.assertEqual(proxy.parent.fetch("GetManifest", image)[1], images.MANIFEST_M)
            self.assert_every_thread_confined(Path(f"/proc/{proxy.process.pid}"))
            self.assertRegex(proxy.stderr(), f"INFO: sandbox: level {'write' if ABI else 'process'}\n")

    def test_json_refuses_a_level_that_it_cannot_have(self) -> None:
        json_command = "experimental-image-proxy"
        for command, status, reason in (
            ((*self.on_kernel(99), json_command, "--require-sandbox=full"), 2, "--require-sandbox=full: "),
            ((*self.on_kernel(0), json_command, "--require-sandbox=write"), 1, "expected level write, reached process"),
        ):
            with json_proxy(ACCEPT, command=command, status=status) as proxy:
                self.assertTrue(proxy.parent.at_end())
                proxy.process.wait(PATIENCE)
                self.assertRegex(proxy.stderr(), reason)


class Work(SandboxTest):
    """What has to go on after confinement, at the highest level of each front end."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = CertificateAuthority(self.scratch / "authority")
        server = self.authority.server()
        self.tls = server_context(server.certificate, server.key)
        self.content = make_content(3_000_000)
        self.blob = f"/blobs/{digest_of(self.content.layer)}"
        self.home = self.scratch / "home"
        self.configuration = self.home / ".config" / "containers"
        self.configuration.mkdir(parents=True)

    def certify(self, host: FaultyHost) -> None:
        """Trust the authority for `host`."""
        directory = self.configuration / "certs.d" / host.address
        directory.mkdir(parents=True)
        shutil.copy(self.authority.certificate, directory / "ca.crt")

    def test_a_new_token_a_redirect_and_new_tls_connections(self) -> None:
        accepted = ["Bearer first"]
        with (
            FaultyHost(tokens_of(["first", "second"]), tls=self.tls) as tokens,
            FaultyHost(storage_of(self.content), tls=self.tls) as storage,
            FaultyHost(
                registry_of(
                    self.content,
                    challenge=lambda: f'Bearer realm="{tokens.url}/token",service="tests"',
                    accepted=accepted,
                    blobs_at=lambda: storage.url,
                ),
                tls=self.tls,
            ) as registry,
        ):
            self.certify(registry)
            image = f"docker://{registry.address}/{NAME}:t"
            with running(ACCEPT, INFO, "--read-ahead=0", image, home=self.home) as proxy:
                self.assertEqual(proxy.line.ask("GET", "/manifest").body, self.content.manifest)
                self.assertEqual(storage.connections, 0)
                accepted[:] = ["Bearer second"]
                self.assertTrue(proxy.line.ask("GET", self.blob).body == self.content.layer)
                self.assertEqual(storage.connections, 1)
                self.assertIn("sandbox: level", proxy.stderr())

    def test_a_place_that_is_asked_for_the_first_time(self) -> None:
        basic = base64.b64encode(b"user:word").decode()
        with (
            FaultyHost(registry_of(self.content), tls=self.tls) as mirror,
            FaultyHost(
                registry_of(self.content, challenge=lambda: 'Basic realm="tests"', accepted=[f"Basic {basic}"]),
                tls=self.tls,
            ) as origin,
        ):
            self.certify(mirror)
            self.certify(origin)
            (self.configuration / "auth.json").write_text(json.dumps({"auths": {origin.address: {"auth": basic}}}))
            (self.configuration / "registries.conf").write_text(
                f'[[registry]]\nlocation = "{origin.address}"\n[[registry.mirror]]\nlocation = "{mirror.address}"\n'
            )
            image = f"docker://{origin.address}/{NAME}:t"
            options = (ACCEPT, INFO, "--read-ahead=0", "--retry-times=0", image)
            with running(*options, home=self.home, environment={"XDG_RUNTIME_DIR": ""}) as proxy:
                self.assertEqual(proxy.line.ask("GET", "/manifest").status, 200)
                self.assertEqual(origin.connections, 0)
                mirror.strikes = [Strike("blob", lambda exchange: exchange.reset(), None)]
                self.assertTrue(proxy.line.ask("GET", self.blob).body == self.content.layer)
                self.assertGreater(origin.connections, 0)

    def test_helpers_gpgv_and_zstd_run_outside(self) -> None:
        for name, command in self.users().items():
            with self.subTest(name):
                self.helped(command)

    def users(self) -> dict[str, Sequence[str]]:
        """The program as this user, and as one that may do nothing."""
        program = self.scratch / "container-image-proxy"
        subprocess.run([str(ROOT / "tests" / "packaging" / "zipapp"), str(program)], check=True)
        own = (sys.executable, str(program))
        if os.getuid():
            return {"this user": own}
        nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", str(program))
        return {"root": own, "nobody": nobody}

    def helped(self, command: Sequence[str]) -> None:
        basic = base64.b64encode(b"user:word").decode()
        programs = self.scratch / "programs"
        programs.mkdir(exist_ok=True)
        helper = programs / "docker-credential-tests"
        helper.write_text('#!/bin/sh\ncat > /dev/null\necho \'{"Username":"user","Secret":"word"}\'\n')
        helper.chmod(0o755)
        archive = self.scratch / "image.tar"
        packed = self.scratch / "image.tar.zst"
        subprocess.run(["tar", "-cf", str(archive), "-C", str(self.scratch / "layout"), "."], check=True)
        subprocess.run([require_peer("zstd"), "-q", "-f", str(archive), "-o", str(packed)], check=True)
        policy = self.signed_image()
        challenge = registry_of(self.content, challenge=lambda: 'Basic realm="tests"', accepted=[f"Basic {basic}"])
        with FaultyHost(challenge, tls=self.tls) as registry:
            self.certify(registry)
            auth = {"credHelpers": {registry.address: "tests"}}
            (self.configuration / "auth.json").write_text(json.dumps(auth))
            environment = clean_environment(self.home)
            environment |= {"PATH": f"{programs}{os.pathsep}{environment['PATH']}", "XDG_RUNTIME_DIR": ""}
            with json_proxy(
                policy,
                "--require-sandbox",
                command=(*command, "experimental-image-proxy"),
                home=self.home,
                environment=environment,
            ) as proxy:
                self.assertEqual(proxy.parent.ask("Initialize").value, "0.2.8")
                remote = proxy.parent.ask("OpenImage", f"docker://{registry.address}/{NAME}:t").value
                arguments = (remote, str(digest_of(self.content.layer)), len(self.content.layer))
                self.assertTrue(proxy.parent.fetch("GetBlob", *arguments)[1] == self.content.layer)
                local = proxy.parent.ask("OpenImage", f"oci-archive:{packed}:t").value
                self.assertEqual(proxy.parent.fetch("GetManifest", local)[1], images.MANIFEST_M)
                signed = proxy.parent.ask("OpenImage", f"dir:{self.scratch}/signed").value
                self.assertEqual(proxy.parent.fetch("GetManifest", signed)[1], images.MANIFEST_M)
                self.assertIn("NoNewPrivs:\t1", Path(f"/proc/{proxy.process.pid}/status").read_text())

    def signed_image(self) -> str:
        """A `dir:` image with a signature by a key of its own; the option for a policy that asks for it."""
        directory = self.scratch / "signed"
        policy = self.scratch / "policy.json"
        if not directory.exists():
            directory.mkdir()
            (directory / "version").write_text("Directory Transport Version: 1.1\n")
            (directory / "manifest.json").write_bytes(images.MANIFEST_M)
            with GpgHome() as home:
                key = home.create_key("signer")
                text = payload("example.com/os:1", str(digest_of(images.MANIFEST_M)))
                (directory / "signature-1").write_bytes(home.sign(text, key))
                ring = base64.b64encode(home.export(key)).decode()
            requirement = {
                "type": "signedBy",
                "keyType": "GPGKeys",
                "keyData": ring,
                "signedIdentity": {"type": "exactReference", "dockerReference": "example.com/os:1"},
            }
            accept = [{"type": "insecureAcceptAnything"}]
            policy.write_text(json.dumps({"default": accept, "transports": {"dir": {"": [requirement]}}}))
        return f"--policy={policy}"


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""The HTTP conversation with `python3 -m cip` as a child, over layouts: every row of wire.md section 16."""

import configparser
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import venv
from collections.abc import Sequence
from pathlib import Path

from cip.model.descriptor import Digest, digest_of
from cip.wire.httpserver import SEND_BUFFER
from tests.support import images
from tests.support.parent import MODULE, PATIENCE, ROOT, Answer, Line, Pipes, running
from tests.support.peers import clean_environment, free_port

ACCEPT = {"default": [{"type": "insecureAcceptAnything"}]}
REJECT = {"default": [{"type": "reject"}]}
BEYOND_BUFFERS = 3 * SEND_BUFFER  # bytes; the kernel keeps twice what was asked for at most
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


def blob(digest: Digest) -> str:
    return f"/blobs/{digest}"


class Conversations(unittest.TestCase):
    """A scratch directory with a policy; every test must leave no descriptor behind, `running` looks after children."""

    def setUp(self) -> None:
        before = sorted(os.listdir("/proc/self/fd"))
        self.addCleanup(lambda: self.assertEqual(sorted(os.listdir("/proc/self/fd")), before))
        self.scratch = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="cip-http-")))
        self.policy = self.write_policy(ACCEPT)

    def write_policy(self, policy: object, name: str = "policy.json") -> str:
        path = self.scratch / name
        path.write_text(json.dumps(policy), encoding="utf-8")
        return f"--policy={path}"

    def layout(self, make: object = images.f1) -> str:
        assert callable(make)
        make(self.scratch / "layout")
        return f"oci:{self.scratch}/layout:t"

    def exchange(self, *requests: tuple[str, ...], image: str, status: int = 0) -> list[Answer]:
        """The answers to some requests in one conversation."""
        with running(self.policy, image, status=status) as proxy:
            return [proxy.line.ask(*request) for request in requests]


class Served(Conversations):
    def test_manifest_and_blobs_byte_for_byte_c1_c3_c4(self) -> None:
        manifest, head, layer, config = self.exchange(
            ("GET", "/manifest"),
            ("HEAD", "/manifest"),
            ("GET", blob(images.DIGEST_T)),
            ("GET", blob(images.DIGEST_C)),
            image=self.layout(),
        )
        self.assertEqual((manifest.status, manifest.body), (200, images.MANIFEST_M))
        for answer in (manifest, head):
            self.assertEqual(answer.field("Manifest-Digest"), str(images.DIGEST_M))
            self.assertEqual(answer.field("Content-Type"), MANIFEST_TYPE)
            self.assertEqual(answer.field("Content-Length"), "398")
        self.assertEqual((layer.body, config.body), (images.LAYER_T, images.CONFIG_C))

    def test_a_docker_manifest_is_converted_and_its_config_served_c2(self) -> None:
        manifest, config = self.exchange(
            ("GET", "/manifest"), ("GET", blob(images.DIGEST_C)), image=self.layout(images.f2)
        )
        self.assertEqual(manifest.body, images.MANIFEST_M)
        self.assertEqual(manifest.field("Manifest-Digest"), str(images.DIGEST_S))
        self.assertEqual(config.body, images.CONFIG_C)

    def test_the_index_is_named_beside_the_instance(self) -> None:
        layout = images.Layout(self.scratch / "layout")
        entries = []
        for architecture in ("s390x", "amd64"):
            manifest = images.manifest(images.CONFIG_C, [images.LAYER_T, architecture.encode()])
            for data in (images.CONFIG_C, images.LAYER_T, architecture.encode(), manifest):
                layout.add_blob(data)
            entries.append(images.entry(manifest, platform={"os": "linux", "architecture": architecture}))
        index = images.index(entries)
        layout.add_manifest(index, "application/vnd.oci.image.index.v1+json", name="t")
        with running(self.policy, "--override-arch=s390x", f"oci:{self.scratch}/layout:t") as proxy:
            answer = proxy.line.ask("GET", "/manifest")
        self.assertEqual(answer.field("Manifest-Index-Digest"), str(digest_of(index)))
        self.assertEqual(answer.field("Manifest-Digest"), str(digest_of(answer.body)))
        self.assertIn(str(digest_of(b"s390x")), answer.body.decode())

    def test_a_flipped_big_blob_ends_short_c5(self) -> None:
        bad = images.bad(self.scratch / "bad")
        with running(self.policy, f"oci:{self.scratch}/bad:t", status=1) as proxy:
            answer = proxy.line.ask("GET", blob(bad.layer.digest))
            self.assertEqual((answer.status, answer.field("Content-Length")), (200, str(len(bad.content))))
            self.assertFalse(answer.complete)
            self.assertTrue(proxy.line.at_end())
            self.assertEqual(proxy.wait(), 1)
            self.assertRegex(
                proxy.stderr(),
                r"ERROR: an answer was cut short after .*expected digest sha256:[0-9a-f]{64}, found sha256:",
            )

    def test_a_flipped_small_blob_is_an_honest_error_c6(self) -> None:
        bad = images.bad(self.scratch / "bad", size=100)
        wrong, manifest = self.exchange(
            ("GET", blob(bad.layer.digest)), ("GET", "/manifest"), image=f"oci:{self.scratch}/bad:t"
        )
        self.assertEqual((wrong.status, wrong.problem()["type"]), (502, "content-mismatch"))
        self.assertEqual(manifest.status, 200)

    def test_a_blob_longer_than_its_descriptor_is_never_served_c7(self) -> None:
        big = images.big(self.scratch / "big")
        with big.layout.blob_path(big.layer.digest).open("ab") as file:
            file.write(b"x")
        (answer,) = self.exchange(("GET", blob(big.layer.digest)), image=f"oci:{self.scratch}/big:t")
        self.assertEqual((answer.status, answer.problem()["type"]), (502, "content-mismatch"))

    def test_a_whole_blob_although_a_range_was_asked_c21(self) -> None:
        (answer,) = self.exchange(("GET", blob(images.DIGEST_T), "Range: bytes=0-3"), image=self.layout())
        self.assertEqual((answer.status, answer.body), (200, images.LAYER_T))

    def test_absolute_target_c19(self) -> None:
        (answer,) = self.exchange(("GET", "http://x/manifest"), image=self.layout())
        self.assertEqual(answer.body, images.MANIFEST_M)


class Refused(Conversations):
    def test_paths_digests_and_methods_c10_c11_c12_c14_c20(self) -> None:
        unknown = "0" * 64
        for request, status, code in (
            (("GET", "/blobs/sha256:abc"), 400, "digest-invalid"),
            (("GET", "/blobs/"), 400, "digest-invalid"),
            (("GET", "/blobs/md5:" + "0" * 32), 400, "digest-unsupported"),
            (("GET", f"/blobs/a/{images.DIGEST_T}"), 404, "path-unknown"),
            (("GET", "/foo"), 404, "path-unknown"),
            (("GET", f"/blobs/sha256:{unknown}"), 404, "blob-not-in-image"),
            (("GET", f"/blobs/{images.DIGEST_M}"), 404, "blob-not-in-image"),
            (("abcPOST", "/quit"), 501, "request-invalid"),
        ):
            with self.subTest(request):
                refused, answered = self.exchange(request, ("GET", "/manifest"), image=self.layout())
                self.assertEqual((refused.status, refused.problem()["type"]), (status, code))
                self.assertEqual(answered.status, 200)
        (options,) = self.exchange(("OPTIONS", "*"), image="oci:/nowhere")
        self.assertEqual((options.status, options.field("Allow")), (204, "GET, HEAD, POST, OPTIONS"))

    def test_a_method_with_a_body_then_quit_c13(self) -> None:
        with running(self.policy, self.layout()) as proxy:
            refused = proxy.line.ask("POST", "/manifest", "Content-Length: 3", body=b"abc")
            self.assertEqual((refused.status, refused.field("Allow")), (405, "GET, HEAD, OPTIONS"))
            self.assertEqual(proxy.line.ask("POST", "/quit").status, 200)
            self.assertEqual(proxy.wait(), 0)

    def test_framing_c15_c16_c24(self) -> None:
        head = b"GET /manifest HTTP/1.1\r\nHost: x\r\n"
        for name, request, status, exit_status in (
            ("no host", b"GET /manifest HTTP/1.1\r\n\r\n", 400, 0),
            ("two hosts", head + b"Host: x\r\n\r\n", 400, 0),
            ("HTTP/2", b"GET /manifest HTTP/2.0\r\n\r\n", 505, 1),
            ("garbage", b"GARBAGE\r\n\r\n", 400, 1),
            ("one length twice", head + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400, 1),
            ("two lengths", head + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400, 1),
            ("signed length", head + b"Content-Length: +1\r\n\r\nx", 400, 1),
            ("length and chunks", head + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx", 400, 1),
            ("long line", b"GET /" + b"a" * 20480 + b" HTTP/1.1\r\n\r\n", 414, 1),
            ("long fields", head + b"A: " + b"b" * 102400 + b"\r\n\r\n", 431, 1),
        ):
            with self.subTest(name), running(self.policy, self.layout(), status=exit_status) as proxy:
                proxy.line.send(request)
                answer = proxy.line.answer()
                self.assertEqual((answer.status, answer.problem()["type"]), (status, "request-invalid"))
                if exit_status:
                    self.assertTrue(proxy.line.at_end())
                else:
                    self.assertEqual(proxy.line.ask("GET", "/manifest").status, 200)

    def test_references_c26(self) -> None:
        for reference, status, code in (
            ("bogus", 400, "reference-invalid"),
            ("docker:busybox", 400, "reference-invalid"),
            ("docker://UPPER", 400, "reference-invalid"),
            ("ostree:x", 501, "transport-unsupported"),
            (self.layout() + "x", 404, "image-not-found"),
            (f"oci:{self.scratch}/nowhere", 500, "source-unavailable"),
        ):
            with self.subTest(reference):
                first, second, other = self.exchange(
                    ("GET", "/manifest"), ("GET", "/manifest"), ("GET", "/foo"), image=reference
                )
                for answer in (first, second):
                    self.assertEqual((answer.status, answer.problem()["type"]), (status, code))
                self.assertEqual(other.status, 404)

    def test_an_unreachable_registry_c27(self) -> None:
        with running(self.policy, "--retry-times=0", f"docker://127.0.0.1:{free_port()}/a") as proxy:
            answer = proxy.line.ask("GET", "/manifest")
        problem = answer.problem()
        self.assertEqual((answer.status, problem["type"], problem["retryable"]), (502, "connection-refused", True))

    def test_by_the_policy_c28(self) -> None:
        with running(self.write_policy(REJECT), self.layout()) as proxy:
            for _ in range(2):
                answer = proxy.line.ask("GET", "/manifest")
                self.assertEqual((answer.status, answer.problem()["type"]), (403, "policy-rejected"))
            self.assertEqual(proxy.line.ask("GET", blob(images.DIGEST_T)).status, 403)

    def test_without_a_usable_policy(self) -> None:
        broken = self.write_policy({"default": []}, "broken.json")
        for name, argument, code in (
            ("missing", f"--policy={self.scratch}/missing.json", "policy-missing"),
            ("broken", broken, "policy-invalid"),
        ):
            with self.subTest(name), running(argument, self.layout()) as proxy:
                answer = proxy.line.ask("GET", "/manifest")
                self.assertEqual((answer.status, answer.problem()["type"]), (500, code))

    def test_a_failed_opening_is_tried_again(self) -> None:
        images.Layout(self.scratch / "layout")
        with running(self.policy, f"oci:{self.scratch}/layout:t") as proxy:
            self.assertEqual(proxy.line.ask("GET", "/manifest").status, 404)
            images.f1(self.scratch / "layout")
            self.assertEqual(proxy.line.ask("GET", "/manifest").status, 200)


class Ends(Conversations):
    def test_quit_with_bodies_and_expectations_c17_c18(self) -> None:
        with running(self.policy, self.layout()) as proxy:
            self.assertEqual(
                proxy.line.ask("POST", "/quit", "Transfer-Encoding: chunked", body=b"0\r\n\r\n").status, 200
            )
            self.assertTrue(proxy.line.at_end())
        with running(self.policy, self.layout()) as proxy:
            self.assertEqual(proxy.line.ask("POST", "/quit", "Content-Length: 3", "Expect: 100-continue").status, 100)
            proxy.line.send(b"abc")
            self.assertEqual(proxy.line.answer().status, 200)
            self.assertTrue(proxy.line.at_end())

    def test_connection_close_and_http_1_0_c22_c23(self) -> None:
        for request in (
            b"GET /manifest HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            b"GET /manifest HTTP/1.0\r\n\r\n",
        ):
            with self.subTest(request), running(self.policy, self.layout()) as proxy:
                proxy.line.send(request)
                answer = proxy.line.answer()
                self.assertEqual((answer.body, answer.field("Connection")), (images.MANIFEST_M, "close"))
                self.assertTrue(proxy.line.at_end())
                self.assertEqual(proxy.wait(), 0)

    def test_a_truncated_request_c25(self) -> None:
        with running(self.policy, self.layout(), status=1) as proxy:
            proxy.line.send(b"GET /manifest HTTP/1.1\r\nHo")

    def test_no_request_at_all(self) -> None:
        with running(self.policy, self.layout()) as proxy:
            pass
        self.assertEqual(proxy.process.returncode, 0)

    def test_an_answer_left_unread(self) -> None:
        with running(self.policy, self.layout()) as proxy:
            proxy.line.send(b"GET /manifest HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(proxy.line.sock.recv(10, socket.MSG_PEEK | socket.MSG_WAITALL), b"HTTP/1.1 2")

    def test_a_parent_gone_in_mid_body(self) -> None:
        big = images.big(self.scratch / "big", size=BEYOND_BUFFERS)
        with running(self.policy, f"oci:{self.scratch}/big:t", status=1) as proxy:
            proxy.line.send(f"GET {blob(big.layer.digest)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            self.assertEqual(len(proxy.line.sock.recv(1000)), 1000)

    def test_a_parent_gone_while_the_registry_is_silent(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            patient = ("--idle-timeout=600", "--open-timeout=600", "--connect-timeout=600", "--tls-verify=false")
            with running(self.policy, *patient, f"docker://127.0.0.1:{port}/a", status=1) as proxy:
                proxy.line.send(b"GET /manifest HTTP/1.1\r\nHost: x\r\n\r\n")
                silent.settimeout(PATIENCE)
                accepted, _ = silent.accept()
                with accepted:
                    self.assertEqual(proxy.hang_up(), 1)  # within PATIENCE, a twentieth of what we would wait

    def test_a_signal_while_the_parent_does_not_read(self) -> None:
        big = images.big(self.scratch / "big", size=BEYOND_BUFFERS)
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number.name), running(self.policy, f"oci:{self.scratch}/big:t", status=-number) as proxy:
                proxy.line.send(f"GET {blob(big.layer.digest)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                self.assertEqual(len(proxy.line.sock.recv(1000)), 1000)
                proxy.process.send_signal(number)
                self.assertEqual(proxy.wait(), -number)

    def test_a_slow_parent_gets_everything(self) -> None:
        big = images.big(self.scratch / "big", size=BEYOND_BUFFERS)
        with running(self.policy, "--stall-timeout=1", "--idle-timeout=1", f"oci:{self.scratch}/big:t") as proxy:
            proxy.line.send(f"GET {blob(big.layer.digest)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            time.sleep(1.5)  # longer than the clocks that watch the source
            self.assertEqual(digest_of(proxy.line.answer().body), big.layer.digest)


class Started(Conversations):
    def test_wrong_usage_is_2_and_a_wrong_descriptor_1(self) -> None:
        with (self.scratch / "file").open("wb") as file, socket.socket() as lonely:
            seqpacket = socket.socketpair(type=socket.SOCK_SEQPACKET)
            with seqpacket[0], seqpacket[1]:
                for arguments, status, reason in (
                    ([], 2, "expected one image name, found 0"),
                    (["a", "b"], 2, "expected one image name, found 2"),
                    (["--nope", "a"], 2, "--nope"),
                    (["--sockfd=x", "a"], 2, "--sockfd"),
                    (["--creds=a:b", "--no-creds", "a"], 2, "--no-creds contradicts"),
                    (["--sockfd=999", "a"], 1, "descriptor 999: bad file descriptor"),
                    ([f"--sockfd={file.fileno()}", "a"], 1, "socket operation on non-socket"),
                    ([f"--sockfd={lonely.fileno()}", "a"], 1, "not connected"),
                    (
                        [f"--sockfd={seqpacket[0].fileno()}", "a"],
                        1,
                        "expected a SOCK_STREAM socket, found SOCK_SEQPACKET",
                    ),
                ):
                    with self.subTest(arguments):
                        done = subprocess.run(
                            [*MODULE, *arguments],
                            cwd=ROOT,
                            capture_output=True,
                            text=True,
                            stdin=subprocess.DEVNULL,
                            timeout=PATIENCE,
                            check=False,
                            pass_fds=[file.fileno(), lonely.fileno(), seqpacket[0].fileno()],
                        )
                        self.assertEqual((done.returncode, done.stdout), (status, ""), done.stderr)
                        self.assertRegex(done.stderr, rf"\Acontainer-image-proxy: ERROR: .*{reason}.*\n\Z")

    def test_on_two_pipes(self) -> None:
        big = images.big(self.scratch / "big")
        with running(self.policy, f"oci:{self.scratch}/big:t", pipes=True) as proxy:
            self.assertEqual(digest_of(proxy.line.ask("GET", blob(big.layer.digest)).body), big.layer.digest)
            proxy.line.send(b"GET /manifest HTTP/1.1\r\nHost: x\r\n\r\n")
            assert isinstance(proxy.line.channel, Pipes)
            proxy.line.channel.end_requests()
            self.assertEqual(proxy.line.answer().status, 200)
            self.assertTrue(proxy.line.at_end())
            self.assertEqual(proxy.wait(), 0)

    def test_on_a_stdin_that_is_empty_it_says_what_it_expected(self) -> None:
        done = subprocess.run(
            [*MODULE, self.policy, self.layout()], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        self.assertEqual((done.returncode, done.stdout), (0, ""))
        self.assertRegex(done.stderr, r"\A\S+: WARNING: stdin ended before a request: expected HTTP .*--sockfd\n\Z")

    def test_on_two_pipes_whose_reader_leaves(self) -> None:
        big = images.big(self.scratch / "big")
        with running(self.policy, f"oci:{self.scratch}/big:t", pipes=True, status=1) as proxy:
            proxy.line.send(f"GET {blob(big.layer.digest)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            self.assertEqual(len(proxy.line.channel.recv(1000)), 1000)

    def test_on_a_socket_that_is_stdin_and_stdout(self) -> None:
        ours, theirs = socket.socketpair()
        with Line(ours) as line:
            with theirs:
                process = subprocess.Popen(
                    [*MODULE, self.policy, self.layout()], stdin=theirs.fileno(), stdout=theirs.fileno(), cwd=ROOT
                )
            self.assertEqual(line.ask("GET", "/manifest").body, images.MANIFEST_M)
            self.assertEqual(line.ask("POST", "/quit").status, 200)
            self.assertTrue(line.at_end())
            self.assertEqual(process.wait(PATIENCE), 0)

    def test_with_a_log_that_nobody_reads_it_serves_on(self) -> None:
        """1,500 failures of more than 100 bytes, where a pipe takes 64 KiB."""
        ours, theirs = socket.socketpair()
        with Line(ours) as line, theirs:
            process = subprocess.Popen(
                [*MODULE, self.policy, f"--sockfd={theirs.fileno()}", f"oci:{self.scratch}/{'absent' * 10}"],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=clean_environment(self.scratch),
            )
            theirs.close()
            for _ in range(1500):
                self.assertGreaterEqual(line.ask("GET", "/manifest").status, 400)
            self.assertEqual(line.ask("POST", "/quit").status, 200)
            self.assertEqual(process.wait(PATIENCE), 0)
            assert process.stderr is not None
            with process.stderr as stderr:
                said = stderr.read()
        self.assertGreater(len(said), 60_000)
        self.assertTrue(all(text.startswith(b"container-image-proxy: ERROR: ") for text in said.splitlines()))

    def test_in_every_way_it_can_be_started(self) -> None:
        for name, command in self.commands().items():
            with self.subTest(name), running(self.policy, self.layout(), command=command) as proxy:
                self.assertEqual(proxy.line.ask("GET", "/manifest").body, images.MANIFEST_M)
                self.assertEqual(proxy.line.ask("GET", blob(images.DIGEST_T)).body, images.LAYER_T)

    def commands(self) -> dict[str, Sequence[str]]:
        """An environment that sees the checkout as an installation does, with the command that a wheel brings."""
        base = self.scratch / "environment"
        venv.create(base, symlinks=True)
        python = str(base / "bin" / "python3")
        (site,) = base.glob("lib/python3*/site-packages")
        (site / "checkout.pth").write_text(f"{ROOT}\n", encoding="utf-8")
        configuration = configparser.ConfigParser()
        configuration.read(ROOT / "setup.cfg", encoding="utf-8")
        command = ROOT / configuration["options"]["scripts"].strip()
        shutil.copy(command, base / "bin")
        link = self.scratch / "a link"
        link.symlink_to(base / "bin" / command.name)
        return {
            "command of a wheel": [str(base / "bin" / command.name)],
            "a link to it": [str(link)],
            "isolated": [python, "-I", "-m", "cip"],
            "without user site and working directory": [python, "-sP", "-m", "cip"],
            "warnings are errors": [python, "-I", "-W", "error", "-m", "cip"],
            "optimised": [python, "-I", "-OO", "-m", "cip"],
        }


if __name__ == "__main__":
    unittest.main()

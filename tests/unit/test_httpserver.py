# SPDX-License-Identifier: Apache-2.0
"""The HTTP front end over a socketpair, with an image that a test makes up: wire.md sections 11, 12, 16."""

import contextlib
import hashlib
import http.client
import os
import socket
import threading
import time
import unittest
from collections.abc import Callable, Iterator, Sequence
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast
from unittest import mock

from cip import log
from cip.content import CHUNK, TAIL, WHOLE, BlobAccess, BlobReader, BytesReader
from cip.errors import (
    CipError,
    ContentMismatchError,
    ErrorCode,
    InvalidReferenceError,
    NetworkError,
    NotFoundError,
    PolicyRejectedError,
)
from cip.model.descriptor import UNKNOWN_SIZE, Descriptor, Digest, digest_of
from cip.rooms import present
from cip.wire import httpserver
from cip.wire.fds import adopt_streams
from tests.support.fakeimage import ServedReferrer, no_file
from tests.support.parent import PATIENCE, Line
from tests.support.roomed import needs_rooms

if TYPE_CHECKING:
    from cip.image import Image
    from cip.temporary import TemporaryFile

MANIFEST = b'{"schemaVersion":2}'
LAYER = b"x" * 10240
HAS_UNSIZED = "archives" in present()  # which sends blobs of unknown size
BIG = hashlib.shake_128(b"big").digest(3_000_000)
INDEX = digest_of(b"index")


class FakeReader(BytesReader):
    """A blob that a test spoils: a stated size of its own, an error or a wait behind `good` bytes."""

    def __init__(
        self,
        data: bytes,
        *,
        size: int | None = None,
        good: int | None = None,
        error: Exception | None = None,
        wait: threading.Event | None = None,
    ) -> None:
        super().__init__(data if good is None else data[:good])
        self.size = len(data) if size is None else size
        self._error = error
        self._wait = wait
        self.closed = 0

    def readinto(self, buffer: memoryview, /) -> int:
        count = super().readinto(buffer)
        if not count and self._wait is not None:
            self._wait.wait(PATIENCE)
        if not count and self._error is not None:
            raise self._error
        return count

    def close(self) -> None:
        self.closed += 1


class FakeImage:
    """The part of `Image` that the front end calls."""

    reference = "fake:"

    def __init__(self, blobs: Sequence[bytes] = (LAYER, BIG, b""), *, index: Digest | None = None) -> None:
        self.fetchable_manifest = MANIFEST
        self.accepted = SimpleNamespace(digest=digest_of(b"original"), index_digest=index)
        self.blobs = {digest_of(blob): Descriptor("type", digest_of(blob), len(blob)) for blob in blobs}
        self.readers: dict[Digest, FakeReader] = {digest_of(blob): FakeReader(blob) for blob in blobs}
        self.opened: list[tuple[Digest, BlobAccess]] = []
        self.listed: dict[Digest, ServedReferrer] = {}
        self.closed = 0

    def referrers(self) -> SimpleNamespace:
        return SimpleNamespace(index=lambda kind: (f"list of {kind}".encode(), 0), manifest=self._referrer)

    def _referrer(self, digest: Digest) -> ServedReferrer:
        if digest not in self.listed:
            raise NotFoundError(f"{digest} is not listed", code=ErrorCode.BLOB_NOT_IN_IMAGE)
        return self.listed[digest]

    def describe_blob(self, digest: Digest) -> Descriptor:
        if digest not in self.blobs:
            raise NotFoundError(
                f"the image names no blob {digest}", code=ErrorCode.BLOB_NOT_IN_IMAGE, digest=str(digest)
            )
        return self.blobs[digest]

    def open_blob(self, digest: Digest, access: BlobAccess) -> BlobReader:
        self.opened.append((digest, access))
        return self.readers[digest]

    def close(self) -> None:
        self.closed += 1

    def with_blob(self, data: bytes, *, size: int | None = None, reader: FakeReader) -> str:
        """Add a blob whose descriptor says `size` and the digest of `data`; the target to ask it by."""
        digest = digest_of(data)
        self.blobs[digest] = Descriptor("type", digest, len(data) if size is None else size)
        self.readers[digest] = reader
        return f"/blobs/{digest}"


def blob(data: bytes) -> str:
    return f"/blobs/{digest_of(data)}"


class Conversations(unittest.TestCase):
    """Serves one connection in a thread; every test must leave no thread and no descriptor behind."""

    def setUp(self) -> None:
        descriptors, threads = sorted(os.listdir("/proc/self/fd")), threading.active_count()
        self.addCleanup(lambda: self.assertEqual(sorted(os.listdir("/proc/self/fd")), descriptors))
        self.addCleanup(lambda: self.assertEqual(threading.active_count(), threads))
        self.logged: list[str] = []
        self.enterContext(mock.patch.object(log, "error", lambda text, *rest: self.logged.append(text % rest)))
        self.image = FakeImage()
        self.settled: list[list[object]] = []
        self.status: int | None = None

    def make_file(self) -> "TemporaryFile":
        return no_file()

    def settle(self) -> None:
        """What is done between the two halves of a conversation; keeps which blobs had been opened then."""
        self.settled.append(list(self.image.opened))

    @contextlib.contextmanager
    def serving(self, open_image: Callable[[], FakeImage] | None = None, *, status: int | None = 0) -> Iterator[Line]:
        """A line to a server; `status` is the exit status it must end with once the line is closed (None: whatever)."""
        ours, theirs = socket.socketpair()
        opener = cast("Callable[[], Image]", open_image or (lambda: self.image))

        def serve() -> None:
            with theirs, contextlib.closing(httpserver.on_socket(theirs, opener, self.make_file)) as conversation:
                if conversation.begin():
                    self.settle()
                    conversation.run()
                self.status = conversation.exit_status

        server = threading.Thread(target=serve)
        with Line(ours) as line:
            server.start()
            try:
                yield line
            finally:
                ours.close()
                server.join(PATIENCE)
        self.assertFalse(server.is_alive())
        self.assertIn(status, (self.status, None))


class Manifest(Conversations):
    def test_is_served_with_its_digest_c1(self) -> None:
        with self.serving() as line:
            answer = line.ask("GET", "/manifest")
        self.assertEqual((answer.status, answer.reason, answer.body), (200, "OK", MANIFEST))
        self.assertEqual(answer.field("Content-Type"), "application/vnd.oci.image.manifest.v1+json")
        self.assertEqual(answer.field("Manifest-Digest"), str(digest_of(b"original")))
        self.assertIsNone(answer.field("Manifest-Index-Digest"))
        parsedate_to_datetime(answer.field("Date") or "")

    def test_names_the_index_it_was_chosen_from(self) -> None:
        with self.serving(lambda: FakeImage(index=INDEX)) as line:
            self.assertEqual(line.ask("GET", "/manifest").field("Manifest-Index-Digest"), str(INDEX))

    def test_has_the_same_head_without_its_body_c3(self) -> None:
        with self.serving() as line:
            wanted = line.ask("GET", "/manifest")
            found = line.ask("HEAD", "/manifest")
            self.assertEqual(line.ask("GET", "/manifest").body, MANIFEST)
        dateless = [[field for field in answer.fields if field[0] != "Date"] for answer in (wanted, found)]
        self.assertEqual(dateless[0], dateless[1])

    def test_is_found_by_the_absolute_and_the_escaped_target_c19(self) -> None:
        with self.serving() as line:
            for target in ("http://x/manifest", "/%6danifest", "/manifest?x=y"):
                with self.subTest(target):
                    self.assertEqual(line.ask("GET", target).body, MANIFEST)


class Opening(Conversations):
    def test_is_opened_by_the_first_request_that_needs_it_and_kept(self) -> None:
        calls = []

        def open_image() -> FakeImage:
            calls.append(1)
            return self.image

        with self.serving(open_image) as line:
            line.ask("GET", "/nowhere")
            line.ask("GET", "/blobs/sha256:abc")
            line.ask("OPTIONS", "/manifest")
            self.assertEqual(len(calls), 0)
            line.ask("GET", "/manifest")
            line.ask("HEAD", blob(LAYER))
            line.ask("GET", blob(LAYER))
            self.assertEqual(len(calls), 1)
        self.assertEqual(self.image.closed, 1)

    def test_is_opened_again_after_a_failure(self) -> None:
        results: list[FakeImage | CipError] = [
            NetworkError("no route", code=ErrorCode.CONNECTION_REFUSED),
            PolicyRejectedError("rejected"),
            self.image,
        ]

        def open_image() -> FakeImage:
            result = results.pop(0)
            if isinstance(result, CipError):
                raise result
            return result

        with self.serving(open_image) as line:
            self.assertEqual([line.ask("GET", "/manifest").status for _ in range(4)], [502, 403, 200, 200])

    def test_once_its_first_answer_is_out_lets_the_program_settle_once(self) -> None:
        with self.serving() as line:
            line.ask("GET", "/nowhere")
            self.assertEqual(self.settled, [])
            for _ in range(2):
                line.ask("GET", blob(LAYER))
        self.assertEqual(self.settled, [[(digest_of(LAYER), BlobAccess.VERIFIED)]])

    def test_whose_opening_fails_is_told_with_the_facts_c26_c27_c28(self) -> None:
        for error, status in (
            (InvalidReferenceError("bogus", "expected a transport"), 400),
            (NetworkError("refused", code=ErrorCode.CONNECTION_REFUSED, host="127.0.0.1:1"), 502),
            (PolicyRejectedError("not accepted", reason="reject"), 403),
            (NetworkError("slow", code=ErrorCode.TIMEOUT), 504),
        ):

            def open_image(error: CipError = error) -> FakeImage:
                raise error

            with self.subTest(status=status), self.serving(open_image) as line:
                for _ in range(2):
                    answer = line.ask("GET", "/manifest")
                    self.assertEqual(answer.status, status)
                    self.assertEqual(answer.problem()["type"], str(error.code))
                    self.assertEqual(answer.problem()["detail"], str(error))
                    self.assertIs(answer.problem()["retryable"], error.retryable)
                self.assertEqual(line.ask("HEAD", "/manifest").status, status)
                self.assertEqual(line.ask("GET", "/nowhere").status, 404)
            self.assertEqual(self.logged, [str(error)] * 3)  # one line for each try, none for what opens nothing
            self.logged.clear()

    def test_that_the_registry_holds_back_is_told_with_the_time_to_wait(self) -> None:
        def open_image() -> FakeImage:
            raise NetworkError("slow down", code=ErrorCode.RATE_LIMITED, retry_after=1.5)

        with self.serving(open_image) as line:
            answer = line.ask("GET", "/manifest")
        self.assertEqual((answer.status, answer.field("Retry-After")), (503, "2"))


class Blobs(Conversations):
    def test_are_served_as_they_are_c4(self) -> None:
        with self.serving() as line:
            for data in (LAYER, BIG, b""):
                with self.subTest(size=len(data)):
                    answer = line.ask("GET", blob(data))
                    self.assertEqual((answer.status, answer.framing, answer.body), (200, "length", data))
                    self.assertEqual(answer.field("Content-Type"), "application/octet-stream")
        self.assertEqual(self.image.opened[0], (digest_of(LAYER), BlobAccess.VERIFIED))
        self.assertEqual([reader.closed for reader in self.image.readers.values()], [1, 1, 1])

    def test_of_every_size_around_the_chunks_are_whole(self) -> None:
        edges = (edge + shift for edge in (TAIL, WHOLE, CHUNK, 2 * CHUNK - TAIL, 2 * CHUNK) for shift in (-1, 0, 1))
        for size in (1, *edges, 3 * CHUNK):
            for stated in (size, UNKNOWN_SIZE) if HAS_UNSIZED else (size,):
                data = (BIG + BIG)[:size]
                image = FakeImage()
                target = image.with_blob(data, size=stated, reader=FakeReader(data, size=stated))
                self.image = image
                with self.subTest(size=size, stated=stated), self.serving() as line:
                    answer = line.ask("GET", target)
                    self.assertTrue(answer.complete)
                    self.assertEqual(answer.framing, "length" if stated == size else "chunked")
                    self.assertEqual(digest_of(answer.body), digest_of(data))

    def test_have_a_head_with_a_length_although_they_are_not_read(self) -> None:
        with self.serving() as line:
            answer = line.ask("HEAD", blob(BIG))
            self.assertEqual((answer.status, answer.field("Content-Length")), (200, "3000000"))
            self.assertEqual(line.ask("GET", "/manifest").body, MANIFEST)
        self.assertEqual(self.image.opened, [])

    def test_of_unknown_size_have_a_head_without_a_length(self) -> None:
        target = self.image.with_blob(b"y", size=UNKNOWN_SIZE, reader=FakeReader(b"y"))
        with self.serving() as line:
            answer = line.ask("HEAD", target)
        self.assertEqual((answer.status, answer.field("Content-Length")), (200, None))

    def test_are_served_whole_although_a_range_was_asked_c21(self) -> None:
        with self.serving() as line:
            answer = line.ask("GET", blob(LAYER), "Range: bytes=0-3", 'If-None-Match: "x"')
        self.assertEqual((answer.status, answer.body, answer.field("Accept-Ranges")), (200, LAYER, "none"))

    def test_that_the_image_does_not_name_are_not_found_c12(self) -> None:
        with self.serving() as line:
            for algorithm, digits in (("sha256", 64), ("sha384", 96), ("sha512", 128)):
                problem = line.ask("GET", f"/blobs/{algorithm}:" + "0" * digits).problem()
                self.assertEqual((problem["status"], problem["type"]), (404, "blob-not-in-image"))

    def test_by_no_digest_are_refused_c10(self) -> None:
        with self.serving() as line:
            for name, code in (
                ("sha256:abc", "digest-invalid"),
                ("", "digest-invalid"),
                ("md5:" + "0" * 32, "digest-unsupported"),
                ("sha256:" + "A" * 64, "digest-invalid"),
                ("sha256:" + "0" * 64 + "%0a", "digest-invalid"),
                (str(digest_of(LAYER)) + "%00", "digest-invalid"),
            ):
                with self.subTest(name):
                    problem = line.ask("GET", f"/blobs/{name}").problem()
                    self.assertEqual((problem["status"], problem["type"]), (400, code))

    def test_that_fail_before_the_first_byte_are_an_honest_error_c6(self) -> None:
        wrong = b"y" + LAYER[1:]
        for name, reader, code in (
            ("flipped", FakeReader(wrong), "content-mismatch"),
            ("short", FakeReader(LAYER, good=100), "content-mismatch"),
            ("empty", FakeReader(LAYER, good=0), "content-mismatch"),
            ("long", FakeReader(LAYER + b"y", size=len(LAYER)), "content-mismatch"),
            ("lost", FakeReader(LAYER, good=100, error=NetworkError("cut")), "connection-lost"),
            ("another size", FakeReader(LAYER + b"y"), "content-mismatch"),
        ):
            target = self.image.with_blob(LAYER, reader=reader)
            with self.subTest(name), self.serving() as line:
                answer = line.ask("GET", target)
                self.assertEqual((answer.status, answer.problem()["type"]), (502, code))
                self.assertEqual(line.ask("GET", "/manifest").body, MANIFEST)
                self.assertEqual(reader.closed, 1)

    def test_of_another_stated_size_are_refused_before_the_first_byte(self) -> None:
        target = self.image.with_blob(BIG, reader=FakeReader(BIG + b"y"))
        with self.serving() as line:
            problem = line.ask("GET", target).problem()
        self.assertEqual(problem["type"], "content-mismatch")
        self.assertRegex(problem["detail"], "expected 3000000 bytes, the source states 3000001")

    def test_that_fail_late_never_look_complete_c5_c7(self) -> None:
        flipped = BIG[:-1] + bytes([BIG[-1] ^ 1])
        known, unknown = len(BIG), UNKNOWN_SIZE
        cut = NetworkError("cut")
        for name, size, reader, reason in (
            ("flipped", known, FakeReader(flipped), "expected digest"),
            ("short", known, FakeReader(BIG, good=known - 1), "expected 3000000 bytes, found 2999999"),
            ("long", known, FakeReader(BIG + b"y", size=known), "expected 3000000 bytes, found more"),
            ("lost", known, FakeReader(BIG, good=2_000_000, error=cut), "cut"),
            ("flipped", unknown, FakeReader(flipped, size=unknown), "expected digest"),
            ("short", unknown, FakeReader(BIG, size=unknown, good=known - 1), "expected digest"),
            ("lost", unknown, FakeReader(BIG, size=unknown, good=2_000_000, error=cut), "cut"),
        ):
            if size == unknown and not HAS_UNSIZED:
                continue
            self.logged.clear()
            target = self.image.with_blob(BIG, size=size, reader=reader)
            with self.subTest(name, size=size), self.serving(status=1) as line:
                answer = line.ask("GET", target)
                self.assertEqual((answer.status, answer.complete), (200, False))
                self.assertTrue(BIG.startswith(answer.body))
                self.assertLess(len(answer.body), len(BIG))
                self.assertGreater(len(answer.body), 0)
                self.assertTrue(line.at_end())
            self.assertRegex("\n".join(self.logged), reason)
            self.assertEqual(len(self.logged), 1)

    def test_that_can_begin_again_elsewhere_do_so_unnoticed(self) -> None:
        class SecondPlace(FakeReader):
            def restart(self, error: ContentMismatchError) -> bool:
                self._data, self._position = memoryview(LAYER), 0
                return True

        target = self.image.with_blob(LAYER, reader=SecondPlace(b"y" * len(LAYER)))
        with self.serving() as line:
            self.assertEqual(line.ask("GET", target).body, LAYER)

    @needs_rooms("archives")
    def test_of_unknown_size_end_with_the_last_chunk_only_when_verified_c8(self) -> None:
        go_on = threading.Event()
        target = self.image.with_blob(BIG, size=UNKNOWN_SIZE, reader=FakeReader(BIG, size=UNKNOWN_SIZE, wait=go_on))
        with self.serving() as line:
            line.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            begin = b""
            while len(begin) < len(BIG) - 4 * TAIL:
                begin += line.sock.recv(1 << 16)
            line.sock.settimeout(0.05)
            with self.assertRaises(TimeoutError):
                while True:
                    begin += line.sock.recv(1 << 16)
            self.assertLess(len(begin), len(BIG))
            self.assertIn(b"Transfer-Encoding: chunked\r\n", begin)
            self.assertFalse(begin.endswith(b"0\r\n\r\n"))
            line.sock.settimeout(PATIENCE)
            go_on.set()
            rest = b""
            while not rest.endswith(b"\r\n0\r\n\r\n"):
                rest += line.sock.recv(1 << 16)

    def test_whose_size_only_the_source_knows_get_a_length(self) -> None:
        target = self.image.with_blob(LAYER, size=UNKNOWN_SIZE, reader=FakeReader(LAYER))
        with self.serving() as line:
            self.assertEqual(line.ask("GET", target).field("Content-Length"), "10240")


class Http10(Conversations):
    def test_is_answered_and_left_c23(self) -> None:
        with self.serving() as line:
            line.send(b"GET /manifest HTTP/1.0\r\n\r\n")
            answer = line.answer()
            self.assertEqual((answer.body, answer.field("Connection")), (MANIFEST, "close"))
            self.assertTrue(line.at_end())

    def test_stays_where_it_asks_to(self) -> None:
        with self.serving() as line:
            for _ in range(2):
                answer = line.ask("GET", "/manifest", "Connection: keep-alive", version="1.0")
                self.assertEqual((answer.body, answer.field("Connection")), (MANIFEST, "keep-alive"))


class Requests(Conversations):
    def test_for_other_paths_are_not_found_c11(self) -> None:
        with self.serving() as line:
            for target in (
                "/foo",
                "/",
                "/manifest/",
                "//manifest",
                f"/blobs/a/{digest_of(LAYER)}",
                "/blobs",
                "/Manifest",
            ):
                with self.subTest(target):
                    problem = line.ask("GET", target).problem()
                    self.assertEqual((problem["status"], problem["type"]), (404, "path-unknown"))

    def test_by_the_wrong_method_are_told_the_right_ones_c13(self) -> None:
        with self.serving() as line:
            for method, target, allow in (
                ("POST", "/manifest", "GET, HEAD, OPTIONS"),
                ("PUT", blob(LAYER), "GET, HEAD, OPTIONS"),
                ("GET", "/quit", "POST, OPTIONS"),
                ("HEAD", "/quit", "POST, OPTIONS"),
                ("TRACE", "/manifest", "GET, HEAD, OPTIONS"),
                ("CONNECT", "x:80", "GET, HEAD, POST, OPTIONS"),
            ):
                with self.subTest(method=method, target=target):
                    answer = line.ask(method, target, "Content-Length: 3", body=b"abc")
                    self.assertEqual((answer.status, answer.field("Allow")), (405, allow))
            answer = line.ask("POST", "/quit")
            self.assertEqual((answer.status, answer.field("Content-Length")), (200, "0"))
            self.assertTrue(line.at_end())

    def test_by_an_unknown_method_are_not_implemented_c14(self) -> None:
        with self.serving() as line:
            for method in ("abcPOST", "get", "PROPFIND"):
                self.assertEqual(line.ask(method, "/quit").status, 501)

    def test_for_options_are_answered_without_a_body_c20(self) -> None:
        with self.serving() as line:
            for target, allow in (
                ("*", "GET, HEAD, POST, OPTIONS"),
                ("/manifest", "GET, HEAD, OPTIONS"),
                ("/quit", "POST, OPTIONS"),
            ):
                answer = line.ask("OPTIONS", target)
                self.assertEqual((answer.status, answer.field("Allow")), (204, allow))
            self.assertEqual(line.ask("OPTIONS", "/foo").status, 404)

    def test_without_one_host_are_refused_and_the_next_is_answered_c15(self) -> None:
        with self.serving() as line:
            line.send(b"GET /manifest HTTP/1.1\r\n\r\nGET /manifest HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n")
            self.assertEqual([line.answer().status for _ in range(2)], [400, 400])
            self.assertEqual(line.ask("GET", "/manifest").status, 200)

    def test_that_are_refused_but_framed_lose_no_later_one(self) -> None:
        with self.serving() as line:
            line.send(
                b"POST /manifest HTTP/1.1\r\nHost: x\r\nContent-Length: 32\r\n\r\n"
                b"POST /quit HTTP/1.1\r\nHost: x\r\n\r\n"
                b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n"
                b"BREW /pot HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
                b"GET /manifest HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n"
                b"GET /manifest HTTP/1.1\r\nHost: x\r\n\r\n"
            )
            self.assertEqual([line.answer().status for _ in range(5)], [405, 400, 501, 417, 200])

    def test_whose_end_is_in_doubt_are_refused_and_end_the_conversation_c15_c16_c24(self) -> None:
        for name, request, status in (
            ("garbage", b"GARBAGE\r\n\r\n", 400),
            ("other protocol", b"\x16\x03\x01\x00\xa5\n", 400),
            ("version", b"GET / HTTP/2.0\r\n\r\n", 505),
            ("two lengths", b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na", 400),
            ("signed length", b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na", 400),
            ("both", b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("coding", b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
            ("long line", b"GET /" + b"a" * 20480 + b" HTTP/1.1\r\n\r\n", 414),
            ("long fields", b"GET / HTTP/1.1\r\nA: " + b"b" * 102400 + b"\r\n\r\n", 431),
            ("long body", b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n", 413),
            ("expectation", b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: tea\r\n\r\n", 417),
        ):
            self.logged.clear()
            with self.subTest(name), self.serving(status=1) as line:
                self.assertEqual(line.ask("GET", "/manifest").status, 200)
                line.send(request + b"GET /manifest HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = line.answer()
                self.assertEqual((answer.status, answer.field("Connection")), (status, "close"))
                self.assertEqual(answer.problem()["type"], "request-invalid")
                self.assertTrue(line.at_end())
            self.assertEqual(len(self.logged), 1, self.logged)

    def test_whose_body_is_too_long_behind_an_interim_answer_are_refused(self) -> None:
        with self.serving(status=1) as line:
            self.assertEqual(
                line.ask("POST", "/quit", "Transfer-Encoding: chunked", "Expect: 100-continue").status, 100
            )
            line.send(b"100001\r\n")
            self.assertEqual(line.answer().status, 413)
            self.assertTrue(line.at_end())

    def test_of_head_that_are_not_framed_get_no_body_either(self) -> None:
        with self.serving(status=1) as line:
            line.send(b"HEAD / HTTP/1.1\r\nA : b\r\n\r\n")
            self.assertEqual(line.answer("HEAD").status, 400)
            self.assertTrue(line.at_end())

    def test_that_are_pipelined_are_answered_in_order_and_quit_drops_the_rest(self) -> None:
        with self.serving() as line:
            head = b"HTTP/1.1\r\nHost: x\r\n\r\n"
            line.send(
                b"".join(
                    [
                        b"GET /manifest ",
                        head,
                        f"GET {blob(BIG)} ".encode(),
                        head,
                        f"HEAD {blob(BIG)} ".encode(),
                        head,
                        b"GET /foo ",
                        head,
                        b"POST /quit ",
                        head,
                        b"GET /manifest ",
                        head,
                    ]
                )
            )
            self.assertEqual(line.answer().body, MANIFEST)
            self.assertEqual(line.answer().body, BIG)
            self.assertEqual(line.answer("HEAD").status, 200)
            self.assertEqual(line.answer().status, 404)
            self.assertEqual(line.answer().status, 200)
            self.assertTrue(line.at_end())

    def test_to_quit_may_have_a_body_c17_c18(self) -> None:
        for name, fields, body in (
            ("chunks", ["Transfer-Encoding: chunked"], b"0\r\n\r\n"),
            ("length", ["Content-Length: 3"], b"abc"),
        ):
            with self.subTest(name), self.serving() as line:
                answer = line.ask("POST", "/quit", *fields, body=body)
                self.assertEqual((answer.status, answer.field("Connection")), (200, "close"))
                self.assertTrue(line.at_end())
        with self.serving() as line:
            interim = line.ask("POST", "/quit", "Content-Length: 3", "Expect: 100-continue")
            self.assertEqual((interim.status, interim.fields), (100, ()))
            line.send(b"abc")
            self.assertEqual(line.answer().status, 200)
            self.assertTrue(line.at_end())

    def test_to_quit_are_obeyed_although_nobody_waits_for_the_answer(self) -> None:
        with self.serving() as line:
            line.send(b"POST /quit HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(self.logged, [])

    def test_that_close_are_the_last_c22(self) -> None:
        with self.serving() as line:
            line.send(b"GET /manifest HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /manifest HTTP/1.1\r\n\r\n")
            answer = line.answer()
            self.assertEqual((answer.body, answer.field("Connection")), (MANIFEST, "close"))
            self.assertTrue(line.at_end())

    def test_that_end_too_early_are_a_failure_c25(self) -> None:
        for request in (
            b"GET /mani",
            b"GET /manifest HTTP/1.1\r\nHost: x\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\n",
        ):
            self.logged.clear()
            with self.subTest(request), self.serving(status=1) as line:
                line.send(request)
                line.sock.shutdown(socket.SHUT_WR)
                self.assertTrue(line.at_end())
            self.assertRegex("\n".join(self.logged), "closed the connection inside a request")

    def test_may_be_none(self) -> None:
        for prefix in (b"", b"\r\n"):
            with self.serving() as line:
                line.send(prefix)


class Heads(Conversations):
    """What `net.lines` lets pass and the front end judges; the rest is in test_lines and test_request_vectors."""

    def refusals(self, *requests: bytes) -> list[str]:
        """The details of what the requests, each on a connection of its own, are refused with."""
        details = []
        for request in requests:
            with self.serving(status=None) as line:
                line.send(request)
                details.append(line.answer().problem()["detail"])
        return details

    def test_of_another_major_version_are_told_which_was_expected(self) -> None:
        for version in ("2.0", "0.9"):
            (detail,) = self.refusals(f"GET / HTTP/{version}\r\nHost: x\r\n\r\n".encode())
            self.assertEqual(detail, f"expected HTTP/1.1, found HTTP/{version}")

    def test_of_another_protocol_are_answered_before_more_comes(self) -> None:
        for line_of_it in (b"GARBAGE\r\n", b"\x16\x03\x01\n", b"GET /manifest\r\n"):
            self.assertEqual(self.refusals(line_of_it)[0][:8], "expected")

    def test_are_refused_without_repeating_what_may_be_a_secret(self) -> None:
        for detail in self.refusals(
            b"GET /manifest HTTP/1.1\r\nAuthorization Bearer s3cret\r\n\r\n",
            b"GET /manifest HTTP/1.1\r\nAuthorization: Bearer s3cret\0\r\n\r\n",
            b"GET manifest?s3cret HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /manifest?s3cret HTTP/9.9\r\nHost: x\r\n\r\n",
            b"GET /a b?s3cret HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            self.assertNotIn("s3cret", detail)

    def test_keep_a_connection_as_the_version_says(self) -> None:
        for version, field, open_afterwards in (
            ("1.1", "A: b", True),
            ("1.9", "A: b", True),
            ("1.1", "Connection: close", False),
            ("1.1", "Connection: x, Close", False),
            ("1.1", "Connection: x\r\nConnection: close", False),
            ("1.1", "Connection: keep-alive", True),
            ("1.0", "A: b", False),
            ("1.0", "Connection: Keep-Alive", True),
            ("1.0", "Connection: keep-alive, close", False),
        ):
            with self.subTest(version=version, field=field), self.serving() as line:
                line.send(f"GET /manifest HTTP/{version}\r\nHost: x\r\n{field}\r\n\r\n".encode() * 2)
                line.sock.shutdown(socket.SHUT_WR)
                self.assertEqual(line.answer().status, 200)
                self.assertIs(line.at_end(), not open_afterwards)

    def test_let_a_sender_go_on_only_where_a_body_was_announced(self) -> None:
        for version, fields, waits in (
            ("1.1", "Expect: 100-Continue\r\nContent-Length: 3", True),
            ("1.1", "Expect: 100-continue\r\nTransfer-Encoding: chunked", True),
            ("1.1", "Expect: 100-continue", False),
            ("1.1", "Expect: 100-continue\r\nContent-Length: 0", False),
            ("1.0", "Expect: 100-continue\r\nContent-Length: 3", False),
        ):
            with self.subTest(version=version, fields=fields), self.serving() as line:
                line.send(f"GET /manifest HTTP/{version}\r\nHost: x\r\n{fields}\r\n\r\n".encode())
                if "Length: 3" in fields and not waits:
                    line.send(b"abc")
                answer = line.answer()
                self.assertEqual(answer.status, 100 if waits else 200)
                if waits:
                    line.send(b"0\r\n\r\n" if "chunked" in fields else b"abc")
                    self.assertEqual(line.answer().status, 200)

    def test_of_which_the_base_takes_some_bytes_for_spaces_lose_no_later_one(self) -> None:
        with self.serving() as line:
            for target in ("/a\xa0b", "/a\x85b", "/caf\xe9"):
                line.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1"))
                self.assertEqual(line.answer().status, 400)
            self.assertEqual(line.ask("GET", "/manifest").status, 200)

    def test_name_one_host_that_can_be_one(self) -> None:
        with self.serving() as line:
            for host, status in (
                ("", 200),
                ("x", 200),
                ("x:", 200),
                ("x:80", 200),
                ("[::1]:80", 200),
                ("xn--a.b", 200),
                ("a b", 400),
                ("x, y", 400),
                ("http://x/", 400),
                ("[::1", 400),
                ("x:y", 400),
                ("u@x", 400),
            ):
                with self.subTest(host):
                    line.send(f"GET /manifest HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                    self.assertEqual(line.answer().status, status)

    def test_leave_nothing_of_an_answer_that_failed_in_the_next_one(self) -> None:
        self.image.accepted.digest = "\u2603"  # which no header can hold
        with self.serving() as line:
            self.assertEqual(line.ask("GET", "/manifest").status, 500)
            self.assertEqual(line.ask("GET", blob(LAYER)).body, LAYER)

    def test_a_time_out_that_nobody_told_is_told(self) -> None:
        def open_image() -> FakeImage:
            raise TimeoutError

        with self.serving(open_image) as line:
            self.assertEqual(line.ask("GET", "/manifest").problem()["type"], "internal")


class Writes(Conversations):
    def test_a_head_and_the_first_bytes_behind_it_leave_together(self) -> None:
        written: list[int] = []
        writev = os.writev

        def counted(fd: int, buffers: Sequence[bytes | memoryview]) -> int:
            written.append(len(buffers))
            return writev(fd, buffers)

        for target, sizes in (("/manifest", [2]), (blob(LAYER), [2]), ("/nowhere", [2]), (blob(b""), [1])):
            written.clear()
            with self.subTest(target), mock.patch.object(os, "writev", counted), self.serving() as line:
                line.ask("GET", target)
            self.assertEqual(written, sizes)
        written.clear()
        with mock.patch.object(os, "writev", counted), self.serving() as line:
            self.assertEqual(line.ask("GET", blob(BIG)).body, BIG)
        self.assertEqual(written[0], 2)


class Parents(Conversations):
    def test_of_the_standard_library_are_understood(self) -> None:
        with self.serving() as line:
            connection = http.client.HTTPConnection("localhost")
            connection.sock = line.sock
            for target, body in (("/manifest", MANIFEST), (blob(BIG), BIG)):
                connection.request("GET", target)
                response = connection.getresponse()
                self.assertEqual((response.status, response.read()), (200, body))
            connection.request("POST", "/quit", body=b"x")
            with connection.getresponse() as response:
                self.assertEqual((response.status, response.read()), (200, b""))
            connection.close()

    def test_that_only_end_their_requests_get_all_answers(self) -> None:
        with self.serving() as line:
            line.send(f"GET {blob(BIG)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            line.sock.shutdown(socket.SHUT_WR)
            self.assertEqual(line.answer().body, BIG)
            self.assertTrue(line.at_end())

    def test_that_leave_an_answer_unread_end_the_conversation_in_peace(self) -> None:
        with self.serving() as line:
            line.send(b"GET /manifest HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(line.sock.recv(10), b"HTTP/1.1 2")
            time.sleep(0.05)

    def test_that_die_in_the_middle_of_a_body_are_a_failure(self) -> None:
        # else the kernel may take all of it before the parent leaves
        with mock.patch.object(httpserver, "SEND_BUFFER", 64 * 1024), self.serving(status=1) as line:
            line.send(f"GET {blob(BIG)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            self.assertEqual(len(line.sock.recv(1000)), 1000)
        self.assertRegex("\n".join(self.logged), "closed the connection before the end of an answer")
        self.assertEqual(self.image.readers[digest_of(BIG)].closed, 1)

    def test_that_are_slow_are_waited_for(self) -> None:
        with self.serving() as line:
            line.send(f"GET {blob(BIG)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            time.sleep(0.05)
            self.assertEqual(line.answer().body, BIG)


class Mistakes(Conversations):
    def test_of_ours_are_answered_without_showing_what_they_say(self) -> None:
        def open_image() -> FakeImage:
            raise ValueError("Bearer s3cret")

        with self.serving(open_image) as line:
            answer = line.ask("GET", "/manifest")
            problem = answer.problem()
            self.assertEqual(
                (problem["status"], problem["type"], problem["detail"]), (500, "internal", "internal error")
            )
            self.assertEqual(line.ask("GET", "/nowhere").status, 404)
        self.assertRegex(
            self.logged[0], r"internal error: ValueError at test_httpserver.py:\d+ open_image, called from"
        )
        self.assertNotIn("s3cret", self.logged[0] + answer.body.decode())

    def test_of_ours_in_a_body_end_it_short(self) -> None:
        target = self.image.with_blob(BIG, reader=FakeReader(BIG, good=2_000_000, error=KeyError("s3cret")))
        with self.serving(status=1) as line:
            answer = line.ask("GET", target)
            self.assertEqual((answer.status, answer.complete), (200, False))
            self.assertTrue(line.at_end())


class Streams(unittest.TestCase):
    def test_two_pipes_carry_the_same_conversation(self) -> None:
        before = sorted(os.listdir("/proc/self/fd"))
        image = FakeImage()
        input_fd, to_server = os.pipe()
        from_server, output_fd = os.pipe()
        statuses: list[int] = []

        def serve() -> None:
            opener = cast("Callable[[], Image]", lambda: image)
            with adopt_streams(input_fd, output_fd) as streams:
                conversation = httpserver.Conversation(*streams, opener, no_file)
                assert conversation.begin()
                conversation.run()
                statuses.append(conversation.exit_status)

        server = threading.Thread(target=serve)
        server.start()
        os.write(to_server, f"GET {blob(BIG)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        os.close(to_server)
        found = b""
        wanted = len(BIG)
        while found.partition(b"\r\n\r\n")[2] != BIG and len(found) < wanted + 1000:
            found += os.read(from_server, 1 << 16)
        server.join(PATIENCE)
        for fd in (input_fd, output_fd, from_server):
            os.close(fd)
        self.assertEqual((found[:15], statuses), (b"HTTP/1.1 200 OK", [0]))
        self.assertEqual(sorted(os.listdir("/proc/self/fd")), before)


if __name__ == "__main__":
    unittest.main()

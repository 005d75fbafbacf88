# SPDX-License-Identifier: Apache-2.0
"""Answers over a socketpair: heads, framing, bodies that end early, and what of http.client they rest on."""

import http.client
import socket
import threading

from cip.errors import CipError, ErrorCode, NetworkError
from cip.model.descriptor import UNKNOWN_SIZE
from cip.net.channel import Channel
from cip.net.limits import Cancellation, Clock, Limits
from cip.net.lines import HEAD_LIMIT
from cip.net.response import DRAIN_LIMIT, GarbledError, Response
from cip.settings import TimeLimits
from tests.support.leaks import LeakCheckedTestCase

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


class ResponseCase(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.connect()

    def connect(self) -> None:
        ours, self.peer = socket.socketpair()
        self.limits = Limits(Clock(), TimeLimits(idle=0.05), Cancellation())
        self.channel = Channel(ours, self.limits, "h:80", "direct")
        self.ends: list[bool] = []
        self.addCleanup(self.peer.close)
        self.addCleanup(self.channel.close)

    def begin(self, method: str = "GET") -> Response:
        response = Response(self.channel, method=method)
        self.addCleanup(response.close)
        response.on_end = self.ends.append
        response.begin()
        return response

    def answer(self, data: bytes, method: str = "GET", *, end: bool = False) -> Response:
        """The answer that `data` is, on a connection of its own; with `end` nothing follows."""
        self.connect()
        self.peer.sendall(data)
        if end:
            self.peer.shutdown(socket.SHUT_WR)
        return self.begin(method)

    def read(self, response: Response, size: int = 1 << 16) -> bytes:
        data, view = b"", memoryview(bytearray(size))
        while count := response.readinto(view):
            data += view[:count]
        return data


class HeadTest(ResponseCase):
    def test_status_and_fields_are_read_whatever_ends_the_head(self) -> None:
        for end in (b"\r\n\r\n", b"\n\n", b"\n\r\n", b"\r\n\n"):
            with self.subTest(end):
                response = self.answer(OK + b"A: 1\r\na:  2" + end)
                self.assertEqual((response.status, response.headers.get_all("a")), (200, ["1", "2"]))

    def test_a_head_may_come_in_pieces(self) -> None:
        def drip() -> None:
            for byte in OK + b"A: 1\r\n\r\n":
                self.peer.sendall(bytes((byte,)))

        thread = threading.Thread(target=drip)
        thread.start()
        self.assertEqual(self.begin().status, 200)
        thread.join()

    def test_interim_answers_are_skipped_but_not_for_ever(self) -> None:
        for interim in (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nContent-Length: 9\r\n\r\n"):
            response = self.answer(interim * 7 + OK + b"Content-Length: 1\r\n\r\nx")
            self.assertEqual((response.status, self.read(response)), (200, b"x"))
            with self.assertRaisesRegex(GarbledError, "interim ones only"):
                self.answer(interim * 8 + OK + b"\r\n")

    def test_a_switch_of_protocols_is_refused(self) -> None:
        with self.assertRaisesRegex(GarbledError, "expected a final answer"):
            self.answer(b"HTTP/1.1 101 Switching\r\n\r\n")

    def test_an_endless_head_is_cut(self) -> None:
        def flood() -> None:
            try:
                self.peer.sendall(OK + b"x" * (2 * HEAD_LIMIT))
            except OSError:
                pass  # the reader has had enough

        thread = threading.Thread(target=flood)
        thread.start()
        with self.assertRaisesRegex(GarbledError, "more than 65536 bytes"):
            self.begin()
        self.channel.sock.close()
        thread.join()

    def test_the_end_says_where_it_came(self) -> None:
        for sent, reason in ((b"", "before its answer"), (b"HTTP/1.1 2", "in the middle of an answer")):
            with self.subTest(sent):
                with self.assertRaisesRegex(NetworkError, rf"h:80: the connection ended {reason} \(direct\)") as caught:
                    self.answer(sent, end=True)
                self.assertIs(caught.exception.code, ErrorCode.CONNECTION_LOST)

    def test_what_is_no_http_names_the_host(self) -> None:
        with self.assertRaisesRegex(GarbledError, r"h:80 \(direct\): expected HTTP/1.1 STATUS REASON, found '<html>'"):
            self.answer(b"<html>\r\n\r\n")

    def test_a_connection_is_kept_as_the_answer_says(self) -> None:
        for head, keeps in (
            (OK + b"Connection: x, Close\r\n", False),
            (b"HTTP/1.1 200\r\n", True),
            (b"HTTP/1.2 200 OK\r\n", True),
            (b"HTTP/1.0 200 OK\r\n", False),
            (b"HTTP/1.0 200 OK\nConnection: Keep-Alive\r\n", True),
            (OK + b"Connection: keep-alive, close\r\n", False),
        ):
            with self.subTest(head):
                response = self.answer(head + b"Content-Length: 1\r\n\r\nx")
                self.assertEqual((self.read(response), self.ends), (b"x", [keeps]))


class BodyTest(ResponseCase):
    def test_a_body_of_known_length_leaves_what_follows(self) -> None:
        response = self.answer(OK + b"Content-Length: 5\r\n\r\nhello HTTP/1.1")
        self.assertEqual((response.size, self.read(response), self.ends), (5, b"hello", [True]))
        self.assertFalse(self.channel.lines.is_idle())

    def test_there_is_none_where_none_can_be(self) -> None:
        for status, method in ((b"204", "GET"), (b"304", "GET"), (b"200", "HEAD"), (b"200", "CONNECT")):
            response = self.answer(b"HTTP/1.1 " + status + b" X\r\nContent-Length: 5\r\n\r\nhello", method)
            self.assertEqual((response.size, self.read(response)), (0, b""))

    def test_a_cut_body_is_an_error_at_every_byte(self) -> None:
        for cut in range(5):
            with self.subTest(cut):
                response = self.answer(OK + b"Content-Length: 5\r\n\r\n" + b"hello"[:cut], end=True)
                with self.assertRaisesRegex(NetworkError, f"ended early: expected 5 bytes, found {cut}") as caught:
                    self.read(response)
                self.assertTrue(caught.exception.retryable)
                response.close()
                self.assertEqual(self.ends, [False])

    def test_without_a_length_the_connection_is_the_end(self) -> None:
        response = self.answer(OK + b"\r\nhello", end=True)
        self.assertEqual((response.size, self.read(response), self.ends), (UNKNOWN_SIZE, b"hello", [False]))

    def test_chunks_are_joined_and_extensions_and_trailers_ignored(self) -> None:
        response = self.answer(CHUNKED + b"2\r\nhe\r\n003;x=y\r\nllo\r\n0\r\nTrailer: x\r\n\r\n")
        self.assertEqual((response.size, self.read(response, 2), self.ends), (UNKNOWN_SIZE, b"hello", [True]))

    def test_garbled_or_cut_chunks_are_errors(self) -> None:
        for data, error, reason in (
            (b"x\r\n", GarbledError, "the size of a chunk"),
            (b"2\r\nhello\r\n", GarbledError, "the end of a chunk"),
            (b"5\r\nhel", NetworkError, "ended early: expected more, found 3"),
            (b"5\r\nhello\r\n", NetworkError, "the connection ended in the middle of a body"),
        ):
            with self.subTest(data), self.assertRaisesRegex(error, reason):
                self.read(self.answer(CHUNKED + data, end=True))

    def test_one_read_receives_once_and_into_the_caller_s_buffer(self) -> None:
        response = self.answer(OK + b"Content-Length: 9\r\n\r\nhe")
        buffer = bytearray(9)
        self.assertEqual((response.readinto(buffer), buffer[:2]), (2, b"he"))
        with self.assertRaisesRegex(NetworkError, "no byte within 0.05 s"):
            response.readinto(buffer)

    def test_there_is_no_other_way_to_read(self) -> None:
        response = self.answer(OK + b"Content-Length: 1\r\n\r\nx")
        for name in ("read", "read1", "readline", "peek", "__iter__", "__next__"):
            with self.subTest(name), self.assertRaisesRegex(NotImplementedError, "by readinto alone"):
                getattr(response, name)()


class CloseTest(ResponseCase):
    def test_what_is_left_of_a_refusal_is_read_for_the_sake_of_the_connection(self) -> None:
        for status, size, kept in ((404, 5, True), (404, DRAIN_LIMIT + 1, False), (200, 5, False)):
            with self.subTest(status=status, size=size):
                body = b"Content-Length: %d\r\n\r\n" % size + b"x" * size
                self.answer(b"HTTP/1.1 %d X\r\n" % status + body).close()
                self.assertEqual(self.ends, [kept])

    def test_the_end_mark_of_chunks_is_read_on_demand(self) -> None:
        for end, kept in ((b"0\r\n\r\n", True), (b"", False), (b"0\r\n" + b"A: b\r\n" * 300, False)):
            with self.subTest(end[:9]):
                response = self.answer(CHUNKED + b"5\r\nhello\r\n" + end)
                self.assertEqual(response.readinto(bytearray(5)), 5)
                response.read_end()
                response.close()
                self.assertEqual(self.ends, [kept])

    def test_an_answer_that_nobody_closed_is_not_read_by_the_collector(self) -> None:
        self.peer.sendall(b"HTTP/1.1 404 X\r\nContent-Length: 5\r\n\r\n")
        response = Response(self.channel, method="GET")
        response.on_end = self.ends.append
        response.begin()
        del response
        self.assertEqual(self.ends, [False])

    def test_a_bounded_read_closes(self) -> None:
        response = self.answer(OK + b"Content-Length: 9\r\n\r\nhello all")
        with self.assertRaisesRegex(CipError, "it: larger than 4 bytes"):
            response.read_all(4, "it")
        self.assertEqual(self.ends, [False])

    def test_limits_are_not_set_on_what_was_given_back(self) -> None:
        response = self.answer(OK + b"Content-Length: 0\r\n\r\n")
        response.close()
        response.limits = self.limits.until(0.0)
        self.assertIs(self.channel.limits, self.limits)


class LibraryTest(ResponseCase):
    """The undocumented names of http.client that the class rests on."""

    def test_the_end_of_a_body_is_where_the_library_looks_for_it(self) -> None:
        response = self.answer(OK + b"Content-Length: 1\r\n\r\nx")
        self.assertFalse(response.isclosed())
        self.read(response)
        self.assertTrue(response.isclosed() and response.fp is None)

    def test_a_connection_takes_the_next_request_behind_an_end(self) -> None:
        connection = http.client.HTTPConnection("h")
        connection.response_class = Response
        connection.sock = self.channel
        for _ in range(2):
            self.peer.sendall(OK + b"Content-Length: 1\r\n\r\nx")
            connection.request("GET", "/")
            response = connection.getresponse()
            assert isinstance(response, Response)
            self.assertEqual(self.read(response), b"x")
        self.assertIs(connection.sock, self.channel)

    def test_an_answer_that_will_close_is_read_behind_the_close(self) -> None:
        connection = http.client.HTTPConnection("h")
        connection.response_class = Response
        connection.sock = self.channel
        self.peer.sendall(OK + b"Connection: close\r\nContent-Length: 1\r\n\r\nx")
        connection.request("GET", "/")
        response = connection.getresponse()
        assert isinstance(response, Response)
        self.assertIsNone(connection.sock)
        self.assertEqual(self.read(response), b"x")
        self.assertEqual(self.channel.sock.fileno(), -1)

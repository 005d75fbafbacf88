# SPDX-License-Identifier: Apache-2.0
"""The strict line reader, by itself and below the two libraries that take their heads from it."""

import http.client
import unittest
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

from cip.net.lines import (
    HEAD_LIMIT,
    READ_SIZE,
    REQUEST_BODY_LIMIT,
    Answers,
    Chunks,
    EndedError,
    Lines,
    MalformedError,
    Requests,
    framing_of,
)

REQUEST = b"GET /manifest HTTP/1.1\r\nHost: x\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nA: 1\r\n\r\n"


class Pieces:
    """A stream of prepared pieces; counts what was taken."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)
        self.taken = 0

    def receive_into(self, view: memoryview) -> int:
        while self._pieces and not self._pieces[0]:
            self._pieces.pop(0)
        if not self._pieces:
            return 0
        count = min(len(view), len(self._pieces[0]))
        view[:count] = self._pieces[0][:count]
        self._pieces[0] = self._pieces[0][count:]
        self.taken += count
        return count


def lines_of(grammar: type[Answers], *pieces: bytes) -> Lines:
    return Lines(Pieces(*pieces).receive_into, grammar)


def head_of(lines: Lines) -> list[bytes]:
    """The pieces of one head."""
    pieces = [lines.readline()]
    while pieces[-1] not in (b"", b"\r\n"):
        pieces.append(lines.readline())
    return pieces


def headers_of(grammar: type[Answers], *fields: bytes) -> http.client.HTTPMessage:
    first = b"GET / HTTP/1.1" if grammar is Requests else b"HTTP/1.1 200 OK"
    lines = lines_of(grammar, b"\r\n".join((first, *fields, b"", b"")))
    lines.readline()
    return http.client.parse_headers(lines)


def read_chunks(lines: Lines) -> bytes:
    chunks, body = Chunks(lines), b""
    while left := chunks.next():
        part = bytearray(left)
        count = lines.readinto(memoryview(part))
        if not count:
            raise EndedError("inside a chunk")
        chunks.left -= count
        body += part[:count]
    return body


class HeadTest(unittest.TestCase):
    def test_a_head_comes_as_first_line_fields_and_empty_line(self) -> None:
        lines = lines_of(Requests, REQUEST + b"POST / HTTP/1.0\n\nrest")
        self.assertEqual(head_of(lines), [b"GET /manifest HTTP/1.1\r\n", b"Host: x\r\n", b"\r\n"])
        self.assertEqual(head_of(lines), [b"POST / HTTP/1.0\r\n", b"\r\n"])
        self.assertFalse(lines.is_idle())
        view = memoryview(bytearray(9))
        self.assertEqual((lines.readinto(view), bytes(view[:4]), lines.is_idle()), (4, b"rest", True))

    def test_pieces_may_be_cut_anywhere(self) -> None:
        for grammar, text in ((Requests, REQUEST * 2), (Answers, ANSWER * 2)):
            lines = lines_of(grammar, *(bytes([byte]) for byte in text))
            whole = lines_of(grammar, text)
            for _ in range(3):
                self.assertEqual(head_of(lines), head_of(whole))
            self.assertEqual(lines.readline(), b"")

    def test_an_end_inside_a_head_is_no_end_of_the_head(self) -> None:
        for grammar, text in ((Requests, REQUEST), (Answers, ANSWER)):
            for size in range(1, len(text)):
                with self.subTest(text[:size]), self.assertRaises(EndedError):
                    head_of(lines_of(grammar, text[:size]))

    def test_a_few_empty_lines_before_a_request_are_skipped(self) -> None:
        self.assertEqual(
            head_of(lines_of(Requests, b"\r\n\n\r", b"\n" + REQUEST)), head_of(lines_of(Requests, REQUEST))
        )
        self.assertEqual(lines_of(Requests, b"\r\n\r\n").readline(), b"")
        for grammar, text in ((Requests, b"\r\n" * 9 + REQUEST), (Answers, b"\r\n" + ANSWER)):
            with self.subTest(text), self.assertRaisesRegex(MalformedError, "expected .*HTTP/1.1.*, found b?''"):
                lines_of(grammar, text).readline()

    def test_a_first_line_that_is_none_is_refused(self) -> None:
        for line in (
            b"GARBAGE",
            b"GET /",
            b"GET  / HTTP/1.1",
            b"GET / HTTP/1.1 ",
            b" GET / HTTP/1.1",
            b"GET\t/\tHTTP/1.1",
            b"GET / http/1.1",
            b"GET / HTTP/1",
            b"GET / HTTP/1.10",
            b"GET / HTTP/11.1",
            b"G(T / HTTP/1.1",
            b"GET /a b HTTP/1.1",
            b"GET /\0 HTTP/1.1",
            b"GET /\r HTTP/1.1",
            b"G\xc3\xa9T / HTTP/1.1",
            b"\x16\x03\x01\x02",
            b"GET\xa0/ HTTP/1.1",
            b"GET / HTTP/1.1_1",
            b"GET / HTTP/1.1\r",
        ):
            with self.subTest(line), self.assertRaisesRegex(MalformedError, "METHOD TARGET HTTP/1.1") as caught:
                lines_of(Requests, line + b"\r\nHost: x\r\n\r\n").readline()
            self.assertEqual(caught.exception.status, 400)
        for line in (
            b"SSH-2.0-x",
            b"HTTP/2 200",
            b"HTTP/1.1 20",
            b"HTTP/1.1  200 OK",
            b"HTTP/1.1 099 OK",
            b"<html>",
            b"HTTP/1.1 0200 OK",
            b"HTTP/1.x 200 OK",
            b"HTTP/0.9 200 OK",
            b"HTTP/1.1 200OK",
            b"HTTP/1.1 200 \0",
        ):
            with self.subTest(line), self.assertRaisesRegex(MalformedError, "HTTP/1.1 STATUS REASON"):
                lines_of(Answers, line + b"\r\n\r\n").readline()

    def test_a_query_is_never_shown(self) -> None:
        with self.assertRaises(MalformedError) as caught:
            lines_of(Requests, b"GET /a?s3cret x HTTP/1.1\r\n\r\n").readline()
        self.assertNotIn("s3cret", str(caught.exception))

    def test_fields_that_could_be_read_in_two_ways_are_refused(self) -> None:
        for name, line, reason in (
            ("folded", b"A: b\r\n c", "folded"),
            ("folded at once", b" A: b", "folded"),
            ("folded by a tab", b"A: b\r\n\tc", "folded"),
            ("blank before the colon", b"A : b", "a name and a colon"),
            ("no colon", b"Authorization s3cret", "a name and a colon"),
            ("no name", b": b", "a name and a colon"),
            ("name that is no token", b"A(): b", "a name and a colon"),
            ("NUL", b"A: s3cret\0c", "field b?'A': contains a control character"),
            ("bare carriage return", b"A: b\rX: c", "contains a control character"),
            ("carriage return twice", b"A: b\r", "contains a control character"),
        ):
            for grammar in (Requests, Answers):
                with self.subTest(name), self.assertRaisesRegex(MalformedError, reason) as caught:
                    headers_of(grammar, b"X: y", line)
                self.assertEqual(caught.exception.status, 400)
                self.assertNotIn("s3cret", str(caught.exception))

    def test_other_control_characters_are_refused_in_requests_alone(self) -> None:
        for byte in (b"\x01", b"\x0c", b"\x1b", b"\x7f"):
            self.assertEqual(headers_of(Answers, b"A: b" + byte + b"X: c").items(), [("A", f"b{byte.decode()}X: c")])
            with self.subTest(byte), self.assertRaisesRegex(MalformedError, "control character"):
                headers_of(Requests, b"A: b" + byte)

    def test_limits_are_reached_without_complaint(self) -> None:
        target = b"/" + b"a" * (8192 - len(b"GET / HTTP/1.1"))
        self.assertEqual(len(lines_of(Requests, b"GET " + target + b" HTTP/1.1\r\n\r\n").readline()), 8194)
        for grammar in (Requests, Answers):
            self.assertEqual(len(headers_of(grammar, *[b"A: b"] * grammar.field_count)), grammar.field_count)
            room = HEAD_LIMIT - len(b"HTTP/1.1 200 OK\r\nA: ")
            self.assertEqual(len(headers_of(grammar, b"A: " + b"b" * room)["A"]), room)

    def test_too_much_is_refused_before_it_is_held(self) -> None:
        for name, grammar, begin, status in (
            ("request line", Requests, b"GET /" + b"a" * 20_000, 414),
            ("request line by one byte", Requests, b"GET /" + b"a" * (8193 - 14) + b" HTTP/1.1\r\n\r\n", 414),
            ("one field", Requests, b"GET / HTTP/1.1\r\nA: " + b"b" * 100_000, 431),
            ("many bytes", Requests, b"GET / HTTP/1.1\r\n" + (b"A: " + b"b" * 997 + b"\r\n") * 70, 431),
            ("many fields", Requests, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n", 431),
            ("many bytes", Answers, b"HTTP/1.1 200 OK\r\n" + (b"A: " + b"b" * 997 + b"\r\n") * 70, 431),
            ("many fields", Answers, b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 257 + b"\r\n", 431),
            ("no line end", Answers, b"HTTP/1.1 200 " + b"b" * 100_000, 414),
        ):
            with self.subTest(name):
                stream = Pieces(begin, *[b"x" * READ_SIZE] * 100)
                with self.assertRaises(MalformedError) as caught:
                    head_of(Lines(stream.receive_into, grammar))
                self.assertEqual(caught.exception.status, status)
                self.assertLess(stream.taken, HEAD_LIMIT + 2 * READ_SIZE)


class ChunksTest(unittest.TestCase):
    def test_chunks_are_joined_and_leave_what_follows(self) -> None:
        for grammar in (Requests, Answers):
            lines = lines_of(grammar, b"2\r\nhe\r\n0", b"03;x=y\r\nllo\r\n000 \r\nTrailer: x\r\n\r\nnext")
            self.assertEqual(read_chunks(lines), b"hello")
            self.assertEqual(lines.readinto(memoryview(bytearray(9))), 4)

    def test_bare_line_feeds_end_lines_of_answers_alone(self) -> None:
        text = b"5\nhello\n0\n\n"
        self.assertEqual(read_chunks(lines_of(Answers, text)), b"hello")
        with self.assertRaisesRegex(MalformedError, "expected a carriage return"):
            read_chunks(lines_of(Requests, text))

    def test_garbled_or_cut_chunks_are_errors(self) -> None:
        for data, error, reason in (
            (b"x\r\n", MalformedError, "the size of a chunk"),
            (b"-1\r\n", MalformedError, "the size of a chunk"),
            (b"+1\r\n", MalformedError, "the size of a chunk"),
            (b"0x5\r\n", MalformedError, "the size of a chunk"),
            (b"1_0\r\n", MalformedError, "the size of a chunk"),
            (b" 1\r\n", MalformedError, "the size of a chunk"),
            (b"\r\n", MalformedError, "the size of a chunk"),
            (b"1 2\r\n", MalformedError, "the size of a chunk"),
            (b"f" * 16 + b"\r\n", MalformedError, "the size of a chunk"),
            (b"2\r\nhello\r\n", MalformedError, "the end of a chunk"),
            (b"3\r\nabc0\r\n\r\n", MalformedError, "the end of a chunk"),
            (b"0\r\n a: b\r\n\r\n", MalformedError, "folded"),
            (b"0\r\na b\r\n\r\n", MalformedError, "a name and a colon"),
            (b"0\r\n" + (b"A: " + b"b" * 997 + b"\r\n") * 70 + b"\r\n", MalformedError, "trailer: longer"),
            (b"1;" + b"x" * 70_000 + b"\r\n", MalformedError, "chunk line: longer"),
            (b"5\r\nhel", EndedError, "ended|inside"),
            (b"5\r\nhello\r\n", EndedError, "ended inside a chunk line"),
            (b"0\r\n", EndedError, "ended inside a trailer"),
        ):
            for grammar in (Requests, Answers):
                with self.subTest(data[:20]), self.assertRaisesRegex(error, reason):
                    read_chunks(lines_of(grammar, data))

    def test_a_request_may_not_have_more_framing_than_body(self) -> None:
        with self.assertRaisesRegex(MalformedError, "chunk lines: more than|chunk line: longer") as caught:
            read_chunks(lines_of(Requests, b"1\r\na\r\n" * 30_000))
        self.assertEqual(caught.exception.status, 413)
        self.assertEqual(len(read_chunks(lines_of(Answers, b"1\r\na\r\n" * 30_000 + b"0\r\n\r\n"))), 30_000)


class FramingTest(unittest.TestCase):
    def test_the_end_of_a_body_is_told_in_one_way(self) -> None:
        for grammar in (Requests, Answers):
            for fields, expected in (
                ([b"Content-Length: 12"], (12, False)),
                ([b"Content-Length: \t 0012 \t"], (12, False)),
                ([b"Transfer-Encoding: Chunked"], (None, True)),
                ([], (None, False)),
            ):
                self.assertEqual(framing_of(headers_of(grammar, *fields), 1, grammar), expected)

    def test_an_answer_may_repeat_its_length(self) -> None:
        for fields in ([b"Content-Length: 12, 12"], [b"Content-Length: 12"] * 2):
            self.assertEqual(framing_of(headers_of(Answers, *fields), 1, Answers), (12, False))
            with self.assertRaises(MalformedError) as caught:
                framing_of(headers_of(Requests, *fields), 1, Requests)
            self.assertEqual(caught.exception.status, 400)

    def test_a_length_that_leaves_a_doubt_is_refused(self) -> None:
        for fields, status, reason in (
            ([b"Content-Length: 1", b"Content-Length: 2"], 400, "expected one Content-Length, found 2"),
            ([b"Content-Length: +1"], 400, "expected digits"),
            ([b"Content-Length: -1"], 400, "expected digits"),
            ([b"Content-Length: 0x1"], 400, "expected digits"),
            ([b"Content-Length: 1_0"], 400, "expected digits"),
            ([b"Content-Length: \xb2"], 400, "expected digits"),
            ([b"Content-Length:"], 400, "expected digits"),
            ([b"Content-Length: 1", b"Transfer-Encoding: chunked"], 400, "found both"),
            ([b"Transfer-Encoding: gzip, chunked"], 501, "expected chunked, found 'gzip, chunked'"),
            ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], 501, "expected chunked"),
            ([b"Transfer-Encoding: identity"], 501, "expected chunked"),
            ([b"Transfer-Encoding:"], 501, "expected chunked"),
            ([b"Content-Length: " + b"9" * 5000], 413, "more than"),
        ):
            for grammar in (Requests, Answers):
                with self.subTest(fields=fields[:1]), self.assertRaisesRegex(MalformedError, reason) as caught:
                    framing_of(headers_of(grammar, *fields), 1, grammar)
                self.assertEqual(caught.exception.status, status)
                self.assertLess(len(str(caught.exception)), 300)
        for grammar, text in ((Requests, b"%d" % (REQUEST_BODY_LIMIT + 1)), (Answers, b"0" * 18 + b"1")):
            with self.subTest(text), self.assertRaisesRegex(MalformedError, "more than"):
                framing_of(headers_of(grammar, b"Content-Length: " + text), 1, grammar)

    def test_chunks_in_http_1_0_are_refused(self) -> None:
        with self.assertRaisesRegex(MalformedError, "expected none in HTTP/1.0"):
            framing_of(headers_of(Answers, b"Transfer-Encoding: chunked"), 0, Answers)


class Recorder:
    """A `fp` that notes what the libraries ask of it."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., object]:
        self.calls.append(name)
        return getattr(self._lines, name)  # type: ignore[no-any-return]


class LibrariesTest(unittest.TestCase):
    def test_http_client_takes_a_head_by_readline_alone(self) -> None:
        recorder = Recorder(lines_of(Answers, ANSWER.replace(b"A: 1", b"\r\n".join([b"A: 1"] * 256)) + b"body"))

        class Socket:
            def makefile(self, mode: str) -> Recorder:
                return recorder

        response = http.client.HTTPResponse(Socket())  # type: ignore[arg-type]
        response.begin()
        self.assertEqual((response.status, len(response.headers)), (200, 256))
        response.close()
        self.assertEqual(set(recorder.calls), {"readline", "flush", "close"})

    def test_http_server_takes_a_head_by_readline_alone(self) -> None:
        recorder = Recorder(lines_of(Requests, REQUEST.replace(b"Host: x", b"\r\n".join([b"A: 1"] * 100))))
        handler = BaseHTTPRequestHandler.__new__(BaseHTTPRequestHandler)
        handler.rfile = recorder  # type: ignore[assignment]
        handler.raw_requestline = handler.rfile.readline(65537)  # type: ignore[attr-defined]
        self.assertTrue(handler.parse_request())
        self.assertEqual((handler.command, len(handler.headers)), ("GET", 100))
        self.assertEqual(set(recorder.calls), {"readline"})


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""HTTP messages: heads, framing and bodies, from bytes."""

import unittest

from cip.errors import NetworkError
from cip.net.http1 import (
    FIELDS_LIMIT,
    UNKNOWN_LENGTH,
    Body,
    Framing,
    GarbledError,
    encode_request,
    framing_of,
    parse_head,
)


class Bytes:
    """A stream of given pieces; `b""` at the end."""

    def __init__(self, *pieces: bytes) -> None:
        self.rest = b"".join(pieces)
        self.sizes = [len(piece) for piece in pieces]

    def receive_into(self, view: memoryview) -> int:
        count = min(len(view), len(self.rest), self.sizes[0] if self.sizes else 1 << 30)
        view[:count] = self.rest[:count]
        self._took(count)
        return count

    def receive_line(self, limit: int) -> bytes:
        line, newline, _ = self.rest.partition(b"\n")
        if not newline:
            raise NetworkError("ended")
        if len(line) > limit:
            raise GarbledError(f"a line is longer than {limit}")
        self._took(len(line) + 1)
        return line.removesuffix(b"\r")

    def _took(self, count: int) -> None:
        self.rest = self.rest[count:]
        while self.sizes and count >= self.sizes[0]:
            count -= self.sizes.pop(0)
        if self.sizes:
            self.sizes[0] -= count


def read(body: Body, size: int = 1 << 16) -> bytes:
    data = b""
    view = memoryview(bytearray(size))
    while count := body.readinto(view):
        data += view[:count]
    return data


class RequestTest(unittest.TestCase):
    def test_a_request_is_written_line_by_line(self) -> None:
        self.assertEqual(encode_request("GET", "/x?y", [("Host", "h")]), b"GET /x?y HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertEqual(
            encode_request("POST", "/t", [("Host", "h")], b"a=b"),
            b"POST /t HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na=b",
        )

    def test_nothing_can_begin_another_line(self) -> None:
        for value in ("a\r\nX: y", "a\nb", "a\0b", "a\x7fb", "ü"):
            with self.subTest(value), self.assertRaisesRegex(ValueError, "field Authorization") as caught:
                encode_request("GET", "/", [("Authorization", value)])
            self.assertNotIn(value, str(caught.exception))


class HeadTest(unittest.TestCase):
    def test_status_fields_and_keep_alive_are_read(self) -> None:
        head = parse_head(b"HTTP/1.1 200 OK\r\nA: 1\r\na:  2 \r\nConnection: Keep-Alive", "h")
        self.assertEqual((head.status, head.fields.get("a"), head.fields.get_all("a")), (200, "1", ["1", "2"]))
        for text, keeps in (
            (b"HTTP/1.1 200 OK\r\nConnection: x, Close", False),
            (b"HTTP/1.1 200", True),
            (b"HTTP/1.0 200 OK", False),
            (b"HTTP/1.0 200 OK\nConnection: keep-alive", True),
        ):
            with self.subTest(text):
                self.assertIs(parse_head(text, "h").keeps_alive, keeps)

    def test_what_is_no_http_is_refused(self) -> None:
        for text, reason in (
            (b"", "expected an http answer"),
            (b"SSH-2.0-x", "expected an http answer"),
            (b"HTTP/2 200", "expected an http answer"),
            (b"HTTP/1.1 20", "expected an http answer"),
            (b"HTTP/1.1  200 OK", "expected an http answer"),
            (b"HTTP/1.1 099 OK", "expected an http answer"),
            (b"<html>", "expected an http answer, found b'<html>'"),
            (b"HTTP/1.1 200 OK\r\nno colon", "expected a header field"),
            (b"HTTP/1.1 200 OK\r\nA : 1", "expected a header field"),
            (b"HTTP/1.1 200 OK\r\nA: 1\r\n folded", "expected a header field"),
            (b"HTTP/1.1 200 OK\r\nA: 1\0", "expected a header field"),
            (b"HTTP/1.1 200 OK\r\nA: 1\rB: 2", "expected a header field"),
            (b"HTTP/1.1 200 OK" + b"\r\nA: 1" * (FIELDS_LIMIT + 1), "more than 256 header fields"),
        ):
            with self.subTest(text[:40]), self.assertRaisesRegex(GarbledError, reason) as caught:
                parse_head(text, "h:1")
            self.assertFalse(caught.exception.retryable)


class FramingTest(unittest.TestCase):
    def framing(self, *lines: bytes, status: bytes = b"200", method: str = "GET") -> Framing:
        return framing_of(method, parse_head(b"\r\n".join((b"HTTP/1.1 " + status + b" X", *lines)), "h"), "h")

    def test_the_end_of_a_body_is_told_in_one_way(self) -> None:
        self.assertEqual(self.framing(b"Content-Length: 12"), Framing(12, False))
        self.assertEqual(self.framing(b"Content-Length: 12", b"Content-Length: 12"), Framing(12, False))
        self.assertEqual(self.framing(b"Transfer-Encoding: Chunked"), Framing(UNKNOWN_LENGTH, True))
        self.assertEqual(self.framing(), Framing(UNKNOWN_LENGTH, False))
        self.assertEqual(self.framing(b"Content-Length: 12", status=b"204"), Framing(0, False))
        self.assertEqual(self.framing(b"Content-Length: 12", status=b"304"), Framing(0, False))
        self.assertEqual(self.framing(b"Content-Length: 12", method="HEAD"), Framing(0, False))

    def test_two_ends_of_one_body_are_refused(self) -> None:
        for lines, reason in (
            ((b"Content-Length: 1", b"Content-Length: 2"), "expected one number"),
            ((b"Content-Length: 1, 2",), "expected one number"),
            ((b"Content-Length: -1",), "expected one number"),
            ((b"Content-Length: +1",), "expected one number"),
            ((b"Content-Length: 0x10",), "expected one number"),
            ((b"Content-Length: " + b"9" * 30,), "expected one number"),
            ((b"Content-Length: 1", b"Transfer-Encoding: chunked"), "both a length and chunks"),
            ((b"Transfer-Encoding: gzip, chunked",), "transfer coding 'gzip, chunked' is not supported"),
            ((b"Transfer-Encoding: identity",), "not supported"),
        ):
            with self.subTest(lines), self.assertRaisesRegex(GarbledError, reason):
                self.framing(*lines)


class BodyTest(unittest.TestCase):
    def test_a_body_of_known_length_leaves_what_follows(self) -> None:
        stream = Bytes(b"he", b"llo HTTP/1.1")
        body = Body(stream, Framing(5, False), "h")
        self.assertEqual((read(body), body.ended, stream.rest), (b"hello", True, b" HTTP/1.1"))

    def test_a_cut_body_is_an_error_at_every_byte(self) -> None:
        for cut in range(5):
            with self.subTest(cut):
                body = Body(Bytes(b"hello"[:cut]), Framing(5, False), "h:1")
                with self.assertRaisesRegex(NetworkError, f"ended early: expected 5 bytes, found {cut} ") as caught:
                    read(body)
                self.assertTrue(caught.exception.retryable)
                self.assertFalse(body.ended)

    def test_without_a_length_the_connection_is_the_end(self) -> None:
        body = Body(Bytes(b"he", b"llo"), Framing(UNKNOWN_LENGTH, False), "h")
        self.assertEqual((read(body), body.ended), (b"hello", True))

    def test_chunks_are_joined_and_extensions_and_trailers_ignored(self) -> None:
        stream = Bytes(b"2\r\nhe\r\n", b"003;x=y\r\nllo\r\n0\r\nTrailer: x\r\n\r\nnext")
        body = Body(stream, Framing(UNKNOWN_LENGTH, True), "h")
        self.assertEqual((read(body, 2), body.ended, stream.rest), (b"hello", True, b"next"))

    def test_garbled_or_cut_chunks_are_errors(self) -> None:
        for data, error, reason in (
            (b"x\r\n", GarbledError, "the size of a chunk"),
            (b"-1\r\n", GarbledError, "the size of a chunk"),
            (b"0x5\r\n", GarbledError, "the size of a chunk"),
            (b"\r\n", GarbledError, "the size of a chunk"),
            (b"1 2\r\n", GarbledError, "the size of a chunk"),
            (b"fffffffffffffffff\r\n", GarbledError, "the size of a chunk"),
            (b"2\r\nhello\r\n", GarbledError, "the end of a chunk"),
            (b"5\r\nhel", NetworkError, "ended early: expected more, found 3"),
            (b"5\r\nhello\r\n", NetworkError, "ended"),
            (b"0\r\n" + b"a: b\r\n" * 2000 + b"\r\n", GarbledError, "longer"),
        ):
            with self.subTest(data[:20]), self.assertRaisesRegex(error, reason):
                read(Body(Bytes(data), Framing(UNKNOWN_LENGTH, True), "h"))

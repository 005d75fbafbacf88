# SPDX-License-Identifier: Apache-2.0
"""The strict reading of requests: every row of wire.md section 11 that is about what arrives."""

import unittest
from collections.abc import Iterable

from cip.errors import PeerError
from cip.wire.httprequest import BODY_LIMIT, READ_SIZE, Request, RequestReader, parse_target
from cip.wire.problem import RequestFault, http_status

HEAD = b"GET /manifest HTTP/1.1\r\nHost: x\r\n\r\n"


class Stream:
    """A stream of prepared pieces; counts what was taken."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._left = b""
        self.taken = 0

    def receive(self, size: int) -> bytes:
        if not self._left:
            self._left = next(self._pieces, b"")
        part, self._left = self._left[:size], self._left[size:]
        self.taken += len(part)
        return part


def reader_of(data: bytes) -> RequestReader:
    return RequestReader(Stream([data]).receive)


def read(data: bytes) -> Request:
    request = reader_of(data).read()
    assert request is not None
    return request


def get(*fields: str, version: str = "1.1", method: str = "GET") -> bytes:
    return "".join(f"{line}\r\n" for line in [f"{method} / HTTP/{version}", *fields, ""]).encode("latin-1")


class WellFramed(unittest.TestCase):
    def test_a_plain_request_is_read(self) -> None:
        request = read(HEAD)
        self.assertEqual(request, Request("GET", "/manifest", 1, (("host", "x"),)))
        self.assertFalse(request.has_body())

    def test_pieces_may_be_cut_anywhere(self) -> None:
        reader = RequestReader(Stream(bytes([byte]) for byte in HEAD + HEAD).receive)
        self.assertEqual((reader.read(), reader.read(), reader.read()), (read(HEAD), read(HEAD), None))

    def test_the_next_request_begins_behind_the_body(self) -> None:
        for name, body in (
            ("length", b"Content-Length: 3\r\n\r\nabc"),
            ("leading zeros", b"Content-Length: 0003\r\n\r\nabc"),
            ("no bytes", b"Content-Length: 0\r\n\r\n"),
            ("chunks", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n"),
            ("trailers", b"Transfer-Encoding: CHUNKED\r\n\r\n1\r\na\r\n000\r\nX: y\r\nZ: w\r\n\r\n"),
            ("bare line feeds", b"Transfer-Encoding: chunked\n\n1\na\n0\n\n"),
        ):
            with self.subTest(name):
                reader = reader_of(b"POST /quit HTTP/1.1\r\nHost: x\r\n" + body + HEAD)
                request = reader.read()
                assert request is not None
                reader.discard_body(request)
                self.assertEqual(reader.read(), read(HEAD))

    def test_a_few_empty_lines_are_skipped(self) -> None:
        self.assertEqual(read(b"\r\n\n\r\n" + HEAD), read(HEAD))
        self.assertIsNone(reader_of(b"\r\n\r\n").read())

    def test_bare_line_feeds_end_lines(self) -> None:
        self.assertEqual(read(HEAD.replace(b"\r\n", b"\n")), read(HEAD))

    def test_values_lose_their_blanks_and_names_their_case(self) -> None:
        request = read(get("HOST:\t x \t", "A:", "a: b c"))
        self.assertEqual(request.fields, (("host", "x"), ("a", ""), ("a", "b c")))

    def test_limits_are_reached_without_complaint(self) -> None:
        target = b"/" + b"a" * (8192 - len(b"GET / HTTP/1.1"))
        self.assertEqual(len(read(b"GET " + target + b" HTTP/1.1\r\n\r\n").target), len(target))
        self.assertEqual(len(read(get(*["A: b"] * 100)).fields), 100)
        self.assertEqual(len(read(get("A: " + "b" * (65536 - 3))).fields[0][1]), 65536 - 3)

    def test_a_body_of_the_limit_is_read_past(self) -> None:
        for fields in (f"Content-Length: {BODY_LIMIT}", "Transfer-Encoding: chunked"):
            chunked = "chunked" in fields
            body = b"%x\r\n" % BODY_LIMIT * chunked + b"x" * BODY_LIMIT + b"\r\n0\r\n\r\n" * chunked
            with self.subTest(fields):
                reader = reader_of(get(fields) + body + HEAD)
                request = reader.read()
                assert request is not None
                reader.discard_body(request)
                self.assertEqual(reader.read(), read(HEAD))


class NotFramed(unittest.TestCase):
    def assert_refused(self, data: bytes, status: int, reason: str) -> None:
        reader = reader_of(data + HEAD)
        with self.assertRaisesRegex(RequestFault, reason) as caught:
            request = reader.read()
            assert request is not None
            reader.discard_body(request)
        self.assertEqual(http_status(caught.exception), status)
        self.assertLess(len(str(caught.exception)), 300)

    def test_a_request_line_that_is_none_is_refused(self) -> None:
        for line in (
            b"GARBAGE", b"GET /", b"GET  / HTTP/1.1", b"GET / HTTP/1.1 ", b" GET / HTTP/1.1", b"GET\t/\tHTTP/1.1",
            b"GET / http/1.1", b"GET / HTTP/1", b"GET / HTTP/1.10", b"GET / HTTP/11.1", b"G(T / HTTP/1.1",
            b"GET /a b HTTP/1.1", b"GET /\0 HTTP/1.1", b"GET /\r HTTP/1.1", b"G\xc3\xa9T / HTTP/1.1",
            b"\x16\x03\x01\x02",
        ):  # fmt: skip
            with self.subTest(line):
                self.assert_refused(line + b"\r\nHost: x\r\n\r\n", 400, "expected METHOD TARGET HTTP/1.1")

    def test_another_major_version_is_refused(self) -> None:
        for line, found in (
            (b"GET / HTTP/2.0", "HTTP/2.0"),
            (b"PRI * HTTP/2.0", "HTTP/2.0"),
            (b"GET / HTTP/0.9", "0.9"),
        ):
            with self.subTest(line):
                self.assert_refused(line + b"\r\n\r\n", 505, f"expected HTTP/1.1, found .*{found}")

    def test_header_fields_that_could_be_read_in_two_ways_are_refused(self) -> None:
        for name, line, reason in (
            ("folded", "A: b\r\n c", "folded"),
            ("folded at once", " A: b", "folded"),
            ("folded by a tab", "A: b\r\n\tc", "folded"),
            ("blank before the colon", "A : b", "a name and a colon"),
            ("no colon", "Authorization secret", "a name and a colon"),
            ("no name", ": b", "a name and a colon"),
            ("name that is no token", "A(): b", "a name and a colon"),
            ("NUL", "A: b\0c", "field b?'A': contains a control character"),
            ("bare carriage return", "A: b\rX: c", "contains a control character"),
            ("carriage return twice", "A: b\r", "contains a control character"),
            ("escape", "A: \x1b[2J", "contains a control character"),
            ("DEL", "A: \x7f", "contains a control character"),
        ):
            with self.subTest(name):
                self.assert_refused(get("Host: x", line), 400, reason)

    def test_a_refused_header_field_is_never_repeated(self) -> None:
        for line in ("Authorization Bearer s3cret", "Authorization: Bearer s3cret\0"):
            with self.assertRaises(RequestFault) as caught:
                read(get(line))
            self.assertNotIn("s3cret", str(caught.exception))

    def test_too_much_is_refused_before_it_is_held(self) -> None:
        for name, begin, status, reason in (
            ("request line", b"GET /" + b"a" * 20_000, 414, "request line: expected a line end within 8192 bytes"),
            ("request line by one byte", b"GET /" + b"a" * (8193 - 14) + b" HTTP/1.1\r\n", 414, "within 8192"),
            ("one field", b"GET / HTTP/1.1\r\nA: " + b"b" * 100_000, 431, "header fields"),
            ("many bytes", b"GET / HTTP/1.1\r\n" + (b"A: " + b"b" * 997 + b"\r\n") * 70, 431, "header fields"),
            ("many fields", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101, 431, "more than 100 header fields"),
            ("empty lines", b"\r\n" * 9, 400, "more than 8 empty lines"),
        ):
            with self.subTest(name):
                stream = Stream([begin, *[b"x" * READ_SIZE] * 100])
                with self.assertRaisesRegex(RequestFault, reason) as caught:
                    RequestReader(stream.receive).read()
                self.assertEqual(http_status(caught.exception), status)
                self.assertLess(stream.taken, 65536 + 2 * READ_SIZE)

    def test_a_length_that_leaves_a_doubt_is_refused(self) -> None:
        for fields, status, reason in (
            (["Content-Length: 1", "Content-Length: 1"], 400, "expected one Content-Length, found 2"),
            (["Content-Length: 1", "Content-Length: 2"], 400, "expected one Content-Length, found 2"),
            (["Content-Length: 1, 1"], 400, "expected digits"),
            (["Content-Length: +1"], 400, "expected digits"),
            (["Content-Length: -1"], 400, "expected digits"),
            (["Content-Length: 0x1"], 400, "expected digits"),
            (["Content-Length: 1_0"], 400, "expected digits"),
            (["Content-Length: \xb2"], 400, "expected digits"),
            (["Content-Length:"], 400, "expected digits"),
            (["Content-Length: 1", "Transfer-Encoding: chunked"], 400, "found both"),
            (["Transfer-Encoding: gzip, chunked"], 501, "expected chunked, found 'gzip, chunked'"),
            (["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], 501, "expected chunked"),
            (["Transfer-Encoding: xchunked"], 501, "expected chunked"),
            (["Transfer-Encoding:"], 501, "expected chunked"),
            ([f"Content-Length: {BODY_LIMIT + 1}"], 413, "larger than 1048576 bytes"),
            (["Content-Length: " + "9" * 5000], 413, "larger than 1048576 bytes"),
        ):
            with self.subTest(fields=fields[:1]):
                self.assert_refused(get("Host: x", *fields), status, reason)

    def test_chunks_in_http_1_0_are_refused(self) -> None:
        self.assert_refused(get("Transfer-Encoding: chunked", version="1.0"), 400, "expected none in HTTP/1.0")

    def test_chunks_that_are_none_are_refused(self) -> None:
        for name, body, status, reason in (
            ("no size", b"\r\n", 400, "expected a size in hex digits"),
            ("many chunks", b"1\r\na\r\n" * 30_000, 413, "chunk lines: more than 65536 bytes"),
            ("many chunks to the byte", b"1;\r\na\r\n" * 30_000, 413, "chunk lines: more than 65536 bytes"),
            ("sign", b"+1\r\na\r\n", 400, "expected a size in hex digits"),
            ("prefix", b"0x1\r\na\r\n", 400, "expected a size in hex digits"),
            ("underscore", b"1_0\r\n", 400, "expected a size in hex digits"),
            ("too many digits", b"0" * 17 + b"\r\n", 400, "expected a size in hex digits"),
            ("control character", b"1;a=\0\r\na\r\n", 400, "expected a size in hex digits"),
            ("data longer than stated", b"1\r\nab\r\n", 400, "line break after a chunk"),
            ("all in one", b"100001\r\n", 413, "larger than 1048576 bytes"),
            ("in many", b"80000\r\n" + b"x" * 0x80000 + b"\r\n80001\r\n", 413, "larger than 1048576 bytes"),
            ("lines in excess", b"1;" + b"x" * 70_000 + b"\r\n", 413, "chunk lines"),
            ("lines in excess, one by one", (b"1;" + b"x" * 1000 + b"\r\na\r\n") * 70, 413, "chunk lines"),
            ("trailers in excess", b"0\r\n" + (b"A: " + b"b" * 997 + b"\r\n") * 70, 431, "header fields"),
            ("folded trailer", b"0\r\n a: b\r\n\r\n", 400, "folded"),
        ):
            with self.subTest(name):
                self.assert_refused(get("Host: x", "Transfer-Encoding: chunked") + body, status, reason)

    def test_an_expectation_of_somebody_whose_body_may_not_come_is_refused(self) -> None:
        self.assert_refused(
            get("Host: x", "Content-Length: 3", "Expect: 200-ok"), 417, "'200-ok': expected 100-continue"
        )

    def test_an_end_inside_a_request_is_told_from_an_end_between_two(self) -> None:
        self.assertIsNone(reader_of(b"").read())
        for name, data in (
            ("request line", b"GET / HT"),
            ("header field", b"GET / HTTP/1.1\r\nHos"),
            ("head", b"GET / HTTP/1.1\r\nHost: x\r\n"),
            ("body", get("Content-Length: 3") + b"ab"),
            ("chunk line", get("Transfer-Encoding: chunked") + b"3"),
            ("chunk", get("Transfer-Encoding: chunked") + b"3\r\nab"),
            ("trailer", get("Transfer-Encoding: chunked") + b"0\r\n"),
        ):
            with self.subTest(name), self.assertRaisesRegex(PeerError, "the parent closed the connection inside a req"):
                reader = reader_of(data)
                request = reader.read()
                assert request is not None
                reader.discard_body(request)

    def test_the_method_is_known_as_soon_as_it_was_read(self) -> None:
        reader = reader_of(get("A : b", method="HEAD"))
        with self.assertRaises(RequestFault):
            reader.read()
        self.assertEqual(reader.method, "HEAD")


class Heads(unittest.TestCase):
    def test_a_connection_is_kept_as_the_version_says(self) -> None:
        for version, fields, wanted in (
            ("1.1", [], True),
            ("1.9", [], True),
            ("1.1", ["Connection: close"], False),
            ("1.1", ["Connection: x, Close"], False),
            ("1.1", ["Connection: x", "Connection: close"], False),
            ("1.1", ["Connection: keep-alive"], True),
            ("1.0", [], False),
            ("1.0", ["Connection: Keep-Alive"], True),
            ("1.0", ["Connection: keep-alive, close"], False),
        ):
            with self.subTest(version=version, fields=fields):
                self.assertIs(read(get(*fields, version=version)).keeps_open(), wanted)

    def test_a_body_is_waited_for_only_where_one_was_announced(self) -> None:
        for fields, version, wanted in (
            (["Expect: 100-Continue", "Content-Length: 3"], "1.1", True),
            (["Expect: 100-continue", "Transfer-Encoding: chunked"], "1.1", True),
            (["Expect: 100-continue"], "1.1", False),
            (["Expect: 100-continue", "Content-Length: 0"], "1.1", False),
            (["Content-Length: 3"], "1.1", False),
            (["Expect: 100-continue", "Content-Length: 3"], "1.0", False),
        ):
            with self.subTest(fields=fields, version=version):
                self.assertIs(read(get(*fields, version=version)).awaits_continue(), wanted)

    def test_the_host_must_be_named_once(self) -> None:
        for version, fields, reason in (
            ("1.1", [], "expected one Host field, found none"),
            ("1.1", ["Host: a", "Host: a"], "found 2"),
            ("1.0", ["Host: a", "Host: b"], "found 2"),
        ):
            with self.subTest(version=version, fields=fields), self.assertRaisesRegex(RequestFault, reason):
                read(get(*fields, version=version)).require_valid()
        read(get("Host:")).require_valid()
        read(get(version="1.0")).require_valid()

    def test_an_unknown_expectation_is_refused_but_not_from_http_1_0(self) -> None:
        with self.assertRaisesRegex(RequestFault, "expected 100-continue") as caught:
            read(get("Host: x", "Expect: a miracle")).require_valid()
        self.assertEqual(http_status(caught.exception), 417)
        read(get("Expect: a miracle", version="1.0")).require_valid()


class Targets(unittest.TestCase):
    def test_paths_are_decoded_once_and_queries_left_out(self) -> None:
        for target, path in (
            ("/manifest", "/manifest"),
            ("/%6danifest", "/manifest"),
            ("/%256d", "/%6d"),
            ("/blobs%2Fx", "/blobs/x"),
            ("/m%C3%A9", "/m\xc3\xa9"),
            ("/manifest?a=%zz&b=#", "/manifest"),
            ("/a+b", "/a+b"),
            ("//manifest", "//manifest"),
            ("/../manifest", "/../manifest"),
            ("http://x/manifest", "/manifest"),
            ("HTTPS://x:1/manifest?y", "/manifest"),
            ("http://x", "/"),
            ("http://x?/manifest", "/"),
        ):
            with self.subTest(target):
                self.assertEqual(parse_target("GET", target), path)

    def test_an_asterisk_belongs_to_options(self) -> None:
        self.assertIsNone(parse_target("OPTIONS", "*"))
        with self.assertRaisesRegex(RequestFault, "'\\*': expected a path"):
            parse_target("GET", "*")

    def test_what_is_no_target_is_refused(self) -> None:
        for target, reason in (
            ("manifest", "expected a path or an http URL"),
            ("x:80", "expected a path or an http URL"),
            ("ftp://x/manifest", "expected a path or an http URL"),
            ("http:///manifest", "expected a path or an http URL"),
            ("/manifest#top", "contains a fragment"),
            ("/%", "two hex digits after %"),
            ("/%6", "two hex digits after %"),
            ("/%6g", "two hex digits after %"),
            ("/%+1", "two hex digits after %"),
            ("/m\xe9", "expected visible ASCII characters"),
        ):
            with self.subTest(target), self.assertRaisesRegex(RequestFault, reason):
                parse_target("GET", target)

    def test_a_query_is_never_repeated(self) -> None:
        for target in ("manifest?s3cret", "/%zz?s3cret", "/a#b?s3cret", "/m\xe9?s3cret"):
            with self.subTest(target), self.assertRaises(RequestFault) as caught:
                parse_target("GET", target)
            self.assertNotIn("s3cret", str(caught.exception))


if __name__ == "__main__":
    unittest.main()

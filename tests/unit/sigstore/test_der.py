# SPDX-License-Identifier: Apache-2.0
import unittest

from cip.trust.sigstore.der import (
    ABSENT,
    ARC_LIMIT,
    DEPTH_LIMIT,
    ELEMENT_LIMIT,
    INTEGER,
    INTEGER_LIMIT,
    OCTET_STRING,
    OID,
    OID_LIMIT,
    OPTIONAL,
    SEQUENCE,
    parse_der,
    require_name,
)
from tests.support.peers import skip_where_asked

skip_where_asked("cryptography")  # the helpers that write DER also sign it

from tests.support.stamps import der, integer, oid, sequence  # noqa: E402


def nested(depth: int, inner: bytes = b"") -> bytes:
    for _ in range(depth):
        inner = sequence(inner)
    return inner


class DerTest(unittest.TestCase):
    def test_a_tree_has_tags_contents_and_what_stood_there(self) -> None:
        found = parse_der(sequence(integer(5), der(OCTET_STRING, bytes(200))))
        self.assertEqual((found.tag, len(found.children)), (SEQUENCE, 2))
        self.assertEqual(found.children[0].raw, b"\2\1\5")
        self.assertEqual(found.children[1].content, bytes(200))
        self.assertEqual(found.raw, sequence(integer(5), der(OCTET_STRING, bytes(200))))

    def test_malformed_elements_are_refused_with_the_reason(self) -> None:
        for case, data, words in (
            ("nothing", b"", "expected one element, found 0"),
            ("two", b"\5\0\5\0", "expected one element, found 2"),
            ("a tag alone", b"\5", "cut short"),
            ("length of one byte in two", b"\4\x81\5hello", "shortest form"),
            ("length of one byte in three", b"\4\x82\0\x80" + bytes(128), "shortest form"),
            ("length of four bytes", b"\4\x84\1\0\0\0" + bytes(1 << 24), "too large"),
            ("length cut short", b"\4\x82\1", "past its parent|shortest form"),
            ("indefinite length", b"\x30\x80\5\0\0\0", "not definite"),
            ("reserved length", b"\4\xff", "not definite"),
            ("content cut short", b"\4\5hell", "past its parent"),
            ("past its parent", b"\x30\3\4\2ab", "past its parent"),
            ("high tag", b"\x1f\x20\0", "high tag"),
            ("empty integer", b"\2\0", "integer"),
            ("padded integer", b"\2\2\0\1", "integer"),
            ("padded negative integer", b"\2\2\xff\x80", "integer"),
            ("empty identifier", b"\6\0", "object identifier"),
            ("padded identifier", b"\6\3\x2a\x80\1", "object identifier"),
            ("identifier padded in front", b"\6\3\x80\1\2", "object identifier"),
            ("identifier cut short", b"\6\2\x2a\x81", "object identifier"),
            ("identifier cut short behind a zero", b"\6\3\x2a\x81\x80", "object identifier"),
            ("longer identifier", oid(".".join(["1"] * (ARC_LIMIT + 2))), "more than 32"),
            ("long identifier", oid(".".join(["1"] * (ARC_LIMIT + 1))), "more than 32"),
            ("odd boolean", b"\1\1\1", "boolean"),
            ("long boolean", b"\1\2\xff\xff", "boolean"),
            ("null with content", b"\5\1\0", "null"),
            ("too deep", nested(DEPTH_LIMIT + 1), "deeper than 16"),
            ("too many", sequence(b"\5\0" * ELEMENT_LIMIT), "more than 4096"),
        ):
            with self.subTest(case), self.assertRaisesRegex(ValueError, words):
                parse_der(data)

    def test_limits_are_inclusive(self) -> None:
        for case, data in (
            ("depth", nested(DEPTH_LIMIT)),
            ("elements", sequence(b"\5\0" * (ELEMENT_LIMIT - 1))),
            ("arcs", oid(".".join(["1"] * ARC_LIMIT))),
            ("arcs of several bytes", oid(".".join(["1", "1", *["2097152"] * (ARC_LIMIT - 2)]))),
            ("length of three bytes", der(OCTET_STRING, bytes(1 << 16))),
            ("shortest two bytes", der(OCTET_STRING, bytes(256))),
            ("shortest one byte", der(OCTET_STRING, bytes(128))),
        ):
            with self.subTest(case):
                self.assertEqual(parse_der(data).raw, data)

    def test_integers(self) -> None:
        for value in (0, 1, 127, 128, 255, 256, -1, -128, -129, 2 ** (8 * INTEGER_LIMIT - 1) - 1):
            with self.subTest(value):
                self.assertEqual(parse_der(integer(value)).integer(), value)
        with self.assertRaisesRegex(ValueError, "an integer of 33 bytes"):
            parse_der(integer(2 ** (8 * INTEGER_LIMIT - 1))).integer()

    def test_object_identifiers(self) -> None:
        for text in (
            "1.2.840.113549.1.7.2",
            "0.9.2342",
            "2.5.29.37",
            "2.16.840.1.101.3.4.2.1",
            "2.999.1",
            "1.39",
            "2.0",
            "1.2.16384",
            "1.2.2097152.128",
        ):
            with self.subTest(text):
                self.assertEqual(parse_der(oid(text)).oid(), text)

    def test_an_object_identifier_that_takes_long_to_read_is_refused(self) -> None:
        longest = b"\x2a" + b"\xff" * (OID_LIMIT - 2) + b"\x7f"
        self.assertTrue(parse_der(der(OID, longest)).oid().startswith("1.2."))
        with self.assertRaisesRegex(ValueError, f"of {OID_LIMIT + 1} bytes, expected at most {OID_LIMIT}"):
            parse_der(der(OID, b"\x2a" + longest)).oid()

    def test_times(self) -> None:
        for text, seconds in (
            (b"20231114221320Z", 1_700_000_000.0),
            (b"20231114221320.5Z", 1_700_000_000.5),
            (b"20231114221320.123456789Z", 1_700_000_000.123456789),
            (b"19700101000000Z", 0.0),
        ):
            with self.subTest(text):
                self.assertEqual(parse_der(der(0x18, text)).time(), seconds)
        for text in (
            b"20231114221320",
            b"202311142213Z",
            b"20231114221320+0000",
            b"20231114221320.Z",
            b"20231114221320.50Z",
            b"20231114221320.1234567890Z",
            b"20231114221320,5Z",
            b"20231314221320Z",
            b"20230229000000Z",
            b"20231114241320Z",
            b"20231114221360Z",
            b"00000101000000Z",
            "2023111422132\u0660Z".encode(),
        ):
            with self.subTest(text), self.assertRaises(ValueError):
                parse_der(der(0x18, text)).time()
        with self.assertRaisesRegex(ValueError, "expected an element with tag 0x18, found 0x17"):
            parse_der(der(0x17, b"20231114221320Z")).time()

    def test_texts_in_a_name_are_what_their_tags_say(self) -> None:
        def name(tag: int, content: bytes) -> bytes:
            return sequence(der(0x31, sequence(oid("2.5.4.3"), der(tag, content))))

        for tag, content in (
            (0x0C, "é".encode()),
            (0x12, b"1 2"),
            (0x13, b"A b.(c)?"),
            (0x14, b"\xff"),
            (0x16, b"a@b"),
            (0x1E, b"\0a\x26\x3a"),
        ):
            require_name(parse_der(name(tag, content)))
        for tag, content in (
            (0x0C, b"\xe9"),
            (0x12, b"x"),
            (0x13, b"a@b"),
            (0x13, b"a\n"),
            (0x16, b"\x80"),
            (0x1E, b"\0"),
            (0x1E, b"\xd8\x3d\xde\x00"),
            (0x0D, b"x"),
            (0x04, b"x"),
            (0x8C, b"x"),
        ):
            with self.subTest(tag=tag, content=content), self.assertRaises(ValueError):
                require_name(parse_der(name(tag, content)))
        for other in (
            der(0x31),
            sequence(sequence()),
            sequence(der(0x31, sequence(integer(1), der(0x0C)))),
            sequence(der(0x31, sequence(oid("2.5.4.3")))),
        ):
            with self.subTest(other), self.assertRaises(ValueError):
                require_name(parse_der(other))

    def test_members_are_taken_in_order_and_none_may_be_left(self) -> None:
        both = parse_der(sequence(integer(1), der(OCTET_STRING)))
        absent, number, text = both.members(OCTET_STRING | OPTIONAL, INTEGER, OCTET_STRING | OPTIONAL)
        self.assertIs(absent, ABSENT)
        self.assertEqual((number.integer(), text.tag), (1, OCTET_STRING))
        self.assertEqual(both.members(INTEGER, more=True)[0].integer(), 1)
        for words, element, tags in (
            ("unexpected element with tag 0x04", both, [INTEGER]),
            ("expected an element with tag 0x02, found 0x04", parse_der(sequence(der(OCTET_STRING))), [INTEGER]),
            ("expected an element with tag 0x02, found none", parse_der(sequence()), [INTEGER]),
            ("expected an element with tag 0x30, found 0x02", parse_der(integer(1)), [INTEGER]),
        ):
            with self.subTest(words), self.assertRaisesRegex(ValueError, words):
                element.members(*tags)
        for read in ("integer", "oid"):
            with self.subTest(read), self.assertRaisesRegex(ValueError, "found 0x04"):
                getattr(parse_der(der(OCTET_STRING, b"\1")), read)()


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
import json
import unittest
from typing import Any

from cip.errors import CipError, ErrorCode, InvalidInputError, NetworkError, PeerError, RegistryError
from cip.wire.jsonproxy.packets import (
    ERROR_OBJECT_LIMIT,
    PACKET_LIMIT,
    encode_error_object,
    encode_failure,
    encode_success,
    json_class,
    parse_request,
    read_digest,
    read_number,
    read_text,
)

_HEX = "43e187d5c631ab657995188c3abcaaadd06afc86578efc8dd1cd50c62dbbd58a"


def arguments(text: str) -> list[Any]:
    return [node.value for node in parse_request(f'{{"method":"x","args":[{text}]}}'.encode())[1]]


class Classes(unittest.TestCase):
    def test_every_code_has_the_class_that_was_decided(self) -> None:
        for code in ErrorCode:
            with self.subTest(code=str(code)):
                error = CipError("x", code=code)
                wanted = "EPIPE" if code == "client-gone" else "retryable" if error.retryable else "other"
                self.assertEqual(json_class(error), wanted)


class RequestsAreRead(unittest.TestCase):
    def test_a_method_has_no_arguments_unless_it_says_so(self) -> None:
        for text in ('{"method":"x"}', '{"method":"x","args":null}', ' {"method":"x","args":[ ],"else":{}}\n'):
            with self.subTest(text):
                self.assertEqual(parse_request(text.encode()), ("x", ()))

    def test_a_request_without_a_method_names_the_empty_one(self) -> None:
        for text in ("null", "{}", '{"args":[]}', '{"method":null}'):
            with self.subTest(text):
                self.assertEqual(parse_request(text.encode())[0], "")

    def test_keys_are_folded_as_the_model_folds_them(self) -> None:
        self.assertEqual(parse_request(b'{"METHOD":"Nope"}')[0], "Nope")
        self.assertEqual(len(parse_request('{"method":"x","ARG\u017f":[1]}'.encode())[1]), 1)

    def test_bytes_that_are_not_text_are_replaced(self) -> None:
        self.assertEqual(parse_request(b'{"method":"a\xff\xfeb"}')[0], "a\ufffd\ufffdb")
        self.assertEqual(parse_request(rb'{"method":"a\ud800b"}')[0], "a\ufffdb")

    def test_what_is_no_request_is_refused_with_the_reason(self) -> None:
        for case, data, reason in (
            ("array", b"[]", "expected an object, found an array"),
            ("string", b'"x"', "expected an object, found a string"),
            ("method is a number", b'{"method":5}', "expected a string, found an integer"),
            ("arguments are an object", b'{"method":"x","args":{}}', "expected an array, found an object"),
            ("NUL", b"\0", "not valid JSON"),
            ("byte order mark", b'\xef\xbb\xbf{"method":"x"}', "not valid JSON"),
            ("garbage behind", b'{"method":"x"} garbage', "not valid JSON"),
            ("a second object", b'{"method":"x"}{}', "not valid JSON"),
            ("duplicate", b'{"method":"x","method":"y"}', "duplicate"),
            ("duplicate in another case", b'{"method":"x","Method":"y"}', "ambiguous"),
            ("infinite number", b'{"method":"x","args":[1e400]}', "not finite"),
            ("NaN", b'{"method":"x","args":[NaN]}', "not valid JSON"),
            ("deep", b"[" * 30_000, "(deeper|not valid JSON)"),  # Python 3.14 sees the end first
            ("deep and closed", b"[" * 16_000 + b"]" * 16_000, "deeper"),
            ("many digits", b'{"args":[' + b"1" * 9000 + b"]}", "too long"),
            ("empty", b" ", "not valid JSON"),
        ):
            with self.subTest(case), self.assertRaisesRegex(InvalidInputError, f"^request: .*{reason}"):
                parse_request(data)


class ArgumentsAreRead(unittest.TestCase):
    def read(self, reader: Any, text: str) -> Any:
        return reader(parse_request(f'{{"args":[{text}]}}'.encode())[1][0])

    def test_integers_may_be_spelled_as_doubles(self) -> None:
        for text, number in (("0", 0), ("7", 7), ("1e0", 1), ("2.0", 2), ("-0.0", 0), ("9007199254740991", 2**53 - 1)):
            with self.subTest(text):
                self.assertEqual(self.read(read_number, text), number)

    def test_other_numbers_are_refused_with_the_reason(self) -> None:
        for text, reason in (
            ("1.5", "found 1.5"),
            ("-1", "found -1"),
            ("9007199254740992", "expected an integer from 0 to 9007199254740991"),
            ("1e300", "expected an integer from 0 to"),
            ('"1"', "expected a number, found a string"),
            ("null", "expected a number, found null"),
            ("true", "expected a number, found a boolean"),
            ("[1]", "expected a number, found an array"),
            ("{}", "expected a number, found an object"),
        ):
            with self.subTest(text), self.assertRaisesRegex(InvalidInputError, rf"args\[0\]: .*{reason}"):
                self.read(read_number, text)

    def test_texts_and_digests_are_strings(self) -> None:
        self.assertEqual(self.read(read_text, '"oci:x\\ud800"'), "oci:x\ufffd")
        self.assertEqual(str(self.read(read_digest, f'"sha256:{_HEX}"')), f"sha256:{_HEX}")
        for reader in (read_text, read_digest):
            for text in ("1", "null", "true", "[]"):
                with self.subTest(text), self.assertRaisesRegex(InvalidInputError, "expected a string"):
                    self.read(reader, text)

    def test_malformed_digests_are_refused_with_their_code(self) -> None:
        for text, code in (
            ("sha256:abc", ErrorCode.DIGEST_INVALID),
            ("md5:" + "0" * 32, ErrorCode.DIGEST_UNSUPPORTED),
            ("nope", ErrorCode.DIGEST_INVALID),
            ("sha256:" + _HEX.upper(), ErrorCode.DIGEST_INVALID),
            ("", ErrorCode.DIGEST_INVALID),
            (f"sha256:{_HEX}\\n", ErrorCode.DIGEST_INVALID),
            ("sha256:" + "\\ud800" * 64, ErrorCode.DIGEST_INVALID),
        ):
            with self.subTest(text), self.assertRaises(InvalidInputError) as caught:
                self.read(read_digest, f'"{text}"')
            self.assertEqual(caught.exception.code, code)


class RepliesAreWritten(unittest.TestCase):
    def test_a_success_has_five_keys_in_their_order(self) -> None:
        self.assertEqual(
            encode_success("0.2.8", 0), b'{"success":true,"value":"0.2.8","pipeid":0,"error_code":"","error":""}'
        )
        self.assertEqual(
            encode_success(None, 7), b'{"success":true,"value":null,"pipeid":7,"error_code":"","error":""}'
        )

    def test_a_failure_has_details_behind_the_five(self) -> None:
        error = NetworkError("it broke", host="r.example:5000", offset=5)
        found = json.loads(encode_failure(error))
        self.assertEqual(list(found), ["success", "value", "pipeid", "error_code", "error", "details"])
        self.assertEqual(list(found.values())[:5], [False, None, 0, "retryable", "it broke"])
        self.assertEqual(found["details"]["type"], "connection-lost")
        self.assertEqual((found["details"]["host"], found["details"]["offset"]), ("r.example:5000", 5))

    def test_a_success_that_exceeds_a_packet_names_the_way_out(self) -> None:
        with self.assertRaisesRegex(CipError, "GetLayerInfoPiped") as caught:
            encode_success("x" * PACKET_LIMIT, 0)
        self.assertEqual(caught.exception.code, ErrorCode.LIMIT_EXCEEDED)
        self.assertLessEqual(len(encode_success("x" * (PACKET_LIMIT - 80), 0)), PACKET_LIMIT)

    def test_texts_of_any_length_and_alphabet_fit(self) -> None:
        for text in ("x" * 300_000, "\U0001f600" * 100_000, "\ud800" * 50_000, '"\\\n' * 90_000):
            error = RegistryError(text, host=text, digest=text, reason=text)
            with self.subTest(text[:1].encode("utf-8", "backslashreplace")):
                reply, told = encode_failure(error), encode_error_object(error)
                self.assertLess(len(reply), PACKET_LIMIT)
                self.assertLessEqual(len(json.dumps(json.loads(reply)["error"])), 4096)
                self.assertLessEqual(len(told), ERROR_OBJECT_LIMIT)
                json.loads(reply)["error"].encode("utf-8")
                json.loads(told)["message"].encode("utf-8")

    def test_the_text_of_a_failure_is_never_empty(self) -> None:
        self.assertEqual(json.loads(encode_failure(CipError("")))["error"], "internal")
        self.assertEqual(json.loads(encode_error_object(CipError("")))["message"], "internal")

    def test_the_error_object_has_class_and_text_first(self) -> None:
        found = json.loads(encode_error_object(PeerError("the pipe: broken pipe")))
        self.assertEqual(list(found), ["code", "message", "details"])
        self.assertEqual((found["code"], found["message"]), ("EPIPE", "the pipe: broken pipe"))


if __name__ == "__main__":
    unittest.main()

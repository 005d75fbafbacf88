# SPDX-License-Identifier: Apache-2.0
"""Descriptors: what is read from JSON, and what a wrong one is refused for."""

import unittest

from cip.errors import ErrorCode, InvalidDocumentError
from cip.model.descriptor import MAX_SIZE, UNKNOWN_SIZE, Descriptor, Digest, read_descriptor
from cip.model.jsontree import parse_json_text

H = "0123456789abcdef" * 4


def read(text: str) -> Descriptor:
    return read_descriptor(parse_json_text(text, "index"))


class Limits(unittest.TestCase):
    def test_sizes_are_those_of_64_bits_and_unknown_is_none_of_them(self) -> None:
        self.assertEqual((MAX_SIZE, UNKNOWN_SIZE), (9_223_372_036_854_775_807, -1))


class Reading(unittest.TestCase):
    def test_every_member_that_counts_is_kept(self) -> None:
        self.assertEqual(
            read(
                f'{{"mediaType":"a/b","digest":"sha256:{H}","size":{MAX_SIZE},"urls":["u"],"annotations":{{"k":"v"}},'
                '"data":7,"artifactType":[],"platform":"unread","x":null}'
            ),
            Descriptor("a/b", Digest("sha256", H), MAX_SIZE, ("u",), {"k": "v"}),
        )

    def test_only_digest_and_size_have_to_be_there(self) -> None:
        for text in (
            f'{{"digest":"sha256:{H}","size":0}}',
            f'{{"digest":"sha256:{H}","mediaType":null,"size":0,"urls":null,"annotations":null}}',
        ):
            with self.subTest(text):
                self.assertEqual(read(text), Descriptor("", Digest("sha256", H), 0))

    def test_a_wrong_member_is_refused_with_its_place(self) -> None:
        for text, reason in (
            ("[]", "index: expected an object, found an array"),
            ("{}", "index: expected a member 'digest', found none"),
            ('{"digest":7}', "index: digest: expected a string, found an integer"),
            ('{"digest":"sha256:0"}', "index: digest: digest 'sha256:0': expected 64"),
            (f'{{"digest":"sha256:{H}","size":-1}}', "index: size: expected at least 0, found -1"),
            (f'{{"digest":"sha256:{H}","size":{MAX_SIZE + 1}}}', f"index: size: expected at most {MAX_SIZE}"),
            (f'{{"digest":"sha256:{H}","size":1e0}}', "index: size: expected an integer, found a number"),
            (f'{{"digest":"sha256:{H}"}}', "index: expected a member 'size', found none"),
            (f'{{"digest":"sha256:{H}","size":null}}', "index: size: expected an integer, found null"),
            (f'{{"digest":"sha256:{H}","size":1,"urls":["u",2]}}', r"index: urls\[1\]: expected a string"),
            (f'{{"digest":"sha256:{H}","size":1,"annotations":[]}}', "index: annotations: expected an object"),
            (f'{{"digest":"sha256:{H}","DIGEST":"x"}}', "index: ambiguous member 'DIGEST'"),
        ):
            with self.subTest(text), self.assertRaisesRegex(InvalidDocumentError, f"^{reason}") as caught:
                read(text)
            self.assertEqual(caught.exception.code, ErrorCode.MANIFEST_INVALID)


if __name__ == "__main__":
    unittest.main()

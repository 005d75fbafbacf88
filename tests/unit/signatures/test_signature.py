# SPDX-License-Identifier: Apache-2.0
"""Stored signatures: the container formats of signatures.md 4.3; nothing is verified here."""

import base64
import json
import unittest

from cip.errors import SignatureError
from cip.model.signature import SIGNATURE_LIMIT, SigstoreSignature, SimpleSignature, parse_signature_blob


def sigstore(**changes: object) -> bytes:
    members = {"mimeType": "a/b", "payload": base64.b64encode(b"{}\xff").decode(), "annotations": {"k": "v"}} | changes
    return b"\0sigstore-json\n" + json.dumps(members).encode()


class Formats(unittest.TestCase):
    def test_an_openpgp_message_is_known_by_its_first_byte(self) -> None:
        for first in (*range(0x88, 0x8C), 0x90, 0x91, 0x92, *range(0xA0, 0xA4), 0xC2, 0xC4, 0xC8, 0x3D):
            blob = bytes([first]) + b"rest"
            self.assertEqual(parse_signature_blob(blob, "here"), SimpleSignature(blob, "here"))

    def test_a_simple_signature_may_be_named_as_one(self) -> None:
        self.assertEqual(parse_signature_blob(b"\0simple-signing\n\nx", "here"), SimpleSignature(b"\nx", "here"))

    def test_a_sigstore_signature_keeps_payload_and_annotations(self) -> None:
        self.assertEqual(parse_signature_blob(sigstore(), "s"), SigstoreSignature("a/b", b"{}\xff", {"k": "v"}, "s"))
        found = parse_signature_blob(sigstore(annotations=None, more=1), "s")
        assert isinstance(found, SigstoreSignature)
        self.assertEqual(dict(found.annotations), {})

    def test_every_other_format_is_refused_as_unreadable(self) -> None:
        for case, blob, reason in (
            ("empty", b"", "an empty file"),
            ("armor", b"-----BEGIN PGP MESSAGE-----", "unknown format, first byte 0x2d"),
            ("json", b"{}", "unknown format, first byte 0x7b"),
            ("html", b"<html>", "unknown format, first byte 0x3c"),
            ("literal packet", b"\xcb", "unknown format"),
            ("marker", b"\xca", "unknown format"),
            ("0x93", b"\x93", "unknown format"),
            ("other name", b"\0cosign\nx", "unknown format name 'cosign'"),
            ("no newline", b"\0simple-signing", "unknown format name"),
            ("control byte", b"\0simple-signing\r\nx", r"unknown format name 'simple-signing\\r'"),
            ("long name", b"\0" + b"x" * 100_000, "unknown format name 'x{118}…$"),
            ("too large", b"\x90" * (SIGNATURE_LIMIT + 1), f"larger than {SIGNATURE_LIMIT} bytes"),
            ("no json", b"\0sigstore-json\n{", "not valid JSON"),
            ("trailing text", sigstore() + b"x", "not valid JSON"),
            ("an array", b"\0sigstore-json\n[]", "expected an object"),
            ("no payload", b'\0sigstore-json\n{"mimeType":"a"}', "expected a member 'payload'"),
            ("payload of another kind", sigstore(payload=1), "payload: expected a string"),
            ("payload not base64", sigstore(payload="a b="), "payload: expected base64"),
            ("payload of other letters", sigstore(payload="é"), "payload: expected base64"),
            ("payload with a blank", sigstore(payload="e 30="), "payload: expected base64"),
            ("payload without padding", sigstore(payload="YQ"), "payload: expected base64"),
            ("no type", sigstore(mimeType=None), "mimeType: expected a string, found null"),
            ("annotation of another kind", sigstore(annotations={"k": 1}), "annotations.k: expected a string"),
            ("another reader's payload", sigstore(PayLoad={}), "ambiguous member 'PayLoad'"),
            ("another reader's annotations", sigstore(**{"annotation\u017f": 1}), "ambiguous member"),
            ("another reader's type", sigstore(mimetype=""), "ambiguous member 'mimetype'"),
            ("repeated key", b'\0sigstore-json\n{"payload":"","payload":""}', "payload: duplicate key"),
        ):
            with self.subTest(case), self.assertRaisesRegex(SignatureError, f"^signature s:.*{reason}") as caught:
                parse_signature_blob(blob, "s")
            self.assertEqual(caught.exception.reason, "fetch")

    def test_the_largest_signature_passes(self) -> None:
        self.assertEqual(SIGNATURE_LIMIT, 4_194_304)
        blob = b"\x90" * SIGNATURE_LIMIT
        self.assertEqual(parse_signature_blob(blob, "s"), SimpleSignature(blob, "s"))


if __name__ == "__main__":
    unittest.main()

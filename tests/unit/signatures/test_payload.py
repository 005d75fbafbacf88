# SPDX-License-Identifier: Apache-2.0
"""The signed statement (signatures.md 4.6, 5.2): its shape, and what it must be about."""

import json
import unittest
from typing import Any

from cip.errors import SignatureError
from cip.trust.signed.matching import MatchRepoDigestOrExact
from cip.trust.signed.payload import SIGSTORE_TYPE, SIMPLE_SIGNING_TYPE, Claims, parse_payload, require_claims_about
from tests.support.signatures import DIGEST, MANIFEST, OTHER_DIGEST, REFERENCE, docker, payload


class ShapeTest(unittest.TestCase):
    def refuse(self, words: str, text: bytes, kind: str = SIMPLE_SIGNING_TYPE) -> None:
        with self.assertRaisesRegex(SignatureError, words) as caught:
            parse_payload(text, kind)
        self.assertEqual(caught.exception.reason, "payload")
        self.assertTrue(str(caught.exception).startswith("signed payload: "), str(caught.exception))

    def test_claims_are_name_and_digest(self) -> None:
        claims = parse_payload(payload(), SIMPLE_SIGNING_TYPE)
        self.assertEqual((claims.reference, str(claims.digest)), (REFERENCE, DIGEST))

    def test_name_is_taken_as_it_is(self) -> None:
        for name in ("", " x", "docker://x", "x\n"):
            self.assertEqual(parse_payload(payload(name), SIMPLE_SIGNING_TYPE).reference, name)

    def test_each_family_has_its_type(self) -> None:
        parse_payload(payload(kind=SIGSTORE_TYPE), SIGSTORE_TYPE)
        self.refuse("critical.type: expected 'atomic container signature'", payload(kind=SIGSTORE_TYPE))
        self.refuse("critical.type: expected 'cosign container image signature'", payload(), SIGSTORE_TYPE)
        for kind in ("", "Atomic container signature", "atomic container signature "):
            self.refuse("critical.type", payload(kind=kind))

    def test_members_are_exactly_those(self) -> None:
        whole = json.loads(payload())
        for path in ((), ("critical",), ("critical", "image"), ("critical", "identity")):
            for name in list(whole if not path else _at(whole, path)):
                lacking = json.loads(payload())
                del _at(lacking, path)[name]
                with self.subTest("lacking", path=path, name=name):
                    self.refuse(f"expected a member '{name}', found none", _text(lacking))
                    respelled = json.loads(payload())
                    _at(respelled, path)[name.upper()] = _at(respelled, path).pop(name)
                    self.refuse("unknown member", _text(respelled))
            more = json.loads(payload())
            _at(more, path)["x"] = 1
            with self.subTest("more", path=path):
                self.refuse("unknown member 'x'", _text(more))

    def test_members_have_their_types(self) -> None:
        wrong: tuple[tuple[tuple[str, ...], tuple[Any, ...]], ...] = (
            (("critical",), (None, [], "x")),
            (("critical", "type"), (None, 1)),
            (("critical", "image"), (None, "x")),
            (("critical", "identity"), (None, "x")),
            (("critical", "identity", "docker-reference"), (None, 1, ["x"])),
            (("critical", "image", "docker-manifest-digest"), (None, 1)),
            (("optional",), ([], "x", 1, False)),
            (("optional", "creator"), (1, [], {}, True)),
            (("optional", "timestamp"), (1.5, "1", True, [], {}, 2**63, -(2**63) - 1, 1e300)),
        )
        for path, values in wrong:
            for value in values:
                changed = json.loads(payload())
                _at(changed, path[:-1])[path[-1]] = value
                with self.subTest(path, value=value):
                    self.refuse("expected", _text(changed))

    def test_digest_must_parse(self) -> None:
        for text in ("", "sha256:", f"sha256:{'A' * 64}", DIGEST[:-1], f"md5:{'a' * 32}", f"{DIGEST} ", DIGEST[7:]):
            with self.subTest(text):
                self.refuse("critical.image.*docker-manifest-digest.*: digest ", payload(digest=text))

    def test_optional_may_be_null_for_sigstore_alone(self) -> None:
        parse_payload(payload(kind=SIGSTORE_TYPE, optional=None), SIGSTORE_TYPE)
        self.refuse("optional: expected an object, found null", payload(optional=None))

    def test_optional_may_hold_anything_else(self) -> None:
        for optional in (
            {},
            {"x": [1, {"y": None}]},
            {"creator": None, "timestamp": None},
            {"timestamp": 1.0},
            {"timestamp": -(2**63)},
            {"timestamp": 2**63 - 1},
            {"creator": ""},
        ):
            parse_payload(payload(optional=optional), SIMPLE_SIGNING_TYPE)

    def test_text_is_strict_json(self) -> None:
        text = payload()
        for case, changed, words in (
            ("empty", b"", "not valid JSON"),
            ("BOM", b"\xef\xbb\xbf" + text, "not valid JSON"),
            ("behind", text + b"x", "not valid JSON"),
            ("duplicate", text.replace(b'"critical": {', b'"critical": {"type": "x", '), "duplicate key"),
            (
                "duplicate below",
                payload(optional={"x": 1}).replace(b'"x": 1', b'"x": {"a": 1, "a": 2}'),
                "duplicate key",
            ),
            ("not UTF-8", text.replace(b"tests", b"\xff"), "not valid UTF-8"),
            ("surrogate", text.replace(b"tests", b"\\ud800"), "a lone surrogate"),
            ("surrogate in a key", payload(optional={"x": 1}).replace(b'"x"', b'"\\ud800"'), "a lone surrogate"),
            ("array", b"[]", "expected an object, found an array"),
        ):
            with self.subTest(case):
                self.refuse(words, changed)
        parse_payload(b" \n" + text + b"\r\n\t", SIMPLE_SIGNING_TYPE)


class SubjectTest(unittest.TestCase):
    def judge(self, claims: Claims, manifest: bytes = MANIFEST) -> None:
        require_claims_about(claims, manifest, docker(REFERENCE), MatchRepoDigestOrExact())

    def claims(self, **members: str) -> Claims:
        return parse_payload(payload(**members), SIMPLE_SIGNING_TYPE)

    def test_digest_is_that_of_the_bytes_and_told_before_the_name(self) -> None:
        self.judge(self.claims())
        for claims, manifest, reason in (
            (self.claims(digest=OTHER_DIGEST), MANIFEST, "digest"),
            (self.claims(), MANIFEST + b" ", "digest"),
            (self.claims(digest="sha256:" + "f" * 64), MANIFEST, "digest"),
            (self.claims(digest=f"sha512:{'a' * 128}"), MANIFEST, "digest"),
            (self.claims(reference="example.com/x:1", digest=OTHER_DIGEST), MANIFEST, "digest"),
            (self.claims(reference="example.com/x:1"), MANIFEST, "identity"),
        ):
            with self.subTest(claims), self.assertRaisesRegex(SignatureError, "signed for") as caught:
                self.judge(claims, manifest)
            self.assertEqual(caught.exception.reason, reason)


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def _text(value: object) -> bytes:
    return json.dumps(value).encode()


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""policy.json: strict parsing (signatures.md 1.2, 1.4, 2.2; rows P)."""

import hashlib
import json
import subprocess
import sys
import unittest
from typing import Any
from unittest import mock

from cip.errors import ConfigurationError, ErrorCode, PolicyRejectedError, UnsupportedError
from cip.model.reference import Transport, nameless_identity
from cip.trust.policy import (
    POLICY_LIMIT,
    InsecureAcceptAnything,
    Reject,
    UnverifiedImage,
    accept_anything_policy,
    parse_policy,
)
from tests.support.roomed import needs_rooms

ACCEPT = '{"type":"insecureAcceptAnything"}'
P01 = f'{{"default":[{ACCEPT}]}}'
KEY = "a2V5"  # "key"


def parse(text: str | bytes) -> Any:
    return parse_policy(text if isinstance(text, bytes) else text.encode(), "/etc/policy.json")


def requirement(**members: Any) -> str:
    return json.dumps({"default": [members]})


class PolicyCase(unittest.TestCase):
    def refuse(self, words: str, text: str | bytes) -> None:
        with self.assertRaisesRegex(ConfigurationError, words) as caught:
            parse(text)
        self.assertIs(caught.exception.code, ErrorCode.POLICY_INVALID)
        self.assertTrue(str(caught.exception).startswith("/etc/policy.json: "), str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))


class LayoutTest(PolicyCase):
    def test_p01_p02_smallest_policy_and_white_space_around_it(self) -> None:
        for text in (P01, f" \t\r\n{P01}\n  \n"):
            policy = parse(text)
            (only,) = policy.default
            self.assertIsInstance(only, InsecureAcceptAnything)
            self.assertEqual(dict(policy.transports), {})
            self.assertEqual(policy.where, "/etc/policy.json")
            self.assertEqual(policy.sha256, hashlib.sha256(text.encode()).hexdigest())

    def test_p03_anything_around_the_document_is_refused(self) -> None:
        for case, text, words in (
            ("BOM", b"\xef\xbb\xbf" + P01.encode(), "not valid JSON"),
            ("text", P01 + "x", "not valid JSON"),
            ("second value", P01 + "{}", "not valid JSON"),
            ("NUL", P01 + "\0", "not valid JSON"),
            ("form feed", P01 + "\f", "not valid JSON"),
            ("comment", P01 + "//x", "not valid JSON"),
            ("trailing comma", P01[:-1] + ",}", "not valid JSON"),
            ("empty", "", "not valid JSON"),
            (
                "not UTF-8",
                P01.replace("default", "d\udcffefault").encode("utf-8", "surrogateescape"),
                "not valid UTF-8",
            ),
            ("UTF-16", P01.encode("utf-16"), "not valid UTF-8"),
            ("NaN", P01[:-1] + ',"x":NaN}', "not valid JSON"),
            ("lone surrogate", f'{{"default":[{ACCEPT}],"transports":{{"\\ud800":{{}}}}}}', "a lone surrogate"),
        ):
            with self.subTest(case):
                self.refuse(words, text)

    def test_p04_p05_top_level_members(self) -> None:
        for text, words in (
            ("{}", "expected a member 'default', found none"),
            ('{"default":[]}', "default: expected at least one requirement, found none"),
            ('{"default":null}', "default: expected an array, found null"),
            ('{"default":{}}', "default: expected an array, found an object"),
            (f'{{"Default":[{ACCEPT}]}}', "unknown member 'Default'"),
            (f'{{"default":[{ACCEPT}],"x":1}}', "unknown member 'x', expected one of default, transports"),
            ("[]", "expected an object, found an array"),
            ("null", "expected an object, found null"),
            ('"x"', "expected an object, found a string"),
        ):
            with self.subTest(text):
                self.refuse(words, text)

    def test_p06_p09_duplicate_keys_are_found_after_unescaping(self) -> None:
        for text in (
            f'{{"default":[{ACCEPT}],"d\\u0065fault":[{ACCEPT}]}}',
            f'{{"default":[{ACCEPT}],"transports":{{"docker":{{"a":[{ACCEPT}],"a":[{ACCEPT}]}}}}}}',
            f'{{"default":[{ACCEPT}],"transports":{{"docker":{{}},"docker":{{}}}}}}',
            '{"default":[{"type":"reject","type":"reject"}]}',
        ):
            with self.subTest(text):
                self.refuse("duplicate key", text)

    def test_p07_empty_and_null_scopes(self) -> None:
        for transports, words in (
            ("null", "transports: expected an object, found null"),
            ("[]", "transports: expected an object, found an array"),
            ('{"docker":null}', "transports.docker: expected an object, found null"),
            ('{"docker":{"":[]}}', "expected at least one requirement, found none"),
            ('{"docker":{"":null}}', "expected an array, found null"),
            ('{"nosuch":{"":[]}}', "expected at least one requirement, found none"),
            ('{"nosuch":{"":[{"type":"x"}]}}', "expected one of insecureAcceptAnything"),
        ):
            with self.subTest(transports):
                self.refuse(words, f'{{"default":[{ACCEPT}],"transports":{transports}}}')
        for transports in ("{}", '{"docker":{}}', '{"nosuch":{}}'):
            parse(f'{{"default":[{ACCEPT}],"transports":{transports}}}')

    def test_p08_unknown_transports_may_have_any_scope(self) -> None:
        for name in ("nosuch", "ostree", "", "Docker"):
            policy = parse(f'{{"default":[{ACCEPT}],"transports":{{"{name}":{{"anything":[{{"type":"reject"}}]}}}}}}')
            (only,) = policy.transports[name]["anything"]
            self.assertIsInstance(only, Reject)

    def test_p10_p11_requirements_of_another_shape(self) -> None:
        for item, words in (
            ('{"type":"reject","x":1}', "unknown member 'x', expected one of type"),
            ('{"type":"insecureAcceptAnything","keyPath":"/k"}', "unknown member 'keyPath'"),
            ('{"type":"Reject"}', "expected one of insecureAcceptAnything, reject, .* found 'Reject'"),
            ('{"type":"reject","Type":"insecureAcceptAnything"}', "unknown member 'Type'"),
            ('{"type":null}', r"default\[0\].type: expected a string, found null"),
            ("null", r"default\[0\]: expected an object, found null"),
            ('"reject"', "expected an object, found a string"),
            ("{}", "expected a member 'type'"),
        ):
            with self.subTest(item):
                self.refuse(words, f'{{"default":[{item}]}}')

    @needs_rooms("openpgp", "sigstore")
    def test_error_in_a_scope_that_is_never_used_refuses_the_whole(self) -> None:
        text = json.dumps(
            {
                "default": [{"type": "reject"}],
                "transports": {"docker": {"example.com": [{"type": "reject"}, {"type": "signedBy"}]}},
            }
        )
        self.refuse(r"transports.docker\['example.com'\]\[1\]: expected a member 'keyType'", text)

    def test_size_and_depth_are_bounded(self) -> None:
        self.refuse("larger than 4194304 bytes", P01 + " " * POLICY_LIMIT)
        parse(P01 + " " * (POLICY_LIMIT - len(P01)))
        self.refuse("nested deeper than", P01[:-1] + ',"x":' + "[" * 500 + "]" * 500 + "}")
        self.refuse("nested deeper than|not valid JSON", "[" * 300_000)
        with self.assertRaisesRegex(ConfigurationError, "more than 400000 values") as caught:
            parse("[" * 1_000_000)
        self.assertIs(caught.exception.code, ErrorCode.LIMIT_EXCEEDED)

    def test_built_in_policy_accepts_and_names_its_flag(self) -> None:
        policy = accept_anything_policy()
        (only,) = policy.default
        self.assertIsInstance(only, InsecureAcceptAnything)
        self.assertEqual((policy.where, policy.sha256, dict(policy.transports)), ("--insecure-policy", "", {}))

    def test_policy_that_verifies_nothing_imports_nothing_that_verifies(self) -> None:
        code = (
            "import sys; from cip.trust.evaluation import require_accepted; from cip.trust.policy import parse_policy;"
            'parse_policy(b\'{"default":[{"type":"reject"},{"type":"insecureAcceptAnything"}]}\', \'p\');'
            "print([n for n in sys.modules if n.startswith('cip.trust.')], 'dataclasses' in sys.modules)"
        )
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
        for name in ("openpgp", "sigstore", "signed"):
            self.assertNotIn(f"cip.trust.{name}", shown)
        self.assertTrue(shown.endswith(" False\n"), shown)


class ScopeTest(PolicyCase):
    """Row P25, P26 and the table of signatures.md 1.4."""

    HEX = "0123456789abcdef" * 4

    def policy(self, transport: str, scope: str) -> str:
        return json.dumps({"default": [{"type": "reject"}], "transports": {transport: {scope: [{"type": "reject"}]}}})

    @needs_rooms("archives")
    def test_valid_scopes(self) -> None:
        digest = f"sha256:{self.HEX}"
        paths = ("/a", "/a/b", "/a:tag", "/a b", "/...")
        for transport, scopes in {
            "docker": ("a:b:c", "/", "*.example.com", "x"),
            "docker-daemon": ("example.com/a", "sha256:abc", f"md5:{self.HEX}"),
            "docker-archive": (),
            "tarball": (),
            "dir": paths,
            "sif": paths,
            "oci": paths,
            "oci-archive": paths,
            "atomic": ("h", "h/ns", "h/ns/s", "h/ns/s:t", "h:5000/ns", "h/ns/s:", "h/"),
            "containers-storage": (
                "[/g]",
                "[overlay@/g]",
                "[/g]name",
                f"[/g]name@{self.HEX}",
                f"[/g]@{self.HEX}",
                f"[/g]name@{digest}",
                f"[/g]name@{digest}@{self.HEX}",
                "[a@/b@c]",
            ),
        }.items():
            for scope in ("", *scopes):
                with self.subTest(transport, scope=scope):
                    parse(self.policy(transport, scope))

    @needs_rooms("archives")
    def test_invalid_scopes(self) -> None:
        digest = f"sha256:{self.HEX}"
        paths = ("/", "!", "/a/", "a", "/a/../b", "/a/./b", "//a", "/a//b", "/..", "/.", "//")
        for transport, scopes in {
            "docker-daemon": (digest, f"sha512:{self.HEX * 2}"),
            "docker-archive": ("/a", "a", "!"),
            "tarball": ("/a", "!", "~"),
            "dir": paths,
            "sif": paths,
            "oci": paths,
            "oci-archive": paths,
            "atomic": ("h/ns/s/x", "h/ns/s:t:u", "h/n:s", "h/n:s/x", "h/ns/s:t/x"),
            "containers-storage": (
                "x",
                "/g",
                "[g]",
                "[]",
                "[/g",
                "[overlay@]",
                "[@/g]",
                "[overlay@g]",
                f"[/g]name@{self.HEX[1:]}",
                "[/g]name@x",
                f"[/g]name@{digest}@x",
                f"[/g]name@{self.HEX}@{self.HEX}",
                f"[/g]name@{digest}@{digest}",
                f"[/g]name@{digest}@{self.HEX}@",
                f"[/g]@{self.HEX.upper()}",
                "x[/g]",
            ),
        }.items():
            for scope in scopes:
                with self.subTest(transport, scope=scope):
                    self.refuse(
                        r"transports.*: expected [^ ]+ .*(transport|\.\.|digest|stream|front|graph|id)",
                        self.policy(transport, scope),
                    )

    def test_paths_are_scopes_in_every_copy(self) -> None:
        for transport in ("dir", "oci"):
            parse(self.policy(transport, "/a/b"))
            self.refuse("expected an absolute path", self.policy(transport, "/a/"))

    def test_a_scope_that_this_copy_cannot_read_refuses_what_lies_in_it(self) -> None:
        why = UnsupportedError("not part of this copy", code=ErrorCode.DEPENDENCY_MISSING)
        with mock.patch("cip.rooms.local_scope_fault", create=True, side_effect=why):
            policy = parse(f'{{"default":[{ACCEPT}],"transports":{{"oci-archive":{{"":[{ACCEPT}],"/a":[{ACCEPT}]}}}}}}')
        scopes = policy.transports["oci-archive"]
        self.assertIsInstance(scopes[""][0], InsecureAcceptAnything)
        (only,) = scopes["/a"]
        with self.assertRaisesRegex(PolicyRejectedError, "not part of this copy"):
            only.check(UnverifiedImage(nameless_identity(Transport.OCI_ARCHIVE), b""), None, [])


if __name__ == "__main__":
    unittest.main()

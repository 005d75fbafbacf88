# SPDX-License-Identifier: Apache-2.0
"""policy.json: strict parsing (signatures.md 1.2, 1.4, 2.2; rows P)."""

import hashlib
import json
import subprocess
import sys
import unittest
from typing import Any

from cip.errors import ConfigurationError, ErrorCode
from cip.rooms import present
from cip.trust.matching import (
    ExactReference,
    ExactRepository,
    MatchExact,
    MatchRepoDigestOrExact,
    MatchRepository,
    RemapIdentity,
)
from cip.trust.materials import Material
from cip.trust.policy import POLICY_LIMIT, accept_anything_policy, parse_policy
from cip.trust.requirements import InsecureAcceptAnything, Reject, SignedBaseLayer
from tests.support.roomed import needs_rooms

if {"openpgp", "sigstore"} <= {*present()}:
    from cip.trust.openpgp.simplesigning import SignedBy
    from cip.trust.sigstore.certificates import CertificateIdentity
    from cip.trust.sigstore.requirement import SigstoreSigned
    from cip.trust.sigstore.signers import FulcioSource, KeySource, PkiSource

ACCEPT = '{"type":"insecureAcceptAnything"}'
P01 = f'{{"default":[{ACCEPT}]}}'
KEY = "a2V5"  # "key"


def parse(text: str | bytes) -> Any:
    return parse_policy(text if isinstance(text, bytes) else text.encode(), "/etc/policy.json")


def requirement(**members: Any) -> str:
    return json.dumps({"default": [members]})


def signed_by(**members: Any) -> str:
    return requirement(type="signedBy", keyType="GPGKeys", **members)


def sigstore(**members: Any) -> str:
    return requirement(type="sigstoreSigned", **members)


def fulcio(**members: Any) -> str:
    whole = {"caPath": "/ca", "oidcIssuer": "i", "subjectEmail": "e", **members}
    kept = {name: value for name, value in whole.items() if value != "absent"}
    return sigstore(fulcio=kept, rekorPublicKeyPath="/rekor")


def pki(**members: Any) -> str:
    whole = {"caRootsPath": "/ca", "subjectEmail": "e", **members}
    return sigstore(pki={name: value for name, value in whole.items() if value != "absent"})


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
            self.assertEqual(policy.default, (InsecureAcceptAnything(),))
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
            self.assertEqual(policy.transports[name]["anything"], (Reject(),))

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
        self.assertEqual(policy.default, (InsecureAcceptAnything(),))
        self.assertEqual((policy.where, policy.sha256, dict(policy.transports)), ("--insecure-policy", "", {}))

    def test_policy_that_verifies_nothing_imports_nothing_that_verifies(self) -> None:
        code = (
            "import sys; from cip.trust.evaluation import require_accepted; from cip.trust.policy import parse_policy;"
            'parse_policy(b\'{"default":[{"type":"reject"},{"type":"insecureAcceptAnything"}]}\', \'p\');'
            "print([n for n in sys.modules if n.startswith('cip.trust.')], 'dataclasses' in sys.modules)"
        )
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
        for name in ("simplesigning", "sigstore", "keys", "matching", "payload", "keyring", "certificates", "armor"):
            self.assertNotIn(f"cip.trust.{name}", shown)
        self.assertTrue(shown.endswith(" False\n"), shown)


@needs_rooms("openpgp", "sigstore")
class SignedByTest(PolicyCase):
    def test_p12_p13_exactly_one_key_source_that_is_set(self) -> None:
        for text, words in (
            (
                signed_by(keyPath="/k", keyData=None),
                "expected one of keyPath, keyPaths, keyData, found keyPath and keyData",
            ),
            (signed_by(keyPath="/k", keyPaths=["/l"]), "found keyPath and keyPaths"),
            (signed_by(keyPath=""), "keyPath: expected a file name, found ''"),
            (signed_by(keyPath=None), "keyPath: expected a string, found null"),
            (signed_by(keyPaths=None), "keyPaths: expected an array, found null"),
            (signed_by(keyPaths=[None]), r"keyPaths\[0\]: expected a string, found null"),
            (signed_by(keyPaths="/k"), "keyPaths: expected an array, found a string"),
            (signed_by(keyPath="/k\0"), "expected a file name"),
            (signed_by(keyData=None), "keyData: expected a string, found null"),
            (signed_by(keyData=[1, 2]), "keyData: expected a string, found an array"),
            (signed_by(), "expected one of keyPath, keyPaths, keyData, found none"),
            (signed_by(keyPath="/k", keyDatas=[KEY]), "unknown member 'keyDatas'"),
        ):
            with self.subTest(text):
                self.refuse(words, text)

    def test_p14_empty_sources_parse_and_fail_later(self) -> None:
        [empty] = parse(signed_by(keyPaths=[])).default
        self.assertEqual(empty.keys, ())
        [data] = parse(signed_by(keyData="")).default
        self.assertEqual(data.keys, (Material("keyData of the policy"),))

    def test_sources_become_material(self) -> None:
        [several] = parse(signed_by(keyPaths=["/a", "b"])).default
        materials = (Material("keyPaths[0] '/a'", path="/a"), Material("keyPaths[1] 'b'", path="b"))
        self.assertEqual(several, SignedBy("GPGKeys", materials, MatchRepoDigestOrExact()))
        [one] = parse(signed_by(keyPath="/a", signedIdentity={"type": "matchExact"})).default
        self.assertEqual(one, SignedBy("GPGKeys", (Material("keyPath '/a'", path="/a"),), MatchExact()))
        self.assertTrue(one.verifies)

    def test_p15_p16_key_types(self) -> None:
        for kind in ("signedByGPGKeys", "X509Certificates", "signedByX509CAs"):
            [parsed] = parse(requirement(type="signedBy", keyType=kind, keyPath="/k")).default
            self.assertEqual(parsed.key_type, kind)
        for text, words in (
            (requirement(type="signedBy", keyPath="/k"), "expected a member 'keyType'"),
            (
                requirement(type="signedBy", keyPath="/k", keyType="gpgkeys"),
                "expected one of GPGKeys, .* found 'gpgkeys'",
            ),
            (requirement(type="signedBy", keyPath="/k", keyType=None), "keyType: expected a string, found null"),
        ):
            with self.subTest(text):
                self.refuse(words, text)

    def test_p27_base64_of_a_key(self) -> None:
        for text, content in (("a2\r\nV5\n", b"key"), (KEY, b"key"), ("a2U=", b"ke")):
            [parsed] = parse(signed_by(keyData=text)).default
            self.assertEqual(parsed.keys[0].content, content)
        for text in ("a2 V5", "a2U", "a2U==", "a2-_", "a2V5=", "=", "a2U=a2U=", "a2Ví", "a2V="):
            with self.subTest(text):
                self.refuse("keyData: expected base64", signed_by(keyData=text))

    def test_base_layer_needs_an_identity_and_nothing_else(self) -> None:
        [parsed] = parse(requirement(type="signedBaseLayer", baseLayerIdentity={"type": "matchExact"})).default
        self.assertEqual(parsed, SignedBaseLayer())
        for text, words in (
            (requirement(type="signedBaseLayer"), "expected a member 'baseLayerIdentity'"),
            (requirement(type="signedBaseLayer", baseLayerIdentity=None), "expected an object, found null"),
            (requirement(type="signedBaseLayer", baseLayerIdentity={"type": "x"}), "found 'x'"),
            (requirement(type="signedBaseLayer", baseLayerIdentity={"type": "matchExact"}, x=1), "unknown member 'x'"),
        ):
            with self.subTest(text):
                self.refuse(words, text)


@needs_rooms("openpgp", "sigstore")
class IdentityParsingTest(PolicyCase):
    def identity(self, value: Any) -> str:
        return signed_by(keyPath="/k", signedIdentity=value)

    def test_every_matcher_is_read(self) -> None:
        digest = "sha256:" + "a" * 64
        for value, matcher in (
            ({"type": "matchExact"}, MatchExact),
            ({"type": "matchRepoDigestOrExact"}, MatchRepoDigestOrExact),
            ({"type": "matchRepository"}, MatchRepository),
            ({"type": "exactReference", "dockerReference": "busybox:1"}, ExactReference),
            ({"type": "exactReference", "dockerReference": f"busybox@{digest}"}, ExactReference),
            ({"type": "exactRepository", "dockerRepository": "busybox"}, ExactRepository),
            ({"type": "remapIdentity", "prefix": "a:5000", "signedPrefix": "b.c/d"}, RemapIdentity),
        ):
            for text in (self.identity(value), sigstore(keyPath="/k", signedIdentity=value)):
                [parsed] = parse(text).default
                self.assertIs(type(parsed.matcher), matcher)

    def test_p17_p18_malformed_identities(self) -> None:
        for value, words in (
            (None, "signedIdentity: expected an object, found null"),
            ({}, "signedIdentity: expected a member 'type'"),
            ("matchExact", "signedIdentity: expected an object, found a string"),
            ({"type": "MatchExact"}, "expected one of matchExact, .* found 'MatchExact'"),
            ({"type": "matchExact", "x": 1}, "unknown member 'x'"),
            ({"type": "matchRepository", "dockerRepository": "a"}, "unknown member 'dockerRepository'"),
            ({"type": "exactReference"}, "expected a member 'dockerReference'"),
            ({"type": "exactReference", "dockerReference": "busybox"}, "expected a tag or a digest"),
            ({"type": "exactReference", "dockerReference": "Busybox:1"}, "lower-case"),
            ({"type": "exactReference", "dockerReference": None}, "expected a string, found null"),
            ({"type": "exactReference", "dockerReference": "a:1", "dockerRepository": "a"}, "unknown member"),
            ({"type": "exactRepository", "dockerRepository": ""}, "dockerRepository: image reference ''"),
            ({"type": "exactRepository"}, "expected a member 'dockerRepository'"),
        ):
            with self.subTest(value):
                self.refuse(words, self.identity(value))
                self.refuse(words, sigstore(keyPath="/k", signedIdentity=value))

    def test_p19_tag_of_a_repository_is_ignored(self) -> None:
        [parsed] = parse(self.identity({"type": "exactRepository", "dockerRepository": "busybox:tag"})).default
        self.assertEqual(parsed.matcher, ExactRepository("docker.io/library/busybox"))

    def test_p20_prefixes_of_a_remapping(self) -> None:
        def remap(prefix: str, signed: str) -> str:
            return self.identity({"type": "remapIdentity", "prefix": prefix, "signedPrefix": signed})

        digest = f"sha256:{'a' * 64}"
        bad = ["*.example.com", "example.com/", "example.com/a:tag", "example.com/A", "", "a@b", "a//b"]
        bad += ["example.com/a\n", "example.com\n", f"a/b@{digest}"]
        for text in bad:
            for pair in ((text, "good.com"), ("good.com", text)):
                with self.subTest(pair):
                    self.refuse("expected a host, or a host and the beginning", remap(*pair))
        for text in ("foo", "ns/foo", "example.com:5000", "localhost/a/b", "UPPER.com"):
            parse(remap(text, text))
        for lacking in ("prefix", "signedPrefix"):
            members = {"type": "remapIdentity", "prefix": "a", "signedPrefix": "a"}
            del members[lacking]
            self.refuse(f"expected a member '{lacking}'", self.identity(members))


@needs_rooms("openpgp", "sigstore")
class SigstoreSignedTest(PolicyCase):
    def test_p21_exactly_one_trust_source(self) -> None:
        for text, words in (
            (sigstore(), "expected one of keyPath, .*, fulcio, pki, found none"),
            (sigstore(keyPath="/k", keyDatas=[KEY]), "found keyPath and keyDatas"),
            (sigstore(keyPath="/k", fulcio={}, rekorPublicKeyPath="/r"), "found keyPath and fulcio"),
            (sigstore(keyPath="/k", pki={}), "found keyPath and pki"),
            (sigstore(keyPath="/k", keyType="GPGKeys"), "unknown member 'keyType'"),
        ):
            with self.subTest(text):
                self.refuse(words, text)

    def test_p22_fulcio(self) -> None:
        for text, words in (
            (
                sigstore(fulcio={"caPath": "/ca", "oidcIssuer": "i", "subjectEmail": "e"}),
                "fulcio needs one of rekorPublicKeyPath",
            ),
            (fulcio(oidcIssuer="absent"), "expected a member 'oidcIssuer'"),
            (fulcio(subjectEmail="absent"), "expected a member 'subjectEmail'"),
            (fulcio(oidcIssuer=""), "fulcio.oidcIssuer: expected a text, found an empty one"),
            (fulcio(subjectEmail=""), "fulcio.subjectEmail: expected a text"),
            (fulcio(subjectEmail=None), "expected a string, found null"),
            (fulcio(caPath="absent"), "expected one of caPath, caData, found none"),
            (fulcio(caData=KEY), "found caPath and caData"),
            (fulcio(caPath=""), "expected a file name"),
            (fulcio(caPath="absent", caData=""), "expected base64 of a key"),
            (fulcio(caPaths=["/x"]), "unknown member 'caPaths'"),
            (sigstore(fulcio=None, rekorPublicKeyPath="/r"), "fulcio: expected an object, found null"),
        ):
            with self.subTest(text):
                self.refuse(words, text)
        [parsed] = parse(fulcio(signedIdentity="absent")).default
        rekor = (Material("rekorPublicKeyPath '/rekor'", path="/rekor"),)
        source = FulcioSource(Material("caPath '/ca'", path="/ca"), CertificateIdentity("i", "e"), rekor)
        self.assertEqual(parsed, SigstoreSigned(source, MatchRepoDigestOrExact()))
        self.assertTrue(parsed.verifies)

    def test_p23_pki(self) -> None:
        for text, words in (
            (
                sigstore(pki={"caRootsPath": "/c", "subjectEmail": "e"}, rekorPublicKeyPath="/r"),
                "pki goes with no Rekor key",
            ),
            (pki(subjectEmail="absent"), "expected subjectEmail or subjectHostname, found none"),
            (pki(subjectEmail=""), "subjectEmail: expected a text"),
            (pki(subjectHostname=None), "subjectHostname: expected a string, found null"),
            (pki(caRootsPath="absent"), "expected one of caRootsPath, caRootsData, found none"),
            (pki(caRootsData=KEY), "found caRootsPath and caRootsData"),
            (
                pki(caIntermediatesPath="/a", caIntermediatesData=KEY),
                "found caIntermediatesPath and caIntermediatesData",
            ),
            (pki(caIntermediatesPath=""), "expected a file name"),
            (pki(oidcIssuer="i"), "unknown member 'oidcIssuer'"),
            (sigstore(pki=None), "pki: expected an object, found null"),
        ):
            with self.subTest(text):
                self.refuse(words, text)
        [parsed] = parse(pki(subjectHostname="h", caIntermediatesData="")).default
        extra = Material("caIntermediatesData of the policy")
        self.assertEqual(parsed.source, PkiSource(Material("caRootsPath '/ca'", path="/ca"), extra, "e", "h"))
        [parsed] = parse(pki(subjectEmail="absent", subjectHostname="h")).default
        self.assertEqual(parsed.source, PkiSource(Material("caRootsPath '/ca'", path="/ca"), None, "", "h"))

    def test_p24_nothing_silently_drops_the_log_or_a_key(self) -> None:
        """D3: upstream reads an empty one beside another source as if it were not there."""
        beside_a_key: tuple[dict[str, Any], ...] = (
            {"rekorPublicKeyPath": ""},
            {"rekorPublicKeyPath": None},
            {"rekorPublicKeyData": None},
            {"rekorPublicKeyData": ""},
            {"rekorPublicKeyPaths": []},
            {"rekorPublicKeyPaths": None},
            {"rekorPublicKeyDatas": []},
            {"rekorPublicKeyDatas": [""]},
            {"rekorPublicKeyPaths": [""]},
            {"rekorPublicKeyPath": "/r", "rekorPublicKeyData": KEY},
            {"keyData": None},
            {"keyPaths": []},
        )
        for members in beside_a_key:
            with self.subTest(members):
                self.refuse("expected", sigstore(keyPath="/k", **members))
        alone: tuple[dict[str, Any], ...] = (
            {"keyPath": ""},
            {"keyPaths": []},
            {"keyPaths": [""]},
            {"keyData": ""},
            {"keyDatas": []},
            {"keyDatas": [""]},
            {"keyDatas": None},
        )
        for members in alone:
            with self.subTest(members):
                self.refuse("expected", sigstore(**members))

    def test_keys_with_and_without_a_log(self) -> None:
        [plain] = parse(sigstore(keyDatas=[KEY, KEY])).default
        keys = tuple(Material(f"keyDatas[{number}] of the policy", content=b"key") for number in (0, 1))
        self.assertEqual(plain.source, KeySource(keys, ()))
        [logged] = parse(sigstore(keyPath="/k", rekorPublicKeyDatas=[KEY])).default
        log = (Material("rekorPublicKeyDatas[0] of the policy", content=b"key"),)
        self.assertEqual(logged.source, KeySource((Material("keyPath '/k'", path="/k"),), log))


class ScopeTest(PolicyCase):
    """Row P25, P26 and the table of signatures.md 1.4."""

    HEX = "0123456789abcdef" * 4

    def policy(self, transport: str, scope: str) -> str:
        return json.dumps({"default": [{"type": "reject"}], "transports": {transport: {scope: [{"type": "reject"}]}}})

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


if __name__ == "__main__":
    unittest.main()

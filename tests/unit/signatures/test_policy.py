# SPDX-License-Identifier: Apache-2.0
"""policy.json: the requirements that verify signatures (signatures.md 2.2)."""

import unittest
from typing import Any

from cip.rooms import present
from cip.trust.signed.matching import (
    ExactReference,
    ExactRepository,
    MatchExact,
    MatchRepoDigestOrExact,
    MatchRepository,
    RemapIdentity,
)
from cip.trust.signed.materials import Material
from cip.trust.signed.requirement import SignedBaseLayer
from tests.support.roomed import needs_rooms
from tests.unit.test_policy import PolicyCase, parse, requirement

if {"openpgp", "sigstore"} <= {*present()}:
    from cip.trust.openpgp.simplesigning import SignedBy
    from cip.trust.sigstore.certificates import CertificateIdentity
    from cip.trust.sigstore.requirement import SigstoreSigned
    from cip.trust.sigstore.signers import FulcioSource, KeySource, Logging, PkiSource

KEY = "a2V5"  # "key"


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
        source = FulcioSource(Material("caPath '/ca'", path="/ca"), CertificateIdentity("i", "e"), Logging(rekor))
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
        self.assertEqual(plain.source, KeySource(keys))
        [logged] = parse(sigstore(keyPath="/k", rekorPublicKeyDatas=[KEY])).default
        log = (Material("rekorPublicKeyDatas[0] of the policy", content=b"key"),)
        self.assertEqual(logged.source, KeySource((Material("keyPath '/k'", path="/k"),), Logging(log)))


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""Bundles before a policy: its grammar, the name that is not there, what the record says (bundles.md 4, rows P)."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import unittest
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

from cip import log, rooms
from cip.errors import ConfigurationError, ErrorCode, RegistryError, UnsupportedError
from cip.model.reference import Transport, path_identity
from cip.model.signature import BundleRules, FoundBundles, SignatureResult, SigstoreBundle, SigstoreSignature
from cip.report.audit import audit_record
from cip.settings import PolicySource
from cip.trust.evaluation import Decision, ImageRejectedError, require_accepted
from cip.trust.policy import TrustTools, UnverifiedImage, parse_policy
from tests.support.bundles import DIGEST, IMAGE, PREDICATE, SUBJECT_URI, V1, World, authority_entry, statement
from tests.support.signatures import docker, tools
from tests.support.sigstore import OIDC_ISSUER, b64, new_key, public_pem, sign, signature_of, sigstore_payload
from tests.support.stamps import StampAuthority

ROOT, KEY, OTHER, LOG = "/etc/root.json", "/etc/key.pub", "/etc/other.pub", "/etc/log.pub"
SCOPE = "docker: registry.example.com/os"
DIRECTORY = "/etc/containers/registries.d"
REFUSED = BundleRules(identity_file=DIRECTORY, scope=SCOPE)
ALLOWED = BundleRules(True, f"{DIRECTORY}/os.yaml", scope=SCOPE)
BY_KEY: Mapping[str, Any] = {"keyPath": KEY, "signedIdentity": {"type": "matchRepository"}}
MATCH_DIGEST: Mapping[str, Any] = {"type": "matchDigest"}
NAME = "registry.example.com/os:1"


def fulcio(**changes: Any) -> dict[str, Any]:
    """What a policy says about workflows; None leaves a member out."""
    members = {"oidcIssuer": OIDC_ISSUER, "subjectURI": SUBJECT_URI, **changes}
    return {name: value for name, value in members.items() if value is not None}


class BundleCase(unittest.TestCase):
    world: World
    files: Mapping[str, bytes]

    @classmethod
    def setUpClass(cls) -> None:
        cls.world = World()
        cls.files = {
            ROOT: json.dumps(cls.world.trusted_root()).encode(),
            KEY: public_pem(cls.world.key),
            LOG: public_pem(cls.world.log_v1.key),
        }

    def by_key(self, **options: Any) -> bytes:
        """A bundle by the key, without a log unless `log` says so."""
        return self.world.bundle(**{"log": None, "key": self.world.key, **options}).data

    def judge(
        self,
        *bundles: bytes | SigstoreBundle,
        requirements: Sequence[Mapping[str, Any]] = (BY_KEY,),
        rules: BundleRules = ALLOWED,
        readers: PolicySource = PolicySource.FILE,
        signatures: Sequence[SigstoreSignature] = (),
        files: Mapping[str, bytes] | None = None,
        found: FoundBundles | None = None,
        name: str | None = NAME,
        fetch: Callable[[], FoundBundles] | None = None,
        read_rules: Callable[[], BundleRules] | None = None,
        places: Sequence[str] = ("bundles of there",),
    ) -> Decision:
        policy = {"default": [{"type": "sigstoreSigned", **each} for each in requirements]}
        wrapped = [
            each if isinstance(each, SigstoreBundle) else SigstoreBundle(each, f"bundle {number}", f"sha256:{number}")
            for number, each in enumerate(bundles)
        ]
        listed = found or FoundBundles(tuple(wrapped))
        identity = docker(name) if name is not None else path_identity(Transport.OCI, "/srv/layout")
        find, read = fetch or (lambda: listed), read_rules or (lambda: rules)
        image = UnverifiedImage(identity, IMAGE, lambda: signatures, lambda: places, find, read)
        parsed = parse_policy(json.dumps(policy).encode(), "policy.json", readers)  # and below P16
        return require_accepted(parsed, image, tools(self.files if files is None else files), require_signed=True)

    def accepted(self, *bundles: bytes | SigstoreBundle, **options: Any) -> SignatureResult:
        """The signature that was accepted last."""
        found = self.judge(*bundles, **options).signatures[-1]
        self.assertTrue(found.accepted)
        return found

    def refused(self, reason: str, words: str, *bundles: bytes | SigstoreBundle, **options: Any) -> Decision:
        with self.assertRaisesRegex(ImageRejectedError, words) as caught:
            self.judge(*bundles, **options)
        self.assertEqual(caught.exception.reason, reason)
        return caught.exception.decision


class IdentityTest(BundleCase):
    def test_p01_without_the_opt_in_the_refusal_says_what_to_write_where(self) -> None:
        words = (
            r"signed by sha256:[0-9a-f]{64} \(a trusted key\), but bundles name no repository, so matchRepository "
            r'cannot be judged. To accept it by digest alone set "sigstore-bundle-identity: by-digest" under '
            r'"docker: registry.example.com/os" in /etc/containers/registries.d, or use {"type": "matchDigest"} in a '
            r"file given with --policy"
        )
        self.refused("identity", words, self.by_key(), rules=REFUSED)
        default = {"keyPath": KEY}
        name = f"registry.example.com/os@sha256:{DIGEST}"
        for given in (NAME, name):
            words = "so matchRepoDigestOrExact cannot be judged"
            self.refused("identity", words, self.by_key(), rules=REFUSED, requirements=[default], name=given)
        keyless = [{"trustedRootPath": ROOT, "fulcio": fulcio()}]
        words = rf"signed by URI:{SUBJECT_URI} \(a trusted identity\), but bundles name no repository"
        self.refused("identity", words, self.world.bundle().data, rules=REFUSED, requirements=keyless)

    def test_without_a_name_only_the_policy_can_say_so(self) -> None:
        words = 'To accept it by digest alone use {"type": "matchDigest"} in a file given with --policy$'
        self.refused("identity", words, self.by_key(), rules=BundleRules(), name=None)

    def test_p02b_by_digest_is_enough_and_recorded_with_its_file(self) -> None:
        result = self.accepted(self.by_key())
        assert result.bundle is not None
        self.assertEqual((result.bundle.identity, result.bundle.identity_file), ("by-digest", f"{DIRECTORY}/os.yaml"))
        self.assertEqual(result.claims, {"digest": f"sha256:{DIGEST}", "predicate": PREDICATE, "reference": ""})

    def test_what_was_signed_is_shown_to_whoever_opens_the_image(self) -> None:
        (acceptance,) = self.judge(self.by_key()).acceptances
        self.assertEqual((str(acceptance.digest), acceptance.name), (f"sha256:{DIGEST}", NAME))
        self.assertEqual(acceptance.payload, json.dumps(statement()).encode())

    def test_p03_a_stranger_learns_of_no_switch(self) -> None:
        decision = self.refused("crypto", "not by the expected key", self.by_key(key=new_key()), rules=REFUSED)
        self.assertNotIn("by-digest", json.dumps(audit_record(decision, **AUDIT)))

    def test_p04_match_digest(self) -> None:
        requirement = {"keyPath": KEY, "signedIdentity": MATCH_DIGEST}
        for name in (NAME, None):
            result = self.accepted(self.by_key(), requirements=[requirement], rules=REFUSED, name=name)
            assert result.bundle is not None
            self.assertEqual((result.bundle.identity, result.bundle.identity_file), ("matchDigest", ""))
        attached = self.attachment("elsewhere.example/x:9")
        self.accepted(requirements=[requirement], signatures=[attached], rules=REFUSED)
        other = self.attachment("elsewhere.example/x:9", digest="sha256:" + "0" * 64)
        self.refused("digest", "", requirements=[requirement], signatures=[other])

    def attachment(self, name: str, digest: str = f"sha256:{DIGEST}") -> SigstoreSignature:
        text = sigstore_payload(name, digest)
        return signature_of(text, sign(self.world.key, text))

    def test_p14_a_good_attachment_under_a_wrong_name_beside_a_good_bundle(self) -> None:
        attached = self.attachment("registry.example.com/other")
        decision = self.judge(self.by_key(), signatures=[attached])
        self.assertEqual([each.kind for each in decision.signatures], ["sigstore", "sigstore-bundle"])
        self.assertEqual([each.accepted for each in decision.signatures], [False, True])
        words = "signed for registry.example.com/other.*; signed by .* but bundles name no repository"
        self.refused("identity", words, self.by_key(), signatures=[attached], rules=REFUSED)


class ManyTest(BundleCase):
    def test_d09_d10_what_cannot_be_read_or_believed_hides_no_good_one(self) -> None:
        lost = SigstoreBundle(b"", "there", "sha256:x", "", "the bundle is missing")
        decision = self.judge(b"garbage", self.by_key(key=new_key()), lost, self.by_key())
        self.assertEqual([each.reason for each in decision.signatures], ["bundle", "crypto", "bundle", ""])
        self.refused("bundle", "there: the bundle is missing", lost)

    def test_p13_each_requirement_needs_its_own(self) -> None:
        other = new_key()
        files = {**self.files, OTHER: public_pem(other)}
        both = [BY_KEY, {**BY_KEY, "keyPath": OTHER}]
        bundles = self.by_key(), self.by_key(key=other)
        self.judge(*bundles, requirements=both, files=files)
        self.refused("crypto", "not by the expected key", bundles[0], requirements=both, files=files)
        self.refused("crypto", "not by the expected key", bundles[1], requirements=both, files=files)

    def test_k14_k15_any_key_and_a_bare_key_of_a_log(self) -> None:
        other = new_key()
        files = {**self.files, OTHER: public_pem(other)}
        self.accepted(self.by_key(key=other), requirements=[{"keyPaths": [KEY, OTHER]}], files=files)
        logged = {"keyPath": KEY, "rekorPublicKeyPath": LOG}
        self.accepted(self.by_key(log=1), requirements=[logged])
        self.refused("rekor", "", self.by_key(), requirements=[logged])

    def test_d06_d07_d08_k09_other_statements_are_no_signatures(self) -> None:
        def stating(predicate: str) -> bytes:
            return self.by_key(payload=json.dumps(statement(predicateType=predicate)).encode())

        self.refused(
            "nosig",
            r"no sigstore signature found, looked in bundles of there, only 2 attestations "
            r"\(https://slsa.dev/provenance/v1, https://spdx.dev/Document\), which are no signatures of the image",
            stating("https://slsa.dev/provenance/v1"),
            stating("https://spdx.dev/Document"),
        )
        found = FoundBundles((), ("", "https://x.example/v1"), ("2 about another image",))
        words = r"only 2 attestations \(https://x.example/v1\), .* and 2 about another image among what refers to"
        self.refused("nosig", words, found=found)
        words = "only 1 attestation, which is no signature of the image$"
        self.refused("nosig", words, found=FoundBundles((), ("",)))
        self.refused("payload", "a plain signature over the manifest", self.by_key(file=IMAGE))

    def test_a_list_that_cannot_be_had_whole_refuses_and_may_be_tried_again(self) -> None:
        def fail() -> FoundBundles:
            raise RegistryError("r.example: expected status 200, found 500", http_status=500)

        text = sigstore_payload("registry.example.com/os", f"sha256:{DIGEST}")
        attached = signature_of(text, sign(self.world.key, text))
        with self.assertRaisesRegex(ImageRejectedError, "the signatures cannot be fetched: .* found 500") as caught:
            self.judge(signatures=[attached], fetch=fail)
        self.assertEqual((caught.exception.reason, caught.exception.retryable), ("fetch", True))

    def test_configuration_that_cannot_be_read_refuses_and_is_recorded(self) -> None:
        def fail() -> BundleRules:
            raise ConfigurationError("/etc/containers/registries.d/a.yaml", "not valid YAML at line 1")

        decision = self.refused("fetch", "a.yaml: not valid YAML", self.by_key(), read_rules=fail)
        self.assertFalse(decision.accepted)

    def test_whoever_has_not_asked_for_bundles_hears_how(self) -> None:
        words = "looked in bundles of there$"
        self.refused("nosig", words)
        words = 'looked in lookaside; bundles, .* where registries.d says "use-sigstore-bundles: true"$'
        self.refused("nosig", words, places=["lookaside"])
        self.refused("nosig", "looked in index.json$", places=["index.json"], name=None)

    def test_p15_pki_has_no_bundles(self) -> None:
        pki = {"pki": {"caRootsPath": KEY, "subjectEmail": "a@b.c"}}
        self.refused("bundle", "pki works with attachments only", self.by_key(), requirements=[pki])


class RootTest(BundleCase):
    def test_p05_a_trusted_root_in_the_policy(self) -> None:
        for requirement, bundle in (
            ({"trustedRootPath": ROOT, "fulcio": fulcio()}, self.world.bundle().data),
            ({"trustedRootData": b64(self.files[ROOT]), "fulcio": fulcio()}, self.world.bundle().data),
            ({"trustedRootPath": ROOT, "keyPath": KEY}, self.by_key(log=2)),
        ):
            self.accepted(bundle, requirements=[requirement])

    def test_p07_p08_certificates_need_one_and_registries_d_can_name_it(self) -> None:
        email = {"caPath": "/ca", "oidcIssuer": OIDC_ISSUER, "subjectEmail": "a@b.c"}
        old = {"fulcio": email, "rekorPublicKeyPath": LOG}
        bundle = self.world.bundle().data
        words = (
            'set "sigstore-trusted-root" under "docker: registry.example.com/os" in /etc/containers/registries.d, or '
            "trustedRootPath in a file given with --policy"
        )
        self.refused("keycfg", words, bundle, requirements=[old], rules=REFUSED, readers=PolicySource.HOST)
        rules = ALLOWED._replace(trusted_root=ROOT)
        uri = {"fulcio": fulcio(caPath="/not/there"), "rekorPublicKeyPath": "/nor/this"}
        self.accepted(bundle, requirements=[uri], rules=rules)

    def test_a_root_of_registries_d_adds_no_demand_to_keys(self) -> None:
        rules = ALLOWED._replace(trusted_root="/not/there")
        self.accepted(self.by_key(), rules=rules)
        logged = {"keyPath": KEY, "rekorPublicKeyPath": "/not/there"}
        self.accepted(self.by_key(log=2), requirements=[logged], rules=ALLOWED._replace(trusted_root=ROOT))
        self.refused("keycfg", "/not/there", self.by_key(log=2), requirements=[logged])

    def root_with(self, change: Callable[[dict[str, Any]], None]) -> dict[str, bytes]:
        return {**self.files, ROOT: json.dumps(self.world.trusted_root(change)).encode()}

    def test_p11b_two_stamps_count_when_two_operators_made_them(self) -> None:
        second = StampAuthority("second")

        def stamp_again(document: dict[str, Any]) -> None:
            signature = base64.b64decode(document["dsseEnvelope"]["signatures"][0]["sig"])
            stamps = document["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"]
            stamps.append({"signedTimestamp": b64(second.stamp(signature))})

        bundle = self.by_key(log=2, stamps=[{}], change=stamp_again)
        wanted = {"trustedRootPath": ROOT, "keyPath": KEY, "requireTimestamps": 2}
        for operators, reason in ((("", ""), ""), (("a", "b"), ""), (("a", "a"), "time")):
            with self.subTest(operators):

                def both(document: dict[str, Any], operators: tuple[str, str] = operators) -> None:
                    authorities = document["timestampAuthorities"]
                    authorities.append(authority_entry("second", second.leaf, second.anchor))
                    for authority, operator in zip(authorities, operators, strict=True):
                        authority.update({"operator": operator} if operator else {})

                if reason:
                    self.refused(reason, "", bundle, requirements=[wanted], files=self.root_with(both))
                else:
                    found = self.accepted(bundle, requirements=[wanted], files=self.root_with(both))
                    assert found.bundle is not None
                    self.assertEqual(len(found.bundle.times), 2)

    def test_p12b_two_entries_count_when_two_operators_have_them(self) -> None:
        world = self.world

        def log_again(document: dict[str, Any]) -> None:
            envelope = document["dsseEnvelope"]
            payload = base64.b64decode(envelope["payload"])
            signature = base64.b64decode(envelope["signatures"][0]["sig"])
            body = world.body(V1, "dsse", b"", payload, signature, world.key, None, "sha256")
            entry = world.log_v1.entry(json.dumps(body).encode(), kind="dsse", version="0.0.1")
            document["verificationMaterial"]["tlogEntries"].append(entry)

        bundle = self.by_key(log=2, change=log_again)
        wanted = {"trustedRootPath": ROOT, "keyPath": KEY, "requireLogEntries": 2}
        found = self.accepted(bundle, requirements=[wanted])
        assert found.bundle is not None
        self.assertEqual(len(found.bundle.log), 2)

        def one_operator(document: dict[str, Any]) -> None:
            for each in document["tlogs"]:
                each["operator"] = "a"

        self.refused("rekor", "", bundle, requirements=[wanted], files=self.root_with(one_operator))

    def test_p10b_p11_p12_counts(self) -> None:
        unlogged = {"trustedRootPath": ROOT, "keyPath": KEY, "requireLogEntries": 0, "requireTimestamps": 1}
        self.accepted(self.by_key(stamps=[{}]), requirements=[unlogged])
        self.refused("time", "", self.by_key(), requirements=[unlogged])
        two = {"trustedRootPath": ROOT, "fulcio": fulcio(), "requireTimestamps": 2}
        self.refused("time", "", self.world.bundle(stamps=[{}, {}]).data, requirements=[two])
        two = {"trustedRootPath": ROOT, "keyPath": KEY, "requireLogEntries": 2}
        self.refused("rekor", "", self.by_key(log=2), requirements=[two])

    def test_p19_without_a_bundle_no_file_is_read(self) -> None:
        def read(path: str) -> bytes:
            raise AssertionError(path)

        requirement = {"trustedRootPath": "/not/there", "fulcio": fulcio()}
        parsed = parse_policy(
            json.dumps({"default": [{"type": "sigstoreSigned", **requirement}]}).encode(), "p", PolicySource.FILE
        )
        image = UnverifiedImage(docker(NAME), IMAGE, lambda: ())
        with self.assertRaises(ImageRejectedError) as caught:
            own = tools({})
            require_accepted(parsed, image, TrustTools(read, own.run_gpgv, own.now), require_signed=False)
        self.assertEqual(caught.exception.reason, "nosig")
        self.refused("keycfg", "/not/there", self.world.bundle().data, requirements=[requirement])

    def test_entries_that_cannot_be_used_are_told_once_for_a_bundle(self) -> None:
        def change(document: dict[str, Any]) -> None:
            later = json.loads(json.dumps(document["tlogs"][0]))
            later["publicKey"]["keyDetails"] = "ML_DSA_65"
            document["tlogs"].append(later)

        files = {**self.files, ROOT: json.dumps(self.world.trusted_root(change)).encode()}
        told: list[str] = []
        with mock.patch.object(log, "warning", lambda text, *rest: told.append(text % rest)):
            requirement = {"trustedRootPath": ROOT, "keyPath": KEY}
            self.judge(b"garbage", self.by_key(log=2), requirements=[requirement], files=files)
        self.assertEqual(len(told), 1, told)
        self.assertIn("ML_DSA_65", told[0])

    def test_an_attachment_is_not_judged_by_a_trusted_root(self) -> None:
        text = sigstore_payload(NAME, f"sha256:{DIGEST}")
        attached = signature_of(text, sign(self.world.key, text))
        requirement = {"keyPath": KEY, "trustedRootPath": ROOT}
        words = "trustedRootPath '/etc/root.json' works with bundles"
        self.refused("keycfg", words, signatures=[attached], requirements=[requirement])


class AbsentTest(BundleCase):
    def test_a_copy_without_the_room_refuses_bundles_and_keeps_attachments(self) -> None:
        absent = UnsupportedError("Sigstore bundles: not part of this copy", code=ErrorCode.DEPENDENCY_MISSING)
        text = sigstore_payload("registry.example.com/os", f"sha256:{DIGEST}")
        attached = signature_of(text, sign(self.world.key, text))
        with mock.patch.object(rooms, "candidates_among", side_effect=absent):
            self.refused("bundle", "not part of this copy", self.by_key())
            self.judge(self.by_key(), signatures=[attached])


class GrammarTest(unittest.TestCase):
    def refuse(
        self, words: str, readers: PolicySource = PolicySource.FILE, kind: str = "sigstoreSigned", **members: Any
    ) -> None:
        text = json.dumps({"default": [{"type": kind, **members}]}).encode()
        with self.assertRaisesRegex(ConfigurationError, words) as caught:
            parse_policy(text, "policy.json", readers)
        self.assertIs(caught.exception.code, ErrorCode.POLICY_INVALID)

    def test_p04b_p05b_a_file_that_others_read_stays_as_they_know_it(self) -> None:
        shared = PolicySource.HOST
        know = r"\(this program knows it, skopeo and podman do not: use --policy\)"
        digest: dict[str, Any] = {"signedIdentity": {"type": "matchDigest"}}
        self.refuse(f"expected one of matchExact.*, found 'matchDigest' {know}", shared, keyPath=KEY, **digest)
        counts = {"requireLogEntries": 1, "requireTimestamps": 0}
        own: dict[str, Any] = {"trustedRootPath": ROOT, "trustedRootData": "e30=", **counts}
        for name, value in own.items():
            self.refuse(f"unknown member '{name}' {know}", shared, keyPath=KEY, **{name: value})
        for name in ("subjectURI", "subjectOtherName", "buildSignerURI"):
            told = {"caPath": "/ca", "oidcIssuer": "i", name: "x"}
            self.refuse(f"unknown member '{name}' {know}", shared, fulcio=told, rekorPublicKeyPath=LOG)

    def test_p04c_match_digest_is_for_sigstore_alone(self) -> None:
        digest: dict[str, Any] = {"signedIdentity": {"type": "matchDigest"}}
        self.refuse("found 'matchDigest'", kind="signedBy", keyType="GPGKeys", keyPath=KEY, **digest)
        self.refuse("unknown member 'x'", keyPath=KEY, signedIdentity={"type": "matchDigest", "x": 1})

    def test_p09_p09b_p09c_p10_what_fits_together(self) -> None:
        root = {"trustedRootPath": ROOT}
        for words, members in (
            ("expected one subject, found subjectEmail and subjectURI", {**root, "fulcio": fulcio(subjectEmail="e")}),
            ("expected one of subjectEmail, .* found none", {**root, "fulcio": fulcio(subjectURI=None)}),
            ("expected a member 'oidcIssuer'", {**root, "fulcio": fulcio(oidcIssuer=None)}),
            ("expected a text, found an empty one", {**root, "fulcio": fulcio(subjectURI="")}),
            ("requireLogEntries 0 needs requireTimestamps", {**root, "fulcio": fulcio(), "requireLogEntries": 0}),
            ("trusted root goes with neither caPath", {**root, "fulcio": fulcio(caPath="/ca")}),
            ("a Rekor key or a trusted root, found both", {**root, "fulcio": fulcio(), "rekorPublicKeyPath": LOG}),
            ("expected a Rekor key or a trusted root, found both", {**root, "keyPath": KEY, "rekorPublicKeyPath": LOG}),
            ("found trustedRootPath and trustedRootData", {**root, "keyPath": KEY, "trustedRootData": "e30="}),
            ("requireTimestamps: expected it beside one of", {"keyPath": KEY, "requireTimestamps": 1}),
            (
                "requireLogEntries: expected it beside",
                {"keyPath": KEY, "rekorPublicKeyPath": LOG, "requireLogEntries": 1},
            ),
            ("expected at most 4, found 5", {**root, "keyPath": KEY, "requireTimestamps": 5}),
            ("expected at least 0, found -1", {**root, "keyPath": KEY, "requireLogEntries": -1}),
            ("expected an integer, found a boolean", {**root, "keyPath": KEY, "requireLogEntries": True}),
            ("fulcio needs one of rekorPublicKeyPath", {"fulcio": fulcio(caPath="/ca")}),
            ("expected one of caPath, caData, found none", {"fulcio": fulcio(), "rekorPublicKeyPath": LOG}),
            (
                "pki goes with no Rekor key and no trusted root",
                {**root, "pki": {"caRootsPath": "/c", "subjectEmail": "e"}},
            ),
        ):
            with self.subTest(words):
                self.refuse(words, **members)

    def test_build_signer_alone_is_a_subject(self) -> None:
        told = {"trustedRootPath": ROOT, "fulcio": fulcio(subjectURI=None, buildSignerURI="https://b")}
        parse_policy(json.dumps({"default": [{"type": "sigstoreSigned", **told}]}).encode(), "p", PolicySource.FILE)


AUDIT: Mapping[str, Any] = {"reference": "r", "digest": "sha256:d", "index_digest": None, "time": 1.0}


class RecordTest(BundleCase):
    def test_p18_the_record_says_what_was_proven(self) -> None:
        requirement = {"trustedRootPath": ROOT, "fulcio": fulcio()}
        decision = self.judge(self.world.bundle().data, requirements=[requirement])
        (signature,) = json.loads(json.dumps(audit_record(decision, **AUDIT)))["signatures"]
        self.assertEqual(signature["kind"], "sigstore-bundle")
        self.assertEqual(signature["bundle"], "sha256:0")
        self.assertEqual(signature["certificate"], {"issuer": OIDC_ISSUER, "subject": f"URI:{SUBJECT_URI}"})
        (entry,) = signature["log"]
        self.assertEqual(
            {name: type(value) for name, value in entry.items()},
            {"id": str, "origin": str, "index": int, "kind": str, "proof": bool, "promise": bool},
        )
        self.assertEqual([set(each) for each in signature["times"]], [{"from", "name", "time"}])
        self.assertEqual(signature["claims"]["digest"], f"sha256:{DIGEST}")
        self.assertEqual((signature["identity"], signature["identity_file"]), ("by-digest", f"{DIRECTORY}/os.yaml"))

    def test_p18_many_bundles_fit_into_a_line(self) -> None:
        requirement = {"trustedRootPath": ROOT, "fulcio": fulcio(subjectURI="https://else/" + "x" * 2000)}
        # a record keeps four times of a bundle
        bundles = [self.world.bundle(stamps=[{}] * 5).data] * 32
        decision = self.refused("certid", "", *bundles, requirements=[requirement])
        self.assertLess(len(json.dumps(audit_record(decision, **AUDIT))), 64 * 1024)


class ImportTest(unittest.TestCase):
    def test_nothing_of_it_is_imported_before_a_bundle_is_there(self) -> None:
        text = f"""
import sys
from cip.trust.evaluation import ImageRejectedError, require_accepted
from cip.trust.policy import parse_policy
from cip.trust.policy import UnverifiedImage
from tests.support.signatures import docker, tools
policy = parse_policy(b'{{"default": [{{"type": "sigstoreSigned", "keyPath": "{KEY}"}}]}}', "p")
try:
    require_accepted(policy, UnverifiedImage(docker("{NAME}"), b"", lambda: ()), tools(), require_signed=False)
except ImageRejectedError:
    print([name for name in sys.modules if name.startswith(("cip.trust.bundle", "cip.referrers", "cryptography"))])
"""
        done = subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True)
        self.assertEqual(done.stdout, "[]\n")


if __name__ == "__main__":
    unittest.main()

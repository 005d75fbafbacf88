# SPDX-License-Identifier: Apache-2.0
"""`sigstoreSigned`: keys, log entries, Fulcio and PKI certificates (signatures.md 5, rows K, R, F, H)."""

import hashlib
import json
import unittest
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from unittest import mock

from cip.errors import ConfigurationError, ErrorCode
from cip.model.signature import SignatureResult, SigstoreSignature, SimpleSignature, parse_signature_blob
from cip.settings import PolicySource
from cip.trust.evaluation import Decision, ImageRejectedError, require_accepted
from cip.trust.policy import parse_policy
from tests.support.peers import skip_where_asked
from tests.support.signatures import DIGEST, NOW, OTHER_DIGEST, REFERENCE, docker, tools, unverified

skip_where_asked("cryptography")  # packagers without it: the requirement refuses there, which test_evaluation shows

from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding  # noqa: E402
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier  # noqa: E402

from tests.support.sigstore import (  # noqa: E402
    BUNDLE,
    CERTIFICATE,
    CHAIN,
    EMAIL,
    ISSUER_V1,
    NEVER_CRITICAL,
    OIDC_ISSUER,
    POLICY_RULES,
    SIGNATURE,
    SIGNED_AT,
    Issued,
    Log,
    authority,
    b64,
    certified,
    der_string,
    dsa_key,
    fulcio_leaf,
    intermediate,
    issue,
    names,
    new_key,
    pem,
    public_pem,
    raw_extension,
    root,
    rsa_key,
    sign,
    signature_of,
    signed,
    sigstore_payload,
    spki,
    stored,
    usages,
)

DAY = 86400


def policy_of(**members: Any) -> bytes:
    return json.dumps({"default": [{"type": "sigstoreSigned", **members}]}).encode()


class SigstoreCase(unittest.TestCase):
    """Judges images against a policy of one `sigstoreSigned` requirement, through the front door of `trust`."""

    def judge(
        self,
        policy: Mapping[str, Any],
        *signatures: SigstoreSignature,
        files: Mapping[str, bytes] | None = None,
        now: float = NOW,
        identity: str = REFERENCE,
        readers: PolicySource = PolicySource.HOST,
    ) -> Decision:
        return require_accepted(
            parse_policy(policy_of(**policy), "policy.json", readers),
            unverified(*signatures, identity=docker(identity)),
            tools(files, now=now),
            require_signed=True,
        )

    def refuse(
        self,
        reason: str,
        words: str,
        policy: Mapping[str, Any],
        *signatures: SigstoreSignature,
        files: Mapping[str, bytes] | None = None,
        now: float = NOW,
    ) -> Decision:
        with self.assertRaisesRegex(ImageRejectedError, words) as caught:
            self.judge(policy, *signatures, files=files, now=now)
        self.assertEqual(caught.exception.reason, reason)
        return caught.exception.decision


class KeyTest(SigstoreCase):
    """Rows K: a public key in the policy."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.key, cls.other = new_key(), new_key()
        cls.rsa = rsa_key(2048)

    key: Any
    other: Any
    rsa: Any

    def trusting(self, *keys: Any) -> dict[str, Any]:
        return {"keyDatas": [b64(public_pem(key)) for key in keys or (self.key,)]}

    def test_k01_every_listed_kind_of_key_is_accepted(self) -> None:
        keys = {
            "P-224": new_key(ec.SECP224R1()),
            "P-256": self.key,
            "P-384": new_key(ec.SECP384R1()),
            "P-521": new_key(ec.SECP521R1()),
            "RSA": self.rsa,
            "Ed25519": ed25519.Ed25519PrivateKey.generate(),
        }
        for name, key in keys.items():
            with self.subTest(name):
                self.judge(self.trusting(key), signed(key))

    def test_accepted_signature_is_recorded_with_the_fingerprint_of_its_key(self) -> None:
        [result] = self.judge(self.trusting(self.other, self.key), signed(self.key)).signatures
        self.assertEqual(
            result,
            SignatureResult(
                "place",
                "sigstore",
                True,
                key=f"sha256:{hashlib.sha256(spki(self.key)).hexdigest()}",
                claims={"reference": REFERENCE, "digest": DIGEST},
            ),
        )

    def test_pkcs1_key_file_is_read(self) -> None:
        der = self.rsa.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
        self.judge({"keyData": b64(pem(der, "RSA PUBLIC KEY"))}, signed(self.rsa))

    def test_k02_other_hashes_and_paddings_are_refused(self) -> None:
        text = sigstore_payload()
        p384, edwards = new_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
        for case, key, made in (
            ("P-384 with SHA-384", p384, p384.sign(text, ec.ECDSA(hashes.SHA384()))),
            ("RSA-PSS", self.rsa, self.rsa.sign(text, pss, hashes.SHA256())),
            ("RSA with SHA-512", self.rsa, self.rsa.sign(text, padding.PKCS1v15(), hashes.SHA512())),
            ("Ed25519 over the hash", edwards, edwards.sign(hashlib.sha256(text).digest())),
        ):
            with self.subTest(case):
                self.refuse("crypto", "not by the expected key", self.trusting(key), signature_of(text, made))

    def test_ecdsa_signature_with_something_behind_it_or_without_der_is_refused(self) -> None:
        text = sigstore_payload()
        made = sign(self.key, text)
        for case, changed in (("trailing", made + b"\0"), ("raw", bytes(64)), ("cut", made[:-1]), ("long", made * 2)):
            with self.subTest(case):
                self.refuse("crypto", "", self.trusting(), signature_of(text, changed))

    def test_k03_unsuitable_key_files_are_refused(self) -> None:
        public, private = serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PrivateFormat.PKCS8
        compressed = self.key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
        )
        head = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
        key_pem = public_pem(self.key)
        rsa_as_spki = self.rsa.public_key().public_bytes(serialization.Encoding.DER, public)
        plain, pss = "30820122300d06092a864886f70d0101010500", "30820120300b06092a864886f70d01010a"
        self.assertEqual(rsa_as_spki[:19].hex(), plain)  # rsaEncryption with NULL; then id-RSASSA-PSS with nothing
        pss_only = bytes.fromhex(pss) + rsa_as_spki[19:]
        for case, content, words in (
            ("secp256k1", public_pem(new_key(ec.SECP256K1())), "unsupported curve secp256k1"),
            ("Ed448", public_pem(ed448.Ed448PrivateKey.generate()), r"1\.3\.101\.113 \(Ed448\) is not supported"),
            ("DSA", public_pem(dsa_key()), r"1\.2\.840\.10040\.4\.1 \(DSA\) is not supported"),
            ("RSA-1024", public_pem(rsa_key(1024)), "1024 bits, expected at least 2048"),
            ("certificate", root().pem, "found 'CERTIFICATE'"),
            (
                "private key",
                self.key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()),
                "found 'PRIVATE KEY'",
            ),
            ("bare DER", spki(self.key), "in PEM form"),
            ("garbage", b"garbage", "in PEM form"),
            ("not base64", key_pem.replace(b"MF", b"M*"), "in PEM form"),
            ("garbage in base64", pem(b"garbage", "PUBLIC KEY"), "keyData of the policy: "),
            ("something behind the key", pem(spki(self.key) + b"\0", "PUBLIC KEY"), "keyData of the policy: "),
            ("compressed point", pem(head + compressed, "PUBLIC KEY"), "not in its canonical encoding"),
            ("RSA-PSS", pem(pss_only, "PUBLIC KEY"), "not in its canonical encoding|keyData of the policy"),
            ("SPKI under the other label", pem(rsa_as_spki, "RSA PUBLIC KEY"), "canonical|keyData of the policy"),
            ("ECDSA under the RSA label", pem(spki(self.key), "RSA PUBLIC KEY"), "canonical|keyData of the policy"),
        ):
            with self.subTest(case):
                decision = self.refuse("keycfg", words, {"keyData": b64(content)}, signed(self.key))
                self.assertEqual([each.reason for each in decision.signatures], ["keycfg"])

    def test_k04_any_of_several_keys_accepts_and_one_bad_entry_refuses(self) -> None:
        self.judge(self.trusting(self.other, self.key), signed(self.key))
        broken = {"keyDatas": [b64(public_pem(self.key)), b64(b"garbage")]}
        self.refuse("keycfg", r"keyDatas\[1\] of the policy: expected a public key", broken, signed(self.key))

    def test_missing_key_file_is_told_apart(self) -> None:
        files = {"/good": public_pem(self.key)}
        self.judge({"keyPath": "/good"}, signed(self.key), files=files)
        words = r"keyPaths\[1\] '/missing': /missing: no such file"
        self.refuse("keycfg", words, {"keyPaths": ["/good", "/missing"]}, signed(self.key), files=files)

    def test_k05_second_key_of_a_file_is_never_used(self) -> None:
        both = public_pem(self.other) + public_pem(self.key)
        self.refuse("crypto", "not by the expected key", {"keyData": b64(both)}, signed(self.key))
        self.judge({"keyData": b64(b"text\n" + both)}, signed(self.other))

    def test_k06_signature_annotation(self) -> None:
        text = sigstore_payload()
        made = b64(sign(self.key, text))
        for case, annotation, accepted in (
            ("newline inside", made[:20] + "\r\n" + made[20:], True),
            ("newline behind", made + "\n", True),
            ("empty", "", False),
            ("space", made[:20] + " " + made[20:], False),
            ("no padding", made.rstrip("=")[:-1], False),
            ("URL alphabet", made.replace("/", "_").replace("+", "-") + "_", False),
            ("not ASCII", made + "é", False),
        ):
            signature = signature_of(text, b"", {SIGNATURE: annotation})
            with self.subTest(case):
                if accepted:
                    self.judge(self.trusting(), signature)
                else:
                    self.refuse("crypto", "", self.trusting(), signature)
        missing = SigstoreSignature(signed(self.key).mime_type, text, {}, "place")
        self.refuse("crypto", "no annotation dev.cosignproject.cosign/signature", self.trusting(), missing)

    def test_k07_k09_payload_of_another_shape_is_refused(self) -> None:
        text = sigstore_payload()
        for case, changed in (
            ("BOM", b"\xef\xbb\xbf" + text),
            ("trailing junk", text + b"x"),
            ("extra", b'{"x": 1, ' + text[1:]),
            ("critical twice", text[:-1] + b', "critical": {}}'),
            ("escaped duplicate", text.replace(b'"type":', b'"t\\u0079pe": "x", "type":')),
            ("optional missing", json.dumps({"critical": json.loads(text)["critical"]}).encode()),
            ("optional array", sigstore_payload(optional=[])),
            ("half a second", sigstore_payload(optional={"timestamp": 1.5})),
            ("timestamp text", sigstore_payload(optional={"timestamp": "1"})),
            ("timestamp boolean", sigstore_payload(optional={"timestamp": True})),
            ("timestamp too large", sigstore_payload(optional={"timestamp": 2**63})),
            ("creator number", sigstore_payload(optional={"creator": 5})),
            ("NaN", sigstore_payload(optional={"timestamp": float("nan")})),
            ("other family", text.replace(b"cosign container image", b"atomic container")),
            ("lone surrogate", text.replace(b"example.com", b"example.com\\ud800")),
            ("not UTF-8", text.replace(b"tests", b"\xff")),
        ):
            with self.subTest(case):
                decision = self.refuse("payload", "signed payload", self.trusting(), signed(self.key, changed))
                self.assertIsNone(decision.signatures[0].claims)

    def test_k08_optional_may_hold_anything_else(self) -> None:
        for optional in (
            None,
            {},
            {"x": {"y": [1, None]}},
            {"timestamp": 1.0},
            {"timestamp": 1e3},
            {"creator": None, "timestamp": None},
            {"timestamp": -(2**63)},
            {"timestamp": 2**63 - 1},
        ):
            with self.subTest(optional):
                self.judge(self.trusting(), signed(self.key, sigstore_payload(optional=optional)))

    def test_k10_other_mime_types_are_counted_and_not_accepted(self) -> None:
        text = sigstore_payload()
        made = sign(self.key, text)
        parameters = signature_of(text, made, mime_type="application/vnd.dev.cosign.simplesigning.v1+json; x=y")
        self.refuse("nosig", "no sigstore signature found, only 1 other attachments", self.trusting(), parameters)

    def test_c08_other_kinds_are_counted(self) -> None:
        attachment = signature_of(b"", b"", mime_type="text/plain")
        image = unverified(attachment, attachment, SimpleSignature(b"\xa3", "place"))
        policy = parse_policy(policy_of(**self.trusting()), "p")
        with self.assertRaisesRegex(ImageRejectedError, "only 1 simple signatures and 2 other attachments") as caught:
            require_accepted(policy, image, tools(), require_signed=False)
        self.assertEqual(caught.exception.reason, "nosig")

    def test_k14_good_signature_behind_an_attestation_is_found(self) -> None:
        attestation = signature_of(b"{}", b"", mime_type="application/vnd.dsse.envelope.v1+json")
        self.judge(self.trusting(), attestation, signed(self.key))

    def test_k15_stored_signature_is_read_back(self) -> None:
        blob = parse_signature_blob(stored(signed(self.key)), "place")
        assert isinstance(blob, SigstoreSignature)
        self.judge(self.trusting(), blob)

    def test_k16_name_and_digest_are_bound(self) -> None:
        for case, text, reason in (
            ("name only", sigstore_payload("example.com/ns/r"), "identity"),
            ("other tag", sigstore_payload("example.com/ns/r:v2"), "identity"),
            ("other digest", sigstore_payload(digest=OTHER_DIGEST), "digest"),
            ("both", sigstore_payload("example.com/ns/r:v2", OTHER_DIGEST), "digest"),
        ):
            with self.subTest(case):
                self.refuse(reason, "signed for", self.trusting(), signed(self.key, text))

    def test_signature_by_another_key_over_a_tampered_payload_is_refused(self) -> None:
        made = signed(self.key)
        self.refuse("crypto", "not by the expected key", self.trusting(self.other), made)
        tampered = made._replace(payload=made.payload.replace(b"v1", b"v2"))
        self.refuse("crypto", "not by the expected key", self.trusting(), tampered)

    def test_c06_reasons_of_several_signatures_are_all_told(self) -> None:
        many = [signed(self.key, sigstore_payload(f"example.com/ns/r:t{number}")) for number in range(9)]
        self.refuse("identity", "r:t0: .*; signed for example.com/ns/r:t5: [^;]*; and 3 more$", self.trusting(), *many)

    def test_certificate_and_log_entry_are_ignored_with_a_bare_key(self) -> None:
        self.judge(self.trusting(), signed(self.key, annotations={CERTIFICATE: "x", CHAIN: "y", BUNDLE: "z"}))

    def test_missing_package_refuses_with_its_own_code(self) -> None:
        real = __import__

        def without(name: str, *arguments: Any, **options: Any) -> Any:
            if name.partition(".")[0] == "cryptography":
                raise ImportError(name)
            return real(name, *arguments, **options)

        policy, signature = self.trusting(), signed(self.key)
        words = "cryptography is not installed: needed to check a sigstore signature"
        with mock.patch("builtins.__import__", without), self.assertRaisesRegex(ImageRejectedError, words) as caught:
            self.judge(policy, signature)
        error = caught.exception
        self.assertEqual((error.code, error.reason), (ErrorCode.DEPENDENCY_MISSING, "dependency"))
        self.assertEqual([each.accepted for each in error.decision.signatures], [False])


class RekorTest(SigstoreCase):
    """Rows R: the log entry with a public key in the policy."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.key, cls.other, cls.log = new_key(), new_key(), Log()
        cls.text = sigstore_payload()
        cls.made = sign(cls.key, cls.text)

    key: Any
    other: Any
    log: Log
    text: bytes
    made: bytes

    def trusting(self, *logs: Any, keys: Sequence[Any] = ()) -> dict[str, Any]:
        return {
            "keyDatas": [b64(public_pem(key)) for key in keys or (self.key,)],
            "rekorPublicKeyDatas": [b64(public_pem(key)) for key in logs or (self.log.key,)],
        }

    def with_entry(self, entry: str) -> SigstoreSignature:
        return signature_of(self.text, self.made, {BUNDLE: entry})

    def honest(self) -> dict[str, Any]:
        return self.log.bundle(self.log.body(self.text, self.made, public_pem(self.key)))

    def test_r01_logged_signature_is_accepted(self) -> None:
        self.judge(self.trusting(), self.with_entry(json.dumps(self.honest())))

    def test_r02_entry_about_something_else_is_refused(self) -> None:
        entry = self.log.entry
        again = sign(self.key, self.text)
        for case, signature, words in (
            ("missing", signature_of(self.text, self.made), "no annotation dev.sigstore.cosign/bundle"),
            ("other key", self.with_entry(entry(self.text, self.made, public_pem(self.other))), "about another key"),
            ("other signature", self.with_entry(entry(self.text, again, public_pem(self.key))), "another signature"),
            ("other payload", self.with_entry(entry(b"x", self.made, public_pem(self.key))), "another payload"),
        ):
            with self.subTest(case):
                self.refuse("rekor", words, self.trusting(), signature)

    def test_r03_any_configured_log_may_have_signed(self) -> None:
        signature = self.with_entry(json.dumps(self.honest()))
        self.refuse("rekor", "not signed by a known log", self.trusting(self.other), signature)
        self.judge(self.trusting(self.other, self.log.key), signature)

    def test_any_configured_key_may_have_signed_whatever_their_order(self) -> None:
        signature = self.with_entry(json.dumps(self.honest()))
        for others in ([new_key() for _ in range(8)], [new_key() for _ in range(8)]):
            self.judge(self.trusting(keys=[*others, self.key]), signature)
            self.judge(self.trusting(keys=[self.key, *others]), signature)

    def test_r04_only_hashedrekord_of_the_known_version_over_sha256(self) -> None:
        def changed(*path: str, value: Any) -> dict[str, Any]:
            body = self.log.body(self.text, self.made, public_pem(self.key))
            node = body
            for step in path[:-1]:
                node = node[step]
            node[path[-1]] = value
            return body

        for case, body in (
            *((kind, changed("kind", value=kind)) for kind in ("rekord", "intoto", "dsse", "Hashedrekord")),
            ("version", changed("apiVersion", value="0.0.2")),
            ("algorithm", changed("spec", "data", "hash", "algorithm", value="sha512")),
            ("no key", changed("spec", "signature", "publicKey", value={})),
            ("no signature", changed("spec", "signature", "content", value=None)),
            ("signature not base64", changed("spec", "signature", "content", value="*")),
            ("key not PEM", changed("spec", "signature", "publicKey", "content", value=b64(b"x"))),
            ("key not base64", changed("spec", "signature", "publicKey", "content", value="*")),
            ("other case", {"Kind": "hashedrekord", **changed("kind", value="hashedrekord")}),
            ("other case below", changed("spec", "Data", value={})),
        ):
            with self.subTest(case):
                entry = json.dumps(self.log.bundle(body))
                self.refuse("rekor", "log entry body|PEM block", self.trusting(), self.with_entry(entry))

    def test_body_may_have_unknown_members_and_an_upper_case_hash(self) -> None:
        body = self.log.body(self.text, self.made, public_pem(self.key), unknown=[1])
        body["spec"]["data"]["hash"]["value"] = body["spec"]["data"]["hash"]["value"].upper()
        self.judge(self.trusting(), self.with_entry(json.dumps(self.log.bundle(body))))

    def test_body_of_duplicate_members_or_no_json_is_refused(self) -> None:
        body = json.dumps(self.log.body(self.text, self.made, public_pem(self.key))).encode()
        for case, text in (("duplicate", body[:-1] + b',"kind":"hashedrekord"}'), ("text", b"x"), ("array", b"[]")):
            with self.subTest(case):
                self.refuse(
                    "rekor", "log entry body", self.trusting(), self.with_entry(json.dumps(self.log.bundle(text)))
                )

    def test_pem_of_the_entry_may_follow_text_and_nothing_may_follow_it(self) -> None:
        key = public_pem(self.key)
        for case, text, accepted in (
            ("text before", b"text\n" + key, True),
            ("without line end", key.rstrip(b"\n"), True),
            ("other label", key.replace(b"PUBLIC KEY", b"SOMETHING"), True),
            ("blank line", key + b"\n", False),
            ("text behind", key + b"x", False),
            ("second block", key + key, False),
        ):
            signature = self.with_entry(self.log.entry(self.text, self.made, text))
            with self.subTest(case):
                if accepted:
                    self.judge(self.trusting(), signature)
                else:
                    self.refuse("rekor", "one PEM block with nothing behind it", self.trusting(), signature)

    def test_pkcs1_policy_key_is_compared_in_its_other_form(self) -> None:
        key = rsa_key(2048)
        der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
        policy = {"keyData": b64(pem(der, "RSA PUBLIC KEY")), "rekorPublicKeyData": b64(public_pem(self.log.key))}
        made = sign(key, self.text)
        for form, accepted in ((public_pem(key), True), (pem(der, "RSA PUBLIC KEY"), False)):
            signature = signature_of(self.text, made, {BUNDLE: self.log.entry(self.text, made, form)})
            with self.subTest(accepted=accepted):
                if accepted:
                    self.judge(policy, signature)
                else:
                    self.refuse("rekor", "another key", policy, signature)

    def test_r05_entry_of_another_shape_is_refused(self) -> None:
        body = self.log.body(self.text, self.made, public_pem(self.key))
        good = json.dumps(self.honest())
        lacking = self.honest()
        del lacking["Payload"]["logID"]
        for case, entry in (
            ("extra in payload", json.dumps(self.log.bundle(body, x=1))),
            ("extra outside", good[:-1] + ', "x": 1}'),
            ("no log id", json.dumps(lacking)),
            ("duplicate", good.replace('"logIndex": 1', '"logIndex": 1, "logIndex": 1')),
            ("lower case", good.replace('"Payload"', '"payload"')),
            ("lower case timestamp", good.replace('"SignedEntryTimestamp"', '"signedEntryTimestamp"')),
            ("not base64", good.replace('"SignedEntryTimestamp": "', '"SignedEntryTimestamp": "*')),
            ("text", "x"),
            ("array", "[]"),
            ("null", "null"),
            ("empty", ""),
        ):
            with self.subTest(case):
                self.refuse("rekor", "log entry", self.trusting(), self.with_entry(entry))

    def test_numbers_and_log_id_are_ordinary(self) -> None:
        """D9: whatever canonical JSON might write differently is refused even when the log signed it."""
        body = self.log.body(self.text, self.made, public_pem(self.key))
        for case, changes in (
            ("time float", {"integratedTime": 1.0}),
            ("time zero", {"integratedTime": 0}),
            ("time negative", {"integratedTime": -1}),
            ("time text", {"integratedTime": "1"}),
            ("time true", {"integratedTime": True}),
            ("time null", {"integratedTime": None}),
            ("time large", {"integratedTime": 2**53}),
            ("index negative", {"logIndex": -1}),
            ("index large", {"logIndex": 2**53}),
            ("index null", {"logIndex": None}),
            ("id null", {"logID": None}),
            ("id not ASCII", {"logID": "é"}),
            ("id control", {"logID": "a\nb"}),
            ("id number", {"logID": 1}),
            ("body null", {"body": None}),
            ("body not base64", {"body": "*"}),
        ):
            with self.subTest(case):
                entry = json.dumps(self.log.bundle(body, **changes))
                self.refuse("rekor", r"log entry: Payload\.", self.trusting(), self.with_entry(entry))
        for case, changes in (
            ("time one", {"integratedTime": 1}),
            ("largest time", {"integratedTime": 2**53 - 1}),
            ("index zero", {"logIndex": 0}),
            ("largest index", {"logIndex": 2**53 - 1}),
            ("empty id", {"logID": ""}),
        ):
            with self.subTest(case):
                self.judge(self.trusting(), self.with_entry(json.dumps(self.log.bundle(body, **changes))))

    def test_r06_spelling_of_the_entry_does_not_matter(self) -> None:
        honest = self.honest()
        honest["Payload"] = dict(reversed(honest["Payload"].items()))
        self.judge(self.trusting(), self.with_entry(json.dumps(honest, indent=2)))

    def test_r07_only_the_logged_key_may_have_signed(self) -> None:
        entry = self.log.entry(self.text, self.made, public_pem(self.other))
        self.refuse(
            "crypto", "not by the expected key", self.trusting(keys=(self.key, self.other)), self.with_entry(entry)
        )

    def test_r08_log_keys_are_ecdsa(self) -> None:
        for key in (rsa_key(2048), ed25519.Ed25519PrivateKey.generate()):
            log = Log(key)
            signature = self.with_entry(log.entry(self.text, self.made, public_pem(self.key)))
            with self.subTest(type(key).__name__):
                self.refuse("keycfg", "expected an ECDSA key of a log", self.trusting(key), signature)

    def test_tampered_entry_is_refused(self) -> None:
        honest = self.honest()
        honest["Payload"]["integratedTime"] += 1
        self.refuse("rekor", "not signed by a known log", self.trusting(), self.with_entry(json.dumps(honest)))


class FulcioTest(SigstoreCase):
    """Rows F: short-lived certificates, judged at the time of their log entry."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.log, cls.root = Log(), root()
        cls.intermediate = intermediate(cls.root)

    log: Log
    root: Issued
    intermediate: Issued

    def trusting(self, *anchors: Issued, email: str = EMAIL, issuer: str = OIDC_ISSUER) -> dict[str, Any]:
        authorities = b"".join(each.pem for each in anchors or (self.root,))
        return {
            "fulcio": {"caData": b64(authorities), "oidcIssuer": issuer, "subjectEmail": email},
            "rekorPublicKeyData": b64(public_pem(self.log.key)),
        }

    def leaf(self, **options: Any) -> Issued:
        return fulcio_leaf(options.pop("issuer", self.root), **options)

    def accept(self, leaf: Issued, *anchors: Issued, chain: Sequence[Issued] = (), time: int = SIGNED_AT) -> Decision:
        return self.judge(self.trusting(*anchors), certified(leaf, self.log, chain=chain, time=time))

    def deny(
        self,
        reason: str,
        words: str,
        leaf: Issued,
        *anchors: Issued,
        chain: Sequence[Issued] = (),
        time: int = SIGNED_AT,
    ) -> None:
        self.refuse(reason, words, self.trusting(*anchors), certified(leaf, self.log, chain=chain, time=time))

    def test_f01_long_expired_leaf_is_judged_at_the_time_of_its_entry(self) -> None:
        [result] = self.accept(self.leaf()).signatures
        self.assertEqual(result.certificate, {"issuer": OIDC_ISSUER, "subject": EMAIL})

    def test_workflows_sign_attachments_too(self) -> None:
        uri, other = "https://github.com/acme/os/.github/workflows/release.yml@refs/heads/main", "https://else.example"
        leaf = self.leaf(san=x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]))
        for wanted, reason in ((uri, ""), (uri + "/", "certid"), (other, "certid")):
            policy = self.trusting()
            policy["fulcio"] = {**policy["fulcio"], "subjectURI": wanted}
            del policy["fulcio"]["subjectEmail"]
            if reason:
                with self.assertRaisesRegex(ImageRejectedError, "expected a certificate for") as caught:
                    self.judge(policy, certified(leaf, self.log), readers=PolicySource.FILE)
                self.assertEqual(caught.exception.reason, reason)
            else:
                [result] = self.judge(policy, certified(leaf, self.log), readers=PolicySource.FILE).signatures
                self.assertEqual(result.certificate, {"issuer": OIDC_ISSUER, "subject": f"URI:{uri}"})
        with self.assertRaisesRegex(ConfigurationError, "use --policy"):
            parse_policy(policy_of(**policy), "policy.json")

    def test_f02_f04_intermediates_come_from_the_chain_but_its_last(self) -> None:
        leaf = self.leaf(issuer=self.intermediate)
        self.accept(leaf, chain=[self.intermediate, self.root])
        self.accept(leaf, self.root, self.intermediate)
        self.accept(leaf, self.intermediate)
        for case, chain in (
            ("only the intermediate", [self.intermediate]),
            ("wrong order", [self.root, self.intermediate]),
            ("none", []),
        ):
            with self.subTest(case):
                self.deny("untrusted", "no trusted certificate vouches", leaf, chain=chain)

    def test_chain_annotation_must_be_certificates_and_nothing_else(self) -> None:
        leaf = self.leaf()
        made = certified(leaf, self.log)
        text = self.root.text
        for case, chain, accepted in (
            ("whitespace", " \n", True),
            ("text before", "text\n" + text, True),
            ("spaces around", f"\n{text}\n \n", True),
            ("text behind", text + "x", False),
            ("text alone", "x", False),
            ("garbage certificate", pem(b"x", "CERTIFICATE").decode() + text, False),
            ("not base64", text.replace("MII", "M*I"), False),
            ("too many", text * 33, False),
        ):
            signature = made._replace(annotations={**made.annotations, CHAIN: chain})
            with self.subTest(case):
                if accepted:
                    self.judge(self.trusting(), signature)
                else:
                    self.refuse("untrusted", "chain annotation: ", self.trusting(), signature)

    def test_f05_both_ends_of_the_validity_count(self) -> None:
        leaf = self.leaf()
        begin, end = SIGNED_AT - 10, SIGNED_AT + 600
        self.deny("untrusted", f"valid from {begin} on, judged at {begin - 1}", leaf, time=begin - 1)
        self.accept(leaf, time=begin)
        self.accept(leaf, time=end)
        self.deny("untrusted", f"valid until {end}, judged at {end + 1}", leaf, time=end + 1)

    def test_f06_issuing_certificates_are_judged_at_the_same_time(self) -> None:
        late = issue("late", begin=SIGNED_AT + 1, end=SIGNED_AT + DAY, extensions=authority())
        self.deny("untrusted", "an issuing certificate is valid from", self.leaf(issuer=late), late)
        expired_now = issue("past", begin=SIGNED_AT - DAY, end=SIGNED_AT + DAY, extensions=authority())
        self.accept(self.leaf(issuer=expired_now), expired_now)
        gone = issue("gone", self.root, begin=SIGNED_AT - DAY, end=SIGNED_AT - 1, extensions=authority())
        self.deny("untrusted", "valid until", self.leaf(issuer=gone), chain=[gone, self.root])

    def test_f07_either_issuer_extension_will_do(self) -> None:
        v2 = der_string(OIDC_ISSUER)
        self.accept(self.leaf())
        self.accept(self.leaf(issuer_v1=None, issuer_v2=v2))
        self.accept(self.leaf(issuer_v2=v2))
        self.accept(self.leaf(issuer_v1=None, issuer_v2=der_string(OIDC_ISSUER, 0x13)))
        self.accept(self.leaf(issuer_v1=None, issuer_v2=der_string(OIDC_ISSUER, 0x16)))

    def test_long_issuers_have_the_long_form(self) -> None:
        for size in (127, 128, 255):
            name = "https://" + "i" * (size - 8)
            encoded = (bytes([0x0C, size]) if size < 128 else bytes([0x0C, 0x81, size])) + name.encode()
            signature = certified(self.leaf(issuer_v1=None, issuer_v2=encoded), self.log)
            with self.subTest(size):
                self.judge(self.trusting(issuer=name), signature)

    def test_f08_issuer_extensions_that_disagree_or_are_malformed_are_refused(self) -> None:
        good, bad = OIDC_ISSUER.encode(), b"https://other.example.com"
        v2 = der_string(OIDC_ISSUER)
        for case, first, second in (
            ("right and different", good, der_string(bad.decode())),
            ("different and right", bad, v2),
            ("none", None, None),
            ("trailing slash", good + b"/", None),
            ("wrapped", v2, None),
            ("trailing byte", None, v2 + b"\0"),
            ("cut short", None, v2[:-1]),
            ("other type", None, der_string(OIDC_ISSUER, 0x04)),
            ("long form of a short length", None, bytes([0x0C, 0x81, len(good)]) + good),
            ("empty", None, b""),
            ("one byte", None, b"\x0c"),
            (
                "not ASCII in IA5",
                None,
                der_string(OIDC_ISSUER[:-1], 0x16)[:1] + bytes([len(good)]) + good[:-1] + b"\xff",
            ),
            ("not UTF-8", None, bytes([0x0C, len(good)]) + good[:-1] + b"\xff"),
        ):
            with self.subTest(case):
                self.deny("certid", "OIDC issuer", self.leaf(issuer_v1=first, issuer_v2=second))

    def test_f09_email_counts_only_as_an_email_name_in_its_own_case(self) -> None:
        common_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, EMAIL)])
        host, uri = x509.DNSName("example.com"), x509.UniformResourceIdentifier(f"mailto:{EMAIL}")
        for case, san in (
            ("case", names("Signer@example.com")),
            ("only a URI", names(others=[uri])),
            ("only a host", names(others=[host])),
            ("only a directory name", names(others=[x509.DirectoryName(common_name)])),
        ):
            with self.subTest(case):
                self.deny("certid", f"expected a certificate for '{EMAIL}'", self.leaf(san=san))

    def test_f10_other_names_beside_the_right_one_do_not_matter(self) -> None:
        other = x509.OtherName(ObjectIdentifier("1.3.6.1.4.1.57264.1.7"), b"\x0c\x01x")
        self.accept(self.leaf(san=names("other@example.com", EMAIL)))
        self.accept(self.leaf(san=names(EMAIL, others=[other])))

    def test_f11_f12_extended_key_usages_restrict_every_certificate_of_the_path(self) -> None:
        server = ExtendedKeyUsageOID.SERVER_AUTH
        self.deny("untrusted", "the certificate is not for code signing", self.leaf(eku=usages(server)))
        restricted = intermediate(self.root, extensions=[*authority(), (usages(server), False)])
        leaf = self.leaf(issuer=restricted)
        self.deny("untrusted", "an issuing certificate is not for code signing", leaf, chain=[restricted, self.root])
        anchor = root("restricted", extensions=[*authority(), (usages(server), False)])
        self.deny("untrusted", "an issuing certificate is not for code", self.leaf(issuer=anchor), anchor)
        self.accept(self.leaf(eku=usages(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)))
        self.accept(self.leaf(eku=usages(server, ExtendedKeyUsageOID.CODE_SIGNING)))
        bare = issue(
            "leaf",
            self.root,
            extensions=[(names(EMAIL), True), (raw_extension(ISSUER_V1, OIDC_ISSUER.encode()), False)],
        )
        self.accept(bare)

    def test_f13_broken_paths_are_refused(self) -> None:
        not_ca = intermediate(self.root, extensions=authority(ca=False))
        without = intermediate(self.root, extensions=[])
        no_signing = intermediate(self.root, extensions=authority(may_sign=False))
        for case, middle in (("no CA flag", not_ca), ("no constraints", without), ("no keyCertSign", no_signing)):
            with self.subTest(case):
                leaf = self.leaf(issuer=middle)
                self.deny("untrusted", "not one of a certificate authority", leaf, chain=[middle, self.root])
        forger = Issued(self.root.certificate, new_key())
        self.deny("untrusted", "a certificate: the signature is not by the expected key", self.leaf(issuer=forger))
        unknown = (raw_extension("1.2.3.4", b"x"), True)
        self.deny("untrusted", "the certificate has an unknown critical extension 1.2.3.4", self.leaf(more=[unknown]))
        odd = intermediate(self.root, extensions=[*authority(), unknown])
        self.deny("untrusted", "an issuing certificate has an unknown", self.leaf(issuer=odd), chain=[odd, self.root])

    def test_path_length_counts_the_intermediates_below(self) -> None:
        for limit, accepted in ((0, False), (1, True), (None, True)):
            anchor = root(extensions=authority(limit))
            middle = intermediate(anchor)
            leaf = self.leaf(issuer=middle)
            with self.subTest(limit):
                if accepted:
                    self.accept(leaf, anchor, chain=[middle, anchor])
                else:
                    words = "allows 0 certificates below it, found 1"
                    self.deny("untrusted", words, leaf, anchor, chain=[middle, anchor])
        zero = root(extensions=authority(0))
        self.accept(self.leaf(issuer=zero), zero)

    def test_two_intermediates_make_a_path(self) -> None:
        upper = intermediate(self.root, "upper")
        lower = intermediate(upper, "lower")
        self.accept(self.leaf(issuer=lower), chain=[upper, lower, self.root])

    def test_name_constraints_are_refused(self) -> None:
        constraint = x509.NameConstraints(permitted_subtrees=[x509.RFC822Name("example.com")], excluded_subtrees=None)
        for critical in (True, False):
            anchor = root("constrained", extensions=[*authority(), (constraint, critical)])
            with self.subTest(critical=critical):
                self.deny(
                    "untrusted",
                    "name constraints|unknown critical extension 2.5.29.30",
                    self.leaf(issuer=anchor),
                    anchor,
                )

    def test_rules_about_policies_are_refused_wherever_they_stand(self) -> None:
        """They need not be critical to make a path invalid."""
        for rules in POLICY_RULES:
            anchor = root("ruled", extensions=[*authority(), *rules])
            middle = intermediate(self.root, extensions=[*authority(), *rules])
            for leaf, anchors, chain in (
                (self.leaf(more=rules), [], []),
                (self.leaf(issuer=anchor), [anchor], []),
                (self.leaf(issuer=middle), [], [middle, self.root]),
            ):
                with self.subTest(rules=rules):
                    self.deny("untrusted", "rules about policies", leaf, *anchors, chain=chain)

    def test_certificate_that_the_reference_cannot_read_spoils_its_chain(self) -> None:
        for number, value in NEVER_CRITICAL:
            stranger = root("stranger", extensions=[*authority(), (raw_extension(number, value), True)])
            with self.subTest(number):
                self.deny("untrusted", f"{number} is marked critical", self.leaf(), chain=[stranger, self.root])

    def test_certificate_signed_with_sha1_or_by_a_small_key_is_refused(self) -> None:
        small = root("small", key=rsa_key(1024))
        self.deny("untrusted", "RSA key of 1024 bits", self.leaf(issuer=small), small)

    def test_authorities_of_every_kind_of_key_are_accepted(self) -> None:
        for name, key in (
            ("RSA", rsa_key(2048)),
            ("Ed25519", ed25519.Ed25519PrivateKey.generate()),
            ("P-384", new_key(ec.SECP384R1())),
        ):
            with self.subTest(name):
                anchor = root(name, key=key)
                self.accept(self.leaf(issuer=anchor), anchor)
                if name != "Ed25519":
                    for algorithm in (hashes.SHA384(), hashes.SHA512()):
                        self.accept(self.leaf(issuer=anchor, hash_algorithm=algorithm), anchor)

    def test_leaf_that_is_an_anchor_needs_a_real_issuer(self) -> None:
        lonely = issue(
            "leaf",
            extensions=[*authority(), (names(EMAIL), False), (raw_extension(ISSUER_V1, OIDC_ISSUER.encode()), False)],
        )
        self.deny("untrusted", "no trusted certificate vouches", lonely, lonely)

    def test_search_for_a_path_is_bounded(self) -> None:
        """Cross-signed authorities of one name make very many paths, none of which ends."""
        key = new_key()
        looped = [
            issue("same", key=key, begin=SIGNED_AT - DAY, end=SIGNED_AT + DAY, extensions=authority()) for _ in range(8)
        ]
        leaf = self.leaf(issuer=Issued(looped[0].certificate, key))
        self.deny("untrusted", "no path to a trusted certificate in 100 attempts", leaf, chain=[*looped, self.root])

    def test_other_blocks_of_the_anchor_file_are_skipped(self) -> None:
        junk = [pem(b"x", "CERTIFICATE"), public_pem(self.log.key), b"text\n"]
        for case, content, accepted in (
            ("beside", b"".join(junk) + self.root.pem, True),
            ("alone", b"".join(junk), False),
        ):
            policy = self.trusting()
            policy["fulcio"]["caData"] = b64(content)
            with self.subTest(case):
                if accepted:
                    self.judge(policy, certified(self.leaf(), self.log))
                else:
                    words = "caData of the policy: expected a certificate, found none"
                    self.refuse("keycfg", words, policy, certified(self.leaf(), self.log))

    def test_f14_entry_about_something_else_is_refused(self) -> None:
        leaf, another = self.leaf(), self.leaf()
        text = sigstore_payload()
        made = sign(leaf.key, text)
        for case, signer in (("another certificate", another.pem), ("the bare key", public_pem(leaf.key))):
            annotations = {BUNDLE: self.log.entry(text, made, signer), CERTIFICATE: leaf.text}
            with self.subTest(case):
                self.refuse(
                    "rekor", "another key or certificate", self.trusting(), signature_of(text, made, annotations)
                )

    def test_f15_certificate_annotation_is_one_certificate(self) -> None:
        leaf = self.leaf()
        made = certified(leaf, self.log)
        for case, text in (
            ("two certificates", leaf.text * 2),
            ("blank line", leaf.text + "\n"),
            ("text", "x"),
            ("empty", ""),
            ("lone surrogate", leaf.text + "\udc80"),
        ):
            signature = made._replace(annotations={**made.annotations, CERTIFICATE: text})
            with self.subTest(case):
                self.refuse("rekor", "expected one PEM block", self.trusting(), signature)

    def test_missing_annotations_are_named(self) -> None:
        made = certified(self.leaf(), self.log)
        for name, reason in ((CERTIFICATE, "untrusted"), (BUNDLE, "rekor")):
            annotations = {key: text for key, text in made.annotations.items() if key != name}
            with self.subTest(name):
                self.refuse(reason, f"no annotation {name}", self.trusting(), made._replace(annotations=annotations))

    def test_malformed_leaves_are_refused(self) -> None:
        for case, leaf in (
            ("malformed alternative name", self.leaf(san=raw_extension("2.5.29.17", b"x"))),
            ("unsupported name", self.leaf(san=raw_extension("2.5.29.17", b"\x30\x04\xa3\x02\x05\x00"))),
            ("name beyond ASCII", self.leaf(san=raw_extension("2.5.29.17", b"\x30\x04\x81\x02\xc3\xa9"))),
            ("network", self.leaf(san=raw_extension("2.5.29.17", b"\x30\x0a\x87\x08" + bytes(8)))),
            ("malformed key usage", self.leaf(more=[(raw_extension("2.5.29.15", b"x"), False)])),
        ):
            with self.subTest(case):
                self.deny("untrusted", "certificate annotation: ", leaf)

    def test_certificate_that_is_none_is_refused(self) -> None:
        key, text = new_key(), sigstore_payload()
        made = sign(key, text)
        false = pem(b"x", "CERTIFICATE")
        signature = signature_of(text, made, {BUNDLE: self.log.entry(text, made, false), CERTIFICATE: false.decode()})
        self.refuse("untrusted", "certificate annotation: ", self.trusting(), signature)

    def test_leaf_with_an_unsupported_key_is_refused(self) -> None:
        leaf = self.leaf(key=new_key(ec.SECP256K1()))
        self.deny("untrusted", "unsupported curve", leaf)

    def test_f16_payload_signed_by_another_key_is_refused(self) -> None:
        leaf, text = self.leaf(), sigstore_payload()
        made = sign(new_key(), text)
        annotations = {BUNDLE: self.log.entry(text, made, leaf.pem), CERTIFICATE: leaf.text}
        decision = self.refuse(
            "crypto", "not by the expected key", self.trusting(), signature_of(text, made, annotations)
        )
        self.assertEqual(decision.signatures[0].certificate, {"issuer": OIDC_ISSUER, "subject": EMAIL})
        self.assertIsNone(decision.signatures[0].claims)

    def test_f17_bare_key_policy_ignores_the_certificate(self) -> None:
        leaf = self.leaf()
        self.judge({"keyData": b64(public_pem(leaf.key))}, certified(leaf, self.log))


class PkiTest(SigstoreCase):
    """Rows H: an ordinary authority, judged now."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.root = root()
        cls.intermediate = intermediate(cls.root)

    root: Issued
    intermediate: Issued

    def leaf(self, san: Any = None, issuer: Issued | None = None, **options: Any) -> Issued:
        options.setdefault("extensions", [(usages(), False), (san or names(EMAIL), False)])
        options.setdefault("begin", int(NOW) - DAY)
        options.setdefault("end", int(NOW) + DAY)
        return issue("leaf", issuer or self.root, **options)

    def trusting(self, **members: Any) -> dict[str, Any]:
        subjects = members or {"subjectEmail": EMAIL}
        return {"pki": {"caRootsData": b64(self.root.pem), **subjects}}

    def signed(self, leaf: Issued, chain: Iterable[Issued] = (), **annotations: str) -> SigstoreSignature:
        """Annotations by `certificate`, `bundle`."""
        found = {CERTIFICATE: annotations.get("certificate", leaf.text)}
        chained = "".join(each.text for each in chain)
        if chained:
            found[CHAIN] = chained
        if "bundle" in annotations:
            found[BUNDLE] = annotations["bundle"]
        return signed(leaf.key, annotations=found)

    def test_h01_direct_and_over_intermediates(self) -> None:
        [result] = self.judge(self.trusting(), self.signed(self.leaf())).signatures
        self.assertEqual(result.certificate, {"issuer": "caRootsData of the policy", "subject": EMAIL})
        leaf = self.leaf(issuer=self.intermediate)
        self.judge(self.trusting(), self.signed(leaf, [self.intermediate, self.root]))
        from_policy = {"subjectEmail": EMAIL, "caIntermediatesData": b64(self.intermediate.pem)}
        self.judge(self.trusting(**from_policy), self.signed(leaf))
        self.refuse("untrusted", "no trusted certificate", self.trusting(), self.signed(leaf, [self.intermediate]))

    def test_intermediates_of_the_policy_must_parse(self) -> None:
        for case, content, accepted in (
            ("empty", b"", True),
            ("garbage", b"x", False),
            ("no certificate", pem(b"x", "CERTIFICATE"), False),
        ):
            policy = self.trusting(subjectEmail=EMAIL, caIntermediatesData=b64(content))
            with self.subTest(case):
                if accepted:
                    self.judge(policy, self.signed(self.leaf()))
                else:
                    self.refuse("keycfg", "caIntermediatesData of the policy: ", policy, self.signed(self.leaf()))

    def test_h02_validity_counts_now(self) -> None:
        leaf = self.leaf()
        self.judge(self.trusting(), self.signed(leaf), now=NOW + DAY)
        self.refuse("untrusted", "valid until", self.trusting(), self.signed(leaf), now=NOW + DAY + 0.5)
        self.refuse("untrusted", "valid from", self.trusting(), self.signed(leaf), now=NOW - DAY - 1)
        self.refuse("untrusted", f"no annotation {CERTIFICATE}", self.trusting(), signed(leaf.key))

    def test_certificate_annotation_is_trimmed_and_holds_one_certificate(self) -> None:
        leaf = self.leaf()
        self.judge(self.trusting(), self.signed(leaf, certificate=f" \n{leaf.text}\n "))
        for case, text in (
            ("two", leaf.text * 2),
            ("text before", f"x\n{leaf.text}"),
            ("text behind", f"{leaf.text}x"),
            ("empty", ""),
            ("no certificate", pem(b"x", "CERTIFICATE").decode()),
        ):
            with self.subTest(case):
                self.refuse("untrusted", "certificate annotation", self.trusting(), self.signed(leaf, certificate=text))

    def test_h03_h04_host_names(self) -> None:
        for case, san, wanted, accepted in (
            ("exact", names(hosts=["h.example.com"]), "h.example.com", True),
            ("other case", names(hosts=["H.Example.com"]), "h.eXample.com", True),
            ("wildcard", names(hosts=["*.example.com"]), "h.example.com", True),
            ("trailing dot wanted", names(hosts=["h.example.com"]), "h.example.com.", True),
            ("address", names(addresses=["192.0.2.1"]), "192.0.2.1", True),
            ("bracketed address", names(addresses=["2001:db8::1"]), "[2001:DB8::1]", True),
            ("underscore", names(hosts=["a_b.example.com"]), "a_b.example.com", True),
            ("two labels", names(hosts=["*.example.com"]), "a.b.example.com", False),
            ("apex", names(hosts=["*.example.com"]), "example.com", False),
            ("partial", names(hosts=["h*.example.com"]), "host.example.com", False),
            ("second label", names(hosts=["h.*.com"]), "h.example.com", False),
            ("star alone", names(hosts=["*"]), "localhost", False),
            ("star wanted", names(hosts=["*.example.com"]), "*.example.com", False),
            ("trailing dot in certificate", names(hosts=["h.example.com."]), "h.example.com", False),
            ("other", names(hosts=["g.example.com"]), "h.example.com", False),
            ("address as host", names(hosts=["192.0.2.1"]), "192.0.2.1", False),
            ("host as address", names(addresses=["192.0.2.1"]), "h.example.com", False),
            ("other address", names(addresses=["192.0.2.2"]), "192.0.2.1", False),
            ("common name", names(EMAIL), "leaf", False),
            ("empty label", names(hosts=["h..com"]), "h..com", False),
        ):
            leaf = self.leaf(san)
            policy = self.trusting(subjectHostname=wanted)
            with self.subTest(case):
                if accepted:
                    self.judge(policy, self.signed(leaf))
                else:
                    self.refuse("certid", "expected a certificate for host", policy, self.signed(leaf))

    def test_h05_both_subjects_must_match(self) -> None:
        both = self.trusting(subjectEmail=EMAIL, subjectHostname="h.example.com")
        [result] = self.judge(both, self.signed(self.leaf(names(EMAIL, hosts=["h.example.com"])))).signatures
        assert result.certificate is not None
        self.assertEqual(result.certificate["subject"], f"{EMAIL} h.example.com")
        self.refuse("certid", "for host", both, self.signed(self.leaf(names(EMAIL))))
        self.refuse("certid", f"for '{EMAIL}'", both, self.signed(self.leaf(names(hosts=["h.example.com"]))))

    def test_critical_alternative_name_of_unknown_kinds_is_refused(self) -> None:
        other = x509.OtherName(ObjectIdentifier("1.2.3"), b"\x0c\x01x")
        leaf = self.leaf(extensions=[(names(others=[other]), True)])
        self.refuse("untrusted", "critical alternative name of unknown kind", self.trusting(), self.signed(leaf))

    def test_log_entry_is_ignored(self) -> None:
        self.judge(self.trusting(), self.signed(self.leaf(), bundle="garbage"))

    def test_anchor_without_a_certificate_is_refused(self) -> None:
        policy = {"pki": {"caRootsPath": "/roots", "subjectEmail": EMAIL}}
        self.refuse(
            "keycfg",
            r"caRootsPath '/roots': expected a certificate",
            policy,
            self.signed(self.leaf()),
            files={"/roots": b"x"},
        )


def flip(content: bytes, position: int) -> bytes:
    """`content` with one bit turned over."""
    changed = bytearray(content)
    changed[position // 8] ^= 1 << position % 8
    return bytes(changed)


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import sys
import unittest
from collections.abc import Iterator
from typing import Any

from cip.errors import SignatureError
from cip.trust.bundle.algorithms import LOG_KEY_DETAILS, require_profile
from cip.trust.bundle.bundle import Bundle, parse_bundle
from cip.trust.bundle.trustedroot import TrustedRoot, parse_trusted_root
from cip.trust.bundle.verify import BundleTrust, require_bundle_about
from cip.trust.signed.requirement import VerificationRecord
from cip.trust.sigstore.keys import PublicKey, load_key
from tests.support.bundlecases import (
    ENTRY,
    FILE,
    IDENTITY,
    PROOF,
    STAMPS,
    Case,
    by_key,
    judge,
    made,
    put,
    several,
    the_key,
)
from tests.support.bundles import IMAGE, PREDICATE, V1, V2, World
from tests.support.sigstore import OIDC_ISSUER, SIGNED_AT, b64, rsa_key, spki

WORLD = World()
STEP = 1 if "CIP_TEST_LONG" in os.environ else 7  # every so many bytes of a long text a bit is flipped
KEY_OF_MESSAGE = "messageSignature.messageDigest"


def parsed(document: Any) -> Bundle:
    return parse_bundle(json.dumps(document).encode(), "bundle")


class ParseTest(unittest.TestCase):
    def refuse(self, words: str, document: Any) -> None:
        with self.assertRaisesRegex(SignatureError, words) as caught:
            parsed(document)
        self.assertEqual(caught.exception.reason, "bundle")

    def test_members_are_read(self) -> None:
        document = WORLD.bundle(V1, stamps=[{}]).document
        bundle = parsed(document)
        (entry,) = bundle.entries
        assert entry.proof is not None
        self.assertEqual((bundle.version, bundle.chain, bundle.predicate), ("0.3", (), PREDICATE))
        self.assertEqual((entry.kind, entry.version, entry.log_index), ("dsse", "0.0.1", 1_000_005))
        self.assertEqual((entry.integrated_time, entry.proof.log_index, entry.proof.tree_size), (SIGNED_AT, 5, 8))
        self.assertEqual(len(bundle.timestamps), 1)

    def test_limits_are_inclusive(self) -> None:
        for path, size in (
            ("verificationMaterial.certificate.rawBytes", 64 * 1024),
            (f"{ENTRY}.canonicalizedBody", 128 * 1024),
            (f"{ENTRY}.logId.keyId", 1024),
            (f"{ENTRY}.inclusionPromise.signedEntryTimestamp", 8 * 1024),
            (f"{PROOF}.rootHash", 1024),
            (f"{PROOF}.hashes.0", 1024),
            (f"{STAMPS}.rfc3161Timestamps.0.signedTimestamp", 64 * 1024),
            ("dsseEnvelope.payload", 1024 * 1024),
            ("dsseEnvelope.signatures.0.sig", 8 * 1024),
        ):
            document = WORLD.bundle(V1, stamps=[{}]).document
            with self.subTest(path):
                put(path, b64(bytes(size)))(document)
                parsed(document)
                put(path, b64(bytes(size + 1)))(document)
                self.refuse(f"expected at most {size} bytes", document)
                put(path, b64(bytes(2 * size)))(document)
                self.refuse(f"expected at most {size} bytes, found more", document)
        for path, limit in (
            (f"{PROOF}.checkpoint.envelope", 64 * 1024),
            (f"{ENTRY}.kindVersion.kind", 1024),
            (f"{ENTRY}.kindVersion.version", 1024),
            ("dsseEnvelope.payloadType", 1024),
            ("mediaType", 1024),
        ):
            document = WORLD.bundle(V1).document
            with self.subTest(path):
                put(path, "x" * (limit + 1))(document)
                self.refuse(f"expected at most {limit} characters", document)
        document = WORLD.bundle(None, key=WORLD.key).document
        for path in ("verificationMaterial.publicKey", "dsseEnvelope.signatures.0"):
            name = "hint" if path.endswith("Key") else "keyid"
            put(path, lambda old, name=name: {**old, name: "x" * 1024})(document)
            parsed(document)
            put(f"{path}.{name}", "x" * 1025)(document)
            self.refuse("expected at most 1024 characters", document)
            put(f"{path}.{name}")(document)

    def test_numbers_of_elements_are_limited(self) -> None:
        for path, limit in (
            ("verificationMaterial.tlogEntries", 32),
            (f"{STAMPS}.rfc3161Timestamps", 32),
            (f"{PROOF}.hashes", 64),
        ):
            document = WORLD.bundle().document
            with self.subTest(path):
                put(path, lambda listed, limit=limit: listed[:1] * limit)(document)
                parsed(document)
                put(path, lambda listed, limit=limit: listed[:1] * (limit + 1))(document)
                self.refuse(f"expected at most {limit} elements, found {limit + 1}", document)

    def test_a_bundle_of_four_mebibytes_and_not_more(self) -> None:
        data = WORLD.bundle().data
        parse_bundle(data + b" " * (4 * 1024 * 1024 - len(data)), "bundle")
        with self.assertRaisesRegex(SignatureError, "larger than 4194304 bytes") as caught:
            parse_bundle(data + b" " * (4 * 1024 * 1024 - len(data) + 1), "bundle")
        self.assertEqual(caught.exception.reason, "bundle")

    def test_what_must_be_there_is(self) -> None:
        for path in (
            "verificationMaterial",
            f"{ENTRY}.logId",
            f"{ENTRY}.logId.keyId",
            f"{ENTRY}.kindVersion",
            f"{ENTRY}.canonicalizedBody",
            "verificationMaterial.certificate.rawBytes",
            f"{STAMPS}.rfc3161Timestamps.0.signedTimestamp",
            "dsseEnvelope.payload",
            "dsseEnvelope.payloadType",
            "dsseEnvelope.signatures",
            "dsseEnvelope.signatures.0.sig",
        ):
            for other in (None, "absent"):
                document = WORLD.bundle().document
                with self.subTest(path, other=other):
                    (put(path) if other else put(path, None))(document)
                    self.refuse("expected", document)
        for path in (f"{KEY_OF_MESSAGE}.algorithm", f"{KEY_OF_MESSAGE}.digest", "messageSignature.signature"):
            document = WORLD.bundle(file=FILE).document
            with self.subTest(path):
                put(path)(document)
                self.refuse("expected", document)

    def test_bytes_that_may_not_be_empty_are_not(self) -> None:
        for path in (f"{ENTRY}.canonicalizedBody", f"{ENTRY}.logId.keyId", "dsseEnvelope.signatures.0.sig"):
            document = WORLD.bundle().document
            with self.subTest(path):
                put(path, "")(document)
                self.refuse("expected bytes, found none", document)

    def test_other_kinds_of_values_are_refused(self) -> None:
        for path, value in (
            (f"{ENTRY}.logIndex", 1.0),
            (f"{ENTRY}.logIndex", -1),
            (f"{ENTRY}.logIndex", 2**63),
            (f"{ENTRY}.logIndex", []),
            (f"{ENTRY}.logId", "x"),
            ("verificationMaterial.tlogEntries", {}),
            ("dsseEnvelope.payload", 5),
            ("dsseEnvelope", []),
            ("mediaType", 5),
            (f"{PROOF}.checkpoint.envelope", 5),
            (f"{PROOF}.hashes.0", None),
            ("dsseEnvelope.payload", "\u00e9"),
        ):
            document = WORLD.bundle().document
            with self.subTest(path, value=value):
                put(path, value)(document)
                self.refuse("expected", document)
        document = WORLD.bundle().document
        put(f"{ENTRY}.logIndex", 2**63 - 1)(document)
        self.assertEqual(parsed(document).entries[0].log_index, 2**63 - 1)
        put(f"{ENTRY}.logIndex", str(2**63 - 1))(document)
        self.assertEqual(parsed(document).entries[0].log_index, 2**63 - 1)

    def test_unknown_members_are_refused_at_every_level(self) -> None:
        for data in (WORLD.bundle(V1, stamps=[{}]), WORLD.bundle(file=FILE), WORLD.bundle(None, key=WORLD.key)):
            for node in _objects(data.document):
                node["unknown"] = 1
                with self.subTest(sorted(node)):
                    self.refuse("unknown member 'unknown'", data.document)
                del node["unknown"]

    def test_a_peeked_predicate_tells_an_attestation(self) -> None:
        document = WORLD.bundle(payload=b'{"predicateType": "https://spdx.dev/Document"}').document
        self.assertEqual(parsed(document).predicate, "https://spdx.dev/Document")
        self.assertEqual(parsed(WORLD.bundle(file=FILE).document).predicate, "")


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for each in list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _objects(each)


class RecordTest(unittest.TestCase):
    """What is told about an accepted bundle (bundles.md 4.4)."""

    def test_keyless_bundle_in_both_logs(self) -> None:
        verification = judge(Case("x", "", made(log=V1, stamps=[{}])), WORLD)
        result = verification.result()
        assert result.bundle is not None
        subject = {"issuer": OIDC_ISSUER, "subject": f"URI:{IDENTITY.uri}"}
        origin = "rekor.lab - 1193050959916656506"
        self.assertEqual((result.certificate, result.key), (subject, ""))
        self.assertEqual(
            result.bundle.log,
            (
                {
                    "id": WORLD.log_v1.log_id[:8].hex(),
                    "origin": origin,
                    "index": 1_000_005,
                    "kind": "dsse/0.0.1",
                    "proof": True,
                    "promise": True,
                },
            ),
        )
        self.assertEqual(
            result.bundle.times,
            (
                {"from": "tsa", "name": "https://tsa.lab", "time": SIGNED_AT},
                {"from": "log", "name": origin, "time": SIGNED_AT},
            ),
        )
        digest = "sha256:bafebd36189ad3688b7b3915ea55d461e0bfcfbdde11e54b0a123999fb6be50f"
        self.assertEqual(result.claims, {"digest": digest, "predicate": PREDICATE, "reference": ""})

    def test_bundle_by_a_key(self) -> None:
        verification = judge(Case("x", "", by_key(V2), keys=the_key), WORLD)
        self.assertEqual(verification.key, load_key(spki(WORLD.key)).fingerprint)
        assert verification.bundle is not None
        (entry,) = verification.bundle.log
        self.assertEqual((entry["proof"], entry["promise"], entry["index"]), (True, False, 5))
        self.assertEqual(verification.bundle.times, ())

    def test_build_signer_is_told_if_it_was_compared(self) -> None:
        from tests.support.bundlecases import CASES

        (case,) = [each for each in CASES if each.name == "C31"]
        certificate = judge(case, WORLD).certificate
        assert certificate is not None
        self.assertEqual(certificate["build_signer"], case.identity and case.identity.build_signer_uri)

    def test_without_a_word_about_logs_none_is_wanted_of_a_key(self) -> None:
        trust = BundleTrust(keys=(load_key(spki(WORLD.key)),))
        for bundle in (WORLD.bundle(None, key=WORLD.key), WORLD.bundle(V1, key=WORLD.key, body=put("kind", "x"))):
            require_bundle_about(parsed(bundle.document), trust, IMAGE, VerificationRecord("place", "sigstore-bundle"))

    def test_a_stranger_claims_nothing(self) -> None:
        verification = VerificationRecord("place", "sigstore-bundle")
        trust = BundleTrust(keys=(load_key(spki(World().key)),))
        bundle = parsed(WORLD.bundle(None, key=WORLD.key).document)
        with self.assertRaises(SignatureError):
            require_bundle_about(bundle, trust, IMAGE, verification)
        self.assertEqual((verification.claims, verification.key, verification.certificate), (None, "", None))

    def test_an_examination_without_record_is_left_so(self) -> None:
        verification = VerificationRecord("place", "sigstore-bundle")
        trust = BundleTrust(identity=IDENTITY, root=WORLD.loaded_root(), log_entries=1)
        require_bundle_about(parse_bundle(WORLD.bundle().data, "bundle"), trust, IMAGE, verification)
        self.assertIsNone(verification.bundle)


class AlgorithmsTest(unittest.TestCase):
    def test_keys_that_may_sign(self) -> None:
        for kind, parameter, exponent, words in (
            ("rsa", "2048", 65537, ""),
            ("rsa", "8192", 2**32 - 1, ""),
            ("rsa", "8191", 65539, ""),
            ("ecdsa", "secp521r1", 0, ""),
            ("ed25519", "", 0, ""),
            ("rsa", "8200", 65537, "8200 bits"),
            ("rsa", "2048", 65535, "exponent 65535"),
            ("rsa", "2048", 65538, "exponent 65538"),
            ("rsa", "2048", 2**32 + 1, "exponent 4294967297"),
            ("rsa", "2048", 2**32, "exponent 4294967296"),
            ("ecdsa", "secp224r1", 0, "secp224r1"),
            ("ecdsa", "", 0, "curve"),
        ):
            key = PublicKey(b"", kind, None, parameter, exponent)
            with self.subTest(kind, parameter=parameter, exponent=exponent):
                if not words:
                    require_profile(key)
                    continue
                with self.assertRaisesRegex(ValueError, words):
                    require_profile(key)

    def test_names_of_keys_that_logs_may_have(self) -> None:
        rsa = {f"PKIX_RSA_PKCS1V15_{bits}_SHA256" for bits in (2048, 3072, 4096)}
        ecdsa = {"PKIX_ECDSA_P256_SHA_256", "PKIX_ECDSA_P384_SHA_384", "PKIX_ECDSA_P521_SHA_512"}
        self.assertEqual(set(LOG_KEY_DETAILS), {"PKIX_ED25519", *rsa, *ecdsa})


class TrustedRootTest(unittest.TestCase):
    def read(self, *changes: Any) -> TrustedRoot:
        return WORLD.loaded_root(several(*changes))

    def refuse(self, words: str, *changes: Any) -> None:
        with self.assertRaisesRegex(SignatureError, words) as caught:
            self.read(*changes)
        self.assertEqual(caught.exception.reason, "keycfg")

    def test_what_cannot_be_used_is_left_out_and_named(self) -> None:
        root = self.read(
            put("tlogs.0.publicKey.keyDetails", "PKIX_ML_DSA_65"),
            put("ctlogs.0.hashAlgorithm", "SHA2_384"),
            put("certificateAuthorities.0.certChain.certificates.1.rawBytes", "AAAA"),
        )
        self.assertEqual((len(root.logs), len(root.ct_logs), len(root.certificate_authorities)), (1, 0, 0))
        self.assertEqual(len(root.unusable), 3)
        for name, sentence in zip(("tlogs", "ctlogs", "certificateAuthorities"), root.unusable, strict=True):
            self.assertIn(f"{name}[0]: left out: ", sentence)

    def test_limits(self) -> None:
        data = json.dumps(WORLD.trusted_root()).encode()
        parse_trusted_root(data + b" " * (4 * 1024 * 1024 - len(data)), "root")
        with self.assertRaisesRegex(SignatureError, "larger than 4194304 bytes"):
            parse_trusted_root(data + b" " * (4 * 1024 * 1024 - len(data) + 1), "root")
        for path in ("tlogs", "ctlogs", "certificateAuthorities", "timestampAuthorities"):
            self.read(put(path, lambda listed: listed[:1] * 128))
            self.refuse("at most 128 elements", put(path, lambda listed: listed[:1] * 129))
        chain = "certificateAuthorities.0.certChain.certificates"
        self.read(put(chain, lambda listed: listed[:1] * 10))
        self.refuse("at most 10 elements", put(chain, lambda listed: listed[:1] * 11))

    def test_unknown_members_refuse_at_every_level(self) -> None:
        document = WORLD.trusted_root(
            lambda document: document["tlogs"][0].update(checkpointKeyId={"keyId": "AAAAAA=="})
        )
        parse_trusted_root(json.dumps(document).encode(), "root")
        for node in _objects(document):
            node["unknown"] = 1
            with self.subTest(sorted(node)), self.assertRaisesRegex(SignatureError, "unknown member 'unknown'"):
                parse_trusted_root(json.dumps(document).encode(), "root")
            del node["unknown"]

    def test_a_key_that_may_not_sign_is_left_out(self) -> None:
        log = {"rawBytes": b64(spki(rsa_key(2048, 3))), "keyDetails": "PKIX_RSA_PKCS1V15_2048_SHA256"}
        root = self.read(put("ctlogs.0.publicKey", lambda key: {**key, **log}))
        self.assertEqual(len(root.ct_logs), 0)
        self.assertIn("exponent 3", root.unusable[0])

    def test_missing_and_odd_members_refuse(self) -> None:
        for path in (
            "tlogs.0.publicKey",
            "tlogs.0.logId",
            "tlogs.0.logId.keyId",
            "tlogs.0.publicKey.rawBytes",
            "certificateAuthorities.0.certChain",
            "certificateAuthorities.0.certChain.certificates.0.rawBytes",
            "certificateAuthorities.0.validFor",
            "mediaType",
        ):
            with self.subTest(path):
                self.refuse("expected", put(path))
        for path, value in (
            ("tlogs.0.publicKey.validFor.start", "2023-01-01"),
            ("tlogs.0.publicKey.validFor.start", 5),
            ("tlogs.0.publicKey.validFor.end", "2023-01-01T00:00:00.1234567890Z"),
            ("tlogs", {}),
            ("tlogs.0", 5),
            ("tlogs.0.publicKey.validFor.end", "2023-01-01T00:00:60Z"),
            ("tlogs.0.logId.keyId", "*"),
            ("tlogs.0.checkpointKeyId", {"keyId": b64(bytes(33))}),
            ("tlogs.0.baseUrl", "x" * 1025),
            ("certificateAuthorities.0.subject", {"unknown": 1}),
            ("certificateAuthorities.0.subject", {"commonName": 1}),
        ):
            with self.subTest(path, value=value):
                self.refuse("expected", lambda d, path=path, value=value: _set(d, path, value))

    def test_fractions_count_and_both_ends_are_in(self) -> None:
        valid = {"start": "2022-04-13T20:06:15.000Z", "end": "2022-04-13T20:06:15.999Z"}
        window = self.read(lambda document: _set(document, "tlogs.0.publicKey.validFor", valid)).logs[0].window
        for time in (1649880375.0, 1649880375.999):
            window.require(time, "x", "root", "time")
        for time in (1649880376.0, 1649880374.9):
            words = "x was trusted from 2022-04-13 to 2022-04-13 according to root, the signature is of 2022-04-13"
            with self.subTest(time), self.assertRaisesRegex(SignatureError, words) as caught:
                window.require(time, "x", "root", "time")
            self.assertEqual(caught.exception.reason, "time")


def _set(document: Any, path: str, value: Any) -> None:
    *steps, last = path.split(".")
    for step in steps:
        document = document[int(step) if step.isdecimal() else step]
    document[int(last) if last.isdecimal() else last] = value


class ImportTest(unittest.TestCase):
    def test_the_room_is_not_imported_before_a_bundle_is_examined(self) -> None:
        code = (
            "import sys, cip.image, cip.trust.policy, cip.trust.sigstore.requirement as r\n"
            "print([name for name in sys.modules if name.startswith(('cip.trust.bundle', 'cryptography'))])"
        )
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.stdout.strip(), "[]")


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""No bundle is believed when one bit of it is another."""

import base64
import json
import unittest

from cip.errors import SignatureError
from tests.support.bundlecases import ENTRY, PROOF, STAMPS, Case, judge, made, put
from tests.support.bundles import V1, V2, flip
from tests.support.sigstore import SIGNED_AT, b64
from tests.unit.bundle.test_bundle import STEP, WORLD


class FlipTest(unittest.TestCase):
    """One bit of every byte that somebody signed."""

    def test_no_flipped_bit_is_believed(self) -> None:
        for log in (V1, V2):
            case = Case("x", "", made(log=log))
            document = case.make(WORLD).document
            judge(case, WORLD)
            paths = [
                "dsseEnvelope.payload",
                "dsseEnvelope.signatures.0.sig",
                "verificationMaterial.certificate.rawBytes",
                f"{ENTRY}.logId.keyId",
                f"{ENTRY}.canonicalizedBody",
                f"{PROOF}.rootHash",
                f"{PROOF}.hashes.0",
                f"{PROOF}.hashes.2",
            ]
            if log == V1:
                paths.append(f"{ENTRY}.inclusionPromise.signedEntryTimestamp")
            for path in paths:
                kept: list[str] = []
                put(path, lambda text, kept=kept: kept.append(text) or text)(document)
                content = base64.b64decode(kept[0])
                for at in range(0, len(content), 1 if len(content) <= 72 else STEP):
                    put(path, b64(flip(content, at)))(document)
                    with self.subTest(path, at=at), self.assertRaises(SignatureError):
                        judge(case, WORLD, json.dumps(document).encode())
                put(path, kept[0])(document)

    def test_no_flipped_bit_of_a_checkpoint_is_believed(self) -> None:
        case = Case("x", "", made())
        document = case.make(WORLD).document
        (entry,) = document["verificationMaterial"]["tlogEntries"]
        envelope = entry["inclusionProof"]["checkpoint"]["envelope"].encode()
        for at in range(len(envelope)):
            text = flip(envelope, at).decode("utf-8", "replace")
            put(f"{PROOF}.checkpoint.envelope", text)(document)
            with self.subTest(at=at), self.assertRaises(SignatureError):
                judge(case, WORLD, json.dumps(document).encode())

    def test_a_flipped_bit_of_a_stamp_changes_nothing_that_counts(self) -> None:
        case = Case("x", "", made())
        document = case.make(WORLD).document
        stamp = base64.b64decode(
            document["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"][0]["signedTimestamp"]
        )
        believed = 0
        for at in range(0, len(stamp), STEP):
            put(f"{STAMPS}.rfc3161Timestamps.0.signedTimestamp", b64(flip(stamp, at)))(document)
            try:
                verification = judge(case, WORLD, json.dumps(document).encode())
            except SignatureError:
                continue
            believed += 1
            assert verification.bundle is not None
            self.assertEqual(verification.bundle.times[0]["time"], SIGNED_AT, at)
        # unsigned places: the embedded certificate is in the root, too
        self.assertLess(believed, len(stamp) // (2 * STEP))


if __name__ == "__main__":
    unittest.main()

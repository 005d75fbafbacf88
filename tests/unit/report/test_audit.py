# SPDX-License-Identifier: Apache-2.0
"""Audit records have all that decided, and stay small (decisions.md section 6)."""

import json
import unittest
from collections.abc import Mapping
from unittest import mock

from cip.errors import CipError
from cip.model.descriptor import parse_digest
from cip.model.signature import SignatureResult
from cip.report.audit import LINE_LIMIT, SIGNATURES, audit_record, write_audit
from cip.trust.evaluation import Decision, ImageRejectedError, require_accepted
from cip.trust.policy import Policy, accept_anything_policy
from tests.support.signatures import DIGEST, REFERENCE, tools, unverified
from tests.unit.test_evaluation import Scripted


def record(decision: Decision) -> dict[str, object]:
    return audit_record(decision, reference="docker://r", digest=parse_digest(DIGEST), index_digest=None, time=5.0)


class AuditTest(unittest.TestCase):
    def test_accepted_image_is_recorded_with_all_that_decided(self) -> None:
        chosen = Policy("/etc/policy.json", "ab", (Scripted(),), {})
        image = unverified(looked_for=lambda: ["lookaside"])
        decision = require_accepted(chosen, image, tools(), require_signed=True)
        self.assertEqual(
            record(decision),
            {
                "time": 5.0,
                "reference": "docker://r",
                "digest": DIGEST,
                "index_digest": None,
                "accepted": True,
                "policy": {"path": "/etc/policy.json", "sha256": "ab", "scope": "default", "transport": "docker"},
                "requirements": [{"of": "image", "type": "scripted", "result": "accepted", "reason": "", "detail": ""}],
                "signatures": [
                    {
                        "source": "signature of scripted",
                        "kind": "simple",
                        "result": "accepted",
                        "reason": "",
                        "detail": "",
                    }
                ],
                "looked_for": ["lookaside"],
            },
        )
        json.dumps(record(decision))

    def test_refused_image_is_recorded_with_the_reason(self) -> None:
        chosen = Policy("/etc/policy.json", "ab", (Scripted(b"x"),), {})
        with self.assertRaises(ImageRejectedError) as caught:
            require_accepted(chosen, unverified(), tools(), require_signed=False)
        found = record(caught.exception.decision)
        self.assertIs(found["accepted"], False)
        self.assertEqual(
            found["requirements"],
            [
                {
                    "of": "image",
                    "type": "scripted",
                    "result": "refused",
                    "reason": "untrusted",
                    "detail": "scripted does not like it",
                }
            ],
        )

    def test_record_of_a_signature_has_its_signer_and_its_claims(self) -> None:
        claims = {"reference": REFERENCE, "digest": DIGEST}
        certificate = {"issuer": "i", "subject": "s"}
        decision = require_accepted(accept_anything_policy(), unverified(), tools(), require_signed=False)
        results = (
            SignatureResult("a", "simple", True, key="F" * 40, claims=claims),
            SignatureResult("b", "sigstore", False, "certid", "who", key="k", certificate=certificate),
        )
        self.assertEqual(
            record(decision._replace(signatures=results))["signatures"],
            [
                {
                    "source": "a",
                    "kind": "simple",
                    "key": "F" * 40,
                    "claims": claims,
                    "result": "accepted",
                    "reason": "",
                    "detail": "",
                },
                {
                    "source": "b",
                    "kind": "sigstore",
                    "certificate": certificate,
                    "result": "refused",
                    "reason": "certid",
                    "detail": "who",
                },
            ],
        )

    def test_record_is_bounded(self) -> None:
        decision = require_accepted(accept_anything_policy(), unverified(), tools(), require_signed=False)
        long = "x" * 100_000
        result = SignatureResult(long, "simple", False, "crypto", long, claims={"reference": long, "digest": DIGEST})
        full = decision._replace(signatures=(result,) * (SIGNATURES + 3))
        found = record(full)
        self.assertEqual(found["signatures_omitted"], 3)
        self.assertEqual(len(found["signatures"]), SIGNATURES)  # type: ignore[arg-type]
        certified = result._replace(certificate={"issuer": long, "subject": long})
        for each in (full, full._replace(signatures=(certified,) * SIGNATURES, looked_for=(long,))):
            self.assertLess(len(json.dumps(record(each))), 64 * 1024)
        self.assertNotIn("signatures_omitted", record(decision._replace(signatures=(result,) * SIGNATURES)))

    def test_a_record_that_is_too_long_all_the_same_loses_its_signatures(self) -> None:
        decision = require_accepted(accept_anything_policy(), unverified(), tools(), require_signed=False)
        told: list[Mapping[str, object]] = []
        lines = mock.Mock(put=told.append)
        digest = parse_digest(DIGEST)
        for looked_for in ((), ("x" * 200,) * 1000):
            write_audit(lines, required=False)(
                decision._replace(looked_for=looked_for), reference="r", digest=digest, index_digest=None, time=0.0
            )
        self.assertEqual([each.get("truncated", False) for each in told], [False, True])
        self.assertGreater(len(json.dumps(told[1]["looked_for"])), LINE_LIMIT)

    def test_required_line_is_waited_for_before_an_image_is_served_and_not_for_a_refusal(self) -> None:
        decision = require_accepted(accept_anything_policy(), unverified(), tools(), require_signed=False)
        for case, accepted, written, words in (
            ("written", True, True, ""),
            ("not written", True, False, "docker://r: --require-audit: the decision was not written to --audit-fd"),
            ("a refusal", False, False, ""),
        ):
            lines = mock.Mock(write=mock.Mock(return_value=written))
            audit = write_audit(lines, required=True)
            digest = parse_digest(DIGEST)
            made = decision._replace(accepted=accepted)
            with self.subTest(case):
                try:
                    audit(made, reference="docker://r", digest=digest, index_digest=None, time=0.0)
                    self.assertEqual(words, "")
                except CipError as error:
                    self.assertRegex(str(error), f"{words or 'nothing'} within 10 s")
                    self.assertEqual((error.code, error.retryable), ("audit-unavailable", False))
                self.assertEqual((lines.write.called, lines.put.called), (accepted, not accepted))
                if accepted:
                    self.assertEqual(lines.write.call_args.args[1], 10.0)

    def test_an_index_is_named_twice(self) -> None:
        decision = require_accepted(accept_anything_policy(), unverified(), tools(), require_signed=False)
        digest = parse_digest(DIGEST)
        found = audit_record(decision, reference="x", digest=digest, index_digest=digest, time=0.0)
        self.assertEqual((found["digest"], found["index_digest"]), (DIGEST, DIGEST))
        self.assertIsNone(found["looked_for"])


if __name__ == "__main__":
    unittest.main()

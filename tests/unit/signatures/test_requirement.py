# SPDX-License-Identifier: Apache-2.0
"""What requirements that look at signatures have in common (signatures.md 2.1; rows C)."""

import unittest
from collections.abc import Sequence

from cip.content import timed
from cip.errors import ErrorCode, NetworkError, Phase, PolicyRejectedError, SignatureError, SourceError
from cip.model.signature import SignatureResult, SimpleSignature, parse_signature_blob
from cip.trust.policy import Acceptance
from cip.trust.signed.requirement import VerificationRecord, require_one_accepted
from tests.support.roomed import needs_rooms
from tests.support.signatures import unverified
from tests.unit.test_evaluation import SIGNED_BY, JudgingCase, policy

MESSAGE = SimpleSignature(b"\xa3", "place")


class CombinationTest(JudgingCase):
    @needs_rooms("openpgp")
    def test_c09_list_that_cannot_be_had_whole_refuses(self) -> None:
        def fetch() -> Sequence[SimpleSignature]:
            blob = parse_signature_blob(b"unknown", "signature-2")
            return [MESSAGE, blob]  # type: ignore[list-item]

        image = unverified()._replace(signatures=fetch)
        words = "the signatures cannot be fetched: signature signature-2: unknown format"
        error = self.refuse("fetch", words, policy([SIGNED_BY]), image)
        self.assertIs(error.code, ErrorCode.POLICY_REJECTED)
        self.assertIs(error.phase, Phase.SIGNATURE)

    @needs_rooms("openpgp")
    def test_network_failure_while_fetching_keeps_its_code_and_facts(self) -> None:
        def fetch() -> Sequence[SimpleSignature]:
            raise NetworkError("slow", code=ErrorCode.TIMEOUT, host="h", http_status=504, retry_after=3.0)

        error = self.refuse(
            "fetch", "cannot be fetched: slow", policy([SIGNED_BY]), unverified()._replace(signatures=fetch)
        )
        facts = (error.code, error.retryable, error.host, error.http_status, error.retry_after)
        self.assertEqual(facts, (ErrorCode.TIMEOUT, True, "h", 504, 3.0))

    @needs_rooms("openpgp")
    def test_c11_key_file_matters_only_beside_a_signature(self) -> None:
        self.refuse("nosig", "no simple signature", policy([SIGNED_BY]))
        self.refuse("keycfg", "keyPath '/missing': /missing: no such file", policy([SIGNED_BY]), unverified(MESSAGE))

    def test_c13_base_layers_are_not_supported(self) -> None:
        chosen = policy([{"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}}])
        self.refuse("unimpl", "signedBaseLayer is not supported", chosen)


class TimeTest(unittest.TestCase):
    def test_time_to_open_ends_every_kind_of_check(self) -> None:
        """Not gpgv alone: the clock is asked before each candidate, and its end is no verdict about one."""
        asked: list[str] = []

        def require() -> float:
            asked.append("time")
            if len(asked) > 2:
                raise SourceError("not within the 5 s", code=ErrorCode.TIMEOUT)
            return 5.0

        def verify(signature: SimpleSignature, verification: VerificationRecord) -> Acceptance:
            raise SignatureError("bad", reason="crypto")

        seen: list[SignatureResult] = []
        with timed(require), self.assertRaisesRegex(PolicyRejectedError, "not within the 5 s") as caught:
            require_one_accepted([(MESSAGE, VerificationRecord("place", "simple"))] * 24, verify, seen)
        self.assertEqual((caught.exception.code, caught.exception.reason), (ErrorCode.TIMEOUT, "dependency"))
        self.assertEqual([each.reason for each in seen], ["crypto", "crypto", "timeout"])


if __name__ == "__main__":
    unittest.main()

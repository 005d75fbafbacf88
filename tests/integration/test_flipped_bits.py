# SPDX-License-Identifier: Apache-2.0
"""No signature of any kind is believed when one bit of it, of its statement or of its proof is another."""

import base64
import json
import os
import unittest
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from cip.errors import PolicyRejectedError
from cip.model.reference import ImageIdentity, Transport
from cip.model.signature import SigstoreSignature, parse_signature_blob
from cip.trust.evaluation import Decision, require_accepted
from cip.trust.policy import UnverifiedImage, parse_policy
from tests.support.signatures import tools
from tests.support.sigstore import (
    BUNDLE,
    CERTIFICATE,
    CHAIN,
    EMAIL,
    OIDC_ISSUER,
    SIGNATURE,
    Log,
    b64,
    certified,
    fulcio_leaf,
    pem,
    public_pem,
    root,
)
from tests.unit.sigstore.test_requirement import SigstoreCase, flip, policy_of


class FlippedBitsTest(SigstoreCase):
    """Not one changed bit of what is covered is ever accepted (signatures.md 10.6)."""

    def require_refusal(self, accept: Callable[[SigstoreSignature], object], changed: SigstoreSignature) -> None:
        with self.assertRaises(PolicyRejectedError) as caught:
            accept(changed)
        self.assertIn(
            caught.exception.reason, ("crypto", "untrusted", "certid", "rekor", "payload", "identity", "digest")
        )

    def each_flip(self, made: SigstoreSignature, step: int) -> Iterable[tuple[str, SigstoreSignature]]:
        """The payload and each annotation, every `step`-th bit turned over.

        Not the chain: its last certificate is not used, because the root comes from the policy.
        """
        for position in range(0, len(made.payload) * 8, step):
            yield f"payload {position}", made._replace(payload=flip(made.payload, position))
        for name, text in made.annotations.items():
            if name == CHAIN:
                continue
            for position in range(0, len(text) * 8, step):
                changed = flip(text.encode(), position).decode("latin-1")
                yield f"{name} {position}", made._replace(annotations={**made.annotations, name: changed})

    def test_of_a_fulcio_signature(self) -> None:
        log, anchor = Log(), root()
        made = certified(fulcio_leaf(anchor), log)
        policy = {
            "fulcio": {"caData": b64(anchor.pem), "oidcIssuer": OIDC_ISSUER, "subjectEmail": EMAIL},
            "rekorPublicKeyData": b64(public_pem(log.key)),
        }
        self.judge(policy, made)
        for case, changed in self.each_flip(made, 29):
            with self.subTest(case):
                self.require_refusal(lambda each: self.judge(policy, each), changed)

    def test_of_the_public_instance(self) -> None:
        place = Path(
            os.environ.get("CIP_SIGSTORE_PUBLIC") or Path(__file__).parents[3] / "shared" / "data" / "sigstore-public"
        )
        if not place.is_dir():
            if os.environ.get("CI"):
                self.fail(
                    f"the public sigstore data is missing: expected it in {place}, or CIP_SIGSTORE_PUBLIC to name it"
                )
            self.skipTest(f"no public sigstore data in {place}")
        made = parse_signature_blob((place / "image" / "signature-1").read_bytes(), "signature-1")
        assert isinstance(made, SigstoreSignature)
        manifest = (place / "image" / "manifest.json").read_bytes()
        files = {"ca": (place / "fulcio_v1.crt.pem").read_bytes(), "rekor": (place / "rekor.pub").read_bytes()}
        repository = "192.168.64.2:5000/cosign-signed/fulcio-rekor-1"

        def judge(email: str, issuer: str, name: str, signature: SigstoreSignature = made) -> Decision:
            matcher = {"type": "exactRepository", "dockerRepository": name}
            fulcio = {"caPath": "ca", "oidcIssuer": issuer, "subjectEmail": email}
            policy = policy_of(fulcio=fulcio, rekorPublicKeyPath="rekor", signedIdentity=matcher)
            directory = ImageIdentity(Transport.DIR, "/image", ())
            image = UnverifiedImage(directory, manifest, lambda: [signature])
            return require_accepted(parse_policy(policy, "p"), image, tools(files), require_signed=True)

        email, issuer = "mitr@redhat.com", "https://github.com/login/oauth"
        judge(email, issuer, repository)
        for case, arguments, reason in (
            ("other e-mail", ("other@redhat.com", issuer, repository), "certid"),
            ("other issuer", (email, "https://accounts.google.com", repository), "certid"),
            ("other repository", (email, issuer, "192.168.64.2:5000/other"), "identity"),
        ):
            with self.subTest(case), self.assertRaises(PolicyRejectedError) as caught:
                judge(*arguments)
            self.assertEqual(caught.exception.reason, reason)
        for case, changed in self.each_flip(made, 13):
            with self.subTest(case):
                self.require_refusal(lambda each: judge(email, issuer, repository, each), changed)
        self.flip_inside(made, lambda each: judge(email, issuer, repository, each))

    def flip_inside(self, made: SigstoreSignature, accept: Callable[[SigstoreSignature], object]) -> None:
        """Bits of the binary material beneath the base64: signature, certificate, timestamp, entry body."""
        certificate = base64.b64decode("".join(made.annotations[CERTIFICATE].split("\n")[1:-2]))
        bundle = json.loads(made.annotations[BUNDLE])
        body = base64.b64decode(bundle["Payload"]["body"])
        parts: Mapping[str, tuple[bytes, Callable[[bytes], dict[str, str]]]] = {
            "signature": (base64.b64decode(made.annotations[SIGNATURE]), lambda part: {SIGNATURE: b64(part)}),
            "certificate": (certificate, lambda part: {CERTIFICATE: pem(part, "CERTIFICATE").decode()}),
            "timestamp": (
                base64.b64decode(bundle["SignedEntryTimestamp"]),
                lambda part: {BUNDLE: json.dumps({**bundle, "SignedEntryTimestamp": b64(part)})},
            ),
            "body": (
                body,
                lambda part: {BUNDLE: json.dumps({**bundle, "Payload": {**bundle["Payload"], "body": b64(part)}})},
            ),
        }
        for name, (content, build) in parts.items():
            for position in range(0, len(content) * 8, 7):
                changed = made._replace(annotations={**made.annotations, **build(flip(content, position))})
                with self.subTest(name, position=position):
                    self.require_refusal(accept, changed)


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""Signatures of a registry, and the time that they take together; what they say is tested against real registries."""

from __future__ import annotations

import json
import unittest
from unittest import mock

from cip.errors import CipError, ErrorCode, Phase, SignatureError
from cip.model.descriptor import digest_of
from cip.model.mediatype import OCI_MANIFEST
from cip.net.limits import Cancellation
from cip.registry.signatures import _Fetch
from tests.support.origins import Asked, Reply, reply
from tests.unit.test_blob import DIGEST, BlobCase

PAYLOADS = [f"payload {number}".encode() for number in range(20)]
TAKES = 19  # seconds, which is less than any limit of a single answer


class AttachmentsTest(BlobCase):
    def attach(self, seconds: float) -> list[bytes]:
        """The payloads that are attached to DIGEST, when opening the image may take `seconds`."""
        self.places(self.slow_registry)
        blob = self.blob()
        limits = blob._session.limits(Cancellation()).until(self.clock.now + seconds)
        fetch = _Fetch(blob._candidates.current.endpoint, DIGEST, blob._session, limits)
        return [signature.payload for signature in fetch.attached()]  # type: ignore[union-attr]

    def slow_registry(self, asked: Asked) -> Reply:
        if "/manifests/" in asked.target:
            return reply(200, self.manifest(), {"Content-Type": OCI_MANIFEST})
        self.clock.now += TAKES
        return reply(200, {str(digest_of(payload)): payload for payload in PAYLOADS}[asked.target.rpartition("/")[2]])

    def manifest(self) -> bytes:
        layers = [
            {
                "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
                "digest": str(digest_of(payload)),
                "size": len(payload),
            }
            for payload in PAYLOADS
        ]
        config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": str(DIGEST), "size": 1}
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
        return json.dumps(manifest).encode()

    def test_a_refusal_from_elsewhere_says_nothing_about_our_credentials(self) -> None:
        self.origins.add("https://cdn.example:443", lambda asked: reply(403, b""))
        for script, here in (
            (lambda asked: reply(307, b"", {"Location": "https://cdn.example/x"}), False),
            (lambda asked: reply(403, b""), True),
        ):
            self.places(script)
            blob = self.blob()
            limits = blob._session.limits(Cancellation())
            fetch = _Fetch(blob._candidates.current.endpoint, DIGEST, blob._session, limits)
            for ask in (fetch.attached, fetch.from_registry):
                with self.subTest(ask, here=here), self.assertRaises(CipError) as caught:
                    ask()
                code = ErrorCode.AUTHENTICATION_FAILED if here else ErrorCode.REGISTRY_ERROR
                self.assertIs(caught.exception.code, code)
                self.assertEqual("anonymous" in str(caught.exception), here, caught.exception)

    def test_they_come_in_their_order(self) -> None:
        self.assertEqual(self.attach(1000), PAYLOADS)

    def test_all_together_have_a_limit_that_is_looked_at_before_they_are_fetched(self) -> None:
        with mock.patch("cip.model.signature.SIGNATURES_LIMIT", sum(map(len, PAYLOADS)) - 1):
            with self.assertRaisesRegex(SignatureError, "bytes of signatures of one manifest") as caught:
                self.attach(1000)
        self.assertEqual(caught.exception.reason, "fetch")
        self.assertEqual(len(self.origins.asked), len(PAYLOADS))  # the manifest, and all but the last one

    def test_many_that_are_slow_share_the_time_of_the_image(self) -> None:
        began = self.clock.now
        with self.assertRaises(CipError) as caught:
            self.attach(180)
        self.assertLess(self.clock.now - began, 180 + TAKES)
        self.assertEqual((caught.exception.code, caught.exception.phase), (ErrorCode.TIMEOUT, Phase.SIGNATURE))


if __name__ == "__main__":
    unittest.main()

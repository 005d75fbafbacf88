# SPDX-License-Identifier: Apache-2.0
"""What the HTTP front end answers of referrers, and the queries that it takes: bundles.md 6.3."""

import unittest

from cip.model.descriptor import digest_of
from cip.model.mediatype import OCI_INDEX, OCI_MANIFEST
from cip.wire.referrers import artifact_type_of
from cip.wire.target import RequestFault
from tests.support.fakeimage import ServedReferrer
from tests.unit.test_httpserver import Conversations, blob

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


class QueryTest(unittest.TestCase):
    def test_l02_l02b_a_plus_is_a_plus_however_it_is_spelled(self) -> None:
        for text in (BUNDLE, BUNDLE.replace("+", "%2B"), BUNDLE.replace("+", "%2b").replace("/", "%2F")):
            self.assertEqual(artifact_type_of(f"/referrers?artifactType={text}"), BUNDLE)
        self.assertEqual(artifact_type_of("/referrers?artifactType=a%20b%C3%A9="), "a bé=")

    def test_without_a_query_there_is_no_filter(self) -> None:
        for target in ("/referrers", "/referrers?", "http://x/referrers"):
            self.assertIsNone(artifact_type_of(target))

    def test_l04_l04b_l04c_what_cannot_be_obeyed_is_refused(self) -> None:
        for query in (
            "artifactType=a&artifactType=b",
            "artifacttype=a",
            "n=hush",
            "artifactType=hush%2",
            "artifactType=a&n=1",
            "artifactType=",
            "artifactType",
            "&",
            "artifactType=%",
            "artifactType=%2",
            "artifactType=%FF",
            "artifact%54ype=a",
            "artifactType=a#b",
        ):
            with self.subTest(query), self.assertRaises(RequestFault) as caught:
                artifact_type_of(f"/referrers?{query}")
            self.assertEqual(caught.exception.answer, 400)
            self.assertNotIn("hush", str(caught.exception))


class Referrers(Conversations):
    """The rows L02, L04, L08, L09b and L14 of bundles.md 6.3."""

    sbom = b'{"an": "sbom"}'

    def setUp(self) -> None:
        super().setUp()
        self.image.listed = {digest_of(self.sbom): ServedReferrer(self.sbom, OCI_MANIFEST, "no")}

    def test_the_list_is_an_index(self) -> None:
        with self.serving() as line:
            answer = line.ask("GET", "/referrers")
        self.assertEqual((answer.status, answer.body), (200, b"list of None"))
        self.assertEqual(answer.field("Content-Type"), OCI_INDEX)

    def test_a_type_can_be_asked_for(self) -> None:
        with self.serving() as line:
            for text in ("a/b+json", "a/b%2Bjson", "a%2fb%2bjson"):
                self.assertEqual(line.ask("GET", f"/referrers?artifactType={text}").body, b"list of a/b+json")
            for query in ("artifactType=a&artifactType=b", "n=5", "artifactType="):
                answer = line.ask("GET", f"/referrers?{query}")
                self.assertEqual((answer.status, answer.problem()["type"]), (400, "request-invalid"))

    def test_a_listed_manifest_is_marked_unless_the_policy_covers_it(self) -> None:
        with self.serving() as line:
            answer = line.ask("GET", f"/referrers/{digest_of(self.sbom)}")
            self.assertEqual((answer.status, answer.body), (200, self.sbom))
            self.assertEqual(answer.field("Content-Type"), OCI_MANIFEST)
            self.assertEqual(answer.field("Manifest-Digest"), str(digest_of(self.sbom)))
            self.assertEqual(answer.field("Referrers-Verified"), "no")
            self.image.listed[digest_of(b"bundle")] = ServedReferrer(b"bundle", OCI_MANIFEST, "signature")
            answer = line.ask("GET", f"/referrers/{digest_of(b'bundle')}")
            self.assertEqual((answer.status, answer.field("Referrers-Verified")), (200, None))
            answer = line.ask("GET", blob(b"not listed").replace("blobs", "referrers"))
            self.assertEqual((answer.status, answer.problem()["type"]), (404, "blob-not-in-image"))
            self.assertEqual(line.ask("GET", "/referrers/sha256:x").problem()["type"], "digest-invalid")

    def test_other_methods_are_as_for_the_manifest(self) -> None:
        with self.serving() as line:
            for target in ("/referrers", f"/referrers/{digest_of(self.sbom)}"):
                wanted, found = line.ask("GET", target), line.ask("HEAD", target)
                self.assertEqual((found.status, found.body), (200, b""))
                self.assertEqual(found.field("Content-Length"), str(len(wanted.body)))
                self.assertEqual(line.ask("OPTIONS", target).field("Allow"), "GET, HEAD, OPTIONS")
                self.assertEqual(line.ask("POST", target).status, 405)
            for target in ("/referrers/", "/referrers/a/b", "/Referrers"):
                answer = line.ask("GET", target)
                self.assertIn(answer.problem()["type"], ("path-unknown", "digest-invalid"))


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""The rows L02 and L04 of bundles.md 6.3."""

import unittest

from cip.wire.problem import RequestFault
from cip.wire.query import artifact_type_of

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
            "artifactType=a&artifactType=b", "artifacttype=a", "n=1", "artifactType=a&n=1", "artifactType=",
            "artifactType", "&", "artifactType=%", "artifactType=%2", "artifactType=%FF", "artifact%54ype=a",
            "artifactType=a#b",
        ):  # fmt: skip
            with self.subTest(query), self.assertRaises(RequestFault) as caught:
                artifact_type_of(f"/referrers?{query}")
            self.assertEqual(caught.exception.answer, 400)


if __name__ == "__main__":
    unittest.main()

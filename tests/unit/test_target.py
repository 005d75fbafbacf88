# SPDX-License-Identifier: Apache-2.0
"""Targets of requests; their queries: the rows L02 and L04 of bundles.md 6.3."""

import unittest

from cip.wire.problem import RequestFault
from cip.wire.target import artifact_type_of, parse_target

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


class Targets(unittest.TestCase):
    def test_paths_are_decoded_once_and_queries_left_out(self) -> None:
        for target, path in (
            ("/manifest", "/manifest"),
            ("/%6danifest", "/manifest"),
            ("/%256d", "/%6d"),
            ("/blobs%2Fx", "/blobs/x"),
            ("/m%C3%A9", "/m\xc3\xa9"),
            ("/manifest?a=%zz&b=#", "/manifest"),
            ("/a+b", "/a+b"),
            ("//manifest", "//manifest"),
            ("/../manifest", "/../manifest"),
            ("http://x/manifest", "/manifest"),
            ("HTTPS://x:1/manifest?y", "/manifest"),
            ("http://x", "/"),
            ("http://x?/manifest", "/"),
        ):
            with self.subTest(target):
                self.assertEqual(parse_target(target), path)

    def test_what_is_no_target_is_refused_without_its_query(self) -> None:
        for target, reason in (
            ("manifest", "expected a path or an http URL"),
            ("x:80", "expected a path or an http URL"),
            ("*", "expected a path or an http URL"),
            ("ftp://x/manifest", "expected a path or an http URL"),
            ("http:///manifest", "expected a path or an http URL"),
            ("/manifest#top", "contains a fragment"),
            ("/%", "two hex digits after %"),
            ("/%6", "two hex digits after %"),
            ("/%6g", "two hex digits after %"),
            ("/%+1", "two hex digits after %"),
            ("/m\xe9", "expected visible ASCII characters"),
        ):
            with self.subTest(target), self.assertRaisesRegex(RequestFault, reason) as caught:
                parse_target(f"{target}?s3cret")
            self.assertNotIn("s3cret", str(caught.exception))


if __name__ == "__main__":
    unittest.main()

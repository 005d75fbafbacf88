# SPDX-License-Identifier: Apache-2.0
"""Targets of requests."""

import unittest

from cip.wire.target import RequestFault, parse_target


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

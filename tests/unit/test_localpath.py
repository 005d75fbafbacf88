# SPDX-License-Identifier: Apache-2.0
"""Paths are resolved once, the way the kernel would, before policy looks at them."""

import os
import unittest

from cip.errors import ErrorCode, InvalidReferenceError, SourceError
from cip.model.reference import ImageReference, Transport, parse_image_reference
from cip.sources.files import resolve_path
from tests.support.leaks import LeakCheckedTestCase


class ResolvePath(LeakCheckedTestCase):
    def resolve(self, path: str) -> str:
        return resolve_path(parse_image_reference(f"dir:{path}"))

    def test_dots_behind_a_link_mean_the_parent_of_what_the_link_names(self) -> None:
        """signatures.md S14: read and judged is `other/img`, not `good/img`."""
        for name in ("good/img", "other/deep", "other/img"):
            (self.directory / name).mkdir(parents=True)
        (self.directory / "good/link").symlink_to(self.directory / "other/deep")
        self.assertEqual(self.resolve(f"{self.directory}/good/link/../img"), f"{self.directory}/other/img")

    def test_the_last_element_may_be_missing(self) -> None:
        for path in ("missing", "missing/", "./missing", "../" + self.directory.name + "/missing"):
            with self.subTest(path):
                self.assertEqual(self.resolve(f"{self.directory}/{path}"), f"{self.directory}/missing")

    def test_an_empty_path_is_the_current_directory(self) -> None:
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.directory)
        self.assertEqual(self.resolve(""), str(self.directory))
        self.assertEqual(self.resolve("missing"), f"{self.directory}/missing")

    def test_what_cannot_be_resolved_is_refused_with_the_reason(self) -> None:
        (self.directory / "dangling").symlink_to("nowhere")
        (self.directory / "loop").symlink_to("loop")
        (self.directory / "file").write_bytes(b"")
        (self.directory / "through").symlink_to("gone/deeper")
        for path, reason in (
            ("no/such", "no such file"),
            ("missing/..", "no such file"),
            ("dangling", "no such file"),
            ("through", "no such file"),
            ("loop", "too many levels"),
            ("file/x", "not a directory"),
            ("x" * 300, "too long"),
        ):
            with self.subTest(path), self.assertRaisesRegex(SourceError, reason) as caught:
                self.resolve(f"{self.directory}/{path}")
            self.assertIs(caught.exception.code, ErrorCode.SOURCE_UNAVAILABLE)

    def test_text_that_is_no_file_name_is_refused(self) -> None:
        with self.assertRaisesRegex(InvalidReferenceError, "encoding"):
            resolve_path(ImageReference(Transport.DIR, "dir:x", path=f"{self.directory}/\ud800"))


if __name__ == "__main__":
    unittest.main()

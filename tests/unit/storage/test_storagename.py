# SPDX-License-Identifier: Apache-2.0
"""The text behind `containers-storage:` (images.md 4.1, 4.2, R36 to R41)."""

import unittest

from cip.errors import CipError, InvalidReferenceError
from cip.model.reference import parse_docker_reference, parse_image_reference
from cip.sources.storage.configuration import StorageConfiguration, StorageName, parse_storage_name, split_store

H = "0123456789abcdef" * 4
DIGEST = f"sha256:{H}"
STORED = {"abc" + "0" * 61, "abd" + "0" * 61, "beef" + "0" * 60}


def find_id(prefix: str) -> str | None:
    found = [image_id for image_id in STORED if image_id.startswith(prefix)]
    return found[0] if len(found) == 1 else None


class Stores(unittest.TestCase):
    def split(self, rest: str) -> tuple[StorageConfiguration | None, str]:
        return split_store(parse_image_reference(f"containers-storage:{rest}"))

    def test_the_store_is_taken_off_the_front(self) -> None:
        for text, expected in (
            ("a:1", (None, "a:1")),
            ("[/x]a", (StorageConfiguration("", "/x", "", ()), "a")),
            ("[overlay@/x]a", (StorageConfiguration("overlay", "/x", "", ()), "a")),
            ("[vfs@/x+/run]a@b", (StorageConfiguration("vfs", "/x", "/run", ()), "a@b")),
            ("[vfs@/x+/run:a=b,vfs.imagestore=/y]a", (StorageConfiguration("vfs", "/x", "/run", ("/y",)), "a")),
            ("[overlay2@/x:]a", (StorageConfiguration("overlay", "/x", "", ()), "a")),
            ("[/x]", (StorageConfiguration("", "/x", "", ()), "")),
        ):
            with self.subTest(text):
                self.assertEqual(self.split(text), expected)

    def test_malformed_stores_are_refused(self) -> None:
        """R36; the empty reference is refused by the grammar already."""
        for text, reason in (
            ("[", "expected ] behind the store"),
            ("[]a", "expected an absolute path, found ''"),
            ("[overlay@]a", "expected an absolute path, found ''"),
            ("[@/x]a", "expected the name of a storage driver before @"),
            ("[rel]a", "expected an absolute path, found 'rel'"),
            ("[/x+]a", "expected an absolute path, found ''"),
            ("[/x+rel]a", "expected an absolute path, found 'rel'"),
            ("[Bad-@/x]a", "expected the name of a storage driver, found 'Bad-'"),
            ("[/x:imagestore=rel]a", "expected an absolute path, found 'rel'"),
        ):
            with self.subTest(text), self.assertRaisesRegex(CipError, reason):
                self.split(text)
        with self.assertRaisesRegex(InvalidReferenceError, "expected an image name or id"):
            parse_image_reference("containers-storage:")


class Names(unittest.TestCase):
    def parse(self, rest: str) -> StorageName:
        return parse_storage_name(parse_image_reference(f"containers-storage:{rest}"), rest, find_id)

    def test_names_ids_and_both_are_told_apart(self) -> None:
        """R38 to R40."""
        for text, name, image_id in (
            ("a", "docker.io/library/a:latest", ""),
            ("localhost/a:1", "localhost/a:1", ""),
            (f"a@{H}", "docker.io/library/a:latest", H),
            (f"a:1@{DIGEST}", f"docker.io/library/a:1@{DIGEST}", ""),
            (f"a@{DIGEST}", f"docker.io/library/a@{DIGEST}", ""),
            (f"a@{DIGEST}@{H}", f"docker.io/library/a@{DIGEST}", H),
            (f"sha256:{H}", f"docker.io/library/sha256:{H}", ""),
            ("a:1@beef", "docker.io/library/a:1", "beef" + "0" * 60),
            ("be", "docker.io/library/be:latest", ""),
            ("ab", "docker.io/library/ab:latest", ""),
        ):
            with self.subTest(text):
                self.assertEqual(self.parse(text), (parse_docker_reference(name), image_id))
        for text, image_id in (
            (f"@{H}", H),
            ("beef", "beef" + "0" * 60),
            ("abc", "abc" + "0" * 61),
            ("beef" + "0" * 60, "beef" + "0" * 60),
            ("@abd0", "abd" + "0" * 61),
        ):
            with self.subTest(text):
                self.assertEqual(self.parse(text), (None, image_id))

    def test_what_names_nothing_is_refused(self) -> None:
        """R37, R41."""
        for text, reason in (
            ("a@", "'' is neither a digest nor the id of an image"),
            ("a@xyz", "'xyz' is neither a digest nor the id"),
            ("a@ab", "'ab' is neither"),
            ("a@be", "'be' is neither"),
            (H, "found 64 hex digits"),
            (f"@{DIGEST}", "is not a repository path"),
            ("A", "lower-case"),
            ("", "expected an image name or id"),
        ):
            with self.subTest(text), self.assertRaisesRegex(InvalidReferenceError, reason):
                reference = parse_image_reference("containers-storage:[/x]" + text)
                parse_storage_name(reference, text, find_id)


if __name__ == "__main__":
    unittest.main()

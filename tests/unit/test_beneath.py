# SPDX-License-Identifier: Apache-2.0
"""No name and no link leads out of a directory, and nothing but a regular file is opened."""

import os
import unittest

from cip.sources.files import Escape, Tree
from tests.support.leaks import LeakCheckedTestCase


class Beneath(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.root = self.directory / "root"
        (self.root / "a/b").mkdir(parents=True)
        (self.root / "a/b/file").write_bytes(b"inside")
        (self.directory / "secret").write_bytes(b"outside")
        (self.root / "secret").write_bytes(b"inside")

    def read(self, path: bytes, escape: Escape = Escape.REFUSED) -> bytes:
        tree = Tree.at(bytes(self.root), escape)
        try:
            descriptor = tree.open_file(path)
            try:
                return os.read(descriptor, 100)
            finally:
                os.close(descriptor)
        finally:
            tree.close()

    def test_files_are_found_by_every_spelling_that_stays_inside(self) -> None:
        (self.root / "link").symlink_to("a/b")
        (self.root / "a/up").symlink_to("../a/b/../b/file")
        for path in (b"a/b/file", b"./a//b/./file", b"a/b/../../a/b/file", b"link/file", b"a/up", b"link/../b/file"):
            with self.subTest(path):
                self.assertEqual(self.read(path), b"inside")

    def test_ways_out_are_refused(self) -> None:
        (self.root / "absolute").symlink_to(self.directory / "secret")
        (self.root / "above").symlink_to("../secret")
        (self.root / "parent").symlink_to("..")
        for path in (b"../secret", b"a/../../secret", b"absolute", b"above", b"parent/secret", b"a/../parent/secret"):
            with self.subTest(path), self.assertRaisesRegex(OSError, "out of the directory"):
                self.read(path)

    def test_confined_ways_start_again_at_the_directory(self) -> None:
        (self.root / "absolute").symlink_to("/secret")
        (self.root / "a/above").symlink_to("../../../../secret")
        for path in (b"../secret", b"absolute", b"a/above", b"/secret"):
            with self.subTest(path):
                self.assertEqual(self.read(path, Escape.CONFINED), b"inside")

    def test_only_regular_files_are_opened(self) -> None:
        os.mkfifo(self.root / "pipe")
        (self.root / "to-pipe").symlink_to("pipe")
        for path, reason in (
            (b"pipe", "not a regular file"),
            (b"to-pipe", "not a regular file"),
            (b"a", "not a regular file"),
            (b"a/..", "not a regular file"),
            (b"", "not a regular file"),
            (b"secret/x", "Not a directory"),
            (b"missing", "No such file"),
        ):
            with self.subTest(path), self.assertRaisesRegex(OSError, reason):
                self.read(path)

    def test_links_in_a_circle_end(self) -> None:
        (self.root / "one").symlink_to("two")
        (self.root / "two").symlink_to("one")
        (self.root / "self").symlink_to("self/x")
        for path in (b"one", b"one/x", b"self"):
            with self.subTest(path), self.assertRaisesRegex(OSError, "more than 40 links"):
                self.read(path)

    def test_the_directory_itself_must_not_be_a_link(self) -> None:
        (self.directory / "link").symlink_to("root")
        with self.assertRaises(NotADirectoryError):
            Tree.at(str(self.directory / "link"))

    def test_a_directory_is_opened_for_the_files_in_it(self) -> None:
        tree = Tree.at(str(self.root))
        self.addCleanup(tree.close)
        for path in (b"a/b", b"a/b/../b/"):
            parent = tree.open_directory(path)
            self.addCleanup(os.close, parent)
            self.assertEqual(os.stat("file", dir_fd=parent).st_size, 6)
        with self.assertRaises(NotADirectoryError):
            tree.open_directory(b"a/b/file")


if __name__ == "__main__":
    unittest.main()

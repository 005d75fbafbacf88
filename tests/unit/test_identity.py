# SPDX-License-Identifier: Apache-2.0
"""Identities: the names for policy lookup of signatures.md 1.3."""

import unittest

from cip.model.reference import Transport, docker_identity, nameless_identity, parse_docker_reference, path_identity


class Identities(unittest.TestCase):
    def test_a_docker_reference_is_known_by_itself_and_its_scopes(self) -> None:
        reference = parse_docker_reference("x.y/a/b:t")
        identity = docker_identity(Transport.DOCKER, reference)
        self.assertEqual(identity.identity, "x.y/a/b:t")
        self.assertEqual(identity.scopes, ("x.y/a/b", "x.y/a", "x.y", "*.y"))
        self.assertEqual(identity.docker, reference)

    def test_a_path_is_known_by_itself_and_its_parents_without_the_root(self) -> None:
        identity = path_identity(Transport.DIR, "/srv/images/a")
        self.assertEqual((identity.identity, identity.scopes), ("/srv/images/a", ("/srv/images", "/srv")))
        self.assertEqual(path_identity(Transport.OCI, "/a").scopes, ())
        self.assertEqual(path_identity(Transport.OCI, "/").scopes, ())

    def test_an_image_without_a_name_has_the_empty_identity(self) -> None:
        self.assertEqual(nameless_identity(Transport.TARBALL)[1:], ("", (), None))


if __name__ == "__main__":
    unittest.main()

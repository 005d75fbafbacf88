# SPDX-License-Identifier: Apache-2.0
"""References to archives, daemons and storages; the rows are those of images.md 12.1."""

import unittest

from cip.errors import strip_reference
from cip.model.reference import parse_image_reference
from tests.unit.test_reference import H, Refusing, docker


class LocalReferences(Refusing):
    def test_an_archive_takes_a_name_or_none(self) -> None:
        reference = parse_image_reference("oci-archive:f.tar:v1")
        self.assertEqual((reference.path, reference.name, reference.index), ("f.tar", "v1", None))
        self.refused("oci-archive:f.tar:@0", "'@0' is not an image name")  # R26

    def test_positions_are_those_of_64_bits(self) -> None:
        self.assertEqual(parse_image_reference("docker-archive:d:@9223372036854775807").index, 2**63 - 1)
        self.refused("docker-archive:d:@9223372036854775808", "is not an image index")

    def test_what_looks_like_a_user_and_is_none_stays(self) -> None:
        digest = f"sha256:{'a' * 64}"
        for text in (
            "containers-storage:[o@/g?]x@0b",
            "containers-storage:fedora:39@0b3f",
            f"containers-storage:a.b:5000/x:1@{digest}",
            "docker-archive:/a@b?.tar:a.b:5000/x:1",
            "docker-archive:/a@b?.tar",
            "docker-archive:/a.tar:@0",
        ):
            self.assertEqual(strip_reference(text), text)
            self.assertEqual(parse_image_reference(text).text, text)

    def test_docker_archives_take_a_tag_or_a_position(self) -> None:  # R28 to R30
        self.assertEqual(str(docker("docker-archive:f:a")), "docker.io/library/a:latest")
        self.assertEqual(str(docker("docker-archive:f:x.y:5000/a:1")), "x.y:5000/a:1")
        self.assertEqual(parse_image_reference("docker-archive:f:@1").index, 1)
        self.assertEqual(parse_image_reference("docker-archive:f").path, "f")
        for text, reason in (
            ("", "expected a file name"),
            ("f:", "is not a repository path"),
            (f"f:a@sha256:{H}", "expected a tag, found a digest"),
            (f"f:a:1@sha256:{H}", "expected a tag, found a digest"),
            ("f:@-1", "is not an image index"),
            ("f:A", "lower-case"),
        ):
            self.refused(f"docker-archive:{text}", reason)

    def test_the_docker_daemon_wants_a_tag_a_digest_or_an_image_id(self) -> None:  # R31, R32
        self.assertEqual(str(docker("docker-daemon:a:1")), "docker.io/library/a:1")
        self.assertEqual(str(docker(f"docker-daemon:a@sha256:{H}")), f"docker.io/library/a@sha256:{H}")
        self.assertEqual(str(parse_image_reference(f"docker-daemon:sha256:{H}").image_id), f"sha256:{H}")
        for text, reason in (
            ("a", "expected a tag or a digest"),
            (f"a:1@sha256:{H}", "expected a tag or a digest"),
            ("sha256:abc", "expected 64"),
            ("sha512:" + H * 2, "expected an image id by sha256"),
            (H, "found 64 hex digits"),
            ("docker.io/library/sha256:x", "reserved"),
        ):
            self.refused(f"docker-daemon:{text}", reason)

    def test_what_only_a_store_can_read_stays_as_it_is(self) -> None:  # R36 to R41 are refused when opened
        for text in ("[overlay@/x]a", f"a:1@sha256:{H}", f"sha256:{H}", "["):
            self.assertEqual(parse_image_reference(f"containers-storage:{text}").path, text)
        self.refused("containers-storage:", "expected an image name or id")
        self.assertEqual(parse_image_reference("tarball:a:b").path, "a:b")
        self.refused("tarball:", "expected at least one file")  # R35


if __name__ == "__main__":
    unittest.main()

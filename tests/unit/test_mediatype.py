# SPDX-License-Identifier: Apache-2.0
"""Media types: spelled as the specifications spell them (images.md 5.1), asked for in the order of registry.md 6.1."""

import unittest

from cip.model import mediatype


class Types(unittest.TestCase):
    def test_manifests_are_asked_for_in_the_order_that_registries_rely_on(self) -> None:
        self.assertEqual(
            mediatype.ACCEPTED_MANIFESTS,
            (
                "application/vnd.oci.image.manifest.v1+json",
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.distribution.manifest.v1+prettyjws",
                "application/vnd.docker.distribution.manifest.v1+json",
                "application/vnd.docker.distribution.manifest.list.v2+json",
                "application/vnd.oci.image.index.v1+json",
            ),
        )

    def test_each_type_that_is_asked_for_is_recognised_as_one_kind(self) -> None:
        for media_type in mediatype.ACCEPTED_MANIFESTS:
            kinds = [media_type in kind for kind in (mediatype.MANIFESTS, mediatype.INDEXES, mediatype.SCHEMA1)]
            self.assertEqual(kinds.count(True), 1, media_type)

    def test_docker_layers_are_those_that_docker_defines(self) -> None:
        self.assertEqual(
            mediatype.DOCKER_LAYERS,
            {
                "application/vnd.docker.image.rootfs.diff.tar",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "application/vnd.docker.image.rootfs.diff.tar.zstd",
                "application/vnd.docker.image.rootfs.foreign.diff.tar",
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            },
        )
        self.assertTrue(all(each.startswith("application/vnd.docker.") for each in mediatype.DOCKER_TYPES))


if __name__ == "__main__":
    unittest.main()

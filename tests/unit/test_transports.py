# SPDX-License-Identifier: Apache-2.0
"""Options that a transport has no use for are refused."""

from __future__ import annotations

import unittest

from cip import rooms
from cip.errors import UsageError
from cip.events import NO_EVENTS
from cip.model.reference import parse_image_reference
from cip.settings import Settings
from cip.transports import SourceOpener


class Transports(unittest.TestCase):
    def opener(self, settings: Settings) -> SourceOpener:
        opener = SourceOpener(settings, NO_EVENTS, rooms.DirectPrograms())
        self.addCleanup(opener.close)
        return opener

    def test_local_sources_belong_to_registry_images(self) -> None:
        with self.assertRaisesRegex(UsageError, "--local-source: expected a docker:// image, found oci:"):
            self.opener(Settings(local_sources=("dir:/x",))).open(parse_image_reference("oci:/y"))

    def test_offline_needs_a_local_source(self) -> None:
        with self.assertRaisesRegex(UsageError, "--offline: expected at least one --local-source"):
            self.opener(Settings(offline=True)).open(parse_image_reference("docker://example.com/a"))


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""The config of an image: read once, told about once."""

import json
import unittest
from unittest import mock

from cip import log
from cip.content import MANIFEST_LIMIT, BlobReader, BytesReader
from cip.errors import ContentMismatchError, ErrorCode, NotFoundError, Phase, UnsupportedError, redact_with
from cip.events import Events
from cip.image import AcceptedManifest, Image
from cip.model import mediatype
from cip.model.descriptor import Descriptor, Platform
from cip.model.manifest import Manifest
from cip.net.redaction import Secrets
from cip.sources.base import BlobAccess, ImageSource
from tests.support import images

AMD64, ARM64 = Platform("amd64", "linux", ""), Platform("arm64", "linux", "")


class ImageConfigTest(unittest.TestCase):
    def setUp(self) -> None:
        self.opened = 0
        self.told: list[dict[str, object]] = []
        self.warnings = self.enterContext(mock.patch.object(log, "warning"))

    def config(
        self,
        data: bytes = images.CONFIG_C,
        kind: str = mediatype.OCI_CONFIG,
        wanted: tuple[Platform, ...] = (AMD64,),
        size: int | None = None,
    ) -> Image:
        described = images.describe(data, kind)
        described = described if size is None else described._replace(size=size)
        manifest = Manifest(mediatype.OCI_MANIFEST, described, (), "")

        def open_blob(source: ImageSource, descriptor: Descriptor, access: BlobAccess) -> BlobReader:
            self.opened += 1
            return BytesReader(data)

        source = type("Source", (ImageSource,), {"open_blob": open_blob})()
        accepted = AcceptedManifest(manifest, b"", described.digest, None)
        return Image("oci:x", source, accepted, Events(self.tell, lambda reader, *_: reader), lambda: wanted)

    def tell(self, event: str, **members: object) -> None:
        self.told.append({"event": event, **members})

    def test_it_is_read_once(self) -> None:
        config = self.config()
        self.assertEqual([config.stored_config(), config.config(), config.stored_config()], [images.CONFIG_C] * 3)
        self.assertEqual((self.opened, self.told, self.warnings.called), (1, [], False))

    def test_another_platform_is_told_once(self) -> None:
        config = self.config(wanted=(ARM64, AMD64._replace(os="plan9")))
        for _ in range(3):
            config.stored_config()
        event = {"event": "platform", "image": "oci:x", "wanted": "linux/arm64", "found": "linux/amd64"}
        self.assertEqual((self.told, self.warnings.call_count), ([event], 1))
        expected = "expected an image for linux/arm64, found one for linux/amd64"
        with self.assertRaisesRegex(NotFoundError, expected) as told:
            config.require_platform()
        self.assertEqual((told.exception.code, told.exception.phase), (ErrorCode.PLATFORM_NOT_FOUND, Phase.CONFIG))

    def test_a_platform_that_repeats_a_secret_is_not_told(self) -> None:
        secrets = Secrets()
        secrets.keep("Tr0mb0ne-C0rd42", "linux2/arm42")
        redact_with(secrets.redact)
        self.addCleanup(redact_with, str)
        for os, architecture in (("linux", "Tr0mb0ne-C0rd42"), ("Tr0mb0ne-C0rd42", "arm64"), ("linux2", "arm42")):
            config = self.config(json.dumps({"os": os, "architecture": architecture}).encode())
            with self.subTest(os=os), self.assertRaises(NotFoundError) as told:
                config.require_platform()
            said = str((self.told, self.warnings.call_args, told.exception))
            self.assertIn("[redacted]", said)
            self.assertFalse(any(each in said for each in ("Tr0mb0ne", "linux2/arm42")), said)

    def test_what_was_named_by_its_digest_was_asked_for_as_it_is(self) -> None:
        config = self.config(wanted=())
        config.require_platform()
        self.assertEqual((self.told, self.warnings.called), ([], False))

    def test_a_config_that_is_none_states_nothing(self) -> None:
        for data, kind in (
            (b"{", mediatype.OCI_CONFIG),
            (b'{"architecture":1}', mediatype.OCI_CONFIG),
            (b'{"architecture":"x"}', "application/vnd.example"),
        ):
            with self.subTest(data=data, kind=kind):
                config = self.config(data, kind)
                config.require_platform()
                self.assertEqual(config.stored_config(), data)
                self.assertEqual((self.told, self.warnings.called), ([], False))

    def test_only_the_config_of_an_image_is_read_into_memory(self) -> None:
        for image, read in (
            (self.config(), True),
            (self.config(kind=mediatype.DOCKER_CONFIG), True),
            (self.config(kind="application/vnd.example"), False),
            (self.config(size=MANIFEST_LIMIT + 1), False),
        ):
            self.assertEqual(image.kept > 0, read)
        with self.assertRaisesRegex(UnsupportedError, "expected an image, found an artifact of type"):
            self.config(kind="application/vnd.example").config()

    def test_wrong_bytes_are_told_as_those_of_the_config(self) -> None:
        config = self.config(size=len(images.CONFIG_C) - 1)
        for _ in range(2):  # and nothing wrong is kept
            with self.assertRaises(ContentMismatchError) as caught:
                config.stored_config()
            self.assertIs(caught.exception.phase, Phase.CONFIG)


if __name__ == "__main__":
    unittest.main()

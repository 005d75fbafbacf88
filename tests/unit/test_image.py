# SPDX-License-Identifier: Apache-2.0
"""The core over a source that is played: what is fetched, what is accepted, what is served."""

from __future__ import annotations

import base64
import json
import unittest
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

from cip.content import BlobAccess, BlobReader, BytesReader, Release, copy_verified, start_timer
from cip.errors import (
    CipError,
    ContentMismatchError,
    ImageAbsentError,
    InvalidDigestError,
    InvalidDocumentError,
    NotFoundError,
    PolicyRejectedError,
    SourceError,
    UnsupportedError,
    UsageError,
)
from cip.events import NO_EVENTS
from cip.image import Image
from cip.model import mediatype
from cip.model.descriptor import Descriptor, Digest, digest_of
from cip.model.reference import ImageIdentity, ImageReference, Transport, docker_identity, parse_docker_reference
from cip.opening import ImageOpener
from cip.settings import CredentialOptions, PlatformOptions, PolicyOptions, Settings
from cip.sources.base import RawManifest
from cip.trust.evaluation import Decision
from cip.trust.policy import Policy, TrustTools, parse_policy
from tests.support import images
from tests.support.keypackets import key_body, packet, signature
from tests.support.roomed import needs_rooms

NAME = "example.com/ns/image:1"
GetManifest = Callable[[Digest | None], RawManifest]
ACCEPT = b'{"default":[{"type":"insecureAcceptAnything"}]}'
REJECT = b'{"default":[{"type":"reject"}]}'
SIGNED = b'{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/missing"}]}'
KEY = key_body(b"key")
RING = packet(6, KEY) + packet(13, b"name") + signature(0x13, KEY, 13, b"name")


class FakeSource:
    """Serves manifests and blobs from memory and counts what was asked."""

    kept = 0

    def __init__(self, manifests: Mapping[str | None, tuple[bytes, str]], blobs: Sequence[bytes], name: str) -> None:
        self.manifests = manifests
        self.blobs = {digest_of(blob): blob for blob in blobs}
        self.asked: list[str] = []
        self.closed = 0
        self.found: Sequence[Any] = ()
        self.identity: ImageIdentity = docker_identity(Transport.DOCKER, parse_docker_reference(name))

    def manifest(self, digest: Digest | None) -> RawManifest:
        self.asked.append(f"manifest {digest or 'top'}")
        key = str(digest) if digest else None
        if key not in self.manifests:
            raise NotFoundError("no such manifest")
        return RawManifest(*self.manifests[key])

    def signatures(self, digest: Digest, instance: Digest | None) -> Sequence[Any]:
        self.asked.append(f"signatures {digest}")
        return self.found

    def signature_locations(self) -> Sequence[str]:
        return ("lookaside file:///sigstore",)

    def referrer_source(self) -> None:
        return None

    def stored_layers(self, layers: Sequence[Descriptor]) -> Sequence[Descriptor]:
        return layers

    def open_blob(self, descriptor: Descriptor, access: BlobAccess) -> BlobReader:
        self.asked.append(f"blob {descriptor.digest}")
        return BytesReader(self.blobs[descriptor.digest])

    def close(self) -> None:
        self.closed += 1


class FakeOpener:
    def __init__(self, source: FakeSource) -> None:
        self.source = source

    def open(self, reference: ImageReference) -> FakeSource:
        return self.source

    def close(self) -> None:
        self.source.asked.append("closed")


class Decisions:
    def __init__(self) -> None:
        self.made: list[Decision] = []
        self.digests: list[tuple[object, object]] = []

    def __call__(self, decision: Decision, **circumstances: object) -> None:
        self.made.append(decision)
        self.digests.append((circumstances["digest"], circumstances["index_digest"]))


def index(*instances: tuple[bytes, str], media_type: str = mediatype.OCI_INDEX) -> bytes:
    """An index over manifests for the given architectures."""
    entries = [
        {
            "mediaType": mediatype.OCI_MANIFEST,
            "digest": str(digest_of(data)),
            "size": len(data),
            "platform": {"architecture": architecture, "os": "linux"},
        }
        for data, architecture in instances
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}).encode()


class ImageCase(unittest.TestCase):
    def setUp(self) -> None:
        self.audit = Decisions()

    def opener(self, source: FakeSource, policy: bytes = ACCEPT, **options: object) -> ImageOpener:
        if "policy_options" in options:
            options["policy"] = options.pop("policy_options")
        settings = Settings(platform=PlatformOptions(architecture="amd64"), **options)  # type: ignore[arg-type]

        def read_file(path: str) -> bytes:
            raise CipError(f"{path}: no such file")

        def load() -> Policy:
            return parse_policy(policy, "/etc/containers/policy.json")

        tools = TrustTools(read_file, lambda ring, message: self.fail("gpgv was run"), lambda: 1.0)
        return ImageOpener(
            settings,
            FakeOpener(source),  # type: ignore[arg-type]
            tools,
            load,
            events=NO_EVENTS,
            audit=self.audit,
        )

    def open(self, source: FakeSource, policy: bytes = ACCEPT, **options: object) -> Image:
        return self.opener(source, policy, **options).open(f"docker://{NAME}")

    def plain(self, manifest: bytes = images.MANIFEST_M, media_type: str = mediatype.OCI_MANIFEST) -> FakeSource:
        return FakeSource({None: (manifest, media_type)}, [images.LAYER_T, images.CONFIG_C], NAME)

    def read(self, image: Image, digest: Digest) -> bytes:
        data = bytearray()
        reader = image.open_blob(digest, BlobAccess.VERIFIED)
        copy_verified(reader, data.extend, image.describe_blob(digest), release=Release.AS_READ)
        reader.close()
        return bytes(data)


class Opening(ImageCase):
    def test_an_accepted_manifest_is_fetched_once_and_served_as_it_is(self) -> None:
        source = self.plain()
        image = self.open(source)
        self.assertEqual((image.manifest, image.accepted.digest), (images.MANIFEST_M, images.DIGEST_M))
        self.assertIsNone(image.accepted.index_digest)
        self.assertEqual(source.asked, ["manifest top"])
        self.assertEqual(self.read(image, images.DIGEST_T), images.LAYER_T)

    def test_a_rejected_image_is_refused_and_closed(self) -> None:
        source = self.plain()
        with self.assertRaises(PolicyRejectedError) as caught:
            self.open(source, REJECT)
        self.assertEqual(caught.exception.reason, "deny")
        self.assertEqual((source.closed, source.asked), (1, ["manifest top"]))
        self.assertIs(self.audit.made[0].accepted, False)

    @needs_rooms("openpgp")
    def test_signatures_are_fetched_only_for_a_requirement_that_needs_them(self) -> None:
        source = self.plain()
        with self.assertRaises(PolicyRejectedError) as caught:
            self.open(source, SIGNED)
        self.assertEqual(caught.exception.reason, "nosig")
        self.assertEqual(source.asked, ["manifest top", f"signatures {images.DIGEST_M}"])
        self.assertEqual(self.audit.made[0].looked_for, ("lookaside file:///sigstore",))

    def test_a_rejected_image_that_does_not_parse_is_refused_for_the_policy(self) -> None:
        source = self.plain(b'{"schemaVersion":2,"layers":[],"manifests":[]}')
        with self.assertRaises(PolicyRejectedError):
            self.open(source, REJECT)
        with self.assertRaises(InvalidDocumentError):
            self.open(source)

    def test_require_signed_refuses_what_nothing_verified(self) -> None:
        with self.assertRaises(PolicyRejectedError) as caught:
            self.open(self.plain(), policy_options=PolicyOptions(require_signed=True))
        self.assertEqual(caught.exception.reason, "noverify")

    def test_a_digest_in_the_reference_must_be_that_of_the_bytes(self) -> None:
        source = FakeSource({None: (images.MANIFEST_M, "")}, [], f"example.com/a@{images.DIGEST_S}")
        with self.assertRaisesRegex(ContentMismatchError, "expected digest"):
            self.opener(source).open(f"docker://example.com/a@{images.DIGEST_S}")
        self.assertEqual(self.audit.made, [])

    def test_a_digest_that_no_manifest_is_compared_by_is_refused(self) -> None:
        digest = "sha512:" + "a" * 128
        source = FakeSource({None: (images.MANIFEST_M, "")}, [], f"example.com/a@{digest}")
        with self.assertRaises(InvalidDigestError) as caught:
            self.opener(source).open(f"docker://example.com/a@{digest}")
        self.assertEqual(caught.exception.code, "digest-unsupported")

    def test_contradicting_credentials_are_told_when_it_prepares(self) -> None:
        opener = self.opener(self.plain(), credentials=CredentialOptions(creds="a:b", no_creds=True))
        with self.assertRaises(UsageError):
            opener.prepare()

    def test_judging_signatures_ends_with_the_time_to_open(self) -> None:
        with mock.patch("cip.content.time.monotonic", side_effect=[0.0, 1.0, 181.0]):
            require_time = start_timer(180.0, "--open-timeout")
            require_time()
            with self.assertRaisesRegex(SourceError, "not done within the 180 s of --open-timeout") as caught:
                require_time()
        self.assertEqual(caught.exception.code, "timeout")

    @needs_rooms("openpgp")
    def test_every_signature_is_judged_within_the_time_to_open(self) -> None:
        from cip.model.signature import SimpleSignature

        source = self.plain()
        source.found = [SimpleSignature(b"\xa3", "place")]
        with (
            mock.patch("cip.content.time.monotonic", side_effect=[0.0, 181.0]),
            self.assertRaisesRegex(PolicyRejectedError, "not done within the 180 s") as caught,
        ):
            self.open(source, SIGNED.replace(b'"keyPath":"/missing"', b'"keyData":"%s"' % base64.b64encode(RING)))
        self.assertEqual((caught.exception.code, caught.exception.retryable), ("timeout", True))

    def test_a_failed_preparation_may_be_repeated(self) -> None:
        calls: list[int] = []

        def load() -> Policy:
            calls.append(1)
            if len(calls) == 1:
                raise InvalidDocumentError("policy", "broken")
            return parse_policy(ACCEPT, "p")

        opener = self.opener(self.plain())
        opener._load_policy = load
        with self.assertRaises(InvalidDocumentError):
            opener.open(f"docker://{NAME}")
        opener.open(f"docker://{NAME}")
        opener.open(f"docker://{NAME}")
        self.assertEqual(len(calls), 2)


class Indexes(ImageCase):
    def source(self, *more: tuple[str | None, bytes]) -> FakeSource:
        top = index((images.MANIFEST_M, "amd64"), (images.MANIFEST_S, "arm64"))
        manifests: dict[str | None, tuple[bytes, str]] = {None: (top, mediatype.OCI_INDEX)}
        manifests[str(images.DIGEST_M)] = (images.MANIFEST_M, mediatype.OCI_MANIFEST)
        manifests |= {key: (data, "") for key, data in more}
        return FakeSource(manifests, [images.LAYER_T, images.CONFIG_C], NAME)

    def test_the_instance_for_the_platform_is_served_with_both_digests(self) -> None:
        source = self.source()
        served = self.open(source).accepted
        self.assertEqual(served.digest, images.DIGEST_M)
        self.assertEqual(served.index_digest, digest_of(source.manifests[None][0]))
        self.assertEqual(self.audit.digests, [(images.DIGEST_M, served.index_digest)])

    def test_an_instance_that_is_missing_is_no_absent_image(self) -> None:
        data = images.MANIFEST_M
        source = self.plain()
        source.manifests = {None: (index((data, "amd64")), mediatype.OCI_INDEX)}
        with mock.patch.object(source, "manifest", self.absent_instance(source.manifest)):
            with self.assertRaises(NotFoundError) as caught:
                self.open(source)
        self.assertNotIsInstance(caught.exception, ImageAbsentError)
        self.assertEqual((caught.exception.code, caught.exception.host), ("image-not-found", "example.com"))

    def absent_instance(self, manifest: GetManifest) -> GetManifest:
        def answer(digest: Digest | None) -> RawManifest:
            if digest is not None:
                raise ImageAbsentError("MANIFEST_UNKNOWN", host="example.com")
            return manifest(None)

        return answer

    def test_an_instance_that_is_not_what_the_index_names_is_refused(self) -> None:
        source = self.source((str(images.DIGEST_M), images.MANIFEST_S))
        with self.assertRaisesRegex(ContentMismatchError, "expected digest"):
            self.open(source)
        self.assertEqual(source.closed, 1)

    def test_a_platform_that_is_not_there_lists_what_is(self) -> None:
        source = self.source()
        opener = self.opener(source)
        opener._settings = opener._settings._replace(platform=PlatformOptions(architecture="s390x"))
        with self.assertRaisesRegex(NotFoundError, "amd64"):
            opener.open(f"docker://{NAME}")
        top = digest_of(source.manifests[None][0])
        self.assertEqual(([each.accepted for each in self.audit.made], self.audit.digests), ([True], [(top, top)]))

    def test_indexes_inside_indexes_are_followed_so_far_and_no_further(self) -> None:
        data = images.MANIFEST_M
        manifests: dict[str | None, tuple[bytes, str]] = {str(images.DIGEST_M): (images.MANIFEST_M, "")}
        for depth in range(1, 6):
            inner = mediatype.OCI_INDEX if depth > 1 else mediatype.OCI_MANIFEST
            data = index((data, "amd64")).replace(mediatype.OCI_MANIFEST.encode(), inner.encode())
            source = FakeSource({None: (data, mediatype.OCI_INDEX), **manifests}, [], NAME)
            manifests[str(digest_of(data))] = (data, "")
            with self.subTest(depth=depth):
                if depth <= 4:
                    self.assertEqual(self.open(source).accepted.digest, images.DIGEST_M)
                else:
                    with self.assertRaisesRegex(InvalidDocumentError, "nested deeper than 4"):
                        self.open(source)

    @needs_rooms("openpgp")
    def test_signatures_of_index_and_instance_are_both_looked_for(self) -> None:
        source = self.source()
        with self.assertRaises(PolicyRejectedError):
            self.open(source, SIGNED)
        top = digest_of(source.manifests[None][0])
        self.assertEqual(
            [asked for asked in source.asked if asked.startswith("signatures")],
            [f"signatures {top}", f"signatures {images.DIGEST_M}"],
        )

    def test_a_denied_index_costs_no_further_request(self) -> None:
        source = self.source()
        with self.assertRaises(PolicyRejectedError):
            self.open(source, REJECT)
        self.assertEqual(source.asked, ["manifest top"])
        top = digest_of(source.manifests[None][0])
        self.assertEqual(self.audit.digests, [(top, top)])

    def test_a_decision_about_another_manifest_is_not_acted_on(self) -> None:
        """The opener holds what was accepted against what it would serve."""
        other = Digest("sha256", "0" * 64)
        for source in (self.source(), self.plain()):
            with mock.patch("cip.trust.policy.digest_of", return_value=other):
                with self.assertRaisesRegex(PolicyRejectedError, "the decision is not about this image"):
                    self.open(source)
            self.assertEqual(source.closed, 1)


class Serving(ImageCase):
    @needs_rooms("convert")
    def test_a_docker_manifest_is_converted_and_its_config_is_served(self) -> None:
        source = self.plain(images.MANIFEST_S, mediatype.DOCKER_MANIFEST)
        image = self.open(source)
        self.assertEqual((image.manifest, image.accepted.digest), (images.MANIFEST_M, images.DIGEST_S))
        self.assertEqual(self.read(image, images.DIGEST_C), images.CONFIG_C)
        self.assertEqual(image.layers()[0].media_type, mediatype.DOCKER_LAYER)

    @needs_rooms("convert")
    def test_a_converted_config_is_served_whatever_was_asked_first(self) -> None:
        config = b"{}"
        manifest = images.manifest(config, [images.LAYER_T], media_type=mediatype.DOCKER_MANIFEST)
        first = FakeSource({None: (manifest, mediatype.DOCKER_MANIFEST)}, [config, images.LAYER_T], NAME)
        converted = json.loads(self.open(first).manifest)["config"]
        image = self.open(FakeSource(first.manifests, [config, images.LAYER_T], NAME))
        digest = Digest("sha256", converted["digest"].partition(":")[2])
        self.assertEqual(image.describe_blob(digest).size, converted["size"])
        self.assertEqual(len(self.read(image, digest)), 76)
        self.assertEqual(self.read(image, digest_of(config)), config)

    def test_a_blob_that_the_image_does_not_name_costs_no_request(self) -> None:
        source = self.plain()
        image = self.open(source)
        with self.assertRaises(NotFoundError) as caught:
            image.open_blob(digest_of(b"other"), BlobAccess.VERIFIED)
        self.assertEqual(caught.exception.code, "blob-not-in-image")
        self.assertEqual(source.asked, ["manifest top"])

    def test_configs_of_images_and_artifacts(self) -> None:
        image = self.open(self.plain())
        self.assertEqual(image.config(), images.CONFIG_C)
        artifact = images.MANIFEST_M.replace(mediatype.OCI_CONFIG.encode(), b"application/vnd.wasm.config.v0+json")
        opened = self.open(self.plain(artifact))
        self.assertEqual(opened.manifest, artifact)
        with self.assertRaisesRegex(UnsupportedError, "found an artifact of type 'application/vnd.wasm"):
            opened.config()

    def test_a_config_that_is_not_the_named_one_is_refused(self) -> None:
        source = self.plain()
        source.blobs[images.DIGEST_C] = images.CONFIG_C[:-1] + b" "
        with self.assertRaises(ContentMismatchError) as caught:
            self.open(source).config()
        self.assertEqual(caught.exception.phase, "config")

    def test_encrypted_layers_pass_through_and_a_key_for_them_warns(self) -> None:
        encrypted = images.MANIFEST_M.replace(b'layer.v1.tar"', b'layer.v1.tar+encrypted"')
        with mock.patch("cip.log.warning") as warning:
            self.assertEqual(self.open(self.plain(encrypted)).manifest, encrypted)
            warning.assert_not_called()
            self.open(self.plain(encrypted), decryption_keys=True)
            self.open(self.plain(), decryption_keys=True)
        warning.assert_called_once()

    def test_readers_are_left_alone_when_the_image_closes(self) -> None:
        source = self.plain()
        image = self.open(source)
        reader = image.open_blob(images.DIGEST_T, BlobAccess.VERIFIED)
        image.close()
        self.assertEqual(source.closed, 1)
        self.assertEqual(reader.readinto(memoryview(bytearray(10))), 10)


if __name__ == "__main__":
    unittest.main()

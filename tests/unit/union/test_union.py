# SPDX-License-Identifier: Apache-2.0
"""Local sources before a registry: what is taken from where, and what is told when a local blob is wrong."""

import os
import unittest
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from cip.content import BlobReader, BytesReader, Release, copy_verified, read_limited
from cip.errors import Attempt, CipError, ContentMismatchError, ErrorCode, NetworkError, Phase, SourceError, UsageError
from cip.events import NO_EVENTS, Events
from cip.model import mediatype
from cip.model.descriptor import Descriptor, Digest, digest_of
from cip.model.reference import ImageIdentity, ImageReference, Transport, docker_identity, parse_image_reference
from cip.model.signature import RawSignature, SimpleSignature
from cip.programs import DirectPrograms
from cip.settings import Settings
from cip.sources.archives.spool import Spools
from cip.sources.base import BlobAccess, ImageSource, RawManifest
from cip.sources.files import FileBlob
from cip.temporary import TemporarySpace
from cip.union import open_with_local_sources
from tests.support import images
from tests.support.leaks import LeakCheckedTestCase

LAYER = images.random_bytes(1_000_000, b"union")
CONFIG = images.config([digest_of(LAYER)])
MANIFEST = images.manifest(CONFIG, [LAYER])
SIGNATURE = SimpleSignature(b"x", "registry")


class RegistryReader(BytesReader):
    """Knows where its bytes come from."""

    def blame(self, error: ContentMismatchError) -> ContentMismatchError:
        blamed = error.served_by("host.x")
        blamed.host = "host.x"
        blamed.attempts = (Attempt("host.x", 0.0, Phase.BLOB, ErrorCode.CONTENT_MISMATCH),)
        return blamed


class PlayedRegistry(ImageSource):
    """A registry source that has everything and remembers what it was asked for."""

    def __init__(self, reference: ImageReference) -> None:
        assert reference.docker is not None
        self.identity: ImageIdentity = docker_identity(Transport.DOCKER, reference.docker)
        self.asked: list[Digest] = []
        self.closed = False
        self.blobs = {digest_of(blob): blob for blob in (LAYER, CONFIG)}

    def manifest(self, digest: Digest | None) -> RawManifest:
        return RawManifest(MANIFEST, mediatype.OCI_MANIFEST)

    def signatures(self, digest: Digest, instance: Digest | None) -> Sequence[RawSignature]:
        return (SIGNATURE,)

    def signature_locations(self) -> Sequence[str]:
        return ("lookaside https://example.com/sigstore",)

    def open_blob(self, descriptor: Descriptor, access: BlobAccess) -> BlobReader:
        self.asked.append(descriptor.digest)
        return RegistryReader(self.blobs[descriptor.digest])

    def close(self) -> None:
        self.closed = True


class RecordedEvents:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def emit(self, event: str, **members: object) -> None:
        self.events.append((event, members))


class UnionTestCase(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.layout = images.Layout(self.directory / "layout")
        self.layout.add_image(CONFIG, [LAYER], MANIFEST, name="1")
        self.warnings: list[str] = []
        self.events = RecordedEvents()
        self.registry: PlayedRegistry | None = None
        patch = mock.patch("cip.log.warning", lambda text, *arguments: self.warnings.append(text % arguments))
        patch.start()
        self.addCleanup(patch.stop)

    def open(self, *local: str, image: str = "docker://host.x/a:1", offline: bool = False):  # type: ignore[no-untyped-def]
        settings = Settings(local_sources=local or (f"oci:{self.layout.path}",), offline=offline)
        source = open_with_local_sources(
            parse_image_reference(image),
            settings,
            self.open_registry,
            Events(self.events.emit, NO_EVENTS.follow),
            Spools(TemporarySpace(str(self.directory), 1 << 30), DirectPrograms()),
        )
        self.addCleanup(source.close)
        return source

    def open_registry(self, reference: ImageReference) -> PlayedRegistry:
        self.registry = PlayedRegistry(reference)
        return self.registry

    def asked(self) -> list[Digest]:
        assert self.registry is not None
        return self.registry.asked

    def read(self, reader: BlobReader, content: bytes = LAYER) -> bytes:
        data = bytearray()
        try:
            copy_verified(reader, data.extend, images.describe(content), release=Release.AFTER_VERIFICATION)
        finally:
            reader.close()
        return bytes(data)

    def damage(self, content: bytes = LAYER) -> Path:
        path = self.layout.blob_path(digest_of(content))
        path.write_bytes(content[:-1] + b"?")
        return path


class Online(UnionTestCase):
    def test_blobs_are_local_and_everything_else_is_the_registry_s(self) -> None:
        source = self.open()
        self.assertEqual(source.manifest(None).data, MANIFEST)
        self.assertEqual(source.signatures(digest_of(MANIFEST), None), (SIGNATURE,))
        self.assertEqual((source.identity.transport, source.identity.identity), (Transport.DOCKER, "host.x/a:1"))
        for content in (LAYER, CONFIG):
            for access in BlobAccess:
                self.assertEqual(self.read(source.open_blob(images.describe(content), access), content), content)
        self.assertEqual(self.asked(), [])
        source.close()
        assert self.registry is not None
        self.assertTrue(self.registry.closed)

    def test_every_kind_of_local_place_serves(self) -> None:
        archive = self.directory / "image.tar"
        archive.write_bytes(images.oci_archive(self.layout))
        directory = images.directory(self.directory / "dir", b"any manifest", [LAYER])
        for place in (f"oci:{self.layout.path}:any-name", f"oci-archive:{archive}", f"dir:{directory}"):
            with self.subTest(place):
                reader = self.open(place).open_blob(images.describe(LAYER), BlobAccess.VERIFIED)
                self.assertEqual(self.read(reader), LAYER)
                self.assertEqual(self.asked(), [])

    def test_blobs_that_are_not_there_come_from_the_registry(self) -> None:
        self.layout.blob_path(digest_of(LAYER)).unlink()
        source = self.open()
        self.assertEqual(self.read(source.open_blob(images.describe(LAYER), BlobAccess.VERIFIED)), LAYER)
        self.assertEqual((self.asked(), self.warnings, self.events.events), ([digest_of(LAYER)], [], []))

    def test_a_blob_that_no_local_place_began_is_opened_as_the_registry_opens_its_own(self) -> None:
        """Which keeps its parts (`--partial-dir`); what goes on for a place that failed has none to keep."""
        rests: list[int] = []

        class Continuable(PlayedRegistry):
            def open_rest(self, descriptor: Descriptor, access: BlobAccess, offset: int) -> BlobReader:
                rests.append(offset)
                return RegistryReader(self.blobs[descriptor.digest][offset:])

        self.layout.blob_path(digest_of(LAYER)).unlink()
        with mock.patch(f"{__name__}.PlayedRegistry", Continuable):
            source = self.open()
        self.assertEqual(self.read(source.open_blob(images.describe(LAYER), BlobAccess.VERIFIED)), LAYER)
        self.assertEqual((self.asked(), rests), ([digest_of(LAYER)], []))
        self.assertEqual(self.read(source.open_rest(images.describe(LAYER), BlobAccess.VERIFIED, 0)), LAYER)
        source.open_rest(images.describe(LAYER), BlobAccess.VERIFIED, 2).close()
        self.assertEqual((self.asked(), rests), ([digest_of(LAYER)] * 2, [2]))

    def test_a_damaged_blob_is_told_and_fetched(self) -> None:
        """Also for raw access: nothing of the damaged blob leaves."""
        self.damage()
        for access in BlobAccess:
            with self.subTest(access):
                self.warnings.clear()
                self.events.events.clear()
                source = self.open()
                self.assertEqual(self.read(source.open_blob(images.describe(LAYER), access)), LAYER)
                self.assertEqual(self.asked(), [digest_of(LAYER)])
                (warning,) = self.warnings
                self.assertRegex(warning, f"oci:.*layout: blob {digest_of(LAYER)}: expected digest")
                ((event, members),) = self.events.events
                self.assertEqual(event, "source")
                self.assertEqual(
                    members,
                    {
                        "image": "docker://host.x/a:1",
                        "digest": str(digest_of(LAYER)),
                        "to": "registry",
                        "offset": 0,
                        "from": f"oci:{self.layout.path}",
                        "reason": ErrorCode.CONTENT_MISMATCH,
                    },
                )

    def test_a_blob_of_another_size_is_damaged(self) -> None:
        self.layout.blob_path(digest_of(LAYER)).write_bytes(LAYER + b"more")
        self.read(self.open().open_blob(images.describe(LAYER), BlobAccess.VERIFIED))
        self.assertEqual(self.asked(), [digest_of(LAYER)])
        self.assertRegex(self.warnings[0], "expected 1000000 bytes")

    def test_the_next_local_place_is_asked_before_the_registry(self) -> None:
        self.damage()
        second = images.directory(self.directory / "dir", b"any", [LAYER])
        source = self.open(f"oci:{self.layout.path}", f"dir:{second}")
        self.assertEqual(self.read(source.open_blob(images.describe(LAYER), BlobAccess.VERIFIED)), LAYER)
        self.assertEqual((self.asked(), len(self.warnings)), ([], 1))

    def test_a_place_that_fails_while_it_is_read_is_left_without_a_gap(self) -> None:
        reader = self.open().open_blob(images.describe(LAYER), BlobAccess.VERIFIED)
        real, reads = FileBlob.readinto, 0

        def failing(blob: FileBlob, buffer: memoryview) -> int:
            nonlocal reads
            reads += 1
            if reads > 2:
                raise SourceError("the stick is gone")
            return real(blob, buffer[:1000])

        with mock.patch.object(FileBlob, "readinto", failing):
            self.assertEqual(self.read(reader), LAYER)
        self.assertEqual(
            (self.asked(), self.events.events[0][1]["reason"]), ([digest_of(LAYER)], ErrorCode.SOURCE_UNAVAILABLE)
        )

    def test_a_blob_that_changes_behind_our_back_is_begun_again(self) -> None:
        small = b"small"
        path = self.layout.blob_path(self.layout.add_blob(small))
        reader = self.open().open_blob(images.describe(small), BlobAccess.VERIFIED)
        path.write_bytes(b"SMALL")
        assert self.registry is not None
        self.registry.blobs[digest_of(small)] = small
        self.assertEqual(self.read(reader, small), small)

    def test_a_registry_is_not_accused_of_what_a_local_place_began(self) -> None:
        """The file changes behind our back, delivers its beginning and fails."""
        real, content = FileBlob.readinto, b"content" * 1000  # so little that nothing leaves before it is verified
        self.layout.add_blob(content)
        for release in Release:
            with self.subTest(release):
                reader = self.open().open_blob(images.describe(content), BlobAccess.VERIFIED)
                assert self.registry is not None
                self.registry.blobs[digest_of(content)] = content
                reads = 0

                def failing(blob: FileBlob, buffer: memoryview) -> int:
                    nonlocal reads
                    reads += 1
                    if reads > 1:
                        raise SourceError("the stick is gone")
                    count = real(blob, buffer[:1000])
                    buffer[0] ^= 1
                    return count

                data = bytearray()
                with mock.patch.object(FileBlob, "readinto", failing):
                    if release is Release.AS_READ:
                        both = r"\(served by host\.x\) \(served by oci:.*layout: blob"
                        with self.assertRaisesRegex(ContentMismatchError, both) as caught:
                            copy_verified(reader, data.extend, images.describe(content), release=release)
                        self.assertIsNone(caught.exception.host)
                        self.assertEqual([each.place for each in caught.exception.attempts], ["host.x"])
                    else:
                        copy_verified(reader, data.extend, images.describe(content), release=release)
                        self.assertEqual(data, content)
                reader.close()

    def test_a_registry_that_lies_after_a_local_place_failed_is_accused(self) -> None:
        path = self.layout.blob_path(self.layout.add_blob(b"small"))
        reader = self.open().open_blob(images.describe(b"small"), BlobAccess.VERIFIED)
        path.write_bytes(b"SMALL")
        assert self.registry is not None
        self.registry.blobs[digest_of(b"small")] = b"sMALL"
        with self.assertRaises(ContentMismatchError) as caught:
            self.read(reader, b"small")
        self.assertNotIn("layout", str(caught.exception))
        self.assertEqual(caught.exception.host, "host.x")

    def test_a_registry_that_goes_on_for_a_local_place_and_fails_is_not_opened_again(self) -> None:
        for error in (SourceError("the network is gone"), ContentMismatchError("another size is announced")):
            with self.subTest(type(error).__name__):
                reader = self.open().open_blob(images.describe(LAYER), BlobAccess.VERIFIED)
                reader.readinto(memoryview(bytearray(1000)))
                with mock.patch.object(FileBlob, "readinto", side_effect=SourceError("the stick is gone")):
                    reader.readinto(memoryview(bytearray(1000)))
                events = len(self.events.events)
                with mock.patch.object(RegistryReader, "readinto", side_effect=error, create=True):
                    with self.assertRaises(type(error)):
                        copy_verified(reader, lambda part: None, images.describe(LAYER), release=Release.AS_READ)
                reader.close()
                self.assertEqual((self.asked(), len(self.events.events)), ([digest_of(LAYER)], events))

    def test_one_that_is_closed_while_it_turns_to_the_registry_leaves_nothing_open(self) -> None:
        reader = self.open().open_blob(images.describe(LAYER), BlobAccess.VERIFIED)
        closed: list[str] = []
        assert self.registry is not None

        class Closing(RegistryReader):
            def close(self) -> None:
                closed.append("registry")

        def open_and_close(descriptor: Descriptor, access: BlobAccess) -> BlobReader:
            reader.close()
            return Closing(LAYER)

        with (
            mock.patch.object(self.registry, "open_blob", open_and_close),
            mock.patch.object(FileBlob, "readinto", side_effect=SourceError("the stick is gone")),
        ):
            reader.readinto(memoryview(bytearray(1000)))
        self.assertEqual(closed, ["registry"])

    def test_a_closed_blob_does_not_go_to_the_registry(self) -> None:
        reader = self.open().open_blob(images.describe(LAYER), BlobAccess.VERIFIED)
        reader.close()
        with self.assertRaisesRegex(SourceError, "closed while it was read"):
            reader.readinto(memoryview(bytearray(1)))
        self.assertEqual(self.asked(), [])

    def test_a_raw_transfer_never_continues_elsewhere(self) -> None:
        reader = self.open().open_blob(images.describe(LAYER), BlobAccess.RAW)
        os.truncate(self.layout.blob_path(digest_of(LAYER)), 10)
        with self.assertRaises(ContentMismatchError):
            self.read(reader)
        self.assertEqual(self.asked(), [])

    def test_a_place_that_is_not_there_stops_nothing(self) -> None:
        source = self.open("oci:/no/such/stick", f"oci-archive:{self.directory}/missing", f"oci:{self.layout.path}")
        self.assertEqual(len(self.warnings), 2)
        self.assertRegex(self.warnings[0], "--local-source: .*oci:/no/such/stick.*no such file")
        self.read(source.open_blob(images.describe(LAYER), BlobAccess.VERIFIED))
        self.assertEqual(self.asked(), [])

    def test_only_places_that_keep_blobs_by_digest_can_be_local_sources(self) -> None:
        for text in ("docker://a", "docker-archive:x", "containers-storage:x", "tarball:x", "docker-daemon:x:1"):
            with self.subTest(text), self.assertRaisesRegex(UsageError, "expected one of oci, oci-archive, dir, found"):
                self.open(text)
        with self.assertRaisesRegex(CipError, "unknown transport"):
            self.open("x:y")

    def test_a_registry_that_cannot_be_opened_leaves_nothing_open(self) -> None:
        def blocked(reference: ImageReference) -> PlayedRegistry:
            raise CipError("blocked", code=ErrorCode.REGISTRY_BLOCKED)

        with mock.patch.object(self, "open_registry", blocked), self.assertRaisesRegex(CipError, "blocked"):
            self.open()


class Offline(UnionTestCase):
    def offline(self, *local: str, image: str = "docker://host.x/a:1"):  # type: ignore[no-untyped-def]
        return self.open(*local, image=image, offline=True)

    def test_everything_comes_from_the_local_source(self) -> None:
        for place in (f"oci:{self.layout.path}", f"oci:{self.layout.path}:1", f"oci:{self.layout.path}:@0"):
            source = self.offline(place)
            self.assertEqual(source.manifest(None).data, MANIFEST)
            self.assertEqual(source.signatures(digest_of(MANIFEST), None), ())
            self.assertEqual(source.identity.identity, "host.x/a:1")
            self.assertEqual(self.read(source.open_blob(images.describe(LAYER), BlobAccess.VERIFIED)), LAYER)
            self.assertIsNone(self.registry)

    def test_the_local_name_must_be_the_tag(self) -> None:
        images.directory(self.directory / "dir", MANIFEST, [])
        for place, image in (
            (f"oci:{self.layout.path}", "docker://host.x/a:2"),
            (f"oci:{self.layout.path}:1", "docker://host.x/a"),
            (f"oci:{self.layout.path}:other", "docker://host.x/a:1"),
            (f"oci:{self.layout.path}:@0", "docker://host.x/a:2"),
            (f"dir:{self.directory}/dir", "docker://host.x/a:1"),
        ):
            with self.subTest(place, image=image):
                with self.assertRaisesRegex(NetworkError, "no image named .* in the local .*--offline") as caught:
                    self.offline(place, image=image).manifest(None)
                self.assertIs(caught.exception.code, ErrorCode.OFFLINE)

    def test_a_digest_finds_a_manifest_anywhere(self) -> None:
        images.directory(self.directory / "dir", images.MANIFEST_M, [])
        instance = self.directory / "dir" / f"{digest_of(MANIFEST).encoded}.manifest.json"
        image = f"docker://host.x/a@{digest_of(MANIFEST)}"
        self.assertEqual(self.offline(image=image).manifest(None).data, MANIFEST)
        with self.assertRaisesRegex(NetworkError, f"no manifest {digest_of(MANIFEST)} in the local"):
            self.offline(f"dir:{self.directory}/dir", image=image).manifest(None)
        instance.write_bytes(MANIFEST)
        (self.directory / "dir" / "signature-1").write_bytes(b"\x88top")
        (self.directory / "dir" / f"{digest_of(MANIFEST).encoded}.signature-1").write_bytes(b"\x88instance")
        source = self.offline(f"dir:{self.directory}/dir", image=image)
        self.assertEqual(source.manifest(None).data, MANIFEST)
        (signature,) = source.signatures(digest_of(MANIFEST), None)
        self.assertEqual(signature.message, b"\x88instance")
        top = self.offline(f"dir:{self.directory}/dir", image=f"docker://host.x/a@{images.DIGEST_M}")
        self.assertEqual(top.manifest(None).data, images.MANIFEST_M)
        (signature,) = top.signatures(images.DIGEST_M, None)
        self.assertEqual(signature.message, b"\x88top")

    def test_instances_are_found_in_every_place(self) -> None:
        other = images.Layout(self.directory / "other")
        other.add_blob(images.MANIFEST_M)
        source = self.offline(f"oci:{self.layout.path}", f"oci:{other.path}")
        source.manifest(None)
        self.assertEqual(source.manifest(images.DIGEST_M).data, images.MANIFEST_M)

    def test_damage_is_told_and_the_next_place_asked(self) -> None:
        second = images.Layout(self.directory / "second")
        second.add_image(CONFIG, [LAYER], MANIFEST, name="1")
        self.damage(MANIFEST)
        image = f"docker://host.x/a@{digest_of(MANIFEST)}"
        for name in ("docker://host.x/a:1", image):
            source = self.offline(f"oci:{self.layout.path}", f"oci:{second.path}", image=name)
            self.assertEqual(source.manifest(None).data, MANIFEST)
        self.assertEqual(len(self.warnings), 2)
        with self.assertRaisesRegex(ContentMismatchError, "expected digest"):
            self.offline(image=image).manifest(None)

    def test_a_damaged_or_missing_blob_is_an_error(self) -> None:
        source = self.offline()
        with self.assertRaisesRegex(NetworkError, "no blob sha256.* in the local sources") as caught:
            source.open_blob(images.describe(b"other"), BlobAccess.VERIFIED)
        self.assertEqual(
            (caught.exception.code, caught.exception.digest), (ErrorCode.OFFLINE, str(digest_of(b"other")))
        )
        self.damage()
        with self.assertRaisesRegex(ContentMismatchError, "expected digest"):
            source.open_blob(images.describe(LAYER), BlobAccess.VERIFIED)
        self.assertIsNone(self.events.events[0][1]["to"])

    def test_no_place_at_all_is_told(self) -> None:
        with self.assertRaisesRegex(NetworkError, r"local sources \(none could be opened\)"):
            self.offline("oci:/no/such/stick").manifest(None)

    def test_blobs_outlive_the_source(self) -> None:
        source = self.offline()
        reader = source.open_blob(images.describe(LAYER), BlobAccess.VERIFIED)
        source.close()
        self.assertEqual(read_limited(reader, 1 << 20, "blob"), LAYER)
        reader.close()


if __name__ == "__main__":
    unittest.main()

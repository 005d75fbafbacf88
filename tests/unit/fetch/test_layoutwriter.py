# SPDX-License-Identifier: Apache-2.0
"""The writer of layouts: what is trusted of what is there, and what becomes visible when."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import resource
import threading
from collections.abc import Callable
from functools import partial
from unittest import mock

from cip import log
from cip.content import MANIFEST_LIMIT, BlobReader, BytesReader
from cip.errors import CipError, ContentMismatchError, ErrorCode, InvalidDocumentError, SourceError, refused
from cip.fetch import layoutwriter
from cip.fetch.layoutwriter import LAYOUT, LayoutWriter
from cip.model.descriptor import Descriptor, Digest, digest_of
from cip.model.manifest import ENTRY_LIMIT
from cip.model.reference import Transport, parse_image_reference, path_identity
from cip.partial.part import BLOCK
from cip.settings import PlatformOptions
from cip.sources.keptsignatures import read_layout_signatures
from cip.sources.layout import LayoutFiles, LayoutSource
from cip.sources.layoutreferrers import LayoutReferrers
from tests.support import images
from tests.support.leaks import LeakCheckedTestCase

CONTENT = images.random_bytes(2 * BLOCK + 5, b"writer")
DESCRIPTOR = Descriptor("", digest_of(CONTENT), len(CONTENT))
NAME = "org.opencontainers.image.ref.name"
IMAGE = parse_image_reference("oci:/x")
INDEX_READERS: tuple[Callable[[LayoutFiles], object], ...] = (
    lambda files: LayoutSource(IMAGE, path_identity(Transport.OCI, "/x"), files, PlatformOptions()),
    lambda files: read_layout_signatures(files, DESCRIPTOR.digest, "x"),
    lambda files: LayoutReferrers("x", files.read_index, files.open_blob).referrers(DESCRIPTOR.digest),
)


class WriterCase(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.directory / "layout"
        self.warnings: list[str] = []
        patch = mock.patch.object(log, "warning", lambda text, *arguments: self.warnings.append(text % arguments))
        patch.start()
        self.addCleanup(patch.stop)
        self.enterContext(mock.patch.object(layoutwriter, "_POLL", 0.01))
        self.offsets: list[int] = []

    def writer(self, stall: float = 0.3) -> LayoutWriter:
        made = LayoutWriter(str(self.path), stall)
        self.addCleanup(made.close)
        return made

    def open_rest(self, offset: int) -> BlobReader:
        self.offsets.append(offset)
        return BytesReader(CONTENT[offset:])

    def copy(self, writer: LayoutWriter, descriptor: Descriptor = DESCRIPTOR) -> bool:
        return writer.copy(descriptor, self.open_rest, lambda reader: reader, lambda count, kept: None)

    def entries(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads((self.path / "index.json").read_bytes())["manifests"]
        return found

    def blob(self, digest: Digest = DESCRIPTOR.digest) -> bytes:
        return (self.path / "blobs" / digest.algorithm / digest.encoded).read_bytes()


class Blobs(WriterCase):
    def test_a_blob_is_there_once_it_is_right_and_kept_from_then_on(self) -> None:
        writer = self.writer()
        self.assertTrue(self.copy(writer))
        self.assertFalse(self.copy(writer))
        self.assertEqual((self.blob(), self.offsets), (CONTENT, [0]))
        self.assertEqual(os.stat(self.path / "blobs" / "sha256" / DESCRIPTOR.digest.encoded).st_mode & 0o777, 0o644)

    def test_other_algorithms_have_a_directory_of_their_own(self) -> None:
        digest = Digest("sha512", __import__("hashlib").sha512(CONTENT).hexdigest())
        self.assertTrue(self.copy(self.writer(), Descriptor("", digest, len(CONTENT))))
        self.assertEqual(self.blob(digest), CONTENT)

    def test_wrong_bytes_leave_nothing(self) -> None:
        with self.assertRaises(ContentMismatchError):
            self.writer().write(b"other", DESCRIPTOR.digest)
        self.assertEqual(list((self.path / "blobs" / "sha256").iterdir()), [])

    def test_what_is_damaged_or_no_file_is_not_kept(self) -> None:
        self.copy(self.writer())
        path = self.path / "blobs" / "sha256" / DESCRIPTOR.digest.encoded
        for damage in (CONTENT[:-1], CONTENT[:-1] + b"?", CONTENT + b"x", b""):
            path.write_bytes(damage)
            self.assertTrue(self.copy(self.writer()))
            self.assertEqual(self.blob(), CONTENT)
        self.assertEqual(len(self.warnings), 4)
        link, pipe = partial(path.symlink_to, "/etc/passwd"), partial(os.mkfifo, path)
        for make in (link, path.mkdir, pipe):
            path.rmdir() if path.is_dir() else path.unlink()
            make()
            with self.assertRaisesRegex(SourceError, "not a regular file"):
                self.copy(self.writer())

    def test_what_is_right_stays_whatever_another_image_says_of_its_size(self) -> None:
        self.copy(self.writer())
        for size in (len(CONTENT) - 1, len(CONTENT) + 1):
            why = f"expected {size} bytes, the blob of this digest has {len(CONTENT)}"
            with self.assertRaisesRegex(ContentMismatchError, why):
                self.writer().has(DESCRIPTOR._replace(size=size))
        self.assertEqual((self.blob(), self.warnings), (CONTENT, []))

    def test_what_a_killed_run_left_is_never_written_to(self) -> None:
        victim = self.directory / "victim"
        victim.write_bytes(b"untouched")
        self.writer()
        os.link(victim, self.path / ".index.json.new")
        self.writer().add_entries([{"digest": "x"}])
        self.assertEqual(victim.read_bytes(), b"untouched")

    def test_an_empty_blob(self) -> None:
        self.writer().write(b"", digest_of(b""))
        self.assertEqual(self.blob(digest_of(b"")), b"")

    def test_a_part_that_another_has_is_waited_for_while_it_grows(self) -> None:
        first, second = self.writer(), self.writer(stall=5)
        part = first.begin(DESCRIPTOR)
        assert part is not None
        found: list[bool] = []
        thread = threading.Thread(target=lambda: found.append(self.copy(second)))
        thread.start()
        part.append(memoryview(CONTENT))
        part.publish(f"blobs/sha256/{DESCRIPTOR.digest.encoded}", first._root)
        part.close()
        thread.join()
        self.assertEqual((found, self.offsets), ([False], []))

    def test_a_part_that_only_changes_or_grows_by_drops_is_not_waited_for_for_ever(self) -> None:
        part = self.writer().begin(DESCRIPTOR)
        assert part is not None
        sizes = (itertools.cycle((0, 1)), itertools.count(0, 1), itertools.count(0, 1000))
        for found, longest in zip(sizes, (0.0, 0.0, 0.3), strict=True):
            waiting = LayoutWriter(str(self.path), 0.3 if not longest else 60, growth=100, longest=longest)
            self.addCleanup(waiting.close)
            with mock.patch.object(waiting, "_part_size", side_effect=lambda _, found=found: next(found)):
                with self.subTest(longest), self.assertRaisesRegex(SourceError, "in use or not ours"):
                    waiting.begin(DESCRIPTOR)
        part.close()

    def test_a_part_that_does_not_grow_is_not_waited_for_for_ever(self) -> None:
        part = self.writer().begin(DESCRIPTOR)
        assert part is not None
        with self.assertRaisesRegex(SourceError, "in use or not ours, and does not grow"):
            self.copy(self.writer(stall=0.05))
        part.close()

    def test_faults_of_the_disk_are_told_by_their_codes(self) -> None:
        for number, code in (
            (errno.ENOSPC, ErrorCode.STORAGE_FULL),
            (errno.EDQUOT, ErrorCode.STORAGE_FULL),
            (errno.EFBIG, ErrorCode.STORAGE_FULL),
            (errno.EIO, ErrorCode.SOURCE_UNAVAILABLE),
        ):
            with self.subTest(number), self.assertRaisesRegex(SourceError, "^x: what it says$") as raised:
                with refused("x"):
                    raise OSError(number, "What it says")
            self.assertIs(raised.exception.code, code)
        writer = self.writer()
        with mock.patch.object(os, "pwrite", side_effect=OSError(errno.ENOSPC, "No space left on device")):
            with self.assertRaises(CipError) as caught:
                self.copy(writer)
        self.assertIs(caught.exception.code, ErrorCode.STORAGE_FULL)


class Index(WriterCase):
    def entry(self, name: str | None, data: bytes = b"x") -> dict[str, object]:
        found: dict[str, object] = {"mediaType": "m", "digest": str(digest_of(data)), "size": len(data)}
        return found if name is None else {**found, "annotations": {NAME: name}}

    def test_names_are_replaced_and_the_rest_stays(self) -> None:
        writer = self.writer()
        writer.add_entries([self.entry("a"), self.entry("b"), self.entry(None)])
        writer.add_entries([self.entry("a", b"y"), self.entry(None)])
        self.assertEqual(
            self.entries(), [self.entry("b"), self.entry("a", b"y"), self.entry(None)], "none twice without a name"
        )

    def test_members_that_others_wrote_stay(self) -> None:
        self.path.mkdir()
        (self.path / "oci-layout").write_bytes(LAYOUT)
        foreign = {"digest": "sha256:1", "size": 1, "annotations": None, "platform": {"os": "linux"}}
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [foreign], "x": [1]}))
        self.writer().add_entries([self.entry("a")])
        index = json.loads((self.path / "index.json").read_bytes())
        self.assertEqual((index["x"], index["manifests"]), ([1], [foreign, self.entry("a")]))

    def test_an_index_that_is_none_is_refused_and_untouched(self) -> None:
        for text in ("", "[]", '{"manifests": 1}', '{"manifests": [], "manifests": []}', "{"):
            with self.subTest(text):
                writer = self.writer()
                (self.path / "index.json").write_text(text)
                with self.assertRaises(InvalidDocumentError):
                    writer.add_entries([self.entry("a")])
                self.assertEqual((self.path / "index.json").read_text(), text)

    def test_what_its_readers_would_refuse_is_not_written(self) -> None:
        room = json.dumps({"manifests": [], "x": "y" * (MANIFEST_LIMIT - 40)})
        self.assertLess(len(room), MANIFEST_LIMIT)
        folded = ('{"manifests": [], "Manifests": []}', '{"manifests": [{"Digest": "x"}]}', '{"manifests": ["x"]}')
        for text in folded:
            files = mock.Mock(**{"read_index.return_value": text.encode()})
            for number, read in enumerate(INDEX_READERS):
                with (
                    self.subTest(text, number=number),
                    self.assertRaisesRegex(CipError, "ambiguous|expected an object"),
                ):
                    read(files)
        for text in (*folded, room):
            with self.subTest(text[:40]):
                writer = self.writer()
                (self.path / "index.json").write_text(text)
                with self.assertRaisesRegex(InvalidDocumentError, "ambiguous|expected an object|larger than"):
                    writer.add_entries([self.entry("a")])
                self.assertEqual((self.path / "index.json").read_text(), text)

    def test_what_is_replaced_may_have_been_wrong_and_the_list_absent(self) -> None:
        wrong = {**self.entry("a"), "Digest": "x"}
        for text in (json.dumps({"manifests": [wrong]}), '{"manifests": null}'):
            with self.subTest(text):
                writer = self.writer()
                (self.path / "index.json").write_text(text)
                writer.add_entries([self.entry("a")])
                self.assertEqual(self.entries(), [self.entry("a")])

    def test_too_many_entries_are_refused(self) -> None:
        writer = self.writer()
        with self.assertRaises(InvalidDocumentError) as caught:
            writer.add_entries([self.entry(str(number)) for number in range(ENTRY_LIMIT + 1)])
        self.assertIs(caught.exception.code, ErrorCode.LIMIT_EXCEEDED)
        self.assertFalse((self.path / "index.json").exists())

    def test_an_index_that_has_no_room_costs_nothing_that_is_there(self) -> None:
        """The kernel writes what it has room for and says so the next time only."""
        writer = self.writer()
        writer.add_entries([self.entry(str(number)) for number in range(100)])
        before, limits = self.entries(), resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            with self.assertRaisesRegex(SourceError, "file too large") as caught:
                writer.add_entries([self.entry("new")])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        self.assertIs(caught.exception.code, ErrorCode.STORAGE_FULL)
        self.assertEqual(self.entries(), before)
        self.assertEqual(sorted(os.listdir(self.path)), ["index.json", "oci-layout"])

    def test_one_process_at_a_time_changes_it_and_none_waits_for_ever(self) -> None:
        writer = self.writer(stall=0.05)
        other = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(other, fcntl.LOCK_EX)
            with self.assertRaisesRegex(
                SourceError,
                r"index\.json: expected to be alone with the layout within 0.05 s, found it locked; run it again",
            ):
                writer.add_entries([self.entry("a")])
        finally:
            os.close(other)
        writer.add_entries([self.entry("a")])
        self.assertEqual(self.entries(), [self.entry("a")])

    def test_a_layout_of_another_version_or_something_else_is_refused(self) -> None:
        self.path.mkdir()
        (self.path / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
        with self.assertRaisesRegex(InvalidDocumentError, "expected imageLayoutVersion 1, found '2.0.0'"):
            self.writer()
        (self.path / "oci-layout").write_text("nonsense")
        with self.assertRaises(InvalidDocumentError):
            self.writer()
        (self.path / "oci-layout").unlink()
        (self.path / "other").mkdir()
        with self.assertRaisesRegex(SourceError, "expected an OCI layout or an empty directory"):
            self.writer()
        with self.assertRaisesRegex(SourceError, "no such file"):
            LayoutWriter(str(self.directory / "a" / "b"), 1)

    def test_what_a_kill_left_of_the_first_steps_is_no_obstacle(self) -> None:
        self.path.mkdir()
        (self.path / "blobs").mkdir()
        (self.path / ".oci-layout.new").write_text('{"image')
        (self.path / ".index.json.new").write_text("{")
        with self.assertRaises(SourceError):
            self.writer()  # without `oci-layout` an index of ours cannot have been begun
        (self.path / ".index.json.new").unlink()
        self.writer().add_entries([self.entry("a")])
        (self.path / ".index.json.new").write_text("{")
        self.writer().add_entries([self.entry("a")])
        self.assertEqual(self.entries(), [self.entry("a")])

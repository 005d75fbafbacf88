# SPDX-License-Identifier: Apache-2.0
"""An image and its opener without a source, for tests of the front ends: what it gives, and when, is up to the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple, NoReturn, cast

from cip.content import BlobAccess, BlobReader, BytesReader
from cip.errors import ContentMismatchError, ErrorCode, NotFoundError
from cip.image import Image
from cip.model import mediatype
from cip.model.descriptor import Descriptor, Digest, digest_of
from tests.support.images import (
    BIG_SIZE,
    CONFIG_C,
    DIGEST_C,
    DIGEST_M,
    DIGEST_T,
    LAYER_T,
    MANIFEST_M,
    describe,
    random_bytes,
)
from tests.support.parent import PATIENCE
from tests.support.referrers import listed, listing

BIG = random_bytes(BIG_SIZE, b"BIG")
DIGEST_BIG = digest_of(BIG)
BAD = bytes([BIG[0] ^ 1]) + BIG[1:]
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
OpenBlob = Callable[[], BlobReader]


def no_file() -> NoReturn:
    """Stands for what makes a temporary file, where no blob is of unknown size."""
    raise AssertionError("a temporary file is made")


class Manifest(NamedTuple):
    """What the front ends need of `image.AcceptedManifest`."""

    data: bytes
    digest: Digest
    index_digest: Digest | None = None


class ServedReferrer(NamedTuple):
    """What `referrers.ServedReferrer` is."""

    data: bytes
    media_type: str
    verified: str


class Stalled(BytesReader):
    """Gives the first `early` bytes, and the rest when `go_on` is set."""

    def __init__(self, data: bytes, go_on: threading.Event, early: int = 1000) -> None:
        super().__init__(data)
        self._go_on = go_on
        self._early = early

    def readinto(self, buffer: memoryview, /) -> int:
        if self._early:
            count = super().readinto(buffer[: self._early])
            self._early -= count
            return count
        assert self._go_on.wait(PATIENCE)
        return super().readinto(buffer)


class Failing(BytesReader):
    """Promises BIG_SIZE bytes, gives its data and then an error."""

    def __init__(self, data: bytes, error: Exception) -> None:
        super().__init__(data)
        self.size = BIG_SIZE
        self._error = error

    def readinto(self, buffer: memoryview, /) -> int:
        if not (count := super().readinto(buffer)):
            raise self._error
        return count


class Content:
    """M with further blobs."""

    def __init__(self) -> None:
        self.manifest = Manifest(MANIFEST_M, DIGEST_M)
        self.descriptors = {DIGEST_T: describe(LAYER_T, LAYER_TYPE), DIGEST_C: describe(CONFIG_C)}
        self.blobs: dict[Digest, OpenBlob] = {
            DIGEST_T: lambda: BytesReader(LAYER_T),
            DIGEST_C: lambda: BytesReader(CONFIG_C),
        }
        self.layers: tuple[Descriptor, ...] = (describe(LAYER_T, LAYER_TYPE),)
        self.referrers: dict[Digest, tuple[bytes, str]] = {}  # listed manifests with their artifact types
        self.config_gate: threading.Event | None = None
        self.description_gate: threading.Event | None = None
        self.accesses: list[BlobAccess] = []

    def add(self, data: bytes, open_blob: OpenBlob, size: int | None = None) -> Digest:
        found = describe(data)
        self.descriptors[found.digest] = found if size is None else found._replace(size=size)
        self.blobs[found.digest] = open_blob
        return found.digest


class FakeReferrers:
    """Listed manifests with their artifact types."""

    def __init__(self, found: Mapping[Digest, tuple[bytes, str]]) -> None:
        self.found = found

    def index(self, artifact_type: str | None = None) -> tuple[bytes, int]:
        entries = [listed(data, kind) for data, kind in self.found.values() if artifact_type in (None, kind)]
        return listing(entries), len(entries)

    def manifest(self, digest: Digest) -> ServedReferrer:
        if digest not in self.found:
            raise NotFoundError(f"{digest} is not listed", code=ErrorCode.BLOB_NOT_IN_IMAGE)
        return ServedReferrer(self.found[digest][0], mediatype.OCI_MANIFEST, "no")


class FakeImage:
    """`content`, opened once."""

    reference = "fake:"
    kept = 0

    def __init__(self, content: Content) -> None:
        self._content = content
        self.readers = 0
        self.closed = 0

    @property
    def accepted(self) -> Manifest:
        return self._content.manifest

    @property
    def manifest(self) -> bytes:
        return self._content.manifest.data

    fetchable_manifest = manifest

    def config(self) -> bytes:
        assert self._content.config_gate is None or self._content.config_gate.wait(PATIENCE)
        return CONFIG_C

    def layers(self) -> tuple[Descriptor, ...]:
        return self._content.layers

    def describe_blob(self, digest: Digest) -> Descriptor:
        assert self._content.description_gate is None or self._content.description_gate.wait(PATIENCE)
        if digest not in self._content.descriptors:
            raise NotFoundError(f"the image names no blob {digest}", code=ErrorCode.BLOB_NOT_IN_IMAGE)
        return self._content.descriptors[digest]

    def referrers(self) -> FakeReferrers:
        return FakeReferrers(self._content.referrers)

    def open_blob(self, digest: Digest, access: BlobAccess) -> BlobReader:
        assert not self.closed, "the image was closed under a transfer"
        self._content.accesses.append(access)
        return _Counted(self, self._content.blobs[digest]())

    def close(self) -> None:
        assert not self.readers, "the image was closed under a reader"
        self.closed += 1


class _Counted:
    def __init__(self, image: FakeImage, reader: BlobReader) -> None:
        self._image = image
        self._reader = reader
        self._open = [True]  # popped once, whichever thread closes first
        image.readers += 1

    @property
    def size(self) -> int:
        return self._reader.size

    def readinto(self, buffer: memoryview, /) -> int:
        return self._reader.readinto(buffer)

    def restart(self, error: ContentMismatchError) -> bool:
        return self._reader.restart(error)

    def blame(self, error: ContentMismatchError) -> ContentMismatchError:
        return self._reader.blame(error)

    def close(self) -> None:
        try:
            self._open.pop()
        except IndexError:
            return
        self._reader.close()
        self._image.readers -= 1


class FakeOpener:
    """Opens what `contents` has by name; `errors` come first."""

    def __init__(self) -> None:
        self.contents: dict[str, Content] = {}
        self.opened: list[FakeImage] = []
        self.errors: dict[str, Exception] = {}
        self.gates: dict[str, threading.Event] = {}
        self.prepare_errors: list[Exception] = []

    def prepare(self) -> None:
        if self.prepare_errors:
            raise self.prepare_errors.pop(0)

    def open(self, text: str) -> Image:
        if text in self.gates:
            assert self.gates[text].wait(PATIENCE)
        if text in self.errors:
            raise self.errors[text]
        self.opened.append(FakeImage(self.contents[text]))
        return cast(Image, self.opened[-1])

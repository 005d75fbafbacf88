# SPDX-License-Identifier: Apache-2.0
"""The image source protocol: where one image's bytes come from. Nothing a source returns has been checked yet."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ..content import CHUNK, BlobReader, undo_on_error
from ..content import BlobAccess as BlobAccess
from ..errors import SourceError
from ..model.descriptor import Descriptor, Digest
from ..model.reference import ImageIdentity

if TYPE_CHECKING:
    from ..model.signature import RawSignature
    from .referring import ReferrerSource


class RawManifest:
    """A manifest or index as received. `media_type` is what the source announced; empty: it must be guessed."""

    def __init__(self, data: bytes, media_type: str) -> None:
        self.data, self.media_type = data, media_type


class ImageSource(Protocol):
    """One opened image at its place. Blobs may be opened from several threads at once; `close` comes last.

    Every method raises NotFoundError (`image-not-found`, `blob-not-found`) or SourceError. What is written here is what
    a source does that has no signatures, lists nothing, and serves the layers that its manifest names.
    """

    identity: ImageIdentity  # the names under which a policy may speak about this image
    kept: int = 0  # bytes of memory that documents and indexes take for as long as it is open, about

    def manifest(self, digest: Digest | None) -> RawManifest:
        """The top manifest (None; fetched once and kept), or the instance `digest`; at most MANIFEST_LIMIT bytes."""
        ...

    def signatures(self, digest: Digest, instance: Digest | None) -> "Sequence[RawSignature]":
        """Signatures of the manifest `digest`; `instance` is its name inside the index, None for the top manifest.

        Raises SignatureError (reason `fetch`) when the list cannot be had whole.
        """
        return ()

    def signature_locations(self) -> Sequence[str]:
        """Where `signatures` looks, for people and the audit; empty when this place can have none."""
        return ()

    def referrer_source(self) -> "ReferrerSource | None":
        """What refers to the image; None where this kind of place can have nothing of the sort."""
        return None

    def stored_layers(self, layers: Sequence[Descriptor]) -> Sequence[Descriptor]:
        """The layers as this place can serve them: `layers`, those of the manifest, but in a local storage."""
        return layers

    def open_blob(self, descriptor: Descriptor, access: BlobAccess) -> BlobReader:
        """The blob, open for reading; the caller closes it."""
        ...

    def open_rest(self, descriptor: Descriptor, access: BlobAccess, offset: int) -> BlobReader:
        """The blob from the byte `offset` on; where it can only be begun at its first one, what lies before is read.

        No part of it is kept. Raises as `open_blob`, and SourceError for a blob that ends before.
        """
        reader = self.open_blob(descriptor, access)
        with undo_on_error(reader.close):
            read_over(reader, offset, f"blob {descriptor.digest}")
        return reader

    def close(self) -> None:
        """Release what the source holds. Readers opened before stay usable."""
        ...


def read_over(reader: BlobReader, count: int, what: str) -> None:
    """Read `count` bytes and forget them. Raises SourceError when there are fewer."""
    with memoryview(bytearray(min(count, CHUNK))) as buffer:
        while count:
            read = reader.readinto(buffer[: min(count, len(buffer))])
            if not read:
                raise SourceError(f"{what}: ended {count} bytes before what is wanted of it")
            count -= read

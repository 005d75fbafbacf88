# SPDX-License-Identifier: Apache-2.0
"""What refers to an image, as the place of the image lists it. Nothing of it has been checked yet."""

from collections.abc import Sequence
from typing import Protocol

from ..content import BlobAccess, BlobReader
from ..model.descriptor import Descriptor, Digest
from ..model.referrers import Referrer


class ReferrerList(Protocol):
    """What refers to one manifest, as one place lists it. Its methods raise NotFoundError, SourceError."""

    @property
    def entries(self) -> Sequence[Referrer]:
        """In the order of the list; a digest may occur twice."""
        ...

    @property
    def place(self) -> str:
        """The repository or the layout, for people."""
        ...

    @property
    def found_by(self) -> str:
        """How the list was found, such as `by API`."""
        ...

    def manifest(self, descriptor: Descriptor) -> bytes:
        """A listed manifest, at most MANIFEST_LIMIT bytes, not checked."""
        ...

    def document(self, descriptor: Descriptor, limit: int, what: str) -> bytes:
        """A blob of at most `limit` bytes, verified, within the time to open an image."""
        ...

    def open_blob(self, descriptor: Descriptor, access: BlobAccess) -> BlobReader:
        """A blob, open for reading; the caller closes it."""
        ...


class ReferrerSource(Protocol):
    """Where what refers to one image is listed. Raises SourceError, InvalidDocumentError, ConfigurationError."""

    def bundles(self, digest: Digest, *, attached: bool) -> ReferrerList | None:
        """The list to look for signatures of `digest` in, None where none are looked for (bundles.md 1.1).

        `attached`: the image has sigstore signatures of another form.
        """
        ...

    def bundle_locations(self) -> Sequence[str]:
        """Where `bundles` has looked, for people and the audit."""
        ...

    def referrers(self, digest: Digest) -> ReferrerList:
        """All that is listed for the manifest `digest`; an empty list where there is none."""
        ...

# SPDX-License-Identifier: Apache-2.0
"""`dir:`, a manifest, its blobs and its signatures as plain files (images.md 3.5)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import rooms
from ..content import undo_on_error
from ..errors import ErrorCode, InvalidDocumentError, Phase, failing, quote, refused
from ..model.descriptor import Descriptor, Digest
from ..model.reference import ImageIdentity, ImageReference, Transport, path_identity
from .base import BlobAccess, ImageSource, RawManifest
from .files import FileBlob, Tree, read_document, resolve_path, whole_file

if TYPE_CHECKING:
    from ..model.signature import RawSignature

VERSION_LIMIT = 1024  # bytes of the version file
_VERSION = re.compile(rb"Directory Transport Version: ([0-9]{1,9})\.([0-9]{1,9})\n")
_NEWEST = (1, 2)


class DirectorySource(ImageSource):
    """The image in one directory; owns `tree`. `text` is the reference for messages."""

    def __init__(self, text: str, identity: ImageIdentity, tree: Tree) -> None:
        """Check the version file. Raises InvalidDocumentError, SourceError."""
        self._text = text
        self.identity = identity
        self._tree = tree
        self._top: RawManifest | None = None
        self._require_known_version()

    def manifest(self, digest: Digest | None) -> RawManifest:
        """`manifest.json`, or the file of the instance `digest`; the type must be guessed."""
        if digest is not None:
            return self._read_manifest(f"{_file_name(digest)}.manifest.json", ErrorCode.BLOB_NOT_FOUND)
        if self._top is None:
            # A directory without it is no image that could be missing (wire.md 4.4).
            self._top = self._read_manifest("manifest.json", None)
            self.kept = len(self._top.data)
        return self._top

    def signatures(self, digest: Digest, instance: Digest | None) -> Sequence[RawSignature]:
        """The files `signature-N`, for an instance `HEX.signature-N`, from 1 until one is missing."""
        prefix = f"{_file_name(instance)}." if instance is not None else ""
        return rooms.read_directory_signatures(self._tree, prefix, self._text)

    def signature_locations(self) -> Sequence[str]:
        """The directory."""
        return (self._text,)

    def open_blob(self, descriptor: Descriptor, access: BlobAccess) -> FileBlob:
        """The file that is named by the digest."""
        digest = descriptor.digest
        what = f"{self._text}: blob {digest}"
        with failing(digest=digest), refused(what, ErrorCode.BLOB_NOT_FOUND):
            return whole_file(self._tree.open_file(_file_name(digest).encode()), what)

    def close(self) -> None:
        """Release the directory."""
        self._tree.close()

    def _read_manifest(self, name: str, missing: ErrorCode | None) -> RawManifest:
        what = f"{self._text}: {name}"
        with failing(Phase.MANIFEST), refused(what, missing):
            return RawManifest(read_document(self._tree.open_file(name.encode()), what), "")

    def _require_known_version(self) -> None:
        what = f"{self._text}: version"
        with refused(what):
            try:
                descriptor = self._tree.open_file(b"version")
            except FileNotFoundError:
                return  # directories from before there was a version have none
        text = read_document(descriptor, what, VERSION_LIMIT)
        match = _VERSION.fullmatch(text)
        if match is None:
            why = f"expected 'Directory Transport Version: MAJOR.MINOR', found {quote(text.decode('latin-1'))}"
            raise InvalidDocumentError(what, why)
        if (int(match[1]), int(match[2])) > _NEWEST:
            newest = ".".join(map(str, _NEWEST))
            raise InvalidDocumentError(what, f"expected at most {newest}, found {int(match[1])}.{int(match[2])}")


def open_directory(reference: ImageReference) -> DirectorySource:
    """The image in the directory that `reference` names.

    Raises InvalidReferenceError, InvalidDocumentError, SourceError.
    """
    resolved = resolve_path(reference)
    with failing(Phase.MANIFEST), refused(reference.text):
        tree = Tree.at(resolved)
    with undo_on_error(tree.close):
        return DirectorySource(reference.text, path_identity(Transport.DIR, resolved), tree)


def _file_name(digest: Digest) -> str:
    """Files are named by the hex digits; only other algorithms than sha256 stand in front of them."""
    return digest.encoded if digest.algorithm == "sha256" else f"{digest.algorithm}-{digest.encoded}"

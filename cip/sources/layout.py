# SPDX-License-Identifier: Apache-2.0
"""`oci:`, an OCI image layout in a directory (images.md 3.3)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

from .. import rooms
from ..content import MANIFEST_LIMIT, read_blob, read_limited, undo_on_error
from ..errors import (
    ErrorCode,
    ImageAbsentError,
    InvalidReferenceError,
    NotFoundError,
    Phase,
    UnsupportedError,
    failing,
    quote,
    refused,
)
from ..hostconfig.machine import host_platforms
from ..model import mediatype
from ..model.descriptor import REF_NAME, Descriptor, Digest, read_descriptor
from ..model.jsontree import JsonNode, parse_json
from ..model.manifest import ENTRY_LIMIT, Index, bounded, read_entry
from ..model.platform import choose_instance, is_attestation
from ..model.reference import ImageIdentity, ImageReference, Transport, path_identity
from ..settings import PlatformOptions, Settings
from .base import BlobAccess, ImageSource, RawManifest
from .files import FileBlob, Tree, read_document, resolve_path, whole_file

if TYPE_CHECKING:
    from .referring import ReferrerSource

INDEX_NAME = "index.json"
_ENTRY_KEYS = ("mediaType", "digest", "size", "annotations")
_NAMES_SHOWN = 10
_NAMEABLE = mediatype.MANIFESTS | mediatype.INDEXES  # entries of other types are not found by name


class LayoutFiles(Protocol):
    """The files of a layout, in a directory or in an archive. `open_*` raise NotFoundError, SourceError."""

    def read_index(self) -> bytes:
        """`index.json`, at most MANIFEST_LIMIT bytes."""
        ...

    def open_blob(self, digest: Digest) -> FileBlob:
        """The blob `digest`, for the caller to close."""
        ...

    def close(self) -> None:
        """Release the place; open blobs stay usable."""
        ...


class LayoutSource(ImageSource):
    """One image of a layout, which has no place for signatures but as referrers."""

    def __init__(
        self, reference: ImageReference, identity: ImageIdentity, files: LayoutFiles, platform: PlatformOptions
    ) -> None:
        """Read the index and choose the image in it; takes `files` over once it returns.

        Raises ImageAbsentError only when no entry has the name, NotFoundError for an empty layout and for one without
        an image of `platform`; InvalidReferenceError, InvalidDocumentError, UnsupportedError, SourceError.
        """
        self._text = reference.text
        self.identity = identity
        self._files = files
        self._top: RawManifest | None = None
        self._referrers: ReferrerSource | None = None
        where = f"{reference.text}: {INDEX_NAME}"
        entries = entries_of(listed := files.read_index(), where)
        chosen = _choose(reference, entries, where, platform)
        self._descriptor = read_descriptor(chosen)
        self.kept = 4 * len(listed) + self._descriptor.size  # about so much memory is taken by what was read of a text
        self._entries = entries
        self.name = name_of(chosen)  # in the index

    def manifest(self, digest: Digest | None) -> RawManifest:
        """The chosen manifest, of the size and digest that the index says, or the instance `digest`."""
        if digest is not None:
            with failing(Phase.MANIFEST), closing(self._files.open_blob(digest)) as blob:
                data = read_limited(blob, MANIFEST_LIMIT, f"{self._text}: manifest {digest}")
            return RawManifest(data, self._listed_type(digest))
        if self._top is None:
            listed = self._descriptor
            with failing(Phase.MANIFEST), closing(self._files.open_blob(listed.digest)) as blob:
                data = read_blob(blob, listed, MANIFEST_LIMIT, f"{self._text}: manifest {listed.digest}")
            self._top = RawManifest(data, listed.media_type)
        return self._top

    def referrer_source(self) -> ReferrerSource | None:
        """What refers to the image, as far as `index.json` lists it."""
        if self._referrers is None:
            self._referrers = rooms.LayoutReferrers(self._text, self._files.read_index, self._files.open_blob)
        return self._referrers

    def open_blob(self, descriptor: Descriptor, access: BlobAccess) -> FileBlob:
        """The blob as it lies there."""
        return self._files.open_blob(descriptor.digest)

    def close(self) -> None:
        """Release the place."""
        self._files.close()

    def _listed_type(self, digest: Digest) -> str:
        """The type that `index.json` gives to an instance that is listed there, too; else it must be guessed."""
        for entry in self._entries:
            if entry.value.get("digest") == str(digest):
                return entry.text("mediaType")
        return ""


def open_layout(reference: ImageReference, settings: Settings) -> LayoutSource:
    """The image that `reference` names in a directory; blobs come from `--shared-blob-dir` alone when it is given.

    Raises InvalidReferenceError, NotFoundError, InvalidDocumentError, UnsupportedError, SourceError.
    """
    resolved = resolve_path(reference)
    files = LayoutDirectory(reference.text, resolved, settings.shared_blob_dir)
    with undo_on_error(files.close):
        return LayoutSource(reference, path_identity(Transport.OCI, resolved), files, settings.platform)


class LayoutDirectory:
    """The files of a layout in a directory, and of the directory that it shares blobs with."""

    def __init__(self, text: str, path: str, shared: str | None) -> None:
        """Open the directories; `text` names the layout in messages. Raises SourceError."""
        self._text = text
        self._shared: Tree | None = None
        with failing(Phase.MANIFEST), refused(text):
            self._tree = Tree.at(path)
        if shared is not None:
            with refused(f"--shared-blob-dir {quote(shared)}"), undo_on_error(self._tree.close):
                self._shared = Tree.at(os.path.realpath(shared))

    def read_index(self) -> bytes:
        """As LayoutFiles has it."""
        what = f"{self._text}: {INDEX_NAME}"
        with refused(what):
            return read_document(self._tree.open_file(INDEX_NAME.encode()), what)

    def open_blob(self, digest: Digest) -> FileBlob:
        """As LayoutFiles has it."""
        what = f"{self._text}: blob {digest}"
        name = f"{digest.algorithm}/{digest.encoded}".encode()
        with failing(digest=digest), refused(what, ErrorCode.BLOB_NOT_FOUND):
            shared = self._shared
            descriptor = shared.open_file(name) if shared is not None else self._tree.open_file(b"blobs/" + name)
            return whole_file(descriptor, what)

    def close(self) -> None:
        """Release the directories."""
        self._tree.close()
        if self._shared is not None:
            self._shared.close()


def _choose(reference: ImageReference, entries: Sequence[JsonNode], where: str, platform: PlatformOptions) -> JsonNode:
    """The entry that the reference names (images.md 3.3, rows "no NAME", "NAME" and "@N").

    Entries that differ by their platform alone are one image, as they would be in an index of their own (skopeo#2463).
    """
    if reference.index is not None:
        if reference.index >= len(entries):
            sentence = f"expected an index below {len(entries)}, found {reference.index}"
            raise InvalidReferenceError(reference.text, sentence)
        return entries[reference.index]
    if not reference.name:
        if len(entries) == 1:
            return entries[0]
        if not entries:
            raise NotFoundError(f"{where}: manifests: expected an image, found none", phase=Phase.MANIFEST)
        if len(set(map(name_of, _images(entries)))) == 1:
            chosen = _of_platform(entries, where, platform)
            if chosen is not None:
                return chosen
        sentence = f"choose one of {len(entries)} images by :NAME or :@INDEX{_names(entries)}"
        raise InvalidReferenceError(reference.text, sentence)
    named = [entry for entry in entries if name_of(entry) == reference.name]
    usable = [entry for entry in named if entry.text("mediaType") in _NAMEABLE]
    if usable:
        return _of_platform(usable, where, platform) or usable[0]
    if named:
        shown = ", ".join(quote(entry.text("mediaType")) for entry in named[:_NAMES_SHOWN])
        message = f"{where}: {quote(reference.name)} names no image, but something of type {shown}"
        raise UnsupportedError(message, code=ErrorCode.MEDIA_TYPE_UNSUPPORTED)
    why = f"no image is named {quote(reference.name)}{_names(entries)}"
    raise ImageAbsentError(f"{where}: {why}", phase=Phase.MANIFEST)


def _images(entries: Sequence[JsonNode]) -> list[JsonNode]:
    """What is no attestation beside an image."""
    return [entry for entry in entries if not is_attestation(read_entry(entry))]


def _of_platform(entries: Sequence[JsonNode], where: str, platform: PlatformOptions) -> JsonNode | None:
    """The image among `entries`, which all have a platform; None where that is not how they differ.

    Raises NotFoundError (platform-not-found).
    """
    images = _images(entries)
    if len(images) == 1:
        return images[0]
    index = Index(mediatype.OCI_INDEX, tuple(map(read_entry, images)))
    if not images or any(entry.platform is None for entry in index.entries):
        return None
    try:
        chosen = choose_instance(index, host_platforms(platform))
    except NotFoundError as error:
        raise NotFoundError(f"{where}: {error}", code=error.code, phase=Phase.MANIFEST) from error
    return images[index.entries.index(chosen)]


def entries_of(data: bytes, where: str) -> tuple[JsonNode, ...]:
    """The entries of the index `data`, which no two readers take differently. Raises InvalidDocumentError."""
    root = parse_json(data, where)
    root.require_exact_case(("manifests",))
    listed = root["manifests"]
    entries = () if listed.is_null() else bounded(listed, ENTRY_LIMIT)
    for entry in entries:
        entry.require_exact_case(_ENTRY_KEYS)
    return entries


def name_of(entry: JsonNode) -> str | None:
    """The name of an entry of the index, None when it has none."""
    annotations = entry.get("annotations")
    name = annotations.get(REF_NAME) if annotations is not None else None
    return name.as_str() if name is not None else None


def _names(entries: Sequence[JsonNode]) -> str:
    """The first names there are, for a message."""
    names = [name for name in map(name_of, entries) if name]
    more = ", …" if len(names) > _NAMES_SHOWN else ""
    return f"; the names are {', '.join(quote(name) for name in names[:_NAMES_SHOWN])}{more}" if names else ""

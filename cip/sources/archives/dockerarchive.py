# SPDX-License-Identifier: Apache-2.0
"""`docker-archive:`, what `docker save` writes: its description becomes a manifest (images.md 3.6).

The layers in it are named by their diff ids, the digests of the plain tar, and are served as that plain tar. The
manifest announces them as what they are, although the reference implementation calls them gzip (decisions.md 1).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack, closing
from typing import NamedTuple

from ... import rooms
from ...content import MANIFEST_LIMIT, BytesReader, OnePlace, Reader, timed, undo_on_error
from ...errors import ErrorCode, InvalidDocumentError, InvalidReferenceError, NotFoundError, SourceError, quote
from ...model import mediatype
from ...model.descriptor import Descriptor, Digest, digest_of, parse_digest
from ...model.jsontree import JsonNode, parse_json
from ...model.reference import (
    DockerReference,
    ImageIdentity,
    ImageReference,
    Transport,
    nameless_identity,
    parse_docker_reference,
)
from ..base import BlobAccess, ImageSource, RawManifest
from ..files import FileBlob, resolve_path, whole_file
from .archive import Archive, open_archive
from .compression import MAGIC_LENGTH, Compression, DecompressingReader, detect_compression, read_through, streams
from .spool import SpooledFile, Spools
from .tarindex import clean_name

DESCRIPTION_NAME = b"manifest.json"
DESCRIPTION_LIMIT = 1024 * 1024  # bytes (images.md section 11)
ITEM_LIMIT = 10_000  # images in one archive, and layers of one image
_KEYS = ("Config", "RepoTags", "Layers")
_NAMES_SHOWN = 10


class Choice(NamedTuple):
    """Which image of an archive is wanted: by tag, by position, or the only one there is."""

    tag: DockerReference | None = None
    position: int | None = None


class _Layer(NamedTuple):
    """A layer of the archive; `size` is that of the plain tar, `compression` how the member holds it."""

    member: bytes
    size: int
    compression: Compression | None


class DockerArchiveSource(ImageSource):
    """One image of a `docker save` archive, which has no place for signatures."""

    def __init__(self, text: str, identity: ImageIdentity, archive: Archive, choice: Choice, spools: Spools) -> None:
        """Read the description and the config, and measure compressed layers; takes `archive` over once it returns.

        Raises InvalidReferenceError when the choice does not fit, InvalidDocumentError, SourceError.
        """
        self._text = text
        self.identity = identity
        self._archive = archive
        self._spools = spools
        self._spooled: dict[bytes, SpooledFile] = {}
        self._opened = ExitStack()
        with undo_on_error(self._opened.close):
            item = _choose(text, self._read_items(), choice)
            self._config = archive.read_member(_member_name(item["Config"]), MANIFEST_LIMIT)
            diff_ids = self._diff_ids()
            self._layers = self._find_layers(item, diff_ids)
        self._manifest = self._compose(diff_ids)
        self.kept = archive.kept + len(self._config) + len(self._manifest)

    def manifest(self, digest: Digest | None) -> RawManifest:
        """The manifest made of the description; there are no instances."""
        if digest is not None:
            why = f"{self._text}: no manifest {digest}"
            raise NotFoundError(why, code=ErrorCode.BLOB_NOT_FOUND, digest=str(digest))
        return RawManifest(self._manifest, mediatype.DOCKER_MANIFEST)

    def open_blob(self, descriptor: Descriptor, access: BlobAccess) -> BytesReader | FileBlob | UnpackedBlob:
        """The config, or a layer as plain tar."""
        digest = descriptor.digest
        if digest == digest_of(self._config):
            return BytesReader(self._config)
        layer = self._layers.get(digest)
        if layer is None:
            raise NotFoundError(f"{self._text}: no blob {digest}", code=ErrorCode.BLOB_NOT_FOUND, digest=str(digest))
        what = f"{self._text}: layer {digest}"
        spooled = self._spooled.get(layer.member)
        if spooled is not None:
            return whole_file(spooled.duplicate(), what)
        blob = self._archive.open_member(layer.member)
        if layer.compression is None:
            return blob
        return UnpackedBlob(blob, layer, self._spools, (id(self), layer.member), what)

    def close(self) -> None:
        """Release the archive."""
        self._opened.close()
        self._archive.close()

    def _read_items(self) -> Sequence[JsonNode]:
        where = f"{self._text}: {DESCRIPTION_NAME.decode()}"
        data = self._archive.read_member(DESCRIPTION_NAME, DESCRIPTION_LIMIT)
        items = tuple(parse_json(data, where).items())
        if len(items) > ITEM_LIMIT:
            raise InvalidDocumentError(where, f"more than {ITEM_LIMIT} images", code=ErrorCode.LIMIT_EXCEEDED)
        for item in items:
            item.require_exact_case(_KEYS)
        return items

    def _diff_ids(self) -> Sequence[Digest]:
        root = parse_json(self._config, f"{self._text}: config")
        root.require_exact_case(("rootfs",))
        rootfs = root["rootfs"]
        rootfs.require_exact_case(("diff_ids",))
        return tuple(node.parse(parse_digest) for node in rootfs.array("diff_ids"))

    def _find_layers(self, item: JsonNode, diff_ids: Sequence[Digest]) -> dict[Digest, _Layer]:
        """Diff id to layer. One file for two diff ids would be wrong for one of them."""
        members = [_member_name(name) for name in item.array("Layers")]
        if len(members) > ITEM_LIMIT:
            item["Layers"].fail(f"more than {ITEM_LIMIT} layers")
        if len(members) != len(diff_ids):
            item["Layers"].fail(f"expected {len(diff_ids)} layers as in the config, found {len(members)}")
        layers: dict[Digest, _Layer] = {}
        taken: dict[bytes, Digest] = {}
        for member, diff_id in zip(members, diff_ids, strict=True):
            if taken.setdefault(member, diff_id) != diff_id:
                item["Layers"].fail(f"{quote(member.decode('utf-8', 'backslashreplace'))} stands for two diff ids")
            if diff_id not in layers:
                layers[diff_id] = self._measure(member)
        return layers

    def _measure(self, member: bytes) -> _Layer:
        """A layer and the size of its plain tar, which for a compressed one only its end tells."""
        with closing(self._archive.open_member(member)) as blob:
            head = bytearray(MAGIC_LENGTH)
            blob.readinto(memoryview(head))
            compression = detect_compression(head)
        if compression is None:
            return _Layer(member, blob.size, None)
        what = f"{self._text}: layer {member.decode('utf-8', 'backslashreplace')!r}"
        with closing(self._archive.open_member(member)) as blob:
            if streams(compression):
                reader = DecompressingReader(blob, compression, what)
                return _Layer(member, read_through(reader, lambda part: None), compression)
            self._spooled[member] = spooled = self._spools.unpack((id(self), member), blob, compression, what)
            self._opened.callback(spooled.close)
            unpacked = whole_file(spooled.duplicate(), what)
            unpacked.close()
            return _Layer(member, unpacked.size, None)

    def _compose(self, diff_ids: Sequence[Digest]) -> bytes:
        config = Descriptor(mediatype.DOCKER_CONFIG, digest_of(self._config), len(self._config))
        layers = [Descriptor(mediatype.DOCKER_LAYER, digest, self._layers[digest].size) for digest in diff_ids]
        return rooms.compose_manifest(config, layers, mediaType=mediatype.DOCKER_MANIFEST)


class UnpackedBlob(OnePlace):
    """A compressed layer as plain tar; owns `blob`, the member of the archive.

    Decoders of other compressions than gzip may take 100 MiB each. One of them streams; whoever reads beside it waits
    for a turn, until it is closed, and unpacks into a temporary file.
    """

    def __init__(self, blob: FileBlob, layer: _Layer, spools: Spools, key: Hashable, what: str) -> None:
        self.size = layer.size
        self._layer = layer
        self._spools = spools
        self._key = key
        self._what = what
        self._blob = blob
        self._reader: Reader | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._opened = ExitStack()
        self._opened.callback(blob.close)
        self._books = threading.Lock()  # of what is opened

    def readinto(self, buffer: memoryview, /) -> int:
        """The next bytes. Raises SourceError, InvalidDocumentError for damage."""
        with self._lock:
            if self._reader is None:
                self._reader = self._begin()
            return self._reader.readinto(buffer)

    def close(self) -> None:
        """Release what was opened, and end a wait."""
        with self._books:
            self._closed = True
            self._opened.close()

    def _begin(self) -> Reader:
        compression = self._layer.compression
        assert compression is not None  # others are served as they are
        reader = DecompressingReader(self._blob, compression, self._what)
        if compression is Compression.GZIP:
            return reader
        if self._spools.streaming.acquire(blocking=False):
            self._own(self._spools.streaming.release)
            return reader
        with timed(self._require):
            spooled = self._spools.unpack(self._key, self._blob, compression, self._what)
        self._own(spooled.close)
        file = whole_file(spooled.duplicate(), self._what)
        self._own(file.close)
        return file

    def _own(self, release: Callable[[], object]) -> None:
        with self._books:
            if not self._closed:
                self._opened.callback(release)
                return
        release()
        self._require()

    def _require(self) -> float:
        if self._closed:
            raise SourceError(f"{self._what}: closed while it was read", code=ErrorCode.INTERNAL)
        return math.inf


def open_docker_archive(reference: ImageReference, spools: Spools) -> DockerArchiveSource:
    """The image that `reference` names in a `docker save` archive.

    Raises InvalidReferenceError, InvalidDocumentError, SourceError, MissingDependencyError.
    """
    resolved = resolve_path(reference)
    archive = open_archive(resolved, reference.text, spools)
    with undo_on_error(archive.close):
        identity = nameless_identity(Transport.DOCKER_ARCHIVE, reference.docker)
        return DockerArchiveSource(reference.text, identity, archive, Choice(reference.docker, reference.index), spools)


def _choose(text: str, items: Sequence[JsonNode], choice: Choice) -> JsonNode:
    """The item of the description that is wanted (images.md 3.6, row "choice")."""
    if choice.position is not None:
        if choice.position >= len(items):
            raise InvalidReferenceError(text, f"expected an index below {len(items)}, found {choice.position}")
        return items[choice.position]
    if choice.tag is None:
        if not items:
            raise InvalidDocumentError(f"{text}: {DESCRIPTION_NAME.decode()}", "expected an image, found none")
        if len(items) > 1:
            raise InvalidReferenceError(text, f"choose one of {len(items)} images by :TAG or :@INDEX{_names(items)}")
        return items[0]
    for item in items:
        for tag in item.array("RepoTags"):
            if tag.parse(parse_docker_reference) == choice.tag:
                return item
    raise InvalidReferenceError(text, f"no image is tagged {str(choice.tag)!r}{_names(items)}")


def _names(items: Sequence[JsonNode]) -> str:
    """The first tags there are, for a message."""
    names = [tag.as_str() for item in items for tag in item.array("RepoTags")]
    more = ", …" if len(names) > _NAMES_SHOWN else ""
    return f"; the tags are {', '.join(quote(name) for name in names[:_NAMES_SHOWN])}{more}" if names else ""


def _member_name(node: JsonNode) -> bytes:
    """The cleaned name of a member that the description speaks of. One that climbs names nothing."""
    name = clean_name(node.as_str().encode())
    if name is None:
        node.fail(f"expected the name of a member, found {quote(node.value)}")
    return name

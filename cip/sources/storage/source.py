# SPDX-License-Identifier: Apache-2.0
"""`containers-storage:`, images in the local storage of podman, buildah, CRI-O and skopeo (images.md section 4).

The storage keeps layers as files. They are served as the plain tar that they were, under the digest of that tar; the
compressed digests of the manifest cannot be had. What ties those files to a manifest that the policy accepted is the
config with its diff ids: the layers that the store records must be the ones that it names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from ... import log, rooms
from ...content import MANIFEST_LIMIT, BlobReader, BytesReader, read_blob, read_limited
from ...errors import (
    CipError,
    ContentMismatchError,
    ErrorCode,
    ImageAbsentError,
    InvalidDocumentError,
    InvalidReferenceError,
    NotFoundError,
    Phase,
    SignatureError,
    SourceError,
    UnsupportedError,
)
from ...hostconfig.machine import host_platforms
from ...model import mediatype
from ...model.descriptor import UNKNOWN_SIZE, Descriptor, Digest
from ...model.jsontree import parse_json
from ...model.manifest import Index, Manifest, parse_manifest
from ...model.platform import choose_instance
from ...model.reference import DockerReference, ImageIdentity, ImageReference, Transport, parse_docker_reference
from ...settings import PlatformOptions, Settings
from ..base import BlobAccess, ImageSource, RawManifest
from .configuration import StorageConfiguration, StorageName, load_storage, parse_storage_name, split_store
from .store import LayerPlace, Store, StoredImage, StoredLayer, open_store

if TYPE_CHECKING:
    from ...model.signature import RawSignature

LAYER_LIMIT = 1000  # layers below each other; overlay mounts take 500
NAME_LIMIT = 100_000  # names like the one that is asked for, which are held while the right one is looked for
SIGNATURES_LIMIT = 4 * 1024 * 1024  # bytes of all signatures of one manifest
SIGNATURE_COUNT_LIMIT = 127  # signatures of one manifest (decisions.md section 2)
_TOP_MANIFEST = "manifest"
_IMAGE_CONFIGS = frozenset({mediatype.OCI_CONFIG, mediatype.DOCKER_CONFIG})
# The layer without any file, as schema 1 images had it; schema 2 images made from them still name it.
_EMPTY_LAYER = Digest("sha256", "a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4")
_EMPTY_LAYER_CONTENT = bytes.fromhex("1f8b080000096e8800ff621805a360148c5800080000ffff2eafb5ef00040000")


class _Found(NamedTuple):
    """An image, the store it lies in, and the name it was asked for by."""

    image: StoredImage
    store: Store
    named: DockerReference | None


class StorageSource(ImageSource):
    """One image of the local storage; owns `stores`, of which the first is the storage's own."""

    def __init__(self, text: str, found: _Found, stores: Sequence[Store], place: str) -> None:
        """`place` is `[DRIVER@ROOT]` of the storage as policies name it."""
        self._text = text
        self._found = found
        self._stores = tuple(stores)
        self.identity = _identity(found, place)
        self._top: RawManifest | None = None
        self._last = b""  # the manifest that was handed out last: the one that the image is made of
        self._places: dict[Digest, tuple[LayerPlace, int]] = {}

    def manifest(self, digest: Digest | None) -> RawManifest:
        """The manifest kept under the digest of the reference, else the image's own; or the instance `digest`."""
        if digest is not None:
            self._last = self._read_item(f"manifest-{digest}")
            return RawManifest(self._last, "")
        if self._top is None:
            key = _TOP_MANIFEST
            named = self._found.named
            if named is not None and named.digest is not None and f"manifest-{named.digest}" in self._found.image.items:
                key = f"manifest-{named.digest}"
            self._top = RawManifest(self._read_item(key), "")
        self._last = self._top.data
        return self._top

    def signatures(self, digest: Digest, instance: Digest | None) -> Sequence[RawSignature]:
        """The signatures kept with the image, whose lengths its metadata tells (signatures.md 4.2)."""
        sizes = self._signature_sizes(instance)
        if not sizes:
            return ()
        key = f"signature-{instance.encoded}" if instance is not None else "signatures"
        where = f"{self._text}: {key}"
        try:
            data = self._read_item(key, SIGNATURES_LIMIT)
        except CipError as error:
            raise SignatureError(str(error), reason="fetch") from error
        if sum(sizes) != len(data):
            raise _unreadable_signatures(where, f"expected {sum(sizes)} bytes, found {len(data)}")
        found = []
        start = 0
        for number, size in enumerate(sizes, 1):
            found.append(rooms.parse_signature_blob(data[start : start + size], f"{key} {number}"))
            start += size
        return found

    def signature_locations(self) -> Sequence[str]:
        """The store."""
        return (self._text,)

    def stored_layers(self, layers: Sequence[Descriptor]) -> Sequence[Descriptor]:
        """The layers as plain tars, which are what the storage can serve (images.md 4.4).

        Raises SourceError, UnsupportedError, ContentMismatchError when they are not those of the image's config.
        """
        manifest = parse_manifest(self._last, "", f"{self._text}: manifest")
        assert isinstance(manifest, Manifest) and manifest.layers == tuple(layers)  # what the caller just accepted
        docker = manifest.media_type == mediatype.DOCKER_MANIFEST
        media_type = mediatype.DOCKER_LAYER if docker else mediatype.OCI_LAYER
        places = tuple(self._chain())
        if len(places) != len(layers):
            why = f"{self._text}: the manifest has {len(layers)} layers, the storage {len(places)}"
            raise SourceError(why, phase=Phase.MANIFEST)
        found = []
        for place in places:
            digest = place.layer.digest
            if digest is None:
                what = f"{self._text}: layer {place.layer.id}"
                raise UnsupportedError(f"{what}: the storage records no digest of its tar")
            size = self._size(place, digest)
            self._places[digest] = (place, size)
            found.append(Descriptor(media_type, digest, size))
        if docker or manifest.config.media_type in _IMAGE_CONFIGS:
            self._require_diff_ids(manifest.config, found)
        elif [layer.digest for layer in found] != [layer.digest for layer in layers]:
            # Nothing that the policy accepted names these tars: whoever fills the store could serve any.
            why = f"{self._text}: an artifact's layers can be served only under the digests that its manifest names"
            raise UnsupportedError(why)
        return found

    def open_blob(self, descriptor: Descriptor, access: BlobAccess) -> BlobReader:
        """A layer by the digest of its plain tar, rebuilt while it is read; else what is kept under the digest."""
        digest = descriptor.digest
        known = self._places.get(digest)
        if known is not None:
            place, size = known
            return place.open(size, f"{self._text}: layer {digest}")
        if digest == _EMPTY_LAYER:
            return BytesReader(_EMPTY_LAYER_CONTENT)
        try:
            return self._found.store.open_item(self._found.image, str(digest))
        except NotFoundError as error:
            error.digest = str(digest)
            raise

    def close(self) -> None:
        """Release the stores."""
        for store in self._stores:
            store.close()

    def _read_item(self, key: str, limit: int = MANIFEST_LIMIT) -> bytes:
        with closing(self._found.store.open_item(self._found.image, key)) as blob:
            return read_limited(blob, limit, f"{self._text}: {key}")

    def _signature_sizes(self, instance: Digest | None) -> Sequence[int]:
        metadata = self._found.image.metadata
        if not metadata:
            return ()
        root = parse_json(metadata.encode(), f"{self._text}: metadata", error=_unreadable_signatures)
        root.require_exact_case(("signature-sizes", "signatures-sizes"))
        by_instance = root.get("signatures-sizes")
        if instance is None:
            sizes = root.array("signature-sizes")
        else:
            sizes = by_instance.array(str(instance)) if by_instance is not None else ()
        found = [size.as_int(minimum=0) for size in sizes]
        if len(found) > SIGNATURE_COUNT_LIMIT:
            raise _unreadable_signatures(self._text, f"more than {SIGNATURE_COUNT_LIMIT} signatures")
        return found

    def _chain(self) -> Sequence[LayerPlace]:
        """The image's layers, base first, each with those below it."""
        found: list[tuple[StoredLayer, Store]] = []
        layer_id = self._found.image.layer
        while layer_id:
            if len(found) == LAYER_LIMIT:  # also a circle
                why = f"more than {LAYER_LIMIT} layers below each other"
                raise InvalidDocumentError(self._text, why, code=ErrorCode.LIMIT_EXCEEDED)
            found.append(self._find_layer(layer_id))
            layer_id = found[-1][0].parent
        for store in self._stores:
            store.close_lists()
        return [LayerPlace(*pair, tuple(found[number + 1 :])) for number, pair in enumerate(found)][::-1]

    def _find_layer(self, layer_id: str) -> tuple[StoredLayer, Store]:
        """A layer in the image's own store, or in any other: a layer may stand on one of an additional store."""
        for store in (self._found.store, *self._stores):
            layer = store.layer(layer_id)
            if layer is not None:
                return layer, store
        raise SourceError(f"{self._text}: the storage has no layer {layer_id}", phase=Phase.MANIFEST)

    def _size(self, place: LayerPlace, digest: Digest) -> int:
        """The size of a layer's tar, measured where the store did not record it, and unknown where that fails."""
        if place.layer.size is not None:
            return place.layer.size
        try:
            return place.measure(f"{self._text}: layer {digest}")
        except UnsupportedError:
            return UNKNOWN_SIZE  # told when somebody asks for the layer

    def _require_diff_ids(self, config: Descriptor, layers: Sequence[Descriptor]) -> None:
        """Hold the storage's own records against the config, the only thing that the manifest vouches for."""
        where = f"{self._text}: config"
        with closing(self.open_blob(config, BlobAccess.VERIFIED)) as blob:
            data = read_blob(blob, config, MANIFEST_LIMIT, where)
        rootfs = parse_json(data, where).folded(("rootfs",)).get("rootfs")
        diff_ids = rootfs.folded(("diff_ids",)).get("diff_ids") if rootfs is not None else None
        expected = [node.as_str() for node in diff_ids.items()] if diff_ids is not None else []
        recorded = [str(layer.digest) for layer in layers]
        for number, (wanted, found) in enumerate(zip_longest(expected, recorded, fillvalue="none")):
            if wanted != found:
                why = f"{self._text}: layer {number}: expected {wanted} as the config says, the storage records {found}"
                raise ContentMismatchError(why, digest=found)


def open_storage(reference: ImageReference, settings: Settings) -> StorageSource:
    """The image that `reference` names in the local storage.

    Raises InvalidReferenceError, ConfigurationError, UnsupportedError, SourceError, and NotFoundError
    (image-not-found) also when there is no storage at all: it is never made.
    """
    chosen, rest = split_store(reference)
    configured = chosen or load_storage(settings)
    with ExitStack() as opened:
        stores = _open_stores(reference.text, configured, opened)
        name = parse_storage_name(reference, rest, lambda prefix: _find_id(prefix, stores))
        found = _find_image(reference.text, name, stores, settings.platform)
        if found is None:
            places = ", ".join(store.root for store in stores) or f"{configured.root}, which does not exist"
            raise ImageAbsentError(f"{reference.text}: no such image in {places}", phase=Phase.MANIFEST)
        driver = next((store.driver for store in stores), configured.driver)
        for store in stores:
            store.close_lists()
        source = StorageSource(reference.text, found, stores, f"[{driver}@{configured.root}]")
        opened.pop_all()
        return source


def _open_stores(text: str, configured: StorageConfiguration, opened: ExitStack) -> Sequence[Store]:
    """Those of the storage's own store and the additional ones that exist; `opened` closes them."""
    stores: list[Store] = []
    for root in (configured.root, *configured.image_stores):
        run_root = configured.run_root if root == configured.root else ""
        store = open_store(text, root, configured.driver, run_root)
        if store is not None:
            opened.callback(store.close)
            stores.append(store)
    return stores


def _images(stores: Sequence[Store]) -> Iterator[tuple[StoredImage, Store]]:
    return ((image, store) for store in stores for image in store.images())


def _owning_images(text: str, stores: Sequence[Store], repository: str) -> Iterator[tuple[StoredImage, Store]]:
    """All images, of whose names in `repository` only those are left that no later image of the store has.

    The library takes a name away from an image when another one gets it.
    """
    part = repository.rpartition("/")[2]
    for store in stores:
        owners: dict[int, int] = {}  # hashes, because the names may be as long as the list
        for number, image in enumerate(store.images()):
            owners |= dict.fromkeys((hash(name) for name in image.names if part in name), number)
            if len(owners) > NAME_LIMIT:
                why = f"more than {NAME_LIMIT} names in {store.root} hold {part}"
                raise InvalidDocumentError(text, why, code=ErrorCode.LIMIT_EXCEEDED)
        for number, image in enumerate(store.images()):
            names = tuple(name for name in image.names if owners.get(hash(name), number) == number)
            yield image._replace(names=names), store


def _find_id(prefix: str, stores: Sequence[Store]) -> str | None:
    """The one image id that starts with `prefix`."""
    found: set[str] = set()
    for image, _ in _images(stores):
        if image.id.startswith(prefix) and len(found) < 2:
            found.add(image.id)
    return found.pop() if len(found) == 1 else None


def _find_image(text: str, name: StorageName, stores: Sequence[Store], platform: PlatformOptions) -> _Found | None:
    """The image that `name` names (images.md 4.2, steps 4 and 5)."""
    named = name.named
    found: _Found | None = None
    candidate: _Found | None = None
    for image, store in _images(stores) if named is None else _owning_images(text, stores, named.name):
        if name.image_id:
            right = image.id == name.image_id and (named is None or _has_repository(image, named))
        else:
            right = str(named) in image.names
        if right and (found is None or found.store is store):  # of two with one id in a store the last one counts
            found = _Found(image, store, named)
        if candidate is None and not name.image_id and _keeps(image, named):
            candidate = _Found(image, store, named)
    if found is not None or candidate is None or named is None or named.digest is None:
        return found
    instance = _chosen_instance(text, candidate, named.digest, platform)
    if instance is not None and str(instance) not in candidate.image.manifests:
        for image, store in _owning_images(text, stores, named.name):
            if str(instance) in image.manifests and _keeps(image, named):
                return _Found(image, store, named)
    return candidate


def _keeps(image: StoredImage, named: DockerReference | None) -> bool:
    """Whether the image has a manifest with the digest of `named`, and a name in its repository."""
    if named is None or named.digest is None or str(named.digest) not in image.manifests:
        return False
    return _has_repository(image, named)


def _has_repository(image: StoredImage, named: DockerReference) -> bool:
    """Whether one of the image's names is in the same repository."""
    for name in image.names:
        try:
            if parse_docker_reference(name).name == named.name:
                return True
        except InvalidReferenceError:
            continue  # names that are none were stored by somebody else, and cannot be asked for
    return False


def _chosen_instance(text: str, found: _Found, digest: Digest, platform: PlatformOptions) -> Digest | None:
    """What the index `digest`, kept with an image, chooses for this platform; None when it is no index, or nothing."""
    where = f"{text}: manifest-{digest}"
    try:
        with closing(found.store.open_item(found.image, f"manifest-{digest}")) as blob:
            parsed = parse_manifest(read_limited(blob, MANIFEST_LIMIT, where), "", where)
        if isinstance(parsed, Index):
            return choose_instance(parsed, host_platforms(platform)).descriptor.digest
    except CipError as error:
        log.debug("%s: %s", text, error)
    return None


def _identity(found: _Found, place: str) -> ImageIdentity:
    """The names for policies (signatures.md 1.3), with the image that was found."""
    named, image_id = found.named, found.image.id
    driverless = "[" + place.partition("@")[2]
    if named is None:
        return ImageIdentity(Transport.CONTAINERS_STORAGE, f"{place}@{image_id}", (place, driverless))
    scopes = [f"{place}{named}"]
    if named.tag is not None and named.digest is not None:
        scopes.append(f"{place}{named.name}:{named.tag}")
    name = named.name
    while name:
        scopes.append(place + name)
        name = name.rpartition("/")[0]
    scopes += [place, driverless]
    return ImageIdentity(Transport.CONTAINERS_STORAGE, f"{place}{named}@{image_id}", tuple(scopes), named)


def _unreadable_signatures(where: str, why: str) -> SignatureError:
    return SignatureError(f"{where}: {why}", reason="fetch")

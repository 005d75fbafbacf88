# SPDX-License-Identifier: Apache-2.0
"""Manifests and indexes: bytes to values, refusing whatever two readers could understand differently.

The media type decides what the bytes mean (images.md 5). It comes with the bytes, or it is guessed from them by the
rules that other tools guess by; a body that contradicts it, or that carries members of another format, is refused.
"""

from ..errors import ErrorCode, InvalidDocumentError, UnsupportedError, quote
from . import mediatype
from .descriptor import MANIFEST_LIMIT, Descriptor, Platform, read_descriptor
from .jsontree import JsonNode, parse_json

LAYER_LIMIT = 10_000  # layers of a manifest
ENTRY_LIMIT = 10_000  # entries of an index, be it that of a layout (decisions.md section 9)

# The members that tell the formats apart, and the ones each format has (images.md 5.3).
_TELLING = ("config", "fsLayers", "history", "layers", "manifests")
_OWN_MEMBERS = {
    mediatype.OCI_MANIFEST: ("config", "layers"),
    mediatype.DOCKER_MANIFEST: ("config", "layers"),
    mediatype.OCI_INDEX: ("manifests",),
    mediatype.DOCKER_LIST: ("manifests",),
}
_TOP_MEMBERS = frozenset({*_TELLING, "schemaVersion", "mediaType", "artifactType", "subject", "annotations"})
_PLATFORM_MEMBERS = frozenset({"architecture", "os", "os.version", "os.features", "variant", "features"})
_READABLE_TYPES = mediatype.MANIFESTS | mediatype.INDEXES
_KNOWN_TYPES = _READABLE_TYPES | mediatype.SCHEMA1


class Manifest:
    """One image or artifact. `media_type` is OCI_MANIFEST or DOCKER_MANIFEST, `artifact_type` empty when not given."""

    def __init__(self, media_type: str, config: Descriptor, layers: tuple[Descriptor, ...], artifact_type: str) -> None:
        self.media_type, self.config, self.layers, self.artifact_type = media_type, config, layers, artifact_type


class IndexEntry:
    """A manifest inside an index, with the platform it is for; None: the index does not say."""

    def __init__(self, descriptor: Descriptor, platform: Platform | None) -> None:
        self.descriptor, self.platform = descriptor, platform


class Index:
    """Manifests to choose from. `media_type` is OCI_INDEX or DOCKER_LIST."""

    def __init__(self, media_type: str, entries: tuple[IndexEntry, ...]) -> None:
        self.media_type, self.entries = media_type, entries


def parse_manifest(data: bytes, announced: str, where: str) -> Manifest | Index:
    """The manifest or index that `data` is. `announced` is the media type that came with it, empty if none did.

    Raises InvalidDocumentError, with the code limit-exceeded for too much of anything and digest-unsupported for
    content under an algorithm that is not registered, and UnsupportedError (media-type-unsupported) for schema 1
    and for documents that are neither manifest nor index. `where` names the document in messages.
    """
    return read_manifest(parse_manifest_members(data, where), announced)


def parse_manifest_members(data: bytes, where: str) -> JsonNode:
    """What `data` holds, to be read by `read_manifest`, and by who wants more of it. Raises InvalidDocumentError."""
    if len(data) > MANIFEST_LIMIT:
        raise InvalidDocumentError(where, f"larger than {MANIFEST_LIMIT} bytes", code=ErrorCode.LIMIT_EXCEEDED)
    root = parse_json(data, where)
    root.require_exact_case(_TOP_MEMBERS)
    return root


def read_manifest(root: JsonNode, announced: str) -> Manifest | Index:
    """As `parse_manifest`, of what `parse_manifest_members` gave."""
    media_type = _media_type(root, announced)
    _require_unambiguous(root, media_type)
    if media_type in mediatype.INDEXES:
        return Index(media_type, tuple(read_entry(node) for node in bounded(root["manifests"], ENTRY_LIMIT)))
    return _read_manifest(root, media_type)


def _media_type(root: JsonNode, announced: str) -> str:
    """The type that `root` is read as, one of `_READABLE_TYPES`."""
    stated = root.text("mediaType")
    schema_version = root.get("schemaVersion")
    version = schema_version.as_int() if schema_version else 0
    found = announced if announced in _KNOWN_TYPES else _guess(root, stated, version)
    if found in mediatype.SCHEMA1:
        raise UnsupportedError(
            f"{root.where}: legacy image manifest (Docker schema 1) is not supported, push the image again in OCI form",
            code=ErrorCode.MEDIA_TYPE_UNSUPPORTED,
        )
    if not stated and found == mediatype.DOCKER_MANIFEST:
        root.fail(f"expected a member 'mediaType' of {found!r}, found none")
    if stated not in ("", found) and (found in (announced, mediatype.DOCKER_MANIFEST) or stated in _KNOWN_TYPES):
        root["mediaType"].fail(f"expected {found!r}, found {quote(stated)}")
    return found


def _guess(root: JsonNode, stated: str, version: int) -> str:
    """The type by the content alone (images.md 5.2). Schema 1 is one case here: signed or not, it is refused."""
    if stated in _READABLE_TYPES:
        return stated
    if version == 1:
        return mediatype.DOCKER_SCHEMA1
    if version != 2:
        if stated:
            why = f"{root.where}: expected an image manifest or index, found media type {quote(stated)}"
            raise UnsupportedError(why, code=ErrorCode.MEDIA_TYPE_UNSUPPORTED)
        root.fail("expected an image manifest or index, found neither mediaType nor a schemaVersion of 2")
    config = root.get("config")
    config_type = config.text("mediaType") if config else ""
    if config_type == mediatype.DOCKER_CONFIG:
        return mediatype.DOCKER_MANIFEST
    manifests = root.get("manifests")
    if manifests and not config_type and any(True for _ in manifests.items()):
        return mediatype.OCI_INDEX
    return mediatype.OCI_MANIFEST


def _require_unambiguous(root: JsonNode, media_type: str) -> None:
    """Refuse members of another format: a reader that guesses differently would see another image."""
    own = _OWN_MEMBERS[media_type]
    for name in _TELLING:
        if name in own:
            if root.get(name) is None:
                root.fail(f"expected a member {name!r}, found none")
        elif root.get(name) is not None:
            root[name].fail(f"ambiguous: not a member of {media_type!r}")


def _read_manifest(root: JsonNode, media_type: str) -> Manifest:
    nodes = bounded(root["layers"], LAYER_LIMIT)
    layers = tuple(read_descriptor(node) for node in nodes)
    if media_type == mediatype.DOCKER_MANIFEST:
        for node, layer in zip(nodes, layers, strict=True):
            if layer.media_type not in mediatype.DOCKER_TYPES:
                node.fail(f"expected a Docker layer type, found {quote(layer.media_type)}")
    return Manifest(media_type, read_descriptor(root["config"]), layers, root.text("artifactType"))


def read_entry(node: JsonNode) -> IndexEntry:
    """The entry of an index that `node` holds. Raises InvalidDocumentError."""
    descriptor = read_descriptor(node)
    platform = node.get("platform")
    if platform is None:
        return IndexEntry(descriptor, None)
    platform.require_exact_case(_PLATFORM_MEMBERS)
    return IndexEntry(
        descriptor, Platform(platform.text("architecture"), platform.text("os"), platform.text("variant"))
    )


def bounded(array: JsonNode, limit: int) -> tuple[JsonNode, ...]:
    """The elements of `array`, at most `limit`. Raises InvalidDocumentError (limit-exceeded)."""
    nodes = tuple(array.items())
    if len(nodes) > limit:
        why = f"expected at most {limit} elements, found {len(nodes)}"
        raise InvalidDocumentError(array.where, why, code=ErrorCode.LIMIT_EXCEEDED)
    return nodes

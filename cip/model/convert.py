# SPDX-License-Identifier: Apache-2.0
"""Conversion to OCI form: Docker schema 2 manifests, and configs of both kinds, encoded byte for byte as Go does.

A converted config is a blob that exists nowhere in the source, named by the digest of the bytes made here. They have to
be the bytes that skopeo makes (images.md section 7), so the order of members, what is left out and every escape count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import ErrorCode, UnsupportedError, quote
from . import mediatype
from .descriptor import UNKNOWN_SIZE, Descriptor, digest_of
from .jsontree import JsonNode, parse_json, replace_surrogates
from .manifest import Manifest

_OCI_LAYER_OF = {
    mediatype.DOCKER_LAYER: mediatype.OCI_LAYER,
    f"{mediatype.DOCKER_LAYER}.gzip": f"{mediatype.OCI_LAYER}+gzip",
    f"{mediatype.DOCKER_LAYER}.zstd": f"{mediatype.OCI_LAYER}+zstd",
    mediatype.DOCKER_LAYER_FOREIGN: mediatype.OCI_LAYER_NONDISTRIBUTABLE,
    f"{mediatype.DOCKER_LAYER_FOREIGN}.gzip": f"{mediatype.OCI_LAYER_NONDISTRIBUTABLE}+gzip",
}
# annotations that speak of a compressed layer's own bytes: zstd:chunked, eStargz
_OF_COMPRESSED = ("io.github.containers.zstd-chunked.", "io.containers.zstd-chunked.", "containerd.io/snapshot/stargz/")
# Go's encoder makes JSON safe inside HTML and JavaScript; these characters stand in strings only.
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?(?:Z|([+-])([0-9]{2}):([0-9]{2}))",
    re.ASCII,
)
_NANOSECOND_DIGITS = 9

# A reader returns None for what Go's encoder leaves out: null, false, and whatever is empty.
_Reader = Callable[[JsonNode], Any]


class Converted(NamedTuple):
    """A manifest in OCI form, with the config that it names."""

    manifest: bytes
    config: bytes
    config_descriptor: Descriptor


def convert_manifest(manifest: Manifest, config: bytes, where: str) -> Converted:
    """The Docker schema 2 `manifest` in OCI form; `config` is the content of its config, `where` names the image.

    Digest, size and urls of the layers stay. Raises InvalidDocumentError for a config that cannot be read, and
    UnsupportedError (media-type-unsupported) for a layer type that OCI has no counterpart of.
    """
    encoded = encode_config(config, f"{where}: config")
    descriptor = Descriptor(mediatype.OCI_CONFIG, digest_of(encoded), len(encoded))
    layers = [_convert_layer(layer, f"{where}: manifest: layers[{at}]") for at, layer in enumerate(manifest.layers)]
    return Converted(compose_manifest(descriptor, layers, mediaType=mediatype.OCI_MANIFEST), encoded, descriptor)


def compose_manifest(config: Descriptor, layers: Sequence[Descriptor], **media_type: str) -> bytes:
    """A manifest of this config and these layers, with its own media type if one is given."""
    entries = [_descriptor_members(each) for each in (config, *layers)]
    return _encode({"schemaVersion": 2, **media_type, "config": entries[0], "layers": entries[1:]})


def with_stored_layers(
    manifest: Manifest, data: bytes, layers: Sequence[Descriptor], read_config: Callable[[], bytes], where: str
) -> bytes:
    """`manifest`, whose bytes are `data`, in OCI form and with the layers as a storage has them.

    Raises UnsupportedError for a layer that cannot be rebuilt, and what `read_config` and `convert_manifest` raise.
    """
    for layer in layers:
        if layer.size == UNKNOWN_SIZE:
            raise UnsupportedError(f"{where}: layer {layer.digest}: cannot be rebuilt from its storage")
    if manifest.media_type == mediatype.OCI_MANIFEST:
        return with_layers(data, layers, f"{where}: manifest")
    stored = Manifest(manifest.media_type, manifest.config, tuple(layers), manifest.artifact_type)
    return convert_manifest(stored, read_config(), where).manifest


def with_layers(manifest: bytes, layers: Sequence[Descriptor], where: str) -> bytes:
    """The OCI `manifest` with other bytes for its layers, one for each; what it says of the old ones' form goes."""
    members = dict(parse_json(manifest, where).members())
    document = {name: node.value for name, node in members.items()}
    found = []
    for node, layer in zip(members["layers"].items(), layers, strict=True):
        kept = {name: value for name, value in node.value.items() if name not in ("urls", "data", "annotations")}
        annotations = node.get("annotations")
        names = annotations.value.items() if annotations is not None else ()
        left = {name: value for name, value in names if not name.startswith(_OF_COMPRESSED)}
        found.append(kept | _descriptor_members(layer) | ({"annotations": left} if left else {}))
    return _encode(document | {"layers": found})


def encode_config(config: bytes, where: str) -> bytes:
    """A Docker or OCI config with the members that OCI knows, encoded anew (images.md 7.2; GetFullConfig).

    Names are matched in any case, as Go does. Raises InvalidDocumentError for wrong types, a `created` that is not
    RFC 3339, and two members that read as the same one.
    """
    return _encode(_read_image(parse_json(config, where)))


def encode_inner_config(config: bytes, where: str) -> bytes:
    """The `config` object inside such a config, `{}` when it has none (GetConfig). Raises as `encode_config`."""
    return _encode(_read_image(parse_json(config, where))["config"])


def _convert_layer(layer: Descriptor, where: str) -> Descriptor:
    media_type = _OCI_LAYER_OF.get(layer.media_type)
    if media_type is None:
        why = f"{where}.mediaType: expected a layer type, found {quote(layer.media_type)}"
        raise UnsupportedError(why, code=ErrorCode.MEDIA_TYPE_UNSUPPORTED)
    return layer._replace(media_type=media_type)


def _descriptor_members(descriptor: Descriptor) -> dict[str, Any]:
    media_type, digest = descriptor.media_type, str(descriptor.digest)
    members: dict[str, Any] = {"mediaType": media_type, "digest": digest, "size": descriptor.size}
    if descriptor.urls:
        members["urls"] = list(descriptor.urls)
    return members


def _encode(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPES).encode()


def _read_members(node: JsonNode, readers: Mapping[str, _Reader]) -> dict[str, Any]:
    """The members of an object that have readers and that Go's encoder would write, in the order of `readers`."""
    found = node.folded(readers)
    values = ((name, readers[name](found[name])) for name in readers if found.has(name))
    return {name: value for name, value in values if value is not None}


def _read_image(node: JsonNode) -> dict[str, Any]:
    members = _read_members(node, _IMAGE)
    always = {"architecture": "", "os": "", "config": {}, "rootfs": _NO_ROOTFS}
    return {name: members.get(name, always.get(name)) for name in _IMAGE if name in members or name in always}


def _read_rootfs(node: JsonNode) -> dict[str, Any]:
    found = node.folded(_NO_ROOTFS)
    diff_ids = found.get("diff_ids")
    return {
        "type": found["type"].as_replaced_str() if found.has("type") else "",
        "diff_ids": [_element(item) for item in diff_ids.items()] if diff_ids else None,
    }


def _read_history(node: JsonNode) -> list[dict[str, Any]] | None:
    return [{} if item.is_null() else _read_members(item, _HISTORY) for item in node.items()] or None


def _text(node: JsonNode) -> str | None:
    return node.as_replaced_str() or None


def _read_texts(node: JsonNode) -> list[str] | None:
    return [_element(item) for item in node.items()] or None


def _read_flag(node: JsonNode) -> bool | None:
    return node.as_bool() or None


def _sorted(node: JsonNode, read: _Reader) -> dict[str, Any] | None:
    """The members of an object in the order of their keys' bytes, which is that of their code points."""
    values: dict[str, Any] = {}
    for key, member in node.members():
        key = replace_surrogates(key)
        if key in values:
            member.fail("duplicate key once lone surrogates are replaced")
        values[key] = read(member)
    return dict(sorted(values.items())) or None


def _element(node: JsonNode) -> str:
    return "" if node.is_null() else node.as_replaced_str()


def _read_inner_config(node: JsonNode) -> dict[str, Any]:
    return _read_members(node, _INNER)


def _read_labels(node: JsonNode) -> dict[str, Any] | None:
    return _sorted(node, _element)


def _read_set(node: JsonNode) -> dict[str, Any] | None:
    """Go's set of strings: an object of empty objects, whatever is in them."""
    return _sorted(node, _empty_object)


def _empty_object(node: JsonNode) -> dict[str, Any]:
    if not node.is_null():
        node.keys()
    return {}


def _read_time(node: JsonNode) -> str:
    """RFC 3339 as Go has it: no leap second, nanoseconds at most, no zeros at their end, `Z` for no offset."""
    from datetime import datetime, time

    text = node.as_str()
    match = _TIME.fullmatch(text)
    if match is None:
        node.fail(f"expected a time of RFC 3339, found {quote(text)}")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    offset_hours, offset_minutes = int(match[9] or 0), int(match[10] or 0)
    try:
        datetime(year or 400, month, day, hour, minute, second)  # which has no year 0, whose days are those of 400
        time(offset_hours, offset_minutes)
    except ValueError:
        node.fail(f"expected a time of RFC 3339, found {quote(text)}, which is on no calendar")
    fraction = (match[7] or "")[:_NANOSECOND_DIGITS].rstrip("0")
    offset = f"{match[8]}{match[9]}:{match[10]}" if offset_hours or offset_minutes else "Z"
    return text[: len("2006-01-02T15:04:05")] + (f".{fraction}" if fraction else "") + offset


_NO_ROOTFS: Mapping[str, Any] = {"type": "", "diff_ids": None}
_INNER: Mapping[str, _Reader] = (
    {"User": _text, "ExposedPorts": _read_set, "Env": _read_texts, "Entrypoint": _read_texts, "Cmd": _read_texts}
    | {"Volumes": _read_set, "WorkingDir": _text, "Labels": _read_labels, "StopSignal": _text}
    | {"ArgsEscaped": _read_flag}
)
_HISTORY: Mapping[str, _Reader] = {
    "created": _read_time,
    "created_by": _text,
    "author": _text,
    "comment": _text,
    "empty_layer": _read_flag,
}
_IMAGE: Mapping[str, _Reader] = (
    {"created": _read_time, "author": _text, "architecture": _text, "os": _text, "os.version": _text}
    | {"os.features": _read_texts, "variant": _text, "config": _read_inner_config, "rootfs": _read_rootfs}
    | {"history": _read_history}
)

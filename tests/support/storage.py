# SPDX-License-Identifier: Apache-2.0
"""Builds a local image storage in code, as podman leaves it: lists, items, layers with their tar-split recipes."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from cip.model import mediatype
from cip.model.descriptor import Digest, digest_of
from tests.support import images
from tests.support.images import Member


def recipe(members: Sequence[Member], archive: bytes) -> bytes:
    """The tar-split recipe, not compressed, of the `archive` that `images.tar` made of `members`."""
    lines = []
    start = end = 0
    for member in members:
        end += images.BLOCK
        lines.append({"type": 2, "payload": _base64(archive[start:end])})
        entry: dict[str, object] = {"type": 1, "payload": None}
        try:
            entry["name"] = member.name.decode()
        except UnicodeDecodeError:
            entry["name_raw"] = _base64(member.name)
        if member.content:
            entry |= {"size": len(member.content), "payload": _base64(bytes(8))}
        lines.append(entry)
        start = end = end + len(member.content)
        end += -end % images.BLOCK
    lines.append({"type": 2, "payload": _base64(archive[start:])})
    return b"".join(json.dumps(line | {"position": number}).encode() + b"\n" for number, line in enumerate(lines))


def unpack(members: Sequence[Member], directory: bytes) -> None:
    """Write the members of a layer below `directory`."""
    os.makedirs(directory, exist_ok=True)
    for member in members:
        path = os.path.join(directory, member.name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if member.kind == b"5":
            os.makedirs(path, exist_ok=True)
        elif member.kind == b"2":
            os.symlink(member.link, path)
        elif member.kind == b"1":
            os.link(os.path.join(directory, member.link), path)
        else:
            with open(path, "wb") as file:
                file.write(member.content)


class Storage:
    """A storage below `root`; `write` is called by the methods that change its lists."""

    def __init__(self, root: Path, driver: str = "overlay") -> None:
        self.root = root
        self.driver = driver
        self.images: list[dict[str, object]] = []
        self.layers: list[dict[str, object]] = []
        for kind in ("images", "layers"):
            (root / f"{driver}-{kind}").mkdir(parents=True)
            (root / f"{driver}-{kind}" / f"{kind}.lock").write_bytes(b"")
        self.write()

    def write(self) -> None:
        """Write images.json and layers.json."""
        (self.root / f"{self.driver}-images" / "images.json").write_text(json.dumps(self.images))
        (self.root / f"{self.driver}-layers" / "layers.json").write_text(json.dumps(self.layers))

    def layer_directory(self, layer_id: str) -> Path:
        """Where the files of a layer lie."""
        if self.driver == "vfs":
            return self.root / "vfs" / "dir" / layer_id
        return self.root / "overlay" / layer_id / "diff"

    def recipe_path(self, layer_id: str) -> Path:
        """The recipe of a layer."""
        return self.root / f"{self.driver}-layers" / f"{layer_id}.tar-split.gz"

    def add_layer(self, members: Sequence[Member], *, parent: str = "", **changed: object) -> tuple[str, bytes]:
        """Store a layer; its id and its tar. `changed` replaces members of its record, None removes one."""
        archive = images.tar(members)
        digest = digest_of(archive)
        layer_id = hashlib.sha256(digest.encoded.encode() + parent.encode()).hexdigest()
        unpack(members, bytes(self.layer_directory(layer_id)))
        self.recipe_path(layer_id).write_bytes(gzip.compress(recipe(members, archive)))
        record: dict[str, object] = {"id": layer_id, "diff-digest": str(digest), "diff-size": len(archive)}
        if parent:
            record["parent"] = parent
        record |= {key.replace("_", "-"): value for key, value in changed.items()}
        self.layers.append({key: value for key, value in record.items() if value is not None})
        self.write()
        return layer_id, archive

    def add_image(
        self,
        names: Sequence[str],
        layer: str,
        manifest: bytes,
        items: Mapping[str, bytes],
        *,
        image_id: str = "",
        metadata: object = None,
    ) -> str:
        """Store an image with the items `manifest`, `manifest-DIGEST` and `items`; its id."""
        digest = digest_of(manifest)
        image_id = image_id or hashlib.sha256(manifest).hexdigest()
        kept = {"manifest": manifest, f"manifest-{digest}": manifest, **items}
        directory = self.root / f"{self.driver}-images" / image_id
        directory.mkdir()
        for key, content in kept.items():
            plain = key.replace(".", "").isalnum() and key == key.lower()
            (directory / (key if plain else "=" + _base64(key.encode()))).write_bytes(content)
        record: dict[str, object] = {
            "id": image_id,
            "digest": str(digest),
            "names": list(names),
            "big-data-names": list(kept),
            "big-data-digests": {key: str(digest_of(content)) for key, content in kept.items()},
            "metadata": json.dumps(metadata if metadata is not None else {}),
        }
        if layer:
            record["layer"] = layer
        self.images.append(record)
        self.write()
        return image_id

    def add(
        self,
        name: str,
        layers: Sequence[Sequence[Member]],
        *,
        media_type: str = mediatype.OCI_MANIFEST,
        items: Mapping[str, bytes] | None = None,
        metadata: object = None,
    ) -> tuple[list[bytes], bytes]:
        """Store a whole image of layers with these members, base first; their tars and the manifest.

        The manifest names the layers by the digests of gzip blobs that exist nowhere, as after a pull.
        """
        parent, tars = "", []
        for members in layers:
            parent, archive = self.add_layer(members, parent=parent)
            tars.append(archive)
        config = images.config([digest_of(archive) for archive in tars])
        packed = [gzip.compress(archive, mtime=0) for archive in tars]
        layer_type = (
            mediatype.DOCKER_LAYER + ".gzip"
            if media_type == mediatype.DOCKER_MANIFEST
            else (mediatype.OCI_LAYER + "+gzip")
        )
        manifest = images.manifest(config, packed, media_type=media_type, layer_type=layer_type)
        kept = {str(digest_of(config)): config, **(items or {})}
        self.add_image([name], parent, manifest, kept, image_id=digest_of(config).encoded, metadata=metadata)
        return tars, manifest


def layer_digests(tars: Sequence[bytes]) -> list[Digest]:
    """The digests of plain tars."""
    return [digest_of(archive) for archive in tars]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")

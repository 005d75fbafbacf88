# SPDX-License-Identifier: Apache-2.0
"""Builds images in code, with fixed bytes: blobs, manifests, layouts; and the named fixtures of the test tables.

T, C, M, S, F1, F2, BIG and BAD are those of wire.md section 13. Nothing here depends on the clock, on a library's
defaults or on the umask, so digests are constants that a test may spell out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cip.model import mediatype
from cip.model.descriptor import Descriptor, Digest, digest_of

REF_NAME = "org.opencontainers.image.ref.name"
BLOCK = 512
RECORD = 20 * BLOCK  # tar archives end at a multiple of this


class Member(NamedTuple):
    """One member of a tar archive; `kind` is its type flag: b"0" file, b"2" symbolic link, b"5" directory, ..."""

    name: bytes
    content: bytes = b""
    kind: bytes = b"0"
    link: bytes = b""
    mode: int = 0o644


def ustar_header(member: Member, *, size: int | None = None) -> bytes:
    """The 512 bytes in front of a member; `size` contradicts the content where a test wants that."""
    stated = len(member.content) if size is None else size
    prefix, name = b"", member.name
    if len(name) > 100:
        prefix, _, name = member.name[:156].rpartition(b"/")
        name = member.name[len(prefix) + 1 :]
    if len(name) > 100:
        raise ValueError(f"{member.name!r} does not fit into a ustar header")
    size_field = b"%011o\0" % stated if stated < 8**11 else b"\x80" + stated.to_bytes(11, "big")
    header = b"".join(
        (
            name.ljust(100, b"\0"),
            b"%07o\0" % member.mode,
            b"0000000\0" * 2,
            size_field,
            b"00000000000\0",
            b" " * 8,
            member.kind,
            member.link.ljust(100, b"\0"),
            b"ustar\x0000",
            b"\0" * 64,
            b"\0" * 16,
            prefix.ljust(155, b"\0"),
            b"\0" * 12,
        )
    )
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def tar(members: Iterable[Member], *, record: int = RECORD) -> bytes:
    """An uncompressed archive; all metadata but name, type, mode and link is zero."""
    out = bytearray()
    for member in members:
        out += ustar_header(member) + member.content
        out += bytes(-len(out) % BLOCK)
    out += bytes(2 * BLOCK)
    return bytes(out + bytes(-len(out) % record))


def compact(value: object) -> bytes:
    """JSON without blanks, keys in the order given."""
    return json.dumps(value, separators=(",", ":")).encode()


def config(diff_ids: Sequence[Digest]) -> bytes:
    """An image config in canonical form over uncompressed layers."""
    rootfs = {"type": "layers", "diff_ids": [str(digest) for digest in diff_ids]}
    return compact({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs})


def manifest(
    config_data: bytes,
    layers: Sequence[bytes | Descriptor],
    *,
    media_type: str = mediatype.OCI_MANIFEST,
    layer_type: str | None = None,
) -> bytes:
    """A compact manifest. Layers are their bytes, or descriptors where the bytes are elsewhere.

    `media_type` is that of an OCI manifest or of Docker schema 2; `layer_type` is the uncompressed one of that family
    unless given.
    """
    docker = media_type == mediatype.DOCKER_MANIFEST
    config_type = mediatype.DOCKER_CONFIG if docker else mediatype.OCI_CONFIG
    layer_type = layer_type or (mediatype.DOCKER_LAYER if docker else mediatype.OCI_LAYER)
    described = [layer if isinstance(layer, Descriptor) else describe(layer, layer_type) for layer in layers]
    return compact(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": _entry(describe(config_data, config_type)),
            "layers": [_entry(layer) for layer in described],
        }
    )


def index(entries: Sequence[Mapping[str, object]], *, media_type: str = mediatype.OCI_INDEX) -> bytes:
    """A compact index over entries made by `entry`."""
    return compact({"schemaVersion": 2, "mediaType": media_type, "manifests": list(entries)})


def entry(
    data: bytes,
    media_type: str = mediatype.OCI_MANIFEST,
    *,
    platform: Mapping[str, object] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, object]:
    """An entry of an index, or of `index.json`."""
    found: dict[str, object] = dict(_entry(describe(data, media_type)))
    if platform is not None:
        found["platform"] = dict(platform)
    if annotations is not None:
        found["annotations"] = dict(annotations)
    return found


def describe(data: bytes, media_type: str = "") -> Descriptor:
    """The descriptor of `data`, by sha256."""
    return Descriptor(media_type, digest_of(data), len(data))


def _entry(descriptor: Descriptor) -> dict[str, object]:
    return {"mediaType": descriptor.media_type, "digest": str(descriptor.digest), "size": descriptor.size}


def random_bytes(size: int, seed: bytes) -> bytes:
    """`size` bytes that do not compress and are the same in every run."""
    return hashlib.shake_128(seed).digest(size)


class Layout:
    """An OCI layout below `path`, written as it is filled; `blobs` may lie elsewhere (`--shared-blob-dir`)."""

    def __init__(self, path: Path, *, blobs: Path | None = None) -> None:
        self.path = path
        self.blobs = blobs if blobs is not None else path / "blobs"
        self.entries: list[dict[str, object]] = []
        path.mkdir(parents=True, exist_ok=True)
        (path / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
        self.write_index()

    def add_blob(self, data: bytes, *, algorithm: str = "sha256") -> Digest:
        """Store `data` under its digest."""
        digest = Digest(algorithm, hashlib.new(algorithm, data).hexdigest())
        self.blob_path(digest).parent.mkdir(parents=True, exist_ok=True)
        self.blob_path(digest).write_bytes(data)
        return digest

    def blob_path(self, digest: Digest) -> Path:
        """Where the blob `digest` lies."""
        return self.blobs / digest.algorithm / digest.encoded

    def add_manifest(self, data: bytes, media_type: str = mediatype.OCI_MANIFEST, *, name: str | None = None) -> Digest:
        """Store a manifest or index, listed in `index.json` under `name`."""
        digest = self.add_blob(data)
        self.entries.append(entry(data, media_type, annotations={REF_NAME: name} if name is not None else None))
        self.write_index()
        return digest

    def add_image(
        self,
        config_data: bytes,
        layers: Sequence[bytes],
        manifest_data: bytes,
        *,
        name: str | None = None,
        media_type: str = mediatype.OCI_MANIFEST,
    ) -> Digest:
        """Store an image with all its blobs."""
        for blob in (config_data, *layers):
            self.add_blob(blob)
        return self.add_manifest(manifest_data, media_type, name=name)

    def write_index(self) -> None:
        """Write `index.json` from `entries`; called by the methods above."""
        (self.path / "index.json").write_bytes(compact({"schemaVersion": 2, "manifests": self.entries}))


# --- the named fixtures: bytes ---

LAYER_T = tar([Member(b"f", b"x")])
CONFIG_C = config([digest_of(LAYER_T)])
MANIFEST_M = manifest(CONFIG_C, [LAYER_T])
MANIFEST_S = manifest(CONFIG_C, [LAYER_T], media_type=mediatype.DOCKER_MANIFEST)
DIGEST_T = digest_of(LAYER_T)
DIGEST_C = digest_of(CONFIG_C)
DIGEST_M = digest_of(MANIFEST_M)
DIGEST_S = digest_of(MANIFEST_S)
BIG_SIZE = 3_000_000  # bytes of BIG's layer


def f1(path: Path) -> Layout:
    """F1: the OCI image M, named `t`."""
    layout = Layout(path)
    layout.add_image(CONFIG_C, [LAYER_T], MANIFEST_M, name="t")
    return layout


def f2(path: Path) -> Layout:
    """F2: the same image as Docker schema 2, named `t`."""
    layout = Layout(path)
    layout.add_image(CONFIG_C, [LAYER_T], MANIFEST_S, name="t", media_type=mediatype.DOCKER_MANIFEST)
    return layout


class BlobFixture(NamedTuple):
    """A layout with an image named `t`, and its one layer as the manifest describes it."""

    layout: Layout
    layer: Descriptor
    content: bytes


def big(path: Path, *, size: int = BIG_SIZE) -> BlobFixture:
    """BIG: a layer of `size` bytes that do not compress."""
    return _one_layer(path, random_bytes(size, b"BIG"))


def bad(path: Path, *, size: int = BIG_SIZE) -> BlobFixture:
    """BAD: a layer of `size` bytes whose file has one bit flipped in its middle; `content` is what it should be."""
    made = _one_layer(path, random_bytes(size, b"BAD"))
    damaged = bytearray(made.content)
    damaged[size // 2] ^= 1
    made.layout.blob_path(made.layer.digest).write_bytes(damaged)
    return made


def _one_layer(path: Path, content: bytes) -> BlobFixture:
    layout = Layout(path)
    config_data = config([digest_of(content)])
    layout.add_image(config_data, [content], manifest(config_data, [content]), name="t")
    return BlobFixture(layout, describe(content, mediatype.OCI_LAYER), content)


# --- archives and directories of images ---


def oci_archive(layout: Layout) -> bytes:
    """The files of a layout in an uncompressed archive, as `skopeo copy … oci-archive:` writes it."""
    files = sorted(path for path in layout.path.rglob("*") if path.is_file())
    return tar(Member(str(path.relative_to(layout.path)).encode(), path.read_bytes()) for path in files)


class SavedImage(NamedTuple):
    """One image of a `docker save` archive; `members` are the names of its layers, which may be links."""

    config_name: str
    layer_names: tuple[str, ...]
    tags: tuple[str, ...] | None = None

    def item(self) -> dict[str, object]:
        """Its item in manifest.json."""
        tags = list(self.tags) if self.tags is not None else None
        return {"Config": self.config_name, "RepoTags": tags, "Layers": list(self.layer_names)}


def docker_archive(items: Sequence[SavedImage], members: Iterable[Member]) -> bytes:
    """A `docker save` archive: `members`, then the description of `items`."""
    description = Member(b"manifest.json", compact([item.item() for item in items]))
    return tar([*members, description])


def docker_save(config_data: bytes, layers: Sequence[bytes], *tags: str) -> bytes:
    """A `docker save` archive with one image, as skopeo writes it."""
    names = [f"{hashlib.sha256(layer).hexdigest()}.tar" for layer in layers]
    config_name = f"{hashlib.sha256(config_data).hexdigest()}.json"
    members = {name.encode(): layer for name, layer in zip(names, layers, strict=True)}
    return docker_archive(
        [SavedImage(config_name, tuple(names), tags)],
        [*(Member(name, layer) for name, layer in members.items()), Member(config_name.encode(), config_data)],
    )


def directory(path: Path, manifest_data: bytes, blobs: Iterable[bytes], *, version: str | None = "1.1") -> Path:
    """A `dir:` directory; `version` None leaves the file out."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "manifest.json").write_bytes(manifest_data)
    if version is not None:
        (path / "version").write_text(f"Directory Transport Version: {version}\n", encoding="ascii")
    for blob in blobs:
        (path / hashlib.sha256(blob).hexdigest()).write_bytes(blob)
    return path

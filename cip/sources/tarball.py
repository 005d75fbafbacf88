# SPDX-License-Identifier: Apache-2.0
"""`tarball:`, an image made of layer files (images.md 3.8)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import NamedTuple

from .. import rooms
from ..content import BytesReader, Reader, undo_on_error
from ..errors import (
    ErrorCode,
    InvalidReferenceError,
    NotFoundError,
    SourceError,
    UnsupportedError,
    quote,
    refused,
    system_reason,
)
from ..hostconfig.machine import host_platforms
from ..model import mediatype
from ..model.descriptor import Descriptor, Digest, digest_of
from ..model.reference import ImageReference, Transport, nameless_identity
from ..settings import PlatformOptions
from .archives.compression import (
    MAGIC_LENGTH,
    Compression,
    DecompressingReader,
    detect_compression,
    read_through,
    streams,
)
from .archives.spool import Spools
from .base import BlobAccess, ImageSource, RawManifest
from .files import FileBlob, open_regular, whole_file

FILE_LIMIT = 1000  # files in one reference
_LAST_TIME = 253402300799 * 10**9  # nanoseconds: the last second of the year 9999
_SUFFIXES = {None: "", Compression.GZIP: "+gzip", Compression.ZSTD: "+zstd"}


class _LayerFile(NamedTuple):
    """One file: open, as the manifest describes it, with the digest of its plain tar; mtime in nanoseconds."""

    descriptor: int
    described: Descriptor
    diff_id: Digest
    mtime: int


class TarballSource(ImageSource):
    """An image whose layers are files and whose config is made up from them."""

    def __init__(self, reference: ImageReference, files: Sequence[_LayerFile], opened: ExitStack) -> None:
        """Owns the descriptors of `files`, which `opened` closes, once it returns."""
        self.identity = nameless_identity(Transport.TARBALL)
        self._text = reference.text
        self._files = {file.described.digest: file for file in reversed(files)}
        self._config = _compose_config(files)
        config = Descriptor(mediatype.OCI_CONFIG, digest_of(self._config), len(self._config))
        self._manifest = rooms.compose_manifest(config, [file.described for file in files])
        self._opened = opened.pop_all()

    def manifest(self, digest: Digest | None) -> RawManifest:
        """The generated manifest; there are no instances."""
        if digest is not None:
            raise self._missing(f"no manifest {digest}", digest)
        return RawManifest(self._manifest, mediatype.OCI_MANIFEST)

    def open_blob(self, descriptor: Descriptor, access: BlobAccess) -> BytesReader | FileBlob:
        """The config, or one of the files as it is."""
        digest = descriptor.digest
        if digest == digest_of(self._config):
            return BytesReader(self._config)
        file = self._files.get(digest)
        if file is None:
            raise self._missing(f"no blob {digest}", digest)
        with refused(self._text):
            # The size is that of the time of opening: what was appended since is not part of the image.
            return FileBlob(os.dup(file.descriptor), 0, file.described.size, f"{self._text}: layer {digest}")

    def close(self) -> None:
        """Close the files."""
        self._opened.close()

    def _missing(self, why: str, digest: Digest) -> NotFoundError:
        return NotFoundError(f"{self._text}: {why}", code=ErrorCode.BLOB_NOT_FOUND, digest=str(digest))


def open_tarball(reference: ImageReference, spools: Spools) -> TarballSource:
    """The image made of the files in `reference`, which are read once for their digests.

    Raises InvalidReferenceError (also for `-`: the protocol may be on standard input), SourceError for a file that
    cannot be read, UnsupportedError (media-type-unsupported) for bzip2 and xz, which no layer type says.
    """
    paths = reference.path.split(":")
    if len(paths) > FILE_LIMIT:
        raise InvalidReferenceError(reference.text, f"more than {FILE_LIMIT} files")
    if "-" in paths:
        raise InvalidReferenceError(reference.text, "standard input is not an archive here, expected file names")
    files: list[_LayerFile] = []
    with ExitStack() as opened:
        for path in paths:
            files.append(_open_layer(reference, path, spools))
            opened.callback(os.close, files[-1].descriptor)
        return TarballSource(reference, files, opened)


def _open_layer(reference: ImageReference, path: str, spools: Spools) -> _LayerFile:
    what = f"{reference.text}: {quote(path)}"
    try:
        descriptor = open_regular(os.fsencode(os.path.realpath(path)))
    except (OSError, UnicodeEncodeError) as error:
        why = system_reason(error) if isinstance(error, OSError) else "no form in the file system's encoding"
        raise SourceError(f"{what}: {why}") from error
    with refused(what), undo_on_error(partial(os.close, descriptor)):
        facts = os.fstat(descriptor)
        compression = detect_compression(os.pread(descriptor, MAGIC_LENGTH, 0))
        if compression not in _SUFFIXES:
            message = f"{what}: expected a plain, gzip or zstd layer, found {compression}"
            raise UnsupportedError(message, code=ErrorCode.MEDIA_TYPE_UNSUPPORTED)
        with closing(FileBlob(os.dup(descriptor), 0, facts.st_size, what)) as content:
            digest = diff_id = _hash(content)
            if compression is not None:
                content.rewind()
                diff_id = _diff_id(content, compression, what, spools)
        media_type = mediatype.OCI_LAYER + _SUFFIXES[compression]
        return _LayerFile(descriptor, Descriptor(media_type, digest, facts.st_size), diff_id, facts.st_mtime_ns)


def _diff_id(source: FileBlob, compression: Compression, what: str, spools: Spools) -> Digest:
    """The digest of the plain tar."""
    if streams(compression):
        return _hash(DecompressingReader(source, compression, what))
    with closing(spools.unpack(source, source, compression, what)) as spooled:
        with closing(whole_file(spooled.duplicate(), what)) as content:
            return _hash(content)


def _hash(reader: Reader) -> Digest:
    import hashlib

    hasher = hashlib.sha256()
    read_through(reader, hasher.update)
    return Digest("sha256", hasher.hexdigest())


def _compose_config(files: Sequence[_LayerFile]) -> bytes:
    """The config as the reference implementation writes it, so that both name the image by the same digest."""
    platform = host_platforms(PlatformOptions())[-1]  # the one without a variant
    config = {
        "created": _timestamp(max(file.mtime for file in files)),
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [str(file.diff_id) for file in files]},
        "history": [
            {
                "created": _timestamp(file.mtime),
                "created_by": f"/bin/sh -c #(nop) ADD file:{file.diff_id.encoded} in /",
                "comment": "imported from tarball",
            }
            for file in files
        ],
    }
    return json.dumps(config, separators=(",", ":")).encode()


def _timestamp(nanoseconds: int) -> str:
    """RFC 3339 in UTC, a fraction without trailing zeros; a time that it cannot write is the nearest that it can."""
    seconds, fraction = divmod(min(max(nanoseconds, 0), _LAST_TIME), 10**9)
    digits = f".{fraction:09}".rstrip("0") if fraction else ""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + digits + "Z"

# SPDX-License-Identifier: Apache-2.0
"""Targets of the sources that read files: tar archives, what docker save writes, and layouts."""

import os
import tempfile
from collections.abc import Sequence
from typing import cast

from cip.content import Release, copy_verified
from cip.errors import CipError, MissingDependencyError
from cip.model.manifest import Manifest, parse_manifest
from cip.model.reference import Transport, nameless_identity, parse_image_reference, path_identity
from cip.programs import Programs
from cip.settings import PlatformOptions
from cip.sources.archives.archive import Archive
from cip.sources.archives.dockerarchive import Choice, DockerArchiveSource
from cip.sources.archives.spool import Spools
from cip.sources.archives.tarindex import TarIndex
from cip.sources.base import BlobAccess
from cip.sources.layout import LayoutFiles, LayoutSource
from cip.temporary import TemporarySpace

from ..engine import Target
from ..mutation import mutate_json, mutate_tar
from .model import MANIFEST_WORDS


def _tar(data: bytes) -> None:
    """Tar headers; a member that is found lies inside the archive, and a link does not leave it."""
    descriptor = os.memfd_create("archive")
    try:
        os.write(descriptor, data)
        index = TarIndex(descriptor, "archive")
        for name in (b"manifest.json", b"index.json", b"blobs/x", b"a", b"link"):
            member = index.find(name)
            if member is not None:
                assert 0 <= member.start <= member.start + member.size <= len(data)
                assert member.name == name and b".." not in (member.link or b"").split(b"/")
    finally:
        os.close(descriptor)


class _NoPrograms:
    """There is no `zstd`."""

    def run(self, argv: Sequence[str], *, purpose: str, **options: object) -> object:
        raise MissingDependencyError(argv[0], purpose)


def _docker_archive(data: bytes) -> None:
    """A `docker save` archive: its manifest is one, and its config and layers are what that manifest says."""
    descriptor = os.memfd_create("archive")
    os.write(descriptor, data)
    archive = Archive(descriptor, "archive", lambda: os.close(descriptor))
    try:
        source = DockerArchiveSource(
            "archive",
            nameless_identity(Transport.DOCKER_ARCHIVE),
            archive,
            Choice(),
            Spools(TemporarySpace(tempfile.gettempdir(), 1 << 30), cast(Programs, _NoPrograms())),
        )
        raw = source.manifest(None)
        manifest = parse_manifest(raw.data, raw.media_type, "manifest")
        assert isinstance(manifest, Manifest)
        for blob in (manifest.config, *manifest.layers):
            reader = source.open_blob(blob, BlobAccess.VERIFIED)
            try:
                copy_verified(reader, len, blob, release=Release.AS_READ)
            finally:
                reader.close()
    finally:
        archive.close()


class _Index:
    """A layout of which only the index exists."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_index(self) -> bytes:
        return self._data


def _layout_index(data: bytes) -> None:
    """index.json of an OCI layout, by a name and without one."""
    try:
        _open_layout("oci:/d:v1", data)
    except CipError:
        _open_layout("oci:/d", data)


def _open_layout(text: str, data: bytes) -> None:
    reference = parse_image_reference(text)
    identity = path_identity(Transport.OCI, "/d")
    source = LayoutSource(reference, identity, cast(LayoutFiles, _Index(data)), PlatformOptions("linux", "amd64"))
    assert source.identity.identity == "/d"


TARGETS = (
    Target("tar", _tar, (b"path=a\n", b"size=99\n", b"GNU.sparse.major=1\n", b"ustar\x0000"), mutate_tar),
    Target("docker-archive", _docker_archive, (b'[{"Config":"c","Layers":[]}]', b"\x1f\x8b\x08"), mutate_tar),
    Target("layout-index", _layout_index, MANIFEST_WORDS, mutate_json),
)

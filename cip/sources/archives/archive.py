# SPDX-License-Identifier: Apache-2.0
"""Archive files: opened, unpacked when compressed, their members read in place (images.md 3.4, 3.6)."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from functools import partial

from ...content import MANIFEST_LIMIT, read_limited, undo_on_error
from ...errors import ErrorCode, InvalidDocumentError, NotFoundError, quote, refused
from ...model.descriptor import Digest
from ...model.reference import ImageReference, Transport, path_identity
from ...settings import PlatformOptions
from ..files import FileBlob, open_regular, resolve_path, whole_file
from ..layout import INDEX_NAME, LayoutSource
from .compression import MAGIC_LENGTH, detect_compression
from .spool import Spools
from .tarindex import MEMBER_COST, TarIndex, TarMember


class Archive:
    """An uncompressed tar archive, open, with its members found. Several threads may open members at once."""

    def __init__(self, descriptor: int, what: str, release: Callable[[], None]) -> None:
        """Read all headers; `release` is called by `close` and closes `descriptor`, also when this fails.

        Raises InvalidDocumentError when it is no tar archive, SourceError.
        """
        self._descriptor = descriptor
        self._what = what
        self._release = release
        self._closed = False
        with undo_on_error(release):
            self._index = TarIndex(descriptor, what)
        self.kept = MEMBER_COST * len(self._index)

    def open_member(self, name: bytes, missing: ErrorCode | None = None) -> FileBlob:
        """The member `name`, or the file that it is a link to, inside this archive; one link is followed.

        Raises InvalidDocumentError; for a member that is not there NotFoundError with the code `missing`, if given.
        """
        member = self._index.find(name)
        if member is not None and member.link is not None:
            member = self._follow(member)
        if member is None:
            if missing is not None:
                raise NotFoundError(f"{self._what}: no member {_shown(name)}", code=missing)
            raise InvalidDocumentError(self._what, f"no member {_shown(name)}")
        with refused(self._what):
            descriptor = os.dup(self._descriptor)
        return FileBlob(descriptor, member.start, member.size, f"{self._what}: member {_shown(name)}")

    def read_member(self, name: bytes, limit: int) -> bytes:
        """All of the member `name`. Raises InvalidDocumentError (also limit-exceeded), SourceError."""
        with closing(self.open_member(name)) as blob:
            return read_limited(blob, limit, f"{self._what}: member {_shown(name)}")

    def close(self) -> None:
        """Release the archive; members opened before stay open."""
        if not self._closed:
            self._closed = True
            self._release()

    def _follow(self, link: TarMember) -> TarMember | None:
        where = f"{self._what}: member {_shown(link.name)}"
        if not link.link:
            raise InvalidDocumentError(where, "a link that leads out of the archive")
        target = self._index.find(link.link)
        if target is not None and target.link is not None:
            raise InvalidDocumentError(where, f"a link to the link {_shown(link.link)}, expected a file")
        return target


def open_archive(path: str, text: str, spools: Spools) -> Archive:
    """The archive in the regular file at `path`, resolved before; `text` is the reference for messages.

    A compressed one is unpacked into a temporary file. Raises SourceError (also for a missing file: wire.md 4.4),
    InvalidDocumentError, MissingDependencyError.
    """
    with refused(text):
        descriptor = open_regular(os.fsencode(path))
        with undo_on_error(partial(os.close, descriptor)):
            head = os.pread(descriptor, MAGIC_LENGTH, 0)
            facts = os.fstat(descriptor)
    compression = detect_compression(head)
    if compression is None:
        return Archive(descriptor, text, partial(os.close, descriptor))
    with closing(whole_file(descriptor, text)) as source:
        # The state of the file belongs to the key: an archive that was replaced or changed is another one.
        key = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        spooled = spools.unpack(key, source, compression, text)
    return Archive(spooled.descriptor, text, spooled.close)


def open_oci_archive(reference: ImageReference, spools: Spools, platform: PlatformOptions) -> LayoutSource:
    """The image that `reference` names in an archive of an OCI layout.

    Raises InvalidReferenceError, NotFoundError, InvalidDocumentError, UnsupportedError, SourceError.
    """
    resolved = resolve_path(reference)
    files = open_archived_layout(reference, resolved, spools)
    with undo_on_error(files.close):
        source = LayoutSource(reference, path_identity(Transport.OCI_ARCHIVE, resolved), files, platform)
        source.kept += files.kept
        return source


def open_archived_layout(reference: ImageReference, resolved: str, spools: Spools) -> ArchivedLayout:
    """The files of the layout in the archive at `resolved`, whatever images are in it. Raises as `open_archive`."""
    return ArchivedLayout(open_archive(resolved, reference.text, spools))


class ArchivedLayout:
    """The files of a layout in an archive; owns it."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.kept = archive.kept

    def read_index(self) -> bytes:
        """`index.json`."""
        return self._archive.read_member(INDEX_NAME.encode(), MANIFEST_LIMIT)

    def open_blob(self, digest: Digest) -> FileBlob:
        """The member under `blobs/`."""
        name = f"blobs/{digest.algorithm}/{digest.encoded}".encode()
        try:
            return self._archive.open_member(name, ErrorCode.BLOB_NOT_FOUND)
        except NotFoundError as error:
            error.digest = str(digest)
            raise

    def close(self) -> None:
        """Release the archive."""
        self._archive.close()


def _shown(name: bytes) -> str:
    return quote(name.decode("utf-8", "backslashreplace"))

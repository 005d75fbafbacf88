# SPDX-License-Identifier: Apache-2.0
"""Writes an OCI image layout so that a kill at any moment leaves nothing that a later run cannot use.

A blob grows as a part beside its future place (`partial`) and moves there once it is verified and on disk. The index
is replaced as a whole, last, under a lock: a name appears when all that it stands for is there. Several processes may
write to one layout; each blob is fetched by one of them, and the others wait for it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from .. import log
from ..content import MANIFEST_LIMIT, BlobAccess, BlobReader, BytesReader, Release, copy_verified, undo_on_error
from ..errors import ContentMismatchError, ErrorCode, InvalidDocumentError, SourceError, quote, refused
from ..model import mediatype
from ..model.descriptor import REF_NAME, Descriptor, Digest
from ..model.jsontree import parse_json
from ..partial.blob import OpenRest, PartialBlob
from ..partial.part import Part, write_at
from ..partial.store import PartStore
from ..sources.files import open_regular, read_document
from ..sources.layout import INDEX_NAME, entries_of

LAYOUT_NAME = "oci-layout"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_POLL = 0.1  # seconds between two looks at what another process does

Follow = Callable[[BlobReader], BlobReader]
Moved = Callable[[int, int], object]


class LayoutWriter:
    """The layout in the directory `path`, which is made when it is not there; safe from several threads.

    `stall` is how many seconds a blob that another process fetches may stand still, or grow by less than `growth`
    bytes, and `longest` how many it may take in all; 0 is no limit.
    """

    def __init__(self, path: str, stall: float, *, growth: int = 1, longest: float = 0.0) -> None:
        """Raises SourceError, InvalidDocumentError; a directory that holds something else is refused."""
        self.path = path
        self._stall = stall
        self._growth = max(1, growth)
        self._longest = longest or math.inf
        self._stores: dict[str, PartStore] = {}
        self._lock = threading.Lock()
        with refused(path):
            with suppress(FileExistsError):
                os.mkdir(path)
            self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with undo_on_error(self.close), refused(path), self._locked():
            self._require_layout()

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there and right; one that is damaged is removed.

        Raises SourceError, and ContentMismatchError for a right one of another size than somebody states: it stays.
        """
        name = _blob_name(descriptor.digest)
        with refused(f"{self.path}/{name}"):
            try:
                file_descriptor = open_regular(os.fsencode(name), self._root)
            except FileNotFoundError:
                return False
            with open(file_descriptor, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                right = hashlib.file_digest(file, descriptor.digest.hasher).hexdigest() == descriptor.digest.encoded
        if not right:
            log.warning("%s/%s: damaged, and fetched again", self.path, name)
            self._forget(name)
        elif size != descriptor.size:
            why = f"{self.path}/{name}: expected {descriptor.size} bytes, the blob of this digest has {size}"
            raise ContentMismatchError(why, digest=str(descriptor.digest))
        return right

    def begin(self, descriptor: Descriptor) -> Part | None:
        """The part that the blob grows in, for the caller to close; None when the blob is there. Raises SourceError."""
        if self.has(descriptor):
            return None
        store = self._store(descriptor.digest)
        seen, now = 0, time.monotonic()
        until, ends = now + self._stall, now + self._longest
        while (part := self._claim(store, descriptor)) is None:
            if self.has(descriptor):
                return None  # another process had begun it
            size, now = self._part_size(descriptor.digest), time.monotonic()
            if size >= seen + self._growth:
                seen, until = size, now + self._stall
            if now > min(until, ends):
                raise SourceError(
                    f"{self.path}: blob {descriptor.digest}: its part is in use or not ours, and does not grow: "
                    f"end the process that has it, or delete it"
                )
            time.sleep(_POLL)
        if self.has(descriptor):  # it was finished between two looks
            part.discard()
            return None
        return part

    def copy(self, descriptor: Descriptor, open_rest: OpenRest, follow: Follow, moved: Moved) -> bool:
        """Bring a blob here from where `open_rest` has it; whether that was needed.

        `follow` wraps the reader, `moved` is told of bytes and how many of them in all had been here. Raises
        ContentMismatchError when no place has it right, SourceError.
        """
        part = self.begin(descriptor)
        if part is None:
            return False
        store = self._store(descriptor.digest)
        blob = PartialBlob(part, descriptor, BlobAccess.VERIFIED, open_rest, lambda: self._claim(store, descriptor))
        reader = follow(blob)

        def write(view: memoryview) -> None:
            self._require_kept(blob, descriptor)
            moved(len(view), blob.kept)

        try:
            while True:
                try:
                    copy_verified(reader, write, descriptor, release=Release.AS_READ)
                    break
                except ContentMismatchError as error:
                    if not reader.restart(error):  # nothing has left: every place may be tried, however much was read
                        raise
            part = self._require_kept(blob, descriptor)
            with refused(part.where):
                part.publish(_blob_name(descriptor.digest), self._root)
        finally:
            reader.close()
        return True

    def write(self, data: bytes, digest: Digest) -> None:
        """A small blob that is in memory. Raises ContentMismatchError, SourceError."""
        described = Descriptor("", digest, len(data))
        self.copy(described, lambda offset: BytesReader(data[offset:]), lambda reader: reader, lambda count, kept: None)

    def add_entries(self, entries: Sequence[Mapping[str, object]]) -> None:
        """Add named entries to the index, each in the place of one that has its name. Raises SourceError."""
        where = f"{self.path}/{INDEX_NAME}"
        with refused(where):
            for algorithm in self._stores:
                self._sync(f"blobs/{algorithm}")
            with self._locked():
                index = self._read_index(where)
                names = {_name_of(entry) for entry in entries} - {None}
                kept = [entry for entry in index["manifests"] if _name_of(entry) not in names and entry not in entries]
                index["manifests"] = [*kept, *entries]
                data = json.dumps(index, separators=(",", ":")).encode()
                if len(data) > MANIFEST_LIMIT:
                    why = f"larger than {MANIFEST_LIMIT} bytes with the new entries"
                    raise InvalidDocumentError(where, why, code=ErrorCode.LIMIT_EXCEEDED)
                entries_of(data, where)  # what its readers would refuse is not written
                self._replace(INDEX_NAME, data)

    def close(self) -> None:
        """Release the directory."""
        for store in self._stores.values():
            store.close()
        os.close(self._root)

    def _require_kept(self, blob: PartialBlob, descriptor: Descriptor) -> Part:
        """The part of the blob, while all that arrived could be kept. Raises SourceError."""
        if blob.part is None:
            raise SourceError(f"{self.path}: blob {descriptor.digest}: another process has its part now")
        if blob.part.fault is not None:
            with refused(blob.part.where):
                raise blob.part.fault
        return blob.part

    def _store(self, digest: Digest) -> PartStore:
        """Where parts of blobs under this algorithm grow; makes its directory. Raises SourceError."""
        with self._lock:
            if digest.algorithm not in self._stores:
                path = f"blobs/{digest.algorithm}"
                for name in ("blobs", path):
                    with refused(f"{self.path}/{name}"), suppress(FileExistsError):
                        os.mkdir(name, dir_fd=self._root)
                self._stores[digest.algorithm] = PartStore(f"{self.path}/{path}", 0, minimum=0, private=False)
            return self._stores[digest.algorithm]

    def _require_layout(self) -> None:
        where = f"{self.path}/{LAYOUT_NAME}"
        try:
            descriptor = os.open(LAYOUT_NAME, os.O_RDONLY | _FLAGS, dir_fd=self._root)
        except FileNotFoundError:
            with os.scandir(self._root) as found:
                others = [entry.name for entry in found if entry.name not in ("blobs", f".{LAYOUT_NAME}.new")]
            if others:
                why = f"{self.path}: expected an OCI layout or an empty directory, found {quote(min(others))}"
                raise SourceError(why) from None
            self._replace(LAYOUT_NAME, LAYOUT)
            return
        version = parse_json(read_document(descriptor, where), where)["imageLayoutVersion"].as_str()
        if version.partition(".")[0] != "1":
            raise InvalidDocumentError(where, f"expected imageLayoutVersion 1, found {quote(version)}")

    def _claim(self, store: PartStore, descriptor: Descriptor) -> Part | None:
        """The part, None when it is in use or not ours. Raises SourceError."""
        with refused(f"{store.path}: blob {descriptor.digest}"):
            return store.claim(descriptor)

    def _part_size(self, digest: Digest) -> int:
        name = f"blobs/{digest.algorithm}/{digest.algorithm}-{digest.encoded}.part"
        try:
            return os.stat(name, dir_fd=self._root, follow_symlinks=False).st_size
        except OSError:
            return 0

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else changes names at the top of the layout, which takes milliseconds. Raises OSError."""
        until = time.monotonic() + self._stall
        while True:
            try:
                fcntl.flock(self._root, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > until:
                    why = (
                        f"expected to be alone with the layout within {self._stall:g} s, found it locked; run it again"
                    )
                    raise BlockingIOError(error.errno, why) from error
            time.sleep(_POLL)
        try:
            yield
        finally:
            fcntl.flock(self._root, fcntl.LOCK_UN)

    def _read_index(self, where: str) -> dict[str, list[object]]:
        try:
            descriptor = os.open(INDEX_NAME, os.O_RDONLY | _FLAGS, dir_fd=self._root)
        except FileNotFoundError:
            return {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": []}  # type: ignore[dict-item]
        root = parse_json(read_document(descriptor, where), where)
        listed = root["manifests"]
        manifests = [] if listed.is_null() else [entry.value for entry in listed.items()]
        return {**root.value, "manifests": manifests}

    def _sync(self, name: str) -> None:
        """Let the names in a directory be on disk. Raises OSError."""
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _forget(self, name: str) -> None:
        """Let there be no file `name`. Raises OSError."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._root)

    def _replace(self, name: str, data: bytes) -> None:
        """Put `data` in the place of the file `name`, at once or not at all. Raises OSError."""
        new = f".{name}.new"
        self._forget(new)  # of a run that was killed; were it a link, another file would be written to
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o644, dir_fd=self._root)
        with undo_on_error(partial(self._forget, new)):
            try:
                write_at(descriptor, data, 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(new, name, src_dir_fd=self._root, dst_dir_fd=self._root)
        os.fsync(self._root)


def _blob_name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.encoded}"


def _name_of(entry: object) -> object:
    """The name of an entry of the index, None when it has none."""
    annotations = entry.get("annotations") if isinstance(entry, Mapping) else None
    return annotations.get(REF_NAME) if isinstance(annotations, Mapping) else None

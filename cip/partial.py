# SPDX-License-Identifier: Apache-2.0
"""Keeps what arrived of large blobs across processes and reboots, so that no byte travels twice (`--partial-dir`).

Rules. `ALGORITHM-HEX.part` holds the first bytes of a blob, `ALGORITHM-HEX.sums` a head and the sha256 of each BLOCK
of them. A block counts once its sum is written; on its way out each block is compared with its sum, and the first one
that differs cuts the part there, so that a kill or a power cut costs a block at most. What is wrong together with its
sum is found by the blob's own digest, and the part is deleted. One reader at a time has a part: it holds a lock, and
whoever comes meanwhile fetches without. A link, another user's file, one that others may read or write and one that
is longer than the blob are never used. Nothing here fails a transfer: what cannot be kept is not kept. Complete parts
stay, because nobody tells us when their reader has stored what it got; they go by age or for the quota.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from . import log
from .content import BlobAccess, BlobReader
from .errors import CipError, ContentMismatchError, NetworkError, SourceError, quote
from .model.descriptor import UNKNOWN_SIZE, Descriptor
from .sources.base import OpenRest

BLOCK = 1024 * 1024  # bytes under one sum
MINIMUM = 4 * BLOCK  # bytes of a blob from which on it is worth two files
AGE_LIMIT = 7 * 24 * 3600.0  # seconds since a part was last used
RESERVE = 256 * 1024 * 1024  # bytes of the file system that are left to others
SYNC_EVERY = 64  # blocks after which they are on disk, whatever becomes of the machine
_HEAD = b"container-image-proxy part v1\n".ljust(32, b"\n")
_SUM = 32  # bytes, as many as the head has
_NAME = re.compile(r"((?:sha256|sha384|sha512)-[0-9a-f]{64,128})\.(part|sums)")
_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OPEN_TRIES = 3  # an entry may be removed between being opened and being locked


class PartStore:
    """The parts below one directory; safe from any thread, and other processes may use the directory, too.

    `limit` is bytes of all parts together, 0 is none; smaller blobs than `minimum` are not kept. `private`: nobody else
    may make names in the directory.
    """

    def __init__(self, path: str, limit: int, *, minimum: int = MINIMUM, private: bool = True) -> None:
        """Make the directory if its parent is there, and throw old parts away. Raises SourceError."""
        self.path = path
        self._limit = limit
        self._minimum = minimum
        # A part on its way to a place that others read may be killed just before it gets there.
        self._forbidden = 0o077 if private else 0o022
        self._mode = 0o666 & ~self._forbidden  # from the beginning: a sandbox forbids to change it later
        self._told: set[str] = set()
        self._lock = threading.Lock()
        try:
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
            self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SourceError(f"{quote(path)}: no parts of blobs can be kept: {_reason(error)}") from error
        found = os.fstat(self._directory)
        if private and (found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
            os.close(self._directory)
            raise SourceError(
                f"{quote(path)}: no parts of blobs can be kept: expected a directory that only this user can change"
            )
        self._throw_away_old()

    def open_blob(self, descriptor: Descriptor, access: BlobAccess, open_rest: OpenRest) -> BlobReader:
        """The blob: what is here of it, then the rest; from `open_rest` alone when nothing of it can be kept."""
        part = self.open(descriptor)
        if part is None:
            return open_rest(0)
        return PartialBlob(part, descriptor, access, open_rest, lambda: self.open(descriptor))

    def open(self, descriptor: Descriptor) -> Part | None:
        """The part of a blob, for the caller to close; None when it is in use, or may not or cannot be kept."""
        if descriptor.size == UNKNOWN_SIZE or descriptor.size < self._minimum:
            return None
        try:
            return self.claim(descriptor)
        except OSError as error:
            log.debug("%s: blob %s is not kept: %s", self.path, descriptor.digest, _reason(error))
            return None

    def claim(self, descriptor: Descriptor) -> Part | None:
        """The same for a blob of any size; None when it is in use or not ours. Raises OSError."""
        stem = f"{descriptor.digest.algorithm}-{descriptor.digest.encoded}"
        with self._lock:
            data = self._open_locked(f"{stem}.part")
            if data is None:
                return None
            try:
                sums = os.open(f"{stem}.sums", _OPEN, 0o600, dir_fd=self._directory)
            except OSError:
                os.close(data)
                raise
        if _is_ours(data, self._forbidden) and _is_ours(sums, self._forbidden):
            return Part(self, stem, descriptor.size, data, sums)
        os.close(data)
        os.close(sums)
        if stem not in self._told:
            log.warning("%s: a file named %s is not a part of ours, and not used", self.path, stem)
        self._told.add(stem)
        return None

    def close(self) -> None:
        """Release the directory; parts that are open stay usable, and keep nothing more."""
        with self._lock:
            if self._directory >= 0:
                os.close(self._directory)
                self._directory = -1

    def has_room(self) -> bool:
        """Whether another block may be kept; unused parts make room for it, the one that was used least lately first.

        Raises OSError.
        """
        with self._lock:
            room = os.fstatvfs(self._directory)
            if room.f_bavail * room.f_frsize < RESERVE + BLOCK:
                return False
            if not self._limit:
                return True
            entries = self._entries()
            used = sum(entry.size for entry in entries)
            for entry in entries:
                if used + BLOCK <= self._limit:
                    break
                if self._remove_unused(entry.stem):
                    used -= entry.size
            return used + BLOCK <= self._limit

    def remove(self, stem: str) -> None:
        """Delete a part whose lock the caller holds."""
        for suffix in ("sums", "part"):
            with suppress(OSError):
                os.unlink(f"{stem}.{suffix}", dir_fd=self._directory)

    def publish(self, stem: str, path: str, directory: int) -> None:
        """Move a complete part to `path` below the descriptor `directory`. Raises OSError."""
        os.rename(f"{stem}.part", path, src_dir_fd=self._directory, dst_dir_fd=directory)
        self.remove(stem)

    def _open_locked(self, name: str) -> int | None:
        """A descriptor of the file `name`, which holds its lock. None when another reader has it. Raises OSError."""
        for _ in range(_OPEN_TRIES):
            descriptor = os.open(name, _OPEN, self._mode, dir_fd=self._directory)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(FileNotFoundError):
                    there = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
                    if os.path.samestat(there, os.fstat(descriptor)):
                        return descriptor
            except OSError as error:
                os.close(descriptor)
                if isinstance(error, BlockingIOError):
                    return None
                raise
            os.close(descriptor)
        return None

    def _entries(self) -> list[_Entry]:
        """What lies in the directory under our names, the one used least lately first; nothing else is ever touched."""
        entries: dict[str, _Entry] = {}
        with os.scandir(self._directory) as items:
            for item in items:
                matched = _NAME.fullmatch(item.name)
                if matched is None:
                    continue
                with suppress(FileNotFoundError):
                    found = item.stat(follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
                        other = entries.get(matched[1], _Entry("", 0, 0.0))
                        used_at = max(found.st_mtime, other.used_at)
                        entries[matched[1]] = _Entry(matched[1], found.st_size + other.size, used_at)
        return sorted(entries.values(), key=lambda entry: entry.used_at)

    def _throw_away_old(self) -> None:
        now = time.time()
        try:
            with self._lock:
                for entry in self._entries():
                    if now - entry.used_at > AGE_LIMIT:
                        self._remove_unused(entry.stem)
        except OSError as error:
            log.debug("%s: %s", self.path, _reason(error))

    def _remove_unused(self, stem: str) -> bool:
        """Delete a part unless somebody has it; whether it is gone."""
        try:
            held = self._open_locked(f"{stem}.part")
        except OSError:
            return False
        if held is None:
            return False
        self.remove(stem)
        os.close(held)
        return True


class _Entry(NamedTuple):
    """The files of a part: their bytes, and when it was last used, in seconds since the epoch."""

    stem: str
    size: int
    used_at: float


class Part:
    """The first bytes of one blob, whose lock we hold: first read, then appended to. One thread uses it, any closes.

    `fault` is why no more is kept, None while all is.
    """

    def __init__(self, store: PartStore, stem: str, size: int, data: int, sums: int) -> None:
        """Owns both descriptors. Raises OSError, having closed them."""
        self._store = store
        self._stem = stem
        self._size = size
        self._files = (data, sums)
        self._open = True
        self._lock = threading.Lock()
        self._block = memoryview(b"")  # read and compared, not yet handed out
        self._read = 0  # bytes that were handed out or are in `_block`
        self._hasher = hashlib.sha256()  # of the block that is being appended
        self.fault: OSError | None = None
        self.where = f"{store.path}/{stem}.part"
        try:
            self._length = self._claimed()  # bytes that count, then bytes that are there
        except OSError:
            self._close_files()
            raise
        with suppress(OSError):  # a sandbox may forbid it: the age counts from the last byte then
            os.pwrite(sums, _HEAD, 0)  # so that it counts as used; a confined process may not set times

    @property
    def length(self) -> int:
        """Bytes that are here; those not read yet may turn out to be fewer."""
        return self._length

    def is_complete(self) -> bool:
        """Whether every byte of the blob is here."""
        return self.fault is None and self._length == self._size

    def readinto(self, buffer: memoryview) -> int:
        """The next bytes that are here and as their sum says; 0 at the end of them."""
        if not len(self._block) and self._read < self._length:
            self._block = self._compared_block()
        count = min(len(self._block), len(buffer))
        buffer[:count] = self._block[:count]
        self._block = self._block[count:]
        return count

    def append(self, data: memoryview) -> None:
        """Keep the next bytes, as long as that is possible; never raises."""
        while len(data) and self.fault is None:
            piece = data[: BLOCK - self._length % BLOCK]
            data = data[len(piece) :]
            try:
                with self._lock:
                    self._append(piece)
            except OSError as error:
                self.fault = error
                log.debug("%s: no more of it is kept: %s", self.where, _reason(error))

    def discard(self) -> None:
        """Delete what is here: it is wrong."""
        with self._lock:
            self._block = memoryview(b"")
            if self._open:
                self._store.remove(self._stem)
                self._close_files()
            self.fault = self.fault or OSError(0, "it was wrong")

    def publish(self, path: str, directory: int) -> None:
        """Move the complete part, which is on disk then, to `path` below the descriptor `directory`. Raises OSError."""
        with self._lock:
            data, _ = self._require_open()
            os.fsync(data)
            self._store.publish(self._stem, path, directory)

    def close(self) -> None:
        """Give the part up to the next reader, unless it is empty; safe to call twice and from another thread."""
        with self._lock:
            if self._open and not self._length and self._size:
                self._store.remove(self._stem)
            self._close_files()

    def _close_files(self) -> None:
        if self._open:
            self._open = False
            for descriptor in self._files:
                os.close(descriptor)

    def _require_open(self) -> tuple[int, int]:
        if not self._open:
            raise OSError(0, "it was closed")
        return self._files

    def _claimed(self) -> int:
        """Bytes under sums. A part that is longer than its blob, or whose sums are not ours, begins anew."""
        data, sums = self._files
        length, listed = os.fstat(data).st_size, os.fstat(sums).st_size
        blocks = max(0, listed - len(_HEAD)) // _SUM
        all_blocks = -(-self._size // BLOCK)
        if length > self._size or blocks > all_blocks or os.pread(sums, len(_HEAD), 0) != _HEAD:
            blocks = 0
        claimed = self._size if blocks == all_blocks else blocks * BLOCK
        if claimed > length:  # a power cut took data that its sums outlived
            claimed = length // BLOCK * BLOCK
        self._cut(claimed)
        return claimed

    def _cut(self, length: int) -> None:
        """Let the part end at `length`, which is the end of a block. Raises OSError."""
        data, sums = self._files
        os.ftruncate(data, length)
        if not length:
            os.pwrite(sums, _HEAD, 0)
        os.ftruncate(sums, len(_HEAD) + -(-length // BLOCK) * _SUM)

    def _compared_block(self) -> memoryview:
        """The next block; nothing, and the part ends before it, when it is not as its sum says."""
        wanted = min(BLOCK, self._length - self._read)
        with self._lock:
            try:
                data, sums = self._require_open()
                block = os.pread(data, wanted, self._read)
                position = len(_HEAD) + self._read // BLOCK * _SUM
                if len(block) == wanted and hashlib.sha256(block).digest() == os.pread(sums, _SUM, position):
                    self._read += wanted
                    return memoryview(block)
                log.warning("%s: damaged after %d bytes, which are fetched again", self.where, self._read)
                self._length = self._read
                self._cut(self._length)
            except OSError as error:
                self._length = self._read
                self.fault = error
        return memoryview(b"")

    def _append(self, piece: memoryview) -> None:
        data, sums = self._require_open()
        block, inside = divmod(self._length, BLOCK)
        if not inside:
            if not self._store.has_room():
                raise OSError(errno.ENOSPC, "the quota or the file system has no room for more")
            self._hasher = hashlib.sha256()
        position = self._length
        left = piece
        while len(left):
            count = os.pwrite(data, left, position)
            position += count
            left = left[count:]
        self._hasher.update(piece)
        self._length = position
        if position % BLOCK and position != self._size:
            return
        os.pwrite(sums, self._hasher.digest(), len(_HEAD) + block * _SUM)
        if not (block + 1) % SYNC_EVERY:
            os.fdatasync(data)
            os.fdatasync(sums)


class PartialBlob:
    """A blob whose first bytes come from its part, and whose other bytes are kept there as they arrive.

    A raw blob is checked here as well: its parent would find it wrong, and be given the same wrong part again. `renew`
    opens the part anew once it was deleted.
    """

    def __init__(
        self, part: Part, descriptor: Descriptor, access: BlobAccess, open_rest: OpenRest,
        renew: Callable[[], Part | None],
    ) -> None:  # fmt: skip
        self.part: Part | None = part
        self._descriptor = descriptor
        self._open_rest = open_rest
        self._renew = renew
        self._hasher = descriptor.digest.hasher() if access is BlobAccess.RAW else None
        self._reader: BlobReader | None = None
        self._position = 0
        self._kept = 0  # bytes that came from the part
        self._where = part.where
        self._lock = threading.Lock()
        self._closed = False

    @property
    def size(self) -> int:
        """Bytes in the whole blob, as the descriptor says."""
        return self._descriptor.size

    @property
    def kept(self) -> int:
        """Bytes so far that did not have to be fetched."""
        return self._kept

    def readinto(self, buffer: memoryview, /) -> int:
        """The next bytes; those that are here without asking anybody."""
        count = 0
        part = self.part
        if self._reader is None and part is not None:
            count = part.readinto(buffer)
            self._kept += count
        if not count and (self._reader is not None or self._position < self.size):
            reader = self._reader or self._continue()
            count = reader.readinto(buffer)
            if part is not None:
                part.append(buffer[:count])
        self._position += count
        if self._hasher is not None:
            self._judge(self._hasher, buffer[:count])
        return count

    def blame(self, error: ContentMismatchError) -> ContentMismatchError:
        """Delete the part, which is as wrong as the blob; of a mixture both are named, and no host."""
        self._drop_part()
        if self._reader is not None:
            error = self._reader.blame(error)
        if self._kept:
            attempts, error = error.attempts, error.served_by(self._where)
            error.attempts = attempts
        return error

    def restart(self, error: ContentMismatchError) -> bool:
        """Begin again with an empty part: where the rest came from, or at another place if all came from there."""
        self._drop_part()
        self.part = self._renew()
        mixed, self._kept, self._position = self._kept > 0, 0, 0
        if not mixed and self._reader is not None:
            return self._reader.restart(error)
        if self._reader is not None:
            self._reader.close()
        self._continue()
        return True

    def close(self) -> None:
        """Release the blob and leave the part to the next one."""
        with self._lock:
            self._closed = True
            reader = self._reader
        if reader is not None:
            reader.close()
        if self.part is not None:
            self.part.close()

    def _continue(self) -> BlobReader:
        """The reader of what is not here. Raises NetworkError once nobody wants it any more."""
        reader = self._open_rest(self._position)
        with self._lock:
            self._reader = reader
            closed = self._closed
        if closed:
            reader.close()
            raise NetworkError(f"blob {self._descriptor.digest}: closed", digest=str(self._descriptor.digest))
        if self._position:
            log.debug("blob %s: %d bytes were kept in %s", self._descriptor.digest, self._position, self._where)
        return reader

    def _judge(self, hasher: hashlib._Hash, view: memoryview) -> None:
        hasher.update(view)
        if self._position == self.size and hasher.hexdigest() != self._descriptor.digest.encoded:
            log.warning("%s: wrong, and deleted", self._where)
            self._drop_part()

    def _drop_part(self) -> None:
        part, self.part = self.part, None
        if part is not None:
            part.discard()


def open_part_store(path: str, limit: int) -> PartStore | None:
    """The store that `--partial-dir` names; None, with a warning, when it cannot be used."""
    try:
        return PartStore(path, limit)
    except CipError as error:
        log.warning("--partial-dir: %s", error)
        return None


def _is_ours(descriptor: int, forbidden: int) -> bool:
    """Whether a file was made by this program and user, and others have none of the `forbidden` rights to it."""
    found = os.fstat(descriptor)
    private = stat.S_ISREG(found.st_mode) and not found.st_mode & forbidden
    return private and found.st_uid == os.geteuid() and found.st_nlink == 1


def _reason(error: OSError) -> str:
    return (error.strerror or "unknown error").lower()

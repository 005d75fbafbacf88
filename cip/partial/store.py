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

import fcntl
import os
import re
import stat
import threading
import time
from contextlib import suppress
from typing import NamedTuple

from .. import log
from ..content import BlobAccess, BlobReader
from ..errors import CipError, SourceError, quote, refused, system_reason
from ..model.descriptor import UNKNOWN_SIZE, Descriptor
from .blob import OpenRest, PartialBlob
from .part import BLOCK, Part

MINIMUM = 4 * BLOCK  # bytes of a blob from which on it is worth two files
AGE_LIMIT = 7 * 24 * 3600.0  # seconds since a part was last used
RESERVE = 256 * 1024 * 1024  # bytes of the file system that are left to others
_NAME = re.compile(r"((?:sha256|sha384|sha512)-[0-9a-f]{64,128})\.(part|sums)")
_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LOOKS = 64  # at all parts, while as many bytes are kept as there may be
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
        self._unseen = 0  # bytes that may be kept before somebody looks what is there
        self._lock = threading.Lock()
        with refused(f"{quote(path)}: no parts of blobs can be kept"):
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
            self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        found = os.fstat(self._directory)
        if private and (found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
            os.close(self._directory)
            why = f"{quote(path)}: no parts of blobs can be kept: expected a directory that only this user can change"
            raise SourceError(why)
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
            log.debug("%s: blob %s is not kept: %s", self.path, descriptor.digest, system_reason(error))
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
            self._unseen -= BLOCK
            if self._unseen >= 0:
                return True
            entries = self._entries()
            used = sum(entry.size for entry in entries)
            for entry in entries:
                if used + BLOCK <= self._limit:
                    break
                if self._remove_unused(entry.stem):
                    used -= entry.size
            # Blocks that need no other look: a directory has thousands of parts, and others may fill it, too.
            self._unseen = min(self._limit - used - BLOCK, self._limit // _LOOKS)
            return self._unseen >= 0

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
            log.debug("%s: %s", self.path, system_reason(error))

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

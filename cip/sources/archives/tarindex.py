# SPDX-License-Identifier: Apache-2.0
"""Finds the members of an uncompressed tar archive that stays where it is.

One pass over the headers remembers, for each name, a hash and where its header stands: 28 bytes a member at most, so
that an archive of a million members costs no more than its first megabytes. A name is looked up in a hash table, by
reading the headers that have its hash again. Names that climb (`..`) or start at the root are never found, directories
and devices neither.
Formats: POSIX.1-1988 (ustar) and -2001 (pax), GNU; pax(1) "Extended Description", tar(5).
"""

from __future__ import annotations

import os
from array import array
from typing import NamedTuple

from ...content import require_time
from ...errors import ErrorCode, InvalidDocumentError, quote, refused

BLOCK = 512
MEMBER_LIMIT = 1_000_000
MEMBER_COST = 33  # bytes of memory for one, at most
EXTENSION_LIMIT = 1024 * 1024  # bytes of one extended header (decisions.md section 9)
_LOOK_MEMBERS = 1000  # between two looks at the time
_CHAIN_LIMIT = 16  # extended headers in front of one member
_WINDOW = 16 * BLOCK  # bytes read at once: small members stand close together
_COMPARED = 256 * 1024  # bytes of two members of one name that are compared at once
_ZERO = bytes(BLOCK)
_FILES = frozenset(b"0\x007")
_HARD_LINK, _SYMBOLIC_LINK = b"12"
_WITHOUT_CONTENT = frozenset(b"123456")
_GNU_NAME, _GNU_LINK, _PAX, _PAX_GLOBAL, _PAX_SUN, _GNU_SPARSE = b"LKxgXS"


class TarMember(NamedTuple):
    """A file or a link in an archive. `name` is cleaned; content is `size` bytes from `start`.

    `link` is the target of a link, beginning at the archive's root; empty when it leads out of the archive.
    """

    name: bytes
    start: int
    size: int
    link: bytes | None = None


class TarIndex:
    """The members of the archive in `descriptor`, which the caller keeps open. `what` names it in messages."""

    def __init__(self, descriptor: int, what: str) -> None:
        """Read all headers. Raises InvalidDocumentError (also limit-exceeded), SourceError."""
        self._descriptor = descriptor
        self._what = what
        self._hashes = array("q")
        self._positions = array("Q")
        self._scan()
        # A hash table: for each of its places the first member, for each member the next one, by number and from 1.
        self._mask = (1 << max(4, len(self._hashes).bit_length())) - 1
        self._first = array("I", bytes(4 * (self._mask + 1)))
        self._next = array("I", bytes(4 * len(self._hashes)))
        for number in range(len(self._hashes), 0, -1):
            place = self._hashes[number - 1] & self._mask
            self._next[number - 1] = self._first[place]
            self._first[place] = number
        self._compared = bytearray(len(self._hashes))  # 1: all others of its name were found to be the same

    def __len__(self) -> int:
        """How many members can be found."""
        return len(self._hashes)

    def find(self, name: bytes) -> TarMember | None:
        """The member `name`, or None; of several that are the same, the first.

        Raises InvalidDocumentError when two of this name differ: readers disagree about which one counts. SourceError.
        """
        wanted = hash(name)
        found: TarMember | None = None
        first = 0
        number = self._first[wanted & self._mask]
        while number:
            index, number = number - 1, self._next[number - 1]
            if self._hashes[index] != wanted:
                continue
            require_time()
            member, _ = _Headers(self._descriptor, self._what).read_member(self._positions[index])
            if member is None or member.name != name:
                continue
            if found is not None:
                self._require_equal(found, member)
            elif self._compared[index]:
                return member
            else:
                found, first = member, index
        if found is not None:
            self._compared[first] = 1
        return found

    def _require_equal(self, first: TarMember, second: TarMember) -> None:
        """Return only for two members with the same content, which is compared once."""
        same = (first.size, first.link) == (second.size, second.link)
        offset = 0
        while same and offset < first.size:
            require_time()
            size = min(_COMPARED, first.size - offset)
            one, other = (_read(self._descriptor, each.start + offset, size, self._what) for each in (first, second))
            same = one == other and len(one) == size
            offset += size
        if not same:
            raise InvalidDocumentError(self._what, f"two members are named {quote(_text(first.name))}, and they differ")

    def _scan(self) -> None:
        headers = _Headers(self._descriptor, self._what)
        position = 0
        count = 0
        while not headers.at_end(position):
            count += 1
            if count > MEMBER_LIMIT:
                why = f"more than {MEMBER_LIMIT} members"
                raise InvalidDocumentError(self._what, why, code=ErrorCode.LIMIT_EXCEEDED)
            if count % _LOOK_MEMBERS == 0:
                require_time()
            member, following = headers.read_member(position)
            if member is not None:
                self._hashes.append(hash(member.name))
                self._positions.append(position)
            position = following


class _Headers:
    """Reads headers through a small window; for one thread."""

    def __init__(self, descriptor: int, what: str) -> None:
        self._descriptor = descriptor
        self._what = what
        self._window = b""
        self._window_start = 0
        with refused(what):
            self._size = os.fstat(descriptor).st_size

    def at_end(self, position: int) -> bool:
        """Whether the archive ends here: by a zero block, or with the file."""
        if position >= self._size and position > 0:
            return True
        return self._block(position) == _ZERO

    def read_member(self, position: int) -> tuple[TarMember | None, int]:
        """The member whose first header stands at `position`, None when it cannot be named; where the next one is."""
        name = link = None
        pax_size: int | None = None
        sparse = False
        for _ in range(_CHAIN_LIMIT):
            header = self._checked_block(position)
            kind = header[156]
            content = position + BLOCK
            size = self._number(header[124:136], position)
            if kind in (_GNU_NAME, _GNU_LINK):
                text = self._extension(content, size).partition(b"\0")[0]
                name, link = (text, link) if kind == _GNU_NAME else (name, text)
            elif kind in (_PAX, _PAX_SUN):
                records = self._pax_records(content, size)
                name = records.get(b"path", name)
                link = records.get(b"linkpath", link)
                sparse = any(key.startswith(b"GNU.sparse.") for key in records)
                if b"size" in records:
                    pax_size = self._pax_number(records[b"size"], position)
            elif kind != _PAX_GLOBAL:  # a comment of the whole archive: no reader takes names or sizes from it
                break
            position = self._after(content, size)
        else:
            raise self._broken(position, f"more than {_CHAIN_LIMIT} extended headers in a row")
        size = pax_size if pax_size is not None else size
        if kind in _WITHOUT_CONTENT:
            size = 0
        following = self._after(content, size)
        if kind == _GNU_SPARSE:  # where it ends is told by blocks that only an unpacker understands
            raise self._broken(position, "a sparse member, which cannot be read in place")
        name = name if name is not None else _header_name(header)
        cleaned = clean_name(name)
        if cleaned is None or sparse or name.endswith(b"/"):
            return None, following
        if kind in _FILES:
            return TarMember(cleaned, content, size), following
        if kind not in (_HARD_LINK, _SYMBOLIC_LINK):
            return None, following
        target = link if link is not None else header[157:257].partition(b"\0")[0]
        if kind == _SYMBOLIC_LINK and not target.startswith(b"/"):
            target = cleaned.rpartition(b"/")[0] + b"/" + target
            target = target.lstrip(b"/")
        return TarMember(cleaned, content, 0, resolve_name(target) or b""), following

    def _after(self, content: int, size: int) -> int:
        """Where the header behind `size` bytes of content stands; they must be in the file."""
        if content + size > self._size:
            raise self._broken(content - BLOCK, f"expected {size} bytes of content, the file ends before them")
        return content + size + -size % BLOCK

    def _block(self, position: int) -> bytes:
        offset = position - self._window_start
        if not 0 <= offset <= len(self._window) - BLOCK:
            self._window = _read(self._descriptor, position, _WINDOW, self._what)
            self._window_start, offset = position, 0
        block = self._window[offset : offset + BLOCK]
        if len(block) < BLOCK:
            raise self._broken(position, "expected a header of 512 bytes, the file ends before it")
        return block

    def _checked_block(self, position: int) -> bytes:
        header = self._block(position)
        wrong = "not a tar archive" if position == 0 else "the header's checksum is wrong"
        stated = self._number(header[148:156], position, wrong)
        if stated != sum(header) - sum(header[148:156]) + 8 * 0x20:
            raise self._broken(position, wrong)
        return header

    def _extension(self, position: int, size: int) -> bytes:
        require_time()
        if size > EXTENSION_LIMIT:
            why = f"an extended header larger than {EXTENSION_LIMIT} bytes"
            raise InvalidDocumentError(f"{self._what}: byte {position}", why, code=ErrorCode.LIMIT_EXCEEDED)
        data = _read(self._descriptor, position, size, self._what)
        if len(data) < size:
            raise self._broken(position, "the file ends inside an extended header")
        return data

    def _pax_records(self, position: int, size: int) -> dict[bytes, bytes]:
        """The records `LENGTH KEY=VALUE\\n` of an extended header (pax(1), "pax Extended Header")."""
        rest = self._extension(position, size)
        records = {}
        start = 0
        while start < len(rest):
            blank = rest.find(b" ", start, start + 20)
            digits = rest[start:blank] if blank >= 0 else b""
            end = start + int(digits) if digits.isdigit() else 0
            if not blank < end <= len(rest) or rest[end - 1 : end] != b"\n":
                raise self._broken(position, "a malformed extended header")
            key, equals, value = rest[blank + 1 : end - 1].partition(b"=")
            if not equals:
                raise self._broken(position, "a malformed extended header")
            records[key] = value
            start = end
        return records

    def _number(self, field: bytes, position: int, wrong: str = "a malformed number") -> int:
        """A number in octal digits, or in base 256 as GNU writes large ones."""
        if field[0] == 0x80:
            return int.from_bytes(field[1:], "big")
        digits = field.strip(b" \0").partition(b"\0")[0]
        try:
            if digits and not digits.isdigit():  # int() takes signs and underscores, too
                raise ValueError
            return int(digits, 8) if digits else 0
        except ValueError:
            raise self._broken(position, wrong) from None

    def _pax_number(self, text: bytes, position: int) -> int:
        if not text.isdigit() or len(text) > 19:
            raise self._broken(position, "a malformed size in an extended header")
        return int(text)

    def _broken(self, position: int, why: str) -> InvalidDocumentError:
        return InvalidDocumentError(f"{self._what}: byte {position}", why)


def _read(descriptor: int, position: int, size: int, what: str) -> bytes:
    with refused(what):
        return os.pread(descriptor, size, position)


def clean_name(name: bytes) -> bytes | None:
    """`name` without empty and `.` elements; None for one that climbs, is absolute, or names nothing."""
    if name.startswith(b"/"):
        return None
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    return b"/".join(parts) if parts and b".." not in parts else None


def resolve_name(name: bytes) -> bytes | None:
    """`name` with each `..` taken back; None when it is absolute, leads above the root, or is the root."""
    if name.startswith(b"/"):
        return None
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                return None
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts) or None


def _header_name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0":  # the field holds times in GNU's own format
        prefix = header[345:500].partition(b"\0")[0]
        if prefix:
            return prefix + b"/" + name
    return name


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")

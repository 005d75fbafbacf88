# SPDX-License-Identifier: Apache-2.0
"""What refers to an image of a layout: the index under the fallback tag, else entries of `index.json` (bundles.md 1.5).

Blobs that no entry names are not searched: `cosign save` leaves what refers to an image among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import NamedTuple

from ..content import MANIFEST_LIMIT, read_blob, read_limited, require_content
from ..errors import CipError
from ..model import mediatype
from ..model.descriptor import Descriptor, Digest
from ..model.referrers import (
    ENTRY_LIMIT,
    LIST_LIMIT,
    Referrer,
    fallback_tag,
    parse_referrer_manifest,
    parse_referrers,
    read_referrer,
    too_many,
)
from .base import BlobAccess
from .files import FileBlob
from .layout import entries_of, name_of


class LayoutReferrers:
    """What a layout lists; `text` is its reference."""

    def __init__(self, text: str, read_index: Callable[[], bytes], open_blob: Callable[[Digest], FileBlob]) -> None:
        self._text = text
        self._read_index = read_index
        self._open_blob = open_blob
        self._lists_none = False

    def bundles(self, digest: Digest, *, attached: bool) -> _Listed:
        """A layout has no configuration that could forbid to look, and no signatures of another form."""
        listed = self.referrers(digest)
        self._lists_none = self._lists_none or not listed.entries
        return listed

    def bundle_locations(self) -> Sequence[str]:
        """The index, and what it may lack."""
        return ["index.json (a layout lists no bundle unless it was put there)" if self._lists_none else "index.json"]

    def referrers(self, digest: Digest) -> _Listed:
        """The entries whose own subject is `digest`, or all that the index under the fallback tag lists."""
        where = f"{self._text}: index.json"
        tag = fallback_tag(digest)
        entries = []
        for node in entries_of(self._read_index(), where):
            entry = read_referrer(node)
            if name_of(node) == tag and entry.descriptor.media_type == mediatype.OCI_INDEX:
                return self._listed(self._index(entry.descriptor), "by tag")
            entries.append(entry)
        if len(entries) > ENTRY_LIMIT:
            raise too_many(where)
        return self._listed([entry for entry in entries if self._refers(entry, digest)], "by index.json")

    def _listed(self, entries: Sequence[Referrer], found_by: str) -> _Listed:
        return _Listed(tuple(entries), self._text, found_by, self._open_blob)

    def _index(self, descriptor: Descriptor) -> tuple[Referrer, ...]:
        what = f"{self._text}: referrers {descriptor.digest}"
        return parse_referrers(self._listed((), "").document(descriptor, LIST_LIMIT, what), what)

    def _refers(self, entry: Referrer, digest: Digest) -> bool:
        """Whether a listed manifest names `digest` as its subject; what cannot be read refers to nothing."""
        if entry.descriptor.media_type != mediatype.OCI_MANIFEST or entry.descriptor.digest == digest:
            return False
        listed = self._listed((), "")
        try:
            data = listed.manifest(entry.descriptor)
            require_content(data, entry.descriptor.digest, self._text)
            return parse_referrer_manifest(data, self._text).subject == digest
        except CipError:
            return False


class _Listed(NamedTuple):
    """A list, and how its blobs are opened."""

    entries: tuple[Referrer, ...]
    place: str
    found_by: str
    open_file: Callable[[Digest], FileBlob]

    def manifest(self, descriptor: Descriptor) -> bytes:
        with closing(self.open_file(descriptor.digest)) as blob:
            return read_limited(blob, MANIFEST_LIMIT, f"{self.place}: referrer {descriptor.digest}")

    def document(self, descriptor: Descriptor, limit: int, what: str) -> bytes:
        with closing(self.open_file(descriptor.digest)) as blob:
            return read_blob(blob, descriptor, limit, what)

    def open_blob(self, descriptor: Descriptor, access: BlobAccess) -> FileBlob:
        return self.open_file(descriptor.digest)

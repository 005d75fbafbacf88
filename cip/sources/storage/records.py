# SPDX-License-Identifier: Apache-2.0
"""Reads a list of a local image storage record by record, so that its length costs time and no memory.

A storage of a build host has tens of thousands of images. The list is an array of objects: it is cut where brackets
outside of strings say that an object ends, and each piece is parsed as strictly as a document of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NoReturn

from ...errors import ErrorCode, InvalidDocumentError
from ...model.jsontree import JsonNode, parse_json
from ..files import FileBlob

LIST_LIMIT = 64 * 1024 * 1024  # bytes of one list
COUNT_LIMIT = 150_000  # records of one list; as many real ones are longer than LIST_LIMIT
RECORD_LIMIT = 1024 * 1024  # bytes of one record, and of what stands between two
_CHUNK = 128 * 1024  # bytes read at once
_BLANKS = b" \t\n\r"
_TO_BRACKET = re.compile(rb'((?:[^][{}"]++|"(?:[^"\\]++|\\.)*+")*+)([][{}])', re.DOTALL)
# What may stand outside of records, blanks taken away, with the bracket that follows it.
_OPENING, _FIRST, _NEXT = {(b"", b"[")}, {(b"", b"{"), (b"", b"]")}, {(b",", b"{"), (b"", b"]")}
_NOTHING: set[tuple[bytes, bytes]] = set()


class RecordList:
    """One list as its file was when it was opened; owns `blob`. It is read in one place at a time."""

    def __init__(self, blob: FileBlob, what: str) -> None:
        self._blob = blob
        self._what = what
        self.close = blob.close

    def records(self, start: int = 0) -> Iterator[tuple[int, JsonNode]]:
        """Each record with the position where it begins, which can be the `start` of another reading.

        Raises SourceError, InvalidDocumentError (also limit-exceeded).
        """
        if self._blob.size > LIST_LIMIT:
            self._exceeded(f"larger than {LIST_LIMIT} bytes")
        self._blob.rewind(start)
        buffer = bytearray(_CHUNK)
        data, base = b"", start  # bytes from the position `base` on
        depth, allowed = (1, _FIRST) if start else (0, _OPENING)
        begin = at = count = 0
        while True:
            match = _TO_BRACKET.match(data, at)
            if match is None:
                begin = begin if depth > 1 else at
                data, base, at, begin = data[begin:], base + begin, at - begin, 0
                if len(data) > RECORD_LIMIT:
                    self._exceeded(f"[{count}]: larger than {RECORD_LIMIT} bytes")
                received = self._blob.readinto(memoryview(buffer))
                if not received:
                    break
                data += buffer[:received]
                continue
            gap, bracket = match.groups()
            if depth < 2:
                if (gap.strip(_BLANKS), bracket) not in allowed:
                    break
                begin, allowed = match.start(2), _NOTHING if bracket == b"]" else _FIRST
            at = match.end()
            depth += 1 if bracket in b"[{" else -1
            if depth == 1 and bracket != b"[":
                if count == COUNT_LIMIT:
                    self._exceeded(f"more than {COUNT_LIMIT} records")
                yield base + begin, parse_json(data[begin:at], f"{self._what}: [{count}]")
                count += 1
                allowed = _NEXT
        complete = b"null" if allowed is _OPENING else None if allowed else b""
        if data[at:].strip(_BLANKS) != complete:
            why = f"not valid JSON, or not an array of objects, behind byte {base + at}"
            raise InvalidDocumentError(self._what, why)

    def _exceeded(self, why: str) -> NoReturn:
        raise InvalidDocumentError(self._what, why, code=ErrorCode.LIMIT_EXCEEDED)

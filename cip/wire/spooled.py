# SPDX-License-Identifier: Apache-2.0
"""A blob whose size nobody knows: of a local store that has not recorded it."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from ..content import CHUNK, BlobReader, Release, copy_verified
from ..errors import SourceError
from ..model.descriptor import Descriptor
from ..temporary import TemporaryFile
from .target import RequestFault


def send_unsized(
    reader: BlobReader,
    expected: Descriptor,
    make_file: Callable[[], TemporaryFile] | None,
    start: Callable[..., object],
    send: Callable[..., object],
) -> None:
    """Send the blob in chunks, or learn its size first in a file without a name, where one can be made.

    `start` puts the head of the answer in line, which may have further fields. Raises RequestFault (505) where no file
    can be made, and what `reader` and `send` raise.
    """
    if make_file is not None:
        return _send_spooled(reader, expected, make_file, start, send)
    start(expected, {"Transfer-Encoding": "chunked"})
    in_chunks = partial(_send_chunk, send)
    copy_verified(reader, in_chunks, expected, release=Release.AFTER_VERIFICATION)
    send(b"0\r\n\r\n")
    return None


def _send_chunk(send: Callable[..., object], part: memoryview) -> None:
    send(b"%x\r\n" % len(part), part, b"\r\n")


def _send_spooled(
    reader: BlobReader,
    expected: Descriptor,
    make_file: Callable[[], TemporaryFile],
    start: Callable[..., object],
    send: Callable[..., object],
) -> None:
    try:
        file = make_file()
    except SourceError as error:
        raise RequestFault(
            505, f"the size of this blob is not known, so it needs HTTP/1.1 or room in --tmpdir: {error}"
        ) from error
    try:
        size = copy_verified(reader, file.write, expected, release=Release.AFTER_VERIFICATION)
        start(expected._replace(size=size))
        sent = 0
        while part := os.pread(file.descriptor, CHUNK, sent):
            send(part)
            sent += len(part)
    finally:
        file.close()

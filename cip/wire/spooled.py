# SPDX-License-Identifier: Apache-2.0
"""A blob whose size nobody knows, for a parent of HTTP/1.0, which knows no chunks."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..content import CHUNK, BlobReader, Release, copy_verified
from ..errors import SourceError
from ..model.descriptor import Descriptor
from ..temporary import TemporaryFile
from .problem import RequestFault


def send_spooled(
    reader: BlobReader,
    expected: Descriptor,
    make_file: Callable[[], TemporaryFile],
    start: Callable[[Descriptor], object],
    send: Callable[[bytes], object],
) -> None:
    """Learn the size first, in a file without a name; `start` puts the head of the answer in line.

    Raises RequestFault (505) where no file can be made, and what `reader` and `send` raise.
    """
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

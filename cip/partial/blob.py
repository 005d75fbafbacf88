# SPDX-License-Identifier: Apache-2.0
"""A blob whose first bytes were kept, and whose other bytes are kept as they arrive."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

from .. import log
from ..content import BlobAccess, BlobReader
from ..errors import ContentMismatchError, NetworkError
from ..model.descriptor import Descriptor
from .part import Part

OpenRest = Callable[[int], BlobReader]  # a blob from this byte on


class PartialBlob:
    """A blob whose first bytes come from its part, and whose other bytes are kept there as they arrive.

    A raw blob is checked here as well: its parent would find it wrong, and be given the same wrong part again. `renew`
    opens the part anew once it was deleted.
    """

    def __init__(
        self, part: Part, descriptor: Descriptor, access: BlobAccess, rest: OpenRest, renew: Callable[[], Part | None]
    ) -> None:
        self.part: Part | None = part
        self._descriptor = descriptor
        self._open_rest = rest
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

# SPDX-License-Identifier: Apache-2.0
"""Several blobs of one image on their way into a layout at once; the first that fails ends the others."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import Empty, SimpleQueue

from ..content import BlobAccess, BlobReader, start_thread, undo_on_error
from ..errors import Phase, failing
from ..events import Events
from ..image import Image
from ..model.descriptor import Descriptor
from .layoutwriter import LayoutWriter
from .progress import Progress

AT_ONCE = 4  # blobs


def copy_blobs(
    blobs: Sequence[Descriptor], image: Image, writer: LayoutWriter, events: Events, progress: Progress
) -> None:
    """Bring `blobs` of `image` into the layout, unless they are there. Raises the first CipError."""
    copies = _Copies(blobs, image, writer, events, progress)
    with undo_on_error(copies.stop):
        for thread in [start_thread(copies.work, "fetch") for _ in blobs[:AT_ONCE]]:
            thread.join()
    if copies.failure is not None:
        raise copies.failure


class _Copies:
    """What the threads share. `failure` is the first one."""

    def __init__(
        self, blobs: Sequence[Descriptor], image: Image, writer: LayoutWriter, events: Events, progress: Progress
    ) -> None:
        self.failure: BaseException | None = None
        self._image = image
        self._writer = writer
        self._events = events
        self._progress = progress
        self._lock = threading.Lock()
        self._readers: set[BlobReader] = set()
        self._stopped = False
        self._left: SimpleQueue[Descriptor] = SimpleQueue()
        for descriptor in blobs:
            self._left.put(descriptor)

    def work(self) -> None:
        """One blob after the other, until none is left or one has failed."""
        try:
            while not self._stopped:
                self._copy(self._left.get_nowait())
        except Empty:
            return
        except BaseException as error:  # told to whoever joins the threads
            with self._lock:
                self.failure = self.failure or error
            self.stop()

    def stop(self) -> None:
        """End what is on its way."""
        with self._lock:
            self._stopped = True
            readers = list(self._readers)
        for reader in readers:
            reader.close()

    def _copy(self, descriptor: Descriptor) -> None:
        known = 0  # bytes that had been here

        def moved(count: int, kept: int) -> None:
            nonlocal known
            self._progress.add(count, count - max(0, kept - known))
            known = kept

        def open_rest_of(offset: int) -> BlobReader:
            reader = self._image.source.open_rest(descriptor, BlobAccess.VERIFIED, offset)
            with self._lock:
                self._readers.add(reader)
                stopped = self._stopped
            if stopped:
                reader.close()
            return reader

        def follow(reader: BlobReader) -> BlobReader:
            return self._events.follow(reader, descriptor, self._image.reference)

        with failing(Phase.BLOB, descriptor.digest):
            if self._writer.copy(descriptor, open_rest_of, follow, moved):
                self._progress.blob(continued=known > 0)
                return
        self._progress.reused(descriptor.size)
        self._events.emit(
            "done", image=self._image.reference, digest=str(descriptor.digest), bytes=descriptor.size, seconds=0.0
        )

# SPDX-License-Identifier: Apache-2.0
"""Requests the next layers while one is being delivered, so that a link with latency stays full.

Rules: the layers behind the one that the parent asks for are opened early, in the order of the manifest and for the
same access, at most CONNECTIONS at a time, each by a thread that fills a bounded buffer, waits while there is no room,
and then takes the next layer: a thread for each would cost more than a small layer. The first one begins alone, and
each answer allows one more: of many machines at a registry that refuses what is too much, each would meet as many
refusals as it asks at once. A parent that may have some of the
layers already has to ask for one behind the other first, and for one that is not expected nothing more is begun. One
connection to a source is always left: a layer that waits with a full buffer keeps its own, and what the parent asks
for must not wait for it. A layer that has arrived whole has given its connection back, and the next one takes its
place. The layer that comes next may fill up to the user's limit, the others FIRST_FILL and OTHERS together, no more
than LAYERS of them; what the parent was handed and leaves unread counts among these, beyond the limit for one. A layer
is handed over as it is, so nothing is requested twice; one that failed early is forgotten and asked for again when the
parent wants it, and nothing more is begun before the parent asks for another. Of a parent that is not known to want
them all, those that it has left more than LEFT_BEHIND places behind are given up. One that begins with the largest
layers is followed by size, as composefs asks for them. However many images are open, the IMAGES that were asked last
alone have layers that nobody asked for, and what was handed over counts for all of them together.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from .. import log
from ..content import WAITS, BlobAccess, BlobReader, start_thread
from ..errors import CipError
from ..model.descriptor import Descriptor, Digest
from .held import EarlyBlob, Handed, OpenBlob, ToldReader

CONNECTIONS = 3
IMAGES = 2  # of one process that read ahead
LAYERS = 16  # that are on their way or have arrived, and were not asked for yet
LEFT_BEHIND = 2 * LAYERS  # places; a parent that asks for several at a time may swap some
FIRST_FILL = 1024 * 1024  # bytes per blob before it is the next one
OTHERS = 3 * FIRST_FILL  # bytes of all but the next one; the rest of them waits in the kernel
IDLE_SECONDS = 0.2  # after which a thread without a layer ends


class ReadAhead:
    """The blobs of one image for a parent that asks for one after the other; safe from any thread.

    `limit` is the number of bytes, from 1, that the next blob may fill, `connections` how many a source may have.
    `guess`: the parent wants all layers, in their order, before it has shown that.
    """

    def __init__(
        self, open_blob: OpenBlob, layers: Sequence[Descriptor], limit: int, connections: int, *, guess: bool
    ) -> None:
        self._open_blob = open_blob
        self._limit = limit
        self._guess = guess
        self._access = BlobAccess.VERIFIED  # of the layer that the parent asked for last
        self._first_fill = min(FIRST_FILL, limit)
        self._others = min(OTHERS, limit)  # bytes
        self._most_at_once = min(CONNECTIONS, connections - 1)
        self._at_once = min(1, self._most_at_once)
        self._layers = {layer.digest: layer for layer in layers}
        self._order = tuple(self._layers)
        self._places = {digest: place for place, digest in enumerate(self._order)}
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._queue: deque[EarlyBlob] = deque()  # for threads that are idle
        self._idle = 0  # threads without a blob
        self._closed = False
        # For each place the next one at or behind it whose layer was neither asked for nor given up, as far as known.
        self._wanted = list(range(len(self._order) + 1))
        self._following = len(self._order)  # the place behind the layer that the parent asked for last
        self._asked: set[Digest] = set()  # up to one more than LAYERS
        self._early: dict[Digest, EarlyBlob] = {}

    def open_blob(self, descriptor: Descriptor, access: BlobAccess) -> BlobReader:
        """The blob: the one on its way if there is one, else a fresh one. Raises as `ImageSource.open_blob`."""
        digest = descriptor.digest
        if digest in self._places:
            _Recent.use(self)
        with self._lock:
            early = self._early.pop(digest, None)
            self._give_up_failed()
            if digest in self._places:
                self._forget(digest)
                self._access = access
                self._follow(digest, expected=early is not None)
                self._work.notify(len(self._queue))
        reader: BlobReader | None = None
        if early is not None and early.access is access:
            WAITS.get().begin()  # it was asked for before, so its parent need not wait for the first answer
            reader = early.take()
        elif early is not None:
            early.close()
        if reader is not None:
            return reader
        reader = self._open_blob(descriptor, access)
        return reader if self._at_once == self._most_at_once else ToldReader(reader, self._answered)

    def close(self) -> None:
        """Read nothing more ahead."""
        with self._lock:
            self._closed = True
        self.forget()

    def forget(self) -> None:
        """Let go of everything that nobody asked for, until the parent asks for a layer again."""
        with self._lock:
            forgotten = list(self._early.values())
            self._early.clear()
            self._following = len(self._order)
            self._work.notify_all()
        for early in forgotten:
            early.close()

    def _answered(self) -> None:
        """Told that a layer has bytes: one more may be on its way."""
        with self._lock:
            if self._at_once < self._most_at_once:
                self._at_once += 1
                self._begin_following()

    def _run(self, early: EarlyBlob | None) -> None:
        """A thread: one blob after the other."""
        while early is not None:
            early.run()
            early = self._next()

    def _next(self) -> EarlyBlob | None:
        """The next blob for a thread that reads no more of its last one; None when it is not needed any more."""
        with self._work:
            self._idle += 1
            self._begin_following()
            self._work.notify(max(0, len(self._queue) - 1))
            while not self._queue:
                if self._closed or not (self._work.wait(IDLE_SECONDS) or self._queue):
                    self._idle -= 1
                    return None
            return self._queue.popleft()

    def _start(self, early: EarlyBlob) -> None:
        """Give a blob to an idle thread or to a new one; with the lock held. Raises CipError when there is none."""
        if self._idle:
            self._idle -= 1
            self._queue.append(early)
        else:
            start_thread(partial(self._run, early), "read-ahead")

    def _follow(self, digest: Digest, *, expected: bool) -> None:
        """Begin what comes behind a layer, if the parent asks for one behind the other."""
        place = self._places[digest]
        in_order = expected or (place > 0 and self._wanted[place - 1] != place - 1)
        if len(self._asked) <= LAYERS:
            self._asked.add(digest)
        if not (in_order or self._guess) and self._sort():
            place, in_order = self._places[digest], True
        self._following = place + 1 if in_order or self._guess else len(self._order)
        if in_order and not self._guess:
            self._give_up([digest for digest in self._early if self._places[digest] < place - LEFT_BEHIND])
        self._begin_following()

    def _sort(self) -> bool:
        """Put the layers in order of size if those asked for are the largest; some at once may have been swapped."""
        if not 2 <= len(self._asked) <= LAYERS:
            return False
        order = tuple(sorted(self._order, key=lambda digest: -self._layers[digest].size))
        if order == self._order or self._asked != set(order[: len(self._asked)]):
            return False
        self._order = order
        self._places = {digest: place for place, digest in enumerate(order)}
        self._wanted = list(range(len(order) + 1))
        for digest in self._asked:
            self._forget(digest)
        return True

    def _give_up_failed(self) -> None:
        self._give_up([digest for digest, each in self._early.items() if each.failed])

    def _give_up(self, digests: Sequence[Digest]) -> None:
        for digest in digests:
            self._forget(digest)
            self._early.pop(digest).close()

    def _forget(self, digest: Digest) -> None:
        """Not begin a layer early any more."""
        place = self._places[digest]
        if self._wanted[place] == place:
            self._wanted[place] = place + 1

    def _next_wanted(self, place: int) -> int:
        """The first place from `place` on that is still wanted; many steps that were taken once become one."""
        found = place
        while self._wanted[found] != found:
            found = self._wanted[found]
        while place != found:
            self._wanted[place], place = found, self._wanted[place]
        return found

    def _begin_following(self) -> None:
        """Begin what may be begun, and let the next one grow."""
        early, underway = self._early, 0
        first = place = self._next_wanted(self._following)
        # A parent that reads one blob after the other has one of them; one that opens many leaves them all in memory.
        others = max(0, Handed.unread - self._limit)
        for digest, each in early.items():  # one pass, for each layer comes here twice
            if each.failed:
                return
            underway += not each.is_whole
            others += each.reserved if self._places[digest] != first else 0
        while place < len(self._order):
            digest = self._order[place]
            is_next, place = place == first, self._next_wanted(place + 1)
            if digest in early:
                continue
            more = 0 if is_next else self._first_fill
            if underway >= self._at_once or len(early) >= LAYERS or others + more > self._others:
                break
            begun = EarlyBlob(self._open_blob, self._layers[digest], self._access, self._first_fill, self._answered)
            try:
                self._start(begun)
            except CipError as error:
                log.debug("read-ahead: %s", error)
                break
            early[digest] = begun
            underway += 1
            others += more
        following = early.get(self._order[first]) if first < len(self._order) else None
        if following is not None:
            following.allow(self._limit)


class _Recent:
    """The images of this process that read ahead; safe from any thread."""

    lock = threading.Lock()
    images: ClassVar[list[weakref.ref[ReadAhead]]] = []  # the one asked last at the end

    @classmethod
    def use(cls, image: ReadAhead) -> None:
        """An image is asked for a layer, and the one that was left alone for longest forgets what it has."""
        with cls.lock:
            cls.images = [each for each in cls.images if each() not in (image, None)] + [weakref.ref(image)]
            left = cls.images.pop(0)() if len(cls.images) > IMAGES else None
        if left is not None:
            left.forget()

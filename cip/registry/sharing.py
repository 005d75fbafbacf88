# SPDX-License-Identifier: Apache-2.0
"""Several blobs of one host that are read beside each other: each has a share, and gives way when nobody reads it.

So many blobs are read from one host at once; the next one waits, or takes the share of one that nobody reads. That is
apart from the pool, because this wait is our own: no clock of a stall runs meanwhile. Configs and signatures are not
counted, for they have a time. Of many connections one is left free, so that opening an image does not wait for blobs. A
parent reads its blobs in an order of its own: one that it leaves alone has to give way as soon as another one waits.
"""

from __future__ import annotations

from ..content import WAITS
from ..net.limits import POLL
from ..net.lines import words_of
from ..net.response import Response
from ..sources.base import BlobAccess
from .blob import RegistryBlob
from .failover import Candidate

SPARE_FROM = 8  # connections from which on one is kept free of blobs
GIVE_WAY_SECONDS = 0.5  # that nobody has read a blob before it has to give way; a busy parent leaves it alone for less


def shared_blobs() -> type[RegistryBlob] | None:
    """What a blob is, where several of them may be read beside each other."""
    return SharedBlob


class SharedBlob(RegistryBlob):
    """A blob that has a share of the connections to its host while it has one, unless it is a document."""

    _share = ""  # the host of whose limit we have a share
    _left_at: float | None = None  # since when nobody reads; None: since it was opened

    def idle_seconds(self) -> float:
        """How long nobody has read from it, 0 while somebody does. Takes no lock."""
        return 0.0 if self._busy else self._clock.monotonic() - (self._left_at or self._history.began)

    def give_way(self) -> None:
        """Let another blob have our connection, unless somebody reads again; the next read goes on with a new one.

        A connection that could not be continued stays open and counts no more: a raw blob is asked for by ranges or
        not at all, and reading all of it once more is dear.
        """
        with self._lock:
            if self._busy or self._closed or not self._share:
                return
            if self._response is None or self._may_go_on_later(self._response):
                self._broke_off = self._broke_off or self._offset > 0
                self._drop()
            else:
                _discount(self._response)
                self._give_back()

    def _may_go_on_later(self, response: Response) -> bool:
        said = words_of(response.headers, "accept-ranges")
        if self._access is BlobAccess.RAW:
            return not self._offset or "bytes" in said
        return self._candidates.current.takes_ranges and "none" not in said

    def _leave(self) -> None:
        self._left_at = self._clock.monotonic()
        super()._leave()

    def _ask(self, source: Candidate) -> Response:
        if not self._is_document and self._share != source.endpoint.name:
            self._drop()
            self._take(source.endpoint.name)
        return super()._ask(source)

    def _drop(self) -> None:
        super()._drop()
        self._give_back()

    def _take(self, host: str) -> None:
        """Wait for a share of `host`. Raises NetworkError when called off."""
        changed, connections, told = self._session.shares_changed, self._session.connections, False
        while True:
            self._cancellation.require(host)
            with changed:
                holders: set[SharedBlob] = self._session.shares.setdefault(host, set())
                if len(holders) < max(1, connections - (connections >= SPARE_FROM)):
                    holders.add(self)
                    self._share = host
                    return
                idlest = max(holders, key=lambda each: each.idle_seconds())
                is_idle = idlest.idle_seconds() >= GIVE_WAY_SECONDS
                if told and not is_idle:
                    changed.wait(POLL)
            if is_idle:
                idlest.give_way()
            elif not told:
                WAITS.get().begin()
                told = True

    def _give_back(self) -> None:
        """Let the next one have our share."""
        share, self._share = self._share, ""
        if share:
            with self._session.shares_changed:
                self._session.shares[share].discard(self)
                self._session.shares_changed.notify_all()


def _discount(response: Response) -> None:
    """Leave the connection out of what its host may have, until it is given back."""
    on_end = response.on_end
    if on_end is None:
        return  # it was

    def end(reusable: bool) -> None:
        response.discount(-1)
        on_end(reusable)

    response.discount(1)
    response.on_end = end

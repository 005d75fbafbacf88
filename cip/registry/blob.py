# SPDX-License-Identifier: Apache-2.0
"""One unbroken stream over many tries and endpoints.

Rules: a try that breaks off is continued at its offset: at the same endpoint once when it had sent bytes before its
connection was lost, else at the next one of the list. An endpoint is asked `repeats.times` more often than once, and
anew after PROGRESS bytes. An endpoint that states another size, codes the content or answers a range wrongly is
excluded for this blob. A raw blob stays at the endpoint that its first byte came from, because a mixture could not be
blamed. Waiting counts only while we wait for a source: `stall` seconds without progress over all endpoints end it, and
so does a rate below `min_rate`. A config or a signature has a document's time instead, and its endpoints a document's
share of it. All of that is one state, so it is one file, longer than others.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..content import WAITS, undo_on_error
from ..errors import CipError, ContentMismatchError, ErrorCode, NetworkError, Phase, RegistryError
from ..model import mediatype
from ..model.descriptor import UNKNOWN_SIZE, Descriptor
from ..net.limits import Cancellation, StallTimer
from ..net.response import Response
from ..sources.base import BlobAccess
from .failover import Candidate, Candidates
from .retry import History

if TYPE_CHECKING:
    from .endpoints import Endpoint
    from .session import RegistrySession

PROGRESS = 1024 * 1024  # bytes in one try after which its endpoint gets all its repeats again
REREAD_MINIMUM = 64 * 1024 * 1024  # bytes that may be skipped at servers that ignore ranges; or twice the blob's size
_SKIP_SIZE = 256 * 1024
_CONTENT_RANGE = r"(?a)bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)"


def parse_content_range(value: str) -> tuple[int, int, int] | None:
    """First byte, last byte, complete length (UNKNOWN_SIZE for `*`); None for anything else (registry.md 6.4)."""
    match = re.fullmatch(_CONTENT_RANGE, value)
    if match is None:
        return None
    return int(match[1]), int(match[2]), UNKNOWN_SIZE if match[3] == "*" else int(match[3])


class _TryAgainError(Exception):
    """Has a fault that is not retryable by its code, but may pass when the same registry is asked anew."""


class RegistryBlob:
    """The blob `descriptor` of known size from the first of `endpoints` that has it; asked for by the first read.

    One thread reads; `close` may come from any thread and ends a read that waits. A config has the time limits of a
    document; so has a signature, which is told by the moment of `session.clock` at which it must be there. What lies
    before `offset` is here already: reading begins there.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        access: BlobAccess,
        endpoints: Sequence[Endpoint],
        session: RegistrySession,
        *,
        signature_until: float = math.inf,
        offset: int = 0,
    ) -> None:
        self._descriptor = descriptor
        self._access = access
        self._session = session
        self._clock = session.clock
        self._cancellation = Cancellation()
        limits = session.limits(self._cancellation)
        times = limits.times
        is_config = descriptor.media_type in (mediatype.OCI_CONFIG, mediatype.DOCKER_CONFIG)
        is_signature = signature_until < math.inf
        self._is_document = is_signature or is_config
        self._phase = Phase.CONFIG if is_config else Phase.SIGNATURE if is_signature else Phase.BLOB
        self._stall = StallTimer(times.control_document if self._is_document else times.stall, times, session.min_rate)
        self._history = History(self._clock)
        deadline = times.control_document if self._is_document else math.inf
        deadline = self._history.began + min(deadline, times.deadline or math.inf)
        self._limits = limits.until(min(deadline, signature_until))
        self._try_limits = self._limits  # of the present try
        self._candidates = Candidates(endpoints, session.repeats)
        self._response: Response | None = None
        self._offset = offset
        self.size = self._end = descriptor.size
        self._in_try = 0  # bytes passed on in this try
        self._skipped = 0
        self._faults = 0
        self._asked = False
        # A body that had begun was not completed: what follows is asked for as a range.
        self._broke_off = offset > 0
        self._lock = threading.Lock()
        self._busy = False
        self._closed = False

    def readinto(self, buffer: memoryview, /) -> int:
        """The next bytes; 0 at the end.

        Raises NotFoundError (blob-not-found), SourceError, ContentMismatchError when no endpoint has the rest.
        """
        self._enter()
        try:
            return self._read(buffer)
        finally:
            self._leave()

    def blame(self, error: ContentMismatchError) -> ContentMismatchError:
        """Complete the error with the endpoints that served bytes."""
        bad_endpoints = self._candidates.bad_endpoints()
        if bad_endpoints:  # else there was nothing to read, and who named the blob is wrong
            error = error.served_by(" and ".join(bad_endpoints))
        for name in bad_endpoints:
            self._history.add(name, error, self._phase)
        self._complete(error)
        return error

    def restart(self, error: ContentMismatchError) -> bool:
        """Exclude every endpoint that served a byte; whether there is another one to begin anew at."""
        bad_endpoints = self._candidates.bad_endpoints()
        self._candidates.exclude_bad_endpoints()
        with self._lock:  # it may be asked to give way at present
            self._drop()
        following = None
        if bad_endpoints and self._access is BlobAccess.VERIFIED:
            following = self._candidates.choose(error, sent_bytes=False, stay=False)
        if following is None:
            return False
        self._offset = self._in_try = 0
        digest = str(self._descriptor.digest)
        self._session.repeats.tell_source(
            " and ".join(bad_endpoints), following.endpoint.name, error, digest=digest, offset=0
        )
        self._broke_off = False
        self._candidates.current = following
        return True

    def close(self) -> None:
        """Give the connection back or close it; a read that waits in another thread ends with NetworkError."""
        with self._lock:
            first, self._closed = not self._closed, True
            busy = self._busy
        if busy:
            self._cancellation.cancel()
        elif first:
            self._drop()

    def _enter(self) -> None:
        with self._lock:
            if self._closed:
                raise NetworkError(f"blob {self._descriptor.digest}: closed", digest=str(self._descriptor.digest))
            self._busy = True

    def _leave(self) -> None:
        with self._lock:
            self._busy = False
            closed = self._closed
        if closed:
            self._drop()

    def _drop(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.close()

    # --- reading ---

    def _read(self, buffer: memoryview) -> int:
        if not self._asked:  # for a blob without bytes too: its endpoint has to have it
            self._find_source()
            self._asked = True
        while self._offset != self._end:
            if self._response is None:
                self._find_source()
                continue
            try:
                count = self._receive(self._response, buffer[: self._end - self._offset])
                if not count:
                    raise self._ended_early()
            except CipError as error:
                self._broke_off = True
                self._move_on(error, again=False)
                continue
            self._offset += count
            self._in_try += count
            self._candidates.current.served = True
            return count
        if self._response is not None:
            self._response.read_end()
        self._drop()
        return 0

    def _receive(self, response: Response, view: memoryview, *, known: bool = False) -> int:
        """One read under the stall clocks; bytes that are `known` are no progress.

        The deadline is there however much time is left: one read may wait very often, for a TLS record or the size of a
        chunk that comes byte by byte.
        """
        stall, times = self._stall, self._limits.times
        remaining = stall.remaining()
        if remaining <= 0 or stall.is_too_slow():
            seconds = stall.stall if remaining <= 0 else times.rate_window
            why = f"slower than {self._session.min_rate} bytes a second over {seconds:g} s ({response.via})"
            raise NetworkError.at(response.origin.address, why, code=ErrorCode.TIMEOUT)
        began = self._clock.monotonic()
        response.limits = self._try_limits.until(began + remaining)
        paused = response.paused
        count = 0
        try:
            count = response.readinto(view)
        finally:
            stall.count(self._clock.monotonic() - began - (response.paused - paused), count, known=known)
        return count

    def _ended_early(self) -> NetworkError:
        why = f"the body ended early: expected {self._descriptor.size} bytes, found {self._offset}"
        return NetworkError.at(self._candidates.current.endpoint.name, why)

    # --- choosing an endpoint ---

    def _find_source(self) -> None:
        """Ask the current endpoint, and others when that fails, until one sends the bytes from our offset on."""
        while self._response is None:
            try:
                self._response = self._ask(self._candidates.current)
            except _TryAgainError as fault:
                self._move_on(fault.args[0], again=True)
            except CipError as error:
                self._move_on(error, again=False)

    def _ask(self, source: Candidate) -> Response:
        endpoint = source.endpoint
        self._stall.begin_try()
        self._in_try = 0
        self._session.repeats.await_turn(endpoint.name, self._patience, self._sleep)
        began = self._clock.monotonic()
        self._try_limits = self._limits
        if self._is_document and self._candidates.have_another():
            self._try_limits = self._limits.until(began + self._limits.times.control_endpoint)
        limits = self._try_limits.until(began + self._stall.remaining())
        fields = {"Range": self._range()} if self._broke_off and source.takes_ranges else {}
        try:
            with WAITS.get().asking(endpoint.name):
                response = endpoint.get(f"blobs/{self._descriptor.digest}", limits, fields)
        finally:
            self._stall.count(self._clock.monotonic() - began, 0)
        with undo_on_error(response.close):
            self._require_usable(source, response, ranged=bool(fields))
        return response

    def _range(self) -> str:
        """What is asked for of a blob that has begun."""
        return f"bytes={self._offset}-"

    def _require_usable(self, source: Candidate, response: Response, *, ranged: bool) -> None:
        """Return when the body continues at our offset. Raises CipError, _TryAgainError."""
        host = response.origin.address
        if response.status == 416 and ranged:
            source.takes_ranges = False
            raise _TryAgainError(self._refusal(source, response))
        if response.status == 206 and ranged:
            self._require_range(response)
            response.require_uncompressed()
            return
        if response.status != 200:
            error = self._refusal(source, response)
            if not source.endpoint.is_here(response) and 400 <= response.status < 500:
                raise _TryAgainError(error)  # an address that was good for a while only: the registry makes a new one
            raise error
        response.require_uncompressed()
        source.takes_ranges = source.takes_ranges and not ranged
        expected = self._descriptor.size
        if response.size not in (expected, UNKNOWN_SIZE):
            why = f"expected {expected} bytes, found {response.size} announced ({response.via})"
            raise ContentMismatchError.at(host, f"blob {self._descriptor.digest}: {why}")
        if self._offset:
            self._skip(source, response)

    def _refusal(self, source: Candidate, response: Response) -> CipError:
        return source.endpoint.refusal(response, f"blob {self._descriptor.digest}", ErrorCode.BLOB_NOT_FOUND)

    def _require_range(self, response: Response) -> None:
        """A 206 must be exactly the rest (registry.md 6.4)."""
        values = response.headers.get_all("content-range", [])
        parsed = parse_content_range(values[0]) if len(values) == 1 else None
        if parsed is not None:
            first, last, total = parsed
            if (
                first == self._offset
                and total in (self._descriptor.size, UNKNOWN_SIZE)
                and last + 1 == self._end
                and response.size in (last + 1 - first, UNKNOWN_SIZE)
            ):
                return
        why = f"blob {self._descriptor.digest}: expected the bytes from {self._offset} on, found another range"
        raise RegistryError.at(response.origin.address, why, http_status=206)

    def _skip(self, source: Candidate, response: Response) -> None:
        """Read over what has been passed on already: the server ignores ranges, or could not serve one."""
        if self._skipped + self._offset > max(REREAD_MINIMUM, 2 * self._descriptor.size):
            why = f"it ignores ranges, and {self._skipped} bytes have been read in vain"
            raise RegistryError.at(source.endpoint.name, why)
        left = self._offset
        with memoryview(bytearray(_SKIP_SIZE)) as buffer:
            while left:
                count = self._receive(response, buffer[: min(left, _SKIP_SIZE)], known=True)
                if not count:
                    raise self._ended_early()
                left -= count
                self._skipped += count

    def _move_on(self, error: CipError, *, again: bool) -> None:
        """Choose where to continue after a fault, and wait as long as that endpoint needs.

        Raises what ends the blob.
        """
        source = self._candidates.current
        self._drop()
        self._history.add(source.endpoint.name, error, self._phase)
        self._faults += 1
        if self._cancellation.cancelled:
            raise self._complete(error)
        following = self._candidates.after(
            error,
            may_pass=again or error.retryable,
            progress=self._in_try >= PROGRESS,
            sent_bytes=self._in_try > 0,
            stay=self._access is BlobAccess.RAW and self._offset > 0,
        )
        if following is None:
            raise self._complete(self._candidates.final_fault(error))
        wait = self._candidates.wait_for(following)
        if wait >= self._patience():
            raise self._complete(self._candidates.final_fault(error))
        digest = str(self._descriptor.digest)
        self._session.repeats.tell(self._faults, error, wait, digest)
        if following is not source:
            self._session.repeats.tell_source(
                source.endpoint.name, following.endpoint.name, error, digest=digest, offset=self._offset
            )
        if wait:
            self._sleep(wait)
        self._candidates.current = following

    def _patience(self) -> float:
        return min(self._stall.remaining(), self._limits.remaining())

    def _sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds, self._cancellation)
        self._stall.count(seconds, 0)

    def _complete(self, error: CipError) -> CipError:
        error.digest = str(self._descriptor.digest)
        error.offset = self._offset
        return self._history.complete(error)

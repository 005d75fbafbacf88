# SPDX-License-Identifier: Apache-2.0
"""The replies that a conversation owes, in the order of its requests, and all that waits with them.

Two replies can wait: that of FinishPipe until its pipe has ended, and that of a blob for its source's first answer.
What a parent does not read waits here, too, and is sent when the socket takes it.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from ... import log
from ...content import start_thread
from ...errors import CipError, ErrorCode, system_reason
from .packets import encode_failure, encode_success
from .pipes import Bell, Feed, Opened, Pipes

OWED_LIMIT = 64  # replies; beyond it requests stay in the socket
HANG_UP_GRACE = 0.3  # seconds in which the thread of the requests may notice by itself that the parent is gone


class Reply(NamedTuple):
    """What a method answers; the read ends of what was `opened` are closed once they are sent.

    It may wait for the source of a blob until the moment `until` of the monotonic clock.
    """

    value: object = None
    opened: Opened | None = None
    until: float | None = None

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors that it hands out."""
        return self.opened.fds if self.opened is not None else ()


class Packet(NamedTuple):
    """A reply that can leave."""

    data: bytes
    fds: tuple[int, ...] = ()


Owed = Reply | CipError | Feed


class Replies:
    """The replies that are owed, in their order. All but `owe` and `finish` belong to the calling thread."""

    def __init__(self, sock: socket.socket, pipes: Pipes, bell: Bell) -> None:
        self._sock = sock
        self._pipes = pipes
        self._bell = bell
        self._room = threading.Condition()
        self._owed: deque[Owed] = deque()
        self._packet: Packet | None = None  # ready, but the parent does not read
        self._complete = False  # nothing more will be owed
        self._closed = False

    def owe(self, outcome: Owed) -> None:
        """One more; waits while too many are owed."""
        with self._room:
            while len(self._owed) >= OWED_LIMIT and not self._closed:
                self._room.wait()
            if self._closed:
                _discard(outcome)
                return
            self._owed.append(outcome)
        self._bell.ring()

    def finish(self) -> None:
        """Nothing more will be owed."""
        self._complete = True
        self._bell.ring()

    def run(self, take: Callable[[], object]) -> None:
        """Let `take` run the requests in a thread of their own, and answer them until the end.

        Raises OSError, CipError (limit-exceeded).
        """
        thread = start_thread(take, "requests")
        while not (self._complete and not self._owed and self._packet is None):
            self._wait(hang_up=thread)
            self._send_ready()
        thread.join(HANG_UP_GRACE)

    def wait_for_request(self) -> None:
        """Wait until the parent says something."""
        self._poll(select.POLLIN, None)

    def send_all(self) -> None:
        """Send what is owed and waits for nothing. Raises OSError."""
        self._send_ready()
        while self._packet is not None:
            self._poll(select.POLLOUT, None)
            self._send_ready()

    def close(self) -> None:
        """Close what was never sent."""
        with self._room:
            self._closed = True
            owed = list(self._owed)
            self._owed.clear()
            self._room.notify_all()
        if self._packet is not None:
            _close_all(self._packet.fds)
        for outcome in owed:
            _discard(outcome)

    def _wait(self, *, hang_up: threading.Thread) -> None:
        """Wait until there may be something to send. Raises BrokenPipeError when the parent has gone."""
        head = self._owed[0] if self._owed else None
        until = head.until if self._packet is None and isinstance(head, Reply) else None
        if self._poll(select.POLLOUT if self._packet is not None else 0, until) & (select.POLLHUP | select.POLLERR):
            hang_up.join(HANG_UP_GRACE)  # it sees the end of the socket itself, unless it waits for a source
            if hang_up.is_alive() or self._complete:
                raise BrokenPipeError

    def _poll(self, events: int, until: float | None) -> int:
        """Wait for `events` of the socket, for the bell, or for the moment `until`; what there is about the socket."""
        poller = select.poll()
        poller.register(self._sock, events)  # hang-up and error are told without being asked for
        poller.register(self._bell, select.POLLIN)
        poller.register(self._pipes, select.POLLIN)
        found = dict(poller.poll(None if until is None else max(0.0, until - time.monotonic()) * 1000 + 1))
        self._bell.hush()
        if self._pipes.fileno() in found:
            self._pipes.give_up()
        return found.get(self._sock.fileno(), 0)

    def _send_ready(self) -> None:
        """Send the replies that wait for nothing, up to the first one that does. Raises OSError."""
        while self._packet is not None or self._take():
            assert self._packet is not None
            try:
                self._send(self._packet)
            except BlockingIOError:
                return
            self._packet = None

    def _take(self) -> bool:
        """Make the first reply a packet if it can leave."""
        if not self._owed:
            return False
        head = self._owed[0]
        if isinstance(head, Feed):
            if not head.ended:
                return False
            head = self._pipes.collect(head) or Reply()
        elif isinstance(head, Reply) and head.opened is not None and head.until is not None:
            if not head.opened.transfer.is_known and time.monotonic() < head.until:
                return False
            refusal = self._pipes.announce(head.opened)
            if refusal is not None:
                _close_all(head.fds)
                head = refusal
        self._packet = _packet_of(head)
        with self._room:
            self._owed.popleft()
            self._room.notify()
        return True

    def _send(self, packet: Packet) -> None:
        """Send one reply. One that the kernel does not take is replaced by its reason. Raises OSError."""
        try:
            _send_now(self._sock, packet)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            raise
        except OSError as error:  # EMSGSIZE: a small send buffer; ETOOMANYREFS: too many descriptors on their way
            why = system_reason(error)
            log.error("a reply of %d bytes could not be sent: %s", len(packet.data), why)
            fault = CipError(f"the reply could not be sent: {why}", code=ErrorCode.LIMIT_EXCEEDED)
            _close_all(packet.fds)
            self._packet = Packet(encode_failure(fault))
            _send_now(self._sock, self._packet)
        else:
            _close_all(packet.fds)


def _packet_of(outcome: Reply | CipError) -> Packet:
    if isinstance(outcome, Reply):
        try:
            return Packet(encode_success(outcome.value, outcome.opened.pipe_id if outcome.opened else 0), outcome.fds)
        except CipError as error:
            _close_all(outcome.fds)
            outcome = error
    log.debug("%s: %s", outcome.code, outcome)
    return Packet(encode_failure(outcome))


def _send_now(sock: socket.socket, packet: Packet) -> None:
    """Send without waiting. Raises BlockingIOError when the parent does not read its replies, OSError."""
    control = []
    if packet.fds:
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", packet.fds))]
    sock.sendmsg([packet.data], control, socket.MSG_DONTWAIT)


def _discard(outcome: Owed) -> None:
    """Close what a reply that is never sent would have handed out."""
    if isinstance(outcome, Reply):
        _close_all(outcome.fds)


def _close_all(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)

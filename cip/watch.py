# SPDX-License-Identifier: Apache-2.0
"""What stands beside a conversation: ends the process when the parent hangs up or a signal says so.

Rules. SIGTERM and SIGINT are blocked in every thread, and one thread takes them with `sigwait`: a signal may come at
any moment and is never lost. A handler of Python runs in the main thread between two of its steps, so one that arrives
just before a wait would not end it, and what it raises may meet a finaliser and vanish. Programs that we start would
inherit what is blocked, so whoever starts them blocks nothing meanwhile.

The conversation has the main thread. What is decided here ends the process from beside it: the parent's last words are
said, lines for programs are flushed, and nothing waits for the main thread, which may stand in a read for ever.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import NoReturn, Protocol, Self

from .content import start_thread

HANG_UP_GRACE = 0.3  # seconds in which a conversation may notice by itself that the parent is gone
_STOPPING = (signal.SIGTERM, signal.SIGINT)
_WAKE = signal.SIGRTMIN  # ends the thread that waits for the others, and is sent to it alone


class Conversation(Protocol):
    """What is watched. All but `begin` and `run` may be called from another thread, at any moment."""

    exit_status: int

    def begin(self) -> bool:
        """Answer up to the first answer that needs the image or the policy; whether there may be more."""
        ...

    def run(self) -> None:
        """Answer until the end."""
        ...

    def fileno(self) -> int:
        """The descriptor that tells, polled for nothing, that the parent hung up."""
        ...

    def status_after_hang_up(self) -> int:
        """The exit status of a process whose parent has gone."""
        ...

    def abandon(self) -> None:
        """Tell the parent what it must know of a conversation that breaks off."""
        ...


def hold_signals() -> None:
    """Keep the signals that stop us for a Watch, in this thread and in all that it starts, but not ignored ones."""
    awaited = (number for number in _STOPPING if signal.getsignal(number) is not signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)


def release_signals() -> None:
    """Let signals end the process at once, where nobody waits for a last word."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)


class Watch:
    """Two threads that watch `conversation`; a context manager. `last_words` takes a second at most."""

    def __init__(
        self, conversation: Conversation, last_words: Callable[[], None], leave: Callable[[int], object] = os._exit
    ) -> None:
        self._conversation = conversation
        self._last_words = last_words
        self._leave = leave
        self._leaving = threading.Lock()

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def renew(self) -> None:
        """Watch with new threads, which are confined as the calling one is. What happens meanwhile waits for them."""
        self._stop()
        self._start()

    def _start(self) -> None:
        self._over = os.eventfd(0, os.EFD_CLOEXEC)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_STOPPING, _WAKE})  # which the new threads inherit
        try:
            self._hang_up = start_thread(self._await_hang_up, "hang-up")
            self._signals = start_thread(self._await_signal, "signals")
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _stop(self) -> None:
        os.eventfd_write(self._over, 1)
        if self._signals.ident is not None:
            signal.pthread_kill(self._signals.ident, _WAKE)
        self._hang_up.join()
        self._signals.join()
        os.close(self._over)

    def _await_hang_up(self) -> None:
        poller = select.poll()
        poller.register(self._over, select.POLLIN)
        poller.register(self._conversation, 0)  # hang-up and error are told without being asked for
        if self._over in dict(poller.poll()):
            return
        poller.unregister(self._conversation)
        if not poller.poll(HANG_UP_GRACE * 1000):
            self._end(lambda: self._leave(self._conversation.status_after_hang_up()))

    def _await_signal(self) -> None:
        while (number := signal.sigwait({*_STOPPING, _WAKE})) != _WAKE:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._end(partial(self._die_by, number))

    def _end(self, leave: Callable[[], object]) -> None:
        """The end of the process, once; whoever comes second waits for it."""
        if self._leaving.acquire(blocking=False):
            self._conversation.abandon()
            self._last_words()
            leave()

    def _die_by(self, number: int) -> NoReturn:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
        os._exit(128 + number)  # process 1 of a container is not killed by what it does not handle

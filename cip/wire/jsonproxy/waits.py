# SPDX-License-Identifier: Apache-2.0
"""When the reply of a blob leaves before its source has answered: while it waits for something else, or for nobody."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from ...content import Waits
from ...errors import CipError, ErrorCode

SILENT_SECONDS = 2.0  # without an answer, after which a host counts as silent (decisions.md section 10)


class Silence:
    """Hosts that owe an answer for long, or whose last one never came; safe from any thread."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._asked: dict[str, list[float]] = {}  # moments of requests that are not answered yet
        self._silent: set[str] = set()

    @contextmanager
    def asking(self, host: str, begin: Callable[[], None]) -> Iterator[None]:
        """Around a request; `begin` is called at once when the host is silent already."""
        now = self._now()
        with self._lock:
            owed = self._asked.setdefault(host, [])
            silent = host in self._silent or (bool(owed) and now - min(owed) >= SILENT_SECONDS)
            owed.append(now)
        if silent:
            begin()
        silent = False
        try:
            yield
        except CipError as error:
            silent = error.code is ErrorCode.TIMEOUT
            raise
        finally:
            with self._lock:
                owed.remove(now)
                (self._silent.add if silent else self._silent.discard)(host)


class Told(Waits):
    """Calls `answer` when the thread that reads a blob begins to wait for what may take long."""

    def __init__(self, answer: Callable[[], None], silence: Silence) -> None:
        self._answer = answer
        self._silence = silence

    def begin(self) -> None:
        """It waits."""
        self._answer()

    def asking(self, host: str) -> AbstractContextManager[None]:
        """It waits if the host is silent already."""
        return self._silence.asking(host, self._answer)

    def beside(self) -> Waits:
        """What it learns of hosts is known to all, and answers nothing."""
        return self.answering(lambda: None)

    def answering(self, answer: Callable[[], None]) -> Waits:
        """The same for a thread that owes this answer."""
        return Told(answer, self._silence)

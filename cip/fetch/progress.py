# SPDX-License-Identifier: Apache-2.0
"""How far a run is: a bar with rate and remaining time on a terminal, and sums for the last line."""

from __future__ import annotations

import os
import threading
import time
from collections import deque

from ..content import start_thread

END_SECONDS = 1.0  # for the last look; a terminal that nobody reads is left
INTERVAL = 0.2  # seconds between two bars
WINDOW = 8.0  # seconds that the rate is taken over
_NARROW = 60  # columns below which there is no bar, only figures
_UNITS = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


class Progress:
    """Counts bytes and blobs; draws on the terminal `descriptor`, None for nowhere. Safe from any thread."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._changed = threading.Condition()
        self._expected = self._done = self._fetched = 0  # bytes
        self._blobs = self._reused = self._continued = 0
        self._ended = False
        self._samples: deque[tuple[float, int]] = deque()  # time, bytes fetched until then
        self._drawn = 0  # columns of the line that is there
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to draw, if there is a terminal."""
        if self._descriptor is not None:
            self._thread = start_thread(self._run, "progress")

    def close(self) -> None:
        """Take the bar away."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(END_SECONDS)
            self._thread = None

    def expect(self, count: int) -> None:
        """So many bytes more are to be had."""
        with self._changed:
            self._expected += count

    def add(self, done: int, fetched: int) -> None:
        """So many bytes more are had, and so many of them came from elsewhere."""
        with self._changed:
            self._done += done
            self._fetched += fetched

    def blob(self, *, continued: bool) -> None:
        """A blob is complete, perhaps by going on from what an earlier run had left."""
        with self._changed:
            self._blobs += 1
            self._continued += continued

    def reused(self, size: int) -> None:
        """A blob of `size` bytes was here, and is right."""
        with self._changed:
            self._blobs += 1
            self._reused += 1
            self._done += size

    def summary(self, seconds: float) -> str:
        """The sums, for people."""
        with self._changed:
            parts = [f"{self._blobs} blobs"]
            if self._reused:
                parts.append(f"{self._reused} reused")
            if self._continued:
                parts.append(f"{self._continued} continued")
            parts.append(f"{shown_bytes(self._fetched)} fetched in {seconds:.1f} s")
            return ", ".join(parts)

    def line(self, now: float, columns: int) -> str:
        """What a terminal of so many columns shows at the time `now` of a monotonic clock."""
        with self._changed:
            expected, done, fetched = max(self._expected, self._done), self._done, self._fetched
        self._samples.append((now, fetched))
        while self._samples[0][0] < now - WINDOW:
            self._samples.popleft()
        began, before = self._samples[0]
        rate = (fetched - before) / (now - began) if now > began else 0.0
        share = done / expected if expected else 0.0
        left = _shown_time((expected - done) / rate) if rate > 0 else "-:--"
        figures = f"{share:4.0%} {shown_bytes(done)} of {shown_bytes(expected)}, {shown_bytes(rate)}/s, {left} left"
        width = columns - len(figures) - 4
        if columns < _NARROW or width < 10:
            return figures[: columns - 1]
        filled = int(width * min(1.0, share))
        return f"[{'#' * filled}{' ' * (width - filled)}] {figures}"

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._ended or (self._changed.wait(INTERVAL) and self._ended):
                    break
            self._draw(self.line(time.monotonic(), self._columns()))
        self._draw("")

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._descriptor or 0).columns or 80
        except OSError:
            return 80

    def _draw(self, line: str) -> None:
        text = "\r" + line + " " * max(0, self._drawn - len(line)) + ("" if line else "\r")
        self._drawn = len(line)
        try:
            os.write(self._descriptor or 0, text.encode())
        except OSError:
            return  # the terminal is gone: the run goes on


def shown_bytes(count: float) -> str:
    """Bytes for people."""
    for size, name in _UNITS:
        if count >= size:
            return f"{count / size:.1f} {name}"
    return f"{count:.0f} B"


def _shown_time(seconds: float) -> str:
    minutes, rest = divmod(min(int(seconds), 359_999), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

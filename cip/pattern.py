# SPDX-License-Identifier: Apache-2.0
"""Regular expressions that are compiled when they are first used.

Compiling all that the modules name takes 7 of the 66 ms that a parent should wait for a manifest, and most requests use
few of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import AnyStr, Generic


class Pattern(Generic[AnyStr]):
    """As `re.compile`, later. Two threads that are first at once compile it twice, which is harmless."""

    __slots__ = ("_compiled", "_flags", "_text")

    def __init__(self, text: AnyStr, flags: int = 0) -> None:
        self._text: AnyStr = text
        self._flags = flags
        self._compiled: re.Pattern[AnyStr] | None = None

    def _ready(self) -> re.Pattern[AnyStr]:
        if self._compiled is None:
            self._compiled = re.compile(self._text, self._flags)
        return self._compiled

    def fullmatch(self, text: AnyStr) -> re.Match[AnyStr] | None:
        """As `re.Pattern.fullmatch`."""
        return self._ready().fullmatch(text)

    def match(self, text: AnyStr, position: int = 0) -> re.Match[AnyStr] | None:
        """As `re.Pattern.match`."""
        return self._ready().match(text, position)

    def search(self, text: AnyStr) -> re.Match[AnyStr] | None:
        """As `re.Pattern.search`."""
        return self._ready().search(text)

    def finditer(self, text: AnyStr) -> Iterator[re.Match[AnyStr]]:
        """As `re.Pattern.finditer`."""
        return self._ready().finditer(text)

    def sub(self, replacement: AnyStr | Callable[[re.Match[AnyStr]], AnyStr], text: AnyStr) -> AnyStr:
        """As `re.Pattern.sub`."""
        return self._ready().sub(replacement, text)

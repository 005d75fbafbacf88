# SPDX-License-Identifier: Apache-2.0
"""Marks unit tests of the core that also need a room, for copies that lack it (tests/packaging/test_vendoring.py)."""

import unittest
from collections.abc import Callable
from typing import Any, TypeVar

from cip.rooms import present

T = TypeVar("T", bound=Callable[..., Any])


def needs_rooms(*names: str) -> Callable[[T], T]:
    """Skip a test or a class of tests in a copy without these rooms; a test says that the repository has them all."""
    absent = [name for name in names if name not in present()]
    return unittest.skipIf(bool(absent), f"this copy was made without {', '.join(absent)}")

# SPDX-License-Identifier: Apache-2.0
"""What a run tells about itself: the two ways out that the core is handed (decisions.md section 6)."""

from collections.abc import Callable
from typing import Protocol

from .content import BlobReader
from .model.descriptor import Descriptor


class Emit(Protocol):
    """Records `event` with its members: plan, progress, retry, source, throttled, auth, policy, platform, done, failed.

    A CipError as the member `error` stands for all its facts. Never blocks, never raises, and may be called from any
    thread.
    """

    def __call__(self, event: str, **members: object) -> None: ...


class Events:
    """Takes the events of a run. `follow` wraps the reader of a blob of an image, so that its progress is told."""

    def __init__(self, emit: Emit, follow: Callable[[BlobReader, Descriptor, str], BlobReader]) -> None:
        self.emit, self.follow = emit, follow


def _forget(event: str, **members: object) -> None: ...


NO_EVENTS = Events(_forget, lambda reader, descriptor, image: reader)

# SPDX-License-Identifier: Apache-2.0
"""What an image brings to be believed: its signatures and bundles, looked for when a requirement asks, and once.

What they are worth is decided in `trust`; where they lie is known to each source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from . import rooms
from .errors import CipError
from .hostconfig.registriesd import load_registries_d
from .model.descriptor import Digest
from .model.signature import BundleRules, FoundBundles, RawSignature, SigstoreSignature
from .settings import Settings
from .sources.base import ImageSource
from .trust.policy import UnverifiedImage

T = TypeVar("T")


def with_signatures(
    image: UnverifiedImage, source: ImageSource, digest: Digest, instance: Digest | None, settings: Settings
) -> UnverifiedImage:
    """`image`, which is the manifest `digest` of `source`, with what looks for its signatures.

    `instance` is the manifest's name inside the index, None for the top manifest.
    """
    signatures = _Once(lambda: source.signatures(digest, instance))
    bundles = _Once(lambda: _find_bundles(source, digest, signatures))
    return image._replace(
        signatures=signatures,
        looked_for=lambda: _signature_locations(source, bundles.asked),
        bundles=bundles,
        bundle_rules=lambda: _bundle_rules(source, settings),
    )


def _signature_locations(source: ImageSource, bundles: bool) -> Sequence[str]:
    try:
        referrers = source.referrer_source() if bundles else None
        return (*source.signature_locations(), *(referrers.bundle_locations() if referrers is not None else ()))
    except CipError:
        return ()  # the same file refused the signatures already, and said why


def _find_bundles(source: ImageSource, digest: Digest, signatures: _Once[Sequence[RawSignature]]) -> FoundBundles:
    """The bundles of the manifest `digest`, where configuration has them looked for (bundles.md 1.1)."""
    attached = any(isinstance(each, SigstoreSignature) for each in signatures())
    referrers = source.referrer_source()
    listed = referrers.bundles(digest, attached=attached) if referrers is not None else None
    return rooms.find_bundles(listed, digest) if listed is not None else FoundBundles()


def _bundle_rules(source: ImageSource, settings: Settings) -> BundleRules:
    """What registries.d says under the name that was asked for, whichever mirror served the image."""
    if source.identity.docker is None:
        return BundleRules()
    said = load_registries_d(settings).bundle_trust(source.identity.docker)
    return BundleRules(said.by_digest, said.file, said.trusted_root, said.scope)


class _Once(Generic[T]):
    """Calls a function at most once and keeps its result: all requirements see the same signatures."""

    def __init__(self, fetch: Callable[[], T]) -> None:
        self._fetch = fetch
        self._result: T | None = None
        self.asked = False

    def __call__(self) -> T:
        self.asked = True
        if self._result is None:
            self._result = self._fetch()
        return self._result

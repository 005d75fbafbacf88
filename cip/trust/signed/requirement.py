# SPDX-License-Identifier: Apache-2.0
"""What every requirement does that looks at signatures: fetch them, verify one by one, accept or say why not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from ...content import require_time
from ...errors import CipError, MissingDependencyError, Phase, PolicyRejectedError, SignatureError, SourceError
from ...model.jsontree import JsonNode
from ...model.signature import BundleRecord, BundleRules, FoundBundles, RawSignature, SignatureResult
from ..policy import Acceptance, TrustTools, UnverifiedImage
from .matching import parse_identity_matcher

_REASONS_SHOWN = 6  # of many refused signatures, in the sentence for people; the record has all
AnySignature = TypeVar("AnySignature")
T = TypeVar("T")


class VerificationRecord:
    """One signature while it is verified: filled in as its parts are proven, so that a refusal tells how far it got."""

    def __init__(self, source: str, kind: str) -> None:
        self.source = source
        self.kind = kind
        self.key = ""
        self.certificate: dict[str, str] | None = None
        self.claims: dict[str, str] | None = None
        self.bundle: BundleRecord | None = None

    def result(self, refusal: CipError | None = None) -> SignatureResult:
        """The record of an accepted signature, or of one refused by `refusal`."""
        reason, detail = (refusal.reason or refusal.code, str(refusal)) if refusal else ("", "")
        return SignatureResult(accepted=refusal is None, reason=reason, detail=detail, **vars(self))


class SignedBaseLayer(NamedTuple):
    """`signedBaseLayer`: parsed, never fulfilled, as upstream (signatures.md 2.2)."""

    kind: str = "signedBaseLayer"
    verifies: bool = False

    def check(self, image: UnverifiedImage, tools: TrustTools, seen: list[SignatureResult]) -> Acceptance:
        """Refuse."""
        raise PolicyRejectedError("signedBaseLayer is not supported by any implementation", reason="unimpl")


def parse_signed_base_layer(node: JsonNode) -> SignedBaseLayer:
    """A `signedBaseLayer` of a policy. Raises what `node` raises."""
    node.require_only(("type", "baseLayerIdentity"))
    parse_identity_matcher(node["baseLayerIdentity"])
    return SignedBaseLayer()


def fetch_signatures(image: UnverifiedImage) -> Sequence[RawSignature]:
    """All signatures of `image`. A list that cannot be had whole refuses it (signatures.md 2.1, class FETCH)."""
    return _fetched(image.signatures)


def fetch_bundles(image: UnverifiedImage) -> FoundBundles:
    """All bundles of `image`, by the same rule."""
    return _fetched(image.bundles) if image.bundles is not None else FoundBundles()


def fetch_bundle_rules(image: UnverifiedImage) -> BundleRules:
    """What configuration says about bundles; one that cannot be read refuses, too."""
    return _fetched(image.bundle_rules or BundleRules)


def _fetched(fetch: Callable[[], T]) -> T:
    try:
        return fetch()
    except CipError as error:
        raise PolicyRejectedError(
            f"the signatures cannot be fetched: {error}",
            **error.facts(reason="fetch", phase=error.phase or Phase.SIGNATURE),
        ) from error


def told_to_each(load: Callable[[], T]) -> Callable[[], T]:
    """`load`, called for the first who asks; what it returns, or its SignatureError, is told to each."""
    outcome: list[T | SignatureError] = []

    def told() -> T:
        if not outcome:
            try:
                outcome.append(load())
            except SignatureError as error:
                outcome.append(error)
        found = outcome[0]
        if isinstance(found, SignatureError):
            raise found
        return found

    return told


def require_one_accepted(
    candidates: Sequence[tuple[AnySignature, VerificationRecord]],
    verify: Callable[[AnySignature, VerificationRecord], Acceptance],
    seen: list[SignatureResult],
) -> Acceptance:
    """What `verify` accepts of one candidate, whichever (signatures.md 2.1). There must be at least one.

    A missing program or package ends the search at once, and so does the end of the time to open an image: neither
    says anything about the signature, and nothing it could have said is assumed. What one candidate can cost is bounded
    by the limits of chains, keys and exponents.
    """
    refusals: list[SignatureError] = []
    for signature, verification in candidates:
        try:
            require_time()
            acceptance = verify(signature, verification)
        except SignatureError as error:
            seen.append(verification.result(error))
            refusals.append(error)
        except (MissingDependencyError, SourceError) as error:
            seen.append(verification.result(error))
            why, code = str(error), error.code
            raise PolicyRejectedError(why, reason="dependency", code=code, phase=Phase.SIGNATURE) from error
        else:
            seen.append(verification.result())
            return acceptance
    sentences = list(dict.fromkeys(str(error) for error in refusals))
    more = [f"and {len(sentences) - _REASONS_SHOWN} more"] if len(sentences) > _REASONS_SHOWN else []
    reason = refusals[0].reason if len({error.reason for error in refusals}) == 1 else "several"
    raise PolicyRejectedError("; ".join(sentences[:_REASONS_SHOWN] + more), reason=reason)


def no_signature(image: UnverifiedImage, what: str, others: str) -> PolicyRejectedError:
    """The refusal when there is no candidate: not looked for, or looked and none found (class NOSIG)."""
    places = None if image.looked_for is None else image.looked_for()
    if places is not None and not places:
        why = f"no {what} was looked for: neither transport nor configuration names a place for signatures"
    else:
        why = f"no {what} found" + (f", looked in {', '.join(places)}" if places else "")
    return PolicyRejectedError(f"{why}{others}", reason="nosig")

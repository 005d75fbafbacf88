# SPDX-License-Identifier: Apache-2.0
"""Whether the policy accepts an image: which requirements apply, and whether all of them accept.

The only way to an acceptance is that every requirement of the one selected list returned. An empty list, an error and
an absent tool are refusals. Requirement lists of several scopes are never merged (signatures.md 1.3, 2.1).
"""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from ..errors import CipError, PolicyRejectedError, quote
from ..model.descriptor import Digest, digest_of
from ..model.reference import ImageIdentity
from .policy import Acceptance, Policy, Requirement, TrustTools, UnverifiedImage, name_of

if TYPE_CHECKING:
    from ..model.signature import SignatureResult

# These refusals do not depend on the bytes that are judged, so no other manifest of the image can fare better.
_HOPELESS = frozenset({"deny", "noverify", "unimpl", "dependency"})


Subject = Literal["image", "index", "instance"]  # which manifest of an image was judged


class RequirementResult:
    """What one requirement said about one manifest; `reason` is a class of signatures.md, empty when accepted."""

    def __init__(self, subject: Subject, kind: str, accepted: bool, reason: str = "", detail: str = "") -> None:
        self.subject, self.kind, self.accepted, self.reason, self.detail = subject, kind, accepted, reason, detail


class Decision(NamedTuple):
    """Why an image was accepted or refused. `looked_for` is None when no requirement asked for signatures.

    `acceptances` has what each requirement accepted, none for a refused image.
    """

    accepted: bool
    identity: ImageIdentity
    where: str
    sha256: str
    scope: str
    requirements: tuple[RequirementResult, ...]
    signatures: tuple["SignatureResult", ...]
    looked_for: tuple[str, ...] | None
    acceptances: tuple[Acceptance, ...]


class Audit(Protocol):
    """Takes each decision about an open, refusals included.

    `digest` is that of the manifest to be served, `index_digest` that of the index it was chosen from; both are the
    index's when no manifest of it was looked at. `time` is in seconds since 1970.
    """

    def __call__(
        self, decision: Decision, *, reference: str, digest: Digest, index_digest: Digest | None, time: float
    ) -> None: ...


def no_audit(decision: Decision, **circumstances: object) -> None:
    """For a parent that did not ask for the audit."""


class ImageRejectedError(PolicyRejectedError):
    """The policy refuses the image; `decision` tells why in detail."""

    def __init__(self, decision: Decision, cause: PolicyRejectedError) -> None:
        name = str(decision.identity.docker or decision.identity.identity or "image")
        kind = decision.requirements[-1].kind if decision.requirements else "the empty list"
        super().__init__(
            f"{decision.identity.transport}: {quote(name)}: refused by {kind} in {decision.where}, "
            f"scope {quote(decision.scope)}: {cause}",
            **cause.facts(),
        )
        self.decision = decision


class InstanceUnavailableError(Exception):
    """The policy judged an index as `decision` tells, and the instance that is wanted cannot be had: `cause`."""

    def __init__(self, decision: Decision, cause: CipError) -> None:
        super().__init__(str(cause))
        self.decision = decision
        self.cause = cause


def select_requirements(policy: Policy, identity: ImageIdentity) -> tuple[str, tuple[Requirement, ...]]:
    """The scope and the one list that applies (signatures.md 1.3): exact name, namespaces, the transport's `""`.

    The scope tells people which: `docker:quay.io/ns`, `docker:`, or `default`.
    """
    scopes = policy.transports.get(identity.transport, {})
    for scope in (identity.identity, *identity.scopes, ""):
        if scope in scopes:
            return f"{identity.transport}:{scope}", scopes[scope]
    return "default", policy.default


def require_accepted(
    policy: Policy, image: UnverifiedImage, tools: TrustTools, *, require_signed: bool, subject: Subject = "image"
) -> Decision:
    """Return only if every requirement that applies accepts `image` (containers-policy.json(5), signatures.md 2.1).

    With `require_signed` one of them must have verified a signature. Raises ImageRejectedError, whose `reason` is the
    class of signatures.md in lower case, and what `signatures` of the image or `tools` raise beside CipError.
    """
    scope, requirements = select_requirements(policy, image.identity)
    results: list[RequirementResult] = []
    acceptances: list[Acceptance] = []
    seen: list[SignatureResult] = []
    refusal: PolicyRejectedError | None = None
    searched = False
    for requirement in requirements:
        searched = searched or requirement.verifies
        try:
            acceptances.append(requirement.check(image, tools, seen))
        except PolicyRejectedError as error:
            results.append(RequirementResult(subject, requirement.kind, False, error.reason or "", str(error)))
            refusal = error
            break
        results.append(RequirementResult(subject, requirement.kind, True))
    if refusal is None:
        refusal = _refusal_of_the_whole(requirements, require_signed)
    decision = Decision(
        refusal is None,
        image.identity,
        policy.where,
        policy.sha256,
        scope,
        tuple(results),
        tuple(seen),
        tuple(image.looked_for() if image.looked_for else ()) if searched else None,
        () if refusal else tuple(acceptances),
    )
    if refusal is not None:
        raise ImageRejectedError(decision, refusal) from refusal
    return decision


def require_index_or_instance(
    policy: Policy,
    index: UnverifiedImage,
    instance: Callable[[], UnverifiedImage],
    tools: TrustTools,
    *,
    require_signed: bool,
) -> Decision:
    """Return only if all requirements accept the index, or all of them accept the chosen instance (signatures.md 6).

    `instance` chooses and fetches it, and is called only when the index was refused for a reason that another manifest
    can cure. If both are refused the instance's error is raised, or the index's where only that had a signature to
    judge; the decision has the results of both. Raises ImageRejectedError, InstanceUnavailableError.
    """
    try:
        return require_accepted(policy, index, tools, require_signed=require_signed, subject="index")
    except ImageRejectedError as error:
        if error.reason in _HOPELESS:
            raise
        first = error
    try:
        chosen = instance()
    except CipError as error:
        raise InstanceUnavailableError(first.decision, error) from error
    try:
        second = require_accepted(policy, chosen, tools, require_signed=require_signed, subject="instance")
    except ImageRejectedError as error:
        error.decision = _joined(first.decision, error.decision)
        if error.reason == "nosig" != first.reason:
            first.decision = error.decision
            raise first from error
        raise
    return _joined(first.decision, second)


def require_complete(
    decision: Decision, policy: Policy, identity: ImageIdentity, digests: Collection[Digest], *, require_signed: bool
) -> None:
    """Return only if every requirement said what it accepted: one of `digests`, the same for all, under this name.

    A second look by whoever acts on a decision, so that a step that was forgotten on the way refuses. A requirement
    that verifies must show what was signed about that digest. Raises PolicyRejectedError (`digest`).
    """
    requirements = select_requirements(policy, identity)[1]
    acceptances = decision.acceptances
    if not decision.accepted or not acceptances or len(acceptances) != len(requirements):
        raise _incomplete(f"{len(acceptances)} of {len(requirements)} requirements said what they accepted")
    if require_signed and not any(requirement.verifies for requirement in requirements):
        raise _incomplete("none of them verifies a signature")
    for requirement, (digest, name, payload) in zip(requirements, acceptances, strict=True):
        if digest not in digests or digest != acceptances[0].digest or name != name_of(identity):
            raise _incomplete(f"{requirement.kind} accepted {quote(name)} with manifest {digest}")
        if requirement.verifies and digest.encoded.encode() not in payload and digest_of(payload) != digest:
            raise _incomplete(f"{requirement.kind} shows nothing that was signed about manifest {digest}")


def _incomplete(why: str) -> PolicyRejectedError:
    return PolicyRejectedError(f"the decision is not about this image: {why}", reason="digest")


def _refusal_of_the_whole(requirements: Collection[Requirement], require_signed: bool) -> PolicyRejectedError | None:
    if not requirements:  # parsing refuses it; silence is not consent here either (signatures.md 2.1)
        return PolicyRejectedError("the policy lists no requirement", reason="deny")
    if require_signed and not any(requirement.verifies for requirement in requirements):
        return PolicyRejectedError("--require-signed: no requirement verifies a signature", reason="noverify")
    return None


def _joined(first: Decision, second: Decision) -> Decision:
    searched = first.looked_for is not None or second.looked_for is not None
    places = dict.fromkeys((*(first.looked_for or ()), *(second.looked_for or ())))
    return second._replace(
        requirements=first.requirements + second.requirements,
        signatures=first.signatures + second.signatures,
        looked_for=tuple(places) if searched else None,
    )

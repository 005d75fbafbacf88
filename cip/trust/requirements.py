# SPDX-License-Identifier: Apache-2.0
"""What a policy demands of an image: the protocol, and the requirements that look at no signature.

A requirement accepts by saying what it accepted and refuses by raising PolicyRejectedError; there is no third answer.
Those that verify signatures live in `openpgp` and `sigstore`, imported only when a policy names them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol, TypeVar

from ..content import require_time
from ..errors import (
    CipError,
    ErrorCode,
    MissingDependencyError,
    Phase,
    PolicyRejectedError,
    SignatureError,
    SourceError,
)
from ..model.digest import Digest, digest_of
from ..model.identity import ImageIdentity
from ..model.jsontree import JsonNode
from ..model.signature import FoundBundles, RawSignature
from ..settings import PolicySource

NOT_SHARED = "this program knows it, skopeo and podman do not: use --policy"
_REASONS_SHOWN = 6  # of many refused signatures, in the sentence for people; the record has all
AnySignature = TypeVar("AnySignature")
T = TypeVar("T")


class PolicyReaders(StrEnum):
    """Who reads a policy file. What this program alone knows would make skopeo and podman refuse every image."""

    SHARED = "shared"
    OWN = "own"  # given with --policy

    @classmethod
    def of(cls, source: PolicySource) -> PolicyReaders:
        """Who reads a policy from there."""
        return cls.OWN if source is PolicySource.FILE else cls.SHARED

    def refuse_own(self, node: JsonNode, names: Sequence[str]) -> None:
        """Fail at `node` for a member of `names` in a file that others read, too."""
        for name in names:
            if self is PolicyReaders.SHARED and node.has(name):
                node.fail(f"unknown member {name!r} ({NOT_SHARED})")


class BundleRules(NamedTuple):
    """What configuration says about bundles under the requested name (bundles.md 4.1).

    `by_digest`: a bundle, which names no repository, may fulfil a requirement, as `identity_file` says. `scope` is the
    section that could say so, empty where the transport has no names. `trusted_root` is a path, or empty.
    """

    by_digest: bool = False
    identity_file: str = ""
    trusted_root: str = ""
    scope: str = ""


class UnverifiedImage(NamedTuple):
    """What is judged: names, the exact bytes of one manifest, and a way to get the signatures of those bytes.

    `signatures` is called only by requirements that need them, may be called again (the caller remembers), and
    raises CipError when the list cannot be had whole; so is `bundles`, apart from them, because only `sigstoreSigned`
    takes such. `looked_for`, asked afterwards, names the places that were searched; an empty answer means that
    configuration gave none, None that the caller cannot tell. `bundle_rules` is asked when there is a bundle.
    """

    identity: ImageIdentity
    manifest: bytes
    signatures: Callable[[], Sequence[RawSignature]]
    looked_for: Callable[[], Sequence[str]] | None = None
    bundles: Callable[[], FoundBundles] = FoundBundles
    bundle_rules: Callable[[], BundleRules] = BundleRules


class GpgvOutcome(Protocol):
    """What gpgv says: exit status, status lines, and the text it found, which must not be used before all is proven."""

    @property
    def status(self) -> int: ...
    @property
    def status_lines(self) -> bytes: ...
    @property
    def output(self) -> bytes: ...


RunGpgv = Callable[[bytes, bytes], GpgvOutcome]  # (key ring, message)


class TrustTools(NamedTuple):
    """The outside world, handed in.

    `read_file(path)` is a whole key file (raises CipError); `run_gpgv(keyring, message)` (raises CipError);
    `now()` is in seconds since 1970.
    """

    read_file: Callable[[str], bytes]
    run_gpgv: RunGpgv
    now: Callable[[], float]


class SignatureResult(NamedTuple):
    """What became of one signature. What it claims is recorded only when its signer was believed."""

    source: str
    kind: str
    accepted: bool = False
    reason: str = ""
    detail: str = ""
    key: str = ""
    certificate: Mapping[str, str] | None = None
    claims: Mapping[str, str] | None = None
    bundle: BundleRecord | None = None


class BundleRecord(NamedTuple):
    """What became known of one bundle (bundles.md 4.4).

    `digest` is that of the bundle; `log` and `times` are the verified entries and times, ready for JSON; `identity`
    says why a bundle without a name was enough, `identity_file` which file allows it.
    """

    digest: str
    log: tuple[Mapping[str, object], ...] = ()
    times: tuple[Mapping[str, object], ...] = ()
    identity: str = ""
    identity_file: str = ""


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
        return SignatureResult(
            self.source,
            self.kind,
            refusal is None,
            reason,
            detail,
            self.key,
            self.certificate,
            self.claims,
            self.bundle,
        )


class Acceptance(NamedTuple):
    """What a requirement accepted, for whoever opens the image to hold against it: silence accepts nothing.

    `digest` is that of the manifest and `name` the image's own name. `payload` is what was verified to be signed: a
    statement with that digest, or the manifest itself; empty for a requirement that verifies nothing.
    """

    digest: Digest
    name: str
    payload: bytes


def name_of(identity: ImageIdentity) -> str:
    """The name that an image is accepted under: a reference, a path, or empty."""
    return str(identity.docker or identity.identity)


class Requirement(Protocol):
    """One entry of a requirement list."""

    @property
    def kind(self) -> str:
        """Its `type` in the policy."""
        ...

    @property
    def verifies(self) -> bool:
        """Whether accepting means that a signature was verified (`--require-signed`)."""
        ...

    def check(self, image: UnverifiedImage, tools: TrustTools, seen: list[SignatureResult]) -> Acceptance:
        """What of `image` is accepted; each signature looked at is added to `seen`.

        Raises PolicyRejectedError whose `reason` is the class of signatures.md in lower case.
        """
        ...


class Absent(NamedTuple):
    """A requirement that this copy of the program cannot check: refuses."""

    kind: str
    why: str
    verifies: bool = False

    def check(self, image: UnverifiedImage, tools: TrustTools, seen: list[SignatureResult]) -> Acceptance:
        """Refuse."""
        raise PolicyRejectedError(self.why, code=ErrorCode.DEPENDENCY_MISSING, reason="dependency")


class InsecureAcceptAnything(NamedTuple):
    """`insecureAcceptAnything`: accepts."""

    kind: str = "insecureAcceptAnything"
    verifies: bool = False

    def check(self, image: UnverifiedImage, tools: TrustTools, seen: list[SignatureResult]) -> Acceptance:
        """Accept."""
        return Acceptance(digest_of(image.manifest), name_of(image.identity), b"")


class Reject(NamedTuple):
    """`reject`: refuses."""

    kind: str = "reject"
    verifies: bool = False

    def check(self, image: UnverifiedImage, tools: TrustTools, seen: list[SignatureResult]) -> Acceptance:
        """Refuse."""
        raise PolicyRejectedError("images of this scope are refused", reason="deny")


class SignedBaseLayer(NamedTuple):
    """`signedBaseLayer`: parsed, never fulfilled, as upstream (signatures.md 2.2)."""

    kind: str = "signedBaseLayer"
    verifies: bool = False

    def check(self, image: UnverifiedImage, tools: TrustTools, seen: list[SignatureResult]) -> Acceptance:
        """Refuse."""
        raise PolicyRejectedError("signedBaseLayer is not supported by any implementation", reason="unimpl")


def fetch_signatures(image: UnverifiedImage) -> Sequence[RawSignature]:
    """All signatures of `image`. A list that cannot be had whole refuses it (signatures.md 2.1, class FETCH)."""
    return _fetched(image.signatures)


def fetch_bundles(image: UnverifiedImage) -> FoundBundles:
    """All bundles of `image`, by the same rule."""
    return _fetched(image.bundles)


def fetch_bundle_rules(image: UnverifiedImage) -> BundleRules:
    """What configuration says about bundles; one that cannot be read refuses, too."""
    return _fetched(image.bundle_rules)


def _fetched(fetch: Callable[[], T]) -> T:
    try:
        return fetch()
    except CipError as error:
        raise PolicyRejectedError(
            f"the signatures cannot be fetched: {error}",
            **error.facts(reason="fetch", phase=error.phase or Phase.SIGNATURE),
        ) from error


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

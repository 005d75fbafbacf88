# SPDX-License-Identifier: Apache-2.0
"""What a policy demands of an image: the protocol, and the requirements that look at no signature.

A requirement accepts by saying what it accepted and refuses by raising PolicyRejectedError; there is no third answer.
Those that verify signatures live in rooms (`signed`, `openpgp`, `sigstore`), imported only when a policy names them.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..errors import ErrorCode, PolicyRejectedError, UnsupportedError
from ..model.descriptor import Digest, digest_of
from ..model.jsontree import JsonNode
from ..model.reference import ImageIdentity
from ..settings import PolicySource

if TYPE_CHECKING:
    from ..model.signature import FoundBundles, RawSignature

NOT_SHARED = "this program knows it, skopeo and podman do not: use --policy"


class PolicyReaders(StrEnum):
    """Who reads a policy file. What this program alone knows would make skopeo and podman refuse every image."""

    SHARED = "shared"
    OWN = "own"  # given with --policy

    @classmethod
    def of(cls, source: PolicySource) -> "PolicyReaders":
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


def _never_looked_for() -> "Sequence[RawSignature]":
    raise UnsupportedError("signatures: nothing looks for them here", code=ErrorCode.DEPENDENCY_MISSING)


class UnverifiedImage(NamedTuple):
    """What is judged: names, the exact bytes of one manifest, and a way to get the signatures of those bytes.

    `signatures` is called only by requirements that need them, may be called again (the caller remembers), and
    raises CipError when the list cannot be had whole; so is `bundles`, apart from them, because only `sigstoreSigned`
    takes such. `looked_for`, asked afterwards, names the places that were searched; an empty answer means that
    configuration gave none, None that the caller cannot tell. `bundle_rules` is asked when there is a bundle. Where
    `bundles` is None none are looked for.
    """

    identity: ImageIdentity
    manifest: bytes
    signatures: "Callable[[], Sequence[RawSignature]]" = _never_looked_for
    looked_for: Callable[[], Sequence[str]] | None = None
    bundles: "Callable[[], FoundBundles] | None" = None
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
    bundle: "BundleRecord | None" = None


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

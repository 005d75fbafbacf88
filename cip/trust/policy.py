# SPDX-License-Identifier: Apache-2.0
"""policy.json: bytes → the requirements of each scope, or a refusal (signatures.md 1.2, 1.4, 2.2).

Parsing is complete: an error anywhere, even in a scope that is never used, refuses the whole file. Files that the
policy names are not opened here. The scopes of transports that this program does not serve are known too, or a policy
that is valid for another tool would be read differently here.

A requirement accepts by saying what it accepted and refuses by raising PolicyRejectedError; there is no third answer.
Those that verify signatures live in rooms (`signed`, `openpgp`, `sigstore`), imported only when a policy names them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .. import rooms
from ..errors import ConfigurationError, ErrorCode, PolicyRejectedError, UnsupportedError, quote
from ..model.descriptor import Digest, digest_of
from ..model.jsontree import JsonNode, parse_json, refuse_surrogates
from ..model.reference import UNSUPPORTED_TRANSPORTS, ImageIdentity, Transport, path_fault, unmatched_scope
from ..settings import PolicySource

if TYPE_CHECKING:
    from ..model.signature import BundleRules, FoundBundles, RawSignature, SignatureResult

POLICY_LIMIT = 4 * 1024 * 1024  # bytes (signatures.md 10.5)
BUILT_IN = "--insecure-policy"
_KINDS = ("insecureAcceptAnything", "reject", "signedBaseLayer", "signedBy", "sigstoreSigned")


def _never_looked_for() -> "Sequence[RawSignature]":
    raise UnsupportedError("signatures: nothing looks for them here", code=ErrorCode.DEPENDENCY_MISSING)


class UnverifiedImage(NamedTuple):
    """What is judged: names, the exact bytes of one manifest, and a way to get the signatures of those bytes.

    `signatures` is called only by requirements that need them, may be called again (the caller remembers), and
    raises CipError when the list cannot be had whole; so is `bundles`, apart from them, because only `sigstoreSigned`
    takes such. `looked_for`, asked afterwards, names the places that were searched; an empty answer means that
    configuration gave none, None that the caller cannot tell. `bundle_rules` is asked when there is a bundle. Where
    `bundles` is None none are looked for, and where `bundle_rules` is, none are allowed anything.
    """

    identity: ImageIdentity
    manifest: bytes
    signatures: Callable[[], Sequence["RawSignature"]] = _never_looked_for
    looked_for: Callable[[], Sequence[str]] | None = None
    bundles: Callable[[], "FoundBundles"] | None = None
    bundle_rules: Callable[[], "BundleRules"] | None = None


class GpgvOutcome(Protocol):
    """What gpgv says: exit status, status lines, and the text it found, which must not be used before all is proven."""

    @property
    def status(self) -> int: ...
    @property
    def status_lines(self) -> bytes: ...
    @property
    def output(self) -> bytes: ...


RunGpgv = Callable[[bytes, bytes], GpgvOutcome]  # (key ring, message)


class TrustTools:
    """The outside world, handed in.

    `read_file(path)` is a whole key file (raises CipError); `run_gpgv(keyring, message)` (raises CipError);
    `now()` is in seconds since 1970.
    """

    def __init__(self, read_file: Callable[[str], bytes], run_gpgv: RunGpgv, now: Callable[[], float]) -> None:
        self.read_file, self.run_gpgv, self.now = read_file, run_gpgv, now


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

    def check(self, image: UnverifiedImage, tools: TrustTools, seen: "list[SignatureResult]") -> Acceptance:
        """What of `image` is accepted; each signature looked at is added to `seen`.

        Raises PolicyRejectedError whose `reason` is the class of signatures.md in lower case.
        """
        ...


class Absent:
    """A requirement that this copy of the program cannot check: refuses."""

    verifies = False

    def __init__(self, kind: str, why: str) -> None:
        self.kind = kind
        self._why = why

    def check(self, image: UnverifiedImage, tools: TrustTools, seen: "list[SignatureResult]") -> Acceptance:
        """Refuse."""
        raise PolicyRejectedError(self._why, code=ErrorCode.DEPENDENCY_MISSING, reason="dependency")


class InsecureAcceptAnything:
    """`insecureAcceptAnything`: accepts."""

    kind = "insecureAcceptAnything"
    verifies = False

    def check(self, image: UnverifiedImage, tools: TrustTools, seen: "list[SignatureResult]") -> Acceptance:
        """Accept."""
        return Acceptance(digest_of(image.manifest), name_of(image.identity), b"")


class Reject:
    """`reject`: refuses."""

    kind = "reject"
    verifies = False

    def check(self, image: UnverifiedImage, tools: TrustTools, seen: "list[SignatureResult]") -> Acceptance:
        """Refuse."""
        raise PolicyRejectedError("images of this scope are refused", reason="deny")


Requirements = tuple[Requirement, ...]


class Policy:
    """A parsed policy. `where` is its path, `sha256` the hex digest of its bytes (empty: built in)."""

    def __init__(
        self, where: str, sha256: str, default: Requirements, transports: Mapping[str, Mapping[str, Requirements]]
    ) -> None:
        self.where, self.sha256, self.default, self.transports = where, sha256, default, transports

    def requirements(self) -> Iterator[Requirement]:
        """All requirements, whatever they apply to."""
        yield from self.default
        for scopes in self.transports.values():
            for requirements in scopes.values():
                yield from requirements


def accept_anything_policy() -> Policy:
    """The policy of `--insecure-policy`, which no file stands for (signatures.md 1.1 step 1)."""
    return Policy(BUILT_IN, "", (InsecureAcceptAnything(),), MappingProxyType({}))


def parse_policy(data: bytes, where: str, origin: PolicySource = PolicySource.HOST) -> Policy:
    """The policy that `data` holds; `where` is its path. Raises ConfigurationError (`policy-invalid`).

    Only in a file that no other program reads are the words allowed that this program alone knows (bundles.md 4.2).
    """
    if len(data) > POLICY_LIMIT:
        raise _invalid(where, f"larger than {POLICY_LIMIT} bytes")
    root = parse_json(data, where, error=_invalid)
    refuse_surrogates(root)
    root.require_only(("default", "transports"))
    transports = {}
    if root.has("transports"):
        for transport, scopes in root["transports"].members():
            transports[transport] = MappingProxyType(
                {scope: _parse_scope(transport, scope, node, origin) for scope, node in scopes.members()}
            )
    default = _parse_requirements(root["default"], origin)
    return Policy(where, digest_of(data).encoded, default, MappingProxyType(transports))


def unmatched_scopes(policy: Policy) -> Iterator[str]:
    """What to warn of: scopes that no image lies in, so that not even their `reject` has an effect."""
    for transport, scopes in policy.transports.items():
        for scope in scopes:
            why = scope_remark(transport, scope)
            if why:
                where = f"{policy.where}: transports.{transport}: {quote(scope)}"
                yield f"{where} is the scope of no image: {why}"


def _parse_scope(transport: str, scope: str, node: JsonNode, origin: PolicySource) -> Requirements:
    try:
        fault = scope_fault(transport, scope)
    except UnsupportedError as error:  # whatever it asks for: nothing of this copy opens an image there
        return (Absent("scope", str(error)),)
    if fault:
        node.fail(fault)
    return _parse_requirements(node, origin)


def _parse_requirements(node: JsonNode, origin: PolicySource) -> Requirements:
    """A list that is never empty: no requirement is no consent (signatures.md 1.2)."""
    requirements = tuple(_parse_requirement(item, origin) for item in node.items())
    if not requirements:
        node.fail("expected at least one requirement, found none")
    return requirements


def _parse_requirement(node: JsonNode, origin: PolicySource) -> Requirement:
    """Rooms are asked here, and not before: a policy that verifies nothing must not cost what verifying costs."""
    kind = node["type"].as_str()
    match kind:
        case "insecureAcceptAnything":
            node.require_only(("type",))
            return InsecureAcceptAnything()
        case "reject":
            node.require_only(("type",))
            return Reject()
        case "signedBaseLayer":
            return _or_absent(node, rooms.parse_signed_base_layer)
        case "signedBy":
            return _or_absent(node, rooms.parse_signed_by)
        case "sigstoreSigned":
            return _or_absent(node, lambda node: rooms.parse_sigstore_signed(node, origin))
    node["type"].fail(f"expected one of {', '.join(_KINDS)}, found {quote(kind)}")


def _or_absent(node: JsonNode, parse: Callable[[JsonNode], Requirement]) -> Requirement:
    """In a copy without the room that verifies, the scopes that need it refuse, and others are served."""
    try:
        return parse(node)
    except UnsupportedError as error:
        return Absent(node["type"].as_str(), str(error))


def _invalid(where: str, why: str) -> ConfigurationError:
    return ConfigurationError(where, why, code=ErrorCode.POLICY_INVALID)


def scope_fault(transport: str, scope: str) -> str:
    """What is wrong with `scope`, empty when nothing is: never for the empty one, for `docker`, unknown transports.

    Raises UnsupportedError for a transport that a copy without archives and local storages cannot read.
    """
    if not scope or transport == Transport.DOCKER:
        return ""
    if transport in (Transport.DIR, Transport.OCI):
        return path_fault(scope)
    return rooms.local_scope_fault(transport, scope) if transport in (*Transport, "atomic", "sif") else ""


def scope_remark(transport: str, scope: str) -> str:
    """Why no image lies in a scope that is allowed, empty when one may: what it protects is nothing.

    Of the transports that are known, only the scopes of `docker` can be written so.
    """
    if transport == Transport.DOCKER:
        return unmatched_scope(scope) if scope else ""
    return "" if transport in ("", *Transport, *UNSUPPORTED_TRANSPORTS) else "no transport has this name"

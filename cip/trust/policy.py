# SPDX-License-Identifier: Apache-2.0
"""policy.json: bytes → the requirements of each scope, or a refusal (signatures.md 1.2, 1.4, 2.2).

Parsing is complete: an error anywhere, even in a scope that is never used, refuses the whole file. Files that the
policy names are not opened here. The scopes of transports that this program does not serve are known too, or a policy
that is valid for another tool would be read differently here.

A requirement accepts by saying what it accepted and refuses by raising PolicyRejectedError; there is no third answer.
Those that verify signatures live in rooms (`signed`, `openpgp`, `sigstore`), imported only when a policy names them.
"""

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .. import rooms
from ..errors import ConfigurationError, ErrorCode, PolicyRejectedError, UnsupportedError, quote
from ..model.descriptor import Digest, digest_of, is_digest
from ..model.jsontree import JsonNode, parse_json, refuse_surrogates
from ..model.reference import ImageIdentity, unmatched_scope
from ..settings import PolicySource

if TYPE_CHECKING:
    from ..model.signature import BundleRules, FoundBundles, RawSignature, SignatureResult

POLICY_LIMIT = 4 * 1024 * 1024  # bytes (signatures.md 10.5)
BUILT_IN = "--insecure-policy"
_KINDS = ("insecureAcceptAnything", "reject", "signedBaseLayer", "signedBy", "sigstoreSigned")
_SCOPELESS = frozenset({"", "ostree"})  # known, and their scopes not looked at
_ATOMIC = r"[^/]*(?:/[^:/]*(?:/[^:/]*(?::[^:/]*)?)?)?"


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
    fault = scope_fault(transport, scope)
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
    """What is wrong with `scope`, empty when nothing is: never for the empty one, for `docker`, unknown transports."""
    check = _CHECKS.get(transport)
    return check(scope) if check and scope else ""


def scope_remark(transport: str, scope: str) -> str:
    """Why no image lies in a scope that is allowed, empty when one may: what it protects is nothing.

    Of the transports that are known, only the scopes of `docker` can be written so.
    """
    if transport == "docker":
        return unmatched_scope(scope) if scope else ""
    return "" if transport in _CHECKS or transport in _SCOPELESS else "no transport has this name"


def _only_empty(scope: str) -> str:
    return "expected only the empty scope for this transport"


def _path(scope: str) -> str:
    if scope == "/" or not scope.startswith("/") or scope.startswith("//") or posixpath.normpath(scope) != scope:
        return "expected an absolute path other than /, without //, . and .. and without a slash at the end"
    return ""


def _daemon(scope: str) -> str:
    return "expected a name, found a digest" if is_digest(scope) else ""


def _atomic(scope: str) -> str:
    return "" if re.fullmatch(_ATOMIC, scope) else "expected at most host/namespace/stream:tag"


def _storage(scope: str) -> str:
    """`[graphroot]` or `[driver@graphroot]`, then at most a name, a digest or id, and an id."""
    location, bracket, image = scope[1:].partition("]")
    if not scope.startswith("[") or not bracket:
        return "expected [graphroot] or [driver@graphroot] in front"
    driver, at, root = location.partition("@")
    if not (driver and root.startswith("/") if at else location.startswith("/")):
        return "expected an absolute graph root, with a driver and @ or nothing before it"
    parts = image.split("@", 2)
    if len(parts) == 2 and not (_is_image_id(parts[1]) or is_digest(parts[1])):
        return "expected a digest or an image id behind @"
    if len(parts) == 3 and not (is_digest(parts[1]) and _is_image_id(parts[2])):
        return "expected a digest and an image id behind @"
    return ""


def _is_image_id(text: str) -> bool:
    return is_digest(f"sha256:{text}")


_CHECKS: Mapping[str, Callable[[str], str]] = {
    "atomic": _atomic,
    "docker-daemon": _daemon,
    "docker-archive": _only_empty,
    "tarball": _only_empty,
    "dir": _path,
    "sif": _path,
    "oci": _path,
    "oci-archive": _path,
    "containers-storage": _storage,
}

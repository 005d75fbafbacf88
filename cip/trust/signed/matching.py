# SPDX-License-Identifier: Apache-2.0
"""`signedIdentity`: whether the name that was signed is the name that was asked for (signatures.md 3.2).

`requested` is the reference of the image that is opened, None where its transport has none; `signed` is what the
signature names. Nothing is added to either: no default tag, no other spelling of the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, NoReturn, Protocol

from ...errors import InvalidReferenceError, SignatureError, quote
from ...model.jsontree import JsonNode
from ...model.reference import DockerReference, ImageIdentity, Transport, parse_docker_reference, require_name_prefix
from ...settings import PolicySource

NOT_SHARED = "this program knows it, skopeo and podman do not: use --policy"


def refuse_own(node: JsonNode, names: Sequence[str], origin: PolicySource) -> None:
    """Fail at `node` for a member of `names` in a file that others read, too.

    What this program alone knows, as it may stand in a file of `--policy`, would make them refuse every image.
    """
    for name in names:
        if origin is not PolicySource.FILE and node.has(name):
            node.fail(f"unknown member {name!r} ({NOT_SHARED})")


class IdentityMatcher(Protocol):
    """One rule about names."""

    def require(self, requested: DockerReference | None, signed: DockerReference) -> None:
        """Return only if `signed` will do for `requested`. Raises SignatureError (`identity`)."""
        ...


def require_identity(matcher: IdentityMatcher, requested: ImageIdentity, signed: str) -> None:
    """Return only if `matcher` accepts the text that was signed; one that does not parse never matches a name.

    That a tag and a digest may be signed apart holds for registries alone, where no other tool takes both.
    """
    if isinstance(matcher, MatchDigest):
        return
    try:
        reference = parse_docker_reference(signed)
    except InvalidReferenceError as error:
        raise _other_identity(f"signed for {quote(signed)}, which is no image reference: {error.why}") from error
    asked = requested.docker
    matcher.require(asked, reference)
    whole = requested.transport is not Transport.DOCKER and isinstance(matcher, _OF_WHOLE_NAMES)
    if whole and asked and asked.tag and asked.digest and asked[2:] != reference[2:]:
        _refuse(reference, f"expected both :{asked.tag} and @{asked.digest}")


class MatchExact(NamedTuple):
    """`matchExact`: the same tag or digest reference; of a request with both, any of the names that it is made of."""

    def require(self, requested: DockerReference | None, signed: DockerReference) -> None:
        asked = _required(requested)
        if _is_name_only(asked) or str(signed) not in _names(asked):
            _refuse(signed, f"expected exactly {' or '.join(_names(asked))}")


class MatchRepoDigestOrExact(NamedTuple):
    """`matchRepoDigestOrExact`, the default: a tag must be the same; for a digest the repository must be.

    The digest in the signed name is not compared: the requested one is checked against the manifest, and so is the
    signed manifest digest. A request with both is one for the digest, but a signature for another tag contradicts it.
    """

    def require(self, requested: DockerReference | None, signed: DockerReference) -> None:
        asked = _required(requested)
        if _is_name_only(signed):
            _refuse(signed, f"expected {asked}, and a name without tag and digest says too little")
        contradicts = asked.tag is not None and signed.tag not in (None, asked.tag)
        if asked.tag is not None and asked.digest is None:
            if str(asked) != str(signed):
                _refuse(signed, f"expected exactly {asked}")
        elif asked.digest is None or asked.name != signed.name or contradicts:
            what = "a tag or digest" if asked.tag is None else f"the tag {asked.tag} or a digest"
            _refuse(signed, f"expected {what} of {asked.name}")


class MatchRepository(NamedTuple):
    """`matchRepository`: any image of the same repository."""

    def require(self, requested: DockerReference | None, signed: DockerReference) -> None:
        asked = _required(requested)
        if asked.name != signed.name:
            _refuse(signed, f"expected an image of {asked.name}")


class MatchDigest(NamedTuple):
    """`matchDigest`: no name is compared; the digest that was signed says enough (bundles.md 4.3)."""

    def require(self, requested: DockerReference | None, signed: DockerReference) -> None:
        """Accept."""


class ExactReference(NamedTuple):
    """`exactReference`: the name that the policy gives, whatever was asked for."""

    reference: DockerReference

    def require(self, requested: DockerReference | None, signed: DockerReference) -> None:
        if _is_name_only(signed) or str(signed) != str(self.reference):
            _refuse(signed, f"expected exactly {self.reference}, as the policy says")


class ExactRepository(NamedTuple):
    """`exactRepository`: the repository that the policy gives, whatever was asked for."""

    name: str

    def require(self, requested: DockerReference | None, signed: DockerReference) -> None:
        if signed.name != self.name:
            _refuse(signed, f"expected an image of {self.name}, as the policy says")


class RemapIdentity(NamedTuple):
    """`remapIdentity`: as the default, after a prefix of the requested name was replaced."""

    prefix: str
    signed_prefix: str

    def require(self, requested: DockerReference | None, signed: DockerReference) -> None:
        MatchRepoDigestOrExact().require(self._remapped(_required(requested)), signed)

    def _remapped(self, asked: DockerReference) -> DockerReference:
        if asked.name != self.prefix and not asked.name.startswith(f"{self.prefix}/"):
            return asked
        text = self.signed_prefix + str(asked)[len(self.prefix) :]
        try:
            remapped = parse_docker_reference(text)
        except InvalidReferenceError as error:
            raise _other_identity(f"remapped to {quote(text)}, which is no image reference: {error.why}") from error
        if str(remapped) != text:
            raise _other_identity(f"remapped to {quote(text)}, expected the full spelling {remapped}")
        return remapped


_OF_WHOLE_NAMES = (MatchExact, MatchRepoDigestOrExact, RemapIdentity)


def parse_identity_matcher(node: JsonNode) -> IdentityMatcher:
    """The matcher that a policy's `signedIdentity` holds. Raises what `node` raises."""
    kind = node["type"].as_str()
    if kind not in _PARSERS:
        node["type"].fail(f"expected one of {', '.join(_PARSERS)}, found {quote(kind)}")
    members, build = _PARSERS[kind]
    node.require_only(("type", *members))
    return build(node)


def parse_signed_identity(
    requirement: JsonNode, origin: PolicySource = PolicySource.HOST, *, digest_allowed: bool = False
) -> IdentityMatcher:
    """The `signedIdentity` of a requirement; missing is the default, `null` is an error (signatures.md 2.2).

    `digest_allowed`: `matchDigest` may stand there, in a file that this program alone reads (bundles.md 4.2).
    """
    if not requirement.has("signedIdentity"):
        return MatchRepoDigestOrExact()
    node = requirement["signedIdentity"]
    if digest_allowed and node["type"].as_str() == kind_of(MatchDigest()):
        if origin is not PolicySource.FILE:
            node["type"].fail(f"expected one of {', '.join(_PARSERS)}, found 'matchDigest' ({NOT_SHARED})")
        node.require_only(("type",))
        return MatchDigest()
    return parse_identity_matcher(node)


def kind_of(matcher: IdentityMatcher) -> str:
    """Its `type` in the policy."""
    name = type(matcher).__name__
    return name[0].lower() + name[1:]


def _parse_exact_reference(node: JsonNode) -> IdentityMatcher:
    reference = node["dockerReference"].parse(parse_docker_reference)
    if _is_name_only(reference):
        node["dockerReference"].fail(f"expected a tag or a digest, found {reference}")
    return ExactReference(reference)


def _parse_exact_repository(node: JsonNode) -> IdentityMatcher:
    return ExactRepository(node["dockerRepository"].parse(parse_docker_reference).name)


def _parse_remap(node: JsonNode) -> IdentityMatcher:
    return RemapIdentity(node["prefix"].parse(require_name_prefix), node["signedPrefix"].parse(require_name_prefix))


_PARSERS: Mapping[str, tuple[tuple[str, ...], Callable[[JsonNode], IdentityMatcher]]] = {
    "matchExact": ((), lambda node: MatchExact()),
    "matchRepoDigestOrExact": ((), lambda node: MatchRepoDigestOrExact()),
    "matchRepository": ((), lambda node: MatchRepository()),
    "exactReference": (("dockerReference",), _parse_exact_reference),
    "exactRepository": (("dockerRepository",), _parse_exact_repository),
    "remapIdentity": (("prefix", "signedPrefix"), _parse_remap),
}


def _required(requested: DockerReference | None) -> DockerReference:
    if requested is None:
        raise _other_identity("the image has no name here, so only exactReference or exactRepository can match")
    return requested


def _names(reference: DockerReference) -> tuple[str, ...]:
    """A reference, and where it has a tag and a digest also with each of them alone."""
    if reference.tag is None or reference.digest is None:
        return (str(reference),)
    return str(reference._replace(digest=None)), str(reference._replace(tag=None)), str(reference)


def _is_name_only(reference: DockerReference) -> bool:
    return reference.tag is None and reference.digest is None


def _refuse(signed: DockerReference, why: str) -> NoReturn:
    raise _other_identity(f"signed for {signed}: {why}")


def _other_identity(why: str) -> SignatureError:
    return SignatureError(why, reason="identity")

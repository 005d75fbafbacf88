# SPDX-License-Identifier: Apache-2.0
"""An explanation as a value, as text for people and as JSON for programs.

The first thing somebody reads when an update fails at night. So the verdict stands on top, and every line that is
the consequence of a file names the file. Nothing secret is in here to be shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .. import log
from ..errors import strip_url
from ..hostconfig.certsd import Certificates
from ..hostconfig.paths import ConfigurationFile
from ..hostconfig.proxyenv import Proxy
from ..hostconfig.registriesd import BundleTrust, SignatureLocation
from .credentials import CredentialPlan

_UNKNOWN = "unknown, see ERROR above"


class EndpointView(NamedTuple):
    """One place. `host` is what would be connected to; a member that a broken file hides is None.

    The kind of `credentials` may also be `flags` or `anonymous`.
    """

    location: str
    host: str
    rule: str
    file: str
    insecure: bool
    blocked: bool
    credentials: CredentialPlan | None
    certificates: Certificates | None
    proxy: Proxy | None


class RequirementView(NamedTuple):
    """One requirement of the policy, with the keys it names and whom certificates must be for."""

    kind: str
    verifies: bool
    keys: tuple[str, ...]
    signers: tuple[str, ...] = ()


class PolicyView(NamedTuple):
    """The part of the policy that applies."""

    path: str
    sha256: str
    scope: str
    transport: str
    requirements: tuple[RequirementView, ...]

    def asks_for_signatures(self) -> bool:
        """Whether a requirement would look at signatures."""
        return any(each.verifies for each in self.requirements)


class Explanation(NamedTuple):
    """The answer. `errors` would stop the image; `verdict` is their sum in one sentence."""

    reference: str
    transport: str
    identity: str
    platforms: tuple[str, ...]
    config_files: tuple[ConfigurationFile, ...]
    endpoints: tuple[EndpointView, ...]
    policy: PolicyView | None
    signatures: SignatureLocation | None
    bundles: BundleTrust | None
    local_sources: tuple[str, ...]
    warnings: tuple[str, ...]
    errors: tuple[str, ...]
    verdict: str
    offline: bool = False

    def to_json(self) -> str:
        """One JSON object (decisions.md section 6) and a line feed."""
        import json

        members: dict[str, object] = {
            "reference": self.reference,
            "transport": self.transport,
            "identity": self.identity,
            "platform": self.platforms[0],
            "verdict": self.verdict,
            "config_files": [file._asdict() for file in self.config_files],
            "endpoints": [_endpoint_members(each) for each in self.endpoints],
            "policy": self.policy and _policy_members(self.policy),
            "signatures": self.signatures and _signature_members(self.signatures, self.bundles),
            "local_sources": self.local_sources,
            "warnings": self.warnings,
            "errors": self.errors,
        }
        return json.dumps(members, indent=2) + "\n"

    def to_text(self) -> str:
        """The same for people."""
        return "\n".join(map(log.printable, _text_lines(self))) + "\n"  # paths and names are whatever files hold


# --- JSON ---


def _endpoint_members(endpoint: EndpointView) -> dict[str, object]:
    plan, found = endpoint.credentials, endpoint.certificates
    return endpoint._asdict() | {
        "file": endpoint.file or None,
        "credentials": plan and {name: text or None for name, text in plan._asdict().items() if name != "files"},
        "certificates": found
        and {"directory": found.directory or None, "authorities": found.authorities, "pairs": found.pairs},
        "proxy": endpoint.proxy and _proxy_text(endpoint.proxy),
    }


def _policy_members(policy: PolicyView) -> dict[str, object]:
    requirements = [
        {"type": each.kind, "keys": each.keys} | ({"signers": each.signers} if each.signers else {})
        for each in policy.requirements
    ]
    return policy._asdict() | {"requirements": requirements}


def _signature_members(place: SignatureLocation, bundles: BundleTrust | None) -> dict[str, object]:
    return {
        "lookaside": strip_url(place.lookaside),
        "attachments": place.attachments,
        "file": place.file or None,
        "bundles": _may_have_bundles(place),
        "bundle_trust": bundles
        and {
            "identity": "by-digest" if bundles.by_digest else "refuse",
            "identity_file": bundles.file if bundles.by_digest else None,
            "trusted_root": bundles.trusted_root or None,
            "trusted_root_file": bundles.trusted_root_file or None,
        },
    }


def _may_have_bundles(place: SignatureLocation) -> bool:
    return place.attachments if place.bundles is None else place.bundles


def _proxy_text(proxy: Proxy) -> str:
    return f"{proxy.scheme}://{proxy.address}"


# --- text ---


def _text_lines(found: Explanation) -> Iterator[str]:
    yield found.reference
    yield f"  {found.verdict}"
    yield ""
    yield f"  name      {found.identity or '(none)'}"
    also = f" (or {', '.join(found.platforms[1:])})" if found.platforms[1:] else ""
    yield f"  platform  {found.platforms[0]}{also}"
    for error in found.errors:
        yield f"  ERROR     {error}"
    for warning in found.warnings:
        yield f"  warning   {warning}"
    if found.local_sources:
        yield ""
        yield "local sources, tried before any place"
        yield from (f"  {source}" for source in found.local_sources)
    if found.endpoints:
        yield ""
        yield "places, not asked (--offline)" if found.offline else "places, in the order they are tried"
        for number, endpoint in enumerate(found.endpoints, 1):
            yield from _endpoint_lines(number, endpoint)
    yield ""
    yield from _policy_lines(found.policy)
    if found.signatures is not None:
        yield ""
        yield from _signature_lines(found.signatures, found.bundles, found.policy)
    if found.config_files:
        yield ""
        yield "files"
        yield from (
            f"  {'read  ' if file.read else 'absent'}  {file.path}  ({file.role})" for file in found.config_files
        )


def _endpoint_lines(number: int, endpoint: EndpointView) -> Iterator[str]:
    yield f"  {number}. {endpoint.location}{'  BLOCKED, not used' if endpoint.blocked else ''}"
    yield f"     rule          {endpoint.rule}" + (f", {endpoint.file}" if endpoint.file else "")
    how = "https unverified, then plain http" if endpoint.insecure else "https, certificate checked"
    via = f"via proxy {_proxy_text(endpoint.proxy)} ({endpoint.proxy.variable})" if endpoint.proxy else "direct"
    yield f"     connection    {endpoint.host}: {how}; {via}"
    yield f"     certificates  {_certificate_text(endpoint.certificates)}"
    yield f"     credentials   {_credential_text(endpoint.credentials)}"


def _certificate_text(certificates: Certificates | None) -> str:
    if certificates is None:
        return _UNKNOWN
    if not certificates.directory:
        return "the system's authorities, no client certificate"
    authorities = _count(certificates.authorities, "authority", "authorities")
    clients = _count(certificates.pairs, "client certificate", "client certificates")
    return f"{certificates.directory}: {authorities} beside the system's, {clients}"


def _count(things: Sequence[object], singular: str, plural: str) -> str:
    return f"{len(things) or 'no'} {singular if len(things) == 1 else plural}"


def _credential_text(credentials: CredentialPlan | None) -> str:
    if credentials is None:
        return _UNKNOWN
    kind, source, key, helper, _ = credentials
    texts = {
        "flags": f"from the command line ({source})",
        "anonymous": f"none ({source})",
        "none": "none found, so anonymous",
        "password": f"user name and password, key {key!r} of {source}",
        "token": f"identity token, key {key!r} of {source}",
        "helper": f"would run {helper} for {key}, as {source} says",
    }
    return texts[kind]


def _policy_lines(policy: PolicyView | None) -> Iterator[str]:
    if policy is None:
        yield "policy unknown, see ERROR above"
        return
    yield f"policy {policy.path}" + (f" (sha256 {policy.sha256})" if policy.sha256 else "")
    yield f"  scope         {policy.scope}"
    for requirement in policy.requirements:
        keys = f" with {', '.join(requirement.keys)}" if requirement.keys else ""
        yield f"  requirement   {requirement.kind}{keys}"
        yield from (f"                {signer}" for signer in requirement.signers)


def _signature_lines(place: SignatureLocation, bundles: BundleTrust | None, policy: PolicyView | None) -> Iterator[str]:
    unused = policy is not None and not policy.asks_for_signatures()
    yield "signatures of the first place" + (", not asked for by the policy" if unused else "")
    yield f"  lookaside     {strip_url(place.lookaside)}  ({place.file or 'built-in default'})"
    yield f"  attachments   {'yes, beside the image (sigstore)' if place.attachments else 'no'}"
    how = "yes, what refers to the image (sigstore)" if place.bundles else "no"
    if place.bundles is None and place.attachments:
        how = "only where there is no other sigstore signature"
    yield f"  bundles       {how}"
    if bundles is None or not _may_have_bundles(place):
        return
    if bundles.by_digest:
        yield f"                they count by digest, whatever name was asked for ({bundles.file})"
    else:
        yield "                they name no repository, so only matchDigest in a --policy file accepts them, or"
        yield f'                "sigstore-bundle-identity: by-digest" under "{bundles.scope}" in {bundles.file}'
    if bundles.trusted_root:
        yield f"                certificates by {bundles.trusted_root} ({bundles.trusted_root_file})"

# SPDX-License-Identifier: Apache-2.0
"""`sigstoreSigned`: signatures by keys or certificates, with or without a transparency log (signatures.md 5).

The order for one attachment: trust material, annotations, log entry and certificate, the signature itself, and only
then the payload's meaning. Bundles are judged beside them, by a room of their own that is loaded when there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ... import rooms
from ...errors import CipError, SignatureError, UnsupportedError, quote
from ...model.jsontree import JsonNode
from ...model.signature import SIGSTORE_MIME_TYPE, FoundBundles, SignatureResult, SigstoreSignature
from ...settings import PolicySource
from ..policy import Acceptance, TrustTools, UnverifiedImage
from ..signed.armor import decode_base64
from ..signed.matching import IdentityMatcher, parse_signed_identity, refuse_own
from ..signed.materials import parse_materials
from ..signed.payload import SIGSTORE_TYPE, accept_payload
from ..signed.requirement import (
    VerificationRecord,
    fetch_bundles,
    fetch_signatures,
    no_signature,
    require_one_accepted,
    told_to_each,
)
from .certificates import CertificateIdentity
from .keys import PublicKey
from .signers import Evidence, FulcioSource, KeySource, Logging, PkiSource, Signers, TrustSource

PREDICATES_SHOWN = 3
COUNT_LIMIT = 4  # log entries or time stamps that a policy may demand
_SIGNATURE = "dev.cosignproject.cosign/signature"
_REKOR_SOURCES = ("rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas")
_KEY_SOURCES = ("keyPath", "keyPaths", "keyData", "keyDatas")
_CA_SOURCES = ("caPath", "caData")
_ROOT_SOURCES = ("trustedRootPath", "trustedRootData")
_COUNTS = ("requireLogEntries", "requireTimestamps")
_OWN_MEMBERS = (*_ROOT_SOURCES, *_COUNTS)
_SUBJECTS = ("subjectEmail", "subjectURI", "subjectOtherName", "buildSignerURI")
Check = Callable[[VerificationRecord], Acceptance]


class SigstoreSigned(NamedTuple):
    """`sigstoreSigned`: one sigstore signature by a trusted signer, for this manifest under an acceptable name."""

    source: TrustSource
    matcher: IdentityMatcher
    kind: str = "sigstoreSigned"
    verifies: bool = True

    def check(self, image: UnverifiedImage, tools: TrustTools, seen: list[SignatureResult]) -> Acceptance:
        """As `Requirement.check` says."""
        signatures = fetch_signatures(image)
        found = fetch_bundles(image)
        sigstore = [each for each in signatures if isinstance(each, SigstoreSignature)]
        load = told_to_each(lambda: self.source.load(tools))
        candidates: list[tuple[Check, VerificationRecord]] = [
            (self._check_of(each, load, image), VerificationRecord(each.origin, "sigstore"))
            for each in sigstore
            if each.mime_type == SIGSTORE_MIME_TYPE
        ]
        attestations: Sequence[str] = found.attestations
        if found.bundles:
            bundles, attestations = self._bundles(found, image, tools)
            candidates += bundles
        if not candidates:
            others = _others(len(signatures) - len(sigstore), len(sigstore), attestations, found.others)
            raise no_signature(image, "sigstore signature", others + _advice(image))
        return require_one_accepted(candidates, lambda check, verification: check(verification), seen)

    def _check_of(self, signature: SigstoreSignature, load: Callable[[], Signers], image: UnverifiedImage) -> Check:
        def check(verification: VerificationRecord) -> Acceptance:
            signers = load()
            evidence = Evidence(signature.payload, _signature_bytes(signature), signature.annotations)
            payload = _signed_payload(signers(evidence, verification), evidence, verification)
            return accept_payload(payload, SIGSTORE_TYPE, image, self.matcher, verification)

        return check

    def _bundles(
        self, found: FoundBundles, image: UnverifiedImage, tools: TrustTools
    ) -> tuple[Sequence[tuple[Check, VerificationRecord]], Sequence[str]]:
        try:
            return rooms.candidates_among(found, self.source, self.matcher, image, tools)
        except UnsupportedError as error:
            refusal = SignatureError(str(error), reason="bundle")

        def refuse(verification: VerificationRecord) -> Acceptance:
            raise refusal

        return [
            (refuse, VerificationRecord(each.origin, "sigstore-bundle")) for each in found.bundles
        ], found.attestations


def parse_sigstore_signed(node: JsonNode, origin: PolicySource) -> SigstoreSigned:
    """The requirement that `node` holds (signatures.md 2.2, D3; bundles.md 4.2). Raises what `node` raises."""
    refuse_own(node, _OWN_MEMBERS, origin)
    node.require_only(("type", *_KEY_SOURCES, "fulcio", "pki", *_REKOR_SOURCES, *_OWN_MEMBERS, "signedIdentity"))
    present = [name for name in (*_KEY_SOURCES, "fulcio", "pki") if node.has(name)]
    if len(present) != 1:
        found = " and ".join(present) or "none"
        node.fail(f"expected one of {', '.join(_KEY_SOURCES)}, fulcio, pki, found {found}")
    source: TrustSource
    if present[0] == "fulcio":
        source = _parse_fulcio(node, origin)
    elif present[0] == "pki":
        if any(node.has(name) for name in (*_REKOR_SOURCES, *_OWN_MEMBERS)):
            node.fail("pki goes with no Rekor key and no trusted root")
        source = _parse_pki(node["pki"])
    else:
        source = KeySource(parse_materials(node, _KEY_SOURCES) or (), _parse_logging(node))
    return SigstoreSigned(source, parse_signed_identity(node, origin, digest_allowed=True))


def _parse_fulcio(requirement: JsonNode, origin: PolicySource) -> FulcioSource:
    logging = _parse_logging(requirement)
    node = requirement["fulcio"]
    refuse_own(node, _SUBJECTS[1:], origin)
    node.require_only((*_CA_SOURCES, "oidcIssuer", *_SUBJECTS))
    anchors = parse_materials(node, _CA_SOURCES)
    if logging.root is not None and anchors is not None:
        node.fail("a trusted root goes with neither caPath nor caData")
    if logging.root is None and not logging.log_keys:
        requirement.fail(f"fulcio needs one of {', '.join(_REKOR_SOURCES)}, found none")
    if logging.root is None and anchors is None:
        node.fail("expected one of caPath, caData, found none")
    if not logging.log_entries and not logging.timestamps:
        requirement.fail("fulcio with requireLogEntries 0 needs requireTimestamps, or no time would be proven")
    return FulcioSource(anchors[0] if anchors else None, _parse_identity(node, origin), logging)


def _parse_logging(node: JsonNode) -> Logging:
    """Which logs, and how many log entries and time stamps a bundle needs; only a trusted root names who makes them."""
    logs, root = parse_materials(node, _REKOR_SOURCES), parse_materials(node, _ROOT_SOURCES)
    if logs is not None and root is not None:
        node.fail("expected a Rekor key or a trusted root, found both")
    counts = []
    for name, default in zip(_COUNTS, (1, 0), strict=True):
        if node.has(name) and root is None:
            node[name].fail(f"expected it beside one of {', '.join(_ROOT_SOURCES)}, found none")
        counts.append(node[name].as_int(minimum=0, maximum=COUNT_LIMIT) if node.has(name) else default)
    return Logging(logs or (), root[0] if root is not None else None, *counts)


def _parse_identity(node: JsonNode, origin: PolicySource) -> CertificateIdentity:
    issuer = _text(node["oidcIssuer"])
    if origin is not PolicySource.FILE:
        return CertificateIdentity(issuer, _text(node["subjectEmail"]))
    present = [name for name in _SUBJECTS if node.has(name)]
    if not present:
        node.fail(f"expected one of {', '.join(_SUBJECTS)}, found none")
    names = [name for name in present if name != _SUBJECTS[-1]]
    if len(names) > 1:
        node.fail(f"expected one subject, found {' and '.join(names)}")
    return CertificateIdentity(issuer, *(_text(node[name]) if name in present else "" for name in _SUBJECTS))


def _parse_pki(node: JsonNode) -> PkiSource:
    roots, intermediates = ("caRootsPath", "caRootsData"), ("caIntermediatesPath", "caIntermediatesData")
    node.require_only((*roots, *intermediates, "subjectEmail", "subjectHostname"))
    anchors = parse_materials(node, roots)
    if anchors is None:
        node.fail(f"expected one of {', '.join(roots)}, found none")
    extra = parse_materials(node, intermediates, empty_allowed=True)
    email, hostname = (_text(node[name]) if node.has(name) else "" for name in ("subjectEmail", "subjectHostname"))
    if not email and not hostname:
        node.fail("expected subjectEmail or subjectHostname, found none")
    return PkiSource(anchors[0], extra[0] if extra else None, email, hostname)


def _text(node: JsonNode) -> str:
    text = node.as_str()
    if not text:
        node.fail("expected a text, found an empty one")
    return text


def _signature_bytes(signature: SigstoreSignature) -> bytes:
    text = signature.annotations.get(_SIGNATURE)
    if text is None:
        raise SignatureError(f"no annotation {_SIGNATURE}", reason="crypto")
    try:
        return decode_base64(text)
    except ValueError as error:
        raise SignatureError(f"annotation {_SIGNATURE}: {error}", reason="crypto") from error


def _signed_payload(keys: Sequence[PublicKey], evidence: Evidence, verification: VerificationRecord) -> bytes:
    """The payload, which any of the keys may verify; the reason of the last one that does not is told."""
    refusal: CipError = SignatureError("no key may have signed", reason="crypto")
    for key in keys:
        try:
            key.require_signed(evidence.signature, evidence.payload)
        except SignatureError as error:
            refusal = error
            continue
        verification.key = key.fingerprint
        return evidence.payload
    raise refusal


def _advice(image: UnverifiedImage) -> str:
    """What an administrator needs to hear whose images cosign 3 signs, and who has not asked for bundles."""
    places = image.looked_for() if image.looked_for is not None and image.identity.docker is not None else ()
    if not places or any(place.startswith("bundles of ") for place in places):
        return ""
    return '; bundles, as cosign 3 writes them, are looked for where registries.d says "use-sigstore-bundles: true"'


def _others(simple: int, attachments: int, attestations: Sequence[str], others: Sequence[str]) -> str:
    """What was found and is no signature of the wanted kind."""
    counts = [f"{simple} simple signatures"] * bool(simple) + [f"{attachments} other attachments"] * bool(attachments)
    counts += [f"{_attestations_text(attestations)}"] * bool(attestations)
    counts += [f"{', '.join(others)} among what refers to the image"] * bool(others)
    return f", only {' and '.join(counts)}" if counts else ""


def _attestations_text(predicates: Sequence[str]) -> str:
    named = list(dict.fromkeys(quote(each)[1:-1] for each in predicates if each))
    shown = ", ".join(named[:PREDICATES_SHOWN]) + (", …" if len(named) > PREDICATES_SHOWN else "")
    several = len(predicates) > 1
    what = f"{len(predicates)} attestation{'s' if several else ''}" + (f" ({shown})" if shown else "")
    return f"{what}, which {'are no signatures' if several else 'is no signature'} of the image"

# SPDX-License-Identifier: Apache-2.0
"""`sigstoreSigned`: signatures by keys or certificates, with or without a transparency log (signatures.md 5).

The order for one signature: trust material, annotations, log entry and certificate, the signature itself, and only then
the payload's meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from ...errors import CipError, ErrorCode, MissingDependencyError, PolicyRejectedError, SignatureError
from ...model.jsontree import JsonNode
from ...model.signature import SIGSTORE_MIME_TYPE, SigstoreSignature
from ..armor import decode_base64, pem_blocks
from ..matching import IdentityMatcher, parse_signed_identity
from ..materials import Material, parse_materials
from ..payload import SIGSTORE_TYPE, accept_payload
from ..requirements import (
    Acceptance,
    Examination,
    SignatureResult,
    TrustTools,
    UnverifiedImage,
    fetch_signatures,
    no_signature,
    require_one_accepted,
)
from .certificates import require_email, require_hostname, require_oidc_issuer, require_path
from .keys import Certificate, PublicKey, load_certificate, load_public_key
from .logs import only_pem_block, read_log_entry, require_entry_about

CHAIN_LIMIT = 32  # certificates in a chain annotation or an intermediates file
_SIGNATURE = "dev.cosignproject.cosign/signature"
_LOG_ENTRY = "dev.sigstore.cosign/bundle"
_CERTIFICATE = "dev.sigstore.cosign/certificate"
_CHAIN = "dev.sigstore.cosign/chain"
_REKOR_SOURCES = ("rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas")
_KEY_SOURCES = ("keyPath", "keyPaths", "keyData", "keyDatas")


class Evidence(NamedTuple):
    """One signature taken apart: `signature` is decoded, the rest is as it was found."""

    payload: bytes
    signature: bytes
    annotations: Mapping[str, str]


class TrustMaterial(Protocol):
    """Loaded trust material: who may have signed."""

    def signers(self, evidence: Evidence, examination: Examination) -> Sequence[PublicKey]:
        """The keys that may verify this signature, one of which must. Raises SignatureError."""
        ...


class TrustSource(Protocol):
    """What the policy says about signers, not loaded yet."""

    def load(self, tools: TrustTools) -> TrustMaterial:
        """Read every file it names. Raises SignatureError (`keycfg`), MissingDependencyError."""
        ...


class SigstoreSigned(NamedTuple):
    """`sigstoreSigned`: one sigstore signature by a trusted signer, for this manifest under an acceptable name."""

    source: TrustSource
    matcher: IdentityMatcher
    kind: str = "sigstoreSigned"
    verifies: bool = True

    def check(self, image: UnverifiedImage, tools: TrustTools, seen: list[SignatureResult]) -> Acceptance:
        """As `Requirement.check` says."""
        signatures = fetch_signatures(image)
        sigstore = [each for each in signatures if isinstance(each, SigstoreSignature)]
        candidates = [
            (each, Examination(each.origin, "sigstore")) for each in sigstore if each.mime_type == SIGSTORE_MIME_TYPE
        ]
        if not candidates:
            raise no_signature(image, "sigstore signature", _others(len(signatures) - len(sigstore), len(sigstore)))
        try:
            material = self.source.load(tools)
        except (SignatureError, MissingDependencyError) as error:
            seen.extend(examination.result(error) for _, examination in candidates)
            if isinstance(error, SignatureError):
                raise PolicyRejectedError(str(error), reason=error.reason) from error
            raise PolicyRejectedError(str(error), reason="dependency", code=ErrorCode.DEPENDENCY_MISSING) from error

        def verify(signature: SigstoreSignature, examination: Examination) -> Acceptance:
            evidence = Evidence(signature.payload, _signature_bytes(signature), signature.annotations)
            payload = _signed_payload(material.signers(evidence, examination), evidence, examination)
            return accept_payload(payload, SIGSTORE_TYPE, image, self.matcher, examination)

        return require_one_accepted(candidates, verify, tools, seen)


class KeySource(NamedTuple):
    """Public keys; with `log_keys` each signature must be logged for the key that made it."""

    keys: tuple[Material, ...]
    log_keys: tuple[Material, ...]

    def load(self, tools: TrustTools) -> TrustMaterial:
        """All keys; one bad one refuses (signatures.md K04)."""
        return _Keys(_load_keys(self.keys, tools), _load_log_keys(self.log_keys, tools))


class _Keys(NamedTuple):
    keys: Sequence[PublicKey]
    log_keys: Sequence[PublicKey]

    def signers(self, evidence: Evidence, examination: Examination) -> Sequence[PublicKey]:
        """Certificate and chain are ignored (signatures.md 5.3); the log entry too unless a log key is configured."""
        if not self.log_keys:
            return self.keys
        entry = read_log_entry(_annotation(evidence, _LOG_ENTRY, "rekor"), self.log_keys)
        for key in self.keys:
            if key.spki == entry.signer:
                require_entry_about(entry, evidence.payload, evidence.signature, key.spki)
                return [key]
        raise SignatureError("the log entry is about another key", reason="rekor")


class FulcioSource(NamedTuple):
    """Short-lived certificates of a certificate authority that asked an OIDC issuer who the signer is."""

    anchors: Material
    oidc_issuer: str
    subject_email: str
    log_keys: tuple[Material, ...]

    def load(self, tools: TrustTools) -> TrustMaterial:
        """The anchors and the log keys."""
        return _Fulcio(self, _load_anchors(self.anchors, tools), _load_log_keys(self.log_keys, tools))


class _Fulcio(NamedTuple):
    source: FulcioSource
    anchors: Sequence[Certificate]
    log_keys: Sequence[PublicKey]

    def signers(self, evidence: Evidence, examination: Examination) -> Sequence[PublicKey]:
        """Log entry first: it gives the time at which the path must be valid (signatures.md 5.5)."""
        entry = read_log_entry(_annotation(evidence, _LOG_ENTRY, "rekor"), self.log_keys)
        der = only_pem_block(_annotation(evidence, _CERTIFICATE, "untrusted").encode("utf-8", "replace"))
        require_entry_about(entry, evidence.payload, evidence.signature, der)
        leaf = _leaf(der)
        require_path(leaf, _chain(evidence), self.anchors, entry.time, names_exempt=True)
        require_oidc_issuer(leaf, self.source.oidc_issuer)
        require_email(leaf, self.source.subject_email)
        examination.certificate = {"issuer": self.source.oidc_issuer, "subject": self.source.subject_email}
        return [leaf.public_key()]


class PkiSource(NamedTuple):
    """Certificates of an ordinary authority, valid now; an empty subject is not asked for."""

    anchors: Material
    intermediates: Material | None
    subject_email: str
    subject_hostname: str

    def load(self, tools: TrustTools) -> TrustMaterial:
        """Roots and intermediates."""
        intermediates = self.intermediates.load(tools.read_file) if self.intermediates else b""
        name = self.intermediates.name if self.intermediates else ""
        try:
            extra = _all_certificates(intermediates)
        except ValueError as error:
            raise SignatureError(f"{name}: {error}", reason="keycfg") from error
        return _Pki(self, _load_anchors(self.anchors, tools), extra, tools.now())


class _Pki(NamedTuple):
    source: PkiSource
    anchors: Sequence[Certificate]
    intermediates: Sequence[Certificate]
    now: float

    def signers(self, evidence: Evidence, examination: Examination) -> Sequence[PublicKey]:
        """The path must be valid now; the log entry is ignored (signatures.md 5.6)."""
        text = _annotation(evidence, _CERTIFICATE, "untrusted").encode("utf-8", "replace").strip()
        block = next(pem_blocks(text), None)
        if block is None or block.content is None or block.end != len(text) or not text.startswith(b"-----BEGIN "):
            raise SignatureError("certificate annotation: expected exactly one certificate", reason="untrusted")
        leaf = _leaf(block.content)
        require_path(leaf, [*self.intermediates, *_chain(evidence)], self.anchors, self.now, names_exempt=False)
        if self.source.subject_email:
            require_email(leaf, self.source.subject_email)
        if self.source.subject_hostname:
            require_hostname(leaf, self.source.subject_hostname)
        subject = " ".join(filter(None, (self.source.subject_email, self.source.subject_hostname)))
        examination.certificate = {"issuer": self.source.anchors.name, "subject": subject}
        return [leaf.public_key()]


def parse_sigstore_signed(node: JsonNode) -> SigstoreSigned:
    """The requirement that `node` holds (signatures.md 2.2, D3). Raises what `node` raises."""
    node.require_only(("type", *_KEY_SOURCES, "fulcio", "pki", *_REKOR_SOURCES, "signedIdentity"))
    present = [name for name in (*_KEY_SOURCES, "fulcio", "pki") if node.has(name)]
    if len(present) != 1:
        found = " and ".join(present) or "none"
        node.fail(f"expected one of {', '.join(_KEY_SOURCES)}, fulcio, pki, found {found}")
    log_keys = parse_materials(node, _REKOR_SOURCES)
    source: TrustSource
    if present[0] == "fulcio":
        if log_keys is None:
            node.fail(f"fulcio needs one of {', '.join(_REKOR_SOURCES)}, found none")
        source = _parse_fulcio(node["fulcio"], log_keys)
    elif present[0] == "pki":
        if log_keys is not None:
            node.fail("pki goes with no Rekor key")
        source = _parse_pki(node["pki"])
    else:
        source = KeySource(parse_materials(node, _KEY_SOURCES) or (), log_keys or ())
    return SigstoreSigned(source, parse_signed_identity(node))


def _parse_fulcio(node: JsonNode, log_keys: tuple[Material, ...]) -> FulcioSource:
    node.require_only(("caPath", "caData", "oidcIssuer", "subjectEmail"))
    anchors = parse_materials(node, ("caPath", "caData"))
    if anchors is None:
        node.fail("expected one of caPath, caData, found none")
    return FulcioSource(anchors[0], _text(node["oidcIssuer"]), _text(node["subjectEmail"]), log_keys)


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


def _load_keys(materials: Sequence[Material], tools: TrustTools) -> list[PublicKey]:
    return [load_public_key(each.load(tools.read_file), each.name) for each in materials]


def _load_log_keys(materials: Sequence[Material], tools: TrustTools) -> list[PublicKey]:
    keys = _load_keys(materials, tools)
    for material, key in zip(materials, keys, strict=True):
        if key.kind != "ecdsa":  # signatures.md 5.4
            raise SignatureError(f"{material.name}: expected an ECDSA key of a log", reason="keycfg")
    return keys


def _load_anchors(material: Material, tools: TrustTools) -> list[Certificate]:
    """All certificates of the file; other blocks and undecodable ones are skipped (signatures.md 5.5)."""
    anchors = []
    for block in pem_blocks(material.load(tools.read_file)):
        if block.label == "CERTIFICATE" and block.content is not None:
            try:
                anchors.append(load_certificate(block.content))
            except ValueError:
                continue
    if not anchors:
        raise SignatureError(f"{material.name}: expected a certificate, found none", reason="keycfg")
    return anchors


def _leaf(der: bytes) -> Certificate:
    try:
        return load_certificate(der)
    except ValueError as error:
        raise SignatureError(f"certificate annotation: {error}", reason="untrusted") from error


def _chain(evidence: Evidence) -> Sequence[Certificate]:
    """The chain annotation without its last certificate, which is taken for the root (signatures.md 5.5)."""
    try:
        return _all_certificates(evidence.annotations.get(_CHAIN, "").encode("utf-8", "replace"))[:-1]
    except ValueError as error:
        raise SignatureError(f"chain annotation: {error}", reason="untrusted") from error


def _all_certificates(text: bytes) -> list[Certificate]:
    """Every certificate of a text that holds nothing else at its end. Raises ValueError."""
    text = text.strip()
    blocks = list(pem_blocks(text))
    if text and (not blocks or blocks[-1].end != len(text)):
        raise ValueError("expected certificates in PEM form and nothing else")
    if len(blocks) > CHAIN_LIMIT:
        raise ValueError(f"expected at most {CHAIN_LIMIT} certificates, found {len(blocks)}")
    found = []
    for block in blocks:
        if block.content is None:
            raise ValueError("a block that is not PEM")
        found.append(load_certificate(block.content))
    return found


def _signature_bytes(signature: SigstoreSignature) -> bytes:
    text = signature.annotations.get(_SIGNATURE)
    if text is None:
        raise SignatureError(f"no annotation {_SIGNATURE}", reason="crypto")
    try:
        return decode_base64(text)
    except ValueError as error:
        raise SignatureError(f"annotation {_SIGNATURE}: {error}", reason="crypto") from error


def _annotation(evidence: Evidence, name: str, reason: str) -> str:
    if name not in evidence.annotations:
        raise SignatureError(f"no annotation {name}", reason=reason)
    return evidence.annotations[name]


def _signed_payload(keys: Sequence[PublicKey], evidence: Evidence, examination: Examination) -> bytes:
    """The payload, which any of the keys may verify; the reason of the last one that does not is told."""
    refusal: CipError = SignatureError("no key may have signed", reason="crypto")
    for key in keys:
        try:
            key.require_signed(evidence.signature, evidence.payload)
        except SignatureError as error:
            refusal = error
            continue
        examination.key = key.fingerprint
        return evidence.payload
    raise refusal


def _others(simple: int, attachments: int) -> str:
    counts = [f"{simple} simple signatures"] * bool(simple) + [f"{attachments} other attachments"] * bool(attachments)
    return f", only {' and '.join(counts)}" if counts else ""

# SPDX-License-Identifier: Apache-2.0
"""Who may have signed an attachment: keys, or certificates with or without a transparency log (signatures.md 5).

Each kind of signer is what the policy says, and, once loaded, what finds the keys that may verify a signature. The
same policy about bundles is a `BundleDemand`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from ...errors import SignatureError
from ..policy import TrustTools
from ..signed.armor import pem_blocks
from ..signed.materials import Material
from ..signed.requirement import VerificationRecord
from .certificates import (
    CertificateIdentity,
    require_email,
    require_hostname,
    require_identity,
    require_oidc_issuer,
    require_path,
)
from .demand import BundleDemand, load_keys, load_log_keys
from .keys import Certificate, PublicKey, load_certificate
from .logs import only_pem_block, read_log_entry, require_entry_about

CHAIN_LIMIT = 32  # certificates in a chain annotation or an intermediates file
_LOG_ENTRY = "dev.sigstore.cosign/bundle"
_CERTIFICATE = "dev.sigstore.cosign/certificate"
_CHAIN = "dev.sigstore.cosign/chain"


class Evidence(NamedTuple):
    """One signature taken apart: `signature` is decoded, the rest is as it was found."""

    payload: bytes
    signature: bytes
    annotations: Mapping[str, str]


class TrustMaterial(Protocol):
    """Loaded trust material: who may have signed."""

    def signers(self, evidence: Evidence, verification: VerificationRecord) -> Sequence[PublicKey]:
        """The keys that may verify this signature, one of which must. Raises SignatureError."""
        ...


class TrustSource(Protocol):
    """What the policy says about signers, not loaded yet."""

    def load(self, tools: TrustTools) -> TrustMaterial:
        """Read every file it names. Raises SignatureError (`keycfg`), MissingDependencyError."""
        ...

    def bundle_demand(self) -> BundleDemand:
        """The same about bundles."""
        ...


class KeySource(NamedTuple):
    """Public keys; with `log_keys` each signature must be logged for the key that made it."""

    keys: tuple[Material, ...]
    log_keys: tuple[Material, ...]
    root: Material | None = None  # of logs and timestamp authorities, for bundles
    log_entries: int = 1
    timestamps: int = 0

    def bundle_demand(self) -> BundleDemand:
        """A bundle with one of the keys."""
        return BundleDemand(self.keys, None, self.log_keys, self.root, self.log_entries, self.timestamps)

    def load(self, tools: TrustTools) -> TrustMaterial:
        """All keys; one bad one refuses (signatures.md K04)."""
        if self.root is not None:
            raise _only_for_bundles(self.root)
        return _Keys(load_keys(self.keys, tools), load_log_keys(self.log_keys, tools))


class _Keys(NamedTuple):
    keys: Sequence[PublicKey]
    log_keys: Sequence[PublicKey]

    def signers(self, evidence: Evidence, verification: VerificationRecord) -> Sequence[PublicKey]:
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

    anchors: Material | None
    identity: CertificateIdentity
    log_keys: tuple[Material, ...]
    root: Material | None = None  # of everything, for bundles; then there are no anchors and log keys
    log_entries: int = 1
    timestamps: int = 0

    def bundle_demand(self) -> BundleDemand:
        """A bundle with a certificate for the identity."""
        return BundleDemand((), self.identity, self.log_keys, self.root, self.log_entries, self.timestamps)

    def load(self, tools: TrustTools) -> TrustMaterial:
        """The anchors and the log keys."""
        if self.anchors is None:
            raise _only_for_bundles(self.root)
        return _Fulcio(self.identity, _load_anchors(self.anchors, tools), load_log_keys(self.log_keys, tools))


class _Fulcio(NamedTuple):
    identity: CertificateIdentity
    anchors: Sequence[Certificate]
    log_keys: Sequence[PublicKey]

    def signers(self, evidence: Evidence, verification: VerificationRecord) -> Sequence[PublicKey]:
        """Log entry first: it gives the time at which the path must be valid (signatures.md 5.5)."""
        entry = read_log_entry(_annotation(evidence, _LOG_ENTRY, "rekor"), self.log_keys)
        der = only_pem_block(_annotation(evidence, _CERTIFICATE, "untrusted").encode("utf-8", "replace"))
        require_entry_about(entry, evidence.payload, evidence.signature, der)
        leaf = _leaf(der)
        require_path(leaf, _chain(evidence), self.anchors, entry.time, names_exempt=True)
        wanted = self.identity
        if wanted == CertificateIdentity(wanted.oidc_issuer, wanted.email):  # beside other names, as upstream has it
            require_oidc_issuer(leaf, wanted.oidc_issuer)
            require_email(leaf, wanted.email)
        else:
            require_identity(leaf, wanted)
        subject = wanted.email or wanted.subject or wanted.build_signer_uri
        verification.certificate = {"issuer": wanted.oidc_issuer, "subject": subject}
        return [leaf.public_key()]


class PkiSource(NamedTuple):
    """Certificates of an ordinary authority, valid now; an empty subject is not asked for."""

    anchors: Material
    intermediates: Material | None
    subject_email: str
    subject_hostname: str

    def bundle_demand(self) -> BundleDemand:
        """No bundle fulfils it."""
        return BundleDemand(attachments_only="pki")

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

    def signers(self, evidence: Evidence, verification: VerificationRecord) -> Sequence[PublicKey]:
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
        verification.certificate = {"issuer": self.source.anchors.name, "subject": subject}
        return [leaf.public_key()]


def _only_for_bundles(root: Material | None) -> SignatureError:
    name = root.name if root is not None else "a trusted root"
    return SignatureError(f"{name} works with bundles, expected keys of authorities and logs here", reason="keycfg")


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


def _annotation(evidence: Evidence, name: str, reason: str) -> str:
    if name not in evidence.annotations:
        raise SignatureError(f"no annotation {name}", reason=reason)
    return evidence.annotations[name]

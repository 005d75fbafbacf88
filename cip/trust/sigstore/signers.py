# SPDX-License-Identifier: Apache-2.0
"""Who may have signed an attachment: keys, or certificates with or without a transparency log (signatures.md 5).

Each kind of signer is what the policy says, and, once loaded, what finds the keys that may verify a signature. The
same policy is what bundles are held against, by a room of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

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
from .keys import Certificate, PublicKey, load_certificate, load_public_key
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


# Loaded trust material: the keys that may verify a signature, one of which must. Raises SignatureError.
Signers = Callable[[Evidence, VerificationRecord], Sequence[PublicKey]]


class Logging(NamedTuple):
    """Where a signature must have been seen; of an attachment one of `log_keys` tells, where there are any.

    The rest is about bundles (bundles.md 4.2): `root` names logs and authorities in the place of keys, `log_entries`
    and `timestamps` count different ones of them.
    """

    log_keys: tuple[Material, ...] = ()
    root: Material | None = None
    log_entries: int = 1
    timestamps: int = 0


class KeySource(NamedTuple):
    """Public keys; where keys of logs are named, each signature must be logged for the key that made it."""

    keys: tuple[Material, ...]
    logging: Logging = Logging()

    def load(self, tools: TrustTools) -> Signers:
        """All keys; one bad one refuses (signatures.md K04). Raises SignatureError (`keycfg`), MissingDependencyError.

        Certificate and chain are ignored (signatures.md 5.3); the log entry too unless a log key is configured.
        """
        if self.logging.root is not None:
            raise _only_for_bundles(self.logging.root)
        keys, log_keys = load_keys(self.keys, tools), load_log_keys(self.logging.log_keys, tools)

        def signers(evidence: Evidence, verification: VerificationRecord) -> Sequence[PublicKey]:
            if not log_keys:
                return keys
            entry = read_log_entry(_annotation(evidence, _LOG_ENTRY, "rekor"), log_keys)
            for key in keys:
                if key.spki == entry.signer:
                    require_entry_about(entry, evidence.payload, evidence.signature, key.spki)
                    return [key]
            raise SignatureError("the log entry is about another key", reason="rekor")

        return signers


class FulcioSource(NamedTuple):
    """Short-lived certificates of a certificate authority that asked an OIDC issuer who the signer is.

    With a trusted root there are no anchors.
    """

    anchors: Material | None
    identity: CertificateIdentity
    logging: Logging

    def load(self, tools: TrustTools) -> Signers:
        """The anchors and the log keys. Raises as those of `KeySource`.

        Log entry first: it gives the time at which the path must be valid (signatures.md 5.5).
        """
        if self.anchors is None:
            raise _only_for_bundles(self.logging.root)
        anchors, log_keys = _load_anchors(self.anchors, tools), load_log_keys(self.logging.log_keys, tools)
        wanted = self.identity

        def signers(evidence: Evidence, verification: VerificationRecord) -> Sequence[PublicKey]:
            entry = read_log_entry(_annotation(evidence, _LOG_ENTRY, "rekor"), log_keys)
            der = only_pem_block(_annotation(evidence, _CERTIFICATE, "untrusted").encode("utf-8", "replace"))
            require_entry_about(entry, evidence.payload, evidence.signature, der)
            leaf = _leaf(der)
            require_path(leaf, _chain(evidence), anchors, entry.time, names_exempt=True)
            if wanted == CertificateIdentity(wanted.oidc_issuer, wanted.email):  # beside other names, as upstream
                require_oidc_issuer(leaf, wanted.oidc_issuer)
                require_email(leaf, wanted.email)
            else:
                require_identity(leaf, wanted)
            subject = wanted.email or wanted.subject or wanted.build_signer_uri
            verification.certificate = {"issuer": wanted.oidc_issuer, "subject": subject}
            return [leaf.public_key()]

        return signers


class PkiSource(NamedTuple):
    """Certificates of an ordinary authority, valid now; an empty subject is not asked for. No bundle fulfils it."""

    anchors: Material
    intermediates: Material | None
    subject_email: str
    subject_hostname: str

    def load(self, tools: TrustTools) -> Signers:
        """Roots and intermediates. Raises as those of `KeySource`.

        The path must be valid now; the log entry is ignored (signatures.md 5.6).
        """
        intermediates = self.intermediates.load(tools.read_file) if self.intermediates else b""
        name = self.intermediates.name if self.intermediates else ""
        try:
            extra = _all_certificates(intermediates)
        except ValueError as error:
            raise SignatureError(f"{name}: {error}", reason="keycfg") from error
        anchors, now = _load_anchors(self.anchors, tools), tools.now()

        def signers(evidence: Evidence, verification: VerificationRecord) -> Sequence[PublicKey]:
            text = _annotation(evidence, _CERTIFICATE, "untrusted").encode("utf-8", "replace").strip()
            block = next(pem_blocks(text), None)
            if block is None or block.content is None or block.end != len(text) or not text.startswith(b"-----BEGIN "):
                raise SignatureError("certificate annotation: expected exactly one certificate", reason="untrusted")
            leaf = _leaf(block.content)
            require_path(leaf, [*extra, *_chain(evidence)], anchors, now, names_exempt=False)
            if self.subject_email:
                require_email(leaf, self.subject_email)
            if self.subject_hostname:
                require_hostname(leaf, self.subject_hostname)
            subject = " ".join(filter(None, (self.subject_email, self.subject_hostname)))
            verification.certificate = {"issuer": self.anchors.name, "subject": subject}
            return [leaf.public_key()]

        return signers


TrustSource = KeySource | FulcioSource | PkiSource


def load_keys(materials: Sequence[Material], tools: TrustTools) -> list[PublicKey]:
    """All keys; one bad one refuses. Raises SignatureError (`keycfg`), MissingDependencyError."""
    return [load_public_key(each.load(tools.read_file), each.name) for each in materials]


def load_log_keys(materials: Sequence[Material], tools: TrustTools) -> list[PublicKey]:
    """Keys of logs. Raises as `load_keys`."""
    keys = load_keys(materials, tools)
    for material, key in zip(materials, keys, strict=True):
        if key.kind != "ecdsa":  # signatures.md 5.4
            raise SignatureError(f"{material.name}: expected an ECDSA key of a log", reason="keycfg")
    return keys


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

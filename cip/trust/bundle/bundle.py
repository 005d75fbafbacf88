# SPDX-License-Identifier: Apache-2.0
"""Reads a Sigstore bundle: JSON → values, as strict as the protobuf readers of the field (bundles.md 2).

Nothing is verified here; `verify` does that. Everything fails as SignatureError with reason `bundle`.
"""

from __future__ import annotations

from typing import NamedTuple

from ...errors import SignatureError, quote
from ...model.jsontree import JsonNode, parse_json
from ..signed.payload import malformed
from .protojson import elements, int64, message, octets, one_of, required, some_octets, some_text, text
from .statement import peeked_predicate

# inclusive (bundles.md 2.1); bytes unless another unit is given
BUNDLE_LIMIT = 4 * 1024 * 1024
ENTRY_LIMIT = 32  # log entries
TIMESTAMP_COUNT_LIMIT = 32
CHAIN_LIMIT = 10  # certificates
CERTIFICATE_LIMIT = 64 * 1024
TIMESTAMP_LIMIT = 64 * 1024
BODY_LIMIT = 128 * 1024
CHECKPOINT_LIMIT = 64 * 1024
PROOF_LIMIT = 64  # hashes
PAYLOAD_LIMIT = 1024 * 1024
SIGNATURE_LIMIT = 8 * 1024
HINT_LIMIT = 1024  # characters, also of other short texts
_VERSIONS = {
    "application/vnd.dev.sigstore.bundle+json;version=0.1": "0.1",
    "application/vnd.dev.sigstore.bundle+json;version=0.2": "0.2",
    "application/vnd.dev.sigstore.bundle+json;version=0.3": "0.3",
    "application/vnd.dev.sigstore.bundle.v0.3+json": "0.3",
}
_KEY_MATERIAL = ("publicKey", "certificate", "x509CertificateChain")
HASHES = {"SHA2_256": "sha256", "SHA2_384": "sha384", "SHA2_512": "sha512"}


class InclusionProof(NamedTuple):
    """That an entry is in a tree. `root_hash` is empty and `tree_size` zero where the bundle leaves them out."""

    log_index: int
    root_hash: bytes
    tree_size: int
    hashes: tuple[bytes, ...]
    checkpoint: str


class LogEntry(NamedTuple):
    """One entry of a transparency log; `promise` is its signed entry timestamp, empty when there is none."""

    log_index: int
    log_id: bytes
    kind: str
    version: str
    integrated_time: int
    promise: bytes
    proof: InclusionProof | None
    body: bytes


class Envelope(NamedTuple):
    """A DSSE envelope with its one signature."""

    payload: bytes
    payload_type: str
    signature: bytes


class MessageSignature(NamedTuple):
    """A signature over the bytes of a file; `hash_name` is empty without a digest, which is only a hint."""

    hash_name: str
    digest: bytes
    signature: bytes


class Bundle(NamedTuple):
    """What a bundle holds. `certificate` is the leaf in DER, None for a bundle signed by a bare key.

    `predicate` is what the statement inside calls itself, not believed: empty when it cannot be told.
    """

    version: str
    certificate: bytes | None
    chain: tuple[bytes, ...]
    entries: tuple[LogEntry, ...]
    timestamps: tuple[bytes, ...]
    content: Envelope | MessageSignature
    predicate: str


def parse_bundle(data: bytes, name: str) -> Bundle:
    """The bundle that `data` holds; `name` is for messages. Raises SignatureError (`bundle`)."""
    if len(data) > BUNDLE_LIMIT:
        raise SignatureError(f"{name}: larger than {BUNDLE_LIMIT} bytes", reason="bundle")
    root = parse_json(data, name, error=malformed("bundle"))
    message(root, "mediaType", "verificationMaterial", "messageSignature", "dsseEnvelope")
    media_type = text(root, "mediaType", HINT_LIMIT)
    if media_type not in _VERSIONS:
        root.fail(f"bundle version {quote(media_type)}, expected 0.1 to 0.3")
    version = _VERSIONS[media_type]
    material = required(root, "verificationMaterial")
    message(material, *_KEY_MATERIAL, "tlogEntries", "timestampVerificationData")
    certificate, chain, hint = _signer(material, version)
    entries = tuple(_entry(node, version) for node in elements(material, "tlogEntries", ENTRY_LIMIT))
    stamps = material.get("timestampVerificationData")
    kind, node = one_of(root, ("messageSignature", "dsseEnvelope"))
    content = _envelope(node, hint) if kind == "dsseEnvelope" else _message_signature(node)
    predicate = peeked_predicate(content.payload) if isinstance(content, Envelope) else ""
    return Bundle(version, certificate, chain, entries, _timestamps(stamps) if stamps else (), content, predicate)


def _signer(material: JsonNode, version: str) -> tuple[bytes | None, tuple[bytes, ...], str]:
    """Leaf, other certificates, and the key's hint: exactly one kind of key material."""
    kind, node = one_of(material, _KEY_MATERIAL)
    if kind == "publicKey":
        return None, (), text(message(node, "hint"), "hint", HINT_LIMIT)
    if kind == "certificate":
        return _certificate(node), (), ""
    if version == "0.3":
        node.fail("a certificate chain, which version 0.3 does not have")
    found = [_certificate(each) for each in elements(message(node, "certificates"), "certificates", CHAIN_LIMIT)]
    if not found:
        node.fail("expected certificates, found none")
    return found[0], tuple(found[1:]), ""


def _certificate(node: JsonNode) -> bytes:
    return some_octets(message(node, "rawBytes"), "rawBytes", CERTIFICATE_LIMIT)


def _timestamps(node: JsonNode) -> tuple[bytes, ...]:
    listed = elements(message(node, "rfc3161Timestamps"), "rfc3161Timestamps", TIMESTAMP_COUNT_LIMIT)
    return tuple(some_octets(message(each, "signedTimestamp"), "signedTimestamp", TIMESTAMP_LIMIT) for each in listed)


def _entry(node: JsonNode, version: str) -> LogEntry:
    proofs = ("inclusionPromise", "inclusionProof")
    message(node, "logIndex", "logId", "kindVersion", "integratedTime", *proofs, "canonicalizedBody")
    log_id = message(required(node, "logId"), "keyId")
    kind = message(required(node, "kindVersion"), "kind", "version")
    promised, proven = (node.get(name) for name in proofs)
    promise = b""
    if promised is not None:
        promise = some_octets(message(promised, "signedEntryTimestamp"), "signedEntryTimestamp", SIGNATURE_LIMIT)
    proof = None if proven is None else _proof(proven)
    if version == "0.1" and not promise:
        node.fail("no inclusion promise, which version 0.1 demands")
    if version != "0.1" and proof is None:
        node.fail(f"no inclusion proof, which version {version} demands")
    return LogEntry(
        log_index=int64(node, "logIndex"),
        log_id=some_octets(log_id, "keyId", HINT_LIMIT),
        kind=text(kind, "kind", HINT_LIMIT),
        version=text(kind, "version", HINT_LIMIT),
        integrated_time=int64(node, "integratedTime"),
        promise=promise,
        proof=proof,
        body=some_octets(node, "canonicalizedBody", BODY_LIMIT),
    )


def _proof(node: JsonNode) -> InclusionProof:
    message(node, "logIndex", "rootHash", "treeSize", "hashes", "checkpoint")
    root, checkpoint = node.get("rootHash"), message(required(node, "checkpoint"), "envelope")
    return InclusionProof(
        log_index=int64(node, "logIndex"),
        root_hash=b"" if root is None else octets(root, HINT_LIMIT),
        tree_size=int64(node, "treeSize"),
        hashes=tuple(octets(each, HINT_LIMIT) for each in elements(node, "hashes", PROOF_LIMIT)),
        checkpoint=some_text(checkpoint, "envelope", CHECKPOINT_LIMIT),
    )


def _envelope(node: JsonNode, hint: str) -> Envelope:
    message(node, "payload", "payloadType", "signatures")
    signatures = elements(node, "signatures", ENTRY_LIMIT)
    if len(signatures) != 1:
        node.fail(f"expected exactly one signature, found {len(signatures)}")
    signature = message(signatures[0], "sig", "keyid")
    key_id = text(signature, "keyid", HINT_LIMIT)
    if hint and key_id and hint != key_id:
        signature.fail("keyid and the hint of the public key differ")
    return Envelope(
        some_octets(node, "payload", PAYLOAD_LIMIT),
        some_text(node, "payloadType", HINT_LIMIT),
        some_octets(signature, "sig", SIGNATURE_LIMIT),
    )


def _message_signature(node: JsonNode) -> MessageSignature:
    digest = message(node, "messageDigest", "signature").get("messageDigest")
    signature = some_octets(node, "signature", SIGNATURE_LIMIT)
    if digest is None:
        return MessageSignature("", b"", signature)
    algorithm = required(message(digest, "algorithm", "digest"), "algorithm")
    name = algorithm.as_str()
    if name not in HASHES:
        algorithm.fail(f"expected one of {', '.join(HASHES)}, found {quote(name)}")
    return MessageSignature(HASHES[name], some_octets(digest, "digest", HINT_LIMIT), signature)

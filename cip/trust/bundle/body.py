# SPDX-License-Identifier: Apache-2.0
"""Bodies of log entries: that one is about this signature, its signer and what it is over (bundles.md 3.5, 3.6).

Every equality must hold; members that no rule names may be anything. Everything refuses with reason `rekor`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import NamedTuple, NoReturn

from ...errors import SignatureError, quote
from ...model.jsontree import JsonNode, parse_json
from ..signed.payload import malformed
from ..sigstore.keys import PublicKey
from ..sigstore.logs import decoded, member, only_pem_block, require_text
from .algorithms import key_details
from .bundle import HASHES, LogEntry

KIND_OF_VERSION_2 = ("hashedrekord", "0.0.2")


class Signed(NamedTuple):
    """One signature as a log must have seen it.

    `message` is what was signed (for an envelope its encoding), `payload` what the envelope holds, None for a file.
    `signer` is DER: the certificate if `certified`, else the SubjectPublicKeyInfo. `hash_name` is empty for Ed25519.
    """

    message: bytes
    payload: bytes | None
    signature: bytes
    signer: bytes
    certified: bool
    key: PublicKey
    hash_name: str


def require_body_about(entry: LogEntry, signed: Signed) -> None:
    """Return only if the body of `entry` says that it is about `signed`. Raises SignatureError (`rekor`)."""
    kind = (entry.kind, entry.version)
    if kind not in _READERS:
        expected = ", ".join(" ".join(each) for each in _READERS)
        _refuse(f"log entry of kind {quote(' '.join(kind))}, expected one of {expected}")
    root = parse_json(entry.body, "log entry body", error=malformed("rekor"))
    require_text(root, "kind", entry.kind)
    require_text(root, "apiVersion", entry.version)
    _READERS[kind](member(root, "spec"), signed)


def _hashedrekord(spec: JsonNode, signed: Signed) -> None:
    digest, signature = member(member(spec, "data"), "hash"), member(spec, "signature")
    algorithm = member(digest, "algorithm").as_str()
    if algorithm not in ("sha256", signed.hash_name or "sha256"):
        _refuse(f"the log entry is about a hash {quote(algorithm)}, expected sha256")
    _require_same(member(digest, "value").as_str(), hashlib.new(algorithm, signed.message).hexdigest(), "content")
    _require_same(decoded(member(signature, "content")), signed.signature, "signature")
    _require_signer(member(member(signature, "publicKey"), "content"), signed)


def _dsse(spec: JsonNode, signed: Signed) -> None:
    digest, signatures = member(spec, "payloadHash"), list(member(spec, "signatures").items())
    require_text(digest, "algorithm", "sha256")
    expected = None if signed.payload is None else hashlib.sha256(signed.payload).hexdigest()
    _require_same(member(digest, "value").as_str(), expected, "payload")
    if len(signatures) != 1:
        _refuse(f"a log entry about {len(signatures)} signatures, expected one")
    _require_same(decoded(member(signatures[0], "signature")), signed.signature, "signature")
    _require_signer(member(signatures[0], "verifier"), signed)


def _hashedrekord_of_version_2(spec: JsonNode, signed: Signed) -> None:
    spec = member(spec, "hashedRekordV002")
    data, signature = member(spec, "data"), member(spec, "signature")
    verifier = member(signature, "verifier")
    details = key_details(signed.key, signed.hash_name)
    if details is None:
        _refuse(f"logs of version 2 take no signature by a key of kind {signed.key.kind} {signed.key.parameter}")
    require_text(verifier, "keyDetails", details)
    require_text(data, "algorithm", {each: name for name, each in HASHES.items()}[signed.hash_name])
    _require_same(decoded(member(data, "digest")), hashlib.new(signed.hash_name, signed.message).digest(), "content")
    _require_same(decoded(member(signature, "content")), signed.signature, "signature")
    kinds = ("x509Certificate", "publicKey")
    found = [name for name in kinds if verifier.get(name) is not None]
    if found != [kinds[not signed.certified]]:
        _refuse("the log entry is about another kind of key")
    _require_same(decoded(member(member(verifier, found[0]), "rawBytes")), signed.signer, "key or certificate")


_READERS: Mapping[tuple[str, str], Callable[[JsonNode, Signed], None]] = {
    ("hashedrekord", "0.0.1"): _hashedrekord,
    ("dsse", "0.0.1"): _dsse,
    KIND_OF_VERSION_2: _hashedrekord_of_version_2,
}


def _require_signer(node: JsonNode, signed: Signed) -> None:
    _require_same(only_pem_block(decoded(node)), signed.signer, "key or certificate")


def _require_same(found: bytes | str, expected: bytes | str | None, what: str) -> None:
    if found != expected:
        _refuse(f"the log entry is about another {what}")


def _refuse(why: str) -> NoReturn:
    raise SignatureError(why, reason="rekor")

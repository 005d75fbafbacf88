# SPDX-License-Identifier: Apache-2.0
"""Signed entry timestamps: that a log saw this very signature, and when (signatures.md 5.4).

The annotation is signed over its canonical JSON. Numbers and strings are held to forms for which the canonical text is
what `json.dumps` writes (signatures.md D9). Everything refuses with class REKOR.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from ...errors import SignatureError
from ...model.jsontree import JsonNode, parse_json, parse_json_text
from ..signed.armor import decode_base64, pem_blocks
from ..signed.payload import malformed
from .keys import PublicKey

_TIME_LIMIT = 2**53  # numbers from here on are rounded by canonical JSON (RFC 8785)
_PAYLOAD = ("body", "integratedTime", "logIndex", "logID")


class LogEntry(NamedTuple):
    """At `time` (seconds since 1970) the log saw `signature` of `signer` (DER) over data of `data_hash`."""

    time: int
    data_hash: str
    signature: bytes
    signer: bytes


def read_log_entry(annotation: str, log_keys: Sequence[PublicKey]) -> LogEntry:
    """The entry of a bundle annotation that one of `log_keys` has signed (steps 1 to 4). Raises SignatureError."""
    root = parse_json_text(annotation, "log entry", error=malformed("rekor"))
    root.require_only(("SignedEntryTimestamp", "Payload"))
    timestamp = decoded(root["SignedEntryTimestamp"])
    payload = root["Payload"]
    payload.require_only(_PAYLOAD)
    time = payload["integratedTime"].as_int(minimum=1, maximum=_TIME_LIMIT - 1)
    payload["logIndex"].as_int(minimum=0, maximum=_TIME_LIMIT - 1)
    log_id = payload["logID"]
    if not (log_id.as_str().isascii() and log_id.as_str().isprintable()):
        log_id.fail("expected printable ASCII")
    body = decoded(payload["body"])
    require_promised(payload.value, timestamp, log_keys)
    return _read_body(body, time)


def require_entry_about(entry: LogEntry, payload: bytes, signature: bytes, signer: bytes) -> None:
    """Return only if `entry` is about this payload, this signature and this key or certificate (step 5)."""
    if entry.data_hash != hashlib.sha256(payload).hexdigest():
        _refuse("the log entry is about another payload")
    if entry.signature != signature:
        _refuse("the log entry is about another signature")
    if entry.signer != signer:
        _refuse("the log entry is about another key or certificate")


def only_pem_block(text: bytes) -> bytes:
    """The content of the one PEM block of `text`, with nothing behind its last line (step 5). Raises SignatureError."""
    block = next(pem_blocks(text), None)
    if block is None or block.content is None or block.end != len(text):
        _refuse("expected one PEM block with nothing behind it")
    return block.content


def require_promised(entry: Mapping[str, Any], promise: bytes, log_keys: Sequence[PublicKey]) -> None:
    """Return only if one of `log_keys` signed the canonical JSON of `entry`: ECDSA over SHA-256 (step 2)."""
    canonical = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    for key in log_keys:
        try:
            key.require_signed(promise, canonical)
        except SignatureError:
            continue
        return
    _refuse("the log entry is not signed by a known log")


def _read_body(body: bytes, time: int) -> LogEntry:
    """Step 4: a `hashedrekord` 0.0.1 over SHA-256; members that are not read may be anything."""
    root = parse_json(body, "log entry body", error=malformed("rekor"))
    require_text(root, "apiVersion", "0.0.1")
    require_text(root, "kind", "hashedrekord")
    spec = member(root, "spec")
    digest = member(member(spec, "data"), "hash")
    require_text(digest, "algorithm", "sha256")
    signature = member(spec, "signature")
    key, value = member(member(signature, "publicKey"), "content"), member(digest, "value").as_str().lower()
    return LogEntry(time, value, decoded(member(signature, "content")), only_pem_block(decoded(key)))


def member(node: JsonNode, name: str) -> JsonNode:
    """The member, which no other spelling may shadow: the log's own reader ignores case."""
    node.require_exact_case((name,))
    return node[name]


def require_text(node: JsonNode, name: str, expected: str) -> None:
    """Return only if the member is exactly `expected`."""
    found = member(node, name)
    if found.as_str() != expected:
        found.fail(f"expected {expected!r}, found another")


def decoded(node: JsonNode) -> bytes:
    """The bytes that a text holds in base64."""
    try:
        return decode_base64(node.as_str())
    except ValueError as error:
        node.fail(f"expected base64: {error}")


def _refuse(why: str) -> NoReturn:
    raise SignatureError(why, reason="rekor")

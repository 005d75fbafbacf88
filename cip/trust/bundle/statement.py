# SPDX-License-Identifier: Apache-2.0
"""What a DSSE envelope signs, and cosign's statement inside it (bundles.md 3.3, 3.4).

The statement is believed only after its signature was verified; `peeked_predicate` looks before and is never believed.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple, NoReturn

from ...errors import SignatureError, quote
from ...model.jsontree import JsonNode, parse_json, refuse_surrogates
from ...model.referrers import SIGNING_PREDICATE
from ..signed.payload import malformed

SUBJECT_LIMIT = 1024
DIGEST_LIMIT = 32  # digests of one subject
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_SUBJECT_MEMBERS = ("name", "uri", "digest", "mediaType", "downloadLocation", "content", "annotations")


class Statement(NamedTuple):
    """A signing statement: the sha256 texts of its subjects, empty for a subject that has none."""

    sha256: tuple[str, ...]

    @property
    def digest(self) -> str:
        """The first digest, for records."""
        return next((f"sha256:{text}" for text in self.sha256 if text), "")


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """The bytes that a DSSE signature is over; lengths are in bytes, in decimal."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def peeked_predicate(payload: bytes) -> str:
    """What an unverified payload calls its predicate; empty when it cannot be told."""
    try:
        return parse_json(payload, "statement", error=malformed("payload"))["predicateType"].as_str()
    except SignatureError:
        return ""


def parse_statement(payload_type: str, payload: bytes) -> Statement:
    """The statement in a verified envelope. Raises SignatureError (`payload`)."""
    if payload_type != _PAYLOAD_TYPE:
        _refuse(f"payload of type {quote(payload_type)}, expected {_PAYLOAD_TYPE}")
    root = parse_json(payload, "statement", error=malformed("payload"))
    refuse_surrogates(root)
    root.require_only(("_type", "subject", "predicateType", "predicate"))
    _require_text(root["_type"], _STATEMENT_TYPE)
    _require_text(root["predicateType"], SIGNING_PREDICATE)
    if root.has("predicate"):
        root["predicate"].keys()  # an object
    subjects = list(root["subject"].items())
    if not 1 <= len(subjects) <= SUBJECT_LIMIT:
        root["subject"].fail(f"expected 1 to {SUBJECT_LIMIT} subjects, found {len(subjects)}")
    return Statement(tuple(_sha256(each) for each in subjects))


def require_subject(statement: Statement, content: bytes) -> None:
    """Return only if the lower-case SHA-256 of `content` is a subject. Raises SignatureError (`digest`)."""
    expected = hashlib.sha256(content).hexdigest()
    if expected not in statement.sha256:
        raise SignatureError(f"signed for {quote(statement.digest)}, expected sha256:{expected}", reason="digest")


def _sha256(subject: JsonNode) -> str:
    subject.require_only(_SUBJECT_MEMBERS)
    digests = dict(subject["digest"].members())
    if not 1 <= len(digests) <= DIGEST_LIMIT:
        subject["digest"].fail(f"expected 1 to {DIGEST_LIMIT} digests, found {len(digests)}")
    return {name: value.as_str() for name, value in digests.items()}.get("sha256", "")


def _require_text(node: JsonNode, expected: str) -> None:
    if node.as_str() != expected:
        node.fail(f"expected {expected!r}, found {quote(node.value)}")


def _refuse(why: str) -> NoReturn:
    raise SignatureError(why, reason="payload")

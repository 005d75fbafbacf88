# SPDX-License-Identifier: Apache-2.0
"""Decisions of the policy as audit lines (decisions.md section 6)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import CipError, ErrorCode
from ..model.descriptor import Digest
from ..trust.evaluation import Audit, Decision
from .lines import VERSION, LineWriter

if TYPE_CHECKING:
    from ..model.signature import SignatureResult

LINE_LIMIT = 64 * 1024  # bytes
SIGNATURES = 32  # of one decision
SIGNATURES_SIZE = 56 * 1024  # bytes of them all, so that the line stays below LINE_LIMIT
PROOFS = 4  # log entries, and times, of one signature
REQUIRED_SECONDS = 10.0  # that an accepted image waits for its line under --require-audit
_TEXT = 240  # characters of one outside or composed text


def write_audit(lines: LineWriter, *, required: bool) -> Audit:
    """Decisions that become lines; one of LINE_LIMIT bytes or more loses its signatures and says so.

    With `required` an image that was accepted waits until its line is written, at most REQUIRED_SECONDS: what it
    returns raises CipError (`audit-unavailable`) then.
    """

    def record(decision: Decision, *, reference: str, digest: Digest, index_digest: Digest | None, time: float) -> None:
        members = audit_record(decision, reference=reference, digest=digest, index_digest=index_digest, time=time)
        line = {"v": VERSION, **members}
        if len(json.dumps(line, default=str)) >= LINE_LIMIT:
            line |= {"signatures": [], "truncated": True}
        if not (required and decision.accepted):
            lines.put(line)
        elif not lines.write(line, REQUIRED_SECONDS):
            why = f"--require-audit: the decision was not written to --audit-fd within {REQUIRED_SECONDS:g} s"
            raise CipError(f"{reference}: {why}", code=ErrorCode.AUDIT_UNAVAILABLE)

    return record


def audit_record(
    decision: Decision, *, reference: str, digest: Digest, index_digest: Digest | None, time: float
) -> dict[str, object]:
    """What decided about the image `reference`, ready for JSON; `time` is in seconds since 1970.

    `digest` is that of the manifest to be served, `index_digest` that of the index it was chosen from; both are the
    index's when no manifest of it was looked at.
    """
    signatures, transport = _signatures(decision.signatures), str(decision.identity.transport)
    record: dict[str, object] = {
        "time": time,
        "reference": reference,
        "digest": str(digest),
        "index_digest": str(index_digest) if index_digest else None,
        "accepted": decision.accepted,
        "policy": {"path": decision.where, "sha256": decision.sha256, "scope": decision.scope, "transport": transport},
        "requirements": [
            {"of": str(each.subject), "type": each.kind, **_outcome(each.accepted, each.reason, each.detail)}
            for each in decision.requirements
        ],
        "signatures": signatures,
        "looked_for": None if decision.looked_for is None else [each[:_TEXT] for each in decision.looked_for],
    }
    if len(decision.signatures) > len(signatures):
        record["signatures_omitted"] = len(decision.signatures) - len(signatures)
    return record


def _signatures(results: Sequence[SignatureResult]) -> list[dict[str, object]]:
    """As many as there is room for, in their order; those that decided come first into it."""
    chosen: dict[int, dict[str, object]] = {}
    left = SIGNATURES_SIZE
    for number in sorted(range(len(results)), key=lambda number: not results[number].accepted)[:SIGNATURES]:
        record = _signature(results[number])
        left -= len(json.dumps(record))
        if left >= 0:
            chosen[number] = record
    return [chosen[number] for number in sorted(chosen)]


def _outcome(accepted: bool, reason: str, detail: str) -> dict[str, object]:
    return {"result": "accepted" if accepted else "refused", "reason": reason, "detail": detail[:_TEXT]}


def _signature(result: SignatureResult) -> dict[str, object]:
    record: dict[str, object] = {"source": result.source[:_TEXT], "kind": result.kind}
    if result.certificate is not None:
        record["certificate"] = {name: text[:_TEXT] for name, text in result.certificate.items()}
    elif result.key:
        record["key"] = result.key
    if result.claims is not None:
        record["claims"] = {name: text[:_TEXT] for name, text in result.claims.items()}
    if result.bundle is not None:
        record["bundle"] = result.bundle.digest
        for name, proofs in (("log", result.bundle.log), ("times", result.bundle.times)):
            record[name] = [
                {key: value[:_TEXT] if isinstance(value, str) else value for key, value in each.items()}
                for each in proofs[:PROOFS]
            ]
        if result.bundle.identity:
            record["identity"] = result.bundle.identity
        if result.bundle.identity_file:
            record["identity_file"] = result.bundle.identity_file[:_TEXT]
    return {**record, **_outcome(result.accepted, result.reason, result.detail)}

# SPDX-License-Identifier: Apache-2.0
"""A decision of the policy as the members of an audit record (decisions.md section 6)."""

from __future__ import annotations

from .model.digest import Digest
from .trust.evaluation import Decision
from .trust.requirements import SignatureResult

SIGNATURES = 32  # of one decision, so that its record stays below 64 KiB
_TEXT = 240  # characters of one outside or composed text


def audit_record(
    decision: Decision, *, reference: str, digest: Digest, index_digest: Digest | None, time: float
) -> dict[str, object]:
    """What decided about the image `reference`, ready for JSON; `time` is in seconds since 1970.

    `digest` is that of the manifest at the top, `index_digest` the same when it is an index.
    """
    record: dict[str, object] = {
        "time": time,
        "reference": reference,
        "digest": str(digest),
        "index_digest": str(index_digest) if index_digest else None,
        "accepted": decision.accepted,
        "policy": {
            "path": decision.where,
            "sha256": decision.sha256,
            "scope": decision.scope,
            "transport": str(decision.identity.transport),
        },
        "requirements": [
            {"of": str(each.subject), "type": each.kind, **_outcome(each.accepted, each.reason, each.detail)}
            for each in decision.requirements
        ],
        "signatures": [_signature(each) for each in decision.signatures[:SIGNATURES]],
        "looked_for": None if decision.looked_for is None else [each[:_TEXT] for each in decision.looked_for],
    }
    if len(decision.signatures) > SIGNATURES:
        record["signatures_omitted"] = len(decision.signatures) - SIGNATURES
    return record


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
    return {**record, **_outcome(result.accepted, result.reason, result.detail)}

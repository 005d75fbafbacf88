# SPDX-License-Identifier: Apache-2.0
"""Errors as both wire protocols tell them: one table from code to HTTP status."""

import errno
import json
import os
from collections.abc import Mapping

from .. import log
from ..errors import ATTEMPTS_TOLD, Attempt, CipError, ErrorCode
from .target import RequestFault

PROBLEM_LIMIT = 8192  # bytes of a problem document as JSON (decisions.md section 4)
RETRY_AFTER_LIMIT = 86400.0  # seconds
_PLACE_LIMIT = 200  # characters of a host or place name
_DETAIL_COMFORT = 400  # characters of the sentence that older attempts make room for
_DETAIL_MINIMUM = 120  # characters of the sentence that survive whatever else has to go

_ELSE = 502  # what was fetched, or who was asked for it
_HTTP_STATUS: Mapping[ErrorCode, int] = {
    ErrorCode.REFERENCE_INVALID: 400,
    ErrorCode.DIGEST_INVALID: 400,
    ErrorCode.DIGEST_UNSUPPORTED: 400,
    ErrorCode.REQUEST_INVALID: 400,
    ErrorCode.PATH_UNKNOWN: 404,
    ErrorCode.IMAGE_NOT_FOUND: 404,
    ErrorCode.BLOB_NOT_IN_IMAGE: 404,
    ErrorCode.BLOB_NOT_FOUND: 404,
    ErrorCode.PLATFORM_NOT_FOUND: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.POLICY_REJECTED: 403,
    ErrorCode.REGISTRY_BLOCKED: 403,
    ErrorCode.TRANSPORT_UNSUPPORTED: 501,
    ErrorCode.MEDIA_TYPE_UNSUPPORTED: 501,
    ErrorCode.DEPENDENCY_MISSING: 501,
    ErrorCode.CONFIG_INVALID: 500,
    ErrorCode.POLICY_MISSING: 500,
    ErrorCode.POLICY_INVALID: 500,
    ErrorCode.INTERNAL: 500,
    ErrorCode.SOURCE_UNAVAILABLE: 500,
    ErrorCode.AUDIT_UNAVAILABLE: 500,
    ErrorCode.RATE_LIMITED: 503,
    ErrorCode.BUDGET_EXHAUSTED: 503,
    ErrorCode.OFFLINE: 503,
    ErrorCode.TIMEOUT: 504,
    ErrorCode.STORAGE_FULL: 507,
    ErrorCode.CLIENT_GONE: 400,  # never sent: nobody is there to read it
}


def http_status(error: CipError) -> int:
    """The HTTP status of the answer that tells `error` (decisions.md section 4)."""
    return error.answer if isinstance(error, RequestFault) else _HTTP_STATUS.get(error.code, _ELSE)


def problem(error: CipError, *, limit: int = PROBLEM_LIMIT) -> dict[str, object]:
    """The problem document of `error` (RFC 9457, decisions.md section 4), at most `limit` bytes as `encode` writes it.

    Members that are unknown are left out. What has to go for the limit: the end of a very long sentence, then the
    older attempts. What others said has lost its secrets and queries where it was quoted (`errors.quote`).
    """
    members: dict[str, object] = {
        "type": str(error.code),
        "title": error.code.replace("-", " "),
        "status": http_status(error),
        "detail": public_text(str(error)),
        "retryable": error.retryable,
    }
    for name, value in (
        ("host", public_text(error.host)[:_PLACE_LIMIT] if error.host else None),
        ("phase", str(error.phase) if error.phase else None),
        ("digest", error.digest[:_PLACE_LIMIT] if error.digest else None),
        ("offset", error.offset),
        ("attempts", [_told(attempt) for attempt in error.attempts[-ATTEMPTS_TOLD:]] or None),
        ("retry_after", seconds_to_wait(error)),
        ("reason", error.reason[:_PLACE_LIMIT] if error.reason else None),
    ):
        if value is not None:
            members[name] = value
    _fit(members, limit)
    return members


def seconds_to_wait(error: CipError) -> float | None:
    """The `retry_after` of `error`, at most `RETRY_AFTER_LIMIT`: a registry chose it, and JSON knows no infinity."""
    stated = error.retry_after
    return stated if stated is None or 0 <= stated <= RETRY_AFTER_LIMIT else RETRY_AFTER_LIMIT


def encode(value: object) -> bytes:
    """`value` as compact JSON; pure ASCII, so a cut or a stray byte cannot make it something else."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def public_text(text: str) -> str:
    """`text` on one line of valid Unicode."""
    return text.replace("\r", "\\r").replace("\n", "\\n").encode("utf-8", "backslashreplace").decode("utf-8")


def one_line(error: CipError) -> str:
    """What the log says of `error`: its sentence, and how often and how long was tried where that was not once."""
    text, tries = public_text(str(error)), error.attempts
    least = "at least " if len(tries) == ATTEMPTS_TOLD else ""
    return text if len(tries) < 2 else f"{text} (tried {least}{len(tries)} times in {tries[-1].at:.1f} s)"


def unforeseen(error: Exception) -> CipError:
    """What a parent is told of an exception that is no CipError; a mistake of ours is logged."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        why = "this process has all the memory or all the open files that it may have: raise its limits"
        return CipError(why, code=ErrorCode.LIMIT_EXCEEDED)
    log.error("internal error: %s", _frames_of(error))
    return CipError("internal error")


def _frames_of(error: Exception) -> str:
    """Where it was raised, without its message, which may hold what must not be shown.

    Nothing is imported for it: that would fail where descriptors or memory are gone.
    """
    frames, at = [], error.__traceback__
    while at is not None:
        frames.append(f"{os.path.basename(at.tb_frame.f_code.co_filename)}:{at.tb_lineno} {at.tb_frame.f_code.co_name}")
        at = at.tb_next
    return f"{type(error).__name__} at {', called from '.join(reversed(frames))}"


def _told(attempt: Attempt) -> dict[str, object]:
    return {
        "place": public_text(attempt.place)[:_PLACE_LIMIT],
        "at": round(attempt.at, 3),
        "phase": str(attempt.phase) if attempt.phase else None,
        "code": str(attempt.code),
    }


def _fit(members: dict[str, object], limit: int) -> None:
    """Make `members` fit `limit` bytes."""
    while len(encode(members)) > limit:
        detail, attempts = members["detail"], members.get("attempts")
        assert isinstance(detail, str)
        if isinstance(attempts, list) and attempts and len(detail) <= _DETAIL_COMFORT:
            del attempts[0]
        elif len(detail) > _DETAIL_MINIMUM:
            members["detail"] = detail[: max(_DETAIL_MINIMUM, len(detail) * 3 // 4) - 1].removesuffix("…") + "…"
        else:
            return  # five fixed members and some names: a limit that these do not fit is a mistake of the caller

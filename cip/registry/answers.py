# SPDX-License-Identifier: Apache-2.0
"""What a registry's answer means when it is not the wanted one (registry.md 6.8)."""

from contextlib import suppress
from typing import NamedTuple

from ..errors import (
    AuthenticationError,
    CipError,
    ErrorCode,
    ImageAbsentError,
    NotFoundError,
    RegistryError,
    quote,
    redacted,
)
from ..model.jsontree import parse_json
from ..net.limits import Clock
from ..net.response import Response
from .retry import parse_retry_after

ERROR_BODY_LIMIT = 64 * 1024  # bytes of an error's body that are read
SHOWN = 50  # characters of a body that is no registry error
_CODE_OF_STATUS = {401: "UNAUTHORIZED", 429: "TOOMANYREQUESTS"}
_RETRYABLE = frozenset({408, 425, 429})
# What can be missing, and the code by which a registry says so, whichever status of the client it comes with.
_UNKNOWN = {ErrorCode.IMAGE_NOT_FOUND: "MANIFEST_UNKNOWN", ErrorCode.BLOB_NOT_FOUND: "BLOB_UNKNOWN"}


class Complaint(NamedTuple):
    """A registry's own error: code (empty where the body has none) and message; as text it follows a status."""

    code: str
    message: str

    def __str__(self) -> str:
        return "".join(f": {quote(part)}" for part in self if part)


def read_complaint(response: Response) -> Complaint:
    """The complaint in the body of a 4xx answer; closes the answer. A body that cannot be read complains of nothing."""
    if 400 <= response.status < 500:
        with suppress(CipError):
            return parse_complaint(response.read_all(ERROR_BODY_LIMIT, "error body"), response.status)
    response.close()
    return Complaint("", "")


def parse_complaint(body: bytes, status: int) -> Complaint:
    """The first element of `errors`, or `details`; keys in any case, for registries differ."""
    try:
        members = parse_json(body, "error").folded(("details", "errors"))
        details = members.get("details")
        if details is not None and isinstance(details.value, str) and details.value:
            return Complaint(_CODE_OF_STATUS.get(status, "UNKNOWN"), details.value)
        errors = members.get("errors")
        first = next(iter(errors.items()), None) if errors is not None else None
        if first is None:
            return Complaint("", "")
        members = first.folded(("code", "message"))
        texts = {name: node.value for name, node in members.members() if isinstance(node.value, str)}
        return Complaint(texts.get("code", "UNKNOWN"), texts.get("message", ""))
    except CipError:
        text = redacted(body.decode("utf-8", "replace")).strip()  # whole, before it is cut
        return Complaint("", text[:SHOWN])


def refusal(
    response: Response,
    what: str,
    missing: ErrorCode,
    clock: Clock,
    *,
    access: str | None = None,
    complaint: Complaint | None = None,
) -> CipError:
    """The error for an answer that is not a success, and whose `complaint` may have been read; closes the answer.

    `what` names the wanted thing, `missing` is the code for "there is none", `access` tells how we tried to get in,
    None where we did not try, as at an endpoint that the registry redirected to.
    """
    complaint = complaint or read_complaint(response)
    status = response.status
    host = response.origin.address
    said = f"{complaint}{response.note}"
    if 400 <= status < 500:
        unknown = complaint.code == _UNKNOWN.get(missing)
        if unknown or (status == 404 and missing in _UNKNOWN):
            # a registry that hides what we may not see says the same: how we asked is a part of the answer
            is_image = missing is ErrorCode.IMAGE_NOT_FOUND
            kind = ImageAbsentError if unknown and is_image else NotFoundError
            next_step = f"; check the name and the tag; {access}" if access and is_image else ""
            why = f"{what}: not found, status {status}{said}{next_step}"
            return kind.at(host, why, code=missing, http_status=status)
        if status in (401, 403) and access is not None:
            why = f"{what}: access refused with status {status}{said}; {access}"
            return AuthenticationError.at(host, why, http_status=status)
    code = ErrorCode.RATE_LIMITED if status == 429 else ErrorCode.REGISTRY_ERROR
    why = f"{what}: expected status 200, found {status}{said} ({response.via})"
    error = RegistryError.at(host, why, code=code, http_status=status)
    if status in _RETRYABLE or status >= 500:
        error.retry_after = parse_retry_after(response.headers.get("retry-after", ""), clock.time())
    return error

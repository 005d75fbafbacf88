# SPDX-License-Identifier: Apache-2.0
"""The texts of the JSON protocol: requests, replies, and the object in an error pipe (wire.md sections 2, 3, 5.2)."""

from __future__ import annotations

from ...errors import CipError, ErrorCode, InvalidInputError, quote
from ...model.descriptor import Digest, parse_digest
from ...model.jsontree import JsonNode, kind_of, parse_json_text
from ..problem import encode, problem

PACKET_LIMIT = 32768  # bytes, each way
INTEGER_LIMIT = 2**53 - 1
ERROR_OBJECT_LIMIT = 4096  # bytes: the least that a pipe takes without a reader
# Bytes of the details as JSON. Their sentence is there twice, so twice the limit bounds the whole.
_REPLY_DETAILS_LIMIT = 4096
_OBJECT_DETAILS_LIMIT = 1900


def parse_request(data: bytes | bytearray | memoryview) -> tuple[str, tuple[JsonNode, ...]]:
    """The method, empty when none is named, and the arguments of one packet. Raises InvalidInputError.

    Bytes that are not UTF-8 become U+FFFD, other members are ignored.
    """
    root = parse_json_text(str(data, "utf-8", "replace"), "request", error=_bad_request)
    members = root.folded(("method", "args"), or_null=True)
    return members["method"].as_replaced_str() if members.has("method") else "", members.array("args")


def read_text(node: JsonNode) -> str:
    """A string argument. Raises InvalidInputError."""
    return node.as_replaced_str()


def read_digest(node: JsonNode) -> Digest:
    """A digest argument. Raises InvalidInputError, InvalidDigestError."""
    return parse_digest(node.as_replaced_str())


def read_number(node: JsonNode) -> int:
    """An integer from 0 to INTEGER_LIMIT, also when it is spelled `1e0`. Raises InvalidInputError."""
    value = node.value
    if type(value) is not int and type(value) is not float:
        node.fail(f"expected a number, found {kind_of(value)}")
    if value < 0 or value > INTEGER_LIMIT or value != int(value):
        node.fail(f"expected an integer from 0 to {INTEGER_LIMIT}, found {quote(value)}")
    return int(value)


def encode_success(value: object, pipe_id: int) -> bytes:
    """The reply that says `value`, any JSON value. Raises CipError (limit-exceeded) when it does not fit a packet."""
    data = encode({"success": True, "value": value, "pipeid": pipe_id, "error_code": "", "error": ""})
    if len(data) > PACKET_LIMIT:
        why = f"the reply takes {len(data)} bytes, expected at most {PACKET_LIMIT}: ask GetLayerInfoPiped"
        raise CipError(why, code=ErrorCode.LIMIT_EXCEEDED)
    return data


def json_class(error: CipError) -> str:
    """The `error_code` of a JSON reply, the `code` of an error pipe; retryable exactly when the error says so."""
    return "EPIPE" if error.code is ErrorCode.CLIENT_GONE else "retryable" if error.retryable else "other"


def encode_failure(error: CipError) -> bytes:
    """The reply that tells `error`, at most 9 KiB."""
    details = problem(error, limit=_REPLY_DETAILS_LIMIT)
    members = {"success": False, "value": None, "pipeid": 0, "error_code": json_class(error)}
    return encode({**members, "error": _sentence(error, details), "details": details})


def encode_error_object(error: CipError) -> bytes:
    """What an error pipe says, at most ERROR_OBJECT_LIMIT bytes."""
    details = problem(error, limit=_OBJECT_DETAILS_LIMIT)
    members: dict[str, object] = {"code": json_class(error), "message": _sentence(error, details)}
    data = encode({**members, "details": details})
    return data if len(data) <= ERROR_OBJECT_LIMIT else encode(members)


def _sentence(error: CipError, details: dict[str, object]) -> str:
    """The text of `error`, never empty: an empty one would be success."""
    return str(details["detail"] or details["title"])


def _bad_request(where: str, why: str) -> InvalidInputError:
    return InvalidInputError(f"{where}: {why}")

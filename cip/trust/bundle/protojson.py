# SPDX-License-Identifier: Apache-2.0
"""Members of protobuf messages in JSON, read strictly (bundles.md 2.1).

`null` is the same as absent. Names are lowerCamelCase, unknown ones are refused, enumerations are names. Complaints are
those of the node's document.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...model.jsontree import JsonNode
from ..signed.armor import decode_base64

_INT64 = re.compile("0|[1-9][0-9]{0,18}")
_INT64_LIMIT = 2**63 - 1


def required(node: JsonNode, name: str) -> JsonNode:
    """The member `name`, neither absent nor `null`."""
    found = node.get(name)
    if found is None:
        node.fail(f"expected a member {name!r}, found none")
    return found


def message(node: JsonNode, *names: str) -> JsonNode:
    """`node`, an object with no other members than `names`."""
    node.require_only(names)
    return node


def one_of(node: JsonNode, names: Sequence[str]) -> tuple[str, JsonNode]:
    """The one member of a oneof that is there, and its name."""
    found = [(name, each) for name in names if (each := node.get(name)) is not None]
    if len(found) != 1:
        node.fail(f"expected one of {', '.join(names)}, found {' and '.join(name for name, _ in found) or 'none'}")
    return found[0]


def elements(node: JsonNode, name: str, limit: int) -> list[JsonNode]:
    """The elements of a list, which may be absent; `limit` is inclusive."""
    found = node.get(name)
    if found is None:
        return []
    listed = list(found.items())
    if len(listed) > limit:
        found.fail(f"expected at most {limit} elements, found {len(listed)}")
    return listed


def text(node: JsonNode, name: str, limit: int) -> str:
    """A text of at most `limit` characters; absent is empty."""
    found = node.get(name)
    value = "" if found is None else found.as_str()
    if found is not None and len(value) > limit:
        found.fail(f"expected at most {limit} characters, found {len(value)}")
    return value


def some_text(node: JsonNode, name: str, limit: int) -> str:
    """A text that must be there and not be empty."""
    found = text(node, name, limit)
    if not found:
        node.fail(f"expected a text {name!r}, found none")
    return found


def octets(node: JsonNode, limit: int) -> bytes:
    """The bytes that `node` holds in base64, at most `limit`."""
    encoded = node.as_str()
    if len(encoded) > 2 * limit + 4:  # line ends may stand inside
        node.fail(f"expected at most {limit} bytes, found more")
    try:
        found = decode_base64(encoded)
    except ValueError as error:
        node.fail(f"expected base64: {error}")
    if len(found) > limit:
        node.fail(f"expected at most {limit} bytes, found {len(found)}")
    return found


def some_octets(node: JsonNode, name: str, limit: int) -> bytes:
    """The bytes of a member that must be there and hold some."""
    member = required(node, name)
    found = octets(member, limit)
    if not found:
        member.fail("expected bytes, found none")
    return found


def int64(node: JsonNode, name: str) -> int:
    """A number from 0 to 2^63-1, as text or as a number; absent is 0."""
    found = node.get(name)
    if found is None:
        return 0
    if not isinstance(found.value, str):
        return found.as_int(minimum=0, maximum=_INT64_LIMIT)
    if not _INT64.fullmatch(found.value) or int(found.value) > _INT64_LIMIT:
        found.fail(f"expected a number from 0 to {_INT64_LIMIT} in decimal")
    return int(found.value)

# SPDX-License-Identifier: Apache-2.0
"""Key material that a policy names: parsed with the policy, read when a signature has to be checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...errors import CipError, SignatureError, quote
from ...model.jsontree import JsonNode
from .armor import decode_base64


class Material(NamedTuple):
    """A key or certificate file, or its content inside the policy. `name` tells people which."""

    name: str
    path: str = ""
    content: bytes = b""

    def load(self, read_file: Callable[[str], bytes]) -> bytes:
        """Its bytes. Raises SignatureError (`keycfg`) naming the file."""
        if not self.path:
            return self.content
        try:
            return read_file(self.path)
        except CipError as error:
            raise SignatureError(f"{self.name}: {error}", reason="keycfg") from error


def parse_materials(
    node: JsonNode, names: Sequence[str], *, empty_allowed: bool = False
) -> tuple[Material, ...] | None:
    """The material under the one of `names` that is a key of `node`; None when there is none of them.

    A key counts as present whatever its value, so that an empty or `null` one cannot silently drop a requirement
    (signatures.md 2.2, D3). `empty_allowed` lets empty lists and contents pass, to fail when they are needed.
    Raises what `node` raises.
    """
    present = [name for name in names if node.has(name)]
    if not present:
        return None
    if len(present) > 1:
        node.fail(f"expected one of {', '.join(names)}, found {' and '.join(present)}")
    value = node[present[0]]
    items = list(value.items()) if present[0].endswith("s") else [value]
    if not items and not empty_allowed:
        value.fail("expected at least one entry, found none")
    read = _parse_path if "Path" in present[0] else _parse_content
    return tuple(read(item, empty_allowed) for item in items)


def _parse_path(node: JsonNode, empty_allowed: bool) -> Material:
    path = node.as_str()
    if not path or "\0" in path:
        node.fail(f"expected a file name, found {quote(path)}")
    return Material(f"{node.path.rpartition('.')[2]} {quote(path)}", path=path)


def _parse_content(node: JsonNode, empty_allowed: bool) -> Material:
    try:
        content = decode_base64(node.as_str())
    except ValueError as error:
        node.fail(f"expected base64: {error}")
    if not content and not empty_allowed:
        node.fail("expected base64 of a key, found nothing")
    return Material(f"{node.path.rpartition('.')[2]} of the policy", content=content)

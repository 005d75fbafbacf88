# SPDX-License-Identifier: Apache-2.0
"""Typed reading of untrusted JSON; every complaint names the document and the path.

`Any` enters here at `json.loads` and ends here. Texts are strict UTF-8 without a byte order mark; duplicate
keys, NaN, infinities, trailing text and deep nesting are refused (decisions.md section 1, signatures.md 1.2).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TypeVar

from ..errors import CipError, InvalidDocumentError, quote

DEPTH_LIMIT = 128  # nested arrays and objects
T = TypeVar("T")
DocumentError = Callable[[str, str], CipError]  # (where, why) -> the error to raise

_KIND = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "an integer", float: "a number"}
# Go's JSON decoder folds these two letters to ASCII; a key that another reader takes for a known one is an attack.
_FOLDS = str.maketrans({"\u017f": "s", "\u212a": "k"})


class _Duplicate(str):
    """Stands in for the value of a key that occurred twice; carries the key."""


def fold_key(key: str) -> str:
    """`key` as a case-insensitive reader sees it (images.md 5.3)."""
    return key.translate(_FOLDS).lower()


class JsonNode:
    """One value inside a JSON document. `path` is empty for the document itself, else like `layers[2].size`."""

    __slots__ = ("_error", "document", "path", "value")

    def __init__(self, document: str, path: str, value: Any, error: DocumentError) -> None:
        self.document = document
        self.path = path
        self.value = value
        self._error = error

    def fail(self, why: str) -> NoReturn:
        """Raise the document's error at this spot."""
        raise self._error(f"{self.document}: {self.path}" if self.path else self.document, why)

    def _child(self, step: str, value: Any) -> JsonNode:
        path = f"{self.path}.{step}" if self.path and not step.startswith("[") else self.path + step
        return JsonNode(self.document, path, value, self._error)

    def _expect(self, kind: type, article: str) -> None:
        if type(self.value) is not kind:
            self.fail(f"expected {article}, found {kind_of(self.value)}")

    def is_null(self) -> bool:
        """Whether the value is `null`."""
        return self.value is None

    def as_str(self) -> str:
        """The string, or the document's error."""
        self._expect(str, "a string")
        text: str = self.value
        return text

    def as_bool(self) -> bool:
        """The boolean, or the document's error."""
        self._expect(bool, "a boolean")
        return self.value is True

    def as_int(self, *, minimum: int | None = None, maximum: int | None = None) -> int:
        """The integer within the bounds; `true`, `1.0` and `"1"` are not integers."""
        self._expect(int, "an integer")
        number: int = self.value
        if minimum is not None and number < minimum:
            self.fail(f"expected at least {minimum}, found {quote(number)}")
        if maximum is not None and number > maximum:
            self.fail(f"expected at most {maximum}, found {quote(number)}")
        return number

    def items(self) -> Iterator[JsonNode]:
        """The elements of an array, in order."""
        self._expect(list, "an array")
        return (self._child(f"[{index}]", value) for index, value in enumerate(self.value))

    def members(self) -> Iterator[tuple[str, JsonNode]]:
        """Keys and values of an object, in order."""
        self._expect(dict, "an object")
        return ((key, self._child(_step(key), value)) for key, value in self.value.items())

    def keys(self) -> tuple[str, ...]:
        """The keys of an object, in order."""
        self._expect(dict, "an object")
        return tuple(self.value)

    def __getitem__(self, key: str) -> JsonNode:
        """The member `key` of an object, which must be there; it may be `null`."""
        self._expect(dict, "an object")
        if key not in self.value:
            self.fail(f"expected a member {key!r}, found none")
        return self._child(_step(key), self.value[key])

    def get(self, key: str) -> JsonNode | None:
        """The member `key` of an object, or None when it is absent or `null`."""
        self._expect(dict, "an object")
        value = self.value.get(key)
        return None if value is None else self._child(_step(key), value)

    def folded(self) -> dict[str, JsonNode]:
        """The members of an object by folded key, last one first to be forgotten, as Go's decoder reads them."""
        return {fold_key(key): node for key, node in self.members()}

    def require_only(self, allowed: Iterable[str]) -> None:
        """Refuse any key that is not one of `allowed`, spelled exactly."""
        known = tuple(allowed)
        for key in self.keys():
            if key not in known:
                self.fail(f"unknown member {quote(key)}, expected one of {', '.join(known)}")

    def require_exact_case(self, known: Iterable[str]) -> None:
        """Refuse a key that only a case-insensitive reader would take for one of `known`."""
        exact = {fold_key(key): key for key in known}
        for key in self.keys():
            wanted = exact.get(fold_key(key))
            if wanted is not None and key != wanted:
                self.fail(f"ambiguous member {quote(key)}, expected it to be spelled {wanted!r}")

    def parse(self, parser: Callable[[str], T]) -> T:
        """`parser` applied to the string; its complaint is repeated with the path in front, its code kept."""
        text = self.as_str()
        try:
            return parser(text)
        except CipError as error:
            where = f"{self.document}: {self.path}" if self.path else self.document
            raise InvalidDocumentError(where, str(error), code=error.code) from error


def parse_json(data: bytes, document: str, *, error: DocumentError = InvalidDocumentError) -> JsonNode:
    """The one JSON value that `data` holds. `document` names it in messages; `error` makes the exception to raise.

    Raises what `error` makes: not UTF-8, not JSON, trailing text, a duplicate key, NaN or an infinite number,
    nesting deeper than `DEPTH_LIMIT`. A lone surrogate written as an escape passes: see `refuse_surrogates`.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise error(document, f"not valid UTF-8 at byte {fault.start}") from fault
    return parse_json_text(text, document, error=error)


def parse_json_text(text: str, document: str, *, error: DocumentError = InvalidDocumentError) -> JsonNode:
    """As `parse_json`, for text that is already decoded."""
    duplicates: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(items)
        if len(mapping) != len(items):
            seen: set[str] = set()
            for key, _ in items:
                if key in seen:
                    duplicates.append(key)
                    mapping[key] = _Duplicate(key)
                seen.add(key)
        return mapping

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError as fault:
        raise error(document, f"nested deeper than {DEPTH_LIMIT} levels") from fault
    except json.JSONDecodeError as fault:
        raise error(document, f"not valid JSON at line {fault.lineno} column {fault.colno}: {fault.msg.lower()}") from fault
    except ValueError as fault:
        raise error(document, "not valid JSON: a number that is not finite or too long") from fault
    root = JsonNode(document, "", value, error)
    if text.count("{") + text.count("[") > DEPTH_LIMIT or duplicates:
        _walk(root)
    return root


def refuse_surrogates(root: JsonNode) -> None:
    """Refuse a lone surrogate in any key or string below `root`: it has no UTF-8 form to compare or to sign."""
    pending: list[JsonNode] = [root]
    while pending:
        node = pending.pop()
        if isinstance(node.value, str):
            _require_text(node, node.value)
        elif isinstance(node.value, list):
            pending.extend(node.items())
        elif isinstance(node.value, dict):
            for key, child in node.members():
                _require_text(node, key)
                pending.append(child)


def kind_of(value: object) -> str:
    """A JSON value's kind with its article, for messages."""
    return "null" if value is None else _KIND.get(type(value), "something else")


def _step(key: str) -> str:
    return key if key.isidentifier() and len(key) <= 64 else f"[{quote(key)}]"


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(text)


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0.0:
        raise ValueError(text)
    return number


def _walk(root: JsonNode) -> None:
    """Find what the decoder could not name: the path of a duplicate key, or nesting that goes too deep."""
    pending = [(root, 1)]
    while pending:
        node, depth = pending.pop()
        if isinstance(node.value, _Duplicate):
            node.fail("duplicate key")
        if isinstance(node.value, dict | list):
            if depth > DEPTH_LIMIT:
                raise node._error(node.document, f"nested deeper than {DEPTH_LIMIT} levels")
            children = (child for _, child in node.members()) if isinstance(node.value, dict) else node.items()
            pending.extend((child, depth + 1) for child in children if isinstance(child.value, dict | list | _Duplicate))


def _require_text(node: JsonNode, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        node.fail("a lone surrogate in a string")

# SPDX-License-Identifier: Apache-2.0
"""Typed reading of untrusted JSON; every complaint names the document and the path.

`Any` enters here at `json.loads` and ends here. Texts are strict UTF-8 without a byte order mark; duplicate
keys, NaN, infinities, trailing text and deep nesting are refused (decisions.md section 1, signatures.md 1.2).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NoReturn, TypeVar

from ..errors import CipError, ErrorCode, InvalidDocumentError, quote, redacted, strip_reference

DEPTH_LIMIT = 128  # nested arrays and objects
NODE_LIMIT = 400_000  # values and keys of one document; a value takes ten to thirty times as much memory as its text
PATH_LIMIT = 200  # characters of a path in a message; the end is what people look for
T = TypeVar("T")
DocumentError = Callable[[str, str], CipError]  # (where, why) -> the error to raise

_KIND = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "an integer", float: "a number"}
# Go's JSON decoder folds these two letters to ASCII; a key that another reader takes for a known one is an attack.
_FOLDS = str.maketrans({"\u017f": "s", "\u212a": "k"})
# A string with all that it holds, or what stands in front of, or behind, each further value or key.
_STRING_OR_MARK = r'(?s)"(?:[^"\\]++|\\.)*+"?|[,:\[{]'
_SURROGATE = "[\ud800-\udfff]"
_DUPLICATE = object()  # stands in for the value of a key that occurred twice


def fold_key(key: str) -> str:
    """`key` as a case-insensitive reader sees it (images.md 5.3)."""
    return key.translate(_FOLDS).lower()


class JsonNode:
    """One value inside a JSON document.

    A node knows its parent and its step from there; the path is put together only for a complaint, and a member that is
    what it should be is read without a node of its own, so that reading thousands of descriptors costs neither.
    """

    __slots__ = ("_origin", "_parent", "_step", "value")

    def __init__(self, origin: tuple[str, DocumentError], parent: JsonNode | None, step: str | int, value: Any) -> None:
        self._origin = origin
        self._parent = parent
        self._step = step
        self.value = value

    @property
    def document(self) -> str:
        """The document's name in messages."""
        return self._origin[0]

    @property
    def path(self) -> str:
        """Where the value stands: empty for the document itself, else like `layers[2].size`."""
        steps: list[str] = []
        node = self
        while node._parent is not None:
            steps.append(_shown_step(node._step))
            node = node._parent
        path = redacted("".join(reversed(steps)).removeprefix("."))  # a secret may have dots in it
        return path if len(path) <= PATH_LIMIT else "…" + path[1 - PATH_LIMIT :]

    @property
    def where(self) -> str:
        """Document and path, as a message begins."""
        path = self.path
        return f"{self.document}: {path}" if path else self.document

    def fail(self, why: str) -> NoReturn:
        """Raise the document's error at this spot."""
        raise self._origin[1](self.where, why)

    def _child(self, step: str | int, value: Any) -> JsonNode:
        return JsonNode(self._origin, self, step, value)

    def _expect(self, kind: type, article: str) -> None:
        if type(self.value) is not kind:
            self.fail(f"expected {article}, found {kind_of(self.value)}")

    def is_null(self) -> bool:
        """Whether the value is `null`."""
        return self.value is None

    def as_str(self) -> str:
        """The string, or the document's error; a lone surrogate is refused, because it has no UTF-8 form."""
        self._expect(str, "a string")
        text: str = self.value
        if not text.isascii():
            _require_text(self, text)
        return text

    def as_replaced_str(self) -> str:
        """The string, with U+FFFD for each lone surrogate as Go's decoder has it, or the document's error."""
        self._expect(str, "a string")
        return replace_surrogates(self.value)

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
        return (self._child(index, value) for index, value in enumerate(self.value))

    def members(self) -> Iterator[tuple[str, JsonNode]]:
        """Keys and values of an object, in order."""
        self._expect(dict, "an object")
        return ((key, self._child(key, value)) for key, value in self.value.items())

    def keys(self) -> tuple[str, ...]:
        """The keys of an object, in order."""
        self._expect(dict, "an object")
        return tuple(self.value)

    def has(self, key: str) -> bool:
        """Whether an object has the member `key`, be it `null`."""
        self._expect(dict, "an object")
        return key in self.value

    def __getitem__(self, key: str) -> JsonNode:
        """The member `key` of an object, which must be there; it may be `null`."""
        self._expect(dict, "an object")
        if key not in self.value:
            self.fail(f"expected a member {key!r}, found none")
        return self._child(key, self.value[key])

    def get(self, key: str) -> JsonNode | None:
        """The member `key` of an object, or None when it is absent or `null`."""
        self._expect(dict, "an object")
        value = self.value.get(key)
        return None if value is None else self._child(key, value)

    def text(self, key: str) -> str:
        """The string under `key` of an object; empty when it is absent or `null`."""
        value = self.value.get(key) if type(self.value) is dict else None
        if type(value) is str and value.isascii():
            return value
        member = self.get(key)
        return "" if member is None else member.as_str()

    def array(self, key: str) -> tuple[JsonNode, ...]:
        """The elements under `key` of an object; none when it is absent or `null`."""
        member = self.get(key)
        return () if member is None else tuple(member.items())

    def folded(self, known: Iterable[str], *, or_null: bool = False) -> JsonNode:
        """The object as a case-insensitive reader sees it: members that read as one of `known`, by their name there.

        A member that is `null` is absent, and so are all of a `null` that may stand here. Two members that fold to the
        same name are refused: readers differ about which of them counts.
        """
        exact = {fold_key(key): key for key in known}
        found: dict[str, Any] = {}
        for key, node in () if or_null and self.value is None else self.members():
            name = exact.get(fold_key(key))
            if name is None:
                continue
            if name in found:
                node.fail(f"ambiguous, there is another member that reads as {name!r}")
            found[name] = node.value
        present = {name: value for name, value in found.items() if value is not None}
        return JsonNode(self._origin, self._parent, self._step, present)

    def require_only(self, allowed: Iterable[str]) -> None:
        """Refuse any key that is not one of `allowed`, spelled exactly."""
        known = tuple(allowed)
        for key in self.keys():
            if key not in known:
                self.fail(f"unknown member {quote(key)}, expected one of {', '.join(known)}")

    def require_exact_case(self, known: Iterable[str]) -> None:
        """Refuse a key that only a case-insensitive reader would take for one of `known`."""
        self._expect(dict, "an object")
        if frozenset(known).issuperset(self.value):
            return
        exact = {fold_key(key): key for key in known}
        for key in self.value:
            wanted = exact.get(fold_key(key))
            if wanted not in (None, key):
                self.fail(f"ambiguous member {quote(key)}, expected it to be spelled {wanted!r}")

    def parse(self, parser: Callable[[str], T]) -> T:
        """`parser` applied to the string; its complaint becomes the document's error, with the path in front."""
        text = self.as_str()
        try:
            return parser(text)
        except CipError as error:
            raise self._origin[1](self.where, str(error)) from error


def parse_json(data: bytes, document: str, *, error: DocumentError = InvalidDocumentError) -> JsonNode:
    """The one JSON value that `data` holds. `document` names it in messages; `error` makes the exception to raise.

    Raises what `error` makes: not UTF-8, a byte order mark, not JSON, trailing text, a duplicate key, NaN or an
    infinite number, an integer of thousands of digits, nesting deeper than `DEPTH_LIMIT`, and (limit-exceeded) more
    than `NODE_LIMIT` values and keys, which are counted before anything is made of them. A lone surrogate written as
    an escape passes here and is refused by `as_str`; `refuse_surrogates` looks for it everywhere.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise error(document, f"not valid UTF-8 at byte {fault.start}") from fault
    return parse_json_text(text, document, error=error)


def parse_json_text(text: str, document: str, *, error: DocumentError = InvalidDocumentError) -> JsonNode:
    """As `parse_json`, for text that is already decoded."""
    import json  # here, because a tree of TOML needs none

    if _has_too_many_nodes(text):
        fault = error(document, f"more than {NODE_LIMIT} values and keys")
        fault.code = ErrorCode.LIMIT_EXCEEDED
        raise fault
    duplicates = 0

    def to_mapping(members: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal duplicates
        mapping = dict(members)
        if len(mapping) != len(members):
            duplicates += 1
            seen: set[str] = set()
            for key, _ in members:
                if key in seen:
                    mapping[key] = _DUPLICATE
                seen.add(key)
        return mapping

    try:
        value = json.loads(text, object_pairs_hook=to_mapping, parse_constant=_finite, parse_float=_finite)
    except RecursionError as fault:
        raise error(document, f"nested deeper than {DEPTH_LIMIT} levels") from fault
    except json.JSONDecodeError as fault:
        spot = f"line {fault.lineno} column {fault.colno}"
        raise error(document, f"not valid JSON at {spot}: {fault.msg.lower()}") from fault
    except ValueError as fault:
        raise error(document, "not valid JSON: a number that is not finite or too long") from fault
    if text.count("{") + text.count("[") > DEPTH_LIMIT and _is_deeper(value, DEPTH_LIMIT):
        raise error(document, f"nested deeper than {DEPTH_LIMIT} levels")
    root = JsonNode((document, error), None, "", value)
    if duplicates:  # of which the decoder knows no path
        next(node for node in _nodes(root) if node.value is _DUPLICATE).fail("duplicate key")
    return root


def replace_surrogates(text: str) -> str:
    """`text` with U+FFFD for each lone surrogate."""
    return text if text.isascii() else re.sub(_SURROGATE, "\ufffd", text)


def refuse_surrogates(root: JsonNode) -> None:
    """Refuse a lone surrogate in any key or string below `root`: it has no UTF-8 form to compare or to sign."""
    for node in _nodes(root):
        for text in node.value if isinstance(node.value, dict) else (node.value,):
            if isinstance(text, str):
                _require_text(node, text)


def kind_of(value: object) -> str:
    """A JSON value's kind with its article, for messages."""
    return "null" if value is None else _KIND.get(type(value), "something else")


def _shown_step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    shown = strip_reference(step)  # which keys for registries begin as
    plain = shown.isidentifier() and len(shown) <= 64 and redacted(shown) == shown
    return f".{shown}" if plain else f"[{quote(shown)}]"


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0.0:
        raise ValueError(text)
    return number


def _has_too_many_nodes(text: str) -> bool:
    """Whether so many marks stand outside of strings; all there are is looked at first, because that is quick."""
    if len(text) <= NODE_LIMIT or sum(map(text.count, ",:[{")) <= NODE_LIMIT:
        return False
    marks = (match for match in re.finditer(_STRING_OR_MARK, text) if text[match.start()] != '"')
    return any(islice(marks, NODE_LIMIT, None))


def _is_deeper(value: object, limit: int) -> bool:
    """Whether arrays and objects are nested more than `limit` deep; looks at the values alone, level by level."""
    level = [value] if isinstance(value, dict | list) else []
    while level and limit:
        limit -= 1
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if type(child) is dict or type(child) is list
        ]
    return bool(level)


def _nodes(root: JsonNode) -> Iterator[JsonNode]:
    """`root` and all below it."""
    pending = [root]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node.value, dict):
            pending.extend(child for _, child in node.members())
        elif isinstance(node.value, list):
            pending.extend(node.items())


def _require_text(node: JsonNode, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        node.fail("a lone surrogate in a string")

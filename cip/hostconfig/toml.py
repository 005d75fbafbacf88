# SPDX-License-Identifier: Apache-2.0
"""TOML files of the host, read as typed nodes whose complaints name file and key."""

from __future__ import annotations

from ..errors import QUOTE_LIMIT, ConfigurationError
from ..model.jsontree import JsonNode

_DOTS = 4_000_000  # squared and summed over the lines: tomllib takes the square of a key's parts to read it


def parse_toml(path: str, data: bytes) -> JsonNode:
    """The content `data` of the file `path`. Raises ConfigurationError naming file and line, as far as known."""
    value: dict[str, object] | None = _plain_tables(data)
    if value is None:
        value = _parse(path, data)
    return JsonNode((path, ConfigurationError), None, "", value)


def _plain_tables(data: bytes) -> dict[str, object] | None:
    """The value of a file of comments, `[table]` heads and lines `"key" = "text"`; None for any other.

    The list of short names that distributions ship is such a file, and on most hosts the only one. `tomllib` with its
    regular expressions would be a tenth of what a parent waits for a manifest. Whatever is not plain is left to it.
    """
    root: dict[str, object] = {}
    table: dict[str, object] = root
    for line in data.decode("latin-1").split("\n"):
        text = line.strip(" \t")
        if not text.isascii() or not text.isprintable():
            return None
        if not text or text.startswith("#"):
            continue
        if text.startswith("["):
            name = text[1:-1]
            if not text.endswith("]") or not name.isalnum() or name in root:
                return None
            root[name] = table = {}
            continue
        left, _, right = text.partition("=")
        key, value = (side.strip(" \t") for side in (left, right))
        if not _is_plain_text(key) or not _is_plain_text(value) or key[1:-1] in table:
            return None
        table[key[1:-1]] = value[1:-1]
    return root


def _is_plain_text(text: str) -> bool:
    """Whether it is a basic string on one line in which nothing is escaped."""
    inside = text[1:-1]
    return len(text) > 1 and text[0] == text[-1] == '"' and '"' not in inside and "\\" not in inside


def _parse(path: str, data: bytes) -> dict[str, object]:
    import tomllib

    if sum(line.count(b".") ** 2 for line in data.split(b"\n")) > _DOTS:
        raise ConfigurationError(path, "not valid TOML: keys of too many parts")
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigurationError(path, f"not valid UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(path, _complaint(str(error))) from error
    except ValueError as error:  # of int(), which takes no more than some thousand digits
        raise ConfigurationError(path, "not valid TOML: a number that is too long") from error
    except RecursionError as error:
        raise ConfigurationError(path, "not valid TOML: nested too deep") from error


def _complaint(text: str) -> str:
    """The decoder's message with its position in front, where no cut can lose it."""
    what, _, where = text.removesuffix(")").rpartition(" (at ")
    what = what[:1].lower() + what[1:]
    return f"not valid TOML at {where.replace(',', '')}: {what[:QUOTE_LIMIT]}" if what else "not valid TOML"

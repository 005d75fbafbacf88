# SPDX-License-Identifier: Apache-2.0
"""TOML files of the host, read as typed nodes whose complaints name file and key."""

from __future__ import annotations

import tomllib

from ..errors import QUOTE_LIMIT, ConfigurationError
from ..model.jsontree import JsonNode

_DOTS = 4_000_000  # squared and summed over the lines: tomllib takes the square of a key's parts to read it


def parse_toml(path: str, data: bytes) -> JsonNode:
    """The content `data` of the file `path`. Raises ConfigurationError naming file and line, as far as known."""
    return JsonNode((path, ConfigurationError), None, "", _parse(path, data))


def _parse(path: str, data: bytes) -> dict[str, object]:
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

# SPDX-License-Identifier: Apache-2.0
"""TOML files of the host, read as typed nodes whose complaints name file and key."""

from __future__ import annotations

from ..errors import QUOTE_LIMIT, ConfigurationError
from ..model.jsontree import JsonNode


def parse_toml(path: str, data: bytes) -> JsonNode:
    """The content `data` of the file `path`. Raises ConfigurationError naming file and line, as far as known."""
    import tomllib

    try:
        value = tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigurationError(path, f"not valid UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(path, _complaint(str(error))) from error
    except ValueError as error:  # of int(), which takes no more than some thousand digits
        raise ConfigurationError(path, "not valid TOML: a number that is too long") from error
    except RecursionError as error:
        raise ConfigurationError(path, "not valid TOML: nested too deep") from error
    return JsonNode((path, ConfigurationError), None, "", value)


def _complaint(text: str) -> str:
    """The decoder's message with its position in front, where no cut can lose it."""
    what, _, where = text.removesuffix(")").rpartition(" (at ")
    what = what[:1].lower() + what[1:]
    return f"not valid TOML at {where.replace(',', '')}: {what[:QUOTE_LIMIT]}" if what else "not valid TOML"

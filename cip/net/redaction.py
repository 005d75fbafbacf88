# SPDX-License-Identifier: Apache-2.0
"""What a registry says, without what it was told.

A registry's own words help whoever reads an error, and a hostile or careless one repeats in them the password, the
token or the signed query that it was sent. What was sent is known, so it is looked for, in the forms it was sent in.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple

from .url import decode_form

NOT_SHOWN = "not shown, because it repeats what it was told in confidence"
_SECRET_FIELDS = frozenset({"password", "refresh_token"})
_QUERY = re.compile(r"\?\S+")


class Confidence(NamedTuple):
    """What a request carried that must not be repeated: the values of its authorization fields, and its form."""

    authorizations: tuple[str, ...] = ()
    form: bytes = b""

    def __repr__(self) -> str:
        return "Confidence(…)"

    def redact(self, text: str) -> str:
        """`text` for a message: nothing at all when it holds a secret, otherwise without queries."""
        if not text:
            return text
        if any(secret in text for secret in self._secrets()):
            return NOT_SHOWN
        return _QUERY.sub("?…", text)

    def _secrets(self) -> set[str]:
        found: set[str] = set()
        for value in self.authorizations:
            scheme, _, told = value.partition(" ")
            found.add(told)
            if scheme.lower() == "basic":
                found |= _parts_of_basic(told)
        if self.form:
            text = self.form.decode("ascii", "replace")
            found.add(text)
            found.update(value for name, value in decode_form(text) if name in _SECRET_FIELDS)
            found.update(part.partition("=")[2] for part in text.split("&") if part.partition("=")[0] in _SECRET_FIELDS)
        found.discard("")
        return found


def _parts_of_basic(told: str) -> set[str]:
    """The password, and the pair as it was before it was encoded; the name alone is no secret."""
    try:
        pair = base64.b64decode(told, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return set()
    return {pair, pair.partition(":")[2]}

# SPDX-License-Identifier: Apache-2.0
"""Credential helpers: programs that are asked for the credentials of one registry (registry.md 3.5).

What a helper prints is a secret, whether it makes sense or not: no message repeats any of it.
"""

from __future__ import annotations

from ..errors import AuthenticationError, CipError, ErrorCode
from ..model.jsontree import parse_json_text
from ..programs import Programs, helper_program
from ..settings import Credentials

# What helpers print, with a failing status, when they have nothing (docker-credential-helpers, `credentials/error.go`).
_NOT_FOUND = b"credentials not found in native keychain"


def ask_helper(helper: str, registry: str, origin: str, programs: Programs) -> Credentials | None:
    """Run `helper`, which the file `origin` names; None when it knows nothing.

    Raises AuthenticationError (credentials-unavailable): missing, late, failed, or an answer that is none.
    """
    program = helper_program(helper)
    try:
        result = programs.credentials(helper, registry, purpose=f"get credentials, as {origin} says")
    except CipError as error:
        raise AuthenticationError(str(error), code=ErrorCode.CREDENTIALS_UNAVAILABLE) from error
    if result.status != 0:
        if result.stdout.strip() == _NOT_FOUND:
            return None
        raise AuthenticationError(
            f"{program}: ended with status {result.status} for {registry}", code=ErrorCode.CREDENTIALS_UNAVAILABLE
        )
    return _read_answer(program, result.stdout)


def _read_answer(program: str, output: bytes) -> Credentials:
    """The first JSON value that was printed; what follows it is ignored, as upstream."""
    import json

    unusable = AuthenticationError(
        f"{program}: expected a JSON object with the texts Username and Secret, found something else",
        code=ErrorCode.CREDENTIALS_UNAVAILABLE,
    )
    try:
        text = output.decode("utf-8").lstrip()
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        raise unusable from None  # the cause would carry what was printed
    root = parse_json_text(text[:end], program, error=lambda where, why: unusable)
    members = {} if root.is_null() else root.folded(("Username", "Secret"))
    username, secret = (members[name].as_str() if name in members else "" for name in ("Username", "Secret"))
    if any(letter in part for part in (username, secret) for letter in "\r\n\0"):
        raise unusable
    return Credentials(identity_token=secret) if username == "<token>" else Credentials(username, secret)

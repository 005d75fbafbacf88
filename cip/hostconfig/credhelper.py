# SPDX-License-Identifier: Apache-2.0
"""Credential helpers: programs that are asked for the credentials of one registry (registry.md 3.5).

What a helper prints is a secret, whether it makes sense or not: no message repeats any of it. What it says on its
standard error is why it failed, and is shown where it repeats nothing of that.
"""

from __future__ import annotations

import re

from ..errors import AuthenticationError, CipError, ErrorCode, quote
from ..model.jsontree import parse_json_text
from ..programs import ProgramResult, Programs
from ..settings import HELPER_PREFIX, Credentials

# What helpers print, with a failing status, when they have nothing (docker-credential-helpers, `credentials/error.go`).
_NOT_FOUND = b"credentials not found in native keychain"
_RUN = 8  # characters of an answer that no message shows in a row
_COMPARED = 4096  # characters of an answer, and of what was said beside it, that are held against each other


def ask_helper(helper: str, registry: str, origin: str, programs: Programs) -> Credentials | None:
    """Run `helper`, which the file `origin` names; None when it knows nothing.

    Raises AuthenticationError (credentials-unavailable): missing, late, failed, or an answer that is none.
    """
    program = HELPER_PREFIX + helper
    try:
        result = programs.credentials(helper, registry, purpose=f"get credentials, as {origin} says")
    except CipError as error:
        raise AuthenticationError(str(error), code=ErrorCode.CREDENTIALS_UNAVAILABLE) from error
    if result.status != 0:
        if result.stdout.strip() == _NOT_FOUND:
            return None
        why = f"{program}: ended with status {result.status} for {registry}{_reason(result)}"
        raise AuthenticationError(why, code=ErrorCode.CREDENTIALS_UNAVAILABLE)
    return _read_answer(program, result)


def _reason(result: ProgramResult) -> str:
    """What a helper said about its fault: the last line, for the first ones may be a trace."""
    lines = result.stderr.decode("utf-8", "replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    if not last:
        return ""
    # neither a text of its answer nor a run of it: these are secrets that nobody knows yet
    answer = result.stdout.decode("utf-8", "replace").strip()
    said = result.stderr.decode("utf-8", "replace")
    if max(len(answer), len(said)) > _COMPARED:
        return "; what it said is not shown, because that or its answer is too long to be compared"
    texts = [*re.findall(r'"((?:[^"\\]|\\.)+)"', answer), *answer.split()]
    runs = {answer[start : start + _RUN] for start in range(max(len(answer) - _RUN, 0) + 1)} if answer else set()
    if any(text in said for text in texts) or any(run in said for run in runs):
        return "; what it said is not shown, because it repeats its answer"
    return f": {quote(last.strip())}"


def _read_answer(program: str, result: ProgramResult) -> Credentials:
    """The first JSON value that was printed; what follows it is ignored, as upstream."""
    import json

    unusable = AuthenticationError(
        f"{program}: expected a JSON object with the texts Username and Secret, found something else{_reason(result)}",
        code=ErrorCode.CREDENTIALS_UNAVAILABLE,
    )
    try:
        text = result.stdout.decode("utf-8").lstrip()
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        raise unusable from None  # the cause would carry what was printed
    root = parse_json_text(text[:end], program, error=lambda where, why: unusable)
    members = {} if root.is_null() else root.folded(("Username", "Secret"))
    username, secret = (members[name].as_str() if name in members else "" for name in ("Username", "Secret"))
    if any(letter in part for part in (username, secret) for letter in "\r\n\0"):
        raise unusable
    return Credentials(identity_token=secret) if username == "<token>" else Credentials(username, secret)

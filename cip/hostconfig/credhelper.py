# SPDX-License-Identifier: Apache-2.0
"""Credential helpers: programs that are asked for the credentials of one registry (registry.md 3.5).

What a helper prints is a secret, whether it makes sense or not: no message repeats any of it. What it says on its
standard error is why it failed, and is shown where it repeats nothing of that.

A key of `credHelpers` is a registry; here it may also have `*` for whole labels of the host, and the beginning of a
repository's path, as people wish of podman (container-libs#416). The key that says most counts: the longest path, then
the most labels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ..errors import AuthenticationError, CipError, ErrorCode, InvalidReferenceError, quote
from ..model.jsontree import JsonNode, parse_json_text
from ..model.reference import require_name_prefix
from ..programs import ProgramResult, Programs
from ..settings import HELPER_PREFIX, Credentials

# What helpers print, with a failing status, when they have nothing (docker-credential-helpers, `credentials/error.go`).
_NOT_FOUND = b"credentials not found in native keychain"
_RUN = 8  # characters of an answer that no message shows in a row
_COMPARED = 4096  # characters of an answer, and of what was said beside it, that are held against each other
_LABEL = r"(?:\*|[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)"
_HOST = rf"(?a){_LABEL}(?:\.{_LABEL})*(?::[0-9]+)?"


def choose_helper(helpers: Mapping[str, JsonNode], name: str, warn: Callable[[str], None]) -> JsonNode | None:
    """The helper that `credHelpers` names for the repository `name`, `host[:port]/path`; None where none matches."""
    for key, helper in helpers.items():
        why = _unmatched(key)
        if why:
            warn(f"{helper.where}: the key of no repository: {why}")
    chosen = max((key for key in helpers if _matches(key, name)), key=_weight, default=None)
    if chosen is None:
        return None
    if "*" in chosen or "/" in chosen:
        warn(f"{helpers[chosen].where}: podman knows no wildcards and no paths in the keys of credHelpers")
    return helpers[chosen]


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


def _unmatched(key: str) -> str:
    """Why a key of `credHelpers` can never match, empty when it may."""
    host, slash, path = key.partition("/")
    if not re.fullmatch(_HOST, host):
        return "expected a host without a scheme, with * for whole labels at most"
    try:
        require_name_prefix("host.example" + slash + path)
    except InvalidReferenceError:
        return "expected the beginning of a repository path behind the host, without wildcards"
    return ""


def _matches(key: str, name: str) -> bool:
    host, _, path = key.partition("/")
    registry, _, repository = name.partition("/")
    labels, wanted = host.split("."), registry.split(".")
    same = len(labels) == len(wanted) and all(
        _is_label(label, found) for label, found in zip(labels, wanted, strict=True)
    )
    return same and (not path or f"{repository}/".startswith(f"{path}/"))


def _is_label(label: str, found: str) -> bool:
    """Whether a label of a key is `found`; the last one has the port, which no wildcard stands for."""
    if not label.startswith("*"):
        return label == found
    return label[1:].partition(":")[2] == found.partition(":")[2] and label[1:2] in ("", ":")


def _weight(key: str) -> tuple[int, int, str]:
    host, _, path = key.partition("/")
    literal = sum(not label.startswith("*") for label in host.split("."))
    return len(path.split("/")) if path else 0, literal, key


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
    members = root.folded(("Username", "Secret"), or_null=True)
    username, secret = members.text("Username"), members.text("Secret")
    if any(letter in part for part in (username, secret) for letter in "\r\n\0"):
        raise unusable
    return Credentials(identity_token=secret) if username == "<token>" else Credentials(username, secret)

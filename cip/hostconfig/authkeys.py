# SPDX-License-Identifier: Apache-2.0
"""Keys of an auth file: which one names the helper for a repository, and which can never match anything.

A key of `credHelpers` is a registry; here it may also have `*` for whole labels of the host, and the beginning of a
repository's path, as people wish of podman (container-libs#416). The key that says most counts: the longest path, then
the most labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..errors import InvalidReferenceError
from ..model.reference import require_name_prefix, unmatched_scope

_LABEL = r"(?:\*|[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)"
_HELPER_HOST = rf"(?a){_LABEL}(?:\.{_LABEL})*(?::[0-9]+)?"
HUB_ALIASES = frozenset({"index.docker.io", "registry-1.docker.io"})


def helper_key(keys: Iterable[str], name: str) -> str | None:
    """The key of `credHelpers` that decides for the repository `name`, `host[:port]/path`; None when none matches."""
    return max((key for key in keys if _matches(key, name)), key=_weight, default=None)


def goes_beyond_podman(key: str) -> bool:
    """Whether podman would pass a key of `credHelpers` over that matches here."""
    return "*" in key or "/" in key


def unmatched_helper_key(key: str) -> str:
    """Why a key of `credHelpers` can never match, empty when it may."""
    host, slash, path = key.partition("/")
    if not re.fullmatch(_HELPER_HOST, host):
        return "expected a host without a scheme, with * for whole labels at most"
    try:
        require_name_prefix("host.example" + slash + path)
    except InvalidReferenceError:
        return "expected the beginning of a repository path behind the host, without wildcards"
    return ""


def without_scheme(key: str) -> str:
    """A key of `auths` as a repository or host is written."""
    return key.removeprefix("http://").removeprefix("https://")


def effective_key(key: str, *, legacy: bool) -> str:
    """What of a key of `auths` counts: of a URL, and in the format of `.dockercfg`, the host alone."""
    stripped = without_scheme(key)
    return stripped.partition("/")[0] if legacy or stripped != key else stripped


def unmatched_auth_key(key: str, *, legacy: bool) -> str:
    """Why a key of `auths` can never match, empty when it may; `legacy` is the format of `.dockercfg`."""
    stripped = effective_key(key, legacy=legacy)
    host = stripped.partition("/")[0]
    if "*" in stripped:
        return "expected a host or a repository, wildcards are not known here"
    if stripped in HUB_ALIASES:
        return ""
    why = unmatched_scope(stripped)
    if why:
        return why
    return "expected no tag and no digest" if any(mark in stripped[len(host) :] for mark in ":@") else ""


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

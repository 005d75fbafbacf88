# SPDX-License-Identifier: Apache-2.0
"""One file of registries.conf: TOML to rules (registry.md 2.3, 2.4).

Key names match in any case, as in the Go tools, but one key in two spellings is refused. What other tools refuse is
refused here too, where it has no effect as well: a file is either right or it stops the request.
"""

from typing import NamedTuple

from ..errors import quote_own
from ..model.jsontree import JsonNode, fold_key
from ..model.reference import DockerReference, is_host, is_repository, unmatched_scope
from .paths import parse_toml

_TOP_KEYS = (
    "unqualified-search-registries",
    "credential-helpers",
    "short-name-mode",
    "aliases",
    "additional-layer-store-auth-helper",
    "registry",
    "registries",
)
_LOCATION_KEYS = ("location", "insecure", "namespace-proxy", "pull-from-mirror")
_REGISTRY_KEYS = (*_LOCATION_KEYS, "prefix", "blocked", "mirror-by-digest-only", "mirror")
_PULL_FROM_MIRROR = ("all", "digest-only", "tag-only")
_SHORT_NAME_MODES = ("enforcing", "permissive", "disabled")
_V1_TABLES = ("search", "insecure", "block")


class Location:
    """Where a registry or a mirror is. `namespace` is what it calls `namespace-proxy`, empty for none."""

    def __init__(self, location: str, insecure: bool, namespace: str) -> None:
        self.location, self.insecure, self.namespace = location, insecure, namespace


class Mirror:
    """A `[[registry.mirror]]` table; `usage` is `all`, `digest-only` or `tag-only`."""

    def __init__(self, at: Location, usage: str) -> None:
        self.at, self.usage = at, usage

    def serves(self, reference: DockerReference) -> bool:
        """Whether the mirror is asked for `reference`."""
        return self.usage == "all" or (self.usage == "digest-only") == (reference.digest is not None)


class RegistryRule(NamedTuple):
    """A `[[registry]]` table. An empty location (with a `*.` prefix only) leaves references as they are."""

    prefix: str
    at: Location
    blocked: bool
    mirrors: tuple[Mirror, ...]
    file: str

    def match_length(self, name: str) -> int:
        """How many characters of `name` the location replaces; -1 when the prefix does not match.

        `:` ends a prefix too, so that `ex.com` matches `ex.com:5000/x`, as upstream (registry.md 2.6).
        """
        if self.prefix.startswith("*."):
            suffix = self.prefix[1:]
            start = name.find(suffix)
            if start < 0 or "/" in name[:start]:
                return -1
            end = start + len(suffix)
        elif name.startswith(self.prefix):
            end = len(self.prefix)
        else:
            return -1
        return end if end == len(name) or name[end] in ":/@" else -1


def parse_registries_file(
    path: str, data: bytes
) -> tuple[dict[str, RegistryRule], tuple[str, ...] | None, tuple[str, ...]]:
    """What the content `data` of the file `path` says: rules by prefix, credential helpers, warnings.

    The helpers are None when the key is absent. Raises ConfigurationError naming file and key, or line.
    """
    warnings: list[str] = []
    root = _table(parse_toml(path, data), _TOP_KEYS, warnings)
    _refuse_v1(root)
    for entry in root.array("unqualified-search-registries"):
        if not is_host(_place(entry)):
            entry.fail(f"expected a host name, found {quote_own(entry.as_str())}")
    mode = root.text("short-name-mode")
    if mode and mode not in _SHORT_NAME_MODES:
        root["short-name-mode"].fail(f"expected one of {', '.join(_SHORT_NAME_MODES)}, found {quote_own(mode)}")
    root.text("additional-layer-store-auth-helper")  # must be a text; never run, it only matters to a layer store
    aliases = root.get("aliases")
    for name, value in aliases.members() if aliases is not None else ():
        if not is_repository(name, with_domain=False):
            value.fail("expected a short name without host, tag and digest on the left")
        text = value.as_str()
        if text and not is_repository(text, with_domain=True):
            value.fail(f"expected a repository with its host, without tag and digest, found {quote_own(text)}")
    helpers = None
    if root.get("credential-helpers") is not None:
        helpers = tuple(require_helper_name(entry) for entry in root.array("credential-helpers"))
    tables = _tables(root, "registry")
    rules = [_parse_rule(_table(node, _REGISTRY_KEYS, warnings), warnings) for node in tables]
    _refuse_contradictions(rules, tables)
    # The first table of a prefix wins within one file, as upstream.
    return {rule.prefix: rule for rule in reversed(rules)}, helpers, tuple(warnings)


def _table(node: JsonNode, known: tuple[str, ...], warnings: list[str]) -> JsonNode:
    """A TOML table whose keys match in any case; unknown keys are only remarked on."""
    warnings.extend(
        f"{member.where}: unknown key, ignored" for key, member in node.members() if fold_key(key) not in known
    )
    return node.folded(known)


def _flag(table: JsonNode, key: str) -> bool:
    member = table.get(key)
    return member is not None and member.as_bool()


def _tables(table: JsonNode, key: str) -> tuple[JsonNode, ...]:
    member = table.get(key)
    if member is not None and isinstance(member.value, dict):
        if member.keys() == ("mirror",):  # what TOML makes of the heading of a mirror alone
            member.fail(
                "found [[registry.mirror]] without the [[registry]] that it mirrors: write [[registry]] with "
                "location = 'HOST' above it"
            )
        member.fail("expected an array of tables in double brackets, found a single table: write [[…]], not […]")
    return table.array(key)


def _refuse_v1(root: JsonNode) -> None:
    """The format before v2 kept lists in `[registries.search]`, `[registries.insecure]` and `[registries.block]`."""
    registries = root.get("registries")
    if registries is None:
        return
    for name, lists in registries.folded(_V1_TABLES).members():
        if lists.folded(("registries",)).value:
            registries.fail(
                f"found a list of format v1 in [registries.{name}], expected format v2: "
                "instead of [registries.search] write unqualified-search-registries = ['HOST'] above all tables, "
                "and for each HOST of [registries.insecure] or [registries.block] a table "
                "[[registry]] with location = 'HOST' and insecure = true or blocked = true"
            )


def _parse_rule(table: JsonNode, warnings: list[str]) -> RegistryRule:
    location, prefix = _location(table), _location(table, "prefix")
    if not prefix and table.text("prefix"):
        table["prefix"].fail(f"expected a host name or a repository, found {quote_own(table.text('prefix'))}")
    prefix = prefix or location
    if not prefix:
        table.fail("expected a prefix or a location, found neither")
    if prefix.startswith("*."):
        if any(mark in prefix for mark in "/@:"):
            (table.get("prefix") or table["location"]).fail(
                f"expected a wildcard prefix like *.example.com, found {quote_own(prefix)}"
            )
    elif not location:
        table.fail(f"prefix {quote_own(prefix)}: expected a location, which only a prefix like *.example.com can lack")
    why = unmatched_scope(prefix) or (
        "" if "@" not in prefix and ":" not in prefix.partition("/")[2] else "expected no tag and no digest"
    )
    if why:
        warnings.append(f"{table.where}: no image has the prefix {quote_own(prefix)}: {why}")
    if table.text("pull-from-mirror"):
        table["pull-from-mirror"].fail("expected it in a [[registry.mirror]] table only")
    by_digest_only = _flag(table, "mirror-by-digest-only")
    mirrors = tuple(
        _parse_mirror(_table(node, _LOCATION_KEYS, warnings), by_digest_only) for node in _tables(table, "mirror")
    )
    return RegistryRule(
        prefix=prefix,
        at=_parse_location(table, location),
        blocked=_flag(table, "blocked"),
        mirrors=mirrors,
        file=table.document,
    )


def _parse_mirror(table: JsonNode, by_digest_only: bool) -> Mirror:
    location = _location(table)
    if not location:
        table.fail("expected a location, found none")
    usage = table.text("pull-from-mirror")
    if usage and by_digest_only:
        why = "contradicts mirror-by-digest-only = true of the registry: expected one of them"
        table["pull-from-mirror"].fail(why)
    if usage and usage not in _PULL_FROM_MIRROR:
        table["pull-from-mirror"].fail(f"expected one of {', '.join(_PULL_FROM_MIRROR)}, found {quote_own(usage)}")
    return Mirror(_parse_location(table, location), usage or ("digest-only" if by_digest_only else "all"))


def _parse_location(table: JsonNode, location: str) -> Location:
    return Location(location, _flag(table, "insecure"), table.text("namespace-proxy"))


def _location(table: JsonNode, key: str = "location") -> str:
    member = table.get(key)
    return "" if member is None else _place(member)


def _place(node: JsonNode) -> str:
    """A host or repository without the slashes at its end. Nothing else is checked before it is used, as upstream."""
    text = node.as_str()
    if text.startswith(("http://", "https://")):
        node.fail(f"expected a host or repository without a scheme, found {quote_own(text)}")
    return text.rstrip("/")


def _refuse_contradictions(rules: list[RegistryRule], tables: tuple[JsonNode, ...]) -> None:
    """Tables of one location must agree on what is allowed there."""
    first: dict[str, tuple[RegistryRule, str]] = {}
    for rule, node in zip(rules, tables, strict=True):
        location = rule.at.location or rule.prefix
        earlier, path = first.setdefault(location, (rule, node.path))
        for key, ours, theirs in (
            ("insecure", rule.at.insecure, earlier.at.insecure),
            ("blocked", rule.blocked, earlier.blocked),
        ):
            if ours != theirs:
                node.fail(
                    f"{key} = {str(ours).lower()} for location {quote_own(location)} contradicts {key} = "
                    f"{str(theirs).lower()} in {path}"
                )


def require_helper_name(node: JsonNode) -> str:
    """The name of a credential helper: it becomes part of a program's name, never of a path (registry.md 9, S13)."""
    name = node.as_str()
    if not name or name.startswith("-") or any(mark in name for mark in "/\\\0"):
        node.fail(f"expected the name of a credential helper, found {quote_own(name)}")
    return name

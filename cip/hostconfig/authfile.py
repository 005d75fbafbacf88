# SPDX-License-Identifier: Apache-2.0
"""Credentials for one place, from auth.json and its relatives, with the reason for the choice (registry.md 3).

`credential-helpers` of registries.conf lists the sources in order; the first that has something wins. A helper that
fails makes room for the next source; a broken file does not. Nothing here puts a secret into a message: neither the
content of a file nor the output of a helper is ever quoted.
"""

import base64
import re
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from .. import log, rooms
from ..errors import AuthenticationError, ConfigurationError, ErrorCode, InvalidInputError, quote_own
from ..model.jsontree import JsonNode, parse_json
from ..model.reference import unmatched_scope
from ..settings import HELPER_PREFIX, Credentials, Settings
from .paths import AUTH_FILE_LIMIT, AuthFile, ConfigurationFile, auth_files, read_descriptor, read_if_present, readable
from .registriesconf import FILE_HELPER, RegistriesConfig
from .registriesfile import require_helper_name

if TYPE_CHECKING:
    from ..programs import Programs

HUB_ALIASES = frozenset({"index.docker.io", "registry-1.docker.io"})
_DESCRIPTOR = r"(?a)/(?:proc/self|dev)/fd/([0-9]{1,9})"
_HUB_NAMES = HUB_ALIASES | {"docker.io"}
_HUB = "index.docker.io"


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


class FoundCredentials(NamedTuple):
    """Credentials with their origin.

    `source` is the file or helper they come from and `key` what matched there, both empty for anonymous. `looked_at`
    are all sources that were asked, in order, each with what became of it.
    """

    credentials: Credentials
    source: str = ""
    key: str = ""
    looked_at: tuple[str, ...] = ()


class DescriptorFiles:
    """Reads files, and each inherited descriptor named like a file (`/proc/self/fd/5`) once for the whole process.

    What came out of a descriptor is kept, because a pipe has it once only; the descriptor stays open.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._contents: dict[int, bytes] = {}

    def read(self, path: str) -> bytes | None:
        """The content of `path`, None when there is no such file. Raises ConfigurationError."""
        match = re.fullmatch(_DESCRIPTOR, path) if "/fd/" in path else None
        if match is None:
            return read_if_present(path, AUTH_FILE_LIMIT)
        descriptor = int(match[1])
        with self._lock:
            if descriptor not in self._contents:
                with readable(path):
                    self._contents[descriptor] = read_descriptor(descriptor, path, AUTH_FILE_LIMIT)
            return self._contents[descriptor]


def find_credentials(
    name: str, *, settings: Settings, registries: RegistriesConfig, programs: "Programs", fd_cache: DescriptorFiles
) -> FoundCredentials:
    """The credentials for the repository `name`, `host[:port]/path` of the physical place; anonymous if there are none.

    Flags such as `--creds` are not looked at here. Raises ConfigurationError for a broken file, AuthenticationError
    (credentials-unavailable) when a helper failed and no other source had anything.
    """

    def ask(helper: str, registry: str, origin: str) -> Credentials | None:
        return rooms.ask_helper(helper, registry, origin, programs)

    search = Search(name, settings, fd_cache, ask, log.warning)
    found = search.run(registries.credential_helpers)
    if found is None and search.failures:
        why = f"no credentials for {name}: {'; '.join(search.failures)}; looked at {', '.join(search.looked_at)}"
        raise AuthenticationError(why, code=ErrorCode.CREDENTIALS_UNAVAILABLE, host=search.registry)
    return (found or FoundCredentials(Credentials()))._replace(looked_at=tuple(search.looked_at))


AskHelper = Callable[[str, str, str], Credentials | None]  # (helper, registry, who names it) -> what it knows


class Search:
    """One lookup of the credentials for the repository `name`: what was looked at, and what failed on the way."""

    def __init__(
        self, name: str, settings: Settings, files: DescriptorFiles, ask: AskHelper, warn: Callable[[str], None]
    ) -> None:
        self.registry, _, path = name.partition("/")
        if not self.registry or not path or "@" in name or ":" in path or "//" in name or name.endswith("/"):
            raise InvalidInputError(f"{quote_own(name)}: expected HOST[:PORT]/REPOSITORY")
        self._name = name
        self._settings = settings
        self._descriptor_files = files
        self._ask = ask
        self._warn = warn
        self.looked_at: list[str] = []
        self.files: list[ConfigurationFile] = []
        self.failures: list[str] = []

    def run(self, helpers: tuple[str, ...]) -> FoundCredentials | None:
        """What the first of the sources `helpers` has; None when none has anything. Raises ConfigurationError."""
        for helper in helpers:
            try:
                in_files = helper == FILE_HELPER
                found = self._in_files() if in_files else self._from_helper(helper, "registries.conf")
            except AuthenticationError as error:
                self.failures.append(str(error))
                continue
            if found is not None:
                return found
        return None

    def _from_helper(self, helper: str, origin: str) -> FoundCredentials | None:
        self.looked_at.append(f"{HELPER_PREFIX}{helper} ({origin})")
        credentials = self._ask(helper, self.registry, origin)
        if credentials is None or credentials.is_anonymous():
            return None
        return FoundCredentials(credentials, HELPER_PREFIX + helper, self.registry)

    def _in_files(self) -> FoundCredentials | None:
        places, warnings = auth_files(self._settings)
        for warning in warnings:
            self._warn(warning)
        for place in places:
            data = self._descriptor_files.read(place.path)
            self.files.append(ConfigurationFile(place.path, "credentials", data is not None))
            state = " (absent)" if data is None else "" if data else " (empty)"
            self.looked_at.append(place.path + state)
            if data == b"":  # as a login that was interrupted leaves it, and as podman reads it
                self._warn(f"{place.path}: empty, it counts as absent")
            elif data is not None:
                found = self._in_file(place, AuthDocument(place, data))
                if found is not None:
                    return found
        return None

    def _in_file(self, place: AuthFile, document: "AuthDocument") -> FoundCredentials | None:
        for remark in document.remarks:
            self._warn(remark)
        if document.helpers:
            helper = rooms.choose_helper(document.helpers, self._name, self._warn)
            if helper is not None:
                # Final for this file, whatever it answers: `auths` may hold what was there before the helper came.
                return self._from_helper(require_helper_name(helper), place.path)
        key = document.matching_key(self._name, self.registry)
        credentials = Credentials() if key is None else document.decode(key, self._warn)
        if key is not None and not credentials.is_anonymous():
            return FoundCredentials(credentials, place.path, key)
        if document.store is not None:
            self._warn(f"{document.store.where}: not used, as podman does not: name the helper in credHelpers")
        return None


# --- one file ---


class _Entry(NamedTuple):
    """One entry of `auths`: where it stands, and the two members that are used."""

    where: str
    auth: str
    identity_token: str


class AuthDocument:
    """A parsed file: entries by key, helpers by registry. Raises ConfigurationError for anything of a wrong type."""

    def __init__(self, place: AuthFile, data: bytes) -> None:
        self._legacy = place.legacy
        root = parse_json(data, place.path, error=ConfigurationError)
        members = root.folded(("auths", "credHelpers", "credsStore"), or_null=True)
        entries = (None if root.is_null() else root) if place.legacy else members.get("auths")
        self._entries = {key: _parse_entry(entry) for key, entry in (entries.members() if entries is not None else ())}
        helpers = None if place.legacy else members.get("credHelpers")
        self.helpers = dict(helpers.members()) if helpers is not None else {}
        for helper in self.helpers.values():
            helper.as_str()
        store = None if place.legacy else members.get("credsStore")
        self.store = store if store is not None and store.value else None
        self.remarks = tuple(self._unmatched_keys())

    def matching_key(self, name: str, registry: str) -> str | None:
        """The key whose entry decides for `name`, even when that entry is empty (registry.md 3.3)."""
        for key in (registry,) if self._legacy else _key_and_parents(name):
            if key in self._entries:
                return key
        wanted = _normal_registry(registry)
        similar = [key for key in self._entries if _normal_registry(effective_key(key, legacy=self._legacy)) == wanted]
        # Upstream takes any of them. The shortest is the one that people write; docker keeps tokens under longer ones.
        similar.sort(key=lambda key: (len(without_scheme(key)), key))
        if len(similar) > 1 and without_scheme(similar[0]) == without_scheme(similar[1]):
            first, second = self._entries[similar[0]], self._entries[similar[1]]
            if first[1:] != second[1:]:
                raise ConfigurationError(second.where, f"contradicts {quote_own(similar[0])}, meant for the same host")
        return similar[0] if similar else None

    def _unmatched_keys(self) -> Iterator[str]:
        for key, entry in self._entries.items():
            why = unmatched_auth_key(key, legacy=self._legacy)
            if why:
                yield f"{entry.where}: the key of no repository: {why}"

    def decode(self, key: str, warn: Callable[[str], None]) -> Credentials:
        """What an entry says; anonymous when it says nothing."""
        entry = self._entries[key]
        try:
            packed = entry.auth.replace("\r", "").replace("\n", "")
            decoded = base64.b64decode(packed, validate=True).decode("utf-8")
        except ValueError as error:  # not chained: the text of a UnicodeError holds the bytes
            what = "UTF-8 text" if isinstance(error, UnicodeDecodeError) else "valid base64"
            raise ConfigurationError(f"{entry.where}.auth", f"expected USER:PASSWORD, found no {what}") from None
        username, colon, password = decoded.partition(":")
        if not colon:
            if decoded:
                warn(f"{entry.where}.auth: ignored, expected base64 of USER:PASSWORD, found no colon")
            return Credentials()
        found = Credentials(username, password.strip("\0"), entry.identity_token)
        if any(letter in part for part in found for letter in "\r\n\0"):
            raise ConfigurationError(entry.where, "contains a line break or a NUL byte")
        return found


def _parse_entry(node: JsonNode) -> _Entry:
    """Other members, such as `username` and `registrytoken`, are not used, as upstream."""
    members = node.folded(("auth", "identitytoken"), or_null=True)
    return _Entry(node.where, members.text("auth"), members.text("identitytoken"))


def _key_and_parents(name: str) -> Iterator[str]:
    yield name
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _normal_registry(registry: str) -> str:
    return _HUB if registry in _HUB_NAMES else registry

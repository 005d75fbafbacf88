# SPDX-License-Identifier: Apache-2.0
"""What a search for credentials would present, without running a helper."""

from collections.abc import Callable
from typing import NamedTuple

from .. import log
from ..hostconfig.authfile import DescriptorFiles, Search
from ..hostconfig.paths import ConfigurationFile
from ..hostconfig.registriesconf import RegistriesConfig
from ..settings import HELPER_PREFIX, Credentials, Settings


class CredentialPlan(NamedTuple):
    """What a search would present, found without running a helper: `kind` is `none`, `password`, `token` or `helper`.

    For `helper` nobody knows the answer before it runs; `helper` is the program, and `source` the file that names it.
    `files` are those that were looked at.
    """

    kind: str
    source: str = ""
    key: str = ""
    helper: str = ""
    files: tuple[ConfigurationFile, ...] = ()


def plan_credentials(
    name: str,
    *,
    settings: Settings,
    registries: RegistriesConfig,
    fd_cache: DescriptorFiles,
    warn: Callable[[str], None] = log.warning,
) -> CredentialPlan:
    """As `find_credentials`, but the search ends at the first helper that would be run. Raises ConfigurationError."""

    def stop(helper: str, registry: str, origin: str) -> Credentials | None:
        raise _WouldRunError(helper, registry, origin)

    search = Search(name, settings, fd_cache, stop, warn)
    kind, source, key, program = "none", "", "", ""
    try:
        found = search.run(registries.credential_helpers)
    except _WouldRunError as would:
        kind, source, key, program = "helper", would.origin, would.registry, HELPER_PREFIX + would.helper
    else:
        if found is not None:
            kind = "token" if found.credentials.identity_token else "password"
            source, key = found.source, found.key
    return CredentialPlan(kind, source, key, program, tuple(search.files))


class _WouldRunError(Exception):
    """The search reached a helper that must not be run."""

    def __init__(self, helper: str, registry: str, origin: str) -> None:
        super().__init__(helper)
        self.helper = helper
        self.registry = registry
        self.origin = origin

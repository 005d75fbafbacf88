# SPDX-License-Identifier: Apache-2.0
"""What a search for credentials would present, without running a helper."""

from collections.abc import Callable
from typing import NamedTuple

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
    name: str, settings: Settings, registries: RegistriesConfig, files: DescriptorFiles, warn: Callable[[str], None]
) -> CredentialPlan:
    """As `find_credentials`, but the search ends at the first helper that would be run. Raises ConfigurationError."""

    def stop(helper: str, registry: str, origin: str) -> Credentials | None:
        raise _WouldRunError(CredentialPlan("helper", origin, registry, HELPER_PREFIX + helper))

    search, plan = Search(name, settings, files, stop, warn), CredentialPlan("none")
    try:
        found = search.run(registries.credential_helpers)
        if found is not None:
            kind = "token" if found.credentials.identity_token else "password"
            plan = CredentialPlan(kind, found.source, found.key)
    except _WouldRunError as would:
        plan = would.plan
    return plan._replace(files=tuple(search.files))


class _WouldRunError(Exception):
    """The search reached a helper that must not be run."""

    def __init__(self, plan: CredentialPlan) -> None:
        super().__init__(plan.helper)
        self.plan = plan

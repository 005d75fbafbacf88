# SPDX-License-Identifier: Apache-2.0
"""registries.conf: a reference becomes the ordered endpoints it is fetched from (registry.md 2.5 to 2.7).

Each file is validated alone, then laid over the files before it: a `[[registry]]` table replaces the earlier one of
the same prefix whole.
"""

from collections.abc import Callable
from typing import NamedTuple

from .. import log
from ..errors import CipError, ConfigurationError, ErrorCode, InvalidReferenceError, quote_own
from ..model.reference import DEFAULT_DOMAIN, DockerReference, parse_docker_reference
from ..settings import Settings
from .paths import ConfigurationFile, registries_files
from .registriesfile import Location, RegistryRule, parse_registries_file

HUB_HOST = "registry-1.docker.io"  # what answers for docker.io
FILE_HELPER = "containers-auth.json"  # in `credential-helpers`: the files of registry.md 3.2, not a program


class ConfiguredEndpoint(NamedTuple):
    """One location of an image.

    `reference` names the image there. `rule` says in words which part of `file` made the endpoint (empty `file`: none
    did). `insecure` is the file's own flag, before `--tls-verify`. `blocked`: a rule forbids this physical endpoint.
    `namespace`, where set, is sent with each request as the parameter `ns`, for a proxy that serves many registries.
    """

    reference: DockerReference
    rule: str
    file: str
    insecure: bool
    blocked: bool
    primary: bool
    namespace: str = ""

    @property
    def host(self) -> str:
        """What answers for it, perhaps with a port."""
        return HUB_HOST if self.reference.domain == DEFAULT_DOMAIN else self.reference.domain

    def is_insecure(self, tls_verify: bool | None) -> bool:
        """Whether certificates are not checked and plain HTTP is allowed; the option goes first (registry.md 5.2)."""
        return self.insecure if tls_verify is None else not tls_verify


class RegistriesConfig:
    """All of registries.conf. `files` are those read and those looked for; `rules` are sorted by prefix."""

    def __init__(
        self,
        rules: tuple[RegistryRule, ...] = (),
        credential_helpers: tuple[str, ...] = (FILE_HELPER,),
        files: tuple[ConfigurationFile, ...] = (),
    ) -> None:
        self.rules, self.credential_helpers, self.files = rules, credential_helpers, files

    def rule_for(self, reference: DockerReference) -> RegistryRule | None:
        """The rule with the longest prefix that matches the name of `reference`, without tag and digest."""
        matching = (rule for rule in self.rules if rule.match_length(reference.name) >= 0)
        return max(matching, key=lambda rule: len(rule.prefix), default=None)

    def places(self, reference: DockerReference) -> tuple[ConfiguredEndpoint, ...]:
        """Where `reference` is fetched from, in the order to be tried: mirrors, then the primary location.

        Raises CipError (registry-blocked) when the name itself is blocked, and ConfigurationError when a rule makes a
        text that is not a normal reference, even for a mirror: the file is wrong, whichever endpoint would have
        answered.
        """
        rule = self.rule_for(reference)
        if rule is not None and rule.blocked:
            raise CipError(
                f"{reference}: blocked by {rule.file}: [[registry]] with prefix {quote_own(rule.prefix)} "
                "says blocked = true",
                code=ErrorCode.REGISTRY_BLOCKED,
                host=reference.domain,
            )
        return self.candidates(reference)

    def candidates(self, reference: DockerReference) -> tuple[ConfiguredEndpoint, ...]:
        """As `places`, for a name that may be blocked."""
        rule = self.rule_for(reference)
        if rule is None:
            return (ConfiguredEndpoint(reference, "no [[registry]] matches: the name itself", "", False, False, True),)
        found = []
        for number, mirror in enumerate(rule.mirrors, 1):
            if mirror.serves(reference):
                what = f"mirror {number} of prefix {quote_own(rule.prefix)}"
                found.append(self._place(reference, rule, mirror.at, what, primary=False))
        what = (
            f"location of prefix {quote_own(rule.prefix)}" if rule.at.location else f"prefix {quote_own(rule.prefix)}"
        )
        found.append(self._place(reference, rule, rule.at, what, primary=True))
        return tuple(found)

    def _place(
        self, reference: DockerReference, rule: RegistryRule, at: Location, what: str, *, primary: bool
    ) -> ConfiguredEndpoint:
        physical = _rewrite(reference, rule, at.location, what)
        forbidding = self.rule_for(physical)
        blocked = forbidding is not None and forbidding.blocked
        rule_text = f"{what}, namespace {quote_own(at.namespace)}" if at.namespace else what
        return ConfiguredEndpoint(physical, rule_text, rule.file, at.insecure, blocked, primary, at.namespace)


def _rewrite(reference: DockerReference, rule: RegistryRule, location: str, what: str) -> DockerReference:
    """`location` instead of what the prefix matched; the result must be a reference in its normal form."""
    if not location:
        return reference
    text = location + str(reference)[rule.match_length(reference.name) :]
    try:
        physical = parse_docker_reference(text)
    except InvalidReferenceError as error:
        sentence = f"makes {quote_own(text)} of {reference}: {error.why}"
        raise ConfigurationError(f"{rule.file}: {what}", sentence) from error
    if str(physical) != text:
        message = f"makes {quote_own(text)} of {reference}: expected the full name {quote_own(str(physical))}"
        raise ConfigurationError(f"{rule.file}: {what}", message)
    return physical


def load_registries(settings: Settings, *, warn: Callable[[str], None] = log.warning) -> RegistriesConfig:
    """Read and merge the files of registries.conf (registry.md 2.2 to 2.5); `warn` is told what they say in vain.

    Raises ConfigurationError naming file and key: unreadable, malformed, contradictory or of the format before v2.
    """
    rules: dict[str, RegistryRule] = {}
    helpers: tuple[str, ...] = ()
    looked_for: list[ConfigurationFile] = []
    for layer in registries_files(settings):
        file, content = layer.read()
        looked_for.append(file)
        if content is None:
            continue
        found, named, warnings = parse_registries_file(file.path, content)
        rules.update(found)
        helpers = helpers if named is None else named
        for warning in warnings:
            warn(warning)
    return RegistriesConfig(
        rules=tuple(rules[prefix] for prefix in sorted(rules)),
        credential_helpers=helpers or (FILE_HELPER,),
        files=tuple(looked_for),
    )

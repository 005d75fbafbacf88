# SPDX-License-Identifier: Apache-2.0
"""How a reference resolves on this host, as far as files tell: no network is used and no helper is run.

One broken file does not hide what the others say: each part is read by itself, and what is wrong with it is told.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import NoReturn, TypeVar

from .. import rooms
from ..errors import CipError, ErrorCode, NotFoundError, PolicyRejectedError
from ..hostconfig.authfile import DescriptorFiles
from ..hostconfig.certsd import find_certificates
from ..hostconfig.machine import host_platforms
from ..hostconfig.paths import ConfigurationFile, is_present, policy_candidates, policy_path, read_configuration
from ..hostconfig.proxyenv import Proxy, choose_proxy
from ..hostconfig.registriesconf import ConfiguredEndpoint, RegistriesConfig, load_registries
from ..hostconfig.registriesd import BundleTrust, SignatureLocation, load_registries_d
from ..model.reference import (
    DockerReference,
    ImageIdentity,
    ImageReference,
    Transport,
    docker_identity,
    nameless_identity,
    parse_image_reference,
    path_identity,
)
from ..net.url import parse_origin
from ..settings import PolicySource, Settings
from ..sources.files import resolve_path
from ..trust.evaluation import select_requirements
from ..trust.policy import Policy, TrustTools, UnverifiedImage, accept_anything_policy, parse_policy, unmatched_scopes
from ..trust.signed.materials import Material
from .credentials import CredentialPlan, plan_credentials
from .view import EndpointView, Explanation, PolicyView, RequirementView

T = TypeVar("T")


def explain(text: str, settings: Settings) -> Explanation:
    """Resolve the image name `text` as far as files tell.

    A configuration that is broken does not raise: it is told in `errors`. Raises InvalidReferenceError,
    UnsupportedError, and UsageError for flags that contradict each other.
    """
    settings.credentials.explicit()
    return _Explainer(parse_image_reference(text), settings).run()


class _Explainer:
    """Collects what each part of the configuration says, and what is wrong with it. Each remark is kept once."""

    def __init__(self, reference: ImageReference, settings: Settings) -> None:
        self._reference = reference
        self._settings = settings
        self._files: dict[ConfigurationFile, None] = {}
        self._warnings: dict[str, None] = {}
        self._errors: dict[str, None] = {}
        self._refusals: list[str] = []
        self._missing = ""
        self._descriptor_files = DescriptorFiles()

    def run(self) -> Explanation:
        reference = self._reference
        identity = self._identity()
        policy = self._policy(identity)
        endpoints: tuple[EndpointView, ...] = ()
        signatures = bundles = None
        for source in self._settings.local_sources:
            self._try(partial(parse_image_reference, source))
        if reference.transport is Transport.DOCKER and reference.docker is not None:
            places, registries = self._places(reference.docker)
            endpoints = tuple(self._endpoint(place, reference.docker, registries) for place in places)
            first = next((place.reference for place in places if not place.blocked), reference.docker)
            needed = policy is not None and policy.asks_for_signatures()
            signatures, bundles = self._signatures(first, reference.docker, needed=needed)
            if bundles is not None and bundles.trusted_root and needed:
                self._require_key_file(bundles.trusted_root, f"{bundles.trusted_root_file}, sigstore-trusted-root")
        return Explanation(
            reference=str(reference),
            transport=str(reference.transport),
            identity=str(identity.docker or identity.identity),
            platforms=tuple(str(each) for each in host_platforms(self._settings.platform)),
            config_files=tuple(self._files),
            endpoints=endpoints,
            policy=policy,
            signatures=signatures,
            bundles=bundles,
            local_sources=self._settings.local_sources,
            warnings=tuple(self._warnings),
            errors=tuple(self._errors),
            verdict=self._verdict(endpoints, policy),
            offline=self._settings.offline,
        )

    def _warn(self, text: str) -> None:
        self._warnings[text] = None

    def _fault(self, text: str) -> None:
        self._errors[text] = None

    def _note(self, *files: ConfigurationFile) -> None:
        self._files.update(dict.fromkeys(files))

    def _try(self, read: Callable[[], T]) -> T | None:
        """What `read` returns, or None when the configuration is broken, which is remembered."""
        try:
            return read()
        except CipError as error:
            self._fault(str(error))
            return None

    # --- names, and what the policy says of them ---

    def _identity(self) -> ImageIdentity:
        """Under which names the policy may speak of the image."""
        reference = self._reference
        transport = reference.transport
        if transport in (Transport.DOCKER, Transport.DOCKER_DAEMON) and reference.docker is not None:
            return docker_identity(transport, reference.docker)
        if transport in (Transport.OCI, Transport.OCI_ARCHIVE, Transport.DIR):
            resolved = self._try(lambda: resolve_path(reference))
            if resolved is not None:
                return path_identity(transport, resolved)
        if transport is Transport.CONTAINERS_STORAGE:
            return self._stored_identity() or nameless_identity(transport)
        return nameless_identity(transport, reference.docker)

    def _stored_identity(self) -> ImageIdentity | None:
        """A store is read to know an image's name; nothing is written there, and nobody else is asked."""
        try:
            with closing(rooms.open_storage(self._reference, self._settings)) as source:
                return source.identity
        except NotFoundError as error:
            self._missing = str(error)
        except CipError as error:
            self._fault(str(error))
        return None

    def _policy(self, identity: ImageIdentity) -> PolicyView | None:
        policy = self._try(self._load_policy)
        if policy is None:
            return None
        scope, applied = select_requirements(policy, identity)
        requirements = tuple(
            RequirementView(each.kind, each.verifies, tuple(_key_names(each)), tuple(_signers(each)))
            for each in applied
        )
        where = f"{policy.where}, scope {scope}"
        for requirement, view in zip(applied, requirements, strict=True):
            if requirement.kind == "reject":
                self._refusals.append(f"{where}, rejects every image")
            elif not requirement.verifies:  # asks for no signature, so nothing but what it says now
                try:
                    requirement.check(UnverifiedImage(identity, b""), TrustTools(_unasked, _unasked, time.time), [])
                except PolicyRejectedError as error:
                    self._refusals.append(f"{where}: {error}")
            for key in view.keys:
                self._require_key_file(key, where)
        if self._settings.policy.require_signed and not any(each.verifies for each in requirements):
            self._refusals.append(f"--require-signed is given, and {where}, asks for no signature")
        return PolicyView(policy.where, policy.sha256, scope, str(identity.transport), requirements)

    def _require_key_file(self, key: str, where: str) -> None:
        if os.path.isabs(key) and self._try(lambda: is_present(key)) is False:
            self._fault(f"{where}: the file {key} does not exist")

    def _load_policy(self) -> Policy:
        if self._settings.policy.source is PolicySource.ACCEPT_ANYTHING:
            return accept_anything_policy()
        found = ""
        try:
            found = policy_path(self._settings)
        finally:
            for candidate in policy_candidates(self._settings):
                self._note(ConfigurationFile(candidate, "policy", candidate == found))
                if candidate == found:
                    break
        data = read_configuration(found, code=ErrorCode.POLICY_INVALID)
        policy = parse_policy(data, found, self._settings.policy.source)
        for remark in unmatched_scopes(policy):
            self._warn(remark)
        return policy

    # --- places ---

    def _places(self, reference: DockerReference) -> tuple[tuple[ConfiguredEndpoint, ...], RegistriesConfig]:
        registries = self._try(lambda: load_registries(self._settings, warn=self._warn))
        if registries is None:
            return (), RegistriesConfig()
        self._note(*registries.files)
        try:
            return registries.places(reference), registries
        except CipError as error:
            if error.code is not ErrorCode.REGISTRY_BLOCKED:
                self._fault(str(error))
                return (), registries
            self._refusals.append(str(error))
        return self._try(lambda: registries.candidates(reference)) or (), registries

    def _endpoint(
        self, place: ConfiguredEndpoint, logical: DockerReference, registries: RegistriesConfig
    ) -> EndpointView:
        insecure, host = place.is_insecure(self._settings.tls_verify), place.host
        name = place.reference.domain
        certificates = self._try(lambda: find_certificates(name, self._settings, warn=self._warn))
        if certificates is not None:
            self._note(*certificates.looked_at)
        if insecure:
            self._warn(f"{name}: its certificate is not checked, and plain http is allowed")
            self._try(lambda: self._proxy("http", host))
        elif looked_at := missing_authorities():
            self._warn(
                f"this system has no certificate authorities, looked for {looked_at}: only those of certs.d and of "
                "--cert-dir are trusted; the package ca-certificates brings the usual ones"
            )
        return EndpointView(
            location=str(place.reference),
            host=host,
            rule=place.rule,
            file=place.file,
            insecure=insecure,
            blocked=place.blocked,
            credentials=self._try(lambda: self._credentials(place, logical, registries)),
            certificates=certificates,
            proxy=self._try(lambda: self._proxy("https", host)),
        )

    def _proxy(self, scheme: str, host: str) -> Proxy | None:
        origin = parse_origin(scheme, host)
        proxy = choose_proxy(self._settings.environment, origin.scheme, origin.host, origin.port)
        if proxy is not None:
            self._warn(
                f"{host}: reached via proxy {proxy.address}, which looks up names itself: where it is redirected to "
                "can be judged by names and literal addresses only"
            )
        return proxy

    def _credentials(
        self, place: ConfiguredEndpoint, logical: DockerReference, registries: RegistriesConfig
    ) -> CredentialPlan:
        """Flags go to the host they were given for, `--no-creds` holds everywhere; as `registry.endpoints` has it."""
        options = self._settings.credentials
        at_home = place.reference.domain == logical.domain
        if options.no_creds and not (options.registry_token and at_home):
            return CredentialPlan("anonymous", "--no-creds")
        if at_home and (options.explicit() is not None or options.registry_token):
            given = "--registry-token" if options.registry_token else "--creds" if options.creds else "--username"
            return CredentialPlan("flags", given)
        plan = plan_credentials(place.reference.name, self._settings, registries, self._descriptor_files, self._warn)
        self._note(*plan.files)
        return plan

    # --- signatures ---

    def _signatures(
        self, reference: DockerReference, requested: DockerReference, *, needed: bool
    ) -> tuple[SignatureLocation | None, BundleTrust | None]:
        """What registries.d says of the first place, and of bundles under the name that was asked for.

        Where no requirement asks, a broken file stops nothing.
        """
        try:
            stores = load_registries_d(self._settings, warn=self._warn)
            self._note(*stores.files)
            return stores.place(reference), stores.bundle_trust(requested)
        except CipError as error:
            if needed:
                self._fault(str(error))
            else:
                self._warn(f"{error} (this image is not affected: its policy asks for no signature)")
            return None, None

    # --- the sum ---

    def _verdict(self, endpoints: Sequence[EndpointView], policy: PolicyView | None) -> str:
        if self._errors:
            return f"cannot be opened: {next(iter(self._errors))}"
        if self._refusals:
            return f"refused: {self._refusals[0]}"
        if self._missing:
            return f"not found: {self._missing}"
        usable = [each.location for each in endpoints if not each.blocked]
        if endpoints and not usable:
            return f"refused: every place is blocked by {endpoints[0].file}"
        checked = "signatures are" if policy is not None and policy.asks_for_signatures() else "no signature is"
        return f"would be fetched {self._origin_text(usable)}; {checked} checked"

    def _origin_text(self, usable: Sequence[str]) -> str:
        if not usable:
            looked = self._reference.transport is Transport.CONTAINERS_STORAGE  # in the store, for its name
            return "from this machine" if looked else "from this machine, if it is there"
        if self._settings.offline:
            return f"from {', '.join(self._settings.local_sources) or 'nowhere'}, without network (--offline)"
        others = len(usable) - 1
        more = f", or from {others} other place{'s' if others > 1 else ''}" if others else ""
        return f"from {usable[0]}{more}"


def _unasked(*what: object) -> NoReturn:
    raise AssertionError(f"an explanation asks nobody: {what}")


def _signers(value: object) -> Iterator[str]:
    """Whom a certificate must be for, as the policy says it: the members of every identity below a requirement."""
    if isinstance(value, tuple):
        fields: Mapping[str, object] = value._asdict() if hasattr(value, "_asdict") else {}
        if "oidc_issuer" in fields:
            yield from (f"{name.replace('_', ' ')} {text}" for name, text in fields.items() if text)
        for each in value:
            yield from _signers(each)


def _key_names(value: object) -> Iterator[str]:
    """Every key file and inline key below a requirement, which is a tree of tuples."""
    if isinstance(value, Material):
        yield value.path or value.name
    elif isinstance(value, tuple):
        for each in value:
            yield from _key_names(each)


def missing_authorities() -> str:
    """Where the system's certificate authorities were looked for, when there is none at all; empty when there are some.

    What the files hold is not looked at.
    """
    paths = ssl.get_default_verify_paths()
    with suppress(OSError):
        if (paths.cafile and os.path.getsize(paths.cafile)) or (paths.capath and os.listdir(paths.capath)):
            return ""
    wanted = (
        os.environ.get(paths.openssl_cafile_env) or paths.openssl_cafile,
        os.environ.get(paths.openssl_capath_env) or paths.openssl_capath,
    )
    return ", ".join(wanted)

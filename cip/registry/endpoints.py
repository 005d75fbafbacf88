# SPDX-License-Identifier: Apache-2.0
"""The ordered endpoints of one image: where each is, how it is entered, and whom we trust there.

Nothing is shared between two endpoints but connections: credentials, tokens and challenges are found by the physical
name of each (registry.md S8), and what the user gave for a registry goes to that host and port alone (registry.md S7).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .. import log
from ..content import MANIFEST_LIMIT
from ..errors import CipError, ErrorCode, InvalidInputError, Phase, RegistryError, SourceError, quote, redacted
from ..hostconfig.authfile import find_credentials
from ..hostconfig.certsd import find_certificates
from ..hostconfig.registriesconf import ConfiguredEndpoint, RegistriesConfig
from ..model import mediatype
from ..model.reference import DockerReference
from ..net.limits import Limits
from ..net.opener import Opener, Redirects, Request
from ..net.response import Response
from ..net.tls import NotTlsError, TlsIdentity
from ..net.url import Origin, Url, encode_form, parse_origin
from ..settings import Credentials, Settings
from ..sources.base import RawManifest
from .authorization import Access, Authorization

if TYPE_CHECKING:
    from ..net.connection import Route
    from .answers import Complaint
    from .session import RegistrySession

_API_FIELDS = {"Docker-Distribution-Api-Version": "registry/2.0"}
# what an access portal or a broken proxy sends instead of a manifest, with status 200
_NEVER_A_MANIFEST = frozenset({"text/html", "application/xhtml+xml"})
_KNOWN = _NEVER_A_MANIFEST | mediatype.MANIFESTS | mediatype.INDEXES


class Endpoint:
    """One place of one image; safe from any thread. Configuration is read when it is first asked."""

    def __init__(
        self,
        place: ConfiguredEndpoint,
        logical: DockerReference,
        settings: Settings,
        registries: RegistriesConfig,
        session: RegistrySession,
    ) -> None:
        self.place = place
        self.reference = place.reference
        self.name = place.reference.domain
        self._logical = logical
        self._settings = settings
        self._registries = registries
        self._session = session
        self._lock = threading.Lock()
        self._prepared: tuple[Opener, Authorization] | None = None
        self.insecure = place.is_insecure(settings.tls_verify)
        self._scheme: str | None = None if self.insecure else "https"
        self._asked_for_challenge = False
        self.keeps_signatures: bool | None = None  # itself, beside its images; None until it was asked

    def get(self, path: str, limits: Limits, fields: Mapping[str, str] | None = None) -> Response:
        """The answer to GET of `path` below `/v2/<repository>/`, authenticated when it has to be; any status."""
        return self.get_path(f"/v2/{self.reference.path}/{path}", limits, fields)

    def get_path(self, path: str, limits: Limits, fields: Mapping[str, str] | None = None, shown: str = "") -> Response:
        """The same for a whole path, for messages `shown`. The caller closes the answer.

        Raises SourceError, ConfigurationError.
        """
        wanted = {**_API_FIELDS, **(fields or {})}
        response = self._send(path, wanted, limits, challenged=True, shown=shown)
        _, authorization = self._prepare()
        if response.status not in (403, 404) or not authorization.waits or not self.is_here(response):
            return response
        if self._is_challenged(limits, authorization):
            response.close()
            return self._send(path, wanted, limits, challenged=True, shown=shown)
        response.note = f"; the credentials of {authorization.access.source} were never asked for"
        return response

    def _is_challenged(self, limits: Limits, authorization: Authorization) -> bool:
        """Whether `/v2/` asks for credentials, once: some registries hide what is private behind 403 or 404."""
        with self._lock:
            asked, self._asked_for_challenge = self._asked_for_challenge, True
        if asked:
            return False
        response = self.get_base(limits)
        response.close()
        # what the registry redirects to is told nothing, here as anywhere
        return self.is_here(response) and response.status == 401 and authorization.learn(response.headers) is not None

    def route(self) -> Route:
        """How its first request gets there. Raises ConfigurationError."""
        return self._session.network.route_to(self._origin(), self._identity())

    def opener(self) -> Opener:
        """Sends requests under this endpoint's TLS identity."""
        return self._prepare()[0]

    def get_base(self, limits: Limits) -> Response:
        """The answer to GET of `/v2/`, as nobody; the caller closes it. Raises SourceError, ConfigurationError."""
        return self._send("/v2/", _API_FIELDS, limits, challenged=False)

    def is_here(self, response: Response) -> bool:
        """Whether the registry itself answered, and not an endpoint that it redirected to."""
        return response.origin.is_same(self._origin())

    def refusal(
        self,
        response: Response,
        what: str,
        missing: ErrorCode = ErrorCode.REGISTRY_ERROR,
        complaint: Complaint | None = None,
    ) -> CipError:
        """The error for an answer that is no success, with how access was tried; closes the answer."""
        from .answers import refusal

        # where another answered, to whom the registry had redirected, nothing was tried
        access = self._prepare()[1].describe() if self.is_here(response) else None
        return refusal(response, what, missing, self._session.clock, access=access, complaint=complaint)

    def _origin(self, scheme: str = "") -> Origin:
        try:
            return parse_origin(scheme or self._scheme or "https", self.place.host)
        except InvalidInputError as error:
            raise SourceError(f"{self.reference}: {error}", code=ErrorCode.REFERENCE_INVALID, host=self.name) from error

    def _send(
        self, path: str, fields: Mapping[str, str], limits: Limits, *, challenged: bool, shown: str = ""
    ) -> Response:
        """Ask over the scheme that the endpoint is known to speak, or find it out (decisions.md section 2).

        Nothing secret can be sent while it is unknown: an authorization needs a challenge, and that an answer.
        """
        opener = self.opener()
        origin = self._origin()
        if self.place.namespace:  # distribution-spec, "Registry Proxying"
            path += ("&" if "?" in path else "?") + encode_form([("ns", self.place.namespace)])
        request = Request(Url(origin, path, shown), fields, challenged=challenged)
        known = self._scheme is not None  # now: another thread may find it out meanwhile
        try:
            return opener.ask(request, limits)
        except SourceError as error:
            if isinstance(error, NotTlsError) and not self.insecure and error.host == origin.address:
                allowed = "for plain http set insecure = true for it in registries.conf, or give --tls-verify=false"
                raise NotTlsError(f"{error}; {allowed}", **error.facts()) from error
            plain = self._origin("http")
            by_proxy = self._session.network.choose_proxy(plain) is not None
            if known or request.received or not _may_speak_plain(error, by_proxy=by_proxy):
                raise
            request = Request(Url(plain, path, shown), fields, challenged=challenged)  # whose scheme is told below
            return opener.ask(request, limits)
        finally:
            if self._scheme is None and request.received:
                self._settle(request.type)

    def _settle(self, scheme: str) -> None:
        with self._lock:
            first = self._scheme is None
            self._scheme = scheme
        if first:
            how = "plain http" if scheme == "http" else "https without checking its certificate"
            log.warning("%s: spoken to over %s", self.name, how)

    def _prepare(self) -> tuple[Opener, Authorization]:
        """Read certificates and credentials, once. Raises ConfigurationError, SourceError."""
        with self._lock:
            if self._prepared is None:
                if self.place.blocked:
                    why = f"{self.reference}: blocked by registries.conf"
                    raise CipError(why, code=ErrorCode.REGISTRY_BLOCKED, host=self.name)
                identity = self._identity()
                access = self._find_access()
                self._session.secrets.keep(*access.credentials.secrets(), access.registry_token)
                authorization = Authorization(access, self.reference.path, self._session.clock, self._session.events)
                self._prepared = Opener(self._session.network, identity, Redirects(), authorization), authorization
            return self._prepared

    def _identity(self) -> TlsIdentity:
        """Whom we trust there, and as whom we speak. Raises ConfigurationError."""
        certificates = find_certificates(self.reference.domain, self._settings)
        searched = tuple(file.path for file in certificates.looked_at)
        return TlsIdentity(not self.insecure, certificates.authorities, certificates.pairs, searched)

    def _find_access(self) -> Access:
        """Flags for the host that they were given for; `--no-creds` everywhere; else files and helpers."""
        options = self._settings.credentials
        explicit = options.explicit()
        at_home = self.reference.domain == self._logical.domain
        token = (options.registry_token or "") if at_home else ""
        if explicit is not None and (at_home or options.no_creds):
            source = "" if options.no_creds else "command line"
            said = "--no-creds: no credentials" if options.no_creds else "credentials from the command line"
            return Access(explicit, token, source, said)
        if token:
            return Access(Credentials(), token, "command line", "token from the command line")
        found = find_credentials(
            self.reference.name,
            settings=self._settings,
            registries=self._registries,
            programs=self._session.programs,
            fd_cache=self._session.descriptor_files,
        )
        looked = ", ".join(found.looked_at) or "nowhere"
        matched = f"key {found.key!r} of {found.source}" if found.source else "no credentials found, so anonymous"
        return Access(found.credentials, "", found.source, f"{matched} (looked at {looked})")


def _may_speak_plain(error: SourceError, *, by_proxy: bool) -> bool:
    """Whether https found something that is no TLS, or a port that refuses.

    Where a proxy takes plain http, whatever keeps us from TLS says nothing of that: the name may be known there alone.
    """
    if isinstance(error, NotTlsError) or (by_proxy and error.phase in (Phase.DNS, Phase.CONNECT, Phase.PROXY)):
        return True
    if error.phase is Phase.PROXY:
        return error.http_status is not None and error.http_status >= 500
    return error.code is ErrorCode.CONNECTION_REFUSED


def read_manifest(endpoint: Endpoint, response: Response, what: str) -> RawManifest:
    """The manifest in an answer; closes the answer. Raises NotFoundError (image-not-found), SourceError."""
    if response.status != 200:
        raise endpoint.refusal(response, what, ErrorCode.IMAGE_NOT_FOUND)
    response.require_uncompressed()
    media_type = media_type_of(response)
    if media_type in _NEVER_A_MANIFEST:
        response.close()
        raise RegistryError.at(endpoint.name, f"{what}: expected a manifest, found {quote(media_type)}")
    return RawManifest(response.read_all(MANIFEST_LIMIT, f"{endpoint.name}: {what}"), media_type)


def media_type_of(response: Response) -> str:
    """The Content-Type without parameters, in lower case; empty when there is none (registry.md 6.1)."""
    written = (response.headers.get("content-type") or "").partition(";")[0].strip()
    kind = written.lower()
    return kind if kind in _KNOWN else redacted(written).lower()  # in lower case base64 is not known any more

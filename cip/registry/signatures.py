# SPDX-License-Identifier: Apache-2.0
"""Where signatures of a registry's images are fetched (signatures.md 4.2 and 5.1, registry.md section 7).

Either what the registry itself keeps, if it says that it does, or the lookaside; and in addition the attachments of
sigstore, if registries.d says so. A list that cannot be had whole is an error: nothing missing may look like nothing
there. What the signatures are worth is decided elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TypeVar
from urllib.parse import unquote

from .. import log
from ..content import BlobAccess, read_blob
from ..errors import (
    CipError,
    ConfigurationError,
    ErrorCode,
    InvalidInputError,
    MissingDependencyError,
    Phase,
    RegistryError,
    SignatureError,
    quote,
    strip_url,
)
from ..hostconfig.paths import read_if_present
from ..hostconfig.registriesd import load_registries_d
from ..model import mediatype
from ..model.descriptor import Descriptor, Digest
from ..model.jsontree import parse_json
from ..model.manifest import Manifest, parse_manifest
from ..model.signature import (
    SIGNATURE_LIMIT,
    RawSignature,
    SignatureAllowance,
    SigstoreSignature,
    SimpleSignature,
    parse_signature_blob,
)
from ..net.limits import Limits
from ..net.opener import Opener, Redirects, Request
from ..net.response import Response
from ..net.url import Url, basic_authorization, parse_url
from ..settings import Credentials, Settings
from .answers import Complaint, read_complaint, refusal
from .blob import RegistryBlob
from .endpoints import Endpoint, media_type_of
from .failover import ask_endpoints
from .session import RegistrySession

_NOT_ABSENCE = frozenset({"NAME_UNKNOWN", "UNAUTHORIZED", "DENIED"})  # of the repository, or of our access to it
LOOKASIDE_LIMIT = 127  # signatures of one manifest, in the lookaside or kept by the registry
ATTACHMENTS_LIMIT = 128  # layers of an attachment manifest
LIST_LIMIT = 4 * 1024 * 1024  # bytes of the list that a registry keeps itself
_USERINFO = re.compile(r"(https?://)([^/?#]*)@(.*)", re.ASCII | re.DOTALL)
T = TypeVar("T")
_Reader = Callable[[str, bool], tuple[str, bytes | None]]  # (name, whether one was there before it) → origin, content


def fetch_signatures(
    endpoint: Endpoint, digest: Digest, settings: Settings, session: RegistrySession, limits: Limits
) -> Sequence[RawSignature]:
    """All signatures of the manifest `digest` for the physical endpoint `endpoint`.

    Raises SignatureError (reason `fetch`), ConfigurationError and MissingDependencyError for registries.d.
    """
    session.signatures_asked_for = True
    place = load_registries_d(settings).place(endpoint.reference)
    fetch = _Fetch(endpoint, digest, session, limits, settings.tls_verify)
    try:
        found = list(fetch.from_registry() if fetch.registry_keeps_them() else fetch.from_lookaside(place.lookaside))
        if place.attachments:
            found += fetch.attached()
    except (SignatureError, ConfigurationError, MissingDependencyError):
        raise
    except CipError as error:
        why = f"signatures of {endpoint.reference.name}@{digest}: {error}"
        raise SignatureError(why, **error.facts(phase=Phase.SIGNATURE, reason="fetch")) from error
    return tuple(found)


def locations_of_signatures(endpoint: Endpoint, settings: Settings) -> tuple[str, ...]:
    """Where `fetch_signatures` looks, for people: without user information, query or network.

    A registry that keeps signatures itself is asked instead of the lookaside. Raises as `load_registries_d` does.
    """
    place = load_registries_d(settings).place(endpoint.reference)
    if endpoint.keeps_signatures:
        found = [f"signatures that {endpoint.name} keeps"]
    else:
        found = [f"lookaside {strip_url(place.lookaside)}"]
    if place.attachments:
        found.append(f"sigstore attachments of {endpoint.reference.name}")
    return tuple(found)


def ask_alone(endpoint: Endpoint, ask: Callable[[Limits], T], session: RegistrySession, limits: Limits) -> T:
    """What this endpoint answers to `ask`, with all repeats. Raises what `ask` raises."""
    return ask_endpoints((endpoint,), lambda _, mine: ask(mine), session.repeats, limits, Phase.SIGNATURE)[1]


def ask_for_signatures(endpoint: Endpoint, limits: Limits) -> bool:
    """Whether the registry keeps signatures itself, which it is asked once (registry.md 4.1). Raises SourceError."""
    if endpoint.keeps_signatures is None:
        response = endpoint.get_base(limits)
        said = response.headers.get("x-registry-supports-signatures")
        status, keeps = response.status, said == "1" and endpoint.is_here(response)
        response.discard()
        if status not in (200, 401):
            why = f"expected status 200 or 401 from /v2/, found {status}"
            raise RegistryError.at(endpoint.name, why, http_status=status)
        endpoint.keeps_signatures = keeps
    return endpoint.keeps_signatures


def has_attached(endpoint: Endpoint, response: Response, what: str) -> bool:
    """Whether an answer has the attachment `what`; closes one that says that there is none. Raises CipError."""
    if response.status == 200:
        return True
    complaint = read_complaint(response)
    if means_no_attachment(complaint, response.status):
        return False
    raise endpoint.refusal(response, what, ErrorCode.IMAGE_NOT_FOUND, complaint)


def means_no_attachment(complaint: Complaint, status: int) -> bool:
    """Whether there is no attachment: the status decides, but for codes that say more than "none there".

    A registry may speak of its own codes (Harbor's `NOT_FOUND`) or of none: they say nothing (decisions.md 10).
    """
    return complaint.code == "MANIFEST_UNKNOWN" or (status == 404 and complaint.code not in _NOT_ABSENCE)


class _Fetch:
    """The signatures of one manifest at one endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        digest: Digest,
        session: RegistrySession,
        limits: Limits,
        tls_verify: bool | None = None,
    ) -> None:
        self._tls_verify = tls_verify
        self._allowance = SignatureAllowance()
        self._endpoint = endpoint
        self._digest = digest
        self._session = session
        self._limits = limits

    def registry_keeps_them(self) -> bool:
        return self._repeat(lambda limits: ask_for_signatures(self._endpoint, limits))

    def from_registry(self) -> list[RawSignature]:
        """The extension of OpenShift's registry; entries of another kind are skipped."""
        path = f"/extensions/v2/{self._endpoint.reference.path}/signatures/{self._digest}"
        where = f"{self._endpoint.name}: signature list"

        def ask(limits: Limits) -> bytes:
            response = self._endpoint.get_path(path, limits)
            if response.status != 200:
                raise self._endpoint.refusal(response, "signature list")
            response.require_uncompressed()
            return response.read_all(LIST_LIMIT, where)

        root = parse_json(self._repeat(ask), where)
        root.require_exact_case(("signatures",))
        found: list[RawSignature] = []
        for entry in root.array("signatures"):
            entry.require_exact_case(("schemaVersion", "name", "type", "content"))
            version = entry.get("schemaVersion")
            try:
                message = base64.b64decode(entry.text("content"), validate=True)
            except (binascii.Error, ValueError) as error:
                raise _unreadable(where, "content: expected base64") from error
            entry.text("name")
            if (version.as_int() if version is not None else 0, entry.text("type")) != (2, "atomic"):
                continue  # what is read of it had to be well-formed all the same
            if len(found) == LOOKASIDE_LIMIT:  # each costs a run of gpgv
                raise _unreadable(where, f"more than {LOOKASIDE_LIMIT} signatures")
            found.append(SimpleSignature(message, f"{self._endpoint.name} (registry extension)"))
        return found

    def from_lookaside(self, base: str) -> list[RawSignature]:
        """signature-1, signature-2, … up to the first that does not exist.

        Some object stores say 403 for what does not exist. Behind a signature that could be had it ends the list.
        """
        directory = f"{self._endpoint.reference.path}@{self._digest.algorithm}={self._digest.encoded}"
        read = self._file_reader(base) if base.startswith("file:") else self._url_reader(base)
        found: list[RawSignature] = []
        for number in range(1, LOOKASIDE_LIMIT + 2):
            origin, blob = read(f"{directory}/signature-{number}", bool(found))
            if blob is None:
                break
            if number > LOOKASIDE_LIMIT:
                raise _unreadable(directory, f"more than {LOOKASIDE_LIMIT} signatures")
            self._allowance.take(len(blob), origin)
            found.append(parse_signature_blob(blob, origin))
        return found

    def attached(self) -> list[RawSignature]:
        """The layers of the manifest that sigstore tags with the digest."""
        tag = f"{self._digest.algorithm}-{self._digest.encoded}.sig"
        where = f"{self._endpoint.name}: attached signatures {tag}"

        def ask(limits: Limits) -> bytes | None:
            response = self._endpoint.get(f"manifests/{tag}", limits, {"Accept": mediatype.OCI_MANIFEST})
            if not has_attached(self._endpoint, response, where):
                return None
            response.require_uncompressed()
            announced = media_type_of(response)
            if announced != mediatype.OCI_MANIFEST:
                response.close()
                raise _unreadable(where, f"expected {mediatype.OCI_MANIFEST}, found {quote(announced)}")
            return response.read_all(SIGNATURE_LIMIT, where)

        data = self._repeat(ask)
        if data is None:
            return []
        manifest = parse_manifest(data, mediatype.OCI_MANIFEST, where)
        if not isinstance(manifest, Manifest):
            raise _unreadable(where, "expected a manifest, found an index")
        if len(manifest.layers) > ATTACHMENTS_LIMIT:
            raise _unreadable(where, f"more than {ATTACHMENTS_LIMIT} signatures")
        return [self._attachment(layer, f"{self._endpoint.name} (attached as {tag})") for layer in manifest.layers]

    def _attachment(self, layer: Descriptor, origin: str) -> RawSignature:
        self._allowance.take(layer.size, origin)
        until = self._limits.deadline
        payload = read_signature_blob(layer, self._endpoint, self._session, until, SIGNATURE_LIMIT, origin)
        return SigstoreSignature(layer.media_type, payload, layer.annotations, origin)

    def _file_reader(self, base: str) -> _Reader:
        root = unquote(base.removeprefix("file://").partition("?")[0].partition("#")[0])
        if not root.startswith("/"):
            host, _, root = root.partition("/")
            if host != "localhost":
                why = f"expected a path of this host, found host {quote(host)}"
                raise ConfigurationError("registries.d: lookaside", why)
            root = f"/{root}"

        def read(name: str, behind_one: bool) -> tuple[str, bytes | None]:
            path = f"{root}/{name}"
            try:
                return path, read_if_present(path, SIGNATURE_LIMIT)
            except ConfigurationError as error:
                raise _unreadable(path, str(error)) from error

        return read

    def _url_reader(self, base: str) -> _Reader:
        authorization = ""
        private = _USERINFO.fullmatch(base)
        if private is not None:
            written = Credentials(*private[2].partition(":")[::2])
            credentials = Credentials(*map(unquote, written))
            authorization = basic_authorization(credentials)
            self._session.secrets.keep(*credentials.secrets(), *written.secrets())
            base = private[1] + private[3]
        try:
            root = parse_url(base)
        except InvalidInputError as error:
            raise ConfigurationError("registries.d: lookaside", str(error)) from error
        opener = self._endpoint.opener()
        if authorization and self._tls_verify is None and root.origin.tunnel != self._endpoint.route().origin.tunnel:
            # that registries.conf calls the registry insecure says nothing of another host, which is told a password
            opener = Opener(opener.network, opener.identity._replace(verify=True), Redirects())
        directory, mark, query = root.target.partition("?")
        self._session.secrets.keep_query(query)
        if directory == "/" and not base.partition("?")[0].endswith("/"):
            directory = ""

        def read(name: str, behind_one: bool) -> tuple[str, bytes | None]:
            url = Url(root.origin, f"{directory}/{name}{mark}{query}")
            request = Request(url, authorization=authorization)
            return str(url), self._repeat(lambda limits: self._get(opener, request, str(url), limits, behind_one))

        return read

    def _get(self, opener: Opener, request: Request, where: str, limits: Limits, behind_one: bool) -> bytes | None:
        response = opener.ask(request, limits)
        if response.status == 404 or (response.status == 403 and behind_one):
            response.close()
            if response.status == 403:
                log.warning("signature %s: 403 Forbidden behind other signatures, taken for the end of the list", where)
            return None
        if response.status != 200:
            raise refusal(response, f"signature {where}", ErrorCode.REGISTRY_ERROR, limits.clock)
        response.require_uncompressed()
        return response.read_all(SIGNATURE_LIMIT, f"signature {where}")

    def _repeat(self, ask: Callable[[Limits], T]) -> T:
        """`ask` with the repeats of any other document."""
        return ask_alone(self._endpoint, ask, self._session, self._limits)


def _unreadable(where: str, why: str) -> SignatureError:
    return SignatureError(f"{where}: {why}", phase=Phase.SIGNATURE, reason="fetch")


def read_signature_blob(
    descriptor: Descriptor, endpoint: Endpoint, session: RegistrySession, until: float, limit: int, what: str
) -> bytes:
    """A blob of at most `limit` bytes that `endpoint` has, verified, before the time `until`.

    Raises ContentMismatchError, InvalidDocumentError (limit-exceeded), SourceError.
    """
    with closing(RegistryBlob(descriptor, BlobAccess.VERIFIED, (endpoint,), session, signature_until=until)) as blob:
        return read_blob(blob, descriptor, limit, what)

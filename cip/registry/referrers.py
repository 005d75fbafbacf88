# SPDX-License-Identifier: Apache-2.0
"""What refers to a registry's image: the referrers API, or the tag that stands in for it (bundles.md 1.2, 1.3).

The endpoint that served the manifest is asked first; only where it has neither the API nor the tag, the next one is. A
list that cannot be had whole is an error: nothing missing may look like nothing there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from .. import rooms
from ..errors import CipError, ErrorCode, InvalidDocumentError, InvalidInputError, RegistryError, quote
from ..hostconfig.registriesd import load_registries_d
from ..model import mediatype
from ..model.descriptor import Descriptor, Digest, digest_of
from ..model.referrers import ENTRY_LIMIT, LIST_LIMIT, Referrer, fallback_tag, parse_referrers, too_many
from ..net.limits import Limits
from ..net.response import Response
from ..net.url import Url, join_url
from ..settings import Settings
from ..sources.base import BlobAccess
from ..sources.referring import ReferrerList
from .blob import RegistryBlob
from .endpoints import Endpoint, media_type_of, read_manifest
from .session import RegistrySession
from .signatures import ask_alone, has_attached, read_signature_blob

PAGE_LIMIT = 64  # pages of one list
PAGES_LIMIT = 16 * 1024 * 1024  # bytes of all of them, whose entries are in memory together
SHOWN_DIGITS = 12  # of a tag, in a sentence
_NO_API = frozenset({400, 404, 405, 406, 501})  # of the first page; distribution-spec demands 404 alone
_ACCEPT = {"Accept": mediatype.OCI_INDEX}
# `<` in no token, and nothing tried twice: else a head full of it takes the square of its length
_LINK = re.compile(r"<([^<>]*)>((?:\s*;\s*[^\s;,=\"<>]++(?:\s*=\s*(?:\"[^\"]*\"|[^\s;,\"<>]++))?+)*+)\s*(?:,|$)")
_NEXT = re.compile(r";\s*rel\s*=\s*(?:\"(?:[^\"]*\s)?next(?:\s[^\"]*)?\"|next(?=[\s;]|$))", re.IGNORECASE)
T = TypeVar("T")


def next_links(fields: Sequence[str]) -> set[str]:
    """What the `Link` fields of an answer name as the next page (RFC 8288)."""
    return {link[1] for field in fields for link in _LINK.finditer(field) if _NEXT.search(link[2])}


class RegistryReferrers:
    """What refers to one image at its endpoints; safe from any thread."""

    def __init__(
        self,
        endpoints: Callable[[], Sequence[Endpoint]],
        settings: Settings,
        session: RegistrySession,
        limits: Callable[[], Limits],
        opening: Callable[[], Limits],
    ) -> None:
        """`endpoints` gives their present order; `opening` the limits while the image is being opened."""
        self._endpoints = endpoints
        self._settings = settings
        self._session = session
        self._limits = limits
        self._opening = opening
        self._searched: dict[str, None] = {}  # in their order

    def bundles(self, digest: Digest, *, attached: bool) -> ReferrerList | None:
        """The list to look for bundles in; None where configuration has none looked for (bundles.md 1.1).

        `attached` tells that there are sigstore signatures of another form. Raises as `referrers`, and
        ConfigurationError, MissingDependencyError for registries.d.
        """
        stores = load_registries_d(self._settings)
        wanted = []
        for endpoint in self._endpoints():
            place = stores.place(endpoint.reference)
            if place.bundles if place.bundles is not None else place.attachments and not attached:
                wanted.append(endpoint)
        return self._search(wanted, digest, self._opening) if wanted else None

    def bundle_locations(self) -> Sequence[str]:
        """Where `bundles` has looked, for people."""
        return tuple(self._searched)

    def referrers(self, digest: Digest) -> ReferrerList:
        """The list of the first place that has one, else an empty one. Raises SourceError, InvalidDocumentError."""
        return self._search(self._endpoints(), digest, self._limits)

    def _search(self, endpoints: Sequence[Endpoint], digest: Digest, limits: Callable[[], Limits]) -> ReferrerList:
        whole = limits().until(self._session.clock.monotonic() + self._settings.times.opening)
        for endpoint in endpoints:
            listed = _Listed(endpoint, endpoints, self._session, limits)
            name = f"bundles of {listed.place}"
            if listed.look(digest, whole):
                self._searched[name] = None
                return listed
            tag = fallback_tag(digest)
            shown = tag[: -len(digest.encoded) + SHOWN_DIGITS]
            self._searched[f"{name} (no referrers API, no tag {shown}…)"] = None
        return _Listed(endpoints[0], endpoints, self._session, limits)


class _Page(NamedTuple):
    """One answer of the API; `following` is the next page, None behind the last."""

    data: bytes
    following: Url | None


class _Listed:
    """What one place of the image lists of what refers to one of its manifests; nothing before it has looked."""

    def __init__(
        self, endpoint: Endpoint, all_places: Sequence[Endpoint], session: RegistrySession, limits: Callable[[], Limits]
    ) -> None:
        self.place = endpoint.reference.name
        self.entries: Sequence[Referrer] = ()
        self.found_by = "nowhere"
        self._endpoint = endpoint
        self._all = all_places
        self._session = session
        self._limits = limits

    def look(self, digest: Digest, limits: Limits) -> bool:
        """Whether there is an API or the tag here. `limits` are those of the whole list."""
        found = None
        if self.place not in self._session.without_referrers:
            self.found_by, found = "by API", self._by_api(digest, limits)
        if found is None:
            self._session.without_referrers.add(self.place)
            self.found_by, found = "by tag", self._by_tag(digest, limits)
        self.entries = found or ()
        return found is not None

    def manifest(self, descriptor: Descriptor) -> bytes:
        what = f"referrer {descriptor.digest} of {self.place}"
        known = descriptor.media_type in mediatype.MANIFESTS | mediatype.INDEXES
        accepted = descriptor.media_type if known else "*/*"  # a list may say anything, which is no header

        def ask(limits: Limits) -> bytes:
            response = self._endpoint.get(f"manifests/{descriptor.digest}", limits, {"Accept": accepted})
            return read_manifest(self._endpoint, response, what).data

        return self._repeat(ask, self._limits())

    def document(self, descriptor: Descriptor, limit: int, what: str) -> bytes:
        return read_signature_blob(descriptor, self._endpoint, self._session, self._limits().deadline, limit, what)

    def open_blob(self, descriptor: Descriptor, access: BlobAccess) -> RegistryBlob:
        others = [each for each in self._all if each is not self._endpoint]
        blob = rooms.shared_blobs() or RegistryBlob
        return blob(descriptor, access, (self._endpoint, *others), self._session)

    def _by_api(self, digest: Digest, limits: Limits) -> tuple[Referrer, ...] | None:
        """All pages; None where the first answer means that there is no API."""
        path, shown = f"/v2/{self._endpoint.reference.path}/referrers/{digest}", ""
        where = f"{self._endpoint.name}: referrers of {self._endpoint.reference.path}@{digest}"
        seen: list[str] = []
        size = 0
        found: list[Referrer] = []
        while path:
            if path in seen or len(seen) == PAGE_LIMIT:
                why = "a page that was there before" if path in seen else f"more than {PAGE_LIMIT} pages"
                raise RegistryError(f"{where}: expected an end of the list, found {why}", host=self._endpoint.name)
            seen.append(path)
            page = self._page(path, shown, where, limits, first=len(seen) == 1)
            if page is None:
                return None
            size += len(page.data)
            if size > PAGES_LIMIT:
                raise InvalidDocumentError(where, f"larger than {PAGES_LIMIT} bytes", code=ErrorCode.LIMIT_EXCEEDED)
            found += parse_referrers(page.data, where)
            if len(found) > ENTRY_LIMIT:
                raise too_many(where)
            path, shown = (page.following.target, page.following.shown) if page.following else ("", "")
        return tuple(found)

    def _page(self, path: str, shown: str, where: str, whole: Limits, *, first: bool) -> _Page | None:
        def ask(limits: Limits) -> _Page | None:
            response = self._endpoint.get_path(path, limits, _ACCEPT, shown=shown)
            announced = media_type_of(response)
            if first and (response.status in _NO_API or (response.status == 200 and announced != mediatype.OCI_INDEX)):
                response.discard()  # such as the page of a user interface
                return None
            if response.status != 200:
                raise self._endpoint.refusal(response, where)
            response.require_uncompressed()
            if announced != mediatype.OCI_INDEX:
                response.close()
                why = f"expected {mediatype.OCI_INDEX}, found {quote(announced)}"
                raise RegistryError(f"{where}: a further page: {why}", host=self._endpoint.name)
            try:
                following = self._following(response, where)
            except CipError:
                response.close()
                raise
            return _Page(response.read_all(LIST_LIMIT, where), following)

        return self._repeat(ask, whole)

    def _following(self, response: Response, where: str) -> Url | None:
        """Where the answer says that the next page is, at this registry (distribution-spec, RFC 8288)."""
        links = next_links(response.headers.get_all("link", []))
        if not links:
            return None
        try:
            urls = {join_url(response.asked, link) for link in links}
        except InvalidInputError as error:
            raise RegistryError(f"{where}: a next page that is no URL: {error}", host=self._endpoint.name) from error
        url = urls.pop()
        if urls or url.origin != response.origin or not self._endpoint.is_here(response):
            why = "two next pages" if urls else f"the next page at {url.origin.scheme}://{url.origin.address}"
            raise RegistryError(f"{where}: expected it at the same registry, found {why}", host=self._endpoint.name)
        return self._without_namespace(url)

    def _without_namespace(self, url: Url) -> Url:
        """The same page; `ns` is added again to each request of an endpoint that needs it."""
        if not self._endpoint.place.namespace:
            return url
        return url.with_query("&".join(part for part in url.query.split("&") if not part.startswith("ns=")))

    def _by_tag(self, digest: Digest, whole: Limits) -> tuple[Referrer, ...] | None:
        """What the index under the fallback tag lists; None where there is no such tag."""
        tag = fallback_tag(digest)
        where = f"{self._endpoint.name}: referrers of {self._endpoint.reference.path}, tag {tag}"

        def ask(limits: Limits) -> bytes | None:
            response = self._endpoint.get(f"manifests/{tag}", limits, _ACCEPT)
            if not has_attached(self._endpoint, response, where):
                return None
            if media_type_of(response) != mediatype.OCI_INDEX:
                response.discard()  # no valid index: no referrers (distribution-spec)
                return b""
            response.require_uncompressed()
            return response.read_all(LIST_LIMIT, where)

        data = self._repeat(ask, whole)
        if data is None:
            return None
        if not data or digest_of(data) == digest:  # some registries take this tag for the digest: an index, no list
            return ()
        return parse_referrers(data, where)

    def _repeat(self, ask: Callable[[Limits], T], limits: Limits) -> T:
        return ask_alone(self._endpoint, ask, self._session, limits)

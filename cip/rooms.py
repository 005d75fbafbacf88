# SPDX-License-Identifier: Apache-2.0
"""Loads what may be absent: the rooms, which a copy of this program takes or leaves by their folders and files.

Each function here imports the entry of one room when it is called. Where the room was left out, what it would have
done is refused by a typed error that names it. The core imports a room in no other way (tests/unit/test_layers.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from .errors import CipError, ErrorCode, UnsupportedError, UsageError

if TYPE_CHECKING:
    import socket

    from .confine.confinement import Confinement
    from .content import BlobReader
    from .events import Events
    from .explain.view import Explanation
    from .fetch.command import Destination
    from .model.descriptor import Descriptor, Digest
    from .model.jsontree import JsonNode
    from .model.reference import ImageReference
    from .model.signature import FoundBundles, RawSignature
    from .net.limits import Limits
    from .opening import ImageOpener
    from .partial.store import PartStore
    from .programs import Programs
    from .readahead import ReadAhead
    from .referrers import ImageReferrers
    from .registry.endpoints import Endpoint
    from .registry.session import RegistrySession
    from .report.records import Records
    from .settings import PlatformOptions, Settings
    from .sources.archives.spool import Spools
    from .sources.base import ImageSource, OpenBlob, ReferrerList, ReferrerSource
    from .sources.beneath import Tree
    from .sources.fileblob import FileBlob
    from .sources.layout import LayoutFiles
    from .temporary import TemporarySpace
    from .trust.requirements import Acceptance, PolicyReaders, Requirement, RunGpgv, TrustTools, UnverifiedImage
    from .trust.signed.matching import IdentityMatcher
    from .trust.signed.requirement import VerificationRecord
    from .trust.sigstore.demand import BundleDemand
    from .wire.jsonproxy.conversation import Conversation as JsonConversation


class Room(NamedTuple):
    """A part that can be left out.

    `modules` are the packages and modules that it consists of, seen from this one, `gives` is what people get from it,
    `needs` are the rooms without which it does not work.
    """

    name: str
    modules: tuple[str, ...]
    gives: str
    needs: tuple[str, ...] = ()


_SIGNED = ("signatures",)
ROOMS = (
    Room("jsonproxy", ("wire.jsonproxy",), "the JSON protocol of `skopeo experimental-image-proxy`"),
    Room(
        "signatures",
        (
            "signatures",
            "trust.signed",
            "registry.signatures",
            "sources.keptsignatures",
            "hostconfig.registriesd",
            "model.signature",
        ),
        "what finds signatures and knows what they say",
    ),
    Room("openpgp", ("trust.openpgp",), "`signedBy` in a policy", _SIGNED),
    Room("sigstore", ("trust.sigstore",), "`sigstoreSigned` in a policy", _SIGNED),
    Room("bundle", ("trust.bundle",), "Sigstore bundles", ("sigstore", "signatures")),
    Room(
        "referrers",
        ("referrers", "registry.referrers", "sources.layoutreferrers"),
        "`GET /referrers`; bundles",
        ("signatures",),
    ),
    Room("archives", ("sources.archives",), "`oci-archive:`, `docker-archive:`"),
    Room("daemon", ("sources.daemon",), "`docker-daemon:`", ("archives",)),
    Room("tarball", ("sources.tarball",), "`tarball:`", ("archives",)),
    Room("storage", ("sources.storage",), "`containers-storage:`", ("archives",)),
    Room("explain", ("explain",), "the command `explain`", _SIGNED),
    Room("report", ("report",), "`--events-fd`, `--audit-fd`, `--journal`"),
    Room("union", ("union",), "`--local-source`, `--offline`", ("archives",)),
    Room("readahead", ("readahead",), "layers requested before the parent asks for them"),
    Room("partial", ("partial",), "`--partial-dir`: parts of blobs kept for the next run"),
    Room("segments", ("segments",), "`--segments`: a large blob over several connections"),
    Room("fetch", ("fetch",), "the command `fetch`", ("partial", "signatures")),
    Room("confine", ("confine",), "the sandbox, `--require-sandbox`"),
    Room("client", ("client", "channels"), "the Python client"),
)


# commands and flags that only a room can serve
_WORDS = {
    "experimental-image-proxy": "jsonproxy",
    "explain": "explain",
    "fetch": "fetch",
    "--json": "explain",
    "--all": "fetch",
    "--audit-fd": "report",
    "--require-audit": "report",
    "--events-fd": "report",
    "--journal": "report",
    "--local-source": "union",
    "--offline": "union",
    "--partial-dir": "partial",
    "--partial-limit": "partial",
    "--read-ahead": "readahead",
    "--segments": "segments",
    "--require-sandbox": "confine",
}


def present() -> tuple[str, ...]:
    """The names of the rooms that this copy has."""
    return tuple(room.name for room in ROOMS if _is_present(room))


def require_words(words: Iterable[str]) -> None:
    """Return unless a command or a flag (`--name`) is given that needs an absent room. Raises UsageError."""
    for word in words:
        room = _missing(word)
        if room is not None:
            raise UsageError(_without(word, room))


def knows(word: str) -> bool:
    """Whether this copy can serve the command or the flag (`--name`)."""
    return _missing(word) is None


def _missing(word: str) -> Room | None:
    return next((room for room in ROOMS if room.name == _WORDS.get(word) and not _is_present(room)), None)


def _is_present(room: Room) -> bool:
    from importlib.util import find_spec  # only who names a room asks

    return all(find_spec(f".{name}", __package__) for name in room.modules)


def _without(what: str, room: Room) -> str:
    return f"{what.removesuffix(':')}: not part of this copy, which was made without the room {room.name!r}"


@contextmanager
def _needed(what: str, refuse: Callable[[str], CipError]) -> Iterator[None]:
    """Turn the absence of a room into an error; `what` it would have done."""
    try:
        yield
    except ModuleNotFoundError as error:
        absent = (error.name or "").removeprefix(f"{__package__}.")
        for room in ROOMS:
            if any(f"{absent}.".startswith(f"{module}.") for module in room.modules):
                raise refuse(_without(what, room)) from error
        raise


def _transport(what: str) -> UnsupportedError:
    return UnsupportedError(what, code=ErrorCode.TRANSPORT_UNSUPPORTED)


def _dependency(what: str) -> UnsupportedError:
    return UnsupportedError(what, code=ErrorCode.DEPENDENCY_MISSING)


# --- transports ---


def spools(space: TemporarySpace, what: str) -> Spools:
    """The temporary files of the process, which `what` asks for. Raises UnsupportedError."""
    with _needed(what, _transport):
        from .sources.archives.spool import Spools
    return Spools(space)


def open_oci_archive(
    reference: ImageReference, spools: Spools, programs: Programs, platform: PlatformOptions
) -> ImageSource:
    """Raises UnsupportedError, and what the room raises, as all that open a source."""
    with _needed("oci-archive:", _transport):
        from .sources.archives.archive import open_oci_archive
    return open_oci_archive(reference, spools, programs, platform)


def open_docker_archive(reference: ImageReference, spools: Spools, programs: Programs) -> ImageSource:
    """See `open_oci_archive`."""
    with _needed("docker-archive:", _transport):
        from .sources.archives.dockerarchive import open_docker_archive
    return open_docker_archive(reference, spools, programs)


def open_daemon(reference: ImageReference, settings: Settings, spools: Spools, programs: Programs) -> ImageSource:
    """See `open_oci_archive`."""
    with _needed("docker-daemon:", _transport):
        from .sources.daemon import open_daemon
    return open_daemon(reference, settings, spools, programs)


def open_storage(reference: ImageReference, settings: Settings) -> ImageSource:
    """See `open_oci_archive`."""
    with _needed("containers-storage:", _transport):
        from .sources.storage.source import open_storage
    return open_storage(reference, settings)


def open_tarball(reference: ImageReference, spools: Spools, programs: Programs) -> ImageSource:
    """See `open_oci_archive`."""
    with _needed("tarball:", _transport):
        from .sources.tarball import open_tarball
    return open_tarball(reference, spools, programs)


def open_with_local_sources(
    reference: ImageReference,
    settings: Settings,
    open_registry: Callable[[ImageReference], ImageSource],
    events: Events,
    programs: Programs,
    spools: Spools,
) -> ImageSource:
    """The union of the local sources of `settings` and a registry. Raises UsageError, and what the room raises."""
    from .union import open_with_local_sources

    return open_with_local_sources(reference, settings, open_registry, events, programs, spools)


# --- signatures ---


def with_signatures(
    image: UnverifiedImage, source: ImageSource, digest: Digest, instance: Digest | None, settings: Settings
) -> UnverifiedImage:
    """`image` with what looks for its signatures; as it is in a copy where nothing that verifies could ask."""
    try:
        with _needed("signatures", _dependency):
            from .signatures import with_signatures
    except UnsupportedError:
        return image
    return with_signatures(image, source, digest, instance, settings)


def registry_signatures(
    endpoint: Endpoint, digest: Digest, settings: Settings, session: RegistrySession, limits: Limits
) -> Sequence[RawSignature]:
    """All signatures of a manifest that `endpoint` served. Raises UnsupportedError, SignatureError."""
    with _needed("signatures", _dependency):
        from .registry.signatures import fetch_signatures
    return fetch_signatures(endpoint, digest, settings, session, limits)


def registry_signature_locations(endpoint: Endpoint, settings: Settings) -> Sequence[str]:
    """Where the same looks, for people. Raises UnsupportedError, ConfigurationError."""
    with _needed("signatures", _dependency):
        from .registry.signatures import locations_of_signatures
    return locations_of_signatures(endpoint, settings)


def directory_signatures(tree: Tree, prefix: str, where: str) -> Sequence[RawSignature]:
    """The signatures in a directory whose names begin with `prefix`. Raises UnsupportedError, SignatureError."""
    with _needed("signatures", _dependency):
        from .sources.keptsignatures import read_directory_signatures
    return read_directory_signatures(tree, prefix, where)


def layout_signatures(files: LayoutFiles, digest: Digest, where: str) -> Sequence[RawSignature]:
    """The signatures of a manifest in a layout. Raises UnsupportedError, SignatureError."""
    with _needed("signatures", _dependency):
        from .sources.keptsignatures import read_layout_signatures
    return read_layout_signatures(files, digest, where)


def parse_signature_blob(blob: bytes, origin: str) -> RawSignature:
    """A stored signature. Raises UnsupportedError, SignatureError."""
    with _needed("signatures", _dependency):
        from .model.signature import parse_signature_blob
    return parse_signature_blob(blob, origin)


def unread_registries_d(settings: Settings) -> str:
    """A warning when registries.d cannot be read, else empty; also in a copy that never reads it."""
    try:
        with _needed("registries.d", _dependency):
            from .hostconfig.registriesd import unread_registries_d
    except UnsupportedError:
        return ""
    return unread_registries_d(settings)


# --- trust ---


def parse_signed_base_layer(node: JsonNode) -> Requirement:
    """A `signedBaseLayer` of a policy. Raises ConfigurationError by `node`, UnsupportedError."""
    with _needed("signedBaseLayer", _dependency):
        from .trust.signed.requirement import parse_signed_base_layer
    return parse_signed_base_layer(node)


def parse_signed_by(node: JsonNode) -> Requirement:
    """A `signedBy` of a policy. Raises ConfigurationError by `node`, UnsupportedError."""
    with _needed("signedBy", _dependency):
        from .trust.openpgp.simplesigning import parse_signed_by
    return parse_signed_by(node)


def parse_sigstore_signed(node: JsonNode, readers: PolicyReaders) -> Requirement:
    """A `sigstoreSigned` of a policy. Raises ConfigurationError by `node`, UnsupportedError."""
    with _needed("sigstoreSigned", _dependency):
        from .trust.sigstore.requirement import parse_sigstore_signed
    return parse_sigstore_signed(node, readers)


def bundle_candidates(
    found: FoundBundles, demand: BundleDemand, matcher: IdentityMatcher, image: UnverifiedImage, tools: TrustTools
) -> tuple[list[tuple[Callable[[VerificationRecord], Acceptance], VerificationRecord]], list[str]]:
    """What a `sigstoreSigned` has to check of the bundles of an image. Raises UnsupportedError."""
    with _needed("Sigstore bundles", _dependency):
        from .trust.bundle.requirement import candidates_among
    return candidates_among(found, demand, matcher, image, tools)


def find_bundles(listed: ReferrerList, digest: Digest) -> FoundBundles:
    """The bundles in a list that the same room has found. Raises CipError where that cannot be known."""
    from .referrers import find_bundles

    return find_bundles(listed, digest)


def require_reliable(run_gpgv: RunGpgv) -> None:
    """Return only if this gpgv can be relied on. Raises SignatureError, MissingDependencyError."""
    from .trust.openpgp.selftest import require_reliable  # only a requirement of that room asks

    require_reliable(run_gpgv)


# --- what stands beside an image ---


def registry_referrers(
    endpoints: Callable[[], Sequence[Endpoint]],
    settings: Settings,
    session: RegistrySession,
    limits: Callable[[], Limits],
    opening: Callable[[], Limits],
) -> ReferrerSource | None:
    """What refers to an image of a registry; None in a copy that does not look."""
    try:
        with _needed("referrers", _dependency):
            from .registry.referrers import RegistryReferrers
    except UnsupportedError:
        return None
    return RegistryReferrers(endpoints, settings, session, limits, opening)


def layout_referrers(
    text: str, read_index: Callable[[], bytes], open_blob: Callable[[Digest], FileBlob]
) -> ReferrerSource | None:
    """What refers to an image of a layout; None in a copy that does not look."""
    try:
        with _needed("referrers", _dependency):
            from .sources.layoutreferrers import LayoutReferrers
    except UnsupportedError:
        return None
    return LayoutReferrers(text, read_index, open_blob)


def image_referrers(
    reference: str, source: ReferrerSource | None, subjects: Sequence[Digest], signatures: frozenset[str]
) -> ImageReferrers:
    """What refers to an accepted image, for its parent. Raises UnsupportedError."""
    with _needed("/referrers", _dependency):
        from .referrers import ImageReferrers
    return ImageReferrers(reference, source, subjects, signatures)


def read_ahead(
    open_blob: OpenBlob, layers: Sequence[Descriptor], limit: int, connections: int, *, guess: bool
) -> ReadAhead | None:
    """Requests layers before they are asked for; None in a copy that does not."""
    try:
        with _needed("--read-ahead", UsageError):
            from .readahead import ReadAhead
    except UsageError:
        return None
    return ReadAhead(open_blob, layers, limit, connections, guess=guess)


def segmented(
    descriptor: Descriptor, offset: int, open_range: Callable[[int, int | None], BlobReader], connections: int
) -> BlobReader:
    """A blob that may be fetched in segments. Raises UsageError."""
    with _needed("--segments", UsageError):
        from .segments import SegmentedBlob
    return SegmentedBlob(descriptor, offset, open_range, connections)


def open_part_store(path: str, limit: int) -> PartStore | None:
    """What `--partial-dir` keeps; None, with a warning, where nothing can be kept. Raises UsageError."""
    from .partial.store import open_part_store

    return open_part_store(path, limit)


def records() -> Records:
    """The writers of events and audit. Raises UsageError."""
    from .report.records import Records

    return Records()


# --- what the command line can ask for ---


def json_conversation(sock: socket.socket, opener: ImageOpener) -> JsonConversation:
    """The conversation by the JSON protocol on `sock`, a context manager. Raises UsageError."""
    from .wire.jsonproxy.conversation import Conversation

    return Conversation(sock, opener)


def confinement(settings: Settings, reference: str, *, limited_reads: bool) -> Confinement | None:
    """What confines the process; None in a copy that cannot. Raises UsageError where a level is required."""
    try:
        with _needed("--require-sandbox", UsageError):
            from .confine.confinement import Confinement
    except UsageError:
        if settings.sandbox.required is not None:
            raise
        return None
    return Confinement(settings, reference, limited_reads=limited_reads)


def explain(reference: str, settings: Settings) -> Explanation:
    """What would be done for `reference`. Raises UsageError."""
    from .explain.resolve import explain

    return explain(reference, settings)


def parse_destination(text: str, image: str) -> Destination:
    """Where `fetch` puts the `image`. Raises UsageError, InvalidReferenceError."""
    from .fetch.command import parse_destination

    return parse_destination(text, image)


def fetch(
    opener: ImageOpener,
    settings: Settings,
    reference: str,
    destination: Destination,
    *,
    every_platform: bool,
    terminal: int | None,
    confine: Callable[[], object],
) -> str:
    """Bring an image into a layout; one line that says what was done. Raises CipError."""
    from .fetch.command import fetch  # `parse_destination` has found it

    return fetch(
        opener, settings, reference, destination, every_platform=every_platform, terminal=terminal, confine=confine
    )

# SPDX-License-Identifier: Apache-2.0
"""Loads what may be absent: the rooms, which a copy of this program takes or leaves by their folders and files.

What a room offers is a name of this module, and imported when it is asked for: `rooms.open_daemon(…)`. Where the room
was left out, what it would have done is refused by a typed error that names it. The core imports a room in no other way
(tests/unit/test_layers.py).
"""

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import CipError, ErrorCode, UnsupportedError, UsageError

if TYPE_CHECKING:
    from .confine.confinement import Confinement
    from .early import dial_early as dial_early
    from .explain.resolve import explain as explain
    from .fetch.command import fetch as fetch
    from .hostconfig.credhelper import ask_helper as ask_helper
    from .hostconfig.credhelper import choose_helper as choose_helper
    from .hostconfig.registriesd import unread_registries_d as unread_registries_d
    from .model.convert import compose_manifest as compose_manifest
    from .model.convert import convert_manifest as convert_manifest
    from .model.convert import encode_config as encode_config
    from .model.convert import encode_inner_config as encode_inner_config
    from .model.convert import with_stored_layers as with_stored_layers
    from .model.localreference import parse_local_reference as parse_local_reference
    from .model.referrers import SUBJECT_KEY as SUBJECT_KEY
    from .model.referrers import VERIFIED_KEY as VERIFIED_KEY
    from .model.referrers import parse_referrers as parse_referrers
    from .model.signature import parse_signature_blob as parse_signature_blob
    from .net.budget import Budget as Budget
    from .net.nestedtls import NestedTls as NestedTls
    from .net.socks import open_socks as open_socks
    from .partial.store import open_part_store as open_part_store
    from .programs import DirectPrograms as DirectPrograms
    from .readahead import ReadAhead as ReadAhead
    from .referrers import ImageReferrers as ImageReferrers
    from .referrers import find_bundles as find_bundles
    from .registry.referrers import RegistryReferrers as RegistryReferrers
    from .registry.signatures import fetch_signatures as fetch_signatures
    from .registry.signatures import locations_of_signatures as locations_of_signatures
    from .report.records import Records as Records
    from .segments import SegmentedBlob as SegmentedBlob
    from .settings import Settings
    from .signatures import with_signatures as with_signatures
    from .skopeo import require_own_command as require_own_command
    from .sources.archives.archive import open_oci_archive as open_oci_archive
    from .sources.archives.dockerarchive import open_docker_archive as open_docker_archive
    from .sources.archives.spool import open_spools as open_spools
    from .sources.daemon import open_daemon as open_daemon
    from .sources.keptsignatures import read_directory_signatures as read_directory_signatures
    from .sources.keptsignatures import read_layout_signatures as read_layout_signatures
    from .sources.layoutreferrers import LayoutReferrers as LayoutReferrers
    from .sources.storage.source import open_storage as open_storage
    from .sources.tarball import open_tarball as open_tarball
    from .trust.bundle.requirement import candidates_among as candidates_among
    from .trust.openpgp.selftest import require_reliable as require_reliable
    from .trust.openpgp.simplesigning import parse_signed_by as parse_signed_by
    from .trust.signed.requirement import parse_signed_base_layer as parse_signed_base_layer
    from .trust.sigstore.requirement import parse_sigstore_signed as parse_sigstore_signed
    from .union import open_with_local_sources as open_with_local_sources
    from .wire.jsonproxy.conversation import Conversation as Conversation
    from .wire.referrers import answer_referrers as answer_referrers
    from .wire.spooled import send_spooled as send_spooled


class Room:
    """A part that can be left out.

    `modules` are the packages and modules that it consists of, seen from this one, `gives` is what people get from it,
    `words` are the command and the flags that it alone can serve, `needs` the rooms without which it does not work.
    """

    def __init__(
        self, name: str, modules: tuple[str, ...], gives: str, needs: tuple[str, ...] = (), words: tuple[str, ...] = ()
    ) -> None:
        self.name, self.modules, self.gives, self.needs, self.words = name, modules, gives, needs, words


_SIGNED = ("signatures",)
ROOMS = (
    Room(
        "jsonproxy",
        ("wire.jsonproxy", "skopeo"),
        "the JSON protocol of `skopeo experimental-image-proxy`",
        words=("experimental-image-proxy",),
    ),
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
    Room("openpgp", ("trust.openpgp",), "`signedBy` in a policy", ("signatures", "programs")),
    Room("programs", ("programs", "hostconfig.credhelper"), "credential helpers; what runs gpgv and zstd"),
    Room("sigstore", ("trust.sigstore",), "`sigstoreSigned` in a policy", _SIGNED),
    Room("bundle", ("trust.bundle",), "Sigstore bundles", ("sigstore", "signatures", "referrers")),
    Room(
        "referrers",
        (
            "referrers",
            "registry.referrers",
            "sources.layoutreferrers",
            "sources.referring",
            "model.referrers",
            "wire.referrers",
        ),
        "`GET /referrers`; bundles",
        ("signatures",),
    ),
    Room("convert", ("model.convert",), "Docker's manifests in OCI form; `GetFullConfig`"),
    Room(
        "archives",
        ("sources.archives", "temporary", "model.localreference", "wire.spooled"),
        "`oci-archive:`, `docker-archive:`",
    ),
    Room("daemon", ("sources.daemon",), "`docker-daemon:`", ("archives",)),
    Room("tarball", ("sources.tarball",), "`tarball:`", ("archives",)),
    Room("storage", ("sources.storage",), "`containers-storage:`", ("archives",)),
    Room("explain", ("explain",), "the command `explain`", _SIGNED, words=("explain", "--json")),
    Room(
        "report",
        ("report",),
        "`--events-fd`, `--audit-fd`, `--journal`",
        words=("--audit-fd", "--require-audit", "--events-fd", "--journal"),
    ),
    Room("union", ("union",), "`--local-source`, `--offline`", ("archives",), words=("--local-source", "--offline")),
    Room("readahead", ("readahead",), "layers requested before the parent asks for them", words=("--read-ahead",)),
    Room(
        "partial",
        ("partial",),
        "`--partial-dir`: parts of blobs kept for the next run",
        words=("--partial-dir", "--partial-limit"),
    ),
    Room("socks", ("net.socks", "net.nestedtls"), "proxies by SOCKS 5; tunnels through proxies over TLS"),
    Room("budget", ("net.budget",), "`--max-rate`, `--max-bytes`", words=("--max-rate", "--max-bytes")),
    Room("early", ("early",), "a connection that is made while the rest is loaded"),
    Room("segments", ("segments",), "`--segments`: a large blob over several connections", words=("--segments",)),
    Room("fetch", ("fetch",), "the command `fetch`", ("partial", "signatures", "referrers"), words=("fetch", "--all")),
    Room("confine", ("confine",), "the sandbox, `--require-sandbox`", ("programs",), words=("--require-sandbox",)),
    Room("client", ("client", "channels"), "the Python client"),
)


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
    return next((room for room in ROOMS if word in room.words and not _is_present(room)), None)


def _is_present(room: Room) -> bool:
    from importlib.util import find_spec  # only who names a room asks

    return all(find_spec(f".{name}", __package__) for name in room.modules)


def _without(what: str, room: Room) -> str:
    return f"{what.removesuffix(':')}: not part of this copy, which was made without the room {room.name!r}"


def _transport(what: str) -> UnsupportedError:
    return UnsupportedError(what, code=ErrorCode.TRANSPORT_UNSUPPORTED)


def _dependency(what: str) -> UnsupportedError:
    return UnsupportedError(what, code=ErrorCode.DEPENDENCY_MISSING)


class Offer:
    """What a room offers: the module that has it, and what is said where the room is absent.

    `what` it would have done is refused by `refuse`, unless `instead` stands for it.
    """

    def __init__(
        self,
        module: str,
        what: str = "",
        refuse: Callable[[str], CipError] = UsageError,
        instead: Callable[..., object] | None = None,
    ) -> None:
        self.module, self.what, self.refuse, self.instead = module, what, refuse, instead


def _nothing(*given: object, **named: object) -> None:
    return None


_SIGNATURES = ("signatures", _dependency)
OFFERS = {
    "parse_local_reference": Offer("model.localreference", "archives, daemons and local storages", _transport),
    "send_spooled": Offer("wire.spooled", "temporary files", _transport),
    "open_spools": Offer("sources.archives.spool", "temporary files", _transport),
    "open_oci_archive": Offer("sources.archives.archive", "oci-archive:", _transport),
    "open_docker_archive": Offer("sources.archives.dockerarchive", "docker-archive:", _transport),
    "open_daemon": Offer("sources.daemon", "docker-daemon:", _transport),
    "open_storage": Offer("sources.storage.source", "containers-storage:", _transport),
    "open_tarball": Offer("sources.tarball", "tarball:", _transport),
    "open_with_local_sources": Offer("union", "--local-source"),
    "with_signatures": Offer("signatures", instead=lambda image, *where: image),  # nothing that verifies would ask
    "convert_manifest": Offer("model.convert", "a Docker manifest in OCI form", _dependency),
    "compose_manifest": Offer("model.convert", "a manifest for what has none", _dependency),
    "with_stored_layers": Offer("model.convert", "a manifest with other layers", _dependency),
    "encode_config": Offer("model.convert", "GetFullConfig", _dependency),
    "encode_inner_config": Offer("model.convert", "GetConfig", _dependency),
    "fetch_signatures": Offer("registry.signatures", *_SIGNATURES),
    "locations_of_signatures": Offer("registry.signatures", *_SIGNATURES),
    "read_directory_signatures": Offer("sources.keptsignatures", *_SIGNATURES),
    "read_layout_signatures": Offer("sources.keptsignatures", *_SIGNATURES),
    "parse_signature_blob": Offer("model.signature", *_SIGNATURES),
    "unread_registries_d": Offer("hostconfig.registriesd", instead=lambda settings: ""),  # nor would it be read
    "parse_signed_base_layer": Offer("trust.signed.requirement", "signedBaseLayer", _dependency),
    "parse_signed_by": Offer("trust.openpgp.simplesigning", "signedBy", _dependency),
    "require_reliable": Offer("trust.openpgp.selftest", "signedBy", _dependency),
    "parse_sigstore_signed": Offer("trust.sigstore.requirement", "sigstoreSigned", _dependency),
    "candidates_among": Offer("trust.bundle.requirement", "Sigstore bundles", _dependency),
    "find_bundles": Offer("referrers", "Sigstore bundles", _dependency),
    "parse_referrers": Offer("model.referrers", "referrers", _dependency),
    "SUBJECT_KEY": Offer("model.referrers"),  # who parses has the room
    "VERIFIED_KEY": Offer("model.referrers"),
    "RegistryReferrers": Offer("registry.referrers", instead=_nothing),
    "LayoutReferrers": Offer("sources.layoutreferrers", instead=_nothing),
    "ImageReferrers": Offer("referrers", "/referrers", _dependency),
    "answer_referrers": Offer("wire.referrers", "/referrers", _dependency),
    "ReadAhead": Offer("readahead", instead=_nothing),
    "dial_early": Offer("early", instead=_nothing),
    "open_socks": Offer("net.socks", "proxies by SOCKS 5", _dependency),
    "NestedTls": Offer("net.nestedtls", "tls within tls, through a proxy that is spoken to by https", _dependency),
    "Budget": Offer("net.budget", "--max-rate and --max-bytes"),
    "SegmentedBlob": Offer("segments", "--segments"),
    "open_part_store": Offer("partial.store", "--partial-dir"),
    "Records": Offer("report.records", "--events-fd, --audit-fd and --journal"),
    "require_own_command": Offer("skopeo", "experimental-image-proxy"),
    "Conversation": Offer("wire.jsonproxy.conversation", "experimental-image-proxy"),
    "explain": Offer("explain.resolve", "explain"),
    "fetch": Offer("fetch.command", "fetch"),
    "ask_helper": Offer("hostconfig.credhelper", "credential helpers", _dependency),
    "choose_helper": Offer(
        "hostconfig.credhelper", instead=lambda found, name, warn: found.get(name.partition("/")[0])
    ),
    "DirectPrograms": Offer("programs", instead=lambda variables=None: _NoPrograms()),
}


def _load(name: str, offer: Offer) -> Any:
    """What the room has under `name`, or what stands for it, or what refuses when it is called."""
    try:
        return getattr(import_module(f".{offer.module}", __package__), name)
    except ModuleNotFoundError as error:
        absent = (error.name or "").removeprefix(f"{__package__}.")
        room = next((room for room in ROOMS if _has(room, absent)), None)
        if room is None:
            raise
    if offer.instead is not None:
        return offer.instead

    def refuse(*given: object, **named: object) -> NoReturn:
        raise offer.refuse(_without(offer.what, room))

    return refuse


def _has(room: Room, module: str) -> bool:
    return any(f"{module}.".startswith(f"{each}.") for each in room.modules)


if not TYPE_CHECKING:  # which knows the names from above

    def __getattr__(name: str) -> Any:
        if name not in OFFERS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return _load(name, OFFERS[name])


def confinement(settings: "Settings", reference: str, *, limited_reads: bool) -> "Confinement | None":
    """What confines the process; None in a copy that cannot. Raises UsageError where a level is required."""
    instead = _nothing if settings.require_sandbox is None else None
    load = _load("Confinement", Offer("confine.confinement", "--require-sandbox", instead=instead))
    made: Confinement | None = load(settings, reference, limited_reads=limited_reads)
    return made


class _NoPrograms:
    """Stands for the programs that another copy would start."""

    def close(self) -> None:
        """Nothing runs."""

    abandon = close

    def _refuse(self, *given: object, **named: object) -> NoReturn:
        raise _dependency("other programs: not part of this copy, which was made without the room 'programs'")

    verify = decompress = credentials = _refuse

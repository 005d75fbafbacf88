# SPDX-License-Identifier: Apache-2.0
"""Loads what may be absent: the rooms, which a copy of this program takes or leaves by their folders and files.

What a room offers is a name of this module, and imported when it is asked for: `rooms.open_daemon(…)`. Where the room
was left out, what it would have done is refused by a typed error that names it. The core imports a room in no other way
(tests/unit/test_layers.py).
"""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import CipError, ErrorCode, UnsupportedError, UsageError

if TYPE_CHECKING:
    from .confine.confinement import Confinement as Confinement
    from .early import dial_early as dial_early
    from .explain.resolve import explain as explain
    from .fetch.command import fetch as fetch
    from .hashing import start_hashing as start_hashing
    from .hostconfig.credhelper import ask_helper as ask_helper
    from .hostconfig.credhelper import choose_helper as choose_helper
    from .hostconfig.registriesd import unread_registries_d as unread_registries_d
    from .model.convert import compose_manifest as compose_manifest
    from .model.convert import convert_manifest as convert_manifest
    from .model.convert import encode_config as encode_config
    from .model.convert import encode_inner_config as encode_inner_config
    from .model.convert import with_stored_layers as with_stored_layers
    from .model.localreference import local_scope_fault as local_scope_fault
    from .model.localreference import parse_local_reference as parse_local_reference
    from .model.referrers import SUBJECT_KEY as SUBJECT_KEY
    from .model.referrers import VERIFIED_KEY as VERIFIED_KEY
    from .model.referrers import parse_referrers as parse_referrers
    from .model.signature import parse_signature_blob as parse_signature_blob
    from .net.budget import Budget as Budget
    from .net.socks import open_socks as open_socks
    from .partial.store import open_part_store as open_part_store
    from .programs import DirectPrograms as DirectPrograms
    from .readahead.schedule import ReadAhead as ReadAhead
    from .referrers import ImageReferrers as ImageReferrers
    from .referrers import find_bundles as find_bundles
    from .registry.referrers import RegistryReferrers as RegistryReferrers
    from .registry.sharing import shared_blobs as shared_blobs
    from .registry.signatures import fetch_signatures as fetch_signatures
    from .registry.signatures import locations_of_signatures as locations_of_signatures
    from .report.records import Records as Records
    from .segments import open_segments as open_segments
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
    from .wire.spooled import send_unsized as send_unsized


class Room:
    """A part that can be left out; what people get from it says the table in the repository's README.

    `modules` are the packages and modules that it consists of, seen from this one, `needs` the rooms without which it
    does not work, `words` the command and the flags that it alone can serve.
    """

    def __init__(
        self, name: str, modules: tuple[str, ...], *, needs: tuple[str, ...] = (), words: tuple[str, ...] = ()
    ) -> None:
        self.name, self.modules, self.needs, self.words = name, modules, needs, words


ROOMS = (
    Room("jsonproxy", ("wire.jsonproxy", "skopeo"), needs=("sharing",), words=("experimental-image-proxy",)),
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
    ),
    Room("openpgp", ("trust.openpgp",), needs=("signatures", "programs")),
    Room("programs", ("programs", "hostconfig.credhelper")),
    Room("sigstore", ("trust.sigstore",), needs=("signatures",)),
    Room("bundle", ("trust.bundle",), needs=("sigstore", "signatures", "referrers")),
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
        needs=("signatures",),
    ),
    Room("convert", ("model.convert",)),
    Room("archives", ("sources.archives", "temporary", "model.localreference", "wire.spooled")),
    Room("daemon", ("sources.daemon",), needs=("archives",)),
    Room("tarball", ("sources.tarball",), needs=("archives",)),
    Room("storage", ("sources.storage",), needs=("archives",)),
    Room("explain", ("explain",), needs=("signatures",), words=("explain", "--json")),
    Room("report", ("report",), words=("--audit-fd", "--require-audit", "--events-fd", "--journal")),
    Room("union", ("union",), needs=("archives",), words=("--local-source", "--offline")),
    Room("readahead", ("readahead",), needs=("sharing",), words=("--read-ahead",)),
    Room("partial", ("partial",), words=("--partial-dir", "--partial-limit")),
    Room("socks", ("net.socks",)),
    Room("budget", ("net.budget",), words=("--max-rate", "--max-bytes")),
    Room("hashing", ("hashing",)),
    Room("sharing", ("registry.sharing",)),
    Room("early", ("early",)),
    Room("segments", ("segments",), needs=("sharing",), words=("--segments",)),
    Room("fetch", ("fetch",), needs=("partial", "signatures", "referrers", "sharing"), words=("fetch", "--all")),
    Room("confine", ("confine",), needs=("programs",), words=("--require-sandbox",)),
    Room("client", ("client", "channels")),
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
    """What a module of a room offers under `names`; where the room is absent, `what` it would have done is refused.

    That is empty where the room's own words are refused before, and where something stands in for what is absent.
    """

    def __init__(self, module: str, what: str, refuse: Callable[[str], CipError], *names: str) -> None:
        self.module, self.what, self.refuse, self.names = module, what, refuse, names


OFFERS = (
    Offer("model.localreference", "archives, daemons and local storages", _transport, "parse_local_reference"),
    Offer("model.localreference", "scopes of archives, daemons and local storages", _dependency, "local_scope_fault"),
    Offer("wire.spooled", "blobs of unknown size", _transport, "send_unsized"),
    Offer("sources.archives.spool", "temporary files", _transport, "open_spools"),
    Offer("sources.archives.archive", "oci-archive:", _transport, "open_oci_archive"),
    Offer("sources.archives.dockerarchive", "docker-archive:", _transport, "open_docker_archive"),
    Offer("sources.daemon", "docker-daemon:", _transport, "open_daemon"),
    Offer("sources.storage.source", "containers-storage:", _transport, "open_storage"),
    Offer("sources.tarball", "tarball:", _transport, "open_tarball"),
    Offer("union", "", UsageError, "open_with_local_sources"),
    Offer("model.convert", "a Docker manifest in OCI form", _dependency, "convert_manifest"),
    Offer("model.convert", "a manifest of other layers", _dependency, "compose_manifest", "with_stored_layers"),
    Offer("model.convert", "GetConfig and GetFullConfig", _dependency, "encode_config", "encode_inner_config"),
    Offer("signatures", "", _dependency, "with_signatures"),
    Offer("registry.signatures", "signatures", _dependency, "fetch_signatures", "locations_of_signatures"),
    Offer("sources.keptsignatures", "signatures", _dependency, "read_directory_signatures", "read_layout_signatures"),
    Offer("model.signature", "signatures", _dependency, "parse_signature_blob"),
    Offer("hostconfig.registriesd", "", _dependency, "unread_registries_d"),
    Offer("trust.signed.requirement", "signedBaseLayer", _dependency, "parse_signed_base_layer"),
    Offer("trust.openpgp.simplesigning", "signedBy", _dependency, "parse_signed_by"),
    Offer("trust.openpgp.selftest", "signedBy", _dependency, "require_reliable"),
    Offer("trust.sigstore.requirement", "sigstoreSigned", _dependency, "parse_sigstore_signed"),
    Offer("trust.bundle.requirement", "Sigstore bundles", _dependency, "candidates_among"),
    Offer("referrers", "Sigstore bundles and /referrers", _dependency, "find_bundles", "ImageReferrers"),
    Offer("model.referrers", "referrers", _dependency, "parse_referrers", "SUBJECT_KEY", "VERIFIED_KEY"),
    Offer("registry.referrers", "", _dependency, "RegistryReferrers"),
    Offer("registry.sharing", "blobs beside each other", _dependency, "shared_blobs"),
    Offer("sources.layoutreferrers", "", _dependency, "LayoutReferrers"),
    Offer("wire.referrers", "/referrers", _dependency, "answer_referrers"),
    Offer("hashing", "", UsageError, "start_hashing"),
    Offer("readahead.schedule", "", UsageError, "ReadAhead"),
    Offer("early", "", UsageError, "dial_early"),
    Offer("net.socks", "proxies by SOCKS 5", _dependency, "open_socks"),
    Offer("net.budget", "", UsageError, "Budget"),
    Offer("segments", "", UsageError, "open_segments"),
    Offer("partial.store", "", UsageError, "open_part_store"),
    Offer("report.records", "", UsageError, "Records"),
    Offer("skopeo", "experimental-image-proxy", UsageError, "require_own_command"),
    Offer("wire.jsonproxy.conversation", "", UsageError, "Conversation"),
    Offer("explain.resolve", "", UsageError, "explain"),
    Offer("fetch.command", "", UsageError, "fetch"),
    Offer("hostconfig.credhelper", "credential helpers", _dependency, "ask_helper", "choose_helper"),
    Offer("confine.confinement", "", UsageError, "Confinement"),
    Offer("programs", "", _dependency, "DirectPrograms"),
)


def _nothing(*given: object, **named: object) -> None:
    return None


# what stands for an offer of an absent room, where a copy does without
_INSTEAD: Mapping[str, Callable[..., object]] = {
    "with_signatures": lambda image, *where: image,  # nothing that verifies would ask
    "unread_registries_d": lambda settings: "",  # nor would it be read
    "choose_helper": lambda found, name, warn: found.get(name.partition("/")[0]),  # as podman does
    "DirectPrograms": lambda variables=None: _NoPrograms(),
    **dict.fromkeys(("RegistryReferrers", "LayoutReferrers", "ReadAhead", "start_hashing"), _nothing),
    **dict.fromkeys(("dial_early", "Confinement", "shared_blobs"), _nothing),
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

    def refuse(*given: object, **named: object) -> NoReturn:
        raise offer.refuse(_without(offer.what or " and ".join(room.words) or name, room))

    return _INSTEAD.get(name, refuse)


def _has(room: Room, module: str) -> bool:
    return any(f"{module}.".startswith(f"{each}.") for each in room.modules)


if not TYPE_CHECKING:  # which knows the names from above

    def __getattr__(name: str) -> Any:
        for offer in OFFERS:
            if name in offer.names:
                return _load(name, offer)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _NoPrograms:
    """Stands for the programs that another copy would start."""

    def close(self) -> None:
        """Nothing runs."""

    abandon = close

    def _refuse(self, *given: object, **named: object) -> NoReturn:
        raise _dependency("other programs: not part of this copy, which was made without the room 'programs'")

    verify = decompress = credentials = _refuse

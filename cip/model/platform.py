# SPDX-License-Identifier: Apache-2.0
"""Platforms: what this machine can run, and which entry of an index suits it best (images.md section 6)."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ErrorCode, NotFoundError, quote_own, redacted
from . import mediatype
from .descriptor import Platform
from .jsontree import JsonNode
from .manifest import Index, IndexEntry

LISTED_PLATFORMS = 20  # how many of an index's platforms a refusal names
ZSTD_ANNOTATION = "io.github.containers.compression.zstd"  # "true": the entry whose layers are compressed with zstd

_KIND_ANNOTATION = "vnd.docker.reference.type"  # BuildKit, docs/attestations/attestation-storage.md

# The kernel's names in Go's spelling, which image platforms use; a name that is not here is the same in both.
_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "aarch64_be": "arm64be",
    "armv8l": "arm",
    "armv7l": "arm",
    "armv6l": "arm",
    "armv5tel": "arm",
    "armv5tejl": "arm",
    "i686": "386",
    "i586": "386",
    "i486": "386",
    "i386": "386",
    "loongarch64": "loong64",
}
# Each processor runs its own variant and those behind it.
_LADDERS = {"arm": ("v8", "v7", "v6", "v5"), "arm64": ("v8",), "amd64": ("v4", "v3", "v2")}
_BASE_AMD64 = ("", "v1")  # two names of what every such processor runs
# What each level of x86-64 adds (psABI, table 3.1), as /proc/cpuinfo calls it; osxsave shows there as xsave.
_AMD64_LEVELS = (
    ("v2", frozenset(["cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"])),
    ("v3", frozenset(["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"])),
    ("v4", frozenset(["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"])),
)
_VARIANT_OF_CPU = {
    "v8": ("8", "aarch64"),
    "v7": ("7", "7m", "?(12)", "?(13)", "?(14)", "?(15)", "?(16)", "?(17)"),
    "v6": ("6", "6tej"),
    "v5": ("5", "5t", "5te", "5tej"),
    "v4": ("4", "4t"),
    "v3": ("3",),
}


def wanted_platforms(
    os: str | None, architecture: str | None, variant: str | None, machine: str, cpuinfo: str
) -> tuple[Platform, ...]:
    """The platforms that suit, most wanted first. An override of None or "" is none.

    `machine` is the kernel's name of the machine, `cpuinfo` the text of /proc/cpuinfo; the processor's variant counts
    only while the architecture is this machine's own, because it says nothing about another.
    """
    wanted_architecture = architecture or _ARCHITECTURES.get(machine, machine)
    wanted_variant = variant or ("" if architecture else _detect_variant(wanted_architecture, cpuinfo))
    variants = _variants(wanted_architecture, wanted_variant)
    return tuple(Platform(wanted_architecture, os or "linux", each) for each in variants)


def _variants(architecture: str, variant: str) -> tuple[str, ...]:
    """What suits the variant, best first. Where none is known ARM takes any, amd64 what every processor runs."""
    ladder = _LADDERS.get(architecture, ())
    behind: tuple[str, ...] = ("",)
    if architecture == "amd64":
        behind = _BASE_AMD64
        if variant in _BASE_AMD64:
            return behind
    if not variant:
        return ("", *ladder)
    return (*(ladder[ladder.index(variant) :] if variant in ladder else (variant,)), *behind)


def choose_instance(index: Index, wanted: Sequence[Platform]) -> IndexEntry:
    """The entry of `index` that suits best; media types of entries are not looked at.

    Raises NotFoundError (platform-not-found), which says what there is.
    """
    is_list = index.media_type == mediatype.DOCKER_LIST
    ranks = {platform: rank for rank, platform in reversed([*enumerate(wanted)])}
    best: tuple[int, bool] | None = None
    chosen: IndexEntry | None = None
    for entry in index.entries:
        if is_attestation(entry):
            continue
        if entry.platform is not None:
            position = ranks.get(entry.platform)
        else:
            position = None if is_list else len(wanted)  # OCI: an entry for no platform is the last resort
        if position is None:
            continue
        # A list knows no annotations: only the position counts, and the first of equals.
        plain = is_list or entry.descriptor.annotations.get(ZSTD_ANNOTATION) != "true"
        if best is None or (position, plain) < best:
            best, chosen = (position, plain), entry
    if chosen is None:
        raise _not_found(index, wanted[0])
    return chosen


def contradiction(config: JsonNode, wanted: Sequence[Platform]) -> Platform | None:
    """The platform that an image's `config` states, when it is none of `wanted`; what it leaves out says nothing."""
    members = config.folded(("architecture", "os", "variant"))
    said = {name: node.as_replaced_str() for name, node in members.members()}
    architecture = _ARCHITECTURES.get(said.get("architecture", ""), said.get("architecture", ""))
    stated = Platform(architecture or wanted[0].architecture, said.get("os") or wanted[0].os, said.get("variant", ""))
    fits = any(
        (each.architecture, each.os) == (stated.architecture, stated.os) and stated.variant in ("", each.variant)
        for each in wanted
    )
    return None if fits else stated


def is_attestation(entry: IndexEntry) -> bool:
    """Whether an entry is what BuildKit puts beside an image: a statement about how it was made, and no image."""
    return entry.descriptor.annotations.get(_KIND_ANNOTATION) == "attestation-manifest"


def _not_found(index: Index, wanted: Platform) -> NotFoundError:
    kind = "manifest list" if index.media_type == mediatype.DOCKER_LIST else "image index"
    existing = list(dict.fromkeys(entry.platform for entry in index.entries))
    shown = [redacted(str(platform)) if platform else "one for no platform" for platform in existing[:LISTED_PLATFORMS]]
    if len(existing) > LISTED_PLATFORMS:
        shown.append(f"{len(existing) - LISTED_PLATFORMS} more")
    return NotFoundError(
        f"no image found in {kind} for architecture {quote_own(wanted.architecture)}, "
        f"variant {quote_own(wanted.variant)}, OS {quote_own(wanted.os)}; it has {', '.join(shown) or 'no entries'}",
        code=ErrorCode.PLATFORM_NOT_FOUND,
    )


def _detect_variant(architecture: str, cpuinfo: str) -> str:
    """The processor's variant, as /proc/cpuinfo tells it; only ARM and amd64 have some."""
    if architecture not in _LADDERS:
        return ""
    if architecture == "amd64":
        flags = frozenset(_first_value(cpuinfo, "flags").split())
        reached = ""
        for level, needed in _AMD64_LEVELS:
            if not needed <= flags:
                break
            reached = level
        return reached
    name = _first_value(cpuinfo, "cpu architecture")
    # A kernel quirk: ARMv6 boards such as the first Raspberry Pi call themselves 7.
    if architecture == "arm" and name == "7" and _first_value(cpuinfo, "model name").startswith("armv6-compatible"):
        name = "6"
    return next((variant for variant, names in _VARIANT_OF_CPU.items() if name in names), "")


def _first_value(cpuinfo: str, key: str) -> str:
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() == key:
            return value.strip().lower()
    return ""

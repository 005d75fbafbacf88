# SPDX-License-Identifier: Apache-2.0
"""Platforms: the vector table of images.md 12.2, the ladders of section 6, and the words of a refusal."""

import unittest

from cip.errors import ErrorCode, NotFoundError
from cip.model import mediatype
from cip.model.descriptor import Descriptor, Digest, Platform
from cip.model.jsontree import parse_json
from cip.model.manifest import Index, IndexEntry
from cip.model.platform import LISTED_PLATFORMS, ZSTD_ANNOTATION, choose_instance, contradiction, wanted_platforms

AMD64 = Platform("amd64", "linux", "")
V2 = ["cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"]
V3 = ["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"]
V4 = ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]


def arm(variant: str) -> Platform:
    return Platform("arm", "linux", variant)


def entry(platform: Platform | None, zstd: str = "") -> IndexEntry:
    annotations = {ZSTD_ANNOTATION: zstd} if zstd else {}
    return IndexEntry(Descriptor(mediatype.OCI_MANIFEST, Digest("sha256", "0" * 64), 1, (), annotations), platform)


def index(media_type: str, *entries: IndexEntry) -> Index:
    """An index whose entries are told apart by their sizes, which are their positions."""
    return Index(
        media_type,
        tuple(
            IndexEntry(each.descriptor._replace(size=position), each.platform) for position, each in enumerate(entries)
        ),
    )


def overridden(architecture: str, variant: str = "", os: str = "") -> tuple[Platform, ...]:
    return wanted_platforms(os, architecture, variant, "x86_64", "")


class Choice(unittest.TestCase):
    def test_every_row_of_the_vector_table(self) -> None:
        none, empty = entry(None), entry(Platform("", "", ""))
        unknown, amd64, zstd = entry(Platform("unknown", "unknown", "")), entry(AMD64), entry(AMD64, "true")
        v1, v2, v3 = (entry(Platform("amd64", "linux", variant)) for variant in ("v1", "v2", "v3"))
        arm64, arm64_v8 = entry(Platform("arm64", "linux", "")), entry(Platform("arm64", "linux", "v8"))
        windows = entry(Platform("amd64", "windows", ""))
        v5, v6, v7, v8, plain = entry(arm("v5")), entry(arm("v6")), entry(arm("v7")), entry(arm("v8")), entry(arm(""))
        for row, entries, wanted, in_index, in_list in (
            ("P1", (none, amd64), overridden("amd64"), 1, 1),
            ("P2", (v7, none, none), overridden("amd64"), 1, None),
            ("P3", (empty,), overridden("amd64"), None, None),
            ("P4", (unknown, amd64), overridden("amd64"), 1, 1),
            ("P5", (amd64, zstd), overridden("amd64"), 1, 0),
            ("P6", (zstd, amd64), overridden("amd64"), 0, 0),
            ("P7", (amd64, entry(AMD64, "True")), overridden("amd64"), 0, 0),
            ("P8", (entry(None, "true"), amd64), overridden("amd64"), 1, 1),
            ("P9", (none, entry(None, "true")), overridden("amd64"), 1, None),
            ("P10", (amd64, amd64), overridden("amd64"), 0, 0),
            ("P12", (v8, v7, v5, plain), overridden("arm", "v6"), 2, 2),
            ("P13", (v8, plain, v5, v6), overridden("arm", "v7"), 3, 3),
            ("P14", (v5, v7), overridden("arm"), 1, 1),
            ("P15", (v8, plain), overridden("arm"), 1, 1),
            ("P16", (arm64_v8, arm64), overridden("arm64"), 1, 1),
            ("P17", (arm64, arm64_v8), overridden("arm64", "v8"), 1, 1),
            ("P18", (arm64_v8, arm64), overridden("arm64", "v9"), 1, 1),
            ("P19", (v3, amd64), overridden("amd64", "v3"), 0, 0),
            ("P20", (v3,), overridden("amd64", "v2"), None, None),
            ("P21", (v3,), overridden("amd64"), None, None),
            ("", (v1,), overridden("amd64"), 0, 0),
            ("", (v1, amd64), overridden("amd64", "v1"), 1, 1),
            ("", (amd64, v2, v3), overridden("amd64", "v3"), 2, 2),
            ("", (amd64, v2, v3), overridden("amd64", "v2"), 1, 1),
            ("", (amd64, v3), overridden("amd64", "v5"), 0, 0),
            ("P22", (windows,), overridden("amd64"), None, None),
            ("P23", (windows,), overridden("amd64", os="windows"), 0, 0),
            ("P24", (), overridden("amd64"), None, None),
        ):
            for media_type, expected in ((mediatype.OCI_INDEX, in_index), (mediatype.DOCKER_LIST, in_list)):
                with self.subTest(row, media_type=media_type):
                    if expected is None:
                        with self.assertRaises(NotFoundError):
                            choose_instance(index(media_type, *entries), wanted)
                    else:
                        chosen = choose_instance(index(media_type, *entries), wanted)
                        self.assertEqual(chosen.descriptor.size, expected)

    def test_an_attestation_is_never_chosen(self) -> None:
        attestation = entry(None)
        annotations = {"vnd.docker.reference.type": "attestation-manifest"}
        attestation = IndexEntry(attestation.descriptor._replace(annotations=annotations), None)
        found = index(mediatype.OCI_INDEX, attestation, entry(None))
        self.assertEqual(choose_instance(found, overridden("amd64")).descriptor.size, 1)
        with self.assertRaises(NotFoundError):
            choose_instance(index(mediatype.OCI_INDEX, attestation), overridden("amd64"))

    def test_a_refusal_says_what_was_wanted_and_what_there_is(self) -> None:
        found = index(mediatype.OCI_INDEX, entry(arm("v7")), entry(Platform("s390x", "linux", "")), entry(arm("v7")))
        with self.assertRaisesRegex(
            NotFoundError,
            r"in image index for architecture 'amd64', variant '', OS 'linux'; it has "
            r"linux/arm/v7, linux/s390x$",
        ) as caught:
            choose_instance(found, overridden("amd64"))
        self.assertEqual(caught.exception.code, ErrorCode.PLATFORM_NOT_FOUND)

    def test_a_refusal_of_a_manifest_list_calls_it_one(self) -> None:
        with self.assertRaisesRegex(NotFoundError, "manifest list .* it has one for no platform$"):
            choose_instance(index(mediatype.DOCKER_LIST, entry(None)), overridden("amd64"))

    def test_a_refusal_stays_short_however_many_entries_there_are(self) -> None:
        entries = [entry(Platform("a" * 5000 + str(number), "linux", "\n")) for number in range(3000)]
        with self.assertRaisesRegex(NotFoundError, f"{3000 - LISTED_PLATFORMS} more$") as caught:
            choose_instance(index(mediatype.OCI_INDEX, *entries), overridden("amd64"))
        self.assertLess(len(str(caught.exception)), 4096)
        self.assertNotIn("\n", str(caught.exception))

    def test_a_refusal_counts_only_what_it_leaves_out(self) -> None:
        self.assertEqual(LISTED_PLATFORMS, 20)
        entries = [entry(Platform(f"a{number}", "linux", "")) for number in range(21)]
        for count, end in ((20, "linux/a19$"), (21, "linux/a19, 1 more$")):
            with self.subTest(count), self.assertRaisesRegex(NotFoundError, end):
                choose_instance(index(mediatype.OCI_INDEX, *entries[:count]), overridden("amd64"))

    def test_a_refusal_of_an_empty_index_says_so(self) -> None:
        with self.assertRaisesRegex(NotFoundError, "it has no entries$"):
            choose_instance(index(mediatype.OCI_INDEX), overridden("amd64"))


class Stated(unittest.TestCase):
    def stated(self, config: str, wanted: tuple[Platform, ...]) -> str | None:
        found = contradiction(parse_json(config.encode(), "config"), wanted)
        return None if found is None else str(found)

    def test_what_a_config_leaves_out_contradicts_nothing(self) -> None:
        for config in (
            "{}",
            '{"architecture":"","os":""}',
            '{"os":"linux"}',
            '{"architecture":"arm64"}',
            '{"variant":"v8"}',
            '{"architecture":"aarch64","os":"linux"}',
            '{"architecture":null}',
        ):
            with self.subTest(config):
                self.assertIsNone(self.stated(config, overridden("arm64")))

    def test_another_architecture_system_or_variant_is_told(self) -> None:
        for config, wanted, found in (
            ('{"architecture":"amd64"}', overridden("arm64"), "linux/amd64"),
            ('{"architecture":"arm64","os":"windows"}', overridden("arm64"), "windows/arm64"),
            ('{"ARCHITECTURE":"arm","variant":"v7"}', overridden("arm", "v6"), "linux/arm/v7"),
            ('{"architecture":"arm","variant":"v5"}', overridden("arm", "v6"), None),
            ('{"architecture":"amd64","variant":"v3"}', overridden("amd64", "v2"), "linux/amd64/v3"),
            ('{"architecture":"amd64","variant":"v1"}', overridden("amd64"), None),
            ('{"architecture":"x86_64"}', overridden("amd64"), None),
        ):
            with self.subTest(config):
                self.assertEqual(self.stated(config, wanted), found)


class Wanted(unittest.TestCase):
    def _variants(self, machine: str, cpuinfo: str = "") -> tuple[str, ...]:
        return tuple(platform.variant for platform in wanted_platforms(None, None, None, machine, cpuinfo))

    def test_the_names_of_the_kernel_become_those_of_images(self) -> None:
        for machine, architecture in (
            ("x86_64", "amd64"),
            ("aarch64", "arm64"),
            ("armv6l", "arm"),
            ("armv7l", "arm"),
            ("armv8l", "arm"),
            ("i686", "386"),
            ("loongarch64", "loong64"),
            ("ppc64le", "ppc64le"),
            ("s390x", "s390x"),
            ("riscv64", "riscv64"),
        ):
            with self.subTest(machine):
                first = wanted_platforms(None, None, None, machine, "")[0]
                self.assertEqual((first.architecture, first.os), (architecture, "linux"))

    def test_the_variant_of_this_processor_comes_first(self) -> None:
        for machine, cpuinfo, variants in (
            ("aarch64", "CPU architecture: 8\n", ("v8", "")),
            ("aarch64", "CPU architecture: AArch64\n", ("v8", "")),
            ("aarch64", "", ("", "v8")),
            ("armv7l", "processor\t: 0\nCPU architecture\t: 7\n", ("v7", "v6", "v5", "")),
            ("armv7l", "cpu ARCHITECTURE: 7M\nCPU architecture: 4\n", ("v7", "v6", "v5", "")),
            ("armv7l", "CPU architecture: ?(17)\n", ("v7", "v6", "v5", "")),
            ("armv6l", "model name: ARMv6-compatible processor rev 7\nCPU architecture: 7\n", ("v6", "v5", "")),
            ("armv6l", "CPU architecture: 6TEJ\n", ("v6", "v5", "")),
            ("armv5tel", "CPU architecture: 5TE\n", ("v5", "")),
            ("armv5tel", "CPU architecture: 4T\n", ("v4", "")),
            ("armv7l", "CPU architecture: 3\n", ("v3", "")),
            ("armv7l", "CPU architecture: 99\n", ("", "v8", "v7", "v6", "v5")),
            ("armv7l", "CPU architecture", ("", "v8", "v7", "v6", "v5")),
            ("x86_64", "CPU architecture: 8\n", ("", "v1")),
            ("x86_64", "flags : fpu lm\nflags : " + " ".join(V2) + "\n", ("", "v1")),
            ("x86_64", f"flags\t\t: {' '.join(V2)}\n", ("v2", "", "v1")),
            ("x86_64", f"flags\t\t: {' '.join(V3)}\n", ("", "v1")),
            ("x86_64", f"flags\t\t: {' '.join((*V2, *V3))}\n", ("v3", "v2", "", "v1")),
            ("x86_64", f"flags\t\t: {' '.join((*V2, *V3[1:], *V4))}\n", ("v2", "", "v1")),
            ("x86_64", f"flags\t\t: {' '.join((*V2, *V3, *V4))}\n", ("v4", "v3", "v2", "", "v1")),
            ("riscv64", f"flags: {' '.join(V2)}\n", ("",)),
        ):
            with self.subTest(machine, cpuinfo=cpuinfo):
                self.assertEqual(self._variants(machine, cpuinfo), variants)

    def test_a_64_bit_processor_is_not_taken_for_the_old_board_with_the_wrong_number(self) -> None:
        quirk = "CPU architecture: 7\nmodel name: ARMv6-compatible\n"
        self.assertEqual(self._variants("aarch64", quirk), ("v7", ""))

    def test_the_processor_says_nothing_about_an_architecture_that_was_asked_for(self) -> None:
        wanted = wanted_platforms(None, "arm64", None, "aarch64", "CPU architecture: 8\n")
        self.assertEqual([platform.variant for platform in wanted], ["", "v8"])

    def test_a_variant_that_was_asked_for_replaces_that_of_the_processor(self) -> None:
        wanted = wanted_platforms(None, None, "v6", "armv7l", "CPU architecture: 7\n")
        self.assertEqual([platform.variant for platform in wanted], ["v6", "v5", ""])

    def test_another_operating_system_keeps_architecture_and_variant(self) -> None:
        self.assertEqual(
            wanted_platforms("freebsd", None, None, "aarch64", "CPU architecture: 8\n")[0],
            Platform("arm64", "freebsd", "v8"),
        )


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""What refers to an image: found by the API or the tag, chosen by what the manifests say (bundles.md 1 and 5)."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
import tracemalloc
import unittest
from collections.abc import Mapping, Sequence
from typing import Any

from cip.errors import CipError, ContentMismatchError, ErrorCode, NotFoundError
from cip.model import mediatype
from cip.model.descriptor import Digest, digest_of
from cip.model.referrers import (
    CONTENT_KEY,
    DANGLING,
    FOREIGN,
    LIST_LIMIT,
    OTHER_TYPE,
    PREDICATE_KEY,
    SUBJECT_KEY,
    VERIFIED_KEY,
    fallback_tag,
    parse_referrers,
)
from cip.model.signature import FoundBundles
from cip.referrers import CANDIDATE_LIMIT, ImageReferrers, find_bundles
from cip.registry.referrers import PAGE_LIMIT, PAGES_LIMIT, next_links
from cip.registry.source import RegistrySource
from cip.sources.base import BlobAccess
from tests.support.origins import Asked, Reply, Script, reply
from tests.support.peers import skip_where_asked
from tests.support.referrers import (
    BUNDLE,
    EMPTY_CONFIG,
    SIGNING,
    carrier,
    described,
    entries_of,
    listed,
    listing,
    tag_of,
)
from tests.unit.test_source import SourceCase

skip_where_asked("yaml")  # packagers without it: no configuration asks for what refers to an image then

IMAGE = b'{"image":1}'
D = digest_of(IMAGE)
OTHER = digest_of(b"another image")
BLOB = b'{"mediaType":"a bundle"}'
GOOD = carrier(D, BLOB, annotations=SIGNING)
ABSENT = b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}'
INDEX = {"Content-Type": mediatype.OCI_INDEX}
USED = """docker:
  r.example: {use-sigstore-bundles: true}
  mirror.example: {use-sigstore-bundles: true}
"""


class FakeRegistry:
    """One repository that knows the manifests and blobs it is given; `api` and `tag` answer for the lists."""

    def __init__(self, *manifests: bytes, blobs: Sequence[bytes] = (BLOB, EMPTY_CONFIG)) -> None:
        self.manifests = {str(digest_of(data)): data for data in (IMAGE, *manifests)}
        self.blobs = {str(digest_of(data)): data for data in blobs}
        self.api: Reply | Script = reply(404, b"404 page not found\n")
        self.tag: Reply | Script = reply(404, ABSENT)

    def __call__(self, asked: Asked) -> Reply:
        kind, _, name = asked.target.partition("?")[0].rpartition("/")
        kind = kind.rpartition("/")[2]
        if kind == "referrers":
            return self.api(asked) if callable(self.api) else self.api
        if kind == "blobs":
            return reply(200, self.blobs[name]) if name in self.blobs else reply(404, b"")
        if name.startswith("sha256-"):
            return self.tag(asked) if callable(self.tag) else self.tag
        data = self.manifests.get("sha256:" + D.encoded if name == "t" else name)
        return reply(404, ABSENT) if data is None else reply(200, data, {"Content-Type": mediatype.OCI_MANIFEST})


def lists(*manifests: bytes | Mapping[str, Any]) -> Reply:
    """A list of entries, or of manifests as cosign lists them."""
    return reply(200, listing([each if isinstance(each, Mapping) else listed(each) for each in manifests]), INDEX)


class FindCase(SourceCase):
    def setUp(self) -> None:
        super().setUp()
        self.host.write("/etc/containers/registries.d/used.yaml", USED)
        self.registry = FakeRegistry(GOOD)

    def source(self) -> RegistrySource:
        self.origins.add("https://r.example:443", self.registry)
        source = self.open()
        source.manifest(None)
        return source

    def find(self, source: RegistrySource | None = None, *, attached: bool = False) -> FoundBundles:
        referrers = (source or self.source()).referrer_source()
        assert referrers is not None
        found = referrers.bundles(D, attached=attached)
        return FoundBundles() if found is None else find_bundles(found, D)

    def found(self) -> list[bytes]:
        """The bundles there are."""
        return [each.data for each in self.find().bundles]

    def fails(self, reason: str, code: ErrorCode, source: RegistrySource | None = None) -> CipError:
        with self.assertRaisesRegex(CipError, reason) as caught:
            self.find(source)
        self.assertIs(caught.exception.code, code)
        return caught.exception

    def asked_after_the_image(self) -> list[str]:
        return [target.removeprefix("/v2/a/b/") for target in self.origins.targets()[1:]]


class ApiTest(FindCase):
    def test_d30_one_bundle_costs_three_requests_with_the_api(self) -> None:
        self.registry.api = lists(GOOD)
        self.assertEqual(self.found(), [BLOB])
        expected = [f"referrers/{D}", f"manifests/{digest_of(GOOD)}", f"blobs/{digest_of(BLOB)}"]
        self.assertEqual(self.asked_after_the_image(), expected)
        self.assertEqual(self.origins.asked[1].fields["accept"], mediatype.OCI_INDEX)
        self.assertEqual(self.origins.asked[2].fields["accept"], mediatype.OCI_MANIFEST)

    def test_d31_to_d37_what_has_no_api_is_asked_for_the_tag(self) -> None:
        name_unknown = b'{"errors":[{"code":"NAME_UNKNOWN"}]}'
        for row, answer in (
            ("D31", reply(404)),
            ("D32", reply(404, name_unknown)),
            ("D33", reply(400)),
            ("D33b", reply(406)),
            ("D33c", reply(405)),
            ("D33d", reply(501)),
            ("D36", reply(200, b"<html>", {"Content-Type": "text/html"})),
            ("D37", reply(200, listing([listed(GOOD)]), {"Content-Type": "application/json"})),
        ):
            with self.subTest(row):
                self.origins.asked.clear()
                self.registry.api, self.registry.tag = answer, lists(GOOD)
                self.assertEqual(self.found(), [BLOB])
                self.assertEqual(len(self.asked_after_the_image()), 4)
                self.assertEqual(self.asked_after_the_image()[1], f"manifests/{tag_of(D)}")

    def test_d33e_to_d33g_another_answer_is_a_fault_and_no_tag_is_asked(self) -> None:
        for row, status, code in (
            ("D33e", 401, ErrorCode.AUTHENTICATION_FAILED),
            ("D33f", 403, ErrorCode.AUTHENTICATION_FAILED),
            ("D33g", 500, ErrorCode.REGISTRY_ERROR),
            ("429", 429, ErrorCode.RATE_LIMITED),
            ("410", 410, ErrorCode.REGISTRY_ERROR),
        ):
            with self.subTest(row):
                self.origins.asked.clear()
                self.registry.api, self.registry.tag = reply(status), lists(GOOD)
                error = self.fails(str(status), code)
                self.assertEqual(error.retryable, status in (500, 429))
                self.assertNotIn(f"manifests/{tag_of(D)}", self.asked_after_the_image())

    def test_d34_an_empty_list_is_final(self) -> None:
        self.registry.api, self.registry.tag = lists(), lists(GOOD)
        self.assertEqual(self.found(), [])
        self.assertEqual(self.asked_after_the_image(), [f"referrers/{D}"])
        self.registry.api = reply(200, b'{"schemaVersion":2,"manifests":null}', INDEX)
        self.assertEqual(self.found(), [])

    def test_d35_pages_are_followed(self) -> None:
        for link in (
            f'</v2/a/b/referrers/{D}?page=2>; rel="next"',
            f"<https://r.example/v2/a/b/referrers/{D}?page=2>;rel=next",
            '<?page=2>; title="a, b"; REL="last next"',
            "</elsewhere>; rel=last, <?page=2>; rel=next",
        ):
            with self.subTest(link):
                other = carrier(OTHER, b"x")

                def pages(asked: Asked, link: str = link, other: bytes = other) -> Reply:
                    if asked.target.endswith("?page=2"):
                        return lists(GOOD)
                    return reply(200, listing([listed(other)]), {**INDEX, "Link": link})

                self.registry = FakeRegistry(GOOD, other)
                self.registry.api = pages
                self.assertEqual(self.found(), [BLOB])

    def test_d40_a_next_page_that_leads_astray_is_a_fault(self) -> None:
        for row, link, reason in (
            (
                "D40",
                "<https://other.example/v2/x>; rel=next",
                "at the same registry, found the next page at https://other",
            ),
            ("port", "<https://r.example:444/v2/x>; rel=next", "same registry"),
            ("scheme", "<http://r.example/v2/x>; rel=next", "same registry"),
            ("D40b", f"</v2/a/b/referrers/{D}>; rel=next", "a page that was there before"),
            ("two", "</a>; rel=next, </b>; rel=next", "two next pages"),
            ("no URL", "<https://a b>; rel=next", "no URL"),
        ):
            with self.subTest(row):
                self.registry.api = reply(200, listing([]), {**INDEX, "Link": link})
                self.fails(reason, ErrorCode.REGISTRY_ERROR)

    def test_links_are_read_in_one_pass(self) -> None:
        for part in ("<>;", "<>;a=", '<>;a="', '<>;a="<>;b=";c="'):
            with self.subTest(part):
                begin = time.process_time()
                self.assertEqual(next_links([part * 16_384]), set())
                self.assertLess(time.process_time() - begin, 2)

    def test_d40c_d40d_pages_and_entries_are_counted(self) -> None:
        def endless(asked: Asked) -> Reply:
            page = int(asked.target.partition("?p=")[2] or 0) + 1
            return reply(200, listing([]), {**INDEX, "Link": f"<?p={page}>; rel=next"} if page < self.pages else INDEX)

        self.registry.api = endless
        self.pages = PAGE_LIMIT
        self.assertEqual(self.found(), [])
        self.pages = PAGE_LIMIT + 1
        self.fails("more than 64 pages", ErrorCode.REGISTRY_ERROR)

        def many(asked: Asked) -> Reply:
            half = listing([listed(GOOD)] * 2048 if "?" not in asked.target else [listed(GOOD)] * self.pages)
            return reply(200, half, INDEX if "?" in asked.target else {**INDEX, "Link": "<?p=2>; rel=next"})

        self.registry.api = many
        self.pages = 2048
        self.assertEqual(self.found(), [BLOB])
        self.pages = 2049
        self.fails("at most 4096 referrers, found more", ErrorCode.LIMIT_EXCEEDED)

        def large(asked: Asked) -> Reply:
            page = int(asked.target.partition("?p=")[2] or 0) + 1
            data = listing([listed(GOOD)] * (page == 1)).ljust(LIST_LIMIT)
            return reply(200, data, {**INDEX, "Link": f"<?p={page}>; rel=next"} if page < self.pages else INDEX)

        self.registry.api = large
        self.pages = PAGES_LIMIT // LIST_LIMIT
        self.assertEqual(self.found(), [BLOB])
        self.pages += 1
        self.fails("larger than 16777216 bytes", ErrorCode.LIMIT_EXCEEDED)

    def test_what_is_kept_of_a_list_is_not_larger_than_its_text(self) -> None:
        """A registry may fill its entries with what takes thirty times as much memory as values."""
        odd = {"annotations": {f"{number:x}": "" for number in range(50_000)}, "x": [[] for _ in range(50_000)]}
        data = listing([{**listed(GOOD), **odd}])
        tracemalloc.start()
        try:
            kept = parse_referrers(data, "list")
            self.assertLess(tracemalloc.get_traced_memory()[0], 2 * len(data))
        finally:
            tracemalloc.stop()
        self.assertEqual(json.loads(kept[0].text)["annotations"], odd["annotations"])

    def test_a_list_of_the_right_type_that_cannot_be_read_is_a_fault(self) -> None:
        for row, answer, code in (
            ("not JSON", reply(200, b"{", INDEX), ErrorCode.MANIFEST_INVALID),
            ("no list", reply(200, b'{"schemaVersion":2}', INDEX), ErrorCode.MANIFEST_INVALID),
            ("version", reply(200, b'{"schemaVersion":1,"manifests":[]}', INDEX), ErrorCode.MANIFEST_INVALID),
            (
                "twice",
                reply(200, b'{"schemaVersion":2,"manifests":[],"manifests":[]}', INDEX),
                ErrorCode.MANIFEST_INVALID,
            ),
            (
                "another type inside",
                reply(200, b'{"schemaVersion":2,"mediaType":"x","manifests":[]}', INDEX),
                ErrorCode.MANIFEST_INVALID,
            ),
            ("large", reply(200, b" " * (4 * 1024 * 1024 + 1), INDEX), ErrorCode.LIMIT_EXCEEDED),
            ("coded", reply(200, listing([]), {**INDEX, "Content-Encoding": "gzip"}), ErrorCode.CONTENT_MISMATCH),
            ("cut", reply(200, b'{"sch', {**INDEX, "Content-Length": "90"}, then="close"), ErrorCode.CONNECTION_LOST),
        ):
            with self.subTest(row):
                self.registry.api = answer
                self.fails("", code)

    def test_the_missing_api_is_remembered(self) -> None:
        self.registry.tag = lists(GOOD)
        source = self.source()
        self.find(source)
        self.find(source)
        self.assertEqual(sum("referrers/" in target for target in self.origins.targets()), 1)


class TagTest(FindCase):
    def test_the_tag_is_cut_as_the_specification_says(self) -> None:
        self.assertEqual(fallback_tag(D), f"sha256-{D.encoded}")
        long = Digest("sha512", hashlib.sha512(b"").hexdigest())
        self.assertEqual(fallback_tag(long), f"sha512-{long.encoded[:64]}")

    def test_d20_to_d22_what_is_no_list_lists_nothing(self) -> None:
        for row, answer in (
            ("D20", reply(200, GOOD, {"Content-Type": mediatype.OCI_MANIFEST})),
            ("D21", lists()),
            ("D22", reply(200, IMAGE, INDEX)),
        ):
            with self.subTest(row):
                self.origins.asked.clear()
                self.registry.tag = answer
                self.assertEqual(self.found(), [])
                self.assertEqual(len(self.asked_after_the_image()), 2)

    def test_d41_d42_only_what_is_not_found_is_none(self) -> None:
        harbor = b'{"errors":[{"code":"NOT_FOUND","message":"resource not found: repository a not found"}]}'
        redhat = b'{"errors":[{"code":"UNKNOWN","message":"Not Found"}]}'
        for row, body in (("D41", harbor), ("D41b", redhat), ("D41c", b"404 page not found"), ("", ABSENT)):
            with self.subTest(row):
                self.registry.tag = reply(404, body)
                self.assertEqual(self.found(), [])
        for row, answer in (
            ("D42", reply(404, b'{"errors":[{"code":"NAME_UNKNOWN"}]}')),
            ("D42b", reply(403)),
            ("D42c", reply(200, listing([listed(GOOD)])[:-9], INDEX)),
            ("500", reply(500)),
        ):
            with self.subTest(row), self.assertRaises(CipError):
                self.registry.tag = answer
                self.find()


class CandidateTest(FindCase):
    def offer(self, *manifests: bytes | Mapping[str, Any], known: Sequence[bytes] = ()) -> None:
        whole = [each for each in manifests if isinstance(each, bytes)]
        self.registry = FakeRegistry(GOOD, *whole, *known, blobs=(BLOB,))
        self.registry.api = lists(*manifests)

    def test_entries_are_known_by_what_their_manifests_say(self) -> None:
        for row, entry in (
            ("D01", listed(GOOD)),
            ("D02", listed(GOOD, None)),
            ("empty", listed(GOOD, "")),
            ("config type", listed(GOOD, mediatype.OCI_CONFIG)),
            ("bundle", listed(GOOD, BUNDLE)),
            ("annotated", listed(GOOD, annotations=dict(SIGNING))),
        ):
            with self.subTest(row):
                self.offer(entry)
                self.assertEqual(self.found(), [BLOB])
        foreign = carrier(D, BLOB, kind="application/x")
        self.offer(listed(foreign), known=[foreign])
        self.assertEqual(self.found(), [BLOB], "D12: the layer decides")

    def test_what_is_no_bundle_about_the_image_is_counted_and_not_fetched_further(self) -> None:
        spdx = {PREDICATE_KEY: "https://spdx.dev/Document"}
        plain = {CONTENT_KEY: "message-signature"}
        for row, manifest, entry, requests, expected in (
            ("D03", carrier(None, BLOB), {}, 2, (("1 " + FOREIGN,), ())),
            ("D04", carrier(OTHER, BLOB), {}, 2, (("1 " + FOREIGN,), ())),
            ("D13", carrier(D, BLOB, layer_type="text/plain"), {}, 2, (("1 " + OTHER_TYPE,), ())),
            ("D14", carrier(D, BLOB, BLOB), {}, 2, (("1 " + OTHER_TYPE,), ())),
            ("no layer", carrier(D), {}, 2, (("1 " + OTHER_TYPE,), ())),
            ("no manifest", b"{}", {}, 2, (("1 " + OTHER_TYPE,), ())),
            ("D44", carrier(D, BLOB), {"annotations": spdx}, 1, ((), ("https://spdx.dev/Document",))),
            ("D44 inside", carrier(D, BLOB, annotations=spdx), {}, 2, ((), ("https://spdx.dev/Document",))),
            ("message", carrier(D, BLOB), {"annotations": plain}, 1, ((), ("",))),
            ("index", carrier(D, BLOB), {"media_type": mediatype.OCI_INDEX}, 1, (("1 " + OTHER_TYPE,), ())),
            ("other", carrier(D, BLOB), {"kind": "application/spdx+json"}, 1, (("1 " + OTHER_TYPE,), ())),
        ):
            with self.subTest(row):
                self.origins.asked.clear()
                self.offer(listed(manifest, **entry), known=[manifest])
                found = self.find()
                self.assertEqual((found.bundles, found.others, found.attestations), ((), *expected))
                self.assertEqual(len(self.asked_after_the_image()), requests)

    def test_d38_a_stale_entry_hides_no_good_one(self) -> None:
        gone = carrier(D, b"gone")
        self.offer(listed(gone), GOOD)
        found = self.find()
        self.assertEqual([each.data for each in found.bundles], [BLOB])
        self.assertEqual(found.others, ("1 " + DANGLING,))

    def test_d39_d43_what_is_listed_wrongly_is_a_fault(self) -> None:
        self.offer({**listed(GOOD), "size": len(GOOD) + 1})
        self.fails("bytes as listed, found", ErrorCode.CONTENT_MISMATCH)
        self.offer(GOOD)
        self.registry.manifests[str(digest_of(GOOD))] = GOOD.replace(b"dsse", b"ddse")
        self.fails("expected digest", ErrorCode.CONTENT_MISMATCH)
        self.offer(GOOD)
        self.registry.blobs[str(digest_of(BLOB))] = BLOB[::-1]
        self.fails("", ErrorCode.CONTENT_MISMATCH)

    def test_d43b_a_missing_bundle_is_told_and_hides_no_good_one(self) -> None:
        lost = carrier(D, b"lost")
        self.offer(lost, GOOD)
        first, second = self.find().bundles
        self.assertEqual((first.data, first.fault, second.data), (b"", "the bundle is missing", BLOB))
        self.assertEqual(second.origin, f"r.example/a/b (referrer {digest_of(GOOD)}, by API)")
        self.assertEqual((second.digest, second.referrer), (str(digest_of(BLOB)), str(digest_of(GOOD))))

    def test_b41_a_bundle_has_a_largest_size(self) -> None:
        large = carrier(D, b"x" * (4 * 1024 * 1024 + 1))
        self.offer(large)
        self.fails("larger than 4194304 bytes", ErrorCode.LIMIT_EXCEEDED)

    def test_an_entry_listed_twice_is_fetched_once(self) -> None:
        self.offer(GOOD, listed(GOOD, BUNDLE))
        self.assertEqual(self.found(), [BLOB])
        self.assertEqual(len(self.asked_after_the_image()), 3)

    def test_the_number_of_candidates_is_limited(self) -> None:
        strays = [carrier(OTHER, b"%d" % number) for number in range(CANDIDATE_LIMIT + 1)]
        self.offer(*strays[:-1], listed(strays[-1], "application/x"))
        self.assertEqual(self.find().others, (f"{CANDIDATE_LIMIT} {FOREIGN}", f"1 {OTHER_TYPE}"))
        self.offer(*strays)
        self.fails("at most 128 that may be signatures", ErrorCode.LIMIT_EXCEEDED)


class PlacesTest(FindCase):
    def setUp(self) -> None:
        super().setUp()
        self.mirrored()
        self.mirror = FakeRegistry(GOOD)

    def source(self) -> RegistrySource:
        self.origins.add("https://mirror.example:443", self.mirror)
        return super().source()

    def test_d47_the_next_place_is_asked_where_the_first_has_neither(self) -> None:
        self.registry.api = lists(GOOD)
        source = self.source()
        (bundle,) = self.find(source).bundles
        self.assertTrue(bundle.origin.startswith("r.example/a/b (referrer "))
        referrers = source.referrer_source()
        assert referrers is not None
        places = referrers.bundle_locations()
        shown = f"sha256-{D.encoded[:12]}…"
        self.assertEqual(
            list(places),
            [f"bundles of mirror.example/cache/a/b (no referrers API, no tag {shown})", "bundles of r.example/a/b"],
        )

    def test_an_answer_of_the_first_place_is_final(self) -> None:
        for answer in ("api", "tag"):
            with self.subTest(answer):
                self.origins.asked.clear()
                self.registry.api = lists(GOOD)
                setattr(self.mirror, answer, lists())
                self.assertEqual(self.found(), [])
                self.assertEqual(self.origins.targets("r.example:443"), [])

    def test_where_bundles_are_looked_for_is_said_of_each_place(self) -> None:
        self.registry.api = self.mirror.api = lists(GOOD)
        for row, text, attached, host in (
            ("mirror alone", "mirror.example: {use-sigstore-bundles: true}", True, "mirror.example/cache"),
            ("primary alone", "r.example: {use-sigstore-bundles: true}", True, "r.example"),
            ("D46", "r.example: {use-sigstore-bundles: false, use-sigstore-attachments: true}", False, ""),
            ("nothing said", "r.example: {lookaside: 'https://l.example'}", False, ""),
            ("D46b", "r.example: {use-sigstore-attachments: true}", False, "r.example"),
            ("D45", "r.example: {use-sigstore-attachments: true}", True, ""),
        ):
            with self.subTest(row):
                self.host.write("/etc/containers/registries.d/used.yaml", f"docker:\n  {text}\n")
                found = self.find(attached=attached).bundles
                self.assertEqual([each.origin.partition("/a/b ")[0] for each in found], [host] if host else [])


class ParentCase(FindCase):
    signatures: frozenset[str] = frozenset()

    def referrers(self, *subjects: Digest) -> ImageReferrers:
        source = self.source().referrer_source()
        return ImageReferrers("docker://r.example/a/b:t", source, subjects or (D,), self.signatures)

    def refused(self, reason: str, code: ErrorCode, artifact_type: str | None = None) -> None:
        with self.assertRaisesRegex(CipError, reason) as caught:
            self.referrers().index(artifact_type)
        self.assertIs(caught.exception.code, code)


class ListTest(ParentCase):
    def test_l01_the_lists_of_index_and_instance_become_one(self) -> None:
        sbom = carrier(D, b"sbom", kind="application/spdx+json")
        about_index = carrier(OTHER, b"about the index")

        def answer(asked: Asked) -> Reply:
            if str(OTHER) in asked.target:
                return lists(about_index, GOOD)
            if "?" in asked.target:
                return lists({**listed(GOOD), "data": "e30=", "x": 1})
            return reply(200, listing([listed(sbom, "application/spdx+json")]), {**INDEX, "Link": "<?n>; rel=next"})

        self.registry.api = answer
        data, count = self.referrers(OTHER, D).index()
        entries = entries_of(data)
        self.assertEqual([each["digest"] for each in entries], [str(digest_of(m)) for m in (about_index, GOOD, sbom)])
        self.assertEqual(count, 3)
        self.assertEqual([each["annotations"][SUBJECT_KEY] for each in entries], [str(OTHER), str(OTHER), str(D)])
        self.assertEqual(entries[2]["artifactType"], "application/spdx+json")

    def test_members_are_passed_on_and_our_annotations_are_ours(self) -> None:
        self.signatures = frozenset({str(digest_of(GOOD))})
        theirs = {VERIFIED_KEY: "signature", SUBJECT_KEY: "x", "a": "b"}
        sbom = carrier(D, b"sbom")
        self.registry.api = lists(GOOD, {**listed(sbom, annotations=theirs), "x": [1]})
        first, second = entries_of(self.referrers().index()[0])
        self.assertEqual(first["annotations"], {SUBJECT_KEY: str(D), VERIFIED_KEY: "signature"})
        annotations = {"a": "b", SUBJECT_KEY: str(D), VERIFIED_KEY: "no"}
        self.assertEqual((second["x"], second["annotations"]), ([1], annotations), "L10, L10b, L11")

    def test_beside_the_mark_stands_nothing_that_was_not_signed(self) -> None:
        """Whoever asks for SBOMs and reads the mark would take a type, an annotation or inline data for signed."""
        self.signatures = frozenset({str(digest_of(GOOD))})
        spdx = "application/spdx+json"
        self.registry.api = lists({**listed(GOOD, spdx, annotations={"title": "sbom"}), "data": "e30=", "x": 1})
        for asked in (None, BUNDLE):
            (only,) = entries_of(self.referrers().index(asked)[0])
            self.assertEqual(only["annotations"], {SUBJECT_KEY: str(D), VERIFIED_KEY: "signature"})
            self.assertLessEqual(only.keys(), {"mediaType", "digest", "size", "annotations", "artifactType"})
            self.assertIn(only.get("artifactType"), (None, BUNDLE))
        self.assertEqual(self.referrers().index(spdx)[1], 0)

    def test_a_manifest_that_carries_more_than_its_bundle_is_not_marked(self) -> None:
        whole = json.loads(carrier(D, BLOB, annotations=SIGNING))
        config = {"mediaType": "application/spdx+json", "digest": str(digest_of(b"forged")), "size": 6}
        for members, marked in (
            ({}, True),
            ({"artifactType": None}, True),
            ({"artifactType": "application/spdx+json"}, False),
            ({"config": config}, False),
            ({"config": {**config, "mediaType": mediatype.OCI_EMPTY}}, False),
        ):
            data = json.dumps({key: value for key, value in {**whole, **members}.items() if value is not None}).encode()
            self.registry = FakeRegistry(data)
            self.registry.api = lists(listed(data, None))
            with self.subTest(members):
                (bundle,) = self.find().bundles
                self.assertEqual(bundle.referrer, str(digest_of(data)) if marked else "")

    def test_what_has_no_utf_8_form_is_replaced(self) -> None:
        self.registry.api = lists({**listed(GOOD), "data": "a\ud800", "\udfff": 1})
        (only,) = entries_of(self.referrers().index()[0].decode().encode())
        self.assertEqual((only["data"], only["\ufffd"]), ("a\ufffd", 1))

    def test_l03_types_that_the_list_lacks_come_from_the_manifests(self) -> None:
        untyped = carrier(D, BLOB, kind=None)
        self.registry = FakeRegistry(GOOD, untyped)
        gone = carrier(D, b"gone")
        self.registry.api = lists(GOOD, listed(untyped, None), listed(gone, None), listed(GOOD[:-1], "x"))
        (only,) = entries_of(self.referrers().index(BUNDLE)[0])
        self.assertEqual((only["digest"], only["artifactType"]), (str(digest_of(GOOD)), BUNDLE))
        (only,) = entries_of(self.referrers().index(mediatype.OCI_EMPTY)[0])
        self.assertEqual(only["digest"], str(digest_of(untyped)))
        self.assertEqual(self.referrers().index("application/none")[1], 0)

    def test_l05_l05b_limits_refuse_and_never_cut(self) -> None:
        self.registry.api = lists(*[listed(b"%d" % number, "x") for number in range(4096)])
        self.assertEqual(self.referrers().index()[1], 4096)
        self.registry.api = lists(*[listed(b"%d" % number, "x") for number in range(4097)])
        self.refused("at most 4096", ErrorCode.LIMIT_EXCEEDED)
        half = {"a": "x" * (2 * 1024 * 1024 - 400)}
        self.registry.api = lists(listed(b"1", "x", annotations=half), listed(b"2", "x", annotations=half))
        self.referrers().index()
        half = {"a": "x" * (2 * 1024 * 1024 - 300)}
        self.registry.api = lists(listed(b"1", "x", annotations=half), listed(b"2", "x", annotations=half))
        self.refused("the merged list is larger than 4194304 bytes", ErrorCode.LIMIT_EXCEEDED)
        self.registry.api = lists(*[listed(b"%d" % number) for number in range(CANDIDATE_LIMIT + 1)])
        self.refused("without a type, found 129: ask without artifactType", ErrorCode.LIMIT_EXCEEDED, BUNDLE)

    def test_l06_l07_none_is_an_empty_list_and_a_fault_is_a_fault(self) -> None:
        data, count = self.referrers().index()
        self.assertEqual((entries_of(data), count), ([], 0))
        self.registry.api = reply(500)
        self.refused("found 500", ErrorCode.REGISTRY_ERROR)
        self.assertEqual(ImageReferrers("dir:/x", None, (D,), frozenset()).index()[1], 0)

    def test_the_list_is_asked_for_once(self) -> None:
        self.registry.api = lists(GOOD)
        referrers = self.referrers()
        referrers.index()
        referrers.index()
        self.assertEqual(self.asked_after_the_image(), [f"referrers/{D}"])


class FetchTest(ParentCase):
    def test_l08_l09_a_listed_manifest_opens_what_it_names(self) -> None:
        self.registry.api = lists(GOOD)
        referrers = self.referrers()
        self.assertIsNone(referrers.find_blob(digest_of(BLOB)))
        with self.assertRaises(NotFoundError) as caught:
            referrers.manifest(digest_of(b"not listed"))
        self.assertIs(caught.exception.code, ErrorCode.BLOB_NOT_IN_IMAGE)
        served = referrers.manifest(digest_of(GOOD))
        self.assertEqual(served, (GOOD, mediatype.OCI_MANIFEST, "no"))
        for blob in (BLOB, EMPTY_CONFIG):
            descriptor = referrers.find_blob(digest_of(blob))
            assert descriptor is not None
            self.assertEqual(descriptor.size, len(blob))
            reader = referrers.open_blob(descriptor, BlobAccess.VERIFIED)
            with memoryview(bytearray(100)) as view:
                self.assertEqual(bytes(view[: reader.readinto(view)]), blob)
            reader.close()

    def test_l15_a_stray_opens_nothing(self) -> None:
        stray = carrier(OTHER, BLOB)
        self.registry = FakeRegistry(stray)
        self.registry.api = lists(stray)
        referrers = self.referrers()
        with self.assertRaisesRegex(ContentMismatchError, f"expected the subject {D}, found {OTHER}"):
            referrers.manifest(digest_of(stray))
        self.assertIsNone(referrers.find_blob(digest_of(BLOB)))

    def test_a_listed_manifest_that_is_gone_or_wrong_is_told(self) -> None:
        self.registry.api = lists(carrier(D, b"gone"))
        with self.assertRaises(NotFoundError) as caught:
            self.referrers().manifest(digest_of(carrier(D, b"gone")))
        self.assertIs(caught.exception.code, ErrorCode.BLOB_NOT_FOUND)
        self.registry.api = lists({**listed(GOOD), "size": 1})
        with self.assertRaises(ContentMismatchError):
            self.referrers().manifest(digest_of(GOOD))

    def test_a_type_that_cannot_stand_in_a_header_is_not_passed_on(self) -> None:
        for kind in ("", "text/plain\r\nX: y", "a b", "x" * 256, "t\u00e4xt"):
            with self.subTest(kind):
                self.registry.api = lists(listed(GOOD, "x", media_type=kind))
                served = self.referrers().manifest(digest_of(GOOD))
                self.assertEqual((served.data, served.media_type), (GOOD, "application/octet-stream"))

    def test_a_nested_index_is_served_as_it_is(self) -> None:
        nested = listing([listed(GOOD)])
        self.registry = FakeRegistry(GOOD, nested)
        self.registry.api = lists(listed(nested, None, media_type=mediatype.OCI_INDEX))
        referrers = self.referrers()
        self.assertEqual(referrers.manifest(digest_of(nested))[:2], (nested, mediatype.OCI_INDEX))
        with self.assertRaises(NotFoundError):
            referrers.manifest(digest_of(GOOD))


class ImportTest(unittest.TestCase):
    def test_an_image_is_opened_without_any_of_it(self) -> None:
        text = """
import sys
import cip.image, cip.registry.source, cip.sources.layout, cip.wire.httpserver
print([name for name in sys.modules if name.startswith("cip.") and "referrers" in name and "model" not in name])
"""
        done = subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True)
        self.assertEqual(done.stdout, "[]\n")


class ParseTest(unittest.TestCase):
    def test_platforms_and_unknown_members_are_not_read(self) -> None:
        entry = described(GOOD, mediatype.OCI_MANIFEST, platform={"os": 1}, whatever=[])
        (only,) = parse_referrers(listing([entry]), "list")
        self.assertEqual((only.descriptor.digest, only.artifact_type), (digest_of(GOOD), ""))

    def test_a_key_that_another_reader_takes_for_a_known_one_is_refused(self) -> None:
        with self.assertRaisesRegex(CipError, "ambiguous member"):
            parse_referrers(b'{"schemaVersion":2,"manifests":[],"Manifests":[]}', "list")


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""The source of docker:// references: places in order, manifests checked."""

import hashlib

from cip import log
from cip.errors import (
    CipError,
    ConfigurationError,
    ContentMismatchError,
    ErrorCode,
    InvalidDigestError,
    NotFoundError,
    Phase,
)
from cip.hostconfig.registriesconf import load_registries
from cip.model import mediatype
from cip.model.descriptor import Descriptor, digest_of
from cip.model.reference import parse_image_reference
from cip.registry.source import RegistrySource, open_registry
from cip.settings import Settings, TimeLimits
from cip.sources.base import BlobAccess
from tests.support.host import make_host
from tests.support.leaks import LeakCheckedTestCase
from tests.support.origins import Asked, FakeClock, Origins, RecordedEvents, Reply, Script, reply
from tests.support.roomed import needs_rooms

MANIFEST = b'{"schemaVersion":2}'
DIGEST = digest_of(MANIFEST)
OCI = {"Content-Type": mediatype.OCI_MANIFEST}
MIRRORED = """
[[registry]]
prefix = "r.example"
location = "r.example"
[[registry.mirror]]
location = "mirror.example/cache"
"""


def served(data: bytes = MANIFEST, media_type: str = mediatype.OCI_MANIFEST) -> Script:
    return lambda asked: reply(200, data, {"Content-Type": media_type})


def unknown(asked: Asked) -> Reply:
    return reply(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')


class SourceCase(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.host = make_host(self)
        self.clock = FakeClock()
        self.events = RecordedEvents()
        self.origins = Origins()
        self.addCleanup(self.origins.wait)
        previous = log._Stream.threshold
        log.set_threshold(log.Level.SILENT)
        self.addCleanup(log.set_threshold, previous)

    def settings(self) -> Settings:
        return self.host.settings()._replace(times=TimeLimits(idle=5.0))

    def open(self, text: str = "docker://r.example/a/b:t", settings: Settings | None = None) -> RegistrySource:
        used = settings or self.settings()
        session = self.origins.session(used, self.clock, self.events)
        self.addCleanup(session.close)
        source = open_registry(parse_image_reference(text), load_registries(used), used, session)
        self.addCleanup(source.close)
        return source

    def mirrored(self) -> None:
        self.host.write("/etc/containers/registries.conf", MIRRORED)


class ManifestTest(SourceCase):
    def test_the_top_manifest_is_fetched_once_with_all_types_accepted(self) -> None:
        self.origins.add("https://r.example:443", served())
        source = self.open()
        for _ in range(2):
            raw = source.manifest(None)
            self.assertEqual((raw.data, raw.media_type), (MANIFEST, mediatype.OCI_MANIFEST))
        (asked,) = self.origins.asked
        self.assertEqual(asked.target, "/v2/a/b/manifests/t")
        self.assertEqual(asked.fields["accept"].split(", "), list(mediatype.ACCEPTED_MANIFESTS))
        self.assertEqual(asked.fields["docker-distribution-api-version"], "registry/2.0")

    def test_nothing_is_asked_before_the_manifest_is_wanted(self) -> None:
        self.open()
        self.assertEqual(self.origins.opened, [])

    def test_a_digest_is_asked_for_unescaped_and_checked_at_once(self) -> None:
        self.origins.add("https://r.example:443", served())
        self.open(f"docker://r.example/a/b@{DIGEST}").manifest(None)
        self.assertEqual(self.origins.targets(), [f"/v2/a/b/manifests/{DIGEST}"])
        self.origins.add("https://r.example:443", served(b"{}"))
        with self.assertRaisesRegex(ContentMismatchError, "r.example: manifest of r.example/a/b@sha256:") as caught:
            self.open(f"docker://r.example/a/b@{DIGEST}").manifest(None)
        self.assertEqual((caught.exception.digest, caught.exception.phase), (str(DIGEST), Phase.MANIFEST))

    def test_a_digest_that_cannot_be_checked_is_refused_without_a_request(self) -> None:
        digest = "sha512:" + hashlib.sha512(MANIFEST).hexdigest()
        with self.assertRaises(InvalidDigestError) as caught:
            self.open(f"docker://r.example/a/b@{digest}")
        self.assertIs(caught.exception.code, ErrorCode.DIGEST_UNSUPPORTED)

    def test_parameters_of_the_type_do_not_count_and_a_missing_one_is_empty(self) -> None:
        # registry.md M17
        for announced, expected in (
            (f"{mediatype.OCI_MANIFEST}; charset=utf-8", mediatype.OCI_MANIFEST),
            (mediatype.OCI_MANIFEST.upper(), mediatype.OCI_MANIFEST),
            ("text/plain", "text/plain"),
            (None, ""),
        ):
            with self.subTest(announced):
                fields = {} if announced is None else {"Content-Type": announced}
                self.origins.add("https://r.example:443", lambda asked, f=fields: reply(200, MANIFEST, f))  # type: ignore[misc]
                self.assertEqual(self.open().manifest(None).media_type, expected)

    def test_a_page_of_a_portal_is_no_manifest(self) -> None:
        self.origins.add("https://r.example:443", served(b"<html>", "text/html; charset=utf-8"))
        with self.assertRaisesRegex(CipError, "expected a manifest, found 'text/html'") as caught:
            self.open().manifest(None)
        self.assertIs(caught.exception.code, ErrorCode.REGISTRY_ERROR)

    def test_a_manifest_may_not_be_larger_than_four_mebibytes(self) -> None:
        # registry.md M16
        for size, refused in ((4194304, False), (4194305, True)):
            self.origins.add("https://r.example:443", served(b"x" * size))
            if refused:
                with self.assertRaisesRegex(CipError, "larger than 4194304 bytes"):
                    self.open().manifest(None)
            else:
                self.assertEqual(len(self.open().manifest(None).data), size)

    def test_the_announced_digest_is_not_believed_either_way(self) -> None:
        # registry.md M18
        fields = {**OCI, "Docker-Content-Digest": f"sha256:{'0' * 64}"}
        self.origins.add("https://r.example:443", lambda asked: reply(200, MANIFEST, fields))
        self.assertEqual(self.open().manifest(None).data, MANIFEST)

    def test_a_compressed_manifest_is_a_fault_of_its_place(self) -> None:
        self.origins.add("https://r.example:443", lambda a: reply(200, MANIFEST, {**OCI, "Content-Encoding": "gzip"}))
        with self.assertRaises(ContentMismatchError):
            self.open().manifest(None)

    def test_an_image_that_is_not_there(self) -> None:
        self.origins.add("https://r.example:443", unknown)
        with self.assertRaisesRegex(NotFoundError, "a/b:t: not found, status 404: 'MANIFEST_UNKNOWN'"):
            self.open().manifest(None)
        self.assertEqual(len(self.origins.asked), 1)

    def test_opening_has_its_deadline(self) -> None:
        def slow(asked: Asked) -> Reply:
            self.clock.now += 7
            return reply(500)

        self.origins.add("https://r.example:443", slow)
        for times in (TimeLimits(open=10), TimeLimits(deadline=10)):
            began = self.clock.now
            with self.assertRaises(CipError):
                self.open(settings=self.settings()._replace(times=times)).manifest(None)
            self.assertLessEqual(self.clock.now - began, 17)


class PlacesTest(SourceCase):
    def test_the_first_place_that_has_it_is_asked_first_from_then_on(self) -> None:
        self.mirrored()
        content = b"layer"
        self.origins.add("https://mirror.example:443", unknown)
        self.origins.add(
            "https://r.example:443", lambda a: reply(200, content) if "/blobs/" in a.target else served()(a)
        )
        source = self.open()
        source.manifest(None)
        source.manifest(DIGEST)
        reader = source.open_blob(Descriptor("x", digest_of(content), len(content)), BlobAccess.VERIFIED)
        reader.readinto(memoryview(bytearray(1)))
        reader.close()
        self.assertEqual(
            [(asked.host, asked.target) for asked in self.origins.asked],
            [
                ("mirror.example:443", "/v2/cache/a/b/manifests/t"),
                ("r.example:443", "/v2/a/b/manifests/t"),
                ("r.example:443", f"/v2/a/b/manifests/{DIGEST}"),
                ("r.example:443", f"/v2/a/b/blobs/{digest_of(content)}"),
            ],
        )

    def test_an_instance_that_the_mirror_has_not_comes_from_elsewhere(self) -> None:
        self.mirrored()
        self.origins.add("https://mirror.example:443", lambda a: unknown(a) if "sha256" in a.target else served()(a))
        self.origins.add("https://r.example:443", served())
        source = self.open()
        source.manifest(None)
        self.assertEqual(source.manifest(DIGEST).data, MANIFEST)

    def test_a_mirror_that_lies_about_a_digest_is_passed_over(self) -> None:
        self.mirrored()
        self.origins.add("https://mirror.example:443", served(b"{}"))
        self.origins.add("https://r.example:443", served())
        self.assertEqual(self.open(f"docker://r.example/a/b@{DIGEST}").manifest(None).data, MANIFEST)

    @needs_rooms("segments")
    def test_mirrors_take_turns_and_the_registry_stands_behind_them(self) -> None:
        from cip.segments import in_turn

        mirrors = "".join(f'[[registry.mirror]]\nlocation = "{name}.example"\n' for name in "bcd")
        self.host.write("/etc/containers/registries.conf", f'[[registry]]\nlocation = "a.example"\n{mirrors}')
        endpoints = self.open("docker://a.example/r:t")._endpoints
        for failed, expected in (
            ((), ["bcda", "cbda", "dbca", "bcda"]),
            (("c.example",), ["bcda", "dbca", "bcda", "dbca"]),
            (("b.example", "c.example", "d.example"), ["bcda"] * 4),
        ):
            orders = [in_turn(endpoints, turn, failed) for turn in range(4)]
            self.assertEqual(["".join(each.name[0] for each in order) for order in orders], expected)
        alone = in_turn((endpoints[3], *endpoints[:3]), 1, ())
        self.assertEqual([each.name[0] for each in alone], list("abcd"), "mirrors had no manifest")

    def test_the_identity_is_the_logical_one(self) -> None:
        self.mirrored()
        self.assertEqual(self.open().identity.identity, "r.example/a/b:t")

    def test_a_blocked_name_is_refused_at_once(self) -> None:
        self.host.write("/etc/containers/registries.conf", '[[registry]]\nlocation="r.example"\nblocked=true\n')
        with self.assertRaises(CipError) as caught:
            self.open()
        self.assertIs(caught.exception.code, ErrorCode.REGISTRY_BLOCKED)

    def test_a_blocked_place_makes_room_for_the_next(self) -> None:
        self.host.write(
            "/etc/containers/registries.conf", MIRRORED + '[[registry]]\nlocation="mirror.example"\nblocked=true\n'
        )
        self.origins.add("https://r.example:443", served())
        self.assertEqual(self.open().manifest(None).data, MANIFEST)

    def test_a_broken_configuration_is_not_passed_over(self) -> None:
        self.mirrored()
        self.host.write("/etc/containers/certs.d/mirror.example/client.cert", "")
        self.origins.add("https://r.example:443", served())
        with self.assertRaisesRegex(ConfigurationError, "client.cert"):
            self.open().manifest(None)

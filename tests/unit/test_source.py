# SPDX-License-Identifier: Apache-2.0
"""The source of docker:// references: places in order, manifests checked, signatures fetched whole."""

import base64
import hashlib
import json
from unittest import mock

from cip import log
from cip.errors import (
    CipError,
    ConfigurationError,
    ContentMismatchError,
    ErrorCode,
    InvalidDigestError,
    NotFoundError,
    Phase,
    SignatureError,
)
from cip.hostconfig.registriesd import Section, SignatureStores
from cip.model import mediatype
from cip.model.descriptor import Descriptor
from cip.model.digest import digest_of
from cip.model.reference import parse_image_reference
from cip.model.signature import SigstoreSignature, SimpleSignature
from cip.registry import signatures
from cip.registry.source import RegistrySource, open_registry
from cip.settings import RetryOptions, Settings, TimeLimits
from cip.sources.base import BlobAccess, RawManifest
from tests.support.host import make_host
from tests.support.leaks import LeakCheckedTestCase
from tests.support.origins import Asked, FakeClock, Origins, RecordedEvents, Reply, Script, reply

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
        source = open_registry(parse_image_reference(text), used, session)
        self.addCleanup(source.close)
        return source

    def mirrored(self) -> None:
        self.host.write("/etc/containers/registries.conf", MIRRORED)


class ManifestTest(SourceCase):
    def test_the_top_manifest_is_fetched_once_with_all_types_accepted(self) -> None:
        self.origins.add("https://r.example:443", served())
        source = self.open()
        for _ in range(2):
            self.assertEqual(source.manifest(None), RawManifest(MANIFEST, mediatype.OCI_MANIFEST))
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


class SignatureCase(SourceCase):
    def setUp(self) -> None:
        super().setUp()
        self.answers: dict[str, Reply] = {"/v2/": reply(200)}
        self.origins.add("https://r.example:443", self.answer)
        self.origins.add("http://look.example:80", self.answer)
        self.base = f"a/b@sha256={DIGEST.encoded}/signature-"

    def answer(self, asked: Asked) -> Reply:
        return self.answers.get(asked.target) or reply(404)

    def signatures(self, settings: Settings | None = None) -> list[SimpleSignature | SigstoreSignature]:
        return list(self.open(settings=settings).signatures(DIGEST, None))

    def refused(self, reason: str) -> SignatureError:
        with self.assertRaisesRegex(SignatureError, reason) as caught:
            self.signatures(self.settings()._replace(retry=RetryOptions(times=0)))
        self.assertEqual(caught.exception.reason, "fetch")
        return caught.exception

    def stores(self, lookaside: str | None = None, *, attachments: bool | None = None) -> None:
        """What registries.d says; not as a file, for the package that reads it may be missing."""
        section = Section(lookaside, attachments, "default.yaml", 1)
        found = SignatureStores({}, section, f"file://{self.host.path('/var/lib/containers/sigstore')}", ())
        patch = mock.patch.object(signatures, "load_registries_d", lambda settings: found)
        patch.start()
        self.addCleanup(patch.stop)


class LookasideTest(SignatureCase):
    def test_files_are_read_up_to_the_first_that_is_missing(self) -> None:
        root = self.host.path("/var/lib/containers/sigstore")
        for number in (1, 2, 4):
            self.host.write(f"/var/lib/containers/sigstore/{self.base}{number}", b"\x90" + str(number).encode())
        found = self.signatures()
        self.assertEqual([each.message for each in found if isinstance(each, SimpleSignature)], [b"\x901", b"\x902"])
        self.assertEqual(found[0].origin, f"{root}/{self.base}1")
        self.assertEqual(self.origins.targets(), ["/v2/"])

    def test_a_file_that_cannot_be_read_is_not_a_missing_one(self) -> None:
        self.host.write(f"/var/lib/containers/sigstore/{self.base}1/oops", b"")
        self.refused("expected a file, found a directory")

    def test_urls_are_read_up_to_the_first_404_without_credentials(self) -> None:
        # registry.md M10
        for url, prefix in (
            ("http://look.example/sig", "/sig/"),
            ("http://look.example/sig/", "/sig//"),
            ("http://look.example", "/"),
        ):
            with self.subTest(url):
                self.origins.asked.clear()
                self.stores(url)
                self.answers[f"{prefix}{self.base}1"] = reply(200, b"\x901")
                self.assertEqual(len(self.signatures()), 1)
                self.assertEqual(self.origins.targets("look.example:80"), [f"{prefix}{self.base}{n}" for n in (1, 2)])
                self.assertNotIn("authorization", self.origins.asked[-1].fields)

    def test_query_and_password_of_the_url_are_kept_and_not_shown(self) -> None:
        self.stores("http://u:hush@look.example/sig?key=hush")
        self.answers[f"/sig/{self.base}1?key=hush"] = reply(200, b"\x901")
        (found,) = self.signatures()
        self.assertEqual(found.origin, f"http://look.example/sig/{self.base}1")
        self.assertEqual(self.origins.asked[-1].fields["authorization"], "Basic dTpodXNo")
        self.answers[f"/sig/{self.base}1?key=hush"] = reply(500)
        self.assertNotIn("hush", str(self.refused("500")))

    def test_any_answer_but_200_and_404_is_an_error(self) -> None:
        # registry.md M14
        self.stores("http://look.example/sig")
        for status in (204, 403, 410, 429, 500):
            with self.subTest(status):
                self.answers[f"/sig/{self.base}1"] = reply(status)
                self.assertIs(self.refused(str(status)).phase, Phase.SIGNATURE)

    def test_forbidden_behind_a_signature_is_the_end_of_the_list_and_warned_about(self) -> None:
        """Some object stores answer 403 for what does not exist (containers/image issue 538)."""
        self.stores("http://u:hush@look.example/sig?key=hush")
        self.answers[f"/sig/{self.base}1?key=hush"] = reply(200, b"\x901")
        self.answers[f"/sig/{self.base}2?key=hush"] = reply(403, b"AccessDenied")
        with mock.patch("cip.log.warning") as warning:
            self.assertEqual(len(self.signatures()), 1)
        self.assertEqual(warning.call_args.args[1], f"http://look.example/sig/{self.base}2")
        self.assertRegex(warning.call_args.args[0], "403 Forbidden behind other signatures, taken for the end")
        self.answers[f"/sig/{self.base}2?key=hush"] = reply(401)
        self.refused("401")

    def test_a_fault_that_passes_is_repeated(self) -> None:
        self.stores("http://look.example/sig")
        answers = [reply(503), reply(200, b"\x901")]
        self.origins.add("http://look.example:80", lambda asked: answers.pop(0) if answers else reply(404))
        self.assertEqual(len(self.signatures()), 1)

    def test_the_128th_signature_is_an_error(self) -> None:
        self.stores("http://look.example/sig")
        for number in range(1, 128):
            self.answers[f"/sig/{self.base}{number}"] = reply(200, b"\x90x")
        self.assertEqual(len(self.signatures()), 127)
        self.answers[f"/sig/{self.base}128"] = reply(200, b"\x90x")
        self.refused("more than 127 signatures")

    def test_an_unreadable_signature_refuses_all(self) -> None:
        self.stores("http://look.example/sig")
        for blob in (b"", b"-----BEGIN PGP", b"\0unknown\nx", b"\x90" + b"x" * 4194304):
            with self.subTest(blob[:10]):
                self.answers[f"/sig/{self.base}1"] = reply(200, blob)
                self.refused("signature")

    def test_a_broken_registries_d_is_told_as_such(self) -> None:
        broken = mock.patch.object(signatures, "load_registries_d", side_effect=ConfigurationError("x.yaml", "broken"))
        with broken, self.assertRaisesRegex(ConfigurationError, "x.yaml: broken"):
            self.signatures()


class ExtensionTest(SignatureCase):
    def setUp(self) -> None:
        super().setUp()
        self.answers["/v2/"] = reply(200, b"", {"X-Registry-Supports-Signatures": "1"})
        self.path = f"/extensions/v2/a/b/signatures/{DIGEST}"

    def listed(self, *entries: dict[str, object]) -> None:
        self.answers[self.path] = reply(200, json.dumps({"signatures": entries}).encode())

    def test_atomic_entries_of_version_two_count_and_the_lookaside_does_not(self) -> None:
        content = base64.b64encode(b"message").decode()
        self.host.write(f"/var/lib/containers/sigstore/{self.base}1", b"\x901")
        self.listed(
            {"schemaVersion": 2, "type": "atomic", "name": "x", "content": content},
            {"schemaVersion": 1, "type": "atomic", "content": content},
            {"schemaVersion": 2, "type": "other", "content": content},
            {"version": 2, "type": "atomic", "content": content},
        )
        self.assertEqual(self.signatures(), [SimpleSignature(b"message", "r.example (registry extension)")])

    def test_a_list_without_signatures_is_empty(self) -> None:
        self.answers[self.path] = reply(200, b"{}")
        self.assertEqual(self.signatures(), [])

    def test_anything_else_is_an_error(self) -> None:
        for answer, reason in (
            (reply(404), "404"),
            (reply(200, b"["), "not valid JSON"),
            (reply(200, b"[]"), "expected an object"),
            (reply(200, b'{"signatures":[{"schemaVersion":2,"type":"atomic","content":"!"}]}'), "expected base64"),
            (reply(200, b"x" * 4194305), "larger than 4194304 bytes"),
        ):
            with self.subTest(reason):
                self.answers[self.path] = answer
                self.refused(reason)

    def test_more_signatures_than_anyone_makes_are_an_error(self) -> None:
        """Each of them would cost a run of gpgv."""
        entry: dict[str, object] = {"schemaVersion": 2, "type": "atomic", "content": "kAAA"}
        self.listed(*[entry] * 127)
        self.assertEqual(len(self.signatures()), 127)
        self.listed(*[entry] * 128)
        self.refused("more than 127 signatures")

    def test_a_registry_that_cannot_be_asked_is_an_error(self) -> None:
        self.answers["/v2/"] = reply(503)
        self.refused("found 503")


class AttachmentTest(SignatureCase):
    def setUp(self) -> None:
        super().setUp()
        self.stores(attachments=True)
        self.path = f"/v2/a/b/manifests/sha256-{DIGEST.encoded}.sig"

    def attach(self, *layers: dict[str, object], media_type: str = mediatype.OCI_MANIFEST) -> None:
        config = {"mediaType": mediatype.OCI_CONFIG, "digest": str(digest_of(b"{}")), "size": 2}
        body = {"schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST, "config": config, "layers": layers}
        self.answers[self.path] = reply(200, json.dumps(body).encode(), {"Content-Type": media_type})

    def layer(self, payload: bytes, served: bytes | None = None) -> dict[str, object]:
        digest = digest_of(payload)
        self.answers[f"/v2/a/b/blobs/{digest}"] = reply(200, payload if served is None else served)
        return {
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "digest": str(digest),
            "size": len(payload),
            "annotations": {"dev.cosignproject.cosign/signature": "c2ln"},
            "urls": ["http://evil.example/x"],
        }

    def test_every_layer_is_a_signature_and_the_lookaside_counts_too(self) -> None:
        self.host.write(f"/var/lib/containers/sigstore/{self.base}1", b"\x901")
        self.attach(self.layer(b"payload"), {**self.layer(b"other"), "mediaType": "text/plain", "annotations": {}})
        first, second, third = self.signatures()
        self.assertIsInstance(first, SimpleSignature)
        assert isinstance(second, SigstoreSignature) and isinstance(third, SigstoreSignature)
        self.assertEqual(second.payload, b"payload")
        self.assertEqual(second.annotations, {"dev.cosignproject.cosign/signature": "c2ln"})
        self.assertEqual((third.mime_type, third.payload), ("text/plain", b"other"))

    def test_what_counts_as_none(self) -> None:
        # registry.md M15
        for answer in (
            reply(404, b"not found"),
            reply(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}'),
            reply(404, b'{"errors":[{"code":"UNKNOWN","message":"x not found"}]}'),
            reply(404, b"{}"),
        ):
            self.answers[self.path] = answer
            self.assertEqual(self.signatures(), [])

    def test_what_does_not(self) -> None:
        for answer in (reply(404, b'{"errors":[{"code":"NAME_UNKNOWN"}]}'), reply(401), reply(403), reply(500)):
            self.answers[self.path] = answer
            self.refused("signatures of r.example/a/b@sha256")

    def test_a_manifest_of_another_type_is_an_error(self) -> None:
        for media_type in (mediatype.DOCKER_MANIFEST, "text/plain"):
            self.attach(media_type=media_type)
            self.refused("expected application/vnd.oci.image.manifest")

    def test_a_payload_must_have_its_digest(self) -> None:
        self.attach(self.layer(b"payload", b"paylobd"))
        self.refused("expected digest")

    def test_more_signatures_than_anybody_needs_are_an_error(self) -> None:
        self.attach(*(self.layer(b"x") for _ in range(129)))
        self.refused("more than 128 signatures")

# SPDX-License-Identifier: Apache-2.0
"""Signatures of a registry's images: lookaside, the registry's own, attachments; a list is fetched whole or refused."""

import base64
import json
from unittest import mock

from cip.errors import ConfigurationError, Phase, SignatureError
from cip.hostconfig.registriesd import Section, SignatureStores
from cip.model import mediatype
from cip.model.descriptor import digest_of
from cip.model.signature import SigstoreSignature, SimpleSignature
from cip.registry import signatures
from cip.settings import Settings
from tests.support.origins import Asked, Reply, reply
from tests.unit.test_source import DIGEST, SourceCase


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
            self.signatures(self.settings()._replace(retry_times=0))
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

    def test_a_password_goes_only_to_a_host_whose_certificate_was_checked(self) -> None:
        """That a mirror is insecure says nothing of the lookaside."""
        insecure = '[[registry]]\nlocation = "r.example"\ninsecure = true\n'
        self.host.write("/etc/containers/registries.conf", insecure)
        for user, host, tls_verify, verified in (
            ("u:hush@", "look.example", None, True),
            ("u:hush@", "r.example", None, False),
            ("u:hush@", "r.example:444", None, True),
            ("u:hush@", "look.example", False, False),
            ("", "look.example", None, False),
        ):
            with self.subTest(user=user, host=host, tls_verify=tls_verify):
                origin = f"https://{host}" if ":" in host else f"https://{host}:443"
                self.origins.add(origin, self.answer)
                self.stores(f"https://{user}{host}/sig")
                self.signatures(self.settings()._replace(tls_verify=tls_verify))
                self.assertIs(self.origins.verified[origin], verified)

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
            (reply(200, b'{"Signatures":[]}'), "ambiguous member 'Signatures'"),
            (reply(200, b'{"signatures":[{"type":"x","Content":1}]}'), "ambiguous member 'Content'"),
            (reply(200, b'{"signatures":[{"schemaVersion":"2","type":"x"}]}'), "expected an integer, found a string"),
            (reply(200, b'{"signatures":[{"schemaVersion":true,"type":"x"}]}'), "expected an integer, found a boolean"),
            (reply(200, b'{"signatures":[{"schemaVersion":2,"type":1}]}'), "expected a string, found an integer"),
            (reply(200, b'{"signatures":[{"schemaVersion":1,"name":[]}]}'), "expected a string, found an array"),
            (reply(200, b'{"signatures":[{"schemaVersion":1,"content":"!"}]}'), "expected base64"),
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

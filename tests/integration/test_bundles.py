# SPDX-License-Identifier: Apache-2.0
"""Bundles through both front ends: cosign 3 and a private Sigstore sign; registries with the referrers API and without.

What is accepted is served whole; what is refused gives no byte. Requests are counted where the registry tells them.
"""

import json
import re
import tempfile
import unittest
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from cip.client import open_proxy
from cip.model import mediatype
from cip.model.descriptor import digest_of
from tests.integration.test_policy import BLOBS, DIGEST, MANIFEST, PolicyCase
from tests.support import images
from tests.support.bundles import SUBJECT_URI, V1, V2, World, statement
from tests.support.goregistry import GoRegistry, go_registry
from tests.support.jsonparent import json_proxy
from tests.support.newer import require_newer
from tests.support.peers import Registry, docker_registry, require_peer, run_program
from tests.support.pushing import Pusher
from tests.support.referrers import BUNDLE, EMPTY_CONFIG, SIGNING, carrier, entries_of, listed, listing, tag_of
from tests.support.sigstore import OIDC_ISSUER, SIGNED_AT, public_pem

SIGNING_CONFIG = {
    "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
    "rekorTlogConfig": {},
    "tsaConfig": {},
}
SBOM = "application/spdx+json"
ABOUT_M = json.dumps(statement(subject=[{"digest": {"sha256": DIGEST.encoded}}])).encode()
ABOUT_ANOTHER = json.dumps(statement(subject=[{"digest": {"sha256": "0" * 64}}])).encode()
SPDX = json.dumps(
    statement(subject=[{"digest": {"sha256": DIGEST.encoded}}], predicateType="https://spdx.dev/Document")
)


class BundleCase(PolicyCase):
    """Two registries, one with the API and one without, and the signers that the tests share."""

    api: ClassVar[GoRegistry]
    tags: ClassVar[Registry]
    world: ClassVar[World]

    @classmethod
    def setUpClass(cls) -> None:
        shared = Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="cip-bundles-")))
        cls.api = cls.enterClassContext(go_registry(shared / "api"))
        cls.tags = cls.enterClassContext(docker_registry(shared / "tags"))
        cls.world = World()

    def setUp(self) -> None:
        super().setUp()
        self.repository = f"{self.id().rpartition('.')[2].lower()}/os"
        self.key = self.scratch / "key.pub"
        self.key.write_bytes(public_pem(self.world.key))
        self.root = self.scratch / "root.json"
        self.root.write_text(json.dumps(self.world.trusted_root()), encoding="utf-8")
        self.opt_in()

    def opt_in(self, **members: str) -> None:
        """The registries.d file that README shows, or one that says `members` instead."""
        said = members or {"use_sigstore_bundles": "true", "sigstore_bundle_identity": "by-digest"}
        self.places(**said)

    def by_key(self, **members: Any) -> dict[str, Any]:
        identity = {"type": "matchRepository"}
        return {"type": "sigstoreSigned", "keyPath": str(self.key), "signedIdentity": identity, **members}

    def by_workflow(self, **members: Any) -> dict[str, Any]:
        fulcio = {"oidcIssuer": OIDC_ISSUER, "subjectURI": SUBJECT_URI, **members}
        return {
            "type": "sigstoreSigned",
            "trustedRootPath": str(self.root),
            "fulcio": fulcio,
            "signedIdentity": {"type": "matchDigest"},
        }

    def push(self, host: str, *bundles: bytes, annotations: Mapping[str, str] | None = SIGNING) -> str:
        """The image with these bundles as its referrers; its reference."""
        with Pusher(host, self.repository) as pusher:
            pusher.image("v1", MANIFEST, *BLOBS)
            pusher.blob(EMPTY_CONFIG)
            manifests = []
            for bundle in bundles:
                pusher.blob(bundle)
                manifest = carrier(DIGEST, bundle, annotations=annotations)
                pusher.manifest(str(digest_of(manifest)), manifest)
                manifests.append(manifest)
            if host == self.tags.host and manifests:
                pusher.manifest(tag_of(DIGEST), listing([listed(each) for each in manifests]), mediatype.OCI_INDEX)
        return f"docker://{host}/{self.repository}:v1"

    def hosts(self) -> Sequence[tuple[str, str]]:
        return (("API", self.api.host), ("tag", self.tags.host))

    def accept_both(self, image: str, *requirements: Mapping[str, Any]) -> dict[str, Any]:
        """Served over HTTP and over JSON; the audit record of HTTP."""
        found = self.accept(image, *requirements)
        with json_proxy(*self.flags()) as proxy:
            opened = proxy.parent.open(image)
            _, manifest, reply = proxy.parent.fetch("GetManifest", opened)
            self.assertIsNone(reply.value)
            self.assertEqual(manifest, MANIFEST)
        return found


class CosignTest(BundleCase):
    """What `cosign sign --key` of version 3 writes by itself."""

    words: ClassVar[tuple[str, ...]]
    keys: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        cls.words = require_newer("cosign-3")
        super().setUpClass()
        cls.keys = Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="cip-cosign-")))
        cls.environment = {"COSIGN_PASSWORD": "words", "TUF_ROOT": str(cls.keys / "tuf")}
        (cls.keys / "signing.json").write_text(json.dumps(SIGNING_CONFIG), encoding="utf-8")
        for name in ("main", "other"):
            cls.cosign("generate-key-pair", "--output-key-prefix", str(cls.keys / name))

    environment: ClassVar[dict[str, str]]

    @classmethod
    def cosign(cls, *arguments: str) -> None:
        run_program([*cls.words, *arguments], home=cls.keys, environment=cls.environment)

    def setUp(self) -> None:
        super().setUp()
        self.key = self.keys / "main.pub"

    def sign(self, host: str, *command: str, key: str = "main") -> str:
        """Push the image and sign it; its reference."""
        image = self.push(host)
        self.cosign(
            *(command or ("sign",)),
            f"--key={self.keys / key}.key",
            f"--signing-config={self.keys / 'signing.json'}",
            "--allow-http-registry",
            "-y",
            f"{host}/{self.repository}@{DIGEST}",
        )
        return image

    def test_signature_is_accepted_by_digest_and_recorded(self) -> None:
        for found_by, host in self.hosts():
            with self.subTest(found_by):
                [signature] = self.accept_both(self.sign(host), self.by_key())["signatures"]
                self.assertEqual((signature["kind"], signature["result"]), ("sigstore-bundle", "accepted"))
                pattern = rf"{re.escape(host)}/{self.repository} \(referrer sha256:[0-9a-f]{{64}}, by {found_by}\)"
                self.assertRegex(signature["source"], pattern)
                self.assertEqual(signature["claims"]["digest"], str(DIGEST))
                self.assertEqual(
                    (signature["identity"], signature["identity_file"]),
                    ("by-digest", str(self.registries_d / "all.yaml")),
                )

    def test_it_is_found_where_attachments_are_looked_for_and_there_are_none(self) -> None:
        self.opt_in(use_sigstore_attachments="true")
        for found_by, host in self.hosts():
            with self.subTest(found_by):
                image = self.sign(host)
                found = self.refuse("identity", "sigstore-bundle-identity: by-digest", image, self.by_key())
                places = found["looked_for"]
                self.assertTrue(places[0].startswith("lookaside file://"), places)
                repository = f"{host}/{self.repository}"
                expected = [f"sigstore attachments of {repository}", f"bundles of {repository}"]
                self.assertEqual(places[1:], expected)
                self.accept_both(image, self.by_key(signedIdentity={"type": "matchDigest"}))

    def test_each_refusal_says_which_one_it_is(self) -> None:
        for found_by, host in self.hosts():
            with self.subTest(found_by):
                image = self.sign(host)
                other = self.by_key(keyPath=str(self.keys / "other.pub"))
                self.refuse("crypto", "not by the expected key", image, other)
                self.opt_in(use_sigstore_bundles="true")
                words = (
                    f'set "sigstore-bundle-identity: by-digest" under "docker: {host}/{self.repository}" in '
                    f"{self.registries_d}, or use"
                )
                self.refuse("identity", re.escape(words), image, self.by_key())
                self.opt_in(use_sigstore_bundles="false", use_sigstore_attachments="true")
                found = self.refuse("nosig", "no sigstore signature found", image, self.by_key())
                self.assertNotIn("bundles", str(found["looked_for"]))
                self.opt_in()

    def test_attestation_by_the_same_key_is_no_signature(self) -> None:
        predicate = self.scratch / "predicate.json"
        predicate.write_text("{}", encoding="utf-8")
        command = ("attest", f"--predicate={predicate}", "--type=https://example.com/x/v1")
        for found_by, host in self.hosts():
            with self.subTest(found_by):
                words = r"only 1 attestation \(https://example.com/x/v1\), which is no signature of the image"
                self.refuse("nosig", words, self.sign(host, *command), self.by_key())

    def test_pull_through_cache_without_the_api_leads_to_the_primary(self) -> None:
        image = self.sign(self.api.host)
        cache = self.enterContext(docker_registry(self.scratch / "cache", proxy_remote=f"http://{self.api.host}"))
        conf = self.scratch / "registries.conf"
        conf.write_text(
            f'[[registry]]\nlocation = "{self.api.host}"\n[[registry.mirror]]\nlocation = "{cache.host}"\n',
            encoding="utf-8",
        )
        self.arguments = (f"--registries-conf={conf}",)
        [signature] = self.accept_both(image, self.by_key())["signatures"]
        self.assertTrue(signature["source"].startswith(f"{self.api.host}/"), signature)
        self.assertIn("/manifests/v1", cache.log_text())

    def test_pull_through_cache_passes_the_tag_on(self) -> None:
        image = self.sign(self.tags.host)
        cache = self.enterContext(docker_registry(self.scratch / "cache", proxy_remote=self.tags.url))
        conf = self.scratch / "registries.conf"
        conf.write_text(
            f'[[registry]]\nlocation = "{self.tags.host}"\n[[registry.mirror]]\nlocation = "{cache.host}"\n',
            encoding="utf-8",
        )
        self.arguments = (f"--registries-conf={conf}",)
        [signature] = self.accept_both(image, self.by_key())["signatures"]
        self.assertTrue(signature["source"].startswith(f"{cache.host}/"), signature)

    def test_p02_p17_the_switch_counts_under_the_requested_name_alone(self) -> None:
        image = self.sign(self.api.host)
        self.places(use_sigstore_bundles="true")
        mirror = self.registries_d / "mirror.yaml"
        mirror.write_text("docker:\n  mirror.example.com:\n    sigstore-bundle-identity: by-digest\n", encoding="utf-8")
        self.refuse("identity", "bundles name no repository", image, self.by_key())
        requested = f"docker:\n  {self.api.host}/{self.repository}:\n    sigstore-bundle-identity: by-digest\n"
        mirror.write_text(requested, encoding="utf-8")
        self.accept_both(image, self.by_key())


class KeylessTest(BundleCase):
    """Certificates of a private Fulcio, logged and time-stamped by private services (D05, D09, D10 among others)."""

    def test_table(self) -> None:
        world = self.world
        expired = world.leaf(begin=SIGNED_AT - 7200, end=SIGNED_AT - 3600)
        stranger = World("elsewhere")
        cases: Sequence[tuple[str, str, str, Callable[[], bytes]]] = (
            ("Rekor v2", "", "", lambda: world.bundle(V2, payload=ABOUT_M).data),
            ("Rekor v1, stamped", "", "", lambda: world.bundle(V1, payload=ABOUT_M, stamps=[{}]).data),
            ("another image", "digest", "", lambda: world.bundle(V2, payload=ABOUT_ANOTHER).data),
            ("an SBOM", "nosig", "https://spdx.dev/Document", lambda: world.bundle(V2, payload=SPDX.encode()).data),
            ("expired", "untrusted", "", lambda: world.bundle(V2, payload=ABOUT_M, leaf=expired).data),
            ("no stamp", "time", "", lambda: world.bundle(V2, payload=ABOUT_M, stamps=[]).data),
            (
                "another stamp",
                "time",
                "",
                lambda: world.bundle(V2, payload=ABOUT_M, stamped=lambda made: made + b"x").data,
            ),
            ("another world", "rekor", "logs are renewed", lambda: stranger.bundle(V2, payload=ABOUT_M).data),
            ("no bundle", "bundle", "", lambda: b"{}"),
        )
        for name, reason, words, make in cases:
            bundle = make()
            for found_by, host in self.hosts():
                with self.subTest(name, found_by=found_by):
                    self.repository = f"keyless/{name.lower().replace(' ', '-').replace(',', '')}"
                    image = self.push(host, bundle, annotations=None)
                    if reason:
                        self.refuse(reason, words or ".", image, self.by_workflow())
                    else:
                        [signature] = self.accept_both(image, self.by_workflow())["signatures"]
                        subject = {"issuer": OIDC_ISSUER, "subject": f"URI:{SUBJECT_URI}"}
                        self.assertEqual((signature["certificate"], signature["identity"]), (subject, "matchDigest"))
                        self.assertEqual(len(signature["log"]), 1)
                        self.assertGreaterEqual(len(signature["times"]), 1)

    def test_another_workflow_is_refused(self) -> None:
        image = self.push(self.api.host, self.world.bundle(V2, payload=ABOUT_M).data)
        other = SUBJECT_URI.replace("release", "nightly")
        self.refuse("certid", "expected a certificate for", image, self.by_workflow(subjectURI=other))
        self.refuse(
            "certid", "expected a certificate with OIDC issuer", image, self.by_workflow(oidcIssuer="https://x")
        )

    def test_a_good_one_beside_others(self) -> None:
        good = self.world.bundle(V2, payload=ABOUT_M).data
        for found_by, host in self.hosts():
            with self.subTest(found_by):
                image = self.push(host, b"garbage", self.world.bundle(V2, payload=ABOUT_ANOTHER).data, good)
                found = self.accept_both(image, self.by_workflow())
                results = [each["result"] for each in found["signatures"]]  # in the order of the list, which may be any
                self.assertEqual((results[-1], set(results[:-1]) - {"refused"}), ("accepted", set()))


class RequestsTest(BundleCase):
    """A bundle costs what bundles.md 1.2 counts, and nothing where no signature is wanted."""

    def asked(self, image: str, *requirements: Mapping[str, Any]) -> list[str]:
        """The requests of one opening after that of the manifest, at the registry with the API."""
        before = len(self.api.requests())
        with self.proxy(image, *requirements) as (proxy, _):
            proxy.line.ask("GET", "/manifest")
        found = self.api.requests()[before:]
        start = next(number for number, each in enumerate(found) if each.endswith("/manifests/v1"))
        return [each.replace(f"/v2/{self.repository}/", "") for each in found[start + 1 :] if each != "GET /v2/"]

    def signed_image(self, host: str) -> str:
        return self.push(host, self.world.bundle(None, key=self.world.key, payload=ABOUT_M).data)

    def test_three_with_the_api(self) -> None:
        image = self.signed_image(self.api.host)
        found = self.asked(image, self.by_key())
        self.assertEqual(found[0], f"GET referrers/{DIGEST}")
        self.assertEqual([each.partition("/")[0] for each in found[1:]], ["GET manifests", "GET blobs"])

    def test_four_without(self) -> None:
        image = self.signed_image(self.tags.host)
        before = len(self.tags.log_text())
        self.accept(image, self.by_key())
        asked = self.asked_without(before)
        self.assertEqual(asked[:3], ["manifests/v1", f"referrers/{DIGEST}", f"manifests/{tag_of(DIGEST)}"])
        self.assertEqual([each.partition("/")[0] for each in asked[3:]], ["manifests", "blobs"])

    def asked_without(self, before: int) -> list[str]:
        """The requests to the registry without the API since its log was so long, but the ping and the layer."""
        asked = re.findall(rf'"GET /v2/{self.repository}/(\S+) HTTP', self.tags.log_text()[before:])
        return [each for each in asked if each != f"blobs/{images.DIGEST_T}"]

    def test_none_where_no_signature_is_wanted(self) -> None:
        image = self.signed_image(self.api.host)
        self.assertEqual(self.asked(image, {"type": "insecureAcceptAnything"}), [])
        self.assertEqual(self.asked(image, {"type": "reject"}), [])
        signed_by = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(self.key)}
        self.assertEqual([each for each in self.asked(image, signed_by) if "referrers" in each], [])

    def test_index_and_instance_cost_one_probe(self) -> None:
        platform = {"os": "linux", "architecture": "amd64"}
        index = images.index([images.entry(MANIFEST, platform=platform)])
        self.push(self.tags.host, self.world.bundle(None, key=self.world.key, payload=ABOUT_M).data)
        with Pusher(self.tags.host, self.repository) as pusher:
            pusher.manifest("list", index, mediatype.OCI_INDEX)
        before = len(self.tags.log_text())
        self.accept(f"docker://{self.tags.host}/{self.repository}:list", self.by_key())
        asked = self.asked_without(before)
        self.assertEqual(len([each for each in asked if each.startswith("referrers/")]), 1, asked)
        self.assertEqual(len([each for each in asked if each.startswith("manifests/sha256-")]), 2, asked)


class IndexTest(BundleCase):
    """An index is accepted itself or through its instance, by bundles too (bundles.md D48, D48b)."""

    def test_a_bundle_of_either_is_enough(self) -> None:
        index = images.index([images.entry(MANIFEST, platform={"os": "linux", "architecture": "amd64"})])
        for signed, subject in (("index", digest_of(index)), ("instance", DIGEST)):
            for found_by, host in self.hosts():
                with self.subTest(signed, found_by=found_by):
                    self.repository = f"either/{signed}"
                    about = json.dumps(statement(subject=[{"digest": {"sha256": subject.encoded}}])).encode()
                    self.push(host)
                    bundle = self.world.bundle(None, key=self.world.key, payload=about).data
                    manifest = carrier(subject, bundle, annotations=SIGNING)
                    with Pusher(host, self.repository) as pusher:
                        pusher.manifest("list", index, mediatype.OCI_INDEX)
                        pusher.blob(bundle)
                        pusher.manifest(str(digest_of(manifest)), manifest)
                        if host == self.tags.host:
                            pusher.manifest(tag_of(subject), listing([listed(manifest)]), mediatype.OCI_INDEX)
                    image = f"docker://{host}/{self.repository}:list"
                    with self.proxy(image, self.by_key()) as (proxy, record):
                        self.assertEqual(proxy.line.ask("GET", "/manifest").body, MANIFEST)
                        (entry,) = entries_of(proxy.line.ask("GET", "/referrers").body)
                        self.assertEqual(entry["annotations"]["container-image-proxy.subject"], str(subject))
                        self.assertEqual(entry["annotations"]["container-image-proxy.verified"], "signature")
                        proxy.line.ask("POST", "/quit")
                        proxy.wait()
                        self.assertIs(record()["accepted"], True)


class SharedHostTest(BundleCase):
    """Row P17: what we add to registries.d changes nothing for skopeo, whichever reads it."""

    def test_skopeo_reads_the_file_of_the_readme(self) -> None:
        image = self.push(self.tags.host, self.world.bundle(None, key=self.world.key, payload=ABOUT_M).data)
        self.opt_in(
            use_sigstore_attachments="true",
            use_sigstore_bundles="true",
            sigstore_bundle_identity="by-digest",
            sigstore_trusted_root="/etc/sigstore/trusted_root.json",
        )
        accepting = self.scratch / "accepting.json"
        accepting.write_text('{"default": [{"type": "insecureAcceptAnything"}]}', encoding="utf-8")
        signed = self.scratch / "signed.json"
        signed.write_text(json.dumps({"default": [self.by_key()]}), encoding="utf-8")
        for words in ((require_peer("skopeo"),), require_newer("skopeo-current")):
            copy = ["--registries.d", str(self.registries_d), "copy", "--quiet", "--src-tls-verify=false", image]
            run_program([*words, "--policy", str(accepting), *copy, f"dir:{self.scratch}/out"], home=self.scratch)
            with self.assertRaisesRegex(AssertionError, "(?i)signature.*(required|exist|accepted|rejected)"):
                run_program([*words, "--policy", str(signed), *copy, f"dir:{self.scratch}/out2"], home=self.scratch)
        self.accept_both(image, self.by_key())


class ParentTest(BundleCase):
    """What refers to an image, for parents: over HTTP, over JSON and by `cip.client`."""

    def setUp(self) -> None:
        super().setUp()
        self.document = b'{"spdxVersion": "SPDX-2.3"}'
        self.bundle = self.world.bundle(None, key=self.world.key, payload=ABOUT_M).data
        self.signature = carrier(DIGEST, self.bundle, annotations=SIGNING)
        self.sbom = carrier(DIGEST, self.document, kind=SBOM, layer_type=SBOM)

    def push_both(self, host: str) -> str:
        image = self.push(host, self.bundle)
        with Pusher(host, self.repository) as pusher:
            pusher.blob(self.document)
            pusher.manifest(str(digest_of(self.sbom)), self.sbom)
            if host == self.tags.host:
                index = listing([listed(self.signature), listed(self.sbom, None)])
                pusher.manifest(tag_of(DIGEST), index, mediatype.OCI_INDEX)
        return image

    def test_l01_to_l12_over_http(self) -> None:
        for found_by, host in self.hosts():
            with self.subTest(found_by), self.proxy(self.push_both(host), self.by_key()) as (proxy, _):
                layer = proxy.line.ask("GET", f"/blobs/{digest_of(self.document)}")
                self.assertEqual((layer.status, layer.problem()["type"]), (404, "blob-not-in-image"), "L09")
                answer = proxy.line.ask("GET", "/referrers")
                self.assertEqual(answer.field("Content-Type"), mediatype.OCI_INDEX)
                marks = {each["digest"]: each["annotations"] for each in entries_of(answer.body)}
                self.assertEqual(marks[str(digest_of(self.signature))]["container-image-proxy.verified"], "signature")
                self.assertEqual(marks[str(digest_of(self.sbom))]["container-image-proxy.verified"], "no")
                self.assertEqual({each["container-image-proxy.subject"] for each in marks.values()}, {str(DIGEST)})
                (entry,) = entries_of(proxy.line.ask("GET", f"/referrers?artifactType={SBOM}").body)
                self.assertEqual((entry["digest"], entry["artifactType"]), (str(digest_of(self.sbom)), SBOM))
                bundles = entries_of(proxy.line.ask("GET", f"/referrers?artifactType={BUNDLE}").body)
                self.assertEqual([each["artifactType"] for each in bundles], [BUNDLE], "L02, L03")
                manifest = proxy.line.ask("GET", f"/referrers/{digest_of(self.sbom)}")
                self.assertEqual((manifest.body, manifest.field("Referrers-Verified")), (self.sbom, "no"))
                layer = proxy.line.ask("GET", f"/blobs/{digest_of(self.document)}")
                self.assertEqual((layer.status, layer.body), (200, self.document), "L08")
                verified = proxy.line.ask("GET", f"/referrers/{digest_of(self.signature)}")
                self.assertEqual((verified.body, verified.field("Referrers-Verified")), (self.signature, None))
                missing = proxy.line.ask("GET", f"/referrers/{images.DIGEST_T}")
                self.assertEqual(missing.problem()["type"], "blob-not-in-image", "L09b")

    def test_l06_none_is_an_empty_list(self) -> None:
        for found_by, host in self.hosts():
            with self.subTest(found_by):
                image = self.push(host)
                with self.proxy(image, {"type": "insecureAcceptAnything"}) as (proxy, _):
                    answer = proxy.line.ask("GET", "/referrers")
                    self.assertEqual((answer.status, entries_of(answer.body)), (200, []))

    def test_l12_an_image_that_the_policy_refuses_has_none(self) -> None:
        image = self.push_both(self.api.host)
        before = len(self.api.requests())
        with self.proxy(image, {"type": "reject"}) as (proxy, _):
            for target in ("/referrers", f"/referrers/{digest_of(self.sbom)}"):
                self.assertEqual(proxy.line.ask("GET", target).problem()["type"], "policy-rejected")
        self.assertFalse([each for each in self.api.requests()[before:] if "referrers" in each])

    def test_l13_over_json(self) -> None:
        image = self.push_both(self.api.host)
        options = (self.policy(self.by_key()), f"--registries.d={self.registries_d}", "--tls-verify=false")
        with json_proxy(*options) as proxy:
            opened = proxy.parent.open(image)
            count, index, _ = proxy.parent.fetch("GetReferrers", opened)
            self.assertEqual((count, len(entries_of(index))), (2, 2))
            self.assertEqual(proxy.parent.fetch("GetReferrers", opened, SBOM)[0], 1)
            kind, manifest, _ = proxy.parent.fetch("GetReferrerManifest", opened, str(digest_of(self.sbom)))
            self.assertEqual((kind, manifest), (mediatype.OCI_MANIFEST, self.sbom))
            digest = str(digest_of(self.document))
            size, layer, reply = proxy.parent.fetch("GetBlob", opened, digest, len(self.document))
            self.assertEqual((size, layer), (len(self.document), self.document))
            self.assertIsNone(reply.value)

    def test_client(self) -> None:
        image = self.push_both(self.api.host)
        options = (self.policy(self.by_key()), f"--registries.d={self.registries_d}", "--tls-verify=false")
        for protocol in ("http", "json"):
            with self.subTest(protocol), open_proxy(image, protocol=protocol, options=options) as opened:
                found = {each.descriptor.digest: each.verified for each in opened.referrers()}
                expected = {digest_of(self.signature): "signature", digest_of(self.sbom): "no"}
                self.assertEqual(found, expected)
                (sbom,) = opened.referrers(SBOM)
                self.assertEqual(opened.referrer_manifest(sbom.descriptor.digest), self.sbom)
                with opened.open_blob(digest_of(self.document)) as blob:
                    self.assertEqual(blob.readall(), self.document)


class LayoutTest(BundleCase):
    """Layouts have no registries.d, so only a policy of our own can accept by digest."""

    def layout(self, *, by_tag: bool, listed_there: bool = True) -> str:
        layout = images.Layout(self.scratch / "layout")
        layout.add_image(images.CONFIG_C, [images.LAYER_T], MANIFEST, name="t")
        bundle = self.world.bundle(None, key=self.world.key, payload=ABOUT_M).data
        for blob in (bundle, EMPTY_CONFIG):
            layout.add_blob(blob)
        manifest = carrier(DIGEST, bundle, annotations=SIGNING)
        layout.add_blob(manifest)
        if by_tag:
            index = listing([listed(manifest)])
            layout.add_manifest(index, mediatype.OCI_INDEX, name=tag_of(DIGEST))
        elif listed_there:
            layout.add_manifest(manifest)
        return f"oci:{layout.path}:t"

    def test_d49b_it_is_found_in_both_forms(self) -> None:
        for by_tag, words in ((True, "by tag"), (False, "by index.json")):
            with self.subTest(words), tempfile.TemporaryDirectory(prefix="cip-layout-") as scratch:
                self.scratch = Path(scratch)
                image = self.layout(by_tag=by_tag)
                found = self.accept_both(image, self.by_key(signedIdentity={"type": "matchDigest"}))
                self.assertIn(words, found["signatures"][0]["source"])
                text = r'bundles name no repository.* To accept it by digest alone use {"type": "matchDigest"}'
                self.refuse("identity", text, image, self.by_key())

    def test_offline_a_local_source_has_the_bundles_of_a_registry_image(self) -> None:
        layout = self.layout(by_tag=True)
        self.arguments = (f"--local-source={layout}", "--offline")
        [signature] = self.accept_both("docker://registry.example.com/os/base:t", self.by_key())["signatures"]
        self.assertEqual((signature["result"], signature["identity"]), ("accepted", "by-digest"))

    def test_d49_what_the_index_does_not_list_is_not_found(self) -> None:
        image = self.layout(by_tag=False, listed_there=False)
        words = "a layout lists no bundle unless it was put there"
        self.refuse("nosig", words, image, self.by_key(signedIdentity={"type": "matchDigest"}))


if __name__ == "__main__":
    unittest.main()

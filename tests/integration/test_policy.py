# SPDX-License-Identifier: Apache-2.0
"""Nothing untrusted gets through: signatures made by the real tools, judged by `python3 -m cip` on both front ends."""

import hashlib
import json
import subprocess
import tempfile
import unittest
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cip.model import mediatype
from cip.model.descriptor import Digest, digest_of
from cip.model.signature import SigstoreSignature
from tests.support import images
from tests.support.jsonparent import json_proxy
from tests.support.judge import Judge
from tests.support.newer import require_newer
from tests.support.parent import Proxy, running
from tests.support.peers import Registry, docker_registry, require_peer, run_program, skopeo
from tests.support.pushing import Pusher
from tests.support.recording import Asked, Given, RecordingServer
from tests.support.signatures import OTHER_DIGEST, GpgHome, payload
from tests.support.sigstore import b64, new_key, public_pem, sign, signature_of, sigstore_payload, stored

MANIFEST, DIGEST = images.MANIFEST_M, images.DIGEST_M
BLOBS = (images.CONFIG_C, images.LAYER_T)
PLATFORM = ("--override-os=linux", "--override-arch=amd64")


class PolicyCase(unittest.TestCase):
    """A scratch directory, and the proxy with a policy."""

    def setUp(self) -> None:
        self.scratch = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="cip-policy-")))
        self.registries_d = self.scratch / "registries.d"
        self.registries_d.mkdir()
        self.arguments: tuple[str, ...] = ()

    def policy(self, *requirements: Mapping[str, Any]) -> str:
        path = self.scratch / "policy.json"
        path.write_text(json.dumps({"default": requirements}), encoding="utf-8")
        return f"--policy={path}"

    def places(self, **members: str) -> None:
        """The registries.d file."""
        lines = ["default-docker:", *(f"  {name.replace('_', '-')}: {text}" for name, text in members.items())]
        (self.registries_d / "all.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def flags(self) -> tuple[str, ...]:
        """What every program here is started with: the policy that was written last, and where signatures are."""
        return (
            f"--policy={self.scratch}/policy.json",
            f"--registries.d={self.registries_d}",
            "--tls-verify=false",
            "--retry-times=0",
            *PLATFORM,
            *self.arguments,
        )

    @contextmanager
    def proxy(
        self, image: str, *requirements: Mapping[str, Any]
    ) -> Iterator[tuple[Proxy, Callable[[], dict[str, Any]]]]:
        """A proxy for `image`, and a function that reads its one audit record."""
        path = self.scratch / "audit"
        with open(path, "wb") as audit:
            self.policy(*requirements)
            with running(*self.flags(), f"--audit-fd={audit.fileno()}", image, pass_fds=[audit.fileno()]) as proxy:
                yield proxy, lambda: json.loads(path.read_bytes().splitlines()[-1])

    def accept(self, image: str, *requirements: Mapping[str, Any]) -> dict[str, Any]:
        """The image is served, byte for byte; its audit record."""
        with self.proxy(image, *requirements) as (proxy, record):
            answer = proxy.line.ask("GET", "/manifest")
            self.assertEqual((answer.status, answer.body), (200, MANIFEST), answer)
            layer = proxy.line.ask("GET", f"/blobs/{images.DIGEST_T}")
            self.assertEqual((layer.status, layer.body), (200, images.LAYER_T))
            proxy.line.ask("POST", "/quit")
            proxy.wait()
            found = record()
        self.assertIs(found["accepted"], True)
        return found

    def refuse(
        self, reason: str, words: str, image: str, *requirements: Mapping[str, Any], status: int = 403
    ) -> dict[str, Any]:
        """No byte of the image is served, twice; its audit record."""
        with self.proxy(image, *requirements) as (proxy, record):
            for target in ("/manifest", f"/blobs/{images.DIGEST_T}"):
                answer = proxy.line.ask("GET", target)
                problem = answer.problem()
                self.assertEqual((answer.status, problem.get("reason")), (status, reason), problem)
                self.assertRegex(problem["detail"], words)
                self.assertNotIn(images.LAYER_T, answer.body)
            proxy.line.ask("POST", "/quit")
            proxy.wait()
            found = record()
        self.assertIs(found["accepted"], False)
        self.refuse_json(words, image)
        return found

    def refuse_json(self, words: str, image: str) -> None:
        """The JSON protocol refuses as well, with the policy that was written last."""
        with json_proxy(*self.flags()) as proxy:
            self.assertEqual(proxy.parent.ask("Initialize").value, "0.2.8")
            self.assertRegex(proxy.parent.ask("OpenImage", image).failure[1], words)


class RequiredAuditTest(PolicyCase):
    """`--require-audit`: an image whose decision cannot be recorded is not served."""

    def words(self, audit: int) -> list[str]:
        policy = self.policy({"type": "insecureAcceptAnything"})
        return [policy, "--require-audit", f"--audit-fd={audit}", *PLATFORM]

    def image(self) -> str:
        path = self.scratch / "image"
        if not path.exists():
            images.directory(path, MANIFEST, (images.CONFIG_C, images.LAYER_T))
        return f"dir:{path}"

    def test_line_is_there_before_the_first_answer(self) -> None:
        path = self.scratch / "audit"
        with open(path, "wb") as audit:
            with running(*self.words(audit.fileno()), self.image(), pass_fds=[audit.fileno()]) as proxy:
                self.assertEqual(proxy.line.ask("GET", "/manifest").body, MANIFEST)
                self.assertIs(json.loads(path.read_bytes())["accepted"], True)
                proxy.line.ask("POST", "/quit")
                proxy.wait()

    def test_image_is_not_served_when_the_line_cannot_be_written(self) -> None:
        with open("/dev/full", "wb") as audit:
            words = self.words(audit.fileno())
            with running(*words, self.image(), pass_fds=[audit.fileno()]) as proxy:
                for target in ("/manifest", f"/blobs/{images.DIGEST_T}"):
                    answer = proxy.line.ask("GET", target)
                    self.assertEqual((answer.status, answer.problem()["type"]), (500, "audit-unavailable"))
                    self.assertRegex(answer.problem()["detail"], "--require-audit: the decision was not written")
                proxy.line.ask("POST", "/quit")
                proxy.wait()
            with json_proxy(*words, pass_fds=[audit.fileno()]) as parent:
                parent.parent.ask("Initialize")
                self.assertRegex(parent.parent.ask("OpenImage", self.image()).failure[1], "--require-audit")


class DirectoryTest(PolicyCase):
    """`dir:`, gpg and skopeo's standalone-sign; no network."""

    home: GpgHome
    key: str
    other: str

    @classmethod
    def setUpClass(cls) -> None:
        require_peer("gpgv")
        cls.home = cls.enterClassContext(GpgHome())
        cls.key, cls.other = cls.home.create_key("main"), cls.home.create_key("other")

    def setUp(self) -> None:
        super().setUp()
        self.image = images.directory(self.scratch / "image", MANIFEST, BLOBS)
        for name, key in (("main", self.key), ("other", self.other)):
            (self.scratch / f"{name}.gpg").write_bytes(self.home.export_all(key))

    def by(self, key: str, reference: str = "example.com/os:1") -> dict[str, Any]:
        return {
            "type": "signedBy",
            "keyType": "GPGKeys",
            "keyPath": str(self.scratch / f"{key}.gpg"),
            "signedIdentity": {"type": "exactReference", "dockerReference": reference},
        }

    def sign(self, number: int = 1, key: str = "", **members: str) -> Path:
        file = self.image / f"signature-{number}"
        text = payload(**{"reference": "example.com/os:1", "digest": str(DIGEST), **members})
        file.write_bytes(self.home.sign_as(text, key or self.key))
        return file

    def test_signature_of_gpg_opens_the_image_and_is_recorded(self) -> None:
        self.sign()
        record = self.accept(f"dir:{self.image}", self.by("main"))
        policy = (self.scratch / "policy.json").read_bytes()
        self.assertEqual(
            record["policy"],
            {
                "path": str(self.scratch / "policy.json"),
                "sha256": hashlib.sha256(policy).hexdigest(),
                "scope": "default",
                "transport": "dir",
            },
        )
        self.assertEqual((record["digest"], record["reference"]), (str(DIGEST), f"dir:{self.image}"))
        [signature] = record["signatures"]
        self.assertEqual((signature["result"], signature["key"]), ("accepted", self.key))
        self.assertEqual(signature["claims"], {"reference": "example.com/os:1", "digest": str(DIGEST)})

    def test_signature_of_skopeo_opens_the_image(self) -> None:
        skopeo(
            "standalone-sign",
            "--output",
            str(self.image / "signature-1"),
            str(self.image / "manifest.json"),
            "example.com/os:1",
            self.key,
            home=self.scratch,
            environment={"GNUPGHOME": str(self.home.directory)},
        )
        self.accept(f"dir:{self.image}", self.by("main"))

    def test_each_refusal_says_which_one_it_is(self) -> None:
        image = f"dir:{self.image}"
        cases: tuple[tuple[str, Callable[[], object], dict[str, Any], str, str], ...] = (
            ("none found", lambda: None, self.by("main"), "nosig", "no simple signature found, looked in"),
            ("wrong key", self.sign, self.by("other"), "untrusted", f"signed by a key {self.key} that"),
            ("wrong name", self.sign, self.by("main", "example.com/os:2"), "identity", "signed for example.com/os:1"),
            (
                "other digest",
                lambda: self.sign(digest=OTHER_DIGEST),
                self.by("main"),
                "digest",
                f"signed for manifest {OTHER_DIGEST}, expected {DIGEST}",
            ),
            ("no key file", self.sign, self.by("missing"), "keycfg", r"keyPath '.*missing\.gpg': .*no such file"),
            (
                "unreadable",
                lambda: (self.image / "signature-1").write_bytes(b"{}"),
                self.by("main"),
                "fetch",
                "the signatures cannot be fetched: .*unknown format",
            ),
        )
        for case, prepare, requirement, reason, words in cases:
            (self.image / "signature-1").unlink(missing_ok=True)
            prepare()
            with self.subTest(case):
                record = self.refuse(reason, words, image, requirement)
                self.assertEqual(record["requirements"][-1]["reason"], reason)

    def test_transport_without_signatures_was_not_searched(self) -> None:
        layout = images.f1(self.scratch / "layout")
        record = self.refuse("nosig", "no simple signature was looked for", f"oci:{layout.path}:t", self.by("main"))
        self.assertEqual(record["looked_for"], [])

    def verified_text(self, message: bytes) -> bytes:
        """What gpgv says was signed; nothing where it verifies nothing."""
        path = self.scratch / "flipped"
        path.write_bytes(message)
        done = subprocess.run(
            [require_peer("gpgv"), "--keyring", str(self.scratch / "main.gpg"), "--output", "-", str(path)],
            check=False,
            capture_output=True,
        )
        return done.stdout if done.returncode == 0 else b""

    def test_flipped_bytes_of_a_signature_never_open_the_image(self) -> None:
        """Every position of a sample, one proxy that is asked again after each flip: a failed open is tried anew.

        An image that was opened is kept, so what comes behind it is for another proxy.

        But for the few bytes that nothing signs (subpackets that are not hashed, how deflate is written): there gpgv
        has verified the very text that was signed.
        """
        file = self.sign()
        good = file.read_bytes()
        text = self.verified_text(good)
        self.assertTrue(text)
        positions = list(range(0, len(good), 9))
        opened = 0
        while positions:
            with self.proxy(f"dir:{self.image}", self.by("main")) as (proxy, _):
                while positions:
                    position = positions.pop(0)
                    flipped = good[:position] + bytes([good[position] ^ 0x55]) + good[position + 1 :]
                    file.write_bytes(flipped)
                    if proxy.line.ask("GET", "/manifest").status != 403:
                        self.assertEqual(self.verified_text(flipped), text, position)
                        opened += 1
                        break
        self.assertLess(opened, 4)
        file.write_bytes(good)
        with self.proxy(f"dir:{self.image}", self.by("main")) as (proxy, _):
            self.assertEqual(proxy.line.ask("GET", "/manifest").status, 200)

    def test_x06_manifest_that_is_replaced_after_it_was_accepted_is_not_served(self) -> None:
        self.sign()
        other = images.manifest(images.CONFIG_C, [])
        with self.proxy(f"dir:{self.image}", self.by("main")) as (proxy, _):
            self.assertEqual(proxy.line.ask("GET", "/manifest").body, MANIFEST)
            (self.image / "manifest.json").write_bytes(other)
            self.assertEqual(proxy.line.ask("GET", "/manifest").body, MANIFEST)

    def test_require_signed_refuses_what_nothing_verified(self) -> None:
        self.arguments = ("--require-signed",)
        self.refuse("noverify", "--require-signed", f"dir:{self.image}", {"type": "insecureAcceptAnything"})
        self.sign()
        self.accept(f"dir:{self.image}", {"type": "insecureAcceptAnything"}, self.by("main"))

    def test_s11_s14_only_the_resolved_path_counts(self) -> None:
        link = self.scratch / "link"
        link.symlink_to(self.image)
        accept, reject = {"type": "insecureAcceptAnything"}, {"type": "reject"}
        path = self.scratch / "scopes.json"
        for scope, status in ((link, 403), (self.image, 200)):
            path.write_text(json.dumps({"default": [reject], "transports": {"dir": {str(scope): [accept]}}}))
            with running(f"--policy={path}", f"dir:{link}") as proxy:
                self.assertEqual(proxy.line.ask("GET", "/manifest").status, status)

    def test_policy_that_is_missing_or_broken_opens_nothing(self) -> None:
        broken = self.scratch / "broken.json"
        broken.write_text('{"default":[{"type":"insecureAcceptAnything"}],"Default":[]}')
        for option, code, words in (
            (f"--policy={self.scratch}/none.json", "policy-missing", "none.json"),
            (f"--policy={broken}", "policy-invalid", "unknown member 'Default'"),
            (f"--policy={self.scratch}", "policy-invalid", "expected a file, found a directory"),
            (f"--policy={broken}/x", "policy-invalid", "cannot be read: not a directory"),
            ("--policy=/proc/self/mem", "policy-invalid", "cannot be read"),
            ("--policy=/dev/zero", "policy-invalid", "larger than"),
        ):
            with self.subTest(option), running(option, f"dir:{self.image}") as proxy:
                problem = proxy.line.ask("GET", "/manifest").problem()
                self.assertEqual((problem["status"], problem["type"]), (500, code))
                self.assertRegex(problem["detail"], words)
        with running("--insecure-policy", f"dir:{self.image}") as proxy:
            self.assertEqual(proxy.line.ask("GET", "/manifest").status, 200)


class RegistryTest(PolicyCase):
    """A real registry, a lookaside directory, attachments; skopeo and the judge sign and push."""

    registry: Registry
    shared: Path
    home: GpgHome
    key: str

    @classmethod
    def setUpClass(cls) -> None:
        require_peer("gpgv")
        cls.shared = Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="cip-policy-registry-")))
        cls.registry = cls.enterClassContext(docker_registry(cls.shared / "registry"))
        cls.home = cls.enterClassContext(GpgHome())
        cls.key = cls.home.create_key("main")
        layout = images.Layout(cls.shared / "layout")
        layout.add_image(images.CONFIG_C, [images.LAYER_T], MANIFEST, name="t")

    def setUp(self) -> None:
        super().setUp()
        (self.scratch / "main.gpg").write_bytes(self.home.export_all(self.key))
        self.lookaside = self.scratch / "lookaside"
        self.places(lookaside=f"file://{self.lookaside}", use_sigstore_attachments="true")
        self.repository = f"{self.id().rpartition('.')[2].lower()}/os"
        self.image = f"{self.registry.host}/{self.repository}:v1"

    def by_key(self, matcher: Mapping[str, Any] | None = None) -> dict[str, Any]:
        identity = {} if matcher is None else {"signedIdentity": matcher}
        return {"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(self.scratch / "main.gpg"), **identity}

    def push(self, repository: str = "", tag: str = "v1", manifest: bytes = MANIFEST) -> Digest:
        with Pusher(self.registry.host, repository or self.repository) as pusher:
            return pusher.image(tag, manifest, *BLOBS)

    def keep(self, *blobs: bytes, repository: str = "", digest: Digest = DIGEST) -> None:
        place = self.lookaside / f"{repository or self.repository}@sha256={digest.encoded}"
        place.mkdir(parents=True, exist_ok=True)
        for number, blob in enumerate(blobs, 1):
            (place / f"signature-{number}").write_bytes(blob)

    def signed(self, reference: str, digest: Digest = DIGEST) -> bytes:
        return self.home.sign_as(payload(reference, str(digest)), self.key)

    def test_image_that_skopeo_signed_while_pushing_is_served(self) -> None:
        skopeo(
            "--registries.d",
            str(self.registries_d),
            "copy",
            "--quiet",
            "--preserve-digests",
            "--dest-tls-verify=false",
            "--sign-by",
            self.key,
            f"oci:{self.shared}/layout:t",
            f"docker://{self.image}",
            home=self.scratch,
            environment={"GNUPGHOME": str(self.home.directory)},
        )
        record = self.accept(f"docker://{self.image}", self.by_key())
        [signature] = record["signatures"]
        self.assertEqual(signature["claims"]["reference"], self.image)
        self.assertIn(str(self.lookaside), signature["source"])
        self.refuse("nosig", "no simple signature found", f"docker://{self.unsigned()}", self.by_key())

    def unsigned(self) -> str:
        self.push("unsigned/os")
        return f"{self.registry.host}/unsigned/os:v1"

    def test_image_that_a_current_skopeo_signed_with_a_sigstore_key_is_served(self) -> None:
        with Judge("generate-sigstore-key", home=self.scratch) as keys:
            key = keys.ask(prefix=self.scratch / "key", passphrase="words")
            other = keys.ask(prefix=self.scratch / "other", passphrase="words")
        with Judge("copy", home=self.scratch) as copy:
            done = copy.ask(
                source=f"oci:{self.shared}/layout:t",
                destination=f"docker://{self.image}",
                tls_verify=False,
                preserve_digests=True,
                registries_d=self.registries_d,
                sigstore_key=key["private"],
                sigstore_passphrase="words",
            )
        self.assertEqual(done["error"], "")
        requirement = {"type": "sigstoreSigned", "keyPath": key["public"]}
        [signature] = self.accept(f"docker://{self.image}", requirement)["signatures"]
        self.assertEqual((signature["kind"], signature["claims"]["reference"]), ("sigstore", self.image))
        wrong = {"type": "sigstoreSigned", "keyPath": other["public"]}
        self.refuse("crypto", "not by the expected key", f"docker://{self.image}", wrong)
        self.places(lookaside=f"file://{self.lookaside}")  # signatures.md K11: not looked for, by configuration
        record = self.refuse("nosig", "no sigstore signature found", f"docker://{self.image}", requirement)
        self.assertNotIn("attach", " ".join(record["looked_for"]))

    def test_image_that_the_current_skopeo_itself_signed_is_served(self) -> None:
        words, phrase = require_newer("skopeo-current"), self.scratch / "phrase"
        phrase.write_text("words")
        generate = [*words, "generate-sigstore-key", "--output-prefix", str(self.scratch / "key")]
        run_program([*generate, "--passphrase-file", str(phrase)], home=self.scratch)
        copy = [
            *words,
            "--insecure-policy",
            "--registries.d",
            str(self.registries_d),
            "copy",
            "--quiet",
            "--preserve-digests",
            "--dest-tls-verify=false",
            "--sign-by-sigstore-private-key",
            str(self.scratch / "key.private"),
            "--sign-passphrase-file",
            str(phrase),
        ]
        run_program([*copy, f"oci:{self.shared}/layout:t", f"docker://{self.image}"], home=self.scratch)
        requirement = {"type": "sigstoreSigned", "keyPath": str(self.scratch / "key.pub")}
        [signature] = self.accept(f"docker://{self.image}", requirement)["signatures"]
        self.assertEqual(signature["claims"]["reference"], self.image)

    def cosign(self, name: str, *options: str) -> dict[str, Any]:
        """Push the image, let a cosign sign it, and return what trusts its key; names are matched by repository."""
        words, digest = require_newer(name), self.push()
        environment = {"COSIGN_PASSWORD": "words", "TUF_ROOT": str(self.scratch / "tuf")}
        generate = [*words, "generate-key-pair", "--output-key-prefix", str(self.scratch / "cosign")]
        run_program(generate, home=self.scratch, environment=environment)
        run_program(
            [
                *words,
                "sign",
                "--yes",
                f"--key={self.scratch / 'cosign.key'}",
                "--tlog-upload=false",
                "--allow-http-registry",
                *options,
                f"{self.registry.host}/{self.repository}@{digest}",
            ],
            home=self.scratch,
            environment=environment,
        )
        key = str(self.scratch / "cosign.pub")
        return {"type": "sigstoreSigned", "keyPath": key, "signedIdentity": {"type": "matchRepository"}}

    def test_image_that_cosign_signed_is_served_under_its_repository(self) -> None:
        """Row K16: cosign signs a name without a tag, which says too little for the default."""
        requirement = self.cosign("cosign")
        [signature] = self.accept(f"docker://{self.image}", requirement)["signatures"]
        self.assertEqual(signature["claims"]["reference"], f"{self.registry.host}/{self.repository}")
        del requirement["signedIdentity"]
        self.refuse("identity", "a name without tag and digest says too little", f"docker://{self.image}", requirement)

    def test_lookaside_on_a_host_is_this_one_or_an_error(self) -> None:
        self.push()
        self.keep(self.signed(self.image))
        self.places(lookaside=f"file://localhost{self.lookaside}")
        self.accept(f"docker://{self.image}", self.by_key())
        self.places(lookaside=f"file://elsewhere{self.lookaside}")
        words = "lookaside: expected a path of this host, found host 'elsewhere'"
        self.refuse("fetch", words, f"docker://{self.image}", self.by_key(), status=500)

    def test_signature_for_another_tag_repository_or_digest_is_refused(self) -> None:
        self.push()
        for reference, digest, reason in (
            (f"{self.image}x", DIGEST, "identity"),
            (f"{self.registry.host}/other/os:v1", DIGEST, "identity"),
            (self.image, digest_of(b"other"), "digest"),
        ):
            self.keep(self.signed(reference, digest))
            with self.subTest(reference):
                self.refuse(reason, "signed for", f"docker://{self.image}", self.by_key())
        self.keep(self.signed(f"{self.image}x"), self.signed(self.image))
        self.assertEqual(len(self.accept(f"docker://{self.image}", self.by_key())["signatures"]), 2)

    def test_x01_x02_index_or_instance_must_be_signed(self) -> None:
        entry = images.entry(MANIFEST, platform={"os": "linux", "architecture": "amd64"})
        index = images.index([entry])
        self.push(tag="amd64")
        with Pusher(self.registry.host, self.repository) as pusher:
            top = pusher.manifest("v1", index, mediatype.OCI_INDEX)
        image = f"docker://{self.image}"
        self.refuse("nosig", "no simple signature found", image, self.by_key())
        for digest, subjects in ((top, ["index"]), (DIGEST, ["index", "instance"])):
            self.keep(self.signed(self.image, digest), digest=digest)
            record = self.accept(image, self.by_key())
            self.assertEqual([each["of"] for each in record["requirements"]], subjects)
            self.assertEqual((record["digest"], record["index_digest"]), (str(DIGEST), str(top)))
            (self.lookaside / f"{self.repository}@sha256={digest.encoded}" / "signature-1").unlink()

    def test_index_that_is_refused_is_recorded_although_no_instance_can_be_had(self) -> None:
        index = images.index([images.entry(MANIFEST, platform={"os": "linux", "architecture": "s390x"})])
        self.push(tag="s390x")
        with Pusher(self.registry.host, self.repository) as pusher:
            top = pusher.manifest("v1", index, mediatype.OCI_INDEX)
        with self.proxy(f"docker://{self.image}", self.by_key()) as (proxy, record):
            self.assertEqual(proxy.line.ask("GET", "/manifest").problem()["type"], "platform-not-found")
            proxy.line.ask("POST", "/quit")
            proxy.wait()
            found = record()
        self.assertEqual((found["accepted"], found["digest"]), (False, str(top)))
        self.assertEqual([(each["of"], each["reason"]) for each in found["requirements"]], [("index", "nosig")])

    def test_x04_instance_that_was_swapped_below_a_signed_index_is_refused(self) -> None:
        index = images.index([images.entry(MANIFEST, platform={"os": "linux", "architecture": "amd64"})])
        self.push(tag="amd64")
        with Pusher(self.registry.host, self.repository) as pusher:
            top = pusher.manifest("v1", index, mediatype.OCI_INDEX)
        self.keep(self.signed(self.image, top), digest=top)
        kept = self.registry.root / "docker/registry/v2/blobs/sha256" / DIGEST.encoded[:2] / DIGEST.encoded / "data"
        original = kept.read_bytes()
        self.addCleanup(kept.write_bytes, original)
        kept.write_bytes(original.replace(b'"schemaVersion":2', b'"schemaVersion":2 '))
        with self.proxy(f"docker://{self.image}", self.by_key()) as (proxy, _):
            problem = proxy.line.ask("GET", "/manifest").problem()
            self.assertIn(problem["type"], ("content-mismatch", "image-not-found", "registry-error"), problem)

    def test_x08_x09_mirror_that_strips_signatures_gains_nothing(self) -> None:
        self.push("mirror/os")
        conf = self.scratch / "registries.conf"
        conf.write_text(
            "[[registry]]\nprefix = 'origin.example'\nlocation = 'origin.invalid'\n"
            f"[[registry.mirror]]\nlocation = '{self.registry.host}/mirror'\ninsecure = true\n"
        )
        self.arguments = (f"--registries-conf={conf}",)
        image = "docker://origin.example/os:v1"
        self.refuse("nosig", "no simple signature found", image, self.by_key())
        self.keep(self.signed(f"{self.registry.host}/mirror/os:v1"), repository="mirror/os")
        self.refuse("identity", "expected exactly origin.example/os:v1", image, self.by_key())
        self.keep(self.signed("origin.example/os:v1"), repository="mirror/os")
        self.accept(image, self.by_key())


class AnswersOfARegistryTest(PolicyCase):
    """Rows that need a registry of bad manners: what it says about signatures, and how often it is asked."""

    def setUp(self) -> None:
        super().setUp()
        self.key = new_key()
        self.attached: Given = Given(404, b"not here")
        self.lookaside: Given = Given(404)
        self.extension: Given | None = None
        self.manifest = self.instance = MANIFEST
        self.layers: dict[str, bytes] = {}
        self.server = self.enterContext(RecordingServer(self.answer))
        self.places(lookaside=f"http://{self.server.host}/lookaside", use_sigstore_attachments="true")
        self.image = f"docker://{self.server.host}/os/base:v1"
        self.requirement = {"type": "sigstoreSigned", "keyData": b64(public_pem(self.key))}

    def answer(self, asked: Asked) -> Given:
        if asked.target == "/v2/":
            return Given(200, b"{}", {"X-Registry-Supports-Signatures": "1"} if self.extension else {})
        if asked.target.startswith("/extensions/v2/") and self.extension is not None:
            return self.extension
        if asked.target.startswith("/lookaside/"):
            return self.lookaside if asked.target.endswith("/signature-1") else Given(404)
        if asked.target.endswith(".sig"):
            return self.attached
        if "/manifests/sha512:" in asked.target:
            return Given(200, self.instance, {"Content-Type": mediatype.OCI_MANIFEST})
        if "/manifests/" in asked.target:
            return Given(200, self.manifest, {"Content-Type": json.loads(self.manifest)["mediaType"]})
        found = {str(digest_of(data)): data for data in BLOBS} | self.layers
        body = found.get(asked.target.rpartition("/")[2])
        return Given(404) if body is None else Given(200, body)

    def signature(self, reference: str = "", digest: str = "") -> SigstoreSignature:
        text = sigstore_payload(reference or f"{self.server.host}/os/base:v1", digest or str(DIGEST))
        return signature_of(text, sign(self.key, text))

    def attach(
        self, *signatures: SigstoreSignature, media_type: str = mediatype.OCI_MANIFEST, spoil: bool = False
    ) -> None:
        layers = []
        for each in signatures:
            digest = digest_of(each.payload)
            self.layers[str(digest)] = each.payload + b" " * spoil
            layers.append(
                {
                    "mediaType": each.mime_type,
                    "digest": str(digest),
                    "size": len(each.payload),
                    "annotations": dict(each.annotations),
                }
            )
        config = {"mediaType": mediatype.OCI_CONFIG, "digest": str(images.DIGEST_C), "size": len(images.CONFIG_C)}
        document = {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers}
        self.attached = Given(200, images.compact(document), {"Content-Type": media_type})

    def test_k12_k13_attachments_that_cannot_be_had_whole_refuse(self) -> None:
        code = '{"errors":[{"code":"%s","message":"x"}]}'
        for case, given, reason in (
            ("plain 404", Given(404, b"not here"), "nosig"),
            ("unknown manifest", Given(404, (code % "MANIFEST_UNKNOWN").encode()), "nosig"),
            ("unknown manifest, 400", Given(400, (code % "MANIFEST_UNKNOWN").encode()), "nosig"),
            ("unknown name", Given(404, (code % "NAME_UNKNOWN").encode()), "fetch"),
            ("forbidden", Given(403), "fetch"),
            ("broken", Given(500), "fetch"),
            ("page", Given(200, b"<html>", {"Content-Type": "text/html"}), "fetch"),
            ("no type", Given(200, b"{}"), "fetch"),
        ):
            self.attached = given
            with self.subTest(case):
                self.refuse_with(reason)
        self.attach(self.signature(), media_type=mediatype.DOCKER_MANIFEST)
        self.refuse_with("fetch")
        self.attach(self.signature(), spoil=True)
        self.refuse_with("fetch")
        self.attach(self.signature())
        self.accept(self.image, self.requirement)

    def refuse_with(self, reason: str, *requirements: Mapping[str, Any]) -> None:
        with self.proxy(self.image, *(requirements or (self.requirement,))) as (proxy, record):
            problem = proxy.line.ask("GET", "/manifest").problem()
            self.assertEqual(problem.get("reason"), reason, problem)
            proxy.line.ask("POST", "/quit")
            proxy.wait()
            found = record()
            self.assertEqual(found["requirements"][-1]["reason"], reason)
        self.looked_for = found["looked_for"]

    def test_g26_lookaside_that_does_not_answer_properly_refuses(self) -> None:
        for status, body, reason in (
            (404, b"", "nosig"),
            (403, b"", "fetch"),
            (500, b"", "fetch"),
            (410, b"", "fetch"),
            (200, b"<html>", "fetch"),
        ):
            self.lookaside = Given(status, body)
            with self.subTest(status):
                self.refuse_with(reason)
        self.lookaside = Given(200, stored(self.signature()))
        self.accept(self.image, self.requirement)

    def test_c10_unreachable_signatures_do_not_matter_when_none_is_needed(self) -> None:
        self.lookaside, self.attached = Given(500), Given(500)
        record = self.accept(self.image, {"type": "insecureAcceptAnything"})
        self.assertIsNone(record["looked_for"])
        self.assertFalse(
            [asked for asked in self.server.asked if "signature" in asked.target or ".sig" in asked.target]
        )

    def test_g27_g28_g29_extension_of_the_registry_replaces_the_lookaside(self) -> None:
        self.lookaside = Given(200, stored(self.signature()))
        old = [{"version": 2, "type": "atomic", "name": "x", "content": ""}]
        for case, given, reason in (
            ("missing", Given(404), "fetch"),
            ("empty", Given(200, b'{"signatures":[]}'), "nosig"),
            ("other key", Given(200, json.dumps({"signatures": old}).encode()), "nosig"),
        ):
            self.extension = given
            with self.subTest(case):
                self.refuse_with(reason)
            self.assertIn(f"signatures that {self.server.host} keeps", self.looked_for)
        self.assertFalse([asked for asked in self.server.asked if asked.target.startswith("/lookaside/")])

    def test_g30_broken_configuration_stops_only_images_that_need_signatures(self) -> None:
        (self.registries_d / "more.yaml").write_text("default-docker:\n  lookaside: file:///x\n")
        self.accept(self.image, {"type": "insecureAcceptAnything"})
        self.refuse_with("fetch")

    def test_x05_tag_is_fetched_once_and_those_bytes_are_served(self) -> None:
        self.lookaside = Given(200, stored(self.signature()))
        with self.proxy(self.image, self.requirement) as (proxy, _):
            self.assertEqual(proxy.line.ask("GET", "/manifest").body, MANIFEST)
            self.manifest = images.manifest(images.CONFIG_C, [])
            self.assertEqual(proxy.line.ask("GET", "/manifest").body, MANIFEST)
        asked = [each for each in self.server.asked if each.target == "/v2/os/base/manifests/v1"]
        self.assertEqual(len(asked), 1)

    def test_x07_a_reference_by_another_algorithm_is_refused_even_when_everything_is_accepted(self) -> None:
        digest = f"sha512:{hashlib.sha512(MANIFEST).hexdigest()}"
        image = f"docker://{self.server.host}/os/base@{digest}"
        with self.proxy(image, {"type": "insecureAcceptAnything"}) as (proxy, _):
            problem = proxy.line.ask("GET", "/manifest").problem()
            self.assertEqual(problem["type"], "digest-unsupported", problem)

    def test_x12_an_instance_is_checked_by_the_algorithm_that_names_it_and_signed_by_sha256(self) -> None:
        self.instance = MANIFEST
        self.manifest = self.index_by(f"sha512:{hashlib.sha512(MANIFEST).hexdigest()}")
        self.attach(self.signature())
        self.accept(self.image, self.requirement)
        with self.proxy(self.image, self.requirement) as (proxy, _):
            self.assertEqual(proxy.line.ask("GET", "/manifest").field("Manifest-Digest"), str(DIGEST))
        self.instance = MANIFEST + b" "
        with self.proxy(self.image, {"type": "insecureAcceptAnything"}) as (proxy, _):
            problem = proxy.line.ask("GET", "/manifest").problem()
            self.assertEqual(problem["type"], "content-mismatch", problem)

    def index_by(self, digest: str) -> bytes:
        entry = {**images.entry(MANIFEST, platform={"os": "linux", "architecture": "amd64"}), "digest": digest}
        return images.index([entry])

    def test_two_signatures_of_which_one_is_bad_are_accepted(self) -> None:
        self.attach(self.signature(digest=OTHER_DIGEST), self.signature())
        results = [each["result"] for each in self.accept(self.image, self.requirement)["signatures"]]
        self.assertEqual(results, ["refused", "accepted"])


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""Shows that the judge answers as the library of a current skopeo does, against a real registry.

These tests are about the judge alone: the differential tests that ask it beside us rely on what is shown here.
"""

import base64
import json
import tempfile
import unittest
from pathlib import Path

from cip.model import mediatype
from cip.model.descriptor import digest_of
from tests.support import images
from tests.support.certificates import CertificateAuthority
from tests.support.judge import Judge
from tests.support.openpgp import GpgHome
from tests.support.peers import Registry, docker_registry

_ACCEPT = {"default": [{"type": "insecureAcceptAnything"}]}
_PLATFORM = {"os": "linux", "arch": "amd64"}


class JudgeTest(unittest.TestCase):
    registry: Registry
    home: Path
    index_digest: str

    @classmethod
    def setUpClass(cls) -> None:
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.home = Path(scratch.name)
        cls.registry = docker_registry(cls.home / "registry")
        cls.addClassCleanup(cls.registry.stop)
        layout = images.Layout(cls.home / "layout")
        layout.add_image(images.CONFIG_C, [images.LAYER_T], images.MANIFEST_M, name="oci")
        docker = mediatype.DOCKER_MANIFEST
        layout.add_image(images.CONFIG_C, [images.LAYER_T], images.MANIFEST_S, name="docker", media_type=docker)
        platform = {"os": "linux", "architecture": "amd64"}
        index = images.index([images.entry(images.MANIFEST_M, platform=platform)])
        layout.add_manifest(index, mediatype.OCI_INDEX, name="list")
        cls.index_digest = str(digest_of(index))
        (cls.home / "registries.d").mkdir()
        (cls.home / "registries.d" / "all.yaml").write_text(
            f"default-docker:\n  use-sigstore-attachments: true\n  lookaside: file://{cls.home}/lookaside\n"
        )
        with cls.judge("copy") as copy:
            for name in ("oci", "docker", "list"):
                reply = copy.ask(
                    source=f"oci:{layout.path}:{name}",
                    destination=cls.image(name),
                    all=True,
                    preserve_digests=True,
                    tls_verify=False,
                    registries_d=cls.home / "registries.d",
                )
                assert reply["error"] == "", reply

    @classmethod
    def judge(cls, subcommand: str) -> Judge:
        return Judge(subcommand, home=cls.home)

    @classmethod
    def image(cls, name: str) -> str:
        return f"docker://{cls.registry.host}/os/base:{name}"

    def write_policy(self, policy: object) -> Path:
        path = self.home / f"{self.id()}.json"
        path.write_text(json.dumps(policy), encoding="utf-8")
        return path

    def test_fetch_tells_digests_manifest_config_and_layers(self) -> None:
        with self.judge("fetch") as judge:
            reply = judge.ask(image=self.image("list"), tls_verify=False, **_PLATFORM)
        self.assertEqual("", reply["error"] + reply["manifest_error"] + reply["config_error"])
        self.assertEqual((self.index_digest, str(images.DIGEST_M)), (reply["index_digest"], reply["digest"]))
        self.assertEqual(images.MANIFEST_M, base64.b64decode(reply["manifest"]))
        self.assertEqual(images.MANIFEST_M, base64.b64decode(reply["oci_manifest"]))
        self.assertEqual(images.CONFIG_C, base64.b64decode(reply["config"]))
        self.assertEqual([str(images.DIGEST_T)], [layer["digest"] for layer in reply["layers"]])

    def test_fetch_converts_schema_2_and_keeps_the_digest_from_before(self) -> None:
        with self.judge("fetch") as judge:
            reply = judge.ask(image=self.image("docker"), tls_verify=False)
        self.assertEqual(str(images.DIGEST_S), reply["digest"])
        self.assertEqual("", reply["index_digest"])
        self.assertEqual(mediatype.OCI_MANIFEST, json.loads(base64.b64decode(reply["oci_manifest"]))["mediaType"])

    def test_one_process_answers_many_questions_and_a_failure_is_an_answer(self) -> None:
        with self.judge("fetch") as judge:
            self.assertIn("manifest unknown", judge.ask(image=self.image("absent"), tls_verify=False)["error"])
            self.assertIn("unknown transport", judge.ask(image="nonsense:x")["error"])
            self.assertIn("no image found", judge.ask(image=self.image("list"), tls_verify=False, os="plan9")["error"])
            self.assertEqual("", judge.ask(image=self.image("oci"), tls_verify=False)["error"])

    def test_a_key_that_the_judge_does_not_know_is_a_mistake_and_no_answer(self) -> None:
        with self.judge("reference") as judge:
            with self.assertRaisesRegex(AssertionError, 'unknown field "txet"'):
                judge.ask(txet="docker://a")

    def test_fetch_obeys_credentials_certificates_and_the_files_that_name_them(self) -> None:
        authority = CertificateAuthority(self.home / "ca")
        certs = self.home / "certs"
        certs.mkdir()
        (certs / "ca.crt").write_bytes(authority.certificate.read_bytes())
        registry = docker_registry(self.home / "tls", tls=authority.server(), htpasswd={"user": "word"})
        authfile = self.home / "auth.json"
        secret = base64.b64encode(b"user:word").decode()
        authfile.write_text(json.dumps({"auths": {registry.host: {"auth": secret}}}), encoding="utf-8")
        image = f"docker://{registry.host}/os/base:oci"
        with registry, self.judge("copy") as copy, self.judge("fetch") as judge:
            stored = copy.ask(
                source=f"oci:{self.home}/layout:oci",
                destination=image,
                preserve_digests=True,
                cert_dir=certs,
                authfile=authfile,
            )
            self.assertEqual(("", str(images.DIGEST_M)), (stored["error"], stored["digest"]))
            self.assertEqual("", judge.ask(image=image, cert_dir=certs, creds="user:word")["error"])
            self.assertIn("unknown authority", judge.ask(image=image, creds="user:word")["error"])
            self.assertIn("authentication required", judge.ask(image=image, cert_dir=certs)["error"])

    def test_reference_tells_the_normal_form_and_the_scopes_of_the_policy(self) -> None:
        with self.judge("reference") as judge:
            reply = judge.ask(text="docker://busybox")
            self.assertEqual("docker.io/library/busybox:latest", reply["docker_reference"])
            self.assertEqual("docker.io/library/busybox:latest", reply["identity"])
            self.assertEqual(
                ["docker.io/library/busybox", "docker.io/library", "docker.io", "*.io"], reply["namespaces"]
            )
            reply = judge.ask(text="dir:/tmp")
            self.assertEqual(("dir", "/tmp"), (reply["transport"], reply["within"]))
            self.assertIn("must be lowercase", judge.ask(text="docker://A")["error"])

    def test_endpoints_come_in_order_with_what_the_file_says_of_them(self) -> None:
        conf = self.home / "registries.conf"
        conf.write_text(
            '[[registry]]\nprefix = "example.com"\nlocation = "origin.example:5000/x"\ninsecure = true\n'
            '[[registry.mirror]]\nlocation = "mirror.example"\npull-from-mirror = "digest-only"\n'
            '[[registry.mirror]]\nlocation = "blocked.example"\n'
            '[[registry]]\nlocation = "blocked.example"\nblocked = true\n',
            encoding="utf-8",
        )
        with self.judge("endpoints") as judge:
            reply = judge.ask(registries_conf=conf, reference="example.com/a/b:1")
            self.assertEqual(
                [("blocked.example/a/b:1", False, True), ("origin.example:5000/x/a/b:1", True, False)],
                [(each["reference"], each["insecure"], each["blocked"]) for each in reply["sources"]],
            )
            conf.write_text("[[registry]]\nprefix = 7\n", encoding="utf-8")
            self.assertIn("registries.conf", judge.ask(registries_conf=conf, reference="example.com/a")["error"])

    def test_endpoints_are_found_below_another_root_and_in_another_environment(self) -> None:
        for directory, location in (("root/etc/containers", "system.example"), ("home/containers", "user.example")):
            (self.home / directory).mkdir(parents=True)
            text = f'[[registry]]\nprefix = "example.com"\nlocation = "{location}"\n'
            (self.home / directory / "registries.conf").write_text(text, encoding="utf-8")
        with self.judge("endpoints") as judge:
            below = judge.ask(root=self.home / "root", reference="example.com/a")
            user = judge.ask(environment={"XDG_CONFIG_HOME": str(self.home / "home")}, reference="example.com/a")
            again = judge.ask(reference="example.com/a")
        self.assertEqual(
            ["system.example", "user.example"], [reply["sources"][0]["location"] for reply in (below, user)]
        )
        self.assertNotEqual("user.example", again["sources"][0]["location"])

    def test_policy_says_at_which_stage_it_decided(self) -> None:
        reject = self.write_policy({"default": [{"type": "reject"}]})
        broken = self.home / "broken.json"
        broken.write_text("{}", encoding="utf-8")
        with self.judge("policy") as judge:
            for case, question, accepted, stage, reason in (
                ("rejected", {"policy": reject, "image": self.image("oci")}, False, "top", "rejected by policy"),
                ("both", {"policy": reject, "image": self.image("list"), **_PLATFORM}, False, "instance", "rejected"),
                ("broken", {"policy": broken, "image": self.image("oci")}, False, "policy", "policy is missing"),
                ("absent", {"policy": reject, "image": self.image("none")}, False, "open", "manifest unknown"),
            ):
                with self.subTest(case):
                    reply = judge.ask(tls_verify=False, **question)
                    self.assertEqual((accepted, stage), (reply["accepted"], reply["stage"]))
                    self.assertIn(reason, reply["error"])
            accepting = self.write_policy(_ACCEPT)
            reply = judge.ask(tls_verify=False, policy=accepting, image=self.image("list"), **_PLATFORM)
            self.assertEqual((True, ""), (reply["accepted"], reply["error"]))
            reply = judge.ask(tls_verify=False, policy=accepting, image=self.image("oci"), require_signed=True)
            self.assertFalse(reply["accepted"])

    def test_copy_signs_with_openpgp_and_policy_accepts_only_that_key(self) -> None:
        with GpgHome() as gpg, self.judge("copy") as copy, self.judge("policy") as judge:
            key, other = gpg.new_key("signer <signer@example.com>"), gpg.new_key("other <other@example.com>")
            for name, fingerprint in (("signer", key), ("other", other)):
                (self.home / f"{name}.gpg").write_bytes(gpg.export(fingerprint))
            reply = copy.ask(
                source=self.image("oci"),
                destination=self.image("signed"),
                sign_by=key,
                tls_verify=False,
                registries_d=self.home / "registries.d",
                environment={"GNUPGHOME": str(gpg.directory)},
            )
            self.assertEqual(("", str(images.DIGEST_M)), (reply["error"], reply["digest"]))
            for name, tag, accepted, reason in (
                ("signer", "signed", True, ""),
                ("other", "signed", False, "Invalid GPG signature"),
                ("signer", "docker", False, "A signature was required, but no signature exists"),
                ("signer", "oci", False, "for identity"),
            ):
                with self.subTest(name, tag=tag):
                    requirement = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(self.home / f"{name}.gpg")}
                    reply = judge.ask(
                        policy=self.write_policy({"default": [requirement]}),
                        image=self.image(tag),
                        tls_verify=False,
                        registries_d=self.home / "registries.d",
                    )
                    self.assertEqual(accepted, reply["accepted"], reply)
                    self.assertIn(reason, reply["error"])

    def test_copy_signs_with_a_sigstore_key_that_the_judge_made(self) -> None:
        with self.judge("generate-sigstore-key") as keys:
            key = keys.ask(prefix=self.home / "key", passphrase="words")
            other = keys.ask(prefix=self.home / "other", passphrase="words")
        self.assertIn(b"BEGIN PUBLIC KEY", Path(key["public"]).read_bytes())
        with self.judge("copy") as copy, self.judge("policy") as judge:
            question = {
                "source": self.image("list"),
                "destination": self.image("attached"),
                "all": True,
                "tls_verify": False,
                "sigstore_key": key["private"],
                "registries_d": self.home / "registries.d",
            }
            self.assertIn("decrypt", copy.ask(sigstore_passphrase="wrong", **question)["error"])
            self.assertEqual("", copy.ask(sigstore_passphrase="words", **question)["error"])
            for public, accepted in ((key["public"], True), (other["public"], False)):
                requirement = {
                    "type": "sigstoreSigned",
                    "keyPath": public,
                    "signedIdentity": {"type": "matchRepository"},
                }
                reply = judge.ask(
                    policy=self.write_policy({"default": [requirement]}),
                    image=self.image("attached"),
                    tls_verify=False,
                    registries_d=self.home / "registries.d",
                    **_PLATFORM,
                )
                self.assertEqual(accepted, reply["accepted"], reply)


if __name__ == "__main__":
    unittest.main()

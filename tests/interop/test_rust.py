# SPDX-License-Identifier: Apache-2.0
"""The Rust crate `containers-image-proxy` as our parent: what bootc, rpm-ostree and ostree-ext do with us."""

from __future__ import annotations

import base64
import json
import sys
import tempfile
import unittest
from typing import Any, ClassVar

from cip.model import mediatype
from cip.model.descriptor import digest_of
from tests.bench.images import Pusher
from tests.support import images
from tests.support.leaks import LeakCheckedTestCase
from tests.support.parent import ROOT
from tests.support.peers import Registry, docker_registry
from tests.support.registry import NAME, Exchange, FaultyHost, Strike, at, make_content, registry_of, status
from tests.support.rustparent import build_parent, run_parent
from tests.support.secrets import secret

USER = "rust"
PASSWORD = secret("rust")


class RustTestCase(LeakCheckedTestCase):
    """`program` is this program, as an executable file named skopeo in a directory of its own."""

    def setUp(self) -> None:
        super().setUp()
        build_parent()
        self.bin = self.directory / "bin"
        self.bin.mkdir()
        self.program = self.bin / "skopeo"
        self.program.write_text(
            f"#!{sys.executable}\nimport os, sys\nsys.path.insert(0, {str(ROOT)!r})\n"
            "sys.argv += os.environ.get('FLAGS', '').split()\nfrom cip.cli import run\nrun()\n"
        )
        self.program.chmod(0o755)

    def run_parent(self, *arguments: str, **options: Any) -> list[Any]:
        """The values that the parent prints. It starts us by path, accepts every image and speaks plain HTTP."""
        flags = ("--program", str(self.program), "--insecure-policy", "--no-tls-verify")
        return run_parent(*flags, *arguments, home=self.directory, **options)[:-1]


class Layouts(RustTestCase):
    def test_an_image_is_read_in_every_way_the_crate_has(self) -> None:
        images.f1(self.directory / "F1")
        big = images.big(self.directory / "BIG")
        plain, large = self.run_parent("read", *(f"oci:{self.directory}/{name}:t" for name in ("F1", "BIG")))
        self.assertEqual(
            plain,
            {
                "digest": str(images.DIGEST_M),
                "manifest": str(images.DIGEST_M),
                "config": str(images.DIGEST_C),
                "layers": [[str(images.DIGEST_T), 10240, mediatype.OCI_LAYER]],
                "blobs": [str(images.DIGEST_C), str(images.DIGEST_T)],
            },
        )
        self.assertEqual(large["blobs"][1], str(big.layer.digest))

    def test_a_docker_image_is_converted_and_its_config_is_a_blob(self) -> None:
        images.f2(self.directory / "F2")
        config = images.CONFIG_C.replace(b"{", b'{"docker_version":"1.13", ', 1)
        manifest = images.manifest(config, [images.LAYER_T], media_type=mediatype.DOCKER_MANIFEST)
        layout = images.Layout(self.directory / "OTHER")
        layout.add_image(config, [images.LAYER_T], manifest, name="t", media_type=mediatype.DOCKER_MANIFEST)
        converted, other = self.run_parent("read", *(f"oci:{self.directory}/{name}:t" for name in ("F2", "OTHER")))
        self.assertEqual((converted["digest"], converted["manifest"]), (str(images.DIGEST_S), str(images.DIGEST_M)))
        self.assertEqual(converted["layers"], [[str(images.DIGEST_T), 10240, mediatype.DOCKER_LAYER]])
        self.assertEqual((other["blobs"][0], other["config"]), (str(images.DIGEST_C), str(images.DIGEST_C)))

    def test_leaving_early_is_told_as_the_callers_expect(self) -> None:
        images.big(self.directory / "BIG")
        ((found),) = self.run_parent("leave", f"oci:{self.directory}/BIG:t")
        by_driver, by_error_pipe = found["told"]
        self.assertRegex(by_driver, "broken pipe$")  # ostree-ext looks for these last words
        self.assertIsNone(by_error_pipe)  # EPIPE is success for the crate

    def test_wrong_blobs_fail_by_the_driver_and_pass_raw(self) -> None:
        images.bad(self.directory / "BAD")
        (((verdict, raw),),) = self.run_parent("fail", f"oci:{self.directory}/BAD:t")
        self.assertRegex(verdict[0], "FinishPipe: .*expected digest")
        self.assertFalse(verdict[1])
        self.assertIsNone(raw)

    def test_hundreds_of_pipes_may_stay_unfinished(self) -> None:
        images.f1(self.directory / "F1")
        self.assertEqual(self.run_parent("unfinished", f"oci:{self.directory}/F1:t"), [300])

    def test_a_list_of_many_layers_arrives(self) -> None:
        layers = [b"%d" % number for number in range(400)]
        layout = images.Layout(self.directory / "MANY")
        layout.add_image(images.CONFIG_C, layers, images.manifest(images.CONFIG_C, layers), name="t")
        (found,) = self.run_parent("read", f"oci:{self.directory}/MANY:t")
        self.assertEqual([layer[0] for layer in found["layers"]], [str(digest_of(layer)) for layer in layers])
        self.assertEqual(found["blobs"][1:], [str(digest_of(layer)) for layer in layers])

    def test_many_images_may_be_open(self) -> None:
        images.f1(self.directory / "F1")
        (found,) = self.run_parent("open", f"oci:{self.directory}/F1:t")
        self.assertEqual(found, {"opened": 8, "version": "0.2.8"})


class RealRegistry(RustTestCase):
    registry: ClassVar[Registry]
    layers: ClassVar[list[bytes]]

    @classmethod
    def setUpClass(cls) -> None:
        build_parent()
        scratch = cls.enterClassContext(tempfile.TemporaryDirectory())
        cls.registry = cls.enterClassContext(docker_registry(scratch))
        cls.layers = [images.random_bytes(size, b"rust %d" % size) for size in (1, 70_000, 700_000, 3_000_000) * 2]
        pusher = Pusher(cls.registry.host, "os/base")
        pusher.image("t", [(str(digest_of(layer)), len(layer), layer) for layer in cls.layers])
        pusher.close()

    def reference(self, tag: str = "t") -> str:
        return f"docker://{self.registry.host}/os/base:{tag}"

    def test_an_image_is_read_in_every_way_the_crate_has(self) -> None:
        first, again = self.run_parent("read", self.reference(), self.reference())
        self.assertEqual(first, again)
        self.assertEqual(first["blobs"][1:], [str(digest_of(layer)) for layer in self.layers])
        self.assertEqual(
            [layer[:2] for layer in first["layers"]], [[str(digest_of(layer)), len(layer)] for layer in self.layers]
        )

    def test_layers_beside_each_other(self) -> None:
        (found,) = self.run_parent("together", self.reference())
        self.assertEqual(found, [str(digest_of(layer)) for layer in self.layers])

    def test_leaving_early(self) -> None:
        (found,) = self.run_parent("leave", self.reference())
        for layer, by_driver in zip(self.layers, found["told"][::2], strict=True):
            if len(layer) > 1 << 20:
                self.assertRegex(by_driver, "broken pipe$")

    def test_absent_images(self) -> None:
        absent, nonsense = self.run_parent("absent", self.reference("none"), "nonsense")
        self.assertEqual((absent["optional"], absent["retryable"]), (False, False))
        self.assertRegex(absent["error"], "OpenImage: ")
        self.assertRegex(nonsense["optional"], "OpenImageOptional: ")

    def test_under_the_name_skopeo_the_prefix_of_the_user_agent_arrives(self) -> None:
        environment = {"PATH": f"{self.bin}:/usr/bin:/bin"}
        flags = ("--insecure-policy", "--no-tls-verify", "--user-agent-prefix", "bootc/1.2.3")
        run_parent(*flags, "read", self.reference(), home=self.directory, environment=environment)
        self.assertIn('http.request.useragent="bootc/1.2.3 container-image-proxy/', self.registry.log_text())


class OtherRegistries(RustTestCase):
    def test_credentials_are_handed_over_as_a_descriptor(self) -> None:
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        content = make_content(300_000)
        respond = registry_of(content, challenge=lambda: 'Basic realm="tests"', accepted=[f"Basic {basic}"])
        with FaultyHost(respond) as host:
            auth = self.directory / "auth.json"
            auth.write_text(json.dumps({"auths": {host.address: {"auth": basic}}}))
            auth.chmod(0o600)
            reference = f"docker://{host.address}/{NAME}:t"
            for flags in (("--auth-data", str(auth)), ("--authfile", str(auth))):
                first, again = self.run_parent(*flags, "read", reference, reference)
                self.assertEqual((first, again), (first, first))
                self.assertEqual(first["blobs"], [str(digest_of(data)) for data in (content.config, content.layer)])
            (refused,) = self.run_parent("--no-creds", "absent", reference)
            self.assertNotIn(PASSWORD, str(refused))
            self.assertRegex(refused["optional"], "OpenImageOptional: ")

    def test_what_may_be_tried_again_is_told_as_such(self) -> None:
        """Of a blob that has begun: what fails before the first byte is an error of the reply."""
        content = make_content(300_000)
        cut = at(0.5, Exchange.end)
        gone = [Strike("blob", fault) for fault in (cut, status(404), cut, status(404))]  # for GetBlob, for GetRawBlob
        lost = [Strike("blob", cut, None)]
        with FaultyHost(registry_of(content)) as host:
            for strikes, repeats, retryable, words in (
                (gone, 1, False, "^other error: "),
                (lost, 0, True, "^retryable error: "),
            ):
                host.strikes = strikes
                flags = {"FLAGS": f"--retry-delay=0.1 --retry-times={repeats}"}
                reference = f"docker://{host.address}/{NAME}:t"
                (((verdict, raw),),) = self.run_parent("fail", reference, environment=flags)
                self.assertEqual(verdict[1], retryable)
                self.assertRegex(raw, words)

    def test_the_flags_of_the_crate_are_all_taken(self) -> None:
        images.f1(self.directory / "F1")
        flags = ("--decryption-key", "key", "--cert-dir", str(self.directory), "--no-creds")
        (found,) = self.run_parent(*flags, "read", f"oci:{self.directory}/F1:t")
        self.assertEqual(found["manifest"], str(images.DIGEST_M))

    def test_a_policy_that_rejects_is_an_error_of_the_image(self) -> None:
        images.f1(self.directory / "F1")
        policy = self.directory / ".config" / "containers" / "policy.json"
        policy.parent.mkdir(parents=True)
        policy.write_text('{"default": [{"type": "reject"}]}')
        arguments = ("--program", str(self.program), "absent", f"oci:{self.directory}/F1:t")
        refused, _ = run_parent(*arguments, home=self.directory)
        self.assertRegex(refused["optional"], "policy")


if __name__ == "__main__":
    unittest.main()

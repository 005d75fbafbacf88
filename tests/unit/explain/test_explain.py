# SPDX-License-Identifier: Apache-2.0
import base64
import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import unittest
from collections.abc import Mapping
from unittest import mock

from cip import cli
from cip.errors import ConfigurationError, InvalidReferenceError, NotFoundError, UnsupportedError, UsageError
from cip.explain.resolve import explain
from cip.explain.view import Explanation
from cip.model.reference import ImageIdentity, Transport, parse_docker_reference
from cip.settings import CredentialOptions, PlatformOptions, PolicyOptions, PolicySource, Settings
from cip.sources.storage import source as storage
from tests.support.host import make_host

try:
    import yaml
except ImportError:
    yaml = None  # type: ignore[assignment]

SECRET = "hunter2-explain"
IMAGE = "docker://example.com/os/base:9"
ACCEPT = '{"default":[{"type":"insecureAcceptAnything"}]}'
MIRRORED = """
[[registry]]
location = "example.com"
[[registry.mirror]]
location = "cache.lan:5000"
insecure = true
"""


class ExplainCase(unittest.TestCase):
    def setUp(self) -> None:
        self.host = make_host(self)
        self.policy = self.host.write("/etc/containers/policy.json", ACCEPT)
        authorities = mock.patch("cip.explain.resolve.missing_authorities", return_value="")  # as on most machines
        authorities.start()
        self.addCleanup(authorities.stop)
        for forbidden in (mock.patch.object(socket, "socket"), mock.patch.object(subprocess, "Popen")):
            self.addCleanup(self._require_unused, forbidden.start())
            self.addCleanup(forbidden.stop)

    def _require_unused(self, forbidden: mock.Mock) -> None:
        self.assertEqual([], forbidden.mock_calls, "explain used the network or ran a program")

    def settings(self, variables: Mapping[str, str] | None = None) -> Settings:
        settings = self.host.settings(variables)
        return settings._replace(platform=PlatformOptions("linux", "amd64"))

    def explain(self, image: str = IMAGE, settings: Settings | None = None) -> Explanation:
        found = explain(image, settings or self.settings())
        for shown in (found.to_text(), found.to_json()):
            self.assertNotIn(SECRET, shown)
        return found


class PlacesTest(ExplainCase):
    def setUp(self) -> None:
        super().setUp()
        self.conf = self.host.write("/etc/containers/registries.conf", MIRRORED)

    def test_the_text_reads_from_the_verdict_to_the_files(self) -> None:
        auth = base64.b64encode(f"robot:{SECRET}".encode()).decode()
        self.host.write("/run/containers/0/auth.json", json.dumps({"auths": {"example.com/os": {"auth": auth}}}))
        self.host.write("/etc/containers/certs.d/example.com/ca.crt")
        self.host.write("/etc/containers/certs.d/example.com/me.cert")
        self.host.write("/etc/containers/certs.d/example.com/me.key")
        shown = self.explain().to_text().replace(str(self.host.root), "")
        sha256 = hashlib.sha256(ACCEPT.encode()).hexdigest()
        expected = f"""\
{IMAGE}
  would be fetched from cache.lan:5000/os/base:9, or from 1 other place; no signature is checked

  name      example.com/os/base:9
  platform  linux/amd64 (or linux/amd64/v1)
  warning   cache.lan:5000: its certificate is not checked, and plain http is allowed

places, in the order they are tried
  1. cache.lan:5000/os/base:9
     rule          mirror 1 of prefix 'example.com', /etc/containers/registries.conf
     connection    cache.lan:5000: https unverified, then plain http; direct
     certificates  the system's authorities, no client certificate
     credentials   none found, so anonymous
  2. example.com/os/base:9
     rule          location of prefix 'example.com', /etc/containers/registries.conf
     connection    example.com: https, certificate checked; direct
     certificates  /etc/containers/certs.d/example.com: 1 authority beside the system's, 1 client certificate
     credentials   user name and password, key 'example.com/os' of /run/containers/0/auth.json

policy /etc/containers/policy.json (sha256 {sha256})
  scope         default
  requirement   insecureAcceptAnything

signatures of the first place, not asked for by the policy
  lookaside     file:///var/lib/containers/sigstore  (built-in default)
  attachments   no
  bundles       no

files
  absent  /home/.config/containers/policy.json  (policy)
  read    /etc/containers/policy.json  (policy)
  absent  /home/.config/containers/registries.conf  (registries.conf)
  read    /etc/containers/registries.conf  (registries.conf)
"""
        self.assertEqual(expected.splitlines(), shown.splitlines()[: len(expected.splitlines())])

    def test_the_json_has_the_members_that_programs_rely_on(self) -> None:
        members = json.loads(self.explain().to_json())
        self.assertLessEqual(
            {"reference", "transport", "identity", "platform", "config_files", "endpoints", "policy", "signatures"},
            set(members),
        )
        self.assertEqual(
            {
                "location": "cache.lan:5000/os/base:9",
                "host": "cache.lan:5000",
                "rule": "mirror 1 of prefix 'example.com'",
                "file": self.conf,
                "insecure": True,
                "blocked": False,
                "credentials": {"kind": "none", "source": None, "key": None, "helper": None},
                "certificates": {"directory": None, "authorities": [], "pairs": []},
                "proxy": None,
            },
            members["endpoints"][0],
        )
        self.assertEqual({"path": self.conf, "role": "registries.conf", "read": True}, members["config_files"][3])
        self.assertEqual(
            ("docker", "example.com/os/base:9", "linux/amd64"),
            (members["transport"], members["identity"], members["platform"]),
        )

    def test_the_flag_about_tls_overrides_every_place(self) -> None:
        for flag, expected in ((True, [False, False]), (False, [True, True])):
            found = self.explain(settings=self.settings()._replace(tls_verify=flag))
            self.assertEqual(expected, [endpoint.insecure for endpoint in found.endpoints])

    def test_docker_hub_says_whom_it_would_talk_to(self) -> None:
        (endpoint,) = self.explain("docker://busybox").endpoints
        self.assertEqual(
            ("docker.io/library/busybox:latest", "registry-1.docker.io"), (endpoint.location, endpoint.host)
        )

    def test_a_proxy_is_shown_without_its_password_and_with_what_it_means(self) -> None:
        proxy = f"http://user:{SECRET}@proxy.lan:3128"
        found = self.explain(settings=self.settings({"HTTPS_PROXY": proxy, "NO_PROXY": "cache.lan"}))
        self.assertEqual([None, "HTTPS_PROXY"], [each.proxy and each.proxy.variable for each in found.endpoints])
        self.assertIn(
            "example.com: https, certificate checked; via proxy http://proxy.lan:3128 (HTTPS_PROXY)", found.to_text()
        )
        self.assertIn("can be judged by names and literal addresses only", found.to_text())
        self.assertEqual("http://proxy.lan:3128", json.loads(found.to_json())["endpoints"][1]["proxy"])

    def test_a_blocked_name_is_refused_and_its_places_are_shown(self) -> None:
        self.host.write(
            "/etc/containers/registries.conf", MIRRORED.replace("[[registry.", "blocked = true\n[[registry.")
        )
        found = self.explain()
        self.assertRegex(found.verdict, "^refused: example.com/os/base:9: blocked by .*registries.conf")
        self.assertEqual(((), [False, True]), (found.errors, [endpoint.blocked for endpoint in found.endpoints]))

    def test_a_place_that_is_blocked_is_not_counted(self) -> None:
        blocked = "[[registry]]\nlocation='cache.lan:5000'\nblocked=true\n"
        self.host.write("/etc/containers/registries.conf", MIRRORED + blocked)
        found = self.explain()
        self.assertRegex(found.verdict, "^would be fetched from example.com/os/base:9; ")
        self.assertIn("1. cache.lan:5000/os/base:9  BLOCKED, not used", found.to_text())

    def test_a_broken_file_is_the_verdict_and_hides_nothing_else(self) -> None:
        self.host.write("/etc/containers/registries.conf", "[[registry]]\nlocation = 1\n")
        found = self.explain()
        self.assertRegex(
            found.verdict, r"^cannot be opened: .*registries.conf: registry\[0\].location: expected a string"
        )
        self.assertEqual(1, len(found.errors))
        assert found.policy is not None
        self.assertEqual(self.policy, found.policy.path)
        self.assertIn("  ERROR     ", found.to_text())

    def test_a_location_that_makes_no_reference_is_an_error(self) -> None:
        self.host.write("/etc/containers/registries.conf", MIRRORED.replace("cache.lan:5000", "cache"))
        self.assertRegex(self.explain().verdict, "^cannot be opened: .*mirror 1 of prefix 'example.com'")

    def test_each_part_of_a_place_fails_by_itself(self) -> None:
        self.host.write("/run/containers/0/auth.json", "{")
        self.host.write("/etc/containers/certs.d/example.com/me.cert")
        found = self.explain(settings=self.settings({"HTTPS_PROXY": f"socks4://u:{SECRET}@h:1"}))
        self.assertEqual(3, len(found.errors), found.errors)
        self.assertEqual(3, found.to_text().count("ERROR     "))
        self.assertIn("credentials   unknown, see ERROR above", found.to_text())
        self.assertIn("certificates  unknown, see ERROR above", found.to_text())


class CredentialsTest(ExplainCase):
    def setUp(self) -> None:
        super().setUp()
        self.host.write("/etc/containers/registries.conf", MIRRORED)

    def _kinds(self, options: CredentialOptions) -> list[tuple[str, str]]:
        found = self.explain(settings=self.settings()._replace(credentials=options))
        return [(each.credentials.kind, each.credentials.source) for each in found.endpoints if each.credentials]

    def test_flags_count_for_the_host_they_were_given_for(self) -> None:  # A32, A33
        for options, expected in (
            (CredentialOptions(creds=f"u:{SECRET}"), [("none", ""), ("flags", "--creds")]),
            (CredentialOptions(username="u", password=SECRET), [("none", ""), ("flags", "--username")]),
            (CredentialOptions(registry_token=SECRET), [("none", ""), ("flags", "--registry-token")]),
            (CredentialOptions(no_creds=True), [("anonymous", "--no-creds"), ("anonymous", "--no-creds")]),
        ):
            with self.subTest(expected):
                self.assertEqual(expected, self._kinds(options))

    def test_contradicting_flags_are_a_usage_error(self) -> None:
        options = CredentialOptions(creds="u:p", no_creds=True)
        with self.assertRaisesRegex(UsageError, "--no-creds contradicts"):
            self._kinds(options)

    def test_a_helper_is_named_and_not_run(self) -> None:
        authfile = self.host.write("auth.json", '{"credHelpers":{"example.com":"vault"}}')
        found = self.explain(settings=self.settings()._replace(credentials=CredentialOptions(authfile=authfile)))
        self.assertIn(f"would run docker-credential-vault for example.com, as {authfile} says", found.to_text())


class PolicyTest(ExplainCase):
    def _policy(self, *requirements: object, scope: str = "example.com/os") -> str:
        members = {"default": [{"type": "reject"}], "transports": {"docker": {scope: list(requirements)}}}
        return self.host.write("/etc/containers/policy.json", json.dumps(members))

    def test_the_scope_and_its_requirements_are_shown_with_their_keys(self) -> None:
        key = self.host.write("keys/vendor.gpg")
        self._policy({"type": "signedBy", "keyType": "GPGKeys", "keyPath": key}, {"type": "insecureAcceptAnything"})
        found = self.explain()
        assert found.policy is not None
        self.assertEqual("docker:example.com/os", found.policy.scope)
        self.assertIn(f"requirement   signedBy with {key}", found.to_text())
        self.assertRegex(found.verdict, "^would be fetched from .*; signatures are checked$")
        self.assertIn("\nsignatures of the first place\n", found.to_text())
        self.assertEqual(
            [{"type": "signedBy", "keys": [key]}, {"type": "insecureAcceptAnything", "keys": []}],
            json.loads(found.to_json())["policy"]["requirements"],
        )

    def test_a_key_file_that_is_missing_is_found_before_the_update(self) -> None:
        self._policy({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/nonexistent.gpg"})
        expected = "^cannot be opened: .*policy.json, scope docker:example.com/os: the file /nonexistent.gpg does not"
        self.assertRegex(self.explain().verdict, expected)

    def test_what_files_hold_makes_no_line_and_moves_no_cursor(self) -> None:
        said = "/k\nverdict\x1b[2J\u202e\x85\x9b1m"
        authfile = self.host.write("auth.json", json.dumps({"credHelpers": {"example.com": said[1:]}}))
        self._policy({"type": "signedBy", "keyType": "GPGKeys", "keyPath": said})
        settings = self.settings()._replace(credentials=CredentialOptions(authfile=authfile))
        found = self.explain(settings=settings)
        for shown in (found.to_text(), found.to_json()):
            self.assertEqual([line for line in shown.split("\n") if not line.isprintable()], [])
            self.assertIn(r"k\nverdict", shown)
        self.assertEqual(json.loads(found.to_json())["policy"]["requirements"][0]["keys"], [said])

    def test_a_policy_that_rejects_is_a_refusal(self) -> None:
        self._policy({"type": "insecureAcceptAnything"}, scope="other.example")
        found = self.explain()
        self.assertRegex(found.verdict, "^refused: .*policy.json, scope default, rejects every image")
        self.assertEqual((), found.errors)

    def test_a_requirement_that_nothing_fulfils_is_a_refusal(self) -> None:
        base_layer = {"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}}
        self._policy({"type": "insecureAcceptAnything"}, base_layer)
        self.assertRegex(
            self.explain().verdict, "^refused: .*policy.json, scope docker:example.com/os: signedBaseLayer"
        )

    def test_a_demand_for_signatures_that_the_policy_does_not_make_is_a_refusal(self) -> None:
        settings = self.settings()._replace(policy=PolicyOptions(require_signed=True))
        self.assertRegex(
            self.explain(settings=settings).verdict, "^refused: --require-signed is given, and .*, asks for no"
        )

    def test_a_host_without_a_policy_is_told_how_to_go_on(self) -> None:
        os.unlink(self.policy)
        found = self.explain()
        self.assertRegex(found.verdict, "^cannot be opened: policy.json: no signature policy on this host, looked for")
        self.assertEqual([False] * 3, [file.read for file in found.config_files if file.role == "policy"])
        self.assertIn("\npolicy unknown, see ERROR above\n", found.to_text())

    def test_a_broken_policy_is_an_error(self) -> None:
        self.host.write("/etc/containers/policy.json", '{"default":[]}')
        self.assertRegex(self.explain().verdict, "^cannot be opened: .*policy.json: default: expected at least one")

    def test_the_flag_that_accepts_anything_reads_no_policy(self) -> None:
        os.unlink(self.policy)
        settings = self.settings()._replace(policy=PolicyOptions(PolicySource.ACCEPT_ANYTHING))
        found = self.explain(settings=settings)
        self.assertIn("\npolicy --insecure-policy\n", found.to_text())
        self.assertEqual((), found.errors)

    @unittest.skipIf(yaml is None, "PyYAML is optional and not installed")
    def test_the_signature_store_is_that_of_the_first_place(self) -> None:
        self.host.write("/etc/containers/registries.conf", MIRRORED)
        file = self.host.write(
            "/etc/containers/registries.d/a.yaml",
            f"docker:\n  cache.lan:5000:\n    lookaside: https://u:{SECRET}@sigs.lan/store?t={SECRET}\n"
            "    use-sigstore-attachments: true\n  example.com:\n    lookaside: https://no.lan\n",
        )
        trust = {"identity": "refuse", "identity_file": None, "trusted_root": None, "trusted_root_file": None}
        expected = {
            "lookaside": "https://sigs.lan/store",
            "attachments": True,
            "file": file,
            "bundles": True,
            "bundle_trust": trust,
        }
        found = self.explain()
        self.assertEqual(expected, json.loads(found.to_json())["signatures"])
        self.assertIn("attachments   yes, beside the image (sigstore)", found.to_text())

    @unittest.skipIf(yaml is None, "PyYAML is optional and not installed")
    def test_p20_bundles_are_explained_with_the_files_that_decide(self) -> None:
        self.host.write("/etc/containers/registries.conf", MIRRORED)
        root = self.host.write("/etc/root.json", "{}")
        policy = {
            "type": "sigstoreSigned",
            "trustedRootPath": root,
            "fulcio": {"oidcIssuer": "https://issuer.example", "subjectURI": "https://workflow"},
        }
        own = self.host.write("/own.json", json.dumps({"default": [policy]}))
        mirror = "docker:\n  cache.lan:5000: {use-sigstore-bundles: true, sigstore-bundle-identity: by-digest}\n"
        file = self.host.write("/etc/containers/registries.d/a.yaml", mirror)
        settings = self.settings()._replace(policy=PolicyOptions(PolicySource.FILE, own))
        shown = self.explain(settings=settings).to_text()
        for line in (
            f"requirement   sigstoreSigned with {root}",
            "oidc issuer https://issuer.example",
            "uri https://workflow",
            "bundles       yes, what refers to the image (sigstore)",
            "they name no repository, so only matchDigest in a --policy file accepts them, or",
            '"sigstore-bundle-identity: by-digest" under "docker: example.com/os/base" in',
        ):
            self.assertIn(line, shown)
        self.host.write(
            "/etc/containers/registries.d/a.yaml",
            mirror + f"  example.com: {{sigstore-bundle-identity: by-digest, sigstore-trusted-root: {root}}}\n",
        )
        found = self.explain(settings=settings)
        self.assertIn(f"they count by digest, whatever name was asked for ({file})", found.to_text())
        self.assertIn(f"certificates by {root} ({file})", found.to_text())
        self.assertEqual(
            json.loads(found.to_json())["signatures"]["bundle_trust"],
            {"identity": "by-digest", "identity_file": file, "trusted_root": root, "trusted_root_file": file},
        )

    @unittest.skipIf(yaml is None, "PyYAML is optional and not installed")
    def test_a_broken_signature_store_matters_only_where_signatures_are_asked_for(self) -> None:
        self.host.write("/etc/containers/registries.d/a.yaml", "docker: [")
        found = self.explain()
        self.assertEqual((), found.errors)
        self.assertRegex(found.warnings[0], "a.yaml: not valid YAML .*this image is not affected")
        self._policy({"type": "signedBy", "keyType": "GPGKeys", "keyData": "aGVsbG8="})
        self.assertRegex(self.explain().verdict, "^cannot be opened: .*a.yaml: not valid YAML at line 1")

    def test_without_the_package_for_yaml_the_same_holds(self) -> None:
        self.host.write("/etc/containers/registries.d/a.yaml", "")
        with mock.patch.dict(sys.modules, {"yaml": None}):
            self.assertRegex(self.explain().warnings[0], "PyYAML is not installed.*this image is not affected")
            self._policy({"type": "signedBy", "keyType": "GPGKeys", "keyData": "aGVsbG8="})
            self.assertRegex(self.explain().verdict, "^cannot be opened: PyYAML is not installed")


class OtherTransportsTest(ExplainCase):
    def test_an_image_of_this_machine_has_a_policy_and_no_place(self) -> None:
        layout = self.host.path("/layout")
        layout.mkdir()
        for image, identity in (
            (f"oci:{layout}:x", str(layout)),
            (f"dir:{layout}", str(layout)),
            (f"oci-archive:{layout}/a.tar", f"{layout}/a.tar"),
            ("docker-archive:/x.tar:busybox", "docker.io/library/busybox:latest"),
            ("docker-archive:/x.tar", ""),
            ("docker-daemon:busybox:1", "docker.io/library/busybox:1"),
            ("tarball:/x.tar", ""),
        ):
            with self.subTest(image):
                found = self.explain(image)
                self.assertEqual((identity, (), None), (found.identity, found.endpoints, found.signatures))
                verdict = "would be fetched from this machine, if it is there; no signature is checked"
                self.assertEqual(verdict, found.verdict)
                json.loads(found.to_json())

    def test_a_store_is_searched_for_the_name_that_the_policy_speaks_of(self) -> None:
        named = parse_docker_reference("quay.io/x:1")
        found = mock.Mock(identity=ImageIdentity(Transport.CONTAINERS_STORAGE, "[overlay@/s]quay.io/x:1", (), named))
        with mock.patch.object(storage, "open_storage", return_value=found):
            self.assertEqual("quay.io/x:1", self.explain("containers-storage:quay.io/x:1").identity)
        found.close.assert_called_once_with()
        for error, verdict in (
            (NotFoundError("no image 'x' in any store"), "^not found: no image 'x' in any store"),
            (ConfigurationError("/etc/containers/storage.conf", "not valid TOML"), "^cannot be opened: .*storage.conf"),
        ):
            with mock.patch.object(storage, "open_storage", side_effect=error):
                self.assertRegex(self.explain("containers-storage:x").verdict, verdict)

    def test_a_path_that_does_not_exist_is_an_error(self) -> None:
        self.assertRegex(self.explain("oci:/nonexistent/x").verdict, "^cannot be opened: .*/nonexistent")

    def test_local_sources_are_named_before_the_places(self) -> None:
        settings = self.settings()._replace(local_sources=("oci:/usb:9",), offline=True)
        found = self.explain(settings=settings)
        self.assertRegex(found.verdict, "^would be fetched from oci:/usb:9, without network")
        self.assertIn("local sources, tried before any place\n  oci:/usb:9\n", found.to_text())
        self.assertIn("places, not asked (--offline)\n  1. ", found.to_text())
        found = self.explain(settings=settings._replace(local_sources=("/usb",)))
        self.assertRegex(found.verdict, "^cannot be opened: image reference '/usb': expected transport:reference")

    def test_a_name_that_is_no_image_is_refused(self) -> None:
        with self.assertRaises(InvalidReferenceError):
            self.explain("busybox")
        with self.assertRaises(UnsupportedError):
            self.explain("ostree:x")


class CommandTest(ExplainCase):
    def _run(self, *arguments: str) -> tuple[int, str]:
        output = io.StringIO()
        with mock.patch.dict(os.environ, {"HOME": str(self.host.home)}, clear=True), mock.patch("sys.stdout", output):
            return cli.main(["explain", *arguments]), output.getvalue()

    def test_the_exit_status_is_1_for_broken_configuration_only(self) -> None:
        status, text = self._run("--json", IMAGE)
        self.assertEqual((0, "example.com/os/base:9"), (status, json.loads(text)["identity"]))
        self.host.write("/etc/containers/registries.conf", "[[registry]]\nlocation='example.com'\nblocked=true")
        status, text = self._run(IMAGE)
        self.assertEqual(0, status)
        self.assertIn("\n  refused: ", text)
        self.host.write("/etc/containers/policy.json", '{"default":[{"type":"reject"}]}')
        self.assertEqual(0, self._run(IMAGE)[0])
        self.host.write("/etc/containers/registries.conf", "x")
        status, text = self._run(IMAGE)
        self.assertEqual(1, status)
        self.assertIn("\n  cannot be opened: ", text)


if __name__ == "__main__":
    unittest.main()

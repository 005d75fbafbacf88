# SPDX-License-Identifier: Apache-2.0
"""The rows M12 and M13 of registry.md 10.9, signatures.md G30, X08, and the rules of registry.md 7.1."""

import os
import re
import sys
import time
import unittest
from pathlib import Path
from unittest import mock

from cip import log
from cip.content import start_timer, timed
from cip.errors import ConfigurationError, ErrorCode, MissingDependencyError, SourceError
from cip.events import NO_EVENTS
from cip.hostconfig import registriesd
from cip.hostconfig.registriesd import BundleTrust, SignatureLocation, load_registries_d, unread_registries_d
from cip.model.reference import parse_docker_reference
from cip.programs import DirectPrograms
from cip.registry.session import RegistrySession
from cip.settings import HostEnvironment, Settings
from tests.support.host import make_host

try:
    import yaml
except ImportError:
    yaml = None  # type: ignore[assignment]

DIGEST = "sha256:" + "a" * 64


@unittest.skipIf(yaml is None, "PyYAML is optional and not installed")
class SignatureStoresTest(unittest.TestCase):
    def setUp(self) -> None:
        self.host = make_host(self)

    def _place(self, text: str, name: str = "quay.io/ns/app:1") -> SignatureLocation:
        self.file = self.host.write("/etc/containers/registries.d/a.yaml", text)
        return load_registries_d(self.host.settings()).place(parse_docker_reference(name))

    def _fallback(self) -> str:
        return f"file://{self.host.root}/var/lib/containers/sigstore"

    def test_without_any_file_the_default_counts(self) -> None:
        stores = load_registries_d(self.host.settings())
        self.assertEqual(SignatureLocation(self._fallback(), False, ""), stores.place(parse_docker_reference("x")))
        self.assertEqual([False], [file.read for file in stores.files])

    def test_files_that_say_nothing_change_nothing(self) -> None:
        for text in (
            "",
            "# only a remark",
            "---\n",
            "null",
            "docker:",
            "default-docker:",
            "default-docker: {}",
            "docker: {}",
            "unknown: [1, 2]",
            "docker: {quay.io: }",
            "docker: {quay.io: {x: 1, lookaside-staging: 'file:///s'}}",
            "docker: {quay.io: {lookaside: null, use-sigstore-attachments: ~}}",
        ):
            with self.subTest(text):
                self.assertEqual(SignatureLocation(self._fallback(), False, ""), self._place(text))

    def test_each_setting_comes_from_the_first_section_that_has_it(self) -> None:  # M12
        place = self._place(
            "docker:\n  quay.io/ns/app:\n    use-sigstore-attachments: true\n  quay.io/ns:\n    lookaside: http://h/sig\n"
            "default-docker:\n  lookaside: http://default/\n"
        )
        self.assertEqual(SignatureLocation("http://h/sig", True, self.file), place)

    def test_scopes_go_from_the_whole_name_to_the_parent_domains(self) -> None:
        scopes = ["a.b.io:5000/n/x:1", "a.b.io:5000/n/x", "a.b.io:5000/n", "a.b.io:5000", "*.b.io", "*.io"]
        for number, scope in enumerate(scopes):
            with self.subTest(scope):
                lines = [
                    f"  '{each}': {{lookaside: 'http://h/{at}'}}" for at, each in enumerate(scopes) if at >= number
                ]
                place = self._place("\n".join(["docker:", *reversed(lines)]), "a.b.io:5000/n/x:1")
                self.assertEqual(f"http://h/{number}", place.lookaside)

    def test_a_host_without_its_port_is_no_scope(self) -> None:  # M13
        text = "docker: {'127.0.0.1': {lookaside: 'http://no/'}}"
        self.assertEqual(self._fallback(), self._place(text, "127.0.0.1:5000/x").lookaside)
        text = "docker: {'*.0.0.1': {lookaside: 'http://yes/'}}"
        self.assertEqual("http://yes/", self._place(text, "127.0.0.1:5000/x").lookaside)

    def test_a_digest_reference_is_a_scope_too(self) -> None:
        text = f"docker: {{'quay.io/x@{DIGEST}': {{lookaside: 'http://h/'}}}}"
        self.assertEqual("http://h/", self._place(text, f"quay.io/x@{DIGEST}").lookaside)

    def test_the_old_spelling_counts_where_the_new_one_is_missing(self) -> None:
        self.assertEqual("http://old/", self._place("default-docker: {sigstore: 'http://old/'}").lookaside)
        both = "default-docker: {sigstore: 'http://old/', lookaside: 'http://new/'}"
        self.assertEqual("http://new/", self._place(both).lookaside)

    def test_booleans_are_those_of_yaml(self) -> None:
        for text, expected in (
            ("true", True),
            ("True", True),
            ("yes", True),
            ("on", True),
            ("false", False),
            ("No", False),
        ):
            with self.subTest(text):
                place = self._place(f"default-docker: {{use-sigstore-attachments: {text}}}")
                self.assertIs(expected, place.attachments)

    def test_a_specific_no_hides_a_general_yes(self) -> None:
        place = self._place(
            "docker: {quay.io: {use-sigstore-attachments: false}}\ndefault-docker: {use-sigstore-attachments: true}"
        )
        self.assertFalse(place.attachments)

    def test_bundles_are_looked_for_where_a_section_says_so(self) -> None:
        for text, expected in (("", None), ("use-sigstore-bundles: yes", True), ("use-sigstore-bundles: false", False)):
            with self.subTest(text):
                self.assertIs(expected, self._place(f"docker: {{quay.io: {{{text}}}}}").bundles)

    def _trust(self, text: str, name: str = "quay.io/ns/app:1") -> BundleTrust:
        self.file = self.host.write("/etc/containers/registries.d/a.yaml", text)
        return load_registries_d(self.host.settings()).bundle_trust(parse_docker_reference(name))

    def test_trust_in_bundles_is_refused_unless_a_section_says_otherwise(self) -> None:
        directory = f"{self.host.root}/etc/containers/registries.d"
        refused = BundleTrust(False, directory, "docker: quay.io/ns/app", "", "")
        for text in (
            "",
            "docker: {quay.io: {sigstore-bundle-identity: refuse}}",
            "docker: {x.io: {sigstore-bundle-identity: by-digest}}",
            "docker: {quay.io: {sigstore-bundle-identity: refuse}}\n"
            "default-docker: {sigstore-bundle-identity: by-digest}",
        ):
            with self.subTest(text):
                self.assertEqual(refused, self._trust(text))
        trust = self._trust(
            "docker:\n  quay.io: {sigstore-bundle-identity: by-digest}\n"
            "  quay.io/ns: {sigstore-trusted-root: /r.json}\n"
        )
        self.assertEqual(BundleTrust(True, self.file, "docker: quay.io/ns/app", "/r.json", self.file), trust)

    def test_the_example_of_the_readme_says_what_it_promises(self) -> None:
        readme = (Path(__file__).resolve().parents[3] / "README.md").read_text(encoding="utf-8")
        (example,) = re.findall(r"^```yaml\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
        name = "registry.example.com/os/base:9"
        self.assertTrue(self._trust(example, name).by_digest)
        self.assertEqual(self._trust(example, name).trusted_root, "/etc/sigstore/trusted_root.json")
        self.assertIs(self._place(example, name).bundles, True)
        self.assertFalse(self._trust(example, "registry.example.com/other:9").by_digest)

    def test_p06_p06b_p06c_another_value_is_refused_with_its_line(self) -> None:
        for text, reason in (
            ("sigstore-bundle-identity: yes", "expected one of refuse, by-digest, found 'yes'"),
            ("sigstore-bundle-identity: By-Digest", "expected one of refuse, by-digest, found 'By-Digest'"),
            ("use-sigstore-bundles: maybe", "expected true or false, found 'maybe'"),
            ("sigstore-trusted-root: root.json", "expected an absolute path, found 'root.json'"),
        ):
            with self.subTest(text), self.assertRaisesRegex(ConfigurationError, f"a.yaml line 3: .*{reason}"):
                self._trust(f"docker:\n  quay.io:\n    {text}\n")

    def test_a_base_url_is_kept_to_the_letter(self) -> None:  # M10, M11
        for url in (
            "http://h/sig",
            "http://h/sig/",
            "https://h:1/a%20b?x=y",
            "http://h/a?100%",
            "http://u:p%40@h/é",
            "file:///a/b",
        ):
            with self.subTest(url):
                self.assertEqual(url, self._place(f"default-docker: {{lookaside: '{url}'}}").lookaside)

    def test_a_url_of_another_kind_is_refused_when_it_is_used(self) -> None:
        for url, found in (
            ("ftp://h/", "'ftp'"),
            ("/var/sig", "'/var/sig'"),
            ("h/sig", "'h/sig'"),
            ("file:x", "'file'"),
        ):
            reason = f"a.yaml line 2: lookaside: expected a URL of scheme file, http or https, found {found}"
            with self.subTest(url), self.assertRaisesRegex(ConfigurationError, reason):
                self._place(f"default-docker:\n  lookaside: {url}")
        unused = "docker: {other.io: {lookaside: 'ftp://h/'}}"
        self.assertEqual(self._fallback(), self._place(unused).lookaside)

    def test_what_no_url_can_have_is_refused_when_it_is_used(self) -> None:
        for text in (
            "'file:///a%zz'",
            "'file:///a%'",
            "'http://h/a%2'",
            "'file:///a#%'",
            r'"file:///a\tb"',
            "'http://é:w@h/'",
            "'http://h:a/x'",
            "'https://u:a/PASSWORD@h/x'",
        ):
            with (
                self.subTest(text),
                self.assertRaisesRegex(ConfigurationError, "a.yaml line 2: lookaside: .*a URL, found") as caught,
            ):
                self._place(f"default-docker:\n  lookaside: {text}")
            self.assertNotIn("PASS", str(caught.exception))
        for url in ("https://u:a@h:1/x", "https://u:a@[::1]:1", "https://[::1]", "http://h:/x", "https://h:1?x:y"):
            self.assertEqual(self._place(f"default-docker:\n  lookaside: '{url}'").lookaside, url)
        with self.assertRaisesRegex(ConfigurationError, "expected a URL, found a character"):
            self._place("default-docker:\n  lookaside: |\n    file:///a?\n")

    def test_a_malformed_file_is_refused_with_its_name_and_line(self) -> None:
        for case, text, reason in (
            ("no YAML", "docker:\n\t- x", r"a.yaml: not valid YAML at line 2: "),
            ("open quote", "docker: 'x", "a.yaml: not valid YAML at line 1: "),
            ("two documents", "a: 1\n---\nb: 2", "not valid YAML at line 2: but found another document"),
            ("forbidden character", "a: \x07", "not valid YAML"),
            ("unknown anchor", "a: *b", "not valid YAML at line 1"),
            ("beyond Unicode", 'a: "\\Uffffffff"', "a.yaml: not valid YAML: an escape that is no character"),
            ("surrogate", 'default-docker: {lookaside: "http://h/\\ud800"}', "lookaside: an escape"),
            ("list", "- docker", "line 1: the file: expected a mapping, found a list"),
            ("text", "docker", "line 1: the file: expected a mapping, found a text"),
            ("scopes as list", "docker:\n- a", "line 2: docker: expected a mapping, found a list"),
            ("section as text", "docker:\n  quay.io: x", "line 2: docker: 'quay.io': expected a mapping, found a text"),
            ("URL as list", "default-docker:\n  lookaside: [x]", "line 2: default-docker: lookaside: expected"),
            ("no boolean", "default-docker:\n  use-sigstore-attachments: maybe", "true or false, found 'maybe'"),
            ("quoted boolean", "default-docker:\n  use-sigstore-attachments: 'true'", "true or false"),
            ("boolean as a text", "default-docker:\n  use-sigstore-attachments: !!str true", "true or false"),
            ("number by tag", "default-docker:\n  lookaside: !!int http://h", "line 2: a tag that says what a word is"),
            ("boolean by tag", "default-docker:\n  use-sigstore-attachments: !!bool yes", "line 2: a tag that says"),
            ("nothing by tag", "default-docker:\n  lookaside: !!null http://h", "line 2: a tag that says"),
            ("later version", "%YAML 1.2\n---\ndocker: {}", "line 1: a directive other than %YAML 1.1"),
            ("directive", "%FOO a\n---\ndocker: {}", "line 1: a directive other than %YAML 1.1"),
            ("boolean in mixed case", "default-docker:\n  use-sigstore-attachments: tRue", "true or false"),
            ("key twice", "docker: {}\ndocker: {}", "line 2: the file: the key 'docker' occurs twice"),
            ("scope twice", "docker:\n  a.io: {}\n  a.io: {}", "line 3: docker: the key 'a.io' occurs twice"),
            (
                "setting twice",
                "default-docker:\n  lookaside: file:///a\n  lookaside: file:///b",
                "line 3: default-docker: the key 'lookaside' occurs twice",
            ),
            ("list as key", "docker:\n  ? [a]\n  : {}", "line 2: docker: expected a word as key, found a list"),
            ("merged", "a: &a {}\ndefault-docker:\n  <<: *a", "default-docker: merging with << is not supported"),
            ("nested too deep", "a: " + "[" * 1500, "nested too deep"),
            ("nested a little too deep", "a: " + "[" * 129 + "]" * 129, "nested too deep"),
        ):
            with self.subTest(case), self.assertRaisesRegex(ConfigurationError, reason) as caught:
                self._place(text)
            self.assertTrue(str(caught.exception).startswith(self.file))

    def test_aliases_cannot_blow_up(self) -> None:
        lines = ["a0: &a0 {x: y}"] + [f"a{n}: &a{n} {{l: *a{n - 1}, r: *a{n - 1}}}" for n in range(1, 60)]
        text = "\n".join([*lines, "default-docker: *a59", "docker: *a59"])
        with self.assertRaisesRegex(ConfigurationError, "lookaside: expected a text, found a mapping"):
            self._place("\n".join([*lines, "default-docker: {lookaside: *a59}"]))
        self.assertEqual(self._fallback(), self._place(text).lookaside)

    def test_the_same_thing_in_two_files_is_refused(self) -> None:  # signatures.md G30
        self.host.write("/etc/containers/registries.d/b.yaml", "default-docker: {}\ndocker:\n  a.io: {}")
        for text, reason in (
            ("\ndefault-docker: {}", r"b.yaml line 1: default-docker: defined before in .*a.yaml line 2"),
            ("docker: {a.io: {}}", r"b.yaml line 3: docker: 'a.io': defined before in .*a.yaml line 1"),
        ):
            with self.subTest(text), self.assertRaisesRegex(ConfigurationError, reason):
                self._place(text)

    def test_very_many_scopes_end_at_the_time_to_open(self) -> None:
        for number in range(20):
            scopes = (f"  r{number}.io/{each}:\n    lookaside: https://s.example/{each}\n" for each in range(2000))
            self.host.write(f"/etc/containers/registries.d/{number}.yaml", "docker:\n" + "".join(scopes))
        began = time.process_time()  # other programs' seconds are not ours
        with timed(start_timer(0.2, "--open-timeout")), self.assertRaisesRegex(SourceError, "--open-timeout"):
            load_registries_d(self.host.settings())
        self.assertLess(time.process_time() - began, 1.5)

    def test_a_message_shows_no_line_of_the_file(self) -> None:
        with self.assertRaises(ConfigurationError) as caught:
            self._place("default-docker:\n  lookaside: https://u:hunter2-sig@h/\n  x: 'open")
        self.assertNotIn("hunter2", str(caught.exception))


class PlacesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.host = make_host(self)

    def _files(self, settings: Settings) -> tuple[str, ...]:
        return tuple(file.path for file in load_registries_d(settings).files if file.read)

    def _lookaside(self, environment: HostEnvironment) -> str:
        return load_registries_d(Settings(environment)).fallback

    @unittest.skipIf(yaml is None, "PyYAML is optional and not installed")
    def test_one_directory_of_registries_d_counts(self) -> None:
        settings = self.host.settings({"XDG_CONFIG_HOME": "/xdg"})
        admin = self.host.write("/etc/containers/registries.d/a.yaml")
        self.host.write("/etc/containers/registries.d/b.yml")
        self.assertEqual((admin,), self._files(settings))
        user = self.host.write("~/.config/containers/registries.d/u.yaml")
        self.assertEqual((user,), self._files(settings))
        mine = self.host.write("mine.d/m.yaml")
        self.assertEqual((mine,), self._files(settings._replace(registries_d=os.path.dirname(mine))))
        self.assertEqual((), self._files(settings._replace(registries_d="/nonexistent")))

    def test_the_default_lookaside_is_a_directory_of_the_host_or_the_user(self) -> None:
        self.assertEqual(
            f"file://{self.host.root}/var/lib/containers/sigstore", self._lookaside(self.host.environment())
        )
        user = self.host.environment(uid=9)._replace(home="/home/a#b%")
        self.assertEqual("file:///home/a%23b%25/.local/share/containers/sigstore", self._lookaside(user))
        rootless = self.host.environment({"_CONTAINERS_ROOTLESS_UID": "0"}, uid=9)
        self.assertIn("/var/lib/", self._lookaside(rootless))


class WithoutYamlTest(unittest.TestCase):
    def setUp(self) -> None:
        self.host = make_host(self)

    def test_no_file_needs_no_package(self) -> None:
        with mock.patch.dict(sys.modules, {"yaml": None}):
            load_registries_d(self.host.settings())

    def test_a_file_without_the_package_refuses(self) -> None:
        self.host.write("/etc/containers/registries.d/a.yaml")
        with (
            mock.patch.dict(sys.modules, {"yaml": None}),
            self.assertRaisesRegex(
                MissingDependencyError, "PyYAML is not installed: needed to read .*a.yaml"
            ) as caught,
        ):
            load_registries_d(self.host.settings())
        self.assertIs(ErrorCode.DEPENDENCY_MISSING, caught.exception.code)

    def test_the_missing_package_is_warned_about_once_there_is_a_file(self) -> None:
        for files, has_yaml, warned in ((False, False, False), (True, True, False), (True, False, True)):
            with (
                self.subTest(files=files, has_yaml=has_yaml),
                mock.patch.object(registriesd, "_has_yaml", return_value=has_yaml),
            ):
                if files:
                    self.host.write("/etc/containers/registries.d/a.yaml")
                self.assertEqual(warned, "PyYAML is not installed" in unread_registries_d(self.host.settings()))

    def test_a_session_says_it_at_its_end_unless_signatures_were_asked_for(self) -> None:
        self.host.write("/etc/containers/registries.d/a.yaml")
        for asked_for in (False, True):
            with (
                self.subTest(asked_for=asked_for),
                mock.patch.object(registriesd, "_has_yaml", return_value=False),
                mock.patch.object(log, "warning") as warning,
            ):
                session = RegistrySession(self.host.settings(), NO_EVENTS, DirectPrograms())
                session.signatures_asked_for = asked_for
                session.close()
                self.assertEqual(not asked_for, warning.called)

    @unittest.skipIf(yaml is None, "PyYAML is optional and not installed")
    def test_a_scope_that_no_image_lies_in_is_warned_about(self) -> None:
        self.host.write("/etc/containers/registries.d/a.yaml", "docker:\n  r.io/ns/:\n    lookaside: file:///x\n")
        said: list[str] = []
        load_registries_d(self.host.settings(), warn=said.append)
        self.assertRegex(said[0], "a.yaml line 3: docker: 'r.io/ns/' is the scope of no image: expected no slash")

    def test_a_directory_that_cannot_be_listed_is_only_warned_about(self) -> None:
        self.host.write("/etc/containers/registries.d", "a file where a directory belongs")
        said = unread_registries_d(self.host.settings())
        self.assertIn("registries.d: cannot be read: not a directory (no harm", said)


if __name__ == "__main__":
    unittest.main()

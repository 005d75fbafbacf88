# SPDX-License-Identifier: Apache-2.0
"""The rows A1 to A31 of registry.md 10.3, through the real search with helpers that are played."""

import base64
import json
import os
import unittest
from collections.abc import Mapping, Sequence
from typing import Any
from unittest import mock

from cip import log, rooms
from cip.errors import ConfigurationError, InvalidInputError
from cip.hostconfig.authfile import DescriptorFiles, FoundCredentials, find_credentials
from cip.hostconfig.registriesconf import FILE_HELPER, RegistriesConfig
from cip.settings import CredentialOptions, Credentials
from tests.support.host import make_host

SECRET = "hunter2-auth"


def packed(text: str | bytes) -> str:
    """`auth` as the files have it."""
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def auths_of(entries: Mapping[str, str]) -> str:
    """A file whose `auths` maps keys to USER:PASSWORD."""
    return json.dumps({"auths": {key: {"auth": packed(text)} for key, text in entries.items()}})


MANY = auths_of(
    {"quay.io": "h:1", "quay.io/ns": "n:2", "quay.io/ns/repo": "r:3", "docker.io": "d:4", "localhost:5000": "l:5"}
)


class AuthFileCase(unittest.TestCase):
    def setUp(self) -> None:
        self.host = make_host(self)
        self.descriptor_files = DescriptorFiles()
        log.set_threshold(log.Level.SILENT)
        self.addCleanup(log.set_threshold, log.Level.WARNING)

    def find(
        self,
        name: str,
        file: str | bytes | None = None,
        *,
        helpers: Sequence[str] = (FILE_HELPER,),
        programs: Any = None,
        variables: Mapping[str, str] | None = None,
    ) -> FoundCredentials:
        """Look `name` up on a host whose only file is auth.json with the content `file`."""
        if file is not None:
            self.path = self.host.write("/run/containers/0/auth.json", file)
        return find_credentials(
            name,
            settings=self.host.settings(variables),
            registries=RegistriesConfig(credential_helpers=tuple(helpers)),
            programs=programs or rooms.DirectPrograms(),
            fd_cache=self.descriptor_files,
        )

    def require_warnings(self, member: str, expected: Mapping[str, str], entries: Mapping[str, object]) -> None:
        """Look at a file whose `member` has these `entries`: of each key the warning that is `expected`, if any."""
        with mock.patch.object(log, "warning") as warning:
            self.find("other.io:5/x", json.dumps({member: entries}))
        said = [str(call.args[0]) for call in warning.mock_calls]
        for key, why in expected.items():
            about = [line for line in said if f"{member}['{key}']" in line or f"{member}.{key}:" in line]
            with self.subTest(key):
                self.assertEqual(bool(why), bool(about), said)
                self.assertTrue(not why or why in about[0], about)


class KeyTest(AuthFileCase):
    def test_keys_match_by_the_depth_of_the_namespace(self) -> None:
        for row, file, name, expected in (
            ("A1", MANY, "quay.io/ns/repo", "r:3"),
            ("A1 below", MANY, "quay.io/ns/repo/sub", "r:3"),
            ("A2", MANY, "quay.io/ns/other", "n:2"),
            ("A3", MANY, "quay.io/nsx/y", "h:1"),
            ("A4 port", MANY, "quay.io:443/x", ""),
            ("A4 longer", MANY, "evilquay.io/x", ""),
            ("A4 no port", MANY, "localhost/x", ""),
            ("with its port", MANY, "localhost:5000/x", "l:5"),
            ("A5", MANY, "docker.io/library/busybox", "d:4"),
            ("A6", auths_of({"https://index.docker.io/v1/": "u:p"}), "docker.io/library/busybox", "u:p"),
            ("A6 bare", auths_of({"index.docker.io": "u:p"}), "docker.io/library/busybox", "u:p"),
            ("A6 real host", auths_of({"registry-1.docker.io": "u:p"}), "docker.io/library/busybox", "u:p"),
            ("A7", auths_of({"index.docker.io/v1/": "u:p"}), "docker.io/library/busybox", ""),
            (
                "A8",
                auths_of({"https://index.docker.io/v1/": "u:p", "docker.io/library": "l:q"}),
                "docker.io/library/busybox",
                "l:q",
            ),
            ("A9", auths_of({"docker.io": "u:p"}), "registry-1.docker.io/library/busybox", "u:p"),
            ("A10", auths_of({"https://reg.example.com/v2/": "u:p"}), "reg.example.com/zzz", "u:p"),
            ("A10 deeper", auths_of({"https://reg.example.com/a/b": "u:p"}), "reg.example.com/zzz", "u:p"),
            ("A10 http", auths_of({"http://reg.example.com": "u:p"}), "reg.example.com/zzz", "u:p"),
            ("A11 slash", auths_of({"reg.example.com/": "u:p"}), "reg.example.com/a", ""),
            ("A11 case", auths_of({"REG.example.com": "u:p"}), "reg.example.com/a", ""),
            ("A11 port", auths_of({"reg.example.com:443": "u:p"}), "reg.example.com/a", ""),
            ("no other host", auths_of({"https://other.io": "u:p"}), "reg.example.com/a", ""),
        ):
            with self.subTest(row):
                found = self.find(name, file)
                credentials = found.credentials
                self.assertEqual(expected, f"{credentials.username}:{credentials.password}" if expected else found.key)
                self.assertEqual(self.path if expected else "", found.source)
                self.assertEqual(not expected, credentials.is_anonymous())

    def test_the_key_that_matched_is_known(self) -> None:
        self.assertEqual("quay.io/ns", self.find("quay.io/ns/x", MANY).key)
        file = auths_of({"https://index.docker.io/v1/": "u:p"})
        self.assertEqual("https://index.docker.io/v1/", self.find("docker.io/x/y", file).key)

    def test_an_empty_entry_hides_its_parents_in_the_same_file_only(self) -> None:  # A12
        file = json.dumps({"auths": {"r.io/ns": {}, "r.io": {"auth": packed("u:p")}}})
        self.assertTrue(self.find("r.io/ns/a", file).credentials.is_anonymous())
        other = self.host.write("~/.docker/config.json", auths_of({"r.io": "o:q"}))
        self.assertEqual(other, self.find("r.io/ns/a", file).source)

    def test_of_several_keys_for_one_host_the_shortest_counts(self) -> None:
        # what docker leaves behind after a login in the browser
        file = auths_of(
            {
                "https://index.docker.io/v1/refresh-token": "u:refresh",
                "https://index.docker.io/v1/": "u:right",
                "https://index.docker.io/v1/access-token": "u:access",
            }
        )
        self.assertEqual("right", self.find("docker.io/x/y", file).credentials.password)

    def test_two_keys_that_contradict_each_other_are_refused(self) -> None:
        file = auths_of({"http://r.io": f"u:{SECRET}", "https://r.io": "u:b"})
        with self.assertRaisesRegex(ConfigurationError, "https://r.io.*contradicts 'http://r.io'") as caught:
            self.find("r.io/x", file)
        self.assertNotIn(SECRET, str(caught.exception))
        same = auths_of({"http://r.io": "u:b", "https://r.io": "u:b"})
        self.assertEqual("b", self.find("r.io/x", same).credentials.password)

    def test_a_name_that_is_no_repository_is_refused(self) -> None:
        for name in ("r.io", "r.io/", "/x", "r.io/x:1", f"r.io/x@sha256:{'a' * 64}", "https://r.io/x", ""):
            with self.subTest(name), self.assertRaisesRegex(InvalidInputError, "expected HOST"):
                self.find(name, "{}")


class EntryTest(AuthFileCase):
    def _entry(self, **members: object) -> FoundCredentials:
        return self.find("r.io/x", json.dumps({"auths": {"r.io": members}}))

    def test_entries_are_decoded_as_user_and_password(self) -> None:  # A13, A14, A15
        for row, members, expected in (
            ("A13", {"auth": packed("0000-0000:"), "identitytoken": "IDT"}, Credentials("0000-0000", "", "IDT")),
            ("A14 token alone", {"identitytoken": "IDT"}, Credentials()),
            ("A14 registry token", {"registrytoken": "T"}, Credentials()),
            ("A14 plain fields", {"username": "u", "password": "p", "email": 5}, Credentials()),
            ("A15", {"auth": packed("u:p:q")}, Credentials("u", "p:q")),
            ("A15 no colon", {"auth": packed("userpass")}, Credentials()),
            ("A15 no user", {"auth": packed(":p")}, Credentials("", "p")),
            ("A15 no password", {"auth": packed("u:")}, Credentials("u", "")),
            ("A15 NUL", {"auth": packed("u:\0p\0\0")}, Credentials("u", "p")),
            (
                "line breaks",
                {"auth": f"{packed('user:password')[:8]}\r\n{packed('user:password')[8:]}"},
                Credentials("user", "password"),
            ),
            ("any case", {"AUTH": packed("u:p"), "IdentityToken": "I"}, Credentials("u", "p", "I")),
            ("null", {"auth": None}, Credentials()),
            ("UTF-8", {"auth": packed("jürgen:pä")}, Credentials("jürgen", "pä")),
        ):
            with self.subTest(row):
                self.assertEqual(expected, self._entry(**members).credentials)

    def test_an_entry_that_cannot_be_decoded_is_refused_without_showing_it(self) -> None:  # A16
        for row, members, reason in (
            ("A16", {"auth": "!!!"}, r"auths\['r.io'\].auth: expected USER:PASSWORD, found no valid base64"),
            ("A16 unpadded", {"auth": packed(f"u:{SECRET}12").rstrip("=")}, "found no valid base64"),
            ("A16 space", {"auth": packed(f"u:{SECRET}") + " "}, "found no valid base64"),
            ("not ASCII", {"auth": f"{SECRET}ä"}, "found no valid base64"),
            ("not UTF-8", {"auth": packed(b"u:\xff" + SECRET.encode())}, "found no UTF-8 text"),
            ("line break", {"auth": packed(f"u:{SECRET}\r\nX: y")}, r"auths\['r.io'\]: contains a line break"),
            ("NUL inside", {"auth": packed(f"u\0:{SECRET}")}, "contains a line break or a NUL byte"),
            ("in the token", {"auth": packed("u:"), "identitytoken": f"{SECRET}\n"}, "contains a line break"),
            ("number", {"auth": 5}, "auth: expected a string, found an integer"),
            ("token of a wrong type", {"identitytoken": []}, "identitytoken: expected a string, found an array"),
            ("twice", {"auth": packed("u:p"), "Auth": packed(f"u:{SECRET}")}, "ambiguous"),
        ):
            with self.subTest(row), self.assertRaisesRegex(ConfigurationError, reason) as caught:
                self._entry(**members)
            for text in (SECRET, packed(SECRET)[:8]):
                self.assertNotIn(text, str(caught.exception))
            self.assertIsNone(caught.exception.__cause__)

    def test_base64_of_another_entry_does_not_matter(self) -> None:  # A16
        file = json.dumps({"auths": {"r.io": {"auth": packed("u:p")}, "other.io": {"auth": "!!!"}}})
        self.assertEqual("p", self.find("r.io/x", file).credentials.password)


class FileTest(AuthFileCase):
    def test_a_malformed_file_is_refused_with_its_name(self) -> None:  # A17
        for row, file, reason in (
            ("A17 array", "[]", "expected an object, found an array"),
            ("A17 more text", "{} x", "not valid JSON"),
            ("A17 auths", '{"auths":[]}', "auths: expected an object, found an array"),
            ("entry", '{"auths":{"other.io":5}}', r"auths\['other.io'\]: expected an object, found an integer"),
            ("helpers", '{"credHelpers":["x"]}', "credHelpers: expected an object, found an array"),
            ("helper", '{"credHelpers":{"other.io":5}}', "expected a string, found an integer"),
            ("key twice", '{"auths":{},"auths":{}}', "auths: duplicate key"),
            ("key in two spellings", '{"auths":{},"AUTHS":{}}', "ambiguous"),
            ("not UTF-8", b'{"auths":{"\xff":{}}}', "not valid UTF-8"),
            ("deep", "[" * 200, "not valid JSON|nested deeper"),
            ("too large", " " * (1024 * 1024 + 1), "larger than 1048576 bytes"),
        ):
            with self.subTest(row), self.assertRaisesRegex(ConfigurationError, reason) as caught:
                self.find("r.io/x", file)
            self.assertTrue(str(caught.exception).startswith(self.path))

    def test_files_that_say_nothing_are_anonymous(self) -> None:  # A18
        for file in ("{}", "null", '{"auths":null}', '{"auths":{"r.io":null}}', '{"credHelpers":null}', None):
            with self.subTest(str(file)):
                self.assertTrue(self.find("r.io/x", file).credentials.is_anonymous())
        # A30: so is a missing one that was named
        settings = self.host.settings()._replace(credentials=CredentialOptions(authfile="/nonexistent"))
        found = find_credentials(
            "r.io/x",
            settings=settings,
            registries=RegistriesConfig(),
            programs=rooms.DirectPrograms(),
            fd_cache=self.descriptor_files,
        )
        self.assertEqual((Credentials(), ("/nonexistent (absent)",)), (found.credentials, found.looked_at))

    def test_member_names_match_in_any_case(self) -> None:  # A19
        file = json.dumps({"AUTHS": {"r.io": {"Auth": packed("u:p")}}})
        self.assertEqual("p", self.find("r.io/x", file).credentials.password)

    def test_an_empty_file_counts_as_absent_with_a_warning(self) -> None:
        other = self.host.write("~/.docker/config.json", auths_of({"r.io": "u:p"}))
        with mock.patch.object(log, "warning") as warning:
            found = self.find("r.io/x", "")
        self.assertEqual(other, found.source)
        self.assertIn(f"{self.path}: empty, it counts as absent", str(warning.mock_calls))
        self.assertIn(f"{self.path} (empty)", found.looked_at)

    def test_keys_that_can_never_match_are_warned_about(self) -> None:
        auths = {
            "r.io/": "no slash at its end",
            "r.io/ns/": "no slash at its end",
            "*.r.io": "wildcards are not known",
            "r.io/ns:1": "no tag and no digest",
            "ns/img": "a host with a dot",
            "docker.io/X": "lower-case",
            "index.docker.io/x": "written out",
            "r.io": "",
            "https://index.docker.io/v1/": "",
            "index.docker.io": "",
            "registry-1.docker.io": "",
            "https://r.io/v2/": "",
            "localhost:5000/x": "",
            "docker.io/ns": "",
        }
        self.require_warnings("auths", auths, {key: {} for key in auths})

    def test_the_search_ends_at_the_first_file_that_has_something(self) -> None:
        docker = self.host.write("~/.docker/config.json", auths_of({"r.io": "docker:1", "s.io": "docker:2"}))
        legacy = self.host.write("~/.dockercfg", json.dumps({"https://t.io/v1/": {"auth": packed("old:3")}}))
        self.assertEqual("file", self.find("r.io/x", auths_of({"r.io": "file:0"})).credentials.username)
        self.assertEqual((docker, "s.io"), self.find("s.io/x")[1:3])
        found = self.find("t.io/x")
        self.assertEqual((legacy, "https://t.io/v1/"), found[1:3])
        self.assertEqual([False, True, False, False], [" (absent)" in place for place in found.looked_at])

    def test_the_legacy_file_knows_registries_only(self) -> None:
        self.host.write("~/.dockercfg", json.dumps({"r.io/ns": {"auth": packed("u:1")}, "credHelpers": {}}))
        self.assertEqual("1", self.find("r.io/ns/x").credentials.password)  # by its host, whatever path follows
        self.host.write("~/.dockercfg", json.dumps({"r.io:5000/ns": {"auth": packed("u:1")}}))
        self.assertTrue(self.find("r.io/ns/x").credentials.is_anonymous())

    def test_a_missing_runtime_directory_does_not_stop_the_search(self) -> None:  # A31
        docker = self.host.write("~/.docker/config.json", auths_of({"r.io": "u:p"}))
        self.assertEqual(docker, self.find("r.io/x", variables={"XDG_RUNTIME_DIR": "/missing"}).source)

    def test_credentials_that_systemd_hands_over_come_first(self) -> None:
        path = self.host.write("creds/container-image-proxy.auth.json", auths_of({"r.io": "systemd:1"}))
        variables = {"CREDENTIALS_DIRECTORY": str(self.host.root / "creds")}
        self.assertEqual(path, self.find("r.io/x", auths_of({"r.io": "file:2"}), variables=variables).source)
        self.assertEqual("file:2"[:4], self.find("r.io/x").credentials.username)


class DescriptorTest(AuthFileCase):
    def _find_in(self, path: str) -> FoundCredentials:
        settings = self.host.settings()._replace(credentials=CredentialOptions(authfile=path))
        return find_credentials(
            "r.io/x",
            settings=settings,
            registries=RegistriesConfig(),
            programs=rooms.DirectPrograms(),
            fd_cache=self.descriptor_files,
        )

    def test_a_pipe_is_read_once_and_kept(self) -> None:
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        with open(writing, "w", encoding="ascii") as file:
            file.write(auths_of({"r.io": "u:p"}))
        for path in (f"/proc/self/fd/{reading}", f"/proc/self/fd/{reading}", f"/dev/fd/{reading}"):
            self.assertEqual("p", self._find_in(path).credentials.password)
        os.fstat(reading)  # still open

    def test_a_memory_file_is_read_from_its_start_and_keeps_its_position(self) -> None:
        descriptor = os.memfd_create("auth")
        self.addCleanup(os.close, descriptor)
        os.write(descriptor, auths_of({"r.io": "u:p"}).encode())
        position = os.lseek(descriptor, 0, os.SEEK_CUR)
        self.assertEqual("p", self._find_in(f"/proc/self/fd/{descriptor}").credentials.password)
        self.assertEqual(position, os.lseek(descriptor, 0, os.SEEK_CUR))

    def test_a_descriptor_that_is_no_file_is_refused(self) -> None:
        directory = os.open(self.host.root, os.O_RDONLY)
        self.addCleanup(os.close, directory)
        for path, reason in (
            ("/proc/self/fd/999999999", "cannot be read: bad file descriptor"),
            (f"/proc/self/fd/{directory}", "expected a file, found a directory"),
        ):
            with self.subTest(path), self.assertRaisesRegex(ConfigurationError, reason):
                self._find_in(path)


if __name__ == "__main__":
    unittest.main()

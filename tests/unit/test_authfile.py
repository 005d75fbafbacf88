# SPDX-License-Identifier: Apache-2.0
"""The rows A1 to A31 of registry.md 10.3, through the real search with helpers that are played."""

import base64
import json
import os
import unittest
from collections.abc import Mapping, Sequence
from unittest import mock

from cip import log
from cip.errors import AuthenticationError, CipError, ConfigurationError, ErrorCode, InvalidInputError, SourceError
from cip.hostconfig.authfile import (
    CredentialPlan,
    DescriptorFiles,
    FoundCredentials,
    find_credentials,
    plan_credentials,
)
from cip.hostconfig.registriesconf import FILE_HELPER, RegistriesConfig
from cip.programs import GpgvResult, ProgramResult
from cip.settings import CredentialOptions, Credentials
from tests.support.host import make_host

SECRET = "hunter2-auth"
NOT_FOUND = b"credentials not found in native keychain\n"


def packed(text: str | bytes) -> str:
    """`auth` as the files have it."""
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def auths_of(entries: Mapping[str, str]) -> str:
    """A file whose `auths` maps keys to USER:PASSWORD."""
    return json.dumps({"auths": {key: {"auth": packed(text)} for key, text in entries.items()}})


MANY = auths_of(
    {"quay.io": "h:1", "quay.io/ns": "n:2", "quay.io/ns/repo": "r:3", "docker.io": "d:4", "localhost:5000": "l:5"}
)


class PlayedHelpers:
    """Programs that are not run: answers by name, and what they were asked."""

    def __init__(self, **answers: ProgramResult | CipError) -> None:
        self._answers = {f"docker-credential-{name}": answer for name, answer in answers.items()}
        self.asked: list[tuple[str, bytes | None]] = []

    def credentials(self, helper: str, registry: str, *, purpose: str) -> ProgramResult:
        program = f"docker-credential-{helper}"
        self.asked.append((f"{program} get", registry.encode()))
        answer = self._answers.get(program)
        if answer is None:
            raise SourceError(f"{program} is not installed", code=ErrorCode.DEPENDENCY_MISSING)
        if isinstance(answer, CipError):
            raise answer
        return answer

    def verify(self, keyring: bytes, message: bytes) -> GpgvResult:
        raise AssertionError("gpgv is asked for credentials")

    def decompress(self, source: int, output: int, seconds: float, *, purpose: str) -> int:
        raise AssertionError("zstd is asked for credentials")


def answer(text: str | bytes, status: int = 0) -> ProgramResult:
    return ProgramResult(status, text if isinstance(text, bytes) else text.encode())


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
        programs: PlayedHelpers | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> FoundCredentials:
        """Look `name` up on a host whose only file is auth.json with the content `file`."""
        if file is not None:
            self.path = self.host.write("/run/containers/0/auth.json", file)
        return find_credentials(
            name,
            settings=self.host.settings(variables),
            registries=RegistriesConfig(credential_helpers=tuple(helpers)),
            programs=programs or PlayedHelpers(),
            fd_cache=self.descriptor_files,
        )


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

    def test_a_broken_file_is_not_passed_over(self) -> None:  # A30
        self.host.write("~/.docker/config.json", auths_of({"r.io": "u:p"}))
        with self.assertRaisesRegex(ConfigurationError, "not valid JSON"):
            self.find("r.io/x", "{", helpers=(FILE_HELPER, "ok"), programs=PlayedHelpers(ok=answer("{}")))

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
            programs=PlayedHelpers(),
            fd_cache=self.descriptor_files,
        )
        self.assertEqual((Credentials(), ("/nonexistent (absent)",)), (found.credentials, found.looked_at))

    def test_member_names_match_in_any_case(self) -> None:  # A19
        file = json.dumps({"AUTHS": {"r.io": {"Auth": packed("u:p")}}})
        self.assertEqual("p", self.find("r.io/x", file).credentials.password)

    def test_the_store_of_docker_is_ignored_with_a_warning_where_it_is_missed(self) -> None:  # registry.md A27
        programs = PlayedHelpers(ok=answer('{"Username":"u","Secret":"s"}'))
        file = json.dumps({"credsStore": "ok", "auths": {"r.io": {}, "s.io": {"auth": packed("u:p")}}})
        for name, warned in (("r.io/x", True), ("other.io/x", True), ("s.io/x", False)):
            with self.subTest(name), mock.patch.object(log, "warning") as warning:
                self.assertIs(self.find(name, file, programs=programs).credentials.is_anonymous(), warned)
                self.assertIs("auth.json: credsStore: not used" in str(warning.mock_calls), warned)
        self.assertEqual([], programs.asked)

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
        helpers = {
            "https://r.io": "without a scheme",
            "r.io/*": "without wildcards",
            "a*.r.io": "whole labels",
            "*": "",
            "*.r.io:5000/ns": "",
            "r.io/ns/": "the beginning of a repository path",
        }
        file = json.dumps({"auths": {key: {} for key in auths}, "credHelpers": dict.fromkeys(helpers, "x")})
        with mock.patch.object(log, "warning") as warning:
            self.find("other.io:5/x", file)
        said = [str(call.args[0]) for call in warning.mock_calls]
        for place, keys in (("auths", auths), ("credHelpers", helpers)):
            for key, why in keys.items():
                about = [line for line in said if f"{place}['{key}']" in line or f"{place}.{key}:" in line]
                with self.subTest(key):
                    self.assertEqual(bool(why), bool(about), said)
                    self.assertTrue(not why or why in about[0], about)

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
            programs=PlayedHelpers(),
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


class HelperTest(AuthFileCase):
    RIGHT = answer('{"ServerURL":"r.io","Username":"u","Secret":"s"}\n')

    def _ask(self, result: ProgramResult | CipError) -> FoundCredentials:
        return self.find("r.io/ns/img", helpers=["h"], programs=PlayedHelpers(h=result))

    def test_a_helper_of_the_file_answers_for_its_registry(self) -> None:  # A20
        file = json.dumps(
            {"credHelpers": {"r.io": "ok"}, "auths": {"r.io": {"auth": packed("a:b")}, "r.io/ns/img": {}}}
        )
        programs = PlayedHelpers(ok=self.RIGHT)
        found = self.find("r.io/ns/img", file, programs=programs, variables={"PATH": "/p"})
        self.assertEqual((Credentials("u", "s"), "docker-credential-ok", "r.io"), found[:3])
        self.assertEqual([("docker-credential-ok get", b"r.io")], programs.asked)
        self.assertEqual((self.path, f"docker-credential-ok ({self.path})"), found.looked_at)

    def test_its_answer_is_final_for_this_file(self) -> None:  # A21
        file = json.dumps({"credHelpers": {"r.io": "ok"}, "auths": {"r.io": {"auth": packed("a:b")}}})
        programs = PlayedHelpers(ok=answer(NOT_FOUND, 1))
        self.assertTrue(self.find("r.io/ns/img", file, programs=programs).credentials.is_anonymous())
        other = self.host.write("~/.docker/config.json", auths_of({"r.io": "o:q"}))
        self.assertEqual(other, self.find("r.io/ns/img", file, programs=programs).source)

    def test_keys_with_wildcards_and_paths_name_helpers_as_people_wish_of_podman(self) -> None:  # container-libs#416
        right = PlayedHelpers(ok=self.RIGHT)
        for key, name, matches in (
            ("*.dkr.ecr.*.amazonaws.com", "1.dkr.ecr.eu.amazonaws.com/a", True),
            ("*.dkr.ecr.*.amazonaws.com", "dkr.ecr.eu.amazonaws.com/a", False),
            ("*.io", "r.io/a", True),
            ("*.io", "a.r.io/a", False),
            ("*.io", "r.io:5000/a", False),
            ("r.*:5000", "r.io:5000/a", True),
            ("r.*:5000", "r.io/a", False),
            ("r.io/ns", "r.io/ns/img", True),
            ("r.io/ns", "r.io/ns", True),
            ("r.io/ns", "r.io/nsx/img", False),
            ("*.io/ns/img", "r.io/ns/img", True),
            ("*.io/ns/img", "r.io/ns", False),
        ):
            with self.subTest(key=key, name=name), mock.patch.object(log, "warning") as warning:
                found = self.find(name, json.dumps({"credHelpers": {key: "ok"}}), programs=right)
                self.assertIs(found.credentials.is_anonymous(), not matches)
                self.assertIs("podman knows no wildcards" in str(warning.mock_calls), matches)
        self.assertEqual({b"1.dkr.ecr.eu.amazonaws.com", b"r.io", b"r.io:5000"}, {stdin for _, stdin in right.asked})

    def test_of_several_keys_the_one_that_says_most_names_the_helper(self) -> None:
        helpers = {"*.io": "a", "r.io": "b", "*.io/ns": "c", "r.io/ns": "d", "r.io/ns/img": "e"}
        for name, program in (
            ("x.io/y", "a"),
            ("r.io/y", "b"),
            ("x.io/ns/y", "c"),
            ("r.io/ns/y", "d"),
            ("r.io/ns/img", "e"),
        ):
            programs = PlayedHelpers(**dict.fromkeys("abcde", self.RIGHT))
            self.find(name, json.dumps({"credHelpers": helpers}), programs=programs)
            self.assertEqual([f"docker-credential-{program} get"], [asked for asked, _ in programs.asked])

    def test_a_key_in_another_spelling_names_no_helper(self) -> None:  # registry.md A26
        for key in ("https://r.io", "R.io"):
            with self.subTest(key):
                programs = PlayedHelpers(ok=self.RIGHT)
                found = self.find("r.io/ns/img", json.dumps({"credHelpers": {key: "ok"}}), programs=programs)
                self.assertTrue(found.credentials.is_anonymous())
                self.assertEqual([], programs.asked)

    def test_docker_hub_is_asked_for_by_its_name(self) -> None:
        programs = PlayedHelpers(ok=self.RIGHT)
        self.find("docker.io/library/x", '{"credHelpers":{"docker.io":"ok"}}', programs=programs)
        self.find("docker.io/library/x", helpers=["ok"], programs=programs)
        self.assertEqual([b"docker.io", b"docker.io"], [stdin for _, stdin in programs.asked])

    def test_answers_that_are_usable(self) -> None:
        for row, text, expected in (
            ("plain", '{"Username":"u","Secret":"s"}', Credentials("u", "s")),
            ("A24", '{"Username":"<token>","Secret":"T"}', Credentials(identity_token="T")),
            ("A25", '{"Username":"u","Secret":"s"} junk', Credentials("u", "s")),
            ("any case", '\n {"USERNAME":"u","secret":"s"}', Credentials("u", "s")),
            ("empty", '{"Username":"","Secret":""}', Credentials()),
            ("nothing", "{}", Credentials()),
            ("null", "null", Credentials()),
        ):
            with self.subTest(row):
                self.assertEqual(expected, self._ask(answer(text)).credentials)
        self.assertTrue(self._ask(answer(NOT_FOUND, 1)).credentials.is_anonymous())

    def test_answers_that_are_not_are_refused_without_showing_them(self) -> None:
        for row, result in (
            ("A22", answer(NOT_FOUND)),
            ("A23", answer(f"wrong {SECRET}", 1)),
            ("no server", answer("no credentials server URL", 1)),
            ("no name", answer("no credentials username", 1)),
            ("killed", answer("", -9)),
            ("no JSON", answer(SECRET)),
            ("no object", answer(f'["{SECRET}"]')),
            ("not UTF-8", answer(b'{"Username":"\xff","Secret":"' + SECRET.encode() + b'"}')),
            ("number", answer(f'{{"Username":5,"Secret":"{SECRET}"}}')),
            ("line break", answer(f'{{"Username":"u","Secret":"{SECRET}\\n"}}')),
            ("twice", answer(f'{{"{SECRET}":1,"{SECRET}":2}}')),
            ("surrogate", answer(f'{{"Username":"\\ud800","Secret":"{SECRET}"}}')),
            ("deep", answer("[" * 100_000)),
            ("late", SourceError("docker-credential-h: still running after 30 s", code=ErrorCode.TIMEOUT)),
        ):
            reason = "^no credentials for r.io/ns/img: .*docker-credential-h.*; looked at .*-h"
            with self.subTest(row), self.assertRaisesRegex(AuthenticationError, reason) as caught:
                self._ask(result)
            self.assertIs(ErrorCode.CREDENTIALS_UNAVAILABLE, caught.exception.code)
            self.assertEqual("r.io", caught.exception.host)
            shown: BaseException | None = caught.exception
            while shown is not None:
                self.assertNotIn(SECRET, str(shown))
                shown = shown.__cause__

    def test_a_long_answer_is_not_compared_and_nothing_beside_it_is_shown(self) -> None:
        long = '"\\' * 16_000  # what a fuzzer found: looking for the texts in it took minutes
        for answered, said in ((long, "why"), ("x", f"why{long}")):
            with (
                self.subTest(said[:3]),
                self.assertRaisesRegex(AuthenticationError, "is too long to be compared") as caught,
            ):
                self._ask(ProgramResult(3, answered.encode(), said.encode()))
            self.assertNotIn("why", str(caught.exception))

    def test_a_helper_says_why_it_failed_but_nothing_of_its_answer(self) -> None:
        said = "is not shown, because it repeats its answer"
        for case, printed, errors, shown in (
            ("a reason", "", "Traceback\n  line\nkeyring is locked\n\n", "for r.io: 'keyring is locked'"),
            ("nothing", "", " \n", "for r.io; looked at"),
            ("its answer", "tok-of-mine", "cannot parse tok-of-mine", said),
            ("a part of it", "tok-of-mine-and-more", "bad: k-of-mine!", said),
            ("a short one", '{"Username":"u","Secret":"pw"}', "no pw for you", said),
            ("beside another answer", "error 5", "keyring is locked", "'keyring is locked'"),
            ("long", "", "x" * 4000, "'x+…"),
        ):
            failed = ProgramResult(1, printed.encode(), errors.encode())
            with self.subTest(case), self.assertRaisesRegex(AuthenticationError, shown) as caught:
                self.find("r.io/x", helpers=["h"], programs=PlayedHelpers(h=failed))
            self.assertNotIn("of-mine", str(caught.exception))
            self.assertNotIn("pw", str(caught.exception).replace("repeats", ""))

    def test_a_failing_helper_makes_room_for_the_next_source(self) -> None:  # A28
        helpers = ["missing", FILE_HELPER]
        self.assertEqual("p", self.find("r.io/x", auths_of({"r.io": "u:p"}), helpers=helpers).credentials.password)
        with self.assertRaisesRegex(AuthenticationError, "docker-credential-missing is not installed"):
            self.find("r.io/x", "{}", helpers=helpers)
        with self.assertRaises(AuthenticationError):
            self.find("r.io/x", helpers=["missing"])

    def test_a_helper_behind_the_files_is_asked_when_they_have_nothing(self) -> None:  # A29
        programs = PlayedHelpers(ok=self.RIGHT)
        self.assertEqual(
            "s", self.find("r.io/x", "{}", helpers=[FILE_HELPER, "ok"], programs=programs).credentials.password
        )

    def test_a_helper_name_that_is_a_path_is_refused(self) -> None:  # registry.md 9, S13
        for name in ("", "../../tmp/x", "a\\b", "-x", "a\0b"):
            with (
                self.subTest(name),
                self.assertRaisesRegex(ConfigurationError, "expected the name of a credential helper"),
            ):
                self.find("r.io/x", json.dumps({"credHelpers": {"r.io": name}}))


class PlanTest(AuthFileCase):
    def _plan(self, file: str, helpers: Sequence[str] = (FILE_HELPER,)) -> CredentialPlan:
        self.path = self.host.write("/run/containers/0/auth.json", file)
        self.warnings: list[str] = []
        return plan_credentials(
            "r.io/x",
            settings=self.host.settings(),
            registries=RegistriesConfig(credential_helpers=tuple(helpers)),
            fd_cache=self.descriptor_files,
            warn=self.warnings.append,
        )

    def test_a_plan_says_what_would_be_used_and_nothing_secret(self) -> None:
        token = json.dumps({"auths": {"r.io": {"auth": packed(f"u:{SECRET}"), "identitytoken": SECRET}}})
        by_helper = '{"credHelpers":{"r.io":"ok"}}'
        for case, file, helpers, expected in (
            ("password", auths_of({"r.io": f"u:{SECRET}"}), [FILE_HELPER], ("password", "FILE", "r.io", "")),
            ("token", token, [FILE_HELPER], ("token", "FILE", "r.io", "")),
            ("none", "{}", [FILE_HELPER], ("none", "", "", "")),
            ("helper of the file", by_helper, [FILE_HELPER], ("helper", "FILE", "r.io", "docker-credential-ok")),
            ("helper", "{}", [FILE_HELPER, "h"], ("helper", "registries.conf", "r.io", "docker-credential-h")),
        ):
            with self.subTest(case):
                plan = self._plan(file, helpers)
                self.assertEqual(expected, (plan.kind, plan.source.replace(self.path, "FILE"), plan.key, plan.helper))
                self.assertNotIn(SECRET, repr(plan))

    def test_an_entry_without_a_colon_is_warned_about(self) -> None:
        self._plan(json.dumps({"auths": {"r.io": {"auth": packed(SECRET)}}}))
        self.assertRegex(self.warnings[0], r"auths\['r.io'\].auth: ignored, expected base64 of USER:PASSWORD")
        self.assertNotIn(SECRET, self.warnings[0])


if __name__ == "__main__":
    unittest.main()

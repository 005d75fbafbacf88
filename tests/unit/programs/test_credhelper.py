# SPDX-License-Identifier: Apache-2.0
"""Credential helpers: which one is asked, and what its answer is worth (registry.md 3.5)."""

import json
import unittest
from unittest import mock

from cip import log
from cip.errors import AuthenticationError, CipError, ConfigurationError, ErrorCode, SourceError
from cip.hostconfig.authfile import FoundCredentials
from cip.hostconfig.registriesconf import FILE_HELPER
from cip.programs import GpgvResult, ProgramResult
from cip.settings import Credentials
from tests.unit.test_authfile import SECRET, AuthFileCase, auths_of, packed

NOT_FOUND = b"credentials not found in native keychain\n"


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

    def test_keys_that_can_never_match_are_warned_about(self) -> None:
        keys = {
            "https://r.io": "without a scheme",
            "r.io/*": "without wildcards",
            "a*.r.io": "whole labels",
            "*": "",
            "*.r.io:5000/ns": "",
            "r.io/ns/": "the beginning of a repository path",
        }
        self.require_warnings("credHelpers", keys, dict.fromkeys(keys, "x"))

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

    def test_a_broken_file_is_not_passed_over(self) -> None:  # A30
        self.host.write("~/.docker/config.json", auths_of({"r.io": "u:p"}))
        with self.assertRaisesRegex(ConfigurationError, "not valid JSON"):
            self.find("r.io/x", "{", helpers=(FILE_HELPER, "ok"), programs=PlayedHelpers(ok=answer("{}")))

    def test_the_store_of_docker_is_ignored_with_a_warning_where_it_is_missed(self) -> None:  # registry.md A27
        programs = PlayedHelpers(ok=answer('{"Username":"u","Secret":"s"}'))
        file = json.dumps({"credsStore": "ok", "auths": {"r.io": {}, "s.io": {"auth": packed("u:p")}}})
        for name, warned in (("r.io/x", True), ("other.io/x", True), ("s.io/x", False)):
            with self.subTest(name), mock.patch.object(log, "warning") as warning:
                self.assertIs(self.find(name, file, programs=programs).credentials.is_anonymous(), warned)
                self.assertIs("auth.json: credsStore: not used" in str(warning.mock_calls), warned)
        self.assertEqual([], programs.asked)


if __name__ == "__main__":
    unittest.main()

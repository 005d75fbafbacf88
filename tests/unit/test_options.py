# SPDX-License-Identifier: Apache-2.0
"""The command line: table, kinds of values, refusals."""

from __future__ import annotations

import re
import unittest

from cip.errors import UsageError
from cip.flags import GROUPS, OPTIONS, parse_duration
from cip.log import Level
from cip.options import Command, help_text, parse_arguments
from cip.rooms import knows, present
from cip.settings import HostEnvironment, PolicySource
from tests.support.roomed import needs_rooms

IMAGE = "docker://example.com/ns/image:1"


def parse(*arguments: str, program: str = "container-image-proxy", **variables: str):  # type: ignore[no-untyped-def]
    return parse_arguments(arguments, program, HostEnvironment(variables))


class Words(unittest.TestCase):
    def test_one_image_selects_the_http_interface(self) -> None:
        invocation = parse("--sockfd=3", IMAGE)
        self.assertEqual((invocation.command, invocation.reference, invocation.sockfd), (Command.HTTP, IMAGE, 3))

    def test_options_may_follow_the_image(self) -> None:
        self.assertEqual(parse(IMAGE, "--sockfd", "7", "-q").log_level, Level.SILENT)

    @needs_rooms("jsonproxy", "explain")
    def test_options_stand_before_or_behind_the_subcommand(self) -> None:
        for arguments in (["--debug", Command.JSON], [Command.JSON, "--debug"]):
            with self.subTest(arguments):
                invocation = parse(*arguments)
                self.assertEqual((invocation.command, invocation.log_level), (Command.JSON, Level.DEBUG))

    @needs_rooms("jsonproxy", "explain")
    def test_wrong_number_of_words_is_refused(self) -> None:
        for arguments in ([], [IMAGE, IMAGE], [Command.JSON, IMAGE], [Command.EXPLAIN]):
            with self.subTest(arguments), self.assertRaisesRegex(UsageError, "expected (one image name|no argument)"):
                parse(*arguments)

    def test_everything_behind_two_dashes_is_a_word(self) -> None:
        with self.assertRaisesRegex(UsageError, "found 2"):
            parse("--", IMAGE, "--debug")


class Values(unittest.TestCase):
    def test_a_bare_flag_does_not_take_the_image_for_its_value(self) -> None:
        invocation = parse("--tls-verify", IMAGE)
        self.assertEqual(invocation.reference, IMAGE)
        self.assertIs(invocation.settings.tls_verify, True)

    def test_a_flag_takes_a_value_behind_the_equals_sign_only(self) -> None:
        self.assertIs(parse("--tls-verify=F", IMAGE).settings.tls_verify, False)
        self.assertIs(parse(IMAGE).settings.tls_verify, None)
        for words in (["--tls-verify", "false", IMAGE], [IMAGE, "--tls-verify", "false"]):
            told = "found 2; a value of --tls-verify stands behind an equals sign: --tls-verify=false; see --help$"
            with self.assertRaisesRegex(UsageError, told):  # registry.md M23: a stray argument
                parse(*words)
        with self.assertRaisesRegex(UsageError, "found 2; see --help$"):
            parse("--tls-verify", "hunter2", IMAGE)
        with self.assertRaisesRegex(UsageError, "found 2; see --help$"):  # the value of this one stands where it should
            parse("--override-variant", "full", IMAGE, IMAGE)

    @needs_rooms("readahead")
    def test_sizes_take_suffixes(self) -> None:
        sizes = {"0": 0, "4096": 4096, "64k": 65536, "8M": 8 << 20, "8MiB": 8 << 20, "1G": 1 << 30}
        for text, size in sizes.items():
            with self.subTest(text):
                self.assertEqual(parse("--read-ahead", text, IMAGE).settings.transfer.read_ahead, size)

    def test_times_are_seconds_or_go_durations(self) -> None:
        for text, seconds in (("20", 20), ("0.5", 0.5), ("1m30s", 90), ("300ms", 0.3), ("2h", 7200), ("0", 0)):
            with self.subTest(text):
                self.assertAlmostEqual(parse_duration(text), seconds)

    def test_a_time_that_cannot_be_waited_for_is_refused(self) -> None:
        reason = r"expected a time from 0\S* s to 1000000 s"
        for argument in ("--idle-timeout=999999999", "--retry-delay=999999h", "--stall-timeout=0", "--open-timeout=0"):
            with self.subTest(argument), self.assertRaisesRegex(UsageError, reason):
                parse(argument, IMAGE)
        self.assertEqual(parse("--deadline=0", IMAGE).settings.times.deadline, 0.0)

    @needs_rooms("report")
    def test_a_required_audit_needs_a_descriptor(self) -> None:
        with self.assertRaisesRegex(UsageError, "--require-audit: expected together with --audit-fd"):
            parse("--require-audit", IMAGE)
        self.assertTrue(parse("--require-audit", "--audit-fd=6", IMAGE).require_audit)
        self.assertFalse(parse("--audit-fd=6", IMAGE).require_audit)

    @needs_rooms("report", "jsonproxy")
    def test_two_streams_never_share_a_descriptor(self) -> None:
        for arguments in (
            ["--sockfd=5", "--events-fd=5", IMAGE],
            ["--audit-fd=6", "--events-fd=6", IMAGE],
            ["--events-fd=1", IMAGE],
            ["--audit-fd=0", IMAGE],
            [Command.JSON, "--audit-fd=0"],
        ):
            with self.subTest(arguments), self.assertRaisesRegex(UsageError, "expected a descriptor of its own"):
                parse(*arguments)
        self.assertEqual(parse(Command.JSON, "--audit-fd=1").audit_fd, 1)
        self.assertEqual(parse("--sockfd=5", "--events-fd=1", IMAGE).events_fd, 1)

    def test_malformed_values_are_refused_with_the_option_and_what_was_expected(self) -> None:
        def like(word: str) -> str:
            return f"did you mean {word}. " if knows(word) else ""  # a copy does not recommend what it lacks

        for arguments, reason in (
            (["--sockfd", "x"], "--sockfd: expected a number from 0, found 'x'"),
            (["--sockfd", "-1"], "--sockfd: expected a number"),
            (["--sockfd", "٣"], "--sockfd: expected a number"),
            (["--max-rate", "8Q"], "--max-rate: expected bytes"),
            (["--deadline", "soon"], "--deadline: expected a time"),
            (["--deadline", ""], "--deadline: expected a time"),
            (["--quiet=maybe"], "--quiet: expected true or false"),
            (["--log-level", "loud"], "--log-level: expected one of debug"),
            (["--sandbox", "on"], "--sandbox: expected one of auto, off"),
            (["--require-sandbox=huge"], "--require-sandbox: expected one of process, write, full"),
            (["--user-agent-prefix", "a\r\nb"], "--user-agent-prefix: expected printable"),
            (["--nope"], "unknown option '--nope'"),
            (["--creds-secret=hunter2"], "unknown option '--creds-secret'; see"),
            (["--creds u:hunter2"], "unknown option '--creds…'; did you mean --creds. see"),
            (["--creds:u:hunter2"], "unknown option '--creds…'; did you mean --creds. see"),
            (["-phunter2"], "unknown option '-p…'; see"),
            (["-x"], "unknown option '-x'"),
            (["--poli", "x"], "unknown option '--poli'"),
            (["--polcy", "x"], "unknown option '--polcy'; did you mean --policy. see --help all$"),
            (["--creds-secret=hunter2"], "^[^h]*unknown option '--creds-secret'; see --help all$"),
            (["explian"], f"^expected one image name, found 2; {like('explain')}see --help$"),
            (["--ofline"], f"^unknown option '--ofline'; {like('--offline')}see --help all$"),
            (["--json"], "--json: (expected together with explain|not part of this copy)"),
        ):
            with self.subTest(arguments), self.assertRaisesRegex(UsageError, reason):
                parse(*arguments, IMAGE)

    def test_an_option_without_its_value_is_refused(self) -> None:
        with self.assertRaisesRegex(UsageError, "--policy: expected a value"):
            parse(IMAGE, "--policy")

    def test_ignored_options_of_skopeo_warn(self) -> None:
        self.assertIn("--command-timeout is ignored", parse("--command-timeout", "5s", IMAGE).warnings[0])

    @needs_rooms("explain", "fetch", "report")
    def test_options_that_a_command_has_no_use_for_warn(self) -> None:
        descriptors = ("--sockfd=3", "--audit-fd=4", "--events-fd=5")
        for command, words, ignored in (
            (Command.HTTP, (), ()),
            (Command.FETCH, ("oci:/x",), ("--sockfd",)),
            (Command.EXPLAIN, (), ("--sockfd", "--audit-fd", "--events-fd")),
        ):
            named = (command,) if command else ()
            told = parse(*named, *descriptors, IMAGE, *words).warnings
            self.assertEqual(told, tuple(f"{name} is ignored: {command} has no use for it" for name in ignored))


class SettingsFromOptions(unittest.TestCase):
    def test_policy_options(self) -> None:
        self.assertIs(parse(IMAGE).settings.policy.source, PolicySource.HOST)
        self.assertEqual(parse("--policy", "p", IMAGE).settings.policy.path, "p")
        self.assertIs(
            parse("--insecure-policy", "--policy", "p", IMAGE).settings.policy.source, PolicySource.ACCEPT_ANYTHING
        )
        with self.assertRaisesRegex(UsageError, "contradicts"):
            parse("--insecure-policy", "--require-signed", IMAGE)

    def test_the_auth_file_comes_from_the_environment_unless_it_is_given_empty(self) -> None:
        self.assertEqual(parse(IMAGE, REGISTRY_AUTH_FILE="/a").settings.credentials.authfile, "/a")
        self.assertIsNone(parse("--authfile=", IMAGE, REGISTRY_AUTH_FILE="/a").settings.credentials.authfile)

    def test_the_user_agent_takes_the_prefix(self) -> None:
        self.assertRegex(parse("--user-agent-prefix=b/1", IMAGE).settings.user_agent, "^b/1 container-image-proxy/")

    @needs_rooms("confine")
    def test_a_required_sandbox_contradicts_none(self) -> None:
        self.assertIs(parse("--sandbox=off", IMAGE).settings.sandbox, False)
        self.assertEqual(parse("--require-sandbox", IMAGE).settings.require_sandbox, "process")
        with self.assertRaisesRegex(UsageError, "contradicts"):
            parse("--sandbox=off", "--require-sandbox", IMAGE)

    def test_contradicting_credentials_are_told_when_they_are_used(self) -> None:
        for arguments, reason in (
            (["--creds=a:b", "--no-creds"], "--no-creds contradicts"),
            (["--username=a", "--password=b", "--no-creds"], "--no-creds contradicts"),
            (["--creds=a:b", "--username=a", "--password=b"], "--creds contradicts"),
            (["--username=a"], "together"),
            (["--password=hunter2"], "together"),
            (["--creds="], "no user name"),
            (["--creds=:hunter2"], "no user name"),
            (["--creds=a:hunter2\n"], "--creds: contains a line break"),
        ):
            with self.subTest(arguments):
                options = parse(*arguments, IMAGE).settings.credentials
                with self.assertRaisesRegex(UsageError, reason) as caught:
                    options.explicit()
                self.assertNotIn("hunter2", str(caught.exception) + repr(options))

    def test_explicit_credentials_never_show_in_a_repr(self) -> None:
        explicit = parse("--creds=user:hunter2:x", IMAGE).settings.credentials.explicit()
        assert explicit is not None
        self.assertEqual((explicit.username, explicit.password), ("user", "hunter2:x"))
        self.assertNotIn("hunter2", repr(explicit))


class Help(unittest.TestCase):
    def test_all_of_it_names_every_advertised_option_once(self) -> None:
        text = help_text(everything=True)
        self.assertLessEqual(max(map(len, text.splitlines())), 100)
        for option in OPTIONS:
            with self.subTest(option.name):
                shown = bool(option.help) and knows(f"--{option.name}")
                self.assertEqual(len(re.findall(rf"\n  --{option.name}\b(?!-)", text)), shown)

    def test_what_is_common_fits_a_screen(self) -> None:
        text = help_text(everything=False)
        self.assertLessEqual(len(text.splitlines()), 24)
        self.assertIn("--help all", text)
        self.assertIn("--user-agent-prefix", text)  # what the Rust client looks for
        self.assertNotIn("--retry-delay", text)

    def test_every_option_has_a_group_with_a_title_or_is_not_advertised(self) -> None:
        for title, group in GROUPS.items():
            for option in group:
                self.assertEqual(bool(title), bool(option.help), option.name)

    def test_help_and_version_are_answers(self) -> None:
        self.assertIn("--sockfd", parse("--help").answer)
        self.assertIn("--retry-delay", parse("--help", "all").answer)
        self.assertIn("--retry-delay", parse("-h", "all").answer)

    def test_the_version_names_what_runs_and_what_was_found(self) -> None:
        answer = parse("--version").answer
        self.assertRegex(
            answer,
            r"\Acontainer-image-proxy \d+\.\d+\.\d+\nPython 3\.\d+\.\S+\n"
            r"Optional packages: (no )?cryptography[^,\n]*, (no )?PyYAML[^,\n]*\nRooms: .*\n\Z",
        )
        for name in present():
            self.assertIn(name, answer)


if __name__ == "__main__":
    unittest.main()

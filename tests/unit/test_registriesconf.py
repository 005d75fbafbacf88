# SPDX-License-Identifier: Apache-2.0
"""The rows C1 to C37 of registry.md 10.2, and what a file must not say."""

import unittest
from pathlib import Path

from cip.errors import CipError, ConfigurationError, ErrorCode
from cip.hostconfig.registriesconf import RegistriesConfig, load_registries
from cip.hostconfig.registriesfile import parse_registries_file
from cip.model.reference import parse_docker_reference
from tests.support.host import make_host

DIGEST = "sha256:" + "a" * 64

# configurations of the vector table
ONE_RULE = """
[[registry]]
prefix = "example.com/foo"
location = "internal.example/bar"
[[registry.mirror]]
location = "m1.local/foo"
[[registry.mirror]]
location = "m2.local:5000/x"
insecure = true
"""
NESTED = """
registry = [
  {location = "ex.com"},
  {prefix = "ex.com/a", location = "one.io"},
  {prefix = "ex.com/a/b", location = "two.io/z"},
  {prefix = "*.ex.com", location = "three.io"},
]
"""
HUB_MIRROR = """
[[registry]]
prefix = "docker.io"
location = "docker.io"
mirror = [{location = "mirror.local"}]
"""
FOUR_MIRRORS = """
[[registry]]
location = "ex.com"
mirror = [
  {location = "d.io", pull-from-mirror = "digest-only"},
  {location = "t.io", pull-from-mirror = "tag-only"},
  {location = "a.io", pull-from-mirror = "all"},
  {location = "e.io", pull-from-mirror = ""},
]
"""


def rule(prefix: str, location: str = "", more: str = "") -> str:
    """A `[[registry]]` table."""
    text = f"[[registry]]\nprefix = '{prefix}'\n"
    return text + (f"location = '{location}'\n" if location else "") + more + "\n"


BY_DIGEST_ONLY = "[[registry]]\nlocation='ex.com'\nmirror-by-digest-only=true\nmirror=[{location='m1.io'}]"
MIRROR_UNUSABLE = "[[registry]]\nlocation='ex.com'\nmirror=[{location='%s'}]"

# row, configuration, reference, places in their order; `!` marks an insecure one, no places: no rule applies
PLACES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    (
        "C1",
        ONE_RULE,
        "example.com/foo/image:latest",
        ("m1.local/foo/image:latest", "m2.local:5000/x/image:latest!", "internal.example/bar/image:latest"),
    ),
    ("C2", ONE_RULE, "example.com/foo:1", ("m1.local/foo:1", "m2.local:5000/x:1!", "internal.example/bar:1")),
    ("C3", ONE_RULE, "example.com/foobar:1", ()),
    ("C4", NESTED, "ex.com/a/b/x:1", ("two.io/z/x:1",)),
    ("C4 whole prefix", NESTED, "ex.com/a/b:1", ("two.io/z:1",)),
    ("C4 not a path component", NESTED, "ex.com/ab/x:1", ("ex.com/ab/x:1",)),
    ("C5", NESTED, "s.t.ex.com/q:1", ("three.io/q:1",)),
    ("C5 port", NESTED, "s.ex.com:5000/x:1", ("three.io:5000/x:1",)),
    ("C6", HUB_MIRROR, "busybox:latest", ("mirror.local/library/busybox:latest", "docker.io/library/busybox:latest")),
    ("C6 user", HUB_MIRROR, "user/img:1", ("mirror.local/user/img:1", "docker.io/user/img:1")),
    ("C7", rule("docker.io/alpine", "quay.io/alpine"), "alpine:1", ()),
    ("C7 below", rule("docker.io/alpine", "quay.io/alpine"), "docker.io/alpine/x:1", ("quay.io/alpine/x:1",)),
    ("C8 below", rule("ex.com", "docker.io"), "ex.com/a/b:1", ("docker.io/a/b:1",)),
    ("C9 below", rule("ex.com/foo", "loc.io"), "ex.com/foo/x:t", ("loc.io/x:t",)),
    ("C10", rule("*.ex.com", more="insecure = true"), "a.ex.com:5000/x:1", ("a.ex.com:5000/x:1!",)),
    ("C10 the domain itself", rule("*.ex.com", more="insecure = true"), "ex.com/x:1", ()),
    (
        "C11",
        rule("*.ex.com", more="mirror = [{location = 'm.local/p'}]"),
        "a.b.ex.com/x:1",
        ("m.local/p/x:1", "a.b.ex.com/x:1"),
    ),
    ("C12 longer", rule("*.ex.com", "loc.io"), "a.ex.com.evil.org/x", ()),
    ("C12 other end", rule("*.ex.com", "loc.io"), "a.ex.comx/x", ()),
    ("C12 in the path", rule("*.ex.com", "loc.io"), "foo.io/a.ex.com/x", ()),
    ("first occurrence only", rule("*.ex.com", "loc.io"), "x.ex.com.ex.com/y:1", ()),
    ("C13 tag", BY_DIGEST_ONLY, "ex.com/x:1", ("ex.com/x:1",)),
    ("C13 digest", BY_DIGEST_ONLY, f"ex.com/x@{DIGEST}", (f"m1.io/x@{DIGEST}", f"ex.com/x@{DIGEST}")),
    ("C14 tag", FOUR_MIRRORS, "ex.com/x:1", ("t.io/x:1", "a.io/x:1", "e.io/x:1", "ex.com/x:1")),
    (
        "C14 digest",
        FOUR_MIRRORS,
        f"ex.com/x@{DIGEST}",
        (f"d.io/x@{DIGEST}", f"a.io/x@{DIGEST}", f"e.io/x@{DIGEST}", f"ex.com/x@{DIGEST}"),
    ),
    ("C15", rule("ex.com/foo:bar", "l.io"), "ex.com/foo:bar", ()),
    ("C16", rule("ex.com", "one.io") + rule("ex.com", "two.io"), "ex.com/x:1", ("one.io/x:1",)),
    ("C17", rule("ex.com/foo//", "loc.io/"), "ex.com/foo/x:t", ("loc.io/x:t",)),
    ("C18", rule("ex.com", "loc.io"), "ex.com:5000/x:1", ("loc.io:5000/x:1",)),
    ("C20", MIRROR_UNUSABLE % "localhost", "ex.com/a:1", ("localhost/a:1", "ex.com/a:1")),
    ("C21", "[[registry]]\nlocation='EX.com'\ninsecure=true", "ex.com/a:1", ()),
    ("C21 exact", "[[registry]]\nlocation='EX.com'\ninsecure=true", "EX.com/a:1", ("EX.com/a:1!",)),
    ("C22", "[[Registry]]\nLocation='ex.com'\nINSECURE=true", "ex.com/a:1", ("ex.com/a:1!",)),
    ("C26", rule("ex.*.com", "l.io"), "ex.a.com/x:1", ()),
)

# row, configuration, reference, reason; an error for any place, even for a mirror
UNUSABLE: tuple[tuple[str, str, str, str], ...] = (
    (
        "C8",
        rule("ex.com", "docker.io"),
        "ex.com/a:1",
        "location of prefix 'ex.com': makes 'docker.io/a:1' of ex.com/a:1"
        ": expected the full name 'docker.io/library/a:1'",
    ),
    ("C9", rule("ex.com/foo", "loc.io"), "ex.com/foo:t", "expected the full name 'docker.io/library/loc.io:t'"),
    ("C19", MIRROR_UNUSABLE % "mirror", "ex.com/a:1", "mirror 1 of prefix 'ex.com': makes 'mirror/a:1'"),
    ("C19 upper case", MIRROR_UNUSABLE % "m.io/Foo", "ex.com/a:1", "expected a lower-case repository name"),
    ("user name", MIRROR_UNUSABLE % "me@m.io", "ex.com/a:1", "makes 'me@m.io/a:1' of .*: .* is not a host name"),
)

# row, configuration, reason
MALFORMED: tuple[tuple[str, str, str], ...] = (
    ("C23", "[[registry]]\nprefix='ex.com'", r"registry\[0\]: prefix 'ex.com': expected a location"),
    ("C23 empty", "[[registry]]\ninsecure=true", r"registry\[0\]: expected a prefix or a location, found neither"),
    ("C24", "[[registry]]\nlocation='https://ex.com'", r"registry\[0\].location: expected .* without a scheme"),
    ("C24 mirror", MIRROR_UNUSABLE % "http://m", r"registry\[0\].mirror\[0\].location: expected .* without a scheme"),
    (
        "C24 no location",
        "[[registry]]\nlocation='a.io'\nmirror=[{insecure=true}]",
        r"registry\[0\].mirror\[0\]: expected a location",
    ),
    ("C25", rule("*.ex.com/foo", "l.io"), r"registry\[0\].prefix: expected a wildcard prefix like \*.example.com"),
    ("C25 port", rule("*.ex.com:5000", "l.io"), r"found '\*.ex.com:5000'"),
    (
        "C27",
        rule("a.com", "x.io", "insecure=true") + rule("b.com", "x.io"),
        r"registry\[1\]: insecure = false for location 'x.io' contradicts insecure = true in registry\[0\]",
    ),
    (
        "C27 blocked",
        rule("a.com", "x.io") + rule("b.com", "x.io", "blocked=true"),
        "blocked = true for location 'x.io' contradicts blocked = false",
    ),
    ("C28", rule("a.com", "x.io", "pull-from-mirror='all'"), r"expected it in a \[\[registry.mirror\]\] table only"),
    (
        "C28 value",
        "[[registry]]\nlocation='x.io'\nmirror=[{location='m.io', pull-from-mirror='sometimes'}]",
        "expected one of all, digest-only, tag-only, found 'sometimes'",
    ),
    (
        "C28 both",
        "[[registry]]\nlocation='x.io'\nmirror-by-digest-only=true\nmirror=[{location='m.io', pull-from-mirror='all'}]",
        "contradicts mirror-by-digest-only = true",
    ),
    ("C29", "unqualified-search-registries=['ex.com/foo']", "expected a host name, found 'ex.com/foo'"),
    ("C29 empty", "unqualified-search-registries=['']", "expected a host name, found ''"),
    ("C29 scheme", "unqualified-search-registries=['https://ex.com']", "without a scheme"),
    ("C30", "short-name-mode='prompt'", "expected one of enforcing, permissive, disabled, found 'prompt'"),
    ("C30 type", "[[registry]]\nlocation='a.io'\ninsecure='true'", "insecure: expected a boolean, found a string"),
    ("C31", "[registries.search]\nregistries=['a.io']", r"format v1 in \[registries.search\], expected format v2"),
    ("C31 empty list", "[registries.search]\nregistries=[]", "format v1"),
    ("C31 insecure", "[registries.insecure]\nregistries=['a.io']", "location = 'HOST' and insecure = true"),
    ("C31 any case", "[Registries.BLOCK]\nregistries=['a.io']", "format v1"),
    ("C32", "[aliases]\n'a:b'='ex.com/x'", "expected a short name without host, tag and digest on the left"),
    ("C32 host", "[aliases]\n'a.io/b'='ex.com/x'", "expected a short name"),
    ("C32 value", "[aliases]\n'a'='x/y'", "aliases.a: expected a repository with its host"),
    ("C32 tag", "[aliases]\n'a'='x.io/y:1'", "expected a repository with its host, without tag and digest"),
    ("not TOML", "[[registry]]\nlocation = ex.com", "not valid TOML at line 2 column 12: "),
    ("endless number", "a = " + "9" * 5000, "not valid TOML: a number that is too large"),
    ("key twice", "[[registry]]\nlocation='a.io'\nlocation='b.io'", "not valid TOML at line 3"),
    (
        "key twice, in two spellings",
        "[[registry]]\nlocation='a.io'\nINSECURE=false\ninsecure=true",
        r"registry\[0\].insecure: ambiguous",
    ),
    ("mirror alone", "[[registry.mirror]]\nlocation='a.io'", r"\[\[registry.mirror\]\] without the \[\[registry\]\]"),
    ("single table", "[registry]\nlocation='a.io'", r"found a single table: write \[\[…\]\], not \[…\]"),
    ("no table", "registry='a.io'", "registry: expected an array, found a string"),
    ("table of numbers", "registry=[1]", r"registry\[0\]: expected an object, found an integer"),
    ("date", "[[registry]]\nlocation=2026-01-01", "location: expected a string, found something else"),
    ("empty prefix", rule("//", "a.io"), "prefix: expected a host name or a repository, found '//'"),
    ("nested too deep", "x = " + "[" * 100_000, "nested too deep"),
    ("helper with a path", "credential-helpers=['../x']", r"credential-helpers'?\]?\[0\]: expected the name of a"),
    ("helper like an option", "credential-helpers=['-x']", "expected the name of a credential helper, found '-x'"),
    ("helper without a name", "credential-helpers=['']", "expected the name of a credential helper, found ''"),
    ("helpers of a wrong type", "credential-helpers='x'", "expected an array, found a string"),
)


class OneFileTest(unittest.TestCase):
    def setUp(self) -> None:
        self.host = make_host(self)

    def _load(self, text: str) -> RegistriesConfig:
        path = self.host.write("/etc/containers/registries.conf", f"{text}\n")
        self.file = path
        self.warnings: list[str] = []
        return load_registries(self.host.settings(), warn=self.warnings.append)

    def test_references_become_places_in_order(self) -> None:
        for row, text, name, expected in PLACES:
            with self.subTest(row):
                reference = parse_docker_reference(name)
                found = self._load(text).places(reference)
                if expected:
                    self.assertEqual(expected, tuple(f"{each.reference}{'!' * each.insecure}" for each in found))
                    self.assertEqual([self.file] * len(found), [each.file for each in found])
                else:
                    self.assertEqual(
                        [(reference, "", False)], [(each.reference, each.file, each.insecure) for each in found]
                    )
                self.assertEqual([False] * (len(found) - 1) + [True], [each.primary for each in found])

    def test_a_place_that_is_no_normal_reference_stops_the_request(self) -> None:
        for row, text, name, reason in UNUSABLE:
            with self.subTest(row), self.assertRaisesRegex(ConfigurationError, reason) as caught:
                self._load(text).places(parse_docker_reference(name))
            self.assertTrue(str(caught.exception).startswith(self.file))

    def test_a_malformed_file_is_refused_with_its_name_and_the_key(self) -> None:
        for row, text, reason in MALFORMED:
            with self.subTest(row), self.assertRaisesRegex(ConfigurationError, reason) as caught:
                self._load(text)
            self.assertTrue(str(caught.exception).startswith(f"{self.file}: "), caught.exception)
            self.assertIs(ErrorCode.CONFIG_INVALID, caught.exception.code)

    def test_each_place_says_which_rule_made_it(self) -> None:
        found = self._load(ONE_RULE).places(parse_docker_reference("example.com/foo/x"))
        expected = [
            "mirror 1 of prefix 'example.com/foo'",
            "mirror 2 of prefix 'example.com/foo'",
            "location of prefix 'example.com/foo'",
        ]
        self.assertEqual(expected, [place.rule for place in found])
        (direct,) = self._load("").places(parse_docker_reference("x"))
        self.assertEqual("no [[registry]] matches: the name itself", direct.rule)

    def test_a_namespace_belongs_to_its_place(self) -> None:
        text = "[[registry]]\nlocation='ex.com'\n[[registry.mirror]]\nlocation='m.io'\nnamespace-proxy='ex.com'\n"
        found = self._load(text).places(parse_docker_reference("ex.com/x"))
        self.assertEqual(
            [("m.io", "ex.com"), ("ex.com", "")], [(each.reference.domain, each.namespace) for each in found]
        )

    def test_accepted_oddities(self) -> None:
        for row, text in (
            ("C30", "short-name-mode=''"),
            ("C31", "[registries]"),
            ("C31 table", "[registries.search]"),
            ("aliases", "[aliases]\n'a'='x.io/y'\n'a/b'=''\n'c'='localhost/y'"),
            ("byte order mark", "\ufeff[[registry]]\nlocation='a.io'"),
            ("line ends", "[[registry]]\r\nlocation='a.io'\r\n"),
            (
                "same location, same flags",
                rule("a.com", "x.io", "insecure=true") + rule("b.com", "x.io", "insecure=true"),
            ),
            ("empty pull-from-mirror", rule("a.com", "x.io", "pull-from-mirror=''")),
            ("helper for layers", "additional-layer-store-auth-helper='/usr/bin/never-run'"),
        ):
            with self.subTest(row):
                self._load(text)
                self.assertEqual([], self.warnings)

    def test_unknown_keys_are_ignored_and_remarked_on(self) -> None:  # C30
        config = self._load("future = 1\n[[registry]]\nlocation='a.io'\nblockd=true\nmirror=[{location='m.io', x=1}]")
        self.assertEqual(
            [
                f"{self.file}: future: unknown key, ignored",
                f"{self.file}: registry[0].blockd: unknown key, ignored",
                f"{self.file}: registry[0].mirror[0].x: unknown key, ignored",
            ],
            self.warnings,
        )
        self.assertEqual(2, len(config.places(parse_docker_reference("a.io/x"))))

    def test_a_prefix_that_no_image_has_is_remarked_on(self) -> None:
        for prefix, why in (("library/x", "a host with a dot"), ("a.io/x:1", "no tag"), ("a.io/X", "lower-case")):
            with self.subTest(prefix):
                self._load(rule(prefix, "b.io"))
                self.assertRegex(self.warnings[0], f"registry.0.: no image has the prefix '{prefix}': .*{why}")

    def test_text_that_is_not_utf_8_is_refused_with_its_position(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, "^f: not valid UTF-8 at byte 1$"):
            parse_registries_file("f", b"#\xff")

    def test_a_message_never_repeats_more_than_a_little_of_the_file(self) -> None:
        for text in (
            "[[registry]]\nlocation='" + "x" * 5000 + "/Y'\nblocked=1",
            "['" + "k" * 9000 + "']\n['" + "k" * 9000 + "']",
        ):
            with self.assertRaises(ConfigurationError) as caught:
                parse_registries_file("f", text.encode())
            self.assertLess(len(str(caught.exception)), 600)


class BlockedTest(unittest.TestCase):
    def setUp(self) -> None:
        self.host = make_host(self)

    def _load(self, text: str) -> RegistriesConfig:
        self.host.write("/etc/containers/registries.conf", text)
        return load_registries(self.host.settings())

    def test_a_blocked_name_is_refused_wherever_it_would_be_fetched_from(self) -> None:  # C36
        for case, text in (
            ("location", "[[registry]]\nlocation='ex.test'\nblocked=true"),
            ("elsewhere", rule("ex.test", "g.io", "blocked=true")),
            ("mirror", "[[registry]]\nlocation='ex.test'\nblocked=true\nmirror=[{location='m.io'}]"),
        ):
            with self.subTest(case):
                config = self._load(text)
                with self.assertRaisesRegex(
                    CipError, "^ex.test/x:1: blocked by .*registries.conf: .* 'ex.test'"
                ) as caught:
                    config.places(parse_docker_reference("ex.test/x:1"))
                self.assertIs(ErrorCode.REGISTRY_BLOCKED, caught.exception.code)
                self.assertTrue(config.candidates(parse_docker_reference("ex.test/x:1")))

    def test_a_place_that_another_rule_blocks_is_marked(self) -> None:
        config = self._load(
            rule("ex.test", "g.io", "mirror=[{location='m.io'}]") + rule("g.io/x", "g.io/x", "blocked=true")
        )
        found = config.places(parse_docker_reference("ex.test/x:1"))
        self.assertEqual(
            [("m.io/x:1", False), ("g.io/x:1", True)], [(str(each.reference), each.blocked) for each in found]
        )

    def test_insecure_of_another_rule_says_nothing_about_a_mirror(self) -> None:
        config = self._load(
            "[[registry]]\nlocation='ex.test'\nmirror=[{location='m.io'}]\n" + rule("m.io", "m.io", "insecure=true")
        )
        self.assertEqual(
            [False, False], [each.insecure for each in config.places(parse_docker_reference("ex.test/x:1"))]
        )


class SeveralFilesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.host = make_host(self)
        self.main = self.host.write("/etc/containers/registries.conf", ONE_RULE + "\n")

    def _load(self, **variables: str) -> RegistriesConfig:
        return load_registries(self.host.settings(variables))

    def test_a_later_table_replaces_the_earlier_one_whole(self) -> None:  # C34
        drop_in = self.host.write(
            "/etc/containers/registries.conf.d/a.conf", rule("example.com/foo", "new.io/bar", "insecure=true")
        )
        (place,) = self._load().places(parse_docker_reference("example.com/foo/x:1"))
        self.assertEqual(("new.io/bar/x:1", True, drop_in), (str(place.reference), place.insecure, place.file))

    def test_drop_ins_are_laid_over_each_other_by_name(self) -> None:
        self.host.write("/etc/containers/registries.conf.d/9.conf", rule("a.io", "nine.io"))
        self.host.write("~/.config/containers/registries.conf.d/10.conf", rule("a.io", "ten.io"))
        (place,) = self._load().places(parse_docker_reference("a.io/x:1"))
        self.assertEqual("nine.io/x:1", str(place.reference))
        last = self.host.write("last.conf", rule("a.io", "last.io"))
        (place,) = self._load(CONTAINERS_REGISTRIES_CONF_OVERRIDE=last).places(parse_docker_reference("a.io/x:1"))
        self.assertEqual("last.io/x:1", str(place.reference))

    def test_tables_of_different_files_may_differ_about_a_location(self) -> None:
        self.host.write(
            "/etc/containers/registries.conf.d/a.conf", rule("b.com", "internal.example/bar", "insecure=true")
        )
        self.assertEqual(2, len(self._load().rules))

    def test_credential_helpers_are_replaced_and_never_empty(self) -> None:  # C33
        self.assertEqual(("containers-auth.json",), self._load().credential_helpers)
        self.host.write("/etc/containers/registries.conf", "credential-helpers=['h', 'containers-auth.json']")
        self.assertEqual(("h", "containers-auth.json"), self._load().credential_helpers)
        drop_in = self.host.write("/etc/containers/registries.conf.d/a.conf", "unqualified-search-registries=[]")
        self.assertEqual(("h", "containers-auth.json"), self._load().credential_helpers)
        Path(drop_in).write_text("credential-helpers=[]", encoding="ascii")
        self.assertEqual(("containers-auth.json",), self._load().credential_helpers)

    def test_the_files_that_were_read_are_known(self) -> None:
        drop_in = self.host.write("/etc/containers/registries.conf.d/a.conf")
        user = str(self.host.path("~/.config/containers/registries.conf"))
        self.assertEqual(
            [
                (user, "registries.conf", False),
                (self.main, "registries.conf", True),
                (drop_in, "registries.conf drop-in", True),
            ],
            list(self._load().files),
        )

    def test_a_link_that_leads_nowhere_counts_as_absent(self) -> None:
        link = self.host.path("/etc/containers/registries.conf.d/a.conf")
        link.parent.mkdir()
        link.symlink_to("nowhere")
        self.assertEqual((str(link), "registries.conf drop-in", False), self._load().files[-1])

    def test_an_override_that_was_read_before_is_read_again_as_the_last(self) -> None:
        text = rule("a.io", "last.io")
        first = self.host.write("/etc/containers/registries.conf.d/1.conf", text)
        self.host.write("/etc/containers/registries.conf.d/2.conf", rule("a.io", "two.io"))
        config = self._load(CONTAINERS_REGISTRIES_CONF_OVERRIDE=first)
        self.assertEqual("last.io/x:1", str(config.places(parse_docker_reference("a.io/x:1"))[0].reference))

    def test_a_broken_drop_in_is_named(self) -> None:
        drop_in = self.host.write("/etc/containers/registries.conf.d/a.conf", "x\n")
        with self.assertRaisesRegex(ConfigurationError, f"^{drop_in}: not valid TOML at line 1 column 2"):
            self._load()

    def test_an_override_that_does_not_exist_is_refused(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, "^/nonexistent: no such file$"):
            self._load(CONTAINERS_REGISTRIES_CONF_OVERRIDE="/nonexistent")


if __name__ == "__main__":
    unittest.main()

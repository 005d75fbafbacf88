# SPDX-License-Identifier: Apache-2.0
"""Generated registries.conf files and references, judged beside other implementations.

Against the library of a current skopeo: the places of each reference, in order, or that there are none; and which
files of a whole host are read. Against Debian's skopeo: the requests that a recording registry sees. What is meant to
differ is one list, `INTENDED`; anything else that differs is a failure, and so is a row that nothing needs.
"""

import dataclasses
import itertools
import json
import random
import tempfile
import unittest
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cip.errors import CipError, ErrorCode
from cip.hostconfig.registriesconf import load_registries
from cip.model.reference import parse_image_reference
from cip.settings import Settings
from tests.support.host import Host, make_host
from tests.support.judge import Judge
from tests.support.parent import running
from tests.support.peers import require_peer, run_program
from tests.support.recording import Asked, Given, RecordingServer

SEED = 1  # any will do that lets every row of INTENDED occur
FILES = 350  # generated files, each asked about `REFERENCES_PER_FILE` references
REFERENCES_PER_FILE = 8
HOSTS_WITH_DROP_INS = 60
DIGEST = "sha256:" + "ab" * 32

Places = list[tuple[str, bool, bool, str]]  # reference there, insecure, blocked, namespace


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What one implementation says: places in order, or a refusal with its text."""

    places: Places | None
    refusal: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """One row of what is meant to differ: one refuses, with `ours` or `theirs` in its text, what the other accepts."""

    why: str
    ours: str = ""
    theirs: str = ""


INTENDED = (
    Difference("S9: a name that is blocked is refused, whatever its places", "says blocked = true"),
    Difference("one key in two spellings: the others take either", "ambiguous"),
    Difference("a prefix of slashes only matches nothing there", "expected a host name or a repository, found '/"),
    Difference("S13: a helper is named when it is used there", "expected the name of a credential helper"),
    Difference("R28: a reference with an empty host", "is not a host name"),
    Difference("a reference with tag and digest is taken by its digest", theirs="both a tag and digest"),
    Difference("a number where a table belongs is no table there, and nothing is said", "aliases: expected an object"),
)


class Generator:
    """Texts of registries.conf in which many prefixes match and many nearly do; a fifth of them has one flaw."""

    HOSTS = (
        "ex.com",
        "a.ex.com",
        "b.a.ex.com",
        "ex.com:5000",
        "EX.com",
        "localhost",
        "docker.io",
        "quay.io",
        "x.ex.com.ex.com",
        "ex.comx",
        "index.docker.io",
    )
    PATHS = ("", "/foo", "/foo/bar", "/library", "/library/alpine", "/a_b", "/foobar")
    ODD_PREFIXES = (
        "*.ex.com",
        "*.com",
        "*.a.ex.com",
        "*",
        "ex.*.com",
        "ex.com/foo/",
        "ex.com//",
        "me@ex.com",
        "*.",
        "ex.com/Foo",
        "ex.com/foo:1",
    )
    LOCATIONS = ("m.io", "m.io/p", "m.local:5000", "localhost", "docker.io", "m.io/p/", "quay.io/x", "ex.com/foo")
    TAILS = (":1", ":latest", "", f"@{DIGEST}", ":UPPER_1")
    HARMLESS_LINES = (
        "unqualified-search-registries = ['ex.com', 'localhost:1']",
        "short-name-mode = ''",
        "future-key = 1",
        "credential-helpers = ['h', 'containers-auth.json']",
    )
    # one of these lines in front, or one of these tables behind, is what a fifth of the files has
    FLAWED_LINES = (
        "unqualified-search-registries = ['q/x']",
        "unqualified-search-registries = ['']",
        "short-name-mode = 'prompt'",
        "credential-helpers = ['a/b']",
        "credential-helpers = 'a'",
        "= 1",
        "x = ",
        "[registry]\nlocation = 'a.io'",
        "registry = 1",
        "aliases = 1",
        "x = 9223372036854775808",
        "x = [[{y = [-9223372036854775809]}]]",
        "x = 1e400",
    )
    FLAWED_TABLES = (
        "[aliases]\n'a:1' = 'x.io/a'",
        "[aliases]\n'a' = 'x/a'",
        "[aliases]\n'h.io/a' = 'x.io/a'",
        "[registries.search]\nregistries = ['a.io']",
        "[registries.block]\nregistries = []",
        "[[registry]]\nprefix = 'ex.com'",
        "[[registry]]\ninsecure = true",
        "[[registry]]\nlocation = 'https://ex.com'",
        "[[registry]]\nprefix = 'http://ex.com'\nlocation = 'ex.com'",
        "[[registry]]\nprefix = '*.x/y'\nlocation = 'z.io'",
        "[[registry]]\nprefix = '*.x:1'",
        "[[registry]]\nlocation = 'ex.com'\npull-from-mirror = 'all'",
        "[[registry]]\nlocation = 'z.io'\nmirror = [{insecure = true}]",
        "[[registry]]\nprefix = '/'\nlocation = 'z.io'",
        "[[registry]]\nlocation = 'z.io'\nmirror = [{location = 'm.io', pull-from-mirror = 'x'}]",
        "[[registry]]\nlocation = 'z.io'\nmirror-by-digest-only = true\n"
        "mirror = [{location = 'm.io', pull-from-mirror = 'tag-only'}]",
        "[[registry]]\nlocation = 'z.io'\ninsecure = 'true'",
        "[[registry]]\nlocation = 'z.io'\nBlocked = 1",
        "[[registry]]\nlocation = 'z.io'\ninsecure = true\nINSECURE = true",
        "[[registry]]\nprefix = 'y.io'\nlocation = 'z.io'\n[[registry]]\nlocation = 'z.io'\nblocked = true",
        "[[registry]]\nprefix = 'ex.com/foo'\nlocation = 'q.io'\nmirror = [{location = 'mirror'}]",
        "[[registry]]\nprefix = 'quay.io'\nlocation = 'q.io/Upper'",
        "[[registry]]\nprefix = 'ex.com'\nlocation = 'a@b'",
    )

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._prefixes: list[str] = []
        self._flaws = itertools.cycle(self.FLAWED_LINES + self.FLAWED_TABLES)  # in turn, so that none is left out

    def chance(self, part: float) -> bool:
        return self._random.random() < part

    def pick(self, choices: Sequence[str]) -> str:
        return self._random.choice(choices)

    def reference(self) -> str:
        """Mostly a name that a table of the last file speaks of, or nearly so."""
        if self.chance(0.04):
            return self.pick(("exa_mple.com/foo", f"ex.com/foo:1@{DIGEST}", "ex.com/Foo", "ex.com/foo:", "localhost"))
        host = self.pick(self.HOSTS) + self.pick(self.PATHS)
        name = (self.pick(self._prefixes) if self.chance(0.6) else host).replace("*", "sub")
        below = self.pick(("", "/img", "/img", "/x/y", "/foo", ":5000/img", "x/img"))
        return name.rstrip("/") + below + (self.pick(self.TAILS) if "/" in name + below else "/img:1")

    def file(self) -> str:
        parts: list[str] = []
        self._prefixes = ["ex.com"]
        if self.chance(0.2):
            parts.append(self.pick(self.HARMLESS_LINES))
        odd = self.chance(0.1)
        flaw = next(self._flaws) if self.chance(0.2) else ""
        if flaw in self.FLAWED_LINES:
            parts.append(flaw)
        parts += [self._registry() for _ in range(self._random.choice((1, 1, 2, 3, 4, 6)))]
        if self.chance(0.1):
            parts.append(self.pick(("[aliases]\n'a/b' = 'x.io/a'\nc = ''", "[registries]", "[other]\nx = 1")))
        if flaw in self.FLAWED_TABLES:
            parts.insert(len(parts) - self.chance(0.5), flaw)
        text = "\n".join(parts) + "\n"
        return text.replace("registry]]", "REGISTRY]]").replace("registry.mirror", "REGISTRY.Mirror") if odd else text

    def _registry(self) -> str:
        names = [host + path for host in self.HOSTS for path in self.PATHS]
        prefix = self.pick(self.ODD_PREFIXES if self.chance(0.12) else names)
        location = self.pick((*self.LOCATIONS, self.pick(names)))
        lines = ["[[registry]]"]
        if self.chance(0.7):
            lines.append(f"{self.pick(('prefix', 'Prefix'))} = '{prefix}'")
        if len(lines) == 1 or not prefix.startswith("*.") or self.chance(0.5):
            lines.append(f"location = '{location}'")
        self._prefixes.append(prefix if len(lines) > 1 and "refix" in lines[1] else location)
        lines += [f"{name} = {self.pick(('true', 'false'))}" for name in ("insecure", "blocked") if self.chance(0.1)]
        by_digest_only = self.chance(0.1)
        lines += ["mirror-by-digest-only = true"] * by_digest_only
        for _ in range(self._random.choice((0, 0, 1, 2, 3))):
            lines += ["[[registry.mirror]]", f"location = '{self.pick(self.LOCATIONS)}'"]
            lines += ["insecure = true"] * self.chance(0.2)
            lines += ["namespace-proxy = 'ex.com'"] * self.chance(0.1)
            if self.chance(0.3) and not by_digest_only:
                lines.append(f"pull-from-mirror = '{self.pick(('all', 'digest-only', 'tag-only', ''))}'")
        return "\n".join(lines)


def ours(settings: Settings, reference: str) -> Outcome:
    """What this program says."""
    try:
        named = parse_image_reference(f"docker://{reference}").docker
        assert named is not None
        found = load_registries(settings, warn=lambda text: None).places(named)
    except CipError as error:
        expected = (ErrorCode.CONFIG_INVALID, ErrorCode.REGISTRY_BLOCKED, ErrorCode.REFERENCE_INVALID)
        assert error.code in expected, error
        return Outcome(None, str(error))
    return Outcome([(str(each.reference), each.insecure, each.blocked, each.namespace) for each in found])


def theirs(judge: Judge, reference: str, **question: object) -> Outcome:
    """What the library of a current skopeo says."""
    reply = judge.ask(reference=reference, **question)
    if reply["error"]:
        return Outcome(None, reply["error"])
    sources = reply["sources"] or []
    return Outcome(
        [(each["reference"], each["insecure"], each["blocked"], each["namespace_proxy"]) for each in sources]
    )


class LibraryTest(unittest.TestCase):
    """Beside go.podman.io/image, one file or one host at a time."""

    def setUp(self) -> None:
        self.host = make_host(self)
        self.generator = Generator(SEED)
        self.judge = self.enterContext(Judge("endpoints", home=self.host.root))
        self.rows: Counter[Difference] = Counter()
        self.seen: Counter[str] = Counter()

    def compare(self, mine: Outcome, other: Outcome, what: str) -> None:
        """Fail unless both agree or a row of INTENDED is the reason."""
        if mine.places == other.places:
            self.seen["both refuse" if mine.places is None else "both agree on places"] += 1
            return
        refusal = mine.refusal if mine.places is None else other.refusal
        named = [row.ours if mine.places is None else row.theirs for row in INTENDED]
        row = next((row for row, text in zip(INTENDED, named, strict=True) if text and text in refusal), None)
        if row is None or (mine.places is None) is (other.places is None):
            self.fail(f"{what}\nours:   {mine}\ntheirs: {other}")
        self.rows[row] += 1

    def test_each_reference_has_the_same_places_in_the_same_order(self) -> None:
        empty = self.host.path("/empty")
        empty.mkdir()
        several = 0
        for number in range(FILES):
            text = self.generator.file()
            path = self.host.write("generated.conf", text)
            settings = self.host.settings()._replace(registries_conf=path)
            for _ in range(REFERENCES_PER_FILE):
                reference = self.generator.reference()
                mine = ours(settings, reference)
                other = theirs(self.judge, reference, registries_conf=path, registries_conf_dir=empty)
                self.compare(mine, other, f"file {number}, {reference}\n{text}")
                several += len(mine.places or ()) > 1
        # the generator must be worth something: enough of everything, and every row of the list needed
        self.assertGreater(self.seen["both agree on places"], FILES * REFERENCES_PER_FILE // 4, self.seen)
        self.assertGreater(self.seen["both refuse"], FILES * REFERENCES_PER_FILE // 10, self.seen)
        self.assertGreater(several, 100)
        self.assertEqual(set(), set(INTENDED) - set(self.rows), "rows that nothing needs")

    def test_the_same_files_of_a_host_count_in_the_same_order(self) -> None:
        directories = [
            "/etc/containers/registries.conf.d",
            "/etc/containers/registries.rootful.conf.d",
            "/etc/containers/registries.rootless.conf.d",
            "/etc/containers/registries.rootless.conf.d/1000",
            "/usr/share/containers/registries.conf.d",
            "/usr/share/containers/registries.rootful.conf.d",
            "/usr/share/containers/registries.rootless.conf.d",
            "~/.config/containers/registries.conf.d",
            "xdg/containers/registries.conf.d",
        ]
        mains = [f"{base}/containers/registries.conf" for base in ("/etc", "/usr/share", "~/.config", "xdg")]
        for number in range(HOSTS_WITH_DROP_INS):
            host = make_host(self)
            files = self._write_host(host, mains, directories)
            variables = self._variables(host)
            for _ in range(4):
                name = self.generator.pick(("one.io", "two.io", "three.io"))
                mine = ours(host.settings(variables), f"{name}/x:1")
                environment = {"HOME": str(host.home), **variables}
                other = theirs(self.judge, f"{name}/x:1", root=host.root, environment=environment)
                self.compare(mine, other, f"host {number}, {name}, {variables}\n{json.dumps(files, indent=1)}")
        self.assertGreater(self.seen["both agree on places"], HOSTS_WITH_DROP_INS * 3, self.seen)

    def _write_host(self, host: Host, mains: list[str], directories: list[str]) -> dict[str, str]:
        """Files that each say by themselves where names lead, so that the one that won can be told."""
        files = {}
        paths = [main for main in mains if self.generator.chance(0.4)]
        for directory in directories:
            paths += [
                f"{directory}/{name}" for name in ("1.conf", "2.conf", "Z.conf", "x.txt") if self.generator.chance(0.3)
            ]
        for number, path in enumerate([*paths, "override.conf", "named.conf"]):
            name = self.generator.pick(("one.io", "two.io", "three.io"))
            files[path] = f"[[registry]]\nprefix = '{name}'\nlocation = 'file{number}.io'\n"
            if self.generator.chance(0.2) and path.endswith(".conf") and ".d/" in path:
                target = host.write(f"elsewhere/{number}", files[path])
                host.path(path).parent.mkdir(parents=True, exist_ok=True)
                host.path(path).symlink_to(target)
            else:
                host.write(path, files[path])
        return files

    def _variables(self, host: Host) -> dict[str, str]:
        choices = {
            "XDG_CONFIG_HOME": str(host.root / "xdg"),
            "CONTAINERS_REGISTRIES_CONF": str(host.root / "named.conf"),
            "CONTAINERS_REGISTRIES_CONF_OVERRIDE": str(host.root / "override.conf"),
            "_CONTAINERS_ROOTLESS_UID": "1000",
        }
        return {name: value for name, value in choices.items() if self.generator.chance(0.25)}


class RequestsTest(unittest.TestCase):
    """Beside Debian's skopeo: what a registry is really asked, and in which order."""

    def setUp(self) -> None:
        self.scratch = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="cip-requests-")))
        self.asked: list[Asked] = []
        self.servers = [self.enterContext(RecordingServer(_answer, self.asked)) for _ in range(3)]

    def _requests(self) -> list[tuple[int, str]]:
        """Which server was asked for which manifest, in order; how it was found out what it speaks does not matter."""
        ports = [server.host for server in self.servers]
        found = [(ports.index(each.server), each.target) for each in self.asked if "/manifests/" in each.target]
        self.asked.clear()
        return found

    def test_the_same_manifests_are_asked_for_at_the_same_places(self) -> None:
        first, second, third = (server.host for server in self.servers)
        configurations: tuple[tuple[str, str, list[str]], ...] = (
            ("mirrors, then the location", f"prefix='ex.test/foo'\nlocation='{third}/bar'\n", [first, f"{second}/x"]),
            ("no mirror", f"prefix='ex.test'\nlocation='{first}'\n", []),
            ("a location of its own", f"prefix='ex.test/foo'\nlocation='{first}/a/b'\n", [f"{second}/c"]),
            ("a wildcard", f"prefix='*.test'\nlocation='{first}/w'\n", [second]),
            ("mirrors by digest only", f"prefix='ex.test'\nlocation='{first}'\nmirror-by-digest-only=true\n", [second]),
            ("slashes at the end", f"prefix='ex.test/foo//'\nlocation='{first}/a/'\n", []),
        )
        # all of them match every prefix above: no name here is ever looked up
        references = ("ex.test/foo/img:1", f"ex.test/foo/img@{DIGEST}", "ex.test/foo:1", "ex.test/foo/x/y/img:1")
        compared = 0
        for case, registry, mirrors in configurations:
            text = f"[[registry]]\n{registry}insecure=true\n"
            text += "".join(f"[[registry.mirror]]\nlocation='{mirror}'\ninsecure=true\n" for mirror in mirrors)
            conf = self.scratch / "registries.conf"
            conf.write_text(text, encoding="utf-8")
            for reference in references:
                with self.subTest(case, reference=reference):
                    expected = self._by_skopeo(conf, reference)
                    found = self._by_us(conf, reference)
                    self.assertEqual(expected, found)
                    compared += len(found)
        self.assertGreater(compared, 15)

    def _by_skopeo(self, conf: Path, reference: str) -> list[tuple[int, str]]:
        command = [require_peer("skopeo"), "--insecure-policy", "--registries-conf", str(conf)]
        with self.assertRaises(AssertionError):  # nobody has the image
            run_program([*command, "inspect", "--raw", f"docker://{reference}"], home=self.scratch)
        return self._requests()

    def _by_us(self, conf: Path, reference: str) -> list[tuple[int, str]]:
        with running(f"--registries-conf={conf}", "--insecure-policy", f"docker://{reference}") as proxy:
            self.assertNotEqual(200, proxy.line.ask("GET", "/manifest").status)
        return self._requests()


def _answer(asked: Asked) -> Given:
    """A registry without any image."""
    if asked.target == "/v2/":
        return Given(200, b"{}")
    return Given(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')


if __name__ == "__main__":
    unittest.main()

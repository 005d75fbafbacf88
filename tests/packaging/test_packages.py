# SPDX-License-Identifier: Apache-2.0
"""The Debian and RPM packages: they build without network, install into a bare root and serve there."""

from __future__ import annotations

import ast
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cip
from cip.model.descriptor import digest_of
from tests.bench.images import Pusher, blob_file
from tests.integration.test_readme import THIS_RUN, blocks
from tests.support import images
from tests.support.peers import docker_registry, require_peer
from tests.support.roots import SIGNED, copy_of, debian_root, inside
from tests.support.sigstore import b64, new_key, public_pem, signed, sigstore_payload, stored

ROOT = Path(__file__).resolve().parents[2]
PACKAGING = ROOT / "tests" / "packaging"
SUITES = {"bookworm": "3.11", "trixie": "3.13"}
LATEST = "forky"  # Python 3.14 or later
UNSTABLE = "sid"
# what a build environment without any peer says
LEFT_OUT = "gpg,gpgv,cryptography,yaml,sigstore-public,zstd,terminal"
NAME = f"container-image-proxy-{cip.__version__}"


def export(directory: Path) -> Path:
    """What a release holds, as a directory of its name under `directory`."""
    target = directory / NAME
    target.mkdir(parents=True)
    git = ["git", "-c", f"safe.directory={ROOT}"]
    with tempfile.TemporaryDirectory() as scratch:
        if not (ROOT / ".git").exists():  # a copy of the tree: all of it that .gitignore does not leave out
            subprocess.run(["git", "init", "--quiet", scratch], check=True)
            git += [f"--git-dir={scratch}/.git", f"--work-tree={ROOT}"]
        command = [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def offline(command: list[str], directory: Path, **environment: str) -> str:
    """Run a command in a network namespace that has no way out; everything it wrote."""
    done = subprocess.run(
        ["unshare", "--net", *command],
        cwd=directory,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(directory), "LC_ALL": "C.UTF-8", **environment},
    )
    assert done.returncode == 0, f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout[-6000:]}"
    return done.stdout


def ask(root: Path, image: str, target: str) -> tuple[int, bytes]:
    """Start the installed program in `root` and make one request; status and body."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = subprocess.Popen(
            ["chroot", str(root), "container-image-proxy", f"--sockfd={theirs.fileno()}", "--tls-verify=false", image],
            pass_fds=[theirs.fileno()],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        ours.settimeout(60)
        connection = http.client.HTTPConnection("localhost")
        connection.sock = ours
        connection.request("GET", target)
        response = connection.getresponse()
        body = response.read()
        connection.request("POST", "/quit")
        connection.getresponse().read()
        assert child.wait(60) == 0
        return response.status, body


class DebianPackage(unittest.TestCase):
    directory: Path
    package: Path  # the .deb
    log: str  # what the build said
    image: str  # in a real registry
    digest: str  # of its layer
    blob: Path

    @classmethod
    def setUpClass(cls) -> None:
        for name in ("dpkg-buildpackage", "dh_python3", "dh", "debootstrap", "docker-registry"):
            require_peer(name)
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.directory = Path(scratch.name)
        source = export(cls.directory)
        archive = f"container-image-proxy_{cip.__version__}.orig.tar.xz"
        subprocess.run(["tar", "-cJf", archive, NAME], cwd=cls.directory, check=True)
        shutil.copytree(source / "tests" / "packaging" / "debian", source / "debian")
        cls.log = offline(["dpkg-buildpackage", "-us", "-uc"], source)
        (cls.package,) = cls.directory.glob("*.deb")
        cls.blob = cls.directory / "layer"
        cls.digest = blob_file(cls.blob, 100_000, 1)
        registry = cls.enterClassContext(docker_registry(cls.directory / "registry"))
        cls.image = f"docker://{registry.host}/os/base:1"
        pusher = Pusher(registry.host, "os/base")
        pusher.image("1", [(cls.digest, 100_000, cls.blob)])
        pusher.close()

    def test_the_offline_half_of_the_tests_ran_in_the_build(self) -> None:
        self.assertRegex(self.log, r"Ran [1-9]\d{2,} tests")

    def test_lintian_of_bookworm_has_nothing_to_say(self) -> None:
        self.lint("bookworm", "newer-standards-version")

    def test_lintian_of_trixie_has_nothing_to_say(self) -> None:
        self.lint("trixie", "newer-standards-version")

    def test_lintian_of_unstable_has_nothing_to_say(self) -> None:
        self.lint(UNSTABLE)

    def lint(self, suite: str, *suppressed: str) -> None:
        """The package follows the policy of unstable, which an older release's lintian does not know yet."""
        (changes,) = self.directory.glob("*.changes")
        words = ["--allow-root", "--display-info", "--fail-on=error,warning,info"]
        words.append(f"--suppress-tags={','.join(['bad-distribution-in-changes-file', *suppressed])}")
        with copy_of(debian_root(suite, ("lintian",)), self.directory / f"{suite}-lintian") as root:
            for path in self.directory.glob("container-image-proxy_*"):
                shutil.copy(path, root / "srv")
            self.assertEqual(inside(root, "lintian", *words, f"/srv/{changes.name}").stdout, "")

    def test_it_serves_an_image_of_a_real_registry_in_a_bare_root(self) -> None:
        for suite, version in SUITES.items():
            with self.subTest(suite), self.installed(suite) as root:
                self.assertIn(f"Python {version}.", inside(root, "python3", "--version").stdout)
                for package in ("cryptography", "yaml"):
                    absent = f"import importlib.util; assert importlib.util.find_spec({package!r}) is None"
                    inside(root, "python3", "-c", absent)
                self.assert_served(root)
                write_policy(root, policy(IDENTITY))
                write_signed_directory(root / "srv" / "image")
                self.assert_refused(root, "dir:/srv/image", 501, "dependency-missing", "cryptography")

    def test_with_the_optional_packages_it_judges_signatures(self) -> None:
        for suite in SUITES:
            with self.subTest(suite), self.installed(suite, *SIGNED) as root:
                self.assert_served(root)
                write_policy(root, policy(IDENTITY))
                write_signed_directory(root / "srv" / "image")
                self.assertEqual(ask(root, "dir:/srv/image", "/manifest")[0], 200)
                write_policy(root, policy("example.com/other"))
                self.assert_refused(root, "dir:/srv/image", 403, "policy-rejected", "example.com/other")

                stores = root / "etc" / "containers" / "registries.d"
                stores.mkdir(exist_ok=True)
                (stores / "default.yaml").write_text("default-docker:\n  lookaside: file:///srv/signatures\n")
                self.assert_refused(root, self.image, 403, "policy-rejected", "signature")
                inside(root, "dpkg", "--force-depends", "--remove", "python3-yaml")
                self.assert_refused(root, self.image, 501, "dependency-missing", "PyYAML")
                write_policy(root, ACCEPT)
                self.assert_served(root)

    def test_what_was_installed_is_tried_as_autopkgtest_does_and_removed_without_a_trace(self) -> None:
        for suite in (*SUITES, UNSTABLE):
            with self.subTest(suite), copy_of(debian_root(suite), self.directory / f"{suite}-tried") as root:
                before = files_of(root)
                shutil.copy(self.package, root / "tmp")
                inside(root, "dpkg", "--install", f"/tmp/{self.package.name}")
                shutil.copy(PACKAGING / "debian" / "tests" / "installed", root / "tmp" / "installed")
                self.assertEqual(inside(root, "/tmp/installed").stdout, "ok\n")
                walk_readme(root)
                compiled = list(root.glob("usr/share/container-image-proxy/cip/__pycache__/content.*.pyc"))
                self.assertTrue(compiled, "not compiled at installation")
                inside(root, "dpkg", "--purge", "container-image-proxy")
                self.assertEqual(files_of(root) - before, set())

    @contextmanager
    def installed(self, suite: str, *packages: str) -> Iterator[Path]:
        """A fresh root of `suite` with `packages` and ours."""
        with copy_of(debian_root(suite, packages), self.directory / f"{suite}-{len(packages)}") as root:
            shutil.copy(self.package, root / "tmp")
            inside(root, "dpkg", "--install", f"/tmp/{self.package.name}")
            write_policy(root, ACCEPT)
            yield root

    def assert_served(self, root: Path) -> None:
        status, body = ask(root, self.image, "/manifest")
        self.assertEqual((status, json.loads(body)["layers"][0]["digest"]), (200, self.digest))
        status, body = ask(root, self.image, f"/blobs/{self.digest}")
        self.assertEqual((status, body), (200, self.blob.read_bytes()))

    def assert_refused(self, root: Path, image: str, status: int, code: str, detail: str) -> None:
        found, body = ask(root, image, "/manifest")
        problem = json.loads(body)
        self.assertEqual((found, problem["type"]), (status, code), problem)
        self.assertIn(detail, problem["detail"])


def walk_readme(root: Path) -> None:
    """What a stranger does where the package is installed: every block of the README, and what it says of commands."""
    version = inside(root, "container-image-proxy", "--version").stdout
    assert version.startswith(f"container-image-proxy {cip.__version__}\n"), version
    images.f1(root / "srv" / "layout")
    images.f2(root / "srv" / "other")
    (root / "srv" / "policy.json").write_text(ACCEPT)
    (demo,) = root.glob("usr/share/doc/**/demo.py")
    begin = f"cd /{demo.parent.relative_to(root)}; export {PRIVATE} CONTAINERS_POLICY_JSON=/srv/policy.json\n"
    pasted = [block for block in blocks("sh") if block != f"{THIS_RUN}\n"]
    pasted += [re.sub(r"docker://\S+", "oci:/srv/other:t", block) for block in blocks("shell")]
    for block in pasted:
        assert inside(root, "sh", "-euc", begin + block).stdout, block
    for block in blocks("python"):
        inside(root, "sh", "-euc", f'{begin}exec python3 -c "$0"', f"IMAGE = 'oci:/srv/layout:t'\n{block}")
    said = inside(
        root, "container-image-proxy", "fetch", "--insecure-policy", "oci:/srv/layout:t", "oci:/srv/copy:t"
    ).stdout
    assert said.startswith("oci:/srv/copy:t: sha256:"), said
    assert (root / "srv/copy/blobs/sha256" / images.DIGEST_T.encoded).read_bytes() == images.LAYER_T


def files_of(root: Path) -> set[str]:
    """What is installed in a root, without what dpkg itself remembers."""
    found = (path.relative_to(root).as_posix() for top in ("usr", "etc", "opt") for path in (root / top).rglob("*"))
    return {name for name in found if not name.endswith((".pyc", "__pycache__")) or "container-image-proxy" in name}


ACCEPT = json.dumps({"default": [{"type": "insecureAcceptAnything"}]})
PRIVATE = "PYTHONPATH=/usr/share/container-image-proxy"  # as README says
IDENTITY = "example.com/os/base"
KEY = new_key()


def policy(repository: str) -> str:
    """One that asks for a signature of KEY about `repository`."""
    requirement = {
        "type": "sigstoreSigned",
        "keyData": b64(public_pem(KEY)),
        "signedIdentity": {"type": "exactRepository", "dockerRepository": repository},
    }
    return json.dumps({"default": [requirement]})


def write_policy(root: Path, text: str) -> None:
    """Make it the policy of the host."""
    directory = root / "etc" / "containers"
    directory.mkdir(exist_ok=True)
    (directory / "policy.json").write_text(text)


def write_signed_directory(directory: Path) -> None:
    """A `dir:` image with a signature of KEY about IDENTITY."""
    directory.mkdir(parents=True)
    (directory / "manifest.json").write_bytes(images.MANIFEST_M)
    text = sigstore_payload(IDENTITY, str(digest_of(images.MANIFEST_M)))
    (directory / "signature-1").write_bytes(stored(signed(KEY, text)))


class BareRoot:
    """What a build environment has: Python, and no peer, no optional package, no network, no home.

    Bookworm is the build of the Debian package itself; a class for each other one, so that they run beside each other.
    """

    suite: str

    def test_the_offline_half_of_the_tests_passes(self) -> None:
        with tempfile.TemporaryDirectory() as scratch, copy_of(debian_root(self.suite), Path(scratch)) as root:
            export(root / "srv")
            test = f"cd /srv/{NAME} && exec python3 -s -m unittest discover -s tests/unit -t ."
            log = offline(["chroot", str(root), "sh", "-c", test], Path("/"), CIP_SKIP_PEERS=LEFT_OUT)
            assert re.search(r"Ran [1-9]\d{2,} tests", log), log


class BareTrixie(BareRoot, unittest.TestCase):
    suite = "trixie"


class BareLatest(BareRoot, unittest.TestCase):
    suite = LATEST


class RpmPackage(unittest.TestCase):
    def test_it_builds_without_network_serves_in_a_root_and_leaves_nothing(self) -> None:
        require_peer("rpmbuild")
        with tempfile.TemporaryDirectory() as scratch:
            directory = Path(scratch)
            export(directory)
            sources = directory / "rpm" / "SOURCES"
            sources.mkdir(parents=True)
            subprocess.run(["tar", "-czf", str(sources / f"{NAME}.tar.gz"), NAME], cwd=directory, check=True)
            log = offline(
                [
                    "rpmbuild",
                    "-bb",
                    "--nodeps",
                    "--define",
                    f"_topdir {directory}/rpm",
                    str(PACKAGING / "container-image-proxy.spec"),
                ],
                directory,
            )
            self.assertRegex(log, r"Ran [1-9]\d{2,} tests")
            (package,) = (directory / "rpm" / "RPMS" / "noarch").glob("*.rpm")
            # Debian's rpmbuild compresses pages from 13 on
            listed = [name.removesuffix(".gz") for name in self.rpm("-qlp", str(package)).splitlines()]
            for wanted in ("/usr/bin/container-image-proxy", "/usr/share/man/man7/container-image-proxy.7"):
                self.assertIn(wanted, listed)
            self.assertIn("/usr/share/container-image-proxy/cip/content.py", listed)
            self.assertEqual([name for name in listed if name.startswith(("/usr/local", "/etc"))], [])
            # another Python would compile anew, into files that nobody owns
            python = next(found[1] for name in listed if (found := re.search(r"content\.cpython-3(\d+)\.pyc$", name)))
            suite = next((suite for suite, version in SUITES.items() if version == f"3.{python}"), LATEST)
            with copy_of(debian_root(suite), directory / "root") as root:
                before = files_of(root)
                self.rpm("--root", str(root), "--nodeps", "-i", str(package))
                shutil.copy(PACKAGING / "debian" / "tests" / "installed", root / "tmp" / "installed")
                self.assertEqual(inside(root, "/tmp/installed").stdout, "ok\n")
                walk_readme(root)
                self.rpm("--root", str(root), "-e", "container-image-proxy")
                self.assertEqual({name for name in files_of(root) - before if "container-image-proxy" in name}, set())

    def rpm(self, *arguments: str) -> str:
        done = subprocess.run(["rpm", *arguments], check=False, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout


class Launcher(unittest.TestCase):
    """The installed command itself (tests/packaging/launcher)."""

    def test_an_older_python_is_told_in_one_line(self) -> None:
        text = (PACKAGING / "launcher").read_text().replace("(3, 11)", "(99, 0)")
        done = subprocess.run([sys.executable, "-I", "-c", text], check=False, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (1, "", 1))
        self.assertIn("expected Python 3.11 or later, found", done.stderr)

    def test_what_is_said_to_an_older_python_is_in_its_grammar(self) -> None:
        head = (PACKAGING / "launcher").read_text().partition("from cip")[0]
        ast.parse(head, feature_version=(3, 4))


def code_of(source: str) -> str:
    """The statements with their lines, without docstrings, most annotations, and what is imported for them."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not _is_for_type_checkers(node)]
    for node in list(ast.walk(tree)):
        if not _is_named_tuple(node):  # what is annotated there is a field
            for _, block in ast.iter_fields(node):
                if isinstance(block, list):
                    block[:] = [_without_annotation(each) for each in block]
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[:1] = [] if len(node.body) > 1 else [ast.Expr(ast.Constant(None), lineno=node.body[0].lineno)]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module in ("typing", "collections.abc"):
            node.names = [each for each in node.names if each.name in used]
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and getattr(node, "names", True)]
    if not any(isinstance(node, ast.AnnAssign) for node in statements):  # then nothing says how they are evaluated
        statements = [node for node in statements if getattr(node, "module", None) != "__future__"]
    return "\n".join(f"{node.lineno} {ast.dump(node)}" for node in statements)


def annotations_outside_of_tuples(source: str) -> list[str]:
    """What is annotated, besides the fields of named tuples."""
    nodes = list(ast.walk(ast.parse(source)))
    fields = [field for node in nodes if _is_named_tuple(node) for field in ast.iter_child_nodes(node)]
    variables = [node for node in nodes if isinstance(node, ast.AnnAssign) and node not in fields]
    arguments = [node for node in nodes if isinstance(node, ast.arg) and node.annotation]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.returns]
    return [ast.unparse(node) for node in (*variables, *arguments, *functions)]


def _is_for_type_checkers(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _is_named_tuple(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and "NamedTuple" in map(ast.unparse, node.bases)


def _without_annotation(node: ast.AST) -> ast.AST:
    if not isinstance(node, ast.AnnAssign):
        return node
    return ast.copy_location(ast.Assign([node.target], node.value) if node.value else ast.Pass(), node)


class Zipapp(unittest.TestCase):
    def build(self, path: Path, *options: str, **environment: str) -> bytes:
        command = [str(PACKAGING / "zipapp"), *options, str(path)]
        subprocess.run(command, check=True, env={**os.environ, **environment})
        return path.read_bytes()

    def path(self, scratch: str) -> Path:
        path = Path(scratch, "container-image-proxy")
        self.build(path)
        return path

    def test_two_builds_are_equal_and_small(self) -> None:
        for options, limit in (((), 300 * 1024), (("--compiled",), 1024 * 1024)):
            with self.subTest(options), tempfile.TemporaryDirectory() as scratch:
                first = self.build(Path(scratch, "a"), *options, SOURCE_DATE_EPOCH="1700000000")
                self.assertEqual(first, self.build(Path(scratch, "b"), *options, SOURCE_DATE_EPOCH="1700000000"))
                self.assertLess(len(first), limit)

    def test_it_asks_to_be_told_where_to_build(self) -> None:
        done = subprocess.run(
            [str(PACKAGING / "zipapp"), "--help"], check=True, capture_output=True, text=True, cwd="/tmp"
        )
        self.assertIn("--compiled", done.stdout)

    def test_it_is_started_by_a_shell_alone_and_isolated_by_its_own_name_or_a_link(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            path = self.path(scratch)
            trap = Path(scratch, "trap", "cip")
            trap.mkdir(parents=True)
            (trap / "__init__.py").write_text("raise SystemExit('the wrong package was imported')\n")
            Path(scratch, "skopeo").symlink_to(path)
            environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(trap.parent)}
            for command, status, said in (
                ([str(path), "--version"], 0, f"container-image-proxy {cip.__version__}\n"),
                (["sh", str(path), "--version"], 0, f"container-image-proxy {cip.__version__}\n"),
                ([str(Path(scratch, "skopeo")), "copy", "a", "b"], 2, "under the name skopeo"),
            ):
                with self.subTest(command):
                    done = subprocess.run(
                        command, check=False, capture_output=True, text=True, cwd=trap.parent, env=environment
                    )
                    self.assertEqual(done.returncode, status, done.stderr)
                    self.assertIn(said, done.stdout + done.stderr)

    def test_what_another_interpreter_compiled_is_read_from_its_sources(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, "container-image-proxy")
            self.build(path, "--compiled")
            with zipfile.ZipFile(path) as archive:
                modules = {name: archive.read(name) for name in archive.namelist()}
            self.assertIn("cip/cli.pyc", modules)
            foreign = Path(scratch, "foreign")
            with zipfile.ZipFile(foreign, "w") as archive:
                for name, content in modules.items():  # the first two bytes tell the interpreter
                    archive.writestr(name, b"\0\0" + content[2:] if name.endswith(".pyc") else content)
            done = subprocess.run([sys.executable, "-I", str(foreign), "--version"], check=False, capture_output=True)
            self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_every_statement_is_in_the_line_it_had(self) -> None:
        with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(self.path(scratch)) as archive:
            for path in sorted((ROOT / "cip").rglob("*.py")):
                name = path.relative_to(ROOT).as_posix()
                with self.subTest(name):
                    found = archive.read(name).decode()
                    self.assertEqual(annotations_outside_of_tuples(found), [])
                    self.assertEqual(code_of(found), code_of(path.read_text(encoding="utf-8")))

    def passes(self, *names: str) -> None:
        """Run these integration tests with the one file as the program."""
        with tempfile.TemporaryDirectory() as scratch:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *names],
                cwd=ROOT / "tests" / "integration",
                check=False,
                capture_output=True,
                text=True,
                env={**os.environ, "CIP_PROGRAM": str(self.path(scratch))},
            )
            self.assertEqual(done.returncode, 0, done.stdout[-4000:])

    def test_it_passes_the_integration_tests_of_http_as_it_is(self) -> None:
        self.passes("test_http.py")

    def test_it_passes_the_integration_tests_of_the_main_job_as_it_is(self) -> None:
        self.passes("test_main_job.py")

    def test_it_passes_the_integration_tests_of_json_as_it_is(self) -> None:
        names = [path.name for path in (ROOT / "tests" / "integration").glob("test_seqpacket*.py")]
        self.assertTrue(names)
        self.passes(*names)


if __name__ == "__main__":
    unittest.main()

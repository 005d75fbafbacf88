# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from tests.support import peers


class PeersTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def test_a_missing_peer_is_a_failure_that_says_how_to_get_it(self) -> None:
        absent = {"absent": peers.Peer("no-such-program-here", "its-package")}
        with mock.patch.dict(os.environ, {"CIP_SKIP_PEERS": "other"}), mock.patch.object(peers, "PEERS", absent):
            with self.assertRaisesRegex(AssertionError, "peer absent is missing: `apt-get install its-package`"):
                peers.require_peer("absent")

    def test_a_peer_is_skipped_where_a_packager_asks_even_if_it_is_there(self) -> None:
        present = {"shell": peers.Peer("sh", "dash")}
        with mock.patch.object(peers, "PEERS", present):
            with mock.patch.dict(os.environ, {"CIP_SKIP_PEERS": "go,shell"}):
                with self.assertRaisesRegex(unittest.SkipTest, "leaves shell out"):
                    peers.require_peer("shell")
            with mock.patch.dict(os.environ, {"CIP_SKIP_PEERS": ""}):
                self.assertTrue(os.access(peers.require_peer("shell"), os.X_OK))

    def test_every_peer_has_a_package_that_tests_run_installs_once(self) -> None:
        packages = peers.debian_packages(whole=True)
        self.assertLessEqual({peer.package for peer in peers.PEERS.values()}, set(packages))
        self.assertEqual(len(set(packages)), len(packages))

    def test_a_failing_program_is_reported_with_all_of_its_output(self) -> None:
        script = "import sys; print('out'); print('why', file=sys.stderr); sys.exit(3)"
        with self.assertRaisesRegex(AssertionError, r"exit status 3\nout\nwhy"):
            peers.run_program([sys.executable, "-c", script], home=self.directory)

    def test_a_peer_sees_nothing_of_the_environment_but_the_search_path(self) -> None:
        with mock.patch.dict(os.environ, {"HTTPS_PROXY": "http://elsewhere", "REGISTRY_AUTH_FILE": "/x"}):
            seen = peers.run_program(["env"], home=self.directory, environment={"EXTRA": "1"})
        names = {line.partition("=")[0] for line in seen.splitlines()}
        self.assertEqual({"PATH", "HOME", "XDG_RUNTIME_DIR", "TMPDIR", "LC_ALL", "EXTRA"}, names)

    def test_a_server_that_ends_at_once_is_reported_with_its_log(self) -> None:
        program = self.directory / "server"
        program.write_text("#!/bin/sh\necho no such option\nexit 4\n", encoding="ascii")
        program.chmod(0o755)
        broken = {"docker-registry": peers.Peer(str(program), "docker-registry")}
        with mock.patch.object(peers, "PEERS", broken), mock.patch.dict(os.environ, {"CIP_SKIP_PEERS": ""}):
            with self.assertRaisesRegex(AssertionError, r"did not start \(exit status 4(?s:.*)no such option"):
                peers.docker_registry(self.directory / "registry")

    def test_a_child_that_ignores_sigterm_is_killed(self) -> None:
        script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); input()"
        command = [sys.executable, "-c", script]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            self.assertEqual(b"ready\n", child.stdout.readline())
            with mock.patch.object(peers, "_STOP_SECONDS", 0.1):
                peers.stop_process(child)
            self.assertEqual(-9, child.returncode)

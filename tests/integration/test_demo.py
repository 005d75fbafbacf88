# SPDX-License-Identifier: Apache-2.0
"""`demo.py` from the outside: what a newcomer types first."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from tests.support import images
from tests.support.parent import PATIENCE, ROOT
from tests.support.peers import clean_environment

DEMO = str(ROOT / "demo.py")


class Demo(unittest.TestCase):
    def setUp(self) -> None:
        self.scratch = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="cip-demo-")))

    def run_demo(self, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *options, DEMO, *arguments],
            cwd=self.scratch,
            text=True,
            timeout=PATIENCE,
            env=clean_environment(self.scratch),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def test_without_arguments_it_makes_an_image_and_says_ok(self) -> None:
        for options in ((), ("-I",), ("-sP",), ("-W", "error")):
            with self.subTest(options):
                done = self.run_demo(options=options)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                lines = done.stdout.splitlines()
                self.assertEqual(lines[-1], "ok")
                self.assertEqual(
                    [line for line in lines if line.startswith("    ")],
                    ["    etc/os-release", "    bin/hello", "    lib/big"],
                )
                self.assertEqual(sum(line.endswith(" verified") for line in lines), 3)
        self.assertEqual(list(self.scratch.iterdir()), [])

    def test_with_an_image_it_does_the_same_for_that(self) -> None:
        images.f2(self.scratch / "layout")
        done = self.run_demo("--insecure-policy", "oci:layout:t")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout.splitlines()[-3:], [f"layer    {images.DIGEST_T} verified", "    f", "ok"])

    def test_a_refusal_of_the_policy_is_told_with_the_way_out(self) -> None:
        policy = self.scratch / "policy.json"
        policy.write_text(json.dumps({"default": [{"type": "reject"}]}), encoding="utf-8")
        images.f1(self.scratch / "layout")
        done = self.run_demo(f"--policy={policy}", "oci:layout:t")
        self.assertEqual(done.returncode, 1)
        first = r"container-image-proxy: ERROR: .*\n"
        self.assertRegex(done.stderr, rf"\A{first}.*--policy FILE or --insecure-policy\n\Z")

    def test_an_image_that_does_not_open_is_told_of_once(self) -> None:
        done = self.run_demo("--insecure-policy", f"oci:{self.scratch}/none")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, r"\Acontainer-image-proxy: ERROR: oci:.*/none: no such file or directory\n\Z")

    def test_options_without_an_image_are_wrong_usage(self) -> None:
        done = self.run_demo("--insecure-policy", "--frobnicate")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertRegex(done.stderr, r"\Ademo\.py: expected IMAGE .*, found '--frobnicate'; see --help\n\Z")

    def test_asked_for_help_it_tells_how_it_is_called(self) -> None:
        done = self.run_demo("--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("demo.py [OPTIONS] IMAGE", done.stdout)

    def test_an_interrupt_is_silent_and_leaves_nothing(self) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as silent,
            subprocess.Popen(
                [
                    sys.executable,
                    DEMO,
                    "--insecure-policy",
                    "--tls-verify=false",
                    f"docker://127.0.0.1:{silent.getsockname()[1]}/a/b",
                ],
                cwd=self.scratch,
                env=clean_environment(self.scratch) | {"TMPDIR": str(self.scratch)},
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            ) as demo,
        ):
            silent.settimeout(PATIENCE)
            silent.accept()[0].close()  # now both wait for an answer
            os.killpg(demo.pid, signal.SIGINT)  # as a terminal does
            stdout, stderr = demo.communicate(timeout=PATIENCE)
        self.assertEqual((demo.returncode, stdout, stderr), (130, "", ""))
        self.assertEqual(list(self.scratch.iterdir()), [])

    def test_a_damaged_layer_is_never_ok(self) -> None:
        for size, reason in ((100, "content-mismatch"), (images.BIG_SIZE, r"found sha256:.*\ncontent-mismatch: ")):
            layout = self.scratch / f"{size}"
            images.bad(layout, size=size)
            with self.subTest(size=size):
                done = self.run_demo("--insecure-policy", f"oci:{layout}:t")
                self.assertEqual(done.returncode, 1)
                self.assertNotIn("ok\n", done.stdout)
                self.assertRegex(done.stderr, reason)
                self.assertNotIn("Traceback", done.stderr)

    def test_names_that_a_terminal_would_obey_are_escaped(self) -> None:
        layer = images.tar([images.Member(b"a\x1b[2Jb"), images.Member(b"c\nok")])
        layout = images.Layout(self.scratch / "layout")
        layout.add_image(images.CONFIG_C, [layer], images.manifest(images.CONFIG_C, [layer]), name="t")
        done = self.run_demo("--insecure-policy", "oci:layout:t")
        self.assertEqual(done.stdout.splitlines()[-3:], ["    'a\\x1b[2Jb'", "    'c\\nok'", "ok"])

    def test_a_wrong_option_ends_without_a_traceback(self) -> None:
        done = self.run_demo("--nope", "oci:layout:t")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "unknown option '--nope'(.|\n)*the proxy ended with exit status 2")
        self.assertNotIn("Traceback", done.stderr)

    def test_a_terminal_gets_a_progress_bar(self) -> None:
        images.big(self.scratch / "big")
        ours, theirs = pty.openpty()
        try:
            done = subprocess.run(
                [sys.executable, DEMO, "--insecure-policy", "oci:big:t"],
                cwd=self.scratch,
                stderr=theirs,
                stdout=subprocess.PIPE,
                timeout=PATIENCE,
                env=clean_environment(self.scratch),
                check=True,
            )
            os.close(theirs)
            shown = os.read(ours, 1 << 16)
        finally:
            os.close(ours)
        self.assertTrue(done.stdout.endswith(b"ok\n"))
        self.assertRegex(shown, rb"\r#{10} {20} 1\.\d of 2\.9 MiB")
        self.assertTrue(shown.endswith(b"\r\x1b[K"))


if __name__ == "__main__":
    unittest.main()

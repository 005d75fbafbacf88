# SPDX-License-Identifier: Apache-2.0
"""Each completion in its own shell: what Tab offers for the beginnings that people type."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import BinaryIO

from tests.support.peers import require_peer

NO_FILES = {"bash": "--norc", "fish": "--no-config"}  # nothing of whoever runs this
MAN = Path(__file__).resolve().parents[2] / "cip" / "man"

# `compopt` works inside a real completion alone; which options were set is no part of the offer
BASH = """
source "$1"; shift
compopt() { :; }
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_container_image_proxy
printf '%s\\n' "${COMPREPLY[@]}"
"""
# An interactive zsh shows its line between two marks after Tab, by a key that only this test has.
ZSHRC = """
fpath=("$ZDOTDIR" $fpath)
autoload -Uz compinit
compinit -u -d "$ZDOTDIR/dump"
show() { print -r -- "<<$BUFFER>>" > "$ZDOTDIR/line"; exit 0 }
zle -N show
bindkey '^X' show
: > "$ZDOTDIR/ready"
"""


class CompletionCase(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = Path(scratch.name)
        (self.directory / "policy.json").touch()
        (self.directory / "certs").mkdir()

    def run_in(self, shell: str, script: str, *arguments: str) -> set[str]:
        done = subprocess.run(
            [require_peer(shell), NO_FILES[shell], "-c", script, *arguments],
            check=True,
            capture_output=True,
            text=True,
            cwd=self.directory,
            timeout=60,
            stdin=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "HOME": str(self.directory), "TERM": "dumb", "LC_ALL": "C.UTF-8"},
        )
        return {line.split("\t")[0].strip() for line in done.stdout.splitlines()}


class Bash(CompletionCase):
    def offers(self, *words: str) -> set[str]:
        completion = str(MAN / "container-image-proxy.bash")
        return self.run_in("bash", BASH, "bash", completion, "container-image-proxy", *words)

    def test_options_values_and_images(self) -> None:
        self.assertEqual(self.offers("--pol"), {"--policy"})
        self.assertEqual(self.offers("--policy", "=", "pol"), {"policy.json"})
        self.assertEqual(self.offers("--policy", "pol"), {"policy.json"})
        self.assertEqual(self.offers("--cert-dir", "=", ""), {"certs"})
        self.assertEqual(self.offers("--sandbox", "=", "a"), {"auto"})
        self.assertEqual(self.offers("--tls-verify", "=", ""), {"true", "false"})
        self.assertEqual(self.offers("--tls-verify", "docker"), {"docker://", "docker-archive:", "docker-daemon:"})
        self.assertEqual(self.offers("ex"), {"explain", "experimental-image-proxy"})
        self.assertEqual(self.offers("oci", ":", "c"), {"certs"})
        self.assertEqual(self.offers("docker", ":"), {"//"})


class Fish(CompletionCase):
    def offers(self, line: str) -> set[str]:
        script = f"source {MAN / 'container-image-proxy.fish'}; complete -C 'container-image-proxy {line}'"
        return self.run_in("fish", script)

    def test_options_values_and_images(self) -> None:
        # fish 4 offers what has the word inside as well
        self.assertEqual({each for each in self.offers("--pol") if each.startswith("--pol")}, {"--policy"})
        self.assertEqual(self.offers("--policy=pol"), {"--policy=policy.json"})
        self.assertEqual(self.offers("--policy pol"), {"policy.json"})
        self.assertEqual(self.offers("--cert-dir ce"), {"certs/"})
        self.assertEqual(self.offers("--sandbox a"), {"auto"})
        self.assertEqual(self.offers("docker"), {"docker://", "docker-archive:", "docker-daemon:"})
        self.assertEqual(self.offers("oci:ce"), {"oci:certs/"})
        self.assertIn("explain", self.offers("ex"))
        self.assertNotIn("explain", self.offers("explain ex"))


class Zsh(CompletionCase):
    def completed(self, line: str) -> str:
        """The line after one Tab behind it."""
        home = self.directory / "zsh"
        home.mkdir(exist_ok=True)
        (home / ".zshrc").write_text(ZSHRC)
        (home / "_container-image-proxy").write_bytes((MAN / "container-image-proxy.zsh").read_bytes())
        ours, theirs = pty.openpty()
        with (
            open(ours, "r+b", 0) as terminal,
            subprocess.Popen(
                [require_peer("zsh"), "-i"],
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                cwd=self.directory,
                env={"PATH": os.environ["PATH"], "ZDOTDIR": str(home), "TERM": "dumb", "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            ) as shell,
        ):
            os.close(theirs)
            reader = threading.Thread(target=_read_all, args=(terminal,), daemon=True)
            reader.start()  # what it draws is nobody's business, but has to go somewhere
            deadline = time.monotonic() + 30
            while not (home / "ready").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            terminal.write(f"container-image-proxy {line}\t\x18".encode())
            shell.wait(30)
            reader.join(5)
        (home / "ready").unlink()
        found = re.fullmatch(r"<<container-image-proxy (.*?) ?>>\n", (home / "line").read_text())
        assert found is not None
        return found[1]

    def test_options_values_and_images(self) -> None:
        for line, expected in (
            ("--pol", "--policy="),
            ("--policy=pol", "--policy=policy.json"),
            ("--sandbox=a", "--sandbox=auto"),
            ("--cert-dir=ce", "--cert-dir=certs/"),
            ("tarb", "tarball:"),
            ("expl", "explain"),
            ("oci:ce", "oci:certs/"),
        ):
            with self.subTest(line):
                self.assertEqual(self.completed(line), expected)


def _read_all(terminal: BinaryIO) -> None:
    try:
        while terminal.read(4096):
            continue
    except OSError:  # EIO: the other side is closed
        pass


if __name__ == "__main__":
    unittest.main()

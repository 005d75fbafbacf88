# SPDX-License-Identifier: Apache-2.0
"""The unit in the manual page: systemd knows every line of it, and the program works under its restrictions."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from tests.integration.test_fetch import FetchCase
from tests.support import restricted
from tests.support.parent import ROOT
from tests.support.peers import clean_environment, require_peer

EXPOSURE = 15  # tenths; what systemd calls "OK" begins at 1 and ends at 5
PAGE = (ROOT / "cip" / "man" / "container-image-proxy.1").read_text(encoding="utf-8").replace("\\-", "-")
UNIT = PAGE.partition(".SH UNDER SYSTEMD")[2].partition(".EX\n")[2].partition(".EE\n")[0].replace("\\e", "\\")


def values(name: str) -> list[str]:
    """What the lines of this name give, in order."""
    return re.findall(rf"(?m)^{name}=(.*)$", UNIT)


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [require_peer("systemd-analyze"), *arguments], check=False, capture_output=True, text=True, cwd="/"
    )


def calls_of(name: str) -> set[str]:
    """The system calls of a set, with those of the sets in it; a call is a set of itself."""
    if not name.startswith("@"):
        return {name}
    done = analyze("syscall-filter", "--no-pager", name)
    assert done.returncode == 0, done.stderr
    members = [line.strip() for line in done.stdout.splitlines()[1:] if not line.strip().startswith("#")]
    return set().union(*(calls_of(member) for member in members if member))


def allowed_calls() -> set[str]:
    """What the lines SystemCallFilter leave, merged in their order."""
    allowed: set[str] = set()
    for line in values("SystemCallFilter"):
        named: set[str] = set().union(*(calls_of(name) for name in line.removeprefix("~").split()))
        allowed = allowed - named if line.startswith("~") else allowed | named
    return allowed


class Unit(unittest.TestCase):
    def setUp(self) -> None:
        self.unit = Path(self.enterContext(tempfile.TemporaryDirectory())) / "os-image@.service"
        self.unit.write_text(UNIT.replace("/usr/bin/container-image-proxy", "/bin/true"), encoding="utf-8")

    def test_systemd_knows_every_line(self) -> None:
        done = analyze("verify", "--man=no", str(self.unit))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([line for line in done.stderr.splitlines() if self.unit.name in line], [], done.stderr)

    def test_systemd_says_that_little_is_exposed(self) -> None:
        done = analyze("security", "--no-pager", "--offline=true", f"--threshold={EXPOSURE}", str(self.unit))
        self.assertRegex(done.stdout, r"Overall exposure level for os-image@\w*\.service: [01]\.\d OK")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class Restricted(FetchCase):
    def under(self, *writable: Path) -> tuple[str, ...]:
        """What makes a command run under the unit's restrictions."""
        families = values("RestrictAddressFamilies")[0].split()
        wanted = {"calls": sorted(allowed_calls()), "families": families, "writable": [str(path) for path in writable]}
        return ("unshare", "--mount", sys.executable, "-I", restricted.__file__, json.dumps(wanted))

    def test_an_image_is_judged_and_fetched_and_the_process_confines_itself_as_well(self) -> None:
        self.sign_in_lookaside()
        self.layout.mkdir()
        temporary = self.scratch / "tmp"
        temporary.mkdir()
        prefix = self.under(self.layout, temporary)
        options = ("--require-sandbox=write", f"--tmpdir={temporary}", "--log-level=info")
        said = self.fetch(*options, prefix=prefix)
        self.assertIn("1 signature", said)
        self.assertTrue(self.blob(self.content.layer).exists())

    def test_a_parent_and_the_proxy_that_it_starts_work_as_well(self) -> None:
        command = [*self.under(self.scratch), sys.executable, str(ROOT / "demo.py")]
        environment = clean_environment(self.scratch) | {"TMPDIR": str(self.scratch)}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(done.stdout.endswith("ok\n"))

    def test_the_restrictions_are_there(self) -> None:
        """Else the other test would show nothing."""
        tries = {
            "socket.socket(socket.AF_PACKET)": "PermissionError",
            "ctypes.CDLL(None).unshare(0x20000) and 1 / 0": "ZeroDivisionError",
            "os.nice(1)": "PermissionError",
            "mmap.mmap(-1, 4096, prot=7)": "PermissionError",
            f"open({str(self.scratch / 'new')!r}, 'w')": "OSError",
            f"open({str(self.layout / 'new')!r}, 'w')": "nothing",
        }
        self.layout.mkdir()
        for code, wanted in tries.items():
            text = f"import ctypes, mmap, os, socket\ntry:\n    {code}\n    print('nothing')\n"
            text += "except Exception as error:\n    print(type(error).__name__)\n"
            command = [*self.under(self.layout), sys.executable, "-I", "-c", text]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            with self.subTest(code):
                self.assertEqual((done.stdout, done.stderr), (f"{wanted}\n", ""))


if __name__ == "__main__":
    unittest.main()

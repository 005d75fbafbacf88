# SPDX-License-Identifier: Apache-2.0
"""Makes OpenPGP keys with the real gpg in a home directory of their own."""

import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from .peers import clean_environment, require_peer


class GpgHome:
    """A key ring of its own with the agent that belongs to it; a context manager that ends the agent.

    `directory` is what GNUPGHOME takes. It lies directly under the system's temporary directory, because the agent's
    socket lies in it and the path of a socket is at most 107 bytes long.
    """

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="gpg-")
        self.directory = Path(self._temporary.name)

    def gpg(self, *arguments: str, text: bytes = b"") -> bytes:
        """Run gpg in batch mode without passphrases and return its stdout. Raises AssertionError with its stderr."""
        command = [require_peer("gpg"), "--batch", "--pinentry-mode", "loopback", "--passphrase", "", *arguments]
        done = subprocess.run(command, check=False, input=text, capture_output=True, env=self.environment())
        if done.returncode != 0:
            problem = done.stderr.decode(errors="replace")
            raise AssertionError(f"{' '.join(command)}: exit status {done.returncode}\n{problem}")
        return done.stdout

    def environment(self) -> dict[str, str]:
        """The environment in which gpg and whoever starts it use this key ring."""
        return clean_environment(self.directory) | {"GNUPGHOME": str(self.directory)}

    def new_key(self, user: str, *, algorithm: str = "rsa2048", usage: str = "sign", expires: str = "never") -> str:
        """Make a primary key and return its fingerprint in upper-case hex."""
        before = self._fingerprints()
        self.gpg("--quick-generate-key", user, algorithm, usage, expires)
        (fresh,) = set(self._fingerprints()) - set(before)
        return fresh

    def export(self, fingerprint: str, *, armor: bool = False) -> bytes:
        """The public key, binary unless `armor` is asked for."""
        return self.gpg(*(["--armor"] if armor else []), "--export", fingerprint)

    def sign(self, message: bytes, *fingerprints: str) -> bytes:
        """One signed message, as simple signing has it: a binary OpenPGP message with its text inside."""
        users = [word for fingerprint in fingerprints for word in ("--local-user", fingerprint)]
        return self.gpg(*users, "--sign", text=message)

    def _fingerprints(self) -> list[str]:
        """Of all primary keys; colon listing of gnupg's doc/DETAILS."""
        found = []
        primary = False
        for line in self.gpg("--list-keys", "--with-colons").decode().splitlines():
            fields = line.split(":")
            if fields[0] == "fpr" and primary:
                found.append(fields[9])
            primary = fields[0] == "pub"
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the agent of this key ring and remove the directory."""
        command = ["gpgconf", "--homedir", str(self.directory), "--kill", "all"]
        subprocess.run(command, check=False, capture_output=True, env=self.environment())
        self._temporary.cleanup()

# SPDX-License-Identifier: Apache-2.0
"""OpenPGP keys and simple signatures, made by the real gpg in a home directory of their own."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from cip.errors import ConfigurationError
from cip.model.digest import digest_of
from cip.model.identity import ImageIdentity, docker_identity, nameless_identity
from cip.model.reference import Transport, parse_docker_reference
from cip.model.signature import RawSignature
from cip.trust.evaluation import TrustTools, UnverifiedImage
from cip.trust.requirements import GpgvOutcome

from .peers import require_peer

NOW = 1_800_000_000.0  # seconds; "now" of tests that need none in particular
MANIFEST = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}'
DIGEST = str(digest_of(MANIFEST))
OTHER_DIGEST = "sha256:" + "0" * 64
REFERENCE = "example.com/ns/r:v1"
_GPG_SECONDS = 60


def docker(reference: str) -> ImageIdentity:
    """The identity of `docker://reference`."""
    return docker_identity(Transport.DOCKER, parse_docker_reference(reference).tagged())


NAMELESS = nameless_identity(Transport.OCI)


def unverified(
    *signatures: RawSignature,
    identity: ImageIdentity | None = None,
    manifest: bytes = MANIFEST,
    looked_for: Callable[[], Sequence[str]] | None = None,
) -> UnverifiedImage:
    """An image with these signatures, named `REFERENCE` unless told otherwise."""
    return UnverifiedImage(identity or docker(REFERENCE), manifest, lambda: signatures, looked_for)


def payload(
    reference: str = REFERENCE, digest: str = DIGEST, *, kind: str = "atomic container signature", **changes: Any
) -> bytes:
    """A signed statement; `changes` replaces `critical` or `optional`."""
    critical = {
        "type": kind,
        "image": {"docker-manifest-digest": digest},
        "identity": {"docker-reference": reference},
    }
    document = {"critical": critical, "optional": {"creator": "tests", "timestamp": 1700000000}, **changes}
    return json.dumps(document).encode()


def tools(
    files: Mapping[str, bytes] | None = None,
    *,
    gpgv: Callable[[bytes, bytes], GpgvOutcome] | None = None,
    now: float = NOW,
) -> TrustTools:
    """Trust tools over files in memory; without `gpgv` running it is a fault of the test."""
    known = files or {}

    def read_file(path: str) -> bytes:
        if path not in known:
            raise ConfigurationError(path, "no such file")
        return known[path]

    def no_gpgv(ring: bytes, message: bytes) -> GpgvOutcome:
        raise AssertionError("gpgv was run")

    return TrustTools(read_file, gpgv or no_gpgv, lambda: now)


class KeyOptions(NamedTuple):
    """How a key is made: gpg's algorithm, usage and expiry; `time` is a faked clock (`20200601T000000`)."""

    algorithm: str = "ed25519"
    usage: str = "sign"
    expiry: str = "never"
    time: str = ""


class GpgHome:
    """A gpg home directory with keys; a context manager that stops its agent and removes it."""

    def __init__(self) -> None:
        self._gpg = require_peer("gpg")
        self._path = Path(tempfile.mkdtemp(prefix="cip-gpg-"))
        (self._path / "gpg-agent.conf").write_text("disable-scdaemon\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the agent of this home, and only that, and remove the directory."""
        stop = ["gpgconf", "--homedir", str(self._path), "--kill", "all"]
        subprocess.run(stop, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, timeout=_GPG_SECONDS)
        shutil.rmtree(self._path, ignore_errors=True)

    @property
    def path(self) -> Path:
        """For GNUPGHOME of other programs."""
        return self._path

    def run(self, *arguments: str, text: bytes = b"", time: str = "") -> bytes:
        """Standard output of gpg. Raises AssertionError with what it said when it fails."""
        command = [self._gpg, "--homedir", str(self._path), "--batch", "--yes", "--no-tty", "--quiet"]
        command += ["--pinentry-mode", "loopback", "--passphrase", "", "--trust-model", "always"]
        command += ["--no-auto-key-locate", "--no-auto-key-retrieve"]
        command += [f"--faked-system-time={time}!"] if time else []
        done = subprocess.run(
            [*command, *arguments],
            input=text,
            capture_output=True,
            check=False,
            timeout=_GPG_SECONDS,
            env={**os.environ, "LC_ALL": "C", "GNUPGHOME": str(self._path)},
        )
        if done.returncode:
            raise AssertionError(f"gpg {' '.join(arguments)}: {done.stderr.decode('utf-8', 'replace')}")
        return done.stdout

    def create_key(self, name: str, options: KeyOptions | None = None) -> str:
        """A new key with a user id; its fingerprint."""
        chosen = options or KeyOptions()
        user = f"{name} <{name}@example.com>"
        self.run("--quick-generate-key", user, chosen.algorithm, chosen.usage, chosen.expiry, time=chosen.time)
        return self.fingerprints(f"<{name}@example.com>")[0]

    def add_subkey(self, key: str, options: KeyOptions | None = None) -> str:
        """A new subkey of `key`; its fingerprint."""
        chosen = options or KeyOptions()
        self.run("--quick-add-key", key, chosen.algorithm, chosen.usage, chosen.expiry, time=chosen.time)
        return self.fingerprints(key)[-1]

    def fingerprints(self, name: str) -> list[str]:
        """Those of the primary key and its subkeys, in this order."""
        listing = self.run("--with-colons", "--with-subkey-fingerprint", "--list-keys", name).decode()
        return re.findall(r"^fpr:+([0-9A-F]{40}):$", listing, re.MULTILINE)

    def export(self, *keys: str, armor: bool = False) -> bytes:
        """The public keys."""
        return self.run(*["--armor"] * armor, "--export", *keys)

    def revoke(self, key: str) -> None:
        """Revoke the primary key `key` in this home."""
        certificate = (self._path / "openpgp-revocs.d" / f"{key}.rev").read_text()
        self.run("--import", text=certificate.replace("\n:-----BEGIN", "\n-----BEGIN").encode())

    def revoke_subkey(self, key: str, position: int = 1) -> None:
        """Revoke a subkey of `key`, counted from 1."""
        commands = f"key {position}\nrevkey\ny\n0\n\ny\nsave\n"
        self.run("--command-fd", "0", "--expert", "--edit-key", key, text=commands.encode())

    def sign(self, text: bytes, *keys: str, options: Sequence[str] = (), time: str = "", mode: str = "--sign") -> bytes:
        """A signed message, by default with its text inside and compressed. A subkey is named with `!` behind it."""
        users = [word for key in keys for word in ("--local-user", key)]
        return self.run(*options, *users, mode, text=text, time=time)

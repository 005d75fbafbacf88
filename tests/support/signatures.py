# SPDX-License-Identifier: Apache-2.0
"""OpenPGP keys and simple signatures, made by the real gpg in a home directory of their own."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cip.errors import ConfigurationError
from cip.model.descriptor import digest_of
from cip.model.reference import ImageIdentity, Transport, docker_identity, nameless_identity, parse_docker_reference
from cip.trust.policy import GpgvOutcome, TrustTools, UnverifiedImage

from . import openpgp

if TYPE_CHECKING:
    from cip.model.signature import RawSignature

NOW = 1_800_000_000.0  # seconds; "now" of tests that need none in particular
MANIFEST = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}'
DIGEST = str(digest_of(MANIFEST))
OTHER_DIGEST = "sha256:" + "0" * 64
REFERENCE = "example.com/ns/r:v1"


def docker(reference: str) -> ImageIdentity:
    """The identity of `docker://reference`."""
    return docker_identity(Transport.DOCKER, parse_docker_reference(reference).tagged())


NAMELESS = nameless_identity(Transport.OCI)


def unverified(
    *signatures: "RawSignature",
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
    critical = {"type": kind, "image": {"docker-manifest-digest": digest}, "identity": {"docker-reference": reference}}
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


class GpgHome(openpgp.GpgHome):
    """A key ring whose keys and signatures may be made at another time, expire and be revoked."""

    def run(self, *arguments: str, text: bytes = b"", time: str = "") -> bytes:
        """Standard output of gpg at the faked clock `time`. Raises AssertionError with what it said when it fails."""
        clock = [f"--faked-system-time={time}!"] if time else []
        return self.gpg("--yes", "--no-tty", "--quiet", "--trust-model", "always", *clock, *arguments, text=text)

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

    def export_all(self, *keys: str, armor: bool = False) -> bytes:
        """The public keys of `keys`, or all there are."""
        return self.run(*["--armor"] * armor, "--export", *keys)

    def revoke(self, key: str) -> None:
        """Revoke the primary key `key` in this home."""
        certificate = (self.directory / "openpgp-revocs.d" / f"{key}.rev").read_text()
        self.run("--import", text=certificate.replace("\n:-----BEGIN", "\n-----BEGIN").encode())

    def revoke_subkey(self, key: str, position: int = 1) -> None:
        """Revoke a subkey of `key`, counted from 1."""
        commands = f"key {position}\nrevkey\ny\n0\n\ny\nsave\n"
        self.run("--command-fd", "0", "--expert", "--edit-key", key, text=commands.encode())

    def sign_as(
        self, text: bytes, *keys: str, options: Sequence[str] = (), time: str = "", mode: str = "--sign"
    ) -> bytes:
        """A signed message, by default with its text inside and compressed. A subkey is named with `!` behind it."""
        users = [word for key in keys for word in ("--local-user", key)]
        return self.run(*options, *users, mode, text=text, time=time)

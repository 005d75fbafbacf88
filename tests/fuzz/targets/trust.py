# SPDX-License-Identifier: Apache-2.0
"""Targets of trust: the policy, what signatures claim, keys and certificates."""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from cip.errors import CipError
from cip.model.reference import Transport, docker_identity, parse_docker_reference
from cip.trust.evaluation import select_requirements
from cip.trust.openpgp.keyring import KeyRing, merge_key_rings
from cip.trust.openpgp.simplesigning import verify_message
from cip.trust.policy import parse_policy
from cip.trust.signed.matching import MatchRepoDigestOrExact
from cip.trust.signed.payload import SIGSTORE_TYPE, SIMPLE_SIGNING_TYPE, parse_payload, require_claims_about
from cip.trust.signed.requirement import VerificationRecord
from cip.trust.sigstore.certificates import require_email, require_hostname, require_oidc_issuer, require_path
from cip.trust.sigstore.keys import PublicKey, load_certificate, load_public_key
from cip.trust.sigstore.logs import read_log_entry

from ..engine import Target
from ..mutation import mutate_der, mutate_json

_NOW = 1_800_000_000.0  # seconds since 1970
_REFERENCE = parse_docker_reference("registry.example.com/ns/repo:v1")
_FINGERPRINT = "0123456789ABCDEF0123456789ABCDEF01234567"
_GPGV_WORDS = tuple(
    f"[GNUPG:] {word}\n".encode()
    for word in (
        "NEWSIG",
        "GOODSIG 0123456789ABCDEF x",
        f"VALIDSIG {_FINGERPRINT} 2020-01-01 1 0 4 0 1 8 00 {_FINGERPRINT}",
        "BADSIG x",
        "EXPSIG x",
        "EXPKEYSIG x",
        "REVKEYSIG x",
        "ERRSIG x 1 8 00 1 9 x",
        "NO_PUBKEY x",
        "FAILURE x 1",
        "PLAINTEXT 62 0 x",
        "KEY_CONSIDERED x 0",
    )
)


def _policy(data: bytes) -> None:
    """policy.json; one that was accepted judges every name by at least one requirement."""
    policy = parse_policy(data, "/policy.json")
    for transport in Transport:
        assert select_requirements(policy, docker_identity(transport, _REFERENCE))[1]


def _payload(data: bytes) -> None:
    """The signed statement of both families, and whether it is about an image."""
    for expected in (SIMPLE_SIGNING_TYPE, SIGSTORE_TYPE):
        try:
            claims = parse_payload(data, expected)
            require_claims_about(claims, b"{}", docker_identity(Transport.DOCKER, _REFERENCE), MatchRepoDigestOrExact())
        except CipError:
            if expected == SIGSTORE_TYPE:
                raise


def _key_ring(data: bytes) -> None:
    """Key files for gpgv: the ring holds the keys that it names."""
    ring = merge_key_rings([("key", data)])
    assert ring.packets and all(len(fingerprint) == 40 for fingerprint in ring.fingerprints)


class _Gpgv(NamedTuple):
    """What gpgv said."""

    status: int
    status_lines: bytes
    output: bytes


def _gpgv(data: bytes) -> None:
    """The status lines of gpgv, parts of which a signature chooses: accepted only for the one key."""
    ring = KeyRing(b"", frozenset((_FINGERPRINT,)))
    verify_message(b"\x90", ring, lambda packets, message: _Gpgv(0, data, b"text"), VerificationRecord("x", "simple"))
    words = [line.split(b" ") for line in data.split(b"\n")]
    valid = [line for line in words if line[1:2] == [b"VALIDSIG"]]
    assert [line[1:2] for line in words].count([b"GOODSIG"]) == 1
    assert len(valid) == 1 and _FINGERPRINT.encode() in valid[0]


def _public_key(data: bytes) -> None:
    """Public key files in PEM form."""
    key = load_public_key(data, "key")
    try:
        key.require_signed(b"0", b"message")
    except CipError:
        return
    raise AssertionError("a signature of one byte was accepted")


def _certificate(data: bytes) -> str:
    """Certificates and their extensions, alone and as their own issuer."""
    try:
        certificate = load_certificate(data)
    except ValueError as error:
        return str(error)  # which is what its callers expect of it
    checks: Sequence[Callable[[], object]] = (
        certificate.public_key,
        lambda: require_oidc_issuer(certificate, "https://accounts.example.com"),
        lambda: require_email(certificate, "signer@example.com"),
        lambda: require_hostname(certificate, "host.example.com"),
        lambda: require_hostname(certificate, "[fd00::1]"),
        lambda: require_path(certificate, [certificate], [certificate], _NOW, names_exempt=True),
        lambda: require_path(certificate, [], [certificate._replace(der=b"")], _NOW, names_exempt=False),
    )
    told = []
    for check in checks:
        try:
            check()
        except CipError as error:
            assert str(error).isprintable(), str(error)
            told.append(str(error)[:30])
    return " ".join(told)


class _AnyKey:
    """A key that every signature is by: what comes behind the check is read, too."""

    def require_signed(self, signature: bytes, message: bytes, hash_name: str = "sha256") -> None:
        """Accept."""


def _log_entry(data: bytes) -> None:
    """A Rekor bundle whose timestamp is good."""
    entry = read_log_entry(os.fsdecode(data), [cast(PublicKey, _AnyKey())])
    assert 0 < entry.time < 2**53


TARGETS = (
    Target("policy", _policy, (b'"type":"signedBy"', b'"type":"reject"', b'"keyPath":"/k"'), mutate_json),
    Target("payload", _payload, (b"atomic container signature", b"null"), mutate_json),
    Target("key-ring", _key_ring, (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n", b"=twTO", b"\xff", b"\x99")),
    Target("gpgv", _gpgv, _GPGV_WORDS),
    Target("public-key", _public_key, (b"-----BEGIN PUBLIC KEY-----\n", b"-----END PUBLIC KEY-----\n", b"RSA ")),
    Target("certificate", _certificate, (b"\x06\x0a\x2b\x06\x01\x04\x01\x83\xbf\x30\x01\x01",), mutate_der),
    Target("log-entry", _log_entry, (b'"Payload":', b'"integratedTime":1', b'"body":"'), mutate_json),
)

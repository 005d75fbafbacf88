# SPDX-License-Identifier: Apache-2.0
"""Which keys may sign bundles, with which hash, and what the field calls the combination (bundles.md 3.2, 3.6)."""

from __future__ import annotations

from collections.abc import Sequence

from ..sigstore.keys import PublicKey

RSA_MAXIMUM = 8192  # bits; RSA_MINIMUM is of `keys`
_LEAST_EXPONENT, _EXPONENT_LIMIT = 65537, 2**32
_CURVE_HASHES = {"secp256r1": "sha256", "secp384r1": "sha384", "secp521r1": "sha512"}
# kind, parameter and hash → keyDetails; the last two only for keys of a policy
_KEY_DETAILS = {
    ("ecdsa", "secp256r1", "sha256"): "PKIX_ECDSA_P256_SHA_256",
    ("ecdsa", "secp384r1", "sha384"): "PKIX_ECDSA_P384_SHA_384",
    ("ecdsa", "secp521r1", "sha512"): "PKIX_ECDSA_P521_SHA_512",
    ("rsa", "2048", "sha256"): "PKIX_RSA_PKCS1V15_2048_SHA256",
    ("rsa", "3072", "sha256"): "PKIX_RSA_PKCS1V15_3072_SHA256",
    ("rsa", "4096", "sha256"): "PKIX_RSA_PKCS1V15_4096_SHA256",
    ("ecdsa", "secp384r1", "sha256"): "PKIX_ECDSA_P384_SHA_256",
    ("ecdsa", "secp521r1", "sha256"): "PKIX_ECDSA_P521_SHA_256",
}
LOG_KEY_DETAILS = {
    "PKIX_ED25519": ("ed25519", ""),
    **{name: key[:2] for key, name in _KEY_DETAILS.items() if key[2] == _CURVE_HASHES.get(key[1], "sha256")},
}


def require_profile(key: PublicKey) -> None:
    """Return only if `key` may sign bundles. Raises ValueError saying what is wrong."""
    if key.kind == "ecdsa" and key.parameter not in _CURVE_HASHES:
        raise ValueError(f"curve {key.parameter}, expected one of {', '.join(_CURVE_HASHES)}")
    if key.kind == "rsa":
        if int(key.parameter) > RSA_MAXIMUM:
            raise ValueError(f"an RSA key of {key.parameter} bits, expected at most {RSA_MAXIMUM}")
        if not _LEAST_EXPONENT <= key.exponent < _EXPONENT_LIMIT or key.exponent % 2 == 0:
            raise ValueError(f"an RSA key with exponent {key.exponent}, expected an odd one from {_LEAST_EXPONENT} on")


def own_hash(key: PublicKey) -> str:
    """The hash that belongs to `key`; empty for Ed25519, which signs the message itself."""
    return "" if key.kind == "ed25519" else _CURVE_HASHES.get(key.parameter, "sha256")


def hashes_of_policy_key(key: PublicKey) -> Sequence[str]:
    """The hashes that a key of the policy may sign with: older signers take SHA-256 for every curve."""
    return tuple(dict.fromkeys((own_hash(key), "sha256"))) if key.kind == "ecdsa" else (own_hash(key),)


def key_details(key: PublicKey, hash_name: str) -> str | None:
    """What logs of version 2 call a signature by `key` with this hash; None for one that they do not take."""
    return _KEY_DETAILS.get((key.kind, key.parameter, hash_name))

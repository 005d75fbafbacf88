# SPDX-License-Identifier: Apache-2.0
"""The order of steps in which a bundle is believed (bundles.md 3.1, V2 to V11).

Each step returns or raises SignatureError, whose reason is the class of that step; the first that fails is told. No
step looks at a clock: times come from logs and timestamp authorities, and everything is judged at each of them.
Whoever wants a bundle accepted also needs the rule about names (bundles.md V12), which is the policy's.
"""

from __future__ import annotations

from typing import NamedTuple, NoReturn

from ...errors import SignatureError
from ..requirements import Examination
from ..sigstore.certificates import CertificateIdentity
from ..sigstore.keys import PublicKey
from .algorithms import hashes_of_policy_key, require_profile
from .bundle import Bundle, Envelope, MessageSignature
from .statement import parse_statement, pre_authentication_encoding, require_subject
from .trustedroot import TrustedRoot


class BundleTrust(NamedTuple):
    """What a policy asks of a bundle, with all files loaded: a signature by one of `keys`, or by `identity`.

    `log_keys` are bare keys of logs (rekorPublicKey…), which go without `root`. `log_entries` counts different logs,
    `timestamps` different authorities; with keys and zero for both, entries and time stamps are not looked at.
    """

    keys: tuple[PublicKey, ...] = ()
    identity: CertificateIdentity | None = None
    root: TrustedRoot | None = None
    log_keys: tuple[PublicKey, ...] = ()
    log_entries: int = 0
    timestamps: int = 0


def require_bundle_about(bundle: Bundle, trust: BundleTrust, manifest: bytes, examination: Examination) -> None:
    """Return only if a signer of `trust` signed that these bytes are an image (V2 to V11).

    Fills in key or certificate, claims, log and times of `examination` as they are proven; the caller has put the
    bundle's record there. A bundle whose `predicate` is there and is not SIGNING_PREDICATE is another attachment: not
    to be handed in, but to be counted. Raises SignatureError (`bundle`, `keycfg`, `untrusted`, `time`, `rekor`,
    `certid`, `crypto`, `payload`, `digest`) and MissingDependencyError.
    """
    if bundle.version != "0.3":
        _refuse("bundle", f"a bundle of version {bundle.version}, expected 0.3 for an image")
    require_signed(bundle, trust, manifest, examination)
    if isinstance(bundle.content, MessageSignature):
        _refuse("payload", "a plain signature over the manifest, expected a signing statement")
    statement = parse_statement(bundle.content.payload_type, bundle.content.payload)
    examination.claims = {"digest": statement.digest, "predicate": statement.predicate, "reference": ""}
    require_subject(statement, manifest)


def require_signed(bundle: Bundle, trust: BundleTrust, content: bytes, examination: Examination) -> None:
    """Return only if a signer of `trust` made the signature (V2 to V9).

    A message signature must be over `content`; for an envelope the caller has still to read what it says.
    """
    message = _signed_message(bundle, content)
    if trust.identity is not None:
        _refuse("bundle", "signed with a public key, expected a certificate")
    if bundle.certificate is not None:
        _refuse("bundle", "signed with a certificate, expected one of the policy's keys")
    key = _signing_key(bundle, trust, message)
    if trust.log_entries or trust.timestamps:
        _refuse("rekor", "log entries cannot be verified")
    examination.key = key.fingerprint


def _signed_message(bundle: Bundle, content: bytes) -> bytes:
    if isinstance(bundle.content, Envelope):
        return pre_authentication_encoding(bundle.content.payload_type, bundle.content.payload)
    return content


def _signing_key(bundle: Bundle, trust: BundleTrust, message: bytes) -> PublicKey:
    for key in trust.keys:
        try:
            require_profile(key)
        except ValueError as error:
            raise SignatureError(f"key {key.fingerprint}: {error}", reason="keycfg") from error
    for key in trust.keys:
        for hash_name in hashes_of_policy_key(key):
            try:
                key.require_signed(bundle.content.signature, message, hash_name)
            except SignatureError:
                continue
            return key
    _refuse("crypto", "not by the expected key")


def _refuse(reason: str, why: str) -> NoReturn:
    raise SignatureError(why, reason=reason)

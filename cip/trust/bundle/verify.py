# SPDX-License-Identifier: Apache-2.0
"""The order of steps in which a bundle is believed (bundles.md 3.1, V2 to V11).

Each step returns or raises SignatureError, whose reason is the class of that step; the first that fails is told. No
step looks at a clock: times come from logs and timestamp authorities, and everything is judged at each of them.
Whoever wants a bundle accepted also needs the rule about names (bundles.md V12), which is the policy's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from ...errors import SignatureError, quote
from ...model.referrers import SIGNING_PREDICATE
from ..signed.requirement import VerificationRecord
from ..sigstore.certificates import CODE_SIGNING, CertificateIdentity, require_identity, require_path
from ..sigstore.keys import Certificate, PublicKey, load_certificate
from .algorithms import hashes_of_policy_key, own_hash, require_profile
from .body import Signed
from .bundle import Bundle, Envelope, MessageSignature
from .sct import require_logged_certificate
from .statement import parse_statement, pre_authentication_encoding, require_subject
from .timestamp import VerifiedTime, verified_time
from .tlog import VerifiedEntry, bare_log, shown_origin, verified_entries
from .trustedroot import TrustedRoot, require_one_window

_Text = tuple[bytes, bytes | None]  # what is signed; what the envelope holds, None for a file


class BundleTrust(NamedTuple):
    """What a policy asks of a bundle, with all files loaded: a signature by one of `keys`, or by `identity`.

    `log_keys` are bare keys of logs (rekorPublicKey…), which go without `root`. `log_entries` counts different logs,
    `timestamps` different authorities; with zero for both, entries and time stamps of a bundle by a key are not looked
    at, and a certificate must be in one log.
    """

    keys: tuple[PublicKey, ...] = ()
    identity: CertificateIdentity | None = None
    root: TrustedRoot | None = None
    log_keys: tuple[PublicKey, ...] = ()
    log_entries: int = 0
    timestamps: int = 0


def require_bundle_about(bundle: Bundle, trust: BundleTrust, manifest: bytes, verification: VerificationRecord) -> None:
    """Return only if a signer of `trust` signed that these bytes are an image (V2 to V11).

    Fills in key or certificate, claims, log and times of `verification` as they are proven; the caller has put the
    bundle's record there. A bundle whose `predicate` is there and is not SIGNING_PREDICATE is another attachment: not
    to be handed in, but to be counted. Raises SignatureError (`bundle`, `keycfg`, `untrusted`, `time`, `rekor`,
    `certid`, `crypto`, `payload`, `digest`) and MissingDependencyError.
    """
    if bundle.version != "0.3":
        _refuse("bundle", f"a bundle of version {bundle.version}, expected 0.3 for an image")
    require_signed(bundle, trust, manifest, verification)
    if isinstance(bundle.content, MessageSignature):
        _refuse("payload", "a plain signature over the manifest, expected a signing statement")
    statement = parse_statement(bundle.content.payload_type, bundle.content.payload)
    verification.claims = {"digest": statement.digest, "predicate": SIGNING_PREDICATE, "reference": ""}
    require_subject(statement, manifest)


def require_signed(bundle: Bundle, trust: BundleTrust, content: bytes, verification: VerificationRecord) -> None:
    """Return only if a signer of `trust` made the signature (V2 to V9).

    A message signature must be over `content`; for an envelope the caller has still to read what it says.
    """
    text: _Text = content, None
    if isinstance(bundle.content, Envelope):
        payload = bundle.content.payload
        text = pre_authentication_encoding(bundle.content.payload_type, payload), payload
    if trust.identity is None:
        signed = _signed_by_key(bundle, trust, text)
        if trust.log_entries or trust.timestamps:
            _require_logged(bundle, trust, signed, verification)
        verification.key = signed.key.fingerprint
    else:
        _require_signed_by_identity(bundle, trust, trust.identity, text, verification)
    if isinstance(bundle.content, MessageSignature) and bundle.content.hash_name:
        hinted = hashlib.new(bundle.content.hash_name, content).digest()
        if hinted != bundle.content.digest:  # it is only a hint, but not a false one
            _refuse("digest", "the digest in the bundle is of other content")


def _signed_by_key(bundle: Bundle, trust: BundleTrust, text: _Text) -> Signed:
    """The signature by one of the policy's keys (V2, V3, V9)."""
    if bundle.certificate is not None:
        _refuse("bundle", "signed with a certificate, expected one of the policy's keys")
    for key in trust.keys:
        try:
            require_profile(key)
        except ValueError as error:
            raise SignatureError(f"key {key.fingerprint}: {error}", reason="keycfg") from error
    signature = bundle.content.signature
    for key in trust.keys:
        for hash_name in hashes_of_policy_key(key):
            try:
                key.require_signed(signature, text[0], hash_name)
            except SignatureError:
                continue
            return Signed(*text, signature, key.spki, False, key, hash_name)
    _not_signed(any(key.kind == "ed25519" for key in trust.keys))


def _require_signed_by_identity(
    bundle: Bundle, trust: BundleTrust, identity: CertificateIdentity, text: _Text, verification: VerificationRecord
) -> None:
    """V2 to V9 for a certificate that lived for minutes: it counts only at the times that others vouch for."""
    if bundle.certificate is None:
        _refuse("bundle", "signed with a public key, expected a certificate")
    root = trust.root
    if root is None:
        _refuse(
            "keycfg",
            "no certificate logs are known, so the certificate cannot be checked: set sigstore-trusted-root in"
            " registries.d, or trustedRootPath in a file given with --policy",
        )
    leaf, chain = _loaded(bundle.certificate, "untrusted"), [_loaded(each, "bundle") for each in bundle.chain]
    if bundle.chain and any(each.subject == each.issuer for each in (leaf, *chain)):
        _refuse("bundle", "a self-signed certificate in the chain, expected it in the trusted root alone")
    key = leaf.public_key()
    try:
        require_profile(key)
    except ValueError as error:
        raise SignatureError(f"key of the certificate: {error}", reason="untrusted") from error
    signed = Signed(*text, bundle.content.signature, leaf.der, True, key, own_hash(key))
    if not trust.timestamps and not trust.log_entries:
        trust = trust._replace(log_entries=1)  # whoever says nothing about logs has not waived them
    times = _require_logged(bundle, trust, signed, verification)
    if not times:
        _refuse("time", "the log gives no time and the bundle has no time stamp: sign again with a timestamp authority")
    issuer = _issuer(leaf, chain, root, times)
    require_logged_certificate(leaf, issuer, root.ct_logs, root.name)
    require_identity(leaf, identity)
    build_signer = {"build_signer": identity.build_signer_uri} if identity.build_signer_uri else {}
    try:
        key.require_signed(signed.signature, signed.message, signed.hash_name)
    except SignatureError:
        _not_signed(key.kind == "ed25519")
    verification.certificate = {"issuer": identity.oidc_issuer, "subject": identity.subject, **build_signer}


def _loaded(der: bytes, reason: str) -> Certificate:
    try:
        return load_certificate(der)
    except ValueError as error:
        raise SignatureError(f"a certificate of the bundle: {error}", reason=reason) from error


def _require_logged(
    bundle: Bundle, trust: BundleTrust, signed: Signed, verification: VerificationRecord
) -> list[float]:
    """All verified times, if there are as many entries and time stamps as the policy wants (V4 to V6)."""
    root = trust.root or TrustedRoot("the policy", tuple(bare_log(key) for key in trust.log_keys), (), (), (), ())
    read = [verified_time(each, signed.signature, root.timestamp_authorities, root.name) for each in bundle.timestamps]
    stamps = [each for each in read if each is not None]
    entries = verified_entries(bundle.entries, signed, root.logs, root.name)
    if len({each.log.operator or each.log.key.spki for each in entries}) < trust.log_entries:
        _refuse("rekor", _unlogged(bundle, entries, trust, root.name))
    if len({each.authority.operator or each.authority.uri for each in stamps}) < trust.timestamps:
        _refuse("time", f"{_unstamped(bundle, stamps, root.name)}, expected {trust.timestamps}")
    times = [*(each.time for each in stamps), *(float(each.time) for each in entries if each.time is not None)]
    if not times and bundle.timestamps and signed.certified:
        _refuse("time", _unstamped(bundle, stamps, root.name))
    for entry in entries:
        if times and entry.time is None:
            # a log that gives no time is as good as any of the windows that its key is listed with
            windows = [log.window for log in root.logs if log.key.spki == entry.log.key.spki]
            require_one_window(windows, max(times), "the log", root.name)
    if verification.bundle is not None:
        verification.bundle = verification.bundle._replace(
            log=tuple(each.record() for each in entries),
            times=(
                *({"from": "tsa", "name": each.authority.uri, "time": int(each.time)} for each in stamps),
                *({"from": "log", "name": each.origin, "time": each.time} for each in entries if each.time is not None),
            ),
        )
    return times


def _unlogged(bundle: Bundle, entries: Sequence[VerifiedEntry], trust: BundleTrust, where: str) -> str:
    if entries:
        return f"logged by {len(entries)} entries of too few different logs, expected {trust.log_entries}"
    if not bundle.entries:
        return "the bundle has no log entry, and the policy wants one"
    entry = bundle.entries[0]
    return (
        f"the signature is logged in {shown_origin(entry)} (key id {entry.log_id[:4].hex()}), which {where} does not"
        " list; logs are renewed about once a year: put a newer trusted_root.json there"
    )


def _unstamped(bundle: Bundle, stamps: Sequence[VerifiedTime], where: str) -> str:
    if stamps or not bundle.timestamps:
        return f"{len(stamps)} time stamps, of too few different authorities"
    return (
        f"no time stamp by an authority that {where} lists; authorities are renewed every few years: put a newer"
        " trusted_root.json there"
    )


def _issuer(leaf: Certificate, chain: Sequence[Certificate], root: TrustedRoot, times: Sequence[float]) -> Certificate:
    """Who issued `leaf`, if one authority vouches for it at every time (bundles.md 3.8)."""
    if leaf.purposes is None or CODE_SIGNING not in leaf.purposes:
        _refuse("untrusted", "the certificate is not for code signing")
    if leaf.usages is None or "digital_signature" not in leaf.usages or leaf.is_authority:
        _refuse("untrusted", "the certificate is not for signatures, or is one of an authority")
    refusals: list[SignatureError] = []
    for authority in root.certificate_authorities:
        try:
            issuers = [
                require_path(leaf, [*authority.chain[:-1], *chain], authority.chain[-1:], time, names_exempt=True)
                for time in times
            ]
            for time in times:
                authority.window.require(time, "the certificate authority", root.name, "untrusted")
        except SignatureError as error:
            if any(each.subject == leaf.issuer for each in (*authority.chain, *chain)):
                refusals.append(error)
            continue
        return issuers[0]
    if refusals:
        raise refusals[0]
    _refuse("untrusted", f"certificate by {quote(leaf.issuer_name)}, which no authority in {root.name} vouches for")


def _not_signed(by_ed25519: bool) -> NoReturn:
    if by_ed25519:
        _refuse("crypto", "not by the expected key, or an Ed25519ph signature, which is not supported: use ECDSA P-256")
    _refuse("crypto", "the signature is not by the expected key")


def _refuse(reason: str, why: str) -> NoReturn:
    raise SignatureError(why, reason=reason)

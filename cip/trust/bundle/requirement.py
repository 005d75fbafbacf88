# SPDX-License-Identifier: Apache-2.0
"""What `sigstoreSigned` does with bundles: which are candidates, what they must prove, and the name that is not there.

A bundle names no repository, so none of the rules about names can be judged (bundles.md 4.3). It is accepted by its
digest alone only where the policy or registries.d says so, and the refusal that tells how comes last: a stranger's
bundle never advertises the switch.
"""

from __future__ import annotations

from collections.abc import Callable

from ... import log
from ...errors import SignatureError
from ...model.descriptor import digest_of
from ...model.referrers import SIGNING_PREDICATE
from ...model.signature import BundleRecord, BundleRules, FoundBundles, SigstoreBundle
from ..policy import Acceptance, TrustTools, UnverifiedImage, name_of
from ..signed.matching import IdentityMatcher, MatchDigest, kind_of
from ..signed.materials import Material
from ..signed.requirement import VerificationRecord, fetch_bundle_rules, told_to_each
from ..sigstore.signers import FulcioSource, KeySource, PkiSource, TrustSource, load_keys, load_log_keys
from .bundle import Bundle, Envelope, parse_bundle
from .trustedroot import TrustedRoot, parse_trusted_root
from .verify import BundleTrust, require_bundle_about

KIND = "sigstore-bundle"
BY_DIGEST = "by-digest"
Check = Callable[[VerificationRecord], Acceptance]


def candidates_among(
    found: FoundBundles, source: TrustSource, matcher: IdentityMatcher, image: UnverifiedImage, tools: TrustTools
) -> tuple[list[tuple[Check, VerificationRecord]], list[str]]:
    """The checks of those bundles that may be signatures, and the predicates of those that state something else.

    A check raises SignatureError, MissingDependencyError.
    """

    def load() -> tuple[BundleRules, BundleTrust]:
        rules = fetch_bundle_rules(image)
        return rules, load_trust(source, rules, tools)

    loaded = told_to_each(load)  # for the first bundle that could be read

    def check_of(bundle: Bundle | SignatureError) -> Check:
        def check(verification: VerificationRecord) -> Acceptance:
            if isinstance(bundle, SignatureError):
                raise bundle
            rules, trust = loaded()
            require_bundle_about(bundle, trust, image.manifest, verification)
            _require_identity(matcher, rules, verification)
            payload = bundle.content.payload if isinstance(bundle.content, Envelope) else b""
            return Acceptance(digest_of(image.manifest), name_of(image.identity), payload)

        return check

    checks: list[tuple[Check, VerificationRecord]] = []
    attestations = list(found.attestations)
    for each in found.bundles:
        bundle = _read(each)
        if isinstance(bundle, Bundle) and bundle.predicate not in ("", SIGNING_PREDICATE):
            attestations.append(bundle.predicate)
            continue
        verification = VerificationRecord(each.origin, KIND)
        verification.bundle = BundleRecord(each.digest)
        checks.append((check_of(bundle), verification))
    return checks, attestations


def _read(found: SigstoreBundle) -> Bundle | SignatureError:
    if found.fault:
        return SignatureError(f"{found.origin}: {found.fault}", reason="bundle")
    try:
        return parse_bundle(found.data, f"bundle {found.digest}")
    except SignatureError as error:
        return error


def _require_identity(matcher: IdentityMatcher, rules: BundleRules, verification: VerificationRecord) -> None:
    """V12: return only if the signed digest is enough."""
    assert verification.bundle is not None
    if isinstance(matcher, MatchDigest):
        verification.bundle = verification.bundle._replace(identity=kind_of(matcher))
    elif rules.by_digest:
        verification.bundle = verification.bundle._replace(identity=BY_DIGEST, identity_file=rules.identity_file)
    else:
        raise SignatureError(_name_is_missing(verification, matcher, rules), reason="identity")


def load_trust(source: TrustSource, rules: BundleRules, tools: TrustTools) -> BundleTrust:
    """The material that `source` and `rules` name. Raises SignatureError (`keycfg`, `bundle`), MissingDependencyError.

    A trusted root of registries.d takes the place of what the policy says about authorities and logs; it never adds a
    demand, so with keys it counts only where the policy names the key of a log (bundles.md 4.1).
    """
    if isinstance(source, PkiSource):
        raise SignatureError("pki works with attachments only", reason="bundle")
    identity = source.identity if isinstance(source, FulcioSource) else None
    log_keys, root, log_entries, timestamps = source.logging
    if root is None and rules.trusted_root and (identity is not None or log_keys):
        root = Material(f"sigstore-trusted-root {rules.trusted_root}", path=rules.trusted_root)
    if identity is not None and root is None:
        where = f' under "{rules.scope}" in {rules.identity_file}' if rules.scope else ""
        setting = f'"sigstore-trusted-root"{where}, or ' if rules.scope else ""
        raise SignatureError(
            "a certificate in a bundle is logged by its authority, and the policy names no key of such a log: set "
            f"{setting}trustedRootPath in a file given with --policy",
            reason="keycfg",
        )
    keys = tuple(load_keys(source.keys, tools)) if isinstance(source, KeySource) else ()
    loaded = _load_root(root, tools) if root is not None else None
    logs = tuple(load_log_keys(log_keys, tools)) if loaded is None else ()
    return BundleTrust(keys, identity, loaded, logs, log_entries if loaded or logs else 0, timestamps)


def _load_root(material: Material, tools: TrustTools) -> TrustedRoot:
    root = parse_trusted_root(material.load(tools.read_file), material.name)
    for sentence in root.unusable:
        log.warning("%s", sentence)
    return root


def _name_is_missing(verification: VerificationRecord, matcher: IdentityMatcher, rules: BundleRules) -> str:
    certificate = verification.certificate
    signer = f"{certificate['subject']} (a trusted identity)" if certificate else f"{verification.key} (a trusted key)"
    here = (
        f'set "sigstore-bundle-identity: {BY_DIGEST}" under "{rules.scope}" in {rules.identity_file}, or '
        if rules.scope
        else ""
    )
    return (
        f"signed by {signer}, but bundles name no repository, so {kind_of(matcher)} cannot be judged. To accept it by "
        f'digest alone {here}use {{"type": "matchDigest"}} in a file given with --policy'
    )

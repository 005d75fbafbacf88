# SPDX-License-Identifier: Apache-2.0
"""`signedBy`: OpenPGP signatures, verified by gpgv (signatures.md 4).

gpgv's exit status proves nothing: it is 0 for expired and revoked keys and for two signers, and it prints tampered
text. What counts is the exact set of its status lines; only then is the text that it took out of the message read.
"""

from __future__ import annotations

import re
from typing import NamedTuple, NoReturn

from ...errors import CipError, MissingDependencyError, PolicyRejectedError, SignatureError, quote
from ...model.jsontree import JsonNode
from ...model.signature import OPENPGP_FIRST, SignatureResult, SimpleSignature
from ..policy import Acceptance, RunGpgv, TrustTools, UnverifiedImage
from ..signed.matching import IdentityMatcher, parse_signed_identity
from ..signed.materials import Material, parse_materials
from ..signed.payload import SIMPLE_SIGNING_TYPE, accept_payload
from ..signed.requirement import VerificationRecord, fetch_signatures, no_signature, require_one_accepted
from .keyring import RSA_MINIMUM, KeyRing, merge_key_rings

_GPG_KEYS = "GPGKeys"
_KEY_TYPES = (_GPG_KEYS, "signedByGPGKeys", "X509Certificates", "signedByX509CAs")
_PREFIX = "[GNUPG:] "
_FINGERPRINT = re.compile(r"[0-9A-F]{40}")
_ONCE = ("NEWSIG", "GOODSIG", "VALIDSIG", "PLAINTEXT")
# What else may be said beside a good signature (GnuPG's doc/DETAILS); a word that is on no list refuses. KEYEXPIRED is
# said of any expired subkey beside the one that signed, and an expired signer is EXPKEYSIG.
_NOTATIONS = frozenset({"NOTATION_NAME", "NOTATION_FLAGS", "NOTATION_DATA", "POLICY_URL"})
_HARMLESS = _NOTATIONS | {"PLAINTEXT_LENGTH", "KEY_CONSIDERED", "SIG_ID", "VERIFICATION_COMPLIANCE_MODE", "KEYEXPIRED"}
_NO_PUBLIC_KEY = "9"  # GPG_ERR_NO_PUBKEY, the last but one argument of ERRSIG
# Each refuses wherever it stands; the order is that of the sentence worth telling.
_FATAL = {
    "the signature does not fit the text": ("BADSIG",),
    "the key is revoked": ("REVKEYSIG", "KEYREVOKED"),
    "the key has expired": ("EXPKEYSIG",),
    "the signature has expired": ("EXPSIG", "SIGEXPIRED"),
    "the signature cannot be checked": ("ERRSIG",),
    "a signer is unknown": ("NO_PUBKEY",),
    "not one signed message": ("UNEXPECTED", "NODATA", "ERROR"),
    "gpgv failed": ("FAILURE",),
    "not a binary message": ("BADARMOR",),
    "an encrypted message": ("DECRYPTION_FAILED", "BEGIN_DECRYPTION", "ENC_TO"),
}
_CLASS_BINARY = "00"  # RFC 4880 5.2.1; text mode and cleartext are D6
_WEAK_HASHES = {"1": "MD5", "2": "SHA-1", "3": "RIPEMD160"}  # RFC 4880 9.4; D7


class SignedBy(NamedTuple):
    """`signedBy`: one OpenPGP signature by a listed key, for this manifest under an acceptable name."""

    key_type: str
    keys: tuple[Material, ...]
    matcher: IdentityMatcher
    kind: str = "signedBy"
    verifies: bool = True

    def check(self, image: UnverifiedImage, tools: TrustTools, seen: list[SignatureResult]) -> Acceptance:
        """As `Requirement.check` says. Key files are read only for a signature to check (signatures.md C11)."""
        signatures = fetch_signatures(image)
        simple = [each for each in signatures if isinstance(each, SimpleSignature)]
        candidates = [(each, VerificationRecord(each.origin, "simple")) for each in simple]
        if not candidates:
            others = f", {len(signatures)} of another kind" if signatures else ""
            raise no_signature(image, "simple signature", others)
        if self.key_type != _GPG_KEYS:
            raise PolicyRejectedError(f"keyType {self.key_type} is not supported", reason="unimpl")
        try:
            ring = merge_key_rings((key.name, key.load(tools.read_file)) for key in self.keys)
        except SignatureError as error:
            seen.extend(verification.result(error) for _, verification in candidates)
            raise PolicyRejectedError(str(error), reason=error.reason) from error

        def verify(signature: SimpleSignature, verification: VerificationRecord) -> Acceptance:
            payload = verify_message(signature.message, ring, tools.run_gpgv, verification)
            return accept_payload(payload, SIMPLE_SIGNING_TYPE, image, self.matcher, verification)

        return require_one_accepted(candidates, verify, seen)


def parse_signed_by(node: JsonNode) -> SignedBy:
    """The requirement that `node` holds (signatures.md 2.2). Raises what `node` raises."""
    node.require_only(("type", "keyType", "keyPath", "keyPaths", "keyData", "signedIdentity"))
    key_type = node["keyType"].as_str()
    if key_type not in _KEY_TYPES:
        node["keyType"].fail(f"expected one of {', '.join(_KEY_TYPES)}, found {quote(key_type)}")
    keys = parse_materials(node, ("keyPath", "keyPaths", "keyData"), empty_allowed=True)
    if keys is None:
        node.fail("expected one of keyPath, keyPaths, keyData, found none")
    return SignedBy(key_type, keys, parse_signed_identity(node))


def verify_message(message: bytes, ring: KeyRing, run_gpgv: RunGpgv, verification: VerificationRecord) -> bytes:
    """The text of `message`, proven to be signed once, by a key of `ring` (signatures.md 4.5 steps 2 to 6).

    Raises SignatureError (`crypto`, `untrusted`; `dependency` when gpgv was killed), MissingDependencyError when there
    is no gpgv.
    """
    if not message or message[0] not in OPENPGP_FIRST:  # step 2: armor and cleartext are not for us (signatures.md D6)
        _refuse("not a signed binary OpenPGP message")
    text = _verified(message, ring.packets, ring, run_gpgv, verification)
    if ring.by_names and _verified(message, ring.by_names, ring, run_gpgv, verification) != text:
        _refuse("gpgv found two texts in it")
    return text


def _verified(
    message: bytes, packets: bytes, ring: KeyRing, run_gpgv: RunGpgv, verification: VerificationRecord
) -> bytes:
    """The text of `message`, signed by a key that is good in `packets`, which is `ring` or a part of it."""
    try:
        outcome = run_gpgv(packets, message)
    except MissingDependencyError:
        raise
    except CipError as error:  # it was killed, or could not be started: that says nothing about the signature
        raise SignatureError(str(error), reason="dependency") from error
    lines = _status_lines(outcome.status_lines)
    verification.key = _signer(lines)
    _require_one_good_signature(lines)
    if outcome.status != 0:
        _refuse(f"gpgv ended with status {outcome.status}")
    _require_trusted_signature(next(arguments for keyword, arguments in lines if keyword == "VALIDSIG"), ring)
    return outcome.output


_StatusLines = list[tuple[str, list[str]]]


def _status_lines(status: bytes) -> _StatusLines:
    """Keyword and arguments of each line (GnuPG's doc/DETAILS); a line that is none refuses (step 4)."""
    lines = []
    for line in status.decode("utf-8", "replace").split("\n")[:-1]:
        if not line.startswith(_PREFIX) or not line[len(_PREFIX) :].strip():
            _refuse("gpgv printed something else between its status lines")
        keyword, *arguments = line[len(_PREFIX) :].split(" ")
        lines.append((keyword, arguments))
    if status and not status.endswith(b"\n"):
        _refuse("gpgv was cut short")
    return lines


def _signer(lines: _StatusLines) -> str:
    """The signer's fingerprint as far as gpgv tells it, for the record only."""
    for keyword, arguments in lines:
        if keyword == "VALIDSIG" and arguments and _FINGERPRINT.fullmatch(arguments[0]):
            return arguments[0]
        if keyword == "ERRSIG" and len(arguments) >= 7 and _FINGERPRINT.fullmatch(arguments[6]):
            return arguments[6]
    return ""


def _require_one_good_signature(lines: _StatusLines) -> None:
    """Step 4: exactly one signature, good, over exactly one text, and nothing that weakens it."""
    keywords = [keyword for keyword, _ in lines]
    if keywords.count("NEWSIG") > 1:
        _refuse("more than one signature in one message")
    for keyword, arguments in lines:
        if keyword == "ERRSIG" and arguments[5:6] == [_NO_PUBLIC_KEY] and keywords.count("PLAINTEXT") == 1:
            who = _signer(lines) or quote(arguments[0])
            raise SignatureError(f"signed by a key {who} that the policy does not list", reason="untrusted")
    for sentence, fatal in _FATAL.items():
        for keyword in [each for each in fatal if each in keywords]:
            _refuse(f"{sentence} ({keyword})" + (f", key {_signer(lines)}" if _signer(lines) else ""))
    for keyword in keywords:
        if keyword not in _HARMLESS and keyword not in _ONCE:
            _refuse(f"gpgv says {quote(keyword)}, which nobody here knows")
    for keyword in _ONCE:
        if keywords.count(keyword) != 1:
            _refuse(f"not one signed message (expected one {keyword}, found {keywords.count(keyword)})")


def _require_trusted_signature(valid: list[str], ring: KeyRing) -> None:
    """Step 5: the arguments of VALIDSIG. Full fingerprints are compared, never key ids."""
    if len(valid) < 10:
        _refuse("gpgv says too little about the signature")
    if valid[9] not in ring.fingerprints:
        raise SignatureError(f"signed by a key {quote(valid[9])} that the policy does not list", reason="untrusted")
    for fingerprint in (valid[9], valid[0]):  # a weak primary key could have been made to bind any subkey
        if fingerprint in ring.weak:
            _refuse(f"{fingerprint} is an RSA key of {ring.weak[fingerprint]} bits, expected at least {RSA_MINIMUM}")
    if valid[8] != _CLASS_BINARY:
        _refuse("a text-mode signature")
    if valid[7] in _WEAK_HASHES:
        _refuse(f"signed with {_WEAK_HASHES[valid[7]]}, which is broken")


def _refuse(why: str) -> NoReturn:
    raise SignatureError(why, reason="crypto")

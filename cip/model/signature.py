# SPDX-License-Identifier: Apache-2.0
"""Signatures as they are stored, container formats to values, and what becomes known of them.

What they claim is read in `trust`.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ..errors import ErrorCode, SignatureError, quote
from .jsontree import parse_json

SIGNATURE_LIMIT = 4 * 1024 * 1024  # bytes of one signature (registry.md 6.7)
SIGNATURES_LIMIT = 16 * 1024 * 1024  # bytes of all signatures of one manifest, which are in memory together
SIGSTORE_MIME_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
# signatures.md 4.3: the first bytes of a signed message; the reference takes `=` for one of them, too
OPENPGP_FIRST = frozenset(b"\x88\x89\x8a\x8b\x90\x91\x92\xa0\xa1\xa2\xa3\xc2\xc4\xc8")
_TAKEN_FOR_OPENPGP = OPENPGP_FIRST | {0x3D}


class SimpleSignature(NamedTuple):
    """An OpenPGP message that carries its payload. `origin` tells people where it was found."""

    message: bytes
    origin: str


class SigstoreSignature(NamedTuple):
    """A payload with the annotations that prove it. `origin` tells people where it was found."""

    mime_type: str
    payload: bytes
    annotations: Mapping[str, str]
    origin: str


class SignatureAllowance:
    """How many bytes the signatures of one manifest may still have."""

    def __init__(self) -> None:
        self._left = SIGNATURES_LIMIT

    def take(self, count: int, origin: str) -> None:
        """Count one more. Raises SignatureError (fetch)."""
        self._left -= count
        if self._left < 0:
            raise _unreadable(origin, f"more than {SIGNATURES_LIMIT} bytes of signatures of one manifest")


RawSignature = SimpleSignature | SigstoreSignature


class SigstoreBundle(NamedTuple):
    """A Sigstore bundle as stored. `origin` tells people where it was found, `fault` why there are no bytes.

    `digest` is that of the bundle, `referrer` that of the manifest which carries it, empty if that carries more.
    """

    data: bytes
    origin: str
    digest: str
    referrer: str = ""
    fault: str = ""


class FoundBundles(NamedTuple):
    """The bundles that are listed for a manifest, and what else is.

    `attestations` has the predicate type of each attachment that states something else than a signature, empty where
    none is told; `others` are words such as `1 about another image`.
    """

    bundles: tuple[SigstoreBundle, ...] = ()
    attestations: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def parse_signature_blob(blob: bytes, origin: str) -> RawSignature:
    """Recognise a stored signature (signatures.md 4.3); nothing is verified.

    Raises SignatureError with reason `fetch` for an unknown format: one unreadable blob refuses the whole image.
    """
    if len(blob) > SIGNATURE_LIMIT:
        raise _unreadable(origin, f"larger than {SIGNATURE_LIMIT} bytes")
    if not blob:
        raise _unreadable(origin, "an empty file")
    if blob[0] != 0:
        if blob[0] not in _TAKEN_FOR_OPENPGP:
            raise _unreadable(origin, f"unknown format, first byte {blob[0]:#04x}")
        return SimpleSignature(blob, origin)
    name, newline, content = blob[1:].partition(b"\n")
    if newline and name == b"simple-signing":
        return SimpleSignature(content, origin)
    if newline and name == b"sigstore-json":
        return _parse_sigstore_json(content, origin)
    raise _unreadable(origin, f"unknown format name {quote(name)}")


def encode_signature_blob(signature: SimpleSignature | SigstoreSignature) -> bytes:
    """A signature in the form that `parse_signature_blob` reads, and nothing else reads as anything else."""
    if isinstance(signature, SimpleSignature):
        return b"\0simple-signing\n" + signature.message
    document = {
        "mimeType": signature.mime_type,
        "payload": base64.b64encode(signature.payload).decode(),
        "annotations": dict(signature.annotations),
    }
    return b"\0sigstore-json\n" + json.dumps(document).encode()


def _parse_sigstore_json(content: bytes, origin: str) -> SigstoreSignature:
    root = parse_json(content, origin, error=_unreadable)
    root.require_exact_case(("mimeType", "payload", "annotations"))
    payload = root["payload"].as_str()
    annotations = root.get("annotations")
    try:
        decoded = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _unreadable(origin, "payload: expected base64") from error
    proofs = {key: value.as_str() for key, value in annotations.members()} if annotations else {}
    return SigstoreSignature(root["mimeType"].as_str(), decoded, MappingProxyType(proofs), origin)


def _unreadable(where: str, why: str) -> SignatureError:
    return SignatureError(f"signature {where}: {why}", code=ErrorCode.POLICY_REJECTED, reason="fetch")


class BundleRecord(NamedTuple):
    """What became known of one bundle (bundles.md 4.4).

    `digest` is that of the bundle; `log` and `times` are the verified entries and times, ready for JSON; `identity`
    says why a bundle without a name was enough, `identity_file` which file allows it.
    """

    digest: str
    log: tuple[Mapping[str, object], ...] = ()
    times: tuple[Mapping[str, object], ...] = ()
    identity: str = ""
    identity_file: str = ""


class SignatureResult(NamedTuple):
    """What became of one signature. What it claims is recorded only when its signer was believed."""

    source: str
    kind: str
    accepted: bool = False
    reason: str = ""
    detail: str = ""
    key: str = ""
    certificate: Mapping[str, str] | None = None
    claims: Mapping[str, str] | None = None
    bundle: BundleRecord | None = None


class BundleRules(NamedTuple):
    """What configuration says about bundles under the requested name (bundles.md 4.1).

    `by_digest`: a bundle, which names no repository, may fulfil a requirement, as `identity_file` says. `scope` is the
    section that could say so, empty where the transport has no names. `trusted_root` is a path, or empty.
    """

    by_digest: bool = False
    identity_file: str = ""
    trusted_root: str = ""
    scope: str = ""

# SPDX-License-Identifier: Apache-2.0
"""The signed statement: which manifest under which name, parsed only after its signature was verified.

One schema for both families of signatures (signatures.md 4.6, 5.2); they differ in the type and in `optional`.
"""

from __future__ import annotations

from typing import NamedTuple

from ...errors import SignatureError
from ...model.descriptor import Digest, digest_of, parse_digest
from ...model.jsontree import DocumentError, JsonNode, parse_json, refuse_surrogates
from ...model.reference import ImageIdentity
from ..policy import Acceptance, UnverifiedImage, name_of
from .matching import IdentityMatcher, require_identity
from .requirement import VerificationRecord

SIMPLE_SIGNING_TYPE = "atomic container signature"
SIGSTORE_TYPE = "cosign container image signature"


class Claims(NamedTuple):
    """What a signer says: this name stands for the manifest of this digest."""

    reference: str
    digest: Digest


def parse_payload(payload: bytes, expected_type: str) -> Claims:
    """The claims of a verified payload whose `critical.type` is `expected_type`. Raises SignatureError (`payload`)."""
    root = parse_json(payload, "signed payload", error=malformed("payload"))
    refuse_surrogates(root)
    root.require_only(("critical", "optional"))
    critical = root["critical"]
    critical.require_only(("type", "image", "identity"))
    if critical["type"].as_str() != expected_type:
        critical["type"].fail(f"expected {expected_type!r}, found another type of signature")
    image, identity = critical["image"], critical["identity"]
    image.require_only(("docker-manifest-digest",))
    identity.require_only(("docker-reference",))
    _check_optional(root["optional"], null_allowed=expected_type == SIGSTORE_TYPE)
    return Claims(identity["docker-reference"].as_str(), image["docker-manifest-digest"].parse(parse_digest))


def require_claims_about(claims: Claims, manifest: bytes, requested: ImageIdentity, matcher: IdentityMatcher) -> None:
    """Return only if `claims` speak about these very bytes under an acceptable name.

    The digest is the sha256 of the bytes as received, always, and is compared first (signatures.md 4.1, D1, G24).
    Raises SignatureError (`digest`, `identity`).
    """
    found = digest_of(manifest)
    if claims.digest != found:
        raise SignatureError(f"signed for manifest {claims.digest}, expected {found}", reason="digest")
    require_identity(matcher, requested, claims.reference)


def accept_payload(
    payload: bytes, kind: str, image: UnverifiedImage, matcher: IdentityMatcher, verification: VerificationRecord
) -> Acceptance:
    """What a verified `payload` accepts: this image, by its digest and under an acceptable name.

    Its claims are put into `verification`. Raises SignatureError (`payload`, `digest`, `identity`).
    """
    claims = parse_payload(payload, kind)
    verification.claims = {"reference": claims.reference, "digest": str(claims.digest)}
    require_claims_about(claims, image.manifest, image.identity, matcher)
    return Acceptance(claims.digest, name_of(image.identity), payload)


def _check_optional(node: JsonNode, *, null_allowed: bool) -> None:
    """Nothing in it is used; what has a known name must have its type all the same (signatures.md 4.6)."""
    if node.is_null() and null_allowed:
        return
    node.keys()  # an object
    creator, timestamp = node.get("creator"), node.get("timestamp")
    if creator is not None:
        creator.as_str()
    if timestamp is not None:
        value = timestamp.value
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not -(2**63) <= value < 2**63:
            timestamp.fail("expected a whole number of seconds")


def malformed(reason: str) -> DocumentError:
    """What makes errors of `reason` for a reader of documents."""
    return lambda where, why: SignatureError(f"{where}: {why}", reason=reason)

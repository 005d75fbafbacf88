# SPDX-License-Identifier: Apache-2.0
"""Targets of trust/bundle: bundles, trusted roots, time stamps, checkpoints and the DER under them.

What is accepted must be what was signed: the seeds are of one private world, whose trusted root is a seed as well. No
mutation of a bundle may be believed with another payload, no mutation of a stamp with another time.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

from cip.errors import CipError, SignatureError
from cip.model.signature import BundleRecord
from cip.trust.bundle.bundle import Bundle, Envelope, parse_bundle
from cip.trust.bundle.timestamp import verified_time
from cip.trust.bundle.tlog import note_key_id, parse_checkpoint
from cip.trust.bundle.trustedroot import TrustedRoot, parse_trusted_root
from cip.trust.bundle.verify import BundleTrust, require_signed
from cip.trust.signed.requirement import VerificationRecord
from cip.trust.sigstore.certificates import CertificateIdentity
from cip.trust.sigstore.der import GENERALIZED_TIME, INTEGER, OID, Element, parse_der

from ..engine import SEEDS, Target
from ..mutation import mutate_der, mutate_json

_SIGNED_AT = 1_700_000_000  # seconds since 1970, in all stamps among the seeds
_FILE = b"the content of a file"
_SUBJECT = "https://github.com/acme/os/.github/workflows/release.yml@refs/heads/main"
_READERS: dict[int, Callable[[Element], object]] = {
    INTEGER: Element.integer,
    OID: Element.oid,
    GENERALIZED_TIME: Element.time,
}


class _Known(NamedTuple):
    """What the seeds of bundles signed: their contents by signature, and the world's trust."""

    contents: dict[bytes, Envelope | None]
    trust: BundleTrust


@functools.cache
def _root() -> TrustedRoot:
    return parse_trusted_root((SEEDS / "trusted-root" / "private").read_bytes(), "trusted_root.json")


@functools.cache
def _known() -> _Known:
    bundles = [parse_bundle(path.read_bytes(), "seed") for path in sorted((SEEDS / "bundle").iterdir())]
    contents = {each.content.signature: _believed(each) for each in bundles}
    identity = CertificateIdentity("https://accounts.example.com", uri=_SUBJECT)
    return _Known(contents, BundleTrust(identity=identity, root=_root(), log_entries=1))


def _believed(bundle: Bundle) -> Envelope | None:
    return bundle.content if isinstance(bundle.content, Envelope) else None


def _bundle(data: bytes) -> str:
    """Bundles; one that is believed holds what a seed holds."""
    bundle = parse_bundle(data, "bundle")
    verification = VerificationRecord("x", "sigstore-bundle")
    verification.bundle = BundleRecord("")
    try:
        require_signed(bundle, _known().trust, _FILE, verification)
    except SignatureError as error:
        return f"{error.reason} {error}"[:60]
    assert _known().contents[bundle.content.signature] == _believed(bundle)
    assert verification.bundle.log and verification.bundle.times
    return "believed"


def _trusted_root(data: bytes) -> str:
    """trusted_root.json; whatever is listed has a window and a key or an anchor."""
    root = parse_trusted_root(data, "trusted_root.json")
    for log in (*root.logs, *root.ct_logs):
        assert log.address and log.key.spki and log.window.start > 0
    for authority in (*root.certificate_authorities, *root.timestamp_authorities):
        assert authority.chain
    assert all(each.isprintable() for each in root.unusable)
    return f"{len(root.logs)} {len(root.ct_logs)} {len(root.unusable)}"


def _timestamp(data: bytes) -> str:
    """Time stamps; one that is believed says the time that the seeds say."""
    signature = parse_bundle((SEEDS / "bundle" / "v2").read_bytes(), "seed").content.signature
    found = verified_time(data, signature, _root().timestamp_authorities, "trusted_root.json")
    assert found is None or found.time == _SIGNED_AT, f"{found.time} instead of {_SIGNED_AT}"
    return "unknown" if found is None else "believed"


def _checkpoint(data: bytes) -> str:
    """Checkpoints; a line that verifies is over the text of the seed."""
    checkpoint = parse_checkpoint(data.decode("utf-8", "replace"))
    assert checkpoint.text.endswith(b"\n") and len(checkpoint.root) == 32 and checkpoint.lines
    told = []
    for name, key_id, signature in checkpoint.lines:
        for log in _root().logs:
            if note_key_id(name, log.key) != key_id:
                continue
            try:
                log.key.require_signed(signature, checkpoint.text)
            except CipError:
                told.append("false")
                continue
            assert any(checkpoint.text in seed.read_bytes() for seed in (SEEDS / "checkpoint").iterdir())
            told.append("believed")
    return " ".join(told)


def _der(data: bytes) -> str:
    """DER: what a tree was made of is all of the input, once."""
    try:
        root = parse_der(data)
    except ValueError as error:
        return str(error)
    assert root.raw == data
    pending, told = [root], []
    while pending:
        element = pending.pop()
        assert element.raw.endswith(element.content)
        assert not element.children or b"".join(each.raw for each in element.children) == element.content
        pending.extend(element.children)
        try:
            _READERS[element.tag](element) if element.tag in _READERS else element.members(more=True)
        except ValueError as error:
            told.append(str(error)[:30])
    return " ".join(sorted(set(told)))


TARGETS = (
    Target("bundle", _bundle, (b'"logIndex":"1"', b'"certificate":{', b'"rawBytes":""', b"null", b"=="), mutate_json),
    Target("trusted-root", _trusted_root, (b'"validFor":{', b'"checkpointKeyId":{"keyId":"AAAAAA=="}'), mutate_json),
    Target("timestamp", _timestamp, (b"\x30\x80", b"\x02\x01\x00", b"\xa0\x00", b"\x05\x00"), mutate_der),
    Target("checkpoint", _checkpoint, ("\u2014 ".encode(), b"\n\n", b"log2.lab", b"\n08\n", b" - 1")),
    Target("der", _der, (b"\x30\x80", b"\x02\x01\x00", b"\x81\x05", b"\x1f\x20"), mutate_der),
)

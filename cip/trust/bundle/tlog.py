# SPDX-License-Identifier: Apache-2.0
"""Transparency logs: that a log took in this very signature, and what it says about when (bundles.md 3.5, 3.6).

Entries of logs that nobody knows are passed over; every entry of a known one must verify. Version 1 promises an entry
with a time (signed entry timestamp) or proves it; version 2 only proves it, and gives no time. A proof is a path from
the entry to the root of a tree (RFC 9162 2.1.3.2) that the log signed as a checkpoint (C2SP signed-note,
tlog-checkpoint). Everything refuses with reason `rekor`.
"""

from __future__ import annotations

import hashlib
import math
import re
from base64 import b64encode
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from ...errors import SignatureError, quote
from ..signed.armor import decode_base64
from ..sigstore.keys import PublicKey
from ..sigstore.logs import require_promised
from .body import KIND_OF_VERSION_2, Signed, require_body_about
from .bundle import InclusionProof, LogEntry
from .trustedroot import Log, Window

LINE_LIMIT = 32  # signatures of a checkpoint
_KEY_ID_BYTES = 4
_SHARD = re.compile(r"(.+) - [0-9]+")  # origin of version 1: host and number of the tree
_SIZE = re.compile("0|[1-9][0-9]{0,18}")
_SIGNATURE_LINE = re.compile("\u2014 ([^\\s+]+) (\\S+)")
_NAME_SHOWN = 80  # characters of an origin that nobody vouches for
_ED25519_NOTE, _RSA_NOTE = b"\n\x01", b"\n\xffPKIX-RSA-PKCS#1v1.5"


class VerifiedEntry(NamedTuple):
    """An entry of `log`. `time` is the one that the log promised, None where only a proof is there."""

    log: Log
    entry: LogEntry
    origin: str
    time: int | None

    def record(self) -> dict[str, object]:
        """For the decision record (bundles.md 4.4)."""
        return {
            "id": self.entry.log_id[:8].hex(),
            "origin": self.origin,
            "index": self.entry.log_index,
            "kind": f"{self.entry.kind}/{self.entry.version}",
            "proof": self.entry.proof is not None,
            "promise": bool(self.entry.promise),
        }


class Checkpoint(NamedTuple):
    """A tree head as a log states it; `text` is what is signed, `lines` are name, key id and signature."""

    text: bytes
    origin: str
    size: int
    root: bytes
    lines: tuple[tuple[str, bytes, bytes], ...]


def bare_log(key: PublicKey) -> Log:
    """The log that a policy names by its key alone."""
    return Log(key, hashlib.sha256(key.spki).digest(), b"", "", Window(-math.inf, math.inf), "")


def verified_entries(
    entries: Sequence[LogEntry], signed: Signed, logs: Sequence[Log], where: str
) -> list[VerifiedEntry]:
    """The entries of known logs, all of which must be about `signed`. `where` names the file that lists the logs."""
    found: list[VerifiedEntry] = []
    for entry in entries:
        # a log may be listed more than once, with one key and several windows
        known = [log for log in logs if log.is_named(entry.log_id)]
        refusals: list[SignatureError] = []
        for log in known:
            try:
                verified = _verified(entry, signed, log, logs, where)
            except SignatureError as error:
                refusals.append(error)
                continue
            if (log.key.spki, entry.log_index) in [(each.log.key.spki, each.entry.log_index) for each in found]:
                _refuse("the same log entry twice")
            found.append(verified)
            break
        if len(refusals) == len(known) and refusals:
            raise refusals[0]
    return found


def _verified(entry: LogEntry, signed: Signed, log: Log, logs: Sequence[Log], where: str) -> VerifiedEntry:
    origin, is_version_2, time = log.address, False, None
    if entry.proof is not None:
        checkpoint = parse_checkpoint(entry.proof.checkpoint)
        origin, is_version_2 = checkpoint.origin, not _SHARD.fullmatch(checkpoint.origin)
        _require_checkpoint_of(checkpoint, log, logs)
        require_inclusion(entry.body, entry.proof, checkpoint)
        if not is_version_2 and (entry.proof.root_hash, entry.proof.tree_size) != (checkpoint.root, checkpoint.size):
            _refuse("an inclusion proof of version 1 that does not say of which tree it is")
    if is_version_2 != ((entry.kind, entry.version) == KIND_OF_VERSION_2):
        _refuse(f"log entry of kind {quote(f'{entry.kind} {entry.version}')} in a log of version {1 + is_version_2}")
    if is_version_2 and entry.promise:
        _refuse("a log entry of version 2 with a promise, which its log does not give")
    if is_version_2 and entry.proof is not None and entry.proof.log_index != entry.log_index:
        _refuse(f"log entry {entry.log_index} with a proof of entry {entry.proof.log_index}")
    if entry.promise:
        time = entry.integrated_time
        log.window.require(time, "the log", where, "rekor")
        promised = {
            "body": b64encode(entry.body).decode("ascii"),
            "integratedTime": time,
            "logID": entry.log_id.hex(),
            "logIndex": entry.log_index,
        }
        require_promised(promised, entry.promise, [log.key])
    require_body_about(entry, signed)
    return VerifiedEntry(log, entry, origin, time)


def parse_checkpoint(text: str) -> Checkpoint:
    """A signed tree head. Nothing is verified. Raises SignatureError (`rekor`)."""
    if any((character < " " and character != "\n") or character == "\x7f" for character in text):
        _refuse("checkpoint: a control character")
    head, separator, signatures = text.rpartition("\n\n")
    origin, size, root, *_ = [*head.split("\n"), "", "", ""]
    if not separator or not origin or not _SIZE.fullmatch(size):
        _refuse("checkpoint: expected an origin, a size in decimal, a root and signatures behind an empty line")
    lines = signatures.split("\n")
    if lines.pop() or not 1 <= len(lines) <= LINE_LIMIT:
        _refuse(f"checkpoint: expected 1 to {LINE_LIMIT} signatures, found {len(lines)}")
    root_hash = _decoded(root)
    if len(root_hash) != hashlib.sha256().digest_size:
        _refuse(f"checkpoint: a root of {len(root_hash)} bytes, expected 32")
    listed = tuple(_signature_line(line) for line in lines)
    return Checkpoint(f"{head}\n".encode(), origin, int(size), root_hash, listed)


def _signature_line(line: str) -> tuple[str, bytes, bytes]:
    match = _SIGNATURE_LINE.fullmatch(line)
    if match is None:
        _refuse("checkpoint: a malformed signature line")
    content = _decoded(match[2])
    if len(content) <= _KEY_ID_BYTES:
        _refuse("checkpoint: a signature line without signature")
    return match[1], content[:_KEY_ID_BYTES], content[_KEY_ID_BYTES:]


def _decoded(text: str) -> bytes:
    try:
        return decode_base64(text)
    except ValueError as error:
        raise SignatureError(f"checkpoint: expected base64: {error}", reason="rekor") from error


def _require_checkpoint_of(checkpoint: Checkpoint, log: Log, logs: Sequence[Log]) -> None:
    """Return only if `log` signed it under its own name; a false line of any known log refuses (C2SP signed-note)."""
    shard = _SHARD.fullmatch(checkpoint.origin)
    owner = shard[1] if shard else checkpoint.origin
    if not shard and not log.address:
        _refuse(
            "logged in Rekor v2, and rekorPublicKeyPath can only name v1 logs:"
            " set sigstore-trusted-root in registries.d"
        )
    if not _has_name(log, owner):
        _refuse(f"a checkpoint of {quote(owner)}, expected one of {quote(log.address)}")
    signed = False
    for name, key_id, signature in checkpoint.lines:
        for known in logs:
            if not _has_name(known, name) or key_id != note_key_id(name, known.key):
                continue
            try:
                known.key.require_signed(signature, checkpoint.text)
            except SignatureError as error:
                why = f"the checkpoint is not signed by {quote(name)}: {error}"
                raise SignatureError(why, reason="rekor") from error
            signed = signed or (known.key.spki == log.key.spki and (name == owner or not log.address))
    if not signed:
        _refuse("the checkpoint is not signed by the log of the entry")


def _has_name(log: Log, name: str) -> bool:
    """Whether `name` is the address of `log` or its host; a log without address has every name."""
    host = log.address.partition("/")[0]
    return not log.address or name in (log.address, host, host.partition(":")[0])


def note_key_id(name: str, key: PublicKey) -> bytes:
    """How lines signed by `key` under `name` begin (C2SP signed-note; for ECDSA and RSA as Rekor has it)."""
    if key.kind == "ecdsa":
        content = key.spki
    elif key.kind == "rsa":
        content = name.encode() + _RSA_NOTE + key.spki
    else:
        content = name.encode() + _ED25519_NOTE + key.spki[-32:]
    return hashlib.sha256(content).digest()[:_KEY_ID_BYTES]


def require_inclusion(body: bytes, proof: InclusionProof, checkpoint: Checkpoint) -> None:
    """Return only if `body` is a leaf of the tree (RFC 9162 2.1.3.2)."""
    index, size = proof.log_index, checkpoint.size
    if (proof.root_hash and proof.root_hash != checkpoint.root) or (proof.tree_size and proof.tree_size != size):
        _refuse("the inclusion proof is about another tree than the checkpoint")
    if index >= size:
        _refuse(f"the inclusion proof is of entry {index} in a tree of {size}")
    inner = (index ^ (size - 1)).bit_length()
    expected = inner + (index >> inner).bit_count()
    if len(proof.hashes) != expected or any(len(each) != len(checkpoint.root) for each in proof.hashes):
        _refuse(f"the inclusion proof has {len(proof.hashes)} hashes, expected {expected} of 32 bytes")
    running = hashlib.sha256(b"\x00" + body).digest()
    for level, sibling in enumerate(proof.hashes):
        is_left = level < inner and not index >> level & 1
        pair = running + sibling if is_left else sibling + running
        running = hashlib.sha256(b"\x01" + pair).digest()
    if running != checkpoint.root:
        _refuse("the inclusion proof does not lead to the root of the checkpoint")


def shown_origin(entry: LogEntry) -> str:
    """What an entry of an unknown log calls its log, for people; nobody vouches for it."""
    origin = entry.proof.checkpoint.partition("\n")[0] if entry.proof else ""
    return quote(origin[:_NAME_SHOWN])


def _refuse(why: str) -> NoReturn:
    raise SignatureError(why, reason="rekor")

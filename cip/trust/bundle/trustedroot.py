# SPDX-License-Identifier: Apache-2.0
"""trusted_root.json: the logs and authorities that an administrator trusts, and from when to when (bundles.md 3.9).

An entry that this program cannot use (an algorithm of tomorrow) is left out and named in `unusable`, so that a root
which lists it stays usable; whatever else is wrong refuses the whole file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

from ...errors import SignatureError, quote
from ...model.jsontree import JsonNode, parse_json
from ..signed.payload import malformed
from ..sigstore.der import utc_seconds
from ..sigstore.keys import Certificate, PublicKey, load_certificate, load_key
from .algorithms import LOG_KEY_DETAILS, require_profile
from .protojson import elements, message, required, some_octets, text

TRUSTED_ROOT_LIMIT = 4 * 1024 * 1024  # bytes
LIST_LIMIT = 128  # entries of one kind
_TEXT_LIMIT = 1024  # characters
_DER_LIMIT = 64 * 1024  # bytes of a key or certificate
_CHAIN_LIMIT = 10  # certificates
CHECKPOINT_ID_BYTES = (4, 32)  # least and most
_MEDIA_TYPES = (
    "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
    "application/vnd.dev.sigstore.trustedroot.v0.1+json",
    "application/vnd.dev.sigstore.trustedroot.v0.2+json",
)
_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d{1,9})?Z", re.ASCII)
_LAST_TIME = utc_seconds(9999, 12, 31, 0, 0, 0)
T = TypeVar("T")


class Window(NamedTuple):
    """When something was trusted, in seconds since 1970, both ends included."""

    start: float
    end: float

    def require(self, time: float, what: str, where: str, reason: str) -> None:
        """Return only if `time` is inside. Raises SignatureError (`reason`); `where` names the file that says so."""
        if not self.start <= time <= self.end:
            end = "" if math.isinf(self.end) else f" to {day(self.end)}"
            trusted = f"{what} was trusted from {day(self.start)}{end} according to {where}"
            raise SignatureError(f"{trusted}, the signature is of {day(time)}", reason=reason)


def require_one_window(windows: Sequence[Window], time: float, what: str, where: str) -> None:
    """Return only if `time` is inside one of `windows`. Raises SignatureError (`rekor`) about the first of them."""
    if not any(window.start <= time <= window.end for window in windows):
        windows[0].require(time, what, where, "rekor")


class Log(NamedTuple):
    """A transparency log. `address` is its URL without scheme, empty for one that a policy names by its key alone.

    Entries and timestamps name it by `log_id` or by the first bytes of `checkpoint_id`, which may be empty.
    """

    key: PublicKey
    log_id: bytes
    checkpoint_id: bytes
    address: str
    window: Window
    operator: str

    def is_named(self, log_id: bytes) -> bool:
        """Whether `log_id` means this log."""
        least = CHECKPOINT_ID_BYTES[0]
        return log_id == self.log_id or (bool(self.checkpoint_id) and log_id[:least] == self.checkpoint_id[:least])


class Authority(NamedTuple):
    """A certificate or timestamp authority; the last certificate of `chain` is the anchor."""

    chain: tuple[Certificate, ...]
    window: Window
    uri: str
    operator: str


class TrustedRoot(NamedTuple):
    """What one file lists; `name` is the file, `unusable` are sentences about entries that were left out."""

    name: str
    logs: tuple[Log, ...]
    ct_logs: tuple[Log, ...]
    certificate_authorities: tuple[Authority, ...]
    timestamp_authorities: tuple[Authority, ...]
    unusable: tuple[str, ...]


def parse_trusted_root(data: bytes, name: str) -> TrustedRoot:
    """The trusted root that `data` holds. Raises SignatureError (`keycfg`), MissingDependencyError."""
    if len(data) > TRUSTED_ROOT_LIMIT:
        raise SignatureError(f"{name}: larger than {TRUSTED_ROOT_LIMIT} bytes", reason="keycfg")
    root = parse_json(data, name, error=malformed("keycfg"))
    message(root, "mediaType", "tlogs", "ctlogs", "certificateAuthorities", "timestampAuthorities")
    if text(root, "mediaType", _TEXT_LIMIT) not in _MEDIA_TYPES:
        root.fail(f"expected mediaType {_MEDIA_TYPES[-1]}, found {quote(root.value.get('mediaType'))}")
    unusable: list[str] = []

    def listed(member: str, read: Callable[[JsonNode], T]) -> tuple[T, ...]:
        found = []
        for node in elements(root, member, LIST_LIMIT):
            try:
                found.append(read(node))
            except ValueError as error:
                unusable.append(f"{node.where}: left out: {error}")
        return tuple(found)

    logs, ct_logs = listed("tlogs", _log), listed("ctlogs", _log)
    authorities = listed("certificateAuthorities", _authority), listed("timestampAuthorities", _authority)
    return TrustedRoot(name, logs, ct_logs, *authorities, tuple(unusable))


def day(time: float) -> str:
    """The date of a time, for people; nobody vouches for it yet, so it may be later than there are dates."""
    return datetime.fromtimestamp(min(time, _LAST_TIME), UTC).strftime("%Y-%m-%d")


def _log(node: JsonNode) -> Log:
    """Raises ValueError for one that cannot be used."""
    message(node, "baseUrl", "hashAlgorithm", "publicKey", "logId", "checkpointKeyId", "operator")
    key_node = message(required(node, "publicKey"), "rawBytes", "keyDetails", "validFor")
    window = _window(key_node)
    log_id = some_octets(message(required(node, "logId"), "keyId"), "keyId", _TEXT_LIMIT)
    checkpoint_id, short = b"", node.get("checkpointKeyId")
    if short is not None:
        checkpoint_id = some_octets(message(short, "keyId"), "keyId", CHECKPOINT_ID_BYTES[1])
        if len(checkpoint_id) < CHECKPOINT_ID_BYTES[0]:
            short.fail(f"expected at least {CHECKPOINT_ID_BYTES[0]} bytes, found {len(checkpoint_id)}")
    der, details = some_octets(key_node, "rawBytes", _DER_LIMIT), text(key_node, "keyDetails", _TEXT_LIMIT)
    algorithm = text(node, "hashAlgorithm", _TEXT_LIMIT)
    address = text(node, "baseUrl", _TEXT_LIMIT).rpartition("://")[2].rstrip("/")
    operator = text(node, "operator", _TEXT_LIMIT)
    if not address:
        raise ValueError("a log without baseUrl")
    if algorithm != "SHA2_256":
        raise ValueError(f"a log whose hash is {quote(algorithm)}, expected SHA2_256")
    if details not in LOG_KEY_DETAILS:
        raise ValueError(f"a key of {quote(details)}, expected one of {', '.join(LOG_KEY_DETAILS)}")
    key = load_key(der)
    require_profile(key)
    if LOG_KEY_DETAILS[details] != (key.kind, key.parameter):
        raise ValueError(f"a key of kind {key.kind} {key.parameter}, expected {details} as it says")
    return Log(key, log_id, checkpoint_id, address, window, operator)


def _authority(node: JsonNode) -> Authority:
    """Raises ValueError for one that cannot be used."""
    message(node, "subject", "uri", "certChain", "validFor", "operator")
    if (subject := node.get("subject")) is not None:
        for name in ("organization", "commonName"):
            text(message(subject, "organization", "commonName"), name, _TEXT_LIMIT)
    uri, operator = text(node, "uri", _TEXT_LIMIT), text(node, "operator", _TEXT_LIMIT)
    window, chain = _window(node), message(required(node, "certChain"), "certificates")
    listed = elements(chain, "certificates", _CHAIN_LIMIT)
    if not listed:
        chain.fail("expected certificates, found none")
    ders = [some_octets(message(each, "rawBytes"), "rawBytes", _DER_LIMIT) for each in listed]
    return Authority(tuple(load_certificate(der) for der in ders), window, uri, operator)


def _window(node: JsonNode) -> Window:
    valid = message(required(node, "validFor"), "start", "end")
    end = valid.get("end")
    return Window(_time(required(valid, "start")), math.inf if end is None else _time(end))


def _time(node: JsonNode) -> float:
    match = _RFC3339.fullmatch(node.as_str())
    try:
        if match is not None:
            return utc_seconds(*(int(each) for each in match.groups()[:6])) + float(match[7] or 0)
    except ValueError:
        pass  # a moment that does not exist
    node.fail(f"expected a time in UTC as in RFC 3339, found {quote(node.value)}")

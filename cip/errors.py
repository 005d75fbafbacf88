# SPDX-License-Identifier: Apache-2.0
"""The whole error hierarchy: what went wrong, as facts that both wire protocols can tell.

An exception here knows its code, the facts of its cause and one sentence for people. It knows nothing of
HTTP, JSON or exit codes: `wire.problem` and `cli` translate.
"""

import errno
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Self


class ErrorCode(StrEnum):
    """The closed list of codes; `type` of a problem document, `code` of the JSON protocol's details."""

    REFERENCE_INVALID = "reference-invalid"
    DIGEST_INVALID = "digest-invalid"
    DIGEST_UNSUPPORTED = "digest-unsupported"
    REQUEST_INVALID = "request-invalid"
    PATH_UNKNOWN = "path-unknown"
    IMAGE_NOT_FOUND = "image-not-found"
    BLOB_NOT_IN_IMAGE = "blob-not-in-image"
    BLOB_NOT_FOUND = "blob-not-found"
    PLATFORM_NOT_FOUND = "platform-not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    POLICY_REJECTED = "policy-rejected"
    REGISTRY_BLOCKED = "registry-blocked"
    TRANSPORT_UNSUPPORTED = "transport-unsupported"
    MEDIA_TYPE_UNSUPPORTED = "media-type-unsupported"
    DEPENDENCY_MISSING = "dependency-missing"
    CONFIG_INVALID = "config-invalid"
    POLICY_MISSING = "policy-missing"
    POLICY_INVALID = "policy-invalid"
    INTERNAL = "internal"
    SOURCE_UNAVAILABLE = "source-unavailable"
    STORAGE_FULL = "storage-full"
    AUDIT_UNAVAILABLE = "audit-unavailable"
    AUTHENTICATION_FAILED = "authentication-failed"
    CREDENTIALS_UNAVAILABLE = "credentials-unavailable"
    TLS_UNTRUSTED = "tls-untrusted"
    TLS_NAME_MISMATCH = "tls-name-mismatch"
    TLS_EXPIRED = "tls-expired"
    TLS_NOT_YET_VALID = "tls-not-yet-valid"
    TLS_CLIENT_CERTIFICATE = "tls-client-certificate"
    REDIRECT_REFUSED = "redirect-refused"
    ADDRESS_REFUSED = "address-refused"
    MANIFEST_INVALID = "manifest-invalid"
    CONTENT_MISMATCH = "content-mismatch"
    LIMIT_EXCEEDED = "limit-exceeded"
    NAME_NOT_RESOLVED = "name-not-resolved"
    CONNECTION_REFUSED = "connection-refused"
    CONNECTION_LOST = "connection-lost"
    REGISTRY_ERROR = "registry-error"
    RATE_LIMITED = "rate-limited"
    BUDGET_EXHAUSTED = "budget-exhausted"
    OFFLINE = "offline"
    TIMEOUT = "timeout"
    CLIENT_GONE = "client-gone"


class Phase(StrEnum):
    """What was being done when it failed."""

    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    PROXY = "proxy"
    TOKEN = "token"
    MANIFEST = "manifest"
    INDEX = "index"
    CONFIG = "config"
    BLOB = "blob"
    SIGNATURE = "signature"


ATTEMPTS_TOLD = 10  # the last ones, in an error


class Attempt:
    """One failed try: where, how many seconds after the request began, in which phase, with which code."""

    def __init__(self, place: str, at: float, phase: Phase | None, code: ErrorCode) -> None:
        self.place, self.at, self.phase, self.code = place, at, phase, code


_RETRYABLE = frozenset(
    {
        ErrorCode.NAME_NOT_RESOLVED,
        ErrorCode.CONNECTION_REFUSED,
        ErrorCode.CONNECTION_LOST,
        ErrorCode.RATE_LIMITED,
        ErrorCode.TIMEOUT,
    }
)
_RETRYABLE_STATUS = frozenset({408, 425, 429})
QUOTE_LIMIT = 120  # characters of outside text that an error message repeats


# User information and queries, which may be signatures, only of these schemes: `docker://name@sha256:…` has to stay.
_USER_INFO = r"(?i)\b((?:https?|file|tcp|socks5h?)://)[^/?#\s'\"]*@"
_QUERY = r"(?i)(\b(?:https?|file|tcp)://[^?#\s'\"]*)[?#][^\s'\"]*"


def strip_url(text: str) -> str:
    """`text` without user information, query and fragment of the URLs in it."""
    return re.sub(_QUERY, r"\1", re.sub(_USER_INFO, r"\1", text))


def strip_queries(text: str) -> str:
    """As `strip_url`, and without what may be the query of a path: it may be signed."""
    return re.sub(r"\?[^\s'\"]+", "?…", strip_url(text))


# What is kept in front of a docker reference, and what stands before a host or a digest that is none, up to the last @.
_FILES = "oci|dir|oci-archive|docker-archive|tarball|containers-storage"
_DIGEST = "sha[0-9]+:|[a-z0-9+._-]+:[0-9a-f]{32}"
_NO_PARTS = (
    rf"(docker-archive:[^:]*:)(?:.+@(?!{_DIGEST}))?",
    rf"(containers-storage:(?:\[[^]]*\])?)(?:[^:]*:.*@(?!{_DIGEST}|[0-9a-f]+\Z))?",  # an id stands there as well
    rf"(docker://|docker-daemon:|)(?!(?:{_FILES}):)(?:[^:]*:.*@(?!{_DIGEST}))?",
)
_NO_USER = rf"(?is)\A(?:{'|'.join(_NO_PARTS)})"


def strip_reference(text: str) -> str:
    """An image reference without what may be a user name, password or query in it, where nobody may write them.

    Files may be named so: there it stays, unless it is in a URL.
    """
    return strip_url(re.sub(rf"{_NO_USER}([^?]*)(?:\?.*)?", r"\1\2\3\4", text))


_redact: Callable[[str], str] = strip_queries


def redact_with(redact: Callable[[str], str]) -> None:
    """From now on all that is quoted from outside goes through `redact`; for who starts the process, and nobody else.

    What a process holds in confidence is one for the process, and a message about what others said is made everywhere.
    """
    global _redact
    _redact = redact


def redacted(text: str) -> str:
    """Outside text for a message that stays as it is but for secrets: a host, a path."""
    return _redact(text)


def quote(text: object) -> str:
    """Outside text for a message: no secrets, `repr`, cut to `QUOTE_LIMIT` characters; no control byte survives."""
    # as `repr` writes bytes, a secret would be overlooked; what it escapes may be one only then
    said = text.decode("latin-1") if isinstance(text, bytes) else text
    shown = repr(_redact(said) if isinstance(said, str) else said)
    return _cut(shown if isinstance(said, str) and "\\" not in shown else _redact(shown))


def quote_own(text: object) -> str:
    """As `quote`, for what the user or the administrator wrote, which is not searched for secrets.

    What may be one in a URL or in front of a host is left out: the message can reach others.
    """
    if isinstance(text, str) and "://" not in text:
        text = re.sub(_NO_USER, r"\1\2\3", text)
    return _cut(strip_queries(repr(text)))


def system_reason(error: Exception) -> str:
    """Why the system, or Python before it, refused, in lower case."""
    return (getattr(error, "strerror", None) or str(error) or "unknown error").lower()


def _cut(shown: str) -> str:
    return shown if len(shown) <= QUOTE_LIMIT else shown[: QUOTE_LIMIT - 1] + "…"


class CipError(Exception):
    """Anything this program refuses or fails at, with the facts a parent can act on.

    `phase`, `host` (name or name:port), `digest`, `offset` (bytes delivered), `attempts`, `retry_after` (seconds),
    `http_status` (the registry's) and `reason` (for policy: a class of signatures.md) are None or empty when unknown.
    `may_pass` makes a fault retryable whose code does not.
    Callers on the way up may fill them in, the message never changes.
    """

    default_code = ErrorCode.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        code: ErrorCode | None = None,
        host: str | None = None,
        phase: Phase | None = None,
        digest: str | None = None,
        offset: int | None = None,
        attempts: Sequence[Attempt] = (),
        retry_after: float | None = None,
        http_status: int | None = None,
        reason: str | None = None,
        may_pass: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code or self.default_code
        self.may_pass = may_pass
        self.host = host
        self.phase = phase
        self.digest = digest
        self.offset = offset
        self.attempts = tuple(attempts)
        self.retry_after = retry_after
        self.http_status = http_status
        self.reason = reason

    @classmethod
    def at(
        cls,
        host: str,
        why: str,
        *,
        code: ErrorCode | None = None,
        phase: Phase | None = None,
        http_status: int | None = None,
    ) -> Self:
        """The error of a `host`, with which the sentence begins."""
        return cls(f"{host}: {why}", host=host, code=code, phase=phase, http_status=http_status)

    def facts(self, **others: Any) -> dict[str, Any]:
        """The keywords of an error that tells this one in other words: `digest` and `offset` only among `others`."""
        names = ("code", "host", "phase", "attempts", "retry_after", "http_status", "reason", "may_pass")
        return {**{name: getattr(self, name) for name in names}, **others}

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later (decisions.md section 3, row `retryable`)."""
        if self.may_pass:
            return True
        if self.code is ErrorCode.REGISTRY_ERROR and self.http_status is not None:
            return self.http_status >= 500 or self.http_status in _RETRYABLE_STATUS
        return self.code in _RETRYABLE


@contextmanager
def failing(phase: Phase | None = None, digest: object = None) -> Iterator[None]:
    """Fill in what an error of the block does not know itself: in which phase it is, and about which digest."""
    try:
        yield
    except CipError as error:
        error.phase = error.phase or phase
        if digest is not None:
            error.digest = error.digest or str(digest)
        raise


class UsageError(CipError):
    """The command line, or options that contradict each other."""

    default_code = ErrorCode.REQUEST_INVALID


class InvalidInputError(CipError):
    """Text from the parent, a file or a registry that does not parse."""

    default_code = ErrorCode.REQUEST_INVALID


class InvalidReferenceError(InvalidInputError):
    """An image reference that does not parse."""

    default_code = ErrorCode.REFERENCE_INVALID

    def __init__(self, text: str, why: str) -> None:
        super().__init__(f"image reference {quote(strip_reference(text))}: {why}")
        self.why = why


class InvalidDigestError(InvalidInputError):
    """A digest text that does not parse; `code` tells malformed from well-formed but unsupported."""

    default_code = ErrorCode.DIGEST_INVALID

    def __init__(self, text: str, why: str, *, code: ErrorCode | None = None) -> None:
        super().__init__(f"digest {quote(text)}: {why}", code=code)


class InvalidDocumentError(InvalidInputError):
    """A document (manifest, config, index, payload) whose content breaks its specification.

    `where` names document and spot, such as `manifest: layers[2].size`.
    """

    default_code = ErrorCode.MANIFEST_INVALID

    def __init__(self, where: str, why: str, *, code: ErrorCode | None = None) -> None:
        super().__init__(f"{where}: {why}", code=code)
        self.where = where
        self.why = why


class ConfigurationError(InvalidInputError):
    """A configuration file of the host that cannot be used; `where` names file, line or key."""

    default_code = ErrorCode.CONFIG_INVALID

    def __init__(self, where: str, why: str, *, code: ErrorCode | None = None) -> None:
        super().__init__(f"{where}: {why}", code=code)


class NotFoundError(CipError):
    """The image, the blob or the platform does not exist where it was looked for."""

    default_code = ErrorCode.IMAGE_NOT_FOUND


class ImageAbsentError(NotFoundError):
    """No image has this name where its source says what it has: what OpenImageOptional answers with 0 (wire.md 4.4)."""

    def of_instance(self) -> NotFoundError:
        """The same facts about the instance of an index, which is there although a part of it is missing."""
        return NotFoundError(str(self), **self.facts(digest=self.digest))


class SourceError(CipError):
    """The source of an image failed: a file system, a daemon or a registry."""

    default_code = ErrorCode.SOURCE_UNAVAILABLE


class NetworkError(SourceError):
    """No usable answer: name lookup, connect, TLS, time-out, a connection that broke."""

    default_code = ErrorCode.CONNECTION_LOST


class RegistryError(SourceError):
    """The registry answered, with a refusal or with something that is not an answer."""

    default_code = ErrorCode.REGISTRY_ERROR


class AuthenticationError(SourceError):
    """Access was refused, or credentials could not be obtained."""

    default_code = ErrorCode.AUTHENTICATION_FAILED


class TrustError(CipError):
    """Bytes that may not be believed."""

    default_code = ErrorCode.POLICY_REJECTED


class ContentMismatchError(TrustError):
    """Content whose size or digest is not the announced one."""

    default_code = ErrorCode.CONTENT_MISMATCH

    def served_by(self, places: str) -> "ContentMismatchError":
        """The same, and who served the bytes."""
        return ContentMismatchError(f"{self} (served by {places})", digest=self.digest, offset=self.offset)


class SignatureError(TrustError):
    """One signature that cannot be accepted; `reason` is the reject class of signatures.md in lower case."""


class PolicyRejectedError(TrustError):
    """The policy does not accept the image; `reason` is the reject class of signatures.md in lower case."""


class UnsupportedError(CipError):
    """A transport or media type that this program does not serve."""

    default_code = ErrorCode.TRANSPORT_UNSUPPORTED


class MissingDependencyError(UnsupportedError):
    """An optional package or outside program that the request needs is not installed, or has another `fault`."""

    default_code = ErrorCode.DEPENDENCY_MISSING

    def __init__(self, name: str, purpose: str, *, fault: str = "is not installed") -> None:
        super().__init__(f"{name} {fault}: needed to {purpose}")


class PeerError(CipError):
    """The parent: an unusable descriptor, or a connection that it closed."""

    default_code = ErrorCode.CLIENT_GONE


@contextmanager
def refused(what: str, missing: ErrorCode | None = None) -> Iterator[None]:
    """Make a typed error of what the system refuses; a file that is not there has the code `missing`, if given.

    No room to write has a code of its own.
    """
    try:
        yield
    except OSError as error:
        if missing is not None and isinstance(error, FileNotFoundError):
            raise NotFoundError(f"{what}: no such file", code=missing) from error
        code = ErrorCode.STORAGE_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else None
        raise SourceError(f"{what}: {system_reason(error)}", code=code) from error

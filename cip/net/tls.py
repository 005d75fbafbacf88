# SPDX-License-Identifier: Apache-2.0
"""TLS: contexts, handshakes, what faults and alerts mean (registry.md 5.2)."""

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar, Union

from ..content import start_thread
from ..errors import CipError, ConfigurationError, ErrorCode, NetworkError, Phase, SourceError, redacted, system_reason
from .url import Origin

RECEIVED = 128 * 1024  # bytes that OpenSSL gets at once
CERTIFICATES_LIMIT = 4 * 1024 * 1024  # bytes of all files for one host; each MiB takes a second and 5 MiB of memory
SESSIONS_LIMIT = 64  # kept for origins, of some KB each; those kept first go first
# TLS 1.2 with forward secrecy and authenticated encryption only; the suites of TLS 1.3 are all of that kind
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_EXPIRED, _NOT_YET_VALID, _HOST_MISMATCH, _ADDRESS_MISMATCH = 10, 9, 62, 64  # X509_V_ERR_…
# what OpenSSL says when the other side answers in another protocol
_NOT_TLS = """
WRONG_VERSION_NUMBER HTTP_REQUEST HTTPS_PROXY_REQUEST UNKNOWN_PROTOCOL PACKET_LENGTH_TOO_LONG
RECORD_LAYER_FAILURE RECORD_TOO_SMALL UNEXPECTED_MESSAGE
"""
_DAMAGED = """
DECRYPTION_FAILED_OR_BAD_RECORD_MAC BAD_RECORD_TYPE UNEXPECTED_EOF_WHILE_READING
SSLV3_ALERT_BAD_RECORD_MAC TLSV1_ALERT_INTERNAL_ERROR TLSV1_ALERT_USER_CANCELLED
"""
# alerts about our certificate; TLS 1.3 sends them behind the handshake (RFC 8446, 4.4.2.4 and 6.2)
_CERTIFICATE_ALERTS = """
TLSV13_ALERT_CERTIFICATE_REQUIRED SSLV3_ALERT_NO_CERTIFICATE SSLV3_ALERT_BAD_CERTIFICATE
SSLV3_ALERT_UNSUPPORTED_CERTIFICATE SSLV3_ALERT_CERTIFICATE_REVOKED SSLV3_ALERT_CERTIFICATE_EXPIRED
SSLV3_ALERT_CERTIFICATE_UNKNOWN TLSV1_ALERT_UNKNOWN_CA TLSV1_ALERT_ACCESS_DENIED
"""


class TlsIdentity(NamedTuple):
    """Whom we trust and as whom we appear: connections are shared only where this is equal.

    `authorities` are PEM files beside the system's, `pairs` client certificates with their keys, `searched` the
    directories in which both were looked for.
    """

    verify: bool = True
    authorities: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    searched: tuple[str, ...] = ()


NO_IDENTITY = TlsIdentity()  # the system's authorities, and no certificate of ours


T = TypeVar("T")
Socket = Union[socket.socket, "TlsSocket"]  # what a connection consists of at its end


class TlsSocket:
    """TLS over a connected socket, or over the TLS connection to a proxy; it never blocks and owns `outer`.

    OpenSSL gets so much at once of what has arrived, and is not left to receive: records without content, such as
    session tickets without end, would keep it there for as long as the other side likes, and no limit would be seen.
    """

    def __init__(self, outer: Socket, context: ssl.SSLContext, host: str, session: ssl.SSLSession | None) -> None:
        self.outer = outer
        if isinstance(outer, socket.socket):
            outer.setblocking(False)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        # bytes: for a str Python would import the idna codec, and no host name here is anything but ASCII
        name = host.encode("ascii")
        self._inner = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name, session=session)
        self._unsent = b""
        self._lowest: TlsSocket = outer._lowest if isinstance(outer, TlsSocket) else self
        self._received = False  # since something was asked for

    @property
    def session(self) -> ssl.SSLSession | None:
        """What resumes this connection."""
        return self._inner.session

    def do_handshake(self) -> None:
        """As SSLSocket's; like all calls here it raises SSLWantReadError, too, once OpenSSL has had what had come."""
        self._lowest._received = False
        self._run(self._inner.do_handshake)

    def recv_into(self, view: memoryview) -> int:
        """As SSLSocket's, but as many records of 16 KiB as have arrived and fit."""
        self._lowest._received = False
        count = self._run(lambda: int(self._inner.read(len(view), view)))
        with suppress(OSError):  # nothing more yet, or a fault that the next call meets again
            while count < len(view) and (more := int(self._inner.read(len(view) - count, view[count:]))):
                count += more
        return count

    def recv(self, size: int) -> bytes:
        """As SSLSocket's, for the connection inside, on whose behalf bytes are received once."""
        return self._run(lambda: self._inner.read(size))

    def send(self, data: memoryview) -> int:
        """As SSLSocket's; what was taken is sent with the next call where the outer connection takes no more."""
        self._flush()
        return self._flushed(self._inner.write(data))

    def pending(self) -> int:
        """As SSLSocket's: bytes that can be read although nothing comes any more."""
        outer = self.outer.pending() if isinstance(self.outer, TlsSocket) else 0
        return self._inner.pending() + self._incoming.pending + outer

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self.outer.fileno()

    def shutdown(self, how: int) -> None:
        """End every wait, from any thread."""
        self.outer.shutdown(how)

    def close(self) -> None:
        """Close both."""
        self.outer.close()

    def _run(self, call: Callable[[], T]) -> T:
        while True:
            self._flush()
            with suppress(ssl.SSLWantReadError):
                return self._flushed(call())
            self._flush()
            if self._lowest is self and self._received:
                raise ssl.SSLWantReadError
            self._received = True
            try:
                received = self.outer.recv(RECEIVED)
            except BlockingIOError as error:
                raise ssl.SSLWantReadError from error
            if received:
                self._incoming.write(received)
            else:
                self._incoming.write_eof()

    def _flushed(self, done: T) -> T:
        """`done`, having sent what can be sent now: what was read must not be lost to a wait."""
        with suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._flush()
        return done

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._unsent += self._outgoing.read()
        try:
            while self._unsent:
                self._unsent = self._unsent[self.outer.send(self._unsent) :]  # type: ignore[arg-type]
        except BlockingIOError as error:
            raise ssl.SSLWantWriteError from error
        except ConnectionError:
            self._unsent = b""  # nobody takes it any more; why, can still be read
            raise


class NotTlsError(NetworkError):
    """The other side answered, but not in TLS."""


class TlsContexts:
    """The contexts of one process, and for each origin the session to resume; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._contexts: dict[TlsIdentity, ssl.SSLContext] = {}
        self._whole: set[TlsIdentity] = set()  # for which all of the system's authorities were read
        self._sessions: dict[tuple[Origin, TlsIdentity], ssl.SSLSession] = {}

    def wrap(self, sock: Socket, origin: Origin, identity: TlsIdentity) -> TlsSocket:
        """TLS over the connected `sock`, which belongs to the result from now on, before its handshake.

        Raises ConfigurationError.
        """
        return TlsSocket(sock, self._context(identity), origin.host, self._sessions.get((origin, identity)))

    def remember(self, sock: Socket, origin: Origin, identity: TlsIdentity) -> None:
        """Keep the session of a connection that worked, for the next one to the same origin."""
        session: ssl.SSLSession | None = getattr(sock, "session", None)
        if session is None:
            return
        with self._lock:
            self._sessions[origin, identity] = session
            if len(self._sessions) > SESSIONS_LIMIT:
                del self._sessions[next(iter(self._sessions))]

    def prepare(self, identity: TlsIdentity) -> None:
        """Make what a handshake needs beforehand, in a thread, while the network is still busy connecting."""

        def make() -> None:
            with suppress(ConfigurationError):  # the handshake meets it again, where somebody can be told
                self._context(identity)

        if identity not in self._contexts:
            with suppress(CipError):  # no more threads for this process: the handshake makes it
                start_thread(make, "prepare tls")

    def trust_all(self, identity: TlsIdentity) -> bool:
        """Read every authority of the system, for an issuer that was not found; whether that may change anything."""
        with self._lock:
            if identity in self._whole or not identity.verify:
                return False
            self._whole.add(identity)
            self._contexts.pop(identity, None)
            for key in [key for key in self._sessions if key[1] == identity]:
                del self._sessions[key]  # a session belongs to its context
            return True

    def _context(self, identity: TlsIdentity) -> ssl.SSLContext:
        with self._lock:
            context = self._contexts.get(identity)
            if context is None:
                context, whole = _make_context(identity, whole=identity in self._whole)
                self._contexts[identity] = context
                if whole:
                    self._whole.add(identity)
            return context


def _make_context(identity: TlsIdentity, *, whole: bool = False) -> tuple[ssl.SSLContext, bool]:
    """A context, and whether it knows every authority of the system, as it must with `whole`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    # a body that is cut is told by its length; a server that forgets to say goodbye is not a broken one
    context.options |= ssl.OP_NO_COMPRESSION | getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    if identity.verify:
        # each certificate that is listed is an anchor; X509_V_FLAG_POLICY_CHECK: RFC 5280, 4.2.1.11
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(0x80)
        context.hostname_checks_common_name = False  # RFC 9525: a common name may be anything
        whole = _trust_system(context, whole=whole)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    _require_files(*identity.authorities, *(path for pair in identity.pairs for path in pair))
    for path in identity.authorities:
        try:
            context.load_verify_locations(cafile=path)
        except ssl.SSLError:
            continue  # registry.md 5.1: a file without a certificate is silently useless
        except OSError as error:
            raise ConfigurationError(path, f"cannot be read: {system_reason(error)}") from error
    for certificate, key in identity.pairs:
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except (ssl.SSLError, OSError, CipError) as error:
            why = f"not a usable client certificate with the key {key}: {reason_of(error)}"
            raise ConfigurationError(certificate, why) from error
    return context, whole


def _require_files(*paths: str) -> None:
    """OpenSSL reads without an end: what a pipe or a terminal may bring, and any length. Raises ConfigurationError."""
    there = [path for path in paths if os.path.exists(path)]
    for path in there:
        if not (os.path.isfile(path) or os.path.isdir(path) or os.path.samefile(path, os.devnull)):
            raise ConfigurationError(path, "expected a regular file")
    if sum(map(os.path.getsize, there)) > CERTIFICATES_LIMIT:
        raise ConfigurationError(there[-1], f"expected at most {CERTIFICATES_LIMIT} bytes of certificates, found more")


def _trust_system(context: ssl.SSLContext, *, whole: bool) -> bool:
    """Trust the system's authorities; whether all of them were read.

    Reading them takes 25 ms, longer than all the rest of a handshake, and one of them is needed. So where the system
    has a directory that is indexed by name, that is all OpenSSL gets: a part of what it would trust anyway.
    """
    paths = ssl.get_default_verify_paths()
    chosen = paths.cafile is not None and paths.cafile != paths.openssl_cafile  # SSL_CERT_FILE
    indexed = False
    with suppress(OSError):  # ENOENT, EACCES: nothing to look up in
        indexed = paths.capath is not None and any(name.endswith(".0") for name in os.listdir(paths.capath))
    if whole or chosen or not indexed:
        _require_files(os.environ.get(paths.openssl_cafile_env) or paths.openssl_cafile)
        context.set_default_verify_paths()
        return True
    context.load_verify_locations(capath=paths.capath)
    return False


def _no_password() -> str:
    raise ConfigurationError("client key", "it is encrypted, expected one without a password")


def _certificate_error(error: ssl.SSLCertVerificationError, host: str, via: str, identity: TlsIdentity) -> SourceError:
    code = error.verify_code
    reason = redacted(error.verify_message or "").lower()  # it names the host, which a redirect may have chosen
    if code in (_EXPIRED, _NOT_YET_VALID):
        state = "has expired" if code == _EXPIRED else "is not valid yet"
        local = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        why = f"its certificate {state}; the clock of this host says {local}"
        kind = ErrorCode.TLS_EXPIRED if code == _EXPIRED else ErrorCode.TLS_NOT_YET_VALID
    elif code in (_HOST_MISMATCH, _ADDRESS_MISMATCH):
        why = f"its certificate is for another name: {reason}"
        kind = ErrorCode.TLS_NAME_MISMATCH
    else:
        where = f"; its authority belongs into {identity.searched[0]} as a .crt file" if identity.searched else ""
        why = f"its certificate is not trusted: {reason}{where}"
        kind = ErrorCode.TLS_UNTRUSTED
    return SourceError.at(host, f"{why} ({via})", code=kind, phase=Phase.TLS)


def protocol_error(error: Exception, host: str, via: str, identity: TlsIdentity) -> SourceError:
    """What a fault of a handshake or of the protocol, or an alert means, whenever it is met."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_error(error, host, via, identity)
    reason = getattr(error, "reason", None) or ""
    if reason in _CERTIFICATE_ALERTS.split():
        shown = "does not accept our client certificate" if identity.pairs else "demands a client certificate"
        looked = f"; looked for one in {', '.join(identity.searched)}" if identity.searched else ""
        why = f"it {shown} ({reason_of(error)}){looked} ({via})"
        return SourceError.at(host, why, code=ErrorCode.TLS_CLIENT_CERTIFICATE, phase=Phase.TLS)
    if reason in _NOT_TLS.split():
        why = f"expected tls, found another protocol, perhaps plain http ({via})"
        return NotTlsError.at(host, why, code=ErrorCode.REGISTRY_ERROR, phase=Phase.TLS)
    ended = isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) or not isinstance(error, ssl.SSLError)
    if ended or reason in _DAMAGED.split():
        return NetworkError.at(host, f"the connection broke during the tls handshake ({via})", phase=Phase.TLS)
    why = f"tls failed: {reason_of(error)} ({via})"
    return NetworkError.at(host, why, code=ErrorCode.REGISTRY_ERROR, phase=Phase.TLS)


def reason_of(error: Exception) -> str:
    """What OpenSSL or the system says, in words."""
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return str(reason).lower().replace("_", " ")

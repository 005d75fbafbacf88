# SPDX-License-Identifier: Apache-2.0
"""TLS: what a failed handshake means, and handshakes with somebody who does not speak it."""

import os
import socket
import ssl
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from unittest import mock

from cip.errors import ConfigurationError, ErrorCode, NetworkError, Phase, SourceError
from cip.net import tls
from cip.net.channel import Channel
from cip.net.connection import Connection, Route
from cip.net.limits import Cancellation, Clock, Limits
from cip.net.tls import NotTlsError, TlsContexts, TlsIdentity, TlsSocket
from cip.net.url import Origin
from cip.settings import TimeLimits
from tests.support.leaks import LeakCheckedTestCase, await_end
from tests.support.parent import PATIENCE
from tests.unit.test_channel import send_for_ever

ORIGIN = Origin("https", "r.example", 443)
NOBODY = TlsIdentity(verify=False)


def certificate_fault(code: int, message: str) -> ssl.SSLCertVerificationError:
    fault = ssl.SSLCertVerificationError(1, "x")
    fault.verify_code, fault.verify_message = code, message
    return fault


class MeaningTest(LeakCheckedTestCase):
    def test_each_fault_of_a_certificate_has_its_code(self) -> None:
        for number, message, code, reason in (
            (10, "certificate has expired", ErrorCode.TLS_EXPIRED, r"has expired; the clock of this host says 2"),
            (9, "not yet valid", ErrorCode.TLS_NOT_YET_VALID, r"is not valid yet; the clock of this host"),
            (62, "Hostname mismatch", ErrorCode.TLS_NAME_MISMATCH, "for another name: hostname mismatch"),
            (64, "IP address mismatch", ErrorCode.TLS_NAME_MISMATCH, "for another name: ip address mismatch"),
            (18, "self-signed certificate", ErrorCode.TLS_UNTRUSTED, "not trusted: self-signed certificate"),
            (20, "unable to get local issuer", ErrorCode.TLS_UNTRUSTED, "not trusted: unable to get"),
        ):
            with self.subTest(number):
                error = tls._certificate_error(certificate_fault(number, message), "r:443", "direct", TlsIdentity())
                self.assertRegex(str(error), f"^r:443: its certificate .*{reason}.* \\(direct\\)$")
                self.assertEqual((error.code, error.phase, error.retryable), (code, Phase.TLS, False))


class HandshakeTest(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.ours, self.theirs = socket.socketpair()
        self.addCleanup(self.theirs.close)
        self.addCleanup(self.ours.close)

    def handshake(
        self, seconds: float = PATIENCE, identity: TlsIdentity = NOBODY, cancellation: Cancellation | None = None
    ) -> None:
        connection = Connection(Route(ORIGIN, identity), TlsContexts())
        connection.limits = Limits(Clock(), TimeLimits(tls_handshake=seconds), cancellation or Cancellation())
        with closing(Channel(self.ours, connection.limits, "r.example:443", "direct")) as channel:
            connection._secure(channel, ORIGIN, identity)

    def test_a_connection_that_was_reset_before_its_first_byte_is_lost(self) -> None:
        with mock.patch.object(TlsSocket, "do_handshake", side_effect=ConnectionResetError(104, "reset")):
            with self.assertRaisesRegex(NetworkError, "broke during the tls handshake") as caught:
                self.handshake()
        self.assertIs(caught.exception.code, ErrorCode.CONNECTION_LOST)

    def test_an_answer_in_another_protocol_is_told_from_a_fault(self) -> None:
        for data in (b"HTTP/1.0 400 Bad Request\r\n\r\n", b"HTTP/1.1 400\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"):
            with self.subTest(data):
                self.setUp()
                self.theirs.sendall(data)
                with self.assertRaisesRegex(NotTlsError, "expected tls, found another protocol") as caught:
                    self.handshake()
                self.assertFalse(caught.exception.retryable)

    def test_silence_is_a_time_out(self) -> None:
        with self.assertRaisesRegex(NetworkError, r"no tls handshake within 0.03 s \(direct\)") as caught:
            self.handshake(0.03)
        self.assertEqual((caught.exception.code, caught.exception.phase), (ErrorCode.TIMEOUT, Phase.TLS))

    def test_a_drip_does_not_outlast_the_limit(self) -> None:
        end = threading.Event()

        def drip() -> None:
            try:
                for byte in b"\x16\x03\x03\x40\x00" + b"\x02" * 10000:
                    self.theirs.sendall(bytes((byte,)))
                    if end.wait(0.005):
                        return
            except OSError:
                return  # the other side has had enough

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            with self.assertRaises(NetworkError):
                self.handshake(0.05)
        finally:
            end.set()
            thread.join()

    def test_what_comes_without_end_does_not_outlast_the_limit(self) -> None:
        """OpenSSL passes over a request for a new handshake, and goes on to the next one for as long as some come."""
        thread = threading.Thread(target=send_for_ever, args=(self.theirs, b"\x16\x03\x03\0\x04\0\0\0\0" * 5000))
        thread.start()
        with self.assertRaisesRegex(NetworkError, "no tls handshake within 0.05 s"):
            self.handshake(0.05)
        thread.join(PATIENCE)
        self.assertFalse(thread.is_alive())

    def test_one_that_was_called_off_ends(self) -> None:
        cancellation = Cancellation()
        caller = threading.Timer(0.02, cancellation.cancel)
        caller.start()
        with self.assertRaisesRegex(NetworkError, "given up by the caller"):
            self.handshake(PATIENCE, cancellation=cancellation)
        caller.join()
        self.theirs.settimeout(PATIENCE)
        while self.theirs.recv(65536):  # its hello, and then the end: it is not left open
            continue

    def test_an_end_is_a_lost_connection(self) -> None:
        def leave() -> None:
            self.theirs.recv(1)
            self.theirs.close()

        closer = threading.Thread(target=leave)
        closer.start()
        with self.assertRaisesRegex(NetworkError, "the connection broke during the tls handshake") as caught:
            self.handshake()
        closer.join()
        self.assertIs(caught.exception.code, ErrorCode.CONNECTION_LOST)

    def test_an_alert_is_told_with_its_name(self) -> None:
        self.theirs.sendall(b"\x15\x03\x03\x00\x02\x02\x28")  # fatal, handshake_failure
        with self.assertRaisesRegex(SourceError, "tls failed: .*alert handshake failure") as caught:
            self.handshake()
        self.assertIs(caught.exception.code, ErrorCode.REGISTRY_ERROR)


class ContextTest(LeakCheckedTestCase):
    def test_old_versions_and_weak_suites_are_off(self) -> None:
        context, _ = tls._make_context(NOBODY)
        self.assertEqual(context.minimum_version, ssl.TLSVersion.TLSv1_2)
        for suite in context.get_ciphers():
            with self.subTest(suite["name"]):
                self.assertTrue(suite["name"].startswith(("TLS_", "ECDHE-")))
                self.assertTrue("GCM" in suite["name"] or "CHACHA20" in suite["name"], suite["name"])

    def test_verification_is_whole_or_not_at_all(self) -> None:
        for verify in (True, False):
            context, _ = tls._make_context(TlsIdentity(verify))
            self.assertEqual((context.verify_mode is ssl.CERT_REQUIRED, context.check_hostname), (verify, verify))

    def test_a_file_without_a_certificate_is_silently_useless(self) -> None:
        # registry.md M21
        path = self.directory / "x.crt"
        path.write_text("garbage")
        tls._make_context(TlsIdentity(True, (str(path),)))

    def test_unusable_files_stop_the_request(self) -> None:
        pair = (str(self.write("c.cert")), str(self.write("c.key")))
        for identity, reason in (
            (TlsIdentity(True, (str(self.directory / "none.crt"),)), "none.crt: cannot be read: no such file"),
            (TlsIdentity(True, (), (pair,)), "c.cert: not a usable client certificate with the key .*c.key"),
        ):
            with self.subTest(reason), self.assertRaisesRegex(ConfigurationError, reason):
                tls._make_context(identity)

    def test_what_might_never_end_is_not_read(self) -> None:
        pipe = str(self.directory / "pipe")
        os.mkfifo(pipe)
        file = str(self.directory / "file")
        Path(file).touch()
        for path in (pipe, "/dev/ptmx"):
            for identity in (
                TlsIdentity(True, (path,)),
                TlsIdentity(True, (), ((path, file),)),
                TlsIdentity(False, (), ((file, path),)),
            ):
                with self.subTest(identity), self.assertRaisesRegex(ConfigurationError, "expected a regular file"):
                    tls._make_context(identity)
            with (
                self.subTest(SSL_CERT_FILE=path),
                mock.patch.dict(os.environ, {"SSL_CERT_FILE": path}),
                self.assertRaisesRegex(ConfigurationError, "expected a regular file"),
            ):
                tls._make_context(TlsIdentity(), whole=True)
        tls._make_context(TlsIdentity(True, (os.devnull,)))

    def test_very_many_or_very_long_certificates_are_refused(self) -> None:
        files = tuple(str(self.directory / f"{number}.crt") for number in range(3))
        for file in files:
            Path(file).write_text("\n" * (tls.CERTIFICATES_LIMIT // 3))
        tls._make_context(TlsIdentity(True, files))
        Path(files[1]).write_text("\n" * (tls.CERTIFICATES_LIMIT // 2))
        with self.assertRaisesRegex(ConfigurationError, "2.crt: expected at most 4194304 bytes"):
            tls._make_context(TlsIdentity(True, files))

    def test_where_the_system_has_an_index_only_that_is_read_at_first(self) -> None:
        file = self.write("all.pem")
        for name, indexed, chosen in (("x.pem", False, False), ("12345678.0", True, False), ("x.0", True, True)):
            with self.subTest(name=name, chosen=chosen):
                directory = Path(tempfile.mkdtemp(dir=self.directory))
                (directory / name).touch()
                default = str(self.directory / "none.pem")
                paths = ssl.get_default_verify_paths()._replace(
                    cafile=str(file) if chosen else default, capath=str(directory), openssl_cafile=default
                )
                with mock.patch.object(ssl, "get_default_verify_paths", return_value=paths):
                    self.assertIs(tls._make_context(TlsIdentity())[1], not indexed or chosen)
                    self.assertTrue(tls._make_context(TlsIdentity(), whole=True)[1])

    def test_an_issuer_that_was_not_found_is_looked_for_everywhere_once(self) -> None:
        contexts = TlsContexts()
        for identity, first in ((NOBODY, False), (TlsIdentity(), True)):
            self.assertEqual([contexts.trust_all(identity) for _ in range(2)], [first, False])

    def test_a_context_can_be_made_while_the_network_is_busy(self) -> None:
        contexts = TlsContexts()
        contexts.prepare(TlsIdentity(authorities=("/nowhere/x.crt",)))  # a fault is for the handshake to tell
        contexts.prepare(NOBODY)
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
            contexts.prepare(TlsIdentity())
        self.assertIs(contexts._context(NOBODY), contexts._context(NOBODY))
        for thread in threading.enumerate():
            if thread.name == "prepare tls":
                await_end(thread)

    def test_one_identity_has_one_context(self) -> None:
        contexts = TlsContexts()
        self.assertIs(contexts._context(NOBODY), contexts._context(TlsIdentity(verify=False)))
        self.assertIsNot(contexts._context(NOBODY), contexts._context(TlsIdentity()))

    def write(self, name: str) -> Path:
        path = self.directory / name
        path.write_text("garbage")
        return path

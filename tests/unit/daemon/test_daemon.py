# SPDX-License-Identifier: Apache-2.0
"""`docker-daemon:`: what is asked of a daemon, what answers mean, and that no wait is without end (images.md 3.7)."""

import socket
import unittest
from unittest import mock

from cip.errors import CipError, ConfigurationError, ErrorCode, NetworkError, Phase, UsageError
from cip.model.reference import Transport, parse_image_reference
from cip.net import connection
from cip.net.tls import TlsIdentity
from cip.net.url import Origin
from cip.programs import DirectPrograms
from cip.settings import Settings, TimeLimits
from cip.sources import daemon
from cip.sources.archives.dockerarchive import DockerArchiveSource
from cip.sources.archives.spool import Spools
from cip.sources.daemon import DaemonAddress, open_daemon, parse_daemon_host
from cip.temporary import TemporaryFile, TemporarySpace
from tests.support import images
from tests.support.daemon import Answer, PlayedDaemon, refusal, silence, stream, verbatim
from tests.support.leaks import LeakCheckedTestCase

SAVED = images.docker_save(images.CONFIG_C, [images.LAYER_T], "x:1")
NAME = "docker.io/library/x:1"


class Addresses(unittest.TestCase):
    def test_addresses_are_parsed(self) -> None:
        for text, address in (
            ("unix:///var/run/docker.sock", DaemonAddress(path="/var/run/docker.sock")),
            ("unix://relative", DaemonAddress(path="relative")),
            ("http://host", DaemonAddress(host="host", port=2375)),
            ("http://127.0.0.1:80/", DaemonAddress(host="127.0.0.1", port=80)),
            ("tcp://host:1", DaemonAddress(host="host", port=1, tls=True)),
            ("https://[::1]", DaemonAddress(host="::1", port=2376, tls=True)),
        ):
            with self.subTest(text):
                self.assertEqual(parse_daemon_host(text), address)

    def test_password_in_the_address_is_not_shown(self) -> None:
        for text in (
            "tcp://robot:hunter2-d@h:1",
            "ssh://robot:hunter2-d@h",
            "robot:hunter2-d@h:2375",
            "http://h/?t=hunter2-d",
            "robot:hunter2-d@x://h",
            "https://hunter2-d@[h",
        ):
            with self.subTest(text), self.assertRaises(UsageError) as caught:
                parse_daemon_host(text)
            self.assertNotIn("hunter2", str(caught.exception))

    def test_anything_else_is_wrong_usage(self) -> None:
        for text, reason in (
            ("/var/run/docker.sock", "expected SCHEME://ADDRESS"),
            ("unix://", "expected a path"),
            ("unix://a\0b", "expected SCHEME"),
            ("npipe:////./pipe/docker", "expected unix, http, tcp or https, found 'npipe'"),
            ("ssh://host", "found 'ssh'"),
            ("http://", "expected HOST"),
            ("tcp://user@host", "expected HOST"),
            ("tcp://host/path", "expected HOST"),
            ("tcp://host:x", "not a host and port"),
            ("tcp://host:99999", "not a host and port"),
        ):
            with self.subTest(text), self.assertRaisesRegex(UsageError, f"--daemon-host '.*{reason}"):
                parse_daemon_host(text)


class DaemonTestCase(LeakCheckedTestCase):
    times = TimeLimits()

    def open(self, rest: str, played: PlayedDaemon, *, spools: Spools | None = None) -> DockerArchiveSource:
        self.addCleanup(played.close)
        reference = parse_image_reference(f"docker-daemon:{rest}")

        with mock.patch.object(daemon, "connect_local", lambda path, limits: played.connect()):
            settings = Settings(tmpdir=str(self.directory), times=self.times)
            spools = spools or Spools(TemporarySpace(settings.tmpdir, 1 << 30), DirectPrograms())
            source = open_daemon(reference, settings, spools)
        self.addCleanup(source.close)
        return source

    def refused(self, reason: str, code: ErrorCode, *answers: Answer) -> CipError:
        with self.assertRaisesRegex(CipError, reason) as caught:
            self.open("x:1", PlayedDaemon({NAME: answers[0]} if answers else {}))
        self.assertIs(caught.exception.code, code)
        self.assertEqual(list(self.directory.iterdir()), [])
        return caught.exception


class Conversations(DaemonTestCase):
    def test_the_stream_is_read_as_an_archive(self) -> None:
        played = PlayedDaemon({NAME: stream(SAVED)})
        source = self.open("x:1", played)
        self.assertEqual(source.manifest(None).data, images.MANIFEST_S)
        self.assertEqual(played.requests, ["/_ping", "/v1.41/images/get?names=docker.io%2Flibrary%2Fx%3A1"])
        identity = source.identity
        self.assertEqual((identity.transport, identity.identity), (Transport.DOCKER_DAEMON, NAME))
        self.assertEqual(identity.scopes, ("docker.io/library/x", "docker.io/library", "docker.io", "*.io"))

    def test_an_image_id_has_no_name(self) -> None:
        played = PlayedDaemon({str(images.DIGEST_C): stream(SAVED)})
        source = self.open(str(images.DIGEST_C), played)
        self.assertEqual((source.identity.identity, source.identity.docker), ("", None))

    def test_a_daemon_without_a_usable_version_is_asked_without_one(self) -> None:
        for version in ("", "1.41/../x", "x"):
            played = PlayedDaemon({NAME: stream(SAVED)}, api_version=version)
            self.open("x:1", played)
            self.assertEqual(played.requests[1], "/images/get?names=docker.io%2Flibrary%2Fx%3A1")

    def test_handles_share_one_stream(self) -> None:
        played = PlayedDaemon({NAME: stream(SAVED)})
        spools = Spools(TemporarySpace(str(self.directory), 1 << 30), DirectPrograms())
        first = self.open("x:1", played, spools=spools)
        second = self.open("x:1", played, spools=spools)
        first.close()
        self.assertEqual(len(played.requests), 2)
        self.assertEqual(second.manifest(None).data, images.MANIFEST_S)

    def test_bodies_of_every_framing_are_taken(self) -> None:
        for head in (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(SAVED), b"HTTP/1.0 200 OK\r\n\r\n"):
            self.assertEqual(
                self.open("x:1", PlayedDaemon({NAME: verbatim(head + SAVED)})).manifest(None).data, images.MANIFEST_S
            )

    def test_exactly_one_image_is_expected(self) -> None:
        two = images.docker_archive(
            [images.SavedImage("c", ()), images.SavedImage("c", ())], [images.Member(b"c", images.config([]))]
        )
        self.refused("choose one of 2 images", ErrorCode.REFERENCE_INVALID, stream(two))


class Refusals(DaemonTestCase):
    def test_the_daemon_s_own_words_are_repeated(self) -> None:
        """wire.md 4.4 knows no missing image for this transport."""
        error = self.refused(
            "the daemon answers 404: 'reference does not exist: docker.io/library/x:1'", ErrorCode.REGISTRY_ERROR
        )
        self.assertEqual((error.http_status, error.phase, error.retryable), (404, Phase.MANIFEST, False))
        error = self.refused("answers 500: 'x{10}.*…", ErrorCode.REGISTRY_ERROR, refusal(500, "x" * 1000))
        self.assertTrue(error.retryable)
        self.refused(
            "answers 302$",
            ErrorCode.REGISTRY_ERROR,
            verbatim(b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n"),
        )

    def test_answers_that_are_cut_are_no_answers(self) -> None:
        length = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(SAVED)
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for case, text, reason in (
            ("nothing", b"", "the connection ended before its answer"),
            ("short", length + SAVED[:5000], f"ended early: expected {len(SAVED)} bytes, found 5000"),
            ("cut chunk", chunked + b"ffff\r\n" + SAVED[:5000], "ended early: expected more, found 5000"),
            ("no last chunk", chunked + b"200\r\n" + SAVED[:512] + b"\r\n", "the connection ended in the middle"),
        ):
            with self.subTest(case):
                error = self.refused(reason, ErrorCode.CONNECTION_LOST, verbatim(text))
                self.assertTrue(error.retryable)
        for case, text, reason in (
            ("no HTTP", b"hello\r\n\r\n", "expected HTTP/1.1 STATUS REASON, found 'hello'"),
            ("bad chunk", chunked + b"xyz\r\n", "expected the size of a chunk"),
            ("endless header", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "more than 65536 bytes"),
        ):
            with self.subTest(case):
                self.refused(reason, ErrorCode.REGISTRY_ERROR, verbatim(text))

    def test_a_stream_that_ends_in_a_member_is_refused(self) -> None:
        self.refused(
            "the file ends before", ErrorCode.MANIFEST_INVALID, verbatim(b"HTTP/1.0 200 OK\r\n\r\n" + SAVED[:5000])
        )


class Unreachable(LeakCheckedTestCase):
    def test_an_address_with_colons_is_not_taken_for_a_host_and_a_port(self) -> None:
        export = daemon._Export("docker-daemon:x:1", parse_daemon_host("http://[fe80::abcd]:2375"), Settings())
        fault = NetworkError("refused", code=ErrorCode.CONNECTION_REFUSED, phase=Phase.CONNECT)
        with mock.patch.object(connection, "connect", side_effect=fault) as connect:
            with self.assertRaisesRegex(NetworkError, "is the daemon running") as caught:
                export.save("x", TemporaryFile(-1, TemporarySpace("", 0)))
        self.assertIs(caught.exception.code, ErrorCode.CONNECTION_REFUSED)
        self.assertEqual(connect.call_args.args[0], Origin("http", "fe80::abcd", 2375))

    def test_a_socket_that_is_not_there_is_an_unavailable_source(self) -> None:
        export = daemon._Export("docker-daemon:x:1", DaemonAddress(path=f"{self.directory}/absent"), Settings())
        with self.assertRaisesRegex(CipError, "absent: no such file.*is the daemon running") as caught:
            export.save("x", TemporaryFile(-1, TemporarySpace("", 0)))
        self.assertEqual((caught.exception.code, caught.exception.retryable), (ErrorCode.SOURCE_UNAVAILABLE, False))


class Offline(DaemonTestCase):
    def test_a_daemon_behind_the_network_is_not_asked(self) -> None:
        reference = parse_image_reference("docker-daemon:x:1")
        settings = Settings(offline=True, daemon_host="tcp://192.0.2.1:2376")
        with self.assertRaisesRegex(CipError, "--offline forbids to ask the daemon at 192.0.2.1") as caught:
            open_daemon(reference, settings, Spools(TemporarySpace(str(self.directory), 1 << 30), DirectPrograms()))
        self.assertIs(caught.exception.code, ErrorCode.OFFLINE)


class Waiting(DaemonTestCase):
    def test_a_silent_daemon_is_a_time_out(self) -> None:
        for times in (TimeLimits(open=0.1, idle=30), TimeLimits(open=30, idle=30, deadline=0.1)):
            self.times = times
            self.refused("no (byte|complete answer) within the time for this request", ErrorCode.TIMEOUT, silence)

    def test_silence_between_bytes_is_a_time_out(self) -> None:
        self.times = TimeLimits(open=30, idle=0.1)

        def stall(connection: socket.socket) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
            silence(connection)

        self.refused("no byte within 0.1 s", ErrorCode.TIMEOUT, stall)


class Certificates(LeakCheckedTestCase):
    def identity(self) -> TlsIdentity:
        return daemon._identity("docker-daemon:x:1", Settings(cert_dir=str(self.directory)))

    def test_files_that_are_there_are_used(self) -> None:
        self.assertEqual(self.identity(), TlsIdentity(searched=(str(self.directory),)))
        paths = {name: self.directory / name for name in ("ca.pem", "cert.pem", "key.pem")}
        for path in paths.values():
            path.write_bytes(b"")
        ca, cert, key = map(str, paths.values())
        self.assertEqual(self.identity(), TlsIdentity(True, (ca,), ((cert, key),), (str(self.directory),)))

    def test_files_that_do_not_belong_together_are_refused(self) -> None:
        (self.directory / "cert.pem").write_bytes(b"")
        with self.assertRaisesRegex(ConfigurationError, "expected cert.pem and key.pem, found one"):
            self.identity()


if __name__ == "__main__":
    unittest.main()

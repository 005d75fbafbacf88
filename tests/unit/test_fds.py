# SPDX-License-Identifier: Apache-2.0
import os
import socket
import tempfile
import unittest
from pathlib import Path

from cip.errors import PeerError
from cip.wire.fds import adopt_socket, adopt_streams, adopt_writer


def open_descriptors() -> set[int]:
    """Numbers of all open descriptors but the one that lists them."""
    listed = {int(name) for name in os.listdir("/proc/self/fd")}
    return {fd for fd in listed if os.path.lexists(f"/proc/self/fd/{fd}")}


class NothingLeaks(unittest.TestCase):
    def setUp(self) -> None:
        before = open_descriptors()
        self.addCleanup(lambda: self.assertEqual(open_descriptors(), before))


class InheritedSocket(NothingLeaks):
    def test_belongs_to_the_caller_and_works(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, adopt_socket(theirs.detach(), socket.SOCK_STREAM) as sock:
            self.assertEqual((sock.family, sock.type), (socket.AF_UNIX, socket.SOCK_STREAM))
            ours.sendall(b"x")
            self.assertEqual(sock.recv(1), b"x")

    def test_is_made_blocking_and_private(self) -> None:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        theirs.set_inheritable(True)
        with ours, adopt_socket(theirs.detach(), socket.SOCK_STREAM) as sock:
            self.assertTrue(os.get_blocking(sock.fileno()))
            self.assertFalse(sock.get_inheritable())

    def test_is_adopted_although_the_parent_has_closed_its_end(self) -> None:
        ours, theirs = socket.socketpair()
        ours.close()
        with adopt_socket(theirs.detach(), socket.SOCK_STREAM) as sock:
            self.assertEqual(sock.recv(1), b"")

    def test_of_another_kind_is_refused_and_left_open(self) -> None:
        for wanted, found in (
            (socket.SOCK_STREAM, socket.SOCK_SEQPACKET),
            (socket.SOCK_STREAM, socket.SOCK_DGRAM),
            (socket.SOCK_SEQPACKET, socket.SOCK_STREAM),
        ):
            ours, theirs = socket.socketpair(type=found)
            with self.subTest(found=found.name), ours, theirs:
                with self.assertRaisesRegex(PeerError, f"expected a {wanted.name} socket, found {found.name}"):
                    adopt_socket(theirs.fileno(), wanted)
                theirs.getpeername()

    def test_that_is_not_connected_is_refused(self) -> None:
        with socket.socket(socket.AF_UNIX) as lonely:
            with self.assertRaisesRegex(PeerError, "endpoint is not connected"):
                adopt_socket(lonely.fileno(), socket.SOCK_STREAM)

    def test_number_that_is_no_socket_is_refused_with_the_reason(self) -> None:
        with tempfile.TemporaryFile() as file:
            reason = f"descriptor {file.fileno()}: socket operation on non-socket; a parent hands over one end"
            with self.assertRaisesRegex(PeerError, reason):
                adopt_socket(file.fileno(), socket.SOCK_STREAM)
        for case, fd, reason in (
            ("closed", 999_999, "bad file descriptor"),
            ("negative", -1, "descriptor -1: "),
            ("too big", 2**40, f"descriptor {2**40}: "),
            ("stderr", 2, "where log lines go"),
        ):
            with self.subTest(case), self.assertRaisesRegex(PeerError, reason):
                adopt_socket(fd, socket.SOCK_STREAM)


class StandardStreams(NothingLeaks):
    def setUp(self) -> None:
        super().setUp()
        self.input, self.from_parent = os.pipe()
        self.to_parent, self.output = os.pipe()
        for fd in (self.input, self.from_parent, self.to_parent, self.output):
            self.addCleanup(os.close, fd)

    def test_are_moved_away_so_that_stray_writes_miss_the_wire(self) -> None:
        with adopt_streams(self.input, self.output) as (input_fd, output_fd):
            os.write(self.from_parent, b"request")
            self.assertEqual(os.read(input_fd, 100), b"request")
            self.assertEqual(os.read(self.input, 100), b"")
            self.assertEqual(os.fstat(self.output).st_ino, os.fstat(2).st_ino)
            os.write(output_fd, b"answer")
            self.assertEqual(os.read(self.to_parent, 100), b"answer")

    def test_are_private_blocking_and_above_the_standard_numbers(self) -> None:
        os.set_blocking(self.input, False)
        with adopt_streams(self.input, self.output) as (input_fd, output_fd):
            for fd in (input_fd, output_fd):
                self.assertGreater(fd, 2)
                self.assertTrue(os.get_blocking(fd))
                self.assertFalse(os.get_inheritable(fd))

    def test_may_be_one_socket_twice(self) -> None:
        ours, theirs = socket.socketpair()
        copy = os.dup(theirs.fileno())
        with ours, theirs:
            try:
                with adopt_streams(theirs.fileno(), copy) as (input_fd, output_fd):
                    ours.sendall(b"x")
                    self.assertEqual(os.read(input_fd, 1), b"x")
                    os.write(output_fd, b"y")
                    self.assertEqual(ours.recv(1), b"y")
            finally:
                os.close(copy)

    def test_in_the_wrong_direction_are_refused(self) -> None:
        with self.assertRaisesRegex(PeerError, "expected it to be open for reading"):
            adopt_streams(self.output, self.output).__enter__()
        with self.assertRaisesRegex(PeerError, "expected it to be open for writing"):
            adopt_streams(self.input, self.input).__enter__()

    def test_that_are_closed_are_refused(self) -> None:
        with self.assertRaisesRegex(PeerError, "descriptor 999999: bad file descriptor"):
            adopt_streams(999_999, self.output).__enter__()


class Writers(NothingLeaks):
    def test_is_checked_and_made_private(self) -> None:
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        os.set_blocking(writer, False)
        try:
            self.assertEqual(adopt_writer(writer, "--events-fd"), writer)
            self.assertFalse(os.get_inheritable(writer))
            self.assertTrue(os.get_blocking(writer))
        finally:
            os.close(reader)
            os.close(writer)

    def test_that_cannot_be_written_is_refused_by_the_name_of_its_flag(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "file")
            path.touch()
            with path.open("rb") as file:
                with self.assertRaisesRegex(PeerError, r"--audit-fd \d+: expected it to be open for writing"):
                    adopt_writer(file.fileno(), "--audit-fd")
        for fd in (999_999, -1, 2**40):
            with self.subTest(fd=fd), self.assertRaisesRegex(PeerError, f"--audit-fd {fd}: "):
                adopt_writer(fd, "--audit-fd")


if __name__ == "__main__":
    unittest.main()

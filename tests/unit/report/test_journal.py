# SPDX-License-Identifier: Apache-2.0
"""Entries for the systemd journal, taken by a socket that stands in for its own."""

from __future__ import annotations

import os
import re
import socket
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from cip.errors import UsageError
from cip.report.journal import KINDS, TEXT_LIMIT, Journal, encode


def decode(entry: bytes) -> dict[str, str]:
    """As the journal reads an entry (systemd, "Native Journal Protocol")."""
    fields = {}
    while entry:
        line, _, rest = entry.partition(b"\n")
        name, mark, value = line.partition(b"=")
        if not mark:
            size = int.from_bytes(rest[:8], "little")
            value, end, rest = rest[8 : 8 + size], rest[8 + size : 9 + size], rest[9 + size :]
            assert end == b"\n", entry
        fields[name.decode()] = value.decode()
        entry = rest
    return fields


class JournalCase(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.path = str(Path(scratch.name, "socket"))
        self.daemon = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.daemon.close)
        self.daemon.bind(self.path)
        self.daemon.setblocking(False)
        self.journal = Journal(self.path)
        self.addCleanup(self.journal.close)

    def entry(self) -> dict[str, str]:
        return decode(self.daemon.recv(1 << 20))


class Entries(JournalCase):
    def test_a_failed_open_has_code_host_digest_and_the_whole_sentence(self) -> None:
        self.journal.emit(
            "failed",
            image="docker://r.test/os:9",
            code="timeout",
            host="r.test:443",
            phase="manifest",
            digest="sha256:ab",
            detail="r.test:443: no answer within 20 s",
        )
        found = self.entry()
        self.assertEqual(found["MESSAGE"], "docker://r.test/os:9: r.test:443: no answer within 20 s")
        facts = [found[f"CIP_{name}"] for name in ("CODE", "HOST", "DIGEST")]
        self.assertEqual(facts, ["timeout", "r.test:443", "sha256:ab"])
        self.assertEqual((found["PRIORITY"], found["SYSLOG_IDENTIFIER"]), ("3", "container-image-proxy"))
        self.assertEqual((found["MESSAGE_ID"], found["SYSLOG_PID"]), (KINDS["failed"][0], str(os.getpid())))

    def test_decisions_and_repeats_have_ids_of_their_own(self) -> None:
        for event, members, kind in (
            ("policy", {"image": "i", "accepted": True, "scope": "default"}, "accepted"),
            ("policy", {"image": "i", "accepted": False, "scope": "default"}, "refused"),
            ("retry", {"code": "timeout", "wait": 1.0, "digest": None}, "retry"),
            ("throttled", {"host": "r.test", "wait": 2.0}, "throttled"),
            ("source", {"digest": "sha256:ab", "from": "a", "to": "b", "reason": "timeout"}, "source"),
        ):
            with self.subTest(kind):
                self.journal.emit(event, **members)
                found = self.entry()
                self.assertEqual(found["MESSAGE_ID"], KINDS[kind][0])
                self.assertNotIn("None", found["MESSAGE"])

    def test_what_is_no_fault_and_no_decision_is_left_out(self) -> None:
        for event in ("plan", "progress", "done", "auth"):
            self.journal.emit(event, image="i")
        with self.assertRaises(BlockingIOError):
            self.daemon.recv(1)

    def test_ids_are_128_bits_and_all_different(self) -> None:
        ids = [each for each, _, _ in KINDS.values()]
        self.assertEqual(len(set(ids)), len(KINDS))
        for each in ids:
            self.assertRegex(each, re.compile("[0-9a-f]{32}"))

    def test_hostile_text_stays_in_its_field(self) -> None:
        text = "a\nPRIORITY=0\nMESSAGE_ID=x" + "y" * (2 * TEXT_LIMIT)
        self.journal.emit("failed", image="i", code="timeout", detail=text)
        found = self.entry()
        self.assertEqual((found["PRIORITY"], found["MESSAGE_ID"]), ("3", KINDS["failed"][0]))
        self.assertLessEqual(len(found["MESSAGE"]), TEXT_LIMIT)
        self.assertEqual(decode(encode({"A": "1\n2", "B": "\udcff"})), {"A": "1\n2", "B": "?"})


class Unavailable(JournalCase):
    def test_without_a_journal_the_flag_is_refused(self) -> None:
        with self.assertRaisesRegex(UsageError, "--journal: /nonexistent: .*found: no such file"):
            Journal("/nonexistent")

    def test_a_journal_that_takes_nothing_holds_up_nobody(self) -> None:
        for _ in range(10_000):
            self.journal.emit("failed", image="i", detail="x" * 1000)
        with mock.patch("cip.log.warning") as warning:
            self.journal.close()
        warning.assert_called_once()

    def test_one_that_goes_away_is_no_error(self) -> None:
        self.daemon.close()
        self.journal.emit("failed", image="i", detail="x")


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""What a parent may send: every row of stdlib-http.md 8a on the front end, byte by byte over a socket pair."""

import contextlib
import json
import re
import socket
import threading
import unittest
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast
from unittest import mock

from cip import log
from cip.errors import ErrorCode, NotFoundError
from cip.model.descriptor import Digest, digest_of
from cip.wire import httpserver
from tests.support.fakeimage import no_file

if TYPE_CHECKING:
    from cip.image import Image

VECTORS = Path(__file__).resolve().parents[1] / "spec" / "stdlib-http-vectors.json"
NEXT = b"GET /nope HTTP/1.1\r\nHost: second\r\n\r\n"
MANIFEST = b'{"schemaVersion":2}'
_STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n")
_LIMIT = 30.0  # seconds for a row


class _Manifest:
    """An image of a manifest alone."""

    fetchable_manifest = MANIFEST
    accepted = SimpleNamespace(digest=digest_of(MANIFEST), index_digest=None)

    def describe_blob(self, digest: Digest) -> None:
        raise NotFoundError("the image names no blob of that digest", code=ErrorCode.BLOB_NOT_IN_IMAGE)

    def close(self) -> None:
        return


def bytes_of(parts: str | list[str | list[str | int]]) -> bytes:
    """Bytes as the vectors write them: Latin-1 text, or pieces, each a text or [text, times]."""
    pieces = [parts] if isinstance(parts, str) else parts
    return b"".join(
        piece.encode("latin-1") if isinstance(piece, str) else str(piece[0]).encode("latin-1") * int(piece[1])
        for piece in pieces
    )


def converse(data: bytes) -> tuple[bytes, int]:
    """All that the front end answers to `data` and the end of the stream, and the exit status."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(_LIMIT)

        def send() -> None:
            with contextlib.suppress(OSError):  # the front end may leave before it has read all
                ours.sendall(data)
                ours.shutdown(socket.SHUT_WR)

        statuses: list[int] = []

        def serve() -> None:
            conversation = httpserver.on_socket(theirs, lambda: cast("Image", _Manifest()), no_file)
            with contextlib.closing(conversation):
                if conversation.begin():
                    conversation.run()
            statuses.append(conversation.exit_status)
            theirs.close()

        threads = [threading.Thread(target=send), threading.Thread(target=serve)]
        for thread in threads:
            thread.start()
        answers = b""
        with contextlib.suppress(ConnectionResetError):  # it left with bytes unread
            while part := ours.recv(1 << 16):
                answers += part
        for thread in threads:
            thread.join(_LIMIT)
        return answers, statuses[0]


def statuses_of(answers: bytes) -> str:
    """The status codes in order, each where the answer before it ends; all our bodies begin with a brace."""
    found, rest = [], answers
    while rest:
        match = _STATUS_LINE.match(rest)
        assert match is not None, rest[:200]
        found.append(match[1].decode())
        head, _, rest = rest.partition(b"\r\n\r\n")
        length = re.search(rb"(?mi)^content-length: (\d+)\r?$", head)
        assert length is not None or match[1] in (b"100", b"204"), head
        if length is not None and rest.startswith(b"{"):
            rest = rest[int(length[1]) :]
    return " ".join(found) or "none"


class RequestVectors(unittest.TestCase):
    def test_every_row_has_its_statuses_and_its_exit_status(self) -> None:
        rows = json.loads(VECTORS.read_text(encoding="utf-8"))["a"]
        self.assertEqual(len(rows), 138)
        for row in rows:
            with self.subTest(row["name"], note=row["note"]), mock.patch.object(log, "error"):
                answers, status = converse(bytes_of(row["bytes"]) + (b"" if row["alone"] else NEXT))
                self.assertEqual(statuses_of(answers), row["statuses"] or "none")
                self.assertEqual(status, row["exit"])


if __name__ == "__main__":
    unittest.main()

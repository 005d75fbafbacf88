# SPDX-License-Identifier: Apache-2.0
"""Targets of what the parent asks, on both protocols."""

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from cip.content import BlobAccess, BytesReader
from cip.errors import ErrorCode, NotFoundError
from cip.model.descriptor import Descriptor, Digest, digest_of
from cip.net.lines import Lines, Requests
from cip.wire.httpserver import Conversation as HttpConversation
from cip.wire.jsonproxy.methods import _METHODS as JSON_METHODS
from cip.wire.jsonproxy.packets import encode_success, parse_request
from tests.support.fakeimage import no_file

from ..engine import Target
from ..mutation import mutate_json
from .registry import HTTP_WORDS
from .streams import PiecewiseStream

if TYPE_CHECKING:
    from cip.image import Image

_JSON_WORDS = (b'{"method":"', b'"args":[', b"1e0", b"GetBlob", b"FinishPipe", b"OpenImage", b"GetRawBlob", b"1e999")


def _json_request(data: bytes) -> None:
    """A packet of the JSON protocol, with the readers of its method's arguments."""
    name, arguments = parse_request(data)
    encode_success([name[:1000]], 1)
    method = JSON_METHODS.get(name)
    if method is not None:
        values: list[Any] = [read(node) for read, node in zip(method.readers, arguments, strict=False)]
        assert all(type(value) is not float and value is not None for value in values)


_BLOB = b"{}"
_LETTERS = str.maketrans("0123456789", "abcdefghij")  # digits are taken out of what tells outcomes apart


class _Image:
    """An image of one blob."""

    fetchable_manifest = b'{"schemaVersion":2}'
    accepted = SimpleNamespace(digest=digest_of(b""), index_digest=None)

    def describe_blob(self, digest: Digest) -> Descriptor:
        if digest != digest_of(_BLOB):
            raise NotFoundError("not in the image", code=ErrorCode.BLOB_NOT_IN_IMAGE)
        return Descriptor("", digest, len(_BLOB))

    def open_blob(self, digest: Digest, access: BlobAccess) -> BytesReader:
        return BytesReader(_BLOB)

    def close(self) -> None:
        """Nothing to close."""


class _Conversation(HttpConversation):
    """Keeps the methods of what it answered, the last one perhaps because it is faulty."""

    def __init__(self, input_fd: int, output_fd: int) -> None:
        super().__init__(input_fd, output_fd, lambda: cast("Image", _Image()), no_file)
        self.methods: list[str] = []

    def handle_one_request(self) -> None:
        super().handle_one_request()
        self.methods.append(self.command or "")


def _converse(data: bytes, *, pieces: bool) -> tuple[_Conversation, bytes]:
    """A whole connection whose requests arrive at once, or in small `pieces`, and its answers."""
    asked, told = os.memfd_create("requests"), os.memfd_create("answers")
    try:
        os.write(asked, data)
        os.lseek(asked, 0, os.SEEK_SET)
        conversation = _Conversation(asked, told)
        if pieces:
            lines = Lines(PiecewiseStream(data, 61).receive_into, Requests)
            conversation._lines, conversation.rfile = lines, cast("Any", lines)
        conversation.run()
        return conversation, os.pread(told, os.fstat(told).st_size, 0)
    finally:
        os.close(asked)
        os.close(told)


def _http_conversation(data: bytes) -> str:
    """A whole connection: each request has one answer, of which every byte belongs to some answer; none is a 500."""
    conversation, answers = _converse(data, pieces=False)
    statuses = list(_statuses(answers, conversation.methods))
    assert "500" not in statuses, answers[:1000]
    return f"{conversation.exit_status == 0} {'x'.join(sorted(set(statuses))).translate(_LETTERS)}"


def _http_request(data: bytes) -> None:
    """How the bytes arrive makes no difference."""
    outcomes = []
    for pieces in (False, True):
        conversation, answers = _converse(data, pieces=pieces)
        outcomes.append((conversation.exit_status, list(_statuses(answers, conversation.methods))))
    assert outcomes[0] == outcomes[1], outcomes


def _statuses(answers: bytes, methods: list[str]) -> Iterator[str]:
    for method in methods:
        if not answers:
            return  # the connection was closed before
        status = "100"
        while status == "100":
            head, end, answers = answers.partition(b"\r\n\r\n")
            assert end and head.startswith(b"HTTP/1.1 ") and b"\n" not in head.replace(b"\r\n", b""), head[:200]
            status = head[9:12].decode("ascii")
            if status == "100" and not answers:
                return  # the body that was asked for never came
        yield status
        lengths = [line[16:] for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")]
        assert len(lengths) == (status != "204")
        if lengths and method != "HEAD":
            assert len(answers) >= int(lengths[0])
            answers = answers[int(lengths[0]) :]
    assert not answers, answers[:200]


TARGETS = (
    Target("http-request", _http_request, HTTP_WORDS),
    Target("http-conversation", _http_conversation, HTTP_WORDS),
    Target("json-request", _json_request, _JSON_WORDS, mutate_json),
)

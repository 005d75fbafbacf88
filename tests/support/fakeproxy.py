#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A proxy for tests of its clients: the real front ends over an image in memory, or one that misbehaves.

`fakeproxy.py [experimental-image-proxy] --sockfd=N SCENARIO [-- REFERENCE]`; each scenario is a row of `_SCENARIOS`.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

sys.path[0] = str(Path(__file__).resolve().parents[2])

from cip import watch  # noqa: E402
from cip.content import BlobReader, BytesReader  # noqa: E402  (importable from anywhere by the line above)
from cip.errors import ErrorCode, NetworkError, NotFoundError  # noqa: E402
from cip.image import Image  # noqa: E402
from cip.model.descriptor import UNKNOWN_SIZE, digest_of  # noqa: E402
from cip.wire import httpserver  # noqa: E402
from cip.wire.fds import adopt_socket  # noqa: E402
from cip.wire.jsonproxy.conversation import Conversation  # noqa: E402
from tests.support.fakeimage import BAD, BIG, LAYER_TYPE, Content, Failing, FakeImage, Manifest, Stalled, no_file  # noqa: E402
from tests.support.images import CONFIG_C, LAYER_T, describe, manifest  # noqa: E402
from tests.support.referrers import carrier  # noqa: E402

JSON = "experimental-image-proxy"
MANIFEST = manifest(CONFIG_C, [LAYER_T, BIG])
DOCUMENT = b"an SBOM"
SBOM_TYPE = "application/spdx+json"
SBOM = carrier(digest_of(MANIFEST), DOCUMENT, kind=SBOM_TYPE, layer_type=SBOM_TYPE)
NEVER = threading.Event()


class Opener:
    """Opens `content` under every name but `absent`."""

    def __init__(self, content: Content) -> None:
        self._content = content

    def prepare(self) -> None:
        return

    def open(self, text: str) -> Image:
        if text == "absent":
            raise NotFoundError("absent: no such image", host="r.example", code=ErrorCode.IMAGE_NOT_FOUND)
        return cast(Image, FakeImage(self._content))


def good() -> Content:
    content = Content()
    content.manifest = Manifest(MANIFEST, digest_of(MANIFEST))
    content.layers = (describe(LAYER_T, LAYER_TYPE), describe(BIG, LAYER_TYPE))
    content.add(BIG, lambda: BytesReader(BIG))
    content.referrers = {digest_of(SBOM): (SBOM, SBOM_TYPE)}
    content.add(DOCUMENT, lambda: BytesReader(DOCUMENT))
    return content


def with_big(open_blob: Callable[[], BlobReader], size: int | None = None) -> Content:
    """The good image, but BIG comes from elsewhere, its size perhaps unknown."""
    content = good()
    content.add(BIG, open_blob, size)
    return content


def stored_elsewhere() -> Content:
    """As a local storage has it: the second layer under another digest, without a size."""
    content = good()
    digest = content.add(BAD, lambda: BytesReader(BAD), UNKNOWN_SIZE)
    content.layers = (content.layers[0], content.descriptors[digest]._replace(media_type=LAYER_TYPE))
    return content


_SCENARIOS: dict[str, Callable[[], Content]] = {
    "good": good,
    "bad": lambda: with_big(lambda: BytesReader(BAD)),
    "cut": lambda: with_big(lambda: Failing(BIG[:2_000_000], NetworkError("r.example: gone", host="r.example"))),
    "stalled": lambda: with_big(lambda: Stalled(BIG, NEVER, 1_000_000)),
    "unknown-size": lambda: with_big(lambda: BytesReader(BIG), UNKNOWN_SIZE),
    "unknown-size-bad": lambda: with_big(lambda: BytesReader(BAD), UNKNOWN_SIZE),
    "unknown-size-cut": lambda: with_big(
        lambda: Failing(BIG[:2_000_000], NetworkError("r.example: gone", host="r.example")), UNKNOWN_SIZE
    ),
    "stored-elsewhere": stored_elsewhere,
}


def main(arguments: list[str]) -> int:
    words = arguments[: arguments.index("--")] if "--" in arguments else list(arguments)
    speaks_json = JSON in words
    (number,) = (int(word.partition("=")[2]) for word in words if word.startswith("--sockfd="))
    scenario = words[-1]
    with adopt_socket(number, socket.SOCK_SEQPACKET if speaks_json else socket.SOCK_STREAM) as sock:
        if scenario in _SCENARIOS:
            opener = Opener(_SCENARIOS[scenario]())
            if speaks_json:
                with Conversation(sock, opener) as by_json:
                    return converse(by_json)
            reference = arguments[-1]
            return converse(httpserver.on_socket(sock, lambda: opener.open(reference), no_file))
        return misbehave(sock, scenario, speaks_json)


def converse(conversation: watch.Conversation) -> int:
    """Serve beside a watch, as the program does; the exit status."""
    with watch.Watch(conversation, lambda: None):
        if conversation.begin():
            conversation.run()
    return conversation.exit_status


def misbehave(sock: socket.socket, scenario: str, speaks_json: bool) -> int:
    sock.recv(65536)
    if scenario == "killed":
        os.kill(os.getpid(), 9)
    if scenario == "garbage":
        sock.send(b"\x00garbage" if speaks_json else b"garbage\r\n\r\n")
    if scenario == "not-json":
        body = b"<html>"
        sock.send(b"<html>" if speaks_json else b"HTTP/1.1 502 x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    if scenario == "skopeo":  # an error without details, and one that may be repeated
        reply = {"success": False, "value": None, "pipeid": 0, "error_code": "retryable", "error": "no route"}
        sock.send(json.dumps(reply).encode())
    if scenario == "stray-descriptor":
        reply = {"success": True, "value": "0.2.8", "pipeid": 0, "error_code": "", "error": ""}
        socket.send_fds(sock, [json.dumps(reply).encode()], [0])
    if scenario.isdigit():
        return int(scenario)
    sock.recv(65536)
    return 0


if __name__ == "__main__":
    sys.stdout.flush()
    status = main(sys.argv[1:])
    os._exit(status)

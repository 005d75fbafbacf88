# SPDX-License-Identifier: Apache-2.0
"""A registry with one image whose layers are made up on the spot: of any size, at any rate, nothing on disk.

Run as a program, so that its work is not done in the process that measures. Arguments are layers as `SIZE` or
`SIZE@RATE` (bytes, bytes a second); it prints its port and serves until its standard input ends.
"""

from __future__ import annotations

import hashlib
import http.server
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.images import config, manifest

_BLOCK = 1 << 18


class Layer:
    """A layer: the same block again and again, told apart by its number."""

    def __init__(self, number: int, size: int, rate: int) -> None:
        self.block = bytes([number % 256]) * _BLOCK
        self.size = size
        self.rate = rate
        hasher = hashlib.sha256()
        for start in range(0, size, _BLOCK):
            hasher.update(self.block[: min(_BLOCK, size - start)])
        self.digest = f"sha256:{hasher.hexdigest()}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers what a reader of the image asks for."""

    protocol_version = "HTTP/1.1"
    layers: tuple[Layer, ...] = ()

    def do_GET(self) -> None:
        described = [(layer.digest, layer.size) for layer in self.layers]
        text = config(described)
        data = manifest(text, described)
        if "/manifests/" in self.path:
            self._head(len(data), "application/vnd.oci.image.manifest.v1+json")
            self.wfile.write(data)
            return
        found = [layer for layer in self.layers if self.path.endswith(layer.digest)]
        if not found:
            self._head(len(text) if "/blobs/" in self.path else 0)
            self.wfile.write(text if "/blobs/" in self.path else b"")
            return
        self._head(found[0].size)
        self._send(found[0])

    def _head(self, length: int, media_type: str = "application/octet-stream") -> None:
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send(self, layer: Layer) -> None:
        step = min(_BLOCK, layer.rate) if layer.rate else _BLOCK
        for start in range(0, layer.size, step):
            self.wfile.write(layer.block[: min(step, layer.size - start)])
            if layer.rate:
                time.sleep(step / layer.rate)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


class Server(http.server.ThreadingHTTPServer):
    """A thread for each connection; a parent that leaves is no error."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until standard input ends."""
    layers = []
    for number, argument in enumerate(sys.argv[1:]):
        size, _, rate = argument.partition("@")
        layers.append(Layer(number, int(size), int(rate or 0)))
    Handler.layers = tuple(layers)
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    main()

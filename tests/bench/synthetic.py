# SPDX-License-Identifier: Apache-2.0
"""A registry with one image whose layers are made up on the spot: of any size, at any rate, nothing on disk.

Run as a program, so that its work is not done in the process that measures. Arguments are layers as `SIZE`,
`SIZE@RATE` (bytes, bytes a second of each connection) or `SIZE@=RATE` (of all together); it prints its port and serves
until its standard input ends.
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
    """A layer: the same block again and again, told apart by its number. `rate` is for each connection or `shared`."""

    def __init__(self, number: int, size: int, rate: int, *, shared: bool = False) -> None:
        self.block = bytes([number % 256]) * _BLOCK
        self.size = size
        self.rate = rate
        self._shared = shared
        self._lock = threading.Lock()
        self._free_at = 0.0
        hasher = hashlib.sha256()
        for start in range(0, size, _BLOCK):
            hasher.update(self.block[: min(_BLOCK, size - start)])
        self.digest = f"sha256:{hasher.hexdigest()}"

    def pace(self, began: float, sent: int, step: int) -> None:
        """Sleep until the next `step` bytes may be sent over a connection that `began` and has `sent` some."""
        until = began + (sent + step) / self.rate
        if self._shared:
            with self._lock:
                until = self._free_at = max(self._free_at, time.monotonic()) + step / self.rate
        time.sleep(max(0.0, until - time.monotonic()))


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
        layer = found[0]
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        start, end = int(first or 0), int(last or layer.size - 1) + 1
        self._head(end - start, span=f"bytes {start}-{end - 1}/{layer.size}" if "Range" in self.headers else "")
        self._send(layer, end - start)

    def _head(self, length: int, media_type: str = "application/octet-stream", span: str = "") -> None:
        self.send_response(206 if span else 200)
        if span:
            self.send_header("Content-Range", span)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send(self, layer: Layer, size: int) -> None:
        """So many bytes, at the rate of the layer; all of its bytes are the same, so any will do."""
        step = min(_BLOCK, layer.rate) if layer.rate else _BLOCK
        began = time.monotonic()
        for start in range(0, size, step):
            self.wfile.write(layer.block[: min(step, size - start)])
            if layer.rate:
                layer.pace(began, start, step)

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
        layers.append(Layer(number, int(size), int(rate.lstrip("=") or 0), shared=rate.startswith("=")))
    Handler.layers = tuple(layers)
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Makes the images that are measured and pushes them to a registry, over plain HTTP."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

_BLOCK = 1 << 20


def blob_file(path: Path, size: int, seed: int) -> str:
    """Write `size` bytes that do not compress to `path`; their digest."""
    source = random.Random(seed)
    block = bytearray(source.randbytes(_BLOCK))
    hasher = hashlib.sha256()
    with open(path, "wb") as file:
        for start in range(0, size, _BLOCK):
            block[:8] = start.to_bytes(8, "big")
            part = block[: min(_BLOCK, size - start)]
            hasher.update(part)
            file.write(part)
    return f"sha256:{hasher.hexdigest()}"


def manifest(config: bytes, layers: Sequence[tuple[str, int]]) -> bytes:
    """An OCI manifest over `config` and layers given as digest and size."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": f"sha256:{hashlib.sha256(config).hexdigest()}",
                "size": len(config),
            },
            "layers": [
                {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size}
                for digest, size in layers
            ],
        }
    ).encode()


def config(layers: Sequence[tuple[str, int]]) -> bytes:
    """A config for uncompressed layers."""
    diff_ids = [digest for digest, _ in layers]
    return json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    ).encode()


class Pusher:
    """Pushes into one repository of a registry at `host`."""

    def __init__(self, host: str, repository: str) -> None:
        self._connection = http.client.HTTPConnection(host, timeout=60)
        self._base = f"/v2/{repository}"

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def blob(self, digest: str, size: int, content: bytes | Path) -> None:
        """Push one blob."""
        location = self._request("POST", f"{self._base}/blobs/uploads/", b"", {}, 202)
        separator = "&" if "?" in location else "?"
        body: bytes | Iterator[bytes] = content if isinstance(content, bytes) else _parts(content)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        self._request("PUT", f"{location}{separator}digest={digest}", body, headers, 201)

    def manifest(self, tag: str, data: bytes) -> None:
        """Push a manifest under `tag`."""
        headers = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
        self._request("PUT", f"{self._base}/manifests/{tag}", data, headers, 201)

    def image(self, tag: str, layers: Sequence[tuple[str, int, bytes | Path]]) -> None:
        """Push layers (digest, size, content), a config and the manifest."""
        described = [(digest, size) for digest, size, _ in layers]
        text = config(described)
        for digest, size, content in layers:
            self.blob(digest, size, content)
        self.blob(f"sha256:{hashlib.sha256(text).hexdigest()}", len(text), text)
        self.manifest(tag, manifest(text, described))

    def _request(
        self, method: str, target: str, body: bytes | Iterator[bytes], headers: dict[str, str], expected: int
    ) -> str:
        path = target if target.startswith("/") else "/" + target.split("/", 3)[3]
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        text = response.read()
        if response.status != expected:
            raise AssertionError(f"{method} {path}: {response.status} {text!r}")
        return response.headers.get("Location", "")


def _parts(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while part := file.read(_BLOCK):
            yield part


def oci_archive(path: Path, layers: Sequence[tuple[str, int, Path]]) -> None:
    """Write an uncompressed oci-archive with these layers."""
    described = [(digest, size) for digest, size, _ in layers]
    text = config(described)
    data = manifest(text, described)
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": f"sha256:{hashlib.sha256(data).hexdigest()}",
        "size": len(data),
    }
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    small = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
    small |= {f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}": blob for blob in (text, data)}
    scratch = path.with_suffix(".part")
    with tarfile.open(path, "w") as archive:
        for name, blob in small.items():
            scratch.write_bytes(blob)
            archive.add(scratch, name)
        for digest, _, file in layers:
            archive.add(file, f"blobs/{digest.replace(':', '/')}")
    os.unlink(scratch)

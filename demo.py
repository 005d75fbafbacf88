#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The shortest honest parent: fetches an image over a socket that its child inherits, and verifies what it gets.

demo.py                     a small image that is made on the spot
demo.py [OPTIONS] IMAGE     any other, such as docker://quay.io/fedora/fedora; the options are the proxy's own
"""

import gzip
import hashlib
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))


def main(arguments: list[str]) -> None:
    failure: Exception | None = None
    with tempfile.TemporaryDirectory() as scratch:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "cip", f"--sockfd={theirs.fileno()}", *(arguments or make_image(scratch))]
        child = subprocess.Popen(command, pass_fds=[theirs.fileno()], env={**os.environ, "PYTHONPATH": HERE})
        theirs.close()
        proxy = http.client.HTTPConnection("localhost")
        proxy.sock = ours  # connected already: there is no network between us
        try:
            show_image(proxy)
            ask(proxy, "POST", "/quit").read()
        except (http.client.HTTPException, ConnectionError) as error:
            failure = error
        finally:
            ours.close()
            status = child.wait()
    if failure or status:
        sys.exit(f"the proxy failed with exit status {status}: {failure or 'see above'}")
    print("ok")


def show_image(proxy: http.client.HTTPConnection) -> None:
    response = ask(proxy, "GET", "/manifest")
    manifest = json.load(response)
    print("manifest", response.headers["Manifest-Digest"])
    Blob(proxy, manifest["config"]).verify()
    print("config  ", manifest["config"]["digest"], "verified")
    for layer in manifest["layers"]:
        blob = Blob(proxy, layer)
        try:
            with tarfile.open(fileobj=blob, mode="r|*") as archive:
                names = [member.name for member in archive]
        except (tarfile.TarError, EOFError, ValueError) as error:
            names = [f"(not listed: {error})"]
        blob.verify()  # and only now believe the names
        print("layer   ", layer["digest"], "verified")
        for name in names:
            print("   ", name if name.isprintable() else ascii(name))


def ask(proxy: http.client.HTTPConnection, method: str, target: str) -> http.client.HTTPResponse:
    proxy.request(method, target)
    response = proxy.getresponse()
    if response.status != 200:
        problem = json.load(response)
        hint = "\nlet it pass with --policy FILE or --insecure-policy" if problem["type"].startswith("policy-") else ""
        sys.exit(f"{method} {target}: {problem['type']}: {problem['detail']}{hint}")
    return response


class Blob(io.RawIOBase):
    """A blob as it arrives; knows in the end whether it is the one that the manifest names."""

    def __init__(self, proxy: http.client.HTTPConnection, descriptor: dict[str, Any]) -> None:
        self.digest, self.size = str(descriptor["digest"]), int(descriptor["size"])
        self.response = ask(proxy, "GET", f"/blobs/{self.digest}")
        self.received = self.drawn = 0
        self.hasher = hashlib.new(self.digest.partition(":")[0])

    def readinto(self, buffer: Any) -> int:
        count = self.response.readinto(buffer)
        self.hasher.update(memoryview(buffer)[:count])
        self.received += count
        self.draw(30 * self.received // self.size if self.size else 0)
        return count

    def draw(self, bar: int) -> None:
        if bar != self.drawn and sys.stderr.isatty():
            done = f"{self.received / 2**20:.1f} of {self.size / 2**20:.1f} MiB"
            sys.stderr.write(f"\r{'#' * bar:30} {done}" if bar < 30 else "\r\033[K")
            sys.stderr.flush()
        self.drawn = bar

    def verify(self) -> None:
        while self.read(2**20):
            pass
        found = f"{self.hasher.name}:{self.hasher.hexdigest()}"
        if (self.received, found) != (self.size, self.digest):  # http.client lets a short body pass
            sys.exit(f"expected {self.size} bytes of {self.digest}, found {self.received} of {found}")


def make_image(directory: str) -> list[str]:
    """Write an OCI layout of two layers and a policy that accepts it and nothing else; the proxy's arguments."""
    directory = os.path.realpath(directory)  # policy scopes have no links in them
    os.makedirs(f"{directory}/blobs/sha256")

    def add(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{directory}/blobs/sha256/{digest}", "wb") as file:
            file.write(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    def write(name: str, value: object) -> None:
        with open(f"{directory}/{name}", "w", encoding="utf-8") as file:
            json.dump(value, file)

    archives = []
    for files in ({"etc/os-release": b"ID=demo\n"}, {"bin/hello": b"#!/bin/sh\necho hi\n", "lib/big": bytes(9**7)}):
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as layer:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                layer.addfile(member, io.BytesIO(content))
        archives.append(archive.getvalue())
    diff_ids = [f"sha256:{hashlib.sha256(archive).hexdigest()}" for archive in archives]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    layers = [add(archives[0], "layer.v1.tar"), add(gzip.compress(archives[1], mtime=0), "layer.v1.tar+gzip")]
    manifest = {"schemaVersion": 2, "config": add(json.dumps(config).encode(), "config.v1+json"), "layers": layers}
    manifest = {**manifest, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
    write("oci-layout", {"imageLayoutVersion": "1.0.0"})
    write("index.json", {"schemaVersion": 2, "manifests": [add(json.dumps(manifest).encode(), "manifest.v1+json")]})
    accept, reject = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]
    write("policy.json", {"default": reject, "transports": {"oci": {directory: accept}}})
    return [f"--policy={directory}/policy.json", f"oci:{directory}"]


if __name__ == "__main__":
    main(sys.argv[1:])

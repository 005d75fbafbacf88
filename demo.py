#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The shortest honest parent: fetches an image through a proxy that it starts, and lists what is in it.

demo.py                     a small image that is made on the spot
demo.py [OPTIONS] IMAGE     any other, such as docker://quay.io/fedora/fedora; the options are the proxy's own
"""

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
import tempfile
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # for python3 -I, which leaves it out

from cip.client import Blob, ClientError, OpenedImage, open_proxy


def main(arguments: list[str]) -> None:
    if "-h" in arguments or "--help" in arguments:
        print(__doc__)
        return
    with tempfile.TemporaryDirectory() as scratch:
        *options, reference = arguments or make_image(scratch)
        if reference.startswith("-"):
            print(f"demo.py: expected IMAGE behind the options, found {reference!r}; see --help", file=sys.stderr)
            sys.exit(2)
        opened = False
        try:
            with open_proxy(reference, options=options) as image:
                opened = True
                show_image(image)
        except ClientError as error:
            if opened or not error.problem:  # else the proxy has said in its log why the image does not open
                print(error, file=sys.stderr)
            if error.code in ("policy-missing", "policy-rejected"):
                print("let it pass with --policy FILE or --insecure-policy", file=sys.stderr)
            sys.exit(1)
    print("ok")


def show_image(image: OpenedImage) -> None:
    print("manifest", image.manifest_digest)
    image.config()
    print("config  ", json.loads(image.manifest())["config"]["digest"], "verified")
    for layer in image.layers():
        with Watched(image.open_blob(layer.digest)) as blob:
            try:
                with tarfile.open(fileobj=blob, mode="r|*") as archive:
                    names = [member.name for member in archive]
            except (tarfile.TarError, EOFError, ValueError) as error:
                names = [f"(not listed: {error})"]
            while blob.read(2**20):  # to the end, because only there is it known to be right
                pass
        print("layer   ", layer.digest, "verified")  # and only now believe the names
        for name in names:
            print("   ", name if name.isprintable() else ascii(name))


class Watched(io.RawIOBase):
    """A blob as it arrives, with a progress bar where somebody looks."""

    def __init__(self, blob: Blob) -> None:
        self.blob = blob
        self.received = self.drawn = 0

    def readinto(self, buffer: Any) -> int:
        count = self.blob.readinto(buffer)
        self.received += count
        self.draw(30 * self.received // self.blob.size if self.blob.size > 0 else 0)
        return count

    def draw(self, bar: int) -> None:
        if bar != self.drawn and sys.stderr.isatty():
            done = f"{self.received / 2**20:.1f} of {self.blob.size / 2**20:.1f} MiB"
            sys.stderr.write(f"\r{'#' * bar:30} {done}" if bar < 30 else "\r\033[K")
            sys.stderr.flush()
        self.drawn = bar

    def close(self) -> None:
        self.blob.close()
        super().close()


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
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)

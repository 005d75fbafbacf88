#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Installs the Debian packages that an image carries into a root directory: `install_packages.py IMAGE ROOT`.

The layers are read as they arrive and never stored; a package is handed to dpkg only after the layer that carried it
was verified to its last byte.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from cip.client import open_proxy


def install(image: str, root: Path, *options: str) -> list[str]:
    """Install every package of `image` into `root`; their file names."""
    with tempfile.TemporaryDirectory() as scratch:
        packages: list[Path] = []
        with open_proxy(image, options=options) as proxy:
            for layer in proxy.layers():
                with proxy.open_blob(layer.digest) as blob:
                    with tarfile.open(fileobj=blob, mode="r|*") as archive:
                        for member in archive:
                            content = archive.extractfile(member) if member.name.endswith(".deb") else None
                            if content is not None:
                                package = Path(scratch, f"{len(packages):04}-{Path(member.name).name}")
                                package.write_bytes(content.read())
                                packages.append(package)
                    while blob.read(1 << 16):  # to the end: only there is it known to be good
                        pass
        subprocess.run(["dpkg", f"--root={root}", "--force-not-root", "--install", *map(str, packages)], check=True)
        return [package.name.partition("-")[2] for package in packages]


if __name__ == "__main__":
    print("\n".join(install(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])))

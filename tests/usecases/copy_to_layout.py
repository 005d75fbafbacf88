#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What an installer called `skopeo copy docker://… oci:DIRECTORY` for: `copy_to_layout.py IMAGE DIRECTORY`.

Every blob is verified while it is written, and the index that makes the layout an image is written last.
"""

import hashlib
import json
import sys
from pathlib import Path

from cip.client import open_proxy


def copy(image: str, directory: Path, *options: str) -> str:
    """Copy `image` into a new OCI layout at `directory`; the digest of its manifest there."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    with open_proxy(image, options=options) as proxy:
        manifest = proxy.manifest()
        parsed = json.loads(manifest)
        for descriptor in [parsed["config"], *parsed["layers"]]:
            path = directory / "blobs" / descriptor["digest"].replace(":", "/")
            with proxy.open_blob(descriptor["digest"]) as blob, open(path, "wb") as file:
                while chunk := blob.read(1 << 18):
                    file.write(chunk)
    encoded = hashlib.sha256(manifest).hexdigest()
    (blobs / encoded).write_bytes(manifest)
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": f"sha256:{encoded}",
        "size": len(manifest),
    }
    (directory / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return f"sha256:{encoded}"


if __name__ == "__main__":
    print(copy(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))

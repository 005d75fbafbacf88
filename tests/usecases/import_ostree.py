#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Imports the ostree commit that an image carries: `import_ostree.py IMAGE REPOSITORY REF`.

The layer is a tar of the objects of an archive repository, and the label `ostree.commit` of the image names the
commit. Objects are staged as they arrive; ostree takes them over, and checks each, once the layer was verified.
"""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from cip.client import open_proxy

OBJECT = re.compile(r"objects/[0-9a-f]{2}/[0-9a-f]{62}\.(commit|dirtree|dirmeta|filez)")


def import_commit(image: str, repository: Path, ref: str, *options: str) -> str:
    """Bring the commit of `image` into `repository`, where `ref` names it from then on; its checksum."""
    with tempfile.TemporaryDirectory(dir=repository) as scratch:
        staged = Path(scratch, "repo")
        subprocess.run(["ostree", f"--repo={staged}", "init", "--mode=archive"], check=True)
        with open_proxy(image, options=options) as proxy:
            commit = str(json.loads(proxy.config())["config"]["Labels"]["ostree.commit"])
            for layer in proxy.layers():
                with proxy.open_blob(layer.digest) as blob:
                    with tarfile.open(fileobj=blob, mode="r|*") as archive:
                        for member in archive:
                            content = archive.extractfile(member) if OBJECT.fullmatch(member.name) else None
                            if content is not None:
                                target = staged / member.name
                                target.parent.mkdir(exist_ok=True)
                                with target.open("xb") as file:
                                    shutil.copyfileobj(content, file)
                    while blob.read(1 << 16):  # to the end: only there is it known to be good
                        pass
        subprocess.run(["ostree", f"--repo={repository}", "pull-local", "--untrusted", str(staged), commit], check=True)
    subprocess.run(["ostree", f"--repo={repository}", "refs", f"--create={ref}", commit], check=True)
    return commit


if __name__ == "__main__":
    print(import_commit(sys.argv[1], Path(sys.argv[2]), sys.argv[3], *sys.argv[4:]))

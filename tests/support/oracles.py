# SPDX-License-Identifier: Apache-2.0
"""What cosign 3 and the Python library `sigstore` say about a bundle, offline, with a root of our own."""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from . import machine
from .newer import require_newer
from .peers import skip_where_asked

LIBRARY = "sigstore == 4.5.1"
SIGNING_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
_SECONDS = 60
_SECONDS_OF_ALL = 600

# runs in an environment of its own: the library wants other versions than the tests have
_JUDGE = """
import json, sys, tempfile
from sigstore.models import Bundle, TrustedRoot
from sigstore.verify import Verifier, policy
for line in sys.stdin:
    question = json.loads(line)
    try:
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(question["root"])
            file.flush()
            verifier = Verifier(trusted_root=TrustedRoot.from_file(file.name))
        bundle = Bundle.from_json(question["bundle"].encode("latin-1"))
        identity = policy.Identity(identity=question["identity"], issuer=question["issuer"])
        if question["file"] is None:
            verifier.verify_dsse(bundle, identity)
        else:
            verifier.verify_artifact(question["file"].encode("latin-1"), bundle, identity)
    except Exception as error:
        print(json.dumps(f"{type(error).__name__}: {error}"[:300]), flush=True)
    else:
        print(json.dumps(""), flush=True)
"""


class Question(NamedTuple):
    """One bundle, and what it shall be judged by: a key in PEM form, or an identity.

    `file` is what a plain signature is over; None for a statement, then `image` is its subject. With `logged` a bundle
    by a key must be in a log of the root.
    """

    name: str
    bundle: bytes
    root: str
    image: bytes
    identity: str = ""
    issuer: str = ""
    file: bytes | None = None
    key: bytes | None = None
    logged: bool = True


def ask_library(questions: Sequence[Question]) -> list[str]:
    """For each what the library objects to, empty for those that it accepts. Bundles by keys are not its business."""
    lines = [
        json.dumps(
            {
                "root": each.root,
                "bundle": each.bundle.decode("latin-1"),
                "identity": each.identity,
                "issuer": each.issuer,
                "file": None if each.file is None else each.file.decode("latin-1"),
            }
        )
        for each in questions
    ]
    done = subprocess.run(
        [str(_environment()), "-c", _JUDGE],
        input="\n".join(lines),
        check=True,
        capture_output=True,
        text=True,
        timeout=_SECONDS_OF_ALL,
    )
    answers: list[str] = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(questions), done.stderr[-2000:]
    return answers


def ask_cosign(question: Question) -> str:
    """What cosign 3 objects to, empty when it accepts."""
    cosign = require_newer("cosign-3")
    with tempfile.TemporaryDirectory(prefix="cip-cosign-") as scratch:
        place = Path(scratch)
        (place / "bundle.json").write_bytes(question.bundle)
        (place / "root.json").write_text(question.root, encoding="utf-8")
        (place / "content").write_bytes(question.image if question.file is None else question.file)
        command = [*cosign, "verify-blob", f"--bundle={place}/bundle.json"]
        if question.file is None:
            command[-2:] = ["verify-blob-attestation", command[-1], f"--type={SIGNING_PREDICATE}"]
        if question.key is None:
            command += [f"--certificate-identity={question.identity}", f"--certificate-oidc-issuer={question.issuer}"]
        else:
            (place / "key.pem").write_bytes(question.key)
            command += [f"--key={place}/key.pem"]
        if question.logged or question.key is None:
            command.append(f"--trusted-root={place}/root.json")
        if not question.logged:
            command.append("--insecure-ignore-tlog=true")
        if b"rfc3161Timestamps" in question.bundle and question.key is None:
            command.append("--use-signed-timestamps")
        done = subprocess.run(
            [*command, f"{place}/content"],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            env={"PATH": os.environ["PATH"], "HOME": scratch},
            stdin=subprocess.DEVNULL,
        )
    return "" if done.returncode == 0 else done.stderr.strip()[-300:] or f"exit status {done.returncode}"


def _environment() -> Path:
    """The interpreter of the library's environment, made on first use."""
    skip_where_asked("sigstore-python")
    place = machine.cache_root() / "sigstore-python"
    stamp = place / "complete"
    with machine.exclusive("sigstore-python"):
        if not stamp.exists() or stamp.read_text(encoding="ascii") != LIBRARY:
            machine.make_environment(place)
            machine.install_requirements(place / "bin" / "python", [LIBRARY])
            stamp.write_text(LIBRARY, encoding="ascii")
    return place / "bin" / "python"

# SPDX-License-Identifier: Apache-2.0
"""Every OpenPGP message under each gpgv that distributions ship: this machine's, GnuPG 2.4, and Sequoia's replacement.

What one of them says decides nothing alone (signatures.md 4.5), so another version must not be able to open what this
machine's refuses. Sequoia's would: it must not get past the self-test.
"""

import shlex
import tempfile
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cip.errors import MissingDependencyError, SignatureError
from cip.programs import SEARCH_PATH, DirectPrograms, GpgvResult
from cip.trust.openpgp.keyring import KeyRing, merge_key_rings
from cip.trust.openpgp.selftest import require_reliable
from cip.trust.openpgp.simplesigning import verify_message
from cip.trust.signed.requirement import VerificationRecord
from tests.support import images
from tests.support.newer import require_newer
from tests.support.peers import require_peer
from tests.support.signatures import GpgHome
from tests.support.simpleblobs import SimpleBlobs

SEED = 20261127
ACCEPTED = "accepted"


class GpgvTest(unittest.TestCase):
    blobs: dict[str, bytes]
    ring: KeyRing
    expected: dict[str, str]

    @classmethod
    def setUpClass(cls) -> None:
        require_peer("gpgv")
        with GpgHome() as home:
            made = SimpleBlobs(home, images.MANIFEST_M, SEED)
            cls.blobs = made.blobs
            cls.ring = merge_key_rings([("all", made.rings["all"])])
        cls.expected = cls.verdicts(SEARCH_PATH)

    @classmethod
    def verdicts(cls, search_path: str) -> dict[str, str]:
        """For each message whether its text would be read, or the class of the refusal."""
        found = {}
        for name, blob in cls.blobs.items():
            try:
                verify_message(blob, cls.ring, gpgv_of(search_path), VerificationRecord("here", "simple"))
                found[name] = ACCEPTED
            except SignatureError as error:
                found[name] = error.reason or ""
        return found

    @contextmanager
    def directory_of(self, name: str) -> Iterator[str]:
        """A search path on which `gpgv` is the program `name`."""
        with tempfile.TemporaryDirectory(prefix="cip-gpgv-") as directory:
            program = Path(directory, "gpgv")
            program.write_text(f'#!/bin/sh\nexec {shlex.join(require_newer(name))} "$@"\n', encoding="utf-8")
            program.chmod(0o755)
            yield directory

    def test_gnupg_2_4_accepts_what_2_2_accepts_and_passes_the_self_test(self) -> None:
        with self.directory_of("gpgv-2.4") as directory:
            require_reliable(gpgv_of(directory))
            found = self.verdicts(directory)
        accepted = [name for name, verdict in found.items() if verdict == ACCEPTED]
        self.assertEqual(accepted, [name for name, verdict in self.expected.items() if verdict == ACCEPTED])
        self.assertGreaterEqual(len(accepted), 15)

    def test_sequoia_accepts_keys_that_have_expired_and_fails_the_self_test_for_it(self) -> None:
        with self.directory_of("gpgv-sq") as directory:
            found = self.verdicts(directory)
            opened = {
                name for name, verdict in found.items() if verdict == ACCEPTED and self.expected[name] != ACCEPTED
            }
            self.assertEqual(opened, {"by expired", "by expired subkey"})
            with self.assertRaisesRegex(MissingDependencyError, "a signature by a key that has expired: accepted"):
                require_reliable(gpgv_of(directory))

    def test_this_machines_passes_the_self_test(self) -> None:
        require_reliable(gpgv_of(SEARCH_PATH))


def gpgv_of(search_path: str) -> Callable[[bytes, bytes], GpgvResult]:
    return DirectPrograms(search_path=search_path).verify


if __name__ == "__main__":
    unittest.main()

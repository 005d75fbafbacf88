# SPDX-License-Identifier: Apache-2.0
"""Who answers otherwise than GnuPG verifies nothing at all."""

import unittest
from collections.abc import Callable

from cip.errors import MissingDependencyError, SourceError
from cip.programs import DirectPrograms, GpgvResult, run_gpgv
from cip.trust.selftest import _GOOD, require_reliable
from tests.support.peers import require_peer


class SelfTest(unittest.TestCase):
    def refused(self, words: str, gpgv: Callable[[bytes, bytes], GpgvResult]) -> None:
        with self.assertRaisesRegex(MissingDependencyError, f"a reliable gpgv.*{words}.*check an OpenPGP signature"):
            require_reliable(gpgv)

    def test_gnupgs_passes(self) -> None:
        require_peer("gpgv")
        require_reliable(lambda ring, message: run_gpgv(DirectPrograms(), ring, message))

    def test_one_that_refuses_everything_fails(self) -> None:
        self.refused("a good signature is refused: not one", lambda ring, message: GpgvResult(2, b"", b""))

    def test_one_that_cannot_be_run_fails(self) -> None:
        def broken(ring: bytes, message: bytes) -> GpgvResult:
            raise SourceError("gpgv: still running after 30 s")

        self.refused("still running after 30 s", broken)

    def test_one_that_is_not_there_is_named_as_missing(self) -> None:
        def missing(ring: bytes, message: bytes) -> GpgvResult:
            raise MissingDependencyError("gpgv", "check an OpenPGP signature")

        with self.assertRaisesRegex(MissingDependencyError, "^gpgv is not installed"):
            require_reliable(missing)

    def test_one_that_gives_another_text_fails(self) -> None:
        require_peer("gpgv")

        def other(ring: bytes, message: bytes) -> GpgvResult:
            return run_gpgv(DirectPrograms(), ring, message)._replace(output=b"self-tesT")

        self.refused("a good signature is accepted", other)

    def test_one_that_overlooks_an_expired_key_or_another_text_fails(self) -> None:
        require_peer("gpgv")
        for overlooked, words in ((1, "by a key that has expired is accepted"), (2, "over another text is accepted")):
            asked = 0

            def lenient(ring: bytes, message: bytes, overlooked: int = overlooked) -> GpgvResult:
                nonlocal asked
                asked += 1
                seen = run_gpgv(DirectPrograms(), ring, _GOOD if asked - 1 == overlooked else message)
                return seen._replace(output=b"any text") if asked - 1 == overlooked else seen

            with self.subTest(words):
                self.refused(words, lenient)


if __name__ == "__main__":
    unittest.main()

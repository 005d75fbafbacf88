# SPDX-License-Identifier: Apache-2.0
"""Who answers otherwise than GnuPG verifies nothing at all."""

import unittest
from collections.abc import Callable

from cip.errors import MissingDependencyError, SourceError
from cip.programs import DirectPrograms, GpgvResult, run_gpgv
from cip.trust.selftest import require_reliable
from tests.support.peers import require_peer


class SelfTest(unittest.TestCase):
    def refused(self, words: str, gpgv: Callable[[bytes, bytes], GpgvResult]) -> None:
        with self.assertRaisesRegex(MissingDependencyError, f"gpgv is not reliable.*{words}.*an OpenPGP signature"):
            require_reliable(gpgv)

    def test_gnupgs_passes(self) -> None:
        require_peer("gpgv")
        require_reliable(lambda ring, message: run_gpgv(DirectPrograms(), ring, message))

    def test_one_that_refuses_everything_fails(self) -> None:
        self.refused("a good signature: not one signed", lambda ring, message: GpgvResult(2, b"", b""))

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

        self.refused("a good signature: accepted with another text", other)

    def test_one_that_overlooks_an_expired_key_or_another_text_fails(self) -> None:
        require_peer("gpgv")
        for overlooked, what in ((1, "a signature by a key that has expired"), (2, "a signature over another text")):
            with self.subTest(what):
                self.refused(f"{what}: accepted", self.at(overlooked, lambda good: good))

    def test_one_that_is_killed_in_between_has_shown_nothing(self) -> None:
        require_peer("gpgv")

        def killed(good: GpgvResult) -> GpgvResult:
            raise SourceError("gpgv: still running after 30 s")

        for number in (1, 2):
            with self.subTest(number):
                self.refused("still running after 30 s", self.at(number, killed))

    def at(self, number: int, change: Callable[[GpgvResult], GpgvResult]) -> Callable[[bytes, bytes], GpgvResult]:
        """gpgv, but its answer with this number is `change` of that to the good message."""
        asked: list[bytes] = []

        def gpgv(ring: bytes, message: bytes) -> GpgvResult:
            asked.append(message)
            if len(asked) - 1 == number:
                return change(run_gpgv(DirectPrograms(), ring, asked[0]))
            return run_gpgv(DirectPrograms(), ring, message)

        return gpgv


if __name__ == "__main__":
    unittest.main()

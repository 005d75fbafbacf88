# SPDX-License-Identifier: Apache-2.0
"""Who answers otherwise than GnuPG verifies nothing at all."""

import unittest
from collections.abc import Callable

from cip.errors import MissingDependencyError, SourceError
from cip.programs import DirectPrograms, GpgvResult
from cip.trust.openpgp.selftest import require_reliable
from tests.support.peers import require_peer


class SelfTest(unittest.TestCase):
    def refused(self, words: str, gpgv: Callable[[bytes, bytes], GpgvResult]) -> None:
        with self.assertRaisesRegex(MissingDependencyError, f"gpgv is not reliable.*{words}.*an OpenPGP signature"):
            require_reliable(gpgv)

    def test_gnupgs_passes(self) -> None:
        require_peer("gpgv")
        require_reliable(lambda ring, message: DirectPrograms().verify(ring, message))

    def test_one_that_refuses_everything_fails(self) -> None:
        self.refused("has expired: not one signed message", lambda ring, message: GpgvResult(2, b"", b""))

    def test_one_that_accepts_everything_fails(self) -> None:
        key = "F" * 40
        lines = ("NEWSIG", "GOODSIG x", f"VALIDSIG {key} 2000-07-01 1 0 4 0 1 8 00 {key}", "PLAINTEXT 62 1")
        status = "".join(f"[GNUPG:] {line}\n" for line in lines).encode()
        self.refused("has expired: ", lambda ring, message: GpgvResult(0, status, b"self-test"))

    def test_one_that_cannot_be_run_fails(self) -> None:
        def broken(ring: bytes, message: bytes) -> GpgvResult:
            raise SourceError("gpgv: still running after 30 s")

        self.refused("still running after 30 s", broken)

    def test_one_that_is_not_there_is_named_as_missing(self) -> None:
        def missing(ring: bytes, message: bytes) -> GpgvResult:
            raise MissingDependencyError("gpgv", "check an OpenPGP signature")

        with self.assertRaisesRegex(MissingDependencyError, "^gpgv is not installed"):
            require_reliable(missing)

    def test_one_that_overlooks_another_text_fails(self) -> None:
        require_peer("gpgv")
        self.refused("over another text: the key has expired", self.second(lambda seen: seen))

    def test_one_that_is_killed_in_between_has_shown_nothing(self) -> None:
        require_peer("gpgv")

        def killed(seen: GpgvResult) -> GpgvResult:
            raise SourceError("gpgv: still running after 30 s")

        self.refused("over another text: gpgv: still running after 30 s", self.second(killed))

    def second(self, change: Callable[[GpgvResult], GpgvResult]) -> Callable[[bytes, bytes], GpgvResult]:
        """gpgv, but what it says of the second message is `change` of what it said of the first."""
        first: list[bytes] = []

        def gpgv(ring: bytes, message: bytes) -> GpgvResult:
            first.append(message)
            seen = DirectPrograms().verify(ring, first[0])
            return seen if len(first) == 1 else change(seen)

        return gpgv


if __name__ == "__main__":
    unittest.main()

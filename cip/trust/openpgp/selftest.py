# SPDX-License-Identifier: Apache-2.0
"""Whether the gpgv of this host can be relied on: two messages whose verdicts are known (signatures.md 4.5).

Some distributions install a replacement under its name. Sequoia's says GOODSIG for a key that has expired since it
signed, and nothing in its answer tells the two apart; so who answers otherwise than GnuPG verifies nothing at all.
"""

from __future__ import annotations

from base64 import b64decode
from functools import lru_cache

from ...errors import MissingDependencyError, SignatureError
from ..policy import RunGpgv
from ..signed.requirement import VerificationRecord
from .keyring import merge_key_rings
from .simplesigning import verify_message

# Made by gpg 2.2.40 for this purpose, the secret key thrown away: RSA, which every gpgv may use, valid from June 2000
# for a year; it signed the text in July 2000, uncompressed.
_KEY = b64decode(
    "mQENBDk1p4ABCADw43dVqcz8SICu4joca8gVLP4N+dfW7JGwPclvCwbwtZTwhdGSxUkgJtpERCbEVolM3bBqN/CnvfoqKNA0hveJPxtDZbIq"
    "GPFW78j53dPs8laQORBqbvE90C1sGChU1wXG2hgomLYxNr4zOxDD3gUdfmyaBfFS0ZF5oASlL157tVThcIDhTLyj8jZZ6H+KR3XJ/LIPXmx/"
    "Jfr0rOBAO60ONNjoOhsvO7G7+fOtcpQunbUVni8zyCceQQf7iqpjbr326jszqqkC1BkYcIsyrPVefrc/aZZYYp7gGEl239p6TUFyzZs7ipT1"
    "g6JW0RNGoGfk4CuO8UTN8K6aqVnsi38DABEBAAG0FW9sZCA8b2xkQGV4YW1wbGUuY29tPokBVAQTAQoAPhYhBIdYpwXfaTq9hbEoHfS4JS6L"
    "j9StBQI5NaeAAhsDBQkB4TOABQsJCAcCBhUKCQgLAgQWAgMBAh4BAheAAAoJEPS4JS6Lj9St0xgIAME4kPxF8NhI3GVWf0mwCs4CKWhtvGCJ"
    "6OQbS/GXi6aFwKasHZ/apny6ymHMvRPTPaIOCOVu7/r7NlW5I6IRqiwsUfBmR0VLgcp+0VisWMVSotxXkPMUgDgvR57iHmPpZYlkkXpp8GFH"
    "Wf2Nk6HdUw2T9d9MpcjSQ+XtujmTiM4B6Ojek1m88Yi0t8Slpo1RUJBgJf5mFpSI0y2ffffVblACAByMFbLSUKp8BRS6raKFx1Bap1gm0dQ2"
    "t6QUBWz7IA6R6FUY6J0y6Czv6woajF21nprNNBZUS8RMQtcVZtDhgyBkok77k+M5n3DYOv9frL7AY8VClaKTB7bnEnsfgF4="
)
_EXPIRED = b64decode(
    "kA0DAAgB9LglLouP1K0Byw9iADldNIBzZWxmLXRlc3SJATMEAAEIAB0WIQSHWKcF32k6vYWxKB30uCUui4/UrQUCOV00gAAKCRD0uCUui4/U"
    "rcyKB/wKgBPesVLOWYdC62J6+0fYrvrNLket1u/aIJOlLgfjJq7ng011h+GugR0inzHpEX7Ta0qsN+S/7uR43jLJciA97jTO4Oyl+BHQeilB"
    "ntZ5m/V0H13wT81au3NseBaUePKJOQypBPMdIjjK/V57VtriSIJf7gNjCONwu6mLaHhvvrWbrwKC4m9fL5MdV9BiA5hC2CKLXzLsIZGBrmaC"
    "YCX6S42YWSWmGlRNvSTeKAzakHZ60jt/acqHICsnZJzNoz8MJiVS42jpZ7SRPHH7nggGx3hDXjSGyzpJBPJ/bf6LsXTBBUuSr/XioTEu7TXH"
    "pmtrRx9zAqx+Vp65AGhw9NVi"
)
_TAMPERED = _EXPIRED.replace(b"self-test", b"self-tesT")


@lru_cache(maxsize=1)
def require_reliable(run_gpgv: RunGpgv) -> None:
    """Return only if `run_gpgv` refuses a signature of an expired key and a tampered one, each for what is wrong.

    One that has passed is not asked again, and one that came to no verdict has shown nothing. That it accepts a good
    signature shows when it does. Raises MissingDependencyError, also when there is no gpgv at all.
    """
    ring = merge_key_rings([("self-test", _KEY)])
    for message, keyword, what in (
        (_EXPIRED, "EXPKEYSIG", "a signature by a key that has expired"),
        (_TAMPERED, "BADSIG", "a signature over another text"),
    ):
        found = "accepted"
        try:
            verify_message(message, ring, run_gpgv, VerificationRecord("self-test", "simple"))
        except SignatureError as error:
            found = str(error)
        if f"({keyword})" not in found:
            raise MissingDependencyError(
                "gpgv",
                "check an OpenPGP signature",
                fault=f"is not reliable here ({what}: {found}; expected GnuPG's, and a clock that is right)",
            )

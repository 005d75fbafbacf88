# SPDX-License-Identifier: Apache-2.0
"""Whether the gpgv of this host can be relied on: three messages whose verdicts are known (signatures.md 4.5).

Some distributions install a replacement under its name. Sequoia's says GOODSIG for a key that has expired since it
signed, and nothing in its answer tells the two apart; so who answers otherwise than GnuPG verifies nothing at all.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable

from ..errors import MissingDependencyError, SignatureError
from .keyring import merge_key_rings
from .requirements import Examination, GpgvOutcome
from .simplesigning import verify_message

_TEXT = b"self-test"
_ACCEPTED = "accepted"
# Made by gpg 2.2.40 for this purpose, the secret keys thrown away: RSA, which every gpgv may use, one key without end
# and one that was valid from June 2000 for a year; each signed _TEXT in July 2000, uncompressed.
_KEYS = b64decode(
    "mQENBDk1p4ABCADWlDll8kiO7TZZTo0hWWlAtjWfBLqc9Ts0wLYOAFVkz9C7ZSLLHeDUlO04bvgrQWvStDSDxnQhwZFEd1mWWKTOVDieEIvz"
    "kiD2JBwohT40QJr7fQ1WKDgKLL49nvKo+5tKRc+qedxEgxF5J2xZ0sRnNd1CAsU8MnmN0xL6H8NbV/2vaoXH9kcI9MzTq4XG8J3NS2cXNaLj"
    "+hs6g1SWv7EeYpGUyLy73S/6eq2WbzGF/pjweHt8eDYIB0AECN0HbPlkJzmszR6rSqz1JE3QWr+JL0ozPct9kwYdC2OX6Syzss5f6hWM2qeP"
    "3Kz8ocPnxU8doqAhQgmZlFB6yXzv1CwxABEBAAG0F2dvb2QgPGdvb2RAZXhhbXBsZS5jb20+iQFOBBMBCgA4FiEEZ2bUVxHbbQo3o2RIsL2F"
    "yzrMYAgFAjk1p4ACGwMFCwkIBwIGFQoJCAsCBBYCAwECHgECF4AACgkQsL2FyzrMYAjhpQf/efijAWEaYJc0e1a1tuu9pNzjpOL220X2Oh+l"
    "PwbDWlf1wSqGZEwMsVM3eqT8csRu/vWgj6nxm6r1ZHrAGCKXPmolZtznWUdJD/VwXVG7JRWtxnyeoALejeIL19vtF0JSqd89q6z8YPSxaemL"
    "+xoorvnmostXqnFoIu7qZXAdDv2t948C0xBdCxISXt6M1SVJ8UgtLkbi1gm1cNn6N0ZBIAR0gMSaNQ8dfju7kBG4vHqcEwUqzIA+C3rkKW4Z"
    "VvyidouRAkKhzy2kCBfjJ3+nnc35xIO67wXy+lfO9KMrSh0KgAZ2+Idj9TwHPb1AoIv8kiJcSX/u/4iXpP3WzPjxVZkBDQQ5NaeAAQgA99Ch"
    "T9uqeKiGpJFD+Rltpy8OqfHUaAQ0CgFEAmYM/UhsxPRwIBYudmxXdrY6/gf6BVO+qFR1N7oDAttmm0GEfytgJj1p3xaI+cvsyyzwpKTiUm5G"
    "FX378mcc/u5ih8vPSjKvxpskHTZIgtRijD26YQ8k5T0UJv9HmS+vPoOzkDLPSWJh4wauXbCuemB66PTgqhA6PKtuQsxPAjy1yBDvkTWI8plW"
    "JmCZcCc9eWjevt2xazWaArLSLItjz1Vam5kPoyViVhG4ZJFJpfyMGwoDf1TTbKAZv7JuRevGIp3PZSke1HcPcdPzqdc7UJZMtGAFP8SAEljX"
    "7693EpiTF3AzJwARAQABtBVvbGQgPG9sZEBleGFtcGxlLmNvbT6JAVQEEwEKAD4WIQR8HnN6+VII7aNd5YTm64o2D3lC7gUCOTWngAIbAwUJ"
    "AeEzgAULCQgHAgYVCgkICwIEFgIDAQIeAQIXgAAKCRDm64o2D3lC7hs0B/92KTmi6PnVBQ6oDupHfBxLVit2cXK2kst6i3lpNy2/nN8+HWyv"
    "djqiEsPGz203+2rSMbW2CDgAFdeCKPq1/QYHD2yEAJhR8DPYv6wEQDgn4rLFCudkyCPslqu52NBw040fvGbxf+7y+t/HVKKRig39341LQ2gI"
    "WsyI98AIDtp5BYrtuydTzGHwrHcYIhbUo9xx8sNILpXxxhuD0cp48KlOnyaYvT8hlyeffQKMXQVe5hyHNzlmKMl5MjPpwFSXzyKY86TQWRpd"
    "ig5YILG/Ag/t+NbmV7dReb/jXzwx0N+lx7z+8IZ9YPMJ+wMyczxXIi/A+iiqH6MfuuVpwOLSCWmP"
)
_GOOD = b64decode(
    "kA0DAAgBsL2FyzrMYAgByw9iADldNIBzZWxmLXRlc3SJATMEAAEIAB0WIQRnZtRXEdttCjejZEiwvYXLOsxgCAUCOV00gAAKCRCwvYXLOsxg"
    "COIOCACrqr2awcLiyzDZ2Occ+FtsRX4tCSCZBSRw2F+7W5vTlTfbry5flRhKdKMSiZ0FRSQhWRtvPCh3Z/OSlZAoLjBClEJhbsEWjfaZghst"
    "L0dNQB0nJjjbUl7mlYVUhDefUpevQWVBpxAsjzcQvV2xYEtidk7sVXbWU816+Yn+WhlwgDebH0xk1Mrecb4ODWlZAol2tL7AxCJCOq2N60Zg"
    "J7nJA1dKsVcdHha6phYMj9YbSU1jmRFrsqr0pM2Vqhd6tUl2OqI5Z7JA/DWwJLF4Wn0OgaHYj/Qaq8yr14CHRL8ABYwy0VUbF736eGBmVVWh"
    "l3KWhuR0wgxsleFl+9I8F5rT"
)
_EXPIRED = b64decode(
    "kA0DAAgB5uuKNg95Qu4Byw9iADldNIBzZWxmLXRlc3SJATMEAAEIAB0WIQR8HnN6+VII7aNd5YTm64o2D3lC7gUCOV00gAAKCRDm64o2D3lC"
    "7pIYB/4xthadb2T8WGlJHquKdNceT7BS3JfjjJPv2va9JRmmX8esFAEP4tIXQrRqGT9OyYNWD3umwnR9bYuK2/lQt3NNoGj4wbmu9E/XJQ3e"
    "PG5k3iGtWWrP2rsA4n6pwJNWcXA4u4pXguDXdWbyz0wAGu66pDHLQVAWbkbxBuuZOwonSgmOzUs9wDVDtFQlyo4uE8DMpTR5yMiG4vz/RTQv"
    "zxCdBy26vYVxPo9pte0IXufJGVZEPhy0Q8yl/LkuJ2XvsDeSHQl/4hUqZzjViQDAi8DIVEfuf2RazEDJ7+ACUeDCpMlfntaUAJII21iJFefz"
    "t//F2cTQESLuoFcxbwELusZx"
)
_TAMPERED = _GOOD.replace(_TEXT, b"self-tesT")


def require_reliable(run_gpgv: Callable[[bytes, bytes], GpgvOutcome]) -> None:
    """Return only if `run_gpgv` tells a good signature from one of an expired key and from a tampered one.

    Each must be refused for what is wrong with it: a gpgv that did not come to a verdict has shown nothing. Raises
    MissingDependencyError, also when there is no gpgv at all.
    """
    ring = merge_key_rings([("self-test", _KEYS)])
    for message, expected, what in (
        (_GOOD, _ACCEPTED, "a good signature"),
        (_EXPIRED, "EXPKEYSIG", "a signature by a key that has expired"),
        (_TAMPERED, "BADSIG", "a signature over another text"),
    ):
        try:
            text = verify_message(message, ring, run_gpgv, Examination("self-test", "simple"))
            found = _ACCEPTED if text == _TEXT else "accepted with another text"
        except SignatureError as error:
            found = str(error)
        if expected not in (found, found.rpartition("(")[2].partition(")")[0]):
            raise MissingDependencyError(
                "gpgv",
                "check an OpenPGP signature",
                fault=f"is not reliable here ({what}: {found}; expected GnuPG's, and a clock that is right)",
            )

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
# Made by gpg 2.2.40 for this purpose, the secret keys thrown away: RSA, which every gpgv may use, one key without end
# and one that was valid from June 2020 for a year; each signed _TEXT in July 2020, uncompressed.
_KEYS = b64decode(
    "mQENBF7URQABCADzjbPxQw2YygKK/Two4iToNISEyx7zdi9ZsheqTcxrK0xht2uGHvnGi+lgs2t+KZhdF9qYvdp9ypQYKOjMvnDDeG7MF+hx"
    "t9hnIJi5trMLqt69OX6ST7RnazvDfP7X18OvRuYE1DPHmq4G7JsdxO/9acO48ZpqtmH20wp9rY+t20YJnWo4Y9zuQ9as8fGYHaIGqpLjpwS4"
    "a7spi1vfUp06KGop+iWwIVsziRy9Q7hOkvT66BwuBCc+68Yes4c2nL8pxAbhJAzKEozKLLmmG/jxeRKCE+Y6RhRL0b37Pv8Bc4gPs34jQ+25"
    "Q3NHyztQV3CVowwt8qtxlClt2tVKoN1bABEBAAG0F2dvb2QgPGdvb2RAZXhhbXBsZS5jb20+iQFOBBMBCgA4FiEEhdhgA93os9w8hGUP4Lcl"
    "wso5qwsFAl7URQACGwMFCwkIBwIGFQoJCAsCBBYCAwECHgECF4AACgkQ4Lclwso5qwvaeQf9FWkx7Gq9x+TYAj8COXmraOssuHCAi0ic/cqC"
    "EiGPjpXuRCJU+Rr5Kj4W+8PG1Y23GfvlerL/+CIBFpqhVr/1zqpaC+ihiH2u3+q5TKfM/Ewn9XP/eqXOnUT9wsCcZu2Mgnk+UpNDq8KJDzG2"
    "nR5++qyMpES1KPE/xUpwAJCnjHDHrOXykpWXeR5eAKNMg/XPQix8frp1xJen7ZymLvj0ubfAA596RuBMrdBEu5LcsPbFFMiIWZqVCIxfF9rG"
    "pbc+Bxe1iozCyxo4Crs/yRkL9uWb+GlQOVTDfE7AYZ8revztbYJYFnaKD6wGMvq6qcFDPWHizusanzLZmZebTxxrzZkBDQRe1EUAAQgAw7D5"
    "+L7jxh1mpZI3sEuGPJ6bkd3Ywe1cbBkr7xSu5ER1ncTbsCWWlboYvcJYWfrDjg9E5G3GdORrOVpQ7VEZwRWLfqCMDe8RsF8BgE4fnOYvISaK"
    "UuhP/8mnnhw7VDnoinQjtFR1yV3yX2KkuhWDrxgjWpoijE5RJRjJbjMlmSFLllBimNNfdci5TMyDD+Z0NXa7DIlrPxR4G+qn2UwHwqjAL6U3"
    "UYLsOJ6W+ANQwwf8h+XIqnf0XE1ub8NKG+xkrKK1+fG+lYfzWyNEPDjDMvYJ2/qXWN5PVaFBCWNJn1fHSwHtSmqR7Tol34hDdnmeiOBHEnXS"
    "8J/Cf6DXB9q+8wARAQABtBVvbGQgPG9sZEBleGFtcGxlLmNvbT6JAVQEEwEKAD4WIQRaKkwkUNfcOeC3CWj/FrSYDPv+SAUCXtRFAAIbAwUJ"
    "AeEzgAULCQgHAgYVCgkICwIEFgIDAQIeAQIXgAAKCRD/FrSYDPv+SJNwB/9FPSm6xCzOWwAJBkTit/aZVzSbRUhRTX2k+7oB0zvjrzZGf9Lm"
    "+bXPS3IBtoOyTpKVSAc5/Fsf/Usy7bM46FQjAuHD4lkuoeyZaj5ni+wzwsctmpF+Znn7R6YfwaV3D4SjpEt25bMHtO0nXhO1Xme2Qn2h+EBv"
    "mQABw5ZfcnzcrcNASIrlDE4NOfNqoudH9YErmPaDTMPOk81PkjtWcWtGN0uNGBBVACiGel2nrKCIcLdAVzbv4p/ZKPdMRjB6QmUVFGypraCJ"
    "lFIh8+cEs0RoCRFZWxAE+Sw4GgPNmA6s8D/suOmPqH5Yhx/JbpqdqbSfsvGRLfN/99nulqg5vkS0"
)
_GOOD = b64decode(
    "kA0DAAgB4Lclwso5qwsByw9iAF770gBzZWxmLXRlc3SJATMEAAEIAB0WIQSF2GAD3eiz3DyEZQ/gtyXCyjmrCwUCXvvSAAAKCRDgtyXCyjmr"
    "C+nbCADcnvo+TYdilM4nPk7TlEIrMwDD5nAWuZC4ZcjbCsadR8TG7PUSwWj1EHruWmZQkjA7J6iS4hg8J/jGGCAhrsemCqhzHzxyaDCNUQYI"
    "dFJP/bkrRxw7itsgIv1u0LI0f6t7LkK79aZLatVo+z0yH4+tTbb2gcnx4Hrf5otYZBhsldPI/zvq75Rg8gmZ92QYe6lEl4OfjKWmmxqS834U"
    "lBdKzcjcNu7XSHIh8fFLdRicFHWb1qJ/a+GB3aRAFdlgjymREEBcbXbVtFoF1GWuFf56Me0Kj0q3yDkSPawDodrXS7j5eeukA6dq7XawbNSj"
    "qbMwnLYFsg0YUe73ryn080Oy"
)
_EXPIRED = b64decode(
    "kA0DAAgB/xa0mAz7/kgByw9iAF770gBzZWxmLXRlc3SJATMEAAEIAB0WIQRaKkwkUNfcOeC3CWj/FrSYDPv+SAUCXvvSAAAKCRD/FrSYDPv+"
    "SKceCACWNd5wl+gsJx9u8donKhjvI96+jD5sOIgJG8+1jc3nvXby6BEDsGdH1lY2Lu4wUNMLp/GZeFSsSx0Gane7ZejJW5WaLEZ5i2JT621d"
    "iPxTguO3zRZors23MQln/05kJtXtRP5wwWrUduHZq6IaLP3llVqUpevtJUD5mO22gLYtuo1OJd/fysTenv0+tzMpsqY1knhVYkiOwrzXp/2d"
    "Srt9dSfhD8oiKY0Fe3g+/Ro5Jri4wHO9Lp93OxtZXt/Uso273Vz9c1OFekKk3/sPodhF5dawAFjw/I/CzRy0QKt8OtQe8M7vWhRIJdF1YCqg"
    "QrvulCJETLlwIlwfH8IeKUCU"
)
_TAMPERED = _GOOD.replace(_TEXT, b"self-tesT")


def require_reliable(run_gpgv: Callable[[bytes, bytes], GpgvOutcome]) -> None:
    """Return only if `run_gpgv` tells a good signature from one of an expired key and from a tampered one.

    Raises MissingDependencyError, also when there is no gpgv at all.
    """
    ring = merge_key_rings([("self-test", _KEYS)])
    for message, expected, what in (
        (_GOOD, _TEXT, "a good signature"),
        (_EXPIRED, b"", "a signature by a key that has expired"),
        (_TAMPERED, b"", "a signature over another text"),
    ):
        found, why = b"", "accepted"
        try:
            found = verify_message(message, ring, run_gpgv, Examination("self-test", "simple"))
        except SignatureError as error:
            why = f"refused: {error}"
        if found != expected:
            raise MissingDependencyError(
                f"a reliable gpgv, as GnuPG's (by the one that is here, {what} is {why})", "check an OpenPGP signature"
            )

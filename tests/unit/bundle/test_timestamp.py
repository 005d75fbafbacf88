# SPDX-License-Identifier: Apache-2.0
"""What stands in a time stamp beside what its rules name is refused; the other rows are in test_vectors."""

import unittest
from collections.abc import Iterator

from cip.errors import SignatureError
from cip.trust.bundle.timestamp import verified_time
from cip.trust.sigstore.der import Element, parse_der
from tests.support.bundles import World
from tests.support.sigstore import SIGNED_AT
from tests.support.stamps import der

DATA = b"a signature"
MORE = b"\4\1x"
UNREAD = {"0", "1.1.0.1", "1.1.0.1.0"}  # texts of the status; the list of hashes, which each signer names again


def longer(element: Element, path: str = "") -> Iterator[tuple[str, bytes]]:
    """`element` with an OCTET STRING at the end of one of the constructed elements in it, for each of them."""
    if not element.tag & 0x20:
        return
    yield path, der(element.tag, element.content, MORE)
    for number, child in enumerate(element.children):
        before = b"".join(each.raw for each in element.children[:number])
        after = b"".join(each.raw for each in element.children[number + 1 :])
        for place, made in longer(child, f"{path}.{number}".lstrip(".")):
            yield place, der(element.tag, before, made, after)


class TimestampTest(unittest.TestCase):
    def test_nothing_may_stand_behind_the_last_member(self) -> None:
        world = World()
        authorities = world.loaded_root().timestamp_authorities
        for embed in (None, ()):
            stamp = world.stamps.stamp(DATA, embed=embed)
            self.assertIsNotNone(verified_time(stamp, DATA, authorities, "root"))
            for place, made in longer(parse_der(stamp)):
                with self.subTest(place, embedded=embed is None):
                    if place in UNREAD:
                        found = verified_time(made, DATA, authorities, "root")
                        self.assertEqual(found and found.time, SIGNED_AT)
                        continue
                    if place.startswith("1.1.0.3.") and embed is None:  # a certificate that is not needed
                        continue
                    try:
                        believed = verified_time(made, DATA, authorities, "root") is not None
                        self.assertFalse(believed)  # another signer's name is passed over
                    except SignatureError as error:
                        self.assertEqual(error.reason, "time")


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""An entry is about this signature or about none, on whichever side it differs; the rest is in test_sigstore."""

import hashlib
import unittest

from cip.errors import SignatureError
from cip.trust.sigstore.certificates import require_hostname
from cip.trust.sigstore.logs import LogEntry, require_entry_about

PAYLOAD, SIGNATURE, SIGNER = b"payload", b"\x80signature", b"\x80signer"
ENTRY = LogEntry(1, hashlib.sha256(PAYLOAD).hexdigest(), SIGNATURE, SIGNER)


class EntryTest(unittest.TestCase):
    def test_entry_about_it_is_accepted(self) -> None:
        require_entry_about(ENTRY, PAYLOAD, SIGNATURE, SIGNER)

    def test_entry_that_is_smaller_or_larger_anywhere_is_refused(self) -> None:
        for entry, words in (
            (ENTRY._replace(data_hash="0" * 64), "another payload"),
            (ENTRY._replace(data_hash="f" * 64), "another payload"),
            (ENTRY._replace(signature=b"\0"), "another signature"),
            (ENTRY._replace(signature=b"\xff"), "another signature"),
            (ENTRY._replace(signer=b"\0"), "another key or certificate"),
            (ENTRY._replace(signer=b"\xff"), "another key or certificate"),
        ):
            with self.subTest(entry), self.assertRaisesRegex(SignatureError, words) as caught:
                require_entry_about(entry, PAYLOAD, SIGNATURE, SIGNER)
            self.assertEqual(caught.exception.reason, "rekor")


class _Names:
    """The names of a certificate, which is all that is looked at here."""

    addresses: tuple[str, ...] = ()

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts


class HostnameTest(unittest.TestCase):
    def test_names_are_compared_label_for_label_in_both_directions(self) -> None:
        for pattern, host, covered in (
            ("b.example.com", "b.example.com", True),
            ("b.example.com", "a.example.com", False),
            ("b.example.com", "c.example.com", False),
            ("b.example.com", "x.b.example.com", False),
            ("b.example.com", "example.com", False),
            ("*.example.com", "a.example.com", True),
            ("*.example.com", "a.b.example.com", False),
            ("*.example.com", "example.com", False),
            ("*.example.com", "a.example.org", False),
            ("*", "a", False),
            ("*.b", "a.b", True),
        ):
            with self.subTest(pattern=pattern, host=host):
                names: object = _Names(pattern)
                if covered:
                    require_hostname(names, host)  # type: ignore[arg-type]
                else:
                    with self.assertRaisesRegex(SignatureError, "expected a certificate for host"):
                        require_hostname(names, host)  # type: ignore[arg-type]


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""When a helper process is started, and when unix sockets stay: only where something can need them."""

from __future__ import annotations

import json
import sys
import unittest
from unittest import mock

from cip.confine.needs import may_ask_helpers, may_decompress, may_verify, why_unix_sockets
from cip.settings import CredentialOptions, Settings
from cip.trust.policy import accept_anything_policy, parse_policy
from tests.support.leaks import LeakCheckedTestCase

SIGNED = [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/key"}]
ACCEPT = [{"type": "insecureAcceptAnything"}]
REMOTE, LAYOUT = "docker://r.example/os:1", "oci:/layout:1"


class Needs(LeakCheckedTestCase):
    def test_gpgv_by_the_policy(self) -> None:
        for policy, expected in (
            ({"default": ACCEPT}, False),
            ({"default": SIGNED}, True),
            ({"default": ACCEPT, "transports": {"docker": {"r.example": SIGNED}}}, True),
        ):
            with self.subTest(policy):
                self.assertIs(may_verify(parse_policy(json.dumps(policy).encode(), "policy.json")), expected)
        self.assertFalse(may_verify(accept_anything_policy()))
        self.assertTrue(may_verify(None), "a policy that is not read yet may ask for anything")

    def test_zstd_by_the_transports(self) -> None:
        with mock.patch.object(sys, "version_info", (3, 11)):
            for reference, local, expected in (
                (REMOTE, (), False),
                (LAYOUT, (), False),
                ("", (), True),
                ("oci-archive:/a:1", (), True),
                ("docker-archive:/a", (), True),
                ("tarball:/a", (), True),
                ("docker-daemon:os:1", (), True),
                (REMOTE, ("oci-archive:/a",), True),
                (REMOTE, (LAYOUT,), False),
            ):
                with self.subTest(reference, local=local):
                    self.assertIs(may_decompress(reference, Settings(local_sources=local)), expected)
        with mock.patch.object(sys, "version_info", (3, 14)):
            self.assertFalse(may_decompress("", Settings()))

    def test_credential_helpers_by_the_registry_and_the_options(self) -> None:
        silent = Settings(credentials=CredentialOptions(no_creds=True))
        self.assertEqual([may_ask_helpers(text, Settings()) for text in (REMOTE, LAYOUT, "")], [True, False, True])
        self.assertFalse(may_ask_helpers(REMOTE, silent))

    def test_unix_sockets_by_the_transport_and_the_resolver(self) -> None:
        nsswitch = self.directory / "nsswitch.conf"
        for text, needed in (
            ("hosts: files dns\n", False),
            ("passwd: files\n", False),
            ("", False),
            ("# hosts: resolve\nhosts:\tfiles mymachines resolve [!UNAVAIL=return] dns\n", False),
            ("hosts: files resolve # dns\n", True),
            ("hosts:sss\n", True),
        ):
            nsswitch.write_text(text)
            with self.subTest(text):
                self.assertIs(bool(why_unix_sockets(REMOTE, str(nsswitch))), needed)
        self.assertEqual(why_unix_sockets(REMOTE, "/no/such"), "")
        self.assertIn("parent", why_unix_sockets("", str(nsswitch)))
        self.assertIn("docker-daemon", why_unix_sockets("docker-daemon:os:1", str(nsswitch)))


if __name__ == "__main__":
    unittest.main()

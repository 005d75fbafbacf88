# SPDX-License-Identifier: Apache-2.0
"""What would be presented, found without running a helper."""

import json
import unittest
from collections.abc import Sequence

from cip.explain.credentials import CredentialPlan, plan_credentials
from cip.hostconfig.registriesconf import FILE_HELPER, RegistriesConfig
from tests.unit.test_authfile import SECRET, AuthFileCase, auths_of, packed


class PlanTest(AuthFileCase):
    def _plan(self, file: str, helpers: Sequence[str] = (FILE_HELPER,)) -> CredentialPlan:
        self.path = self.host.write("/run/containers/0/auth.json", file)
        self.warnings: list[str] = []
        return plan_credentials(
            "r.io/x",
            settings=self.host.settings(),
            registries=RegistriesConfig(credential_helpers=tuple(helpers)),
            files=self.descriptor_files,
            warn=self.warnings.append,
        )

    def test_a_plan_says_what_would_be_used_and_nothing_secret(self) -> None:
        token = json.dumps({"auths": {"r.io": {"auth": packed(f"u:{SECRET}"), "identitytoken": SECRET}}})
        by_helper = '{"credHelpers":{"r.io":"ok"}}'
        for case, file, helpers, expected in (
            ("password", auths_of({"r.io": f"u:{SECRET}"}), [FILE_HELPER], ("password", "FILE", "r.io", "")),
            ("token", token, [FILE_HELPER], ("token", "FILE", "r.io", "")),
            ("none", "{}", [FILE_HELPER], ("none", "", "", "")),
            ("helper of the file", by_helper, [FILE_HELPER], ("helper", "FILE", "r.io", "docker-credential-ok")),
            ("helper", "{}", [FILE_HELPER, "h"], ("helper", "registries.conf", "r.io", "docker-credential-h")),
        ):
            with self.subTest(case):
                plan = self._plan(file, helpers)
                self.assertEqual(expected, (plan.kind, plan.source.replace(self.path, "FILE"), plan.key, plan.helper))
                self.assertNotIn(SECRET, repr(plan))

    def test_an_entry_without_a_colon_is_warned_about(self) -> None:
        self._plan(json.dumps({"auths": {"r.io": {"auth": packed(SECRET)}}}))
        self.assertRegex(self.warnings[0], r"auths\['r.io'\].auth: ignored, expected base64 of USER:PASSWORD")
        self.assertNotIn(SECRET, self.warnings[0])


if __name__ == "__main__":
    unittest.main()

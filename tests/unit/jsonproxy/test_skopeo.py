# SPDX-License-Identifier: Apache-2.0
"""The program under the name of skopeo."""

import unittest

from cip.errors import UsageError
from cip.options import Command
from tests.unit.test_options import IMAGE, parse


class Skopeo(unittest.TestCase):
    def test_under_the_name_skopeo_only_the_proxy_command_works(self) -> None:
        for arguments in ([Command.JSON], ["--debug", Command.JSON], ["--policy", "copy", Command.JSON]):
            self.assertEqual(parse(*arguments, program="skopeo").command, Command.JSON)

    def test_under_the_name_skopeo_every_other_command_says_who_this_is(self) -> None:  # issue 17, row 27
        for arguments in (
            ["copy", "a", "b"],
            ["copy", "--all", "a", "b"],
            ["--tls-verify=false", "inspect", "--raw", "docker://a/b"],
            ["--registries-conf", "x", "copy", "--dest-tls-verify=false"],
            [Command.EXPLAIN, IMAGE],
            [Command.FETCH, IMAGE, "oci:x"],
            ["--unknown", "sync"],
            [IMAGE],
        ):
            with (
                self.subTest(arguments),
                self.assertRaisesRegex(
                    UsageError,
                    "^this is container-image-proxy .* under the name skopeo: expected experimental-image-proxy",
                ),
            ):
                parse(*arguments, program="skopeo")

    def test_its_help_is_ours(self) -> None:
        self.assertIn("--sockfd", parse("--help", program="skopeo").answer)


if __name__ == "__main__":
    unittest.main()

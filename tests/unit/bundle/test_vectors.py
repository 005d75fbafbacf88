# SPDX-License-Identifier: Apache-2.0
"""Every vector of tests/spec/bundles.md that concerns one bundle: accepted, or refused with its class."""

import unittest

from cip.errors import SignatureError
from tests.support import bundlecases
from tests.support.bundles import World


class VectorTest(unittest.TestCase):
    def test_names_are_unique(self) -> None:
        names = [case.name for case in bundlecases.CASES]
        self.assertEqual(len(names), len(set(names)))

    def test_each_bundle_is_accepted_or_refused_with_its_class(self) -> None:
        world = World()
        for case in bundlecases.CASES:
            with self.subTest(case.name):
                if not case.expected:
                    bundlecases.judge(case, world)
                    continue
                with self.assertRaisesRegex(SignatureError, case.words) as caught:
                    bundlecases.judge(case, world)
                self.assertEqual(caught.exception.reason, case.expected, str(caught.exception))


if __name__ == "__main__":
    unittest.main()

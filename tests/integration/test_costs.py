# SPDX-License-Identifier: Apache-2.0
"""What the largest documents cost."""

import contextlib
import json
import tracemalloc
import unittest

from cip.errors import ConfigurationError, ErrorCode, InvalidDocumentError
from cip.model.jsontree import NODE_LIMIT, parse_json


class Amount(unittest.TestCase):
    MEMORY = 64 * 1024 * 1024  # bytes that one document may cost

    def cost(self, text: str) -> int:
        """Bytes at the peak while `text` is read."""
        tracemalloc.start()
        try:
            with contextlib.suppress(InvalidDocumentError):
                parse_json(text.encode(), "document")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def test_the_worst_document_within_and_beyond_the_limit_costs_little(self) -> None:
        for unit in ("[],", '{"a":0},', '{"":[]},'):
            with self.subTest(unit):
                count = (NODE_LIMIT - 2) // sum(map(unit.count, ",:[{"))
                self.assertLess(self.cost(f"[{unit * count}0]"), self.MEMORY)
        self.assertLess(self.cost(f"[{'[],' * (4 << 20)}0]"), self.MEMORY)

    def test_values_and_keys_are_counted_before_they_are_read(self) -> None:
        for text in ("[" + "0," * NODE_LIMIT + "0]", "[" * NODE_LIMIT * 2, '{"a":' * NODE_LIMIT):
            with self.assertRaisesRegex(InvalidDocumentError, "document: more than 400000 values and keys") as caught:
                parse_json(text.encode(), "document")
            self.assertIs(caught.exception.code, ErrorCode.LIMIT_EXCEEDED)
        with self.assertRaises(ConfigurationError) as other:
            parse_json(b"[" + b"0," * NODE_LIMIT + b"0]", "policy.json", error=ConfigurationError)
        self.assertIs(other.exception.code, ErrorCode.LIMIT_EXCEEDED)

    def test_the_host_s_own_lists_may_be_longer(self) -> None:
        data = b"[" + b"0," * NODE_LIMIT + b"0]"
        self.assertEqual(len(parse_json(data, "layers.json", node_limit=2 * NODE_LIMIT).value), NODE_LIMIT + 1)

    def test_what_stands_in_strings_is_not_counted(self) -> None:
        for text in (",:[{", '\\",', "\\\\,", "\\n,:"):
            with self.subTest(text):
                document = f'["{text * 500_000}"]'
                self.assertEqual(parse_json(document.encode(), "document").value, json.loads(document))


if __name__ == "__main__":
    unittest.main()

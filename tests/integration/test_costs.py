# SPDX-License-Identifier: Apache-2.0
"""What the largest documents, and a storage's longest lists, cost."""

import contextlib
import json
import subprocess
import sys
import tracemalloc
import unittest

from cip.errors import ConfigurationError, ErrorCode, InvalidDocumentError
from cip.model.jsontree import NODE_LIMIT, parse_json
from cip.sources.storage.records import COUNT_LIMIT, LIST_LIMIT
from tests.support.leaks import LeakCheckedTestCase


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

    def test_what_stands_in_strings_is_not_counted(self) -> None:
        for text in (",:[{", '\\",', "\\\\,", "\\n,:"):
            with self.subTest(text):
                document = f'["{text * 500_000}"]'
                self.assertEqual(parse_json(document.encode(), "document").value, json.loads(document))


class Lists(LeakCheckedTestCase):
    """A local storage's lists at their limits: of bytes as podman writes them, of records as short as they can be."""

    MEMORY = 64 * 1024  # KiB that opening an image may cost
    OPEN = """
import sys
from pathlib import Path
from cip.errors import CipError
from cip.model.reference import parse_image_reference
from cip.settings import Settings
from cip.sources.storage.source import open_storage

def peak():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))

before, text = peak(), sys.argv[1]
try:
    text = f"{len(open_storage(parse_image_reference(text), Settings())._chain())} layers"
except CipError as error:
    text = str(error)
print(peak() - before, text)
"""

    def write(self, kind: str, record: bytes) -> None:
        path = self.directory / f"overlay-{kind}" / f"{kind}.json"
        path.parent.mkdir(exist_ok=True)
        count = min(COUNT_LIMIT, LIST_LIMIT // (len(record % 0) + 1) - 1)
        path.write_bytes(b"[" + b",".join([record % number for number in range(count)]) + b"]")

    def test_their_length_costs_time_and_little_memory(self) -> None:
        long, digest = b"a" * 64, b"sha256:" + b"a" * 64
        image = (
            (
                b'{"id":"%064x","digest":"D","names":["localhost/a:1"],"layer":"L","metadata":"{}","big-data-names":'
                b'["manifest","manifest-D"],"big-data-sizes":{"manifest":500,"manifest-D":500},"big-data-digests":'
                b'{"manifest":"D"},"created":"2024-01-01T00:00:00.000000000Z"}'
            )
            .replace(b"D", digest)
            .replace(b"L", long)
        )
        layer = b'{"id":"%064x","parent":"L","diff-digest":"D","diff-size":1}'.replace(b"D", digest).replace(b"L", long)
        for records, name, told in (
            ((image, layer), "localhost/a:1", "the storage has no layer a"),
            ((b'{"id":"%064x","layer":"1f"}', b'{"id":"%x"}'), f"@{0:064x}", "1 layers"),
        ):
            self.write("images", records[0])
            self.write("layers", records[1])
            run = [sys.executable, "-c", self.OPEN, f"containers-storage:[overlay@{self.directory}]{name}"]
            out = subprocess.run(run, capture_output=True, text=True, check=True, timeout=300).stdout
            with self.subTest(name):
                self.assertIn(told, out)
                self.assertLess(int(out.split()[0]), self.MEMORY)


if __name__ == "__main__":
    unittest.main()

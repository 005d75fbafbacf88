# SPDX-License-Identifier: Apache-2.0
"""A list that is read record by record says what the same list says that is read as one document."""

import json
import os
import random
import unittest
from contextlib import closing
from unittest import mock

from cip.errors import CipError, ErrorCode, InvalidDocumentError
from cip.model.jsontree import parse_json
from cip.sources.files import whole_file
from cip.sources.storage import records
from cip.sources.storage.records import RecordList
from tests.support.leaks import LeakCheckedTestCase

RECORD = {"id": "a", "names": ['}{"][', "\\", 'ü\\"'], "sizes": {"x": [1, {}]}, "flags": None}
SEEDS = [json.dumps([RECORD] * count, indent=indent).encode() for count in (0, 1, 3) for indent in (None, 1)]
PIECES = [*map(str.encode, '[]{},"\\: '), b"null", b"\xff", b'"id":2', b'{"a":1,"a":1}', b"NaN", b"[1]"]


class Records(LeakCheckedTestCase):
    def values(self, data: bytes) -> list[object]:
        """The records of a list, each read a second time by where it begins."""
        path = self.directory / "list"
        path.write_bytes(data)
        found = []
        with closing(RecordList(whole_file(os.open(path, os.O_RDONLY), "list"), "list")) as reader:
            for where, node in list(reader.records()):
                self.assertEqual(next(reader.records(where))[1].value, node.value)
                found.append(node.value)
        return found

    def refused(self, data: bytes, reason: str) -> InvalidDocumentError:
        with self.assertRaisesRegex(InvalidDocumentError, reason) as caught:
            self.values(data)
        return caught.exception

    def test_are_those_of_the_document_wherever_it_is_cut(self) -> None:
        for size in (1, 2, 3, 7, 64, 4096):
            for data in SEEDS:
                with self.subTest(size, data=data), mock.patch.object(records, "_CHUNK", size):
                    self.assertEqual(self.values(data), json.loads(data))
        self.assertEqual(self.values(b" null\n"), [])

    def test_a_changed_list_is_refused_or_means_the_same(self) -> None:
        chance = random.Random(1)
        for _ in range(600):
            data = bytearray(chance.choice(SEEDS))
            for _ in range(chance.randint(1, 3)):
                place = chance.randrange(len(data) + 1)
                data[place : place + chance.choice((0, 0, 1, 5))] = chance.choice(PIECES)
            try:
                wanted = parse_json(bytes(data), "list").value
            except CipError:
                wanted = None
            objects = isinstance(wanted, list) and all(isinstance(each, dict) for each in wanted)
            with self.subTest(bytes(data)), mock.patch.object(records, "_CHUNK", chance.choice((5, 4096))):
                if objects or data.strip() == b"null":
                    self.assertEqual(self.values(bytes(data)), wanted or [])
                else:
                    self.refused(bytes(data), "list: ")

    def test_complaints_say_which_record(self) -> None:
        self.refused(b'[{},{"a":1,"a":2}]', r"^list: \[1\]: a: duplicate key$")
        self.refused(b'[{},{"a":[}]}]', r"^list: \[1\]: not valid JSON at line 1 column 7")
        self.refused(b"[{} {}]", "^list: not valid JSON, or not an array of objects, behind byte 3$")

    def test_lengths_and_numbers_have_limits(self) -> None:
        for name, limit, data in (
            ("RECORD_LIMIT", 4096, b'[{},{"a":"' + b"x" * 5000 + b'"}]'),
            ("RECORD_LIMIT", 4096, b"[{}" + b" " * 5000 + b"]"),
            ("LIST_LIMIT", 4096, b"[{}" + b",{}" * 2000 + b"]"),
            ("COUNT_LIMIT", 3, b"[{},{},{},{}]"),
        ):
            with self.subTest(name), mock.patch.object(records, name, limit), mock.patch.object(records, "_CHUNK", 512):
                self.assertIs(self.refused(data, f"list: .*{limit}").code, ErrorCode.LIMIT_EXCEEDED)


if __name__ == "__main__":
    unittest.main()

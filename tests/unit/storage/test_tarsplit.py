# SPDX-License-Identifier: Apache-2.0
"""A layer's tar is rebuilt byte for byte, from its own directory and nothing outside of it (images.md 4.5)."""

import base64
import gzip
import json
import os
import unittest
from functools import partial
from pathlib import Path
from unittest import mock

from cip.content import BytesReader, read_limited
from cip.errors import CipError, ErrorCode, InvalidDocumentError, SourceError
from cip.sources.files import Escape, Tree, whole_file
from cip.sources.storage import tarsplit
from cip.sources.storage.tarsplit import DirectoryFiles, RebuiltLayer, measure_recipe
from tests.support import images, storage
from tests.support.images import Member
from tests.support.leaks import LeakCheckedTestCase

MEMBERS = (
    Member(b"d", kind=b"5"),
    Member(b"d/file", b"content"),
    Member(b"d/empty", b""),
    Member(b"d/big", images.random_bytes(600_000, b"big")),
    Member(b"d/hard", kind=b"1", link=b"d/file"),
    Member(b"link", kind=b"2", link=b"/d/file"),
    Member(b"bad\xff\xfename", b"not UTF-8"),
    Member(b"./dots/../dots/f", b"odd spelling"),
)


class RebuildTestCase(LeakCheckedTestCase):
    def layer(self, members: tuple[Member, ...], recipe: bytes, *, below: tuple[Path, ...] = ()) -> RebuiltLayer:
        directory = self.directory / "layer"
        if not directory.exists():
            storage.unpack(members, bytes(directory))
        path = self.directory / "recipe"
        path.write_bytes(gzip.compress(recipe))
        openers = [partial(Tree.at, bytes(each), Escape.CONFINED) for each in below]
        files = DirectoryFiles(Tree.at(bytes(directory), Escape.CONFINED), openers)
        layer = RebuiltLayer(whole_file(os.open(path, os.O_RDONLY), "recipe"), files, -1, "layer")
        self.addCleanup(layer.close)
        return layer

    def rebuild(self, members: tuple[Member, ...], *, below: tuple[Path, ...] = ()) -> bytes:
        return self.read(self.layer(members, storage.recipe(members, images.tar(members)), below=below))

    def read(self, layer: RebuiltLayer) -> bytes:
        return read_limited(layer, 1 << 24, "layer")

    def entry(self, name: bytes, size: int) -> bytes:
        """A recipe for one file alone."""
        return json.dumps({"type": 1, "name": name.decode(), "size": size}).encode()


class Rebuilding(RebuildTestCase):
    def test_the_tar_comes_back_byte_for_byte(self) -> None:
        self.assertEqual(self.rebuild(MEMBERS), images.tar(MEMBERS))

    def test_small_reads_give_the_same_bytes(self) -> None:
        members = MEMBERS[:3]
        layer = self.layer(members, storage.recipe(members, images.tar(members)))
        data, buffer = bytearray(), memoryview(bytearray(7))
        while count := layer.readinto(buffer):
            data += buffer[:count]
        self.assertEqual(bytes(data), images.tar(members))

    def test_one_read_crosses_many_small_files(self) -> None:
        members = tuple(Member(b"d/%d" % number, b"x") for number in range(50))
        layer = self.layer(members, storage.recipe(members, images.tar(members)))
        self.assertEqual(layer.readinto(memoryview(bytearray(40_000))), 40_000)

    def test_a_file_that_is_not_there_comes_from_a_layer_below(self) -> None:
        storage.unpack((Member(b"d/low", b"12345"),), bytes(self.directory / "low"))
        storage.unpack((Member(b"d/low", b"wrong"), Member(b"e/lowest", b"abc")), bytes(self.directory / "lowest"))
        directory = self.directory / "layer"
        storage.unpack((Member(b"d/own", b"own"),), bytes(directory))
        recipe = b"\n".join([self.entry(b"d/own", 3), self.entry(b"d/low", 5), self.entry(b"e/lowest", 3)])
        layer = self.layer((), recipe, below=(self.directory / "low", self.directory / "lowest"))
        self.assertEqual(self.read(layer), b"own12345abc")

    def test_a_file_that_lies_deep_costs_one_descriptor_and_bounded_time(self) -> None:
        deep = tuple(self.directory / f"below{number}" for number in range(50))
        for each in deep:
            each.mkdir()
        (deep[-1] / "low").write_bytes(b"1")
        recipe = b"\n".join([self.entry(b"low", 1)] * 3)
        before = len(os.listdir("/proc/self/fd"))
        layer = self.layer((), recipe, below=deep)
        for _ in range(3):
            self.assertEqual(layer.readinto(memoryview(bytearray(1))), 1)
            self.assertLessEqual(len(os.listdir("/proc/self/fd")) - before, 4)
        with (
            mock.patch.object(tarsplit, "LOOKED_LIMIT", 149),
            self.assertRaisesRegex(InvalidDocumentError, "more than 149 directories of layers below") as caught,
        ):
            self.read(self.layer((), recipe, below=deep))
        self.assertIs(caught.exception.code, ErrorCode.LIMIT_EXCEEDED)

    def test_the_size_can_be_told_from_the_recipe(self) -> None:
        archive = images.tar(MEMBERS)
        recipe = gzip.compress(storage.recipe(MEMBERS, archive))
        self.assertEqual(measure_recipe(BytesReader(recipe), "recipe"), len(archive))

    def test_nothing_is_read_after_closing(self) -> None:
        layer = self.layer(MEMBERS, storage.recipe(MEMBERS, images.tar(MEMBERS)))
        layer.readinto(memoryview(bytearray(2000)))
        layer.close()
        layer.close()
        with self.assertRaisesRegex(SourceError, "layer: closed while it was read"):
            layer.readinto(memoryview(bytearray(1)))


class Safety(RebuildTestCase):
    def test_names_cannot_leave_the_directory(self) -> None:
        (self.directory / "secret").write_bytes(b"outside")
        layer = self.directory / "layer"
        layer.mkdir()
        (layer / "secret").write_bytes(b"inside!")
        (layer / "up").symlink_to("..")
        (layer / "absolute").symlink_to("/")
        (layer / "file").symlink_to(self.directory / "secret")
        for name in (
            b"../secret",
            b"/secret",
            b"up/secret",
            b"absolute/secret",
            b"up/../../secret",
            b"absolute/up/secret",
        ):
            with self.subTest(name):
                self.assertEqual(self.read(self.layer((), self.entry(name, 7))), b"inside!")
        with self.assertRaisesRegex(SourceError, "file 'file': no such file"):
            self.read(self.layer((), self.entry(b"file", 7)))

    def test_a_neighbour_is_found_by_the_same_rules(self) -> None:
        """The directory of the file before is remembered, which must not make a link harmless."""
        layer = self.directory / "layer"
        storage.unpack((Member(b"d/one", b"1"), Member(b"d/target", b"2")), bytes(layer))
        (layer / "d/link").symlink_to("target")
        (layer / "d/out").symlink_to("../../../secret")
        (self.directory / "secret").write_bytes(b"outside")
        recipe = b"\n".join([self.entry(b"d/one", 1), self.entry(b"d/link", 1), self.entry(b"d/one", 1)])
        self.assertEqual(self.read(self.layer((), recipe)), b"121")
        with self.assertRaisesRegex(SourceError, "no such file"):
            self.read(self.layer((), recipe + b"\n" + self.entry(b"d/out", 1)))

    def test_only_files_are_opened(self) -> None:
        layer = self.directory / "layer"
        layer.mkdir()
        os.mkfifo(layer / "pipe")
        (layer / "directory").mkdir()
        for name in (b"pipe", b"directory", b"", b".."):
            with self.subTest(name), self.assertRaisesRegex(SourceError, "layer: file .*: not a regular file"):
                self.read(self.layer((), self.entry(name, 1)))

    def test_a_file_that_became_shorter_is_told(self) -> None:
        (self.directory / "layer").mkdir()
        (self.directory / "layer" / "f").write_bytes(b"1234")
        with self.assertRaisesRegex(SourceError, "layer: 6 bytes are missing from a file of the layer"):
            self.read(self.layer((), self.entry(b"f", 10)))

    def test_malformed_recipes_are_refused_with_the_line(self) -> None:
        for case, recipe, reason in (
            ("no JSON", b"{}\nhello", "recipe: line 1: expected a member 'type'"),
            ("no JSON later", b'{"type":2}\nhello', "recipe: line 2: not valid JSON"),
            ("type", b'{"type":3}', "line 1: type: expected 1 or 2, found 3"),
            ("payload", b'{"type":2,"payload":"?"}', "line 1: payload: expected base64"),
            ("name", b'{"type":1,"name_raw":"?"}', "line 1: name_raw: expected base64"),
            ("NUL in a name", b'{"type":1,"name":"a\\u0000b","size":1}', "line 1: expected a file name, found"),
            ("NUL in a raw name", b'{"type":1,"name_raw":"YQBi","size":1}', "line 1: expected a file name, found"),
            ("size", b'{"type":1,"name":"f","size":-1}', "line 1: size: expected at least 0"),
            ("duplicate", b'{"type":2,"type":1}', "duplicate key"),
            ("empty line", b'{"type":2}\n\n{"type":2}', "line 2: not valid JSON"),
        ):
            with self.subTest(case), self.assertRaisesRegex(InvalidDocumentError, reason):
                self.read(self.layer(MEMBERS, recipe))
        (self.directory / "recipe").write_bytes(b"no gzip")
        with self.assertRaisesRegex(InvalidDocumentError, "recipe: damaged gzip data"):
            measure_recipe(BytesReader(b"no gzip"), "recipe")

    def test_recipes_are_bounded(self) -> None:
        for name, limit, reason in (
            ("LINE_LIMIT", 100, "a line of more than 100 bytes"),
            ("ENTRY_LIMIT", 3, "more than 3 lines"),
        ):
            recipe = gzip.compress(b'{"type":2}\n' * 5 + b" " * 200)
            with mock.patch.object(tarsplit, name, limit), self.assertRaisesRegex(CipError, reason) as caught:
                measure_recipe(BytesReader(recipe), "recipe")
            self.assertIs(caught.exception.code, ErrorCode.LIMIT_EXCEEDED)

    def test_lines_that_bring_no_bytes_end(self) -> None:
        """Each costs time while nobody sees progress; a line may be longer than what it brings, as real ones are."""
        nothing = b'{"type":1,"name":"a"}'
        some = json.dumps({"type": 2, "payload": base64.b64encode(b"x" * 100).decode()}).encode()
        for recipe, fits in (
            ((nothing + b"\n") * 2 + some, True),
            ((nothing + b"\n" + some + b"\n") * 50, True),
            ((nothing + b"\n") * 10, False),
            (nothing[:-1] + b" " * 200 + b"}", False),
            ((some + b"\n") * 50 + (nothing + b"\n") * 5000, False),
        ):
            packed = BytesReader(gzip.compress(recipe))
            with self.subTest(recipe[:40]), mock.patch.object(tarsplit, "LINE_LIMIT", 200):
                if fits:
                    self.assertGreater(measure_recipe(packed, "recipe"), 0)
                    continue
                with self.assertRaisesRegex(
                    InvalidDocumentError, "more than 16 bytes for each byte|a line of"
                ) as caught:
                    measure_recipe(packed, "recipe")
                self.assertIs(caught.exception.code, ErrorCode.LIMIT_EXCEEDED)

    def test_long_pieces_of_all_layers_together_are_bounded(self) -> None:
        piece = images.random_bytes(300_000, b"piece")
        line = json.dumps({"type": 2, "payload": base64.b64encode(piece).decode()}).encode()
        with mock.patch.object(tarsplit, "LONG_LIMIT", 2 * len(piece)):
            layers = [self.layer((), b"\n".join([line] * 3)) for _ in range(3)]
            for each in layers[:2]:
                self.assertEqual(each.readinto(memoryview(bytearray(10))), 10)
            with self.assertRaisesRegex(
                SourceError, "layer: expected pieces of tars of at most 600000 bytes"
            ) as caught:
                self.read(layers[2])
            self.assertIs(caught.exception.code, ErrorCode.LIMIT_EXCEEDED)
            layers[0].close()
            self.assertEqual(self.read(self.layer((), b"\n".join([line] * 3))), piece * 3)
            layers[1].close()
            layers[1].close()
        self.assertEqual(tarsplit._long_pieces._held, 0)


if __name__ == "__main__":
    unittest.main()

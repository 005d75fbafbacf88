# SPDX-License-Identifier: Apache-2.0
"""Targets of containers-storage: its lists, the recipes of layers, the names that only it can read, storage.conf."""

import gzip
import os
from contextlib import closing
from typing import cast

from cip.content import BytesReader
from cip.hostconfig.paths import parse_toml
from cip.model.jsontree import parse_json
from cip.model.reference import ImageReference, Transport
from cip.settings import HostEnvironment
from cip.sources.files import FileBlob, whole_file
from cip.sources.storage.configuration import parse_storage_name, read_values, split_store
from cip.sources.storage.records import RecordList
from cip.sources.storage.store import _read_image, _read_layer, item_file_name
from cip.sources.storage.tarsplit import DirectoryFiles, RebuiltLayer, measure_recipe

from ..engine import Target
from ..mutation import mutate_json
from .hostconfig import TOML_WORDS

_TAR_LIMIT = 1 << 20  # bytes of a layer that is rebuilt; a recipe can promise any number


class _Files:
    """Every file of a layer is `x` and a hundred zeros."""

    def open_file(self, name: bytes) -> int:
        if not name or b"\0" in name or b".." in name.split(b"/"):
            raise FileNotFoundError(2, "no such file")
        descriptor = os.memfd_create("file")
        os.write(descriptor, b"x" + bytes(100))
        return descriptor

    def close(self) -> None:
        """Nothing to release."""


def _recipe(data: bytes) -> str:
    """A tar-split recipe: the layer that it makes has the size that is measured, or is refused."""
    compressed = gzip.compress(data, 1, mtime=0)
    measured = measure_recipe(BytesReader(compressed), "recipe")
    if measured > _TAR_LIMIT:
        return "large"
    layer = RebuiltLayer(cast(FileBlob, BytesReader(compressed)), cast(DirectoryFiles, _Files()), measured, "layer")
    buffer = memoryview(bytearray(4096))
    received = 0
    try:
        while count := layer.readinto(buffer):
            received += count
    finally:
        layer.close()
    assert received == measured
    return "rebuilt"


def _packed_recipe(data: bytes) -> None:
    """The same, damaged as a file: gzip that ends early, or goes on with something else."""
    measure_recipe(BytesReader(data), "recipe")


def _lists(data: bytes) -> None:
    """images.json and layers.json: ids become parts of paths; the files of items are only opened below them."""
    descriptor = os.memfd_create("list")
    os.write(descriptor, data)
    with closing(RecordList(whole_file(descriptor, "list"), "list")) as found:
        nodes = [node for _, node in found.records()]
    assert [node.value for node in nodes] == (parse_json(data, "list").value or [])
    for node in nodes:
        image = _read_image(node)
        for item in image.items:
            name = item_file_name(item)
            assert name and "\0" not in name and ("/" not in name or name.startswith("=")), repr(name)
        layer = _read_layer(node)
        assert layer.size is None or layer.size >= 0
        for each in (image.id, image.layer or "x", layer.id, layer.parent or "x"):
            assert "/" not in each and not each.startswith(".") and each.isascii(), repr(each)


def _name(data: bytes) -> None:
    """The text behind `containers-storage:`."""
    text = os.fsdecode(data)
    reference = ImageReference(Transport.CONTAINERS_STORAGE, f"containers-storage:{text}", path=text)
    store, rest = split_store(reference)
    if store is not None:
        assert all(os.path.isabs(path) for path in (store.root, *store.image_stores))
    for found in (None, "0" * 64):
        name = parse_storage_name(reference, rest, lambda prefix, found=found: found)  # type: ignore[misc]
        assert name.named or name.image_id


def _configuration(data: bytes) -> None:
    """storage.conf: every place is an absolute path."""
    environment = HostEnvironment({"HOME": "/home/u", "X": "relative"}, "/home/u", 1000, 1000)
    values, stores = read_values(parse_toml("/storage.conf", data), environment, places=True)
    places = (text for key, text in values.items() if key != "driver")
    assert all(os.path.isabs(place) and "\0" not in place for place in (*places, *(stores or ())))


TARGETS = (
    Target("recipe", _recipe, (b'{"type":1,"name":"a","size":101}\n', b'{"type":2,"payload":"AAAA"}\n', b"name_raw")),
    Target("recipe-file", _packed_recipe, (b"\x1f\x8b\x08", b"\0\0\xff\xff")),
    Target("store-lists", _lists, (b'"id":"', b'"big-data-names":["../x"],', b'"diff-size":'), mutate_json),
    Target("storage-name", _name, (b"[overlay@/a+/b:x.imagestore=/c]", b"@sha256:" + b"0" * 64, b"@", b"+", b"]")),
    Target("storage-conf", _configuration, (b"[storage.options]\n", b'graphroot = "$HOME"\n', b"${X}", *TOML_WORDS)),
)

# SPDX-License-Identifier: Apache-2.0
"""One directory of a local storage: how its files are named, and what its lists say (images.md 4.3).

What becomes of images and layers is in test_source.py.
"""

import json
import unittest

from cip.errors import CipError, NotFoundError, SourceError
from cip.sources.storage.store import Store, item_file_name, open_store
from tests.support import images
from tests.support.images import Member
from tests.support.leaks import LeakCheckedTestCase
from tests.support.storage import Storage


class Items(unittest.TestCase):
    def test_only_plain_keys_are_file_names(self) -> None:
        # as buildah 1.28 wrote it
        key_of_manifest = "manifest-sha256:a077ef5d977353233329e13beb4a77997b19be619f157f61b382bf1aa8909691"
        file_of_manifest = (
            "=bWFuaWZlc3Qtc2hhMjU2OmEwNzdlZjVkOTc3MzUzMjMzMzI5ZTEzYmViNGE3Nzk5N2IxOWJlNjE5ZjE1N2Y2MWIz"
            "ODJiZjFhYTg5MDk2OTE="
        )
        for key, name in (
            ("manifest", "manifest"),
            ("a.b9", "a.b9"),
            ("signatures", "signatures"),
            ("manifest-x", "=bWFuaWZlc3QteA=="),
            ("Manifest", "=TWFuaWZlc3Q="),
            ("", "="),
            (key_of_manifest, file_of_manifest),
        ):
            with self.subTest(key):
                self.assertEqual(item_file_name(key), name)

    def test_no_key_becomes_a_path(self) -> None:
        for key in ("../x", "a/b", ".."):
            self.assertNotIn("/", item_file_name(key))


class Lists(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.storage = Storage(self.directory / "root")
        self.layer, _ = self.storage.add_layer([Member(b"f", b"x")])
        self.storage.add_image(["localhost/a:1"], self.layer, images.MANIFEST_M, {"item": b"content"})

    def store(self) -> Store:
        found = open_store("storage", str(self.storage.root), "overlay")
        assert found is not None
        self.addCleanup(found.close)
        return found

    def test_lists_stay_what_they_were_at_first(self) -> None:
        store = self.store()
        (image,) = store.images()
        self.assertEqual(
            (image.names, image.layer, image.manifests),
            (("localhost/a:1",), self.layer, frozenset({str(images.DIGEST_M)})),
        )
        self.assertIsNotNone(store.layer(self.layer))
        for kind in ("images", "layers"):
            path = self.storage.root / f"overlay-{kind}" / f"{kind}.json"
            path.with_suffix(".new").write_text("[]")
            path.with_suffix(".new").rename(path)  # as the writers of storages do it
        self.assertEqual(list(store.images()), [image])
        self.assertIsNotNone(store.layer(self.layer))

    def test_a_host_may_have_tens_of_thousands_of_layers(self) -> None:
        path = self.storage.root / "overlay-layers" / "layers.json"
        layers = json.loads(path.read_text())
        more = [{**layers[0], "id": f"{number:064x}"} for number in range(20_000)]
        path.write_text(json.dumps([*layers, *more]))
        store = self.store()
        for layer_id in (self.layer, more[0]["id"], more[-1]["id"]):
            found = store.layer(layer_id)
            assert found is not None
            self.assertEqual((found.id, found.size), (layer_id, layers[0]["diff-size"]))
        self.assertIsNone(store.layer("f" * 64))

    def test_an_item_is_opened_when_the_image_lists_it(self) -> None:
        store = self.store()
        (image,) = store.images()
        blob = store.open_item(image, "item")
        self.assertEqual(blob.size, 7)
        blob.close()
        with self.assertRaisesRegex(NotFoundError, "storage: 'other': nothing is kept under this name"):
            store.open_item(image, "other")

    def test_a_root_that_is_not_there_is_no_store_and_one_that_is_a_file_is_an_error(self) -> None:
        self.assertIsNone(open_store("storage", f"{self.directory}/nothing", ""))
        (self.directory / "file").write_bytes(b"")
        with self.assertRaisesRegex(SourceError, "storage: '.*file': not a directory"):
            open_store("storage", f"{self.directory}/file", "")

    def test_members_of_the_wrong_kind_are_refused_with_their_place(self) -> None:
        for change, reason in (
            ({"names": "x"}, r"images.json: \[0\]: names: expected an array"),
            ({"big-data-names": [1]}, r"\[0\]: \['big-data-names'\]\[0\]: expected a string"),
            ({"layer": 1}, r"\[0\]: layer: expected a string"),
        ):
            self.storage.images[0] |= change
            self.storage.write()
            with self.subTest(reason), self.assertRaisesRegex(CipError, reason):
                list(self.store().images())
            self.storage.images[0] |= {"names": [], "big-data-names": [], "layer": ""}

    def test_what_other_tools_read_otherwise_is_refused(self) -> None:
        before = dict(self.storage.images[0])
        for change, reason in (
            ({"Names": ["other"]}, r"ambiguous member 'Names', expected it to be spelled 'names'"),
            ({"big-data-Digests": {}}, r"expected it to be spelled 'big-data-digests'"),
            ({"digest": "x"}, r"\[0\]: digest: .*expected algorithm:hex"),
            ({"big-data-digests": {"manifest-x": ""}}, r"expected algorithm:hex"),
        ):
            self.storage.images[0] = before | change
            self.storage.write()
            with self.subTest(reason), self.assertRaisesRegex(CipError, reason):
                list(self.store().images())
        self.storage.images[0] = before
        layer_id = self.storage.layers[0]["id"]
        self.storage.layers[0]["Parent"] = ""
        self.storage.write()
        with self.assertRaisesRegex(CipError, "ambiguous member 'Parent'"):
            self.store().layer(str(layer_id))


if __name__ == "__main__":
    unittest.main()

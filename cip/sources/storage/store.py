# SPDX-License-Identifier: Apache-2.0
"""Reads the directories of a local image storage: its images, its layers, what is kept with them (images.md 4.3).

Only reads: a store that does not exist is empty and stays so. The locks of the store are shared ones, held while its
lists are opened and no longer; a writer puts a new file in the place of a list, so one that is open keeps its content
whatever happens to the store. No list is kept in memory, but for where each layer's record begins.
"""

from __future__ import annotations

import base64
import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from typing import NamedTuple

from ...content import undo_on_error
from ...errors import ConfigurationError, ErrorCode, NotFoundError, SourceError, UnsupportedError, quote, system_reason
from ...model.descriptor import Digest, parse_digest
from ...model.jsontree import JsonNode
from ..files import Escape, FileBlob, Tree, whole_file
from .records import RecordList
from .tarsplit import DirectoryFiles, RebuiltLayer, measure_recipe

LOCK_WAIT = 15.0  # seconds for a writer to finish
DRIVERS = ("overlay", "vfs")
_OTHER_DRIVERS = ("btrfs", "zfs", "aufs", "devicemapper")
_LOCK_POLL = 0.02  # seconds
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_PLAIN_KEY = re.compile(r"[a-z0-9.]+", re.ASCII)
_EXPECTED_DIFF_ID = "expected-layer-diffid"
# What records have, here and elsewhere; another spelling of one is read by a tool that folds case (images.md 5.3).
_MEMBERS = frozenset(
    re.findall(
        r"[a-z-]+",
        "id digest names names-history layer mapped-layers metadata big-data-names big-data-sizes big-data-digests "
        "created flags parent mountlabel compressed-diff-digest compressed-size diff-digest diff-size toc-digest "
        "compression uidset gidset uidmap gidmap",
    )
)


class StoredImage(NamedTuple):
    """One image of a store; `names` as stored, `manifests` are the digests of its manifests, `layer` its top layer."""

    id: str
    names: tuple[str, ...]
    layer: str
    manifests: frozenset[str]
    items: frozenset[str]
    metadata: str


class StoredLayer(NamedTuple):
    """One layer of a store. `digest` is that of its plain tar; None when the store does not say. `size` in bytes."""

    id: str
    parent: str
    digest: Digest | None
    size: int | None


class Store:
    """One store; owns `tree`, its root. `text` is the reference for messages, `root` its resolved path."""

    def __init__(self, text: str, root: str, driver: str, tree: Tree, run_root: str = "") -> None:
        self.root = root
        self.driver = driver
        self._text = text
        self._tree = tree
        self._run_root = run_root
        self._images: Sequence[RecordList] | None = None
        self._layers: Sequence[tuple[RecordList, Mapping[int, int]]] | None = None
        self._opened = ExitStack()

    def images(self) -> Iterator[StoredImage]:
        """All images, read from the list as it was at first. Raises SourceError, InvalidDocumentError."""
        if self._images is None:
            directory = f"{self.driver}-images"
            with self._locked(f"{directory}/images.lock"):
                self._images = self._open_lists(self._tree, f"{directory}/images.json")
        return (_read_image(node) for each in self._images for _, node in each.records())

    def layer(self, layer_id: str) -> StoredLayer | None:
        """The layer with this id; None when there is none. Raises SourceError, InvalidDocumentError."""
        if self._layers is None:
            directory = f"{self.driver}-layers"
            volatile = f"{directory}/volatile-layers.json"
            with self._locked(f"{directory}/layers.lock"):
                lists = [*self._open_lists(self._tree, f"{directory}/layers.json", volatile)]
            lists += self._open_transient_lists(volatile)
            # Hashes, because as many ids would be three times as long; the record tells whether it is the one.
            indexes = [{hash(_read_layer(node).id): where for where, node in each.records()} for each in lists]
            self._layers = tuple(zip(lists, indexes, strict=True))[::-1]
        for records, places in self._layers:
            where = places.get(hash(layer_id))
            if where is not None:
                layer = _read_layer(next(records.records(where))[1])
                if layer.id == layer_id:
                    return layer
        return None

    def open_item(self, image: StoredImage, key: str) -> FileBlob:
        """What is kept with an image under `key`. Raises NotFoundError (blob-not-found), SourceError."""
        what = f"{self._text}: {quote(key)}"
        if key not in image.items:
            raise NotFoundError(f"{what}: nothing is kept under this name", code=ErrorCode.BLOB_NOT_FOUND)
        path = f"{self.driver}-images/{image.id}/{item_file_name(key)}"
        with _reading(what, NotFoundError(f"{what}: no such file", code=ErrorCode.BLOB_NOT_FOUND)):
            return whole_file(self._tree.open_file(path.encode()), what)

    def open_recipe(self, layer: StoredLayer, what: str) -> FileBlob:
        """The compressed recipe of a layer's tar. Raises UnsupportedError when the store has none, SourceError."""
        why = f"{what}: the store kept no tar-split recipe, so the tar cannot be rebuilt byte for byte"
        name = f"{self.driver}-layers/{layer.id}.tar-split.gz"
        with _reading(f"{what}: recipe", UnsupportedError(why)):
            return whole_file(self._tree.open_file(name.encode()), f"{what}: recipe")

    def open_files(self, layer: StoredLayer, what: str) -> Tree:
        """The directory that holds the files of a layer. Raises UnsupportedError, SourceError."""
        base = f"overlay/{layer.id}" if self.driver == "overlay" else f"vfs/dir/{layer.id}"
        why = f"{what}: the store has no directory of its files; it may be in an additional layer store"
        with _reading(what, UnsupportedError(why)):
            if self.driver == "vfs":
                return Tree(self._tree.open_directory(base.encode()), Escape.CONFINED)
            if self._exists(f"{base}/composefs-data"):
                raise UnsupportedError(f"{what}: the store keeps it as composefs, which cannot be read without a mount")
            return Tree(self._tree.open_directory(f"{base}/diff".encode()), Escape.CONFINED)

    def close_lists(self) -> None:
        """Release the lists, which only an opening image needs; what asks for one again opens it anew."""
        self._opened.close()
        self._images = self._layers = None

    def close(self) -> None:
        """Release the root and the lists."""
        self.close_lists()
        self._tree.close()

    def _exists(self, path: str) -> bool:
        try:
            os.close(self._tree.open_directory(path.encode()))
        except FileNotFoundError:
            return False
        return True

    def _open_lists(self, tree: Tree, *paths: str) -> Sequence[RecordList]:
        """Those of the lists that exist; they are closed with the store."""
        found = []
        for path in paths:
            what = f"{self._text}: {path.rpartition('/')[2]}"
            with suppress(FileNotFoundError), _reading(what):
                found.append(RecordList(whole_file(tree.open_file(path.encode()), what), what))
                self._opened.callback(found[-1].close)
        return found

    def _open_transient_lists(self, path: str) -> Sequence[RecordList]:
        """The layers that a transient store keeps under its run root."""
        if not self._run_root:
            return ()
        try:
            tree = Tree.at(os.path.realpath(self._run_root))
        except OSError:
            return ()  # most stores have none, and none of ours would be there
        with closing(tree):
            return self._open_lists(tree, path)

    @contextmanager
    def _locked(self, path: str) -> Iterator[None]:
        """Hold a shared lock, if there is a lock file. Raises SourceError (timeout) when a writer does not finish."""
        try:
            descriptor = self._tree.open_file(path.encode())
        except OSError:
            descriptor = None  # a store that is only read may have no lock, or one that we may not open
        try:
            if descriptor is not None:
                self._wait_for_lock(descriptor, path)
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _wait_for_lock(self, descriptor: int, path: str) -> None:
        deadline = time.monotonic() + LOCK_WAIT
        while True:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return
            except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: somebody writes
                if time.monotonic() >= deadline:
                    why = f"{self._text}: {path}: locked by another process for more than {LOCK_WAIT:g} s"
                    raise SourceError(why, code=ErrorCode.TIMEOUT) from None
            except OSError:
                return  # ENOLCK: a file system without locks
            time.sleep(_LOCK_POLL)


class LayerPlace(NamedTuple):
    """A layer, the store it lies in, and the layers below it with theirs, nearest first."""

    layer: StoredLayer
    store: Store
    below: tuple[tuple[StoredLayer, Store], ...]

    def open(self, size: int, what: str) -> RebuiltLayer:
        """The layer's tar, rebuilt while it is read. Raises UnsupportedError, SourceError."""
        recipe = self.store.open_recipe(self.layer, what)
        with undo_on_error(recipe.close):
            own = self.store.open_files(self.layer, what)
        # A layer of vfs is complete, one of overlay may leave the content of a file to those below.
        below = self.below if self.store.driver == "overlay" else ()
        files = DirectoryFiles(own, [partial(store.open_files, layer, what) for layer, store in below])
        return RebuiltLayer(recipe, files, size, what)

    def measure(self, what: str) -> int:
        """The size of the layer's tar where the store did not record it: one pass over the recipe."""
        with closing(self.store.open_recipe(self.layer, what)) as recipe:
            return measure_recipe(recipe, f"{what}: recipe")


def open_store(text: str, root: str, driver: str, run_root: str = "") -> Store | None:
    """The store at `root`; None when there is none. An empty `driver` is that of the lists that are there.

    Raises UnsupportedError for a driver that needs mounts, ConfigurationError when the driver cannot be told,
    SourceError.
    """
    try:
        with _reading(f"{text}: {quote(root)}"):
            resolved = os.path.realpath(root, strict=True)
            tree = Tree.at(resolved)
    except FileNotFoundError:
        return None
    with undo_on_error(tree.close):
        found = driver or _find_driver(text, resolved)
        if found not in DRIVERS:
            why = f"storage driver {found!r} is not supported, expected one of {', '.join(DRIVERS)}"
            raise UnsupportedError(f"{text}: {why}")
        return Store(text, resolved, found, tree, run_root)


def _find_driver(text: str, root: str) -> str:
    """The driver whose lists lie in the store; overlay for an empty one, as elsewhere."""
    found = [name for name in (*DRIVERS, *_OTHER_DRIVERS) if os.path.lexists(os.path.join(root, f"{name}-images"))]
    if len(found) > 1:
        why = f"holds images of {' and '.join(found)}: choose by STORAGE_DRIVER, storage.conf or [DRIVER@ROOT]"
        raise ConfigurationError(f"{text}: {quote(root)}", why)
    return found[0] if found else DRIVERS[0]


def item_file_name(key: str) -> str:
    """The file that keeps the item `key` of an image (images.md 4.3)."""
    return key if _PLAIN_KEY.fullmatch(key) else "=" + base64.b64encode(key.encode()).decode("ascii")


def _read_image(node: JsonNode) -> StoredImage:
    node.require_exact_case(_MEMBERS)
    if node.text("digest"):
        node["digest"].parse(parse_digest)
    digests = node.get("big-data-digests")
    manifests = [
        str(digest.parse(parse_digest))
        for key, digest in (digests.members() if digests is not None else ())
        if key == "manifest" or key.startswith("manifest-")
    ]
    return StoredImage(
        _read_id(node["id"]),
        tuple(name.as_str() for name in node.array("names")),
        _read_id(node["layer"]) if node.text("layer") else "",
        frozenset(manifests),
        frozenset(item.as_str() for item in node.array("big-data-names")),
        node.text("metadata"),
    )


def _read_layer(node: JsonNode) -> StoredLayer:
    node.require_exact_case(_MEMBERS)
    size = node.get("diff-size")
    digest = node.get("diff-digest")
    if digest is None or not digest.as_str():
        # Pulled in parts: nobody has seen the whole tar yet, and whoever gets it checks the digest (images.md 4.4).
        flags = node.get("flags")
        digest = flags.get(_EXPECTED_DIFF_ID) if flags is not None else None
    return StoredLayer(
        _read_id(node["id"]),
        _read_id(node["parent"]) if node.text("parent") else "",
        digest.parse(parse_digest) if digest is not None else None,
        size.as_int() if size is not None and size.as_int() >= 0 else None,  # below zero: not known either
    )


def _read_id(node: JsonNode) -> str:
    """An id, which becomes part of a path."""
    if not _ID.fullmatch(node.as_str()):
        node.fail(f"expected an id, found {quote(node.value)}")
    return node.as_str()


@contextmanager
def _reading(what: str, missing: NotFoundError | UnsupportedError | None = None) -> Iterator[None]:
    """Make a typed error of what the system refuses, and `missing`, if given, of a file that is not there."""
    try:
        yield
    except FileNotFoundError as error:
        if missing is None:
            raise
        raise missing from error
    except OSError as error:
        hint = ""
        if isinstance(error, PermissionError):
            hint = "; the store of a user is readable inside `podman unshare`, that of the system by root"
        raise SourceError(f"{what}: {system_reason(error)}{hint}") from error

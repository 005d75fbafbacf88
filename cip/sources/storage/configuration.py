# SPDX-License-Identifier: Apache-2.0
"""Which storage is meant, and what is wanted of it (images.md 4.1, 4.2).

storage.conf says where the local image storage is and which other stores belong to it; so may the text behind
`containers-storage:`, which only the store can tell apart.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...errors import ConfigurationError, InvalidReferenceError, quote
from ...hostconfig import paths
from ...hostconfig.paths import LayeredFile, parse_toml, rootless_uid
from ...model.descriptor import is_digest
from ...model.jsontree import JsonNode
from ...model.reference import DockerReference, ImageReference, parse_docker_reference
from ...settings import HostEnvironment, Settings

SHORTEST_PREFIX = 3  # characters of an image id; anything shorter is a name
_FULL_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})", re.ASCII)
_DRIVER = re.compile(r"[a-z][a-z0-9]{0,31}", re.ASCII)
_STORE_OPTIONS = ("imagestore", "additionalimagestore")  # both name a store that is only read
_PLACES = ("graphroot", "runroot")
_PATHS = (*_PLACES, "rootless_storage_path", "imagestore")  # keys of storage.conf

FindId = Callable[[str], str | None]  # the one image id that starts so, or None


class StorageConfiguration(NamedTuple):
    """The host's local storage. An empty `driver` is to be found out from what lies in `root`.

    `image_stores` are read beside `root`, in order. All paths are absolute and clean, and only what a file of the host
    names is freed of links: `root` is how policies name the storage, whatever links lead there.
    """

    driver: str
    root: str
    run_root: str
    image_stores: tuple[str, ...]


def load_storage(settings: Settings) -> StorageConfiguration:
    """The storage of this host for this user. Raises ConfigurationError naming file and key."""
    environment = settings.environment
    uid = rootless_uid(environment, environment.uid)
    values = dict.fromkeys(("driver", *_PATHS), "")
    stores: tuple[str, ...] = ()
    for file in storage_files(environment):
        _, data = file.read()
        if data is not None:
            # The places that system files name are root's; a user's own files may name others.
            found, listed = read_values(parse_toml(file.path, data), environment, places=file.users or uid == 0)
            values.update(found)
            stores = listed if listed is not None else stores
    default_root, default_run_root = _default_storage(environment)
    from_environment = environment.get("STORAGE_OPTS")
    if from_environment:
        stores = parse_store_options(from_environment.split(","), "STORAGE_OPTS")
    driver = environment.get("STORAGE_DRIVER")
    return StorageConfiguration(
        parse_driver(driver, "STORAGE_DRIVER") if driver else values["driver"],
        values["graphroot"] or (values["rootless_storage_path"] if uid else "") or _clean(default_root),
        values["runroot"] or _clean(default_run_root),
        (values["imagestore"], *stores) if values["imagestore"] else stores,
    )


def read_values(
    root: JsonNode, environment: HostEnvironment, *, places: bool
) -> tuple[dict[str, str], tuple[str, ...] | None]:
    """What a file says: texts by their keys, `places` among them, and further stores, None where it names no list.

    Raises ConfigurationError.
    """
    storage = root.folded(("storage",)).get("storage")
    if storage is None:
        return {}, None
    table = storage.folded(("driver", *_PATHS, "options"))
    found = {}
    if table.text("driver"):
        found["driver"] = parse_driver(table.text("driver"), table["driver"].where)
    for key in _PATHS:
        path = _path(table.get(key), environment)
        if path and (places or key not in _PLACES):
            found[key] = path
    options = table.get("options")
    stores = options.folded(("additionalimagestores",)).get("additionalimagestores") if options is not None else None
    if stores is None:
        return found, None
    return found, tuple(filter(None, (_path(each, environment) for each in stores.items())))


def storage_files(environment: HostEnvironment) -> list[LayeredFile]:
    """The files of storage.conf, found as those of registries.conf are."""
    named = environment.get("CONTAINERS_STORAGE_CONF")
    return paths.layered_files(environment, "storage", named, "CONTAINERS_STORAGE_CONF", alone=bool(named))


def _default_storage(environment: HostEnvironment) -> tuple[str, str]:
    """The root of the local image storage and its run root, where no storage.conf names them (images.md 4.1)."""
    uid = rootless_uid(environment, environment.uid)
    if uid == 0:
        return os.path.join(paths.STATE_DIRECTORY, "storage"), os.path.join(paths.RUN_DIRECTORY, "storage")
    data = environment.get("XDG_DATA_HOME")
    base = data if os.path.isabs(data) else os.path.join(environment.home, ".local", "share")
    runtime = environment.get("XDG_RUNTIME_DIR")
    run_base = runtime if os.path.isabs(runtime) else f"/tmp/storage-run-{uid}"
    return os.path.join(base, "containers", "storage"), os.path.join(run_base, "containers")


def parse_driver(name: str, where: str) -> str:
    """The name of a storage driver. Raises ConfigurationError."""
    if not _DRIVER.fullmatch(name):
        raise ConfigurationError(where, f"expected the name of a storage driver, found {quote(name)}")
    return "overlay" if name == "overlay2" else name


def parse_store_options(options: Sequence[str], where: str) -> tuple[str, ...]:
    """The image stores among `KEY=VALUE` driver options such as `overlay.imagestore=/srv/images`; others are ignored.

    Raises ConfigurationError.
    """
    stores = []
    for option in options:
        key, _, value = option.strip().partition("=")
        if key.strip().lower().rpartition(".")[2] in _STORE_OPTIONS and value.strip():
            stores.append(_require_absolute(value.strip(), where))
    return tuple(stores)


def _path(node: JsonNode | None, environment: HostEnvironment) -> str:
    """An absolute path in which `$UID`, `$HOME` and other variables are replaced; empty when it is not set."""
    if node is None or not node.as_str():
        return ""
    known = {"UID": str(rootless_uid(environment, environment.uid)), "HOME": environment.home}

    def replace(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return known.get(name) or environment.get(name)

    path = _VARIABLE.sub(replace, node.as_str())
    clean = _require_absolute(path, node.where)
    try:
        return _clean(os.path.realpath(path, strict=True))
    except OSError:  # nothing is there
        return clean


def _require_absolute(path: str, where: str) -> str:
    if not os.path.isabs(path) or "\0" in path:
        raise ConfigurationError(where, f"expected an absolute path, found {quote(path)}")
    return _clean(path)


def _clean(path: str) -> str:
    """`path` in its shortest form, by its text alone."""
    return "/" + os.path.normpath(path).lstrip("/")


class StorageName(NamedTuple):
    """What is wanted of a store: a name, an image id, or both. An empty `image_id` is none."""

    named: DockerReference | None
    image_id: str


def split_store(reference: ImageReference) -> tuple[StorageConfiguration | None, str]:
    """The store in `[DRIVER@ROOT+RUNROOT:OPTION,…]`, None when the text does not begin with it; and the rest.

    Raises InvalidReferenceError, ConfigurationError.
    """
    if not reference.path.startswith("["):
        return None, reference.path
    inside, bracket, rest = reference.path[1:].partition("]")
    if not bracket:
        raise InvalidReferenceError(reference.text, "expected ] behind the store")
    driver, at, place = inside.partition("@")
    if not at:
        driver, place = "", inside
    elif not driver:
        raise InvalidReferenceError(reference.text, "expected the name of a storage driver before @, found nothing")
    place, _, options = place.partition(":")
    root, plus, run_root = place.partition("+")
    for path in (root, run_root) if plus else (root,):
        if not path.startswith("/"):
            raise InvalidReferenceError(reference.text, f"expected an absolute path, found {quote(path)}")
    where = quote(reference.text)
    stores = parse_store_options(options.split(","), where)
    named = parse_driver(driver, where) if driver else ""
    return StorageConfiguration(named, _clean(root), _clean(run_root) if plus else "", stores), rest


def parse_storage_name(reference: ImageReference, rest: str, find_id: FindId) -> StorageName:
    """What `rest`, the text behind the store, names. Raises InvalidReferenceError."""
    image_id = ""
    name, at, tail = rest.rpartition("@")
    if at and not is_digest(tail):
        image_id = tail if _FULL_ID.fullmatch(tail) else _find(tail, find_id)
        if not image_id:
            raise InvalidReferenceError(reference.text, f"{quote(tail)} is neither a digest nor the id of an image")
        rest = name
    if not image_id and "@" not in rest and ":" not in rest:
        image_id = _find(rest, find_id)
        if image_id:
            return StorageName(None, image_id)
    if not rest:
        if not image_id:
            raise InvalidReferenceError(reference.text, "expected an image name or id")
        return StorageName(None, image_id)
    try:
        return StorageName(parse_docker_reference(rest).tagged(), image_id)
    except InvalidReferenceError as error:
        raise InvalidReferenceError(reference.text, error.why) from error


def _find(prefix: str, find_id: FindId) -> str:
    return (find_id(prefix) or "") if len(prefix) >= SHORTEST_PREFIX else ""

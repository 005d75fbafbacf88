# SPDX-License-Identifier: Apache-2.0
"""The text behind `containers-storage:`, which only the store can tell apart (images.md 4.1, 4.2)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from ...errors import CipError, InvalidReferenceError, quote
from ...model.descriptor import parse_digest
from ...model.reference import DockerReference, ImageReference, parse_docker_reference
from .configuration import StorageConfiguration, parse_driver, parse_store_options

SHORTEST_PREFIX = 3  # characters of an image id; anything shorter is a name
_FULL_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)

FindId = Callable[[str], str | None]  # the one image id that starts so, or None


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
    return StorageConfiguration(parse_driver(driver, where) if driver else "", root, run_root, stores), rest


def parse_storage_name(reference: ImageReference, rest: str, find_id: FindId) -> StorageName:
    """What `rest`, the text behind the store, names. Raises InvalidReferenceError."""
    image_id = ""
    name, at, tail = rest.rpartition("@")
    if at and not _is_digest(tail):
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


def _is_digest(text: str) -> bool:
    try:
        parse_digest(text)
    except CipError:
        return False
    return True

# SPDX-License-Identifier: Apache-2.0
"""The path in a reference, resolved once: what policy looks up is what is opened."""

from __future__ import annotations

import os

from ..errors import InvalidReferenceError, Phase, SourceError, quote_own
from ..model.reference import ImageReference


def resolve_path(reference: ImageReference) -> str:
    """The absolute, link-free path of `reference`; an empty one is the current directory.

    Links are followed element by element, so `link/..` is the parent of what the link names and not the directory
    that the link lies in (signatures.md 1.3, "STRICTER"). All parents must exist, the last element may be missing
    unless it is a dangling link (images.md 2.3). Raises SourceError, InvalidReferenceError for what names no file.
    """
    path = reference.path or "."
    try:
        try:
            return os.path.realpath(path, strict=True)
        except FileNotFoundError:
            parent, name = os.path.split(path.rstrip("/"))
            if name in ("", ".", "..") or os.path.lexists(os.path.join(parent, name)):
                raise
            resolved = os.path.realpath(parent or ".", strict=True)
            if not os.path.isdir(resolved):
                raise
            return os.path.join(resolved, name)
    except UnicodeEncodeError as error:
        raise InvalidReferenceError(reference.text, "the path has no form in the file system's encoding") from error
    except OSError as error:
        where = quote_own(os.fsdecode(error.filename or path))
        why = (error.strerror or str(error)).lower()
        raise SourceError(f"{reference.text}: {where}: {why}", phase=Phase.MANIFEST) from error

# SPDX-License-Identifier: Apache-2.0
"""Signatures that are kept as files beside an image: in a directory, and in a layout where `fetch` has put them.

In a layout `sha256-HEX.sig` is what cosign attaches: a manifest whose layers are payloads, their annotations the proof.
`sha256-HEX.signatures` is ours: a manifest of the artifact type below, each layer one signature in the form in which a
lookaside stores it (signatures.md 4.3). A layout is not asked for them under its own name, because no other program
looks there; a registry image that comes from a layout is (`union`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing

from ..content import MANIFEST_LIMIT, read_blob
from ..errors import CipError, ErrorCode, InvalidDocumentError, SignatureError, SourceError, system_reason
from ..model.descriptor import Descriptor, Digest, read_descriptor
from ..model.manifest import Manifest, parse_manifest
from ..model.signature import SIGNATURE_LIMIT, RawSignature, SignatureAllowance, SigstoreSignature, parse_signature_blob
from .files import Tree, read_document
from .layout import INDEX_NAME, LayoutFiles, entries_of, name_of

ARTIFACT_TYPE = "application/vnd.container-image-proxy.signatures.v1"
SIGNATURE_TYPE = "application/vnd.container-image-proxy.signature.v1"
COUNT_LIMIT = 128  # signatures under one name
DIRECTORY_COUNT_LIMIT = 127  # signatures of one manifest (decisions.md section 2)


def attached_name(digest: Digest) -> str:
    """The name of what cosign attaches to a manifest."""
    return f"{digest.algorithm}-{digest.encoded}.sig"


def kept_name(digest: Digest) -> str:
    """The name of our own artefact."""
    return f"{digest.algorithm}-{digest.encoded}.signatures"


def read_directory_signatures(tree: Tree, prefix: str, where: str) -> Sequence[RawSignature]:
    """The files `PREFIXsignature-N` of the directory `where`, from 1 until one is missing. Raises SignatureError."""
    found: list[RawSignature] = []
    allowance = SignatureAllowance()
    while True:
        name = f"{prefix}signature-{len(found) + 1}"
        what = f"{where}: {name}"
        try:
            descriptor = tree.open_file(name.encode())
        except FileNotFoundError:
            return found
        except OSError as error:
            raise _unreadable(f"{what}: {system_reason(error)}") from error
        if len(found) == DIRECTORY_COUNT_LIMIT:
            os.close(descriptor)
            raise _unreadable(f"{what}: more than {DIRECTORY_COUNT_LIMIT} signatures")
        try:
            blob = read_document(descriptor, what, SIGNATURE_LIMIT)
        except (SourceError, InvalidDocumentError) as error:
            raise _unreadable(str(error)) from error
        allowance.take(len(blob), what)
        found.append(parse_signature_blob(blob, name))


def read_layout_signatures(files: LayoutFiles, digest: Digest, where: str) -> Sequence[RawSignature]:
    """All signatures of the manifest `digest` that the layout `where` has. Raises SignatureError (reason fetch)."""
    try:
        named = _named(files, where)
        found: list[RawSignature] = []
        for layer, blob in _layers(files, named.get(kept_name(digest)), f"{where}: {kept_name(digest)}"):
            found.append(parse_signature_blob(blob, f"{where}: {layer.digest}"))
        for layer, blob in _layers(files, named.get(attached_name(digest)), f"{where}: {attached_name(digest)}"):
            found.append(SigstoreSignature(layer.media_type, blob, layer.annotations, f"{where}: {layer.digest}"))
        return tuple(found)
    except SignatureError:
        raise
    except CipError as error:
        raise _unreadable(str(error)) from error


def _named(files: LayoutFiles, where: str) -> dict[str, Descriptor]:
    """The entries of the index by their names; of several with one name the first."""
    found: dict[str, Descriptor] = {}
    for entry in entries_of(files.read_index(), f"{where}: {INDEX_NAME}"):
        name = name_of(entry)
        if name is not None:
            found.setdefault(name, read_descriptor(entry))
    return found


def _layers(files: LayoutFiles, named: Descriptor | None, where: str) -> list[tuple[Descriptor, bytes]]:
    if named is None:
        return []
    manifest = parse_manifest(_read(files, named, MANIFEST_LIMIT, where), named.media_type, where)
    if not isinstance(manifest, Manifest) or len(manifest.layers) > COUNT_LIMIT:
        raise _unreadable(f"{where}: expected a manifest of at most {COUNT_LIMIT} layers")
    allowance = SignatureAllowance()
    for layer in manifest.layers:
        allowance.take(layer.size, where)
    return [(layer, _read(files, layer, SIGNATURE_LIMIT, where)) for layer in manifest.layers]


def _read(files: LayoutFiles, descriptor: Descriptor, limit: int, where: str) -> bytes:
    with closing(files.open_blob(descriptor.digest)) as blob:
        return read_blob(blob, descriptor, limit, where)


def _unreadable(why: str) -> SignatureError:
    return SignatureError(why, code=ErrorCode.POLICY_REJECTED, reason="fetch")

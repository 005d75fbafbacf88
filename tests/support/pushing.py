# SPDX-License-Identifier: Apache-2.0
"""Pushes images and sigstore attachments to a registry, byte for byte (distribution-spec, "Push")."""

import http.client
import urllib.parse
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from cip.model import mediatype
from cip.model.descriptor import Descriptor, Digest, digest_of
from cip.model.signature import SigstoreSignature

from . import images

_SECONDS = 60


class Pusher:
    """A connection to one repository of a registry without TLS and without users; a context manager."""

    def __init__(self, host: str, repository: str) -> None:
        self._connection = http.client.HTTPConnection(host, timeout=_SECONDS)
        self._base = f"/v2/{repository}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def blob(self, data: bytes) -> Digest:
        """Push one blob."""
        url = urllib.parse.urlsplit(self._ask("POST", f"{self._base}/blobs/uploads/", 202).headers["Location"])
        digest = digest_of(data)
        self._ask("PUT", f"{url.path}?{url.query}&digest={digest}", 201, data, "application/octet-stream")
        return digest

    def manifest(self, tag: str, data: bytes, media_type: str = mediatype.OCI_MANIFEST) -> Digest:
        """Push a manifest or index whose parts are there already."""
        self._ask("PUT", f"{self._base}/manifests/{tag}", 201, data, media_type)
        return digest_of(data)

    def image(self, tag: str, manifest: bytes, *blobs: bytes, media_type: str = mediatype.OCI_MANIFEST) -> Digest:
        """Push blobs and their manifest."""
        for data in blobs:
            self.blob(data)
        return self.manifest(tag, manifest, media_type)

    def attach(
        self, subject: Digest, signatures: Sequence[SigstoreSignature], media_type: str = mediatype.OCI_MANIFEST
    ) -> Digest:
        """Push `signatures` as the attachments of the manifest `subject` (signatures.md 5.1)."""
        config = b"{}"
        self.blob(config)
        layers = [
            Descriptor(each.mime_type, self.blob(each.payload), len(each.payload), (), each.annotations)
            for each in signatures
        ]
        described = [
            {
                "mediaType": each.media_type,
                "digest": str(each.digest),
                "size": each.size,
                "annotations": dict(each.annotations),
            }
            for each in layers
        ]
        kind = mediatype.DOCKER_CONFIG if media_type == mediatype.DOCKER_MANIFEST else mediatype.OCI_CONFIG
        manifest = images.compact(
            {
                "schemaVersion": 2,
                "mediaType": media_type,
                "config": {"mediaType": kind, "digest": str(digest_of(config)), "size": len(config)},
                "layers": described,
            }
        )
        return self.manifest(f"{subject.algorithm}-{subject.encoded}.sig", manifest, media_type)

    def _ask(
        self, method: str, target: str, status: int, body: bytes = b"", media_type: str = ""
    ) -> http.client.HTTPResponse:
        self._connection.request(method, target, body=body, headers={"Content-Type": media_type} if media_type else {})
        response = self._connection.getresponse()
        text = response.read()
        assert response.status == status, (method, target, response.status, text)
        return response

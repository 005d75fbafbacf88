# SPDX-License-Identifier: Apache-2.0
"""For Python parents: starts the proxy as a child, opens one image, streams its blobs.

    with open_proxy("docker://quay.io/fedora/fedora:41") as image:
        for layer in image.layers():
            with image.open_blob(layer.digest) as blob:
                shutil.copyfileobj(blob, file)

Everything is verified by the proxy. The last bytes of a blob are handed over only once it is: who has read a blob to
its end without an exception has the right one, and who stops early has not been promised anything.
"""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any, NamedTuple

from . import rooms
from .channels import CHANNELS, Channel, Stream, hang_up, refusal, stop, told_to_client
from .channels import ClientError as ClientError
from .content import CHUNK, MANIFEST_LIMIT
from .errors import CipError, ErrorCode
from .model.descriptor import Descriptor, Digest, parse_digest, read_descriptor
from .model.jsontree import parse_json
from .model.manifest import Manifest, parse_manifest

_PACKAGE = os.path.dirname(os.path.abspath(__file__))


class Blob(io.RawIOBase):
    """One blob as it arrives: a readable binary file, not seekable. `size` is in bytes, -1 when nobody knows.

    `read` raises ClientError instead of returning the last bytes of a blob that turns out wrong or incomplete.
    """

    def __init__(self, stream: Stream, size: int) -> None:
        super().__init__()
        self._stream = stream
        self._received = 0
        self._ended = False
        self.size = size

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill the front of `buffer`; the number of bytes, 0 only at the verified end. Raises ClientError."""
        if self.closed:
            raise ValueError("reading from a closed blob")
        with memoryview(buffer).cast("B") as view:
            if self._ended or not len(view):
                return 0
            count = self._stream.receive(view)
        self._received += count
        if self._received == self.size or not count:
            self._stream.finish(self._received)
            self._ended = True
        return count

    def readall(self) -> bytes:
        """All that is left, which must fit into memory. Raises ClientError."""
        return b"".join(iter(lambda: self.read(CHUNK) or b"", b""))

    def close(self) -> None:
        """Let go of the blob; free at any time over JSON, see `open_proxy` for HTTP."""
        if not self.closed:
            self._stream.close()
        super().close()


class Referrer(NamedTuple):
    """Something that refers to the image, such as an SBOM. `subject` is the manifest that it is about.

    `verified` is `signature` for a Sigstore bundle that the policy accepted as a signature of this image, else `no`:
    then nobody has vouched for what it says.
    """

    descriptor: Descriptor
    artifact_type: str
    subject: str
    verified: str


class OpenedImage:
    """One image, open in a child. Made by `open_proxy`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        # the digest is that of the per-platform manifest before conversion to OCI form
        self._manifest, self.manifest_digest = channel.manifest()
        self._layers: tuple[Descriptor, ...] | None = None
        self._listed: dict[Digest, int] = {}  # sizes of what fetched referrers name

    def manifest(self) -> bytes:
        """The manifest in OCI form, at most 4 MiB."""
        return self._manifest

    def config(self) -> bytes:
        """The config blob that `manifest` names, at most 4 MiB. Raises ClientError."""
        descriptor = self._descriptors.config
        if descriptor.size > MANIFEST_LIMIT:
            raise refusal(ErrorCode.LIMIT_EXCEEDED, f"config: larger than {MANIFEST_LIMIT} bytes")
        with self.open_blob(descriptor.digest) as blob:
            return blob.readall()

    def layers(self) -> tuple[Descriptor, ...]:
        """The layers, base first: those of `manifest`, but over JSON a local storage's own, which may have no size.

        Raises ClientError.
        """
        if self._layers is None:
            named = self._descriptors.layers
            served = self._channel.layers() or ()
            moved = served and [each.digest for each in served] != [each.digest for each in named]
            self._layers = served if moved else named
        return self._layers

    def referrers(self, artifact_type: str = "") -> tuple[Referrer, ...]:
        """What refers to the image, all or of one type; asks the registry at the first call. Raises ClientError."""
        data = self._channel.referrers(artifact_type)
        with told_to_client():
            entries = rooms.parse_referrers(data, "referrers")
            whole = [read_descriptor(parse_json(entry.text, "referrers")) for entry in entries]
        return tuple(
            Referrer(
                descriptor,
                entry.artifact_type,
                descriptor.annotations.get(rooms.SUBJECT_KEY, ""),
                descriptor.annotations.get(rooms.VERIFIED_KEY, "no"),
            )
            for entry, descriptor in zip(entries, whole, strict=True)
        )

    def referrer_manifest(self, digest: Digest | str) -> bytes:
        """The manifest of one of `referrers`; from now on `open_blob` opens what it names. Raises ClientError."""
        data = self._channel.referrer_manifest(_parsed_digest(digest))
        try:
            manifest = parse_manifest(data, "", "referrer")
        except CipError:
            return data  # of another kind: a parent that asked for it knows what it is
        if isinstance(manifest, Manifest):
            self._listed.update({each.digest: each.size for each in (manifest.config, *manifest.layers)})
        return data

    def open_blob(self, digest: Digest | str) -> Blob:
        """A blob of this image or of a fetched referrer, as stored; the caller closes it, or uses `with`.

        Raises ClientError: the digest does not parse, the image names no such blob, or its source failed at once.
        """
        wanted = _parsed_digest(digest)
        own = {each.digest: each.size for each in (self._descriptors.config, *self.layers())}
        known = {**self._listed, **own}
        stream, size = self._channel.open_blob(wanted, known.get(wanted, 0))
        return Blob(stream, size)

    @cached_property
    def _descriptors(self) -> Manifest:
        with told_to_client():
            parsed = parse_manifest(self._manifest, "", "manifest")
        if not isinstance(parsed, Manifest):
            raise refusal(ErrorCode.MANIFEST_INVALID, "manifest: expected a manifest, found an index")
        return parsed


@contextmanager
def open_proxy(
    reference: str, *, protocol: str = "http", program: Sequence[str] = (), options: Sequence[str] = ()
) -> Iterator[OpenedImage]:
    """Start the proxy and open `reference` (`TRANSPORT:…`); a context manager that leaves no child and no descriptor.

    `protocol` is `http`, where one blob can be open at a time and one that is closed early is read to its end before
    the next request; or `json`, where any number can be, in several threads too, closing is free, and the reason of a
    failure in mid-blob is told. `program` is the command (default: this package, by this interpreter), `options` are
    its flags, such as `--authfile=FILE`. The child's log lines go to our stderr.

    Raises ClientError when the image cannot be opened, ValueError for another protocol, OSError when the program
    cannot be started.
    """
    if protocol not in CHANNELS:
        raise ValueError(f"protocol {protocol!r}: expected one of {', '.join(CHANNELS)}")
    environment = dict(os.environ)
    if not program:
        # The directory that the parent happens to be in (-P) is not searched, the one that holds this package is.
        program = (sys.executable, "-P", "-m", os.path.basename(_PACKAGE))
        paths = (os.path.dirname(_PACKAGE), environment.get("PYTHONPATH", ""))
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    make_channel, kind, subcommand = CHANNELS[protocol]
    # A reference that looks like a flag is not one; over JSON it is told later.
    words = (*options, "--", reference) if protocol == "http" else options
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, ExitStack() as stack:
        with theirs:
            child = subprocess.Popen(
                [*program, *subcommand, f"--sockfd={theirs.fileno()}", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment,
            )
        stack.callback(stop, child)
        stack.callback(hang_up, ours)
        channel = make_channel(ours, child, reference)
        stack.callback(channel.close)
        yield OpenedImage(channel)
        channel.quit()


def _parsed_digest(digest: Digest | str) -> Digest:
    with told_to_client():
        return parse_digest(str(digest))

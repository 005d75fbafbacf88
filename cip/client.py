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
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .content import CHUNK, MANIFEST_LIMIT
from .errors import CipError, ErrorCode
from .model.descriptor import UNKNOWN_SIZE, Descriptor
from .model.digest import Digest, parse_digest
from .model.jsontree import parse_json
from .model.manifest import Manifest, parse_manifest
from .model.referrers import SUBJECT_KEY, VERIFIED_KEY, parse_referrers

if TYPE_CHECKING:
    from http.client import HTTPResponse

STOP_SECONDS = 5.0  # until a child that was told to quit is killed
PACKET_LIMIT = 32768  # bytes of a packet of the JSON protocol
_PACKAGE = os.path.dirname(os.path.abspath(__file__))


class ClientError(Exception):
    """What the proxy refused or failed at.

    `code` is a code of the closed list (README), `retryable` whether the same call may succeed later, `detail` one
    sentence for people. `problem` has all that the proxy told, such as `host`, `phase`, `offset`, `attempts`.
    """

    def __init__(
        self, code: str, retryable: bool, detail: str, problem: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.retryable = retryable
        self.detail = detail
        self.problem = dict(problem or {})


class Blob(io.RawIOBase):
    """One blob as it arrives: a readable binary file, not seekable. `size` is in bytes, -1 when nobody knows.

    `read` raises ClientError instead of returning the last bytes of a blob that turns out wrong or incomplete.
    """

    def __init__(self, stream: _Stream, size: int) -> None:
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

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel
        self._manifest, self._digest = channel.manifest()
        self._parsed: Manifest | None = None
        self._layers: tuple[Descriptor, ...] | None = None
        self._listed: dict[Digest, int] = {}  # sizes of what fetched referrers name

    @property
    def manifest_digest(self) -> Digest:
        """The sha256 digest of the per-platform manifest before conversion to OCI form."""
        return self._digest

    def manifest(self) -> bytes:
        """The manifest in OCI form, at most 4 MiB."""
        return self._manifest

    def config(self) -> bytes:
        """The config blob that `manifest` names, at most 4 MiB. Raises ClientError."""
        descriptor = self._descriptors().config
        if descriptor.size > MANIFEST_LIMIT:
            raise _error(ErrorCode.LIMIT_EXCEEDED, f"config: larger than {MANIFEST_LIMIT} bytes")
        with self.open_blob(descriptor.digest) as blob:
            return blob.readall()

    def layers(self) -> tuple[Descriptor, ...]:
        """The layers, base first: those of `manifest`, but over JSON a local storage's own, which may have no size.

        Raises ClientError.
        """
        if self._layers is None:
            named = self._descriptors().layers
            served = self._channel.layers() or ()
            moved = served and [each.digest for each in served] != [each.digest for each in named]
            self._layers = served if moved else named
        return self._layers

    def referrers(self, artifact_type: str = "") -> tuple[Referrer, ...]:
        """What refers to the image, all or of one type; asks the registry at the first call. Raises ClientError."""
        data = self._channel.referrers(artifact_type)
        try:
            entries = parse_referrers(data, "referrers")
        except CipError as error:
            raise _error(error.code, str(error)) from error
        return tuple(
            Referrer(
                entry.descriptor,
                entry.artifact_type,
                entry.descriptor.annotations.get(SUBJECT_KEY, ""),
                entry.descriptor.annotations.get(VERIFIED_KEY, "no"),
            )
            for entry in entries
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
        own = {each.digest: each.size for each in (self._descriptors().config, *self.layers())}
        known = {**self._listed, **own}
        stream, size = self._channel.open_blob(wanted, known.get(wanted, 0))
        return Blob(stream, size)

    def _descriptors(self) -> Manifest:
        if self._parsed is None:
            try:
                parsed = parse_manifest(self._manifest, "", "manifest")
            except CipError as error:
                raise _error(error.code, str(error)) from error
            if not isinstance(parsed, Manifest):
                raise _error(ErrorCode.MANIFEST_INVALID, "manifest: expected a manifest, found an index")
            self._parsed = parsed
        return self._parsed


@contextmanager
def open_proxy(
    reference: str,
    *,
    protocol: str = "http",
    program: Sequence[str] = (),
    options: Sequence[str] = (),
) -> Iterator[OpenedImage]:
    """Start the proxy and open `reference` (`TRANSPORT:…`); a context manager that leaves no child and no descriptor.

    `protocol` is `http`, where one blob can be open at a time and one that is closed early is read to its end before
    the next request; or `json`, where any number can be, in several threads too, closing is free, and the reason of a
    failure in mid-blob is told. `program` is the command (default: this package, by this interpreter), `options` are
    its flags, such as `--authfile=FILE`. The child's log lines go to our stderr.

    Raises ClientError when the image cannot be opened, ValueError for another protocol, OSError when the program
    cannot be started.
    """
    if protocol not in _CHANNELS:
        raise ValueError(f"protocol {protocol!r}: expected one of {', '.join(_CHANNELS)}")
    environment = dict(os.environ)
    if not program:
        # The directory that the parent happens to be in (-P) is not searched, the one that holds this package is.
        program = (sys.executable, "-P", "-m", os.path.basename(_PACKAGE))
        paths = (os.path.dirname(_PACKAGE), environment.get("PYTHONPATH", ""))
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    make_channel, kind, subcommand = _CHANNELS[protocol]
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
        stack.callback(_stop, child)
        stack.callback(_hang_up, ours)
        channel = make_channel(ours, child, reference)
        stack.callback(channel.close)
        yield OpenedImage(channel)
        channel.quit()


class _Stream(Protocol):
    """The bytes of one blob on their way. `close` may be called at any time, and twice."""

    def receive(self, buffer: memoryview, /) -> int:
        """The next bytes; 0 where no more come."""
        ...

    def finish(self, received: int, /) -> None:
        """Return only if the blob, of which `received` bytes came, is complete and verified. Raises ClientError."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class _Channel(Protocol):
    """One protocol, spoken to one child. All methods raise ClientError."""

    def manifest(self) -> tuple[bytes, Digest]: ...

    def layers(self) -> tuple[Descriptor, ...] | None: ...

    def referrers(self, artifact_type: str, /) -> bytes: ...

    def referrer_manifest(self, digest: Digest, /) -> bytes: ...

    def open_blob(self, digest: Digest, size: int, /) -> tuple[_Stream, int]: ...

    def quit(self) -> None: ...

    def close(self) -> None: ...


class _HttpChannel:
    """GET /manifest, GET /blobs/<digest>, POST /quit."""

    def __init__(self, sock: socket.socket, child: subprocess.Popen[bytes], reference: str) -> None:
        import http.client

        self._sock = sock
        self._child = child
        self.failures = (http.client.HTTPException, OSError, ValueError)
        self._connection = http.client.HTTPConnection("localhost")
        self._connection.sock = sock
        self._connection.auto_open = 0  # there is no second connection to this child
        self._last: _HttpStream | None = None

    def manifest(self) -> tuple[bytes, Digest]:
        response = self._ask("GET", "/manifest")
        return self._body(response), _told_digest(response.headers.get("Manifest-Digest", ""))

    def layers(self) -> tuple[Descriptor, ...] | None:
        return None

    def referrers(self, artifact_type: str, /) -> bytes:
        from urllib.parse import quote

        query = f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else ""
        return self._document(f"/referrers{query}")

    def referrer_manifest(self, digest: Digest, /) -> bytes:
        return self._document(f"/referrers/{digest}")

    def _document(self, target: str) -> bytes:
        self._finish_last()
        return self._body(self._ask("GET", target))

    def open_blob(self, digest: Digest, size: int, /) -> tuple[_Stream, int]:
        self._finish_last()
        response = self._ask("GET", f"/blobs/{digest}")
        self._last = _HttpStream(self, response)
        return self._last, UNKNOWN_SIZE if response.length is None else response.length

    def _finish_last(self) -> None:
        if self._last is not None:
            self._last.skip()
            self._last = None

    def quit(self) -> None:
        if self._last is None or self._last.ended:
            self._ask("POST", "/quit").close()

    def close(self) -> None:
        if self._last is not None:
            self._last.drop()
        self._connection.close()

    def _ask(self, method: str, target: str) -> HTTPResponse:
        try:
            self._connection.request(method, target)
            response = self._connection.getresponse()
        except self.failures as error:
            raise _gone(self._sock, self._child) from error
        if response.status != 200:
            raise _told_error(_parse(self._body(response)), retryable=False)
        return response

    def _body(self, response: HTTPResponse) -> bytes:
        try:
            data = response.read(MANIFEST_LIMIT + 1)
        except self.failures as error:
            raise _gone(self._sock, self._child) from error
        complete = not response.length and len(data) <= MANIFEST_LIMIT
        response.close()
        if not complete:
            raise _gone(self._sock, self._child)
        return data


class _HttpStream:
    """The body of an answer. The proxy keeps the last bytes of a wrong blob, so a complete body is a good one."""

    def __init__(self, channel: _HttpChannel, response: HTTPResponse) -> None:
        self._channel = channel
        self._response = response
        self._closed = False
        self.ended = False

    def receive(self, buffer: memoryview, /) -> int:
        try:
            return self._response.readinto(buffer)
        except self._channel.failures as error:
            raise self._cut_short("") from error

    def finish(self, received: int, /) -> None:
        if self._response.length:
            raise self._cut_short(f" after {received} of {received + self._response.length} bytes")
        self.ended = True

    def close(self) -> None:
        self._closed = True

    def skip(self) -> None:
        """Read what its reader did not want. Raises ClientError."""
        if not (self._closed or self.ended):
            raise _error(ErrorCode.REQUEST_INVALID, "over HTTP: expected the blob before this one to be closed")
        with memoryview(bytearray(CHUNK)) as scrap:
            while not self.ended:
                if not self.receive(scrap):
                    self.finish(0)
        self._response.close()

    def drop(self) -> None:
        """Let go of the connection."""
        self._response.close()

    def _cut_short(self, where: str) -> ClientError:
        detail = f"the blob ended{where or ' early'}: it could not be fetched or is not what it should be, see the log"
        return _error(ErrorCode.CONTENT_MISMATCH, detail)


class _JsonChannel:
    """The protocol of `skopeo experimental-image-proxy`; safe to use from several threads."""

    def __init__(self, sock: socket.socket, child: subprocess.Popen[bytes], reference: str) -> None:
        self._sock = sock
        self._child = child
        self._lock = threading.Lock()
        self._streams: set[_PipeStream | _RawStream] = set()
        self.ask("Initialize")
        self._image = self.ask("OpenImage", reference).value

    def manifest(self) -> tuple[bytes, Digest]:
        value, data = self._fetch("GetManifest")
        return data, _told_digest(str(value))

    def layers(self) -> tuple[Descriptor, ...] | None:
        _, data = self._fetch("GetLayerInfoPiped")
        try:
            return tuple(
                Descriptor(node["media_type"].as_str(), node["digest"].parse(parse_digest), node["size"].as_int())
                for node in parse_json(data, "layers").items()
            )
        except CipError as error:
            raise _error(error.code, str(error)) from error

    def referrers(self, artifact_type: str, /) -> bytes:
        return self._fetch("GetReferrers", *([artifact_type] if artifact_type else []))[1]

    def referrer_manifest(self, digest: Digest, /) -> bytes:
        return self._fetch("GetReferrerManifest", str(digest))[1]

    def open_blob(self, digest: Digest, size: int, /) -> tuple[_Stream, int]:
        stream: _PipeStream | _RawStream
        if size == UNKNOWN_SIZE:  # only its end says how long it is, and only a raw one ends by itself
            reply = self.ask("GetRawBlob", self._image, str(digest), descriptors=2)
            stream = _RawStream(self, reply.fds, digest)
        else:
            reply = self.ask("GetBlob", self._image, str(digest), size, descriptors=1)
            stream = _PipeStream(self, reply.fds[0], reply.pipe_id, size)
        self._streams.add(stream)
        return stream, size

    def quit(self) -> None:
        with self._lock:
            self._send("Shutdown")

    def close(self) -> None:
        for stream in tuple(self._streams):
            stream.close()

    def ask(self, method: str, *arguments: object, descriptors: int = 0) -> _Reply:
        """Send a request and wait for its reply, which has so many descriptors. Raises ClientError."""
        with self._lock:
            self._send(method, *arguments)
            return self._receive(descriptors)

    def forget(self, stream: _PipeStream | _RawStream) -> None:
        """The stream has closed its descriptors."""
        self._streams.discard(stream)

    def _fetch(self, method: str, *arguments: object) -> tuple[Any, bytes]:
        """Value and content of a finish-type pipe of the image."""
        with self._lock:
            self._send(method, self._image, *arguments)
            reply = self._receive(1)
            try:
                self._send("FinishPipe", reply.pipe_id)
                data = _read_limited(reply.fds[0])
            finally:
                os.close(reply.fds[0])
            self._receive(0)
        return reply.value, data

    def _send(self, method: str, *arguments: object) -> None:
        packet = json.dumps({"method": method, "args": arguments}).encode("ascii")
        if len(packet) > PACKET_LIMIT:
            raise _error(ErrorCode.REQUEST_INVALID, f"{method}: longer than {PACKET_LIMIT} bytes")
        try:
            self._sock.send(packet)
        except OSError as error:
            raise _gone(self._sock, self._child) from error

    def _receive(self, descriptors: int) -> _Reply:
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, PACKET_LIMIT, 2, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise _gone(self._sock, self._child) from error
        try:
            if not data:
                raise _gone(self._sock, self._child)
            members = _parse(data)
            if members.get("success") is not True:
                raise _failure(members)
            if len(fds) != descriptors:
                raise _error(ErrorCode.INTERNAL, f"expected {descriptors} descriptors in a reply, found {len(fds)}")
            return _Reply(members.get("value"), members.get("pipeid", 0), fds)
        except ClientError:
            for fd in fds:
                os.close(fd)
            raise


class _Reply:
    """A successful reply; `fds` belong to the caller."""

    def __init__(self, value: Any, pipe_id: int, fds: list[int]) -> None:
        self.value = value
        self.pipe_id = pipe_id
        self.fds = fds


class _PipeStream:
    """A blob of known size in a pipe, whose verdict FinishPipe has."""

    def __init__(self, channel: _JsonChannel, fd: int, pipe_id: int, size: int) -> None:
        self._channel = channel
        self._pipe = io.FileIO(fd)
        self._pipe_id = pipe_id
        self._size = size

    def receive(self, buffer: memoryview, /) -> int:
        return self._pipe.readinto(buffer) or 0

    def finish(self, received: int, /) -> None:
        self._channel.ask("FinishPipe", self._pipe_id)
        if received != self._size:
            raise _error(ErrorCode.CONTENT_MISMATCH, f"expected {self._size} bytes, found {received}")

    def close(self) -> None:
        self._pipe.close()  # without FinishPipe, which a source that stands still would hold up
        self._channel.forget(self)


class _RawStream:
    """A blob of unknown size in a pipe that ends with it, verified here."""

    def __init__(self, channel: _JsonChannel, fds: list[int], digest: Digest) -> None:
        self._channel = channel
        self._pipe, self._errors = (io.FileIO(fd) for fd in fds)
        self._digest = digest
        self._hasher = digest.hasher()

    def receive(self, buffer: memoryview, /) -> int:
        count = self._pipe.readinto(buffer) or 0
        self._hasher.update(buffer[:count])
        return count

    def finish(self, received: int, /) -> None:
        data = _read_limited(self._errors.fileno())
        if data:
            raise _failure(_parse(data))
        if self._hasher.hexdigest() != self._digest.encoded:
            raise _error(
                ErrorCode.CONTENT_MISMATCH,
                f"blob {self._digest}: found {self._digest.algorithm}:{self._hasher.hexdigest()}",
            )

    def close(self) -> None:
        self._pipe.close()
        self._errors.close()
        self._channel.forget(self)


_CHANNELS: Mapping[str, tuple[type[_HttpChannel] | type[_JsonChannel], socket.SocketKind, tuple[str, ...]]] = {
    "http": (_HttpChannel, socket.SOCK_STREAM, ()),
    "json": (_JsonChannel, socket.SOCK_SEQPACKET, ("experimental-image-proxy",)),
}


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Wait for the child, whose socket is closed; it has STOP_SECONDS to notice."""
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _hang_up(sock: socket.socket) -> None:
    """End the connection, even where an unread answer still holds a file object of it."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # ENOTCONN: the child was first
    sock.close()


def _read_limited(fd: int) -> bytes:
    """Everything up to the end of the pipe `fd`."""
    data = bytearray()
    while part := os.read(fd, CHUNK):
        data += part
        if len(data) > MANIFEST_LIMIT:
            raise _error(ErrorCode.LIMIT_EXCEEDED, f"larger than {MANIFEST_LIMIT} bytes")
    return bytes(data)


def _parse(data: bytes) -> dict[str, Any]:
    """The JSON object `data`; an empty one when it is something else, which `_told_error` then says."""
    try:
        members = parse_json(data, "answer").value
    except CipError:
        members = {}
    return members if isinstance(members, dict) else {}


def _parsed_digest(digest: Digest | str) -> Digest:
    try:
        return parse_digest(str(digest))
    except CipError as error:
        raise _error(error.code, str(error)) from error


def _told_digest(text: str) -> Digest:
    try:
        return parse_digest(text)
    except CipError as error:
        raise _error(ErrorCode.INTERNAL, f"the proxy told no digest of the manifest: {error}") from error


def _failure(members: Mapping[str, Any]) -> ClientError:
    """The error of a failed reply or of an error pipe; programs other than ours have no `details`."""
    details = members.get("details")
    if isinstance(details, dict):
        return _told_error(details, retryable=False)
    code = members.get("error_code", members.get("code"))
    detail = members.get("error", members.get("message", ""))
    return _told_error({"detail": detail}, retryable=code == "retryable")


def _told_error(problem: Mapping[str, Any], *, retryable: bool) -> ClientError:
    """The error that a problem document tells."""
    return ClientError(
        str(problem.get("type", ErrorCode.INTERNAL)),
        problem.get("retryable", retryable) is True,
        str(problem.get("detail") or "the proxy gave an answer that does not parse"),
        problem,
    )


def _gone(sock: socket.socket, child: subprocess.Popen[bytes]) -> ClientError:
    """The connection, at whose other end `child` is, ended or carried something that is no answer."""
    _hang_up(sock)
    try:
        status = child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        return _error(ErrorCode.INTERNAL, "the proxy gave no answer")
    how = f"ended with exit status {status}" if status >= 0 else f"was ended by signal {-status}"
    code = ErrorCode.REQUEST_INVALID if status == 2 else ErrorCode.INTERNAL
    return _error(code, f"the proxy {how} before it answered, see its log")


def _error(code: ErrorCode, detail: str) -> ClientError:
    return ClientError(str(code), False, detail)

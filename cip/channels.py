# SPDX-License-Identifier: Apache-2.0
"""The two protocols as a client speaks them to a child, one class each; `client` is what parents use."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from .content import CHUNK, MANIFEST_LIMIT
from .errors import CipError, ErrorCode
from .model.descriptor import UNKNOWN_SIZE, Descriptor, Digest, parse_digest
from .model.jsontree import parse_json

if TYPE_CHECKING:
    from http.client import HTTPResponse

STOP_SECONDS = 5.0  # until a child that was told to quit is killed
PACKET_LIMIT = 32768  # bytes of a packet of the JSON protocol


class ClientError(Exception):
    """What the proxy refused or failed at.

    `code` is a code of the closed list (README), `retryable` whether the same call may succeed later, `detail` one
    sentence for people. `problem` has all that the proxy told, such as `host`, `phase`, `offset`, `attempts`.
    """

    def __init__(self, code: str, retryable: bool, detail: str, problem: Mapping[str, object] | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.retryable = retryable
        self.detail = detail
        self.problem = dict(problem or {})


class _Channel:
    """One connection to a child. Its methods raise ClientError."""

    def __init__(self, sock: socket.socket, child: subprocess.Popen[bytes]) -> None:
        self._sock = sock
        self._child = child

    def _gone(self) -> ClientError:
        """The connection ended, or carried something that is no answer."""
        hang_up(self._sock)
        try:
            status = self._child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return refusal(ErrorCode.INTERNAL, "the proxy gave no answer")
        how = f"ended with exit status {status}" if status >= 0 else f"was ended by signal {-status}"
        code = ErrorCode.REQUEST_INVALID if status == 2 else ErrorCode.INTERNAL
        return refusal(code, f"the proxy {how} before it answered, see its log")


class _HttpChannel(_Channel):
    """GET /manifest, GET /blobs/<digest>, POST /quit, spoken to one child."""

    def __init__(self, sock: socket.socket, child: subprocess.Popen[bytes], reference: str) -> None:
        import http.client

        super().__init__(sock, child)
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

    def open_blob(self, digest: Digest, size: int, /) -> tuple[Stream, int]:
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
            self._last.response.close()
        self._connection.close()

    def _ask(self, method: str, target: str) -> HTTPResponse:
        try:
            self._connection.request(method, target)
            response = self._connection.getresponse()
        except self.failures as error:
            raise self._gone() from error
        if response.status != 200:
            raise _told_error(_parse(self._body(response)))
        return response

    def _body(self, response: HTTPResponse) -> bytes:
        try:
            data = response.read(MANIFEST_LIMIT + 1)
        except self.failures as error:
            raise self._gone() from error
        complete = not response.length and len(data) <= MANIFEST_LIMIT
        response.close()
        if not complete:
            raise self._gone()
        return data


class _HttpStream:
    """The body of an answer. The proxy keeps the last bytes of a wrong blob, so a complete body is a good one.

    As every stream, `finish` returns only for a blob that is complete and verified, and `close` may come twice.
    """

    def __init__(self, channel: _HttpChannel, response: HTTPResponse) -> None:
        self._channel = channel
        self.response = response
        self._closed = False
        self.ended = False

    def receive(self, buffer: memoryview, /) -> int:
        try:
            return self.response.readinto(buffer)
        except self._channel.failures as error:
            raise self._cut_short("") from error

    def finish(self, received: int, /) -> None:
        if self.response.length:
            raise self._cut_short(f" after {received} of {received + self.response.length} bytes")
        self.ended = True

    def close(self) -> None:
        self._closed = True

    def skip(self) -> None:
        """Read what its reader did not want. Raises ClientError."""
        if not (self._closed or self.ended):
            raise refusal(ErrorCode.REQUEST_INVALID, "over HTTP: expected the blob before this one to be closed")
        with memoryview(bytearray(CHUNK)) as scrap:
            while not self.ended:
                if not self.receive(scrap):
                    self.finish(0)
        self.response.close()

    def _cut_short(self, where: str) -> ClientError:
        detail = f"the blob ended{where or ' early'}: it could not be fetched or is not what it should be, see the log"
        return refusal(ErrorCode.CONTENT_MISMATCH, detail)


class _JsonChannel(_Channel):
    """The protocol of `skopeo experimental-image-proxy`; safe to use from several threads."""

    def __init__(self, sock: socket.socket, child: subprocess.Popen[bytes], reference: str) -> None:
        super().__init__(sock, child)
        self._lock = threading.Lock()
        self._streams: set[Stream] = set()
        self.ask("Initialize")
        self._image = self.ask("OpenImage", reference).value

    def manifest(self) -> tuple[bytes, Digest]:
        value, data = self._fetch("GetManifest")
        return data, _told_digest(str(value))

    def layers(self) -> tuple[Descriptor, ...] | None:
        _, data = self._fetch("GetLayerInfoPiped")
        with told_to_client():
            return tuple(
                Descriptor(node["media_type"].as_str(), node["digest"].parse(parse_digest), node["size"].as_int())
                for node in parse_json(data, "layers").items()
            )

    def referrers(self, artifact_type: str, /) -> bytes:
        return self._fetch("GetReferrers", *([artifact_type] if artifact_type else []))[1]

    def referrer_manifest(self, digest: Digest, /) -> bytes:
        return self._fetch("GetReferrerManifest", str(digest))[1]

    def open_blob(self, digest: Digest, size: int, /) -> tuple[Stream, int]:
        stream: Stream
        if size == UNKNOWN_SIZE:  # only its end says how long it is, and only a raw one ends by itself
            stream = _RawStream(self, self.ask("GetRawBlob", self._image, str(digest), descriptors=2).fds, digest)
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

    def forget(self, stream: Stream) -> None:
        """The stream has closed its descriptors."""
        self._streams.discard(stream)

    def _fetch(self, method: str, *arguments: object) -> tuple[Any, bytes]:
        """Value and content of a finish-type pipe of the image."""
        with self._lock:
            self._send(method, self._image, *arguments)
            reply = self._receive(1)
            with open(reply.fds[0], "rb") as pipe:
                self._send("FinishPipe", reply.pipe_id)
                data = _read_limited(pipe)
            self._receive(0)
        return reply.value, data

    def _send(self, method: str, *arguments: object) -> None:
        packet = json.dumps({"method": method, "args": arguments}).encode("ascii")
        if len(packet) > PACKET_LIMIT:
            raise refusal(ErrorCode.REQUEST_INVALID, f"{method}: longer than {PACKET_LIMIT} bytes")
        try:
            self._sock.send(packet)
        except OSError as error:
            raise self._gone() from error

    def _receive(self, descriptors: int) -> _Reply:
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, PACKET_LIMIT, 2, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise self._gone() from error
        try:
            if not data:
                raise self._gone()
            members = _parse(data)
            if members.get("success") is not True:
                raise _failure(members)
            if len(fds) != descriptors:
                raise refusal(ErrorCode.INTERNAL, f"expected {descriptors} descriptors in a reply, found {len(fds)}")
            return _Reply(members.get("value"), members.get("pipeid", 0), fds)
        except ClientError:
            for fd in fds:
                os.close(fd)
            raise


class _Reply(NamedTuple):
    """A successful reply; `fds` belong to the caller."""

    value: Any
    pipe_id: int
    fds: list[int]


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
            raise refusal(ErrorCode.CONTENT_MISMATCH, f"expected {self._size} bytes, found {received}")

    def close(self) -> None:
        self._pipe.close()  # without FinishPipe, which a source that stands still would hold up
        self._channel.forget(self)


class _RawStream:
    """A blob of unknown size in a pipe that ends with it, verified here."""

    def __init__(self, channel: _JsonChannel, fds: list[int], digest: Digest) -> None:
        self._channel = channel
        self._pipe, self._errors = io.FileIO(fds[0]), io.BufferedReader(io.FileIO(fds[1]))
        self._digest = digest
        self._hasher = digest.hasher()

    def receive(self, buffer: memoryview, /) -> int:
        count = self._pipe.readinto(buffer) or 0
        self._hasher.update(buffer[:count])
        return count

    def finish(self, received: int, /) -> None:
        data = _read_limited(self._errors)
        if data:
            raise _failure(_parse(data))
        if self._hasher.hexdigest() != self._digest.encoded:
            found = f"{self._digest.algorithm}:{self._hasher.hexdigest()}"
            raise refusal(ErrorCode.CONTENT_MISMATCH, f"blob {self._digest}: found {found}")

    def close(self) -> None:
        self._pipe.close()
        self._errors.close()
        self._channel.forget(self)


Stream = _HttpStream | _PipeStream | _RawStream
Channel = _HttpChannel | _JsonChannel
CHANNELS: Mapping[str, tuple[type[_HttpChannel] | type[_JsonChannel], socket.SocketKind, tuple[str, ...]]] = {
    "http": (_HttpChannel, socket.SOCK_STREAM, ()),
    "json": (_JsonChannel, socket.SOCK_SEQPACKET, ("experimental-image-proxy",)),
}


@contextmanager
def told_to_client() -> Iterator[None]:
    """Make a ClientError of what our own readers find at fault."""
    try:
        yield
    except CipError as error:
        raise refusal(error.code, str(error)) from error


def stop(child: subprocess.Popen[bytes]) -> None:
    """Wait for the child, whose socket is closed; it has STOP_SECONDS to notice."""
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def hang_up(sock: socket.socket) -> None:
    """End the connection, even where an unread answer still holds a file object of it."""
    with suppress(OSError):  # ENOTCONN: the child was first
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def _read_limited(pipe: BinaryIO) -> bytes:
    """Everything up to the end of `pipe`."""
    data = pipe.read(MANIFEST_LIMIT + 1)
    if len(data) > MANIFEST_LIMIT:
        raise refusal(ErrorCode.LIMIT_EXCEEDED, f"larger than {MANIFEST_LIMIT} bytes")
    return data


def _parse(data: bytes) -> dict[str, Any]:
    """The JSON object `data`; an empty one when it is something else, which `_told_error` then says."""
    try:
        members = parse_json(data, "answer").value
    except CipError:
        members = {}
    return members if isinstance(members, dict) else {}


def _told_digest(text: str) -> Digest:
    try:
        return parse_digest(text)
    except CipError as error:
        raise refusal(ErrorCode.INTERNAL, f"the proxy told no digest of the manifest: {error}") from error


def _failure(members: Mapping[str, Any]) -> ClientError:
    """The error of a failed reply or of an error pipe; programs other than ours have no `details`."""
    details = members.get("details")
    if isinstance(details, dict):
        return _told_error(details)
    code = members.get("error_code", members.get("code"))
    detail = members.get("error", members.get("message", ""))
    return _told_error({"detail": detail}, retryable=code == "retryable")


def _told_error(problem: Mapping[str, Any], *, retryable: bool = False) -> ClientError:
    """The error that a problem document tells."""
    code, may_retry = str(problem.get("type", ErrorCode.INTERNAL)), problem.get("retryable", retryable) is True
    detail = str(problem.get("detail") or "the proxy gave an answer that does not parse")
    return ClientError(code, may_retry, detail, problem)


def refusal(code: ErrorCode, detail: str) -> ClientError:
    """What we refuse, or find at fault, ourselves."""
    return ClientError(str(code), False, detail)

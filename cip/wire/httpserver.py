# SPDX-License-Identifier: Apache-2.0
"""The HTTP front end: GET /manifest, GET /blobs/<digest>, POST /quit on one connection (wire.md sections 11, 12).

Rules. Requests are answered strictly in order. Every answer has exactly one framing: a length, chunks, or none. The
status line of a blob leaves with its first byte, so whatever fails before is an honest error; whatever fails after
ends as a short body and a closed connection, never as error text in the body.

Not `http.server`: its requests are read leniently (a line may be folded, a length may have a sign), so only its way of
writing a head would be left, and importing it takes 15 of the 66 ms that a parent should wait for a manifest.

The conversation runs in a thread of its own; the calling thread waits for its end, for signals, and for the parent to
hang up, which a conversation that waits for a stalled registry would not notice.
"""

from __future__ import annotations

import math
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .. import __version__, log
from ..content import CHUNK, BlobAccess, BlobReader, Release, copy_verified
from ..errors import CipError, ErrorCode, NotFoundError, PeerError, quote
from ..model.descriptor import UNKNOWN_SIZE, Descriptor
from ..model.digest import parse_digest
from .fds import adopt_streams
from .httprequest import Request, RequestReader, parse_target
from .problem import RequestFault, encode, frames_of, http_status, problem, seconds_to_wait

if TYPE_CHECKING:
    from ..image import Image

EXIT_SERVED = 0
EXIT_FAILED = 1
SEND_BUFFER = 4 * 1024 * 1024  # bytes asked of the kernel for the socket; it may give less
HANG_UP_GRACE = 0.3  # seconds in which a conversation may notice by itself that the parent is gone
BLOB_MEDIA_TYPE = "application/octet-stream"
PROBLEM_MEDIA_TYPE = "application/problem+json"
_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"})

_SERVER = f"container-image-proxy/{__version__}"
_REASONS = {  # RFC 9110, RFC 6585
    200: "OK", 204: "No Content", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    413: "Content Too Large", 414: "URI Too Long", 417: "Expectation Failed", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
    504: "Gateway Timeout", 505: "HTTP Version Not Supported", 507: "Insufficient Storage",
}  # fmt: skip
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

OpenImage = Callable[[], "Image"]
Settled = Callable[[], None]


def serve_socket(sock: socket.socket, open_image: OpenImage, tmpdir: str, settled: Settled) -> int:
    """Serve the connected stream socket `sock`, which the caller closes, until its end; the exit status.

    `open_image` is called at the first request that needs it, and again after a failure; a success is kept and closed
    at the end. `tmpdir` is for blobs of unknown size that an HTTP/1.0 parent asks for. `settled` is called once, in
    the thread that answers, when the first answer about the image is out and nobody waits.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    except OSError:
        pass  # a smaller buffer works too
    return _serve(sock.fileno(), sock.fileno(), open_image, tmpdir, settled)


def serve_streams(input_fd: int, output_fd: int, open_image: OpenImage, tmpdir: str, settled: Settled) -> int:
    """As `serve_socket`, on two descriptors, which are adopted. Raises PeerError when they are of no use."""
    with adopt_streams(input_fd, output_fd) as streams:
        return _serve(streams.input_fd, streams.output_fd, open_image, tmpdir, settled)


def _serve(input_fd: int, output_fd: int, open_image: OpenImage, tmpdir: str, settled: Settled) -> int:
    conversation = _Conversation(input_fd, output_fd, open_image, tmpdir, settled)
    ended = os.eventfd(0, os.EFD_CLOEXEC)

    def converse() -> None:
        try:
            conversation.run()
        finally:
            os.eventfd_write(ended, 1)

    worker = threading.Thread(target=converse, name="http", daemon=True)
    poller = select.poll()
    poller.register(ended, select.POLLIN)
    poller.register(output_fd, 0)  # hang-up and error alone: a parent that only ends its requests is still there
    worker.start()
    events = poller.poll()
    if ended not in (fd for fd, _ in events):
        poller.unregister(output_fd)
        if not poller.poll(HANG_UP_GRACE * 1000):
            # The worker and `ended` are left to the end of the process, which is near.
            if conversation.is_idle():
                return EXIT_SERVED
            log.error("the parent closed the connection while it waited for an answer")
            return EXIT_FAILED
    worker.join()
    os.close(ended)
    conversation.close()
    return conversation.exit_status


class _Output:
    """The way to the parent. What is put waits for what is sent, so a head and the first bytes leave in one call."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiting: list[bytes] = []
        self.sent = 0  # bytes, since the caller last set it

    def put(self, data: bytes) -> None:
        """Put `data` in line."""
        self._waiting.append(data)

    def drop(self) -> None:
        """Forget what waits."""
        self._waiting.clear()

    def send(self, *parts: bytes | memoryview) -> None:
        """Send what waits and then `parts`. Raises PeerError when the parent does not take it."""
        buffers: list[bytes | memoryview] = [*self._waiting, *parts]
        self._waiting.clear()
        while buffers:
            try:
                count = os.writev(self._fd, buffers)
            except OSError as error:
                raise PeerError(
                    f"the parent closed the connection before the end of an answer: {error.strerror}"
                ) from error
            self.sent += count
            while buffers and count >= len(buffers[0]):
                count -= len(buffers.pop(0))
            if count:
                buffers[0] = memoryview(buffers[0])[count:]


class _Conversation:
    """One connection from its first request to its end."""

    def __init__(self, input_fd: int, output_fd: int, open_image: OpenImage, tmpdir: str, settled: Settled) -> None:
        self._output = _Output(output_fd)
        self._requests = RequestReader(lambda size: _receive(input_fd, size))
        self._open_image = open_image
        self._tmpdir = tmpdir
        self._settled: Settled | None = settled
        self._image: Image | None = None
        self._answering = False
        self._minor = 1
        self._closes = False
        self.exit_status = EXIT_FAILED

    def is_idle(self) -> bool:
        """Whether the parent waits for nothing."""
        return not self._answering and self._requests.is_idle()

    def close(self) -> None:
        """Close the image."""
        if self._image is not None:
            self._image.close()

    def run(self) -> None:
        """Answer requests until the connection closes."""
        while not self._closes:
            self._answer_one()

    def _answer_one(self) -> None:
        self._answering = False
        self._minor = 1
        self._output.sent = 0
        # Until the request has been read to its end, any failure is the end of the conversation.
        self._closes = True
        self.exit_status = EXIT_FAILED
        try:
            self._settle()
            self._answer_next()
        except PeerError as error:
            self._end(str(error))
        except CipError as error:
            self._tell(error)
        except Exception as error:  # a mistake of ours: the one broad except of this front end
            log.error("internal error: %s", frames_of(error))
            self._tell(CipError("internal error"))

    def _settle(self) -> None:
        """Do what was put off until the first answer about the image was out."""
        if self._image is not None and self._settled is not None:
            settled, self._settled = self._settled, None
            settled()

    def _answer_next(self) -> None:
        request = self._requests.read()
        if request is None:
            self.exit_status = EXIT_SERVED
            return
        self._answering = True
        self._minor = request.minor
        if request.awaits_continue():
            self._output.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._output.sent = 0
        self._requests.discard_body(request)
        self._closes = not request.keeps_open()
        self.exit_status = EXIT_SERVED
        request.require_valid()
        self._dispatch(request)

    def _dispatch(self, request: Request) -> None:
        if request.method not in _KNOWN_METHODS:
            raise RequestFault(501, f"method {quote(request.method)}: expected one of {', '.join(_EVERYWHERE)}")
        if request.method == "CONNECT":
            raise _MethodNotAllowed(request.method, _EVERYWHERE)
        path = parse_target(request.method, request.target)
        if path is None:
            self._answer_options(_EVERYWHERE)
            return
        resource, name = _find_resource(path)
        if request.method == "OPTIONS":
            self._answer_options(resource.methods)
        elif request.method not in resource.methods:
            raise _MethodNotAllowed(request.method, resource.methods)
        else:
            resource.answer(self, request, name)

    def _answer_options(self, methods: Sequence[str]) -> None:
        self._start(204, {"Allow": ", ".join(methods)})
        self._output.send()

    def _answer_manifest(self, request: Request, name: str) -> None:
        manifest = self._opened().manifest
        fields = {
            "Content-Type": manifest.media_type,
            "Content-Length": str(len(manifest.data)),
            "Manifest-Digest": str(manifest.digest),
        }
        if manifest.index_digest is not None:
            fields["Manifest-Index-Digest"] = str(manifest.index_digest)
        self._start(200, fields)
        self._output.send(b"" if request.method == "HEAD" else manifest.data)

    def _answer_blob(self, request: Request, name: str) -> None:
        digest = parse_digest(name)
        image = self._opened()
        expected = image.describe_blob(digest)
        if request.method == "HEAD":
            self._start_blob(expected)
            self._output.send()
            return
        reader = image.open_blob(digest, BlobAccess.VERIFIED)
        try:
            if expected.size == UNKNOWN_SIZE:
                expected = expected._replace(size=reader.size)
            if expected.size != UNKNOWN_SIZE:
                self._send_whole(reader, expected)
            elif request.minor > 0:
                self._send_chunked(reader, expected)
            else:
                self._send_spooled(reader, expected)
        finally:
            reader.close()

    def _answer_quit(self, request: Request, name: str) -> None:
        self._closes = True
        self._start(200, {"Content-Length": "0"})
        try:
            self._output.send()
        except PeerError as error:
            log.debug("POST /quit: %s", error)  # it told us to quit and did not wait: that is served

    def _opened(self) -> Image:
        """The image, opened at the first call and kept; a failure is tried again by the next call."""
        if self._image is None:
            self._image = self._open_image()
        return self._image

    def _send_whole(self, reader: BlobReader, expected: Descriptor) -> None:
        self._start_blob(expected)  # waits in `_output` for the first bytes
        copy_verified(reader, self._output.send, expected, release=Release.AFTER_VERIFICATION)
        self._output.send()

    def _send_chunked(self, reader: BlobReader, expected: Descriptor) -> None:
        self._start_blob(expected, {"Transfer-Encoding": "chunked"})
        copy_verified(reader, self._send_chunk, expected, release=Release.AFTER_VERIFICATION)
        self._output.send(b"0\r\n\r\n")

    def _send_chunk(self, part: memoryview) -> None:
        self._output.send(b"%x\r\n" % len(part), part, b"\r\n")

    def _send_spooled(self, reader: BlobReader, expected: Descriptor) -> None:
        """Learn the size first, in a file without a name."""
        try:
            with open(os.open(self._tmpdir, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), "r+b", CHUNK) as spool:
                size = copy_verified(reader, spool.write, expected, release=Release.AFTER_VERIFICATION)
                spool.seek(0)
                self._start_blob(expected._replace(size=size))
                while part := spool.read(CHUNK):
                    self._output.send(part)
                self._output.send()
        except OSError as error:
            raise RequestFault(
                505, f"the size of this blob is not known, so it needs HTTP/1.1 or room in --tmpdir: {error.strerror}"
            ) from error

    def _start_blob(self, expected: Descriptor, framing: Mapping[str, str] | None = None) -> None:
        fields = {"Content-Type": BLOB_MEDIA_TYPE, "Accept-Ranges": "none", **(framing or {})}
        if expected.size != UNKNOWN_SIZE:
            fields["Content-Length"] = str(expected.size)
        self._start(200, fields)

    def _start(self, status: int, fields: Mapping[str, str]) -> None:
        """Put the head of an answer in line."""
        log.debug("%s: %d", self._requests.method, status)
        lines = [f"HTTP/1.1 {status} {_REASONS[status]}", f"Server: {_SERVER}", f"Date: {_date(time.time())}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        if self._closes:
            lines.append("Connection: close")
        elif self._minor == 0:
            lines.append("Connection: keep-alive")
        self._output.put("\r\n".join([*lines, "", ""]).encode("ascii"))

    def _tell(self, error: CipError) -> None:
        """Answer with the problem document of `error`, or end the conversation where an answer has begun."""
        self._output.drop()
        if self._output.sent:
            self._end(f"an answer was cut short after {self._output.sent} bytes: {error}")
            return
        if self.exit_status == EXIT_FAILED:
            log.error("refused a request, and where the next one begins is not known: %s", error)
        log.debug("%s: %s", error.code, error)
        body = encode(problem(error))
        fields = {"Content-Type": PROBLEM_MEDIA_TYPE, "Content-Length": str(len(body))}
        if isinstance(error, _MethodNotAllowed):
            fields["Allow"] = ", ".join(error.methods)
        wait = seconds_to_wait(error)
        if wait is not None:
            fields["Retry-After"] = str(math.ceil(wait))
        self._start(http_status(error), fields)
        try:
            self._output.send(b"" if self._requests.method == "HEAD" else body)
        except PeerError as gone:
            self._end(str(gone))

    def _end(self, why: str) -> None:
        log.error("%s", why)
        self._closes = True
        self.exit_status = EXIT_FAILED


class _MethodNotAllowed(RequestFault):
    """A method that exists, at a place that knows others."""

    def __init__(self, method: str, methods: Sequence[str]) -> None:
        super().__init__(
            405, f"method {method}: expected one of {', '.join(methods)}", code=ErrorCode.METHOD_NOT_ALLOWED
        )
        self.methods = methods


class _Resource(NamedTuple):
    """What a path names, and how it is answered."""

    methods: tuple[str, ...]
    answer: Callable[[_Conversation, Request, str], None]


_EVERYWHERE = ("GET", "HEAD", "POST", "OPTIONS")
_MANIFEST = _Resource(("GET", "HEAD", "OPTIONS"), _Conversation._answer_manifest)
_BLOB = _Resource(("GET", "HEAD", "OPTIONS"), _Conversation._answer_blob)
_QUIT = _Resource(("POST", "OPTIONS"), _Conversation._answer_quit)


def _find_resource(path: str) -> tuple[_Resource, str]:
    """The resource at `path` and the name inside it. Raises NotFoundError (path-unknown)."""
    if path == "/manifest":
        return _MANIFEST, ""
    if path == "/quit":
        return _QUIT, ""
    if path.startswith("/blobs/") and path.count("/") == 2:
        return _BLOB, path.removeprefix("/blobs/")
    raise NotFoundError(f"path {quote(path)}: expected /manifest, /blobs/DIGEST or /quit", code=ErrorCode.PATH_UNKNOWN)


def _date(now: float) -> str:
    """RFC 9110 5.6.7, in English whatever the locale says."""
    year, month, day, hour, minute, second, weekday, *_ = time.gmtime(now)
    return f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year} {hour:02}:{minute:02}:{second:02} GMT"


def _receive(fd: int, size: int) -> bytes:
    try:
        return os.read(fd, size)
    except ConnectionResetError:
        return b""  # the parent left without reading all it asked for
    except OSError as error:
        raise PeerError(f"reading requests: {error.strerror}") from error

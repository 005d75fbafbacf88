# SPDX-License-Identifier: Apache-2.0
"""The HTTP front end: GET /manifest, GET /blobs/<digest>, POST /quit on one connection (wire.md sections 11, 12).

Rules. Requests are answered strictly in order. Every answer has exactly one framing: a length, chunks, or none. The
status line of a blob leaves with its first byte, so whatever fails before is an honest error; whatever fails after
ends as a short body and a closed connection, never as error text in the body. Where the next request begins is never
guessed: whatever leaves that open is answered, and the connection closes. What is wrong inside a well-framed request
is told, and the connection goes on.

`http.server` takes heads, calls `do_*`, keeps the connection and writes heads. Below it `net.lines` refuses what it
would read leniently; overridden is only what the parent's stream or that strictness needs, each with its reason.
"""

import math
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BufferedIOBase
from typing import TYPE_CHECKING, NoReturn, cast

from .. import __version__, log, rooms
from ..content import BlobAccess, Release, copy_verified
from ..errors import CipError, ErrorCode, NotFoundError, PeerError, quote
from ..model.descriptor import UNKNOWN_SIZE, Descriptor, parse_digest
from ..model.mediatype import OCI_MANIFEST
from ..net.lines import REQUEST_BODY_LIMIT, Chunks, EndedError, Lines, MalformedError, Requests, framing_of, words_of
from .fds import Output, receive_into
from .target import RequestFault, parse_target

if TYPE_CHECKING:
    from ..image import Image
    from ..temporary import TemporaryFile

EXIT_SERVED = 0
EXIT_FAILED = 1
SEND_BUFFER = 4 * 1024 * 1024  # bytes asked of the kernel for the socket; it may give less
BLOB_MEDIA_TYPE = "application/octet-stream"
PROBLEM_MEDIA_TYPE = "application/problem+json"
_SKIP_SIZE = 64 * 1024  # bytes of a request body read at once
_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"})
_NO_FIELDS: Mapping[str, str] = {}
_EVERYWHERE = ("GET", "HEAD", "POST", "OPTIONS")

# RFC 9110 7.2, RFC 3986 3.2.2; empty is allowed
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[!$&'()*+,;=0-9A-Za-z._~%-]*)(?::[0-9]*)?", re.ASCII)

OpenImage = Callable[[], "Image"]
MakeFile = Callable[[], "TemporaryFile"]


def on_socket(sock: socket.socket, open_image: OpenImage, make_file: MakeFile) -> "Conversation":
    """The conversation on a connected stream socket, which the caller closes."""
    with suppress(OSError):  # a smaller buffer works too
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    return Conversation(sock.fileno(), sock.fileno(), open_image, make_file)


class Conversation(BaseHTTPRequestHandler):
    """One connection from its first request to its end, in the thread that calls `begin` and `run`.

    `open_image` is called at the first request that needs it, and again after a failure; a success is kept until
    `close`. `make_file` is for blobs of unknown size that an HTTP/1.0 parent asks for.
    """

    protocol_version = "HTTP/1.1"  # the base's own closes after each answer
    default_request_version = "HTTP/1.1"  # with the base's own a fault in the first line is answered without a head
    raw_requestline: bytes

    def __init__(self, input_fd: int, output_fd: int, open_image: OpenImage, make_file: MakeFile) -> None:
        # Not the base's, which wants a socket and ends with the conversation: nobody could look at it from beside.
        self._lines = Lines(lambda view: receive_into(input_fd, view), Requests)
        self._output = Output(output_fd)
        self.rfile = cast("BufferedIOBase", self._lines)
        self.wfile = self._output
        self._output_fd = output_fd
        self._open_image = open_image
        self._make_file = make_file
        self._image: Image | None = None
        self._headers_buffer: list[bytes] = []
        self._answering = False
        self._minor = 1
        self._target = ""
        self.close_connection = False
        self.exit_status = EXIT_FAILED

    # --- as the program calls it ---

    def begin(self) -> bool:
        """Answer requests up to the first one for which the image was opened; whether there may be more."""
        while self._image is None and not self.close_connection:
            self.handle_one_request()
        return not self.close_connection

    def run(self) -> None:
        """Answer requests until the connection closes."""
        self.handle()

    @property
    def was_asked(self) -> bool:
        """Whether any request came."""
        return self._target != ""

    def close(self) -> None:
        """Close the image."""
        if self._image is not None:
            self._image.close()

    def fileno(self) -> int:
        """What tells, polled for nothing, that the parent hung up; one that only ends its requests is still there."""
        return self._output_fd

    def status_after_hang_up(self) -> int:
        """The exit status of a process whose parent has gone; called by another thread."""
        if not self._answering and self._lines.is_idle():
            return EXIT_SERVED
        log.error("the parent closed the connection while it waited for an answer")
        return EXIT_FAILED

    def abandon(self) -> None:
        """Nothing: a parent knows by the end of the connection."""

    # --- as http.server calls it ---

    def handle_one_request(self) -> None:
        """Answer one request; whatever goes wrong is told here, once."""
        self._answering = False
        self._minor = 1
        self._output.sent = 0
        self.command = ""
        self.request_version = self.default_request_version  # the base sets it after the first fault
        # Until the request has been read to its end, any failure is the end of the conversation.
        self.close_connection = True
        self.exit_status = EXIT_FAILED
        try:
            super().handle_one_request()
            if not self.raw_requestline:
                self.exit_status = EXIT_SERVED
        except EndedError:
            self._end("the parent closed the connection inside a request")
        except PeerError as error:
            self._end(str(error))
        except MalformedError as error:
            self._tell(RequestFault(error.status, str(error)))
        except CipError as error:
            self._tell(error)
        except Exception as error:  # the one broad except of this front end
            from .problem import unforeseen  # here and below, because an image that is served has no use for it

            self._tell(unforeseen(error))

    def parse_request(self) -> bool:
        """Read a request to its end: the base takes the head, and looks neither at its framing nor at Host."""
        self._answering = True
        line = self.raw_requestline.decode("latin-1").rstrip("\r\n")
        self._target, version = line.split(" ")[1:]
        if not version.startswith("HTTP/1."):
            raise RequestFault(505, f"expected HTTP/1.1, found {version}")
        self._minor = int(version[-1])
        self.raw_requestline = line.encode("ascii", "replace")  # the base takes U+00A0 and U+0085 for spaces
        super().parse_request()
        self.close_connection = True  # the base has looked at one field alone, and not at the body
        self._read_past_body()
        words = words_of(self.headers, "connection")
        self.close_connection = "close" in words or (self._minor == 0 and "keep-alive" not in words)
        self.exit_status = EXIT_SERVED
        self._require_valid_head()
        return True

    def handle_expect_100(self) -> bool:
        """Go on: whether a body follows, and may follow, is known only when the framing is."""
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> NoReturn:
        """Refuse in our words; the base's are HTML. Nothing gets here but what `net.lines` has let pass by mistake."""
        self.close_connection = True
        raise RequestFault(int(code), message or "request refused")

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Without the target, which the base would write to stderr: its query may be a secret."""
        log.debug("%s: %s", self.command, code)

    def version_string(self) -> str:
        """The `Server` of an answer; the base's names the version of Python."""
        return f"container-image-proxy/{__version__}"

    def do_GET(self) -> None:
        """Answer by the table of resources, which knows their methods."""
        methods, answer, name = _find_resource(parse_target(self._target))
        if self.command not in methods:
            raise _not_allowed(self.command, methods)
        try:
            answer(self, name)
        except TimeoutError as error:  # the base takes one for a parent that is too slow, and would end in silence
            raise RuntimeError("a time-out that nobody has told") from error

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_TRACE = do_GET

    def do_CONNECT(self) -> None:
        """Refuse: its target is no path."""
        raise _not_allowed(self.command, _EVERYWHERE)

    def do_OPTIONS(self) -> None:
        """Tell the methods of a resource, or of all."""
        methods = _EVERYWHERE if self._target == "*" else _find_resource(parse_target(self._target))[0]
        self._start(HTTPStatus.NO_CONTENT, {"Allow": ", ".join(methods)})

    # --- requests ---

    def _read_past_body(self) -> None:
        """Take the body, which no request of ours needs. Raises MalformedError, RequestFault, EndedError."""
        length, chunked = framing_of(self.headers, self._minor, Requests)
        if not (chunked or length):
            return
        if self._expects_leave():  # else whether its body will come is not known
            super().handle_expect_100()
            self._output.send()
            self._output.sent = 0
        if not chunked:
            self._skip(length or 0)
            return
        chunks, size = Chunks(self._lines), 0
        while chunks.next():
            size += chunks.left
            if size > REQUEST_BODY_LIMIT:
                raise MalformedError(f"request body is larger than {REQUEST_BODY_LIMIT} bytes", 413)
            self._skip(chunks.left)
            chunks.left = 0

    def _skip(self, length: int) -> None:
        buffer = memoryview(bytearray(min(length, _SKIP_SIZE)))
        while length:
            count = self._lines.readinto(buffer[:length])
            if not count:
                raise EndedError("the connection ended inside a request body")
            length -= count

    def _expects_leave(self) -> bool:
        """Whether the parent waits for leave to send a body. Raises RequestFault."""
        words = words_of(self.headers, "expect") if self._minor else []  # RFC 9110 10.1.1
        for word in words:
            if word != "100-continue":
                raise RequestFault(417, f"expectation {quote(word)}: expected 100-continue")
        return bool(words)

    def _require_valid_head(self) -> None:
        """Return only if a head whose request is framed asks nothing impossible. Raises RequestFault."""
        hosts = self.headers.get_all("host", [])
        if len(hosts) > 1 or (not hosts and self._minor):
            raise RequestFault(400, f"expected one Host field, found {len(hosts) or 'none'}")
        if hosts and not _HOST.fullmatch(hosts[0].strip(" \t")):
            raise RequestFault(400, f"Host: expected a name and perhaps a port, found {quote(hosts[0])}")
        self._expects_leave()
        if self.command not in _KNOWN_METHODS:  # the base takes any attribute that begins with do_ for one
            raise RequestFault(501, f"method {quote(self.command)}: expected one of {', '.join(_EVERYWHERE)}")

    # --- answers ---

    def _answer_manifest(self, name: str) -> None:
        image = self._opened()
        data, index = image.fetchable_manifest, image.accepted.index_digest
        fields = {"Manifest-Digest": str(image.accepted.digest)}
        if index is not None:
            fields["Manifest-Index-Digest"] = str(index)
        self._send_document(200, OCI_MANIFEST, data, fields)

    def _answer_referrers(self, name: str) -> None:
        self._send_document(200, *rooms.answer_referrers(self._opened, self._target))

    def _answer_blob(self, name: str) -> None:
        digest = parse_digest(name)
        image = self._opened()
        expected = image.describe_blob(digest)
        if self.command == "HEAD":
            self._start_blob(expected)
            return
        with closing(image.open_blob(digest, BlobAccess.VERIFIED)) as reader:
            if expected.size == UNKNOWN_SIZE:
                expected = expected._replace(size=reader.size)
            if expected.size != UNKNOWN_SIZE:
                self._start_blob(expected)  # waits in `_output` for the first bytes
                copy_verified(reader, self._output.send, expected, release=Release.AFTER_VERIFICATION)
            else:
                make_file = None if self._minor else self._make_file  # HTTP/1.0 knows no chunks
                rooms.send_unsized(reader, expected, make_file, self._start_blob, self._output.send)

    def _answer_quit(self, name: str) -> None:
        self.close_connection = True
        self._start(200, {"Content-Length": "0"})
        try:
            self._output.send()
        except PeerError as error:
            log.debug("POST /quit: %s", error)  # it told us to quit and did not wait: that is served

    def _opened(self) -> "Image":
        """The image, opened at the first call and kept; a failure is told and tried again by the next call."""
        if self._image is None:
            try:
                self._image = self._open_image()
            except CipError as error:
                from .problem import one_line

                log.error("%s", one_line(error))  # whoever looks at night finds the next step in one line
                raise
        return self._image

    def _send_document(self, status: int, media_type: str, data: bytes, fields: Mapping[str, str]) -> None:
        self._start(status, {"Content-Type": media_type, "Content-Length": str(len(data)), **fields})
        self._output.send(b"" if self.command == "HEAD" else data)

    def _start_blob(self, expected: Descriptor, framing: Mapping[str, str] = _NO_FIELDS) -> None:
        fields = {"Content-Type": BLOB_MEDIA_TYPE, "Accept-Ranges": "none", **framing}
        if expected.size != UNKNOWN_SIZE:
            fields["Content-Length"] = str(expected.size)
        self._start(200, fields)

    def _start(self, status: int, fields: Mapping[str, str]) -> None:
        """Put the head of an answer in line."""
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        elif self._minor == 0:
            self.send_header("Connection", "keep-alive")
        self.end_headers()

    def _tell(self, error: CipError) -> None:
        """Answer with the problem document of `error`, or end the conversation where an answer has begun."""
        from .problem import encode, http_status, problem, seconds_to_wait

        self._headers_buffer.clear()  # else the base begins the next head with what an exception left there
        self._output.drop()
        if self._output.sent:
            self._end(f"an answer was cut short after {self._output.sent} bytes: {error}")
            return
        if self.exit_status == EXIT_FAILED:
            self.close_connection = True  # the base has said otherwise before it took the fields
            log.error("refused a request, and where the next one begins is not known: %s", error)
        log.debug("%s: %s", error.code, error)
        allowed = error.allowed if isinstance(error, RequestFault) else ()
        fields = {"Allow": ", ".join(allowed)} if allowed else {}
        wait = seconds_to_wait(error)
        if wait is not None:
            fields["Retry-After"] = str(math.ceil(wait))
        try:
            self._send_document(http_status(error), PROBLEM_MEDIA_TYPE, encode(problem(error)), fields)
        except PeerError as gone:
            self._end(str(gone))

    def _end(self, why: str) -> None:
        log.error("%s", why)
        self.close_connection = True
        self.exit_status = EXIT_FAILED


def _not_allowed(method: str, methods: Sequence[str]) -> RequestFault:
    """The error for a method that exists, at a path that knows others."""
    why = f"method {method}: expected one of {', '.join(methods)}"
    return RequestFault(405, why, code=ErrorCode.METHOD_NOT_ALLOWED, allowed=methods)


# what a path names: methods, and how it is answered
_READ = ("GET", "HEAD", "OPTIONS")
_RESOURCES = {
    "manifest": (_READ, Conversation._answer_manifest),
    "referrers": (_READ, Conversation._answer_referrers),
    "quit": (("POST", "OPTIONS"), Conversation._answer_quit),
}
_DIRECTORIES = {"blobs": (_READ, Conversation._answer_blob), "referrers": (_READ, Conversation._answer_referrers)}


def _find_resource(path: str) -> tuple[tuple[str, ...], Callable[[Conversation, str], None], str]:
    """Methods and answer of the resource at `path`, and the name inside it. Raises NotFoundError (path-unknown)."""
    first, slash, name = path.removeprefix("/").partition("/")
    resource = (_DIRECTORIES if slash else _RESOURCES).get(first)
    if resource is None or "/" in name:
        why = f"path {quote(path)}: expected /manifest, /blobs/DIGEST, /referrers, /referrers/DIGEST or /quit"
        raise NotFoundError(why, code=ErrorCode.PATH_UNKNOWN)
    return *resource, name

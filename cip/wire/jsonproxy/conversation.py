# SPDX-License-Identifier: Apache-2.0
"""The JSON front end: the protocol of `skopeo experimental-image-proxy`, version 0.2.8 (wire.md part B).

Rules. One packet is one request, one packet is its reply, and replies leave in the order of the requests. A thread of
its own takes the requests and runs each as soon as the one before it has run, whatever replies are still owed. The
calling thread sends the replies, and waits for all else: a parent that hangs up or leaves a pipe.
Two replies can wait: that of FinishPipe until its pipe has ended, and that of a blob for its source's first answer, at
most ANSWER_SECONDS from its request on. So the seconds of several blobs do not add up.

Until Initialize has succeeded the calling thread does everything: what it puts off till then is done before another
thread begins, which inherits what was given up.
"""

from __future__ import annotations

import json
import os
import resource
import select
import socket
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import NamedTuple, Protocol, Self

from ... import log
from ...errors import CipError, ErrorCode, ImageAbsentError, InvalidInputError, quote
from ...model.digest import Digest
from ...model.jsontree import JsonNode
from ..problem import public_text
from .packets import PACKET_LIMIT, encode_failure, encode_success, parse_request, read_digest, read_number, read_text
from .pipes import Bell, Feed, Opened, Pipes, Transfer, outcome_of
from .transfers import Handle, ServedImage, Share, raw_work, verified_work

EXIT_SERVED = 0
EXIT_FAILED = 1
VERSION = "0.2.8"  # clients parse it and refuse a suffix (wire.md 7.2)
OWED_LIMIT = 64  # replies; beyond it requests stay in the socket
ANSWER_SECONDS = 2.0  # for which the reply of a blob waits for its source (decisions.md section 10)
HANG_UP_GRACE = 0.3  # seconds in which the thread of the requests may notice by itself that the parent is gone


class Opener(Protocol):
    """What this front end needs of `image.ImageOpener`."""

    def prepare(self) -> None: ...

    def open(self, text: str, /) -> ServedImage: ...


class Conversation:
    """One connection from its first request to its end, on the connected SEQPACKET socket `sock` of the caller.

    A context manager: unfinished raw transfers have told their parent so when it is left (wire.md 5.2). The thread that
    calls `begin` and `run` waits for all but requests; others may outlive it, as daemons.
    """

    def __init__(self, sock: socket.socket, opener: Opener) -> None:
        _raise_descriptor_limit()
        self._sock = sock
        self._bell = Bell()
        self._pipes = Pipes(self._bell)
        self._requests = _Requests(sock, opener, self._pipes)
        self._replies = _Replies(sock, self._pipes, self._bell)
        self.exit_status = EXIT_SERVED

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipes.stop()
        self._replies.close()
        self._pipes.close()
        self._bell.close()

    def begin(self) -> bool:
        """Answer until the parent may name images, with no other thread yet; False when it did not want to."""
        return self._until_gone(self._initialize)

    def run(self) -> None:
        """Answer until the end."""
        self._until_gone(lambda: self._replies.run(self._requests))

    def fileno(self) -> int:
        """What tells, polled for nothing, that the parent hung up."""
        return self._sock.fileno()

    def status_after_hang_up(self) -> int:
        """The exit status of a process whose parent has gone: nobody waits for what is left."""
        return EXIT_SERVED

    def abandon(self) -> None:
        """Tell each unfinished raw transfer; from any thread."""
        self._pipes.stop()

    def _initialize(self) -> bool:
        while not self._requests.initialized:
            self._replies.wait_for_request()
            if not self._requests.run_one(self._replies.owe):
                return False
            self._replies.send_all()
        return True

    def _until_gone(self, answer: Callable[[], bool | None]) -> bool:
        try:
            return bool(answer())
        except (BrokenPipeError, ConnectionResetError):
            return False  # nobody waits for what is left
        except OSError as error:
            log.error("the connection to the parent failed: %s", error.strerror)
            self.exit_status = EXIT_FAILED
            return False


class _Reply(NamedTuple):
    """What a method answers; `fds` are read ends, which are closed once they are sent.

    With a `transfer` it may wait for the source until the moment `until` of the monotonic clock.
    """

    value: object = None
    pipe_id: int = 0
    fds: tuple[int, ...] = ()
    transfer: Transfer | None = None
    until: float = 0.0


class _Packet(NamedTuple):
    """A reply that can leave."""

    data: bytes
    fds: tuple[int, ...] = ()


_Owed = _Reply | CipError | Feed


class _Method(NamedTuple):
    """A row of the table of methods: how its arguments are read, and what it does; without `run` it is Shutdown."""

    readers: tuple[Callable[[JsonNode], object], ...]
    run: Callable[..., _Reply | Feed] | None
    always: bool = False  # needs no Initialize
    surplus: bool = False  # further arguments are not looked at
    optional: int = 0  # of the last arguments, how many may be left out


class _Replies:
    """The replies that are owed, in their order. All but `owe` and `finish` belong to the calling thread."""

    def __init__(self, sock: socket.socket, pipes: Pipes, bell: Bell) -> None:
        self._sock = sock
        self._pipes = pipes
        self._bell = bell
        self._room = threading.Condition()
        self._owed: deque[_Owed] = deque()
        self._packet: _Packet | None = None  # ready, but the parent does not read
        self._complete = False  # nothing more will be owed
        self._closed = False

    def owe(self, outcome: _Owed) -> None:
        """One more; waits while too many are owed."""
        with self._room:
            while len(self._owed) >= OWED_LIMIT and not self._closed:
                self._room.wait()
            if self._closed:
                _discard(outcome)
                return
            self._owed.append(outcome)
        self._bell.ring()

    def finish(self) -> None:
        """Nothing more will be owed."""
        self._complete = True
        self._bell.ring()

    def run(self, requests: _Requests) -> None:
        """Run the requests in a thread of their own, and answer them until the end. Raises OSError."""
        thread = threading.Thread(target=requests.run_all, args=(self,), name="requests", daemon=True)
        thread.start()
        while not (self._complete and not self._owed and self._packet is None):
            self._wait(hang_up=thread)
            self._send_ready()
        thread.join(HANG_UP_GRACE)
        if requests.failure is not None:
            raise requests.failure

    def wait_for_request(self) -> None:
        """Wait until the parent says something."""
        self._poll(select.POLLIN, None)

    def send_all(self) -> None:
        """Send what is owed and waits for nothing. Raises OSError."""
        self._send_ready()
        while self._packet is not None:
            self._poll(select.POLLOUT, None)
            self._send_ready()

    def close(self) -> None:
        """Close what was never sent."""
        with self._room:
            self._closed = True
            owed = list(self._owed)
            self._owed.clear()
            self._room.notify_all()
        if self._packet is not None:
            _close_all(self._packet.fds)
        for outcome in owed:
            _discard(outcome)

    def _wait(self, *, hang_up: threading.Thread) -> None:
        """Wait until there may be something to send. Raises BrokenPipeError when the parent has gone."""
        head = self._owed[0] if self._owed else None
        until = None
        if self._packet is None and isinstance(head, _Reply) and head.transfer is not None:
            until = head.until
        if self._poll(select.POLLOUT if self._packet is not None else 0, until) & (select.POLLHUP | select.POLLERR):
            hang_up.join(HANG_UP_GRACE)  # it sees the end of the socket itself, unless it waits for a source
            if hang_up.is_alive() or self._complete:
                raise BrokenPipeError

    def _poll(self, events: int, until: float | None) -> int:
        """Wait for `events` of the socket, for the bell, or for the moment `until`; what there is about the socket."""
        poller = select.poll()
        poller.register(self._sock, events)  # hang-up and error are told without being asked for
        poller.register(self._bell, select.POLLIN)
        poller.register(self._pipes, select.POLLIN)
        found = dict(poller.poll(None if until is None else max(0.0, until - time.monotonic()) * 1000 + 1))
        self._bell.hush()
        if self._pipes.fileno() in found:
            self._pipes.give_up()
        return found.get(self._sock.fileno(), 0)

    def _send_ready(self) -> None:
        """Send the replies that wait for nothing, up to the first one that does. Raises OSError."""
        while self._packet is not None or self._take():
            assert self._packet is not None
            try:
                self._send(self._packet)
            except BlockingIOError:
                return
            self._packet = None

    def _take(self) -> bool:
        """Make the first reply a packet if it can leave."""
        if not self._owed:
            return False
        head = self._owed[0]
        if isinstance(head, Feed):
            if not head.ended:
                return False
            head = self._pipes.collect(head) or _Reply()
        elif isinstance(head, _Reply) and head.transfer is not None:
            if not head.transfer.is_known and time.monotonic() < head.until:
                return False
            refusal = self._pipes.announce(head.transfer, head.pipe_id)
            if refusal is not None:
                _close_all(head.fds)
                head = refusal
        self._packet = _packet_of(head)
        with self._room:
            self._owed.popleft()
            self._room.notify()
        return True

    def _send(self, packet: _Packet) -> None:
        """Send one reply. One that the kernel does not take is replaced by its reason. Raises OSError."""
        try:
            _send_now(self._sock, packet)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            raise
        except OSError as error:  # EMSGSIZE: a small send buffer; ETOOMANYREFS: too many descriptors on their way
            log.error("a reply of %d bytes could not be sent: %s", len(packet.data), error.strerror)
            fault = CipError(f"the reply could not be sent: {error.strerror}", code=ErrorCode.LIMIT_EXCEEDED)
            _close_all(packet.fds)
            self._packet = _Packet(encode_failure(fault))
            _send_now(self._sock, self._packet)
        else:
            _close_all(packet.fds)


class _Requests:
    """Runs the requests of one connection, one after the other, and has the images that they name."""

    def __init__(self, sock: socket.socket, opener: Opener, pipes: Pipes) -> None:
        self._sock = sock
        self._opener = opener
        self._pipes = pipes
        self._share = Share()
        self._buffer = bytearray(PACKET_LIMIT + 1)
        self._arrival = 0.0  # of the present request
        self._image_ids = count(1)
        self._images: dict[int, Handle] = {}
        self.initialized = False
        self.failure: OSError | None = None  # of the socket

    def run_all(self, replies: _Replies) -> None:
        """Run requests until Shutdown, the end of the connection, or an error of the socket."""
        try:
            while self.run_one(replies.owe):
                pass
        except OSError as error:
            self.failure = error
        finally:
            for handle in self._images.values():
                handle.release()
            self._images.clear()
            replies.finish()

    def run_one(self, owe: Callable[[_Owed], object]) -> bool:
        """Take one request and owe its outcome; False for Shutdown and the end. Raises OSError."""
        # A byte over the limit shows that a packet was cut. No control buffer: descriptors that the parent sends along
        # are closed by the kernel.
        size, _, _, _ = self._sock.recvmsg_into([self._buffer])
        self._arrival = time.monotonic()
        call = outcome_of(partial(self._read_call, memoryview(self._buffer)[:size])) if size else None
        if call is None:
            return False
        owe(call if isinstance(call, CipError) else outcome_of(call))
        return True

    def _read_call(self, packet: memoryview) -> Callable[[], _Reply | Feed] | None:
        """The call with its checked arguments (wire.md sections 2, 4); None for Shutdown. Raises InvalidInputError."""
        if len(packet) > PACKET_LIMIT:
            raise InvalidInputError(f"request: expected at most {PACKET_LIMIT} bytes, found more")
        name, arguments = parse_request(packet)
        method = _METHODS.get(name)
        if method is None:
            raise InvalidInputError(f"unknown method {quote(name)}")
        log.debug("request %s", name)
        if not (self.initialized or method.always):
            raise InvalidInputError(f"{name}: expected Initialize before it")
        expected = len(method.readers)
        least = expected - method.optional
        if len(arguments) < least or (len(arguments) > expected and not method.surplus):
            words = str(expected) if least == expected else f"{least} to {expected}"
            raise InvalidInputError(f"{name}: expected {words} arguments, found {len(arguments)}")
        values = [read(node) for read, node in zip(method.readers, arguments, strict=False)]
        return method.run and partial(method.run, self, *values)

    def _handle(self, image_id: int) -> Handle:
        handle = self._images.get(image_id)
        if handle is None:
            raise InvalidInputError(f"there is no open image {image_id}")
        return handle

    # --- methods ---

    def _initialize(self) -> _Reply:
        if self.initialized:
            raise InvalidInputError("Initialize: expected once, found a second one")
        try:
            self._opener.prepare()
        except CipError as error:
            log.error("%s", public_text(str(error)))
            raise
        self.initialized = True
        return _Reply(VERSION)

    def _open_image(self, reference: str, *, optional: bool = False) -> _Reply:
        try:
            handle = Handle(self._opener.open(reference))
        except CipError as error:
            if optional and isinstance(error, ImageAbsentError):
                log.debug("%s", error)
                return _Reply(0)
            log.error("%s", public_text(str(error)))  # whoever looks at night finds the next step in one line
            raise
        image_id = next(self._image_ids)
        self._images[image_id] = handle
        return _Reply(image_id)

    def _open_image_optional(self, reference: str) -> _Reply:
        return self._open_image(reference, optional=True)

    def _close_image(self, image_id: int) -> _Reply:
        self._handle(image_id).release()
        del self._images[image_id]
        return _Reply()

    def _get_manifest(self, image_id: int) -> _Reply:
        manifest = self._handle(image_id).image.manifest
        return _piped(self._pipes.feed_bytes(manifest.data), str(manifest.digest))

    def _get_full_config(self, image_id: int) -> _Reply:
        return _piped(self._pipes.feed_bytes(self._handle(image_id).image.config()))

    def _get_config(self, image_id: int) -> _Reply:
        return _piped(self._pipes.feed_bytes(self._handle(image_id).image.inner_config()))

    def _get_layer_info(self, image_id: int) -> _Reply:
        return _Reply(_layer_info(self._handle(image_id).image))

    def _get_layer_info_piped(self, image_id: int) -> _Reply:
        layers = _layer_info(self._handle(image_id).image)
        return _piped(self._pipes.feed_bytes(json.dumps(layers, separators=(",", ":")).encode("ascii")))

    def _get_referrers(self, image_id: int, artifact_type: str | None = None) -> _Reply:
        if artifact_type == "":
            raise InvalidInputError("GetReferrers: expected an artifact type, found an empty one")
        index, count = self._handle(image_id).image.referrers(artifact_type)
        return _piped(self._pipes.feed_bytes(index), count)

    def _get_referrer_manifest(self, image_id: int, digest: Digest) -> _Reply:
        served = self._handle(image_id).image.referrer_manifest(digest)
        return _piped(self._pipes.feed_bytes(served.data), served.media_type)

    def _get_blob(self, image_id: int, digest: Digest, size: int) -> _Reply:
        handle = self._handle(image_id)
        expected = handle.image.describe_blob(digest)
        opened = verified_work(handle, expected, size, self._share).begin(self._pipes.feed)
        until = self._arrival + ANSWER_SECONDS
        return _Reply(expected.size, opened.pipe_id, (opened.read_fd,), opened.transfer, until)

    def _get_raw_blob(self, image_id: int, digest: Digest) -> _Reply:
        handle = self._handle(image_id)
        expected = handle.image.describe_blob(digest)
        opened = raw_work(handle, expected, self._share).begin(self._pipes.feed_raw)
        until = self._arrival + ANSWER_SECONDS
        return _Reply(expected.size, 0, (opened.data_fd, opened.error_fd), opened.transfer, until)

    def _finish_pipe(self, pipe_id: int) -> Feed:
        return self._pipes.finish(pipe_id)


_IMAGE = (read_number,)
_METHODS: Mapping[str, _Method] = {
    "Initialize": _Method((), _Requests._initialize, always=True),
    "OpenImage": _Method((read_text,), _Requests._open_image),
    "OpenImageOptional": _Method((read_text,), _Requests._open_image_optional),
    "CloseImage": _Method(_IMAGE, _Requests._close_image),
    "GetManifest": _Method(_IMAGE, _Requests._get_manifest),
    "GetFullConfig": _Method(_IMAGE, _Requests._get_full_config),
    "GetConfig": _Method(_IMAGE, _Requests._get_config),
    "GetBlob": _Method((read_number, read_digest, read_number), _Requests._get_blob),
    "GetRawBlob": _Method((read_number, read_digest), _Requests._get_raw_blob),
    "GetLayerInfo": _Method(_IMAGE, _Requests._get_layer_info),
    "GetLayerInfoPiped": _Method(_IMAGE, _Requests._get_layer_info_piped),
    # not of upstream's protocol: a client that wants them takes an error for "not there" (bundles.md section 5)
    "GetReferrers": _Method((read_number, read_text), _Requests._get_referrers, optional=1),
    "GetReferrerManifest": _Method((read_number, read_digest), _Requests._get_referrer_manifest),
    "FinishPipe": _Method((read_number,), _Requests._finish_pipe, always=True, surplus=True),
    "Shutdown": _Method((), None, always=True, surplus=True),
}


def _piped(opened: Opened, value: object = None) -> _Reply:
    return _Reply(value, opened.pipe_id, (opened.read_fd,))


def _layer_info(image: ServedImage) -> list[dict[str, object]]:
    return [
        {"digest": str(layer.digest), "size": layer.size, "media_type": layer.media_type} for layer in image.layers()
    ]


def _packet_of(outcome: _Reply | CipError) -> _Packet:
    if isinstance(outcome, _Reply):
        try:
            return _Packet(encode_success(outcome.value, outcome.pipe_id), outcome.fds)
        except CipError as error:
            _close_all(outcome.fds)
            outcome = error
    log.debug("%s: %s", outcome.code, outcome)
    return _Packet(encode_failure(outcome))


def _send_now(sock: socket.socket, packet: _Packet) -> None:
    """Send without waiting. Raises BlockingIOError when the parent does not read its replies, OSError."""
    control = []
    if packet.fds:
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", packet.fds))]
    sock.sendmsg([packet.data], control, socket.MSG_DONTWAIT)


def _discard(outcome: _Owed) -> None:
    """Close what a reply that is never sent would have handed out."""
    if isinstance(outcome, _Reply):
        _close_all(outcome.fds)


def _close_all(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _raise_descriptor_limit() -> None:
    """Let unfinished pipes be as many as the system allows this process (wire.md 5.1)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        log.debug("the limit on descriptors stays as it is: %s", error)

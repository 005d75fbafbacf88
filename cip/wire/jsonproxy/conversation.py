# SPDX-License-Identifier: Apache-2.0
"""The JSON front end: the protocol of `skopeo experimental-image-proxy`, version 0.2.8 (wire.md part B).

Rules. One packet is one request, one packet is its reply, and replies leave in the order of the requests. A reply is
owed from the moment its request has been run; only a FinishPipe can make it wait, until its own pipe has ended. While
replies are owed, requests are still read and run, so that transfers behind a FinishPipe start at once; those that may
use the network wait, lest an earlier reply waited for them.

The conversation runs in a thread of its own; the calling thread waits for its end, for signals, and for the parent to
hang up or to leave a pipe, which a conversation that waits for a slow registry would not notice.
"""

from __future__ import annotations

import json
import os
import resource
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import NamedTuple, Protocol

from ... import log
from ...errors import CipError, ErrorCode, InvalidInputError, NotFoundError, quote
from ...model.digest import Digest
from ...model.jsontree import JsonNode
from .packets import PACKET_LIMIT, encode_failure, encode_success, parse_request, read_digest, read_number, read_text
from .pipes import Bell, Feed, Opened, Pipes, outcome_of
from .transfers import Handle, ServedImage, raw_work, verified_work

EXIT_SERVED = 0
EXIT_FAILED = 1
VERSION = "0.2.8"  # clients parse it and refuse a suffix (wire.md 7.2)
OWED_LIMIT = 64  # replies; beyond it requests stay in the socket
HANG_UP_GRACE = 0.3  # seconds in which a conversation may notice by itself that the parent is gone


class Opener(Protocol):
    """What this front end needs of `image.ImageOpener`."""

    def prepare(self) -> None: ...

    def open(self, text: str, /) -> ServedImage: ...


Settled = Callable[[], object]


def _nothing() -> None:
    """Put nothing off."""


def serve(sock: socket.socket, opener: Opener, settled: Settled = _nothing) -> int:
    """Serve the connected SEQPACKET socket `sock`, which the caller closes, until its end; the exit status.

    `settled` is called once, in the thread that answers and before any other is started, when the reply that lets the
    parent name images is out.
    Transfers may outlive the return, in daemon threads. Whatever ends the call, an exception of a signal handler
    included, unfinished raw transfers have told their parent so when it returns (wire.md 5.2).
    """
    _raise_descriptor_limit()
    bell = Bell()
    pipes = Pipes(bell)
    conversation = _Conversation(sock, opener, pipes, bell, settled)
    watched, held = os.pipe()  # the conversation holds one end, and its end is seen at the other

    def converse() -> None:
        try:
            conversation.run()
        finally:
            os.close(held)

    poller = select.poll()
    poller.register(watched, select.POLLIN)
    poller.register(sock, 0)  # hang-up and error alone: a parent that only ends its requests is still there
    poller.register(pipes, select.POLLIN)
    thread = threading.Thread(target=converse, name="json", daemon=True)
    try:
        thread.start()
        while (found := dict(poller.poll())).keys() == {pipes.fileno()}:
            pipes.give_up()
        hung_up = watched not in found
        thread.join(HANG_UP_GRACE if hung_up else None)
        return EXIT_SERVED if thread.is_alive() else conversation.exit_status
    finally:
        pipes.stop()
        pipes.close()
        os.close(watched)


class _Reply(NamedTuple):
    """What a method answers; `fds` are read ends, which are closed once they are sent."""

    value: object = None
    pipe_id: int = 0
    fds: tuple[int, ...] = ()


class _Packet(NamedTuple):
    """A reply that can leave."""

    data: bytes
    fds: tuple[int, ...] = ()


class _Method(NamedTuple):
    """A row of the table of methods: how its arguments are read, and what it does; without `run` it is Shutdown."""

    readers: tuple[Callable[[JsonNode], object], ...]
    run: Callable[..., _Reply | Feed] | None
    at_once: bool = False  # never uses the network, but to describe a blob that may be one of a conversion
    always: bool = False  # needs no Initialize
    surplus: bool = False  # further arguments are not looked at


class _Call(NamedTuple):
    """A request that may be run; `run` is None for Shutdown."""

    run: Callable[[], _Reply | Feed] | None
    at_once: bool


class _Gone(Exception):
    """The parent has closed the connection."""


class _Conversation:
    """One connection from its first request to its end."""

    def __init__(self, sock: socket.socket, opener: Opener, pipes: Pipes, bell: Bell, settled: Settled) -> None:
        self._sock = sock
        self._opener = opener
        self._pipes = pipes
        self._bell = bell
        self._buffer = bytearray(PACKET_LIMIT + 1)
        self._owed: deque[_Packet | Feed] = deque()
        self._initialized = False
        self._settled: Settled | None = settled
        self._image_ids = count(1)
        self._images: dict[int, Handle] = {}
        self.exit_status = EXIT_FAILED

    def run(self) -> None:
        """Answer requests until Shutdown, the end of the connection, or an error of the socket."""
        try:
            self._answer_all()
            self.exit_status = EXIT_SERVED
        except (_Gone, BrokenPipeError, ConnectionResetError):
            self.exit_status = EXIT_SERVED  # nobody waits for what is left
        except OSError as error:
            log.error("the connection to the parent failed: %s", error.strerror)
        finally:
            self._release()

    def _answer_all(self) -> None:
        while (packet := self._receive()) is not None:
            call = outcome_of(partial(self._read_call, packet))
            if isinstance(call, CipError):
                self._owe(call)
            elif call.run is None:
                break
            else:
                if not call.at_once:
                    self._send_all()
                self._owe(outcome_of(call.run))
            self._send_ready()
            self._settle()
        self._send_all()

    def _settle(self) -> None:
        """Do what was put off until the reply to Initialize was out."""
        if self._initialized and self._settled is not None:
            settled, self._settled = self._settled, None
            settled()

    def _release(self) -> None:
        for owed in self._owed:
            if isinstance(owed, _Packet):
                _close_all(owed.fds)
        self._owed.clear()
        for handle in self._images.values():
            handle.release()
        self._images.clear()
        self._bell.close()

    # --- packets ---

    def _receive(self) -> memoryview | None:
        """The next packet, valid until the next call; None at the end. A byte over the limit shows that it was cut."""
        while self._owed and not self._wait(reading=len(self._owed) < OWED_LIMIT):
            self._send_ready()
        # No control buffer: descriptors that the parent sends along are closed by the kernel.
        size, _, _, _ = self._sock.recvmsg_into([self._buffer])
        return memoryview(self._buffer)[:size] if size else None

    def _send_ready(self) -> None:
        """Send the replies that wait for nothing, up to the first one that does."""
        while self._owed:
            owed = self._owed[0]
            if isinstance(owed, Feed):
                if not owed.ended:
                    return
                owed = self._packet(self._pipes.collect(owed) or _Reply())
            self._owed.popleft()
            self._send(owed)

    def _send_all(self) -> None:
        """Send every reply that is owed, waiting as long as that takes. Raises _Gone."""
        self._send_ready()
        while self._owed:
            self._wait(reading=False)
            self._send_ready()

    def _wait(self, *, reading: bool) -> bool:
        """Wait until a pipe has ended or, if `reading`, a request is there; whether one is. Raises _Gone."""
        poller = select.poll()
        poller.register(self._bell, select.POLLIN)
        poller.register(self._sock, select.POLLIN if reading else 0)
        found = dict(poller.poll()).get(self._sock.fileno(), 0)
        self._bell.hush()
        if found & ~select.POLLIN:
            raise _Gone
        return bool(found)

    def _owe(self, outcome: _Reply | Feed | CipError) -> None:
        self._owed.append(outcome if isinstance(outcome, Feed) else self._packet(outcome))

    def _packet(self, outcome: _Reply | CipError) -> _Packet:
        if isinstance(outcome, _Reply):
            try:
                return _Packet(encode_success(outcome.value, outcome.pipe_id), outcome.fds)
            except CipError as error:
                _close_all(outcome.fds)
                outcome = error
        log.debug("%s: %s", outcome.code, outcome)
        return _Packet(encode_failure(outcome))

    def _send(self, packet: _Packet) -> None:
        """Send one reply. One that the kernel does not take is replaced by its reason. Raises OSError."""
        try:
            if packet.fds:
                socket.send_fds(self._sock, [packet.data], packet.fds)
            else:
                self._sock.send(packet.data)
        except (BrokenPipeError, ConnectionResetError):
            raise
        except OSError as error:  # EMSGSIZE: a small send buffer; ETOOMANYREFS: too many descriptors on their way
            log.error("a reply of %d bytes could not be sent: %s", len(packet.data), error.strerror)
            fault = CipError(f"the reply could not be sent: {error.strerror}", code=ErrorCode.LIMIT_EXCEEDED)
            self._sock.send(encode_failure(fault))
        finally:
            _close_all(packet.fds)

    # --- requests ---

    def _read_call(self, packet: memoryview) -> _Call:
        """The call with its checked arguments (wire.md sections 2, 4). Raises InvalidInputError."""
        if len(packet) > PACKET_LIMIT:
            raise InvalidInputError(f"request: expected at most {PACKET_LIMIT} bytes, found more")
        name, arguments = parse_request(packet)
        method = _METHODS.get(name)
        if method is None:
            raise InvalidInputError(f"unknown method {quote(name)}")
        log.debug("request %s", name)
        if not (self._initialized or method.always):
            raise InvalidInputError(f"{name}: expected Initialize before it")
        expected = len(method.readers)
        if len(arguments) < expected or (len(arguments) > expected and not method.surplus):
            raise InvalidInputError(f"{name}: expected {expected} arguments, found {len(arguments)}")
        values = [read(node) for read, node in zip(method.readers, arguments, strict=False)]
        return _Call(method.run and partial(method.run, self, *values), method.at_once and self._is_known(*values))

    def _is_known(self, image_id: object = None, digest: object = None, *_: object) -> bool:
        """Whether no network is needed to describe the blob that these arguments name, if they name one."""
        handle = self._images.get(image_id) if isinstance(image_id, int) else None
        return handle is None or not isinstance(digest, Digest) or handle.image.knows_blob(digest)

    def _handle(self, image_id: int) -> Handle:
        handle = self._images.get(image_id)
        if handle is None:
            raise InvalidInputError(f"there is no open image {image_id}")
        return handle

    # --- methods ---

    def _initialize(self) -> _Reply:
        if self._initialized:
            raise InvalidInputError("Initialize: expected once, found a second one")
        self._opener.prepare()
        self._initialized = True
        return _Reply(VERSION)

    def _open_image(self, reference: str) -> _Reply:
        handle = Handle(self._opener.open(reference))
        image_id = next(self._image_ids)
        self._images[image_id] = handle
        return _Reply(image_id)

    def _open_image_optional(self, reference: str) -> _Reply:
        try:
            return self._open_image(reference)
        except NotFoundError as error:
            if error.code is not ErrorCode.IMAGE_NOT_FOUND:
                raise
            log.debug("%s", error)
            return _Reply(0)

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

    def _get_blob(self, image_id: int, digest: Digest, size: int) -> _Reply:
        handle = self._handle(image_id)
        expected = handle.image.describe_blob(digest)
        opened = verified_work(handle, expected, size).begin(self._pipes.feed)
        return _piped(opened, expected.size)

    def _get_raw_blob(self, image_id: int, digest: Digest) -> _Reply:
        handle = self._handle(image_id)
        expected = handle.image.describe_blob(digest)
        opened = raw_work(handle, expected).begin(self._pipes.feed_raw)
        return _Reply(expected.size, 0, (opened.data_fd, opened.error_fd))

    def _finish_pipe(self, pipe_id: int) -> Feed:
        return self._pipes.finish(pipe_id)


_IMAGE = (read_number,)
_METHODS: Mapping[str, _Method] = {
    "Initialize": _Method((), _Conversation._initialize, always=True),
    "OpenImage": _Method((read_text,), _Conversation._open_image),
    "OpenImageOptional": _Method((read_text,), _Conversation._open_image_optional),
    "CloseImage": _Method(_IMAGE, _Conversation._close_image, at_once=True),
    "GetManifest": _Method(_IMAGE, _Conversation._get_manifest),
    "GetFullConfig": _Method(_IMAGE, _Conversation._get_full_config),
    "GetConfig": _Method(_IMAGE, _Conversation._get_config),
    "GetBlob": _Method((read_number, read_digest, read_number), _Conversation._get_blob, at_once=True),
    "GetRawBlob": _Method((read_number, read_digest), _Conversation._get_raw_blob, at_once=True),
    "GetLayerInfo": _Method(_IMAGE, _Conversation._get_layer_info, at_once=True),
    "GetLayerInfoPiped": _Method(_IMAGE, _Conversation._get_layer_info_piped, at_once=True),
    "FinishPipe": _Method((read_number,), _Conversation._finish_pipe, at_once=True, always=True, surplus=True),
    "Shutdown": _Method((), None, at_once=True, always=True, surplus=True),
}


def _piped(opened: Opened, value: object = None) -> _Reply:
    return _Reply(value, opened.pipe_id, (opened.read_fd,))


def _layer_info(image: ServedImage) -> list[dict[str, object]]:
    return [
        {"digest": str(layer.digest), "size": layer.size, "media_type": layer.media_type} for layer in image.layers()
    ]


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

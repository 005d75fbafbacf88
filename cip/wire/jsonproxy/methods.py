# SPDX-License-Identifier: Apache-2.0
"""Runs the requests of the JSON protocol, one after the other: what they ask, and the images that they name."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ... import log, rooms
from ...content import WAITS, undo_on_error
from ...errors import CipError, ErrorCode, ImageAbsentError, InvalidInputError, quote
from ...model.descriptor import Digest
from ...model.jsontree import JsonNode
from ..problem import encode, one_line
from .packets import PACKET_LIMIT, parse_request, read_digest, read_number, read_text
from .pipes import Feed, Pipes, outcome_of
from .replies import Owed, Replies, Reply
from .transfers import Handle, Share, Work

if TYPE_CHECKING:
    from ...image import Image

VERSION = "0.2.8"  # clients parse it and refuse a suffix (wire.md 7.2)
ANSWER_SECONDS = 2.0  # for which the reply of a blob waits for its source (decisions.md section 10)
LISTED = 8 * 1024 * 1024  # bytes that must be left of KEPT_LIMIT for what refers to one image
KEPT_LIMIT = 48 * 1024 * 1024  # bytes of memory that all open images together keep, about; opening one takes more


class Opener(Protocol):
    """What this front end needs of `opening.ImageOpener`."""

    def prepare(self) -> None: ...

    def open(self, text: str, /) -> Image: ...


class _Method(NamedTuple):
    """A row of the table of methods: how its arguments are read, and what it does; without `run` it is Shutdown."""

    readers: tuple[Callable[[JsonNode], object], ...]
    run: Callable[..., Reply | Feed] | None
    always: bool = False  # needs no Initialize
    surplus: bool = False  # further arguments are not looked at
    optional: int = 0  # of the last arguments, how many may be left out


class Requests:
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

    def run_all(self, replies: Replies) -> None:
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

    def run_one(self, owe: Callable[[Owed], object]) -> bool:
        """Take one request and owe its outcome; False for Shutdown and the end. Raises OSError."""
        # A byte over the limit shows that a packet was cut. No control buffer: descriptors that the parent sends along
        # are closed by the kernel.
        size, _, _, _ = self._sock.recvmsg_into([self._buffer])
        WAITS.set(self._share.waits)  # of this thread, which reads configs
        self._arrival = time.monotonic()
        call = outcome_of(partial(self._read_call, memoryview(self._buffer)[:size])) if size else None
        if call is None:
            return False
        owe(call if isinstance(call, CipError) else outcome_of(call))
        return True

    def _read_call(self, packet: memoryview) -> Callable[[], Reply | Feed] | None:
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

    def _config(self, image_id: int) -> tuple[bytes, str]:
        """The config of an image, and what messages call it."""
        image = self._handle(image_id).image
        return image.config(), f"{image.reference}: config"

    # --- methods ---

    def _initialize(self) -> Reply:
        if self.initialized:
            raise InvalidInputError("Initialize: expected once, found a second one")
        try:
            self._opener.prepare()
        except CipError as error:
            log.error("%s", one_line(error))
            raise
        self.initialized = True
        return Reply(VERSION)

    def _open_image(self, reference: str, *, optional: bool = False) -> Reply:
        try:
            handle = Handle(self._opener.open(reference))
            with undo_on_error(handle.release):
                self._require_room(handle)
        except CipError as error:
            if optional and isinstance(error, ImageAbsentError):
                log.debug("%s", error)
                return Reply(0)
            log.error("%s", one_line(error))  # whoever looks at night finds the next step in one line
            raise
        image_id = next(self._image_ids)
        self._images[image_id] = handle
        return Reply(image_id)

    def _require_room(self, *opened: Handle, listed: int = 0) -> None:
        """Return while the images that are open take little memory, or one is alone. Raises CipError."""
        handles = (*self._images.values(), *opened)
        found = sum(handle.image.kept for handle in handles) + listed
        if len(handles) > 1 and found > KEPT_LIMIT:
            why = f"expected at most {KEPT_LIMIT} bytes of documents of open images, found {found}: close some"
            raise CipError(why, code=ErrorCode.LIMIT_EXCEEDED)

    def _close_image(self, image_id: int) -> Reply:
        self._handle(image_id).release()
        del self._images[image_id]
        return Reply()

    def _get_manifest(self, image_id: int) -> Reply:
        image = self._handle(image_id).image
        return self._piped(image.manifest, str(image.accepted.digest))

    def _get_full_config(self, image_id: int) -> Reply:
        return self._piped(rooms.encode_config(*self._config(image_id)))

    def _get_config(self, image_id: int) -> Reply:
        return self._piped(rooms.encode_inner_config(*self._config(image_id)))

    def _get_layer_info(self, image_id: int) -> Reply:
        return Reply(_layer_info(self._handle(image_id).image))

    def _get_layer_info_piped(self, image_id: int) -> Reply:
        return self._piped(encode(_layer_info(self._handle(image_id).image)))

    def _get_referrers(self, image_id: int, artifact_type: str | None = None) -> Reply:
        if artifact_type == "":
            raise InvalidInputError("GetReferrers: expected an artifact type, found an empty one")
        image = self._handle(image_id).image
        self._require_room(listed=LISTED)
        return self._piped(*image.referrers().index(artifact_type))

    def _get_referrer_manifest(self, image_id: int, digest: Digest) -> Reply:
        image = self._handle(image_id).image
        self._require_room(listed=LISTED)
        served = image.referrers().manifest(digest)
        return self._piped(served.data, served.media_type)

    def _get_blob(self, image_id: int, digest: Digest, size: int | None = None) -> Reply:
        """A blob of the `size` that the parent expects, else one that the parent judges."""
        handle = self._handle(image_id)
        expected = handle.image.describe_blob(digest)
        feed = self._pipes.feed_raw if size is None else self._pipes.feed
        opened = Work(handle, expected, self._share, size).begin(feed)
        return Reply(expected.size, opened, self._arrival + ANSWER_SECONDS)

    def _finish_pipe(self, pipe_id: int) -> Feed:
        return self._pipes.finish(pipe_id)

    def _piped(self, data: bytes, value: object = None) -> Reply:
        return Reply(value, self._pipes.feed_bytes(data))


_IMAGE = (read_number,)
_METHODS: Mapping[str, _Method] = {
    "Initialize": _Method((), Requests._initialize, always=True),
    "OpenImage": _Method((read_text,), Requests._open_image),
    "OpenImageOptional": _Method((read_text,), partial(Requests._open_image, optional=True)),
    "CloseImage": _Method(_IMAGE, Requests._close_image),
    "GetManifest": _Method(_IMAGE, Requests._get_manifest),
    "GetFullConfig": _Method(_IMAGE, Requests._get_full_config),
    "GetConfig": _Method(_IMAGE, Requests._get_config),
    "GetBlob": _Method((read_number, read_digest, read_number), Requests._get_blob),
    "GetRawBlob": _Method((read_number, read_digest), Requests._get_blob),
    "GetLayerInfo": _Method(_IMAGE, Requests._get_layer_info),
    "GetLayerInfoPiped": _Method(_IMAGE, Requests._get_layer_info_piped),
    # not of upstream's protocol: a client that wants them takes an error for "not there" (bundles.md section 5)
    "GetReferrers": _Method((read_number, read_text), Requests._get_referrers, optional=1),
    "GetReferrerManifest": _Method((read_number, read_digest), Requests._get_referrer_manifest),
    "FinishPipe": _Method((read_number,), Requests._finish_pipe, always=True, surplus=True),
    "Shutdown": _Method((), None, always=True, surplus=True),
}


def _layer_info(image: Image) -> list[dict[str, object]]:
    return [
        {"digest": str(layer.digest), "size": layer.size, "media_type": layer.media_type} for layer in image.layers()
    ]

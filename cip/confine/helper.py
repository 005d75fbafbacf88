# SPDX-License-Identifier: Apache-2.0
"""The helper process: a fresh interpreter outside the sandbox that runs what a confined proxy may not.

It takes three requests over a socket pair: verify (key ring, message), decompress (input, output), or else credentials
(a helper that was named before confinement, a registry). One that asks credential helpers does nothing else; the other
one is confined with what it runs: it changes no file and reaches nobody, for gpgv and zstd read what strangers wrote.
Command lines and environments are its own. Descriptors are used
as they are and never opened anew by a path, which would give more rights than the sender has. It cannot be traced and
leaves no core, for it sees credentials. It ends with its socket, or a little later than its starter, who may have had
the other end passed to it; everything that it runs ends before. Killed, it takes along the programs that it started,
but nobody is left to end what those started.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from .. import log
from ..content import require_time, timed
from ..errors import CipError, ErrorCode, SourceError, quote
from ..programs import DirectPrograms, ProgramResult
from .sandbox import confine_programs, forbid_tracing, go_on_at_end_of_starter

REQUEST_LIMIT = 64 * 1024  # bytes of one request
SETUP_LIMIT = 4 * 1024 * 1024  # bytes of the environment of credential helpers, which a kernel bounds by 2 MiB or so
CONTENT_LIMIT = 8 * 1024 * 1024  # bytes of a key ring, and of a message
DESCRIPTOR_LIMIT = 3  # of one request: the reply, and two to work on
AT_ONCE = 64  # requests that are answered beside each other; more are refused
LONGEST = 3600.0  # seconds that a request may ask for
LOOK_SECONDS = 2.0  # between two looks whether its starter is there
_REPLY_SECONDS = 10.0  # for whoever asked to read the answer
_STACK_SIZE = 256 * 1024  # bytes


def main(descriptor: int) -> None:
    """Serve requests on the SEQPACKET socket `descriptor` until its end."""
    forbid_tracing()
    go_on_at_end_of_starter()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # what our starter blocked is its own affair
    threading.stack_size(_STACK_SIZE)
    log.set_threshold(log.Level.SILENT)
    with socket.socket(fileno=descriptor) as control:
        # who made the pair: it may be gone already, and who our parent is then says nothing
        starter = struct.unpack("3i", control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        helper = _Helper(control)
        threading.Thread(target=_end_with, args=(starter, helper), daemon=True).start()
        try:
            helper.run()
        finally:
            helper.end()


def _end_with(starter: int, helper: _Helper) -> None:
    """End with `starter`, whatever other threads do: to close what strangers pass takes as long as these say."""
    while os.getppid() == starter:
        time.sleep(LOOK_SECONDS)
    helper.end()


class _Helper:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        _, descriptors, _, _ = socket.recv_fds(control, REQUEST_LIMIT, 1)
        setup: dict[str, Any] = {"helpers": (), "variables": {}}
        for descriptor in descriptors:  # one, where there are credential helpers
            setup = json.loads(_content(descriptor, SETUP_LIMIT))
            os.close(descriptor)
        self._helpers = frozenset(setup["helpers"])
        if not self._helpers:  # those need what nobody knows
            confine_programs()
        self.programs = DirectPrograms(setup["variables"])
        self._slots = threading.BoundedSemaphore(AT_ONCE)

    def end(self) -> NoReturn:
        """End the process, with all that it runs."""
        self.programs.running.kill()
        os._exit(0)

    def run(self) -> None:
        while True:
            data, descriptors, _, _ = socket.recv_fds(self._control, REQUEST_LIMIT, DESCRIPTOR_LIMIT)
            if not data:
                return
            if not self._slots.acquire(blocking=False):
                _reply(descriptors, {"code": ErrorCode.LIMIT_EXCEEDED, "error": f"{AT_ONCE} programs run already"})
                continue
            try:
                threading.Thread(target=self._answer, args=(data, descriptors), daemon=True).start()
            except RuntimeError as error:  # EAGAIN: no thread for this one, perhaps for the next
                self._slots.release()
                _reply(descriptors, {"code": ErrorCode.INTERNAL, "error": f"cannot be started: {error}"})

    def _answer(self, data: bytes, descriptors: Sequence[int]) -> None:
        try:
            _reply(descriptors, *self._head(data, descriptors[1:]))
        finally:
            self._slots.release()

    def _head(self, data: bytes, passed: Sequence[int]) -> tuple[dict[str, object], bytes]:
        try:
            request = json.loads(data)
            seconds = min(LONGEST, float(request["seconds"]))
            with timed(lambda: seconds):
                return self._run(request, passed)
        except CipError as error:
            return {"code": error.code, "error": str(error)}, b""
        except Exception as error:  # a request that our own proxy does not send; whoever sent it learns nothing else
            return {"code": ErrorCode.INTERNAL, "error": f"not a request: {type(error).__name__}"}, b""

    def _run(self, request: dict[str, object], passed: Sequence[int]) -> tuple[dict[str, object], bytes]:
        """Head and content of the answer. Raises CipError, and anything for what is no request."""
        match request["kind"]:
            case "verify" if not self._helpers:
                ring, message = (_content(descriptor, CONTENT_LIMIT) for descriptor in passed)
                found = self.programs.verify(ring, message)
                head: dict[str, object] = {"status": found.status, "lines": len(found.status_lines)}
                return head, found.status_lines + found.output
            case "decompress" if not self._helpers:
                source, output = passed
                return {"status": self.programs.decompress(source, output, require_time(), purpose="")}, b""
            case "credentials":
                result = self._credentials(str(request["helper"]), str(request["registry"]))
                return {"status": result.status, "stderr": result.stderr.decode("latin-1")}, result.stdout
            case other:
                raise SourceError(f"{quote(other)}: not a request", code=ErrorCode.INTERNAL)

    def _credentials(self, helper: str, registry: str) -> ProgramResult:
        if helper not in self._helpers:
            why = "not a credential helper that was named when this process was confined"
            raise SourceError(f"{quote(helper)}: {why}", code=ErrorCode.CREDENTIALS_UNAVAILABLE)
        return self.programs.credentials(helper, registry, purpose="")


def _content(descriptor: int, limit: int) -> bytes:
    """What a memory file holds. Raises SourceError (limit-exceeded), OSError for what may not be read."""
    data = os.pread(descriptor, limit + 1, 0)
    if len(data) > limit:
        raise SourceError(f"a request of more than {limit} bytes", code=ErrorCode.LIMIT_EXCEEDED)
    return data


def _reply(descriptors: Sequence[int], head: dict[str, object], content: bytes = b"") -> None:
    """Answer on the first of `descriptors`, and close all."""
    try:
        with socket.socket(fileno=descriptors[0]) as reply:
            descriptors = descriptors[1:]
            reply.settimeout(_REPLY_SECONDS)
            reply.sendall(json.dumps(head).encode() + b"\n" + content)
    except (OSError, IndexError):
        pass  # nobody waits any more, or nobody said where
    finally:
        for descriptor in descriptors:
            os.close(descriptor)

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

import resource
import socket
from collections.abc import Callable
from functools import partial
from typing import Self

from ... import log
from ...errors import system_reason
from .methods import Opener, Requests
from .pipes import Bell, Pipes
from .replies import Replies

EXIT_SERVED = 0
EXIT_FAILED = 1


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
        self._requests = Requests(sock, opener, self._pipes)
        self._replies = Replies(sock, self._pipes, self._bell)
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
        self._until_gone(self._answer_all)

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

    def _answer_all(self) -> None:
        self._replies.run(partial(self._requests.run_all, self._replies))
        if self._requests.failure is not None:
            raise self._requests.failure

    def _until_gone(self, answer: Callable[[], bool | None]) -> bool:
        try:
            return bool(answer())
        except (BrokenPipeError, ConnectionResetError):
            return False  # nobody waits for what is left
        except OSError as error:
            log.error("the connection to the parent failed: %s", system_reason(error))
            self.exit_status = EXIT_FAILED
            return False


def _raise_descriptor_limit() -> None:
    """Let unfinished pipes be as many as the system allows this process (wire.md 5.1)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        log.debug("the limit on descriptors stays as it is: %s", error)

# SPDX-License-Identifier: Apache-2.0
"""The program: argv, environment, exit status. The only module that knows it is one."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache, partial
from typing import TYPE_CHECKING, NoReturn, TextIO

from . import log, rooms
from .content import timed, undo_on_error
from .errors import CipError, ErrorCode, UsageError, redact_with, system_reason
from .options import Command, Invocation, parse_arguments
from .settings import HostEnvironment, PolicySource, Settings
from .watch import Conversation, Watch, hold_signals, release_signals

if TYPE_CHECKING:
    from .confine.confinement import Confinement
    from .image import Image
    from .opening import ImageOpener
    from .report.records import Records
    from .trust.policy import Policy

EXIT_SERVED = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
_REQUESTS = "HTTP requests, such as GET /manifest HTTP/1.0 and an empty line"
# Bytes of a thread's stack. Python 3.13 lets JSON nest so deep before it complains that 1 MiB is overrun, by hostile
# input in a worker too; what C libraries give by default is 128 KiB to "unlimited".
_STACK_SIZE = 4 * 1024 * 1024
# Objects that may be made before Python looks for cycles: with its own 700 a start looks often and finds none.
_COLLECT_AFTER_START = 200_000  # until the first answer is out
_COLLECT_AFTER = 20_000


def run() -> NoReturn:
    """Entry point of the console script, `python3 -m cip` and the zipapp."""
    gc.set_threshold(_COLLECT_AFTER_START)
    gc.enable()  # the installed command begins without: what is loaded stays
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # not a traceback: until we serve there is nothing to clean up
    _require_stderr()
    log.own_stderr()
    status = main(sys.argv[1:], os.path.basename(sys.argv[0]))
    log.tell_dropped()
    os._exit(status)  # without waiting for worker threads, which may stand in a read that nobody wants any more


def _require_stderr() -> None:
    """Without stderr the next file or socket would get its number, and log lines would end up in it."""
    try:
        os.fstat(log.STDERR)
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, log.STDERR)
        if null != log.STDERR:
            os.close(null)


def _print(text: str) -> int:
    """Write `text` to stdout whole; the exit status."""
    stdout: TextIO | None = sys.stdout
    if stdout is None:
        log.error("stdout is not open")
        return EXIT_FAILED
    try:
        stdout.write(text.encode("utf-8", "backslashreplace").decode())
        stdout.flush()
    except (OSError, ValueError) as error:
        log.error("stdout: %s", system_reason(error) if isinstance(error, OSError) else "its encoding lacks characters")
        return EXIT_FAILED
    return EXIT_SERVED


def main(arguments: Sequence[str], program: str = log.PROGRAM) -> int:
    """Run the program; the exit status (decisions.md section 4)."""
    try:
        invocation = parse_arguments(arguments, program, host_environment(os.environ))
        if invocation.answer is not None:
            return _print(invocation.answer)
        log.set_threshold(invocation.log_level)
        for warning in invocation.warnings:
            log.warning("%s", warning)
        with ExitStack() as stack:
            return _COMMANDS[invocation.command](invocation, stack)
    except UsageError as error:
        log.error("%s", error)
        return EXIT_USAGE
    except CipError as error:
        from .wire.problem import one_line

        log.error("%s", one_line(error))
        return EXIT_FAILED


def host_environment(variables: Mapping[str, str]) -> HostEnvironment:
    """The environment as a value; the home directory comes from the user database when `HOME` is not usable."""
    home = variables.get("HOME", "")
    if not os.path.isabs(home):
        import pwd

        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            home = "/"
    return HostEnvironment(dict(variables), home, os.getuid(), os.geteuid())


def _serve_http(invocation: Invocation, stack: ExitStack) -> int:
    from .wire.fds import adopt_socket, adopt_streams

    invocation.settings.credentials.explicit()  # contradicting flags are a usage error here
    reference = invocation.reference

    def open_image() -> Image:
        image = opener.open(reference)
        with undo_on_error(image.close):
            if confinement is not None:
                confinement.require()
                image.prepare_blobs = confinement.apply
        image.wants_all = True
        return image

    sock = streams = None
    told = False
    if invocation.sockfd is not None:
        sock = stack.enter_context(adopt_socket(invocation.sockfd, socket.SOCK_STREAM))
    else:
        told = os.isatty(0)
        if told:
            _greet(reference)
        streams = stack.enter_context(adopt_streams(0, 1))
    opener, confinement, last_words = _core(invocation, stack, asked=sock is not None and _asks_for_content(sock))
    from .wire import httpserver  # here, because a connection may be on its way by now

    make_file = opener.sources.make_file
    if sock is not None:
        conversation = httpserver.on_socket(sock, open_image, make_file)
    else:
        assert streams is not None
        conversation = httpserver.Conversation(*streams, open_image, make_file)
    stack.callback(conversation.close)
    status = _converse(conversation, confinement, last_words)
    if streams is not None and not told and status == EXIT_SERVED and not conversation.was_asked:
        log.warning("stdin ended before a request: expected %s; a parent hands over a socket by --sockfd", _REQUESTS)
    return status


def _asks_for_content(sock: socket.socket) -> bool:
    """Whether a request waits that needs the image: nothing is dialled for a parent that only quits."""
    try:
        waiting = sock.recv(16, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return False
    return waiting.startswith((b"GET /manifest", b"HEAD /manifest", b"GET /blobs/", b"HEAD /blobs/"))


def _greet(reference: str) -> None:
    """Tell somebody at a terminal what goes on. Raises UsageError for a name that nothing can be asked about."""
    from .model.reference import parse_image_reference

    try:
        parse_image_reference(reference)
    except CipError as error:
        raise UsageError(str(error)) from error
    log.warning(
        "stdin is a terminal: expected %s; Ctrl-D ends it, %s explain shows what would be done", _REQUESTS, log.PROGRAM
    )


def _serve_json(invocation: Invocation, stack: ExitStack) -> int:
    from .wire.fds import adopt_socket

    descriptor = 0 if invocation.sockfd is None else invocation.sockfd
    sock = stack.enter_context(adopt_socket(descriptor, socket.SOCK_SEQPACKET))
    if invocation.settings.require_sandbox == "full":
        raise UsageError(f"--require-sandbox=full: {Command.JSON} opens files that its parent names later")
    opener, confinement, last_words = _core(invocation, stack)
    if confinement is not None:
        confinement.require()
    conversation = stack.enter_context(rooms.Conversation(sock, opener))
    return _converse(conversation, confinement, last_words)


def _converse(conversation: Conversation, confinement: Confinement | None, last_words: Callable[[], None]) -> int:
    """Hold the conversation in this thread, and confine it once the first answer is out; the exit status."""
    with Watch(conversation, last_words) as watch:
        if confinement is not None:
            confinement.renew = watch.renew
        if conversation.begin():
            gc.set_threshold(_COLLECT_AFTER)
            if confinement is not None:
                confinement.apply()
            conversation.run()
    return conversation.exit_status


def _explain(invocation: Invocation, stack: ExitStack) -> int:
    explanation = rooms.explain(invocation.reference, invocation.settings)
    status = _print(explanation.to_json() if invocation.json else explanation.to_text())
    return EXIT_FAILED if explanation.errors else status


def _fetch(invocation: Invocation, stack: ExitStack) -> int:
    settings = invocation.settings._replace(partial_dir=None)  # the layout keeps its own parts

    def build() -> tuple[ImageOpener, Confinement | None]:
        opener, confinement, _ = _core(invocation._replace(settings=settings), stack)
        release_signals()  # what is written is good at any moment
        return opener, confinement

    watched = invocation.log_level < log.Level.SILENT and os.isatty(log.STDERR)
    said = rooms.fetch(
        invocation.reference,
        invocation.destination,
        build,
        settings,
        every_platform=invocation.every_platform,
        terminal=log.STDERR if watched else None,
    )
    return _print(f"{said}\n")


def _core(
    invocation: Invocation, stack: ExitStack, *, asked: bool = False
) -> tuple[ImageOpener, Confinement | None, Callable[[], None]]:
    """The core with everything it is handed, closed with `stack`: settings, programs, clock, records.

    With it comes what must be done when the process ends from beside the conversation. `asked` tells that the image is
    wanted already, so that its registry is connected to while the rest is imported.
    """
    import time

    hold_signals()  # before the first thread
    threading.stack_size(_STACK_SIZE)
    settings = invocation.settings
    load_policy = cache(partial(_load_policy, settings))
    early = None
    if asked:
        # Files are read, but what comes through a pipe is not even opened; whoever asks later is told what failed.
        with suppress(CipError), timed(lambda: 0.0):
            early = rooms.dial_early(invocation.reference, settings, load_policy)
    if early is not None:
        stack.callback(early.close)
    from .events import NO_EVENTS
    from .transports import SourceOpener

    limited = invocation.command == Command.HTTP  # a JSON parent names files later
    confinement: Confinement | None = rooms.Confinement(settings, invocation.reference, limited_reads=limited)
    programs = confinement.programs if confinement is not None else rooms.DirectPrograms(settings.environment.variables)
    stack.callback(programs.close)
    records = _open_records(invocation)
    if records is not None:
        stack.callback(records.close)
    events = NO_EVENTS if records is None else records.events
    sources = SourceOpener(settings, events, programs)
    redact_with(sources.secrets.redact)
    if early is not None:
        with suppress(CipError), timed(lambda: 0.0):
            sources.expect(early)
    from .opening import ImageOpener
    from .trust.evaluation import no_audit
    from .trust.policy import TrustTools

    tools = TrustTools(_read_key_file, programs.verify, time.time)
    audit = no_audit if records is None else records.audit
    opener = ImageOpener(settings, sources, tools, load_policy, events=events, audit=audit)
    stack.callback(opener.close)

    if confinement is not None:
        confinement.know(sources, opener.before_confinement, None if records is None else records.in_writers)

    def last_words() -> None:
        programs.abandon()
        if records is not None:
            records.close()
        log.tell_dropped()

    return opener, confinement, last_words


def _open_records(invocation: Invocation) -> Records | None:
    """What tells of events and decisions; None where nobody wants to know."""
    from .wire.fds import adopt_writer

    if invocation.events_fd is None and invocation.audit_fd is None and not invocation.journal:
        return None
    return rooms.Records(
        adopt_writer(invocation.events_fd, "--events-fd"),
        adopt_writer(invocation.audit_fd, "--audit-fd"),
        journal=invocation.journal,
        require_audit=invocation.require_audit,
    )


def _load_policy(settings: Settings) -> Policy:
    from .trust.policy import accept_anything_policy, parse_policy, unmatched_scopes

    if settings.policy.source is PolicySource.ACCEPT_ANYTHING:
        return accept_anything_policy()
    from .hostconfig.paths import policy_path, read_configuration

    path = policy_path(settings)
    policy = parse_policy(read_configuration(path, code=ErrorCode.POLICY_INVALID), path, settings.policy.source)
    for remark in unmatched_scopes(policy):
        log.warning("%s", remark)
    return policy


def _read_key_file(path: str) -> bytes:
    from .hostconfig.paths import KEY_LIMIT, read_configuration

    return read_configuration(path, KEY_LIMIT)


_COMMANDS: Mapping[str, Callable[[Invocation, ExitStack], int]] = {
    Command.HTTP: _serve_http,
    Command.JSON: _serve_json,
    Command.EXPLAIN: _explain,
    Command.FETCH: _fetch,
}

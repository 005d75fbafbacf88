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
from contextlib import ExitStack
from typing import TYPE_CHECKING, NoReturn, TextIO

from . import log, rooms
from .errors import CipError, ErrorCode, UnsupportedError, UsageError
from .events import NO_EVENTS, Events
from .options import Command, Invocation, parse_arguments
from .settings import HostEnvironment, PolicySource, SandboxMode, Settings
from .watch import Conversation, Watch, hold_signals, release_signals

if TYPE_CHECKING:
    from .confine.remote import HelperPrograms
    from .confine.sandbox import Level
    from .image import Image, ImageOpener
    from .transports import SourceOpener
    from .trust.evaluation import Audit
    from .trust.policy import Policy

EXIT_SERVED = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
# Bytes of a thread's stack. Python 3.13 lets JSON nest so deep before it complains that 1 MiB is overrun, by hostile
# input in a worker too; what C libraries give by default is 128 KiB to "unlimited".
_STACK_SIZE = 4 * 1024 * 1024
# Objects that may be made before Python looks for cycles: with its own 700 a start looks thirty times and finds none.
_COLLECT_AFTER = 20_000


def run() -> NoReturn:
    """Entry point of the console script, `python3 -m cip` and the zipapp."""
    gc.set_threshold(_COLLECT_AFTER)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # not a traceback: until we serve there is nothing to clean up
    _require_stderr()
    log.own_stderr()
    _leave(main(sys.argv[1:], os.path.basename(sys.argv[0])))


def _leave(status: int) -> NoReturn:
    """Exit without waiting for worker threads, which may stand in a read that nobody wants any more."""
    log.tell_dropped()
    os._exit(status)


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
        log.error("stdout: %s", getattr(error, "strerror", None) or "its encoding does not have all characters")
        return EXIT_FAILED
    return EXIT_SERVED


def main(arguments: Sequence[str], program: str = log.PROGRAM) -> int:
    """Run the program; the exit status (decisions.md section 4)."""
    try:
        invocation = parse_arguments(arguments, program, host_environment(os.environ))
    except UsageError as error:
        log.error("%s", error)
        return EXIT_USAGE
    if invocation.answer is not None:
        return _print(invocation.answer)
    log.set_threshold(invocation.log_level)
    for warning in invocation.warnings:
        log.warning("%s", warning)
    try:
        with ExitStack() as stack:
            return _COMMANDS[invocation.command](invocation, stack)
    except UsageError as error:
        log.error("%s", error)
        return EXIT_USAGE
    except CipError as error:
        log.error("%s", error)
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
    from .wire import httpserver
    from .wire.fds import adopt_socket, adopt_streams

    invocation.settings.credentials.explicit()  # contradicting flags are a usage error here
    settings, reference = invocation.settings, invocation.reference

    def open_image() -> Image:
        image = opener.open(reference)
        try:
            confinement.require()
        except BaseException:
            image.close()
            raise
        if reference.startswith("docker:"):
            image.read_ahead(settings.transfer.read_ahead, settings.transfer.connections, guess=True)
        return image

    if invocation.sockfd is not None:
        sock = stack.enter_context(adopt_socket(invocation.sockfd, socket.SOCK_STREAM))
        conversation = httpserver.on_socket(sock, open_image, settings.tmpdir)
    else:
        if os.isatty(0):
            _greet(reference)
        streams = stack.enter_context(adopt_streams(0, 1))
        conversation = httpserver.Conversation(streams.input_fd, streams.output_fd, open_image, settings.tmpdir)
    opener, confinement, last_words = _core(invocation, stack)
    stack.callback(conversation.close)
    return _converse(conversation, confinement, last_words)


def _greet(reference: str) -> None:
    """Tell somebody at a terminal what goes on. Raises UsageError for a name that nothing can be asked about."""
    from .model.reference import parse_image_reference

    try:
        parse_image_reference(reference)
    except CipError as error:
        raise UsageError(str(error)) from error
    log.warning("stdin is a terminal: expected HTTP requests, such as GET /manifest HTTP/1.0 and an empty line; Ctrl-D"
                " ends it, %s explain shows what would be done", log.PROGRAM)  # fmt: skip


def _serve_json(invocation: Invocation, stack: ExitStack) -> int:
    from .wire.fds import adopt_socket

    descriptor = 0 if invocation.sockfd is None else invocation.sockfd
    sock = stack.enter_context(adopt_socket(descriptor, socket.SOCK_SEQPACKET))
    if invocation.settings.sandbox.required == "full":
        raise UsageError(f"--require-sandbox=full: {Command.JSON} opens files that its parent names later")
    opener, confinement, last_words = _core(invocation, stack)
    confinement.require()
    conversation = stack.enter_context(rooms.json_conversation(sock, opener))
    return _converse(conversation, confinement, last_words)


def _converse(conversation: Conversation, confinement: _Confinement, last_words: Callable[[], None]) -> int:
    """Hold the conversation in this thread, and confine it once the first answer is out; the exit status."""
    with Watch(conversation, last_words) as watch:
        if conversation.begin():
            confinement.apply()
            watch.renew()
            conversation.run()
    return conversation.exit_status


def _explain(invocation: Invocation, stack: ExitStack) -> int:
    explanation = rooms.explain(invocation.reference, invocation.settings)
    status = _print(explanation.to_json() if invocation.json else explanation.to_text())
    return EXIT_FAILED if explanation.errors else status


def _fetch(invocation: Invocation, stack: ExitStack) -> int:
    destination = rooms.parse_destination(invocation.destination, invocation.reference)
    settings = invocation.settings._replace(partial_dir=None)  # the layout keeps its own parts
    opener, confinement, _ = _core(invocation._replace(settings=settings), stack)
    confinement.writable.append(destination.path)
    release_signals()  # what is written is good at any moment

    def confine() -> None:
        confinement.require()
        confinement.apply()

    watched = invocation.log_level < log.Level.SILENT and os.isatty(log.STDERR)
    said = rooms.fetch(
        opener, settings, invocation.reference, destination, every_platform=invocation.every_platform,
        terminal=log.STDERR if watched else None, confine=confine,
    )  # fmt: skip
    return _print(f"{said}\n")


class _Confinement:
    """Gives up what is not needed any more, once, off the critical path unless a level is required.

    Called by the main thread, which holds the conversation. What it starts from then on is confined as well; what ran
    before is not, until it ends, on a kernel that confines one thread at a time.
    """

    def __init__(
        self, invocation: Invocation, programs: HelperPrograms, sources: SourceOpener, opener: ImageOpener
    ) -> None:
        self._settings = invocation.settings
        self._command = invocation.command
        self._reference = invocation.reference
        self._programs = programs
        self._sources = sources
        self._opener = opener
        self.writable = [self._settings.tmpdir, *([self._settings.partial_dir] if self._settings.partial_dir else [])]
        self._applied = invocation.settings.sandbox.mode is SandboxMode.OFF

    def apply(self) -> None:
        """Confine this process, as far as the kernel lets us."""
        if not self._applied:
            self._confine()

    def require(self) -> None:
        """Confine now if a level is required. Raises UnsupportedError when it was not reached."""
        required = self._settings.sandbox.required
        if required is None or self._applied:
            return
        from .confine.sandbox import parse_level

        reached = self._confine()
        if reached < parse_level(required):
            self._applied = False  # a request that comes again is refused again
            raise UnsupportedError(
                f"--require-sandbox: expected level {required}, reached {reached.name.lower()}",
                code=ErrorCode.DEPENDENCY_MISSING,
            )

    def _confine(self) -> Level:
        from .confine.needs import why_unix_sockets
        from .confine.sandbox import Level, confine

        self._applied = True
        # A JSON parent names files later, and a store is spread over directories that only the source knows.
        named = (self._reference, *self._settings.local_sources)
        limited = self._command is Command.HTTP and not any(text.startswith("containers-storage:") for text in named)
        wanted = Level.FULL if limited else Level.WRITE
        writable, readable = self.writable, _read_later(self._reference, self._settings)
        try:
            self._confine_programs()
        except OSError as error:
            log.warning("sandbox: none, because the process that runs helpers cannot be started: %s", error.strerror)
            return Level.NONE
        why = why_unix_sockets(self._reference)
        if why:
            log.info("sandbox: unix sockets stay open to it: %s", why)
        reached = confine(wanted, writable=writable, readable=readable, unix_sockets=bool(why))
        log.info("sandbox: level %s", reached.name.lower())
        return reached

    def _confine_programs(self) -> None:
        """Let other programs be run by a process of its own, if any can be needed. Raises OSError."""
        from .confine.needs import may_ask_helpers, may_decompress, may_verify

        asked = may_ask_helpers(self._reference, self._settings)
        helpers = self._sources.credential_helpers() if asked else frozenset()
        needed = may_verify(self._opener.policy) or may_decompress(self._reference, self._settings)
        self._programs.confine(needed=needed or bool(helpers), helpers=helpers)


def _read_later(reference: str, settings: Settings) -> list[str]:
    """What may have to be read after the image is open: the image itself, certificates, access to further places."""
    from .hostconfig.paths import auth_files, certificate_directories
    from .model.reference import Transport, parse_image_reference

    paths = [settings.shared_blob_dir] if settings.shared_blob_dir else []
    remote = False
    for text in (reference, *settings.local_sources) if reference else ():
        parsed = parse_image_reference(text)
        if parsed.transport is Transport.DOCKER:
            remote = True
        elif parsed.transport is not Transport.DOCKER_DAEMON:
            paths += parsed.path.split(":") if parsed.transport is Transport.TARBALL else [parsed.path or "."]
    if remote:  # a mirror that is asked when another place breaks in the middle of a blob
        environment = settings.environment
        paths += [path for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if (path := environment.get(name))]
        certificates = certificate_directories("host", settings)
        paths += certificates if settings.cert_dir else map(os.path.dirname, certificates)
        paths += [file.path for file in auth_files(settings)[0]]
    return paths


def _core(invocation: Invocation, stack: ExitStack) -> tuple[ImageOpener, _Confinement, Callable[[], None]]:
    """The core with everything it is handed, closed with `stack`: settings, programs, clock, records.

    With it comes what must be done when the process ends from beside the conversation.
    """
    import time

    from .confine.remote import HelperPrograms
    from .image import ImageOpener
    from .transports import SourceOpener
    from .trust.evaluation import TrustTools

    hold_signals()  # before the first thread
    threading.stack_size(_STACK_SIZE)
    settings = invocation.settings
    programs = HelperPrograms(settings.environment.variables)
    stack.callback(programs.close)
    events, audit, close_records = _records(invocation, stack)
    tools = TrustTools(_read_key_file, programs.verify, time.time, lambda: None)  # each open puts its time in
    sources = SourceOpener(settings, events, programs)
    opener = ImageOpener(settings, sources, tools, lambda: _load_policy(settings), events=events, audit=audit)
    stack.callback(opener.close)

    def last_words() -> None:
        programs.abandon()
        close_records()

    return opener, _Confinement(invocation, programs, sources, opener), last_words


def _records(invocation: Invocation, stack: ExitStack) -> tuple[Events, Audit, Callable[[], None]]:
    """Where events and decisions are told, and what writes the last of them."""
    from .trust.evaluation import no_audit
    from .wire.fds import adopt_writer

    if invocation.events_fd is None and invocation.audit_fd is None and not invocation.journal:
        return NO_EVENTS, no_audit, lambda: None
    audit: Audit = no_audit
    records = rooms.records()
    stack.callback(records.close)
    if invocation.journal:
        records.add_journal()
    if invocation.events_fd is not None:
        records.add_events(adopt_writer(invocation.events_fd, "--events-fd"))
    if invocation.audit_fd is not None:
        descriptor = adopt_writer(invocation.audit_fd, "--audit-fd")
        audit = records.audit(descriptor, required=invocation.require_audit)
    return records.events(), audit, records.close


def _load_policy(settings: Settings) -> Policy:
    from .trust.policy import accept_anything_policy, parse_policy
    from .trust.requirements import PolicyReaders

    if settings.policy.source is PolicySource.ACCEPT_ANYTHING:
        return accept_anything_policy()
    from .hostconfig.paths import CONFIGURATION_LIMIT, policy_path, read_configuration

    path = policy_path(settings)
    readers = PolicyReaders.OWN if settings.policy.source is PolicySource.FILE else PolicyReaders.SHARED
    return parse_policy(read_configuration(path, CONFIGURATION_LIMIT), path, readers)


def _read_key_file(path: str) -> bytes:
    from .hostconfig.paths import KEY_LIMIT, read_configuration

    return read_configuration(path, KEY_LIMIT)


_COMMANDS: Mapping[Command, Callable[[Invocation, ExitStack], int]] = {
    Command.HTTP: _serve_http,
    Command.JSON: _serve_json,
    Command.EXPLAIN: _explain,
    Command.FETCH: _fetch,
}

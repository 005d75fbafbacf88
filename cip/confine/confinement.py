# SPDX-License-Identifier: Apache-2.0
"""What one run of the program gives up, once configuration, credentials and descriptors are in hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from .. import log
from ..errors import ErrorCode, UnsupportedError, system_reason
from ..settings import Settings

if TYPE_CHECKING:
    from typing import Protocol

    from ..hostconfig.authfile import DescriptorFiles
    from ..programs import DirectPrograms, GpgvResult, ProgramResult
    from ..trust.policy import Policy
    from .remote import Process
    from .sandbox import Level

    class Session(Protocol):
        """What this needs of `registry.session.RegistrySession`."""

        descriptor_files: DescriptorFiles

    class Sources(Protocol):
        """What this needs of `transports.SourceOpener`."""

        def registry_session(self) -> Session: ...

        def before_confinement(self) -> None: ...


_RENEWED = ("events", "audit", "hang-up", "signals")  # threads that confine themselves or begin again
_END_SECONDS = 0.2  # for a thread of before to end
_WRITER_SECONDS = 1.0  # for a thread that writes records to confine itself; one whose reader is stuck is told of
InWriters = Callable[[Callable[[], object], float], bool]  # runs a call in each thread that writes records, in so long


class HelperPrograms:
    """Runs programs directly until `confine`, and through helper processes, where there are some, from then on.

    What does either is loaded when it is asked for.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._lock = threading.Lock()
        self._direct: DirectPrograms | None = None
        self._confined = self._ended = False
        self._tools: Process | None = None
        self._credentials: Process | None = None

    def confine(self, *, needed: bool, helpers: Iterable[str] = ()) -> None:
        """Run nothing directly any more; start a helper process if gpgv or zstd can be `needed`. Raises OSError.

        Another one asks the credential helpers `helpers`; further ones are refused from now on.
        """
        named = sorted(helpers)
        if self._confined or not (needed or named):
            self._confined = True
            return
        from .remote import Process

        if needed:
            self._tools = Process((), {})
        if named:
            # Their environment may hold secrets: it travels in memory.
            self._credentials = Process(named, self._variables)
        self._confined = True

    @property
    def pids(self) -> tuple[int, ...]:
        """The numbers of the helper processes."""
        return tuple(each.pid for each in (self._tools, self._credentials) if each is not None)

    def close(self) -> None:
        """End the helper processes, with all that they run, and reap them."""
        processes = [each for each in (self._tools, self._credentials) if each is not None]
        if processes:
            from .remote import close

            close(processes)

    def abandon(self) -> None:
        """Kill what runs in this process's own name; a helper process sees our end by itself. From any thread."""
        with self._lock:
            self._ended = True
            if self._direct is not None:
                self._direct.abandon()

    def verify(self, keyring: bytes, message: bytes) -> GpgvResult:
        """As `Programs.verify` says."""
        if not self._confined:
            return self._directly().verify(keyring, message)
        from .remote import verify

        return verify(self._tools, keyring, message)

    def decompress(self, source: int, output: int, seconds: float, *, purpose: str) -> int:
        """As `Programs.decompress` says."""
        if not self._confined:
            return self._directly().decompress(source, output, seconds, purpose=purpose)
        from .remote import decompress

        return decompress(self._tools, source, output, seconds, purpose)

    def credentials(self, helper: str, registry: str, *, purpose: str) -> ProgramResult:
        """As `Programs.credentials` says."""
        if not self._confined:
            return self._directly().credentials(helper, registry, purpose=purpose)
        from .remote import credentials

        return credentials(self._credentials, helper, registry, purpose)

    def _directly(self) -> DirectPrograms:
        from ..programs import DirectPrograms

        with self._lock:
            if self._direct is None:
                self._direct = DirectPrograms(self._variables)
                if self._ended:
                    self._direct.abandon()  # nothing is started any more
            return self._direct


class Confinement:
    """Gives up what is not needed any more, once; to be called by the main thread, which holds the conversation.

    `reference` is empty where the parent names images later; with `limited_reads` what else is read is known before,
    but for stores. `writable` are the directories that stay so. What is started from then on is confined as well.
    Threads that were there before are included by kernels that know how; on others those that write records confine
    themselves, and those that stand beside the caller begin again by `renew`.
    """

    def __init__(self, settings: Settings, reference: str, *, limited_reads: bool) -> None:
        self.programs = HelperPrograms(settings.environment.variables)
        self.writable = [settings.tmpdir, *([settings.partial_dir] if settings.partial_dir else [])]
        self._limited_reads = limited_reads
        self._settings = settings
        self._reference = reference
        self._applied = not settings.sandbox
        self._sources: Sources | None = None
        self._policy: Callable[[], Policy | None] = lambda: None
        self._in_writers: InWriters | None = None
        self.renew: Callable[[], object] = tuple  # begins again the threads that stand beside the caller

    def know(self, sources: Sources, policy: Callable[[], Policy | None], in_writers: InWriters | None) -> None:
        """Told whom to ask what may still be needed, and how to reach the threads that write records."""
        self._sources, self._policy, self._in_writers = sources, policy, in_writers

    def apply(self) -> None:
        """Confine this process, as far as the kernel lets us."""
        if not self._applied:
            self._confine()

    def require(self) -> None:
        """Confine now if a level is required. Raises UnsupportedError when it was not reached."""
        required = self._settings.require_sandbox
        if required is None or self._applied:
            return
        from .sandbox import parse_level

        if self._sources is not None:
            self._sources.before_confinement()
        if outside := _at_work():  # seen before anything is given up, so that a request that comes again may be served
            why = f"expected level {required}, found a thread of before at work outside it: {outside}; ask again later"
            raise UnsupportedError(f"--require-sandbox: {why}", code=ErrorCode.DEPENDENCY_MISSING)
        reached = self._confine()
        if reached < parse_level(required):
            self._applied = False  # a request that comes again is refused again
            raise UnsupportedError(
                f"--require-sandbox: expected level {required}, reached {reached.name.lower()}",
                code=ErrorCode.DEPENDENCY_MISSING,
            )

    def _confine(self) -> Level:
        # here and below, because nobody waits any more when this is called
        from .needs import read_later, why_unix_sockets
        from .sandbox import Level, confine

        self._applied = True
        # A store is spread over directories that only the source knows.
        named = (self._reference, *self._settings.local_sources)
        limited = self._limited_reads and not any(text.startswith("containers-storage:") for text in named)
        wanted = Level.FULL if limited else Level.WRITE
        writable, readable = self.writable, read_later(self._reference, self._settings)
        try:
            self._confine_programs()
        except OSError as error:
            log.warning(
                "sandbox: none, because the process that runs helpers cannot be started: %s", system_reason(error)
            )
            return Level.NONE
        outside = _at_work()
        why = why_unix_sockets(self._reference)
        if why:
            log.info("sandbox: unix sockets stay open to it: %s", why)
        give_up = partial(confine, writable=writable, readable=readable, unix_sockets=bool(why))
        reached = give_up(wanted)
        in_writers = self._in_writers if reached > Level.NONE else None
        if in_writers is not None and not in_writers(partial(give_up, reached), _WRITER_SECONDS):
            log.warning("sandbox: a thread that writes records stays outside, until its reader reads")
        self.renew()
        if outside and reached > Level.NONE:
            log.warning("sandbox: none, because a thread of before is still at work outside: %s", outside)
            reached = Level.NONE
        log.info("sandbox: level %s", reached.name.lower())
        return reached

    def _confine_programs(self) -> None:
        """Let other programs be run by a process of its own, if any can be needed. Raises OSError."""
        from .needs import helpers_of, may_ask_helpers, may_decompress, may_verify

        helpers: frozenset[str] = frozenset()
        if self._sources is not None:
            self._sources.before_confinement()  # a thread that began before would stay outside
        if self._sources is not None and may_ask_helpers(self._reference, self._settings):
            helpers = helpers_of(self._settings, self._sources.registry_session().descriptor_files)
        needed = may_verify(self._policy()) or may_decompress(self._reference, self._settings)
        self.programs.confine(needed=needed, helpers=helpers)


def _at_work() -> str:
    """Which threads of before go on and would stay outside: a name server may keep one waiting for long."""
    before = [each for each in threading.enumerate() if each.name not in _RENEWED]
    before.remove(threading.current_thread())
    for each in before:
        each.join(_END_SECONDS)
    return ", ".join(sorted(each.name for each in before if each.is_alive()))

# SPDX-License-Identifier: Apache-2.0
"""The command line: one table of options, and argv to values by it.

Not argparse: it costs a tenth of the time a parent waits for a manifest, takes `--tls-verify IMAGE` for an option
with a value where skopeo takes an option and an image, and answers a mistake with several lines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, TypeVar

from . import __version__
from .errors import UsageError, quote
from .log import PROGRAM, Level
from .settings import (
    CredentialOptions,
    HostEnvironment,
    PlatformOptions,
    PolicyOptions,
    PolicySource,
    RetryOptions,
    SandboxMode,
    SandboxOptions,
    Settings,
    TimeLimits,
    TlsVerify,
    TransferLimits,
)


class Command(StrEnum):
    """What the process does; the value is the word on the command line, empty for the HTTP interface."""

    HTTP = ""
    JSON = "experimental-image-proxy"
    EXPLAIN = "explain"
    FETCH = "fetch"


class Kind(StrEnum):
    """How an option's value is written."""

    FLAG = "flag"  # present or absent, `--x=false` allowed
    TEXT = "text"
    TEXTS = "texts"  # may be repeated
    NUMBER = "number"  # an integer from 0
    SIZE = "size"  # bytes, with k, M or G (1024)
    TIME = "time"  # seconds, or 1m30s
    LEVEL = "level"  # optional value behind `=`


class Option(NamedTuple):
    """A row of the table. `help` is one line; options without one are accepted, not advertised."""

    name: str
    kind: Kind
    metavar: str
    help: str


OPTIONS: tuple[Option, ...] = (
    Option("sockfd", Kind.NUMBER, "N", "serve the socket that is descriptor N (default: stdin and stdout)"),
    Option("quiet", Kind.FLAG, "", "write nothing to stderr"),
    Option("version", Kind.FLAG, "", "print the version"),
    Option("help", Kind.FLAG, "", "print this text"),
    Option("debug", Kind.FLAG, "", "the same as --log-level=debug"),
    Option("log-level", Kind.TEXT, "LEVEL", "debug, info, warning or error (default: warning)"),
    Option("json", Kind.FLAG, "", "explain: print JSON"),
    Option("all", Kind.FLAG, "", "fetch: every platform of an index"),
    Option("policy", Kind.TEXT, "FILE", "signature policy instead of the host's policy.json"),
    Option("insecure-policy", Kind.FLAG, "", "accept any image, read no policy"),
    Option("require-signed", Kind.FLAG, "", "refuse images that no signature was verified for"),
    Option("authfile", Kind.TEXT, "FILE", "credentials, instead of the places that podman uses"),
    Option("creds", Kind.TEXT, "USER[:PASS]", "credentials for the registry"),
    Option("username", Kind.TEXT, "USER", "the same, with --password"),
    Option("password", Kind.TEXT, "PASS", "the same, with --username"),
    Option("registry-token", Kind.TEXT, "TOKEN", "bearer token for the registry"),
    Option("no-creds", Kind.FLAG, "", "be anonymous"),
    Option("cert-dir", Kind.TEXT, "DIR", "CA (*.crt) and client certificates (*.cert, *.key)"),
    Option("tls-verify", Kind.FLAG, "", "verify TLS; =false also allows plain HTTP"),
    Option("registries-conf", Kind.TEXT, "FILE", "instead of the host's registries.conf"),
    Option("registries.d", Kind.TEXT, "DIR", "where signatures are found, instead of the host's"),
    Option("override-os", Kind.TEXT, "OS", "choose this platform from an index"),
    Option("override-arch", Kind.TEXT, "ARCH", "choose this platform from an index"),
    Option("override-variant", Kind.TEXT, "VARIANT", "choose this platform from an index"),
    Option("tmpdir", Kind.TEXT, "DIR", "for compressed archives (default: /var/tmp)"),
    Option("shared-blob-dir", Kind.TEXT, "DIR", "oci: where the blobs are"),
    Option("daemon-host", Kind.TEXT, "URL", "docker-daemon: its socket"),
    Option("local-source", Kind.TEXTS, "REF", "docker: take blobs from here first (repeatable)"),
    Option("offline", Kind.FLAG, "", "docker: use --local-source only, never the network"),
    Option("connect-timeout", Kind.TIME, "TIME", "to connect (15)"),
    Option("idle-timeout", Kind.TIME, "TIME", "without a byte (20)"),
    Option("open-timeout", Kind.TIME, "TIME", "to open an image (180)"),
    Option("stall-timeout", Kind.TIME, "TIME", "without progress of a blob, over all places (110)"),
    Option("min-rate", Kind.SIZE, "SIZE", "bytes a second below which a blob has stalled (1024)"),
    Option("deadline", Kind.TIME, "TIME", "for one request, all in all (0: none)"),
    Option("retry-times", Kind.NUMBER, "N", "repeats per place (4)"),
    Option("retry-delay", Kind.TIME, "TIME", "fixed delay before a repeat (doubles from 0.5)"),
    Option("max-rate", Kind.SIZE, "SIZE", "bytes a second from the network (0: no limit)"),
    Option("max-bytes", Kind.SIZE, "SIZE", "bytes from the network in all (0: no limit)"),
    Option("connections", Kind.NUMBER, "N", "connections per registry (64)"),
    Option("read-ahead", Kind.SIZE, "SIZE", "per blob while the parent is busy (8M, 0: none)"),
    Option("partial-dir", Kind.TEXT, "DIR", "keep what arrived of large blobs here, for the next run"),
    Option("partial-limit", Kind.SIZE, "SIZE", "of all that is kept there (4G, 0: no limit)"),
    Option("audit-fd", Kind.NUMBER, "N", "write trust decisions to this descriptor, as JSON lines"),
    Option("require-audit", Kind.FLAG, "", "serve no image whose decision was not written to --audit-fd"),
    Option("events-fd", Kind.NUMBER, "N", "write progress to this descriptor, as JSON lines"),
    Option("journal", Kind.FLAG, "", "tell the systemd journal of faults and decisions"),
    Option("sandbox", Kind.TEXT, "MODE", "auto or off (default: auto)"),
    Option("require-sandbox", Kind.LEVEL, "[=LEVEL]", "fail unless confined: process, write or full"),
    Option("user-agent-prefix", Kind.TEXT, "TEXT", "in front of the user agent"),
    Option("command-timeout", Kind.TIME, "TIME", ""),
    Option("decryption-key", Kind.TEXTS, "KEY", ""),
    Option("tls-details", Kind.TEXT, "FILE", ""),
)
T = TypeVar("T")
_BY_NAME = {option.name: option for option in OPTIONS}
_SHORT = {"-q": "--quiet", "-h": "--help", "-v": "--version"}

# how many words stand behind a command, and what they are
_ARGUMENTS = {
    Command.HTTP: (1, "one image name"), Command.JSON: (0, "no argument"), Command.EXPLAIN: (1, "one image name"),
    Command.FETCH: (2, "an image name and oci:DIR[:TAG]"),
}  # fmt: skip
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
TIME_LIMIT = 1_000_000.0  # seconds; waiting calls of the kernel take no more than 24 days
TIMEOUT_MINIMUM = 0.001  # seconds; 0 would fail at once, and whoever writes it wants the opposite
_SIZE = re.compile(r"([0-9]{1,18})([kKMG]?)(?:i?B)?", re.ASCII)
_SIZE_UNITS = {"": 1, "k": 1024, "K": 1024, "M": 1024**2, "G": 1024**3}
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", re.ASCII)
_DURATION = re.compile(
    r"(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)s)?(?:([0-9]{1,9})ms)?", re.ASCII
)
_LEVELS = {
    "debug": Level.DEBUG, "info": Level.INFO, "warning": Level.WARNING, "warn": Level.WARNING, "error": Level.ERROR,
}  # fmt: skip


class Invocation(NamedTuple):
    """A parsed command line. `answer` is text for stdout (then exit 0), such as `--help` asks for."""

    command: Command
    settings: Settings
    reference: str = ""
    destination: str = ""
    sockfd: int | None = None
    audit_fd: int | None = None
    require_audit: bool = False
    events_fd: int | None = None
    journal: bool = False
    json: bool = False
    every_platform: bool = False
    log_level: Level = Level.WARNING
    warnings: tuple[str, ...] = ()
    answer: str | None = None


def parse_arguments(arguments: Sequence[str], program: str, environment: HostEnvironment) -> Invocation:
    """The command line `arguments` (without the program's name `program`) as values. Raises UsageError."""
    values, words = _split(arguments)
    if values.flag("help"):
        return Invocation(Command.HTTP, Settings(), answer=help_text())
    if values.flag("version"):
        return Invocation(Command.HTTP, Settings(), answer=f"{__version__}\n")
    command = Command.HTTP
    if words and words[0] in (Command.JSON, Command.EXPLAIN, Command.FETCH):
        command = Command(words.pop(0))
    elif program == "skopeo":
        raise UsageError(
            f"this is {PROGRAM} {__version__} under the name skopeo: it has the command {Command.JSON} and no other"
        )
    expected, what = _ARGUMENTS[command]
    if len(words) != expected:
        raise UsageError(f"{command or PROGRAM}: expected {what}, found {len(words)}; see --help")
    if values.flag("json") and command is not Command.EXPLAIN:
        raise UsageError("--json: expected together with explain")
    if values.flag("all") and command is not Command.FETCH:
        raise UsageError("--all: expected together with fetch")
    if values.flag("require-audit") and not values.given("audit-fd"):
        raise UsageError("--require-audit: expected together with --audit-fd")
    _require_own_descriptors(command, values)
    return Invocation(
        command,
        _settings(values, environment),
        words[0] if words else "",
        destination=words[1] if len(words) > 1 else "",
        sockfd=values.number("sockfd"),
        audit_fd=values.number("audit-fd"),
        require_audit=values.flag("require-audit"),
        events_fd=values.number("events-fd"),
        journal=values.flag("journal"),
        json=values.flag("json"),
        every_platform=values.flag("all"),
        log_level=_log_level(values),
        warnings=_warnings(values),
    )


def _require_own_descriptors(command: Command, values: _Values) -> None:
    """Return unless two streams share a descriptor: their bytes would mix, on the parent's connection of all places."""
    taken: dict[int, str] = {}
    if not values.given("sockfd"):
        taken = dict.fromkeys((0,) if command is Command.JSON else (0, 1), "the parent's requests")
    for name in ("sockfd", "audit-fd", "events-fd"):
        number = values.number(name)
        if number is None:
            continue
        if number in taken:
            raise UsageError(f"--{name} {number}: expected a descriptor of its own, found that of {taken[number]}")
        taken[number] = f"--{name}"


def help_text() -> str:
    """What `--help` prints."""
    lines = [
        f"usage: {PROGRAM} [--sockfd N] [OPTIONS] IMAGE",
        f"       {PROGRAM} {Command.JSON} [--sockfd N] [OPTIONS]",
        f"       {PROGRAM} {Command.EXPLAIN} [--json] [OPTIONS] IMAGE",
        f"       {PROGRAM} {Command.FETCH} [--all] [OPTIONS] IMAGE oci:DIR[:TAG]",
        "",
        "Serve a container image to a parent process, explain how it is found, or fetch it into a layout.",
        "",
    ]
    for option in OPTIONS:
        if option.help:
            glue = "" if option.kind is Kind.LEVEL else " "
            left = f"--{option.name}{glue}{option.metavar}".rstrip()
            lines.append(f"  {left:<29} {option.help}")
    return "\n".join([*lines, ""])


class _Values:
    """Options as given: name to texts, in order."""

    def __init__(self) -> None:
        self._given: dict[str, list[str]] = {}

    def add(self, name: str, text: str) -> None:
        """Note one occurrence."""
        self._given.setdefault(name, []).append(text)

    def text(self, name: str) -> str | None:
        """The last value, None when the option is absent."""
        return self._given[name][-1] if name in self._given else None

    def texts(self, name: str) -> tuple[str, ...]:
        """All values, in order."""
        return tuple(self._given.get(name, ()))

    def flag(self, name: str) -> bool:
        """Whether the flag is set."""
        return self.switch(name) is True

    def switch(self, name: str) -> bool | None:
        """The flag's value, None when it is absent."""
        text = self.text(name)
        if text is None:
            return None
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        raise UsageError(f"--{name}: expected true or false, found {quote(text)}")

    def number(self, name: str) -> int | None:
        """The integer, None when the option is absent."""
        text = self.text(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= 9):
            raise UsageError(f"--{name}: expected a number from 0, found {quote(text)}")
        return int(text)

    def size(self, name: str, default: int) -> int:
        """Bytes."""
        text = self.text(name)
        if text is None:
            return default
        match = _SIZE.fullmatch(text)
        if match is None:
            raise UsageError(f"--{name}: expected bytes, such as 4096, 64k or 8M, found {quote(text)}")
        return int(match[1]) * _SIZE_UNITS[match[2]]

    def seconds(self, name: str, default: float, *, least: float = 0.0) -> float:
        """Seconds, from `least` to TIME_LIMIT."""
        text = self.text(name)
        if text is None:
            return default
        seconds = parse_duration(text, f"--{name}")
        if not least <= seconds <= TIME_LIMIT:
            raise UsageError(f"--{name}: expected a time from {least:g} s to {TIME_LIMIT:.0f} s, found {quote(text)}")
        return seconds

    def given(self, name: str) -> bool:
        """Whether the option is present."""
        return name in self._given


def parse_duration(text: str, where: str) -> float:
    """Seconds, written as `90`, `1.5` or `1m30s`. Raises UsageError naming `where`."""
    if _SECONDS.fullmatch(text):
        return float(text)
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise UsageError(f"{where}: expected a time, such as 20 or 1m30s, found {quote(text)}")
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def _split(arguments: Sequence[str]) -> tuple[_Values, list[str]]:
    """Options, wherever they stand, apart from the other words; everything behind `--` is a word."""
    values = _Values()
    words: list[str] = []
    pending = list(reversed(arguments))
    while pending:
        argument = pending.pop()
        argument = _SHORT.get(argument, argument)
        if argument == "--":
            words.extend(reversed(pending))
            break
        if not argument.startswith("-") or argument == "-":
            words.append(argument)
            continue
        name, equals, text = argument[2:].partition("=")
        option = _BY_NAME.get(name) if argument.startswith("--") else None
        if option is None:
            raise UsageError(f"unknown option {quote(argument.partition('=')[0])}; see --help")
        if option.kind in (Kind.FLAG, Kind.LEVEL):
            values.add(name, text if equals else ("true" if option.kind is Kind.FLAG else ""))
        elif equals:
            values.add(name, text)
        elif pending:
            values.add(name, pending.pop())
        else:
            raise UsageError(f"--{name}: expected a value behind it")
    return values, words


def _settings(values: _Values, environment: HostEnvironment) -> Settings:
    times = TimeLimits()
    transfer = TransferLimits()
    prefix = values.text("user-agent-prefix") or ""
    if any(ord(letter) < 32 or ord(letter) > 126 for letter in prefix):
        raise UsageError("--user-agent-prefix: expected printable ASCII text")
    return Settings(
        environment=environment,
        policy=_policy(values),
        credentials=_credentials(values, environment),
        platform=PlatformOptions(
            os=values.text("override-os") or None,
            architecture=values.text("override-arch") or None,
            variant=values.text("override-variant") or None,
        ),
        times=times._replace(
            connect=values.seconds("connect-timeout", times.connect, least=TIMEOUT_MINIMUM),
            idle=values.seconds("idle-timeout", times.idle, least=TIMEOUT_MINIMUM),
            open=values.seconds("open-timeout", times.open, least=TIMEOUT_MINIMUM),
            stall=values.seconds("stall-timeout", times.stall, least=TIMEOUT_MINIMUM),
            deadline=values.seconds("deadline", times.deadline),
        ),
        retry=RetryOptions(
            _or(values.number("retry-times"), RetryOptions().times),
            values.seconds("retry-delay", 0.0) if values.given("retry-delay") else None,
        ),
        transfer=TransferLimits(
            min_rate=values.size("min-rate", transfer.min_rate),
            max_rate=values.size("max-rate", transfer.max_rate),
            max_bytes=values.size("max-bytes", transfer.max_bytes),
            connections=max(1, _or(values.number("connections"), transfer.connections)),
            read_ahead=values.size("read-ahead", transfer.read_ahead),
            partial_limit=values.size("partial-limit", transfer.partial_limit),
        ),
        tls_verify=_tls_verify(values),
        cert_dir=values.text("cert-dir") or None,
        registries_conf=values.text("registries-conf") or None,
        registries_d=values.text("registries.d") or None,
        tmpdir=values.text("tmpdir") or Settings().tmpdir,
        partial_dir=values.text("partial-dir") or None,
        shared_blob_dir=values.text("shared-blob-dir") or None,
        daemon_host=values.text("daemon-host") or None,
        local_sources=values.texts("local-source"),
        offline=values.flag("offline"),
        sandbox=_sandbox(values),
        decryption_keys=values.given("decryption-key"),
        user_agent=" ".join(part for part in (prefix, f"{PROGRAM}/{__version__}") if part),
    )


def _policy(values: _Values) -> PolicyOptions:
    path = values.text("policy") or ""
    signed = values.flag("require-signed")
    if values.flag("insecure-policy"):
        if signed:
            raise UsageError("--require-signed contradicts --insecure-policy: expected one of them")
        return PolicyOptions(PolicySource.ACCEPT_ANYTHING)
    return PolicyOptions(PolicySource.FILE if path else PolicySource.HOST, path, signed)


def _credentials(values: _Values, environment: HostEnvironment) -> CredentialOptions:
    authfile = values.text("authfile")
    if authfile is None:
        authfile = environment.get("REGISTRY_AUTH_FILE")
    return CredentialOptions(
        authfile=authfile or None,
        creds=values.text("creds"),
        username=values.text("username"),
        password=values.text("password"),
        registry_token=values.text("registry-token") or None,
        no_creds=values.flag("no-creds"),
    )


def _tls_verify(values: _Values) -> TlsVerify:
    switch = values.switch("tls-verify")
    if switch is None:
        return TlsVerify.UNSET
    return TlsVerify.REQUIRED if switch else TlsVerify.DISABLED


def _sandbox(values: _Values) -> SandboxOptions:
    mode = _choice(values, "sandbox", {mode.value: mode for mode in SandboxMode}, SandboxMode.AUTO)
    required = values.text("require-sandbox")
    if required is not None and required not in ("", "process", "write", "full"):
        raise UsageError(f"--require-sandbox: expected process, write or full, found {quote(required)}")
    if required is not None and mode is SandboxMode.OFF:
        raise UsageError("--require-sandbox contradicts --sandbox=off: expected one of them")
    return SandboxOptions(mode, None if required is None else required or "process")


def _log_level(values: _Values) -> Level:
    if values.flag("quiet"):
        return Level.SILENT
    if values.flag("debug"):
        return Level.DEBUG
    return _choice(values, "log-level", _LEVELS, Level.WARNING)


def _choice(values: _Values, name: str, choices: Mapping[str, T], default: T) -> T:
    text = values.text(name)
    if text is None:
        return default
    if text not in choices:
        raise UsageError(f"--{name}: expected one of {', '.join(choices)}, found {quote(text)}")
    return choices[text]


def _warnings(values: _Values) -> tuple[str, ...]:
    ignored: Sequence[tuple[str, str]] = (
        ("command-timeout", "it has no effect here: see --deadline and --open-timeout"),
        ("tls-details", "it is not supported: TLS 1.2 and later with the default suites is used"),
    )
    return tuple(f"--{name} is ignored: {why}" for name, why in ignored if values.given(name))


def _or(number: int | None, default: int) -> int:
    return default if number is None else number

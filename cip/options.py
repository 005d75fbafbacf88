# SPDX-License-Identifier: Apache-2.0
"""The command line: one table of options, and argv to values by argparse.

argv is split before argparse sees it, which would let a bare `--tls-verify` take the image for its value where skopeo
takes an option and an image, refuse a value that begins with a dash, and repeat an unknown option with its value, which
may be a secret. The help is made from the table, because argparse shows a value that stands behind `=` only as if a
blank could stand there.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, NoReturn, TypeVar

from . import __version__, rooms
from .errors import UsageError, quote_own
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
    ASCII = "ascii"  # printable
    NUMBER = "number"  # an integer from 0
    SIZE = "size"  # bytes, with k, M or G (1024)
    TIME = "time"  # seconds, or 1m30s
    TIMEOUT = "timeout"  # the same, above 0
    LOG_LEVEL = "log level"
    MODE = "mode"  # of the sandbox
    LEVEL = "level"  # of the sandbox, optional behind `=`


class Option(NamedTuple):
    """A row of the table. `help` is one line; options without one are accepted, not advertised."""

    name: str
    kind: Kind
    metavar: str
    help: str


# by what they are about; the first group is what `--help` shows
GROUPS: tuple[tuple[str, tuple[Option, ...]], ...] = (
    ("Common", (
        Option("sockfd", Kind.NUMBER, "N", "serve the socket that is descriptor N (default: stdin and stdout)"),
        Option("policy", Kind.TEXT, "FILE", "signature policy instead of the host's policy.json"),
        Option("insecure-policy", Kind.FLAG, "", "accept any image, read no policy"),
        Option("authfile", Kind.TEXT, "FILE", "credentials, instead of the places that podman uses"),
        Option("creds", Kind.TEXT, "USER[:PASS]", "credentials for the registry"),
        Option("tls-verify", Kind.FLAG, "", "verify TLS; =false also allows plain HTTP"),
        Option("cert-dir", Kind.TEXT, "DIR", "CA (*.crt) and client certificates (*.cert, *.key)"),
        # the Rust crate containers-image-proxy looks for it in the help, and uses it where it is
        Option("user-agent-prefix", Kind.ASCII, "TEXT", "in front of the user agent"),
        Option("quiet", Kind.FLAG, "", "write nothing to stderr"),
        Option("debug", Kind.FLAG, "", "the same as --log-level=debug"),
        Option("version", Kind.FLAG, "", "print the version, and what this copy has"),
        Option("help", Kind.FLAG, "", "print this text; --help all prints every option"),
    )),
    ("Trust", (
        Option("require-signed", Kind.FLAG, "", "refuse images that no signature was verified for"),
        Option("audit-fd", Kind.NUMBER, "N", "write trust decisions to this descriptor, as JSON lines"),
        Option("require-audit", Kind.FLAG, "", "serve no image whose decision was not written to --audit-fd"),
    )),
    ("Access to registries", (
        Option("username", Kind.TEXT, "USER", "the same, with --password"),
        Option("password", Kind.TEXT, "PASS", "the same, with --username"),
        Option("registry-token", Kind.TEXT, "TOKEN", "bearer token for the registry"),
        Option("no-creds", Kind.FLAG, "", "be anonymous"),
        Option("registries-conf", Kind.TEXT, "FILE", "instead of the host's registries.conf"),
        Option("registries.d", Kind.TEXT, "DIR", "where signatures are found, instead of the host's"),
    )),
    ("Which image, and from where", (
        Option("override-os", Kind.TEXT, "OS", "choose this platform from an index"),
        Option("override-arch", Kind.TEXT, "ARCH", "choose this platform from an index"),
        Option("override-variant", Kind.TEXT, "VARIANT", "choose this platform from an index"),
        Option("require-platform", Kind.FLAG, "", "refuse an image whose config is for another platform"),
        Option("local-source", Kind.TEXTS, "REF", "docker: take blobs from here first (repeatable)"),
        Option("offline", Kind.FLAG, "", "docker: use --local-source only, never the network"),
        Option("shared-blob-dir", Kind.TEXT, "DIR", "oci: where the blobs are"),
        Option("daemon-host", Kind.TEXT, "URL", "docker-daemon: its socket"),
    )),
    ("Time and repeats", (
        Option("connect-timeout", Kind.TIMEOUT, "TIME", "to connect (15)"),
        Option("idle-timeout", Kind.TIMEOUT, "TIME", "without a byte (20)"),
        Option("open-timeout", Kind.TIMEOUT, "TIME", "to open an image (180)"),
        Option("stall-timeout", Kind.TIMEOUT, "TIME", "without progress of a blob, over all places (110)"),
        Option("deadline", Kind.TIME, "TIME", "for one request, all in all (0: none)"),
        Option("min-rate", Kind.SIZE, "SIZE", "bytes a second below which a blob has stalled (1024)"),
        Option("retry-times", Kind.NUMBER, "N", "repeats per place (4)"),
        Option("retry-delay", Kind.TIME, "TIME", "fixed delay before a repeat (doubles from 0.5)"),
    )),
    ("Amounts", (
        Option("max-rate", Kind.SIZE, "SIZE", "bytes a second from the network (0: no limit)"),
        Option("max-bytes", Kind.SIZE, "SIZE", "bytes from the network in all (0: no limit)"),
        Option("connections", Kind.NUMBER, "N", "connections per registry (64)"),
        Option("read-ahead", Kind.SIZE, "SIZE", "per blob while the parent is busy (8M, 0: none)"),
        Option("tmpdir", Kind.TEXT, "DIR", "for compressed archives (default: /var/tmp)"),
        Option("tmp-limit", Kind.SIZE, "SIZE", "of all temporary files (16G)"),
        Option("partial-dir", Kind.TEXT, "DIR", "keep what arrived of large blobs here, for the next run"),
        Option("partial-limit", Kind.SIZE, "SIZE", "of all that is kept there (4G, 0: no limit)"),
    )),
    ("Confinement", (
        Option("sandbox", Kind.MODE, "MODE", "auto or off (default: auto)"),
        Option("require-sandbox", Kind.LEVEL, "[=LEVEL]", "fail unless confined: process, write or full"),
    )),
    ("What is told", (
        Option("log-level", Kind.LOG_LEVEL, "LEVEL", "debug, info, warning or error (default: warning)"),
        Option("events-fd", Kind.NUMBER, "N", "write progress to this descriptor, as JSON lines"),
        Option("journal", Kind.FLAG, "", "tell the systemd journal of faults and decisions"),
    )),
    ("Of one command", (
        Option("json", Kind.FLAG, "", "explain: print JSON"),
        Option("all", Kind.FLAG, "", "fetch: every platform of an index"),
    )),
    ("", (
        Option("command-timeout", Kind.TIME, "TIME", ""),
        Option("decryption-key", Kind.TEXTS, "KEY", ""),
        Option("tls-details", Kind.TEXT, "FILE", ""),
    )),
)  # fmt: skip
OPTIONS = tuple(option for _, group in GROUPS for option in group)
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
    if program == "skopeo":
        _require_own_command(arguments)
    options, words = _split(arguments)
    values = _Parser().values_of(options)
    if values["help"]:
        return Invocation(Command.HTTP, Settings(), answer=help_text(everything="all" in words))
    if values["version"]:
        return Invocation(Command.HTTP, Settings(), answer=version_text())
    command = Command.HTTP
    if words and words[0] in (Command.JSON, Command.EXPLAIN, Command.FETCH):
        command = Command(words.pop(0))
    rooms.require_words([command, *(f"--{name}" for name, value in values.items() if value)])
    expected, what = _ARGUMENTS[command]
    if len(words) != expected:
        raise UsageError(f"{command or PROGRAM}: expected {what}, found {len(words)}; see --help")
    if values["json"] and command is not Command.EXPLAIN:
        raise UsageError("--json: expected together with explain")
    if values["all"] and command is not Command.FETCH:
        raise UsageError("--all: expected together with fetch")
    if values["require-audit"] and values["audit-fd"] is None:
        raise UsageError("--require-audit: expected together with --audit-fd")
    _require_own_descriptors(command, values)
    return Invocation(
        command,
        _settings(values, environment),
        words[0] if words else "",
        destination=words[1] if len(words) > 1 else "",
        sockfd=values["sockfd"],
        audit_fd=values["audit-fd"],
        require_audit=bool(values["require-audit"]),
        events_fd=values["events-fd"],
        journal=bool(values["journal"]),
        json=bool(values["json"]),
        every_platform=bool(values["all"]),
        log_level=_log_level(values),
        warnings=_warnings(values),
    )


def _require_own_command(arguments: Sequence[str]) -> None:
    """Return unless a command of skopeo is asked for, with whatever options it has there; none of ours is by its name.

    Raises UsageError.
    """
    pending = list(reversed(arguments))
    while pending:
        argument = pending.pop()
        if not argument.startswith("-"):
            if argument == Command.JSON:
                return
            raise UsageError(
                f"this is {PROGRAM} {__version__} under the name skopeo: expected {Command.JSON}, the one command that"
                f" it has there, found {quote_own(argument)}; install skopeo for the others"
            )
        option = _BY_NAME.get(argument[2:])
        if option is not None and option.kind not in (Kind.FLAG, Kind.LEVEL) and pending:
            pending.pop()


def _require_own_descriptors(command: Command, values: Mapping[str, Any]) -> None:
    """Return unless two streams share a descriptor: their bytes would mix, on the parent's connection of all places."""
    taken: dict[int, str] = {}
    if values["sockfd"] is None:
        taken = dict.fromkeys((0,) if command is Command.JSON else (0, 1), "the parent's requests")
    for name in ("sockfd", "audit-fd", "events-fd"):
        number = values[name]
        if number is None:
            continue
        if number in taken:
            raise UsageError(f"--{name} {number}: expected a descriptor of its own, found that of {taken[number]}")
        taken[number] = f"--{name}"


def help_text(*, everything: bool) -> str:
    """What `--help` prints, and `--help all`."""
    lines = [
        f"usage: {PROGRAM} [--sockfd N] [OPTIONS] IMAGE",
        f"       {PROGRAM} {Command.JSON} [--sockfd N] [OPTIONS]",
        f"       {PROGRAM} {Command.EXPLAIN} [--json] [OPTIONS] IMAGE",
        f"       {PROGRAM} {Command.FETCH} [--all] [OPTIONS] IMAGE oci:DIR[:TAG]",
        "",
        "Serve a container image to a parent process, explain how it is found, or fetch it into a layout.",
    ]
    for title, group in GROUPS if everything else GROUPS[:1]:
        if title:
            lines += ["", f"{title}:"]
            for option in group:
                glue = "" if option.kind is Kind.LEVEL else " "
                left = f"--{option.name}{glue}{option.metavar}".rstrip()
                lines.append(f"  {left:<29} {option.help}")
    return "\n".join([*lines, ""])


def version_text() -> str:
    """What `--version` prints: this program, what runs it, what it found, and which rooms this copy has."""
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec
    from platform import python_version

    found = []
    for module, package in (("cryptography", "cryptography"), ("yaml", "PyYAML")):
        if find_spec(module) is None:
            found.append(f"no {package}")
            continue
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # put there without a record
            found.append(package)
    return (
        f"{PROGRAM} {__version__}\nPython {python_version()}\nOptional packages: {', '.join(found)}\n"
        f"Rooms: {', '.join(rooms.present()) or 'none'}\n"
    )


# --- kinds of values: a text to a value; what they raise is told with the name of the option ---


def _switch(text: str) -> bool:
    if text not in _TRUE | _FALSE:
        raise argparse.ArgumentTypeError(f"expected true or false, found {quote_own(text)}")
    return text in _TRUE


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise argparse.ArgumentTypeError(f"expected a number from 0, found {quote_own(text)}")
    return int(text)


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected bytes, such as 4096, 64k or 8M, found {quote_own(text)}")
    return int(match[1]) * _SIZE_UNITS[match[2]]


def _ascii(text: str) -> str:
    if any(ord(letter) < 32 or ord(letter) > 126 for letter in text):
        raise argparse.ArgumentTypeError("expected printable ASCII text")
    return text


def parse_duration(text: str, *, least: float = 0.0) -> float:
    """Seconds from `least` to TIME_LIMIT, written as `90`, `1.5` or `1m30s`. Raises ArgumentTypeError."""
    match = _DURATION.fullmatch(text)
    if _SECONDS.fullmatch(text):
        seconds = float(text)
    elif match is None or not text:
        raise argparse.ArgumentTypeError(f"expected a time, such as 20 or 1m30s, found {quote_own(text)}")
    else:
        hours, minutes, rest, milliseconds = (float(part or 0) for part in match.groups())
        seconds = hours * 3600 + minutes * 60 + rest + milliseconds / 1000
    if not least <= seconds <= TIME_LIMIT:
        raise argparse.ArgumentTypeError(
            f"expected a time from {least:g} s to {TIME_LIMIT:.0f} s, found {quote_own(text)}"
        )
    return seconds


def _one_of(choices: Mapping[str, T]) -> Callable[[str], T]:
    def choose(text: str) -> T:
        if text not in choices:
            expected = ", ".join(word for word in choices if word)
            raise argparse.ArgumentTypeError(f"expected one of {expected}, found {quote_own(text)}")
        return choices[text]

    return choose


_TYPES: Mapping[Kind, Callable[[str], Any]] = {
    Kind.FLAG: _switch,
    Kind.TEXT: str,
    Kind.TEXTS: str,
    Kind.ASCII: _ascii,
    Kind.NUMBER: _number,
    Kind.SIZE: _size,
    Kind.TIME: parse_duration,
    Kind.TIMEOUT: lambda text: parse_duration(text, least=TIMEOUT_MINIMUM),
    Kind.LOG_LEVEL: _one_of(_LEVELS),
    Kind.MODE: _one_of({mode.value: mode for mode in SandboxMode}),
    Kind.LEVEL: _one_of({"": "process", "process": "process", "write": "write", "full": "full"}),
}


class _Parser(argparse.ArgumentParser):
    """Knows the table; what is absent is None."""

    def __init__(self) -> None:
        super().__init__(prog=PROGRAM, add_help=False, allow_abbrev=False)
        for option in OPTIONS:
            action = "append" if option.kind is Kind.TEXTS else "store"
            self.add_argument(f"--{option.name}", dest=option.name, type=_TYPES[option.kind], action=action)

    def values_of(self, options: Sequence[str]) -> Mapping[str, Any]:
        """The values of `options` as `_split` leaves them. Raises UsageError."""
        return vars(self.parse_args(options))

    def error(self, message: str) -> NoReturn:
        """One line, instead of the usage in several."""
        raise UsageError(message.removeprefix("argument "))


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options, wherever they stand, each as one `--name=value`, apart from the other words; so is all behind `--`."""
    options: list[str] = []
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
            raise UsageError(f"unknown option {quote_own(argument.partition('=')[0])}; see --help")
        if not equals and option.kind in (Kind.FLAG, Kind.LEVEL):
            text = "true" if option.kind is Kind.FLAG else ""
        elif not equals and not pending:
            raise UsageError(f"--{name}: expected a value behind it")
        elif not equals:
            text = pending.pop()
        options.append(f"--{name}={text}")
    return options, words


def _settings(values: Mapping[str, Any], environment: HostEnvironment) -> Settings:
    times, retry, transfer = TimeLimits(), RetryOptions(), TransferLimits()
    return Settings(
        environment=environment,
        policy=_policy(values),
        credentials=_credentials(values, environment),
        platform=PlatformOptions(
            os=values["override-os"] or None,
            architecture=values["override-arch"] or None,
            variant=values["override-variant"] or None,
            required=bool(values["require-platform"]),
        ),
        times=times._replace(
            connect=_or(values["connect-timeout"], times.connect),
            idle=_or(values["idle-timeout"], times.idle),
            open=_or(values["open-timeout"], times.open),
            stall=_or(values["stall-timeout"], times.stall),
            deadline=_or(values["deadline"], times.deadline),
        ),
        retry=RetryOptions(_or(values["retry-times"], retry.times), values["retry-delay"]),
        transfer=TransferLimits(
            min_rate=_or(values["min-rate"], transfer.min_rate),
            max_rate=_or(values["max-rate"], transfer.max_rate),
            max_bytes=_or(values["max-bytes"], transfer.max_bytes),
            connections=max(1, _or(values["connections"], transfer.connections)),
            read_ahead=_or(values["read-ahead"], transfer.read_ahead),
            partial_limit=_or(values["partial-limit"], transfer.partial_limit),
        ),
        tls_verify=_tls_verify(values["tls-verify"]),
        cert_dir=values["cert-dir"] or None,
        registries_conf=values["registries-conf"] or None,
        registries_d=values["registries.d"] or None,
        tmpdir=values["tmpdir"] or Settings().tmpdir,
        tmp_limit=_or(values["tmp-limit"], Settings().tmp_limit),
        partial_dir=values["partial-dir"] or None,
        shared_blob_dir=values["shared-blob-dir"] or None,
        daemon_host=values["daemon-host"] or None,
        local_sources=tuple(values["local-source"] or ()),
        offline=bool(values["offline"]),
        sandbox=_sandbox(values),
        decryption_keys=values["decryption-key"] is not None,
        user_agent=" ".join(part for part in (values["user-agent-prefix"], f"{PROGRAM}/{__version__}") if part),
    )


def _policy(values: Mapping[str, Any]) -> PolicyOptions:
    path, signed = values["policy"] or "", bool(values["require-signed"])
    if values["insecure-policy"]:
        if signed:
            raise UsageError("--require-signed contradicts --insecure-policy: expected one of them")
        return PolicyOptions(PolicySource.ACCEPT_ANYTHING)
    return PolicyOptions(PolicySource.FILE if path else PolicySource.HOST, path, signed)


def _credentials(values: Mapping[str, Any], environment: HostEnvironment) -> CredentialOptions:
    return CredentialOptions(
        authfile=_or(values["authfile"], environment.get("REGISTRY_AUTH_FILE")) or None,
        creds=values["creds"],
        username=values["username"],
        password=values["password"],
        registry_token=values["registry-token"] or None,
        no_creds=bool(values["no-creds"]),
    )


def _tls_verify(switch: bool | None) -> TlsVerify:
    if switch is None:
        return TlsVerify.UNSET
    return TlsVerify.REQUIRED if switch else TlsVerify.DISABLED


def _sandbox(values: Mapping[str, Any]) -> SandboxOptions:
    mode, required = _or(values["sandbox"], SandboxMode.AUTO), values["require-sandbox"]
    if required is not None and mode is SandboxMode.OFF:
        raise UsageError("--require-sandbox contradicts --sandbox=off: expected one of them")
    return SandboxOptions(mode, required)


def _log_level(values: Mapping[str, Any]) -> Level:
    if values["quiet"]:
        return Level.SILENT
    return Level.DEBUG if values["debug"] else _or(values["log-level"], Level.WARNING)


def _warnings(values: Mapping[str, Any]) -> tuple[str, ...]:
    ignored: Sequence[tuple[str, str]] = (
        ("command-timeout", "it has no effect here: see --deadline and --open-timeout"),
        ("tls-details", "it is not supported: TLS 1.2 and later with the default suites is used"),
    )
    return tuple(f"--{name} is ignored: {why}" for name, why in ignored if values[name] is not None)


def _or(value: T | None, default: T) -> T:
    return default if value is None else value

# SPDX-License-Identifier: Apache-2.0
"""The command line: argv to values, by argparse and the table of `flags`.

argv is split before argparse sees it, which would let a bare `--tls-verify` take the image for its value where skopeo
takes an option and an image, refuse a value that begins with a dash, and repeat an unknown option with its value, which
may be a secret.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, NoReturn, TypeVar

from . import __version__, rooms
from .errors import UsageError, quote_own
from .flags import OPTIONS, describe_options, flag, level, texts
from .log import PROGRAM, Level
from .settings import (
    CredentialOptions,
    HostEnvironment,
    PlatformOptions,
    PolicyOptions,
    PolicySource,
    Settings,
    TimeLimits,
    TransferLimits,
)


class Command:
    """What the process does; the value is the word on the command line, empty for the HTTP interface."""

    HTTP = ""
    JSON = "experimental-image-proxy"
    EXPLAIN = "explain"
    FETCH = "fetch"


T = TypeVar("T")
Values = TypeVar("Values", bound=NamedTuple)
BY_NAME = {option.name: option for option in OPTIONS}
_SHORT = {"-q": "--quiet", "-h": "--help", "-v": "--version"}

_UNUSED = {Command.FETCH: ("sockfd",), Command.EXPLAIN: ("sockfd", "audit-fd", "events-fd", "journal")}

# how many words stand behind a command, and what they are
_ARGUMENTS = {
    Command.HTTP: (1, "one image name"),
    Command.JSON: (0, "no argument"),
    Command.EXPLAIN: (1, "one image name"),
    Command.FETCH: (2, "an image name and oci:DIR[:TAG]"),
}


class Invocation(NamedTuple):
    """A parsed command line. `answer` is text for stdout (then exit 0), such as `--help` asks for."""

    command: str
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
        rooms.require_own_command(arguments)
    options, words = _split(arguments)
    values = _values_of(options)
    if values["help"]:
        return Invocation(Command.HTTP, Settings(), answer=help_text(everything="all" in words))
    if values["version"]:
        return Invocation(Command.HTTP, Settings(), answer=version_text())
    command = Command.HTTP
    if words and words[0] in (Command.JSON, Command.EXPLAIN, Command.FETCH):
        command = words.pop(0)
    rooms.require_words([command, *(f"--{name}" for name, value in values.items() if value)])
    expected, what = _ARGUMENTS[command]
    if len(words) != expected:
        meant = _like(words[0], [Command.JSON, Command.EXPLAIN, Command.FETCH]) if words and not command else ""
        prefix = f"{command}: " if command else ""
        raise UsageError(f"{prefix}expected {what}, found {len(words)}; {_value_behind(arguments)}{meant}see --help")
    for name, other in (("json", Command.EXPLAIN), ("all", Command.FETCH)):
        if values[name] and command != other:
            raise UsageError(f"--{name}: expected together with {other}")
    if values["require-audit"] and values["audit-fd"] is None:
        raise UsageError("--require-audit: expected together with --audit-fd")
    _require_own_descriptors(command, values)
    reference, destination = [*words, "", ""][:2]
    warnings = _warnings(command, values)
    found = Invocation(command, _settings(values, environment), reference, destination, warnings=warnings)
    return _given(found, values)._replace(every_platform=bool(values["all"]), log_level=_log_level(values))


def _require_own_descriptors(command: str, values: Mapping[str, Any]) -> None:
    """Return unless two streams share a descriptor: their bytes would mix, on the parent's connection of all places."""
    taken: dict[int | None, str] = {}
    if values["sockfd"] is None:
        taken = dict.fromkeys((0,) if command == Command.JSON else (0, 1), "the parent's requests")
    for name in ("sockfd", "audit-fd", "events-fd"):
        number = values[name]
        if number is not None and number in taken:
            raise UsageError(f"--{name} {number}: expected a descriptor of its own, found that of {taken[number]}")
        taken[number] = f"--{name}"


def help_text(*, everything: bool) -> str:
    """What `--help` prints, and `--help all`."""
    forms = [
        (Command.HTTP, "[--sockfd N] [OPTIONS] IMAGE", "serves a container image to a parent process"),
        (Command.JSON, "[--sockfd N] [OPTIONS]", "serves any number by skopeo's protocol"),
        (Command.EXPLAIN, "[--json] [OPTIONS] IMAGE", "tells how an image would be found and judged"),
        (Command.FETCH, "[--all] [OPTIONS] IMAGE oci:DIR[:TAG]", "brings an image into a layout"),
    ]
    lines: list[str] = []
    for command, arguments, purpose in forms:
        if rooms.knows(command):
            lines.append(f"{'       ' if lines else 'usage: '}{' '.join(filter(None, (PROGRAM, command, arguments)))}")
            lines.append(f"           {purpose}")
    return "\n".join([*lines, *describe_options(rooms.knows, everything=everything), ""])


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


_Formatter = partial(argparse.HelpFormatter, width=80)


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        """One line, instead of the usage in several."""
        raise UsageError(message.removeprefix("argument "))


def _values_of(options: Sequence[str]) -> Mapping[str, Any]:
    """The values of `options` as `_split` leaves them, by name; what is absent is None. Raises UsageError.

    The parser knows those that are given: to tell it of all of them takes as long as the whole of a request.
    """
    given = {option.partition("=")[0].removeprefix("--") for option in options}
    # its help is not shown, and so the width of the terminal, for which it loads four modules, does not matter
    parser = _Parser(prog=PROGRAM, add_help=False, allow_abbrev=False, formatter_class=_Formatter)
    for name in given:
        parse = BY_NAME[name].parse
        parser.add_argument(f"--{name}", dest=name, type=parse, action="append" if parse is texts else "store")
    return {**dict.fromkeys(BY_NAME), **vars(parser.parse_args(options))}


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
        option = BY_NAME.get(name) if argument.startswith("--") else None
        if option is None:
            # without what hangs on it, which may be a value
            given = re.sub(r"(?as)\A(--[\w-]++|-[^-]).+", r"\1…", argument.partition("=")[0])
            meant = _like(given, [f"--{known}" for known in BY_NAME])
            raise UsageError(f"unknown option {quote_own(given)}; {meant}see --help all")
        if not equals and option.parse in (flag, level):
            text = "true" if option.parse is flag else ""
        elif not equals and not pending:
            raise UsageError(f"--{name}: expected a value behind it")
        elif not equals:
            text = pending.pop()
        options.append(f"--{name}={text}")
    return options, words


def _value_behind(arguments: Sequence[str]) -> str:
    """What to write where a value of an option stands behind it, although that takes no further word."""
    names = "|".join(option.name for option in OPTIONS if option.parse in (flag, level))
    found = re.search(f"\0(--(?:{names}))\0(true|false|process|write|full)\0", "\0".join(("", *arguments, "")))
    return f"a value of {found[1]} stands behind an equals sign: {found[1]}={found[2]}; " if found else ""


def _like(given: str, known: Sequence[str]) -> str:
    """A question for whoever misspelt a word that is `known`; never repeats what was given, which may be a secret."""
    from difflib import get_close_matches

    return "".join(f"did you mean {word}? " for word in get_close_matches(given, filter(rooms.knows, known), 1, 0.75))


def _settings(values: Mapping[str, Any], environment: HostEnvironment) -> Settings:
    if values["require-sandbox"] is not None and values["sandbox"] is False:
        raise UsageError("--require-sandbox contradicts --sandbox=off: expected one of them")
    transfer = _given(TransferLimits(), values)
    return _given(Settings(), values)._replace(
        environment=environment,
        policy=_policy(values),
        credentials=_credentials(values, environment),
        platform=PlatformOptions(
            os=values["override-os"] or None,
            architecture=values["override-arch"] or None,
            variant=values["override-variant"] or None,
            required=bool(values["require-platform"]),
        ),
        times=_given(TimeLimits(), values, "-timeout"),
        transfer=transfer._replace(connections=max(1, transfer.connections), segments=max(1, transfer.segments)),
        local_sources=tuple(values["local-source"] or ()),
        decryption_keys=values["decryption-key"] is not None,
        user_agent=" ".join(part for part in (values["user-agent-prefix"], f"{PROGRAM}/{__version__}") if part),
    )


def _given(
    defaults: Values, values: Mapping[str, Any], suffix: str = "", none: Sequence[object] = (None, "")
) -> Values:
    """`defaults`, but for the fields that have the name of an option with a value; what is `none` is none."""
    given = {name: value for name, value in values.items() if value not in none}
    named = {name.removesuffix(suffix).replace("-", "_").replace(".", "_"): value for name, value in given.items()}
    return defaults._replace(**{name: named[name] for name in defaults._fields if name in named})


def _policy(values: Mapping[str, Any]) -> PolicyOptions:
    path, signed = values["policy"] or "", bool(values["require-signed"])
    if values["insecure-policy"]:
        if signed:
            raise UsageError("--require-signed contradicts --insecure-policy: expected one of them")
        return PolicyOptions(PolicySource.ACCEPT_ANYTHING)
    return PolicyOptions(PolicySource.FILE if path else PolicySource.HOST, path, signed)


def _credentials(values: Mapping[str, Any], environment: HostEnvironment) -> CredentialOptions:
    given = _given(CredentialOptions(), values, none=(None,))  # an empty user or password is one
    authfile = _or(values["authfile"], environment.get("REGISTRY_AUTH_FILE"))
    return given._replace(authfile=authfile or None, registry_token=given.registry_token or None)


def _log_level(values: Mapping[str, Any]) -> Level:
    if values["quiet"]:
        return Level.SILENT
    return Level.DEBUG if values["debug"] else _or(values["log-level"], Level.WARNING)


def _warnings(command: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    ignored = [
        ("command-timeout", "it has no effect here: see --deadline and --open-timeout"),
        ("tls-details", "it is not supported: TLS 1.2 and later with the default suites is used"),
    ]
    ignored += [(name, f"{command} has no use for it") for name in _UNUSED.get(command, ())]
    return tuple(f"--{name} is ignored: {why}" for name, why in ignored if values[name] is not None)


def _or(value: T | None, default: T) -> T:
    return default if value is None else value

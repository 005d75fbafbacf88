# SPDX-License-Identifier: Apache-2.0
"""The table of options: names, what reads a value, and the help that is made of it.

Not argparse's own help, which shows a value that stands behind `=` only as if a blank could stand there.
"""

import argparse
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from .errors import quote_own
from .log import Level

T = TypeVar("T")
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
TIME_LIMIT = 1_000_000.0  # seconds; waiting calls of the kernel take no more than 24 days
TIMEOUT_MINIMUM = 0.001  # seconds; 0 would fail at once, and whoever writes it wants the opposite
_SIZE = r"(?a)([0-9]{1,18})([kKMG]?)(?:i?B)?"
_SIZE_UNITS = {"": 1, "k": 1024, "K": 1024, "M": 1024**2, "G": 1024**3}
_SECONDS = r"(?a)[0-9]{1,9}(?:\.[0-9]{1,9})?"
_DURATION = r"(?a)(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)s)?(?:([0-9]{1,9})ms)?"


# --- kinds of values: a text to a value; what they raise is told with the name of the option ---


def flag(text: str) -> bool:
    """Present or absent, `--x=false` allowed."""
    if text not in _TRUE | _FALSE:
        raise argparse.ArgumentTypeError(f"expected true or false, found {quote_own(text)}")
    return text in _TRUE


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise argparse.ArgumentTypeError(f"expected a number from 0, found {quote_own(text)}")
    return int(text)


def _size(text: str) -> int:
    match = re.fullmatch(_SIZE, text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected bytes, such as 4096, 64k or 8M, found {quote_own(text)}")
    return int(match[1]) * _SIZE_UNITS[match[2]]


def _ascii(text: str) -> str:
    if any(ord(letter) < 32 or ord(letter) > 126 for letter in text):
        raise argparse.ArgumentTypeError("expected printable ASCII text")
    return text


def parse_duration(text: str, *, least: float = 0.0) -> float:
    """Seconds from `least` to TIME_LIMIT, written as `90`, `1.5` or `1m30s`. Raises ArgumentTypeError."""
    match = re.fullmatch(_DURATION, text)
    if re.fullmatch(_SECONDS, text):
        seconds = float(text)
    elif match is None or not text:
        raise argparse.ArgumentTypeError(f"expected a time, such as 20 or 1m30s, found {quote_own(text)}")
    else:
        hours, minutes, rest, milliseconds = (float(part or 0) for part in match.groups())
        seconds = hours * 3600 + minutes * 60 + rest + milliseconds / 1000
    if not least <= seconds <= TIME_LIMIT:
        why = f"expected a time from {least:g} s to {TIME_LIMIT:.0f} s, found {quote_own(text)}"
        raise argparse.ArgumentTypeError(why)
    return seconds


def _one_of(choices: Mapping[str, T]) -> Callable[[str], T]:
    def choose(text: str) -> T:
        if text not in choices:
            expected = ", ".join(word for word in choices if word)
            raise argparse.ArgumentTypeError(f"expected one of {expected}, found {quote_own(text)}")
        return choices[text]

    return choose


def texts(text: str) -> str:
    """A text, and the option may be repeated."""
    return text


_timeout = partial(parse_duration, least=TIMEOUT_MINIMUM)
_log_level = _one_of({**{each.name.lower(): each for each in Level if each < Level.SILENT}, "warn": Level.WARNING})
_mode = _one_of({"auto": True, "off": False})
level = _one_of({"": "process", "process": "process", "write": "write", "full": "full"})  # optional behind `=`


# --- the table ---


class Option:
    """A row of the table. `help` is one line; options without one are accepted, not advertised."""

    def __init__(self, name: str, parse: Callable[[str], Any], metavar: str, purpose: str) -> None:
        self.name, self.parse, self.metavar, self.help = name, parse, metavar, purpose


COMMON = "Common"
# by what they are about; the first group is what `--help` shows
GROUPS: Mapping[str, tuple[Option, ...]] = {
    COMMON: (
        Option("sockfd", _number, "N", "serve the socket that is descriptor N (default: stdin and stdout)"),
        Option("policy", str, "FILE", "signature policy instead of the host's policy.json"),
        Option("insecure-policy", flag, "", "accept any image, read no policy"),
        Option("authfile", str, "FILE", "credentials, instead of the places that podman uses"),
        Option("creds", str, "USER[:PASS]", "credentials for the registry"),
        Option("tls-verify", flag, "", "verify TLS; =false also allows plain HTTP"),
        Option("cert-dir", str, "DIR", "CA (*.crt) and client certificates (*.cert, *.key)"),
        # the Rust crate containers-image-proxy looks for it in the help, and uses it where it is
        Option("user-agent-prefix", _ascii, "TEXT", "in front of the user agent"),
        Option("quiet", flag, "", "write nothing to stderr"),
        Option("debug", flag, "", "the same as --log-level=debug"),
        Option("version", flag, "", "print the version, and what this copy has"),
        Option("help", flag, "", "print this text; --help all prints every option"),
    ),
    "Trust": (
        Option("require-signed", flag, "", "refuse images that no signature was verified for"),
        Option("audit-fd", _number, "N", "write trust decisions to this descriptor, as JSON lines"),
        Option("require-audit", flag, "", "serve no image whose decision was not written to --audit-fd"),
    ),
    "Access to registries": (
        Option("username", str, "USER", "user for the registry, with --password"),
        Option("password", str, "PASS", "password for the registry, with --username"),
        Option("registry-token", str, "TOKEN", "bearer token for the registry"),
        Option("no-creds", flag, "", "be anonymous"),
        Option("registries-conf", str, "FILE", "instead of the host's registries.conf"),
        Option("registries.d", str, "DIR", "where signatures are found, instead of the host's"),
    ),
    "Which image, and from where": (
        Option("override-os", str, "OS", "choose this platform from an index"),
        Option("override-arch", str, "ARCH", "choose this platform from an index"),
        Option("override-variant", str, "VARIANT", "choose this platform from an index"),
        Option("require-platform", flag, "", "refuse an image whose config is for another platform"),
        Option("local-source", texts, "REF", "docker: take blobs from here first (repeatable)"),
        Option("offline", flag, "", "docker: use --local-source only, never the network"),
        Option("shared-blob-dir", str, "DIR", "oci: where the blobs are"),
        Option("daemon-host", str, "URL", "docker-daemon: its socket"),
    ),
    "Time and repeats": (
        Option("connect-timeout", _timeout, "TIME", "to connect (15)"),
        Option("idle-timeout", _timeout, "TIME", "without a byte (20)"),
        Option("open-timeout", _timeout, "TIME", "to open an image (180)"),
        Option("stall-timeout", _timeout, "TIME", "without progress of a blob, over all places (110)"),
        Option("deadline", parse_duration, "TIME", "for one request, all in all (0: none)"),
        Option("min-rate", _size, "SIZE", "bytes a second below which a blob has stalled (1024)"),
        Option("retry-times", _number, "N", "repeats per place (4)"),
        Option("retry-delay", parse_duration, "TIME", "fixed delay before a repeat (doubles from 0.5)"),
    ),
    "Amounts": (
        Option("max-rate", _size, "SIZE", "bytes a second from the network (0: no limit)"),
        Option("max-bytes", _size, "SIZE", "bytes from the network in all (0: no limit)"),
        Option("connections", _number, "N", "connections per registry (64)"),
        Option("read-ahead", _size, "SIZE", "per blob while the parent is busy (8M, 0: none)"),
        Option("tmpdir", str, "DIR", "for compressed archives (default: /var/tmp)"),
        Option("tmp-limit", _size, "SIZE", "of all temporary files (16G)"),
        Option("segments", _number, "N", "connections for one large blob, where one is slow (1)"),
        Option("partial-dir", str, "DIR", "keep what arrived of large blobs here, for the next run"),
        Option("partial-limit", _size, "SIZE", "of all that is kept there (4G, 0: no limit)"),
    ),
    "Confinement": (
        Option("sandbox", _mode, "MODE", "auto or off (default: auto)"),
        Option("require-sandbox", level, "[=LEVEL]", "fail unless confined: process, write or full"),
    ),
    "What is told": (
        Option("log-level", _log_level, "LEVEL", "debug, info, warning or error (default: warning)"),
        Option("events-fd", _number, "N", "write progress to this descriptor, as JSON lines"),
        Option("journal", flag, "", "tell the systemd journal of faults and decisions"),
    ),
    "Of one command": (
        Option("json", flag, "", "explain: print JSON"),
        Option("all", flag, "", "fetch: every platform of an index"),
    ),
    "": (
        Option("command-timeout", parse_duration, "TIME", ""),
        Option("decryption-key", texts, "KEY", ""),
        Option("tls-details", str, "FILE", ""),
    ),
}
OPTIONS = tuple(option for group in GROUPS.values() for option in group)


def describe_options(is_known: Callable[[str], bool], *, everything: bool) -> list[str]:
    """The lines of the help, of all options or of the common ones; of those alone that this copy has."""
    lines: list[str] = []
    for title, group in GROUPS.items():
        if title == COMMON or (title and everything):
            lines += ["", f"{title}:"]
            for option in group:
                if not is_known(f"--{option.name}"):
                    continue
                glue = "" if option.parse is level else " "
                left = f"--{option.name}{glue}{option.metavar}".rstrip()
                lines.append(f"  {left:<29} {option.help}")
    return lines

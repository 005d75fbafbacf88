# SPDX-License-Identifier: Apache-2.0
"""Configuration files: which ones are read, in which order, and how; rooms know the places of theirs.

The places are those of current container tools (registry.md 2.2, 3.2, 5.1, 7.1; signatures.md 1.1): the user's
directory, then the administrator's, then the vendor's. Only a file that does not exist makes room for the next
one; a file that is there and cannot be read stops the request, because the next one may be weaker.
"""

import codecs
import os
import stat
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from ..content import require_time
from ..errors import QUOTE_LIMIT, ConfigurationError, ErrorCode, quote_own, system_reason
from ..model.jsontree import JsonNode
from ..settings import HostEnvironment, PolicySource, Settings

ADMIN_DIRECTORY = "/etc/containers"
VENDOR_DIRECTORY = "/usr/share/containers"
DOCKER_CERTIFICATES = "/etc/docker/certs.d"
RUN_DIRECTORY = "/run/containers"
STATE_DIRECTORY = "/var/lib/containers"

CONFIGURATION_LIMIT = 4 * 1024 * 1024  # bytes of one configuration file (decisions.md section 9)
KEY_LIMIT = 1024 * 1024  # bytes of one key file
AUTH_FILE_LIMIT = 1024 * 1024  # bytes of one file with credentials
READ_WAIT = 30.0  # seconds for a configuration that comes through a pipe
_READ_SIZE = 64 * 1024
_DOTS = 4_000_000  # squared and summed over the lines: tomllib takes the square of a key's parts to read it


class ConfigurationFile(NamedTuple):
    """A file that was looked for: what it is for ("registries.conf", "drop-in", …), and whether it was there."""

    path: str
    role: str
    read: bool


class AuthFile:
    """A place for credentials. In the `legacy` format the top-level object is what `auths` is elsewhere."""

    def __init__(self, path: str, legacy: bool = False) -> None:
        self.path, self.legacy = path, legacy


class LayeredFile:
    """One of the files that are laid over each other. `users`: it is this user's own, or was named.

    One that is `required` must exist, of another one it was seen, and None is for a place that holds none.
    """

    def __init__(self, path: str, role: str, required: bool | None, users: bool) -> None:
        self.path, self.role, self.required, self.users = path, role, required, users

    def read(self) -> tuple[ConfigurationFile, bytes | None]:
        """What to tell of it, and its content; None where it has gone since, or is a link that leads nowhere."""
        content = None
        if self.required is not None:
            content = (read_configuration if self.required else read_if_present)(self.path)
        return ConfigurationFile(self.path, self.role, content is not None), content


# --- reading ---


def read_configuration(path: str, limit: int = CONFIGURATION_LIMIT, *, code: ErrorCode | None = None) -> bytes:
    """The content of a file that must exist, at most `limit` bytes. Raises ConfigurationError (with `code`)."""
    data = read_if_present(path, limit, code=code)
    if data is None:
        raise ConfigurationError(path, "no such file", code=code)
    return data


def read_if_present(path: str, limit: int = CONFIGURATION_LIMIT, *, code: ErrorCode | None = None) -> bytes | None:
    """As `read_configuration`, but None when there is no such file. A dangling link is no file.

    Where there is no time at all, only regular files are opened: who writes to a pipe would lose its only reader.
    """
    if not require_time() and os.path.exists(path) and not os.path.isfile(path):
        raise ConfigurationError(path, "expected a regular file", code=code)
    with readable(path, code), suppress(FileNotFoundError):
        # not blocking: opening a pipe that nobody writes to would never return
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return read_descriptor(descriptor, path, limit, code=code)
        finally:
            os.close(descriptor)
    return None


def read_descriptor(descriptor: int, path: str, limit: int, *, code: ErrorCode | None = None) -> bytes:
    """All of a regular file, or what is left in a pipe, at most `limit` bytes; `path` is for messages.

    Raises ConfigurationError, also for a pipe that has no end within READ_WAIT seconds, SourceError (timeout), OSError.
    """
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        raise ConfigurationError(path, "expected a file, found a directory", code=code)
    regular = stat.S_ISREG(mode)
    data = bytearray()
    deadline = time.monotonic() + min(READ_WAIT, require_time())  # of regular files there may be any number
    while len(data) <= limit:
        size = min(limit + 1 - len(data), _READ_SIZE)
        # at a place of its own: whoever shares the descriptor keeps its position
        part = os.pread(descriptor, size, len(data)) if regular else _read_pipe(descriptor, size, deadline)
        if part is None:
            require_time()
            raise ConfigurationError(path, f"no end of file within {READ_WAIT:g} s", code=code)
        if not part:
            return bytes(data)
        data += part
    raise ConfigurationError(path, f"larger than {limit} bytes", code=code)


def _read_pipe(descriptor: int, size: int, deadline: float) -> bytes | None:
    """The next bytes, at the end none, and None when nothing came in time."""
    import select

    blocking = os.get_blocking(descriptor)  # a shared one stays as it is: the other side may rely on it
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    ready = not blocking
    while ready or poll.poll(max(deadline - time.monotonic(), 0) * 1000):
        with suppress(BlockingIOError):
            return os.read(descriptor, size)  # at once the end when nobody writes, which poll would never tell
        ready = False
    return None


def is_present(path: str, *, code: ErrorCode | None = None) -> bool:
    """Whether something is there. Raises ConfigurationError (with `code`) when that cannot be told."""
    with readable(path, code), suppress(FileNotFoundError):
        os.stat(path)
        return True
    return False


@contextmanager
def readable(path: str, code: ErrorCode | None = None) -> Iterator[None]:
    """Make a ConfigurationError (with `code`) of what the system refuses about `path`."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise ConfigurationError(path, f"cannot be read: {system_reason(error)}", code=code) from error


# --- places ---


def user_directory(environment: HostEnvironment) -> str:
    """`$XDG_CONFIG_HOME/containers`, else `~/.config/containers`; an empty or relative variable counts as unset."""
    configured = environment.get("XDG_CONFIG_HOME")
    if os.path.isabs(configured):
        return os.path.join(configured, "containers")
    return home_directory(environment)


def home_directory(environment: HostEnvironment) -> str:
    """`~/.config/containers`, where some files lie whatever XDG_CONFIG_HOME says."""
    return os.path.join(environment.home, ".config", "containers")


def _base_directories(environment: HostEnvironment) -> tuple[str, str, str]:
    """Where a file may lie, most specific first."""
    return user_directory(environment), ADMIN_DIRECTORY, VENDOR_DIRECTORY


def rootless_uid(environment: HostEnvironment, fallback: int) -> int:
    """The user that podman says it works for, else `fallback`, the real or effective one."""
    text = environment.get("_CONTAINERS_ROOTLESS_UID")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else fallback


def policy_candidates(settings: Settings) -> tuple[str, ...]:
    """The places of policy.json, in order; the first that exists is the policy (signatures.md 1.1).

    With `--policy` or CONTAINERS_POLICY_JSON there is one place only.
    """
    if settings.policy.source is PolicySource.FILE:
        return (settings.policy.path,)
    named = settings.environment.get("CONTAINERS_POLICY_JSON")
    if named:
        return (named,)
    return tuple(os.path.join(base, "policy.json") for base in _base_directories(settings.environment))


def policy_path(settings: Settings) -> str:
    """The signature policy of this host. Raises ConfigurationError.

    With `policy-missing` it says how to go on; `policy-invalid` is for a place of which nobody can tell what is there.
    """
    candidates = policy_candidates(settings)
    for path in candidates:
        if is_present(path, code=ErrorCode.POLICY_INVALID):
            return path
    named = "--policy" if settings.policy.source is PolicySource.FILE else "CONTAINERS_POLICY_JSON"
    if len(candidates) == 1:
        raise ConfigurationError(candidates[0], f"no such file, though {named} names it", code=ErrorCode.POLICY_MISSING)
    raise ConfigurationError(
        "policy.json",
        f"no signature policy on this host, looked for {', '.join(candidates)}: install one, as the packages "
        "containers-common and golang-github-containers-common do (containers-policy.json(5) explains it), "
        "name one with --policy FILE, or accept any image with --insecure-policy",
        code=ErrorCode.POLICY_MISSING,
    )


def registries_files(settings: Settings) -> list[LayeredFile]:
    """The files of registries.conf in the order in which they are merged (registry.md 2.2).

    Raises ConfigurationError for a directory that cannot be listed, or a named file that is not there.
    """
    named = settings.registries_conf or settings.environment.get("CONTAINERS_REGISTRIES_CONF")
    option = "--registries-conf" if settings.registries_conf else "CONTAINERS_REGISTRIES_CONF"
    # The variable, unlike the option, stands for all of the configuration.
    alone = bool(named) and not settings.registries_conf
    return layered_files(settings.environment, "registries", named, option, alone=alone)


def layered_files(
    environment: HostEnvironment, stem: str, named: str, option: str, *, alone: bool
) -> list[LayeredFile]:
    """The files of STEM.conf: the first that there is, or the one that `option` names; drop-ins; the override.

    Raises ConfigurationError.
    """
    role, own = f"{stem}.conf", user_directory(environment) + "/"
    found = []
    for path in [named] if named else [os.path.join(base, role) for base in _base_directories(environment)]:
        present = is_present(path)
        found.append(LayeredFile(path, role, True if present else None, bool(named) or path.startswith(own)))
        if present:
            break
        if named:
            raise ConfigurationError(named, f"no such file, though {option} names it")
    for path in () if alone else _drop_ins(environment, stem):
        found.append(LayeredFile(path, f"{role} drop-in", False, path.startswith(own)))
    last = environment.get(f"CONTAINERS_{stem.upper()}_CONF_OVERRIDE")
    return [*found, LayeredFile(last, f"{role} override", True, True)] if last else found


def _drop_ins(environment: HostEnvironment, stem: str) -> tuple[str, ...]:
    """The files that are laid over STEM.conf, in order. Raises ConfigurationError."""
    found: dict[str, str] = {}
    for directory in _drop_in_directories(environment, stem):
        for name in list_directory(directory, ".conf"):
            found[name] = os.path.join(directory, name)
    # bytes, because that is how the other tools sort; a name that is no UTF-8 has a place too
    return tuple(found[name] for name in sorted(found, key=os.fsencode))


def _drop_in_directories(environment: HostEnvironment, stem: str) -> list[str]:
    """Least specific first: a file replaces those of the same name in the directories before."""
    uid = rootless_uid(environment, environment.uid)
    found = []
    for base in (VENDOR_DIRECTORY, ADMIN_DIRECTORY):
        found.append(os.path.join(base, f"{stem}.conf.d"))
        if uid == 0:
            found.append(os.path.join(base, f"{stem}.rootful.conf.d"))
        else:
            found.append(os.path.join(base, f"{stem}.rootless.conf.d"))
            found.append(os.path.join(base, f"{stem}.rootless.conf.d", str(uid)))
    found.append(os.path.join(user_directory(environment), f"{stem}.conf.d"))
    return found


def list_directory(directory: str, suffix: str) -> list[str]:
    """Names with `suffix` that are not directories, sorted by their bytes; links count, wherever they lead.

    Nothing for a directory that does not exist. Raises ConfigurationError.
    """
    with readable(directory), suppress(FileNotFoundError), os.scandir(directory) as entries:
        named = (entry for entry in entries if entry.name.endswith(suffix))
        return sorted((entry.name for entry in named if not entry.is_dir(follow_symlinks=False)), key=os.fsencode)
    return []


def auth_files(settings: Settings) -> tuple[tuple[AuthFile, ...], tuple[str, ...]]:
    """The files with credentials, in the order they are searched, and warnings (registry.md 3.2).

    With `--authfile` or REGISTRY_AUTH_FILE that file alone.
    """
    if settings.credentials.authfile is not None:
        return (AuthFile(settings.credentials.authfile),), ()
    environment = settings.environment
    found: list[AuthFile] = []
    warnings: list[str] = []
    handed_over = environment.get("CREDENTIALS_DIRECTORY")
    if os.path.isabs(handed_over):  # systemd.exec(5), "LoadCredential="
        found.append(AuthFile(os.path.join(handed_over, "container-image-proxy.auth.json")))
    runtime = environment.get("XDG_RUNTIME_DIR")
    if not runtime:
        found.append(AuthFile(os.path.join(RUN_DIRECTORY, str(environment.uid), "auth.json")))
    elif os.path.isdir(runtime):
        found.append(AuthFile(os.path.join(runtime, "containers", "auth.json")))
    else:
        warnings.append(f"XDG_RUNTIME_DIR: {quote_own(runtime)} does not exist, not searched for containers/auth.json")
    found.append(AuthFile(os.path.join(user_directory(environment), "auth.json")))
    docker = environment.get("DOCKER_CONFIG") or os.path.join(environment.home, ".docker")
    found.append(AuthFile(os.path.join(docker, "config.json")))
    found.append(AuthFile(os.path.join(environment.home, ".dockercfg"), legacy=True))
    return tuple(found), tuple(warnings)


def certificate_directories(host: str, settings: Settings) -> tuple[str, ...]:
    """Where the certificates for `host[:port]` may lie; the first directory that exists counts (registry.md 5.1)."""
    if settings.cert_dir is not None:
        return (settings.cert_dir,)
    bases = (f"{home_directory(settings.environment)}/certs.d", f"{ADMIN_DIRECTORY}/certs.d", DOCKER_CERTIFICATES)
    return tuple(os.path.join(base, host) for base in bases)


def parse_toml(path: str, data: bytes) -> JsonNode:
    """The content `data` of the file `path`. Raises ConfigurationError naming file and line, as far as known."""
    return JsonNode((path, ConfigurationError), None, "", _parse(path, data))


def _parse(path: str, data: bytes) -> dict[str, object]:
    if sum(line.count(b".") ** 2 for line in data.split(b"\n")) > _DOTS:
        raise ConfigurationError(path, "not valid TOML: keys of too many parts")
    try:
        values = tomllib.loads(data.removeprefix(codecs.BOM_UTF8).decode(), parse_float=_finite)
        _require_64_bits(values)
        return values
    except UnicodeDecodeError as error:
        raise ConfigurationError(path, f"not valid UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(path, _complaint(str(error))) from error
    except ValueError as error:  # also of int(), which takes no more than some thousand digits
        raise ConfigurationError(path, "not valid TOML: a number that is too large") from error
    except RecursionError as error:
        raise ConfigurationError(path, "not valid TOML: nested too deep") from error


def _finite(text: str) -> float:
    """The float, which other tools refuse where it is none of 64 bits. Raises ValueError."""
    number = float(text)
    if abs(number) == float("inf") and "inf" not in text:
        raise ValueError(text)
    return number


def _require_64_bits(values: object) -> None:
    """Return only if each integer has 64 bits, as TOML demands of all readers. Raises ValueError."""
    pending = [values]
    while pending:
        value = pending.pop()
        if isinstance(value, dict | list):
            pending.extend(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError(value)


def _complaint(text: str) -> str:
    """The decoder's message with its position in front, where no cut can lose it."""
    what, _, where = text.removesuffix(")").rpartition(" (at ")
    what = what[:1].lower() + what[1:]
    return f"not valid TOML at {where.replace(',', '')}: {what[:QUOTE_LIMIT]}" if what else "not valid TOML"

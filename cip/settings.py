# SPDX-License-Identifier: Apache-2.0
"""All that the user decided, as values; the defaults are those of decisions.md sections 3 and 5.

`cli` makes one `Settings` and nobody reads argv or the environment afterwards. Sizes are in bytes, times in seconds.
Named tuples rather than dataclasses: they take a fifth of the time to define, and a parent waits for our start.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from .errors import UsageError

HELPER_PREFIX = "docker-credential-"  # of the program of a credential helper, which is searched in PATH


class PolicySource(StrEnum):
    """Where the signature policy comes from: the host, a named file, or `--insecure-policy`."""

    HOST = "host"
    FILE = "file"
    ACCEPT_ANYTHING = "accept-anything"


class Credentials(NamedTuple):
    """What a registry is told; all empty means anonymous. Never shown: `repr` hides the secrets."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, …)"

    def secrets(self) -> tuple[str, str]:
        """What nobody else may see; a name that stands alone is a key. Some may be empty."""
        return self.password or ("" if self.identity_token else self.username), self.identity_token

    def is_anonymous(self) -> bool:
        """Whether there is nothing to present."""
        return not (self.username or self.password or self.identity_token)


class HostEnvironment(NamedTuple):
    """The process as it was started: environment variables, home directory (absolute), user ids."""

    variables: Mapping[str, str] = MappingProxyType({})
    home: str = "/"
    uid: int = 0
    euid: int = 0

    def get(self, name: str) -> str:
        """The value of an environment variable; unset and empty are the same."""
        return self.variables.get(name, "")


class CredentialOptions(NamedTuple):
    """Credential flags as given. None is absent; contradictions are told by `explicit`."""

    authfile: str | None = None
    creds: str | None = None
    username: str | None = None
    password: str | None = None
    registry_token: str | None = None
    no_creds: bool = False

    def __repr__(self) -> str:
        return f"CredentialOptions(authfile={self.authfile!r}, …)"

    def explicit(self) -> Credentials | None:
        """The credentials the flags name; anonymous for `--no-creds`; None when files and helpers are to be asked.

        Raises UsageError for the conflicts of registry.md 3.1, never showing a value.
        """
        if self.no_creds and (self.creds is not None or self.username is not None):
            raise UsageError("--no-creds contradicts --creds and --username: expected one of them")
        if self.creds is not None and self.username is not None:
            raise UsageError("--creds contradicts --username: expected one of them")
        if (self.username is None) != (self.password is None):
            raise UsageError("expected --username and --password together, found one of them")
        for name, value in (
            ("--creds", self.creds),
            ("--username", self.username),
            ("--password", self.password),
            ("--registry-token", self.registry_token),
        ):
            if value is not None and any(letter in value for letter in "\r\n\0"):
                raise UsageError(f"{name}: contains a line break or a NUL byte")
        if self.creds is not None:
            username, _, password = self.creds.partition(":")
            if not username:
                raise UsageError("--creds: expected USERNAME[:PASSWORD], found no user name")
            return Credentials(username, password)
        if self.username is not None and self.password is not None:
            return Credentials(self.username, self.password)
        return Credentials() if self.no_creds else None


class PolicyOptions(NamedTuple):
    """How images are judged; `path` belongs to `PolicySource.FILE`."""

    source: PolicySource = PolicySource.HOST
    path: str = ""
    require_signed: bool = False


class PlatformOptions(NamedTuple):
    """Overrides for choosing an instance from an index; None is the host's own value.

    `required`: an image whose config says that it is for another platform is refused.
    """

    os: str | None = None
    architecture: str | None = None
    variant: str | None = None
    required: bool = False


class TimeLimits(NamedTuple):
    """How long things may take, in seconds (decisions.md section 3)."""

    connect: float = 15.0
    tls_handshake: float = 10.0
    name_lookup: float = 10.0
    idle: float = 20.0  # first byte of an answer, and between bytes
    control_document: float = 50.0  # token, manifest, index, config, signature, over all repeats
    control_endpoint: float = 15.0  # one attempt at a place while another place remains
    open: float = 180.0  # opening an image, all in all
    stall: float = 110.0  # a blob without progress over all places
    rate_window: float = 60.0  # for `min_rate`
    deadline: float = 0.0  # one request of the parent, all in all; 0 is none

    @property
    def opening(self) -> float:
        """What opening may take within a request."""
        return min(self.open, self.deadline or self.open)


class TransferLimits(NamedTuple):
    """Limits on what is moved; 0 is no limit except where a row says otherwise."""

    min_rate: int = 1024  # bytes a second over the rate window; slower is a stall
    max_rate: int = 0  # bytes a second, network bodies of the process
    max_bytes: int = 0  # network body bytes of the process, repeats included
    connections: int = 64  # per origin
    read_ahead: int = 8 * 1024 * 1024  # bytes per blob while the parent waits; 0 turns it off
    partial_limit: int = 4 * 1024**3  # bytes of all parts below `partial_dir`
    segments: int = 1  # connections for one large blob


class Settings(NamedTuple):
    """Everything the user decided, on the command line and in the environment the process was started with."""

    environment: HostEnvironment = HostEnvironment()
    policy: PolicyOptions = PolicyOptions()
    credentials: CredentialOptions = CredentialOptions()
    platform: PlatformOptions = PlatformOptions()
    times: TimeLimits = TimeLimits()
    retry_times: int = 4  # repeats per place
    retry_delay: float | None = None  # seconds, fixed, instead of the doubling ones
    transfer: TransferLimits = TransferLimits()
    tls_verify: bool | None = None  # None leaves it to registries.conf
    cert_dir: str | None = None
    registries_conf: str | None = None
    registries_d: str | None = None
    tmpdir: str = "/var/tmp"
    tmp_limit: int = 16 * 1024**3  # bytes of all temporary files of the process
    partial_dir: str | None = None
    shared_blob_dir: str | None = None
    daemon_host: str | None = None
    local_sources: tuple[str, ...] = ()
    offline: bool = False
    sandbox: bool = True  # confine the process as far as the kernel lets us
    require_sandbox: str | None = None  # the level (process, write, full) below which the program refuses to serve
    decryption_keys: bool = False  # given, though never used: worth a warning when an image has encrypted layers
    user_agent: str = "container-image-proxy"

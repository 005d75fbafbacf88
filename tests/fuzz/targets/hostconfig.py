# SPDX-License-Identifier: Apache-2.0
"""Targets of what the host's administrator wrote: configuration files, variables, options."""

import os
import traceback

from cip.errors import CipError
from cip.explain.credentials import plan_credentials
from cip.hostconfig.authfile import DescriptorFiles
from cip.hostconfig.credhelper import _read_answer as read_helper_answer
from cip.hostconfig.proxyenv import choose_proxy
from cip.hostconfig.registriesconf import RegistriesConfig
from cip.hostconfig.registriesd import _parse_file as parse_registries_d_file
from cip.hostconfig.registriesfile import parse_registries_file
from cip.model.reference import parse_docker_reference
from cip.options import parse_arguments
from cip.programs import ProgramResult
from cip.settings import CredentialOptions, HostEnvironment, Settings
from cip.sources.daemon import parse_daemon_host

from ..engine import Target
from ..mutation import mutate_json

_SECRETS = ("hunter2-is-secret", "aHVudGVyMi1pcy1zZWNyZXQ", "dXNlcjpodW50ZXIyLWlzLXNlY3JldA")

_SECRET_OPTIONS = ("--creds=", "--password=", "--registry-token=")

TOML_WORDS = (
    b"[[registry]]\n",
    b"[[registry.mirror]]\n",
    b'prefix = "*.example.com"\n',
    b'location = "a.b/c"\n',
    b"blocked = true\n",
    b"insecure = true\n",
    b"mirror-by-digest-only = true\n",
    b'pull-from-mirror = "digest-only"\n',
    b"[aliases]\n",
    b'"a" = "b"\n',
    b'"c/d"="e.f/g"\n',
    b"# x\n",
    b'credential-helpers = ["x"]\n',
    b"a = 1979-05-27T07:32:00Z\n",
    b"a = 0x" + b"f" * 5000 + b"\n",
    b"a = inf\n",
    b"a = 9" + b"9" * 5000 + b"\n",
    b"a.b.c = 1\n",
    b"a = " + b"[" * 2000,
    b"a = 2000-13-45\n",
    b'"' * 3,
    b"'" * 3,
    b"unqualified-search-registries = ['x']\n",
    b"short-name-mode = 'x'\n",
    b"a" + b".a" * 2000 + b" = 1\n",
)
_YAML_WORDS = (
    b"docker:\n",
    b"default-docker:\n",
    b"  lookaside: https://x\n",
    b"  use-sigstore-attachments: true\n",
    b"&a ",
    b"*a ",
    b"<<: *a\n",
    b"!!python/object:os.system ",
    b"!!binary ",
    b"---\n",
    b"...\n",
    b"? ",
    b"- ",
    b"|\n",
    b">\n",
    b"%YAML 9.9\n",
    b"%TAG ! x\n",
    b"{" * 300,
    b"[" * 300,
    b"2001-99-99",
    b"0b2",
    b"0x",
    b"1:99",
    b"\t",
    b"\x85",
    b"!<x> ",
)
_OPTION_WORDS = (
    b"--sockfd=",
    b"--",
    b"--tls-verify=false\n",
    b"--min-rate=1k\n",
    b"--open-timeout=1m30s\n",
    b"--creds=a:b\n",
    b"explain\n",
    b"--max-bytes=99999999999999999999G\n",
    b"--retry-delay=1e9\n",
    b"--idle-timeout=nan\n",
    b"--json\n",
    b"--log-level=x\n",
    b"--registry-token=hunter2-is-secret\n",
)


def _require_no_secret(text: str) -> None:
    assert not any(secret in text for secret in _SECRETS), text


def _registries_conf(data: bytes) -> None:
    """registries.conf, and the places that it makes of a name."""
    rules, helpers, _ = parse_registries_file("/registries.conf", data)
    config = RegistriesConfig(tuple(rules.values()), helpers or ())
    for name in ("docker.io/library/a:1", "registry.example.com/ns/repo", "registry.example.com:5000/a"):
        for place in config.places(parse_docker_reference(name)):
            assert place.reference.domain and parse_docker_reference(str(place.reference)) == place.reference


def _registries_d(data: bytes) -> None:
    """A file of registries.d."""
    for scope, section in parse_registries_d_file("/registries.d/a.yaml", data):
        assert scope is None or isinstance(scope, str)
        assert section.lookaside is None or isinstance(section.lookaside, str)


class _OneFile(DescriptorFiles):
    """All files are this one."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data

    def read(self, path: str) -> bytes | None:
        return self._data


def _auth_file(data: bytes) -> None:
    """auth.json; whatever is wrong with it, no secret is told."""
    settings = Settings(credentials=CredentialOptions(authfile="/auth.json"))
    try:
        for name in ("registry.example.com/ns/repo", "docker.io/library/a"):
            plan = plan_credentials(
                name, settings=settings, registries=RegistriesConfig(), files=_OneFile(data), warn=_require_no_secret
            )
            _require_no_secret(repr(plan))
    except CipError as error:
        _require_no_secret("".join(traceback.format_exception(error)))
        raise


def _helper(data: bytes) -> str:
    """What a credential helper prints; no secret is told."""
    try:
        credentials = read_helper_answer("docker-credential-x", ProgramResult(0, data, data))
    except CipError as error:
        _require_no_secret("".join(traceback.format_exception(error)))
        raise
    assert not any(letter in part for part in credentials for letter in "\r\n\0")
    return "token" if credentials.identity_token else "password"


def _proxy(data: bytes) -> None:
    """The proxy variables of the environment."""
    proxy, _, exceptions = os.fsdecode(data).partition("\n")
    environment = HostEnvironment({"HTTPS_PROXY": proxy, "NO_PROXY": exceptions})
    try:
        for host in ("registry.example.com", "10.1.2.3", "fd00::1"):
            found = choose_proxy(environment, "https", host, 443)
            if found is not None:
                assert 0 < found.port < 65536 and found.host and found.host.isprintable()
    except CipError as error:
        _require_no_secret(str(error))
        raise


def _command_line(data: bytes) -> None:
    """Options and their values, a line each; no secret is told unless it stands where an option's name should."""
    lines = os.fsdecode(data).split("\n")
    try:
        parse_arguments(lines, "container-image-proxy", HostEnvironment())
    except CipError as error:
        if all(line.startswith(_SECRET_OPTIONS) for line in lines if any(secret in line for secret in _SECRETS)):
            _require_no_secret("".join(traceback.format_exception(error)))
        raise


def _daemon_host(data: bytes) -> None:
    """--daemon-host."""
    address = parse_daemon_host(os.fsdecode(data))
    assert address.path or (address.host and 0 < address.port < 65536)


TARGETS = (
    Target("registries-conf", _registries_conf, TOML_WORDS),
    Target("registries-d", _registries_d, _YAML_WORDS),
    Target("auth-file", _auth_file, (b'"auths":{', b'"auth":"', b'"credHelpers":{', b'"identitytoken":"'), mutate_json),
    Target("helper", _helper, (b'"Username":"<token>"', b'"Secret":"', b"}{", b"\n"), mutate_json),
    Target("proxy", _proxy, (b"http://", b"socks5://", b"user:pass@", b"[::1]:1", b"*", b"10.0.0.0/8", b"\n.x.com")),
    Target("command-line", _command_line, _OPTION_WORDS),
    Target("daemon-host", _daemon_host, (b"unix://", b"tcp://", b"https://", b"[", b"]", b":99999", b"u@", b"/x?y#z")),
)

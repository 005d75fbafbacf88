# SPDX-License-Identifier: Apache-2.0
"""certs.d: the authorities a registry is trusted by, with the certificates we show it (registry.md 5.1).

Only names are read here; what the files hold is read when a connection needs it.
"""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .. import log
from ..errors import ConfigurationError, InvalidInputError, quote_own, system_reason
from ..settings import Settings
from .paths import ConfigurationFile, certificate_directories


class Certificates(NamedTuple):
    """What one directory has for a host; `directory` is empty when there is none.

    `authorities` are PEM files to be trusted beside the system's, `pairs` client certificates with their keys.
    """

    directory: str = ""
    authorities: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    looked_at: tuple[ConfigurationFile, ...] = ()


def find_certificates(host: str, settings: Settings, *, warn: Callable[[str], None] = log.warning) -> Certificates:
    """The certificates for `host`, which is `name` or `name:port` exactly as the reference has it.

    The first directory that exists counts, even when it is empty; one that we may not look into counts as absent:
    less is trusted then, never more, and `warn` is told. Raises ConfigurationError for half a pair.
    """
    if not host or "/" in host or "\0" in host or host in (".", ".."):
        raise InvalidInputError(f"{quote_own(host)}: expected HOST or HOST:PORT")
    looked_at: list[ConfigurationFile] = []
    found = Certificates()
    for directory in certificate_directories(host, settings):
        names: list[str] | None = None
        try:
            names = sorted(os.listdir(directory), key=os.fsencode)
        except FileNotFoundError:
            if settings.cert_dir is not None:
                warn(f"--cert-dir: {quote_own(directory)} does not exist")
        except PermissionError:
            warn(f"{directory}: permission denied, not used")
        except (OSError, ValueError) as error:
            raise ConfigurationError(directory, f"cannot be listed: {system_reason(error)}") from error
        looked_at.append(ConfigurationFile(directory, "certificates", names is not None))
        if names is not None:
            found = _collect(directory, names)
            break
    return found._replace(looked_at=tuple(looked_at))


def _collect(directory: str, names: Sequence[str]) -> Certificates:
    present = frozenset(names)

    def paths(ending: str) -> tuple[str, ...]:
        return tuple(os.path.join(directory, name) for name in names if name.endswith(ending))

    for ending, other, what, hint in (
        (".cert", ".key", "key", ""),
        (".key", ".cert", "certificate", ": a certificate that ends in .crt is taken for an authority"),
    ):
        for path in paths(ending):
            beside = os.path.basename(path).removesuffix(ending) + other
            if beside not in present:
                why = f"expected its {what} {quote_own(beside)} beside it, found none{hint}"
                raise ConfigurationError(path, why)
    pairs = tuple((path, path.removesuffix(".cert") + ".key") for path in paths(".cert"))
    return Certificates(directory, paths(".crt"), pairs)

# SPDX-License-Identifier: Apache-2.0
"""The platforms this host wants from an index, most wanted first (images.md section 6)."""

from __future__ import annotations

import os
from contextlib import suppress

from ..model.descriptor import Platform
from ..model.platform import wanted_platforms
from ..settings import PlatformOptions

CPUINFO_LIMIT = 16 * 1024  # bytes read of /proc/cpuinfo: the first processor is enough, and each costs the kernel time


def host_platforms(options: PlatformOptions) -> tuple[Platform, ...]:
    """The wanted platforms for the overrides in `options` on this machine."""
    machine = os.uname().machine
    cpuinfo = ""
    if machine.startswith(("arm", "aarch64", "x86_64")):
        # without it no variant can be told; the ladder without one is used
        with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            cpuinfo = file.read(CPUINFO_LIMIT)
    return wanted_platforms(options.os, options.architecture, options.variant, machine, cpuinfo)

# SPDX-License-Identifier: Apache-2.0
"""The targets by name: every parser that reads foreign bytes."""

from collections.abc import Mapping

from ..engine import Target
from . import bundle, files, hostconfig, model, registry, storage, trust, wire

TARGETS: Mapping[str, Target] = {
    target.name: target
    for room in (model, files, storage, registry, hostconfig, trust, bundle, wire)
    for target in room.TARGETS
}

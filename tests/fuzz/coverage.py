# SPDX-License-Identifier: Apache-2.0
"""Runs one target under atheris, which keeps the inputs that reach new code; needs the package `atheris`."""

from __future__ import annotations

import sys
import tempfile
from random import Random

from .engine import MEMORY_LIMIT, SEEDS, Finding
from .mutation import MAXIMUM


def fuzz_by_coverage(name: str, seconds: float, inputs: int, seed: int) -> None:
    """Fuzz the target `name`; the process ends in here, with a status other than 0 when something was found."""
    import atheris  # type: ignore[import-untyped]

    with atheris.instrument_imports(include=["cip"], enable_loader_override=False):
        from .engine import arm, judge, next_input
        from .targets import TARGETS
    from cip import log

    log.set_threshold(log.Level.ERROR)
    arm()
    target = TARGETS[name]

    def run(data: bytes) -> None:
        judged = judge(target, data)
        if isinstance(judged, Finding):
            raise RuntimeError(f"{judged.place}\n{judged.report}")

    def change(data: bytes, limit: int, number: int) -> bytes:
        """Half of the changes are ours, which know the format; libFuzzer's know which bytes were compared."""
        if number % 2:
            return atheris.Mutate(data, limit)  # type: ignore[no-any-return]
        return next_input(Random(number), target, [data])[:limit]

    with tempfile.TemporaryDirectory(prefix="cip-fuzz-") as corpus:
        arguments = [
            sys.argv[0],
            f"-max_total_time={max(1, round(seconds))}",
            f"-runs={inputs}",
            f"-seed={seed or 1}",
            f"-max_len={MAXIMUM}",
            "-timeout=20",
            f"-rss_limit_mb={2 * MEMORY_LIMIT >> 20}",
            f"-artifact_prefix={tempfile.gettempdir()}/cip-fuzz-{name}-",
            corpus,
            str(SEEDS / name),
        ]
        atheris.Setup(arguments, run, custom_mutator=change)
        atheris.Fuzz()

# SPDX-License-Identifier: Apache-2.0
"""Runs one target: mutated inputs until time or number is up; whatever is neither accepted nor a typed error is found.

An input whose outcome is new (another error, another sentence) joins the corpus: sentences are the coverage.
"""

from __future__ import annotations

import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

from cip.errors import CipError
from cip.wire.problem import encode, problem

from .mutation import MAXIMUM, Mutate, mutate

SEEDS = Path(__file__).parent / "seeds"
CORPUS_LIMIT = 400  # inputs kept in memory
MESSAGE_LIMIT = 8192  # characters of an error
PROBLEM_LIMIT = 8192  # bytes of a problem document (decisions.md section 4)
INPUT_SECONDS = 2.0  # of processor time for one input; the largest takes a hundredth of it
MEMORY_LIMIT = 1 << 30  # bytes of address space beyond what the process has when it begins
FINDINGS_LIMIT = 5  # different ones, after which a target is given up
_MINIMISING_TRIES = 1000
_ACCEPTED = "accepted"
_CHANGING = re.compile(
    r"""'(?:[^'\\…]|\\[^…])*\\?(?:'|…|$)|"(?:[^"\\…]|\\[^…])*\\?(?:"|…|$)|[0-9a-fA-F]*[0-9][0-9a-fA-F]*"""
)


class Target(NamedTuple):
    """A parser under test: `run` returns or raises CipError, and asserts what must hold for what it accepted.

    A text that `run` returns tells one kind of acceptance from another. `tokens` are words of the format, `structure`
    changes an input by its structure.
    """

    name: str
    run: Callable[[bytes], object]
    tokens: Sequence[bytes] = ()
    structure: Mutate | None = None


class Finding(NamedTuple):
    """An input that something else came out of; `place` tells findings apart, `report` is for people."""

    data: bytes
    place: str
    report: str


class Outcome(NamedTuple):
    """What became of a target: how many inputs in how many seconds, how many different outcomes, and findings."""

    inputs: int
    seconds: float
    outcomes: int
    findings: tuple[Finding, ...]


class _TooSlowError(BaseException):
    """An input took longer than INPUT_SECONDS; not an Exception, so that no parser takes it for its own."""


def seeds(name: str) -> list[bytes]:
    """The checked-in inputs of a target."""
    found = [path.read_bytes() for path in sorted((SEEDS / name).iterdir())]
    assert found, f"{name}: no seeds"
    return found


def fuzz(target: Target, *, seconds: float, inputs: int, seed: int) -> Outcome:
    """Run `target` on its seeds, then on what becomes of them, for `seconds` or `inputs`, whichever comes first."""
    random = Random(f"{target.name}:{seed}")
    corpus = seeds(target.name)
    known = {judged for judged in (judge(target, data) for data in corpus) if isinstance(judged, str)}
    findings: dict[str, Finding] = {}
    for data in corpus:
        _note(target, data, findings)
    begin = time.monotonic()
    done = 0
    while done < inputs and time.monotonic() - begin < seconds and len(findings) < FINDINGS_LIMIT:
        for _ in range(min(100, inputs - done)):
            done += 1
            data = next_input(random, target, corpus)
            judged = judge(target, data)
            if isinstance(judged, Finding):
                _note(target, data, findings)
            elif judged not in known and len(known) < 100_000:
                known.add(judged)
                if len(corpus) < CORPUS_LIMIT:
                    corpus.append(data)
                else:
                    corpus[random.randrange(CORPUS_LIMIT)] = data
    return Outcome(done, time.monotonic() - begin, len(known), tuple(findings.values()))


def next_input(random: Random, target: Target, corpus: Sequence[bytes]) -> bytes:
    """A new input out of the corpus."""
    data = random.choice(corpus)
    if target.structure is not None and random.random() < 0.7:
        data = target.structure(random, data)
        if random.random() < 0.7:
            return data
    return mutate(random, data, corpus, target.tokens)[:MAXIMUM]


def judge(target: Target, data: bytes) -> str | Finding:
    """How `target` takes `data`: a word for its outcome, or a finding."""
    try:
        with _time_limit():
            try:
                accepted = target.run(data)
                return f"{_ACCEPTED} {_generalised(accepted)}" if isinstance(accepted, str) else _ACCEPTED
            except CipError as error:
                return _judge_error(error)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return Finding(data, _place(error), "".join(traceback.format_exception(error, limit=-12)))


def _judge_error(error: CipError) -> str:
    """A typed error must be fit to be told: one line, short, and a problem document within its limit."""
    message = str(error)
    assert message, f"{type(error).__name__}: an empty message"
    assert len(message) <= MESSAGE_LIMIT, f"a message of {len(message)} characters: {message[:300]}"
    control = re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", message)
    assert control is None, f"a control character in a message: {message[:300]!r}"
    size = len(encode(problem(error)))
    assert size <= PROBLEM_LIMIT, f"a problem document of {size} bytes"
    return f"{type(error).__name__}:{error.code}:{_generalised(message)}"


def _generalised(message: str) -> str:
    """A sentence without what the input put into it."""
    return _CHANGING.sub("", message)[:200]


def _note(target: Target, data: bytes, findings: dict[str, Finding]) -> None:
    judged = judge(target, data)
    if isinstance(judged, Finding) and judged.place not in findings:
        findings[judged.place] = minimise(target, judged)


def minimise(target: Target, finding: Finding) -> Finding:
    """A shorter input with the same finding, if there is one."""
    tries = 0
    step = max(1, len(finding.data) // 2)
    while step and tries < _MINIMISING_TRIES and "_TooSlowError" not in finding.place:
        at = 0
        while at < len(finding.data) and tries < _MINIMISING_TRIES:
            tries += 1
            judged = judge(target, finding.data[:at] + finding.data[at + step :])
            if isinstance(judged, Finding) and judged.place == finding.place:
                finding = judged
            else:
                at += step
        step //= 2
    return finding


def _place(error: BaseException) -> str:
    """The kind of the error and the line of ours that it came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/cip/" in frame.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "the target"
    return f"{type(error).__name__} at {where}"


@contextmanager
def _time_limit() -> Iterator[None]:
    signal.setitimer(signal.ITIMER_PROF, INPUT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def arm() -> None:
    """Make the limit of time work in this process, in its main thread."""
    signal.signal(signal.SIGPROF, _stop)


def confine() -> None:
    """Limit the memory of this process, which does nothing else."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + MEMORY_LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.setrecursionlimit(1000)


def _stop(number: int, frame: object) -> None:
    raise _TooSlowError(f"more than {INPUT_SECONDS} seconds of processor time")

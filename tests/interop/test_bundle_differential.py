# SPDX-License-Identifier: Apache-2.0
"""Our verdict on generated bundles beside those of cosign 3 and of the Python library `sigstore`.

The rule: nothing is accepted that both refuse, and what one alone refuses only where tests/spec/bundles.md has it as
harmless. The letters that the specification gives for its vectors are held against the oracles as well.
"""

import copy
import json
import os
import unittest
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any, NamedTuple

from cip.errors import SignatureError
from tests.support.bundlecases import CASES, FILE, Case, judge, made
from tests.support.bundles import IMAGE, V1, V2, World
from tests.support.oracles import Question, ask_cosign, ask_library
from tests.support.sigstore import pem

# refused by both and accepted here: trusted roots of version 0.2, which the protocol demands; what the conformance
# suite demands under the name dsse-with-hashedrekord-happy-path; a log named by its whole address (rekor-v2-spec)
NEITHER = {"R17", "T246 both the address", "T132 hashedrekord about an envelope"}
RANDOM_BUNDLES = 120
SEED = 18
# accepted here, refused by one of them: bundles.md section 9, last paragraph
HARMLESS = {
    "C": NEITHER
    | {"K10", "K10c", "K10 logged", "K10b logged", "B38 the same", "E18", "M04", "R16"}
    | {"R18 alone", "R18 all of it", "R20"},
    # the library reads fewer forms than cosign and this program: its `P!` rows that are accepted, and their kin:
    # `null`, one log entry, the first certificate of a chain, SHA-256 with every curve
    "P": NEITHER
    | {"B15", "B36", "C05", "C07", "C18", "C18 P-521", "C20", "C21", "P10b", "P12b", "P12b without operators", "R01"}
    | {"R25", "R25 behind another", "T133 hash of the key", "T223", "T228", "T243 two logs"}
    | {"T244 unknown log beside a known one", "random 0"},  # treeSize 0 as a number: B15 and T223 in one
}


class Judged(NamedTuple):
    """One bundle with all verdicts; None where an oracle was not asked."""

    case: Case
    ours: str
    cosign: str | None
    library: str | None


def _questions(world: World) -> list[tuple[Case, Question | None, bytes]]:
    """Every vector that an oracle can judge, then bundles with one random change."""
    found = [(case, case.text(case.make(world).data)) for case in CASES]
    for number, data in enumerate(_random_bundles(world)):
        found.append((Case(f"random {number}", "?", made(), file=FILE if b"messageSignature" in data else None), data))
    asked: list[tuple[Case, Question | None, bytes]] = []
    for case, data in found:
        identity = case.identity
        whom = identity and (identity.uri or identity.email or identity.other_name)
        if (case.root is None and not case.keys) or not (whom or case.keys) or (identity and identity.build_signer_uri):
            asked.append((case, None, data))
            continue
        change = case.root_of(world) if case.root_of else case.root
        root = json.dumps(world.trusted_root(change or (lambda document: document)))
        try:
            keys = tuple(case.keys(world)) if case.keys else ()
        except SignatureError:
            keys = ()
        key = pem(keys[0].spki, "PUBLIC KEY") if keys else None
        if case.keys and (len(keys) != 1 or (case.root is None and case.log_entries)):
            asked.append((case, None, data))
            continue
        question = Question(
            case.name,
            data,
            root,
            IMAGE,
            whom or "",
            identity.oidc_issuer if identity else "",
            case.file,
            key,
            bool(case.log_entries),
        )
        asked.append((case, question, data))
    return asked


def _random_bundles(world: World) -> list[bytes]:
    """Honest bundles of all kinds with one leaf of their JSON changed, taken out, or put in another's place."""
    bases = [world.bundle(V2), world.bundle(V1), world.bundle(V2, file=FILE), world.bundle(V1, stamps=[{}])]
    made_so: list[bytes] = []
    for number in range(RANDOM_BUNDLES):
        random = Random(f"{SEED}:{number}")  # lengths of signatures differ from run to run
        document = copy.deepcopy(bases[number % len(bases)].document)
        leaves = list(_leaves(document))
        holder, key = random.choice(leaves)
        other_holder, other_key = random.choice(leaves)
        action = random.randrange(4)
        value = holder[key]
        if action == 0 and isinstance(value, str) and value:
            at = random.randrange(len(value))
            holder[key] = value[:at] + random.choice("AZaz09+/=- \n") + value[at + 1 :]
        elif action == 1:
            holder[key] = other_holder[other_key]
        elif action == 2:
            holder[key] = random.choice(["", None, "0", 0, [], {}, "AAAA", "=", str(2**63)])
        elif isinstance(holder, dict):
            del holder[key]
        else:
            holder.append(value)
        made_so.append(json.dumps(document).encode())
    return made_so


def _leaves(node: Any) -> Any:
    for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        if isinstance(value, dict | list):
            yield from _leaves(value)
        else:
            yield node, key


class DifferentialTest(unittest.TestCase):
    judged: list[Judged]

    @classmethod
    def setUpClass(cls) -> None:
        world = World()
        asked = _questions(world)
        for_library = [question for case, question, _ in asked if question and not case.keys]
        library = dict(zip((each.name for each in for_library), ask_library(for_library), strict=True))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            cosign = list(pool.map(lambda each: ask_cosign(each[1]) if each[1] else None, asked))
        cls.judged = []
        for (case, question, data), said in zip(asked, cosign, strict=True):
            try:
                judge(case, world, data)
            except SignatureError as error:
                ours = f"{error.reason}: {error}"
            else:
                ours = ""
            cls.judged.append(Judged(case, ours, said, library.get(question.name) if question else None))

    def test_enough_bundles_were_judged_by_both(self) -> None:
        both = [each for each in self.judged if each.cosign is not None and each.library is not None]
        self.assertGreaterEqual(len(both), 300)
        self.assertGreaterEqual(sum(each.cosign == each.library == each.ours == "" for each in both), 40)

    def test_nothing_is_accepted_that_they_refuse(self) -> None:
        for each in self.judged:
            name, answers = each.case.name, {"C": each.cosign, "P": each.library}
            refusing = {letter for letter, answer in answers.items() if answer}
            if each.ours or not refusing:
                continue
            with self.subTest(name, **answers):
                asked = {letter for letter, answer in answers.items() if answer is not None}
                if name not in NEITHER:
                    self.assertFalse(refusing == asked and len(asked) == 2, "accepted, and both refuse")
                for letter in refusing:
                    self.assertIn(name, HARMLESS[letter])

    def test_the_letters_of_the_specification_hold(self) -> None:
        for each in self.judged:
            for letter in each.case.oracles.split():
                answer = each.cosign if letter[0] == "C" else each.library
                if answer is None:
                    continue
                agrees = bool(answer) == bool(each.case.expected)
                with self.subTest(each.case.name, oracle=letter, answer=answer):
                    self.assertEqual(agrees, not letter.endswith("!"))


if __name__ == "__main__":
    unittest.main()

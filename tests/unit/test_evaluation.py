# SPDX-License-Identifier: Apache-2.0
"""Which requirements apply, how they combine, and what the decision tells (signatures.md 1.3, 2.1, 6; rows S, C, X)."""

from __future__ import annotations

import json
import unittest
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from cip.errors import NetworkError, PolicyRejectedError, SignatureError
from cip.model.descriptor import Digest, digest_of
from cip.model.reference import (
    ImageIdentity,
    Transport,
    docker_identity,
    nameless_identity,
    parse_docker_reference,
    path_identity,
)
from cip.rooms import present
from cip.trust.evaluation import (
    Decision,
    ImageRejectedError,
    InstanceUnavailableError,
    require_accepted,
    require_complete,
    require_index_or_instance,
    select_requirements,
)
from cip.trust.policy import Acceptance, Policy, Requirement, TrustTools, UnverifiedImage, name_of, parse_policy
from tests.support.roomed import needs_rooms
from tests.support.signatures import DIGEST, docker, tools, unverified

if TYPE_CHECKING:
    from cip.model.signature import SignatureResult

ACCEPT = {"type": "insecureAcceptAnything"}
REJECT = {"type": "reject"}
SIGNED_BY = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/missing"}


def policy(default: Sequence[Mapping[str, Any]], **transports: Mapping[str, Any]) -> Policy:
    named = {name.replace("_", "-"): scopes for name, scopes in transports.items()}
    return parse_policy(json.dumps({"default": default, "transports": named}).encode(), "/etc/policy.json")


class Scripted(NamedTuple):
    """A requirement of the tests: accepts manifests that start with `wanted`."""

    wanted: bytes = b""
    kind: str = "scripted"
    verifies: bool = True
    reason: str = "untrusted"

    def check(self, image: UnverifiedImage, tools: TrustTools, seen: list[SignatureResult]) -> Acceptance:
        accepted = image.manifest.startswith(self.wanted)
        reason = "" if accepted else self.reason
        told = SimpleNamespace(source=f"signature of {self.kind}", kind="simple", accepted=accepted, reason=reason)
        told.__dict__.update(detail="", key="", certificate=None, claims=None, bundle=None)
        seen.append(cast("SignatureResult", told))  # the core passes on what a room has made
        if not accepted:
            raise PolicyRejectedError(f"{self.kind} does not like it", reason=reason)
        return Acceptance(digest_of(image.manifest), name_of(image.identity), image.manifest)


def scripted(*requirements: Requirement) -> Policy:
    return Policy("/etc/policy.json", "ab", requirements, {})


class SelectionTest(unittest.TestCase):
    def accepted(self, chosen: Policy, identity: ImageIdentity) -> str:
        """The scope that accepts; refusals are asserted to be DENY."""
        return require_accepted(chosen, unverified(identity=identity), tools(), require_signed=False).scope

    def denied(self, scope: str, chosen: Policy, identity: ImageIdentity) -> None:
        with self.assertRaisesRegex(ImageRejectedError, "images of this scope are refused") as caught:
            self.accepted(chosen, identity)
        self.assertEqual(caught.exception.reason, "deny")
        self.assertEqual(caught.exception.decision.scope, scope)

    def test_s01_most_specific_scope_wins(self) -> None:
        chosen = policy([ACCEPT], docker={"example.com": [ACCEPT], "example.com/ns": [REJECT]})
        self.denied("docker:example.com/ns", chosen, docker("example.com/ns/i:t"))
        self.assertEqual(self.accepted(chosen, docker("example.com/i:t")), "docker:example.com")

    def test_s02_empty_scope_is_the_default_of_its_transport(self) -> None:
        chosen = policy([ACCEPT], docker={"": [REJECT]})
        self.denied("docker:", chosen, docker("anything:t"))
        self.assertEqual(self.accepted(chosen, path_identity(Transport.DIR, "/a")), "default")

    def test_s03_s04_s05_wildcards_cover_sub_domains_alone(self) -> None:
        chosen = policy([REJECT], docker={"*.example.com": [ACCEPT]})
        self.assertEqual(self.accepted(chosen, docker("a.b.example.com:5000/x:1")), "docker:*.example.com")
        self.denied("default", chosen, docker("example.com/x:1"))
        for scope in ("*.example.com:5000", "*.example.com/ns", "*"):
            self.denied("default", policy([REJECT], docker={scope: [ACCEPT]}), docker("a.example.com:5000/ns/x:1"))

    def test_s06_s07_host_is_compared_byte_for_byte(self) -> None:
        self.denied("default", policy([REJECT], docker={"example.com": [ACCEPT]}), docker("example.com:5000/x:1"))
        hazard = policy([ACCEPT], docker={"example.com": [REJECT]})
        self.assertEqual(self.accepted(hazard, docker("EXAMPLE.com/x:1")), "default")

    def test_s08_s09_short_names_are_expanded_first(self) -> None:
        spellings = ("busybox", "docker.io/busybox", "index.docker.io/library/busybox")
        for text in spellings:
            self.accepted(policy([REJECT], docker={"docker.io/library/busybox": [ACCEPT]}), docker(text))
            for scope in ("busybox", "index.docker.io"):
                self.denied("default", policy([REJECT], docker={scope: [ACCEPT]}), docker(text))

    def test_s10_tag_scope_does_not_cover_digests(self) -> None:
        chosen = policy([REJECT], docker={"example.com/ns/r:v1": [ACCEPT]})
        self.assertEqual(self.accepted(chosen, docker("example.com/ns/r:v1")), "docker:example.com/ns/r:v1")
        self.denied("default", chosen, docker(f"example.com/ns/r@{DIGEST}"))

    def test_every_scope_of_a_reference_in_order(self) -> None:
        scopes = ["a.b.example.com:5000/ns/r:t", "a.b.example.com:5000/ns/r", "a.b.example.com:5000/ns"]
        scopes += ["a.b.example.com:5000", "*.b.example.com", "*.example.com", "*.com", ""]
        while scopes:
            chosen = policy([REJECT], docker={scope: [ACCEPT] for scope in scopes})
            self.assertEqual(self.accepted(chosen, docker("a.b.example.com:5000/ns/r:t")), f"docker:{scopes.pop(0)}")

    def test_paths_have_their_parents_as_scopes_but_not_the_root(self) -> None:
        identity = path_identity(Transport.DIR, "/a/b/c")
        for scope in ("/a/b/c", "/a/b", "/a", ""):
            self.assertEqual(self.accepted(policy([REJECT], dir={scope: [ACCEPT]}), identity), f"dir:{scope}")
        self.denied("default", policy([REJECT], dir={"/a/b/c/d": [ACCEPT], "/b": [ACCEPT]}), identity)

    def test_image_without_a_name_finds_the_empty_scope(self) -> None:
        chosen = policy([REJECT], docker_archive={"": [ACCEPT]})
        self.assertEqual(self.accepted(chosen, nameless_identity(Transport.DOCKER_ARCHIVE)), "docker-archive:")

    def test_scopes_of_another_transport_do_not_count(self) -> None:
        identity = docker_identity(Transport.DOCKER_DAEMON, parse_docker_reference("example.com/r:v1"))
        self.denied("default", policy([REJECT], docker={"example.com": [ACCEPT]}), identity)

    def test_lists_are_never_merged(self) -> None:
        chosen = policy([REJECT], docker={"": [REJECT], "example.com": [ACCEPT]})
        self.assertEqual(len(select_requirements(chosen, docker("example.com/r:v1"))[1]), 1)


class JudgingCase(unittest.TestCase):
    def judge(self, chosen: Policy, image: UnverifiedImage | None = None, *, require_signed: bool = False) -> Decision:
        return require_accepted(chosen, image or unverified(), tools(), require_signed=require_signed)

    def refuse(
        self, reason: str, words: str, chosen: Policy, image: UnverifiedImage | None = None, *, signed: bool = False
    ) -> ImageRejectedError:
        with self.assertRaisesRegex(ImageRejectedError, words) as caught:
            self.judge(chosen, image, require_signed=signed)
        self.assertEqual(caught.exception.reason, reason)
        self.assertFalse(caught.exception.decision.accepted)
        return caught.exception


class CombinationTest(JudgingCase):
    @needs_rooms("openpgp")
    def test_c01_c02_all_requirements_must_accept(self) -> None:
        self.refuse("deny", "images of this scope are refused", policy([ACCEPT, REJECT]))
        self.refuse("nosig", "no simple signature found", policy([ACCEPT, SIGNED_BY]))

    def test_first_refusal_ends_the_evaluation(self) -> None:
        error = self.refuse("deny", "refused by reject in", policy([ACCEPT, REJECT, SIGNED_BY]), unverified())
        self.assertEqual([each.kind for each in error.decision.requirements], ["insecureAcceptAnything", "reject"])
        self.assertEqual(error.decision.signatures, ())

    def test_c10_unreadable_signatures_do_not_matter_when_none_is_needed(self) -> None:
        def fetch() -> Sequence[Any]:
            raise SignatureError("unreadable", reason="fetch")

        self.judge(policy([ACCEPT]), unverified()._replace(signatures=fetch))
        self.refuse("deny", "", policy([REJECT]), unverified()._replace(signatures=fetch))

    def test_c14_c15_require_signed_wants_a_requirement_that_verifies(self) -> None:
        self.refuse("noverify", "--require-signed: no requirement verifies", policy([ACCEPT]), signed=True)
        self.refuse("deny", "images of this scope", policy([REJECT]), signed=True)
        self.judge(Policy("p", "", (*policy([ACCEPT]).default, Scripted()), {}), require_signed=True)
        self.judge(policy([ACCEPT]))

    def test_empty_list_is_a_refusal(self) -> None:
        error = self.refuse("deny", "the policy lists no requirement", Policy("p", "", (), {}))
        self.assertIn("refused by the empty list", str(error))

    def test_message_names_image_requirement_file_and_scope_in_one_line(self) -> None:
        chosen = policy([ACCEPT], docker={"example.com": [REJECT]})
        error = self.refuse("deny", "", chosen)
        self.assertEqual(
            str(error),
            "docker: 'example.com/ns/r:v1': refused by reject in /etc/policy.json, scope 'docker:example.com': "
            "images of this scope are refused",
        )


class DecisionTest(unittest.TestCase):
    def test_signatures_that_nobody_asked_for_were_not_looked_for(self) -> None:
        def never() -> Sequence[str]:
            raise AssertionError("asked")

        decision = require_accepted(policy([ACCEPT]), unverified(looked_for=never), tools(), require_signed=False)
        self.assertIsNone(decision.looked_for)
        asked = require_accepted(scripted(Scripted()), unverified(), tools(), require_signed=False)
        self.assertEqual(asked.looked_for, ())


class IndexOrInstanceTest(unittest.TestCase):
    """Rows X01 to X03 and X11: all requirements within one of the two, never mixed."""

    INDEX, INSTANCE = b"ab index", b"cd instance"

    def judge(
        self, chosen: Policy, *, index: bytes = INDEX, instance: bytes = INSTANCE, signed: bool = True
    ) -> Decision:
        self.fetched = 0

        def fetch() -> UnverifiedImage:
            self.fetched += 1
            return unverified(manifest=instance, looked_for=lambda: ["both", "of the instance"])

        top = unverified(manifest=index, looked_for=lambda: ["of the index", "both"])
        return require_index_or_instance(chosen, top, fetch, tools(), require_signed=signed)

    def test_x01_accepted_index_needs_no_instance(self) -> None:
        decision = self.judge(scripted(Scripted(b"ab")))
        self.assertEqual([(each.subject, each.accepted) for each in decision.requirements], [("index", True)])
        self.assertEqual(self.fetched, 0)

    def test_x02_accepted_instance_suffices_and_both_are_recorded(self) -> None:
        decision = self.judge(scripted(Scripted(b"cd")))
        self.assertTrue(decision.accepted)
        self.assertEqual(
            [(each.subject, each.accepted) for each in decision.requirements], [("index", False), ("instance", True)]
        )
        self.assertEqual([each.accepted for each in decision.signatures], [False, True])
        self.assertEqual(decision.looked_for, ("of the index", "both", "of the instance"))

    def test_x03_error_of_the_instance_is_told_when_neither_is_accepted(self) -> None:
        with self.assertRaisesRegex(ImageRejectedError, "scripted does not like it") as caught:
            self.judge(scripted(Scripted(b"zz")))
        decision = caught.exception.decision
        self.assertFalse(decision.accepted)
        self.assertEqual([each.subject for each in decision.requirements], ["index", "instance"])
        self.assertEqual(len(decision.signatures), 2)

    def test_x11_requirements_are_never_mixed_between_the_two(self) -> None:
        mixed = scripted(Scripted(b"ab", "one"), Scripted(b"cd", "two"))
        with self.assertRaisesRegex(ImageRejectedError, "one does not like it"):
            self.judge(mixed)
        both = scripted(Scripted(b"cd", "one"), Scripted(b"cd", "two"))
        self.assertTrue(self.judge(both).accepted)

    def test_refusal_that_no_other_manifest_can_cure_fetches_nothing(self) -> None:
        base_layer = policy([{"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}}])
        absent = "unimpl" if "signatures" in present() else "dependency"
        for reason, chosen in (("deny", policy([REJECT])), ("noverify", policy([ACCEPT])), (absent, base_layer)):
            with self.subTest(reason), self.assertRaises(ImageRejectedError) as caught:
                self.judge(chosen)
            self.assertEqual((caught.exception.reason, self.fetched), (reason, 0))

    def test_instance_that_cannot_be_had_is_told_as_such(self) -> None:
        def fetch() -> UnverifiedImage:
            raise NetworkError("gone")

        with self.assertRaisesRegex(InstanceUnavailableError, "gone") as caught:
            require_index_or_instance(
                scripted(Scripted(b"cd")), unverified(manifest=self.INDEX), fetch, tools(), require_signed=True
            )
        self.assertIsInstance(caught.exception.cause, NetworkError)
        self.assertIs(caught.exception.decision.accepted, False)
        self.assertEqual([each.reason for each in caught.exception.decision.requirements], ["untrusted"])

    def test_reason_of_the_signed_index_survives_an_instance_without_signatures(self) -> None:
        """A signed index and the wrong key: "no signature found" would send people to look for one."""

        class Shy(Scripted):
            def check(self, image: UnverifiedImage, tools: TrustTools, seen: list[SignatureResult]) -> Acceptance:
                if image.manifest.startswith(self.wanted):
                    raise PolicyRejectedError("no signature found", reason="nosig")
                raise PolicyRejectedError("signed by another key", reason="crypto")

        for wanted, words, reason in (
            (b"cd", "signed by another key", "crypto"),
            (b"ab", "another key", "crypto"),
            (b"", "no signature found", "nosig"),
        ):
            with self.subTest(wanted), self.assertRaisesRegex(ImageRejectedError, words) as caught:
                self.judge(scripted(Shy(wanted)))
            self.assertEqual(caught.exception.reason, reason)
            self.assertEqual([each.subject for each in caught.exception.decision.requirements], ["index", "instance"])

    def test_looked_for_stays_open_when_no_signature_was_wanted(self) -> None:
        decision = self.judge(policy([ACCEPT]), signed=False)
        self.assertIsNone(decision.looked_for)


class CompleteTest(unittest.TestCase):
    """Whoever acts on a decision holds it against the image: what was forgotten on the way refuses."""

    def setUp(self) -> None:
        self.image = unverified(looked_for=tuple)
        self.digest = digest_of(self.image.manifest)
        self.chosen = scripted(Scripted(kind="one"), Scripted(kind="two"))
        self.decision = require_accepted(self.chosen, self.image, tools(), require_signed=True)

    def refuse(self, words: str, *acceptances: Acceptance, chosen: Policy | None = None, signed: bool = False) -> None:
        changed = self.decision._replace(acceptances=acceptances)
        with self.assertRaisesRegex(PolicyRejectedError, f"the decision is not about this image: {words}") as caught:
            require_complete(changed, chosen or self.chosen, self.image.identity, [self.digest], require_signed=signed)
        self.assertEqual(caught.exception.reason, "digest")

    def test_what_all_requirements_accepted_is_the_image(self) -> None:
        require_complete(self.decision, self.chosen, self.image.identity, [self.digest], require_signed=True)
        stated = b'{"subject": "' + self.digest.encoded.encode() + b'"}'
        shown = tuple(each._replace(payload=stated) for each in self.decision.acceptances)
        signed = self.decision._replace(acceptances=shown)
        require_complete(signed, self.chosen, self.image.identity, [self.digest], require_signed=True)
        lax = policy([ACCEPT])
        decision = require_accepted(lax, self.image, tools(), require_signed=False)
        require_complete(decision, lax, self.image.identity, [self.digest], require_signed=False)

    def test_acceptance_that_is_missing_or_about_something_else_refuses(self) -> None:
        one, two = self.decision.acceptances
        other = Digest("sha256", "0" * 64)
        self.refuse("0 of 2 requirements")
        self.refuse("1 of 2 requirements", one)
        self.refuse("3 of 2 requirements", one, two, two)
        self.refuse("two accepted '.*' with manifest sha256:0000", one, two._replace(digest=other))
        for name in ("example.com/other:v1", "", "a", "z"):
            self.refuse(f"one accepted '{name}' with", one._replace(name=name), two)
        self.refuse("two shows nothing that was signed about", one, two._replace(payload=b""))
        self.refuse("two shows nothing that was signed about", one, two._replace(payload=b"another statement"))

    def test_acceptances_of_index_and_instance_are_never_mixed(self) -> None:
        one, two = self.decision.acceptances
        for text in (b"instance", b"1", b"2", b"3", b"4"):
            instance = digest_of(text)
            mixed = self.decision._replace(acceptances=(one, two._replace(digest=instance, payload=text)))
            with self.assertRaisesRegex(PolicyRejectedError, "two accepted"):
                require_complete(mixed, self.chosen, self.image.identity, [self.digest, instance], require_signed=False)

    def test_refused_decision_and_one_that_verified_nothing_are_refused_again(self) -> None:
        refused = self.decision._replace(accepted=False)
        with self.assertRaisesRegex(PolicyRejectedError, "2 of 2"):
            require_complete(refused, self.chosen, self.image.identity, [self.digest], require_signed=False)
        lax = policy([ACCEPT])
        self.refuse("none of them verifies", self.decision.acceptances[0], chosen=lax, signed=True)

    def test_requirement_that_forgets_to_say_what_it_accepted_accepts_nothing(self) -> None:
        class Silent(Scripted):
            def check(self, image: UnverifiedImage, tools: TrustTools, seen: list[SignatureResult]) -> Acceptance:
                return None  # type: ignore[return-value]

        silent = scripted(Silent())
        decision = require_accepted(silent, self.image, tools(), require_signed=False)
        with self.assertRaises(TypeError):
            require_complete(decision, silent, self.image.identity, [self.digest], require_signed=False)


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""`signedIdentity`: signed name against requested name (signatures.md 3.2, rows I)."""

import unittest

from cip.errors import SignatureError
from cip.model.reference import DockerReference, Transport, parse_docker_reference
from cip.trust.signed.matching import (
    ExactReference,
    ExactRepository,
    IdentityMatcher,
    MatchExact,
    MatchRepoDigestOrExact,
    MatchRepository,
    RemapIdentity,
    require_identity,
)
from tests.support.signatures import NAMELESS, docker

D = f"sha256:{'d' * 64}"
OTHER = f"sha256:{'0' * 64}"
R = "example.com/ns/r"
DEFAULT = MatchRepoDigestOrExact()
MIRROR = RemapIdentity("mirror:5000/v", "vendor.com")


def reference(text: str) -> DockerReference:
    return parse_docker_reference(text)


class MatchingTest(unittest.TestCase):
    def accept(self, matcher: IdentityMatcher, requested: str | None, *signed: str) -> None:
        asked = NAMELESS if requested is None else docker(requested)
        for text in signed:
            with self.subTest(matcher=matcher, requested=requested, signed=text):
                require_identity(matcher, asked, text)

    def refuse(self, words: str, matcher: IdentityMatcher, requested: str | None, *signed: str) -> None:
        asked = NAMELESS if requested is None else docker(requested)
        for text in signed:
            with self.subTest(matcher=matcher, requested=requested, signed=text):
                with self.assertRaisesRegex(SignatureError, words) as caught:
                    require_identity(matcher, asked, text)
                self.assertEqual(caught.exception.reason, "identity")

    def test_of_a_storage_a_tag_and_a_digest_are_one_name(self) -> None:
        """As the library has it, which takes both there; of a registry it takes neither."""
        stored = docker(f"{R}:v1@{D}")._replace(transport=Transport.CONTAINERS_STORAGE)
        remapped = docker(f"mirror:5000/v/r:v1@{D}")._replace(transport=Transport.CONTAINERS_STORAGE)
        for identity, matcher, name in (
            (stored, DEFAULT, R),
            (stored, MatchExact(), R),
            (remapped, MIRROR, "vendor.com/r"),
        ):
            require_identity(matcher, identity, f"{name}:v1@{D}")
            for signed in (f"{name}:v1", f"{name}@{D}", f"{name}:v1@{OTHER}", f"{name}:v2@{D}"):
                with self.subTest(signed), self.assertRaisesRegex(SignatureError, "expected"):
                    require_identity(matcher, identity, signed)
        require_identity(MatchRepository(), stored, f"{R}:v1")
        require_identity(ExactReference(reference(f"{R}:v1")), stored, f"{R}:v1")

    def test_i01_i02_i03_default_wants_the_same_tag(self) -> None:
        self.accept(DEFAULT, f"{R}:v1", f"{R}:v1")
        self.refuse(f"expected exactly {R}:v1", DEFAULT, f"{R}:v1", f"{R}:v2", f"{R}@{D}", f"{R}:v1@{D}")
        self.refuse("a name without tag and digest says too little", DEFAULT, f"{R}:v1", R)
        self.accept(DEFAULT, R, f"{R}:latest")

    def test_i04_i05_i06_default_wants_the_repository_of_a_digest(self) -> None:
        self.accept(DEFAULT, f"{R}@{D}", f"{R}:anything", f"{R}@{OTHER}", f"{R}@{D}", f"{R}:v1@{D}")
        self.refuse("says too little", DEFAULT, f"{R}@{D}", R)
        neighbours = ("example.com/ns/other:v1", "example.com/ns/z:v1", "a.com/ns/r:v1", f"example.com/ns/rr@{D}")
        self.refuse(f"expected a tag or digest of {R}", DEFAULT, f"{R}@{D}", *neighbours)

    def test_default_never_matches_a_bare_name(self) -> None:
        with self.assertRaisesRegex(SignatureError, "expected a tag or digest"):
            DEFAULT.require(reference(R), reference(f"{R}:v1"))

    def test_a_request_with_tag_and_digest_is_one_for_the_digest_that_no_other_tag_may_contradict(self) -> None:
        asked = f"{R}:v1@{D}"
        self.accept(DEFAULT, asked, asked, f"{R}:v1", f"{R}@{D}", f"{R}@{OTHER}")
        self.refuse(f"expected the tag v1 or a digest of {R}", DEFAULT, asked, f"{R}:v2", f"{R}:v2@{D}", "other:v1")
        self.refuse("says too little", DEFAULT, asked, R)
        self.accept(MatchExact(), asked, asked, f"{R}:v1", f"{R}@{D}")
        self.refuse(f"expected exactly {R}:v1 or {R}@{D} or", MatchExact(), asked, f"{R}:v2", f"{R}@{OTHER}", R)
        self.accept(MIRROR, f"mirror:5000/v/p/i:1@{D}", "vendor.com/p/i:1", f"vendor.com/p/i@{D}")
        self.refuse("expected the tag 1", MIRROR, f"mirror:5000/v/p/i:1@{D}", "vendor.com/p/i:2")

    def test_i07_exact_wants_the_same_digest_reference(self) -> None:
        self.accept(MatchExact(), f"{R}@{D}", f"{R}@{D}")
        self.accept(MatchExact(), f"{R}:v1", f"{R}:v1")
        self.refuse("expected exactly", MatchExact(), f"{R}@{D}", f"{R}:v1", f"{R}@{OTHER}", R)
        self.refuse("expected exactly", MatchExact(), f"{R}:v1", R, f"{R}:v2")
        with self.assertRaisesRegex(SignatureError, "expected exactly"):
            MatchExact().require(reference(R), reference(R))

    def test_i08_i09_repository_wants_the_same_name(self) -> None:
        self.accept(MatchRepository(), f"{R}:v1", R, f"{R}:zz", f"{R}@{D}")
        spellings = ("busybox", "library/busybox", "docker.io/busybox", "index.docker.io/library/busybox")
        self.accept(MatchRepository(), "busybox:1", *spellings)

    def test_i10_other_spellings_are_other_names_or_none(self) -> None:
        self.refuse(
            f"expected an image of {R}", MatchRepository(), f"{R}:v1", "EXAMPLE.com/ns/r", "example.com:443/ns/r"
        )
        none = (f" {R}", f"{R}:v1\n", f"docker://{R}", "", "a" * 64, f"{R}:v1 ", f"{R}@sha256:abc", "Example.com/NS/r")
        self.refuse("which is no image reference", MatchRepository(), f"{R}:v1", *none)

    def test_i11_i12_names_of_the_policy_do_not_ask_what_was_requested(self) -> None:
        exact = ExactReference(reference("example.com/ns/z:1"))
        for requested in (f"{R}:v1", None):
            self.accept(exact, requested, "example.com/ns/z:1")
            self.refuse(
                "as the policy says",
                exact,
                requested,
                "example.com/ns/z",
                f"{R}:v1",
                "example.com/ns/z:2",
                "example.com/ns/z:0",
            )
            repository = ExactRepository("example.com/ns/z")
            self.accept(repository, requested, "example.com/ns/z", "example.com/ns/z:any", f"example.com/ns/z@{D}")
            self.refuse(
                "as the policy says",
                repository,
                requested,
                "example.com/ns/z/q:1",
                "example.com/ns:1",
                "example.com/ns/zz:1",
            )

    def test_exact_reference_without_tag_matches_nothing(self) -> None:
        self.refuse("expected exactly", ExactReference(reference(R)), None, R)

    def test_i13_i14_i15_remapped_prefixes(self) -> None:
        self.accept(MIRROR, "mirror:5000/v/p/i:1", "vendor.com/p/i:1")
        self.refuse("expected exactly vendor.com/p/i:1", MIRROR, "mirror:5000/v/p/i:1", "mirror:5000/v/p/i:1")
        for other in ("mirror:5000/vv/p/i:1", "mirror:5000/u/p/i:1", "mirror:5000/w/i:1", "a.com/v/p:1", "z.com/v/p:1"):
            self.accept(MIRROR, other, other)
        self.accept(MIRROR, f"mirror:5000/v/p/i@{D}", "vendor.com/p/i:77")
        self.refuse("says too little", MIRROR, f"mirror:5000/v/p/i@{D}", "vendor.com/p/i")

    def test_i16_prefix_without_the_port_is_another_host(self) -> None:
        self.refuse(
            "expected exactly mirror:5000/v:1",
            RemapIdentity("mirror", "vendor.com"),
            "mirror:5000/v:1",
            "vendor.com/v:1",
        )

    def test_whole_names_are_remapped_too(self) -> None:
        self.accept(RemapIdentity(R, "vendor.com/x"), f"{R}:v1", "vendor.com/x:v1")
        self.accept(RemapIdentity("example.com", "vendor.com"), f"{R}@{D}", f"vendor.com/ns/r@{OTHER}")
        self.accept(RemapIdentity("example.com", "vendor.com"), "vendor.com/x:1", "vendor.com/x:1")

    def test_only_the_leading_prefix_is_replaced(self) -> None:
        self.accept(RemapIdentity("a.b/a.b", "c.d"), "a.b/a.b/a.b/a.b:1", "c.d/a.b/a.b:1")

    def test_i17_result_must_be_spelled_in_full(self) -> None:
        remap = RemapIdentity("example.com", "docker.io")
        self.refuse(
            "expected the full spelling docker.io/library",
            remap,
            "example.com/busybox:1",
            "docker.io/library/busybox:1",
        )

    def test_result_that_is_no_reference_is_refused(self) -> None:
        remap = RemapIdentity("example.com", "NOT/a")
        self.refuse("which is no image reference", remap, "example.com/b:1", "example.com/b:1")

    def test_i18_image_without_a_name_only_matches_names_of_the_policy(self) -> None:
        for matcher in (DEFAULT, MatchExact(), MatchRepository(), MIRROR):
            self.refuse("the image has no name here", matcher, None, f"{R}:v1")


if __name__ == "__main__":
    unittest.main()

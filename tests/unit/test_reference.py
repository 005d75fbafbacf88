# SPDX-License-Identifier: Apache-2.0
"""References: the vector tables of registry.md 10.1 and images.md 12.1 as far as they need no file system."""

import unittest

from cip.errors import ErrorCode, InvalidReferenceError, UnsupportedError, strip_reference
from cip.model.descriptor import parse_digest
from cip.model.reference import (
    DockerReference,
    ImageReference,
    Transport,
    parse_docker_reference,
    parse_image_reference,
    require_name_prefix,
    unmatched_scope,
)

H = "0123456789abcdef" * 4
H64 = "a" * 64
D = f"sha256:{H64}"


def docker(text: str) -> DockerReference:
    reference = parse_image_reference(text).docker
    assert reference is not None
    return reference


class Refusing(unittest.TestCase):
    def refused(self, text: str, reason: str = "") -> None:
        with self.subTest(ascii(text)), self.assertRaisesRegex(InvalidReferenceError, reason) as caught:
            parse_image_reference(text)
        self.assertEqual(caught.exception.code, ErrorCode.REFERENCE_INVALID)
        self.assertTrue(str(caught.exception).isprintable())
        self.assertLess(len(str(caught.exception)), 600)


class Docker(Refusing):
    """`docker://`; the numbers are rows of registry.md 10.1, those with an i of images.md 12.1."""

    def test_names_are_normalised(self) -> None:
        for row, text, expected in (
            ("1", "busybox", "docker.io/library/busybox:latest"),
            ("2", "docker.io/busybox", "docker.io/library/busybox:latest"),
            ("2", "index.docker.io/busybox", "docker.io/library/busybox:latest"),
            ("i2", "index.docker.io/a/b", "docker.io/a/b:latest"),
            ("3", "registry-1.docker.io/library/busybox", "registry-1.docker.io/library/busybox:latest"),
            ("4", "docker.io:443/x", "docker.io:443/x:latest"),
            ("5", "foo/bar", "docker.io/foo/bar:latest"),
            ("6", "localhost/foo", "localhost/foo:latest"),
            ("i5", "localhost:5000/a:t", "localhost:5000/a:t"),
            ("7", "localhost:5000", "docker.io/library/localhost:5000"),
            ("8", "example.com", "docker.io/library/example.com:latest"),
            ("9", "EXAMPLE.com/foo", "EXAMPLE.com/foo:latest"),
            ("i7", "Docker.io/a", "Docker.io/a:latest"),
            ("11", "busybox:UPPER_Tag.1-x", "docker.io/library/busybox:UPPER_Tag.1-x"),
            ("12", "busybox:_x", "docker.io/library/busybox:_x"),
            ("13", "busybox:" + "t" * 128, "docker.io/library/busybox:" + "t" * 128),
            ("14", f"busybox@{D}", f"docker.io/library/busybox@{D}"),
            ("17", "busybox@sha512:" + "a" * 128, "docker.io/library/busybox@sha512:" + "a" * 128),
            ("20", f"docker.io/{H64}", f"docker.io/library/{H64}:latest"),
            ("20", "a" * 63, "docker.io/library/" + "a" * 63 + ":latest"),
            ("i14", f"a/{H}", f"docker.io/a/{H}:latest"),
            ("22", "foo__bar", "docker.io/library/foo__bar:latest"),
            ("22", "foo--bar", "docker.io/library/foo--bar:latest"),
            ("22", "foo---bar", "docker.io/library/foo---bar:latest"),
            ("22", "foo.bar", "docker.io/library/foo.bar:latest"),
            ("25", "example.com:99999999/foo", "example.com:99999999/foo:latest"),
            ("26", "example.com/" + "a" * 243, "example.com/" + "a" * 243 + ":latest"),
            ("29", "a:1/c", "a:1/c:latest"),
            ("29", "a:1", "docker.io/library/a:1"),
            ("i18", "x.y:80", "docker.io/library/x.y:80"),
            ("i20", "x.y/" + "a" * 251, "x.y/" + "a" * 251 + ":latest"),
        ):
            with self.subTest(row, text=ascii(text)):
                reference = parse_image_reference(f"docker://{text}")
                self.assertEqual(str(reference.docker), expected)
                self.assertEqual((reference.transport, str(reference)), (Transport.DOCKER, f"docker://{text}"))

    def test_a_password_in_a_reference_is_refused_and_not_repeated(self) -> None:
        digest = f"sha256:{'a' * 64}"
        for text in (
            "docker://user:PASSWORD@example.com/x",
            "docker://user:PASSWORD@example.com:5000/x:1",
            "docker://user:a/PASSWORD@example.com/x",
            "docker://user:a@PASSWORD b'\"@example.com/x",
            f"docker://user:PASSWORD@example.com/x@{digest}",
            "docker://https://user:PASSWORD@example.com/x",
            "DOCKER://user:PASSWORD@example.com/x",
            "docker-daemon:user:PASSWORD@example.com/x:1",
            "docker-archive:/a.tar:user:PASSWORD@example.com/x:1",
            "docker-archive:/a.tar:docker://user:PASSWORD@example.com/x:1",
            "docker-archive:user:PASSWORD@example.com/x.tar",
            "containers-storage:user:PASSWORD@example.com/x",
            "containers-storage:[overlay@/a+/b:c=d]user:PASSWORD@example.com/x:1",
            *(f"{files}:https://user:PASSWORD@example.com/x" for files in ("dir", "oci", "oci-archive", "tarball")),
            "user:PASSWORD@example.com/x",
            "https://user:PASSWORD@example.com/x",
            "docker://example.com/x?token=PASSWORD",
        ):
            with self.subTest(text), self.assertRaises(InvalidReferenceError) as caught:
                parse_image_reference(text)
            self.assertNotIn("PASS", str(caught.exception))
            self.assertNotIn("PASS", strip_reference(text))
        for text in (f"docker://a.b:5000/x:1@{digest}", "oci:/a:b@c", "dir:/a:b@c?d"):
            self.assertEqual(strip_reference(text), text)
            self.assertEqual(parse_image_reference(text).text, text)

    def test_a_reference_may_have_tag_and_digest_and_lies_in_the_scopes_of_both(self) -> None:
        both = docker(f"docker://example.com/ns/a:t@{D}")
        self.assertEqual((both.tag, both.digest), ("t", parse_digest(D)))
        self.assertEqual(both.scopes()[:3], (f"example.com/ns/a@{D}", "example.com/ns/a:t", "example.com/ns/a"))
        self.assertEqual(docker(f"docker://example.com/ns/a@{D}").scopes()[0], "example.com/ns/a")

    def test_a_scope_that_no_reference_lies_in_is_told(self) -> None:
        for scope, why in (
            ("example.com", ""),
            ("example.com:5000", ""),
            ("localhost/x", ""),
            ("example.com/ns", ""),
            ("example.com/ns/a:t", ""),
            (f"example.com/ns/a:t@{D}", ""),
            ("docker.io/busybox", ""),
            ("*.example.com", ""),
            ("example.com/ns/", "no slash at its end"),
            ("example.com/", "no slash at its end"),
            ("https://example.com", "no scheme"),
            ("*.example.com/ns", "nothing else behind"),
            ("*.", "a domain"),
            ("library/busybox", "a host with a dot"),
            ("busybox", "a host with a dot"),
            ("quay", "a host with a dot"),
            ("index.docker.io", "docker.io, as the name is written out"),
            ("docker.io/busybox:1", "library/busybox:1"),
            ("example.com/Ns", "lower-case"),
            ("example.com/ns/*", "is not a repository path"),
            ("exam_ple.com/x", "a host with a dot"),
        ):
            with self.subTest(scope):
                found = unmatched_scope(scope)
                self.assertEqual(bool(why), bool(found), found)
                self.assertIn(why, found)

    def test_a_digest_reference_has_no_tag(self) -> None:
        self.assertEqual(docker(f"docker://a@{D}"), DockerReference("docker.io", "library/a", None, parse_digest(D)))

    def test_an_address_of_ipv6_is_a_host(self) -> None:
        for text, domain in (("[::1]:5000/a/b:t", "[::1]:5000"), ("[fd00::A]/a/b:t", "[fd00::A]")):
            found = parse_docker_reference(text)
            self.assertEqual((found.domain, found.path, found.tag), (domain, "a/b", "t"))
            self.assertEqual(found.scopes(), (f"{domain}/a/b", f"{domain}/a", domain))
            self.assertEqual(unmatched_scope(domain), "")
        self.assertNotEqual(unmatched_scope("*.[::1]"), "")

    def test_what_the_grammar_does_not_know_is_refused(self) -> None:
        for row, text, reason in (
            ("10", "Foo/bar", "lower-case repository name"),
            ("10", "LOCALHOST/foo", "lower-case repository name"),
            ("10", "example.com/Foo", "lower-case repository name"),
            ("12", "busybox:-x", "'-x' is not a tag"),
            ("12", "busybox:.x", "'.x' is not a tag"),
            ("13", "busybox:" + "t" * 129, "is not a tag"),
            ("15", "busybox@sha256:" + "A" * 64, "expected 64 lower-case hex digits"),
            ("16", "busybox@sha256:" + "a" * 63, "found 63"),
            ("18", "busybox@md5:" + "a" * 32, "must be one of"),
            ("18", f"busybox@sha256+b64:{H64}", "must be one of"),
            ("18", f"busybox@SHA256:{H64}", "lower-case repository name"),
            ("20", H64, "found 64 hex digits"),
            ("21", "", "is not a repository path"),
            ("21", "/foo", "is not a repository path"),
            ("21", "a//b", "is not a repository path"),
            ("21", "a/b/", "is not a repository path"),
            ("21", "docker.io/", "is not a repository path"),
            ("23", "foo___bar", "is not a repository path"),
            ("23", "foo..bar", "is not a repository path"),
            ("23", "foo._bar", "is not a repository path"),
            ("23", "foo-", "is not a repository path"),
            ("23", "-foo", "is not a repository path"),
            ("24", "[::1/foo", "is not a host name"),
            ("24", "[fe80::1%lo]:5000/foo", "is not a host name"),
            ("24", "[]:5000/foo", "is not a host name"),
            ("24", "::1/foo", "is not a host name"),
            ("24", "example.com:abc/foo", "is not a host name"),
            ("24", "example.com:/foo", "is not a host name"),
            ("24", "-example.com/foo", "is not a host name"),
            ("24", "example..com/foo", "is not a host name"),
            ("26", "example.com/" + "a" * 244, "longer than 255 bytes"),
            ("27", "https://example.com/foo", "is not a host name"),
            ("27", "user@example.com/foo", "is not a host name"),
            ("27", "foo?x=1", "is not a repository path"),
            ("27", "foo%20bar", "is not a repository path"),
            ("27", " foo", "is not a repository path"),
            ("27", "foo\n", "contains a control character"),
            ("27", "foo:\u0661", "is not a tag"),
            ("28", "exa_mple.com/foo", "is not a host name"),
            ("30", "busybox@@unknown-digest@@", "names nothing that can be read"),
            ("i18", "x.y:80/", "is not a repository path"),
            ("i20", "x.y/" + "a" * 252, "longer than 255 bytes"),
            ("", "a:", "'' is not a tag"),
            ("", "a@", "digest '': expected algorithm:hex"),
            ("", "exa\u017fmple.com/foo", "is not a host name"),
        ):
            with self.subTest(row):
                self.refused(f"docker://{text}", reason)

    def test_two_slashes_belong_in_front_of_the_name(self) -> None:
        for text in ("docker:a", "docker:/a", "docker:busybox", "docker:"):
            self.refused(text, "expected docker:// in front of the name")
        self.refused("docker:///a", "is not a repository path")
        self.refused("docker://", "is not a repository path")

    def test_long_names_are_refused_as_fast_as_short_ones(self) -> None:
        for text in ("a-" * 50_000, "a." * 50_000 + "/x", "a/" * 50_000, "-" * 100_000, "a" * 100_000 + "_/"):
            self.refused(f"docker://{text}", "is not a|longer than")

    def test_a_line_end_belongs_to_nothing(self) -> None:
        for text, reason in (
            ("foo\n", "repository path"),
            ("foo:t\n", "not a tag"),
            (f"foo@{D}\n", "found 65"),
            ("x.y\n/a", "not a host name"),
            (f"{H64}\n", "repository path"),
        ):
            with self.subTest(ascii(text)), self.assertRaisesRegex(InvalidReferenceError, reason):
                parse_docker_reference(text)

    def test_a_docker_reference_by_itself_gets_no_default_tag(self) -> None:
        reference = parse_docker_reference("a")
        self.assertEqual((str(reference), reference.tag), ("docker.io/library/a", None))
        self.assertEqual(str(parse_docker_reference(f"a:1@{D}")), f"docker.io/library/a:1@{D}")

    def test_scopes_go_from_the_repository_to_wildcards_of_the_host(self) -> None:
        self.assertEqual(
            docker("docker://a.b.example.com:5000/ns/x").scopes(),
            (
                "a.b.example.com:5000/ns/x",
                "a.b.example.com:5000/ns",
                "a.b.example.com:5000",
                "*.b.example.com",
                "*.example.com",
                "*.com",
            ),
        )
        self.assertEqual(docker("docker://localhost/x").scopes(), ("localhost/x", "localhost"))
        self.assertEqual(docker("docker://127.0.0.1/x").scopes()[1:], ("127.0.0.1", "*.0.0.1", "*.0.1", "*.1"))

    def test_a_prefix_of_names_is_a_host_or_whole_parts_of_a_path(self) -> None:
        for text in ("example.com", "example.com:5000", "localhost", "example.com/a", "example.com/a/b"):
            self.assertEqual(require_name_prefix(text), text)
        for text in ("", "*.example.com", "example.com/", "x.y/a:t", f"x.y/a@{D}", "x.y/A", "/a", "x.y\n"):
            with self.subTest(ascii(text)), self.assertRaisesRegex(InvalidReferenceError, "expected a host"):
                require_name_prefix(text)


class OtherTransports(Refusing):
    """The rows are those of images.md 12.1."""

    def test_layouts_take_a_path_with_a_name_or_a_position(self) -> None:
        for row, text, path, name, index in (
            ("R21", "oci:d:a:b", "d", "a:b", None),
            ("R21", "oci:d:a/b:c", "d", "a/b:c", None),
            ("R22", "oci:d:@3", "d", "", 3),
            ("R22", "oci:d:@+3", "d", "", 3),
            ("R22", "oci:d:@03", "d", "", 3),
            ("R24", "oci:d:a--b", "d", "a--b", None),
            ("R24", "oci:d:a:b@c+d/e--f", "d", "a:b@c+d/e--f", None),
            ("", "oci:d", "d", "", None),
            ("", "oci:d:", "d", "", None),
            ("", "oci:", "", "", None),
            ("", "oci:/a b/\udcff", "/a b/\udcff", "", None),
        ):
            with self.subTest(row, text=ascii(text)):
                reference = parse_image_reference(text)
                self.assertEqual((reference.path, reference.name, reference.index), (path, name, index))

    def test_positions_are_those_of_64_bits(self) -> None:
        self.assertEqual(parse_image_reference("oci:d:@9223372036854775807").index, 2**63 - 1)
        self.refused("oci:d:@9223372036854775808", "is not an image index")

    def test_positions_and_names_that_are_none_are_refused(self) -> None:
        for text in ("@", "@x", "@-1", "@9999999999999999999", "@ 1"):  # R23
            self.refused(f"oci:d:{text}", "is not an image index")
        for text in ("/bad", "a__b", "a---b", "a/", "é", "a//b"):  # R24
            self.refused(f"oci:d:{text}", "is not an image name")

    def test_a_directory_keeps_its_colons(self) -> None:  # R27
        self.assertEqual(parse_image_reference("dir:/a:b"), ImageReference(Transport.DIR, "dir:/a:b", path="/a:b"))

    def test_a_transport_that_exists_elsewhere_is_unsupported(self) -> None:  # R33, R34
        for text in ("atomic:h.x/ns/s:t", "ostree:a", "sif:a"):
            with self.subTest(ascii(text)), self.assertRaisesRegex(UnsupportedError, "is not supported") as caught:
                parse_image_reference(text)
            self.assertEqual(caught.exception.code, ErrorCode.TRANSPORT_UNSUPPORTED)

    def test_a_transport_that_exists_nowhere_is_refused(self) -> None:  # R34
        for text in ("registry:a", "foo:a", ":x", "Docker://a", "docker ://a"):
            self.refused(text, "unknown transport .*, expected one of docker, oci")
        for text in ("nocolon", "", "quay.io/x"):
            self.refused(text, "expected transport:reference; an image of a registry is written docker://NAME")
        for text in ("/var/cache/os", "./os", "/var/cache/os:9"):
            self.refused(text, "; a layout is written oci:DIR$")
        for text in ("quay.io/x:1", "quay.io/x@sha256:aa", "localhost/x:1", "quay.io:443"):
            self.refused(text, "unknown transport .*; an image of a registry is written docker://NAME")

    def test_text_that_no_file_can_be_named_by_is_refused(self) -> None:
        self.refused("dir:/a\0b", "control character")
        self.refused("dir:/\ud800", "lone surrogate")

    def test_text_that_would_begin_another_line_of_a_log_is_refused(self) -> None:
        for character in "\r\n\t\x1b\x7f\x85\x9b\u2028\u2029":
            self.refused(f"dir:/a{character}b", "contains a control character")
            self.refused(f"oci:d:@1{character}", "contains a control character")
        self.assertEqual(parse_image_reference("dir:/a b\u00a0é").path, "/a b\u00a0é")


if __name__ == "__main__":
    unittest.main()

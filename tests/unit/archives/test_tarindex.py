# SPDX-License-Identifier: Apache-2.0
"""Members of an archive are found where they lie, and names that attack are not found at all."""

import io
import os
import tarfile
import tracemalloc
import unittest
from unittest import mock

from cip.content import timed
from cip.errors import ErrorCode, InvalidDocumentError, SourceError
from cip.sources.archives.tarindex import TarIndex, _Headers, clean_name, resolve_name
from tests.support import images
from tests.support.images import Member
from tests.support.leaks import LeakCheckedTestCase


class TarTestCase(LeakCheckedTestCase):
    def index(self, content: bytes) -> TarIndex:
        path = self.directory / "archive"
        path.write_bytes(content)
        descriptor = os.open(path, os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        self.content = content
        return TarIndex(descriptor, "archive")

    def read(self, index: TarIndex, name: bytes) -> bytes:
        member = index.find(name)
        assert member is not None, f"{name!r} is not found"
        return self.content[member.start : member.start + member.size]


class Finding(TarTestCase):
    def test_members_are_found_by_their_cleaned_names(self) -> None:
        index = self.index(images.tar([Member(b"./a//b/./c", b"one"), Member(b"d", b"two"), Member(b"e", b"")]))
        self.assertEqual(self.read(index, b"a/b/c"), b"one")
        self.assertEqual(self.read(index, b"d"), b"two")
        self.assertEqual(self.read(index, b"e"), b"")
        self.assertIsNone(index.find(b"missing"))

    def test_every_format_of_the_standard_library_is_read(self) -> None:
        names = ["short", "d/" * 60 + "long", "é", "x" * 99, "x" * 100, "x" * 101, "p/" * 77 + "y" * 100]
        for label, style in (("ustar", tarfile.USTAR_FORMAT), ("GNU", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
            buffer = io.BytesIO()
            used = names if style != tarfile.USTAR_FORMAT else [name for name in names if len(name) <= 100]
            with tarfile.open(fileobj=buffer, mode="w", format=style) as archive:
                for number, name in enumerate(used):
                    info = tarfile.TarInfo(name)
                    info.size = 600 + number
                    info.mtime = 1.5  # needs an extended header in pax
                    archive.addfile(info, io.BytesIO(bytes([number]) * info.size))
            index = self.index(buffer.getvalue())
            for number, name in enumerate(used):
                with self.subTest(label, name=name):
                    self.assertEqual(self.read(index, name.encode()), bytes([number]) * (600 + number))

    def test_links_name_their_targets_from_the_root_of_the_archive(self) -> None:
        index = self.index(
            images.tar(
                [
                    Member(b"a/up", kind=b"2", link=b"../b/file"),
                    Member(b"a/beside", kind=b"2", link=b"file"),
                    Member(b"a/hard", kind=b"1", link=b"b/./file"),
                    Member(b"top", kind=b"2", link=b"file"),
                    Member(b"a/out", kind=b"2", link=b"../../file"),
                    Member(b"a/absolute", kind=b"2", link=b"/etc/passwd"),
                    Member(b"a/hard-out", kind=b"1", link=b"../file"),
                ]
            )
        )
        for name, link in (
            (b"a/up", b"b/file"),
            (b"a/beside", b"a/file"),
            (b"a/hard", b"b/file"),
            (b"top", b"file"),
            (b"a/out", b""),
            (b"a/absolute", b""),
            (b"a/hard-out", b""),
        ):
            with self.subTest(name):
                member = index.find(name)
                assert member is not None
                self.assertEqual((member.link, member.size), (link, 0))

    def test_names_that_attack_are_not_found(self) -> None:
        names = [b"../index.json", b"/index.json", b"a/../index.json", b"..", b".", b"/", b"./"]
        index = self.index(images.tar([Member(name, b"evil") for name in names]))
        self.assertEqual(len(index), 0)
        for name in [b"index.json", *names]:
            with self.subTest(name):
                self.assertIsNone(index.find(name))

    def test_what_is_no_file_is_not_found(self) -> None:
        for kind in (b"3", b"4", b"5", b"6"):
            index = self.index(images.tar([Member(b"index.json", kind=kind), Member(b"behind", b"x")]))
            self.assertIsNone(index.find(b"index.json"))
            self.assertEqual(self.read(index, b"behind"), b"x")
        directory = self.index(images.tar([Member(b"index.json/", b"")]))
        self.assertIsNone(directory.find(b"index.json"))

    def test_a_name_that_two_members_have_is_refused_when_it_is_asked_for(self) -> None:
        large = bytes(600_000)
        for first, second in ((b"1", b"3"), (b"1", b"11"), (large + b"1", large + b"3")):
            index = self.index(images.tar([Member(b"a", first), Member(b"b", b"2"), Member(b"./a", second)]))
            self.assertEqual(self.read(index, b"b"), b"2")
            with self.assertRaisesRegex(InvalidDocumentError, "archive: two members are named 'a', and they differ"):
                index.find(b"a")
        link = Member(b"a", kind=b"2", link=b"b")
        index = self.index(images.tar([Member(b"a"), link]))
        with self.assertRaisesRegex(InvalidDocumentError, "they differ"):
            index.find(b"a")

    def test_members_of_one_name_that_are_the_same_are_one(self) -> None:
        for content in (b"", b"1", bytes(600_000) + b"x"):
            index = self.index(images.tar([Member(b"a", content), Member(b"b", b"2"), *[Member(b"./a", content)] * 2]))
            self.assertEqual((self.read(index, b"a"), self.read(index, b"a")), (content, content))
        link = Member(b"a", kind=b"2", link=b"b")
        self.assertIsNotNone(self.index(images.tar([link, link])).find(b"a"))

    def test_ten_thousand_members_are_found(self) -> None:
        index = self.index(images.tar(Member(b"d/%05d" % number, b"%d" % number) for number in range(10_000)))
        self.assertEqual(len(index), 10_000)
        for number in (0, 5_000, 9_999):
            self.assertEqual(self.read(index, b"d/%05d" % number), b"%d" % number)


class Extensions(TarTestCase):
    def test_looking_a_member_up_costs_the_same_among_many_and_those_of_one_name_are_compared_once(self) -> None:
        members = [Member(b"file %d" % number, b"x") for number in range(500)]
        members += [Member(b"twin", b"y")] * 300
        index = self.index(images.tar(members))
        for name, first, later in ((b"file 499", 1, 1), (b"twin", 300, 1), (b"missing", 0, 0)):
            for expected in (first, later):
                real = _Headers.read_member
                with mock.patch.object(_Headers, "read_member", autospec=True, side_effect=real) as read:
                    index.find(name)
                self.assertLessEqual(abs(read.call_count - expected), 1, name)

    def test_a_member_costs_little_memory(self) -> None:
        content = images.tar([Member(b"a name that is longer than its hash %d" % number) for number in range(10_000)])
        self.index(images.tar([Member(b"what is made once")]))  # patterns, where others have filled the cache of re
        tracemalloc.start()
        try:
            self.index(content)
            self.assertLess(tracemalloc.get_traced_memory()[1], 10_000 * 64)  # 64 MiB for a million
        finally:
            tracemalloc.stop()

    def test_reading_the_headers_ends_with_the_time(self) -> None:
        def require() -> float:
            raise SourceError("it takes too long", code=ErrorCode.TIMEOUT)

        with self.assertRaisesRegex(SourceError, "too long"), timed(require):
            self.index(images.tar([Member(b"%d" % number) for number in range(2000)]))

    def test_a_pax_size_counts_and_a_global_header_does_not(self) -> None:
        comment = pax({b"comment": b"x", b"path": b"forged"})
        sized = pax({b"path": b"real", b"size": b"5"})
        header = images.ustar_header(Member(b"short"), size=0)
        content = b"".join(
            (
                images.ustar_header(Member(b"g", comment, kind=b"g")),
                pad(comment),
                images.ustar_header(Member(b"x", sized, kind=b"x")),
                pad(sized),
                header,
                pad(b"12345"),
                images.tar([Member(b"next", b"!")]),
            )
        )
        index = self.index(content)
        self.assertEqual(self.read(index, b"real"), b"12345")
        self.assertEqual(self.read(index, b"next"), b"!")
        self.assertIsNone(index.find(b"forged"))

    def test_sizes_beyond_eight_gibibytes_are_read(self) -> None:
        path = self.directory / "sparse"
        size = 9 << 30
        with open(path, "wb") as file:
            file.write(images.ustar_header(Member(b"large"), size=size))
            file.seek(size, os.SEEK_CUR)
            file.write(images.tar([Member(b"behind", b"x")]))
        descriptor = os.open(path, os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        index = TarIndex(descriptor, "archive")
        large, behind = index.find(b"large"), index.find(b"behind")
        assert large is not None and behind is not None
        self.assertEqual((large.size, behind.start), (size, 512 + size + 512))

    def test_malformed_archives_are_refused_with_the_place(self) -> None:
        long_name = images.ustar_header(Member(b"L", b"", kind=b"L"), size=2 << 20)
        good = images.tar([Member(b"a", b"x" * 600)])
        broken_checksum = bytearray(good)
        broken_checksum[0] ^= 1
        for case, content, reason, code in (
            ("empty", b"", "byte 0: expected a header", ErrorCode.MANIFEST_INVALID),
            ("text", b"hello", "byte 0: expected a header", ErrorCode.MANIFEST_INVALID),
            ("no tar", b"x" * 2048, "byte 0: not a tar archive", ErrorCode.MANIFEST_INVALID),
            ("checksum", bytes(broken_checksum), "byte 0: not a tar archive", ErrorCode.MANIFEST_INVALID),
            (
                "checksum later",
                good[:1536] + b"y" * 512,
                "byte 1536: .*checksum|byte 1536: a malformed number",
                ErrorCode.MANIFEST_INVALID,
            ),
            ("cut in content", good[:600], "byte 0: expected 600 bytes of content", ErrorCode.MANIFEST_INVALID),
            ("cut in header", good[:1536] + b"y" * 100, "byte 1536: expected a header", ErrorCode.MANIFEST_INVALID),
            ("negative size", with_size(b"-0000000001\0"), "a malformed number", ErrorCode.MANIFEST_INVALID),
            ("size with underscores", with_size(b"0000_00_001\0"), "a malformed number", ErrorCode.MANIFEST_INVALID),
            ("size of 2^88", with_size(b"\x80" + b"\xff" * 11), "bytes of content", ErrorCode.MANIFEST_INVALID),
            ("base-256 negative", with_size(b"\xff" * 12), "a malformed number", ErrorCode.MANIFEST_INVALID),
            (
                "sparse",
                images.ustar_header(Member(b"s", kind=b"S")) + bytes(1024),
                "a sparse member",
                ErrorCode.MANIFEST_INVALID,
            ),
            ("long name", long_name + bytes(3 << 20), "larger than 1048576 bytes", ErrorCode.LIMIT_EXCEEDED),
            (
                "name upon name",
                images.tar([Member(b"L", b"x", kind=b"L")] * 17),
                "more than 16 extended headers",
                ErrorCode.MANIFEST_INVALID,
            ),
            ("pax without end", pax_member(b"11 path=abc"), "a malformed extended header", ErrorCode.MANIFEST_INVALID),
            ("pax length too long", pax_member(b"99 path=a\n"), "a malformed extended", ErrorCode.MANIFEST_INVALID),
            ("pax length zero", pax_member(b"0 path=a\n"), "a malformed extended", ErrorCode.MANIFEST_INVALID),
            ("pax without value", pax_member(b"7 path\n"), "a malformed extended", ErrorCode.MANIFEST_INVALID),
            ("pax size", pax_member(b"11 size=-1\n"), "a malformed size", ErrorCode.MANIFEST_INVALID),
        ):
            with self.subTest(case), self.assertRaisesRegex(InvalidDocumentError, reason) as caught:
                self.index(content)
            self.assertIs(caught.exception.code, code)

    def test_a_missing_end_is_accepted_behind_a_whole_member(self) -> None:
        content = images.tar([Member(b"a", b"x" * 600)])
        self.assertEqual(self.read(self.index(content[:1536]), b"a"), b"x" * 600)
        self.assertEqual(self.read(self.index(content[: 512 + 600]), b"a"), b"x" * 600)

    def test_nothing_behind_the_end_is_read(self) -> None:
        content = images.tar([Member(b"a", b"x")])
        self.assertIsNone(self.index(content + images.tar([Member(b"b", b"y")])).find(b"b"))

    def test_an_archive_that_changes_behind_our_back_is_an_error(self) -> None:
        index = self.index(images.tar([Member(b"a", b"x")]))
        os.truncate(self.directory / "archive", 100)
        with self.assertRaisesRegex(InvalidDocumentError, "expected a header"):
            index.find(b"a")


class Names(unittest.TestCase):
    def test_names_are_cleaned_or_refused(self) -> None:
        for name, cleaned in (
            (b"a", b"a"),
            (b"./a", b"a"),
            (b"a//b/.", b"a/b"),
            (b"a/...", b"a/..."),
            (b"\xff", b"\xff"),
            (b"", None),
            (b".", None),
            (b"/a", None),
            (b"../a", None),
            (b"a/..", None),
            (b"a/../b", None),
        ):
            with self.subTest(name):
                self.assertEqual(clean_name(name), cleaned)

    def test_targets_are_resolved_or_refused(self) -> None:
        for name, resolved in (
            (b"a/../b", b"b"),
            (b"a/b/../../c", b"c"),
            (b"./a", b"a"),
            (b"a/..", None),
            (b"..", None),
            (b"a/../../b", None),
            (b"/a", None),
            (b"", None),
        ):
            with self.subTest(name):
                self.assertEqual(resolve_name(name), resolved)


def pad(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def pax(records: dict[bytes, bytes]) -> bytes:
    out = b""
    for key, value in records.items():
        rest = b" " + key + b"=" + value + b"\n"
        length = len(rest) + len(b"%d" % (len(rest) + 2))
        out += b"%d" % length + rest
    return out


def pax_member(content: bytes) -> bytes:
    return images.ustar_header(Member(b"x", content, kind=b"x")) + pad(content) + images.tar([Member(b"a", b"x")])


def with_size(field: bytes) -> bytes:
    """An archive with this size field in an otherwise correct header."""
    header = images.ustar_header(Member(b"a"))
    header = header[:124] + field + header[136:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(header) + header[156:] + bytes(1024)


if __name__ == "__main__":
    unittest.main()

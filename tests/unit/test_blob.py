# SPDX-License-Identifier: Apache-2.0
"""Blobs: continued at any byte, at another place, or ended with an error; never with a wrong byte.

The rows of registry.md 10.7, with the outcomes of decisions.md section 3 (tests/data/deviations.md).
"""

import hashlib
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from unittest import mock

from cip import log
from cip.content import WAITS, Release, Waits, copy_verified
from cip.errors import CipError, ContentMismatchError, ErrorCode, NetworkError, NotFoundError, Phase
from cip.hostconfig.registriesconf import ConfiguredEndpoint, RegistriesConfig
from cip.model.descriptor import UNKNOWN_SIZE, Descriptor, Digest, digest_of
from cip.model.mediatype import OCI_CONFIG
from cip.model.reference import parse_docker_reference
from cip.net.response import Response
from cip.registry import blob
from cip.registry.blob import RegistryBlob, parse_content_range
from cip.registry.endpoints import Endpoint
from cip.registry.session import RegistrySession
from cip.settings import Settings, TimeLimits, TransferLimits
from cip.sources.base import BlobAccess
from tests.support.host import make_host
from tests.support.leaks import LeakCheckedTestCase
from tests.support.origins import Asked, FakeClock, Origins, RecordedEvents, Reply, Script, reply
from tests.support.roomed import needs_rooms

CONTENT = hashlib.shake_256(b"content").digest(5000)
L = len(CONTENT)
DIGEST = digest_of(CONTENT)


class ContentRangeTest(LeakCheckedTestCase):
    def test_vectors(self) -> None:
        for row, text, expected in (
            ("B14", "bytes 010-020/030", (10, 20, 30)),
            ("B14", "bytes 1000-1010/*", (1000, 1010, UNKNOWN_SIZE)),
            ("B15", "Bytes 0-9/10", None),
            ("B15", "bytes  0-9/10", None),
            ("B15", "bytes 0-9/10 ", None),
            ("B15", "bytes */10", None),
            ("B15", "bytes 5-9/", None),
            ("B15", "bytes=0-9/10", None),
            ("", "bytes 0-9/9999999999999999999", None),
            ("", "bytes 0-9/10\n", None),
            ("", "", None),
            ("", "bytes ١-9/10", None),
        ):
            with self.subTest(row=row, text=text):
                self.assertEqual(parse_content_range(text), expected)


def whole(asked: Asked) -> Reply:
    """All of it, whatever was asked for."""
    return reply(200, CONTENT)


def obedient(asked: Asked) -> Reply:
    """What was asked for."""
    wanted = asked.fields.get("range")
    if wanted is None:
        return reply(200, CONTENT)
    first = int(wanted.removeprefix("bytes=").removesuffix("-"))
    return partial(first)


def partial(first: int, content: bytes = CONTENT, announced: str | None = None) -> Reply:
    name = announced if announced is not None else f"bytes {first}-{len(content) - 1}/{len(content)}"
    return reply(206, content[first:], {"Content-Range": name})


def cut(count: int, content: bytes = CONTENT) -> Reply:
    """An answer that breaks off."""
    return reply(200, content[:count], {"Content-Length": str(len(content))}, then="close")


def in_turn(*answers: Reply | Script) -> Script:
    """One after the other, the last one for ever."""
    left = list(answers)

    def answer(asked: Asked) -> Reply:
        step = left.pop(0) if len(left) > 1 else left[0]
        return step(asked) if callable(step) else step

    return answer


class BlobCase(LeakCheckedTestCase):
    times = TimeLimits(idle=5.0)

    def setUp(self) -> None:
        super().setUp()
        self.host = make_host(self)
        self.clock = FakeClock()
        self.events = RecordedEvents()
        self.origins = Origins()
        self.addCleanup(self.origins.wait)
        previous = log._Stream.threshold
        log.set_threshold(log.Level.SILENT)
        self.addCleanup(log.set_threshold, previous)
        self.settings = self.host.settings()._replace(times=self.times)

    def places(self, *scripts: Script) -> None:
        """Places a.example, b.example, … answering blobs so."""
        for name, script in zip("abcd", scripts, strict=False):
            self.origins.add(f"https://{name}.example:443", script)
        self.names = [f"{name}.example" for name, _ in zip("abcd", scripts, strict=False)]

    def blob(
        self,
        *,
        access: BlobAccess = BlobAccess.VERIFIED,
        size: int = L,
        digest: Digest = DIGEST,
        media_type: str = "layer",
        settings: Settings | None = None,
        offset: int = 0,
    ) -> RegistryBlob:
        used = settings or self.settings
        session = self.origins.session(used, self.clock, self.events)
        self.addCleanup(session.close)
        endpoints = []
        for name in self.names:
            reference = parse_docker_reference(f"{name}/r/x:t")
            place = ConfiguredEndpoint(reference, "", "", False, False, True)
            endpoints.append(Endpoint(place, reference, used, RegistriesConfig(), session))
        kind = self.kind(session)
        made = kind(Descriptor(media_type, digest, size), access, endpoints, session, offset=offset)
        self.addCleanup(made.close)
        return made

    def kind(self, session: RegistrySession) -> type[RegistryBlob]:
        return RegistryBlob

    def read(self, reader: RegistryBlob, size: int = 700) -> bytes:
        data = b""
        view = memoryview(bytearray(size))
        while count := reader.readinto(view):
            data += view[:count]
        return data

    def fetch(self, **options: object) -> bytes:
        reader = self.blob(**options)  # type: ignore[arg-type]
        try:
            return self.read(reader)
        finally:
            reader.close()

    def fails(self, code: ErrorCode, reason: str = "", **options: object) -> CipError:
        with self.assertRaisesRegex(CipError, reason) as caught:
            self.fetch(**options)
        self.assertIs(caught.exception.code, code)
        self.assertEqual(caught.exception.digest, str(DIGEST))
        return caught.exception

    def ranges(self) -> list[str | None]:
        return [asked.fields.get("range") for asked in self.origins.asked]

    def hosts(self) -> list[str]:
        return [asked.host.partition(".")[0] for asked in self.origins.asked]

    def close_during_a_read(self, reader: RegistryBlob) -> None:
        """Read ten bytes, and have the blob closed meanwhile."""
        real = Response.readinto

        def close_and_read(response: Response, view: memoryview) -> int:
            count = real(response, view)
            reader.close()
            return count

        with mock.patch.object(Response, "readinto", close_and_read):
            self.assertEqual(reader.readinto(memoryview(bytearray(10))), 10)


class ResumptionTest(BlobCase):
    def test_b1_a_blob_that_breaks_off_is_continued_at_its_offset(self) -> None:
        self.places(in_turn(cut(1000), obedient))
        self.assertEqual(self.fetch(), CONTENT)
        self.assertEqual(self.ranges(), [None, "bytes=1000-"])
        self.assertEqual(self.clock.sleeps, [0.5])
        self.assertEqual(
            self.events.of("retry"),
            [{"digest": str(DIGEST), "attempt": 1, "code": ErrorCode.CONNECTION_LOST, "wait": 0.5}],
        )

    def test_b2_a_blob_that_breaks_off_before_its_first_byte(self) -> None:
        self.places(in_turn(cut(0), obedient))
        self.assertEqual(self.fetch(), CONTENT)
        self.assertEqual(self.ranges(), [None, "bytes=0-"])

    def test_b3_a_server_that_ignores_the_range_is_read_again(self) -> None:
        self.places(in_turn(cut(1000), whole))
        self.assertEqual(self.fetch(), CONTENT)

    def test_every_byte_is_a_place_to_break_off(self) -> None:
        for count in (0, 1, 2, 500, 2500, 4500, 4999):
            for then in (obedient, whole):
                with self.subTest(count=count, then=then.__name__):
                    self.places(in_turn(cut(count), then))
                    self.assertEqual(self.fetch(), CONTENT)

    def test_b4_b5_a_wrong_range_is_a_bad_place(self) -> None:
        for row, answer in (
            ("B4", partial(999)),
            ("B4", reply(206, CONTENT[1000:])),
            ("B4", partial(1000, announced=f"bytes 1000-{L - 1}/{L}\r\nContent-Range: bytes 0-1/2")),
            ("B4", partial(1000, announced=f"bytes 1000-1999/{L}")),
            ("B5", reply(206, CONTENT[1000:2000], {"Content-Range": "bytes 1000-1999/*"})),
            ("", partial(1000, announced=f"bytes 1000-{L - 1}/{L + 1}")),
            ("", partial(1000, CONTENT + b"x")),
            ("", reply(206, CONTENT[1000:4000], {"Content-Range": f"bytes 1000-{L - 1}/{L}"})),
            ("", partial(1000, announced="rubbish")),
        ):
            with self.subTest(row=row, answer=answer.data[:100]):
                self.places(in_turn(cut(1000), answer))
                error = self.fails(ErrorCode.REGISTRY_ERROR, "expected the bytes from 1000 on, found another range")
                self.assertEqual((error.offset, error.retryable), (1000, False))
                self.places(in_turn(cut(1000), answer), obedient)
                self.assertEqual(self.fetch(), CONTENT, "another place has it")

    def test_a_range_of_unknown_total_that_is_the_rest_is_good(self) -> None:
        self.places(in_turn(cut(1000), partial(1000, announced=f"bytes 1000-{L - 1}/*")))
        self.assertEqual(self.fetch(), CONTENT)

    def test_b6_to_b8_repeats_are_counted_anew_after_progress(self) -> None:
        self.places(in_turn(*(cut(0) for _ in range(4)), obedient))
        self.assertEqual(self.fetch(), CONTENT)
        self.assertEqual(self.clock.sleeps, [0.5, 1, 2, 4])
        self.places(in_turn(*(cut(0) for _ in range(9))))
        error = self.fails(ErrorCode.CONNECTION_LOST, "ended early")
        self.assertEqual((len(error.attempts), error.retryable), (5, True))

    def test_a_long_blob_may_break_off_as_often_as_it_makes_progress(self) -> None:
        step = 1000

        def dripping(asked: Asked) -> Reply:
            first = int(asked.fields.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            fields = {"Content-Length": str(L - first), "Content-Range": f"bytes {first}-{L - 1}/{L}"}
            return reply(206 if "range" in asked.fields else 200, CONTENT[first : first + step], fields, then="close")

        self.places(dripping)
        with mock.patch.object(blob, "PROGRESS", step):
            self.assertEqual(self.fetch(settings=self.settings._replace(retry_times=1)), CONTENT)
        with mock.patch.object(blob, "PROGRESS", step + 1):
            self.fails(ErrorCode.CONNECTION_LOST, settings=self.settings._replace(retry_times=1))

    def test_b9_a_reset_is_continued(self) -> None:
        # a socketpair knows no reset; what it looks like is an error of recv
        self.places(in_turn(cut(1000), obedient))
        reader = self.blob()
        view = memoryview(bytearray(1000))
        self.assertEqual(reader.readinto(view), 1000)
        with mock.patch("cip.net.channel.Channel.recv_into", side_effect=[NetworkError("reset"), 0]):
            with self.assertRaises(StopIteration):
                reader.readinto(view)
        reader.close()

    def test_b10_cut_chunks_and_bodies_that_end_with_the_connection(self) -> None:
        chunk = b"3e8\r\n" + CONTENT[:1000]
        for row, answer in (
            ("chunks", Reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk, "close")),
            ("chunks", Reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + b"\r\n0\r\n\r\n")),
            ("close", Reply(b"HTTP/1.1 200 OK\r\n\r\n" + CONTENT[:1000], "close")),
        ):
            with self.subTest(row):
                self.origins.asked.clear()
                self.places(in_turn(answer, obedient))
                self.assertEqual(self.fetch(), CONTENT)
                self.assertEqual(self.ranges(), [None, "bytes=1000-"])

    def test_b11_what_the_second_request_may_answer(self) -> None:
        for status, code, tries in (
            (404, ErrorCode.BLOB_NOT_FOUND, 2),
            (401, ErrorCode.AUTHENTICATION_FAILED, 2),
            (400, ErrorCode.REGISTRY_ERROR, 2),
            (500, ErrorCode.REGISTRY_ERROR, 5),
            (503, ErrorCode.REGISTRY_ERROR, 5),
            (429, ErrorCode.RATE_LIMITED, 5),
        ):
            with self.subTest(status):
                self.origins.asked.clear()
                self.places(in_turn(cut(1000), reply(status, b"{}")))
                error = self.fails(code)
                self.assertEqual((len(self.origins.asked), error.offset, error.phase), (tries, 1000, Phase.BLOB))
                self.places(in_turn(cut(1000), reply(status, b"{}"), obedient))
                if tries > 2:
                    self.assertEqual(self.fetch(), CONTENT)

    def test_b11_a_server_that_cannot_serve_a_range_is_asked_for_all(self) -> None:
        self.places(lambda asked: reply(416) if "range" in asked.fields else partial_or_cut(asked))
        answers = [cut(1000), reply(200, CONTENT)]

        def partial_or_cut(asked: Asked) -> Reply:
            return answers.pop(0)

        self.assertEqual(self.fetch(), CONTENT)
        self.assertEqual(self.ranges(), [None, "bytes=1000-", None])

    def test_b12_throttled_while_resuming(self) -> None:
        self.places(in_turn(cut(1000), reply(429, b"", {"Retry-After": "0"}), obedient))
        self.assertEqual(self.fetch(), CONTENT)
        self.assertEqual(self.clock.sleeps, [0.5])

    def test_b13_a_first_answer_that_is_partial_or_empty(self) -> None:
        for answer in (partial(0), reply(204)):
            self.places(in_turn(answer))
            self.fails(ErrorCode.REGISTRY_ERROR, "expected status 200, found 20[46]")

    def test_b16_silence_after_some_bytes_is_continued(self) -> None:
        stalled = reply(200, CONTENT[:1000], {"Content-Length": str(L)}, then="hang")
        self.places(in_turn(stalled, obedient))
        short = self.settings._replace(times=TimeLimits(idle=0.03))
        self.assertEqual(self.fetch(settings=short), CONTENT)
        self.assertEqual(self.ranges(), [None, "bytes=1000-"])

    def test_reading_again_has_a_budget(self) -> None:
        self.places(in_turn(cut(2000), cut(2500), cut(3000), whole))
        with mock.patch.object(blob, "REREAD_MINIMUM", 100):  # so twice the size counts: 10000 bytes
            self.assertEqual(self.fetch(settings=self.settings._replace(retry_times=9)), CONTENT)
            self.places(in_turn(*(cut(2000 + 100 * n) for n in range(9))))
            error = self.fails(
                ErrorCode.REGISTRY_ERROR,
                "ignores ranges, and 8600 bytes have been read in vain",
                settings=self.settings._replace(retry_times=9),
            )
        self.assertFalse(error.retryable)

    def test_a_redirect_that_expired_is_asked_for_again_from_the_registry(self) -> None:
        self.origins.add("https://cdn.example:443", in_turn(cut(1000), reply(403, b"expired"), obedient))
        self.places(lambda asked: reply(307, b"", {"Location": f"https://cdn.example/signed{len(self.origins.asked)}"}))
        self.assertEqual(self.fetch(), CONTENT)
        self.assertEqual(self.hosts(), ["a", "cdn", "a", "cdn", "a", "cdn"])
        self.assertEqual(
            [a.fields.get("range") for a in self.origins.asked if a.host.startswith("cdn")],
            [None, "bytes=1000-", "bytes=1000-"],
        )

    def test_a_token_that_expired_meanwhile_is_renewed(self) -> None:
        tokens = [reply(200, b'{"token":"one"}'), reply(200, b'{"token":"two"}')]
        self.origins.add("https://auth.example:443", lambda asked: tokens.pop(0))
        challenge = reply(401, b"{}", {"WWW-Authenticate": 'Bearer realm="https://auth.example/"'})
        good = in_turn(cut(1000), obedient)
        accepted = ["Bearer one"]

        def guarded(asked: Asked) -> Reply:
            if asked.fields.get("authorization") != accepted[0]:
                return challenge
            accepted[0] = "Bearer two"
            return good(asked)

        self.places(guarded)
        self.assertEqual(self.fetch(), CONTENT)


class FirstAnswerTest(BlobCase):
    def test_another_size_is_a_bad_place_before_the_first_byte(self) -> None:
        for content in (CONTENT[:-1], CONTENT + b"x", b""):
            with self.subTest(len(content)):
                self.places(in_turn(reply(200, content)))
                self.fails(ErrorCode.CONTENT_MISMATCH, f"expected {L} bytes, found {len(content)} announced")
                self.places(in_turn(reply(200, content)), obedient)
                self.assertEqual(self.fetch(), CONTENT)

    def test_content_in_a_coding_is_a_bad_place(self) -> None:
        self.places(in_turn(reply(200, CONTENT, {"Content-Encoding": "gzip", "Content-Length": str(L)})))
        self.fails(ErrorCode.CONTENT_MISMATCH, "'gzip'")

    def test_a_page_instead_of_a_blob_is_a_bad_place(self) -> None:
        self.places(in_turn(reply(200, b"<html>", {"Content-Type": "text/html"})), obedient)
        self.assertEqual(self.fetch(), CONTENT)

    def test_a_blob_that_nobody_has(self) -> None:
        self.places(in_turn(reply(404)), in_turn(reply(404, b'{"errors":[{"code":"BLOB_UNKNOWN"}]}')))
        error = self.fails(ErrorCode.BLOB_NOT_FOUND)
        self.assertEqual([attempt.place for attempt in error.attempts], ["a.example", "b.example"])

    def test_a_place_that_may_recover_counts_for_more_than_one_that_has_not_got_it(self) -> None:
        self.places(in_turn(reply(503)), in_turn(reply(404)))
        self.assertTrue(self.fails(ErrorCode.REGISTRY_ERROR).retryable)

    def test_chunks_are_taken_where_the_size_is_known_from_the_descriptor(self) -> None:
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (CONTENT[:7], CONTENT[7:])) + b"0\r\n\r\n"
        self.places(in_turn(Reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)))
        self.assertEqual(self.fetch(), CONTENT)

    def test_the_connection_of_a_chunked_blob_is_kept(self) -> None:
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (L, CONTENT)
        self.places(in_turn(Reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)))
        first = self.blob()
        endpoints = [each.endpoint for each in first._candidates._all]
        for reader in (first, RegistryBlob(first._descriptor, first._access, endpoints, first._session)):
            self.assertEqual(self.read(reader), CONTENT)
            reader.close()
        self.assertEqual(len(self.origins.opened), 1)

    def test_nothing_beyond_the_size_is_passed_on(self) -> None:
        body = CONTENT + b"more"
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        self.places(in_turn(Reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)))
        self.assertEqual(self.fetch(), CONTENT)

    def test_an_empty_blob_that_nobody_has_is_not_there_however_often_it_is_read(self) -> None:
        self.places(in_turn(reply(404)))
        reader = self.blob(size=0)
        for _ in range(2):
            with self.assertRaises(NotFoundError):
                reader.readinto(memoryview(bytearray(1)))
        reader.close()

    def test_an_empty_blob_has_no_bytes(self) -> None:
        self.places(in_turn(reply(200, b"")))
        self.assertEqual(self.fetch(size=0), b"")


class FailoverTest(BlobCase):
    def test_another_place_continues_at_the_same_offset(self) -> None:
        self.places(in_turn(cut(1000), reply(404)), obedient)
        self.assertEqual(self.fetch(), CONTENT)
        self.assertEqual((self.hosts(), self.ranges()), (["a", "a", "b"], [None, "bytes=1000-", "bytes=1000-"]))
        self.assertEqual(
            self.events.of("source"),
            [
                {
                    "digest": str(DIGEST),
                    "from": "a.example",
                    "to": "b.example",
                    "offset": 1000,
                    "reason": ErrorCode.BLOB_NOT_FOUND,
                }
            ],
        )

    def test_a_place_that_brought_nothing_is_left_at_once(self) -> None:
        self.places(in_turn(cut(0)), obedient)
        self.assertEqual(self.fetch(), CONTENT)
        self.assertEqual((self.hosts(), self.clock.sleeps), (["a", "b"], []))

    def test_a_place_that_falls_silent_is_left_at_once_even_after_some_bytes(self) -> None:
        self.places(in_turn(reply(200, CONTENT[:1000], {"Content-Length": str(L)}, then="hang")), obedient)
        self.assertEqual(self.fetch(settings=self.settings._replace(times=TimeLimits(idle=0.03))), CONTENT)
        self.assertEqual((self.hosts(), self.ranges(), self.clock.sleeps), (["a", "b"], [None, "bytes=1000-"], []))

    def test_a_place_of_a_document_has_its_share_of_the_time_for_head_and_body(self) -> None:
        self.places(obedient, obedient)
        reader = self.blob(media_type=OCI_CONFIG)
        reader.readinto(memoryview(bytearray(1)))
        assert reader._response is not None and reader._response.limits is not None
        self.assertEqual(reader._response.limits.deadline - self.clock.now, TimeLimits().control_endpoint)
        self.places(obedient)
        alone = self.blob(media_type=OCI_CONFIG)
        alone.readinto(memoryview(bytearray(1)))
        assert alone._response is not None and alone._response.limits is not None
        self.assertEqual(alone._response.limits.deadline - self.clock.now, TimeLimits().control_document)

    def test_places_take_turns_until_all_have_had_their_repeats(self) -> None:
        self.places(in_turn(reply(500)), in_turn(reply(502)))
        error = self.fails(ErrorCode.REGISTRY_ERROR)
        self.assertEqual(self.hosts(), ["a", "b"] * 5)
        self.assertEqual(len(error.attempts), 10)

    def test_a_refused_place_is_passed_over(self) -> None:
        self.places(obedient, obedient)
        del self.origins.places["https://a.example:443"]
        self.assertEqual(self.fetch(), CONTENT)

    def test_a_host_that_wants_to_be_alone_is_not_asked_while_another_is_free(self) -> None:
        self.places(in_turn(reply(429, b"", {"Retry-After": "30"}), obedient), obedient)
        self.assertEqual(self.fetch(), CONTENT)
        first = self.blob()
        first._session.repeats.backoff.postpone("a.example", 30)
        self.origins.asked.clear()
        endpoints = [each.endpoint for each in first._candidates._all]
        reader = RegistryBlob(first._descriptor, first._access, endpoints, first._session)
        self.assertEqual(self.read(reader), CONTENT)
        self.assertEqual(self.hosts(), ["b"])

    def test_a_raw_blob_moves_before_its_first_byte_only(self) -> None:
        self.places(in_turn(reply(404)), obedient)
        self.assertEqual(self.fetch(access=BlobAccess.RAW), CONTENT)
        self.places(in_turn(cut(1000), obedient), obedient)
        self.origins.asked.clear()
        self.assertEqual(self.fetch(access=BlobAccess.RAW), CONTENT)
        self.assertEqual(self.hosts(), ["a", "a"])
        self.places(in_turn(cut(1000), reply(404)), obedient)
        self.origins.asked.clear()
        self.fails(ErrorCode.BLOB_NOT_FOUND, access=BlobAccess.RAW)
        self.assertEqual(self.hosts(), ["a", "a"])


class LyingPlaceTest(BlobCase):
    def wrong(self, position: int) -> Script:
        content = bytearray(CONTENT)
        content[position] ^= 1
        lie = bytes(content)
        return lambda asked: reply(200, lie) if "range" not in asked.fields else partial(range_of(asked), lie)

    def copy(self, release: Release = Release.AFTER_VERIFICATION) -> bytes:
        data = bytearray()
        reader = self.blob()
        try:
            copy_verified(reader, data.extend, Descriptor("layer", DIGEST, L), release=release)
        finally:
            reader.close()
        return bytes(data)

    def test_a_place_that_lied_is_excluded_and_the_blob_begins_anew_elsewhere(self) -> None:
        for position in (0, L - 1):
            with self.subTest(position):
                self.origins.asked.clear()
                self.places(self.wrong(position), obedient)
                self.assertEqual(self.copy(), CONTENT)
                self.assertEqual((self.hosts(), self.ranges()), (["a", "b"], [None, None]))
                self.assertEqual(self.events.of("source")[-1]["reason"], ErrorCode.CONTENT_MISMATCH)

    def test_of_a_mixture_every_place_is_excluded(self) -> None:
        self.places(in_turn(cut(1000), reply(404)), self.wrong(2000), obedient)
        self.assertEqual(self.copy(), CONTENT)
        self.assertEqual(self.hosts(), ["a", "a", "b", "c"])

    def test_what_has_left_the_process_cannot_be_begun_anew_and_the_liar_is_named(self) -> None:
        self.places(self.wrong(10), obedient)
        with self.assertRaisesRegex(ContentMismatchError, r"served by a\.example\)$") as caught:
            self.copy(Release.AS_READ)
        error = caught.exception
        self.assertEqual((error.host, error.phase, error.offset), ("a.example", Phase.BLOB, L))
        self.assertEqual([(a.place, a.code) for a in error.attempts], [("a.example", ErrorCode.CONTENT_MISMATCH)])

    def test_when_all_lie_the_last_is_named_and_all_are_told(self) -> None:
        self.places(self.wrong(0), self.wrong(1))
        with self.assertRaisesRegex(ContentMismatchError, r"served by b\.example\)$") as caught:
            self.copy()
        self.assertEqual(
            [(a.place, a.code) for a in caught.exception.attempts],
            [("a.example", ErrorCode.CONTENT_MISMATCH), ("b.example", ErrorCode.CONTENT_MISMATCH)],
        )
        self.assertFalse(caught.exception.retryable)

    def test_a_blob_that_cannot_be_right_ends_although_nobody_served_a_byte_of_it(self) -> None:
        self.places(in_turn(reply(200, b"")), in_turn(reply(200, b"")))
        for release in Release:
            reader = self.blob(size=0)
            with self.subTest(release), self.assertRaisesRegex(ContentMismatchError, "expected digest") as caught:
                copy_verified(reader, bytearray().extend, Descriptor("layer", DIGEST, 0), release=release)
            self.assertNotIn("served by", str(caught.exception))
            reader.close()
        self.assertEqual(self.hosts(), ["a", "a"])
        self.assertEqual(self.events.of("source"), [])

    def test_the_only_place_is_not_asked_again(self) -> None:
        self.places(self.wrong(0))
        with self.assertRaises(ContentMismatchError):
            self.copy()
        self.assertEqual(len(self.origins.asked), 1)


def range_of(asked: Asked) -> int:
    return int(asked.fields["range"].removeprefix("bytes=").removesuffix("-"))


class ClockTest(BlobCase):
    def passing(self, seconds: float, answer: Reply | Script) -> Script:
        """An answer that takes its time."""

        def slow(asked: Asked) -> Reply:
            self.clock.now += seconds
            return answer(asked) if callable(answer) else answer

        return slow

    def test_a_blob_without_progress_ends_within_its_time_over_all_places(self) -> None:
        self.places(*(self.passing(20, reply(500)) for _ in range(3)))
        began = self.clock.now
        with self.assertRaises(CipError) as caught:  # the last answer, or that it came too late
            self.fetch()
        error = caught.exception
        self.assertIn(error.code, (ErrorCode.REGISTRY_ERROR, ErrorCode.TIMEOUT))
        self.assertLessEqual(self.clock.now - began, 130)  # the last answer began before the 110 s were over
        self.assertTrue(error.retryable)
        self.assertEqual(self.hosts(), ["a", "b", "c", "a", "b", "c"])

    def test_a_slow_parent_is_no_stall(self) -> None:
        self.places(obedient)
        reader = self.blob()
        view = memoryview(bytearray(1000))
        data = b""
        while count := reader.readinto(view):
            data += view[:count]
            self.clock.now += 3600
        self.assertEqual(data, CONTENT)

    def test_a_limit_that_was_short_of_patience_ends_with_the_next_progress(self) -> None:
        self.places(in_turn(reply(200, CONTENT)))
        reader = self.blob()
        view = memoryview(bytearray(1))
        reader.readinto(view)
        response = reader._response
        assert response is not None
        reader._stall.count(reader._stall.stall - 1.0, 0)
        reader._stall.begin_try()
        reader.readinto(view)
        assert response.limits is not None
        self.assertEqual(response.limits.deadline - self.clock.now, 1.0)
        reader._stall.count(0.0, 1 << 30)
        reader.readinto(view)
        # never without an end: a TLS record or the size of a chunk may come byte by byte within one read
        self.assertEqual(response.limits.deadline - self.clock.now, TimeLimits().stall)
        reader.close()

    def test_a_config_is_a_document_with_a_document_s_time(self) -> None:
        self.places(*(self.passing(14, reply(500)) for _ in range(2)))
        began = self.clock.now
        with self.assertRaises(CipError) as caught:  # the last answer, or that it came too late
            self.fetch(media_type=OCI_CONFIG)
        error = caught.exception
        self.assertEqual((error.phase, error.retryable), (Phase.CONFIG, True))
        self.assertLessEqual(self.clock.now - began, 65)

    def test_a_wish_that_nobody_can_wait_for_ends_it_with_the_wish(self) -> None:
        self.places(in_turn(reply(429, b"", {"Retry-After": "3600"})))
        error = self.fails(ErrorCode.RATE_LIMITED, settings=self.settings._replace(times=TimeLimits(stall=50)))
        self.assertEqual((error.retry_after, self.clock.sleeps), (3600, []))

    def test_the_deadline_of_a_request_counts_everything(self) -> None:
        self.places(self.passing(6, reply(500)))
        began = self.clock.now
        with self.assertRaises(CipError) as caught:
            self.fetch(settings=self.settings._replace(times=TimeLimits(deadline=10)))
        self.assertTrue(caught.exception.retryable)
        self.assertLessEqual(self.clock.now - began, 14)

    def test_too_slow_is_a_stall(self) -> None:
        clock = self.clock

        def drip(self: Response, view: memoryview) -> int:
            clock.now += 2.0
            return real(self, view[:1])

        self.places(in_turn(reply(200, CONTENT), obedient))
        reader = self.blob()
        real = Response.readinto
        with mock.patch.object(Response, "readinto", drip):
            with self.assertRaises(CipError) as caught:
                self.read(reader)
        self.assertIs(caught.exception.code, ErrorCode.TIMEOUT)
        first = caught.exception.attempts[0]
        self.assertEqual((first.code, first.at), (ErrorCode.TIMEOUT, 60.0))
        self.assertLessEqual(caught.exception.attempts[-1].at, 120.0)

    @needs_rooms("budget")
    def test_the_budget_ends_it_without_repeats(self) -> None:
        self.places(obedient, obedient)
        limited = self.settings._replace(transfer=TransferLimits(max_bytes=3000))
        error = self.fails(ErrorCode.BUDGET_EXHAUSTED, settings=limited)
        self.assertEqual((error.offset, len(self.origins.asked)), (3000, 1))

    @needs_rooms("budget")
    def test_a_rate_is_no_stall(self) -> None:
        self.places(obedient)
        limited = self.settings._replace(transfer=TransferLimits(max_rate=10))
        began = self.clock.now
        self.assertEqual(self.fetch(settings=limited), CONTENT)
        self.assertAlmostEqual(self.clock.now - began, L / 10, delta=2)


def close_once_read(reader: RegistryBlob) -> threading.Thread:
    """A thread that closes `reader` while another one reads from it, however late that begins."""

    def close() -> None:
        ends = time.monotonic() + 30
        while not reader._busy and time.monotonic() < ends:
            time.sleep(0.001)
        reader.close()

    thread = threading.Thread(target=close)
    thread.start()
    return thread


class CloseTest(BlobCase):
    def test_another_thread_can_end_a_read_that_waits(self) -> None:
        self.places(in_turn(reply(200, CONTENT[:1000], {"Content-Length": str(L)}, then="hang")))
        reader = self.blob(settings=self.settings._replace(times=TimeLimits()))
        reader.readinto(memoryview(bytearray(1000)))
        closing = close_once_read(reader)
        with self.assertRaisesRegex(NetworkError, "given up by the caller"):
            reader.readinto(memoryview(bytearray(1000)))
        closing.join()
        with self.assertRaisesRegex(NetworkError, "closed"):
            reader.readinto(memoryview(bytearray(1000)))

    def test_closing_twice_and_early_is_harmless(self) -> None:
        self.places(obedient)
        reader = self.blob()
        reader.close()
        reader.close()
        self.assertEqual(self.origins.asked, [])
        with self.assertRaisesRegex(NetworkError, "closed"):
            reader.readinto(memoryview(bytearray(1)))

    def test_a_wait_that_would_outlast_the_deadline_is_left_out(self) -> None:
        self.places(obedient)
        first = self.blob(settings=self.settings._replace(times=TimeLimits(deadline=10)))
        first._session.repeats.backoff.postpone("a.example", 60)
        began = self.clock.now
        self.assertEqual(self.read(first), CONTENT)
        self.assertLess(self.clock.now - began, 10)

    def test_another_thread_can_end_the_wait_for_an_answer_and_no_place_is_asked_again(self) -> None:
        self.places(in_turn(Reply(b"", "hang")), obedient)
        reader = self.blob(settings=self.settings._replace(times=TimeLimits()))

        def close_once_asked() -> None:
            while not self.hosts():
                time.sleep(0.002)
            reader.close()

        closer = threading.Thread(target=close_once_asked)
        closer.start()
        with self.assertRaises(NetworkError):
            reader.readinto(memoryview(bytearray(1)))
        closer.join()
        self.assertEqual(self.hosts(), ["a"])

    def test_what_is_closed_during_a_read_is_let_go_of_when_that_returns(self) -> None:
        self.places(obedient)
        reader = self.blob()
        self.close_during_a_read(reader)
        self.assertIsNone(reader._response)

    def test_who_waits_for_an_answer_knows_of_which_host(self) -> None:
        asked: list[str] = []

        class Told(Waits):
            def asking(self, host: str) -> AbstractContextManager[None]:
                asked.append(host)
                return nullcontext()

        self.places(obedient)
        self.addCleanup(WAITS.reset, WAITS.set(Told()))
        self.read(self.blob())
        self.assertEqual(asked, [self.blob()._candidates.current.endpoint.name])

    def test_a_blob_read_to_its_end_keeps_its_connection(self) -> None:
        self.places(obedient)
        reader = self.blob()
        session = reader._session
        self.read(reader)
        endpoint = reader._candidates.current.endpoint
        again = RegistryBlob(reader._descriptor, BlobAccess.VERIFIED, [endpoint], session)
        self.read(again)
        self.assertEqual(len(self.origins.opened), 1)

# SPDX-License-Identifier: Apache-2.0
"""The rows of wire.md section 14 that need neither a registry nor a process; B numbers are in the names."""

import json
import os
import socket
import threading
import time
import unittest
from collections.abc import Callable
from contextlib import suppress
from unittest import mock

from cip.content import WAITS, BlobAccess, BlobReader, BytesReader
from cip.errors import (
    CipError,
    ConfigurationError,
    ErrorCode,
    ImageAbsentError,
    InvalidReferenceError,
    NetworkError,
    NotFoundError,
    PolicyRejectedError,
    UsageError,
)
from cip.model.descriptor import UNKNOWN_SIZE, Digest, digest_of
from cip.model.mediatype import OCI_MANIFEST
from cip.wire.jsonproxy import conversation, methods
from cip.wire.jsonproxy import replies as answers
from cip.wire.jsonproxy.waits import Told
from tests.support.fakeimage import BAD, BIG, LAYER_TYPE, Content, Failing, FakeImage, FakeOpener, Manifest, Stalled
from tests.support.images import BIG_SIZE, CONFIG_C, DIGEST_M, DIGEST_S, DIGEST_T, LAYER_T, MANIFEST_M, describe
from tests.support.jsonparent import (
    PACKET_LIMIT,
    JsonParent,
    Reply,
    close_all,
    has_nothing,
    read_error_pipe,
    read_exactly,
    read_to_end,
)
from tests.support.leaks import LeakCheckedTestCase, await_end
from tests.support.parent import PATIENCE
from tests.support.referrers import carrier


class Server:
    """A conversation in threads of this process; `parent` is its other end."""

    def __init__(self, opener: FakeOpener, settled: Callable[[], object] = list) -> None:
        self._settled = settled
        self._before = set(threading.enumerate())
        self._opener = opener
        ours, self.sock = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self.parent = JsonParent(ours)
        self.status: int | None = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with conversation.Conversation(self.sock, self._opener) as self.conversation:
            if self.conversation.begin():
                self._settled()
                self.conversation.run()
        self.status = self.conversation.exit_status

    def end(self) -> int | None:
        """The exit status, once the server has ended by itself."""
        self._thread.join(PATIENCE)
        return self.status

    def close(self) -> None:
        """Hang up and wait for every thread."""
        self.parent.sock.close()
        self._thread.join(PATIENCE)
        for thread in set(threading.enumerate()) - self._before:
            await_end(thread, PATIENCE)
        self.sock.close()


class OpenerTestCase(LeakCheckedTestCase):
    """Has an `opener`, who has `image` as `f1`."""

    def setUp(self) -> None:
        super().setUp()
        self.image = Content()
        self.opener = FakeOpener()
        self.opener.contents["f1"] = self.image
        self.go_on = threading.Event()

    def stalled(self, data: bytes = BIG) -> Digest:
        """The digest of a blob that gives 1000 bytes until `go_on` is set."""
        return self.image.add(data, lambda: Stalled(data, self.go_on))

    def big(self) -> Digest:
        return self.image.add(BIG, lambda: BytesReader(BIG))


class ConversationTestCase(OpenerTestCase):
    """Serves `opener`."""

    def setUp(self) -> None:
        super().setUp()
        self.server = Server(self.opener)
        self.parent = self.server.parent
        self.addCleanup(self.close_all)

    def close_all(self) -> None:
        self.go_on.set()
        self.server.close()
        self.assertEqual(self.server.status, 0)

    def assert_refused(self, reply: Reply, reason: str = ".", code: str = "other") -> None:
        found, text = reply.failure
        self.assertEqual(found, code)
        self.assertRegex(text, reason)


class Beginning(ConversationTestCase):
    def test_b1_b2_initialize_says_the_version_once(self) -> None:
        reply = self.parent.ask("Initialize")
        self.assertEqual((reply.value, reply.pipe_id, reply.fds), ("0.2.8", 0, []))
        self.assert_refused(self.parent.ask("Initialize"), "a second one")

    def test_b3_a_failed_initialize_may_be_repeated(self) -> None:
        self.assert_refused(self.parent.ask("Initialize", 1), "expected 0 arguments, found 1")
        self.assertEqual(self.parent.ask("Initialize").value, "0.2.8")

    def test_b5_b6_before_initialize_only_two_methods_work(self) -> None:
        self.assert_refused(self.parent.ask("OpenImage", "f1"), "expected Initialize before it")
        for method in ("GetManifest", "CloseImage", "GetLayerInfo"):
            self.assert_refused(self.parent.ask(method, 1), "expected Initialize")
        self.assert_refused(self.parent.ask("FinishPipe", 99), "no unfinished pipe 99")

    def test_b7_shutdown_needs_no_initialize(self) -> None:
        self.parent.send("Shutdown")
        self.assertEqual(self.server.end(), 0)
        self.server.sock.close()
        self.assertTrue(self.parent.at_end())

    def test_b62_b63_an_unusable_policy_or_contradicting_flags_fail_initialize(self) -> None:
        self.opener.prepare_errors = [
            ConfigurationError("/etc/policy.json", "line 3", code=ErrorCode.POLICY_INVALID),
            UsageError("--no-creds contradicts --creds"),
        ]
        reply = self.parent.ask("Initialize")
        self.assert_refused(reply, "/etc/policy.json: line 3")
        self.assertEqual(reply.members["details"]["type"], "policy-invalid")
        self.assert_refused(self.parent.ask("Initialize"), "--no-creds contradicts")
        self.assertEqual(self.parent.ask("Initialize").value, "0.2.8")


class Images(ConversationTestCase):
    def test_b8_the_same_image_twice_has_two_ids(self) -> None:
        self.assertEqual(self.parent.open("f1"), 1)
        self.assertEqual(self.parent.ask("OpenImage", "f1").value, 2)

    def test_b8_a_failed_open_uses_no_id(self) -> None:
        self.opener.errors["bad"] = InvalidReferenceError("bad", "expected TRANSPORT:")
        self.assertEqual(self.parent.ask("Initialize").value, "0.2.8")
        self.assert_refused(self.parent.ask("OpenImage", "bad"), "expected TRANSPORT:")
        self.assertEqual(self.parent.ask("OpenImage", "f1").value, 1)

    def test_b9_b10_b11_only_an_absent_image_is_optional(self) -> None:
        self.opener.errors["oci:F1:nope"] = ImageAbsentError("oci:F1:nope: no such image")
        self.opener.errors["oci:missing"] = NotFoundError("no such blob", code=ErrorCode.BLOB_NOT_FOUND)
        self.parent.ask("Initialize")
        self.assertEqual(self.parent.ask("OpenImageOptional", "oci:F1:nope").value, 0)
        self.assert_refused(self.parent.ask("OpenImageOptional", "oci:missing"), "no such blob")
        self.assert_refused(self.parent.ask("OpenImage", "oci:F1:nope"), "no such image")
        self.assertEqual(self.parent.ask("OpenImageOptional", "f1").value, 1)

    def test_b12_the_reference_is_one_string(self) -> None:
        self.parent.ask("Initialize")
        for method in ("OpenImage", "OpenImageOptional"):
            self.assert_refused(self.parent.ask(method), "expected 1 arguments, found 0")
            self.assert_refused(self.parent.ask(method, "a", "b"), "expected 1 arguments, found 2")
            self.assert_refused(self.parent.ask(method, 5), r"args\[0\]: expected a string, found an integer")

    def test_b40_a_closed_image_is_gone(self) -> None:
        image = self.parent.open("f1")
        self.assertIsNone(self.parent.ask("CloseImage", image).value)
        self.assertEqual(self.opener.opened[0].closed, 1)
        self.assert_refused(self.parent.ask("GetManifest", image), "no open image 1")
        self.assert_refused(self.parent.ask("CloseImage", image), "no open image 1")
        self.assertEqual(self.parent.ask("OpenImage", "f1").value, 2)

    def test_b41_a_transfer_runs_to_its_end_although_the_image_is_closed(self) -> None:
        digest = self.stalled()
        image = self.parent.open("f1")
        reply = self.parent.ask("GetBlob", image, str(digest), BIG_SIZE)
        self.parent.ask("CloseImage", image)
        self.assertEqual(self.opener.opened[0].closed, 0)
        self.go_on.set()
        self.assertEqual(read_exactly(reply.fds[0], BIG_SIZE), BIG)
        self.assertIsNone(self.parent.finish(reply).value)
        close_all(reply)
        self.close_all()
        self.assertEqual(self.opener.opened[0].closed, 1)

    def test_b61_a_rejected_image_is_not_an_absent_one(self) -> None:
        self.opener.errors["evil"] = PolicyRejectedError("evil: rejected by policy", reason="reject")
        self.parent.ask("Initialize")
        for method in ("OpenImage", "OpenImageOptional"):
            reply = self.parent.ask(method, "evil")
            self.assert_refused(reply, "rejected by policy")
            self.assertEqual(reply.members["details"]["reason"], "reject")

    def test_a_mistake_of_ours_is_an_answer_and_not_the_end(self) -> None:
        self.opener.errors["trap"] = RecursionError("secret")
        self.parent.ask("Initialize")
        with mock.patch("cip.log.error") as logged:
            self.assert_refused(self.parent.ask("OpenImage", "trap"), "^internal error$")
        self.assertRegex(str(logged.call_args), "RecursionError at fakeimage.py")
        self.assertEqual(self.parent.ask("OpenImage", "f1").value, 1)

    def test_images_are_closed_at_the_end(self) -> None:
        self.parent.open("f1")
        self.parent.send("Shutdown")
        self.assertEqual(self.server.end(), 0)
        self.assertEqual(self.opener.opened[0].closed, 1)


class Metadata(ConversationTestCase):
    def test_b13_b14_the_manifest_comes_with_the_digest_before_conversion(self) -> None:
        image = self.parent.open("f1")
        value, content, verdict = self.parent.fetch("GetManifest", image)
        self.assertEqual((value, content, verdict.value), (str(DIGEST_M), MANIFEST_M, None))
        self.image.manifest = Manifest(MANIFEST_M, DIGEST_S)
        self.assertEqual(self.parent.fetch("GetManifest", image)[:2], (str(DIGEST_S), MANIFEST_M))

    def test_b15_b16_configs(self) -> None:
        image = self.parent.open("f1")
        self.assertEqual(self.parent.fetch("GetFullConfig", image)[:2], (None, CONFIG_C))
        self.assertEqual(self.parent.fetch("GetConfig", image)[:2], (None, b"{}"))

    def test_whoever_reads_a_config_learns_which_hosts_are_silent(self) -> None:
        told: list[bool] = []

        def config(image: FakeImage) -> bytes:
            with suppress(NetworkError), WAITS.get().asking("r.example"):
                raise NetworkError("late", code=ErrorCode.TIMEOUT)
            return CONFIG_C

        def open_blob() -> BlobReader:
            told.append(False)
            waits = WAITS.get()
            assert isinstance(waits, Told)
            with waits.answering(lambda: told.append(True)).asking("r.example"):
                return BytesReader(b"x")

        image = self.parent.open("f1")
        with mock.patch.object(FakeImage, "config", config):
            self.parent.fetch("GetFullConfig", image)
        self.parent.fetch("GetBlob", image, str(self.image.add(b"x", open_blob)), 1)
        self.assertEqual(told, [False, True])

    def test_b17_b18_layers_in_the_reply_or_in_a_pipe(self) -> None:
        image = self.parent.open("f1")
        expected = [{"digest": str(DIGEST_T), "size": 10240, "media_type": LAYER_TYPE}]
        reply = self.parent.ask("GetLayerInfo", image)
        self.assertEqual((reply.value, reply.pipe_id, reply.fds), (expected, 0, []))
        self.assertEqual([list(layer) for layer in reply.value], [["digest", "size", "media_type"]])
        value, content, _ = self.parent.fetch("GetLayerInfoPiped", image)
        self.assertEqual((value, content), (None, json.dumps(expected, separators=(",", ":")).encode()))

    def test_l13_referrers_are_listed_through_a_pipe_and_their_manifests_too(self) -> None:
        self.assertEqual(self.parent.ask("Initialize").value, "0.2.8")
        image = self.parent.ask("OpenImage", "f1").value
        sbom = carrier(DIGEST_M, b"sbom", kind="application/spdx+json")
        self.image.referrers = {digest_of(sbom): (sbom, "application/spdx+json")}
        for arguments, count in (((), 1), (("application/spdx+json",), 1), (("a+b",), 0)):
            value, content, _ = self.parent.fetch("GetReferrers", image, *arguments)
            self.assertEqual((value, len(json.loads(content)["manifests"])), (count, count))
        value, content, _ = self.parent.fetch("GetReferrerManifest", image, str(digest_of(sbom)))
        self.assertEqual((value, content), (OCI_MANIFEST, sbom))
        reply = self.parent.ask("GetReferrerManifest", image, str(DIGEST_T))
        self.assertEqual(reply.members["details"]["type"], "blob-not-in-image")
        refused: tuple[tuple[tuple[object, ...], str], ...] = (
            ((image, ""), "found an empty one"),
            ((), "expected 1 to 2 arguments, found 0"),
            ((image, "a", "b"), "expected 1 to 2 arguments, found 3"),
            ((image, 5), "expected a string"),
            ((99,), "there is no open image 99"),
        )
        for given, words in refused:
            self.assert_refused(self.parent.ask("GetReferrers", *given), words)

    def test_b49_b50_a_list_that_fits_no_packet_names_the_piped_call(self) -> None:
        image = self.parent.open("f1")
        for count in (400, 3000):
            self.image.layers = tuple(describe(b"%d" % number, LAYER_TYPE) for number in range(count))
            reply = self.parent.ask("GetLayerInfo", image)
            self.assert_refused(reply, "GetLayerInfoPiped")
            self.assertEqual(reply.members["details"]["type"], "limit-exceeded")
            self.assertEqual(len(json.loads(self.parent.fetch("GetLayerInfoPiped", image)[1])), count)

    def test_b31_no_end_of_file_before_finish_pipe(self) -> None:
        image = self.parent.open("f1")
        reply = self.parent.ask("GetManifest", image)
        self.assertEqual(read_exactly(reply.fds[0], len(MANIFEST_M)), MANIFEST_M)
        self.parent.ask("GetLayerInfo", image)
        self.assertTrue(has_nothing(reply.fds[0]))
        self.assertIsNone(self.parent.finish(reply).value)
        self.assertEqual(read_to_end(reply.fds[0]), b"")

    def test_b34_b35_b36_finish_pipe_is_never_the_end_of_the_server(self) -> None:
        image = self.parent.open("f1")
        reply = self.parent.ask("GetManifest", image)
        self.parent.finish(reply)
        self.assert_refused(self.parent.finish(reply), "no unfinished pipe")
        self.assert_refused(self.parent.ask("FinishPipe"), "expected 1 arguments, found 0")
        for wrong in ("3", None, True):
            self.assert_refused(self.parent.ask("FinishPipe", wrong), "expected a number")
        close_all(reply)

    def test_finish_pipe_ignores_further_arguments(self) -> None:
        image = self.parent.open("f1")
        reply = self.parent.ask("GetManifest", image)
        self.assertIsNone(self.parent.ask("FinishPipe", reply.pipe_id, "x", {}).value)
        close_all(reply)

    def test_b37_b38_b39_image_ids_are_integers(self) -> None:
        self.parent.open("f1")
        for wrong in ("0", "-1", "1.5", '"1"', "null", "true", "9007199254740992", "4294967297", "1e400"):
            with self.subTest(wrong):
                self.assert_refused(self.parent.ask_text(f'{{"method":"GetManifest","args":[{wrong}]}}'))
        reply = self.parent.ask_text('{"method":"GetManifest","args":[1e0]}')
        self.assertEqual(reply.value, str(DIGEST_M))
        close_all(reply)

    def test_b52_300_unfinished_pipes_are_fine(self) -> None:
        image = self.parent.open("f1")
        replies = [self.parent.ask("GetManifest", image) for _ in range(300)]
        self.assertEqual(len({reply.pipe_id for reply in replies}), 300)
        self.assertEqual({reply.value for reply in replies}, {str(DIGEST_M)})
        close_all(*replies)

    def test_the_same_calls_in_any_order_give_the_same_bytes(self) -> None:
        image = self.parent.open("f1")
        methods = ("GetManifest", "GetFullConfig", "GetConfig", "GetLayerInfoPiped")
        first = {method: self.parent.fetch(method, image)[:2] for method in methods}
        for method in (*reversed(methods), *methods):
            self.assertEqual(self.parent.fetch(method, image)[:2], first[method])


class Unstated(BytesReader):
    """Of a source that does not say how large a blob is."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.size = UNKNOWN_SIZE


class Blobs(ConversationTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.image_id = self.parent.open("f1")

    def test_b19_a_blob_is_verified(self) -> None:
        value, content, verdict = self.parent.fetch("GetBlob", self.image_id, str(DIGEST_T), 10240)
        self.assertEqual((value, content, verdict.value), (10240, LAYER_T, None))
        self.assertEqual(self.image.accesses, [BlobAccess.VERIFIED])

    def test_b20_a_wrong_size_is_told_after_all_bytes(self) -> None:
        value, content, verdict = self.parent.fetch("GetBlob", self.image_id, str(DIGEST_T), 10241)
        self.assertEqual((value, content), (10240, LAYER_T))
        self.assert_refused(verdict, "expected 10241 bytes as requested, found 10240")

    def test_b21_b22_a_wrong_digest_is_told_first(self) -> None:
        digest = self.image.add(BIG, lambda: BytesReader(BAD))
        for size in (BIG_SIZE, 5):
            value, content, verdict = self.parent.fetch("GetBlob", self.image_id, str(digest), size)
            self.assertEqual((value, content), (BIG_SIZE, BAD))
            self.assert_refused(verdict, "expected digest sha256:")
            self.assertEqual(verdict.members["details"]["digest"], str(digest))
            self.assertEqual(verdict.members["details"]["phase"], "blob")

    def test_b23_a_raw_blob_is_not_judged(self) -> None:
        digest = self.image.add(BIG, lambda: BytesReader(BAD))
        self.assertEqual(self.parent.fetch_raw(self.image_id, digest), (BIG_SIZE, BAD, None))
        self.assertEqual(self.image.accesses, [BlobAccess.RAW])

    def test_b24_malformed_digests_are_refused(self) -> None:
        for digest in (
            "sha256:abc",
            "md5:" + "0" * 32,
            "nope",
            str(DIGEST_T).upper(),
            "",
            f"{DIGEST_T}\n",
            "sha256:" + "A" * 64,
        ):
            with self.subTest(digest):
                self.assert_refused(self.parent.ask("GetBlob", self.image_id, digest, 1), "^digest ")
                self.assert_refused(self.parent.ask("GetRawBlob", self.image_id, digest), "^digest ")

    def test_b25_unknown_digests_are_not_found(self) -> None:
        for digest in ("sha256:" + "0" * 64, "sha384:" + "0" * 96, "sha512:" + "0" * 128):
            for method, arguments in (("GetBlob", (digest, 1)), ("GetRawBlob", (digest,))):
                reply = self.parent.ask(method, self.image_id, *arguments)
                self.assert_refused(reply, "names no blob")
                self.assertEqual(reply.members["details"]["type"], "blob-not-in-image")
        self.assertEqual(self.image.accesses, [])

    def test_b26_types_and_counts_of_arguments(self) -> None:
        self.assert_refused(self.parent.ask("GetBlob", self.image_id, 5, 1), "expected a string")
        self.assert_refused(self.parent.ask("GetBlob", self.image_id, str(DIGEST_T), "1"), "expected a number")
        self.assert_refused(self.parent.ask("GetBlob", self.image_id, str(DIGEST_T)), "expected 3 arguments, found 2")
        self.assert_refused(self.parent.ask("GetBlob", self.image_id, str(DIGEST_T), -1), "found -1")
        self.assert_refused(self.parent.ask("GetRawBlob", self.image_id, str(DIGEST_T), 1), "expected 2 arg")

    def test_b27_an_early_close_is_epipe(self) -> None:
        reply = self.parent.ask("GetBlob", self.image_id, str(self.big()), BIG_SIZE)
        self.assertEqual(read_exactly(reply.fds[0], 10), BIG[:10])
        close_all(reply)
        self.assert_refused(self.parent.finish(reply), "broken pipe$", "EPIPE")

    def test_b28_b29_early_closes_of_a_raw_blob(self) -> None:
        digest = str(self.big())
        reply = self.parent.ask("GetRawBlob", self.image_id, digest)
        self.assertEqual(read_exactly(reply.fds[0], 10), BIG[:10])
        os.close(reply.fds[0])
        found = read_error_pipe(reply.fds[1])
        assert found is not None
        self.assertEqual(found["code"], "EPIPE")
        reply = self.parent.ask("GetRawBlob", self.image_id, digest)
        os.close(reply.fds[1])
        self.assertEqual(read_to_end(reply.fds[0]), BIG)

    def test_b30_transfers_beside_each_other(self) -> None:
        digest = str(self.big())
        first, second = (self.parent.ask("GetBlob", self.image_id, digest, BIG_SIZE) for _ in range(2))
        third = self.parent.ask("GetManifest", self.image_id)
        self.assertEqual(len({first.pipe_id, second.pipe_id, third.pipe_id}), 3)
        self.assertIsNone(self.parent.finish(third).value)
        for reply in (second, first):
            self.assertEqual(read_exactly(reply.fds[0], BIG_SIZE), BIG)
            self.assertIsNone(self.parent.finish(reply).value)
        close_all(first, second, third)

    def test_b32_b33_finish_pipe_before_reading_waits_and_keeps_the_order(self) -> None:
        reply = self.parent.ask("GetBlob", self.image_id, str(self.big()), BIG_SIZE)
        self.parent.send("FinishPipe", reply.pipe_id)
        self.parent.send("GetLayerInfo", self.image_id)
        self.parent.send("CloseImage", 77)
        self.assertEqual(read_exactly(reply.fds[0], 1000), BIG[:1000])
        self.assertTrue(self.parent.is_silent())
        self.assertEqual(read_to_end(reply.fds[0]), BIG[1000:])
        self.assertIsNone(self.parent.reply().value)
        self.assertEqual(len(self.parent.reply().value), 1)
        self.assert_refused(self.parent.reply(), "no open image 77")

    def test_b58_a_size_that_nobody_knows_is_minus_one(self) -> None:
        digest = self.image.add(BIG, lambda: BytesReader(BIG), UNKNOWN_SIZE)
        self.assertEqual(self.parent.fetch("GetBlob", self.image_id, str(digest), BIG_SIZE)[:2], (-1, BIG))
        self.assertEqual(self.parent.fetch_raw(self.image_id, digest), (-1, BIG, None))

    def test_b59_a_source_that_fails_ends_the_data_at_once(self) -> None:
        error = NetworkError("r.example: the connection broke", host="r.example")
        digest = self.image.add(BIG, lambda: Failing(BIG[:50], error))
        reply = self.parent.ask("GetBlob", self.image_id, str(digest), BIG_SIZE)
        self.assertEqual(read_to_end(reply.fds[0]), BIG[:50])
        verdict = self.parent.finish(reply)
        self.assert_refused(verdict, "the connection broke", "retryable")
        self.assertEqual(verdict.members["details"]["host"], "r.example")
        size, content, told = self.parent.fetch_raw(self.image_id, digest)
        assert told is not None
        self.assertEqual((size, content, told["code"]), (BIG_SIZE, BIG[:50], "retryable"))

    def test_a_short_body_is_never_a_success(self) -> None:
        for data, reason in ((BIG[:-1], "found 2999999"), (BIG + b"x", "found more")):
            digest = self.image.add(BIG, lambda data=data: BytesReader(data))  # type: ignore[misc]
            told = self.parent.fetch_raw(self.image_id, digest)[2]
            assert told is not None
            self.assertRegex(told["message"], reason)
            reply = self.parent.ask("GetBlob", self.image_id, str(digest), BIG_SIZE)
            self.assert_refused(reply, "the source states")
            self.image.add(BIG, lambda data=data: Unstated(data))  # type: ignore[misc]
            self.assert_refused(self.parent.fetch("GetBlob", self.image_id, str(digest), BIG_SIZE)[2], reason)

    def test_a_source_that_cannot_be_opened_is_told_by_the_reply(self) -> None:
        def refuse() -> BlobReader:
            raise NotFoundError("r.example: no such blob", code=ErrorCode.BLOB_NOT_FOUND)

        digest = self.image.add(BIG, refuse)
        for method, arguments in (("GetBlob", (BIG_SIZE,)), ("GetRawBlob", ())):
            reply = self.parent.ask(method, self.image_id, str(digest), *arguments)
            self.assert_refused(reply, "no such blob")
            self.assertEqual(reply.members["details"]["type"], "blob-not-found")
        self.assertIsNone(self.parent.fetch("GetManifest", self.image_id)[2].value)

    def test_an_empty_blob_has_a_verdict_too(self) -> None:
        digest = self.image.add(b"", lambda: BytesReader(b""))
        self.assertEqual(self.parent.fetch("GetBlob", self.image_id, str(digest), 0)[:2], (0, b""))
        self.assertEqual(self.parent.fetch_raw(self.image_id, digest), (0, b"", None))


class NothingWaitsForAStalledBlob(ConversationTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.image_id = self.parent.open("f1")
        self.slow = self.parent.ask("GetBlob", self.image_id, str(self.stalled()), BIG_SIZE)
        self.addCleanup(close_all, self.slow)

    def test_every_other_request_is_answered(self) -> None:
        raw = self.parent.ask("GetRawBlob", self.image_id, str(self.stalled(BIG[:-5])))
        self.assertEqual(self.parent.ask("OpenImage", "f1").value, 2)
        for method in ("GetManifest", "GetFullConfig", "GetConfig", "GetLayerInfoPiped"):
            self.assertIsNone(self.parent.fetch(method, 2)[2].value)
        self.assertEqual(self.parent.fetch("GetBlob", 2, str(DIGEST_T), 10240)[1], LAYER_T)
        self.assertEqual(self.parent.fetch_raw(2, DIGEST_T)[1:], (LAYER_T, None))
        self.assertIsNone(self.parent.ask("CloseImage", 2).value)
        self.assertEqual(read_exactly(self.slow.fds[0], 1000), BIG[:1000])
        self.assertTrue(has_nothing(self.slow.fds[0]))
        close_all(raw)

    def test_one_that_failed_is_told_beside_it(self) -> None:
        digest = self.image.add(b"x", lambda: BytesReader(b"y"))
        self.assert_refused(self.parent.fetch("GetBlob", self.image_id, str(digest), 1)[2], "expected digest")

    def test_one_whose_reader_has_left_is_given_up(self) -> None:
        for waiting in (False, True):
            with self.subTest(waiting=waiting):
                reply = self.parent.ask("GetBlob", self.image_id, str(self.stalled()), BIG_SIZE)
                if waiting:
                    self.parent.send("FinishPipe", reply.pipe_id)
                close_all(reply)
                told = self.parent.reply() if waiting else self.parent.finish(reply)
                self.assert_refused(told, "broken pipe$", "EPIPE")

    @mock.patch("cip.wire.jsonproxy.methods.ANSWER_SECONDS", 0.1)
    def test_one_whose_reader_left_before_the_source_answered_is_given_up(self) -> None:
        class Unwanted(BytesReader):
            def readinto(self, buffer: memoryview, /) -> int:
                read.append(len(buffer))
                return super().readinto(buffer)

            def close(self) -> None:
                closed.set()

        def silent() -> BlobReader:
            assert self.go_on.wait(PATIENCE)
            return Unwanted(BIG)

        closed = threading.Event()
        read: list[int] = []
        digest = self.image.add(BIG[1:], silent)
        reply = self.parent.ask("GetBlob", self.image_id, str(digest), BIG_SIZE - 1)
        close_all(reply)
        self.assert_refused(self.parent.finish(reply), "broken pipe$", "EPIPE")
        self.go_on.set()
        self.assertTrue(closed.wait(PATIENCE))
        self.assertEqual(read, [])

    def test_one_is_given_up_while_another_request_uses_the_network(self) -> None:
        raw = self.parent.ask("GetRawBlob", self.image_id, str(self.stalled(BIG[1:])))
        self.image.config_gate = self.go_on
        self.parent.send("GetFullConfig", self.image_id)
        self.assertTrue(self.parent.is_silent())
        cancelled = threading.Event()
        with mock.patch.object(Stalled, "close", lambda _: cancelled.set()):
            os.close(raw.fds[0])
            self.assertTrue(cancelled.wait(PATIENCE), "it goes on")
        self.go_on.set()
        found = read_error_pipe(raw.fds[1])
        assert found is not None
        self.assertEqual(found["code"], "EPIPE")
        close_all(self.parent.reply())

    @mock.patch("cip.wire.jsonproxy.methods.ANSWER_SECONDS", 0.1)
    def test_a_source_is_told_that_its_reader_has_left(self) -> None:
        closed, started = threading.Event(), threading.Event()

        class Endless(BytesReader):
            def readinto(self, buffer: memoryview, /) -> int:
                started.set()
                assert closed.wait(PATIENCE), "nobody closes it"
                return 0

            def close(self) -> None:
                closed.set()

        digest = self.image.add(BIG[1:], lambda: Endless(BIG[1:]))
        reply = self.parent.ask("GetBlob", self.image_id, str(digest), BIG_SIZE - 1)
        self.assertTrue(started.wait(PATIENCE))
        close_all(reply)
        self.assertTrue(closed.wait(PATIENCE), "the source goes on")
        self.assert_refused(self.parent.finish(reply), "broken pipe$", "EPIPE")

    def test_transfers_behind_a_waiting_finish_pipe_start_at_once(self) -> None:
        self.parent.send("FinishPipe", self.slow.pipe_id)
        other = threading.Event()

        def started() -> BlobReader:
            other.set()
            return BytesReader(BIG)

        digest = self.image.add(BIG[:-1], started)
        self.parent.send("GetBlob", self.image_id, str(digest), BIG_SIZE - 1)
        self.assertTrue(other.wait(PATIENCE), "the transfer waits for the reply of another")
        self.assertTrue(self.parent.is_silent())
        self.go_on.set()
        self.assertEqual(read_exactly(self.slow.fds[0], BIG_SIZE), BIG)
        self.assertIsNone(self.parent.reply().value)
        close_all(self.parent.reply())

    def test_a_verdict_does_not_wait_for_the_description_of_an_unknown_blob(self) -> None:
        self.parent.send("FinishPipe", self.slow.pipe_id)
        self.image.description_gate = threading.Event()
        self.parent.send("GetBlob", self.image_id, str(digest_of(b"unknown")), 1)
        self.assertTrue(self.parent.is_silent())
        self.go_on.set()
        self.assertEqual(read_exactly(self.slow.fds[0], BIG_SIZE), BIG)
        self.assertIsNone(self.parent.reply().value)
        self.image.description_gate.set()
        self.assert_refused(self.parent.reply(), "names no blob")

    def test_a_verdict_never_waits_for_a_request_behind_it(self) -> None:
        self.image.config_gate = threading.Event()
        self.addCleanup(self.image.config_gate.set)
        self.parent.send("FinishPipe", self.slow.pipe_id)
        self.parent.send("GetFullConfig", self.image_id)
        self.go_on.set()
        self.assertEqual(read_exactly(self.slow.fds[0], BIG_SIZE), BIG)
        self.assertIsNone(self.parent.reply().value)
        self.image.config_gate.set()
        close_all(self.parent.reply())

    def test_requests_beyond_what_may_be_owed_wait_in_the_socket(self) -> None:
        self.parent.send("FinishPipe", self.slow.pipe_id)
        for _ in range(answers.OWED_LIMIT + 40):
            self.parent.send("GetLayerInfo", self.image_id)
        self.go_on.set()
        self.assertEqual(read_exactly(self.slow.fds[0], BIG_SIZE), BIG)
        self.assertIsNone(self.parent.reply().value)
        for _ in range(answers.OWED_LIMIT + 40):
            self.assertEqual(len(self.parent.reply().value), 1)

    def test_300_of_them_are_fine(self) -> None:
        digest = str(self.stalled())
        replies = [self.parent.ask("GetBlob", self.image_id, digest, BIG_SIZE) for _ in range(300)]
        self.assertIsNone(self.parent.fetch("GetManifest", self.image_id)[2].value)
        close_all(*replies)


class RepliesThatWaitForASource(ConversationTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.image_id = self.parent.open("f1")

    def silent(self, number: int, error: Exception | None = None) -> str:
        """The digest of a blob whose source says nothing until `go_on` is set."""
        data = bytes([number]) * 1000

        def open_blob() -> BlobReader:
            assert self.go_on.wait(PATIENCE)
            if error is not None:
                raise error
            return BytesReader(data)

        return str(self.image.add(data, open_blob))

    def test_the_seconds_of_several_do_not_add_up(self) -> None:
        with mock.patch.object(methods, "ANSWER_SECONDS", 0.2):
            began = time.monotonic()
            close_all(self.parent.ask("GetRawBlob", self.image_id, self.silent(99)))
            alone = time.monotonic() - began
            began = time.monotonic()
            for number in range(8):
                self.parent.send("GetBlob", self.image_id, self.silent(2 * number), 1000)
                self.parent.send("GetRawBlob", self.image_id, self.silent(2 * number + 1))
                self.parent.send("GetLayerInfo", self.image_id)
            replies = [self.parent.reply() for _ in range(24)]
            self.assertLess(time.monotonic() - began, 12 * alone)
        self.assertEqual([len(reply.fds) for reply in replies], [1, 2, 0] * 8)
        self.go_on.set()
        for reply in replies[::3]:
            self.assertIsNone(self.parent.finish(reply).value)
        close_all(*replies)

    def test_what_fails_later_is_told_by_finish_pipe_and_by_the_error_pipe(self) -> None:
        error = NetworkError("r.example: the connection broke")
        with mock.patch.object(methods, "ANSWER_SECONDS", 0.1):
            verified = self.parent.ask("GetBlob", self.image_id, self.silent(1, error), 1000)
            raw = self.parent.ask("GetRawBlob", self.image_id, self.silent(2, error))
        self.go_on.set()
        self.assert_refused(self.parent.finish(verified), "the connection broke", "retryable")
        told = read_error_pipe(raw.fds.pop())
        assert told is not None
        self.assertEqual(told["code"], "retryable")
        close_all(verified, raw)

    def test_a_blob_that_waits_for_its_share_of_a_host_is_answered_at_once(self) -> None:
        def open_blob() -> BlobReader:
            WAITS.get().begin()
            assert self.go_on.wait(PATIENCE)
            return BytesReader(b"x")

        with mock.patch.object(methods, "ANSWER_SECONDS", PATIENCE):
            reply = self.parent.ask("GetBlob", self.image_id, str(self.image.add(b"x", open_blob)), 1)
        self.go_on.set()
        self.assertIsNone(self.parent.finish(reply).value)
        close_all(reply)

    def test_a_refused_pipe_has_no_id(self) -> None:
        self.go_on.set()
        reply = self.parent.ask("GetBlob", self.image_id, self.silent(1, NetworkError("r.example: broken")), 1000)
        self.assert_refused(reply, "broken", "retryable")
        self.assert_refused(self.parent.ask("FinishPipe", 1), "no unfinished pipe")


class Packets(ConversationTestCase):
    def test_b42_b43_b44_what_is_no_request_is_answered(self) -> None:
        for text in (
            b"{}",
            b"null",
            b"[]",
            b'"x"',
            b'{"method":5}',
            b'{"method":"x","args":{}}',
            b"\0",
            b'\xef\xbb\xbf{"method":"Initialize"}',
            b'{"method":"Initialize"} garbage',
            b"\xff\xfe",
            b" ",
            b"[" * 32768,
            b'{"method":"Initialize","method":"Shutdown"}',
        ):
            with self.subTest(text[:40]):
                self.assert_refused(self.parent.ask_text(text))
        self.assert_refused(self.parent.ask_text('{"METHOD":"Nope"}'), "unknown method 'Nope'")
        self.assertEqual(self.parent.ask("Initialize").value, "0.2.8")

    def test_b45_a_packet_that_is_too_long_is_never_run(self) -> None:
        for size in (PACKET_LIMIT + 1, 40000):
            self.assert_refused(self.parent.ask_text(b'{"method":"Shutdown"}'.ljust(size)), "at most 32768 bytes")
        self.assertEqual(self.parent.ask_text(b'{"method":"Initialize"}'.ljust(PACKET_LIMIT)).value, "0.2.8")

    def test_b46_requests_may_be_sent_ahead(self) -> None:
        self.parent.send("Initialize")
        self.parent.send("OpenImage", "f1")
        self.parent.send("GetLayerInfo", 1)
        self.assertEqual(self.parent.reply().value, "0.2.8")
        self.assertEqual(self.parent.reply().value, 1)
        self.assertEqual(len(self.parent.reply().value), 1)

    def test_b47_descriptors_that_come_along_are_dropped(self) -> None:
        self.assert_refused(self.parent.ask("Nope"))  # from here on nothing new is open in the server
        with open(os.devnull, "rb") as null:
            before = len(os.listdir("/proc/self/fd"))
            socket.send_fds(self.parent.sock, [b'{"method":"Initialize"}'], [null.fileno()] * 5)
            self.assertEqual(self.parent.reply().value, "0.2.8")
            self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_b51_the_largest_error_fits_a_packet(self) -> None:
        self.opener.errors["big"] = CipError("\u20ac" * 300_000, host="\u20ac" * 9999)
        self.parent.ask("Initialize")
        self.assert_refused(self.parent.ask("OpenImage", "big"), "^\u20ac+")
        self.assertEqual(self.parent.ask("OpenImage", "f1").value, 1)

    def test_a_reply_that_the_kernel_refuses_becomes_its_reason(self) -> None:
        image = self.parent.open("f1")
        self.image.layers = tuple(describe(b"%d" % number, LAYER_TYPE) for number in range(150))
        self.server.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        with mock.patch("cip.log.error") as logged:
            self.assert_refused(self.parent.ask("GetLayerInfo", image), "could not be sent: message too long")
        self.assertRegex(str(logged.call_args), "could not be sent")
        self.assertEqual(self.parent.ask("OpenImage", "f1").value, 2)


class TheEnd(ConversationTestCase):
    def test_without_a_thread_for_requests_it_ends_with_an_error(self) -> None:
        replies = answers.Replies(mock.Mock(), mock.Mock(), mock.Mock())
        with (
            mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")),
            self.assertRaisesRegex(CipError, "cannot start a thread") as caught,
        ):
            replies.run(lambda: None)
        self.assertIs(caught.exception.code, ErrorCode.LIMIT_EXCEEDED)

    def test_b53_shutdown_is_not_answered(self) -> None:
        self.parent.ask("Initialize")
        self.parent.send("Shutdown", 1, "x")  # arguments are not looked at
        self.assertEqual(self.server.end(), 0)
        self.server.sock.close()
        self.assertTrue(self.parent.at_end())

    def test_b54_shutdown_is_told_to_unfinished_raw_transfers(self) -> None:
        image = self.parent.open("f1")
        stalled = self.parent.ask("GetRawBlob", image, str(self.stalled()))
        undrained = self.parent.ask("GetRawBlob", image, str(self.image.add(BAD, lambda: BytesReader(BAD))))
        self.parent.send("Shutdown")
        self.assertEqual(self.server.end(), 0)
        for reply in (stalled, undrained):
            self.assertFalse(has_nothing(reply.fds[1]))
        self.go_on.set()
        for reply in (stalled, undrained):
            os.close(reply.fds[0])
            told = read_error_pipe(reply.fds[1])
            assert told is not None
            self.assertEqual(told["code"], "other")
            self.assertRegex(told["message"], "stopped")

    def test_b56_an_empty_packet_is_the_end(self) -> None:
        self.parent.send_text(b"")
        self.assertEqual(self.server.end(), 0)

    def test_a_parent_that_only_ends_its_requests_gets_its_replies(self) -> None:
        image = self.parent.open("f1")
        reply = self.parent.ask("GetBlob", image, str(self.stalled()), BIG_SIZE)
        self.parent.send("FinishPipe", reply.pipe_id)
        self.parent.send("GetLayerInfo", image)
        self.parent.sock.shutdown(socket.SHUT_WR)
        self.go_on.set()
        self.assertEqual(read_exactly(reply.fds[0], BIG_SIZE), BIG)
        self.assertIsNone(self.parent.reply().value)
        self.assertEqual(len(self.parent.reply().value), 1)
        self.assertEqual(self.server.end(), 0)
        close_all(reply)


class SeveralConversations(OpenerTestCase):
    """One after the other, each with an end of its own."""

    def test_b4_arguments_may_be_absent_or_null(self) -> None:
        for text in ('{"method":"Initialize"}', '{"method":"Initialize","args":null}'):
            with self.subTest(text):
                other = Server(self.opener)
                self.assertEqual(other.parent.ask_text(text).value, "0.2.8")
                other.close()

    def test_b55_a_parent_that_closes_is_no_failure(self) -> None:
        for case, requests in (
            ("at once", []),
            ("with an unread reply", ["Initialize"]),
            ("right after many requests", ["Initialize"] * 40),
        ):
            with self.subTest(case):
                other = Server(self.opener)
                for method in requests:
                    other.parent.send(method)
                if case == "with an unread reply":
                    while other.parent.is_silent():
                        continue
                other.parent.sock.close()
                self.assertEqual(other.end(), 0)
                other.close()

    @mock.patch("cip.wire.jsonproxy.replies.HANG_UP_GRACE", 0.05)
    def test_a_parent_that_hangs_up_ends_a_conversation_that_waits(self) -> None:
        self.opener.contents["slow"] = self.image
        for case in ("a registry", "a pipe"):
            with self.subTest(case):
                gate = self.opener.gates["slow"] = threading.Event()
                self.go_on.clear()
                other = Server(self.opener)
                image = other.parent.open("f1")
                raw = other.parent.ask("GetRawBlob", image, str(self.stalled()))
                if case == "a registry":
                    other.parent.send("OpenImage", "slow")
                else:
                    reply = other.parent.ask("GetBlob", image, str(self.stalled()), BIG_SIZE)
                    other.parent.send("FinishPipe", reply.pipe_id)
                    close_all(reply)
                other.parent.sock.close()
                self.assertEqual(other.end(), 0)
                self.assertFalse(has_nothing(raw.fds[1]), "the transfer is not told")
                close_all(raw)
                gate.set()
                self.go_on.set()
                other.close()

    def test_it_begins_with_the_reply_to_initialize(self) -> None:
        told: list[bool] = []
        other = Server(self.opener, lambda: told.append(self.go_on.wait(PATIENCE)))
        other.parent.ask("FinishPipe", 99)
        other.parent.ask("Initialize")
        self.assertEqual(told, [])
        self.go_on.set()
        other.parent.ask("OpenImage", "f1")
        other.parent.ask("OpenImage", "f1")
        self.assertEqual(told, [True])
        other.close()

    def test_one_that_is_abandoned_from_beside_has_told_raw_transfers(self) -> None:
        other = Server(self.opener)
        raw = other.parent.ask("GetRawBlob", other.parent.open("f1"), str(self.stalled()))
        other.conversation.abandon()
        self.assertFalse(has_nothing(raw.fds[1]), "the transfer is not told")
        close_all(raw)
        self.go_on.set()
        other.close()


if __name__ == "__main__":
    unittest.main()

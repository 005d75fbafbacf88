# SPDX-License-Identifier: Apache-2.0
"""Shares of a host's connections: who waits for one, and who gives way."""

import math
import threading
from unittest import mock

from cip.errors import NetworkError
from cip.model.mediatype import OCI_CONFIG
from cip.registry.blob import RegistryBlob
from cip.registry.session import RegistrySession
from cip.registry.sharing import GIVE_WAY_SECONDS, SharedBlob
from cip.settings import TransferLimits
from cip.sources.base import BlobAccess
from tests.support.origins import Asked, Reply, reply
from tests.support.parent import PATIENCE
from tests.unit.test_blob import CONTENT, BlobCase, close_once_read, cut, in_turn, obedient


class SharedBlobTest(BlobCase):
    def kind(self, session: RegistrySession) -> type[RegistryBlob]:
        return SharedBlob

    def another(self, blob: RegistryBlob) -> SharedBlob:
        endpoints = [each.endpoint for each in blob._candidates._all]
        return SharedBlob(blob._descriptor, blob._access, endpoints, blob._session)

    def shared(self, connections: int, count: int) -> list[SharedBlob]:
        """So many blobs of one host that may have so many connections."""
        self.places(obedient)
        first = self.blob(settings=self.settings._replace(transfer=TransferLimits(connections=connections)))
        return [self.another(first) for _ in range(count)]

    def holders(self, blob: RegistryBlob) -> set[RegistryBlob]:
        return blob._session.shares["a.example"]

    def test_a_blob_waits_until_its_host_has_a_share_free(self) -> None:
        first, second = self.shared(1, 2)
        first._take("a.example")
        second._take("b.example")
        second._give_back()
        waiter = threading.Thread(target=second._take, args=("a.example",))
        waiter.start()
        self.assertTrue(waiter.is_alive())
        first._give_back()
        waiter.join(PATIENCE)
        self.assertFalse(waiter.is_alive())
        self.assertEqual(self.holders(first), {second})

    def test_the_one_that_was_idle_longest_gives_way(self) -> None:
        *blobs, late = self.shared(3, 4)
        for blob in blobs:
            blob._take("a.example")
        for blob, idle in zip(blobs, (GIVE_WAY_SECONDS, 2 * GIVE_WAY_SECONDS, 0), strict=True):
            blob._left_at = self.clock.now - idle
        late._take("a.example")
        self.assertEqual(self.holders(late), {blobs[0], blobs[2], late})

    def test_of_many_connections_one_is_kept_free_and_the_wait_can_be_called_off(self) -> None:
        for connections, most in ((1, 1), (7, 7), (8, 7), (64, 63)):
            *blobs, late = self.shared(connections, most + 1)
            for blob in blobs:
                blob._take("a.example")
            late._cancellation.cancel()
            with self.assertRaises(NetworkError):
                late._take("a.example")
            self.assertEqual(self.holders(late), set(blobs))

    def test_what_is_closed_during_a_read_gives_its_share_back(self) -> None:
        self.places(obedient)
        reader = self.blob()
        self.close_during_a_read(reader)
        self.assertEqual(self.holders(reader), set())

    def test_another_thread_can_end_the_wait_for_a_turn(self) -> None:
        self.places(obedient)
        first = self.blob(settings=self.settings._replace(transfer=TransferLimits(connections=1)))
        first.readinto(memoryview(bytearray(1)))
        endpoints = [each.endpoint for each in first._candidates._all]
        waiting = SharedBlob(first._descriptor, BlobAccess.VERIFIED, endpoints, first._session)
        closing = close_once_read(waiting)
        with self.assertRaisesRegex(NetworkError, "given up by the caller"):
            waiting.readinto(memoryview(bytearray(1)))
        closing.join()
        first.close()
        self.assertEqual(len(self.origins.asked), 1)

    def test_a_document_waits_for_no_turn(self) -> None:
        self.places(obedient)
        one = self.settings._replace(transfer=TransferLimits(connections=8))
        first = self.blob(settings=one)
        endpoints = [each.endpoint for each in first._candidates._all]
        for _ in range(7):
            self.another(first)._take("a.example")
        descriptors = (first._descriptor._replace(media_type=OCI_CONFIG), first._descriptor)
        for descriptor, until in zip(descriptors, (math.inf, self.clock.now + 50), strict=True):
            reader = SharedBlob(descriptor, BlobAccess.VERIFIED, endpoints, first._session, signature_until=until)
            self.assertEqual(self.read(reader), CONTENT)
            reader.close()
        self.assertEqual(len(self.holders(first)), 7)

    def test_a_turn_is_given_back_however_it_ends(self) -> None:
        one = self.settings._replace(transfer=TransferLimits(connections=1))
        self.places(in_turn(cut(1000), obedient))
        first = self.blob(settings=one)
        session, endpoints = first._session, [each.endpoint for each in first._candidates._all]
        for _ in range(3):
            reader = SharedBlob(first._descriptor, BlobAccess.VERIFIED, endpoints, session)
            self.assertEqual(self.read(reader), CONTENT)
            early = SharedBlob(first._descriptor, BlobAccess.VERIFIED, endpoints, session)
            early.readinto(memoryview(bytearray(1)))
            early.close()
        self.assertEqual(self.holders(first), set())

    def idle(self, access: BlobAccess, accept: str) -> tuple[SharedBlob, SharedBlob]:
        """A blob that was read a little, and another one that waits for its share of the one connection."""
        fields = {"Accept-Ranges": accept}

        def answer(asked: Asked) -> Reply:
            ranged = "range" in asked.fields
            return obedient(asked) if ranged else reply(200, CONTENT, fields)

        self.places(answer)
        idle = self.blob(access=access, settings=self.settings._replace(transfer=TransferLimits(connections=1)))
        self.assertEqual(idle.readinto(memoryview(bytearray(100))), 100)
        assert isinstance(idle, SharedBlob)
        self.clock.now += GIVE_WAY_SECONDS
        other = SharedBlob(idle._descriptor, access, [idle._candidates.current.endpoint], idle._session)
        self.addCleanup(other.close)
        return idle, other

    def test_a_blob_that_nobody_reads_gives_way_and_goes_on_later(self) -> None:
        for access in BlobAccess:
            with self.subTest(access):
                idle, other = self.idle(access, "bytes")
                before = len(self.origins.asked)
                self.assertEqual(self.read(other), CONTENT)
                self.assertEqual(self.read(idle), CONTENT[100:])
                self.assertEqual(self.ranges()[before:], [None, "bytes=100-"])

    def test_a_connection_that_could_not_be_continued_stays_open_and_counts_no_more(self) -> None:
        for access, accept in ((BlobAccess.RAW, ""), (BlobAccess.RAW, "none"), (BlobAccess.VERIFIED, "none")):
            with self.subTest(access=access, accept=accept):
                idle, other = self.idle(access, accept)
                before = len(self.origins.asked)
                self.assertEqual(self.read(other), CONTENT)
                self.assertEqual(self.read(idle), CONTENT[100:])
                self.assertEqual(len(self.origins.asked), before + 1)
                pool = idle._session.network.pool
                self.assertEqual(sum(pool._open.values()), len(pool._idle))

    def test_a_blob_that_is_read_does_not_give_way(self) -> None:
        idle, _ = self.idle(BlobAccess.VERIFIED, "bytes")
        with mock.patch.object(idle, "_busy", new=True):
            self.assertEqual(idle.idle_seconds(), 0.0)
            idle.give_way()
        self.assertIsNotNone(idle._response)

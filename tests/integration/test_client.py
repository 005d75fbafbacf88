# SPDX-License-Identifier: Apache-2.0
import io
import os
import shutil
import sys
import tarfile
import threading
import unittest
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

from cip.client import Blob, ClientError, OpenedImage, open_proxy
from cip.model.descriptor import digest_of
from tests.support import fakeproxy
from tests.support.fakeimage import BAD, BIG, DIGEST_BIG
from tests.support.fakeproxy import DOCUMENT, MANIFEST, SBOM, SBOM_TYPE
from tests.support.images import BIG_SIZE, CONFIG_C, DIGEST_C, DIGEST_T, LAYER_T
from tests.support.leaks import LeakCheckedTestCase
from tests.support.parent import PATIENCE

PROTOCOLS = ("http", "json")


class ClientTestCase(LeakCheckedTestCase):
    def open(self, scenario: str, protocol: str, reference: str = "x") -> AbstractContextManager[OpenedImage]:
        program = (sys.executable, fakeproxy.__file__)
        return open_proxy(reference, protocol=protocol, program=program, options=(scenario,))

    def each_protocol(self) -> Iterator[str]:
        for protocol in PROTOCOLS:
            with self.subTest(protocol):
                yield protocol


class ReadingAnImage(ClientTestCase):
    def test_everything_is_the_same_over_either_protocol(self) -> None:
        for protocol in self.each_protocol():
            with self.open("good", protocol) as image:
                self.assertEqual((image.manifest(), image.manifest_digest), (MANIFEST, digest_of(MANIFEST)))
                self.assertEqual(image.config(), CONFIG_C)
                layers = image.layers()
                expected = [(DIGEST_T, 10240), (DIGEST_BIG, BIG_SIZE)]
                self.assertEqual([(each.digest, each.size) for each in layers], expected)
                contents = []
                for layer in layers:
                    with image.open_blob(layer.digest) as blob:
                        self.assertEqual(blob.size, layer.size)
                        contents.append(blob.read())
                self.assertEqual(contents, [LAYER_T, BIG])
                with image.open_blob(str(DIGEST_C)) as blob:
                    self.assertEqual(blob.readall(), CONFIG_C)

    def test_a_blob_is_a_file_that_other_modules_read(self) -> None:
        for protocol in self.each_protocol():
            with self.open("good", protocol) as image:
                with image.open_blob(DIGEST_T) as blob, tarfile.open(fileobj=blob, mode="r|") as archive:
                    self.assertEqual([member.name for member in archive], ["f"])
                copy = io.BytesIO()
                with image.open_blob(DIGEST_BIG) as blob:
                    shutil.copyfileobj(blob, copy)
                self.assertEqual(copy.getvalue(), BIG)
                with image.open_blob(DIGEST_T) as blob:
                    self.assertEqual((blob.readable(), blob.writable(), blob.seekable()), (True, False, False))
                    self.assertEqual(blob.read(0), b"")
                    self.assertEqual(b"".join(iter(lambda blob=blob: blob.read(7), b"")), LAYER_T)  # type: ignore[misc]

    def test_a_blob_of_unknown_size_is_verified_at_its_end(self) -> None:
        for protocol in self.each_protocol():
            with self.open("unknown-size", protocol) as image, image.open_blob(DIGEST_BIG) as blob:
                self.assertEqual(blob.read(), BIG)

    def test_a_storage_tells_layers_of_its_own_over_json(self) -> None:
        with self.open("stored-elsewhere", "json") as image:
            first, second = image.layers()
            self.assertEqual((first.digest, second.digest, second.size), (DIGEST_T, digest_of(BAD), -1))
            with image.open_blob(second.digest) as blob:
                self.assertEqual(blob.size, -1)
                self.assertEqual(blob.read(), BAD)

    def test_a_reference_that_looks_like_a_flag_is_none(self) -> None:
        for protocol in self.each_protocol():
            with mock.patch("subprocess.Popen", side_effect=OSError("stop here")) as started:
                with self.assertRaisesRegex(OSError, "stop here"), self.open("good", protocol, "--insecure-policy"):
                    self.fail("it started")
            command = started.call_args.args[0]
            if protocol == "http":
                self.assertEqual(command[-2:], ["--", "--insecure-policy"])
            else:
                self.assertNotIn("--insecure-policy", command)

    def test_this_package_is_found_wherever_the_parent_runs(self) -> None:
        (self.directory / "cip").mkdir()
        (self.directory / "cip" / "__main__.py").write_text("raise SystemExit(99)")
        here = os.getcwd()
        os.chdir(self.directory)
        self.addCleanup(os.chdir, here)
        for protocol in self.each_protocol():
            with self.assertRaises(ClientError) as caught, open_proxy("nonsense", protocol=protocol):
                self.fail("it opened")
            self.assertNotIn("99", caught.exception.detail)


class Referrers(ClientTestCase):
    def test_what_refers_to_the_image_is_listed_and_fetched(self) -> None:
        for protocol in self.each_protocol():
            with self.open("good", protocol) as image:
                (only,) = image.referrers()
                self.assertEqual((only.descriptor.digest, only.artifact_type), (digest_of(SBOM), SBOM_TYPE))
                self.assertEqual((only.verified, only.subject), ("no", ""))
                self.assertEqual(image.referrers("application/other+json"), ())
                self.assertEqual(len(image.referrers(SBOM_TYPE)), 1)
                self.assertEqual(image.referrer_manifest(only.descriptor.digest), SBOM)
                with image.open_blob(digest_of(DOCUMENT)) as blob:
                    self.assertEqual(blob.readall(), DOCUMENT)

    def test_what_is_not_listed_is_refused(self) -> None:
        for protocol in self.each_protocol():
            with self.open("good", protocol) as image:
                for digest, code in ((str(DIGEST_T), "blob-not-in-image"), ("sha256:x", "digest-invalid")):
                    with self.assertRaises(ClientError) as caught:
                        image.referrer_manifest(digest)
                    self.assertEqual(caught.exception.code, code)


class Failures(ClientTestCase):
    def test_an_absent_image_has_its_code(self) -> None:
        for protocol in self.each_protocol():
            with self.assertRaisesRegex(ClientError, "image-not-found: absent: no such image") as caught:
                with self.open("good", protocol, "absent"):
                    self.fail("it opened")
            error = caught.exception
            self.assertEqual((error.code, error.retryable), ("image-not-found", False))
            self.assertEqual(error.detail, "absent: no such image")
            self.assertEqual(error.problem["host"], "r.example")

    def test_digests_that_do_not_parse_or_are_not_in_the_image(self) -> None:
        for protocol in self.each_protocol():
            with self.open("good", protocol) as image:
                with self.assertRaisesRegex(ClientError, "digest-invalid"):
                    image.open_blob("sha256:nope")
                with self.assertRaisesRegex(ClientError, "blob-not-in-image"):
                    image.open_blob(digest_of(b"else"))
                with image.open_blob(DIGEST_T) as blob:
                    self.assertEqual(blob.read(), LAYER_T)

    def test_the_end_of_a_wrong_blob_is_an_exception(self) -> None:
        for scenario, json_code in (
            ("bad", "content-mismatch"),
            ("cut", "connection-lost"),
            ("unknown-size-bad", "content-mismatch"),
            ("unknown-size-cut", "connection-lost"),
        ):
            for protocol in self.each_protocol():
                with self.open(scenario, protocol) as image, image.open_blob(DIGEST_BIG) as blob:
                    received = 0
                    with self.assertRaises(ClientError) as caught:
                        while part := blob.read(1 << 16):
                            received += len(part)
                    self.assertEqual(caught.exception.code, json_code if protocol == "json" else "content-mismatch")
                    self.assertEqual(caught.exception.retryable, caught.exception.code == "connection-lost")
                    if not scenario.startswith("unknown"):
                        self.assertLess(received, BIG_SIZE, "the last bytes came before the verdict")

    def test_a_proxy_that_ends_is_told_with_its_status(self) -> None:
        for scenario, code, reason in (
            ("2", "request-invalid", "ended with exit status 2"),
            ("3", "internal", "ended with exit status 3"),
            ("killed", "internal", "ended by signal 9"),
            ("garbage", "internal", ""),
            ("not-json", "internal", "does not parse"),
        ):
            for protocol in self.each_protocol():
                with self.assertRaisesRegex(ClientError, reason or ".") as caught, self.open(scenario, protocol):
                    self.fail("it opened")
                self.assertEqual((caught.exception.code, caught.exception.retryable), (code, False), caught.exception)

    def test_a_proxy_that_tells_no_details_is_understood(self) -> None:
        with self.assertRaisesRegex(ClientError, "no route") as caught, self.open("skopeo", "json"):
            self.fail("it opened")
        self.assertEqual((caught.exception.code, caught.exception.retryable), ("internal", True))

    def test_descriptors_that_nobody_asked_for_are_closed(self) -> None:
        with self.assertRaisesRegex(ClientError, "expected 0 descriptors"), self.open("stray-descriptor", "json"):
            self.fail("it opened")

    def test_a_program_that_is_not_there_is_an_os_error(self) -> None:
        for protocol in self.each_protocol():
            with self.assertRaises(FileNotFoundError), open_proxy("x", protocol=protocol, program=("/nonexistent",)):
                self.fail("it started")

    def test_another_protocol_is_a_value_error(self) -> None:
        with self.assertRaisesRegex(ValueError, "expected one of http, json"), open_proxy("x", protocol="grpc"):
            self.fail("it started")


class LeavingEarly(ClientTestCase):
    def test_a_blob_may_be_closed_before_its_end(self) -> None:
        for protocol in self.each_protocol():
            with self.open("good", protocol) as image:
                with image.open_blob(DIGEST_BIG) as blob:
                    self.assertEqual(blob.read(10), BIG[:10])
                with self.assertRaisesRegex(ValueError, "closed"):
                    blob.read(1)
                with image.open_blob(DIGEST_BIG) as blob:
                    self.assertEqual(blob.read(), BIG)

    def test_the_image_may_be_left_in_mid_blob(self) -> None:
        for protocol in self.each_protocol():
            with self.open("good", protocol) as image:
                blob = image.open_blob(DIGEST_BIG)
                self.assertEqual(blob.read(10), BIG[:10])
            with self.assertRaises((ClientError, ValueError)):
                while blob.read(1 << 16):
                    pass
            blob.close()

    def test_an_exception_leaves_nothing_behind_even_while_a_blob_stands_still(self) -> None:
        for protocol in self.each_protocol():
            with self.assertRaisesRegex(KeyError, "mine"), self.open("stalled", protocol) as image:
                with image.open_blob(DIGEST_BIG) as blob:
                    self.assertEqual(len(blob.read(10)), 10)
                    raise KeyError("mine")

    def test_over_http_one_blob_is_open_at_a_time(self) -> None:
        with self.open("good", "http") as image:
            with image.open_blob(DIGEST_BIG) as blob:
                with self.assertRaisesRegex(ClientError, "request-invalid: over HTTP: expected the blob before"):
                    image.open_blob(DIGEST_T)
                self.assertEqual(blob.read(), BIG)
                with image.open_blob(DIGEST_T) as second:
                    self.assertEqual(second.read(), LAYER_T)

    def test_over_json_many_are_open_in_several_threads(self) -> None:
        with self.open("good", "json") as image:
            found: list[bytes] = []

            def read() -> None:
                with image.open_blob(DIGEST_BIG) as blob:
                    found.append(blob.read())

            threads = [threading.Thread(target=read) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
            self.assertEqual(found, [BIG] * 8)

    def test_over_json_a_blob_that_stands_still_holds_up_nobody(self) -> None:
        with self.open("stalled", "json") as image:
            stalled = image.open_blob(DIGEST_BIG)
            self.assertEqual(len(stalled.read(10)), 10)
            with image.open_blob(DIGEST_T) as blob:
                self.assertEqual(blob.read(), LAYER_T)
            stalled.close()
            self.assertEqual(image.config(), CONFIG_C)


class AProxyThatWillNotGo(ClientTestCase):
    def test_is_killed(self) -> None:
        script = Path(self.directory, "deaf.py")
        script.write_text("import signal, time\nwhile True: time.sleep(1000)\n")
        with mock.patch("cip.channels.STOP_SECONDS", 0.05):
            with self.assertRaisesRegex(KeyError, "mine"):
                with mock.patch.object(OpenedImage, "__init__", side_effect=KeyError("mine")):
                    with open_proxy("x", program=(sys.executable, str(script))):
                        self.fail("it opened")


if __name__ == "__main__":
    assert issubclass(Blob, io.RawIOBase)
    unittest.main()

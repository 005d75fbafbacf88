# SPDX-License-Identifier: Apache-2.0
"""Signatures beside an image in a layout: read whole, or the list cannot be had."""

from __future__ import annotations

import json
from typing import Any

from cip.errors import ErrorCode, SignatureError
from cip.model import mediatype
from cip.model.descriptor import digest_of
from cip.model.reference import parse_image_reference
from cip.model.signature import (
    SIGNATURE_LIMIT,
    RawSignature,
    SigstoreSignature,
    SimpleSignature,
    encode_signature_blob,
    parse_signature_blob,
)
from cip.sources.keptsignatures import (
    ARTIFACT_TYPE,
    COUNT_LIMIT,
    SIGNATURE_TYPE,
    attached_name,
    kept_name,
    read_layout_signatures,
)
from cip.sources.layout import LayoutDirectory
from tests.support import images
from tests.support.leaks import LeakCheckedTestCase
from tests.unit.test_directory import DirectoryTestCase

PLAIN = b"\x00simple-signing\nmessage"

CONFIG = images.config([])
MANIFEST = images.manifest(CONFIG, [])
DIGEST = digest_of(MANIFEST)
MESSAGE = b"\xa3\x01 an OpenPGP message"


class LayoutSignatures(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.layout = images.Layout(self.directory / "layout")
        self.layout.add_image(CONFIG, [], MANIFEST, name="t")

    def read(self) -> list[RawSignature]:
        reference = parse_image_reference(f"oci:{self.layout.path}")
        files = LayoutDirectory(reference.text, str(self.layout.path), None)
        try:
            return list(read_layout_signatures(files, DIGEST, reference.text))
        finally:
            files.close()

    def blob(self, data: bytes, media_type: str, **members: Any) -> dict[str, Any]:
        path = self.layout.blob_path(digest_of(data))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return {"mediaType": media_type, "digest": str(digest_of(data)), "size": len(data), **members}

    def put(self, name: str, *layers: dict[str, Any], document: dict[str, Any] | None = None) -> None:
        manifest = document or {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "artifactType": ARTIFACT_TYPE,
            "config": self.blob(b"{}", mediatype.OCI_EMPTY),
            "layers": layers,
        }
        media_type = str(manifest.get("mediaType", mediatype.OCI_MANIFEST))
        annotations = {"org.opencontainers.image.ref.name": name}
        entry = self.blob(images.compact(manifest), media_type, annotations=annotations)
        path = self.layout.path / "index.json"
        index = json.loads(path.read_bytes())
        index["manifests"].append(entry)
        path.write_text(json.dumps(index))

    def refuse(self, words: str) -> None:
        with self.assertRaisesRegex(SignatureError, words) as caught:
            self.read()
        self.assertEqual((caught.exception.reason, caught.exception.code), ("fetch", ErrorCode.POLICY_REJECTED))

    def test_none(self) -> None:
        self.assertEqual(self.read(), [])

    def test_both_forms_in_their_order(self) -> None:
        annotations = {"dev.cosignproject.cosign/signature": "c2ln"}
        self.put(attached_name(DIGEST), self.blob(b"payload", "type/x", annotations=annotations))
        self.put(kept_name(DIGEST), self.blob(MESSAGE, SIGNATURE_TYPE))
        first, second = self.read()
        assert isinstance(first, SimpleSignature)
        self.assertEqual(first.message, MESSAGE)
        assert isinstance(second, SigstoreSignature)
        self.assertEqual((second.mime_type, second.payload, second.annotations), ("type/x", b"payload", annotations))

    def test_those_of_other_manifests_are_not_read(self) -> None:
        self.put(kept_name(digest_of(b"other")), self.blob(b"rubbish", SIGNATURE_TYPE))
        self.assertEqual(self.read(), [])

    def test_what_cannot_be_read_whole_refuses(self) -> None:
        lost = self.blob(MESSAGE, SIGNATURE_TYPE)
        self.layout.blob_path(digest_of(MESSAGE)).unlink()
        self.put(kept_name(DIGEST), lost)
        self.refuse("no such file")

    def test_damage_refuses(self) -> None:
        self.put(kept_name(DIGEST), self.blob(MESSAGE, SIGNATURE_TYPE))
        self.layout.blob_path(digest_of(MESSAGE)).write_bytes(MESSAGE[:-1] + b"?")
        self.refuse("expected digest")

    def test_an_unknown_form_refuses(self) -> None:
        self.put(kept_name(DIGEST), self.blob(b"\0other\nx", SIGNATURE_TYPE))
        self.refuse("unknown format name")

    def test_an_index_under_the_name_refuses(self) -> None:
        index = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": []}
        self.put(attached_name(DIGEST), document=index)
        self.refuse("expected a manifest")

    def test_as_many_as_may_be_and_one_more(self) -> None:
        layer = self.blob(MESSAGE, SIGNATURE_TYPE)
        self.put(kept_name(DIGEST), *[layer] * COUNT_LIMIT)
        self.assertEqual(len(self.read()), COUNT_LIMIT)
        index = self.layout.path / "index.json"
        kept = json.loads(index.read_bytes())
        kept["manifests"].pop()
        index.write_text(json.dumps(kept))
        self.put(kept_name(DIGEST), *[layer] * (COUNT_LIMIT + 1))
        self.refuse(f"at most {COUNT_LIMIT}")

    def test_every_form_is_read_as_it_was_written(self) -> None:
        for signature in (
            SimpleSignature(MESSAGE, "x"),
            SimpleSignature(b"no packet", "x"),
            SimpleSignature(b"", "x"),
            SigstoreSignature("type/x", b"\xff payload", {"a": "b", "ü": "\u2028"}, "x"),
            SigstoreSignature("", b"", {}, "x"),
        ):
            self.assertEqual(parse_signature_blob(encode_signature_blob(signature), "x"), signature)


class DirectoryTest(DirectoryTestCase):
    def test_files_are_counted_from_one_until_one_is_missing(self) -> None:
        self.assertEqual(self.open().signatures(images.DIGEST_M, None), [])
        sigstore = images.compact({"mimeType": "type", "payload": "eA==", "annotations": {"a": "b"}})
        for number, blob in ((1, PLAIN), (2, b"\x00sigstore-json\n" + sigstore), (4, PLAIN)):
            (self.path / f"signature-{number}").write_bytes(blob)
        first, second = self.open().signatures(images.DIGEST_M, None)
        self.assertEqual(first, SimpleSignature(b"message", "signature-1"))
        assert isinstance(second, SigstoreSignature)
        self.assertEqual((second.payload, second.annotations["a"], second.origin), (b"x", "b", "signature-2"))

    def test_instances_have_signatures_of_their_own(self) -> None:
        (self.path / "signature-1").write_bytes(PLAIN)
        (self.path / f"{images.DIGEST_S.encoded}.signature-1").write_bytes(PLAIN)
        (found,) = self.open().signatures(images.DIGEST_S, images.DIGEST_S)
        self.assertEqual(found.origin, f"{images.DIGEST_S.encoded}.signature-1")

    def test_a_signature_that_cannot_be_read_spoils_the_list(self) -> None:
        for case, content, reason in (
            ("unknown", b"hello", "unknown format"),
            ("empty", b"", "an empty file"),
            ("large", b"\x88" * (SIGNATURE_LIMIT + 1), "larger than 4194304 bytes"),
            ("link", None, "a link leads out"),
        ):
            with self.subTest(case), self.assertRaisesRegex(SignatureError, reason) as caught:
                (self.path / "signature-1").unlink(missing_ok=True)
                if content is None:
                    (self.path / "signature-1").symlink_to("/etc/passwd")
                else:
                    (self.path / "signature-1").write_bytes(content)
                self.open().signatures(images.DIGEST_M, None)
            self.assertEqual(caught.exception.reason, "fetch")

    def test_all_together_have_a_limit(self) -> None:
        for number in range(1, 6):
            (self.path / f"signature-{number}").write_bytes(b"\x90" * SIGNATURE_LIMIT)
        with self.assertRaisesRegex(SignatureError, "signature-5: more than 16777216 bytes of signatures"):
            self.open().signatures(images.DIGEST_M, None)

    def test_there_may_be_a_hundred_and_twenty_seven(self) -> None:
        for number in range(1, 128):
            (self.path / f"signature-{number}").write_bytes(PLAIN)
        self.assertEqual(len(self.open().signatures(images.DIGEST_M, None)), 127)
        (self.path / "signature-128").write_bytes(PLAIN)
        with self.assertRaisesRegex(SignatureError, "signature-128: more than 127 signatures"):
            self.open().signatures(images.DIGEST_M, None)

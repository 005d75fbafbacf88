# SPDX-License-Identifier: Apache-2.0
"""Manifests and indexes: the vector table of images.md 12.3 as far as it needs no image source, and limits."""

import json
import unittest
from typing import Any

from cip.errors import CipError, ErrorCode, InvalidDocumentError, UnsupportedError
from cip.model import mediatype as mt
from cip.model.descriptor import MANIFEST_LIMIT, Platform
from cip.model.manifest import ENTRY_LIMIT, LAYER_LIMIT, Index, Manifest, parse_manifest
from cip.model.platform import choose_instance

DIGEST = "sha256:" + "0123456789abcdef" * 4
OCI_LAYER = {"mediaType": mt.OCI_LAYER, "digest": DIGEST, "size": 7}
DOCKER_LAYER = OCI_LAYER | {"mediaType": mt.DOCKER_LAYER}
ENTRY = {"mediaType": mt.OCI_MANIFEST, "digest": DIGEST, "size": 9}


def oci(**changes: Any) -> dict[str, Any]:
    config = {"mediaType": mt.OCI_CONFIG, "digest": DIGEST, "size": 3}
    return {"schemaVersion": 2, "mediaType": mt.OCI_MANIFEST, "config": config, "layers": [OCI_LAYER]} | changes


def docker(**changes: Any) -> dict[str, Any]:
    config = {"mediaType": mt.DOCKER_CONFIG, "digest": DIGEST, "size": 3}
    return {"schemaVersion": 2, "mediaType": mt.DOCKER_MANIFEST, "config": config, "layers": [DOCKER_LAYER]} | changes


def index(**changes: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": mt.OCI_INDEX, "manifests": [ENTRY]} | changes


def without(document: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}


def config_of(media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": DIGEST, "size": 3}


def parse(document: object, announced: str = "") -> Manifest | Index:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_manifest(data, announced, "manifest")


def manifest(document: object, announced: str = "") -> Manifest:
    parsed = parse(document, announced)
    assert isinstance(parsed, Manifest), parsed
    return parsed


class Recognition(unittest.TestCase):
    def test_an_oci_manifest_is_one_with_and_without_its_media_type(self) -> None:  # M1
        for document in (oci(), without(oci(), "mediaType"), oci(mediaType=None), oci(schemaVersion=None)):
            self.assertEqual(manifest(document).media_type, mt.OCI_MANIFEST)

    def test_a_manifest_keeps_what_its_descriptors_say(self) -> None:
        layer = OCI_LAYER | {"urls": ["https://x/y"], "annotations": {"a": "b"}, "data": "eA=="}
        parsed = manifest(oci(layers=[layer, OCI_LAYER], artifactType="application/x.y"))
        self.assertEqual(parsed.artifact_type, "application/x.y")
        self.assertEqual((str(parsed.config.digest), parsed.config.size), (DIGEST, 3))
        self.assertEqual(parsed.layers[0].urls, ("https://x/y",))
        self.assertEqual(dict(parsed.layers[0].annotations), {"a": "b"})
        self.assertEqual((parsed.layers[1].media_type, parsed.layers[1].size), (mt.OCI_LAYER, 7))

    def test_docker_schema_2_is_recognised_by_its_media_type_only(self) -> None:  # M2, M3, M4
        self.assertEqual(manifest(docker()).media_type, mt.DOCKER_MANIFEST)
        self.assertEqual(manifest(docker(config=config_of(mt.OCI_CONFIG))).media_type, mt.DOCKER_MANIFEST)
        for announced in ("", mt.DOCKER_MANIFEST):
            with self.subTest(announced), self.assertRaisesRegex(InvalidDocumentError, "'mediaType'.*found none"):
                parse(without(docker(), "mediaType"), announced)

    def test_artifacts_pass_as_they_are(self) -> None:  # M5, M6, M7, issue 2 item 5
        wasm = "application/vnd.wasm.config.v0+json"
        for config_type in (mt.DOCKER_CONFIG, "application/vnd.foo", mt.OCI_EMPTY, wasm):
            with self.subTest(config_type):
                parsed = manifest(oci(config=config_of(config_type), layers=[OCI_LAYER | {"mediaType": "x/y"}]))
                self.assertEqual(parsed.config.media_type, config_type)
        self.assertEqual(
            manifest(oci(config=config_of(""), artifactType="application/x.y")).artifact_type, "application/x.y"
        )

    def test_layers_of_any_type_pass_in_an_oci_manifest(self) -> None:
        for layer_type in (f"{mt.OCI_LAYER}+zstd", f"{mt.OCI_LAYER}+gzip+encrypted", "application/wasm", ""):
            with self.subTest(layer_type):
                self.assertEqual(
                    manifest(oci(layers=[OCI_LAYER | {"mediaType": layer_type}])).layers[0].media_type, layer_type
                )

    def test_a_member_of_another_format_makes_it_ambiguous_unless_it_is_null(self) -> None:  # M8, M9, M10, M24, M25
        self.assertEqual(manifest(oci(manifests=None, history=None)).media_type, mt.OCI_MANIFEST)
        for case, document, reason in (
            ("manifests", oci(manifests=[]), "manifests: ambiguous"),
            ("history", oci(history=[]), "history: ambiguous"),
            ("fsLayers", docker(fsLayers=[]), "fsLayers: ambiguous"),
            ("list and layers", index(layers=[]), "layers: ambiguous"),
            ("list and config", index(config={}), "config: ambiguous"),
            ("manifest called index", oci(mediaType=mt.OCI_INDEX), "config: ambiguous"),
            ("guessed, list and config", without(index(config={}), "mediaType"), "config: ambiguous"),
            ("guessed, list and an image", without(oci(manifests=[ENTRY]), "mediaType"), "manifests: ambiguous"),
            ("guessed, empty list", without(index(manifests=[]), "mediaType"), "expected a member 'config'"),  # M23
        ):
            with self.subTest(case), self.assertRaisesRegex(InvalidDocumentError, reason) as caught:
                parse(document)
            self.assertEqual(caught.exception.code, ErrorCode.MANIFEST_INVALID)

    def test_a_member_in_another_spelling_of_a_known_name_is_refused(self) -> None:  # M9, M10
        for case, document in (
            ("case", oci(ManiFests=[])),
            ("long s", oci(**{"manife\u017ft\u017f": []})),
            ("kelvin sign", index(manifests=[ENTRY | {"di\u212a": 1, "\u017fize": 3}])),
            ("docker", docker(fslayers=[])),
            ("even when null", oci(Config=None)),
            ("even when it says the same", oci(mediatype=mt.OCI_MANIFEST)),
            ("in a layer", oci(layers=[OCI_LAYER | {"Digest": DIGEST}])),
            ("in the config", oci(config=config_of(mt.OCI_CONFIG) | {"SIZE": 1})),
            ("in a platform", index(manifests=[ENTRY | {"platform": {"OS": "linux"}}])),
        ):
            with self.subTest(case), self.assertRaisesRegex(InvalidDocumentError, "ambiguous member .* spelled"):
                parse(document)

    def test_docker_schema_2_has_docker_layers_only(self) -> None:  # M11, M12
        for media_type in (mt.OCI_LAYER, "application/foo", ""):
            with self.subTest(media_type), self.assertRaisesRegex(InvalidDocumentError, r"layers\[1\]: .*Docker layer"):
                parse(docker(layers=[DOCKER_LAYER, DOCKER_LAYER | {"mediaType": media_type}]))
        self.assertEqual(
            manifest(docker(layers=[DOCKER_LAYER | {"mediaType": mt.DOCKER_LIST}])).layers[0].media_type, mt.DOCKER_LIST
        )

    def test_the_schema_version_counts_only_where_the_type_is_guessed(self) -> None:  # M13
        self.assertEqual(manifest(oci(schemaVersion=3)).media_type, mt.OCI_MANIFEST)
        with self.assertRaisesRegex(InvalidDocumentError, "neither mediaType nor a schemaVersion of 2"):
            parse(without(oci(schemaVersion=3), "mediaType"))
        for version in ("2", 2.0, True, [2]):
            with self.subTest(version), self.assertRaisesRegex(InvalidDocumentError, "schemaVersion: expected an int"):
                parse(oci(schemaVersion=version))

    def test_what_is_no_json_object_is_refused(self) -> None:  # M14
        for data, reason in (
            (b"hello", "not valid JSON"),
            (b"", "not valid JSON"),
            (b"[]", "expected an object, found an array"),
            (b"null", "expected an object, found null"),
            (json.dumps(oci()).encode() + b"x", "extra data"),
            (b"\xef\xbb\xbf" + json.dumps(oci()).encode(), "bom"),
            (b"\xff", "not valid UTF-8"),
        ):
            with self.subTest(data[:9]), self.assertRaisesRegex(InvalidDocumentError, reason):
                parse(data)

    def test_a_repeated_member_is_refused_with_its_path(self) -> None:  # M15
        text = json.dumps(oci())
        with self.assertRaisesRegex(InvalidDocumentError, "^manifest: layers: duplicate key"):
            parse((text[:-1] + ', "layers": []}').encode())
        with self.assertRaisesRegex(InvalidDocumentError, r"^manifest: layers\[0\]\.size: duplicate key"):
            parse(text.replace('"size": 7', '"size": 7, "size": 8').encode())

    def test_sizes_are_whole_numbers_from_0_to_the_largest_of_64_bits(self) -> None:  # M16
        for size, reason in (
            (1.0, "expected an integer, found a number"),
            (-5, "expected at least 0, found -5"),
            (2**63, "expected at most 9223372036854775807"),
            ("7", "expected an integer, found a string"),
            (True, "expected an integer, found a boolean"),
        ):
            with self.subTest(size), self.assertRaisesRegex(InvalidDocumentError, rf"layers\[0\]\.size: {reason}"):
                parse(oci(layers=[OCI_LAYER | {"size": size}]))
        for document in (
            oci(layers=[without(OCI_LAYER, "size")]),
            oci(config=without(config_of(mt.OCI_CONFIG), "size")),
            index(manifests=[without(ENTRY, "size")]),
        ):
            with self.assertRaisesRegex(InvalidDocumentError, "expected a member 'size', found none"):
                parse(document)
        self.assertEqual(manifest(oci(layers=[OCI_LAYER | {"size": 2**63 - 1}])).layers[0].size, 2**63 - 1)

    def test_a_manifest_has_a_config_and_layers(self) -> None:  # M17, M18
        for document in (oci(), docker()):
            for name in ("config", "layers"):
                for case, changed in (("missing", without(document, name)), ("null", document | {name: None})):
                    with self.subTest(name, case=case, type=document["mediaType"]):
                        with self.assertRaisesRegex(InvalidDocumentError, f"expected a member '{name}', found none"):
                            parse(changed)
            self.assertEqual(manifest(document | {"layers": []}).layers, ())

    def test_schema_1_is_refused_as_legacy(self) -> None:  # M20, M21
        unsigned = {"schemaVersion": 1, "name": "a", "tag": "b", "fsLayers": [], "history": []}
        signed = unsigned | {"signatures": [{}]}
        for case, document, announced in (
            ("unsigned", unsigned, ""),
            ("signed", signed, ""),
            ("with layers", unsigned | {"layers": []}, ""),
            ("announced unsigned", unsigned, mt.DOCKER_SCHEMA1),
            ("announced signed", signed, mt.DOCKER_SCHEMA1_SIGNED),
            ("announced, but another", oci(), mt.DOCKER_SCHEMA1),
        ):
            with self.subTest(case), self.assertRaisesRegex(UnsupportedError, "legacy") as caught:
                parse(document, announced)
            self.assertEqual(caught.exception.code, ErrorCode.MEDIA_TYPE_UNSUPPORTED)

    def test_an_index_is_recognised_by_its_entries(self) -> None:  # M22
        parsed = parse(without(index(), "mediaType"))
        assert isinstance(parsed, Index)
        self.assertEqual((parsed.media_type, parsed.entries[0].platform), (mt.OCI_INDEX, None))
        self.assertIsInstance(parse(index(mediaType=mt.DOCKER_LIST)), Index)
        self.assertIsInstance(parse(index(manifests=[])), Index)

    def test_an_unknown_media_type_in_the_body_leaves_it_to_the_rest(self) -> None:  # M26
        self.assertEqual(manifest(oci(mediaType="application/foo")).media_type, mt.OCI_MANIFEST)
        with self.assertRaisesRegex(InvalidDocumentError, "mediaType: expected .*docker.*, found 'application/foo'"):
            parse(docker(mediaType="application/foo"))

    def test_a_document_of_an_unknown_kind_is_unsupported(self) -> None:
        with self.assertRaisesRegex(UnsupportedError, "found media type 'application/vnd.oci.artifact") as caught:
            parse({"mediaType": "application/vnd.oci.artifact.manifest.v1+json", "blobs": []})
        self.assertEqual(caught.exception.code, ErrorCode.MEDIA_TYPE_UNSUPPORTED)

    def test_a_digest_that_is_a_path_is_refused(self) -> None:  # M35
        for document in (
            oci(layers=[OCI_LAYER | {"digest": "sha256:../../../../etc/passwd"}]),
            oci(config=config_of(mt.OCI_CONFIG) | {"digest": "sha256:../../../../etc/passwd"}),
            index(manifests=[ENTRY | {"digest": "sha256:../../../../etc/passwd"}]),
        ):
            with self.assertRaisesRegex(InvalidDocumentError, r"digest: digest 'sha256:\.\.") as caught:
                parse(document)
            self.assertEqual(caught.exception.code, ErrorCode.MANIFEST_INVALID)

    def test_a_digest_of_an_unregistered_algorithm_is_unsupported(self) -> None:
        with self.assertRaisesRegex(InvalidDocumentError, r"layers\[0\]\.digest: .*must be one of") as caught:
            parse(oci(layers=[OCI_LAYER | {"digest": "blake3:" + "0" * 64}]))
        self.assertEqual(caught.exception.code, ErrorCode.DIGEST_UNSUPPORTED)

    def test_wrong_kinds_are_named_with_their_place(self) -> None:
        for document, reason in (
            (oci(layers={}), "layers: expected an array, found an object"),
            (oci(layers=[None]), r"layers\[0\]: expected an object, found null"),
            (oci(config=[]), "config: expected an object, found an array"),
            (oci(layers=[without(OCI_LAYER, "digest")]), r"layers\[0\]: expected a member 'digest', found none"),
            (oci(layers=[OCI_LAYER | {"digest": None}]), r"layers\[0\]\.digest: expected a string, found null"),
            (oci(layers=[OCI_LAYER | {"urls": "x"}]), r"layers\[0\]\.urls: expected an array, found a string"),
            (oci(layers=[OCI_LAYER | {"annotations": {"a": 1}}]), r"layers\[0\]\.annotations.a: expected a string"),
            (oci(mediaType=7), "mediaType: expected a string"),
            (oci(mediaType="\ud800"), "mediaType: a lone surrogate"),
            (oci(artifactType=[]), "artifactType: expected a string, found an array"),
            (index(manifests={}), "manifests: expected an array, found an object"),
            (index(manifests=None), "expected a member 'manifests', found none"),
            (index(manifests=[ENTRY | {"platform": "x"}]), r"manifests\[0\]\.platform: expected an object"),
            (index(manifests=[ENTRY | {"platform": {"os": 1}}]), r"manifests\[0\]\.platform\.os: expected a string"),
        ):
            with self.subTest(reason), self.assertRaisesRegex(InvalidDocumentError, f"^manifest: {reason}"):
                parse(document)


class Announced(unittest.TestCase):
    """The media type that came with the bytes (signatures.md D2)."""

    def test_an_announced_type_decides_where_the_body_is_silent(self) -> None:
        self.assertEqual(
            manifest(without(oci(), "mediaType", "schemaVersion"), mt.OCI_MANIFEST).media_type, mt.OCI_MANIFEST
        )
        parsed = parse(without(index(), "mediaType"), mt.DOCKER_LIST)
        self.assertEqual(parsed.media_type, mt.DOCKER_LIST)

    def test_an_unknown_or_general_announcement_is_no_announcement(self) -> None:
        for announced in ("", "application/json", "text/plain", "application/vnd.foo", "\0"):
            with self.subTest(announced):
                self.assertEqual(manifest(docker(), announced).media_type, mt.DOCKER_MANIFEST)

    def test_a_body_that_contradicts_its_announcement_is_refused(self) -> None:
        for document, announced, reason in (
            (oci(), mt.DOCKER_MANIFEST, "mediaType: expected .*docker"),
            (docker(), mt.OCI_MANIFEST, "mediaType: expected .*oci"),
            (oci(), mt.OCI_INDEX, "mediaType: expected .*oci.image.index"),
            (index(), mt.OCI_MANIFEST, "mediaType: expected .*oci.image.manifest"),
            (index(), mt.DOCKER_LIST, "mediaType: expected .*manifest.list"),
            (oci(mediaType="application/foo"), mt.OCI_MANIFEST, "mediaType: expected .*, found 'application/foo'"),
            (oci(mediaType=mt.DOCKER_SCHEMA1), "", "mediaType: expected"),
            (without(oci(), "mediaType"), mt.OCI_INDEX, "ambiguous"),
        ):
            with self.subTest(announced, reason=reason), self.assertRaisesRegex(InvalidDocumentError, reason):
                parse(document, announced)


class Platforms(unittest.TestCase):
    def test_versions_and_features_of_a_platform_are_ignored(self) -> None:  # P11
        platform = {"architecture": "amd64", "os": "linux", "os.version": "1", "os.features": ["x"], "features": []}
        parsed = parse(index(manifests=[ENTRY | {"platform": platform}, ENTRY | {"platform": platform}]))
        assert isinstance(parsed, Index)
        self.assertIs(choose_instance(parsed, [Platform("amd64", "linux", "")]), parsed.entries[0])

    def test_absent_fields_of_a_platform_are_empty(self) -> None:
        parsed = parse(index(manifests=[ENTRY | {"platform": {}}, ENTRY | {"platform": None}]))
        assert isinstance(parsed, Index)
        self.assertEqual([entry.platform for entry in parsed.entries], [Platform("", "", ""), None])


class Limits(unittest.TestCase):
    def _refused(self, data: object, reason: str) -> None:
        with self.assertRaisesRegex(CipError, reason) as caught:
            parse(data)
        self.assertEqual(caught.exception.code, ErrorCode.LIMIT_EXCEEDED)

    def test_the_largest_manifest_passes_and_one_byte_more_does_not(self) -> None:
        self.assertEqual(MANIFEST_LIMIT, 4_194_304)
        data = json.dumps(oci()).encode()
        padded = data + b" " * (MANIFEST_LIMIT - len(data))
        self.assertEqual(manifest(padded).media_type, mt.OCI_MANIFEST)
        self._refused(padded + b" ", f"larger than {MANIFEST_LIMIT} bytes")

    def test_layers_and_entries_are_counted(self) -> None:
        self.assertEqual(len(manifest(oci(layers=[OCI_LAYER] * LAYER_LIMIT)).layers), LAYER_LIMIT)
        self._refused(oci(layers=[OCI_LAYER] * (LAYER_LIMIT + 1)), "layers: expected at most 10000 elements")
        self._refused(index(manifests=[ENTRY] * (ENTRY_LIMIT + 1)), "manifests: expected at most 10000 elements")

    def test_nesting_without_end_is_refused_without_a_crash(self) -> None:
        for depth in (129, 5_000, 1_000_000):
            words = "nested deeper than 128 levels|more than 400000 values and keys"
            with self.subTest(depth), self.assertRaisesRegex(InvalidDocumentError, words):
                parse(b'{"subject":' + b"[" * depth + b"]" * depth + b"}")


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""Conversion to OCI form: the vector table of images.md 12.4, and the encoding rules of section 7.2."""

import json
import unittest
from typing import Any

from cip.errors import CipError, ErrorCode, InvalidDocumentError, UnsupportedError
from cip.model import mediatype as mt
from cip.model.convert import Converted, convert_manifest, encode_config, encode_inner_config, with_layers
from cip.model.descriptor import Descriptor, digest_of, parse_digest
from cip.model.manifest import Manifest, parse_manifest
from tests.support import images

T_DIGEST = "sha256:43e187d5c631ab657995188c3abcaaadd06afc86578efc8dd1cd50c62dbbd58a"
ROOTFS = b'{"type":"layers","diff_ids":["' + T_DIGEST.encode() + b'"]}'
C = b'{"architecture":"amd64","os":"linux","config":{},"rootfs":' + ROOTFS + b"}"
EMPTY_ROOTFS = '"rootfs":{"type":"","diff_ids":null}'


def compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def fixture(manifest_type: str, config_type: str, layer_type: str) -> bytes:
    """The manifest over C and T that wire.md 13 calls M (OCI) or S (Docker)."""
    config = {"mediaType": config_type, "digest": str(digest_of(C)), "size": len(C)}
    layers = [{"mediaType": layer_type, "digest": T_DIGEST, "size": 10240}]
    return compact({"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers})


M = fixture(mt.OCI_MANIFEST, mt.OCI_CONFIG, mt.OCI_LAYER)
S = fixture(mt.DOCKER_MANIFEST, mt.DOCKER_CONFIG, mt.DOCKER_LAYER)


def encoded(config: str) -> str:
    return encode_config(config.encode(), "config").decode()


def of_author(author: str) -> str:
    """The encoded form of the author that the JSON string `author` means."""
    text = encoded(f'{{"author":{author}}}')
    return text.removeprefix('{"author":').removesuffix(f',"architecture":"","os":"","config":{{}},{EMPTY_ROOTFS}}}')


def convert(layers: list[dict[str, Any]], config: bytes = b"{}") -> Converted:
    config_members = {"mediaType": "x/y", "digest": str(digest_of(config)), "size": len(config)}
    data = compact({"mediaType": mt.DOCKER_MANIFEST, "config": config_members, "layers": layers})
    parsed = parse_manifest(data, "", "manifest")
    assert isinstance(parsed, Manifest)
    return convert_manifest(parsed, config, "docker://x/y")


class Config(unittest.TestCase):
    def test_every_row_of_the_vector_table_has_its_bytes(self) -> None:
        for row, config, expected, digest, length in (
            ("K1", "{}", f'{{"architecture":"","os":"","config":{{}},{EMPTY_ROOTFS}}}', "205eed24", 76),
            (
                "K2",
                '{"config":null,"created":null,"rootfs":null,"history":[]}',
                f'{{"architecture":"","os":"","config":{{}},{EMPTY_ROOTFS}}}',
                "205eed24",
                76,
            ),
            (
                "K3",
                '{"config":{"Env":null,"Cmd":[],"Labels":{},"Volumes":{}},"os.features":[]}',
                f'{{"architecture":"","os":"","config":{{}},{EMPTY_ROOTFS}}}',
                "205eed24",
                76,
            ),
            (
                "K4",
                '{"created":"0001-01-01T00:00:00Z"}',
                f'{{"created":"0001-01-01T00:00:00Z","architecture":"","os":"","config":{{}},{EMPTY_ROOTFS}}}',
                "cf2e2692",
                109,
            ),
            (
                "K5",
                '{"Architecture":"x","OS":"y","config":{"user":"u","ENV":["a"]}}',
                f'{{"architecture":"x","os":"y","config":{{"User":"u","Env":["a"]}},{EMPTY_ROOTFS}}}',
                "81729a34",
                100,
            ),
            (
                "K7",
                r'{"author":"\u0001\u007f\u0000\t\b\f\ud800 \/"}',
                '{"author":"\\u0001\x7f\\u0000\\t\\b\\f\ufffd /","architecture":"","os":"",'
                f'"config":{{}},{EMPTY_ROOTFS}}}',
                "2a33d1f6",
                112,
            ),
        ):
            with self.subTest(row):
                result = encode_config(config.encode(), "config")
                self.assertEqual(result.decode(), expected)
                self.assertEqual((digest_of(result).encoded[:8], len(result)), (digest, length))

    def test_two_members_that_read_as_the_same_one_are_refused(self) -> None:  # K6 deviates
        with self.assertRaisesRegex(InvalidDocumentError, "^config: architecture: duplicate key"):
            encoded('{"architecture":"a","architecture":"b"}')
        for config in ('{"os":"a","OS":"b"}', '{"o\u017f":"a","os":null}'):
            with self.subTest(config), self.assertRaisesRegex(InvalidDocumentError, "ambiguous.* reads as 'os'"):
                encoded(config)
        with self.assertRaisesRegex(InvalidDocumentError, "Labels.*duplicate key once"):
            encoded(r'{"config":{"Labels":{"\ud800":"","\udc00":""}}}')

    def test_what_cannot_be_read_is_refused_with_its_place(self) -> None:  # K8
        for config, reason in (
            ('{"created":""}', "created: expected a time of RFC 3339, found ''"),
            ('{"created":"2020-01-01 00:00:00"}', "created: expected a time"),
            ('{"config":{"Cmd":"x"}}', "config.Cmd: expected an array, found a string"),
            ("xx", "not valid JSON"),
            ("[]", "expected an object, found an array"),
            ("null", "expected an object, found null"),
            ('{"author":1}', "author: expected a string, found an integer"),
            ('{"config":[]}', "config: expected an object, found an array"),
            ('{"config":{"ArgsEscaped":"true"}}', "config.ArgsEscaped: expected a boolean"),
            ('{"config":{"Labels":{"a":1}}}', "config.Labels.a: expected a string"),
            ('{"config":{"Volumes":{"a":"b"}}}', "config.Volumes.a: expected an object, found a string"),
            ('{"rootfs":{"diff_ids":[1]}}', r"rootfs.diff_ids\[0\]: expected a string"),
            ('{"history":[{"created":"x"}]}', r"history\[0\].created: expected a time"),
            ('{"history":["x"]}', r"history\[0\]: expected an object, found a string"),
        ):
            with self.subTest(config), self.assertRaisesRegex(InvalidDocumentError, f"^config: {reason}") as caught:
                encoded(config)
            self.assertEqual(caught.exception.code, ErrorCode.MANIFEST_INVALID)

    def test_times_are_written_as_go_writes_them(self) -> None:  # K9
        for time, expected in (
            ("2020-01-01T00:00:00.500+02:00", "2020-01-01T00:00:00.5+02:00"),
            ("2020-01-01T00:00:00.500+00:00", "2020-01-01T00:00:00.5Z"),
            ("2020-01-01T00:00:00-00:00", "2020-01-01T00:00:00Z"),
            ("2020-02-29T23:59:59.000Z", "2020-02-29T23:59:59Z"),
            ("2020-01-01T00:00:00.1234567899Z", "2020-01-01T00:00:00.123456789Z"),
            ("0000-02-29T00:00:00-23:59", "0000-02-29T00:00:00-23:59"),
        ):
            with self.subTest(time):
                self.assertIn(f'{{"created":"{expected}",', encoded(f'{{"created":"{time}"}}'))

    def test_every_month_has_its_days(self) -> None:
        lengths = {1: 31, 2: 28, 3: 31, 4: 30, 5: 31, 6: 30, 7: 31, 8: 31, 9: 30, 10: 31, 11: 30, 12: 31}
        for year, month, days in ((2021, *each) for each in lengths.items()):
            with self.subTest(month):
                self.assertIn(f"-{days}T", encoded(f'{{"created":"{year}-{month:02}-{days}T00:00:00Z"}}'))
                with self.assertRaisesRegex(InvalidDocumentError, "which is on no calendar"):
                    encoded(f'{{"created":"{year}-{month:02}-{days + 1}T00:00:00Z"}}')
        for year in (2000, 2024, 2400):
            encoded(f'{{"created":"{year}-02-29T00:00:00Z"}}')

    def test_times_on_no_calendar_are_refused(self) -> None:
        for time in (
            "2021-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2000-02-30T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2200-02-29T00:00:00Z",
            "2001-02-29T00:00:00Z",
            "2022-02-29T00:00:00Z",
            "2020-13-01T00:00:00Z",
            "2020-00-01T00:00:00Z",
            "2020-04-31T00:00:00Z",
            "2020-01-00T00:00:00Z",
            "2020-01-01T24:00:00Z",
            "2020-01-01T00:60:00Z",
            "2020-01-01T00:00:60Z",
            "2020-01-01T00:00:00+24:00",
            "2020-01-01T00:00:00+00:60",
            "2020-01-01T00:00:00",
            "2020-01-01T00:00:00z",
            "2020-01-01T00:00:00.Z",
            "2020-01-01T00:00:00,5Z",
            "2020-01-01T0:00:00Z",
            "2020-01-01T00:00:00Z\\n",
            "\u0662020-01-01T00:00:00Z",
        ):
            with self.subTest(time), self.assertRaisesRegex(InvalidDocumentError, "created: expected a time of RFC"):
                encoded(f'{{"created":"{time}"}}')

    def test_strings_are_escaped_as_go_escapes_them(self) -> None:  # K10
        self.assertIn(
            r'{"Labels":{"a":"é\u2028","b":"\u003c\u0026\u003e"}}',
            encoded('{"config":{"Labels":{"b":"<&>","a":"é\u2028"}}}'),
        )
        for author, expected in (
            (r'"\ud83d\ude00 \u2029"', '"\U0001f600 \\u2029"'),
            (r'"\ud800\ud800x"', '"\ufffd\ufffdx"'),
            (r'"\udc00\ud800"', '"\ufffd\ufffd"'),
            (r'"\"\\\n\r\u001f\u0080"', '"\\"\\\\\\n\\r\\u001f\x80"'),
        ):
            with self.subTest(author):
                self.assertEqual(of_author(author), expected)

    def test_only_the_members_of_an_oci_config_stay(self) -> None:  # K11
        dropped = {"Healthcheck": {"Test": ["x"]}, "Hostname": "h", "Shell": ["s"], "OnBuild": ["o"], "Tty": True}
        config = {"docker_version": "1", "container_config": {"Cmd": ["x"]}, "moby.buildkit.cache.v0": 1}
        self.assertEqual(
            encoded(json.dumps(config | {"config": dropped | {"ArgsEscaped": True}})),
            f'{{"architecture":"","os":"","config":{{"ArgsEscaped":true}},{EMPTY_ROOTFS}}}',
        )
        self.assertIn('"config":{},', encoded(json.dumps({"config": {"Tty": True, "User": "", "ArgsEscaped": False}})))

    def test_members_come_in_the_order_of_the_specification(self) -> None:
        inner = {
            "User": "u",
            "ExposedPorts": {"80/tcp": {}},
            "Env": ["e"],
            "Entrypoint": ["p"],
            "Cmd": ["c"],
            "Volumes": {"/v": {}},
            "WorkingDir": "/w",
            "Labels": {"l": "m"},
            "StopSignal": "S",
            "ArgsEscaped": True,
        }
        item = {
            "created": "2020-01-01T00:00:00Z",
            "created_by": "b",
            "author": "a",
            "comment": "c",
            "empty_layer": True,
        }
        full: dict[str, Any] = {
            "created": "2020-01-01T00:00:00Z",
            "author": "a",
            "architecture": "r",
            "os": "o",
            "os.version": "v",
            "os.features": ["f"],
            "variant": "w",
            "config": inner,
            "rootfs": {"type": "layers", "diff_ids": ["x"]},
            "history": [item, {}],
        }
        backwards = {name: full[name] for name in reversed(full)}
        backwards["config"] = {name: inner[name] for name in reversed(inner)}
        backwards["history"] = [{name: item[name] for name in reversed(item)}, None]
        self.assertEqual(encode_config(compact(backwards), "config"), compact(full))

    def test_null_elements_are_empty_ones(self) -> None:
        inner = '{"Env":[null],"Labels":{"a":null},"Volumes":{"/v":null}}'
        text = encoded(f'{{"config":{inner},"rootfs":{{"diff_ids":[null]}}}}')
        self.assertIn('"config":{"Env":[""],"Volumes":{"/v":{}},"Labels":{"a":""}}', text)
        self.assertIn('"diff_ids":[""]', text)
        self.assertIn('"diff_ids":[]', encoded('{"rootfs":{"diff_ids":[]}}'))

    def test_the_inner_config_stands_alone(self) -> None:
        for config, expected in (
            (b"{}", b"{}"),
            (b'{"config":null}', b"{}"),
            (b'{"config":{"Cmd":[]}}', b"{}"),
            (b'{"config":{"Cmd":["a"],"Tty":true}}', b'{"Cmd":["a"]}'),
        ):
            with self.subTest(config):
                self.assertEqual(encode_inner_config(config, "config"), expected)
        with self.assertRaisesRegex(InvalidDocumentError, "os: expected a string"):
            encode_inner_config(b'{"os":1}', "config")


class LayersOfAnotherForm(unittest.TestCase):
    def test_what_is_said_of_the_bytes_that_are_not_served_goes_and_all_else_stays(self) -> None:
        compressed = {
            "mediaType": f"{mt.OCI_LAYER}+zstd",
            "digest": "sha256:" + "a" * 64,
            "size": 7,
            "urls": ["https://h/x"],
            "annotations": {"io.github.containers.zstd-chunked.manifest-position": "1:2:3:4", "ostree.components": "x"},
            "artifactType": "a/b",
        }
        plain = {
            "digest": "sha256:" + "b" * 64,
            "size": 3,
            "mediaType": mt.OCI_LAYER,
            "annotations": {"containerd.io/snapshot/stargz/toc.digest": "sha256:0"},
        }
        document = json.loads(M) | {"layers": [compressed, plain], "annotations": {"k": "v<"}, "x": 1}
        tar = Descriptor(mt.OCI_LAYER, parse_digest(T_DIGEST), 10240)
        found = json.loads(with_layers(compact(document), [tar, tar], "image"))
        served = {"mediaType": mt.OCI_LAYER, "digest": T_DIGEST, "size": 10240}
        first = served | {"annotations": {"ostree.components": "x"}, "artifactType": "a/b"}
        self.assertEqual(found, document | {"layers": [first, served]})


class ManifestOfDocker(unittest.TestCase):
    def test_the_fixtures_are_those_of_the_wire_tests(self) -> None:
        self.assertEqual((C, M, S), (images.CONFIG_C, images.MANIFEST_M, images.MANIFEST_S))

    def test_a_config_in_oci_form_stays_and_the_manifest_becomes_the_oci_one(self) -> None:  # K12
        parsed = parse_manifest(S, "", "manifest")
        assert isinstance(parsed, Manifest)
        converted = convert_manifest(parsed, C, "docker://x/y")
        self.assertEqual((converted.config, converted.manifest), (C, M))
        self.assertEqual((converted.config_descriptor.digest, converted.config_descriptor.size), (digest_of(C), 163))

    def test_foreign_layers_keep_their_urls_and_lose_their_annotations(self) -> None:  # K13
        foreign = f"{mt.DOCKER_LAYER_FOREIGN}.gzip"
        layer = {"mediaType": foreign, "digest": T_DIGEST, "size": 1, "urls": ["https://x/?a&b"]}
        layer["annotations"] = {"a": "b"}
        self.assertIn(
            b'"layers":[{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip","digest":"'
            + T_DIGEST.encode()
            + rb'","size":1,"urls":["https://x/?a\u0026b"]}]}',
            convert([layer]).manifest,
        )

    def test_no_layers_are_an_empty_array(self) -> None:  # K14
        self.assertTrue(convert([]).manifest.endswith(b'"layers":[]}'))

    def test_each_docker_layer_type_has_its_oci_type(self) -> None:
        layers = [
            {"mediaType": media_type, "digest": T_DIGEST, "size": 1}
            for media_type in (
                "application/vnd.docker.image.rootfs.diff.tar",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "application/vnd.docker.image.rootfs.diff.tar.zstd",
                "application/vnd.docker.image.rootfs.foreign.diff.tar",
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            )
        ]
        converted = parse_manifest(convert(layers).manifest, mt.OCI_MANIFEST, "manifest")
        assert isinstance(converted, Manifest)
        self.assertEqual(
            [layer.media_type for layer in converted.layers],
            [
                "application/vnd.oci.image.layer.v1.tar",
                "application/vnd.oci.image.layer.v1.tar+gzip",
                "application/vnd.oci.image.layer.v1.tar+zstd",
                "application/vnd.oci.image.layer.nondistributable.v1.tar",
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            ],
        )

    def test_another_docker_type_as_a_layer_cannot_be_converted(self) -> None:  # M12
        layer = {"mediaType": mt.DOCKER_LIST, "digest": T_DIGEST, "size": 1}
        with self.assertRaisesRegex(UnsupportedError, r"layers\[0\]\.mediaType: expected a layer type") as caught:
            convert([layer])
        self.assertEqual(caught.exception.code, ErrorCode.MEDIA_TYPE_UNSUPPORTED)

    def test_the_converted_config_is_named_by_its_own_digest(self) -> None:
        converted = convert([], b'{"docker_version":"1"}')
        self.assertEqual(converted.config_descriptor.digest, digest_of(converted.config))
        self.assertIn(str(converted.config_descriptor.digest).encode(), converted.manifest)
        self.assertEqual(converted.config_descriptor.media_type, mt.OCI_CONFIG)

    def test_a_broken_config_is_refused_with_the_name_of_the_image(self) -> None:
        with self.assertRaisesRegex(CipError, "^docker://x/y: config: os: expected a string"):
            convert([], b'{"os":1}')


if __name__ == "__main__":
    unittest.main()

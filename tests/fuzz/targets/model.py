# SPDX-License-Identifier: Apache-2.0
"""Targets of the image model: names, digests, manifests, configs, and the JSON below them."""

import os
from itertools import islice

from cip.errors import CipError
from cip.model import mediatype
from cip.model.convert import convert_manifest, encode_config, encode_inner_config
from cip.model.descriptor import MAX_SIZE, digest_of, parse_digest
from cip.model.jsontree import PATH_LIMIT, parse_json
from cip.model.manifest import Index, Manifest, parse_manifest
from cip.model.platform import choose_instance, wanted_platforms
from cip.model.reference import docker_identity, parse_docker_reference, parse_image_reference, require_name_prefix
from cip.model.referrers import NotABundleError, parse_carrier, parse_referrers, require_hint_of_bundle
from cip.model.signature import SigstoreSignature, parse_signature_blob

from ..engine import Target
from ..mutation import mutate_json

_REFERENCE_WORDS = (
    b"docker://",
    b"oci:",
    b"oci-archive:",
    b"dir:",
    b"docker-archive:",
    b"docker-daemon:",
    b"containers-storage:",
    b"tarball:",
    b"localhost/",
    b"index.docker.io/",
    b"library/",
    b":latest",
    b"@sha256:",
    b"@0",
    b"@md5:",
    b"_",
    b"__",
    b"-",
    b".",
    b"[::1]:5000/",
    b"@@unknown-digest@@",
    b"0123456789abcdef" * 4,
)
MANIFEST_WORDS = (
    b'"mediaType":"application/vnd.oci.image.index.v1+json",',
    b'"manifests":[],',
    b'"layers":[],',
    b'"config":null,',
    b'"fsLayers":[],',
    b'"schemaVersion":1,',
    b'"schemaVersion":2,',
    b'"platform":{},',
    b'"annotations":{},',
    b'"size":-1,',
    b'"urls":["x"],',
)

_REFERRER_WORDS = (
    b'"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json",',
    b'"subject":null,',
    b'"manifests":null,',
    b'"dev.sigstore.bundle.predicateType":"x",',
    b'"dev.sigstore.bundle.content":"message-signature",',
)
SUBJECT = digest_of(b"image")  # the image of the seeds
_NODES = 200  # whose paths are looked at
_LETTERS = str.maketrans("0123456789", "abcdefghij")  # digits are taken out of what tells outcomes apart


def _reference(data: bytes) -> None:
    """References of all transports; a docker reference that was accepted reads as itself."""
    text = os.fsdecode(data)
    reference = parse_image_reference(text)
    assert str(reference) == text
    os.fsencode(reference.path)
    docker = reference.docker
    if docker is not None:
        assert parse_docker_reference(str(docker)) == docker
        assert docker.domain and docker.path and len(docker.name) <= 255 and str(docker).isascii()
        identity = docker_identity(reference.transport, docker)
        assert docker.name in identity.scopes and len(identity.scopes) < 300
        # an address of IPv6 names a registry, but is no prefix that a policy could map to another
        assert docker.domain.startswith("[") or docker.domain == require_name_prefix(docker.domain)


def _digest(data: bytes) -> None:
    """Digests; one that was accepted is its own text."""
    text = os.fsdecode(data)
    digest = parse_digest(text)
    assert str(digest) == text and digest.hasher().digest_size * 2 == len(digest.encoded)


def _manifest(data: bytes) -> None:
    """Manifests and indexes under every kind of announced type; what was accepted can be used."""
    for announced in (mediatype.DOCKER_MANIFEST, mediatype.OCI_INDEX):
        try:
            _use(parse_manifest(data, announced, "manifest"))
        except CipError:
            continue
    _use(parse_manifest(data, "", "manifest"))


def _use(parsed: Manifest | Index) -> None:
    if isinstance(parsed, Index):
        assert choose_instance(parsed, wanted_platforms(None, "amd64", None, "", "")) in parsed.entries
        return
    assert all(0 <= blob.size <= MAX_SIZE for blob in (parsed.config, *parsed.layers))
    if parsed.media_type == mediatype.DOCKER_MANIFEST:
        converted = convert_manifest(parsed, b"{}", "image")
        again = parse_manifest(converted.manifest, mediatype.OCI_MANIFEST, "converted")
        assert isinstance(again, Manifest)
        assert [layer.digest for layer in again.layers] == [layer.digest for layer in parsed.layers]


def _config(data: bytes) -> None:
    """Configs; what was encoded is JSON that encodes as itself."""
    encoded = encode_config(data, "config")
    assert encode_config(encoded, "again") == encoded
    encode_inner_config(data, "config")
    assert not set(encoded) & set(b"<>&\n")


def _json(data: bytes) -> None:
    """The reader below all JSON: every node of an accepted document can be complained about."""
    pending = [parse_json(data, "document")]
    for _ in range(_NODES):
        if not pending:
            return
        node = pending.pop()
        assert len(node.path) <= PATH_LIMIT
        if isinstance(node.value, list):
            pending.extend(islice(node.items(), _NODES))
        elif isinstance(node.value, dict):
            pending.extend(child for _, child in islice(node.members(), _NODES))


def _cpuinfo(data: bytes) -> str:
    """/proc/cpuinfo, which a container may have replaced."""
    first = [wanted_platforms(None, None, None, machine, os.fsdecode(data))[0] for machine in ("armv7l", "aarch64")]
    return " ".join(map(str, first)).replace("v", "v-").translate(_LETTERS)


def _signature(data: bytes) -> None:
    """A stored signature."""
    signature = parse_signature_blob(data, "here")
    if isinstance(signature, SigstoreSignature):
        signature.mime_type.encode()


def _referrers(data: bytes) -> str:
    """A list of what refers to an image, and a manifest in it."""
    told = []
    try:
        for entry in parse_referrers(data, "list"):
            entry.descriptor.media_type.encode()
            require_hint_of_bundle(entry)
            told.append("hint")
    except (CipError, NotABundleError) as error:
        told.append(type(error).__name__)
    try:
        told.append(parse_carrier(data, SUBJECT, "manifest").layers[0].media_type)
    except NotABundleError as error:
        told.append(error.group)
    return " ".join(dict.fromkeys(told)).translate(_LETTERS)


TARGETS = (
    Target("reference", _reference, _REFERENCE_WORDS),
    Target("digest", _digest, (b"sha256:", b"sha384:", b"sha512:", b"md5:", b"a" * 64, b"F" * 64)),
    Target("manifest", _manifest, MANIFEST_WORDS, mutate_json),
    Target("config", _config, (b'"created":"2020-01-01T00:00:00.500+00:00",',), mutate_json),
    Target("json", _json, (b"\\ud83d\\ude00", b"NaN", b"-Infinity"), mutate_json),
    Target("cpuinfo", _cpuinfo, (b"CPU architecture\t: 7\n", b"model name: ARMv6-compatible\n", b"\x85", b"\x1c")),
    Target("referrers", _referrers, (*MANIFEST_WORDS, *_REFERRER_WORDS), mutate_json),
    Target("signature", _signature, (b"\0sigstore-json\n", b"\0simple-signing\n", b"\x90"), mutate_json),
)

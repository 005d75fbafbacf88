# SPDX-License-Identifier: Apache-2.0
"""Texts of policy.json, each a small change of a valid one: a key dropped, doubled or respelled, a value replaced."""

import copy
import json
from collections.abc import Iterator
from typing import Any

_REPLACEMENTS: tuple[Any, ...] = (None, "", [], {}, 0, True, "x", [None], [""])
_ACCEPT = {"type": "insecureAcceptAnything"}
KEY = "a2V5"
VALID: tuple[dict[str, Any], ...] = (
    {"type": "reject"},
    {"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}},
    {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"},
    {
        "type": "signedBy",
        "keyType": "X509Certificates",
        "keyPaths": ["/k"],
        "signedIdentity": {"type": "matchRepository"},
    },
    {
        "type": "signedBy",
        "keyType": "GPGKeys",
        "keyData": KEY,
        "signedIdentity": {"type": "exactReference", "dockerReference": "busybox:1"},
    },
    {"type": "sigstoreSigned", "keyPath": "/k", "signedIdentity": {"type": "matchRepoDigestOrExact"}},
    {
        "type": "sigstoreSigned",
        "keyDatas": [KEY],
        "rekorPublicKeyDatas": [KEY],
        "signedIdentity": {"type": "remapIdentity", "prefix": "a.b/c", "signedPrefix": "d"},
    },
    {
        "type": "sigstoreSigned",
        "rekorPublicKeyPaths": ["/r"],
        "fulcio": {"caPath": "/c", "oidcIssuer": "i", "subjectEmail": "e"},
        "signedIdentity": {"type": "exactRepository", "dockerRepository": "busybox"},
    },
    {"type": "sigstoreSigned", "pki": {"caRootsData": KEY, "caIntermediatesPath": "/i", "subjectHostname": "h"}},
)


def policy_texts() -> Iterator[tuple[str, str]]:
    """Name and text. The default accepts everything, so only parsing decides."""
    absent: tuple[Any, ...] = (None, "", [], KEY)
    for number, requirement in enumerate(VALID):
        for name, changed in _changes(requirement, "requirement"):
            yield f"{number}: {name}", _in_a_scope(changed)
        for key in sorted({key for each in VALID for key in each} - set(requirement)):
            for value in absent:
                yield f"{number}: beside {key} = {value!r}", _in_a_scope({**requirement, key: value})
        text = json.dumps(requirement)
        for key in _keys(requirement):
            doubled = text.replace(f'"{key}": ', f'"{key}": 0, "{key}": ', 1)
            yield f"{number}: {key} twice", _in_a_scope(requirement).replace(text, doubled)
    whole = {"default": [_ACCEPT], "transports": {"docker": {"": [_ACCEPT]}, "x": {}}}
    for name, document in _changes(whole, "policy"):
        yield name, json.dumps(document)
    yield from _spellings()
    yield from _scopes()
    yield from _parameters()


def _in_a_scope(requirement: Any) -> str:
    return json.dumps({"default": [_ACCEPT], "transports": {"docker": {"example.com": [requirement]}}})


def _changes(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """`value` itself, and with one change at one place."""
    yield f"{where} as it is", value
    for path in _paths(value):
        for replacement in _REPLACEMENTS:
            yield f"{where}{path} = {replacement!r}", _with(value, path, replacement)
        parent = _at(value, path[:-1])
        if isinstance(parent, dict):
            key = path[-1]
            without = {name: member for name, member in parent.items() if name != key}
            yield f"{where}{path} dropped", _with(value, path[:-1], without)
            yield (f"{where}{path} respelled", _with(value, path[:-1], {**without, key.capitalize(): parent[key]}))
            yield f"{where}{path} beside x", _with(value, path[:-1], {**parent, "x": 1})


def _paths(value: Any) -> Iterator[tuple[Any, ...]]:
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield (key,)
        for rest in _paths(member):
            yield (key, *rest)


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def _with(value: Any, path: tuple[Any, ...], replacement: Any) -> Any:
    if not path:
        return replacement
    changed = copy.deepcopy(value)
    _at(changed, path[:-1])[path[-1]] = replacement
    return changed


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, member in value.items():
            yield key
            yield from _keys(member)


def _spellings() -> Iterator[tuple[str, str]]:
    plain = json.dumps({"default": [_ACCEPT]})
    yield from (
        ("white space", f" \t\r\n{plain}\n "),
        ("BOM", f"\ufeff{plain}"),
        ("text behind", f"{plain}x"),
        ("object behind", f"{plain}{{}}"),
        ("NUL behind", f"{plain}\0"),
        ("form feed", f"{plain}\f"),
        ("empty", ""),
        ("comment", f"{plain}//x"),
        ("trailing comma", plain[:-1] + ",}"),
        ("single quotes", plain.replace('"', "'")),
        ("escaped key", plain.replace("default", "d\\u0065fault")),
        ("surrogate", plain.replace("default", "\\ud800")),
        ("surrogate in a scope", plain[:-1] + ', "transports": {"docker": {"\\ud800": [{"type": "reject"}]}}}'),
        ("escaped duplicate", plain[:-1] + ', "d\\u0065fault": [{"type": "reject"}]}'),
        ("control character", plain[:-1] + ', "transports": {"a\tb": {}}}'),
        ("deep", "[" * 200 + "]" * 200),
        ("unknown transport", plain[:-1] + ', "transports": {"nosuch": {"x": [{"type": "reject"}]}, "": {}}}'),
        ("number", "1"),
        ("two top keys", plain[:-1] + ', "Default": []}'),
    )


def _scopes() -> Iterator[tuple[str, str]]:
    digest = f"sha256:{'a' * 64}"
    image = "b" * 64
    paths = ("/", "/a", "/a/", "a", "/a/../b", "/a/./b", "//a", "/a//b", "/a:tag", "/..", "/...", "")
    for transport, scopes in {
        "docker": ("a:b:c", "*.example.com", "", "UPPER"),
        "docker-daemon": ("a", digest, f"sha512:{'a' * 128}", "sha256:abc", ""),
        "docker-archive": ("", "/a"),
        "tarball": ("", "/a"),
        "dir": paths,
        "oci": paths,
        "oci-archive": paths,
        "sif": paths,
        "atomic": ("h", "h/n", "h/n/s", "h/n/s:t", "h/n/s/x", "h/n:s", "h/n/s:t:u", "h:5000/n", "", "h/", "h//"),
        "containers-storage": (
            "",
            "x",
            "[/g]",
            "[g]",
            "[]",
            "[/g",
            "[o@/g]",
            "[o@]",
            "[@/g]",
            "[o@g]",
            "[/g]n",
            f"[/g]n@{image}",
            f"[/g]@{image}",
            f"[/g]n@{digest}",
            f"[/g]n@{digest}@{image}",
            "[/g]n@x",
            f"[/g]n@{digest}@x",
            f"[/g]n@{image}@{image}",
            f"[/g]n@{digest}@{digest}",
            f"[/g]n@{digest}@{image}@",
            f"[/g]@{image.upper()}",
            "[a@/b@c]",
            "x[/g]",
        ),
    }.items():
        for scope in scopes:
            document = {"default": [_ACCEPT], "transports": {transport: {scope: [{"type": "reject"}]}}}
            if not (transport == "dir" and scope == ""):  # that one would decide
                yield f"{transport} scope {scope!r}", json.dumps(document)


def _parameters() -> Iterator[tuple[str, str]]:
    digest = f"sha256:{'a' * 64}"
    references = (
        "busybox",
        "busybox:1",
        f"busybox@{digest}",
        f"busybox:1@{digest}",
        "Busybox:1",
        "a" * 64,
        "docker://a:1",
        "a:1 ",
    )
    repositories = ("busybox", "busybox:tag", f"a@{digest}", "UPPER.com/a", "UPPER", "a/", "")
    prefixes = (
        "*.example.com",
        "example.com/",
        "example.com/a:tag",
        "example.com/A",
        "a@b",
        "a//b",
        "foo",
        "ns/foo",
        "UPPER.com",
        "example.com:5000",
        "example.com:5000/a/b",
        "localhost",
        "a.b/c\n",
        "",
        "a_b",
        "a_b/c",
        "a/b_c",
        "[::1]",
        "a:b",
    )
    identities = [
        *({"type": "exactReference", "dockerReference": text} for text in references),
        *({"type": "exactRepository", "dockerRepository": text} for text in repositories),
        *({"type": "remapIdentity", "prefix": text, "signedPrefix": "a.b"} for text in prefixes),
        *({"type": text} for text in ("matchexact", "", "matchExact ")),
    ]
    for identity in identities:
        requirement = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k", "signedIdentity": identity}
        yield f"{identity}", _in_a_scope(requirement)
    texts: tuple[Any, ...] = (KEY, "a2\r\nV5", "a2 V5", "a2U", "a2U=", "a2V=", "a2-_", "a2V5=", "", "=", [107, 101])
    for text in texts:
        for members in (
            {"type": "signedBy", "keyType": "GPGKeys", "keyData": text},
            {"type": "sigstoreSigned", "keyData": text},
            {"type": "sigstoreSigned", "keyPath": "/k", "rekorPublicKeyData": text},
        ):
            yield f"{members}", _in_a_scope(members)

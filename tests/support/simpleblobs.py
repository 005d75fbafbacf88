# SPDX-License-Identifier: Apache-2.0
"""OpenPGP messages of every shape, good and bad, and the key rings that go with them; for two judges to differ on.

All are made by the real gpg and speak about one manifest under one name.
"""

import base64
import hashlib
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cip.model.descriptor import digest_of
from cip.trust.openpgp.packets import read_packets

from .signatures import OTHER_DIGEST, GpgHome, KeyOptions, payload

NAME = "example.com/ns/r:v1"
MATCH = {"type": "exactReference", "dockerReference": NAME}
FLIPS = 40  # random single bits of one good message
_MADE, _USED = "20200601T000000", "20200701T000000"  # when short-lived keys are made and used

Requirement = dict[str, Any]


class SimpleBlobs:
    """Keys and messages of gpg. `blobs` by name; `rings` are binary key rings by name."""

    def __init__(self, home: GpgHome, manifest: bytes, seed: int) -> None:
        self._home = home
        self._digest = str(digest_of(manifest))
        self._text = self.payload()
        self._make_keys()
        self.blobs = {
            **dict(self._well_formed()),
            **dict(self._times()),
            **dict(self._shapes()),
            **dict(self._payloads(manifest)),
            **dict(self._flipped(random.Random(seed))),
        }

    def payload(self, reference: str = NAME, digest: str = "", **changes: Any) -> bytes:
        """What is signed, with `changes`."""
        return payload(reference, digest or self._digest, **changes)

    def _make_keys(self) -> None:
        home = self._home
        self.main, self.other, self.stranger = (home.create_key(name) for name in ("main", "other", "stranger"))
        self.rsa = home.create_key("rsa", KeyOptions("rsa2048"))
        self.nist = home.create_key("nist", KeyOptions("nistp256"))
        self.dsa = home.create_key("dsa", KeyOptions("dsa2048"))
        self.holder = home.create_key("holder")
        self.subkey = home.add_subkey(self.holder)
        self.old = home.create_key("old", KeyOptions(time=_MADE))
        self.expired = home.create_key("expired", KeyOptions(expiry="1y", time=_MADE))
        self.expired_subkey = home.add_subkey(self.old, KeyOptions(expiry="1y", time=_MADE))
        self.revoked = home.create_key("revoked")
        self.revoked_message = home.sign_as(self._text, self.revoked)
        before = home.export_all(self.revoked)
        home.revoke(self.revoked)
        after = home.export_all(self.revoked)
        everybody = (
            self.main,
            self.other,
            self.rsa,
            self.nist,
            self.dsa,
            self.holder,
            self.old,
            self.expired,
            self.revoked,
        )
        main = home.export_all(self.main)
        name = 2 + main[1]
        revoked_key, revocation, *_ = (packet.whole for packet in read_packets(after))  # gpg exports it behind the key
        self.rings = {
            "revocation behind the key": before + revocation,
            "revocation without a name": before + revoked_key + revocation,
            "all": home.export_all(*everybody),
            "main": main,
            "other": home.export_all(self.other),
            "main armored": home.export_all(self.main, armor=True),
            "blocks": home.export_all(self.main, armor=True) + b"text\n" + home.export_all(self.other, armor=True),
            "line ends": home.export_all(self.main, armor=True).replace(b"\n", b"\r\n"),
            "stranger": home.export_all(self.stranger),
            "revocation later": before + after,
            "revocation first": after + before,
            "before revocation": before,
            "twice": main + main,
            "unbound": main[: name + 2 + main[name + 1]],
            "truncated": main[:-5],
            "garbage": b"garbage",
            "empty": b"",
            "junk behind": main + b"junk",
            "secret": home.run("--export-secret-keys", self.main),
        }

    def _well_formed(self) -> Iterator[tuple[str, bytes]]:
        home, text = self._home, self._text
        for name in ("main", "other", "stranger", "rsa", "nist", "dsa"):
            yield f"by {name}", home.sign_as(text, getattr(self, name))
        yield "by subkey", home.sign_as(text, f"{self.subkey}!")
        yield "by revoked", self.revoked_message
        yield "uncompressed", home.sign_as(text, self.main, options=("-z", "0"))
        yield "sha1", home.sign_as(text, self.rsa, options=("--digest-algo", "SHA1", "--allow-weak-digest-algos"))
        yield "sha512", home.sign_as(text, self.rsa, options=("--digest-algo", "SHA512"))
        yield "text mode", home.sign_as(text, self.main, options=("--textmode",))
        yield "prefixed", b"\0simple-signing\n" + home.sign_as(text, self.main)
        yield "two signers", home.sign_as(text, self.main, self.other)
        yield "trusted and unknown", home.sign_as(text, self.main, self.stranger)
        yield "unknown and trusted", home.sign_as(text, self.stranger, self.main)

    def _times(self) -> Iterator[tuple[str, bytes]]:
        home, text = self._home, self._text
        yield "by expired", home.sign_as(text, self.expired, time=_USED)
        yield "by expired subkey", home.sign_as(text, f"{self.expired_subkey}!", time=_USED)
        yield "by old", home.sign_as(text, f"{self.old}!", time=_USED)
        lapse = ("--default-sig-expire", "1d")
        yield "lapsed", home.sign_as(text, f"{self.old}!", options=lapse, time=_USED)
        yield "future", home.sign_as(text, f"{self.old}!", time="20350101T000000")
        early = ("--ignore-time-conflict", "--ignore-valid-from")
        yield "before its key", home.sign_as(text, self.main, options=early, time="20190101T000000")

    def _shapes(self) -> Iterator[tuple[str, bytes]]:
        home, text = self._home, self._text
        plain = home.sign_as(text, self.main, options=("-z", "0"))
        good = home.sign_as(text, self.main)
        evil = self.payload("evil.example/ns/r:v1")
        literal = home.run("--store", "-z", "0", text=evil)
        detached = home.sign_as(text, self.main, mode="--detach-sign")
        recipient = home.create_key("recipient", KeyOptions("rsa2048", "encrypt"))
        to = ("--recipient", recipient)
        armored = home.sign_as(text, self.main, options=("--armor",))
        clear = home.sign_as(text, self.main, mode="--clear-sign")
        yield "literal alone", home.run("--store", text=text)
        yield "literal before", literal + plain
        yield "literal after", plain + literal
        yield "two messages", plain + home.sign_as(evil, self.other, options=("-z", "0"))
        yield "detached", detached
        yield "detached and literal", detached + literal
        yield "encrypted", home.run(*to, "--encrypt", text=text)
        yield "encrypted and signed", home.run(*to, "--local-user", self.main, "--sign", "--encrypt", text=text)
        yield "compressed and junk", good + b"junk"
        yield "compressed and another", good + home.sign_as(evil, self.main)
        yield "plain and newline", plain + b"\n"
        yield "cut short", good[: len(good) // 2]
        yield "nested", home.sign_as(good, self.main)
        yield "armored", armored
        yield "cleartext", clear
        yield "armored behind the prefix", b"\0simple-signing\n" + armored
        yield "cleartext behind the prefix", b"\0simple-signing\n" + clear
        yield "empty", b""
        yield "garbage", b"garbage"
        yield "json", b"{}"
        yield "other name", b"\0something\n" + good
        yield "no newline", b"\0simple-signing"
        yield "nothing behind the prefix", b"\0simple-signing\n"

    def _payloads(self, manifest: bytes) -> Iterator[tuple[str, bytes]]:
        text = self._text
        upper = f"sha256:{self._digest[7:].upper()}"
        for name, changed in (
            ("other tag", self.payload("example.com/ns/r:v2")),
            ("other repository", self.payload("example.com/ns/other:v1")),
            ("name only", self.payload("example.com/ns/r")),
            ("digest name", self.payload(f"example.com/ns/r@{self._digest}")),
            ("no reference", self.payload("docker://example.com/ns/r:v1")),
            ("newline in the name", self.payload(f"{NAME}\n")),
            ("other digest", self.payload(digest=OTHER_DIGEST)),
            ("sha512 digest", self.payload(digest=f"sha512:{hashlib.sha512(manifest).hexdigest()}")),
            ("upper case digest", self.payload(digest=upper)),
            ("both wrong", self.payload("example.com/ns/other:v1", OTHER_DIGEST)),
            ("optional null", self.payload(optional=None)),
            ("optional empty", self.payload(optional={})),
            ("optional unknown", self.payload(optional={"x": {"y": [1, None]}, "creator": None})),
            ("half a second", self.payload(optional={"timestamp": 1.5})),
            ("whole float", self.payload(optional={"timestamp": 1.0})),
            ("timestamp text", self.payload(optional={"timestamp": "1"})),
            ("sigstore type", self.payload(kind="cosign container image signature")),
            ("extra in critical", text.replace(b'"critical": {', b'"critical": {"x": 1, ')),
            ("extra at the top", b'{"x": 1, ' + text[1:]),
            ("duplicate in optional", text.replace(b'"optional": {', b'"optional": {"creator": "x", ')),
            ("escaped duplicate", text.replace(b'"critical": {', b'"critical": {"t\\u0079pe": "x", ')),
            (
                "duplicate in an ignored value",
                self.payload(optional={"x": 1}).replace(b'"x": 1', b'"x": {"a": 1, "a": 2}'),
            ),
            ("white space around", b" \n" + text + b"\n"),
            ("BOM", b"\xef\xbb\xbf" + text),
            ("trailing text", text + b"x"),
            ("not UTF-8 in optional", self.payload(optional={"creator": "x"}).replace(b'"x"', b'"\xff"')),
        ):
            yield f"payload: {name}", self._home.sign_as(changed, self.main)

    def _flipped(self, chance: random.Random) -> Iterator[tuple[str, bytes]]:
        plain = self._home.sign_as(self._text, self.main, options=("-z", "0"))
        for position in chance.sample(range(len(plain) * 8), FLIPS):
            yield f"flipped bit {position}", flip(plain, position)


def flip(content: bytes, position: int) -> bytes:
    """`content` with one bit turned over."""
    changed = bytearray(content)
    changed[position // 8] ^= 1 << position % 8
    return bytes(changed)


def ring_sources(rings: Mapping[str, bytes], directory: Path) -> dict[str, Requirement]:
    """The key members of `signedBy`, by name: each ring as a file, some of them otherwise."""
    directory.mkdir(parents=True)
    files = {}
    for name, ring in rings.items():
        files[name] = directory / name.replace(" ", "-")
        files[name].write_bytes(ring)
    missing = str(directory / "missing")
    found: dict[str, Requirement] = {name: {"keyPath": str(file)} for name, file in files.items()}
    found["data"] = {"keyData": _b64(rings["main"])}
    found["data armored"] = {"keyData": _b64(rings["main armored"])}
    found["two files"] = {"keyPaths": [str(files["other"]), str(files["main"])]}
    found["garbage and main"] = {"keyPaths": [str(files["garbage"]), str(files["main"])]}
    found["missing and main"] = {"keyPaths": [missing, str(files["main"])]}
    found["missing"] = {"keyPath": missing}
    found["directory"] = {"keyPath": str(directory)}
    found["no paths"] = {"keyPaths": []}
    found["no data"] = {"keyData": ""}
    return found


def signed_by(keys: Requirement, matcher: Requirement | None = MATCH, key_type: str = "GPGKeys") -> Requirement:
    """A `signedBy` requirement."""
    identity = {} if matcher is None else {"signedIdentity": matcher}
    return {"type": "signedBy", "keyType": key_type, **keys, **identity}


def _b64(content: bytes) -> str:
    return base64.b64encode(content).decode()

# SPDX-License-Identifier: Apache-2.0
"""A private Sigstore: certificate authority, certificate log, two transparency logs, timestamp authority; and bundles.

`World.bundle` makes an honest bundle unless it is told to change one thing; cosign 3.1.1 and the `sigstore` library
accept what it makes (tests/interop/test_bundle_differential.py).
"""

import base64
import copy
import datetime
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from cip.trust.bundle.statement import pre_authentication_encoding
from cip.trust.bundle.trustedroot import TrustedRoot, parse_trusted_root

from .sigstore import (
    ISSUER_V1,
    ISSUER_V2,
    OIDC_ISSUER,
    SIGNED_AT,
    Issued,
    b64,
    der_string,
    intermediate,
    issue,
    new_key,
    pem,
    raw_extension,
    root,
    spki,
)
from .stamps import StampAuthority, der

IMAGE = b'{"schemaVersion":2}'
DIGEST = hashlib.sha256(IMAGE).hexdigest()
PREDICATE = "https://sigstore.dev/cosign/sign/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
SUBJECT_URI = "https://github.com/acme/os/.github/workflows/release.yml@refs/heads/main"
BUNDLE_V03 = "application/vnd.dev.sigstore.bundle.v0.3+json"
ROOT_V01 = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
OTHER_NAME = "1.3.6.1.4.1.57264.1.7"
BUILD_SIGNER = "1.3.6.1.4.1.57264.1.9"
SCT_LIST = "1.3.6.1.4.1.11129.2.4.2"
SHARD = 1193050959916656506  # the tree's number in version 1
V1, V2 = 1, 2
_HASHES: Mapping[str, Any] = {"sha256": hashes.SHA256, "sha384": hashes.SHA384, "sha512": hashes.SHA512}
_NAMES = {"sha256": "SHA2_256", "sha384": "SHA2_384", "sha512": "SHA2_512"}
Change = Callable[[Any], Any]


def own_hash(key: Any) -> str:
    """The hash that belongs to a private key."""
    return {384: "sha384", 521: "sha512"}.get(key.curve.key_size, "sha256") if _is_ec(key) else "sha256"


def sign(key: Any, message: bytes, hash_name: str = "sha256") -> bytes:
    """A signature as bundles have it."""
    digest = _HASHES[hash_name]()
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), digest)
    made: bytes = key.sign(message, ec.ECDSA(digest))
    return made


def key_details(key: Any, hash_name: str | None = None) -> str:
    """What logs of version 2 and trusted roots call a key."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "PKIX_ED25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return f"PKIX_RSA_PKCS1V15_{key.key_size}_SHA256"
    return f"PKIX_ECDSA_P{key.curve.key_size}_SHA_{(hash_name or own_hash(key))[3:]}"


def time_text(seconds: float) -> str:
    """RFC 3339."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat().replace("+00:00", "Z")


def flip(data: bytes, at: int = -1) -> bytes:
    """`data` with one bit changed."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def flipped(text: str, at: int = -1) -> str:
    """Base64 of other bytes."""
    return b64(flip(base64.b64decode(text), at))


# --- trees ---


def leaf_hash(leaf: bytes) -> bytes:
    """RFC 6962 2.1."""
    return hashlib.sha256(b"\0" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962 2.1."""
    return hashlib.sha256(b"\1" + left + right).digest()


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """The root of a tree of leaf hashes."""
    if len(leaves) == 1:
        return leaves[0]
    half = _half(len(leaves))
    return node_hash(tree_root(leaves[:half]), tree_root(leaves[half:]))


def tree_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The proof that leaf `index` is in the tree."""
    if len(leaves) == 1:
        return []
    half = _half(len(leaves))
    if index < half:
        return [*tree_path(leaves[:half], index), tree_root(leaves[half:])]
    return [*tree_path(leaves[half:], index - half), tree_root(leaves[:half])]


def _half(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


def note_key_id(name: str, key: Any) -> bytes:
    """How a signature line of a checkpoint begins."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return hashlib.sha256(name.encode() + b"\n\x01" + spki(key)[-32:]).digest()[:4]
    return hashlib.sha256(spki(key)).digest()[:4]


def note_line(
    name: str, key: Any, text: str, *, key_id: bytes | None = None, change: Change = lambda made: made
) -> str:
    """A signature line over `text`."""
    return f"\u2014 {name} {b64((key_id or note_key_id(name, key)) + change(sign(key, text.encode())))}\n"


class OwnLog:
    """A transparency log of version 1 or 2."""

    def __init__(self, version: int, host: str, key: Any = None) -> None:
        self.version = version
        self.host = host
        self.key = key or (new_key() if version == V1 else ed25519.Ed25519PrivateKey.generate())

    @property
    def log_id(self) -> bytes:
        if self.version == V1:
            return hashlib.sha256(spki(self.key)).digest()
        return hashlib.sha256(self.host.encode() + b"\n\x01" + spki(self.key)[-32:]).digest()

    def listed(self, **changes: Any) -> dict[str, Any]:
        """Its entry in a trusted root."""
        key = {"rawBytes": b64(spki(self.key)), "keyDetails": key_details(self.key), "validFor": valid()}
        return {
            "baseUrl": f"https://{self.host}",
            "hashAlgorithm": "SHA2_256",
            "publicKey": key,
            "logId": {"keyId": b64(self.log_id)},
            **changes,
        }

    def checkpoint(
        self,
        leaves: Sequence[bytes],
        *,
        origin: str | None = None,
        size: str | None = None,
        extension: str = "",
        name: str | None = None,
        key: Any = None,
        key_id: bytes | None = None,
        change: Change = lambda made: made,
        before: Change = lambda text: "",
        behind: Change = lambda text: "",
        signed: bool = True,
        root_hash: bytes | None = None,
    ) -> str:
        """A signed tree head; `before` and `behind` make further lines of the text that is signed."""
        default = f"{self.host} - {SHARD}" if self.version == V1 else self.host
        root_hash = root_hash or tree_root(leaves)
        text = f"{origin or default}\n{size or len(leaves)}\n{b64(root_hash)}\n{extension}"
        line = note_line(name or self.host, key or self.key, text, key_id=key_id, change=change) if signed else ""
        return f"{text}\n{before(text)}{line}{behind(text)}"

    def entry(
        self,
        body: bytes,
        *,
        kind: str,
        version: str,
        time: int = SIGNED_AT,
        size: int = 8,
        index: int = 5,
        promise: bool | None = None,
        proof: bool = True,
        head: Mapping[str, Any] | None = None,
        other_leaf: bytes | None = None,
        offset: int | None = None,
    ) -> dict[str, Any]:
        """The entry of `body`, as leaf `index` of a tree of `size`."""
        leaves = [leaf_hash(b"leaf %d" % number) for number in range(size)]
        leaves[index] = leaf_hash(other_leaf or body)
        global_index = index + (1_000_000 if offset is None and self.version == V1 else offset or 0)
        is_v1 = self.version == V1
        made: dict[str, Any] = {
            "logIndex": str(global_index),
            "logId": {"keyId": b64(self.log_id)},
            "kindVersion": {"kind": kind, "version": version},
            "canonicalizedBody": b64(body),
        }
        if is_v1:
            made["integratedTime"] = str(time)
        if promise if promise is not None else is_v1:
            made["inclusionPromise"] = {"signedEntryTimestamp": b64(self.promise(made))}
        if proof:
            made["inclusionProof"] = {
                "logIndex": str(index),
                "rootHash": b64(tree_root(leaves)),
                "treeSize": str(size),
                "hashes": [b64(each) for each in tree_path(leaves, index)],
                "checkpoint": {"envelope": self.checkpoint(leaves, **(head or {}))},
            }
        return made

    def promise(self, entry: Mapping[str, Any]) -> bytes:
        """A signed entry timestamp."""
        promised = {
            "body": entry["canonicalizedBody"],
            "integratedTime": int(entry.get("integratedTime", 0)),
            "logID": base64.b64decode(entry["logId"]["keyId"]).hex(),
            "logIndex": int(entry["logIndex"]),
        }
        return sign(self.key, json.dumps(promised, sort_keys=True, separators=(",", ":")).encode())


def valid(start: float = SIGNED_AT - 86400 * 365, end: float | None = None) -> dict[str, str]:
    """A window of a trusted root."""
    return {"start": time_text(start)} | ({"end": time_text(end)} if end is not None else {})


class Made(NamedTuple):
    """A bundle, and what it was made of."""

    document: dict[str, Any]
    message: bytes
    signature: bytes

    @property
    def data(self) -> bytes:
        return json.dumps(self.document).encode()


def statement(**changes: Any) -> dict[str, Any]:
    """What cosign 3 signs; None leaves a member out."""
    whole = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": DIGEST}, "annotations": {}}],
        "predicateType": PREDICATE,
        "predicate": {},
        **changes,
    }
    return {name: value for name, value in whole.items() if value is not None}


class World:
    """All that a signer and an administrator need; making one costs some keys."""

    def __init__(self, domain: str = "lab") -> None:
        self.root = root(f"fulcio {domain}", key=new_key(ec.SECP384R1()))
        self.intermediate = intermediate(self.root, f"fulcio intermediate {domain}")
        self.ct_key = new_key()
        self.log_v1 = OwnLog(V1, f"rekor.{domain}")
        self.log_v2 = OwnLog(V2, f"log2.{domain}")
        self.stamps = StampAuthority(f"tsa {domain}")
        self.key = new_key()
        self._leaf: Issued | None = None

    # --- trust ---

    def trusted_root(self, change: Change = lambda document: document) -> dict[str, Any]:
        """trusted_root.json; `change` may replace or change it."""
        ct_key = {"rawBytes": b64(spki(self.ct_key)), "keyDetails": key_details(self.ct_key), "validFor": valid()}
        document = {
            "mediaType": ROOT_V01,
            "tlogs": [self.log_v1.listed(), self.log_v2.listed()],
            "certificateAuthorities": [authority_entry("fulcio", self.intermediate, self.root)],
            "ctlogs": [
                {
                    "baseUrl": "https://ct.lab",
                    "hashAlgorithm": "SHA2_256",
                    "publicKey": ct_key,
                    "logId": {"keyId": b64(hashlib.sha256(spki(self.ct_key)).digest())},
                }
            ],
            "timestampAuthorities": [authority_entry("tsa", self.stamps.leaf, self.stamps.anchor)],
        }
        document = copy.deepcopy(document)
        return change(document) or document

    def loaded_root(self, change: Change = lambda document: document) -> TrustedRoot:
        """The same, read."""
        return parse_trusted_root(json.dumps(self.trusted_root(change)).encode(), "trusted_root.json")

    # --- certificates ---

    def leaf(
        self,
        san: Any = None,
        *,
        issuer_v1: bytes | None = OIDC_ISSUER.encode(),
        issuer_v2: bytes | None = None,
        build_signer: bytes | None = None,
        purposes: Sequence[ObjectIdentifier] | None = None,
        ca: bool = False,
        signs: bool = True,
        key: Any = None,
        issuer: Issued | None = None,
        sct: str | None = "good",
        sct_extensions: bytes = b"",
        sct_time: int = SIGNED_AT,
        more: Sequence[Any] = (),
        begin: int = SIGNED_AT - 120,
        end: int = SIGNED_AT + 480,
        issuer_name: Any = None,
    ) -> Issued:
        """A certificate as Fulcio issues it, with a timestamp of the certificate log."""
        issuer = issuer or self.intermediate
        names = [x509.UniformResourceIdentifier(SUBJECT_URI)] if san is None else san
        chosen = [ExtendedKeyUsageOID.CODE_SIGNING] if purposes is None else purposes
        issuer_key: Any = issuer.certificate.public_key()
        usage = x509.KeyUsage(signs, not signs, False, False, False, False, False, False, False)
        extensions: list[Any] = [(usage, True)]
        if chosen:
            extensions.append((x509.ExtendedKeyUsage(chosen), False))
        extensions += [
            (x509.BasicConstraints(ca, None), True),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), False),
        ]
        if names:
            extensions.append((x509.SubjectAlternativeName(names), True))
        for number, value in ((ISSUER_V1, issuer_v1), (ISSUER_V2, issuer_v2), (BUILD_SIGNER, build_signer)):
            if value is not None:
                extensions.append((raw_extension(number, value), False))
        extensions += more
        options: dict[str, Any] = {
            "key": key or new_key(),
            "begin": begin,
            "end": end,
            "serial": x509.random_serial_number(),
            "issuer_name": issuer_name,
        }
        bare = issue("", issuer, extensions=extensions, **options)
        if sct is None:
            return bare
        other = new_key()
        issuer_spki = spki(other) if sct == "other issuer" else _public(issuer_key)
        tbs = bare.certificate.tbs_certificate_bytes
        moment = (sct_time * 1000).to_bytes(8, "big")
        tail = len(sct_extensions).to_bytes(2, "big") + sct_extensions
        signed = b"\0\0" + moment + b"\0\1" + hashlib.sha256(issuer_spki).digest() + len(tbs).to_bytes(3, "big") + tbs
        log_key = other if sct == "other log" else self.ct_key
        signature = sign(log_key, signed + tail)
        algorithm = {"sha1": b"\2\3", "sha512": b"\6\3"}.get(sct, b"\4\3")  # what it is said to be; it is SHA-256
        if sct == "false":
            signature = sign(other, signed + tail)
        timestamp = b"\0" + hashlib.sha256(spki(log_key)).digest() + moment + tail + algorithm + _counted(signature)
        listed = raw_extension(SCT_LIST, der(0x04, _counted(_counted(timestamp))))
        return issue("", issuer, extensions=[*extensions, (listed, False)], **options)

    @property
    def usual_leaf(self) -> Issued:
        """One that is made once: making certificates is what tests spend their time on."""
        if self._leaf is None:
            self._leaf = self.leaf()
        return self._leaf

    # --- bundles ---

    def bundle(
        self,
        log: int | None = V2,
        *,
        leaf: Issued | None = None,
        key: Any = None,
        payload: bytes | None = None,
        payload_type: str = PAYLOAD_TYPE,
        file: bytes | None = None,
        signed_bytes: Change = lambda message: message,
        hash_name: str | None = None,
        log_hash: str | None = None,
        kind: str | None = None,
        signature: Change = lambda made: made,
        body: Change = lambda document: document,
        entry: Change = lambda document: document,
        entry_options: Mapping[str, Any] | None = None,
        stamps: Sequence[Mapping[str, Any]] | None = None,
        stamped: Change = lambda signature: signature,
        change: Change = lambda document: document,
    ) -> Made:
        """A bundle for IMAGE: by `key` if given, else by a certificate; DSSE, or for `file` a plain signature.

        The changes get what was made and return what shall stand there instead (None: changed in place).
        """
        chosen = (leaf or self.usual_leaf) if key is None else None
        private = chosen.key if chosen else key
        hash_name = hash_name or own_hash(private)
        if payload is None:
            payload = json.dumps(statement()).encode()
        message = pre_authentication_encoding(payload_type, payload) if file is None else file
        signed = signature(sign(private, signed_bytes(message), hash_name))
        entries = []
        if log is not None:
            owner = self.log_v1 if log == V1 else self.log_v2
            kind = kind or ("dsse" if log == V1 and file is None else "hashedrekord")
            document = self.body(log, kind, message, payload, signed, private, chosen, log_hash or hash_name)
            document = body(document) or document
            raw = document if isinstance(document, bytes) else json.dumps(document, separators=(",", ":")).encode()
            version = "0.0.1" if log == V1 else "0.0.2"
            made = owner.entry(raw, kind=kind, version=version, **(entry_options or {}))
            entries = [entry(made) or made]
        wanted = ([{}] if log == V2 and key is None else []) if stamps is None else stamps
        responses = [self.stamps.stamp(stamped(signed), **each) for each in wanted]
        material: dict[str, Any] = {"tlogEntries": entries}
        if chosen is not None:
            material["certificate"] = {"rawBytes": b64(certificate_der(chosen))}
        else:
            material["publicKey"] = {"hint": b64(hashlib.sha256(spki(private)).digest())}
        if responses:
            listed = [{"signedTimestamp": b64(each)} for each in responses]
            material["timestampVerificationData"] = {"rfc3161Timestamps": listed}
        result: dict[str, Any] = {"mediaType": BUNDLE_V03, "verificationMaterial": material}
        if file is None:
            signatures = [{"sig": b64(signed)}]
            result["dsseEnvelope"] = {"payload": b64(payload), "payloadType": payload_type, "signatures": signatures}
        else:
            digest = {"algorithm": _NAMES[hash_name], "digest": b64(hashlib.new(hash_name, file).digest())}
            result["messageSignature"] = {"messageDigest": digest, "signature": b64(signed)}
        result = change(result) or result
        return Made(result, message, signed)

    def body(
        self,
        log: int,
        kind: str,
        message: bytes,
        payload: bytes,
        signature: bytes,
        key: Any,
        leaf: Issued | None,
        hash_name: str,
    ) -> dict[str, Any]:
        """The body of an honest entry."""
        signer = leaf.pem if leaf else pem(spki(key), "PUBLIC KEY")
        if kind == "dsse":
            spec: dict[str, Any] = {
                "envelopeHash": {"algorithm": "sha256", "value": "0" * 64},
                "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
                "signatures": [{"signature": b64(signature), "verifier": b64(signer)}],
            }
        elif log == V1:
            value = hashlib.new(hash_name, message).hexdigest()
            spec = {
                "data": {"hash": {"algorithm": hash_name, "value": value}},
                "signature": {"content": b64(signature), "publicKey": {"content": b64(signer)}},
            }
        else:
            raw = ("x509Certificate", certificate_der(leaf)) if leaf else ("publicKey", spki(key))
            verifier = {"keyDetails": key_details(key, hash_name), raw[0]: {"rawBytes": b64(raw[1])}}
            digest = {"algorithm": _NAMES[hash_name], "digest": b64(hashlib.new(hash_name, message).digest())}
            spec = {
                "hashedRekordV002": {"data": digest, "signature": {"content": b64(signature), "verifier": verifier}}
            }
        return {"apiVersion": "0.0.1" if log == V1 else "0.0.2", "kind": kind, "spec": spec}


def authority_entry(name: str, *chain: Issued, **changes: Any) -> dict[str, Any]:
    """An authority of a trusted root."""
    certificates = [{"rawBytes": b64(certificate_der(each))} for each in chain]
    return {
        "subject": {"organization": "lab", "commonName": name},
        "uri": f"https://{name}.lab",
        "certChain": {"certificates": certificates},
        "validFor": valid(),
        **changes,
    }


def certificate_der(issued: Issued) -> bytes:
    """The certificate."""
    return issued.certificate.public_bytes(serialization.Encoding.DER)


def other_name(text: str) -> x509.OtherName:
    """A name of Fulcio's own kind."""
    return x509.OtherName(ObjectIdentifier(OTHER_NAME), der_string(text))


def _public(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _counted(content: bytes) -> bytes:
    return len(content).to_bytes(2, "big") + content


def _is_ec(key: Any) -> bool:
    return isinstance(key, ec.EllipticCurvePrivateKey)

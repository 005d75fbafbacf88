# SPDX-License-Identifier: Apache-2.0
"""The vectors of tests/spec/bundles.md 6.2 and 6.3 that concern one bundle, made in code.

Each is an honest bundle of a private world with one thing changed, and the class that it must be refused with. What
the oracles say (`C` cosign, `P` the Python library; `!` decides otherwise) is held against them by tests/interop.
"""

import base64
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from cip.model.signature import BundleRecord
from cip.trust.bundle.bundle import Bundle, Envelope, parse_bundle
from cip.trust.bundle.statement import parse_statement, require_subject
from cip.trust.bundle.trustedroot import TrustedRoot, parse_trusted_root
from cip.trust.bundle.verify import BundleTrust, require_bundle_about, require_signed
from cip.trust.signed.requirement import VerificationRecord
from cip.trust.sigstore.certificates import CertificateIdentity
from cip.trust.sigstore.keys import PublicKey, load_key, load_public_key

from . import stamps as made_stamps
from .bundles import (
    BUNDLE_V03,
    DIGEST,
    IMAGE,
    SUBJECT_URI,
    V1,
    V2,
    Change,
    Made,
    OwnLog,
    World,
    authority_entry,
    certificate_der,
    flip,
    flipped,
    note_line,
    other_name,
    sign,
    statement,
    tree_root,
    valid,
)
from .sigstore import (
    OIDC_ISSUER,
    SIGNED_AT,
    Issued,
    authority,
    b64,
    der_string,
    intermediate,
    issue,
    new_key,
    pem,
    public_pem,
    raw_extension,
    rsa_key,
    spki,
)
from .stamps import StampAuthority, der, integer, oid, sequence, usage

FILE = b"the content of a file"
EMAIL = "signer@example.com"
IDENTITY = CertificateIdentity(OIDC_ISSUER, uri=SUBJECT_URI)
ENTRY = "verificationMaterial.tlogEntries.0"
PROOF = f"{ENTRY}.inclusionProof"
STAMPS = "verificationMaterial.timestampVerificationData"
_ABSENT = object()
Make = Callable[[World], Made]


class Case(NamedTuple):
    """One vector. `make` makes the bundle, `text` changes its JSON, `root` (or what `root_of` gives) the
    trusted root; None: there is none.

    `expected` is the class in lower case, empty for one that is accepted. A case is `attached` to an image or judged as
    a file; `keys` make it one of a policy with keys. `words` must stand in the refusal.
    """

    name: str
    expected: str
    make: Make
    oracles: str = ""
    text: Callable[[bytes], bytes] = lambda data: data
    root: Change | None = lambda document: document
    root_of: Callable[[World], Change] | None = None
    identity: CertificateIdentity | None = IDENTITY
    keys: Callable[[World], Sequence[PublicKey]] | None = None
    log_keys: Callable[[World], Sequence[PublicKey]] = lambda world: ()
    log_entries: int = 1
    timestamps: int = 0
    file: bytes | None = None
    attached: bool = True
    words: str = ""


def judge(case: Case, world: World, data: bytes | None = None) -> VerificationRecord:
    """What our verifier makes of a case; raises what it raises. `data` stands in for the bundle."""
    data = case.text(case.make(world).data) if data is None else data
    bundle = parse_bundle(data, "bundle")
    verification = VerificationRecord("place", "sigstore-bundle")
    verification.bundle = BundleRecord("sha256:0")
    root = None
    change = case.root_of(world) if case.root_of else case.root
    if change is not None:
        root = _parsed_root(json.dumps(world.trusted_root(change)).encode())
    trust = BundleTrust(
        keys=tuple(case.keys(world)) if case.keys else (),
        identity=None if case.keys else case.identity,
        root=root,
        log_keys=tuple(case.log_keys(world)),
        log_entries=case.log_entries,
        timestamps=case.timestamps,
    )
    if case.attached and case.file is None:
        require_bundle_about(bundle, trust, IMAGE, verification)
    else:
        judge_file(bundle, trust, FILE if case.file is None else case.file, verification)
    return verification


@functools.cache
def _parsed_root(data: bytes) -> TrustedRoot:
    """Most cases have the same one, and to parse it takes longer than to judge by it."""
    return parse_trusted_root(data, "trusted_root.json")


def judge_file(bundle: Bundle, trust: BundleTrust, content: bytes, verification: VerificationRecord) -> None:
    """A bundle that is not attached to an image."""
    require_signed(bundle, trust, content, verification)
    if isinstance(bundle.content, Envelope):
        require_subject(parse_statement(bundle.content.payload_type, bundle.content.payload), IMAGE)


# --- ways to change one thing ---


def put(path: str, value: Any = _ABSENT) -> Change:
    """Sets what stands at `path`; a callable gets what stood there; without a value the member is taken out."""

    def change(document: Any) -> None:
        *steps, last = (int(step) if step.isdecimal() else step for step in path.split("."))
        for step in steps:
            document = document[step]
        if value is _ABSENT:
            del document[last]
        else:
            document[last] = value(document[last]) if callable(value) else value

    return change


def several(*changes: Change) -> Change:
    """All of them, one after the other."""

    def change(document: Any) -> None:
        for each in changes:
            each(document)

    return change


def made(**options: Any) -> Make:
    """`World.bundle` with these options."""
    return lambda world: world.bundle(**options)


def by_key(log: int | None = None, **options: Any) -> Make:
    """A bundle signed by the world's key."""
    return lambda world: world.bundle(log, **{"key": world.key, **options})


def changed(path: str, value: Any = _ABSENT, **options: Any) -> Make:
    """A bundle with one member changed after it was made."""
    return made(change=put(path, value), **options)


def stating(payload_type: str = "application/vnd.in-toto+json", /, **members: Any) -> Make:
    """A bundle whose statement has other members."""
    return made(payload=json.dumps(statement(**members)).encode(), payload_type=payload_type)


def stamped(**options: Any) -> Make:
    """A bundle whose stamp has one thing wrong."""
    return made(stamps=[options])


def with_leaf(make: Callable[[World], Issued], **options: Any) -> Make:
    """A bundle by a certificate that is made so."""
    return lambda world: world.bundle(**{"leaf": make(world), **options})


def leaf(*arguments: Any, **options: Any) -> Make:
    """A bundle by a certificate with these options of `World.leaf`."""
    return with_leaf(lambda world: world.leaf(*arguments, **options))


def uris(*names: str) -> list[x509.GeneralName]:
    """Alternative names."""
    return [x509.UniformResourceIdentifier(each) for each in names]


def as_text(text: bytes, other: bytes) -> Callable[[bytes], bytes]:
    """Replaces a text that is there once."""

    def change(data: bytes) -> bytes:
        assert data.count(text) == 1, (text, data)
        return data.replace(text, other)

    return change


def chain_of(*chosen: Callable[[World], Issued], media_type: str) -> Make:
    """A bundle whose leaf stands in a chain."""

    def make(world: World) -> Made:
        certificates = [{"rawBytes": b64(certificate_der(each(world)))} for each in chosen]
        material = {"x509CertificateChain": {"certificates": certificates}}

        def change(document: Any) -> None:
            document["mediaType"] = media_type
            del document["verificationMaterial"]["certificate"]
            document["verificationMaterial"].update(material)

        return world.bundle(change=change)

    return make


@functools.cache
def kept(kind: str) -> Any:
    """A key of another kind, made once."""
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    curves: Mapping[str, ec.EllipticCurve] = {
        "p224": ec.SECP224R1(),
        "p256": ec.SECP256R1(),
        "p384": ec.SECP384R1(),
        "p521": ec.SECP521R1(),
    }
    return new_key(curves[kind])


def only(key: Any) -> Callable[[World], Sequence[PublicKey]]:
    """A policy with this key."""
    return lambda world: [load_public_key(public_pem(key), "key")]


def the_key(world: World) -> Sequence[PublicKey]:
    """A policy with the world's key."""
    return [load_key(spki(world.key))]


def signed_so(key: Any, hash_name: str | None = None) -> Make:
    """A bundle by this key."""
    return lambda world: world.bundle(None, key=key, hash_name=hash_name)


def log_of(number: int, change: Change) -> Change:
    """A change of the trusted root's log."""
    return lambda document: change(document["tlogs"][number])


_V02 = "application/vnd.dev.sigstore.bundle+json;version=0.2"
_V01 = "application/vnd.dev.sigstore.bundle+json;version=0.1"
_LEAF = "verificationMaterial.certificate.rawBytes"


def _in_url_alphabet(data: bytes) -> bytes:
    """The first long base64 of the certificate with other letters for the last two of the alphabet."""
    document = json.loads(data)
    put(_LEAF, lambda text: text.replace("+", "-").replace("/", "_"))(document)
    return json.dumps(document).encode()


FORM = (
    Case("B01", "", made(), "C P"),
    Case("B02", "", changed("mediaType", "application/vnd.dev.sigstore.bundle+json;version=0.3"), "C P"),
    Case(
        "B03",
        "bundle",
        changed("mediaType", "application/vnd.dev.sigstore.bundle.v0.4+json"),
        "C P",
        words="expected 0.1 to 0.3",
    ),
    Case("B04", "bundle", changed("mediaType", "application/vnd.dev.sigstore.bundle.v0.3.1+json"), "C! P"),
    Case("B05", "bundle", changed("mediaType"), "C P"),
    Case("B06", "bundle", made(change=lambda d: d.update(extra=1)), "C P", words="unknown member 'extra'"),
    Case("B07", "bundle", made(change=lambda d: d["verificationMaterial"]["tlogEntries"][0].update(extra=1)), "C P"),
    Case(
        "B08",
        "bundle",
        made(change=lambda d: d.update(messageSignature={"signature": "AA=="})),
        "C P",
        words="messageSignature and dsseEnvelope",
    ),
    Case("B09", "bundle", changed("dsseEnvelope"), "C P"),
    Case("B10", "bundle", made(change=lambda d: d["verificationMaterial"].update(publicKey={"hint": "x"})), "C P"),
    Case("B11", "bundle", changed("verificationMaterial.certificate"), "C P"),
    Case("B12", "bundle", chain_of(lambda world: world.usual_leaf, media_type=BUNDLE_V03), "C P"),
    Case("B13", "", chain_of(lambda world: world.usual_leaf, media_type=_V02), "C P", attached=False),
    Case("B13 attached", "bundle", chain_of(lambda world: world.usual_leaf, media_type=_V02)),
    Case(
        "B13 with the intermediate",
        "",
        chain_of(lambda w: w.usual_leaf, lambda w: w.intermediate, media_type=_V02),
        attached=False,
    ),
    Case(
        "B14",
        "bundle",
        chain_of(lambda w: w.usual_leaf, lambda w: w.root, media_type=_V02),
        "C! P!",
        attached=False,
        words="self-signed",
    ),
    Case("B15", "", changed(f"{ENTRY}.logIndex", int), "C P!"),
    Case("B16", "bundle", changed(f"{ENTRY}.logIndex", "-3"), "C P"),
    Case("B17", "bundle", changed(f"{ENTRY}.logIndex", "9223372036854775808"), "C P!"),
    Case("B18", "bundle", changed(f"{ENTRY}.logIndex", "1e0"), "C P"),
    Case("B18 leading zero", "bundle", changed(f"{ENTRY}.logIndex", "05")),
    Case("B18 sign", "bundle", changed(f"{ENTRY}.logIndex", "+5")),
    Case("B18 boolean", "bundle", changed(f"{ENTRY}.logIndex", True)),
    Case("B18 other digits", "bundle", changed(f"{ENTRY}.logIndex", "\u0665")),
    Case("B19", "bundle", made(), "C! P!", text=as_text(b'"verificationMaterial"', b'"verification_material"')),
    Case("B20", "bundle", made(), "C P!", words="duplicate key", text=lambda data: b'{"mediaType":"x",' + data[1:]),
    Case("B21", "bundle", made(), "C P", text=lambda data: data + b"{}"),
    Case("B22", "", made(), "C P", text=lambda data: data + b"\n"),
    Case("B23", "bundle", made(), text=_in_url_alphabet),  # protobuf takes it
    Case("B24", "bundle", changed("dsseEnvelope.payload", lambda text: text.rstrip("="))),
    Case("B25", "", changed(f"{ENTRY}.canonicalizedBody", lambda text: f"{text[:40]}\n\n\n\n{text[40:]}"), "C P"),
    Case("B26", "", made(change=lambda d: d.update(messageSignature=None)), "C P"),
    Case("B27", "rekor", changed("verificationMaterial.tlogEntries", None), "C P", words="no log entry"),
    Case("B28", "bundle", changed("verificationMaterial.tlogEntries", lambda listed: listed * 33), "C P"),
    Case("B29", "bundle", made(), "C P", text=lambda data: data[:-20]),
    Case("B30", "bundle", changed("dsseEnvelope.signatures", lambda listed: listed * 2), "C P"),
    Case("B31", "bundle", changed("dsseEnvelope.signatures", []), "C P"),
    Case("B32", "bundle", made(), "C P", text=lambda data: b"[" + data + b"]"),
    Case("B33", "bundle", made(), "C P", text=lambda data: b"\xef\xbb\xbf" + data),
    Case("B34", "bundle", changed("mediaType", _V01), "C P", attached=False, words="no inclusion promise"),
    Case(
        "B35",
        "bundle",
        made(change=several(put("mediaType", _V02), put(PROOF))),
        "C P",
        attached=False,
        words="no inclusion proof",
    ),
    Case("B36", "", made(log=V1, change=several(put("mediaType", _V01), put(PROOF))), "C P!", attached=False),
    Case(
        "B36 attached",
        "bundle",
        made(log=V1, change=several(put("mediaType", _V01), put(PROOF))),
        words="expected 0.3 for an image",
    ),
    Case(
        "B36 proof without checkpoint",
        "bundle",
        made(log=V1, change=several(put("mediaType", _V01), put(f"{PROOF}.checkpoint"))),
        attached=False,
    ),
    Case("B35 proof without checkpoint", "bundle", changed(f"{PROOF}.checkpoint"), words="'checkpoint'"),
    Case("B37", "bundle", changed("messageSignature.messageDigest.algorithm", 1, file=FILE), file=FILE),
    Case(
        "B37 unknown name", "bundle", changed("messageSignature.messageDigest.algorithm", "SHA1", file=FILE), file=FILE
    ),
    Case(
        "B38",
        "bundle",
        by_key(change=lambda d: d["dsseEnvelope"]["signatures"][0].update(keyid="!")),
        keys=the_key,
        log_entries=0,
        words="keyid",
    ),
    Case(
        "B38 larger",
        "bundle",
        by_key(change=lambda d: d["dsseEnvelope"]["signatures"][0].update(keyid="~")),
        keys=the_key,
        log_entries=0,
        words="keyid",
    ),
    Case(
        "B38 the same",
        "",
        by_key(
            change=lambda d: d["dsseEnvelope"]["signatures"][0].update(
                keyid=d["verificationMaterial"]["publicKey"]["hint"]
            )
        ),
        keys=the_key,
        log_entries=0,
    ),
    Case("B39 none", "bundle", chain_of(media_type=_V02), attached=False, words="expected certificates, found none"),
    Case(
        "B39",
        "bundle",
        chain_of(*[lambda world: world.usual_leaf] * 11, media_type=_V02),
        attached=False,
        words="at most 10",
    ),
    Case(
        "B40",
        "bundle",
        changed(f"{STAMPS}.rfc3161Timestamps.0.signedTimestamp", b64(bytes(64 * 1024 + 1))),
        words="at most 65536 bytes",
    ),
    Case("B40 not more", "time", changed(f"{STAMPS}.rfc3161Timestamps.0.signedTimestamp", b64(bytes(64 * 1024)))),
)

_OTHER_DIGEST = hashlib.sha256(b"another image").hexdigest()
_SHA512 = hashlib.sha512(IMAGE).hexdigest()
_GOOD = {"digest": {"sha256": DIGEST}}
_MANY = {f"d{number}": "" for number in range(32)}

STATEMENT = (
    Case("E01", "digest", stating(subject=[{"digest": {"sha256": _OTHER_DIGEST}}]), "C", words=_OTHER_DIGEST[:20]),
    Case("E02", "", stating(subject=[{"digest": {"sha256": _OTHER_DIGEST}}, _GOOD]), "C"),
    Case("E03", "digest", stating(subject=[{"digest": {"sha256": _OTHER_DIGEST, "sha512": _SHA512}}]), "C!"),
    Case("E04", "", stating(subject=[{**_GOOD, "name": "registry.example.com/os"}]), "C"),
    Case("E05", "payload", stating(_type="https://in-toto.io/Statement/v0.1"), "C!"),
    Case("E06", "payload", stating(_type="https://example.com/Statement"), "C!"),
    Case("E07", "digest", stating(subject=[{"digest": {"sha256": DIGEST.upper()}}]), "C!"),
    Case("E08", "payload", stating("application/json"), "C"),
    Case("E09", "payload", stating("application/vnd.in-toto+json; charset=utf-8"), "C"),
    Case("E10", "rekor", changed("dsseEnvelope.payloadType", "application/json"), "C P"),
    Case(
        "E10 without log",
        "crypto",
        by_key(change=put("dsseEnvelope.payloadType", "application/json")),
        keys=the_key,
        log_entries=0,
    ),
    Case("E11", "crypto", made(signed_bytes=lambda message: message.split(b" ", 4)[4]), "C P"),
    Case("E12", "payload", stating(predicateType="https://slsa.dev/provenance/v1"), "C", attached=False),
    Case("E13", "payload", made(payload=b"hello"), "C"),
    Case(
        "E14",
        "payload",
        made(payload=json.dumps(statement()).encode().replace(b"{", b'{"subject":[],', 1)),
        "C",
        words="duplicate key",
    ),
    Case("E15", "payload", stating(subject=[]), "C"),
    Case("E16", "rekor", changed("dsseEnvelope.payload", lambda text: b64(base64.b64decode(text) + b" ")), "C P"),
    Case(
        "E16 without log",
        "crypto",
        by_key(change=put("dsseEnvelope.payload", lambda text: b64(base64.b64decode(text) + b" "))),
        keys=the_key,
        log_entries=0,
    ),
    Case("E17", "payload", stating(extra=1), "C"),
    Case("E18", "", made(change=lambda d: d["dsseEnvelope"]["signatures"][0].update(keyid="x")), "C!"),
    Case("E19", "payload", made(payload=json.dumps({**statement(), "subject": None}).encode()), "C"),
    Case("E20", "", stating(subject=[{**_GOOD, "annotations": {}}]), "C"),
    Case("E21", "payload", stating(subject=[{"digest": {}}]), "C"),
    Case("E22", "", stating(predicate=None), "C"),
    Case("E23", "digest", stating(subject=[{"digest": {"sha256": DIGEST[:62]}}]), "C"),
    Case("E24", "payload", stating(subject=[_GOOD] * 1025)),
    Case("E24 not more", "", stating(subject=[_GOOD] * 1024)),
    Case("E24 digests", "payload", stating(subject=[{"digest": {"sha256": DIGEST, **_MANY}}])),
    Case("E24 32 digests", "", stating(subject=[{"digest": {"sha256": DIGEST, **dict(list(_MANY.items())[1:])}}])),
    Case(
        "E27 a lone surrogate",
        "payload",
        made(payload=json.dumps(statement()).encode().replace(b'"predicate": {}', b'"predicate": {"a": "\\ud800"}')),
        words="lone surrogate",
    ),
    Case("E25", "payload", stating(predicate=[])),
    Case("E26", "payload", stating(subject=[{"digest": {"sha256": 5}}])),
    Case("E26 unknown member of a subject", "payload", stating(subject=[{**_GOOD, "extra": 1}])),
    Case("M01", "", made(file=FILE), "C P", file=FILE),
    Case("M02", "", made(log=V1, file=FILE), "C P", file=FILE),
    Case(
        "M03",
        "digest",
        changed("messageSignature.messageDigest.digest", b64(hashlib.sha256(b"other").digest()), file=FILE),
        "C P",
        file=FILE,
    ),
    Case("M04", "", changed("messageSignature.messageDigest", file=FILE), "C! P", file=FILE),
    Case("M05", "time", changed("messageSignature.signature", flipped, file=FILE), "C P", file=FILE),
    Case(
        "M06", "digest", changed("messageSignature.messageDigest.algorithm", "SHA2_512", file=FILE), "C P!", file=FILE
    ),
    Case("M07 another file", "rekor", made(file=FILE), file=b"another"),
    Case("D08", "payload", made(file=IMAGE), words="a plain signature over the manifest"),
)


def _ed25519ph(world: World) -> Made:
    """Not over the encoding itself; what exactly does not matter, because nobody here can verify it."""
    key = kept("ed25519")
    return world.bundle(None, key=key, signed_bytes=lambda message: hashlib.sha512(message).digest())


def _under_the_id_of_its_key(world: World) -> Made:
    identity = hashlib.sha256(spki(world.log_v2.key)).digest()
    return world.bundle(V2, key=world.key, entry=put("logId.keyId", b64(identity)))


KEYS = (
    Case("K01", "", by_key(), "C", keys=the_key, log_entries=0, root=None),
    Case("K02", "", by_key(change=put("verificationMaterial.publicKey.hint", "x")), "C", keys=the_key, log_entries=0),
    Case("K03", "", by_key(change=put("verificationMaterial.publicKey.hint")), "C", keys=the_key, log_entries=0),
    Case("K04", "crypto", signed_so(kept("p256")), "C", keys=the_key, log_entries=0, words="not by the expected key"),
    Case(
        "K04 by RSA",
        "crypto",
        signed_so(kept("p256")),
        keys=lambda w: only(rsa_key(2048))(w),
        log_entries=0,
        words="the signature is not by the expected key$",
    ),
    Case(
        "K05",
        "bundle",
        with_leaf(lambda world: world.leaf(key=world.key)),
        "C",
        keys=the_key,
        log_entries=0,
        words="expected one of the policy's keys",
    ),
    Case("K05 reverse", "bundle", by_key(V1), words="expected a certificate"),
    Case("K06", "", by_key(V2), "C", keys=the_key),
    Case("K07", "", by_key(V1), "C", keys=the_key),
    Case("K08", "rekor", by_key(), "C", keys=the_key),
    Case("K10", "", signed_so(kept("p384")), "C!", keys=only(kept("p384")), log_entries=0),
    Case("K10b", "", signed_so(kept("p384"), "sha256"), "C", keys=only(kept("p384")), log_entries=0),
    Case("K10c", "", signed_so(kept("p521")), keys=only(kept("p521")), log_entries=0),
    Case("K10 another hash", "crypto", signed_so(kept("p384"), "sha512"), keys=only(kept("p384")), log_entries=0),
    Case("K10 logged", "", lambda w: w.bundle(V2, key=kept("p384")), keys=only(kept("p384"))),
    Case("K10b logged", "", lambda w: w.bundle(V2, key=kept("p384"), hash_name="sha256"), keys=only(kept("p384"))),
    Case("K11", "", signed_so(kept("ed25519")), "C", keys=only(kept("ed25519")), log_entries=0),
    Case(
        "K11b",
        "",
        lambda w: w.bundle(None, key=rsa_key(2048)),
        "C",
        log_entries=0,
        keys=lambda w: only(rsa_key(2048))(w),
    ),
    Case(
        "K11c",
        "",
        lambda w: w.bundle(None, key=rsa_key(4096)),
        "C",
        log_entries=0,
        keys=lambda w: only(rsa_key(4096))(w),
    ),
    Case(
        "K12",
        "keycfg",
        lambda w: w.bundle(None, key=rsa_key(1024)),
        "C!",
        log_entries=0,
        keys=lambda w: only(rsa_key(1024))(w),
        words="1024 bits",
    ),
    Case(
        "K12b",
        "keycfg",
        lambda w: w.bundle(None, key=rsa_key(2048, 3)),
        "C!",
        log_entries=0,
        keys=lambda w: only(rsa_key(2048, 3))(w),
        words="exponent 3",
    ),
    Case("K12c", "keycfg", signed_so(kept("p224")), "C!", keys=only(kept("p224")), log_entries=0, words="secp224r1"),
    Case("K13", "crypto", _ed25519ph, "C", keys=only(kept("ed25519")), log_entries=0, words="Ed25519ph"),
    Case("K14", "", signed_so(kept("p256")), log_entries=0, keys=lambda w: [*the_key(w), load_key(spki(kept("p256")))]),
    Case("K15", "", by_key(V1), keys=the_key, root=None, log_keys=lambda w: [load_key(spki(w.log_v1.key))]),
    Case(
        "K15 in a log of version 2",
        "rekor",
        by_key(V2),
        keys=the_key,
        root=None,
        log_keys=lambda w: [load_key(spki(w.log_v2.key))],
    ),
    Case(
        "K16",
        "keycfg",
        by_key(),
        log_entries=0,
        words=r"2\.16\.840\.1\.101\.3\.4\.3\.18 \(ML-DSA-65\)",
        keys=lambda w: [
            load_public_key(
                pem(sequence(sequence(oid("2.16.840.1.101.3.4.3.18")), der(0x03, bytes(1953))), "PUBLIC KEY"), "key"
            )
        ],
    ),
    Case(
        "K15 in a log of version 2 by its key",
        "rekor",
        _under_the_id_of_its_key,
        keys=the_key,
        root=None,
        log_keys=lambda w: [load_key(spki(w.log_v2.key))],
        words="rekorPublicKeyPath can only name v1 logs",
    ),
    Case("K17", "rekor", by_key(V1), keys=the_key, root=None, log_keys=lambda w: [load_key(spki(w.key))]),
    Case("K18 no key at all", "crypto", by_key(), keys=lambda w: (), log_entries=0),
)

_SET = f"{ENTRY}.inclusionPromise.signedEntryTimestamp"


def v1(**options: Any) -> Make:
    """A bundle in the log of version 1, with these options of its entry."""
    return made(log=V1, entry_options=options)


def v2(**options: Any) -> Make:
    """A bundle in the log of version 2, with these options of its entry."""
    return made(log=V2, entry_options=options)


def head(number: int = V2, **options: Any) -> Make:
    """A bundle with another checkpoint."""
    return made(log=number, entry_options={"head": options})


def body(path: str, value: Any = _ABSENT, log: int = V2, **options: Any) -> Make:
    """A bundle whose log entry says something else."""
    return made(log=log, body=put(path, value), **options)


def _second_entry(world: World) -> Made:
    """A second entry of the same log, whose promise is false."""

    def change(document: Any) -> None:
        entries = document["verificationMaterial"]["tlogEntries"]
        raw = base64.b64decode(entries[0]["canonicalizedBody"])
        other = world.log_v1.entry(raw, kind="dsse", version="0.0.1", index=6)
        put("inclusionPromise.signedEntryTimestamp", flipped)(other)
        entries.append(other)

    return world.bundle(V1, change=change)


def _other_root(world: World) -> Made:
    root = tree_root([bytes(32)] * 8)
    return world.bundle(V1, entry_options={"head": {"root_hash": root}}, change=put(f"{PROOF}.rootHash"))


def _other_signature(world: World) -> str:
    return b64(sign(world.usual_leaf.key, b"something else"))


def _intoto(world: World) -> Made:
    """An entry as cosign 1 and 2 made it for an attestation."""

    def body(document: Any) -> dict[str, Any]:
        (verified,) = document["spec"]["signatures"]
        signature = {"publicKey": verified["verifier"], "sig": b64(verified["signature"].encode())}
        content = {
            "envelope": {"payloadType": "application/vnd.in-toto+json", "signatures": [signature]},
            "hash": {"algorithm": "sha256", "value": "0" * 64},
            "payloadHash": document["spec"]["payloadHash"],
        }
        return {"apiVersion": "0.0.2", "kind": "intoto", "spec": {"content": content}}

    return world.bundle(V1, body=body, entry=put("kindVersion", {"kind": "intoto", "version": "0.0.2"}))


_SIGNATURE_V1 = "spec.signatures.0.signature"
_V2_SPEC = "spec.hashedRekordV002"
_VERIFIER = f"{_V2_SPEC}.signature.verifier"

LOG_V1 = (
    Case("T101", "", made(log=V1), "C P"),
    Case("T102", "rekor", changed(_SET, flipped, log=V1), "C P"),
    Case("T102 with a stamp", "rekor", changed(_SET, flipped, log=V1, stamps=[{}])),
    Case("T103", "rekor", changed(f"{ENTRY}.integratedTime", str(SIGNED_AT + 1), log=V1), "C P"),
    Case("T104", "rekor", changed(f"{ENTRY}.logIndex", "1000006", log=V1), "C P"),
    Case("T105", "time", changed(f"{ENTRY}.inclusionPromise", log=V1), "C P", words="the log gives no time"),
    Case("T106", "", changed(f"{ENTRY}.inclusionPromise", log=V1, stamps=[{}]), "C P"),
    Case("T107", "", made(log=V1, stamps=[{}]), "C P"),
    Case("T108", "untrusted", v1(time=SIGNED_AT - 180), "C P"),
    Case("T109", "", v1(time=SIGNED_AT - 120), "C P"),
    Case("T110", "", v1(time=SIGNED_AT + 480), "C P"),
    Case("T111", "untrusted", v1(time=SIGNED_AT + 481), "C P"),
    Case("T112", "rekor", changed(f"{PROOF}.hashes.0", flipped, log=V1), "C P"),
    Case("T113", "rekor", changed(f"{PROOF}.logIndex", "4", log=V1), "C P"),
    Case("T114", "rekor", changed(f"{PROOF}.hashes", lambda listed: [*listed, listed[0]], log=V1), "C P"),
    Case("T115", "rekor", changed(f"{PROOF}.hashes", lambda listed: listed[:-1], log=V1), "C P"),
    Case("T116", "rekor", _other_root, "C P", words="does not lead to the root"),
    Case("T117", "rekor", head(V1, key=kept("p256")), "C P", words="not signed by the log"),
    Case("T118", "rekor", lambda w: head(V1, key=kept("p256"), key_id=w.log_v1.log_id[:4])(w), "C P"),
    Case(
        "T119",
        "rekor",
        changed(f"{ENTRY}.logId.keyId", b64(bytes(32)), log=V1),
        "C P",
        words=r"logged in 'rekor\.lab - [0-9]+' \(key id 00000000\), which trusted_root\.json does not list",
    ),
    Case("T120", "rekor", made(log=V1, entry=put("kindVersion.version", "0.0.2")), "C! P"),
    Case("T120 version of the body", "rekor", body("apiVersion", "0.0.2", V1), words="apiVersion"),
    Case("T120 kind of the body", "rekor", body("kind", "hashedrekord", V1), words="kind"),
    Case("T121", "rekor", body("spec.signatures", lambda listed: listed * 2, V1), "C! P"),
    Case("T121 with none", "rekor", body("spec.signatures", [], V1), words="about 0 signatures"),
    Case("T122", "rekor", body("spec.payloadHash.value", "0" * 64, V1), "C P"),
    Case("T122 of the largest value", "rekor", body("spec.payloadHash.value", "f" * 64, V1)),
    Case("T122 hash", "rekor", body("spec.payloadHash.algorithm", "sha512", V1)),
    Case("T123", "rekor", lambda w: body(_SIGNATURE_V1, _other_signature(w), V1)(w), "C P"),
    Case(
        "T124",
        "rekor",
        lambda w: body("spec.signatures.0.verifier", b64(w.leaf(key=w.usual_leaf.key).pem), V1)(w),
        "C P",
    ),
    Case(
        "T124 bare key", "rekor", lambda w: body("spec.signatures.0.verifier", b64(public_pem(w.usual_leaf.key)), V1)(w)
    ),
    Case("T124 two blocks", "rekor", lambda w: body("spec.signatures.0.verifier", b64(w.usual_leaf.pem * 2), V1)(w)),
    Case("T125", "rekor", _intoto, "C! P", words="of kind 'intoto 0.0.2'"),
    Case("T126", "", v1(size=1, index=0), "C P"),
    Case("T127", "rekor", changed(f"{PROOF}.rootHash", flipped, log=V1), "C P"),
    Case("T127 size", "rekor", changed(f"{PROOF}.treeSize", "9", log=V1)),
    Case("T127 smaller", "rekor", changed(f"{PROOF}.rootHash", b64(bytes(32))), words="about another tree"),
    Case("T127 larger", "rekor", changed(f"{PROOF}.rootHash", b64(b"\xff" * 32)), words="about another tree"),
    Case("T127 smaller size", "rekor", changed(f"{PROOF}.treeSize", "7"), words="about another tree"),
    Case("T127 larger size", "rekor", changed(f"{PROOF}.treeSize", "9"), words="about another tree"),
    Case("T128", "untrusted", v1(time=32_503_680_000), "C P"),
    Case("T129", "rekor", _second_entry, "C! P"),
    Case(
        "T130",
        "rekor",
        changed("verificationMaterial.tlogEntries", lambda listed: listed * 2, log=V1),
        "C P",
        words="twice",
    ),
    Case("T234", "", head(V1, extension="an extension\n"), "C P"),
    Case("T131 another host", "rekor", head(V1, origin="other.lab - 7")),
    Case("T132 hashedrekord about an envelope", "", made(log=V1, kind="hashedrekord")),
    Case(
        "T132 over the payload alone",
        "rekor",
        body(
            "spec.data.hash.value",
            hashlib.sha256(json.dumps(statement()).encode()).hexdigest(),
            V1,
            kind="hashedrekord",
        ),
    ),
    Case(
        "T133 hashedrekord about another file",
        "rekor",
        body("spec.data.hash.value", "0" * 64, V1, file=FILE),
        file=FILE,
    ),
    Case("T133 of the largest value", "rekor", body("spec.data.hash.value", "f" * 64, V1, file=FILE), file=FILE),
    Case(
        "T133 another signature",
        "rekor",
        lambda w: body("spec.signature.content", _other_signature(w), V1, file=FILE)(w),
        file=FILE,
    ),
    Case(
        "T133 another certificate of the key",
        "rekor",
        lambda w: body("spec.signature.publicKey.content", b64(w.leaf(key=w.usual_leaf.key).pem), V1, file=FILE)(w),
        file=FILE,
    ),
    Case("T133 hash of the key", "", with_leaf(lambda w: w.leaf(key=kept("p384")), log=V1, file=FILE), file=FILE),
    Case(
        "T133 hash of another key",
        "rekor",
        with_leaf(lambda w: w.leaf(key=kept("p384")), log=V1, file=FILE, log_hash="sha512"),
        file=FILE,
    ),
    Case("T134 dsse entry of a file", "rekor", made(log=V1, file=FILE, kind="dsse"), file=FILE),
    Case(
        "T135 weak hash",
        "rekor",
        body("spec.data.hash", {"algorithm": "sha1", "value": hashlib.sha1(FILE).hexdigest()}, V1, file=FILE),
        file=FILE,
        words="a hash 'sha1'",
    ),
    Case("T137 no root beside the checkpoint", "rekor", changed(f"{PROOF}.rootHash", log=V1), words="of which tree"),
    Case("T137 no size", "rekor", changed(f"{PROOF}.treeSize", log=V1), words="of which tree"),
    Case(
        "T136 no promise and no time in a bundle of a key",
        "",
        by_key(V1, change=put(f"{ENTRY}.inclusionPromise")),
        keys=the_key,
    ),
)


def _witness(world: World) -> Change:
    return lambda text: note_line("witness.lab", kept("ed25519"), text)


def _false_line(world: World) -> Change:
    return lambda text: note_line("log2.lab", world.log_v2.key, text, change=flip)


def _proof_at_size(document: Any) -> None:
    put("inclusionProof.logIndex", "8")(document)
    put("logIndex", "8")(document)


def _with_blanks(text: str) -> str:
    return b64(json.dumps(json.loads(base64.b64decode(text)), indent=1).encode())


def _omitted_index(world: World) -> Made:
    omit = several(put(f"{ENTRY}.logIndex"), put(f"{PROOF}.logIndex"))
    return world.bundle(V2, entry_options={"index": 0}, change=omit)


def _with_promise(world: World) -> Made:
    def entry(document: Any) -> None:
        document["integratedTime"] = str(SIGNED_AT)
        document["inclusionPromise"] = {"signedEntryTimestamp": b64(world.log_v2.promise(document))}

    return world.bundle(V2, entry=entry)


@functools.cache
def _neighbour(world: World, larger: bool) -> OwnLog:
    """A log under the address of the world's own, with a key that is larger, or smaller."""
    while True:
        log = OwnLog(V2, world.log_v2.host)
        if (spki(log.key) > spki(world.log_v2.key)) is larger:
            return log


def _by_neighbour(larger: bool) -> Make:
    return lambda world: head(key=_neighbour(world, larger).key)(world)


def _neighbour_listed(larger: bool) -> Callable[[World], Change]:
    return lambda world: lambda document: document["tlogs"].append(_neighbour(world, larger).listed())


def _in_the_older_log(world: World) -> Made:
    bundle = world.bundle(V2)
    raw = base64.b64decode(bundle.document["verificationMaterial"]["tlogEntries"][0]["canonicalizedBody"])
    put(ENTRY, world.log_v1.entry(raw, kind="hashedrekord", version="0.0.2"))(bundle.document)
    return bundle


def _in_the_newer_log(world: World) -> Made:
    bundle = world.bundle(V1, kind="hashedrekord", stamps=[{}])
    raw = base64.b64decode(bundle.document["verificationMaterial"]["tlogEntries"][0]["canonicalizedBody"])
    put(ENTRY, world.log_v2.entry(raw, kind="hashedrekord", version="0.0.1"))(bundle.document)
    return bundle


LOG_V2 = (
    Case("T201", "", made(log=V2), "C P"),
    Case("T202", "time", made(stamps=[]), "C P", words="sign again with a timestamp authority"),
    Case("T203", "bundle", changed(PROOF), "C P"),
    Case(
        "T204",
        "time",
        made(
            stamps=[],
            change=lambda d: d["verificationMaterial"]["tlogEntries"][0].update(integratedTime=str(SIGNED_AT)),
        ),
        "C P",
    ),
    Case(
        "T205",
        "rekor",
        body(f"{_V2_SPEC}.data.digest", b64(hashlib.sha256(json.dumps(statement()).encode()).digest())),
        "C P",
    ),
    Case("T206", "rekor", lambda w: body(f"{_V2_SPEC}.signature.content", _other_signature(w))(w), "C P"),
    Case(
        "T207",
        "rekor",
        lambda w: body(
            _VERIFIER, {"keyDetails": "PKIX_ECDSA_P256_SHA_256", "publicKey": {"rawBytes": b64(spki(w.usual_leaf.key))}}
        )(w),
        "C P",
    ),
    Case("T207 neither", "rekor", body(f"{_VERIFIER}.x509Certificate"), words="another kind of key"),
    Case(
        "T207 both",
        "rekor",
        lambda w: made(
            body=lambda d: d["spec"]["hashedRekordV002"]["signature"]["verifier"].update(
                publicKey={"rawBytes": b64(spki(w.usual_leaf.key))}
            )
        )(w),
    ),
    Case(
        "T207 another certificate of the key",
        "rekor",
        lambda w: body(f"{_VERIFIER}.x509Certificate.rawBytes", b64(certificate_der(w.leaf(key=w.usual_leaf.key))))(w),
    ),
    Case("T208", "rekor", made(kind="dsse"), "C P"),
    Case("T209", "rekor", body(f"{_VERIFIER}.keyDetails", "PKIX_ECDSA_P384_SHA_384"), "C P"),
    Case("T210", "rekor", body(f"{_V2_SPEC}.data.algorithm", "SHA2_512"), "C P"),
    Case("T211", "", head(extension="an extension\n"), "C P"),
    Case("T212", "", lambda w: head(behind=_witness(w))(w), "C P"),
    Case("T213", "", lambda w: head(before=_witness(w))(w), "C P"),
    Case("T214", "rekor", head(origin="other.lab"), "C P!", words="a checkpoint of 'other.lab', expected"),
    Case("T215", "rekor", head(name="other.lab"), "C P"),
    Case("T216", "rekor", head(key_id=b"\0\0\0\0"), "C P"),
    Case("T217", "rekor", head(change=flip), "C P"),
    Case("T218", "rekor", head(size="9"), "C P!"),
    Case(
        "T218 without size and root beside it",
        "rekor",
        made(entry_options={"head": {"size": "9"}}, change=several(put(f"{PROOF}.treeSize"), put(f"{PROOF}.rootHash"))),
    ),
    Case("T219", "rekor", head(size="08"), "C! P!"),
    Case("T220", "rekor", head(signed=False), "C P"),
    Case("T221", "rekor", made(entry=_proof_at_size), "C P"),
    Case("T222", "rekor", changed(f"{PROOF}.logIndex", "4"), "C! P"),
    Case("T222 the other one, smaller", "rekor", changed(f"{ENTRY}.logIndex", "4"), words="a proof of entry 5"),
    Case("T222 the other one", "rekor", changed(f"{ENTRY}.logIndex", "6"), words="a proof of entry 5"),
    Case("T223", "", made(change=several(put(f"{PROOF}.rootHash"), put(f"{PROOF}.treeSize"))), "C P!"),
    Case("T224", "bundle", changed(f"{ENTRY}.canonicalizedBody"), "C P"),
    Case("T225", "rekor", changed(f"{ENTRY}.canonicalizedBody", _with_blanks), "C! P"),
    Case("T226", "rekor", changed(f"{PROOF}.checkpoint.envelope", lambda text: text.replace("\n", "\r\n")), "C P"),
    Case("T227", "rekor", lambda w: head(behind=_false_line(w))(w), "C! P!"),
    Case("T228", "", _omitted_index, "C P!"),
    Case("T229", "", v2(size=7, index=6), "C P"),
    Case(
        "T230",
        "time",
        lambda w: changed(
            f"{STAMPS}.rfc3161Timestamps",
            lambda listed: [*listed, {"signedTimestamp": b64(w.stamps.stamp(b"something else"))}],
        )(w),
        "C! P!",
    ),
    Case("T231", "", made(stamps=[{}, {"time": SIGNED_AT + 60}]), "C P"),
    Case("T232", "untrusted", made(stamps=[{}, {"time": SIGNED_AT + 3 * 3600}]), "C! P"),
    Case("T233", "bundle", changed(f"{STAMPS}.rfc3161Timestamps", lambda listed: listed * 33), "C P"),
    Case("T235", "time", made(stamped=lambda signature: json.dumps(statement()).encode()), "C P"),
    Case("T236 promise of a log of version 2", "rekor", _with_promise, words="with a promise"),
    Case("T237 entry of version 1 in a log of version 2", "rekor", _in_the_newer_log, words="in a log of version 2"),
    Case("T238 root of another length", "rekor", head(root_hash=bytes(31))),
    Case("T239 33 signature lines", "rekor", lambda w: head(behind=lambda text: _witness(w)(text) * 32)(w)),
    Case("T240 line without signature", "rekor", head(behind=lambda text: f"\u2014 w {b64(bytes(4))}\n")),
    Case(
        "T241 no line end behind the last line",
        "rekor",
        changed(f"{PROOF}.checkpoint.envelope", lambda text: text[:-1]),
    ),
    Case(
        "T242 hash of 31 bytes",
        "rekor",
        changed(f"{PROOF}.hashes.0", lambda text: b64(base64.b64decode(text)[:-1])),
        words="of 32 bytes",
    ),
    Case("T245 another log of the same address", "rekor", _by_neighbour(False), root_of=_neighbour_listed(False)),
    Case("T245 with a larger key", "rekor", _by_neighbour(True), root_of=_neighbour_listed(True)),
    Case("T245 of which nothing comes", "", made(), root_of=_neighbour_listed(True)),
    Case(
        "T246 signer name that is not the origin",
        "rekor",
        head(origin="log2.lab/api"),
        root=put("tlogs.1.baseUrl", "https://log2.lab/api"),
        words="not signed by the log",
    ),
    Case(
        "T246 the other way round",
        "rekor",
        head(name="log2.lab/api"),
        root=put("tlogs.1.baseUrl", "https://log2.lab/api"),
        words="not signed by the log",
    ),
    Case(
        "T246 both the address",
        "",
        head(origin="log2.lab/api", name="log2.lab/api"),
        root=put("tlogs.1.baseUrl", "https://log2.lab/api"),
    ),
    Case("T247 entry of version 2 in a log of version 1", "rekor", _in_the_older_log, words="in a log of version 1"),
    Case(
        "T242 hash of 33 bytes",
        "rekor",
        changed(f"{PROOF}.hashes.0", lambda text: b64(base64.b64decode(text) + b"x")),
        words="of 32 bytes",
    ),
    Case(
        "T243 two logs",
        "",
        lambda w: w.bundle(
            V2,
            change=lambda d: d["verificationMaterial"]["tlogEntries"].extend(
                w.bundle(V1, signature=lambda _: base64.b64decode(d["dsseEnvelope"]["signatures"][0]["sig"])).document[
                    "verificationMaterial"
                ]["tlogEntries"]
            ),
        ),
    ),
    Case(
        "T244 unknown log beside a known one",
        "",
        lambda w: w.bundle(
            V2,
            change=lambda d: d["verificationMaterial"]["tlogEntries"].append(
                {**d["verificationMaterial"]["tlogEntries"][0], "logId": {"keyId": b64(bytes(32))}}
            ),
        ),
    ),
)


def _same_name(world: World) -> Issued:
    """The authority's name over another key."""
    return Issued(world.intermediate.certificate, kept("p256"))


def _garbage_in_chain(world: World) -> Made:
    bundle = chain_of(lambda w: w.usual_leaf, lambda w: w.intermediate, media_type=_V02)(world)
    put("verificationMaterial.x509CertificateChain.certificates.1.rawBytes", "AAAA")(bundle.document)
    return bundle


_EMAIL = CertificateIdentity(OIDC_ISSUER, email=EMAIL)
_OTHER = CertificateIdentity(OIDC_ISSUER, other_name="somebody")
_V2_ISSUER = der_string(OIDC_ISSUER)
_BUILDER = "https://github.com/acme/workflows/.github/workflows/build.yml@refs/tags/v1"

CERTIFICATES = (
    Case("C01", "certid", made(), "C P", identity=IDENTITY._replace(uri="https://example.com/other")),
    Case("C02", "", leaf([x509.RFC822Name(EMAIL)]), "C P", identity=_EMAIL),
    Case(
        "C03",
        "certid",
        leaf([x509.RFC822Name(EMAIL)]),  # the oracles know no kinds of names
        identity=CertificateIdentity(OIDC_ISSUER, uri=EMAIL),
    ),
    Case("C04", "certid", leaf(uris("https://example.com/first", SUBJECT_URI)), "C P!"),
    Case("C05", "", leaf([other_name("somebody")]), "C P!", identity=_OTHER),
    Case("C05 another", "certid", leaf([other_name("nobody")]), identity=_OTHER),
    Case("C06", "certid", made(), "C P", identity=IDENTITY._replace(oidc_issuer="https://other.example.com")),
    Case("C07", "", leaf(issuer_v1=None, issuer_v2=_V2_ISSUER), "C P!"),
    Case("C08", "", leaf(issuer_v1=OIDC_ISSUER.encode(), issuer_v2=None), "C P"),
    Case("C09", "certid", leaf(issuer_v1=b"https://other.example.com", issuer_v2=_V2_ISSUER), "C! P"),
    Case("C10", "certid", leaf(issuer_v2=der_string("https://other.example.com")), "C P!"),
    Case("C11", "certid", leaf(issuer_v1=None), "C P"),
    Case("C12", "untrusted", leaf(purposes=[ExtendedKeyUsageOID.SERVER_AUTH]), "C P"),
    Case("C13", "untrusted", leaf(purposes=[]), "C! P"),
    Case("C13 any purpose", "untrusted", leaf(purposes=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])),
    Case("C14", "untrusted", stamped(time=SIGNED_AT - 121), "C P"),
    Case("C15", "untrusted", stamped(time=SIGNED_AT + 481), "C P"),
    Case("C16", "rekor", lambda w: World().bundle(), "C P"),
    Case("C17", "untrusted", with_leaf(lambda w: w.leaf(issuer=_same_name(w))), "C P"),
    Case("C18", "", leaf(key=kept("p384")), "C P!"),
    Case("C18 P-521", "", leaf(key=kept("p521"))),
    Case("C19", "rekor", with_leaf(lambda w: w.leaf(key=kept("p384")), hash_name="sha256"), "C P"),
    Case("C19 not in the log", "crypto", with_leaf(lambda w: w.leaf(key=kept("p384")), hash_name="sha256", log=V1)),
    Case(
        "C19 RSA",
        "crypto",
        with_leaf(lambda w: w.leaf(key=rsa_key(2048)), hash_name="sha512", log=V1),
        words="the signature is not by the expected key$",
    ),
    Case(
        "C20 another message",
        "crypto",
        with_leaf(lambda w: w.leaf(key=kept("ed25519")), log=V1, signed_bytes=lambda message: b"other"),
        words="Ed25519ph",
    ),
    Case("C20", "", with_leaf(lambda w: w.leaf(key=kept("ed25519")), log=V1), "C P!"),
    Case("C21", "", with_leaf(lambda w: w.leaf(key=rsa_key(2048))), "C P!"),
    Case("C22", "untrusted", with_leaf(lambda w: w.leaf(key=rsa_key(1024))), "C P"),
    Case("C22 exponent", "untrusted", with_leaf(lambda w: w.leaf(key=rsa_key(2048, 3))), words="exponent 3"),
    Case("C23", "untrusted", leaf(more=[(raw_extension("1.2.3.4", b"\5\0"), True)]), "C P"),
    Case(
        "C20 hash without a name",
        "rekor",
        with_leaf(
            lambda w: w.leaf(key=kept("ed25519")), log=V1, kind="hashedrekord", body=put("spec.data.hash.algorithm", "")
        ),
        words="about a hash '', expected sha256",
    ),
    Case("C24", "rekor", leaf(key=kept("ed25519")), "C P"),
    Case("C25", "untrusted", leaf(ca=True), "C! P"),
    Case("C25 key usage", "untrusted", leaf(signs=False)),
    Case("C26", "certid", leaf([]), "C P"),
    Case("C27", "certid", made(), "C P", identity=IDENTITY._replace(uri=SUBJECT_URI.upper())),
    Case("C28", "certid", made(), "C P", identity=IDENTITY._replace(uri=f"{SUBJECT_URI}/")),
    Case("C29", "certid", made(), "C P", identity=IDENTITY._replace(oidc_issuer=f"{OIDC_ISSUER}/")),
    Case("C30", "", with_leaf(lambda w: w.leaf(issuer=w.root)), "C P"),
    Case("C31", "", leaf(build_signer=der_string(_BUILDER)), identity=IDENTITY._replace(build_signer_uri=_BUILDER)),
    Case(
        "C31 alone",
        "",
        leaf(build_signer=der_string(_BUILDER)),
        identity=CertificateIdentity(OIDC_ISSUER, build_signer_uri=_BUILDER),
    ),
    Case(
        "C32",
        "certid",
        leaf(build_signer=der_string("https://example.com")),
        identity=IDENTITY._replace(build_signer_uri=_BUILDER),
    ),
    Case("C33", "certid", made(), identity=IDENTITY._replace(build_signer_uri=_BUILDER)),
    Case("C34", "certid", leaf(build_signer=_BUILDER.encode()), identity=IDENTITY._replace(build_signer_uri=_BUILDER)),
    Case(
        "C35",
        "certid",
        leaf(build_signer=der_string("https://example.com")),
        identity=CertificateIdentity(OIDC_ISSUER, uri=SUBJECT_URI, build_signer_uri=_BUILDER),
    ),
    Case("C36 nobody is asked for", "certid", made(), identity=CertificateIdentity(OIDC_ISSUER)),
    Case("C37 garbage", "untrusted", changed(_LEAF, b64(b"garbage")), words="a certificate of the bundle"),
    Case("C38 garbage in the chain", "bundle", _garbage_in_chain, attached=False),
    Case("S01", "untrusted", leaf(sct=None), "C P"),
    Case("S02", "untrusted", leaf(sct="other log"), "C P"),
    Case("S03", "untrusted", leaf(sct="false"), "C P"),
    Case("S04", "untrusted", leaf(sct="other issuer"), "C P"),
    Case("S06 said to be of SHA-1", "untrusted", leaf(sct="sha1"), words="expected sha256"),
    Case("S06 said to be of SHA-512", "untrusted", leaf(sct="sha512"), words="expected sha256"),
    Case(
        "S07 by a log that is listed under another id",
        "untrusted",
        made(),
        root=put("ctlogs.0.logId.keyId", b64(bytes(32))),
        words="none known",
    ),
    Case("S05", "", leaf(sct_extensions=b"\0\1"), "C P"),
    Case("P07", "keycfg", made(), root=None, words="sigstore-trusted-root in registries.d, or trustedRootPath"),
)


def _stranger(world: World) -> Made:
    stranger = StampAuthority("stranger")
    bundle = world.bundle()
    stamp = b64(stranger.stamp(bundle.signature))
    put(f"{STAMPS}.rfc3161Timestamps.0.signedTimestamp", stamp)(bundle.document)
    return bundle


@functools.cache
def _old_root() -> Issued:
    return issue("old root", begin=SIGNED_AT - 86400, end=SIGNED_AT - 1, extensions=authority())


@functools.cache
def _under_old_root() -> Issued:
    return intermediate(_old_root(), "under old root")


def _key_usage(*flags: bool) -> x509.KeyUsage:
    """digitalSignature, nonRepudiation and keyEncipherment; nothing else."""
    return x509.KeyUsage(*flags, *[False] * 6)


_PURPOSE = usage()[1]
_KEY_ID = b"\x80" * 20


@functools.cache
def stamper(kind: str) -> StampAuthority:
    """A timestamp authority with one thing odd."""
    code_signing = ExtendedKeyUsageOID.CODE_SIGNING
    options: dict[str, dict[str, Any]] = {
        "second": {},
        "key id": {"extensions": [*usage(), (x509.SubjectKeyIdentifier(_KEY_ID), False)]},
        "not critical": {"extensions": usage(critical=False)},
        "code signing": {"extensions": usage(code_signing)},
        "both": {"extensions": usage(made_stamps.TIME_STAMPING, code_signing)},
        "later": {"begin": SIGNED_AT + 10},
        "authority": {"extensions": [*usage(), (x509.BasicConstraints(True, None), True)]},
        "no usage": {"extensions": [(_key_usage(False, False, True), True), _PURPOSE]},
        "agreements": {"extensions": [(_key_usage(False, True, False), True), _PURPOSE]},
        "any usage": {"extensions": [_PURPOSE]},
        "odd name": {"extensions": [*usage(), (x509.SubjectAlternativeName([other_name("x")]), True)]},
        "under old root": {"anchor": _under_old_root()},
    }
    keys: dict[str, Callable[[], Any]] = {
        "rsa": lambda: rsa_key(2048),
        "rsa-1024": lambda: rsa_key(1024),
        "p224": lambda: kept("p224"),
    }
    return StampAuthority(kind, **(options[kind] if kind in options else {"key": keys[kind]()}))


def by_stamper(kind: str, **options: Any) -> Make:
    """A bundle whose only stamp is by that authority."""

    def make(world: World) -> Made:
        bundle = world.bundle()
        stamp = stamper(kind).stamp(bundle.signature, **options)
        put(f"{STAMPS}.rfc3161Timestamps.0.signedTimestamp", b64(stamp))(bundle.document)
        return bundle

    return make


def stamper_listed(kind: str, *, instead: bool = True) -> Change:
    """A trusted root that lists that authority, or that as well."""

    def change(document: Any) -> None:
        made_so = stamper(kind)
        entry = authority_entry(kind.replace(" ", "-"), made_so.leaf, made_so.anchor)
        document["timestampAuthorities"] = [*([] if instead else document["timestampAuthorities"]), entry]

    return change


def nested(depth: int) -> bytes:
    """SEQUENCEs inside each other."""
    return functools.reduce(lambda inner, _: sequence(inner), range(depth), b"")


STAMPED = (
    Case("A01", "", stamped(), "C P"),
    Case("A02", "", stamped(embed=()), "C P"),
    Case("A03", "", stamped(hash_name="sha384", imprint="sha384"), "C P"),
    Case("A03b", "time", stamped(hash_name="sha384", algorithm=made_stamps.ECDSA_WITH["sha256"]), "C P!"),
    Case("A04", "", stamped(imprint="sha512"), "C P"),
    Case("A05", "time", made(stamped=lambda signature: b"other"), "C P", words="about another signature"),
    Case("A05 smaller", "time", stamped(imprinted=bytes(32)), words="about another signature"),
    Case("A05 larger", "time", stamped(imprinted=b"\xff" * 32), words="about another signature"),
    Case("A06", "time", stamped(imprint="sha1"), "C P"),
    Case("A07", "time", stamped(digest=bytes(32)), "C P"),
    Case("A07 larger", "time", stamped(digest=b"\xff" * 32)),
    Case("A08 larger", "time", stamped(content_type="1.2.840.113549.1.9.16.1.5")),
    Case("A08 of the token", "time", stamped(types=("1.2.840.113549.1.7.1", made_stamps.TST_INFO)), words="of type"),
    Case("A08 of the token, larger", "time", stamped(types=("1.2.840.113549.1.7.3", made_stamps.TST_INFO))),
    Case("A08 of the content", "time", stamped(types=(made_stamps.SIGNED_DATA, "1.2.840.113549.1.7.1"))),
    Case("A08 of the content, larger", "time", stamped(types=(made_stamps.SIGNED_DATA, "1.2.840.113549.1.9.16.1.5"))),
    Case("A08 no content", "time", stamped(contents=0), words="0 elements, expected one"),
    Case("A08 two contents", "time", stamped(contents=2), words="2 elements, expected one"),
    Case("A08", "time", stamped(content_type=made_stamps.SIGNED_DATA), "C! P!"),
    Case("A09", "time", stamped(content_type=None), "C! P!"),
    Case("A10", "time", stamped(bare=True), "C! P!", words="no signed attributes"),
    Case("A11", "time", stamped(signed_tag=0xA0), "C P"),
    Case("A12", "time", lambda w: w.bundle(stamps=[{"ess_of": w.root}]), "C! P!"),
    Case("A13", "", stamped(ess="v1"), "C P"),
    Case("A13 of another", "time", lambda w: w.bundle(stamps=[{"ess": "v1", "ess_of": w.root}])),
    Case("A14", "time", stamped(ess=None), "C! P!"),
    Case("A14 names none", "time", stamped(ess="empty"), words="is empty"),
    Case("A15", "time", stamped(status=2), "C P"),
    Case("A16", "time", stamped(status=1), "C P"),
    Case("A17", "time", stamped(signers=2), "C P"),
    Case("A18", "time", stamped(trailing=b"\0"), "C P"),
    Case("A19", "", stamped(after_time=[sequence(integer(1))]), "C P"),
    Case("A20", "", stamped(after_time=[integer(2**60)]), "C P"),
    Case("A21", "", stamped(time=made_stamps.moment(SIGNED_AT, "%Y%m%d%H%M%S.5Z")), "C P"),
    Case("A21 zero at the end", "time", stamped(time=made_stamps.moment(SIGNED_AT, "%Y%m%d%H%M%S.50Z"))),
    Case("A22", "time", stamped(time=made_stamps.moment(SIGNED_AT, "%Y%m%d%H%M%S")), "C P"),
    Case("A23", "time", stamped(time=der(0x17, b"231114221320Z")), "C! P"),
    Case("A24", "time", stamped(time=made_stamps.moment(SIGNED_AT, "%Y%m%d%H%M%S+0100")), "C P"),
    Case("A25", "time", by_stamper("not critical"), "C P", root=stamper_listed("not critical"), words="critically so"),
    Case("A26", "time", by_stamper("code signing"), "C P", root=stamper_listed("code signing"), words="alone"),
    Case("A27", "time", by_stamper("both"), "C P", root=stamper_listed("both"), words="alone"),
    Case("A28", "time", by_stamper("later"), "C P", root=stamper_listed("later")),
    Case(
        "A29 an authority stamps itself",
        "time",
        by_stamper("authority"),
        root=stamper_listed("authority"),
        words="expected a certificate for time stamping",
    ),
    Case("A30", "time", stamped(key=kept("p256")), "C P"),
    Case("A31", "time", stamped(number=b"\2\x81\1\7"), words="shortest form"),
    Case("A32", "time", stamped(number=b"\2\x80\7\0\0"), words="not definite"),
    Case("A33", "time", stamped(number=b"\x1f\x81\1\1\7"), words="high tag"),
    Case("A34", "time", stamped(number=b"\2\2\0\1"), words="integer"),
    Case("A35", "time", stamped(policy=b"\6\3\x80\1\2"), words="object identifier"),
    Case("A36", "time", stamped(number=b"\2\x7f\7"), words="past its parent"),
    Case("A37", "time", stamped(after_time=[nested(16)]), words="deeper than 16"),
    Case(
        "A38",
        "time",
        stamped(after_time=[der(0xA1, sequence(oid("1.2.3"), der(0x01, b"\xff"), der(0x04)))]),
        words="critical extension",
    ),
    Case("A38 not critical", "", stamped(after_time=[der(0xA1, sequence(oid("1.2.3"), der(0x04)))])),
    Case("A39", "time", stamped(serial=4711)),
    Case("A39 by key", "time", by_stamper("key id", key_id=_KEY_ID), root=stamper_listed("key id")),
    Case("A39 by none", "time", stamped(key_id=b"")),
    Case("A40 without value", "time", stamped(more=[sequence(oid("1.2.3"), der(0x31))]), words="without one value"),
    Case("A40 with two values", "time", stamped(more=[sequence(oid("1.2.3"), der(0x31, der(0x05), der(0x05)))])),
    Case("A40 of another kind", "", stamped(more=[sequence(oid("1.2.3"), der(0x31, der(0x05)))])),
    Case("A40", "time", stamped(twice=made_stamps.CONTENT_TYPE), words="more than once"),
    Case("A41 version", "time", stamped(version=2)),
    Case("A41 version 0", "time", stamped(version=0)),
    Case("A15 negative", "time", stamped(status=-1)),
    Case("A17 none", "time", stamped(signers=0), words="0 signers"),
    Case("A12 a smaller digest", "time", stamped(ess_digest=bytes(32)), words="another certificate"),
    Case("A12 a larger digest", "time", stamped(ess_digest=b"\xff" * 32), words="another certificate"),
    Case(
        "A48 attributes that nobody signed",
        "",
        stamped(unsigned=der(0xA1, sequence(oid("1.2.3"), der(0x31, der(0x05))))),
    ),
    Case(
        "A48 revocations",
        "",
        lambda w: w.bundle(stamps=[{"lists": der(0xA1, made_stamps.revocations(w.stamps.anchor))}]),
    ),
    Case("A20 of 33 bytes", "time", stamped(after_time=[integer(2**256)]), words="an integer of 33 bytes"),
    Case(
        "A19 and all that may follow",
        "",
        stamped(after_time=[sequence(integer(1)), der(0x01, b"\xff"), integer(5), der(0xA0, der(0x82, b"tsa.lab"))]),
    ),
    Case("A49 an element behind the imprint", "time", stamped(behind_imprint=der(0x05)), words="unexpected element"),
    Case(
        "A49 an element in an attribute",
        "time",
        stamped(more=[sequence(oid("1.2.3"), der(0x31, der(0x05)), der(0x05))]),
        words="unexpected element",
    ),
    Case("A49 an element behind the last of what is stamped", "time", stamped(after_time=[der(0x05)])),
    Case("A44 ten certificates", "", lambda w: w.bundle(stamps=[{"embed": [w.stamps.leaf] * 10}])),
    Case("A42 RSA", "", by_stamper("rsa"), root=stamper_listed("rsa")),
    Case(
        "A42 RSA by a name with hash",
        "",
        by_stamper("rsa", algorithm="1.2.840.113549.1.1.11"),
        root=stamper_listed("rsa"),
    ),
    Case(
        "A42 RSA of another hash",
        "time",
        by_stamper("rsa", algorithm="1.2.840.113549.1.1.12"),
        root=stamper_listed("rsa"),
        words="signature algorithm 1.2.840.113549.1.1.12 with sha256",
    ),
    Case(
        "A42 RSA under the name of ECDSA",
        "time",
        by_stamper("rsa", algorithm=made_stamps.ECDSA_WITH["sha256"]),
        root=stamper_listed("rsa"),
        words="kind rsa",
    ),
    Case("A42 ECDSA under the name of RSA", "time", stamped(algorithm="1.2.840.113549.1.1.1"), words="kind ecdsa"),
    Case("A43 critical names that nobody reads", "time", by_stamper("odd name"), root=stamper_listed("odd name")),
    Case(
        "A43 not for signatures",
        "time",
        by_stamper("no usage"),
        root=stamper_listed("no usage"),
        words="not for signatures",
    ),
    Case("A43 for agreements", "", by_stamper("agreements"), root=stamper_listed("agreements")),
    Case("A43 usage not restricted", "", by_stamper("any usage"), root=stamper_listed("any usage")),
    Case(
        "A47 another certificate of the authority than the listed one",
        "time",
        lambda w: w.bundle(stamps=[{"signer": w.stamps.certificate()}]),
    ),
    Case("A44 eleven certificates", "time", lambda w: w.bundle(stamps=[{"embed": [w.stamps.leaf] * 11}])),
    Case("A45 of an unknown authority", "time", _stranger, words="no time stamp by an authority"),
    Case("A46 RSA-1024", "time", by_stamper("rsa-1024"), root=stamper_listed("rsa-1024"), words="1024 bits"),
    Case("A46 P-224", "time", by_stamper("p224"), root=stamper_listed("p224"), words="secp224r1"),
)


_TSA, _CA = "timestampAuthorities.0", "certificateAuthorities.0"
_V1_KEY, _V2_KEY = "tlogs.0.publicKey", "tlogs.1.publicKey"
_ML_DSA = sequence(sequence(oid("2.16.840.1.101.3.4.3.18")), der(0x03, bytes(1953)))


def window(path: str, start: float = SIGNED_AT - 86400, end: float | None = None) -> Change:
    """Another window."""
    return put(f"{path}.validFor", valid(start, end))


def _future_log(document: Any) -> None:
    key = {"rawBytes": b64(_ML_DSA), "keyDetails": "ML_DSA_65", "validFor": valid()}
    document["tlogs"].append({**document["tlogs"][1], "publicKey": key, "logId": {"keyId": b64(bytes(32))}})


def _short_id_of(size: int) -> Change:
    """The form of a newer root: a short id beside the whole one."""

    def change(log: Any) -> None:
        log["checkpointKeyId"] = {"keyId": b64(base64.b64decode(log["logId"]["keyId"])[:size])}

    return change


_short_id = _short_id_of(4)


def _only_short_id(log: Any) -> None:
    _short_id(log)
    log["logId"] = {"keyId": b64(bytes(32))}


def _twice(path: str, start: float, end: float, number: int = 0) -> Change:
    """The same entry before it, with a window that is over."""

    def change(document: Any) -> None:
        entry = document[path][number]
        over = (
            {**entry, "validFor": valid(start, end)}
            if "validFor" in entry
            else {**entry, "publicKey": {**entry["publicKey"], "validFor": valid(start, end)}}
        )
        document[path].insert(0, over)

    return change


def _anchor(authority: str, *, keep: slice) -> Change:
    return put(f"{authority}.certChain.certificates", lambda listed: listed[keep])


@functools.cache
def _lowest(world: World) -> Issued:
    """A second intermediate."""
    return intermediate(world.intermediate, "lowest")


def _three(world: World) -> Change:
    chain = authority_entry("fulcio", _lowest(world), world.intermediate, world.root)
    return put("certificateAuthorities.0", chain)


def _decoy(document: Any) -> None:
    """An authority of the same names with other keys stands first: the issuer is who signed, not who is called so."""
    other = World()
    document["certificateAuthorities"].insert(0, authority_entry("fulcio", other.intermediate, other.root))


def _false_stamper(world: World) -> Issued:
    """Names and number of the authority's certificate, signed by somebody else."""
    real = world.stamps
    number = real.leaf.certificate.serial_number
    return issue("tsa lab", Issued(real.anchor.certificate, kept("p256")), extensions=usage(), serial=number)


def _stamps_under_old_root(document: Any) -> None:
    stamps = stamper("under old root")
    document["timestampAuthorities"] = [authority_entry("old", stamps.leaf, _under_old_root(), _old_root())]


_LONG_AGO = (SIGNED_AT - 86400 * 300, SIGNED_AT - 86400 * 200)

ROOTS = (
    Case("R01", "", made(), "C P!", root=window(_TSA, end=SIGNED_AT)),
    Case(
        "R02", "time", made(), "C P", root=window(_TSA, end=SIGNED_AT - 1), words="the timestamp authority was trusted"
    ),
    Case("R03", "", made(), "C P", root=window(_TSA, SIGNED_AT)),
    Case("R04", "time", made(), "C P", root=window(_TSA, SIGNED_AT + 1)),
    Case(
        "R05",
        "untrusted",
        made(),
        "C P!",
        root=window(_CA, end=SIGNED_AT - 1),
        words="from 2023-11-13 to 2023-11-14 according to trusted_root.json, the signature is of 2023-11-14",
    ),
    Case("R06", "", made(), "C P", root=window(_CA, end=SIGNED_AT)),
    Case("R07", "rekor", made(log=V1), "C P!", root=window(_V1_KEY, end=SIGNED_AT - 1)),
    Case(
        "R07 later than there are dates",
        "rekor",
        changed(f"{ENTRY}.integratedTime", str(2**63 - 1), log=V1),
        root=window(_V1_KEY, end=SIGNED_AT),
        words="the signature is of 9999-12-31",
    ),
    Case("R08", "", made(log=V1), "C P", root=window(_V1_KEY, end=SIGNED_AT)),
    Case("R09", "rekor", made(), "C! P!", root=window(_V2_KEY, end=SIGNED_AT - 1)),
    Case(
        "R09 beside another log whose window holds",
        "rekor",
        made(),
        root_of=lambda w: several(window(_V2_KEY, end=SIGNED_AT - 1), _neighbour_listed(False)(w)),
    ),
    Case(
        "R09 beside another log of a larger key",
        "rekor",
        made(),
        root_of=lambda w: several(window(_V2_KEY, end=SIGNED_AT - 1), _neighbour_listed(True)(w)),
    ),
    Case("R09 with the time of another log", "", made(), root=window(_V2_KEY, end=SIGNED_AT)),
    Case("R10", "keycfg", made(), "C P", root=put(f"{_V2_KEY}.validFor.start"), words="expected a member 'start'"),
    Case("R11", "keycfg", made(), "C P!", root=put(f"{_V2_KEY}.validFor")),
    Case("R12", "rekor", made(), "C P", root=put("tlogs.1"), words="put a newer trusted_root.json there"),
    Case("R13", "time", made(), "C P", root=put("timestampAuthorities"), words="put a newer trusted_root.json there"),
    Case("R14", "untrusted", made(), "C P", root=put("ctlogs")),
    Case("R15", "untrusted", made(), "C P!", root=window("ctlogs.0.publicKey", end=SIGNED_AT - 1)),
    Case("R15 ends with it", "", made(), root=window("ctlogs.0.publicKey", end=SIGNED_AT)),
    Case("R16", "", made(), "C! P", root=_future_log),
    Case("R17", "", made(), "C! P!", root=put("mediaType", "application/vnd.dev.sigstore.trustedroot.v0.2+json")),
    Case("R17 another", "keycfg", made(), root=put("mediaType", "application/vnd.dev.sigstore.trustedroot.v0.3+json")),
    Case("R18", "", made(), "C P", root=log_of(1, _short_id)),
    Case(
        "R18 another id in the entry",
        "rekor",
        changed(f"{ENTRY}.logId.keyId", b64(bytes(32))),
        root=log_of(1, _short_id),
        words="does not list",
    ),
    Case(
        "R18 a larger id in the entry",
        "rekor",
        changed(f"{ENTRY}.logId.keyId", b64(b"\xff" * 32)),
        root=log_of(1, _short_id),
        words="does not list",
    ),
    Case("R18 alone", "", made(), root=log_of(1, _only_short_id)),
    Case("R18 all of it", "", made(), root=log_of(1, _short_id_of(32))),
    Case("R18 three bytes", "keycfg", made(), root=lambda d: d["tlogs"][1].update(checkpointKeyId={"keyId": "AAAA"})),
    Case("R19", "rekor", made(), "C P!", root=put("tlogs.1.logId.keyId", b64(bytes(32)))),
    Case("R20", "", made(), "C! P", root=put("tlogs.1.baseUrl", "log2.lab")),
    Case("R20 with a path", "", made(), root=put("tlogs.1.baseUrl", "https://log2.lab/api/")),
    Case("R20 with a port", "", made(), root=put("tlogs.1.baseUrl", "https://log2.lab:443")),
    Case("R20 none", "rekor", made(), root=put("tlogs.1.baseUrl")),
    Case("R20 none, version 1", "rekor", made(log=V1), root=put("tlogs.0.baseUrl"), words="does not list"),
    Case("R21", "rekor", made(), "C P!", root=put("tlogs.1.baseUrl", "https://other.lab")),
    Case("R21 longer", "rekor", made(), root=put("tlogs.1.baseUrl", "https://log2.lab.example.com")),
    Case("R22", "keycfg", made(), "C P", root=lambda d: d.update(extra=1)),
    Case("R22 in an authority", "keycfg", made(), root=lambda d: d["certificateAuthorities"][0].update(extra=1)),
    Case(
        "R23",
        "untrusted",
        made(),
        "C P",
        root=_anchor(_CA, keep=slice(1, 2)),
        words="certificate by 'CN=fulcio intermediate lab', which no authority in trusted_root.json vouches for",
    ),
    Case("R24", "", made(), "C P", root=_anchor(_CA, keep=slice(0, 1))),
    Case("R25", "", made(), "C P!", root=_anchor(_TSA, keep=slice(1, 2))),
    Case("R25 nor embedded", "time", stamped(embed=()), root=_anchor(_TSA, keep=slice(1, 2))),
    Case(
        "R25 behind another",
        "",
        lambda w: w.bundle(stamps=[{"embed": [w.stamps.anchor, w.stamps.leaf]}]),
        root=_anchor(_TSA, keep=slice(1, 2)),
    ),
    Case(
        "R25 behind one of its name",
        "time",
        lambda w: w.bundle(stamps=[{"embed": [_false_stamper(w), w.stamps.leaf]}]),
        root=_anchor(_TSA, keep=slice(1, 2)),
    ),
    Case("R26", "rekor", made(), "C P!", root=put("tlogs.1.hashAlgorithm", "SHA2_512")),
    Case("R26 weak", "rekor", made(), root=put("tlogs.1.hashAlgorithm", "SHA1")),
    Case("R27 of a larger curve", "rekor", made(log=V1), root=put(f"{_V1_KEY}.keyDetails", "PKIX_ECDSA_P384_SHA_384")),
    Case("R27 of another kind", "rekor", made(log=V1), root=put(f"{_V1_KEY}.keyDetails", "PKIX_ED25519")),
    Case(
        "R27 key details that do not fit", "rekor", made(), root=put(f"{_V2_KEY}.keyDetails", "PKIX_ECDSA_P256_SHA_256")
    ),
    Case("R28 no certificate", "keycfg", made(), root=put(f"{_CA}.certChain.certificates", [])),
    Case(
        "R29 a certificate that does not parse",
        "untrusted",
        made(),
        root=put(f"{_CA}.certChain.certificates.0.rawBytes", b64(b"garbage")),
    ),
    Case("R30 a moment that is none", "keycfg", made(), root=put(f"{_CA}.validFor.start", "2023-02-30T00:00:00Z")),
    Case("R30 not in UTC", "keycfg", made(), root=put(f"{_CA}.validFor.start", "2023-02-03T00:00:00+00:00")),
    Case("R31 129 logs", "keycfg", made(), root=put("ctlogs", lambda listed: listed * 129)),
    Case(
        "R33 the anchor was over",
        "untrusted",
        with_leaf(lambda w: w.leaf(issuer=_under_old_root())),
        root=lambda d: d["certificateAuthorities"].__setitem__(
            0, authority_entry("old", _under_old_root(), _old_root())
        ),
        words="is valid until",
    ),
    Case(
        "R35 the window of another authority of stamps",
        "time",
        made(),
        root=several(window(_TSA, end=SIGNED_AT - 1), stamper_listed("second", instead=False)),
    ),
    Case("R36 another authority of the same name first", "", made(), root=_decoy),
    Case("R34 three certificates", "", with_leaf(lambda w: w.leaf(issuer=_lowest(w))), root_of=_three),
    Case("R33 the anchor of stamps was over", "time", by_stamper("under old root"), root=_stamps_under_old_root),
    Case("R32 listed twice, over first", "", made(), root=_twice("certificateAuthorities", *_LONG_AGO)),
    Case("R32 log, and both windows hold", "", made(log=V1), root=_twice("tlogs", SIGNED_AT - 1, SIGNED_AT + 1)),
    Case("R32 stamps", "", made(), root=_twice("timestampAuthorities", *_LONG_AGO)),
    Case("R32 log", "", made(log=V1), root=_twice("tlogs", *_LONG_AGO)),
    Case("R32 log of version 2", "", made(), root=_twice("tlogs", *_LONG_AGO, 1)),
    Case(
        "R32 log of version 2, to the second",
        "",
        made(),
        root=several(window(_V2_KEY, SIGNED_AT, SIGNED_AT), _twice("tlogs", *_LONG_AGO, 1)),
    ),
    Case(
        "R32 log of version 2, over both times",
        "rekor",
        made(),
        root=several(window(_V2_KEY, end=SIGNED_AT - 1), _twice("tlogs", *_LONG_AGO, 1)),
    ),
    Case(
        "R37 another certificate log first",
        "",
        made(),
        root=lambda d: d["ctlogs"].insert(0, OwnLog(V1, "ct2.lab", kept("p256")).listed()),
    ),
    Case("R32 certificate log", "", made(), root=_twice("ctlogs", *_LONG_AGO)),
)


def _operators(*names: str) -> Change:
    return several(
        *(put(f"tlogs.{number}", lambda log, name=name: {**log, "operator": name}) for number, name in enumerate(names))
    )


def _two_logs(world: World) -> Made:
    """One signature in both logs."""
    bundle = world.bundle(V2)
    same = world.bundle(V1, signature=lambda _: bundle.signature)
    entries = "verificationMaterial.tlogEntries"
    put(entries, lambda listed: [*listed, *same.document["verificationMaterial"]["tlogEntries"]])(bundle.document)
    return bundle


def _two_authorities(world: World) -> Made:
    """Two stamps, the second by another authority."""
    bundle = world.bundle(V2)
    stamp = {"signedTimestamp": b64(stamper("second").stamp(bundle.signature))}
    put(f"{STAMPS}.rfc3161Timestamps", lambda listed: [*listed, stamp])(bundle.document)
    return bundle


POLICIES = (
    Case("P10b", "", made(change=put("verificationMaterial.tlogEntries", [])), log_entries=0, timestamps=1),
    Case("P10b by a key", "", by_key(stamps=[{}]), keys=the_key, log_entries=0, timestamps=1),
    Case("P10b by a key without stamp", "time", by_key(), keys=the_key, log_entries=0, timestamps=1),
    Case(
        "P10c nobody waived the log",
        "rekor",
        made(change=put("verificationMaterial.tlogEntries", [])),
        log_entries=0,
        words="no log entry",
    ),
    Case(
        "P10b nothing gives a time",
        "rekor",
        made(stamps=[], change=put("verificationMaterial.tlogEntries", [])),
        log_entries=0,
    ),
    Case("P10b a false entry all the same", "rekor", head(change=flip), log_entries=0, timestamps=1),
    Case("P11", "time", made(stamps=[{}, {"time": SIGNED_AT + 1}]), timestamps=2),
    Case("P11b", "", _two_authorities, timestamps=2, root=stamper_listed("second", instead=False)),
    Case("P11 one of them unknown", "time", _two_authorities, timestamps=2),
    Case("P12", "rekor", _two_logs, log_entries=2, root=_operators("one", "one")),
    Case("P12b", "", _two_logs, log_entries=2, root=_operators("one", "other")),
    Case("P12b without operators", "", _two_logs, log_entries=2),
)

CASES = (*FORM, *STATEMENT, *KEYS, *LOG_V1, *LOG_V2, *CERTIFICATES, *STAMPED, *ROOTS, *POLICIES)

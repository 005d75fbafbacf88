# SPDX-License-Identifier: Apache-2.0
"""Sigstore signatures of every shape, each with the trust members to judge it by; for two judges to differ on."""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from cip.model.descriptor import digest_of
from cip.model.signature import SigstoreSignature

from .signatures import OTHER_DIGEST
from .sigstore import (
    BUNDLE,
    CERTIFICATE,
    CHAIN,
    EMAIL,
    ISSUER_V1,
    NEVER_CRITICAL,
    OIDC_ISSUER,
    POLICY_RULES,
    SIGNATURE,
    SIGNED_AT,
    Issued,
    Log,
    authority,
    b64,
    certified,
    der_string,
    dsa_key,
    fulcio_leaf,
    intermediate,
    issue,
    names,
    new_key,
    pem,
    public_pem,
    raw_extension,
    root,
    rsa_key,
    sign,
    signature_of,
    sigstore_payload,
    spki,
    usages,
)
from .simpleblobs import MATCH, NAME, Requirement, flip
from .stamps import der

FLIPS = 10  # random single bits of each part of one good signature
_DAY = 86400


def sigstore_signed(members: Requirement, matcher: Requirement | None = MATCH) -> Requirement:
    """A `sigstoreSigned` requirement."""
    identity = {} if matcher is None else {"signedIdentity": matcher}
    return {"type": "sigstoreSigned", **members, **identity}


class SigstoreCases:
    """Sigstore signatures, each with the trust members that it is to be judged by: `(name, members, signature)`."""

    def __init__(self, manifest: bytes, now: int, seed: int) -> None:
        self._digest = str(digest_of(manifest))
        self._now = now
        self._chance = random.Random(seed)
        self.key, self.other = new_key(), new_key()
        self.log = Log()
        self.root = root()
        self.intermediate = intermediate(self.root)
        self.text = self.payload()
        self.made = sign(self.key, self.text)

    def payload(self, reference: str = NAME, digest: str = "", **changes: Any) -> bytes:
        """What is signed, with `changes`."""
        return sigstore_payload(reference, digest or self._digest, **changes)

    def trusting(self, *keys: Any) -> Requirement:
        """Bare keys."""
        return {"keyDatas": [b64(public_pem(key)) for key in keys or (self.key,)]}

    def trusting_log(self, *logs: Any, keys: Sequence[Any] = ()) -> Requirement:
        """Keys and logs."""
        return {
            **self.trusting(*keys),
            "rekorPublicKeyDatas": [b64(public_pem(key)) for key in logs or (self.log.key,)],
        }

    def trusting_fulcio(
        self, *anchors: Issued, email: str = EMAIL, issuer: str = OIDC_ISSUER, content: bytes = b""
    ) -> Requirement:
        """An authority and a log."""
        authorities = content or b"".join(each.pem for each in anchors or (self.root,))
        return {
            "fulcio": {"caData": b64(authorities), "oidcIssuer": issuer, "subjectEmail": email},
            "rekorPublicKeyData": b64(public_pem(self.log.key)),
        }

    def trusting_pki(self, *anchors: Issued, **members: str) -> Requirement:
        """An ordinary authority."""
        authorities = b"".join(each.pem for each in anchors or (self.root,))
        return {"pki": {"caRootsData": b64(authorities), **(members or {"subjectEmail": EMAIL})}}

    def __iter__(self) -> Iterator[tuple[str, Requirement, SigstoreSignature]]:
        for prefix, cases in (
            ("key", self._keys()),
            ("key file", self._key_files()),
            ("payload", self._payloads()),
            ("annotation", self._annotations()),
            ("log", self._logs()),
            ("entry", self._entries()),
            ("body", self._bodies()),
            ("fulcio", self._fulcio()),
            ("path", self._paths()),
            ("pki", self._pki()),
            ("host", self._hosts()),
            ("flip", self._flips()),
        ):
            for name, members, signature in cases:
                yield f"{prefix}: {name}", members, signature

    def signed(self, key: Any, text: bytes | None = None) -> SigstoreSignature:
        """`text`, by default the good payload, signed by `key`."""
        chosen = self.text if text is None else text
        return signature_of(chosen, sign(key, chosen))

    def _keys(self) -> Iterator[tuple[str, Requirement, SigstoreSignature]]:
        text = self.text
        strong, edwards = rsa_key(2048), ed25519.Ed25519PrivateKey.generate()
        p384 = new_key(ec.SECP384R1())
        for name, key in (
            ("P-224", new_key(ec.SECP224R1())),
            ("P-256", self.key),
            ("P-384", p384),
            ("P-521", new_key(ec.SECP521R1())),
            ("RSA", strong),
            ("Ed25519", edwards),
            ("RSA-1024", rsa_key(1024)),
            ("secp256k1", new_key(ec.SECP256K1())),
        ):
            yield name, self.trusting(key), self.signed(key)
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
        for name, key, made in (
            ("P-384 with SHA-384", p384, p384.sign(text, ec.ECDSA(hashes.SHA384()))),
            ("RSA-PSS", strong, strong.sign(text, pss, hashes.SHA256())),
            ("RSA with SHA-512", strong, strong.sign(text, padding.PKCS1v15(), hashes.SHA512())),
            ("Ed25519 over the hash", edwards, edwards.sign(hashlib.sha256(text).digest())),
            ("trailing byte", self.key, self.made + b"\0"),
            ("raw numbers", self.key, raw_numbers(self.made)),
            ("empty", self.key, b""),
        ):
            yield name, self.trusting(key), signature_of(text, made)
        yield "another key", self.trusting(self.other), self.signed(self.key)
        yield "second of two", self.trusting(self.other, self.key), self.signed(self.key)
        yield "garbage beside", {"keyDatas": [b64(public_pem(self.key)), b64(b"x")]}, self.signed(self.key)
        attachment = signature_of(text, self.made, mime_type="application/vnd.dsse.envelope.v1+json")
        yield "other mime type", self.trusting(), attachment

    def _key_files(self) -> Iterator[tuple[str, Requirement, SigstoreSignature]]:
        strong = rsa_key(2048)
        good, der = public_pem(self.key), spki(self.key)
        public = serialization.PublicFormat
        pkcs1 = strong.public_key().public_bytes(serialization.Encoding.DER, public.PKCS1)
        point = self.key.public_key().public_bytes(serialization.Encoding.X962, public.CompressedPoint)
        head = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
        unlocked = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        for name, content, key in (
            ("PKCS#1", pem(pkcs1, "RSA PUBLIC KEY"), strong),
            ("PKCS#1 under the other label", pem(pkcs1, "PUBLIC KEY"), strong),
            ("SPKI under the other label", pem(spki(strong), "RSA PUBLIC KEY"), strong),
            ("text before", b"text\n" + good, self.key),
            ("text behind", good + b"text\n", self.key),
            ("second block", public_pem(self.other) + good, self.key),
            ("first block", good + public_pem(self.other), self.key),
            ("CRLF", good.replace(b"\n", b"\r\n"), self.key),
            ("headers", good.replace(b"KEY-----\n", b"KEY-----\nA: b\n\n", 1), self.key),
            ("certificate", root(key=self.key).pem, self.key),
            ("private", unlocked, self.key),
            ("DER", der, self.key),
            ("trailing byte", pem(der + b"\0", "PUBLIC KEY"), self.key),
            ("compressed point", pem(head + point, "PUBLIC KEY"), self.key),
            ("Ed448", public_pem(ed448.Ed448PrivateKey.generate()), self.key),
            ("DSA", public_pem(dsa_key()), self.key),
            ("label", pem(der, "SOMETHING"), self.key),
            ("garbage", b"x", self.key),
        ):
            yield name, {"keyData": b64(content)}, self.signed(key)

    def _payloads(self) -> Iterator[tuple[str, Requirement, SigstoreSignature]]:
        text = self.text
        optional: tuple[Any, ...] = (
            None,
            {},
            [],
            {"timestamp": 1.0},
            {"timestamp": 1e3},
            {"timestamp": 1.5},
            {"timestamp": "1"},
            {"timestamp": None},
            {"timestamp": True},
            {"timestamp": 2**63},
            {"creator": None},
            {"creator": 5},
            {"x": {"y": [1]}},
            "x",
        )
        for name, changed in (
            ("BOM", b"\xef\xbb\xbf" + text),
            ("trailing", text + b"x"),
            ("extra", b'{"x": 1, ' + text[1:]),
            ("critical twice", text[:-1] + b', "critical": {}}'),
            ("escaped duplicate", text.replace(b'"type":', b'"t\\u0079pe": "x", "type":')),
            ("optional missing", json.dumps({"critical": json.loads(text)["critical"]}).encode()),
            *((f"optional {each!r}", self.payload(optional=each)) for each in optional),
            ("NaN", self.payload(optional={"timestamp": float("nan")})),
            ("other family", text.replace(b"cosign container image", b"atomic container")),
            ("other tag", self.payload("example.com/ns/r:v2")),
            ("other repository", self.payload("example.com/ns/q:v1")),
            ("name only", self.payload("example.com/ns/r")),
            ("other digest", self.payload(digest=OTHER_DIGEST)),
            ("lone surrogate", text.replace(b'"tests"', b'"\\ud800"')),
            ("not UTF-8", text.replace(b"tests", b"\xff")),
        ):
            yield name, self.trusting(), self.signed(self.key, changed)

    def _annotations(self) -> Iterator[tuple[str, Requirement, SigstoreSignature]]:
        made = b64(self.made)
        bits = made.rstrip("=")
        for name, text in (
            ("newline inside", made[:20] + "\n" + made[20:]),
            ("newline behind", made + "\n"),
            ("space", made[:20] + " " + made[20:]),
            ("URL alphabet", made.replace("/", "_").replace("+", "-")),
            ("no padding", bits),
            ("trailing bits", trailing_bits(self.key, self.text)),
        ):
            yield name, self.trusting(), signature_of(self.text, b"", {SIGNATURE: text})
        yield "missing", self.trusting(), signature_of(self.text, b"")._replace(annotations={})
        ignored = {CERTIFICATE: "x", CHAIN: "y", BUNDLE: "z"}
        yield "ignored ones", self.trusting(), signature_of(self.text, self.made, ignored)

    def _with_entry(self, entry: str) -> SigstoreSignature:
        return signature_of(self.text, self.made, {BUNDLE: entry})

    def _logs(self) -> Iterator[tuple[str, Requirement, SigstoreSignature]]:
        key = public_pem(self.key)
        good = self._with_entry(self.log.entry(self.text, self.made, key))
        yield "good", self.trusting_log(), good
        yield "missing", self.trusting_log(), signature_of(self.text, self.made)
        yield "unknown log", self.trusting_log(self.other), good
        yield "second log", self.trusting_log(self.other, self.log.key), good
        yield "several keys", self.trusting_log(keys=(self.other, self.key)), good
        entry = self.log.entry
        for name, text in (
            ("other key", entry(self.text, self.made, public_pem(self.other))),
            ("other signature", entry(self.text, sign(self.key, self.text), key)),
            ("other payload", entry(b"x", self.made, key)),
            ("PEM with text before", entry(self.text, self.made, b"text\n" + key)),
            ("PEM without line end", entry(self.text, self.made, key.rstrip(b"\n"))),
            ("PEM of another label", entry(self.text, self.made, key.replace(b"PUBLIC KEY", b"SOMETHING"))),
            ("PEM and a blank line", entry(self.text, self.made, key + b"\n")),
            ("two PEM blocks", entry(self.text, self.made, key + key)),
            ("no PEM", entry(self.text, self.made, b"x")),
        ):
            yield name, self.trusting_log(), self._with_entry(text)
        both = self.trusting_log(keys=(self.key, self.other))
        yield "entry for the other key", both, self._with_entry(entry(self.text, self.made, public_pem(self.other)))
        p384 = Log(new_key(ec.SECP384R1()))
        yield "P-384 log", self.trusting_log(p384.key), self._with_entry(p384.entry(self.text, self.made, key))
        for kind in (rsa_key(2048), ed25519.Ed25519PrivateKey.generate()):
            log = Log(kind)
            signature = self._with_entry(log.entry(self.text, self.made, key))
            yield type(kind).__name__, self.trusting_log(kind), signature

    def _entries(self) -> Iterator[tuple[str, Requirement, SigstoreSignature]]:
        body = self.log.body(self.text, self.made, public_pem(self.key))
        honest = self.log.bundle(body)
        good = json.dumps(honest)
        lacking = json.loads(good)
        del lacking["Payload"]["logID"]
        reordered = {"Payload": dict(reversed(honest["Payload"].items())), **honest}
        for name, text in (
            ("pretty", json.dumps(honest, indent=2)),
            ("reordered", json.dumps(reordered)),
            ("extra in payload", json.dumps(self.log.bundle(body, x=1))),
            ("extra outside", good[:-1] + ', "x": 1}'),
            ("no log id", json.dumps(lacking)),
            ("duplicate", good.replace('"logIndex": 1', '"logIndex": 1, "logIndex": 1')),
            ("lower case", good.replace('"Payload"', '"payload"')),
            ("text", "x"),
            ("array", "[]"),
            ("null", "null"),
            ("trailing", good + "x"),
            ("BOM", "\ufeff" + good),
        ):
            yield name, self.trusting_log(), self._with_entry(text)
        for changes in (
            {"integratedTime": 0},
            {"integratedTime": -1},
            {"integratedTime": "1"},
            {"integratedTime": None},
            {"logIndex": -1},
            {"logIndex": None},
            {"logIndex": "1"},
            {"logID": None},
            {"logID": ""},
            {"logID": 1},
            {"logID": "é"},
            {"body": None},
            {"body": "*"},
            {"logIndex": True},
            {"integratedTime": 1.5},
        ):
            yield f"{changes}", self.trusting_log(), self._with_entry(json.dumps(self.log.bundle(body, **changes)))
        floats = json.dumps(self.log.bundle(body)).replace('"logIndex": 1', '"logIndex": 1.0')
        yield "index 1.0", self.trusting_log(), self._with_entry(floats)

    def _bodies(self) -> Iterator[tuple[str, Requirement, SigstoreSignature]]:
        def changed(*path: str, value: Any) -> dict[str, Any]:
            body = self.log.body(self.text, self.made, public_pem(self.key))
            node = body
            for step in path[:-1]:
                node = node[step]
            node[path[-1]] = value
            return body

        text = json.dumps(changed("kind", value="hashedrekord")).encode()
        digest = hashlib.sha256(self.text).hexdigest().upper()
        bodies: tuple[tuple[str, dict[str, Any] | bytes], ...] = (
            *((kind, changed("kind", value=kind)) for kind in ("rekord", "intoto", "dsse", "")),
            ("version", changed("apiVersion", value="0.0.2")),
            ("sha512", changed("spec", "data", "hash", "algorithm", value="sha512")),
            ("upper case hash", changed("spec", "data", "hash", "value", value=digest)),
            ("no key", changed("spec", "signature", "publicKey", value={})),
            ("no signature", changed("spec", "signature", "content", value=None)),
            ("no hash", changed("spec", "data", value={})),
            ("spec null", changed("spec", value=None)),
            ("unknown member", changed("unknown", value=[1])),
            ("other case", {"Kind": "hashedrekord", **{k: v for k, v in json.loads(text).items() if k != "kind"}}),
            ("duplicate", text[:-1] + b',"kind":"hashedrekord"}'),
            ("array", b"[]"),
            ("text", b"x"),
        )
        for name, body in bodies:
            entry = self.log.bundle(body)
            yield name, self.trusting_log(), self._with_entry(json.dumps(entry))

    def _certified(self, leaf: Issued, **options: Any) -> SigstoreSignature:
        return certified(leaf, self.log, text=options.pop("text", self.text), **options)

    def changed_leaf(self, chance: random.Random) -> SigstoreSignature:
        """A signature with a certificate of every extension there is, a byte of which is another one."""
        web = x509.UniformResourceIdentifier("https://github.com/o/r/.github/workflows/w.yml@refs/heads/main")
        point = x509.DistributionPoint([web], None, None, None)
        more = [
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self.root.key.public_key()), False),
            (x509.SubjectKeyIdentifier(b"1234"), False),
            (x509.CRLDistributionPoints([point]), False),
            (x509.AuthorityInformationAccess([x509.AccessDescription(AuthorityInformationAccessOID.OCSP, web)]), False),
            (x509.CertificatePolicies([x509.PolicyInformation(ObjectIdentifier("1.2.3.4"), None)]), False),
        ]
        san = names(EMAIL, hosts=["h.example"], addresses=["10.0.0.1"], others=[web])
        leaf = fulcio_leaf(self.root, san=san, more=chance.sample(more, chance.randrange(len(more) + 1)))
        content = bytearray(leaf.certificate.tbs_certificate_bytes)
        content[chance.randrange(len(content))] = chance.choice(
            (*b"\0\x01\x7f\x80\xff*.@ #\x0c\x13\x30", chance.randrange(256))
        )
        signature = self.root.key.sign(bytes(content), ec.ECDSA(hashes.SHA256()))
        algorithm = bytes.fromhex("300a06082a8648ce3d040302")
        changed = pem(der(0x30, bytes(content) + algorithm + der(3, b"\0" + signature)), "CERTIFICATE")
        made = sign(leaf.key, self.text)
        annotations = {BUNDLE: self.log.entry(self.text, made, changed), CERTIFICATE: changed.decode()}
        return signature_of(self.text, made, annotations)

    def _fulcio(self) -> Iterator[tuple[str, Requirement, SigstoreSignature]]:
        good = fulcio_leaf(self.root)
        signature = self._certified(good)
        yield "good", self.trusting_fulcio(), signature
        yield "other email", self.trusting_fulcio(email="other@example.com"), signature
        yield "other issuer", self.trusting_fulcio(issuer=OIDC_ISSUER + "/"), signature
        yield "bare key", {"keyData": b64(public_pem(good.key))}, signature
        for offset in (-11, -10, 600, 601):
            yield f"time {offset}", self.trusting_fulcio(), self._certified(good, time=SIGNED_AT + offset)
        issuer = OIDC_ISSUER.encode()
        v2 = der_string(OIDC_ISSUER)
        for name, first, second in (
            ("v2", None, v2),
            ("both", issuer, v2),
            ("printable", None, der_string(OIDC_ISSUER, 0x13)),
            ("IA5", None, der_string(OIDC_ISSUER, 0x16)),
            ("octets", None, der_string(OIDC_ISSUER, 0x04)),
            ("differ", issuer, der_string("https://x")),
            ("differ too", b"https://x", v2),
            ("none", None, None),
            ("slash", issuer + b"/", None),
            ("wrapped", v2, None),
            ("trailing", None, v2 + b"\0"),
            ("cut", None, v2[:-1]),
        ):
            leaf = fulcio_leaf(self.root, issuer_v1=first, issuer_v2=second)
            yield f"issuer {name}", self.trusting_fulcio(), self._certified(leaf)
        other = x509.OtherName(ObjectIdentifier("1.3.6.1.4.1.57264.1.7"), b"\x0c\x01x")
        uri = x509.UniformResourceIdentifier(f"mailto:{EMAIL}")
        directory = x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, EMAIL)]))
        for name, san in (
            ("case", names("Signer@example.com")),
            ("URI", names(others=[uri])),
            *(
                (f"beside URI {text!r}", names(EMAIL, others=[x509.UniformResourceIdentifier(text)]))
                for text in (
                    "https://github.com/o/r/.github/workflows/w.yml@refs/heads/a%20b",
                    "spiffe://example.com:80/x?y#z",
                    f"mailto:{EMAIL}",
                    "*\x03",
                    "https://a b/",
                    "https://a..b/",
                    "https://a./",
                    "https://a:b/",
                    "https:///x",
                    "https://a/%zz",
                    "https://a/\x7f",
                    ":x",
                    "1:x",
                    "",
                )
            ),
            ("host", names(hosts=["example.com"])),
            ("two", names("other@example.com", EMAIL)),
            ("and another kind", names(EMAIL, others=[other])),
            ("only another kind", names(others=[other])),
            ("directory", names(others=[directory])),
            ("malformed", raw_extension("2.5.29.17", b"x")),
            ("beyond ASCII", raw_extension("2.5.29.17", b"\x30\x04\x81\x02\xc3\xa9")),
            ("network", raw_extension("2.5.29.17", b"\x30\x0a\x87\x08" + bytes(8))),
        ):
            yield f"name {name}", self.trusting_fulcio(), self._certified(fulcio_leaf(self.root, san=san))
        made = sign(good.key, self.text)
        for name, signer in (
            ("another certificate", fulcio_leaf(self.root).pem),
            ("the bare key", public_pem(good.key)),
        ):
            annotations = {BUNDLE: self.log.entry(self.text, made, signer), CERTIFICATE: good.text}
            yield f"entry about {name}", self.trusting_fulcio(), signature_of(self.text, made, annotations)
        for name, text in (("two", good.text * 2), ("blank line", good.text + "\n"), ("empty", ""), ("text", "x")):
            changed = signature._replace(annotations={**signature.annotations, CERTIFICATE: text})
            yield f"certificate {name}", self.trusting_fulcio(), changed
        foreign = sign(new_key(), self.text)
        annotations = {BUNDLE: self.log.entry(self.text, foreign, good.pem), CERTIFICATE: good.text}
        yield "payload by another key", self.trusting_fulcio(), signature_of(self.text, foreign, annotations)
        junk = pem(b"x", "CERTIFICATE") + public_pem(self.key) + b"text\n"
        yield "junk beside the anchor", self.trusting_fulcio(content=junk + self.root.pem), signature
        yield "junk alone", self.trusting_fulcio(content=junk), signature
        for missing in (CERTIFICATE, BUNDLE):
            kept = {name: text for name, text in signature.annotations.items() if name != missing}
            yield f"no {missing}", self.trusting_fulcio(), signature._replace(annotations=kept)

    def _paths(self) -> Iterator[tuple[str, Requirement, SigstoreSignature]]:
        middle = self.intermediate
        leaf = fulcio_leaf(middle)
        for name, chain in (
            ("chain", [middle, self.root]),
            ("only the intermediate", [middle]),
            ("wrong order", [self.root, middle]),
            ("none", []),
        ):
            yield name, self.trusting_fulcio(), self._certified(leaf, chain=chain)
        yield "intermediate as anchor", self.trusting_fulcio(middle), self._certified(leaf)
        signature = self._certified(fulcio_leaf(self.root))
        for name, text in (
            ("white space", " \n"),
            ("text behind", self.root.text + "x"),
            ("garbage", pem(b"x", "CERTIFICATE").decode()),
            ("text alone", "x"),
            ("text before", "x\n" + self.root.text),
        ):
            changed = signature._replace(annotations={**signature.annotations, CHAIN: text})
            yield f"chain of {name}", self.trusting_fulcio(), changed
        for number, value in NEVER_CRITICAL:
            stranger = root("stranger", extensions=[*authority(), (raw_extension(number, value), True)])
            text = stranger.text + self.root.text
            changed = signature._replace(annotations={**signature.annotations, CHAIN: text})
            yield f"chain with a stranger, {number} critical", self.trusting_fulcio(), changed
        unknown = (raw_extension("1.2.3.4", b"x"), True)
        server = (usages(ExtendedKeyUsageOID.SERVER_AUTH), False)
        constraint = x509.NameConstraints([x509.RFC822Name("example.com")], None)
        for name, extensions in (
            ("no CA flag", authority(ca=False)),
            ("no constraints", []),
            ("no keyCertSign", authority(may_sign=False)),
            ("path length 0", authority(0)),
            ("unknown critical", [*authority(), unknown]),
            ("server only", [*authority(), server]),
            ("name constraints", [*authority(), (constraint, True)]),
            *((f"rules about policies {number}", [*authority(), *rules]) for number, rules in enumerate(POLICY_RULES)),
            *(
                (f"{number} marked critical", [*authority(), (raw_extension(number, value), True)])
                for number, value in NEVER_CRITICAL
            ),
        ):
            between = intermediate(self.root, extensions=extensions)
            yield (
                f"intermediate: {name}",
                self.trusting_fulcio(),
                self._certified(fulcio_leaf(between), chain=[between, self.root]),
            )
            anchor = root("other root", extensions=extensions)
            yield f"anchor: {name}", self.trusting_fulcio(anchor), self._certified(fulcio_leaf(anchor))
            below = intermediate(anchor)
            yield (
                f"anchor above: {name}",
                self.trusting_fulcio(anchor),
                self._certified(fulcio_leaf(below), chain=[below, anchor]),
            )
        for name, begin, end in (("late", 1, _DAY), ("gone", -_DAY, -1), ("short", -_DAY, _DAY)):
            between = issue(name, self.root, begin=SIGNED_AT + begin, end=SIGNED_AT + end, extensions=authority())
            yield (
                f"intermediate {name}",
                self.trusting_fulcio(),
                self._certified(fulcio_leaf(between), chain=[between, self.root]),
            )
            anchor = issue(name, begin=SIGNED_AT + begin, end=SIGNED_AT + end, extensions=authority())
            yield f"anchor {name}", self.trusting_fulcio(anchor), self._certified(fulcio_leaf(anchor))
        for name, eku in (
            ("server", usages(ExtendedKeyUsageOID.SERVER_AUTH)),
            ("any", usages(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)),
            ("two", usages(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CODE_SIGNING)),
        ):
            yield f"leaf for {name}", self.trusting_fulcio(), self._certified(fulcio_leaf(self.root, eku=eku))
        for place, rules in enumerate(POLICY_RULES):
            leaf = fulcio_leaf(self.root, more=rules)
            yield f"leaf with rules about policies {place}", self.trusting_fulcio(), self._certified(leaf)
        yield (
            "leaf with unknown critical",
            self.trusting_fulcio(),
            self._certified(fulcio_leaf(self.root, more=[unknown])),
        )
        forger = Issued(self.root.certificate, new_key())
        yield "forged leaf", self.trusting_fulcio(), self._certified(fulcio_leaf(forger))
        lonely = issue(
            "lonely",
            extensions=[*authority(), (names(EMAIL), False), (raw_extension(ISSUER_V1, OIDC_ISSUER.encode()), False)],
        )
        yield "leaf is the anchor", self.trusting_fulcio(lonely), self._certified(lonely)
        small = root("small", key=rsa_key(1024))
        yield "small anchor", self.trusting_fulcio(small), self._certified(fulcio_leaf(small))
        for kind, key in (("RSA", rsa_key(2048)), ("Ed25519", ed25519.Ed25519PrivateKey.generate())):
            anchor = root(kind, key=key)
            yield f"{kind} anchor", self.trusting_fulcio(anchor), self._certified(fulcio_leaf(anchor))
        for algorithm in (hashes.SHA384(), hashes.SHA512(), hashes.SHA224()):
            leaf = fulcio_leaf(self.root, hash_algorithm=algorithm)
            yield f"signed with {algorithm.name}", self.trusting_fulcio(), self._certified(leaf)

    def _pki_signed(self, leaf: Issued, annotations: Mapping[str, str] | None = None) -> SigstoreSignature:
        return signature_of(self.text, sign(leaf.key, self.text), {CERTIFICATE: leaf.text, **(annotations or {})})

    def _pki_leaf(self, san: Any = None, issuer: Issued | None = None, **options: Any) -> Issued:
        options.setdefault("extensions", [(usages(), False), (san or names(EMAIL), False)])
        return issue("leaf", issuer or self.root, **{"begin": self._now - _DAY, "end": self._now + _DAY, **options})

    def _pki(self) -> Iterator[tuple[str, Requirement, SigstoreSignature]]:
        good = self._pki_leaf()
        yield "good", self.trusting_pki(), self._pki_signed(good)
        yield "other email", self.trusting_pki(subjectEmail="x@example.com"), self._pki_signed(good)
        yield "expired", self.trusting_pki(), self._pki_signed(self._pki_leaf(end=self._now - 3600))
        yield "not yet", self.trusting_pki(), self._pki_signed(self._pki_leaf(begin=self._now + 3600))
        yield "no certificate", self.trusting_pki(), self.signed(good.key)
        yield "log entry ignored", self.trusting_pki(), self._pki_signed(good, {BUNDLE: "x"})
        below = self._pki_leaf(issuer=self.intermediate)
        chain = self.intermediate.text + self.root.text
        from_policy = {"subjectEmail": EMAIL, "caIntermediatesData": b64(self.intermediate.pem)}
        yield "chain", self.trusting_pki(), self._pki_signed(below, {CHAIN: chain})
        yield "no chain", self.trusting_pki(), self._pki_signed(below)
        yield "intermediates of the policy", self.trusting_pki(**from_policy), self._pki_signed(below)
        for name, content in (("empty", b""), ("garbage", b"x"), ("no certificate", pem(b"x", "CERTIFICATE"))):
            members = {"subjectEmail": EMAIL, "caIntermediatesData": b64(content)}
            yield f"{name} intermediates", self.trusting_pki(**members), self._pki_signed(good)
        for name, text in (
            ("white space around", f" \n{good.text}\n "),
            ("two", good.text * 2),
            ("text before", f"x\n{good.text}"),
            ("text behind", f"{good.text}x"),
            ("empty", ""),
        ):
            yield f"certificate: {name}", self.trusting_pki(), self._pki_signed(good, {CERTIFICATE: text})
        other = x509.OtherName(ObjectIdentifier("1.2.3"), b"\x0c\x01x")
        critical = self._pki_leaf(extensions=[(names(others=[other]), True)])
        yield "critical name of unknown kind", self.trusting_pki(), self._pki_signed(critical)
        server = self._pki_leaf(extensions=[(usages(ExtendedKeyUsageOID.SERVER_AUTH), False), (names(EMAIL), False)])
        yield "server certificate", self.trusting_pki(), self._pki_signed(server)
        both = {"subjectEmail": EMAIL, "subjectHostname": "h.example.com"}
        for name, san in (
            ("both", names(EMAIL, hosts=["h.example.com"])),
            ("only the email", names(EMAIL)),
            ("only the host", names(hosts=["h.example.com"])),
        ):
            yield f"both wanted, {name}", self.trusting_pki(**both), self._pki_signed(self._pki_leaf(san))

    def _hosts(self) -> Iterator[tuple[str, Requirement, SigstoreSignature]]:
        for hosts, addresses, wanted in (
            (["h.example.com"], [], "h.example.com"),
            (["H.Example.com"], [], "h.eXample.com"),
            (["*.example.com"], [], "h.example.com"),
            (["h.example.com"], [], "h.example.com."),
            ([], ["192.0.2.1"], "192.0.2.1"),
            ([], ["2001:db8::1"], "[2001:db8::1]"),
            ([], ["192.0.2.2"], "192.0.2.1"),
            (["*.example.com"], [], "a.b.example.com"),
            (["*.example.com"], [], "example.com"),
            (["h*.example.com"], [], "host.example.com"),
            (["h.*.com"], [], "h.example.com"),
            (["*"], [], "localhost"),
            (["*.com"], [], "h.com"),
            (["h.example.com."], [], "h.example.com"),
            (["h.example.com."], [], "h.example.com."),
            (["192.0.2.1"], [], "192.0.2.1"),
            (["a_b.com"], [], "a_b.com"),
            (["h..com"], [], "h..com"),
            (["*.example.com"], [], "*.example.com"),
            (["-a.com"], [], "-a.com"),
            (["a-.com"], [], "a-.com"),
            ([], [], "leaf"),
            (["h.example.com"], [], "g.example.com"),
        ):
            leaf = self._pki_leaf(names(EMAIL, hosts=hosts, addresses=addresses))
            yield f"{wanted} of {hosts + addresses}", self.trusting_pki(subjectHostname=wanted), self._pki_signed(leaf)

    def _flips(self) -> Iterator[tuple[str, Requirement, SigstoreSignature]]:
        signature = self._certified(fulcio_leaf(self.root))
        for position in self._chance.sample(range(len(signature.payload) * 8), FLIPS):
            yield (
                f"payload {position}",
                self.trusting_fulcio(),
                signature._replace(payload=flip(signature.payload, position)),
            )
        for name, text in signature.annotations.items():
            for position in self._chance.sample(range(len(text) * 8), FLIPS):
                if position % 8 == 7:
                    continue  # would not be UTF-8 any more
                changed = flip(text.encode(), position).decode()
                annotations = {**signature.annotations, name: changed}
                yield f"{name} {position}", self.trusting_fulcio(), signature._replace(annotations=annotations)


def raw_numbers(signature: bytes) -> bytes:
    """The two numbers of a DER signature of P-256, 32 bytes each."""
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    return b"".join(number.to_bytes(32, "big") for number in decode_dss_signature(signature))


def trailing_bits(key: Any, text: bytes) -> str:
    """Base64 of a good signature in which bits behind its last byte are set: another spelling of the same bytes."""
    while True:
        encoded = b64(sign(key, text))
        if encoded.endswith("="):
            break
    body = encoded.rstrip("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return body[:-1] + alphabet[alphabet.index(body[-1]) | 1] + "=" * (len(encoded) - len(body))

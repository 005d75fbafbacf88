# SPDX-License-Identifier: Apache-2.0
"""Certificate paths and names: who a certificate speaks for, and whether an anchor vouches for it (signatures.md 5.5).

Paths are judged at a time that is handed in: the time of the log entry for Fulcio, now for PKI.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ...errors import SignatureError, quote
from .der import UTF8_STRING, parse_der
from .keys import Certificate

CHECK_LIMIT = 100  # signatures verified for one path; a chain can be made so that there are very many paths
_READ_EXTENSIONS = frozenset(  # those that may be critical: basicConstraints, keyUsage, extKeyUsage, subjectAltName, …
    f"2.5.29.{number}" for number in (15, 17, 19, 31, 32, 37)
)
_ALTERNATIVE_NAME, _NAME_CONSTRAINTS = "2.5.29.17", "2.5.29.30"
_POLICY_RULES = frozenset({"2.5.29.33", "2.5.29.36"})  # policyMappings, policyConstraints: they make paths invalid
CODE_SIGNING, TIME_STAMPING, ANY_PURPOSE = "1.3.6.1.5.5.7.3.3", "1.3.6.1.5.5.7.3.8", "2.5.29.37.0"
SIGNING_PURPOSES = frozenset({CODE_SIGNING, ANY_PURPOSE})
STAMPING_PURPOSES = frozenset({TIME_STAMPING, ANY_PURPOSE})
_PURPOSES = {CODE_SIGNING: "code signing", TIME_STAMPING: "time stamping"}
_ISSUER_RAW, _ISSUER_DER = "1.3.6.1.4.1.57264.1.1", "1.3.6.1.4.1.57264.1.8"
_BUILD_SIGNER = "1.3.6.1.4.1.57264.1.9"
_OTHER_NAME = "1.3.6.1.4.1.57264.1.7"
_STRING_TAGS = {UTF8_STRING: "utf-8", 0x13: "ascii", 0x16: "ascii"}  # and PrintableString, IA5String
_UTF8 = {UTF8_STRING: "utf-8"}
_HOST_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


def require_path(
    leaf: Certificate,
    intermediates: Iterable[Certificate],
    anchors: Iterable[Certificate],
    time: float,
    *,
    names_exempt: bool,
    purposes: frozenset[str] = SIGNING_PURPOSES,
) -> Certificate:
    """The issuer of `leaf` on a path over `intermediates` to one of `anchors`, all of it valid at `time`.

    Where a certificate names purposes, one of `purposes` must be among them. `names_exempt` lets a critical alternative
    name of unknown kinds pass in the leaf (Fulcio). A leaf that is itself an anchor still needs an issuer
    (signatures.md D10). Raises SignatureError (`untrusted`).
    """
    _require_usable(leaf, "the certificate", time, purposes, names_exempt=names_exempt)
    issuers = [*((each, True) for each in anchors), *((each, False) for each in intermediates)]
    faults: list[str] = []
    paths: list[tuple[Certificate, ...]] = [(leaf,)]
    checks = 0
    while paths:
        path = paths.pop()
        for issuer, is_anchor in issuers:
            if issuer.subject != path[-1].issuer or any(issuer.der == each.der for each in path):
                continue
            checks += 1
            if checks > CHECK_LIMIT:
                raise _untrusted(f"no path to a trusted certificate in {CHECK_LIMIT} attempts")
            try:
                _require_issuing(issuer, time, purposes, below=len(path) - 1)
                path[-1].require_signed_by(issuer)
            except SignatureError as error:
                faults.append(str(error))
                continue
            if is_anchor:
                return (*path, issuer)[1]
            paths.append((*path, issuer))
    raise _untrusted(faults[0] if faults else "no trusted certificate vouches for the certificate")


def require_oidc_issuer(leaf: Certificate, expected: str) -> None:
    """Return only if the Fulcio extensions of `leaf` name `expected`, byte for byte. Raises SignatureError."""
    raw, der = leaf.extensions.get(_ISSUER_RAW), leaf.extensions.get(_ISSUER_DER)
    found = set()
    if raw is not None:
        found.add(raw)
    if der is not None:
        found.add(_der_string(der, _STRING_TAGS, "OIDC issuer extension"))
    if len(found) != 1:
        raise _other_subject(f"expected a certificate with one OIDC issuer, found {len(found)}")
    if found != {expected.encode()}:
        text = found.pop().decode("utf-8", "replace")
        raise _other_subject(f"expected a certificate with OIDC issuer {quote(expected)}, found {quote(text)}")


def require_email(leaf: Certificate, expected: str) -> None:
    """Return only if an e-mail name of `leaf` is `expected`, byte for byte. Raises SignatureError (`certid`)."""
    if expected not in leaf.emails:
        raise _other_subject(f"expected a certificate for {quote(expected)}, found {quote(', '.join(leaf.emails))}")


class CertificateIdentity(NamedTuple):
    """Who a Fulcio certificate must speak for, byte for byte; empty members are not asked for (bundles.md 4.2)."""

    oidc_issuer: str
    email: str = ""
    uri: str = ""
    other_name: str = ""
    build_signer_uri: str = ""

    @property
    def subject(self) -> str:
        """What the alternative name must be, for records."""
        kinds = {"email:": self.email, "URI:": self.uri, "other:": self.other_name}
        return "".join(kind + text for kind, text in kinds.items() if text)


def require_identity(leaf: Certificate, expected: CertificateIdentity) -> None:
    """Return only if `leaf` has one alternative name and all that is `expected` (bundles.md 3.8)."""
    if not expected.subject and not expected.build_signer_uri:
        raise _other_subject("expected a certificate for nobody: the policy names no subject")
    require_oidc_issuer(leaf, expected.oidc_issuer)
    if leaf.name_count != 1:
        raise _other_subject(f"expected a certificate with one alternative name, found {leaf.name_count}")
    texts = [der for number, der in leaf.other_names if number == _OTHER_NAME]
    others = tuple(_der_string(der, _UTF8, "alternative name").decode() for der in texts)
    for wanted, names in ((expected.email, leaf.emails), (expected.uri, leaf.uris), (expected.other_name, others)):
        if wanted and wanted not in names:
            found = ", ".join(leaf.emails + leaf.uris + others)
            raise _other_subject(f"expected a certificate for {quote(wanted)}, found {quote(found)}")
    if expected.build_signer_uri:
        der = leaf.extensions.get(_BUILD_SIGNER)
        signer = b"" if der is None else _der_string(der, _UTF8, "build signer extension")
        if signer != expected.build_signer_uri.encode():
            wanted, found = quote(expected.build_signer_uri), quote(signer.decode())
            raise _other_subject(f"expected a certificate with build signer {wanted}, found {found}")


def require_hostname(leaf: Certificate, expected: str) -> None:
    """Return only if a host name or address of `leaf` covers `expected` (signatures.md 5.6). Raises SignatureError."""
    bare = expected[1:-1] if expected.startswith("[") and expected.endswith("]") else expected
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        if any(_covers(pattern, expected) for pattern in leaf.hosts):
            return
    else:
        if any(ipaddress.ip_address(each) == address for each in leaf.addresses):
            return
    found = quote(", ".join(leaf.hosts + leaf.addresses))
    raise _other_subject(f"expected a certificate for host {quote(expected)}, found {found}")


def _require_usable(
    certificate: Certificate, what: str, time: float, purposes: frozenset[str], *, names_exempt: bool = False
) -> None:
    """What holds for every certificate of a path."""
    if time < certificate.not_before:
        raise _untrusted(f"{what} is valid from {certificate.not_before:.0f} on, judged at {time:.0f}")
    if time > certificate.not_after:
        raise _untrusted(f"{what} is valid until {certificate.not_after:.0f}, judged at {time:.0f}")
    if certificate.purposes is not None and not certificate.purposes & purposes:
        raise _untrusted(f"{what} is not for {_PURPOSES[min(purposes)]}")
    if certificate.extensions.keys() & _POLICY_RULES:
        raise _untrusted(f"{what} has rules about policies, which are not supported")
    unread = certificate.critical - _READ_EXTENSIONS
    if unread:
        raise _untrusted(f"{what} has an unknown critical extension {min(unread)}")
    if _ALTERNATIVE_NAME in certificate.critical and not certificate.has_known_names and not names_exempt:
        raise _untrusted(f"{what} has a critical alternative name of unknown kind")


def _require_issuing(issuer: Certificate, time: float, purposes: frozenset[str], *, below: int) -> None:
    """What holds for a certificate that issued another one, with `below` intermediates between it and the leaf."""
    what = "an issuing certificate"
    _require_usable(issuer, what, time, purposes)
    if not issuer.is_authority or not issuer.may_sign:
        raise _untrusted(f"{what} is not one of a certificate authority")
    if issuer.path_length is not None and below > issuer.path_length:
        raise _untrusted(f"{what} allows {issuer.path_length} certificates below it, found {below}")
    if _NAME_CONSTRAINTS in issuer.extensions:
        raise _untrusted(f"{what} has name constraints, which are not supported")


def _der_string(der: bytes, tags: Mapping[int, str], what: str) -> bytes:
    """The text of a DER string with one of `tags`, with nothing behind it."""
    try:
        element = parse_der(der)
        element.content.decode(tags.get(element.tag, "ascii"))
    except ValueError as error:
        raise _other_subject(f"the {what} is malformed") from error
    if element.tag not in tags:
        raise _other_subject(f"the {what} is malformed")
    return element.content


def _covers(pattern: str, host: str) -> bool:
    """RFC 6125 6.4 as the reference reads it: a wildcard is the whole left-most label and covers exactly one."""
    wanted = host.removesuffix(".").lower().split(".")
    labels = pattern.lower().split(".")
    if not all(_HOST_LABEL.fullmatch(label) for label in wanted) or len(labels) != len(wanted):
        return False
    if labels[0] == "*" and len(labels) > 1:
        return labels[1:] == wanted[1:]
    return labels == wanted


def _untrusted(why: str) -> SignatureError:
    return SignatureError(why, reason="untrusted")


def _other_subject(why: str) -> SignatureError:
    return SignatureError(why, reason="certid")

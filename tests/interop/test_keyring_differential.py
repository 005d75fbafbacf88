# SPDX-License-Identifier: Apache-2.0
"""Key rings whose packets stand in another order, judged beside a current skopeo's library, which lets gpg import them.

An import moves each signature to what it signs, so a revocation or a newer expiry counts wherever it stands; gpgv reads
the ring as it is. We must never accept what the import refuses. `tests/run --long` tries 2,000.
"""

import json
import os
import random
import subprocess
import tempfile
import time
import unittest
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cip.errors import SignatureError
from cip.model.descriptor import digest_of
from cip.programs import DirectPrograms
from cip.trust.openpgp.keyring import merge_key_rings
from cip.trust.openpgp.packets import SIGNATURE, Packet, read_packets
from cip.trust.openpgp.simplesigning import verify_message
from cip.trust.signed.requirement import VerificationRecord
from tests.support import images, keypackets
from tests.support.judge import Judge
from tests.support.keypackets import (
    KEY,
    SUBKEY,
    Made,
    ed25519_body,
    fingerprint,
    key_text,
    signature,
    signature_body,
    subpacket,
)
from tests.support.peers import require_peer
from tests.support.signatures import GpgHome, KeyOptions, payload
from tests.support.simpleblobs import MATCH, NAME, signed_by

SEED = 20261128
REORDERINGS = 2000 if "CIP_TEST_LONG" in os.environ else 150
HISTORIES = 5000 if "CIP_TEST_LONG" in os.environ else 300
_MADE, _LATER, _USED = "20200601T000000", "20200615T000000", "20200701T000000"
Block = list[Packet]
# subpackets (RFC 4880 5.2.3): nothing, not exportable, an issuer that does not exist, an expiry of the key, a torn one
_UNHASHED = (b"", b"\2\4\0", b"\x09\x10nobody!!", b"\5\x09\0\0\0\1", b"\xc8")


class Rings:
    """Keys with every kind of history, each as the packets of its export, and messages of all their signers."""

    def __init__(self, home: GpgHome, text: bytes) -> None:
        self._home, self._text = home, text
        self.blocks: dict[str, Block] = {}
        self.messages: dict[str, dict[str, bytes]] = {}
        for name in ("plain", "subkeys", "expiring", "lapsed", "revoked", "designated", "direct"):
            expiry = "1y" if name == "expiring" else "never"
            getattr(self, f"_{name}")(name, home.create_key(name, KeyOptions(expiry=expiry, time=_MADE)))
        self.armored: dict[str, bytes] = {}  # some of which end in `=`, and some do not
        for number in range(6):
            key = home.create_key("armor" + "x" * number, KeyOptions(time=_MADE))
            self._sign(f"armor {number}", {"primary": key})
            self.armored[f"armor {number}"] = home.export_all(key, armor=True)

    def _subkeys(self, name: str, key: str) -> None:
        """A revoked subkey, an expired one, one whose expiry was lifted, one that got one, and a good one."""
        home = self._home
        short = KeyOptions(expiry="1y", time=_MADE)
        revoked, good, bounded = (home.add_subkey(key, KeyOptions(time=_MADE)) for _ in range(3))
        expired, lifted = home.add_subkey(key, short), home.add_subkey(key, short)
        signers = {"revoked": revoked, "good": good, "bounded": bounded, "expired": expired, "lifted": lifted}
        self._sign(name, {"primary": key, **signers})
        home.run("--quick-add-uid", key, "second name <second@example.com>", time=_LATER)
        before = self._export(key)
        home.run("--quick-set-expire", key, "0", lifted, time=_LATER)
        home.run("--quick-set-expire", key, "1y", bounded, time=_LATER)
        home.revoke_subkey(key, 1)
        self.blocks[name] = _joined(before, self._export(key))

    def _expiring(self, name: str, key: str) -> None:
        """A primary key that first lived for a year and then for ever."""
        self._sign(name, {"primary": key})
        before = self._export(key)
        self._home.run("--quick-set-expire", key, "0", time=_LATER)
        self.blocks[name] = _joined(before, self._export(key))

    def _lapsed(self, name: str, key: str) -> None:
        """A primary key that first lived for ever and then for a year; with two names, one of them revoked."""
        subkey = self._home.add_subkey(key, KeyOptions(time=_MADE))
        self._sign(name, {"primary": key, "subkey": subkey})
        self._home.run("--quick-add-uid", key, "lapsed too <too@example.com>", time="20200610T000000")
        before = self._export(key)
        self._home.run("--quick-set-expire", key, "1y", time=_LATER)
        self._home.run("--quick-revoke-uid", key, "lapsed too <too@example.com>")
        self.blocks[name] = _joined(before, self._export(key))

    def _revoked(self, name: str, key: str) -> None:
        subkey = self._home.add_subkey(key, KeyOptions(time=_MADE))
        self._sign(name, {"primary": key, "subkey": subkey})
        self._home.revoke(key)
        self.blocks[name] = self._export(key)

    def _designated(self, name: str, key: str) -> None:
        """Revoked by the key that it named for that, which is in the ring as well."""
        self._sign(name, {"primary": key})
        revoker = self._home.create_key("revoker", KeyOptions(time=_MADE))
        self._add_revoker(key, revoker)
        command = ["gpg", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", "", "--command-fd", "0"]
        made = subprocess.run(
            [*command, "--desig-revoke", key],
            input=b"y\n0\n\ny\n",
            capture_output=True,
            check=True,
            env=self._home.environment(),
        )
        # not by an import, which ends with an error in gpg 2.4 although it takes the revocation
        _, revocation, *_ = read_packets(self._home.run("--dearmor", text=made.stdout))
        public, *rest = self._export(key)
        self.blocks[name] = [public, revocation, *rest, *self._export(revoker)]

    def _direct(self, name: str, key: str) -> None:
        """A signature over the key alone, which makes it valid for gpgv whatever its names are worth."""
        self._sign(name, {"primary": key})
        self._add_revoker(key, self._home.fingerprints("<plain@example.com>")[0])
        self.blocks[name] = self._export(key)

    def _add_revoker(self, key: str, revoker: str) -> None:
        self._home.run("--command-fd", "0", "--edit-key", key, text=f"addrevoker\n{revoker}\ny\nsave\n".encode())

    def _plain(self, name: str, key: str) -> None:
        self._sign(name, {"primary": key})
        self.blocks[name] = self._export(key)

    def _sign(self, name: str, signers: dict[str, str]) -> None:
        self.messages[name] = {
            what: self._home.sign_as(self._text, f"{signer}!", time=_USED) for what, signer in signers.items()
        }

    def _export(self, key: str) -> Block:
        return list(read_packets(self._home.export_all(key)))


def _joined(before: Block, after: Block) -> Block:
    """`after`, and behind each of its packets the signatures that only `before` has there: gpg keeps the newest."""
    olds = _by_target(before)
    news = _by_target(after)
    found = []
    for target, signatures in news.items():
        found += [target, *signatures, *(each for each in olds.get(target, []) if each not in signatures)]
    return found


def _by_target(block: Block) -> dict[Packet, Block]:
    found: dict[Packet, Block] = {}
    for packet in block:
        if packet.tag == SIGNATURE:
            found[next(reversed(found))].append(packet)
        else:
            found[packet] = []
    return found


def reordered(block: Block, stranger: Block, chance: random.Random) -> Block:
    """The packets in another order; sometimes with copies, sometimes some left out or behind another key."""
    ring = list(block)
    if chance.random() < 0.4:
        ring += stranger
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        kind = chance.random()
        moved = [place for place, packet in enumerate(ring) if place and (packet.tag == SIGNATURE or kind < 0.2)]
        if not moved:
            break
        place = chance.choice(moved)
        if kind < 0.6:  # somewhere else, at the end of the file as often as anywhere
            packet = ring.pop(place)
            ring.insert(chance.choice((len(ring), chance.randrange(1, len(ring) + 1))), packet)
        elif kind < 0.75:  # within its neighbourhood: the order of the signatures behind one packet
            other = min(place + 1, len(ring) - 1)
            ring[place], ring[other] = ring[other], ring[place]
        elif kind < 0.85:
            ring.insert(chance.randrange(1, len(ring) + 1), ring[place])
        elif kind < 0.9:
            del ring[place]
        elif kind < 0.95 and ring[place].body:  # at its end: the numbers, so that it stands right and proves nothing
            packet = ring[place]
            ring[place] = packet._replace(whole=packet.whole[:-1] + bytes([packet.whole[-1] ^ 1]))
        else:
            head, tail = ring[:1], ring[1:]
            chance.shuffle(tail)
            ring = head + tail
    signed = [place for place, packet in enumerate(ring) if packet.tag == SIGNATURE]
    if signed and chance.random() < 0.3:  # what nobody signed, and an import reads all the same
        place = chance.choice(signed)
        ring[place] = _with_unhashed(ring[place], chance.choice(_UNHASHED), chance.random() < 0.5)
    return ring


_CREATED = 1590000000  # in 2020
_REVOKER = Ed25519PrivateKey.generate()
# Subpackets that a self-signature may have (RFC 4880 5.2.3): expiries of signature and key, usage, what is critical
_SAID = (
    *(subpacket(kind, seconds.to_bytes(4, "big")) for kind in (3, 9) for seconds in (0, 86400, 86400, 4 * 10**8)),
    *(subpacket(27, usage) for usage in (b"", b"\0", b"\2", b"\x0c")),
    *(subpacket(kind | critical, b"\0") for kind in (7, 25, 100) for critical in (0, 128)),
    *(subpacket(20 | critical, b"\x80\0\0\0\0\x05\0\x01a@b.cv") for critical in (0, 128)),
    subpacket(12, b"\x80\x16" + bytes.fromhex(fingerprint(ed25519_body(_REVOKER, _CREATED)))),
)


class History:
    """A key of one's own making with signatures about it of every kind, and a message that it or its subkey signed."""

    def __init__(self, chance: random.Random, text: bytes) -> None:
        self._chance = chance
        self._secret, subkey = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        self._key = ed25519_body(self._secret, _CREATED)
        body, name = ed25519_body(subkey, _CREATED), b"maker <maker@example.com>"
        ring = keypackets.packet(KEY, self._key)
        if chance.random() < 0.3:
            ring += self._signed(0x1F)
        if chance.random() < 0.05:
            ring += self._signed(0x20)
        ring += keypackets.packet(keypackets.NAME, name)
        for _ in range(chance.choice((1, 1, 2, 3))):
            ring += self._signed(chance.choice((0x10, 0x13, 0x13)), keypackets.NAME, name)
        if chance.random() < 0.05:
            ring += self._signed(0x30, keypackets.NAME, name)
        ring += keypackets.packet(SUBKEY, body)
        for _ in range(chance.choice((1, 2, 2, 3))):
            ring += self._signed(0x18, SUBKEY, body, self._back(subkey, body))
        if chance.random() < 0.08:
            ring += self._signed(0x28, SUBKEY, body)
        self.ring = ring
        signer, whole = (subkey, body) if chance.random() < 0.7 else (self._secret, self._key)
        issuer = bytes.fromhex(fingerprint(whole))[-8:]
        how = Made(hashed=subpacket(2, (_CREATED + 10**7).to_bytes(4, "big")), secret=signer)
        literal = b"\xcb\xff" + (len(text) + 6).to_bytes(4, "big") + b"b\0\0\0\0\0" + text
        signed = keypackets.packet(SIGNATURE, signature_body(0, text, issuer, how))
        self.message = b"\x90\x0d\x03\0\x08\x16" + issuer + b"\1" + literal + signed

    def _signed(self, kind: int, tag: int = KEY, target: bytes = b"", more: bytes = b"") -> bytes:
        """A signature by the key itself, seldom one that is broken, with a few of `_SAID`."""
        chance = self._chance
        time = subpacket(2, (_CREATED + chance.choice((0, 1, 1, 1000))).to_bytes(4, "big"))
        said = b"".join(chance.choice(_SAID) for _ in range(chance.choice((0, 0, 1, 1, 2))))
        secret = self._secret if chance.random() < 0.95 else _REVOKER
        return signature(kind, self._key, tag, target, Made(hashed=time + said + more, secret=secret))

    def _back(self, subkey: Ed25519PrivateKey, body: bytes) -> bytes:
        """By which a subkey agrees; sometimes there is none, or a broken one."""
        secret = self._chance.choice((subkey,) * 8 + (_REVOKER,))
        how = Made(hashed=subpacket(2, _CREATED.to_bytes(4, "big")), secret=secret)
        back = signature_body(0x19, key_text(self._key) + key_text(body), bytes.fromhex(fingerprint(body))[-8:], how)
        return subpacket(32, back) if self._chance.random() < 0.9 else b""


class ReorderingTest(unittest.TestCase):
    home: Path
    rings: Rings
    judge: Judge

    @classmethod
    def setUpClass(cls) -> None:
        require_peer("gpgv")
        scratch = tempfile.TemporaryDirectory(prefix="cip-rings-")
        cls.addClassCleanup(scratch.cleanup)
        cls.home = Path(scratch.name)
        cls.judge = Judge("policy", home=cls.home)
        cls.addClassCleanup(cls.judge.close)
        with GpgHome() as home:
            cls.rings = Rings(home, payload(NAME, str(digest_of(images.MANIFEST_M))))

    def cases(self) -> Iterator[tuple[str, bytes, bytes]]:
        """Name, ring and message: each key as it is under each of its signers, then in other orders."""
        for key in self.rings.blocks:
            for what, message in self.rings.messages[key].items():
                yield f"{key}, {what}, as exported", _whole(self.rings.blocks[key]), message
                for place, packet in enumerate(self.rings.blocks[key]):
                    if packet.tag == SIGNATURE:  # as if it were not exportable, which anybody can write there
                        ring = list(self.rings.blocks[key])
                        ring[place] = _with_unhashed(packet, _UNHASHED[1], added=True)
                        yield f"{key}, {what}, signature {place} kept at home", _whole(ring), message
        chance = random.Random(SEED)
        for number in range(REORDERINGS):
            key = chance.choice(("subkeys", "subkeys", "expiring", "lapsed", "revoked", "designated", "direct"))
            what = chance.choice(sorted(self.rings.messages[key]))
            ring = reordered(self.rings.blocks[key], self.rings.blocks["plain"], chance)
            yield f"{number}: {key}, {what}", _whole(ring), self.rings.messages[key][what]

    maxDiff = None

    def test_no_order_of_packets_is_accepted_that_an_import_refuses(self) -> None:
        counts: Counter[tuple[str, bool, bool]] = Counter()
        wrong = []
        for name, ring, message in self.cases():
            refusal, theirs = self.ours(ring, message), self.theirs(ring, message)
            kind = "as exported" if name.endswith("as exported") else "reordered"
            counts[kind, not refusal, theirs] += 1
            if theirs is not (not refusal) and (not refusal or kind == "as exported"):
                wrong.append(f"{name}: ours {refusal or 'accepts'}; theirs {theirs}: {ring.hex()}")
        print(f"key rings (kind, ours accepts, skopeo accepts): {dict(counts)}", flush=True)
        self.assertEqual("\n".join(wrong), "")
        self.assertEqual(sum(counts["as exported", accepted, accepted] for accepted in (True, False)), 14)
        self.assertEqual(counts["as exported", True, True], 6)
        # a test that cannot fail is none: both answers occur, and there are orders that only an import accepts
        self.assertGreater(counts["reordered", True, True], REORDERINGS // 20)
        self.assertGreater(counts["reordered", False, False], REORDERINGS // 5)

    def test_no_history_of_a_key_is_accepted_that_an_import_refuses(self) -> None:
        counts: Counter[tuple[bool, bool]] = Counter()
        wrong = []
        chance, text = random.Random(SEED), payload(NAME, str(digest_of(images.MANIFEST_M)))
        for number in range(HISTORIES):
            made = History(chance, text)
            refusal, theirs = self.ours(made.ring, made.message), self.theirs(made.ring, made.message)
            counts[not refusal, theirs] += 1
            if not refusal and not theirs:
                wrong.append(f"{number}: {made.ring.hex()} {made.message.hex()}")
        print(f"histories of keys (ours accepts, skopeo accepts): {dict(counts)}", flush=True)
        self.assertEqual("\n".join(wrong), "")
        self.assertGreater(counts[True, True], HISTORIES // 10)
        self.assertGreater(counts[False, False], HISTORIES // 5)

    def test_no_spelling_of_armor_is_accepted_that_an_import_refuses(self) -> None:
        counts: Counter[tuple[bool, bool]] = Counter()
        wrong = []
        for key, exported in self.rings.armored.items():
            message = self.rings.messages[key]["primary"]
            for case, ring in _spellings(exported):
                refusal, theirs = self.ours(ring, message), self.theirs(ring, message)
                counts[not refusal, theirs] += 1
                if not refusal and not theirs:
                    wrong.append(f"{key}, {case}")
        self.assertEqual(wrong, [])
        print(f"spellings of armor (ours accepts, skopeo accepts): {dict(counts)}", flush=True)
        self.assertGreater(counts[True, True], 20)
        self.assertGreater(counts[False, False], 20)

    def ours(self, ring: bytes, message: bytes) -> str:
        """Why we refuse, empty when we accept."""
        programs = DirectPrograms()
        try:
            merged = merge_key_rings([("ring", ring)])
            verify_message(message, merged, lambda *both: programs.verify(*both), VerificationRecord("here", "simple"))
        except SignatureError as error:
            return str(error)
        return ""

    def theirs(self, ring: bytes, message: bytes) -> bool:
        (self.home / "ring").write_bytes(ring)
        policy = self.home / "policy.json"
        policy.write_text(json.dumps({"default": [signed_by({"keyPath": str(self.home / "ring")}, MATCH)]}))
        image = self.home / "image"
        if not image.exists():
            images.directory(image, images.MANIFEST_M, (images.CONFIG_C, images.LAYER_T))
        (image / "signature-1").write_bytes(message)
        reply = self.judge.ask(policy=policy, image=f"dir:{image}", os="linux", arch="amd64")
        self.assertIn(reply["stage"], ("top", "policy", "done"), reply)
        return bool(reply["accepted"])


def _spellings(exported: bytes) -> Iterator[tuple[str, bytes]]:
    """Other line ends, headers and checksums of an armored key."""
    begin, blank, *body, checksum, end = exported.splitlines()
    sums = {"right": [checksum], "none": [], "wrong": [b"=AAAA"], "blank in it": [b"= " + checksum[1:]]}
    for ending in (b"\n", b"\r\n", b" \t\n", b"\v\n", b"\f\n", b"\0\n", b"\x1c\n"):
        for what, last in sums.items():
            lines = [begin, blank, *body, *last, end]
            yield f"{ending!r}, checksum {what}", b"".join(line + ending for line in lines)
    for header in (
        b"Comment: x",
        b"Comment:",
        b"Comment: ",
        b"Comment:\t",
        b"Comment:\r",
        b"Comment:x",
        b"x",
        b" x: y",
    ):
        yield f"{header!r}", b"\n".join((begin, header, blank, *body, checksum, end, b""))


def _with_unhashed(packet: Packet, more: bytes, added: bool) -> Packet:
    """`packet`, a signature of version 4, with other content in the area that nobody signed."""
    start = 8 + int.from_bytes(packet.body[4:6], "big")
    end = start + int.from_bytes(packet.body[start - 2 : start], "big")
    area = packet.body[start:end] * added + more
    body = packet.body[: start - 2] + len(area).to_bytes(2, "big") + area + packet.body[end:]
    return packet._replace(body=body, whole=b"\xc2\xff" + len(body).to_bytes(4, "big") + body)


def _whole(block: Block) -> bytes:
    return b"".join(packet.whole for packet in block)


if __name__ == "__main__":
    began = time.monotonic()
    unittest.main(exit=False)
    print(f"{time.monotonic() - began:.0f} s for {REORDERINGS} orders")

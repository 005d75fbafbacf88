# SPDX-License-Identifier: Apache-2.0
"""Every exchange of the protocol table, put to this program and to two skopeos; the differences are explicit lists.

Debian 12 has one of protocol 0.2.3 and 13 of 0.2.6, without later methods and the class of an error; the current one
has all of them. Rows in which ours is not upstream's latest answer are in tests/data/deviations.md too.
"""

import json
import re
import socket
import unittest
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tests.support.exchanges import EXCHANGES, Exchange, Places, Talk, make_places, policy_option
from tests.support.jsonparent import KEYS, PACKET_LIMIT, json_proxy
from tests.support.leaks import LeakCheckedTestCase
from tests.support.newer import require_newer
from tests.support.peers import require_peer


class Difference(NamedTuple):
    """What skopeo says instead, and why we do not."""

    theirs: list[str]
    why: str


class Skopeo(NamedTuple):
    """One of them: how it is started, the protocol it speaks, the members of its replies, and what differs."""

    command: Sequence[str]
    version: str
    keys: Sequence[str]
    differences: Mapping[str, Difference]

    def comparable(self, lines: Sequence[str]) -> list[str]:
        """Lines without what this protocol does not have: the class of an error, where replies have none."""
        found = [re.sub(r'^ok "0\.2\.\d"$', "ok VERSION", line) for line in lines]
        return found if "error_code" in self.keys else [re.sub("^err .*", "err", line) for line in found]

    def has(self, exchange: Exchange) -> bool:
        """Whether its protocol has all methods of the exchange."""
        return _numbers(exchange.since) <= _numbers(self.version)


_NOT_OPENED = ["cannot be opened"]
_DOCKER_IN_LAYOUT = Difference(_NOT_OPENED, "it finds no Docker manifest by name in a layout")
_NO_SUCH_CONFIG = Difference(["err other"], "the config of a converted image exists nowhere there (wire.md 8)")
_ASKS_FIRST = "it replies with the size that the registry states (wire.md 5.1)"
_GIVES_UP = "it does not call a body that broke off retryable (decisions.md section 3)"
_RESUMES = "it asks for the rest of a body that broke off once more than we do"
_PART = "ok 200000 +1fd pipe"
_TRUNCATES = ["err other", "err other", 'ok "sha256:M" +1fd pipe', *["err other"] * 4]

BOTH: Mapping[str, Difference] = {
    "B35": Difference(["ends: exit 2"], "FinishPipe without an argument is an index out of range there"),
    "B37": Difference(_TRUNCATES, "1.5 is truncated there (wire.md 4.1)"),
    "B45": Difference(["ok VERSION", "err other"], "a packet that was cut is executed there (wire.md 2)"),
    "B51": Difference(["ok 1", "ok 2"], "it reads the manifest at the first metadata call (wire.md 4.3, Gen A)"),
    "B55 with an unread reply": Difference(["exit 1"], "ECONNRESET is an error there (wire.md 6.2)"),
    "B55 right after a request": Difference(["exit 1"], "EPIPE is an error there (wire.md 6.2)"),
    "B58 GetBlob": Difference(["ok -1 +1fd pipe", "R", "ok null"], _ASKS_FIRST),
    "B62": Difference(["ok VERSION", "err other"], "it reads the policy at OpenImage (wire.md 4.3, Gen A)"),
    "B65 dir": _NO_SUCH_CONFIG,
}

_OLD: Mapping[str, Difference] = {
    **BOTH,
    "B14": _DOCKER_IN_LAYOUT,
    "B15 converted": _DOCKER_IN_LAYOUT,
    "B65": _DOCKER_IN_LAYOUT,
}
_NO_CLASS = [key for key in KEYS if key != "error_code"]

# By the version of the protocol, for each that a release of Debian has: the members of its replies, and what differs.
PROTOCOLS: Mapping[str, tuple[Sequence[str], Mapping[str, Difference]]] = {
    "0.2.3": (
        _NO_CLASS,
        {**_OLD, "B61 OpenImage": Difference(["ok 1"], "it asks the policy at the first metadata call (wire.md 7.2)")},
    ),
    "0.2.6": (
        _NO_CLASS,
        {
            **_OLD,
            "B9 B10": Difference(["err", "err", "ok 0", "err", "ok 1"], "a name that a layout lacks is an error there"),
            "B59 GetBlob": Difference([_PART, "99 other bytes", "err"], _RESUMES),
        },
    ),
    "0.2.8": (
        KEYS,
        {
            **BOTH,
            "B49": Difference(["a reply that was cut"], "GetLayerInfo has no limit there (wire.md 2)"),
            "B50": Difference(["ends: exit 1"], "a reply that the socket does not take is the end there (wire.md 2)"),
            "B54": Difference(
                ["end of file", "exit 0", "fewer bytes", "told nothing"],
                "Shutdown says nothing in error pipes, so half a blob looks whole there (wire.md 6.1)",
            ),
            "B58 GetRawBlob": Difference(["ok -1 +2fd", "R", "told nothing"], _ASKS_FIRST),
            "B59 GetBlob": Difference([_PART, "99 other bytes", "err other"], _GIVES_UP),
            "B59 GetRawBlob": Difference(["ok 200000 +2fd", "99 other bytes", "told other"], _GIVES_UP),
            "B60 500": Difference(["err other"], "5xx is not retryable there (decisions.md section 3)"),
            "B65": _NO_SUCH_CONFIG,
        },
    ),
}


def skopeos() -> Iterator[tuple[str, Skopeo]]:
    """Debian's own, of whichever release this is, and the current one."""
    for name, command in (("Debian's", [require_peer("skopeo")]), ("the current", require_newer("skopeo-current"))):
        words = [*command, "experimental-image-proxy"]
        with json_proxy(command=words) as proxy:  # whose replies are not known before their version
            proxy.parent.send_text(b'{"method":"Initialize","args":[]}')
            version = json.loads(proxy.parent.sock.recv(PACKET_LIMIT))["value"]
        if version not in PROTOCOLS:
            raise AssertionError(f"{name} skopeo: expected one of protocols {', '.join(PROTOCOLS)}, found {version}")
        yield name, Skopeo(words, version, *PROTOCOLS[version])


class SideBySide(LeakCheckedTestCase):
    def test_every_exchange_ends_the_same_or_is_listed(self) -> None:
        with make_places(self.directory) as places:
            for name, skopeo in skopeos():
                for exchange in filter(skopeo.has, EXCHANGES):
                    with self.subTest(f"{name}: {exchange.name}"):
                        found = skopeo.comparable(self.run_theirs(exchange, places, skopeo.command, skopeo.keys))
                        expected = skopeo.comparable(exchange.expected)
                        if exchange.name in skopeo.differences:
                            self.assertNotEqual(found, expected, "listed as a difference and is none")
                            expected = skopeo.comparable(skopeo.differences[exchange.name].theirs)
                        self.assertEqual(found, expected)

    def run_theirs(
        self, exchange: Exchange, places: Places, command: Sequence[str], keys: Sequence[str]
    ) -> Sequence[str]:
        options = (policy_option(self.directory, exchange.policy), "--tls-verify=false", *exchange.options)
        with json_proxy(*options, status=None, command=command, keys=keys) as proxy:
            try:
                return exchange.run(Talk(proxy.parent, proxy.process, places))
            except AssertionError as error:
                if "expected a reply, found the end" in str(error):
                    return [f"ends: exit {proxy.process.wait()}"]
                if str(error) == str(int(socket.MSG_TRUNC)):
                    return ["a reply that was cut"]
                if "'success': False" in str(error):
                    return _NOT_OPENED
                raise

    def test_the_lists_name_exchanges_that_both_can_have(self) -> None:
        for (version, (keys, differences)), least in zip(PROTOCOLS.items(), (40, 40, 70), strict=True):
            protocol = Skopeo((), version, keys, differences)
            comparable = {each.name for each in filter(protocol.has, EXCHANGES)}
            self.assertEqual(set(differences) - comparable, set())
            self.assertGreater(len(comparable), least)

    def test_methods_that_an_old_one_lacks_are_errors_there(self) -> None:
        _, debians = next(skopeos())
        with make_places(self.directory) as places, json_proxy(command=debians.command, keys=debians.keys) as proxy:
            talk = Talk(proxy.parent, proxy.process, places)
            talk.say("Initialize")
            for method in ("OpenImageOptional", "GetLayerInfo", "GetLayerInfoPiped", "GetRawBlob"):
                self.assertRegex(talk.say(method, 1), "^err")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""Every exchange of the protocol table, put to this program and to skopeo; the differences are an explicit list.

The skopeo here is Debian's 1.9.3 with protocol 0.2.3, which lacks the methods of 0.2.4 to 0.2.8 and `error_code`. A
current one is no Debian package, and its module is not to be had from the Go proxy; where upstream's own later answer
is known it stands in the specification's table, and tests/data/deviations.md has the rows where ours is another.
"""

import re
import unittest
from typing import NamedTuple

from tests.support.exchanges import EXCHANGES, Exchange, Places, Talk, make_places, policy_option
from tests.support.jsonparent import KEYS, json_proxy
from tests.support.leaks import LeakCheckedTestCase
from tests.support.peers import require_peer

THEIR_VERSION = "0.2.3"
THEIR_KEYS = [key for key in KEYS if key != "error_code"]


class Difference(NamedTuple):
    """What skopeo says instead, its errors without class, and why we do not."""

    theirs: list[str]
    why: str


_NOT_OPENED = ["cannot be opened"]
_DOCKER_IN_LAYOUT = Difference(_NOT_OPENED, "it finds no Docker manifest by name in a layout")
_OLD_CONFIG = "it encodes configs anew in the way of 2022; later versions as we do (images.md 7.2)"

DIFFERENCES: dict[str, Difference] = {
    "B14": _DOCKER_IN_LAYOUT,
    "B14 dir": Difference(['ok "sha256:S" +1fd pipe', "398 other bytes", "ok null"], _OLD_CONFIG),
    "B15": Difference(["ok null +1fd pipe", "163 other bytes", "ok null"], _OLD_CONFIG),
    "B15 converted": _DOCKER_IN_LAYOUT,
    "B15 dir": Difference(["ok null +1fd pipe", "163 other bytes", "ok null"], _OLD_CONFIG),
    "B35": Difference(["ends: exit 2"], "FinishPipe without an argument is an index out of range there"),
    "B37": Difference(["err", "err", 'ok "sha256:M" +1fd pipe', *["err"] * 4], "1.5 is truncated there (wire.md 4.1)"),
    "B45": Difference(["ok VERSION", "err"], "a packet that was cut is executed there (wire.md 2)"),
    "B51": Difference(["ok 1", "ok 2"], "it reads the manifest at the first metadata call (wire.md 4.3, Gen A)"),
    "B55 with an unread reply": Difference(["exit 1"], "ECONNRESET is an error there (wire.md 6.2)"),
    "B55 right after a request": Difference(["exit 1"], "EPIPE is an error there (wire.md 6.2)"),
    "B58 GetBlob": Difference(
        ["ok -1 +1fd pipe", "R", "ok null"], "it asks the registry before it replies (decisions.md section 1)"
    ),
    "4 absent blob": Difference(["err", "ok null"], "it asks the registry before it replies (decisions.md section 1)"),
    "B61 OpenImage": Difference(["ok 1"], "it asks the policy at the first metadata call (wire.md 7.2, 0.2.6)"),
    "B62": Difference(["ok VERSION", "err"], "it reads the policy at OpenImage (wire.md 4.3, Gen A)"),
    "B65": _DOCKER_IN_LAYOUT,
    "B65 dir": Difference(["err"], "the config of a converted image exists nowhere there (wire.md 8)"),
}


class SideBySide(LeakCheckedTestCase):
    def test_every_exchange_ends_the_same_or_is_listed(self) -> None:
        command = (require_peer("skopeo"), "experimental-image-proxy")
        with make_places(self.directory) as places:
            for exchange in EXCHANGES:
                if _since(exchange) > _numbers(THEIR_VERSION):
                    continue
                with self.subTest(exchange.name):
                    found = self.run_theirs(exchange, places, command)
                    expected = [_plain(line) for line in exchange.expected]
                    if exchange.name in DIFFERENCES:
                        self.assertNotEqual(found, expected, "listed as a difference and is none")
                        expected = DIFFERENCES[exchange.name].theirs
                    self.assertEqual(found, expected)

    def run_theirs(self, exchange: Exchange, places: Places, command: tuple[str, str]) -> list[str]:
        options = (policy_option(self.directory, exchange.policy), "--tls-verify=false", *exchange.options)
        with json_proxy(*options, status=None, command=command, keys=THEIR_KEYS) as proxy:
            try:
                return [_plain(line) for line in exchange.run(Talk(proxy.parent, proxy.process, places))]
            except AssertionError as error:
                if "expected a reply, found the end" in str(error):
                    return [f"ends: exit {proxy.process.wait()}"]
                if "'success': False" in str(error):
                    return _NOT_OPENED
                raise

    def test_the_list_names_exchanges_that_both_can_have(self) -> None:
        comparable = {each.name for each in EXCHANGES if _since(each) <= _numbers(THEIR_VERSION)}
        self.assertEqual(set(DIFFERENCES) - comparable, set())
        self.assertGreater(len(comparable), 40)

    def test_methods_that_it_lacks_are_errors_there(self) -> None:
        command = (require_peer("skopeo"), "experimental-image-proxy")
        with make_places(self.directory) as places, json_proxy(command=command, keys=THEIR_KEYS) as proxy:
            talk = Talk(proxy.parent, proxy.process, places)
            self.assertEqual(proxy.parent.ask("Initialize").value, THEIR_VERSION)
            for method in ("OpenImageOptional", "GetLayerInfo", "GetLayerInfoPiped", "GetRawBlob"):
                self.assertEqual(talk.say(method, 1), "err")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _since(exchange: Exchange) -> tuple[int, ...]:
    return _numbers(exchange.since)


def _plain(line: str) -> str:
    """A line without what the older protocol does not have: the class of an error, this version."""
    return re.sub(r'^ok "0\.2\.\d"$', "ok VERSION", "err" if line.startswith("err ") else line)


if __name__ == "__main__":
    unittest.main()

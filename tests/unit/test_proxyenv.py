# SPDX-License-Identifier: Apache-2.0
"""The rows M7 to M9 of registry.md 10.9 and the rules of 5.3."""

import unittest

from cip.errors import ConfigurationError
from cip.hostconfig.proxyenv import Proxy, choose_proxy
from cip.settings import Credentials, HostEnvironment

PROXY = "http://proxy.test:3128"
SECRET = "hunter2-proxy"


def choose(host: str = "ex.test", port: int = 80, scheme: str = "http", **variables: str) -> Proxy | None:
    return choose_proxy(HostEnvironment(variables), scheme, host, port)


class NoProxyTest(unittest.TestCase):
    def _check(self, entry: str, host: str, port: int, *, direct: bool) -> None:
        with self.subTest(f"{entry} for {host}:{port}"):
            found = choose(host, port, HTTP_PROXY=PROXY, NO_PROXY=entry)
            self.assertEqual(direct, found is None)

    def test_entries_that_cover_a_name(self) -> None:  # M7
        for entry in (
            "ex.test",
            ".test",
            "test",
            "ex.test:80",
            "*",
            "*.test",
            "EX.TEST",
            " ex.test ",
            "a,,ex.test",
            "ex.test:",
        ):
            self._check(entry, "ex.test", 80, direct=True)
        self._check("ex.test", "a.b.ex.test", 80, direct=True)
        self._check("ex.test", "EX.test", 80, direct=True)
        self._check(".ex.test", "a.ex.test", 80, direct=True)
        self._check("*.ex.test", "a.ex.test", 80, direct=True)

    def test_entries_that_do_not_cover_a_name(self) -> None:  # M8
        for entry in (
            ".ex.test",
            "ex.test:443",
            "other",
            "x.test",
            "*.ex.test",
            "10.0.0.0/8",
            ":80",
            "",
            "ex.tes",
            "[ex.test",
        ):
            self._check(entry, "ex.test", 80, direct=False)

    def test_addresses_and_networks(self) -> None:
        for entry, host, direct in (
            ("10.0.0.0/8", "10.1.2.3", True),
            ("10.0.0.0/8", "11.1.2.3", False),
            ("10.1.2.3/8", "10.9.9.9", True),
            ("10.1.2.3", "10.1.2.3", True),
            ("10.1.2.3", "10.1.2.4", False),
            ("10.1.2.3:80", "10.1.2.3", True),
            ("10.1.2.3:81", "10.1.2.3", False),
            ("fd00::/8", "fd00::1", True),
            ("fd00::/8", "10.1.2.3", False),
            ("fd00::1", "fd00:0::1", True),
            ("[fd00::1]:80", "fd00::1", True),
            ("[fd00::1]", "fd00::1", True),
            ("[fd00::1]:81", "fd00::1", False),
            ("10.1.2.3", "::ffff:10.1.2.3", True),
            ("10.0.0.0/33", "10.1.2.3", False),
            ("nonsense/8", "10.1.2.3", False),
        ):
            self._check(entry, host, 80, direct=direct)

    def test_loopback_never_goes_through_a_proxy(self) -> None:  # M9
        for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST", "::ffff:127.0.0.1"):
            with self.subTest(host):
                self.assertIsNone(choose(host, HTTP_PROXY=PROXY))
        self.assertIsNotNone(choose("localhost.example", HTTP_PROXY=PROXY))


class VariablesTest(unittest.TestCase):
    def test_each_scheme_has_its_variable_and_upper_case_wins(self) -> None:
        self.assertIsNone(choose(HTTPS_PROXY=PROXY, ALL_PROXY=PROXY, all_proxy=PROXY))
        self.assertIsNone(choose(scheme="https", HTTP_PROXY=PROXY))
        for variables, expected in (
            ({"HTTPS_PROXY": "http://a:1"}, ("a", 1, "HTTPS_PROXY")),
            ({"https_proxy": "http://b:2"}, ("b", 2, "https_proxy")),
            ({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:2"}, ("a", 1, "HTTPS_PROXY")),
            ({"HTTPS_PROXY": "", "https_proxy": "http://b:2"}, ("b", 2, "https_proxy")),
        ):
            with self.subTest(str(variables)):
                found = choose_proxy(HostEnvironment(variables), "https", "ex.test", 443)
                self.assertEqual(expected, found and (found.host, found.port, found.variable))
        self.assertIsNone(choose(HTTP_PROXY=PROXY, no_proxy="ex.test"))
        self.assertIsNotNone(choose(HTTP_PROXY=PROXY, NO_PROXY="other", no_proxy="ex.test"))

    def test_values_are_urls_or_bare_hosts(self) -> None:
        for value, expected in (
            ("proxy.test", Proxy("http", "proxy.test", 80)),
            ("Proxy.Test:3128", Proxy("http", "proxy.test", 3128)),
            ("http://proxy.test", Proxy("http", "proxy.test", 80)),
            ("HTTPS://proxy.test/", Proxy("https", "proxy.test", 443)),
            ("http://proxy.test:/path?x", Proxy("http", "proxy.test", 80)),
            ("http://10.0.0.1:1", Proxy("http", "10.0.0.1", 1)),
            ("http://[fd00::1]:1", Proxy("http", "fd00::1", 1)),
            ("http://u:p@proxy.test:1", Proxy("http", "proxy.test", 1, Credentials("u", "p"))),
            ("u:p@proxy.test:1", Proxy("http", "proxy.test", 1, Credentials("u", "p"))),
            ("http://u@proxy.test:1", Proxy("http", "proxy.test", 1, Credentials("u", ""))),
            ("http://a%40b:c%3ad%25@proxy.test:1", Proxy("http", "proxy.test", 1, Credentials("a@b", "c:d%"))),
            ("http://u:p:q@proxy.test:1", Proxy("http", "proxy.test", 1, Credentials("u", "p:q"))),
            ("http://u:p@q@proxy.test:1", Proxy("http", "proxy.test", 1, Credentials("u", "p@q"))),
            ("u@d:p%2f!$&'()*+,;=~@@h", Proxy("http", "h", 80, Credentials("u@d", "p/!$&'()*+,;=~@"))),
            ("socks5://u:p@proxy.test", Proxy("socks5", "proxy.test", 1080, Credentials("u", "p"))),
            ("SOCKS5H://[fd00::1]:9050", Proxy("socks5h", "fd00::1", 9050)),
        ):
            with self.subTest(ascii(value)):
                self.assertEqual(expected._replace(variable="HTTP_PROXY"), choose(HTTP_PROXY=value))

    def test_a_value_that_names_no_usable_proxy_is_refused_without_showing_it(self) -> None:
        for value, reason in (
            (f"socks4://u:{SECRET}@h:1", "expected a proxy of scheme http, https or socks5, found 'socks4'"),
            (f"http://u:{SECRET}@h:0", "expected a port from 1 to 65535"),
            (f"http://u:{SECRET}@h:65536", "expected a port from 1 to 65535"),
            (f"http://u:{SECRET}@h:9999999", "expected a port from 1 to 65535"),
            (f"http://u:{SECRET}@h:x", "expected http://"),
            (f"http://u:{SECRET}@", "expected http://"),
            (f"http://u:{SECRET}@h h", "expected http://"),
            (f"http://u:{SECRET}@h\r\nX: y", "expected http://"),
            (f"http://u:{SECRET}@-h", "expected a host name or an address"),
            (f"http://u:{SECRET}@[::x]", "expected a host name or an address"),
            (f"http://u:{SECRET}%0d%0a@h", "contains a line break"),
            (f"http://u:{SECRET}%ff@h", "not valid UTF-8"),
            (f"http://u:{SECRET}\udcff@h", "not valid UTF-8"),
        ):
            with self.subTest(ascii(value)), self.assertRaisesRegex(ConfigurationError, reason) as caught:
                choose(HTTP_PROXY=value)
            self.assertNotIn(SECRET, str(caught.exception))

    def test_a_cgi_environment_cannot_choose_the_proxy(self) -> None:  # registry.md 9, S17
        for variable in ("HTTP_PROXY", "http_proxy"):
            with (
                self.subTest(variable),
                self.assertRaisesRegex(ConfigurationError, f"^{variable}: .*REQUEST_METHOD is set"),
            ):
                choose_proxy(HostEnvironment({"REQUEST_METHOD": "GET", variable: PROXY}), "http", "ex.test", 80)
        self.assertIsNotNone(choose(scheme="https", REQUEST_METHOD="GET", HTTPS_PROXY=PROXY))
        self.assertIsNone(choose("localhost", REQUEST_METHOD="GET", HTTP_PROXY=PROXY))

    def test_a_proxy_is_shown_without_its_password(self) -> None:
        found = choose(HTTP_PROXY=f"http://u:{SECRET}@[fd00::1]:8")
        assert found is not None
        self.assertEqual("[fd00::1]:8", found.address)
        self.assertNotIn(SECRET, repr(found))


if __name__ == "__main__":
    unittest.main()
